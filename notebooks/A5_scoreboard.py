# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,-all
#     formats: ipynb,py:percent
#     notebook_metadata_filter: kernelspec,jupytext,-jupytext.text_representation.jupytext_version
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A5. The scoreboard: methods, digits, seeds
#
# [Colab](../README.md#set-your-address)
#
# This notebook reads two tables of the repository: [scoreboard.json](../results/scoreboard.json) has a row for each method, digit and seed, [audit.json](../results/audit.json) what the ladder of [notebook 04](04_probing.ipynb) finds. Reading: 12 minutes; running: half a minute on two CPU cores.

# %%
# Colab gets the repository here; elsewhere, and the second time, this cell does nothing.
import sys
from pathlib import Path

if "google.colab" in sys.modules and not Path("../sahelpers").is_dir():
    import os
    import subprocess

    home = Path("selective-amnesia-mnist").resolve()
    if not home.exists():
        address = "https://github.com/OWNER/selective-amnesia-mnist"
        try:
            subprocess.run(["git", "clone", "--depth", "1", address, str(home)], check=True)
        except subprocess.CalledProcessError as error:
            raise RuntimeError(
                f"git could not fetch {address} (its own message stands above). Is there a "
                "repository at this address, and is it public? If not, set address to where it "
                "is; if so, run this cell again, for the connection may have failed."
            ) from error
    os.chdir(home / "notebooks")  # pictures and tables are found from here
    sys.path.insert(0, str(home))

# %%
import json
import math
import statistics
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from scipy.stats import t as student

import sahelpers as sa
from study import scores
from study.claims import claim
from study.methods import METHODS

# %% [markdown]
# ## Parameters
#
# `python -m study scoreboard` and `python -m study ladder` make the tables' runs (hours, resumable), `python -m study tables` writes the tables from them (seconds).

# %%
DATASET = "mnist"  # rows of this data set, or of fashion_mnist, kmnist, qmnist
ARCH = "mlp"  # rows of this architecture
OURS = "ours (with the loop)"  # the method in question
RETRAINED = "retrained"  # the method that never saw the class

# %% [markdown]
# ## What is in the table
#
# The recipes are in [methods.py](../study/methods.py); the table holds those of today and no earlier ones.

# %%
table = json.loads(Path("../results/scoreboard.json").read_text())
rows = [row for row in table if (row["dataset"], row["arch"]) == (DATASET, ARCH)]
runs = {method: [row for row in rows if row["method"] == method] for method in METHODS}
methods = [method for method in METHODS if runs[method]]
absent = [method for method in METHODS if not runs[method]]
if OURS not in methods:
    command = f"python -m study scoreboard --dataset {DATASET} --arch {ARCH}"
    raise ValueError(f"the table has no row of {OURS}, {DATASET}, {ARCH}: `{command}` makes it")
for method in methods:
    digits = sorted({row["class"] for row in runs[method]})
    seeds = sorted({row["seed"] for row in runs[method]})
    print(f"{method:53}{len(runs[method]):3} runs: digits {digits}; seeds {seeds}")
print("not run:", "; ".join(absent) or "none")
width = max(map(len, methods)) + 1  # of the first column of the tables below

# %% [markdown]
# ## A figure and its interval, by hand
#
# The ten digits are all there are; the seeds are the sample. So the spread of a mean over digits is that of runs about their own digit's mean, pooled, and Student's $t$ gives the middle 95 %. For the largest drop of a kept class:


# %%
def findings_on(dataset, arch):
    """Method -> digit -> rung -> finding, from the table of the audit."""
    found = {method: {} for method in METHODS}
    for row in json.loads(Path("../results/audit.json").read_text())["findings"]:
        if (row["dataset"], row["arch"]) == (dataset, arch):
            about = ("digit", "method", "dataset", "arch")
            fields = {name: value for name, value in row.items() if name not in about}
            of_digit = found[row["method"]].setdefault(row["digit"], {})
            of_digit[row["rung"]] = sa.Finding(**fields)
    return {method: of for method, of in found.items() if of}


def figures_of(rows, dataset, arch):
    """Method -> figure -> (digit, seed) -> number, under the methods' own names."""
    found = scores.summarise(rows, findings_on(dataset, arch))
    return {name.removesuffix(f" ({dataset}, {arch})"): of for name, of in found.items()}


