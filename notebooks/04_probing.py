# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,jupyter,-all
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
# After [notebook 03](03_amnesia.ipynb) the samples of one digit are gray. In this notebook you guess which of four models still know the digit, attack all four, and learn to read a verdict.
#
# Reading takes about half an hour: why gray proves nothing 4 minutes, a new gate 6, other labels 5, a fitted label 3, training further 6, the ladder 8. Running takes two and a half minutes on two CPU cores once the models are there.

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

# The notebook that accompanies the paper's code has 42 and 3, too (docs/knobs.md).
SEED = 42  # of every random choice
FORGET_CLASS = 3  # the class to forget and to look for
story = sa.Story.from_knobs(DATASET="mnist", ARCH="mlp", SEED=SEED)
forgotten = story.train.class_numbers(FORGET_CLASS)  # a tuple
TARGET = forgotten[0]  # the class that the attacks look for
fails = "does not hold" if len(forgotten) == 1 else "not claimed of several classes"
N_IMAGES = 10  # real images that a gate is fitted to
N_COSTED = 40  # real images whose cost under other labels is asked
HEAL_STEPS = 400  # of training further with kept digits

# %%
baseline, judges, test = story.baseline.model, story.judges, story.test
models = {
    "baseline": baseline,
    "hidden": story.hidden(forgotten),
    "forgotten": story.forgotten(forgotten).model,
    "retrained": story.retrained(forgotten).model,
}
few = test.only(TARGET).take(N_IMAGES, seed=SEED)  # what the attacker has of the digit
wanted = torch.full((10,), TARGET)
drawn = {n: m.sample(wanted, "standard", sa.seeded(SEED)) for n, m in models.items()}
shuffled = torch.randperm(len(models), generator=sa.seeded(SEED)).tolist()
quiz = {letter: list(models)[k] for letter, k in zip("ABCD", shuffled, strict=True)}
rows = {letter: drawn[name] for letter, name in quiz.items()}
_ = sa.plots.image_rows(rows, title=f"four models, all asked for a {TARGET}")

# %% [markdown]
# *One of the four draws the digit, one draws gray, and two draw mostly shapes of other digits.*
#
# **Exercise 1.** Two of the four hold the digit in their weights. Which two letters are it? The next cell lets an attacker fit a label of his own to ten real images of the digit in each model (section 4 explains how), and names the two models in which these images then cost least. Predict first; then run the cell, or unfold its stored output.

# %% jupyter={"outputs_hidden": true}
fitted = {a: sa.fit_label(models[name], TARGET, few.images[None]) for a, name in quiz.items()}
paid = {letter: float(cost) for letter, (cost, _, _) in fitted.items()}
one, other = sorted(sorted(paid, key=paid.get)[:2])
print(f"this run says: {one} ({quiz[one]}) and {other} ({quiz[other]})")

# %% [markdown]
# <details><summary>Solution</summary>
#
# The baseline draws the digit on demand. In the hidden model only the weights that read this label were changed, and everything behind them still knows the digit; its samples look like those of the retrained model, whose strokes come from other digits. The one that draws gray forgot by notebook 03. Whoever saw a dark 3 in its row is right: the gray is not quite flat, and that is a trace ([A4](A4_denoising.ipynb)). It does not show that the digit can be drawn again. Its samples cannot tell what its weights hold, so it has to be attacked.
#
# </details>
#
# ## 1. Gray proves nothing

# %%
Image("../docs/diagram_models.png", width=720)

