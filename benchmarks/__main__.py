"""Run every benchmark, gather what they measured, print it as a table.

    python benchmarks              # all of them: an hour on an idle machine
    python benchmarks --gather     # only gather what is in results/benchmarks/

Leaves results/benchmarks.json, with one entry per script.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from sahelpers.store.files import replace_text

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parent / "results"


def flatten(value: Any, path: tuple[str, ...] = ()) -> list[tuple[str, str]]:
    """(name, figure) of every number, words inside a list's entries naming that entry."""
    if isinstance(value, dict) and "median" in value:
        low, high = value.get("low", value.get("min")), value.get("high", value.get("max"))
        ends = f"at most {high}" if low is None else f"{low} to {high}"
        return [(", ".join(path), f"{value['median']} ({ends})")]
    if isinstance(value, dict):
        return [row for key, part in value.items() for row in flatten(part, (*path, key))]
    if isinstance(value, list) and all(isinstance(part, dict) for part in value):
        rows = []
        for part in value:
            label = [v for v in part.values() if isinstance(v, str)]
            label += [f"{part[k]} threads" for k in ("threads",) if k in part]
            rest = {k: v for k, v in part.items() if not isinstance(v, str) and k != "threads"}
            rows += flatten(rest, (*path, *label))
        return rows
    if isinstance(value, list):
        shown = [f"{v:.3g}" if isinstance(v, float) else str(v) for v in value]
        return [(", ".join(path), " ".join(shown))]
    return [(", ".join(path), f"{value:.4g}" if isinstance(value, float) else str(value))]


def gather() -> None:
    """Merge results/benchmarks/*.json and print the table."""
    parts = sorted((RESULTS / "benchmarks").glob("*.json"))
    found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in parts}
    replace_text(RESULTS / "benchmarks.json", json.dumps(found, indent=1) + "\n")
    rows = flatten(found)
    width = max(len(name) for name, _ in rows)
    for name, figure in rows:
        print(f"{name:{width}}  {figure}")


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python benchmarks", description=__doc__)
    parser.add_argument("--gather", action="store_true", help="run nothing")
    if not parser.parse_args().gather:
        for script in sorted(HERE.glob("[!_]*.py")):
            print(f"== {script.name}", flush=True)
            subprocess.run([sys.executable, script], check=True)
    gather()


if __name__ == "__main__":
    main()
