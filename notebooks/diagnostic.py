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
# NC0 is the cheapest of the metrics: one sum over the last layer's weights, with no pass through the
# data. The paper {cite}`optimizer2026` offers it as a diagnosis: if NC0 does not go to zero, there is no
# neural collapse. That is too strong, since only NC0 over the norm of W counts. How much does NC0 tell?
#
# **What you will learn**
#
# - how much of NC3, NC2 and NC1 NC0 explains, over all runs and within one optimizer;
# - how the paper's Table 5 is made, and ours next to it;
# - why NC0 that is large for the size of W is a certain sign, and neither a large nor a small NC0 is one;
# - that under SGD NC0 is known before training, and so can tell nothing of the data: one line through
#   every SGD and SGDW run in the store;
# - whether NC4 tells collapse from none;
# - what *partial* collapse is, and which of our runs show it, found by the book's one rule.

# %%
import numpy as np
import pandas as pd
from IPython.display import Markdown, display
from matplotlib import pyplot as plt

from ncbook import figures, metrics, stats, store, sweep, theory
from ncbook.metrics import rule
from ncbook.pages import six_grids

figures.start_chapter()

# %% [markdown]
# ## Why they should go together
#
# NC0 is $\lVert W^\top\mathbf 1\rVert$, the length of the sum of $W$'s rows. In a collapsed network the
# rows form a simplex, and a simplex sums to zero. NC3 measures how far $W$ and the centred class means $M$
# are from one shape. The rows of $M$ always sum to zero. So if $W$ has the shape of $M$, its rows sum to
# zero, too. In {doc}`metrics` this becomes a bound,
#
# $$ \frac{\mathrm{NC0}}{\lVert W\rVert_F} \le \sqrt K\; \mathrm{NC3} , $$ (diagnostic-bound)
#
# for $K$ classes. Two things follow. NC0, as a share of $\lVert W\rVert$, cannot be large while NC3 is
# small: such an NC0 is a *certain* sign. But NC0 can be small while NC3 is large: a small NC0 promises
# nothing. And NC0 itself can stay large in a network that collapses, if W grows: it excludes nothing. One thing does not follow: how large NC3 is where NC0 is large. That is a question for data.

# %% [markdown]
# ## What the paper says
#
# "NC0 is correlating well with prior NC metrics, particularly for small learning rates"; "more than
# 70% of the variation in NC3 can be explained by NC0" (Section 2 and Appendix D.3; a ResNet9 on
# Fashion-MNIST). Its Figures 2 and 9 to 12 plot NC3, NC1 and NC2 against NC0, its Table 5 has the least
# squares of NC3 on NC0. NC4, it finds, is "consistently satisfied whenever the training accuracy approaches
# 100%" and "largely uncorrelated with the other metrics". And in its Table 2 AdamW reaches the least NC1 and
# NC2 "even while NC0 diverges and NC3 is not satisfied", which it calls partial neural collapse.

# %% [markdown]
# ## The setting here, which is smaller
#
# **We do not train a ResNet9.** Ours is the book's small default: 1,400 images of 8 × 8 digits and a
# batch-norm MLP with three hidden layers, with the paper's six grids, epochs and schedule.

# %% tags=["hide-input"]
six_grids.how_to_train()

# %%
POINT = ["optimizer", "lr", "momentum", "weight_decay"]
FOUR = list(figures.MAIN)
names = figures.LABELS

stored = six_grids.stored()
grids = six_grids.complete(stored)
good = figures.converged(grids)
good = good[good["nc0"] > 0].assign(log_nc0=lambda runs: np.log10(runs["nc0"]))


# %% tags=["hide-input"]
figures.show_if_any(grids, six_grids.LINE, lambda _: six_grids.counted(stored))

# %% [markdown]
# Runs that differ in their seed alone are no independent points: they would make every error look smaller
# than it is. The paper has one run a setting. So a point is a setting here, too: the mean of each metric
# over the setting's converged seeds, and of the logarithm of NC0.


# %%
def points_of(runs):
    """One row a setting: means over its seeds."""
    columns = [*FOUR, "nc4", "log_nc0"]
    means = runs.groupby(POINT)[columns].mean().reset_index()
    return means.assign(nc0=10 ** means["log_nc0"])


