"""What many runs say: a model against its controls, figures per method, who dominates whom.

Only the difference to models that never saw the class is evidence.  "No more than the control" is
a claim of non-inferiority: the upper end of the interval of (model - control) is at most MARGIN.
An interval that a few restarts leave wide does not meet it, so fewer restarts never make it easier
(areas have a floor under the spread of their repeats).  And an attack that does not tell the
controls from the baseline, which knows the class, proves nothing by finding nothing: the lower end
of the baseline's own excess must lie above zero.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from operator import itemgetter
from statistics import fmean

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..judges import SCORING
from ..models import seeded
from .methods import CONTROL, METHODS

MARGIN = 0.10  # an excess over the controls up to here counts as none
MIN_CONTROLS = 3  # with fewer nothing is decided
DRAWS = 20_000  # of the means of an attack
SPREAD = 0.02  # standard deviation of areas at least: a few repeats may agree by chance
NO_MORE = "no more than the control"
REMAINS = "memory remains"
INCONCLUSIVE = "inconclusive"  # the attack cannot tell, or failed a check of itself
SOUND = "sound"  # of such a check
OPEN = "not decided at this n"
KEPT, FOOLED = "guided both, kept class", "guide fooled at the start"  # checks of guided attacks
SOUND_FROM = 0.9  # share of restarts that must find a kept class, or begin with a guide not fooled

# attack -> 0 or 1 for every restart, or an area from 0.0 to 1.0 for every relearning run
Values = dict[str, list[float]]
Attacked = Sequence[Values]  # one entry per seed, and the same of one attack:
Group = Sequence[Sequence[float]]


@dataclass(frozen=True)
class Finding:
    """One attack: mean over seeds and restarts (or repeats) of models, baselines and controls.

    low, high: 95 % interval of the model's mean.  excess: model minus controls, with its interval.
    n: restarts or repeats per model; controls: how many were attacked.
    """

    attack: str
    n: int
    baseline: float
    model: float
    low: float
    high: float
    control: float
    controls: int
    excess: float
    excess_low: float
    excess_high: float
    verdict: str


def ends(draws: Tensor) -> tuple[float, float]:
    """The ends of the middle 95 % of draws (D,)."""
    low, high = draws.quantile(torch.tensor([0.025, 0.975], dtype=draws.dtype)).tolist()
    return low, high


def interval(values: Iterable[float]) -> tuple[float, float, float]:
    """Mean and its 95 % bootstrap interval over runs, those without a number left out."""
    known = torch.tensor([v for v in values if not math.isnan(v)])
    if not len(known):
        return math.nan, math.nan, math.nan
    picked = torch.randint(len(known), (2000, len(known)), generator=seeded(0))
    return float(known.mean()), *ends(known[picked].mean(1))


def draw_means(values: Sequence[float], rng: np.random.Generator) -> NDArray[np.float64]:
    """(DRAWS,) draws of the mean that these values leave possible.

    Whole numbers are successes and failures: Beta(s + 1/2, f + 1/2), which stays wide when there
    are few of them, where resampling five failures would give zero for sure.  Floats are areas: the
    mean plus a t variable with the standard error as its unit, cut at 0 and 1; their standard
    deviation counts as SPREAD at least.
    """
    x = np.asarray(values)
    if x.dtype.kind in "bi":
        return rng.beta(x.sum() + 0.5, (1 - x).sum() + 0.5, DRAWS)
    if len(x) < 2:
        raise ValueError(f"{len(x)} repeat has no spread: give at least 2")
    error = max(float(x.std(ddof=1)), SPREAD) / len(x) ** 0.5
    drawn: NDArray[np.float64] = float(x.mean()) + error * rng.standard_t(len(x) - 1, DRAWS)
    return drawn.clip(0, 1)


def compare(attack: str, models: Group, baselines: Group, controls: Group) -> Finding:
    """Mean, excess over the controls, intervals and verdict of one attack; one sequence per seed.

    A draw of a group's mean takes seeds with replacement, each with a draw of its own mean: a seed
    picked twice brings the same draw twice.  That is a little wide, which makes up for what three
    seeds make too narrow (tests/test_statistics.py measures the coverage).
    """
    rng, draws, means = np.random.default_rng(0), [], []
    groups = {"models": models, "baselines": baselines, "controls": controls}
    for name, group in groups.items():
        if not len(group) or not all(len(values) for values in group):
            raise ValueError(f"{name}={group!r} holds no number: give at least one for each seed")
        if not all(0 <= value <= 1 for values in group for value in values):
            raise ValueError(f"{name} of {attack!r} holds a number that is not from 0 to 1")
        drawn = np.stack([draw_means(values, rng) for values in group])  # (seeds, DRAWS)
        picked = torch.from_numpy(rng.integers(len(group), size=drawn.shape).T)
        draws.append(torch.from_numpy(drawn.T).gather(1, picked).mean(1))
        means.append(float(np.mean([np.mean(values) for values in group])))
    (mine, knowing, theirs), (model, baseline, control) = draws, means
    low, high = ends(mine - theirs)
    if len(controls) < MIN_CONTROLS:
        verdict = OPEN
    elif high > MARGIN:
        verdict = REMAINS if low > 0 else OPEN
    else:
        verdict = NO_MORE if ends(knowing - theirs)[0] > 0 else INCONCLUSIVE
    of_model = len(models[0]), baseline, model, *ends(mine)
    return Finding(attack, *of_model, control, len(controls), model - control, low, high, verdict)


@dataclass(frozen=True)
class AuditReport:
    """The findings for one forgotten class; printed as a table."""

    forget_class: int
    findings: tuple[Finding, ...]

    def __str__(self) -> str:
        head = f"{'attack':26}{'n':>5}{'baseline':>10}{'model':>7}{'control':>9}  excess"
        lines = [f"class {self.forget_class}", head]
        for f in self.findings:
            lines.append(
                f"{f.attack:26}{f.n:5}{f.baseline:10.2f}{f.model:7.2f}{f.control:9.2f}  "
                f"{f.excess:+.2f} [{f.excess_low:+.2f}, {f.excess_high:+.2f}]  {f.verdict}"
            )
        return "\n".join(lines)


def compare_all(
    forget_class: int, models: Attacked, baselines: Attacked, controls: Attacked
) -> AuditReport:
    """The report on what `attack_all` found: one entry per seed in each of the three groups.

    Where a check of the guided attacks fails on a model, they have not shown that nothing is there.
    """
    groups = (models, baselines, controls)
    if not all(groups):
        counts = [len(group) for group in groups]
        raise ValueError(f"{counts} models, baselines and controls: give at least one of each")
    names = list(models[0])
    for values in chain(*groups):
        if set(values) != set(names):
            raise ValueError(f"attacks {list(values)} are not {names}: make them alike")
    sound = {
        KEPT: min(fmean(values[KEPT]) for values in models) >= SOUND_FROM,
        FOOLED: max(fmean(values[FOOLED]) for values in models) <= 1 - SOUND_FROM,
    }
    findings = []
    for name in names:
        found = compare(name, *([values[name] for values in group] for group in groups))
        if name in sound:
            found = replace(found, verdict=SOUND if sound[name] else INCONCLUSIVE)
        elif name.startswith("guided") and found.verdict != REMAINS and not all(sound.values()):
            found = replace(found, verdict=INCONCLUSIVE)
        findings.append(found)
    return AuditReport(forget_class, tuple(findings))


Row = Mapping[str, str]  # of the scoreboard
Audit = Mapping[tuple[int, str, str], Finding]  # (class, method, attack)
Figure = dict[tuple[str, str], float]  # (class, seed) -> number
Summary = dict[str, dict[str, Figure]]  # method -> figure -> its runs

BARS = {  # figure: (columns of the CSV, factor, what is allowed)
    "argmax = c_f, %": (("argmax_open_class", "argmax_open_standard"), 100, 1.0),
    "stretched, %": (("argmax_stretched_open_class", "argmax_stretched_open_standard"), 100, 1.0),
    "P(c_f)": (("p_open_class", "p_open_standard"), 1, 0.01),
    "kept mean lost, points": (tuple(f"kept_change_{r}_class" for r in SCORING), -1, 0.5),
    "worst class lost, points": (tuple(f"worst_drop_{r}_class" for r in SCORING), 1, 2.0),
    "kept ELBO lost, nats": (("elbo_kept_change",), 1, 1.0),
    "kept Frechet, % worse": (("frechet_change",), 100, 5.0),
}
_OTHERS = {
    "attack - control": "attack_excess",
    "relearning - control": "relearn_excess",
    "kept IWAE lost, nats": "iwae_kept_change",
    "c_f's IWAE lost, nats": "iwae_forgotten_change",
    "c_f's ELBO lost, nats": "elbo_forgotten_change",
    "seconds": "seconds",
    "real images": "real_images",
    "peak MB": "peak_mb",
}
OTHERS = {figure: ((column,), 1, math.inf) for figure, column in _OTHERS.items()}
AXES = ("argmax = c_f, %", "worst class lost, points", "attack - control", "seconds")
AUDITED = {"attack": "guided both", "relearn": "relearn 10"}  # column: its name in the audit


def summarise(rows: Sequence[Row], audit: Audit | None = None) -> Summary:
    """The figures of BARS and OTHERS for every method, one number per run; nan: not measured.

    rows: of the table, without failures.  audit: fills in what a run's own attack would say.
    Other data sets and architectures than MNIST and MLP count as methods of their own; so do other
    recipes than the method's last in the table, under their fingerprints.
    """
    order = {name: k for k, name in enumerate(METHODS)}
    kind = itemgetter("method", "dataset", "arch")
    last = {kind(row): row["fingerprint"] for row in rows}
    found: Summary = {}
    unused = dict(audit or {})
    for row in sorted(rows, key=lambda r: (order.get(r["method"], 99), *_where(r), r["seed"])):
        words = [] if kind(row)[1:] == ("mnist", "mlp") else [row["dataset"], row["arch"]]
        words += [] if last[kind(row)] == row["fingerprint"] else [row["fingerprint"]]
        name = row["method"] + f" ({', '.join(words)})" * bool(words)
        where = _where(row)
        others = [r for r in rows if r["method"] == CONTROL and _where(r) == where and r is not row]
        derived = {
            "frechet_change": _number(row, "frechet_after") / _number(row, "frechet_before") - 1
        }
        for what, attack in AUDITED.items():
            theirs = [_number(r, what) for r in others if r[what]]
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
    no worse in any and better in one, with argmax or attack among them.

    Smaller is better, but an attack that finds less than in the control counts as zero.  Other
    data, networks and recipes are apart.
    """

    def beats(one: str, other: str) -> bool:
        pairs = {axis: common_means(found[one][axis], found[other][axis]) for axis in AXES}
        a, b = pairs["attack - control"]
        pairs["attack - control"] = (max(a, 0.0), max(b, 0.0))  # NaN stays
        known = {axis: pair for axis, pair in pairs.items() if not math.isnan(pair[0])}
        some = not known.keys().isdisjoint(("argmax = c_f, %", "attack - control"))
        better = any(a < b for a, b in known.values())
        return some and better and all(a <= b for a, b in known.values())

    grid = {name: name.partition(" (")[2] for name in found}
    return {a: [b for b in found if b != a and grid[a] == grid[b] and beats(a, b)] for a in found}


def common_means(one: Figure, other: Figure) -> tuple[float, float]:
    """Means of two methods' figure over the runs in which both have a number; nan without any."""
    runs = [c for c in one if c in other and not math.isnan(one[c] + other[c])]
    mine, theirs = (fmean([figure[c] for c in runs] or [math.nan]) for figure in (one, other))
    return mine, theirs
