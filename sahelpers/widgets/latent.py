"""The dashboard of notebook 01: walk through the latent space."""

from collections.abc import Mapping

import ipywidgets as ipw
import torch
from matplotlib.figure import Figure

from .. import plots
from ..controllers import LatentController
from ..controllers.latent import REACH
from ..models import CVAE
from .base import LABEL, Dashboard
from .pictures import picture_box, rendered

SLIDERS = 20  # directions with a slider; the others change the picture less


class LatentExplorer(Dashboard):
    """Sliders for z, along the directions that change the picture most, and for a mixed label.

    models: name -> model, shown one below the other at the same z: one, or before and after.
    first, second: the classes that the label mixes.
    """

    def __init__(self, models: Mapping[str, CVAE], first: int = 3, second: int = 8) -> None:
        super().__init__()
        self.controller = c = LatentController(models, first, second)
        self.seed = 0
        wide = ipw.Layout(width="98%")
        numbers = tuple(range(c.model.num_classes))
        menu = {"options": numbers, "style": LABEL, "layout": wide}
        self.first = ipw.Dropdown(value=first, description="CLASS", **menu)
        self.second = ipw.Dropdown(value=second, description="MIX WITH", **menu)
        self.mix = ipw.FloatSlider(
            value=0.0, min=0.0, max=1.0, step=0.05, description="SHARE OF IT",
            continuous_update=False, style=LABEL, layout=wide,
        )  # fmt: skip
        for widget in (self.first, self.second, self.mix):
            self.watch(widget, lambda _: self._choose())
        self.z = [self._slider(k) for k in range(min(SLIDERS, c.model.latent_dim))]
        self.centre = self.button("z = 0", "go to the mean of the prior", self._centre)
        self.draw = self.button("Draw z", "draw z from N(0, I)", self._draw_z)
        self.picture = picture_box()
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

    def _slider(self, index: int) -> ipw.FloatSlider:
        slider = ipw.FloatSlider(
            value=0.0, min=-REACH, max=REACH, step=0.1, description=f"direction {index + 1}",
            continuous_update=False, style={"description_width": "85px"},
            layout=ipw.Layout(width="95%"),
        )  # fmt: skip
        self.watch(slider, lambda value: self._move(index, value))
        return slider

    def _move(self, index: int, value: float) -> None:
        self.controller.move(index, value)
        self._redraw()

    def _choose(self) -> None:
        self.controller.choose(self.first.value, self.second.value, self.mix.value)
        self._redraw()

    def _centre(self) -> None:
        self.controller.centre()
        self._follow()

    def _draw_z(self) -> None:
        self.seed += 1
        self.controller.draw(self.seed)
        self._follow()

    def _follow(self) -> None:
        """Move the sliders to the controller's position; what they round is not sent back."""
        position = self.controller.position.clone()
        for slider, value in zip(self.z, position.tolist(), strict=False):
            slider.value = value
        self.controller.position = position
        self._redraw()

    def _redraw(self) -> None:
        self.worker.submit(lambda stop: self._show())

    def _show(self) -> None:
        pictures = self.controller.pictures()
        rows = len(pictures)

        def draw(figure: Figure) -> None:
            for k, (name, (image, every)) in enumerate(pictures.items()):
                bottom, height = (rows - 1 - k) / rows, 1 / rows
                left = figure.add_axes((0.0, bottom, 0.26, 0.86 * height))
                right = figure.add_axes((0.28, bottom + 0.2 * height, 0.71, 0.5 * height))
                plots.image_grid(image, 1, left, f"{name}: mixed label")
                labels = torch.arange(len(every))
                plots.class_columns(every, labels, 1, right, f"{name}: every class at this z")

        self.picture.value = rendered(draw, 8.0, 2.2 * rows)
        c = self.controller
        share = f"{1 - c.mix:.2f} of class {c.first} and {c.mix:.2f} of class {c.second}"
        self.say(f"Label: {share}. Arrow keys move a slider that has the focus.")
