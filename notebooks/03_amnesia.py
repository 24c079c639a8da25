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
# # 3. Amnesia: forget one digit, keep the others
#
# [Colab](../README.md#set-your-address)
#
# The model of [notebook 01](01_baseline.ipynb) forgets one digit in less than two thousand steps, and no real image of that digit is used. You see first what goes wrong when this is done carelessly, then take the loss apart, run its loop by hand, and look at what the other nine digits pay.
#
# Reading: what goes wrong 6 minutes, the loss and its loop 10, one run 4, what it costs 8. Running: two and a half minutes on two CPU cores; for another digit than the 3, two models are trained first, which takes some minutes once.

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
import copy
import json
import statistics
from dataclasses import fields, replace
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from IPython.display import Image
from torch.nn import functional

import sahelpers as sa
from sahelpers import live

Image("../results/before_after.png")

# %% [markdown]
# *Left: what the model draws for each digit before it forgets. Right: afterwards, at the same latent vectors $z$. One column has turned gray, with a faint dark 3 in it. Compare the other columns stroke by stroke: they show the same digits in nearly the same handwriting.*
#
# ## Parameters

# %%
# "reference": the notebook that accompanies the paper's code (docs/knobs.md)
SEED = 42  # of everything random; reference 42
FORGET_CLASS = 3  # a class, or a tuple of classes; reference 3
story = sa.Story.from_knobs(
    DATASET="mnist",  # or fashion_mnist, kmnist, qmnist
    ARCH="mlp",  # reference: conv
    N_FISHER_SAMPLES=6000,  # images, spread over the classes; reference 6000
    SEED=SEED,
    DEVICE="auto",
)
CHANGES = {}  # other values of the method's knobs, which part 2 lists; such as {"gamma": 4.0}

# %%
train, test, judges, device = story.train, story.test, story.judges, story.device
before, fishers = story.baseline.model, story.fishers
FORGOTTEN = train.class_numbers(FORGET_CLASS)  # a sorted tuple
KEPT = sa.kept_classes(FORGOTTEN, before.num_classes)
FIRST = FORGOTTEN[0]  # the one shown in the pictures
fisher = fishers.without(FORGOTTEN)
AMNESIA = replace(story.config.amnesia, **CHANGES)


def forgotten_with(amnesia):
    """The model that forgot by this configuration; read from its file, or made."""
    same = {"baseline": story.config.baseline, "fisher": story.config.fisher}
    chain = sa.Story((train, test), **same, amnesia=amnesia, device=device)
    return chain.forgotten(FORGOTTEN).model


# %% [markdown]
# ## 1. The idea
#
# While our model learns to forget, a second optimizer plays an *attacker*: again and again it searches for a label that brings the digit back, and the model learns to prevent that. We call it the *attacker in the loop*. Before any formula, here is what goes wrong without it, and with a simpler one.
#
# A model that draws gray under "3" may still know the 3. Its decoder reads a label through a set of weights, which we call the label's *gate*. Whoever owns the model can put other numbers in the place of a gate. So here is a simple attack, a *fit*: it takes ten real images of the digit and moves such numbers, and one $z$ for each image, until the decoder draws the images as well as it can. The *cost* of an image is what is then left: $-\log p(x|z)$ plus $\tfrac12|z|^2$, in nats. The second term is what an unusual latent costs, which a sampler would hardly draw. A low cost alone says little, for a fit bends strokes of other digits, too. A cost below that in a model that never saw the digit says that the model knew it.
#
# Whoever owns a model can also *train it further* with images of the digits that it kept, and a digit that was only suppressed may come back by that. `sa.heal` does so ([attacks/weights.py](../sahelpers/attacks/weights.py)); here it takes `HEAL_STEPS` steps, and then the attack is run again. Five models are attacked:
#
# * the **hidden** model is the baseline with a new gate for the digit. It draws no 3 under its label, and everything behind the gate still knows the 3;
# * the **retrained** model never saw the digit. What a fit finds in it is bent from strokes of other digits, so that it shows what the images cost in a model without memory;
# * **no attacker** is a model that learned to draw gray under the label and to keep the other digits, and nothing else;
# * **version 3** is an earlier default. While it forgot, an attacker fitted labels to it as it was, and it learned to make such fits expensive;
# * **today's default** learned this as well, but its attacker met a *shadow*: a copy of the model that is trained further all the while. Section 2 explains it.

# %%
FIT_STEPS, HEAL_STEPS = 600, 300  # of the attack, and of training further before it
attacked_images = test.only(FIRST).take(10, seed=SEED).images
models = {
    "hidden": story.hidden(FORGOTTEN),
    "retrained": story.retrained(FORGOTTEN).model,
    "no attacker": forgotten_with(sa.AmnesiaConfig.cheaper(seed=SEED)),
    "version 3": forgotten_with(sa.AmnesiaConfig.version3(seed=SEED)),
    "today's default": forgotten_with(AMNESIA),
}
own_label = torch.full((len(attacked_images), 1), FIRST)
own_price = float(sa.image_cost(before, attacked_images, own_label)[0].mean())


