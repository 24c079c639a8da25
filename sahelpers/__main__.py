"""The commands behind the Makefile: `python -m sahelpers run|notebooks|audit|scoreboard`."""

import argparse
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

import jupytext
import matplotlib
import matplotlib.pyplot as plt
import nbformat
import torch
from jupytext.config import load_jupytext_config
from nbclient import NotebookClient

import sahelpers as sa

from . import audit_grid, scoreboard
from .data import CHECKOUT

NOTEBOOKS = CHECKOUT / "notebooks"
REPORT = CHECKOUT / "results" / "run"
STORY = ("01_baseline", "02_fisher", "03_amnesia", "04_probing")


def execute(twin: Path) -> nbformat.NotebookNode:
    """Run a py:percent notebook from top to bottom in a fresh kernel; raises if a cell fails."""
    notebook: nbformat.NotebookNode = jupytext.read(twin, config=load_jupytext_config(str(twin)))
    for k, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{k:02d}"  # the same at every execution, for readable diffs
    client = NotebookClient(
        notebook,
        timeout=3600,
        kernel_name="python3",
        resources={"metadata": {"path": str(twin.parent)}},
        store_widget_state=False,
        record_timing=False,
        coalesce_streams=True,
        extra_arguments=["--IPKernelApp.log_level=40"],  # errors only
    )
    client.execute()
    return notebook


def write_notebooks(names: list[str]) -> None:
    """Execute the twins (all, or the named ones) and write the .ipynb beside each."""
    os.environ["SA_PROGRESS"] = "0"
    twins = {twin.stem: twin for twin in sorted(NOTEBOOKS.glob("*.py"))}
    for name in names:
        if name not in twins:
            raise ValueError(f"no notebook is called {name!r}; there are {', '.join(twins)}")
    for twin in (twins[name] for name in names or twins):
        begin = time.perf_counter()
        notebook = execute(twin)
        target = twin.with_suffix(".ipynb")
        partial = target.with_suffix(".tmp")
        nbformat.write(notebook, partial)
        partial.replace(target)
        print(f"{target.name}: executed in {time.perf_counter() - begin:.0f} s")


