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
# # Between Adam and AdamW
#
# **Question.** Adam and AdamW differ in one line: where the weight decay goes in. What happens on the way
# from one to the other, if the total decay is held fixed and moved from one place to the other?
#
# **Answer.** NC0 and NC3 fall as decay becomes coupled (Signum's NC3 up to a coupled decay of about 0.005), and test
# accuracy hardly changes. What decides is the *amount* of coupled decay, not its share. Take runs of Adam or Signum
# on the digits MLP with all decay coupled, and add nine times as much. If what is added is decoupled, NC0 keeps 76 %
# to 97 % of its value; if it is coupled, 7 % to 32 %. SGD's keeps 69 % to 96 % and 2 % to 70 %, so NC0 is weak evidence
# ({ref}`interpolation-worth`); Adam's NC3 is better: it is multiplied by 0.97 and 1.00 if the addition is decoupled, by
# 0.30 and 0.12 if it is coupled. (Medians of five seeds. Totals
# go up to 0.05: in so short a training decoupled decay of that size takes no more than 18 % off a weight by itself. Larger
# ones, as AdamW's grid has, were not mixed.)

# %%
from itertools import pairwise

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt

from ncbook import data, figures, store, sweep, theory, train

figures.start_chapter()

SETTING = dict(dataset="digits", model="mlp", epochs=200)
TOTALS = [5e-4, 5e-3, 0.05]
MIXED = ["adam_mixed", "signum_mixed", "sgd_mixed"]


def runs_of(name):
    """One optimizer's walks, with the coupled and the decoupled part."""
    grid = sweep.MIXED_GRIDS[name]
    (lr,), (beta,) = grid.lrs, grid.momenta
    runs = store.load_runs(optimizer=name, weight_decay=TOTALS)
    runs = figures.of_setting(runs, **SETTING, lr=lr, momentum=beta)
    total, share = runs["weight_decay"], runs["coupled_share"].astype(float)
    return runs.assign(
        optimizer=name.removesuffix("_mixed"),
        total_decay=total,
        coupled_decay=share * total,
        decoupled_decay=(1 - share) * total,
    )


stored = pd.concat(map(runs_of, MIXED))
good = figures.converged(stored)

# %% tags=["hide-input"]
LINE = """for optimizer in adam_mixed signum_mixed sgd_mixed; do
    papermill notebooks/sweep.ipynb out.ipynb -p optimizer $optimizer \\
        -p weight_decays "[5e-4, 5e-3, 0.05]" -p seeds "[0, 1, 2, 3, 4]"
done"""


def draw_amount(name):
    """NC0 and NC3 against what the decay is worth, one line a total."""

    def draw(runs):
        rows = runs[runs["optimizer"] == name]
        x = "effective_decay" if name == "sgd" else "coupled_decay"
        title = f"{figures.LABELS[name]} (n = {len(rows)})"
        return figures.against(rows, x, ("nc0", "nc3"), "total_decay", title)

    return draw


def show_amount(*names):
    """``draw_amount`` for optimizers that are stored."""
    figures.with_lines(
        figures.having(good, *names), LINE, *map(draw_amount, names)
    )


show_amount("adam", "signum")

