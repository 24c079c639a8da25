"""What many models say: the models under test, those that remember and those that never knew.

Every model gives one number for a rung of the ladder: what real images of the class cost it, in
nats above the baseline's cost.  Models are the sample: images and fits of one model are no trials.
All ends are one-sided, 5 %, of t intervals for differences of groups of models.

The *excess* is memory beyond that of models that never saw the class: how much less their images
cost.  The *gap* is the excess of models that are known to remember, the rung's positive control.
The rules compare the excess with shares of the gap, which is estimated as well, so that their ends
are those of the two contrasts excess - gap / 3 and excess + gap / 2.  A rung has power where the
lower end of the gap lies above 1.5 nats; there

* erased: the upper end of excess - gap / 3 lies below zero; then also
* alike: and the lower end of excess + gap / 2 above zero, the best verdict; or
* resists: the upper end of excess + gap / 2 below zero, so that the model can be told from one that
  never knew: a trace of forgetting, and no merit; or
* damaged: kept images pay so much more than in retrained models, a third of the gap or more by the
  upper end, that forgetting cannot be told from damage;
* memory remains: not erased, and the lower end of the excess lies above zero;
* undecided: none of these.

Without power memory remains where the lower end of the excess lies above 1.5 nats, and otherwise a
rung is inconclusive.  So is the third rung where masked models, its positive control, are said to
remember by one of the first two: then a note says if memory would remain by its excess.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from scipy.special import stdtr, stdtrit

from .. import plots
from .ladder import FITTED, KEPT, OTHER, RUNGS, SETTLED, UNFINISHED, WEIGHTS, Costs

MARGIN, TRACE = 1 / 3, 1 / 2  # shares of the gap: what counts as none, and what gives a model away
LEAST = 3 * SETTLED  # nats: what a gap must exceed, so that a third of it is above the settling
MIN_RETRAINED = 3  # fewer say too little about how models that never saw the class differ
NATS_SPREAD = 0.05  # standard deviation at least: a few models may agree by chance
TAIL = 0.05  # of every one-sided statement
ALIKE, ERASED, RESISTS, DAMAGED = "alike", "erased", "resists", "damaged"
REMAINS, UNDECIDED, INCONCLUSIVE = "memory remains", "undecided", "inconclusive"
VERDICTS = (ALIKE, ERASED, RESISTS, DAMAGED, UNDECIDED, REMAINS, INCONCLUSIVE)
PASSED = (ALIKE, ERASED, RESISTS)  # no memory is found

KINDS = ("tested", "hidden", "masked", "retrained")  # of `Climbed`, in its order

Spread = tuple[float, int]  # standard deviation and its degrees of freedom


@dataclass(frozen=True)
class Climbed:
    """What the ladder measured on the models of one class, one entry for each model.

    Attributes:
        tested: The models under test.
        hidden: Models whose label was reset: they are known to remember.
        masked: Models that hide behind their last layer: they are known to remember, too.
        retrained: Models that never saw the class.
    """

    tested: Sequence[Costs]
    hidden: Sequence[Costs]
    masked: Sequence[Costs]
    retrained: Sequence[Costs]


@dataclass(frozen=True)
class Finding:
    """What one rung found on one class, and its verdict; costs are nats above the baseline's cost.

    Attributes:
        rung: Name of the rung.
        control: Which models are known to remember by it, "hidden" or "masked".
        known: Their mean cost.
        model: Mean cost of the models under test.
        retrained: Mean cost of the retrained models.
        n_known: How many models are known to remember.
        n_models: How many models were under test.
        n_retrained: How many models were retrained.
        excess: Memory of the models beyond that of the retrained ones.
        low: Lower end of the excess.
        high: Upper end of the excess.
        gap: Excess of the models that are known to remember.
        power: Its lower end: above 1.5 nats where the rung can tell.
        kept_high: Upper end of what kept images pay beyond retrained models; NaN if not measured.
        p_erased: One-sided p value of an excess below a third of the gap.
        p_remains: One-sided p value of an excess above 0.
        verdict: "alike", "erased", "resists", "damaged", "memory remains", "undecided" or
            "inconclusive".
    """

    rung: str
    control: str
    known: float
    model: float
    retrained: float
    n_known: int
    n_models: int
    n_retrained: int
    excess: float
    low: float
    high: float
    gap: float
    power: float
    kept_high: float
    p_erased: float
    p_remains: float
    verdict: str

    @property
    def powered(self) -> bool:
        """Whether the rung can tell: the lower end of the gap lies above 1.5 nats.

        It cannot either where its positive control is none: a masked model that does not hide.
        """
        return self.power > LEAST and self.verdict != INCONCLUSIVE

    @property
    def passed(self) -> bool:
        """Whether the rung finds no memory: erased, alike or resists."""
        return self.verdict in PASSED


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


def _describe(values: Sequence[float], spread: Spread, lender: Spread) -> _Group:
    """One group: values of its models, and the larger of their own spread and the one given, or
    the lender's where there is none."""
    spread = max(pooled([values]), spread)
    borrowed = spread[1] == 0
    deviation, degrees = lender if borrowed else spread
    variance = max(deviation, NATS_SPREAD) ** 2 / len(values)
    return _Group(fmean(values), variance, degrees, borrowed)


