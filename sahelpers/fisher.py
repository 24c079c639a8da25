"""The diagonal Fisher information of a trained VAE: exact, at about the price of a backward pass.

F_i is the mean over images of the square of the image's own gradient, E[(d ELBO / d theta_i)^2]
(Kirkpatrick et al. 2017; Heng & Soh 2023).  The square of the gradient of a batch mean is another
quantity, up to the batch size times smaller, and is not offered here.

The squares themselves come from `sahelpers.gradients`; here is what is estimated with them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .checks import check_is
from .config import FisherConfig, check_classes
from .data import LabelledImages
from .elbo import bernoulli_nats, elbo_terms
from .gradients import example_sums
from .models import CVAE, check_model, draw_normal, seeded
from .progress import progress


@dataclass(frozen=True)
class Fisher:
    """A diagonal Fisher estimate.

    diagonal: parameter name -> mean squared gradient, of the parameter's shape, nats^2 per unit^2.
    n: images it is the mean of.
    square_mean: parameter name -> mean over images of (sum over the parameter's entries)^2, from
    which the standard error of the sum follows.  Several draws of z are averaged per image first.
    estimator: how it was made, in words.
    """

    diagonal: dict[str, Tensor]
    n: int
    square_mean: dict[str, float]
    estimator: str

    def __add__(self, other: "Fisher") -> "Fisher":
        """The estimate from both sets of images: weighted by their numbers."""
        if not isinstance(other, Fisher):
            return NotImplemented
        check_same_parameters(self.diagonal, other.diagonal, "the other Fisher")
        n = self.n + other.n
        a, b = self.n / n, other.n / n
        diagonal = {k: a * v + b * other.diagonal[k] for k, v in self.diagonal.items()}
        square = {k: a * v + b * other.square_mean[k] for k, v in self.square_mean.items()}
        same = self.estimator == other.estimator
        return Fisher(diagonal, n, square, self.estimator if same else "mixed")

    def sums(self) -> dict[str, tuple[float, float]]:
        """Parameter name -> (sum of its entries, standard error of that sum over images).

        As if the images had been drawn from all classes at once: with equal shares of each class,
        as here, the differences between classes are counted although they cannot vary, so the
        error is a little too large.
        """
        out = {}
        for name, values in self.diagonal.items():
            total = float(values.cpu().double().sum())
            spread = max(self.square_mean[name] - total**2, 0.0)
            out[name] = (total, (spread / max(self.n - 1, 1)) ** 0.5)
        return out

    def to(self, device: torch.device | str) -> "Fisher":
        """The same on another device."""
        moved = {k: v.to(device) for k, v in self.diagonal.items()}
        return Fisher(moved, self.n, self.square_mean, self.estimator)

    def to_state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return dict(vars(self.to("cpu")))

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "Fisher":
        """The inverse of `to_state`."""
        diagonal = {name: values.float() for name, values in state["diagonal"].items()}
        square_mean = {name: float(value) for name, value in state["square_mean"].items()}
        return cls(diagonal, int(state["n"]), square_mean, str(state["estimator"]))


@dataclass(frozen=True)
class ClassFishers:
    """One Fisher per class: any choice of forgotten classes is a sum of the others."""

    by_class: tuple[Fisher, ...]

    def __post_init__(self) -> None:
        if not self.by_class:
            raise ValueError("by_class=() is empty: give one Fisher per class")
        for fisher in self.by_class:
            check_is(fisher, Fisher, "by_class")

    def without(self, classes: int | Iterable[int]) -> Fisher:
        """The Fisher of all images but those of these classes (none: an empty tuple)."""
        left_out = check_classes(classes, len(self.by_class), allow_empty=True)
        first, *rest = [f for c, f in enumerate(self.by_class) if c not in left_out]
        for other in rest:
            first = first + other
        return first

    def to_state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {"by_class": [f.to_state() for f in self.by_class]}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "ClassFishers":
        """The inverse of `to_state`."""
        return cls(tuple(Fisher.from_state(s) for s in state["by_class"]))


def diagonal_fisher(
    model: CVAE,
    data: LabelledImages | None,
    config: FisherConfig,
    exclude: int | Iterable[int] = (),
) -> Fisher:
    """Estimate the diagonal Fisher from n_fisher_samples images, as many of each class.

    data: real images, needed for source="data" only; a class with fewer images gives all it has.
    exclude: classes left out together with their share of the images.  Leaving the forgotten class
    out (the default of the notebooks) protects only what the kept classes use: weights that only
    c_f uses have F = 0 and are free to move.  With it in (the official code) they are held as well.

    config.source: "data"; "model_mean", the decoder's mean images; "model_sample", Bernoulli draws
    of its pixels.  Both model sources draw z from N(0, I) and need no data.
    config.estimator: "square", the mean over `draws` of z of the squared gradient of the one-draw
    ELBO, E_z[g^2]; "product", the product of the gradients of two independent draws of z, an
    unbiased estimate of (E_z g)^2 whose entries may be negative (`forget` clips them at zero,
    which biases it upwards); "decoder", the Fisher of the Bernoulli decoder p(x | z, c) itself,
    sampled: z from N(0, I), x drawn from the decoder, gradient of log p(x | z, c); the encoder
    gets zero.
    """
    _check(model, data, config)
    left_out = check_classes(exclude, model.num_classes, allow_empty=True)
    kept = [c for c in range(model.num_classes) if c not in left_out]
    fishers = [_class_fisher(model, data, config, c) for c in progress(kept, "Fisher per class")]
    found = [f for f in fishers if f is not None]
    if not found:
        raise ValueError(
            f"no image left to estimate the Fisher from: classes {left_out} are excluded"
        )
    return ClassFishers(tuple(found)).without(())


def class_fishers(model: CVAE, data: LabelledImages | None, config: FisherConfig) -> ClassFishers:
    """One Fisher per class, with the options of `diagonal_fisher`."""
    _check(model, data, config)
    labels = progress(range(model.num_classes), "Fisher per class")
    fishers = [_class_fisher(model, data, config, c) for c in labels]
    for label, fisher in enumerate(fishers):
        if fisher is None:
            raise ValueError(f"class {label} has no image to estimate its Fisher from")
    return ClassFishers(tuple(f for f in fishers if f is not None))


def check_same_parameters(mine: dict[str, Tensor], other: dict[str, Tensor], what: str) -> None:
    """Raise ValueError naming the first parameter whose name or shape differs."""
    for name, value in mine.items():
        if name not in other or other[name].shape != value.shape:
            shape = tuple(other[name].shape) if name in other else "missing"
            raise ValueError(
                f"{what} does not fit: {name} is {tuple(value.shape)} here, {shape} there"
            )
    if extra := [name for name in other if name not in mine]:
        raise ValueError(f"{what} does not fit: it has {extra[0]}, which is unknown here")


def _check(model: CVAE, data: LabelledImages | None, config: FisherConfig) -> None:
    """Refuse what does not go together, before any work."""
    check_model(model)
    check_is(data, (LabelledImages, type(None)), "data")
    check_is(config, FisherConfig, "config")
    if config.source != "data" or config.estimator == "decoder":
        return
    if data is None:
        raise ValueError("source='data' needs data: pass images, or use source='model_mean'")
    if data.images.device != model.device:
        raise ValueError(f"data is on {data.images.device}, the model on {model.device}: move one")
    check_model(model, num_classes=len(data.class_names))


def _class_fisher(
    model: CVAE, data: LabelledImages | None, config: FisherConfig, label: int
) -> Fisher | None:
    """The estimate from one class's share of the images; None when the data has none of them."""
    generator = seeded(config.seed * 1009 + label)  # a class's images and noise: always the same
    n = -(-config.n_fisher_samples // model.num_classes)
    images = _class_images(model, data, config, label, n, generator)
    if images is None:
        return None
    n = len(images)
    labels = torch.full((n,), label, device=model.device)
    repeats = 2 * config.draws if config.estimator == "product" else config.draws
    noise = draw_normal((n, repeats, model.latent_dim), model, generator)

    def losses(twin: nn.Module, images: Tensor, labels: Tensor, noise: Tensor) -> Tensor:
        assert isinstance(twin, CVAE)
        if config.estimator == "decoder":
            return bernoulli_nats(twin.decode_logits(noise, labels), images)
        return torch.stack(elbo_terms(twin, images, labels, noise)).sum(0)

    total: dict[str, Tensor] = {}
    each: dict[str, Tensor] = {}  # (n,): an image's squares summed over the parameter's entries
    for k in range(config.draws):
        first = noise[:, k]
        second = noise[:, config.draws + k] if config.estimator == "product" else None
        if config.estimator == "decoder":  # the pixels must come from the z they are scored under
            with torch.no_grad():
                images = torch.bernoulli(model.decode(first, labels).cpu(), generator=generator)
                images = images.to(model.device)
        inputs = (images, labels, first)
        twins = None if second is None else (images, labels, second)
        part, part_each = example_sums(model, losses, inputs, twins)
        for name, value in part.items():
            total[name] = total.get(name, 0) + value / (n * config.draws)
            each[name] = each.get(name, 0) + part_each[name] / config.draws
    square = {name: float(values.square().mean()) for name, values in each.items()}
    source = "its own" if config.estimator == "decoder" else config.source
    words = f"{config.estimator} of {source} images, {config.draws} draw(s) of z"
    return Fisher(total, n, square, words)


def _class_images(
    model: CVAE,
    data: LabelledImages | None,
    config: FisherConfig,
    label: int,
    n: int,
    generator: torch.Generator,
) -> Tensor | None:
    """At most n images of a class, real or drawn by the model."""
    if config.source == "data" and config.estimator != "decoder":
        assert data is not None
        images = data.only(label).images
        return images[torch.randperm(len(images), generator=generator)[:n]] if len(images) else None
    labels = torch.full((n,), label, device=model.device)
    images = model.sample(labels, generator, prior="standard")
    if config.source == "model_sample":
        images = torch.bernoulli(images.cpu(), generator=generator).to(model.device)
    return images
