"""scoreboard.csv and audit.csv: written from the journal, read again, and one figure of them."""

import csv
import io
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

from matplotlib.axes import Axes

from .. import plots
from ..config import CHECKOUT, AmnesiaConfig, BaselineConfig, JudgeConfig
from ..store.files import replace_text
from . import statistics
from .battery import ATTACKS, BOUNDS, JUDGED, REAL, Claim, Effort
from .methods import CONTROL, HIDDEN, recipe
from .statistics import ERASED, OPEN, REMAINS, Finding, Groups, Values

T = TypeVar("T")
RESULTS = CHECKOUT / "results"
BASELINES = {"mlp": BaselineConfig(), "conv": BaselineConfig(arch="conv", epochs=10)}
AMNESIA = {"mlp": AmnesiaConfig(), "conv": AmnesiaConfig.conv()}
KEY = ["method", "class", "seed", "dataset", "arch", "fingerprint"]
COST = ["steps", "seconds", "real_images", "reason"]
ABOUT = ["cell_seconds", "version", "machine", "error"]
COLUMNS = [*KEY, *JUDGED, *REAL, *COST, *BOUNDS, *ATTACKS, *ABOUT]
AUDIT_KEY = ["digit", "method", "dataset", "arch", "fingerprint"]
AUDIT_COLUMNS = [*AUDIT_KEY, *(f.name for f in fields(Finding))]

AUDITS = ("audit", "claim")  # parts of the journal whose lines are attacks

Record = Mapping[str, Any]  # a line of the journal


def current(row: Record) -> bool:
    """Whether a row's recipe is today's default of its architecture, with any part's effort."""
    made = row["method"], BASELINES[row["arch"]], AMNESIA[row["arch"]], JudgeConfig()
    return row["fingerprint"] in [recipe(*made, effort) for effort in (Effort(), Claim())]


def write_table(part: str, records: Sequence[Record], folder: Path) -> None:
    """The folder's scoreboard.csv, or audit.csv for the parts audit and claim, from the journal's
    lines, those of today's recipes last.  Floats have six digits, in the audit four places.
    """
    name, parts = ("audit", AUDITS) if part in AUDITS else (part, (part,))
    records = sorted((r for r in records if r["part"] in parts), key=current)
    stream, columns, rows = io.StringIO(), COLUMNS, [{**r, **r.get("values", {})} for r in records]
    shown: Callable[[float], object] = "{:.6g}".format
    if part in AUDITS:
        columns, rows, shown = AUDIT_COLUMNS, _audit_rows(records), lambda v: round(v, 4)
    writer = csv.DictWriter(stream, columns, "", "ignore", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: shown(v) if isinstance(v, float) else v for k, v in row.items()})
    replace_text(folder / f"{name}.csv", stream.getvalue())


def audited(records: Iterable[Record]) -> dict[tuple[str, ...], dict[int, Groups]]:
    """What `statistics.compare_all` takes, from the journal's lines of the parts audit and claim:
    (part, method, dataset, arch, fingerprint) -> digit -> (models, hidden, controls).

    Hidden models and controls are those of the same part and baseline; the newest line counts of a
    hidden model, however others forget beside it.  Digits without a hidden model or with fewer than
    three controls are left out, and attacks that not all models of a digit have faced.
    """
    lines = defaultdict[tuple[str, ...], dict[int, dict[int, Values]]](lambda: defaultdict(dict))
    for r in sorted(records, key=itemgetter("class", "seed")):
        if "values" in r and r["part"] in AUDITS:
            mark = r["fingerprint"]
            for made in {mark, mark.partition("-")[0] if r["method"] == HIDDEN else mark}:
                key = r["part"], r["method"], r["dataset"], r["arch"], made
                lines[key][r["class"]][r["seed"]] = r["values"]
    found = defaultdict[tuple[str, ...], dict[int, Groups]](dict)
    for (part, method, *data, mark), digits in lines.items():
        own = *data, mark.partition("-")[0]
        hidden, controls = (lines.get((part, name, *own), {}) for name in (HIDDEN, CONTROL))
        if method == CONTROL or (method, *data, mark) == (HIDDEN, *own):
            continue
        for digit, seeds in digits.items():
            several = seeds, hidden.get(digit, {}), controls.get(digit, {})
            groups = [list(of.values()) for of in several]
            if groups[1] and len(groups[2]) >= statistics.MIN_CONTROLS:
                faced = set.intersection(*(set(values) for values in chain(*groups)))
                models, knowing, rest = (
                    [{k: v for k, v in values.items() if k in faced} for values in group]
                    for group in groups
                )
                found[part, method, *data, mark][digit] = models, knowing, rest
    return found


