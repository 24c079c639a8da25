"""How often the audit errs and how often it finds erasure: the simulation behind protocol.md.

    python docs/power.py --digits 2 4 8 [--method NAME] [--audits 2000]

The truth is what the journal holds of the named attacks: per digit means and spreads of hidden
models and controls.  Models under test spread as controls do, or as those of --method; fewer
than ten measured digits take turns.  Three models, three hidden ones and three to six controls are
drawn, each attack apart, areas from beta laws and costs from normal ones; the package judges them.
"""

import argparse
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from sahelpers.config import AmnesiaConfig, JudgeConfig
from sahelpers.study import battery, grid, methods, report, statistics, verdicts
from sahelpers.study.statistics import ERASED, MARGIN, NAMED, NATS, Groups

Law = tuple[float, float]  # mean and standard deviation
Laws = dict[str, tuple[float, Law, Law]]  # attack -> models' spread, hidden, controls


def measured(journal: Path, method: str | None, only: list[int]) -> list[tuple[int, Laws]]:
    """Ten digits of the MLP's baseline by today's recipe, each with its laws."""
    configs = report.BASELINES["mlp"], AmnesiaConfig(), JudgeConfig(), battery.Claim()
    own = methods.recipe(methods.CONTROL, *configs)
    digits: dict[int, Groups] = {}
    for (_, name, data, _, mark), groups in report.audited(grid.read_journal(journal)).items():
        if (name, data) == (method or methods.HIDDEN, "mnist") and mark.startswith(own):
            digits |= groups
    if not digits:
        raise SystemExit(f"{journal} lacks the named attacks: run `python -m sahelpers claim`")
    found = list[tuple[int, Laws]]()
    for digit, of in sorted((d, of) for d, of in digits.items() if d in only):
        found.append((digit, {}))
        for attack in NAMED:
            numbers = [[fmean(values[attack]) for values in group] for group in of]
            wide = [statistics.pooled([few if few[1:] else numbers[2]])[0] for few in numbers]
            hidden, control = zip(map(fmean, numbers[1:]), wide[1:], strict=True)
            found[-1][1][attack] = wide[0 if method else 2], hidden, control
    return [found[k % len(found)] for k in range(10)]


def drawn(rng: np.random.Generator, laws: Laws, controls: int, share: float) -> Groups:
    """Models, hidden ones and controls of one digit; the excess is this share of the margin."""
    groups: Any = [[{} for _ in range(n)] for n in (3, 3, controls)]
    for attack, (wide, hidden, control) in laws.items():
        known = hidden[0] - control[0]
        margin = known / 3 if attack in NATS else min(MARGIN, known / 2)
        laws_of_groups = (control[0] + share * margin, wide), hidden, control
        for group, (mean, spread) in zip(groups, laws_of_groups, strict=True):
            m, s, n = min(max(mean, 1e-3), 1 - 1e-3), max(spread, 1e-4), len(group)
            a = max(m * (1 - m) / s**2 - 1, 0.1)  # of the beta law, both parameters together
            x = rng.normal(mean, s, n) if attack in NATS else rng.beta(m * a, (1 - m) * a, n)
            for values, number in zip(group, x.tolist(), strict=True):
                values[attack] = [number]
    return groups[0], groups[1], groups[2]


def main() -> None:
    """Print the table: one line for each number of controls and attack."""
    parser = argparse.ArgumentParser()
    add = parser.add_argument
    add("--journal", type=Path, default=report.RESULTS / "journal.jsonl")
    add("--method", help="whose spreads are those of the models under test")
    add("--digits", type=int, nargs="+", default=list(range(10)), help="whose spreads are taken")
    add("--audits", type=int, default=2000, help="simulated for every number of controls")
    options = parser.parse_args()
    truth = measured(options.journal, options.method, options.digits)
    rng = np.random.default_rng(0)
    print("| controls | attack | largest error | least power (digit) | all digits pass |")
    print("|---" * 5 + "|")
    for controls in range(3, 7):
        erased, passed = np.zeros((2, len(NAMED), 10)), np.zeros(len(NAMED) + 1)
        for share in (0, 1) * options.audits:
            digits = {k: drawn(rng, laws, controls, share) for k, (_, laws) in enumerate(truth)}
            reports = statistics.compare_all(digits).items()
            told = verdicts.claim({k: r.by_attack for k, r in reports})
            erased[share] += [[k in t.digits[ERASED] for k in digits] for t in told.named]
            passed += (1 - share) * np.array([*(t.erased for t in told.named), told.erased])
        for k, attack in enumerate(NAMED):
            power, error = erased[:, k] / options.audits
            worst = f"{error.max():.3f} | {power.min():.3f} ({truth[power.argmin()][0]})"
            print(f"| {controls} | {attack} | {worst} | {passed[k] / options.audits:.3f} |")
        print(f"| {controls} | all of them | | | {passed[-1] / options.audits:.3f} |")


if __name__ == "__main__":
    main()
