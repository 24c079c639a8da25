"""The dashboard that attacks models in the same way, and what it does without a widget."""

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from operator import attrgetter
from threading import Event

import ipywidgets as ipw
import torch

from ..attacks.latent import (
    ProbeResult,
    attack_success,
    guided_attack,
    invert_blind,
    invert_prototypes,
)
from ..attacks.weights import heal
from ..checks import check_is
from ..config import ProbeConfig, check_classes
from ..elbo import elbo_terms
from ..models import CVAE
from ..story import Classes, Story
from .base import KnobDashboard, sheet, table, wrapped
from .worker import (
    LOCK,
    Controller,
    Stopped,
    as_code,
    check_models,
    in_words,
    models_there,
    stoppable,
    usual_classes,
)


@dataclass(frozen=True)
class Attack:
    """One of the attacks that the dashboard offers.

    Attributes:
        function: The public function that runs it.
        needs: Its further arguments: name -> where a story has it.
        knobs: The fields of ProbeConfig that stand in its loss.
    """

    function: Callable[..., ProbeResult]
    needs: dict[str, str]
    knobs: tuple[str, ...]


ATTACKS = {
    "prototype": Attack(invert_prototypes, {"baseline": "baseline.model"}, ("alpha_tv", "l2z")),
    "blind": Attack(
        invert_blind,
        {},
        ("w_contrast", "w_ink", "ink_target", "w_tv", "w_orient", "w_z", "w_y"),
    ),
    "guided": Attack(guided_attack, {"guide": "guide"}, ("l2z",)),
}
ALWAYS = ("n_restarts", "steps")  # knobs of every attack
# Steps of further training before the attack; the second is as long as the ladder's first stage.
TRAIN_ON = (0, 400)
COUNT, SIDE = 8, 56  # restarts shown, the best first, and the pixels of each
FORGETTING = 2.8  # a step of forgetting, in steps of training
Models = Mapping[str, CVAE] | None


@dataclass(frozen=True)
class Outcome:
    """What an attack found in one model.

    Attributes:
        result: Images, latents, labels and losses of all restarts.
        shares: The share of restarts that a judge calls the class, by role, and that all of them
            do under "all judges".
    """

    result: ProbeResult
    shares: dict[str, float]


