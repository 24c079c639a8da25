"""Every method on every class and seed: one row of results/scoreboard.csv per cell, resumable.

    python -m sahelpers scoreboard --methods "selective amnesia" --digits 3 7 --seeds 42 43 44

A cell that has a row is not computed again; a cell that fails gets a row with its error, and the
rest goes on.  A row is written in one piece when its cell is complete.
"""

import argparse
import csv
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from .competitors import METHODS, Task
from .config import AmnesiaConfig, BaselineConfig, FisherConfig, JudgeConfig, fingerprint
from .data import CHECKOUT, LabelledImages, load_dataset
from .elbo import negative_elbo
from .evaluation import (
    Latents,
    Verdict,
    collateral,
    draw_images,
    fixed_latents,
    frechet_distance,
    judge_samples,
)
from .models import CVAE, Judge, seeded
from .results import write_results
from .story import SCORING, get_baseline, get_fishers, get_judges

TABLE = CHECKOUT / "results" / "scoreboard.csv"
SEEDS = (42, 43, 44)
SAMPLES = 2000  # per class
FRECHET_SAMPLES = 1000  # per kept class
PRIORS = ("class", "standard")  # the baseline's Gaussians of the classes, and N(0, I)


@dataclass(frozen=True)
class Ground:
    """What all cells of a seed share: the baseline and what the judges say of it."""

    model: CVAE
    task: Task  # with no class chosen yet
    latents: dict[str, Latents]
    before: dict[tuple[str, str], Verdict]  # (judge, prior)
    elbo: torch.Tensor  # (N,) negative, of the test images


def columns() -> list[str]:
    """Names of the table's columns."""
    whats = ("p", "argmax", "argmax_stretched", "kept_change", "worst_drop")
    judged = [f"{w}_{role}_{prior}" for role in SCORING for prior in PRIORS for w in whats]
    key = ["method", "class", "seed", "dataset", "arch", "fingerprint"]
    rest = ["frechet_before", "frechet_after", "elbo_kept_change", "steps", "seconds"]
    return [*key, *judged, *rest, "real_images", "reason", "error"]


def run(
    methods: Iterable[str],
    classes: Iterable[int],
    seeds: Iterable[int],
    dataset: str = "mnist",
    arch: str = "mlp",
    table: Path = TABLE,
) -> None:
    """Compute every cell of the grid that the table does not have, seed by seed."""
    methods, classes = tuple(methods), tuple(classes)
    unknown = [m for m in methods if m not in METHODS]
    if unknown:
        raise ValueError(f"method {unknown[0]!r} is not one of {', '.join(METHODS)}")
    done = {cell_key(row) for row in read(table) if not row["error"]}
    train, test = load_dataset(dataset), load_dataset(dataset, "test")
    judges = get_judges(JudgeConfig(dataset=dataset), train)
    for seed in seeds:
        base = BaselineConfig(dataset=dataset, arch=arch, seed=seed)
        if arch == "conv":
            base = replace(base, epochs=10)
        amnesia = AmnesiaConfig(seed=seed)
        mark = fingerprint(base, amnesia)
        cells = [(m, c) for m in methods for c in classes]
        keys = {cell: (cell[0], str(cell[1]), str(seed), dataset, arch, mark) for cell in cells}
        missing = [cell for cell in cells if keys[cell] not in done]
        if not missing:
            continue
        ground = _ground(base, amnesia, train, test, judges)
        for method, label in missing:
            row = dict(zip(columns(), keys[method, label], strict=False))
            try:
                row |= _measure(ground, method, label, test, judges)
            except Exception as error:  # a cell that fails must not take the others with it
                row["error"] = f"{type(error).__name__}: {error}"
            append(table, row)
            said = row.get("error") or f"argmax {100 * row['argmax_open_class']:.2f} %"
            print(f"{method}, class {label}, seed {seed}: {said}", flush=True)
    if table == TABLE:
        write_results(read(table))


