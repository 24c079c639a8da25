"""The knobs of a dashboard, read from the configurations' own fields."""

import html
import math
from dataclasses import Field, fields
from typing import Any

from ..checks import check_is
from ..config import Config


def steps_of(config: Config, name: str) -> tuple[Any, ...]:
    """The values that a slider or a menu offers for a field, the present one among them.

    A field of words: its words.  A range within 0 to 1: steps of 0.05.  A wide one: 1, 2 and 5 of
    every power of ten in the field's `span`, after 0 if that is allowed.
    """
    check_is(config, Config, "config")
    f = _field(type(config), name)
    meta, value = f.metadata, getattr(config, name)
    if meta["choices"] is not None:
        return tuple(meta["choices"])
    if meta["span"] is None:
        low, high = meta["low"], meta["high"]
        values = {round(low + (high - low) * k / 20, 10) for k in range(21)}
    else:
        low, high = meta["span"]
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        grid = (float(f"{m}e{k}") for k in decades for m in (1, 2, 5))
        values = {v for v in grid if low <= v <= high}
        if meta["low"] == 0:
            values.add(0.0)
    kind = int if isinstance(f.default, int) else float
    return tuple(sorted({kind(v) for v in values} | {value}))


def as_code(config: Config) -> str:
    """The call that makes this configuration, with what differs from the defaults."""
    check_is(config, Config, "config")
    default = type(config)()
    changed = {f.name: getattr(config, f.name) for f in fields(config)}  # type: ignore[arg-type]
    words = (f"{k}={v!r}" for k, v in changed.items() if v != getattr(default, k))
    return f"sa.{type(config).__name__}({', '.join(words)})"


def help_text(kind: type[Config], names: tuple[str, ...]) -> str:
    """One line of HTML per knob: its name in capitals and its help."""
    helps = (_field(kind, name).metadata["help"] for name in names)
    return "<br>".join(
        f"<b>{n.upper()}</b> {html.escape(h)}" for n, h in zip(names, helps, strict=True)
    )


def _field(kind: type[Config], name: str) -> Field[Any]:
    found = {f.name: f for f in fields(kind) if "help" in f.metadata}  # type: ignore[arg-type]
    if name not in found:
        raise ValueError(f"name={name!r} is no knob of {kind.__name__}: {', '.join(found)}")
    return found[name]
