"""The squares of per-example gradients, summed over examples, at about the price of one pass.

Per-example gradients are never formed where they need not be.  For a linear layer with inputs A
(B, in) and gradients G (B, out) at its outputs, the gradient of example b is the rank-one matrix
g_b a_b^T, so the sum of the squares is (G*G)^T (A*A): one matrix product.  Convolutions are not
rank one: their input is unfolded and each example's gradient is formed, a few dozen at a time.
"""

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .checks import check_callable, check_finite, check_is, check_whole

CHUNK = 250  # examples in one pass
PIECE = 32  # per-example gradients formed at once: few enough to stay in the processor's cache
TOLERANCE = 5e-3  # of the largest entry, against autograd; leaves room for a GPU's short floats

Use = tuple[nn.Module, str, Tensor, Tensor]  # layer, "weight" or "bias", input, output gradient


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
    Layers: Linear (any axes after the first), Conv2d and ConvTranspose2d with zero padding, used
    any number of times, with shared parameters too.  The module itself is not touched: a copy in
    evaluation mode does the work.

    Returns the sums by parameter name, and the sum over examples of (their entries' sum)^2.
    Raises ValueError when a weight is not finite, and TypeError naming the parameter when a layer
    is of another kind or uses its parameters in another way: never a silent zero.
    """
    total, each = example_sums(module, losses, inputs, twins, chunk)
    return total, {name: float(values.square().sum()) for name, values in each.items()}


def example_sums(
    module: nn.Module,
    losses: Callable[..., Tensor],
    inputs: tuple[Tensor, ...],
    twins: tuple[Tensor, ...] | None = None,
    chunk: int = CHUNK,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """As `squared_gradients`, but the second result is, for every parameter, one number per
    example, (B,) float64: the sum over the parameter's entries of that example's squares."""
    check_is(module, nn.Module, "module")
    check_callable(losses, "losses", "(module, *inputs) -> (B,)")
    check_whole(chunk, "chunk")
    check_finite(module, "module")
    sizes = {len(t) for t in (*inputs, *(twins or ()))}
    if len(sizes) != 1 or not max(sizes) or len(inputs) != len(twins or inputs):
        raise ValueError(
            f"inputs and twins have {sorted(sizes)} rows: give at least one image, and as many of "
            "each"
        )
    n = len(inputs[0])
    twin = copy.deepcopy(module).eval().requires_grad_(True)
    recorder = _Recorder(twin, losses)
    _verify(twin, recorder, tuple(t[:2] for t in inputs))
    names = {id(p): name for name, p in twin.named_parameters()}
    total = {name: torch.zeros_like(p) for name, p in twin.named_parameters()}
    each = {name: p.new_zeros(n, dtype=torch.float64, device="cpu") for name, p in total.items()}
    for start in range(0, n, chunk):
        part = slice(start, start + chunk)
        first = recorder.run(tuple(t[part] for t in inputs))
        second = first if twins is None else recorder.run(tuple(t[part] for t in twins))
        for key, uses in first.items():
            sums, per_example = _sum_products(uses, second[key])
            total[names[key]] += sums
            each[names[key]][part] = per_example.cpu().double()
    return total, each


class _Recorder:
    """Runs a module and keeps, for every parameter, each use of it: input and output gradient."""

    def __init__(self, module: nn.Module, losses: Callable[..., Tensor]) -> None:
        self.module, self.losses = module, losses
        self.seen: list[tuple[nn.Module, Tensor, Tensor]] = []
        for layer in module.modules():
            if getattr(layer, "inplace", False):
                layer.inplace = False  # type: ignore[assignment]  # it would overwrite `output`
            if isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
                layer.register_forward_hook(self._keep)

    def _keep(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if output.requires_grad:
            self.seen.append((layer, inputs[0].detach(), output))

    def run(self, inputs: tuple[Tensor, ...]) -> dict[int, list[Use]]:
        """The uses of every parameter (by identity) in one pass over these examples."""
        self.seen.clear()
        with torch.enable_grad():
            losses = self.losses(self.module, *inputs)
            if losses.shape != inputs[0].shape[:1]:
                raise ValueError(
                    f"losses of shape {tuple(losses.shape)} must be ({len(inputs[0])},): one for "
                    "each example"
                )
            outputs = [output for _, _, output in self.seen]
            gradients: tuple[Tensor | None, ...] = ()
            if outputs:
                gradients = torch.autograd.grad(losses.sum(), outputs, allow_unused=True)
        uses: dict[int, list[Use]] = {}
        for (layer, seen, _), gradient in zip(self.seen, gradients, strict=True):
            if gradient is None:
                continue  # the output does not reach the loss: exactly zero
            if len(seen) != len(inputs[0]):
                raise TypeError(
                    f"{layer} sees {len(seen)} rows for {len(inputs[0])} examples: "
                    "keep the examples along the first axis"
                )
            for kind, parameter in layer.named_parameters(recurse=False):
                uses.setdefault(id(parameter), []).append((layer, kind, seen, gradient))
        self.seen.clear()
        return uses


def _verify(twin: nn.Module, recorder: _Recorder, inputs: tuple[Tensor, ...]) -> None:
    """Compare with autograd, one example at a time, on the first two.

    A use of a parameter that no hook saw, and examples that depend on each other, show here.
    """
    parameters = dict(twin.named_parameters())
    uses = recorder.run(inputs)
    found = {name: _added(uses[id(p)]) for name, p in parameters.items() if id(p) in uses}
    for k in range(len(inputs[0])):
        with torch.enable_grad():
            loss = recorder.losses(twin, *(t[k : k + 1] for t in inputs)).sum()
            expected = torch.autograd.grad(
                loss, list(parameters.values()), allow_unused=True, materialize_grads=True
            )
        largest = max(float(e.abs().max()) for e in expected)
        for name, right in zip(parameters, expected, strict=True):
            mine = found[name][k] if name in found else torch.zeros_like(right)
            room = TOLERANCE * max(float(right.abs().max()), 1e-3 * largest)
            if not float((mine - right).abs().max()) <= room:
                owner = type(twin.get_submodule(name.rpartition(".")[0])).__name__
                raise TypeError(
                    f"the per-example gradient of parameter {name} (of {owner}) is not known: only "
                    "Linear, Conv2d and ConvTranspose2d layers with zero padding are, called as "
                    "layers, in a loss whose examples do not depend on each other"
                )


def _sum_products(first: list[Use], second: list[Use]) -> tuple[Tensor, Tensor]:
    """Sum over examples of (gradient for first) * (gradient for second), and each one's total."""
    layer, kind, a1, g1 = first[0]
    _, _, a2, g2 = second[0]
    if len(first) == 1 and isinstance(layer, nn.Linear) and a1.ndim == 2 and kind == "weight":
        a, g = a1 * a2, g1 * g2  # the squares themselves when first is second
        return g.T @ a, g.sum(1) * a.sum(1)
    total, each = torch.zeros_like(layer.get_parameter(kind)), []
    for start in range(0, len(a1), PIECE):
        one = _added(_examples(first, start))
        product = one * (one if second is first else _added(_examples(second, start)))
        total += product.sum(0)
        each.append(product.flatten(1).sum(1))
    return total, torch.cat(each)


def _examples(uses: list[Use], start: int) -> list[Use]:
    """The uses of PIECE examples only."""
    part = slice(start, start + PIECE)
    return [(layer, kind, seen[part], gradient[part]) for layer, kind, seen, gradient in uses]


def _added(uses: list[Use]) -> Tensor:
    """Each example's gradient (B, *parameter.shape): the uses of a parameter are added."""
    total = _example_gradients(uses[0])
    for use in uses[1:]:
        total = total + _example_gradients(use)
    return total


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
