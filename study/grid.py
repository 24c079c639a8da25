"""Many runs, method x class x seed, resumable.

A run that is in the journal is not done again; one that fails leaves its error there and is tried
by the next command, and the others go on.  The tables are written from the journal, so that anybody
may ask its lines another question.
"""

import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

from sahelpers import training
from sahelpers.attacks import ladder
from sahelpers.attacks.ladder import KEPT, RUNGS, UNFINISHED, Costs, Ladder, LadderConfig
from sahelpers.checks import check_whole
from sahelpers.config import (
    CHECKOUT,
    DATASETS,
    AmnesiaConfig,
    BaselineConfig,
    JudgeConfig,
    check_classes,
)
from sahelpers.data import LabelledImages, class_names, load_dataset
from sahelpers.story import Story
from sahelpers.training import TrainedCVAE

from . import journal, measures
from .measures import Baseline, MeasureConfig
from .methods import (
    DISTILLED,
    HIDDEN,
    KEPT_IMAGES,
    MASKED,
    METHODS,
    OURS,
    PAPER,
    REFERENCE,
    RETRAINED,
    UNDO,
    VERSION3,
    VERSION4,
    Function,
    as_method,
)
from .workers import do_all, on_processor, say, timed

RESULTS = CHECKOUT / "results"
PARTS = ("scoreboard", "ladder")
SEEDS = (42, 43, 44)
FURTHER_SEEDS = (48,)  # of more models that are retrained for the ladder
ZERO_SEED = 42  # of the baseline whose cost is the zero of every model's
CONFIGS = {  # network -> configurations of baseline and forgetting
    "mlp": (BaselineConfig(), AmnesiaConfig()),
    "conv": (BaselineConfig(arch="conv", epochs=10), AmnesiaConfig.conv()),
}
# a whole table has them on these classes and seeds only: minutes each, or rivals beside them
ONLY = dict.fromkeys((PAPER, REFERENCE), ((0, 3, 5), (42,)))
ONLY |= dict.fromkeys((DISTILLED, UNDO), ((0, 3, 7), (42,)))
# Training further for four times as long; relearning is left to the ladder itself.
LONGER = LadderConfig(heal_steps=4 * LadderConfig().heal_steps, relearn_steps=25)
LONGER_DIGITS = (2, 3, 8)  # three whose costs lay near those of retrained models
LONGER_METHODS = (HIDDEN, MASKED, RETRAINED, OURS, KEPT_IMAGES)
# for their knobs were chosen on the seeds of the others
OWN_SEEDS = {OURS: (51, 58, 59), KEPT_IMAGES: (60, 61, 62)}
LADDER_SEEDS = OWN_SEEDS | {HIDDEN: (ZERO_SEED,)}  # one hidden model of a digit: docs/protocol.md
# The methods whose runs get the importance-weighted bound in the scoreboard.  It takes long, and
# the defaults lack it, so that their runs count as done without.
BOUNDED = (
    "ours (without EWC)",
    PAPER,
    f"{PAPER}, 1,000 steps",
    REFERENCE,
    HIDDEN,
    "saliency mask",
    RETRAINED,
)
CLIMBED = (HIDDEN, MASKED, RETRAINED, VERSION3, VERSION4, OURS, KEPT_IMAGES)


