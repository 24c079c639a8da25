"""What `python -m sahelpers` can do in a clone only: run, notebooks, models, address."""

import hashlib
import json
import logging
import os
import re
import time
from asyncio import CancelledError
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jupytext
import matplotlib
import matplotlib.pyplot as plt
import nbformat
import torch
from jupytext.config import load_jupytext_config
from nbclient import NotebookClient
from tqdm import tqdm

import sahelpers as sa
from sahelpers import plots
from sahelpers.config import CHECKOUT
from sahelpers.store import files
from sahelpers.store.files import replace_text
from sahelpers.study.workers import each

NOTEBOOKS = CHECKOUT / "notebooks"
REPORT = CHECKOUT / "results" / "run"
STORY = ("01_baseline", "02_fisher", "03_amnesia", "04_probing")
COLAB = "https://colab.research.google.com"
BADGE = r"\[!\[Open in Colab\]\(.*?\)\]\(.*?\)|\[Colab\]\([^)]*#set-your-address\)"
MATH = re.compile(rf"`[^`]*`|\$\$(.+?)\$\$|\$([^$\n]+?)\$|{BADGE}", re.DOTALL)
NEEDS_NONE = ("baseline", "control", "open", "plain", "guide")  # models made from images alone
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
        if not files.SHIPPED.is_dir():
            train_alone()
        summary = measure(3, REPORT) | {"made_from": mark}
        replace_text(file, json.dumps(summary, indent=1) + "\n")
    print_table(summary)
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


def train_alone() -> None:
    """Train the story's models of NEEDS_NONE that are missing, one per core at once."""
    jobs = min(len(NEEDS_NONE), os.cpu_count() or 1)
    print(f"training {', '.join(NEEDS_NONE)}, {jobs} at once: minutes", flush=True)
    for name, seconds in each(train, NEEDS_NONE, "loky", jobs):
        if isinstance(seconds, BaseException):
            raise seconds
        print(f"{name}: {seconds:.0f} s", flush=True)


def train(name: str) -> float:
    """Seconds that the story's model of this name takes; a judge is named by its role."""
    os.environ["SA_PROGRESS"] = "0"
    begin, story = time.perf_counter(), sa.Story()
    if name == "baseline":
        story.baseline  # noqa: B018
    elif name == "control":
        story.control(3)
    else:
        story.judge(name)
    return time.perf_counter() - begin


def write_models() -> None:
    """Make what ships in checkpoints/shipped/ from nothing, each on one thread, and replace it."""
    torch.set_num_threads(1)
    shipped = files.SHIPPED
    shipped.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=shipped.parent) as folder:
        os.environ |= {"SA_CHECKPOINTS": folder, "SA_SHIPPED": folder}  # nothing that is there
        files.SHIPPED = Path(folder)
        train_alone()
        sa.Story().forgotten(3)
        for path in sorted(set(files.SHIPPED.glob("*.pt")) - set(files.SHIPPED.glob("fisher*"))):
            os.replace(path, shipped / path.name)
            print(f"{path.name}: {(shipped / path.name).stat().st_size / 1e6:.1f} MB")


def with_badges(text: str, name: str, path: Path) -> str:
    """A page with badges that open their notebook in Colab (in README, the one its row names) or,
    while the address is still OWNER's, lead to README's section that says how to set it."""

    def badge(found: re.Match[str]) -> str:
        row, notebook = found[1] or "", found[2] or path.stem
        if name.startswith("OWNER/"):
            readme = "" if path.stem == "README" else "../README.md"
            return f"{row}[Colab]({readme}#set-your-address)"
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


def measure(forget_class: int, folder: Path, n: int = 2000) -> dict[str, Any]:
    """Forget one class with the default knobs and measure it: the figures of summary.json, and
    folder/before_after.png."""
    seconds, begins = dict[str, float](), [time.perf_counter()]

    def lap(what: str, made: Any) -> Any:
        begins.append(time.perf_counter())
        seconds[what] = round(begins[-1] - begins[-2], 1)
        return made

    story = lap("data", sa.Story())
    judges, baseline = lap("judges", story.judges), lap("baseline", story.baseline.model)
    lap("fisher", story.fishers)
    result = lap("forget", story.forgotten(forget_class))
    models = {"baseline": baseline, "forgotten": result.model}
    models["control"] = lap("control", story.control(forget_class).model)
    latents, found = sa.fixed_latents(baseline, n), {}
    for role, judge in judges.items():
        before, after = (sa.judge_samples(m, judge, latents) for m in (baseline, result.model))
        found[role] = {
            "p_before": before.probability.diagonal().tolist(),
            "p_after": after.probability.diagonal().tolist(),
            "argmax_after": float(after.argmax[forget_class, forget_class]),
            **vars(sa.collateral(before, after, forget_class)),
        }
    probes = lap("evaluation", probe(models, judges, forget_class))
    shown = sa.fixed_latents(baseline, 6, seed=1)
    first, second = (sa.draw_images(m, shown) for m in (baseline, result.model))
    figure, axes = plt.subplots(1, 2, figsize=(12, 4.3), layout="constrained")
    plots.before_after(first, second, shown.labels, axes=axes)
    figure.savefig(folder / "before_after.png", dpi=110)
    plt.close(figure)
    seconds["forgetting itself"] = round(result.seconds, 2)
    head = {"forget_class": forget_class, "n": n}
    return head | {"judges": found, "probes": probes, "seconds": seconds}


def probe(
    models: Mapping[str, sa.CVAE], judges: Mapping[str, sa.Judge], forget_class: int
) -> dict[str, dict[str, float]]:
    """Share of restarts that every scoring judge calls the class, per model (by name, the baseline
    among them) and probe."""
    few, baseline = sa.ProbeConfig(n_restarts=32, steps=300), models["baseline"]
    found: dict[str, dict[str, float]] = {}
    for name, model in models.items():
        prototype = sa.invert_prototypes(model, forget_class, few, baseline=baseline)
        results = {"prototype": prototype, "blind": sa.invert_blind(model, forget_class, few)}
        hits = {k: sa.success(r.images, judges, forget_class) for k, r in results.items()}
        found[name] = {k: float(hit.float().mean()) for k, hit in hits.items()}
    return found


def print_table(summary: Mapping[str, Any]) -> None:
    """The short table of `make run`."""
    c, n = summary["forget_class"], summary["n"]
    print(f"\nForgotten: {c}.  P(label asked for), {n} samples per class, same z before and after")
    judges = summary["judges"]
    print("class  " + "".join(f"{role + ' before':>14}{'after':>8}" for role in judges))
    for k in range(len(next(iter(judges.values()))["p_before"])):
        row = "".join(f"{v['p_before'][k]:14.3f}{v['p_after'][k]:8.3f}" for v in judges.values())
        print(f"{k:>5}{'*' if k == c else ' '} {row}")
    for role, v in judges.items():
        print(
            f"judge {role}: argmax = {c} on {100 * v['argmax_after']:.2f} % of the samples; kept "
            f"classes {v['mean_before']:.2f} -> {v['mean_after']:.2f} %, largest drop "
            f"{v['worst_drop']:.2f} points (class {v['worst_class']})"
        )
    print("probes, share of 32 restarts that both judges call the class:")
    for name, shares in summary["probes"].items():
        print(f"  {name:<10}" + "".join(f"{k} {s:.2f}   " for k, s in shares.items()))
    print("seconds: " + ", ".join(f"{k} {v}" for k, v in summary["seconds"].items()))
