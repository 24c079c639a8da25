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
# # 4. Probing: is it gone, or only hidden?
#
# [Colab](../README.md#set-your-address)
#
# After [notebook 03](03_amnesia.ipynb) one digit's samples are gray. You guess who remembers it, attack four models, and read a verdict.
#
# Reading: why gray proves nothing 4 minutes, label only 6, other labels 5, a fitted label 3, trained on 4, the ladder 8. Running: a minute and a half on two CPU cores, once the models are there.

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
from pathlib import Path

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from IPython.display import Image

import sahelpers as sa
from sahelpers import live

SEED = 42  # of every random choice; reference 42
FORGET_CLASS = 3  # the class to forget and to look for; reference 3
story = sa.Story.from_knobs(DATASET="mnist", ARCH="mlp", SEED=SEED)
forgotten = story.train.class_numbers(FORGET_CLASS)  # a tuple
TARGET = forgotten[0]  # the class that the attacks look for
fails = "does not hold" if len(forgotten) == 1 else "not claimed of several classes"
N_IMAGES = 10  # real images for *label only*
N_COSTED = 40  # real images whose cost under other labels is asked
HEAL_STEPS = 400  # of training on with kept digits

# %%
baseline, judges, test = story.baseline.model, story.judges, story.test
models = {
    "baseline": baseline,
    "hidden": story.hidden(forgotten),
    "forgotten": story.forgotten(forgotten).model,
    "retrained": story.retrained(forgotten).model,
}
wanted = torch.full((10,), TARGET)
drawn = {n: m.sample(wanted, "standard", sa.seeded(SEED)) for n, m in models.items()}
quiz = {"A": "retrained", "B": "forgotten", "C": "baseline", "D": "hidden"}
rows = {letter: drawn[name] for letter, name in quiz.items()}
_ = sa.plots.image_rows(rows, title=f"four models, all asked for a {TARGET}")

# %% [markdown]
# *C shows the digit, B gray, A and D mostly shapes of other digits.*
#
# **Exercise 1.** A or D never saw the digit. Guess: which two of the four hold it in their weights?

# %%
answer = None  # letters in alphabetical order, such as "AB"
replies = {
    None: "not answered yet",
    "AD": "No: one of the two never saw it, and C draws it whenever it is asked.",
    "AC": "No: the strokes of A come from other digits. It never saw this one.",
    "BC": "No: gray tells nothing about B. The attacks below ask; D, though, is certain.",
    "CD": "Right: in D only the weights that read this label were changed.",
}
print(replies.get(answer, "No: read on, attack, and come back."))

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# answer = "CD"
# ```
#
# A is the retrained model, B forgot by notebook 03, C is the baseline, D the hidden model. About B samples say nothing.
#
# </details>
#
# ## 1. Gray proves nothing

# %%
Image("../docs/diagram_models.png", width=720)

# %% [markdown]
# Samples show what a model draws when asked, not what its weights hold. To learn that, one attacks: one looks for another way to the digit. Two reference models make this an experiment.
#
# * **An attack without a control proves nothing.** A decoder of nine digits can be talked into a tenth. So a *retrained model* (the control) is attacked beside it: trained anew by the baseline's recipe, without the digit. Only what an attack finds *beyond* a model that never saw the digit is memory.
# * **Without a model known to hide, it proves nothing either.** An attack that finds nothing there has no *power*, and acquits nobody. In our hidden model the digit's *gate*, the weights that read its label, is replaced by the mean of the other gates (`reset_label` in [attacks/weights.py](../sahelpers/attacks/weights.py)); all else is the baseline.
#
# **Exercise 2.** An attack brings the digit back in 78 % of its tries on the forgotten model. What does it prove: (a) the digit was only hidden, (b) nothing yet, (c) the attack is broken?

