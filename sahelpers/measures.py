"""What is measured of a model that has forgotten a class, for the scoreboard."""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch

from .competitors import Task
from .config import Config, ProbeConfig, knob
from .data import LabelledImages
from .elbo import log_likelihood, negative_elbo
from .evaluation import (
    Latents,
    Verdict,
    collateral,
    draw_images,
    fixed_latents,
    frechet_distance,
    judge_samples,
)
from .judges import Judge
from .models import CVAE, seeded
from .probing import guided_attack, success
from .recovery import relearn
from .story import SCORING

PRIORS = ("class", "standard")  # the baseline's Gaussians of the classes, and N(0, I)
_ABOUT_CLASS = ("p", "argmax", "argmax_stretched")
_WHATS = (*_ABOUT_CLASS, "kept_change", "worst_drop")
JUDGED = [f"{w}_{role}_{prior}" for role in SCORING for prior in PRIORS for w in _WHATS]
BOUNDS = ["iwae_kept_change", "iwae_forgotten_change"]
ATTACKS = ["attack", "relearn"]


@dataclass(frozen=True)
class Effort(Config):
    """How much is drawn and tried in every cell."""

    samples: int = knob(2000, 1, 1_000_000, help="samples per class for the judges")
    frechet_samples: int = knob(1000, 2, 100_000, help="samples per kept class")
    iwae_images: int = knob(100, 1, 1000, help="real images of c_f, and as many kept ones")
    iwae_draws: int = knob(500, 1, 100_000, help="draws of z per image")
    restarts: int = knob(128, 1, 100_000, help="starts of the guided attack over z and y")
    attack_steps: int = knob(100, 1, 100_000, help="steps of the guided attack")
    relearn_images: int = knob(10, 1, 1000, help="real images handed to the model")
    relearn_steps: int = knob(60, 1, 100_000, help="steps of relearning")
    relearn_runs: int = knob(3, 1, 1000, help="runs of it, from different images")


@dataclass(frozen=True, eq=False)
class Ground:
    """What the cells of a seed share: data, judges, the baseline and what is said of it.

    It is compared by identity, so that what a class's baseline yields can be kept beside it.
    """

    test: LabelledImages
    judges: dict[str, Judge]
    task: Task  # with no class chosen yet
    effort: Effort
    latents: dict[str, Latents]
    before: dict[tuple[str, str], Verdict]  # (judge, prior)
    elbo: torch.Tensor  # (N,) negative, of the test images


def survey(test: LabelledImages, judges: dict[str, Judge], task: Task, effort: Effort) -> Ground:
    """Measure the baseline, `task.model`."""
    model = task.model
    latents = {prior: fixed_latents(model, effort.samples, prior) for prior in PRIORS}
    before = {
        (role, prior): judge_samples(model, judge, latents[prior])
        for role, judge in judges.items()
        for prior in PRIORS
    }
    elbo = negative_elbo(model, test.images, test.labels, seeded(0))
    return Ground(test, judges, task, effort, latents, before, elbo)


def judged(ground: Ground, model: CVAE, label: int, knows_label: bool) -> dict[str, float]:
    """What every scoring judge says of the samples, from both priors: the columns JUDGED.

    z of kept classes comes from the model's own Gaussians, which are the baseline's unless it was
    trained anew; z of the class from the baseline's.
    knows_label: False for a model that was never trained with the class; what it draws there is
    arbitrary, and nothing is reported of it.
    """
    row: dict[str, float] = {}
    for prior, before in ground.latents.items():
        own = before.labels == label
        asked = before.where(own)
        drawn = fixed_latents(model, ground.effort.samples, prior)
        latents = Latents(torch.where(own[:, None], before.z, drawn.z), before.labels)
        for role, judge in ground.judges.items():
            after = judge_samples(model, judge, latents)
            stretched = judge_samples(model, judge, asked, stretch=True)
            kept = collateral(ground.before[role, prior], after, (label,))
            values = {
                "p": float(after.probability[label, label]),
                "argmax": float(after.argmax[label, label]),
                "argmax_stretched": float(stretched.argmax[label, label]),
                "kept_change": kept.mean_after - kept.mean_before,
                "worst_drop": kept.worst_drop,
            }
            if not knows_label:
                values |= dict.fromkeys(_ABOUT_CLASS, math.nan)
            row |= {f"{k}_{role}_{prior}": v for k, v in values.items()}
    return row


def compared(ground: Ground, model: CVAE, label: int) -> dict[str, float]:
    """Frechet distance of kept classes to real images; change of the negative ELBO of real ones."""
    change = negative_elbo(model, ground.test.images, ground.test.labels, seeded(0)) - ground.elbo
    own = ground.test.labels == label
    return {
        "frechet_before": _frechet_before(ground, label),
        "frechet_after": _frechet(ground, model, label),
        "elbo_kept_change": float(change[~own].mean()),
        "elbo_forgotten_change": float(change[own].mean()),
    }


def _frechet(ground: Ground, model: CVAE, label: int) -> float:
    fixed = fixed_latents(model, ground.effort.frechet_samples)
    images = draw_images(model, fixed.where(fixed.labels != label))
    return frechet_distance(ground.judges["plain"], images, ground.test.without(label).images)


@lru_cache(maxsize=10)
def _frechet_before(ground: Ground, label: int) -> float:
    return _frechet(ground, ground.task.model, label)


def bounded(ground: Ground, model: CVAE, label: int) -> dict[str, float]:
    """How much lower the importance-weighted bound on log p of real images is, in nats: BOUNDS."""
    before, after = _bounds_before(ground, label), _bounds(ground, model, label)
    return {name: b - a for name, b, a in zip(BOUNDS, before, after, strict=True)}


def _bounds(ground: Ground, model: CVAE, label: int) -> list[float]:
    """Of kept images and of images of the class, binarised."""
    found = []
    for real in (ground.test.without(label), ground.test.only(label)):
        some = real.take(min(ground.effort.iwae_images, len(real)))
        bits, k = (some.images > 0.5).float(), ground.effort.iwae_draws
        bound = log_likelihood(model, bits, some.labels, seeded(1), k, (ground.task.model,))
        found.append(float(bound.mean()))
    return found


@lru_cache(maxsize=10)
def _bounds_before(ground: Ground, label: int) -> list[float]:
    return _bounds(ground, ground.task.model, label)


def forget_baselines() -> None:
    """Drop what is kept of the baselines of earlier cells."""
    _frechet_before.cache_clear()
    _bounds_before.cache_clear()


def attacked(ground: Ground, model: CVAE, label: int, guide: Judge) -> dict[str, float]:
    """Share of guided restarts that find the class, and how soon a few real images bring it back:
    what the audit calls "guided both" and "relearn 10"."""
    effort, judges = ground.effort, ground.judges
    probe = ProbeConfig(n_restarts=effort.restarts, steps=effort.attack_steps)
    hits = success(guided_attack(model, guide, label, probe).images, judges, label)
    few, areas = ground.test.only(label), []
    for seed in range(probe.seed, probe.seed + effort.relearn_runs):
        shown = few.take(min(effort.relearn_images, len(few)), seed=seed)
        curve = relearn(model, shown, label, judges, steps=effort.relearn_steps, seed=seed)
        areas.append(curve.area)
    return {"attack": float(hits.float().mean()), "relearn": sum(areas) / len(areas)}
