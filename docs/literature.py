"""Figures that other papers report, of ours, of what it is compared with, and of retraining.

    python docs/literature.py [--jobs 2]

Ten digits, seed 42; half an hour of two cores.  All samples come from N(0, I).  The paper's recipe
at full length is missing here; docs/published.py has it on three digits.
results/literature.jsonl has a line per model and is what the table is made of; a command that was
stopped goes on from it.  results/literature.md becomes a part of RESULTS.md.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import combinations, product
from statistics import fmean
from typing import Any, NamedTuple

import pieces
import torch
from torch import Tensor

import results
import sahelpers as sa
from sahelpers.config import kept_classes
from sahelpers.judges import frechet_distance
from sahelpers.models import CVAE, seeded
from sahelpers.study import methods, report
from sahelpers.study.methods import BASELINE, CONTROL, HIDDEN, OURS

REAL = "other real images"
COMPARED = (BASELINE, HIDDEN, "saliency mask", "reference, 3 passes", OURS, CONTROL, REAL)
SAMPLES, FEW, NEIGHBOURS, DRAWS = 1000, 250, 3, 20
JOURNAL = report.RESULTS / "literature.jsonl"
COLUMNS: dict[str, Callable[[Any, Any], float]] = {  # title: of a model and of the baseline
    "P(c_f)": lambda of, _: of["p"],
    "entropy, nats": lambda of, _: of["entropy"],
    "unlearning accuracy, %": lambda of, _: of["unlearning"],
    "retain accuracy, %": lambda of, _: of["retain"],
    "precision, %": lambda of, _: of["precision"],
    "recall, %": lambda of, _: of["recall"],
    "kept Fréchet, % worse": lambda of, base: fmean(worse(of, base)),
    "its worst class": lambda of, base: max(worse(of, base)),
    "drift of mixtures": lambda of, _: of["mixtures"],
}
GAP = ("retain", "precision", "recall")  # whose differences to retraining are averaged


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


def worse(of: dict[str, Any], base: dict[str, Any]) -> list[float]:
    """How much larger each kept class's Fréchet distance is than the baseline's, in %."""
    pairs = zip(of["frechet"], base["frechet"], strict=True)
    return [100 * (after / before - 1) for after, before in pairs]


def precision_recall(real: Tensor, drawn: Tensor) -> dict[str, float]:
    """In %: of drawn features (N, D) those that lie among the real ones, and of real ones (M, D)
    those among the drawn: within the distance of some point to its third neighbour in its own set
    (Kynkäänniemi et al. 2019)."""

    def among(points: Tensor, others: Tensor) -> float:
        reach = torch.cdist(others, others).kthvalue(NEIGHBOURS + 1, dim=1).values  # 1st: itself
        return 100 * float((torch.cdist(points, others) <= reach).any(1).float().mean())

    return {"precision": among(drawn, real), "recall": among(real, drawn)}


def mixtures(model: CVAE, digit: int) -> Tensor:
    """Images halfway between every two kept labels, at the same z for every model."""
    z = torch.randn(DRAWS, model.latent_dim, generator=seeded(0))
    pairs = combinations(kept_classes(digit), 2)
    return torch.cat([sa.interpolate_labels(model, z, *pair, steps=3)[1] for pair in pairs])


def made(piece: Model) -> CVAE:
    """The model, made or taken from checkpoints/."""
    own, (digit, method) = story(), piece
    if method == BASELINE:
        return own.baseline.model
    if method == CONTROL:
        return own.control(digit).model
    return methods.METHODS[method](own, (digit,)).model


def measure(piece: Model) -> dict[str, Any]:
    """The figures of one model; its Fréchet distances are to the real test images of each class."""
    model = made(piece) if piece.method != REAL else None
    with torch.no_grad():
        return figures(model, *piece)


def figures(model: CVAE | None, digit: int, method: str) -> dict[str, Any]:
    """Of a model, or of real images in its place."""
    test, kept = story().test, kept_classes(digit)
    plain = (judges := story().judges)["plain"]
    real = torch.cat([plain.features(test.only(c).images[:FEW]) for c in kept])
    if model is None:
        fake = torch.cat([plain.features(test.only(c).images[FEW : 2 * FEW]) for c in kept])
        return precision_recall(real, fake)
    labels = digit, *kept
    drawn = {c: model.sample(torch.full((SAMPLES,), c), "standard", seeded(c)) for c in labels}
    said = plain.probabilities(drawn[digit])
    called = {c: judges["open"].probabilities(drawn[c]).argmax(1) for c in labels}
    right = [100 * float((called[c] == c).float().mean()) for c in labels]
    fake = torch.cat([plain.features(drawn[c][:FEW]) for c in kept])
    found: dict[str, Any] = precision_recall(real, fake) | {
        "p": float(said[:, digit].mean()),
        "entropy": float(torch.special.entr(said).sum(1).mean()),
        "unlearning": 100 - right[0],
        "retain": fmean(right[1:]),
        "frechet": [frechet_distance(plain, drawn[c], test.only(c).images) for c in kept],
    }
    if method != CONTROL:  # whose z means something else
        drift = mixtures(model, digit) - mixtures(story().baseline.model, digit)
        found["mixtures"] = float(drift.square().mean().sqrt())
    return found


def tables() -> Iterator[str]:
    """Means over digits, and the average gap to retraining."""
    done = pieces.read(JOURNAL, Model)
    whole = [d for d in range(10) if all(Model(d, method) in done for method in COMPARED)]
    if left := pieces.missing(JOURNAL, models()):
        models_left = f"{len(left)} of {len(models())} models"
        yield f"Of the digits {whole}; still to be measured: {models_left}.\n"
    rows = []
    for method in COMPARED if whole else ():
        cells = []
        for title, figure in COLUMNS.items():
            try:
                numbers = [figure(done[Model(d, method)], done[Model(d, BASELINE)]) for d in whole]
            except KeyError:  # it has no such figure
                cells.append("-")
            else:
                places = 2 if "%" in title or "class" in title else 3
                cells.append(f"{fmean(numbers):.{places}f}")
        gap = "-" if method == REAL else f"{fmean(gaps(done, method, whole)):.2f}"
        rows.append([method, *cells, gap])
    yield results.table(["method", *COLUMNS, "average gap"], rows)


def gaps(done: dict[Model, Any], method: str, digits: list[int]) -> list[float]:
    """Differences to the model retrained without the digit, of every digit and figure of GAP."""
    return [
        abs(done[Model(d, method)][key] - done[Model(d, CONTROL)][key])
        for d, key in product(digits, GAP)
    ]


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
