"""RESULTS.md: results_page.txt filled in from the journal.  No figure in it is typed.

`python -m study tables` writes it, and so does every command that changes the journal.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from scipy.stats import binomtest

from sahelpers.attacks import verdicts
from sahelpers.attacks.verdicts import (
    CLAIM_ATTACKS,
    ERASED,
    MIN_RETRAINED,
    REMAINS,
    Attacked,
    Groups,
)
from sahelpers.config import CHECKOUT
from sahelpers.judges import SCORING
from sahelpers.store.files import replace_text

from . import journal, scores, tables
from .claims import claim, digits_as_text
from .grid import RESULTS
from .journal import Record
from .measures import MeasureConfig
from .methods import ALONE, HIDDEN, OURS, REFERENCE
from .tables import Findings

Cells = dict[str, str]  # column -> text, of one method
FORM = Path(__file__).with_suffix(".txt")
USUAL = ("mnist", "mlp")
SHORT = f"{REFERENCE}, 3 passes"
BEGIN, END = "<!-- figures, by `make tables` -->", "<!-- end of the figures -->"  # in README


def write() -> None:
    """RESULTS.md, README's figures, scoreboard.json and audit.json anew."""
    records = journal.read(RESULTS / "journal.jsonl")
    tables.write(records, RESULTS)
    replace_text(CHECKOUT / "RESULTS.md", page(records))
    readme = CHECKOUT / "README.md"
    replace_text(readme, with_figures(readme.read_text(encoding="utf-8"), records))


def with_figures(readme: str, records: Sequence[Record]) -> str:
    """README with its figures of ours, between the two marks, anew from the journal's lines."""
    chosen = [r for r in tables.newest(records, "scoreboard") if r["method"] == OURS]
    rows = [tables.as_row(r) for r in chosen if (r["dataset"], r["arch"]) == USUAL]
    if not rows:
        lines = ["* Today's default is not measured yet: `make claim scoreboard`."]
        return _between_marks(readme, lines)
    findings = tables.audit(records).get((USUAL, OURS), {})
    figures = scores.summarise(rows)[OURS]
    worst = {name: max(runs.values()) for name, runs in figures.items()}
    standard = max(row[f"worst_drop_{role}_standard"] for row in rows for role in SCORING)
    seconds = figures["seconds"].values()
    n = MeasureConfig().samples
    lines = [
        f'* Under the forgotten label, a classifier that may answer "none of these" calls '
        f"{round(n * worst[scores.ARGMAX] / 100)} of {n:,} samples the digit, in the worst of "
        f"{len(rows)} runs (ten digits, three seeds).",
        f"* {verdicts.in_words(findings)}",
        f"* A kept digit is recognised {worst['worst class lost, points']:.2f} points less often "
        f"in the worst run ({standard:.2f} with z from N(0, I)), the kept negative ELBO rises by "
        f"{worst['kept ELBO lost, nats']:.2f} nats at most, and the Fréchet distance of the "
        f"samples by {worst['kept Frechet, % worse']:.1f} %.",
        f"* Forgetting takes {fmean(row['steps'] for row in rows):.0f} steps on average, "
        f"{min(seconds):.1f} to {max(seconds):.1f} processor seconds on one thread.",
    ]
    return _between_marks(readme, lines)


def _between_marks(readme: str, lines: Sequence[str]) -> str:
    """README with these lines as its figures."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + "\n".join([BEGIN, *lines, END]) + after


def page(records: Sequence[Record]) -> str:
    """RESULTS.md, of the journal's lines: what was found, the claim, tables with a line per method,
    and how the rows were made."""
    groups = tables.groups(records)
    audits = tables.audit(records)
    of_method = {method: found for (place, method), found in audits.items() if place == USUAL}
    rows = [tables.as_row(r) for r in tables.newest(records, "scoreboard")]
    found = scores.summarise(rows, of_method)
    mean, worst = cells(found), cells(found, largest=True)
    made = sorted({(row["machine"], row["version"]) for row in rows if row["machine"]})
    n = MeasureConfig().samples
    faced = {name: of_method.get(name, {}) for name in (OURS, HIDDEN, ALONE, SHORT)}
    convicted = {
        name: ", ".join(str(len(tally.digits[REMAINS])) for tally in claim(of))
        for name, of in faced.items()
    }
    published = RESULTS / "published.md"
    argmax, *bars = scores.BARS
    others = list(scores.OTHERS)
    return FORM.read_text(encoding="utf-8").format(
        n=f"{n:,}",
        bound=f"{100 * exact_interval(0, n, 'less')[1]:.2f}",
        ours=verdicts.in_words(faced[OURS]),
        adjusted=", ".join(str(len(tally.after_holm[ERASED])) for tally in claim(faced[OURS])),
        faced={name: len(of) for name, of in faced.items()},
        convicted=convicted,
        mean=defaultdict(str, mean.get(OURS, {})),
        largest=defaultdict(str, worst.get(OURS, {})),
        claim=claim_tables(faced[OURS]),
        rest=method_table({m: of for m, of in of_method.items() if m != OURS}),
        left_out=left_out_words(groups.get((USUAL, OURS), {})),
        published=published.read_text(encoding="utf-8") if published.is_file() else "",
        bars=by_method(mean, [argmax, *bars[1:]]),
        worst=by_method(worst, scores.BARS),
        memory=by_method(mean, others[:4]),
        cost=by_method(mean, [*others[4:], "dominates", "dominated by"]),
        elsewhere="".join(elsewhere(audits)),
        made="".join(f"Made on: {machine}; sahelpers {version}.\n" for machine, version in made),
    )


def elsewhere(audits: Mapping[tuple[tables.Place, str], Findings]) -> Iterable[str]:
    """A table for each other data set and network."""
    for place in sorted({place for place, _ in audits if place != USUAL}):
        of_method = {method: found for (where, method), found in audits.items() if where == place}
        yield f"\n**{', '.join(place)}**\n\n{method_table(of_method)}"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Markdown; empty without a row."""
    lines = ["".join(f"| {cell} " for cell in row) + "|\n" for row in (head, *rows)]
    if len(lines) == 1:
        return ""
    return lines[0] + "|---" * len(head) + "|\n" + "".join(lines[1:])


