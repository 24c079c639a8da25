"""Selective Amnesia: forget a class of a trained conditional VAE (Heng & Soh 2023).

Per image, in nats, with theta* the weights before, c_f forgotten, c_r kept and q the surrogate:

    L(theta) = NEG_LOSS_WEIGHT * forget + GAMMA * replay
             + EWC_LAMBDA / (2 * 10_000) * sum_i F_i (theta_i - theta*_i)^2
             + W_CONTRAST * contrast + W_INK * ink + W_TV * TV + W_ORIENT * orientation
"""

import copy
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .config import AmnesiaConfig, check_classes
from .data import LabelledImages
from .elbo import bernoulli_nats, elbo_terms
from .fisher import Fisher, check_same_parameters
from .models import CVAE, draw_normal, seeded
from .penalties import contrast, ink, orientation_entropy, total_variation
from .progress import progress
from .surrogates import MakeImages, Surrogate, make_surrogate

EWC_SCALE = 10_000  # a constant, so that neither batch size nor replay size changes EWC's strength
CHECK_EVERY = 10  # steps between two looks at the distance to the surrogate
HELD_OUT = 512  # latents that are never trained on, for that look

History = dict[str, list[float]]


@dataclass(frozen=True)
class AmnesiaResult:
    """A model that has forgotten, and how it got there.

    history: one value per step of every term of the loss (weighted, nats per image), and of
    `distance`, the root mean square difference to the surrogate in gray levels, carried forward
    between looks.  reason: "done", "budget" or "stopped".
    """

    model: CVAE
    forgotten: tuple[int, ...]
    history: History
    reason: str
    seconds: float
    real_images: int

    @property
    def steps(self) -> int:
        """Steps taken."""
        return len(self.history["distance"])

    def to_state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {**vars(self), "model": self.model.to_state()}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "AmnesiaResult":
        """The inverse of `to_state`."""
        return cls(**{**state, "model": CVAE.from_state(state["model"])})


@dataclass(frozen=True)
class Batch:
    """What one step sees: B forgotten and B kept examples, with their noise for the ELBO form."""

    forget_z: Tensor  # (B, Z)
    forget_labels: Tensor  # (B,)
    forget_images: Tensor  # (B, 1, 28, 28) drawn from the surrogate
    forget_noise: Tensor  # (B, Z)
    keep_z: Tensor
    keep_labels: Tensor
    keep_images: Tensor  # drawn by the frozen model at keep_z, or real
    keep_noise: Tensor


