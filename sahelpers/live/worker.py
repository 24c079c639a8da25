"""What every dashboard needs and no widget is: the worker behind it, and its knobs as values."""

import ctypes
import html
import math
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any

from ..config import Config
from ..models import CVAE, OWN, check_model
from ..store import files
from ..store.files import Recipe
from ..story import Classes, Story

ACROSS = 10  # classes side by side at most; others begin another line
LOCK = threading.RLock()  # guards every change of a controller and every drawing; held shortly
Job = Callable[[threading.Event], None]


class Worker:
    """Runs jobs for a person who clicks faster than they finish.

    A job is called with an event; once that is set, the job should end soon.  Submitting while one
    runs sets its event and lets the new job wait; of several that wait only the newest is run.

    threaded: run in a thread, which ends with the last job, so that the caller's buttons go on
    working.  Otherwise (Colab, which shows nothing that a thread sends) run at once in the caller's
    thread; there the kernel's interrupt sets the event.
    on_error: called with the exception that a job raised.  on_idle: called when nothing is left.
    """

    def __init__(
        self,
        threaded: bool,
        on_error: Callable[[Exception], None],
        on_idle: Callable[[], None] = lambda: None,
    ) -> None:
        self.threaded, self.on_error, self.on_idle = threaded, on_error, on_idle
        self._lock = threading.Lock()
        self._waiting: Job | None = None
        self._stop = threading.Event()
        self._idle = threading.Event()
        self._idle.set()

    @property
    def busy(self) -> bool:
        """Whether a job runs or waits."""
        return not self._idle.is_set()

    @property
    def waiting(self) -> bool:
        """Whether a newer job waits for the running one to end."""
        return self._waiting is not None

    def submit(self, job: Job) -> None:
        """Run the job as soon as the one before it has ended."""
        with self._lock:
            self._waiting = job
            self._stop.set()
            if self.busy:
                return
            self._idle.clear()
        if self.threaded:
            threading.Thread(target=self._work, name="sahelpers-worker", daemon=True).start()
        else:
            with _interrupt_calls(self.stop):
                self._work()

    def stop(self) -> None:
        """Tell the running job to end, and forget the one that waits."""
        with self._lock:
            self._waiting = None
            self._stop.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until nothing is left to do; False when the time (seconds) ran out first."""
        return self._idle.wait(timeout)

    def _work(self) -> None:
        while True:
            with self._lock:
                job, self._waiting = self._waiting, None
                stop = self._stop = threading.Event()
            if job is not None:
                try:
                    job(stop)
                except Exception as error:  # shown to the person, whatever it is
                    self.on_error(error)
                continue
            self.on_idle()
            with self._lock:
                if self._waiting is None:  # nothing came in the meantime
                    self._idle.set()
                    return


class Controller:
    """What the controllers of runs share: a configuration that a person changes."""

    config: Any

    def change(self, **values: Any) -> None:
        """Change fields of the configuration; ValueError as the configuration itself says."""
        with LOCK:
            self.config = replace(self.config, **values)


@contextmanager
def _interrupt_calls(action: Callable[[], None]) -> Iterator[None]:
    """Inside, in the main thread, an interrupt calls the action instead of raising."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, lambda *_: action())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def release_idle_threads(*_: object) -> None:
    """Let the calling thread's idle OpenMP threads go; they come back when they are needed.

    GNU OpenMP (torch on Linux) keeps a pool per thread.  As soon as all pools together have more
    threads than the machine has cores, every wait in every pool goes through the operating system:
    on two cores a worker beside a notebook's idle pool takes 1.7 times as long.
    """
    if sys.platform == "linux":
        pause = getattr(ctypes.CDLL(None), "omp_pause_resource_all", None)
        if pause is not None:
            pause(1)  # omp_pause_soft: of this thread's pool only; refused inside a parallel region


def models_there(story: Story, gone: Classes, forgotten: CVAE | None = None) -> dict[str, CVAE]:
    """The story's models of these classes that need no training now: the baseline, the one that
    hides them, the one that has forgotten them (another one in its place) and the control; the
    last two only if their files are there."""

    def there(recipe: Recipe) -> bool:
        return recipe.path.exists() or (files.SHIPPED / recipe.path.name).exists()

    models = {"baseline": (baseline := story.baseline.model)}
    if baseline.says_label:
        models["hidden"] = story.hidden(gone)
    if forgotten is not None or there(story.forgotten_recipe(gone)):
        models["forgotten"] = forgotten or story.forgotten(gone).model
    if baseline.arch != OWN and there(story.control_recipe(gone)):
        models["control"] = story.control(gone).model
    return models


def in_lines(numbers: Sequence[int]) -> list[Sequence[int]]:
    """Class numbers in lines of ACROSS."""
    return [numbers[k : k + ACROSS] for k in range(0, len(numbers), ACROSS)]


def checked(models: Mapping[str, CVAE], num_classes: int | None = None) -> dict[str, CVAE]:
    """The named models; ValueError when there is none, or as `check_model` says."""
    if not models:
        raise ValueError("models is empty: give at least one, such as {'before': model}")
    for name, model in models.items():
        check_model(model, f"models[{name!r}]", num_classes)
    return dict(models)


def steps_of(config: Config, name: str) -> tuple[Any, ...]:
    """The values that a slider offers for a field, the present one among them.

    A range within 0 to 1: steps of 0.05.  A wide one: 1, 2 and 5 of every power of ten in the
    field's `span`, after 0 if that is allowed.
    """
    field = _fields(config)[name]
    meta, value = field.metadata, getattr(config, name)
    low, high = meta["span"] or (meta["low"], meta["high"])
    if meta["span"] is None:
        values = {round(low + (high - low) * k / 20, 10) for k in range(21)}
    else:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        grid = (float(f"{m}e{k}") for k in decades for m in (1, 2, 5))
        values = {v for v in grid if low <= v <= high}
        if meta["low"] == 0:
            values.add(0.0)
    kind = int if isinstance(field.default, int) else float
    return tuple(sorted({kind(v) for v in values} | {value}))


def as_code(config: Config) -> str:
    """The call that makes this configuration, with what differs from the defaults."""
    words = (f"{name}={value!r}" for name, value in changed(config).items())
    return f"sa.{type(config).__name__}({', '.join(words)})"


def changed(config: Config) -> dict[str, Any]:
    """The fields that differ from the defaults."""
    return {name: v for name, v in vars(config).items() if v != getattr(type(config)(), name)}


def help_text(config: Config, names: Iterable[str]) -> str:
    """One line of HTML per knob: its name in capitals and its help."""
    helps = {n: html.escape(_fields(config)[n].metadata["help"]) for n in names}
    return "<br>".join(f"<b>{n.upper()}</b> {text}" for n, text in helps.items())


def _fields(config: Config) -> dict[str, Any]:
    return {f.name: f for f in fields(config)}  # type: ignore[arg-type]  # each is a dataclass
