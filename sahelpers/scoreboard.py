"""Every method on every class and seed: one row of results/scoreboard.csv per cell, resumable.

    python -m sahelpers scoreboard --methods "selective amnesia" --digits 3 7 --seeds 42 43 44

A cell whose row has every measure is not computed again; a cell that fails gets a row with its
error, which the next run tries again, and the rest goes on.  Only this process writes, one row when
its cell is complete, so stopping it at any moment loses the cells in flight and nothing else.
"""

import argparse
import os
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from .audit_grid import read_audit
from .backends import BACKENDS, each
from .cells import KEY, Cell, compute, forget_shared, prepare, say
from .competitors import CONTROL, METHODS
from .config import AmnesiaConfig, BaselineConfig, JudgeConfig, check_classes
from .data import class_names
from .measures import Effort
from .results import write_results
from .table import TABLE, append, key_of
from .table import read_scoreboard as read

SEEDS = (42, 43, 44)
FULL_LENGTH = ("paper", "reference")  # minutes each: in a whole table on these digits only
FULL_DIGITS, FULL_SEEDS = (0, 3, 5), (42,)
CHOSEN = (  # the methods whose cells get the dear measures
    "selective amnesia", "without EWC", "paper", "paper, 1,000 steps", "reference", "label column",
    "saliency mask", CONTROL,
)  # fmt: skip

Restriction = tuple[tuple[int, ...], tuple[int, ...]]  # classes, seeds


@dataclass(frozen=True)
class Scoreboard:
    """A grid of cells, method x class x seed, of one data set and architecture, and its table.

    base, amnesia: configurations whose seed is replaced by each of `seeds`.
    dear: methods whose cells get the dear measures, the importance-weighted bound and the guided
    attack with relearning.  only: what a method is restricted to.
    """

    methods: tuple[str, ...]
    classes: tuple[int, ...]
    seeds: tuple[int, ...] = SEEDS
    base: BaselineConfig = field(default_factory=BaselineConfig)
    amnesia: AmnesiaConfig = field(default_factory=AmnesiaConfig)
    judge: JudgeConfig | None = None  # by default the usual one of the data set
    effort: Effort = field(default_factory=Effort)
    dear: tuple[str, ...] = CHOSEN
    only: Mapping[str, Restriction] = field(default_factory=dict)
    table: Path = TABLE
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name in (*self.methods, *self.dear):
            if name not in METHODS:
                raise ValueError(f"method {name!r} is not one of {', '.join(METHODS)}")
        for label in self.classes:
            check_classes(label, self.base.num_classes)
        if self.judge is not None and self.judge.dataset != self.base.dataset:
            raise ValueError(
                f"judge.dataset={self.judge.dataset!r} must be base.dataset={self.base.dataset!r}"
            )

    def cells(self) -> list[Cell]:
        """All cells, seed by seed."""
        base = self.base
        judge = self.judge or JudgeConfig(dataset=base.dataset, num_classes=base.num_classes)
        return [
            Cell(
                method=method,
                function=METHODS[method],
                label=label,
                base=replace(base, seed=seed),
                amnesia=replace(self.amnesia, seed=seed),
                judge=judge,
                effort=self.effort,
                dear=method in self.dear,
                device=self.device,
            )
            for seed in self.seeds
            for method in self.methods
            for label in self.classes
            if self._wanted(method, label, seed)
        ]

    def _wanted(self, method: str, label: int, seed: int) -> bool:
        classes, seeds = self.only.get(method, (self.classes, self.seeds))
        return label in classes and seed in seeds

    def missing(self) -> list[Cell]:
        """The cells without a row, or with one that failed or lacks a measure that they ask for."""
        rows = {key_of(row): row for row in read(self.table) if not row["error"]}
        found = [(cell, rows.get(cell.key, {})) for cell in self.cells()]
        return [cell for cell, row in found if not all(row.get(name) for name in cell.columns)]

    def plan(self, jobs: int = 1) -> str:
        """What `run` would do, with an estimate from the cells that the table has already."""
        missing, known = self.missing(), _seconds(read(self.table))
        lines = [f"{len(missing)} of {len(self.cells())} cells are missing in {self.table.name}"]
        for method, n in Counter(cell.method for cell in missing).items():
            time = f"{known[method]:.0f} s each" if method in known else "not timed yet"
            dear = ", with bound and attacks" * (method in self.dear)
            classes, seeds = self.only.get(method, ((), ()))
            only = f"; classes {classes} of seeds {seeds} only" if classes else ""
            lines.append(f"  {method:20}{n:4} cells, {time}{dear}{only}")
        return "\n".join([*lines, _left(missing, known, jobs)])

    def run(self, backend: str = "sequential", jobs: int = 1, scheduler: str | None = None) -> None:
        """Compute every cell that the table does not have (see `backends.each` for where).

        Prints the plan before and a line per cell, and writes RESULTS.md if the table is the
        repository's.
        """
        missing = self.missing()
        left = list(missing)
        names = [f"class {name}" for name in class_names(self.base.dataset)]
        print(self.plan(jobs), flush=True)
        dear = any(cell.dear for cell in missing)
        firsts = list({cell.base: replace(cell, dear=dear) for cell in missing}.values())
        try:
            for part in (firsts[:1], firsts[1:]):  # the judges are made once, with the first
                for cell, failed in each(prepare, part, backend, jobs, scheduler):
                    if failed:  # the cells themselves will report it, too
                        print(f"seed {cell.base.seed}: {say(failed)}", flush=True)
            for cell, row in each(compute, missing, backend, jobs, scheduler):
                if isinstance(row, BaseException):
                    row = dict(zip(KEY, cell.key, strict=True)) | {"error": say(row)}
                append(self.table, row)
                left.remove(cell)
                said = row.get("error") or f"{row['cell_seconds']:.0f} s"
                where = f"{names[cell.label]}, seed {cell.base.seed}"
                time = _left(left, _seconds(read(self.table)), jobs)
                print(f"{cell.method}, {where}: {said}; {time}", flush=True)
        finally:
            forget_shared()
            if self.table == TABLE:
                write_results(read(self.table), read_audit())


