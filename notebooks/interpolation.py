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
# Adam and AdamW differ in one line: where the weight decay goes in. In Section 3.4 the paper
# {cite}`optimizer2026` walks from one to the other. It holds the total decay fixed and moves it, bit
# by bit, from one place to the other. This chapter takes the same walk in ten steps, for Adam and
# for Signum, and for SGD, where we know the answer beforehand.
#
# **What you will learn**
#
# - what one unit of decoupled decay is worth in units of coupled decay: a fixed amount under SGD,
#   and one that goes to zero with the gradients under Adam and Signum;
# - that NC0 on SGD's whole walk is predicted by the exact law of {doc}`theorem_sgd`, with no fitted
#   number;
# - the paper's Figure 7 on a small network: when is the change smooth, and does accuracy stay?
# - what the walk really varies. It is the *amount* of coupled decay. What else the total holds
#   matters little.

# %%
import numpy as np
import pandas as pd
from IPython.display import Markdown, display
from matplotlib import pyplot as plt

from ncbook import data, figures, store, sweep, theory, train

figures.start_chapter()

# %% [markdown]
# ## One decay, two places
#
# Let $d(\cdot)$ be what the optimizer makes of a gradient, its *direction*: the momentum sum for
# SGD, the normalised average for Adam, the sign of an average for Signum. A total decay $\Lambda$ is
# divided by a share $\theta$ into a coupled part $\lambda_c = \theta\Lambda$ and a decoupled part
# $\lambda_d = (1-\theta)\Lambda$:
#
# $$ g \leftarrow \nabla_W\mathcal L + \lambda_c W, \qquad
# W \leftarrow (1 - \eta\lambda_d)\,W - \eta\,d(g). $$ (mix-update)
#
# At $\theta = 1$ this is Adam {cite}`kingma2014`, at $\theta = 0$ AdamW {cite}`loshchilov2019`, step by step
# (`test_interpolation_ends_at_adam_and_adamw`). With the sign direction it goes from SignumW to
# Signum {cite}`bernstein2018`, with SGD's from SGDW to SGD.

# %% [markdown]
# ## What the paper did
#
# It trained a ResNet9 on MNIST with the mixed Adam, at total decay $\Lambda = 0.0005$ and momentum
# 0.9, and drew the metrics against the coupled part (its Figure 7; the text has no numbers). It
# reports "a smooth improvement in NC metrics—particularly NC0, NC2, and NC3—while the validation
# accuracy remains largely unaffected". This suggests, it says, that coupled decay is "a critical
# factor in enabling neural collapse", but not needed to generalise well. The text gives neither the
# learning rate nor the number of seeds, and speaks of Adam alone.

# %% [markdown]
# ## The setting here, which is smaller
#
# **We do not train a ResNet9 on MNIST.** Ours is the book's small default: 1,400 images of 8 × 8
# digits and a batch-norm MLP with three hidden layers, trained for 200 epochs, as all of the paper's
# sweeps were. But an epoch has 11 steps here, and 469 on MNIST's 60,000 images. Weight decay works
# step by step, so at the paper's total it has some forty times less to act. We therefore add two
# stronger totals, ten and a hundred times as large.
#
# Momentum is 0.9. The learning rates are the middle ones of the paper's grids: 0.005 for Adam and
# Signum, 0.01 for SGD. Five seeds each. Eleven shares from 0 to 1 are these optimizers' default.

# %% tags=["hide-input"]
LINE = """for optimizer in adam_mixed signum_mixed sgd_mixed; do
    papermill notebooks/sweep.ipynb out.ipynb -p optimizer $optimizer \\
        -p weight_decays "[5e-4, 5e-3, 0.05]" -p seeds "[0, 1, 2, 3, 4]"
done"""
figures.folded(LINE, "The lines that train all runs of this chapter")

# %%
SETTING = dict(dataset="digits", model="mlp", epochs=200)
TOTALS = [5e-4, 5e-3, 0.05]
MIXED = ["adam_mixed", "signum_mixed", "sgd_mixed"]


# %%
def runs_of(name):
    """One optimizer's walks, with λ_c and λ_d as columns."""
    grid = sweep.MIXED_GRIDS[name]
    (lr,), (beta,) = grid.lrs, grid.momenta
    runs = store.load_runs(optimizer=name, weight_decay=TOTALS)
    runs = figures.of_setting(runs, **SETTING, lr=lr, momentum=beta)
    runs["optimizer"] = name.removesuffix("_mixed")
    runs["total_decay"] = runs["weight_decay"]
    share = runs["coupled_share"].astype(float)
    runs["coupled_decay"] = share * runs["total_decay"]
    return runs.assign(decoupled_decay=(1 - share) * runs["total_decay"])


