"""What the journal says, in words and pictures: the tables, RESULTS.md, and what `make run` prints.

The tables scoreboard.csv and audit.csv are written from the journal and never by hand.
"""

import csv
import io
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from .. import plots
from ..config import CHECKOUT, AmnesiaConfig, BaselineConfig, JudgeConfig, ProbeConfig
from ..judges import Judge, collateral, draw_images, fixed_latents, judge_samples
from ..models import CVAE
from ..probing import invert_blind, invert_prototypes, success
from ..store.files import replace_text
from ..story import Story
from . import statistics
from .battery import ATTACKS, BOUNDS, JUDGED, REAL, Effort
from .methods import BASELINE, CONTROL, recipe
from .statistics import Audit, Finding, Row, Summary

T = TypeVar("T")
RESULTS = CHECKOUT / "results"
BASELINES = {"mlp": BaselineConfig(), "conv": BaselineConfig(arch="conv", epochs=10)}
KEY = ["method", "class", "seed", "dataset", "arch", "fingerprint"]
COST = ["steps", "seconds", "real_images", "reason"]
ABOUT = ["cell_seconds", "peak_mb", "version", "machine", "error"]
COLUMNS = [*KEY, *JUDGED, *REAL, *COST, *BOUNDS, *ATTACKS, *ABOUT]
AUDIT_KEY = ["digit", "method", "seeds", "dataset", "arch", "fingerprint"]
AUDIT_COLUMNS = [*AUDIT_KEY, *(f.name for f in fields(Finding))]

Record = Mapping[str, Any]  # a line of the journal


def current(row: Record) -> bool:
    """Whether a row's recipe is today's default of its architecture."""
    baseline = BASELINES[row["arch"]]
    usual = recipe(row["method"], baseline, AmnesiaConfig(), JudgeConfig(), Effort())
    return bool(row["fingerprint"] == usual)


def write_table(part: str, records: Sequence[Record], folder: Path) -> None:
    """The folder's scoreboard.csv or audit.csv from the journal's lines, those of today's recipes
    last; RESULTS.md after the repository's own.  Floats have six digits, in the audit four places.
    """
    records = sorted((r for r in records if r["part"] == part), key=current)
    stream, columns, rows = io.StringIO(), COLUMNS, [{**r, **r.get("values", {})} for r in records]
    shown: Callable[[float], object] = "{:.6g}".format
    if part == "audit":
        columns, rows, shown = AUDIT_COLUMNS, _audit_rows(records), lambda v: round(v, 4)
    writer = csv.DictWriter(stream, columns, "", "ignore", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: shown(v) if isinstance(v, float) else v for k, v in row.items()})
    replace_text(folder / f"{part}.csv", stream.getvalue())
    if folder == RESULTS:
        replace_text(CHECKOUT / "RESULTS.md", markdown(read_scoreboard(), read_audit()))


def _audit_rows(records: Sequence[Record]) -> list[dict[str, Any]]:
    """One row per digit, model and attack, where there are a baseline and a control of its recipe;
    against the controls of all seeds of that digit."""
    groups, rows = defaultdict(list), []
    for r in sorted(records, key=itemgetter("class", "method", "seed")):
        if "values" in r:
            groups[itemgetter("class", "method", *KEY[3:])(r)].append(r["values"])
    for (digit, method, *where, mark), several in list(groups.items()):
        own = (*where, mark.partition("-")[0])
        baselines, controls = (groups[digit, name, *own] for name in (BASELINE, CONTROL))
        if method != CONTROL and baselines and controls:
            made = digit, method, len(several), *where, mark
            found = statistics.compare_all(digit, several, baselines, controls).findings
            rows += [dict(zip(AUDIT_KEY, made, strict=True)) | vars(f) for f in found]
    return rows


def read_scoreboard(folder: Path = RESULTS) -> list[dict[str, str]]:
    """The rows of the folder's scoreboard.csv, column -> text; none without the file.  Raises
    ValueError naming it when it is damaged."""
    return _read(folder / "scoreboard.csv", COLUMNS, dict)


