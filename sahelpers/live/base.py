"""What the dashboards share: tabs, frame, knobs, status line, worker; pictures, curves and tables.

Only what ipywidgets 7.7 (Colab) and 8.1 (JupyterLab) have in common is used.  What is shown is
HTML with small pictures in it: it takes the page's colours, and no figure has to be drawn.
"""

import base64
import html
import io
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import ipywidgets as ipw
import matplotlib.image
import torch
from IPython import get_ipython
from torch import Tensor

from .. import plots
from .worker import ACROSS, Worker, help_text, in_words, release_idle_threads, steps_of

Action = Callable[[Any], None]
LABEL = {"description_width": "135px"}
SIDE = 60  # pixels of a digit in a picture, which the page may show smaller
HIGH = 80  # pixels of the axis of curves and bars
FITS = 6  # characters over a column or under a bar
FLOOR = 0.1  # nats at the foot of the curves
DASHES = ("", "6 2", "2 2", "8 2 2 2", "4 4", "1 3", "9 1")  # with plots.PALETTE, one per term


class Dashboard(ipw.VBox):  # type: ignore[misc]  # ipywidgets has no types
    """A column of controls, a column of pictures, a status line; wraps in a narrow window.

    Long work goes through `worker`: in a thread, or at once in Colab.

    Attributes:
        status: The status line.
        error: What went wrong last; it is shown in the status line as well.
        quiet: Whether widgets are changed by the dashboard itself, and not by the person.
        worker: Runs what takes long.
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

    def arrange(
        self,
        controls: Sequence[ipw.Widget],
        pictures: Sequence[ipw.Widget],
        below: Sequence[ipw.Widget] = (),
        pictures_first: bool = False,
    ) -> None:
        """Lay out the dashboard for a wide and for a narrow window.

        Args:
            controls: What stands to the left, with the status line as the last.
            pictures: What stands to the right; in a narrow window under the controls.
            below: What stands under both.
            pictures_first: Whether the pictures stand over the controls in a narrow window, since
                they follow every move of a slider.
        """
        narrow = ipw.Layout(flex="1 1 330px", min_width="0")
        wide = ipw.Layout(flex="3 1 440px", min_width="0", align_items="flex-start")
        left = ipw.VBox([*controls, self.status], layout=narrow)
        right = ipw.VBox(list(pictures), layout=wide)
        flow, top = ("wrap-reverse", "flex-end") if pictures_first else ("wrap", "flex-start")
        self.children = (wrapped([left, right], flow, align_items=top), *below)

    def say(self, text: str) -> None:
        """Show a sentence in the status line."""
        look = 'style="line-height: 1.4" role="status" aria-live="polite"'
        self.status.value = f"<div {look}>{html.escape(text)}</div>"

    def show_error(self, error: Exception) -> None:
        """Show what went wrong in the status line."""
        self.error = error
        self.status.value = alert(error)

    def when_idle(self) -> None:
        """Called when the worker has nothing left to do."""

    def guarded(self, action: Action) -> Action:
        """Make a callback of the action, whose errors reach the status line."""

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
        width, padding = ("30px", "0") if len(text) <= 2 else ("auto", "0 6px")
        size = ipw.Layout(width=width, padding=padding, margin="1px")
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
        """A choice from a list of values, or of pairs (words, value)."""
        made = ipw.Dropdown(options=tuple(options), value=value, **labelled(name))
        return self.watch(made, action)


class Tabs(ipw.Tab):  # type: ignore[misc]
    """Tabs whose contents are made when they are first opened.

    Args:
        make: Title of the tab -> what makes its widget; the first is called at once.
    """

    __repr__ = Dashboard.__repr__

    def __init__(self, make: Mapping[str, Callable[[], ipw.Widget]]) -> None:
        super().__init__([ipw.VBox() for _ in make])
        self.not_made = dict(enumerate(make.values()))
        for k, title in enumerate(make):
            self.set_title(k, title)
        self.observe(lambda event: self.fill(event["new"]), "selected_index")
        self.fill(0)

    def fill(self, index: int | None) -> None:
        """Make what the tab shows if it is not there yet; an error stands in its place."""
        if index not in self.not_made:
            return
        box = self.children[index]
        box.children = (ipw.HTML("Loading ..."),)
        try:
            box.children = (self.not_made[index](),)
            del self.not_made[index]
        except Exception as error:  # it is tried again when the tab is opened again
            box.children = (ipw.HTML(alert(error)),)


class KnobDashboard(Dashboard):
    """A dashboard with a slider for each of these fields of the controller's configuration.

    Args:
        controller: Has `config`, `change(**values)` and `told_code()`.
        names: The fields.
        kept: What Stop leaves, in words.
    """

    def __init__(self, controller: Any, names: Iterable[str], kept: str) -> None:
        super().__init__()
        self.controller = controller
        self.stop = self.button("Stop", f"end it, keep {kept}", self._stop)
        self.knobs = {name: self._knob(name) for name in names}
        self.progress = ipw.FloatProgress(min=0.0, max=1.0, **labelled("PROGRESS"))
        self.table = ipw.HTML()
        self.code = ipw.HTML(layout=ipw.Layout(flex="1 1 380px", min_width="0"))
        helps = help_text(controller.config, self.knobs)
        self.help = ipw.HTML(f"<details><summary>What the knobs do</summary>{helps}</details>")

    def change(self, name: str, value: Any) -> None:
        """Give the controller a new value of a field."""
        self.controller.change(**{name: value})
        self.show_code()

    def show_code(self) -> None:
        """Show the code that belongs to the controller's state, and what it is the code of."""
        self.code.value = code_block(*self.controller.told_code())

    def show_error(self, error: Exception) -> None:
        """Show what went wrong; nothing is under way any more."""
        super().show_error(error)
        self.progress.value = 0.0

    def in_making(self, what: str) -> Callable[[float], None]:
        """Make what shows how far the making of something is.

        Args:
            what: What is being made, in words.

        Returns:
            A function of the share that is done, from 0 to 1: about twice a second it moves the bar
            and says how long it will take, from how long it took so far.
        """
        began = last = time.perf_counter()
        before = 0.0

        def show(share: float) -> None:
            nonlocal began, last, before
            now = time.perf_counter()
            if share < before:  # another loop, such as that of the next judge
                began = now
            before = share
            if now - last < 0.5:
                return
            last = now
            self.progress.value = share
            left = ""
            if now - began > 1 and share > 0:
                left = f", about {in_words((now - began) * (1 - share) / share)} left"
            self.say(f"{what}: {100 * share:.0f} %{left}.")

        return show

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
        """Nothing runs: Stop rests, and the code is of what is shown or will be made."""
        self.stop.disabled = True
        self.show_code()

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


