"""Selective Amnesia: forget a class of a trained conditional VAE (Heng & Soh 2023).

The loss is in `objective`; here are the descent, its budget and its result.
"""

import copy
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch

from .checks import check_callable, check_is, is_no
from .config import AmnesiaConfig, check_classes, kept_classes
from .data import LabelledImages
from .fisher import Fisher
from .models import CVAE, check_model, ordinary_torch, seeded
from .objective import Objective
from .progress import progress
from .shadow import Shadow
from .surrogates import MakeImages, make_surrogate
from .training import History, read_history

# Of the recipe, not of its default values; raised with anything that changes where it ends.
VERSION = 4
CHECK_EVERY = 10  # steps between two looks at the distance and at what kept images pay
NOISE = 4.0  # at the peak learning rate kept images may pay so many budgets more: Adam's noise
HELD_OUT = 512  # latents that are never trained on, for that look

OnStep = Callable[[int, CVAE, dict[str, float]], bool | None]


@dataclass(frozen=True)
class AmnesiaResult:
    """A model that has forgotten, and how it got there.

    Attributes:
        model: The model, in evaluation mode.
        forget_class: The classes that it has forgotten, sorted.
        history: Of `forget`, one value per step of every term of the loss (weighted, nats per
            image), of "ewc" and of "distance", the root mean square difference to the surrogate in
            gray levels; these two are measured every ten steps and carried forward between.  Where
            there is an attacker, "attack_weight" is the weight of its term.  Of other methods, the
            loss.
        reason: Why it ended: "done" (close enough to the surrogate), "budget" or "stopped".
        seconds: How long it took.
        real_images: How many real images were replayed.
    """

    model: CVAE
    forget_class: tuple[int, ...]
    history: History
    reason: str
    seconds: float
    real_images: int

    @property
    def steps(self) -> int:
        """How many steps were taken (passes over the data, if the model was trained anew)."""
        curves = list(self.history.values())
        if not curves:
            return 0
        return len(curves[0])  # every curve has one value per step

    def to_state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {**vars(self), "model": self.model.to_state()}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "AmnesiaResult":
        """The inverse of `to_state`."""
        model = CVAE.from_state(state["model"])
        return cls(
            model,
            forget_class=check_classes(state["forget_class"], model.num_classes),
            history=read_history(state),
            reason=str(state["reason"]),
            seconds=float(state["seconds"]),
            real_images=int(state["real_images"]),
        )


class _Schedule:
    """The learning rate of each step, and with it the end of the run.

    The rate is constant until the class is close enough to the surrogate or the budget comes to
    its end.  Then it falls to zero in a straight line, in config.cooldown steps; a budget of fewer
    steps ends on the way.
    """

    def __init__(self, config: AmnesiaConfig, max_steps: int) -> None:
        self.config = config
        self.max_steps = max_steps
        self.fall_began: int | None = None  # step at which the rate began to fall
        self.reason = "budget"

    def rate(self, step: int, distance: float) -> float:
        """The learning rate of this step; 0 or less when the run is over.

        Args:
            step: Number of the step, from 0 on.
            distance: The distance to the surrogate, gray levels, when it was last looked at.
        """
        if self.fall_began is None:
            close_enough = distance <= self.config.tolerance
            if close_enough or step >= self.max_steps - self.config.cooldown:
                self.fall_began = step
                self.reason = "done" if close_enough else "budget"
        if self.fall_began is None:
            return self.config.lr_unl
        if self.config.cooldown == 0:
            return 0.0
        return self.config.lr_unl * (1 - (step - self.fall_began) / self.config.cooldown)


