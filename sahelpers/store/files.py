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
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from ..config import Config, user_folder
from ..progress import progress, report
from .archive import LIMIT, OlderFormat, check_memory, pack, same, unpack

SHIPPED = user_folder("SA_SHIPPED", "checkpoints/shipped")  # written by `make models` alone
REMEDY = "Delete or move the file and run again to make a new one."
ELSEWHERE = "Set SA_CHECKPOINTS to a folder of yours with some space left."
PART_SUFFIX = ".part.pt"  # of the files in which a training keeps what it has so far


class CheckpointError(ValueError):
    """A checkpoint is damaged, of another format or configuration, or cannot be written."""


class Stateful(Protocol):
    """Anything that can be turned into a state, which a file can hold, and back."""

    def to_state(self) -> dict[str, Any]:
        """Describe the object by a state.

        Returns:
            Tensors, numbers, strings and None by name, and lists, tuples and dicts of them.
        """
        ...

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Make the object that a state describes.

        Args:
            state: What `to_state` returned.

        Returns:
            The object.
        """
        ...


S = TypeVar("S", bound=Stateful)


@dataclass(frozen=True)
class Recipe:
    """All that the content of a file depends on.

    The file's name stands for configurations and data.  Version and parents are not in the name:
    they are written inside the file (its mark), so that a file made by older code, or from a parent
    that was replaced since, is found and made anew.

    Attributes:
        stem: What the file holds, in one word, with which its name begins.
        version: Version of the code that makes it.
        configs: The configurations that it is made with.
        data: Name -> digest of what came from outside: images, or a model that was given.
        parents: Name -> digest of what was made here before and went into it.
        usual: Whether the data are the default ones.  With default configurations the name is
            `stem.pt` then; otherwise it is `stem-<8 digits of configurations and data>.pt`.
        former_stem: The stem in an earlier release, if it was another.  A file under that name is
            read where there is none under this one.
    """

    stem: str
    version: int
    configs: tuple[Config, ...]
    data: Mapping[str, str] = field(default_factory=dict)
    parents: Mapping[str, str] = field(default_factory=dict)
    usual: bool = False
    former_stem: str = ""

    @property
    def ingredients(self) -> dict[str, Any]:
        """What the file's name stands for: stem, configurations field by field, and data."""
        configs = []
        for config in self.configs:
            configs.append([type(config).__name__, asdict(config)])  # type: ignore[call-overload]
        return {"stem": self.stem, "configs": configs, "data": dict(self.data)}

    @property
    def path(self) -> Path:
        """Where the file lies: in the folder SA_CHECKPOINTS, else in the clone's `checkpoints/`."""
        if self.usual and all(config == type(config)() for config in self.configs):
            name = self.stem
        else:
            text = json.dumps(self.ingredients, sort_keys=True)
            name = f"{self.stem}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
        return user_folder("SA_CHECKPOINTS", "checkpoints") / f"{name}.pt"

    def outdated(self, found: Mapping[str, Any]) -> str:
        """Tell whether a file must be made anew, and why.

        Args:
            found: The mark of the file.

        Returns:
            How the file was made, to end the sentence "it was made ..."; "" if it is up to date.

        Raises:
            KeyError: The mark says nothing of version or parents.
        """
        if found["version"] != self.version:
            return f"by version {found['version']} of its recipe, which is {self.version} now"
        replaced = []
        for name, parent in self.parents.items():
            if found["parents"].get(name) != parent:
                replaced.append(name)
        if not replaced:
            return ""
        return f"from another {' and '.join(replaced)}"

    @property
    def mark(self) -> dict[str, Any]:
        """What a file made by this recipe says of itself: the recipe, and the release of torch."""
        return {
            **self.ingredients,
            "version": self.version,
            "parents": dict(self.parents),
            "torch": str(torch.__version__),
        }


def digest(value: Any) -> str:
    """Compute a digest of a state, which another state does not have.

    Args:
        value: Tensors (types, shapes and numbers count), numbers, strings, and lists, tuples and
            dicts of them.

    Returns:
        The SHA-256 sum, 64 hexadecimal digits.
    """
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
    """Name the file in which a training keeps what it has so far (see `training.Resume`).

    Args:
        path: The file that the training will end in.

    Returns:
        The part file beside it.
    """
    return path.with_suffix(PART_SUFFIX)


def save(
    path: str | Path, state: dict[str, Any], mark: Mapping[str, Any], *, durable: bool = True
) -> None:
    """Write a state to a file in one step: a reader sees the old file or the new, never a part.

    Args:
        path: The file.  Its folder is made if it is missing.
        state: Tensors, numbers, strings and None, and lists, tuples and dicts of them.
        mark: What the state was made from, as `load` will return it.
        durable: Whether to wait until the file is on the disk, so that it outlives a power cut.

    Raises:
        TypeError: The state holds what a checkpoint cannot hold.
        CheckpointError: A number is NaN or infinite, or the file cannot be written; the message
            names it.  What was in the file before is then still there.
    """
    path = Path(path)
    with _locked(path):
        _write(path, _packed(path, state, mark), durable)