@dataclass(frozen=True)
class _Contrast:
    """A sum of means of groups, each with a weight: its value, and how well it is known."""

    value: float
    error: float
    degrees: float

    def high(self) -> float:
        """The upper end."""
        return self.value + self.error * float(stdtrit(self.degrees, 1 - TAIL))

    def low(self) -> float:
        """The lower end."""
        return self.value - self.error * float(stdtrit(self.degrees, 1 - TAIL))


def _contrast(retrained: _Group, *others: tuple[float, _Group], weight: float) -> _Contrast:
    """Weight times the retrained models' mean, plus those of other groups (Welch 1947).

    A group that borrows the retrained models' spread adds nothing to what is known of it.
    """
    value = weight * retrained.mean
    shared = weight**2 * retrained.variance  # variance that comes from their spread
    apart = []
    for factor, group in others:
        value += factor * group.mean
        if group.borrowed:
            shared += factor**2 * group.variance
        else:
            apart.append((factor**2 * group.variance, group.degrees))
    parts = [(shared, retrained.degrees), *apart]
    variance = sum(part for part, _ in parts)
    degrees = variance**2 / sum(part**2 / df for part, df in parts)
    return _Contrast(value, math.sqrt(variance), degrees)


def compare(
    rung: str,
    models: Sequence[float],
    known: Sequence[float],
    retrained: Sequence[float],
    spreads: Sequence[Spread] = ((0.0, 0),) * 3,
    kept_high: float = math.nan,
) -> Finding:
    """Excess over the retrained models, its ends and the verdict of one rung.

    Args:
        rung: Name of the rung.
        models: What the class's images cost each model under test, in nats; less is more memory.
        known: The same for models that are known to remember.
        retrained: The same for three or more models that never saw the class.
        spreads: Standard deviation and degrees of freedom of the three groups, pooled over
            classes.  The larger of a group's own and the pooled one counts; a lone model without
            any has that of the retrained models.
        kept_high: Upper end of what kept images pay beyond retrained models, in nats, as
            `difference` has it; no model is called damaged when left out.

    Returns:
        The finding.

    Raises:
        ValueError: For an unknown rung, a group without a number, fewer than three retrained
            models, and a cost that is not finite.
    """
    if rung not in RUNGS:
        raise ValueError(f"rung {rung!r} is not one of {', '.join(RUNGS)}")
    for name, group in {"models": models, "known": known, "retrained": retrained}.items():
        if not group:
            raise ValueError(f"{name} of {rung!r} holds no number: give one for each model")
        if not all(map(math.isfinite, group)):
            raise ValueError(f"{name} of {rung!r} holds {list(group)}: give nats")
    if len(retrained) < MIN_RETRAINED:
        raise ValueError(f"{len(retrained)} retrained models for {rung!r}: give at least three")

    # How far the models of each group scatter: their own spread or the pooled one.
    of_models, of_known, of_retrained = spreads
    lender = max(pooled([retrained]), of_retrained)
    under_test = _describe(models, of_models, lender)
    remembering = _describe(known, of_known, lender)
    unknowing = _describe(retrained, lender, lender)

    # Memory beyond the retrained models', and the gap; then the excess against shares of it.
    excess = _contrast(unknowing, (-1, under_test), weight=1)
    gap = _contrast(unknowing, (-1, remembering), weight=1)
    above = _contrast(unknowing, (-1, under_test), (MARGIN, remembering), weight=1 - MARGIN)
    below = _contrast(unknowing, (-1, under_test), (-TRACE, remembering), weight=1 + TRACE)

    verdict = UNDECIDED
    if gap.low() <= LEAST:
        verdict = REMAINS if excess.low() > LEAST else INCONCLUSIVE
    elif above.high() < 0:
        verdict = ERASED
        if kept_high >= MARGIN * gap.value:
            verdict = DAMAGED
        elif below.high() < 0:
            verdict = RESISTS
        elif below.low() > 0:
            verdict = ALIKE
    elif excess.low() > 0:
        verdict = REMAINS
    return Finding(
        rung=rung,
        control=RUNGS[rung],
        known=remembering.mean,
        model=under_test.mean,
        retrained=unknowing.mean,
        n_known=len(known),
        n_models=len(models),
        n_retrained=len(retrained),
        excess=excess.value,
        low=excess.low(),
        high=excess.high(),
        gap=gap.value,
        power=gap.low(),
        kept_high=kept_high,
        p_erased=float(stdtr(above.degrees, above.value / above.error)),
        p_remains=float(stdtr(excess.degrees, -excess.value / excess.error)),
        verdict=verdict,
    )


