"""What is measured of a model that has forgotten a class, and every attack on it."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..checks import door
from ..config import Config, ProbeConfig, knob
from ..data import LabelledImages
from ..elbo import log_likelihood, measure_elbo
from ..judges import (
    SCORING,
    Judge,
    Latents,
    Verdict,
    collateral,
    draw_images,
    fixed_latents,
    frechet_distance,
    judge_samples,
)
from ..models import CVAE, PRIORS, draw_normal, seeded
from ..probing import (
    SEARCHES,
    guided_attack,
    image_cost,
    invert_blind,
    invert_prototypes,
    reachable,
    success,
)
from ..recovery import fit_label, relearn
from ..story import Story
from .statistics import FOOLED, KEPT, Values

T = TypeVar("T")
WHATS = ("p", "argmax", "kept_change", "worst_drop")  # the first two of the class
JUDGED = [f"{what}_{role}_{prior}" for role in SCORING for prior in PRIORS for what in WHATS]
REAL = ["frechet_before", "frechet_after", "elbo_kept_change", "elbo_forgotten_change"]
BOUNDS = ["iwae_kept_change", "iwae_forgotten_change"]
ATTACKS = ["attack", "relearn"]
CLAIM_SIZES = (10, 100)  # real images that a label is fitted to
RELEARN_SIZES = (1, 10, 100)  # real images that the audit hands to the model


@dataclass(frozen=True)
class Effort(Config):
    """How much is drawn and tried for every model, in the scoreboard and in the audit."""

    samples: int = knob(2000, 1, 1_000_000, help="samples per class for the judges")
    frechet_samples: int = knob(1000, 2, 100_000, help="samples per kept class")
    iwae_images: int = knob(100, 1, 1000, help="real images of c_f, and as many kept ones")
    iwae_draws: int = knob(500, 1, 100_000, help="draws of z per image")
    restarts: int = knob(128, 1, 100_000, help="starts of every search")
    attack_steps: int = knob(100, 1, 100_000, help="steps of the guided attacks")
    inversion_steps: int = knob(300, 1, 100_000, help="steps of the two inversions")
    relearn_images: int = knob(10, 1, 1000, help="real images relearned in the scoreboard")
    relearn_steps: int = knob(60, 1, 100_000, help="steps of relearning")
    relearn_runs: int = knob(3, 1, 1000, help="runs of it in the scoreboard, from other images")
    repeats: int = knob(5, 2, 1000, help="runs of it in the audit, per number of images")
    seed: int = knob(42, 0, 2**31 - 1, help="starts, images")

    def search(self, steps: int) -> ProbeConfig:
        """The configuration of a search of so many steps."""
        return ProbeConfig(n_restarts=self.restarts, steps=steps, seed=self.seed)


@dataclass(frozen=True)
class Claim(Config):
    """How much the named attacks draw and try for every model (docs/protocol.md)."""

    images: int = knob(400, 2, 1000, help="test images of c_f whose cost is asked")
    kept_images: int = knob(100, 2, 1000, help="the same of kept digits, which stand beside it")
    steps: int = knob(100, 1, 100_000, help="steps of the search for their z")
    neighbours: int = knob(20, 1, 1000, help="samples around each z for the judges")
    relearn_steps: int = knob(60, 1, 100_000, help="steps of fitting a label")
    draws: int = knob(5, 1, 1000, help="fits of it for each number of images, each to other ones")
    seed: int = knob(42, 0, 2**31 - 1, help="the choice of images; in the study, each model's own")


@dataclass(eq=False)
class Comparison:
    """What a seed's models are compared with: its story, and what is said of the baseline."""

    story: Story
    effort: Effort
    _known: dict[Any, Any] = field(default_factory=dict)

    @cached_property
    def drawn(self) -> dict[str, tuple[Latents, dict[str, Verdict]]]:
        """From each prior: latents, and what every scoring judge says of the baseline there."""
        model, found = self.story.baseline.model, {}
        for prior in PRIORS:
            z = fixed_latents(model, self.effort.samples, prior)
            found[prior] = z, {r: judge_samples(model, j, z) for r, j in self.story.judges.items()}
        return found

    @cached_property
    def elbo(self) -> Tensor:
        """Negative, of every test image (N,), nats."""
        return measure_elbo(self.story.baseline.model, self.story.test)

    def samples(self, model: CVAE, label: int, knows_label: bool) -> dict[str, float]:
        """What every scoring judge says of the samples, from both priors: the columns JUDGED.

        z of kept classes comes from the model's own Gaussians, z of the class from the baseline's.
        knows_label: False for a model that was never trained with the class: what it draws there
        is arbitrary, and nan is reported.
        """
        row: dict[str, float] = {}
        for prior, (before, verdicts) in self.drawn.items():
            own, z = before.labels == label, fixed_latents(model, self.effort.samples, prior).z
            latents = Latents(torch.where(own[:, None], before.z, z), before.labels)
            for role, judge in self.story.judges.items():
                after = judge_samples(model, judge, latents)
                kept = collateral(verdicts[role], after, label)
                tables = after.probability, after.argmax
                asked = [float(t[label, label]) if knows_label else math.nan for t in tables]
                values = *asked, kept.mean_after - kept.mean_before, kept.worst_drop
                row |= zip((f"{w}_{role}_{prior}" for w in WHATS), values, strict=True)
        return row

    def real(self, model: CVAE, label: int) -> dict[str, float]:
        """Frechet distance of kept classes to real images; change of the negative ELBO of real
        ones: the columns REAL."""
        own = self.story.test.labels == label
        change = measure_elbo(model, self.story.test) - self.elbo
        changes = float(change[~own].mean()), float(change[own].mean())
        return dict(zip(REAL, (*self._both(self._frechet, model, label), *changes), strict=True))

    def bounds(self, model: CVAE, label: int) -> dict[str, float]:
        """How much lower the importance-weighted bound on log p of real images is, nats: BOUNDS."""
        before, after = self._both(self._bounds, model, label)
        return {name: b - a for name, b, a in zip(BOUNDS, before, after, strict=True)}

    def attacks(self, model: CVAE, label: int) -> dict[str, float]:
        """Share of guided restarts that find the class, and how soon a few real images bring it
        back: what the audit calls "guided both" and "relearn 10"; the columns ATTACKS."""
        story, effort = self.story, self.effort
        probe = guided_attack(model, label, effort.search(effort.attack_steps), guide=story.guide)
        hits, real = success(probe.images, story.judges, label), (story.test, effort.relearn_images)
        given: Any = {"judges": story.judges, "steps": effort.relearn_steps}
        seeds = range(effort.seed, effort.seed + effort.relearn_runs)
        found = areas(model, label, *real, seeds, **given)
        return {"attack": float(hits.float().mean()), "relearn": sum(found) / len(found)}

    def _both(self, measure: Callable[[CVAE, int], T], model: CVAE, label: int) -> tuple[T, T]:
        """What `measure` says of the baseline, computed once per class, and of the model."""
        if (measure, label) not in self._known:
            self._known[measure, label] = measure(self.story.baseline.model, label)
        return self._known[measure, label], measure(model, label)

    def _frechet(self, model: CVAE, label: int) -> float:
        fixed, real = fixed_latents(model, self.effort.frechet_samples), self.story.test
        images = draw_images(model, fixed.where(fixed.labels != label))
        return frechet_distance(self.story.judges["plain"], images, real.without(label).images)

    def _bounds(self, model: CVAE, label: int) -> list[float]:
        """Of kept images and of images of the class, binarised."""
        test, k, found = self.story.test, self.effort.iwae_draws, []
        for real in (test.without(label), test.only(label)):
            some = real.take(min(self.effort.iwae_images, len(real)))
            bits, others = (some.images > 0.5).float(), (self.story.baseline.model,)
            bound = log_likelihood(model, bits, some.labels, k, others, seeded(1))
            found.append(float(bound.mean()))
        return found


