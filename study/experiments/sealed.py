"""Healings that are not in the loop: `python -m study sealed` writes results/sealed.md.

It takes an hour and a half of one core, and goes on where it was stopped.

The default of `forget` was made with one way of training on in mind, that of its shadow, and the
ladder trains on in the same way for longer.  Here an attacker goes other ways.  They were named
with the seeds and the digits in docs/protocol.md before the default met any of them.
"""

import argparse
import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

import sahelpers as sa
from sahelpers.attacks.ladder import HEALED_FITTED, Ladder, LadderConfig
from sahelpers.attacks.verdicts import Finding, compare, pooled
from sahelpers.attacks.weights import damage
from sahelpers.elbo import negative_elbo
from sahelpers.models import draw_normal
from sahelpers.store.files import replace_text

from .. import journal
from ..grid import RESULTS
from ..methods import MASKED, METHODS
from ..results_page import table

DIGITS = (8, 5)
MODELS = [("ours", 52), ("ours", 53), ("masked", 52), ("masked", 53)]  # kind and seed
MODELS += [("retrained", 42), ("retrained", 43), ("retrained", 44)]
BATCH = 256
LAST_LAYER_STEPS, LAST_LAYER_RATE = 3200, 1e-2
PASSES, RECIPE_RATE = 5, 2e-3  # of the baseline's recipe, with batches of 128
DAMAGE = 0.5  # of noise: share of the root mean square; of pruning: share of the weights
AFTER_DAMAGE = 1600  # steps of training on
BOTH_STEPS, BOTH_RATE = 1600, 1e-3
JOURNAL = RESULTS / "sealed.jsonl"

Healing = Callable[[sa.CVAE, int, sa.LabelledImages], sa.CVAE]


@torch.enable_grad()
def trained(
    model: sa.CVAE,
    weights: Sequence[torch.nn.Parameter],
    kept: sa.LabelledImages,
    steps: int,
    rate: float,
    batch_size: int = BATCH,
) -> sa.CVAE:
    """Train some weights of the model on kept images by the negative ELBO, at a falling rate."""
    optimizer = torch.optim.Adam(weights, lr=rate, fused=True)
    fall = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0, total_iters=steps)
    generator = sa.seeded(0)
    for _ in range(steps):
        chosen = torch.randint(len(kept), (batch_size,), generator=generator)
        noise = draw_normal((batch_size, model.latent_dim), model, generator)
        optimizer.zero_grad()
        negative_elbo(model, kept.images[chosen], kept.labels[chosen], noise).mean().backward()
        optimizer.step()
        fall.step()
    return model.requires_grad_(True)


