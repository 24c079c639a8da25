"""Many runs, method x class x seed, and the one journal of what came out; resumable.

A run that is in the journal is not done again; one that fails leaves its error there and is tried
by the next command, and the others go on.  Only this process writes, one line when a run is
complete, so stopping it at any moment loses the runs in flight and nothing else.  The tables are
written from the journal, so that anybody may ask its lines another question.
"""

import json
import os
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from ..amnesia import AmnesiaResult
from ..checks import check_whole
from ..config import DATASETS, AmnesiaConfig, BaselineConfig, JudgeConfig, check_classes
from ..data import LabelledImages, class_names, load_dataset
from ..story import Story
from ..training import TrainedCVAE
from . import battery, report
from .battery import Claim, Comparison, Effort
from .methods import BASELINE, CONTROL, HIDDEN, METHODS, OURS, Method, recipe
from .statistics import NAMED
from .workers import about, each, say

PARTS = ("scoreboard", "claim", "audit")
SEEDS = (42, 43, 44)
CONTROL_SEEDS = (48,)  # of further models that are retrained for the claim
# minutes each: a whole table has them on these classes and seeds only
ONLY = dict.fromkeys(("paper", "reference"), ((0, 3, 5), (42,)))
EXPENSIVE = (  # the methods whose runs get the bound and the attacks in the scoreboard
    OURS, "without EWC", "paper", "paper, 1,000 steps", "reference", HIDDEN, "saliency mask",
    CONTROL,
)  # fmt: skip
CLAIMED = (HIDDEN, OURS, CONTROL)
AUDITED = (BASELINE, OURS, "paper, 1,000 steps", HIDDEN, CONTROL)