def fit(model):
    """Images drawn under a label fitted to ten real ones, and nats above what they cost the baseline."""
    cost, z, label = sa.fit_label(model, FIRST, attacked_images[None], FIT_STEPS)
    with torch.no_grad():
        logits = model.decode_columns(z[0], label.expand(len(attacked_images), -1))
    return logits.sigmoid().cpu(), float(cost) - own_price


as_they_are = {name: fit(model) for name, model in models.items()}
further = {
    name: fit(sa.heal(model, FORGOTTEN, train, HEAL_STEPS)) for name, model in models.items()
}

# %%
figure, axes = plt.subplots(1, 2, figsize=(12.5, 3.6), layout="constrained")
titles = "the models as they are", f"trained further with kept digits, {HEAL_STEPS} steps"
for ax, title, found in zip(axes, titles, (as_they_are, further), strict=True):
    rows = {"real images": attacked_images.cpu()}
    rows |= {name: images for name, (images, _) in found.items()}
    sa.plots.image_rows(rows, 7, ax, title)
    for row, (_, above) in enumerate(found.values(), start=1):
        ax.text(30 * 7 + 3, 30 * row + 14, f"{above:+.0f} nats", va="center", fontsize=9)
plt.show()

# %% [markdown]
# *Each row shows the best that the fit could make a model draw, seven of the ten images. Beside it stands the mean cost of all ten, in nats above what they cost in the baseline under their own label. Under a gate that is fitted to these ten images they cost less than that in some models. Compare every row with the retrained one: what costs less than in a model that never saw the digit is memory.*
#
# The next cell says it in words. Its last line is not about this figure but about the *ladder* of [notebook 04](04_probing.ipynb), which attacks for longer and from more starts, trains further for longer, and takes several models. It says by how much the digit costs more there, after training further, than in retrained models. Do not compare the costs themselves with those of README or of notebook 04: there the label is fitted to ten images and the cost is that of other ones, which is higher. Only differences from retrained models under the same attack can be compared.

# %% tags=["nbval-ignore-output"]
lead = {  # how much more the digit costs than in the retrained model, before and after
    name: [found[name][1] - found["retrained"][1] for found in (as_they_are, further)]
    for name in models
}


def compared(nats):
    """A difference of costs in words."""
    return f"{abs(nats):.1f} nats {'more' if nats > 0 else 'less'}"


for name, (was, now) in lead.items():
    if name != "retrained":
        print(f"{name}: {compared(was)} than in the retrained model as it is,")
        print(f"    {compared(now)} when both are trained further.")
findings = json.loads(Path("../results/audit.json").read_text())["findings"]
of_ladder = [  # the rung on which models are trained further and then a label is fitted
    -row["excess"]
    for row in findings
    if (row["method"], row["digit"]) == ("ours (with the loop)", FIRST)
    and (row["dataset"], row["arch"]) == ("mnist", "mlp")
    and row["rung"].startswith("trained")
    and row["rung"].endswith("fitted label")
]
for nats in of_ladder:
    print(f"on the ladder, trained further, the digit costs {compared(nats)} in today's default")
    print("    than in retrained models.")

# %% [markdown]
# *No attacker: look at the left number. Where it lies below that of the retrained model, the weights still hold the digit although the label draws gray. Version 3: look at how the cost falls from left to right. Today's default: see by how much the digit still costs more than in the retrained model on the right; the line of the ladder says whether that is so after longer attacks, too.* One short attack on one model proves little, for such numbers scatter by some nats from model to model; and version 3, which is made on your machine, ends in other numbers on another processor.
#
# ## 2. The loss, pull by pull
#
# Training a conditional VAE raises the ELBO, a lower bound on $\log p(x|y)$ for an image $x$ under its label $y$. One could think of lowering it for the digit $c_f$ that shall be forgotten. But lowering a lower bound does not lower the likelihood itself: the bound also falls when only the encoder gets worse while the decoder draws as before. Gradient ascent on the loss does just this, and the kept digits are lost ([A5](A5_scoreboard.ipynb)).
# Selective Amnesia ([Heng & Soh 2023](https://arxiv.org/abs/2305.10120)) raises another likelihood instead. Under the label $c_f$ the model learns to draw a harmless **surrogate** $s$ ([surrogates.py](../sahelpers/surrogates.py)), here flat gray. Probabilities add up to one: if the label's images are gray, the digit has become unlikely. Heng and Soh prove this as a theorem under conditions, and [A2](A2_terms.ipynb) measures how much of it happens here.

