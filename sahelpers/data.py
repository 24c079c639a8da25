"""MNIST and its relatives, verified and in memory."""

import gzip
import hashlib
import io
import os
import re
import warnings
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any, Self

import numpy as np
import PIL.Image
import PIL.ImageOps
import torch
import torchvision.datasets as tvd
from torch import Tensor

from .checks import (
    IMAGE_SHAPE,
    Shape,
    check_device,
    check_images,
    check_is,
    check_number,
    check_ordered,
    check_shape,
    check_values,
    check_whole,
    composed,
    shown,
)
from .config import DATASETS, check_classes, user_folder
from .models import CVAE, seeded

_CLASSES: dict[str, Any] = dict(
    zip(DATASETS, (tvd.MNIST, tvd.FashionMNIST, tvd.KMNIST, tvd.QMNIST), strict=True)
)
_ELEMENT = {b"\0\0\x08": "u1", b"\0\0\x0c": ">i4"}  # type of the elements, by the first bytes
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
DARK = 0.25  # where the largest value of all is below this, the scale is wrong more often than not
# What Pillow may open: the formats whose endings torchvision knows.  Others run programs of their
# own: an EPS file starts Ghostscript, whatever the file is called.
_FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP")
_SPLITS = {"train", "training", "test", "testing", "val", "valid", "validation"}
_REMEDY = "Delete it, then put a whole copy there or call load_dataset(..., download=True)"


