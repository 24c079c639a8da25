"""MNIST and its relatives, verified and in memory."""

import gzip
import hashlib
import io
import os
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import PIL.Image
import torch
import torchvision.datasets as tvd
from torch import Tensor

from .checks import IMAGE_SHAPE, Shape, check_images, check_number, check_shape, check_whole, shown
from .config import DATASETS, check_classes, user_folder
from .models import seeded

_CLASSES: dict[str, Any] = dict(
    zip(DATASETS, (tvd.MNIST, tvd.FashionMNIST, tvd.KMNIST, tvd.QMNIST), strict=True)
)
_File = tuple[Path, str, str | None]  # MD5 of the file when packed, SHA-256 of its content
_ELEMENT = {b"\0\0\x08": "u1", b"\0\0\x0c": ">i4"}  # by how a file begins
_LIMIT = 2**26  # bytes of a file, packed or unpacked; the largest in use has 47 million
# `LabelledImages.digest` of MNIST's two splits: whoever has these has the default data.
MNIST_DIGEST = {
    "train": "34de2723239766bb6b4aa67910e0b0b0f6a3f7a4d9ceb9297e80fc7bdc69c4b4",
    "test": "5889c1c66fde23a0ddaf83391ed5e4f5b92cb15638bd149261adf73771205d1b",
}
# SHA-256 of the unpacked files, in torchvision's order, since the same content is also handed on
# unpacked or packed anew.  MNIST: of the files here, whose published MD5 sums are right.  Fashion:
# of Debian's dataset-fashion-mnist; other projects took the same from files with the right MD5.
_UNPACKED = {
    "mnist": (
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
    "fashion_mnist": (
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
}
FEWEST = 10  # images that a class needs
_REMEDY = "Delete it, then put a whole copy there or call load_dataset(..., download=True)"


class DataError(ValueError):
    """A data file is missing, damaged or not what its name says."""


@dataclass(frozen=True)
class LabelledImages:
    """Images (N, C, H, W) float32 in [0, 1], labels (N,) int64 and the names of the classes."""

    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...] = tuple("0123456789")

    def __post_init__(self) -> None:
        check_images(self.images)
        if self.labels.shape != self.images.shape[:1] or self.labels.dtype != torch.int64:
            found = f"labels of shape {tuple(self.labels.shape)} and type {self.labels.dtype}"
            raise ValueError(f"{found} must be ({len(self.images)},) int64, one for each image")

    @classmethod
    def from_arrays(cls, images: Any, labels: Any, names: Sequence[str] | None = None) -> Self:
        """Data of yours: arrays, tensors or lists of either.

        images: (N, H, W), (N, C, H, W) or (N, H, W, C), one or three channels, 8 to 64 pixels a
        side; uint8, or float in [0, 1].  labels: (N,) whole numbers from 0, none skipped.  names:
        of the classes; their numbers when left out.
        Raises ValueError naming what is wrong, also for one class, or one of fewer than ten images.
        """
        try:
            x = torch.as_tensor(np.stack([np.asarray(image) for image in images]))
        except ValueError as error:
            raise ValueError(f"images of different sizes, or none: {error}") from None
        x = x[:, None] if x.ndim == 3 else x
        if x.ndim == 4 and x.shape[1] not in (1, 3) and x.shape[3] in (1, 3):
            x = x.permute(0, 3, 1, 2)
        if x.dtype != torch.uint8 and not x.is_floating_point():
            raise ValueError(f"images of type {x.dtype}: give uint8, or float in [0, 1]")
        x = (x / 255 if x.dtype == torch.uint8 else x).float().contiguous()
        given = np.asarray(labels)
        if given.dtype.kind not in "iu" or given.shape != x.shape[:1]:
            raise ValueError(f"labels {given.shape} of {given.dtype}: give {len(x)} whole numbers")
        y = torch.as_tensor(given)
        classes, counts = (found.tolist() for found in y.unique(return_counts=True))
        if classes != list(range(len(classes))) or len(classes) < 2:
            raise ValueError(f"labels {shown(classes)}: number two or more classes 0, 1 ...")
        named = tuple(map(str, classes if names is None else names))
        if len(named) != len(classes) or len(set(named)) != len(named):
            raise ValueError(f"names={shown(named)}: give {len(classes)} different ones")
        if (n := min(counts)) < FEWEST:
            name = named[counts.index(n)]
            raise ValueError(f"class {name!r} has {n} images: give {FEWEST} or more of each")
        return cls(x, y.long(), named)

    @classmethod
    def from_folder(cls, path: str | Path, image_shape: Shape = IMAGE_SHAPE) -> Self:
        """One folder of pictures per class, named as the class; each resized to image_shape.

        Raises DataError naming a file that is no picture, cannot be read, or has transparent
        pixels or more than 8 bits a channel, and as `from_arrays`.
        """
        check_shape(image_shape)
        c, h, w = image_shape
        images, kinds = [], tvd.folder.IMG_EXTENSIONS
        for file in sorted(map(str, Path(path).rglob("[!.]*.*"))):
            if os.path.isfile(file) and not file.lower().endswith(kinds):
                raise DataError(f"{file} is no picture: move it away")
        try:
            folder = tvd.ImageFolder(str(path))
        except OSError as error:
            raise DataError(f"{path} has no folder of pictures per class: {error}") from None
        for file, _ in folder.samples:
            try:
                with PIL.Image.open(file) as image:
                    deep = image.mode[0] in "IF"  # which convert() would cut off at 255
                    alpha = None if deep else image.convert("RGBA").getchannel("A").getextrema()
                    plain = image if deep else image.convert("L" if c == 1 else "RGB")
            except (OSError, ValueError, PIL.Image.DecompressionBombError) as error:
                raise DataError(f"{file} is damaged: {error}. Delete or replace it") from None
            if alpha != (255, 255):
                wrong = "more than 8 bits a channel" if deep else "transparent pixels"
                raise DataError(f"{file} has {wrong}: save it with 8 bits and a background")
            images.append(plain.resize((w, h), PIL.Image.Resampling.BILINEAR))
        return cls.from_arrays(images, folder.targets, folder.classes)

    def split(self, share: float = 0.25, seed: int = 0) -> "tuple[LabelledImages, LabelledImages]":
        """(train, test): of each class about this share to test, equal images on the same side."""
        check_number(share, "share", 0.05, 0.95)
        order = torch.randperm(len(self), generator=seeded(seed))
        side: dict[bytes, bool] = {}
        test, seen = torch.zeros(len(self), dtype=torch.bool), [0] * self.num_classes
        for k, content in zip(order.tolist(), self._where(order)._contents(), strict=True):
            c = int(self.labels[k])
            seen[c] += 1
            due = int(seen[c] * share + 1e-9) > int((seen[c] - 1) * share + 1e-9)
            test[k] = side.setdefault(content, due)
        return self._where(~test), self._where(test)

    def report(self, test: "LabelledImages | None" = None) -> str:
        """What a reader should know before training, in lines: numbers, balance, equal images."""
        counts = self.labels.bincount(minlength=self.num_classes).tolist()
        named = [f"{name} ({n})" for name, n in zip(self.class_names, counts, strict=True)]
        found: dict[bytes, set[int]] = defaultdict(set)
        for content, label in zip(self._contents(), self.labels.tolist(), strict=True):
            found[content].add(label)
        twice, torn = len(self) - len(found), sum(len(labels) > 1 for labels in found.values())
        least, most = (named[counts.index(find(counts))] for find in (min, max))
        text = f"{len(self)} images {self.image_shape}, {self.num_classes} classes, "
        text += f"smallest: {least}, largest: {most}\n"
        text += f"equal to an earlier image: {twice}; of them with different labels: {torn}\n"
        if test is not None:
            both = sum(content in found for content in test._contents())
            text += f"test: {len(test)} images, {both} of them also in training\n"
        return text.rstrip()

    def _contents(self) -> Iterator[bytes]:
        """The bytes of each image."""
        return (row.tobytes() for row in self.images.cpu().numpy())

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_classes(self) -> int:
        """How many classes there are, whether or not an image of each is here."""
        return len(self.class_names)

    @property
    def image_shape(self) -> Shape:
        """(C, H, W)."""
        return self.images.shape[1], self.images.shape[2], self.images.shape[3]

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of images, labels and class names: equal data, equal digest, any device."""
        found = hashlib.sha256(repr(tuple(self.class_names)).encode())
        for tensor in (self.labels, self.images):
            found.update(tensor.detach().cpu().contiguous().numpy().data)
        return found.hexdigest()

    def only(self, classes: int | Iterable[int]) -> "LabelledImages":
        """The images of these classes."""
        return self._where(self._members(classes))

    def without(self, classes: int | Iterable[int]) -> "LabelledImages":
        """The images of all other classes; an empty tuple leaves everything in."""
        return self._where(~self._members(classes))

    def take(self, n: int, seed: int = 0) -> "LabelledImages":
        """n images chosen at random without repeats, the same ones for the same seed."""
        check_whole(n, "n", 1, len(self))
        return self._where(torch.randperm(len(self), generator=seeded(seed))[:n])

    def to(self, device: torch.device | str) -> "LabelledImages":
        """The same on another device; itself, with its digest, where it is there already."""
        if self.images.device == self.labels.device == torch.device(device):
            return self
        return LabelledImages(self.images.to(device), self.labels.to(device), self.class_names)

    def _members(self, classes: int | Iterable[int]) -> Tensor:
        chosen = check_classes(classes, self.num_classes, allow_empty=True)
        return torch.isin(self.labels, self.labels.new_tensor(chosen))

    def _where(self, index: Tensor) -> "LabelledImages":
        return LabelledImages(self.images[index], self.labels[index], self.class_names)


def data_root(root: str | Path | None = None) -> Path:
    """The folder of the data: the argument, else SA_DATA, else `data/` of CHECKOUT."""
    return Path(root).expanduser() if root else user_folder("SA_DATA", "data")


def load_dataset(
    name: str = "mnist",
    split: str = "train",
    root: str | Path | None = None,
    download: bool = False,
) -> LabelledImages:
    """Read a data set into memory after its files' checksums were verified.

    name: mnist, fashion_mnist, kmnist, qmnist, or digits8, scikit-learn's 1,797 digits of 8 x 8
    pixels, without a file.  split: "train" (60,000; of digits8 three quarters) or "test" (10,000
    images; 60,000 for qmnist).  root: folder that holds `MNIST/raw/*.gz` and so on, as torchvision
    names them; of mnist and fashion_mnist also unpacked or packed anew.  download: let torchvision
    fetch what is missing; a file that is there is never fetched again.  The checksums are the MD5
    sums that torchvision publishes with each packed file, or SHA-256 sums of the same contents.
    Raises DataError naming the file when one is missing, damaged or inconsistent.
    """
    if name not in (*_CLASSES, "digits8"):
        raise ValueError(f"name={name!r} is not one of {', '.join(_CLASSES)}, digits8")
    if split not in ("train", "test"):
        raise ValueError(f"split={split!r} is not train or test")
    if name == "digits8":
        try:
            from sklearn.datasets import load_digits
        except ImportError:
            raise DataError("digits8 comes with scikit-learn: pip install scikit-learn") from None
        found = load_digits()
        return LabelledImages.from_arrays(found.images / 16, found.target).split()[split == "test"]
    kind, folder = _CLASSES[name], data_root(root) / _CLASSES[name].__name__ / "raw"
    if download and not all(os.path.exists(f[0]) for f in _files(name, split, folder)):
        extra = {"what": split} if name == "qmnist" else {"train": split == "train"}
        kind(data_root(root), download=True, **extra)
    image_file, label_file = _files(name, split, folder)
    pixels = _read_idx(image_file, ndim=3)
    labels = _read_idx(label_file, ndim=2 if name == "qmnist" else 1)
    if pixels.shape != (len(labels), 28, 28) or not labels.size:
        shapes = f"images {pixels.shape} and labels {labels.shape} of {label_file[0].name}"
        raise DataError(f"{image_file[0]}: {shapes} do not match. {_REMEDY}")
    labels = labels.reshape(len(labels), -1)[:, 0].astype(np.int64)  # QMNIST: class is column 0
    names = class_names(name)
    if not 0 <= labels.min() <= labels.max() < len(names):
        raise DataError(f"{label_file[0]}: a label lies outside 0 to {len(names) - 1}. {_REMEDY}")
    images = torch.from_numpy(pixels.astype(np.float32) / 255).unsqueeze(1)
    return LabelledImages(images, torch.from_numpy(labels), names)


def class_names(name: str) -> tuple[str, ...]:
    """What the classes of a data set are called; no file is read."""
    names = getattr(_CLASSES[name], "classes", "0123456789")
    return tuple(n.split(" - ")[0] for n in names)  # torchvision says "3 - three" for digits


def _files(name: str, split: str, folder: Path) -> list[_File]:
    """The images and the labels: packed, or unpacked where only that is there and its sum known."""
    resources, first = _CLASSES[name].resources, 0 if split == "train" else 2
    published = resources[split] if name == "qmnist" else resources[first : first + 2]
    contents = _UNPACKED.get(name, (None,) * 4)[first : first + 2]
    found: list[_File] = []
    for (address, md5), sha256 in zip(published, contents, strict=True):
        path = folder / address.rsplit("/", 1)[-1]
        alone = sha256 and not os.path.lexists(path) and os.path.exists(path.with_suffix(""))
        found.append((path.with_suffix("") if alone else path, md5, sha256))
    return found


def _read_idx(file: _File, ndim: int) -> np.ndarray[Any, Any]:
    """One idx file (magic number, sizes, elements), gzipped or not, as an array."""
    path, md5, sha256 = file
    if not os.path.lexists(path):
        raise DataError(
            f"{path} is missing (expected MD5 {md5}). Put it there, point SA_DATA to the folder "
            "that has it, or call load_dataset(..., download=True)"
        )
    if not path.is_file() or path.stat().st_size > _LIMIT:  # a folder, a link to nowhere, a pipe
        raise DataError(f"{path} is no file of at most {_LIMIT} bytes. {_REMEDY}")
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}. Check permissions and disk") from None
    packed = path.suffix == ".gz"
    wanted, kind = (md5, "MD5") if packed else (sha256, "SHA256")
    found = hashlib.new(kind, raw, usedforsecurity=False).hexdigest()
    try:
        content = raw
        if packed and (found == wanted or sha256):
            with gzip.GzipFile(fileobj=io.BytesIO(raw)) as stream:
                content = stream.read(_LIMIT)
        if found != wanted and hashlib.sha256(content).hexdigest() != sha256:
            raise ValueError("another content")
        if content[:3] not in _ELEMENT or content[3:4] != bytes([ndim]):
            raise ValueError(f"not an idx file of {ndim} dimensions (starts {content[:4].hex()})")
        sizes = tuple(np.frombuffer(content, ">u4", ndim, 4).tolist())
        values: Any = np.frombuffer(content, _ELEMENT[content[:3]], offset=4 + 4 * ndim)
        return np.asarray(values.reshape(sizes))
    except (OSError, EOFError, ValueError, zlib.error) as error:
        damage = f" is damaged: expected {kind} {wanted}, found {found}"
        what = damage if found != wanted else f": {error}"
        raise DataError(f"{path}{what}. {_REMEDY}") from error
