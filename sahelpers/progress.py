"""One progress bar for every long loop, one switch to silence it, one way to watch and end it."""

import os
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from tqdm.auto import tqdm

T = TypeVar("T")
Watcher = Callable[[int, int], bool | None]
_watcher: ContextVar[Watcher | None] = ContextVar("watcher", default=None)


def progress(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Iterate with a tqdm bar that says what is going on.  SA_PROGRESS=0 silences it."""
    watcher = _watcher.get()
    if watcher is not None:
        return _tell(items, watcher, total or (len(items) if isinstance(items, Sized) else 0))
    silent = os.environ.get("SA_PROGRESS") == "0"
    return iter(tqdm(items, desc=what, total=total, disable=silent, leave=False))


@contextmanager
def watched(watcher: Watcher) -> Iterator[None]:
    """Inside, in this thread: loops show no bar, they call watcher(items done, items in all).

    A loop ends early, as if it had no more items, when the watcher returns False.
    """
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


def _tell(items: Iterable[T], watcher: Watcher, total: int) -> Iterator[T]:
    for done, item in enumerate(items, 1):
        yield item
        if watcher(done, total) is False:
            return
