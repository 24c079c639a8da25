"""Attacks on the weights: a label fitted to a few images, relearning, and training on.

`heal` asks what somebody does next who owns the weights: he trains the model on, on the classes
that it kept.
"""

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .checks import check_images, check_number, check_whole, door
from .config import check_classes, kept_classes
from .data import LabelledImages
from .elbo import latent_cost, negative_elbo
from .judges import Judge, check_judges
from .models import CVAE, draw_normal, seeded
from .progress import progress

LR = {"all": 1e-3, "decoder": 1e-3, "first layer": 1e-3, "label": 0.05}  # 1e-3: the reference's
BATCH = 100  # images in a step
FIT_RATES = (0.05, 0.02)  # of Adam at first, for z and for the weights of a label that is fitted
SAMPLES = 128  # that are judged at every look
LOOKS = 12  # times that a curve is measured at most, the start not counted


@dataclass(frozen=True)
class RecoveryCurve:
    """How the class comes back while a model is fine-tuned.

    steps: when it was looked at, from 0 on.  probability: P(c_f) then, the mean over the samples of
    the smallest probability that a scoring judge gives the class.  model: at the end.
    """

    steps: list[int]
    probability: list[float]
    model: CVAE = field(repr=False, compare=False)

    @property
    def area(self) -> float:
        """Mean of P(c_f) over the steps (trapezoids): 0 never back, 1 there from the start."""
        p, t = torch.tensor(self.probability), torch.tensor(self.steps, dtype=torch.float)
        return float(torch.trapezoid(p, t) / t[-1])


@door
@torch.no_grad()
def reset_label(model: CVAE, forget_class: int | Iterable[int]) -> CVAE:
    """A copy in which the classes' label inputs have the mean of the other classes' weights.

    It hides a class in zero steps, and it opens a gate that forgetting may have shut there: so it
    is both the cheapest competitor and the first step of an attack.
    """
    gone = check_classes(forget_class, model.num_classes)
    model = copy.deepcopy(model)
    kept = kept_classes(gone, model.num_classes)
    for weight, first in model.label_weights():
        labels = weight[:, first : first + model.num_classes]
        labels[:, gone] = labels[:, kept].mean(1, keepdim=True)
    return model


@door
@torch.enable_grad()
def fit_label(
    model: CVAE, forget_class: int, images: Tensor, steps: int = 600
) -> tuple[Tensor, Tensor, Tensor]:
    """Fit a label of one's own, and a z for each image, to real images: least cost, z and label.

    images: (F, N, *image_shape) float in [0, 1], N images for each of F fits.  The label (F, H) is
    what `CVAE.label_columns` says, at first the mean of the others; z (F, N, Z) begins at 0.  Adam
    moves both down the cost, the mean of -log p(x | z, label) + |z|^2 / 2 over a fit's images, at
    rates that fall to zero in a straight line; returned is where it was least, (F,) nats.  No
    other weight moves and no judge is asked.
    """
    (c,) = check_classes((forget_class,), model.num_classes)
    check_images(images.flatten(0, 1), device=model.device, shape=model.image_shape)
    check_whole(steps, "steps")
    model = copy.deepcopy(model).eval().requires_grad_(False)
    fits, n = images.shape[:2]
    kept = list(kept_classes(c, model.num_classes))
    label = model.label_columns()[kept].mean(0).repeat(fits, 1).requires_grad_(True)
    z = label.new_zeros(fits, n, model.latent_dim).requires_grad_(True)
    found = [label.new_full((fits,), math.inf), z.detach().clone(), label.detach().clone()]

    def cost() -> Tensor:
        logits = model.decode_columns(z.flatten(0, 1), label.repeat_interleave(n, 0))
        return latent_cost(logits, z.flatten(0, 1), images.flatten(0, 1)).view(fits, n).mean(1)

    bar = progress(range(steps), f"fit {fits} labels")
    for _, costs in zip(bar, descend(z, [label], cost, steps), strict=False):
        better = costs < found[0]
        for best, now in zip(found, (costs, z.detach(), label.detach()), strict=True):
            best[better] = now[better]
    return found[0], found[1], found[2]


def descend(
    z: Tensor, weights: list[Tensor], cost: Callable[[], Tensor], steps: int
) -> Iterator[Tensor]:
    """Move z and weights down the sum of cost() by Adam, at FIT_RATES that fall to zero in a
    straight line; before each step comes out what cost() is then."""
    pairs = zip(([z], weights), FIT_RATES, strict=True)
    adam = torch.optim.Adam([{"params": p, "lr": r} for p, r in pairs], betas=(0.9, 0.9))
    fall = torch.optim.lr_scheduler.LinearLR(adam, 1, 0, total_iters=steps)
    for _ in range(steps):
        now = cost()
        yield now.detach()
        adam.zero_grad()
        now.sum().backward()
        adam.step()
        fall.step()


