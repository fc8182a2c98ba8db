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
# # NC0 as a diagnostic
#
# **Question.** NC0 is one sum over the last layer's weights and needs no data. The paper
# {cite}`optimizer2026` offers it as a diagnosis: no collapse unless NC0 goes to zero. What can it tell?
#
# **Answer.** As a length, little: it can stay where it is while features and weights collapse, and under SGD it is
# known before training. As a *share* of $\lVert W\rVert_F$ it gives a certain bound on NC3: of 2,016 converged runs
# of the digits MLP with a gauge share above 0.1 (236 of them copies, without decay) none collapsed, and none can
# have. A small share promises nothing.

# %%
import numpy as np
import pandas as pd
from IPython.display import Markdown, display
from matplotlib import pyplot as plt

from ncbook import figures, metrics, stats, store, sweep, theory
from ncbook.pages import six_grids

figures.start_chapter()

stored = six_grids.stored()
grids = six_grids.complete(stored)
good = figures.converged(grids)
good = good[good["nc0"] > 0].assign(log_nc0=lambda runs: np.log10(runs["nc0"]))
split = good[good["gauge_share"].notna()]  # stored with the norm of W


# %%
def least_nc3(share):
    """The least NC3 that a gauge share allows, equation (share-bound)."""
    return np.sqrt(2 - 2 * np.sqrt(1 - np.square(share)))


# %% tags=["hide-input"]
def draw_shares(runs):
    """NC3 against NC0 and against the gauge share, with the bound."""
    look = dict(figsize=(9, 3.8), sharey=True, layout="constrained")
    figure, axes = plt.subplots(1, 2, **look)
    for axis, x in zip(axes, ("nc0", "gauge_share"), strict=True):
        for name, rows in figures.by_optimizer(runs):
            dots = dict(s=14, color=figures.COLOURS[name], alpha=0.6, lw=0)
            axis.scatter(
                rows[x], rows["nc3"], label=figures.LABELS[name], **dots
            )
        axis.set(xscale="log", yscale="log")
    share = np.geomspace(1e-7, 1, 200)
    axes[1].fill_between(share, 1e-3, least_nc3(share), color="#bbbbbb", lw=0)
    axes[0].set(xlabel="NC0", ylabel="NC3")
    axes[1].set(xlabel="gauge share of W", ylim=(0.005, 2))
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside right center"
    )
    figure.suptitle(f"Digits MLP, n = {len(runs):,} converged runs")
    figure.set_label(
        "NC3 against NC0, and against the gauge share with its bound"
    )
    plt.close(figure)
    return figure


figures.with_lines(split, six_grids.LINE, draw_shares)

# %% [markdown]
# *The same runs twice. Left, NC3 against NC0: a trend, and no more. Right, against the share of ‖W‖ that is
# gauge: no run can be in the grey region, and where the share is large, NC3 is large.*
#
# **What you will learn**
#
# - the exact relation between NC0, the size of $W$ and NC3;
# - why a large NC0 by itself excludes nothing, and a small one promises nothing;
# - how much of NC3 NC0 explains, overall and within one optimizer; how the paper's Table 5 is made;
# - whether NC4 can stand in for it, and what *partial* collapse is.
#
# ## A bound, and what it does not say
#
# In a collapsed network the rows of $W$ form a simplex, and a simplex sums to zero. Write $r =
# \mathrm{NC0}/(\sqrt K\lVert W\rVert_F)$ for the share of $W$ that lies along $\mathbf 1$, its *gauge
# share*, and $W_c$ for $W$ with its rows centred over the classes. The rows of the centred class means $M$
# sum to zero, so $\langle W, M\rangle = \langle W_c, M\rangle$, and
#
# $$ \mathrm{NC3}^2 = 2 - 2\sqrt{1-r^2}\,\cos(W_c, M) \;\ge\; 2 - 2\sqrt{1-r^2} \;\ge\; r^2 . $$ (share-bound)
#
# A large share is therefore a *certain* sign that NC3 is large: at $r = 0.1$ it is at least 0.1, the
# threshold of the book's rule ({doc}`sweep`). A small share says that the first factor is near one; it says
# nothing of the cosine. And NC0 without the norm says neither.
#
# The measured runs fill the picture: of the 2,840 runs whose norm is stored every one is above the bound, the
# closest by 0.4 %. The 2,016 with $r > 0.1$ have an NC3 of at least 0.13. Of the 380 with $r < 0.01$, 344
# collapsed.
#
# As a regressor the share is no better than the length: NC3 against $r$ has $R^2 = 0.69$ over these runs, against
# $\log_{10}\mathrm{NC0}$ 0.69.
#
# (diagnostic-nc0-stays)=
# ## NC0 that stays while the rest collapses
#
# Can there be collapse although NC0 does not fall at all? Yes. Leave the network out and train the
# features themselves, together with $W$, on cross-entropy ({doc}`unconstrained_features`), with no weight
# decay, by steps of one length along the gradient. The gradient has nothing along $W^\top\mathbf 1$, so NC0
# stays what it is. But $\lVert W\rVert$ grows.

