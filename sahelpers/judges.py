"""Judges: classifiers in five roles, and what they say about the images that a model draws."""

import copy
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .checks import (
    IMAGE_SHAPE,
    Shape,
    check_finite,
    check_images,
    check_is,
    check_labels,
    check_shape,
    check_tensor,
    check_whole,
    door,
)
from .config import MAX_CLASSES, kept_classes
from .models import CVAE, seeded
from .store.archive import Saved

JUDGE_ROLES = {
    "open": "scores; an eleventh answer, 'none of these'",
    "plain": "scores; ten answers",
    "guide": "guides attacks, never scores",
    "wary": "guides as well; an eleventh answer, 'none of these'",
    "tuning": "for choosing knobs, never reported",
}
SCORING = ("open", "plain")  # the judges whose verdicts are reported
GUIDES = ("guide", "wary")
BATCH = 250  # images that a judge looks at once: their activations fit a processor's cache
DRAW_BATCH = 2000  # images that a model draws at once


class Judge(Saved):
    """Classifier of images.  The roles (see JUDGE_ROLES) differ in architecture or answers.

    forward: images (B, *image_shape) -> logits (B, K), or (B, K + 1) for the roles "open" and
    "wary", whose last column means "none of these".
    """

    built_with = ("role", "num_classes", "image_shape")

    def __init__(self, role: str, num_classes: int = 10, image_shape: Shape = IMAGE_SHAPE) -> None:
        super().__init__()
        if role not in JUDGE_ROLES:
            raise ValueError(f"role={role!r} is not one of {', '.join(JUDGE_ROLES)}")
        check_whole(num_classes, "num_classes", 2, MAX_CLASSES)
        check_shape(image_shape)
        self.role, self.num_classes, self.image_shape = role, num_classes, image_shape
        self.has_none, c = role in ("open", "wary"), image_shape[0]
        if role == "open":
            width, body = 128, [*_block(c, 16, 3, 1), *_block(16, 32, 3, 2), *_block(32, 64, 3, 2)]
            body += [*_block(64, 64, 3, 1), nn.Flatten()]
        elif role == "plain":
            border = 2 if min(image_shape[1:]) < 16 else 0  # small images would vanish
            width, body = 192, [nn.Conv2d(c, 24, 5, padding=border), nn.ReLU(), nn.MaxPool2d(2)]
            body += [nn.Conv2d(24, 48, 5, padding=border), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
        elif role in GUIDES:
            width, body = 100, [*_block(c, 32, 4, 2), *_block(32, 64, 4, 2), nn.Flatten()]
        else:
            width, body = 256, [nn.Flatten(), nn.Linear(math.prod(image_shape), 512), nn.GELU()]
        seen = copy.deepcopy(nn.Sequential(*body)).to("meta").eval()
        flat = seen(torch.empty(1, *image_shape, device="meta")).shape[1]
        body += [nn.Linear(flat, width), nn.GELU() if role == "tuning" else nn.ReLU()]
        self.body = nn.Sequential(*body)
        self.head = nn.Linear(width, num_classes + self.has_none)

    def features(self, images: Tensor) -> Tensor:
        """Penultimate activations, (B, width), of images of any float type."""
        return cast(Tensor, self.body(images.to(self.head.weight.dtype)))

    def forward(self, images: Tensor) -> Tensor:
        """Logits, (B, C) or (B, C + 1)."""
        return cast(Tensor, self.head(self.features(images)))

    @torch.no_grad()
    def probabilities(self, images: Tensor) -> Tensor:
        """Softmax of the logits, (B, K) or (B, K + 1), for images (B, *image_shape) in [0, 1].

        Raises ValueError for images of another shape, range or device.
        """
        check_images(images, device=self.head.weight.device, shape=self.image_shape)
        return torch.cat([self(part).softmax(1) for part in images.split(BATCH)])

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """As of every network, and with the layout in memory that is fastest."""
        return super().from_state(state).to(memory_format=torch.channels_last)


def _block(inputs: int, outputs: int, kernel: int, stride: int) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=1, bias=False)
    return [conv, nn.BatchNorm2d(outputs), nn.ReLU()]


def check_judge(judge: Judge, num_classes: int | None, name: str = "judge") -> None:
    """Refuse what is not a Judge (of so many classes) with finite weights, ready to judge."""
    check_is(judge, Judge, name)
    if num_classes is not None and judge.num_classes != num_classes:
        raise ValueError(f"{name} knows {judge.num_classes} classes, the model {num_classes}")
    if judge.training:
        raise ValueError(f"{name} is in training mode, where images sway each other: call eval()")
    check_finite(judge, name)


def check_judges(judges: Mapping[str, Judge], num_classes: int | None = None) -> None:
    """Refuse what does not map names to judges that score, all of so many classes."""
    check_is(judges, Mapping, "judges")
    for role, judge in judges.items():
        check_judge(judge, num_classes, f"judges[{role!r}]")
    if not judges or any(judge.role in GUIDES for judge in judges.values()):
        raise ValueError(
            f"judges {list(judges)}: give at least one that scores, and not one that guides"
        )