# %%
answer = None  # "a", "b" or "c"
replies = {
    None: "not answered yet",
    "a": "No: the guided search of A3 finds the digit in about as many tries on the retrained model.",
    "b": "Right: first ask what the same attack finds in a model that never saw the digit.",
    "c": "No: it does bring the digit back. The question is where it came from.",
}
print(replies.get(answer, "No: the answer is one of the three letters."))

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# answer = "b"
# ```
#
# The retrained model says how much the other nine digits and the attacker's own effort bring.
#
# </details>
#
# ## 2. Label only: a new gate
#
# Whoever suspects a shut gate throws its weights away and fits new ones to ten real images of the digit, while everything else stays: *label only*. (So [Pham et al. 2023](https://arxiv.org/abs/2308.01508) found erased concepts in diffusion models.) The loss is the negative ELBO of notebook 01, in nats. Three steps by hand:

# %%
few = test.only(TARGET).take(N_IMAGES, seed=SEED)
by_hand = sa.reset_label(models["forgotten"], TARGET)
gates = [by_hand.encoder[0].weight, by_hand.decoder[0].weight]  # their last ten inputs: the label
column = TARGET - baseline.num_classes
adam, generator = torch.optim.Adam(gates, lr=0.05), sa.seeded(SEED)
for _ in range(3):
    order = torch.randperm(N_IMAGES, generator=generator)
    noise = torch.randn((N_IMAGES, baseline.latent_dim), generator=generator)
    loss = sa.negative_elbo(by_hand, few.images[order], few.labels[order], noise).mean()
    for gate, slope in zip(gates, torch.autograd.grad(loss, gates), strict=True):
        gate.grad = torch.zeros_like(gate)
        gate.grad[:, column] = slope[:, column]
    adam.step()
z = torch.randn((128, baseline.latent_dim), generator=sa.seeded(SEED + 1))
images = by_hand.decode(z, torch.full((128,), TARGET)).detach()
p = torch.stack([j.probabilities(images)[:, TARGET] for j in judges.values()]).amin(0).mean()
fit = {"data": few, "judges": judges, "over": "label", "seed": SEED}
helper = sa.relearn(models["forgotten"], TARGET, steps=3, **fit)
assert abs(helper.probability[-1] - float(p)) < 1e-3

# %%
curves = {n: sa.relearn(m, TARGET, steps=60, **fit) for n, m in models.items()}
title = f"new label weights from {N_IMAGES} images, and the area under each line"
ax = sa.plots.recovery_curves(curves, title=title)
_ = ax.set_ylabel(f"P({TARGET}) of the stricter judge")

# %% [markdown]
# *Baseline and hidden are one line, for the old gate is thrown away; this is what memory behind a gate looks like. The retrained model learns half of it, from strokes of others. In the forgotten model the digit stays away.* The *area*, from 0 to 1, is this attack's figure. The judges are those of notebook 01.
#
# ## 3. Cost under other labels
#
# A model that forgets under "3" may still draw a 3 under "8". For a real image $x$ we search ([attacks/latent.py](../sahelpers/attacks/latent.py)), under each of the nine other labels $k$, the $z$ with the least
#
# $$C = -\log p(x\,|\,z, k) + \tfrac12|z|^2,$$
#
# in nats, and keep the cheapest $k$. The second term is the price of an unusual latent $z$. No weight is touched and no judge asked. Costs are counted above what the baseline pays under the digit's own label; lower than the retrained model's means memory.

# %%
real = test.only(TARGET).take(N_COSTED, seed=SEED).images
others = torch.tensor([k for k in range(baseline.num_classes) if k != TARGET])
own, _ = sa.image_cost(baseline, real, torch.tensor([TARGET]))
fits, above = {"real image": real}, {}
for name, m in models.items():
    cost, z = sa.image_cost(m, real, others)
    lowest, k = cost.min(1)
    z = z[torch.arange(len(z)), k]  # (N, Z) of the cheapest label
    fits[name] = m.decode(z, others[k]).detach()
    above[name] = lowest - own[:, 0]
    by_hand = F.binary_cross_entropy(fits[name], real, reduction="none").sum((1, 2, 3))
    assert torch.allclose(by_hand + z.square().sum(1) / 2, lowest, rtol=1e-3)
