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
# # 6. Your images
#
# [Colab](../README.md#set-your-address)
#
# This notebook goes from a folder of pictures to a forgotten class and a verdict. It shows two examples: real digits of 8 × 8 pixels in gray, and pictures in colour. Running takes one and a half minutes on two CPU cores.
#
# The first example ends with a verdict, and you should expect it to be *inconclusive*. Images of 8 × 8 pixels have few nats to tell apart what knows a class and what does not, and there is one model that forgot. The example shows the way; larger images and more models can be judged.
#
# ## What to type
#
# Put the pictures of each class into a folder of their own, such as `pictures/cat/` and `pictures/dog/`. Then change three lines of the cell after the next one:
#
# * `FOLDER` is where these folders lie, such as `"pictures"`. A path that does not begin with `/` is looked for beside this notebook, in `notebooks/`.
# * `SHAPE` is (channels, height, width). The height stands before the width, so for pictures in colour that are 20 pixels wide and 16 high it is `(3, 16, 20)`. One channel reads them as gray. A side may have 8 to 64 pixels, and larger pictures are made smaller.
# * `FORGET_CLASS` is the class to forget, by number or by name. Classes are numbered from 0 on in the order of their folders' names, so with the folders above 0 is `cat` and 1 is `dog`; the next cells print the list. Several classes are a tuple.
#
# How long it takes grows with the number of pictures, with `PASSES` and with their size. The examples, with some hundred to a thousand small pictures, take less than a minute each; ten thousand pictures of 28 × 28 pixels take some minutes with a tenth of the passes.

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
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from PIL import Image, ImageDraw

import sahelpers as sa

FOLDER = None  # such as "pictures"; None takes scikit-learn's digits
SHAPE = (1, 8, 8)  # channels, height, width: the height stands before the width
FORGET_CLASS = 3  # number or name of the class to forget, or a tuple
PASSES = 100  # over the training images: the fewer images, the more

# %%
if FOLDER is None:
    train, test = (sa.load_dataset("digits8", split) for split in ("train", "test"))
else:
    train, test = sa.LabelledImages.from_folder(FOLDER, SHAPE).split()
