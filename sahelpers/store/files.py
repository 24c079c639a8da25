"""Checkpoints: made once, loaded afterwards, never half written, never executed.

What a file may hold, and why reading one is harmless, stands in `archive`.  Here: what a file is
made from and is called, how it is written in one step, and how two processes that want the same one
share it.
"""

import glob
import hashlib
import json
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from ..config import Config, user_folder
from ..progress import progress
from .archive import LIMIT, OlderFormat, check_memory, pack, same, unpack

SHIPPED = user_folder("SA_SHIPPED", "checkpoints/shipped")  # written by `make models` alone
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


@dataclass(frozen=True)
class Recipe:
    """All that the content of a file depends on, and so its name.

    stem: what it is, in the file's name.  version: of the code that makes it.  configs: the knobs.
    data: name -> digest of what came from outside, images or a model that was given.
    parents: name -> digest of what was made before and went into it.
    usual: the data are the default ones; with default configurations the name is `stem.pt` then,
    otherwise it is `stem-<fingerprint of configurations and data>.pt`.
    """

    stem: str
    version: int
    configs: tuple[Config, ...]
    data: Mapping[str, str] = field(default_factory=dict)
    parents: Mapping[str, str] = field(default_factory=dict)
    usual: bool = False

    @property
    def ingredients(self) -> dict[str, Any]:
        """What the file's name stands for."""
        made_with = [[type(c).__name__, asdict(c)] for c in self.configs]  # type: ignore[call-overload]
        return {"stem": self.stem, "configs": made_with, "data": dict(self.data)}

    @property
    def path(self) -> Path:
        """Where the file lies: in SA_CHECKPOINTS, else in `checkpoints/` of this checkout."""
        name = self.stem
        if not (self.usual and all(c == type(c)() for c in self.configs)):
            text = json.dumps(self.ingredients, sort_keys=True)
            name += "-" + hashlib.sha256(text.encode()).hexdigest()[:8]
        return user_folder("SA_CHECKPOINTS", "checkpoints") / f"{name}.pt"

    def outdated(self, found: Mapping[str, Any]) -> str:
        """Why a file with this mark must be made anew, in words; "" when it need not."""
        if found["version"] != self.version:
            return f"by version {found['version']} of its recipe, which is {self.version} now"
        changed = [n for n, d in self.parents.items() if found["parents"].get(n) != d]
        return f"from another {' and '.join(changed)}" if changed else ""

    @property
    def mark(self) -> dict[str, Any]:
        """What the file says of itself."""
        made_by = {"version": self.version, "parents": dict(self.parents)}
        return self.ingredients | made_by | {"torch": str(torch.__version__)}


def digest(value: Any) -> str:
    """SHA-256 of a state: tensors (types, shapes and numbers), numbers, strings, lists, dicts."""
    total = hashlib.sha256()

    def feed(part: Any) -> None:
        if isinstance(part, Tensor):
            total.update(f"{part.dtype} {tuple(part.shape)} ".encode())
            total.update(part.detach().cpu().numpy().tobytes())
        elif isinstance(part, dict):
            for key in sorted(part, key=str):
                total.update(f"{key!r}: ".encode())
                feed(part[key])
        elif isinstance(part, (list, tuple)):
            total.update(f"{len(part)} ".encode())
            for item in part:
                feed(item)
        else:
            total.update(f"{part!r} ".encode())

    feed(value)
    return total.hexdigest()


def part_path(path: Path) -> Path:
    """Where a training that will end in path keeps what it has so far (see `training.Resume`)."""
    return path.with_suffix(".part.pt")


def save(
    path: str | Path, state: dict[str, Any], mark: Mapping[str, Any], *, durable: bool = True
) -> None:
    """Write a state to path in one step: a reader sees the old file or the new one, never a part.

    mark: what the state was made from.  durable: wait until it is on the disk, so that it outlives
    a power cut too.
    Raises TypeError for what a checkpoint cannot hold, and CheckpointError naming path for NaN or
    infinity in it and when it cannot be written.  Whatever was at path is then still there.
    """
    with _locked(path := Path(path)):
        _write(path, _packed(path, state, mark), durable)


def replace_text(path: Path, text: str) -> None:
    """Write a text file, a table or a report, in one step."""
    _replace(path, text.encode("utf-8"), durable=False)


