"""What many models say: the model under test against those that remember and those that never knew.

Every model gives one number per attack, and models are the sample: restarts, repeats and images of
one model are not trials.  All ends are one-sided, 5 %, of t intervals for differences of groups of
models.  An attack speaks for a digit only if it convicts the hidden model there, which is known to
remember; "erased" is then a claim of non-inferiority to models that never saw the digit.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from scipy.special import stdtr, stdtrit

from .. import plots

MARGIN = 0.10  # of shares and areas at most: an excess up to here counts as none
MIN_RETRAINED = 3  # fewer say too little about how models that never saw the class differ
SPREAD, NATS_SPREAD = 0.005, 0.05  # standard deviations at least: a few models may agree by chance
TAIL = 0.05  # of every one-sided statement
ERASED, REMAINS, UNDECIDED = "erased", "memory remains", "undecided"
INCONCLUSIVE = "inconclusive"  # the attack cannot tell
NO_VERDICT = "beside"  # what is measured beside the attacks has none
COST_ATTACKS = (  # their number is a cost in nats: smaller is more memory
    "cost under other labels",
    "cost under a fitted label",
)
WITHOUT_VERDICT = (  # what is measured beside the attacks
    "share shown under other labels",
    "kept digits' cost, own label",
    "kept digits' cost, other labels",
)
IN_NATS = (*COST_ATTACKS, *WITHOUT_VERDICT[1:])  # all else are shares and areas from 0 to 1
CLAIM_ATTACKS = ("label only, 10 images", "label only, 100 images", *COST_ATTACKS)  # of the claim

Values = dict[str, list[float]]  # attack -> numbers of one model (restarts, repeats or images)
Attacked = Sequence[Values]  # one entry per model
Groups = tuple[Attacked, Attacked, Attacked]  # models, hidden, retrained
Spread = tuple[float, int]  # standard deviation and its degrees of freedom


@dataclass(frozen=True)
class Finding:
    """What one attack found on one digit, and its verdict.

    Attributes:
        attack: Name of the attack.
        n: Values behind each model's number.
        hidden: Mean of the hidden models, in shares, areas or nats.
        model: Mean of the models under test.
        retrained: Mean of the retrained models.
        n_models: How many models were under test.
        n_retrained: How many models were retrained.
        excess: Memory of the models beyond that of the retrained ones: positive where more is
            remembered.
        low: Lower end of the excess.
        high: Upper end of the excess.
        power: Lower end of the hidden models' excess: above 0 where the attack can tell.
        margin: Up to here an excess counts as none.
        p_erased: One-sided p value of an excess below the margin.
        p_remains: One-sided p value of an excess above 0.
        resists: 1 if the attack has power and `high` lies below -margin: the model can be told
            from one that never knew the class, because it shows less.
        verdict: "erased", "memory remains", "undecided" or "inconclusive"; "beside" for what is no
            attack.
    """

    attack: str
    n: int
    hidden: float
    model: float
    retrained: float
    n_models: int
    n_retrained: int
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
    """The standard deviation within groups of numbers, around each group's own mean.

    Args:
        groups: Groups of at least one number each.

    Returns:
        The standard deviation and its degrees of freedom; (0, 0) where no group has two numbers.
    """
    squares: list[float] = []
    degrees = 0
    for group in groups:
        mean = fmean(group)
        squares += [(x - mean) ** 2 for x in group]
        degrees += len(group) - 1
    return math.sqrt(sum(squares) / max(degrees, 1)), degrees


@dataclass(frozen=True)
class _Group:
    """Models of one kind: their mean, and how well it is known."""

    mean: float
    variance: float  # of the mean
    degrees: int  # of freedom of the standard deviation behind it
    borrowed: bool  # whether that is the retrained models'


def _describe(values: Sequence[float], spread: Spread, least: float, lender: Spread) -> _Group:
    """One group: values of its models, and their spread, or the lender's where there is none."""
    borrowed = spread[1] == 0
    deviation, degrees = lender if borrowed else spread
    variance = max(deviation, least) ** 2 / len(values)
    return _Group(fmean(values), variance, degrees, borrowed)


def _difference(group: _Group, retrained: _Group) -> tuple[float, float]:
    """The standard error of group minus retrained, and its degrees of freedom (Welch 1947)."""
    variance = group.variance + retrained.variance
    if group.borrowed:
        return math.sqrt(variance), retrained.degrees
    parts = group.variance**2 / group.degrees + retrained.variance**2 / retrained.degrees
    return math.sqrt(variance), variance**2 / parts