class DataError(ValueError):
    """A data file is missing, damaged or not what its name says."""


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Images with their labels and the names of the classes, held in memory.

    Attributes:
        images: (N, C, H, W) float32 in [0, 1]: one or three channels, 8 to 64 pixels a side.
            Half precision becomes float32, and gradients are left behind; float64 stays, for
            models in float64.
        labels: Class numbers (N,) int64, on the images' device.
        class_names: The names of the classes, in the order of their numbers and in Unicode's
            composed form; the ten digits when left out.

    Raises:
        TypeError: images or labels is no tensor, or class_names is a set.
        ValueError: The images have another shape, type or range, there is not one int64 label for
            each, a label has no name, or two classes have one name.
    """

    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...] = tuple("0123456789")

    def __post_init__(self) -> None:
        images = self.images
        check_is(images, Tensor, "images")
        check_is(self.labels, Tensor, "labels")
        if images.requires_grad:
            images = images.detach()
        if images.dtype in (torch.float16, torch.bfloat16):
            images = images.float()
        object.__setattr__(self, "images", check_images(images))
        check_ordered(self.class_names, "class_names")
        names = tuple(composed(str(name)) for name in self.class_names)
        object.__setattr__(self, "class_names", names)
        if self.labels.shape != self.images.shape[:1] or self.labels.dtype != torch.int64:
            found = f"labels of shape {tuple(self.labels.shape)} and type {self.labels.dtype}"
            raise ValueError(f"{found} must be ({len(self.images)},) int64, one for each image")
        if len(set(self.class_names)) != self.num_classes:
            raise ValueError(f"class_names={shown(self.class_names)}: give different ones")
        hint = f": class_names has {self.num_classes} names"
        check_values(self.labels, "labels", 0, self.num_classes - 1, hint)

    @classmethod
    def from_arrays(
        cls, images: Any, labels: Any, names: Sequence[str] | Mapping[int, str] | None = None
    ) -> Self:
        """Make labelled images from arrays, tensors, Pillow's images or lists of them.

        Args:
            images: (N, H, W), (N, C, H, W) or (N, H, W, C): one or three channels, 8 to 64 pixels a
                side; uint8 from 0 to 255, or float in [0, 1].  A list of Pillow's images is read as
                it looks, a palette as its colours, and turned as an EXIF note says.
            labels: Class numbers (N,), whole numbers from 0 on; none may be skipped.
            names: The names of the classes, in the order of their numbers, or number -> name; the
                numbers themselves when left out.

        Returns:
            The images as (N, C, H, W) float32, with labels and names: a copy, which does not change
            with the arrays.  A warning tells if bytes are so small that all would be almost black.

        Raises:
            DataError: One of Pillow's images has transparent pixels.
            TypeError: The images are not made of numbers, an array is masked, or images or names
                are a set.
            ValueError: The images have different sizes or another shape, type or range, the labels
                or names do not fit, there is only one class, or a class has fewer than ten images.
        """
        hint = ": give an array, a tensor or a list of images"
        check_is(images, (np.ndarray, Tensor, Iterable), "images", hint)
        check_ordered(images, "images")
        if isinstance(images, np.ndarray | Tensor):
            pixels = np.array(_as_array(images), order="C")  # a copy in the usual order
        else:
            found = [_as_array(image, f"images[{k}]") for k, image in enumerate(images)]
            try:
                pixels = np.stack(found)
            except ValueError as error:
                raise ValueError(f"images of different sizes, or none: {error}") from None
        if pixels.dtype.kind not in "biufc":
            raise TypeError(f"images of type {pixels.dtype}{hint}, uint8 or float in [0, 1]")
        x = torch.as_tensor(pixels)
        if x.ndim == 3:
            x = x[:, None]  # (N, 1, H, W)
        if x.ndim == 4 and x.shape[1] not in (1, 3) and x.shape[3] in (1, 3):
            x = x.permute(0, 3, 1, 2)  # the channels stood last
        if x.dtype == torch.uint8:
            largest = int(pixels.max(initial=0))
            if 0 < largest < DARK * 255:
                warnings.warn(
                    f"The largest value of the images is {largest} of 255, so that all are almost "
                    f"black: if {largest} is white, divide them by {largest} yourself.",
                    stacklevel=2,
                )
            x = x / 255
        elif not x.is_floating_point():
            raise ValueError(f"images of type {x.dtype}: give uint8, or float in [0, 1]")
        x = x.float().contiguous()

        given = _as_array(labels, "labels")
        if given.dtype.kind not in "iu" or given.shape != x.shape[:1]:
            hint = ""
            if given.dtype.kind in "USO":
                hint = "; of words np.unique(labels, return_inverse=True) makes names and numbers"
            elif given.ndim == 2:
                hint = "; of one-hot rows labels.argmax(1) makes them"
            raise ValueError(
                f"labels {given.shape} of {given.dtype}: give {len(x)} whole numbers{hint}"
            )
        y = torch.as_tensor(np.array(given, np.int64, order="C"))
        numbers, number_of_images = y.unique(return_counts=True)
        classes, counts = numbers.tolist(), number_of_images.tolist()
        if classes != list(range(len(classes))) or len(classes) < 2:
            from_one = len(classes) > 1 and classes == list(range(1, len(classes) + 1))
            advice = "; these begin at 1: subtract 1 from each" if from_one else ""
            wrong = f"labels {shown(classes)}: number two or more classes 0, 1 ..."
            raise ValueError(f"{wrong}{advice}")

        named = _in_order(classes if names is None else names, len(classes))
        fewest = min(counts)
        if fewest < FEWEST:
            name = named[counts.index(fewest)]
            raise ValueError(f"class {name!r} has {fewest} images: give {FEWEST} or more of each")
        return cls(x, y, named)

    @classmethod
    def from_folder(
        cls, path: str | Path, image_shape: Shape = IMAGE_SHAPE, *, stretch: bool = False
    ) -> Self:
        """Read pictures that lie in one folder for each class.

        What is hidden (.ipynb_checkpoints, __MACOSX) is left out, and links are followed but not
        where they lead back.  A picture is turned as its EXIF note says.

        Args:
            path: The folder of these folders.  Each is named like its class, and the classes are
                numbered in the order in which people count and spell: 2 before 10.
            image_shape: (C, H, W) that every picture is brought to: gray for one channel, colour
                for three, resized to H by W pixels (8 to 64) without regard to its proportions.
            stretch: Whether most pictures may be wider than high and image_shape higher than wide,
                or the other way round.

        Returns:
            The images (N, *image_shape) with their labels and the names of the classes.

        Raises:
            DataError: There is no folder for each class with pictures in it; the folders are splits
                such as train and test; or a file, which the message names, is no picture, lies
                beside the folders, cannot be read, has transparent pixels or has more than 8 bits a
                channel.
            TypeError: path is no path.
            ValueError: image_shape is not a shape as above, most pictures lie the other way, there
                is only one class, or a class has fewer than ten images.
        """
        check_is(path, (str, os.PathLike), "path", ": give the folder")
        channels, height, width = image_shape = check_shape(image_shape)
        folders = _class_folders(Path(path))
        images: list[PIL.Image.Image] = []
        labels, wider = [], []
        for number, folder in enumerate(folders):
            for file in _picture_files(folder):
                picture = _read_picture(file, "L" if channels == 1 else "RGB")
                wider.append(picture.width - picture.height)
                images.append(picture.resize((width, height), PIL.Image.Resampling.BILINEAR))
                labels.append(number)
        if not stretch and np.median(wider) * (width - height) < 0:
            found = "wider than high" if width < height else "higher than wide"
            swapped = (channels, width, height)
            raise ValueError(
                f"most pictures are {found}, and image_shape={image_shape} (channels, height, "
                f"width) is not: give {swapped}, or stretch=True to distort them"
            )
        return cls.from_arrays(images, labels, [folder.name for folder in folders])

    def split(self, share: float = 0.25, seed: int = 0) -> "tuple[LabelledImages, LabelledImages]":
        """Split the images at random into some to train on and some to test with.

        Every class gives about the same share.  Images that are equal to the last bit come to the
        same side, so that no image is tested that was trained on.

        Args:
            share: Share of each class that goes to test, from 0.05 to 0.95.
            seed: Of the random order.

        Returns:
            The images to train on and those to test with, each in their old order.

        Raises:
            ValueError: share or seed is out of its range, or a class has too few different images
                for one on each side.
        """
        check_number(share, "share", 0.05, 0.95)
        order = torch.randperm(len(self), generator=seeded(seed))
        in_test = torch.zeros(len(self), dtype=torch.bool)
        side: dict[bytes, bool] = {}  # an image's bytes -> whether images like it go to test
        seen = [0] * self.num_classes  # images of each class so far
        contents = self._where(order)._contents()
        for k, content in zip(order.tolist(), contents, strict=True):
            c = int(self.labels[k])
            due_before = int(seen[c] * share + 1e-9)  # images that test should have by now
            seen[c] += 1
            due_now = int(seen[c] * share + 1e-9)
            in_test[k] = side.setdefault(content, due_now > due_before)
        for c in self.labels.unique().tolist():
            of_class = in_test[(self.labels == c).cpu()]
            for side_of, chosen in {"train on": ~of_class, "test with": of_class}.items():
                if not chosen.any():
                    raise ValueError(
                        f"share={share:g} leaves class {self.class_names[c]!r} ({len(of_class)} "
                        f"images) without one to {side_of}: give another share, or more images "
                        "that differ from each other"
                    )
        return self._where(~in_test), self._where(in_test)

    def report(self, test: "LabelledImages | None" = None) -> str:
        """Describe the images as far as a reader should know them before training.

        Args:
            test: Images to test with.  If given, a line says how many of them are also among the
                images to train on.

        Returns:
            A few lines: the number of images and of classes, the smallest and the largest class,
            each class by number and name, and how many images are equal to an earlier one.  Where
            all are almost black, a line says from where to where the values run.
        """
        check_is(test, (LabelledImages, NoneType), "test")
        counts = self.labels.bincount(minlength=self.num_classes).tolist()
        sizes = [f"{name} ({n})" for name, n in zip(self.class_names, counts, strict=True)]
        smallest = sizes[counts.index(min(counts))]
        largest = sizes[counts.index(max(counts))]

        labels_of: dict[bytes, set[int]] = defaultdict(set)  # an image's bytes -> its labels
        for content, label in zip(self._contents(), self.labels.tolist(), strict=True):
            labels_of[content].add(label)
        repeated = len(self) - len(labels_of)
        contradictory = sum(len(labels) > 1 for labels in labels_of.values())

        lines = [
            f"{len(self)} images {self.image_shape}, {self.num_classes} classes, "
            f"smallest: {smallest}, largest: {largest}",
            f"classes: {', '.join(self.numbered_names)}",
            f"equal to an earlier image: {repeated}; "
            f"of them with different labels: {contradictory}",
        ]
        brightest = float(self.images.max()) if len(self) else 0.0
        if 0 < brightest < DARK:
            lines.append(
                f"values from {float(self.images.min()):.3g} to {brightest:.3g}, almost black: "
                "divide the images by the largest value that there can be"
            )
        if test is not None:
            in_both = sum(content in labels_of for content in test._contents())
            lines.append(f"test: {len(test)} images, {in_both} of them also in training")
        return "\n".join(lines)

    def _contents(self) -> Iterator[bytes]:
        """The bytes of each image."""
        return (row.tobytes() for row in self.images.cpu().numpy())

    def __len__(self) -> int:
        """The number of images."""
        return len(self.labels)

    @property
    def num_classes(self) -> int:
        """How many classes there are, whether or not an image of each is here."""
        return len(self.class_names)

    @property
    def numbered_names(self) -> tuple[str, ...]:
        """Each class by number and name, such as "2 ring"; by one where both are the same."""
        return tuple(
            name if name == str(number) else f"{number} {name}"
            for number, name in enumerate(self.class_names)
        )

    @property
    def image_shape(self) -> Shape:
        """(C, H, W): channels, height and width of every image."""
        return self.images.shape[1], self.images.shape[2], self.images.shape[3]

    @property
    def digest(self) -> str:
        """The SHA-256 sum of images, labels and class names, in hexadecimal digits.

        Equal data have an equal digest, on any device.  It is computed once, and anew after torch
        has changed a tensor in place; a change by NumPy is seen in a new object (`replace`).
        """
        stamp = [(t.data_ptr(), -1 if t.is_inference() else t._version) for t in self._tensors]
        known: tuple[Any, str] | None = self.__dict__.get("_known_digest")
        if known is None or known[0] != stamp or any(version < 0 for _, version in stamp):
            known = stamp, self._compute_digest()
            self.__dict__["_known_digest"] = known
        return known[1]

    @property
    def _tensors(self) -> tuple[Tensor, Tensor]:
        return self.labels, self.images

    def _compute_digest(self) -> str:
        """The digest, from what the tensors hold now."""
        total = hashlib.sha256(repr(self.class_names).encode())
        if self.image_shape != IMAGE_SHAPE:  # that of MNIST was never counted; files go by this
            total.update(repr(self.image_shape).encode())
        for tensor in self._tensors:
            total.update(tensor.detach().cpu().contiguous().numpy().data)
        return total.hexdigest()

    def class_numbers(
        self, classes: int | str | Iterable[int | str], *, allow_empty: bool = False
    ) -> tuple[int, ...]:
        """Say which numbers some classes have, given by number or by name.

        A text is always a name: among the folders 2, 5 and 7, class 1 is class "5".

        Args:
            classes: One class or several, each by its number or its name.
            allow_empty: Whether there may be none.

        Returns:
            The class numbers as a sorted tuple without repeats.

        Raises:
            ValueError: There is no such class, none although one is needed, or these are all there
                are.
        """
        names = self.class_names
        return check_classes(classes, self.num_classes, names=names, allow_empty=allow_empty)

    def only(self, classes: int | str | Iterable[int | str]) -> "LabelledImages":
        """Choose the images of some classes.

        Args:
            classes: One class or several, by number or name; an empty tuple chooses no image.

        Returns:
            The images of these classes, in their old order; the classes keep numbers and names.

        Raises:
            ValueError: There is no such class, or these are all there are.
        """
        return self._where(self._members(classes))

    def without(self, classes: int | str | Iterable[int | str]) -> "LabelledImages":
        """Choose the images of all other classes.

        Args:
            classes: One class or several, by number or name; an empty tuple leaves everything in.

        Returns:
            The images of the other classes, in their old order; the classes keep numbers and names.

        Raises:
            ValueError: There is no such class, or these are all there are.
        """
        return self._where(~self._members(classes))

    def take(self, n: int, seed: int = 0) -> "LabelledImages":
        """Choose images at random, none of them twice.

        Args:
            n: Number of images.
            seed: Of the choice; the same seed chooses the same images.

        Returns:
            The n images, in random order.

        Raises:
            ValueError: There are not so many images, or seed is out of its range.
        """
        n = check_whole(n, "n", 1, len(self))
        return self._where(torch.randperm(len(self), generator=seeded(seed))[:n])

    def to(self, device: torch.device | str) -> "LabelledImages":
        """Move images and labels to a device.

        Args:
            device: The device, such as "cuda".

        Returns:
            The same data there; this very object, with its digest, if they are there already.
        """
        device = check_device(device)
        images, labels = self.images.to(device), self.labels.to(device)
        if images is self.images and labels is self.labels:
            return self
        return LabelledImages(images, labels, self.class_names)

    def _members(self, classes: int | str | Iterable[int | str]) -> Tensor:
        """Which images are of these classes, (N,) bool."""
        chosen = self.class_numbers(classes, allow_empty=True)
        return torch.isin(self.labels, self.labels.new_tensor(chosen))

    def _where(self, index: Tensor) -> "LabelledImages":
        """The images of a mask (N,) bool, or of indices (M,) int64 in their order."""
        return LabelledImages(self.images[index], self.labels[index], self.class_names)


def check_fits(data: LabelledImages, model: CVAE, name: str) -> None:
    """Refuse images that a model does not draw.

    Args:
        data: The images.
        model: The model.
        name: What the images are called, for the message.

    Raises:
        ValueError: They have another shape or another number of classes than the model.
    """
    found, wanted = (
        f"{it.num_classes} classes and images of shape {it.image_shape}" for it in (data, model)
    )
    if found != wanted:
        raise ValueError(f"{name} has {found}, the model {wanted}: give images of the model's kind")


def check_same_classes(train: LabelledImages, test: LabelledImages) -> None:
    """Refuse two sets of images in which a number means another class.

    Args:
        train: The images to train on.
        test: The images to test with.

    Raises:
        ValueError: Their classes have other names, or stand in another order.
    """
    if test.class_names != train.class_names:
        names = f"{shown(test.class_names)}, those of train {shown(train.class_names)}"
        raise ValueError(f"the classes of test are {names}: give both the same, in one order")


def _as_array(value: Any, name: str = "images") -> np.ndarray[Any, Any]:
    """An array, a tensor or one of Pillow's images as an array that torch can read.

    name: Of the image, in the DataError of one with transparent pixels and the TypeError of a
        masked array.
    """
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array, whose mask would be lost: give .filled(...)")
    if isinstance(value, PIL.Image.Image):
        value = PIL.ImageOps.exif_transpose(value)
        if value.mode[0] not in "IF":
            value = _opaque(value, name, "L" if value.mode in ("1", "L", "LA") else "RGB")
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        if value.is_floating_point():
            value = value.float()  # NumPy has no bfloat16
    array = np.asarray(value)
    if array.dtype == np.longdouble:
        array = array.astype(np.float64)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _in_order(names: Iterable[Any] | Mapping[int, str], count: int) -> tuple[str, ...]:
    """The names of so many classes in the order of their numbers; ValueError if they do not fit."""
    if isinstance(names, Mapping):
        if set(names) != set(range(count)):
            numbers = f"number -> name, for the numbers 0 to {count - 1}"
            raise ValueError(f"names={shown(names)}: give {count} different ones as {numbers}")
        names = [names[number] for number in range(count)]
    check_ordered(names, "names")
    named = tuple(str(name) for name in names)
    if len(named) != count or len(set(named)) != count:
        raise ValueError(f"names={shown(named)}: give {count} different ones")
    return named


def _class_folders(path: Path) -> list[Path]:
    """The folders of the classes, in the order in which people count and spell.

    Raises DataError when there are none, or when they are splits.
    """
    above = (os.path.realpath(path),)
    try:
        folders = [f for f in path.iterdir() if f.is_dir() and not _is_left_out(f, above)]
    except OSError as error:
        raise DataError(f"{path} has no folder of pictures per class: {error}") from None
    if not folders:
        raise DataError(f"{path} has no folder of pictures per class: put one there for each")
    for file in _shown(path):
        if _check_is_picture(file) and not file.is_dir():
            raise DataError(
                f"{file} lies beside the folders of the classes: move it into one, or away"
            )
    splits = sorted(f for f in folders if f.name.lower() in _SPLITS)
    if len(splits) == len(folders) or any(map(_holds_folders_only, splits)):
        names = " and ".join(f.name for f in splits)
        calls = " and ".join(f"from_folder({str(f)!r})" for f in splits)
        raise DataError(
            f"{path} has {names}, which are splits and no classes: read each by itself, by "
            f"{calls}, or move the folders of the classes into one"
        )
    return sorted(folders, key=lambda folder: _counted(composed(folder.name)))


def _holds_folders_only(folder: Path) -> bool:
    """Whether there are folders in a folder, and no picture beside them."""
    inside = _shown(folder)
    return any(path.is_dir() for path in inside) and not any(map(_ends_as_picture, inside))


def _counted(name: str) -> tuple[list[int | str], str]:
    """What names are sorted by: text as text and numbers as numbers, so that 2 comes before 10."""
    parts = re.split("([0-9]+)", name)  # text and number in turn, text first
    return [int(part) if k % 2 else part for k, part in enumerate(parts)], name


def _picture_files(folder: Path) -> list[Path]:
    """The pictures in a folder and below it, in the order of their folders, then their names.

    Raises DataError when there are none, or for another file.
    """
    try:
        files = list(_files_below(folder, (os.path.realpath(folder.parent),)))
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error}. Check permissions and disk") from None
    pictures = [file for file in files if _check_is_picture(file)]
    if not pictures:
        raise DataError(f"{folder} has no pictures: put {FEWEST} or more there, or delete it")
    return sorted(pictures, key=lambda file: (str(file.parent), file.name))


def _files_below(folder: Path, above: tuple[str, ...]) -> Iterator[Path]:
    """All files in a folder and below it; above: the real paths of the folders that led to it."""
    above = (*above, os.path.realpath(folder))
    for path in _shown(folder):
        if not path.is_dir():
            yield path
        elif not _is_left_out(path, above):
            yield from _files_below(path, above)


def _shown(folder: Path) -> list[Path]:
    """What is in a folder and not hidden."""
    return [path for path in folder.iterdir() if not _is_left_out(path)]


def _is_left_out(path: Path, above: tuple[str, ...] = ()) -> bool:
    """Whether a file or folder is hidden, or a link that leads back to a folder above it."""
    if path.name.startswith(".") or path.name == "__MACOSX":
        return True
    real = os.path.realpath(path)
    return any(Path(folder).is_relative_to(real) for folder in above)


def _ends_as_picture(file: Path) -> bool:
    """Whether a file has the ending of a picture."""
    return file.name.lower().endswith(tvd.folder.IMG_EXTENSIONS)


def _check_is_picture(file: Path) -> bool:
    """Whether a file has the ending of a picture; DataError when it has another one."""
    if file.is_file() and "." in file.name and not _ends_as_picture(file):
        raise DataError(f"{file} is no picture: move it away")
    return _ends_as_picture(file)


def _read_picture(file: Path, mode: str) -> PIL.Image.Image:
    """The picture in a file, upright, in gray ("L") or in colour ("RGB"); DataError without one."""
    try:
        if not file.is_file():  # a link to nowhere; a pipe would never end
            raise OSError("it is no file")
        with PIL.Image.open(file, formats=_FORMATS) as image:
            upright = PIL.ImageOps.exif_transpose(image)
            upright.load()
    except Exception as error:  # whatever Pillow raises on bytes that it did not expect
        wrong = f"is damaged, or none of {', '.join(_FORMATS)}"
        raise DataError(f"{file} {wrong}: {error}. Delete or replace it") from None
    return _opaque(upright, str(file), mode)


def _opaque(image: PIL.Image.Image, name: str, mode: str) -> PIL.Image.Image:
    """An image in the mode "L" or "RGB"; DataError, which names it, where that would ruin it."""
    remedy = "save it with 8 bits and a background"
    if image.mode[0] in "IF":  # convert() would cut off its values at 255
        raise DataError(f"{name} has more than 8 bits a channel: {remedy}")
    darkest, _ = image.convert("RGBA").getchannel("A").getextrema()
    if darkest != 255:  # 255 is opaque
        raise DataError(f"{name} has transparent pixels: {remedy}")
    return image.convert(mode)


def data_root(root: str | Path | None = None) -> Path:
    """Find the folder of the data.

    Args:
        root: The folder; `~` is expanded.  If left out, it is the one that the environment variable
            SA_DATA names, else `data/` of the repository (in `~/.cache/sahelpers`, where the
            package was installed without the repository).

    Returns:
        The folder, whether or not it is there.
    """
    if root:
        return Path(root).expanduser()
    return user_folder("SA_DATA", "data")


def load_dataset(
    name: str = "mnist",
    split: str = "train",
    root: str | Path | None = None,
    download: bool = False,
) -> LabelledImages:
    """Read a data set into memory after the checksums of its files were verified.

    Args:
        name: "mnist", "fashion_mnist", "kmnist", "qmnist", or "digits8", scikit-learn's 1,797
            digits of 8 x 8 pixels, which needs no file.
        split: "train" (60,000 images; of digits8 three quarters) or "test" (10,000 images; 60,000
            of qmnist, a quarter of digits8).
        root: The folder that holds `MNIST/raw/*.gz` and so on, as torchvision names them.  The
            files of mnist and fashion_mnist may also be unpacked, or packed anew.  None means the
            folder that the environment variable SA_DATA names, else `data/` of the repository.
        download: Whether torchvision may fetch the files if one is missing.  A file that is there
            is never fetched again.

    Returns:
        The images, (N, 1, 28, 28) or (N, 1, 8, 8), with labels and the names of the classes.

    Raises:
        DataError: If a file is missing, damaged or inconsistent; the message names it.  A packed
            file must have the MD5 sum that torchvision publishes, or its content the SHA-256 sum
            that this package knows of mnist and fashion_mnist.
        ValueError: If there is no such name or split.
    """
    if name not in (*_CLASSES, "digits8"):
        raise ValueError(
            f"name={name!r} is not one of {', '.join(_CLASSES)}, digits8; pictures of your own are "
            "read by LabelledImages.from_folder(path)"
        )
    if split not in ("train", "test"):
        raise ValueError(f"split={split!r} is not train or test")
    if name == "digits8":
        return _load_digits8(split)
    kind = _CLASSES[name]
    folder = data_root(root) / kind.__name__ / "raw"
    if download and not all(os.path.exists(file.path) for file in _files(name, split, folder)):
        which = {"what": split} if name == "qmnist" else {"train": split == "train"}
        kind(data_root(root), download=True, **which)
    image_file, label_file = _files(name, split, folder)
    pixels = _parse_idx(image_file.path, _read_verified(image_file), ndim=3)
    labels = _parse_idx(
        label_file.path, _read_verified(label_file), ndim=2 if name == "qmnist" else 1
    )
    if pixels.shape != (len(labels), 28, 28) or not labels.size:
        shapes = f"images {pixels.shape} and labels {labels.shape} of {label_file.path.name}"
        raise DataError(f"{image_file.path}: {shapes} do not match. {_REMEDY}")
    if name == "qmnist":
        labels = labels[:, 0]  # the other columns say who wrote the digit
    labels = labels.astype(np.int64)
    names = class_names(name)
    if not 0 <= labels.min() <= labels.max() < len(names):
        raise DataError(f"{label_file.path}: a label lies outside 0 to {len(names) - 1}. {_REMEDY}")
    images = torch.from_numpy(pixels.astype(np.float32) / 255).unsqueeze(1)
    return LabelledImages(images, torch.from_numpy(labels), names)


def _load_digits8(split: str) -> LabelledImages:
    """scikit-learn's own digits, split always in the same way; their gray levels end at 16."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise DataError("digits8 comes with scikit-learn: pip install scikit-learn") from None
    found = load_digits()
    train, test = LabelledImages.from_arrays(found.images / 16, found.target).split()
    return train if split == "train" else test


