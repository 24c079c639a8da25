"""Checkpoints: made once, loaded afterwards, never half written, never executed.

What a file may hold, and why reading one is harmless, stands in `archive`.  Here: where files lie,
how they are written in one step, and how two processes that want the same one share it.
"""

import glob
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

from filelock import FileLock, Timeout

from .archive import LIMIT, check_memory, pack, same, unpack
from .config import Config, fingerprint
from .data import CHECKOUT
from .progress import progress

REMEDY = "Delete or move the file and run again to make a new one."
ELSEWHERE = "Set SA_CHECKPOINTS to a folder of yours with some space left."


class CheckpointError(ValueError):
    """A checkpoint is damaged, of another format or configuration, or cannot be written."""


class Stateful(Protocol):
    """Anything that turns into a state of tensors, numbers and strings, and back."""

    def to_state(self) -> dict[str, Any]:
        """Tensors, numbers, strings, and lists and dicts of them."""
        ...

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """The inverse of `to_state`."""
        ...


S = TypeVar("S", bound=Stateful)


def checkpoint_path(stem: str, *configs: Config, root: str | Path | None = None) -> Path:
    """Where a result made with these configurations is kept.

    `stem.pt` when every configuration is the default, `stem-<fingerprint>.pt` otherwise, in root,
    else in SA_CHECKPOINTS, else in `checkpoints/` of this checkout.
    """
    folder = Path(root or os.environ.get("SA_CHECKPOINTS") or CHECKOUT / "checkpoints")
    default = all(c == type(c)() for c in configs)
    return folder / (f"{stem}.pt" if default else f"{stem}-{fingerprint(*configs)}.pt")


def part_path(path: Path) -> Path:
    """Where a training that will end in path keeps what it has so far (see `resume`)."""
    return path.with_suffix(".part.pt")


def save(path: Path, state: dict[str, Any], mark: str, *, durable: bool = True) -> None:
    """Write a state to path in one step: a reader sees the old file or the new one, never a part.

    mark: fingerprint of what the state was made with.  durable: wait until it is on the disk, so
    that it outlives a power cut too.
    Raises TypeError for what a checkpoint cannot hold, and CheckpointError naming path for NaN or
    infinity in it and when it cannot be written.  Whatever was at path is then still there.
    """
    raw = _packed(path, state, mark)
    with _locked(path):
        _write(path, raw, durable)


def replace_text(path: Path, text: str) -> None:
    """Write a text file, a table or a report, in one step."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    partial.write_text(text, newline="")
    os.replace(partial, path)


def load(path: Path, mark: str | None = None) -> dict[str, Any]:
    """The state kept at path.

    mark: the fingerprint it must have; None takes any.
    Raises FileNotFoundError, or CheckpointError naming the file and what is wrong with it; another
    OSError when the disk or the permissions fail.
    """
    if os.path.lexists(path) and not path.is_file():  # a folder, a link to nowhere, a pipe
        raise CheckpointError(f"{path} cannot be read as a checkpoint: it is no file. {REMEDY}")
    if path.stat().st_size > LIMIT:
        raise CheckpointError(f"{path} is larger than {LIMIT} bytes. {REMEDY}")
    try:
        content = unpack(path.read_bytes())
        state: dict[str, Any] = content["state"]
        found = content["fingerprint"]
    except (ValueError, TypeError, KeyError) as error:
        message = f"{path} cannot be read as a checkpoint: {error}. {REMEDY}"
        raise CheckpointError(message) from error
    if mark is not None and found != mark:
        raise CheckpointError(
            f"{path} was made with another configuration or an older version (fingerprint "
            f"{found}, wanted {mark}). {REMEDY}"
        )
    return state


def load_or_make(stem: str, configs: tuple[Config, ...], make: Callable[[], S], kind: type[S]) -> S:
    """What is kept under `checkpoint_path(stem, *configs)`, or else make it and keep it.

    make: called without arguments when there is no file; a second process that wants the same
    waits until the first has made it, and loads it.  kind: the class of the result, whose
    `from_state` reads the file.  Made or loaded, the result comes from the file's content.

    Raises CheckpointError when the file is damaged or does not hold a `kind`, and before anything
    is made when nothing can be written.  If writing fails afterwards (a full disk), a warning says
    so and the result is returned all the same: it is what the caller waited for.
    """
    path, mark = checkpoint_path(stem, *configs), fingerprint(*configs)
    if os.path.lexists(path):
        return _restored(path, load(path, mark), kind)
    with _locked(path):
        if os.path.lexists(path):  # made by another process in the meantime
            return _restored(path, load(path, mark), kind)
        raw = _packed(path, make().to_state(), mark)
        result = _restored(path, unpack(raw)["state"], kind)
        try:
            _write(path, raw, durable=True)
            for done in path.parent.glob(glob.escape(part_path(path).name) + "*"):
                done.unlink(missing_ok=True)
        except CheckpointError as error:
            warnings.warn(f"The result is used but not kept: {error}", stacklevel=2)
        return result


def _packed(path: Path, state: dict[str, Any], mark: str) -> bytes:
    try:
        return pack({"fingerprint": mark, "state": state})
    except ValueError as error:
        raise CheckpointError(f"{path} was not written: {error}.") from error


def _restored(path: Path, state: dict[str, Any], kind: type[S]) -> S:
    """The `kind` of this state, if the state is one, with nothing missing, added or converted."""
    try:
        result = kind.from_state(state)
        if not same(result.to_state(), state):
            raise ValueError("some values have another type, or do not belong there")
    except (KeyError, TypeError, AttributeError, RuntimeError, ValueError, IndexError) as error:
        check_memory(error)
        message = f"{path} does not hold a {kind.__name__}: {error}. {REMEDY}"
        raise CheckpointError(message) from error
    return result


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Inside, no other process or thread makes or writes path; waits for its turn.

    The lock ends with its process, however that ends.
    """
    lock = FileLock(f"{path}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            for _ in progress(range(1), f"wait for another process that makes {path.name}"):
                lock.acquire()
    except (OSError, NotImplementedError) as error:
        raise CheckpointError(f"{path.parent} is not writable: {error}. {ELSEWHERE}") from error
    try:
        yield
    finally:
        with suppress(OSError):  # some systems cannot remove an open file
            os.unlink(lock.lock_file)
        lock.release()


def _write(path: Path, raw: bytes, durable: bool) -> None:
    """Replace path by these bytes.  The lock is held: a temporary file that is there is stale."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        for stale in path.parent.glob(glob.escape(path.name) + ".*tmp"):
            stale.unlink(missing_ok=True)
        try:
            with temporary.open("wb") as stream:
                stream.write(raw)
                if durable:
                    stream.flush()
                    os.fsync(stream.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise CheckpointError(f"{path} could not be written: {error}. {ELSEWHERE}") from error
    if durable:
        with suppress(OSError):  # not every system can open a folder
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
