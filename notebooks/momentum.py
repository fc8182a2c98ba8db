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
# With momentum, an optimizer remembers the gradients of earlier steps. The paper {cite}`optimizer2026`
# finds that momentum accelerates neural collapse under SGD. This chapter asks by how much, and what
# momentum does to the other five optimizers.
#
# **What you will learn**
#
# - by how much: for NC0 under SGD by the factor $1/(1-\beta)$ to leading order, up to a critical momentum;
# - that under SGDW momentum has no effect on NC0 at all;
# - whether under SGD momentum does more than a larger learning rate would do;
# - why for Adam, AdamW, Signum and SignumW, whose momentum is an average and not a sum, there is no
#   such factor, and what we see instead.

# %%
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.ticker import LogLocator, NullFormatter

from ncbook import figures, sweep, theory
from ncbook.pages import six_grids

figures.start_chapter()

# %% [markdown]
# ## A sum or an average
#
# SGD adds up: $v \leftarrow \beta v + g$. A gradient $g$ moves the weight by $\eta g$ now, by
# $\eta\beta g$ in the next step, then by $\eta\beta^2 g$: in all by
#
# $$ \eta\,(1 + \beta + \beta^2 + \dots)\, g = \frac{\eta}{1-\beta}\, g . $$ (momentum-sum)
#
# Adam and Signum average: $m \leftarrow \beta m + (1-\beta)\, g$. In all a gradient counts once,
# whatever $\beta$ is. So raising $\beta$ from 0 to 0.98 makes SGD's steps fifty times as large, and
# leaves the size of Adam's as it was.
#
# Coupled decay is part of $g$, and is multiplied, too. Decoupled decay is not part of $g$. Hence NC0,
# which under SGD and SGDW feels nothing but the decay ({doc}`theorem_sgd`), falls at the rates
#
# $$ \text{SGD: } \frac{\lambda\eta}{1-\beta}, \qquad \text{SGDW: } \lambda\eta
# \qquad\text{a step, to leading order.} $$ (momentum-rate)
#
# For SGDW this does not depend on $\beta$. For SGD more momentum helps until
# $\beta^* = (1-\sqrt{\eta\lambda})^2$ (`theory.critical_momentum`); beyond it the row sum swings, and
# more momentum slows it down.

# %% [markdown]
# ## What the paper says
#
# The paper says that "momentum amplifies the effect of weight decay on the decrease of NC metrics in SGD, as shown in
# the heatmap in Figure 4", a ResNet9 on Fashion-MNIST. "The effect of momentum on the NC metrics becomes
# larger for larger values of weight decay." Its Theorem 3.1 has the rate $\lambda/\log\beta^{-1}$, which
# is smaller than {eq}`momentum-rate` says; {doc}`theorem_sgd` compares the two. The text does not give
# Figure 4's learning rate. It is said to be 0.001 where some of its runs are taken up again (Appendix
# D.4.1), but two of these have a momentum or a weight decay that the grid has not.

# %% [markdown]
# ## The setting here, which is smaller
#
# **We do not train a ResNet9.** Ours is the book's small default: 1,400 images of 8 × 8 digits and a
# batch-norm MLP with three hidden layers. Grids, epochs and schedule are the paper's, but an epoch has 11
# steps and not 469.

# %% tags=["hide-input"]
six_grids.how_to_train()

# %%
FOUR = list(figures.MAIN)
KEY = ["optimizer", "lr", "weight_decay", "seed"]
names = figures.LABELS

stored = six_grids.stored()
grids = six_grids.complete(stored)
good = figures.converged(grids)
sgd = good[good["optimizer"] == "sgd"]
sgdw = good[good["optimizer"] == "sgdw"]


# %% tags=["hide-input"]
figures.show_if_any(grids, six_grids.LINE, lambda _: six_grids.counted(stored))

# %% [markdown]
# ## Where we agree with the paper, and where not
#
# The outcome first; the evidence is in the sections below. Every line is computed from the stored
# runs.