# %% [markdown]
# *Read each row from left to right: which gate the label goes through, what lies behind it, what the model draws for the label, and what an attack can find. Three rows hold a 3 behind the gate, and only one of them draws it. The row of the forgotten model has a question mark. The masked model comes up in section 5.*
#
# Samples show what a model draws when it is asked. They do not show what its weights hold. To learn that, one has to attack the model, which means looking for another way to the digit. Two other models turn such an attack into an experiment.
#
# * **The retrained model is the reference.** It was trained anew by the baseline's recipe, without the digit. A decoder of nine digits can be talked into drawing a tenth, so an attack finds something in this model, too. Only what an attack finds *beyond* the retrained model is memory.
# * **The hidden model is a positive control: it is known to remember.** We call the weights that read one label its *gate*. In the hidden model the digit's gate is replaced by the mean of the other gates (`reset_label` in [attacks/weights.py](../sahelpers/attacks/weights.py)), and everything else is the baseline. An attack has *power* if it finds clearly more in a positive control than in the reference. When an attack without power finds nothing, that means nothing.
#
# **Exercise 2.** A *guided search* ([A3](A3_probes.ipynb)) moves $z$ and the label until a classifier sees the digit. In what share of its tries does it succeed on the *retrained* model, which never saw the digit?<br>(a) In less than a tenth.<br>(b) In a tenth to a half.<br>(c) In more than half.<br>Predict first; then run the cell, or unfold its stored output.

# %% jupyter={"outputs_hidden": true}
search = sa.ProbeConfig(n_restarts=32, steps=80, seed=SEED)
probe = sa.guided_attack(models["retrained"], TARGET, search, guide=story.guide)
share = float(sa.attack_success(probe.images, judges, TARGET).float().mean())
found = "(a)" if share < 0.1 else "(b)" if share < 0.5 else "(c)"
print(f"It succeeds in {100 * share:.0f} % of its tries, and this run says: {found}")

# %% [markdown]
# <details><summary>Solution</summary>
#
# (c). This is the reason for the reference. Whoever attacks the forgotten model alone and finds the digit has not yet shown that the model remembers it: the other nine digits and the attacker's own effort bring as much.
#
# </details>
#
# ## 2. Label only: a new gate
#
# An attacker who suspects that only the gate was shut can throw it away and fit a new one to ten real images of the digit, while all other weights stay as they are. We call this attack *label only*. [Pham et al. (2023)](https://arxiv.org/abs/2308.01508) found erased concepts in diffusion models in this way. The loss is the negative ELBO of notebook 01, in nats. Three steps by hand:

# %%
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
title = f"new gate from {N_IMAGES} images, and the area under each line"
ax = sa.plots.recovery_curves(curves, title=title)
_ = ax.set(xlabel="steps of fitting the gate", ylabel=f"P({TARGET}), the lower of both judges")

# %%
claims = {
    "hidden learns more than retrained": curves["hidden"].area > curves["retrained"].area,
    "forgotten learns no more than retrained": (
        curves["forgotten"].area <= curves["retrained"].area
    ),
}
for claim, true in claims.items():
    print(f"{claim}: {'holds' if true else fails}")

# %% [markdown]
# *Baseline and hidden share one line, because the attack throws away the only weights in which they differ. The hidden model's line shows what memory behind a gate looks like. The retrained model learns the digit in part, from strokes of other digits. What the forgotten model learns has to be compared with the retrained model's line and not with zero; here it lies far below.* The number at a line is the area under it, from 0 to 1. The judges are those of notebook 01.
#
# ## 3. Cost under other labels
#
# A model that forgets under "3" may still draw a 3 under "8". So we take a real image $x$ and search ([attacks/latent.py](../sahelpers/attacks/latent.py)), under each of the nine other labels $k$, for the $z$ with the lowest cost
#
# $$C = -\log p(x\,|\,z, k) + \tfrac12|z|^2,$$
#
# in nats, and keep the cheapest $k$. The first term asks that the drawn image looks like $x$. The second is what an unusual latent $z$ costs. No weight is changed, and no judge is asked. From every cost we subtract what the baseline pays for the same image under the digit's own label. Images that cost less on average than in the retrained model are a sign of memory; the costs of single images scatter by tens of nats.

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
ax.set(xlabel="cost above that in the baseline, nats", ylim=(3.6, -0.6))
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
# *In the pictures the retrained model bends other digits into this one, too, so the pictures do not tell the models apart; only the cost does. Below, a dot is an image and a bar is a mean. In the hidden model they cost exactly what they cost in the baseline, because under the other labels they are the same network.*
#
# ## 4. Cost under a fitted label: gate and latents together
#
# Section 2 stopped after sixty steps, so that a slow learner would pass. Section 3 used only gates that exist. So now the attacker fits a new gate and the $z$ of ten images together, down the same cost, from one start, for 600 steps (`fit_label` in [attacks/weights.py](../sahelpers/attacks/weights.py)):

