"""The dashboard that walks through the latent space, and what it does without a widget."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import count
from typing import Any

import ipywidgets as ipw
import torch
from torch import Tensor

from ..checks import check_number, shown
from ..config import check_classes
from ..models import CVAE, check_model, draw_normal, evaluating, seeded
from .base import Action, Dashboard, labelled, sheet
from .worker import LOCK, check_models, in_lines, usual_classes

REACH = 3.0  # a slider goes so far to both sides: N(0, 1) leaves it once in 370 draws
STEP = 0.01  # of the central differences
SAMPLES = 8  # latents per class at which the decoder's slope is taken
SIDES = (72, 52)  # pixels of the image at the mixed label, and of one of every class
SLIDERS = 20  # directions with a slider; the others change the picture less


@torch.no_grad()
def principal_directions(model: CVAE, seed: int = 0) -> Tensor:
    """Orthonormal directions of z, the one that changes the picture most first.

    They are the eigenvectors of the mean of J^T J, where J = d image / d z of the decoder (by
    central differences) at samples of every class.  Each is signed so that its largest entry is
    positive.

    Args:
        model: The model.
        seed: Of the samples.

    Returns:
        The directions as columns, (Z, Z).
    """
    check_model(model)
    labels = torch.arange(model.num_classes, device=model.device).repeat_interleave(SAMPLES)
    z = model.draw_latents(labels, generator=seeded(seed))
    slopes = []
    with evaluating(model):
        for h in STEP * torch.eye(model.latent_dim).to(z):
            slopes.append(model.decode(z + h, labels) - model.decode(z - h, labels))
    jacobian = torch.stack(slopes).flatten(1).cpu().double()  # (Z, B * P), times 2 STEP
    metric = jacobian @ jacobian.T
    directions = torch.linalg.eigh(metric).eigenvectors.flip(1)  # eigh sorts from the smallest
    largest = directions.gather(0, directions.abs().argmax(0, keepdim=True))
    signed: Tensor = directions * largest.sign()
    return signed.to(z)


class LatentController:
    """A point z and a soft label, and what the models draw there.

    Args:
        models: Name -> model, all of the same latent space and classes.
        first: The class that the label begins at; the usual one when left out.
        second: The class that it can be mixed with; the usual one when left out.

    Attributes:
        directions: The principal directions of the first model's z, as columns (Z, Z).
        position: (Z,), the coordinates of z along the directions, in standard deviations of the
            prior.
        first, second, mix: The label is (1 - mix) of the first class and mix of the second.

    Raises:
        TypeError: For a thing that is no model.
        ValueError: For no model, models that do not fit together and a class that does not exist.
    """

    def __init__(
        self, models: Mapping[str, CVAE], first: int | None = None, second: int | None = None
    ) -> None:
        check_models(models)
        self.models = dict(models)
        shapes = {name: (m.latent_dim, m.num_classes) for name, m in models.items()}
        if len(set(shapes.values())) > 1:
            raise ValueError(f"models differ in (latent_dim, num_classes): {shapes}")
        self.model = next(iter(models.values()))
        self.directions = principal_directions(self.model)
        self.position = torch.zeros(self.model.latent_dim)
        usual_first, usual_second = usual_classes(self.model.num_classes)
        self.choose(
            usual_first if first is None else first,
            usual_second if second is None else second,
            0.0,
        )

    def move(self, index: int, value: float) -> None:
        """Set the coordinate of this number, in standard deviations from -3 to 3."""
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
        """What every model draws at the present z.

        Returns:
            Name of the model -> the image at the soft label, (1, *image_shape), and the images of
            every class, (K, *image_shape), in [0, 1].
        """
        with LOCK:
            z = (self.directions @ self.position.to(self.directions))[None]
            soft = torch.zeros(1, self.model.num_classes).to(z)
            soft[0, self.first] += 1 - self.mix
            soft[0, self.second] += self.mix
        every = torch.arange(self.model.num_classes, device=z.device)
        drawn = {}
        for name, model in self.models.items():
            mixed = model.decode(z, soft)
            drawn[name] = mixed, model.decode(z.expand(len(every), -1), every)
        return drawn


class LatentExplorer(Dashboard):
    """Sliders for z, along the directions that change the picture most, and for a mixed label.

    Args:
        models: Name -> model, shown one below the other at the same z: one, or before and after.
        first: The number of the class that the label begins at; 3, or the last of fewer classes,
            when left out.
        second: The number of the class that it can be mixed with; 8, or the first of fewer classes,
            when left out.
        names: What the classes are called, by their number, such as `story.train.class_names`; the
            numbers when left out.
    """

    def __init__(
        self,
        models: Mapping[str, CVAE],
        first: int | None = None,
        second: int | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self.controller = c = LatentController(models, first, second)
        seeds = count(1)
        numbers = range(c.model.num_classes)
        self.names = tuple(map(str, numbers)) if names is None else tuple(names)
        if len(self.names) != len(numbers):
            raise ValueError(f"names={shown(self.names)}: give {len(numbers)}, one per class")
        options = list(zip(self.names, numbers, strict=True))
        self.first = self.menu("CLASS", options, c.first, lambda _: self._choose())
        self.second = self.menu("MIX WITH", options, c.second, lambda _: self._choose())
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
                ipw.HTML("<b>z</b> by principal direction, standard deviations"),
                ipw.VBox(self.z, layout=box),
            ],
            [self.picture],
            pictures_first=True,
        )  # fmt: skip
        self._show()

    def _slider(self, name: str, low: float, high: float, step: float, action: Action) -> Any:
        made = ipw.FloatSlider(
            0.0, min=low, max=high, step=step,
            continuous_update=self.worker.threaded,  # in Colab every step would queue
            **labelled(name),
        )  # fmt: skip
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
        """Draw the present z: the first line of classes beside the mixed image, others below."""
        c = self.controller
        first_line, *other_lines = in_lines(range(c.model.num_classes))
        drawn = c.pictures()
        rows = {name: (mixed, every[first_line]) for name, (mixed, every) in drawn.items()}
        names = self.names
        html = sheet(rows, [("mixed",), [names[k] for k in first_line]], SIDES)
        for line in other_lines:
            of_line = {name: [every[line]] for name, (_, every) in drawn.items()}
            html += sheet(of_line, [[names[k] for k in line]], SIDES[1:])
        self.picture.value = html
        first, second = names[c.first], names[c.second]
        self.say(f"Label: {1 - c.mix:.2f} of class {first} and {c.mix:.2f} of class {second}.")
