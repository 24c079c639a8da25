"""The commands behind the Makefile: `python -m sahelpers run|notebooks|models|...`."""

import argparse
import hashlib
import json
import logging
import os
import re
import time
from asyncio import CancelledError
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jupytext
import matplotlib
import nbformat
import torch
from jupytext.config import load_jupytext_config
from nbclient import NotebookClient
from tqdm import tqdm

from .checks import check_whole
from .config import CHECKOUT, DATASETS, IN_CHECKOUT
from .store import files
from .store.files import replace_text
from .story import Story
from .study import METHODS, grid, report
from .study.workers import BACKENDS

NOTEBOOKS = CHECKOUT / "notebooks"
REPORT = CHECKOUT / "results" / "run"
STORY = ("01_baseline", "02_fisher", "03_amnesia", "04_probing")
COLAB = "https://colab.research.google.com"
BADGE = r"\[!\[Open in Colab\]\(.*?\)\]\(.*?\)|\[Set your address first\]\(.*?\)"
MATH = re.compile(rf"`[^`]*`|\$\$(.+?)\$\$|\$([^$\n]+?)\$|{BADGE}", re.DOTALL)
INLINE = "module://matplotlib_inline.backend_inline"  # draws into the notebook
ADDRESS = r"(?!.*(/\.+|\.git)$)[A-Za-z\d](-?[A-Za-z\d]){0,38}/[\w.-]{1,100}"  # GitHub's rules


def execute(twin: Path) -> nbformat.NotebookNode:
    """Run a py:percent notebook from top to bottom in a fresh kernel.

    Raises if a cell fails, RuntimeError if a notebook that draws ends without a picture, and
    KeyboardInterrupt on Ctrl-C.
    """
    notebook: nbformat.NotebookNode = jupytext.read(twin, config=load_jupytext_config(str(twin)))
    for k, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{k:02d}"  # the same at every execution, for readable diffs
    client = NotebookClient(
        notebook,
        timeout=3600,
        resources={"metadata": {"path": str(twin.parent)}},
        store_widget_state=False,
        record_timing=False,
        coalesce_streams=True,
        extra_arguments=["--IPKernelApp.log_level=40"],  # errors only
    )
    try:
        with tqdm(total=len(notebook.cells), desc=twin.stem, unit="cell", disable=None) as bar:
            client.on_cell_executed = lambda **_: bar.update()
            client.execute(env={**os.environ, "MPLBACKEND": INLINE})
    except (AssertionError, CancelledError) as error:
        if isinstance(error, AssertionError) and client.km is not None:
            raise
        logging.getLogger("asyncio").disabled = True  # it would list what nbclient left undone
        raise KeyboardInterrupt from None  # whose handler in nbclient has let go of the kernel
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    kinds = [kind for cell in cells for output in cell.outputs for kind in output.get("data", {})]
    draws = any(word in cell.source for cell in cells for word in ("plt.show", "plots."))
    if draws and not any(kind.startswith("image/") for kind in kinds):
        raise RuntimeError(
            f"{twin.name} draws, but no picture came out of it: install matplotlib-inline, and let "
            "no cell choose another backend"
        )
    return notebook


def write_notebooks(names: list[str]) -> None:
    """Execute the twins (all, or the named ones) and write the .ipynb beside each."""
    os.environ["SA_PROGRESS"] = "0"
    twins = {twin.stem: twin for twin in sorted(NOTEBOOKS.glob("*.py"))}
    for name in names:
        if name not in twins:
            raise ValueError(f"no notebook is called {name!r}; there are {', '.join(twins)}")
    for name in names or twins:
        begin, target = time.perf_counter(), NOTEBOOKS / f"{name}.ipynb"
        replace_text(target, nbformat.writes(execute(twins[name])) + "\n")
        print(f"{target.name}: executed in {time.perf_counter() - begin:.0f} s")


def page(notebook: nbformat.NotebookNode) -> str:
    """HTML that needs no network: mathematics as MathML, without the badge."""
    from latex2mathml.converter import convert
    from nbconvert import HTMLExporter

    def math(found: re.Match[str]) -> str:
        if not (block := found[1]) and not found[2]:
            return "" if found[0].startswith("[") else found[0]
        text = convert(block or found[2], display="block" if block else "inline")
        return re.sub(r"[*_|]", lambda c: f"&#{ord(c[0])};", text)  # no Markdown in it

    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = MATH.sub(math, cell.source)
    text: str = HTMLExporter().from_notebook_node(notebook)[0]
    return re.sub(r'<script[^>]* src="https[^>]*>\s*</script>', "", text)


def made_from(*paths: Path) -> str:
    """Sixteen digits for these files, the package, and the versions of what it computes with."""
    found = hashlib.sha256(f"{torch.__version__} {matplotlib.__version__}".encode())
    for path in (*paths, *sorted((CHECKOUT / "sahelpers").rglob("*.py"))):
        found.update(path.read_bytes())
    return found.hexdigest()[:16]


