"""What the dashboards share: tabs, frame, knobs, status line, worker; pictures, curves and tables.

Only what ipywidgets 7.7 (Colab) and 8.1 (JupyterLab) have in common is used.  What is shown is
HTML with small pictures in it: it takes the page's colours, and no figure has to be drawn.
"""

import base64
import html
import io
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import ipywidgets as ipw
import matplotlib.image
import torch
from IPython import get_ipython
from torch import Tensor

from .. import plots
from .worker import ACROSS, Worker, help_text, release_idle_threads, steps_of

Action = Callable[[Any], None]
LABEL = {"description_width": "135px"}
SIDE = 60  # pixels of a digit in a picture, which the page may show smaller
HIGH = 80  # pixels of the axis of curves and bars
FLOOR = 0.1  # nats at the foot of the curves
DASHES = ("", "6 2", "2 2", "8 2 2 2", "4 4", "1 3", "9 1")  # with plots.PALETTE, one per term


class Dashboard(ipw.VBox):  # type: ignore[misc]  # ipywidgets has no types
    """A column of controls, a column of pictures, a status line; wraps in a narrow window.

    Long work goes through `worker`: in a thread, or at once in Colab.  Whatever goes wrong is shown
    in the status line and kept in `error`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.status = ipw.HTML()
        self.error: Exception | None = None
        self.quiet = False
        self.worker = Worker("google.colab" not in sys.modules, self.show_error, self.when_idle)
        shell = get_ipython()
        if shell is not None and self.worker.threaded:
            shell.events.register("post_run_cell", release_idle_threads)

    def __repr__(self) -> str:
        """The same text on every machine: it stands in the notebook file beside the widget."""
        return f"{type(self).__name__}: live where this notebook runs"

    def arrange(self, controls: Sequence[ipw.Widget], pictures: Sequence[ipw.Widget]) -> None:
        """Put the controls and the status line to the left, the pictures to the right."""
        narrow = ipw.Layout(flex="1 1 300px", min_width="0", max_width="370px")
        wide = ipw.Layout(flex="1 1 440px", min_width="0", align_items="flex-start")
        left = ipw.VBox([*controls, self.status], layout=narrow)
        right = ipw.VBox(list(pictures), layout=wide)
        self.children = (wrapped([left, right], align_items="flex-start"),)

    def say(self, text: str) -> None:
        """Show a sentence in the status line."""
        self.status.value = f'<div role="status" aria-live="polite">{html.escape(text)}</div>'

    def show_error(self, error: Exception) -> None:
        """Show what went wrong in the status line."""
        self.error = error
        self.status.value = alert(error)

    def when_idle(self) -> None:
        """Called when the worker has nothing left to do."""

    def guarded(self, action: Action) -> Action:
        """The action as a callback whose errors reach the status line."""

        def call(event: Any) -> None:
            try:
                action(event)
            except Exception as error:
                self.show_error(error)

        return call

    def button(self, text: str, tip: str, action: Callable[[], None], style: str = "") -> Any:
        """A push button."""
        made = ipw.Button(description=text, tooltip=tip, button_style=style)
        made.layout = ipw.Layout(width="auto")
        made.on_click(self.guarded(lambda _: action()))
        return made

    def toggle(self, text: str, tip: str, on: bool, action: Action) -> Any:
        """A small button that stays down until it is pressed again."""
        size = ipw.Layout(width="30px", padding="0", margin="1px")
        made = ipw.ToggleButton(value=on, description=text, tooltip=tip, layout=size)
        return self.watch(made, action)

    def watch(self, widget: ipw.Widget, action: Action) -> Any:
        """Call the action with every new value of the widget, but not `quietly`; returns it."""
        call = self.guarded(lambda event: action(event["new"]))
        widget.observe(lambda event: None if self.quiet else call(event), "value")
        return widget

    @contextmanager
    def quietly(self) -> Iterator[None]:
        """Inside, widgets follow the controller, and their own actions are not called."""
        self.quiet = True
        try:
            yield
        finally:
            self.quiet = False

    def menu(self, name: str, options: Iterable[Any], value: Any, action: Action) -> Any:
        """A choice from a list."""
        made = ipw.Dropdown(options=tuple(options), value=value, **labelled(name))
        return self.watch(made, action)


class Tabs(ipw.Tab):  # type: ignore[misc]
    """make: title -> what makes the tab's widget, the first at once, others when first opened."""

    __repr__ = Dashboard.__repr__

    def __init__(self, make: Mapping[str, Callable[[], ipw.Widget]]) -> None:
        super().__init__([ipw.VBox() for _ in make])
        self.left = dict(enumerate(make.values()))
        for k, title in enumerate(make):
            self.set_title(k, title)
        self.observe(lambda event: self.fill(event["new"]), "selected_index")
        self.fill(0)

    def fill(self, index: int | None) -> None:
        """Make what the tab shows if it is not there yet; an error stands in its place."""
        if index in self.left:
            box = self.children[index]
            box.children = (ipw.HTML("Loading ..."),)
            try:
                box.children = (self.left[index](),)
                del self.left[index]
            except Exception as error:
                box.children = (ipw.HTML(alert(error)),)


