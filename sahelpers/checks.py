"""What public functions ask of their arguments: one rule, one message, in one place.

Every check raises TypeError (a thing of another kind) or ValueError, naming the argument, what
came and what is allowed.  Those that read a tensor's numbers (`check_values`, `check_images`,
`check_labels`, `check_finite`) stand at the entry of longer work, never inside a training step.
"""

import functools
import inspect
import operator
import threading
import types
from collections.abc import Callable
from dataclasses import is_dataclass
from numbers import Real
from typing import Any, ParamSpec, TypeVar, get_args

import torch
from torch import Tensor, nn

Shape = tuple[int, int, int]  # channels, height, width
IMAGE_SHAPE = (1, 28, 28)  # of MNIST, where none is given
SIDES = (8, 64)  # pixels that an image may have a side
P = ParamSpec("P")
R = TypeVar("R")
_KINDS = (nn.Module, Tensor, torch.Generator)
_inside = threading.local()  # whether this thread is behind a door already


def door(function: Callable[P, R]) -> Callable[P, R]:
    """Check what comes into a public function by its own annotations, once, at its entry.

    Arguments annotated as tensors, modules or dataclasses must be such, and the weights of modules
    finite.  Functions that are called behind a door check nothing again.
    Raises TypeError (with the class's `hint` where to get one) or ValueError, naming the argument.
    """
    signature = inspect.signature(function)
    kinds = {name: _kinds(p.annotation) for name, p in signature.parameters.items()}

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        if getattr(_inside, "door", False):
            return function(*args, **kwargs)
        for name, value in signature.bind(*args, **kwargs).arguments.items():
            if kinds[name]:
                kind = kinds[name][0]
                usual = ": seeded(0) makes one" if kind is torch.Generator else ""
                check_is(value, kinds[name], name, getattr(kind, "hint", usual))
                if isinstance(value, nn.Module):
                    check_finite(value, name)
        _inside.door = True
        try:
            return function(*args, **kwargs)
        finally:
            _inside.door = False

    return checked


def _kinds(annotation: Any) -> tuple[type, ...]:
    """The kinds that an annotation allows; () where it allows something else as well."""
    union = isinstance(annotation, types.UnionType)
    kinds = get_args(annotation) if union else (annotation,)
    known = [isinstance(k, type) and (issubclass(k, _KINDS) or is_dataclass(k)) for k in kinds]
    return kinds if any(known) and all(known[: len(kinds) - (type(None) in kinds)]) else ()


def check_is(value: object, kind: type | tuple[type, ...], name: str, hint: str = "") -> None:
    """TypeError unless value is of the kind (or one of the kinds)."""
    if not isinstance(value, kind):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        wanted = " or ".join("None" if k is type(None) else k.__name__ for k in kinds)
        raise TypeError(f"{name} is of type {type(value).__name__}, not {wanted}{hint}")


def shown(value: object) -> str:
    """A value in a message: cut off when it is long, only its type when it is slow to write out."""
    text = f"<{type(value).__name__}>" if is_dataclass(value) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def check_callable(value: object, name: str, signature: str) -> None:
    """TypeError unless value can be called; signature says how it will be."""
    if not callable(value):
        raise TypeError(f"{name}={shown(value)} is not a function {signature}")


def is_whole(value: Any) -> bool:
    """Whether value is a whole number (of Python, NumPy or torch); True and False are none."""
    try:
        operator.index(value)
    except TypeError:
        return False
    return not isinstance(value, bool) and getattr(value, "dtype", None) is not torch.bool


def check_whole(value: Any, name: str, low: int = 1, high: int = 2**31 - 1) -> None:
    """ValueError unless value is a whole number from low to high, both included."""
    if not (is_whole(value) and low <= value <= high):
        raise ValueError(f"{name}={shown(value)} must be a whole number from {low} to {high}")


