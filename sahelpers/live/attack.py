"""The dashboard of notebook 04, and what it does without a widget: attack a model and its control.

One attack on several models, scored by the same judges.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import attrgetter

import ipywidgets as ipw
from matplotlib.figure import Figure

from .. import plots
from ..checks import check_is
from ..config import ProbeConfig, check_classes
from ..models import CVAE
from ..probing import ProbeResult, guided_attack, invert_blind, invert_prototypes, success
from ..story import Classes, Story
from .base import KnobDashboard, picture_box, rendered, table
from .worker import LOCK, Controller, as_code, checked

BLIND = ("w_contrast", "w_ink", "ink_target", "w_tv", "w_orient", "w_z", "w_y")
# attack -> its function, what it needs of a story, and the fields of ProbeConfig in its loss
ATTACKS: dict[str, tuple[Callable[..., ProbeResult], dict[str, str], tuple[str, ...]]] = {
    "prototype": (invert_prototypes, {"baseline": "baseline.model"}, ("alpha_tv", "l2z")),
    "blind": (invert_blind, {}, BLIND),
    "guided": (guided_attack, {"guide": "guide"}, ("l2z",)),
}
ALWAYS = ("n_restarts", "steps")  # knobs of every attack
COUNT = 8  # restarts shown, the best first


@dataclass(frozen=True)
class Outcome:
    """What an attack found in one model, and the share of restarts that a judge calls the class:
    `shares` by role, and for "all judges" at once."""

    result: ProbeResult
    shares: dict[str, float]


class ProbeController(Controller):
    """Attack several models in the same way.

    story: where targets, judges and guide come from.  forget_class: one or several; attacks begin
    with the first.  models: name -> model; None means the story's model that has forgotten these
    classes and the control that never saw them.
    State: `attack`, `forget_class`, `config` (settings); `outcomes`, name -> Outcome.
    """

    def __init__(
        self, story: Story, forget_class: Classes = 3, models: Mapping[str, CVAE] | None = None
    ) -> None:
        check_is(story, Story, "story", ": sa.Story() makes one")
        self.story, self.num_classes = story, story.baseline.model.num_classes
        gone = check_classes(forget_class, self.num_classes)
        self.start = gone[0]
        if models is None:
            models = {
                "forgotten": story.forgotten(gone).model,
                "control": story.control(gone).model,
            }
        self.models = checked(models, self.num_classes)
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
        (wanted,) = check_classes((forget_class,), self.num_classes)
        with LOCK:
            if attack != self.attack:
                blind = attack == "blind"
                self.config = ProbeConfig() if blind else ProbeConfig.prototype()
            self.attack, self.forget_class = attack, wanted
            self.outcomes: dict[str, Outcome] = {}

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
        function, needs, _ = ATTACKS[attack]
        given = {word: attrgetter(path)(self.story) for word, path in needs.items()}
        juries = {role: {role: judge} for role, judge in self.story.judges.items()}
        juries["all judges"] = self.story.judges
        outcomes = {}
        for name, model in self.models.items():

            def on_step(done: int, name: str = name) -> bool:
                show(name, done, config.steps)
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

    def __init__(
        self, story: Story, forget_class: Classes = 3, models: Mapping[str, CVAE] | None = None
    ) -> None:
        c = ProbeController(story, forget_class, models)
        every = (name for _, _, knobs in ATTACKS.values() for name in knobs)
        super().__init__(c, dict.fromkeys((*ALWAYS, *every)), "nothing")
        numbers = range(c.num_classes)
        self.attack = self.menu("ATTACK", ATTACKS, c.attack, lambda _: self._choose())
        self.label = self.menu("FORGET_CLASS", numbers, c.forget_class, lambda _: self._choose())
        self.run = self.button(
            "Attack", "attack every model", lambda: self.worker.submit(self._run), "primary"
        )
        self.reset = self.button("Reset", "back to the first settings", self._reset)
        self.picture = picture_box()
        buttons = ipw.HBox([self.run, self.stop, self.reset])
        self.arrange(
            [self.attack, self.label, *self.knobs.values(), buttons, self.progress],
            [self.picture, self.table, self.code, self.help],
        )
        self.when_idle()
        self._follow()
        self.say("Ready. Choose an attack and press Attack.")

    def _choose(self) -> None:
        self.worker.stop()  # what it would find is no longer asked for
        self.controller.choose(self.attack.value, self.label.value)
        self._follow()

    def _reset(self) -> None:
        self.worker.stop()
        self.controller.reset()
        self.attack.value, self.label.value = self.controller.attack, self.controller.forget_class
        self._follow()
        self.say("Back at the first settings.")

    def _follow(self) -> None:
        """Show the knobs of the attack at the controller's values, and what was found so far."""
        self.set_knobs()
        for name, slider in self.knobs.items():
            used = name in (*ALWAYS, *ATTACKS[self.controller.attack][2])
            slider.layout.display = None if used else "none"
        self.show_code()
        self._draw_outcomes()

    def _run(self, stop: threading.Event) -> None:
        self.stop.disabled = False
        places = {name: k for k, name in enumerate(self.controller.models)}

        def show(name: str, done: int, total: int) -> None:
            if done % max(1, total // 50) == 0:
                self.progress.value = (places[name] + done / total) / len(places)
                self.say(f"Attacking {name}, step {done} of {total}")

        if not self.controller.run(stop, show):
            self.say("Stopped: nothing was kept, models are compared after equal work only.")
            return
        self._draw_outcomes()
        self.progress.value = 1.0
        self.say("Done. Only the difference to the control is evidence.")

    def _draw_outcomes(self) -> None:
        """The best restarts of each model, and how many each judge calls the class."""
        c = self.controller
        outcomes = c.outcomes
        self.picture.layout.display = None if outcomes else "none"
        if not outcomes:
            self.table.value = ""
            return

        def draw(figure: Figure) -> None:
            ax = figure.add_axes((0.13, 0.02, 0.86, 0.96))
            plots.image_rows({n: o.result.images for n, o in outcomes.items()}, COUNT, ax)

        self.picture.value = rendered(draw, 7.6, 0.9 * len(outcomes))
        found = next(iter(outcomes.values()))
        rows = [
            (name, *(f"{100 * x:.0f} %" for x in o.shares.values()), f"{o.result.loss[0]:.4f}")
            for name, o in outcomes.items()
        ]
        self.table.value = table(
            f"Attack {c.attack}, class {c.forget_class}: restarts out of {len(found.result.loss)} "
            "that a judge calls the class (P of 0.5 or more)",
            ("model", *found.shares, "best loss"),
            rows,
        )