@ordinary_torch()
def forget(
    model: CVAE,
    fisher: Fisher,
    forget_class: int | Iterable[int],
    config: AmnesiaConfig | None = None,
    *,
    surrogate: str | MakeImages | None = None,
    real_images: LabelledImages | None = None,
    on_step: OnStep | None = None,
) -> AmnesiaResult:
    """Make a copy of the model forget one class or several (Selective Amnesia, Heng & Soh 2023).

    Under the forgotten label the copy learns to draw the surrogate.  What the model draws of the
    other classes, or real images of them, is replayed, and weights that matter to them are held by
    elastic weight consolidation (Kirkpatrick et al. 2017).  An `Attacker` fits labels of its own to
    the class meanwhile, in a `Shadow` of the model that is trained further, and the class becomes
    expensive under these as well.  With `AmnesiaConfig()` the attacker's weight follows a budget of
    what kept images pay; with `AmnesiaConfig.with_kept_images()` it is fixed.

    Classes that the model forgot earlier stay forgotten without being named: what it draws for
    them, the surrogate, is replayed like every other class.

    Args:
        model: The trained model; it is not changed.
        fisher: A diagonal Fisher of the same model.  `Story.fishers.without(forget_class)` leaves
            out the class itself, so that weights which only this class uses are free to move.
        forget_class: Class number or numbers, from 0 on.
        config: The weights of the terms and the number of steps.  When left out the default for
            images of this size, which replays drawn images (`AmnesiaConfig.for_values`), and with
            `real_images` that of `AmnesiaConfig.with_kept_images`.
        surrogate: What the class becomes, in place of config.surrogate: a name, or a function
            (n, generator) -> images (n, *image_shape) float in [0, 1].
        real_images: Images to replay beside those that the model draws; classes to forget are left
            out.  A pass is then longer by their number, and the replay term has the ELBO form.
        on_step: Called after every step with (step, model, terms): the step's number from 0 on,
            the model as it is, and the terms as in the result's history.  There is no progress bar
            then.  Where it returns False the run stops, and the model so far is returned.

    Returns:
        The model that has forgotten, with the curves of all terms and why the run ended.

    Raises:
        TypeError: For an argument of another kind.
        ValueError: For a class that does not exist, when no class would be kept, for a Fisher of
            another architecture (it names the first parameter that differs), and when the weights
            become NaN because the learning rate is too large.
    """
    check_model(model)
    if real_images is not None:
        check_is(real_images, LabelledImages, "real_images")
    if on_step is not None:
        check_callable(on_step, "on_step", "(step, model, terms) -> bool or None")
    gone = check_classes(forget_class, model.num_classes)
    values = math.prod(model.image_shape)
    if config is None and real_images is not None:
        replayed = int((~torch.isin(real_images.labels.cpu(), torch.tensor(gone))).sum())
        config = AmnesiaConfig.with_kept_images(images=max(replayed, 1), values=values)
    config = AmnesiaConfig.for_values(values) if config is None else config
    check_is(config, AmnesiaConfig, "config")
    began = time.perf_counter()

    # The loss: the frozen model (theta*) says what is kept, the surrogate what the class becomes.
    frozen = copy.deepcopy(model).eval().requires_grad_(False)
    kept = kept_classes(gone, model.num_classes)
    what = config.surrogate if surrogate is None else surrogate
    wanted = make_surrogate(what, frozen, kept, config.gray_value)
    objective = Objective(frozen, fisher, gone, config, wanted, real_images)
    real_count = 0 if objective.real is None else len(objective.real)

    # The model that will have forgotten.  In evaluation mode dropout rests: the seed decides all.
    new = copy.deepcopy(model).eval().requires_grad_(True)
    for c in gone:
        new.set_class_prior(c)  # erases the Gaussian of the class's z, which is memory too
    optimizer = torch.optim.Adam(new.parameters(), lr=config.lr_unl, fused=True)

    # The attacker meets a copy that is trained further with replayed images.
    shadow: Shadow | None = None
    attacked = new
    if objective.attacker is not None and config.heal_every:
        shadow = Shadow(new, config.heal_every, config.heal_rate)
        attacked = shadow.model

    # Latents that are never trained on: there the distance to the surrogate is measured.
    generator = seeded(config.seed)
    held_out_labels = objective.labels(gone, HELD_OUT, generator)
    held_out_z = objective.latents(held_out_labels, generator)
    distance = objective.distance(new, held_out_z, held_out_labels)
    ewc = 0.0  # no weight has moved yet

    max_steps = config.max_steps(real_count)
    schedule = _Schedule(config, max_steps)
    history: History = {}
    for step in progress(range(max_steps), "forget (seconds)", silent=on_step is not None):
        rate = schedule.rate(step, distance)
        if rate <= 0:
            break
        optimizer.param_groups[0]["lr"] = rate

        # Draw examples to forget and to keep, and go down the sum of the terms by Adam.
        batch = objective.draw(config.batch_size, generator, config.forget_batch)
        with torch.enable_grad():
            terms = objective.terms(new, batch, attacked=attacked)
            loss = torch.stack(list(terms.values())).sum()
            optimizer.zero_grad()
            loss.backward()
        if shadow is not None:
            shadow.hand_over(new)
        optimizer.step()

        # Consolidation draws the weights back towards theta*, in closed form.
        if config.ewc_lambda:
            objective.ewc.step(optimizer, new)

        # The attacker's turn: it makes the class cheaper again.
        if objective.attacker is not None:
            objective.attacker.step(attacked)
        if shadow is not None:
            with torch.enable_grad():
                shadow.heal(new, objective.replay_loss(shadow.model, batch, config.heal_batch))

        numbers = {name: float(term.detach()) for name, term in terms.items()}
        if objective.attacker is not None:
            numbers["attack_weight"] = objective.attacker.weight

        # Every ten steps: how far is the class from the surrogate, and the weights from theta*?
        # And what do kept images pay?  The attacker's weight follows that.
        if (step + 1) % CHECK_EVERY == 0:
            distance = objective.distance(new, held_out_z, held_out_labels)
            ewc = objective.ewc.value(new)
            if math.isnan(distance):
                break
            if objective.attacker is not None and config.kept_budget:
                allowed = config.kept_budget * (1 + NOISE * rate / config.lr_unl)
                objective.attacker.follow(objective.paid(new), allowed)
        numbers["ewc"] = ewc
        numbers["distance"] = distance
        for name, value in numbers.items():
            history.setdefault(name, []).append(value)
        if on_step is not None and is_no(on_step(step, new, numbers)):
            schedule.reason = "stopped"
            break

    if not all(weight.isfinite().all() for weight in new.parameters()):
        raise ValueError(
            f"the weights became NaN within {step + 1} steps: lr_unl={config.lr_unl:g} is too "
            "large with these weights of the terms, give a smaller one"
        )
    new.zero_grad()
    return AmnesiaResult(
        model=new,
        forget_class=gone,
        history=history,
        reason=schedule.reason,
        seconds=time.perf_counter() - began,
        real_images=real_count,
    )