def check_number(value: Any, name: str, low: float, high: float) -> None:
    """ValueError unless value is a number from low to high, both included: never NaN."""
    real = isinstance(value, Real) and not isinstance(value, bool)
    if not (real and low <= value <= high):
        raise ValueError(f"{name}={shown(value)} must be a number from {low:g} to {high:g}")


def check_tensor(
    value: object,
    shape: tuple[int | str, ...],
    name: str,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Refuse what is no tensor of floats of this shape, device and type; words are free sizes."""
    check_is(value, Tensor, name)
    assert isinstance(value, Tensor)
    if len(shape) != value.ndim or any(
        isinstance(wanted, int) and wanted != size
        for wanted, size in zip(shape, value.shape, strict=True)
    ):
        wanted_shape = f"({', '.join(map(str, shape))}{',' * (len(shape) == 1)})"
        raise ValueError(f"{name} of shape {tuple(value.shape)} must be {wanted_shape}")
    if not value.is_floating_point():
        hint = ": divide bytes by 255" if value.dtype is torch.uint8 else ""
        raise ValueError(f"{name} of type {value.dtype} must be float{hint}")
    if dtype is not None and value.dtype != dtype:
        raise ValueError(f"{name} of type {value.dtype} must be {dtype}, as the model is")
    if device is not None and value.device != device:
        raise ValueError(f"{name} is on {value.device}, the model on {device}: move one")


def check_same_length(values: Tensor, labels: Tensor, name: str) -> None:
    """ValueError unless there is one label for each."""
    if len(values) != len(labels):
        raise ValueError(f"{name}: {len(values)} of them and {len(labels)} labels; give one each")


def check_values(values: Tensor, name: str, low: float, high: float, hint: str = "") -> None:
    """ValueError unless every number lies from low to high: never NaN."""
    if values.is_meta or not values.numel():
        return  # nothing is there to be read
    if not (values.amin() >= low and values.amax() <= high):
        first, last = float(values.amin()), float(values.amax())
        raise ValueError(
            f"values of {name} run from {first:g} to {last:g}; they must lie in "
            f"[{low:g}, {high:g}]{hint}"
        )


def check_shape(shape: object, name: str = "image_shape") -> None:
    """ValueError unless it is (C, H, W) with one or three channels and 8 to 64 pixels a side."""
    whole = isinstance(shape, tuple) and len(shape) == 3 and all(map(is_whole, shape))
    low, high = SIDES
    if not (whole and shape[0] in (1, 3) and low <= min(shape[1:]) <= max(shape[1:]) <= high):  # type: ignore[index]
        wanted = f"(channels, height, width): 1 or 3 channels, {low} to {high} pixels a side"
        raise ValueError(f"{name}={shown(shape)} must be {wanted}")


def check_images(
    images: Tensor,
    name: str = "images",
    device: torch.device | None = None,
    shape: Shape | None = None,
) -> Tensor:
    """The images, if (B, *shape) float in [0, 1]; without shape, any that `check_shape` allows."""
    check_tensor(images, ("B", *(shape or ("C", "H", "W"))), name, device)
    if shape is None:
        check_shape(tuple(images.shape[1:]), f"image shape of {name}")
    check_values(images, name, 0, 1, ": divide by the largest gray level there is")
    return images


def check_labels(labels: object, num_classes: int, name: str = "labels") -> None:
    """Refuse what is not class numbers (B,) from 0 to num_classes - 1."""
    check_is(labels, Tensor, name)
    assert isinstance(labels, Tensor)
    if labels.ndim != 1 or labels.dtype not in (torch.int64, torch.int32):
        raise ValueError(
            f"{name} of shape {tuple(labels.shape)} and type {labels.dtype} must be class numbers "
            "(B,) int64"
        )
    check_values(labels, name, 0, num_classes - 1)


def check_finite(module: nn.Module, name: str) -> None:
    """ValueError naming the first weight that holds NaN or an infinite number."""
    for key, value in module.state_dict().items():
        if not value.is_meta and not value.isfinite().all():
            raise ValueError(f"{name}: {key} holds NaN or infinite values; train or load it again")
