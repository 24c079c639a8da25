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
# # 6. Your images
#
# [Colab](../README.md#set-your-address)
#
# From a folder of pictures, one folder for each class, to a forgotten class and its verdict. The example is real: 1,797 digits of 8 × 8 pixels. Running: three minutes on two CPU cores.

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
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import torch
from PIL import Image, ImageDraw, ImageFont

import sahelpers as sa

FOLDER = None  # such as "pictures"; None takes scikit-learn's digits
SHAPE = (1, 8, 8)  # channels, height and width that pictures are resized to
FORGET_CLASS = 3
PASSES = 100  # over the training images: the fewer images, the more

# %%
if FOLDER is None:
    train, test = (sa.load_dataset("digits8", split) for split in ("train", "test"))
else:
    train, test = sa.LabelledImages.from_folder(FOLDER, SHAPE).split()
judge = sa.JudgeConfig(epochs=max(4, PASSES // 4))
story = sa.Story((train, test), baseline=sa.BaselineConfig(epochs=PASSES), judge=judge)
forgotten = train.class_numbers(FORGET_CLASS)  # a tuple; names will do as well
print(story.report())
sa.plots.class_columns(train.images, train.labels, 4, names=train.class_names)
plt.show()

# %% [markdown]
# *Equal images stay on one side of the split.* Now train, forget, and draw at the same latents:


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
# *Holds* says something only where the class was there before: the judges must know the images, the baseline must draw the class, and there must be images enough. Below this gate the word is *cannot be judged*, and the lines above say what would help.
#
# ## Gone, or hidden?
#
# The ladder of [notebook 04](04_probing.ipynb): `sa.audit` builds a model that hides the class and a masked one, and compares with three models retrained without it. The efforts are smaller than on MNIST, as the images are. The last three lines of the table are what images of the kept classes pay.

# %% tags=["nbval-ignore-output"]
config = sa.LadderConfig(heal_steps=800, relearn_steps=400)
findings = {}
for c, gate in gates.items():
    if not gate.passed:
        print(f"{gate.name}: cannot be judged, as said above")
        continue
    report = sa.audit(
        after,
        c,
        config,
        baseline=before,
        retrained=[story.retrained(forgotten, seed).model for seed in (42, 43, 44)],
        data=(train, test),
    )
    findings[c] = report.by_rung
    print(report)
print(sa.in_words(findings))

# %% [markdown]
# *One model of one class: many intervals are wide, and where models that are known to remember lie too close to the retrained ones a rung is inconclusive.*
#
# ## More classes: letters in matplotlib's fonts


# %%
def letters(each, size=28):
    """White letters on black in matplotlib's fonts, a little turned and moved."""
    fonts = sorted(Path(matplotlib.get_data_path(), "fonts", "ttf").glob("DejaVuS*[!y].ttf"))
    random, images = sa.seeded(0), []
    for k in range(26 * each):
        turn, right, down = (2 * torch.rand(3, generator=random) - 1).tolist()
        sheet, font = Image.new("L", (size, size)), ImageFont.truetype(fonts[k % len(fonts)], 22)
        place = size / 2 + 2 * right, size / 2 + 2 * down
        ImageDraw.Draw(sheet).text(place, chr(65 + k // each), 255, font, "mm")
        images.append(sheet.rotate(10 * turn, Image.Resampling.BILINEAR))
    names = map(chr, range(65, 91))
    return sa.LabelledImages.from_arrays(images, torch.arange(26).repeat_interleave(each), [*names])


train, test = letters(120).split()
print(train.report(test))

# %%
judge = sa.JudgeConfig(epochs=7)
story = sa.Story((train, test), baseline=sa.BaselineConfig(epochs=60), judge=judge)
G = (train.class_names.index("G"),)
before, after = chain(story, G)
gates = look(story, before, after, G)

# %% [markdown]
# *The column of the forgotten letter is gray, with a faint round mark.*
#
# Networks of your own go into `sa.CVAE(encoder=..., decoder=...)`, a state dict of the official code into `sa.from_official`: [the package on one page](../sahelpers/README.md). The same chain on other sets: `python -m study your_data`; by the attacks of an earlier version, [a frozen table](../results/archive/your_data_3.md).
