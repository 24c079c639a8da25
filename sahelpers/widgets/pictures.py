"""What the dashboards show: figures and images as PNG, curves as SVG, tables as HTML.

Figures never touch pyplot, whose state belongs to the notebook's own cells.
"""

import html
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ipywidgets as ipw
import matplotlib.image
import torch
from matplotlib.figure import Figure
from torch import Tensor

from .. import plots
from ..controllers import LOCK

SIDE = 60  # pixels of a digit in a quick picture
DASHES = ("", "6 2", "2 2", "8 2 2 2", "4 4", "1 3", "9 1")  # with plots.PALETTE, one per term


def picture_box() -> Any:
    """An empty picture that never grows wider than its column."""
    return ipw.Image(format="png", layout=ipw.Layout(max_width="100%", object_fit="contain"))


def rendered(draw: Callable[[Figure], None], width: float, height: float) -> bytes:
    """A PNG of what `draw` puts on a new figure of this size in inches."""
    with LOCK:
        figure = Figure(figsize=(width, height), dpi=100)
        draw(figure)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
    return buffer.getvalue()


def image_rows(images: Tensor, columns: int) -> bytes:
    """A PNG of images (N, 1, 28, 28) in [0, 1], each SIDE pixels wide and high with its border.

    For pictures that follow each other quickly: a figure takes twenty times as long.
    """
    framed = torch.nn.functional.pad(images[:, 0].cpu(), (1, 1, 1, 1), value=1.0)  # (N, 30, 30)
    sheet = framed.unflatten(0, (-1, columns)).transpose(1, 2).flatten(2).flatten(0, 1)
    pixels = sheet.numpy().repeat(SIDE // 30, 0).repeat(SIDE // 30, 1)
    buffer = io.BytesIO()
    matplotlib.image.imsave(buffer, pixels, cmap="gray", vmin=0, vmax=1, format="png")
    return buffer.getvalue()


def curves(history: Mapping[str, Sequence[float]]) -> str:
    """An SVG with one line per term of the loss, from step 1 to now, and the terms' last values."""
    left, wide, high = 35, 200, 2 * SIDE - 40
    top = max(max(values) for values in history.values()) or 1.0
    steps = max(len(values) for values in history.values())
    lines = []
    for k, (name, values) in enumerate(history.items()):
        points = " ".join(
            f"{left + wide * j / max(1, steps - 1):.1f},{10 + high * (1 - values[j] / top):.1f}"
            for j in range(0, len(values), max(1, steps // 100))
        )
        style = f'fill="none" stroke="{plots.PALETTE[k]}" stroke-dasharray="{DASHES[k]}"'
        x, y = left + wide + 12, 20 + 16 * k
        lines.append(
            f'<polyline {style} stroke-width="2" points="{points}"/>'
            f'<path {style} stroke-width="2" d="M{x},{y - 4}h24"/>'
            f'<text x="{x + 30}" y="{y}">{name} {values[-1]:.1f}</text>'
        )
    told = ", ".join(f"{name} {values[-1]:.1f}" for name, values in history.items())
    return (
        f'<svg width="{left + wide + 125}" height="{2 * SIDE}" fill="currentColor" font-size="11" '
        f'role="img" aria-label="Loss, nats per image: {told}">'
        f'<path d="M{left},10v{high}h{wide}" fill="none" stroke="currentColor"/>'
        f'<text x="{left - 5}" y="14" text-anchor="end">{top:.0f}</text>'
        f'<text x="{left - 5}" y="{high + 12}" text-anchor="end">0</text>'
        f'<text x="{left}" y="{high + 26}">nats per image, up to step {steps}</text>'
        f"{''.join(lines)}</svg>"
    )


def table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An HTML table whose first column names the row."""
    cell = 'style="padding: 0 8px; text-align: right"'
    top = "".join(f'<th scope="col" {cell}>{html.escape(h)}</th>' for h in head)
    body = "".join(
        f'<tr><th scope="row" {cell}>{html.escape(first)}</th>'
        + "".join(f"<td {cell}>{html.escape(v)}</td>" for v in rest)
        + "</tr>"
        for first, *rest in rows
    )
    return f"<table><caption>{html.escape(caption)}</caption><tr>{top}</tr>{body}</table>"