points = points_of(good)

# %% [markdown]
# ## Where we agree with the paper, and where not
#
# The outcome first; the evidence is in the sections below. Every line is computed from the stored
# runs.


# %% tags=["hide-input"]
def r2(rows, metric):
    """How much of a metric log NC0 explains, in these rows."""
    return stats.lines(rows, "log_nc0", metric).loc["all", "r2"]


def on_fit(rows):
    """More than 70 % of NC3?"""
    whole = r2(rows, "nc3")
    return (
        whole > 0.7,
        f"**“More than 70% of the variation in NC3”.** Here it is {whole:.0%} over "
        f"all learning rates, and 73 % in the paper.",
    )


def on_rates(rows):
    """Best at small learning rates?"""
    table = stats.lines(rows, "log_nc0", "nc3", by="lr")["r2"].drop("all")
    listed = ", ".join(f"{v:.2f} at {lr:g}" for lr, v in table.items())
    return (
        table.idxmax() == table.index.min(),
        f"**“Particularly for small learning rates”.** R² is {listed}. (In the paper's "
        f"own Table 5 it is largest at the largest learning rate.)",
    )


def on_others(rows):
    """NC3 first, NC2 then, NC1 last?"""
    shares = {m: r2(rows, m) for m in ("nc3", "nc2", "nc1")}
    listed = ", ".join(
        f"{figures.METRICS[m]} {v:.2f}" for m, v in shares.items()
    )
    return (
        shares["nc3"] > shares["nc2"] > shares["nc1"],
        f"**Less with NC1 and NC2 than with NC3.** R² on log NC0: {listed}.",
    )


def on_nc4(rows):
    """Is NC4 uncorrelated with NC1 to NC3?"""
    ranks = rows[["nc1", "nc2", "nc3"]].corrwith(rows["nc4"], method="spearman")
    listed = ", ".join(
        f"{figures.METRICS[m]} {v:.2f}" for m, v in ranks.items()
    ).replace("-", "−")
    return (
        ranks.abs().max() < 0.3,
        f"**NC4 “largely uncorrelated with the other metrics”.** Its rank correlations: "
        f"{listed}, though NC4 itself stays between {rows['nc4'].min():.2f} and "
        f"{rows['nc4'].max():.2f}.",
    )


def on_partial(rows):
    """Has an AdamW run the least NC1 and NC2 of all?"""
    least = {m: rows.loc[rows[m].idxmin()] for m in ("nc1", "nc2")}
    listed = " and ".join(
        f"{figures.METRICS[m]} ({row[m]:.2g}) is {names[row['optimizer']]}'s"
        for m, row in least.items()
    )
    return (
        all(row["optimizer"] == "adamw" for row in least.values()),
        f"**“AdamW can achieve minimal values for NC1 and NC2 among all optimizers”.** "
        f"Here the least {listed}.",
    )


def verdicts(rows):
    """The disagreements first."""
    checks = (on_fit, on_rates, on_others, on_nc4, on_partial)
    return figures.compared([check(rows) for check in checks])


all_six = figures.having(points, *sweep.GRIDS)
figures.show_if_any(all_six, "", verdicts)

# %% [markdown]
# (paper-figures-2-9-10)=
# ## NC3 against NC0
#
# The paper's Figures 2 and 9: one dot a setting, one panel a learning rate, and the line of least squares.
# In the paper NC0 "weakly correlates with NC3". Its R² stand in Table 5 below, ours in the titles.


# %% tags=["hide-input"]
def titled(rows):
    """What is in the figure."""
    seeds = good["seed"].nunique()
    return f"{len(rows)} settings, {len(good):,} runs, {seeds} seed{'s' * (seeds > 1)}"


def draw_rates(rows):
    """Figures 2 and 9."""
    drawn = [
        figures.scatters(group, title=f"Learning rate {lr:g}")
        for lr, group in rows.groupby("lr")
    ]
    return figures.side_by_side(*drawn)


def draw_all(metric):
    """Figure 10, 11 or 12."""
    return lambda rows: figures.scatters(rows, y=metric, title=titled(rows))


figures.with_lines(points, six_grids.LINE, draw_rates)

