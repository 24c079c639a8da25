"""Restarts as one batch against one after the other, and TV on 1,000 images against scikit-image.

    python benchmarks/probing.py

Prints ratios measured in one run, the two sides in turn, median and range of REPEATS, and leaves
them in results/benchmarks/probing.json.  The second comparison is at equal quality: our gap is set
so that no image ends farther above the minimum than scikit-image's do, in the mean and at worst.
"""

import json
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from skimage.restoration import denoise_tv_chambolle
from torch import Tensor

import sahelpers as sa
from sahelpers.store.files import replace_text

OUT = Path(__file__).resolve().parents[1] / "results" / "benchmarks" / "probing.json"
REPEATS, TV_REPEATS = 3, 5
RESTARTS, STEPS = 128, 40
WEIGHT, SIGMA, GAP = 0.2, 0.2, 0.3  # GAP: squared gray levels per image


def seconds(run: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Wall time of one call, or what another clock says."""
    begin = clock()
    run()
    return clock() - begin


def summary(ratios: list[float]) -> dict[str, float]:
    """Median and range of ratios."""
    numbers = {"median": statistics.median(ratios), "low": min(ratios), "high": max(ratios)}
    return {name: round(value, 2) for name, value in numbers.items()}


def probes() -> dict[str, dict[str, float]]:
    """128 restarts of each probe: one batch, and a loop from the same starts."""
    story = sa.Story()
    model, guide = story.baseline.model, story.guide
    starts = torch.randn((RESTARTS, model.latent_dim), generator=sa.seeded(0))
    config = sa.ProbeConfig(steps=STEPS)
    kinds: dict[str, Callable[[Tensor], sa.ProbeResult]] = {
        "prototype": lambda z: sa.invert_prototypes(model, 3, config, baseline=model, start=z),
        "blind": lambda z: sa.invert_blind(model, 3, config, start=z),
        "guided": lambda z: sa.guided_attack(model, 3, config, guide=guide, start=z),
    }
    found = {}
    for name, probe in kinds.items():
        ratios = []
        for _ in range(REPEATS):
            batch = seconds(partial(probe, starts))
            some = starts[: RESTARTS // 4].split(1)
            ratios.append(4 * sum(seconds(partial(probe, z)) for z in some) / batch)
        found[name] = summary(ratios)
        print(
            f"{name}: {RESTARTS} restarts as a batch against a loop, times as fast: {found[name]} "
            f"(the loop's time from {RESTARTS // 4} of them)"
        )
    return found


def energy(u: Tensor, f: Tensor) -> Tensor:
    """What both minimise, per image (B,)."""
    across, down = torch.zeros_like(u), torch.zeros_like(u)
    across[..., :-1], down[..., :-1, :] = u.diff(dim=-1), u.diff(dim=-2)
    return (0.5 * (u - f).square() + WEIGHT * torch.hypot(across, down)).flatten(1).sum(1)


def denoising() -> dict[str, dict[str, float]]:
    """1,000 noisy digits: our batch against scikit-image's loop at its default stopping.

    One thread each, for scikit-image's loop has only one, in time of the processor.  Also with all
    1,000 worked on at once, which leaves the processor's cache: there the machines differ.
    """
    torch.set_num_threads(1)
    clean = sa.load_dataset(split="test").images[:1000]
    noisy = clean + SIGMA * torch.randn(clean.shape, generator=sa.seeded(0))
    minimum = energy(sa.denoise_tv(noisy.double(), WEIGHT, gap=1e-4), noisy.double())

    def loop() -> Tensor:
        pictures = [denoise_tv_chambolle(image, weight=WEIGHT) for image in noisy[:, 0].numpy()]
        return torch.from_numpy(np.stack(pictures))[:, None]

    def at_once() -> Tensor:
        with mock.patch("sahelpers.denoising.CHUNK", len(noisy)):
            return sa.denoise_tv(noisy, WEIGHT, gap=GAP)

    sides = {
        "scikit-image": loop,
        "ours": lambda: sa.denoise_tv(noisy, WEIGHT, gap=GAP),
        "ours, all at once": at_once,
    }
    excess = {n: energy(run().double(), noisy.double()) - minimum for n, run in sides.items()}
    for name, above in excess.items():
        print(f"{name}: {above.mean():.2f} above the minimum, at worst {above.max():.2f}")
    assert excess["ours"].mean() <= excess["scikit-image"].mean()
    assert excess["ours"].max() <= excess["scikit-image"].max()
    rounds = [
        {name: seconds(run, time.process_time) for name, run in sides.items()}
        for _ in range(TV_REPEATS)
    ]
    found = {}
    for name in ("ours", "ours, all at once"):
        found[name] = summary([r["scikit-image"] / r[name] for r in rounds])
        print(f"TV of 1,000 images, {name}, times as fast as scikit-image: {found[name]}")
    return found


def main() -> None:
    """Measure, print, write."""
    os.environ["SA_PROGRESS"] = "0"
    found = {f"probes, {torch.get_num_threads()} threads": probes(), "TV, 1 thread": denoising()}
    OUT.parent.mkdir(parents=True, exist_ok=True)
    replace_text(OUT, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
