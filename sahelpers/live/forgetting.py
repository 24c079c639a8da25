"""The dashboard that forgets while you watch, and what it does without a widget."""

import io
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from threading import Event
from typing import Any

import ipywidgets as ipw
from matplotlib.figure import Figure
from torch import Tensor

from .. import plots
from ..amnesia import AmnesiaResult, forget
from ..checks import check_is
from ..config import SURROGATES, AmnesiaConfig, check_classes, kept_classes
from ..judges import Verdict, draw_images, fixed_latents, judge_samples
from ..models import CVAE
from ..store.files import whence
from ..story import Classes, Story
from ..training import History
from .base import KnobDashboard, bars, curves, sheet, table, wrapped
from .worker import (
    LOCK,
    Controller,
    Stopped,
    as_code,
    changed,
    in_lines,
    models_there,
    stoppable,
    usual_classes,
)

FRAME_SECONDS = 0.3  # between two pictures of a run; with drawing, less than half a second
JUDGED = 200  # samples per class behind the dashboard's table
COLUMNS = 8  # images of the class in each model's row
ROWS = 3  # images per class in the grid
SIDES = (52, 42)  # pixels of an image in these two
QUICK = 3.0  # seconds: after a shorter run, a released slider forgets again
KNOBS = (
    "gray_value", "neg_loss_weight", "gamma", "ewc_lambda", "w_attack", "kept_budget", "w_contrast",
    "w_ink", "w_tv", "w_orient", "epochs_unl",
)  # fmt: skip
HEAD = ("judge", "P before", "after", "argmax", "kept before", "after")  # of the table, percent
ENDED = {"done": "Done", "budget": "EPOCHS_UNL used up", "stopped": "Stopped"}
Rows = dict[str, Tensor]  # name of a model -> its images


@dataclass(frozen=True)
class Run:
    """One of the runs that led to a model.

    Attributes:
        forget_class: The classes that it forgets.
        config: Its settings.
        steps: How many it took; 0 for one that has not ended.
        stopped: Whether a person ended it.
    """

    forget_class: tuple[int, ...]
    config: AmnesiaConfig
    steps: int = 0
    stopped: bool = False


Chain = tuple[Run, ...]