# %% [markdown]
# And all learning rates together, as in its Figure 10, whose R² is 0.730 by its Table 5:

# %% tags=["hide-input"]
figures.with_lines(points, six_grids.LINE, draw_all("nc3"))

# %% [markdown]
# Look at the shape before the numbers: is it a line? NC3 cannot be negative, and a line over the logarithm
# is, from some NC0 downwards. So the line is a summary and no model. And its $p$-values take the dots to be
# independent and evenly scattered about the line. Settings of one grid are neither.


# %% tags=["hide-input"]
def tell_shape(rows):
    """Where the line crosses zero; the NC3 that is there."""
    fit = stats.line(rows["log_nc0"], rows["nc3"])
    zero = 10 ** (-fit.intercept / fit.slope)
    under = rows[rows["nc0"] < zero]["nc3"]
    return (
        f"The line over all learning rates reaches NC3 = 0 at NC0 = {zero:.2g}. Below it lie "
        f"{len(under)} of {len(rows)} settings; their NC3 goes up to "
        f"{under.max() if len(under) else 0:.2g}."
    )


figures.show_if_any(all_six, "", tell_shape)

# %% [markdown]
# (paper-table-5)=
# ## Table 5
#
# Which fit is it? The paper does not say. But its printed numbers do:
#
# - $F = t^2$ and $R^2 = t^2/(t^2 + n - 2)$ hold in every row. That is least squares with one regressor and
#   an intercept.
# - The regressor is a logarithm of NC0. On NC0 itself a slope of 0.158 would put SignumW's NC0 of 3185.69
#   (Table 1) at an NC3 of some 500; the most possible is 2.
# - The base is ten. From SGD's row in Table 1 to SignumW's, NC3 rises by 1.05 over 7.2 powers of ten,
#   0.146 each, where the printed slope is 0.158. With the natural logarithm it would be 0.064.
#
# That NC3 itself is no logarithm is our reading of "the x-axis is plotted in log-scale" in the captions.

# %%
# Typed from the paper: LR, n, slope, SE, t, low, high, R², F; p is 0.000 for all.
TABLE_5 = """
0.001 | 170 | 0.1903 | 0.008 | 24.262 | 0.175 | 0.206 | 0.778 | 588.6
0.005 | 74 | 0.2017 | 0.012 | 16.252 | 0.177 | 0.226 | 0.786 | 264.1
0.01 | 114 | 0.1439 | 0.007 | 19.892 | 0.13 | 0.158 | 0.779 | 395.7
0.0679 | 41 | 0.1771 | 0.012 | 14.367 | 0.152 | 0.202 | 0.841 | 206.4
all | 399 | 0.1582 | 0.005 | 32.760 | 0.149 | 0.168 | 0.730 | 1073
"""

# %% tags=["hide-input"]
columns = ["lr", "n", "slope", "se", "t", "low", "high", "r2", "f"]
rows = [line.split(" | ") for line in TABLE_5.strip().splitlines()]
printed = pd.DataFrame(rows, columns=columns).set_index("lr").astype(float)
squared = printed["t"] ** 2
assert np.allclose(squared, printed["f"], rtol=1e-3)
explained = squared / (squared + printed["n"] - 2)
assert np.allclose(explained, printed["r2"], atol=6e-4)
rise = (1.40 - 0.35) / np.log10(3185.69 / 2.14e-4)
assert abs(rise - 0.146) < 1e-3

# %% [markdown]
# Ours has the same form: $\mathrm{NC3} = a + b\,\log_{10}\mathrm{NC0}$ by `stats.line`, which is
# statsmodels' ordinary least squares. Under the slope $b$ stands its 95 % interval; then its standard error,
# and $t$ and two-sided $p$ of $b = 0$.


# %% tags=["hide-input"]
def p_value(p):
    """A p-value that is not printed as zero."""
    return "< 1e-16" if p < 1e-16 else f"{p:.2g}"


