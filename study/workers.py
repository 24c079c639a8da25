"""Where independent pieces of work are done: here, in processes of this machine, or on a cluster.

Each piece runs on one thread of torch's, so that as many can run as there are cores, their times
compare, and every backend gives the same bits.  On this machine a piece whose process dies ends the
command; the journal has what was done before, and the same command goes on from it.  On a cluster
Dask gives the piece to another worker.
"""

import argparse
import hashlib
import math
import os
import platform
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

import torch

import sahelpers
from sahelpers.checks import check_whole

from . import journal

T = TypeVar("T")
R = TypeVar("R")

BACKENDS = ("sequential", "loky", "dask")
_TURN = threading.Lock()  # a Dask worker may have several threads; torch's settings are global


def do_all(
    work: Callable[[T], R],
    items: Sequence[T],
    backend: str = "sequential",
    jobs: int = 1,
    scheduler: str | None = None,
) -> Iterator[tuple[T, R | BaseException]]:
    """Do the work for every item, and yield (item, result) as they get done.

    Args:
        work: A function of an importable module.
        items: Anything that pickles.
        backend: "sequential" in this process; "loky" in processes of this machine; "dask" on the
            workers of a cluster.
        jobs: Processes of "loky".
        scheduler: Address of Dask's scheduler, such as "tcp://10.0.0.1:8786".

    Yields:
        Each item with its result, or with the exception that the work raised.

    Raises:
        ValueError: For a backend, jobs or scheduler that do not go together.
        RuntimeError: Naming each worker of the cluster, and its scheduler, that does not have the
            code of this process; or a process that began later and found other code.
        ImportError: With the line to type where joblib or distributed is missing.
    """
    check_backend(backend, jobs, scheduler)
    try:
        from joblib import Parallel, delayed, parallel_config
    except ImportError:
        raise ImportError('the study needs joblib: pip install -e ".[study]"') from None
    code = code_digest()
    calls = (delayed(_numbered)(k, work, item, code) for k, item in enumerate(items))
    with ExitStack() as stack:
        if backend == "dask":
            stack.enter_context(_cluster(scheduler))
            settings: dict[str, Any] = {"backend": "dask", "n_jobs": -1}
        elif backend == "loky":
            settings = {"backend": "loky", "n_jobs": jobs, "inner_max_num_threads": 1}
        else:
            settings = {"backend": "sequential", "n_jobs": 1}
        stack.enter_context(parallel_config(**settings))
        parallel = Parallel(return_as="generator_unordered", batch_size=1, pre_dispatch="n_jobs")
        for k, result in parallel(calls):
            yield items[k], result


def measure_missing(
    work: Callable[[Any], dict[str, Any]], models: Sequence[Any], path: Path, jobs: int
) -> None:
    """Do the work for every model that the journal lacks, in processes here; a line of it each.

    Prints a line for each model, with the error where its work failed; the next command tries it
    again.

    Raises:
        BaseException: The first that a model's work raised, at the end; the others are done before.
    """
    done = journal.of_models(path, models)
    missing = [model for model in models if model not in done]
    failed = list[BaseException]()
    for model, found in do_all(partial(timed, work), missing, "loky", jobs):
        if isinstance(found, BaseException):
            failed.append(found)
            found = {"error": say(found)}
        journal.append(path, {**model.key, **found})
        print(*model, found.get("error", ""), flush=True)
    if failed:
        raise failed[0]


def timed(
    work: Callable[[T], dict[str, Any]], item: T, device: str = "cpu", or_nan: bool = False
) -> dict[str, Any]:
    """What the work found, and what a reader of the journal needs to judge its time.

    Args:
        work: It returns a dictionary with an entry `values`.
        item: What it is done for.
        device: Where models live.
        or_nan: Whether a number may be nan, which says that there is none to measure.

    Raises:
        ValueError: Naming a number of the values that is not finite: no table could show it.
    """
    begin = time.perf_counter()
    found = work(item)
    for name, value in found["values"].items():
        for number in value if isinstance(value, list) else [value]:
            is_nan = number != number
            if number in (math.inf, -math.inf) or (is_nan and not or_nan):
                raise ValueError(
                    f"{name!r} has {number}, where finite numbers are allowed: this run counts as "
                    "failed; do it again, and if it fails again look at what the model computes"
                )
    return {
        **found,
        "cell_seconds": time.perf_counter() - begin,
        "version": f"{sahelpers.__version__} (torch {torch.__version__})",
        "machine": about(device),
    }


