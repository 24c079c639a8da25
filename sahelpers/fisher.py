"""The diagonal Fisher information of a trained VAE, at about the price of a backward pass.

F_i is the mean over images of the square of the image's own gradient, E[(d ELBO / d theta_i)^2]
(Kirkpatrick et al. 2017; Heng & Soh 2023).  These squares are exact; the square of the gradient of
a batch mean is another quantity, up to the batch size times smaller, and is not offered here.  With
real images (`source="data"`, the default) the mean is the *empirical* Fisher of the ELBO (Kunstner
et al. 2019); with images that the model draws it is an estimate of the Fisher itself, for the
decoder alone where `estimator="decoder"` scores an image at the z that it was drawn from.

The first half of this module has the estimates (`diagonal_fisher`, `class_fishers`), the second
the squares that they are made of (`squared_gradients`), which know nothing of VAEs.
"""

import copy
import functools
import operator
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import NoneType
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from .checks import check_callable, check_finite, check_is, check_values
from .config import FisherConfig, check_classes, kept_classes
from .data import LabelledImages
from .elbo import bernoulli_nats, negative_elbo
from .models import CVAE, check_model, draw_normal, ordinary_torch, seeded
from .progress import progress

VERSION = 1  # of the estimate; raised with anything that changes its numbers
CHUNK = 300  # examples in one pass: half of a class's share by default
PIECE = 64  # examples whose gradients are formed at once, at most
ENTRIES = 2**20  # numbers in these gradients, at most, where more than one example is left
FEW = 2  # examples on which the ways to the gradients are compared before one is used
TOLERANCE = 5e-3  # of the largest entry, in that comparison; leaves room for a GPU's short floats