def in_words(table, paper=False):
    """A table of fits as Table 5 prints them."""
    ends = [f"{r.low:.3f}…{r.high:.3f}" for r in table.itertuples()]
    shown = pd.DataFrame({"n": table["n"].map("{:.0f}".format)})
    shown["slope"] = [
        f"{slope:.3f}\n{end}" if np.isfinite(slope) else "–"
        for slope, end in zip(table["slope"], ends, strict=True)
    ]
    shown["SE"] = table["se"].map("{:.3f}".format)
    shown["t"] = table["t"].map("{:.1f}".format)
    shown["p"] = "0.000" if paper else table["p"].map(p_value)
    return shown.assign(**{"R²": table["r2"].map("{:.3f}".format)})


# %% tags=["hide-input"]
def show_table_5(rows):
    """The paper's rows and ours, by learning rate and over all."""
    ours = stats.lines(rows, "log_nc0", "nc3", by="lr")
    ours.index = [v if v == "all" else f"{v:g}" for v in ours.index]
    tables = {"paper": in_words(printed, paper=True), "here": in_words(ours)}
    table = pd.concat(tables).swaplevel()
    table = table.loc[[v for v in printed.index if v in ours.index]]
    return figures.shown(
        table.replace("nan", "–")
        .rename_axis([None] * 2)
        .rename_axis(columns="η")
    )


figures.with_lines(points, six_grids.LINE, show_table_5)


# %% tags=["hide-input"]
def by_seed(metric="nc3"):
    """Slope and R² with each seed by itself."""
    return stats.lines(good, "log_nc0", metric, by="seed").drop("all")


def tell_seeds(rows):
    """How much the fit over all depends on the seed; and on the form."""
    fits = by_seed().dropna()
    seeds = (
        f"Fitted seed by seed ({len(fits)}), over all learning rates the slope is "
        f"{fits['slope'].min():.3f} to {fits['slope'].max():.3f} and R² "
        f"{fits['r2'].min():.3f} to {fits['r2'].max():.3f}. "
    )
    both = rows.assign(log_nc3=np.log10(rows["nc3"]))
    double = stats.lines(both, "log_nc0", "log_nc3").loc["all", "r2"]
    plain = stats.lines(rows, "nc0", "nc3").loc["all", "r2"]
    return (
        f"{seeds * (len(fits) > 1)}Other forms over the same "
        f"points: R² {plain:.2f} on NC0 itself, {double:.2f} with both in logarithms."
    )


figures.show_if_any(points, "", tell_seeds)

# %% [markdown]
# ## Within one optimizer
#
# All these fits mix six optimizers. Some of them end high in both metrics and some low in both, and this
# alone makes a correlation. A user, however, has *one* optimizer. Does NC0 tell its good runs from its bad
# ones? The same fit, optimizer by optimizer, and Spearman's rank correlation, which asks for no shape.


# %% tags=["hide-input"]
def within(rows):
    """Fits and rank correlations of NC3 and NC0 by optimizer."""
    fits = stats.lines(rows, "log_nc0", "nc3", by="optimizer").drop("all")
    ranks = {
        name: group["nc0"].corr(group["nc3"], method="spearman")
        for name, group in rows.groupby("optimizer")
    }
    order = [name for name in names if name in fits.index]
    return fits.assign(rank=pd.Series(ranks)).loc[order]


def show_within(rows):
    """As a table."""
    fits = within(rows)
    table = in_words(fits).assign(rank=fits["rank"].map("{:.2f}".format))
    table = table.rename(index=names, columns={"rank": "rank"})
    return figures.shown(table.replace("nan", "–"))


def tell_within(rows):
    """Where it fails."""
    fits = within(rows).dropna()
    least, most = fits["rank"].idxmin(), fits["rank"].idxmax()
    return (
        f"The rank correlation is largest for {names[most]}, {fits['rank'].max():.2f} (R² "
        f"{fits.loc[most, 'r2']:.2f}), and least for {names[least]}, {fits['rank'].min():.2f} "
        f"(R² {fits.loc[least, 'r2']:.2f})."
    )


figures.show_if_any(points, "", show_within)
figures.show_if_any(all_six, "", tell_within)


# %% tags=["hide-input"]
KEPT = 0.5  # of NC0 at the start


