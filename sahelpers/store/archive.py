"""A value as the bytes of one file: written by `torch.save`, read back by `torch.load`.

A value is made of tensors, numbers, strings and None, and of lists, tuples and dicts of them.  The
bytes are an ordinary torch archive: a zip that holds a pickle and, beside it, the raw numbers of
every tensor.  One more line follows, with the format and the SHA-256 of everything before it, so
that a flipped bit or a missing end is noticed.  `torch.load(path, weights_only=True)` opens the
file as it is.

The checksum keeps out accidents, not strangers, who can compute one too.  That nothing in a
stranger's file is executed is torch's promise (`weights_only=True`).  That a small file takes no
large memory is not, so `read_archive` looks at the file before torch does.  SECURITY.md says what
all this promises to a user.
"""

import hashlib
import io
import os
import pickletools
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from ..checks import IMAGE_SHAPE, Shape

FORMAT = 3
LIMIT = 2**31  # bytes of a file
PICKLE_LIMIT = 2**23  # bytes of its pickle; the numbers of the tensors lie beside it
PICKLE_PARTS = 2**18  # instructions of its pickle, floats not counted
BUDGET = 2**20  # parts of a value; a list, tuple, dict or tensor counts as LARGE parts
LARGE = 16  # as its memory is many times that of a number

_END = re.compile(rb"\nsahelpers checkpoint, format (\d{1,9}), sha256 ([0-9a-f]{64})\n\Z")
_MEMBER = re.compile(r"[^/\\]+/(data\.pkl|version|byteorder|\.\w+|\.?data/\w+)", re.ASCII)
_TYPES = {
    "Float": torch.float32,
    "Double": torch.float64,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Byte": torch.uint8,
    "Bool": torch.bool,
}
_NAMES = {
    *(f"torch {kind}Storage" for kind in _TYPES),
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    "collections OrderedDict",
}


class OlderFormat(ValueError):
    """A whole file in the format before this one: what it holds can be made anew."""


def pack(value: Any) -> bytes:
    """Turn a value into the bytes of a file.

    Args:
        value: Tensors, numbers, strings and None, and lists, tuples and dicts of them.

    Returns:
        The bytes, which `unpack` reads.  Equal values have equal bytes.

    Raises:
        TypeError: If the value holds something else.
        ValueError: If a tensor holds NaN or infinity, or the value has more parts than `unpack`
            would read.
    """
    stream = io.BytesIO()
    torch.save(plain(value), stream)
    with zipfile.ZipFile(stream) as archive:
        _check_archive(archive, LIMIT)  # what could not be read later is refused now
    stream.seek(0, io.SEEK_END)
    stream.write(b"\nsahelpers checkpoint, format %d, sha256 " % FORMAT)
    stream.write(hashlib.sha256(stream.getbuffer()).hexdigest().encode() + b"\n")
    if stream.tell() > LIMIT:
        raise ValueError(f"it takes {stream.tell()} bytes, more than {LIMIT}")
    return stream.getvalue()


def unpack(raw: bytes) -> Any:
    """Turn the bytes that `pack` wrote back into the value.

    Args:
        raw: The whole content of a file.

    Returns:
        The value, with its tensors on the CPU.

    Raises:
        OlderFormat: If the bytes were written in the format before this one.
        ValueError: If `pack` did not write these bytes.  The message says what is wrong.
    """
    end = _END.search(raw, max(0, len(raw) - 200))
    if end is None:
        raise ValueError("it is cut off, of a format before 2, or no checkpoint of this package")
    if hashlib.sha256(memoryview(raw)[: end.start(2)]).hexdigest().encode() != end[2]:
        raise ValueError("it is damaged: its checksum does not match")
    if int(end[1]) != FORMAT:
        kind = OlderFormat if int(end[1]) == FORMAT - 1 else ValueError
        raise kind(f"it has format {int(end[1])}, this package reads {FORMAT}")
    try:
        return plain(read_archive(raw), allow_views=False)
    except Exception as error:  # what becomes of a hostile value is open
        check_memory(error)
        raise ValueError(f"it holds what no checkpoint holds ({error})") from error


