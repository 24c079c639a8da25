"""Checkpoints: made once, loaded afterwards, never half written, never executed.

A checkpoint is a file of tensors, numbers and strings, read with `weights_only=True`.  It carries
a format version, the fingerprint of the configurations it was made with and a checksum.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import torch
from torch import Tensor

from .config import Config, fingerprint
from .data import CHECKOUT

FORMAT = 1


class CheckpointError(ValueError):
    """A checkpoint is damaged, of another format, or of another configuration."""


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


def save(path: Path, state: dict[str, Any], mark: str) -> None:
    """Write a state to path in one step: a reader sees the old file or the new one, never a part.

    mark: fingerprint of what the state was made with.
    """
    content = {"format": FORMAT, "fingerprint": mark, "checksum": _digest(state), "state": state}
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name + ".", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as stream:
            torch.save(content, stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def load(path: Path, mark: str | None = None) -> dict[str, Any]:
    """The state kept at path.

    mark: the fingerprint it must have; None takes any.
    Raises FileNotFoundError, or CheckpointError naming the file and what is wrong with it.
    """
    remedy = "Delete or move the file and run again to make a new one."
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        version, found, checksum = (content[k] for k in ("format", "fingerprint", "checksum"))
        state: dict[str, Any] = content["state"]
        whole = version == FORMAT and _digest(state) == checksum
    except FileNotFoundError:
        raise
    except Exception as error:  # torch raises many types for a file that is no checkpoint
        raise CheckpointError(f"{path} cannot be read as a checkpoint. {remedy}") from error
    if version != FORMAT:
        raise CheckpointError(f"{path} has format {version}, this package reads {FORMAT}. {remedy}")
    if not whole:
        raise CheckpointError(f"{path} is damaged: its checksum does not match. {remedy}")
    if mark is not None and found != mark:
        raise CheckpointError(
            f"{path} was made with another configuration or an older version (fingerprint "
            f"{found}, wanted {mark}). {remedy}"
        )
    return state


def load_or_make(stem: str, configs: tuple[Config, ...], make: Callable[[], S], kind: type[S]) -> S:
    """What is kept under `checkpoint_path(stem, *configs)`, or else make it and keep it.

    make: called without arguments when there is no file.  kind: the class of the result, whose
    `from_state` reads the file.  Made or loaded, the result comes from the file's content.
    Raises CheckpointError when the file is damaged or does not hold a `kind`.
    """
    path, mark = checkpoint_path(stem, *configs), fingerprint(*configs)
    if not path.exists():
        save(path, make().to_state(), mark)
    state = load(path, mark)
    try:
        return kind.from_state(state)
    except (KeyError, TypeError, AttributeError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{path} does not hold a {kind.__name__}: {error}") from error


def _digest(value: Any) -> str:
    """SHA-256 of a nested state: names, types, shapes and bytes."""
    total = hashlib.sha256()

    def add(part: Any) -> None:
        if isinstance(part, Tensor):
            flat = part.detach().cpu().contiguous()
            total.update(f"{flat.dtype}{tuple(flat.shape)}".encode())
            total.update(flat.flatten().view(torch.uint8).numpy().tobytes())
        elif isinstance(part, dict):
            total.update(f"dict{len(part)}".encode())
            for key in sorted(part):
                add(key)
                add(part[key])
        elif isinstance(part, (list, tuple)):
            total.update(f"list{len(part)}".encode())
            for item in part:
                add(item)
        elif part is None or isinstance(part, (bool, int, float, str)):
            total.update(f"{type(part).__name__}:{part!r};".encode())
        else:
            raise TypeError(f"a checkpoint cannot hold {type(part).__name__}")

    add(value)
    return total.hexdigest()