class Objective:
    """The loss of one forgetting run: draws batches and evaluates every weighted term.

    frozen: the model before, theta*.  real: kept images to replay instead of the frozen model's.
    """

    def __init__(
        self,
        frozen: CVAE,
        fisher: Fisher,
        forgotten: tuple[int, ...],
        config: AmnesiaConfig,
        surrogate: Surrogate,
        real: LabelledImages | None = None,
    ) -> None:
        self.frozen, self.forgotten, self.config, self.surrogate = (
            frozen,
            forgotten,
            config,
            surrogate,
        )
        self.kept = tuple(c for c in range(frozen.num_classes) if c not in forgotten)
        self.star = {k: p.detach().clone() for k, p in frozen.named_parameters()}
        check_same_parameters(self.star, fisher.diagonal, "the Fisher")
        self.fisher = {k: f.to(frozen.device).clamp(min=0) for k, f in fisher.diagonal.items()}
        self.real = None if real is None else real.without(forgotten).to(frozen.device)
        if self.real is not None and not len(self.real):
            raise ValueError(f"real_images has no image of the kept classes {self.kept}")

    @torch.no_grad()
    def draw(self, n: int, generator: torch.Generator) -> Batch:
        """n forgotten and n kept examples."""
        forget_labels = self._labels(self.forgotten, n, generator)
        forget_z = self.latents(forget_labels, generator, self.config.z_reach)
        images = self.surrogate.draw(forget_z, generator)
        keep_labels = self._labels(self.kept, n, generator)
        keep_z = self.latents(keep_labels, generator)
        if self.real is None:
            keep_images = self.frozen.decode(keep_z, keep_labels)
        else:
            index = torch.randint(len(self.real), (n,), generator=generator)
            keep_images, keep_labels = self.real.images[index], self.real.labels[index]
        shape = (n, self.frozen.latent_dim)
        noise = [draw_normal(shape, self.frozen, generator) for _ in range(2)]
        return Batch(
            forget_z, forget_labels, images, noise[0], keep_z, keep_labels, keep_images, noise[1]
        )

    def latents(self, labels: Tensor, generator: torch.Generator, reach: float = 1.0) -> Tensor:
        """z for these labels (B,): one half from the class's Gaussian, the other from N(0, s^2 I).

        s is uniform from 1 to reach.  Far out no sampler goes, but an attack does, and so does the
        posterior of a real image that the model has forgotten.
        """
        half = len(labels) // 2
        z = self.frozen.draw_latents(labels, generator)
        scale = 1 + (reach - 1) * torch.rand((half, 1), generator=generator).to(z)
        z[:half] = scale * self.frozen.draw_latents(labels[:half], generator, prior="standard")
        return z

    def terms(self, model: CVAE, batch: Batch) -> dict[str, Tensor]:
        """Every term with a weight above zero, weighted, as a scalar in nats per image.

        EWC is not among them: `consolidation` gives its value, `forget` applies it in closed form.
        """
        c = self.config
        out = {
            "forget": c.neg_loss_weight * self._forget(model, batch),
            "replay": c.gamma * self._replay(model, batch),
        }
        if c.w_contrast or c.w_ink or c.w_tv or c.w_orient:
            images = model.decode(batch.forget_z, batch.forget_labels)
            target = self.surrogate.mean(batch.forget_z)
            if c.w_contrast:
                out["contrast"] = c.w_contrast * contrast(images, target).mean()
            if c.w_ink:
                out["ink"] = c.w_ink * ink(images, target.flatten(1).mean(1)).mean()
            if c.w_tv:
                out["tv"] = c.w_tv * total_variation(images).mean()
            if c.w_orient:
                out["orient"] = c.w_orient * orientation_entropy(images).mean()
        return out

    def _forget(self, model: CVAE, b: Batch) -> Tensor:
        return _both_sides(
            model,
            self.config.forget_form,
            b.forget_z,
            b.forget_labels,
            b.forget_images,
            b.forget_noise,
        )

    def _replay(self, model: CVAE, b: Batch) -> Tensor:
        form = self.config.replay_form if self.real is None else "elbo"
        return _both_sides(model, form, b.keep_z, b.keep_labels, b.keep_images, b.keep_noise)

    @torch.no_grad()
    def consolidation(self, model: CVAE) -> float:
        """EWC's value at the model's weights, weighted, in nats per image."""
        total = sum(
            float((self.fisher[k] * (p - self.star[k]).square()).sum())
            for k, p in model.named_parameters()
        )
        return self.config.ewc_lambda / (2 * EWC_SCALE) * total

    @torch.no_grad()
    def distance(self, model: CVAE, z: Tensor, labels: Tensor) -> float:
        """Root mean square difference of c_f's images to the surrogate's at these latents."""
        return float((model.decode(z, labels) - self.surrogate.mean(z)).square().mean().sqrt())

    @staticmethod
    def _labels(classes: tuple[int, ...], n: int, generator: torch.Generator) -> Tensor:
        return torch.tensor(classes)[torch.randint(len(classes), (n,), generator=generator)]