def compare(
    attack: str,
    models: Sequence[float],
    hidden: Sequence[float],
    retrained: Sequence[float],
    spreads: Sequence[Spread] = ((0.0, 0),) * 3,
    n: int = 1,
) -> Finding:
    """Excess over the retrained models, its ends and the verdict of one attack.

    Args:
        attack: Name of the attack.
        models: One number for each model under test: a share or area from 0 to 1, or nats.
        hidden: The same for models that hide the class, which are known to remember.
        retrained: The same for three or more models that never saw it.
        spreads: Standard deviation and degrees of freedom of the three groups, pooled over digits.
            The larger of a group's own and the pooled one counts; a lone model without any has
            that of the retrained models.
        n: Values behind each number.

    Returns:
        The finding.

    Raises:
        ValueError: For a group without a number, for fewer than three retrained models, for a
            share outside [0, 1] and for a cost that is not finite.
    """
    in_nats = attack in IN_NATS
    for name, group in {"models": models, "hidden": hidden, "retrained": retrained}.items():
        if not group:
            raise ValueError(f"{name} of {attack!r} holds no number: give one for each model")
        if not all(math.isfinite(x) and (in_nats or 0 <= x <= 1) for x in group):
            allowed = "nats" if in_nats else "shares or areas from 0 to 1"
            raise ValueError(f"{name} of {attack!r} holds {list(group)}: give {allowed}")
    if len(retrained) < MIN_RETRAINED:
        raise ValueError(f"{len(retrained)} retrained models for {attack!r}: give at least three")

    # How far models of each group scatter: their own spread or the pooled one, never below least.
    least = NATS_SPREAD if in_nats else SPREAD
    of_models, of_hidden, of_retrained = spreads
    lender = max(pooled([retrained]), of_retrained)
    under_test = _describe(models, max(pooled([models]), of_models), least, lender)
    knowing = _describe(hidden, max(pooled([hidden]), of_hidden), least, lender)
    unknowing = _describe(retrained, lender, least, lender)

    # Memory beyond the retrained models', with its one-sided ends.
    sign = -1 if attack in COST_ATTACKS else 1  # of a cost, less is more memory
    excess = sign * (under_test.mean - unknowing.mean)
    error, degrees = _difference(under_test, unknowing)
    reach = error * float(stdtrit(degrees, 1 - TAIL))
    low, high = excess - reach, excess + reach

    # What the attack finds where the class is known says whether it can tell, and what is little.
    known = sign * (knowing.mean - unknowing.mean)
    known_error, known_degrees = _difference(knowing, unknowing)
    power = known - known_error * float(stdtrit(known_degrees, 1 - TAIL))
    margin = max(0.0, known / 3 if attack in COST_ATTACKS else min(MARGIN, known / 2))

    if attack in WITHOUT_VERDICT:
        margin, verdict = math.nan, NO_VERDICT
    elif power <= 0:
        verdict = INCONCLUSIVE
    elif high <= margin:
        verdict = ERASED
    elif low > 0:
        verdict = REMAINS
    else:
        verdict = UNDECIDED
    return Finding(
        attack=attack,
        n=n,
        hidden=knowing.mean,
        model=under_test.mean,
        retrained=unknowing.mean,
        n_models=len(models),
        n_retrained=len(retrained),
        excess=excess,
        low=low,
        high=high,
        power=power,
        margin=margin,
        p_erased=float(stdtr(degrees, (excess - margin) / error)),
        p_remains=float(stdtr(degrees, -excess / error)),
        resists=int(verdict != INCONCLUSIVE and high < -margin),
        verdict=verdict,
    )


@dataclass(frozen=True)
class AuditReport:
    """The findings for one forgotten class; printed as a table.

    Attributes:
        forget_class: The class.
        findings: One for each attack.
        notes: Sentences that say what limits them.
    """

    forget_class: int
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()

    @property
    def by_attack(self) -> dict[str, Finding]:
        """The findings under their attacks' names."""
        return {finding.attack: finding for finding in self.findings}

    def __str__(self) -> str:
        head = f"{'attack':32}{'n':>5}{'hidden':>8}{'model':>8}{'retrained':>11}  excess, margin"
        lines = [f"class {self.forget_class}", head]
        for f in self.findings:
            means = f"{f.hidden:8.2f}{f.model:8.2f}{f.retrained:11.2f}"
            ends = f"{f.excess:+.2f} [{f.low:+.2f}, {f.high:+.2f}], {f.margin:.2f}"
            verdict = f"{f.verdict}, resists" if f.resists else f.verdict
            lines.append(f"{f.attack:32}{f.n:5}{means}  {ends}  {verdict}")
        return "\n".join([*lines, *self.notes])


