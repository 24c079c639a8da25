"""RESULTS.md: results.txt filled in from the journal and the tables.  No figure in it is typed.

    python docs/results.py

The commands that change the journal or a table do the same at their end.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, product
from pathlib import Path
from typing import NamedTuple

from scipy.special import betaincinv

from sahelpers.config import CHECKOUT, DATASETS, AmnesiaConfig, JudgeConfig
from sahelpers.store.files import replace_text
from sahelpers.study import scores, statistics, verdicts
from sahelpers.study.battery import Claim, Effort
from sahelpers.study.grid import read_journal
from sahelpers.study.methods import ALONE, HIDDEN, OURS, recipe
from sahelpers.study.report import BASELINES, RESULTS, Record, audited, read_audit, read_scoreboard
from sahelpers.study.scores import Audit, Row
from sahelpers.study.statistics import ERASED, MIN_CONTROLS, NAMED, REMAINS, Groups

Cells = dict[str, str]  # column -> text, of one method
FORM = Path(__file__).with_name("results.txt")
SHORT = "reference, 3 passes"
PARTS = ("examination", "further", "published", "literature")  # pages of other commands' tables


def write() -> None:
    """RESULTS.md anew."""
    text = page(read_journal(RESULTS / "journal.jsonl"))
    replace_text(CHECKOUT / "RESULTS.md", text)


def page(records: Iterable[Record]) -> str:
    """RESULTS.md, of the repository's tables and the journal's lines."""
    audits = {place: read_audit(RESULTS, *place) for place in product(DATASETS, BASELINES)}
    audit = audits.pop(("mnist", "mlp"))
    return markdown(read_scoreboard(), audit, audited(records), audits)


def markdown(
    rows: Sequence[Row],
    audit: Audit | None = None,
    groups: Mapping[tuple[str, ...], Mapping[int, Groups]] | None = None,
    others: Mapping[tuple[str, str], Audit] | None = None,
) -> str:
    """RESULTS.md: what was found, the claim, tables with one line per method, how rows were made.

    groups: what `audited` found in the journal, for the controls that are left out in turn.
    others: the audits of other data sets and networks.
    """
    whole, audit = [row for row in rows if not row["error"]], audit or {}
    found = scores.summarise(whole, audit)
    mean, worst = cells(found), cells(found, largest=True)
    made = sorted({(r["machine"], r["version"]) for r in whole if r["machine"]})
    notes = [f"Made on: {machine}; sahelpers {version}.\n" for machine, version in made]
    if failed := len(rows) - len(whole):
        notes.append(f"{failed} runs failed.\n")
    n, (argmax, *bars), more = Effort().samples, scores.BARS, list(scores.OTHERS)
    today = recipe(OURS, BASELINES["mlp"], AmnesiaConfig(), JudgeConfig(), Claim())
    played = (groups or {}).get(("claim", OURS, "mnist", "mlp", today), {})
    faced = {name: verdicts.of_method(audit, name) for name in (OURS, HIDDEN, ALONE, SHORT)}
    told = verdicts.claim(faced[OURS])
    parts = {name: RESULTS / f"{name}.md" for name in PARTS}
    apart = {k: p.read_text(encoding="utf-8") if p.is_file() else "" for k, p in parts.items()}
    convicted = {
        name: ", ".join(str(len(tally.digits[REMAINS])) for tally in verdicts.claim(of).named)
        for name, of in faced.items()
    }
    return FORM.read_text(encoding="utf-8").format(
        n=f"{n:,}",
        bound=f"{100 * exact(0, n, statistics.TAIL)[1]:.2f}",
        ours=verdicts.in_words(faced[OURS]),
        adjusted=", ".join(str(len(tally.sure[ERASED])) for tally in told.named),
        others=len(told.others),
        tried="".join(f"* {line}\n" for line in str(told).splitlines() if ": power on " in line),
        remains=", by ".join(told.remains) or "none",
        faced={name: len(of) for name, of in faced.items()},
        convicted=convicted,
        mean=defaultdict(str, mean.get(OURS, {})),
        largest=defaultdict(str, worst.get(OURS, {})),
        claim=claim_tables(audit),
        rest=method_table(audit, but=OURS),
        left_out=left_out_words(played),
        **apart,
        bars=by_method(mean, [argmax, *bars[1:]]),
        worst=by_method(worst, scores.BARS),
        memory=by_method(mean, more[:6]),
        cost=by_method(mean, [*more[6:], "dominates", "dominated by"]),
        elsewhere="".join(
            f"\n**{', '.join(place)}**\n\n{lines}"
            for place, of in (others or {}).items()
            if (lines := method_table(of))
        ),
    ) + "".join(notes)


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Markdown; empty without a row."""
    lines = ["".join(f"| {cell} " for cell in row) + "|\n" for row in (head, *rows)]
    return "".join([lines[0], "|---" * len(head), "|\n", *lines[1:]]) if lines[1:] else ""


