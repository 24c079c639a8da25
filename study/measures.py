"""What the scoreboard measures of a model that has forgotten a class."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor

from sahelpers.config import Config, knob
from sahelpers.elbo import dataset_negative_elbo, iwae_bound
from sahelpers.judges import (
    SCORING,
    Latents,
    Verdict,
    draw_images,
    fixed_latents,
    frechet_distance,
    judge_samples,
    retained_accuracy,
)
from sahelpers.models import CVAE, PRIORS, seeded
from sahelpers.story import Story

T = TypeVar("T")
WHATS = ("p", "argmax", "kept_change", "worst_drop")  # the first two of the class
JUDGED = [f"{what}_{role}_{prior}" for role in SCORING for prior in PRIORS for what in WHATS]
REAL = ["frechet_before", "frechet_after", "elbo_kept_change", "elbo_forgotten_change"]
BOUNDS = ["iwae_kept_change", "iwae_forgotten_change"]
COST = ["steps", "seconds", "real_images", "reason"]


@dataclass(frozen=True)
class MeasureConfig(Config):
    """How much the scoreboard draws for every model."""

    samples: int = knob(2000, 1, 1_000_000, help="samples per class for the judges")
    frechet_samples: int = knob(1000, 2, 100_000, help="samples per kept class")
    iwae_images: int = knob(100, 1, 1000, help="real images of c_f, and as many kept ones")
    iwae_draws: int = knob(500, 1, 100_000, help="draws of z per image")


@dataclass(eq=False)
class Baseline:
    """What a seed's models are measured against: its story, and what was measured of its baseline.

    Whatever is asked of the baseline is computed once.
    """

    story: Story
    config: MeasureConfig
    _known: dict[Any, Any] = field(default_factory=dict)

    @cached_property
    def drawn(self) -> dict[str, tuple[Latents, dict[str, Verdict]]]:
        """From each prior: latents, and what every scoring judge says of the baseline there."""
        model, found = self.story.baseline.model, {}
        for prior in PRIORS:
            z = fixed_latents(model, self.config.samples, prior)
            found[prior] = z, {r: judge_samples(model, j, z) for r, j in self.story.judges.items()}
        return found

    @cached_property
    def elbo(self) -> Tensor:
        """Negative, of every test image (N,), nats."""
        return dataset_negative_elbo(self.story.baseline.model, self.story.test)

    def samples(self, model: CVAE, label: int, knows_label: bool) -> dict[str, float]:
        """What every scoring judge says of the samples, from both priors: the columns JUDGED.

        z of kept classes comes from the model's own Gaussians, z of the class from the baseline's.
        knows_label: False for a model that was never trained with the class: what it draws there
        is arbitrary, and nan is reported.
        """
        row: dict[str, float] = {}
        for prior, (before, verdicts) in self.drawn.items():
            own, z = before.labels == label, fixed_latents(model, self.config.samples, prior).z
            latents = Latents(torch.where(own[:, None], before.z, z), before.labels)
            for role, judge in self.story.judges.items():
                after = judge_samples(model, judge, latents)
                kept = retained_accuracy(verdicts[role], after, label)
                tables = after.probability, after.argmax
                asked = [float(t[label, label]) if knows_label else math.nan for t in tables]
                values = *asked, kept.mean_after - kept.mean_before, kept.worst_drop
                row |= zip((f"{w}_{role}_{prior}" for w in WHATS), values, strict=True)
        return row

    def real(self, model: CVAE, label: int) -> dict[str, float]:
        """Frechet distance of kept classes to real images; change of the negative ELBO of real
        ones: the columns REAL."""
        own = self.story.test.labels == label
        change = dataset_negative_elbo(model, self.story.test) - self.elbo
        changes = float(change[~own].mean()), float(change[own].mean())
        return dict(zip(REAL, (*self._both(self._frechet, model, label), *changes), strict=True))

    def bounds(self, model: CVAE, label: int) -> dict[str, float]:
        """How much lower the importance-weighted bound on log p of real images is, nats: BOUNDS."""
        before, after = self._both(self._bounds, model, label)
        return {name: b - a for name, b, a in zip(BOUNDS, before, after, strict=True)}

    def _both(self, measure: Callable[[CVAE, int], T], model: CVAE, label: int) -> tuple[T, T]:
        """What `measure` says of the baseline, computed once per class, and of the model."""
        if (measure, label) not in self._known:
            self._known[measure, label] = measure(self.story.baseline.model, label)
        return self._known[measure, label], measure(model, label)

    def _frechet(self, model: CVAE, label: int) -> float:
        fixed, real = fixed_latents(model, self.config.frechet_samples), self.story.test
        images = draw_images(model, fixed.where(fixed.labels != label))
        return frechet_distance(self.story.judges["closed_set"], images, real.without(label).images)

    def _bounds(self, model: CVAE, label: int) -> list[float]:
        """Of kept images and of images of the class, binarised."""
        test, k, found = self.story.test, self.config.iwae_draws, []
        for real in (test.without(label), test.only(label)):
            some = real.take(min(self.config.iwae_images, len(real)))
            bits, others = (some.images > 0.5).float(), (self.story.baseline.model,)
            bound = iwae_bound(model, bits, some.labels, k, others, seeded(1))
            found.append(float(bound.mean()))
        return found
