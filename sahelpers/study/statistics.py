"""What many models say: the model under test against those that remember and those that never knew.

Every model gives one number per attack, and models are the sample: restarts, repeats and images of
one model are not trials.  All ends are one-sided, 5 %, of t intervals for differences of groups of
models.  An attack speaks for a digit only if it convicts the hidden model there, which is known to
remember; "erased" is then a claim of non-inferiority to models that never saw the digit.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from statistics import fmean

from scipy.special import stdtr, stdtrit

MARGIN = 0.10  # of shares and areas at most: an excess over the controls up to here counts as none
MIN_CONTROLS = 3  # fewer say too little about how models that never saw the class differ
SPREAD, NATS_SPREAD = 0.005, 0.05  # standard deviations at least: a few models may agree by chance
TAIL = 0.05  # of every one-sided statement
ERASED, REMAINS, OPEN = "erased", "memory remains", "undecided"
INCONCLUSIVE = "inconclusive"  # the attack cannot tell, or failed a check of itself
SOUND = "sound"  # of such a check
BESIDE_ONLY = "beside"  # no attack: it has no verdict
KEPT, FOOLED = "guided both, kept class", "guide fooled at the start"  # checks of guided attacks
SOUND_FROM = 0.9  # share of restarts that must find a kept class, or begin with a guide not fooled
NATS = (  # attacks whose number is a cost: smaller is more memory
    "cost under other labels", "cost under a fitted label", "cost, first layer fitted",
)  # fmt: skip
BESIDE = (
    "share shown under other labels", "kept digits' cost, own label",
    "kept digits' cost, other labels",
)  # fmt: skip
COSTS = (*NATS, *BESIDE[1:])  # in nats; all else are shares and areas from 0 to 1
NAMED = ("label only, 10 images", "label only, 100 images", *NATS[:2])  # the named claim

Values = dict[str, list[float]]  # attack -> numbers of one model (restarts, repeats or images)
Attacked = Sequence[Values]  # one entry per model
Groups = tuple[Attacked, Attacked, Attacked]  # models, hidden, controls
Spread = tuple[float, int]  # standard deviation and its degrees of freedom


@dataclass(frozen=True)
class Finding:
    """One attack on one digit: means of the groups, the model's excess, and the verdict.

    n: values per model.  models, controls: how many there were.  excess: memory of the models
    beyond that of the controls, in shares or nats, positive where more is remembered; low, high:
    its ends.  power: lower end of the hidden models' excess.  margin: up to here an excess counts
    as none.  p_erased, p_remains: one-sided p values of an excess below margin and above 0.
    resists: 1 if the attack has power and high lies below -margin: told from one that never knew.
    """

    attack: str
    n: int
    hidden: float
    model: float
    control: float
    models: int
    controls: int
    excess: float
    low: float
    high: float
    power: float
    margin: float
    p_erased: float
    p_remains: float
    resists: int
    verdict: str


def pooled(groups: Iterable[Sequence[float]]) -> Spread:
    """Standard deviation within groups of numbers, (0, 0) where none has two."""
    known = [(group, fmean(group)) for group in groups]
    df = sum(len(group) - 1 for group, _ in known)
    squares = sum((x - mean) ** 2 for group, mean in known for x in group)
    return math.sqrt(squares / max(df, 1)), df


def compare(
    attack: str,
    models: Sequence[float],
    hidden: Sequence[float],
    controls: Sequence[float],
    spreads: Sequence[Spread] = ((0.0, 0),) * 3,
    n: int = 1,
) -> Finding:
    """Excess over the controls, ends and verdict of one attack; one number per model.

    spreads: of the three groups, pooled over digits; the larger of a group's own and the pooled one
    counts, and that of the controls for a lone model without any.  n: values behind each number.
    Raises ValueError for a group without a number, for fewer than three controls, for a share
    outside [0, 1] and for a cost that is not finite.
    """
    groups = {"models": models, "hidden": hidden, "controls": controls}
    for name, group in groups.items():
        if not group:
            raise ValueError(f"{name} of {attack!r} holds no number: give one for each model")
        if not all(math.isfinite(x) and (attack in COSTS or 0 <= x <= 1) for x in group):
            allowed = "nats" if attack in COSTS else "shares or areas from 0 to 1"
            raise ValueError(f"{name} of {attack!r} holds {list(group)}: give {allowed}")
    if len(controls) < MIN_CONTROLS:
        raise ValueError(f"{len(controls)} controls of {attack!r}: give at least three")
    least = NATS_SPREAD if attack in COSTS else SPREAD
    found = [max(pooled([g]), s) for g, s in zip(groups.values(), spreads, strict=True)]
    used = [spread if spread[1] else found[2] for spread in found]
    parts = [max(s, least) ** 2 / len(g) for (s, _), g in zip(used, groups.values(), strict=True)]

    def error(k: int) -> tuple[float, float]:
        """Standard error of group k minus controls, and its degrees of freedom."""
        both = parts[k] + parts[2]
        welch = both**2 / sum(parts[j] ** 2 / used[j][1] for j in (k, 2))
        return math.sqrt(both), welch if found[k][1] else used[2][1]  # a lent spread has its own

    model, knowing, control = map(fmean, groups.values())
    sign = -1 if attack in NATS else 1
    excess, known = sign * (model - control), sign * (knowing - control)
    (se, df), (known_se, known_df) = error(0), error(1)
    reach = se * float(stdtrit(df, 1 - TAIL))
    low, high = excess - reach, excess + reach
    power = known - known_se * float(stdtrit(known_df, 1 - TAIL))
    margin = max(0.0, known / 3 if attack in NATS else min(MARGIN, known / 2))
    if attack in BESIDE:
        margin, verdict = math.nan, BESIDE_ONLY
    elif power <= 0:
        verdict = INCONCLUSIVE
    elif high <= margin:
        verdict = ERASED
    else:
        verdict = REMAINS if low > 0 else OPEN
    chances = float(stdtr(df, (excess - margin) / se)), float(stdtr(df, -excess / se))
    of_groups = knowing, model, control, len(models), len(controls)
    ends = excess, low, high, power, margin
    resists = int(verdict != INCONCLUSIVE and high < -margin)
    return Finding(attack, n, *of_groups, *ends, *chances, resists, verdict)


@dataclass(frozen=True)
class AuditReport:
    """The findings for one forgotten class, and what limits them; printed as a table."""

    forget_class: int
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()

    @property
    def by_attack(self) -> dict[str, Finding]:
        """The findings under their attacks' names."""
        return {f.attack: f for f in self.findings}

    def __str__(self) -> str:
        head = f"{'attack':32}{'n':>5}{'hidden':>8}{'model':>8}{'control':>8}  excess, margin"
        lines = [f"class {self.forget_class}", head]
        for f in self.findings:
            lines.append(
                f"{f.attack:32}{f.n:5}{f.hidden:8.2f}{f.model:8.2f}{f.control:8.2f}  "
                f"{f.excess:+.2f} [{f.low:+.2f}, {f.high:+.2f}], {f.margin:.2f}  "
                f"{f.verdict}{', resists' * f.resists}"
            )
        return "\n".join([*lines, *self.notes])