# %% [markdown]
# *Adam's and Signum's NC0 and NC3 at the end against the coupled part of the decay, for three totals. At the same
# coupled part the decoupled parts differ by far, and yet the three lines are nearly one. The points above 0 have
# no coupled decay. Medians over five seeds, bands from the least to the largest.*
#
# **What you will learn**
#
# - what one unit of decoupled decay is worth in units of coupled decay: a fixed amount under SGD, and, by an
#   argument from sizes, one that shrinks with the gradients under Adam and Signum; and what the runs say of it;
# - what decoupled decay would do to a weight by itself;
# - what the paper's Figure 7 varies, and when its walk is smooth.
#
# ## One decay, two places
#
# Let $d(\cdot)$ be what the optimizer makes of a gradient: the momentum sum for SGD, the normalised average for
# Adam, the sign of an average for Signum. A total decay $\Lambda$ is divided by a share $\theta$ into a coupled part
# $\lambda_c = \theta\Lambda$ and a decoupled part $\lambda_d = (1-\theta)\Lambda$:
#
# $$ g \leftarrow \nabla_W\mathcal L + \lambda_c W, \qquad
# W \leftarrow (1 - \eta\lambda_d)\,W - \eta\,d(g). $$ (mix-update)
#
# At $\theta = 1$ this is Adam {cite}`kingma2014`, at $\theta = 0$ AdamW {cite}`loshchilov2019`, step by step
# (`test_interpolation_ends_at_adam_and_adamw`). The paper {cite}`optimizer2026` walks this way in its Section 3.4
# with a ResNet9 on MNIST, $\Lambda = 0.0005$ and momentum 0.9 (Figure 7). It reports “a smooth improvement in NC
# metrics—particularly NC0, NC2, and NC3—while the validation accuracy remains largely unaffected”.
#
# **Ours is not a ResNet9 on MNIST**, but the digits MLP: 11 steps an epoch in place of 469, so that the same total
# has some forty times less to act. We add two totals, ten and a hundred times as large; and Signum and SGD.
#
# ## What decoupled decay is worth
#
# Write both decays as one. Divide the step by what multiplies the coupled term, and ask which coupled decay would
# shrink a weight as fast as the two together:
#
# $$ \lambda_{\mathrm{eff}} = \lambda_c + \kappa\,\lambda_d . $$ (mix-worth)
#
# **SGD.** A gradient $g$ moves the weight by $\eta g/(1-\beta)$ in all. Coupled decay is part of $g$ and gains that
# factor, decoupled decay does not. So $\kappa = 1 - \beta$: a tenth, at momentum 0.9.
#
# **Adam.** The momentum average has weight one in all, but $g$ is divided by $\sqrt s$, the root mean square of the
# recent gradients of that one weight. Hence $\kappa = \sqrt s$, weight by weight. **Signum.**
# $\operatorname{sign}(m) = m/|m|$ and $\kappa = |m|$.
#
# Here lies the difference. As the training set is learned, gradients become small, and $\kappa$ with them: a unit of
# decoupled decay is worth less and less coupled decay. This is a scale argument for Adam and Signum, no theorem: $s$
# contains the coupled term, too, and need not shrink where $\lambda_c$ is large. It predicts what the first picture
# shows: under Adam and Signum the end depends on $\lambda_c$, and less on what is in the other place. By how much less,
# {ref}`interpolation-worth` measures. Under SGD it depends on $\lambda_c + (1-\beta)\lambda_d$:

# %%
worth = 1 - good["momentum"]  # (mix-worth), for SGD
good["effective_decay"] = (
    good["coupled_decay"] + worth * good["decoupled_decay"]
)
show_amount("sgd")

# %% [markdown]
# *SGD: against the effective decay, with which fully decoupled runs have a place on the curve, too.*
#
# ### How much can decoupled decay do by itself?
#
# One part needs no gradient. By {eq}`mix-update` whatever is in a weight is multiplied, over the training,
# by
#
# $$ \prod_t (1 - \eta_t\lambda_d) \;\approx\; e^{-\lambda_d\sum_t\eta_t} , $$ (mix-kept)
#
# and what comes in later by fewer of these factors. For AdamW at learning rate 0.005, here and with MNIST's number of
# steps:


# %%
def kept(lr, decay, steps, epochs=200):
    """Equation (mix-kept) with the step schedule of the paper."""
    rates = [
        lr * train.learning_rate_factors("step", epoch, steps, epochs)
        for epoch in range(epochs)
    ]
    return float(np.prod(1 - np.concatenate(rates) * decay))