def read_audit(folder: Path = RESULTS) -> dict[tuple[int, str, str], Finding]:
    """The findings of today's recipe on MNIST and the MLP, by digit, method and attack, from the
    folder's audit.csv; none without the file.  Raises ValueError naming it when it is damaged."""
    kinds: dict[str, Any] = {f.name: f.type for f in fields(Finding)}  # str, int or float

    def made(row: dict[str, str]) -> tuple[bool, tuple[int, str, str], Finding]:
        finding = Finding(**{name: kind(row[name]) for name, kind in kinds.items()})
        here = (row["dataset"], row["arch"]) == ("mnist", "mlp") and current(row)
        return here, (int(row["digit"]), row["method"], finding.attack), finding

    return {key: f for here, key, f in _read(folder / "audit.csv", AUDIT_COLUMNS, made) if here}


def _read(path: Path, columns: list[str], make: Callable[[dict[str, str]], T]) -> list[T]:
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        if any(list(row) != columns or None in row.values() for row in rows):
            raise ValueError("a row has not one value for each column")
        return [make(row) for row in rows]
    except (KeyError, ValueError, csv.Error) as error:
        raise ValueError(
            f"{path} is damaged ({error!r}): delete it; `python -m sahelpers {path.stem}` makes "
            "it anew from the journal"
        ) from error


def markdown(rows: Sequence[Row], audit: Audit | None = None) -> str:
    """RESULTS.md: two tables, one line per method, and how the rows were made."""
    whole = [row for row in rows if not row["error"]]
    found = statistics.summarise(whole, audit)
    above = statistics.dominance(found)
    counts = {
        name: [str(len(above[name])), str(sum(name in below for below in above.values()))]
        for name in found
    }
    made = sorted({(r["machine"], r["version"]) for r in whole if r["machine"]})
    notes = [f"Made on: {machine}; sahelpers {version}.\n" for machine, version in made]
    if failed := len(rows) - len(whole):
        notes.append(f"{failed} runs failed.\n")
    page = Path(__file__).with_name("results.md").read_text(encoding="utf-8")
    bars, others = _table(found, statistics.BARS), _table(found, statistics.OTHERS, counts)
    return page.format(bars=bars, others=others) + "".join(notes)


def _table(
    found: Summary, figures: Iterable[str], more: Mapping[str, list[str]] | None = None
) -> str:
    """One line per method; more: its cells in the columns of dominance."""
    head = ["method", "runs", *figures, *(["dominates", "dominated by"] if more else [])]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for method, values in found.items():
        shown = [_shown(list(values[figure].values())) for figure in figures]
        cells = [method, str(len(values["seconds"])), *shown, *(more[method] if more else [])]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _shown(values: Sequence[float]) -> str:
    """`mean (low to high) [worst]`, and of how many runs if not of all; no interval of so few."""
    known = [v + 0.0 for v in values if not math.isnan(v)]  # + 0.0: no minus before a zero
    if not known:
        return "-"
    mean, low, high = statistics.interval(known)
    n = f" n={len(known)}" if len(known) < len(values) else ""
    if max(known) >= 1000:
        return f"{mean:.0f}{n}"
    between = f" ({low:.2f} to {high:.2f})" if len(known) >= 5 else ""
    return f"{mean:.2f}{between} [{max(known):.2f}]{n}"


def excess_intervals(
    findings: Mapping[str, Finding], ax: Axes | None = None, title: str = ""
) -> Axes:
    """Excess over the controls with its 95 % interval, one row per entry.

    Blue: no more than the control; orange: memory remains; gray: no verdict.  The upright bar is
    the baseline's excess, what the attack finds where the class is known; dashed: the margin.
    """
    plots.check_some(findings, "findings", Finding)
    ax = plots.new_axes(ax, 4.5, 0.3 * len(findings) + 1.0)
    colors = {statistics.NO_MORE: plots.PALETTE[0], statistics.REMAINS: plots.PALETTE[1]}
    for row, f in enumerate(findings.values()):
        color = colors.get(f.verdict, "gray")
        ax.plot([f.excess_low, f.excess_high], [row, row], color=color, lw=2)
        ax.plot(f.excess, row, plots.MARKERS[0], color=color, ms=5)
        ax.plot(f.baseline - f.control, row, "|", color="black", ms=9, mew=2)
    ax.axvline(0, color="black", lw=0.8)
    ax.axvline(statistics.MARGIN, color="black", lw=0.8, ls="--")
    ax.set_yticks(range(len(findings)), list(findings))
    ax.set_ylim(len(findings) - 0.5, -0.5)
    ax.set(xlabel="excess over the controls", xlim=(-1.05, 1.05))
    ax.set_title(title, fontsize=10)
    return ax