stored = pd.concat([runs_of(name) for name in MIXED])
good = figures.converged(stored)

# %% tags=["hide-input"]
figures.show_if_any(
    stored,
    "",
    lambda runs: (
        f"In the store: {figures.counted(runs)}. What follows is about those that "
        f"reached it. Lines are medians over the seeds, bands go from the least to "
        f"the largest seed; with five seeds such a band covers the true median "
        f"with probability {1 - 2**-4:.0%}."
    ),
)

# %% [markdown]
# ## What decoupled decay is worth
#
# Write both decays as one. Divide the step by what multiplies the coupled term, and ask which
# coupled decay $\lambda_{\mathrm{eff}}$ would shrink a weight as fast as the two together:
#
# $$ \lambda_{\mathrm{eff}} = \lambda_c + \kappa\,\lambda_d . $$ (mix-worth)
#
# **SGD.** A gradient $g$ moves the weight by $\eta g$ now and by $\eta\beta g, \eta\beta^2g, \dots$
# in the steps that follow, $\eta g/(1-\beta)$ in all. Coupled decay is part of $g$ and gains that
# factor. Decoupled decay does not. So $\kappa = 1 - \beta$: a tenth, at momentum 0.9.
#
# **Adam.** The momentum average has weight one in all, but $g$ is divided by $\sqrt s$, the root
# mean square of the recent gradients of that one weight. Hence $\kappa = \sqrt s$, weight by weight.
# **Signum.** $\operatorname{sign}(m) = m/|m|$ and $\kappa = |m|$.
#
# Here lies the difference. As the training set is learned, gradients go to zero, and $\kappa$ with
# them: a unit of decoupled decay is worth less and less coupled decay. This is a scale argument for
# Adam and Signum, no theorem ($s$ contains the coupled term, too). It makes a prediction that we can
# test. Under SGD the end should depend on $\lambda_c + (1-\beta)\lambda_d$. Under Adam and Signum it
# should depend on $\lambda_c$, and hardly on what is in the other place.

# %% [markdown]
# ### How much can decoupled decay do by itself?
#
# There is a bound that needs no gradient. By {eq}`mix-update` whatever is in a weight is multiplied,
# over the training, by
#
# $$ \prod_t (1 - \eta_t\lambda_d) \;\approx\; e^{-\lambda_d\sum_t\eta_t} , $$ (mix-kept)
#
# and what comes in later by fewer of these factors. For AdamW, that is with all of the total
# decoupled, here and with MNIST's number of steps, at learning rate 0.005:


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

# %% tags=["hide-input"]
rates = sweep.GRIDS["adamw"].lrs
least = ", ".join(f"{kept(lr, TOTALS[0], PAPER):.0%}" for lr in rates)
display(
    Markdown(
        f"With the three learning rates of the paper's grid, "
        f"{', '.join(f'{lr:g}' for lr in rates)}, AdamW at the paper's total keeps "
        f"{least} of a weight over its whole training. If its walk used one of "
        f"them, it started close to Adam with no decay at all, and ended at Adam "
        f"with {TOTALS[0]:g}. That is a fair test of coupled decay. It says little "
        f"about decoupled decay, which at this total can hardly act."
    )
)

# %% [markdown]
# ## The control: SGD
#
# Under SGD the row sum $u = W^\top\mathbf 1$ never sees the data ({doc}`theorem_sgd`). With both
# decays it obeys
#
# $$ v \leftarrow \beta v + \lambda_c u, \qquad
# u \leftarrow (1-\eta\lambda_d)\,u - \eta v , $$ (mix-law)
#
# and NC0 at the end over NC0 at the start is a number that `theory.row_sum_ratio` works out from
# the settings. For small $\eta\Lambda$ it is close to
# $\exp\bigl(-\frac{\lambda_{\mathrm{eff}}}{1-\beta}\sum_t\eta_t\bigr)$ with the
# $\lambda_{\mathrm{eff}}$ of {eq}`mix-worth`: on a log axis a straight line in $\theta$.


# %%
def law(runs):
    """NC0 at the end over the start by equation (mix-law)."""
    columns = ("lr", "momentum", "weight_decay", "coupled_share")
    *numbers, share = (runs[c].to_numpy(float) for c in columns)
    return theory.row_sum_ratio(*numbers, HERE, 200, 1 - share)