# %%
rng = np.random.default_rng(0)
free_H, free_W = (
    0.4 * rng.standard_normal((rows, 8)) for rows in (20, 4)
)  # 4 classes, 5 samples each
steps, free_H, free_W = theory.normalised_descent(
    free_H, free_W, lr=0.1, steps=1000, log_every=10
)
path = metrics.member_metrics(free_H, np.repeat(np.arange(4), 5), free_W)
path = pd.DataFrame({name: v.numpy() for name, v in path.items()}, steps)


# %% tags=["hide-input"]
def draw_path(path):
    """NC0 and its share of W on the left; NC1 to NC3 on the right."""
    curves = {
        "nc0": ("NC0", "#0072B2", "-"),
        "gauge_share": ("gauge share", "#0072B2", "--"),
        "nc1": ("NC1", "#CC79A7", "-"),
        "nc2": ("NC2", "#009E73", "-"),
        "nc3": ("NC3", "#D55E00", "-"),
        "nc3_centred": ("NC3 of the centred W", "#D55E00", "--"),
    }
    look = dict(figsize=(9, 3.4), layout="constrained", sharey=True)
    figure, axes = plt.subplots(1, 2, **look)
    for i, (name, (label, colour, dash)) in enumerate(curves.items()):
        axes[int(i > 1)].plot(path[name], dash, color=colour, label=label)
    for axis in axes:
        axis.set(yscale="log", xlabel="step", ylim=(1e-6, 10))
        axis.legend()
    axes[0].set_ylabel("metric")
    figure.set_label(
        "Without decay NC0 stays; its share of W, NC1, NC2, NC3 fall"
    )
    plt.show()


draw_path(path)

# %% tags=["remove-input"]
first, last = path.iloc[0], path.iloc[-1]
moved = (path["nc0"] / first["nc0"] - 1).abs().max()
listed = ", ".join(
    f"{figures.METRICS[name]} from {first[name]:.2f} to {last[name]:.1g}"
    for name in ("nc1", "nc2", "nc3")
)
display(
    Markdown(
        f"Four classes, {steps[-1]:,} steps: NC0 = {last['nc0']:.2f} throughout (it moves by {moved:.0e} of "
        f"itself), and {listed}. What is left of NC3 is the gauge: dashed, with W centred, it is far smaller. "
        "So an NC0 that does not fall rules out nothing."
    )
)

# %% [markdown]
# ## Under SGD, NC0 is known beforehand
#
# Neither the network nor the data enter the row sum $u = W^\top\mathbf 1$ of SGD's last layer:
#
# $$ v \leftarrow \beta v + \lambda_c u, \qquad u \leftarrow (1 - \eta\lambda_d)\, u - \eta v , $$ (diagnostic-law)
#
# and NC0 $= \lVert u\rVert$ at the end follows from NC0 at the start and the settings ({doc}`theorem_sgd`).
# So under SGD and SGDW NC0 says what the decay has been, and nothing about what was learned: not even
# whether anything was. Every run in the store that used SGD, SGDW or their mixture, of any network, data
# set, length or schedule, converged or not, is a test.

# %%
PLAIN = ["sgd", "sgdw", "sgd_mixed"]
lawful = figures.uniform(store.load_runs(optimizer=PLAIN, status="ok"))
SEEN = 0.01  # next to such an NC0 what float32 rounds off is small


