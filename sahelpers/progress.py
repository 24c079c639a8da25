"""One progress bar for every long loop, one switch to silence it, and a way to look on instead."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from operator import length_hint
from typing import TypeVar

from tqdm.auto import tqdm

T = TypeVar("T")
Look = Callable[[str, float], None]

_look: ContextVar[Look | None] = ContextVar("look", default=None)  # each thread has its own


def progress(items: Iterable[T], what: str, silent: bool = False) -> Iterator[T]:
    """Iterate with a progress bar of tqdm's that says what is going on.

    Args:
        items: What is iterated over.
        what: What is going on, in words.
        silent: Whether to show no bar, because somebody else tells how far it is.  The environment
            variable SA_PROGRESS=0 silences all bars.

    Returns:
        An iterator over the items.
    """
    if not silent and _look.get() is not None:
        return _reported(items, what)
    if silent or os.environ.get("SA_PROGRESS") == "0":
        return iter(items)  # not even a disabled bar, which would start a thread of tqdm's
    return iter(tqdm(items, desc=what, leave=False))


@contextmanager
def watched(look: Look) -> Iterator[None]:
    """Inside, long loops of this thread show no bar: they say to `look` how far they are.

    Args:
        look: Called often with what is going on, in words, and the share of it that is done, from
            0 to 1.  What it raises ends the loop; a training leaves its part file then, from which
            it goes on.
    """
    token = _look.set(look)
    try:
        yield
    finally:
        _look.reset(token)


def report(what: str, share: float) -> None:
    """Say how far a loop is to whoever watches it.

    Args:
        what: What is going on, in words.
        share: The share that is done, from 0 to 1.
    """
    look = _look.get()
    if look is not None:
        look(what, share)


def _reported(items: Iterable[T], what: str) -> Iterator[T]:
    """The items; before each of them the share that lies behind is reported."""
    total = max(1, length_hint(items))
    for done, item in enumerate(items):
        report(what, min(1.0, done / total))
        yield item
