"""What a forgotten class becomes: harmless images, by name or by any function."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from .checks import Shape, check_callable, check_images, check_is, check_number, shown
from .config import SURROGATES
from .models import CVAE, seeded

MakeImages = Callable[[int, torch.Generator], Tensor]
NAMES = (*SURROGATES, "class:k (k a kept class)")
AVERAGED = 512  # images of a user's function whose mean stands for its expectation


@dataclass(frozen=True)
class Surrogate:
    """A distribution q(x | z) of images, which a forgotten class is pulled towards.

    Attributes:
        draw: A function (z (B, Z), generator) -> images (B, *image_shape) in [0, 1], drawn from q.
        mean: A function z (B, Z) -> the expectation of q, (B, *image_shape): what a decoder that
            has learned q draws at z.

    Raises:
        TypeError: One of them is no function.
    """

    hint: ClassVar[str] = ": make_surrogate makes one"
    draw: Callable[[Tensor, torch.Generator], Tensor]
    mean: Callable[[Tensor], Tensor]

    def __post_init__(self) -> None:
        check_callable(self.draw, "draw", "(z, generator) -> images")
        check_callable(self.mean, "mean", "(z) -> images")


def make_surrogate(
    what: str | MakeImages, frozen: CVAE, kept: tuple[int, ...], gray_value: float = 0.5
) -> Surrogate:
    """Make the surrogate of a name or of a function.

    Args:
        what: "gray": flat, of level gray_value.  "noise": uniform in each pixel, the choice of Heng
            & Soh (2023).  "blank": no ink.  "class:k": what the frozen model draws for the kept
            class k at the same z.  "mixture": what it draws at the same z for a kept class chosen
            at random.  Or a function (n, generator) -> images (n, *image_shape) float in [0, 1].
        frozen: The model before forgetting.
        kept: Class numbers that are kept, at least one.
        gray_value: Gray level of "gray", from 0 to 1.

    Returns:
        The surrogate.

    Raises:
        TypeError: frozen is no CVAE, or the function takes other arguments.
        ValueError: There is no such surrogate, no kept class or no such gray level, or the function
            returns images of another shape or range.
    """
    check_is(frozen, CVAE, "frozen", CVAE.hint)
    check_number(gray_value, "gray_value", 0, 1)
    if not kept:
        raise ValueError("kept=() has no class: a model forgets towards what it keeps")
    if isinstance(what, str):
        named = _by_name(what, frozen, kept, gray_value)
        if named is not None:
            return named
    elif callable(what):
        check_callable(what, "surrogate", "(n, generator) -> images")
        return _from_function(what, frozen.image_shape)
    wrong = f"surrogate={shown(what)} is not one of {', '.join(NAMES)}, nor a function"
    if isinstance(what, Tensor | np.ndarray):
        kind = "a tensor" if isinstance(what, Tensor) else "an array"
        wrong = (
            f"surrogate is {kind} of shape {tuple(what.shape)}: give a name ({', '.join(NAMES)}) "
            "or a function, such as lambda n, generator: image.expand(n, -1, -1, -1)"
        )
    raise ValueError(wrong)


def _by_name(name: str, frozen: CVAE, kept: tuple[int, ...], gray_value: float) -> Surrogate | None:
    """The surrogate of this name, or None if there is none."""
    if name == "gray":
        return _flat(gray_value, frozen.image_shape)
    if name == "blank":
        return _flat(0.0, frozen.image_shape)
    if name == "noise":
        return _noise(frozen.image_shape)
    if name == "mixture":
        return _of_classes(frozen, kept)
    number = name.removeprefix("class:")
    if number == name or not (number.isascii() and number.isdecimal()):
        return None
    if int(number) not in kept:
        raise ValueError(f"surrogate={name!r}: {number} is not a kept class; kept are {kept}")
    return _of_classes(frozen, (int(number),))


def _flat(level: float, image_shape: Shape) -> Surrogate:
    """Images of one gray level."""

    def mean(z: Tensor) -> Tensor:
        return z.new_full((len(z), *image_shape), level)

    def draw(z: Tensor, generator: torch.Generator) -> Tensor:
        return mean(z)

    return Surrogate(draw, mean)


def _noise(image_shape: Shape) -> Surrogate:
    """Pixels that are uniform between 0 and 1, each by itself."""

    def draw(z: Tensor, generator: torch.Generator) -> Tensor:
        return torch.rand((len(z), *image_shape), generator=generator).to(z)

    return Surrogate(draw, _flat(0.5, image_shape).mean)


def _of_classes(frozen: CVAE, classes: tuple[int, ...]) -> Surrogate:
    """What the frozen model draws at z for one of these classes, chosen at random."""
    options = torch.tensor(classes)

    @torch.no_grad()
    def draw(z: Tensor, generator: torch.Generator) -> Tensor:
        chosen = options[torch.randint(len(options), (len(z),), generator=generator)]
        return frozen.decode(z, chosen)

    @torch.no_grad()
    def mean(z: Tensor) -> Tensor:
        images = [frozen.decode(z, torch.full((len(z),), c)) for c in classes]
        return torch.stack(images).mean(0)

    return Surrogate(draw, mean)


def _from_function(make: MakeImages, image_shape: Shape) -> Surrogate:
    """What a user's function returns; shape and range are checked at every call."""

    def checked(n: int, generator: torch.Generator) -> Tensor:
        images = make(n, generator)
        wanted = (n, *image_shape)
        found = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        if found != wanted:
            raise ValueError(f"the surrogate function returned {found}, not {wanted}")
        return check_images(images, "the surrogate function's images")

    average = checked(AVERAGED, seeded(0)).mean(0, keepdim=True)

    def draw(z: Tensor, generator: torch.Generator) -> Tensor:
        return checked(len(z), generator).to(z)

    def mean(z: Tensor) -> Tensor:
        return average.to(z).expand(len(z), -1, -1, -1)

    return Surrogate(draw, mean)