# %%
Image("../docs/diagram_objective.png", width=720)

# %% [markdown]
# *Four terms pull at the weights in training: two of them change what the model does with the digit, and two hold what it does with the others. The shadow of the fourth is explained below.*
#
# With $\theta$ for the weights in training, $\theta^*$ for the weights before and $c_r$ for a kept class, the loss is, in nats per image ([objective.py](../sahelpers/objective.py)):
#
# $$
# L(\theta) = w_f \underbrace{\mathbb E\big[-\log p_\theta(x_s|z, y)\big]}_{\text{1 forget}} + \gamma \underbrace{\mathbb E\big[-\log p_\theta(x_{\theta^*}|z, c_r)\big]}_{\text{2 replay}} + \frac{\lambda}{2\cdot 10^4}\underbrace{\sum_i F_i\,(\theta_i-\theta^*_i)^2}_{\text{3 consolidation}} + w_a \underbrace{\mathbb E\big[C^* + b - C\big]_+}_{\text{4 attack}}
# $$
#
# 1. **Forget.** Images $x_s$ of the surrogate shall become likely under the label. Half of the latents are the class's own, half come from $\mathcal N(0, I)$. The labels $y$ are not only the one of $c_f$, because an attacker may fit a label of its own. Half of the labels lie between the label of $c_f$ and the mean of the kept labels; the other half are random mixtures of all ten.
# 2. **Replay.** What the model drew of the kept classes before, $x_{\theta^*}$, shall stay likely at the same $z$. No real image is needed.
# 3. **Consolidation** is EWC ([Kirkpatrick et al. 2017](https://doi.org/10.1073/pnas.1611835114)): each weight is tied to its old value, as firmly as the Fisher $F_i$ of [notebook 02](02_fisher.ipynb) says that the kept classes need it. The ½ comes from the logarithm of a Gaussian density; $10^4$ is a fixed normaliser. This term works against erasure, too, for it also ties the weights to those that remember the digit. So its weight must not be large.
# 4. **Attack.** An attacker fits labels to images of the digit, which the baseline drew, while the model forgets. (He makes sixteen attempts side by side. Some of them, as many as `Z_FITS` says, use a label that there is and search only $z$; the others fit a label, too.) $C$ is what an image costs under such a label, $C^*$ what it costs in the baseline under its own. The brackets $[\;\cdot\;]_+$ stand for $\max(0, \cdot)$: the loss is positive while the cost is below $C^*$ plus a margin $b$, so the weights learn to raise the cost, and the attacker to lower it. Where an image is expensive enough already, the code keeps a small slope, 0.001, so that the attacker can go on.
#
# The first two terms by hand, on four examples:

# %%
objective = sa.Objective(before, fisher, FORGOTTEN, AMNESIA)
batch = objective.draw(4, sa.seeded(SEED))


def nats(logits, images):
    """-log p(images) under a Bernoulli decoder, averaged over the batch."""
    total = functional.binary_cross_entropy_with_logits(logits, images, reduction="sum")
    return total / len(images)


forget_term = nats(before.decode_logits(batch.forget_z, batch.forget_labels), batch.forget_images)
replay_term = nats(before.decode_logits(batch.keep_z, batch.keep_labels), batch.keep_images)
assert torch.allclose(batch.keep_images, before.decode(batch.keep_z, batch.keep_labels), atol=1e-5)
terms = objective.terms(before, batch)
assert torch.allclose(terms["forget"], AMNESIA.neg_loss_weight * forget_term, rtol=1e-4)
assert torch.allclose(terms["replay"], AMNESIA.gamma * replay_term, rtol=1e-4)

# %% [markdown]
# **The shadow.** If the attacker met the model as it is, the model would learn to be expensive *as it is*. Training it further can undo this, as section 1 showed with version 3. So the attacker meets a **shadow** ([shadow.py](../sahelpers/shadow.py)): a copy of the model that is trained further with replayed images of kept digits while the model forgets, as an owner of the model could do. Every `HEAL_EVERY` steps the shadow begins anew as a fresh copy. The attacker fits its labels to the shadow, and the gradient that makes the digit expensive *there* is added to the model's own gradient. So the model is pushed towards changes that keep the digit expensive when it is trained further. The gradient is computed at the shadow's weights and applied to the model as if the two were equal.
#
# **The budget.** One weight $w_a$ of the attack does not fit every digit: at the same loss for kept images it may be ten times as large for one digit as for another. So the weight follows what kept images pay. After every tenth step `forget` measures by how many nats 512 replayed images, drawn at $z$ from $N(0, I)$, have become more expensive, and compares it with what is allowed: `KEPT_BUDGET` at the end of the run, and more before that, while the learning rate is high and shakes every image. Where they pay less, the weight rises by up to a fifth, to `W_ATTACK` at most; where they pay more, it falls ([attacker.py](../sahelpers/attacker.py)). A weight that follows a target for a Kullback-Leibler divergence is known from reinforcement learning ([Schulman et al. 2017](https://arxiv.org/abs/1707.06347)).
#
# **Kept images.** The model above is replayed what it drew itself, so that no real image is needed. Whoever still has the real images of the kept digits can replay those: `sa.forget(model, fisher, 3, real_images=story.train)` leaves out the images of the forgotten digit by itself and takes the configuration for them, `sa.AmnesiaConfig.with_kept_images()`. Then the encoder moves along with the decoder, and the attacker has a fixed weight in the place of a budget. What training further brings back in such a model stands beside the default's in [RESULTS.md](../RESULTS.md#with-kept-images).