def show_whether(runs):
    """How many runs kept NC0, and how many collapsed, by optimizer."""
    kept = figures.fraction_of_start(runs)["nc0"] > KEPT
    both = kept & rule.collapsed(runs)
    columns = {
        f"more than {KEPT:.0%} of NC0 left": kept,
        "collapsed": rule.collapsed(runs),
        "both": both,
    }
    marked = pd.DataFrame({"runs": 1} | columns).groupby(runs["optimizer"])
    counts = marked.sum().reindex([o for o in names if o in marked.groups])
    return figures.shown(counts.rename(index=names))


figures.show_if_any(good, "", show_whether)

# %% [markdown]
# (Collapsed, by the rule of {doc}`sweep`: NC1, NC2 and NC3 all end below 0.1. NC0 has no part in it, so a run
# may be in both groups.)

# %% [markdown]
# (paper-figures-11-12)=
# ## NC1 and NC2 against NC0
#
# The paper's Figures 11 and 12. Its text has no fit for them. Of other networks it says that NC0
# "correlates considerably less with NC1 and NC2, although a general trend is still visible".


# %% tags=["hide-input"]
def draw_both(rows):
    """Figures 11 and 12."""
    return figures.side_by_side(*(draw_all(m)(rows) for m in ("nc1", "nc2")))


figures.with_lines(points, six_grids.LINE, draw_both)

# %% [markdown]
# Variability (NC1) can collapse whatever the rows of $W$ sum to: nothing ties the two. Dots in the lower
# right, if there are any, have small NC1 and large NC0. They are the subject of the last section.

# %% [markdown]
# ## Under SGD, NC0 is known beforehand
#
# One caution about NC0 as a diagnosis. Neither the network nor the data enter the row sum
# $u = W^\top\mathbf 1$ of SGD's last layer. With coupled and decoupled decay,
#
# $$ \begin{aligned} v &\leftarrow \beta v + \lambda_c u,\\ u &\leftarrow (1 - \eta\lambda_d)\, u - \eta v,
# \end{aligned} $$ (diagnostic-law)
#
# and NC0 $= \lVert u\rVert$ at the end follows from NC0 at the start and the settings alone
# ({doc}`theorem_sgd`; `figures.exact_law`). So under SGD and SGDW NC0 says what the decay has been, and
# nothing about what was learned: not even whether anything was.
#
# Every run in the store that used SGD, SGDW or their mixture, of any network, data set, length, schedule or
# precision, converged or not, is a test of this. No number is fitted.

# %%
lawful = store.load_runs(optimizer=list(figures.LAWFUL), status="ok")
lawful = lawful.assign(left=figures.exact_law(lawful))
SEEN = 0.01  # against such an NC0 what float32 rounds off is small


# %% tags=["hide-input"]
def draw_parity(runs):
    """Measured against predicted."""
    drawn = (runs["left"] >= figures.LAW_FROM).sum()
    return figures.parity(runs, f"{drawn:,} of {len(runs):,} runs, no fit")


def deviations(runs):
    """The runs in which NC0 can be seen, with their relative deviation from the law."""
    seen = runs[runs["left"] * runs["nc0_init"] > SEEN]
    off = (seen["nc0"] / seen["nc0_init"] / seen["left"] - 1).abs()
    return seen.assign(off=off, dataset=seen["dataset"].str.split(":").str[0])


# %% tags=["hide-input"]
def show_parity(runs):
    """How far off they are at most, by network, data set and optimizer."""
    rows = deviations(runs)
    table = rows.groupby(["model", "dataset", "optimizer"])["off"].agg(
        ["size", "max"]
    )
    words = {f"{o}_mixed": f"{names[o]}, mixed" for o in names}
    table = table.rename(index=names | words).rename_axis([None] * 3)
    table = table.rename(columns={"size": "runs", "max": "largest deviation"})
    return figures.shown(table, **{"largest deviation": "{:.0e}"})


