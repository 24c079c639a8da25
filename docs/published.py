"""Does forgetting that was tuned on our baseline hold on the one of the published recipe, too?

    python docs/published.py [--jobs 2]

The official baseline (Heng & Soh 2023: z of 8 numbers, 100,000 steps of 256 images, Adam at a
constant 1e-4, fifty minutes of one core) forgets the digits 0, 3 and 7 by the label column, by the
official recipe and by the default of `forget`, from the same weights.  Each model faces the named
attacks of docs/protocol.md beside four models of the same size that our recipe retrained without
the digit, and for 3 beside one that the official recipe retrained.
results/published.jsonl has a line per model and is what the table is made of; a command that was
stopped goes on from it.  results/published.md becomes a part of RESULTS.md.
"""

import time
from collections.abc import Iterator
from functools import lru_cache
from itertools import product
from statistics import fmean
from typing import Any

import pieces
import torch
from pieces import Model
from torch import Tensor

import results
import sahelpers as sa
from sahelpers.config import BaselineConfig
from sahelpers.elbo import measure_elbo, negative_elbo
from sahelpers.models import CVAE, draw_normal, seeded
from sahelpers.store.files import Recipe, load_or_make, part_path
from sahelpers.study import battery, grid, methods, report, scores, statistics, verdicts
from sahelpers.study.methods import CONTROL, HIDDEN, OURS
from sahelpers.study.statistics import Groups
from sahelpers.training import TrainedCVAE, fit, fit_class_priors

DIGITS = (0, 3, 7)
SMALL = BaselineConfig(latent_dim=8)  # how controls are retrained
VERSION, STEPS, BATCH, RATE = 1, 100_000, 256, 1e-4
OFFICIAL = "retraining by the official recipe"
TESTED = (HIDDEN, "paper", OURS)
JOURNAL = report.RESULTS / "published.jsonl"


def models() -> list[Model]:
    """All of them; those that a verdict needs come first."""
    needed = [Model(digit, method, 42) for digit in DIGITS for method in TESTED]
    controls = [Model(d, CONTROL, s) for s in (*grid.SEEDS, *grid.CONTROL_SEEDS) for d in DIGITS]
    return [*needed, *controls, Model(3, OFFICIAL, 42)]


@lru_cache(maxsize=1)
def usual() -> sa.Story:
    """Data, judges and the controls."""
    return sa.Story(baseline=SMALL)


