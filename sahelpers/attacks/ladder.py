"""How cheap do real images of a class become for somebody who may change so much?

The first rungs of a ladder, each with more to change than the one before it.

1. z alone: real images under the cheapest of the other labels.
2. z and a label: a label of one's own, fitted to ten images and scored on other ones.
3. The model is trained on first, on real images of the kept classes (`heal`), then both again.

Each measures a cost, -log p(x | z, label) + |z|^2 / 2 at the best z that is found, in nats per
image above what the baseline pays for the same image under its own label.  Less is more memory, and
no judge is asked.  Beside them stands what kept classes pay in the same model, so that a damaged
model is not taken for a forgetful one.
"""

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..checks import check_is
from ..config import Config, check_classes, kept_classes, knob
from ..data import LabelledImages
from ..elbo import latent_cost
from ..models import CVAE, check_model
from .latent import image_cost, search_latents
from .weights import descend

STARTS = 3  # labels at which a fit begins: the mean of the others, and the cheapest others


@dataclass(frozen=True)
class LadderConfig(Config):
    """How much the ladder draws and tries for every model."""

    images: int = knob(100, 2, 1000, help="test images of the class whose cost is asked")
    z_steps: int = knob(100, 1, 100_000, help="steps of the search for their z")
    sets: int = knob(3, 1, 100, help="sets of images that a label is fitted to")
    set_size: int = knob(10, 1, 1000, help="images in a set")
    fit_steps: int = knob(400, 1, 100_000, help="steps of fitting a label")
    seed: int = knob(42, 0, 2**31 - 1, help="the choice of images, the same for all models")


@dataclass(frozen=True)
class LadderCosts:
    """What real images cost one model, in nats per image above the baseline's own price.

    Attributes:
        other_labels: Under the cheapest of the other labels, one number for each image.
        fitted_label: Under a label that was fitted to other images, the mean over the images, one
            number for each set that a label was fitted to.
        kept: Of kept images under their own labels, one number for each image.
    """

    other_labels: list[float]
    fitted_label: list[float]
    kept: list[float]


class Ladder:
    """The images of a class that all models face, and what the baseline pays for them.

    Args:
        baseline: The model whose price is subtracted.
        forget_class: The class that is looked for.
        test: Real images of all classes that no model was trained on.
        config: How much is tried; `LadderConfig()` when left out.

    Raises:
        ValueError: For a class that does not exist, and for fewer images of it than are asked for.
    """

    def __init__(
        self,
        baseline: CVAE,
        forget_class: int,
        test: LabelledImages,
        config: LadderConfig | None = None,
    ) -> None:
        config = LadderConfig() if config is None else config
        check_model(baseline, "baseline", test.num_classes)
        check_is(config, LadderConfig, "config")
        (self.forget_class,) = check_classes((forget_class,), baseline.num_classes)
        self.config = config
        fitted = config.sets * config.set_size
        of_class = test.only(self.forget_class)
        if len(of_class) < fitted + config.images:
            raise ValueError(
                f"test has {len(of_class)} images of class {self.forget_class}, and "
                f"{fitted + config.images} are asked for: give more, or a LadderConfig with "
                "smaller numbers"
            )
        drawn = of_class.take(fitted + config.images, config.seed).images
        self.sets = drawn[:fitted].unflatten(0, (config.sets, config.set_size))
        self.images = drawn[fitted:]
        kept = test.without(self.forget_class)
        self.kept = kept.take(min(config.images, len(kept)), config.seed)
        others = kept_classes(self.forget_class, baseline.num_classes)
        self.others = torch.tensor(others, device=baseline.device)
        own = torch.tensor([self.forget_class], device=baseline.device)
        self.price = image_cost(baseline, self.images, own, config.z_steps)[0][:, 0]
        self.kept_price = self._kept_cost(baseline)

    def climb(self, model: CVAE) -> LadderCosts:
        """Ask what the images cost a model, under other labels and under a fitted one.

        Args:
            model: The model; it is not changed.  For the third rung, what `heal` made of it.

        Returns:
            The costs above the baseline's price.

        Raises:
            TypeError: For what is no model.
            ValueError: For a model of another shape.
        """
        check_model(model, "model", len(self.others) + 1)
        config = self.config
        cost, _ = image_cost(model, self.images, self.others, config.z_steps)
        columns = model.label_columns()
        cheapest = self.others[cost.mean(0).argsort()[: STARTS - 1]]
        starts = torch.cat([columns[self.others].mean(0, keepdim=True), columns[cheapest]])
        labels = fit_labels(model, starts, self.sets, config.fit_steps)
        fitted = [cost_under(model, self.images, label, config.z_steps) for label in labels]
        return LadderCosts(
            other_labels=(cost.min(1).values - self.price).tolist(),
            fitted_label=[float((costs - self.price).mean()) for costs in fitted],
            kept=(self._kept_cost(model) - self.kept_price).tolist(),
        )

    def _kept_cost(self, model: CVAE) -> Tensor:
        """What kept images cost a model under their own labels, (N,) nats."""
        labels = self.kept.labels[:, None]
        return image_cost(model, self.kept.images, labels, self.config.z_steps)[0][:, 0]


@torch.enable_grad()
def fit_labels(model: CVAE, starts: Tensor, sets: Tensor, steps: int) -> Tensor:
    """Fit a label of one's own, and a z for each image, to each set of real images.

    Every set is fitted from every start, all at once, by Adam down the mean cost of its images.  Of
    the fits of a set, the one that reaches the least cost counts.  No weight of the model moves.

    Args:
        model: The model; it is not changed.
        starts: What stands in the label's place at first, (S, H); rows as `CVAE.label_columns` has.
        sets: (F, N, *image_shape) float in [0, 1].
        steps: Steps of Adam.

    Returns:
        The label of each set, (F, H).
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
    chosen = least.view(s, f).argmin(0)  # (F,): the start that came down farthest
    return best.view(s, f, -1)[chosen, torch.arange(f)]


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
