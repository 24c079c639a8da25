"""The whole battery of attacks, on a model and on controls that never saw the class."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from .checks import check_is
from .config import Config, ProbeConfig, check_classes, knob
from .data import LabelledImages
from .excess import Finding, compare
from .judges import Judge, check_guide, check_judges
from .models import CVAE, check_model
from .probing import (
    ProbeResult,
    guided_attack,
    invert_blind,
    invert_prototypes,
    reachable,
    success,
)
from .recovery import relearn

RELEARN_SIZES = (1, 10, 100)  # real images handed to the model
PARTS = ("main", "rest")  # of the battery: guided over z and y with relearning; the other searches

Values = dict[str, list[float]]  # attack -> one number in [0, 1] per restart or repeat


@dataclass(frozen=True)
class AuditConfig(Config):
    """How hard each model is attacked."""

    n_restarts: int = knob(128, 1, 100_000, help="starts of every probe")
    steps: int = knob(100, 1, 100_000, help="steps of the guided attacks")
    inversion_steps: int = knob(300, 1, 100_000, help="steps of the two inversions")
    relearn_steps: int = knob(60, 1, 100_000, help="steps of relearning")
    repeats: int = knob(5, 2, 1000, help="relearning runs per number of images")
    seed: int = knob(42, 0, 2**31 - 1, help="starts, images")


@dataclass(frozen=True)
class AuditReport:
    """The findings for one forgotten class; printed as a table, saved as JSON."""

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

    def save(self, path: Path) -> None:
        """Write the report as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> "AuditReport":
        """The inverse of `save`."""
        try:
            state = json.loads(path.read_text())
            return cls(state["forget_class"], tuple(Finding(**f) for f in state["findings"]))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} does not hold an audit's report: {error}") from error


def audit(
    model: CVAE,
    baseline: CVAE,
    controls: Sequence[CVAE],
    forget_class: int,
    judges: Mapping[str, Judge],
    guide: Judge,
    real: LabelledImages,
    config: AuditConfig | None = None,
) -> AuditReport:
    """Attack the model, the baseline and every control in the same way, and compare.

    controls: models retrained without the class, by different seeds; a verdict needs three.
    judges: score.  guide: leads the guided attack.  real: images of the class for relearning.
    Raises ValueError for a control that was trained with the class.
    """
    config = config or AuditConfig()
    for k, control in enumerate(controls):
        check_control(control, forget_class, f"controls[{k}]")
    if not controls:
        raise ValueError("controls is empty: give models retrained without the class, best three")
    found = [
        attack_all(m, baseline, forget_class, judges, guide, real, config)
        for m in (model, baseline, *controls)
    ]
    return compare_all(forget_class, found[:1], found[1], found[2:])


def check_control(control: CVAE, forget_class: int, name: str = "control") -> None:
    """Raise ValueError if the control was trained with the class.

    Training fits a Gaussian of z for every class it saw; that of a class never seen is N(0, I).
    """
    check_model(control, name)
    check_classes((forget_class,), control.num_classes)
    flat = torch.zeros_like(control.prior_mean[forget_class])
    if not torch.equal(control.prior_mean[forget_class], flat):
        raise ValueError(
            f"{name} was trained with class {forget_class}: a control has never seen it; "
            f"make one with get_control(config, train, {forget_class})"
        )


def attack_all(
    model: CVAE,
    baseline: CVAE,
    forget_class: int,
    judges: Mapping[str, Judge],
    guide: Judge,
    real: LabelledImages,
    config: AuditConfig,
    parts: Sequence[str] = PARTS,
) -> Values:
    """Every attack on one model: success (0 or 1) of each restart, area of each relearning run.

    parts: of the battery, one or both of PARTS.
    One more row of "main" is no attack on the class: the guided attack on the class after it, a
    kept one, which must succeed on every model, or the attack is broken there.
    """
    check_model(model)
    check_model(baseline, "baseline", model.num_classes)
    check_classes((forget_class,), model.num_classes)
    check_judges(judges, model.num_classes)
    check_guide(guide, model.num_classes)
    check_is(real, LabelledImages, "real")
    check_is(config, AuditConfig, "config")
    for part in parts:
        if part not in PARTS:
            raise ValueError(f"part {part!r} is not one of {', '.join(PARTS)}")
    few = real.only(forget_class)
    if len(few) < RELEARN_SIZES[-1]:
        raise ValueError(
            f"real has {len(few)} images of class {forget_class}: {RELEARN_SIZES[-1]} are relearned"
        )
    kind = {"n_restarts": config.n_restarts, "seed": config.seed}
    inversion = ProbeConfig(steps=config.inversion_steps, **kind)
    guided = ProbeConfig(steps=config.steps, **kind)
    found: dict[str, ProbeResult] = {}
    if "rest" in parts:
        found["prototype"] = invert_prototypes(model, baseline, forget_class, inversion)
        found["blind"] = invert_blind(model, forget_class, inversion)
    for over in ("z", "y", "free_y", "both"):
        if ("main" if over == "both" else "rest") in parts:
            found[f"guided {over}"] = guided_attack(model, guide, forget_class, guided, over)
    values: Values = {}
    for name, probe in found.items():
        hit = success(probe.images, judges, forget_class)
        values[name] = hit.double().tolist()
        if name in ("guided z", "guided both"):
            values[f"{name}, reachable"] = (hit & reachable(probe.z)).double().tolist()
    if "main" not in parts:
        return values
    kept = (forget_class + 1) % model.num_classes  # is the attack sound on every model?
    probe = guided_attack(model, guide, kept, guided)
    values["guided both, kept class"] = success(probe.images, judges, kept).double().tolist()
    for size in RELEARN_SIZES:
        for gate in (False, True):
            runs = []
            for k in range(config.repeats):
                data, seed = few.take(size, seed=config.seed + k), config.seed + k
                curve = relearn(
                    model, data, forget_class, judges,
                    steps=config.relearn_steps, open_gate=gate, seed=seed,
                )  # fmt: skip
                runs.append(curve.area)
            values[f"relearn {size}{', opened' if gate else ''}"] = runs
    return values


def compare_all(
    forget_class: int, models: Sequence[Values], baseline: Values, controls: Sequence[Values]
) -> AuditReport:
    """The report on what `attack_all` found: models are the same method with several seeds.

    The first model and the baseline have all attacks of the report; the others may have fewer, and
    count where they have it.
    """
    if not models or not controls:
        raise ValueError(f"{len(models)} models and {len(controls)} controls: give some of each")
    names = models[0].keys()
    for values in (*models, baseline, *controls):
        if not values.keys() <= names or (values is baseline and len(values) < len(names)):
            raise ValueError(f"attacks {list(values)} are not {list(names)}: make them alike")
    findings = []
    for name in names:
        found, theirs = ([v[name] for v in group if name in v] for group in (models, controls))
        findings.append(compare(name, found, baseline[name], theirs))
    return AuditReport(forget_class, tuple(findings))