# %%
ax = sa.plots.new_axes(None, 10, 2.4)
ax.set(xlim=(0, 10), ylim=(0, 2.4))
ax.axis("off")
looks = {"ha": "center", "va": "center", "fontsize": 10}
places = {
    "model,\nlearns to forget": (1, sa.plots.AFTER),
    "shadow, trained further\nwith kept digits": (5, sa.plots.BEFORE),
    "attacker,\nfits labels": (9.1, "black"),
}
for words, (x, color) in places.items():
    edge = {"boxstyle": "round,pad=0.5", "fc": "white", "ec": color, "lw": 2}
    ax.text(x, 1.2, words, bbox=edge, **looks)
arrows = (  # from, to, height, words
    (2, 3.9, 1.5, "copied anew\nevery so many steps"),
    (6.1, 8.3, 1.5, "is searched for a label\nthat makes the digit cheap"),
    (8.3, 6.1, 0.9, "gradient that makes\nthe digit expensive"),
    (3.9, 2, 0.9, "the same gradient,\nadded to the model's own"),
)
for start, end, y, words in arrows:
    ax.annotate("", (end, y), (start, y), arrowprops={"arrowstyle": "-|>", "lw": 2})
    ax.text((start + end) / 2, y + (0.4 if end > start else -0.4), words, **looks | {"fontsize": 9})

# %% [markdown]
# *Follow the upper arrows to the right: the model is copied, the copy is trained further, and the attacker fits labels to it. Follow the lower arrows to the left: what makes the attacker's images expensive in the shadow comes back to the model.*
#
# These are the knobs of the loss, as this notebook uses them; the last three belong to the descent, and part 3 explains them:

# %% tags=["nbval-ignore-output"]
KNOBS = {  # name -> its letter in the formula
    "surrogate": "s", "neg_loss_weight": "w_f", "gamma": "gamma", "ewc_lambda": "lambda",
    "w_attack": "w_a", "kept_budget": "", "push": "b", "heal_every": "", "heal_rate": "",
    "lr_unl": "", "tolerance": "", "cooldown": "",
}  # fmt: skip
help_of = {field.name: field.metadata["help"] for field in fields(AMNESIA)}
print(f"{'knob':16}{'letter':8}{'value':8}")
for name, letter in KNOBS.items():
    print(f"{name.upper():16}{letter:8}{getattr(AMNESIA, name):<8}{help_of[name]}")

# %% [markdown]
# Here is the loop of [`forget`](../sahelpers/amnesia.py), for six steps. Six is enough to see nearly every part at work, since this shadow begins anew after every second step; only the budget is not asked before the tenth:

# %%
FEW = replace(AMNESIA, w_attack=0.1, heal_every=2, tolerance=0.0, cooldown=0)  # a constant rate
FEW = replace(FEW, epochs_unl=1, replay_samples=6 * FEW.batch_size)  # six steps
objective, draw = sa.Objective(before, fisher, FORGOTTEN, FEW), sa.seeded(FEW.seed)
objective.latents(objective.labels(FORGOTTEN, 512, draw), draw)  # forget measures at these
model = copy.deepcopy(before)
adam = torch.optim.Adam(model.parameters(), lr=FEW.lr_unl)
for step in range(6):
    if step % FEW.heal_every == 0:  # the shadow begins anew as a copy of the model
        shadow = copy.deepcopy(model)
        healing = torch.optim.Adam(shadow.decoder.parameters(), lr=FEW.heal_rate)
    batch = objective.draw(FEW.batch_size, draw, FEW.forget_batch)
    terms = objective.terms(model, batch, attacked=shadow)  # forget, replay, attack
    adam.zero_grad()
    healing.zero_grad()
    sum(terms.values()).backward()
    for weight, twin in zip(model.decoder.parameters(), shadow.decoder.parameters(), strict=True):
        weight.grad += twin.grad  # what makes the shadow expensive shall change the model
    adam.step()
    objective.ewc.step(adam, model)  # consolidation pulls the weights back
    objective.attacker.step(shadow)  # the attacker's turn: it makes its images cheaper
    healing.zero_grad()
    objective.replay_loss(shadow, batch, FEW.heal_batch).backward()
    healing.step()  # the shadow is trained further by one step