def difference(
    models: Sequence[float], retrained: Sequence[float], spreads: Sequence[Spread]
) -> tuple[float, float]:
    """What models pay beyond retrained ones, its ends.

    Args:
        models: One number for each model.
        retrained: The same for retrained models.
        spreads: As in `compare`, of the two groups.

    Returns:
        The lower and the upper end, one-sided 5 % each.
    """
    lender = max(pooled([retrained]), spreads[1])
    under_test = _describe(models, spreads[0], lender)
    found = _contrast(_describe(retrained, lender, lender), (1, under_test), weight=-1)
    return found.low(), found.high()


@dataclass(frozen=True)
class AuditReport:
    """The findings on one forgotten class; printed as a table.

    Attributes:
        forget_class: The class.
        findings: One for each rung; none where the class cannot be judged.
        kept: What kept images pay beside the rungs, nats above the baseline's cost: name ->
            means of the models under test, hidden, masked and retrained.
        notes: Sentences that say what limits them.
    """

    forget_class: int
    findings: tuple[Finding, ...]
    kept: Mapping[str, tuple[float, float, float, float]]
    notes: tuple[str, ...] = ()

    @property
    def by_rung(self) -> dict[str, Finding]:
        """The findings under their rungs' names."""
        return {finding.rung: finding for finding in self.findings}

    def __str__(self) -> str:
        if not self.findings:
            return "\n".join(self.notes)
        lines = [
            f"class {self.forget_class}: nats that its images cost above the baseline's cost",
            f"{'rung':30}{'known to remember':>20}{'model':>8}{'retrained':>11}"
            f"{'excess of memory':>24}{'gap':>8}  verdict",
        ]
        for f in self.findings:
            known = f"{f.known:.1f} ({f.control})"
            ends = f"{f.excess:+.1f} [{f.low:+.1f}, {f.high:+.1f}]"
            numbers = f"{known:>20}{f.model:8.1f}{f.retrained:11.1f}{ends:>24}{f.gap:8.1f}"
            lines.append(f"{f.rung:30}{numbers}  {f.verdict}")
        for name, (model, hidden, masked, retrained) in self.kept.items():
            known = f"{masked if RUNGS[KEPT[name][0]] == 'masked' else hidden:.1f}"
            lines.append(f"{name:30}{known:>20}{model:8.1f}{retrained:11.1f}")
        return "\n".join([*lines, *self.notes])


def compare_all(classes: Mapping[int, Climbed]) -> dict[int, AuditReport]:
    """The reports on one method, one for each class.

    The spreads are pooled over the classes, apart for each rung and for the three groups.

    Args:
        classes: Class -> what the ladder measured on its models.

    Returns:
        Class -> its report.

    Raises:
        ValueError: For an empty group, for rungs that a model lacks, and as `compare`.
    """
    numbers: dict[int, dict[str, list[list[float]]]] = {}  # class -> name -> group -> models
    for label, climbed in classes.items():
        _check_climbed(label, climbed)
        numbers[label] = {
            name: [[fmean(costs[name]) for costs in group] for group in vars(climbed).values()]
            for name in (*RUNGS, *KEPT)
        }
    spreads = {  # name -> group -> pooled over the classes
        name: [pooled(group) for group in zip(*(of[name] for of in numbers.values()), strict=True)]
        for name in (*RUNGS, *KEPT)
    }

    reports, relearned = {}, list(RUNGS).index(WEIGHTS)
    for label, of in numbers.items():
        kept_high: dict[str, float] = {}
        for name, rungs in KEPT.items():
            tested, *_, retrained = of[name]
            _, high = difference(tested, retrained, [spreads[name][0], spreads[name][3]])
            kept_high |= dict.fromkeys(rungs, high)
        findings, notes, convicted = [], [], False
        hides = all(_masks(of, spreads, rung) for rung in (OTHER, FITTED))
        for rung, kind in RUNGS.items():
            k = KINDS.index(kind)
            tested, known, retrained = of[rung][0], of[rung][k], of[rung][3]
            spread = [spreads[rung][0], spreads[rung][k], spreads[rung][3]]
            finding = compare(rung, tested, known, retrained, spread, kept_high[rung])
            if kind == "masked" and not hides:
                convicted |= finding.verdict == REMAINS
                finding = replace(finding, verdict=INCONCLUSIVE)
            findings.append(finding)
        if not hides:
            note = "Masked models do not pass the first two rungs: the third has no control."
            if convicted:
                note += " By its excess memory would remain."
            notes.append(note)
        open_ended = sum(costs[UNFINISHED][0] > 0 for costs in classes[label].tested)
        if open_ended and findings[relearned].passed:  # slowness is no forgetting
            findings[relearned] = replace(findings[relearned], verdict=UNDECIDED)
            notes.append(
                f"Relearning with all weights might go further in {open_ended} of "
                f"{len(classes[label].tested)} models under test, so that it acquits nobody."
            )
        kept: dict[str, Any] = {name: tuple(map(fmean, of[name])) for name in KEPT}
        reports[label] = AuditReport(label, tuple(findings), kept, tuple(notes))
    return reports