Examples = tuple[Tensor, ...]  # tensors with the examples along the first axis
Gradients = dict[str, Tensor]  # parameter name -> each example's own gradient, (B, *shape)
Losses = Callable[..., Tensor]  # (module, *examples) -> (B,)
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Fisher:
    """A diagonal Fisher estimate.

    Attributes:
        diagonal: Parameter name -> mean squared gradient, of the parameter's shape, in nats^2 per
            squared unit of the parameter.
        n: Number of images that it is the mean of.
        square_mean: Parameter name -> mean over images of (sum over the parameter's entries)^2,
            from which the standard error of the sum follows.  Several draws of z are averaged per
            image first.
        estimator: How it was made, in words.

    Raises:
        ValueError: An entry of the diagonal is NaN or infinite.
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
        """The estimate from both sets of images: the mean, weighted by their numbers."""
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
        """The sum of every parameter's entries, with its standard error over images.

        The error is computed as if the images had been drawn from all classes at once.  With equal
        shares of each class, as here, the differences between classes are counted although they
        cannot vary, so the error is a little too large.

        Returns:
            Parameter name -> (sum, standard error), both in nats^2 per squared unit.
        """
        found = {}
        for name, values in self.diagonal.items():
            total = float(values.cpu().double().sum())
            variance = max(self.square_mean[name] - total**2, 0.0)
            found[name] = total, (variance / max(self.n - 1, 1)) ** 0.5
        return found

    def to_state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {**vars(self), "diagonal": {k: v.cpu() for k, v in self.diagonal.items()}}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "Fisher":
        """The inverse of `to_state`; TypeError unless all of the diagonal is float32."""
        diagonal = dict(state["diagonal"])
        for name, values in diagonal.items():
            if values.dtype != torch.float32:  # converted, it would take memory of its own
                raise TypeError(f"{name} is of type {values.dtype}, not torch.float32")
        square_mean = {name: float(value) for name, value in state["square_mean"].items()}
        return cls(diagonal, int(state["n"]), square_mean, str(state["estimator"]))


@dataclass(frozen=True)
class ClassFishers:
    """One Fisher per class, of which the Fisher to forget any classes with is made.

    Attributes:
        by_class: One `Fisher` per class, in the order of the class numbers.

    Raises:
        ValueError: by_class is empty.
        TypeError: Something in by_class is not a `Fisher`.
    """

    by_class: tuple[Fisher, ...]

    def __post_init__(self) -> None:
        if not self.by_class:
            raise ValueError("by_class=() is empty: give one Fisher per class")
        for fisher in self.by_class:
            check_is(fisher, Fisher, "by_class")

    def without(self, classes: int | Iterable[int]) -> Fisher:
        """The Fisher of the images of all other classes.

        Args:
            classes: One class number or several; an empty tuple leaves no class out.

        Returns:
            The mean over the images of the other classes.

        Raises:
            ValueError: There is no such class, or none would be left.
        """
        kept = kept_classes(classes, len(self.by_class))
        return functools.reduce(operator.add, (self.by_class[c] for c in kept))

    def to_state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {"by_class": [f.to_state() for f in self.by_class]}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "ClassFishers":
        """The inverse of `to_state`."""
        return cls(tuple(Fisher.from_state(s) for s in state["by_class"]))


@ordinary_torch()
def diagonal_fisher(
    model: CVAE,
    data: LabelledImages | None,
    config: FisherConfig | None = None,
    exclude: int | Iterable[int] = (),
) -> Fisher:
    """Estimate the diagonal Fisher of all parameters, from as many images of each class.

    Leaving the forgotten class out (the default of the notebooks) protects only what the kept
    classes use: weights that nothing but the forgotten class uses have F = 0 and are free to move.
    With it in, as in the official code of Heng & Soh, they are held as well.

    Args:
        model: The trained model.  It is not changed; a copy in evaluation mode does the work.
        data: Real images, on the model's device; only `source="data"` needs them.  A class with
            fewer images than its share gives all that it has.
        config: What to estimate from how many images; the default is `FisherConfig()`.

            `n_fisher_samples` is the number of images, all classes together.

            `source` says where they come from.  "data": real images.  "model_mean": the decoder's
            mean images.  "model_sample": Bernoulli draws of its pixels.  Both model sources draw z
            from N(0, I).

            `estimator` says what is estimated.  "square": E_z[g^2], the mean over `draws` of z of
            the squared gradient g of the negative ELBO with one draw of z.  "product": (E_z g)^2,
            by the product of the gradients of two independent draws of z; it is unbiased, so
            entries may be negative, and `forget` clips them at zero, which biases it upwards.
            "decoder": the Fisher of the Bernoulli decoder p(x | z, c) itself, with z from N(0, I)
            and x drawn from the decoder; the encoder gets zero.
        exclude: Classes that are left out, together with their share of the images.

    Returns:
        The estimate; `n` says from how many images.

    Raises:
        TypeError: An argument is of another kind.
        ValueError: A weight is not finite, data are needed and missing or do not fit to the model,
            or no image is left.

    Kirkpatrick et al. (2017), Heng & Soh (2023).
    """
    config = _checked(model, data, config)
    left_out = check_classes(exclude, model.num_classes, allow_empty=True)
    found = _by_class(model, data, config, kept_classes(left_out, model.num_classes))
    if not found:
        raise ValueError(
            f"no image left to estimate the Fisher from: classes {left_out} are excluded"
        )
    return ClassFishers(tuple(found.values())).without(())


@ordinary_torch()
def class_fishers(
    model: CVAE, data: LabelledImages | None, config: FisherConfig | None = None
) -> ClassFishers:
    """Estimate one diagonal Fisher per class, each from its share of the images.

    Args:
        model: The trained model, as for `diagonal_fisher`.
        data: Real images, as for `diagonal_fisher`; every class must have one.
        config: What to estimate from how many images, as for `diagonal_fisher`.

    Returns:
        The Fishers by class; `.without(classes)` is the Fisher to forget these classes with.

    Raises:
        TypeError: An argument is of another kind.
        ValueError: As for `diagonal_fisher`, or a class has no image.
    """
    config = _checked(model, data, config)
    found = _by_class(model, data, config, tuple(range(model.num_classes)))
    if missing := [c for c in range(model.num_classes) if c not in found]:
        raise ValueError(
            f"class {missing[0]} has no image to estimate its Fisher from: give some, or data "
            "whose class_names do not name it"
        )
    return ClassFishers(tuple(found.values()))


def check_same_parameters(mine: dict[str, Tensor], other: dict[str, Tensor], what: str) -> None:
    """Refuse parameters of other names or shapes.

    Args:
        mine: Parameter name -> tensor, as it should be.
        other: Parameter name -> tensor, as it came.
        what: What `other` belongs to, for the message.

    Raises:
        ValueError: It names the first parameter whose name or shape differs.
    """
    for name, value in mine.items():
        if name not in other or other[name].shape != value.shape:
            shape = tuple(other[name].shape) if name in other else "missing"
            raise ValueError(
                f"{what} does not fit: {name} is {tuple(value.shape)} here, {shape} there"
            )
    if extra := [name for name in other if name not in mine]:
        raise ValueError(f"{what} does not fit: it has {extra[0]}, which is unknown here")


def _checked(model: CVAE, data: LabelledImages | None, config: FisherConfig | None) -> FisherConfig:
    """The configuration, after a look at what came in."""
    check_model(model)
    check_is(data, (LabelledImages, NoneType), "data")
    check_is(config, (FisherConfig, NoneType), "config")
    return config or FisherConfig()


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
    share = -(-config.n_fisher_samples // model.num_classes)  # rounded up
    model = copy.deepcopy(model).eval()  # what draws images is not changed by it, either
    squares = _Squares(model, _decoder_nats if config.estimator == "decoder" else negative_elbo)
    found: dict[int, Fisher] = {}
    for label in progress(classes, "Fisher per class"):
        # A class has the same images and noise whichever other classes are asked for.
        generator = seeded(config.seed * 1009 + label)
        if real and data is not None:
            own = (data.labels == label).nonzero()[:, 0]
            own = own[torch.randperm(len(own), generator=generator)[:share]]
            images, labels = data.images[own], data.labels[own]
        else:
            labels = torch.full((share,), label, device=model.device)
            images = model.sample(labels, "standard", generator)
            if config.source == "model_sample":
                images = torch.bernoulli(images.cpu(), generator=generator).to(images)
        if len(images):
            found[label] = _estimate(model, images, labels, config, generator, squares)
    return found


def _decoder_nats(model: CVAE, images: Tensor, labels: Tensor, z: Tensor) -> Tensor:
    """-log p(x | z, c) of each image (B,), nats."""
    return bernoulli_nats(model.decode_logits(z, labels), images)


def _estimate(
    model: CVAE,
    images: Tensor,
    labels: Tensor,
    config: FisherConfig,
    generator: torch.Generator,
    squares: "_Squares",
) -> Fisher:
    """The estimate from images (n, C, H, W) of one class."""
    n = len(images)
    labels = model.label_vectors(labels)  # vmap refuses `one_hot`, which reads the class numbers
    decoder = config.estimator == "decoder"
    product = config.estimator == "product"
    draws = 2 * config.draws if product else config.draws  # for the product in two halves
    noise = draw_normal((n, draws, model.latent_dim), model, generator)
    total: dict[str, Tensor] = {}
    each: dict[str, Tensor] = {}  # (n,): an image's squares summed over the parameter's entries
    for k in range(config.draws):
        z = noise[:, k]  # of the decoder's latents, or noise for the draw from the encoder's
        if decoder:  # the pixels must come from the z they are scored under
            with torch.no_grad():
                images = model.decode(z, labels)
            images = torch.bernoulli(images.cpu(), generator=generator).to(images)
        twins = None
        if product:
            twins = (images, labels, noise[:, config.draws + k])
        part, part_each = squares((images, labels, z), twins)
        for name, value in part.items():
            value /= n * config.draws
            if k == 0:
                total[name] = value
            else:
                total[name] += value
            each[name] = each.get(name, 0) + part_each[name] / config.draws
    square = {name: float(values.square().mean()) for name, values in each.items()}
    source = "its own" if decoder else config.source
    words = f"{config.estimator} of {source} images, {config.draws} draw(s) of z"
    return Fisher(total, n, square, words)


# The squares of per-example gradients


@ordinary_torch()
def squared_gradients(
    module: nn.Module,
    losses: Losses,
    inputs: tuple[Tensor, ...],
    twins: tuple[Tensor, ...] | None = None,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Sum over examples the square of each example's own gradient, for every parameter.

    Per-example gradients are not formed where they need not be.  For a linear layer with inputs A
    (B, in) and gradients G (B, out) at its outputs, the gradient of example b is the rank-one
    matrix g_b a_b^T, so the sum of the squares is the matrix product `(G*G)^T (A*A)`
    (Goodfellow 2015, arXiv:1510.01799).  The weights of convolutions follow from the same pass by
    torch's own operator, all other parameters by `torch.func.vmap` of `torch.func.grad`, some
    examples at a time.  Whatever the module is made of, the result is exact: both ways are first
    compared with a plain backward pass on two of the examples, and where they differ, or where
    vmap refuses (a branch on the data, recurrent layers, `one_hot` of class numbers), a plain loop
    over single examples does the work; it takes many times as long.

    Args:
        module: Any module.  It is not changed; a copy in evaluation mode does the work.
        losses: A function (module, *inputs) -> (B,): one loss per example, which depends on no
            other example.
        inputs: Tensors with the examples along the first axis, given to `losses`.
        twins: As inputs, with as many examples.  If given, the gradients for inputs and for twins
            are multiplied, in the place of the gradients for inputs with themselves.

    Returns:
        Two dictionaries by parameter name.  The first has the sums over examples, of the
        parameter's shape.  The second has one number per example, (B,) float64 on the CPU: the sum
        over the parameter's entries of this example's squares.

    Raises:
        TypeError: The loss of an example depends on other examples, or an argument is of another
            kind.
        ValueError: A weight is not finite, losses are not of shape (B,), or there is no example or
            not the same number in all tensors.
    """
    check_is(module, nn.Module, "module")
    check_finite(module, "module")
    check_callable(losses, "losses", "(module, *inputs) -> (B,)")
    sizes = {len(t) for t in (*inputs, *(twins or ()))}
    if len(sizes) != 1 or not max(sizes) or len(inputs) != len(twins or inputs):
        rows = sorted(sizes)
        raise ValueError(f"inputs and twins have {rows} rows: give at least one image, and as many")
    return _Squares(module, losses)(inputs, twins)


