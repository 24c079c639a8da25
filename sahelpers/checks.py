"""What public functions ask of their arguments: one rule and one message for each, in one place.

Checks stand at two places: at the entry of the functions that a reader of the notebooks calls, and
where a value is made (images with labels, latents, a Fisher, a verdict, a configuration), so that
whoever gets such a value need not look at it again.  Functions in between check nothing.  Every
check raises TypeError (a thing of another kind) or ValueError, and the message names the argument,
what came and what is allowed.  Those that read a tensor's numbers (`check_values`, `check_images`,
`check_labels`, `check_finite`) never stand inside a training step.
"""

import inspect
import math
import operator
import unicodedata
from dataclasses import is_dataclass
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Shape = tuple[int, int, int]  # channels, height, width
IMAGE_SHAPE = (1, 28, 28)  # of MNIST, where none is given
GRAY_LEVELS = ": divide by the largest gray level there is, or take (x + 1) / 2 of -1 to 1"
SIDES = (8, 64)  # pixels that an image may have a side
LONGEST = 80  # characters of a value that a message shows


def check_is(value: object, kind: type | tuple[type, ...], name: str, hint: str = "") -> None:
    """Refuse a value of another kind.

    Args:
        value: The value.
        kind: The kind that it must be of, or several; NoneType where it may be left out.
        name: The argument's name, for the message.
        hint: What to do, at the end of the message.

    Raises:
        TypeError: The value is of none of the kinds.
    """
    if not isinstance(value, kind):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        wanted = " or ".join("None" if k is type(None) else k.__name__ for k in kinds)
        raise TypeError(f"{name} is of type {type(value).__name__}, not {wanted}{hint}")


def shown(value: object) -> str:
    """Write out a value for a message.

    Args:
        value: Anything.

    Returns:
        Its text in one line, cut off when it is long; of a dataclass, which may hold many numbers,
        its type.
    """
    text = f"<{type(value).__name__}>" if is_dataclass(value) else repr(value)
    text = " ".join(text.split("\n"))
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def composed(text: str) -> str:
    """Write a text in Unicode's composed form (NFC), in which most keyboards write it.

    Some file systems keep names in the decomposed form, which looks the same.

    Args:
        text: A name.

    Returns:
        The name, with each letter and its accents as one character where there is one.
    """
    return unicodedata.normalize("NFC", text)


def check_ordered(value: object, name: str) -> None:
    """Refuse a set, whose entries come in another order in another process.

    Args:
        value: The value.
        name: The argument's name, for the message.

    Raises:
        TypeError: The value is a set.
    """
    if isinstance(value, set | frozenset):
        kind = type(value).__name__
        raise TypeError(f"{name} is a {kind}, which has no order: give a list")


def check_device(device: Any, *others: str) -> torch.device:
    """Refuse a device that this machine does not have.

    Args:
        device: The device, such as "cpu" or "cuda".
        *others: Words that the caller takes besides, for the message.

    Returns:
        The device.

    Raises:
        ValueError: Torch knows no such device, or cannot make a tensor there.
    """
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except Exception as error:  # whatever torch raises without the device, its driver or its build
        there = [*others, "cpu"]
        if torch.cuda.is_available():
            there.append("cuda")
        if torch.backends.mps.is_available():
            there.append("mps")
        why = str(error).split("\n")[0]
        raise ValueError(
            f"device={shown(device)} cannot be used here: give {' or '.join(there)} ({why})"
        ) from None
    return found


def check_callable(value: object, name: str, signature: str) -> None:
    """Refuse what cannot be called, or not with these arguments.

    Args:
        value: The value.
        name: The argument's name, for the message.
        signature: How it will be called, such as "(step, model) -> bool".

    Raises:
        TypeError: The value is no function, or takes other arguments.
    """
    if not callable(value):
        raise TypeError(f"{name}={shown(value)} is not a function {signature}")
    arguments = signature[1 : signature.index(")")].split(", ")
    if any(argument.startswith("*") for argument in arguments):
        return  # of any number
    try:
        takes = inspect.signature(value)
    except ValueError:  # some functions that are written in C do not say
        return
    try:
        takes.bind(*arguments)
    except TypeError:
        raise TypeError(f"{name} takes {takes}: give a function {signature}") from None


