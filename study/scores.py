"""The scoreboard's figures: one number per run, their means, and who dominates whom."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from scipy.special import stdtrit

from sahelpers.attacks.ladder import HEALED_FITTED
from sahelpers.attacks.verdicts import TAIL, Finding, pooled
from sahelpers.judges import SCORING

from .methods import METHODS
from .workers import on_processor

Row = Mapping[str, Any]  # of scoreboard.json
Figure = dict[tuple[int, int], float]  # (class, seed) -> number
Summary = dict[str, dict[str, Figure]]  # method -> figure -> its runs

ARGMAX, MEMORY = "argmax = c_f, %", "memory, nats"
BARS = {  # figure: (columns of a row, factor, what is allowed)
    ARGMAX: (("argmax_open_set_class", "argmax_open_set_standard"), 100, 1.0),
    "P(c_f)": (("p_open_set_class", "p_open_set_standard"), 1, 0.01),
    "kept mean lost, points": (tuple(f"kept_change_{r}_class" for r in SCORING), -1, 0.5),
    "worst class lost, points": (tuple(f"worst_drop_{r}_class" for r in SCORING), 1, 1.0),
    "kept ELBO lost, nats": (("elbo_kept_change",), 1, 1.0),
    "kept Frechet, % worse": (("frechet_change",), 100, 10.0),
}
_OTHERS = {
    MEMORY: "memory",
    "kept IWAE lost, nats": "iwae_kept_change",
    "c_f's IWAE lost, nats": "iwae_forgotten_change",
    "c_f's ELBO lost, nats": "elbo_forgotten_change",
    "seconds": "seconds",
    "real images": "real_images",
}
OTHERS = {figure: ((column,), 1, math.inf) for figure, column in _OTHERS.items()}
USUAL = ("mnist", "mlp")  # data set and network
AXES = (ARGMAX, "worst class lost, points", MEMORY, "seconds")


def summarise(
    rows: Sequence[Row],
    audit: Mapping[str, Mapping[int, Mapping[str, Finding]]] | None = None,
    place: tuple[str, str] = USUAL,
) -> Summary:
    """The figures of BARS and OTHERS for every method, one number per run; nan: not measured.

    Seconds are those of processors alone.

    Args:
        rows: Of scoreboard.json.  Other data sets and networks than MNIST and the MLP count as
            methods of their own.
        audit: Method -> digit -> rung -> finding, on `place`: the excess of memory under a fitted
            label, after further training, counts once for each digit, also one of which there is
            no row, and as zero where it lies below: that a digit costs more than in retrained
            models is no merit, and must not hide what is left of another.
        place: Data set and network that the audit is of; rows of others have no memory.
    """
    order = {name: k for k, name in enumerate(METHODS)}
    found: Summary = {}
    for row in sorted(rows, key=lambda r: (order.get(r["method"], 99), *_run(r))):
        name = row["method"] + _of_place(_place(row))
        derived = {
            "frechet_change": _number(row, "frechet_after") / _number(row, "frechet_before") - 1
        }
        if not on_processor(row.get("machine")):
            derived["seconds"] = math.nan  # they do not compare with a processor's
        for figure, (columns, factor, _) in (BARS | OTHERS).items():
            number = max(factor * derived.get(c, _number(row, c)) for c in columns)
            found.setdefault(name, {}).setdefault(figure, {})[row["class"], row["seed"]] = number
    for method, findings in (audit or {}).items():
        if runs := found.get(method + _of_place(place), {}).get(MEMORY):
            for digit, of in findings.items():
                seed = min((seed for label, seed in runs if label == digit), default=0)
                runs[digit, seed] = max(of[HEALED_FITTED].excess, 0.0)
    return found


def _of_place(place: tuple[str, str]) -> str:
    """What stands behind a method's name."""
    return f" ({', '.join(place)})" if place != USUAL else ""


def _place(row: Row) -> tuple[str, str]:
    return row["dataset"], row["arch"]


def _run(row: Row) -> tuple[Any, ...]:
    return *_place(row), row["class"], row["seed"]


def _number(row: Row, column: str) -> float:
    value = row.get(column)
    return math.nan if value is None else float(value)


def dominance(found: Summary) -> dict[str, list[str]]:
    """The methods that each method dominates: in the means of AXES over the classes that both have,
    no worse in any and better in one, with argmax or MEMORY among them.  If MEMORY was measured
    of one of the two only, or of other digits, neither does.

    Smaller is better.  Other data and networks are apart.
    """

    def measured(name: str) -> bool:
        return not all(math.isnan(nats) for nats in found[name][MEMORY].values())

    def beats(one: str, other: str) -> bool:
        if measured(one) != measured(other):
            return False  # nobody knows which of the two left more
        pairs = {axis: common_means(found[one][axis], found[other][axis]) for axis in AXES}
        if measured(one) and math.isnan(pairs[MEMORY][0]):
            return False  # of no digit of both
        known = {axis: pair for axis, pair in pairs.items() if not math.isnan(pair[0])}
        better = any(a < b for a, b in known.values()) and bool({ARGMAX, MEMORY} & known.keys())
        return better and all(a <= b for a, b in known.values())

    grid = {name: _suffix(name) for name in found}
    return {a: [b for b in found if b != a and grid[a] == grid[b] and beats(a, b)] for a in found}


def _suffix(name: str) -> str:
    """The data set and network that `summarise` has put behind a method's name, if any."""
    return "" if name in METHODS else name.rpartition(" (")[2]


def common_means(one: Figure, other: Figure) -> tuple[float, float]:
    """Means of two methods' figure over the classes of which both have a number; nan without any.

    The classes are fixed and the seeds are the sample, so that each class counts once.
    """
    mine, theirs = _by_class(one), _by_class(other)
    classes = [c for c in mine if c in theirs]
    first, second = (fmean([fmean(of[c]) for c in classes] or [math.nan]) for of in (mine, theirs))
    return first, second


def _by_class(figure: Figure) -> dict[int, list[float]]:
    """The numbers of every class that has any; runs without a number are left out."""
    found = defaultdict[int, list[float]](list)
    for (label, _), value in figure.items():
        if not math.isnan(value):
            found[label].append(value)
    return dict(found)


def interval(figure: Figure) -> tuple[float, float, float]:
    """Mean over classes and its 95 % t interval; runs without a number are left out.

    The classes are fixed and the seeds are the sample: the spread is that within classes, pooled,
    and the ends are nan where no class has two seeds.
    """
    by_class = _by_class(figure)
    if not by_class:
        return math.nan, math.nan, math.nan
    mean, (spread, df) = fmean(map(fmean, by_class.values())), pooled(by_class.values())
    error = spread * math.sqrt(sum(1 / len(group) for group in by_class.values())) / len(by_class)
    reach = error * float(stdtrit(df, 1 - TAIL / 2)) if df else math.nan
    return mean, mean - reach, mean + reach
