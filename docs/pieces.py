"""What the resumable commands of docs/ share: a journal with a line per model, and its page."""

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import results
from sahelpers.config import AmnesiaConfig, FisherConfig, fingerprint
from sahelpers.models import CVAE
from sahelpers.store.files import replace_text
from sahelpers.story import Classes, Story
from sahelpers.study import grid
from sahelpers.study.methods import CONTROL, HIDDEN
from sahelpers.study.statistics import MIN_CONTROLS, Groups
from sahelpers.study.workers import each

P = TypeVar("P", bound=NamedTuple)
Found = dict[str, Any]  # what a line holds beside the names of its piece
RECIPE = fingerprint(FisherConfig(), AmnesiaConfig(seed=0))  # of today's default


class Model(NamedTuple):
    """One model that is attacked on the digit that it forgot, or never saw."""

    digit: int
    method: str
    seed: int


def made(story: Story, method: str, classes: Classes, seed: int) -> CVAE:
    """The story's model of a method: ours, the hidden one, or the control of a seed."""
    if method == CONTROL:
        return story.control(classes, seed).model
    return story.hidden(classes) if method == HIDDEN else story.forgotten(classes).model


def read(journal: Path, kind: type[P]) -> dict[P, Found]:
    """What the journal holds, by piece; a line that was torn does not count, nor one that was
    made by another default of `forget`."""
    text = journal.read_text(encoding="utf-8") if journal.is_file() else ""
    found: dict[P, Found] = {}
    for line in text.splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if record.pop("recipe", RECIPE) == RECIPE:
            of = [record.pop(name) for name in kind._fields]
            found[kind._make(tuple(v) if isinstance(v, list) else v for v in of)] = record
    return found


def missing(journal: Path, pieces: Sequence[P]) -> list[P]:
    """Those that are not in the journal."""
    done = read(journal, type(pieces[0]))
    return [piece for piece in pieces if piece not in done]


def groups(journal: Path, digits: Iterable[int], methods: Sequence[str]) -> dict[int, Groups]:
    """What `statistics.compare_all` takes, of those digits that have all that a verdict needs.

    methods: of the models under test, the hidden ones and the controls.
    """
    done, found = read(journal, Model), dict[int, Groups]()
    for digit in digits:
        tested, hidden, controls = (
            [of["values"] for model, of in done.items() if model[:2] == (digit, method)]
            for method in methods
        )
        if tested and hidden and len(controls) >= MIN_CONTROLS:
            found[digit] = tested, hidden, controls
    return found


def page(tables: Iterable[str]) -> str:
    """The tables' lines as a file's text."""
    return "\n".join(tables).rstrip("\n") + "\n"


def write(journal: Path, tables: Callable[[], Iterable[str]]) -> str:
    """The page beside the journal, and RESULTS.md, of which it is a part."""
    replace_text(journal.with_suffix(".md"), text := page(tables()))
    results.write()
    return text


def complete(
    description: str | None,
    journal: Path,
    pieces: Sequence[P],
    work: Callable[[P], Found],
    tables: Callable[[], Iterable[str]],
) -> None:
    """Do what is missing, a line of the journal each, and write the page.

    work: of an importable module, for the processes find it by name.
    Raises the first error at the end; the other pieces are done before.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    jobs, failed = parser.parse_args().jobs, list[BaseException]()
    try:
        for piece, found in each(work, missing(journal, pieces), "loky", jobs):
            if isinstance(found, BaseException):
                failed.append(found)
            else:
                grid.append(journal, {**piece._asdict(), **found, "recipe": RECIPE})
            print(*piece, "failed" * isinstance(found, BaseException), flush=True)
    finally:
        print(write(journal, tables))
    if failed:
        raise failed[0]
