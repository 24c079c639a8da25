"""The dashboard that forgets while you watch, and what it does without a widget."""

import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from threading import Event
from typing import Any

import ipywidgets as ipw
import torch
from matplotlib.figure import Figure
from torch import Tensor

from .. import plots
from ..amnesia import AmnesiaResult, History, forget
from ..checks import check_is
from ..config import AmnesiaConfig, check_classes, kept_classes
from ..judges import Verdict, draw_images, fixed_latents, judge_samples
from ..models import CVAE
from ..story import Classes, Story
from .base import KnobDashboard, bars, curves, sheet, table, wrapped
from .worker import LOCK, Controller, as_code, changed, in_lines, models_there

FRAME_SECONDS = 0.4  # between two pictures of a run
JUDGED = 200  # samples per class behind the dashboard's table
COLUMNS = 8  # images of the class in each model's row
ROWS = 3  # images per class in the grid
SIDES = (52, 42)  # pixels of an image in these two
QUICK = 3.0  # seconds: after a shorter run, a released slider forgets again
KNOBS = ["gray_value", "neg_loss_weight", "gamma", "ewc_lambda", "w_attack"]
KNOBS += ["w_contrast", "w_ink", "w_tv", "w_orient", "epochs_unl"]
HEAD = ("judge", "P before", "after", "argmax", "kept before", "after")
Rows = dict[str, Tensor]  # name of a model -> its images
ENDED = {"done": "Done", "budget": "EPOCHS_UNL used up", "stopped": "Stopped"}
Chain = tuple[tuple[tuple[int, ...], AmnesiaConfig], ...]  # classes and settings, run by run


class AmnesiaController(Controller):
    """Forget classes of a trained model, step by step, with settings that a person moves.

    story: where model, Fisher, judges and the first configuration come from.
    State: `config` and `forget_class` (the settings), `model` (what is forgotten so far), `chain`
    (the runs that led to it), `result` (the last run), and what the judges say of that, in percent:
    `lines`, a row of the table HEAD by role, and `costs`, the kept classes' changes by role.
    """

    def __init__(self, story: Story, forget_class: Classes = 3) -> None:
        check_is(story, Story, "story", ": sa.Story() makes one")
        self.story, self.baseline, self.fishers = story, story.baseline.model, story.fishers
        self.start = check_classes(forget_class, self.baseline.num_classes)
        self.shown = fixed_latents(self.baseline, COLUMNS, seed=1)
        self.judged = fixed_latents(self.baseline, JUDGED)
        self.reset()

    @cached_property
    def verdicts(self) -> dict[str, Verdict]:
        """What the judges say of the baseline, by role."""
        judges = self.story.judges.items()
        return {role: judge_samples(self.baseline, judge, self.judged) for role, judge in judges}

    def reset(self) -> None:
        """Back to the baseline and to the first settings."""
        with LOCK:
            self.forget_class, self.config = self.start, self.story.config.amnesia
            self.model = self.baseline
            self.chain: Chain = ()
            self.result: AmnesiaResult | None = None
            self.stopped = False  # whether a run of the chain was
            self.lines: dict[str, list[float]] = {}
            self.costs: dict[str, dict[int, float]] = {}

    def choose(self, forget_class: tuple[int, ...]) -> None:
        """Choose the classes of the next run; ValueError when there is none or none is kept."""
        with LOCK:
            self.forget_class = check_classes(forget_class, self.baseline.num_classes)

    def forget(
        self, stop: Event, show: Callable[..., None] = lambda *_: None, another: bool = False
    ) -> None:
        """Forget the chosen classes with the present settings.

        another: go on from the present model, where what was forgotten stays forgotten, and not
        from the baseline.  stop: once set, the run ends and its model so far is taken.
        show: called about twice a second with the share of the way (0 to 1), the history of
        `sa.forget` so far, and what `pictures` returns.
        Raises ValueError when a setting does not fit, naming it; the model then stays as it was.
        """
        with LOCK:
            forget_class, config = self.forget_class, self.config
            model, earlier = (self.model, self.chain) if another else (self.baseline, ())
        if twice := set(forget_class) & set(so_far := _classes(earlier)):
            raise ValueError(f"class {min(twice)} is forgotten already (so far {so_far})")
        chain = (*earlier, (forget_class, config))
        gone = check_classes((*so_far, *forget_class), model.num_classes)
        history: History = {}
        last = -math.inf

        def on_step(step: int, new: CVAE, numbers: dict[str, float]) -> bool:
            nonlocal last
            for name, value in numbers.items():
                history.setdefault(name, []).append(value)
            if time.perf_counter() - last >= FRAME_SECONDS:
                far = history["distance"]
                way = (far[0] - far[-1]) / max(far[0] - config.tolerance, 1e-9)
                done = min(1.0, max((step + 1) / config.max_steps(), way))
                show(done, history, *self.pictures(new, chain))
                last = time.perf_counter()
            return not stop.is_set()

        result = forget(model, self.fishers.without(gone), forget_class, config, on_step=on_step)
        with LOCK:
            self.result, self.model = replace(result, forget_class=gone), result.model
            self.stopped = result.reason == "stopped" or (another and self.stopped)
            self.chain, self.lines, self.costs = chain, {}, {}

    def judge(self) -> None:
        """Let the judges look at the last result: fills `lines` and `costs`."""
        if (result := self.result) is None:
            return
        gone = list(result.forget_class)
        kept = kept_classes(gone, self.baseline.num_classes)
        for role, judge in self.story.judges.items():
            before, after = self.verdicts[role], judge_samples(result.model, judge, self.judged)
            shares = before.probability, after.probability, after.argmax
            worst = [100 * float(share.diagonal()[gone].max()) for share in shares]
            a, b = (100 * verdict.correct(kept) for verdict in (before, after))
            self.lines[role] = [*worst, float(a.mean()), float(b.mean())]
            self.costs[role] = dict(zip(kept, (b - a).tolist(), strict=True))

    def pictures(self, model: CVAE | None = None, chain: Chain = ()) -> tuple[Tensor, Rows]:
        """What a model (the present one) draws at the latents `shown`, and what the four models of
        `models_there` draw at those of the first class that its last run forgets."""
        model = model or self.model
        chain = chain or self.chain or ((self.forget_class, self.config),)
        latents = self.shown.where(self.shown.labels == chain[-1][0][0])
        forgotten = None if model is self.baseline else model
        models = models_there(self.story, _classes(chain), forgotten)
        rows = {name: draw_images(drawn, latents) for name, drawn in models.items()}
        return draw_images(model, self.shown), rows

    def name(self) -> str:
        """Of the last result's files: classes, knobs that are not the default, whether it was
        stopped.  Raises ValueError without a result."""
        with LOCK:
            result, chain = self.result, self.chain
        if result is None:
            raise ValueError("there is nothing to save yet: press Forget first")
        words = ["forgotten"]
        for classes, config in chain:
            words.append("-".join(map(str, classes)))
            words += [f"{k}-{v}" for k, v in changed(config).items()]
        words += [f"stopped-{result.steps}"] * self.stopped
        return "_".join(words).replace(":", "-")[:200]

    def code(self) -> str:
        """Lines of code that make the present result again, or the one that Forget would make."""
        with LOCK:
            chain = self.chain or ((self.forget_class, self.config),)
            stopped = self.stopped
        made = "story.baseline"
        for k, (forget_class, config) in enumerate(chain, 1):
            fisher = f"story.fishers.without({check_classes(_classes(chain[:k]))})"
            made = f"sa.forget({made}.model, {fisher}, {forget_class}, {as_code(config)})"
        made += "  # but it was stopped early" * stopped
        story, own = self.story, self.story.own
        words = [repr(story.dataset)] * (story.dataset not in (None, "mnist"))
        roles = vars(story.config).items()
        words += [f"{role}={as_code(c)}" for role, c in roles if changed(c) and role not in own]
        told = f"  # give it your {' and '.join(own)} as well" * bool(own)
        begin = f"import sahelpers as sa\n\nstory = sa.Story({', '.join(words)}){told}\n"
        return f"{begin}result = {made}\n"