# %% tags=["hide-input"]
def upwards(runs):
    """Each metric's ratio over one step up in momentum, all else equal."""
    ordered = runs.sort_values([*KEY, "momentum"])
    before = ordered.groupby(KEY)[[*FOUR, "momentum"]].shift()
    steps = ordered[[*KEY, "momentum"]].assign(before=before["momentum"])
    return steps.join(ordered[FOUR] / before[FOUR]).dropna(subset="nc0")


def below(steps):
    """The steps up that stay below the critical momentum."""
    star = theory.critical_momentum(steps["lr"], steps["weight_decay"])
    return steps[steps["momentum"] <= star]


TWINS = {"0.01": ((0.001, 0.9), (0.01, 0.0)), "0.02": ((0.001, 0.95), (0.01, 0.5))}  # fmt: skip


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
def on_sgd(steps):
    """Do the metrics fall with momentum below the critical one?"""
    decayed = steps[steps["weight_decay"] > 0]
    falls = (below(decayed)[FOUR] < 1).sum()
    count = len(below(decayed))
    listed = ", ".join(f"{figures.METRICS[m]} in {falls[m]}" for m in FOUR)
    return (
        falls["nc0"] > 0.95 * count and falls.min() > 0.5 * count,
        f"**Does momentum accelerate under SGD?** Of {count} steps up in momentum that stay "
        f"below β*, with decay, {listed} lower the metric.",
    )


def on_decay(steps):
    """Is the effect larger where decay is stronger?"""
    rows = below(steps[(steps["momentum"] == 0.9) & (steps["before"] == 0.7)])
    weak, strong = (
        rows[rows["weight_decay"] == decay]["nc0"].median()
        for decay in (5e-4, 0.05)
    )
    return (
        strong < weak,
        f"**The more so, the stronger the decay?** From β = 0.7 to 0.9 NC0 is "
        f"multiplied by {weak:.2f} at λ = 0.0005 and by {strong:.2f} at λ = 0.05 (medians).",
    )


def on_beyond(steps):
    """Does more momentum always help?"""
    rows = steps[steps["weight_decay"] > 0]
    beyond = rows[~rows.index.isin(below(rows).index)]
    rises = (beyond["nc0"] > 1).sum()
    return (
        None,
        f"**Without end?** Beyond β* = (1 − √(ηλ))² NC0 rises in {rises} of {len(beyond)} "
        f"steps up. The paper does not speak of this limit.",
    )


def on_twins(steps):
    """Would a larger learning rate have done the same?"""
    off = (twins(sgd)["nc3"] - 1).abs().max()
    return (
        None,
        f"**Would a larger learning rate do the same?** SGD's runs with equal η/(1 − β) "
        f"and different momenta have values of NC3 that differ by {off:.1%} at most.",
    )


def verdicts(runs):
    """The disagreements first."""
    steps = upwards(runs)
    checks = (on_sgd, on_decay, on_beyond, on_twins)
    return figures.compared([check(steps) for check in checks])


# every check has something to look at
whole = sgd if len(twins(sgd)) and len(below(upwards(sgd))) else sgd[:0]
figures.show_if_any(whole, "", verdicts)

# %% [markdown]
# (paper-figure-4)=
# ## Figure 4
#
# NC0, NC2 and NC3 at the end under SGD, over momentum and weight decay: the mean over the seeds. Grey: no
# run reached 99 % training accuracy; n is how many did, of how many. The paper's Figure 4 has one learning rate or a mean over three;
# we show the three one by one. It shows, the text says, a decrease "both by increasing weight decay for
# fixed momentum or by increasing momentum for fixed non-zero weight decay"; there are no numbers in it.


# %% tags=["hide-input"]
def draw_maps(lr, metrics=("nc0", "nc2", "nc3")):
    """One map a metric, at one learning rate."""

    def draw(runs):
        rows = runs[runs["lr"] == lr]
        n = len(figures.converged(rows))
        maps = [
            figures.heatmaps(
                rows, [m], f"SGD, η = {lr:g} (n = {n} of {len(rows)})"
            )
            for m in metrics
        ]
        for metric, figure in zip(metrics, maps, strict=True):
            words = f"{figures.METRICS[metric]} over momentum and weight decay"
            figure.set_label(f"{figure.get_suptitle()}: {words}")
        return figures.side_by_side(*maps)

    return draw


