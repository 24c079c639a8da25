"""Cost against effort: `python -m study effort` writes results/effort.json, 40 minutes.

Models of the 3 climb the ladder with more and more effort: steps of fitting a label, of training
further with the nine kept digits before that, and of relearning with all weights.  The hidden and
the masked model know the 3 by construction, ours forgot it by the default of `forget`, one more
with the kept images replayed and others by versions 3 and 4, and the retrained one never saw it.
Notebook 04 draws the curves, and README has a table.  `--models ours` measures one kind anew and
keeps the curves of the others, and so does a command that is stopped.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

import torch

import sahelpers as sa
from sahelpers.attacks.ladder import (
    FIRST_STAGE,
    FITTED,
    HEALED_FITTED,
    WEIGHTS,
    Ladder,
    LadderConfig,
)
from sahelpers.config import CHECKOUT
from sahelpers.store.files import replace_text

from ..grid import RESULTS
from ..methods import KEPT_IMAGES, MASKED, METHODS, VERSION3, VERSION4
from ..pages import between_marks, table

DIGIT = 3
FILE = RESULTS / "effort.json"
FIT_STEPS = (25, 100, 400, 800)
HEAL_STEPS = (0, 100, 400, 1600, 6400)  # of 256 kept images each
KEPT = "with kept images"
BEGIN, END = "<!-- by `python -m study effort` -->", "<!-- end -->"  # in README


def _by(method: str) -> Callable[[sa.Story, int], sa.CVAE]:
    """The model that a method ends in."""
    return lambda story, digit: METHODS[method](story, (digit,)).model


MODELS: dict[str, Callable[[sa.Story, int], sa.CVAE]] = {
    "hidden": lambda story, digit: story.hidden(digit),
    "masked": _by(MASKED),
    "version 3": _by(VERSION3),
    "version 4": _by(VERSION4),
    "ours": lambda story, digit: story.forgotten(digit).model,
    KEPT: _by(KEPT_IMAGES),
    "retrained": lambda story, digit: story.retrained(digit).model,
}


def curves(
    story: sa.Story,
    digit: int,
    fit_steps: tuple[int, ...] = FIT_STEPS,
    heal_steps: tuple[int, ...] = HEAL_STEPS,
    config: LadderConfig | None = None,
    models: Sequence[str] = tuple(MODELS),
) -> Iterator[dict[str, Any]]:
    """For each model and rung: how many steps, and what the digit's images cost then, in nats."""
    ladder = Ladder(story.baseline.model, digit, story.train, story.test, config)
    for name in models:
        model = MODELS[name](story, digit)
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


def shown(found: list[dict[str, Any]]) -> str:
    """What README shows of the curves: each model before it is trained further, and afterwards."""
    cost = {
        of["model"]: dict(zip(of["steps"], of["cost"], strict=True))
        for of in found
        if of["rung"] == HEALED_FITTED
    }
    if not {"ours", "retrained"} <= cost.keys():
        return "Ours or the retrained model is not measured yet: `python -m study effort`."
    steps = list(cost["ours"])
    excess = cost["retrained"][steps[-1]] - cost["ours"][steps[-1]]
    third = ""
    if "masked" in cost:
        gap = cost["retrained"][steps[-1]] - cost["masked"][steps[-1]]
        third = f" The limit, a third of the masked model's excess, is {gap / 3:.1f} nats there."
    most = LadderConfig().heal_steps
    first = round(FIRST_STAGE * most)
    told = {"ours": "ours", KEPT: "the model with kept images", "retrained": "the retrained model"}
    goes = [
        f"from {cost[name][steps[-2]]:.1f} to {cost[name][steps[-1]]:.1f} nats in {words}"
        for name, words in told.items()
        if name in cost
    ]
    rows = [
        [name, *(f"{of[n]:.1f}" if n in of else "" for n in steps)] for name, of in cost.items()
    ]
    return (
        "Each model is trained further with real images of the nine kept digits, 256 a step and "
        f"not one {DIGIT} among them. Then real images of the {DIGIT} cost it so many nats under a "
        "fitted label, above what they cost the baseline; less is more memory:\n\n"
        + table(["steps", *(f"{n:,}" for n in steps)], rows)
        + f"\nFrom {steps[-2]:,} to {steps[-1]:,} steps the cost goes "
        + " and ".join([", ".join(goes[:-1]), goes[-1]])
        + f". At {steps[-1]:,} steps ours is {abs(excess):.1f} nats "
        + ("cheaper" if excess > 0 else "more expensive")
        + f" than the retrained one.{third} This is one model of one digit. The ladder stops at "
        f"{most:,} steps, and its verdicts hold for that; by its rule one model of each kind would "
        f"be no pass. The ladder also trains in two stages, {first:,} steps and then "
        f"{most - first:,} more, each of which begins at the full learning rate; here it is one "
        "stage, which makes some nats of difference."
    )


def with_table(readme: str, found: list[dict[str, Any]]) -> str:
    """README with these lines between its two marks."""
    return between_marks(readme, BEGIN, [shown(found)], END)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which kinds of models are measured."""
    names = ", ".join(MODELS)
    parser.add_argument(
        "--models", nargs="+", default=list(MODELS), choices=list(MODELS), help=f"of {names}"
    )


def main(options: argparse.Namespace) -> None:
    """Measure the models that are asked for; after each write the file and README's table."""
    torch.set_num_threads(1)
    found = [] if not FILE.exists() else json.loads(FILE.read_text(encoding="utf-8"))["curves"]
    measured = curves(sa.Story(), DIGIT, models=list(dict.fromkeys(options.models)))
    for name, several in groupby(measured, key=itemgetter("model")):
        found = [of for of in found if of["model"] != name]
        for curve in several:
            curve["cost"] = [round(nats, 2) for nats in curve["cost"]]
            found.append(curve)
            print(curve["model"], curve["rung"], curve["cost"], flush=True)
        write(found)


def write(found: list[dict[str, Any]]) -> None:
    """The file and README's table, of these curves."""
    found = sorted(found, key=lambda of: list(MODELS).index(of["model"]))
    lines = ",\n".join(json.dumps(curve) for curve in found)
    replace_text(FILE, f'{{"digit": {DIGIT}, "curves": [\n{lines}\n]}}\n')
    readme = CHECKOUT / "README.md"
    replace_text(readme, with_table(readme.read_text(encoding="utf-8"), found))