class AmnesiaController(Controller):
    """Forget classes of a trained model, step by step, with settings that a person moves.

    Args:
        story: Where model, Fisher, judges and the first configuration come from.
        forget_class: The class or classes that are chosen at first, by number or name; 3, or the
            last of fewer classes, when left out.

    Attributes:
        config, forget_class: The settings of the next run.
        model: The model so far: the baseline, or what the last run left.
        chain: The runs that led to it.
        running: The runs that lead to the model that is being made; empty when none is.
        result: The last run; None before the first.
        judged_rows: What the judges say of the last run, by role: the numbers of a row of HEAD, in
            percent.  Empty until `judge` is called.
        kept_changes: The same for each kept class: role -> class -> change of the share that is
            recognised, in points.
    """

    def __init__(self, story: Story, forget_class: Classes | None = None) -> None:
        check_is(story, Story, "story", ": sa.Story() makes one")
        self.story = story
        self.baseline = story.baseline.model
        self.fishers = story.fishers
        if forget_class is None:
            forget_class, _ = usual_classes(self.baseline.num_classes)
        self.start = story.train.class_numbers(forget_class)
        self.names = story.train.class_names
        self.shown = fixed_latents(self.baseline, COLUMNS, seed=1)
        self.judged = fixed_latents(self.baseline, JUDGED)
        self.reset()

    @cached_property
    def verdicts(self) -> dict[str, Verdict]:
        """What the judges say of the baseline, by role."""
        found = {}
        for role, judge in self.story.judges.items():
            found[role] = judge_samples(self.baseline, judge, self.judged)
        return found

    def reset(self) -> None:
        """Back to the baseline and to the first settings."""
        with LOCK:
            self.forget_class, self.config = self.start, self.story.config.amnesia
            self.model = self.baseline
            self.chain: Chain = ()
            self.running: Chain = ()
            self.result: AmnesiaResult | None = None
            self.judged_rows: dict[str, list[float]] = {}
            self.kept_changes: dict[str, dict[int, float]] = {}

    def choose(self, forget_class: tuple[int, ...]) -> None:
        """Choose the classes of the next run; ValueError when there is none or none is kept."""
        with LOCK:
            self.forget_class = check_classes(forget_class, self.baseline.num_classes)

    def forget(
        self, stop: Event, show: Callable[..., None] = lambda *_: None, another: bool = False
    ) -> None:
        """Forget the chosen classes with the present settings.

        Args:
            stop: Once it is set, the run ends, and its model so far is taken.
            show: Called about twice a second with the share of the way (0 to 1), the history of
                `sa.forget` so far, and the two values that `pictures` returns.
            another: Go on from the present model, where what was forgotten stays forgotten, and
                not from the baseline.

        Raises:
            ValueError: When a setting does not fit; it is named.  The model then stays as it was.
        """
        with LOCK:
            run = Run(self.forget_class, self.config)
            model, earlier = (self.model, self.chain) if another else (self.baseline, ())
        forget_class, config = run.forget_class, run.config
        so_far = _classes(earlier)
        twice = sorted(set(forget_class) & set(so_far))
        if twice:
            raise ValueError(f"class {twice[0]} is forgotten already (so far {so_far})")
        chain = (*earlier, run)
        gone = check_classes((*so_far, *forget_class), model.num_classes)
        history: History = {}
        last_frame = -math.inf

        def on_step(step: int, new: CVAE, numbers: dict[str, float]) -> bool:
            nonlocal last_frame
            for name, value in numbers.items():
                history.setdefault(name, []).append(value)
            if time.perf_counter() - last_frame >= FRAME_SECONDS:
                done = _share_done(step, history["distance"], config)
                show(done, history, *self.pictures(new, chain, f"at step {step + 1}"))
                last_frame = time.perf_counter()
            return not stop.is_set()

        self.running = chain
        try:
            fisher = self.fishers.without(gone)
            result = forget(model, fisher, forget_class, config, on_step=on_step)
        finally:
            self.running = ()
        ended = replace(run, steps=result.steps, stopped=result.reason == "stopped")
        with LOCK:
            self.result = replace(result, forget_class=gone)
            self.model = result.model
            self.chain = (*earlier, ended)
            self.judged_rows = {}
            self.kept_changes = {}

    def judge(self, stop: Event, show: Callable[[float], None] = lambda _: None) -> None:
        """Let the judges look at the last result: fills `judged_rows` and `kept_changes`.

        Args:
            stop: Once it is set, a judge that is being trained is left as it is.
            show: Called with the share of the way (0 to 1) while a judge is trained.

        Raises:
            Stopped: `stop` was set before there were judges.
        """
        result = self.result
        if result is None:
            return
        with stoppable(stop, show):
            verdicts = self.verdicts
        gone = list(result.forget_class)
        kept = kept_classes(gone, self.baseline.num_classes)
        for role, judge in self.story.judges.items():
            before = verdicts[role]
            after = judge_samples(result.model, judge, self.judged)
            row = []
            for shares in (before.probability, after.probability, after.argmax):
                row.append(100 * float(shares.diagonal()[gone].max()))  # of the worst class
            kept_before, kept_after = 100 * before.correct(kept), 100 * after.correct(kept)
            row += [float(kept_before.mean()), float(kept_after.mean())]
            self.judged_rows[role] = row
            changes = (kept_after - kept_before).tolist()
            self.kept_changes[role] = dict(zip(kept, changes, strict=True))

    def pictures(
        self, model: CVAE | None = None, chain: Chain = (), called: str = ""
    ) -> tuple[Tensor, Rows]:
        """What is shown of a model.

        Args:
            model: The model; the present one when left out.
            chain: The runs that led to it; those of the present one when left out.
            called: What its row is called; what it is when left out, such as "stopped at 37".

        Returns:
            What it draws at the latents `shown`, (N, *image_shape); and for each of the models of
            `models_there` what this one draws at the latents of the first class that the last run
            forgets, (COLUMNS, *image_shape).
        """
        model = model or self.model
        chain = chain or self.chain or (Run(self.forget_class, self.config),)
        latents = self.shown.where(self.shown.labels == chain[-1].forget_class[0])
        forgotten = None if model is self.baseline else model
        models = models_there(self.story, _classes(chain), forgotten)
        rows = {}
        for name, drawn in models.items():
            if name == "forgotten":
                name = called or self._row_name(chain, forgotten)
            rows[name] = draw_images(drawn, latents)
        return draw_images(model, self.shown), rows

    def _row_name(self, chain: Chain, forgotten: CVAE | None) -> str:
        """What a model is that runs have led to; without it, the one that the story keeps."""
        last = chain[-1]
        name = f"forgotten {', '.join(self.names[c] for c in last.forget_class)}"
        if forgotten is None:
            return f"{whence(self.story.forgotten_recipe(_classes(chain)))}, {name}"
        if last.stopped:
            return f"stopped at {last.steps}"
        done = self.result is not None and self.result.reason == "done"
        return name if done else f"ended at {last.steps}"

    def name(self) -> str:
        """A name for files of the last result.

        Returns:
            Run by run its classes, its steps or where it was stopped, and its knobs that are not
            the default; without the knobs if it would be longer than 200 characters.

        Raises:
            ValueError: When there is no result yet.
        """
        chain = self.chain
        if not chain:
            raise ValueError("there is nothing to save yet: press Forget first")
        runs, all_words = ["forgotten"], ["forgotten"]
        for run in chain:
            ended = f"stopped-at-{run.steps}" if run.stopped else f"{run.steps}-steps"
            words = ["-".join(map(str, run.forget_class)), ended]
            runs += words
            all_words += words
            all_words += [f"{knob}-{value}" for knob, value in changed(run.config).items()]
        whole = "_".join(all_words).replace(":", "-")
        return whole if len(whole) <= 200 else "_".join(runs)[:200]

    def told_code(self) -> tuple[str, str]:
        """What a person should see as code now.

        Returns:
            What it is the code of, in words; and the code: of the run that goes on, of the model on
            screen, or, where the settings are others than that one's, of what Forget would make.
        """
        with LOCK:
            running, chain = self.running, self.chain
            settings = Run(self.forget_class, self.config)
        if running:
            return "of the run that goes on", self.code(running)
        if chain and replace(chain[-1], steps=0, stopped=False) == settings:
            return f"of the model on screen: {_ended(chain[-1])}", self.code(chain)
        return "of what Forget will make with these settings", self.code((settings,))

    def code(self, chain: Chain = ()) -> str:
        """Lines of code that make a model again.

        Args:
            chain: The runs that lead to it.  When left out, those of the present model, or before
                the first the one that Forget would make.

        Returns:
            The lines.
        """
        with LOCK:
            chain = chain or self.chain or (Run(self.forget_class, self.config),)
        lines = ["import sahelpers as sa", "", self._story_as_code()]
        model = "story.baseline.model"
        for runs, run in enumerate(chain, 1):
            gone = check_classes(_classes(chain[:runs]), self.baseline.num_classes)
            fisher = f"story.fishers.without({gone})"
            words = [model, fisher, str(run.forget_class), as_code(run.config)]
            if run.stopped:
                words.append(f"on_step=lambda step, *_: step < {run.steps - 1}")
            line = f"result = sa.forget({', '.join(words)})"
            lines.append(f"{line}  # {_ended(run)}" if run.stopped else line)
            model = "result.model"
        return "\n".join(lines) + "\n"

    def _story_as_code(self) -> str:
        """The line that makes the story again, as far as names and configurations can say it."""
        story = self.story
        words = []
        if story.dataset not in (None, "mnist"):
            words.append(repr(story.dataset))
        for role, config in vars(story.config).items():
            if changed(config) and role not in story.given:
                words.append(f"{role}={as_code(config)}")
        line = f"story = sa.Story({', '.join(words)})"
        if story.given:
            line += f"  # give it your {' and '.join(story.given)} as well"
        return line


