"""A value as the bytes of one file: written by `torch.save`, read back without running anything.

A value is made of tensors, numbers, strings and None, and lists, tuples and dicts of them.  The
bytes are an ordinary torch archive (a zip with a pickle and raw numbers), which `torch.load` reads
too, and one more line with the format and the SHA-256 of everything before it.  So a flipped bit or
a missing end is seen first.  A checksum keeps out accidents, not strangers: `unpack` therefore lets
the pickle name tensors and their types only, allocates no more than the bytes at hand, and follows
no path in the zip.
"""

import hashlib
import io
import math
import pickle
import pickletools
import re
import zipfile
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from ..checks import IMAGE_SHAPE, Shape

FORMAT = 3
LIMIT = 2**31  # bytes of a file
PICKLE_LIMIT = 2**23  # bytes of its pickle; the tensors lie beside it
BUDGET = 2**20  # parts of a value; a list, tuple, dict or tensor counts as LARGE parts
LARGE = 16  # as its memory is many times that of a number

_END = re.compile(rb"\nsahelpers checkpoint, format (\d{1,9}), sha256 ([0-9a-f]{64})\n\Z")
_TYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_CHEAP = """PROTO MARK STOP GLOBAL BINPUT LONG_BINPUT BINGET LONG_BINGET NONE NEWTRUE NEWFALSE
BININT BININT1 BININT2 BINFLOAT APPEND APPENDS SETITEM SETITEMS"""
_COSTLY = """REDUCE BINPERSID LONG1 BINUNICODE EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST
EMPTY_DICT"""
_COST = dict.fromkeys(_CHEAP.split(), 1) | dict.fromkeys(_COSTLY.split(), LARGE)  # no other opcodes


def pack(value: Any) -> bytes:
    """The bytes of a value.

    Raises TypeError for what a value cannot hold, ValueError for NaN and infinity in a tensor and
    for more than `unpack` would read.
    """
    stream = io.BytesIO()
    torch.save(plain(value), stream)
    with zipfile.ZipFile(stream) as archive:
        _Reader(archive, LIMIT)  # refuses now what could not be read later
    stream.seek(0, io.SEEK_END)
    stream.write(b"\nsahelpers checkpoint, format %d, sha256 " % FORMAT)
    stream.write(hashlib.sha256(stream.getbuffer()).hexdigest().encode() + b"\n")
    if stream.tell() > LIMIT:
        raise ValueError(f"it takes {stream.tell()} bytes, more than {LIMIT}")
    return stream.getvalue()


class OlderFormat(ValueError):
    """A whole file in the format before: it can be made anew."""