@dataclass(frozen=True)
class Grid:
    """Runs of one part, "scoreboard", "claim" or "audit", on one data set.

    baseline, amnesia: configurations whose seed is replaced by each of `seeds`.
    expensive: methods whose runs in the scoreboard get the importance-weighted bound, the guided
    attack and relearning.  only: classes and seeds that a method is restricted to.
    controls: further seeds, of retrained models alone.
    folder: of journal.jsonl, which holds the lines of all parts, and of the tables.
    Raises ValueError for a part, method, data set or class that does not exist.
    """

    part: str
    methods: tuple[str, ...]
    forget_classes: tuple[int, ...]
    seeds: tuple[int, ...] = SEEDS
    dataset: str = "mnist"
    baseline: BaselineConfig = field(default_factory=BaselineConfig)
    amnesia: AmnesiaConfig = field(default_factory=AmnesiaConfig)
    judge: JudgeConfig = field(default_factory=JudgeConfig)
    effort: Effort = field(default_factory=Effort)
    claim: Claim = field(default_factory=Claim)
    controls: tuple[int, ...] = ()
    expensive: tuple[str, ...] = EXPENSIVE
    only: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)
    folder: Path = report.RESULTS
    device: str = "cpu"

    def __post_init__(self) -> None:
        allowed = list(METHODS) if self.part == "scoreboard" else [BASELINE, *METHODS]
        given = [("part", self.part, PARTS), ("dataset", self.dataset, DATASETS)]
        for what, value, choices in [*given, *(("method", m, allowed) for m in self.methods)]:
            if value not in choices:
                raise ValueError(f"{what} {value!r} is not one of {', '.join(choices)}")
        for seed in (*self.seeds, *self.controls):
            replace(self.baseline, seed=seed)  # says what is wrong
        for label in self.forget_classes:
            check_classes(label, len(class_names(self.dataset)))

    @property
    def journal(self) -> Path:
        """The file with a line for every run that has ended, of all parts."""
        return self.folder / "journal.jsonl"

    def runs(self) -> "list[Run]":
        """All runs, seed by seed."""
        found, everywhere = [], (self.forget_classes, self.seeds)
        seeds = self.seeds + tuple(s for s in self.controls if s not in self.seeds)
        only = {CONTROL: (self.forget_classes, seeds), **self.only}
        for seed, method, label in product(seeds, self.methods, self.forget_classes):
            classes, chosen = only.get(method, everywhere)
            if label in classes and seed in chosen:
                found.append(Run(self, method, METHODS.get(method, _nothing), label, seed))
        return found

    def missing(self) -> "list[Run]":
        """The runs that are not in the journal, or failed, or lack a measure that they ask for."""
        have = {_key(record): record.get("values", {}) for record in read_journal(self.journal)}
        return [run for run in self.runs() if not run.asked <= have.get(_key(run.key), {}).keys()]

    def plan(self, jobs: int = 1) -> str:
        """What `run` would do, with an estimate from the runs that the journal has already."""
        check_whole(jobs, "jobs")
        missing, known = self.missing(), self._seconds()
        lines = [f"{len(missing)} of {len(self.runs())} runs are missing in {self.journal.name}"]
        for method, n in Counter(run.method for run in missing).items():
            line = f"  {method:20}{n:4} runs, "
            line += f"{known[method]:.0f} s each" if method in known else "not timed yet"
            if self.part == "scoreboard" and method in self.expensive:
                line += ", with bound and attacks"
            if method in self.only:
                line += "; classes {} of seeds {} only".format(*self.only[method])
            lines.append(line)
        return "\n".join([*lines, self._left(missing, jobs)])

    def run(self, backend: str = "sequential", jobs: int = 1, scheduler: str | None = None) -> None:
        """Do every run that is missing (see `workers.each` for where), then write the tables.

        Prints the plan before and a line per run.  Raises RuntimeError at the end if one failed.
        """
        print(self.plan(jobs), flush=True)
        missing, names = self.missing(), class_names(self.dataset)
        left, failed = list(missing), list[BaseException]()
        by_cost = sorted(missing, key=lambda run: (run.method != CONTROL, run.expensive))
        firsts = list({run.seed: run for run in by_cost}.values())  # of each seed the last
        try:
            for part in (firsts[:1], firsts[1:]):  # the judges are made once, with the first
                for run, error in each(prepare, part, backend, jobs, scheduler):
                    if error:  # the runs themselves will report it, too
                        print(f"seed {run.seed}: {say(error)}", flush=True)
            for run, found in each(compute, missing, backend, jobs, scheduler):
                if isinstance(found, BaseException):
                    failed.append(found)
                    found = {"error": say(found)}
                append(self.journal, run.key | found)
                left.remove(run)
                said = found.get("error") or f"{found['cell_seconds']:.0f} s"
                where = f"{run.method}, class {names[run.forget_class]}, seed {run.seed}"
                print(f"{where}: {said}; {self._left(left, jobs)}", flush=True)
        finally:
            _data.cache_clear()
            _comparison.cache_clear()
            self.folder.mkdir(parents=True, exist_ok=True)
            report.write_table(self.part, read_journal(self.journal), self.folder)
        if failed:
            raise RuntimeError(
                f"{len(failed)} of {len(missing)} runs failed, named above: run the same command "
                "again to try them once more"
            ) from failed[0]

    def _seconds(self) -> dict[str, float]:
        """Median time of a method's runs that succeeded."""
        times = defaultdict(list)
        for record in read_journal(self.journal):
            if record["part"] == self.part and "cell_seconds" in record:
                times[record["method"]].append(record["cell_seconds"])
        return {method: statistics.median(found) for method, found in times.items()}

    def _left(self, runs: "Sequence[Run]", jobs: int) -> str:
        """How long these runs will take, as far as their methods have been timed."""
        known = self._seconds()
        untimed = sum(run.method not in known for run in runs)
        if untimed == len(runs) > 0:
            return f"{untimed} runs left, of methods not timed yet"
        minutes = sum(known.get(run.method, 0.0) for run in runs) / jobs / 60
        return f"{minutes:.0f} min left" + f", and {untimed} runs not timed yet" * bool(untimed)


def _nothing(story: Story, forget_class: tuple[int, ...]) -> AmnesiaResult:
    """What is done to the baseline: it is attacked as it is."""
    return AmnesiaResult(story.baseline.model, forget_class, {}, "budget", 0.0, 0)


@dataclass(frozen=True)
class Run:
    """One model to make and to measure: all that a worker needs to know, on whatever machine."""

    grid: Grid
    method: str
    function: Method  # it travels, for a worker's METHODS may lack it
    forget_class: int
    seed: int

    @property
    def key(self) -> dict[str, Any]:
        """What identifies it in the journal."""
        g = self.grid
        judged = g.judge, g.claim if g.part == "claim" else g.effort
        made = recipe(self.method, g.baseline, g.amnesia, *judged)
        names = self.method, self.forget_class, self.seed, g.dataset, g.baseline.arch, made
        return {"part": g.part, **dict(zip(report.KEY, names, strict=True))}

    @property
    def asked(self) -> set[str]:
        """The values that its line has, whatever comes out."""
        if self.grid.part != "scoreboard":
            return set(NAMED if self.grid.part == "claim" else ["guided both"])
        more = [*battery.BOUNDS, *battery.ATTACKS] if self.expensive else []
        return {*battery.JUDGED, *battery.REAL, *report.COST, *more}

    @property
    def expensive(self) -> bool:
        """Whether it is attacked with a guide."""
        part = self.grid.part
        return part == "audit" or (part == "scoreboard" and self.method in self.grid.expensive)

    def comparison(self, seed: int | None = None) -> Comparison:
        """What the runs of a seed share, its own if none is given."""
        g, seed = self.grid, self.seed if seed is None else seed
        own = replace(g.baseline, seed=seed), replace(g.amnesia, seed=seed), g.judge
        return _comparison(g.dataset, g.device, g.effort, *own)


