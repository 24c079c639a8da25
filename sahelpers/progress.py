"""One progress bar for every long loop, and one switch to silence it."""

import os
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm.auto import tqdm

T = TypeVar("T")


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
    if silent or os.environ.get("SA_PROGRESS") == "0":
        return iter(items)  # not even a disabled bar, which would start a thread of tqdm's
    return iter(tqdm(items, desc=what, leave=False))