# %%
figures = figures_of(rows, DATASET, ARCH)
WORST = "worst class lost, points"
groups = {}  # digit -> its runs
for (digit, _), value in figures[OURS][WORST].items():
    groups.setdefault(digit, []).append(value)
centres = {digit: statistics.fmean(group) for digit, group in groups.items()}
apart = [value - centres[digit] for digit, group in groups.items() for value in group]
freedom = len(apart) - len(groups)  # each digit's mean takes one away
mean, reach = statistics.fmean(centres.values()), math.nan
if freedom:
    spread = math.sqrt(sum(v**2 for v in apart) / freedom)  # of a run about its digit
    error = spread * math.sqrt(sum(1 / len(g) for g in groups.values())) / len(groups)
    reach = error * float(student.ppf(0.975, freedom))
by_hand = torch.tensor([mean, mean - reach, mean + reach])
helper = torch.tensor(scores.interval(figures[OURS][WORST]))
assert torch.allclose(by_hand, helper, equal_nan=True, atol=1e-6)

# %%
ax = sa.plots.new_axes(None, 6.0, 3.0)
for k, (digit, group) in enumerate(sorted(groups.items())):
    ax.plot([k] * len(group), group, "o", color=sa.plots.AFTER, ms=4)
    ax.plot(k, centres[digit], "_", color="black", ms=14)
ax.axhspan(mean - reach, mean + reach, color="0.85", zorder=0)
ax.set_xticks(range(len(groups)), sorted(groups))
ax.set(xlabel="forgotten class", ylabel="largest drop of a kept class [points]", title=OURS)
plt.show()

# %% [markdown]
# *A dot per run, a dash per digit's mean, and the interval as a band.* The interval speaks of other seeds, not of other data or judges.
#
# ## The table
#
# Forgetting by the *open-set* judge, kept recognition by the worse of both ([scores.py](../study/scores.py)). IWAE is a tighter ELBO. Smaller is better, but for what c_f loses; of the attack, what lies below the retrained models counts as 0. Empty: not measured, or arbitrary. No interval: one figure per digit.

# %% tags=["nbval-ignore-output"]
names = [*scores.BARS, *scores.OTHERS]
for shown in (names[:5], names[5:10], names[10:]):
    heads = "".join(f"{name.replace(', points', ''):>26}" for name in shown)
    print(f"\n{'':{width}}  runs{heads}")
    for method in methods:
        line = ""
        for name in shown:
            mean, low, high = scores.interval(figures[method][name])
            text = "" if math.isnan(mean) else f"{mean:.2f}"
            if mean >= 1000:
                text = f"{mean:.0f}"
            elif not math.isnan(low):
                text += f" ({low:.2f} to {high:.2f})"
            line += f"{text:>26}"
        print(f"{method:{width}}{len(runs[method]):6}{line}")


# %% [markdown]
# ## Figure by figure


# %%
def dots(ax, name):
    """A method per line: mean and 95 % interval."""
    for k, method in enumerate(methods):
        mean, low, high = scores.interval(figures[method][name])
        color = sa.plots.AFTER if method == OURS else sa.plots.BEFORE
        ax.plot([low, high], [k, k], color=color, lw=2)
        ax.plot(mean, k, "s" if method == OURS else "o", color=color, ms=6)
    ax.set_yticks(range(len(methods)), methods)
    ax.set_ylim(len(methods) - 0.5, -0.5)
    ax.set_title(name, fontsize=10)
    ax.margins(x=0.1)
    ax.grid(axis="x", lw=0.3)


def stretch(axis, name):
    """Linear up to 1 and logarithmic beyond, if a run's figure reaches 10."""
    if any(v >= 10 for m in methods for v in figures[m][name].values()):
        getattr(axis.axes, f"set_{axis.axis_name}scale")("symlog", linthresh=1)
        axis.set_major_formatter("{x:g}")
        axis.axes.autoscale(axis=axis.axis_name)


# %%
names = ("argmax = c_f, %", "kept mean lost, points", WORST, "seconds")
figure, axes = plt.subplots(
    1, 4, figsize=(13, 1.2 + 0.3 * len(methods)), layout="constrained", sharey=True
)
for ax, name in zip(axes, names, strict=True):
    dots(ax, name)
    if name in scores.BARS:
        ax.axvline(scores.BARS[name][2], color="black", ls="--", lw=1)
    stretch(ax.xaxis, name)
plt.show()

# %% [markdown]
# *The orange square is ours; left of the dashed lines lies what was asked for. A negative "kept mean lost" is a gain.* Does ours meet it in every run?