# %%
at_first = sa.image_cost(baseline, few.images, few.labels[:, None])[0].mean()
together, least = {"real image": few.images}, {}
for name, m in models.items():
    cost, z, gate = sa.fit_label(m, TARGET, few.images[None])
    least[name] = float(cost - at_first)
    row = f"{name}, {least[name]:+.0f} nats"
    together[row] = m.decode_columns(z[0], gate.expand(N_IMAGES, -1)).sigmoid().detach()
_ = sa.plots.image_rows(
    together, title="fit under a gate of its own; mean cost above that in the baseline"
)
claims = {
    "baseline pays less than retrained": least["baseline"] < least["retrained"],
    "hidden pays less than retrained": least["hidden"] < least["retrained"],
    "forgotten pays at least what retrained pays": least["forgotten"] >= least["retrained"],
}
for claim, true in claims.items():
    print(f"{claim}: {'holds' if true else fails}")

# %% [markdown]
# *All four models draw the digit here, some of them badly, and again the cost tells them apart. A negative number says that a gate fitted to these ten images makes them cheaper than the digit's own gate does.*
#
# ## 5. Trained further: does the digit come back?
#
# So far the attacker left the decoder's weights as they are. Whoever owns a model can do more without a single image of the digit: they can train it further with the digits that it kept. This often brings back what was only suppressed ([Siddiqui et al. 2025](https://arxiv.org/abs/2505.22310)). `sa.heal` ([attacks/weights.py](../sahelpers/attacks/weights.py)) trains the decoder further in this way. It looks eight times on the way, by kept images that it does not train on, and gives back the state at which they were cheapest, so that of 400 steps fewer may count.
#
# A positive control for this attack has to be a model that hides the digit until it is trained further; the hidden one would not do, for training further brings nothing back in it: it knows the digit from the start, and slowly forgets it. In the *masked* model (`story.masked`, [masked.py](../sahelpers/masked.py)) the last layer alone was trained until the digit became expensive, and then the gate was replaced, as in the hidden model. So all layers before the last one know the digit by construction. The second model of interest is an earlier default of this collection, *version 3*. While it forgets, an attacker fits labels to the digit, and the model learns to make them expensive; but that attacker meets the model as it is. Today's default lets him meet a *shadow* instead, a copy of the model that is trained further with kept digits all the while ([shadow.py](../sahelpers/shadow.py)). Here five models are trained further with 256 real kept images in each step, and then attacked as in section 4:

# %%
earlier = sa.Story(
    story.dataset,
    baseline=story.config.baseline,
    fisher=story.config.fisher,
    amnesia=sa.AmnesiaConfig.version3(seed=SEED),
)
owned = {"hidden": models["hidden"], "masked": story.masked(TARGET)}
owned["version 3"] = earlier.forgotten(forgotten).model
owned |= {name: models[name] for name in ("forgotten", "retrained")}
healed, after = {}, {}
for name, model in owned.items():
    further = sa.heal(model, forgotten, story.train, HEAL_STEPS)
    first = sa.fit_label(model, TARGET, few.images[None])[0]
    cost, z, gate = sa.fit_label(further, TARGET, few.images[None])
    after[name] = float(cost - at_first)
    row = f"{name}, {float(first - at_first):+.0f} then {after[name]:+.0f} nats"
    healed[row] = further.decode_columns(z[0], gate.expand(N_IMAGES, -1)).sigmoid().detach()
title = f"fit under a gate of its own, after {HEAL_STEPS} steps on kept digits"
_ = sa.plots.image_rows(healed, title=title)

