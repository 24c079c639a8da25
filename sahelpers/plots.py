"""Figures.  Every function draws on the axes it is given, or on new ones, and returns them."""

import math
from collections.abc import Mapping, Sequence, Sized
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from .checks import check_is, check_same_length, check_tensor, check_whole, door
from .fisher import Fisher
from .recovery import RecoveryCurve

# Okabe and Ito's colours: told apart by the colour-blind and, by lightness, in a grey print.
BEFORE, AFTER, CONTROL, HIDDEN = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
PALETTE = (BEFORE, AFTER, CONTROL, HIDDEN, "#E69F00", "#56B4E9", "#000000")
MODELS = {"baseline": 0, "before": 0, "forgotten": 1, "after": 1, "control": 2, "hidden": 3}
OTHERS = (5, 6, 4, 3, 2, 1, 0)  # what is no model begins with colours that no model has
MARKERS, HATCHES = "osD^vPX", ("", "//", "..", "xx")
GAP = 2  # white pixels between two images


def new_axes(ax: Axes | None, width: float = 6.0, height: float = 3.5) -> Axes:
    """The axes given, or the axes of a new figure of this size in inches."""
    return plt.subplots(figsize=(width, height), layout="constrained")[1] if ax is None else ax


def check_some(things: Sized, name: str, kind: type = object) -> None:
    """Refuse to draw nothing, and entries of a mapping that are of another kind."""
    if not len(things):
        raise ValueError(f"{name} is empty: give at least one to draw")
    for key, value in things.items() if isinstance(things, Mapping) else ():
        check_is(value, kind, f"{name}[{key!r}]")


def line_style(k: int, name: str = "") -> dict[str, Any]:
    """Colour and marker of the k-th line of a figure, as arguments of `Axes.plot`; the models that
    are in MODELS have theirs in every figure."""
    k = MODELS.get(name, OTHERS[k % 7])
    return {"color": PALETTE[k], "marker": MARKERS[k]}


def label_lines(ax: Axes) -> None:
    """Write each line's label to the right of its last point, in its colour, none over another."""
    ax.margins(x=0)
    ax.autoscale_view()
    place, gap, top = ax.transScale + ax.transLimits, 0.09, 1.0
    lines = ax.get_lines()
    last = ((place.transform(np.asarray(line.get_xydata())[-1])[1], line) for line in lines)
    ends = sorted(last, key=lambda end: -float(end[0]))
    for k, (height, line) in enumerate(ends):
        lowest = gap * (len(ends) - 1 - k)  # leaves room for those below
        top = min(top, max(float(height), lowest))
        look: dict[str, Any] = {"color": line.get_color(), "va": "center", "fontsize": 9}
        ax.text(1.02, top, str(line.get_label()), transform=ax.transAxes, **look)
        top -= gap


