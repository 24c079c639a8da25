"""The dashboard of notebook 04: attack a model and its control."""

import threading
from collections.abc import Mapping
from functools import partial
from typing import Any

import ipywidgets as ipw
from matplotlib.figure import Figure

from .. import plots_probing
from ..config import ProbeConfig
from ..controllers import ATTACKS, ProbeController, help_text
from ..judges import Judge
from ..models import CVAE
from .base import LABEL, Dashboard, set_knob
from .pictures import picture_box, rendered, table

COUNT = 8  # restarts shown, the best first
ALWAYS = ("n_restarts", "steps")


class ProbeDashboard(Dashboard):
    """Choose an attack and its priors, run it on every model, let the scoring judges decide.

    models: name -> model, such as the forgotten one and its control.  baseline: where the prototype
    attack takes its targets.  judges: the scoring ones; guide: the one of role "guide".
    """

    def __init__(
        self,
        models: Mapping[str, CVAE],
        baseline: CVAE,
        judges: Mapping[str, Judge],
        guide: Judge,
        forget_class: int = 3,
    ) -> None:
        super().__init__()
        self.controller = c = ProbeController(models, baseline, judges, guide, forget_class)
        menu = {"style": LABEL, "layout": ipw.Layout(width="98%")}
        numbers = tuple(range(baseline.num_classes))
        self.attack = ipw.Dropdown(options=tuple(ATTACKS), description="ATTACK", **menu)
        self.label = ipw.Dropdown(
            options=numbers, value=forget_class, description="FORGET_CLASS", **menu
        )
        for widget in (self.attack, self.label):
            self.watch(widget, lambda _: self._choose())
        names = (*ALWAYS, *dict.fromkeys(name for knobs in ATTACKS.values() for name in knobs))
        self.knobs = {
            name: self.knob(c.config, name, partial(self._change, name)) for name in names
        }
        self.run = self.button("Attack", "attack every model", self._start, "primary")
        self.stop = self.button("Stop", "end the attack, keep nothing", self.worker.stop)
        self.reset = self.button("Reset", "back to the first settings", self._reset)
        self.progress = ipw.FloatProgress(
            min=0.0, max=1.0, description="PROGRESS", style=LABEL, layout=ipw.Layout(width="98%")
        )
        self.picture, self.table = picture_box(), ipw.HTML()
        self.code = ipw.Textarea(
            description="AS CODE", layout=ipw.Layout(width="98%", height="70px"), rows=3
        )
        helps = help_text(ProbeConfig, names)
        help_box = ipw.HTML(f"<details><summary>What the knobs do</summary>{helps}</details>")
        self.arrange(
            [
                self.attack, self.label, *self.knobs.values(),
                ipw.HBox([self.run, self.stop, self.reset]), self.progress,
            ],
            [self.picture, self.table, self.code, help_box],
        )  # fmt: skip
        self.when_idle()
        self._follow()
        self.say("Ready. Choose an attack and press Attack.")

    def _choose(self) -> None:
        self.worker.stop()  # what it would find is no longer asked for
        self.controller.choose(self.attack.value, self.label.value)
        self._follow()

    def _change(self, name: str, value: Any) -> None:
        self.controller.change(**{name: value})
        self.code.value = self.controller.code()

    def _reset(self) -> None:
        self.worker.stop()
        self.controller.reset()
        self.attack.value, self.label.value = self.controller.attack, self.controller.forget_class
        self._follow()
        self.say("Back at the first settings.")

    def _follow(self) -> None:
        """Show the knobs of the attack at the controller's values, and what was found so far."""
        c = self.controller
        config = c.config
        for name, slider in self.knobs.items():
            set_knob(slider, config, name)
            slider.layout.display = None if name in (*ALWAYS, *ATTACKS[c.attack]) else "none"
        self.code.value = c.code()
        self._draw_outcomes()

    def _start(self) -> None:
        self.worker.submit(self._run)

    def _run(self, stop: threading.Event) -> None:
        self.stop.disabled = False
        count = len(self.controller.models)
        places = {name: k for k, name in enumerate(self.controller.models)}

        def show(name: str, done: int, total: int) -> None:
            if done % max(1, total // 50) == 0:
                self.progress.value = (places[name] + done / total) / count
                self.say(f"Attacking {name}, step {done} of {total}")

        if not self.controller.run(stop, show):
            self.say("Stopped: nothing was kept, models are compared after equal work only.")
            return
        self._draw_outcomes()
        self.progress.value = 1.0
        self.say("Done. Only the difference to the control is evidence.")

    def _draw_outcomes(self) -> None:
        """The best restarts of each model, and how many each judge calls the class."""
        c = self.controller
        outcomes = c.outcomes
        self.picture.layout.display = None if outcomes else "none"
        if not outcomes:
            self.table.value = ""
            return

        def draw(figure: Figure) -> None:
            ax = figure.add_axes((0.13, 0.02, 0.86, 0.96))
            plots_probing.image_rows({n: o.result.images for n, o in outcomes.items()}, COUNT, ax)

        self.picture.value = rendered(draw, 7.6, 0.9 * len(outcomes))
        roles = tuple(c.judges)
        found = next(iter(outcomes.values()))
        self.table.value = table(
            f"Attack {c.attack}, class {c.forget_class}: restarts out of {len(found.result.loss)} "
            "that a judge calls the class (P of 0.5 or more)",
            ("model", *roles, "all judges", "best loss"),
            [
                (
                    name, *(f"{100 * o.by_judge[r]:.0f} %" for r in roles),
                    f"{100 * o.share:.0f} %", f"{float(o.result.loss[0]):.4f}",
                )
                for name, o in outcomes.items()
            ],
        )  # fmt: skip

    def when_idle(self) -> None:
        """Nothing runs: Stop rests."""
        self.stop.disabled = True