def _seconds(rows: Sequence[Mapping[str, str]]) -> dict[str, float]:
    """Median time of a method's cells that succeeded."""
    times: dict[str, list[float]] = {}
    for row in rows:
        if row["cell_seconds"] and not row["error"]:
            times.setdefault(row["method"], []).append(float(row["cell_seconds"]))
    return {method: statistics.median(found) for method, found in times.items()}


def _left(cells: Sequence[Cell], known: Mapping[str, float], jobs: int) -> str:
    """How long the rest will take, as far as its methods have been timed."""
    minutes = sum(known.get(cell.method, 0.0) for cell in cells) / jobs / 60
    untimed = sum(cell.method not in known for cell in cells)
    if untimed == len(cells) > 0:
        return f"{untimed} cells left, of methods not timed yet"
    return f"{minutes:.0f} min left" + (f", and {untimed} cells not timed yet" if untimed else "")


def add_options(parser: argparse.ArgumentParser) -> None:
    """The command line of `python -m sahelpers scoreboard`."""
    parser.add_argument("--methods", nargs="+", help="all; the full-length recipes on three digits")
    parser.add_argument("--digits", nargs="+", type=int, default=list(range(10)))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--dear", nargs="*", default=list(CHOSEN), help="attack these, bound them")
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--arch", default="mlp")
    parser.add_argument("--backend", default="loky", choices=BACKENDS)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes of loky")
    parser.add_argument("--scheduler", help="Dask's address, such as tcp://10.0.0.1:8786")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or mps")
    parser.add_argument("--plan", action="store_true", help="say what would be done, and end")


def run(
    methods: Sequence[str] | None,
    digits: Sequence[int],
    seeds: Sequence[int],
    dataset: str = "mnist",
    arch: str = "mlp",
    dear: Sequence[str] = CHOSEN,
    backend: str = "loky",
    jobs: int = 1,
    scheduler: str | None = None,
    device: str = "cpu",
    plan: bool = False,
) -> None:
    """What the command line does.  methods: None for the whole table."""
    base = BaselineConfig(dataset=dataset, arch=arch)
    grid = Scoreboard(
        methods=tuple(METHODS if methods is None else methods),
        classes=tuple(digits),
        seeds=tuple(seeds),
        base=replace(base, epochs=10) if arch == "conv" else base,
        dear=tuple(dear),
        only=dict.fromkeys(FULL_LENGTH, (FULL_DIGITS, FULL_SEEDS)) if methods is None else {},
        device=device,
    )
    if plan:
        print(grid.plan(jobs))
    else:
        grid.run(backend, jobs, scheduler)