def _masks(
    numbers: Mapping[str, list[list[float]]], spreads: Mapping[str, list[Spread]], rung: str
) -> bool:
    """Whether the masked models hide from a rung: it must not say that they remember."""
    _, hidden, masked, retrained = numbers[rung]
    spread = [spreads[rung][2], spreads[rung][1], spreads[rung][3]]
    return compare(rung, masked, hidden, retrained, spread).verdict != REMAINS


def _check_climbed(label: int, climbed: Climbed) -> None:
    """ValueError unless no group is empty and every model of the class climbed all rungs."""
    groups = vars(climbed)
    if empty := [name for name, group in groups.items() if not group]:
        raise ValueError(f"no {' and no '.join(empty)} model of class {label}: give some of each")
    for costs in chain(*groups.values()):
        if lacking := [name for name in (*RUNGS, *KEPT, UNFINISHED) if not costs.get(name)]:
            raise ValueError(f"a model of class {label} lacks {', '.join(lacking)}: climb again")


def in_words(findings: Mapping[int, Mapping[str, Finding]]) -> str:
    """One sentence for each rung: on which classes it finds what.

    Args:
        findings: Class -> rung -> finding, as `AuditReport.by_rung` has them.

    Returns:
        The sentences, with a space between two of them.
    """
    sentences = []
    for rung in RUNGS:
        found = {label: of[rung] for label, of in findings.items() if rung in of}
        parts = []
        for verdict in VERDICTS:
            labels = [label for label, finding in found.items() if finding.verdict == verdict]
            if labels:
                parts.append(f"{verdict} on {len(labels)} ({' '.join(map(str, labels))})")
        if parts:
            sentences.append(f"{rung.capitalize()}: {', '.join(parts)} of {len(found)}.")
    return " ".join(sentences)


def excess_intervals(
    findings: Mapping[str, Finding], ax: Axes | None = None, title: str = ""
) -> Axes:
    """Draw the excess over the retrained models between its ends, one row per entry.

    A filled circle means alike, an open one erased, a triangle to the left resists, a plus
    damaged, a square that memory remains, a diamond undecided and a cross inconclusive.  Gray runs
    from minus half of the gap to a third of it; the pink triangle is the gap, what the rung finds
    where the class is known.

    Args:
        findings: Name of the row -> finding.
        ax: The axes to draw on; new ones when left out.
        title: Title of the axes.

    Returns:
        The axes.

    Raises:
        TypeError: For an entry that is no finding.
        ValueError: When there is none.
    """
    plots.check_entries(findings, "findings", Finding)
    ax = plots.new_axes(ax, 4.5, 0.3 * len(findings) + 1.0)
    markers = {ALIKE: "o", ERASED: "o", RESISTS: "<", DAMAGED: "P", REMAINS: "s", UNDECIDED: "D"}
    for row, f in enumerate(findings.values()):
        ax.plot([f.low, f.high], [row, row], color=plots.AFTER, lw=2, solid_capstyle="butt")
        look: dict[str, Any] = {"color": plots.AFTER, "ms": 5}
        if f.verdict == INCONCLUSIVE:
            look = {"color": "black", "ms": 8}
        elif f.verdict == ERASED:
            look["markerfacecolor"] = "white"
        ax.plot(f.excess, row, markers.get(f.verdict, "x"), zorder=3, **look)
        ax.plot(f.gap, row, "^", color=plots.HIDDEN, ms=6)
        if f.powered:
            width = (MARGIN + TRACE) * f.gap
            ax.barh(row, width, 0.9, left=-TRACE * f.gap, color="0.85", zorder=0)
    ax.axvline(0, color="black", lw=0.8)
    ax.set_yticks(range(len(findings)), list(findings))
    ax.set_ylim(len(findings) - 0.5, -0.5)
    ax.set(xlabel="excess of memory over the retrained models, nats")
    ax.set_title(title, fontsize=10)
    return ax
