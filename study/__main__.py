"""The commands of the study: `python -m study scoreboard|ladder|tables|...`."""

import argparse
import os
from typing import Any

from sahelpers.attacks.ladder import LadderConfig
from sahelpers.checks import check_device
from sahelpers.config import DATASETS

from . import results_page
from .convert import convert
from .experiments import effort, encoder, frontier, power, published, sealed, your_data
from .grid import (
    CLIMBED,
    CONFIGS,
    FURTHER_SEEDS,
    LADDER_SEEDS,
    LONGER,
    LONGER_DIGITS,
    LONGER_METHODS,
    ONLY,
    OWN_SEEDS,
    RESULTS,
    SEEDS,
    Grid,
)
from .methods import MASKED, METHODS
from .scores import USUAL
from .workers import BACKENDS, check_backend, positive

ALL = "all"  # in the place of the methods' names
DEFAULTS = {  # options of both grids, as they are when left out
    "dataset": "mnist",
    "arch": "mlp",
    "backend": "loky",
    "jobs": os.cpu_count() or 1,
    "scheduler": None,
    "device": "cpu",
}
EXPERIMENTS = {
    "effort": (effort, "cost against effort on the 3: results/effort.json, 40 minutes"),
    "encoder": (encoder, "what the encoder gives away: results/encoder.md, half an hour"),
    "frontier": (frontier, "memory against what kept digits pay: results/frontier.md, two hours"),
    "power": (power, "how often the audit errs, a simulation: results/power.md, minutes"),
    "published": (published, "from the published recipe's baseline: results/published.md, hours"),
    "sealed": (sealed, "healings that are not in the loop: results/sealed.md, an hour and a half"),
    "your_data": (your_data, "the chain on other images: results/your_data.md, an hour"),
}


def from_options(part: str, options: argparse.Namespace) -> Grid:
    """The grid that the command line asks for; ValueError for what is not there."""
    check_backend(options.backend, options.jobs, options.scheduler)
    if options.backend != "dask":  # whose workers are other machines
        check_device(options.device)
    longer = part == "ladder" and options.longer
    if longer and (options.dataset, options.arch) != USUAL:
        raise ValueError(f"--longer is for {' and '.join(USUAL)}: its page has no other tables")
    usual: tuple[str, ...] = LONGER_METHODS if longer else CLIMBED
    if part == "scoreboard":
        usual = tuple(method for method in METHODS if method != MASKED)
    elif options.methods == [ALL]:
        usual = tuple(METHODS)
    chosen = options.methods not in (None, [ALL])
    digits = options.digits or (LONGER_DIGITS if longer else range(10))
    asked = (options.methods if chosen else usual, digits, options.seeds or SEEDS)
    methods, digits, seeds = (tuple(dict.fromkeys(several)) for several in asked)
    baseline, amnesia = CONFIGS[options.arch]
    as_reported = not options.seeds and (options.dataset, options.arch) == USUAL
    own_seeds = LADDER_SEEDS if part == "ladder" else OWN_SEEDS
    return Grid(
        part,
        methods,
        digits,
        seeds,
        options.dataset,
        baseline,
        amnesia,
        ladder=LONGER if longer else LadderConfig(),
        only=_restricted(options) if chosen else ONLY,
        own_seeds=own_seeds if as_reported else {},
        further_seeds=(*SEEDS, *FURTHER_SEEDS) if part == "ladder" and not options.seeds else (),
        device=options.device,
    )


def _restricted(options: argparse.Namespace) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    """Classes and seeds of the methods in ONLY when they are named: the user's where given."""
    return {
        method: (tuple(options.digits or classes), tuple(options.seeds or seeds))
        for method, (classes, seeds) in ONLY.items()
    }


def how_to_start(grid: Grid, options: argparse.Namespace) -> str:
    """What to type for the methods of which runs are missing."""
    methods = dict.fromkeys(run.method for run in grid.missing())
    words = [f'"{method}"' for method in methods or grid.methods]
    for name in ("digits", "seeds"):
        if given := getattr(options, name):
            words += [f"--{name}", *map(str, given)]
    for name, usual in DEFAULTS.items():
        if (given := getattr(options, name)) != usual:
            words += [f"--{name}", str(given)]
    words += ["--again"] * options.again
    return (
        "Nothing is started: say which methods, beside what is there, such as\n"
        f"  python -m study {grid.part} --methods {' '.join(words)}\n"
        f"or all of them by --methods {ALL}"
    )


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line and do what it asks for."""
    parser = argparse.ArgumentParser(prog="python -m study", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    grids = {
        "scoreboard": "every method: outputs, kept digits, cost",
        "ladder": "four attacks on every digit (docs/protocol.md)",
    }
    parsers = {}
    for part, words in grids.items():
        parsers[part] = commands.add_parser(part, help=words)
        parsers[part].set_defaults(**DEFAULTS)
        add: Any = parsers[part].add_argument
        usual = (
            f"the word {ALL} (without {MASKED}); when left out nothing that is missing is started, "
            "but the plan is printed"
        )
        if part == "ladder":
            add(
                "--longer",
                action="store_true",
                help="train models further four times as long, of a few digits",
            )
            usual = f"the word {ALL}; when left out {', '.join(CLIMBED)} (--longer: fewer)"
        add("--methods", nargs="+", help=f"names, or {usual}")
        longer = " and of --longer" if part == "ladder" else ""
        few = "; those methods get others when they are named"
        add(
            "--digits",
            nargs="+",
            type=int,
            help=f"when left out all ten, but three of methods that take minutes{longer}{few}",
        )
        add(
            "--seeds",
            nargs="+",
            type=int,
            help=f"when left out those of the tables, one of methods that take minutes{few}",
        )
        add("--dataset", choices=DATASETS)
        add("--arch", choices=list(CONFIGS))
        add("--backend", choices=BACKENDS)
        add("--jobs", type=positive, help="processes of loky; when left out one for each core")
        add("--scheduler", help="Dask's address, such as tcp://10.0.0.1:8786")
        add("--device", choices=("cpu", "cuda", "mps"))
        add("--plan", action="store_true", help="say what would be done, and end")
        add("--again", action="store_true", help="do runs anew that are there")
    commands.add_parser("tables", help="RESULTS.md and what belongs to it, seconds")
    carry = commands.add_parser(
        "convert", help="give a method's lines of the journal today's digest of its code"
    )
    carry.add_argument("--code", nargs="+", required=True, metavar="METHOD", choices=list(METHODS))
    for name, (module, words) in EXPERIMENTS.items():
        module.add_arguments(commands.add_parser(name, help=words, description=module.__doc__))

    options = parser.parse_args(arguments)
    if options.command in grids:
        try:
            grid = from_options(options.command, options)
        except ValueError as error:
            parsers[options.command].error(str(error))
        jobs = options.jobs if options.backend == "loky" else 1
        if options.plan:
            print(grid.plan(jobs, options.again))
            return
        wanted = options.again or grid.missing()
        if grid.part == "scoreboard" and options.methods is None and wanted:
            print(grid.plan(jobs, options.again), how_to_start(grid, options), sep="\n")
            return
        try:
            grid.run(options.backend, jobs, options.scheduler, options.again)
        finally:  # of what was done so far
            results_page.write()
    elif options.command == "tables":
        results_page.write()
    elif options.command == "convert":
        print(convert(RESULTS / "journal.jsonl", options.code))
    else:
        EXPERIMENTS[options.command][0].main(options)


if __name__ == "__main__":
    main()