@lru_cache(maxsize=1)
def _data(dataset: str) -> tuple[LabelledImages, LabelledImages]:
    """Training and test images: read once in the life of a worker."""
    return load_dataset(dataset), load_dataset(dataset, "test")


@lru_cache(maxsize=2)
def _comparison(dataset: str, device: str, effort: Effort, *own: Any) -> Comparison:
    configs = dict(zip(("baseline", "amnesia", "judge"), own, strict=True))
    return Comparison(Story(_data(dataset), device=device, **configs), effort)


def prepare(run: Run) -> None:
    """Make or load what runs share: judges, baseline, Fishers (a control's seed may have none)."""
    lone = run.method == CONTROL and run.grid.part == "claim"
    for name in ("judges", *(["guide"] * run.expensive), *(["fishers"] * (not lone))):
        getattr(run.comparison().story, name)


def compute(run: Run) -> dict[str, Any]:
    """Make the model and measure it: the values, and what the machine did for them."""
    begin = time.perf_counter()
    prepare(run)
    values = measure(run) if run.grid.part == "scoreboard" else attack(run)
    version = f"{__version__} (torch {torch.__version__})"
    seconds = time.perf_counter() - begin
    return {"values": values, "cell_seconds": seconds, "version": version, "machine": about()}


def attack(run: Run) -> battery.Values:
    """The attacks of the claim, or all others, on the run's model; a control is the story's."""
    g, story, label = run.grid, run.comparison().story, run.forget_class
    made = story.control(label) if run.method == CONTROL else run.function(story, (label,))
    given: Any = {"judges": story.judges, "real": story.test}
    if g.part == "claim":
        given["baseline"] = run.comparison(g.baseline.seed).story.baseline.model  # of one seed
        return battery.named_attacks(made.model, label, replace(g.claim, seed=run.seed), **given)
    given |= {"guide": story.guide, "baseline": story.baseline.model}
    return battery.attack_all(made.model, label, g.effort, **given)


def measure(run: Run) -> dict[str, Any]:
    """Forget, then measure: the values of the scoreboard's row."""
    known, label, control = run.comparison(), run.forget_class, run.method == CONTROL
    story = known.story
    # one thread's processor time does not depend on what else the machine does
    clock = time.process_time if story.device.type == "cpu" else time.perf_counter
    begin = clock()
    result = run.function(story, (label,))
    cost = result.steps, clock() - begin, result.real_images, result.reason
    if control:  # the audit attacks the same model
        story.keep_control(label, TrainedCVAE(result.model, result.history))
    given = result.model, label
    row: dict[str, Any] = known.samples(*given, knows_label=not control)
    row |= known.real(*given) | dict(zip(report.COST, cost, strict=True))
    if run.expensive:
        row |= known.bounds(*given) | known.attacks(*given)
    return row


def read_journal(path: Path) -> list[dict[str, Any]]:
    """The newest line of every run: its key, values or an error, and what the machine did.

    A line that a stopped command left torn does not count; without a file there is none.
    Raises ValueError for a line of JSON that is no run, naming file and line.
    """
    lines = path.read_bytes().split(b"\n")[:-1] if path.is_file() else []
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except ValueError:  # torn: the next command began a new line after it
            continue
        try:
            key, values = _key(record), record.get("values", {}).keys()
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{path}, line {number}: {line[:40]!r} is no run ({error!r}); take the file from "
                "the repository again, or remove the line to have that run done once more"
            ) from error
        if values or not found.get(key, {}).get("values"):  # a failure hides no success
            found[key] = record
    return list(found.values())


def _key(record: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(record[name] for name in ("part", *report.KEY))


def append(path: Path, record: Mapping[str, Any]) -> None:
    """Add one line and have it on the disk when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torn = path.exists() and path.read_bytes()[-1:] not in (b"", b"\n")
    with path.open("a", encoding="utf-8", newline="") as stream:
        stream.write("\n" * torn + json.dumps(record, separators=(",", ":")) + "\n")
        stream.flush()
        os.fsync(stream.fileno())
