"""Attacks that were added after the claim: does what is missing, then writes their table.

    python docs/further.py [--jobs 2]

Ours, the hidden model and three controls of every digit, by attackers who relearn all weights
behind a label that was reset and search then, who fit a label vector and touch no weight, who
choose their own rate for the label, who train the decoder alone, who fine-tune on the kept digits
for long, and whose guide may say "none of these".  An hour and a half of one core, half of it to
retrain the controls.  results/further.jsonl has a line per model; a command that was stopped goes
on from it.  results/further.md becomes a part of RESULTS.md.
"""

import copy
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import lru_cache, partial
from itertools import product
from typing import Any

import pieces
import torch
from examination import means
from pieces import Model

import results
import sahelpers as sa
from sahelpers.elbo import negative_elbo
from sahelpers.judges import Judge
from sahelpers.models import CVAE, draw_normal, seeded
from sahelpers.probing import guided_attack, success
from sahelpers.recovery import relearn, reset_label
from sahelpers.study import battery, grid, report, statistics, verdicts
from sahelpers.study.methods import CONTROL, HIDDEN, OURS
from sahelpers.study.statistics import FOOLED, KEPT, REMAINS, Values

SIZE, RUNS = 10, 5  # real images that an attacker has, and how often others are drawn
STEPS, FIT_STEPS, LONG = 60, 300, 600  # of relearning, of fitting a vector, of fine-tuning
RATES = (0.01, 0.05, 0.2, 0.5)  # for the label's weights, to choose from
FIT_RATE, SAMPLES = 0.05, 500
JOURNAL = report.RESULTS / "further.jsonl"


def models() -> list[Model]:
    """All of them, digit by digit."""
    of = [(OURS, grid.SEEDS[0]), (HIDDEN, grid.SEEDS[0]), *((CONTROL, s) for s in grid.SEEDS)]
    return [Model(digit, *one) for digit, one in product(range(10), of)]


@torch.enable_grad()
def fit_vector(model: CVAE, digit: int, few: sa.LabelledImages, seed: int) -> torch.Tensor:
    """A label vector (C,) of free numbers under which the images cost least: Adam down the
    negative ELBO from the mean of the other labels.  No weight moves."""
    model = copy.deepcopy(model).eval().requires_grad_(False)
    y = torch.full((model.num_classes,), 1 / (model.num_classes - 1))
    y[digit] = 0
    optimizer, draw = torch.optim.Adam([y.requires_grad_(True)], lr=FIT_RATE), seeded(seed)
    for _ in range(FIT_STEPS):
        noise = draw_normal((len(few), model.latent_dim), model, draw)
        optimizer.zero_grad()
        negative_elbo(model, few.images, y.expand(len(few), -1), noise).mean().backward()
        optimizer.step()
    return y.detach()


def attack(
    model: CVAE, digit: int, judges: Mapping[str, Judge], wary: Judge, real: sa.LabelledImages
) -> Values:
    """Success (0 or 1) of each restart, shares of samples, and areas of each relearning run."""
    effort, values = battery.Effort(), defaultdict[str, list[float]](list)
    search, draw = effort.search(effort.attack_steps), seeded(effort.seed)
    given: Any = {"judges": judges}

    def guided(name: str, model: CVAE, wanted: int = digit, over: str = "both") -> None:
        images = guided_attack(model, wanted, search, guide=wary, over=over).images
        values[name] = success(images, judges, wanted).int().tolist()

    for over in ("both", "z"):
        guided(f"guided {over}, wary guide", model, over=over)
    guided(KEPT, model, (digit + 1) % model.num_classes)
    values[FOOLED] = battery.fooled(model, digit, effort, guide=wary, **given)
    runs = range(effort.seed, effort.seed + RUNS)
    few = [real.only(digit).take(SIZE, run) for run in runs]
    again = relearn(reset_label(model, digit), digit, data=few[0], steps=STEPS, **given).model
    for over in ("both", "z"):
        guided(f"relearned, then guided {over}", again, over=over)
    for run, data in zip(runs, few, strict=True):
        y = fit_vector(model, digit, data, run).expand(SAMPLES, -1)
        images = model.sample(y, "standard", draw)
        values["label vector"].append(float(success(images, judges, digit).float().mean()))
    areas = partial(battery.areas, model, digit, real, SIZE, runs, steps=STEPS, **given)
    by_rate = [areas(over="label", rate=rate) for rate in RATES]
    values["label only, rate of choice"] = [max(of) for of in zip(*by_rate, strict=True)]
    values["decoder alone"] = areas(over="decoder")
    kept = given | {"data": real.without(digit), "steps": LONG, "seed": runs[-1]}
    values["fine-tuned on the others"] = [relearn(model, digit, **kept).area]
    return {name: [round(v, 4) for v in several] for name, several in values.items()}


@lru_cache(maxsize=1)
def story() -> sa.Story:
    """The default one."""
    return sa.Story()


def work(piece: Model) -> dict[str, Values]:
    """What the attacks find on a model."""
    digit, own = piece.digit, story()
    model = pieces.made(own, piece.method, digit, piece.seed)
    return {"values": attack(model, digit, own.judges, own.judge("wary"), own.test)}


def found() -> dict[int, dict[str, statistics.Finding]]:
    """What `verdicts.claim` takes, of the digits whose models were all attacked."""
    groups = pieces.groups(JOURNAL, range(10), (OURS, HIDDEN, CONTROL))
    return {digit: of.by_attack for digit, of in statistics.compare_all(groups).items()}


def tables() -> Iterator[str]:
    """A line per attack; "adjusted" has the digits on which memory remains by Holm's rule."""
    if left := pieces.missing(JOURNAL, models()):
        yield f"Still to be attacked: {len(left)} of {len(models())} models.\n"
    findings, rows = found(), []
    yield f"Digits: {verdicts.spaced(list(findings))}.\n"
    for attack, tally in verdicts.tallies(findings).items():
        erased, remains, *rest = tally.digits.values()
        shown = map(verdicts.spaced, (erased, remains, tally.sure[REMAINS], *rest))
        rows.append([attack, *means(attack, findings), *shown])
    heads = ["hidden", "ours", "controls", "erased", "remains", "adjusted", "undecided"]
    yield results.table(["attack", *heads, "inconclusive"], rows)


def main() -> None:
    """Attack what is missing and write the table."""
    pieces.complete(__doc__, JOURNAL, models(), work, tables)


if __name__ == "__main__":
    import further  # the processes find what they work on under this name

    further.main()
