"""The methods that selective amnesia must beat, all called the same way.

A method is a function of a `Task` that returns an `AmnesiaResult`; `METHODS` lists them by name.
To add one, write such a function and put it into the dictionary, or pass it on directly.
"""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from .amnesia import AmnesiaResult, forget
from .checks import check_is
from .config import AmnesiaConfig, BaselineConfig, FisherConfig, check_classes
from .data import LabelledImages
from .elbo import elbo_terms
from .fisher import ClassFishers, class_fishers
from .models import CVAE, check_model, draw_normal, seeded
from .objective import Batch, Objective
from .recovery import reset_label
from .surrogates import make_surrogate
from .training import retrain_without

CONTROL = "retraining"  # the method that never saw the class, among METHODS
STEPS = 380  # of those that descend by `_descend`
FORGET_WEIGHT = 0.005  # of the forget term at the label itself, where these steps suffice with it
BATCH = 128


@dataclass(frozen=True)
class Task:
    """What every method is given: the model, what to forget, and all it could wish to use."""

    model: CVAE
    forgotten: tuple[int, ...]
    fishers: ClassFishers
    train: LabelledImages
    baseline: BaselineConfig  # how the model was trained, for retraining
    config: AmnesiaConfig = field(default_factory=AmnesiaConfig)

    def __post_init__(self) -> None:
        check_model(self.model)
        for name, kind in (("fishers", ClassFishers), ("train", LabelledImages)):
            check_is(getattr(self, name), kind, name)
        check_is(self.baseline, BaselineConfig, "baseline")
        check_is(self.config, AmnesiaConfig, "config")
        for name, have in (("fishers", self.fishers.by_class), ("train", self.train.class_names)):
            if len(have) != self.model.num_classes:
                raise ValueError(
                    f"{name} has {len(have)} classes, the model {self.model.num_classes}"
                )
        forgotten = check_classes(self.forgotten, self.model.num_classes, allow_empty=True)
        object.__setattr__(self, "forgotten", forgotten)

    @property
    def kept(self) -> tuple[int, ...]:
        """The other classes."""
        return tuple(c for c in range(self.model.num_classes) if c not in self.forgotten)


Method = Callable[[Task], AmnesiaResult]


def selective_amnesia(task: Task) -> AmnesiaResult:
    """Ours: `forget` with the task's configuration."""
    return forget(task.model, task.fishers.without(task.forgotten), task.forgotten, task.config)


def without_ewc(task: Task) -> AmnesiaResult:
    """Ours with EWC_LAMBDA = 0."""
    return selective_amnesia(replace(task, config=replace(task.config, ewc_lambda=0.0)))


def without_replay(task: Task) -> AmnesiaResult:
    """Ours with GAMMA = 0."""
    return selective_amnesia(replace(task, config=replace(task.config, gamma=0.0)))


def paper(task: Task, passes: int = 100, fisher_images: int = 50_000) -> AmnesiaResult:
    """The official recipe (Heng & Soh 2023) at full length, 10,000 steps, with its own Fisher."""
    source = FisherConfig(n_fisher_samples=fisher_images, source="model_mean")
    fisher = class_fishers(task.model, None, source).without(())
    config = AmnesiaConfig.paper(seed=task.config.seed, epochs_unl=passes)
    return forget(task.model, fisher, task.forgotten, config)


def reference(task: Task, passes: int = 30) -> AmnesiaResult:
    """The reference notebook's recipe at full length, with a correct Fisher."""
    fisher = task.fishers.without(task.forgotten)
    config = AmnesiaConfig.reference(seed=task.config.seed, epochs_unl=passes)
    return forget(task.model, fisher, task.forgotten, config, real_images=task.train)


def label_column(task: Task) -> AmnesiaResult:
    """No training: the label inputs of c_f get the mean weights of the other labels' inputs."""
    begin = time.perf_counter()
    return _result(reset_label(task.model, task.forgotten), task, begin, 0, {})


def gradient_ascent(task: Task) -> AmnesiaResult:
    """Raise the negative ELBO of real images of c_f: the lower bound falls, and much else."""
    real = _real_images(task, task.forgotten)

    def loss(model: CVAE, generator: torch.Generator) -> Tensor:
        return -_real_loss(model, real, generator).clamp(max=1000)

    return _descend(task, loss, lr=1e-4, steps=STEPS, real_images=len(real))


def fine_tuning(task: Task) -> AmnesiaResult:
    """Go on training on real kept images alone and hope that c_f fades away."""
    real = _real_images(task, task.kept)
    return _descend(
        task,
        lambda model, g: _real_loss(model, real, g),
        lr=1e-3,
        steps=8 * STEPS,
        real_images=len(real),
    )


def random_labels(task: Task) -> AmnesiaResult:
    """Real kept images under the label c_f, beside the right ones: c_f becomes any other digit."""
    real = _real_images(task, task.kept)

    def loss(model: CVAE, generator: torch.Generator) -> Tensor:
        wrong = Objective.labels(task.forgotten, BATCH, generator)
        return _real_loss(model, real, generator, wrong) + _real_loss(model, real, generator)

    return _descend(task, loss, lr=1e-3, steps=4 * STEPS, real_images=len(real))


