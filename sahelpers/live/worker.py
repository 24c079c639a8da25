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

from ..checks import check_is
from ..config import Config
from ..models import CVAE, check_model
from ..progress import watched
from ..store.files import whence
from ..story import Classes, Story

ACROSS = 10  # classes side by side at most; others begin another line
STEPS_OF_SLIDER = 20  # over a range from 0 to 1
LOCK = threading.RLock()  # guards every change of a controller and every drawing; held shortly
Job = Callable[[threading.Event], None]


class Worker:
    """Runs jobs for a person who clicks faster than they finish.

    A job is called with an event; once that is set, the job should end soon.  Submitting while one
    runs sets its event and lets the new job wait; of several that wait only the newest is run.

    Args:
        threaded: Run in a thread, which ends with the last job, so that the caller's buttons go on
            working.  Otherwise (in Colab, which shows nothing that a thread sends) a job runs at
            once in the caller's thread; there the kernel's interrupt sets the event.
        on_error: Called with the exception that a job raised.
        on_idle: Called when nothing is left to do.
    """

    def __init__(
        self,
        threaded: bool,
        on_error: Callable[[Exception], None],
        on_idle: Callable[[], None] = lambda: None,
    ) -> None:
        self.threaded = threaded
        self.on_error = on_error
        self.on_idle = on_idle
        self._lock = threading.Lock()
        self._waiting: Job | None = None
        self._stop = threading.Event()
        self._idle = threading.Event()
        self._idle.set()

    @property
    def busy(self) -> bool:
        """Whether a job runs or waits."""
        return not self._idle.is_set()

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

    def go_on(self) -> bool:
        """Let the running job do what follows a Stop, unless a newer one waits.

        Returns:
            False when one waits.  Otherwise the running job's event is cleared, so that what
            follows can be stopped in its turn.
        """
        with self._lock:
            if self._waiting is not None:
                return False
            self._stop.clear()
            return True

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until nothing is left to do.

        Args:
            timeout: Seconds to wait at most; None means as long as it takes.

        Returns:
            False when the time ran out first.
        """
        return self._idle.wait(timeout)

    def _work(self) -> None:
        """Run what waits until nothing does."""
        while True:
            with self._lock:
                job = self._waiting
                self._waiting = None
                stop = threading.Event()
                self._stop = stop
            if job is not None:
                try:
                    job(stop)
                except Exception as error:  # shown to the person, whatever it is
                    self.on_error(error)
                continue
            try:
                self.on_idle()
            except Exception as error:  # else the worker would be busy for ever
                self.on_error(error)
            with self._lock:
                if self._waiting is None:  # nothing came in the meantime
                    self._idle.set()
                    return


class Stopped(Exception):
    """What was being made was stopped; a training goes on from its part file the next time."""


@contextmanager
def stoppable(stop: threading.Event, look: Callable[[float], None]) -> Iterator[None]:
    """Inside, whatever a story has to make can be stopped.

    Args:
        stop: Once it is set, the loop that runs ends at its next step.
        look: Called at every step with the share of the loop that is done, from 0 to 1.

    Raises:
        Stopped: `stop` was set.
    """

    def report(_: str, share: float) -> None:
        if stop.is_set():
            raise Stopped
        look(share)

    with watched(report):
        yield


class Controller:
    """What the controllers of runs share: a configuration that a person changes."""

    config: Any

    def change(self, **values: Any) -> None:
        """Change fields of the configuration.

        Raises:
            ValueError: As the configuration itself says; it then stays as it was.
        """
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
    """The models of a story that need no training now.

    Args:
        story: The story.
        gone: The classes that its models have forgotten or never seen.
        forgotten: A model to show as the one that has forgotten, in place of the story's.

    Returns:
        Name -> model: the baseline; the one that hides the classes, if the networks say where
        their label's weights are; the forgotten and the retrained one, if their files are there and
        up to date.
    """
    check_is(story, Story, "story", ": sa.Story() makes one")
    baseline = story.baseline.model
    models = {"baseline": baseline}
    if baseline.says_label:
        models["hidden"] = story.hidden(gone)
    if forgotten is not None:
        models["forgotten"] = forgotten
    elif whence(story.forgotten_recipe(gone)):
        models["forgotten"] = story.forgotten(gone).model
    if baseline.is_built_in and whence(story.retrained_recipe(gone)):
        models["retrained"] = story.retrained(gone).model
    return models


def in_words(seconds: float) -> str:
    """A time in words, rounded as an estimate is."""
    if seconds < 10:
        return f"{max(1, round(seconds))} s"
    if seconds < 100:
        return f"{10 * round(seconds / 10)} s"
    return f"{round(seconds / 60)} min"


def in_lines(numbers: Sequence[int]) -> list[Sequence[int]]:
    """Class numbers, cut into lines of ACROSS."""
    return [numbers[k : k + ACROSS] for k in range(0, len(numbers), ACROSS)]


def usual_classes(num_classes: int) -> tuple[int, int]:
    """The two classes that a dashboard begins at: 3 and 8, or the last and the first of fewer."""
    return min(3, num_classes - 1), 8 if num_classes > 8 else 0


def check_models(models: Mapping[str, CVAE], num_classes: int | None = None) -> None:
    """Refuse what is not at least one named model of so many classes.

    Args:
        models: Name -> model.
        num_classes: How many classes each must have; any number when left out.

    Raises:
        TypeError: For a thing of another kind.
        ValueError: When there is none, and as `check_model`.
    """
    check_is(models, Mapping, "models", ": give one such as {'before': model}")
    if not models:
        raise ValueError("models is empty: give at least one, such as {'before': model}")
    for name, model in models.items():
        check_model(model, f"models[{name!r}]", num_classes)


def steps_of(config: Config, name: str) -> tuple[Any, ...]:
    """The values that a slider offers for a field, the present one among them.

    A range within 0 to 1 is walked in steps of 0.05; a wide one in 1, 2 and 5 of every power of
    ten within the field's `span`, after 0 if that is allowed.

    Args:
        config: The configuration.
        name: Name of the field.

    Returns:
        The values, sorted.
    """
    field = _fields(config)[name]
    meta = field.metadata
    if meta["span"] is None:
        low, high = meta["low"], meta["high"]
        steps = range(STEPS_OF_SLIDER + 1)
        values = {round(low + (high - low) * k / STEPS_OF_SLIDER, 10) for k in steps}
    else:
        low, high = meta["span"]
        values = {0.0} if meta["low"] == 0 else set()
        for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1):
            for digit in (1, 2, 5):
                value = float(f"{digit}e{power}")
                if low <= value <= high:
                    values.add(value)
    kind = int if isinstance(field.default, int) else float
    offered = {kind(value) for value in values}
    offered.add(getattr(config, name))
    return tuple(sorted(offered))


def as_code(config: Config) -> str:
    """The call that makes this configuration, with what differs from the defaults."""
    words = [f"{name}={value!r}" for name, value in changed(config).items()]
    return f"sa.{type(config).__name__}({', '.join(words)})"


def changed(config: Config) -> dict[str, Any]:
    """The fields that differ from the defaults: name -> value."""
    defaults = vars(type(config)())
    return {name: value for name, value in vars(config).items() if value != defaults[name]}


def help_text(config: Config, names: Iterable[str]) -> str:
    """One line of HTML per knob: its name in capitals and its help."""
    lines = []
    for name in names:
        words = html.escape(_fields(config)[name].metadata["help"])
        lines.append(f"<b>{name.upper()}</b> {words}")
    return "<br>".join(lines)


def _fields(config: Config) -> dict[str, Any]:
    return {f.name: f for f in fields(config)}  # type: ignore[arg-type]  # each is a dataclass