def areas(
    model: CVAE, label: int, real: LabelledImages, size: int, seeds: Iterable[int], **given: Any
) -> list[float]:
    """Area under P(c_f) of relearning runs, from `size` images of the class, other ones for each
    seed.  given: what else `relearn` takes."""
    few = real.only(label)
    drawn = ((seed, few.take(min(size, len(few)), seed)) for seed in seeds)
    return [relearn(model, label, data=data, seed=seed, **given).area for seed, data in drawn]


@door
def named_attacks(
    model: CVAE,
    forget_class: int,
    claim: Claim,
    *,
    baseline: CVAE,
    judges: Mapping[str, Judge],
    real: LabelledImages,
) -> Values:
    """The attacks that the claim names, and what stands beside them.

    Fitting the label alone to 10 and to 100 real images: area under P(c_f) of each fit.  The cost
    of real images under the nine other labels, and under a label fitted to 10 of them, in nats
    above what the baseline pays for the same images under their own label; and with no verdict,
    that of kept images under their own and under other labels, and the share of samples close to
    the class's fits that all scoring judges call the class.
    """
    seeds, few = seeded(claim.seed), real.only(forget_class)
    values: Values = {}
    given: Any = {"judges": judges, "steps": claim.relearn_steps, "over": "label"}
    for size in CLAIM_SIZES if model.says_label else ():
        runs = torch.randint(2**31, (claim.draws,), generator=seeds).tolist()
        values[f"label only, {size} images"] = areas(model, forget_class, few, size, runs, **given)
    every = torch.arange(model.num_classes, device=model.device)
    others = every[every != forget_class]
    gone = few.take(min(claim.images, len(few)), claim.seed)
    own, _ = image_cost(baseline, gone.images, gone.labels[:, None], claim.steps)
    cost, z = image_cost(model, gone.images, others, claim.steps)
    lowest, k = (cost - own).min(1)
    values["cost under other labels"] = lowest.tolist()
    size = min(CLAIM_SIZES[0], len(gone))
    sets = [slice(k, k + size) for k in range(0, claim.draws * size, size) if k + size <= len(gone)]
    least, _, _ = fit_label(model, forget_class, torch.stack([gone.images[s] for s in sets]))
    prices = torch.stack([own[s].mean() for s in sets])
    values["cost under a fitted label"] = (least - prices).tolist()
    near = z[torch.arange(len(z)), k].repeat_interleave(claim.neighbours, 0)
    near = near + 0.3 * draw_normal(tuple(near.shape), model, seeds)
    drawn = model.decode(near, others[k].repeat_interleave(claim.neighbours))
    shown = success(drawn, judges, forget_class).float()
    values["share shown under other labels"] = shown.view(len(z), -1).mean(1).tolist()
    kept = real.without(forget_class)
    kept = kept.take(min(claim.kept_images, len(kept)), claim.seed)
    cost, _ = image_cost(model, kept.images, others, claim.steps)
    true = kept.labels[:, None] == others
    values["kept digits' cost, own label"] = cost[true].tolist()
    values["kept digits' cost, other labels"] = cost.masked_fill(true, math.inf).amin(1).tolist()
    return {name: [round(v, 4) for v in several] for name, several in values.items()}


