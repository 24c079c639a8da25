"""The chain from data to a forgotten class: every link is loaded, or made and kept.

The notebooks, the report and the dashboards all get their models here, so a model made by one is
found by the others.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

from .amnesia import AmnesiaResult, forget
from .checkpoints import S, checkpoint_path, load_or_make, part_path
from .config import (
    AmnesiaConfig,
    BaselineConfig,
    Config,
    FisherConfig,
    JudgeConfig,
    check_classes,
)
from .data import LabelledImages
from .fisher import ClassFishers, class_fishers
from .judges import Judge
from .training import TrainedCVAE, train_baseline, train_judge

SCORING = ("open", "plain")  # the judges whose verdicts are reported


def get_baseline(
    config: BaselineConfig, train: LabelledImages, held_out: LabelledImages | None = None
) -> TrainedCVAE:
    """The trained model (about a minute on two cores if it has to be made).

    An interrupted training goes on from its last pass, to the same bits.
    """
    stem = "vae_baseline" if not config.exclude else f"vae_without_{_numbers(config.exclude)}"
    found = _trained(
        stem, config, lambda part: train_baseline(train, config, held_out, part), TrainedCVAE
    )
    found.model.to(train.images.device)
    return found


def get_control(
    config: BaselineConfig, train: LabelledImages, classes: int | Iterable[int]
) -> TrainedCVAE:
    """A model retrained without these classes, by the baseline's recipe."""
    excluded = check_classes(classes, config.num_classes)
    return get_baseline(replace(config, exclude=excluded), train)


def get_judges(
    config: JudgeConfig, train: LabelledImages, roles: Iterable[str] = SCORING
) -> dict[str, Judge]:
    """The judges of these roles (20 to 40 seconds each on two cores if they have to be made)."""
    judges = {}
    for role in roles:
        judge = _trained(f"judge_{role}", config, partial(train_judge, train, role, config), Judge)
        judges[role] = judge.to(train.images.device)
    return judges


def get_fishers(
    baseline: TrainedCVAE, config: BaselineConfig, fisher: FisherConfig, train: LabelledImages
) -> ClassFishers:
    """One Fisher per class of the baseline (about a second)."""
    return load_or_make(
        "fisher",
        (config, fisher),
        lambda: class_fishers(baseline.model, train, fisher),
        ClassFishers,
    )


def get_forgotten(
    baseline: TrainedCVAE,
    fishers: ClassFishers,
    classes: int | Iterable[int],
    config: BaselineConfig,
    fisher: FisherConfig,
    amnesia: AmnesiaConfig,
) -> AmnesiaResult:
    """The baseline after forgetting these classes (seconds)."""
    forgotten = check_classes(classes, config.num_classes)
    result = load_or_make(
        f"vae_forget_{_numbers(forgotten)}",
        (config, fisher, amnesia),
        lambda: forget(baseline.model, fishers.without(forgotten), forgotten, amnesia),
        AmnesiaResult,
    )
    result.model.to(baseline.model.device)
    return result


def _trained(stem: str, config: Config, train: Callable[[Path], S], kind: type[S]) -> S:
    """What is kept, or else trained; train goes on from the part file of an interrupted run."""
    part = part_path(checkpoint_path(stem, config))
    return load_or_make(stem, (config,), lambda: train(part), kind)


def _numbers(classes: tuple[int, ...]) -> str:
    return "-".join(str(c) for c in classes)
