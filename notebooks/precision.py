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
# # Half precision
#
# **Question.** In bfloat16, a number format of 16 bits, networks for images train faster, wide ones up to three
# times, where the processor knows it. Does it change NC0 to NC3, and may the whole network use it?
#
# **Answer.** In the hidden layers it changes little: of 30 means over five seeds, on a narrow ResNet9 and the digits
# MLP, 29 move by less than another seed would move a run. The last layer is left out: with its products rounded, the
# zero sum behind the law of NC0 would hold only to bfloat16's precision. And no weight should be *stored* in it: a
# decoupled weight decay with $\eta\lambda < 2^{-9}$, rounded before the step is added, would then do *nothing*, and a
# small NC0 could not be seen.

# %%
import math

import numpy as np
import pandas as pd
import torch
from scipy.stats import t as student
from torch import nn

from ncbook import figures, models, store

figures.start_chapter()

SETTINGS = {  # optimizer: (learning rate, weight decay); momentum 0.9
    "sgd": (0.0679, 5e-3),
    "adam": (0.005, 0.05),
    "adamw": (0.005, 0.5),
}
RESNET = dict(dataset="mnist", model="resnet9", width=1 / 8)
RESNET |= dict(train_size=2000, epochs=50)
DIGITS = dict(dataset="digits", model="mlp", epochs=200)
PRECISIONS = ("float32", "bfloat16")
stored = store.load_runs(optimizer=list(SETTINGS), momentum=0.9, status="ok")


def of_settings(setting):
    """This chapter's runs of one network, in both precisions."""
    rows = []
    for name, (lr, decay) in SETTINGS.items():
        given = dict(lr=lr, weight_decay=decay, optimizer=name, momentum=0.9)
        for p in PRECISIONS:
            found = figures.of_setting(stored, **setting, **given, precision=p)
            rows.append(found.assign(precision=p))
    return pd.concat(rows)


def pairs(runs, metric):
    """A row for each optimizer and seed, a column for each precision."""
    by = ["optimizer", "seed"]
    wide = runs.pivot(index=by, columns="precision", values=metric)
    return wide.reindex(columns=list(PRECISIONS)).dropna()


resnet, digits = of_settings(RESNET), of_settings(DIGITS)

# %% tags=["hide-input"]
TRAIN = """both() { for p in float32 bfloat16; do
    papermill notebooks/sweep.ipynb out.ipynb -p precision $p \\
        -p momenta 0.9 -p seeds "[0, 1, 2, 3, 4]" "$@"
done; }
resnet() { both -p dataset mnist -p model resnet9 -p width 1/8 \\
    -p train_size 2000 -p epochs 50 "$@"; }
"""
EACH = [
    f"-p optimizer {name} -p lrs {lr} -p weight_decays {decay}"
    for name, (lr, decay) in SETTINGS.items()
]
LINE = TRAIN + "\n".join(
    [f"resnet {words}" for words in EACH]
    + [f"both {words}  # digits" for words in EACH]
)


def draw_metric(axis, runs, metric):
    """One line a seed from float32 (left) to bfloat16, for each optimizer."""
    for at, name in enumerate(SETTINGS):
        sides = pairs(runs[runs["optimizer"] == name], metric).T.to_numpy()
        look = dict(ms=4, lw=1, color=figures.COLOURS[name])
        axis.plot([at - 0.2, at + 0.2], sides, "o-", **look)
    axis.set_xticks(range(3), [figures.LABELS[name] for name in SETTINGS])
    axis.set(xlim=(-0.5, 2.5), title=figures.METRICS[metric])
    figures.log_values(axis)
    words = f"{figures.METRICS[metric]} of each seed in float32 and in bfloat16"
    axis.figure.set_label(words)


def draw_pairs(runs):
    """A small figure for each metric."""
    axes = figures.small_panels(len(figures.MAIN), 2.8)
    for axis, metric in zip(axes, figures.MAIN, strict=True):
        draw_metric(axis, runs, metric)
    return figures.in_rows(*axes)


paired = resnet if len(pairs(resnet, "nc0")) else resnet[:0]
figures.with_lines(paired, LINE, draw_pairs)

