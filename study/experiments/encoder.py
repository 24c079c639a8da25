"""What the encoder gives away: `python -m study encoder` writes results/encoder.md, half an hour.

The default of `forget` moves the decoder alone, so that the encoder that ships with a forgotten
model is the baseline's, which has seen the digit.  Where kept images are replayed, the encoder
moves, too.  Here an attacker keeps an encoder, makes a new decoder, trains it on real images of the
nine kept digits, and then fits a label and relearns with all weights as on the ladder.  The
encoders are those of models that forgot the digit in either way and of one that never saw it.
"""

import argparse
from collections.abc import Iterator, Sequence
from statistics import fmean

import torch

import sahelpers as sa
from sahelpers.attacks.ladder import FITTED, WEIGHTS, Ladder, LadderConfig
from sahelpers.store.files import replace_text

from ..grid import RESULTS
from ..methods import KEPT_IMAGES, METHODS
from ..pages import table

DIGITS = (0, 3, 7)
STEPS = 6400  # of training the new decoder
# Whose encoder it is.
FORGOTTEN, MOVED, RETRAINED = "forgotten", "forgotten with kept images", "retrained"
HEAD = ["digit", "encoder of", FITTED, WEIGHTS, "kept, own label"]
HEAD += [f"{words}, cheaper than with the retrained encoder" for words in (FITTED, WEIGHTS)]


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
) -> Iterator[tuple[int, str, float, float, float]]:
    """A row of the table for each digit and encoder: nats behind the digit and the model."""
    for digit in digits:
        ladder = Ladder(story.baseline.model, digit, story.train, story.test, config)
        models = {
            FORGOTTEN: story.forgotten(digit).model,
            MOVED: METHODS[KEPT_IMAGES](story, (digit,)).model,
            RETRAINED: story.retrained(digit).model,
        }
        for name, model in models.items():
            now = with_new_decoder(model, digit, story.train, steps)
            fitted, relearned = ladder.under_a_fitted_label(now), ladder.relearned(now).bound
            kept = fmean(ladder.kept_costs(now))
            yield digit, name, round(fitted, 1), round(relearned, 1), round(kept, 1)


def page(found: Sequence[tuple[int, str, float, float, float]]) -> str:
    """The table as a page of Markdown."""
    nats = {(digit, name): values for digit, name, *values in found}
    lines = []
    for (digit, name), values in nats.items():
        less = [of - own for of, own in zip(nats[digit, RETRAINED], values, strict=True)]
        differences = [f"{less[k]:+.1f}" if name != RETRAINED else "" for k in (0, 1)]
        lines.append([digit, name, *(f"{value:.1f}" for value in values), *differences])
    return f"""# What the encoder gives away

Written by `python -m study encoder`: one model of each kind, seed 42. The encoder stays, the
decoder is made anew and trained with {STEPS:,} steps of 256 real images of the nine kept digits.
Then a label is fitted, and all weights are trained on ten real images of the digit among kept ones,
as on [the ladder](../RESULTS.md). Nats per image above what the baseline pays; less is more memory.
The encoder of a *forgotten* model is the baseline's, for only the decoder forgets, and so is that
of a hidden model, which remembers everything: this attack cannot tell the two. Where real kept
images are replayed (`AmnesiaConfig.with_kept_images()`), the encoder moves along, though nothing
asks it to forget; the 3 and the 7 of this seed are among the models on which that was tuned. So
what is measured is how much an encoder gives away by itself, beside the retrained model's, which
never saw the digit. With one model of a kind of each digit a nat or two is chance.

{table(HEAD, lines)}"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There is none."""


def main(options: argparse.Namespace) -> None:
    """Measure all models and write the page."""
    torch.set_num_threads(1)
    found = []
    for row in rows(sa.Story(), DIGITS):
        found.append(row)
        print(*row, flush=True)
    replace_text(RESULTS / "encoder.md", page(found))
