"""The audit of one model: attack it, a model that hides the class and models that never saw it."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch.nn.utils import parameters_to_vector

from ..checks import check_is
from ..config import Config, check_classes, knob
from ..data import FEWEST, LabelledImages
from ..judges import Judge, check_judges
from ..models import CVAE, check_model, draw_normal, reset_label, seeded
from .latent import attack_success, image_cost
from .verdicts import MIN_RETRAINED, AuditReport, Values, compare_all
from .weights import fit_label, relearn

LABEL_ONLY_SIZES = (10, 100)  # real images that a label alone is relearned from
FITTED_SIZE = 10  # real images that a label of the attacker's own is fitted to
NEAR = 0.3  # standard deviation of the samples around each z that the judges look at


@dataclass(frozen=True)
class AuditConfig(Config):
    """How much the attacks draw and try for every model (docs/protocol.md)."""

    images: int = knob(400, 2, 1000, help="test images of the class whose cost is asked")
    kept_images: int = knob(100, 2, 1000, help="the same of kept classes, for comparison")
    steps: int = knob(100, 1, 100_000, help="steps of the search for the z of an image")
    neighbours: int = knob(20, 1, 1000, help="samples near each z that the judges see")
    relearn_steps: int = knob(60, 1, 100_000, help="steps of relearning the label alone")
    draws: int = knob(5, 1, 1000, help="runs with each number of images, each on other ones")
    seed: int = knob(42, 0, 2**31 - 1, help="choice of images; in the study, each model's own")


def label_only_areas(
    model: CVAE,
    forget_class: int,
    data: LabelledImages,
    size: int,
    seeds: Iterable[int],
    *,
    judges: Mapping[str, Judge],
    steps: int,
) -> list[float]:
    """Area under P(c_f) while the label alone is relearned from a few images, for each seed.

    Args:
        model: The model that is attacked; it is not changed.
        forget_class: The class that is looked for.
        data: Real images, some of the class.
        size: How many of these each run sees; all, if there are fewer.
        seeds: One run for each: of the choice of images, and of the run.
        judges: Judges that score, by role.
        steps: Steps of each run.

    Returns:
        One area for each seed, from 0 to 1.
    """
    few = data.only(forget_class)
    areas = []
    for seed in seeds:
        chosen = few.take(min(size, len(few)), seed)
        curve = relearn(
            model, forget_class, data=chosen, judges=judges, steps=steps, over="label", seed=seed
        )
        areas.append(curve.area)
    return areas


def attack_model(
    model: CVAE,
    forget_class: int,
    config: AuditConfig,
    *,
    baseline: CVAE,
    judges: Mapping[str, Judge],
    data: LabelledImages,
) -> Values:
    """Run the attacks of the audit on one model.

    Four attacks: relearning the label alone from 10 and from 100 real images gives the area under
    P(c_f) of each run; the cost of real images under the other labels, and under a label that is
    fitted to 10 of them, is in nats above what the baseline pays for the same images under their
    own label.  Beside them, without a verdict: the cost of kept images under their own and under
    other labels, and the share of samples near the found z that all judges call the class.

    Args:
        model: The model that is attacked; it is not changed.
        forget_class: The class that is looked for.
        config: How much is tried.
        baseline: The model whose price of the class's images is subtracted.
        judges: Judges that score, by role.
        data: Real images of all classes.

    Returns:
        Attack -> numbers, one for each run, fit or image: areas and shares from 0 to 1, costs in
        nats.
    """
    generator = seeded(config.seed)
    of_class = data.only(forget_class)
    values: Values = {}

    # The label alone, relearned; networks of one's own may not say where its weights are.
    if model.says_label:
        for size in LABEL_ONLY_SIZES:
            seeds = torch.randint(2**31, (config.draws,), generator=generator).tolist()
            values[f"label only, {size} images"] = label_only_areas(
                model, forget_class, of_class, size, seeds, judges=judges,
                steps=config.relearn_steps,
            )  # fmt: skip

    # The cost of real images under the cheapest of the other labels.
    every = torch.arange(model.num_classes, device=model.device)
    others = every[every != forget_class]
    gone = of_class.take(min(config.images, len(of_class)), config.seed)
    price, _ = image_cost(baseline, gone.images, gone.labels[:, None], config.steps)  # (N, 1)
    cost, z = image_cost(model, gone.images, others, config.steps)  # (N, K - 1), (N, K - 1, Z)
    above_price, cheapest = (cost - price).min(1)
    values["cost under other labels"] = above_price.tolist()

    # The same under labels that are fitted to a few of these images each.
    size = min(FITTED_SIZE, len(gone))
    fits = min(config.draws, len(gone) // size)
    sets = [slice(k * size, (k + 1) * size) for k in range(fits)]
    least, _, _ = fit_label(model, forget_class, torch.stack([gone.images[s] for s in sets]))
    prices = torch.stack([price[s].mean() for s in sets])
    values["cost under a fitted label"] = (least - prices).tolist()

    # Do the judges see the class near the z and the label where its images are cheapest?
    at_cheapest = z[torch.arange(len(z)), cheapest]  # (N, Z)
    near = at_cheapest.repeat_interleave(config.neighbours, 0)
    near = near + NEAR * draw_normal(tuple(near.shape), model, generator)
    drawn = model.decode(near, others[cheapest].repeat_interleave(config.neighbours))
    shown = attack_success(drawn, judges, forget_class).float().view(len(gone), -1)
    values["share shown under other labels"] = shown.mean(1).tolist()

    # What images of kept classes cost, under their own label and under the cheapest other one.
    kept = data.without(forget_class)
    kept = kept.take(min(config.kept_images, len(kept)), config.seed)
    cost, _ = image_cost(model, kept.images, others, config.steps)
    own = kept.labels[:, None] == others
    values["kept digits' cost, own label"] = cost[own].tolist()
    values["kept digits' cost, other labels"] = cost.masked_fill(own, math.inf).amin(1).tolist()

    rounded: Values = {}
    for name, numbers in values.items():
        rounded[name] = [round(number, 4) for number in numbers]
    return rounded


def audit(
    model: CVAE,
    forget_class: int,
    config: AuditConfig | None = None,
    *,
    baseline: CVAE,
    retrained: Sequence[CVAE],
    judges: Mapping[str, Judge],
    data: LabelledImages,
) -> AuditReport:
    """Attack the model, the hidden model and every retrained model in the same way, and compare.

    The hidden model is the baseline with the class's label reset: it is known to remember.  Where
    networks of your own do not say where their label's weights are, the baseline itself stands in
    its place, attacks on these weights are left out, and the report says so.

    Args:
        model: The model that has forgotten the class.
        forget_class: The class.
        config: How much is tried; `AuditConfig()` when left out.
        baseline: The model before it forgot.
        retrained: Models retrained without the class, three or more, by different seeds.
        judges: Judges that score, by role.
        data: Real images, at least ten of the class and some of others; the report says if they
            are fewer than an attack asks for.

    Returns:
        The findings, one for each attack, with their verdicts; printed as a table.

    Raises:
        TypeError: For an argument of another kind.
        ValueError: For fewer than three retrained models, for one of another shape, that was
            trained with the class or that is given twice, and for too few real images.
    """
    check_model(model)
    check_model(baseline, "baseline", model.num_classes)
    (forget_class,) = check_classes((forget_class,), model.num_classes)
    check_judges(judges, model.num_classes)
    check_is(data, LabelledImages, "data")
    config = AuditConfig() if config is None else config
    check_is(config, AuditConfig, "config")
    n = len(data.only(forget_class))
    if n < FEWEST:
        raise ValueError(f"data has {n} images of class {forget_class}: give {FEWEST} or more")
    if n == len(data):
        raise ValueError(f"data has images of class {forget_class} only: some of others are asked")
    _check_retrained(model, forget_class, retrained)

    notes = []
    if n < max(LABEL_ONLY_SIZES[-1], config.images):
        notes.append(f"There are {n} images of the class: attacks that ask for more take these.")
    if baseline.says_label:
        hidden = reset_label(baseline, forget_class)
    else:
        hidden = baseline
        notes.append(
            "No attack on the label's weights, and no hidden model but the baseline: encoder or "
            "decoder has no method label_weights()."
        )

    def attack(attacked: CVAE) -> Values:
        return attack_model(
            attacked, forget_class, config, baseline=baseline, judges=judges, data=data
        )

    groups = [attack(model)], [attack(hidden)], [attack(other) for other in retrained]
    report = compare_all({forget_class: groups})[forget_class]
    return replace(report, notes=tuple(notes))


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
        if other.prior_mean[forget_class].any():  # training fits one for every class it saw
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
