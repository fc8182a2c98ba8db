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
# # Momentum
#
# **Question.** The paper {cite}`optimizer2026` finds that momentum accelerates neural collapse under SGD.
# Is that a property of momentum, and does it hold for the other optimizers?
#
# **Answer.** Under SGD momentum $\beta$ is, at small steps, a learning rate $\eta/(1-\beta)$ in disguise: on the
# digits MLP runs of different momenta, but with the same $\eta/(1-\beta)$, 0.01 or 0.02, end with the same NC3 to 3.1 %
# (NC1 to 10 %). It takes NC0 down by a known factor, up to a critical momentum. Under SGDW it has no effect on NC0 at
# all. Under Adam and AdamW it has no one direction: over learning rates and decays the medians of NC0 and NC3 hardly
# move, single settings do. At $\beta = 0.9$ it takes Signum's NC0 to a fifth in the median, and SGD's to 0.74 of it.

# %%
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt

from ncbook import figures, sweep, theory
from ncbook.pages import six_grids

figures.start_chapter()

FOUR = list(figures.MAIN)
KEY = ["optimizer", "lr", "weight_decay", "seed"]
stored = six_grids.stored()
grids = six_grids.complete(stored)
good = figures.converged(grids)
sgd = good[good["optimizer"] == "sgd"]


# %%
def over_none(runs):
    """Each metric over that of the same run without momentum."""
    decayed = runs[runs["weight_decay"] > 0]
    none = decayed[decayed["momentum"] == 0].set_index(KEY)[FOUR]
    rows = decayed[decayed["momentum"] > 0].set_index([*KEY, "momentum"])[FOUR]
    partners = none.reindex(rows.droplevel("momentum").index).to_numpy()
    return (rows / partners).dropna()


# %% tags=["hide-input"]
MOMENTA = sweep.GRIDS["sgd"].momenta


def place(momentum):
    """Where a momentum stands on the axis: log10 of 1/(1 − β)."""
    return -np.log10(1 - np.asarray(momentum))


def draw_ratio(axis, ratios, metric):
    """One metric, a line for each optimizer; at β = 0 the ratio is one."""
    for name in [o for o in figures.LABELS if o in ratios.index.levels[0]]:
        groups = ratios.loc[name][metric].groupby("momentum")
        low, middle, high = (
            [1, *groups.quantile(q)] for q in (0.25, 0.5, 0.75)
        )
        x, look = [0, *place(list(groups.groups))], figures.look(name)
        axis.plot(x, middle, marker="o", ms=4, **look)
        axis.fill_between(x, low, high, color=look["color"], alpha=0.1, lw=0)
    axis.set_xticks(place(MOMENTA), [f"{b:g}" for b in MOMENTA], rotation=45)
    axis.axhline(1, color="#555555", lw=0.8, ls=":")
    axis.set_xlabel("momentum β")
    axis.set_ylabel(f"{figures.METRICS[metric]}, with over without")
    figures.log_values(axis)


def draw_ratios(runs):
    """NC0 and NC3 over those without momentum."""
    ratios = over_none(runs)
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
    for axis, metric in zip(axes, ("nc0", "nc3"), strict=True):
        draw_ratio(axis, ratios, metric)
    handles = axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside right center")
    figure.suptitle(f"Digits MLP, n = {len(ratios):,} pairs")
    figure.set_label("NC0 and NC3 with momentum over without, by optimizer")
    plt.close(figure)
    return figure


paired = good if len(over_none(good)) else good[:0]
figures.with_lines(paired, six_grids.LINE, draw_ratios)

