"""One progress bar for every long loop, and one switch to silence it."""

import os
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm.auto import tqdm

T = TypeVar("T")


def progress(items: Iterable[T], what: str, silent: bool = False) -> Iterator[T]:
    """Iterate with a tqdm bar that says what is going on.

    silent: show none, because somebody else tells how far it is; SA_PROGRESS=0 silences all.
    """
    if silent or os.environ.get("SA_PROGRESS") == "0":
        return iter(items)  # not even a disabled bar, which would start a thread of tqdm's
    return iter(tqdm(items, desc=what, leave=False))
