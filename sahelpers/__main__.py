"""The commands behind the Makefile: `python -m sahelpers run|notebooks|models|...`."""

import argparse
import importlib
import os
import sys
from typing import Any

from .config import CHECKOUT, DATASETS, IN_CHECKOUT
from .study import METHODS, grid, report
from .study.workers import BACKENDS, check_backend


def from_docs(module: str) -> Any:
    """A module of docs/, where the commands are that need a clone with its notebooks."""
    if (docs := str(CHECKOUT / "docs")) not in sys.path:
        sys.path.insert(0, docs)
    return importlib.import_module(module)


def from_options(part: str, options: argparse.Namespace) -> grid.Grid:
    """The grid that the command line asks for; ValueError for what is not there."""
    check_backend(options.backend, options.jobs, options.scheduler)
    usual = {"scoreboard": tuple(METHODS), "claim": grid.CLAIMED, "audit": grid.AUDITED}[part]
    asked = (options.methods or usual, options.digits, options.seeds)
    methods, digits, seeds = (tuple(dict.fromkeys(several)) for several in asked)
    only, base = {} if options.methods else grid.ONLY, report.BASELINES[options.arch]
    more: Any = {"only": only, "device": options.device, "amnesia": report.AMNESIA[options.arch]}
    controls = {"claim": (*grid.SEEDS, *grid.CONTROL_SEEDS), "audit": grid.SEEDS}
    more["controls"] = controls.get(part, ())  # of whatever seeds the other models are
    return grid.Grid(part, methods, digits, seeds, options.dataset, base, **more)


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m sahelpers", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run", help="the whole story into results/run/")
    several = commands.add_parser("notebooks", help="execute the twins and write the .ipynb files")
    several.add_argument("names", nargs="*", help="such as 03_amnesia; all when left out")
    commands.add_parser("models", help="train what ships in checkpoints/shipped/, minutes")
    where = commands.add_parser("address", help="write the repository's address everywhere")
    where.add_argument("name", help="NAME/REPOSITORY, as it stands behind https://github.com/")
    grids = {
        "scoreboard": "every method: scoreboard.csv",
        "claim": "the named attacks on every digit: audit.csv",
        "audit": "all other attacks: audit.csv",
    }
    for part, words in grids.items():
        add = commands.add_parser(part, help=words).add_argument
        usual = "all, those of minutes on three digits" if part == "scoreboard" else "some"
        add("--methods", nargs="+", help=f"by default {usual}")
        add("--digits", nargs="+", type=int, default=list(range(10)))
        add("--seeds", nargs="+", type=int, default=list(grid.SEEDS))
        add("--dataset", default="mnist", choices=DATASETS)
        add("--arch", default="mlp", choices=list(report.BASELINES))
        add("--backend", default="loky", choices=BACKENDS)
        add("--jobs", type=int, default=os.cpu_count() or 1, help="processes of loky")
        add("--scheduler", help="Dask's address, such as tcp://10.0.0.1:8786")
        add("--device", default="cpu", choices=("cpu", "cuda", "mps"))
        add("--plan", action="store_true", help="say what would be done, and end")
    options = parser.parse_args()
    if options.command in grids:
        try:
            chosen = from_options(options.command, options)
        except ValueError as error:
            parser.error(str(error))
        if options.plan:
            return print(chosen.plan(options.jobs))
        try:
            chosen.run(options.backend, options.jobs, options.scheduler)
        finally:  # of what was done so far
            if IN_CHECKOUT:
                from_docs("results").write()
    elif not IN_CHECKOUT:
        parser.error(f"{options.command} needs the repository with its notebooks/: clone it first")
    elif options.command == "run":
        from_docs("repository").run()
    elif options.command == "models":
        from_docs("repository").write_models()
    elif options.command == "address":
        from_docs("repository").set_address(options.name)
    else:
        from_docs("repository").write_notebooks(options.names)


if __name__ == "__main__":
    main()