of_sgd = grids[grids["optimizer"] == "sgd"]
rates = sorted(of_sgd["lr"].unique(), reverse=True)
lines = six_grids.line("sgd")
figures.with_lines(of_sgd, lines, *map(draw_maps, rates))

# %% [markdown]
# Each map has its own colours. NC0 in the row of $\lambda = 0$ is the same number whatever the momentum and
# the learning rate: nothing but decay moves it.


# %% tags=["hide-input"]
def tell_maps(runs):
    """Where the least NC3 stands at each learning rate."""
    by = ["lr", "weight_decay", "momentum"]
    means = figures.converged(runs).groupby(by)["nc3"].mean().reset_index()
    least = means.loc[means.groupby("lr")["nc3"].idxmin()]
    parts = [
        f"{r.nc3:.2g} at η = {r.lr:g} (β = {r.momentum:g}, λ = {r.weight_decay:g})"
        for r in least.itertuples()
    ]
    return f"The least NC3 in the maps: {'; '.join(parts)}."


figures.show_if_any(of_sgd if len(sgd) else of_sgd[:0], "", tell_maps)

# %% [markdown]
# ## By how much: the law
#
# NC0 at the end over NC0 at the start, against $1/(1-\beta)$, at one learning rate. Circles are runs, hollow
# ones below 99 % training accuracy; lines are the exact law behind {eq}`momentum-rate`, drawn through
# all momenta. By {eq}`momentum-rate` ten times $1/(1-\beta)$ does to SGD's NC0 what ten times $\lambda$ does.
# Near $10^{-6}$ rounding to float32 ends the fall, and circles leave the line. First SGD, then SGDW.

# %%
LR = 0.0679
STEPS, EPOCHS = 11, 200
MOMENTA = sweep.GRIDS["sgd"].momenta
DECAYS = (5e-4, 5e-3, 0.05)
SHADES = dict(zip(DECAYS, ("#56B4E9", "#0072B2", "#003A66"), strict=True))


def law(beta, decay, decoupled):
    """What is left of NC0, by the exact law."""
    return theory.row_sum_ratio(LR, beta, decay, STEPS, EPOCHS, decoupled)


# %% tags=["hide-input"]
def draw_one(axis, rows, name):
    """Runs and lines of SGD or SGDW."""
    fine = 1 - 1 / np.geomspace(1, 50, 200)  # β from 0 to 0.98
    done = figures.converged(rows).index
    for decay, shade in SHADES.items():
        line = law(fine, decay, name == "sgdw")
        axis.plot(1 / (1 - fine), line, color=shade, lw=1.2, label=f"{decay:g}")
        some = rows[rows["weight_decay"] == decay]
        fill = np.where(some.index.isin(done), shade, "none")
        at, left = 1 / (1 - some["momentum"]), some["nc0"] / some["nc0_init"]
        axis.scatter(at, left, s=24, c=list(fill), edgecolor=shade, zorder=3)
    ticks = [1 / (1 - beta) for beta in MOMENTA]
    axis.set(xscale="log", yscale="log", ylim=(1e-8, 3), title=f"{names[name]} (n = {len(rows)})")  # fmt: skip
    axis.set_xticks(ticks, [f"{t:.3g}" for t in ticks])
    axis.minorticks_off()
    axis.set_xlabel("1 / (1 − β)")


# %% tags=["hide-input"]
def one_law(runs, name):
    """NC0 left against 1/(1 − β), for SGD or SGDW."""
    rows = runs[(runs["optimizer"] == name) & (runs["lr"] == LR)]
    rows = rows[(rows["status"] == "ok") & rows["weight_decay"].isin(DECAYS)]
    figure, axis = plt.subplots(figsize=(4.4, 3.4), layout="constrained")
    draw_one(axis, rows, name)
    axis.set_ylabel("NC0 at the end, over its start")
    handles = axis.get_legend_handles_labels()
    figure.legend(*handles, title="λ", loc="outside right center")
    figure.set_label(
        f"What is left of NC0 against 1/(1 − β) under {names[name]}: circles and the law's lines"
    )
    plt.close(figure)
    return figure


