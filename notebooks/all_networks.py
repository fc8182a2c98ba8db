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
# # The same question, on other networks
#
# A finding on one small network may be about that network. The paper {cite}`optimizer2026` repeats
# its main figures for five more pairs of a network and a data set (Figures 19 to 43). Here are ours,
# for every network and data set of which we trained an optimizer's whole axis of weight decay.
#
# **What you will learn**
#
# - whether coupled decay takes NC0 and NC3 down, and decoupled decay in an adaptive optimizer does
#   not, on other networks and data than the book's small default;
# - by how much, network by network, in one table;
# - whether NC0 goes with NC3 there, and less with NC1 and NC2.

# %%
import numpy as np
import pandas as pd
from IPython.display import Markdown, display

from ncbook import figures, stats, store, sweep
from ncbook.metrics import rule

figures.start_chapter()

# %% [markdown]
# ## What the paper shows
#
# For each pair five figures: two with NC0 and NC3 at the end against weight decay, one each with NC0
# against NC1, NC2 and NC3. The text says of all of them together that they "confirm our observations
# made earlier on the ResNet9 trained on FashionMNIST"; that NC0 "(visually) correlates well with NC3",
# and that "it correlates considerably less with NC1 and NC2, although a general trend is still visible
# across all experiments". **It has no number for any of them**: no fit, no least value, and not how
# many runs there are. Each line is a mean over at most 18 pairs of learning rate and momentum; the band
# is one standard deviation.
#
# ## The settings, which are smaller than the paper's
#
# **The paper trains full networks on all images for 200 epochs, at 18 pairs of learning rate and
# momentum.** Ours have fewer images and, but for the digits, fewer epochs. The two MLPs have the
# paper's 18 pairs. The convolutional networks are of width 1/8, with one learning rate for each
# optimizer and a momentum of 0.9. All sweep weight decay over the whole of its optimizer's grid.

# %%
FEW = dict(epochs=50)
SMALL = FEW | dict(width=1 / 8, train_size=2000)
VGG9, RESNET9 = (SMALL | dict(model=name) for name in ("vgg9", "resnet9"))
# A folder cifar10-jpeg in that of the data. These images take longer to learn.
JPEG = dict(dataset="folder:cifar10-jpeg", epochs=100)
SETTINGS = {
    "An MLP on digits": dict(dataset="digits", model="mlp", epochs=200),
    "An MLP on MNIST": FEW | dict(dataset="mnist", model="mlp", train_size=6000),
    "ResNet9 on Fashion-MNIST": RESNET9 | dict(dataset="fashion_mnist"),
    "VGG9 on Fashion-MNIST": VGG9 | dict(dataset="fashion_mnist"),
    "ResNet9 on CIFAR-10 (JPEG)": RESNET9 | JPEG,
    "ResNet9 on CIFAR-10 (JPEG), half as long": RESNET9 | JPEG | FEW,
    "VGG9 on CIFAR-10 (JPEG)": VGG9 | JPEG,
    "ResNet9 on MNIST": RESNET9 | dict(dataset="mnist"),
    "VGG9 on MNIST": VGG9 | dict(dataset="mnist"),
}  # fmt: skip
ONE_RATE = dict(sgd=0.0679, sgdw=0.0679, adam=0.005, adamw=0.005)
ONE_RATE |= dict(signum=0.001, signumw=0.001)
MOMENTUM = 0.9

# %% [markdown]
# The paper's figures for each setting: against weight decay, and NC0 against NC1, NC2 and NC3. (Those
# of ResNet9 on Fashion-MNIST are its main ones.) The two MLPs have none.

# %%
PAPERS = {
    "ResNet9 on Fashion-MNIST": ("1 and 3", "11, 12 and 10"),
    "VGG9 on Fashion-MNIST": ("19 and 20", "21, 22 and 23"),
    "ResNet9 on CIFAR-10 (JPEG)": ("24 and 25", "26, 27 and 28"),
    "VGG9 on CIFAR-10 (JPEG)": ("29 and 30", "31, 32 and 33"),
    "ResNet9 on MNIST": ("34 and 35", "36, 37 and 38"),
    "VGG9 on MNIST": ("39 and 40", "41, 42 and 43"),
}
PRINTED = {
    "ResNet9 on Fashion-MNIST": "Table 5 for the last of them: R² = 0.730 of NC3 on log NC0"
}