def compare_all(digits: Mapping[int, Groups]) -> dict[int, AuditReport]:
    """The reports on one method, one for each digit.

    The spreads are pooled over the digits, apart for each attack and for the three groups.

    Args:
        digits: Digit -> what was found on the models under test, the hidden ones and the retrained
            ones: for every model a dictionary attack -> numbers.

    Returns:
        Digit -> its report.

    Raises:
        ValueError: For an empty group, for attacks that differ within a digit, and as `compare`.
    """
    # digit -> attack -> one number per model of each group: the mean of what the model gave
    means: dict[int, dict[str, list[list[float]]]] = {}
    for digit, groups in digits.items():
        _check_groups(digit, groups)
        means[digit] = {}
        for attack in groups[0][0]:
            numbers = [[fmean(values[attack]) for values in group] for group in groups]
            means[digit][attack] = numbers

    reports = {}
    for digit, (models, _, _) in digits.items():
        findings = []
        for attack, values in models[0].items():
            under_test, hidden, retrained = means[digit][attack]
            alike = [of_digit[attack] for of_digit in means.values() if attack in of_digit]
            spreads = [pooled(group) for group in zip(*alike, strict=True)]
            found = compare(attack, under_test, hidden, retrained, spreads, len(values))
            findings.append(found)
        reports[digit] = AuditReport(digit, tuple(findings))
    return reports


def _check_groups(digit: int, groups: Groups) -> None:
    """ValueError unless no group is empty and all models of the digit were attacked alike."""
    if not all(groups):
        counts = [len(group) for group in groups]
        raise ValueError(
            f"{counts} models, hidden and retrained ones of class {digit}: give some of each"
        )
    names = list(groups[0][0])
    for values in chain(*groups):
        if set(values) != set(names) or not all(values.values()):
            raise ValueError(f"attacks {list(values)} are not {names}: make them alike, none empty")


def in_words(findings: Mapping[int, Mapping[str, Finding]]) -> str:
    """One sentence for each attack: on how many digits it finds what.

    The digits on which it does not find the class erased are named.

    Args:
        findings: Digit -> attack -> finding, as `AuditReport.by_attack` has them; what stands
            beside the attacks is left out.

    Returns:
        The sentences, with a space between two of them.
    """
    attacks: list[str] = []
    for by_attack in findings.values():
        for name in by_attack:
            if name not in WITHOUT_VERDICT and name not in attacks:
                attacks.append(name)
    sentences = []
    for attack in attacks:
        found = {digit: of[attack] for digit, of in findings.items() if attack in of}
        parts = []
        for verdict in (ERASED, REMAINS, UNDECIDED, INCONCLUSIVE):
            digits = [digit for digit, finding in found.items() if finding.verdict == verdict]
            if not digits:
                continue
            part = f"{verdict} on {len(digits)}"
            if verdict != ERASED:
                part += f" ({', '.join(map(str, digits))})"
            parts.append(part)
        sentence = f"{attack.capitalize()}: {', '.join(parts)} of {len(found)}"
        resisted = sum(finding.resists for finding in found.values())
        if resisted:
            sentence += f"; it resists on {resisted}"
        sentences.append(f"{sentence}.")
    return " ".join(sentences)


def excess_intervals(
    findings: Mapping[str, Finding], ax: Axes | None = None, title: str = ""
) -> Axes:
    """Draw the excess over the retrained models between its ends, one row per entry.

    A circle means erased, a square that memory remains, a diamond undecided and a cross
    inconclusive.  Gray runs from 0 to the margin; the dotted line is as far on the other side, and
    a model resists beyond it.  The triangle is the hidden models' excess: what the attack finds
    where the class is known.

    Args:
        findings: Name of the row -> finding.
        ax: The axes to draw on; new ones when left out.
        title: Title of the axes.

    Returns:
        The axes; in nats if all findings are, else in shares.

    Raises:
        TypeError: For an entry that is no finding.
        ValueError: When there is none.
    """
    plots.check_entries(findings, "findings", Finding)
    ax = plots.new_axes(ax, 4.5, 0.3 * len(findings) + 1.0)
    markers = {ERASED: "o", REMAINS: "s", UNDECIDED: "D"}
    for row, f in enumerate(findings.values()):
        sign = -1 if f.attack in COST_ATTACKS else 1
        ax.plot([f.low, f.high], [row, row], color=plots.AFTER, lw=2, solid_capstyle="butt")
        look: dict[str, Any] = {"color": "black", "ms": 8}
        if f.verdict in markers:
            look = {"color": plots.AFTER, "ms": 5}
        ax.plot(f.excess, row, markers.get(f.verdict, "x"), zorder=3, **look)
        ax.plot(sign * (f.hidden - f.retrained), row, "^", color=plots.HIDDEN, ms=6)
        if f.margin >= 0:  # NaN where there is no verdict
            ax.barh(row, f.margin, 0.9, color="0.85", zorder=0)
            ax.plot([-f.margin] * 2, [row - 0.45, row + 0.45], ":", color="black", lw=1)
    ax.axvline(0, color="black", lw=0.8)
    ax.set_yticks(range(len(findings)), list(findings))
    ax.set_ylim(len(findings) - 0.5, -0.5)
    if all(f.attack in IN_NATS for f in findings.values()):
        ax.set(xlabel="excess of memory over the retrained models, nats")
    else:
        ax.set(xlabel="excess over the retrained models", xlim=(-1.05, 1.05))
    ax.set_title(title, fontsize=10)
    return ax
