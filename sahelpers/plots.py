"""Figures.  Every function draws on the axes it is given, or on new ones, and returns them."""

from collections.abc import Mapping, Sequence, Sized
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from .checks import IMAGE_SHAPE, check_is, check_same_length, check_tensor, check_whole
from .evaluation import Verdict
from .fisher import Fisher

# Okabe and Ito's colours: told apart by the colour-blind and, by lightness, in a grey print.
BEFORE, AFTER, CONTROL = "#0072B2", "#D55E00", "#009E73"
PALETTE = (BEFORE, AFTER, CONTROL, "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"


def new_axes(ax: Axes | None, width: float = 6.0, height: float = 3.5) -> Axes:
    """The axes given, or the axes of a new figure of this size in inches."""
    return plt.subplots(figsize=(width, height), layout="constrained")[1] if ax is None else ax


def check_some(things: Sized, name: str) -> None:
    """ValueError when there is nothing to draw."""
    if not len(things):
        raise ValueError(f"{name} is empty: give at least one to draw")


def _class_names(names: Sequence[str] | None, n: int) -> list[str]:
    """The names, or the numbers, of n classes."""
    if names is not None and len(names) != n:
        raise ValueError(f"names={list(names)} has {len(names)} entries: give {n}, one per class")
    return list(names or map(str, range(n)))


def image_grid(
    images: Tensor, columns: int = 10, ax: Axes | None = None, title: str = "", gap: int = 2
) -> Axes:
    """Images (N, 1, 28, 28) in [0, 1], row by row; black is 0, as MNIST is stored."""
    check_tensor(images, ("N", *IMAGE_SHAPE), "images")
    check_whole(columns, "columns")
    check_whole(gap, "gap", 0)
    check_some(images, "images")
    rows = -(-len(images) // columns)
    step = 28 + gap
    sheet = torch.full((rows * step - gap, columns * step - gap), 1.0)
    for k, image in enumerate(images.detach().cpu()):
        r, c = divmod(k, columns)
        sheet[r * step : r * step + 28, c * step : c * step + 28] = image[0]
    ax = new_axes(ax, 0.6 * columns, 0.6 * rows + 0.3)
    ax.imshow(sheet.numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    ax.set_title(title, fontsize=10)
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
    """A grid with one column per class, its number or name below, `rows` images of each."""
    check_tensor(images, ("N", *IMAGE_SHAPE), "images")
    check_is(labels, Tensor, "labels")
    check_same_length(images, labels, "images")
    check_whole(rows, "rows")
    classes = labels.unique().tolist()
    for c in classes:
        if (have := int((labels == c).sum())) < rows:
            raise ValueError(f"rows={rows}, but class {c} has {have} images: give fewer rows")
    picked = torch.stack([images[labels == c][:rows] for c in classes], dim=1)  # (rows, C, 1, H, W)
    ax = image_grid(picked.flatten(0, 1), len(classes), ax, title)
    for k, c in enumerate(classes):
        label = str(c) if names is None else names[c]
        tilt = {"rotation": 30, "ha": "right"} if len(label) > 3 else {"ha": "center"}
        ax.text(30 * k + 14, 30 * rows + 2, label, va="top", fontsize=10, **tilt)
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


def curves(
    history: Mapping[str, Sequence[float]],
    ax: Axes | None = None,
    xlabel: str = "step",
    ylabel: str = "nats per image",
    log: bool = False,
) -> Axes:
    """One line per entry, against its index counted from 1."""
    check_some(history, "history")
    ax = new_axes(ax)
    for k, (name, values) in enumerate(history.items()):
        x = range(1, len(values) + 1)
        style: dict[str, Any] = {"color": PALETTE[k % 7], "marker": MARKERS[k % 7]}
        ax.plot(x, values, label=name, markevery=max(1, len(values) // 8), ms=4, **style)
    ax.set(xlabel=xlabel, ylabel=ylabel, yscale="log" if log else "linear")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(frameon=False, fontsize=8)
    return ax


def answers(
    verdict: Verdict,
    ax: Axes | None = None,
    title: str = "",
    names: Sequence[str] | None = None,
) -> Axes:
    """Matrix of what a judge answers (column) to each label asked for (row), in percent."""
    check_is(verdict, Verdict, "verdict")
    share = 100 * verdict.argmax
    ax = new_axes(ax, 5.0, 4.4)
    ax.imshow(share.numpy(), cmap="cividis", vmin=0, vmax=100)
    for r, row in enumerate(share.tolist()):
        for c, value in enumerate(row):
            if value >= 0.5:
                dark = value < 50
                ax.text(
                    c, r, f"{value:.0f}", ha="center", va="center", fontsize=7,
                    color="white" if dark else "black",
                )  # fmt: skip
    asked = _class_names(names, len(share))
    given = asked + ["none"] * (share.shape[1] - len(asked))
    ax.set_xticks(range(len(given)), given, rotation=60 if max(map(len, asked)) > 3 else 0)
    ax.set_yticks(range(len(asked)), asked)
    ax.set(xlabel="judge's answer", ylabel="label asked for")
    ax.set_title(title or f"percent of {verdict.n} samples per class", fontsize=10)
    return ax


def class_bars(
    values: Mapping[str, Tensor],
    ax: Axes | None = None,
    ylabel: str = "",
    title: str = "",
    names: Sequence[str] | None = None,
) -> Axes:
    """Grouped bars, one group per class; values: name -> (C,)."""
    check_some(values, "values")
    sizes = {name: len(heights) for name, heights in values.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"values have different numbers of classes: {sizes}")
    ax = new_axes(ax, 7.0, 3.0)
    width = 0.8 / len(values)
    hatches = ("", "//", "..", "xx")
    for k, (name, heights) in enumerate(values.items()):
        x = [c + (k - (len(values) - 1) / 2) * width for c in range(len(heights))]
        style: dict[str, Any] = {"color": PALETTE[k % 7], "hatch": hatches[k % 4]}
        ax.bar(x, heights.tolist(), width, label=name, edgecolor="white", **style)
    shown = _class_names(names, len(heights))
    ax.set_xticks(range(len(shown)), shown, rotation=30 if max(map(len, shown)) > 3 else 0)
    ax.set(xlabel="class", ylabel=ylabel)
    ax.set_title(title, fontsize=10, pad=20)
    ax.legend(
        frameon=False, fontsize=8, ncols=len(values), loc="lower center", bbox_to_anchor=(0.5, 1.0)
    )
    return ax


def fisher_layers(fisher: Fisher, ax: Axes | None = None) -> Axes:
    """Share of the Fisher's total in each parameter, with twice its standard error, log scale."""
    check_is(fisher, Fisher, "fisher")
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
    """Named Fisher values per pixel, each (784,) or (28, 28), side by side on one log scale."""
    check_some(maps, "maps")
    for name, values in maps.items():
        check_is(values, Tensor, f"maps[{name!r}]")
        if values.numel() != 784:
            raise ValueError(f"maps[{name!r}] of shape {tuple(values.shape)} must be (784,)")
    sheet = torch.full((28, 30 * len(maps) - 2), float("nan"))
    for k, values in enumerate(maps.values()):
        sheet[:, 30 * k : 30 * k + 28] = values.detach().cpu().view(28, 28).clamp(min=0)
    ax = new_axes(ax, 1.0 * len(maps) + 1.5, 1.5)
    floor = 1e-4 * float(sheet.nan_to_num().max())
    shown = sheet.clamp(min=floor).log10().numpy()
    drawn = ax.imshow(shown, cmap="cividis", interpolation="nearest")
    ax.figure.colorbar(drawn, ax=ax, label="log10 F", fraction=0.02, pad=0.01)
    for k, name in enumerate(maps):
        ax.text(30 * k + 14, 29, name, ha="center", va="top", fontsize=9)
    ax.axis("off")
    return ax
