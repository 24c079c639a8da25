"""The audit of one model: the ladder, beside models that remember and models that never knew."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from statistics import fmean
from types import NoneType

import torch
from torch.nn.utils import parameters_to_vector

from ..checks import check_is
from ..config import check_classes
from ..data import LabelledImages
from ..masked import PUSH, masked_model
from ..models import CVAE, check_model, ordinary_torch, reset_label
from .gate import can_be_judged
from .ladder import FEWEST_TO_AUDIT, FITTED, OTHER, Costs, Ladder, LadderConfig
from .verdicts import MIN_RETRAINED, AuditReport, Climbed, compare_all


@ordinary_torch()
def audit(
    model: CVAE,
    forget_class: int | str,
    config: LadderConfig | None = None,
    *,
    baseline: CVAE,
    retrained: Sequence[CVAE],
    data: tuple[LabelledImages, LabelledImages],
) -> AuditReport:
    """Send the model up the ladder, beside models that remember and models that never knew.

    First `can_be_judged` asks whether the baseline knows the class at all; where it does not, or
    where there are fewer than 30 test images of it, nothing is attacked, and the report says what
    is missing.

    Two models that remember are made from the baseline: the hidden one, whose label is reset, and
    the masked one (`masked_model`).  Where networks of your own do not say where their label's
    weights are, the baseline itself stands in the hidden model's place.

    Args:
        model: The model that has forgotten the class.
        forget_class: The class, by number or name.
        config: How much is tried; `LadderConfig()` when left out.
        baseline: The model before it forgot.
        retrained: Models retrained without the class, three or more, by different seeds.  One that
            was trained with it and has forgotten it cannot be told from these.  Where the model
            forgot several classes together, they never saw these either, and all of them
            are left out of what the attackers take for kept images.
        data: Real images of all classes, those that the baseline was trained on and those that it
            was not, as a pair (train, test).

    Returns:
        The findings, one for each rung, with their verdicts; printed as a table.  None where the
        class cannot be judged.

    Raises:
        TypeError: For an argument of another kind.
        ValueError: For fewer than three retrained models, for one of another shape, that was
            trained with the class or that is given twice, and for data of another shape.
    """
    check_model(model)
    check_is(config, (LadderConfig, NoneType), "config")
    check_model(baseline, "baseline", model.num_classes)
    check_is(data, (tuple, list), "data", ": give a pair (train, test)")
    if len(data) != 2:
        raise ValueError(f"data has {len(data)} parts: give a pair (train, test)")
    train, test = data
    check_is(train, LabelledImages, "train")
    check_is(test, LabelledImages, "test")
    (c,) = check_classes((forget_class,), model.num_classes, names=test.class_names)
    _check_retrained(model, c, retrained)
    gate = can_be_judged(baseline, c, test=test, train=train)
    if not gate.passed or gate.test_images < FEWEST_TO_AUDIT:
        return AuditReport(c, (), {}, (str(gate),))
    seen = [k for k in range(model.num_classes) if _any_saw(retrained, k)]
    together = [k for k in range(model.num_classes) if seen and k not in (c, *seen)]
    gone = [k for k in seen if _any_saw([baseline], k) and not _any_saw([model], k)]
    if gone and model.prior_mean.any():
        names = ", ".join(test.class_names[k] for k in gone)
        raise ValueError(
            f"model has no Gaussian of the classes {names} either, which retrained models have: it "
            "forgot them, too, and the attackers would take their images for kept ones; give "
            "models retrained without all that it forgot"
        )
    notes = []
    if together:
        train, test = train.without(together), test.without(together)
        names = ", ".join(test.class_names[k] for k in together)
        notes.append(
            f"Left out of the kept classes, for no retrained model has a Gaussian of them: {names}."
        )
    ladder = Ladder(baseline, c, train, test, config)
    hidden = baseline
    if baseline.says_label:
        hidden = reset_label(baseline, c)
    else:
        notes.append(
            "The baseline stands in the hidden model's place: encoder or decoder has no method "
            "label_weights()."
        )
    unknowing = [ladder.climb(other) for other in retrained]
    climbed = Climbed(
        [ladder.climb(model)],
        [ladder.climb(hidden)],
        [ladder.climb(_mask(baseline, ladder, unknowing))],
        unknowing,
    )
    effort, usual = asdict(ladder.config), asdict(LadderConfig())
    if changed := [f"{name}={value}" for name, value in effort.items() if value != usual[name]]:
        notes.append(f"Not the usual effort, so not to be compared with it: {', '.join(changed)}.")
    notes.append(
        "One model borrows the spread of the retrained ones: where a third of the gap is left, a "
        "rung calls it erased in as many as one case of five."
    )
    report = compare_all({c: climbed})[c]
    return replace(report, notes=(*report.notes, *notes))


def _mask(baseline: CVAE, ladder: Ladder, retrained: Sequence[Costs]) -> CVAE:
    """A masked model that costs by rungs 1 and 2 about what retrained models cost.

    It is made twice: what the first one costs too much is taken from how far the second is pushed.
    """
    first = masked_model(baseline, ladder.forget_class, push=PUSH)
    tried = ladder.try_out(first)
    too_much = min(
        found - fmean(fmean(costs[rung]) for costs in retrained)
        for rung, found in ((OTHER, tried.other), (FITTED, tried.fitted))
    )
    push = max(0.0, PUSH - too_much)
    return masked_model(baseline, ladder.forget_class, push=push)


def _any_saw(models: Sequence[CVAE], label: int) -> bool:
    """Whether one of them was trained with this class: training fits a Gaussian of its z."""
    return any(bool(model.prior_mean[label].any()) for model in models)


def _check_retrained(model: CVAE, forget_class: int, retrained: Sequence[CVAE]) -> None:
    """Refuse what are not enough models of the model's shape that never saw the class."""
    check_is(retrained, Sequence, "retrained", ": give a list of models")
    if len(retrained) < MIN_RETRAINED:
        raise ValueError(
            f"{len(retrained)} retrained models: give {MIN_RETRAINED} or more, made without the "
            f"class, such as Story(...).retrained({forget_class}, seed) of other seeds"
        )
    seen = [parameters_to_vector(model.parameters())]
    for k, other in enumerate(retrained):
        name = f"retrained[{k}]"
        check_model(other, name, model.num_classes)
        built, wanted = ((m.arch, m.latent_dim, m.image_shape) for m in (other, model))
        if built != wanted:
            raise ValueError(
                f"{name} has arch, latent_dim and image_shape {built}, the model {wanted}: retrain "
                "by the model's own recipe"
            )
        if _any_saw([other], forget_class):
            raise ValueError(
                f"{name} was trained with class {forget_class}: a retrained model has never seen "
                f"it; make one with Story(...).retrained({forget_class})"
            )
        weights = parameters_to_vector(other.parameters())
        if any(torch.equal(weights, earlier) for earlier in seen):
            raise ValueError(
                f"{name} has the weights of the model or of a retrained one before it: make each "
                "with a seed of its own"
            )
        seen.append(weights)