# %%
claims = {
    "trained further, hidden pays less than retrained": after["hidden"] < after["retrained"],
    "trained further, masked pays less than retrained": after["masked"] < after["retrained"],
    "trained further, version 3 pays less than retrained": after["version 3"] < after["retrained"],
    "trained further, forgotten pays at least what retrained pays": (
        after["forgotten"] >= after["retrained"]
    ),
}
for claim, true in claims.items():
    print(f"{claim}: {'holds' if true else fails}")

# %% [markdown]
# *Not one image of the digit was shown in these steps. The first number in a row is the cost before them and the second the cost after them, in nats above that in the baseline. Where the second lies clearly below that of the retrained model, the weights still held the digit.*
#
# **Exercise 3.** Try to beat it: train the forgotten model further in such a way that the digit becomes cheaper in it than in the retrained one. Choose the number of steps, the learning rate, and how many real images the label is fitted to. More steps take longer: a thousand take about ten seconds for each of the two models on an idle core. Does the attempt in the cell succeed? Predict first; then run the cell, or unfold its stored output.

# %% jupyter={"outputs_hidden": true}
n_steps, rate, n = 200, 1e-2, 20  # of training further; its learning rate; images for the label
mine, paid = test.only(TARGET).take(n, seed=SEED + 1), {}
for name in ("forgotten", "retrained"):
    model = sa.heal(models[name], forgotten, story.train, n_steps, rate=rate)
    paid[name] = float(sa.fit_label(model, TARGET, mine.images[None])[0].mean())
ahead = paid["retrained"] - paid["forgotten"]
words = "cheaper" if ahead > 0 else "dearer"
print(f"The digit is {abs(ahead):.1f} nats {words} in the forgotten model.")

# %% [markdown]
# <details><summary>Solution</summary>
#
# With the numbers of the cell it does not: the digit is dearer in the forgotten model. More steps bring the two closer and were not enough either: with `n_steps, rate, n = 6400, 3e-3, 10` it was dearer by 4.7 nats once, after 1,600 steps by 5.8, and without any by 27.6. A stronger attack succeeds, the one of the next figure, which begins its fit at four places and is scored on other images. To see at once what a success looks like, put `{**models, "forgotten": owned["version 3"]}[name]` in the place of `models[name]`, and `400, 3e-3, 10` in the place of the numbers. One success on one model is no verdict yet, for models differ by some nats by chance; section 6 therefore takes several models.
#
# </details>
#
# How far does it go with more effort? That takes minutes, so `python -m study effort` measured it for three kinds of effort. Two more models stand there. *Version 4*, the default before today's, has a shadow, and an attacker whose weight stays. *With kept images* (`AmnesiaConfig.with_kept_images()`) replays real images of the nine kept digits in the place of drawn ones, and moves the encoder, too. The *excess* is how many nats less a real image of the digit costs a model than it costs the retrained one after the same effort:

# %%
effort = json.loads(Path("../results/effort.json").read_text())
costs = {
    (curve["rung"], "forgotten" if curve["model"] == "ours" else curve["model"]): dict(
        zip(curve["steps"], curve["cost"], strict=True)
    )
    for curve in effort["curves"]
}
compared = [key for key in costs if key[1] != "retrained"]


def excess(rung, name):
    """Steps -> nats by which a model is cheaper than the retrained one was by then."""
    reference = costs[rung, "retrained"]
    reached = {n: max(m for m in reference if m <= n) for n in costs[rung, name]}
    return {n: reference[reached[n]] - cost for n, cost in costs[rung, name].items()}