# %% [markdown]
# *Each run over the run without momentum that equals it in everything else: optimizer, learning rate, decay
# and seed. Median over all pairs with decay in which both learned (of SGD and SGDW none at η = 0.001), and the
# band between the quartiles. Below the dotted line momentum has helped.*
#
# **What you will learn**
#
# - why momentum is a sum under SGD and an average under Adam and Signum, and what follows for NC0;
# - that the law of NC0 has the factor $1/(1-\beta)$, and where more momentum stops to help;
# - how to tell momentum from a larger learning rate;
# - what is left for the other optimizers.
#
# ## A sum or an average
#
# SGD adds up: $v \leftarrow \beta v + g$. A gradient $g$ moves the weight by $\eta g$ now, by
# $\eta\beta g$ in the next step, then by $\eta\beta^2 g$: in all by
#
# $$ \eta\,(1 + \beta + \beta^2 + \dots)\, g = \frac{\eta}{1-\beta}\, g . $$ (momentum-sum)
#
# Adam and Signum average: $m \leftarrow \beta m + (1-\beta)\, g$. In all a gradient counts once, whatever
# $\beta$ is. For a steady gradient, raising $\beta$ from 0 to 0.98 makes SGD's steps fifty times as large,
# and leaves the size of Adam's as it was. (For pure noise SGD's steps grow fivefold, by $1/\sqrt{1-\beta^2}$.)
#
# Coupled decay is part of $g$ and is multiplied, too; decoupled decay is not. NC0, which under SGD and
# SGDW feels nothing but the decay ({doc}`theorem_sgd`), therefore falls at the rates
#
# $$ \text{SGD: } \frac{\lambda\eta}{1-\beta}, \qquad \text{SGDW: } \lambda\eta
# \qquad\text{a step, to leading order in } \eta\lambda. $$ (momentum-rate)
#
# For SGD more momentum helps until $\beta^* = (1-\sqrt{\eta\lambda})^2$ (`theory.critical_momentum`). Beyond
# it the row sum swings about zero, and the envelope of the swing shrinks at a rate that more momentum
# lowers.
#
# The paper writes that momentum “amplifies the effect of weight decay on the decrease of NC metrics in SGD”.
# Its Theorem 3.1 bounds the square of NC0. The bound decays at the rate $\lambda\eta/\log\beta^{-1}$ a step; by
# {eq}`momentum-rate` the square itself decays at $2\lambda\eta/(1-\beta)$, at least twice as fast
# ({doc}`theorem_sgd`).
#
# ## By how much: the law
#
# NC0 at the end over NC0 at the start, against $1/(1-\beta)$. Circles are runs. Lines are the exact law behind
# {eq}`momentum-rate`, with no fitted constant: under SGD a step multiplies the pair of row sum and momentum by one
# 2 × 2 matrix, whose eigenvalues are the roots of $z^2 - (1+\beta-\eta\lambda)z + \beta$ ({doc}`theorem_sgd`).

# %%
LR, STEPS, EPOCHS = 0.0679, 11, 200
DECAYS = (5e-4, 5e-3, 0.05)


def law(beta, decay, decoupled):
    """What is left of NC0, by the exact law."""
    return theory.row_sum_ratio(LR, beta, decay, STEPS, EPOCHS, decoupled)


# %% tags=["hide-input"]
SHADES = dict(zip(DECAYS, ("#56B4E9", "#0072B2", "#003A66"), strict=True))


def draw_one(axis, rows, name):
    """Runs and lines of SGD or SGDW."""
    fine = 1 - 1 / np.geomspace(1, 50, 200)  # β from 0 to 0.98
    for decay, shade in SHADES.items():
        line = law(fine, decay, float(name == "sgdw"))
        axis.plot(1 / (1 - fine), line, color=shade, lw=1.2, label=f"{decay:g}")
        some = rows[rows["weight_decay"] == decay]
        at, left = 1 / (1 - some["momentum"]), some["nc0"] / some["nc0_init"]
        axis.scatter(at, left, s=24, color=shade, zorder=3)
    ticks = [1 / (1 - beta) for beta in MOMENTA]
    title = f"{figures.LABELS[name]} (n = {len(rows)})"
    axis.set(xscale="log", yscale="log", ylim=(1e-8, 3), title=title)
    axis.set_xticks(ticks, [f"{t:.3g}" for t in ticks])
    axis.minorticks_off()
    axis.set_xlabel("1 / (1 − β)")


