"""What the journal's lines of today's defaults say, as two files that anybody can read.

`python -m study tables` writes results/scoreboard.json, a list with one entry per run, and
results/audit.json, with every model's number and every digit's verdict, rung by rung.  The
notebooks read them with Python's own json module; RESULTS.md is written from the same journal.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from statistics import fmean
from typing import Any

from sahelpers.attacks.ladder import LadderConfig
from sahelpers.attacks.verdicts import MIN_RETRAINED, Climbed, Finding, compare_all
from sahelpers.store.files import replace_text

from .grid import current
from .journal import Record
from .methods import HIDDEN, MASKED, METHODS, RETRAINED

Place = tuple[str, str]  # data set, network
Findings = dict[int, dict[str, Finding]]  # digit -> rung -> finding


def newest(
    records: Iterable[Record], part: str, climbing: LadderConfig | None = None
) -> list[Record]:
    """The lines of a part that belong to today's defaults, without failures, by digit and seed.

    climbing: how much the ladder tries; the default when left out.
    """
    known: dict[tuple[str, ...], bool] = {}  # lines alike in these are current or not together
    kind = itemgetter("method", "arch", "shared", "own", "code")
    chosen = []
    for record in records:
        if record["part"] != part or "values" not in record:
            continue
        if kind(record) not in known:
            known[kind(record)] = current(record, climbing)
        if known[kind(record)]:
            chosen.append(record)
    return sorted(chosen, key=itemgetter("class", "seed"))


def climbed(
    records: Iterable[Record], climbing: LadderConfig | None = None
) -> dict[tuple[Place, str], dict[int, Climbed]]:
    """What `compare_all` takes: (place, method) -> digit -> what the ladder measured.

    climbing: how much it tried; the default when left out.  Digits without a hidden model, without
    a masked one or with fewer than three retrained ones are left out.
    """
    lines = defaultdict[tuple[Place, str], dict[int, list[Any]]](lambda: defaultdict(list))
    for r in newest(records, "ladder", climbing):
        lines[(r["dataset"], r["arch"]), r["method"]][r["class"]].append(r["values"])
    found: dict[tuple[Place, str], dict[int, Climbed]] = {}
    for (place, method), digits in lines.items():
        if method == RETRAINED:
            continue
        hidden, masked, retrained = (
            lines.get((place, name), {}) for name in (HIDDEN, MASKED, RETRAINED)
        )
        complete = {
            digit: Climbed(models, hidden[digit], masked[digit], retrained[digit])
            for digit, models in digits.items()
            if hidden.get(digit)
            and masked.get(digit)
            and len(retrained.get(digit, ())) >= MIN_RETRAINED
        }
        if complete:
            found[place, method] = complete
    return found


def audit(
    records: Iterable[Record], climbing: LadderConfig | None = None
) -> dict[tuple[Place, str], Findings]:
    """The findings on every method, (place, method) -> digit -> rung -> finding.

    Methods stand in the order of METHODS.
    """
    found, order = climbed(records, climbing), list(METHODS)
    return {
        (place, method): {d: report.by_rung for d, report in compare_all(digits).items()}
        for (place, method), digits in sorted(found.items(), key=lambda of: order.index(of[0][1]))
    }


def write(records: Sequence[Record], folder: Path) -> None:
    """scoreboard.json and audit.json into the folder, from the journal's lines."""
    rows = [as_row(record) for record in newest(records, "scoreboard")]
    rows.sort(key=itemgetter("dataset", "arch", "method", "class", "seed"))
    replace_text(folder / "scoreboard.json", as_json(rows))
    findings = [
        {"digit": digit, "method": method, "dataset": place[0], "arch": place[1], **vars(finding)}
        for (place, method), digits in sorted(audit(records).items())
        for digit, of in digits.items()
        for finding in of.values()
    ]
    models = [
        {
            **{name: record[name] for name in ("class", "method", "seed", "dataset", "arch")},
            "values": {name: fmean(numbers) for name, numbers in record["values"].items()},
        }
        for record in newest(records, "ladder")
    ]
    text = f'{{"findings": {as_json(findings).rstrip()},\n'
    text += f'"models": {as_json(models).rstrip()}}}\n'
    replace_text(folder / "audit.json", text)


def as_row(record: Record) -> dict[str, Any]:
    """A line of the scoreboard in one piece: what was run, and its numbers."""
    about = ("method", "class", "seed", "dataset", "arch", "cell_seconds", "version", "machine")
    return {**{name: record.get(name) for name in about}, **record["values"]}


def as_json(entries: Sequence[Mapping[str, Any]]) -> str:
    """A list in JSON, an entry a line, numbers with six digits; null where there is no number."""

    def short(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: short(v) for name, v in value.items()}
        if isinstance(value, float):
            return float(f"{value:.6g}") if value == value else None
        return value

    lines = ",\n".join(json.dumps(short(entry), allow_nan=False) for entry in entries)
    return f"[\n{lines}\n]\n"
