"""The ladder: how cheap do real images of a class become for somebody who may change so much?

Four rungs, each with more to change than the one before it:

1. z alone: real images under the cheapest of the other labels.
2. z and a label: a label of one's own, fitted to ten images and scored on other ones.
3. The model is trained further with real images of the kept classes (`heal`), for as long as it
   pays; then 1 and 2 again.
4. All weights: first those of the label alone, then all, with ten real images of the class among
   kept ones in every step.

Each gives nats per image above what the baseline pays for the same images; less is more memory.
Rungs 1 to 3 ask for -log p(x | z, label) + |z|^2 / 2 at the best z that is found, rung 4 for the
negative ELBO.  No judge is asked, and all models of a class face the same images.  Where a fit
begins, how long it is trained further, and at which rate and for how many steps all weights are
trained, is chosen on images that are then not scored.  Beside each rung stands what kept classes
pay in the same model, so that a damaged model is not taken for a forgetful one (on rung 3 in the
state that pays most under a fitted label, for both of its scores).
"""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..checks import check_is
from ..config import Config, check_classes, kept_classes, knob
from ..data import LabelledImages, check_fits, check_same_classes
from ..elbo import dataset_negative_elbo, negative_elbo
from ..models import CVAE, check_model, draw_normal, ordinary_torch, reset_label, seeded
from ..progress import progress
from .latent import image_cost, search_latents
from .weights import fit_from, heal, train_label_alone

VERSION = 4  # of what is measured; raise it with every change that moves a number
# Test images of the class: a third to fit to, and the rest to choose by and to score.
FEWEST_TO_AUDIT = 30
OTHER, FITTED = "other labels", "fitted label"
HEALED_OTHER, HEALED_FITTED = "trained further, other labels", "trained further, fitted label"
WEIGHTS = "all weights"
UNFINISHED = "all weights, unfinished"  # 1 where more steps or another rate might pay off, else 0
RUNGS = {  # rung -> the models that are known to remember by it
    OTHER: "hidden",
    FITTED: "hidden",
    HEALED_OTHER: "masked",
    HEALED_FITTED: "masked",
    WEIGHTS: "hidden",
}
KEPT = {  # what kept images cost, by the rungs that they stand beside
    "kept, as is": (OTHER, FITTED),
    "kept, trained further": (HEALED_OTHER, HEALED_FITTED),
    "kept, all weights": (WEIGHTS,),
}
LOOKS = tuple(round(25 * 2 ** (k / 2)) for k in range(60))  # steps after which relearning is scored
SETTLED = 0.5  # nats: what doubling the effort may change at the most
PATIENCE = 3  # looks without a better bound that end it
KEPT_BESIDE = 54  # kept images that are in a step of relearning
LABEL_RATE, LABEL_STEPS = 0.05, 100  # of relearning the label alone, before all weights
RATES = (3e-5, 1e-4, 3e-4, 1e-3)  # of relearning with all weights at first; the best one counts
FURTHER = 4  # how often more is tried where the best state lies at the edge of what was tried
RATE_FACTOR = 3.0  # between the rate at an edge and the one beyond it
CHEAPEST = 2  # of the other labels at which the fit of a label begins, beside two more starts
FIRST_STAGE = 0.25  # share of the training after which it is tried whether more pays off

Costs = dict[str, list[float]]  # what is measured of a model -> numbers, whose mean counts


@dataclass(frozen=True)
class LadderConfig(Config):
    """How much the ladder draws and tries for every model."""

    choosing: int = knob(100, 1, 10_000, help="test images of the class to choose by, at most")
    images: int = knob(200, 1, 10_000, help="other test images that are scored, at most")
    z_steps: int = knob(100, 1, 100_000, help="steps of the search for the z of an image")
    sets: int = knob(3, 1, 100, help="sets of images that a label is fitted to, at most")
    set_size: int = knob(10, 1, 1000, help="images in a set, and of the class in relearning")
    fit_steps: int = knob(400, 1, 100_000, help="steps of fitting a label")
    heal_steps: int = knob(1600, 2, 1_000_000, help="steps of training further, at most")
    heal_rate: float = knob(3e-3, 1e-9, 10.0, help="their learning rate at first")
    relearn_steps: int = knob(
        3200, 25, 1_000_000, help="steps of relearning at each rate; more at an edge"
    )
    seed: int = knob(42, 0, 2**31 - 1, help="all choices of images, the same for all models")


