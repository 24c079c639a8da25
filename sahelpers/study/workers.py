"""Where independent pieces of work are done: here, in processes of this machine, or on a cluster.

Each piece runs on one thread of torch's, so that as many can run as there are cores, their times
compare, and every backend gives the same bits.  Processes are spawned (loky), never forked: a fork
of a process in which torch's threads have run may hang, and a dead member ends a plain pool.
"""

import os
import platform
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, TypeVar

import torch
from joblib import Parallel, delayed, parallel_config

T = TypeVar("T")
R = TypeVar("R")
Results = Iterator[tuple[T, R | BaseException]]

BACKENDS = ("sequential", "loky", "dask")
DEATHS = 2  # so often may the worker of an item die before the item is given up
_TURN = threading.Lock()  # a Dask worker may have several threads; torch's settings are global


def each(
    work: Callable[[T], R],
    items: Sequence[T],
    backend: str = "sequential",
    jobs: int = 1,
    scheduler: str | None = None,
) -> Results[T, R]:
    """(item, work(item)) for every item, as they get done; an exception stands for a result.

    work: a function of an importable module.  items: anything that pickles.
    backend: "sequential" in this process; "loky" in `jobs` processes (joblib); "dask" on the
    cluster whose scheduler has this address, such as "tcp://10.0.0.1:8786".
    An item whose worker died is done again elsewhere, once (by Dask's own setting: three times).
    Raises ValueError, at the call, as `check_backend`.
    """
    check_backend(backend, jobs, scheduler)
    if backend == "loky":
        return _on_processes(work, items, jobs)
    if backend == "dask":
        return _on_dask(work, items, scheduler)
    return ((item, _alone(work, item)) for item in items)


def check_backend(backend: str, jobs: int, scheduler: str | None) -> None:
    """ValueError for a backend, jobs or scheduler that do not go together."""
    if backend not in BACKENDS:
        raise ValueError(f"backend={backend!r} is not one of {', '.join(BACKENDS)}")
    if jobs < 1:
        raise ValueError(f"jobs={jobs} processes: give 1 or more")
    if (scheduler is None) == (backend == "dask"):
        raise ValueError(
            f"backend={backend!r} with scheduler={scheduler!r}: 'dask', and only 'dask', needs the "
            "address of a scheduler, which `dask scheduler` prints"
        )


def _alone(work: Callable[[T], R], item: T) -> R | BaseException:
    with _TURN:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return work(item)
        except Exception as error:
            return error
        finally:
            torch.set_num_threads(threads)


def _numbered(k: int, work: Callable[[T], R], item: T) -> tuple[int, R | BaseException]:
    """An item that was pickled may not equal its original; its number does."""
    return k, _alone(work, item)


def _on_processes(work: Callable[[T], R], items: Sequence[T], jobs: int) -> Results[T, R]:
    """A pool ends when one of its processes dies; what was in flight begins again in a new one."""
    waiting, deaths = dict(enumerate(items)), Counter[int]()

    def calls(started: list[int]) -> Iterator[Any]:
        for k, item in list(waiting.items()):
            started.append(k)
            yield delayed(_numbered)(k, work, item)

    # nothing is dispatched ahead, so what has started and not ended is in flight
    ahead = {"pre_dispatch": "n_jobs", "batch_size": 1}
    while waiting:
        started: list[int] = []
        try:
            with parallel_config("loky", inner_max_num_threads=1):
                pool = Parallel(jobs, return_as="generator_unordered", **ahead)
                done = pool(calls(started))
            for k, result in done:
                yield waiting.pop(k), result
        except BrokenProcessPool as error:
            for k in [k for k in started if k in waiting]:
                deaths[k] += 1
                if deaths[k] == DEATHS:
                    yield waiting.pop(k), error


def _on_dask(work: Callable[[T], R], items: Sequence[T], scheduler: str | None) -> Results[T, R]:
    """Dask gives what a dead worker had to another, and names the item that killed too many."""
    try:
        from distributed import Client, as_completed
    except ImportError:
        raise ImportError('backend="dask" needs the extra: pip install -e ".[cluster]"') from None
    with Client(scheduler) as client:
        waiting = {client.submit(_alone, work, item, pure=False): item for item in items}
        for future in as_completed(waiting):
            item, error = waiting.pop(future), future.exception()
            yield item, error or future.result()


def say(error: BaseException) -> str:
    """An exception in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def about() -> str:
    """The kind of machine: what a reader needs to judge a time."""
    file = Path("/proc/cpuinfo")
    match = re.search(r"model name\s*: (.+)", file.read_text()) if file.exists() else None
    return f"{match[1] if match else platform.machine()}, {os.cpu_count()} cores"