# %%
helper = sa.forget(before, fisher, FORGOTTEN, FEW).model
for by_hand, weight in zip(model.parameters(), helper.parameters(), strict=True):
    assert torch.allclose(by_hand, weight, rtol=1e-3, atol=1e-4)

# %% [markdown]
# The assertion says that the helper ends in the same weights. [A2](A2_terms.ipynb) opens the two black boxes that are left, the step of consolidation and the attacker's turn.
#
# **Exercise 1.** A short run with the default's weights, but with `GAMMA` at 0: nothing is replayed, and consolidation alone protects the kept digits. What becomes of them?<br>(a) They stay, for each weight is held near its old value.<br>(b) They are lost, although the weights are held.<br>(c) They stay, and the label does not turn gray.<br>Predict first; then run the cell, or unfold its stored output.

# %% jupyter={"outputs_hidden": true}
latents = sa.fixed_latents(before, 50)  # 50 of each class


def recognised(model):
    """Shares of samples that the open-set judge recognises, kept classes and forgotten ones."""
    seen = sa.judge_samples(model, judges["open_set"], latents)
    return float(seen.correct(KEPT).mean()), float(seen.correct(FORGOTTEN).mean())


SHORT = replace(AMNESIA, epochs_unl=1, replay_samples=20_480, cooldown=40)  # 80 steps of 256
short = {
    "gamma as it is": sa.forget(before, fisher, FORGOTTEN, SHORT).model,
    "gamma = 0": sa.forget(before, fisher, FORGOTTEN, replace(SHORT, gamma=0.0)).model,
}
rows = {"before": sa.draw_images(before, latents)}
rows |= {name: sa.draw_images(m, latents) for name, m in short.items()}
_ = sa.plots.image_rows({name: drawn[::25].cpu() for name, drawn in rows.items()}, 20)
kept_share, shown_share = recognised(short["gamma = 0"])
lost = kept_share < 0.5 * recognised(short["gamma as it is"])[0]
outcome = "(b)" if lost else "(c)" if shown_share > 0.5 else "(a)"
print(f"without replay, this run says: {outcome}")

# %% [markdown]
# <details><summary>Solution</summary>
#
# (b). Consolidation looks at each weight by itself, and many small moves together make a large change of the picture. Replay looks at the picture that all weights draw together.
#
# In the picture, the row without replay shows gray under nearly every label, for gray is all that the loss asks for, and in it a dark ghost of the forgotten digit, whatever the label; now and then there is a plain image of that digit, for nothing holds the rest. In the row with replay the kept digits stay as they were. Its two images of the forgotten digit show a dark shape on white, because the run is short; section 3 shows a full one.
#
# In [notebook 02](02_fisher.ipynb) the exact Fisher alone did keep most digits. There $\lambda$ was $10^6$ and the learning rate 0.001; here they are the default's, 150 and 0.01, and the springs are far too weak to hold anything by themselves.
#
# </details>
#
# ## 3. One run
#
# `forget` trains the decoder and erases the class's Gaussian. It holds its learning rate until the label draws the surrogate to within `TOLERANCE` (root mean square over pixels), then lowers it to zero in `COOLDOWN` steps.

# %%
marks = [0, 10, 20, 40, 60, 100, 150, 200, 300, 500, 800, 1200, 1600]
shown = torch.tensor([FIRST, KEPT[0], KEPT[-1]])
z_film = before.draw_latents(shown, generator=sa.seeded(5))
film = [before.decode(z_film, shown).detach()]


def keep_pictures(step, model, numbers):
    """Draw three labels at marked steps; called after every step."""
    if step in marks:
        with torch.no_grad():
            film.append(model.decode(z_film, shown))


result = sa.forget(before, fisher, FORGOTTEN, AMNESIA, on_step=keep_pictures)
after = result.model
rows = {str(c): torch.stack([f[j] for f in film]) for j, c in enumerate(shown.tolist())}
ax = sa.plots.image_rows(rows, len(film), title="after so many steps")
after_steps = [0, *(m + 1 for m in marks[: len(film) - 1])]
_ = ax.set_xticks([30 * k + 14 for k in range(len(film))], after_steps)

# %% [markdown]
# *Follow the upper row: the background brightens before the digit fades, and what is left is gray, nearly flat: a faint dark digit remains in it, which is seen better when the contrast is stretched ([A4](A4_denoising.ipynb)). In the rows of kept digits look at the first steps, which damage them, and at the last picture, which looks as the first one did.*