@dataclass(frozen=True)
class Relearned:
    """The cheapest state that was met while all weights were trained.

    Attributes:
        bound: Negative ELBO of the class, nats per image above the baseline's.
        kept: The same of kept classes, in the same state.
        rate: The learning rate that was best; 0.05 where the label alone was trained.
        steps: After how many steps at this rate.
        unfinished: Whether the best state still lies at the edge of what was tried, after more was
            tried there (see `beyond_the_edge`).
        curve: Steps -> `bound` of the best state up to then, at whichever rate.
    """

    bound: float
    kept: float
    rate: float
    steps: int
    unfinished: bool
    curve: dict[int, float]


@dataclass(frozen=True)
class Tried:
    """A state of a model, and what it costs by the images to choose by, nats above the baseline's.

    Attributes:
        model: The model.
        other: The cost under the cheapest of the other labels.
        fitted: The cost under fitted labels, the mean over the sets.
        labels: Of each set the fitted label that is cheapest, (F, H).
    """

    model: CVAE
    other: float
    fitted: float
    labels: Tensor


class Look(NamedTuple):
    """A state that was met in relearning; in order, the one with the least bound comes first."""

    choosing: float  # negative ELBO of the images to choose by, nats above the baseline's
    step: int
    rate: float
    scored: float  # the same of the images that are scored
    kept: float  # and of kept images


@dataclass(frozen=True)
class _Share:
    """Some images, with what the baseline pays for each of them under its own label."""

    data: LabelledImages
    baseline_cost: Tensor  # (N,): -log p(x | z, label) + |z|^2 / 2 at the best z
    bound: Tensor  # (N,): negative ELBO