def class_names(name: str) -> tuple[str, ...]:
    """Say what the classes of a data set are called; no file is read.

    Args:
        name: "mnist", "fashion_mnist", "kmnist" or "qmnist".

    Returns:
        The names of its ten classes, in the order of their numbers.

    Raises:
        KeyError: There is no such data set.
    """
    names = getattr(_CLASSES[name], "classes", "0123456789")
    return tuple(n.split(" - ")[0] for n in names)  # torchvision says "3 - three" for digits


@dataclass(frozen=True)
class _File:
    """A file of a data set, and the sums by which it is known."""

    path: Path
    md5: str  # of the packed file, as torchvision publishes it
    sha256: str | None  # of the content, where `_UNPACKED` has it


def _files(name: str, split: str, folder: Path) -> list[_File]:
    """The file of the images and that of the labels.

    Each is the packed file, or the unpacked one where only that is there and its sum is known.
    """
    resources = _CLASSES[name].resources
    first = 0 if split == "train" else 2  # images and labels of train stand first, then of test
    published = resources[split] if name == "qmnist" else resources[first : first + 2]
    contents = _UNPACKED.get(name, (None,) * 4)[first : first + 2]
    found = []
    for (address, md5), sha256 in zip(published, contents, strict=True):
        packed = folder / address.rsplit("/", 1)[-1]
        unpacked = packed.with_suffix("")
        only_unpacked = os.path.exists(unpacked) and not os.path.lexists(packed)
        use_unpacked = only_unpacked and sha256 is not None
        found.append(_File(unpacked if use_unpacked else packed, md5, sha256))
    return found


