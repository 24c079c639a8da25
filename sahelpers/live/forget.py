"""The dashboard of notebook 03, and what it does without a widget: forget while you watch."""

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import ipywidgets as ipw
import torch
from matplotlib.figure import Figure
from torch import Tensor

from .. import plots
from ..amnesia import AmnesiaResult, History, forget
from ..checks import check_is
from ..config import AmnesiaConfig, check_classes, kept_classes
from ..judges import Collateral, Latents, collateral, draw_images, fixed_latents, judge_samples
from ..models import CVAE
from ..store.files import save
from ..story import Classes, Story
from .base import KnobDashboard, beside, curves, image_rows, picture_box, rendered, table, wrapped
from .worker import LOCK, Controller, as_code

FRAME_SECONDS = 0.4  # between two pictures of a run
JUDGED = 200  # samples per class behind the dashboard's table
COLUMNS = 8  # images in a row of a frame
ROWS = 4  # images per class in the grid
KNOBS = ["gray_value", "neg_loss_weight", "gamma", "ewc_lambda", "w_attack"]
KNOBS += ["w_contrast", "w_ink", "w_tv", "w_orient", "epochs_unl"]
ENDED = {"done": "Done", "budget": "EPOCHS_UNL used up", "stopped": "Stopped"}


@dataclass(frozen=True)
class Frame:
    """A run in the middle: `done` is the share of the way, `images` are one forgotten and one kept
    row of COLUMNS images each, whose classes are `rows`."""

    step: int
    done: float
    distance: float
    images: Tensor
    rows: tuple[int, int]
    history: History


@dataclass(frozen=True)
class Line:
    """What one judge says of the model: the forgotten classes (the worst of them) and the kept."""

    judge: str
    p_before: float
    p_after: float
    argmax: float  # share of the samples that the judge calls the class
    argmax_stretched: float  # the same, after stretching every image to full contrast
    kept: Collateral


