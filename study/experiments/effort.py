"""Cost against effort: `python -m study effort` writes results/effort.json, twenty minutes.

Models of the 3 climb the ladder with more and more effort: steps of fitting a label, of training on
with the nine kept digits before that, and of relearning with all weights.  The hidden and the
masked model know the 3 by construction, ours forgot it by the default of `forget`, and the
retrained one never saw it.  Notebook 04 draws the curves, and README has a sentence.
"""

import argparse
import json
from collections.abc import Iterator
from typing import Any

import torch

import sahelpers as sa
from sahelpers.attacks.ladder import FITTED, HEALED_FITTED, WEIGHTS, Ladder, LadderConfig
from sahelpers.config import CHECKOUT
from sahelpers.store.files import replace_text

from ..grid import RESULTS
from ..results_page import between_marks

DIGIT = 3
FILE = RESULTS / "effort.json"
FIT_STEPS = (25, 100, 400, 800)
HEAL_STEPS = (0, 100, 400, 1600)  # of 256 kept images each
BEGIN, END = "<!-- by `python -m study effort` -->", "<!-- end -->"  # in README


def models(story: sa.Story, digit: int) -> Iterator[tuple[str, sa.CVAE]]:
    """The kinds of models, each with its name."""
    yield "hidden", story.hidden(digit)
    yield "masked", sa.masked_model(story.baseline.model, digit)
    yield "ours", story.forgotten(digit).model
    yield "retrained", story.retrained(digit).model


def curves(
    story: sa.Story,
    digit: int,
    fit_steps: tuple[int, ...] = FIT_STEPS,
    heal_steps: tuple[int, ...] = HEAL_STEPS,
    config: LadderConfig | None = None,
) -> Iterator[dict[str, Any]]:
    """For each model and rung: how many steps, and what the digit's images cost then, in nats."""
    ladder = Ladder(story.baseline.model, digit, story.train, story.test, config)
    for name, model in models(story, digit):
        fitted = [ladder.under_a_fitted_label(model, n) for n in fit_steps]
        yield {"model": name, "rung": FITTED, "steps": fit_steps, "cost": fitted}
        healed = []
        for n in heal_steps:
            rate, seed = ladder.config.heal_rate, ladder.config.seed
            now = sa.heal(model, digit, story.train, n, rate=rate, seed=seed) if n else model
            healed.append(ladder.under_a_fitted_label(now))
        yield {"model": name, "rung": HEALED_FITTED, "steps": heal_steps, "cost": healed}
        curve = ladder.relearned(model).curve
        yield {"model": name, "rung": WEIGHTS, "steps": [*curve], "cost": [*curve.values()]}


def sentence(found: list[dict[str, Any]]) -> str:
    """What README says of the curves."""
    cost = {
        of["model"]: dict(zip(of["steps"], of["cost"], strict=True))
        for of in found
        if of["rung"] == HEALED_FITTED
    }
    first, *_, last = cost["ours"]

    def change(name: str) -> str:
        return f"from {cost[name][first]:.1f} to {cost[name][last]:.1f}"

    others = ", ".join(f"{name} {change(name)}" for name in cost if name != "ours")
    return (
        f"When the model is trained on with {last:,} steps of 256 real images of the nine kept "
        f"digits, without one {DIGIT}, what a real {DIGIT} costs it under a fitted label goes "
        f"{change('ours')} nats above the baseline's own price. Beside it: {others}."
    )


def with_sentence(readme: str, found: list[dict[str, Any]]) -> str:
    """README with this sentence between its two marks."""
    return between_marks(readme, BEGIN, [sentence(found)], END)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There is none."""


def main(options: argparse.Namespace) -> None:
    """Measure all models and write the file and README's sentence."""
    torch.set_num_threads(1)
    found = list[dict[str, Any]]()
    for curve in curves(sa.Story(), DIGIT):
        curve["cost"] = [round(nats, 2) for nats in curve["cost"]]
        found.append(curve)
        print(curve["model"], curve["rung"], curve["cost"], flush=True)
    lines = ",\n".join(json.dumps(curve) for curve in found)
    replace_text(FILE, f'{{"digit": {DIGIT}, "curves": [\n{lines}\n]}}\n')
    readme = CHECKOUT / "README.md"
    replace_text(readme, with_sentence(readme.read_text(encoding="utf-8"), found))