def draw_law(runs):
    """SGD and SGDW next to each other."""
    runs = runs[(runs["lr"] == LR) & (runs["status"] == "ok")]
    runs = runs[runs["weight_decay"].isin(DECAYS)]
    look = dict(figsize=(9, 3.6), sharey=True, layout="constrained")
    figure, axes = plt.subplots(1, 2, **look)
    for axis, name in zip(axes, ("sgd", "sgdw"), strict=True):
        draw_one(axis, runs[runs["optimizer"] == name], name)
    axes[0].set_ylabel("NC0 at the end, over its start")
    handles = axes[0].get_legend_handles_labels()
    figure.legend(*handles, title="λ", loc="outside right center")
    figure.set_label(
        "What is left of NC0 against 1/(1 − β): runs on the law's lines"
    )
    plt.close(figure)
    return figure


both = grids[grids["optimizer"].isin(["sgd", "sgdw"])]
figures.with_lines(both, six_grids.line("sgd", "sgdw"), draw_law)

# %% [markdown]
# *Near $10^{-6}$ rounding to float32 ends the fall, and circles leave the line.*
#
# Of all 1,080 runs of SGD and SGDW, at three learning rates, 940 should end with NC0 above 0.01; the largest
# relative deviation from the law among them is 3e-04. Under SGDW the six momenta, all else equal, give the
# same NC0 to 3e-04. (Below 0.01 these runs end in rounding, and differ.)
#
# ## Only a larger step?
#
# If momentum under SGD is a learning rate, then runs with equal $\eta/(1-\beta)$ and different momenta must
# end alike. The grid has two such pairs: $(\eta, \beta) = (0.001, 0.9)$ and $(0.01, 0)$ have 0.01;
# $(0.001, 0.95)$ and $(0.01, 0.5)$ have 0.02.

# %%
TWINS = {
    "0.01": ((0.001, 0.9), (0.01, 0.0)),
    "0.02": ((0.001, 0.95), (0.01, 0.5)),
}


def twins(runs):
    """The ratio of each metric for each pair, weight decay and seed."""
    tables = {}
    for rate, sides in TWINS.items():
        heavy, light = (
            runs[(runs["lr"] == lr) & (runs["momentum"] == beta)]
            .set_index(["weight_decay", "seed"])[FOUR]
            for lr, beta in sides
        )  # fmt: skip
        tables[rate] = (heavy / light).dropna()
    return pd.concat(tables, names=["rate"])


# %% tags=["hide-input"]
def show_twins(runs):
    """The ratios: median, least and largest."""
    groups = twins(runs).groupby("rate")
    table = groups.agg(figures.with_range, digits=".3g")
    table = table.rename(columns=figures.METRICS)
    table.insert(0, "pairs", groups.size())
    return figures.shown(table.rename_axis("η / (1 − β)"))


figures.show_if_any(sgd if len(twins(sgd)) else sgd[:0], "", show_twins)