def draw_law(runs):
    """Both."""
    return figures.side_by_side(one_law(runs, "sgd"), one_law(runs, "sgdw"))


both = grids[grids["optimizer"].isin(["sgd", "sgdw"])]
figures.show_if_any(both, "", draw_law)


# %% tags=["hide-input"]
def spread_of(runs):
    """By how much NC0 varies over the momenta, all else equal."""
    groups = runs.groupby(["lr", "weight_decay", "seed"])["nc0"]
    return (groups.max() / groups.min() - 1)[groups.size() > 1]


def tell_law(runs):
    """How exact, and how flat SGDW is."""
    done = runs[runs["status"] == "ok"]
    left = figures.exact_law(done)
    off = (done["nc0"] / done["nc0_init"] / left - 1).abs()
    seen = left * done["nc0_init"] > 0.01
    flat = spread_of(done[seen & (done["optimizer"] == "sgdw")])
    return (
        f"Of all {len(done):,} runs of SGD and SGDW, at all learning rates, {seen.sum()} "
        f"should end above 0.01; the largest relative deviation from the law among them "
        f"is {off[seen].max():.0e}. Under SGDW the six momenta, with all else equal, "
        f"give the same NC0 to {flat.max():.0e}."
    )


figures.show_if_any(both, "", tell_law)

# %% [markdown]
# ## Only a larger step?
#
# By {eq}`momentum-sum` SGD with $(\eta, \beta)$ should behave like SGD without momentum and learning rate
# $\eta/(1-\beta)$. Two pairs of the grid's settings have this number in common, exactly: $(0.001, 0.9)$ and
# $(0.01, 0)$ have 0.01; $(0.001, 0.95)$ and $(0.01, 0.5)$ have 0.02. If momentum did something of its own to
# neural collapse, the pairs would end differently. The table has the ratio, the first of a pair over
# the second, at every weight decay and seed: the median, and below it the least and the largest.


# %% tags=["hide-input"]
def show_twins(runs):
    """The table."""
    groups = twins(runs).groupby("rate")
    table = groups.agg(figures.with_range, digits=".3g")
    table = table.rename(columns=figures.METRICS)
    table.insert(0, "pairs", groups.size())
    return figures.shown(table.rename_axis("η / (1 − β)"))


def tell_twins(runs):
    """Over how far momentum alone would have moved them."""
    same = runs[runs["lr"] == 0.01].set_index(["weight_decay", "seed"])
    heavy, light = (same[same["momentum"] == beta][FOUR] for beta in (0.9, 0.0))
    alone = (heavy / light).dropna()
    listed = ", ".join(
        f"{figures.METRICS[m]} by {alone[m].median():.2g}" for m in FOUR
    )
    off = (twins(runs)[FOUR] - 1).abs().max()
    most = ", ".join(f"{figures.METRICS[m]} {off[m]:.1%}" for m in FOUR)
    return (
        f"The largest differences within a pair: {most}. Momentum alone, from 0 to 0.9 at "
        f"η = 0.01, multiplies {listed} (medians of {len(alone)})."
    )


paired = sgd if len(twins(sgd)) else sgd[:0]
figures.show_if_any(paired, "", show_twins, tell_twins)

# %% [markdown]
# Where pairs end alike, momentum under SGD is a learning rate. This does not make the paper's finding wrong.
# It says what it is: momentum accelerates neural collapse as it accelerates everything that SGD does.

# %% [markdown]
# ## The other five
#
# Every run beside the run without momentum that equals it in everything else: optimizer, learning rate,
# weight decay and seed. The figure has the ratio of the metric, with over without; median and quartiles
# over all settings with decay. Below the dotted line momentum has helped.


# %%
def over_none(runs):
    """Each metric over that of the same run without momentum."""
    decayed = runs[runs["weight_decay"] > 0]
    none = decayed[decayed["momentum"] == 0].set_index(KEY)[FOUR]
    rows = decayed[decayed["momentum"] > 0].set_index([*KEY, "momentum"])[FOUR]
    partners = none.reindex(rows.droplevel("momentum").index).to_numpy()
    return (rows / partners).dropna()