class _Use(NamedTuple):
    """One use of a layer's parameter on a batch, and what reached the layer from both sides."""

    layer: nn.Linear | nn.Conv2d | nn.ConvTranspose2d
    kind: str  # the parameter: "weight" or "bias"
    seen: Tensor  # what went into the layer, (B, in) or (B, C, H, W)
    gradient: Tensor  # of the losses' sum at what came out, (B, out) or (B, C', H', W')

    def is_known(self, n: int) -> bool:
        """Whether `gradients` can tell n examples apart."""
        axes = 2 if isinstance(self.layer, nn.Linear) else 4
        return self.seen.ndim == axes and len(self.seen) == n

    def gradients(self, rows: slice) -> Tensor:
        """The gradient that each of these examples has from this use, (B, *parameter.shape)."""
        layer, seen, gradient = self.layer, self.seen[rows], self.gradient[rows]
        if self.kind == "bias":
            return gradient if gradient.ndim == 2 else gradient.sum((2, 3))
        if isinstance(layer, nn.Linear):
            return gradient[:, :, None] * seen[:, None, :]
        return _convolution_gradients(layer, seen, gradient)


class _Squares:
    """Sums products of per-example gradients of one module and its losses, batch by batch.

    There are three ways to the gradients.  By layer: where the only use of a parameter is in a
    linear layer or a convolution, one pass over a batch gives the input of the layer and the
    gradient at its output, and they give the rest.  By vmap: `torch.func.vmap` of
    `torch.func.grad`, with respect to the parameters that the first way leaves over.  Alone: a
    backward pass for each example.  The first batch decides: what differs from a backward pass on
    its first examples goes the next way.
    """

    def __init__(self, module: nn.Module, losses: Losses) -> None:
        values = {id(p): nn.Parameter(p.detach()) for p in module.parameters()}  # the same memory
        self.twin = copy.deepcopy(module, values).eval().requires_grad_(True)
        for layer in self.twin.modules():
            if getattr(layer, "inplace", False):
                layer.inplace = False  # type: ignore[assignment]  # it would overwrite an output
        self.losses = losses
        self.parameters = dict(self.twin.named_parameters())
        self.checked = 0  # examples on which the ways were compared
        self.alone = False  # whether all parameters go the last way
        self.by_layer: list[str] = []  # names of the parameters that go the first
        self.by_vmap: list[str] = []  # and the second; what no loss reaches is in neither

    def __call__(
        self, inputs: Examples, twins: Examples | None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What `squared_gradients` returns for these examples."""
        n = len(inputs[0])
        if self.checked < min(n, FEW):
            self._choose(_rows(inputs, slice(FEW)))
        total = {name: torch.zeros_like(p) for name, p in self.parameters.items()}
        each = {name: torch.zeros(n, dtype=torch.float64) for name in self.parameters}
        for rows in _slices(n, 1 if self.alone else CHUNK):
            first = _rows(inputs, rows)
            second = None if twins is None else _rows(twins, rows)
            part = {name: values[rows] for name, values in each.items()}  # the same memory
            if self.alone:
                self._add_alone(total, part, first, second)
            if self.by_layer:
                self._add_by_layer(total, part, first, second)
            if self.by_vmap:
                self._add_by_vmap(total, part, first, second)
        return total, each

    def _choose(self, few: Examples) -> None:
        """Decide on a few examples which way each parameter goes."""
        self.checked = len(few[0])
        self.alone, self.by_layer, self.by_vmap = True, [], []
        if not self._are_independent(few):
            return
        singles = [self._gradients_alone(_rows(few, rows)) for rows in _slices(self.checked, 1)]
        reached = list(singles[0])
        found = _attempt(lambda: self._gradients_by_layer(few)) or {}
        left_over = _differing(reached, found, singles)
        if left_over:
            found = _attempt(lambda: self._gradients_by_vmap(left_over, few)) or {}
            if _differing(left_over, found, singles):
                return
        self.alone = False
        self.by_layer = [name for name in reached if name not in left_over]
        self.by_vmap = left_over

    @torch.enable_grad()  # where layers have a way of their own without, the other shall be tried
    def _are_independent(self, few: Examples) -> bool:
        """Whether the losses of a batch are those of its examples, as far as vmap can tell.

        vmap refuses a module that branches on the data, where a batch may take another branch than
        its examples.  TypeError if the losses of a batch are other ones although there is no
        branch.
        """
        alone = _attempt(lambda: torch.func.vmap(self._loss_of)(*few))
        if alone is None:
            return False
        alone, together = alone.detach(), self._losses_of(few).detach()
        room = TOLERANCE * float(alone.nan_to_num(0.0, 0.0, 0.0).abs().max())
        if not torch.allclose(together, alone, rtol=0, atol=room, equal_nan=True):
            raise TypeError(
                f"losses gives {together.tolist()} for {len(alone)} examples at once and "
                f"{alone.tolist()} for the same one by one: the loss of an example must not "
                "depend on other examples"
            )
        return True

    def _loss_of(self, *example: Tensor) -> Tensor:
        """The loss of one example, whose tensors come without the axis of the examples."""
        return self._losses_of(tuple(t[None] for t in example)).sum()

    def _losses_of(self, examples: Examples) -> Tensor:
        """The losses of these examples, (B,); ValueError if they are of another shape."""
        losses = self.losses(self.twin, *examples)
        n = len(examples[0])
        if losses.shape != (n,):
            shape = tuple(losses.shape)
            raise ValueError(f"losses of shape {shape} must be ({n},): one for each example")
        return losses

    # Alone

    @torch.enable_grad()
    def _gradients_alone(self, example: Examples) -> Gradients:
        """The gradients of one example, (1, *shape), for the parameters that its loss reaches."""
        loss = self._losses_of(example).sum()
        found = torch.autograd.grad(loss, list(self.parameters.values()), allow_unused=True)
        pairs = zip(self.parameters, found, strict=True)
        return {name: gradient[None] for name, gradient in pairs if gradient is not None}

    def _add_alone(
        self, total: Gradients, each: Gradients, first: Examples, second: Examples | None
    ) -> None:
        """Add the products of one example's gradients."""
        one = self._gradients_alone(first)
        two = one if second is None else self._gradients_alone(second)
        for name in one.keys() & two.keys():
            _add_products(total[name], each[name], one[name], two[name])

    # By layer

    @torch.enable_grad()
    def _uses(self, examples: Examples) -> dict[str, _Use]:
        """The parameters whose only use in a pass over these examples is in a layer with a rule."""
        names = {id(p): name for name, p in self.parameters.items()}
        calls: list[tuple[Any, Tensor, Tensor]] = []  # layer, input, output

        def keep(layer: nn.Module, inputs: Examples, output: Tensor) -> None:
            if inputs and output.requires_grad:
                calls.append((layer, inputs[0].detach(), output))

        layers = [layer for layer in self.twin.modules() if _has_rule(layer)]
        hooks = [layer.register_forward_hook(keep) for layer in layers]
        try:
            losses = self._losses_of(examples)
        finally:
            for hook in hooks:
                hook.remove()
        if not calls:
            return {}
        outputs = [output for _, _, output in calls]
        gradients = torch.autograd.grad(losses.sum(), outputs, allow_unused=True)
        uses: dict[str, list[_Use]] = {}
        for (layer, seen, _), gradient in zip(calls, gradients, strict=True):
            if gradient is None:
                continue  # the output does not reach the losses
            for kind in ("weight", "bias"):
                name = names.get(id(getattr(layer, kind)))
                if name is not None:
                    uses.setdefault(name, []).append(_Use(layer, kind, seen, gradient))
        n = len(examples[0])
        return {k: used[0] for k, used in uses.items() if len(used) == 1 and used[0].is_known(n)}

    def _gradients_by_layer(self, examples: Examples) -> Gradients:
        """Each example's gradients, (B, *shape), for the parameters that go this way."""
        return {name: use.gradients(slice(None)) for name, use in self._uses(examples).items()}

    def _add_by_layer(
        self, total: Gradients, each: Gradients, first: Examples, second: Examples | None
    ) -> None:
        """Add the products of these examples' gradients."""
        uses = self._uses(first)
        others = uses if second is None else self._uses(second)
        for name in self.by_layer:
            use, other = uses[name], others[name]
            if isinstance(use.layer, nn.Linear):
                each[name] += _add_rank_one(total[name], use, other)
                continue
            for rows in _slices(len(use.seen), _piece(total[name].numel())):
                one = use.gradients(rows)
                two = one if second is None else other.gradients(rows)
                _add_products(total[name], each[name][rows], one, two)

    # By vmap

    def _gradients_by_vmap(self, names: list[str], examples: Examples) -> Gradients:
        """Each example's gradients, (B, *shape), for these parameters."""
        called = _Called(self.twin, self._loss_of)

        def loss(values: Gradients, *example: Tensor) -> Tensor:
            found: Tensor = torch.func.functional_call(called, values, example)
            return found

        values = {f"module.{name}": self.parameters[name].detach() for name in names}
        axes = (None, *(0 for _ in examples))
        with torch.no_grad():  # torch.func.grad differentiates all the same; nothing else shall
            found = torch.func.vmap(torch.func.grad(loss), in_dims=axes)(values, *examples)
        return {name: found[f"module.{name}"] for name in names}

    def _add_by_vmap(
        self, total: Gradients, each: Gradients, first: Examples, second: Examples | None
    ) -> None:
        """Add the products of these examples' gradients."""
        entries = sum(total[name].numel() for name in self.by_vmap)
        for rows in _slices(len(first[0]), _piece(entries)):
            one = self._gradients_by_vmap(self.by_vmap, _rows(first, rows))
            two = one
            if second is not None:
                two = self._gradients_by_vmap(self.by_vmap, _rows(second, rows))
            for name in self.by_vmap:
                _add_products(total[name], each[name][rows], one[name], two[name])


class _Called(nn.Module):
    """A function of a module as a module of its own, which `torch.func.functional_call` wants."""

    def __init__(self, module: nn.Module, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.module, self.function = module, function

    def forward(self, *inputs: Tensor) -> Tensor:
        """What the function returns."""
        return self.function(*inputs)


def _has_rule(layer: nn.Module) -> bool:
    """Whether `_Use.gradients` fits such a layer."""
    if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
        return layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    return isinstance(layer, nn.Linear)


def _convolution_gradients(
    layer: nn.Conv2d | nn.ConvTranspose2d, seen: Tensor, gradient: Tensor
) -> Tensor:
    """Each example's gradient of the weight, (B, *weight.shape), by what autograd itself calls."""

    def of_one(seen: Tensor, gradient: Tensor) -> Tensor:
        found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
            gradient[None],
            seen[None],
            layer.weight.detach(),
            None,  # of the bias
            layer.stride,
            layer.padding,
            layer.dilation,
            layer.transposed,
            layer.output_padding,
            layer.groups,
            [False, True, False],  # the gradient of the weight alone
        )
        return found[1]

    return torch.func.vmap(of_one)(seen, gradient)


def _add_rank_one(total: Tensor, use: _Use, other: _Use) -> Tensor:
    """Add a linear layer's products of gradients to total, without forming them.

    Returns the sum of each example's products (B,), on the CPU.
    """
    g = use.gradient * other.gradient  # the squares themselves when both are the same
    a = use.seen * other.seen if use.kind == "weight" else g.new_ones(len(g), 1)
    total.view(len(total), -1).addmm_(g.T, a)
    return (g.sum(1) * a.sum(1)).cpu().double()


def _add_products(total: Tensor, each: Tensor, first: Tensor, second: Tensor) -> None:
    """Add first * second, both (B, *shape): to total over examples, to each (B,) over entries."""
    product = first * second
    total += product.sum(0)
    each += product.reshape(len(product), -1).sum(1).cpu().double()


def _slices(n: int, size: int) -> Iterator[slice]:
    """The rows from 0 to n, so many at a time."""
    return (slice(start, start + size) for start in range(0, n, size))


def _rows(examples: Examples, rows: slice) -> Examples:
    """Some of the examples."""
    return tuple(t[rows] for t in examples)


def _piece(entries: int) -> int:
    """How many examples' gradients of so many entries are formed at once."""
    return max(1, min(PIECE, ENTRIES // max(entries, 1)))


def _attempt(compute: Callable[[], T]) -> T | None:
    """What compute returns; None if it fails, as vmap does on a module that branches on data.

    Where vmap has no rule for an operator, it warns and loops over the examples.  Our own loop is
    no slower and does not warn.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*batching rule")
        try:
            return compute()
        except Exception:  # a module of the caller's may raise anything where it does not fit
            return None


def _differing(names: list[str], found: Gradients, singles: list[Gradients]) -> list[str]:
    """The names that found, (B, *shape), has not, or not as the B single examples have them."""
    differing = [name for name in names if name not in found]
    for k, one in enumerate(singles):
        sizes = {name: _largest(right) for name, right in one.items()}
        floor = 1e-3 * max(sizes.values())
        for name in names:
            if name in differing:
                continue
            room = TOLERANCE * max(sizes[name], floor)
            if not _largest(one[name][0] - found[name][k]) <= room:
                differing.append(name)
    return differing


def _largest(values: Tensor) -> float:
    """The largest magnitude, without a temporary; NaN if there is one."""
    return max(float(values.amax()), -float(values.amin())) if values.numel() else 0.0
