"""The whole battery of attacks, on a model and on controls that never saw the class.

Only the excess over the controls is evidence.  "No more than the control" is a claim of
non-inferiority: the upper end of the 95 % interval of (model - control) is at most MARGIN.  An
interval that a few restarts leave wide does not meet it, so trying less never makes it easier.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from .config import Config, ProbeConfig, check_classes, knob
from .data import LabelledImages
from .models import CVAE, Judge
from .probing import guided_attack, invert_blind, invert_prototypes, reachable, success
from .recovery import relearn

MARGIN = 0.10  # an excess over the controls up to here counts as none
MIN_CONTROLS = 3  # with fewer nothing is decided
DRAWS = 20_000  # of the bootstrap
RELEARN_SIZES = (1, 10, 100)  # real images handed to the model
NO_MORE = "no more than the control"
REMAINS = "memory remains"
OPEN = "not decided at this n"

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
class Finding:
    """One attack: mean over restarts (or repeats) of the model, the baseline and the controls.

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
        state = json.loads(path.read_text())
        return cls(state["forget_class"], tuple(Finding(**f) for f in state["findings"]))


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
    check_classes(forget_class, model.num_classes)
    for k, control in enumerate(controls):
        check_control(control, forget_class, f"controls[{k}]")
    if not controls:
        raise ValueError("controls is empty: give models retrained without the class, best three")
    found = [
        attack_all(m, baseline, forget_class, judges, guide, real, config)
        for m in (model, baseline, *controls)
    ]
    return compare_all(forget_class, found[0], found[1], found[2:])


def check_control(control: CVAE, forget_class: int, name: str = "control") -> None:
    """Raise ValueError if the control was trained with the class.

    Training fits a Gaussian of z for every class it saw; that of a class never seen is N(0, I).
    """
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
) -> Values:
    """Every attack on one model: success (0 or 1) of each restart, area of each relearning run."""
    kind = {"n_restarts": config.n_restarts, "seed": config.seed}
    inversion = ProbeConfig(steps=config.inversion_steps, **kind)
    guided = ProbeConfig(steps=config.steps, **kind)
    found = {
        "prototype": invert_prototypes(model, baseline, forget_class, inversion),
        "blind": invert_blind(model, forget_class, inversion),
    }
    for over in ("z", "y", "free_y", "both"):
        found[f"guided {over}"] = guided_attack(model, guide, forget_class, guided, over)
    values: Values = {}
    for name, probe in found.items():
        hit = success(probe.images, judges, forget_class)
        values[name] = hit.double().tolist()
        if name in ("guided z", "guided both"):
            values[f"{name}, reachable"] = (hit & reachable(probe.z)).double().tolist()
    few = real.only(forget_class)
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
    forget_class: int, model: Values, baseline: Values, controls: Sequence[Values]
) -> AuditReport:
    """The report on what `attack_all` found in each model."""
    findings = [
        compare(name, values, baseline[name], [c[name] for c in controls])
        for name, values in model.items()
    ]
    return AuditReport(forget_class, tuple(findings))


def compare(
    attack: str,
    model: Sequence[float],
    baseline: Sequence[float],
    controls: Sequence[Sequence[float]],
    margin: float = MARGIN,
) -> Finding:
    """Mean, excess over the controls, intervals and verdict of one attack.

    Controls are resampled first, then the restarts of each (see `draw_means`).
    """
    rng = np.random.default_rng(0)
    mine = draw_means(model, rng)
    each = np.stack([draw_means(c, rng) for c in controls])  # (K, DRAWS)
    picked = rng.integers(len(controls), size=each.shape)
    excess = mine - np.take_along_axis(each, picked, 0).mean(0)
    low, high = np.quantile(mine, (0.025, 0.975))
    excess_low, excess_high = np.quantile(excess, (0.025, 0.975))
    if len(controls) < MIN_CONTROLS:
        verdict = OPEN
    elif excess_high <= margin:
        verdict = NO_MORE
    else:
        verdict = REMAINS if excess_low > 0 else OPEN
    control = float(np.mean([np.mean(c) for c in controls]))
    return Finding(
        attack=attack,
        n=len(model),
        baseline=float(np.mean(baseline)),
        model=float(np.mean(model)),
        low=float(low),
        high=float(high),
        control=control,
        controls=len(controls),
        excess=float(np.mean(model)) - control,
        excess_low=float(excess_low),
        excess_high=float(excess_high),
        verdict=verdict,
    )


def draw_means(values: Sequence[float], rng: np.random.Generator) -> NDArray[np.float64]:
    """DRAWS draws of the mean that these values leave possible.

    Successes and failures: Beta(s + 1/2, f + 1/2), which stays wide when there are few of them,
    where resampling five failures would give zero for sure.  Other numbers: the mean plus a t
    variable with the standard error as its unit.
    """
    x = np.asarray(values, dtype=float)
    if set(x.tolist()) <= {0.0, 1.0}:
        return rng.beta(x.sum() + 0.5, (1 - x).sum() + 0.5, DRAWS)
    if len(x) < 2:
        raise ValueError(f"{len(x)} repeat has no spread: give at least 2")
    error = float(x.std(ddof=1)) / len(x) ** 0.5
    drawn: NDArray[np.float64] = float(x.mean()) + error * rng.standard_t(len(x) - 1, DRAWS)
    return drawn