is_sgd = stored["optimizer"] == "sgd"
sgd = stored[is_sgd & (stored["status"] == "ok")]


# %% tags=["hide-input"]
SHADES = dict(zip(TOTALS, ("#56B4E9", "#0072B2", "#003A66"), strict=True))


def draw_law(runs):
    """NC0 left by SGD against the share: measured, and by the law."""
    figure, axis = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
    runs = runs.assign(left=runs["nc0"] / runs["nc0_init"], law=law(runs))
    for decay, rows in runs.groupby("weight_decay"):
        shade = SHADES[decay]
        line = rows.groupby("coupled_share")["law"].first()
        axis.plot(line.index, line, color=shade, lw=1.2)
        look = dict(s=22, facecolor="none", edgecolor=shade)
        axis.scatter(
            rows["coupled_share"], rows["left"], **look, label=f"{decay:g}"
        )
    axis.set(yscale="log", xlabel=figures.X_LABELS["coupled_share"])
    axis.set_ylabel("NC0 at the end, over the start")
    axis.set_title(f"SGD: {len(runs)} runs (circles), exact law (lines)")
    figure.set_label(
        "SGD: circles of NC0 against the share lie on the law's lines"
    )
    figure.legend(title="total decay Λ", loc="outside right center")
    plt.close(figure)
    return figure


def off_the_law(runs):
    """The largest relative deviation of NC0's ratio from the law."""
    return (runs["nc0"] / runs["nc0_init"] / law(runs) - 1).abs().max()


def tell_law(runs):
    """How far the runs are from the law."""
    return (
        f"Every circle is a run; the lines are no fit. The largest relative "
        f"deviation among the {len(runs)} runs is {off_the_law(runs):.0e}. The law "
        f"knows no seed, so the circles of the seeds lie on top of each other."
    )


figures.show_if_any(sgd, "", draw_law, tell_law)

# %% [markdown]
# (paper-figure-7)=
# ## Figure 7, again
#
# Now all three optimizers, one figure for each total, the paper's first. The paper's figure has Adam
# alone, and shows "a smooth improvement" of NC0, NC2 and NC3 from left to right, and an accuracy that
# "remains largely unaffected".

# %% tags=["hide-input"]
PANELS = ("nc0", "nc2", "nc3", "test_acc")


def draw_walk(decay):
    """Figure 7 for one total."""

    def draw(runs):
        rows = runs[runs["total_decay"] == decay]
        title = f"Total decay {decay:g} (n = {len(rows)})"
        drawn = [
            figures.against(rows, "coupled_share", [metric], title=title)
            for metric in PANELS
        ]
        return figures.side_by_side(*drawn)

    return draw


totals = sorted(good["total_decay"].unique())
figures.with_lines(good, LINE, *map(draw_walk, totals))

# %% [markdown]
# How far does each walk lead, and how evenly? The table has medians over the seeds, from $\theta = 0$ to
# $\theta = 1$; how many of the ten steps lower NC0; and what part of the whole change of log NC0 falls on
# the largest of them. An even walk would have 10 %.


# %%
def medians(runs, *metrics):
    """Median over the seeds, for each optimizer, total and share."""
    by = ["optimizer", "total_decay", "coupled_share"]
    return runs.groupby(by)[list(metrics)].median()


def walks(runs):
    """One row a walk: where it leads, and its largest step."""
    rows = {}
    middle = medians(runs, "nc0", "nc3")
    for (name, decay), walk in middle.groupby(level=[0, 1]):
        walk = walk.droplevel([0, 1])
        if {0.0, 1.0} <= set(walk.index):
            rows[name, decay] = one_walk(walk)
    return pd.DataFrame.from_dict(rows, orient="index")


# %%
def one_walk(walk):
    """Ends and largest step; from NC0 and NC3 at every share."""
    steps = np.log(walk["nc0"]).diff().iloc[1:]
    row = {}
    for metric, (start, end) in walk.loc[[0, 1]].items():
        row[metric] = start / end
        text = f"{start:.3g} → {end:.3g}"
        row[figures.METRICS[metric]] = text.replace(" ", "\N{NO-BREAK SPACE}")
    row["steps down"] = f"{(steps < 0).sum()} of {len(steps)}"
    row["largest"] = steps.min() / steps.sum()
    row["first"] = steps.iloc[0] / steps.sum()
    return row


