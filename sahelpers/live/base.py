"""What the dashboards share: frame, knobs, status line, worker; pictures, curves and tables.

Only what ipywidgets 7.7 (Colab) and 8.1 (JupyterLab) have in common is used.  Figures never touch
pyplot, whose state belongs to the notebook's own cells.
"""

import html
import io
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import ipywidgets as ipw
import matplotlib.image
import torch
from IPython import get_ipython
from matplotlib.figure import Figure
from torch import Tensor

from .. import plots
from .worker import LOCK, Worker, help_text, release_idle_threads, steps_of

PANEL = "370px"  # width of the column of controls
LABEL = {"description_width": "135px"}
SIDE = 60  # pixels of a digit in a quick picture
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
        self.worker = Worker("google.colab" not in sys.modules, self.show_error, self.when_idle)
        shell = get_ipython()
        if shell is not None and self.worker.threaded:
            shell.events.register("post_run_cell", release_idle_threads)

    def __repr__(self) -> str:
        """The same text on every machine: it stands in the notebook file beside the widget."""
        return f"{type(self).__name__}: live where this notebook runs"

    def arrange(self, controls: Sequence[ipw.Widget], pictures: Sequence[ipw.Widget]) -> None:
        """Put the controls and the status line to the left, the pictures to the right."""
        left = ipw.VBox(
            [*controls, self.status], layout=ipw.Layout(flex=f"0 0 {PANEL}", width=PANEL)
        )
        right = ipw.VBox(
            list(pictures),
            layout=ipw.Layout(flex="1 1 440px", min_width="0", align_items="flex-start"),
        )
        self.children = (wrapped([left, right], align_items="flex-start"),)

    def say(self, text: str) -> None:
        """Show a sentence in the status line."""
        self.status.value = f'<div role="status" aria-live="polite">{html.escape(text)}</div>'

    def show_error(self, error: Exception) -> None:
        """Show what went wrong in the status line."""
        self.error = error
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        style = "background: #f7d9c4; color: black; padding: 0 6px"
        text = html.escape(f"{kind}{error}")
        self.status.value = f'<div role="alert" style="{style}"><b>Error</b> {text}</div>'

    def when_idle(self) -> None:
        """Called when the worker has nothing left to do."""

    def guarded(self, action: Callable[[Any], None]) -> Callable[[Any], None]:
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

    def toggle(self, text: str, tip: str, on: bool, action: Callable[[Any], None]) -> Any:
        """A small button that stays down until it is pressed again."""
        size = ipw.Layout(width="30px", padding="0", margin="1px")
        made = ipw.ToggleButton(value=on, description=text, tooltip=tip, layout=size)
        return self.watch(made, action)

    def watch(self, widget: ipw.Widget, action: Callable[[Any], None]) -> Any:
        """Call the action with every new value of the widget; returns the widget."""
        widget.observe(self.guarded(lambda event: action(event["new"])), "value")
        return widget

    def menu(
        self, name: str, options: Iterable[Any], value: Any, action: Callable[[Any], None]
    ) -> Any:
        """A choice from a list."""
        made = ipw.Dropdown(options=tuple(options), value=value, **labelled(name))
        return self.watch(made, action)


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
        wide = ipw.Layout(width="98%", height="70px")
        self.code = ipw.Textarea(description="AS CODE", layout=wide, rows=3)
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


def beside(names: Sequence[ipw.Widget], picture: ipw.Widget) -> Any:
    """Names of a picture's rows to the left of it, each in the middle of its row, at any width."""
    middle = ipw.Layout(flex="0 0 auto", justify_content="space-around")
    return ipw.HBox([ipw.VBox(list(names), layout=middle), picture])


def picture_box() -> Any:
    """An empty picture that never grows wider than its column."""
    shape = ipw.Layout(max_width="100%", min_width="0", object_fit="contain")
    return ipw.Image(format="png", layout=shape)


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


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
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