class ProbeController(Controller):
    """Attack several models in the same way.

    Args:
        story: Where targets, judges and guide come from.
        forget_class: The class or classes that were forgotten, by number or name; attacks begin
            with the first.  3, or the last of fewer classes, when left out.
        models: Name -> model to attack.  When left out, the story's: the model that has forgotten
            these classes, the retrained one that never saw them and the one that hides them; for a
            class that is not among them, the three models of that class.  `run` makes what is not
            there yet.  Networks of your own cannot be retrained here, and classes are hidden in
            them only if they say where the label enters.

    Attributes:
        attack, forget_class, config: The settings.
        train_on: Steps for which every model is trained further with kept images before.
        ran: The configuration that the outcomes were found with.
        outcomes: Name of the model -> what was found; empty until `run` has ended.
    """

    def __init__(
        self, story: Story, forget_class: Classes | None = None, models: Models = None
    ) -> None:
        check_is(story, Story, "story", ": sa.Story() makes one")
        self.story = story
        self.num_classes = story.baseline.model.num_classes
        if forget_class is None:
            forget_class, _ = usual_classes(self.num_classes)
        self.start = story.train.class_numbers(forget_class)
        self.names = story.train.class_names
        self.made: set[tuple[int, ...]] = set()  # classes whose models `run` has made
        if models is not None:
            check_models(models, self.num_classes)
            models = dict(models)
        self.models = models
        self.reset()

    @property
    def gone(self) -> tuple[int, ...]:
        """The classes whose models are attacked."""
        return self.start if self.forget_class in self.start else (self.forget_class,)

    @property
    def makers(self) -> dict[str, Callable[[], CVAE]]:
        """Name -> what returns the model, made if need be, of every model that is attacked."""
        if self.models is not None:
            return {name: partial(_same, model) for name, model in self.models.items()}
        story, gone = self.story, self.gone
        baseline = story.baseline.model
        makers: dict[str, Callable[[], CVAE]] = {"forgotten": lambda: story.forgotten(gone).model}
        if baseline.is_built_in:
            makers["retrained"] = lambda: story.retrained(gone).model
        if baseline.says_label:
            makers["hidden"] = lambda: story.hidden(gone)
        return makers

    @cached_property
    def step_seconds(self) -> float:
        """How long a training step of this story's network takes on its images, in seconds."""
        return training_step_seconds(self.story)

    @property
    def missing(self) -> str:
        """What `run` has to make first and how long it takes; "" when nothing is missing."""
        if self.models is not None:
            return ""
        there = models_there(self.story, self.gone)
        if self.gone in self.made:
            there["forgotten"] = self.story.baseline.model  # of own networks no file tells
        words = []
        if "forgotten" not in there:
            steps = self.story.config.amnesia.max_steps()
            seconds = in_words(FORGETTING * steps * self.step_seconds)
            words.append(f"the forgotten model (at most {steps} steps, {seconds})")
        if "retrained" in self.makers and "retrained" not in there:
            config = self.story.config.baseline
            labels = self.story.train.labels
            images = len(labels) - sum(int((labels == c).sum()) for c in self.gone)
            steps = config.epochs * (images // min(images, config.batch_size))
            seconds = in_words(steps * self.step_seconds)
            words.append(f"the one retrained without it ({steps} steps, about {seconds})")
        return " and ".join(words)

    def reset(self) -> None:
        """Back to the first settings; nothing found."""
        with LOCK:
            self.attack = ""
            self.ran: ProbeConfig | None = None
            self.choose("prototype", self.start[0])

    def choose(self, attack: str, forget_class: int, train_on: int = 0) -> None:
        """Choose the attack, with its preset, the class it is after, and for how many steps every
        model is trained on before; what was found is void."""
        if attack not in ATTACKS:
            raise ValueError(f"attack={attack!r} is not one of {', '.join(ATTACKS)}")
        (wanted,) = check_classes((forget_class,), self.num_classes)
        with LOCK:
            if attack != self.attack:
                blind = attack == "blind"
                self.config = ProbeConfig() if blind else ProbeConfig.prototype()
            self.attack, self.forget_class, self.train_on = attack, wanted, train_on
            self.outcomes: dict[str, Outcome] = {}

    def run(
        self,
        stop: Event,
        show: Callable[[str, float], None] = lambda *_: None,
        making: Callable[[str], Callable[[float], None]] = lambda _: lambda _: None,
    ) -> bool:
        """Attack every model.

        Args:
            stop: Once it is set, the attack ends, or the training of a model that is made first.
            show: Called after every step with the model's name and the share of the whole way.
            making: Called with what has to be made first, in words; what it returns is called
                with the share of that which is done.

        Returns:
            False when `stop` was set meanwhile; then nothing is kept but the part file of a
            training, which goes on from it the next time.
        """
        with LOCK:
            name_of_attack, label, config = self.attack, self.forget_class, self.config
            gone, makers, train_on = self.gone, self.makers, self.train_on
        attack = ATTACKS[name_of_attack]
        targets = {}
        try:
            with stoppable(stop, making("Making the judges")):
                judges = self.story.judges
                more = {word: attrgetter(path)(self.story) for word, path in attack.needs.items()}
            for name, make in makers.items():
                with stoppable(stop, making(f"Making the {name} model")):
                    targets[name] = make()
                if train_on:
                    with stoppable(stop, making(f"Training the {name} model on")):
                        targets[name] = heal(targets[name], gone, self.story.train, train_on)
        except Stopped:
            return False
        self.made.add(gone)
        juries = {role: {role: judge} for role, judge in judges.items()}
        juries["all judges"] = judges
        outcomes = {}
        for place, (name, model) in enumerate(targets.items()):

            def on_step(done: int, name: str = name, place: int = place) -> bool:
                show(name, (place + done / config.steps) / len(targets))
                return not stop.is_set()

            result = attack.function(model, label, config, on_step=on_step, **more)
            if stop.is_set():
                return False
            shares = {}
            for who, jury in juries.items():
                called = attack_success(result.images, jury, label)
                shares[who] = float(called.float().mean())
            outcomes[name] = Outcome(result, shares)
        with LOCK:
            if stop.is_set():
                return False
            self.outcomes, self.ran = outcomes, config
        return True

    def told_code(self) -> tuple[str, str]:
        """What the code is the code of, in words, and the code."""
        with LOCK:
            shown = self.outcomes and self.config == self.ran
            what = "of the table" if shown else "of what Attack will do with these settings"
            return what, self.code()

    def code(self) -> str:
        """Code that attacks one `model` with the present settings."""
        with LOCK:
            attack, train_on = ATTACKS[self.attack], self.train_on
            words = ["model", str(self.forget_class), as_code(self.config)]
        words += [f"{word}=story.{path}" for word, path in attack.needs.items()]
        before = (
            f"model = sa.heal(model, {self.gone}, story.train, {train_on})\n" if train_on else ""
        )
        return f"{before}found = sa.{attack.function.__name__}({', '.join(words)})"


def _same(model: CVAE) -> CVAE:
    return model


def training_step_seconds(story: Story) -> float:
    """Measure a training step of a story's network on its images, on a copy.

    Args:
        story: The story, whose baseline is there.

    Returns:
        Seconds, the least of four.
    """
    config = story.config.baseline
    model = copy.deepcopy(story.baseline.model).train().requires_grad_(True)
    images = story.train.images[: config.batch_size]
    labels = story.train.labels[: config.batch_size]
    noise = torch.zeros((len(images), model.latent_dim), device=model.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.lr, fused=True)
    took = []
    for _ in range(4):
        began = time.perf_counter()
        with torch.enable_grad():
            loss = torch.stack(elbo_terms(model, images, labels, noise)).mean()
            optimizer.zero_grad()
            loss.backward()
        optimizer.step()
        took.append(time.perf_counter() - began)
    return min(took)


class ProbeDashboard(KnobDashboard):
    """Choose an attack and its priors, run it on every model, let the scoring judges decide.

    Args:
        story: Where targets, judges and guide come from.
        forget_class: The class or classes that were forgotten, by number or name; 3, or the last
            of fewer classes, when left out.
        models: Name -> model to attack; the story's own when left out.
    """

    def __init__(
        self, story: Story, forget_class: Classes | None = None, models: Models = None
    ) -> None:
        c = ProbeController(story, forget_class, models)
        names = list(ALWAYS)
        for attack in ATTACKS.values():
            names += [name for name in attack.knobs if name not in names]
        super().__init__(c, names, "nothing")
        named = [(name, k) for k, name in enumerate(c.names)]
        self.attack = self.menu("ATTACK", ATTACKS, c.attack, lambda _: self._choose())
        self.label = self.menu("FORGET_CLASS", named, c.forget_class, lambda _: self._choose())
        named = [(f"{n} steps, on what is kept" if n else "no", n) for n in TRAIN_ON]
        self.train_on = self.menu("TRAIN FURTHER", named, 0, lambda _: self._choose())
        submit = partial(self.worker.submit, self._run)
        self.run = self.button("Attack", "attack every model", submit, "primary")
        self.reset = self.button("Reset", "back to the first settings", self._reset)
        self.picture = ipw.HTML()
        buttons = ipw.HBox([self.run, self.stop, self.reset])
        self.arrange(
            [self.attack, self.label, self.train_on, *self.knobs.values(), buttons, self.progress],
            [self.picture, self.table],
            [wrapped([self.code]), self.help],
        )
        self.when_idle()
        self._follow()

    def _choose(self) -> None:
        self.worker.stop()  # what it would find is no longer asked for
        self.controller.choose(self.attack.value, self.label.value, self.train_on.value)
        self._follow()

    def _reset(self) -> None:
        self.worker.stop()
        self.controller.reset()
        self._follow()

    def _follow(self) -> None:
        """Show the knobs of the attack at the controller's values, and what was found so far."""
        self.progress.value = 0.0
        self.set_knobs()
        with self.quietly():
            self.attack.value = self.controller.attack
            self.label.value = self.controller.forget_class
            self.train_on.value = self.controller.train_on
        for name, slider in self.knobs.items():
            used = name in (*ALWAYS, *ATTACKS[self.controller.attack].knobs)
            slider.layout.display = None if used else "none"
        self.show_code()
        self._draw_outcomes()
        missing = self.controller.missing
        self.say("Ready: press Attack." + (f" It first makes {missing}." if missing else ""))

    def _run(self, stop: Event) -> None:
        self.stop.disabled = False
        self.say("Attacking ...")
        self.progress.value = 0.0
        before = ""

        def show(name: str, done: float) -> None:
            nonlocal before
            if name != before or done >= self.progress.value + 0.01:
                before = name
                self.progress.value = done
                self.say(f"Attacking {name}")

        if not self.controller.run(stop, show, self.in_making):
            self.progress.value = 0.0
            self.say(
                "Stopped: nothing was found yet, models are compared after equal work only. "
                "A model that was being made goes on from there the next time."
            )
            return
        self._draw_outcomes()
        self.show_code()
        self.progress.value = 1.0
        if "retrained" in self.controller.outcomes:
            self.say("Done. Only the difference to the retrained model is evidence.")
        else:
            self.say("Done. Without a retrained model beside it, this is no evidence.")

    def _draw_outcomes(self) -> None:
        """The best restarts of each model, and how many each judge calls the class."""
        c, outcomes = self.controller, self.controller.outcomes  # others may take their place
        self.picture.value = self.table.value = ""
        if not outcomes:
            return
        first = next(iter(outcomes.values()))
        count = len(first.result.loss)
        pictures = {name: [found.result.images[:COUNT]] for name, found in outcomes.items()}
        self.picture.value = sheet(pictures, [[""] * min(COUNT, count)], [SIDE])
        lines = []
        for name, found in outcomes.items():
            shares = [f"{100 * share:.0f} %" for share in found.shares.values()]
            lines.append((name, *shares, f"{found.result.loss[0]:.4f}"))
        before = f" after {c.train_on} steps of further training" if c.train_on else ""
        caption = (
            f"Attack {c.attack}, class {c.names[c.forget_class]}{before}: restarts out of {count} "
            "that a judge calls the class (P of 0.5 or more)"
        )
        self.table.value = table(caption, ("model", *first.shares, "best loss"), lines)
