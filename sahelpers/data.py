"""MNIST and its relatives, verified and in memory."""

import gzip
import hashlib
import io
import math
import os
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision.datasets as tvd
from torch import Tensor

from .checks import check_images
from .config import DATASETS, check_classes

CHECKOUT = Path(__file__).resolve().parents[1]
_CLASSES: dict[str, Any] = dict(
    zip(DATASETS, (tvd.MNIST, tvd.FashionMNIST, tvd.KMNIST, tvd.QMNIST), strict=True)
)
_ELEMENT: dict[int, np.dtype[Any]] = {
    8: np.dtype(np.uint8),
    12: np.dtype(">i4"),
}  # the two element types in use
_LIMIT = 2**28  # bytes of a file, packed or unpacked; the largest in use has 47 million
_REMEDY = (
    "Delete it and put a whole copy there, or call load_dataset(..., download=True) after deleting "
    "it"
)


class DataError(ValueError):
    """A data file is missing, damaged or not what its name says."""


@dataclass(frozen=True)
class LabelledImages:
    """Images (N, 1, 28, 28) float32 in [0, 1], labels (N,) int64 and the names of the classes."""

    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...] = tuple("0123456789")

    def __post_init__(self) -> None:
        check_images(self.images)
        if self.labels.shape != self.images.shape[:1] or self.labels.dtype != torch.int64:
            raise ValueError(
                f"labels of shape {tuple(self.labels.shape)} and type {self.labels.dtype} "
                f"must be ({len(self.images)},) int64, one for each image"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def only(self, classes: int | Iterable[int]) -> "LabelledImages":
        """The images of these classes."""
        return self._where(self._members(classes))

    def without(self, classes: int | Iterable[int]) -> "LabelledImages":
        """The images of all other classes; an empty tuple leaves everything in."""
        return self._where(~self._members(classes))

    def take(self, n: int, seed: int = 0) -> "LabelledImages":
        """n images chosen at random without repeats, the same ones for the same seed."""
        if not 1 <= n <= len(self):
            raise ValueError(f"n={n} images asked for: give a number from 1 to {len(self)}")
        return self._where(
            torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))[:n]
        )

    def to(self, device: torch.device | str) -> "LabelledImages":
        """The same on another device."""
        return LabelledImages(self.images.to(device), self.labels.to(device), self.class_names)

    def _members(self, classes: int | Iterable[int]) -> Tensor:
        chosen = check_classes(classes, len(self.class_names), allow_empty=True)
        return torch.isin(
            self.labels, torch.tensor(chosen, dtype=torch.int64, device=self.labels.device)
        )

    def _where(self, index: Tensor) -> "LabelledImages":
        return LabelledImages(self.images[index], self.labels[index], self.class_names)


def data_root(root: str | Path | None = None) -> Path:
    """The folder of the data: the argument, else SA_DATA, else `data/` of this checkout."""
    return Path(root or os.environ.get("SA_DATA") or CHECKOUT / "data")


