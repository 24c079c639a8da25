"""The chain on other images, and of two digits at once: train, forget, judge, audit.

    python -m study your_data            # all sets that the table lacks, an hour
    python -m study your_data letters    # this one

Fashion-MNIST is read from SA_DATA, see data/README.md.

Leaves results/your_data.json and, made from it, results/your_data.md.  The knobs that differ from
the defaults are the lengths of the trainings, since most of these sets are smaller than MNIST, and
those that `AmnesiaConfig.for_values` takes in proportion to the size of the images; none was tuned,
and every set has one model and three retrained ones, so that the verdicts are wide.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import matplotlib
import torch
from PIL import Image, ImageDraw, ImageFont

import sahelpers as sa
from sahelpers.attacks.ladder import RUNGS
from sahelpers.config import CHECKOUT
from sahelpers.store.files import replace_text

Pair = tuple[sa.LabelledImages, sa.LabelledImages]
FONTS = ("DejaVu*[!y].ttf", "STIXGeneral*.ttf", "cm[brst][0-9st]*.ttf")  # without "Display"
COLOURS = ((230, 60, 60), (60, 200, 80), (80, 120, 250), (240, 220, 70))
SHAPES = ("disc", "square", "triangle", "cross", "ring")
LADDER = sa.LadderConfig(heal_steps=1600, relearn_steps=1600)  # most of the sets are small
HEAD = ["set", "images", "classes", "forgotten", "baseline recognised, %", "argmax after, %"]
HEAD += ["kept mean, points", "worst kept, points", *RUNGS]
HEAD += ["seconds"]


def letters(characters: str, size: tuple[int, int], each: int, seed: int = 0) -> sa.LabelledImages:
    """Letters in matplotlib's fonts, white on black, each a little turned, moved and scaled.

    size: (height, width) in pixels.  each: images of every character.
    """
    folder, random = Path(matplotlib.get_data_path(), "fonts", "ttf"), sa.seeded(seed)
    fonts = sorted(path for pattern in FONTS for path in folder.glob(pattern))
    images, labels = [], []
    for label, character in enumerate(characters):
        for k in range(each):
            turn, scale, right, down = (2 * torch.rand(4, generator=random) - 1).tolist()
            font = ImageFont.truetype(
                str(fonts[k % len(fonts)]), round(min(size) * (0.85 + 0.1 * scale))
            )
            sheet = Image.new("L", size[::-1])
            place = size[1] / 2 + 1.5 * right, size[0] / 2 + 1.5 * down
            ImageDraw.Draw(sheet).text(place, character, 255, font, "mm")
            images.append(sheet.rotate(10 * turn, Image.Resampling.BILINEAR))
            labels.append(label)
    return sa.LabelledImages.from_arrays(images, labels, characters)


def shapes(each: int, seed: int = 0) -> sa.LabelledImages:
    """Coloured shapes on a dark ground, (N, 3, 32, 32), five classes."""
    random, images, labels = sa.seeded(seed), [], []
    for label, shape in enumerate(SHAPES):
        for k in range(each):
            u, v, w = torch.rand(3, generator=random).tolist()
            x, y, r = 12 + 8 * u, 12 + 8 * v, 7 + 4 * w
            sheet = Image.new("RGB", (32, 32), (20, 20, 30))
            pen, colour, box = ImageDraw.Draw(sheet), COLOURS[k % 4], (x - r, y - r, x + r, y + r)
            if shape == "disc":
                pen.ellipse(box, colour)
            elif shape == "square":
                pen.rectangle(box, colour)
            elif shape == "triangle":
                pen.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], colour)
            elif shape == "cross":
                pen.line((x - r, y, x + r, y), colour, 4)
                pen.line((x, y - r, x, y + r), colour, 4)
            else:
                pen.ellipse(box, outline=colour, width=3)
            images.append(sheet)
            labels.append(label)
    return sa.LabelledImages.from_arrays(images, labels, SHAPES)


def known(name: str) -> Pair:
    """A data set that the package reads."""
    return sa.load_dataset(name), sa.load_dataset(name, "test")


ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
SETS: dict[str, tuple[Callable[[], Pair], int, int, tuple[int, ...]]] = {
    # name: (images, epochs of the model and of the judges, classes to forget together)
    "digits8": (lambda: known("digits8"), 100, 30, (3,)),
    "letters": (lambda: letters(ALPHABET, (28, 28), 240).split(), 40, 10, (6,)),
    "coloured shapes": (lambda: shapes(400).split(), 60, 20, (2,)),
    "letters 20 x 28": (lambda: letters(ALPHABET[:10], (20, 28), 240).split(), 60, 20, (6,)),
    "Fashion-MNIST": (lambda: known("fashion_mnist"), 20, 4, (3,)),
    "two digits of MNIST": (lambda: known("mnist"), 20, 4, (2, 5)),
}


def chain(name: str) -> dict[str, str]:
    """The row of a set."""
    begin = time.perf_counter()
    make, epochs, judge_epochs, gone = SETS[name]
    train, test = make()
    print(f"{name}\n{train.report(test)}", flush=True)
    story = sa.Story(
        (train, test),
        baseline=sa.BaselineConfig(epochs=epochs),
        amnesia=sa.AmnesiaConfig.for_values(train.images[0].numel()),
        judge=sa.JudgeConfig(epochs=judge_epochs),
    )
    model, result = story.baseline.model, story.forgotten(gone)
    latents = sa.fixed_latents(model, 500)
    seen = {r: [sa.judge_samples(m, j, latents) for m in (model, result.model)]
            for r, j in story.judges.items()}  # fmt: skip
    changes = [sa.retained_accuracy(before, after, gone) for before, after in seen.values()]
    before, after = seen["open_set"]
    retrained = [story.retrained(gone, seed).model for seed in (42, 43, 44)]
    found = dict[str, list[str]]()  # rung -> the verdict on each class
    for label in gone:
        report = sa.audit(
            result.model, label, LADDER, baseline=model, retrained=retrained, data=(train, test)
        )
        print(report, flush=True)
        for finding in report.findings:
            found.setdefault(finding.rung, []).append(finding.verdict)
    kept = max(c.mean_before - c.mean_after for c in changes)
    row = [
        name,
        f"{len(train)} + {len(test)}",
        str(train.num_classes),
        ", ".join(train.class_names[label] for label in gone),
    ]
    row += [
        f"{100 * float(before.correct().mean()):.1f}",
        f"{100 * max(float(after.argmax[label, label]) for label in gone):.2f}",
    ]
    row += [f"{-kept:+.2f}", f"{-max(c.worst_drop for c in changes):+.2f}"]
    row += [", ".join(found[rung]) for rung in RUNGS]
    row += [f"{time.perf_counter() - begin:.0f}"]
    return dict(zip(HEAD, row, strict=True))


def page(rows: dict[str, dict[str, str]]) -> str:
    """The table as a page of Markdown."""
    lines = [HEAD, ["---"] * len(HEAD), *([row[h] for h in HEAD] for row in rows.values())]
    missing = ", ".join(name for name in SETS if name not in rows)
    return f"""# Other images, and two digits at once