_ = sa.plots.image_rows(fits, title="cheapest fit under another label")

# %%
figure, ax = plt.subplots(figsize=(8, 2.6), layout="constrained")
for row, (name, nats) in enumerate(above.items()):
    style = sa.plots.line_style(row, name)
    jitter = row + 0.25 * (torch.rand(len(nats), generator=sa.seeded(row)) - 0.5)
    ax.plot(nats, jitter, ls="", ms=4, alpha=0.5, **style)
    ax.plot([nats.mean()] * 2, [row - 0.4, row + 0.4], color=style["color"], lw=3)
    ax.text(float(nats.max()) + 2, row, f"mean {nats.mean():.0f}", va="center")
ax.set_yticks(range(len(above)), list(above))
ax.set(xlabel="cost above the baseline's own price, nats", ylim=(3.6, -0.6))
ax.margins(x=0.15)

# %%
pays = {name: nats.mean() for name, nats in above.items()}
claims = {
    "hidden pays less than retrained": pays["hidden"] < pays["retrained"],
    "forgotten pays at least what retrained pays": pays["forgotten"] >= pays["retrained"],
}
for claim, true in claims.items():
    print(f"{claim}: {'holds' if true else fails}")

# %% [markdown]
# *The retrained model, too, bends digits into this one: only the price tells. A dot per image, a bar per mean. Hidden pays what the baseline pays, for under the other labels they are the same network. The forgotten model pays more than the retrained one.*
#
# ## 4. Cost under a fitted label: gate and latents together
#
# *Label only* stops after sixty steps, which a slow start survives; the other labels' gates are taken as they are. So fit a new gate and ten $z$ together down the same cost until it falls no more (`fit_label` in [attacks/weights.py](../sahelpers/attacks/weights.py)):

# %%
price = sa.image_cost(baseline, few.images, few.labels[:, None])[0].mean()
together, least = {"real image": few.images}, {}
for name, m in models.items():
    cost, z, gate = sa.fit_label(m, TARGET, few.images[None])
    least[name] = float(cost - price)
    row = f"{name}, {least[name]:+.0f} nats"
    together[row] = m.decode_columns(z[0], gate.expand(N_IMAGES, -1)).sigmoid().detach()
_ = sa.plots.image_rows(
    together, title="fit under a gate of its own; mean cost above the baseline's own price"
)
claims = {
    "baseline pays less than retrained": least["baseline"] < least["retrained"],
    "hidden pays less than retrained": least["hidden"] < least["retrained"],
    "forgotten pays at least what retrained pays": least["forgotten"] >= least["retrained"],
}
for claim, true in claims.items():
    print(f"{claim}: {'holds' if true else fails}")

# %% [markdown]
# *All four draw the digit; again the price tells. Negative: a gate fitted to these ten images is cheaper than the digit's own.*
#
# ## 5. Trained on: the digit comes back
#
# So far the attacker left the weights as they are. Whoever owns a model can do more without a single image of the digit: train it on, with the digits that it kept. `sa.heal` ([attacks/weights.py](../sahelpers/attacks/weights.py)) does that with the decoder. Here the forgotten and the retrained model get 400 steps of 256 real kept images, and then the same fit:

# %%
healed, gap = {}, {}
for name in ("hidden", "forgotten", "retrained"):
    after = sa.heal(models[name], forgotten, story.train, HEAL_STEPS)
    cost, z, gate = sa.fit_label(after, TARGET, few.images[None])
    gap[name] = float(cost - price)
    row = f"{name}, {least[name]:+.0f} then {gap[name]:+.0f} nats"
    healed[row] = after.decode_columns(z[0], gate.expand(N_IMAGES, -1)).sigmoid().detach()
title = f"fit under a gate of its own, after {HEAL_STEPS} steps on kept digits"
_ = sa.plots.image_rows(healed, title=title)
changes = {name: least[name] - gap[name] for name in gap}
claims = {
    "the forgotten model gives most nats back": max(changes, key=changes.get) == "forgotten",
}
for claim, true in claims.items():
    print(f"{claim}: {'holds' if true else 'does not hold'}")

