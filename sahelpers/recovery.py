"""Attacks that change the weights: relearning from a few images, and harmless fine-tuning."""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .checks import check_is, check_whole
from .config import check_classes
from .data import LabelledImages
from .elbo import elbo_terms
from .judges import Judge, check_judges
from .models import CVAE, check_model, draw_normal, seeded
from .progress import progress

LR = {"all": 1e-3, "label": 0.05}  # of Adam; the first is the reference training's
LOOKS = 12  # times that a curve is measured at most, the start not counted


@dataclass(frozen=True)
class RecoveryCurve:
    """How the class comes back while a model is fine-tuned.

    steps: when it was looked at, from 0 on.  probability: P(c_f) then, the mean over the samples of
    the smallest probability that a scoring judge gives the class.
    images: samples at the end, (16, 1, 28, 28).
    """

    steps: list[int]
    probability: list[float]
    images: Tensor

    @property
    def area(self) -> float:
        """Mean of P(c_f) over the steps (trapezoids): 0 never back, 1 there from the start."""
        p, t = torch.tensor(self.probability), torch.tensor(self.steps, dtype=torch.float)
        return float(torch.trapezoid(p, t) / t[-1])

    def steps_to(self, level: float) -> int | None:
        """The first look at which P(c_f) reached the level; None if it never did."""
        return next(
            (s for s, p in zip(self.steps, self.probability, strict=True) if p >= level), None
        )


@torch.no_grad()
def reset_label(model: CVAE, classes: int | Iterable[int]) -> CVAE:
    """A copy in which the classes' label inputs have the mean of the other classes' weights.

    It hides a class in zero steps, and it opens a gate that forgetting may have shut there: so it
    is both the cheapest competitor and the first step of an attack.
    """
    check_model(model)
    gone = check_classes(classes, model.num_classes)
    model = copy.deepcopy(model)
    others = [c for c in range(model.num_classes) if c not in gone]
    for weight in _first_weights(model):
        labels = weight[:, -model.num_classes :]
        labels[:, list(gone)] = labels[:, others].mean(1, keepdim=True)
    return model


def _first_weights(model: CVAE) -> list[Tensor]:
    """Those that read the label, (out, inputs, ...) each: the last C inputs are the label's."""
    return [first.get_parameter("weight") for first in (model.encoder[0], model.decoder[0])]


def _only_label(model: CVAE, label: int) -> CVAE:
    """The model with every weight frozen but those that read the label."""
    model.requires_grad_(False)
    for weight in _first_weights(model):
        chosen = torch.zeros_like(weight)
        chosen[:, label - model.num_classes] = 1
        weight.requires_grad_(True).register_hook(chosen.mul)  # Adam leaves what has no gradient
    return model


@torch.enable_grad()
def relearn(
    model: CVAE,
    data: LabelledImages,
    forget_class: int,
    judges: Mapping[str, Judge],
    *,
    steps: int = 100,
    batch_size: int = 100,
    samples: int = 128,
    over: str = "all",
    seed: int = 42,
) -> RecoveryCurve:
    """Train a copy of the model on data and watch the class come back in samples from N(0, I).

    data: a few images of the class (relearning), or, with over="all", of kept classes only (does it
    come back by itself?).  The loss is the negative ELBO of batch_size images per step (all, if
    there are fewer).
    over: "all" trains every weight; "label" begins at `reset_label` and trains the weights of the
    class's own label input alone, as an attacker does who suspects that the class lies intact
    behind it (textual inversion; Pham et al. 2023 attack diffusion models so, arXiv 2308.01508).
    The steps until it is back are compared with those of a model that never knew the class.
    """
    check_model(model)
    (forget_class,) = check_classes((forget_class,), model.num_classes)
    check_judges(judges, model.num_classes)
    check_is(data, LabelledImages, "data")
    check_whole(steps, "steps")
    check_whole(batch_size, "batch_size")
    check_whole(samples, "samples", 16)
    check_whole(seed, "seed", 0)
    if not len(data):
        raise ValueError("data holds no image to train on: give at least one")
    if len(data.class_names) != model.num_classes:
        raise ValueError(
            f"data has {len(data.class_names)} classes, the model {model.num_classes}: they must "
            "be the same"
        )
    if over not in LR:
        raise ValueError(f"over={over!r} is not one of {', '.join(LR)}")
    if over == "label":
        if not len(data.only(forget_class)):
            raise ValueError(
                f"data has no image of class {forget_class}: over='label' trains nothing without "
                "one"
            )
        model = _only_label(reset_label(model, forget_class), forget_class)
    else:
        model = copy.deepcopy(model).requires_grad_(True)
    model.train()
    generator = seeded(seed)
    z = draw_normal((samples, model.latent_dim), model, seeded(seed + 1))
    wanted = torch.full((samples,), forget_class, device=model.device)

    @torch.no_grad()
    def look() -> float:
        votes = [j.probabilities(model.decode(z, wanted))[:, forget_class] for j in judges.values()]
        return float(torch.stack(votes).amin(0).mean())

    optimizer = torch.optim.Adam([w for w in model.parameters() if w.requires_grad], lr=LR[over])
    every = -(-steps // LOOKS)
    seen, probability = [0], [look()]
    for step in progress(range(1, steps + 1), f"relearn from {len(data)} images"):
        index = torch.randperm(len(data), generator=generator)[:batch_size]
        images, labels = data.images[index], data.labels[index]
        noise = draw_normal((len(index), model.latent_dim), model, generator)
        optimizer.zero_grad()
        torch.stack(elbo_terms(model, images, labels, noise)).sum(0).mean().backward()
        optimizer.step()
        if step % every == 0 or step == steps:
            seen.append(step)
            probability.append(look())
    with torch.no_grad():
        return RecoveryCurve(seen, probability, model.decode(z[:16], wanted[:16]))