def cells(found: scores.Summary, largest: bool = False) -> dict[str, Cells]:
    """The text of every figure of every method, of dominance, too: `mean ± half of its interval`,
    or the largest of its runs, bold beyond what is allowed; and of how many runs if not of all."""
    above, made = scores.dominance(found), dict[str, Cells]()
    for name, figures in found.items():
        below = sum(name in others for others in above.values())
        counts = len(figures["seconds"]), len(above[name]), below
        made[name] = dict(zip(("runs", "dominates", "dominated by"), map(str, counts), strict=True))
        for figure, runs in figures.items():
            known = [v for v in runs.values() if not math.isnan(v)]
            mean, low, high = scores.interval(runs)
            digits = 0 if max(known, default=0) >= 1000 else 2
            text = f"{round(max(known, default=0) if largest else mean, digits) + 0.0:.{digits}f}"
            if largest and known:
                mark = "**" * (max(known) > (scores.BARS | scores.OTHERS)[figure][2])
                text = f"{mark}{text}{mark}"
            elif not math.isnan(low):
                text += f"\u00a0±\u00a0{(high - low) / 2:.{digits}f}"
            text += f" n={len(known)}" * (len(known) < len(runs))
            made[name][figure] = text if known else "-"
    return made


def by_method(texts: Mapping[str, Cells], columns: Iterable[str]) -> str:
    """A line per method."""
    columns = ["runs", *columns]
    rows = ([method, *(of[column] for column in columns)] for method, of in texts.items())
    return table(["method", *columns], rows)


def claim_tables(audit: Audit) -> str:
    """The named attacks on ours, a table each."""
    head = ["digit", "hidden", "ours", "controls", "excess", "margin", "verdict"]
    found = []
    for attack in NAMED:
        rows = []
        for digit, of in verdicts.of_method(audit, OURS).items():
            f = of[attack]
            ends = f"{f.excess:.2f} ({f.low:.2f} to {f.high:.2f})"
            numbers = [f"{v:.2f}" for v in (f.hidden, f.model, f.control)]
            said = f.verdict + ", resists" * f.resists
            rows.append([digit, *numbers, ends, f"{f.margin:.2f}", said])
        found.append(f"**{attack.capitalize()}**\n\n{table(head, rows)}")
    return "\n".join(found)


def method_table(audit: Audit, but: str = "") -> str:
    """On which digits each named attack finds what: a line for every method that faced them, but
    for this one."""
    rows = []
    for method in dict.fromkeys(name for _, name, _ in audit if name != but):
        if of := verdicts.of_method(audit, method):
            said = [tally.digits.items() for tally in verdicts.claim(of).named]
            words = [[f"{v} {verdicts.spaced(d)}" for v, d in each if d] for each in said]
            rows.append([method, *map("; ".join, words)])
    return table(["method", *NAMED], rows)


def exact(successes: int, n: int, tail: float = statistics.TAIL / 2) -> tuple[float, float]:
    """Lowest and highest share (Clopper-Pearson) under which so many successes of n, or more
    extreme ones, have a chance of `tail`: 95 % between both, or one-sided with tail 0.05."""
    if not 0 <= successes <= n or n < 1:
        raise ValueError(f"{successes} successes of {n}: give from 0 to n, and n from 1 on")
    s, f = successes, n - successes
    low = float(betaincinv(s, f + 1, tail)) if s else 0.0
    return low, float(betaincinv(s + 1, f, 1 - tail)) if f else 1.0


class LeftOut(NamedTuple):
    """Of `tried` controls of all digits played as the model: how many met an attack with power, and
    how many of these it convicted, with the exact 95 % interval of that share."""

    convicted: int
    powered: int
    tried: int
    low: float
    high: float


def left_out(
    digits: Mapping[int, tuple[statistics.Attacked, statistics.Attacked]],
) -> dict[str, LeftOut]:
    """Every control in turn as the model against the others of its digit, for every attack.

    digits: (hidden, controls) of each.  In round k the k-th control of every digit is left out.
    Raises ValueError as `compare_all`: four controls of a digit are the fewest.
    """
    said = defaultdict[str, list[str]](list)
    for k in range(max((len(c) for _, c in digits.values()), default=0)):
        rest = {
            digit: (controls[k : k + 1], hidden, [*controls[:k], *controls[k + 1 :]])
            for digit, (hidden, controls) in digits.items()
            if k < len(controls)
        }
        reports = statistics.compare_all(rest).values()
        for finding in chain(*(report.findings for report in reports)):
            said[finding.attack].append(finding.verdict)
    found = {}
    for attack, given in said.items():
        if attack not in (*statistics.BESIDE, statistics.KEPT, statistics.FOOLED):
            convicted = given.count(REMAINS)
            powered = len(given) - given.count(statistics.INCONCLUSIVE)
            ends = exact(convicted, powered) if powered else (0.0, 1.0)
            found[attack] = LeftOut(convicted, powered, len(given), *ends)
    return found


def left_out_words(digits: Mapping[int, Groups]) -> str:
    """How many controls each named attack convicts, where every digit has four or more."""
    four = {d: (g[1], g[2]) for d, g in digits.items() if len(g[2]) > MIN_CONTROLS}
    return "".join(
        f"* {attack}: {found.convicted} of {found.powered} controls convicted, a share of "
        f"{found.low:.3f} to {found.high:.3f} (exact, 95 %)\n"
        for attack, found in left_out(four).items()
    )


if __name__ == "__main__":
    write()