def positive(text: str) -> int:
    """A whole number from 1 on, of a command line."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of a command that measures models and writes a page about them."""
    parser.add_argument("--jobs", type=positive, default=2, help="processes")
    parser.add_argument("--tables", action="store_true", help="write what is there, measure none")


def measure_and_write(
    options: argparse.Namespace,
    work: Callable[[Any], dict[str, Any]],
    models: Sequence[Any],
    path: Path,
    write: Callable[[], None],
) -> None:
    """Measure what the journal lacks, unless `--tables` is there, and write what is known by then.

    Raises:
        BaseException: The first error, at the end; the other models are measured before.
    """
    try:
        if not options.tables:
            measure_missing(work, models, path, options.jobs)
    finally:
        write()


def check_backend(backend: str, jobs: int, scheduler: str | None) -> None:
    """ValueError for a backend, jobs or scheduler that do not go together."""
    if backend not in BACKENDS:
        raise ValueError(f"backend={backend!r} is not one of {', '.join(BACKENDS)}")
    check_whole(jobs, "jobs")
    if (scheduler is None) == (backend == "dask"):
        raise ValueError(
            f"backend={backend!r} with scheduler={scheduler!r}: 'dask', and only 'dask', needs the "
            "address of a scheduler, which `dask scheduler` prints"
        )


@cache
def code_digest() -> str:
    """Twelve hexadecimal digits of the sources of `sahelpers` and `study`."""
    found = hashlib.sha256()
    for folder in (Path(sahelpers.__file__).parent, Path(__file__).parent):
        for path in sorted(folder.rglob("*.py")):
            found.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return found.hexdigest()[:12]


def _cluster(scheduler: str | None) -> Any:
    """A client of the cluster, whose scheduler and workers all have the code of this process."""
    try:
        from distributed import Client
    except ImportError:
        raise ImportError('backend="dask" needs the extra: pip install -e ".[cluster]"') from None
    client = Client(scheduler)
    found = client.run(code_digest, on_error="return")  # one without the function has other code
    try:
        found["the scheduler"] = client.run_on_scheduler(code_digest)
    except Exception as error:
        found["the scheduler"] = error
    if other := [name for name, digest in found.items() if digest != code_digest()]:
        client.close()
        raise RuntimeError(
            f"{', '.join(sorted(other))} of the cluster: not the code of this process; bring the "
            "clones to the same commit and start them again"
        )
    return client


def _numbered(k: int, work: Callable[[T], R], item: T, code: str) -> tuple[int, R | BaseException]:
    """The number of an item, for one that was pickled may not equal its original, and its result
    on one thread.

    Raises:
        RuntimeError: This process has not the code of the command, whose digest is `code`.
    """
    if code_digest() != code:  # its keys would name another code than what computes
        raise RuntimeError(
            f"process {os.getpid()} of {platform.node()} began with other code than the command: "
            "leave the files of sahelpers and study alone while it runs, and start it again"
        )
    with _TURN:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return k, work(item)
        except Exception as error:
            return k, error
        finally:
            torch.set_num_threads(threads)


def say(error: BaseException) -> str:
    """An exception in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def about(device: str = "cpu") -> str:
    """The kind of machine, or of the accelerator that computes: what a reader needs to judge a
    time."""
    if device != "cpu":
        name = torch.cuda.get_device_name() if device == "cuda" else "Apple GPU"
        return f"{name}, {device.upper()}"
    file = Path("/proc/cpuinfo")
    match = re.search(r"model name\s*: (.+)", file.read_text()) if file.exists() else None
    return f"{match[1] if match else platform.machine()}, {os.cpu_count()} cores"


def on_processor(machine: str | None) -> bool:
    """Whether a time of this machine, as `about` names it, is a processor's."""
    return not (machine or "").endswith((", CUDA", ", MPS"))
