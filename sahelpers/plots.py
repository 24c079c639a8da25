"""Figures.  Every function draws on the axes it is given, or on new ones, and returns them."""

import math
from collections.abc import Mapping, Sequence, Sized
from typing import Any, Protocol, runtime_checkable

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from .checks import check_is, check_same_length, check_tensor, check_whole, shown

# Okabe and Ito's colours: told apart by the colour-blind and, by lightness, in a grey print.
BEFORE, AFTER, RETRAINED, HIDDEN = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
PALETTE = (BEFORE, AFTER, RETRAINED, HIDDEN, "#E69F00", "#56B4E9", "#000000")
# Place in PALETTE of each model's colour, which is the same in every figure ...
MODELS = {
    "baseline": 0,
    "before": 0,
    "forgotten": 1,
    "after": 1,
    "retrained": 2,
    "hidden": 3,
    "masked": 4,
}
# ... and of what is no model: at first colours that no model has.
OTHERS = (5, 6, 4, 3, 2, 1, 0)
MARKERS, HATCHES = "osD^vPX", ("", "//", "..", "xx")
GAP = 2  # white pixels between two images
TITLE_SIZE = 10  # points


@runtime_checkable
class Curve(Protocol):
    """What `recovery_curves` draws: when a model was looked at, what was seen, and the area."""

    steps: list[int]
    probability: list[float]

    @property
    def area(self) -> float:
        """From 0 to 1."""


def new_axes(ax: Axes | None, width: float = 6.0, height: float = 3.5) -> Axes:
    """The axes given, or else those of a new figure.

    Args:
        ax: Axes, or None for new ones.
        width: Of the new figure, inches.
        height: Of the new figure, inches.

    Returns:
        The axes.
    """
    if ax is not None:
        return ax
    _, made = plt.subplots(figsize=(width, height), layout="constrained")
    return made


def check_entries(entries: Mapping[str, object], name: str, kind: type, hint: str = "") -> None:
    """Refuse what is not a mapping with at least one entry, all of one kind.

    Args:
        entries: What a caller gave.
        name: The argument's name, for the message.
        kind: The kind of every entry.
        hint: Where to get one, for the message.

    Raises:
        TypeError: For another thing, or an entry of another kind.
        ValueError: When there is no entry.
    """
    check_is(entries, Mapping, name)
    if not entries:
        raise ValueError(f"{name} is empty: give at least one to draw")
    for key, value in entries.items():
        check_is(value, kind, f"{name}[{key!r}]", hint)


def class_label(name: str, number: int) -> str:
    """Say how a figure names a class.

    Args:
        name: The name of the class.
        number: Its number.

    Returns:
        The name as plain text, in which a dollar begins no formula; the number where matplotlib's
        present fonts lack a character of the name, or nothing of it could be seen.
    """
    families = FontProperties().get_family()
    fonts = [get_font(findfont(FontProperties(family=[family]))) for family in families]
    for character in name.strip() or "\0":
        if not any(font.get_char_index(ord(character)) for font in fonts):
            return str(number)
    return _plain(name)


def _plain(text: str) -> str:
    """A text in which a dollar begins no formula."""
    return text.replace("$", r"\$")


def _colour(k: int, name: str) -> int:
    """Place in PALETTE of the k-th thing of a figure: its own for a model, else one of the rest."""
    return MODELS.get(name, OTHERS[k % len(OTHERS)])


def line_style(k: int, name: str = "") -> dict[str, Any]:
    """Colour and marker of the k-th line of a figure.

    Args:
        k: Number of the line, from 0 on.
        name: What the line shows; a model ("baseline", "forgotten", "retrained", "hidden") has its
            own colour in every figure.

    Returns:
        Arguments of `Axes.plot`.
    """
    place = _colour(k, name)
    return {"color": PALETTE[place], "marker": MARKERS[place]}


def label_lines(ax: Axes) -> None:
    """Write each line's label to the right of its last point, in its colour, none over another.

    Args:
        ax: The axes with the lines.
    """
    ax.margins(x=0)
    ax.autoscale_view()
    to_axes = ax.transScale + ax.transLimits  # from the data to 0 ... 1 over the axes
    ends = []
    for line in ax.get_lines():
        last_point = np.asarray(line.get_xydata())[-1]
        ends.append((float(to_axes.transform(last_point)[1]), line))
    ends.sort(key=lambda end: -end[0])
    gap = 0.09  # between two labels, as a share of the axes' height
    highest = 1.0  # where the next label may stand at most
    for k, (height, line) in enumerate(ends):
        lowest = gap * (len(ends) - 1 - k)  # leaves room for those below
        place = min(highest, max(height, lowest))
        ax.text(
            1.02, place, str(line.get_label()), transform=ax.transAxes, color=line.get_color(),
            va="center", fontsize=9,
        )  # fmt: skip
        highest = place - gap