# %%
for name, (_, _, allowed) in scores.BARS.items():
    worst = max(figures[OURS][name].values())
    print(
        f"{name}: at most {allowed:g} in every run: {'holds' if worst <= allowed else 'does not hold'}"
    )

# %% [markdown]
# ## Digit by digit


# %%
def per_digit(name):
    """Mean over seeds, methods x classes; nan where there is no run or no figure."""
    sheet = torch.full((len(methods), 10), float("nan"))
    for k, method in enumerate(methods):
        for c in range(10):
            found = [v for (d, _), v in figures[method][name].items() if d == c]
            sheet[k, c] = statistics.fmean(found) if found else float("nan")
    return sheet


figure, axes = plt.subplots(
    1, 2, figsize=(13, 1.5 + 0.33 * len(methods)), layout="constrained", sharey=True
)
for ax, name, top in zip(axes, ("argmax = c_f, %", WORST), (100, 5), strict=True):
    sheet = per_digit(name)
    picture = ax.imshow(sheet, cmap="cividis", aspect="auto", vmin=0, vmax=top)
    figure.colorbar(picture, ax=ax, extend="max" if top < 100 else "neither", pad=0.01)
    for k, row in enumerate(sheet.tolist()):
        for c, value in enumerate(row):
            words = "" if value != value else f"{value:.1f}"
            shade = "black" if value > top / 2 else "white"
            ax.text(c, k, words, ha="center", va="center", fontsize=7, color=shade)
    ax.set_xticks(range(10))
    ax.set_yticks(range(len(methods)), methods)
    ax.set(xlabel="forgotten class", title=name)
plt.show()

# %% [markdown]
# *Left: rows of 0.0 no longer draw the digit, which is not yet forgetting; right: bright fields are expensive digits (5 points or more look alike).*
#
# ## The ladder
#
# What each rung of [notebook 04](04_probing.ipynb) finds beyond models that never saw the class, digit by digit, on every method that was audited:

# %%
audited = findings_on(DATASET, ARCH)  # method -> digit -> rung -> finding
if OURS not in audited:
    command = f"python -m study ladder --dataset {DATASET} --arch {ARCH}"
    raise ValueError(f"no audit of {OURS}, {DATASET}, {ARCH}: `{command}` makes one")
rungs = [tally.rung for tally in claim(audited[OURS])]
LOOKS = {
    "alike": "o",
    "erased": "v",
    "resists": "<",
    "memory remains": "s",
    "undecided": "D",
    "inconclusive": "x",
}
figure, axes = plt.subplots(
    1, len(rungs), figsize=(13, 1.6 + 0.3 * len(audited)), layout="constrained", sharey=True
)
for ax, rung in zip(axes, rungs, strict=True):
    for k, (method, by_digit) in enumerate(audited.items()):
        color = sa.plots.AFTER if method == OURS else sa.plots.BEFORE
        for of in by_digit.values():
            look = LOOKS[of[rung].verdict]
            ax.plot(of[rung].excess, k, look, color=color, ms=4, alpha=0.6)
    ax.axvline(0, color="black", lw=1)
    ax.set_yticks(range(len(audited)), list(audited))
    ax.set_ylim(len(audited) - 0.5, -0.5)
    ax.set_title(rung, fontsize=10)
    ax.set_xlabel("excess of memory, nats")
    ax.grid(axis="x", lw=0.3)
for verdict, look in LOOKS.items():
    axes[0].plot([], [], look, color="black", ms=4, label=verdict)
figure.legend(frameon=False, ncols=len(LOOKS), loc="outside lower center")
plt.show()

# %% [markdown]
# *One mark is one digit. Zero is the mean of models that never saw it, and only what lies to the right can be memory; the mark's shape is the verdict.* On how many digits of ours no memory is found (alike, erased or resists), each digit taken by itself, and adjusted for the number of digits ([claims.py](../study/claims.py)):

# %%
claims = {method: claim(of) for method, of in audited.items()}
for tally in claims[OURS]:
    adjusted = tally.after_holm["passed"]
    found = f"no memory on {len(tally.passed)} of {len(tally.powered)} digits with power"
    print(f"{tally.rung}: {found}, adjusted (Holm) on {len(adjusted)}")

# %% [markdown]
# Every audited method in words:

# %%
for method, of in audited.items():
    print(f"\n{method}. {sa.in_words(of)}")