# %% [markdown]
# *The metric of the first of a pair over that of the second: the median, and below it the least and the
# largest, over decays and seeds.*
#
# In the 50 pairs NC0 differs by 0.5 % at most and NC3 by 3.1 % (NC2 by 6 %, NC1 by 10 %). Momentum alone, from 0 to
# 0.9 at $\eta = 0.01$, multiplies NC3 by 0.83 and NC1 by 0.53 (medians of 25). So up to $\eta/(1-\beta) = 0.02$ a run
# with more momentum ends nearly where one with a learning rate larger by the same factor ends. What is left is not
# noise: NC1 and NC2 are larger with more momentum in all 50 pairs, NC1 by 3 % at 0.01 and by 8 % at 0.02 (medians).
# (The step from 0 to 0.9 leads to 0.1, where the grid has no such pair. The public version of the paper claims an
# effect “beyond convergence of train loss”; these pairs do not test that.)
#
# (paper-figure-4)=
# ## Figure 4: momentum and decay together
#
# The paper's Figure 4 has NC0, NC2 and NC3 over momentum and weight decay, and shows, it says, a decrease “both by
# increasing weight decay for fixed momentum or by increasing momentum for fixed non-zero weight decay”. Of our 215
# steps up in momentum (from one of the grid to the next, all else equal) that stay below $\beta^*$, with decay, all
# 215 lower NC0 and 182 lower NC3. The other 33 are steps to 0.9 or more with $\lambda\le0.0005$, and raise NC3 by up
# to 32 %. (Of the 25 steps that end above $\beta^*$ 15 lower NC0, as the law says, since $\beta^*$ rises whenever
# $\eta$ drops. By the law the other ten, at $\eta = 0.0679$ and $\lambda = 0.05$, would raise it, but both of their
# ends are rounding.) And the effect grows with decay, as the paper says: at $\eta = 0.01$, from $\beta = 0.7$ to 0.9,
# NC0 is multiplied by 0.97 at $\lambda = 0.0005$ and by 0.06 at 0.05 (medians of five seeds).


# %% tags=["hide-input"]
def draw_maps(lr):
    """NC0, NC2 and NC3 under SGD at one learning rate."""

    def draw(runs):
        rows = runs[runs["lr"] == lr]
        n = len(figures.converged(rows))
        title = f"SGD, η = {lr:g} (n = {n} of {len(rows)})"
        figure = figures.heatmaps(rows, title=title)
        figure.set_label(f"{title}: NC0, NC2 and NC3 over momentum and decay")
        return figure

    return draw


of_sgd = both[both["optimizer"] == "sgd"]
rates = sorted(of_sgd["lr"].unique(), reverse=True)
figures.with_lines(of_sgd, six_grids.line("sgd"), *map(draw_maps, rates))

# %% [markdown]
# *Mean over the seeds of the runs that learned; each map has its own colours; grey: no run learned. NC0 in the
# row of λ = 0 is the same number everywhere, since nothing but decay moves it.*
#
# ## The other optimizers
#
# Back to the first picture. At $\beta = 0.9$ the median of NC0 over that without momentum is 0.74 under SGD, 1.00
# under SGDW, 0.96 under Adam and 0.98 under AdamW. Of the last three, only SGDW's NC0 stays where it is, since its
# decay does not pass through the momentum. Under Adam and AdamW, whose momentum is an average, it has no one
# direction: by run NC0 changes by factors of 0.44 to 1.40 and 0.74 to 1.32. At $\eta = 0.01$, $\lambda = 0.0005$
# Adam's falls to 0.48 and its NC3 to 0.62 (medians of five seeds). For Signum NC0's median is 0.20, and for SignumW
# 0.58. The same ratios of NC3: 0.78, 0.91, 0.95 and 0.97; 0.53 under Signum and 0.85 under SignumW. These, too, hide
# opposites: Signum's NC3 is multiplied by 0.43 to 0.77 up to $\lambda = 0.005$, but by 1.72 at 0.05 (0.18, 1.72 and
# 2.20 at the three learning rates) and by 1.17 at 0.5 ($\eta = 0.001$ alone); and SignumW's NC0, by 0.40 at
# $\lambda = 0.0005$, by 0.93 and 1.00 at 5 and 10. Under SGDW the ratio of NC3 is above one again at $\beta = 0.95$
# and 0.98 (1.04 and 1.34): more momentum is not always better.
#
# Why should Signum feel momentum, if its average has weight one? It takes the *sign* of it. Every weight moves by
# $\pm\eta$, with momentum or without; but without it the sign is that of one noisy minibatch. An average over
# minibatches has less noise, and more often the sign that coupled decay asks for. Our runs do not settle whether this
# is the reason. The noise of independent minibatches falls to 58 % in an average at $\beta = 0.5$,
# $\sqrt{(1-\beta)/(1+\beta)}$, and to 23 % at 0.9; but most of the gain is there with the first step up: at
# $\beta = 0.5$ the median is 0.27. And for SignumW, whose decay does not go through the sign, this reason says
# nothing. We leave both open.
#
# ## Where it holds, and where not
#
# | statement | status | where it holds, and where not |
# |---|---|---|
# | NC0 falls at $\lambda\eta/(1-\beta)$ under SGD, at $\lambda\eta$ under SGDW | proved to leading order; exact by the law, in 940 runs | any network, batch and data; cross-entropy; above rounding |
# | well below $\beta^*$ momentum is a learning rate $\eta/(1-\beta)$ (at $\beta^*$ NC0 falls twice as fast) | proved for NC0, to leading order; measured for NC3 (50 pairs, to 3.1 %) | digits MLP, $\eta/(1-\beta)\le0.02$ |
# | more momentum lowers NC0 under SGD, and mostly NC3 | measured, 215 steps up | below $\beta^*$ of the first learning rate; NC3 in 182 of them, not at $\beta\ge0.9$ with little decay |
# | under Adam and AdamW momentum has no one direction | measured at $\beta = 0.9$: medians of NC0 and NC3 within 6 % of one, runs by factors of 0.44 to 1.40 (NC0), while at 0.98 NC0's medians are 1.14 and 1.08 | digits MLP; $\beta_2 = 0.999$ throughout |
# | Signum's NC0 falls with momentum, at every decay; its NC3 in the median up to λ = 0.005, above that by learning rate; SignumW's NC0 falls up to λ = 0.5 | measured (medians) | the same; the reason is open |
#
# ## Exercises
#
# **1.** How much of NC0 does the law of SGD with $\eta = 0.001$, $\lambda = 0.05$ leave after 200 epochs of 469 steps at
# $\beta = 0$ and at $\beta = 0.9$? Estimate both with {eq}`momentum-rate` (the sum of the learning rates is
# 0.37 times that of a constant one), and check with the exact law.

