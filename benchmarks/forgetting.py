"""Forgetting against retraining and the published recipes: cost and quality on one baseline.

    python benchmarks/forgetting.py            # ours and retraining: about five minutes
    python benchmarks/forgetting.py --full     # both published recipes too (one digit): 20 more

Every method forgets from the same model in one run; times are ratios to ours.
Ours is timed before, between and after the others, to show the spread.  Retraining takes 40
passes, as the reference notebook's; the paper's recipe is also run once at its own z = 8, and its
time includes its own Fisher of 50,000 drawn images (a few seconds).  Times are of the processor,
on one thread: what else the machine does then hardly counts.
"""

import argparse
import json
import os
import statistics
import time
from dataclasses import replace

import torch

import sahelpers as sa
from sahelpers.config import CHECKOUT
from sahelpers.store.files import replace_text
from study.methods import HIDDEN, METHODS, OURS, PAPER, REFERENCE, RETRAINED

DIGITS = (0, 5)  # the knobs were tuned on the 0 and not on the 5
SAMPLES = 2000


def kept_elbo(model: sa.CVAE, test: sa.LabelledImages, digit: int) -> float:
    """Negative ELBO of the other digits' test images, nats per image."""
    kept = test.without(digit)
    return float(sa.dataset_negative_elbo(model, kept).mean())


def main() -> None:
    """Run, print, and keep the figures in results/benchmarks/."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="paper and reference at full length")
    names = [OURS, HIDDEN, RETRAINED, OURS]
    published = [PAPER, OURS, REFERENCE, OURS]
    full = parser.parse_args().full
    os.environ["SA_PROGRESS"] = "0"
    torch.set_num_threads(1)
    train, test = sa.load_dataset(), sa.load_dataset(split="test")
    figures: dict[str, dict[str, list[float]]] = {}
    for latent_dim in (sa.BaselineConfig().latent_dim, 8)[: 1 + full]:
        base = sa.BaselineConfig(latent_dim=latent_dim)
        story = sa.Story((train, test), baseline=base)
        judge, baseline = story.judge("open_set"), story.baseline.model
        story.fishers.without(())  # made before anything is timed
        latents = sa.fixed_latents(baseline, SAMPLES)
        before = sa.judge_samples(baseline, judge, latents)
        runs = [(name, digit) for digit in DIGITS for name in names]
        runs += [(name, DIGITS[0]) for name in published * full]
        if latent_dim == 8:
            runs = [(PAPER, DIGITS[0]), (OURS, DIGITS[0])]
        elbo = {digit: kept_elbo(baseline, test, digit) for digit in DIGITS}
        for name, digit in runs:
            begin = time.process_time()
            if name == RETRAINED:
                retraining = replace(base, epochs=40, exclude=(digit,))
                model = sa.train_baseline(train, test, retraining).model
            else:
                model = METHODS[name](story, (digit,)).model
            seconds = time.process_time() - begin
            after = sa.judge_samples(model, judge, latents)
            own = sa.fixed_latents(model, SAMPLES)  # others only if it was trained anew
            kept = sa.judge_samples(model, judge, own)
            change = sa.retained_accuracy(before, kept, digit)
            row = figures.setdefault(name + ", z = 8" * (latent_dim == 8), {})
            for what, value in {
                "seconds": seconds,
                "argmax": 100 * float(after.argmax[digit, digit]),
                "kept change": change.mean_after - change.mean_before,
                "worst drop": change.worst_drop,
                "ELBO kept": kept_elbo(model, test, digit) - elbo[digit],
            }.items():
                row.setdefault(what, []).append(value)
            print(f"{name}, digit {digit}, z = {latent_dim}: {seconds:.1f} s", flush=True)
    ours = statistics.median(figures[OURS]["seconds"])
    spread = figures[OURS]["seconds"]
    print(f"ours: {ours:.1f} s of processor time ({min(spread):.1f} to {max(spread):.1f})")
    print("method                    times ours  argmax %  kept points  worst drop  ELBO nats")
    for name, row in figures.items():
        ratio = statistics.mean(row["seconds"]) / ours
        gone = "-" if name == RETRAINED else f"{max(row['argmax']):.2f}"
        print(
            f"{name:24}{ratio:11.1f}{gone:>10}{statistics.mean(row['kept change']):13.2f}"
            f"{max(row['worst drop']):12.2f}{statistics.mean(row['ELBO kept']):11.2f}"
        )
    # two files: the short run leaves the figures of the long one alone
    file = "forgetting_full.json" if full else "forgetting.json"
    target = CHECKOUT / "results" / "benchmarks" / file
    target.parent.mkdir(parents=True, exist_ok=True)
    replace_text(target, json.dumps({"digits": DIGITS, "figures": figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