def replace_text(path: Path, text: str) -> None:
    """Write a text file, such as a table or a report, in one step.

    Args:
        path: The file, in a folder that is there.
        text: Its content, which is written in UTF-8.

    Raises:
        OSError: It cannot be written.
    """
    replace_bytes(path, text.encode("utf-8"))


def replace_bytes(path: Path, content: bytes) -> None:
    """Write any file, such as a picture, in one step.

    Args:
        path: The file, in a folder that is there.
        content: Its bytes.

    Raises:
        OSError: It cannot be written.
    """
    _replace(path, content, durable=False)


def load(path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a checkpoint.  Nothing in it is executed.

    Args:
        path: The file, which `save` or `load_or_make` wrote.

    Returns:
        The state, with its tensors on the CPU, and the mark that says what it was made from.

    Raises:
        CheckpointError: The file is damaged, no checkpoint, or of another format; the message names
            it and what is wrong.
        FileNotFoundError: There is no such file.
        OSError: The disk or the permissions fail.
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
    """Load what a recipe describes, or make it and keep it for the next time.

    The file is `recipe.path`; where there is none, one under the former name and one that ships
    with the package are looked for.  If none will do, the result is made and written.  A second
    process that wants the same waits until the first has made it, and loads it.

    An intact file that is out of date, because its format or its recipe is older or a parent was
    replaced since, is made anew with a warning.  A damaged one is not touched: it may be all that
    is left of a long run, so that its owner shall decide.  Only a damaged file among those that
    ship is passed over with a warning.  A warning also tells if another release of torch made the
    file.

    Args:
        recipe: What the result depends on.
        make: A function () -> result, which is called if there is no file that will do.
        kind: The class of the result, whose `from_state` reads the file.

    Returns:
        The result.  Made or loaded, it comes from the file's content, so that both are the same.
        If it was made but cannot be written (a full disk), a warning says so and it is returned all
        the same.

    Raises:
        CheckpointError: The file is damaged, was made with another configuration or other data or
            does not hold a `kind`; or the folder cannot be written to, which is found out before
            anything is made.
    """
    path = recipe.path
    if os.path.lexists(path):
        found = _kept(recipe, path, kind)
        if found is not None:
            _tidy(path)
            return found
    else:
        for look_elsewhere in (_former, _shipped):
            found = look_elsewhere(recipe, kind)
            if found is not None:
                return found
    with _locked(path):
        if os.path.lexists(path):  # made by another process in the meantime, or outdated
            with warnings.catch_warnings(action="ignore"):  # they were shown above
                found = _kept(recipe, path, kind)
            if found is not None:
                return found
        raw = _packed(path, make().to_state(), recipe.mark)
        result = _restored(path, unpack(raw)["state"], kind)
        try:
            _write(path, raw, durable=True)
            for part in _parts(path):
                part.unlink(missing_ok=True)
        except CheckpointError as error:
            warnings.warn(f"The result is used but not kept: {error}", stacklevel=2)
        return result


def whence(recipe: Recipe) -> str:
    """Tell whether `load_or_make` would load and not make, and what.

    Args:
        recipe: What the result depends on.

    Returns:
        "kept" for the file among the checkpoints, a damaged one included, which nobody makes anew;
        "shipped" for one that ships with the package; "" where the result would be made.
    """
    path, where = recipe.path, "kept"
    if not os.path.lexists(path):
        path, where, recipe = SHIPPED / path.name, "shipped", _without_fisher(recipe)
        if not path.is_file():
            return ""
    try:
        stat = os.stat(path)
        mark = _mark(path, stat.st_mtime_ns, stat.st_size)
        return "" if recipe.outdated(mark) else where
    except (CheckpointError, FileNotFoundError, KeyError, TypeError, AttributeError) as error:
        older = isinstance(error.__cause__, OlderFormat)
        return "kept" if where == "kept" and not older else ""


@lru_cache(maxsize=8)
def _mark(path: Path, *_: int) -> dict[str, Any]:
    """The mark of a file; its time and size stand for the content, so that a dashboard, which asks
    at every picture, reads it once."""
    return load(path)[1]


def _parts(path: Path) -> list[Path]:
    """The part file of the training that ended in path, and what lies beside that."""
    return list(path.parent.glob(glob.escape(part_path(path).name) + "*"))


def _tidy(path: Path) -> None:
    """Remove what lies beside path if a process was killed just after it had written path.

    Nothing is removed while another process holds the lock, and no failure is reported: these files
    do no harm.
    """
    lock = FileLock(f"{path}.lock")
    if not os.path.exists(lock.lock_file) and not _parts(path):
        return
    with suppress(OSError, NotImplementedError, Timeout), lock.acquire(timeout=0):
        for left_over in (*_parts(path), Path(lock.lock_file)):
            left_over.unlink(missing_ok=True)


def _kept(recipe: Recipe, path: Path, kind: type[S]) -> S | None:
    """What the file holds, or None if it must be made anew, which a warning says.

    CheckpointError if it is damaged or not what its name says.
    """
    try:
        state, mark = load(path)
    except CheckpointError as error:
        if not isinstance(error.__cause__, OlderFormat):
            raise
        warnings.warn(f"{path.name} is made anew: {error.__cause__}.", stacklevel=3)
        return None
    try:
        differing = [name for name, value in recipe.ingredients.items() if mark[name] != value]
        if differing == ["configs"] and mark["version"] < recipe.version:
            # Under a plain name, without a fingerprint, lie default configurations, and these may
            # have had other values when the recipe was older.  It is outdated, as seen below.
            differing = []
        outdated = recipe.outdated(mark)
        release = mark["torch"]
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise CheckpointError(f"{path} does not say what it was made from. {REMEDY}") from error
    if differing:
        raise CheckpointError(
            f"{path} was made with another configuration or other data than its name says. {REMEDY}"
        )
    if outdated:
        warnings.warn(f"{path.name} is made anew: it was made {outdated}.", stacklevel=3)
        return None
    if release != torch.__version__ and path.parent != SHIPPED:
        warnings.warn(
            f"{path.name} was made with torch {release}, this is {torch.__version__}: made anew it "
            "may differ in the last digits.",
            stacklevel=3,
        )
    return _restored(path, state, kind)


def _former(recipe: Recipe, kind: type[S]) -> S | None:
    """What is kept under the name of an earlier release, or None if there is none."""
    if not recipe.former_stem:
        return None
    former = replace(recipe, stem=recipe.former_stem, former_stem="")
    if not former.path.is_file():
        return None
    return _kept(former, former.path, kind)


def _shipped(recipe: Recipe, kind: type[S]) -> S | None:
    """What ships under the recipe's name, or None if there is none or it must be made anew."""
    path = SHIPPED / recipe.path.name
    if not path.is_file():
        return None
    try:
        return _kept(_without_fisher(recipe), path, kind)
    except CheckpointError as error:
        warnings.warn(f"{path.name} is made anew: {error}", stacklevel=3)
        return None


def _without_fisher(recipe: Recipe) -> Recipe:
    """The recipe of a file that ships, of which the Fisher is no parent: every machine makes its
    own, and the last digits differ."""
    parents = {name: digest for name, digest in recipe.parents.items() if name != "Fisher"}
    return replace(recipe, parents=parents)


def _packed(path: Path, state: dict[str, Any], mark: Mapping[str, Any]) -> bytes:
    """The bytes of a file with this state and mark; CheckpointError naming path for NaN in it."""
    try:
        return pack({"mark": dict(mark), "state": state})
    except ValueError as error:
        raise CheckpointError(f"{path} was not written: {error}.") from error


def _restored(path: Path, state: dict[str, Any], kind: type[S]) -> S:
    """Make the object that a state describes; CheckpointError naming path if it describes none.

    What is made must have this very state again, so that nothing was missing, added or converted.
    A class whose states said the same in other words in an earlier release has a method
    `with_todays_words` that translates them.
    """
    try:
        translate = getattr(kind, "with_todays_words", dict)  # dict only copies
        state = translate(state)
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
    """A context in which no other process makes or writes path; who comes second waits.

    The operating system opens the lock of a process that was killed.
    """
    lock = FileLock(f"{path}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            what = f"wait for another process that makes {path.name}"
            for _ in progress(range(1), what):
                while not lock.is_locked:
                    report(what, 0.0)  # whoever watches may end the waiting
                    with suppress(Timeout):
                        lock.acquire(timeout=0.5)
    except (OSError, NotImplementedError) as error:
        raise CheckpointError(f"{path.parent} is not writable: {error}. {ELSEWHERE}") from error
    try:
        yield
    finally:
        with suppress(OSError):  # some systems cannot remove an open file
            os.unlink(lock.lock_file)
        lock.release()


def _write(path: Path, raw: bytes, durable: bool) -> None:
    """Replace the file's content, and remove what an interrupted writing left.

    The lock is held, so that a temporary file that is there has no writer any more.
    """
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
    """Replace the file's content in one step; if that fails, nothing is left over."""
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
