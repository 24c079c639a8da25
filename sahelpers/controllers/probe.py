"""Probing under a person's hands: one attack on several models, scored by the same judges."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..config import ProbeConfig, check_classes
from ..judges import Judge, check_guide, check_judges
from ..models import CVAE, check_model
from ..probing import ProbeResult, guided_attack, invert_blind, invert_prototypes, success
from ..progress import watched
from .settings import as_code
from .worker import LOCK

# attack -> the fields of ProbeConfig that weigh its loss
ATTACKS = {
    "prototype": ("alpha_tv", "l2z"),
    "blind": ("w_contrast", "w_ink", "ink_target", "w_tv", "w_orient", "w_z", "w_y"),
    "guided": ("l2z",),
}


@dataclass(frozen=True)
class Outcome:
    """What an attack found in one model; `share` of the restarts that every judge calls the class,
    `by_judge` the share for each judge alone."""

    result: ProbeResult
    share: float
    by_judge: dict[str, float]


class ProbeController:
    """Attack several models in the same way.

    models: name -> model, such as the forgotten one and its control.  baseline: where the prototype
    attack takes its targets.  judges: the scoring ones; guide: the one that guides, for "guided".
    State: `attack`, `forget_class`, `config` (settings); `outcomes`, name -> Outcome.
    """

    def __init__(
        self,
        models: Mapping[str, CVAE],
        baseline: CVAE,
        judges: Mapping[str, Judge],
        guide: Judge,
        forget_class: int = 3,
    ) -> None:
        if not models:
            raise ValueError("models is empty: give at least one, such as {'forgotten': model}")
        check_model(baseline, "baseline")
        for name, model in models.items():
            check_model(model, f"models[{name!r}]", baseline.num_classes)
        check_judges(judges, baseline.num_classes)
        check_guide(guide, baseline.num_classes)
        self.models, self.baseline = dict(models), baseline
        self.judges, self.guide = dict(judges), guide
        self.start = forget_class
        self.reset()

    def reset(self) -> None:
        """Back to the first settings; nothing found."""
        with LOCK:
            self.attack = ""
            self.choose("prototype", self.start)

    def choose(self, attack: str, forget_class: int) -> None:
        """Choose the attack, with its preset, and the class it is after; what was found is void."""
        if attack not in ATTACKS:
            raise ValueError(f"attack={attack!r} is not one of {', '.join(ATTACKS)}")
        (wanted,) = check_classes((forget_class,), self.baseline.num_classes)
        with LOCK:
            if attack != self.attack:
                blind = attack == "blind"
                self.config = ProbeConfig() if blind else ProbeConfig.prototype()
            self.attack, self.forget_class = attack, wanted
            self.outcomes: dict[str, Outcome] = {}

    def change(self, **values: Any) -> None:
        """Change fields of the configuration; ValueError as the configuration itself says."""
        with LOCK:
            self.config = replace(self.config, **values)

    def run(
        self,
        stop: threading.Event,
        show: Callable[[str, int, int], None] = lambda name, done, total: None,
    ) -> bool:
        """Attack every model; False when `stop` was set meanwhile, and then nothing is kept.

        show: called after every step with the model's name, steps done and steps in all.
        """
        with LOCK:
            attack, label, config = self.attack, self.forget_class, self.config
        outcomes = {}
        for name, model in self.models.items():

            def tell(done: int, total: int, name: str = name) -> bool:
                show(name, done, total)
                return not stop.is_set()

            with watched(tell):
                result = self._attack(attack, model, label, config)
            if stop.is_set():
                return False
            each = {
                role: float(success(result.images, {role: judge}, label).float().mean())
                for role, judge in self.judges.items()
            }
            share = float(success(result.images, self.judges, label).float().mean())
            outcomes[name] = Outcome(result, share, each)
        with LOCK:
            if stop.is_set():
                return False
            self.outcomes = outcomes
        return True

    def code(self) -> str:
        """A line of code that attacks the first model with the present settings."""
        with LOCK:
            function = {
                "prototype": "invert_prototypes(model, baseline.model",
                "blind": "invert_blind(model",
                "guided": "guided_attack(model, guide",
            }[self.attack]
            return f"found = sa.{function}, {self.forget_class}, {as_code(self.config)})"

    def _attack(self, attack: str, model: CVAE, label: int, config: ProbeConfig) -> ProbeResult:
        if attack == "prototype":
            return invert_prototypes(model, self.baseline, label, config)
        if attack == "blind":
            return invert_blind(model, label, config)
        return guided_attack(model, self.guide, label, config)
