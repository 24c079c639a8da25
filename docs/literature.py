"""The figures that other papers report, of ours, of what it is compared with, and of retraining.

    python docs/literature.py [--jobs 2]

Ten digits, seed 42; half an hour of two cores.  All samples come from N(0, I), the ten-way judge
judges, and percentages count samples.
results/literature.jsonl has a line per model and is what the table is made of; a command that was
stopped goes on from it.  results/literature.md becomes a part of RESULTS.md.
"""

from collections.abc import Iterator
from functools import lru_cache
from itertools import combinations, product
from statistics import fmean
from typing import Any, NamedTuple

import pieces
import torch
from torch import Tensor

import sahelpers as sa
from sahelpers.config import kept_classes
from sahelpers.judges import Judge, frechet_distance
from sahelpers.models import CVAE, seeded
from sahelpers.study import methods, report
from sahelpers.study.methods import BASELINE, CONTROL, HIDDEN, OURS

COMPARED = (BASELINE, HIDDEN, "saliency mask", "reference, 3 passes", OURS, CONTROL)
SAMPLES, NEIGHBOURS, DRAWS = 1000, 3, 20
JOURNAL = report.RESULTS / "literature.jsonl"
COLUMNS = {  # key: (title, whether it counts for the average gap)
    "p": ("P(c_f)", False),
    "entropy": ("entropy, nats", False),
    "unlearning": ("unlearning accuracy, %", True),
    "retain": ("retain accuracy, %", True),
    "precision": ("precision, %", True),
    "recall": ("recall, %", True),
    "frechet": ("worst class's Fréchet, % worse", False),
    "mixtures": ("drift of kept mixtures", False),
}


class Model(NamedTuple):
    """One model that is measured on the digit that it forgot."""

    digit: int
    method: str


def models() -> list[Model]:
    """All of them, digit by digit."""
    return [Model(digit, method) for digit, method in product(range(10), COMPARED)]


@lru_cache(maxsize=1)
def story() -> sa.Story:
    """The default one."""
    return sa.Story()


def precision_recall(real: Tensor, drawn: Tensor) -> tuple[float, float]:
    """Shares of drawn features (N, D) that lie among the real ones, and of real ones (M, D) that
    lie among the drawn: within the distance of some point to its third neighbour in its own set
    (Kynkäänniemi et al. 2019)."""

    def among(points: Tensor, others: Tensor) -> float:
        reach = torch.cdist(others, others).kthvalue(NEIGHBOURS + 1, dim=1).values  # 1st: itself
        return float((torch.cdist(points, others) <= reach).any(1).float().mean())

    return among(drawn, real), among(real, drawn)


@torch.no_grad()
def features(judge: Judge, images: Tensor) -> Tensor:
    """Of images (N, C, H, W): (N, D)."""
    return torch.cat([judge.features(part) for part in images.split(500)])


@torch.no_grad()
def mixtures(model: CVAE, digit: int) -> Tensor:
    """Images halfway between every two kept labels, at the same z for every model."""
    z = torch.randn(DRAWS, model.latent_dim, generator=seeded(0))
    drawn = []
    for pair in combinations(kept_classes(digit), 2):
        label = torch.zeros(DRAWS, 10)
        label[:, list(pair)] = 0.5
        drawn.append(model.decode(z, label))
    return torch.cat(drawn)