# %% tags=["hide-input"]
def draw_parity(runs):
    """Measured against predicted."""
    drawn = (figures.exact_law(runs) >= figures.LAW_FROM).sum()
    return figures.parity(runs, f"{drawn:,} of {len(runs):,} runs, no fit")


figures.show_if_any(lawful, six_grids.LINE, draw_parity)

# %% [markdown]
# Where the law says that NC0 ends above 0.01, in 1,951 runs of four networks and of free features, the largest
# relative deviation is 3e-03 after 93,800 steps, and 4e-04 in all others. ({doc}`symmetry` has the same for Muon,
# Shampoo and SOAP, and where their number format ends it.)
#
# And a small NC0 promises nothing: of the 49 convolutional runs with one optimizer throughout that learned and kept
# less than a thousandth of their NC0, under SGD, SGDW, Muon, MuonW or SOAP, 44 end with an NC3 above 0.1, up to 0.55.
#
# (paper-figures-2-9-10)=
# ## NC3 against NC0
#
# Now the paper's own question: how much of NC3 does NC0 explain? “NC0 is correlating well with prior NC metrics,
# particularly for small learning rates”; “more than 70% of the variation in NC3 can be explained by NC0” (Figures 2,
# 9 and 10, of ResNet9 on Fashion-MNIST; the captions of 2 and 9 say “weakly”). Ours are of the digits MLP. A point is
# a setting here: the means over its seeds, since runs that differ in their seed alone are not independent. (Without
# decay the coupled and the decoupled form of an optimizer are one: 51 of the settings are copies of others. Without
# them $R^2$ is lower by 0.02 at most.)

# %%
POINT = ["optimizer", "lr", "momentum", "weight_decay"]
columns = [*figures.MAIN, "nc4", "log_nc0"]
points = good.groupby(POINT)[columns].mean().reset_index()
points["nc0"] = 10 ** points["log_nc0"]


# %% tags=["hide-input"]
def titled(rows):
    """What is in a figure of points."""
    return f"{len(rows)} settings, {len(good):,} runs"


def draw_all(metric):
    """Figure 10, 11 or 12."""
    return lambda rows: figures.scatters(rows, y=metric, title=titled(rows))


figures.with_lines(points, six_grids.LINE, draw_all("nc3"))

# %% [markdown]
# Over all learning rates it is 69 %, just below what the paper says. By learning rate $R^2$ is 0.80, 0.88, 0.80 and
# 0.62 from the smallest to the largest, so NC0 does say least at the largest rate (at which there are only SGD and
# SGDW), as the paper's text has it; in the paper's own Table 5 it says most there. But look at the shape before the
# number: NC3 cannot be negative, and the line is, below NC0 = 0.011. It is a summary and no model.
#
# All these fits mix six optimizers. Some end high in both metrics and some low in both, and this alone makes a
# correlation. A user, however, has *one* optimizer:


# %% tags=["hide-input"]
def show_within(rows):
    """Fits and rank correlations of NC3, by optimizer."""
    fits = stats.lines(rows, "log_nc0", "nc3", by="optimizer")["r2"]
    table = {}
    for name, own in figures.by_optimizer(rows):
        shares = split[split["optimizer"] == name]
        rank = {"method": "spearman"}
        table[figures.LABELS[name]] = {
            "settings": len(own),
            "R² on log NC0": fits[name],
            "rank correlation with NC0": own["nc0"].corr(own["nc3"], **rank),
            "with the gauge share": shares["gauge_share"].corr(shares["nc3"], **rank),
        }  # fmt: skip
    table = pd.DataFrame(table).T.astype({"settings": int})
    two = dict.fromkeys(table.columns[1:], "{:.2f}")
    return figures.shown(table, **two)


six = figures.having(points, *sweep.GRIDS)
figures.show_if_any(six, "", show_within)

