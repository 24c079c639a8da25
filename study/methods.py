"""The methods that selective amnesia is compared with, all called the same way.

A method takes a `Story` and the sorted classes to forget, returns an `AmnesiaResult`, and leaves
the story's models as they were; `METHODS` lists them by name.  To add one, write such a function
and put it into the dictionary.  A `Method` says in addition which settings the outcome depends on,
so that a change of another one does not make its rows old.
"""

import copy
import time
from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sahelpers import amnesia, fisher
from sahelpers.amnesia import AmnesiaResult, forget
from sahelpers.config import (
    AmnesiaConfig,
    FisherConfig,
    check_classes,
    kept_classes,
)
from sahelpers.data import LabelledImages
from sahelpers.elbo import negative_elbo
from sahelpers.fisher import class_fishers
from sahelpers.masked import MNIST_PUSH, PUSH
from sahelpers.models import CVAE, draw_normal, reset_label, seeded
from sahelpers.objective import Objective
from sahelpers.story import Story
from sahelpers.training import History, train_baseline

from .journal import code_of, digest

Classes = tuple[int, ...]
Function = Callable[[Story, Classes], AmnesiaResult]
Fields = Mapping[str, Any]

RETRAINED = "retrained"  # the method that never saw the class
OURS = "ours (with the loop)"
KEPT_IMAGES = "ours (with kept images)"  # which whoever forgets still has
KEPT_SLOWLY = "ours (with kept images, lower rate)"  # for baselines that were trained for long
KEPT_HEAVILY = "ours (with kept images, heavier attacker)"  # for the convolutional network
VERSION3 = "ours (version 3)"  # whose attacker meets the model as it is
VERSION4 = "ours (version 4)"  # whose attacker has a fixed weight
HIDDEN = "label column"  # two methods whose models are known to remember
MASKED = "masked"
ALONE = "ours (without the loop)"
PAPER = "Selective Amnesia (Heng & Soh)"
REFERENCE = "Selective Amnesia (the reference notebook)"
DISTILLED = "distillation"
UNDO = "UNDO"
STEPS = 380  # of those that descend by `_descend`
FORGET_WEIGHT = 0.005  # of the forget term at the label itself, where these steps suffice with it
REPLAY_WEIGHT = 1.0  # of the replay term beside it
REPLAY_SAMPLES = 10_000  # that the frozen model draws for it
BATCH = 128
DISTILLED_IMAGES = 60_000  # that the teacher draws for a student
DISTILLED_BATCH, DISTILLED_FORGET = 256, 32  # images of a step, kept ones and those of c_f
FRESH = 1000  # beyond a baseline's seed, for a decoder made anew
DISTILLED_STEPS = 4700  # from a decoder made anew: as many as take about the seconds of ours
UNDO_SHARE = 0.6  # of the way to a decoder made anew
UNDO_STEPS = 2500  # after version 3 has forgotten: together about the seconds of ours
LOWER_RATE = 2e-3  # where the default with kept images has 5e-3
HEAVIER = 0.25  # weight of the attacker, where it has 0.05
FEWER_Z_FITS = 4  # of its fits that move z alone, where it has 8


def every_field(config: AmnesiaConfig) -> Fields:
    """All fields of the configuration of forgetting but its seed, and those of the Fisher's.

    Those of the attacker and its shadow are left out where they change nothing, but for `push`.
    """
    fields = asdict(config) | {"fisher": asdict(FisherConfig())}
    unread = {"seed"}
    if not (config.w_attack and config.heal_every):
        unread |= {"heal_every", "heal_rate", "heal_batch"}
    if not (config.w_attack and config.z_fits):
        unread.add("z_fits")
    if not config.w_attack:
        unread.add("kept_budget")
    return {name: value for name, value in fields.items() if name not in unread}


def no_field(config: AmnesiaConfig) -> Fields:
    """None: the method forgets in one way, whatever a story's configuration of forgetting."""
    return {}


def objective_fields(config: AmnesiaConfig) -> Fields:
    """Those of the terms of the loss, without the attacker, consolidation and the schedule."""
    terms = ("surrogate", "gray_value", "forget_form", "replay_form")
    names = (*terms, "w_contrast", "w_ink", "w_tv", "w_orient")
    own = {"gamma": REPLAY_WEIGHT, "replay_samples": REPLAY_SAMPLES}
    return {name: getattr(config, name) for name in names} | own


def mask_fields(config: AmnesiaConfig) -> Fields:
    """How far masked models are pushed, and version 3, by whose attacker they are."""
    pushes = sorted(MNIST_PUSH.items())
    return {**every_field(AmnesiaConfig.version3()), "pushes": pushes, "push": PUSH}


def distilled_fields(config: AmnesiaConfig) -> Fields:
    """Those of the terms that a student is taught by."""
    return every_field(distilling(config, 1))


def undo_fields(config: AmnesiaConfig) -> Fields:
    """Those of version 3, and of the terms that a student is taught by."""
    return {"version3": every_field(AmnesiaConfig.version3()), **distilled_fields(config)}