def wrapped(children: Sequence[ipw.Widget], wrap: str = "wrap", **layout: str) -> Any:
    """Widgets side by side, in several rows where the window is narrow."""
    flow = ipw.Layout(display="flex", flex_flow=f"row {wrap}", **layout)
    return ipw.Box(list(children), layout=flow)


def code_block(what: str, code: str) -> str:
    """Code as HTML, as high as it is long, under a line that says what it is the code of."""
    wrap = "white-space: pre-wrap; word-break: normal; overflow-wrap: anywhere"
    look = f"{wrap}; margin: 0; padding: 4px; border: 1px solid; font: 12px/1.4 monospace"
    words = f"<b>AS CODE</b> {html.escape(what)}"
    block = f'<pre style="{look}">{html.escape(code)}</pre>'
    return f'<div style="line-height: 1.4">{words}{block}</div>'


def alert(error: Exception) -> str:
    """What went wrong, as HTML that a screen reader announces."""
    kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
    style = "background: #f7d9c4; color: black; padding: 0 6px"
    return f'<div role="alert" style="{style}"><b>Error</b> {html.escape(f"{kind}{error}")}</div>'


def png(images: Tensor, columns: int) -> bytes:
    """A PNG of images with white borders, about SIDE pixels each.

    Args:
        images: (N, C, H, W) in [0, 1]; N is a multiple of columns.
        columns: Images in a row.

    Returns:
        The file's content.
    """
    framed = torch.nn.functional.pad(images.cpu(), (1, 1, 1, 1), value=1.0)
    rows = framed.unflatten(0, (-1, columns))  # (rows, columns, C, H + 2, W + 2)
    picture = rows.permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1).squeeze(2)
    times = max(1, SIDE // max(framed.shape[2:]))
    pixels = picture.numpy().repeat(times, 0).repeat(times, 1)
    buffer = io.BytesIO()
    matplotlib.image.imsave(buffer, pixels, cmap="gray", vmin=0, vmax=1, format="png")
    return buffer.getvalue()


def sheet(
    rows: Mapping[str, Sequence[Tensor]], heads: Sequence[Sequence[Any]], sides: Sequence[int]
) -> str:
    """Named rows of pictures as HTML, each name beside its row at any width of the page.

    Args:
        rows: Name of the row -> images (N, C, H, W) in [0, 1] of each picture in it.
        heads: For each picture the words over its columns, as many as it has columns.
        sides: For each picture the pixels of an image in it, at most.

    Returns:
        The HTML.
    """
    widths = [side * len(head) for side, head in zip(sides, heads, strict=True)]
    cells = ["<span></span>"]
    for head in heads:
        columns = f"grid-template-columns: repeat({len(head)}, minmax(0, 1fr))"
        words = "".join(f"<span>{_cut(str(word))}</span>" for word in head)
        cells.append(
            f'<div style="display: grid; {columns}; line-height: 1.2; text-align: center">'
            f"{words}</div>"
        )
    for name, pictures in rows.items():
        cells.append(f'<span style="line-height: 1.2">{html.escape(name)}</span>')
        for images, head, width in zip(pictures, heads, widths, strict=True):
            cells.append(_picture(images, len(head), width, name))
    columns = " ".join(f"minmax(0, {width}px)" for width in widths)
    grid = f"display: grid; grid-template-columns: fit-content(95px) {columns}; gap: 3px 10px"
    return f'<div style="{grid}; align-items: center; margin-bottom: 8px">{"".join(cells)}</div>'


def _picture(images: Tensor, columns: int, width: int, alt: str) -> str:
    """One picture of a sheet: images (N, C, H, W) in so many columns, width pixels at most."""
    source = base64.b64encode(png(images, columns)).decode()
    rows = len(images) // columns
    height, across = images.shape[2] + 2, images.shape[3] + 2  # with their borders
    shape = f"width: 100%; aspect-ratio: {columns * across} / {rows * height}"
    return (
        f'<img alt="{html.escape(alt)}" decoding="sync" style="display: block; {shape}; '
        f'max-width: {width}px" src="data:image/png;base64,{source}">'
    )


def _cut(word: str) -> str:
    """A class's name as HTML that fits over a narrow column; the whole name shows on hovering."""
    if len(word) <= FITS:
        return html.escape(word)
    return f'<abbr title="{html.escape(word)}">{html.escape(word[: FITS - 1])}…</abbr>'


def _svg(width: int, height: int, alt: str, *parts: str) -> str:
    """A drawing in the page's own colour; alt: what it shows, for those who cannot see it."""
    size = f'width="{width}" viewBox="0 0 {width} {height}" style="max-width: 100%"'
    look = f'fill="currentColor" font-size="11" role="img" aria-label="{alt}"'
    return f"<svg {size} {look}>{''.join(parts)}</svg>"


def curves(history: Mapping[str, Sequence[float]]) -> str:
    """An SVG with one line per term of the loss, and the terms' last values; log scale.

    Args:
        history: Name of the term -> its values in nats, one per step; those below FLOOR are drawn
            at the foot.

    Returns:
        The SVG.
    """
    left, top, width = 35, 10, 200  # pixels: where the axes begin, and how far they run
    highest = max([2 * FLOOR, *(max(values) for values in history.values())])
    steps = max((len(values) for values in history.values()), default=0)
    per_decade = HIGH / math.log10(highest / FLOOR)  # pixels
    parts = []
    for k, (name, values) in enumerate(history.items()):
        points = []
        for step in range(0, len(values), max(1, steps // 100)):
            x = left + width * step / max(1, steps - 1)
            y = top + per_decade * math.log10(highest / max(values[step], FLOOR))
            points.append(f"{x:.1f},{y:.1f}")
        colour, dashes = plots.PALETTE[k % 7], DASHES[k % 7]
        style = f'fill="none" stroke="{colour}" stroke-dasharray="{dashes}" stroke-width="2"'
        x_of_name, y_of_name = left + width + 12, 20 + 16 * k
        parts.append(
            f'<polyline {style} points="{" ".join(points)}"/>'
            f'<path {style} d="M{x_of_name},{y_of_name - 4}h24"/>'
            f'<text x="{x_of_name + 30}" y="{y_of_name}">{name} {values[-1]:.1f}</text>'
        )
    axes = f'<path d="M{left},{top}v{HIGH}h{width}" fill="none" stroke="currentColor"/>'
    parts += [
        axes,
        f'<text x="{left - 5}" y="{top + 4}" text-anchor="end">{highest:.3g}</text>',
        f'<text x="{left - 5}" y="{HIGH + 12}" text-anchor="end">{FLOOR:g}</text>',
        f'<text x="{left}" y="{HIGH + 26}">nats per image (log), up to step {steps}</text>',
    ]
    last = ", ".join(f"{name} {values[-1]:.1f}" for name, values in history.items())
    alt = f"Loss, nats per image: {last}"
    return _svg(left + width + 125, HIGH + 40, alt, *parts)


def bars(values: Mapping[str, float], what: str) -> str:
    """An SVG with a bar per class, up for a gain and down for a loss, with its name.

    Args:
        values: Name of the class -> height of its bar.
        what: What the heights are, in words that stand below.

    Returns:
        The SVG and the words, as HTML.
    """
    wide, line = 34, HIGH + 44  # pixels of a class, and of a line of classes
    middle = 14 + HIGH / 2
    scale = (HIGH / 2 - 6) / max(1.0, *map(abs, values.values()))
    parts = []
    for k, (label, value) in enumerate(values.items()):
        height = scale * value
        top = middle - max(height, 0)
        if value < 0:
            colour, y_of_number = plots.AFTER, middle - height + 11
        else:
            colour, y_of_number = plots.BEFORE, middle - height - 3
        place = f"translate({wide * (k % ACROSS)},{line * (k // ACROSS)})"
        below = html.escape(label)
        if len(label) > FITS:  # the whole name shows on hovering
            below = f"{html.escape(label[: FITS - 1])}…<title>{below}</title>"
        parts.append(
            f'<g text-anchor="middle" transform="{place}">'
            f'<path d="M0,{middle}h{wide}" stroke="currentColor"/>'
            f'<rect x="7" y="{top:.1f}" width="20" height="{abs(height):.1f}" fill="{colour}"/>'
            f'<text x="17" y="{y_of_number:.1f}">{value:+.1f}</text>'
            f'<text x="17" y="{HIGH + 38}">{below}</text></g>'
        )
    numbers = ", ".join(f"class {label} {value:+.1f}" for label, value in values.items())
    lines = math.ceil(len(values) / ACROSS)
    width = wide * min(ACROSS, len(values))
    svg = _svg(width, line * lines, html.escape(f"{what}: {numbers}"), *parts)
    return svg + f'<div style="line-height: 1.4">{what}</div>'


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """An HTML table; it scrolls where the page is narrow.

    Args:
        caption: What stands above.
        head: Words over the columns.
        rows: The cells, row by row; the first one names the row.

    Returns:
        The HTML.
    """
    look = 'style="padding: 0 5px; text-align: right"'
    lines = ["".join(f'<th scope="col" {look}>{html.escape(word)}</th>' for word in head)]
    for name, *values in rows:
        cells = "".join(f"<td {look}>{html.escape(value)}</td>" for value in values)
        lines.append(f'<th scope="row" {look}>{html.escape(name)}</th>{cells}')
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    words = f'<caption style="text-align: left">{html.escape(caption)}</caption>'
    around = "overflow-x: auto; font-size: 12px; line-height: 1.4"
    return f'<div style="{around}"><table>{words}{body}</table></div>'