# %% [markdown]
# *R² of NC3 on the logarithm of NC0, and Spearman's rank correlations of NC3 with NC0 (over settings) and with the
# gauge share (over the runs).*
#
# $R^2$ goes from 0.02 under AdamW to 0.93 under SignumW. Under AdamW, where no run collapsed, NC0 does not order the
# runs by their NC3: rank correlation 0.04. The share orders them the wrong way round (−0.48): up to λ = 5 more decay
# raises it, while NC3 ends lower than with little decay ({doc}`leaks` measures that the leak itself grows). What the
# share does say is that none of these runs can have collapsed: it is 0.22 or more in each ({doc}`coupling`).
#
# (paper-figures-11-12)=
# NC1 and NC2 (the paper's Figures 11 and 12) go with NC0 less: $R^2$ is 0.53 for NC2 and 0.21 for NC1. Nothing
# ties variability within classes to what the rows of $W$ sum to.
#
# (paper-table-5)=
# ## Table 5
#
# Which fit is the paper's Table 5? Its printed numbers say it. $F = t^2$ and $R^2 = t^2/(t^2+n-2)$ hold in every
# row: least squares with one regressor and an intercept. The regressor is a logarithm of NC0 to base ten: from
# SGD's row in Table 1 to SignumW's, NC3 rises by 1.05 over 7.2 powers of ten, 0.146 each, next to a printed
# slope of 0.158; on NC0 itself that slope would put SignumW at an NC3 of some 500, where 2 is the most
# possible.

# %% tags=["hide-cell"]
# Typed from the paper: LR, n, slope, SE, t, low, high, R², F; p is 0.000 for all.
TABLE_5 = """
0.001 | 170 | 0.1903 | 0.008 | 24.262 | 0.175 | 0.206 | 0.778 | 588.6
0.005 | 74 | 0.2017 | 0.012 | 16.252 | 0.177 | 0.226 | 0.786 | 264.1
0.01 | 114 | 0.1439 | 0.007 | 19.892 | 0.13 | 0.158 | 0.779 | 395.7
0.0679 | 41 | 0.1771 | 0.012 | 14.367 | 0.152 | 0.202 | 0.841 | 206.4
all | 399 | 0.1582 | 0.005 | 32.760 | 0.149 | 0.168 | 0.730 | 1073
"""
names = ["lr", "n", "slope", "se", "t", "low", "high", "r2", "f"]
rows = [line.split(" | ") for line in TABLE_5.strip().splitlines()]
printed = pd.DataFrame(rows, columns=names).set_index("lr").astype(float)
squared = printed["t"] ** 2
assert np.allclose(squared, printed["f"], rtol=1e-3)
explained = squared / (squared + printed["n"] - 2)
assert np.allclose(explained, printed["r2"], atol=6e-4)
rise = (1.40 - 0.35) / np.log10(3185.69 / 2.14e-4)
assert abs(rise - 0.146) < 1e-3


def in_words(table):
    """A table of fits as Table 5 prints them."""
    slopes = [
        f"{r.slope:.3f}\n{r.low:.3f}…{r.high:.3f}" for r in table.itertuples()
    ]
    shown = pd.DataFrame({"n": table["n"].map("{:.0f}".format)})
    shown["slope"] = slopes
    shown["SE"] = table["se"].map("{:.3f}".format)
    shown["t"] = table["t"].map("{:.1f}".format)
    return shown.assign(**{"R²": table["r2"].map("{:.3f}".format)})


def show_table_5(rows):
    """The paper's rows and ours, by learning rate and over all."""
    ours = stats.lines(rows, "log_nc0", "nc3", by="lr")
    ours.index = [v if v == "all" else f"{v:g}" for v in ours.index]
    tables = {"paper": in_words(printed), "here": in_words(ours)}
    table = pd.concat(tables).swaplevel()
    table = table.loc[[v for v in printed.index if v in ours.index]]
    table = table.replace("nan", "–").rename_axis([None] * 2)
    return figures.shown(table.rename_axis(columns="η"))


figures.with_lines(points, six_grids.LINE, show_table_5)

# %% [markdown]
# *Above, folded: the paper's Table 5 and ours, with the 95 % interval of each slope below it. The intervals take the
# points as independent, which settings that share their seeds' starts are not.*
#
# (paper-figure-44)=
# ## Does NC4 tell collapse from none?
#
# NC4 is the share of test images on which the network decides as the nearest class mean does; it goes to one at
# collapse. The paper finds it “consistently satisfied whenever the training accuracy approaches 100%” and
# “largely uncorrelated with the other metrics” (Figure 44). Here its rank correlations with NC1, NC2 and NC3 are
# −0.61, −0.66 and −0.55 over the runs, and −0.81, −0.85 and −0.71 over the means of seeds, which have less of the
# test set's noise. But its values are all near one: 494 runs collapsed, with NC4 between 0.992 and 1.000,
# and 2,346 did not, with NC4 between 0.927 and 1.000; 976 of these have NC4 = 1 exactly. A network with NC4 = 1
# may be in either group.


