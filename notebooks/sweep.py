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
# # The sweep: one optimizer, its whole grid
#
# **What you will see.** One optimizer is trained at every point of the paper's grid: three
# learning rates, six momenta and six weight decays, 108 runs. All neural-collapse metrics are
# measured while they train. At the end the numbers themselves say whether this optimizer
# collapsed.
#
# This page is a notebook with parameters. papermill runs it for any optimizer, data set or grid:
#
# ```bash
# papermill notebooks/sweep.ipynb out.ipynb -p optimizer adamw
# ```

# %% [markdown]
# ## Parameters
#
# An empty value stands for the paper's: its grid for that optimizer (ours for optimizers that the paper does not
# have), 200 epochs, batches of 128, the whole training set. A list is given as `[0.001, 0.01]` or as one value, one
# of whole numbers also as a range, `0-4`. PATH that is not absolute is looked for in this folder and then in
# `NCBOOK_DATA`. `MODULE:CLASS` is your own optimizer, a class derived from `torch.optim.Optimizer`, installed or in a
# file `MODULE.py` in the folder where you start; what the paper has no value for is then: learning rates 0.001,
# 0.005, 0.01, momentum 0.9 (0 if the class takes none), weight decays 0, 5e-4, 5e-3, 0.05, 0.5, 5 (0 alone if it
# takes none).
#
# | parameter | meaning | empty means |
# |---|---|---|
# | `optimizer` | update rule: `sgd` `sgdw` `adam` `adamw` `signum` `signumw` `sgd_mixed` `adam_mixed` `signum_mixed` `muon` `muonw` `shampoo` `shampoow` `soap` `soapw` `lionc` `lion` `mars` `MODULE:CLASS` | `adamw` |
# | `dataset` | data (PATH: here or in NCBOOK_DATA): `digits` `gaussians` `ufm` `mnist` `fashion_mnist` `cifar10` `folder:PATH` `imagenet:PATH` | `digits` |
# | `model` | network (ufm: with data ufm alone): `mlp` `ufm` `resnet9` `vgg9` `vit` `resnet50` | `mlp` |
# | `seeds` | seeds (or 0-4; of weights, batches, subset) | 0 |
# | `lrs` | learning rates | the paper's, or ours |
# | `weight_decays` | weight decays | the paper's, or ours |
# | `momenta` | momenta (Adam: beta 1) | 0, 0.5, 0.7, 0.9, 0.95, 0.98; 0.9 if not the paper's |
# | `coupled_shares` | coupled share (if mixed) | 0, 0.1, ..., 1 |
# | `epochs` | passes over the training set | 200 |
# | `batch_size` | samples a step | 128 |
# | `train_size` | size of a class-balanced subset | all samples |
# | `width` | factor on the layers' widths (such as 1/8) | 1 |
# | `depth` | mlp layers, vit blocks | 3, and 6 |
# | `precision` | format of hidden layers' numbers: `float32` `bfloat16` `float64` | `float32` |
# | `schedule` | learning rate over time: `step` `cosine` `constant` | `step`; for a vit `cosine` |
# | `clip` | largest gradient norm | no limit |
# | `vector_lr` | learning rate of vectors (Muon, Shampoo, SOAP) | 0.001 |
# | `update_precision` | format of products (Muon, Shampoo, SOAP) | that of the weights |
# | `head_optimizer` | last layer's optimizer (needed by the next three) | as the rest |
# | `head_lr` | last layer's learning rate | as the rest |
# | `head_momentum` | last layer's momentum | as the rest |
# | `head_weight_decay` | last layer's weight decay | as the rest |
# | `centred_head` | centre last layer's steps over classes | `false` |
# | `augment` | random crops and flips of images | `false` |
# | `log_epochs` | epochs to measure at | 0, 1, 2, 5, ..., the last |
# | `measure_layers` | measure every layer, not just the last | `false` |
# | `deterministic` | deterministic algorithms on a GPU | `false` |
# | `results` | folder of the store | `NCBOOK_RESULTS`, else `./results` |
# | `workers` | processes | one a core, or one a GPU |
# | `scheduler` | Dask scheduler to use | this machine |
# | `device` | `cpu`, `cuda` or `cuda:1` | a GPU if there is one |

