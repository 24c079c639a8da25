"""Can this be judged at all?  What is asked before anybody asks whether a class is forgotten.

"The class is seen in none of the samples" says nothing where the class was never drawn, and an
attack that finds no memory says nothing where there was none.  So the judges must know the images,
the baseline must have drawn the class, and there must be images enough of it.  Below this gate the
word is *cannot be judged*, whatever the numbers behind it are.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import NoneType

import torch
from torch import Tensor

from ..checks import check_is
from ..config import check_classes
from ..data import LabelledImages, check_fits, check_same_classes
from ..elbo import label_bounds
from ..judges import Judge, check_judges
from ..models import CVAE, check_model, seeded
from ..training import too_few_images
from .ladder import FEWEST_TO_AUDIT

CANNOT = "cannot be judged"  # the word for a verdict below the gate
ACCURACY = 0.8  # of each judge on test images, at the least
RECOGNISED = 0.5  # share of the baseline's samples of the class that every judge recognises
OWN_LABEL = 0.5  # share of the class's test images to which the baseline gives their own label
TEST_IMAGES = 1000  # test images, at most, that the judges look at
CLASS_IMAGES = 100  # test images of the class, at most, that the baseline is asked about
SAMPLES = 500  # of the baseline, for the judges
DRAWS = 10  # of z for each image and label


@dataclass(frozen=True)
class Gate:
    """Whether forgetting a class can be judged, and what was measured for it.

    Attributes:
        forget_class: The class number.
        name: The class's name.
        train_images: Training images of the class; None if they were not given.
        test_images: Test images of the class.
        latent_dim: The baseline's latent dimensions; only a class with more training images than
            these gets a Gaussian of its own.
        own_label: Share of the class's test images to which the baseline gives their own label,
            from 0 to 1: the label with the highest bound on log p(x | y).  NaN without test images.
        judge_accuracy: Share of all test images that the judges recognise, the least of them; None
            without judges.
        class_accuracy: The same for test images of the class; NaN without any.
        recognised: Share of the baseline's samples of the class that they recognise, the least of
            them; None without judges.
        lacking: What is missing and what would help, a sentence for each; none if it can be judged.
    """

    forget_class: int
    name: str
    train_images: int | None
    test_images: int
    latent_dim: int
    own_label: float
    judge_accuracy: float | None
    class_accuracy: float | None
    recognised: float | None
    lacking: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether forgetting this class can be judged."""
        return not self.lacking

    def word(self, verdict: str) -> str:
        """The verdict itself, or "cannot be judged" below the gate.

        Args:
            verdict: What would be said of a class that can be judged.

        Returns:
            The word to print.
        """
        return verdict if self.passed else CANNOT

    def __str__(self) -> str:
        if self.passed:
            said = f"Class {self.name} can be judged."
            if self.test_images < FEWEST_TO_AUDIT:
                there = f"and there are {self.test_images}"
                said += f" An audit asks for {FEWEST_TO_AUDIT} test images of it, {there}."
            return said
        return "\n".join([f"Class {self.name} {CANNOT}.", *self.lacking])


@torch.no_grad()
def can_be_judged(
    baseline: CVAE,
    forget_class: int | str,
    *,
    test: LabelledImages,
    train: LabelledImages | None = None,
    judges: Mapping[str, Judge] | None = None,
    seed: int = 0,
) -> Gate:
    """Find out whether forgetting a class can be judged at all.

    Args:
        baseline: The model before it forgot.
        forget_class: The class that is or will be forgotten, by number or name.
        test: Real images that neither baseline nor judges were trained on.
        train: The images that the baseline was trained on.  If left out, they are not counted.
        judges: Judges that score, by role.  If left out, nothing is said of the samples.
        seed: Of the choice of test images and of all draws.

    Returns:
        What was measured, what is missing, and what would help.

    Raises:
        TypeError: An argument is of another kind.
        ValueError: There is no such class, or the arguments do not fit to each other.
    """
    check_model(baseline, "baseline")
    check_is(test, LabelledImages, "test")
    (c,) = check_classes((forget_class,), baseline.num_classes, names=test.class_names)
    check_is(train, (LabelledImages, NoneType), "train")
    for name, data in {"test": test, "train": train}.items():
        if data is not None:
            check_fits(data, baseline, name)
    if train is not None:
        check_same_classes(train, test)
    if judges is not None:
        check_judges(judges, baseline.num_classes)

    if not len(test):
        raise ValueError("test has no image: give some that no model was trained on")
    of_class = test.only(c)
    lacking = too_few_images(c, baseline.latent_dim, test=test, train=train)
    train_images = None if train is None else len(train.only(c))
    enough = train_images is None or train_images > baseline.latent_dim  # else this was said
    if enough and baseline.prior_mean.any() and not baseline.prior_mean[c].any():
        lacking.append(
            f"The baseline has no Gaussian of the class {test.class_names[c]}, as of others: it "
            f"was trained with {baseline.latent_dim} images of it or fewer, or without it, or it "
            "has forgotten it."
        )

    own_label = math.nan
    if len(of_class):
        some = of_class.take(min(CLASS_IMAGES, len(of_class)), seed)
        bounds = label_bounds(baseline, some.images.to(baseline.device), DRAWS, seed)
        own_label = float((bounds.argmax(1) == c).float().mean())
        if own_label < OWN_LABEL:
            lacking.append(
                f"The baseline gives {own_label:.0%} of the class's test images their own label, "
                f"and {OWN_LABEL:.0%} are asked: train it longer, or give more images."
            )

    judge_accuracy = class_accuracy = recognised = None
    if judges is not None:
        some = test.take(min(TEST_IMAGES, len(test)), seed)
        labels = torch.full((SAMPLES,), c, device=baseline.device)
        samples = baseline.sample(labels, generator=seeded(seed))
        judge_accuracy = _accuracy(judges, some.images, some.labels)
        class_accuracy = _accuracy(judges, of_class.images, of_class.labels)
        recognised = _accuracy(judges, samples, labels)
        if judge_accuracy < ACCURACY:
            lacking.append(
                f"The judges recognise {judge_accuracy:.0%} of the test images, and "
                f"{ACCURACY:.0%} are asked: train them longer (JudgeConfig), or give more images."
            )
        if recognised < RECOGNISED:
            of_real = ""
            if len(of_class):
                of_real = f" (of its real test images they recognise {class_accuracy:.0%})"
            lacking.append(
                f"The judges recognise {recognised:.0%} of the baseline's samples of the class, "
                f"and {RECOGNISED:.0%} are asked{of_real}: train the baseline longer (epochs), or "
                "give more images."
            )
    return Gate(
        forget_class=c,
        name=test.class_names[c],
        train_images=train_images,
        test_images=len(of_class),
        latent_dim=baseline.latent_dim,
        own_label=own_label,
        judge_accuracy=judge_accuracy,
        class_accuracy=class_accuracy,
        recognised=recognised,
        lacking=tuple(lacking),
    )


def _accuracy(judges: Mapping[str, Judge], images: Tensor, labels: Tensor) -> float:
    """Share of the images that a judge calls by their label, the least of the judges'."""
    shares = []
    for judge in judges.values():
        answers = judge.probabilities(images.to(judge.head.weight.device)).argmax(1)
        shares.append(float((answers.cpu() == labels.cpu()).float().mean()))
    return min(shares)