def read_weights(path: str | Path) -> Any:
    """Read a file that somebody else's `torch.save` wrote, such as a state dict.

    Args:
        path: The file.  Nothing in it is executed.

    Returns:
        What was saved, with its tensors on the CPU.  It need not be a state dict.

    Raises:
        OSError: If the file is missing or cannot be read.
        ValueError: If the file is something else, or holds more than tensors and plain values.
            The message says which.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise ValueError("it is a folder or a device, not a file")
    if os.path.getsize(path) > LIMIT:
        raise ValueError(f"it is larger than {LIMIT} bytes")
    raw = Path(path).read_bytes()
    if not raw.startswith(b"PK"):
        raise ValueError(_describe(raw))
    return read_archive(raw)


def _describe(raw: bytes) -> str:
    """Say in one sentence what these bytes are, if they are no archive at all."""
    beginning = raw[:2000].lower()
    if not raw:
        return "it is empty"
    if b"<!doctype html" in beginning or b"<html" in beginning:
        return "it is a web page (HTML): open its address in a browser and download the file itself"
    if raw.startswith(b"\x80"):
        return (
            "it is a bare pickle, which could run code and is not read: ask for a file that "
            "torch.save(model.state_dict(), path) wrote with torch 1.6 or newer"
        )
    if not re.search(rb"[\0-\x08\x0e-\x1f]", beginning):
        return f"it is a text file, which begins with {raw[:40].decode(errors='replace')!r}"
    return "it is not an archive that torch.save wrote"


def read_archive(raw: bytes) -> Any:
    """Read an archive of `torch.save`, in no more memory than some times its size.

    `torch.load(weights_only=True)` executes nothing, but alone it inflates a file of 195 kB to
    200 MB, and makes a view of 10^9 numbers of a file of 1.6 kB.  So the zip and its pickle are
    checked first.  Torch then reads a zip that was written anew from the checked members: two
    programs can see two different archives in the same bytes, and only one of them was checked.

    Args:
        raw: The archive; bytes behind it are ignored.

    Returns:
        What was saved, with its tensors on the CPU.

    Raises:
        ValueError: If it is no such archive, or breaks one of the rules.
    """
    try:
        copy = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(raw)) as archive, zipfile.ZipFile(copy, "w") as checked:
            for name, member in _check_archive(archive, len(raw)).items():
                checked.writestr(zipfile.ZipInfo(f"archive/{name}"), archive.read(member))
        copy.seek(0)
        value = torch.load(copy, map_location="cpu", weights_only=True, mmap=False)
    except ValueError:
        raise
    except Exception as error:  # what hostile bytes raise in zipfile and torch is open
        check_memory(error)
        # Without the error's own words: torch's advise to load the file unsafely.
        kind = type(error).__name__
        message = f"it is damaged, or no archive that torch.save wrote ({kind})"
        raise ValueError(message) from None
    # A view with strides of 0 shows any number of numbers and takes no memory until it is copied,
    # so that it is early enough to refuse it here.
    for tensor in _tensors(value):
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            shape = tuple(tensor.shape)
            raise ValueError(f"a tensor of shape {shape} has more numbers than were stored")
    return value


def _check_archive(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """Return the members of an archive by name, without the folder, if torch may read them.

    A compressed member can be larger than the file, and members that overlap are so together.

    Args:
        archive: The archive, open for reading.
        size: The size of the file, in bytes.
    """
    members: dict[str, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        match = _MEMBER.fullmatch(member.filename)
        if match is None or match[1] in members:
            raise ValueError(f"its member {member.filename[:60]!r} does not belong there")
        if member.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"its member {member.filename[:60]!r} is compressed")
        members[match[1]] = member
    if sum(member.file_size for member in members.values()) > size:
        raise ValueError("its members are larger than the file")
    if "data.pkl" not in members:
        raise ValueError("it has no member 'data.pkl'")
    if members["data.pkl"].file_size > PICKLE_LIMIT:
        raise ValueError(f"its pickle takes more than {PICKLE_LIMIT} bytes")
    _check_pickle(archive.read(members["data.pkl"]))
    return members


def _check_pickle(code: bytes) -> None:
    """Refuse a pickle that asks for more than tensors, or for more memory than its size suggests.

    A pickle is a list of instructions.  One of a few bytes can take a hundred times as much memory,
    so that their number is limited.  A float takes four times its nine bytes and is not counted:
    curves are long lists of them.  The names say what is made of the parts.  Torch allows some more
    than these, for instance `bytearray`, which takes any amount of memory.
    """
    parts = 0
    for opcode, argument, _ in pickletools.genops(code):
        if opcode.name != "BINFLOAT":
            parts += 1
        if parts > PICKLE_PARTS:
            raise ValueError(f"its pickle has more than {PICKLE_PARTS} parts")
        if opcode.name == "GLOBAL" and argument not in _NAMES:
            named = str(argument)[:60].replace(" ", ".")
            raise ValueError(
                f"it names {named}, and only tensors and plain values are read: of a model, save "
                "the state_dict"
            )


def _tensors(value: Any) -> Iterator[Tensor]:
    """Every tensor in a value, each once, also where the value refers to itself."""
    todo, seen = [value], set[int]()
    while todo:
        part = todo.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, Tensor):
            yield part
        elif isinstance(part, dict):
            todo += dict.values(part)
        elif isinstance(part, (list, tuple)):
            todo += part


def plain(value: Any, *, allow_views: bool = True) -> Any:
    """Copy a value's lists, tuples and dicts, and detach its tensors and move them to the CPU.

    Args:
        value: What `pack` takes.
        allow_views: Whether a tensor may show another number of numbers than its memory holds.
            It is copied then, so that what is written is what it shows.

    Returns:
        The value; its tensors share their memory with the given ones where they were on the CPU.

    Raises:
        TypeError: If the value holds something that a checkpoint cannot hold.
        ValueError: If a tensor holds NaN or infinity, or there are too many parts.  A value that
            refers to itself has no end of them.
    """
    left = BUDGET

    def copy(part: Any) -> Any:
        nonlocal left
        left -= LARGE if isinstance(part, (Tensor, dict, list, tuple)) else 1
        if left < 0:
            raise ValueError(f"it has more than {BUDGET} parts")
        if isinstance(part, Tensor):
            return _plain_tensor(part, allow_views)
        if isinstance(part, dict):
            for key in part:
                if type(key) not in (str, int):
                    raise TypeError(f"a checkpoint cannot hold the key {key!r}")
            return {key: copy(item) for key, item in part.items()}
        if isinstance(part, tuple):
            return tuple(copy(item) for item in part)
        if isinstance(part, list):
            return [copy(item) for item in part]
        if part is None or type(part) in (bool, int, float, str):
            return part
        raise TypeError(f"a checkpoint cannot hold {type(part).__name__}")

    return copy(value)


def _plain_tensor(tensor: Tensor, allow_views: bool) -> Tensor:
    """One tensor as `plain` leaves it."""
    if tensor.dtype not in _TYPES.values() or tensor.layout != torch.strided:
        raise TypeError(f"a checkpoint cannot hold a tensor of {tensor.dtype}")
    tensor = tensor.detach().cpu()
    if tensor.is_floating_point():
        # The sum is quick, but that of finite numbers can overflow.
        finite = tensor.sum().isfinite() or tensor.isfinite().all()
        if not finite:
            raise ValueError("a tensor holds NaN or infinity")
    if tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size():
        return tensor
    if not allow_views:
        raise ValueError("a tensor shows a part of what is stored for it")
    return tensor.clone()


def check_memory(error: Exception) -> None:
    """Raise MemoryError if that was it, in torch's words or in Python's."""
    if isinstance(error, MemoryError) or "allocate memory" in str(error):
        raise MemoryError(str(error)) from error


def same(a: Any, b: Any) -> bool:
    """Whether two values are equal to the last bit, types included."""
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and a.dtype == b.dtype and torch.equal(a.cpu(), b.cpu())
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b or a != a)  # a NaN in a curve equals itself


class Saved(nn.Module):
    """A network that a checkpoint holds: what it was built with, and its tensors."""

    built_with: ClassVar[tuple[str, ...]]  # arguments of the constructor, kept as attributes
    image_shape: Shape  # the last of them

    def to_state(self) -> dict[str, Any]:
        """Describe the network by tensors, numbers and strings only.

        Returns:
            The arguments of the constructor by name, and under "tensors" all weights and buffers,
            on the CPU.  They share their memory with the network where it is there too.
        """
        arguments = {name: getattr(self, name) for name in self.built_with}
        if self.image_shape == IMAGE_SHAPE:
            del arguments["image_shape"]  # as in files from before there was another
        tensors = {name: value.detach().cpu() for name, value in self.state_dict().items()}
        return {**arguments, "tensors": tensors}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Build the network that `to_state` described.

        What is built has no memory of its own until names, shapes and types were compared: a file
        may announce any size.  Torch's default type does not matter either.

        Args:
            state: What `to_state` returned.

        Returns:
            The network with copies of these tensors, in float32 or all in float64, on the CPU, in
            evaluation mode.

        Raises:
            RuntimeError: If names, shapes or types do not fit.
            ValueError: If the state is another one, or that of networks of your own, which only
                you can build: give your tensors to their `load_state_dict`.
        """
        if missing := [name for name in (*cls.built_with[:-1], "tensors") if name not in state]:
            raise ValueError(
                f"state has no {', '.join(missing)}: give what to_state() of a {cls.__name__} "
                "returned; weights alone go to load_state_dict of a new one"
            )
        with torch.device("meta"):
            module = cls(*({"image_shape": IMAGE_SHAPE, **state}[name] for name in cls.built_with))
        tensors: dict[str, Tensor] = state["tensors"]
        double = all(v.dtype == torch.float64 for v in tensors.values() if v.is_floating_point())
        for name, built in module.state_dict().items():
            whole = torch.float64 if double else torch.float32
            wanted = whole if built.is_floating_point() else built.dtype
            if name in tensors and tensors[name].dtype != wanted:
                raise RuntimeError(f"{name} is of type {tensors[name].dtype}, not {wanted}")
        module.load_state_dict(tensors, assign=True)  # raises unless names and shapes fit
        copies = {
            name: value.clone(memory_format=torch.contiguous_format)
            for name, value in tensors.items()
        }
        module.load_state_dict(copies, assign=True)
        return module.eval()
