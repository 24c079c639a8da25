"""What the dashboards share: their frame, knobs as widgets, the status line, the worker.

Only what ipywidgets 7.7 (Colab) and 8.1 (JupyterLab) have in common is used.
"""

import html
import sys
from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets as ipw
from IPython import get_ipython

from ..config import Config
from ..controllers import Worker, release_idle_threads, steps_of

PANEL = "370px"  # width of the column of controls
LABEL = {"description_width": "135px"}


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

    def watch(self, widget: ipw.Widget, action: Callable[[Any], None]) -> Any:
        """Call the action with every new value of the widget; returns the widget."""
        widget.observe(self.guarded(lambda event: action(event["new"])), "value")
        return widget

    def knob(self, config: Config, name: str, change: Callable[[Any], None]) -> Any:
        """The slider of a numeric field, from the field's own range."""
        options = [(f"{v:g}", v) for v in steps_of(config, name)]
        slider = ipw.SelectionSlider(
            options=options,
            value=getattr(config, name),
            description=name.upper(),
            continuous_update=False,
            style=LABEL,
            layout=ipw.Layout(width="98%"),
        )
        return self.watch(slider, change)


def set_knob(slider: Any, config: Config, name: str) -> None:
    """Move a slider to the configuration's value, offering it if it was not offered yet."""
    value = getattr(config, name)
    if value not in [v for _, v in slider.options]:
        slider.options = [(f"{v:g}", v) for v in steps_of(config, name)]
    slider.value = value


def wrapped(children: Sequence[ipw.Widget], **layout: str) -> Any:
    """Widgets side by side, in several rows where the window is narrow."""
    flow = ipw.Layout(display="flex", flex_flow="row wrap", **layout)
    return ipw.Box(list(children), layout=flow)
