"""Give lines of the journal today's digest of the code: `python -m study convert --code METHOD`.

A method that was only renamed or moved inside its module has another digest of its code, and its
lines would count as old.  This gives them today's digest.  Whoever does that has compared the bits
of a model before and after.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from sahelpers.store.files import replace_text

from . import journal
from .experiments import published
from .grid import CONFIGS
from .journal import Record
from .methods import METHODS, RETRAINED, as_method


def with_todays_code(records: Iterable[Record], methods: Sequence[str]) -> list[Record]:
    """The lines, those of the methods with the digest of today's code.

    Raises:
        ValueError: A method has lines of several older codes.
    """
    found = []
    old = defaultdict[str, set[str]](set)
    for record in records:
        method = RETRAINED if record["method"] == published.OFFICIAL else record["method"]
        if method in methods:
            code = as_method(METHODS[method]).digests(CONFIGS[record["arch"]][1])["code"]
            if record["code"] != code:
                old[method].add(record["code"])
            record = {**record, "code": code}
        found.append(record)
    if several := {method: sorted(of) for method, of in old.items() if len(of) > 1}:
        raise ValueError(
            f"{several}: lines of more than one older code.  Only one can have given today's bits: "
            "take the lines of the others out of the journal first"
        )
    return found


def convert(path: Path, methods: Sequence[str]) -> str:
    """Carry a journal over, in one step, without its torn lines; returns in words what was done.

    Raises:
        FileNotFoundError: The journal is not there.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no journal to carry over")
    with journal.alone(path):
        before = [record for _, record in journal.lines(path)]
        torn = journal.torn(path, len(before))
        after = with_todays_code(before, methods)
        replace_text(path, journal.as_text(after))
    changed = sum(old != new for old, new in zip(before, after, strict=True))
    return (
        f"{changed} of {len(before)} lines of {path.name} have today's digest of the code now, and "
        f"{torn} torn lines were dropped"
    )