@door
def attack_all(
    model: CVAE,
    forget_class: int,
    effort: Effort,
    *,
    baseline: CVAE,
    judges: Mapping[str, Judge],
    guide: Judge,
    real: LabelledImages,
) -> Values:
    """Every attack on one model: success (0 or 1) of each restart, area of each relearning run.

    The arguments are those of `audit`.  Two entries are checks of the guided attacks: on the class
    after it, a kept one, they must succeed; and the guide must not take what the model draws for
    the class already, while no scoring judge does, or there is no slope to climb.
    """
    inversion, guided = effort.search(effort.inversion_steps), effort.search(effort.attack_steps)
    found = {
        "prototype": invert_prototypes(model, forget_class, inversion, baseline=baseline),
        "blind": invert_blind(model, forget_class, inversion),
    } | {
        f"guided {over}": guided_attack(model, forget_class, guided, guide=guide, over=over)
        for over in SEARCHES
    }
    values: Values = {}
    for name, probe in found.items():
        hit = success(probe.images, judges, forget_class)
        values[name] = hit.int().tolist()
        if name in ("guided z", "guided both"):
            values[f"{name}, reachable"] = (hit & reachable(probe.z)).int().tolist()
    kept = (forget_class + 1) % model.num_classes
    images = guided_attack(model, kept, guided, guide=guide).images
    values[KEPT] = success(images, judges, kept).int().tolist()
    values[FOOLED] = fooled(model, forget_class, effort, judges=judges, guide=guide)
    for size, over in product(RELEARN_SIZES, ("all", "label") if model.says_label else ("all",)):
        given: Any = {"judges": judges, "steps": effort.relearn_steps, "over": over}
        seeds = range(effort.seed, effort.seed + effort.repeats)
        name = f"relearn {size}" + ", label only" * (over == "label")
        several = areas(model, forget_class, real, size, seeds, **given)
        values[name] = [round(area, 4) for area in several]
    return values


def fooled(
    model: CVAE, forget_class: int, effort: Effort, *, judges: Mapping[str, Judge], guide: Judge
) -> list[float]:
    """For every restart 1 if the guide, and not all scoring judges, sees the class in a sample."""
    wanted = torch.full((effort.restarts,), forget_class, device=model.device)
    drawn = model.sample(wanted, "standard", seeded(effort.seed))
    believed = guide.probabilities(drawn)[:, forget_class] >= 0.5
    return list((believed & ~success(drawn, judges, forget_class)).int().tolist())
