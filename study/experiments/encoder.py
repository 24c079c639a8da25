"""What the encoder gives away: `python -m study encoder` writes results/encoder.md, half an hour.

The default of `forget` moves the decoder alone, so that the encoder that ships with a forgotten
model is the baseline's, which has seen the digit.  Here an attacker keeps an encoder, makes a new
decoder, trains it on real images of the nine kept digits, and then fits a label and relearns with
all weights as on the ladder.  The encoders are those of models that forgot, that hide the digit and
that never saw it.
"""

import argparse
from collections.abc import Iterator
from statistics import fmean

import torch

import sahelpers as sa
from sahelpers.attacks.ladder import FITTED, WEIGHTS, Ladder, LadderConfig
from sahelpers.store.files import replace_text

from ..grid import RESULTS
from ..results_page import table

DIGITS = (0, 3, 7)
STEPS = 6400  # of training the new decoder
HEAD = ["digit", "encoder of", FITTED, WEIGHTS, "kept, own label"]


def with_new_decoder(
    model: sa.CVAE, forget_class: int, data: sa.LabelledImages, steps: int = STEPS
) -> sa.CVAE:
    """The model with a decoder that was made anew and trained on kept images alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        new = sa.CVAE(model.arch, model.latent_dim, model.num_classes, model.image_shape)
    new.encoder.load_state_dict(model.encoder.state_dict())
    return sa.heal(new.eval(), forget_class, data, steps)


def rows(
    story: sa.Story,
    digits: tuple[int, ...],
    steps: int = STEPS,
    config: LadderConfig | None = None,
) -> Iterator[list[object]]:
    """A row of the table for each digit and encoder."""
    for digit in digits:
        ladder = Ladder(story.baseline.model, digit, story.train, story.test, config)
        models = {
            "forgotten": story.forgotten(digit).model,
            "hidden": story.hidden(digit),
            "retrained": story.retrained(digit).model,
        }
        for name, model in models.items():
            now = with_new_decoder(model, digit, story.train, steps)
            fitted, relearned = ladder.under_a_fitted_label(now), ladder.relearned(now).bound
            numbers = fitted, relearned, fmean(ladder.kept_costs(now))
            yield [digit, name, *(f"{nats:.1f}" for nats in numbers)]


def page(found: list[list[object]]) -> str:
    """The table as a page of Markdown."""
    return f"""# What the encoder gives away

Written by `python -m study encoder`: one model of each kind, seed 42. The encoder stays, the
decoder is made anew and trained with {STEPS:,} steps of 256 real images of the nine kept digits.
Then a label is fitted, and all weights are trained on ten real images of the digit among kept ones,
as on [the ladder](../RESULTS.md). Nats per image above what the baseline pays; less is more memory.
The encoder of a forgotten and of a hidden model is the baseline's, except that in the hidden one
the weights of the label are reset; the retrained one never saw the digit.

{table(HEAD, found)}"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There is none."""


def main(options: argparse.Namespace) -> None:
    """Measure all models and write the page."""
    torch.set_num_threads(1)
    found = list[list[object]]()
    for row in rows(sa.Story(), DIGITS):
        found.append(row)
        print(*row, flush=True)
    replace_text(RESULTS / "encoder.md", page(found))
