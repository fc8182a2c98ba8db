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
# # Which optimizer makes a network collapse?
#
# **Look for dark cells**: there NC3 is small, and on the digits, below 0.1, the network has
# collapsed. Adam's cells get dark as the weight decay λ grows; AdamW's do not.
# *No panel below, or one that does not answer? Choose Run All Cells in the menu Run.*

# %% tags=["parameters"]
results = None  # the folder of a store; None: your own, or the book's while yours has no runs

# %%
from ncbook import explore

explore.explorer(results)

# %% [markdown]
# On a page of the book no Python can answer a control: there you see a picture instead of the panel.
# `make lab`, in a copy of the repository, opens the panel in JupyterLab, running.
#
# ## What the tabs show
#
# | tab | what it answers |
# |---|---|
# | Map | Where, over momentum and weight decay, is a metric small? Two optimizers on one colour scale. Press a cell to see its epochs |
# | Over the epochs | How did NC0 to NC4, the gauge share, the accuracy and the singular values of two settings move, and did the networks collapse? **Export** saves the figure, its rows, and the lines that train its runs |
# | All runs | Which of all runs are like each other? A table to sort and search, a scatter plot of any two numbers, parallel coordinates. A box drawn in the plot selects the rows; **Compare these** shows them over the epochs. Under *runs*, “the best of each optimizer” ranks them |
# | Train it now | What happens when *you* train it? The digits MLP trains in this notebook's kernel, next to runs of the store with the same settings; **Stop** ends it |
# | Theory | What do the exact law of SGD and the theorems on sign descent say for your own constants? |
#
# The name of a control says what it is for when the mouse rests on it. What you choose as A and B in Map or in Over
# the epochs is chosen in both, and is copied to Train it now each time you open it; what you change there does not
# come back. The filters of All runs and the controls of Theory are their own.

# %% [markdown]
# ## Four things to try
#
# 1. Under **Map**, choose NC0, and SGD at learning rate 0.01 as A. NC0 falls with the weight decay,
#    and, in a row with decay, with the momentum. Now choose SGDW: the columns are all alike, since
#    momentum has no say in the row sum. [The chapter on SGD](theorem_sgd.ipynb) proves both.
# 2. Press the cell of Adam at λ = 0 and β = 0.9, then raise λ of A and of B. Adam's NC0 and NC3
#    sink as λ grows; at λ = 0.5 Adam fails to learn. AdamW's NC0 stays above 4, however large λ is.
# 3. Under **Train it now**, train SignumW as A and Signum as B. Then set both weight decays to 0:
#    the two are one and the same, and neither collapses in so few epochs.
# 4. There, choose AdamW as A and as B, and SGD as B's last layer: NC0 follows the last layer's optimizer,
#    and the exact law of SGD tells how far.

# %% [markdown]
# ## What was shown
#
# Whatever is drawn here comes from the store, from a training that you started, or from the closed
# forms of `ncbook.theory`; the panel itself is `ncbook.explore`. To fill the store with runs of
# your own, see [the sweep](sweep.ipynb).