# %%
WORDS = (
    "steps of fitting a label",
    "steps of training further,\nthen a fitted label",
    "steps of relearning\nwith all weights",
)
STOP = sa.LadderConfig().heal_steps  # of training further on the ladder of section 6
STYLES = {"version 4": 1, "with kept images": 6}  # version 3 has the first, masked the third
figure, axes = plt.subplots(1, 3, figsize=(8.4, 3.2), layout="constrained", sharey=True)
for ax, rung, words in zip(axes, dict.fromkeys(rung for rung, _ in costs), WORDS, strict=True):
    for name in (name for at, name in compared if at == rung):
        nats = excess(rung, name)
        style = sa.plots.line_style(STYLES.get(name, 0), name)
        ax.plot(list(nats), list(nats.values()), ms=4, label=name, **style)
    ax.axhline(0, color=sa.plots.RETRAINED, lw=2, label="retrained")
    ax.set(title=rung, xlabel=words)
    if 0 in nats:
        ax.set_xscale("symlog", linthresh=100, linscale=0.4)
        ax.set_xlim(-20, 1.4 * max(nats))
        ax.axvline(STOP, color="0.6", ls=":", zorder=0)
    else:
        ax.set_xscale("log")
        ax.xaxis.set_minor_formatter("")
    ticks = [0, 100, 400, STOP, 6400] if 0 in nats else [25, 100, 400, STOP]
    ax.set_xticks([n for n in ticks if n <= ax.get_xlim()[1]])
    ax.xaxis.set_major_formatter("{x:.0f}")
axes[0].set_ylabel(f"excess on the {effort['digit']}, nats")
lines = axes[0].get_legend_handles_labels()
figure.legend(*lines, ncols=4, loc="outside lower center", frameon=False)
plt.show()

# %%
print(
    "excess at the last point, and since the point before it: how the excess changed, and the cost"
)
for rung, name in compared:
    *_, (_, earlier_excess), (steps, last) = excess(rung, name).items()
    *_, earlier_cost, last_cost = costs[rung, name].values()
    change = f"{last - earlier_excess:+.1f}, cost {last_cost - earlier_cost:+.1f}"
    print(f"{rung}: {name} has {last:+.1f} nats at {steps} steps, {change}")
    if name == "masked" and rung.startswith("trained"):
        print(f"(a third of what the masked model has: {last / 3:.1f} nats)")

# %% [markdown]
# *Each panel shows one kind of effort, its steps on a scale of powers of ten (the middle one begins with 0, and a dotted line stands where the ladder of section 6 stops). A cost is that of other images than the ten that a gate was fitted to, which makes it higher than in section 4, and the best of four starts, which makes it lower: the forgotten model costs far less here than there. The green line at zero is the retrained model. What lies clearly above it is memory. Left: the attacker fits a label for longer. Middle: he trains the model further first; this is where the masked model, which knows the digit, comes up. Right: he relearns with all weights, with ten real images among kept ones; a point is the lowest cost reached up to this step, chosen by other images than those it is measured on. There are four learning rates, each of which ends where three looks in a row brought it nothing better, so that some lines are short and some stay flat.*
#
# *A line can rise for two reasons: the digit became cheaper in the model, or dearer in the retrained one, which the same effort changes, too. So the lines of text below the figure give both, the change of the excess on the last stretch and that of the model's own cost. Where the cost still falls by more than some tenths of a nat, more effort might find more. On the left it falls for no model: the last steps fit the label too closely to its ten images, in the retrained model, too, and where that one loses more the line rises. In the middle it still falls in three models, version 4, the forgotten model and, below zero, the one with kept images, so that this attack has not come to its end there; masked model and version 3 rise only because the retrained model pays more. The ladder of the next section stops at 1,600 steps of training further, and its verdicts hold for that.*
#
# *What counts most in this figure is the right end of the middle panel. After 6,400 steps the forgotten model's line lies above zero: the digit is cheaper in it than in the retrained model, by less than a third of what the masked model shows. One model proves little. But on models of other seeds memory of two of the three digits that were tried, the 2 and the 3, is back after so many steps ([RESULTS.md](../RESULTS.md#trained-further-for-longer)). With kept images the line ends below zero, and memory is found on none of the three.*
#
# ## 6. The ladder, and a verdict for each digit
#
# The 3 of this seed is among the models on which knobs were tuned, and one model of each kind is an anecdote. So `python -m study ladder` sends several models of each digit up four rungs, by a [protocol](../docs/protocol.md) that was fixed before today's default was measured, but for three changes that [its record](../docs/record.md#what-was-changed-in-the-rules) names. On each rung the attacker may change more than on the one before:
#
# 1. *Other labels.* He changes nothing in the model. For each real image he looks for a $z$ under the nine other labels, as in section 3.
# 2. *Fitted label.* He also puts a label of his own in the place of the digit's. He fits it to ten images, as in section 4, but begins at four places in the place of one, and is scored on other images. The hidden model is the positive control of these two rungs.
# 3. *Training further.* He trains the decoder further with kept digits, as in section 5, and then tries the first two rungs again. He keeps the state in which the digit is cheapest: as it was, after 400 steps or after 1,600. So figures and tables have two columns for this rung, five in all. The masked model is its positive control.
# 4. *All weights.* He trains everything, with ten real images of the digit among kept ones. The hidden model is the positive control.
#
# On each rung only one number counts: what real images of the digit then cost, in nats above what they cost in the baseline. The mean of the retrained models minus the mean of the models under test is their *excess*. Above zero by more than chance it is memory; up to a third of the gap is tolerated, and the verdict may then still be *alike*. The excess of the positive controls is the *gap*: so much could be found.
#
# **Exercise 4.** On some digit a rung finds an excess of about 0.2 nats in the forgotten models, and a gap of about 0.1 nats. What follows?<br>(a) The forgotten models cannot be told from retrained ones: a pass.<br>(b) More is found than in models that know the digit: memory remains.<br>(c) Nothing.<br>The next cell computes the lower end of the gap's interval from three models of each kind with these numbers. Predict first; then run the cell, or unfold its stored output.