# %% tags=["hide-input"]
def tell_rest(runs):
    """What is not in the list above."""
    seen = deviations(runs)
    worst = seen.loc[seen["off"].idxmax()]
    unknown = runs["left"].isna().sum()
    nothing = (
        f" For {unknown} more the law says nothing, because gradients were clipped or the "
        f"number of steps is unknown."
    )
    few = (runs["left"] < figures.LAW_FROM).sum()
    below = len(runs) - len(seen) - unknown
    return (
        f"The table has relative deviations where the law says NC0 > {SEEN:g}; the largest is "
        f"that of a run of {worst['epochs']:,} epochs, at {worst['off']:.0e}. For the "
        f"other {below} runs it says less. Some millionths of the weights' size are "
        f"what rounding to float32 leaves, and there a dot may lie above the line. "
        f"{few} runs, predicted to keep less than {figures.LAW_FROM:.0e} of NC0, are not "
        f"drawn.{nothing * bool(unknown)}"
    )


figures.show_if_any(lawful, "", draw_parity, show_parity, tell_rest)


# %% [markdown]
# (paper-figure-44)=
# ## Does NC4 tell collapse from none?
#
# NC4 is the share of test images on which the network decides as the nearest class mean does. It goes to *one*
# at collapse. The paper's Figure 44 has it against NC1 to NC3, and finds NC4 "largely uncorrelated" with
# them; its text has no numbers.


# %% tags=["hide-input"]
def draw_nc4(rows):
    """Figure 44."""
    drawn = [
        figures.scatters(rows, m, "nc4", title=titled(rows)) for m in FOUR[1:]
    ]
    return figures.side_by_side(*drawn)


figures.with_lines(points, six_grids.LINE, draw_nc4)


# %% [markdown]
# Is it of use as a test? Compare the runs that collapsed, by the same rule, with those that did not.


# %% tags=["hide-input"]
def tell_nc4(runs):
    """NC4 in both groups, and how well it tells them apart."""
    is_so = rule.collapsed(runs)
    yes, no = runs["nc4"][is_so], runs["nc4"][~is_so]
    ranks = runs["nc4"].rank()
    # Mann and Whitney: how often a value of one group is above one of the other
    above = ranks[is_so].sum() - len(yes) * (len(yes) + 1) / 2
    wins = above / (len(yes) * len(no))
    return (
        f"{len(yes):,} runs collapsed, with NC4 between {yes.min():.3f} and {yes.max():.3f} (mean "
        f"{yes.mean():.4f}); {len(no):,} did not, with NC4 between {no.min():.3f} and "
        f"{no.max():.3f} (mean {no.mean():.4f}). {(no == 1).sum():,} of these have NC4 = 1 exactly. "
        f"Of a random pair, one of each group, the collapsed one has the higher NC4 in "
        f"{wins:.0%} of cases, ties halved; 50 % is a coin. One test image is worth 0.0025."
    )


two = good if rule.collapsed(good).nunique() == 2 else good[:0]
figures.show_if_any(two, "", tell_nc4)

# %% [markdown]
# So look at both: whether the groups differ on average, and whether NC4 of a single network could tell to which
# of them it belongs. A network with NC4 = 1 may be in either.

# %% [markdown]
# (diagnostic-nc0-stays)=
# ## NC0 that stays while the network collapses
#
# Can a network collapse although its NC0 does not fall at all? Yes. Leave the network out and train the
# features themselves, together with $W$, on cross-entropy ({doc}`unconstrained_features`), with no weight decay, by
# steps of one length along the gradient. The gradient has nothing along $W^\top\mathbf 1$, so NC0 stays what
# it is, to the last digit. But $\lVert W\rVert$ grows, and the bound {eq}`diagnostic-bound` is about their
# ratio.

# %%
rng = np.random.default_rng(0)
free_H, free_W = (
    0.4 * rng.standard_normal((20, 8)),
    0.4 * rng.standard_normal((4, 8)),
)
steps, free_H, free_W = theory.normalised_descent(
    free_H, free_W, lr=0.1, steps=1000, log_every=10
)
path = metrics.member_metrics(free_H, np.repeat(np.arange(4), 5), free_W)
path = pd.DataFrame(
    {name: values.numpy() for name, values in path.items()}, steps
)