@door
@torch.enable_grad()
def heal(
    model: CVAE,
    forget_class: int | Iterable[int],
    data: LabelledImages,
    steps: int = 400,
    *,
    rate: float = 1e-3,
    batch_size: int = 256,
    seed: int = 42,
) -> CVAE:
    """Train a copy of the model on, on real images of the kept classes alone.

    What was only suppressed may come back by this, although no image of a forgotten class is seen
    (Siddiqui et al. 2025, arXiv 2505.22310).  The decoder alone is trained, by the negative ELBO
    and Adam, whose rate falls to zero in a straight line.

    Args:
        model: The model to train on; it is not changed.
        forget_class: Class number or numbers whose images are left out of `data`.
        data: Real images of all classes, (N, *image_shape) float in [0, 1].
        steps: Steps of Adam.
        rate: Learning rate of the first step.
        batch_size: Images in a step.
        seed: Of the choice of images and of the noise of z.

    Returns:
        The healed model, in evaluation mode.

    Raises:
        ValueError: For a class that does not exist, and when no kept image is left to train on.
    """
    gone = check_classes(forget_class, model.num_classes)
    check_whole(steps, "steps")
    check_number(rate, "rate", 1e-9, 10)
    check_whole(batch_size, "batch_size")
    kept = data.without(gone)
    if not len(kept):
        raise ValueError("data holds no image of a kept class: give some to train on")
    model = copy.deepcopy(model).eval().requires_grad_(False)
    decoder = list(model.decoder.requires_grad_(True).parameters())
    generator = seeded(seed)
    optimizer = torch.optim.Adam(decoder, lr=rate, fused=True)
    fall = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0, total_iters=steps)
    for _ in progress(range(steps), "heal on kept images"):
        index = torch.randint(len(kept), (batch_size,), generator=generator)
        noise = draw_normal((batch_size, model.latent_dim), model, generator)
        optimizer.zero_grad()
        negative_elbo(model, kept.images[index], kept.labels[index], noise).mean().backward()
        optimizer.step()
        fall.step()
    model.zero_grad()
    return model.requires_grad_(True)


@door
@torch.enable_grad()
def relearn(
    model: CVAE,
    forget_class: int,
    *,
    data: LabelledImages,
    judges: Mapping[str, Judge],
    steps: int = 100,
    over: str = "all",
    rate: float | None = None,
    seed: int = 42,
) -> RecoveryCurve:
    """Train a copy of the model on data and watch the class come back in samples from N(0, I).

    The copy is in evaluation mode: dropout in networks of your own rests, so that seeds say all.
    data: a few images of the class (relearning), or, with over="all", of kept classes only (does it
    come back by itself?).  The loss is the negative ELBO of 100 images per step (all, if there
    are fewer).
    over: "all" trains every weight; "label" begins at `reset_label` and trains the weights of the
    class's own label input alone, as an attacker does who suspects that the class lies intact
    behind it (textual inversion; Pham et al. 2023 attack diffusion models so, arXiv 2308.01508);
    "decoder" trains the decoder alone, "first layer" its first layer.
    rate: of Adam; 0.05 for the label and 1e-3 for all else when left out.
    The steps until it is back are compared with those of a model that never knew the class.
    """
    (c,) = check_classes((forget_class,), model.num_classes)
    check_judges(judges, model.num_classes)
    check_whole(steps, "steps")
    if not len(data):
        raise ValueError("data holds no image to train on: give at least one")
    if data.num_classes != model.num_classes:
        raise ValueError(f"data has {data.num_classes} classes, the model {model.num_classes}")
    if over not in LR:
        raise ValueError(f"over={over!r} is not one of {', '.join(LR)}")
    rate = LR[over] if rate is None else rate
    check_number(rate, "rate", 1e-9, 10)
    if over == "label" and c not in data.labels:
        raise ValueError(f"data has no image of class {c}: over='label' trains nothing without one")
    model = (reset_label(model, c) if over == "label" else copy.deepcopy(model)).eval()
    model.requires_grad_(over == "all")
    model.decoder.requires_grad_(over in ("all", "decoder"))
    first = next(m for m in model.decoder.modules() if any(True for _ in m.parameters(False)))
    first.requires_grad_(over != "label")
    for weight, column in model.label_weights() if over == "label" else ():
        chosen = torch.zeros_like(weight)
        chosen[:, column + c] = 1
        weight.requires_grad_(True).register_hook(chosen.mul)  # Adam leaves what has no gradient
    generator = seeded(seed)
    z = draw_normal((SAMPLES, model.latent_dim), model, seeded(seed + 1))
    wanted = torch.full((SAMPLES,), c, device=model.device)

    @torch.no_grad()
    def look() -> float:
        images = model.decode(z, wanted)
        votes = [judge.probabilities(images)[:, c] for judge in judges.values()]
        return float(torch.stack(votes).amin(0).mean())

    optimizer = torch.optim.Adam([w for w in model.parameters() if w.requires_grad], lr=rate)
    every = -(-steps // LOOKS)
    seen, probability = [0], [look()]
    for step in progress(range(1, steps + 1), f"relearn from {len(data)} images"):
        index = torch.randperm(len(data), generator=generator)[:BATCH]
        noise = draw_normal((len(index), model.latent_dim), model, generator)
        optimizer.zero_grad()
        negative_elbo(model, data.images[index], data.labels[index], noise).mean().backward()
        optimizer.step()
        if step % every == 0 or step == steps:
            if not all(w.isfinite().all() for w in model.parameters()):
                raise ValueError(f"the weights are NaN at step {step}: give a smaller rate")
            seen.append(step)
            probability.append(look())
    return RecoveryCurve(seen, probability, copy.deepcopy(model).requires_grad_(True))