def check_guide(guide: Judge, num_classes: int) -> None:
    """Refuse what is not a judge that guides, of so many classes."""
    check_judge(guide, num_classes, "guide")
    if guide.role not in GUIDES:
        role = f"{guide.role!r}, which scores and cannot guide as well"
        raise ValueError(f"guide has the role {role}: pass the judge of role 'guide' or 'wary'")


@dataclass(frozen=True)
class Latents:
    """Fixed latents z (N, Z) float with their labels (N,) int64: models are compared at the same z.

    Raises ValueError unless there is at least one, and a label for each.
    """

    z: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        check_labels(self.labels, MAX_CLASSES, "latents.labels")
        check_tensor(self.z, (len(self.labels), "Z"), "latents.z")
        if not len(self.labels):
            raise ValueError("latents has no sample: give at least one")

    def where(self, chosen: Tensor) -> "Latents":
        """Those that a mask (N,) bool chooses."""
        return Latents(self.z[chosen], self.labels[chosen])


@door
def fixed_latents(
    model: CVAE, per_class: int = 2000, prior: str = "class", seed: int = 1234
) -> Latents:
    """per_class latents of every class, from the model's Gaussian of the class or from N(0, I)."""
    check_whole(per_class, "per_class")
    labels = torch.arange(model.num_classes).repeat_interleave(per_class).to(model.device)
    return Latents(model.draw_latents(labels, prior, seeded(seed)), labels)


@dataclass(frozen=True)
class Verdict:
    """What one judge says of a model's samples.

    probability, argmax: (C, C) or (C, C + 1): row = label asked for, column = judge's answer, the
    last one "none of these" if the judge has it; mean probability and share of the samples.
    """

    probability: Tensor
    argmax: Tensor

    def correct(self, classes: Iterable[int] | None = None) -> Tensor:
        """Share of samples recognised as the label asked for, of each class or of these."""
        share = self.argmax.diagonal()
        return share if classes is None else share[list(classes)]


@door
@torch.no_grad()
def draw_images(model: CVAE, latents: Latents) -> Tensor:
    """The images at fixed latents, (N, *image_shape) in [0, 1]."""
    parts = zip(latents.z.split(DRAW_BATCH), latents.labels.split(DRAW_BATCH), strict=True)
    return torch.cat([model.decode(z, labels) for z, labels in parts])


@door
def judge_samples(model: CVAE, judge: Judge, latents: Latents) -> Verdict:
    """What a judge says of the images at these latents; a class without any has a row of NaN."""
    images = draw_images(model, latents)
    check_judge(judge, model.num_classes)
    p = judge.probabilities(images)
    rows = [latents.labels == c for c in range(model.num_classes)]
    answers = F.one_hot(p.argmax(1), p.shape[1]).to(p.dtype)
    return Verdict(*(torch.stack([x[row].mean(0) for row in rows]).cpu() for x in (p, answers)))


def stretch_contrast(images: Tensor) -> Tensor:
    """Images (B, C, H, W), each made to run from 0 to 1; a flat one (range below 1e-4) stays."""
    low = images.amin((1, 2, 3), keepdim=True)
    reach = images.amax((1, 2, 3), keepdim=True) - low
    return torch.where(reach > 1e-4, (images - low) / reach.clamp(min=1e-4), images)


@dataclass(frozen=True)
class Collateral:
    """Kept classes before and after, in percentage points: the mean change and the worst drop."""

    mean_before: float
    mean_after: float
    worst_drop: float
    worst_class: int


@door
def collateral(before: Verdict, after: Verdict, forget_class: int | Iterable[int]) -> Collateral:
    """Compare two verdicts of the same judge at the same latents on the kept classes.

    forget_class: one class or several; an empty tuple compares all classes.
    """
    if before.argmax.shape != after.argmax.shape:
        shapes = tuple(before.argmax.shape), tuple(after.argmax.shape)
        raise ValueError(f"before and after are tables {shapes}: give one judge's verdicts")
    kept = kept_classes(forget_class, len(before.argmax))
    a, b = 100 * before.correct(kept), 100 * after.correct(kept)
    worst = int((a - b).argmax())
    return Collateral(float(a.mean()), float(b.mean()), float((a - b)[worst]), kept[worst])


@door
@torch.no_grad()
def frechet_distance(judge: Judge, first: Tensor, second: Tensor) -> float:
    """Frechet distance between two sets of images (N, C, H, W) in the judge's features.

    |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)), as in the Frechet Inception distance (Heusel et al.
    2017), with the judge in the place of Inception.  Comparable only for the same judge and N.
    """
    check_judge(judge, None)
    stats = []
    for name, images in (("first", first), ("second", second)):
        check_images(images, name, judge.head.weight.device, judge.image_shape)
        if len(images) < 2:
            raise ValueError(f"{name} has {len(images)} images: a covariance needs at least 2")
        features = torch.cat([judge.features(part) for part in images.split(BATCH)]).cpu().double()
        stats.append((features.mean(0), torch.cov(features.T)))
    (m1, s1), (m2, s2) = stats
    root = torch.linalg.eigvals(s1 @ s2).real.clamp(min=0).sqrt().sum()
    return float((m1 - m2).square().sum() + s1.trace() + s2.trace() - 2 * root)