def official(exclude: tuple[int, ...] = ()) -> CVAE:
    """The model that the official recipe trains, without these classes; kept, and resumed."""
    data = usual().train
    kept = data.without(exclude)
    steps = len(kept) // BATCH
    config = BaselineConfig(
        latent_dim=8, epochs=-(-STEPS // steps), batch_size=BATCH, lr=RATE, exclude=exclude
    )
    recipe = Recipe("official", VERSION, (config,), {"train": data.digest})

    def train() -> TrainedCVAE:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            model = CVAE(config.arch, config.latent_dim)
        generator = seeded(config.seed)

        def loss(images: Tensor, labels: Tensor) -> dict[str, Tensor]:
            noise = draw_normal((BATCH, model.latent_dim), model, generator)
            return {"loss": negative_elbo(model, images, labels, noise).mean()}

        history = fit(
            model,
            loss,
            kept,
            config,
            generator,
            "train by official recipe",
            resume=part_path(recipe.path),
            mark=f"official, version {VERSION}",
            anneal=False,
        )
        fit_class_priors(model, kept, generator)
        return TrainedCVAE(model, history)

    return load_or_make(recipe, train, TrainedCVAE).model


@lru_cache(maxsize=1)
def comparison() -> battery.Comparison:
    """The official baseline's story, and what is said of it."""
    return battery.Comparison(sa.Story(baseline=official()), battery.Effort())


def measure(piece: Model) -> dict[str, Any]:
    """The named attacks on one model, and for those that forgot, outputs and seconds."""
    known, (digit, method, seed) = comparison(), piece
    own, found = known.story, dict[str, Any]()
    if method == CONTROL:
        model = usual().control(digit, seed).model
    elif method == OFFICIAL:
        model = official((digit,))
    else:
        _, begin = own.fishers, time.process_time()  # the Fisher is made once for all digits
        model = methods.METHODS[method](own, (digit,)).model
        found["seconds"] = time.process_time() - begin
        found |= known.samples(model, digit, knows_label=True) | known.real(model, digit)
    wanted = torch.full((known.effort.samples,), digit)
    said = own.judges["plain"].probabilities(model.sample(wanted, "standard", seeded(seed)))
    given: Any = {"baseline": own.baseline.model, "judges": own.judges, "real": own.test}
    return found | {
        "values": battery.named_attacks(model, digit, battery.Claim(seed=seed), **given),
        "held_out": float(measure_elbo(model, own.test.without(digit)).mean()),
        "p": float(said[:, digit].mean()),
        "entropy": float(torch.special.entr(said).sum(1).mean()),
    }


def gathered(method: str) -> dict[int, Groups]:
    """The digits on which a method was attacked, with hidden models and controls."""
    return pieces.groups(JOURNAL, DIGITS, (method, HIDDEN, CONTROL))


def tables() -> Iterator[str]:
    """Verdicts, outputs, and what the plain judge says of the samples."""
    done = pieces.read(JOURNAL, Model)
    if left := pieces.missing(JOURNAL, models()):
        yield f"Still to be measured: {len(left)} of {len(models())} models.\n"
    findings = {
        method: {d: of.by_attack for d, of in statistics.compare_all(gathered(method)).items()}
        for method in TESTED[1:]
    }
    for method, judged in findings.items():
        if judged:
            yield f"* {method}: {verdicts.in_words(judged)}"
    rows = []
    both = sorted(set.intersection(*(set(of) for of in findings.values())))
    for attack, digit in product((*statistics.NAMED, *statistics.BESIDE), both):
        paper, ours = (findings[method][digit][attack] for method in TESTED[1:])
        cells = [f"{x:.2f}" for x in (ours.hidden, paper.model, ours.model, ours.control)]
        other = done.get(Model(digit, OFFICIAL, 42))
        cells.append(f"{fmean(other['values'][attack]):.2f}" if other else "")
        for f in (paper, ours):
            beside = attack in statistics.BESIDE
            cells.append("" if beside else f.verdict + ", resists" * f.resists)
        rows.append([attack, digit, *cells])
    heads = ["attack", "digit", "hidden", "paper", "ours", "controls", "official control"]
    yield "\n" + results.table([*heads, "verdict: paper", "verdict: ours"], rows)
    runs = [
        {k: str(v) for k, v in of.items() if k != "values"}
        | {"method": m, "class": str(d), "seed": str(s), "dataset": "mnist", "arch": "mlp"}
        | {"fingerprint": ""}
        for (d, m, s), of in done.items()
        if m in TESTED
    ]
    yield "The largest of the runs; bold is beyond what is asked for.\n"
    columns = [*scores.BARS, "seconds"]
    yield results.by_method(results.cells(scores.summarise(runs), largest=True), columns)
    rows = []
    for digit, method in product(DIGITS, (*TESTED, CONTROL, OFFICIAL)):
        if of := [v for (d, m, _), v in done.items() if (d, m) == (digit, method)]:
            p, entropy, nats = (fmean(v[k] for v in of) for k in ("p", "entropy", "held_out"))
            rows.append([digit, method, f"{p:.3f}", f"{entropy:.3f}", f"{nats:.2f}"])
    heads = ["digit", "method", "plain judge's P(c_f)", "its entropy", "kept ELBO, nats"]
    yield results.table(heads, rows)


def main() -> None:
    """Measure what is missing and write the tables."""
    pieces.complete(__doc__, JOURNAL, models(), measure, tables)


if __name__ == "__main__":
    import published  # the processes find what they work on under this name

    published.main()