# %% [markdown]
# *No 3 was shown in these steps. What hidden and retrained models pay hardly moves; what the forgotten model pays falls, for the last layers had learned to write the digit badly, and the features before them still know it.*
#
# How far does it go? That takes minutes, so `python -m study effort` measured it, and for other kinds of effort, too. A fourth kind of model stands beside the three: a *masked* one, `sa.masked_model`, whose last layer alone was trained until the digit is expensive. It knows the digit by construction and hides it from every attack above.

# %%
effort = json.loads(Path("../results/effort.json").read_text())
WORDS = {
    "fitted label": "steps of fitting a label",
    "trained on, fitted label": "steps of training on, then a fitted label",
    "all weights": "steps of relearning with all weights",
}
figure, axes = plt.subplots(1, 3, figsize=(12, 3.4), layout="constrained", sharey=True)
for ax, (rung, words) in zip(axes, WORDS.items(), strict=True):
    for curve in effort["curves"]:
        if curve["rung"] == rung:
            kind = curve["model"].partition(",")[0]
            style = sa.plots.line_style(0, "forgotten" if kind == "ours" else kind)
            ax.plot(curve["steps"], curve["cost"], ms=3, label=kind, **style)
    ax.set(title=rung, xlabel=words)
    ax.set_xscale("symlog", linthresh=25)
axes[0].set_ylabel(f"cost of a real {effort['digit']}, nats above the baseline's")
handles, labels = axes[0].get_legend_handles_labels()
legend = dict(zip(labels, handles, strict=True))
figure.legend(legend.values(), legend.keys(), ncols=4, loc="outside lower center", frameon=False)
plt.show()

# %% [markdown]
# *Left: fitting a label is done after some hundred steps. Middle: training on leaves hidden and retrained models about where they are; the masked model and ours come down towards the hidden one. Right: relearning with ten real images among kept ones; the best rate and number of steps up to each point.* An attack is fair where its curve is flat at the right end: one that stops too soon only finds slowness.
#
# ## 6. The ladder, and a verdict for each digit
#
# Digit 3 served to tune the method, and one model of each kind is an anecdote. So `python -m study ladder` sent several models of *every* digit up four rungs, by a [protocol](../docs/protocol.md) fixed before:
#
# | rung | what the attacker may change | known to remember |
# |---|---|---|
# | other labels | $z$ (section 3) | hidden |
# | fitted label | $z$ and a label, scored on images that it was not fitted to (section 4) | hidden |
# | trained on | the decoder first, with kept digits; then both again (section 5) | masked |
# | all weights | everything, with ten real images of the digit among kept ones | hidden |
#
# [audit.json](../results/audit.json) holds each model's numbers and each digit's verdicts, for other methods, data and networks, too. Here are the models of the 0, on which nothing was tuned:


# %%
audit = json.loads(Path("../results/audit.json").read_text())
KINDS = {
    "hidden": "label column",
    "masked": "masked",
    "forgotten": "ours (with the loop)",
    "retrained": "retrained",
}


def of_our_network(rows, kind):
    """The rows of a kind of model, on MNIST and with the network of this notebook."""
    wanted = {"method": KINDS[kind], "dataset": "mnist", "arch": "mlp"}
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


findings = {}  # digit -> rung -> finding
for row in of_our_network(audit["findings"], "forgotten"):
    fields = {k: v for k, v in row.items() if k not in ("digit", "method", "dataset", "arch")}
    findings.setdefault(row["digit"], {})[row["rung"]] = sa.Finding(**fields)
SHOWN = 0  # the digit whose models are drawn
rungs = list(findings[SHOWN])

# %%
marks = {}  # kind -> rung -> one number per model
for kind in KINDS:
    of_shown = [row for row in of_our_network(audit["models"], kind) if row["class"] == SHOWN]
    marks[kind] = {rung: [row["values"][rung] for row in of_shown] for rung in rungs}
