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
)
from .config import MAX_CLASSES, check_classes, kept_classes
from .models import CVAE, check_model, evaluating, seeded
from .store.archive import Saved

JUDGE_ROLES = {
    "open_set": "scores; an eleventh answer, 'none of these'",
    "closed_set": "scores; ten answers",
    "guide": "guides attacks, never scores",
    "wary": "guides as well; an eleventh answer, 'none of these'",
    "tuning": "for choosing knobs, never reported",
}
FORMER_ROLES = {"open": "open_set", "plain": "closed_set"}  # as files of earlier releases name them
SCORING = ("open_set", "closed_set")  # the judges whose verdicts are reported
GUIDES = ("guide", "wary")
WITH_NONE = ("open_set", "wary")  # the judges that may answer "none of these"
BATCH = 250  # images that a judge looks at once: their activations fit a processor's cache
DRAW_BATCH = 2000  # images that a model draws at once


class Judge(Saved):
    """A classifier of images.

    The roles differ in architecture or answers, so that one that guides an attack is not the one
    that scores it.

    Args:
        role: "open_set" or "closed_set" (these score), "guide" or "wary" (these guide attacks), or
            "tuning" (for choosing knobs).  "open_set" and "wary" may answer "none of these".
        num_classes: Number of classes K, from 2 to 1000.
        image_shape: (C, H, W): one or three channels, 8 to 64 pixels a side.

    Attributes:
        has_none: Whether there is the answer "none of these".

    Raises:
        ValueError: There is no such role, or a number is out of its range.
    """

    built_with = ("role", "num_classes", "image_shape")

    def __init__(self, role: str, num_classes: int = 10, image_shape: Shape = IMAGE_SHAPE) -> None:
        """Make a judge that is not trained, with random weights from torch's global generator."""
        super().__init__()
        if role not in JUDGE_ROLES:
            raise ValueError(f"role={role!r} is not one of {', '.join(JUDGE_ROLES)}")
        num_classes = check_whole(num_classes, "num_classes", 2, MAX_CLASSES)
        image_shape = check_shape(image_shape)
        self.role, self.num_classes, self.image_shape = role, num_classes, image_shape
        self.has_none = role in WITH_NONE
        layers, width = _body(role, image_shape)
        seen = copy.deepcopy(nn.Sequential(*layers)).to("meta").eval()
        flat = seen(torch.empty(1, *image_shape, device="meta")).shape[1]
        layers += [nn.Linear(flat, width), nn.GELU() if role == "tuning" else nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(width, num_classes + self.has_none)

    def features(self, images: Tensor) -> Tensor:
        """Compute the activations before the last layer.

        Args:
            images: (B, *image_shape) of any float type.

        Returns:
            (B, width) in the judge's type.
        """
        return cast(Tensor, self.body(images.to(self.head.weight.dtype)))

    def forward(self, images: Tensor) -> Tensor:
        """Compute the logits.

        Args:
            images: (B, *image_shape) of any float type.

        Returns:
            (B, K), or (B, K + 1) where the last column is "none of these".
        """
        return cast(Tensor, self.head(self.features(images)))

    @torch.no_grad()
    def probabilities(self, images: Tensor) -> Tensor:
        """Compute the probability of every answer.

        Args:
            images: (B, *image_shape) float in [0, 1].

        Returns:
            (B, K), or (B, K + 1) where the last column is "none of these"; each row sums to 1.

        Raises:
            TypeError: images is no tensor.
            ValueError: The images have another shape, range or device.
        """
        check_images(images, device=self.head.weight.device, shape=self.image_shape)
        return torch.cat([self(part).softmax(1) for part in images.split(BATCH)])

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Rebuild the judge that a checkpoint holds.

        Args:
            state: What `to_state` returned; a role may have its former name, "open" or "plain".

        Returns:
            The judge on the CPU, in evaluation mode, laid out in memory as is fastest.
        """
        state = cls.with_todays_words(state)
        return super().from_state(state).to(memory_format=torch.channels_last)

    @staticmethod
    def with_todays_words(state: dict[str, Any]) -> dict[str, Any]:
        """A state in which the role has the name that it has today."""
        return {**state, "role": FORMER_ROLES.get(state["role"], state["role"])}


def _body(role: str, image_shape: Shape) -> tuple[list[nn.Module], int]:
    """The layers of a role up to the flat features, and the width of the layer behind them."""
    channels = image_shape[0]
    if role == "open_set":
        layers = [
            *_block(channels, 16, 3, 1),
            *_block(16, 32, 3, 2),
            *_block(32, 64, 3, 2),
            *_block(64, 64, 3, 1),
            nn.Flatten(),
        ]
        return layers, 128
    if role == "closed_set":
        border = 2 if min(image_shape[1:]) < 16 else 0  # small images would vanish
        layers = [
            nn.Conv2d(channels, 24, 5, padding=border),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(24, 48, 5, padding=border),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
        ]
        return layers, 192
    if role in GUIDES:
        return [*_block(channels, 32, 4, 2), *_block(32, 64, 4, 2), nn.Flatten()], 100
    # "tuning"
    return [nn.Flatten(), nn.Linear(math.prod(image_shape), 512), nn.GELU()], 256


def _block(inputs: int, outputs: int, kernel: int, stride: int) -> list[nn.Module]:
    """A convolution, batch normalisation and ReLU."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=1, bias=False)
    return [conv, nn.BatchNorm2d(outputs), nn.ReLU()]


def check_judge(judge: Judge, num_classes: int | None, name: str = "judge") -> None:
    """Refuse what cannot judge.

    Args:
        judge: What was given as the judge.
        num_classes: Number of classes that it must know; None for any.
        name: Its name, for the message.

    Raises:
        TypeError: It is no Judge.
        ValueError: It knows another number of classes, is in training mode, or has a weight that is
            not finite.
    """
    check_is(judge, Judge, name)
    if num_classes is not None and judge.num_classes != num_classes:
        raise ValueError(f"{name} knows {judge.num_classes} classes, the model {num_classes}")
    if judge.training:
        raise ValueError(f"{name} is in training mode, where images sway each other: call eval()")
    check_finite(judge, name)


def check_judges(judges: Mapping[str, Judge], num_classes: int | None = None) -> None:
    """Refuse what are not judges that score.

    Args:
        judges: Judges by name.
        num_classes: Number of classes that each must know; None for any.

    Raises:
        TypeError: It is no mapping, or one of them is no Judge.
        ValueError: There is none, or one of them guides attacks or fails `check_judge`.
    """
    check_is(judges, Mapping, "judges", " (story.judges has them by role)")
    for role, judge in judges.items():
        check_judge(judge, num_classes, f"judges[{role!r}]")
    if not judges or any(judge.role in GUIDES for judge in judges.values()):
        raise ValueError(
            f"judges {list(judges)}: give at least one that scores, and not one that guides"
        )


def check_guide(guide: Judge, num_classes: int) -> None:
    """Refuse what is not a judge that guides attacks.

    Args:
        guide: What was given as the guide.
        num_classes: Number of classes that it must know.

    Raises:
        TypeError: It is no Judge.
        ValueError: It has another role, or fails `check_judge`.
    """
    check_judge(guide, num_classes, "guide")
    if guide.role not in GUIDES:
        role = f"{guide.role!r}, which scores and cannot guide as well"
        raise ValueError(f"guide has the role {role}: pass the judge of role 'guide' or 'wary'")


@dataclass(frozen=True, eq=False)
class Latents:
    """Fixed latents with their labels, so that models are compared at the same z.

    Attributes:
        z: (N, Z) float.
        labels: Class numbers (N,) int64.

    Raises:
        TypeError: One of them is no tensor.
        ValueError: There is no latent, there is not a label for each, or a label is no class
            number.
    """

    z: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        check_labels(self.labels, MAX_CLASSES, "latents.labels")
        check_tensor(self.z, (len(self.labels), "Z"), "latents.z")
        if not len(self.labels):
            raise ValueError("latents has no sample: give at least one")

    def where(self, chosen: Tensor) -> "Latents":
        """Choose some of the latents.

        Args:
            chosen: A mask (N,) bool.

        Returns:
            The latents where the mask is true, with their labels.

        Raises:
            ValueError: The mask chooses none.
        """
        return Latents(self.z[chosen], self.labels[chosen])


def fixed_latents(
    model: CVAE, per_class: int = 2000, prior: str = "class", seed: int = 1234
) -> Latents:
    """Draw the same number of latents for every class.

    Args:
        model: The model whose classes they are for.
        per_class: Number of latents for each class.
        prior: "class" draws from the model's Gaussian of each class, "standard" from N(0, I).
        seed: Of the draws.

    Returns:
        The latents, sorted by class: N is per_class times the number of classes.

    Raises:
        TypeError: model is no CVAE.
        ValueError: per_class is below 1, there is no such prior, or seed is out of range.
    """
    check_is(model, CVAE, "model", CVAE.hint)
    per_class = check_whole(per_class, "per_class")
    labels = torch.arange(model.num_classes).repeat_interleave(per_class).to(model.device)
    return Latents(model.draw_latents(labels, prior, seeded(seed)), labels)


@dataclass(frozen=True, eq=False)
class Verdict:
    """What one judge says of a model's samples.

    Both tables have a row for each label asked for and a column for each answer of the judge, the
    last one "none of these" if the judge has it: (K, K) or (K, K + 1).  A row without any sample is
    NaN.

    Attributes:
        probability: Mean probability of each answer, float.
        argmax: Share of samples for which it is the judge's first answer, float.

    Raises:
        TypeError: One of them is no tensor.
        ValueError: They are not two such tables of the same shape.
    """

    probability: Tensor
    argmax: Tensor

    def __post_init__(self) -> None:
        check_tensor(self.probability, ("K", "answers"), "verdict.probability")
        check_tensor(self.argmax, tuple(self.probability.shape), "verdict.argmax")
        labels, answers = self.argmax.shape
        if answers not in (labels, labels + 1):
            raise ValueError(
                f"verdict.argmax of shape {labels, answers} must be (K, K) or (K, K + 1)"
            )

    def correct(self, classes: Iterable[int] | None = None) -> Tensor:
        """Read off the share of samples that are recognised as the label asked for.

        Args:
            classes: The classes asked for; all when left out.

        Returns:
            The share of each of these classes, (K,) or as many as there are classes, from 0 to 1.

        Raises:
            ValueError: There is no such class.
        """
        share = self.argmax.diagonal()
        if classes is None:
            return share
        return share[[check_classes((c,), len(share))[0] for c in classes]]


@torch.no_grad()
def draw_images(model: CVAE, latents: Latents) -> Tensor:
    """Draw the images at fixed latents, in evaluation mode.

    Args:
        model: The model.
        latents: N latents with their labels.

    Returns:
        Images (N, *image_shape) in [0, 1].

    Raises:
        TypeError: An argument is of another kind.
        ValueError: The latents have another number of dimensions, or a label is no class of the
            model.
    """
    check_is(model, CVAE, "model", CVAE.hint)
    check_is(latents, Latents, "latents", ": fixed_latents makes them")
    parts = zip(latents.z.split(DRAW_BATCH), latents.labels.split(DRAW_BATCH), strict=True)
    with evaluating(model):
        return torch.cat([model.decode(z, labels) for z, labels in parts])


def judge_samples(model: CVAE, judge: Judge, latents: Latents) -> Verdict:
    """Ask a judge about the images at fixed latents.

    Args:
        model: The model that draws the images.
        judge: The judge, in evaluation mode, of as many classes.
        latents: Latents with their labels.

    Returns:
        What the judge says; a class without any latent has a row of NaN.

    Raises:
        TypeError: An argument is of another kind.
        ValueError: A weight is not finite, or the arguments do not fit to each other.
    """
    check_model(model)
    check_judge(judge, model.num_classes)
    p = judge.probabilities(draw_images(model, latents))
    answers = F.one_hot(p.argmax(1), p.shape[1]).to(p.dtype)
    rows = [latents.labels == c for c in range(model.num_classes)]
    probability = torch.stack([p[row].mean(0) for row in rows])
    argmax = torch.stack([answers[row].mean(0) for row in rows])
    return Verdict(probability.cpu(), argmax.cpu())


@dataclass(frozen=True)
class RetainedAccuracy:
    """How well a judge recognises the kept classes before and after forgetting.

    Attributes:
        mean_before: Mean share that is recognised before, in percent.
        mean_after: The same after.
        worst_drop: Largest drop of one class, in percentage points.
        worst_class: The number of that class.
    """

    mean_before: float
    mean_after: float
    worst_drop: float
    worst_class: int


def retained_accuracy(
    before: Verdict, after: Verdict, forget_class: int | Iterable[int]
) -> RetainedAccuracy:
    """Compare how well one judge recognises the kept classes before and after forgetting.

    Args:
        before: The judge's verdict on the model before.
        after: The same judge's verdict on the model after, at the same latents.
        forget_class: One class number or several that were forgotten; all others are kept.  An
            empty tuple compares all classes.

    Returns:
        The mean over the kept classes, before and after, and the class that lost most.

    Raises:
        TypeError: before or after is no Verdict.
        ValueError: The verdicts are not one judge's, there is no such class, or no sample of a
            kept one.
    """
    check_is(before, Verdict, "before", ": judge_samples makes one")
    check_is(after, Verdict, "after", ": judge_samples makes one")
    if before.argmax.shape != after.argmax.shape:
        shapes = tuple(before.argmax.shape), tuple(after.argmax.shape)
        raise ValueError(f"before and after are tables {shapes}: give one judge's verdicts")
    kept = kept_classes(forget_class, len(before.argmax))
    old, new = 100 * before.correct(kept), 100 * after.correct(kept)
    without = [c for c, share in zip(kept, (old + new).tolist(), strict=True) if math.isnan(share)]
    if without:
        raise ValueError(f"there is no sample of the kept classes {without}: draw some of each")
    drop = old - new
    worst = int(drop.argmax())
    return RetainedAccuracy(float(old.mean()), float(new.mean()), float(drop[worst]), kept[worst])


@torch.no_grad()
def frechet_distance(judge: Judge, first: Tensor, second: Tensor) -> float:
    """Compute the Frechet distance between two sets of images in a judge's features.

    It is |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) with the means m and covariances S of the
    features, as in the Frechet Inception distance (Heusel et al. 2017), with the judge in the place
    of Inception.  Distances can be compared only for the same judge and number of images.

    Args:
        judge: The judge, in evaluation mode.
        first: Images (N, *image_shape) float in [0, 1], two or more.
        second: The same of the other set.

    Returns:
        The distance, in squared units of the features; 0 for equal sets.

    Raises:
        TypeError: An argument is of another kind.
        ValueError: A set has fewer than two images, or images of another shape or range.
    """
    check_judge(judge, None)
    mean_1, covariance_1 = _feature_moments(judge, first, "first")
    mean_2, covariance_2 = _feature_moments(judge, second, "second")
    # The trace of a matrix's root is the sum of the roots of its eigenvalues.
    root = torch.linalg.eigvals(covariance_1 @ covariance_2).real.clamp(min=0).sqrt().sum()
    means = (mean_1 - mean_2).square().sum()
    return float(means + covariance_1.trace() + covariance_2.trace() - 2 * root)


def _feature_moments(judge: Judge, images: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """Mean (F,) and covariance (F, F) of the judge's F features, float64 on the CPU."""
    check_images(images, name, judge.head.weight.device, judge.image_shape)
    if len(images) < 2:
        raise ValueError(f"{name} has {len(images)} images: a covariance needs at least 2")
    features = torch.cat([judge.features(part) for part in images.split(BATCH)]).cpu().double()
    return features.mean(0), torch.cov(features.T)