def last_layer(model: sa.CVAE, digit: int, data: sa.LabelledImages) -> sa.CVAE:
    """(a) The decoder's last layer is made anew and fitted to kept images until it rests."""
    model = copy.deepcopy(model).requires_grad_(False)
    layer = [part for part in model.decoder.modules() if isinstance(part, torch.nn.Linear)][-1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layer.reset_parameters()
    weights = list(layer.requires_grad_(True).parameters())
    return trained(model, weights, data.without(digit), LAST_LAYER_STEPS, LAST_LAYER_RATE)


def recipe(model: sa.CVAE, digit: int, data: sa.LabelledImages) -> sa.CVAE:
    """(b) All weights go on by the baseline's batches and learning rate."""
    model = copy.deepcopy(model)
    kept = data.without(digit)
    steps = PASSES * len(kept) // 128
    return trained(model, list(model.parameters()), kept, steps, RECIPE_RATE, batch_size=128)


def damaged(model: sa.CVAE, digit: int, data: sa.LabelledImages, kind: str) -> sa.CVAE:
    """(c) The decoder is disturbed by noise, or pruned, and then trained on."""
    return sa.heal(damage(model, kind, DAMAGE, 0), digit, data, AFTER_DAMAGE)


def both_halves(model: sa.CVAE, digit: int, data: sa.LabelledImages) -> sa.CVAE:
    """(d) Encoder and decoder are trained on together."""
    model = copy.deepcopy(model)
    weights = list(model.parameters())
    return trained(model, weights, data.without(digit), BOTH_STEPS, BOTH_RATE)


HEALINGS: dict[str, Healing] = {
    "last layer anew": last_layer,
    "baseline's recipe": recipe,
    "noise, then trained on": partial(damaged, kind="noise"),
    "pruned, then trained on": partial(damaged, kind="pruning"),
    "encoder and decoder": both_halves,
}


def make(kind: str, seed: int, digit: int) -> sa.CVAE:
    """The model of this kind and seed: "ours", "masked" or "retrained"."""
    story = sa.Story(baseline=sa.BaselineConfig(seed=seed), amnesia=sa.AmnesiaConfig(seed=seed))
    if kind == "masked":
        return METHODS[MASKED](story, (digit,)).model
    return (story.forgotten(digit) if kind == "ours" else story.retrained(digit)).model


def measure(path: Path, config: LadderConfig | None = None) -> list[dict[str, Any]]:
    """Heal and attack every model that the journal lacks; all lines of the journal.

    Args:
        path: The journal, with a line for each model: digit, kind, seed, and healing -> nats
            under a fitted label.
        config: How much the ladder tries.

    Returns:
        The lines.
    """
    found = [line for _, line in journal.lines(path)]
    known = {(line["digit"], line["kind"], line["seed"]) for line in found}
    story = sa.Story()
    for digit in DIGITS:
        todo = [of for of in MODELS if (digit, *of) not in known]
        if not todo:
            continue
        ladder = Ladder(story.baseline.model, digit, story.train, story.test, config)
        for kind, seed in todo:
            model = make(kind, seed, digit)
            nats = {}
            for name, heal in HEALINGS.items():
                cost = ladder.under_a_fitted_label(heal(model, digit, story.train))
                nats[name] = round(cost, 2)
            found.append({"digit": digit, "kind": kind, "seed": seed, "nats": nats})
            print(*found[-1].values(), flush=True)
            journal.append(path, found[-1])
    return found


def findings(lines: Sequence[Mapping[str, Any]]) -> dict[str, dict[int, Finding]]:
    """Healing -> digit -> finding, the spreads pooled over the digits as on the ladder."""
    digits = sorted({of["digit"] for of in lines})
    found: dict[str, dict[int, Finding]] = {}
    for healing in HEALINGS:
        costs = {
            digit: [
                [of["nats"][healing] for of in lines if (of["digit"], of["kind"]) == (digit, kind)]
                for kind in ("ours", "masked", "retrained")
            ]
            for digit in digits
        }
        spreads = [pooled(groups) for groups in zip(*costs.values(), strict=True)]
        found[healing] = {
            digit: compare(HEALED_FITTED, ours, masked, retrained, spreads)
            for digit, (ours, masked, retrained) in costs.items()
        }
    return found


def page(lines: Sequence[Mapping[str, Any]]) -> str:
    """The findings as a page of Markdown."""
    rows = [
        [
            healing, digit, f"{f.model:.1f}", f"{f.known:.1f}", f"{f.retrained:.1f}",
            f"{f.excess:+.1f} ({f.low:+.1f} to {f.high:+.1f})", f.verdict,
        ]
        for healing, of in findings(lines).items()
        for digit, f in of.items()
    ]  # fmt: skip
    head = ["healing", "digit", "ours", "masked", "retrained", "excess of memory", "verdict"]
    return f"""# Healings that are not in the loop

Written by `python -m study sealed`, as [the protocol](../docs/protocol.md) fixed it before. Each
model is healed in a way that neither the loop nor the ladder uses. Then a label is fitted and
scored as on the second rung. Nats per image above what the baseline of seed 42 pays; less is more
memory. Kinds and seeds: {", ".join(f"{kind} {seed}" for kind, seed in MODELS)}.

{table(head, rows)}"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There is none."""


def main(options: argparse.Namespace) -> None:
    """Measure all models that are missing and write the page."""
    torch.set_num_threads(1)
    replace_text(RESULTS / "sealed.md", page(measure(JOURNAL)))
