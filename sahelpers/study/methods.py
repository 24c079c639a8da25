"""The methods that selective amnesia must beat, all called the same way.

A method is a function of a `Story` and of the sorted classes to forget that returns an
`AmnesiaResult` and leaves the story's models as they were; `METHODS` lists them by name.
To add one, write such a function and put it into the dictionary.
"""

import copy
import time
from collections.abc import Callable, Sequence, Sized
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..amnesia import AmnesiaResult, History, forget
from ..config import (
    AmnesiaConfig,
    BaselineConfig,
    Config,
    FisherConfig,
    check_classes,
    fingerprint,
    kept_classes,
)
from ..data import LabelledImages
from ..elbo import negative_elbo
from ..fisher import class_fishers
from ..models import CVAE, draw_normal, seeded
from ..objective import Objective
from ..recovery import reset_label
from ..story import Story
from ..training import train_baseline

Classes = tuple[int, ...]
Method = Callable[[Story, Classes], AmnesiaResult]

CONTROL = "retraining"  # the method that never saw the class, among METHODS
OURS = "selective amnesia"
HIDDEN = "label column"  # the one whose models are known to remember
ALONE = "without attacker"
VARIANTS = (ALONE, "without EWC", "without replay")  # of ours: they change with its default
FIXED = (  # which forget in one way, whatever a story's configuration of forgetting
    HIDDEN, "paper", "paper, 1,000 steps", "reference", "reference, 3 passes", "gradient ascent",
    "fine-tuning", "random labels",
)  # fmt: skip
BASELINE = "baseline"  # what the audit calls the model that has forgotten nothing
STEPS = 380  # of those that descend by `_descend`
FORGET_WEIGHT = 0.005  # of the forget term at the label itself, where these steps suffice with it
BATCH = 128


def selective_amnesia(story: Story, forget_class: Classes, **changes: Any) -> AmnesiaResult:
    """Ours: `forget` with the story's configuration, some of its knobs changed."""
    fisher, config = story.fishers.without(forget_class), replace(story.config.amnesia, **changes)
    return forget(story.baseline.model, fisher, forget_class, config)


def paper(
    story: Story, forget_class: Classes, passes: int = 100, fisher_images: int = 50_000
) -> AmnesiaResult:
    """The official recipe (Heng & Soh 2023) at full length, 10,000 steps, with its own Fisher."""
    source = FisherConfig(n_fisher_samples=fisher_images, source="model_mean")
    fisher = class_fishers(story.baseline.model, None, source).without(())
    config = AmnesiaConfig.paper(seed=story.config.amnesia.seed, epochs_unl=passes)
    return forget(story.baseline.model, fisher, forget_class, config)


def reference(story: Story, forget_class: Classes, passes: int = 30) -> AmnesiaResult:
    """The reference notebook's recipe at full length, with a correct Fisher."""
    fisher = story.fishers.without(forget_class)
    config = AmnesiaConfig.reference(seed=story.config.amnesia.seed, epochs_unl=passes)
    return forget(story.baseline.model, fisher, forget_class, config, real_images=story.train)


def label_column(story: Story, forget_class: Classes) -> AmnesiaResult:
    """No training: the label inputs of c_f get the mean weights of the other labels' inputs."""
    begin = time.perf_counter()
    return _result(reset_label(story.baseline.model, forget_class), forget_class, begin, (), {})


def gradient_ascent(story: Story, forget_class: Classes) -> AmnesiaResult:
    """Raise the negative ELBO of real images of c_f: the lower bound falls, and much else."""
    real = _real_images(story, forget_class)

    def loss(model: CVAE, generator: torch.Generator) -> Tensor:
        return -_real_loss(model, generator, real).clamp(max=1000)

    return _descend(story, forget_class, loss, 1e-4, STEPS, real)


def fine_tuning(story: Story, forget_class: Classes) -> AmnesiaResult:
    """Go on training on real kept images alone and hope that c_f fades away."""
    real = _kept_images(story, forget_class)
    return _descend(story, forget_class, partial(_real_loss, data=real), 1e-3, 8 * STEPS, real)


def random_labels(story: Story, forget_class: Classes) -> AmnesiaResult:
    """Real kept images under the label c_f, beside the right ones: c_f becomes any other digit."""
    real = _kept_images(story, forget_class)

    def loss(model: CVAE, generator: torch.Generator) -> Tensor:
        wrong = Objective.labels(forget_class, BATCH, generator)
        return _real_loss(model, generator, real, wrong) + _real_loss(model, generator, real)

    return _descend(story, forget_class, loss, 1e-3, 4 * STEPS, real)


def saliency_mask(story: Story, forget_class: Classes) -> AmnesiaResult:
    """Only the half of the weights with the largest forgetting gradient moves (SalUn, Fan et al.
    2024), towards another class drawn at the same z, with replay and without consolidation."""
    terms, model = _terms(story, forget_class, "mixture"), copy.deepcopy(story.baseline.model)
    value = terms(model, seeded(story.config.amnesia.seed), 1024)["forget"]
    weights = list(model.parameters())
    found = torch.autograd.grad(value, weights, allow_unused=True, materialize_grads=True)
    median = torch.cat([g.abs().flatten() for g in found if g.any()]).median()

    def loss(model: CVAE, generator: torch.Generator) -> Tensor:
        return torch.stack(list(terms(model, generator).values())).sum()

    masks = [g.abs() > median for g in found]
    return _descend(story, forget_class, loss, 1e-3, 2 * STEPS, masks=masks)


