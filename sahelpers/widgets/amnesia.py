"""The dashboard of notebook 03: forget while you watch."""

import threading
from collections.abc import Mapping
from functools import partial
from typing import Any

import ipywidgets as ipw
from matplotlib.figure import Figure

from .. import plots
from ..config import AmnesiaConfig, BaselineConfig, Config, FisherConfig
from ..controllers import AmnesiaController, Frame, help_text
from ..fisher import ClassFishers
from ..judges import Judge
from ..models import CVAE
from .base import LABEL, Dashboard, set_knob, wrapped
from .pictures import SIDE, curves, image_rows, picture_box, rendered, table

KNOBS = (
    "gray_value", "neg_loss_weight", "gamma", "ewc_lambda", "w_contrast", "w_ink", "w_tv",
    "w_orient", "epochs_unl",
)  # fmt: skip
ROWS = 4  # images per class in the grid


class AmnesiaDashboard(Dashboard):
    """Choose classes and weights, press Forget, watch it happen, press Stop.

    baseline: the model before.  fishers: its Fisher, per class.  judges: the scoring ones by role.
    forget_class, config: the first settings.  made_with: the configurations that baseline and
    Fisher were made with, for the name of a saved file.
    """

    def __init__(
        self,
        baseline: CVAE,
        fishers: ClassFishers,
        judges: Mapping[str, Judge],
        forget_class: int | tuple[int, ...] = 3,
        config: AmnesiaConfig | None = None,
        made_with: tuple[Config, ...] = (BaselineConfig(), FisherConfig()),
    ) -> None:
        super().__init__()
        self.controller = c = AmnesiaController(
            baseline, fishers, judges, forget_class, config, made_with
        )
        numbers = range(baseline.num_classes)
        self.classes = [
            self.watch(
                ipw.ToggleButton(
                    value=k in c.classes,
                    description=str(k),
                    tooltip=f"forget class {k}",
                    layout=ipw.Layout(width="30px", padding="0", margin="1px"),
                ),
                lambda _: self._toggle(),
            )
            for k in numbers
        ]
        names = ["gray", "noise", "blank", "mixture", *(f"class:{k}" for k in numbers)]
        self.surrogate = self.watch(
            ipw.Dropdown(
                options=tuple(dict.fromkeys([*names, c.config.surrogate])),
                value=c.config.surrogate,
                description="SURROGATE",
                style=LABEL,
                layout=ipw.Layout(width="98%"),
            ),
            lambda value: self._change("surrogate", value),
        )
        self.knobs = {
            name: self.knob(c.config, name, partial(self._change, name)) for name in KNOBS
        }
        self.forget = self.button(
            "Forget", "start from the baseline", lambda: self._start(False), "primary"
        )
        self.another = self.button(
            "Forget these too", "go on from the present model", lambda: self._start(True)
        )
        self.stop = self.button("Stop", "keep the model so far", self._stop)
        self.reset = self.button("Reset", "baseline and first settings", self._reset)
        self.save = self.button("Save", "keep the model in checkpoints/", self._save)
        self.progress = ipw.FloatProgress(
            min=0.0, max=1.0, description="PROGRESS", style=LABEL, layout=ipw.Layout(width="98%")
        )
        self.rows, self.grid = picture_box(), picture_box()
        self.names, self.curves = ipw.HTML(), ipw.HTML()
        self.live = wrapped([self.names, self.rows, self.curves])
        self.live.layout.display = "none"  # until something runs
        self.table = ipw.HTML()
        self.code = ipw.Textarea(
            description="AS CODE", layout=ipw.Layout(width="98%", height="70px"), rows=3
        )
        helps = help_text(AmnesiaConfig, ("surrogate", *KNOBS))
        help_box = ipw.HTML(f"<details><summary>What the knobs do</summary>{helps}</details>")
        self.arrange(
            [
                ipw.HTML("<b>FORGET_CLASS</b> one or several"),
                wrapped(self.classes),
                self.surrogate,
                *self.knobs.values(),
                wrapped([self.forget, self.another, self.stop, self.reset, self.save]),
                self.progress,
            ],
            [self.live, self.grid, self.table, self.code, help_box],
        )
        self.when_idle()
        self._draw_result()
        self.say("Ready. Choose a class and press Forget.")

    def _change(self, name: str, value: Any) -> None:
        self.controller.change(**{name: value})
        self._show_code()

    def _toggle(self) -> None:
        if any(button.value for button in self.classes):
            self._choose()
            self.say(f"Chosen: {', '.join(map(str, self.controller.classes))}.")
        else:  # on the way from one class to another
            self.say("Choose at least one class.")

    def _choose(self) -> None:
        self.controller.choose(tuple(k for k, b in enumerate(self.classes) if b.value))
        self._show_code()

    def _show_code(self) -> None:
        self.code.value = self.controller.code()

    def _start(self, another: bool) -> None:
        self._choose()  # refuses an empty choice before anything is stopped
        self.save.description = "Save"
        self.worker.submit(lambda stop: self._run(stop, another))

    def _run(self, stop: threading.Event, another: bool) -> None:
        self.stop.disabled = False
        self.say("Forgetting ...")
        self.progress.value = 0.0
        self.controller.forget(stop, self._show_frame, another)
        result = self.controller.result
        assert result is not None
        ended = {"done": "Done", "budget": "EPOCHS_UNL used up", "stopped": "Stopped"}
        said = f"{ended[result.reason]}: {result.steps} steps in {result.seconds:.1f} s"
        self.say(f"{said}. The judges are looking ...")
        if self.worker.waiting:
            return
        self.controller.judge()
        self._draw_result()
        self.progress.value = 1.0
        self.say(f"{said}. Forgotten: {', '.join(map(str, result.forgotten))}.")

    def _show_frame(self, frame: Frame) -> None:
        self.progress.value = frame.done
        self.say(f"Forgetting, step {frame.step}: {frame.distance:.3f} from the surrogate")

        forgotten, kept = frame.rows
        self.names.value = (
            f'<div style="line-height: {SIDE}px; text-align: right">{forgotten} forget<br>'
            f"{kept} kept</div>"
        )
        self.rows.value = image_rows(frame.images, len(frame.images) // 2)
        self.curves.value = curves(frame.history)
        self.live.layout.display = None

    def _draw_result(self) -> None:
        """The before/after grid, the table and the line of code."""
        before, now, labels = self.controller.pictures()

        def draw(figure: Figure) -> None:
            axes = [figure.add_axes((x, 0.07, 0.485, 0.85)) for x in (0.005, 0.51)]
            plots.before_after(before, now, labels, ROWS, axes)

        self.grid.value = rendered(draw, 10.0, 2.4)
        self._show_code()
        lines, result = self.controller.lines, self.controller.result
        if not lines or result is None:
            self.table.value = ""
            return
        gone = ", ".join(map(str, result.forgotten))
        self.table.value = table(
            f"Forgotten: {gone}, {result.steps} steps in {result.seconds:.1f} s. "
            f"{self.controller.judged_per_class} samples per class, the same z; kept: percent "
            "recognised",
            ("judge", f"P({gone}) before", "after", "argmax", "argmax, stretched", "kept before",
             "after", "largest drop"),
            [
                (
                    line.judge, f"{line.p_before:.3f}", f"{line.p_after:.3f}",
                    f"{100 * line.argmax:.1f} %", f"{100 * line.argmax_stretched:.1f} %",
                    f"{line.kept_before:.1f}", f"{line.kept_after:.1f}",
                    f"{line.worst_drop:.1f} (class {line.worst_class})",
                )
                for line in lines
            ],
        )  # fmt: skip

    def _stop(self) -> None:
        self.say("Stopping ...")
        self.worker.stop()

    def _reset(self) -> None:
        self.worker.submit(lambda stop: self._put_back())

    def _put_back(self) -> None:
        c = self.controller
        c.reset()
        self.surrogate.value = c.config.surrogate
        for name, slider in self.knobs.items():
            set_knob(slider, c.config, name)
        for k in (*c.start[0], *range(len(self.classes))):  # first on, then off: never none
            self.classes[k].value = k in c.start[0]
        self.progress.value, self.live.layout.display = 0.0, "none"
        self._draw_result()
        self.say("Back at the baseline.")

    def _save(self) -> None:
        sure = self.save.description != "Save"
        self.save.description = "Save"
        try:
            path = self.controller.save(replace_it=sure)
        except FileExistsError as error:
            self.save.description = "Replace it"
            self.say(f"{error} (press Replace it)")
        else:
            self.say(f"Saved as {path.name} in checkpoints/.")

    def when_idle(self) -> None:
        """Nothing runs: Stop rests, and what needs a result works if there is one."""
        self.stop.disabled = True
        self.another.disabled = self.save.disabled = self.controller.result is None