# %%
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(14, 3.2), layout="constrained")
steps = range(1, result.steps + 1)
left.plot(steps, result.history["distance"], color=sa.plots.AFTER, label="the label's images")
left.plot([1, result.steps], [AMNESIA.tolerance] * 2, "k--", lw=1, label="tolerance")
left.set(xlabel="step", ylabel="distance to the surrogate, gray levels", ylim=(0, None))
left.legend(frameon=False, fontsize=8)
if "attack" in result.history:
    weight = torch.tensor(result.history["attack_weight"])
    missing = torch.tensor(result.history["attack"]) / weight
    middle.plot(steps, missing, color=sa.plots.AFTER, lw=1)
    worst = f"worst step: {float(missing.max()):.0f} nats"
    middle.set_title(f"{worst}; in the last 50: {float(missing[-50:].mean()):.1f}", fontsize=10)
    right.plot(steps, weight, color=sa.plots.AFTER)
    right.set_title(
        f"at most {float(weight.max()):.3f}, at the end {float(weight[-1]):.4f}", fontsize=10
    )
middle.set(xlabel="step", ylabel="nats still missing\nto the cost asked for")
right.set(xlabel="step", ylabel="weight of the attack", ylim=(0, None))
plt.show()

# %% [markdown]
# *Left: how far the label's images still are from the surrogate. Where the curve first touches the dashed line, the learning rate begins to fall. It reaches zero `COOLDOWN` steps later, and there the run ends; the curve may rise above the line again meanwhile. Middle: by how many nats the attacker's images in the shadow are too cheap, on average. With a shadow the curve has saw-teeth: a fresh copy of the model has learned to be expensive, and becomes cheaper while it is trained further, until it is copied anew. The teeth become lower in the course of the run, unevenly, and they do not vanish. The title says how much is still missing in the last 50 steps. Right: the weight that the attack had. Look at when it falls: there kept images pay more than the budget allows.*
#
# So the cost asked for, $C^* + b$, is nearly reached in a fresh copy, where the teeth begin, and lost again while the copy is trained further. It need not be reached: `PUSH` sets a direction and not a goal, and what counts in the end is the cost beside that in a retrained model, which lies far below $C^* + b$. A stronger attack (`W_ATTACK`, `KEPT_BUDGET`) mostly comes nearer to it, and kept digits pay for that. In this run the weight stands at its upper limit, `W_ATTACK`, for most of the time, as the panel on the right shows. So it is this limit, and less often the budget, that decides how strong the attack is.
#
# ## 4. What it costs
#
# The judges of notebook 01 look at 1,000 samples of each class, before and after, at the same $z$: the **open-set** judge may answer "none of these", the **closed-set** judge must call even gray some digit.

# %%
fixed = sa.fixed_latents(before, 1000)
seen = {
    role: [sa.judge_samples(m, j, fixed) for m in (before, after)] for role, j in judges.items()
}
ax = sa.plots.new_axes(None, 7, 3)
for j, (role, (was, now)) in enumerate(seen.items()):
    change = 100 * (now.argmax.diagonal() - was.argmax.diagonal())[list(KEPT)]
    style = {"color": sa.plots.AFTER, "marker": "os"[j], "mfc": sa.plots.AFTER if j else "white"}
    words = f"{role.replace('_', '-')} judge"
    ax.plot([str(c) for c in KEPT], change, ls="", label=words, **style)
ax.axhline(0, color="black", lw=0.8)
ax.axhline(-1, color="black", ls="--", lw=1, label="a loss of one point")
ax.set(xlabel="kept class", ylabel="recognised: change, points")
ax.set_ylim(min(-1.5, ax.get_ylim()[0]), None)
_ = ax.legend(frameon=False, fontsize=8, ncols=3, loc="upper center", bbox_to_anchor=(0.5, 1.15))

# %% [markdown]
# *A mark above the line: after forgetting, more samples of this class are recognised than before. Look for marks below the dashed line; they would be a loss of more than one point.*
#
# One digit is an illustration. The table holds one run for each digit and seed, of 2,000 samples a class ([scoreboard.json](../results/scoreboard.json)); *allowed* are the limits of the [protocol](../docs/protocol.md), and a negative loss is a gain.

# %%
runs = [
    row
    for row in json.loads(Path("../results/scoreboard.json").read_text())
    if row["method"] == "ours (with the loop)" and (row["dataset"], row["arch"]) == ("mnist", "mlp")
]


def worse(row, what):
    """What a run costs under the stricter judge: points lost, or the share seen, in percent."""
    values = [row[what.format(which)] for which in ("open_set", "closed_set")]
    return -min(values) if what.startswith("kept") else max(values)


