"""The dashboard that walks through the latent space, and what it does without a widget."""

from collections.abc import Callable, Mapping
from functools import partial
from itertools import count
from typing import Any

import ipywidgets as ipw
import torch
from torch import Tensor

from ..checks import check_number
from ..config import check_classes
from ..models import CVAE, draw_normal, seeded
from .base import Action, Dashboard, labelled, sheet
from .worker import LOCK, checked, in_lines

REACH = 3.0  # a slider goes so far to both sides: N(0, 1) leaves it once in 370 draws
STEP = 0.01  # of the central differences
SAMPLES = 8  # latents per class at which the decoder's slope is taken
SIDES = (72, 52)  # pixels of the image at the mixed label, and of one of every class
SLIDERS = 20  # directions with a slider; the others change the picture less


@torch.no_grad()
def principal_directions(model: CVAE, seed: int = 0) -> Tensor:
    """Orthonormal directions of z as columns (Z, Z), the one that changes the picture most first.

    Eigenvectors of the mean of J^T J, with J = d image / d z of the decoder (central differences)
    at samples of every class; each is signed so that its largest entry is positive.
    """
    labels = torch.arange(model.num_classes, device=model.device).repeat_interleave(SAMPLES)
    z = model.draw_latents(labels, generator=seeded(seed))
    steps = STEP * torch.eye(model.latent_dim).to(z)
    slopes = [model.decode(z + h, labels) - model.decode(z - h, labels) for h in steps]
    jacobian = torch.stack(slopes).flatten(1).cpu().double()  # (Z, B * P), times 2 STEP
    metric = jacobian @ jacobian.T
    directions = torch.linalg.eigh(metric).eigenvectors.flip(1)  # eigh sorts from the smallest
    largest = directions.gather(0, directions.abs().argmax(0, keepdim=True))
    signed: Tensor = directions * largest.sign()
    return signed.to(z)


class LatentController:
    """A point z and a soft label, and what the models draw there.

    models: name -> model, all of the same latent space; directions are the first one's.
    State: `position` (Z,), the coordinates of z along the directions, in units of the prior's
    standard deviation; `first`, `second` and `mix`: the label is (1 - mix) first + mix second.
    """

    def __init__(self, models: Mapping[str, CVAE], first: int = 3, second: int = 8) -> None:
        self.models = checked(models)
        shapes = {n: (m.latent_dim, m.num_classes) for n, m in self.models.items()}
        if len(set(shapes.values())) > 1:
            raise ValueError(f"models differ in (latent_dim, num_classes): {shapes}")
        self.model = next(iter(self.models.values()))
        self.directions = principal_directions(self.model)
        self.position = torch.zeros(self.model.latent_dim)
        self.choose(first, second, 0.0)

    def move(self, index: int, value: float) -> None:
        """Set one coordinate, in standard deviations from -3 to 3."""
        check_number(value, "value", -REACH, REACH)
        with LOCK:
            self.position[index] = value

    def choose(self, first: int, second: int, mix: float) -> None:
        """Set the label: (1 - mix) of the first class and mix of the second, mix from 0 to 1."""
        for label in (first, second):
            check_classes((label,), self.model.num_classes)
        check_number(mix, "mix", 0, 1)
        with LOCK:
            self.first, self.second, self.mix = first, second, mix

    def centre(self) -> None:
        """Go to z = 0, the mean of the prior."""
        with LOCK:
            self.position.zero_()

    def draw(self, seed: int) -> None:
        """Go to a z drawn from N(0, I), within the sliders' reach."""
        with LOCK:
            noise = draw_normal((self.model.latent_dim,), self.model, seeded(seed))
            self.position = noise.clamp(-REACH, REACH).cpu()

    @torch.no_grad()
    def pictures(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Per model: the image at z and the soft label (1, *image_shape), and the images of
        every class at this z (K, *image_shape)."""
        with LOCK:
            z = (self.directions @ self.position.to(self.directions))[None]
            soft = torch.zeros(1, self.model.num_classes).to(z)
            soft[0, self.first] += 1 - self.mix
            soft[0, self.second] += self.mix
        every = torch.arange(self.model.num_classes, device=z.device)
        return {
            name: (model.decode(z, soft), model.decode(z.expand(len(every), -1), every))
            for name, model in self.models.items()
        }


class LatentExplorer(Dashboard):
    """Sliders for z, along the directions that change the picture most, and for a mixed label.

    models: name -> model, shown one below the other at the same z: one, or before and after.
    first, second: the classes that the label mixes.
    """

    def __init__(self, models: Mapping[str, CVAE], first: int = 3, second: int = 8) -> None:
        super().__init__()
        self.controller = c = LatentController(models, first, second)
        seeds = count(1)
        numbers = range(c.model.num_classes)
        self.first = self.menu("CLASS", numbers, first, lambda _: self._choose())
        self.second = self.menu("MIX WITH", numbers, second, lambda _: self._choose())
        self.mix = self._slider("SHARE OF IT", 0.0, 1.0, 0.05, lambda _: self._choose())
        self.z = [
            self._slider(f"direction {k + 1}", -REACH, REACH, 0.1, partial(self._move, k))
            for k in range(min(SLIDERS, c.model.latent_dim))
        ]
        self.centre = self.button("z = 0", "the prior's mean", lambda: self._follow(c.centre))
        draw = partial(self._follow, lambda: c.draw(next(seeds)))
        self.draw = self.button("Draw z", "from N(0, I)", draw)
        self.picture = ipw.HTML()
        box = ipw.Layout(height="330px", overflow="auto", display="block", width="100%")
        self.arrange(
            [
                self.first, self.second, self.mix, ipw.HBox([self.centre, self.draw]),
                ipw.HTML("<b>z</b> along its principal directions, standard deviations"),
                ipw.VBox(self.z, layout=box),
            ],
            [self.picture],
        )  # fmt: skip
        self._show()

    def _slider(self, name: str, low: float, high: float, step: float, action: Action) -> Any:
        follows = {"continuous_update": self.worker.threaded}  # in Colab every step would queue
        made = ipw.FloatSlider(0.0, min=low, max=high, step=step, **follows, **labelled(name))
        return self.watch(made, action)

    def _move(self, index: int, value: float) -> None:
        self.controller.move(index, value)
        self.worker.submit(self._show)

    def _choose(self) -> None:
        self.controller.choose(self.first.value, self.second.value, self.mix.value)
        self.worker.submit(self._show)

    def _follow(self, act: Callable[[], None]) -> None:
        """Move the controller and then the sliders, which round what they show."""
        act()
        with self.quietly():
            for slider, value in zip(self.z, self.controller.position.tolist(), strict=False):
                slider.value = value
        self.worker.submit(self._show)

    def _show(self, stop: object = None) -> None:
        c = self.controller
        first, *rest = in_lines(range(c.model.num_classes))
        drawn = c.pictures()
        pictures = {name: (mixed, every[first]) for name, (mixed, every) in drawn.items()}
        self.picture.value = sheet(pictures, [("mixed",), first], SIDES) + "".join(
            sheet({name: [every[line]] for name, (_, every) in drawn.items()}, [line], SIDES[1:])
            for line in rest
        )
        self.say(f"Label: {1 - c.mix:.2f} of class {c.first} and {c.mix:.2f} of class {c.second}.")