def _both_sides(
    model: CVAE, form: str, z: Tensor, labels: Tensor, images: Tensor, noise: Tensor
) -> Tensor:
    """Loss of the images under a form: decoder at z, negative ELBO, or the mean of the two."""
    losses = []
    if form in ("decoder", "both"):
        losses.append(bernoulli_nats(model.decode_logits(z, labels), images))
    if form in ("elbo", "both"):
        losses.append(torch.stack(elbo_terms(model, images, labels, noise)).sum(0))
    return torch.stack(losses).mean()


def forget(
    model: CVAE,
    fisher: Fisher,
    forget_class: int | Iterable[int],
    config: AmnesiaConfig | None = None,
    *,
    surrogate: MakeImages | None = None,
    real_images: LabelledImages | None = None,
    on_step: Callable[[int, CVAE, dict[str, float]], bool | None] | None = None,
) -> AmnesiaResult:
    """Forget one class or several; the input model is untouched.

    fisher: of the same model; by default estimated without forget_class.
    surrogate: a function (n, generator) -> images (n, 1, 28, 28) in place of config.surrogate.
    real_images: kept images to replay in place of the frozen model's samples (classes to forget
    are filtered out); the replay term then has the ELBO form.
    on_step: called after every step with (step, model, terms); returning False stops the run, and
    the model so far is returned.

    Classes forgotten earlier stay forgotten without being named: what the frozen model draws for
    them, the surrogate, is replayed like every other class.
    Raises ValueError for a class that does not exist, when no class would be kept, and for a
    Fisher of another architecture, naming the first parameter that differs.
    """
    config = config or AmnesiaConfig()
    forgotten = check_classes(forget_class, model.num_classes)
    begin = time.perf_counter()
    frozen = copy.deepcopy(model).eval().requires_grad_(False)
    kept = tuple(c for c in range(model.num_classes) if c not in forgotten)
    q = make_surrogate(surrogate or config.surrogate, frozen, kept, config.gray_value)
    objective = Objective(frozen, fisher, forgotten, config, q, real_images)
    new = copy.deepcopy(model).train().requires_grad_(True)
    for label in forgotten:
        new.set_class_prior(label)  # the Gaussian of c_f is memory too
    generator = seeded(config.seed)
    labels = Objective._labels(forgotten, HELD_OUT, generator)
    z = objective.latents(labels, generator)
    optimizer = torch.optim.Adam(new.parameters(), lr=config.lr_unl, fused=True)
    history: History = {}
    limit = config.epochs_unl * -(-config.replay_samples // config.batch_size)
    cooling_from: int | None = None  # step at which the rate began to fall
    reason = "budget"
    distance, ewc = objective.distance(new, z, labels), 0.0
    for step in progress(range(limit), "forget (seconds)", total=limit):
        if cooling_from is None and (
            distance <= config.tolerance or step >= limit - config.cooldown
        ):
            cooling_from = step
            reason = "done" if distance <= config.tolerance else "budget"
        rate = config.lr_unl
        if cooling_from is not None and config.cooldown:
            rate *= 1 - (step - cooling_from) / config.cooldown
        if rate <= 0 or (cooling_from is not None and not config.cooldown):
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
        numbers = {k: float(v.detach()) for k, v in terms.items()} | {"ewc": ewc}
        numbers["distance"] = distance
        for name, value in numbers.items():
            history.setdefault(name, []).append(value)
        if on_step is not None and on_step(step, new, numbers) is False:
            reason = "stopped"
            break
    new.eval().zero_grad()
    used = 0 if objective.real is None else len(objective.real)
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
    scale = objective.config.ewc_lambda / EWC_SCALE
    for name, p in model.named_parameters():
        state = optimizer.state.get(p)
        if not state:
            continue  # no gradient reached it (the encoder in the decoder form): it has not moved
        second = state["exp_avg_sq"] / (1 - group["betas"][1] ** float(state["step"]))
        stiffness = (second.sqrt() + group["eps"]) / group["lr"]
        pull = scale * objective.fisher[name]
        p.copy_((stiffness * p + pull * objective.star[name]) / (stiffness + pull))