def _audit_rows(records: Iterable[Record]) -> list[dict[str, Any]]:
    """One row per digit, model and attack, sorted by digit and method."""
    rows = []
    for (_, *made), digits in audited(records).items():
        for digit, report in statistics.compare_all(digits).items():
            head = dict(zip(AUDIT_KEY, (digit, *made), strict=True))
            rows += [head | vars(finding) for finding in report.findings]
    return sorted(rows, key=itemgetter("digit", "method"))


def read_scoreboard(folder: Path = RESULTS) -> list[dict[str, str]]:
    """The rows of the folder's scoreboard.csv, column -> text; none without the file.  Raises
    ValueError naming it when it is damaged."""
    return _read(folder / "scoreboard.csv", COLUMNS, dict)


def read_audit(
    folder: Path = RESULTS, dataset: str = "mnist", arch: str = "mlp"
) -> dict[tuple[int, str, str], Finding]:
    """The findings of today's recipe on a data set and network, by class, method and attack, from
    the folder's audit.csv; none without the file.  Raises ValueError naming it when it is damaged.
    """
    kinds: dict[str, Any] = {f.name: f.type for f in fields(Finding)}  # str, int or float

    def made(row: dict[str, str]) -> tuple[bool, tuple[int, str, str], Finding]:
        finding = Finding(**{name: kind(row[name]) for name, kind in kinds.items()})
        here = (row["dataset"], row["arch"]) == (dataset, arch) and current(row)
        return here, (int(row["digit"]), row["method"], finding.attack), finding

    return {key: f for here, key, f in _read(folder / "audit.csv", AUDIT_COLUMNS, made) if here}


def _read(path: Path, columns: list[str], make: Callable[[dict[str, str]], T]) -> list[T]:
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        if any(list(row) != columns or None in row.values() for row in rows):
            raise ValueError("a row has not one value for each column")
        return [make(row) for row in rows]
    except (KeyError, ValueError, csv.Error) as error:
        raise ValueError(
            f"{path} is damaged ({error!r}): delete it; `python -m sahelpers {path.stem}` makes "
            "it anew from the journal"
        ) from error


def excess_intervals(
    findings: Mapping[str, Finding], ax: Axes | None = None, title: str = ""
) -> Axes:
    """Excess over the controls between its ends, one row per entry; in nats if all entries are.

    Circle: erased; square: memory remains; diamond: undecided; cross: inconclusive.  Gray: from 0
    to the margin; the dotted line is as far on the other side, and a model resists beyond it.  The
    triangle is the hidden models' excess, what the attack finds where the class is known.
    """
    plots.check_some(findings, "findings", Finding)
    ax = plots.new_axes(ax, 4.5, 0.3 * len(findings) + 1.0)
    markers = {ERASED: "o", REMAINS: "s", OPEN: "D"}
    for row, f in enumerate(findings.values()):
        sign = -1 if f.attack in statistics.NATS else 1
        ax.plot([f.low, f.high], [row, row], color=plots.AFTER, lw=2, solid_capstyle="butt")
        mark = markers.get(f.verdict)
        look: dict[str, Any] = {"color": plots.AFTER if mark else "black", "ms": 5 if mark else 8}
        ax.plot(f.excess, row, mark or "x", zorder=3, **look)
        ax.plot(sign * (f.hidden - f.control), row, "^", color=plots.HIDDEN, ms=6)
        if f.margin >= 0:
            ax.barh(row, f.margin, 0.9, color="0.85", zorder=0)
            ax.plot([-f.margin] * 2, [row - 0.45, row + 0.45], ":", color="black", lw=1)
    ax.axvline(0, color="black", lw=0.8)
    ax.set_yticks(range(len(findings)), list(findings))
    ax.set_ylim(len(findings) - 0.5, -0.5)
    if all(f.attack in statistics.COSTS for f in findings.values()):
        ax.set(xlabel="excess of memory over the controls, nats")
    else:
        ax.set(xlabel="excess over the controls", xlim=(-1.05, 1.05))
    ax.set_title(title, fontsize=10)
    return ax
