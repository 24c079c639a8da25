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
# # 5. Live: explore, forget and attack with your own hands
#
# [Colab](../README.md#set-your-address)
#
# Turn the knobs of notebooks 01 to 04 yourself. The models for the digit 3 come with the repository: run all cells, and the tabs answer.

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
import sahelpers as sa
from sahelpers import live

FORGET_CLASS = 3  # a class, or a tuple of classes
story = sa.Story()
models = live.models_there(story, FORGET_CLASS)

# %% [markdown]
# * **Explore** moves $z$ along the directions that change the picture most, and mixes two labels. *Baseline* was trained on all digits; *hidden* is the same model with one label's weights replaced; *forgotten* is the result of Selective Amnesia; *retrained* (the control) was trained anew without the digit.
# * **Forget**: choose digits and weights, press *Forget*; *Stop* keeps the model so far, *Forget these too* goes on from it. Bars and table then say what is left of the digit and what the run cost the others. With *forget again on release*, a slider that you let go starts a new run. *Save* writes a picture and the run's code into this folder.
# * **Attack** searches for the digit in the forgotten model, in the retrained model, which never saw it, and in the hidden model, where it is still there. For another digit it says what it has to make first.

# %%
tabs = live.Tabs(
    {
        "Explore": lambda: live.LatentExplorer(models, names=story.train.class_names),
        "Forget": lambda: live.AmnesiaDashboard(story, FORGET_CLASS),
        "Attack": lambda: live.ProbeDashboard(story, FORGET_CLASS),
    }
)
tabs

# %% [markdown]
# The first tab's models without a kernel, at the same eight latents under the forgotten label:

# %%
latents = sa.fixed_latents(models["baseline"], 8, seed=1)
first = min(story.train.class_numbers(FORGET_CLASS))
drawn = latents.where(latents.labels == first)
rows = {name: sa.draw_images(model, drawn) for name, model in models.items()}
name = story.train.class_names[first]
_ = sa.plots.image_rows(rows, 8, title=f"label {name}, the same z in every row")

# %% [markdown]
# **Where to read on:** [01_baseline](01_baseline.ipynb) for the latent space, [03_amnesia](03_amnesia.ipynb) for the objective and its knobs, [04_probing](04_probing.ipynb) for attacks and the models beside which they are read.
#
# <details><summary>If nothing answers</summary>
#
# The sliders need a running kernel: run all cells again. In Colab, the kernel's interrupt takes the place of *Stop*.
#
# </details>