# %% tags=["parameters"]
optimizer = "adamw"
dataset = "digits"
model = "mlp"
seeds = []
lrs = []
weight_decays = []
momenta = []
coupled_shares = []
epochs = None
batch_size = None
train_size = None
width = None
depth = None
precision = ""
schedule = ""
clip = None
vector_lr = None
update_precision = ""
head_optimizer = ""
head_lr = None
head_momentum = None
head_weight_decay = None
centred_head = None
augment = None
log_epochs = []
measure_layers = None
deterministic = None
results = ""
workers = None
scheduler = ""
device = ""

# %% [markdown]
# Everything is checked before any work begins: a name that does not exist, a value out of range,
# data that cannot be found or a folder that cannot be written ends the notebook here, in one line.

# %%
from ncbook import sweep

request = sweep.check(globals())

# %%
from IPython.display import Markdown, display

display(Markdown(sweep.describe(request)))

# %% [markdown]
# ## Training
#
# Runs that are in the store already are not trained again, so a sweep that was stopped goes on
# where it was. The rest trains in chunks of members that share their minibatches; each chunk is
# stored as it ends.

# %%
report = sweep.run(
    request.configs,
    request.results,
    log_epochs=request.log_epochs,
    measure_layers=request.measure_layers,
    device=request.device,
    workers=request.workers,
    scheduler=request.scheduler,
    deterministic=request.deterministic,
)
display(Markdown(report.text()))

# %%
from ncbook import figures  # takes seconds to import

figures.start_chapter()
runs = sweep.load_runs(request)
history = sweep.load_history(request)
history = history[history["run_id"].isin(figures.converged(runs)["run_id"])]

# %% [markdown]
# ## The best run
#
# The paper's rule for its Table 2: among the runs that reached 99 % training accuracy, the one with
# the least NC3. NC1, NC2 and NC3 near zero mean collapse; NC4 goes to one.

# %%
display(Markdown(figures.describe_best(runs)))
figures.shown(figures.best_run_table(runs), change="{:+.1%}")

# %% [markdown]
# ## By weight decay
#
# Means over the runs that converged, that is, ended with at least 99 % training accuracy. Those
# that did not, and those whose weights stopped being finite, are counted.

# %%
figures.shown(figures.by_weight_decay(runs))

# %% [markdown]
# ## NC0 and NC3 against weight decay
#
# The paper's Figures 1 and 3: means over the runs that converged, with bands of one standard
# deviation. On the book's small default (an MLP on digits) both metrics fall towards zero with coupled
# decay as the decay grows, and stay far from it with decoupled decay in an adaptive optimizer: look at
# the values on the axis, too.

# %%
figures.against_weight_decay(runs, title=figures.caption(runs))
# %% [markdown]
# ## Momentum and weight decay
#
# The paper's Figure 4: means over the learning rates. Grey: no run converged.

# %%
figures.heatmaps(runs, title=figures.caption(runs))
# %% [markdown]
# ## Over the epochs
#
# The paper's Figure 5, for every weight decay: the median over the converged runs, and the band
# between the quartiles. With the schedule `step` the learning rate is divided by ten after one third of the
# epochs, and again after two thirds.

# %%
figures.over_epochs(history, title=figures.caption(runs))
# %% [markdown]
# ## Singular values
#
# The paper's Figures 6 and 16. In a collapsed network W has one singular value that is zero (NC0
# says that its rows sum to zero) and K − 1 that are equal. Solid: the mean of all but the smallest.
# Dotted: the smallest of W. The smallest of M is zero in every network, since class means are
# centred, and is not drawn.

# %%
figures.over_epochs(history, "wm", title=figures.caption(runs))
# %% [markdown]
# ## What the numbers say
#
# The whole book has one rule (`ncbook.metrics.rule`), and it is a convention of ours. A run that reached 99 %
# training accuracy has *collapsed* if NC1, NC2 and NC3 all end below 0.1; *but for its gauge*, if that holds
# once the part of W that no prediction sees is taken out of NC3; *in part*, if only some of them do.
# NC0 itself has no part in it: only NC0 over the norm of W counts, and NC3 contains it. Trust the numbers
# more than the word.

# %%
display(Markdown(figures.verdict(runs)))
