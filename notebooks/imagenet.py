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
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # ImageNet: a recipe
#
# **Question.** How do you train the one grid of the paper {cite}`optimizer2026` that needs ImageNet, and what can
# it tell? **Answer.** With one command for each of two optimizers, on a machine with GPUs; about coupled decay
# something, about decoupled decay hardly anything.
#
# The grid is that of Appendix D.4.4, Figures 17 and 18: a ResNet50, Adam and AdamW, one learning rate, three momenta
# and four weight decays.
#
# ## What you need
#
# - **The images**: ImageNet's 2012 edition (ILSVRC2012), 1,281,167 to train and 50,000 to validate, after you have
#   registered at [image-net.org](https://image-net.org). Put them into the folders that every ImageNet script uses:
#   `PATH/train/<class>/*.JPEG` and `PATH/val/<class>/*.JPEG`.
# - **A GPU**, or several in one machine: each trains a run of its own. With `-p workers 1` all of them share
#   every minibatch of one run.
# - **Room on a disk** for the images, and for the features of one measurement of each run in training, which go
#   to `TMPDIR`.

# %% tags=["remove-input"]
import numpy as np
import torch
from IPython.display import Markdown
from torch.utils.flop_counter import FlopCounterMode

from ncbook import figures, models, store, sweep, train

figures.start_chapter()
IMAGES, EPOCHS, BATCH, LR = 1_281_167, 90, 256, 3e-4
MOMENTA, DECAYS = (0.0, 0.5, 0.9), (0.0, 1e-5, 1e-4, 1e-3)
GRIDS = [sweep.grid(n, (LR,), MOMENTA, DECAYS) for n in ("adam", "adamw")]
Markdown(
    f"The features of all training images take {IMAGES * 2048 * 4 / 1e9:.1f} GB."
)

# %% [markdown]
# ## Try the whole way first
#
# A narrow ResNet50 on 2,000 of the images takes minutes on a laptop, and finds what is missing:
#
# ```bash
# papermill notebooks/sweep.ipynb try.ipynb -p optimizer adam \
#   -p dataset imagenet:PATH -p model resnet50 -p width 1/16 \
#   -p train_size 2000 -p lrs 0.0003 -p momenta 0.9 \
#   -p weight_decays '0, 1e-3' -p epochs 2
# ```
#
# ## The command
#
# The whole grid is one loop:

# %% tags=["remove-input"]
LINES = """for optimizer in adam adamw; do
    papermill notebooks/sweep.ipynb imagenet-$optimizer.ipynb \\
        -p optimizer $optimizer -p dataset imagenet:PATH -p model resnet50 \\
        -p lrs 0.0003 -p momenta "[0, 0.5, 0.9]" \\
        -p weight_decays "[0, 1e-5, 1e-4, 1e-3]" \\
        -p epochs 90 -p batch_size 256 -p precision bfloat16
done"""
Markdown(f"```bash\n{LINES}\n```")

# %% [markdown]
# `bfloat16` is for the hidden layers ({doc}`precision`); the last layer and all metrics stay in float32. Stop it, or
# let the power fail, and give the same command again: stored runs are skipped, and the one that was interrupted goes on
# from its last checkpoint. Two things the paper does not say, and we chose: batches of 256, and no augmentation.
#
# Images are read and decoded as they are needed, resized until their shorter side is $256/224$ of the crop, and
# cropped in the middle. A measurement passes once over the training images: it keeps their features on the disk, and
# adds up the metrics from there.
#
# ## What it costs
#
# torch counts the arithmetic of one image's forward pass; a training step takes three times that.

# %% tags=["remove-input"]
with torch.device("meta"), FlopCounterMode(display=False) as counter:
    models.build("resnet50", 1000, 3)(torch.empty(1, 3, 224, 224))
forward, shown = counter.get_total_flops(), EPOCHS * IMAGES
count = sum(map(len, GRIDS))
RATE = 2000  # images a second: an example, not a measurement
Markdown(
    f"A forward pass is {forward / 1e9:.1f} GFLOP, and the {count} runs are "
    f"{3 * forward * shown * count / 1e18:.0f} exaFLOP. At {RATE:,} images a second, which is an example and "
    f"not a measurement, a run takes {shown / RATE / 3600:.0f} hours and the grid "
    f"{shown * count / RATE / 86400:.0f} days."
)

# %% [markdown]
# The sweep prints an estimate for your machine before it starts.
#
# ## How to read the result
#
# Look at Adam's half. The paper concludes from this grid that AdamW "does not have full NC emergence". But here
# AdamW's decay can do next to nothing. It multiplies each weight by $1-\eta_t\lambda$ at each step, and so takes
# away this share of its start, whatever the gradients do:


# %%
def taken(decay):
    """1 − ∏(1 − η_t λ), with the step schedule."""
    steps = -(-IMAGES // BATCH)
    drops = [train.learning_rate_factor(e, EPOCHS) for e in range(EPOCHS)]
    return 1 - np.prod((1 - LR * np.array(drops) * decay) ** steps)


decay = max(DECAYS)
Markdown(f"At the strongest decay, λ = {decay:g}: **{taken(decay):.1%}**.")

# %% [markdown]
# Adam's decay is coupled, and passes through the division by the size of the gradients: where these are small, a small
# λ is large. So the grid compares some coupled decay with hardly any decoupled decay. A fair comparison gives AdamW
# decays up to 10, as the paper's other grids do.
#
# A run has collapsed if NC1, NC2 and NC3 end below 0.1 at 99 % training accuracy ({doc}`sweep`). With a
# thousand classes few runs may reach that accuracy; the paper's two figures show all runs.
#
# ## What the store holds

# %%
stored = store.load_runs(model="resnet50", optimizer=["adam", "adamw"])
stored = stored[stored["dataset"].str.startswith("imagenet:")]
ended = stored[stored["status"] == "ok"]

# %% tags=["hide-input"]
counted = figures.counted_by_optimizer(stored)
Markdown(counted or "**The store holds no run of ResNet50 on ImageNet.**")

# %% [markdown]
# (paper-figures-17-18)=
# ## Figures 17 and 18
#
# Means over the runs that did not diverge, with bands of one standard deviation: the paper's Figure 17, then its
# Figure 18. The paper's text has no numbers for them.


# %% tags=["hide-input"]
def draw(*pair):
    """A figure of two metrics over all runs that ended."""
    title = f"ResNet50 on imagenet:PATH (n = {len(ended)})"
    return lambda runs: figures.against_weight_decay(runs, pair, title, False)


figures.with_lines(ended, LINES, draw("nc0", "nc3"), draw("nc1", "nc2"))