# %% tags=["hide-input"]
def place(momentum):
    """Where a momentum stands on the axis: log10 of 1/(1 − β)."""
    return -np.log10(1 - np.asarray(momentum))


def draw_line(axis, ratios, name):
    """One optimizer's line and band; at β = 0 the ratio is one."""
    groups = ratios.groupby("momentum")
    low, middle, high = ([1, *groups.quantile(q)] for q in (0.25, 0.5, 0.75))
    x = [0, *place(list(groups.groups))]
    look = dict(color=figures.COLOURS[name], label=names[name])
    style = "--" if name.endswith("w") else "-"
    axis.plot(x, middle, style, marker="o", ms=4, **look)
    axis.fill_between(x, low, high, color=look["color"], alpha=0.1, lw=0)


# %% tags=["hide-input"]
def draw_ratio(ratios, metric):
    """One metric, a line for each optimizer."""
    figure, axis = plt.subplots(figsize=(4.6, 3.6), layout="constrained")
    for name in [o for o in names if o in ratios.index.levels[0]]:
        draw_line(axis, ratios.loc[name][metric], name)
    axis.set_xticks(place(MOMENTA), [f"{b:g}" for b in MOMENTA], rotation=45)
    axis.axhline(1, color="#555555", lw=0.8, ls=":")
    title = f"{figures.METRICS[metric]}, with momentum over without"
    axis.set(yscale="log", xlabel="momentum β", ylabel=title)
    if np.ptp(np.log10(axis.get_ylim())) < 3:
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter(NullFormatter())
    figure.legend(loc="outside right center")
    figure.suptitle(f"n = {len(ratios):,} pairs")
    figure.set_label(f"{title}, against momentum: a line for each optimizer")
    plt.close(figure)
    return figure


def draw_ratios(runs):
    """NC0 to NC3 over those without momentum."""
    ratios = over_none(runs)
    return figures.side_by_side(*(draw_ratio(ratios, m) for m in FOUR))


lonely = good if len(over_none(good)) else good[:0]
figures.show_if_any(lonely, "", draw_ratios)


# %% tags=["hide-input"]
def show_ratios(runs):
    """At β = 0.9: median, and least to largest."""
    at = over_none(runs)
    at = at[at.index.get_level_values("momentum") == 0.9]
    groups = at.groupby("optimizer")
    table = groups.agg(figures.with_range)
    table = table.loc[[o for o in names if o in table.index]]
    table.index = [
        f"{names[o]} ({n})" for o, n in groups.size()[table.index].items()
    ]
    return figures.shown(table.rename(columns=figures.METRICS))


def tell_lost(runs):
    """Which have no partner."""
    decayed = runs[(runs["weight_decay"] > 0) & (runs["momentum"] > 0)]
    kept = len(over_none(runs))
    return (
        f"{len(decayed) - kept:,} of {len(decayed):,} converged runs with momentum and decay "
        f"have no partner: the run without momentum did not converge, or is not stored."
    )


figures.show_if_any(lonely, "", show_ratios, tell_lost)

# %% [markdown]
# The table has $\beta = 0.9$ over $\beta = 0$: the median, and below it the least and the largest, of as many pairs as
# stand in brackets. At $\beta = 0.9$ and at 0.98, in words (medians):


# %% tags=["hide-input"]
def tell_others(runs):
    """What the medians at 0.9 and 0.98 say."""
    ratios = over_none(runs)
    middle = ratios.groupby(["momentum", "optimizer"]).median()
    lines = []
    for name in ("adam", "adamw", "signum", "signumw", "sgdw"):
        if all((beta, name) in middle.index for beta in (0.9, 0.98)):
            early, late = (middle.loc[(beta, name)] for beta in (0.9, 0.98))
            lines.append(
                f"- {names[name]}: NC0 × {early['nc0']:.2f} at β = 0.9 and × {late['nc0']:.2f} "
                f"at 0.98; NC3 × {early['nc3']:.2f} and × {late['nc3']:.2f}"
            )
    return "\n".join(lines)


figures.show_if_any(lonely, "", tell_others)