@dataclass(frozen=True)
class Grid:
    """Runs of one part, "scoreboard" or "ladder", on one data set.

    Attributes:
        part: "scoreboard" measures outputs, kept classes and cost; "ladder" attacks.
        methods: Names in METHODS.
        forget_classes: Classes, each forgotten by itself.
        seeds: Of the baseline and of the forgetting.
        dataset: Name of one of `load_dataset`'s.
        baseline, amnesia: Configurations whose seed is replaced by each of `seeds`.
        judge: Configuration of the judges.
        measures, ladder: How much is drawn and tried in the scoreboard and on the ladder.
        further_seeds: More seeds, of retrained models alone.
        bounded: Methods whose runs in the scoreboard get the importance-weighted bound.
        only: Classes and seeds that a method is restricted to.
        own_seeds: Seeds that a method has in the place of `seeds`.
        folder: Of journal.jsonl, which holds the lines of all parts.
        device: Where models live.

    Raises:
        ValueError: For a part, method, data set or class that does not exist.
    """

    part: str
    methods: tuple[str, ...]
    forget_classes: tuple[int, ...]
    seeds: tuple[int, ...] = SEEDS
    dataset: str = "mnist"
    baseline: BaselineConfig = field(default_factory=BaselineConfig)
    amnesia: AmnesiaConfig = field(default_factory=AmnesiaConfig)
    judge: JudgeConfig = field(default_factory=JudgeConfig)
    measures: MeasureConfig = field(default_factory=MeasureConfig)
    ladder: LadderConfig = field(default_factory=LadderConfig)
    further_seeds: tuple[int, ...] = ()
    bounded: tuple[str, ...] = BOUNDED
    only: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)
    own_seeds: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    folder: Path = RESULTS
    device: str = "cpu"

    def __post_init__(self) -> None:
        given = [("part", self.part, PARTS), ("dataset", self.dataset, DATASETS)]
        given += [("method", method, tuple(METHODS)) for method in self.methods]
        for what, value, choices in given:
            if value not in choices:
                raise ValueError(f"{what} {value!r} is not one of {', '.join(choices)}")
        for seed in (*self.seeds, *self.further_seeds):
            replace(self.baseline, seed=seed)  # says what is wrong
        for label in self.forget_classes:
            check_classes(label, len(class_names(self.dataset)))

    @property
    def journal(self) -> Path:
        """The file with a line for every run that has ended, of all parts."""
        return self.folder / "journal.jsonl"

    def runs(self) -> "list[Run]":
        """All runs, seed by seed."""
        seeds = dict.fromkeys(self.methods, self.seeds) | dict(self.own_seeds)
        seeds[RETRAINED] = (*self.seeds, *self.further_seeds)
        each_once = dict.fromkeys(seed for method in self.methods for seed in seeds[method])
        found = []
        for seed, method, label in product(each_once, self.methods, self.forget_classes):
            classes, chosen = self.only.get(method, (self.forget_classes, seeds[method]))
            if label in classes and seed in chosen and seed in seeds[method]:
                found.append(Run(self, method, METHODS[method], label, seed))
        return found

    def missing(self) -> "list[Run]":
        """The runs that are not in the journal, or failed, or lack a measure that they ask for."""
        done = {journal.key_of(r): r.get("values", {}) for r in journal.read(self.journal)}
        return [
            run
            for run in self.runs()
            if not run.asked <= done.get(journal.key_of(run.key), {}).keys()
        ]

    def plan(self, jobs: int = 1, again: bool = False) -> str:
        """What `run` would do, with an estimate from the runs that the journal has already."""
        check_whole(jobs, "jobs")
        missing, known = self.runs() if again else self.missing(), self._seconds()
        lines = [f"{len(missing)} of {len(self.runs())} runs are missing in {self.journal.name}"]
        if again:
            lines = [f"{len(missing)} runs are done again"]
        made = {run.method for run in self.runs()}
        for method in self.methods:
            if method in self.only and method not in made:
                line = "  {:20} no run: classes {} of seeds {} only, unless it is named"
                lines.append(line.format(method, *self.only[method]))
        for method, n in Counter(run.method for run in missing).items():
            line = f"  {method:20}{n:4} runs, "
            line += f"{known[method]:.0f} s each" if method in known else "not timed yet"
            if self.part == "scoreboard" and method in self.bounded:
                line += ", with the bound"
            if method in self.only:
                line += "; classes {} of seeds {} only".format(*self.only[method])
            lines.append(line)
        return "\n".join([*lines, self._left(missing, jobs)])

    def run(
        self,
        backend: str = "sequential",
        jobs: int = 1,
        scheduler: str | None = None,
        again: bool = False,
    ) -> None:
        """Do every run that is missing, a line of the journal each; see `workers.do_all` for where.

        Prints the plan before and a line per run.  again: do those that are there as well; their
        new lines take the place of the old ones.

        Raises:
            RuntimeError: At the end, if a run failed.
        """
        print(self.plan(jobs, again), flush=True)
        missing, names = self.runs() if again else self.missing(), class_names(self.dataset)
        left, failed = list(missing), list[BaseException]()
        # the last of a seed stands for it: one that needs the Fishers, if there is any
        last_of_seed = {run.seed: run for run in sorted(missing, key=lambda run: run.needs_fishers)}
        firsts = list(last_of_seed.values())
        try:
            for part in (firsts[:1], firsts[1:]):  # the judges are made once, with the first
                for run, error in do_all(prepare, part, backend, jobs, scheduler):
                    if error:  # the runs themselves will report it, too
                        print(f"seed {run.seed}: {say(error)}", flush=True)
            for run, found in do_all(compute, missing, backend, jobs, scheduler):
                if isinstance(found, BaseException):
                    failed.append(found)
                    found = {"error": say(found)}
                journal.append(self.journal, run.key | found)
                left.remove(run)
                said = found.get("error") or f"{found['cell_seconds']:.0f} s"
                where = f"{run.method}, class {names[run.forget_class]}, seed {run.seed}"
                print(f"{where}: {said}; {self._left(left, jobs)}", flush=True)
        finally:
            _data.cache_clear()
            _baseline.cache_clear()
            _ladder.cache_clear()
        if failed:
            once_more = (
                "ask for them by --methods, --digits and --seeds"
                if again
                else "run the same command again"
            )
            raise RuntimeError(
                f"{len(failed)} of {len(missing)} runs failed, named above: {once_more} to try "
                "them once more"
            ) from failed[0]

    def _seconds(self) -> dict[str, float]:
        """Median time of a method's runs that succeeded, as much as is tried here."""
        times, shared = defaultdict(list), {run.key["shared"] for run in self.runs()}
        for record in journal.read(self.journal):
            alike = record["part"] == self.part and record["shared"] in shared
            alike &= on_processor(record.get("machine")) == (self.device == "cpu")
            if alike and "cell_seconds" in record:
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


