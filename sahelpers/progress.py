"""One progress bar for every long loop, and one switch to silence it."""

import os
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm.auto import tqdm

T = TypeVar("T")


def progress(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Iterate with a tqdm bar that says what is going on.  SA_PROGRESS=0 silences it."""
    silent = os.environ.get("SA_PROGRESS") == "0"
    return iter(tqdm(items, desc=what, total=total, disable=silent, leave=False))