# %% tags=["hide-input"]
def named(table):
    """A table by optimizer and total, with rows as a reader knows them."""
    keys = [
        f"{figures.LABELS[o]},\N{NO-BREAK SPACE}{d:g}" for o, d in table.index
    ]
    return table.set_axis(pd.Index(keys, name="optimizer,\N{NO-BREAK SPACE}Λ"))


def show_walks(runs):
    """The table."""
    table = walks(runs).drop(columns=["nc0", "nc3", "first"])
    table = table.rename(columns={"largest": "largest step"})
    return figures.shown(named(table), **{"largest step": "{:.0%}"})


figures.show_if_any(good, "", show_walks)


# %% tags=["hide-input"]
def listed(index):
    """'Adam at 0.0005 and 0.005; SGD at …'"""
    totals = {}
    for name, decay in index:
        totals.setdefault(figures.LABELS[name], []).append(f"{decay:g}")
    return "; ".join(f"{name} at {', '.join(t)}" for name, t in totals.items())


def tell_walks(runs):
    """Which walks are gradual, and which are done in their first tenth."""
    table = walks(runs)
    jumps, even = (
        table.index[table["first"] > 0.5],
        table[table["largest"] < 0.3],
    )
    parts = [
        f"Gradual, with no step that makes more than {even['largest'].max():.0%} of "
        f"the change: {listed(even.index)}."
    ] * bool(len(even))
    if len(jumps):
        parts.append(
            f"A jump, with more than half of the change in the first tenth of the "
            f"walk, from no coupled decay to some: {listed(jumps)}."
        )
    return " ".join(parts)


figures.show_if_any(good, "", tell_walks)

# %% [markdown]
# Whether a walk is smooth can depend on its total. {eq}`mix-worth` says why: if $\lambda_c$ alone
# decides, all walks run along one curve, and a larger total only means longer strides.
#
# Where does a walk start? By {eq}`mix-kept`, near training with no decay at all, if $\Lambda$ is
# small. Beside the starts, here are runs without decay, with the same learning rate and momentum:
# NC0 at the end, median and range.


# %%
def undecayed(name):
    """Runs of one optimizer with no decay."""
    grid = sweep.MIXED_GRIDS[f"{name}_mixed"]
    runs = store.load_runs(optimizer=name, weight_decay=0.0)
    point = SETTING | dict(lr=grid.lrs[0], momentum=grid.momenta[0])
    return figures.converged(figures.of_setting(runs, **point))


free = [undecayed(name) for name in ("adam", "signum", "sgd")]
free = pd.concat(free).assign(total_decay=0.0)


# %% tags=["hide-input"]
def show_starts(runs):
    """NC0 without decay, and at θ = 0 of every total."""
    both = pd.concat([free, runs[runs["coupled_share"] == 0]])
    groups = both.groupby(["total_decay", "optimizer"])["nc0"]
    table = groups.agg(figures.with_range, digits=".3g").unstack().fillna("–")
    names = {
        name: figures.LABELS[name] for name in figures.LABELS if name in table
    }
    table = table[list(names)].rename(columns=names).rename_axis(None, axis=1)
    return figures.shown(table.rename_axis("decoupled decay"))


figures.show_if_any(good if len(free) else free, "", show_starts)

# %% [markdown]
# ## The amount, not the share
#
# Now the test of {eq}`mix-worth`. Draw all three totals on one axis, against $\lambda_c$ alone. If
# decoupled decay is worth nothing, points from different totals fall on one curve, although at the
# same $\lambda_c$ their decoupled parts differ by far. The points above 0 are the walks' starts,
# with no coupled decay.


# %% tags=["hide-input"]
def draw_amount(name):
    """NC0 and NC3 against what decay is worth, one line a total."""

    def draw(runs):
        rows = runs[runs["optimizer"] == name]
        x = "effective_decay" if name == "sgd" else "coupled_decay"
        title = f"{figures.LABELS[name]} (n = {len(rows)})"
        drawn = [
            figures.against(rows, x, [metric], "total_decay", title)
            for metric in ("nc0", "nc3")
        ]
        return figures.side_by_side(*drawn)

    return draw


def draw_all(runs, names):
    """``draw_amount`` for those that there are."""
    present = [name for name in names if (runs["optimizer"] == name).any()]
    figures.show_if_any(
        runs if present else runs[:0], "", *map(draw_amount, present)
    )


draw_all(good, ["adam", "signum"])