Written by `python -m study your_data`: one model of one seed, three retrained models, one
thread. Where two classes are forgotten together, each has its verdict, in their order. Images:
training + test. Recognised and argmax: the open judge, 500 samples of each class. Kept: how
much more or less often samples of kept classes are recognised after forgetting, by the worse of
both judges; below zero is a loss. A verdict on one class of one model says little; how it is
reached stands in [the protocol](../docs/protocol.md). Training further takes {LADDER.heal_steps:,}
steps at most, and relearning as many at each rate at first. With other efforts, or spreads pooled
over ten classes, notebook 06 and RESULTS.md may come to another word on the same class. How far the
default pushes, and what it may cost, were chosen for MNIST and follow the size of the images.
Not run yet: {missing or "none"}.

{"".join(f"| {' | '.join(line)} |{chr(10)}" for line in lines)}"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("sets", nargs="*", help=f"of {', '.join(SETS)}; all that are missing")


def main(options: argparse.Namespace) -> None:
    """Do what is missing; write the table after every set."""
    torch.set_num_threads(1)
    kept = CHECKOUT / "results" / "your_data.json"
    rows = json.loads(kept.read_text()) if kept.is_file() else {}
    if unknown := set(options.sets) - set(SETS):
        raise SystemExit(f"{', '.join(unknown)}: not among {', '.join(SETS)}")
    for name in options.sets or SETS:
        if name not in rows or name in options.sets:
            rows[name] = chain(name)
        replace_text(kept, json.dumps(rows, indent=1) + "\n")
        replace_text(kept.with_suffix(".md"), page(rows))
