"""The sealed examination of docs/protocol.md: does what is missing, then writes its tables.

    python docs/examination.py [--jobs 2]

Ours and hidden models of three seeds that nothing was tuned on, for each digit and for two digits
forgotten at once, beside the controls of the claim, by the named attacks and by three families that
were sealed: damage of the decoder's weights, its first layer relearned, and the same fitted.
results/examination.jsonl has a line per model and is what the tables are made of; a command that
was stopped goes on from it.  results/examination.md becomes a part of RESULTS.md.
"""

import copy
from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import product
from statistics import fmean
from typing import Any, NamedTuple

import pieces
import torch
from torch import Tensor

import results
import sahelpers as sa
from sahelpers.config import AmnesiaConfig, BaselineConfig, JudgeConfig
from sahelpers.elbo import latent_cost
from sahelpers.models import CVAE, seeded
from sahelpers.probing import image_cost, success
from sahelpers.recovery import descend, reset_label
from sahelpers.study import battery, grid, methods, report, statistics, verdicts
from sahelpers.study.methods import CONTROL, HIDDEN, OURS
from sahelpers.study.statistics import BESIDE, Finding, Groups, Values

SEEDS = (49, 50, 51)  # of ours and hidden
CONTROLS = {1: (*grid.SEEDS, *grid.CONTROL_SEEDS), 2: grid.SEEDS}  # by the number of classes
PAIR = (2, 5)
CLASSES = [*((digit,) for digit in range(10)), PAIR]
DAMAGE = {"noise": (0.1, 0.2, 0.4), "pruning": (0.2, 0.4, 0.6), "rounding": (4, 3, 2)}
DAMAGED = tuple(f"damage: {kind}" for kind in DAMAGE)
LAYER = tuple(f"first layer, {size} images" for size in battery.CLAIM_SIZES)
FITTED = statistics.NATS[2]
SAMPLES, RUNS, STEPS = 1000, 5, 60
JOURNAL = report.RESULTS / "examination.jsonl"


class Model(NamedTuple):
    """One model that is examined, on each of the classes that it forgot."""

    classes: tuple[int, ...]
    method: str
    seed: int


def models() -> list[Model]:
    """All of them; those that the named attacks need come first."""
    tested = [Model(c, m, s) for s, m, c in product(SEEDS, (OURS, HIDDEN), CLASSES)]
    pairs = [Model(PAIR, CONTROL, s) for s in CONTROLS[2]]
    singles = [Model((d,), CONTROL, s) for s, d in product(CONTROLS[1], range(10))]
    return [*tested, *pairs, *singles]


@torch.no_grad()
def damage(model: CVAE, kind: str, strength: float, seed: int) -> CVAE:
    """A copy whose decoder is damaged.

    noise: Gaussian, `strength` times each tensor's root mean square.  pruning: of each weight
    tensor the smallest share `strength` becomes zero.  rounding: each weight tensor to `strength`
    bits, levels even in number on both sides of zero up to its largest magnitude.
    """
    model, generator = copy.deepcopy(model), seeded(seed)
    for weight in model.decoder.parameters():
        if kind == "noise":
            noise = torch.randn(weight.shape, generator=generator)
            weight.add_(strength * weight.square().mean().sqrt() * noise)
        elif weight.dim() > 1 and kind == "pruning":
            k = round(strength * weight.numel())
            weight[weight.abs() <= weight.abs().flatten().kthvalue(k).values] = 0
        elif weight.dim() > 1 and kind == "rounding":
            step = weight.abs().max() / (2 ** (int(strength) - 1) - 1)
            weight.copy_((weight / step).round() * step)
    return model


@torch.enable_grad()
def fit_first_layer(model: CVAE, digit: int, images: Tensor, steps: int = 600) -> list[float]:
    """Nats of each image (N,) where all weights of the decoder's first layer, and a z per image,
    were fitted to them together, from `reset_label` on; the step of the least mean counts."""
    model = reset_label(model, digit).requires_grad_(False)
    layer = list(model.decoder[0].requires_grad_(True).parameters())
    z = torch.zeros(len(images), model.latent_dim, requires_grad=True)
    labels = torch.full((len(images),), digit)
    seen = list[Tensor]()  # the costs of each step

    def cost() -> Tensor:
        seen.append(latent_cost(model.decode_logits(z, labels), z, images))
        return seen[-1].mean()

    means = [float(mean) for mean in descend(z, layer, cost, steps)]
    return seen[means.index(min(means))].tolist()


def first_layer_cost(model: CVAE, digit: int, test: sa.LabelledImages, seed: int) -> list[float]:
    """Above the price, of five fits to ten images each: those of the fourth attack."""
    claim, size, nats = battery.Claim(), battery.CLAIM_SIZES[0], list[float]()
    images = test.only(digit).take(claim.draws * size, seed).images
    for few in images.split(size):
        own, _ = image_cost(price(), few, torch.full((size, 1), digit))
        fitted = torch.tensor(fit_first_layer(model, digit, few)) - own.flatten()
        nats.append(round(float(fitted.mean()), 4))
    return nats


@lru_cache(maxsize=1)
def story(seed: int) -> sa.Story:
    """The default one but for the seed of its models; judges do not depend on it."""
    return sa.Story(baseline=BaselineConfig(seed=seed), amnesia=AmnesiaConfig(seed=seed))


@lru_cache(maxsize=1)
def price() -> CVAE:
    """The baseline above whose cost every image's is counted."""
    return sa.Story().baseline.model


