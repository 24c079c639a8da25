"""What a step of training and of forgetting costs, part by part: `python benchmarks/steps.py`.

On one thread, in milliseconds of the processor, medians of ROUNDS short runs in turn, with the
share of the step; results/benchmarks/steps.json.  What the weights are does not matter for the
time: the networks are untrained.  `products` are the matrix products of the same step alone
(benchmarks/training.py), measured in the same rounds.
"""

import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import training

import sahelpers as sa
from sahelpers.attacker import Attacker
from sahelpers.objective import Consolidation
from sahelpers.shadow import Shadow
from sahelpers.store.files import replace_text

OUT = Path(__file__).resolve().parents[1] / "results" / "benchmarks" / "steps.json"
ROUNDS, STEPS = 5, 40
Parts = dict[str, tuple[Any, str]]  # what it is called -> where the function lies, its name
TRAINING: Parts = {
    "forward": (sa.training, "elbo_terms"),
    "noise": (sa.training, "draw_normal"),
    "backward": (torch.Tensor, "backward"),
    "Adam": (torch.optim.Adam, "step"),
    "schedule": (torch.optim.lr_scheduler.OneCycleLR, "step"),
}
FORGETTING: Parts = {
    "batch": (sa.Objective, "draw"),
    "forward": (sa.Objective, "terms"),
    "backward": (torch.Tensor, "backward"),
    "Adam": (torch.optim.Adam, "step"),
    "proximal step": (Consolidation, "step"),
    "attacker's z": (Attacker, "step"),
    "shadow's step": (Shadow, "heal"),
    "looks": (sa.Objective, "distance"),
    "what kept images pay": (sa.Objective, "paid"),
    "value of EWC": (Consolidation, "value"),
}


@contextmanager
def timed(parts: Parts) -> Iterator[dict[str, float]]:
    """Seconds spent in each part's calls."""
    spent = dict.fromkeys(parts, 0.0)
    inside: list[str] = []

    def watched(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **given: Any) -> Any:
            if inside:  # a part of a part counts once
                return function(*args, **given)
            inside.append(name)
            begin = time.process_time()
            try:
                return function(*args, **given)
            finally:
                spent[name] += time.process_time() - begin
                inside.pop()

        return call

    with ExitStack() as stack:
        for name, (where, attribute) in parts.items():
            wrapped = watched(name, getattr(where, attribute))
            stack.enter_context(mock.patch.object(where, attribute, wrapped))
        yield spent


def train(arch: str, data: sa.LabelledImages) -> dict[str, float]:
    """Milliseconds a step, and its parts."""
    config = sa.BaselineConfig(arch=arch, epochs=1)
    begins = list[float]()
    after = mock.Mock(side_effect=lambda *a: begins.append(time.process_time()) or torch.zeros(1))
    with timed(TRAINING) as spent, mock.patch.object(sa.training, "dataset_negative_elbo", after):
        begin = time.process_time()
        sa.train_baseline(data, data.take(1), config)
    steps = len(data) // config.batch_size
    return {k: 1e3 * v / steps for k, v in {"step": begins[0] - begin, **spent}.items()}


def forget(arch: str, fisher: sa.Fisher, model: sa.CVAE) -> dict[str, float]:
    """Milliseconds a step, and its parts, of the default; the first step is not counted."""
    begins = list[float]()

    def on_step(step: int, *_: Any) -> bool:
        begins.append(time.process_time())
        if step == 0:
            spent.update(dict.fromkeys(spent, 0.0))
        return step < STEPS

    with timed(FORGETTING) as spent:
        sa.forget(model, fisher, 3, on_step=on_step)
    whole = {"step": begins[-1] - begins[0], **spent}
    return {k: 1e3 * v / STEPS for k, v in whole.items()}


def main() -> None:
    """Measure, print a table, write the JSON."""
    os.environ["SA_PROGRESS"] = "0"
    torch.set_num_threads(1)
    data = sa.load_dataset(split="test").take(STEPS * sa.BaselineConfig().batch_size)
    sides: dict[str, Callable[[], dict[str, float]]] = {
        "products, mlp": lambda: {
            "step": 1e3 * training.seconds(lambda: training.products(STEPS)) / STEPS
        }
    }
    for arch in ("mlp", "conv"):
        torch.manual_seed(0)
        model = sa.CVAE(arch).eval()
        few = sa.FisherConfig(n_fisher_samples=20)
        fisher = sa.diagonal_fisher(model, data, few, exclude=3)
        sides[f"training, {arch}"] = lambda arch=arch: train(arch, data)
        sides[f"forgetting, {arch}"] = lambda arch=arch, f=fisher, m=model: forget(arch, f, m)
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    for k in range(ROUNDS + 1):
        for name, side in sides.items():
            one = side()
            if k:  # the first round warms up
                rounds[name].append(one)
    found = {
        name: {part: round(statistics.median(r[part] for r in many), 2) for part in many[0]}
        for name, many in rounds.items()
    }
    for name, row in found.items():
        if len(row) > 1:
            row["the rest"] = round(2 * row["step"] - sum(row.values()), 2)
        cells = [f"{part} {ms:.2f} ({ms / row['step']:.0%})" for part, ms in row.items()]
        print(f"{name}: " + ", ".join(cells))
    OUT.parent.mkdir(parents=True, exist_ok=True)
    replace_text(OUT, json.dumps({"milliseconds, 1 thread": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