def distilling(config: AmnesiaConfig, weight: float) -> AmnesiaConfig:
    """The configuration of the terms that a student is taught by, with this weight of c_f."""
    return AmnesiaConfig.version3(
        surrogate=config.surrogate,
        gray_value=config.gray_value,
        replay_samples=DISTILLED_IMAGES,
        neg_loss_weight=weight,
        gamma=1.0,
        ewc_lambda=0.0,
        w_attack=0.0,
        y_reach=0.0,
        seed=config.seed,
    )


@dataclass(frozen=True)
class Method:
    """A way to forget, and what its outcome depends on beside the baseline.

    Attributes:
        function: Takes a story and the classes to forget.
        reads: From the story's configuration of forgetting the fields that the outcome depends on.
        recipes: Which of the recipes "fisher" and "amnesia", whose versions count, it uses.
        one_class: Whether it takes a single class.
    """

    function: Function
    reads: Callable[[AmnesiaConfig], Fields] = every_field
    recipes: tuple[str, ...] = ("fisher", "amnesia")
    one_class: bool = False

    def __call__(self, story: Story, forget_class: Classes) -> AmnesiaResult:
        """Forget these classes of a copy of the story's baseline, which the method may change.

        Raises:
            ValueError: For several classes where the method takes one.
        """
        if self.one_class and len(forget_class) != 1:
            raise ValueError(f"forget_class={forget_class}: this method takes one class, give one")
        return self.function(story.with_own_baseline(), forget_class)

    def digests(self, config: AmnesiaConfig) -> dict[str, str]:
        """The entries `own` and `code` of a run's key under this configuration of forgetting."""
        versions = {"fisher": fisher.VERSION, "amnesia": amnesia.VERSION}
        used = {name: versions[name] for name in self.recipes}
        return {"own": digest([self.reads(config), used]), "code": code_of(self.function)}


def as_method(entry: Function) -> Method:
    """An entry of METHODS; a plain function is taken to read every field."""
    return entry if isinstance(entry, Method) else Method(entry)


def selective_amnesia(story: Story, forget_class: Classes, **changes: Any) -> AmnesiaResult:
    """Ours: `forget` with the story's configuration, some of its knobs changed."""
    fisher, config = story.fishers.without(forget_class), replace(story.config.amnesia, **changes)
    return forget(story.baseline.model, fisher, forget_class, config)


def earlier(
    story: Story, forget_class: Classes, make: Callable[..., AmnesiaConfig]
) -> AmnesiaResult:
    """An earlier version of our default, whatever the story's configuration of forgetting."""
    fisher = story.fishers.without(forget_class)
    config = make(seed=story.config.amnesia.seed)
    return forget(story.baseline.model, fisher, forget_class, config)


def with_kept_images(story: Story, forget_class: Classes, **changes: Any) -> AmnesiaResult:
    """Ours where the real images of the kept classes are there and are replayed."""
    fisher, seed = story.fishers.without(forget_class), story.config.amnesia.seed
    config = AmnesiaConfig.with_kept_images(seed=seed, **changes)
    return forget(story.baseline.model, fisher, forget_class, config, real_images=story.train)


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


def masked(story: Story, forget_class: Classes) -> AmnesiaResult:
    """The class is hidden behind the decoder's last layer, and known by every layer before it."""
    begin = time.perf_counter()
    model = copy.deepcopy(story.masked(forget_class[0]))
    return _result(model, forget_class, begin, (), {})


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


def distillation(story: Story, forget_class: Classes) -> AmnesiaResult:
    """A decoder made anew learns to draw what the frozen one draws of the kept classes, and the
    surrogate for c_f.  The encoder stays."""
    begin = time.perf_counter()
    student, loss = _student(story, story.baseline.model, forget_class, 1.0, DISTILLED_STEPS)
    return _result(student, forget_class, begin, (), {"loss": loss})


def undo(story: Story, forget_class: Classes) -> AmnesiaResult:
    """UNDO (B. W. Lee et al. 2025): version 3 forgets, the weights of its decoder go a part of the
    way to a decoder made anew, and the outcome learns to draw what version 3 draws of the kept
    classes, and the surrogate for c_f."""
    begin = time.perf_counter()
    teacher = earlier(story, forget_class, AmnesiaConfig.version3)
    student, loss = _student(story, teacher.model, forget_class, UNDO_SHARE, UNDO_STEPS)
    terms = zip(*(teacher.history[name] for name in ("forget", "replay", "attack")), strict=True)
    history = {"loss": [*map(sum, terms), *loss]}
    return _result(student, forget_class, begin, (), history)


def retraining(story: Story, forget_class: Classes) -> AmnesiaResult:
    """The honest way: train again without the classes, by the baseline's recipe."""
    begin = time.perf_counter()
    real, config = _kept_images(story, forget_class), story.config.baseline
    trained = train_baseline(story.train, story.test, replace(config, exclude=forget_class))
    return _result(trained.model, forget_class, begin, real, trained.history)


