"""What training on brings back: `python -m study healing` writes results/healing.md, ten minutes.

Four models of the 3 are trained on, on real images of the nine digits that they kept, and then
asked what real images of the 3 cost.  The hidden and the masked model know the 3 by construction,
ours forgot it by the default of `forget`, and the retrained model never saw it.
"""

import argparse
from collections.abc import Iterator
from statistics import fmean

import torch

import sahelpers as sa
from sahelpers.attacks.ladder import Ladder, LadderConfig
from sahelpers.attacks.masked import masked_model
from sahelpers.config import CHECKOUT
from sahelpers.elbo import dataset_negative_elbo
from sahelpers.store.files import replace_text

from ..grid import RESULTS
from ..results_page import table

DIGIT = 3
STEPS = (0, 400, 1600, 6400)  # of 256 kept images each
BEGIN, END = "<!-- by `python -m study healing` -->", "<!-- end -->"  # in README
HEAD = [
    "model",
    "steps of training on",
    "cost under other labels",
    "cost under a fitted label",
    "kept digits' cost",
    "kept negative ELBO",
]


def rows(
    story: sa.Story, digit: int, steps: tuple[int, ...], config: LadderConfig | None = None
) -> Iterator[list[object]]:
    """A row of the table for each model and length of training on."""
    baseline = story.baseline.model
    ladder = Ladder(baseline, digit, story.test, config)
    models = {
        "hidden": story.hidden(digit),
        "masked": masked_model(baseline, story.fishers.without(digit), digit),
        "ours": story.forgotten(digit).model,
        "retrained": story.retrained(digit).model,
    }
    for name, model in models.items():
        for n in steps:
            now = sa.heal(model, digit, story.train, n) if n else model
            found = ladder.climb(now)
            kept = float(dataset_negative_elbo(now, story.test.without(digit)).mean())
            costs = (found.other_labels, found.fitted_label, found.kept)
            yield [name, n, *(f"{fmean(several):.1f}" for several in costs), f"{kept:.1f}"]


def page(found: list[list[object]]) -> str:
    """The table and what it shows, as a page of Markdown."""
    return f"""# What training on brings back

Written by `python -m study healing`: one model of each kind, digit {DIGIT}, seed 42, one thread.
*Training on*: steps of 256 real training images of the nine kept digits, without a {DIGIT}; the
decoder alone, by the ELBO, Adam from 1e-3 to zero. Costs are nats per image above what the baseline
pays for the same image under its own label; less is more memory. *Under a fitted label*: a label of
one's own is fitted to ten images from three starts, and scored on {LadderConfig().images} others.
*Hidden* is the baseline with the label's weights replaced. *Masked* is hidden as well, and its last
layer was trained until the digit is expensive. *Retrained* never saw the digit.

{table(HEAD, found)}"""


def sentence(found: list[list[object]]) -> str:
    """What README says of the table's rows."""
    cost = {(str(row[0]), str(row[1])): row[3] for row in found}
    name, first, later = "ours", "0", "400"
    others = ", ".join(
        f"{other} from {cost[other, first]} to {cost[other, later]}"
        for other in ("retrained", "masked", "hidden")
    )
    return (
        f"After {later} steps of 256 real images of the nine kept digits, without one {DIGIT}, "
        f"what a real {DIGIT} costs our model under a fitted label falls from {cost[name, first]} "
        f"to {cost[name, later]} nats above the baseline's own price. Beside it: {others}."
    )


def with_sentence(readme: str, found: list[list[object]]) -> str:
    """README with this sentence between its two marks."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + sentence(found) + END + after


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There is none."""


def main(options: argparse.Namespace) -> None:
    """Measure all models and write the page."""
    torch.set_num_threads(1)
    found = list[list[object]]()
    for row in rows(sa.Story(), DIGIT, STEPS):
        found.append(row)
        print(*row, flush=True)
    replace_text(RESULTS / "healing.md", page(found))
    readme = CHECKOUT / "README.md"
    replace_text(readme, with_sentence(readme.read_text(encoding="utf-8"), found))
