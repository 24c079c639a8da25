"""The ladder: how cheap do real images of a class become for somebody who may change so much?

Four rungs, each with more to change than the one before it:

1. z alone: real images under the cheapest of the other labels.
2. z and a label: a label of one's own, fitted to ten images and scored on other ones.
3. The model is first trained on, on real images of the kept classes (`heal`); then 1 and 2 again.
4. All weights, with ten real images of the class among kept ones in every step.

Each gives nats per image above what the baseline pays for the same images; less is more memory.
Rungs 1 to 3 ask for -log p(x | z, label) + |z|^2 / 2 at the best z that is found, rung 4 for the
negative ELBO.  No judge is asked, and all models of a class face the same images.  Wherever the
attacker chooses, such as where to begin or how long to go on, he chooses on one half of the images
that are scored, and the other half is reported.  Beside each rung stands what kept classes pay in
the same model, so that a damaged model is not taken for a forgetful one.
"""

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..checks import check_is
from ..config import Config, check_classes, kept_classes, knob
from ..data import LabelledImages
from ..elbo import dataset_negative_elbo, latent_cost, negative_elbo
from ..models import CVAE, check_model, draw_normal, reset_label, seeded
from ..progress import progress
from .latent import image_cost, search_latents
from .weights import descend, heal

VERSION = 1  # of what is measured; raise it with every change that moves a number
FEWEST = 30  # test images of the class: ten to fit a label to, and ten in each half that is scored
OTHER, FITTED = "other labels", "fitted label"
HEALED_OTHER, HEALED_FITTED = "trained on, other labels", "trained on, fitted label"
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
    "kept, trained on": (HEALED_OTHER, HEALED_FITTED),
    "kept, all weights": (WEIGHTS,),
}
LOOKS = tuple(round(25 * 2 ** (k / 2)) for k in range(60))  # steps after which relearning is scored
SETTLED = 0.5  # nats: what doubling the effort may change at the most
PATIENCE = 3  # looks without a better bound that end it
KEPT_BESIDE = 54  # kept images that are in a step of relearning
RATES = (3e-5, 1e-4, 3e-4, 1e-3)  # of relearning with all weights; the best one counts
CHEAPEST = 2  # of the other labels at which the fit of a label begins, beside two more starts

Costs = dict[str, list[float]]  # what is measured of a model -> numbers, whose mean counts


@dataclass(frozen=True)
class LadderConfig(Config):
    """How much the ladder draws and tries for every model."""

    images: int = knob(200, 2, 10_000, help="test images of the class to choose by and to score")
    z_steps: int = knob(100, 1, 100_000, help="steps of the search for the z of an image")
    sets: int = knob(3, 1, 100, help="sets of images that a label is fitted to, at most")
    set_size: int = knob(10, 1, 1000, help="images in a set, and of the class in relearning")
    fit_steps: int = knob(400, 1, 100_000, help="steps of fitting a label")
    heal_steps: int = knob(3200, 1, 1_000_000, help="steps of training on")
    heal_rate: float = knob(3e-3, 1e-9, 10.0, help="their learning rate at first")
    relearn_steps: int = knob(3200, 25, 1_000_000, help="steps of relearning at most")
    seed: int = knob(42, 0, 2**31 - 1, help="all choices of images, the same for all models")


@dataclass(frozen=True)
class Relearned:
    """The cheapest state that was met while all weights were trained.

    Attributes:
        bound: Negative ELBO of the class, nats per image above the baseline's.
        kept: The same of kept classes, in the same state.
        rate: The learning rate that was best.
        steps: After how many steps.
        unfinished: Whether the smallest rate, the largest one or the second half of the steps
            found anything that is half a nat cheaper than the rest, so that one might go on there.
        curve: Steps -> `bound` of the best state up to then, at whichever rate.
    """

    bound: float
    kept: float
    rate: float
    steps: int
    unfinished: bool
    curve: dict[int, float]


@dataclass(frozen=True)
class _Share:
    """Some images, with what the baseline pays for each of them under its own label."""

    data: LabelledImages
    price: Tensor  # (N,): -log p(x | z, label) + |z|^2 / 2 at the best z
    bound: Tensor  # (N,): negative ELBO