# %% jupyter={"outputs_hidden": true}
hidden, retrained = torch.tensor([19.9, 20.2, 19.6]), torch.tensor([20.0, 20.3, 19.7])
gap = retrained.mean() - hidden.mean()
error = ((hidden.var() + retrained.var()) / 3).sqrt()
lower = float(gap - 2.13 * error)  # Student's t: 5 % at one end, four degrees of freedom
print(f"The lower end of the gap is {lower:+.1f} nats; what is asked for are more than 1.5.")
print(f"this run says: {'(a) or (b)' if lower > 1.5 else '(c)'}")

# %% [markdown]
# <details><summary>Solution</summary>
#
# (c). Power comes first. A rung that finds no more in models that know the digit than in models that never saw it says nothing about a third model: (a) would acquit the hidden models as well, and (b) would convict a model by less than what chance does. The verdict is *inconclusive*.
#
# </details>

# %%
Image("../docs/diagram_verdict.png", width=640)

# %% [markdown]
# *Above, the two cases of power. Below, one example of each verdict; the bar is the interval of the excess, and the gray band reaches from minus half of the gap to a third of it.*
#
# The excess is known from a few models only, so it has an interval. Its ends are one-sided 5 % each (a 90 % interval), by *Student's t*, the usual way to say how well the mean of a few numbers is known. The gap is estimated as well. So the rules do not compare the interval with fixed lines; they ask for the ends of two sums, excess − gap/3 and excess + gap/2 ([verdicts.py](../sahelpers/attacks/verdicts.py)):
#
# | word | rule |
# |---|---|
# | *inconclusive* | the lower end of the gap does not lie above 1.5 nats and neither does that of the excess (or, on the third rung, the masked models are said to remember by one of the first two already): the rung has no power and acquits nobody |
# | *erased* | the upper end of excess − gap/3 lies below zero, and none of the next three |
# | *alike* | as erased, and the lower end of excess + gap/2 lies above zero. So the models lie within a third of the gap above the retrained ones and half of it below them, which is not the same as equal. This is the best verdict |
# | *resists* | as erased, and the upper end of excess + gap/2 lies below zero. The digit costs so much more than in a model that never saw it that the model is recognisable. This is a trace of forgetting, not a merit: whoever sees it knows that something was removed here |
# | *damaged* | as erased, but by its upper end kept images pay a third of the gap or more beyond what they pay in retrained models, so that the model may just draw badly |
# | *memory remains* | not erased, and the lower end of the excess lies above zero (above 1.5 nats where the rung has no power) |
# | *undecided* | none of these; or, on the rung of all weights, a pass where relearning might have gone further |
#
# [audit.json](../results/audit.json) holds the number of every model that was measured and the verdicts on the digits. The next cells read what it has of MNIST and the network of this notebook. First the models of the 7. What is new in today's default was chosen on the digits 0 to 4 and 8; knobs that it keeps from version 4 were tuned on the 3 and the 7, with another seed:


