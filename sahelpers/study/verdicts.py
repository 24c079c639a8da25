"""The audit of one model, and what findings on many digits say together: the named claim."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn.utils import parameters_to_vector

from ..checks import door
from ..config import check_classes
from ..data import FEWEST, LabelledImages
from ..judges import Judge, check_guide, check_judges
from ..models import CVAE, check_model
from ..recovery import reset_label
from .battery import RELEARN_SIZES, Claim, Effort, attack_all, named_attacks
from .scores import Audit
from .statistics import (
    BESIDE,
    ERASED,
    FOOLED,
    INCONCLUSIVE,
    KEPT,
    MIN_CONTROLS,
    NAMED,
    OPEN,
    REMAINS,
    TAIL,
    AuditReport,
    Finding,
    compare_all,
)


@door
def audit(
    model: CVAE,
    forget_class: int,
    config: Effort | None = None,
    claim: Claim | None = None,
    *,
    baseline: CVAE,
    controls: Sequence[CVAE],
    judges: Mapping[str, Judge],
    guide: Judge,
    real: LabelledImages,
) -> AuditReport:
    """Attack the model, the hidden model and every control in the same way, and compare.

    The hidden model is the baseline with the class's label reset: it is known to remember.  Where
    the model does not say where its label's weights are, the baseline itself stands there, attacks
    on these weights are left out, and the report says so.
    controls: models retrained without the class, three or more, by different seeds.
    judges: score.  guide: leads the guided attack.  real: at least ten images of the class and some
    of others, for relearning and for the cost under other labels; the report says if that is less
    than an attack asks for.
    Raises ValueError for fewer controls, for one of another shape, that was trained with the class
    or that is given twice, for one restart and for too few real images.
    """
    check_model(baseline, "baseline", model.num_classes)
    (forget_class,) = check_classes((forget_class,), model.num_classes)
    check_judges(judges, model.num_classes)
    check_guide(guide, model.num_classes)
    effort = Effort() if config is None else config
    if (n := len(real.only(forget_class))) < FEWEST:
        raise ValueError(f"real has {n} images of class {forget_class}: give {FEWEST} or more")
    if n == len(real):
        raise ValueError(f"real has images of class {forget_class} only: some of others are asked")
    if effort.restarts < 2:
        raise ValueError(f"restarts={effort.restarts} has no share to speak of: give 2 or more")
    if len(controls) < MIN_CONTROLS:
        raise ValueError(
            f"{len(controls)} controls: give {MIN_CONTROLS} or more models retrained "
            f"without the class, such as Story(...).control({forget_class}, seed) of other seeds"
        )
    seen = [parameters_to_vector(model.parameters())]
    for k, control in enumerate(controls):
        check_model(control, name := f"controls[{k}]", model.num_classes)
        built, wanted = ((m.arch, m.latent_dim, m.image_shape) for m in (control, model))
        if built != wanted:
            raise ValueError(
                f"{name} has arch, latent_dim and image_shape {built}, the model {wanted}: retrain "
                "controls by the model's own recipe"
            )
        if control.prior_mean[forget_class].any():  # training fits one for every class it saw
            raise ValueError(
                f"{name} was trained with class {forget_class}: a control has never seen it; "
                f"make one with Story(...).control({forget_class})"
            )
        weights = parameters_to_vector(control.parameters())
        if any(torch.equal(weights, other) for other in seen):
            raise ValueError(
                f"{name} has the weights of the model or of a control before it: make each with a "
                "seed of its own"
            )
        seen.append(weights)
    given: Any = {"baseline": baseline, "judges": judges, "real": real}
    claim, notes = Claim() if claim is None else claim, []
    if n < max(RELEARN_SIZES[-1], claim.images):
        notes.append(f"There are {n} images of the class: attacks that ask for more take these.")
    hidden = reset_label(baseline, forget_class) if baseline.says_label else baseline
    if hidden is baseline:
        words = "No attack on the label's weights, and no hidden model but the baseline: "
        notes.append(f"{words}encoder or decoder has no method label_weights().")
    found = [
        named_attacks(m, forget_class, claim, **given)
        | attack_all(m, forget_class, effort, guide=guide, **given)
        for m in (model, hidden, *controls)
    ]
    report = compare_all({forget_class: (found[:1], found[1:2], found[2:])})[forget_class]
    return replace(report, notes=tuple(notes))


def holm(p: Sequence[float]) -> list[float]:
    """The p values adjusted for their number (Holm 1979), in the same order."""
    adjusted, highest = [0.0] * len(p), 0.0
    for rank, k in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        highest = max(highest, min(1.0, (len(p) - rank) * p[k]))
        adjusted[k] = highest
    return adjusted


@dataclass(frozen=True)
class Tally:
    """What one attack says over digits: those with each verdict as it is, and those of which
    "erased" or "memory remains" holds after adjustment for the number of digits (Holm)."""

    attack: str
    digits: Mapping[str, tuple[int, ...]]  # by verdict
    sure: Mapping[str, tuple[int, ...]]  # by ERASED and REMAINS
    powered: tuple[int, ...]

    @property
    def erased(self) -> bool:
        """Whether there is power on some digit, and each of these is erased."""
        return bool(self.powered) and set(self.powered) == set(self.digits[ERASED])


def _tally(attack: str, findings: Mapping[int, Finding]) -> Tally:
    """p values are adjusted as `claim` says."""
    verdicts = {
        v: tuple(d for d, f in findings.items() if f.verdict == v)
        for v in (ERASED, REMAINS, OPEN, INCONCLUSIVE)
    }
    powered = tuple(d for d, f in findings.items() if f.power > 0)
    asked, sure = powered if attack in NAMED else tuple(findings), {}
    for verdict, column in ((ERASED, "p_erased"), (REMAINS, "p_remains")):
        p = holm([getattr(findings[d], column) for d in asked])
        few = {d for d, value in zip(asked, p, strict=True) if value <= TAIL}
        sure[verdict] = tuple(d for d in verdicts[verdict] if d in few)
    return Tally(attack, verdicts, sure, powered)


def tallies(findings: Mapping[int, Mapping[str, Finding]]) -> dict[str, Tally]:
    """What each attack, their checks aside, says over digits: from digit -> attack -> finding."""
    names = dict.fromkeys(name for of in findings.values() for name in of)
    attacks = [name for name in names if name not in (*BESIDE, KEPT, FOOLED)]
    return {a: _tally(a, {d: of[a] for d, of in findings.items() if a in of}) for a in attacks}


def spaced(digits: Sequence[int]) -> str:
    """They as text; a dash for none."""
    return " ".join(map(str, digits)) or "-"


@dataclass(frozen=True)
class ClaimReport:
    """The named claim, one entry per named attack, and all other attacks; printed as a table."""

    named: tuple[Tally, ...]
    others: tuple[Tally, ...]

    @property
    def erased(self) -> bool:
        """Whether every named attack finds every digit erased on which it has power."""
        return all(tally.erased for tally in self.named)

    @property
    def remains(self) -> dict[str, tuple[int, ...]]:
        """Of the other attacks, those by which memory remains after adjustment, with the digits."""
        return {t.attack: t.sure[REMAINS] for t in self.others if t.sure[REMAINS]}

    def __str__(self) -> str:
        lines = []
        for t in self.named:
            lines.append(t.attack)
            for verdict, digits in t.digits.items():
                after = f"; adjusted: {spaced(t.sure[verdict])}" if verdict in t.sure else ""
                lines.append(f"  {verdict}: {spaced(digits)}{after}")
        lines.append(f"Every digit with power is erased: {'yes' if self.erased else 'no'}.")
        for t in self.others:
            lines.append(
                f"{t.attack}: power on {len(t.powered)} ({spaced(t.powered)}); memory remains on "
                f"{spaced(t.sure[REMAINS])} (adjusted)"
            )
        return "\n".join(lines)


def claim(findings: Mapping[int, Mapping[str, Finding]]) -> ClaimReport:
    """What one method's findings, digit -> attack -> finding, say of the named claim.

    The claim takes each digit as it is; lists of single digits are adjusted by `holm`: of a named
    attack over the digits with power, of another one over all digits that it was tried on.
    Raises ValueError where a digit lacks a named attack.
    """
    for digit, of in findings.items():
        if lacking := set(NAMED) - set(of):
            raise ValueError(f"digit {digit} lacks {sorted(lacking)}: audit it by all of {NAMED}")
    told = tallies(findings)
    named = [told.pop(a) if a in told else _tally(a, {}) for a in NAMED]
    return ClaimReport(tuple(named), tuple(told.values()))


def of_method(audit: Audit, method: str) -> dict[int, dict[str, Finding]]:
    """What `claim` takes: the digits of a method that have faced the named attacks."""
    found = defaultdict[int, dict[str, Finding]](dict)
    for (digit, name, attack), finding in audit.items():
        if name == method:
            found[digit][attack] = finding
    return {digit: of for digit, of in sorted(found.items()) if set(of) >= set(NAMED)}


def in_words(findings: Mapping[int, Mapping[str, Finding]]) -> str:
    """One sentence for each named attack: on how many digits it finds what, and which are those
    where it does not find the digit erased; none without a digit."""
    said = []
    for tally in claim(findings).named if findings else ():
        parts = [
            f"{verdict} on {len(digits)}"
            + f" ({', '.join(map(str, digits))})" * (verdict != ERASED)
            for verdict, digits in tally.digits.items()
            if digits
        ]
        resist = sum(of[tally.attack].resists for of in findings.values())
        told = f"; it resists on {resist}" if resist else ""
        said.append(f"{tally.attack.capitalize()}: {', '.join(parts)} of {len(findings)}{told}.")
    return " ".join(said)