class Ladder:
    """The images of a class that all models face, and what the baseline pays for them.

    Args:
        baseline: The model whose price is subtracted.
        forget_class: The class that is looked for.
        train: Real images of all classes, those that the model was trained on; the ones of kept
            classes are what an attacker trains on with.
        test: Real images of all classes that no model was trained on.
        config: How much is tried; `LadderConfig()` when left out.

    Raises:
        TypeError: For an argument of another kind.
        ValueError: For a class that does not exist, for images that do not fit to the baseline, for
            fewer than 30 images of the class in `test`, and where there are no kept ones.
    """

    def __init__(
        self,
        baseline: CVAE,
        forget_class: int,
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
        (self.forget_class,) = check_classes((forget_class,), baseline.num_classes)
        for name, data in {"train": train, "test": test}.items():
            if (data.num_classes, data.image_shape) != (baseline.num_classes, baseline.image_shape):
                raise ValueError(
                    f"{name} has {data.num_classes} classes and images {data.image_shape}, the "
                    f"baseline {baseline.num_classes} and {baseline.image_shape}: give such images"
                )
            if (n := len(data.without(self.forget_class))) < 2:
                raise ValueError(f"{name} has {n} images of kept classes: give two or more")
        self.config = config
        of_class = test.only(self.forget_class)
        if len(of_class) < FEWEST:
            raise ValueError(
                f"test has {len(of_class)} images of class {self.forget_class}: give {FEWEST} or "
                "more, for some are fitted to and others scored"
            )
        size = min(config.set_size, len(of_class) // 3)
        fitted = size * max(1, min(config.sets, len(of_class) // (3 * size)))
        scored = 2 * (min(config.images, len(of_class) - fitted) // 2)
        drawn = of_class.take(fitted + scored, config.seed)
        self.sets = drawn.images[:fitted].unflatten(0, (-1, size))
        rest = drawn.images[fitted:].chunk(2)
        kept = test.without(self.forget_class)
        kept = kept.take(min(scored // 2, len(kept)), config.seed)
        labels = drawn.labels[: scored // 2]
        halves = [LabelledImages(images, labels, test.class_names) for images in rest]
        self.choosing, self.scored, self.kept = (
            _Share(data, self._own_cost(baseline, data), dataset_negative_elbo(baseline, data))
            for data in (*halves, kept)
        )
        self.kept_train = train.without(self.forget_class)
        others = kept_classes(self.forget_class, baseline.num_classes)
        self.others = torch.tensor(others, device=baseline.device)

    def climb(self, model: CVAE) -> Costs:
        """All rungs on one model.

        Args:
            model: The model; it is not changed.

        Returns:
            For every rung and for what kept images pay beside it, numbers whose mean counts, nats
            per image above the baseline's price: one for each image, or for each set that a label
            was fitted to.  `UNFINISHED`: see `Relearned.unfinished`, 1 for True.

        Raises:
            TypeError: For what is no model.
            ValueError: For a model of another shape.
        """
        config = self.config
        check_model(model, "model", len(self.others) + 1)
        as_is = self.latents_and_label(model)
        healed = self.latents_and_label(
            heal(
                model,
                self.forget_class,
                self.kept_train,
                config.heal_steps,
                rate=config.heal_rate,
                seed=config.seed,
            )
        )
        relearned = self.relearned(model)
        return {
            OTHER: as_is[OTHER],
            FITTED: as_is[FITTED],
            HEALED_OTHER: healed[OTHER],
            HEALED_FITTED: healed[FITTED],
            WEIGHTS: [relearned.bound],
            "kept, as is": as_is["kept"],
            "kept, trained on": healed["kept"],
            "kept, all weights": [relearned.kept],
            UNFINISHED: [float(relearned.unfinished)],
        }

    def latents_and_label(self, model: CVAE, fit_steps: int | None = None) -> Costs:
        """Rungs 1 and 2: the costs under other labels, under a fitted one, and of kept images.

        Args:
            model: The model; it is not changed.
            fit_steps: In place of the configuration's.

        Returns:
            `OTHER` and "kept": a number for each image.  `FITTED`: one for each set.
        """
        config = self.config
        few = self.sets.flatten(0, 1)
        cost, _ = image_cost(model, few, self.others, config.z_steps)
        cheapest = self.others[cost.mean(0).argsort()[:CHEAPEST]]
        columns = model.label_columns()
        mean_of_others = columns[self.others].mean(0, keepdim=True)
        own = columns[[self.forget_class]]
        starts = torch.cat([mean_of_others, own, columns[cheapest]])
        labels = fit_labels(model, starts, self.sets, fit_steps or config.fit_steps)
        fitted = []
        for of_set in labels.unbind(1):  # the start is chosen on one half, the other is reported
            tried = [self._mean_cost(model, self.choosing, label) for label in of_set]
            best = of_set[tried.index(min(tried))]
            fitted.append(self._mean_cost(model, self.scored, best))
        cost, _ = image_cost(model, self.scored.data.images, self.others, config.z_steps)
        return {
            OTHER: (cost.min(1).values - self.scored.price).tolist(),
            FITTED: fitted,
            "kept": (self._own_cost(model, self.kept.data) - self.kept.price).tolist(),
        }

    @torch.enable_grad()
    def relearned(self, model: CVAE) -> Relearned:
        """Rung 4: train all weights on a few images of the class among kept ones.

        The class's label begins at the mean of the others, and Adam goes down the mean negative
        ELBO of the same ten images of the class and 54 kept ones drawn anew in every step, at each
        of four rates.  Rate and number of steps are chosen by the negative ELBO on one half of the
        images that are scored, and the other half is reported.

        Args:
            model: The model; it is not changed.

        Returns:
            What the best state pays.

        Raises:
            ValueError: When no rate leads to a finite negative ELBO.
        """
        config = self.config
        few = self.sets[0]
        labels = torch.full((len(few),), self.forget_class, device=model.device)
        looks = [n for n in LOOKS if n < config.relearn_steps] + [config.relearn_steps]
        met: list[tuple[float, int, float, float, float]] = []  # chosen by, steps, rate, and both
        for rate in progress(RATES, "relearn all weights"):
            now = reset_label(model, self.forget_class) if model.says_label else model
            now = copy.deepcopy(now).eval().requires_grad_(True)
            optimizer = torch.optim.Adam(now.parameters(), lr=rate, fused=True)
            generator = seeded(config.seed)
            least, since = math.inf, 0
            for step in range(1, looks[-1] + 1):
                chosen = torch.randint(len(self.kept_train), (KEPT_BESIDE,), generator=generator)
                images = torch.cat([few, self.kept_train.images[chosen]])
                noise = draw_normal((len(images), now.latent_dim), now, generator)
                both = torch.cat([labels, self.kept_train.labels[chosen]])
                optimizer.zero_grad()
                negative_elbo(now, images, both, noise).mean().backward()
                optimizer.step()
                if step not in looks:
                    continue
                if not all(weight.isfinite().all() for weight in now.parameters()):
                    break  # too large a rate; what was met before counts
                choosing, scored, kept = (
                    self._bound_above(now, share)
                    for share in (self.choosing, self.scored, self.kept)
                )
                if not math.isfinite(choosing):
                    break
                met.append((choosing, step, rate, scored, kept))
                since = 0 if choosing < least else since + 1
                least = min(least, choosing)
                if since == PATIENCE:
                    break
        if not met:
            raise ValueError(
                f"no finite negative ELBO is met at rates from {min(RATES):g} on: give a model "
                "that can be trained"
            )
        chosen_by, steps, rate, scored, kept = min(met)
        inner = [
            entry[0]
            for entry in met
            if entry[2] in RATES[1:-1] and entry[1] <= config.relearn_steps / 2
        ]
        unfinished = chosen_by < min(inner, default=math.inf) - SETTLED
        curve = {look: min(entry for entry in met if entry[1] <= look)[3] for look in looks}
        return Relearned(scored, kept, rate, steps, unfinished, curve)

    def _own_cost(self, model: CVAE, data: LabelledImages) -> Tensor:
        """What images cost a model under their own labels, (N,) nats."""
        return image_cost(model, data.images, data.labels[:, None], self.config.z_steps)[0][:, 0]

    def _mean_cost(self, model: CVAE, share: _Share, label: Tensor) -> float:
        """What images cost under a label of one's own, above the baseline's price."""
        cost = cost_under(model, share.data.images, label, self.config.z_steps)
        return float((cost - share.price).mean())

    @staticmethod
    def _bound_above(model: CVAE, share: _Share) -> float:
        """The negative ELBO of images under their own labels, above the baseline's."""
        return float((dataset_negative_elbo(model, share.data) - share.bound).mean())


@torch.enable_grad()
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
    model = copy.deepcopy(model).eval().requires_grad_(False)
    s, (f, n) = len(starts), sets.shape[:2]
    label = starts.repeat_interleave(f, 0).requires_grad_(True)  # (S F, H)
    images = sets.flatten(0, 1).repeat(s, 1, 1, 1)  # (S F N, *image_shape)
    z = label.new_zeros(s * f, n, model.latent_dim).requires_grad_(True)
    least = label.new_full((s * f,), math.inf)
    best = label.detach().clone()

    def cost() -> Tensor:
        logits = model.decode_columns(z.flatten(0, 1), label.repeat_interleave(n, 0))
        return latent_cost(logits, z.flatten(0, 1), images).view(s * f, n).mean(1)

    for costs in descend(z, [label], cost, steps):
        better = costs < least
        least[better] = costs[better]
        best[better] = label.detach()[better]
    return best.view(s, f, -1)


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