# %% [markdown]
# The lines that train a setting are written from it, for the seeds that are drawn.


# %% tags=["hide-input"]
def lines(name):
    """The lines of a shell that train one setting under the six optimizers."""
    seeds = sorted(map(int, found[name]["seed"].unique())) or [0]
    given = SETTINGS[name] | {"seeds": f'"{seeds}"'}
    is_small = "width" in given
    if is_small:
        given["momenta"] = MOMENTUM
    options = [f"-p {key} {value}" for key, value in given.items()]
    halves = " ".join(options[:3]), " ".join(options[3:])
    begin = "train() { papermill notebooks/sweep.ipynb out.ipynb"
    head = " \\\n    ".join([begin, *halves, '-p optimizer "$@"; }'])
    rates = ONE_RATE if is_small else dict.fromkeys(ONE_RATE)
    each = (
        f"train {n} -p lrs {r}" if r else f"train {n}" for n, r in rates.items()
    )
    return "\n".join([head, *each])


# %%
stored = store.load_runs(optimizer=list(sweep.GRIDS))


def of_setting(name):
    """Runs at one setting, of optimizers and seeds that have all of their grid's decays."""
    runs = figures.on_grid(
        figures.of_setting(stored, **SETTINGS[name]), sweep.GRIDS
    )
    if "width" in SETTINGS[name]:
        at_rate = runs["lr"] == runs["optimizer"].map(ONE_RATE)
        runs = runs[at_rate & (runs["momentum"] == MOMENTUM)]
    runs = figures.even_seeds(runs)
    decays = runs.groupby("optimizer")["weight_decay"].transform("nunique")
    return runs[decays == runs["optimizer"].map(DECAYS)]


DECAYS = {name: len(grid.weight_decays) for name, grid in sweep.GRIDS.items()}
found = {name: of_setting(name) for name in SETTINGS}
trained = {name: runs for name, runs in found.items() if len(runs)}
every = pd.concat(found.values())

# %% [markdown]
# ## What all of them say
#
# What is left of a metric is its value at the end over its value at the start. The table has the
# least that any run with weight decay leaves, of those that learned their training set; n is how
# many of them did.


# %% tags=["hide-input"]
def least_left(runs):
    """The least shares left of NC0 and NC3, and n, one row an optimizer."""
    decayed = runs[runs["weight_decay"] > 0]
    good = figures.converged(decayed)
    left = figures.fraction_of_start(good, ["nc0", "nc3"]).groupby(
        good["optimizer"]
    )
    table = left.min().reindex(decayed["optimizer"].unique())
    learned = left.size().reindex(table.index, fill_value=0)
    return table.assign(n=learned, runs=decayed["optimizer"].value_counts())


def table_of_all():
    """One row a setting and optimizer, in the optimizers' order."""
    tables = {name: least_left(runs) for name, runs in trained.items()}
    table = pd.concat(tables, names=["network and data", "optimizer"])
    order = [name for name in sweep.GRIDS if name in table.index.levels[1]]
    return table.reindex(order, level=1).rename(figures.LABELS, level=1)


def percent(share):
    """In two digits, but a whole number from 10 % on; a dash for none."""
    if np.isnan(share):
        return "–"
    return f"{share:.0%}" if share >= 0.1 else f"{100 * share:.2g}%"


def show_all(_):
    table = table_of_all().rename(columns=figures.METRICS).reset_index()
    for name in ("NC0", "NC3"):
        table[name] = table[name].map(percent)
    table["n"] = table["n"].map(str) + " of " + table.pop("runs").map(str)
    return figures.shown(table).hide()


figures.show_if_any(every, "", show_all)


# %% tags=["hide-input"]
PAIRS = (("adam", "adamw"), ("signum", "signumw"))


def on_pair(name, least, coupled, decoupled):
    """Whether decoupled decay leaves more of both metrics, and by what factor."""
    more = least.loc[decoupled] / least.loc[coupled]
    agrees = bool(more["nc0"] > 1 and more["nc3"] > 1)
    words = (
        f"{name}: {figures.LABELS[decoupled]} leaves {figures.times(more.nc0)} "
        f"times as much of NC0 as {figures.LABELS[coupled]}, and "
        f"{figures.times(more.nc3)} times as much of NC3."
    )
    return agrees, words