def _classes(chain: Chain) -> tuple[int, ...]:
    """All that the runs forget."""
    return tuple(c for classes, _ in chain for c in classes)


class AmnesiaDashboard(KnobDashboard):
    """Choose classes and weights, press Forget, watch it happen, press Stop.

    story: as for the controller.  forget_class: the classes chosen at first.
    """

    def __init__(self, story: Story, forget_class: Classes = 3) -> None:
        c = AmnesiaController(story, forget_class)
        super().__init__(c, KNOBS, "the model so far")
        numbers = range(c.baseline.num_classes)
        self.classes = [
            self.toggle(str(k), f"forget class {k}, {name}", k in c.forget_class, self._toggled)
            for k, name in enumerate(story.train.class_names)
        ]
        names = ["gray", "noise", "blank", "mixture", *(f"class:{k}" for k in numbers)]
        self.surrogate = self.menu(
            "SURROGATE", dict.fromkeys([*names, c.config.surrogate]), c.config.surrogate,
            lambda value: self.change("surrogate", value),
        )  # fmt: skip
        self.again = ipw.Checkbox(False, description="forget again on release", indent=False)
        self.usual = False  # what `again` is as long as nobody presses it
        self.adding = False  # whether the last run went on from the one before
        self.forget = self.button("Forget", "from the start", lambda: self._start(False), "primary")
        self.another = self.button("Forget these too", "go on from here", lambda: self._start(True))
        self.reset = self.button("Reset", "to the start", lambda: self.worker.submit(self._reset))
        self.save = self.button("Save", "picture (PNG) and code, into this folder", self._save)
        self.models, self.grid = ipw.HTML(), ipw.HTML()
        self.curves, self.cost = ipw.HTML(), ipw.HTML()
        buttons = [self.forget, self.another, self.stop, self.reset, self.save]
        self.arrange(
            [
                ipw.HTML("<b>FORGET_CLASS</b> one or several"), wrapped(self.classes),
                self.surrogate, *self.knobs.values(), self.again, wrapped(buttons), self.progress,
            ],
            [
                self.models, self.grid, wrapped([self.curves, self.cost]), self.table, self.code,
                self.help,
            ],
        )  # fmt: skip
        self.before, _ = c.pictures(c.baseline)
        self.when_idle()
        self._draw()
        self.say("Ready. Choose a class and press Forget.")

    def change(self, name: str, value: Any) -> None:
        """Give the controller a new value, and forget again with it if the person wants that."""
        super().change(name, value)
        if self.again.value and not self.adding:
            self._start(False)

    def when_idle(self) -> None:
        """Nothing runs: Stop rests, and what needs a result works if there is one."""
        super().when_idle()
        self.another.disabled = self.save.disabled = self.controller.result is None

    def _toggled(self, _: bool) -> None:
        if any(button.value for button in self.classes):
            self._choose()
            if self.controller.result is None and not self.worker.busy:
                self._draw()
            self.say(f"Chosen: {', '.join(map(str, self.controller.forget_class))}.")
        else:  # on the way from one class to another
            self.say("Choose at least one class.")

    def _choose(self) -> None:
        self.controller.choose(tuple(k for k, b in enumerate(self.classes) if b.value))
        self.show_code()

    def _start(self, another: bool) -> None:
        self._choose()  # refuses an empty choice before anything is stopped
        self.adding = another
        self.worker.submit(lambda stop: self._run(stop, another))

    def _run(self, stop: Event, another: bool) -> None:
        self.stop.disabled = False
        self.say("Forgetting ...")
        self.progress.value = 0.0
        self.controller.forget(stop, self._show_frame, another)
        if self.worker.waiting:
            return
        self._draw()
        result = self.controller.result
        said = f"{ENDED[result.reason]}: {result.steps} steps in {result.seconds:.1f} s"
        self.say(f"{said}. The judges are looking ...")
        self.controller.judge()
        self._fill_table()
        self.progress.value = 1.0
        if self.again.value == self.usual and result.reason != "stopped":
            self.usual = self.again.value = result.seconds <= QUICK
        gone = ", ".join(map(str, result.forget_class))
        self.say(f"{said}. What the judges say of class {gone} is in the table.")

    def _show_frame(self, done: float, history: History, *pictures: Any) -> None:
        self.progress.value = done
        far = history["distance"]
        self.say(f"Forgetting, step {len(far)}: {far[-1]:.3f} from the surrogate")
        self._show(*pictures)
        self.curves.value = curves({k: v for k, v in history.items() if v is not far})

    def _show(self, now: Tensor, models: Rows) -> None:
        """Pictures of the controller; what the judges said of earlier ones is hidden."""
        rows = {name: [images] for name, images in models.items()}
        self.models.value = sheet(rows, [[""] * COLUMNS], SIDES[:1])
        parts = torch.stack([self.before, now]).unflatten(1, (-1, COLUMNS))[:, :, :ROWS]
        grids = dict(zip(("before", "now"), parts.transpose(1, 2), strict=True))  # (ROWS, K, ...)
        self.grid.value = "".join(
            sheet({n: [g[:, line].flatten(0, 1)] for n, g in grids.items()}, [line], SIDES[1:])
            for line in in_lines(range(len(self.classes)))
        )
        self.table.layout.visibility = self.cost.layout.visibility = "hidden"

    def _draw(self) -> None:
        """What the present model draws, and its line of code."""
        self._show(*self.controller.pictures())
        self.show_code()

    def _fill_table(self) -> None:
        c = self.controller
        rows = [(role, *(f"{x:.1f}" for x in line)) for role, line in c.lines.items()]
        told = f"Percent, {JUDGED} samples per class; P and argmax: what was forgotten"
        self.table.value = table(told, HEAD, rows)
        role, points = next(iter(c.costs.items()))
        self.cost.value = bars(points, f"Recognised by '{role}', change in points, kept classes")
        self.table.layout.visibility = self.cost.layout.visibility = "visible"

    def _reset(self, stop: Event) -> None:
        c = self.controller
        c.reset()
        self.set_knobs()
        with self.quietly():
            self.surrogate.value = c.config.surrogate
            for k, button in enumerate(self.classes):
                button.value = k in c.start
        self.progress.value, self.curves.value = 0.0, ""
        self._draw()
        self.say("Back at the baseline.")

    def _save(self) -> None:
        with LOCK:  # name, picture and code are of one result
            name, code = self.controller.name(), self.controller.code()
            now, models = self.controller.pictures()
            figure = Figure(figsize=(10, 5), layout="constrained")
            axes = figure.subplot_mosaic("mm;bn")
            plots.image_rows(models, COLUMNS, axes["m"], "the forgotten class at the same z")
            grids = [axes["b"], axes["n"]]
            plots.before_after(self.before, now, self.controller.shown.labels, ROWS, grids)
            figure.savefig(f"{name}.png")
        Path(f"{name}.py").write_text(code, encoding="utf-8")
        self.say(f"Wrote {name}.png and {name}.py into {Path.cwd().name}/.")