configs = {
    "baseline": sa.BaselineConfig(epochs=PASSES),
    "judge": sa.JudgeConfig(epochs=max(4, PASSES // 4)),
    "amnesia": sa.AmnesiaConfig.for_values(train.images[0].numel()),
}
story = sa.Story((train, test), **configs)
forgotten = train.class_numbers(FORGET_CLASS)  # a tuple; names will do as well
print(story.report())
print("to forget:", ", ".join(f"number {c}, called {train.class_names[c]}" for c in forgotten))
sa.plots.class_columns(train.images, train.labels, 4, names=train.class_names)
plt.show()

# %% [markdown]
# *Equal images stay on one side of the split between training and test images.* Two knobs have to fit the size of the images: `PUSH` says how many nats more the forgotten class shall cost, `KEPT_BUDGET` how many the others may pay for it, and an image with fewer pixels has fewer nats to give. Now we train a baseline, forget the class, and draw with both models at the same latents:


# %%
def chain(story, gone):
    """The models before and after forgetting some classes, and what they draw."""
    models = story.baseline.model, story.forgotten(gone).model
    latents = sa.fixed_latents(models[0], 4)
    images = [sa.draw_images(model, latents) for model in models]
    axes = plt.subplots(2, 1, figsize=(9, 5), layout="constrained")[1]
    sa.plots.before_after(*images, latents.labels, 4, axes, story.train.class_names)
    plt.show()
    return models


# %%
def look(story, before, after, gone):
    """What the open-set judge says, and whether that can be judged at all."""
    images = {"train": story.train, "test": story.test, "judges": story.judges}
    gates = {c: sa.can_be_judged(before, c, **images) for c in gone}
    latents = sa.fixed_latents(before, 500)
    seen = [sa.judge_samples(model, story.judges["open_set"], latents) for model in (before, after)]
    change = sa.retained_accuracy(*seen, gone)
    for c, gate in gates.items():
        print(gate)
        word = gate.word("holds" if seen[1].argmax[c, c] <= 0.01 else "does not hold")
        print(f"{gate.name} is seen in at most 1 % of its samples: {word}")
    word = "holds" if change.mean_before - change.mean_after <= 1 else "does not hold"
    for gate in gates.values():
        word = gate.word(word)
    print(f"kept classes lose at most 1 point on average: {word}")
    return gates


# %%
before, after = chain(story, forgotten)

# %%
gates = look(story, before, after, forgotten)

# %% [markdown]
# *Holds* says something only where the class was there before: the judges must know the images, the baseline must draw the class, and there must be enough images. Where one of these is missing, the answer is *cannot be judged*, and the lines above say what would help.
#
# ## Gone, or hidden?
#
# Samples do not show what the weights hold, so the model climbs the ladder of [notebook 04](04_probing.ipynb). `sa.audit` builds a model that hides the class and a masked one, which are known to remember it, and compares with three models that were retrained without it. These images are small, so the attackers get fewer steps than on MNIST.

# %% tags=["nbval-ignore-output"]
config = sa.LadderConfig(z_steps=50, sets=2, fit_steps=200, heal_steps=200, relearn_steps=100)
retrained = [story.retrained(forgotten, seed).model for seed in (42, 43, 44)]
models = {"baseline": before, "retrained": retrained, "data": (train, test)}
findings = {}
for c in (c for c, gate in gates.items() if gate.passed):
    report = sa.audit(after, c, config, **models)
    findings[c] = report.by_rung
    print(f"The class {gates[c].name}:")
    print(f"{'rung':30}{'excess of memory, nats':>24}{'gap':>7}  verdict")
    for found in report.findings:
        ends = f"{found.excess:+.1f} [{found.low:+.1f}, {found.high:+.1f}]"
        print(f"{found.rung:30}{ends:>24}{found.gap:7.1f}  {found.verdict}")
    print(*report.notes, sep="\n")
for gate in (gate for gate in gates.values() if not gate.passed):
    print(f"{gate.name}: cannot be judged, as said above")
print(sa.in_words(findings))

# %% [markdown]
# A rung has one line. The *excess* is how many nats less a real image of the class costs this model than retrained ones; above zero it is memory. The *gap* is the same for the models that are known to remember. Where the gap is hardly above zero, the attack cannot tell models that know the class from models that never saw it, and the verdict is *inconclusive*: on images this small that is to be expected. `print(report)` shows what every kind of model pays, and what kept classes pay, too.
#
# ## Pictures in colour
#
# Now folders of pictures in colour, 20 pixels wide and 16 high: three shapes in red and in green. For this example we draw them ourselves. The two colours are equally bright in gray. To save time, this example forgets without the attacker in the loop (`AmnesiaConfig.cheaper()`); the samples show that it works, and only the ladder would show what lies behind them.


# %%
def draw_pictures(folder, each=140):
    """Folders of pictures, 20 wide and 16 high: three shapes, in red and in a green as bright."""
    random = sa.seeded(0)
    for name, colour in {"green": (0, 130, 0), "red": (255, 0, 0)}.items():
        for shape in ("cross", "line", "square"):
            place = Path(folder, f"{name} {shape}")
            place.mkdir()
            for k in range(each):
                x, y, r = torch.rand(3, generator=random).tolist()
                x, y, r = 7 + 6 * x, 7 + 2 * y, 4 + 2 * r  # centre and half of the size
                sheet = Image.new("RGB", (20, 16))
                pen = ImageDraw.Draw(sheet)
                if shape == "square":
                    pen.rectangle((x - r, y - r, x + r, y + r), colour)
                else:
                    pen.line((x - r, y, x + r, y), colour, 2)
                if shape == "cross":
                    pen.line((x, y - r, x, y + r), colour, 2)
                sheet.save(place / f"{k}.png")


# %%
COLOURS = 2  # the number of the class to forget
with tempfile.TemporaryDirectory() as folder:
    draw_pictures(folder)
    in_colour = sa.LabelledImages.from_folder(folder, (3, 16, 20)).split()
    in_gray = sa.LabelledImages.from_folder(folder, (1, 16, 20)).split()
    try:
        sa.LabelledImages.from_folder(folder, (3, 20, 16))
    except ValueError as error:
        print(f"Height and width exchanged: {error}")
print(in_colour[0].report(in_colour[1]))

# %%
configs = {"baseline": sa.BaselineConfig(epochs=200), "judge": sa.JudgeConfig(epochs=40)}
configs["amnesia"] = sa.AmnesiaConfig.cheaper()
coloured = sa.Story(in_colour, **configs)
gone = coloured.train.class_numbers(COLOURS)
before, after = chain(coloured, gone)
gates = look(coloured, before, after, gone)

# %% [markdown]
# *The column of the forgotten class is gray in all three channels, and the same shape in the other colour is still drawn.*
#
# ## Where it fails
#
# Two mistakes are easy to make. Exchanging height and width is caught when the folder is read: the message above says what to type. Reading coloured pictures with one channel is not an error, but here it throws away what tells the classes apart:

# %%
gray = sa.Story(in_gray, **configs)
images = {"train": gray.train, "test": gray.test, "judges": gray.judges}
print(sa.can_be_judged(gray.baseline.model, gone[0], **images))

# %% [markdown]
# *In gray a red square and a green square are the same picture. No judge can tell them apart, and so nobody can say whether one of them was forgotten: the answer is* cannot be judged.
#
# **Try to beat it.** How few pictures are enough? `EACH` is how many are drawn of each class, 140 above; equal ones stay on one side of the split, and about a quarter are for testing. Predict whether the class can still be judged with so many, then run, and find the smallest number that is enough.

# %%
EACH = 30  # pictures of each class

# %% tags=["nbval-ignore-output"]
with tempfile.TemporaryDirectory() as folder:
    draw_pictures(folder, EACH)
    few = sa.LabelledImages.from_folder(folder, (3, 16, 20)).split()
scarce = sa.Story(few, **configs)
print(f"{len(few[0])} pictures for training, {len(few[1])} for testing")
images = {"train": few[0], "test": few[1], "judges": scarce.judges}
print(sa.can_be_judged(scarce.baseline.model, gone[0], **images))

# %% [markdown]
# <details><summary>Solution</summary>
#
# With too few pictures the lines say which of three things is missing: judges that know the images, a baseline that draws the class, or images enough to test both. More passes help the first two. Nothing but more pictures helps the third, for a share of a handful of test images says little. Near the edge it is chance whether the judges learn so few: once 40 were enough (11 test images of the class), 50 were not (the judges knew 53 % of the test images), and 60, 80 and 100 were.
#
# </details>
#
# Networks of your own go into `sa.CVAE(encoder=..., decoder=...)`, and a state dict of the official code goes into `sa.from_official`; [the package on one page](../sahelpers/README.md) says more. `python -m study your_data` runs the same chain on other sets of images. A [frozen table](../results/archive/your_data_3.md) has what the attacks of an earlier version found there.
