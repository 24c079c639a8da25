"""The dashboard that attacks models in the same way, and what it does without a widget."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from threading import Event

import ipywidgets as ipw

from ..checks import check_is
from ..config import ProbeConfig, check_classes
from ..models import CVAE
from ..probing import ProbeResult, guided_attack, invert_blind, invert_prototypes, success
from ..story import Classes, Story
from .base import KnobDashboard, sheet, table
from .worker import LOCK, Controller, as_code, checked, models_there

BLIND = ("w_contrast", "w_ink", "ink_target", "w_tv", "w_orient", "w_z", "w_y")
# attack -> its function, what it needs of a story, and the fields of ProbeConfig in its loss
ATTACKS: dict[str, tuple[Callable[..., ProbeResult], dict[str, str], tuple[str, ...]]] = {
    "prototype": (invert_prototypes, {"baseline": "baseline.model"}, ("alpha_tv", "l2z")),
    "blind": (invert_blind, {}, BLIND),
    "guided": (guided_attack, {"guide": "guide"}, ("l2z",)),
}
ALWAYS = ("n_restarts", "steps")  # knobs of every attack
COUNT, SIDE = 8, 56  # restarts shown, the best first, and the pixels of each
TIMES = {"forgotten": "the forgotten model (ten seconds)", "control": "its control (two minutes)"}


Models = Mapping[str, CVAE] | None


@dataclass(frozen=True)
class Outcome:
    """What an attack found in one model, and the share of restarts that a judge calls the class:
    `shares` by role, and for "all judges" at once."""

    result: ProbeResult
    shares: dict[str, float]


class ProbeController(Controller):
    """Attack several models in the same way.

    story: where targets, judges and guide come from.  forget_class: one or several; attacks begin
    with the first.  models: name -> model; None means the story's: the model that has forgotten
    these classes, the control that never saw them and the one that hides them; and for a class
    that is not among them, the models of that class.  What is not there is made by `run`.
    State: `attack`, `forget_class`, `config` (settings); `outcomes`, name -> Outcome.
    """

    def __init__(self, story: Story, forget_class: Classes = 3, models: Models = None) -> None:
        check_is(story, Story, "story", ": sa.Story() makes one")
        self.story, self.num_classes = story, story.baseline.model.num_classes
        self.start = check_classes(forget_class, self.num_classes)
        self.models = None if models is None else checked(models, self.num_classes)
        self.reset()

    @property
    def gone(self) -> tuple[int, ...]:
        """The classes whose models are attacked."""
        return self.start if self.forget_class in self.start else (self.forget_class,)

    @property
    def missing(self) -> str:
        """What `run` has to make first and how long it takes; "" when nothing is missing."""
        there = TIMES if self.models else models_there(self.story, self.gone)
        return " and ".join(words for name, words in TIMES.items() if name not in there)

    def targets(self) -> dict[str, CVAE]:
        """Name -> model: those given, or the story's, made if need be."""
        if self.models is not None:
            return self.models
        made = self.story.forgotten(self.gone), self.story.control(self.gone)
        hidden = self.story.hidden(self.gone)
        return {"forgotten": made[0].model, "control": made[1].model, "hidden": hidden}

    def reset(self) -> None:
        """Back to the first settings; nothing found."""
        with LOCK:
            self.attack = ""
            self.choose("prototype", self.start[0])

    def choose(self, attack: str, forget_class: int) -> None:
        """Choose the attack, with its preset, and the class it is after; what was found is void."""
        if attack not in ATTACKS:
            raise ValueError(f"attack={attack!r} is not one of {', '.join(ATTACKS)}")
        (wanted,) = check_classes((forget_class,), self.num_classes)
        with LOCK:
            if attack != self.attack:
                blind = attack == "blind"
                self.config = ProbeConfig() if blind else ProbeConfig.prototype()
            self.attack, self.forget_class = attack, wanted
            self.outcomes: dict[str, Outcome] = {}

    def run(self, stop: Event, show: Callable[[str, float], None] = lambda *_: None) -> bool:
        """Attack every model; False when `stop` was set meanwhile, and then nothing is kept.

        show: called after every step with the model's name and the share of the whole way.
        """
        with LOCK:
            attack, label, config = self.attack, self.forget_class, self.config
        function, needs, _ = ATTACKS[attack]
        given = {word: attrgetter(path)(self.story) for word, path in needs.items()}
        juries = {role: {role: judge} for role, judge in self.story.judges.items()}
        juries["all judges"] = self.story.judges
        outcomes = {}
        targets = self.targets()
        for place, (name, model) in enumerate(targets.items()):

            def on_step(done: int, name: str = name, place: int = place) -> bool:
                show(name, (place + done / config.steps) / len(targets))
                return not stop.is_set()

            result = function(model, label, config, on_step=on_step, **given)
            if stop.is_set():
                return False
            found = {who: success(result.images, jury, label) for who, jury in juries.items()}
            outcomes[name] = Outcome(result, {w: float(f.float().mean()) for w, f in found.items()})
        with LOCK:
            if stop.is_set():
                return False
            self.outcomes = outcomes
        return True

    def code(self) -> str:
        """A line of code that attacks one `model` with the present settings."""
        with LOCK:
            function, needs, _ = ATTACKS[self.attack]
            words = ["model", str(self.forget_class), as_code(self.config)]
        words += [f"{word}=story.{path}" for word, path in needs.items()]
        return f"found = sa.{function.__name__}({', '.join(words)})"