class KnobDashboard(Dashboard):
    """A dashboard with a slider for each of these fields of the controller's configuration.

    controller: has `config`, `change(**values)` and `code()`.  kept: what Stop leaves, in words.
    """

    def __init__(self, controller: Any, names: Iterable[str], kept: str) -> None:
        super().__init__()
        self.controller = controller
        self.stop = self.button("Stop", f"end it, keep {kept}", self._stop)
        self.knobs = {name: self._knob(name) for name in names}
        self.progress = ipw.FloatProgress(min=0.0, max=1.0, **labelled("PROGRESS"))
        self.table = ipw.HTML()
        wide = ipw.Layout(width="98%", height="92px")
        self.code = ipw.Textarea(description="AS CODE", layout=wide, rows=4)
        helps = help_text(controller.config, self.knobs)
        self.help = ipw.HTML(f"<details><summary>What the knobs do</summary>{helps}</details>")

    def change(self, name: str, value: Any) -> None:
        """Give the controller a new value of a field."""
        self.controller.change(**{name: value})
        self.show_code()

    def show_code(self) -> None:
        """Show the line of code that belongs to the controller's state."""
        self.code.value = self.controller.code()

    def set_knobs(self) -> None:
        """Move every slider to the configuration's value, offering it if it was not offered yet."""
        config = self.controller.config
        with self.quietly():
            for name, slider in self.knobs.items():
                value = getattr(config, name)
                if value not in [v for _, v in slider.options]:
                    slider.options = _options(config, name)
                slider.value = value

    def when_idle(self) -> None:
        """Nothing runs: Stop rests."""
        self.stop.disabled = True

    def _stop(self) -> None:
        self.say("Stopping ...")
        self.worker.stop()

    def _knob(self, name: str) -> Any:
        config = self.controller.config
        slider = ipw.SelectionSlider(
            options=_options(config, name), value=getattr(config, name), continuous_update=False,
            **labelled(name.upper()),
        )  # fmt: skip
        return self.watch(slider, lambda value: self.change(name, value))


def _options(config: Any, name: str) -> list[tuple[str, Any]]:
    return [(f"{v:g}", v) for v in steps_of(config, name)]


def labelled(name: str) -> dict[str, Any]:
    """The arguments of a widget in the column of controls, with this label."""
    return {"description": name, "style": LABEL, "layout": ipw.Layout(width="98%")}


def wrapped(children: Sequence[ipw.Widget], **layout: str) -> Any:
    """Widgets side by side, in several rows where the window is narrow."""
    flow = ipw.Layout(display="flex", flex_flow="row wrap", **layout)
    return ipw.Box(list(children), layout=flow)


def alert(error: Exception) -> str:
    """What went wrong, as HTML that a screen reader announces."""
    kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
    style = "background: #f7d9c4; color: black; padding: 0 6px"
    return f'<div role="alert" style="{style}"><b>Error</b> {html.escape(f"{kind}{error}")}</div>'


