"""How often the audit errs and how often it finds erasure: the simulation behind protocol.md.

    python -m study power --digits 2 4 8 [--method NAME] [--audits 2000]

The truth is what the journal holds of the named attacks: per digit means and spreads of hidden
models and retrained ones.  Models under test spread as retrained ones do, or as those of --method;
fewer than ten measured digits take turns.  Three models, three hidden ones and three to six
retrained ones are drawn, each attack apart, areas from beta laws and costs from normal ones; the
package judges them.
"""

import argparse
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from sahelpers.attacks import verdicts
from sahelpers.attacks.verdicts import CLAIM_ATTACKS, COST_ATTACKS, ERASED, MARGIN, Groups, pooled

from .. import claims, journal, tables
from ..grid import RESULTS
from ..methods import HIDDEN

Law = tuple[float, float]  # mean and standard deviation
Laws = dict[str, tuple[float, Law, Law]]  # attack -> models' spread, hidden, retrained


def measured(path: Path, method: str | None, only: list[int]) -> list[tuple[int, Laws]]:
    """Ten digits of the MLP's baseline by today's recipe, each with its laws."""
    of_all = tables.groups(journal.read(path))
    digits = of_all.get((("mnist", "mlp"), method or HIDDEN), {})
    if not digits:
        raise SystemExit(f"{path} lacks the attacks: run `python -m study claim`")
    found = list[tuple[int, Laws]]()
    for digit, of in sorted((d, of) for d, of in digits.items() if d in only):
        laws: Laws = {}
        for attack in CLAIM_ATTACKS:
            numbers = [[fmean(values[attack]) for values in group] for group in of]
            models, hidden, retrained = (
                (fmean(few), pooled([few if len(few) > 1 else numbers[2]])[0]) for few in numbers
            )
            laws[attack] = models[1] if method else retrained[1], hidden, retrained
        found.append((digit, laws))
    return [found[k % len(found)] for k in range(10)]


def drawn(rng: np.random.Generator, laws: Laws, n_retrained: int, share: float) -> Groups:
    """Models, hidden and retrained ones of one digit; the excess is this share of the margin."""
    groups: Any = [[{} for _ in range(n)] for n in (3, 3, n_retrained)]
    for attack, (wide, hidden, retrained) in laws.items():
        known = hidden[0] - retrained[0]
        margin = known / 3 if attack in COST_ATTACKS else min(MARGIN, known / 2)
        laws_of_groups = (retrained[0] + share * margin, wide), hidden, retrained
        for group, (mean, spread) in zip(groups, laws_of_groups, strict=True):
            m, s, n = min(max(mean, 1e-3), 1 - 1e-3), max(spread, 1e-4), len(group)
            a = max(m * (1 - m) / s**2 - 1, 0.1)  # of the beta law, both parameters together
            x = (
                rng.normal(mean, s, n)
                if attack in COST_ATTACKS
                else rng.beta(m * a, (1 - m) * a, n)
            )
            for values, number in zip(group, x.tolist(), strict=True):
                values[attack] = [number]
    return groups[0], groups[1], groups[2]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    add = parser.add_argument
    add("--journal", type=Path, default=RESULTS / "journal.jsonl")
    add("--method", help="whose spreads are those of the models under test")
    add("--digits", type=int, nargs="+", default=list(range(10)), help="whose spreads are taken")
    add("--audits", type=int, default=2000, help="simulated for every number of retrained models")


def main(options: argparse.Namespace) -> None:
    """Print the table: one line for each number of retrained models and attack."""
    truth = measured(options.journal, options.method, options.digits)
    rng = np.random.default_rng(0)
    print("| retrained | attack | largest error | least power (digit) | all digits pass |")
    print("|---" * 5 + "|")
    for retrained in range(3, 7):
        erased, passed = np.zeros((2, len(CLAIM_ATTACKS), 10)), np.zeros(len(CLAIM_ATTACKS) + 1)
        for share in (0, 1) * options.audits:
            digits = {k: drawn(rng, laws, retrained, share) for k, (_, laws) in enumerate(truth)}
            reports = verdicts.compare_all(digits).items()
            told = claims.claim({k: r.by_attack for k, r in reports})
            erased[share] += [[k in t.digits[ERASED] for k in digits] for t in told]
            all_erased = [bool(t.powered) and set(t.powered) == set(t.digits[ERASED]) for t in told]
            passed += (1 - share) * np.array([*all_erased, all(all_erased)])
        for k, attack in enumerate(CLAIM_ATTACKS):
            power, error = erased[:, k] / options.audits
            worst = f"{error.max():.3f} | {power.min():.3f} ({truth[power.argmin()][0]})"
            print(f"| {retrained} | {attack} | {worst} | {passed[k] / options.audits:.3f} |")
        print(f"| {retrained} | all of them | | | {passed[-1] / options.audits:.3f} |")