# %% [markdown]
# ## Clothes in place of digits
#
# Fashion-MNIST, one seed beside three retrained models; nothing was tuned on it. Each entry: digits, then clothes.

# %%
CLOTHES = "fashion_mnist"
theirs = [row for row in table if (row["dataset"], row["arch"]) == (CLOTHES, "mlp")]
on_clothes = figures_of(theirs, CLOTHES, "mlp")
print(" " * width + "".join(f"{name:>26}" for name in scores.BARS))
for method in (m for m in methods if m in on_clothes):
    line = ""
    for name in scores.BARS:
        here, there = (scores.interval(of[method][name])[0] for of in (figures, on_clothes))
        line += f"{f'{here:.2f}  {there:.2f}':>26}"
    print(f"{method:{width}}{line}")
lost = max(on_clothes[OURS][WORST].values())
true = lost > scores.BARS[WORST][2]
print(
    f"the worst kept class of clothes loses more than is allowed: {'holds' if true else 'does not hold'}"
)

# %% [markdown]
# *On clothes forgetting costs more.* What the ladder finds there stands in [RESULTS.md](../RESULTS.md), once it was run.
#
# ## Who dominates whom
#
# A method dominates another if, in the means over the runs that both have, it is no worse in argmax, worst class, memory under a fitted label after training on (below zero counts as zero) and seconds, as far as both have them (argmax or memory must be among these), and better in one. Where memory was not measured, a method that only hides can dominate.

# %%
above = scores.dominance(figures)
sheet = torch.tensor([[float(b in above[a]) for b in methods] for a in methods])
numbered = [f"{name}  {k}" for k, name in enumerate(methods, start=1)]
ax = sa.plots.new_axes(None, 8.0, 1.0 + 0.3 * len(methods))
ax.imshow(sheet, cmap="Greys", vmin=0, vmax=1.5)
ax.set_xticks(range(len(methods)), range(1, len(methods) + 1))
ax.set_yticks(range(len(methods)), numbered)
ax.set(xlabel="dominated, by the numbers at the left", ylabel="dominates")
plt.show()

# %%
by = {m: [a for a in methods if m in above[a]] for m in methods}
for method in methods:
    print(
        f"{method}: dominates {len(above[method])}, dominated by {len(by[method])} ({'; '.join(by[method]) or 'none'})"
    )
print(f"\n{OURS} is dominated by none: {'holds' if not by[OURS] else 'does not hold'}")

# %% [markdown]
# ## The verdict

# %%
argmax, seconds = "argmax = c_f, %", "seconds"
ours = figures[OURS]
whole = len(audited[OURS]) == 10
against = {  # method -> figure -> its mean and ours, over the runs that both have
    m: {n: scores.common_means(figures[m][n], ours[n]) for n in (argmax, seconds)}
    for m in methods
    if m != OURS
}
cheaper = [m for m, means in against.items() if means[seconds][0] < means[seconds][1]]
as_good = [m for m in cheaper if against[m][argmax][0] <= against[m][argmax][1]]


def say(truth):
    """A sentence's answer in a word or two."""
    if truth is None:
        return "not decided, for runs are missing"
    return "holds" if truth else "does not hold"


# %%
sentences = {
    "the open-set judge finds the class in at most 1 % of the samples of any run": (
        max(ours[argmax].values()) <= 1
    ),
    "no kept class of any run loses more than 1 point": max(ours[WORST].values()) <= 1,
}
for tally in claims[OURS]:
    sentences[f"{tally.rung}: no memory on any digit on which the rung has power"] = (
        set(tally.powered) <= set(tally.passed) if whole else None
    )
sentences |= {
    "retraining takes more than ten times as long": (
        against[RETRAINED][seconds][0] > 10 * against[RETRAINED][seconds][1]
        if RETRAINED in against
        else None
    ),
    "every method of the table that takes less time leaves more of the class": not as_good,
    "no method is at least as good in everything": not by[OURS],
}
for words, truth in sentences.items():
    print(f"{words}: {say(truth)}")
print("\nless time than ours:", "; ".join(cheaper) or "none")
print("of these, no more left of the class:", "; ".join(as_good) or "none")
print("not in the table, so not compared:", "; ".join(absent) or "none")

# %% [markdown]
# These data do not support anything beyond these images and this VAE, a ranking of methods that differ by less than their intervals, a verdict on the published recipes from short or few runs, or "erased" beyond these rungs.