# %%
audit = json.loads(Path("../results/audit.json").read_text())
KINDS = {
    "hidden": "label column",
    "masked": "masked",
    "version 3": "ours (version 3)",
    "forgotten": "ours (with the loop)",
    "with kept images": "ours (with kept images)",
    "retrained": "retrained",
}


def of_our_network(rows, kind):
    """The rows of a kind of model, on MNIST and with the network of this notebook."""
    wanted = {"method": KINDS[kind], "dataset": "mnist", "arch": "mlp"}
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


findings = {"version 3": {}, "forgotten": {}, "with kept images": {}}  # -> digit -> rung -> finding
for kind, of_kind in findings.items():
    for row in of_our_network(audit["findings"], kind):
        fields = {k: v for k, v in row.items() if k not in ("digit", "method", "dataset", "arch")}
        of_kind.setdefault(row["digit"], {})[row["rung"]] = sa.Finding(**fields)
SHOWN = 7  # the digit whose models are drawn
rungs = list(dict.fromkeys(row["rung"] for row in audit["findings"]))

# %%
marks = {}  # kind -> rung -> one number per model
for kind in KINDS:
    of_shown = [row for row in of_our_network(audit["models"], kind) if row["class"] == SHOWN]
    if of_shown:
        marks[kind] = {rung: [row["values"][rung] for row in of_shown] for rung in rungs}
    else:
        print(f"No model of this kind was measured on the {SHOWN} yet: {kind}.")
figure, panels = plt.subplots(2, 3, figsize=(8.4, 3.9), layout="constrained", sharey=True)
*axes, unused = panels.flat
figure.delaxes(unused)
for ax, rung in zip(axes, rungs, strict=True):
    for row, kind in enumerate(marks):
        numbers = marks[kind][rung]
        style = sa.plots.line_style(STYLES.get(kind, 0), kind)
        ax.plot(numbers, [row] * len(numbers), ls="", **style)
    ax.set_title(f"{SHOWN}: {rung}")
    ax.title.set_size(10)
    ax.margins(x=0.2)
axes[0].set_yticks(range(len(marks)), list(marks))
axes[0].set_ylim(len(marks) - 0.5, -0.5)
figure.supxlabel("cost above the baseline, nats", fontsize=10)
plt.show()
counts = (f"{len(numbers[rungs[0]])} {kind}" for kind, numbers in marks.items())
print(f"models of the {SHOWN}: {', '.join(counts)}")

# %% [markdown]
# *One mark is one model, and farther to the left is more memory. The hidden and the masked models know the digit, the retrained ones never saw it. The forgotten models lie to the right of the retrained ones in all five panels, and so do those with kept images: no memory of the 7 is found, but one can tell that something was removed. On the first two rungs the masked models hide.*
#
# Now the verdicts on all digits that were measured, rung by rung: of version 3 in words, which `sa.in_words` ([verdicts.py](../sahelpers/attacks/verdicts.py)) writes, and then of today's default, which the figures call *forgotten*, and of forgetting with kept images as figures:

# %%
if findings["version 3"]:
    print(sa.in_words(findings["version 3"]).replace(". ", ".\n"))
for kind in (kind for kind, of_kind in findings.items() if not of_kind):
    print(f"{kind} is not measured yet. `python -m study ladder` does it.")

