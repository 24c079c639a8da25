"""The whole story on real MNIST into results/run/: `make run`."""

import argparse
import hashlib
import json
import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import nbformat
import torch

import sahelpers as sa
from sahelpers import plots
from sahelpers.config import CHECKOUT
from sahelpers.store import files
from sahelpers.store.files import replace_text
from tools.address import BADGE
from tools.models import train_alone
from tools.notebooks import NOTEBOOKS, execute

REPORT = CHECKOUT / "results" / "run"
STORY = ("01_baseline", "02_fisher", "03_amnesia", "04_probing")
MATH = re.compile(rf"`[^`]*`|\$\$(.+?)\$\$|\$([^$\n]+?)\$|{BADGE}", re.DOTALL)


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
    """Sixteen digits for these files, the package, this module, and versions of libraries."""
    found = hashlib.sha256(f"{torch.__version__} {matplotlib.__version__}".encode())
    for path in (*paths, Path(__file__), *sorted((CHECKOUT / "sahelpers").rglob("*.py"))):
        found.update(path.read_bytes())
    return found.hexdigest()[:16]


def run() -> None:
    """Make every model of the story, print a table, execute the notebooks, leave results/run/.

    The table and a page are kept when what they were made from is unchanged: the models that ship,
    the package and the versions of what it uses; for a page the notebook and the figures in
    results/, too.
    """
    matplotlib.use("agg")
    REPORT.mkdir(parents=True, exist_ok=True)
    begin, file, summary = time.perf_counter(), REPORT / "summary.json", dict[str, Any]()
    models = sorted(files.SHIPPED.glob("*.pt"))
    figures = sorted((CHECKOUT / "results").glob("*.json"))  # which notebooks quote
    mark = made_from(*models)
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
        mark = f"<!-- made from {made_from(twin, *models, *figures)} -->"
        if target.exists() and target.read_text(encoding="utf-8").endswith(mark):
            print(f"{target.name} is up to date")
            continue
        replace_text(target, page(execute(twin)) + mark)
        print(f"{target.name} written after {time.perf_counter() - begin:.0f} s")
    print(f"pictures, pages and {file.name} are in {REPORT.relative_to(CHECKOUT)}/")


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
    models["retrained"] = lap("retrained", story.retrained(forget_class).model)
    latents, found = sa.fixed_latents(baseline, n), {}
    for role, judge in judges.items():
        before, after = (sa.judge_samples(m, judge, latents) for m in (baseline, result.model))
        found[role] = {
            "p_before": before.probability.diagonal().tolist(),
            "p_after": after.probability.diagonal().tolist(),
            "argmax_after": float(after.argmax[forget_class, forget_class]),
            **vars(sa.retained_accuracy(before, after, forget_class)),
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
        hits = {k: sa.attack_success(r.images, judges, forget_class) for k, r in results.items()}
        found[name] = {k: float(hit.float().mean()) for k, hit in hits.items()}
    return found


def print_table(summary: Mapping[str, Any]) -> None:
    """The short table of `make run`."""
    c, n = summary["forget_class"], summary["n"]
    print(f"\nForgotten: {c}.  P(label asked for), {n} samples per class, same z before and after")
    judges = summary["judges"]
    print("class  " + "".join(f"{role + ' before':>20}{'after':>8}" for role in judges))
    for k in range(len(next(iter(judges.values()))["p_before"])):
        row = "".join(f"{v['p_before'][k]:20.3f}{v['p_after'][k]:8.3f}" for v in judges.values())
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


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()  # --help, and no typing errors
    run()