# %% tags=["hide-input"]
def draw_path(path):
    """NC0 and its share of W on the left; NC1 to NC3 on the right."""
    lines = {
        "nc0": ("NC0", "#0072B2", "-"),
        "gauge_share": (r"NC0 / ($\sqrt{K}\,\|W\|_F$)", "#0072B2", "--"),
        "nc1": ("NC1", "#CC79A7", "-"),
        "nc2": ("NC2", "#009E73", "-"),
        "nc3": ("NC3", "#D55E00", "-"),
        "nc3_centred": ("NC3 of the centred W", "#D55E00", "--"),
    }
    figure, axes = plt.subplots(
        1, 2, figsize=(9, 3.4), layout="constrained", sharey=True
    )
    for i, (name, (label, colour, dash)) in enumerate(lines.items()):
        axes[int(i > 1)].plot(path[name], dash, color=colour, label=label)
    for axis in axes:
        axis.set(yscale="log", xlabel="step", ylim=(1e-6, 10))
        axis.legend()
    axes[0].set_ylabel("metric")
    figure.set_label(
        "Metrics over the steps of normalised gradient descent without weight decay. NC0 stays "
        "constant; its share of W falls, and so do NC1, NC2 and NC3."
    )
    plt.show()


draw_path(path)

# %% [markdown]
# *What to see: on the left NC0 is a level line, and its share of $W$ falls. On the right all of NC1, NC2 and
# NC3 fall. What is left of NC3 is the gauge: centre $W$ over the classes, and it is far smaller (dashed).*

# %% tags=["hide-input"]
first, last = path.iloc[0], path.iloc[-1]
moved = (path["nc0"] / first["nc0"] - 1).abs().max()
listed = ", ".join(
    f"{name.upper()} from {first[name]:.2f} to {last[name]:.1g}"
    for name in FOUR[1:]
)
display(
    Markdown(
        f"Four classes, {steps[-1]:,} steps, exact up to rounding: NC0 = {last['nc0']:.2f} "
        f"throughout (it moves by {moved:.0e} of itself), and {listed}. So an NC0 that does not "
        f"fall rules out nothing: only NC0 over the size of W counts."
    )
)

# %% [markdown]
# ## Partial collapse
#
# Can NC1 and NC2 be small while NC3 is not? The paper shows one AdamW run, from its Table 2, that ends with an NC1 of
# 0.01, an NC2 of 0.14 and an NC3 of 0.49. By the book's rule ({doc}`sweep`) a run has collapsed in part if some
# of the three end below 0.1. The case of the paper is the one where NC1 and NC2 do and NC3 does not: classes are
# points, the points form a simplex, and the last layer does not fit them. (Where a run's NC3 of the centred W
# is stored, and is below 0.1 too, that misfit is all gauge.) The paper's own run is of this kind at a threshold
# of 0.2, and not at 0.1.


# %%
def partial(runs, threshold=rule.THRESHOLD):
    """The runs whose NC1 and NC2 are below the threshold, and whose NC3 is not."""
    return runs[rule.below(runs, threshold) == "NC1, NC2"]


# %% tags=["hide-input"]
def draw_partial(runs):
    """NC3 against NC2, and the rule's corner in grey."""
    figure, axis = plt.subplots(figsize=(5.6, 3.8), layout="constrained")
    for name in [name for name in names if (runs["optimizer"] == name).any()]:
        rows = runs[runs["optimizer"] == name]
        look = dict(s=12, color=figures.COLOURS[name], alpha=0.6, lw=0)
        axis.scatter(rows["nc2"], rows["nc3"], **look, label=names[name])
    axis.set(xscale="log", yscale="log", xlabel="NC2", ylabel="NC3")
    ticks = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5]
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.xaxis.set_minor_formatter("")
    corner = rule.THRESHOLD, axis.get_ylim()[1]
    left = axis.get_xlim()[0]
    axis.fill_between([left, corner[0]], *corner, color="#888888", alpha=0.18)
    axis.set(xlim=(left, None), ylim=(None, corner[1]))
    figure.legend(loc="outside right center")
    figure.suptitle(
        f"n = {len(runs):,} converged runs; grey: NC2 small, NC3 not"
    )
    figure.set_label("NC3 against NC2 at the end; one dot a run")
    plt.close(figure)
    return figure


figures.show_if_any(good, "", draw_partial)


# %% tags=["hide-input"]
def count_words(runs):
    """'AdamW 16, SignumW 8'"""
    counts = runs.groupby("optimizer").size()
    listed = [f"{names[o]} {counts[o]}" for o in names if o in counts]
    return ", ".join(listed) or "none"