class ProbeDashboard(KnobDashboard):
    """Choose an attack and its priors, run it on every model, let the scoring judges decide.

    story, forget_class, models: as for the controller.
    """

    def __init__(self, story: Story, forget_class: Classes = 3, models: Models = None) -> None:
        c = ProbeController(story, forget_class, models)
        every = (name for _, _, knobs in ATTACKS.values() for name in knobs)
        super().__init__(c, dict.fromkeys((*ALWAYS, *every)), "nothing")
        numbers = range(c.num_classes)
        self.attack = self.menu("ATTACK", ATTACKS, c.attack, lambda _: self._choose())
        self.label = self.menu("FORGET_CLASS", numbers, c.forget_class, lambda _: self._choose())
        attack = partial(self.worker.submit, self._run)
        self.run = self.button("Attack", "attack every model", attack, "primary")
        self.reset = self.button("Reset", "back to the first settings", self._reset)
        self.picture = ipw.HTML()
        buttons = ipw.HBox([self.run, self.stop, self.reset])
        self.arrange(
            [self.attack, self.label, *self.knobs.values(), buttons, self.progress],
            [self.picture, self.table, self.code, self.help],
        )
        self.when_idle()
        self._follow()

    def _choose(self) -> None:
        self.worker.stop()  # what it would find is no longer asked for
        self.controller.choose(self.attack.value, self.label.value)
        self._follow()

    def _reset(self) -> None:
        self.worker.stop()
        self.controller.reset()
        self._follow()

    def _follow(self) -> None:
        """Show the knobs of the attack at the controller's values, and what was found so far."""
        self.set_knobs()
        with self.quietly():
            self.attack.value = self.controller.attack
            self.label.value = self.controller.forget_class
        for name, slider in self.knobs.items():
            used = name in (*ALWAYS, *ATTACKS[self.controller.attack][2])
            slider.layout.display = None if used else "none"
        self.show_code()
        self._draw_outcomes()
        first = f" It first makes {missing}." if (missing := self.controller.missing) else ""
        self.say(f"Ready: press Attack.{first}")

    def _run(self, stop: Event) -> None:
        self.stop.disabled = False
        missing = self.controller.missing
        self.say(f"Making {missing}; Stop waits for its end ..." if missing else "Attacking ...")
        self.progress.value = 0.0

        def show(name: str, done: float) -> None:
            if done >= self.progress.value + 0.01:
                self.progress.value = done
                self.say(f"Attacking {name}")

        if not self.controller.run(stop, show):
            self.say("Stopped: nothing was kept, models are compared after equal work only.")
            return
        self._draw_outcomes()
        self.progress.value = 1.0
        self.say("Done. Only the difference to the control is evidence.")

    def _draw_outcomes(self) -> None:
        """The best restarts of each model, and how many each judge calls the class."""
        c, outcomes = self.controller, self.controller.outcomes  # others may take their place
        self.picture.value = self.table.value = ""
        if not outcomes:
            return
        found = next(iter(outcomes.values()))
        count = len(found.result.loss)
        rows = {name: [o.result.images[:COUNT]] for name, o in outcomes.items()}
        self.picture.value = sheet(rows, [[""] * min(COUNT, count)], [SIDE])
        lines = [
            (name, *(f"{100 * x:.0f} %" for x in o.shares.values()), f"{o.result.loss[0]:.4f}")
            for name, o in outcomes.items()
        ]
        caption = f"Attack {c.attack}, class {c.forget_class}: restarts out of {count} that a judge"
        caption += " calls the class (P of 0.5 or more)"
        self.table.value = table(caption, ("model", *found.shares, "best loss"), lines)
