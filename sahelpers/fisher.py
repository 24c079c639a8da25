"""The diagonal Fisher information of a trained VAE: exact, at about the price of a backward pass.

F_i is the mean over images of the square of the image's own gradient, E[(d ELBO / d theta_i)^2]
(Kirkpatrick et al. 2017; Heng & Soh 2023).  The square of the gradient of a batch mean is another
quantity, up to the batch size times smaller, and is not offered here.
"""

import functools
import operator
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from .checks import check_is, check_values, door
from .config import FisherConfig, check_classes, kept_classes
from .data import LabelledImages
from .elbo import bernoulli_nats, negative_elbo
from .gradients import squared_gradients
from .models import CVAE, OWN, check_model, draw_normal, seeded
from .progress import progress

VERSION = 1  # of the estimate; raised with anything that changes its numbers


@dataclass(frozen=True)
class Fisher:
    """A diagonal Fisher estimate.

    diagonal: parameter name -> mean squared gradient, of the parameter's shape, nats^2 per unit^2.
    n: images it is the mean of.
    square_mean: parameter name -> mean over images of (sum over the parameter's entries)^2, from
    which the standard error of the sum follows.  Several draws of z are averaged per image first.
    estimator: how it was made, in words.
    """

    hint: ClassVar[str] = ": class_fishers(...).without(classes) is one"
    diagonal: dict[str, Tensor]
    n: int
    square_mean: dict[str, float]
    estimator: str

    def __post_init__(self) -> None:
        for name, values in self.diagonal.items():
            check_values(values, f"the Fisher's {name}", -1e30, 1e30)

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
        totals = {name: float(v.cpu().double().sum()) for name, v in self.diagonal.items()}
        spread = {name: max(self.square_mean[name] - t**2, 0.0) for name, t in totals.items()}
        return {k: (t, (spread[k] / max(self.n - 1, 1)) ** 0.5) for k, t in totals.items()}

    def to_state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {**vars(self), "diagonal": {k: v.cpu() for k, v in self.diagonal.items()}}

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
        kept = kept_classes(classes, len(self.by_class))
        return functools.reduce(operator.add, (self.by_class[c] for c in kept))

    def to_state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {"by_class": [f.to_state() for f in self.by_class]}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "ClassFishers":
        """The inverse of `to_state`."""
        return cls(tuple(Fisher.from_state(s) for s in state["by_class"]))


@door
def diagonal_fisher(
    model: CVAE,
    data: LabelledImages | None,
    config: FisherConfig | None = None,
    exclude: int | Iterable[int] = (),
) -> Fisher:
    """Estimate the diagonal Fisher from n_fisher_samples images, as many of each class.

    It is zero for layers that `squared_gradients` does not know, which a warning names.

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
    config = config or FisherConfig()
    left_out = check_classes(exclude, model.num_classes, allow_empty=True)
    found = _by_class(model, data, config, kept_classes(left_out, model.num_classes))
    if not found:
        raise ValueError(
            f"no image left to estimate the Fisher from: classes {left_out} are excluded"
        )
    return ClassFishers(tuple(found.values())).without(())


@door
def class_fishers(
    model: CVAE, data: LabelledImages | None, config: FisherConfig | None = None
) -> ClassFishers:
    """One Fisher per class, with the options of `diagonal_fisher`."""
    found = _by_class(model, data, config or FisherConfig(), tuple(range(model.num_classes)))
    if missing := [c for c in range(model.num_classes) if c not in found]:
        raise ValueError(f"class {missing[0]} has no image to estimate its Fisher from")
    return ClassFishers(tuple(found.values()))


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


def _by_class(
    model: CVAE, data: LabelledImages | None, config: FisherConfig, classes: tuple[int, ...]
) -> dict[int, Fisher]:
    """The estimate from each class's share of the images; none for a class without images."""
    real = config.source == "data" and config.estimator != "decoder"
    if real:
        if data is None:
            raise ValueError("source='data' needs data: pass images, or use source='model_mean'")
        here, there = data.images.device, model.device
        if here != there:
            raise ValueError(f"data is on {here}, the model on {there}: move one")
        check_model(model, num_classes=data.num_classes)
    n, found = -(-config.n_fisher_samples // model.num_classes), dict[int, Fisher]()
    for label in progress(classes, "Fisher per class"):
        generator = seeded(config.seed * 1009 + label)  # a class's images and noise: the same ones
        if real and data is not None:
            own = (data.labels == label).nonzero()[:, 0]
            own = own[torch.randperm(len(own), generator=generator)[:n]]
            images, labels = data.images[own], data.labels[own]
        else:
            labels = torch.full((n,), label, device=model.device)
            images = model.sample(labels, "standard", generator)
            if config.source == "model_sample":
                images = torch.bernoulli(images.cpu(), generator=generator).to(images)
        if len(images):
            found[label] = _estimate(model, images, labels, config, generator, not found)
    return found


def _estimate(
    model: CVAE,
    images: Tensor,
    labels: Tensor,
    config: FisherConfig,
    generator: torch.Generator,
    verify: bool,
) -> Fisher:
    """From images (n, C, H, W) of one class."""
    n, again = len(images), model.arch == OWN  # whose layers may be of any kind
    decoder, product = config.estimator == "decoder", config.estimator == "product"
    noise = draw_normal((n, (1 + product) * config.draws, model.latent_dim), model, generator)

    def losses(twin: CVAE, images: Tensor, labels: Tensor, noise: Tensor) -> Tensor:
        if decoder:
            return bernoulli_nats(twin.decode_logits(noise, labels), images)
        return negative_elbo(twin, images, labels, noise)

    total: dict[str, Tensor] = {}
    each: dict[str, Tensor] = {}  # (n,): an image's squares summed over the parameter's entries
    for k in range(config.draws):
        z = noise[:, k]
        if decoder:  # the pixels must come from the z they are scored under
            with torch.no_grad():
                images = model.decode(z, labels)
            images = torch.bernoulli(images.cpu(), generator=generator).to(images)
        twins = (images, labels, noise[:, config.draws + k]) if product else None
        inputs = images, labels, z
        part, part_each = squared_gradients(
            model, losses, inputs, twins, verify=again or (verify and not k)
        )
        for name, value in part.items():
            value /= n * config.draws
            total[name] = total[name].add_(value) if k else value
            each[name] = each.get(name, 0) + part_each[name] / config.draws
    square = {name: float(values.square().mean()) for name, values in each.items()}
    source = "its own" if decoder else config.source
    words = f"{config.estimator} of {source} images, {config.draws} draw(s) of z"
    return Fisher(total, n, square, words)