def run() -> None:
    """Make every model of the story, print a table, execute the notebooks, leave results/run/.

    The table and a page are kept when what they were made from is unchanged: the models that ship
    or the notebook, the package and the versions of what it uses.
    """
    matplotlib.use("agg")
    REPORT.mkdir(parents=True, exist_ok=True)
    begin, file, summary = time.perf_counter(), REPORT / "summary.json", dict[str, Any]()
    mark = made_from(*sorted(files.SHIPPED.glob("*.pt")))
    with suppress(OSError, ValueError):  # not there, or damaged
        summary = json.loads(file.read_text(encoding="utf-8"))
    if summary.get("made_from") != mark or not (REPORT / "before_after.png").exists():
        summary = report.measure(3, REPORT) | {"made_from": mark}
        replace_text(file, json.dumps(summary, indent=1) + "\n")
    report.print_table(summary)
    os.environ["SA_PROGRESS"] = "0"
    for name in STORY:
        twin, target = NOTEBOOKS / f"{name}.py", REPORT / f"{name}.html"
        mark = f"<!-- made from {made_from(twin)} -->"
        if target.exists() and target.read_text(encoding="utf-8").endswith(mark):
            print(f"{target.name} is up to date")
            continue
        replace_text(target, page(execute(twin)) + mark)
        print(f"{target.name} written after {time.perf_counter() - begin:.0f} s")
    print(f"pictures, pages and {file.name} are in {REPORT.relative_to(CHECKOUT)}/")


def write_models() -> None:
    """Make what ships in checkpoints/shipped/ from nothing, on one thread, and replace it."""
    torch.set_num_threads(1)
    shipped = files.SHIPPED
    shipped.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=shipped.parent) as folder:
        os.environ["SA_CHECKPOINTS"], files.SHIPPED = folder, Path(folder)  # nothing that is there
        story = Story()
        for name in ("judges", "guide"):
            getattr(story, name)
        story.control(3), story.forgotten(3)
        for path in sorted(set(Path(folder).glob("*.pt")) - {Path(folder, "fisher.pt")}):
            os.replace(path, shipped / path.name)
            print(f"{path.name}: {(shipped / path.name).stat().st_size / 1e6:.1f} MB")


def with_badges(text: str, name: str, path: Path) -> str:
    """A page with badges that open their notebook in Colab (in README, the one its row names) or,
    while the address is still OWNER's, lead to README's section that says how to set it."""

    def badge(found: re.Match[str]) -> str:
        row, notebook = found[1] or "", found[2] or path.stem
        if name.startswith("OWNER/"):
            readme = "" if path.stem == "README" else "../README.md"
            return f"{row}[Set your address first]({readme}#set-your-address)"
        link = f"{COLAB}/github/{name}/blob/main/notebooks/{notebook}.ipynb"
        return f"{row}[![Open in Colab]({COLAB}/assets/colab-badge.svg)]({link})"

    return re.sub(rf"(\| \[(\w+)\].*)?(?:{BADGE})", badge, text)


def set_address(name: str) -> None:
    """Write NAME/REPOSITORY where the address of pyproject.toml stands, each file in one step and
    that one last: what was interrupted can be repeated.  SystemExit for a malformed name."""
    if not re.fullmatch(ADDRESS, name, re.ASCII):
        raise SystemExit(f"{name!r} is no address: give NAME/REPOSITORY as behind github.com/")
    project = CHECKOUT / "pyproject.toml"
    (old,) = re.findall(r'"https://github\.com/(.+)"', project.read_text(encoding="utf-8"))
    pages = [CHECKOUT / "README.md", CHECKOUT / "CITATION.cff", *sorted(NOTEBOOKS.glob("*.*"))]
    for path in (*pages, project):
        text = path.read_text(encoding="utf-8")
        text = re.sub(rf"(github(\.com)?/){re.escape(old)}(?![\w-])", rf"\g<1>{name}", text)
        replace_text(path, text := with_badges(text, name, path))
        print(f"{path.relative_to(CHECKOUT)}: {text.count(name)} times {name}")


def from_options(part: str, options: argparse.Namespace) -> grid.Grid:
    """The grid that the command line asks for; ValueError for what is not there."""
    check_whole(options.jobs, "--jobs")
    usual = {"scoreboard": tuple(METHODS), "claim": grid.CLAIMED, "audit": grid.AUDITED}[part]
    methods, digits, seeds = map(tuple, (options.methods or usual, options.digits, options.seeds))
    only, base = {} if options.methods else grid.ONLY, report.BASELINES[options.arch]
    more: Any = {"only": only, "device": options.device}
    more["controls"] = grid.CONTROL_SEEDS if part == "claim" else ()
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
        add("--device", default="cpu", help="cpu, cuda or mps")
        add("--plan", action="store_true", help="say what would be done, and end")
    options = parser.parse_args()
    if options.command in grids:
        try:
            chosen = from_options(options.command, options)
        except ValueError as error:
            parser.error(str(error))
        if options.plan:
            print(chosen.plan(options.jobs))
        else:
            chosen.run(options.backend, options.jobs, options.scheduler)
    elif not IN_CHECKOUT:
        parser.error(f"{options.command} needs the repository with its notebooks/: clone it first")
    elif options.command == "notebooks":
        write_notebooks(options.names)
    elif options.command == "address":
        set_address(options.name)
    else:
        run() if options.command == "run" else write_models()


if __name__ == "__main__":
    main()