# %% [markdown]
# *A ResNet9 of an eighth of the width, 2,000 images of MNIST, 50 epochs. A line is one seed: float32 at its left end,
# the hidden layers in bfloat16 at its right. SGD's NC0 is level, as its law has it; other lines rise and fall, with no
# direction of their own.*
#
# **What you will learn**
#
# - what bfloat16 is, what autocast rounds and what it leaves alone;
# - one reason to compute the last layer in float32, and two to store its weights in it;
# - a rule by which a precision makes a difference *that matters*, fixed before the runs were made, and what it says.
#
# ## What bfloat16 is
#
# A float32 number has 8 bits for its exponent and 23 for its fraction. **bfloat16** keeps the 8 and cuts the fraction to
# 7. So its range is that of float32, from $10^{-38}$ to $10^{38}$, but it has only two to three decimal digits.
# Neighbouring numbers lie $2^{-8}$ to $2^{-7}$ of themselves apart, and rounding errs by up to half of that.

# %% tags=["hide-input"]
some = torch.tensor([1, 1.003, 1.005, math.pi, 1234.5, 1e-30])
as_text = [[f"{v:.7g}" for v in x.tolist()] for x in (some, some.bfloat16())]
table = pd.DataFrame(as_text, ["float32", "bfloat16"]).T
figures.shown(table).hide(axis="index")

# %% [markdown]
# Processors that know the format multiply such numbers several times faster, and half as many bytes have to move. What
# that is worth on your machine `benchmarks/networks.py` measures.
#
# **Autocast** is torch's way to use it. The parameters stay float32. Each convolution and each linear map of the body
# rounds its weights and its input to bfloat16, multiplies, sums the products in float32, and rounds the result. Batch
# norm's statistics, the optimizer and its averages stay float32. Gradients come back in float32, too, though computed
# from rounded numbers. In this book the last layer and the loss are outside of it:

# %%
torch.manual_seed(0)
net = models.build("resnet9", width=1 / 8)
images = torch.randn(16, 1, 32, 32)
with torch.autocast("cpu", torch.bfloat16):
    H = net.body(images)
logits = net.fc(H.float())  # W and b as they are
nn.functional.cross_entropy(logits, torch.arange(16) % 10).backward()
W, first = net.fc.weight, net.body[0].weight
assert H.dtype == torch.bfloat16
for x in (first, first.grad, W, W.grad, logits):
    assert x.dtype == torch.float32
assert W.grad.sum(0).norm() < 1e-6 * W.grad.norm()  # the law's symmetry

# %% [markdown]
# ## Why the last layer stays in float32
#
# **The law needs no more than that.** With softmax outputs $S$ and one-hot labels $Y$ the gradient of $W$ is
# $G = \frac1N(S-Y)^\top H$. The rows of $S - Y$ sum to zero, whatever $H$ is. So features rounded to bfloat16 leave
# $\mathbf 1^\top G = 0$, up to the rounding of float32, as long as $S$ and the product are computed in float32. The
# last assertion above is that. In five runs of the ResNet9 with SGD in bfloat16 NC0 ends where the law has it, to a
# relative $10^{-6}$ ({doc}`networks` has the law).
#
# **Weight decay would be lost.** This reason and the next are about a $W$ that is itself *stored* in bfloat16, which
# autocast does not do. Decoupled decay multiplies $W$ by $1-\eta\lambda$. If $\eta\lambda$ is less than
# $2^{-9} = 0.002$, then $(1-\eta\lambda)W$ rounds back to $W$ in bfloat16: the decay does nothing, in any number of
# steps. Here are a thousand steps of it alone, with the largest learning rate of the paper's grid for SGDW:

# %%
ETA, STEPS = 0.0679, 1000


def kept(dtype, decay):
    """Share of ‖W‖ that is left after STEPS steps in one precision."""
    torch.manual_seed(0)
    start = torch.randn(10, 64).to(dtype)
    weight = start.clone()
    for _ in range(STEPS):
        weight *= 1 - ETA * decay
    return (weight.float().norm() / start.float().norm()).item()


