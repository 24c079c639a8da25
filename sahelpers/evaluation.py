"""What the judges say about what a model draws, and how far its samples are from real digits."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .checks import (
    IMAGE_SHAPE,
    check_images,
    check_is,
    check_labels,
    check_tensor,
    check_whole,
)
from .config import check_classes
from .judges import Judge, check_judge
from .models import CVAE, check_model, seeded


@dataclass(frozen=True)
class Latents:
    """Fixed latents with their labels, so that models are compared at the same z."""

    z: Tensor  # (N, Z)
    labels: Tensor  # (N,), sorted

    def where(self, chosen: Tensor) -> "Latents":
        """Those that a mask (N,) bool chooses."""
        return Latents(self.z[chosen], self.labels[chosen])


def fixed_latents(
    model: CVAE, per_class: int = 2000, prior: str = "class", seed: int = 1234
) -> Latents:
    """per_class latents of every class, from the model's Gaussian of the class or from N(0, I)."""
    check_model(model)
    check_whole(per_class, "per_class")
    labels = torch.arange(model.num_classes).repeat_interleave(per_class).to(model.device)
    return Latents(model.draw_latents(labels, seeded(seed), prior), labels)


@dataclass(frozen=True)
class Verdict:
    """What one judge says of a model's samples.

    probability, argmax: (C, C) or (C, C + 1): row = label asked for, column = judge's answer, the
    last one "none of these" if the judge has it; mean probability and share of the samples.
    n: samples per class.
    """

    probability: Tensor
    argmax: Tensor
    n: int

    def correct(self, classes: tuple[int, ...] | None = None) -> Tensor:
        """Share of samples recognised as the label asked for, per class."""
        share = self.argmax.diagonal()
        if classes is None:
            return share
        for c in classes:
            check_whole(c, "class", 0, len(share) - 1)
        return share[list(classes)]


@torch.no_grad()
def draw_images(model: CVAE, latents: Latents, batch: int = 2000) -> Tensor:
    """The images at fixed latents, (N, 1, 28, 28)."""
    check_model(model)
    check_is(latents, Latents, "latents")
    check_tensor(latents.z, (len(latents.labels), model.latent_dim), "latents.z", model.device)
    check_whole(batch, "batch")
    parts = zip(latents.z.split(batch), latents.labels.split(batch), strict=True)
    return torch.cat([model.decode(z, labels) for z, labels in parts])


def judge_samples(model: CVAE, judge: Judge, latents: Latents, stretch: bool = False) -> Verdict:
    """Let a judge look at what the model draws at these latents.

    stretch: stretch every image to full contrast first, so that a faint ghost is seen as well.
    A class without latents has a row of NaN.
    """
    images = draw_images(model, latents)
    check_judge(judge, model.num_classes)
    check_labels(latents.labels, model.num_classes, "latents.labels")
    if not len(latents.labels):
        raise ValueError("latents has no sample: give at least one")
    p = judge.probabilities(stretch_contrast(images) if stretch else images)
    rows = [latents.labels == c for c in range(model.num_classes)]
    answers = torch.nn.functional.one_hot(p.argmax(1), p.shape[1]).to(p.dtype)
    probability = torch.stack([p[row].mean(0) for row in rows]).cpu()
    argmax = torch.stack([answers[row].mean(0) for row in rows]).cpu()
    return Verdict(probability, argmax, max(int(row.sum()) for row in rows))


def stretch_contrast(images: Tensor) -> Tensor:
    """Every image scaled to run from 0 to 1; one that is flat (range below 1e-4) stays as it is."""
    check_tensor(images, ("B", *IMAGE_SHAPE), "images")
    low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
    reach = high - low
    return torch.where(reach > 1e-4, (images - low) / reach.clamp(min=1e-4), images)


@dataclass(frozen=True)
class Collateral:
    """Kept classes before and after, in percentage points: the mean change and the worst drop."""

    mean_before: float
    mean_after: float
    worst_drop: float
    worst_class: int


def collateral(before: Verdict, after: Verdict, forgotten: tuple[int, ...]) -> Collateral:
    """Compare two verdicts of the same judge at the same latents on the kept classes."""
    for name, verdict in (("before", before), ("after", after)):
        check_is(verdict, Verdict, name)
    if before.argmax.shape != after.argmax.shape:
        shapes = tuple(before.argmax.shape), tuple(after.argmax.shape)
        raise ValueError(f"before and after are tables {shapes}: give one judge's verdicts")
    gone = check_classes(forgotten, len(before.argmax), allow_empty=True)
    kept = tuple(c for c in range(len(before.argmax)) if c not in gone)
    a, b = 100 * before.correct(kept), 100 * after.correct(kept)
    worst = int((a - b).argmax())
    return Collateral(float(a.mean()), float(b.mean()), float((a - b)[worst]), kept[worst])


@torch.no_grad()
def frechet_distance(judge: Judge, first: Tensor, second: Tensor, batch: int = 250) -> float:
    """Frechet distance between two sets of images (N, 1, 28, 28) in the judge's features.

    |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)), as in the Frechet Inception distance (Heusel et al.
    2017), with the judge in the place of Inception.  Comparable only for the same judge and N.
    """
    check_is(judge, Judge, "judge")
    check_whole(batch, "batch")
    for name, images in (("first", first), ("second", second)):
        check_images(images, name, judge.head.weight.device)
        if len(images) < 2:
            raise ValueError(f"{name} has {len(images)} images: a covariance needs at least 2")
    stats = []
    for images in (first, second):
        features = torch.cat([judge.features(part) for part in images.split(batch)]).cpu().double()
        stats.append((features.mean(0), torch.cov(features.T)))
    (m1, s1), (m2, s2) = stats
    root = torch.linalg.eigvals(s1 @ s2).real.clamp(min=0).sqrt().sum()
    return float((m1 - m2).square().sum() + s1.trace() + s2.trace() - 2 * root)
