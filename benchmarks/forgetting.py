"""Forgetting against retraining and the published recipes: cost and quality on one baseline.

    python benchmarks/forgetting.py            # ours and retraining: about two minutes
    python benchmarks/forgetting.py --full     # and both published recipes at full length: ten more

Every method forgets the same digits from the same model in one run; times are ratios to ours.
Ours is timed before, between and after the others, to show the spread.
"""

import argparse
import json
import os
import statistics
from dataclasses import replace

import sahelpers as sa
from sahelpers.data import CHECKOUT

DIGITS = (0, 5)  # not the two that the knobs were tuned on
SAMPLES = 2000


def main() -> None:
    """Run, print, and keep the figures in results/benchmarks/."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="paper and reference at full length")
    names = ["label column", "retraining", "selective amnesia"]
    if parser.parse_args().full:
        names += ["paper", "selective amnesia", "reference", "selective amnesia"]
    os.environ["SA_PROGRESS"] = "0"
    train, test = sa.load_dataset(), sa.load_dataset(split="test")
    base = sa.BaselineConfig()
    baseline = sa.get_baseline(base, train)
    fishers = sa.get_fishers(baseline, base, sa.FisherConfig(), train)
    judge = sa.get_judges(sa.JudgeConfig(), train)["open"]
    latents = sa.fixed_latents(baseline.model, SAMPLES)
    before = sa.judge_samples(baseline.model, judge, latents)
    figures: dict[str, dict[str, list[float]]] = {}
    for digit in DIGITS:
        task = sa.Task(baseline.model, (digit,), fishers, train, base)
        kept = test.without(digit)
        first = sa.negative_elbo(baseline.model, kept.images, kept.labels, sa.seeded(0)).mean()
        for name in ["selective amnesia", *names]:
            result = sa.METHODS[name](replace(task))
            after = sa.judge_samples(result.model, judge, latents)
            change = sa.collateral(before, after, (digit,))
            bound = sa.negative_elbo(result.model, kept.images, kept.labels, sa.seeded(0)).mean()
            row = figures.setdefault(name, {})
            for what, value in {
                "seconds": result.seconds,
                "argmax": 100 * float(after.argmax[digit, digit]),
                "kept change": change.mean_after - change.mean_before,
                "worst drop": change.worst_drop,
                "ELBO kept": float(bound - first),
            }.items():
                row.setdefault(what, []).append(value)
    ours = statistics.median(figures["selective amnesia"]["seconds"])
    spread = figures["selective amnesia"]["seconds"]
    print(f"ours: {ours:.1f} s (from {min(spread):.1f} to {max(spread):.1f}); digits {DIGITS}")
    print("method                times ours  argmax %  kept points  worst drop  ELBO nats")
    for name, row in figures.items():
        ratio = statistics.mean(row["seconds"]) / ours
        gone = "-" if name == "retraining" else f"{max(row['argmax']):.2f}"
        print(
            f"{name:20}{ratio:11.1f}{gone:>10}{statistics.mean(row['kept change']):13.2f}"
            f"{max(row['worst drop']):12.2f}{statistics.mean(row['ELBO kept']):11.2f}"
        )
    target = CHECKOUT / "results" / "benchmarks" / "forgetting.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps({"digits": DIGITS, "figures": figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
