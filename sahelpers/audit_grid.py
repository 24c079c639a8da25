"""The audit of every digit, in one command that may be stopped and started again.

    python -m sahelpers audit --digits 3 7 --seeds 42 43 44

Every seed has its own baseline, forgotten model and control.  What every restart found in one model
is one line of results/audit_values.jsonl, written when it is complete and never computed twice;
results/audit.csv is made from these lines, so that anybody may ask them another question.
"""

import argparse
import csv
import io
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import product
from pathlib import Path
from typing import Any

from .audit import AuditConfig, Values, attack_all, check_control, compare_all
from .backends import each
from .cells import forget_shared, materials, say
from .checkpoints import replace_text
from .competitors import METHODS, Task
from .config import (
    AmnesiaConfig,
    BaselineConfig,
    FisherConfig,
    JudgeConfig,
    check_classes,
    fingerprint,
)
from .data import CHECKOUT, LabelledImages
from .excess import Finding
from .models import CVAE
from .story import get_baseline, get_control, get_fishers, get_judges
from .training import TrainedCVAE

RESULTS = CHECKOUT / "results"
SEEDS = (42, 43, 44)
MODELS = ("baseline", "control", *METHODS)
USUAL = ("baseline", "selective amnesia", "paper, 1,000 steps", "label column", "control")

Key = tuple[int, str, int, str]  # digit, model, seed, how model and attack were made


@dataclass(frozen=True)
class Cell:
    """One model to attack."""

    digit: int
    model: str
    seed: int

    @property
    def base(self) -> BaselineConfig:
        """The baseline's configuration."""
        return replace(BaselineConfig(), seed=self.seed)

    @property
    def amnesia(self) -> AmnesiaConfig:
        """The forgetting's, with the same seed, as in the scoreboard."""
        return replace(AmnesiaConfig(), seed=self.seed)

    @property
    def key(self) -> Key:
        """What identifies its line in the file."""
        made_with = (FisherConfig(), self.amnesia) if self.model in METHODS else ()
        mark = fingerprint(self.base, JudgeConfig(), AuditConfig(), *made_with)
        return self.digit, self.model, self.seed, mark


def run(
    digits: Iterable[int],
    models: Sequence[str],
    seeds: Sequence[int],
    jobs: int = 1,
    folder: Path = RESULTS,
) -> None:
    """Attack what has not been attacked yet, in `jobs` processes, then write the table.

    Raises RuntimeError at the end if an attack failed; the next run tries it again.
    """
    digits = list(digits)
    for digit in digits:
        check_classes((digit,), BaselineConfig().num_classes)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "audit_values.jsonl"
    found = read(path)
    cells = [Cell(*names) for names in product(digits, models, seeds)]
    missing = [cell for cell in cells if cell.key not in found]
    print(f"{len(missing)} of {len(cells)} attacks are missing", flush=True)
    backend = "loky" if jobs > 1 else "sequential"
    failed: list[BaseException] = []
    try:
        for k, (cell, values) in enumerate(each(attack, missing, backend, jobs), 1):
            what = f"{cell.digit}, {cell.model}, seed {cell.seed}"
            if isinstance(values, BaseException):
                failed.append(values)
                what += f": {say(values)}"
            else:
                found[cell.key] = values
                with path.open("a") as stream:  # after a line break: the last line may be torn
                    stream.write("\n" + json.dumps([*cell.key, values]))
            print(f"{k} of {len(missing)}: {what}", flush=True)
    finally:
        forget_shared()
        write_table(found, folder / "audit.csv")
    if failed:
        raise RuntimeError(
            f"{len(failed)} of {len(missing)} attacks failed, named above: run the same command "
            "again to try them once more"
        ) from failed[0]


def attack(cell: Cell) -> Values:
    """Make the model and attack it."""
    judge = JudgeConfig()
    train, test, judges = materials(judge, "cpu")
    guide = get_judges(judge, train, ["guide"])["guide"]
    baseline = get_baseline(cell.base, train)
    model = _make(cell, baseline, train)
    if cell.model == "control":
        check_control(model, cell.digit)
    return attack_all(model, baseline.model, cell.digit, judges, guide, test, AuditConfig())


def _make(cell: Cell, baseline: TrainedCVAE, train: LabelledImages) -> CVAE:
    """The model to attack; baseline, control and Fisher are checkpoints."""
    if cell.model == "control":
        return get_control(cell.base, train, cell.digit).model
    if cell.model == "baseline":
        return baseline.model
    fishers = get_fishers(baseline, cell.base, FisherConfig(), train)
    task = Task(baseline.model, (cell.digit,), fishers, train, cell.base, cell.amnesia)
    return METHODS[cell.model](task).model


def read(path: Path) -> dict[Key, Values]:
    """The lines written so far, without one that a stopped run left torn; none without a file."""
    found: dict[Key, Values] = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            *key, values = json.loads(line)
        except json.JSONDecodeError:
            continue
        found[tuple(key)] = values
    return found


def write_table(found: dict[Key, Values], path: Path) -> None:
    """One row per digit, model and attack, against the controls of all seeds of that digit.

    Lines of models that are made in another way by now do not count, nor digits without a control.
    """
    groups: dict[tuple[int, str], list[Values]] = {}
    for (digit, model, seed, mark), values in sorted(found.items(), key=lambda item: item[0]):
        if Cell(digit, model, seed).key[-1] == mark:
            groups.setdefault((digit, model), []).append(values)
    rows: list[dict[str, object]] = []
    for (digit, model), several in groups.items():
        baselines, controls = (groups.get((digit, name)) for name in ("baseline", "control"))
        if model == "control" or not baselines or not controls:
            continue
        for finding in compare_all(digit, several, baselines, controls).findings:
            row = {"digit": digit, "method": model, "seeds": len(several), **asdict(finding)}
            rows.append({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()})
    stream = io.StringIO()
    names = ["digit", "method", "seeds", *(f.name for f in fields(Finding))]
    writer = csv.DictWriter(stream, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    replace_text(path, stream.getvalue())


def read_audit(path: Path = RESULTS / "audit.csv") -> dict[tuple[int, str, str], Finding]:
    """The rows of the table by digit, method and attack; none if it has not been made yet."""
    if not path.exists():
        return {}
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    try:
        return {(int(r["digit"]), r["method"], r["attack"]): _finding(r) for r in rows}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is damaged ({error!r}): take it from the repository again, or make it with "
            "`python -m sahelpers audit`"
        ) from error


def _finding(row: dict[str, str]) -> Finding:
    kinds: dict[str, Any] = {f.name: f.type for f in fields(Finding)}  # str, int or float
    return Finding(**{name: kind(row[name]) for name, kind in kinds.items()})


def add_options(parser: argparse.ArgumentParser) -> None:
    """What `python -m sahelpers audit` takes."""
    parser.add_argument("--digits", nargs="+", type=int, default=list(range(10)))
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(USUAL))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