# %% tags=["hide-input"]
def draw_nc4(rows):
    """Figure 44."""
    others = ("nc1", "nc2", "nc3")
    drawn = [
        figures.scatters(rows, m, "nc4", title=titled(rows)) for m in others
    ]
    return figures.side_by_side(*drawn)


figures.with_lines(points, six_grids.LINE, draw_nc4)

# %% [markdown]
# ## Partial collapse
#
# Can NC1 and NC2 be small while NC3 is not? The paper shows one AdamW run with NC1 0.01, NC2 0.14 and NC3 0.49 and
# calls it partial neural collapse: classes are points, the points form a simplex, and the last layer does not fit
# them. By the book's thresholds, 0.1 for all three, 21 of our 2,840 converged runs have NC1 and NC2 below and NC3
# not: 13 of Signum, 3 of Adam, 3 of SGDW, one of SGD and one of AdamW. (The paper's run, with NC2 0.14, would not be
# one.) Most miss narrowly: 12 have an NC3 below 0.115. Such a network looks collapsed to whoever measures the
# features alone.
#
# What does not fit may be only the gauge: 10 of the 21 collapse once $W$ is centred. Over all of AdamW's runs it
# makes 32 % of NC3² in the median, of SignumW's 69 %; at strong decay it is nearly all ({doc}`symmetry`). So before
# calling a network partially collapsed, centre $W$ over the classes and measure NC3 again: `nc3_centred` of
# {doc}`measure`.
#
# ## Where it holds, and where not
#
# | statement | status | where it holds, and where not |
# |---|---|---|
# | NC3² ≥ 2 − 2√(1 − r²) with the gauge share r | exact, in all 2,840 runs | every network with a linear last layer |
# | NC0 that does not fall excludes collapse | corrected | counterexample above; in the limit it is true where ‖W‖ stays bounded |
# | a small NC0 or share promises a small NC3 | measured: no | false in 44 of 49 convolutional runs; on the digits 357 of the 380 runs with $r < 0.01$ have an NC3 below 0.1 |
# | log NC0 explains about 70 % of NC3 | measured, n = 568 settings | over six optimizers mixed; 2 % within AdamW |
# | NC4 is “largely uncorrelated” with NC1 to NC3 | differs in small runs: −0.55 to −0.66 over runs | but it tells no collapse: 976 of 2,346 uncollapsed runs have NC4 = 1 |
#
# ## Exercises
#
# **1.** A network with $K = 10$ has NC0 = 4.1 and $\lVert W\rVert_F = 3.2$. What is the least NC3 that it can have?

# %% tags=["hide-input"]
share = 4.1 / (np.sqrt(10) * 3.2)
assert abs(least_nc3(share) - 0.4144) < 1e-3
print(f"gauge share {share:.3f}, NC3 at least {least_nc3(share):.3f}")

# %% [markdown]
# **2.** Make a $W$ with gauge share zero and an NC3 of at least 1.4, so that a small share promises nothing.

# %% tags=["hide-input"]
M = metrics.simplex_etf(3).numpy()
W = -M
found = metrics.nc_metrics(M, [0, 1, 2], W)
assert found["gauge_share"] < 1e-12
assert found["nc3"] > 1.4
print(f"W = −M: share {found['gauge_share']:.0e}, NC3 = {found['nc3']:.2f}")

# %% [markdown]
# **3.** How large must $\lVert W\rVert_F$ grow, at constant NC0 = 2 and $K = 4$, until {eq}`share-bound` allows an
# NC3 below 0.1?

# %% tags=["hide-input"]
limit = np.sqrt(1 - (1 - 0.1**2 / 2) ** 2)
norm = 2 / (np.sqrt(4) * limit)
assert abs(least_nc3(2 / (np.sqrt(4) * norm)) - 0.1) < 1e-9
print(f"‖W‖ above {norm:.1f}")
