"""What one attack finds on many digits, together: the claim, and its adjustment (Holm)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sahelpers.attacks.verdicts import (
    CLAIM_ATTACKS,
    ERASED,
    INCONCLUSIVE,
    REMAINS,
    TAIL,
    UNDECIDED,
    Finding,
)

VERDICTS = (ERASED, REMAINS, UNDECIDED, INCONCLUSIVE)


def holm(p: Sequence[float]) -> list[float]:
    """The p values adjusted for their number (Holm 1979), in the same order."""
    adjusted, highest = [0.0] * len(p), 0.0
    for rank, k in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        highest = max(highest, min(1.0, (len(p) - rank) * p[k]))
        adjusted[k] = highest
    return adjusted


@dataclass(frozen=True)
class Tally:
    """What one attack says over digits.

    Attributes:
        attack: Its name.
        digits: Verdict -> the digits with it, each taken as it is.
        after_holm: "erased" and "memory remains" -> the digits of which it holds after adjustment
            for the number of digits on which the attack has power.
        powered: The digits on which the attack has power.
    """

    attack: str
    digits: Mapping[str, tuple[int, ...]]
    after_holm: Mapping[str, tuple[int, ...]]
    powered: tuple[int, ...]


def tally(attack: str, findings: Mapping[int, Finding]) -> Tally:
    """Count the verdicts of one attack over digits, from digit -> finding."""
    digits = {v: tuple(d for d, f in findings.items() if f.verdict == v) for v in VERDICTS}
    powered = tuple(d for d, f in findings.items() if f.power > 0)
    after_holm = {}
    for verdict, column in ((ERASED, "p_erased"), (REMAINS, "p_remains")):
        adjusted = holm([getattr(findings[d], column) for d in powered])
        small = {d for d, p in zip(powered, adjusted, strict=True) if p <= TAIL}
        after_holm[verdict] = tuple(d for d in digits[verdict] if d in small)
    return Tally(attack, digits, after_holm, powered)


def claim(findings: Mapping[int, Mapping[str, Finding]]) -> list[Tally]:
    """What one method's findings, digit -> attack -> finding, say, attack by attack.

    Raises:
        ValueError: Where a digit lacks one of the claim's attacks.
    """
    for digit, of in findings.items():
        if lacking := set(CLAIM_ATTACKS) - set(of):
            raise ValueError(
                f"digit {digit} lacks {sorted(lacking)}: audit it by all of {CLAIM_ATTACKS}"
            )
    return [
        tally(name, {digit: of[name] for digit, of in findings.items()}) for name in CLAIM_ATTACKS
    ]


def digits_as_text(digits: Sequence[int]) -> str:
    """Digits as text, such as "0 3 5"; a dash for none."""
    return " ".join(map(str, digits)) or "-"