def measure(piece: Model) -> dict[str, Any]:
    """The figures of one model; distances in %, not yet changes."""
    own, (digit, method) = story(), piece
    if method == BASELINE:
        model = own.baseline.model
    elif method == CONTROL:
        model = own.control(digit).model
    else:
        model = methods.METHODS[method](own, (digit,)).model
    judge, test, kept = own.judges["plain"], own.test, kept_classes(digit)
    drawn = {
        c: model.sample(torch.full((SAMPLES,), c), "standard", seeded(c)) for c in (digit, *kept)
    }
    said = {c: judge.probabilities(images) for c, images in drawn.items()}
    right = {c: 100 * float((p.argmax(1) == c).float().mean()) for c, p in said.items()}
    few = SAMPLES // 4  # per class: real ones are about a thousand
    real = torch.cat([features(judge, test.only(c).take(few).images) for c in kept])
    fake = torch.cat([features(judge, drawn[c][:few]) for c in kept])
    precision, recall = precision_recall(real, fake)
    drift = mixtures(model, digit) - mixtures(own.baseline.model, digit)
    return {
        "p": float(said[digit][:, digit].mean()),
        "entropy": float(torch.special.entr(said[digit]).sum(1).mean()),
        "unlearning": 100 - right[digit],
        "retain": fmean(right[c] for c in kept),
        "precision": 100 * precision,
        "recall": 100 * recall,
        "frechet": [frechet_distance(judge, drawn[c], test.only(c).images) for c in kept],
        "mixtures": float(drift.square().mean().sqrt()),
    }


def tables() -> Iterator[str]:
    """Means over digits, and the average gap to retraining."""
    done = pieces.read(JOURNAL, Model)
    whole = [d for d in range(10) if all(Model(d, method) in done for method in COMPARED)]
    if not whole:
        yield "Still to be run."
        return
    heads = [title for title, _ in COLUMNS.values()]
    yield f"| method | {' | '.join(heads)} | average gap |"
    yield "|---" * (2 + len(heads)) + "|"
    for method in COMPARED:
        cells = []
        for key in COLUMNS:
            of = [done[Model(d, method)][key] for d in whole]
            if key == "frechet":
                before = [done[Model(d, BASELINE)][key] for d in whole]
                pairs = (zip(a, b, strict=True) for a, b in zip(of, before, strict=True))
                of = [max(100 * (x / y - 1) for x, y in pair) for pair in pairs]
            other_space = method == CONTROL and key == "mixtures"  # its z means something else
            cells.append("-" if other_space else f"{fmean(of):.3g}")
        gaps = [
            abs(done[Model(d, method)][key] - done[Model(d, CONTROL)][key])
            for d in whole
            for key, (_, counts) in COLUMNS.items()
            if counts
        ]
        yield f"| {method} | {' | '.join(cells)} | {fmean(gaps):.2f} |"
    if left := pieces.missing(JOURNAL, models()):
        yield f"\nOf the digits {whole}; still to be measured: {len(left)} models."


def picture(digit: int = 3) -> None:
    """results/mixtures.png: walks between two kept labels before and after the digit was forgotten,
    for the pairs whose mixtures drift least, most, and as the pair in the middle."""
    own = story()
    old, new = own.baseline.model, own.forgotten(digit).model
    pairs = list(combinations(kept_classes(digit), 2))
    change = (mixtures(new, digit) - mixtures(old, digit)).view(len(pairs), -1)
    order = change.square().mean(1).argsort().tolist()
    z = torch.randn(1, old.latent_dim, generator=seeded(0))
    axes = sa.plots.plt.subplots(3, 2, figsize=(11, 2.5), layout="constrained")[1]
    for row, k in zip(axes, (order[0], order[len(order) // 2], order[-1]), strict=True):
        (first, last), drift = pairs[k], float(change[k].square().mean().sqrt())
        for ax, model, name in zip(row, (old, new), ("baseline", "ours"), strict=True):
            images = sa.interpolate_labels(model, z, first, last).flatten(0, 1)
            title = f"{name}, {first} to {last}" + f": drift {drift:.2f}" * (model is new)
            sa.plots.image_grid(images, 9, ax, title)
    sa.plots.plt.savefig(report.RESULTS / "mixtures.png", dpi=100)


def main() -> None:
    """Measure what is missing, write the table and draw the picture."""
    pieces.complete(__doc__, JOURNAL, models(), measure, tables)
    picture()


if __name__ == "__main__":
    import literature  # the processes find what they work on under this name

    literature.main()
