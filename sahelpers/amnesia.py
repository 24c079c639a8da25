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

from .checks import check_callable, door
from .config import AmnesiaConfig, check_classes, kept_classes
from .data import LabelledImages
from .fisher import Fisher
from .models import CVAE, seeded
from .objective import Objective
from .progress import progress
from .surrogates import MakeImages, make_surrogate
from .training import History, read_history

VERSION = 3  # of the recipe; raised with anything that changes the weights that it ends in
CHECK_EVERY = 10  # steps between two looks at the distance to the surrogate
HELD_OUT = 512  # latents that are never trained on, for that look


@dataclass(frozen=True)
class AmnesiaResult:
    """A model that has forgotten, and how it got there.

    history: of `forget`, one value per step of every term of the loss (weighted, nats per image),
    and of `distance`, the root mean square difference to the surrogate in gray levels, carried
    forward between looks; of other methods, the loss.  reason: "done", "budget" or "stopped".
    """

    model: CVAE
    forget_class: tuple[int, ...]
    history: History
    reason: str
    seconds: float
    real_images: int

    @property
    def steps(self) -> int:
        """Steps taken; passes, if the model was trained anew."""
        return len(next(iter(self.history.values()), []))

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


class _Cooldown:
    """The learning rate: constant until the class is close enough or the budget runs out, then
    down to zero in a straight line."""

    def __init__(self, config: AmnesiaConfig, limit: int) -> None:
        self.config, self.limit, self.reason = config, limit, "budget"
        self.start: int | None = None  # step at which the rate began to fall

    def rate(self, step: int, distance: float) -> float:
        """Of this step; 0 or less when the run is over.  distance: to the surrogate by now."""
        c, near = self.config, distance <= self.config.tolerance
        if self.start is None and (near or step >= self.limit - c.cooldown):
            self.start, self.reason = step, "done" if near else "budget"
        if self.start is None:
            return c.lr_unl
        return c.lr_unl * (1 - (step - self.start) / c.cooldown if c.cooldown else 0)


@door
def forget(
    model: CVAE,
    fisher: Fisher,
    forget_class: int | Iterable[int],
    config: AmnesiaConfig | None = None,
    *,
    surrogate: str | MakeImages | None = None,
    real_images: LabelledImages | None = None,
    on_step: Callable[[int, CVAE, dict[str, float]], bool | None] | None = None,
) -> AmnesiaResult:
    """Forget one class or several; the input model is untouched.

    The label learns to draw the surrogate, what the frozen model draws of the others is replayed,
    and an `Attacker` fits labels of its own to the class, under which it becomes expensive.

    fisher: of the same model; `Story.fishers.without(forget_class)` leaves the class itself free.
    surrogate: in place of config.surrogate; a name, or a function (n, generator) -> images
    (n, *image_shape).
    real_images: kept images to replay beside the frozen model's samples (classes to forget are
    filtered out); a pass is then longer by their number, and the replay term has the ELBO form.
    on_step: called after every step with (step, model, terms), in place of a progress bar;
    returning False stops the run, and the model so far is returned.

    Classes forgotten earlier stay forgotten without being named: what the frozen model draws for
    them, the surrogate, is replayed like every other class.
    Raises ValueError for a class that does not exist, when no class would be kept, and for a
    Fisher of another architecture, naming the first parameter that differs.
    """
    config = AmnesiaConfig() if config is None else config
    if on_step is not None:
        check_callable(on_step, "on_step", "(step, model, terms) -> bool or None")
    gone = check_classes(forget_class, model.num_classes)
    begin = time.perf_counter()
    frozen = copy.deepcopy(model).eval().requires_grad_(False)
    kept = kept_classes(gone, model.num_classes)
    q = make_surrogate(surrogate or config.surrogate, frozen, kept, config.gray_value)
    objective = Objective(frozen, fisher, gone, config, q, real_images)
    new = copy.deepcopy(model).eval().requires_grad_(True)  # seeds say all: dropout rests
    for c in gone:
        new.set_class_prior(c)  # the Gaussian of c_f is memory too
    generator = seeded(config.seed)
    labels = objective.labels(gone, HELD_OUT, generator)
    z = objective.latents(labels, generator)
    optimizer = torch.optim.Adam(new.parameters(), lr=config.lr_unl, fused=True)
    history: History = {}
    used = 0 if objective.real is None else len(objective.real)
    limit = config.max_steps(used)
    distance, ewc = objective.distance(new, z, labels), 0.0
    cooldown = _Cooldown(config, limit)
    for step in progress(range(limit), "forget (seconds)", silent=on_step is not None):
        rate = cooldown.rate(step, distance)
        if rate <= 0:
            break
        optimizer.param_groups[0]["lr"] = rate
        with torch.enable_grad():
            terms = objective.terms(new, objective.draw(config.batch_size, generator))
            optimizer.zero_grad()
            torch.stack(list(terms.values())).sum().backward()
        optimizer.step()
        if config.ewc_lambda:
            objective.ewc.step(optimizer, new)
        if objective.attacker is not None:
            objective.attacker.step(new)
        if step % CHECK_EVERY == CHECK_EVERY - 1:
            distance, ewc = objective.distance(new, z, labels), objective.ewc.value(new)
            if math.isnan(distance):
                break
        numbers = {k: float(v.detach()) for k, v in terms.items()} | {"ewc": ewc}
        numbers["distance"] = distance
        for name, value in numbers.items():
            history.setdefault(name, []).append(value)
        if on_step is not None and on_step(step, new, numbers) is False:
            cooldown.reason = "stopped"
            break
    if not all(p.isfinite().all() for p in new.parameters()):
        raise ValueError(
            f"the weights became NaN within {step + 1} steps: lr_unl={config.lr_unl:g} is too "
            "large with these weights of the terms, give a smaller one"
        )
    new.zero_grad()
    seconds = time.perf_counter() - begin
    return AmnesiaResult(new, gone, history, cooldown.reason, seconds, used)