def each_pair():
    """Setting, its least shares, and a pair of optimizers that both learned."""
    for name, runs in trained.items():
        least = least_left(runs).dropna()
        for pair in PAIRS:
            if {*pair} <= {*least.index}:
                yield name, least, *pair


def tell_pairs(_):
    """Each setting's pairs of coupled and decoupled decay."""
    return figures.compared([on_pair(*pair) for pair in each_pair()])


figures.show_if_any(every, "", tell_pairs)

# %% [markdown]
# That is the least of each; the best setting may be another one for each optimizer. The figures have
# the whole axis of weight decay.
#
# And does NC0 go with NC3, and less with NC1 and NC2? R² of a line of least squares of each of them on
# the logarithm of NC0, over all runs that learned. It *agrees* where NC3's R² is the greatest of the
# three, however small it is:


# %% tags=["hide-input"]
def r2(runs, metric):
    """How much of a metric the logarithm of NC0 explains."""
    rows = runs[runs["nc0"] > 0]
    rows = rows.assign(log_nc0=np.log10(rows["nc0"]))
    return stats.lines(rows, "log_nc0", metric).loc["all", "r2"]


def on_fits(name):
    """Whether NC3 goes with NC0 more than NC1 and NC2 do, at one setting."""
    good = figures.converged(trained[name])
    fits = {m: r2(good, m) for m in ("nc3", "nc2", "nc1")}
    listed = ", ".join(
        f"{v:.2f} of {figures.METRICS[m]}" for m, v in fits.items()
    )
    agrees = bool(fits["nc3"] > max(fits["nc2"], fits["nc1"]))
    return agrees, f"{name} (n = {len(good)}): {listed}."


def tell_fits(_):
    """The same at every setting."""
    return figures.compared([on_fits(name) for name in trained])


figures.show_if_any(every, "", tell_fits)

# %% [markdown]
# ## How many collapsed
#
# By the book's one rule ({doc}`sweep`): a run that learned has *collapsed* if NC1, NC2 and NC3 all end
# below 0.1. Where NC1 and NC2 do and NC3 does not, the run may have collapsed *but for its gauge*; older
# rows of the store lack NC3 of the centred weight, and are counted as *not stored*. The threshold is a
# round number of ours, fixed before these counts were made. At half and at twice of it:


# %% tags=["hide-input"]
def named(runs):
    """The runs, with the name of their setting."""
    parts = [
        group.assign(setting=name)
        for name, rows in runs.items()
        for _, group in figures.by_optimizer(rows)
    ]
    both = pd.concat(parts)
    return both.assign(optimizer=both["optimizer"].map(figures.LABELS))


def show_outcomes(_):
    """Counts at the rule's threshold, by setting and optimizer."""
    runs = named(trained)
    counts = rule.counts(runs, ["setting", "optimizer"], (rule.THRESHOLD,))
    return figures.shown(counts.droplevel("threshold"))


def show_thresholds(_):
    """Counts by setting at three thresholds."""
    return figures.shown(rule.counts(named(trained), ["setting"]))


figures.show_if_any(every, "", show_thresholds, show_outcomes)

# %% [markdown]
# ## One by one
#
# First NC0 and NC3 against weight decay. Each line is the median over learning rates, momenta and seeds
# of the runs that learned, each band reaches from the least to the largest; dashed lines are decoupled decay.
# A line ends, or is missing, where no run learned.
# Then NC1, NC2 and NC3 against NC0, one dot a run that learned, with the line of least squares, whose
# R² is in the title. Under each setting a fold-out has the lines that train it.


# %% tags=["hide-input"]
def headed(name):
    """What is in the figures of one setting."""
    runs = found[name]
    good = len(figures.converged(runs))
    title = f"{name}, {runs['epochs'].iloc[0]} epochs"
    return f"{title} (n = {good:,} of {len(runs):,} runs)"


def draw(name):
    """NC0 and NC3 against weight decay, of one setting."""
    good = figures.converged(found[name])
    return figures.against(good, "weight_decay", title=headed(name))


def draw_against_nc0(name):
    """NC1, NC2 and NC3 against NC0, of one setting."""
    good = figures.converged(found[name])
    others = [metric for metric in figures.MAIN if metric != "nc0"]
    drawn = [figures.scatters(good, y=m, title=name) for m in others]
    return figures.side_by_side(*drawn)


