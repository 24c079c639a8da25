"""What the resumable commands of docs/ share: a journal with a line per model, and its page."""

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from sahelpers.store.files import replace_text
from sahelpers.study.grid import append
from sahelpers.study.workers import each

P = TypeVar("P", bound=NamedTuple)
Found = dict[str, Any]  # what a line holds beside the names of its piece


def read(journal: Path, kind: type[P]) -> dict[P, Found]:
    """What the journal holds, by piece; a line that was torn does not count."""
    text = journal.read_text(encoding="utf-8") if journal.is_file() else ""
    found: dict[P, Found] = {}
    for line in text.splitlines():
        if line.endswith("}"):
            record = json.loads(line)
            of = [record.pop(name) for name in kind._fields]
            found[kind._make(tuple(v) if isinstance(v, list) else v for v in of)] = record
    return found


def missing(journal: Path, pieces: Sequence[P]) -> list[P]:
    """Those that are not in the journal."""
    done = read(journal, type(pieces[0]))
    return [piece for piece in pieces if piece not in done]


def page(tables: Iterable[str]) -> str:
    """The tables' lines as a file's text."""
    return "\n".join(tables).rstrip("\n") + "\n"


def complete(
    description: str | None,
    journal: Path,
    pieces: Sequence[P],
    work: Callable[[P], Found],
    tables: Callable[[], Iterable[str]],
    argv: Sequence[str] | None = None,
) -> None:
    """Do what is missing, a line of the journal each, and write the page beside the journal.

    work: of an importable module, for the processes find it by name.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    jobs = parser.parse_args(argv).jobs
    try:
        for piece, found in each(work, missing(journal, pieces), "loky", jobs):
            if isinstance(found, BaseException):
                raise found
            append(journal, {**piece._asdict(), **found})
            print(*piece, flush=True)
    finally:
        text = page(tables())
        replace_text(journal.with_suffix(".md"), text)
        print(text)
