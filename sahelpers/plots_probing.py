"""Figures of the probes.  As in `plots`: on the axes given, or on new ones, which are returned."""

from collections.abc import Mapping

import torch
from matplotlib.axes import Axes
from torch import Tensor

from .checks import IMAGE_SHAPE, check_is, check_tensor, check_whole
from .excess import MARGIN, NO_MORE, REMAINS, Finding
from .plots import MARKERS, PALETTE, check_some, image_grid, new_axes
from .recovery import RecoveryCurve

HATCHES = ("", "//", "..", "xx")
LINES = ("-", "--", "-.", ":")


def image_rows(
    rows: Mapping[str, Tensor], count: int = 10, ax: Axes | None = None, title: str = ""
) -> Axes:
    """One named row of images for each entry; a row with fewer than count is filled up white."""
    check_some(rows, "rows")
    check_whole(count, "count")
    for name, images in rows.items():
        check_tensor(images, ("N", *IMAGE_SHAPE), f"rows[{name!r}]")
    padded = [
        torch.cat([r[:count], r.new_ones((max(0, count - len(r)), 1, 28, 28))])
        for r in rows.values()
    ]
    ax = image_grid(torch.cat(padded), count, ax, title)
    ax.axis("on")
    ax.set_xticks([])
    ax.set_yticks([30 * k + 14 for k in range(len(rows))], list(rows))
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return ax


def rate_bars(
    rates: Mapping[str, Mapping[str, float]],
    ax: Axes | None = None,
    ylabel: str = "success per restart",
    title: str = "",
) -> Axes:
    """Grouped bars of rates in [0, 1]; rates: model -> attack -> rate, one group per attack."""
    check_some(rates, "rates")
    attacks = list(next(iter(rates.values())))
    for model, values in rates.items():
        if set(values) != set(attacks):
            raise ValueError(f"rates[{model!r}] has {list(values)}, the first {attacks}")
    ax = new_axes(ax, 1.5 + 1.1 * len(attacks), 3.0)
    width = 0.8 / len(rates)
    for k, (model, values) in enumerate(rates.items()):
        x = [a + (k - (len(rates) - 1) / 2) * width for a in range(len(attacks))]
        heights = [values[a] for a in attacks]
        color, hatch = PALETTE[k % 7], HATCHES[k % 4]
        bars = ax.bar(x, heights, width, label=model, color=color, hatch=hatch, edgecolor="white")
        ax.bar_label(bars, fmt="%.2f", fontsize=7, padding=1)
    ax.set_xticks(range(len(attacks)), attacks)
    ax.set(ylabel=ylabel, ylim=(0, 1.3))
    ax.set_title(title, fontsize=10)
    ax.legend(frameon=False, fontsize=8, ncols=len(rates), loc="upper center")
    return ax


def recovery_curves(
    curves: Mapping[str, RecoveryCurve], ax: Axes | None = None, title: str = ""
) -> Axes:
    """P(c_f) against steps of fine-tuning, one line per model."""
    check_some(curves, "curves")
    ax = new_axes(ax, 5.0, 3.2)
    for k, (name, curve) in enumerate(curves.items()):
        check_is(curve, RecoveryCurve, f"curves[{name!r}]")
        ax.plot(
            curve.steps,
            curve.probability,
            label=f"{name} (area {curve.area:.2f})",
            color=PALETTE[k % 7],
            marker=MARKERS[k % 7],
            linestyle=LINES[k % 4],
            ms=4,
        )
    ax.set(xlabel="steps of fine-tuning", ylabel="P(c_f), mean of samples", ylim=(-0.03, 1.05))
    ax.set_title(title, fontsize=10)
    # below the axes, for curves go anywhere inside
    ax.legend(frameon=False, fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.2))
    return ax


def excess_intervals(
    findings: Mapping[str, Finding], ax: Axes | None = None, title: str = ""
) -> Axes:
    """Excess over the controls with its 95 % interval, one row per entry.

    Blue: no more than the control; orange: memory remains; gray: no verdict.  The upright bar is
    the baseline's excess, what the attack finds where the class is known; dashed: the margin.
    """
    check_some(findings, "findings")
    for name, finding in findings.items():
        check_is(finding, Finding, f"findings[{name!r}]")
    ax = new_axes(ax, 4.5, 0.3 * len(findings) + 1.0)
    for row, finding in enumerate(findings.values()):
        ends = [finding.excess_low, finding.excess_high]
        color = {NO_MORE: PALETTE[0], REMAINS: PALETTE[1]}.get(finding.verdict, "gray")
        ax.plot(ends, [row, row], color=color, lw=2)
        ax.plot(finding.excess, row, MARKERS[0], color=color, ms=5)
        ax.plot(finding.baseline - finding.control, row, "|", color="black", ms=9, mew=2)
    ax.axvline(0, color="black", lw=0.8)
    ax.axvline(MARGIN, color="black", lw=0.8, ls="--")
    ax.set_yticks(range(len(findings)), list(findings))
    ax.set_ylim(len(findings) - 0.5, -0.5)
    ax.set(xlabel="excess over the controls", xlim=(-1.05, 1.05))
    ax.set_title(title, fontsize=10)
    return ax