limits = {  # what is measured: its number in a run, and the protocol's limit
    "seen under its label, %": (
        lambda r: 100 * max(r["argmax_open_set_standard"], r["argmax_open_set_class"]), 0),
    "kept mean lost, points": (lambda r: worse(r, "kept_change_{}_class"), 0.5),
    "   with z from N(0, I)": (lambda r: worse(r, "kept_change_{}_standard"), 0.5),
    "worst class lost, points": (lambda r: worse(r, "worst_drop_{}_class"), 1),
    "   its z from N(0, I)": (lambda r: worse(r, "worst_drop_{}_standard"), 1),
    "kept ELBO lost, nats": (lambda r: r["elbo_kept_change"], 1),
    "kept Fréchet, % worse": (lambda r: 100 * (r["frechet_after"] / r["frechet_before"] - 1), 10),
}  # fmt: skip
measured = {what: ([of(r) for r in runs], limit) for what, (of, limit) in limits.items()}

# %% tags=["nbval-ignore-output"]
if runs:
    print(f"{f'{len(runs)} runs':26}{'mean':>8}{'worst':>8}{'allowed':>8}")
    for name, (values, allowed) in measured.items():
        print(f"{name:26}{statistics.fmean(values):8.2f}{max(values):8.2f}{allowed:8.2f}")
    above = [name.strip() for name, (v, allowed) in measured.items() if max(v) > allowed]
    print("above its limit in the worst run:", ", ".join(above) or "nothing")
    steps_taken = [row["steps"] for row in runs]
    print(f"steps: {statistics.fmean(steps_taken):.0f} on average,", end=" ")
    print(f"{min(steps_taken)} to {max(steps_taken)}; {result.steps} in section 3")
else:
    print("Today's default has no runs in the table yet.")

# %% [markdown]
# One limit is exceeded, in the worst run: that of the Fréchet distance. All other limits hold.
#
# **Exercise 2.** The judges look at pictures drawn under one kept label. An attacker may ask for labels in between. The next cell goes from one kept label to another in nine equal steps, before and after forgetting, at the same $z$. Where have the pictures changed most?<br>(a) At the two ends, where the digits are.<br>(b) In the middle, where the labels are mixed half and half.<br>(c) Nowhere: the digits are kept, and so is what lies between them.<br>Predict first; then run the cell, or unfold its stored output.

# %% jupyter={"outputs_hidden": true}
z_walk = torch.randn((1, before.latent_dim), generator=sa.seeded(SEED)).to(device)
ends = KEPT[:2][-1], KEPT[-1]
both = {"before": before, "after": after}
walks = {name: sa.interpolate_labels(m, z_walk, *ends)[:, 0].cpu() for name, m in both.items()}
drift = (walks["after"] - walks["before"]).square().mean((1, 2, 3)).sqrt()
title = f"label from {ends[0]} to {ends[1]}; change {drift[0]:.2f} at the left end, "
title += f"{drift[-1]:.2f} at the right, {drift[4]:.2f} in the middle (rms)"
_ = sa.plots.image_rows(walks, 9, title=title)
at_ends, in_the_middle = float(max(drift[0], drift[-1])), float(drift[4])
most = "(b)" if in_the_middle > at_ends else "(a)"
print(f"this run says: {'(c)' if max(at_ends, in_the_middle) < 0.02 else most}")

# %% [markdown]
# *Compare the two rows picture by picture. The change in gray levels stands in the title.*
#
# <details><summary>Solution</summary>
#
# (b). Replay asks for the old pictures under pure labels only. The forget term asks for gray under mixtures of all labels, because an attacker could fit such a label, and mixtures of *kept* labels pay for it. Judges who look at samples under single labels do not see this, and neither does the table above.
#
# </details>
#
# **Exercise 3.** Try to beat the default. Choose other weights in `MINE`, and say first which way each number will go: the *cost* of the digit is that of the fit of section 1 after training further (a lower cost means more memory), and what kept digits *pay* is their negative ELBO. With a better setting the digit costs more, and the other digits pay less. The one in the cell switches the shadow off. Predict first; then run the two cells, or unfold their stored outputs.

# %% jupyter={"outputs_hidden": true}
MINE = replace(AMNESIA, heal_every=0)  # such as gamma=4.0, ewc_lambda=1500.0, kept_budget=2.0, ...
rivals = {"the default": models["today's default"], "mine": forgotten_with(MINE)}
kept_images = test.without(FORGOTTEN).take(1000, seed=SEED)
at_first = float(sa.dataset_negative_elbo(before, kept_images).mean())
paid = {
    n: float(sa.dataset_negative_elbo(m, kept_images).mean()) - at_first for n, m in rivals.items()
}
healed = fit(sa.heal(rivals["mine"], FORGOTTEN, train, HEAL_STEPS))
charged = {"the default": further["today's default"][1], "mine": healed[1]}
dearer, gentler = charged["mine"] > charged["the default"], paid["mine"] < paid["the default"]
print(f"the cost of the digit: mine {'wins' if dearer else 'loses'}")
print(f"what kept digits pay: mine {'wins' if gentler else 'loses'}")