def saliency_mask(task: Task) -> AmnesiaResult:
    """Only the half of the weights with the largest forgetting gradient moves (SalUn, Fan et al.
    2024), towards another class drawn at the same z, with replay and without consolidation."""
    objective = _objective(task, "mixture")
    model = copy.deepcopy(task.model)
    batch = objective.draw(1024, seeded(task.config.seed))
    value = objective.terms(model, batch)["forget"]
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(value, parameters, allow_unused=True)
    found = [
        torch.zeros_like(p) if g is None else g for p, g in zip(parameters, gradients, strict=True)
    ]
    median = torch.cat([g.abs().flatten() for g in found if g.any()]).median()
    masks = [g.abs() > median for g in found]

    def edit(model: CVAE) -> None:
        for p, mask in zip(model.parameters(), masks, strict=True):
            if p.grad is not None:
                p.grad.mul_(mask)

    def loss(model: CVAE, generator: torch.Generator) -> Tensor:
        return _total(objective.terms(model, objective.draw(BATCH, generator)))

    return _descend(task, loss, lr=1e-3, steps=2 * STEPS, edit=edit)


def projection(task: Task) -> AmnesiaResult:
    """Gradient of the forget term without its component along the replay term's gradient, so that
    to first order the kept classes do not change (after Yu et al. 2020); no consolidation."""
    objective = _objective(task, task.config.surrogate)

    def loss(model: CVAE, generator: torch.Generator) -> Tensor:
        batch: Batch = objective.draw(BATCH, generator)
        terms = objective.terms(model, batch)
        parameters = list(model.decoder.parameters())
        gone = torch.autograd.grad(terms["forget"], parameters, retain_graph=True)
        kept = torch.autograd.grad(terms["replay"], parameters, retain_graph=True)
        along = sum(float((a * b).sum()) for a, b in zip(gone, kept, strict=True))
        size = sum(float(b.square().sum()) for b in kept)
        weight = min(along / max(size, 1e-12), 0.0)  # only where the two pull against each other
        return terms["forget"] - weight * terms["replay"]

    return _descend(task, loss, lr=1e-3, steps=STEPS)


def retraining(task: Task) -> AmnesiaResult:
    """The honest way: train again without the classes."""
    begin = time.perf_counter()
    used = len(_real_images(task, task.kept))
    trained = retrain_without(task.train, task.baseline, task.forgotten)
    return _result(trained.model, task, begin, used, trained.history)


METHODS: dict[str, Method] = {
    "selective amnesia": selective_amnesia,
    "without EWC": without_ewc,
    "without replay": without_replay,
    "paper": paper,
    "paper, 1,000 steps": partial(paper, passes=10, fisher_images=5_000),
    "reference": reference,
    "reference, 3 passes": partial(reference, passes=3),
    "label column": label_column,
    "gradient ascent": gradient_ascent,
    "fine-tuning": fine_tuning,
    "random labels": random_labels,
    "saliency mask": saliency_mask,
    "projection": projection,
    CONTROL: retraining,
}


def _real_images(task: Task, classes: tuple[int, ...]) -> LabelledImages:
    """The training images of these classes; ValueError when there are none to learn from."""
    check_classes(task.forgotten, task.model.num_classes)
    real = task.train.only(classes)
    if not len(real):
        raise ValueError(f"train has no image of the classes {classes}: give some")
    return real


def _objective(task: Task, surrogate: str) -> Objective:
    """Our two terms without consolidation, at the label itself, towards this surrogate."""
    frozen = copy.deepcopy(task.model).eval().requires_grad_(False)
    q = make_surrogate(surrogate, frozen, task.kept, task.config.gray_value)
    config = replace(task.config, ewc_lambda=0.0, y_reach=0.0, neg_loss_weight=FORGET_WEIGHT)
    return Objective(frozen, task.fishers.without(()), task.forgotten, config, q)


def _descend(
    task: Task,
    loss: Callable[[CVAE, torch.Generator], Tensor],
    *,
    lr: float,
    steps: int,
    real_images: int = 0,
    edit: Callable[[CVAE], None] | None = None,
) -> AmnesiaResult:
    """Adam on a loss for a number of steps; edit may change the gradients before each."""
    begin = time.perf_counter()
    new = copy.deepcopy(task.model).train()
    generator = seeded(task.config.seed)
    optimizer = torch.optim.Adam(new.parameters(), lr=lr, fused=True)
    values = []
    for _ in range(steps):
        value = loss(new, generator)
        optimizer.zero_grad()
        value.backward()
        if edit is not None:
            edit(new)
        optimizer.step()
        values.append(float(value.detach()))
    return _result(new.eval(), task, begin, real_images, {"loss": values})


def _result(
    model: CVAE, task: Task, begin: float, real_images: int, history: dict[str, list[float]]
) -> AmnesiaResult:
    """The common result; the class Gaussians of c_f are erased, as `forget` does."""
    for label in task.forgotten:
        model.set_class_prior(label)
    seconds = time.perf_counter() - begin
    return AmnesiaResult(model, task.forgotten, history, "budget", seconds, real_images)


def _real_loss(
    model: CVAE, data: LabelledImages, generator: torch.Generator, labels: Tensor | None = None
) -> Tensor:
    """Mean negative ELBO of a batch of real images, under their own labels or under these."""
    index = torch.randint(len(data), (BATCH,), generator=generator)
    noise = draw_normal((BATCH, model.latent_dim), model, generator)
    labels = data.labels[index] if labels is None else labels
    return torch.stack(elbo_terms(model, data.images[index], labels, noise)).sum(0).mean()


def _total(terms: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(terms.values())).sum()