# %%
LOOKS = {"alike": "o", "erased": "o", "resists": "<", "damaged": "P", "memory remains": "s"}
LOOKS |= {"undecided": "D", "inconclusive": "x", "the gap": "^"}
for kind in ("forgotten", "with kept images"):
    of_kind = findings[kind]
    if not of_kind:
        continue
    size = (8, 2.0 + 0.33 * len(of_kind))
    figure, panels = plt.subplots(2, 3, figsize=size, layout="constrained", sharey=True)
    *axes, legend = panels.flat
    for ax, rung in zip(axes, rungs, strict=True):
        sa.excess_intervals({f"digit {digit}": of[rung] for digit, of in of_kind.items()}, ax, rung)
        ax.use_sticky_edges = False  # so that no gray band ends at the frame
        ax.margins(x=0.08)
        ax.set_xlabel("")  # one for all panels stands below them
    for word, marker in LOOKS.items():
        color = {"the gap": sa.plots.HIDDEN, "inconclusive": "black"}.get(word, sa.plots.AFTER)
        fill = "white" if word == "erased" else color
        legend.plot([], [], marker, color=color, markerfacecolor=fill, label=word)
    legend.axis("off")
    legend.legend(frameon=False, loc="center")
    figure.suptitle(kind, fontsize=11)
    figure.supxlabel("excess of memory, nats", fontsize=10)
    plt.show()

# %% [markdown]
# *The two ways to forget of today, each beside the same models. Zero is the mean of the models that never saw the digit. The orange bar is the interval of the excess and the pink triangle the gap. The gray band reaches from minus half of the gap to a third of it. The gap is estimated, too, so near an edge of the band the mark may differ from what the bar suggests: the mark counts. A filled circle is alike, an open one erased, a triangle to the left resists, a plus damaged, a square memory remains, a diamond undecided, a cross inconclusive.*
#
# The 1 and 9 are printed but do not count: under a fitted label a hidden and a retrained model differ by less than 6 nats there, as was fixed before. And where a rung cannot tell, no finding is no acquittal. Version 3 is why the third rung exists and why the shadow was added. What the table says about that rung:

# %%
for kind, of_kind in findings.items():
    for rung in (name for name in rungs if name.startswith("trained")):
        told = {d: of[rung].verdict for d, of in of_kind.items() if of[rung].powered}
        remains = [d for d, verdict in told.items() if verdict == "memory remains"]
        digits = f" ({' '.join(map(str, remains))})" if remains else ""
        words = (
            f"memory remains on {len(remains)} of {len(told)} digits on which it can tell{digits}"
        )
        print(f"{kind}; {rung}: {words if of_kind else 'not measured yet'}")

# %% [markdown]
# To examine a model of your own, call the function `sa.audit`: it builds the hidden and the masked model, runs the ladder and prints the findings ([notebook 06](06_your_images.ipynb)). Twenty-two other attacks were tried once, guided searches, inversions and relearning among them. Most of them have little power ([frozen pages](../results/archive/README.md)); [A3](A3_probes.ipynb) shows some.
#
# The dashboard below needs a running kernel. Without one, [05_live](05_live.ipynb) has a picture of it. Its attacks are explained in [A3](A3_probes.ipynb).

# %%
attacked = {name: models[name] for name in ("forgotten", "retrained")}
dashboard = live.ProbeDashboard(story, TARGET, attacked)
dashboard

# %% [markdown]
# **With your own hands:** choose an attack, press *Attack*, and compare the two rows.
#
# **What we saw.** Gray samples prove nothing. An attack that finds the digit proves nothing unless it finds less in a retrained model, and an attack that finds nothing proves nothing unless it succeeds on a model that is known to remember. What no attack finds in a model as it is may come back when the model is trained further.
#
# So is it gone, or only hidden? In today's default no attack of the ladder says that memory remains on any of the eight digits that count; seven of them pass, and the 5 is open. That holds for 1,600 steps of training further: after 6,400 steps memory of two of three digits is back. With kept images all eight pass, and all three after 6,400 steps. None of this is a guarantee of privacy.
#
# **Next:** [05_live](05_live.ipynb) has the dashboards, and [A5](A5_scoreboard.ipynb) shows all methods side by side.