# %% jupyter={"outputs_hidden": true} tags=["nbval-ignore-output"]
ax = sa.plots.new_axes(None, 5, 3)
ax.axhline(
    further["retrained"][1],
    color=sa.plots.RETRAINED,
    ls="--",
    label="cost in the retrained model",
)
for k, name in enumerate(rivals):
    place = paid[name], charged[name]
    ax.plot(*place, sa.plots.MARKERS[k], color=sa.plots.AFTER, ms=8)
    ax.annotate(name, place, (8, 4), textcoords="offset points")
ax.set(xlabel="what kept digits pay, nats", ylabel="cost of the digit,\ntrained further, nats")
ax.margins(0.6, 0.3)
_ = ax.legend(frameon=False, fontsize=8)

# %% [markdown]
# *A better setting lies to the left of the default and above it. Below the dashed line the digit costs less than in a model that never saw it, which is memory. A mark above the line does not prove the opposite: this is one attack from one start, after a short training further of one model. The ladder of [notebook 04](04_probing.ipynb) trains further for longer. By it memory remains of the 3 and of the 7 where the shadow is switched off, on one model of another seed each ([RESULTS.md](../RESULTS.md#other-methods), the line* ours (without the healing)*).*
#
# <details><summary>Solution</summary>
#
# Without the shadow the attacker meets the model as it is, and nothing asks for a cost that outlasts training further. So the cost after it is lower than with the default, and kept digits pay less. More replay (`GAMMA`) makes kept digits pay less and slows the forgetting. More consolidation (`EWC_LAMBDA`) ties the weights to those that remember. A larger budget (`KEPT_BUDGET`) lets the attacker weigh more at the end, which mostly raises the cost, and kept digits pay for it; where the weight stands at `W_ATTACK` before, it changes little ([frontier](../results/frontier.md)).
#
# </details>
#
# The next two cells check the statements of this notebook; they are for its tests, and a reader can pass over them.

# %%
index, changes = (
    torch.tensor(FORGOTTEN),
    [sa.retained_accuracy(*pair, FORGOTTEN) for pair in seen.values()],
)
now = seen["open_set"][1]
half = lead["version 3"][0] / 2
claims = {
    "the digit costs less in the hidden model than in the retrained one": lead["hidden"][0] < 0,
    "the model without an attacker in the loop does, too": lead["no attacker"][0] < 0,
    "as it is, the digit costs more in version 3 than in the retrained model": half > 0,
    "trained further, it loses more than half of that lead": lead["version 3"][1] < half,
    "as it is, it costs more in today's default, too": lead["today's default"][0] > 0,
    "also when both are trained further": lead["today's default"][1] > 0,
    "forgotten class seen in at most 1 % of its samples": now.argmax[index, index].max() <= 0.01,
    "P(forgotten class) at most 0.01, open-set judge": now.probability[index, index].max() <= 0.01,
    "kept classes lose at most 0.5 points on average, under each judge": (
        max(c.mean_before - c.mean_after for c in changes) <= 0.5
    ),
    "no kept class loses more than 1 point": max(c.worst_drop for c in changes) <= 1,
    "the mixture changes more than its ends": drift[4] > max(drift[0], drift[-1]),
    "no real image was read while forgetting": result.real_images == 0,
    "without replay the kept digits are lost": outcome == "(b)",
}
for claim, true in claims.items():
    print(f"{claim}: {'holds' if true else 'does not hold'}")

# %%
in_the_table = {
    "in no run of the table any sample shows the digit": not any(
        measured["seen under its label, %"][0]
    ),
    "no run of the table costs more than is allowed": all(
        max(values, default=0) <= allowed for values, allowed in measured.values()
    ),
}
for claim, true in in_the_table.items():
    said = "holds" if true else "does not hold"
    print(f"{claim}: {said if runs else 'not measured yet'}")

# %% [markdown]
# ## With your own hands
#
# Choose digits, move weights, press *Forget*.

# %%
dashboard = live.AmnesiaDashboard(story, FORGET_CLASS)
dashboard

# %% [markdown]
# **What we saw.** Less than two thousand steps turn one label into gray, while the kept digits are recognised as before. That alone proves little: a model can draw gray and remember, and what was only suppressed may come back when the model is trained further. So an attacker fits labels to a shadow that is trained further while the model forgets. Kept digits pay in ways that judges do not see: in mixtures of their labels, in their likelihood, and in the quality of their samples, where the worst run of the table is a little beyond its limit. More about each term: [A2](A2_terms.ipynb).
#
# **Next:** [04_probing](04_probing.ipynb): is the digit gone, or only hidden?