def unpack(raw: bytes) -> Any:
    """The value in these bytes, in a few times their number of bytes and 50 million, at most.

    Raises ValueError, saying what is wrong, for bytes that `pack` did not write, OlderFormat for
    those that it wrote a format ago.
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
        with zipfile.ZipFile(io.BytesIO(raw[: end.start()])) as archive:
            return plain(_Reader(archive, len(raw)).load())
    except Exception as error:  # what hostile bytes raise in zipfile, pickle and torch is open
        check_memory(error)
        raise ValueError(f"it holds what no checkpoint holds ({error})") from error


def plain(value: Any) -> Any:
    """A value with its tensors detached, on the CPU and no view of anything larger.

    Raises TypeError and ValueError as `pack` does; a small pickle that refers to itself has no end
    of parts.
    """
    left = BUDGET

    def copy(part: Any) -> Any:
        nonlocal left
        left = _spend(left, LARGE if isinstance(part, (Tensor, dict, list, tuple)) else 1)
        if isinstance(part, Tensor):
            if part.dtype not in _TYPES.values() or part.layout != torch.strided:
                raise TypeError(f"a checkpoint cannot hold a tensor of {part.dtype}")
            part = part.detach().cpu()
            finite = part.sum().isfinite() or part.isfinite().all()  # quick; but a sum can overflow
            if part.is_floating_point() and not finite:
                raise ValueError("a tensor holds NaN or infinity")
            view = part.untyped_storage().nbytes() != part.numel() * part.element_size()
            return part.clone() if view else part
        if isinstance(part, dict):
            if wrong := [key for key in part if type(key) not in (str, int)]:
                raise TypeError(f"a checkpoint cannot hold the key {wrong[0]!r}")
            return {key: copy(item) for key, item in part.items()}
        if isinstance(part, (list, tuple)):
            items = [copy(item) for item in part]
            return tuple(items) if isinstance(part, tuple) else items
        if part is None or type(part) in (bool, int, float, str):
            return part
        raise TypeError(f"a checkpoint cannot hold {type(part).__name__}")

    return copy(value)


def _spend(left: int, cost: int) -> int:
    if left < cost:
        raise ValueError(f"it has more than {BUDGET} parts")
    return left - cost


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


class _Reader(pickle.Unpickler):
    """Unpickles what `torch.save` wrote of a value, and refuses every other pickle."""

    def __init__(self, archive: zipfile.ZipFile, size: int) -> None:
        for member in archive.infolist():
            size -= member.file_size  # overlapping members would add up to more than there is
            stored = member.compress_type == zipfile.ZIP_STORED and size >= 0
            if not stored or not re.fullmatch(r"archive/[\w.]+(/\w+)?", member.filename):
                raise ValueError(f"the member {member.filename[:60]!r} does not belong here")
        self.archive, self.storages = archive, dict[str, Tensor]()
        code, left = archive.read("archive/data.pkl"), BUDGET
        if len(code) > PICKLE_LIMIT:
            raise ValueError(f"its pickle takes {len(code)} bytes, more than {PICKLE_LIMIT}")
        for opcode, argument, _ in pickletools.genops(code):
            far = opcode.name == "LONG_BINPUT" and int(argument or 0) > BUDGET - left
            if far or opcode.name not in _COST:
                raise ValueError(f"the pickle has {opcode.name} {str(argument)[:60]}")
            left = _spend(left, _COST[opcode.name])
        super().__init__(io.BytesIO(code))

    def find_class(self, module: str, name: str) -> Any:
        """The only names that are known, none of them what it says: nothing is imported."""
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if (module, name) == ("collections", "OrderedDict"):
            return lambda: None  # what `torch.save` keeps of a tensor's hooks: none
        if module == "torch" and name in _TYPES:
            return _TYPES[name]
        raise ValueError(f"the pickle names {module}.{name}")

    def persistent_load(self, reference: Any) -> Tensor:
        """The numbers of one tensor, flat."""
        _, dtype, key, _, n = reference
        if key not in self.storages:
            content = bytearray(self.archive.read(f"archive/data/{key}"))
            empty = torch.empty(0, dtype=dtype, device="cpu")  # frombuffer does not take none
            flat = torch.frombuffer(content, dtype=dtype) if content else empty
            self.storages[key] = flat.clone()  # aligned as torch does it
        if self.storages[key].numel() != n or self.storages[key].dtype != dtype:
            raise ValueError(f"tensor {key} is announced with {n} numbers and has others")
        return self.storages[key]


def _tensor(flat: Tensor, offset: int, size: tuple[int, ...], stride: Any, *_: Any) -> Tensor:
    if offset or math.prod(size) != flat.numel():
        raise ValueError(f"a tensor of shape {size} has {flat.numel()} numbers")
    return flat.as_strided(size, stride)


class Saved(nn.Module):
    """A network that a checkpoint holds: what it was built with, and its tensors."""

    built_with: ClassVar[tuple[str, ...]]  # arguments of the constructor, kept as attributes
    image_shape: Shape  # the last of them

    def to_state(self) -> dict[str, Any]:
        """Tensors, numbers and strings only."""
        arguments = {name: getattr(self, name) for name in self.built_with}
        if self.image_shape == IMAGE_SHAPE:
            del arguments["image_shape"]  # as in files from before there was another
        return {**arguments, "tensors": {k: v.detach().cpu() for k, v in self.state_dict().items()}}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """The network of `to_state` with copies of its tensors, float32 or all float64, on the CPU,
        in evaluation mode.

        Raises RuntimeError unless names, shapes and types fit.  What is built has no memory of its
        own: a file may announce any size, and torch's default type does not matter.
        """
        with torch.device("meta"):
            module = cls(*({"image_shape": IMAGE_SHAPE, **state}[name] for name in cls.built_with))
        tensors: dict[str, Tensor] = state["tensors"]
        double = all(v.dtype == torch.float64 for v in tensors.values() if v.is_floating_point())
        for name, built in module.state_dict().items():
            whole = torch.float64 if double else torch.float32
            wanted = whole if built.is_floating_point() else built.dtype
            if name in tensors and tensors[name].dtype != wanted:
                raise RuntimeError(f"{name} is of type {tensors[name].dtype}, not {wanted}")
        copies = {k: v.clone(memory_format=torch.contiguous_format) for k, v in tensors.items()}
        module.load_state_dict(copies, assign=True)
        return module.eval()