class AmnesiaController(Controller):
    """Forget classes of a trained model, step by step, with settings that a person moves.

    story: where model, Fisher, judges and the first configuration come from.
    State: `config` and `forget_class` (the settings), `model` (what is forgotten so far), `chain`
    (the runs that led to it), `result` (the last run) and `lines` (what the judges say).
    """

    def __init__(self, story: Story, forget_class: Classes = 3) -> None:
        check_is(story, Story, "story", ": sa.Story() makes one")
        self.story, self.baseline, self.fishers = story, story.baseline.model, story.fishers
        self.start = check_classes(forget_class, self.baseline.num_classes)
        self.shown = fixed_latents(self.baseline, COLUMNS, seed=1)
        self.judged = fixed_latents(self.baseline, JUDGED)
        self.verdicts = {
            role: judge_samples(self.baseline, judge, self.judged)
            for role, judge in story.judges.items()
        }
        self.reset()

    def reset(self) -> None:
        """Back to the baseline and to the first settings."""
        with LOCK:
            self.forget_class, self.config = self.start, self.story.config.amnesia
            self.model = self.baseline
            self.chain: tuple[tuple[tuple[int, ...], AmnesiaConfig], ...] = ()
            self.result: AmnesiaResult | None = None
            self.lines: list[Line] = []

    def choose(self, forget_class: tuple[int, ...]) -> None:
        """Choose the classes of the next run; ValueError when there is none or none is kept."""
        with LOCK:
            self.forget_class = check_classes(forget_class, self.baseline.num_classes)

    def forget(
        self,
        stop: threading.Event,
        show: Callable[[Frame], None] = lambda frame: None,
        another: bool = False,
    ) -> None:
        """Forget the chosen classes with the present settings.

        another: go on from the present model, where what was forgotten stays forgotten, and not
        from the baseline.  stop: once set, the run ends and its model so far is taken.
        show: called with a frame about twice a second.
        Raises ValueError when a setting does not fit, naming it; the model then stays as it was.
        """
        with LOCK:
            forget_class, config = self.forget_class, self.config
            model, chain = (self.model, self.chain) if another else (self.baseline, ())
        earlier = tuple(c for classes, _ in chain for c in classes)
        if set(forget_class) & set(earlier):
            raise ValueError(f"class {forget_class} is forgotten already (so far {earlier})")
        gone = check_classes((*earlier, *forget_class), model.num_classes)
        rows = (forget_class[0], kept_classes(gone, model.num_classes)[0])
        index = [row * COLUMNS + k for row in rows for k in range(COLUMNS)]
        latents = Latents(self.shown.z[index], self.shown.labels[index])
        history: History = {}
        last = -math.inf

        def on_step(step: int, new: CVAE, numbers: dict[str, float]) -> bool:
            nonlocal last
            for name, value in numbers.items():
                history.setdefault(name, []).append(value)
            if time.perf_counter() - last >= FRAME_SECONDS:
                far = history["distance"]
                way = (far[0] - far[-1]) / max(far[0] - config.tolerance, 1e-9)
                done = min(1.0, max((step + 1) / config.max_steps, way))
                terms = {name: list(v) for name, v in history.items() if name != "distance"}
                show(Frame(step + 1, done, far[-1], draw_images(new, latents), rows, terms))
                last = time.perf_counter()
            return not stop.is_set()

        result = forget(model, self.fishers.without(gone), forget_class, config, on_step=on_step)
        with LOCK:
            self.result, self.model = replace(result, forget_class=gone), result.model
            self.chain, self.lines = (*chain, (forget_class, config)), []

    def judge(self) -> None:
        """Let the judges look at the last result: fills `lines`."""
        if (result := self.result) is not None:
            self.lines = [self._line(role, result) for role in self.verdicts]

    def pictures(self) -> tuple[Tensor, Tensor, Tensor]:
        """Images before and now at the same z, and their labels, sorted."""
        before, now = (draw_images(model, self.shown) for model in (self.baseline, self.model))
        return before, now, self.shown.labels

    def save(self, replace_it: bool = False) -> Path:
        """Keep the last result in checkpoints/, `vae_forget_3.pt` for the defaults.

        Another configuration has its fingerprint in the name; one class after the other, or a run
        that was stopped, is named so, and is never taken for a finished run.
        Raises ValueError without a result and FileExistsError naming a file that is there already.
        """
        with LOCK:
            result, chain = self.result, self.chain
        if result is None:
            raise ValueError("there is nothing to save yet: press Forget first")
        stem = "vae_forget_" + "-then-".join("-".join(map(str, c)) for c, _ in chain)
        stem += f"-stopped-{result.steps}" if result.reason == "stopped" else ""
        configs = [config for _, config in chain]
        recipe = self.story.forgotten_recipe(result.forget_class, *configs, stem=stem)
        if recipe.path.exists() and not replace_it:
            raise FileExistsError(f"{recipe.path.name} is there already: save again to replace it")
        save(recipe.path, result.to_state(), recipe.mark)
        return recipe.path

    def code(self) -> str:
        """A line of code that makes the present result again, or the one that Forget would make."""
        with LOCK:
            chain = self.chain or ((self.forget_class, self.config),)
            stopped = self.result is not None and self.result.reason == "stopped"
        made, gone = "story.baseline", set[int]()
        for forget_class, config in chain:
            gone |= set(forget_class)
            fisher = f"story.fishers.without({tuple(sorted(gone))})"
            made = f"sa.forget({made}.model, {fisher}, {forget_class}, {as_code(config)})"
        return f"result = {made}" + ("  # but it was stopped early" if stopped else "")

    def _line(self, role: str, result: AmnesiaResult) -> Line:
        gone = list(result.forget_class)
        own = torch.isin(self.judged.labels, torch.tensor(gone, device=self.baseline.device))
        judge, before = self.story.judges[role], self.verdicts[role]
        after = judge_samples(result.model, judge, self.judged)
        stretched = judge_samples(result.model, judge, self.judged.where(own), stretch=True)
        p_before, p_after, argmax, argmax_stretched = (
            float(shares.diagonal()[gone].max())
            for shares in (before.probability, after.probability, after.argmax, stretched.argmax)
        )
        kept = collateral(before, after, gone)
        return Line(role, p_before, p_after, argmax, argmax_stretched, kept)