def cells(found: scores.Summary, largest: bool = False) -> dict[str, Cells]:
    """The text of every figure of every method, of dominance, too: `mean ± half of its interval`,
    or the largest of its runs, bold beyond what is allowed; and of how many runs if not of all."""
    above, made = scores.dominance(found), dict[str, Cells]()
    for name, figures in found.items():
        made[name] = {
            "runs": str(len(figures["seconds"])),
            "dominates": str(len(above[name])),
            "dominated by": str(sum(name in below for below in above.values())),
        }
        for figure, runs in figures.items():
            known = [value for value in runs.values() if not math.isnan(value)]
            if not known:
                made[name][figure] = "-"
                continue
            mean, low, high = scores.interval(runs)
            places = 0 if max(known) >= 1000 else 2
            shown = round(max(known) if largest else mean, places) + 0.0  # no minus before a zero
            text = f"{shown:.{places}f}"
            if largest:
                if max(known) > (scores.BARS | scores.OTHERS)[figure][2]:
                    text = f"**{text}**"
            elif not math.isnan(low):
                text += f"\u00a0±\u00a0{(high - low) / 2:.{places}f}"
            if len(known) < len(runs):
                text += f" n={len(known)}"
            made[name][figure] = text
    return made


def by_method(texts: Mapping[str, Cells], columns: Iterable[str]) -> str:
    """A line per method."""
    columns = ["runs", *columns]
    rows = ([method, *(of[column] for column in columns)] for method, of in texts.items())
    return table(["method", *columns], rows)


def claim_tables(findings: Findings) -> str:
    """The attacks of the claim on ours, a table each."""
    head = ["digit", "hidden", "ours", "retrained", "excess", "margin", "verdict"]
    found = []
    for attack in CLAIM_ATTACKS:
        rows = []
        for digit, of in findings.items():
            f = of[attack]
            ends = f"{f.excess:.2f} ({f.low:.2f} to {f.high:.2f})"
            numbers = [f"{value:.2f}" for value in (f.hidden, f.model, f.retrained)]
            rows.append([digit, *numbers, ends, f"{f.margin:.2f}", verdict_of(f)])
        found.append(f"**{attack.capitalize()}**\n\n{table(head, rows)}")
    return "\n".join(found)


def verdict_of(finding: verdicts.Finding) -> str:
    """The verdict in words."""
    return finding.verdict + (", resists" if finding.resists else "")


def method_table(of_method: Mapping[str, Findings]) -> str:
    """On which digits each attack of the claim finds what, a line for every method."""
    rows = []
    for method, findings in of_method.items():
        words = [
            "; ".join(
                f"{v} {digits_as_text(digits)}" for v, digits in tally.digits.items() if digits
            )
            for tally in claim(findings)
        ]
        rows.append([method, *words])
    return table(["method", *CLAIM_ATTACKS], rows)


def exact_interval(successes: int, n: int, alternative: str = "two-sided") -> tuple[float, float]:
    """The exact 95 % interval of a share (Clopper and Pearson 1934) from successes of n trials.

    alternative: "two-sided", or "less" for the one-sided upper end.
    """
    found: Any = binomtest(successes, n, alternative=alternative).proportion_ci(0.95, "exact")
    return float(found.low), float(found.high)


class LeftOut(NamedTuple):
    """Of `tried` retrained models of all digits that played the model: how many met an attack with
    power, and how many of these it convicted, with the exact 95 % interval of that share."""

    convicted: int
    powered: int
    tried: int
    low: float
    high: float


def left_out(digits: Mapping[int, tuple[Attacked, Attacked]]) -> dict[str, LeftOut]:
    """Every retrained model in turn as the model against the others of its digit, by every attack.

    In round k the k-th retrained model of every digit is left out.

    Args:
        digits: (hidden, retrained) of each digit, four retrained models or more.
    """
    said = defaultdict[str, list[str]](list)
    for k in range(max((len(retrained) for _, retrained in digits.values()), default=0)):
        rest = {
            digit: (retrained[k : k + 1], hidden, [*retrained[:k], *retrained[k + 1 :]])
            for digit, (hidden, retrained) in digits.items()
            if k < len(retrained)
        }
        reports = verdicts.compare_all(rest).values()
        for finding in chain(*(report.findings for report in reports)):
            said[finding.attack].append(finding.verdict)
    found = {}
    for attack, given in said.items():
        if attack not in verdicts.WITHOUT_VERDICT:
            convicted = given.count(REMAINS)
            powered = len(given) - given.count(verdicts.INCONCLUSIVE)
            ends = exact_interval(convicted, powered) if powered else (0.0, 1.0)
            found[attack] = LeftOut(convicted, powered, len(given), *ends)
    return found


def left_out_words(digits: Mapping[int, Groups]) -> str:
    """How many retrained models each attack convicts, where every digit has four or more."""
    four = {d: (g[1], g[2]) for d, g in digits.items() if len(g[2]) > MIN_RETRAINED}
    return "".join(
        f"* {attack}: {found.convicted} of {found.powered} retrained models convicted, a share of "
        f"{found.low:.3f} to {found.high:.3f} (exact, 95 %)\n"
        for attack, found in left_out(four).items()
    )
