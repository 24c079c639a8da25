"""The whole battery of attacks, on a model and on controls that never saw the class."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean

import torch

from .checkpoints import replace_text
from .checks import check_is
from .config import Config, ProbeConfig, check_classes, knob
from .data import LabelledImages
from .excess import BLUNT, REMAINS, SOUND, Finding, compare
from .judges import Judge, check_guide, check_judges
from .models import CVAE, check_model, seeded
from .probing import SEARCHES, guided_attack, invert_blind, invert_prototypes, reachable, success
from .recovery import relearn

RELEARN_SIZES = (1, 10, 100)  # real images handed to the model
KEPT, FOOLED = "guided both, kept class", "guide fooled at the start"  # checks of guided attacks
SOUND_FROM = 0.9  # share of restarts that must find a kept class, or begin with a guide not fooled

# attack -> 0 or 1 for every restart, or an area from 0.0 to 1.0 for every relearning run
Values = dict[str, list[float]]


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
        replace_text(path, json.dumps(asdict(self), indent=1) + "\n")

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
    Raises ValueError for a control that was trained with the class or that is given twice.
    """
    config = config or AuditConfig()
    check_model(model)
    (forget_class,) = check_classes((forget_class,), model.num_classes)
    for k, control in enumerate(controls):
        check_control(control, forget_class, f"controls[{k}]")
        if any(_same(control, other) for other in (model, *controls[:k])):
            raise ValueError(
                f"controls[{k}] has the weights of the model or of a control before it: make each "
                "with a seed of its own"
            )
    if not controls:
        raise ValueError("controls is empty: give models retrained without the class, best three")
    found = [
        attack_all(m, baseline, forget_class, judges, guide, real, config)
        for m in (model, baseline, *controls)
    ]
    return compare_all(forget_class, found[:1], found[1:2], found[2:])


def _same(one: CVAE, other: CVAE) -> bool:
    """Whether two models have the same weights."""
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return all(a.shape == b.shape and torch.equal(a, b) for a, b in pairs)


def check_control(control: CVAE, forget_class: int, name: str = "control") -> None:
    """Raise ValueError if the control has a Gaussian of z for the class.

    Training fits one for every class it saw; that of a class never seen is N(0, I).  Forgetting
    resets it too, so this catches baselines, not forgotten models: the caller retrains.
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
) -> Values:
    """Every attack on one model: success (0 or 1) of each restart, area of each relearning run.

    Two entries are no attacks on the class but checks of the guided ones: the same attack on the
    class after it, a kept one, must succeed; and the guide must not take what the model draws for
    the class already, while no scoring judge does, or there is no slope to climb.
    """
    check_model(model)
    check_model(baseline, "baseline", model.num_classes)
    check_classes((forget_class,), model.num_classes)
    check_judges(judges, model.num_classes)
    check_guide(guide, model.num_classes)
    check_is(real, LabelledImages, "real")
    check_is(config, AuditConfig, "config")
    few = real.only(forget_class)
    if len(few) < RELEARN_SIZES[-1]:
        raise ValueError(
            f"real has {len(few)} images of class {forget_class}: {RELEARN_SIZES[-1]} are relearned"
        )
    kind = {"n_restarts": config.n_restarts, "seed": config.seed}
    inversion = ProbeConfig(steps=config.inversion_steps, **kind)
    guided = ProbeConfig(steps=config.steps, **kind)
    found = {
        "prototype": invert_prototypes(model, baseline, forget_class, inversion),
        "blind": invert_blind(model, forget_class, inversion),
    }
    for over in SEARCHES:
        found[f"guided {over}"] = guided_attack(model, guide, forget_class, guided, over)
    values: Values = {}
    for name, probe in found.items():
        hit = success(probe.images, judges, forget_class)
        values[name] = hit.int().tolist()
        if name in ("guided z", "guided both"):
            values[f"{name}, reachable"] = (hit & reachable(probe.z)).int().tolist()
    kept = (forget_class + 1) % model.num_classes
    probe = guided_attack(model, guide, kept, guided)
    values[KEPT] = success(probe.images, judges, kept).int().tolist()
    values[FOOLED] = fooled(model, forget_class, judges, guide, config)
    for size in RELEARN_SIZES:
        for over in ("all", "label"):
            runs = []
            for k in range(config.repeats):
                data, seed = few.take(size, seed=config.seed + k), config.seed + k
                curve = relearn(
                    model, data, forget_class, judges,
                    steps=config.relearn_steps, over=over, seed=seed,
                )  # fmt: skip
                runs.append(round(curve.area, 4))
            values[f"relearn {size}{', label only' if over == 'label' else ''}"] = runs
    return values


def fooled(
    model: CVAE, forget_class: int, judges: Mapping[str, Judge], guide: Judge, config: AuditConfig
) -> list[float]:
    """For every restart 1 if the guide, and not all scoring judges, sees the class in a sample."""
    wanted = torch.full((config.n_restarts,), forget_class, device=model.device)
    drawn = model.sample(wanted, seeded(config.seed), prior="standard")
    believed = guide.probabilities(drawn)[:, forget_class] >= 0.5
    blind: list[float] = (believed & ~success(drawn, judges, forget_class)).int().tolist()
    return blind


def compare_all(
    forget_class: int,
    models: Sequence[Values],
    baselines: Sequence[Values],
    controls: Sequence[Values],
) -> AuditReport:
    """The report on what `attack_all` found: one entry per seed in each of the three groups.

    Where a check of the guided attacks fails on a model, they have not shown that nothing is there.
    """
    groups = (models, baselines, controls)
    if not all(groups):
        counts = [len(group) for group in groups]
        raise ValueError(f"{counts} models, baselines and controls: give at least one of each")
    names = list(models[0])
    for values in (*models, *baselines, *controls):
        if set(values) != set(names):
            raise ValueError(f"attacks {list(values)} are not {names}: make them alike")
    findings = [compare(name, *([v[name] for v in group] for group in groups)) for name in names]
    sound = {
        KEPT: min(fmean(values[KEPT]) for values in models) >= SOUND_FROM,
        FOOLED: max(fmean(values[FOOLED]) for values in models) <= 1 - SOUND_FROM,
    }

    def judged(finding: Finding) -> Finding:
        if finding.attack in sound:
            return replace(finding, verdict=SOUND if sound[finding.attack] else BLUNT)
        guided = finding.attack.startswith("guided")
        if guided and finding.verdict != REMAINS and not all(sound.values()):
            return replace(finding, verdict=BLUNT)
        return finding

    return AuditReport(forget_class, tuple(map(judged, findings)))