def _read_verified(file: _File) -> bytes:
    """The content of a file, unpacked, if one of the sums shows that it is genuine.

    Raises DataError naming the file, what was expected, what was found and what to do.
    """
    path = file.path
    if not os.path.lexists(path):
        raise DataError(
            f"{path} is missing (expected MD5 {file.md5}). Put it there, point SA_DATA to the "
            "folder that has it, or call load_dataset(..., download=True)"
        )
    if not path.is_file() or path.stat().st_size > _LIMIT:  # a folder, a link to nowhere, a pipe
        raise DataError(f"{path} is no file of at most {_LIMIT} bytes. {_REMEDY}")
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}. Check permissions and disk") from None
    if path.suffix != ".gz":
        found = hashlib.sha256(raw).hexdigest()
        if found != file.sha256:
            sums = f"expected SHA256 {file.sha256}, found {found}"
            raise DataError(f"{path} is damaged: {sums}. {_REMEDY}")
        return raw
    found = hashlib.md5(raw, usedforsecurity=False).hexdigest()
    sums = f"expected MD5 {file.md5}, found {found}"
    if found != file.md5 and file.sha256 is None:
        raise DataError(f"{path} is damaged: {sums}. {_REMEDY}")
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(raw)) as stream:
            content = stream.read(_LIMIT)  # and no further: it may unpack to any size
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{path} is damaged: {sums}, and it cannot be unpacked: {error}. {_REMEDY}"
        ) from error
    if found != file.md5 and hashlib.sha256(content).hexdigest() != file.sha256:
        raise DataError(f"{path} is damaged: {sums}. {_REMEDY}")
    return content


def _parse_idx(path: Path, content: bytes, ndim: int) -> np.ndarray[Any, Any]:
    """The array in an idx file: its kind in four bytes, its sizes, its elements.

    path: only named, in the DataError of a content that is something else.
    """
    if content[:3] not in _ELEMENT or content[3:4] != bytes([ndim]):
        raise DataError(
            f"{path}: not an idx file of {ndim} dimensions (starts {content[:4].hex()}). {_REMEDY}"
        )
    try:
        sizes = np.frombuffer(content, ">u4", count=ndim, offset=4)
        elements = np.frombuffer(content, _ELEMENT[content[:3]], offset=4 + 4 * ndim)
        return elements.reshape(sizes.tolist())
    except ValueError as error:
        raise DataError(f"{path}: {error}. {_REMEDY}") from error