def run() -> None:
    """Make every model of the story, execute its notebooks, leave results/run/, print a table.

    A page is kept when its notebook, the package and the versions of what it uses are unchanged.
    """
    matplotlib.use("agg")
    REPORT.mkdir(parents=True, exist_ok=True)
    begin = time.perf_counter()
    summary = report(forget_class=3)
    os.environ["SA_PROGRESS"] = "0"
    from nbconvert import HTMLExporter

    for name in STORY:
        target, mark = REPORT / f"{name}.html", f"<!-- made from {_ingredients(name)} -->"
        if target.exists() and target.read_text().endswith(mark):
            print(f"{target.name} is up to date")
            continue
        page, _ = HTMLExporter().from_notebook_node(execute(NOTEBOOKS / f"{name}.py"))
        target.write_text(page + mark)
        print(f"{target.name} written after {time.perf_counter() - begin:.0f} s")
    summary["seconds_in_all"] = round(time.perf_counter() - begin, 1)
    (REPORT / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    print_table(summary)


def _ingredients(name: str) -> str:
    """A digest of what a page is made from: notebook, package, versions."""
    total = hashlib.sha256(f"{torch.__version__} {matplotlib.__version__}".encode())
    for path in [NOTEBOOKS / f"{name}.py", *sorted((CHECKOUT / "sahelpers").rglob("*.py"))]:
        total.update(path.read_bytes())
    return total.hexdigest()[:16]


def report(forget_class: int, n: int = 2000) -> dict[str, Any]:
    """Forget one class with the default knobs and measure it: figures for the summary."""
    seconds: dict[str, float] = {}
    last = time.perf_counter()

    def lap(what: str) -> None:
        nonlocal last
        seconds[what] = round(time.perf_counter() - last, 1)
        last = time.perf_counter()

    base, fish, amnesia = sa.BaselineConfig(), sa.FisherConfig(), sa.AmnesiaConfig()
    train, test = sa.load_dataset(), sa.load_dataset(split="test")
    lap("data")
    judges = sa.get_judges(sa.JudgeConfig(), train)
    lap("judges")
    baseline = sa.get_baseline(base, train, test)
    lap("baseline")
    fishers = sa.get_fishers(baseline, base, fish, train)
    lap("fisher")
    result = sa.get_forgotten(baseline, fishers, forget_class, base, fish, amnesia)
    lap("forget")
    control = sa.get_control(base, train, forget_class)
    lap("control")
    latents = sa.fixed_latents(baseline.model, n)
    figures: dict[str, Any] = {"forget_class": forget_class, "n": n, "judges": {}}
    for role, judge in judges.items():
        before = sa.judge_samples(baseline.model, judge, latents)
        after = sa.judge_samples(result.model, judge, latents)
        stretched = sa.judge_samples(result.model, judge, latents, stretch=True)
        change = sa.collateral(before, after, result.forgotten)
        figures["judges"][role] = {
            "p_before": before.probability.diagonal().tolist(),
            "p_after": after.probability.diagonal().tolist(),
            "argmax_after": float(after.argmax[forget_class, forget_class]),
            "argmax_after_stretched": float(stretched.argmax[forget_class, forget_class]),
            **vars(change),
        }
    figures["probes"] = probe(
        {"baseline": baseline.model, "forgotten": result.model, "control": control.model},
        baseline.model,
        judges,
        forget_class,
    )
    lap("evaluation")
    shown = sa.fixed_latents(baseline.model, 6, seed=1)
    first, second = (sa.draw_images(m, shown) for m in (baseline.model, result.model))
    figure, axes = plt.subplots(1, 2, figsize=(12, 4.3), layout="constrained")
    sa.plots.before_after(first, second, shown.labels, axes=axes)
    figure.savefig(REPORT / "before_after.png", dpi=110)
    figures["seconds"] = seconds | {"forgetting itself": round(result.seconds, 2)}
    return figures


def probe(
    models: dict[str, sa.CVAE], baseline: sa.CVAE, judges: dict[str, sa.Judge], forget_class: int
) -> dict[str, dict[str, float]]:
    """Share of restarts that every scoring judge calls the forgotten class, per model and probe."""
    found: dict[str, dict[str, float]] = {}
    for name, model in models.items():
        results = {
            "prototype": sa.invert_prototypes(
                model, baseline, forget_class, sa.ProbeConfig.prototype(n_restarts=32, steps=300)
            ),
            "blind": sa.invert_blind(model, forget_class, sa.ProbeConfig(n_restarts=32, steps=300)),
        }
        found[name] = {
            kind: float(sa.success(r.images, judges, forget_class).float().mean())
            for kind, r in results.items()
        }
    return found


def print_table(summary: dict[str, Any]) -> None:
    """The short table of `make run`."""
    c, n = summary["forget_class"], summary["n"]
    print(f"\nForgotten: {c}.  P(label asked for), {n} samples per class, same z before and after")
    print("class  " + "".join(f"{role + ' before':>14}{'after':>8}" for role in summary["judges"]))
    for k in range(len(next(iter(summary["judges"].values()))["p_before"])):
        row = "".join(
            f"{v['p_before'][k]:14.3f}{v['p_after'][k]:8.3f}" for v in summary["judges"].values()
        )
        print(f"{k:>5}{'*' if k == c else ' '} {row}")
    for role, v in summary["judges"].items():
        print(
            f"judge {role}: argmax = {c} on {100 * v['argmax_after']:.2f} % of the samples, "
            f"{100 * v['argmax_after_stretched']:.2f} % stretched to full contrast; kept classes "
            f"{v['mean_before']:.2f} -> {v['mean_after']:.2f} %, largest drop "
            f"{v['worst_drop']:.2f} points (class {v['worst_class']})"
        )
    print("probes, share of 32 restarts that both judges call the class:")
    for name, shares in summary["probes"].items():
        print(f"  {name:<10}" + "".join(f"{k} {s:.2f}   " for k, s in shares.items()))
    print("seconds: " + ", ".join(f"{k} {v}" for k, v in summary["seconds"].items()))
    print(f"pictures, pages and summary.json are in {REPORT.relative_to(CHECKOUT)}/")


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m sahelpers", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run", help="the whole story into results/run/")
    several = commands.add_parser("notebooks", help="execute the twins and write the .ipynb files")
    several.add_argument("names", nargs="*", help="such as 03_amnesia; all when left out")
    audit_grid.add_options(commands.add_parser("audit", help="attack every digit: audit.csv"))
    scoreboard.add_options(commands.add_parser("scoreboard", help="every method: scoreboard.csv"))
    arguments = parser.parse_args()
    if arguments.command == "audit":
        audit_grid.run(arguments.digits, arguments.models, arguments.seeds, arguments.jobs)
    elif arguments.command == "scoreboard":
        a = arguments
        where = a.backend, a.jobs, a.scheduler, a.device
        scoreboard.run(a.methods, a.digits, a.seeds, a.dataset, a.arch, a.dear, *where, a.plan)
    else:
        run() if arguments.command == "run" else write_notebooks(arguments.names)


if __name__ == "__main__":
    main()