class AmnesiaDashboard(KnobDashboard):
    """Choose classes and weights, press Forget, watch it happen, press Stop.

    story: where model, Fisher, judges and the first configuration come from.
    forget_class: the classes chosen at first.
    """

    def __init__(self, story: Story, forget_class: Classes = 3) -> None:
        c = AmnesiaController(story, forget_class)
        super().__init__(c, KNOBS, "the model so far")
        numbers = range(c.baseline.num_classes)
        self.classes = [
            self.toggle(str(k), f"forget class {k}", k in c.forget_class, self._toggled)
            for k in numbers
        ]
        names = ["gray", "noise", "blank", "mixture", *(f"class:{k}" for k in numbers)]
        self.surrogate = self.menu(
            "SURROGATE", dict.fromkeys([*names, c.config.surrogate]), c.config.surrogate,
            lambda value: self.change("surrogate", value),
        )  # fmt: skip
        self.forget = self.button("Forget", "from the start", lambda: self._start(False), "primary")
        self.another = self.button("Forget these too", "go on from here", lambda: self._start(True))
        self.reset = self.button("Reset", "to the start", lambda: self.worker.submit(self._reset))
        self.save = self.button("Save", "keep the model in checkpoints/", self._save)
        self.names = [ipw.HTML(), ipw.HTML()]
        self.rows, self.curves, self.grid = picture_box(), ipw.HTML(), picture_box()
        self.live = wrapped([beside(self.names, self.rows), self.curves])
        self.live.layout.display = "none"  # until something runs
        buttons = wrapped([self.forget, self.another, self.stop, self.reset, self.save])
        self.arrange(
            [
                ipw.HTML("<b>FORGET_CLASS</b> one or several"),
                wrapped(self.classes), self.surrogate, *self.knobs.values(), buttons, self.progress,
            ],
            [self.live, self.grid, self.table, self.code, self.help],
        )  # fmt: skip
        self.when_idle()
        self._draw_grid()
        self.say("Ready. Choose a class and press Forget.")

    def _toggled(self, _: bool) -> None:
        if any(button.value for button in self.classes):
            self._choose()
            self.say(f"Chosen: {', '.join(map(str, self.controller.forget_class))}.")
        else:  # on the way from one class to another
            self.say("Choose at least one class.")

    def _choose(self) -> None:
        self.controller.choose(tuple(k for k, b in enumerate(self.classes) if b.value))
        self.show_code()

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
        said = f"{ENDED[result.reason]}: {result.steps} steps in {result.seconds:.1f} s"
        self.say(f"{said}. The judges are looking ...")
        self._draw_grid()
        if self.worker.waiting:
            return
        self.controller.judge()
        self._fill_table()
        self.progress.value = 1.0
        self.say(f"{said}. Forgotten: {', '.join(map(str, result.forget_class))}.")

    def _show_frame(self, frame: Frame) -> None:
        self.progress.value = frame.done
        self.say(f"Forgetting, step {frame.step}: {frame.distance:.3f} from the surrogate")
        for name, row, what in zip(self.names, frame.rows, ("forget", "kept"), strict=True):
            name.value = f"{row} {what}"
        self.rows.value = image_rows(frame.images, COLUMNS)
        self.curves.value = curves(frame.history)
        self.live.layout.display = None

    def _draw_grid(self) -> None:
        """The images before and now, the line of code, and an empty table."""
        before, now, labels = self.controller.pictures()

        def draw(figure: Figure) -> None:
            axes = [figure.add_axes((x, 0.07, 0.485, 0.85)) for x in (0.005, 0.51)]
            plots.before_after(before, now, labels, ROWS, axes)

        self.grid.value = rendered(draw, 10.0, 2.4)
        self.show_code()
        self.table.value = ""

    def _fill_table(self) -> None:
        result = self.controller.result
        gone = ", ".join(map(str, result.forget_class))
        rows = [
            (
                line.judge, f"{line.p_before:.3f}", f"{line.p_after:.3f}",
                f"{100 * line.argmax:.1f} %", f"{100 * line.argmax_stretched:.1f} %",
                f"{line.kept.mean_before:.1f}", f"{line.kept.mean_after:.1f}",
                f"{line.kept.worst_drop:.1f} (class {line.kept.worst_class})",
            )
            for line in self.controller.lines
        ]  # fmt: skip
        head = (
            "judge", f"P({gone}) before", "after", "argmax", "argmax, stretched", "kept before",
            "after", "largest drop",
        )  # fmt: skip
        caption = f"Forgotten: {gone}, {result.steps} steps in {result.seconds:.1f} s. "
        caption += f"{JUDGED} samples per class, the same z; kept: percent recognised"
        self.table.value = table(caption, head, rows)

    def _reset(self, stop: threading.Event) -> None:
        c = self.controller
        c.reset()
        self.surrogate.value = c.config.surrogate
        self.set_knobs()
        for k in (*c.start, *range(len(self.classes))):  # first on, then off: never none
            self.classes[k].value = k in c.start
        self.progress.value, self.live.layout.display = 0.0, "none"
        self._draw_grid()
        self.say("Back at the baseline.")

    def _save(self) -> None:
        sure, self.save.description = self.save.description != "Save", "Save"
        try:
            path = self.controller.save(replace_it=sure)
            self.say(f"Saved as {path.name} in checkpoints/.")
        except FileExistsError as error:
            self.save.description = "Replace it"
            self.say(f"{error} (press Replace it)")

    def when_idle(self) -> None:
        """Nothing runs: Stop rests, and what needs a result works if there is one."""
        super().when_idle()
        self.another.disabled = self.save.disabled = self.controller.result is None