def compare_all(digits: Mapping[int, Groups]) -> dict[int, AuditReport]:
    """The reports on one method: for every digit what was found on (models, hidden, controls).

    Spreads are pooled over the digits, apart for the three groups.  Where a check of the guided
    attacks fails on a model, they have not shown that nothing is there.
    Raises ValueError for an empty group, for attacks that differ within a digit and as `compare`.
    """
    found = defaultdict[str, dict[int, list[list[float]]]](dict)
    for digit, groups in digits.items():
        if not all(groups):
            counts = [len(group) for group in groups]
            raise ValueError(
                f"{counts} models, hidden ones and controls of class {digit}: give some of each"
            )
        names = list(groups[0][0])
        for values in chain(*groups):
            if set(values) != set(names) or not all(values.values()):
                raise ValueError(
                    f"attacks {list(values)} are not {names}: make them alike, none empty"
                )
        for name in names:
            found[name][digit] = [[fmean(values[name]) for values in group] for group in groups]
    spreads = {
        name: [pooled(several) for several in zip(*of.values(), strict=True)]
        for name, of in found.items()
    }
    reports = {}
    for digit, (models, _, _) in digits.items():
        checks = {name: found[name][digit][0] for name in (KEPT, FOOLED) if name in models[0]}
        sound = {
            name: min(shares) >= SOUND_FROM if name == KEPT else max(shares) <= 1 - SOUND_FROM
            for name, shares in checks.items()
        }
        findings = []
        for name in models[0]:
            mine, hidden, controls = found[name][digit]
            of = compare(name, mine, hidden, controls, spreads[name], len(models[0][name]))
            if name in sound:
                of = replace(of, verdict=SOUND if sound[name] else INCONCLUSIVE, resists=0)
            elif "guided" in name and of.verdict != REMAINS and not all(sound.values()):
                of = replace(of, verdict=INCONCLUSIVE, resists=0)
            findings.append(of)
        reports[digit] = AuditReport(digit, tuple(findings))
    return reports