def png(images: Tensor, columns: int) -> bytes:
    """A PNG of images (N, C, H, W) in [0, 1] with white borders, about SIDE pixels each."""
    framed = torch.nn.functional.pad(images.cpu(), (1, 1, 1, 1), value=1.0)
    framed = framed.unflatten(0, (-1, columns))  # (rows, columns, C, H + 2, W + 2)
    sheet = framed.permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1).squeeze(2)
    times = max(1, SIDE // max(framed.shape[3:]))
    pixels = sheet.numpy().repeat(times, 0).repeat(times, 1)
    buffer = io.BytesIO()
    matplotlib.image.imsave(buffer, pixels, cmap="gray", vmin=0, vmax=1, format="png")
    return buffer.getvalue()


def sheet(
    rows: Mapping[str, Sequence[Tensor]], heads: Sequence[Sequence[Any]], sides: Sequence[int]
) -> str:
    """Named rows of pictures as HTML, each name beside its row at any width of the page.

    rows: name -> images (N, C, H, W) in [0, 1] of each picture.  heads: for each picture the
    words over its columns, as many as it has columns.  sides: pixels of an image in it, at most.
    """
    wide = [side * len(head) for side, head in zip(sides, heads, strict=True)]
    cells = ["<span></span>"]
    for head in heads:
        look = f"grid-template-columns: repeat({len(head)}, minmax(0, 1fr)); line-height: 1.2"
        words = "".join(f"<span>{word}</span>" for word in head)
        cells.append(f'<div style="display: grid; {look}; text-align: center">{words}</div>')
    for name, pictures in rows.items():
        cells.append(f'<span style="line-height: 1.2">{html.escape(name)}</span>')
        for images, head, width in zip(pictures, heads, wide, strict=True):
            source = base64.b64encode(png(images, len(head))).decode()
            high, across = images.shape[2] + 2, images.shape[3] + 2
            ratio = f"{len(head) * across} / {len(images) // len(head) * high}"
            shape = f"width: 100%; aspect-ratio: {ratio}"
            cells.append(
                f'<img alt="{html.escape(name)}" decoding="sync" style="display: block; {shape}; '
                f'max-width: {width}px" src="data:image/png;base64,{source}">'
            )
    columns = " ".join(f"minmax(0, {width}px)" for width in wide)
    grid = f"display: grid; grid-template-columns: max-content {columns}; gap: 3px 10px"
    return f'<div style="{grid}; align-items: center; margin-bottom: 8px">{"".join(cells)}</div>'


def _svg(width: int, height: int, told: str, *parts: str) -> str:
    """A drawing in the page's own colour; told: what it shows, for those who cannot see it."""
    size = f'width="{width}" viewBox="0 0 {width} {height}" style="max-width: 100%"'
    look = f'fill="currentColor" font-size="11" role="img" aria-label="{told}"'
    return f"<svg {size} {look}>{''.join(parts)}</svg>"


def curves(history: Mapping[str, Sequence[float]]) -> str:
    """An SVG with one line per term of the loss, from step 1 to now, and the terms' last values;
    log scale, from FLOOR nats up."""
    left, wide, high = 35, 200, HIGH
    top = max(2 * FLOOR, *(max(values) for values in history.values()))
    steps = max(len(values) for values in history.values())
    lines, decade = [], high / math.log10(top / FLOOR)  # pixels
    for k, (name, values) in enumerate(history.items()):
        points = " ".join(
            f"{left + wide * j / max(1, steps - 1):.1f},"
            f"{10 + decade * math.log10(top / max(values[j], FLOOR)):.1f}"
            for j in range(0, len(values), max(1, steps // 100))
        )
        style = f'fill="none" stroke="{plots.PALETTE[k % 7]}" stroke-dasharray="{DASHES[k % 7]}"'
        x, y = left + wide + 12, 20 + 16 * k
        lines.append(
            f'<polyline {style} stroke-width="2" points="{points}"/>'
            f'<path {style} stroke-width="2" d="M{x},{y - 4}h24"/>'
            f'<text x="{x + 30}" y="{y}">{name} {values[-1]:.1f}</text>'
        )
    told = ", ".join(f"{name} {values[-1]:.1f}" for name, values in history.items())
    lines += [
        f'<path d="M{left},10v{high}h{wide}" fill="none" stroke="currentColor"/>',
        f'<text x="{left - 5}" y="14" text-anchor="end">{top:.3g}</text>',
        f'<text x="{left - 5}" y="{high + 12}" text-anchor="end">{FLOOR:g}</text>',
        f'<text x="{left}" y="{high + 26}">nats per image (log), up to step {steps}</text>',
    ]
    return _svg(left + wide + 125, high + 40, f"Loss, nats per image: {told}", *lines)


def bars(values: Mapping[int, float], what: str) -> str:
    """An SVG with a bar per class, up for a gain and down for a loss, with its number."""
    middle, scale = 14 + HIGH / 2, (HIGH / 2 - 6) / max(1.0, *map(abs, values.values()))
    wide, drawn = 34 * min(ACROSS, len(values)), list[str]()
    for k, (label, value) in enumerate(values.items()):
        high, colour = scale * value, plots.AFTER if value < 0 else plots.BEFORE
        top, place = middle - max(high, 0), middle - high + (11 if value < 0 else -3)
        at = f"translate({34 * (k % ACROSS)},{(HIGH + 44) * (k // ACROSS)})"
        drawn.append(
            f'<g text-anchor="middle" transform="{at}">'
            f'<path d="M0,{middle}h34" stroke="currentColor"/>'
            f'<rect x="7" y="{top:.1f}" width="20" height="{abs(high):.1f}" fill="{colour}"/>'
            f'<text x="17" y="{place:.1f}">{value:+.1f}</text>'
            f'<text x="17" y="{HIGH + 38}">{label}</text></g>'
        )
    told = ", ".join(f"class {label} {value:+.1f}" for label, value in values.items())
    svg = _svg(wide, (HIGH + 44) * -(-len(values) // ACROSS), f"{what}: {told}", *drawn)
    return svg + f'<div style="line-height: 1.4">{what}</div>'


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """An HTML table whose first column names the row; it scrolls where the page is narrow."""
    cell = 'style="padding: 0 5px; text-align: right"'
    top = "".join(f'<th scope="col" {cell}>{html.escape(h)}</th>' for h in head)
    body = ""
    for first, *rest in rows:
        values = "".join(f"<td {cell}>{html.escape(v)}</td>" for v in rest)
        body += f'<tr><th scope="row" {cell}>{html.escape(first)}</th>{values}</tr>'
    told = f'<caption style="text-align: left">{html.escape(caption)}</caption>'
    look = "overflow-x: auto; font-size: 12px; line-height: 1.4"
    return f'<div style="{look}"><table>{told}<tr>{top}</tr>{body}</table></div>'