# %% tags=["hide-input"]
total = 1e-3 * 0.37 * 469 * 200
estimates = np.exp(-0.05 * total / (1 - np.array([0.0, 0.9])))
exact = theory.row_sum_ratio(1e-3, np.array([0.0, 0.9]), 0.05, 469, 200)
assert np.allclose(np.log(exact), np.log(estimates), rtol=0.02)
print("estimates:", *(f"{e:.2g}" for e in estimates))
print("the law:", *(f"{e:.2g}" for e in exact))

# %% [markdown]
# **2.** At which momentum does SGD with $\eta = 0.0679$ and $\lambda = 0.05$ take NC0 down fastest, and what is
# the rate a step there? Use that both roots of $z^2 - (1+\beta-\eta\lambda)z + \beta$ have size
# $\sqrt\beta$ beyond $\beta^*$.

# %% tags=["hide-input"]
star = float(theory.critical_momentum(0.0679, 0.05))
roots = np.abs(np.roots([1, -(1 + star - 0.0679 * 0.05), star]))
assert np.allclose(roots, np.sqrt(star), atol=1e-6)
print(f"β* = {star:.3f}, where a step leaves {np.sqrt(star):.3f} of NC0")

# %% [markdown]
# **3.** Show on a sequence of gradients that heavy-ball SGD and SGD without momentum at $\eta/(1-\beta)$ arrive
# at the same weight, if the gradient is constant and one waits long enough after it stops.

# %% tags=["hide-input"]
w = v = 0.0
for step in range(2000):
    v = 0.9 * v + (1.0 if step < 50 else 0.0)
    w -= 0.001 * v
assert np.isclose(w, -0.001 / (1 - 0.9) * 50)
print(f"{w:.4f} both times")

# %% [markdown]
# **4.** Why is there no critical momentum for SGDW?
#
# ```{dropdown} Solution
# The row sum $u$ gets no gradient, so its momentum buffer stays at zero, and $u \leftarrow (1-\eta\lambda)u$
# is a recurrence of first order without $\beta$. Nothing can swing.
# ```
