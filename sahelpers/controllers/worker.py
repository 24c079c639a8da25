"""Long work behind a dashboard: one job at a time, the newest wins, and it can be stopped."""

import ctypes
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..checks import check_callable

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
        check_callable(on_error, "on_error", "(exception) -> None")
        check_callable(on_idle, "on_idle", "() -> None")
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
        check_callable(job, "job", "(stop: threading.Event) -> None")
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

    def _next(self) -> tuple[Job, threading.Event] | None:
        with self._lock:
            job, self._waiting = self._waiting, None
            if job is None:
                return None
            self._stop = threading.Event()
            return job, self._stop

    def _work(self) -> None:
        while True:
            while (found := self._next()) is not None:
                job, stop = found
                try:
                    job(stop)
                except Exception as error:  # shown to the person, whatever it is
                    self.on_error(error)
            self.on_idle()
            with self._lock:
                if self._waiting is None:  # nothing came in the meantime
                    self._idle.set()
                    return


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