# %% tags=["hide-input"]
def tell_papers(name):
    """Which of the paper's figures these stand for."""
    decay, nc0 = PAPERS[name]
    return (
        f"The paper's Figures {decay}: NC0 and NC3 against weight decay. Its Figures {nc0}: NC0 "
        f"against NC1, NC2 and NC3. It has full networks, all images and 200 epochs. Its "
        f"text has {PRINTED.get(name, 'no number for them')}."
    )


def show(name):
    """One setting: its figures, who learned, and the lines that train it."""
    if name in PAPERS:
        display(Markdown(tell_papers(name)))
    runs = found[name]
    good = figures.converged(runs)
    shows = [lambda _: draw(name), lambda _: draw_against_nc0(name)]
    figures.with_lines(
        runs,
        lines(name),
        *(shows if len(good) else []),
        figures.counted_by_optimizer,
    )


# %% [markdown]
# ### An MLP on digits

# %% tags=["hide-input"]
show("An MLP on digits")

# %% [markdown]
# ### An MLP on MNIST

# %% tags=["hide-input"]
show("An MLP on MNIST")

# %% [markdown]
# (paper-main-figures)=
# ### ResNet9 on Fashion-MNIST

# %% tags=["hide-input"]
show("ResNet9 on Fashion-MNIST")

# %% [markdown]
# (paper-figures-19-23)=
# ### VGG9 on Fashion-MNIST

# %% tags=["hide-input"]
show("VGG9 on Fashion-MNIST")

# %% [markdown]
# (paper-figures-24-28)=
# ### ResNet9 on CIFAR-10 (JPEG)
#
# The images are CIFAR-10's, re-encoded as JPEG. So they are not equal to the original's, bit by bit, and
# what is seen here is about these images. `folder:cifar10-jpeg` is a folder `cifar10-jpeg` in the folder
# of the data, with a folder for each class.

# %% tags=["hide-input"]
show("ResNet9 on CIFAR-10 (JPEG)")

# %% [markdown]
# The same in half as many epochs, in which fewer runs learn their training set:

# %% tags=["hide-input"]
show("ResNet9 on CIFAR-10 (JPEG), half as long")

# %% [markdown]
# (paper-figures-29-33)=
# ### VGG9 on CIFAR-10 (JPEG)

# %% tags=["hide-input"]
show("VGG9 on CIFAR-10 (JPEG)")

# %% [markdown]
# (paper-figures-34-38)=
# ### ResNet9 on MNIST

# %% tags=["hide-input"]
show("ResNet9 on MNIST")

# %% [markdown]
# (paper-figures-39-43)=
# ### VGG9 on MNIST

# %% tags=["hide-input"]
show("VGG9 on MNIST")

# %% [markdown]
# ## What it means
#
# Is the finding about one network?


# %% tags=["hide-input"]
def excuse(name, least, coupled):
    """What coupled decay itself leaves, where decoupled decay leaves no more."""
    label, left = figures.LABELS[coupled], least.loc[coupled]
    return (
        f" On {name.removeprefix('An ')} {label}'s own runs leave at least "
        f"{percent(left['nc0'])} of NC0 and {percent(left['nc3'])} of NC3."
    )


def tell_meaning(_):
    """How many pairs agree, and of the others what coupled decay did there."""
    pairs = list(each_pair())
    agree = [on_pair(*pair)[0] for pair in pairs]
    others = [pair for pair, yes in zip(pairs, agree, strict=True) if not yes]
    return (
        f"In {sum(agree)} of {len(pairs)} pairs of coupled and decoupled decay, in "
        f"{len({pair[0] for pair in pairs})} settings, decoupled decay leaves "
        f"more of both NC0 and NC3."
        + "".join(excuse(*pair[:3]) for pair in others)
    )


figures.show_if_any(every, "", tell_meaning)

# %% [markdown]
# The sizes here are small, and the seeds few: a factor tells an order of magnitude, not its second
# digit. Fifty or a hundred epochs of 2,000 images are few steps for a last phase of training. The
# paper's own settings, full networks on all images, remain to be trained; {doc}`runs` has what has
# been, and {doc}`../book/scaling` how to train more.