def tell_partial(runs):
    """How many are of this kind, at three thresholds."""
    low, high = (count_words(partial(runs, t)) for t in (0.05, 0.2))
    return (
        f"{len(partial(runs))} of {len(runs):,} converged runs: "
        f"{count_words(partial(runs))}. With 0.05 in place of 0.1: {low}. With 0.2: {high}."
    )


figures.show_if_any(good, "", tell_partial)


# %% tags=["hide-input"]
def tables_of(found):
    """The settings of this kind in most seeds, NC1's least first."""
    groups = found.groupby(POINT)
    table = groups[FOUR].mean().assign(seeds=groups.size())
    table = table.sort_values(["seeds", "nc1"], ascending=[False, True]).head(8)
    table = table.reset_index().replace({"optimizer": names})
    short = {"lr": "η", "momentum": "β", "weight_decay": "λ"}
    table = table.set_index("optimizer").rename(columns=short | figures.METRICS)
    return table.rename_axis("")


def show_partial(runs):
    """Up to eight of them."""
    table = tables_of(partial(runs))
    formats = {"η": "{:g}", "β": "{:g}", "λ": "{:g}"}
    formats |= {figures.METRICS[metric]: "{:.2g}" for metric in FOUR}
    return figures.shown(table, **formats)


some = good if len(partial(good)) else good[:0]
figures.show_if_any(some, "", show_partial)

# %% [markdown]
# Up to eight settings, the means over their seeds, those that do so in the most seeds first, and among them the
# least NC1. Such a network looks collapsed to whoever measures the features alone: its classes are points, and the
# points form a simplex. Its last layer does not fit them. NC0 looks at the last layer and needs no data. Does it
# tell these runs from the others?


# %% tags=["hide-input"]
def tell_caught(runs):
    """Does any run with large NC0 have small NC3?"""
    left = figures.fraction_of_start(runs)
    is_high = left["nc0"] >= 1
    high, low = left[is_high]["nc3"], left[~is_high]["nc3"]
    return (
        f"Among the {len(high):,} runs whose NC0 did not fall, the least NC3 is "
        f"{high.min():.0%} of its start, and its median {high.median():.0%}. Among the "
        f"{len(low):,} others NC3 goes from {low.min():.1%} to {low.max():.0%}, with median "
        f"{low.median():.0%}: a small NC0 promises nothing."
    )


both = (
    good
    if (figures.fraction_of_start(good)["nc0"] >= 1).nunique() == 2
    else good[:0]
)
figures.show_if_any(both, "", tell_caught)

# %% [markdown]
# ## What was shown
#
# On an MLP and 1,400 digits:


# %% tags=["hide-input"]
def conclude(rows):
    """The findings in numbers."""
    fits = {m: r2(rows, m) for m in ("nc3", "nc2", "nc1")}
    inside = within(rows)
    found = partial(good)
    return (
        f"- log NC0 explains {fits['nc3']:.0%} of NC3 over {len(rows)} settings, {fits['nc2']:.0%} "
        f"of NC2, {fits['nc1']:.0%} of NC1.\n"
        f"- Within one optimizer, R² goes from {inside['r2'].min():.2f} to "
        f"{inside['r2'].max():.2f}.\n"
        f"- NC4 is at least {good['nc4'].min():.2f} in every converged run, collapsed or not.\n"
        f"- In {len(found)} of {len(good):,} runs NC1 and NC2 are met and NC3 is not: "
        f"{count_words(found)}.\n"
        f"- NC0 that is large for the size of W is a sure sign of no collapse, by the bound. NC0 "
        f"that does not fall excludes nothing, and a small NC0 is no sign of collapse; under "
        f"SGD it is a sign of decay."
    )


figures.show_if_any(all_six, "", conclude)

# %% [markdown]
# ## What this does not show
#
# The paper's networks and data. And {eq}`diagnostic-bound` is about NC0 *over* $\lVert W\rVert$, which is a
# better regressor in principle than NC0. We could not try it: of $W$ the store keeps the smallest singular value
# and the mean of the others. They give $\lVert W\rVert$ where the others are equal, and not where one of them is
# far larger, as it is where NC0 is large.
