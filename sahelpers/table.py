"""The scoreboard's table as a CSV file that survives whatever stops its writer."""

import csv
import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .cells import COLUMNS, KEY
from .checkpoints import replace_text
from .data import CHECKOUT

TABLE = CHECKOUT / "results" / "scoreboard.csv"


def read_scoreboard(table: Path = TABLE) -> list[dict[str, str]]:
    """The newest row of every cell; a column that the file does not have is empty.

    A last line without an end was cut off and does not count; without a file there are no rows.
    """
    whole, end, _ = (table.read_text() if table.exists() else "").rpartition("\n")
    rows = csv.DictReader(io.StringIO(whole + end))
    known = [dict.fromkeys(COLUMNS, "") | row for row in rows if None not in row.values()]
    return list({key_of(row): row for row in known}.values())


def key_of(row: Mapping[str, str]) -> tuple[str, ...]:
    """What identifies the row's cell."""
    return tuple(row[name] for name in KEY)


def append(table: Path, row: Mapping[str, Any]) -> None:
    """Add one row, numbers to six digits, and have it on the disk when this returns.

    What a stopped run left of a line is removed; an older table gets the columns that it lacks.
    """
    table.parent.mkdir(parents=True, exist_ok=True)
    text = table.read_text() if table.exists() else ""
    header = _lines([dict(zip(COLUMNS, COLUMNS, strict=True))])
    if not text.startswith(header):
        replace_text(table, header + _lines(read_scoreboard(table)))
    elif not text.endswith("\n"):
        os.truncate(table, len(text[: text.rindex("\n") + 1].encode()))
    with table.open("a", newline="") as stream:
        stream.write(_lines([row]))
        stream.flush()
        os.fsync(stream.fileno())


def _lines(rows: Iterable[Mapping[str, Any]]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, restval="", lineterminator="\n")
    for row in rows:
        writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
    return stream.getvalue()