def is_whole(value: Any) -> bool:
    """Tell whether a value is a whole number of Python, NumPy or torch.

    Args:
        value: Anything.

    Returns:
        Whether it is one; True and False are none.
    """
    try:
        operator.index(value)
    except TypeError:
        return False
    return not isinstance(value, bool) and getattr(value, "dtype", None) is not torch.bool


def is_no(answer: object) -> bool:
    """Tell whether a caller's function answered False, which ends what called it.

    Args:
        answer: What the function returned.

    Returns:
        Whether it is False, of Python, NumPy or torch; None and 0 are not.
    """
    if isinstance(answer, Tensor):
        return answer.dtype is torch.bool and not bool(answer.any())
    return isinstance(answer, bool | np.bool_) and not answer


def check_whole(value: Any, name: str, low: int = 1, high: int = 2**31 - 1) -> int:
    """Refuse what is no whole number of a range.

    Args:
        value: The value.
        name: The argument's name, for the message.
        low: The smallest number that is allowed.
        high: The largest number that is allowed.

    Returns:
        The value as Python's own int: NumPy's cannot be kept in a file, and small ones overflow.

    Raises:
        ValueError: The value is no whole number, or outside the range.
    """
    if not (is_whole(value) and low <= operator.index(value) <= high):
        raise ValueError(f"{name}={shown(value)} must be a whole number from {low} to {high}")
    return operator.index(value)


def check_number(value: Any, name: str, low: float, high: float) -> None:
    """Refuse what is no number of a range; NaN is in none.

    Args:
        value: The value.
        name: The argument's name, for the message.
        low: The smallest number that is allowed.
        high: The largest number that is allowed.

    Raises:
        ValueError: The value is no number, or outside the range.
    """
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
    """Refuse what is no tensor of floats of a shape; its numbers are not read.

    Args:
        value: The value.
        shape: The size of each axis; a word stands for any size.
        name: The argument's name, for the message.
        device: The device that it must be on, which is the model's; any when left out.
        dtype: The type that it must have, which is the model's; any float type when left out.

    Raises:
        TypeError: The value is no tensor.
        ValueError: It has another shape, type or device.
    """
    check_is(value, Tensor, name)
    assert isinstance(value, Tensor)
    fits = len(shape) == value.ndim
    if fits:
        for wanted, size in zip(shape, value.shape, strict=True):
            if isinstance(wanted, int) and wanted != size:
                fits = False
    if not fits:
        comma = "," if len(shape) == 1 else ""
        wanted_shape = f"({', '.join(map(str, shape))}{comma})"
        raise ValueError(f"{name} of shape {tuple(value.shape)} must be {wanted_shape}")
    if not value.is_floating_point():
        hint = ": divide bytes by 255" if value.dtype is torch.uint8 else ""
        raise ValueError(f"{name} of type {value.dtype} must be float{hint}")
    if dtype is not None and value.dtype != dtype:
        raise ValueError(f"{name} of type {value.dtype} must be {dtype}, as the model is")
    if device is not None and value.device != device:
        raise ValueError(f"{name} is on {value.device}, the model on {device}: move one")


def check_same_length(values: Tensor, labels: Tensor, name: str) -> None:
    """Refuse values that have not one label each.

    Args:
        values: Any values, (B, ...).
        labels: Their labels, (B, ...).
        name: The name of the values, for the message.

    Raises:
        ValueError: There are more or fewer labels.
    """
    if len(values) != len(labels):
        raise ValueError(f"{name}: {len(values)} of them and {len(labels)} labels; give one each")