# %% [markdown]
# For SGD the axis has to be $\lambda_c + (1-\beta)\lambda_d$, with which its fully decoupled runs
# have a place on the curve, too:

# %%
worth = 1 - good["momentum"]  # (mix-worth), for SGD
loose = worth * good["decoupled_decay"]
good["effective_decay"] = good["coupled_decay"] + loose
draw_all(good, ["sgd"])

# %% [markdown]
# In numbers: take the runs with all of a total $\Lambda$ coupled, and add $9\Lambda$ of decay, once
# coupled, once decoupled. Both are among the runs with ten times the total, at $\theta = 1$ and at
# $\theta = 0.1$. The table has what NC0 and NC3 are multiplied by, seed by seed: the median, with the least
# and the largest. Its last column is what {eq}`mix-kept` says that $9\Lambda$ of decoupled decay
# leaves of any weight.


# %%
def added(runs):
    """What 9Λ more decay in each place multiplies NC0 and NC3 by."""
    key = ["optimizer", "seed", "total_decay"]
    first = runs[runs["coupled_share"] == 1]
    second = runs[runs["coupled_share"].isin([0.1, 1.0])]
    fewer = (second["total_decay"] / 10).round(9)
    pairs = first.merge(
        second.assign(total_decay=fewer), on=key, suffixes=("_old", "")
    )
    places = {0.1: "decoupled", 1.0: "coupled"}
    ratios = {m: pairs[m] / pairs[m + "_old"] for m in ("nc0", "nc3")}
    more = pairs["coupled_share"].map(places)
    return pairs[key].assign(more=more, **ratios)


# %% tags=["hide-input"]
def show_added(runs):
    """Each ratio's median and range, and what (mix-kept) keeps."""
    by, ratios = ["optimizer", "total_decay"], added(runs)
    columns = {
        f"{figures.METRICS[m]}, {more}": rows.groupby(by)[m].agg(
            figures.with_range
        )
        for m in ("nc0", "nc3")
        for more, rows in ratios.groupby("more")
    }
    table = pd.DataFrame(columns).fillna("–")
    table["kept"] = [kept_by(name, 9 * decay) for name, decay in table.index]
    return figures.shown(named(table), kept="{:.2f}")


def kept_by(name, decay):
    """Equation (mix-kept) at this chapter's learning rate of an optimizer."""
    return kept(sweep.MIXED_GRIDS[f"{name}_mixed"].lrs[0], decay, HERE)


pairs = added(good)
figures.show_if_any(good if len(pairs) else pairs, "", show_added)


# %% tags=["hide-input"]
def span(values):
    """'70 % to 99 %' of a series of ratios."""
    return f"{values.min():.0%} to {values.max():.0%}"


def left(runs):
    """Under Adam and Signum: median ratios, for each place of the decay added."""
    pairs = added(runs[runs["optimizer"] != "sgd"])
    by = ["more", "optimizer", "total_decay"]
    return pairs.groupby(by)[["nc0", "nc3"]].median()


def tell_added(runs):
    """The ranges of these medians."""
    loose, tied = (left(runs).loc[place] for place in ("decoupled", "coupled"))
    return (
        f"Under Adam and Signum, 9Λ of coupled decay leaves {span(tied.nc0)} of "
        f"NC0, 9Λ of decoupled decay {span(loose.nc0)} (medians). Of NC3 they leave "
        f"{span(tied.nc3)} and {span(loose.nc3)}.\n\nSo decoupled decay is worth little, but "
        f"it is not worth nothing. What it does to NC0 is of the size of what the bound above "
        f"alone takes from any weight; at the larger total Adam's NC0 falls by more. And "
        f"coupled decay, too, comes to an end: Signum's NC3 hardly falls from Λ = 0.005 on."
    )


enough = left(good).index.get_level_values("more").nunique() == 2
figures.show_if_any(good if enough else good[:0], "", tell_added)

# %% [markdown]
# ## And accuracy?
#
# The paper finds the validation accuracy "largely unaffected". The digits have 397 test images, so
# that one image is 0.25 points of a per cent. For each seed we take the difference between the two
# ends of the walk, all coupled minus all decoupled; and for each walk the range of the medians at
# all of its shares.


# %%
def gains(runs):
    """Test accuracy at θ = 1 less that at θ = 0, in points, by seed."""
    key = ["optimizer", "total_decay", "seed"]
    sides = runs.pivot_table("test_acc", key, "coupled_share")
    sides = 100 * sides.reindex(columns=[0.0, 1.0])
    gain = (sides[1.0] - sides[0.0]).dropna()
    return gain.rename("gain").reset_index()


