"""The audit of every digit, in one command that may be stopped and started again.

    python -m sahelpers audit --digits 3 7 --seeds 42 43 44

Every seed has its own baseline, forgotten model and control.  What the attacks found in one model
is one line of results/audit_values.jsonl, written when it is complete and never computed twice;
results/audit.csv is made from these lines.
"""

import argparse
import csv
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from .audit import AuditConfig, Values, attack_all, check_control, compare_all
from .competitors import METHODS, Task
from .config import AmnesiaConfig, BaselineConfig, FisherConfig, JudgeConfig, fingerprint
from .data import CHECKOUT, LabelledImages, load_dataset
from .excess import Finding
from .models import CVAE
from .story import get_baseline, get_control, get_fishers, get_judges

RESULTS = CHECKOUT / "results"
SEEDS = (42, 43, 44)
MODELS = ("baseline", "control", *METHODS)
USUAL = ("baseline", "selective amnesia", "paper", "label column", "control")
NUMBERS = [f.name for f in fields(Finding) if f.type is float]


@dataclass(frozen=True)
class Cell:
    """One model to attack."""

    digit: int
    model: str
    seed: int
    mark: str  # fingerprint of how it was made and attacked


def run(
    digits: Iterable[int], models: Sequence[str], seeds: Sequence[int], folder: Path = RESULTS
) -> None:
    """Attack what has not been attacked yet, then write the table."""
    audit = AuditConfig()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "audit_values.jsonl"
    found = read(path)
    train, test = load_dataset(), load_dataset(split="test")
    judges = get_judges(JudgeConfig(), train)
    guide = get_judges(JudgeConfig(), train, ["guide"])["guide"]
    for digit in digits:
        for seed in seeds:
            base = replace(BaselineConfig(), seed=seed)
            baseline = get_baseline(base, train)
            for name in models:
                made_with = (FisherConfig(), AmnesiaConfig()) if name in METHODS else ()
                cell = Cell(digit, name, seed, fingerprint(base, audit, *made_with))
                if cell in found:
                    continue
                begin = time.perf_counter()
                model = _make(name, digit, base, train)
                if name == "control":
                    check_control(model, digit)
                found[cell] = attack_all(model, baseline.model, digit, judges, guide, test, audit)
                with path.open("a") as stream:  # after a line break: the last line may be torn
                    stream.write("\n" + json.dumps(asdict(cell) | {"values": found[cell]}))
                seconds = time.perf_counter() - begin
                print(f"{digit} {name} seed {seed}: {seconds:.0f} s", flush=True)
    write_table(found, folder / "audit.csv")


def _make(name: str, digit: int, base: BaselineConfig, train: LabelledImages) -> CVAE:
    """The model of this name; the baseline, the control and the Fisher are checkpoints."""
    if name == "control":
        return get_control(base, train, digit).model
    trained = get_baseline(base, train)
    if name == "baseline":
        return trained.model
    fishers = get_fishers(trained, base, FisherConfig(), train)
    return METHODS[name](Task(trained.model, (digit,), fishers, train, base)).model


def read(path: Path) -> dict[Cell, Values]:
    """The lines written so far, without one that a stopped run left torn; none without a file."""
    found: dict[Cell, Values] = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            state = json.loads(line)
        except json.JSONDecodeError:
            continue
        values = state.pop("values")
        found[Cell(**state)] = values
    return found


def write_table(found: dict[Cell, Values], path: Path) -> None:
    """One row per digit, model and attack, against the controls of all seeds of that digit."""
    newest = {(c.digit, c.model, c.seed): v for c, v in found.items()}  # later lines win
    groups: dict[tuple[int, str], list[Values]] = {}
    for (digit, model, _), one in sorted(newest.items()):
        groups.setdefault((digit, model), []).append(one)
    rows: list[dict[str, object]] = []
    for (digit, model), values in groups.items():
        baselines, controls = groups.get((digit, "baseline")), groups.get((digit, "control"))
        if model == "control" or not baselines or not controls:
            continue
        for finding in compare_all(digit, values, baselines[0], controls).findings:
            row = {"digit": digit, "method": model, "seeds": len(values), **asdict(finding)}
            rows.append({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()})
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]) if rows else ["digit"])
        writer.writeheader()
        writer.writerows(rows)


def read_audit(path: Path = RESULTS / "audit.csv") -> dict[tuple[int, str, str], Finding]:
    """The rows of the table by digit, method and attack; none if it has not been made yet."""
    if not path.exists():
        return {}
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    return {
        (int(r["digit"]), r["method"], r["attack"]): Finding(
            attack=r["attack"],
            n=int(r["n"]),
            controls=int(r["controls"]),
            verdict=r["verdict"],
            **{k: float(r[k]) for k in NUMBERS},
        )
        for r in rows
    }


def add_options(parser: argparse.ArgumentParser) -> None:
    """What `python -m sahelpers audit` takes."""
    parser.add_argument("--digits", nargs="+", type=int, default=list(range(10)))
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(USUAL))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