def load_dataset(
    name: str = "mnist",
    split: str = "train",
    root: str | Path | None = None,
    download: bool = False,
) -> LabelledImages:
    """Read a data set into memory after its files' checksums were verified.

    name: mnist, fashion_mnist, kmnist or qmnist.  split: "train" (60,000) or "test" (10,000 images;
    60,000 for qmnist).  root: folder that holds `MNIST/raw/*.gz` and so on, as torchvision names
    them.  download: let torchvision fetch files that are missing; a file that is there is never
    fetched again.  The checksums are the MD5 sums that torchvision publishes with each file.
    Raises DataError naming the file when one is missing, damaged or inconsistent.
    """
    if name not in _CLASSES:
        raise ValueError(f"name={name!r} is not one of {', '.join(_CLASSES)}")
    if split not in ("train", "test"):
        raise ValueError(f"split={split!r} is not train or test")
    kind, folder = _CLASSES[name], data_root(root) / _CLASSES[name].__name__ / "raw"
    files = _files(name, split)
    if download and not all((folder / file).exists() for file, _ in files):
        extra = {"what": split} if name == "qmnist" else {"train": split == "train"}
        kind(data_root(root), download=True, **extra)
    (image_file, image_md5), (label_file, label_md5) = files
    pixels = _read_idx(folder / image_file, image_md5, ndim=3)
    labels = _read_idx(folder / label_file, label_md5, ndim=2 if name == "qmnist" else 1)
    if pixels.shape != (len(labels), 28, 28) or not labels.size:
        shapes = f"images {pixels.shape} of {image_file} and labels {labels.shape} of {label_file}"
        raise DataError(f"{folder}: {shapes} do not match. {_REMEDY}")
    labels = labels.reshape(len(labels), -1)[:, 0].astype(np.int64)  # QMNIST: class is column 0
    names = class_names(name)
    if not 0 <= labels.min() <= labels.max() < len(names):
        allowed = f"0 to {len(names) - 1}"
        raise DataError(f"{folder / label_file}: a label lies outside {allowed}. {_REMEDY}")
    images = torch.from_numpy(pixels.astype(np.float32) / 255).unsqueeze(1)
    return LabelledImages(images, torch.from_numpy(labels), names)


def class_names(name: str) -> tuple[str, ...]:
    """What the classes of a data set are called; no file is read."""
    names = getattr(_CLASSES[name], "classes", "0123456789")
    return tuple(n.split(" - ")[0] for n in names)  # torchvision says "3 - three" for digits


def _files(name: str, split: str) -> list[tuple[str, str]]:
    """(file name, MD5) of the images and of the labels, from torchvision's own tables."""
    resources = _CLASSES[name].resources
    if name == "qmnist":
        found = resources[split]
    else:
        found = resources[:2] if split == "train" else resources[2:]
    return [(address.rsplit("/", 1)[-1], md5) for address, md5 in found]


def _read_idx(path: Path, md5: str, ndim: int) -> np.ndarray[Any, Any]:
    """One idx file (magic number, sizes, elements), gzipped, as an array."""
    if not os.path.lexists(path):
        raise DataError(
            f"{path} is missing (expected MD5 {md5}). Put it there, point SA_DATA to the folder "
            "that has it, or call load_dataset(..., download=True)"
        )
    if not path.is_file() or path.stat().st_size > _LIMIT:  # a folder, a link to nowhere, a pipe
        raise DataError(f"{path} is no file of at most {_LIMIT} bytes. {_REMEDY}")
    try:
        packed = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error}. Check its permissions and the disk"
        ) from None
    found = hashlib.md5(packed, usedforsecurity=False).hexdigest()
    if found != md5:
        raise DataError(f"{path} is damaged: expected MD5 {md5}, found {found}. {_REMEDY}")
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(packed)) as stream:
            return _parse_idx(stream, ndim)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"{path}: {error}. {_REMEDY}") from error


def _parse_idx(stream: gzip.GzipFile, ndim: int) -> np.ndarray[Any, Any]:
    """The array in an unpacked stream, of which no more is read than its header announces."""
    head = stream.read(4 + 4 * ndim)
    known = len(head) == 4 + 4 * ndim and head[:2] == b"\0\0" and head[2] in _ELEMENT
    if not known or head[3] != ndim:
        raise ValueError(f"not an idx file of {ndim} dimensions (starts {head[:4].hex()})")
    sizes = tuple(int(n) for n in np.frombuffer(head, ">u4")[1:])
    element = _ELEMENT[head[2]]
    expected = math.prod(sizes) * element.itemsize
    if expected > _LIMIT:
        raise ValueError(f"the header announces {expected} bytes, more than {_LIMIT}")
    body = stream.read(expected + 1)
    if len(body) != expected:
        raise ValueError(f"the header announces {expected} bytes, the file holds another number")
    return np.frombuffer(body, element).reshape(sizes)
