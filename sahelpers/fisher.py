"""The diagonal Fisher information of a trained VAE: exact, at about the price of a backward pass.

F_i is the mean over images of the square of the image's own gradient, E[(d ELBO / d theta_i)^2]
(Kirkpatrick et al. 2017; Heng & Soh 2023).  The square of the gradient of a batch mean is another
quantity, up to the batch size times smaller, and is not offered here.

Per-example gradients are never formed where they need not be.  For a linear layer with inputs A
(B, in) and gradients G (B, out) at its outputs, the gradient of example b is the rank-one matrix
g_b a_b^T, so the sum of the squares is (G*G)^T (A*A): one matrix product.
"""

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import FisherConfig, check_classes
from .data import LabelledImages
from .elbo import bernoulli_nats, elbo_terms
from .models import CVAE, draw_normal, seeded
from .progress import progress

Call = tuple[Tensor, Tensor]  # what a layer saw: (input, gradient at the output), batch first
CHUNK = 250  # images held at once


@dataclass(frozen=True)
class Fisher:
    """A diagonal Fisher estimate.

    diagonal: parameter name -> mean squared gradient, of the parameter's shape, nats^2 per unit^2.
    n: images it is the mean of.
    square_mean: parameter name -> mean over images of (sum over the parameter's entries)^2, from
    which the standard error of the sum follows.
    estimator: how it was made, in words.
    """

    diagonal: dict[str, Tensor]
    n: int
    square_mean: dict[str, float]
    estimator: str

    def __add__(self, other: "Fisher") -> "Fisher":
        """The estimate from both sets of images: weighted by their numbers."""
        check_same_parameters(self.diagonal, other.diagonal, "the other Fisher")
        n = self.n + other.n
        a, b = self.n / n, other.n / n
        diagonal = {k: a * v + b * other.diagonal[k] for k, v in self.diagonal.items()}
        square = {k: a * v + b * other.square_mean[k] for k, v in self.square_mean.items()}
        same = self.estimator == other.estimator
        return Fisher(diagonal, n, square, self.estimator if same else "mixed")

    def sums(self) -> dict[str, tuple[float, float]]:
        """Parameter name -> (sum of its entries, standard error of that sum over images)."""
        out = {}
        for name, values in self.diagonal.items():
            total = float(values.double().sum())
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
        return cls(**state)


@dataclass(frozen=True)
class ClassFishers:
    """One Fisher per class: any choice of forgotten classes is a sum of the others."""

    by_class: tuple[Fisher, ...]

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
    square: dict[str, float] = {}
    for k in range(config.draws):
        first = noise[:, k]
        second = noise[:, config.draws + k] if config.estimator == "product" else None
        if config.estimator == "decoder":  # the pixels must come from the z they are scored under
            with torch.no_grad():
                images = torch.bernoulli(model.decode(first, labels).cpu(), generator=generator)
                images = images.to(model.device)
        inputs = (images, labels, first)
        twins = None if second is None else (images, labels, second)
        part, part_square = squared_gradients(model, losses, inputs, twins)
        for name, value in part.items():
            total[name] = total.get(name, torch.zeros_like(value)) + value / (n * config.draws)
            square[name] = square.get(name, 0.0) + part_square[name] / (n * config.draws)
    words = f"{config.estimator} of {config.source} images, {config.draws} draw(s) of z"
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
        if data is None:
            raise ValueError("source='data' needs data: pass images, or use source='model_mean'")
        if data.images.device != model.device:
            raise ValueError(
                f"data is on {data.images.device}, the model on {model.device}: move one"
            )
        images = data.only(label).images
        return images[torch.randperm(len(images), generator=generator)[:n]] if len(images) else None
    labels = torch.full((n,), label, device=model.device)
    images = model.sample(labels, generator, prior="standard")
    if config.source == "model_sample":
        images = torch.bernoulli(images.cpu(), generator=generator).to(model.device)
    return images


