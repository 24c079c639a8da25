"""The squares of per-example gradients, summed over examples, at about the price of one pass.

Per-example gradients are never formed where they need not be.  For a linear layer with inputs A
(B, in) and gradients G (B, out) at its outputs, the gradient of example b is the rank-one matrix
g_b a_b^T, so the sum of the squares is (G*G)^T (A*A): one matrix product.  Convolutions are not
rank one: their input is unfolded and each example's gradient is formed, a few dozen at a time.
"""

import copy
import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .checks import check_callable, door

CHUNK = 300  # examples in one pass: half of a class's share by default
PIECE = 32  # per-example gradients formed at once: few enough to stay in the processor's cache
TOLERANCE = 5e-3  # of the largest entry, against autograd; leaves room for a GPU's short floats

Use = tuple[nn.Module, str, Tensor, Tensor]  # layer, "weight" or "bias", input, output gradient


@door
def squared_gradients(
    module: nn.Module,
    losses: Callable[..., Tensor],
    inputs: tuple[Tensor, ...],
    twins: tuple[Tensor, ...] | None = None,
    *,
    verify: bool = True,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Sum over examples of the square of each example's own gradient, for every parameter.

    losses(module, *inputs) -> (B,): one loss per example, each depending on its own example only.
    inputs: tensors with the examples along the first axis.  twins: as inputs; when given, the
    gradients for inputs and for twins are multiplied instead of the first being squared.
    Layers: Linear (any axes after the first), Conv2d and ConvTranspose2d with zero padding, used
    any number of times, with shared parameters too.  The module itself is not touched: a copy in
    evaluation mode does the work.
    verify: compare two examples with autograd; once for a module and its losses is enough.

    Returns the sums by parameter name, and for every parameter one number per example, (B,) float64
    on the CPU: the sum over the parameter's entries of that example's squares.
    Raises ValueError when a weight is not finite.  Where a layer is of another kind or uses its
    parameters in another way, a warning names the parameter, and its squares are zero; TypeError if
    that is so of every parameter.
    """
    check_callable(losses, "losses", "(module, *inputs) -> (B,)")
    sizes = {len(t) for t in (*inputs, *(twins or ()))}
    if len(sizes) != 1 or not max(sizes) or len(inputs) != len(twins or inputs):
        rows = sorted(sizes)
        raise ValueError(f"inputs and twins have {rows} rows: give at least one image, and as many")
    n = len(inputs[0])
    values = {id(p): nn.Parameter(p.detach()) for p in module.parameters()}  # the same memory
    twin = copy.deepcopy(module, values).eval().requires_grad_(True)
    recorder = _Recorder(twin, losses)
    unknown = _verify(twin, recorder, tuple(t[:2] for t in inputs)) if verify else set[str]()
    names = {id(p): name for name, p in twin.named_parameters() if name not in unknown}
    total = {name: torch.zeros_like(p) for name, p in twin.named_parameters()}
    each = {name: p.new_zeros(n, dtype=torch.float64, device="cpu") for name, p in total.items()}
    for start in range(0, n, CHUNK):
        part = slice(start, start + CHUNK)
        first = recorder.run(tuple(t[part] for t in inputs))
        second = first if twins is None else recorder.run(tuple(t[part] for t in twins))
        for key, uses in first.items():
            if key in names:
                name = names[key]
                each[name][part] = _add_products(total[name], uses, second[key]).cpu().double()
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
                shape, n = tuple(losses.shape), len(inputs[0])
                raise ValueError(f"losses of shape {shape} must be ({n},): one for each example")
            outputs = [output for _, _, output in self.seen]
            wanted = outputs and torch.autograd.grad(losses.sum(), outputs, allow_unused=True)
        uses: dict[int, list[Use]] = {}
        for (layer, seen, _), gradient in zip(self.seen, wanted, strict=True):
            if gradient is None:
                continue  # the output does not reach the loss: exactly zero
            if len(seen) != len(inputs[0]):
                rows = f"{len(seen)} rows for {len(inputs[0])} examples"
                raise TypeError(f"{layer} sees {rows}: keep the examples along the first axis")
            for kind, parameter in layer.named_parameters(recurse=False):
                uses.setdefault(id(parameter), []).append((layer, kind, seen, gradient))
        self.seen.clear()
        return uses


def _verify(twin: nn.Module, recorder: _Recorder, inputs: tuple[Tensor, ...]) -> set[str]:
    """Compare with autograd, one example at a time, on the first two; the parameters that differ.

    A use of a parameter that no hook saw, and examples that depend on each other, show here.
    """
    parameters = dict(twin.named_parameters())
    uses = recorder.run(inputs)
    found = {name: _added(uses[id(p)], slice(2)) for name, p in parameters.items() if id(p) in uses}
    unknown: dict[str, str] = {}
    for k in range(len(inputs[0])):
        with torch.enable_grad():
            loss = recorder.losses(twin, *(t[k : k + 1] for t in inputs)).sum()
            expected = torch.autograd.grad(
                loss, list(parameters.values()), allow_unused=True, materialize_grads=True
            )
        sizes = [_largest(e) for e in expected]
        for name, right, size in zip(parameters, expected, sizes, strict=True):
            room = TOLERANCE * max(size, 1e-3 * max(sizes))
            if not _largest(right - found[name][k] if name in found else right) <= room:
                owner = type(twin.get_submodule(name.rpartition(".")[0])).__name__
                unknown[name] = f"parameter {name} (of {owner})"
    if unknown:
        words = f"no per-example gradient is known of {', '.join(unknown.values())}: only of "
        words += (
            "Linear, Conv2d and ConvTranspose2d layers with zero padding, called as layers, in "
        )
        words += "a loss whose examples do not depend on each other"
        if unknown.keys() >= {name for name, p in parameters.items() if id(p) in uses}:
            raise TypeError(words)
        warnings.warn(f"{words}. It counts as zero: nothing holds it", stacklevel=4)
    return set(unknown)


def _largest(values: Tensor) -> float:
    """The largest magnitude, without a temporary; NaN if there is one."""
    return max(float(values.amax()), -float(values.amin()))


def _add_products(total: Tensor, first: list[Use], second: list[Use]) -> Tensor:
    """Add (gradient for first) * (gradient for second) of all examples to total; returns the sum
    of each one's entries (B,)."""
    layer, kind, a1, g1 = first[0]
    _, _, a2, g2 = second[0]
    if len(first) == 1 and isinstance(layer, nn.Linear) and a1.ndim == 2:
        g = g1 * g2  # the squares themselves when first is second
        a = a1 * a2 if kind == "weight" else g.new_ones(len(g), 1)
        total.view(len(total), -1).addmm_(g.T, a)
        return g.sum(1) * a.sum(1)
    each = []
    for start in range(0, len(a1), PIECE):
        part = slice(start, start + PIECE)
        one = _added(first, part)
        product = one * (one if second is first else _added(second, part))
        total += torch.sum(product, 0, out=torch.empty_like(product[0]))  # in the same order
        each.append(product.sum(tuple(range(1, product.ndim))))
    return torch.cat(each)


def _added(uses: list[Use], part: slice) -> Tensor:
    """Each of these examples' gradient (B, *parameter.shape): the uses of a parameter are added."""
    gradients = [_example_gradients(use, part) for use in uses]
    return sum(gradients[1:], gradients[0])


def _example_gradients(use: Use, part: slice) -> Tensor:
    """The gradient of each of these examples for one use of a parameter: (B, *parameter.shape)."""
    layer, kind, seen, gradient = use
    seen, gradient = seen[part], gradient[part]
    if isinstance(layer, nn.Linear):
        g = gradient.reshape(len(gradient), -1, layer.out_features)
        a = seen.reshape(len(seen), -1, layer.in_features)
        return g.sum(1) if kind == "bias" else g.transpose(1, 2) @ a
    assert isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d))
    if kind == "bias":
        return gradient.flatten(2).sum(2)
    # A transposed convolution is the adjoint of a convolution: input and gradient change places.
    wide, narrow = (seen, gradient) if isinstance(layer, nn.Conv2d) else (gradient, seen)
    if isinstance(layer.padding, str):
        raise TypeError(f"{layer} has its padding as a word: give numbers")
    height, width = narrow.shape[2:]
    (down, right), steps, (rows, columns) = layer.padding, layer.stride, layer.dilation
    reach = [d * (k - 1) + 1 for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
    padded = F.pad(wide.permute(0, 2, 3, 1), (0, 0, right, right, down, down))  # channels last
    windows = padded.unfold(1, reach[0], steps[0]).unfold(2, reach[1], steps[1])
    windows = windows[:, :height, :width, ..., ::rows, ::columns]  # output padding adds places
    windows = windows.unflatten(3, (layer.groups, -1)).permute(0, 3, 1, 2, 5, 6, 4)
    windows = windows.reshape(len(wide), layer.groups, height * width, -1)
    narrow = narrow.reshape(len(wide), layer.groups, -1, height * width)
    shape = len(wide), layer.weight.shape[0], *layer.kernel_size, layer.weight.shape[1]
    gradients: Tensor = (narrow @ windows).view(shape)
    return gradients.permute(0, 1, 4, 2, 3)
