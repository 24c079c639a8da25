"""What a forgotten class becomes: harmless images, by name or by any function."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .checks import Shape, check_images, check_number, door, shown
from .models import CVAE, seeded

MakeImages = Callable[[int, torch.Generator], Tensor]
NAMES = ("gray", "noise", "blank", "mixture", "class:k (k a kept class)")


@dataclass(frozen=True)
class Surrogate:
    """A distribution q(x | z) of images the class is pulled towards.

    draw: (z (B, Z), generator) -> images (B, *image_shape) in [0, 1].
    mean: z (B, Z) -> their expectation, what a decoder that has learned q draws at z.
    """

    hint: ClassVar[str] = ": make_surrogate makes one"
    draw: Callable[[Tensor, torch.Generator], Tensor]
    mean: Callable[[Tensor], Tensor]


@door
def make_surrogate(
    what: str | MakeImages, frozen: CVAE, kept: tuple[int, ...], gray_value: float = 0.5
) -> Surrogate:
    """The surrogate of a name, or of a function (n, generator) -> images (n, *image_shape).

    "gray": flat, gray_value.  "noise": uniform in each pixel, the choice of Heng & Soh (2023).
    "blank": no ink.  "class:k": what the frozen model draws for kept class k at the same z.
    "mixture": what it draws at the same z for a kept class chosen at random.
    """
    check_number(gray_value, "gray_value", 0, 1)
    if not kept:
        raise ValueError("kept=() has no class: a model forgets towards what it keeps")
    if callable(what):
        return _from_function(what, frozen.image_shape)
    if what in ("gray", "noise", "blank"):
        level = {"gray": gray_value, "noise": 0.5, "blank": 0.0}[what]

        def flat(z: Tensor, _: object = None) -> Tensor:
            return z.new_full((len(z), *frozen.image_shape), level)

        def noise(z: Tensor, generator: torch.Generator) -> Tensor:
            return torch.rand((len(z), *frozen.image_shape), generator=generator).to(z)

        return Surrogate(noise if what == "noise" else flat, flat)
    if what == "mixture":
        return _of_classes(frozen, kept)
    if isinstance(what, str) and what.startswith("class:") and what[6:].isdecimal():
        if int(what[6:]) not in kept:
            raise ValueError(f"surrogate={what!r}: {what[6:]} is not a kept class; kept are {kept}")
        return _of_classes(frozen, (int(what[6:]),))
    raise ValueError(f"surrogate={shown(what)} is not one of {', '.join(NAMES)}, nor a function")


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
    """Wrap a user's function; its images are checked each time."""

    def checked(n: int, generator: torch.Generator) -> Tensor:
        images = make(n, generator)
        shape = tuple(getattr(images, "shape", ())) or type(images).__name__
        if shape != (wanted := (n, *image_shape)):
            raise ValueError(f"the surrogate function returned {shape}, not {wanted}")
        return check_images(images, "the surrogate function's images")

    average = checked(512, seeded(0)).mean(0, keepdim=True)
    return Surrogate(
        lambda z, generator: checked(len(z), generator).to(z),
        lambda z: average.to(z).expand(len(z), -1, -1, -1),
    )