def _share_done(step: int, distances: list[float], config: AmnesiaConfig) -> float:
    """How much of a run is done, from 0 to 1.

    It ends with its budget of steps, or `cooldown` steps after it came close to the surrogate.
    """
    taken = step + 1
    came_close = next((k + 1 for k, d in enumerate(distances) if d <= config.tolerance), None)
    if came_close is None:
        whole_way = max(distances[0] - config.tolerance, 1e-9)
        way = max(0.0, (distances[0] - distances[-1]) / whole_way)
        by_distance = way * taken / (taken + config.cooldown)
    else:
        by_distance = taken / (came_close + config.cooldown)
    return min(1.0, max(taken / config.max_steps(), by_distance))


def _classes(chain: Chain) -> tuple[int, ...]:
    """All classes that the runs forget, in their order."""
    return tuple(c for run in chain for c in run.forget_class)


def _ended(run: Run) -> str:
    """How a run ended, in words."""
    return f"stopped at step {run.steps}" if run.stopped else f"{run.steps} steps"


class AmnesiaDashboard(KnobDashboard):
    """Choose classes and weights, press Forget, watch it happen, press Stop.

    Args:
        story: Where model, Fisher, judges and the first configuration come from.
        forget_class: The class or classes that are chosen at first, by number or name; 3, or the
            last of fewer classes, when left out.
    """

    def __init__(self, story: Story, forget_class: Classes | None = None) -> None:
        c = AmnesiaController(story, forget_class)
        super().__init__(c, KNOBS, "the model so far")
        self.classes = [
            self.toggle(name, f"forget class {k}, {name}", k in c.forget_class, self._toggled)
            for k, name in enumerate(c.names)
        ]
        words = {f"class:{k}": f"class:{name}" for k, name in enumerate(story.train.numbered_names)}
        named = [*SURROGATES, *words, c.config.surrogate]
        options = [(words.get(name, name), name) for name in dict.fromkeys(named)]
        self.surrogate = self.menu(
            "SURROGATE", options, c.config.surrogate, lambda value: self.change("surrogate", value)
        )
        self.again = ipw.Checkbox(False, description="forget again on release", indent=False)
        self.again_by_itself = False  # what `again` was set to, as long as nobody presses it
        self.adding = False  # whether the last run went on from the one before
        self.done = 0.0  # the share of the last run that was done when it was looked at last
        self.forget = self.button("Forget", "from the start", lambda: self._start(False), "primary")
        self.another = self.button("Forget these too", "go on from here", lambda: self._start(True))
        self.reset = self.button("Reset", "to the start", lambda: self.worker.submit(self._reset))
        self.save = self.button("Save", "picture (PNG) and code, into this folder", self._save)
        self.models, self.grid = ipw.HTML(), ipw.HTML()
        self.curves, self.cost = ipw.HTML(), ipw.HTML()
        starts, others = [self.forget, self.another, self.stop], [self.reset, self.save]
        self.arrange(
            [
                ipw.HTML("<b>FORGET_CLASS</b> one or several"), wrapped(self.classes),
                self.surrogate, *self.knobs.values(), self.again,
                wrapped(starts), wrapped(others), self.progress,
            ],
            [self.models, self.grid],
            [wrapped([self.code, self.curves]), wrapped([self.cost, self.table]), self.help],
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
            self.say(f"Chosen: {self._named(self.controller.forget_class)}.")
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
        if not self.worker.go_on():
            return
        self._draw()
        result = self.controller.result
        self._draw_curves(result.history)
        ended = f"{ENDED[result.reason]}: {result.steps} steps in {result.seconds:.1f} s"
        looking = f"{ended}. The judges are looking"
        self.say(f"{looking} ...")
        try:
            self.controller.judge(stop, self.in_making(f"{looking}. One is trained first"))
        except Stopped:
            self.progress.value = 0.0
            self.say(f"{ended}. Stopped before the judges had looked.")
            return
        self._fill_table()
        if result.reason == "stopped":
            self.progress.value = self.done
        else:
            self.progress.value = 1.0
        if self.again.value == self.again_by_itself and result.reason != "stopped":
            self.again_by_itself = result.seconds <= QUICK
            self.again.value = self.again_by_itself
        gone = self._named(result.forget_class)
        self.say(f"{ended}. What the judges say of class {gone} is in the table.")

    def _named(self, classes: tuple[int, ...]) -> str:
        """The names of some classes, in a sentence."""
        return ", ".join(self.controller.names[c] for c in classes)

    def _show_frame(self, done: float, history: History, *pictures: Any) -> None:
        """Show how far a run is: `pictures` are the two values that the controller's returns."""
        self.progress.value = self.done = done
        self.show_code()
        distances = history["distance"]
        self.say(f"Forgetting, step {len(distances)}: {distances[-1]:.3f} from the surrogate")
        self._show(*pictures)
        self._draw_curves(history)

    def _draw_curves(self, history: History) -> None:
        """Show the terms of the loss."""
        in_nats = {k: v for k, v in history.items() if k not in ("distance", "attack_weight")}
        self.curves.value = curves(in_nats)

    def _show(self, now: Tensor, models: Rows) -> None:
        """Show pictures of the controller; what the judges said of earlier ones is hidden."""
        rows = {name: [images] for name, images in models.items()}
        self.models.value = sheet(rows, [[""] * COLUMNS], SIDES[:1])
        grids = {}
        for name, images in {"before": self.before, "now": now}.items():
            of_class = images.unflatten(0, (-1, COLUMNS))  # (K, COLUMNS, *image_shape)
            grids[name] = of_class[:, :ROWS].transpose(0, 1)  # (ROWS, K, *image_shape)
        shown = ""
        for line in in_lines(range(len(self.classes))):
            of_line = {name: [grid[:, line].flatten(0, 1)] for name, grid in grids.items()}
            shown += sheet(of_line, [[self.controller.names[k] for k in line]], SIDES[1:])
        self.grid.value = shown
        self._show_judgement(False)

    def _show_judgement(self, shown: bool) -> None:
        """Show the table and the bars, or leave them out; nothing but the help stands below."""
        self.table.layout.display = self.cost.layout.display = None if shown else "none"

    def _draw(self) -> None:
        """What the present model draws, and its line of code."""
        self._show(*self.controller.pictures())
        self.show_code()

    def _fill_table(self) -> None:
        """Show what the judges say of the last result."""
        c = self.controller
        rows = []
        for role, numbers in c.judged_rows.items():
            rows.append((role, *(f"{number:.1f}" for number in numbers)))
        caption = f"Percent, {JUDGED} samples per class; P and argmax: what was forgotten"
        self.table.value = table(caption, HEAD, rows)
        role, changes = next(iter(c.kept_changes.items()))
        named = {c.names[k]: change for k, change in changes.items()}
        self.cost.value = bars(named, f"Recognised by '{role}', change in points, kept classes")
        self._show_judgement(True)

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
            axes = figure.subplot_mosaic([["models", "models"], ["before", "now"]])
            plots.image_rows(models, COLUMNS, axes["models"], "the forgotten class at the same z")
            grids = [axes["before"], axes["now"]]
            labels, names = self.controller.shown.labels, self.controller.names
            plots.before_after(self.before, now, labels, ROWS, grids, names)
            picture = io.BytesIO()
            figure.savefig(picture)
        name = write_both(name, picture.getvalue(), code)
        self.say(f"Wrote {name}.png and {name}.py into {Path.cwd().name}/.")


def write_both(name: str, picture: bytes, code: str) -> str:
    """Write a picture and its code into the working folder, over no file that is there.

    Args:
        name: What both shall be called.
        picture: The content of a PNG.
        code: The code.

    Returns:
        What they are called: the name, with a number behind it if it was taken.

    Raises:
        OSError: They cannot be written; then neither is left.
    """
    contents = {".py": code.encode(), ".png": picture}
    stem, number = name, 1
    while True:
        written: list[Path] = []
        try:
            for ending, content in contents.items():
                with Path(stem + ending).open("xb") as file:  # refuses a file that is there
                    written.append(Path(file.name))
                    file.write(content)
            return stem
        except OSError as error:
            for path in written:
                path.unlink()
            if not isinstance(error, FileExistsError):
                raise
        number += 1
        stem = f"{name}_{number}"