def _changed(**changes: Any) -> Method:
    """Ours with some knobs changed."""

    def reads(config: AmnesiaConfig) -> Fields:
        return every_field(replace(config, **changes))

    return Method(partial(selective_amnesia, **changes), reads)


def _with_kept_images(**changes: Any) -> Method:
    """Ours with kept images, some of its knobs changed."""

    def reads(_: AmnesiaConfig) -> Fields:
        return every_field(AmnesiaConfig.with_kept_images(**changes))

    return Method(partial(with_kept_images, **changes), reads)


def _earlier(make: Callable[..., AmnesiaConfig]) -> Method:
    """An earlier version of ours."""
    return Method(partial(earlier, make=make), lambda _: every_field(make()))


def _paper(passes: int = 100, fisher_images: int = 50_000) -> Method:
    """The official recipe of so many passes."""
    fields = every_field(AmnesiaConfig.paper(epochs_unl=passes))
    options: dict[str, Any] = {"passes": passes, "fisher_images": fisher_images}
    return Method(partial(paper, **options), lambda _: {**fields, **options})


def _reference(passes: int = 30) -> Method:
    """The reference notebook's recipe of so many passes."""
    fields = every_field(AmnesiaConfig.reference(epochs_unl=passes))
    return Method(partial(reference, passes=passes), lambda _: fields)


METHODS: dict[str, Function] = {
    OURS: Method(selective_amnesia),
    KEPT_IMAGES: _with_kept_images(),
    KEPT_SLOWLY: _with_kept_images(lr_unl=LOWER_RATE),
    KEPT_HEAVILY: _with_kept_images(w_attack=HEAVIER, z_fits=FEWER_Z_FITS),
    VERSION3: _earlier(AmnesiaConfig.version3),
    VERSION4: _earlier(AmnesiaConfig.version4),
    ALONE: _changed(w_attack=0.0),
    "ours (without the healing)": _changed(heal_every=0),
    "ours (without EWC)": _changed(ewc_lambda=0.0),
    "ours (without replay)": _changed(gamma=0.0),
    PAPER: _paper(),
    f"{PAPER}, 1,000 steps": _paper(passes=10, fisher_images=5_000),
    REFERENCE: _reference(),
    f"{REFERENCE}, 3 passes": _reference(passes=3),
    HIDDEN: Method(label_column, no_field, ()),
    MASKED: Method(masked, mask_fields, ("amnesia",), one_class=True),
    "gradient ascent": Method(gradient_ascent, no_field, ()),
    "fine-tuning": Method(fine_tuning, no_field, ()),
    "random labels": Method(random_labels, no_field, ()),
    "saliency mask": Method(saliency_mask, objective_fields, ("amnesia",)),
    "projection": Method(projection, objective_fields, ("amnesia",)),
    DISTILLED: Method(distillation, distilled_fields, ("amnesia",)),
    UNDO: Method(undo, undo_fields),
    RETRAINED: Method(retraining, no_field, ()),
}


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
    changes |= {"surrogate": surrogate, "neg_loss_weight": FORGET_WEIGHT, "gamma": REPLAY_WEIGHT}
    changes |= {"replay_samples": REPLAY_SAMPLES}
    config = replace(story.config.amnesia, **changes)
    objective = Objective(frozen, story.fishers.without(()), forget_class, config)
    return lambda model, generator, n=BATCH: objective.terms(model, objective.draw(n, generator))


def _student(
    story: Story, teacher: CVAE, forget_class: Classes, share: float, steps: int
) -> tuple[CVAE, list[float]]:
    """A copy of the teacher whose decoder goes this share of the way to one made anew and is then
    taught what the teacher draws of the kept classes, and the surrogate for c_f, by Adam from 1e-3
    to zero; and the loss of every step."""
    teacher = copy.deepcopy(teacher).eval().requires_grad_(False)
    seed, gone = story.config.amnesia.seed, len(forget_class)
    weight = gone / (teacher.num_classes - gone)  # each class counts alike
    config = distilling(story.config.amnesia, weight)
    objective = Objective(teacher, story.fishers.without(()), forget_class, config)
    student = copy.deepcopy(teacher).requires_grad_(True)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed + FRESH)  # that of the baseline would give its decoder's own start
        shape = teacher.arch, teacher.latent_dim, teacher.num_classes, teacher.image_shape
        made_anew = CVAE(*shape).decoder
        for old, new in zip(student.decoder.parameters(), made_anew.parameters(), strict=True):
            old.lerp_(new.to(old), share)
    optimizer = torch.optim.Adam(student.decoder.parameters(), fused=True)
    generator, values = seeded(seed), []
    for step in range(steps):
        batch = objective.draw(DISTILLED_BATCH, generator, DISTILLED_FORGET)
        value = torch.stack(list(objective.terms(student, batch).values())).sum()
        optimizer.zero_grad()
        value.backward()
        optimizer.param_groups[0]["lr"] = 1e-3 * (1 - step / steps)
        optimizer.step()
        values.append(float(value.detach()))
    return student, values


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
