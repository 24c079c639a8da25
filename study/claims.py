"""What a rung of the ladder finds on many digits, together, and its adjustment (Holm)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sahelpers.attacks.ladder import RUNGS
from sahelpers.attacks.verdicts import PASSED, REMAINS, TAIL, VERDICTS, Finding

COUNTED = 6.0  # nats: the least gap of hidden models under a fitted label on a digit that counts
NOT_COUNTED = (1, 9)  # with 4.8 and 5.7 nats, fixed before ours was looked at


def holm(p: Sequence[float]) -> list[float]:
    """The p values adjusted for their number (Holm 1979), in the same order."""
    adjusted, highest = [0.0] * len(p), 0.0
    for rank, k in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        highest = max(highest, min(1.0, (len(p) - rank) * p[k]))
        adjusted[k] = highest
    return adjusted


def counted(findings: Mapping[int, Mapping[str, Finding]]) -> tuple[int, ...]:
    """The digits that count: those whose hidden models are far enough from retrained ones."""
    return tuple(digit for digit in findings if digit not in NOT_COUNTED)


@dataclass(frozen=True)
class Tally:
    """What one rung says over digits.

    Attributes:
        rung: Its name.
        digits: Verdict -> the digits with it, each taken as it is.
        passed: The digits without memory by this rung: erased, alike or resists.
        powered: The digits on which the rung has power.
        after_holm: "passed" and "memory remains" -> the digits of which it holds after adjustment
            for the number of digits on which the rung has power.
    """

    rung: str
    digits: Mapping[str, tuple[int, ...]]
    passed: tuple[int, ...]
    powered: tuple[int, ...]
    after_holm: Mapping[str, tuple[int, ...]]


def tally(rung: str, findings: Mapping[int, Finding]) -> Tally:
    """Count the verdicts of one rung over digits, from digit -> finding."""
    digits = {v: tuple(d for d, f in findings.items() if f.verdict == v) for v in VERDICTS}
    passed = tuple(d for d, f in findings.items() if f.verdict in PASSED)
    powered = tuple(d for d, f in findings.items() if f.powered)
    after_holm = {}
    kinds = {"passed": (passed, "p_erased"), REMAINS: (digits[REMAINS], "p_remains")}
    for kind, (found, column) in kinds.items():
        adjusted = holm([getattr(findings[d], column) for d in powered])
        small = {d for d, p in zip(powered, adjusted, strict=True) if p <= TAIL}
        after_holm[kind] = tuple(d for d in found if d in small)
    return Tally(rung, digits, passed, powered, after_holm)


def claim(findings: Mapping[int, Mapping[str, Finding]]) -> list[Tally]:
    """What one method's findings, digit -> rung -> finding, say, rung by rung.

    Raises:
        ValueError: Where a digit lacks a rung.
    """
    for digit, of in findings.items():
        if lacking := set(RUNGS) - set(of):
            raise ValueError(f"digit {digit} lacks {sorted(lacking)}: audit it by {list(RUNGS)}")
    return [tally(name, {digit: of[name] for digit, of in findings.items()}) for name in RUNGS]


def digits_as_text(digits: Sequence[int]) -> str:
    """Digits as text, such as "0 3 5"; a dash for none."""
    return " ".join(map(str, digits)) or "-"