def image_grid(images: Tensor, columns: int = 10, ax: Axes | None = None, title: str = "") -> Axes:
    """Images (N, C, H, W) in [0, 1], row by row; black is 0, as MNIST is stored."""
    check_tensor(images, ("N", "C", "H", "W"), "images")
    check_whole(columns, "columns")
    check_some(images, "images")
    rows, (c, h, w) = -(-len(images) // columns), images.shape[1:]
    sheet = torch.ones(rows * columns, c, h + GAP, w + GAP)
    sheet[: len(images), :, :h, :w] = images.detach().cpu()
    sheet = sheet.view(rows, columns, c, h + GAP, w + GAP).permute(0, 3, 1, 4, 2).flatten(2, 3)
    ax = new_axes(ax, 0.6 * columns, 0.6 * rows * h / w + 0.3)
    shown = sheet.flatten(0, 1)[:-GAP, :-GAP].squeeze(2).numpy()  # (height, width) or (..., 3)
    ax.imshow(shown, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    ax.set_title(title, fontsize=10)
    ax.axis("off")
    return ax


@door
def class_columns(
    images: Tensor,
    labels: Tensor,
    rows: int = 6,
    ax: Axes | None = None,
    title: str = "",
    names: Sequence[str] | None = None,
) -> Axes:
    """A grid with one column per class, its number or name below, `rows` images of each."""
    check_same_length(images, labels, "images")
    classes = labels.unique().tolist()
    for c in classes:
        if (have := int((labels == c).sum())) < rows:
            raise ValueError(f"rows={rows}, but class {c} has {have} images: give fewer rows")
    picked = torch.stack([images[labels == c][:rows] for c in classes], dim=1)  # (rows, C, 1, H, W)
    ax = image_grid(picked.flatten(0, 1), len(classes), ax, title)
    h, w = images.shape[2:]
    for k, c in enumerate(classes):
        label = str(c) if names is None else names[c]
        tilt = {"rotation": 30, "ha": "right"} if len(label) > 3 else {"ha": "center"}
        place = (w + GAP) * k + w / 2, (h + GAP) * rows + GAP
        ax.text(*place, label, va="top", fontsize=10, **tilt)
    return ax


def before_after(
    before: Tensor,
    after: Tensor,
    labels: Tensor,
    rows: int = 6,
    axes: Sequence[Axes] | None = None,
    names: Sequence[str] | None = None,
) -> Sequence[Axes]:
    """Two grids side by side, one column per class, the same z at the same place."""
    if axes is None:
        axes = plt.subplots(1, 2, figsize=(12, 0.6 * rows + 0.7), layout="constrained")[1]
    class_columns(before, labels, rows, axes[0], "before", names)
    class_columns(after, labels, rows, axes[1], "after, at the same z", names)
    return axes


def image_rows(
    rows: Mapping[str, Tensor], count: int = 10, ax: Axes | None = None, title: str = ""
) -> Axes:
    """One named row of images for each entry; a row with fewer than count is filled up white."""
    check_some(rows, "rows")
    sheet = []
    for name, images in rows.items():
        check_tensor(images, ("N", "C", "H", "W"), f"rows[{name!r}]")
        sheet += [images[:count], images.new_ones((max(0, count - len(images)), *images.shape[1:]))]
    ax = image_grid(torch.cat(sheet), count, ax, title)
    ax.axis("on")
    ax.set_xticks([])
    h = sheet[0].shape[2]
    ax.set_yticks([(h + GAP) * k + h / 2 for k in range(len(rows))], list(rows))
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return ax


def curves(
    history: Mapping[str, Sequence[float]],
    ax: Axes | None = None,
    xlabel: str = "step",
    ylabel: str = "nats per image",
) -> Axes:
    """One line per entry, against its index counted from 1."""
    check_some(history, "history")
    ax = new_axes(ax)
    for k, (name, values) in enumerate(history.items()):
        every = max(1, len(values) // 8)
        x = range(1, len(values) + 1)
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
    """Grouped bars, one group per class; values: name -> (C,), a colour and a hatch for each."""
    check_some(values, "values", Tensor)
    sizes = {name: len(heights) for name, heights in values.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"values have different numbers of classes: {sizes}")
    n = next(iter(sizes.values()))
    shown = list(map(str, range(n)) if names is None else names)
    if len(shown) != n:
        raise ValueError(f"names={shown} has {len(shown)} entries: give {n}, one per class")
    ax, width = new_axes(ax, 7.0, 3.0), 0.8 / len(values)
    for k, (name, heights) in enumerate(values.items()):
        x = torch.arange(len(heights)) + (k - (len(values) - 1) / 2) * width
        own = MODELS.get(name, OTHERS[k % 7])
        look: dict[str, Any] = {"color": PALETTE[own], "hatch": HATCHES[own % 4]}
        ax.bar(x.tolist(), heights.tolist(), width, label=name, edgecolor="white", **look)
    ax.set_xticks(range(len(shown)), shown, rotation=30 if max(map(len, shown)) > 3 else 0)
    ax.set(xlabel="class", ylabel=ylabel)
    ax.set_title(title, fontsize=10, pad=20)
    ax.legend(frameon=False, fontsize=8, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return ax


@door
def fisher_layers(fisher: Fisher, ax: Axes | None = None) -> Axes:
    """Share of the Fisher's total in each parameter, with twice its standard error, log scale."""
    sums = {name: pair for name, pair in fisher.sums().items() if pair[0] > 0}
    check_some(sums, "the Fisher's entries above 0")
    total = sum(value for value, _ in sums.values())
    ax = new_axes(ax, 6.0, 0.25 * len(sums) + 1.0)
    shares = [100 * value / total for value, _ in sums.values()]
    errors = [200 * error / total for _, error in sums.values()]
    ax.barh(list(sums), shares, xerr=errors, color=BEFORE, ecolor="black", capsize=2)
    ax.invert_yaxis()
    ax.set(xlabel=f"percent of the Fisher's total (n = {fisher.n} images)", xscale="log")
    return ax


def fisher_pixels(maps: Mapping[str, Tensor], ax: Axes | None = None) -> Axes:
    """Named Fisher values per pixel, each (H, W) or a flat square, side by side, log scale."""
    check_some(maps, "maps", Tensor)
    side, parts = math.isqrt(next(iter(maps.values())).numel()), []
    for name, values in maps.items():
        if values.ndim != 2 and values.numel() != side**2:
            raise ValueError(
                f"maps[{name!r}] of shape {tuple(values.shape)} must be (H, W) or a flat square"
            )
        found = values.detach().cpu().view(values.shape if values.ndim == 2 else (side, side))
        parts.append(F.pad(found.clamp(min=0), (0, GAP), value=math.nan))
    sheet = torch.cat(parts, 1)[:, :-GAP]
    h, step = len(sheet), parts[0].shape[1]
    ax = new_axes(ax, 1.0 * len(maps) + 1.5, 1.5)
    shown = sheet.clamp(min=1e-4 * float(sheet.nan_to_num().max())).log10()
    drawn = ax.imshow(shown.numpy(), cmap="cividis", interpolation="nearest")
    ax.figure.colorbar(drawn, ax=ax, label="log10 F", fraction=0.02, pad=0.01)
    for k, name in enumerate(maps):
        ax.text(step * k + (step - GAP) / 2, h + 1, name, ha="center", va="top", fontsize=9)
    ax.axis("off")
    return ax


def recovery_curves(
    curves: Mapping[str, RecoveryCurve], ax: Axes | None = None, title: str = ""
) -> Axes:
    """P(c_f) against steps of fine-tuning, one line per model, with its area at its end."""
    check_some(curves, "curves", RecoveryCurve)
    ax = new_axes(ax, 5.0, 3.2)
    for k, (name, curve) in enumerate(curves.items()):
        label = f"{name} {curve.area:.2f}"
        ax.plot(curve.steps, curve.probability, label=label, ms=4, **line_style(k, name))
    ax.set(xlabel="steps of fine-tuning", ylabel="P(c_f) of the stricter judge", ylim=(-0.03, 1.05))
    ax.set_title(title, fontsize=10)
    label_lines(ax)
    return ax
