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

from .checks import check_callable, check_is, check_number
from .config import AmnesiaConfig, check_classes
from .data import LabelledImages
from .fisher import Fisher
from .models import CVAE, check_model, seeded
from .objective import Objective
from .progress import progress
from .surrogates import MakeImages, make_surrogate

CHECK_EVERY = 10  # steps between two looks at the distance to the surrogate
HELD_OUT = 512  # latents that are never trained on, for that look

History = dict[str, list[float]]


@dataclass(frozen=True)
class AmnesiaResult:
    """A model that has forgotten, and how it got there.

    history: of `forget`, one value per step of every term of the loss (weighted, nats per image),
    and of `distance`, the root mean square difference to the surrogate in gray levels, carried
    forward between looks; of other methods, the loss.  reason: "done", "budget" or "stopped".
    """

    model: CVAE
    forgotten: tuple[int, ...]
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
        return cls(**{**state, "model": CVAE.from_state(state["model"])})


def forget(
    model: CVAE,
    fisher: Fisher,
    forget_class: int | Iterable[int],
    config: AmnesiaConfig | None = None,
    *,
    surrogate: str | MakeImages | None = None,
    real_images: LabelledImages | None = None,
    max_seconds: float = math.inf,
    on_step: Callable[[int, CVAE, dict[str, float]], bool | None] | None = None,
) -> AmnesiaResult:
    """Forget one class or several; the input model is untouched.

    fisher: of the same model; by default estimated without forget_class.
    surrogate: in place of config.surrogate; a name, or a function (n, generator) -> images
    (n, 1, 28, 28).
    real_images: kept images to replay beside the frozen model's samples (classes to forget are
    filtered out); a pass is then longer by their number, and the replay term has the ELBO form.
    max_seconds: limit of time beside the configuration's limit of steps.  The rate begins to fall
    in time for it, faster if it must, so where the limit is reached the result depends on the
    machine's speed.
    on_step: called after every step with (step, model, terms); returning False stops the run, and
    the model so far is returned.

    Classes forgotten earlier stay forgotten without being named: what the frozen model draws for
    them, the surrogate, is replayed like every other class.
    Raises ValueError for a class that does not exist, when no class would be kept, and for a
    Fisher of another architecture, naming the first parameter that differs.
    """
    config = config or AmnesiaConfig()
    check_model(model)
    check_is(config, AmnesiaConfig, "config")
    if on_step is not None:
        check_callable(on_step, "on_step", "(step, model, terms) -> bool or None")
    forgotten = check_classes(forget_class, model.num_classes)
    check_number(max_seconds, "max_seconds", 1e-6, math.inf)
    begin = time.perf_counter()
    end = begin + max_seconds
    frozen = copy.deepcopy(model).eval().requires_grad_(False)
    kept = tuple(c for c in range(model.num_classes) if c not in forgotten)
    q = make_surrogate(surrogate or config.surrogate, frozen, kept, config.gray_value)
    objective = Objective(frozen, fisher, forgotten, config, q, real_images)
    new = copy.deepcopy(model).train().requires_grad_(True)
    for label in forgotten:
        new.set_class_prior(label)  # the Gaussian of c_f is memory too
    generator = seeded(config.seed)
    labels = objective.labels(forgotten, HELD_OUT, generator)
    z = objective.latents(labels, generator)
    optimizer = torch.optim.Adam(new.parameters(), lr=config.lr_unl, fused=True)
    history: History = {}
    used = 0 if objective.real is None else len(objective.real)
    limit = config.epochs_unl * -(-(config.replay_samples + used) // config.batch_size)
    cooling_from: int | None = None  # step at which the rate began to fall
    cooldown: float = config.cooldown  # steps in which it does
    reason = "budget"
    distance, ewc = objective.distance(new, z, labels), 0.0
    loop_begin = time.perf_counter()
    for step in progress(range(limit), "forget (seconds)", total=limit):
        now = time.perf_counter()
        pace = max((now - loop_begin) / max(step, 1), 1e-9)  # seconds per step
        left = (end - now) / pace
        late = step >= limit - config.cooldown or left <= config.cooldown
        if cooling_from is None and (distance <= config.tolerance or late):
            cooling_from, cooldown = step, min(config.cooldown, left)
            reason = "done" if distance <= config.tolerance else "budget"
        rate = config.lr_unl
        if cooling_from is not None:
            rate *= 1 - (step - cooling_from) / cooldown if cooldown > 0 else 0
        if rate <= 0:
            break
        optimizer.param_groups[0]["lr"] = rate
        terms = objective.terms(new, objective.draw(config.batch_size, generator))
        optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        optimizer.step()
        if config.ewc_lambda:
            consolidate(optimizer, new, objective)
        if step % CHECK_EVERY == CHECK_EVERY - 1:
            distance, ewc = objective.distance(new, z, labels), objective.consolidation(new)
            if math.isnan(distance):
                break
        numbers = {k: float(v.detach()) for k, v in terms.items()} | {"ewc": ewc}
        numbers["distance"] = distance
        for name, value in numbers.items():
            history.setdefault(name, []).append(value)
        if on_step is not None and on_step(step, new, numbers) is False:
            reason = "stopped"
            break
    if not all(p.isfinite().all() for p in new.parameters()):
        raise ValueError(
            f"the weights became NaN within {step + 1} steps: lr_unl={config.lr_unl:g} is too "
            "large with these weights of the terms, give a smaller one"
        )
    new.eval().zero_grad()
    seconds = time.perf_counter() - begin
    return AmnesiaResult(new, forgotten, history, reason, seconds, used)


@torch.no_grad()
def consolidate(optimizer: torch.optim.Adam, model: CVAE, objective: Objective) -> None:
    """The EWC term's part of an Adam step, in closed form (a proximal step).

    Adam moved theta by the other terms; this returns the minimiser of
    P/(2 lr) (x - theta)^2 + s F/2 (x - theta*)^2 with Adam's own preconditioner P.  It is stable at
    any EWC_LAMBDA and has the same stationary points as adding the term to the loss.  (As a
    gradient, a huge term would make Adam shake each weight by the learning rate instead.)
    """
    group = optimizer.param_groups[0]
    beta, eps, lr = group["betas"][1], group["eps"], group["lr"]
    for name, p in model.named_parameters():
        state = optimizer.state.get(p)
        if not state:
            continue  # no gradient reached it (the encoder in the decoder form): it has not moved
        root = math.sqrt(1 - beta ** float(state["step"]))
        stiffness = state["exp_avg_sq"].sqrt().mul_(1 / (root * lr)).add_(eps / lr)  # P / lr
        pull, anchor = objective.pull[name], objective.anchor[name]
        p.mul_(stiffness).add_(anchor).div_(stiffness.add_(pull))