def cell_key(row: dict[str, Any]) -> tuple[str, ...]:
    """What identifies a cell."""
    return tuple(row[name] for name in columns()[:6])


def read(table: Path) -> list[dict[str, str]]:
    """The rows of a table; a last line that was cut off is left out."""
    if not table.exists():
        return []
    with table.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    return [row for row in rows if None not in row.values()]


def append(table: Path, row: dict[str, Any]) -> None:
    """Add one row, numbers to six digits."""
    table.parent.mkdir(parents=True, exist_ok=True)
    text = {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()}
    new = not table.exists() or not table.stat().st_size  # a killed run can leave it empty
    with table.open("a+", newline="") as stream:
        stream.seek(0)
        if not new and not stream.read().endswith("\n"):
            stream.write(
                "\n"
            )  # the line before was cut off: it stays incomplete, and is done again
        writer = csv.DictWriter(stream, columns(), restval="", lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(text)


def _ground(
    base: BaselineConfig,
    amnesia: AmnesiaConfig,
    train: LabelledImages,
    test: LabelledImages,
    judges: dict[str, Judge],
) -> Ground:
    baseline = get_baseline(base, train)
    fishers = get_fishers(baseline, base, FisherConfig(), train)
    model = baseline.model
    latents = {prior: fixed_latents(model, SAMPLES, prior) for prior in PRIORS}
    before = {
        (role, prior): judge_samples(model, judge, latents[prior])
        for role, judge in judges.items()
        for prior in PRIORS
    }
    elbo = negative_elbo(model, test.images, test.labels, seeded(0))
    return Ground(model, Task(model, (), fishers, train, base, amnesia), latents, before, elbo)


def _measure(
    ground: Ground, method: str, label: int, test: LabelledImages, judges: dict[str, Judge]
) -> dict[str, Any]:
    """Forget and measure one cell."""
    begin = time.perf_counter()
    result = METHODS[method](replace(ground.task, forgotten=(label,)))
    seconds = time.perf_counter() - begin
    row: dict[str, Any] = {}
    for role, judge in judges.items():
        for prior in PRIORS:
            latents = ground.latents[prior]
            after = judge_samples(result.model, judge, latents)
            stretched = judge_samples(result.model, judge, latents, stretch=True)
            kept = collateral(ground.before[role, prior], after, (label,))
            values = {
                "p": float(after.probability[label, label]),
                "argmax": float(after.argmax[label, label]),
                "argmax_stretched": float(stretched.argmax[label, label]),
                "kept_change": kept.mean_after - kept.mean_before,
                "worst_drop": kept.worst_drop,
            }
            if method == "retraining":  # what it draws under a label never trained is arbitrary
                values |= dict.fromkeys(("p", "argmax", "argmax_stretched"), math.nan)
            row |= {f"{k}_{role}_{prior}": v for k, v in values.items()}
    kept_test = test.without(label)
    fixed = fixed_latents(ground.model, FRECHET_SAMPLES)
    chosen = fixed.labels != label
    kept_latents = Latents(fixed.z[chosen], fixed.labels[chosen])
    for name, model in (("before", ground.model), ("after", result.model)):
        images = draw_images(model, kept_latents)
        row[f"frechet_{name}"] = frechet_distance(judges["plain"], images, kept_test.images)
    elbo = negative_elbo(result.model, test.images, test.labels, seeded(0))
    row["elbo_kept_change"] = float((elbo - ground.elbo)[test.labels != label].mean())
    row |= {"steps": len(next(iter(result.history.values()), [])), "seconds": seconds}
    return row | {"real_images": result.real_images, "reason": result.reason}


def add_options(parser: argparse.ArgumentParser) -> None:
    """The command line of `python -m sahelpers scoreboard`."""
    parser.add_argument("--methods", nargs="+", default=list(METHODS), help="names of METHODS")
    parser.add_argument("--digits", nargs="+", type=int, default=list(range(10)))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--arch", default="mlp")