@dataclass(frozen=True)
class Run:
    """One model to make and to measure: all that a worker needs to know, on whatever machine."""

    grid: Grid
    method: str
    function: Function  # it travels, for a worker's METHODS may lack it
    forget_class: int
    seed: int

    @property
    def key(self) -> dict[str, Any]:
        """What identifies it in the journal."""
        g = self.grid
        return {
            "part": g.part,
            "method": self.method,
            "class": self.forget_class,
            "seed": self.seed,
            "dataset": g.dataset,
            "arch": g.baseline.arch,
            "shared": shared_digest(g.part, g.baseline, g.judge, g.measures, g.ladder),
            **as_method(self.function).digests(g.amnesia),
        }

    @property
    def asked(self) -> set[str]:
        """The values that its line has, whatever comes out."""
        if self.grid.part == "ladder":
            return {*RUNGS, *KEPT, UNFINISHED}
        more = measures.BOUNDS if self.method in self.grid.bounded else []
        return {*measures.JUDGED, *measures.REAL, *measures.COST, *more}

    @property
    def needs_fishers(self) -> bool:
        """Whether the baseline's Fishers are made before it."""
        return self.grid.part == "scoreboard" or self.method not in (HIDDEN, MASKED, RETRAINED)

    def baseline(self, seed: int | None = None) -> Baseline:
        """What the runs of a seed share, its own if none is given."""
        g, seed = self.grid, self.seed if seed is None else seed
        configs = replace(g.baseline, seed=seed), replace(g.amnesia, seed=seed), g.judge
        return _baseline(g.dataset, g.device, g.measures, *configs)


def shared_digest(
    part: str,
    baseline: BaselineConfig,
    judge: JudgeConfig,
    measures: MeasureConfig,
    climbing: LadderConfig,
) -> str:
    """The entry `shared` of a run's key: what all models of a baseline have in common.

    No judge is asked on the ladder, so that none counts there.
    """
    recipe = asdict(baseline)
    del recipe["seed"]
    if part == "ladder":
        return journal.digest([recipe, asdict(climbing), ladder.VERSION, training.VERSION])
    return journal.digest([recipe, asdict(judge), asdict(measures), training.VERSION])