def squared_gradients(
    module: nn.Module,
    losses: Callable[..., Tensor],
    inputs: tuple[Tensor, ...],
    twins: tuple[Tensor, ...] | None = None,
    chunk: int = CHUNK,
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Sum over examples of the square of each example's own gradient, for every parameter.

    losses(module, *inputs) -> (B,): one loss per example, each depending on its own example only.
    inputs: tensors with the examples along the first axis.  twins: as inputs; when given, the
    gradients for inputs and for twins are multiplied instead of the first being squared.
    chunk: examples in memory at once; it changes the result by rounding only.
    Layers: Linear (any leading axes), Conv2d and ConvTranspose2d with zero padding, used any number
    of times, with shared parameters too.  The module itself is not touched: a copy does the work.

    Returns the sums by parameter name, and the sum over examples of (their entries' sum)^2.
    Raises ValueError when a weight is not finite, and TypeError naming the parameter when a layer
    is of another kind or uses its parameters in another way: never a silent zero.
    """
    n = len(inputs[0])
    if n == 0:
        raise ValueError("no examples: the Fisher needs at least one image")
    if chunk < 1:
        raise ValueError(f"chunk={chunk} must be at least 1")
    twin = copy.deepcopy(module).eval().requires_grad_(True)
    names = {id(p): name for name, p in twin.named_parameters()}
    for name, p in twin.named_parameters():
        if not p.isfinite().all():
            raise ValueError(f"parameter {name} holds NaN or infinite values")
    recorder = _Recorder(twin, losses)
    _verify(twin, recorder, tuple(t[: min(n, 2)] for t in inputs))
    total = {name: torch.zeros_like(p) for name, p in twin.named_parameters()}
    square = dict.fromkeys(total, 0.0)
    for start in range(0, n, chunk):
        part = slice(start, start + chunk)
        first = recorder.run(tuple(t[part] for t in inputs))
        second = first if twins is None else recorder.run(tuple(t[part] for t in twins))
        for key, uses in first.items():
            sums, each = _sum_products(uses, second[key])
            total[names[key]] += sums
            square[names[key]] += float(each.double().square().sum())
    return total, square


Use = tuple[nn.Module, str, Tensor, Tensor]  # layer, "weight" or "bias", input, output gradient


class _Recorder:
    """Runs a module and keeps, for every parameter, each use of it: input and output gradient."""

    def __init__(self, module: nn.Module, losses: Callable[..., Tensor]) -> None:
        self.module, self.losses = module, losses
        self.seen: list[tuple[nn.Module, Tensor, Tensor]] = []
        for layer in module.modules():
            if isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
                layer.register_forward_hook(self._keep)

    def _keep(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self.seen.append((layer, inputs[0].detach(), output))

    def run(self, inputs: tuple[Tensor, ...]) -> dict[int, list[Use]]:
        """The uses of every parameter (by identity) in one pass over these examples."""
        self.seen.clear()
        with torch.enable_grad():
            loss = self.losses(self.module, *inputs).sum()
            outputs = [output for _, _, output in self.seen]
            gradients = torch.autograd.grad(loss, outputs, allow_unused=True)
        uses: dict[int, list[Use]] = {}
        for (layer, seen, _), gradient in zip(self.seen, gradients, strict=True):
            if gradient is not None:  # else the output does not reach the loss: exactly zero
                for kind, parameter in layer.named_parameters(recurse=False):
                    uses.setdefault(id(parameter), []).append((layer, kind, seen, gradient))
        self.seen.clear()
        return uses


def _verify(twin: nn.Module, recorder: _Recorder, inputs: tuple[Tensor, ...]) -> None:
    """Compare with autograd on two examples: a use of a parameter that no hook saw shows here."""
    parameters = dict(twin.named_parameters())
    with torch.enable_grad():
        loss = recorder.losses(twin, *inputs).sum()
        expected = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    uses = recorder.run(inputs)
    for (name, parameter), gradient in zip(parameters.items(), expected, strict=True):
        seen = uses.get(id(parameter), [])
        found = sum((_example_gradients(u).sum(0) for u in seen), torch.zeros_like(parameter))
        gradient = torch.zeros_like(parameter) if gradient is None else gradient
        if not torch.allclose(found, gradient, rtol=1e-3, atol=1e-4 * float(gradient.abs().max())):
            raise TypeError(
                f"parameter {name} is used in a way whose per-example gradient is not known here: "
                "only Linear, Conv2d and ConvTranspose2d layers with zero padding, called as layers"
            )


def _sum_products(first: list[Use], second: list[Use]) -> tuple[Tensor, Tensor]:
    """Sum over examples of (gradient for first) * (gradient for second), and each one's total."""
    layer, kind, a1, g1 = first[0]
    _, _, a2, g2 = second[0]
    if len(first) == 1 and isinstance(layer, nn.Linear) and a1.ndim == 2 and kind == "weight":
        a, g = a1 * a2, g1 * g2  # the squares themselves when first is second
        return g.T @ a, g.sum(1) * a.sum(1)
    one = torch.stack([_example_gradients(u) for u in first]).sum(0)  # uses are added, then squared
    two = one if second is first else torch.stack([_example_gradients(u) for u in second]).sum(0)
    product = one * two
    return product.sum(0), product.flatten(1).sum(1)


def _example_gradients(use: Use) -> Tensor:
    """The gradient of each example for one use of a parameter: (B, *parameter.shape)."""
    layer, kind, seen, gradient = use
    if isinstance(layer, nn.Linear):
        g, a = gradient.flatten(1, -2) if gradient.ndim > 2 else gradient[:, None], seen
        if kind == "bias":
            return g.sum(1)
        a = a.flatten(1, -2) if a.ndim > 2 else a[:, None]
        return g.transpose(1, 2) @ a
    assert isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d))
    if kind == "bias":
        return gradient.flatten(2).sum(2)
    # A transposed convolution is the adjoint of a convolution: input and gradient change places.
    forward = isinstance(layer, nn.Conv2d)
    wide, narrow = (seen, gradient) if forward else (gradient, seen)
    if isinstance(layer.padding, str):
        raise TypeError(f"{layer} has its padding as a word: give numbers")
    columns = F.unfold(wide, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
    rows = _places(wide, layer, 0), _places(wide, layer, 1)
    height, width = narrow.shape[2:]
    columns = columns.view(len(wide), -1, *rows)[..., :height, :width]  # output padding adds places
    columns = columns.reshape(len(wide), layer.groups, -1, height * width)
    narrow = narrow.reshape(len(wide), layer.groups, -1, height * width)
    return (narrow @ columns.transpose(2, 3)).view(len(wide), *layer.weight.shape)


def _places(wide: Tensor, layer: nn.Conv2d | nn.ConvTranspose2d, axis: int) -> int:
    """Positions of the kernel along one image axis."""
    reach = layer.dilation[axis] * (layer.kernel_size[axis] - 1) + 1
    room = wide.shape[2 + axis] + 2 * int(layer.padding[axis]) - reach
    return room // layer.stride[axis] + 1