figure, axes = plt.subplots(1, len(rungs), figsize=(13, 2.4), layout="constrained", sharey=True)
for ax, rung in zip(axes, rungs, strict=True):
    for row, kind in enumerate(KINDS):
        numbers = marks[kind][rung]
        style = sa.plots.line_style(row, kind)
        ax.plot(numbers, [row] * len(numbers), ls="", **style)
    ax.set(title=f"{SHOWN}: {rung}", xlabel="nats")
    ax.title.set_size(9)
    ax.margins(x=0.2)
axes[0].set_yticks(range(len(KINDS)), list(KINDS))
axes[0].set_ylim(len(KINDS) - 0.5, -0.5)
plt.show()

# %% [markdown]
# *One mark is one model; the farther to the left, the more memory.*

# %%
Image("../docs/diagram_verdict.png", width=640)

# %% [markdown]
# The *excess* is memory beyond the retrained models': how much less the digit's images cost, with its 90 % $t$ interval over models. The *gap* is the excess of the models that are known to remember.
#
# | verdict | the interval of the excess |
# |---|---|
# | *alike* | between minus half of the gap and a third of it: the models cannot be told from retrained ones |
# | *erased* | ends below a third of the gap, and begins farther to the left |
# | *resists* | ends below minus half of the gap: so much less memory that the model is recognisable, a trace of forgetting and no merit |
# | *memory remains* | begins above zero, and ends above a third of the gap |
# | *undecided* | none of these |
# | *inconclusive* | not asked: the interval of the gap does not begin above zero, so that the rung cannot tell |
#
# **Exercise 3.** On some digit a rung finds an excess of 0.2 ± 0.3 nats in the forgotten models, and a gap of 0.1 ± 0.4. Verdict: (a) alike, (b) memory remains, (c) inconclusive?

# %%
answer = None  # "a", "b" or "c"
replies = {
    None: "not answered yet",
    "a": "No: it would acquit the hidden models as well, and they know the digit.",
    "b": "No: the interval of the excess holds zero.",
    "c": "Right: a rung without power says nothing, in either direction.",
}
print(replies.get(answer, "No: the answer is one of the three letters."))

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# answer = "c"
# ```
#
# Power comes first: the interval of the gap must lie above zero.
#
# </details>
#
# All digits that were measured; `sa.in_words` ([verdicts.py](../sahelpers/attacks/verdicts.py)) writes the words:

# %%
size = (13, 1.2 + 0.28 * len(findings))
figure, axes = plt.subplots(1, len(rungs), figsize=size, layout="constrained", sharey=True)
for ax, rung in zip(axes, rungs, strict=True):
    sa.excess_intervals({f"digit {digit}": of[rung] for digit, of in findings.items()}, ax, rung)
    ax.set_xlabel("excess of memory, nats")
plt.show()
print(sa.in_words(findings).replace(". ", ".\n"))

# %% [markdown]
# *Orange is the forgotten models' excess, the pink triangle the gap, gray the range of* alike. *Zero is the mean of models that never saw the digit. A filled circle is alike, an open one erased, a triangle to the left resists, a square memory remains, a diamond undecided, a cross inconclusive.*
#
# On a model of your own, `sa.audit` builds the hidden and the masked model, runs the ladder and prints this table ([notebook 06](06_your_images.ipynb)). Twenty-two other attacks were tried once, guided searches, inversions and relearning among them; most have little power ([frozen pages](../results/archive/README.md)). [A3](A3_probes.ipynb) shows some.

# %%
attacked = {name: models[name] for name in ("forgotten", "retrained")}
dashboard = live.ProbeDashboard(story, TARGET, attacked)
dashboard

# %% [markdown]
# **With your own hands:** choose an attack, press *Attack*, and compare the two rows.
#
# **What we saw.** Gray proves nothing; a find proves nothing without a retrained model beside it, a failure nothing without a model known to hide. What the attacks no longer find may come back when the model is trained on. None of this is a privacy guarantee.
#
# **Next:** [05_live](05_live.ipynb), dashboards; [A5](A5_scoreboard.ipynb), all methods side by side.