def measure(forget_class: int, folder: Path, n: int = 2000) -> dict[str, Any]:
    """Forget one class with the default knobs and measure it: the figures of summary.json, and
    folder/before_after.png."""
    seconds, begins = dict[str, float](), [time.perf_counter()]

    def lap(what: str, made: T) -> T:
        begins.append(time.perf_counter())
        seconds[what] = round(begins[-1] - begins[-2], 1)
        return made

    story = lap("data", Story())
    judges, baseline = lap("judges", story.judges), lap("baseline", story.baseline.model)
    lap("fisher", story.fishers)
    result = lap("forget", story.forgotten(forget_class))
    models = {"baseline": baseline, "forgotten": result.model}
    models["control"] = lap("control", story.control(forget_class).model)
    latents, found = fixed_latents(baseline, n), {}
    for role, judge in judges.items():
        before, after = (judge_samples(m, judge, latents) for m in (baseline, result.model))
        stretched = judge_samples(result.model, judge, latents, stretch=True)
        found[role] = {
            "p_before": before.probability.diagonal().tolist(),
            "p_after": after.probability.diagonal().tolist(),
            "argmax_after": float(after.argmax[forget_class, forget_class]),
            "argmax_after_stretched": float(stretched.argmax[forget_class, forget_class]),
            **vars(collateral(before, after, forget_class)),
        }
    probes = lap("evaluation", probe(models, judges, forget_class))
    shown = fixed_latents(baseline, 6, seed=1)
    first, second = (draw_images(m, shown) for m in (baseline, result.model))
    figure, axes = plt.subplots(1, 2, figsize=(12, 4.3), layout="constrained")
    plots.before_after(first, second, shown.labels, axes=axes)
    figure.savefig(folder / "before_after.png", dpi=110)
    plt.close(figure)
    seconds["forgetting itself"] = round(result.seconds, 2)
    head = {"forget_class": forget_class, "n": n}
    return head | {"judges": found, "probes": probes, "seconds": seconds}


def probe(
    models: Mapping[str, CVAE], judges: Mapping[str, Judge], forget_class: int
) -> dict[str, dict[str, float]]:
    """Share of restarts that every scoring judge calls the class, per model (by name, the baseline
    among them) and probe."""
    few: dict[str, Any] = {"n_restarts": 32, "steps": 300}
    near, free, baseline = ProbeConfig.prototype(**few), ProbeConfig(**few), models["baseline"]
    found: dict[str, dict[str, float]] = {}
    for name, model in models.items():
        prototype = invert_prototypes(model, forget_class, near, baseline=baseline)
        results = {"prototype": prototype, "blind": invert_blind(model, forget_class, free)}
        hits = {k: success(r.images, judges, forget_class) for k, r in results.items()}
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
            f"judge {role}: argmax = {c} on {100 * v['argmax_after']:.2f} % of the samples, "
            f"{100 * v['argmax_after_stretched']:.2f} % stretched to full contrast; kept classes "
            f"{v['mean_before']:.2f} -> {v['mean_after']:.2f} %, largest drop "
            f"{v['worst_drop']:.2f} points (class {v['worst_class']})"
        )
    print("probes, share of 32 restarts that both judges call the class:")
    for name, shares in summary["probes"].items():
        print(f"  {name:<10}" + "".join(f"{k} {s:.2f}   " for k, s in shares.items()))
    print("seconds: " + ", ".join(f"{k} {v}" for k, v in summary["seconds"].items()))