decays = [5e-4, 5e-3, 0.05, 0.5]
table = pd.DataFrame({"ηλ": [ETA * d for d in decays]}, decays)
table["exact"] = (1 - table["ηλ"]) ** STEPS
for name in PRECISIONS:
    table[name] = [kept(getattr(torch, name), d) for d in decays]
assert (table["bfloat16"].iloc[:2] == 1).all()
figures.shown(table.rename_axis("λ"))

# %% [markdown]
# **NC0 would drown.** Storing $W$ in bfloat16 changes each entry by up to $2^{-8}$ of itself, and the row sum with
# it. A $W$ whose rows sum to zero has an NC0 of 0.17 % of $\lVert W\rVert$ once it is rounded (exercise 2), and
# nothing smaller could be seen. For the same reason all metrics are taken from one more forward pass in float32, with
# the trained weights as they are. What bfloat16 can change is the training: where the weights end up.
#
# ## Does it change the result?
#
# The same settings and seeds in both precisions, one pair for each seed: same start, same images, same minibatches.
# Let $d_i$ be the difference of a metric, bfloat16 less float32, at seed $i$, $\bar d$ its mean over the seeds, and
# $s$ the standard deviation of the float32 runs over the seeds. Our rule, fixed before the runs were made: the
# precision makes no difference *that matters* if
#
# $$ |\bar d| \le s , $$ (net-rule)
#
# that is, if it moves the mean by less than another seed would move a run. With five seeds this is a coarse rule, and
# no proof of equality. Whether there is any difference at all is
# another question. For that there is the 95 % confidence interval of $\bar d$, by Student's t.

# %%
COMPARED = (*figures.MAIN, "test_acc")


def compared(runs, metric):
    """Mean and s in float32, mean difference, half its interval, and memory."""
    sides = pairs(runs, metric)
    d = (sides["bfloat16"] - sides["float32"]).groupby("optimizer")
    n, single = d.size(), sides["float32"].groupby("optimizer")
    half = student.ppf(0.975, n - 1) * d.std() / np.sqrt(n)
    named = dict(n=n, mean=single.mean(), s=single.std(), d=d.mean(), half=half)
    named["memory"] = d.std() / (math.sqrt(2) * single.std())
    return pd.DataFrame(named).assign(metric=metric).reset_index()


def all_compared(runs):
    """A row for each metric and optimizer with pairs; see (net-rule)."""
    table = pd.concat([compared(runs, metric) for metric in COMPARED])
    return table[table["n"] > 1]


# %% tags=["hide-input"]
def cell(row):
    """One metric under one optimizer, in three lines."""
    lines = (
        f"{row.mean:.3g} ± {row.s:.1g}",
        f"{row.d:+.1g} ± {row.half:.1g}",
        f"{row.d / row.s:+.2f} s",
    )
    return "\n".join(lines).replace("-", "−")


def as_table(rows, values):
    """Metrics as rows, optimizers as columns."""
    table = rows.assign(cell=values).pivot(
        index="metric", columns="optimizer", values="cell"
    )
    table = table.reindex(index=COMPARED, columns=list(SETTINGS)).fillna("–")
    names = figures.METRICS | figures.ACCURACIES
    table = table.rename(index=names, columns=figures.LABELS)
    return figures.shown(table.rename_axis("").rename_axis(None, axis=1))


def show_compared(rows):
    """The table of the comparison."""
    return as_table(rows, [cell(row) for row in rows.itertuples()])


figures.show_if_any(all_compared(resnet), "", show_compared)

# %% [markdown]
# *ResNet9. In each cell, from above: mean and $s$ of the float32 runs; $\bar d$ and half its interval; $\bar d$ in
# units of $s$, by which {eq}`net-rule` holds if it lies between −1 and 1.*
#
# The rule holds in all 15 cells, with at most 0.6 $s$, and all 15 intervals contain zero. (When these 30 runs were
# first trained, on another processor, AdamW's test accuracy was off by 2.5 $s$, and its interval missed zero. Trained
# again it is off by 0.3 $s$: one such cell of 15 says nothing, and neither does its absence.)
#
# The small network, too: the digits MLP at the same learning rates and decays, for 200 epochs.