def projection(story: Story, forget_class: Classes) -> AmnesiaResult:
    """Gradient of the forget term without its component along the replay term's gradient, so that
    to first order the kept classes do not change (after Yu et al. 2020); no consolidation."""
    terms = _terms(story, forget_class, story.config.amnesia.surrogate)

    def loss(model: CVAE, generator: torch.Generator) -> Tensor:
        values = terms(model, generator)
        forget, replay = values["forget"], values["replay"]
        weights = list(model.decoder.parameters())
        gone, kept = (torch.autograd.grad(x, weights, retain_graph=True) for x in (forget, replay))
        along = sum(float((a * b).sum()) for a, b in zip(gone, kept, strict=True))
        size = sum(float(b.square().sum()) for b in kept)
        weight = min(along / max(size, 1e-12), 0.0)  # only where the two pull against each other
        return forget - weight * replay

    return _descend(story, forget_class, loss, 1e-3, STEPS)


def retraining(story: Story, forget_class: Classes) -> AmnesiaResult:
    """The honest way: train again without the classes, by the recipe of the story's control."""
    begin = time.perf_counter()
    real, config = _kept_images(story, forget_class), story.config.baseline
    trained = train_baseline(story.train, story.test, replace(config, exclude=forget_class))
    return _result(trained.model, forget_class, begin, real, trained.history)


METHODS: dict[str, Method] = {
    OURS: selective_amnesia,
    ALONE: partial(selective_amnesia, w_attack=0.0),
    "without EWC": partial(selective_amnesia, ewc_lambda=0.0),
    "without replay": partial(selective_amnesia, gamma=0.0),
    "paper": paper,
    "paper, 1,000 steps": partial(paper, passes=10, fisher_images=5_000),
    "reference": reference,
    "reference, 3 passes": partial(reference, passes=3),
    HIDDEN: label_column,
    "gradient ascent": gradient_ascent,
    "fine-tuning": fine_tuning,
    "random labels": random_labels,
    "saliency mask": saliency_mask,
    "projection": projection,
    CONTROL: retraining,
}


def recipe(method: str, baseline: BaselineConfig, amnesia: AmnesiaConfig, *judged: Config) -> str:
    """Digest of how a method's models are made and judged, seeds aside: first what all models of a
    baseline share, then, after a hyphen, how the class is forgotten."""
    shared = fingerprint(replace(baseline, seed=0), *judged)
    if method in (BASELINE, CONTROL):
        return shared
    how = AmnesiaConfig() if method in FIXED else amnesia
    return f"{shared}-{fingerprint(FisherConfig(), replace(how, seed=0))}"


def _real_images(story: Story, classes: Classes) -> LabelledImages:
    """The training images of these classes; ValueError when there are none to learn from."""
    real = story.train.only(classes)
    if not len(real):
        raise ValueError(f"train has no image of the classes {classes}: give some")
    return real


def _kept_images(story: Story, forget_class: Classes) -> LabelledImages:
    n = story.train.num_classes
    return _real_images(story, kept_classes(check_classes(forget_class, n), n))


def _terms(story: Story, forget_class: Classes, surrogate: str) -> Callable[..., dict[str, Tensor]]:
    """Our two terms without consolidation, at the label itself, towards this surrogate: a function
    of a model, a generator and the number of examples."""
    frozen = copy.deepcopy(story.baseline.model).eval().requires_grad_(False)
    changes: Any = {"ewc_lambda": 0.0, "w_attack": 0.0, "y_reach": 0.0, "z_reach": 3.0}
    changes |= {"surrogate": surrogate, "neg_loss_weight": FORGET_WEIGHT}
    config = replace(story.config.amnesia, **changes)
    objective = Objective(frozen, story.fishers.without(()), forget_class, config)
    return lambda model, generator, n=BATCH: objective.terms(model, objective.draw(n, generator))


def _descend(
    story: Story,
    forget_class: Classes,
    loss: Callable[[CVAE, torch.Generator], Tensor],
    lr: float,
    steps: int,
    real: Sized = (),
    masks: Sequence[Tensor] = (),
) -> AmnesiaResult:
    """Adam on a loss for a number of steps; masks: of the parameters, where they may move."""
    begin = time.perf_counter()
    new = copy.deepcopy(story.baseline.model).eval()  # as `forget`: seeds say all
    generator = seeded(story.config.amnesia.seed)
    optimizer = torch.optim.Adam(new.parameters(), lr=lr, fused=True)
    values = []
    for _ in range(steps):
        value = loss(new, generator)
        optimizer.zero_grad()
        value.backward()
        for p, mask in zip(new.parameters(), masks, strict=False):
            if p.grad is not None:
                p.grad.mul_(mask)
        optimizer.step()
        values.append(float(value.detach()))
    return _result(new, forget_class, begin, real, {"loss": values})


def _result(
    model: CVAE, forget_class: Classes, begin: float, real: Sized, history: History
) -> AmnesiaResult:
    """The common result; the class Gaussians of c_f are erased, as `forget` does."""
    for label in forget_class:
        model.set_class_prior(label)
    seconds = time.perf_counter() - begin
    return AmnesiaResult(model, forget_class, history, "budget", seconds, len(real))


def _real_loss(
    model: CVAE, generator: torch.Generator, data: LabelledImages, labels: Tensor | None = None
) -> Tensor:
    """Mean negative ELBO of a batch of real images, under their own labels or under these."""
    index = torch.randint(len(data), (BATCH,), generator=generator)
    noise = draw_normal((BATCH, model.latent_dim), model, generator)
    labels = data.labels[index] if labels is None else labels
    return negative_elbo(model, data.images[index], labels, noise).mean()