def image_grid(images: Tensor, columns: int = 10, ax: Axes | None = None, title: str = "") -> Axes:
    """Images row by row; black is 0, as MNIST is stored.

    Args:
        images: (N, C, H, W) float in [0, 1], one or three channels.
        columns: Images in a row.
        ax: Axes to draw on; new ones when left out.
        title: Title of the axes.

    Returns:
        The axes.

    Raises:
        TypeError: For what is no tensor.
        ValueError: For another shape, no image, and fewer than one column.
    """
    check_tensor(images, ("N", "C", "H", "W"), "images")
    columns = check_whole(columns, "columns")
    if not len(images):
        raise ValueError("images is empty: give at least one to draw")
    if images.shape[1] not in (1, 3):
        raise ValueError(f"images have {images.shape[1]} channels: give one or three")
    rows = math.ceil(len(images) / columns)
    c, h, w = images.shape[1:]
    tiles = torch.ones(rows * columns, c, h + GAP, w + GAP)  # white where there is no image
    tiles[: len(images), :, :h, :w] = images.detach().cpu()
    tiles = tiles.view(rows, columns, c, h + GAP, w + GAP).permute(0, 3, 1, 4, 2)
    sheet = tiles.flatten(2, 3).flatten(0, 1)[:-GAP, :-GAP]  # (height, width, C)
    ax = new_axes(ax, 0.6 * columns, 0.6 * rows * h / w + 0.3)
    ax.imshow(sheet.squeeze(2).numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    ax.set_title(title, fontsize=TITLE_SIZE)
    ax.axis("off")
    return ax


def class_columns(
    images: Tensor,
    labels: Tensor,
    rows: int = 6,
    ax: Axes | None = None,
    title: str = "",
    names: Sequence[str] | None = None,
) -> Axes:
    """A grid with one column per class, its number or name below.

    Args:
        images: (N, C, H, W) float in [0, 1].
        labels: Class numbers (N,) int64.
        rows: Images of each class.
        ax: Axes to draw on; new ones when left out.
        title: Title of the axes.
        names: What the classes are called, by their number; the numbers when left out.

    Returns:
        The axes.

    Raises:
        TypeError: For an argument of another kind.
        ValueError: For another shape, a class with fewer images than rows, and one without a name.
    """
    check_tensor(images, ("N", "C", "H", "W"), "images")
    check_is(labels, Tensor, "labels")
    check_same_length(images, labels, "images")
    rows = check_whole(rows, "rows")
    if not len(images):
        raise ValueError("images is empty: give at least one to draw")
    classes = labels.unique().tolist()
    most = max(classes, default=-1)
    if names is not None and len(names) <= most:
        raise ValueError(f"names={shown(names)}: give {most + 1}, one for each class 0 to {most}")
    columns = []
    for c in classes:
        of_class = images[labels == c]
        if len(of_class) < rows:
            raise ValueError(
                f"rows={rows}, but class {c} has {len(of_class)} images: give fewer rows"
            )
        columns.append(of_class[:rows])
    row_by_row = torch.stack(columns, dim=1).flatten(0, 1)
    ax = image_grid(row_by_row, len(classes), ax, title)
    h, w = images.shape[2:]
    for k, c in enumerate(classes):
        label = str(c) if names is None else class_label(names[c], c)
        tilt = {"rotation": 30, "ha": "right"} if len(label) > 3 else {"ha": "center"}
        x = (w + GAP) * k + w / 2
        y = (h + GAP) * rows + GAP
        ax.text(x, y, label, va="top", fontsize=10, **tilt)
    return ax


def before_after(
    before: Tensor,
    after: Tensor,
    labels: Tensor,
    rows: int = 6,
    axes: Sequence[Axes] | None = None,
    names: Sequence[str] | None = None,
) -> Sequence[Axes]:
    """Two grids side by side, one column per class, the same z at the same place.

    Args:
        before: Images (N, C, H, W) float in [0, 1] that the model drew before.
        after: The same that it drew after, at the same z.
        labels: Class numbers (N,) int64.
        rows: Images of each class.
        axes: Two axes to draw on; new ones when left out.
        names: What the classes are called, by their number; the numbers when left out.

    Returns:
        The two axes.

    Raises:
        TypeError, ValueError: As `class_columns`.
    """
    rows = check_whole(rows, "rows")
    if axes is None:
        axes = plt.subplots(1, 2, figsize=(12, 0.6 * rows + 0.7), layout="constrained")[1]
    class_columns(before, labels, rows, axes[0], "before", names)
    class_columns(after, labels, rows, axes[1], "after, at the same z", names)
    return axes


def image_rows(
    rows: Mapping[str, Tensor], count: int = 10, ax: Axes | None = None, title: str = ""
) -> Axes:
    """One named row of images for each entry.

    Args:
        rows: Name of the row -> images (N, C, H, W) float in [0, 1].
        count: Images in a row; one with fewer is filled up white.
        ax: Axes to draw on; new ones when left out.
        title: Title of the axes.

    Returns:
        The axes.

    Raises:
        TypeError: For an argument of another kind.
        ValueError: For no row, and images of another shape.
    """
    check_entries(rows, "rows", Tensor)
    count = check_whole(count, "count")
    parts = []
    for name, images in rows.items():
        check_tensor(images, ("N", "C", "H", "W"), f"rows[{name!r}]")
        missing = max(0, count - len(images))
        parts.append(images[:count])
        parts.append(images.new_ones((missing, *images.shape[1:])))
    ax = image_grid(torch.cat(parts), count, ax, title)
    ax.axis("on")
    ax.set_xticks([])
    h = parts[0].shape[2]
    ax.set_yticks([(h + GAP) * k + h / 2 for k in range(len(rows))], list(map(_plain, rows)))
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return ax


def curves(
    history: Mapping[str, Sequence[float]],
    ax: Axes | None = None,
    xlabel: str = "step",
    ylabel: str = "nats per image",
) -> Axes:
    """One line per entry, against its index counted from 1.

    Args:
        history: Name of the line -> its values.
        ax: Axes to draw on; new ones when left out.
        xlabel: What the index counts.
        ylabel: What the values are, with their unit.

    Returns:
        The axes.

    Raises:
        TypeError: For an argument of another kind.
        ValueError: For no line.
    """
    check_entries(history, "history", Sized, ": give a list of numbers")
    ax = new_axes(ax)
    for k, (name, values) in enumerate(history.items()):
        x = range(1, len(values) + 1)
        every = max(1, len(values) // 8)  # eight markers, however long the line is
        ax.plot(x, values, label=name, markevery=every, ms=4, **line_style(k, name))
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(frameon=False, fontsize=8)
    return ax


def class_bars(
    values: Mapping[str, Tensor],
    ax: Axes | None = None,
    ylabel: str = "",
    title: str = "",
    names: Sequence[str] | None = None,
) -> Axes:
    """Grouped bars, one group per class, with a colour and a hatch for each entry.

    Args:
        values: Name of the entry -> heights of its bars, (K,).
        ax: Axes to draw on; new ones when left out.
        ylabel: What the heights are, with their unit.
        title: Title of the axes.
        names: What the classes are called; their numbers when left out.

    Returns:
        The axes.

    Raises:
        TypeError: For an argument of another kind.
        ValueError: For no entry, and for numbers of classes that differ.
    """
    check_entries(values, "values", Tensor)
    sizes = {name: len(heights) for name, heights in values.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"values have different numbers of classes: {sizes}")
    n = next(iter(sizes.values()))
    shown = list(map(str, range(n)) if names is None else names)
    if len(shown) != n:
        raise ValueError(f"names={shown} has {len(shown)} entries: give {n}, one per class")
    shown = list(map(class_label, shown, range(n)))
    ax = new_axes(ax, 7.0, 3.0)
    width = 0.8 / len(values)
    for k, (name, heights) in enumerate(values.items()):
        x = torch.arange(n) + (k - (len(values) - 1) / 2) * width
        place = _colour(k, name)
        look: dict[str, Any] = {"color": PALETTE[place], "hatch": HATCHES[place % len(HATCHES)]}
        ax.bar(x.tolist(), heights.tolist(), width, label=name, edgecolor="white", **look)
    ax.set_xticks(range(n), shown, rotation=30 if max(map(len, shown)) > 3 else 0)
    ax.set(xlabel="class", ylabel=ylabel)
    ax.set_title(title, fontsize=TITLE_SIZE, pad=20)
    ax.legend(frameon=False, fontsize=8, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return ax


def recovery_curves(curves: Mapping[str, Curve], ax: Axes | None = None, title: str = "") -> Axes:
    """P(c_f) against steps of fine-tuning, one line per model, with its area at its end.

    Args:
        curves: Name of a model -> what `relearn` returned for it.
        ax: Axes to draw on; new ones when left out.
        title: Title of the axes.

    Returns:
        The axes.

    Raises:
        TypeError: For an argument of another kind.
        ValueError: For no curve.
    """
    check_entries(curves, "curves", Curve, ": relearn returns a RecoveryCurve")
    ax = new_axes(ax, 5.0, 3.2)
    for k, (name, curve) in enumerate(curves.items()):
        label = f"{name} {curve.area:.2f}"
        ax.plot(curve.steps, curve.probability, label=label, ms=4, **line_style(k, name))
    ax.set(xlabel="steps of fine-tuning", ylabel="P(c_f) of the stricter judge", ylim=(-0.03, 1.05))
    ax.set_title(title, fontsize=TITLE_SIZE)
    label_lines(ax)
    return ax
