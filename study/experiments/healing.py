"""What training on brings back: `python -m study healing` writes results/healing.md, two minutes.

The hidden, the forgotten and the retrained model of the 3 are trained on, on real images of the
nine digits that they kept, and then asked what real images of the 3 cost.
"""

import argparse

import torch

import sahelpers as sa
from sahelpers.elbo import dataset_negative_elbo
from sahelpers.store.files import replace_text

from ..grid import RESULTS
from ..results_page import table

DIGIT = 3
STEPS = (0, 400, 1600)  # of 256 kept images each
IMAGES = 100  # of the digit, under other labels
SETS, SIZE = 3, 10  # sets of images that a label is fitted to, and images in each


def costs(model: sa.CVAE, baseline: sa.CVAE, test: sa.LabelledImages) -> tuple[float, float]:
    """Nats per image of the digit above the baseline's own price: under the cheapest of the other
    labels, and under a label that is fitted to ten of them."""
    images = test.only(DIGIT).take(IMAGES, 42).images
    own, _ = sa.image_cost(baseline, images, torch.tensor([DIGIT]))
    others = torch.tensor([k for k in range(model.num_classes) if k != DIGIT])
    cheapest = sa.image_cost(model, images, others)[0].min(1).values
    sets = images[: SETS * SIZE].unflatten(0, (SETS, SIZE))
    fitted, _, _ = sa.fit_label(model, DIGIT, sets)
    return float((cheapest - own[:, 0]).mean()), float(fitted.mean() - own[: SETS * SIZE].mean())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None."""


def main(options: argparse.Namespace) -> None:
    """Measure all three models and write the table."""
    torch.set_num_threads(1)
    story = sa.Story()
    baseline = story.baseline.model
    models = {
        "hidden": story.hidden(DIGIT),
        "ours": story.forgotten(DIGIT).model,
        "retrained": story.retrained(DIGIT).model,
    }
    rows = []
    for name, model in models.items():
        for steps in STEPS:
            now = sa.heal(model, DIGIT, story.train, steps) if steps else model
            kept = float(dataset_negative_elbo(now, story.test.without(DIGIT)).mean())
            numbers = (*costs(now, baseline, story.test), kept)
            rows.append([name, steps, *(f"{number:.1f}" for number in numbers)])
            print(*rows[-1], flush=True)
    head = ["model", "steps of training on", "cost under other labels", "cost under a fitted label"]
    text = table([*head, "negative ELBO of kept digits"], rows)
    replace_text(RESULTS / "healing.md", text)