# %% tags=["hide-input"]
figures.show_if_any(all_compared(digits), "", show_compared)

# %% [markdown]
# Here the rule holds in 14 of 15 cells, and the exception is AdamW's test accuracy, by −1.8 $s$: it is 99.14 %
# in place of 99.40 %, one image of 397. Its interval misses zero, and so do those of SGD's NC1 and NC2, which are off
# by less than half of $s$. Of 15 intervals of 95 %
# about one misses zero by chance, not three. (Of the 30 of both networks: exercise 3.)
#
# **How much does a pair remember?** Two runs of one pair begin equal. If they stayed close, $d_i$ would be much
# smaller than the difference of two seeds, whose standard deviation is $\sqrt2\,s$. For NC0 under SGD the law forbids
# them to part. For all else training may amplify the first rounding. The standard deviation of $d_i$ over
# $\sqrt2\,s$, on the ResNet9:


# %% tags=["hide-input"]
def show_memory(rows):
    """Standard deviation of d over √2 s."""
    return as_table(rows, [f"{x:.2g}" for x in rows["memory"]])


figures.show_if_any(all_compared(resnet), "", show_memory)

# %% [markdown]
# *Near zero where a pair stays together, about one where it is no closer than two seeds.*
#
# ## What was shown, and where it holds
#
# | statement | status | where it holds, and where not |
# |---|---|---|
# | bfloat16 in the hidden layers moves no mean of NC0 to NC3 by more than $s$ | measured, 24 means of five pairs | ResNet9 of width 1/8 and digits MLP, one setting of each optimizer, on CPUs. Where a pair is no closer than two seeds, the interval of $\bar d$ is about ±1.8 $s$: a true difference of $s$ is not excluded |
# | the law holds with rounded features | proved; measured in five runs | last layer and loss in float32 |
# | a decoupled decay with $\eta\lambda < 2^{-9}$ does nothing to bfloat16 weights | proved | applied and rounded before the step is added; not for coupled decay, which is part of the gradient; rounding to nearest. Stochastic rounding, or a float32 copy of the weights, is a way out |
#
# float32 remains the default of every sweep; `-p precision bfloat16` asks for the other. Muon's products in bfloat16 are
# another matter: {doc}`leaks`.
#
# ## Exercises
#
# **1.** From which $\lambda$ on does SGDW's decay act on every entry of bfloat16 weights, at $\eta = 0.0679$? And up
# to which on none?

# %% tags=["hide-input"]
# Half the distance of neighbours is 2⁻⁹ to 2⁻⁸ of an entry.
none, every = 2**-9 / ETA, 2**-8 / ETA
assert kept(torch.bfloat16, 0.98 * none) == 1
assert kept(torch.bfloat16, 1.02 * none) < 1
weight = torch.randn(10_000).bfloat16()
assert (weight * (1 - 1.02 * ETA * every) != weight).all()
print(f"on none up to λ = {none:.3f}, on all from {every:.3f}")

# %% [markdown]
# **2.** Round a $W$ whose rows sum to zero to bfloat16. Which $\mathrm{NC0}/\lVert W\rVert$ do you expect?

# %% tags=["hide-input"]
# The size of the rounding over that of W, whatever K and p: the errors have
# no common sign, so the squares of their row sums add up as their own do.
torch.manual_seed(0)
zero_sum = torch.randn(10, 4096)
zero_sum -= zero_sum.mean(0)
rounded = zero_sum.bfloat16().float()
expected = (rounded - zero_sum).norm() / zero_sum.norm()
left = rounded.sum(0).norm() / rounded.norm()
assert abs(left / expected - 1) < 0.05
assert abs(left - 0.0017) < 5e-5
print(f"NC0/‖W‖ = {left:.2%}")

# %% [markdown]
# **3.** Three of the 30 intervals miss zero. How likely are three or more such misses if precision makes no
# difference at all?

# %% tags=["hide-input"]
fewer = [math.comb(30, n) * 0.05**n * 0.95 ** (30 - n) for n in range(3)]
chance = 1 - sum(fewer)
assert 0.18 < chance < 0.2
print(f"{chance:.0%}, were the intervals independent")
