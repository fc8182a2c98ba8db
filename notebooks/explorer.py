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
# # The explorer: turn the knobs yourself
#
# **What you will see.** One panel over all stored runs. Choose a data set, a network, an optimizer
# and its settings, and see how far the network collapsed; set two optimizers side by side; train a
# small network now and watch it; move the constants of the theorems.
#
# On a page of the book there is no Python that could answer a slider. There you see a picture of
# the panel's plots instead. To turn the knobs, open this notebook in JupyterLab, from a copy of the
# repository:
#
# ```bash
# make lab
# ```
#
# and choose **Run All Cells** from the menu **Run**.

# %% [markdown]
# ## Parameters
#
# `results` is the folder of the store. `None` stands for your own, which `NCBOOK_RESULTS` names,
# else `./results`. The runs that the book publishes can be chosen in the panel, too, and are what
# you see as long as your own folder has none.

# %% tags=["parameters"]
results = None

# %% [markdown]
# ## The panel
#
# Every control says what it is for when the mouse rests on it. While something is worked out, the
# panel says *working…*. A choice never leads to nothing: what you choose narrows what can be chosen
# after it.

# %%
from ncbook import explore

explore.explorer(results)

# %% [markdown]
# ## What the tabs show
#
# | tab | what it answers |
# |---|---|
# | One run | How did NC0 to NC4, the accuracy and the singular values move over the epochs? With all seeds: the median, and the band from the least to the largest |
# | Map | Where, over momentum and weight decay, is a metric small? A press on a cell opens its best run |
# | Compare two | What does another optimizer, or another setting, make of the same data and network? |
# | Train it now | What happens when *I* train it? The digits MLP trains in this notebook's kernel; the plot moves, and **Stop** ends it |
# | Theory | What do the exact law of SGD and the theorems on sign descent say for my own constants? |

# %% [markdown]
# ## Three things to try
#
# 1. Under **Compare two**, leave A at Adam and B at AdamW, and raise the weight decay of both. Adam's
#    NC0 and NC3 sink as it grows. AdamW's move little, however large its weight decay is.
# 2. Under **Map**, look at NC0 of SGD at learning rate 0.01. It falls with the weight decay, and along
#    a row with the momentum, up to a critical one. Now choose SGDW: the columns are all alike, since momentum has no
#    say in the row sum. [The chapter on SGD](theorem_sgd.ipynb) proves both.
# 3. Under **Train it now**, train SignumW beside Signum. Then set the weight decay to 0: the two are
#    one and the same, and neither collapses in so few epochs.

# %% [markdown]
# ## What was shown
#
# Whatever is drawn here comes from the store, from a training that you started, or from the closed
# forms of `ncbook.theory`; the panel itself is `ncbook.explore`. To fill the store with runs of
# your own, see [the sweep](sweep.ipynb).