def examine(piece: Model) -> dict[str, dict[str, Values]]:
    """What the attacks find, by digit.  A control of one digit has faced the named ones already."""
    own, (classes, method, seed) = story(piece.seed), piece
    model = pieces.made(own, method, classes, seed)
    judges, found = own.judges, {}
    for digit in classes:
        values: Values = {}
        if not (method == CONTROL and len(classes) == 1):
            given: Any = {"baseline": price(), "judges": judges, "real": own.test}
            values |= battery.named_attacks(model, digit, battery.Claim(seed=seed), **given)
        wanted = torch.full((SAMPLES,), digit)
        for kind, name in zip(DAMAGE, DAMAGED, strict=True):
            values[name] = []
            for strength in DAMAGE[kind]:
                images = damage(model, kind, strength, seed).sample(
                    wanted, "standard", seeded(seed)
                )
                values[name].append(float(success(images, judges, digit).float().mean()))
        draw = seeded(seed)
        for size, name in zip(battery.CLAIM_SIZES, LAYER, strict=True):
            runs = torch.randint(2**31, (RUNS,), generator=draw).tolist()
            how: Any = {"judges": judges, "steps": STEPS, "over": "first layer"}
            areas = battery.areas(model, digit, own.test, size, runs, **how)
            values[name] = [round(area, 4) for area in areas]
        values[FITTED] = first_layer_cost(model, digit, own.test, seed)
        found[str(digit)] = values
    return {"values": found}


def read() -> dict[Model, dict[str, Values]]:
    """What the journal holds."""
    return {model: of["values"] for model, of in pieces.read(JOURNAL, Model).items()}


def gathered(classes: tuple[int, ...]) -> dict[int, Groups]:
    """What `statistics.compare_all` takes, of the ten digits or of the pair, by the attacks that
    all these models have faced; the claim's controls have faced the named ones there.  Digits of
    which some group is still to come are left out."""
    configs = report.BASELINES["mlp"], AmnesiaConfig(), JudgeConfig(), battery.Claim()
    made = methods.recipe(CONTROL, *configs)
    found: dict[tuple[int, str], dict[int, Values]] = {
        (digit, method): {} for digit in classes for method in (OURS, HIDDEN, CONTROL)
    }
    for r in grid.read_journal(report.RESULTS / "journal.jsonl"):
        where = r["part"], r["method"], r["dataset"], r["fingerprint"]
        if where == ("claim", CONTROL, "mnist", made) and classes != PAIR:
            found[r["class"], CONTROL][r["seed"]] = dict(r["values"])
    for (forgotten, method, seed), of in read().items():
        if (forgotten == PAIR) == (classes == PAIR):
            for digit in forgotten:
                found[digit, method].setdefault(seed, {}).update(of[str(digit)])
    most, asked = statistics.MIN_CONTROLS, (OURS, HIDDEN, CONTROL)
    there = [
        d for d in classes if found[d, OURS] and found[d, HIDDEN] and len(found[d, CONTROL]) >= most
    ]
    several = [set(v) for d in there for m in asked for v in found[d, m].values()]
    faced = set.intersection(*several) if there else set[str]()
    groups = {
        key: [{name: numbers for name, numbers in v.items() if name in faced} for v in of.values()]
        for key, of in found.items()
    }
    return {d: (groups[d, OURS], groups[d, HIDDEN], groups[d, CONTROL]) for d in there}


def tables() -> Iterator[str]:
    """The single digits and the pair, a line per attack."""
    seeds = f"seeds {SEEDS[0]} to {SEEDS[-1]}"
    titles = {
        tuple(range(10)): f"One digit, {seeds}, four controls each",
        PAIR: f"2 and 5 forgotten at once, {seeds}, three controls retrained without both",
    }
    for classes, title in titles.items():
        groups = gathered(classes)
        if not groups:
            yield f"**{title}.** Still to be run.\n"
            continue
        done = sorted({len(of[0]) for of in groups.values()})
        if done != [len(SEEDS)] or len(groups) < len(classes):
            title += f"; so far {' to '.join(map(str, done))} of ours on {len(groups)} digits"
        reports = statistics.compare_all(groups)
        findings = {d: of.by_attack for d, of in reports.items()}
        yield f"**{title}.** {verdicts.in_words(findings)}\n"
        tallies, rows = verdicts.claim(findings), []
        for tally in (*tallies.named, *tallies.others):
            shown = map(verdicts.spaced, tally.digits.values())
            rows.append([tally.attack, *means(tally.attack, findings), *shown])
        # of the pair, one digit that counts as kept there is not
        for attack in BESIDE[:1] if classes == PAIR else BESIDE:
            rows.append([attack, *means(attack, findings), *[""] * 4])
        heads = ["hidden", "ours", "controls", "erased", "remains", "undecided", "inconclusive"]
        yield results.table(["attack", *heads], rows)
    if left := pieces.missing(JOURNAL, models()):
        yield f"Still to be examined: {len(left)} models, without which not every attack has"
        yield "a verdict.\n"


def means(attack: str, findings: Mapping[int, Mapping[str, Finding]]) -> list[str]:
    """Over digits: of hidden models, ours and controls."""
    of = [found[attack] for found in findings.values()]
    return [f"{fmean(getattr(f, who) for f in of):.2f}" for who in ("hidden", "model", "control")]


def main() -> None:
    """Examine what is missing and write the tables."""
    pieces.complete(__doc__, JOURNAL, models(), examine, tables)


if __name__ == "__main__":
    import examination  # the processes find what they work on under this name

    examination.main()