def model_key(
    part: str,
    model: Any,
    own: Sequence[Any],
    baseline: BaselineConfig | None = None,
    amnesia: AmnesiaConfig | None = None,
) -> dict[str, Any]:
    """What identifies a model of an experiment in the journal.

    Args:
        part: The experiment's name.
        model: It has a digit, a seed and a method, one of `METHODS`.
        own: What its numbers depend on beside the recipes and the ladder: settings, and a version
            that is raised when the experiment's code gives other numbers.
        baseline: How its baseline is trained; the default when left out.
        amnesia: How it forgets; the default when left out.
    """
    recipe = {**asdict(baseline or BaselineConfig()), "seed": None}
    climbing = [asdict(LadderConfig()), ladder.VERSION, training.VERSION]
    return {
        "part": part,
        "method": model.method,
        "class": model.digit,
        "seed": model.seed,
        "dataset": "mnist",
        "arch": "mlp",
        "shared": journal.digest([recipe, climbing, *own]),
        **as_method(METHODS[model.method]).digests(amnesia or AmnesiaConfig()),
    }


def current(record: Mapping[str, Any], climbing: LadderConfig | None = None) -> bool:
    """Whether a line of the journal belongs to today's default of its network and today's code.

    climbing: how much the ladder tries; the default when left out.
    """
    if record["method"] not in METHODS or record["part"] not in PARTS:
        return False
    baseline, amnesia = CONFIGS[record["arch"]]
    wanted = as_method(METHODS[record["method"]]).digests(amnesia)
    wanted["shared"] = shared_digest(
        record["part"], baseline, JudgeConfig(), MeasureConfig(), climbing or LadderConfig()
    )
    return all(record[name] == value for name, value in wanted.items())


@lru_cache(maxsize=1)
def _data(dataset: str) -> tuple[LabelledImages, LabelledImages]:
    """Training and test images: read once in the life of a worker."""
    return load_dataset(dataset), load_dataset(dataset, "test")


@lru_cache(maxsize=2)
def _baseline(dataset: str, device: str, config: MeasureConfig, *configs: Any) -> Baseline:
    named = dict(zip(("baseline", "amnesia", "judge"), configs, strict=True))
    return Baseline(Story(_data(dataset), device=device, **named), config)


@lru_cache(maxsize=10)  # the classes of a seed come one after the other
def _ladder(baseline: Baseline, label: int, config: LadderConfig) -> Ladder:
    """The images that all models of a class face, and what this baseline pays for them."""
    story = baseline.story
    return Ladder(story.baseline.model, label, story.train, story.test, config)


def prepare(run: Run) -> None:
    """Make or load what runs share: judges, and the baseline's Fishers if the run needs them."""
    story = run.baseline().story
    if run.grid.part == "scoreboard":
        story.judges  # noqa: B018
    if run.needs_fishers:
        story.fishers  # noqa: B018


def compute(run: Run) -> dict[str, Any]:
    """Make the model and measure it: the values, and what the machine did for them.

    What a retrained model draws under the forgotten label is arbitrary and has no figure.
    """
    or_nan = (run.grid.part, run.method) == ("scoreboard", RETRAINED)
    return timed(_values, run, run.grid.device, or_nan)


def _values(run: Run) -> dict[str, Any]:
    prepare(run)
    return {"values": measure(run) if run.grid.part == "scoreboard" else attack(run)}


def attack(run: Run) -> Costs:
    """The ladder on the run's model; a retrained one is the story's."""
    g, story, label = run.grid, run.baseline().story, run.forget_class
    if run.method == RETRAINED:
        model = story.retrained(label).model
    else:
        model = as_method(run.function)(story, (label,)).model
    costs = _ladder(run.baseline(ZERO_SEED), label, g.ladder).climb(model)
    return {name: [round(nats, 4) for nats in numbers] for name, numbers in costs.items()}


def measure(run: Run) -> dict[str, Any]:
    """Forget, then measure: the values of the scoreboard's row."""
    known, label = run.baseline(), run.forget_class
    story = known.story
    # one thread's processor time does not depend on what else the machine does
    clock = time.process_time if story.device.type == "cpu" else time.perf_counter
    begin = clock()
    result = as_method(run.function)(story, (label,))
    cost = result.steps, clock() - begin, result.real_images, result.reason
    if run.method == RETRAINED:  # the ladder attacks the same model
        story.keep_retrained(label, TrainedCVAE(result.model, result.history))
    row: dict[str, Any] = known.samples(result.model, label, run.method != RETRAINED)
    row |= known.real(result.model, label)
    row |= zip(measures.COST, cost, strict=True)
    if run.method in run.grid.bounded:
        row |= known.bounds(result.model, label)
    return row