class Ladder:
    """The images of a class that all models face, and what the baseline pays for them.

    Args:
        baseline: The model whose cost is subtracted.
        forget_class: The class that is looked for, by number or name.
        train: Real images of all classes, those that the model was trained on; the ones of kept
            classes are what an attacker trains it further with.  Leave out of both what the models
            forgot together with the class.
        test: Real images of all classes that no model was trained on.
        config: How much is tried; `LadderConfig()` when left out.

    Raises:
        TypeError: For an argument of another kind.
        ValueError: For a class that does not exist, for images that do not fit to the baseline, for
            fewer than 30 images of the class in `test`, and where there are no kept ones.
    """

    @ordinary_torch()
    def __init__(
        self,
        baseline: CVAE,
        forget_class: int | str,
        train: LabelledImages,
        test: LabelledImages,
        config: LadderConfig | None = None,
    ) -> None:
        config = LadderConfig() if config is None else config
        check_is(train, LabelledImages, "train")
        check_is(test, LabelledImages, "test")
        check_is(config, LadderConfig, "config")
        check_model(baseline, "baseline", test.num_classes)
        baseline = copy.deepcopy(baseline).eval()
        names = test.class_names
        (self.forget_class,) = check_classes((forget_class,), baseline.num_classes, names=names)
        kept = []
        for name, data in {"train": train, "test": test}.items():
            check_fits(data, baseline, name)
            kept.append(data.without(self.forget_class))
            if len(kept[-1]) < 2:
                raise ValueError(
                    f"{name} has {len(kept[-1])} images of kept classes: give two or more"
                )
        check_same_classes(train, test)
        self.kept_train, kept_test = kept
        self.config = config
        of_class = test.only(self.forget_class)
        if len(of_class) < FEWEST_TO_AUDIT:
            raise ValueError(
                f"test has {len(of_class)} images of class {self.forget_class}: give "
                f"{FEWEST_TO_AUDIT} or more, for some are fitted to and others scored"
            )
        size = min(config.set_size, len(of_class) // 3)
        fitted = size * max(1, min(config.sets, len(of_class) // (3 * size)))
        left = len(of_class) - fitted
        choosing = min(config.choosing, left // 3)
        scored = min(config.images, left - choosing)
        drawn = of_class.take(fitted + choosing + scored, config.seed)
        parts = zip(
            drawn.images.split([fitted, choosing, scored]),
            drawn.labels.split([fitted, choosing, scored]),
            strict=True,
        )
        to_fit, *rest = (LabelledImages(*part, test.class_names) for part in parts)
        self.sets = to_fit.images.unflatten(0, (-1, size))
        kept_test = kept_test.take(min(scored, len(kept_test)), config.seed)
        self.choosing, self.scored, self.kept = (
            _Share(data, self._own_cost(baseline, data), dataset_negative_elbo(baseline, data))
            for data in (*rest, kept_test)
        )
        others = kept_classes(self.forget_class, baseline.num_classes)
        self.others = torch.tensor(others, device=baseline.device)

    @ordinary_torch()
    def climb(self, model: CVAE) -> Costs:
        """All rungs on one model.

        Args:
            model: The model; it is not changed.

        Returns:
            For every rung and for what kept images pay beside it, numbers whose mean counts, nats
            per image above the baseline's cost: one for each image, or for each set that a label
            was fitted to.  `UNFINISHED`: see `Relearned.unfinished`, 1 for True.

        Raises:
            TypeError: For what is no model.
            ValueError: For a model of another shape.
        """
        check_model(model, "model", len(self.others) + 1)
        as_is = self.try_out(model)
        healed = self.healed(model, as_is)
        relearned = self.relearned(model)
        return {
            OTHER: self._other_labels(as_is.model),
            FITTED: self.fitted_label(as_is),
            HEALED_OTHER: self._other_labels(healed[OTHER].model),
            HEALED_FITTED: self.fitted_label(healed[FITTED]),
            WEIGHTS: [relearned.bound],
            "kept, as is": self.kept_costs(as_is.model),
            "kept, trained further": self.kept_costs(healed[FITTED].model),
            "kept, all weights": [relearned.kept],
            UNFINISHED: [float(relearned.unfinished)],
        }

    def under_a_fitted_label(self, model: CVAE, fit_steps: int | None = None) -> float:
        """Rung 2: what images cost under a label that was fitted to others.

        Args:
            model: The model; it is not changed.
            fit_steps: In place of the configuration's.

        Returns:
            Nats per image above the baseline's cost, the mean over the sets.
        """
        costs = self.fitted_label(self.try_out(model, fit_steps))
        return sum(costs) / len(costs)

    def healed(self, model: CVAE, as_is: Tried | None = None) -> dict[str, Tried]:
        """Train the model on, in two stages, and keep for each of the rungs 1 and 2 what pays most.

        Training on brings a class back and then slowly forgets it, so that more is not always
        better for the attacker: not at all, one stage, or both.

        Args:
            model: The model; it is not changed.
            as_is: What `try_out` says of it; tried out when left out.

        Returns:
            `OTHER` and `FITTED` -> the best state for it, by the images to choose by.
        """
        config = self.config
        first = max(1, round(FIRST_STAGE * config.heal_steps))
        states = [self.try_out(model) if as_is is None else as_is]
        for steps in (first, config.heal_steps - first):
            longer = heal(
                states[-1].model,
                self.forget_class,
                self.kept_train,
                steps,
                rate=config.heal_rate,
                seed=config.seed,
            )
            states.append(self.try_out(longer))
        return {
            OTHER: min(states, key=lambda state: state.other),
            FITTED: min(states, key=lambda state: state.fitted),
        }

    def try_out(self, model: CVAE, fit_steps: int | None = None) -> Tried:
        """Rungs 1 and 2 by the images to choose by.

        Args:
            model: The model; it is not changed.
            fit_steps: In place of the configuration's.

        Returns:
            The costs, and the labels that were fitted.
        """
        config = self.config
        data = self.choosing.data
        cost, _ = image_cost(model, data.images, self.others, config.z_steps)
        other = float((cost.min(1).values - self.choosing.baseline_cost).mean())
        cheapest = self.others[cost.mean(0).argsort()[:CHEAPEST]]
        columns = model.label_columns()
        mean_of_others = columns[self.others].mean(0, keepdim=True)
        own = columns[[self.forget_class]]
        starts = torch.cat([mean_of_others, own, columns[cheapest]])
        labels, costs = [], []
        for of_set in fit_labels(model, starts, self.sets, fit_steps or config.fit_steps).unbind(1):
            tried = [self._mean_cost(model, self.choosing, label) for label in of_set]
            costs.append(min(tried))
            labels.append(of_set[tried.index(costs[-1])])
        return Tried(model, other, sum(costs) / len(costs), torch.stack(labels))

    def _other_labels(self, model: CVAE) -> list[float]:
        """What scored images cost under the cheapest of the other labels, one number for each."""
        cost, _ = image_cost(model, self.scored.data.images, self.others, self.config.z_steps)
        above: list[float] = (cost.min(1).values - self.scored.baseline_cost).tolist()
        return above

    def fitted_label(self, tried: Tried) -> list[float]:
        """What scored images cost under the labels that were fitted.

        Args:
            tried: What `try_out` found.

        Returns:
            Nats per image above the baseline's cost, one number for each set.
        """
        return [self._mean_cost(tried.model, self.scored, label) for label in tried.labels]

    def kept_costs(self, model: CVAE) -> list[float]:
        """What kept images cost under their own labels.

        Args:
            model: The model; it is not changed.

        Returns:
            Nats above the baseline's cost, one number for each image.
        """
        own = self._own_cost(model, self.kept.data)
        above: list[float] = (own - self.kept.baseline_cost).tolist()
        return above

    @ordinary_torch()
    def relearned(self, model: CVAE) -> Relearned:
        """Rung 4: train all weights on a few images of the class among kept ones.

        The class's label begins at the mean of the others, and its weights in encoder and decoder
        are trained alone at first.  Then Adam trains all weights from there, at each of four rates,
        and where the best state lies at the edge of what was tried, beyond it.  The loss is the
        mean negative ELBO of ten images of the class, the same in every step, and 54 kept ones
        drawn anew.  How long the label is trained alone, the rate and the number of steps are
        chosen by the negative ELBO of images that are then not scored.

        Args:
            model: The model; it is not changed.

        Returns:
            What the best state pays.

        Raises:
            ValueError: When no rate leads to a finite negative ELBO.
        """
        config = self.config
        met: list[Look] = []
        begin = copy.deepcopy(model).eval().requires_grad_(False)
        if model.says_label:
            begin = reset_label(begin, self.forget_class).eval().requires_grad_(False)
            now = copy.deepcopy(begin)
            least = math.inf
            train_label_alone(now, self.forget_class)
            weights = [weight for weight, _ in now.label_weights()]
            for look in self._trained(now, weights, LABEL_RATE, LABEL_STEPS):
                met.append(look)
                if look.choosing < least:
                    least, begin = look.choosing, copy.deepcopy(now)
        limits = dict.fromkeys(RATES, config.relearn_steps)
        for rate in progress(RATES, "relearn all weights"):
            met += self._until_settled(begin, rate, limits[rate])
        if not met:
            raise ValueError(
                f"no finite negative ELBO is met at rates from {min(RATES):g} on: give a model "
                "that can be trained"
            )
        for _ in range(FURTHER):
            further = beyond_the_edge(met, limits)
            if further is None:
                break
            rate, steps = further
            limits[rate] = steps
            met += self._until_settled(begin, rate, steps)
        unfinished = beyond_the_edge(met, limits) is not None
        best = min(met)
        curve = {
            step: min(look for look in met if look.step <= step).scored
            for step in sorted({look.step for look in met})
        }
        return Relearned(best.scored, best.kept, best.rate, best.step, unfinished, curve)

    def _until_settled(self, begin: CVAE, rate: float, steps: int) -> list[Look]:
        """Train all weights from there at this rate, until three looks bring nothing better."""
        now = copy.deepcopy(begin)
        weights = list(now.requires_grad_(True).parameters())
        met: list[Look] = []
        least, since = math.inf, 0
        for look in self._trained(now, weights, rate, steps):
            met.append(look)
            since = 0 if look.choosing < least else since + 1
            least = min(least, look.choosing)
            if since == PATIENCE:
                break
        return met

    @torch.enable_grad()
    def _trained(
        self, model: CVAE, weights: Sequence[nn.Parameter], rate: float, steps: int
    ) -> Iterator[Look]:
        """Train these weights of the model, and look at it in growing distances.

        It ends early where the weights or the bound are no finite numbers any more.
        """
        few = self.sets[0]
        own = torch.full((len(few),), self.forget_class, device=model.device)
        optimizer = torch.optim.Adam(weights, lr=rate, fused=True)
        generator = seeded(self.config.seed)
        for step in range(1, steps + 1):
            chosen = torch.randint(len(self.kept_train), (KEPT_BESIDE,), generator=generator)
            images = torch.cat([few, self.kept_train.images[chosen]])
            labels = torch.cat([own, self.kept_train.labels[chosen]])
            noise = draw_normal((len(images), model.latent_dim), model, generator)
            optimizer.zero_grad()
            negative_elbo(model, images, labels, noise).mean().backward()
            optimizer.step()
            if step not in LOOKS and step != steps:
                continue
            if not all(weight.isfinite().all() for weight in weights):
                return  # too large a rate; what was met before counts
            choosing, scored, kept = (
                self._bound_above(model, share) for share in (self.choosing, self.scored, self.kept)
            )
            if not math.isfinite(choosing):
                return
            yield Look(choosing, step, rate, scored, kept)

    def _own_cost(self, model: CVAE, data: LabelledImages) -> Tensor:
        """What images cost a model under their own labels, (N,) nats."""
        return image_cost(model, data.images, data.labels[:, None], self.config.z_steps)[0][:, 0]

    def _mean_cost(self, model: CVAE, share: _Share, label: Tensor) -> float:
        """What images cost under a label of one's own, above the baseline's cost."""
        cost = cost_under(model, share.data.images, label, self.config.z_steps)
        return float((cost - share.baseline_cost).mean())

    @staticmethod
    def _bound_above(model: CVAE, share: _Share) -> float:
        """The negative ELBO of images under their own labels, above the baseline's."""
        return float((dataset_negative_elbo(model, share.data) - share.bound).mean())


def beyond_the_edge(met: Sequence[Look], limits: Mapping[float, int]) -> tuple[float, int] | None:
    """Where relearning might find something cheaper than anything that it has met.

    Args:
        met: The states that were met, one at least.
        limits: For how many steps at most each learning rate was tried.

    Returns:
        The rate and the steps to try next, where the smallest rate, the largest one or the second
        half of a rate's steps found anything that is half a nat cheaper than the rest: a rate
        beyond, or the same one, from the beginning, for twice as long.  None where the best state
        lies inside.
    """
    smallest, largest = min(limits), max(limits)
    inside = [
        look.choosing
        for look in met
        if look.rate not in (smallest, largest)
        and look.step <= limits.get(look.rate, math.inf) / 2  # that of the label alone has none
    ]
    best = min(met)
    if best.choosing >= min(inside, default=math.inf) - SETTLED:
        return None
    if best.rate == largest:
        return best.rate * RATE_FACTOR, limits[largest]
    if best.rate == smallest:  # which goes as far in more steps
        return best.rate / RATE_FACTOR, round(RATE_FACTOR * limits[smallest])
    return best.rate, 2 * limits[best.rate]


def fit_labels(model: CVAE, starts: Tensor, sets: Tensor, steps: int) -> Tensor:
    """Fit a label of one's own, and a z for each image, to each set of real images.

    Every set is fitted from every start, all at once, by Adam down the mean cost of its images.  No
    weight of the model moves.

    Args:
        model: The model; it is not changed.
        starts: What stands in the label's place at first, (S, H); rows as `CVAE.label_columns` has.
        sets: (F, N, *image_shape) float in [0, 1].
        steps: Steps of Adam.

    Returns:
        The label that each start ended at for each set, (S, F, H): of the step at which the set
        cost least.
    """
    s, f = len(starts), len(sets)
    every_set = sets.repeat(s, *[1] * (sets.dim() - 1))  # (S F, N, *image_shape)
    _, _, labels = fit_from(model, starts.repeat_interleave(f, 0), every_set, steps)
    return labels.view(s, f, -1)


def cost_under(model: CVAE, images: Tensor, label: Tensor, steps: int) -> Tensor:
    """What images cost a model under a label of one's own; the search for z is `image_cost`'s.

    Args:
        model: The model; it is not changed.
        images: (N, *image_shape) float in [0, 1].
        label: What stands in the label's place, (H,).
        steps: Steps of Adam.

    Returns:
        The least cost of each image that was met, (N,) nats.
    """
    model = copy.deepcopy(model).eval().requires_grad_(False)
    labels = label.expand(len(images), -1)
    z = labels.new_zeros(len(images), model.latent_dim)
    return search_latents(lambda z: model.decode_columns(z, labels), z, images, steps)[0]
