"""The scoreboard's figures: one number per run, their means, and who dominates whom."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from operator import itemgetter
from statistics import fmean

from scipy.special import stdtrit

from ..judges import SCORING
from .methods import CONTROL, METHODS, OURS, VARIANTS
from .statistics import NAMED, TAIL, Finding, pooled

Row = Mapping[str, str]  # of the scoreboard
Audit = Mapping[tuple[int, str, str], Finding]  # (class, method, attack)
Figure = dict[tuple[str, str], float]  # (class, seed) -> number
Summary = dict[str, dict[str, Figure]]  # method -> figure -> its runs

BARS = {  # figure: (columns of the CSV, factor, what is allowed)
    "argmax = c_f, %": (("argmax_open_class", "argmax_open_standard"), 100, 1.0),
    "P(c_f)": (("p_open_class", "p_open_standard"), 1, 0.01),
    "kept mean lost, points": (tuple(f"kept_change_{r}_class" for r in SCORING), -1, 0.5),
    "worst class lost, points": (tuple(f"worst_drop_{r}_class" for r in SCORING), 1, 1.0),
    "kept ELBO lost, nats": (("elbo_kept_change",), 1, 1.0),
    "kept Frechet, % worse": (("frechet_change",), 100, 10.0),
}
_OTHERS = {
    "label only - control": "label_excess",
    "attack - control": "attack_excess",
    "relearning - control": "relearn_excess",
    "kept IWAE lost, nats": "iwae_kept_change",
    "c_f's IWAE lost, nats": "iwae_forgotten_change",
    "c_f's ELBO lost, nats": "elbo_forgotten_change",
    "seconds": "seconds",
    "real images": "real_images",
}
OTHERS = {figure: ((column,), 1, math.inf) for figure, column in _OTHERS.items()}
ARGMAX, ATTACK = "argmax = c_f, %", "label only - control"
AXES = (ARGMAX, "worst class lost, points", ATTACK, "seconds")
AUDITED = {"label": NAMED[0], "attack": "guided both", "relearn": "relearn 10"}  # in the audit


def summarise(rows: Sequence[Row], audit: Audit | None = None) -> Summary:
    """The figures of BARS and OTHERS for every method, one number per run; nan: not measured.

    rows: of the table, without failures.  audit: fills in what a run's own attack would say.
    Other data sets and architectures than MNIST and MLP count as methods of their own.  Of a method
    only the rows of its last recipe in the table count (of VARIANTS, those of ours).
    """
    order = {name: k for k, name in enumerate(METHODS)}
    kind = itemgetter("method", "dataset", "arch")
    last = {kind(row): row["fingerprint"] for row in rows}
    last |= {(m, *k): mark for (ours, *k), mark in last.items() if ours == OURS for m in VARIANTS}
    found: Summary = {}
    unused = dict(audit or {})
    newest = (row for row in rows if row["fingerprint"] == last[kind(row)])
    for row in sorted(newest, key=lambda r: (order.get(r["method"], 99), *_where(r), r["seed"])):
        words = [] if kind(row)[1:] == ("mnist", "mlp") else [row["dataset"], row["arch"]]
        name = row["method"] + f" ({', '.join(words)})" * bool(words)
        where = _where(row)
        others = [r for r in rows if r["method"] == CONTROL and _where(r) == where and r is not row]
        ratio = _number(row, "frechet_after") / _number(row, "frechet_before")
        derived = {"frechet_change": ratio - 1}
        for what, attack in AUDITED.items():
            theirs = [_number(r, what) for r in others if r.get(what)]
            excess = _number(row, what) - fmean(theirs or [math.nan])
            key = int(row["class"]), row["method"], attack
            if math.isnan(excess) and not words and key in unused:
                excess = unused.pop(key).excess  # of all its seeds: counts once for the class
            derived[f"{what}_excess"] = excess
        for figure, (columns, factor, _) in (BARS | OTHERS).items():
            number = max(factor * derived.get(c, _number(row, c)) for c in columns)
            runs = found.setdefault(name, {}).setdefault(figure, {})
            runs[row["class"], row["seed"]] = number
    return found


def _where(row: Row) -> tuple[str, ...]:
    """What a run shares with its controls: the first half of its fingerprint is the baseline's."""
    return row["dataset"], row["arch"], row["class"], row["fingerprint"].partition("-")[0]


def _number(row: Row, column: str) -> float:
    return float(row.get(column) or "nan")


def dominance(found: Summary) -> dict[str, list[str]]:
    """The methods that each method dominates: in the means of AXES over the runs that both have,
    no worse in any and better in one, with argmax or ATTACK among them.

    Smaller is better, but what ATTACK finds below the controls counts as zero.  Other data and
    networks are apart.
    """

    def beats(one: str, other: str) -> bool:
        pairs = {axis: common_means(found[one][axis], found[other][axis]) for axis in AXES}
        a, b = pairs[ATTACK]
        pairs[ATTACK] = max(a, 0.0), max(b, 0.0)  # NaN stays
        known = {axis: pair for axis, pair in pairs.items() if not math.isnan(pair[0])}
        better = any(a < b for a, b in known.values()) and bool({ARGMAX, ATTACK} & known.keys())
        return better and all(a <= b for a, b in known.values())

    grid = {name: name.partition(" (")[2] for name in found}
    return {a: [b for b in found if b != a and grid[a] == grid[b] and beats(a, b)] for a in found}


def common_means(one: Figure, other: Figure) -> tuple[float, float]:
    """Means of two methods' figure over the runs in which both have a number; nan without any."""
    runs = [c for c in one if c in other and not math.isnan(one[c] + other[c])]
    mine, theirs = (fmean([figure[c] for c in runs] or [math.nan]) for figure in (one, other))
    return mine, theirs


def interval(figure: Figure) -> tuple[float, float, float]:
    """Mean over classes and its 95 % t interval; runs without a number are left out.

    The classes are fixed and the seeds are the sample: the spread is that within classes, pooled,
    and the ends are nan where no class has two seeds.
    """
    groups = defaultdict[str, list[float]](list)
    for (label, _), value in figure.items():
        if not math.isnan(value):
            groups[label].append(value)
    if not groups:
        return math.nan, math.nan, math.nan
    mean, (spread, df) = fmean(map(fmean, groups.values())), pooled(groups.values())
    error = spread * math.sqrt(sum(1 / len(group) for group in groups.values())) / len(groups)
    reach = error * float(stdtrit(df, 1 - TAIL / 2)) if df else math.nan
    return mean, mean - reach, mean + reach