HERE, PAPER = -(-len(data.load("digits").train_y) // 128), 469
table = pd.DataFrame(index=pd.Index(TOTALS, name="total decay Λ"))
for steps in (HERE, PAPER):
    shares = [kept(0.005, decay, steps) for decay in TOTALS]
    table[f"{steps} steps an epoch"] = shares
figures.shown(table, **dict.fromkeys(table, "{:.1%}"))

# %% [markdown]
# So here 200 epochs are short for decoupled decay: at the two smaller totals AdamW is nearly Adam without decay, and
# whatever leaks into the flat direction has not come to a balance with it ({doc}`leaks`).
#
# With the learning rates of the paper's grid, 0.001, 0.005 and 0.01, AdamW at the paper's total keeps 98 %, 92 % and
# 84 % of a weight over its whole training. If its walk used one of them, it started close to Adam with no decay at
# all and ended at Adam with 0.0005: a fair test of coupled decay, which says little about decoupled decay.
#
# ## The control: SGD
#
# Under SGD the row sum $u = W^\top\mathbf 1$ never sees the data ({doc}`theorem_sgd`). With both decays it obeys
#
# $$ v \leftarrow \beta v + \lambda_c u, \qquad
# u \leftarrow (1-\eta\lambda_d)\,u - \eta v , $$ (mix-law)
#
# and NC0 at the end over NC0 at the start is a known number, close to
# $\exp\bigl(-\frac{\lambda_{\mathrm{eff}}}{1-\beta}\sum_t\eta_t\bigr)$: on a log axis a straight line in $\theta$.


# %%
def law(runs):
    """NC0 at the end over the start by equation (mix-law)."""
    columns = ("lr", "momentum", "weight_decay", "coupled_share")
    *numbers, share = (runs[c].to_numpy(float) for c in columns)
    return theory.row_sum_ratio(*numbers, HERE, 200, 1 - share)


sgd = stored[(stored["optimizer"] == "sgd") & (stored["status"] == "ok")]


# %% tags=["hide-input"]
SHADES = dict(zip(TOTALS, ("#56B4E9", "#0072B2", "#003A66"), strict=True))


def draw_law(runs):
    """NC0 left by SGD against the share: measured, and by the law."""
    figure, axis = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
    runs = runs.assign(left=runs["nc0"] / runs["nc0_init"], law=law(runs))
    for decay, rows in runs.groupby("weight_decay"):
        line = rows.groupby("coupled_share")["law"].first()
        axis.plot(line.index, line, color=SHADES[decay], lw=1.2)
        look = dict(s=22, facecolor="none", edgecolor=SHADES[decay])
        share, label = rows["coupled_share"], f"{decay:g}"
        axis.scatter(share, rows["left"], **look, label=label)
    axis.set(yscale="log", xlabel=figures.X_LABELS["coupled_share"])
    axis.set_ylabel("NC0 at the end, over the start")
    axis.set_title(f"SGD: {len(runs)} runs (circles), exact law (lines)")
    figure.set_label(
        "SGD: circles of NC0 against the share lie on the law's lines"
    )
    figure.legend(title="total decay Λ", loc="outside right center")
    plt.close(figure)
    return figure


figures.show_if_any(sgd, LINE, draw_law)

# %% [markdown]
# *Every circle is a run; the lines are no fit.* The largest relative deviation among the 165 runs is 3e-04.
#
# (paper-figure-7)=
# ## Figure 7, again
#
# The walk itself, for the paper's total and for ten times as much.

# %% tags=["hide-input"]
PANELS = ("nc0", "nc2", "nc3", "test_acc")


def draw_walk(decay, network="Digits MLP"):
    """Figure 7 for one total."""

    def draw(runs):
        rows = runs[runs["total_decay"] == decay]
        title = f"{network}, total decay {decay:g} (n = {len(rows)})"
        return figures.against(rows, "coupled_share", PANELS, title=title)

    return draw


figures.with_lines(good, LINE, *map(draw_walk, TOTALS[:2]))

# %% [markdown]
# *Left is all decoupled, right all coupled.*
#
# At the paper's total NC3 is as gradual under Adam as the paper says, NC0 nearly, NC2 not: no tenth of it makes more
# than 26 % of the change of log NC0 and 18 % of that of log NC3, and NC0 falls by a factor of 1.5. NC3 falls in every
# tenth; NC0 rises in 3 of the 10, in one by 13 % of the change. NC2 goes up and down on the way, between 0.15 and
# 0.23. Signum's walk is a jump: 66 % of the change is in the first tenth, from no coupled decay to some, and NC0
# falls by a factor of 389. Whether a walk is smooth can depend on its total, and {eq}`mix-worth` says why: if
# $\lambda_c$ alone decides, all walks run along one curve, and a larger total only means longer strides. At
# $\Lambda = 0.05$ Adam's first tenth makes 57 % of the change, too.
#
# The paper's own figure is of ResNet9 and MNIST. The same walk of Adam there, with an eighth of the width, 2,000 images
# and 50 epochs (800 steps, where the paper has 93,800), at a hundred times the paper's total:

# %% tags=["hide-input"]
IMAGES = dict(dataset="mnist", model="resnet9", epochs=50, lr=0.005)
IMAGES |= dict(width=1 / 8, train_size=2000, momentum=0.9)
IMAGES_LINE = """papermill notebooks/sweep.ipynb out.ipynb -p optimizer adam_mixed \\
    -p dataset mnist -p model resnet9 -p width 1/8 -p train_size 2000 \\
    -p epochs 50 -p lrs 0.005 -p momenta 0.9 -p weight_decays "[5e-4, 0.05]\""""
walked = figures.of_setting(store.load_runs(optimizer="adam_mixed"), **IMAGES)
total = walked["weight_decay"]
walked = figures.converged(walked.assign(optimizer="adam", total_decay=total))
figures.with_lines(walked, IMAGES_LINE, draw_walk(0.05, "ResNet9, MNIST"))

# %% [markdown]
# At the paper's total so few steps do next to nothing: NC0 falls by 1.3 %, NC3 by 2.1 %. A hundred times as much
# makes $\Lambda$ times the number of steps 40, where the paper has 47. And NC0 and NC3 are as gradual as the paper
# says: NC0 falls by a factor of 2.9 and NC3 by 1.8, and no tenth of the walk makes more than 12 % and 18 % of the
# change of their logarithms. NC2 falls, too, but with 67 % in the first tenth, and rises in the last. One seed.
#
# Test accuracy: on the ResNet9 it goes from 98.4 % to 98.8 %. On the digits take, for each seed, all coupled minus all
# decoupled. The medians of this difference lie between −0.25 and +0.76 points in the nine walks, and one of the 397
# test images is 0.25 points.
#
# ## The amount, not the share
#
# The first picture in numbers. Take the runs with all of a total $\Lambda$ coupled, and add $9\Lambda$, once coupled,
# once decoupled; both are among the runs with ten times the total, at $\theta = 1$ and at $\theta = 0.1$.


# %%
def added(runs):
    """What 9Λ more decay in each place multiplies NC0 and NC3 by."""
    key = ["optimizer", "seed", "total_decay"]
    first = runs[runs["coupled_share"] == 1]
    second = runs[runs["coupled_share"].isin([0.1, 1.0])]
    fewer = (second["total_decay"] / 10).round(9)
    second = second.assign(total_decay=fewer)
    pairs = first.merge(second, on=key, suffixes=("_old", ""))
    places = {0.1: "decoupled", 1.0: "coupled"}
    ratios = {m: pairs[m] / pairs[m + "_old"] for m in ("nc0", "nc3")}
    return pairs[key].assign(more=pairs["coupled_share"].map(places), **ratios)


# %% tags=["hide-input"]
def show_added(runs):
    """Each ratio's median and range, and what (mix-kept) keeps."""
    by, ratios = ["optimizer", "total_decay"], added(runs)
    table = {
        f"{figures.METRICS[m]}, {more}": rows.groupby(by)[m].agg(
            figures.with_range
        )
        for m in ("nc0", "nc3")
        for more, rows in ratios.groupby("more")
    }
    table = pd.DataFrame(table).fillna("–")
    rates = {
        name: sweep.MIXED_GRIDS[f"{name}_mixed"].lrs[0]
        for name, _ in table.index
    }
    table["kept"] = [
        kept(rates[name], 9 * decay, HERE) for name, decay in table.index
    ]
    names = [
        f"{figures.LABELS[o]},\N{NO-BREAK SPACE}{d:g}" for o, d in table.index
    ]
    index = pd.Index(names, name="optimizer,\N{NO-BREAK SPACE}Λ")
    return figures.shown(table.set_axis(index), kept="{:.2f}")


figures.show_if_any(good if len(added(good)) else good[:0], LINE, show_added)

# %% [markdown]
# *What NC0 and NC3 are multiplied by: the median over the seeds, and below it the least and the largest. The last column
# is what {eq}`mix-kept` leaves of any weight.*
#
# Under Adam and Signum $9\Lambda$ of coupled decay leaves 7 % to 32 % of NC0, and $9\Lambda$ of decoupled decay 76 %
# to 97 % (medians). At $\Lambda = 0.005$ the decoupled part takes 1.4 (Adam) and 1.3 times (Signum) what
# {eq}`mix-kept` takes from any weight, in each seed more; at 0.0005 the seeds differ by more than the effect. We did
# not test why.
#
# (interpolation-worth)=
# ### The worth, measured
#
# SGD is in the table, too, and is a warning: there $\kappa$ is a tenth, and still $9\Lambda$ of decoupled decay
# leaves 96 % and 69 % of NC0, no more than under Adam, whose learning rate is half as large. So compare with what
# coupled decay does at the same place. Along a walk of total $10\Lambda$, from $\theta = 0.1$ to 0.2, $\lambda_c$
# grows by $\Lambda$ while $\lambda_d$ falls by as much; so $\log\text{NC0}$ changes by $1-\kappa$ times what
# $\Lambda$ of coupled decay does, and $9\Lambda$ of decoupled decay by $9\kappa$ times that. Two differences, and, if
# $\log\text{NC0}$ has one slope on both sides of $\Lambda$, $\kappa$ is known:


# %%
def measured_worth(runs):
    """κ of (mix-worth) for each seed, from NC0 of three of its runs."""
    index, columns = ["optimizer", "seed"], ["total_decay", "coupled_share"]
    table = np.log(runs.pivot_table("nc0", index, columns))
    needed = pd.MultiIndex.from_product([TOTALS, [0.1, 0.2, 1.0]])
    table, found = table.reindex(columns=needed), {}
    for few, many in pairwise(TOTALS):
        decoupled = (table[many, 0.1] - table[few, 1.0]) / 9
        k = decoupled / (table[many, 0.2] - table[many, 0.1])
        found[f"Λ = {few:g}"] = k / (1 + k)
    return pd.DataFrame(found).dropna()


# %% tags=["hide-input"]
def show_worth(runs):
    """κ: the median over the seeds, the least and the largest."""
    groups = measured_worth(runs).groupby("optimizer", sort=False)
    table = groups.agg(figures.with_range, digits=".3f")
    return figures.shown(table.rename(figures.LABELS).rename_axis(None))


measured = len(good) and len(measured_worth(good))
figures.show_if_any(good if measured else good[:0], "", show_worth)

# %% [markdown]
# At the smaller total $\kappa$ is 0.007 under Adam (0.000 to 0.016 by seed), far below SGD's tenth, as the argument
# from sizes says it should be; under Signum (−0.07 to 0.13) five seeds decide nothing. At the larger one it is 0.10
# and 0.04, and Adam's is SGD's: that $\kappa$ goes to zero is not seen. A reason may be that $s$ contains the coupled
# term, which is ten times as large there. NC3 does not follow NC0 in this: there Adam's is multiplied by 1.00 if
# $9\Lambda$ is decoupled, and by 0.12 if it is coupled. And coupled decay, too, comes to an end: from
# $\Lambda = 0.005$ to 0.05 Signum's NC3 rises by a factor of 1.3.
#
# ## Where it holds, and where not
#
# | statement | status | where it holds, and where not |
# |---|---|---|
# | under SGD decoupled decay is worth $(1-\beta)$ of coupled decay | proved for NC0 to leading order; exact by the law, in 165 runs | any network and data |
# | under Adam and Signum the amount of coupled decay decides | measured, 5 seeds, 3 totals | NC3, and NC0 at the smaller totals; at the largest a unit of decoupled decay is worth as much for NC0 under Adam as under SGD (κ = 0.10), and under Signum less (0.04). Digits MLP, one learning rate and momentum each, totals up to 0.05: too little for decoupled decay to do much in 2,200 steps |
# | $\kappa = \sqrt s$, $\kappa = \lvert m\rvert$ | argued, from sizes | not proved: $s$ contains the coupled term. Measured from NC0, it is near zero under Adam at Λ = 0.0005; not at 0.005 |
# | the walk is smooth | measured | digits: NC0 under Adam at the two smaller totals, with small steps back, NC3 at the smallest; not NC2, and not Signum's. ResNet9 on MNIST (one seed): NC0 and NC3 |
# | accuracy hardly changes | measured, by up to three images in the median | 397 test images |
#
# ## Exercises
#
# **1.** Write {eq}`mix-update` for SGD without momentum. Which $\theta$ gives the largest decay?

# %% tags=["hide-input"]
W, g, eta, total = 2.0, 0.3, 0.1, 0.5
ends = [
    (1 - eta * (1 - s) * total) * W - eta * (g + s * total * W)
    for s in (0.0, 0.5, 1.0)
]
assert np.allclose(ends, ends[0])
print("none: the two places are the same")

# %% [markdown]
# **2.** AdamW with $\eta = 0.005$ is to keep at most 1 % of what is in a weight, over 200 epochs of 469 steps. Which
# $\lambda$ does it need?

# %% tags=["hide-input"]
total = 0.005 * 469 * sum(
    train.learning_rate_factors("step", epoch, 1, 200).sum().item()
    for epoch in range(200)
)  # fmt: skip
decay = -np.log(0.01) / total
assert kept(0.005, decay, 469) < 0.0101
print(f"Σ η = {total:.1f}, so λ = {decay:.3f}")

# %% [markdown]
# **3.** Under SGD with momentum 0.9, which fully decoupled total leaves as much of NC0 as $\Lambda = 0.005$ with
# $\theta = 0.5$?

# %% tags=["hide-input"]
effective = 0.5 * 0.005 + 0.1 * 0.5 * 0.005
total = effective / 0.1
one, other = (
    float(theory.row_sum_ratio(0.01, 0.9, decay, HERE, 200, decoupled))
    for decay, decoupled in ((0.005, 0.5), (total, 1.0))
)
assert abs(one / other - 1) < 0.02
print(f"Λ = {total:g}: {one:.3f} and {other:.3f} of NC0 are left")