def check_values(values: Tensor, name: str, low: float, high: float, hint: str = "") -> None:
    """Refuse a tensor with a number outside a range; NaN is in none.  Every number is read.

    Args:
        values: Any tensor.
        name: Its name, for the message.
        low: The smallest number that is allowed.
        high: The largest number that is allowed.
        hint: What to do, at the end of the message.

    Raises:
        ValueError: A number lies outside the range.
    """
    if values.is_meta or not values.numel():
        return  # nothing is there to be read
    if not (values.amin() >= low and values.amax() <= high):
        first, last = float(values.amin()), float(values.amax())
        if math.isnan(first):
            raise ValueError(f"values of {name} hold NaN; they must lie in [{low:g}, {high:g}]")
        raise ValueError(
            f"values of {name} run from {first:g} to {last:g}; they must lie in "
            f"[{low:g}, {high:g}]{hint}"
        )


def check_shape(shape: object, name: str = "image_shape") -> Shape:
    """Refuse what is no shape of images that the networks here can work on.

    Args:
        shape: (C, H, W), a tuple or list: one or three channels, 8 to 64 pixels a side.
        name: The argument's name, for the message.

    Returns:
        The shape as a tuple of Python's own whole numbers.

    Raises:
        ValueError: It is something else.
    """
    sizes = tuple(shape) if isinstance(shape, tuple | list) else ()
    if not _is_shape(sizes):
        wanted = (
            f"(channels, height, width): 1 or 3 channels, {SIDES[0]} to {SIDES[1]} pixels a side"
        )
        turned = (*sizes[2:], *sizes[:2])
        hint = f"; the channels stand first: {turned}" if _is_shape(turned) else ""
        raise ValueError(f"{name}={shown(shape)} must be {wanted}{hint}")
    channels, height, width = map(operator.index, sizes)
    return channels, height, width


def _is_shape(shape: tuple[Any, ...]) -> bool:
    """Whether a tuple is (C, H, W) within the bounds of `check_shape`."""
    if not (len(shape) == 3 and all(map(is_whole, shape))):
        return False
    channels, height, width = shape
    fewest, most = SIDES
    return channels in (1, 3) and fewest <= min(height, width) and max(height, width) <= most


def check_images(
    images: Tensor,
    name: str = "images",
    device: torch.device | None = None,
    shape: Shape | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Refuse what are no images in [0, 1].  Every pixel is read.

    Args:
        images: (B, C, H, W) float in [0, 1].
        name: The argument's name, for the message.
        device: The device that they must be on, which is the model's; any when left out.
        shape: (C, H, W) that they must have; any that `check_shape` allows when left out.
        dtype: The type that they must have, which is the model's; any float type when left out.

    Returns:
        The images.

    Raises:
        TypeError: They are no tensor.
        ValueError: They have another shape, type, range or device.
    """
    check_tensor(images, ("B", *(shape or ("C", "H", "W"))), name, device, dtype)
    if shape is None:
        check_shape(tuple(images.shape[1:]), f"image shape of {name}")
    check_values(images, name, 0, 1, GRAY_LEVELS)
    return images


def check_labels(labels: object, num_classes: int, name: str = "labels") -> None:
    """Refuse what are no class numbers.  Every number is read.

    Args:
        labels: (B,) int64 or int32, from 0 to num_classes - 1.
        num_classes: Number of classes.
        name: The argument's name, for the message.

    Raises:
        TypeError: They are no tensor.
        ValueError: They have another shape, type or range.
    """
    check_is(labels, Tensor, name)
    assert isinstance(labels, Tensor)
    if labels.ndim != 1 or labels.dtype not in (torch.int64, torch.int32):
        raise ValueError(
            f"{name} of shape {tuple(labels.shape)} and type {labels.dtype} must be class numbers "
            "(B,) int64"
        )
    check_values(labels, name, 0, num_classes - 1)


def check_finite(module: nn.Module, name: str) -> None:
    """Refuse a module with a weight that is NaN or infinite.  Every weight is read.

    Args:
        module: The module.
        name: Its name, for the message.

    Raises:
        ValueError: A weight is not finite; the message names the first.
    """
    for key, value in module.state_dict().items():
        if value.is_meta:
            continue
        # a sum is quick to look at, but finite numbers can overflow in it
        if not (value.sum().isfinite() or value.isfinite().all()):
            raise ValueError(f"{name}: {key} holds NaN or infinite values; train or load it again")