# %% tags=["hide-input"]
def gain_table(runs):
    """The differences over the seeds; and the medians' range over the shares."""
    groups = gains(runs).groupby(["optimizer", "total_decay"])["gain"]
    spread = groups.agg(figures.with_range, digits="+.2f")
    shares = medians(runs, "test_acc")["test_acc"].groupby(level=[0, 1])
    low, high = (
        end.reindex(spread.index).map("{:.2%}".format)
        for end in (shares.min(), shares.max())
    )
    columns = {
        "coupled less decoupled": spread,
        "all shares": low + " … " + high,
    }
    return pd.DataFrame(columns)


def show_gains(runs):
    """The table."""
    return figures.shown(named(gain_table(runs)))


def tell_gains(runs):
    """How large the largest of these differences is."""
    by = ["optimizer", "total_decay"]
    middle = gains(runs).groupby(by)["gain"].median()
    low, high = middle.min(), middle.max()
    images = len(data.load("digits").test_y) / 100
    return (
        f"The medians of the difference lie between {low:+.2f} and {high:+.2f} "
        f"points: {low * images:+.0f} to {high * images:+.0f} images."
    )


some = good if len(gains(good)) else good[:0]
figures.show_if_any(some, "", show_gains, tell_gains)

# %% [markdown]
# ## What was shown
#
# All of it on an MLP and 1,400 digits, at one learning rate and one momentum for each optimizer.


# %% tags=["hide-input"]
def conclude_sgd(runs):
    """What SGD's walk has shown."""
    return [
        f"**SGD.** The exact law gives NC0 in all {len(runs)} runs, to a relative "
        f"{off_the_law(runs):.0e}. Where a decay goes matters by a fixed factor, "
        f"{1 / (1 - runs['momentum'].iloc[0]):.0f} at momentum "
        f"{runs['momentum'].iloc[0]:g}."
    ]


def conclude_walk(name, rows):
    """One optimizer's walks in words."""
    parts = [
        f"{figures.times(row.nc0)} at Λ = {decay:g} ({row['first']:.0%} of the logarithm "
        f"in the first tenth)"
        for (_, decay), row in rows.iterrows()
    ]
    return (
        f"**{figures.LABELS[name]}.** NC0 falls by a factor of {'; '.join(parts)}. "
        f"NC3 falls by factors of {', '.join(map(figures.times, rows['nc3']))}."
    )


def conclude_amount(runs):
    """What ten times the total does at the same coupled decay."""
    ratios = left(runs).loc["decoupled"]
    return [
        f"**The amount of coupled decay decides.** Under Adam and Signum, ten "
        f"times the total with the same coupled part leaves {span(ratios.nc0)} of "
        f"NC0 and {span(ratios.nc3)} of NC3."
    ]


def conclude_figure(runs):
    """Figure 7: do its metrics fall, does accuracy stay."""
    ends = medians(
        runs[runs["optimizer"] != "sgd"], "nc0", "nc2", "nc3", "test_acc"
    )
    start, end = (ends.xs(s, level="coupled_share") for s in (0.0, 1.0))
    fell = (end < start)[["nc0", "nc2", "nc3"]].all(axis=1)
    change = 100 * (end - start)["test_acc"].abs().max()
    return [
        f"**Figure 7.** From all decoupled to all coupled, NC0, NC2 and NC3 fall in {fell.sum()} of "
        f"{len(fell)} walks of Adam and Signum (medians), and test accuracy changes by at most "
        f"{change:.2f} points. At the paper's total Adam's walk is as gradual as the paper says; "
        f"Signum's is a jump."
    ]


def conclude(runs):
    """The findings, with their numbers."""
    table = walks(runs)
    lines = conclude_sgd(sgd) if len(sgd) else []
    lines += [
        conclude_walk(name, rows)
        for name, rows in table.groupby(level=0)
        if name != "sgd"
    ]
    if enough:
        lines += conclude_amount(runs) + conclude_figure(runs)
    return "\n".join(f"- {line}" for line in lines)


figures.show_if_any(good, "", conclude)

# %% [markdown]
# ## What this does not show
#
# The paper's network and data, and with them its numbers. There, an epoch has forty times the steps,
# so that the same total does some forty times as much. Its Figure 7 and ours should be compared in
# kind, not point by point.