def load(path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The state kept at path, and the mark that says what it was made from.

    Raises FileNotFoundError, or CheckpointError naming the file and what is wrong with it; another
    OSError when the disk or the permissions fail.
    """
    if os.path.lexists(path) and not os.path.isfile(path):  # a folder, a link to nowhere, a pipe
        raise CheckpointError(f"{path} cannot be read as a checkpoint: it is no file. {REMEDY}")
    if os.path.getsize(path) > LIMIT:
        raise CheckpointError(f"{path} is larger than {LIMIT} bytes. {REMEDY}")
    try:
        content = unpack(Path(path).read_bytes())
        state, mark = dict(content["state"]), dict(content["mark"])
    except (ValueError, TypeError, KeyError) as error:
        message = f"{path} cannot be read as a checkpoint: {error}. {REMEDY}"
        raise CheckpointError(message) from error
    return state, mark


def load_or_make(recipe: Recipe, make: Callable[[], S], kind: type[S]) -> S:
    """What is kept under `recipe.path`, or ships under that name, or else make it and keep it.

    make: called without arguments when there is no file; a second process that wants the same
    waits until the first has made it, and loads it.  kind: the class of the result, whose
    `from_state` reads the file.  Made or loaded, the result comes from the file's content.

    A whole file of an older format or recipe, or made from parents that were replaced since, is
    made anew, and a warning says so; so is what ships damaged.  Another one tells of other torch.
    Raises CheckpointError when the file is damaged, was made with another configuration or data or
    does not hold a `kind`, and before anything is made when nothing can be written.  If writing
    fails afterwards (a full disk), a warning says so and the result is returned all the same: it is
    what the caller waited for.
    """
    path = recipe.path
    if os.path.lexists(path):
        if (found := _kept(recipe, path, kind)) is not None:
            _tidy(path)
            return found
    elif (found := _shipped(recipe, kind)) is not None:
        return found
    with _locked(path):
        if os.path.lexists(path):  # made by another process in the meantime, or outdated
            with warnings.catch_warnings(action="ignore"):  # said already
                if (found := _kept(recipe, path, kind)) is not None:
                    return found
        raw = _packed(path, make().to_state(), recipe.mark)
        result = _restored(path, unpack(raw)["state"], kind)
        try:
            _write(path, raw, durable=True)
            for done in _parts(path):
                done.unlink(missing_ok=True)
        except CheckpointError as error:
            warnings.warn(f"The result is used but not kept: {error}", stacklevel=2)
        return result


def _parts(path: Path) -> list[Path]:
    """What is left of the training that ended in path."""
    return list(path.parent.glob(glob.escape(part_path(path).name) + "*"))


def _tidy(path: Path) -> None:
    """Remove what a process left beside path that was killed just after it had written it."""
    lock = FileLock(f"{path}.lock")
    if os.path.exists(lock.lock_file) or _parts(path):
        with suppress(OSError, NotImplementedError, Timeout), lock.acquire(timeout=0):
            for done in (*_parts(path), Path(lock.lock_file)):
                done.unlink(missing_ok=True)


def _kept(recipe: Recipe, path: Path, kind: type[S]) -> S | None:
    """What the file holds, or None if it must be made anew, which a warning says."""
    try:
        state, mark = load(path)
    except CheckpointError as error:
        if isinstance(error.__cause__, OlderFormat):
            return warnings.warn(f"{path.name} is made anew: {error.__cause__}.", stacklevel=3)
        raise
    try:
        other = [name for name, value in recipe.ingredients.items() if mark[name] != value]
        if other == ["configs"] and mark["version"] < recipe.version:
            other = []  # the default knobs were others then
        outdated, release = recipe.outdated(mark), mark["torch"]
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise CheckpointError(f"{path} does not say what it was made from. {REMEDY}") from error
    if other:
        raise CheckpointError(
            f"{path} was made with another configuration or other data than its name says. {REMEDY}"
        )
    if outdated:
        return warnings.warn(f"{path.name} is made anew: it was made {outdated}.", stacklevel=3)
    if release != torch.__version__ and path.parent != SHIPPED:
        warnings.warn(
            f"{path.name} was made with torch {release}, this is {torch.__version__}: made anew it "
            "may differ in the last digits.",
            stacklevel=3,
        )
    return _restored(path, state, kind)


def _shipped(recipe: Recipe, kind: type[S]) -> S | None:
    """What ships under the recipe's name, or None if there is none or it must be made anew.

    The Fisher is no parent here: every machine makes its own, and the last digits differ.
    """
    path = SHIPPED / recipe.path.name
    parents = {name: d for name, d in recipe.parents.items() if name != "Fisher"}
    try:
        return _kept(replace(recipe, parents=parents), path, kind) if path.is_file() else None
    except CheckpointError as error:
        return warnings.warn(f"{path.name} is made anew: {error}", stacklevel=3)


def _packed(path: Path, state: dict[str, Any], mark: Mapping[str, Any]) -> bytes:
    try:
        return pack({"mark": dict(mark), "state": state})
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
    """Waits for its turn: inside, nobody else makes or writes path.  Ends with its process."""
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
    """Replace path by these bytes.  The lock is held: a temporary file there is stale."""
    try:
        for stale in path.parent.glob(glob.escape(path.name) + ".*tmp"):
            stale.unlink(missing_ok=True)
        _replace(path, raw, durable)
    except OSError as error:
        raise CheckpointError(f"{path} could not be written: {error}. {ELSEWHERE}") from error
    if durable:
        with suppress(OSError):  # not every system can open a folder
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


def _replace(path: Path, raw: bytes, durable: bool) -> None:
    """The same, in one step, and nothing is left over if it fails."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(raw)
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