# %% [markdown]
# Why should Signum and SignumW feel momentum, if their average has weight one? They take the *sign* of it.
# Without momentum it is the sign of one noisy minibatch, and every weight jumps by $\pm\eta$ in each step.
# An average over minibatches has less noise, and more often the sign that coupled decay asks for. If this is
# the reason, the gain should come with the first step up already. It is an idea that we have not tested
# further.


# %% tags=["hide-input"]
def tell_first(runs):
    """What the first step up does to NC0, and what the best momentum does."""
    middle = over_none(runs).groupby(["optimizer", "momentum"])["nc0"].median()
    parts = [
        f"{names[o]}, × {middle[o, 0.5]:.2f} at β = 0.5, and × {middle[o].min():.2f} at best "
        f"(β = {middle[o].idxmin():g})"
        for o in ("signum", "signumw")
        if (o, 0.5) in middle.index
    ]
    return f"NC0's medians: {'; '.join(parts)}."


signs = lonely[lonely["optimizer"].isin(["signum", "signumw"])]
figures.show_if_any(signs, "", tell_first)

# %% [markdown]
# ## All maps
#
# NC3 over momentum and weight decay for each optimizer, the mean over the converged runs of all learning
# rates and seeds; the paper shows SGD's alone. Each map has its own scale of colours, so compare colours
# within a map, and numbers between maps. Cells may differ in which learning rates converged, and with
# them in what they average.


# %% tags=["hide-input"]
def draw_all(runs):
    """One NC3 map an optimizer."""
    maps = []
    for name in names:
        rows = runs[runs["optimizer"] == name]
        if len(rows):
            n = len(figures.converged(rows))
            title = f"{names[name]} (n = {n} of {len(rows)})"
            figure = figures.heatmaps(rows, ["nc3"], title=title)
            figure.set_label(f"{title}: NC3 over momentum and weight decay")
            maps.append(figure)
    return figures.side_by_side(*maps)


figures.show_if_any(grids, "", draw_all)

# %% [markdown]
# How much do rows and columns of these maps differ? The largest over the least cell of a row, where momentum
# alone changes, and of a column, where decay alone does; the median over the rows, and over the columns.


# %%
def directions(runs):
    """Largest over least mean NC3 along momentum, and along decay."""
    by = ["weight_decay", "momentum"]
    table = runs.groupby(by)["nc3"].mean().unstack()
    rows, columns = (table.max(axis=a) / table.min(axis=a) for a in (1, 0))
    return pd.Series({"momentum": rows.median(), "decay": columns.median()})


# %% tags=["hide-input"]
def show_directions(runs):
    """For each optimizer."""
    table = {
        names[o]: directions(runs[runs["optimizer"] == o])
        for o in names
        if (runs["optimizer"] == o).any()
    }
    table = pd.DataFrame(table).T.rename_axis("NC3 changes with")
    return figures.shown(table, momentum="× {:.1f}", decay="× {:.1f}")


figures.show_if_any(good, "", show_directions)

# %% [markdown]
# ## What was shown
#
# On an MLP and 1,400 digits:


# %% tags=["hide-input"]
def conclude(runs):
    """The findings in numbers."""
    middle = over_none(runs).groupby(["optimizer", "momentum"]).median()
    at = {o: middle.loc[(o, 0.9)] for o in names if (o, 0.9) in middle.index}
    listed = ", ".join(f"{names[o]} {row['nc0']:.2f}" for o, row in at.items())
    off = (twins(sgd)["nc3"] - 1).abs().max()
    return (
        f"- {on_sgd(upwards(sgd))[1]}\n"
        f"- {tell_law(both)}\n"
        f"- SGD's runs with equal η/(1 − β) and different momenta have values of NC3 "
        f"that differ by {off:.1%} at most.\n"
        f"- Medians of NC0 with β = 0.9 over that without: {listed}."
    )


figures.show_if_any(lonely if len(whole) else lonely[:0], "", conclude)

# %% [markdown]
# ## What this does not show
#
# The paper's networks. For NC0 under SGD and SGDW that is no restriction: the law knows no network. For
# the rest it is one. And $\beta$ is one setting of several for Adam, whose $\beta_2$ stays at 0.999
# throughout.
