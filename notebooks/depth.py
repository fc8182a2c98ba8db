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
# # How deep does collapse reach?
#
# *Neural collapse is measured at the last layer. Do the layers before it collapse, too, and does the
# optimizer decide how many of them?* They do: from layer to layer NC1 falls by about the same factor, and
# under strong weight decay the classes are apart after two or three of eight layers, under SGD, Adam, AdamW
# and MuonW alike. What divides coupled from decoupled decay at the last layer, NC0 and NC3, is not to be
# seen in the layers below: change the last layer's optimizer
# alone, and all but the last one or two hardly move.
#
# **What you will learn**
#
# - how to measure any layer: NC1, the accuracy of the nearest class mean, the effective rank;
# - that collapse is a gradient over depth, with one factor a layer {cite}`he2023`, and which part of a
#   network is a *tunnel*, that only compresses {cite}`masarczyk2023`;
# - in which order layers collapse while a network trains;
# - how weight decay, the optimizer, and the last layer's own optimizer change that;
# - why "linearly separable from this layer on" says little about an easy data set.

# %%
import tempfile
from functools import partial

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.colors import LogNorm

from ncbook import data, figures, metrics, store, sweep
from ncbook.metrics.layers import nearest_class

figures.start_chapter()

# %% [markdown]
# ## The networks
#
# An MLP with *eight* hidden layers of 128 units (Linear, batch norm, ReLU) on the digits. Four optimizers:
# SGD and Adam with coupled weight decay, AdamW and MuonW with decoupled decay, each with none and with a
# strong one. Two more runs exchange the last layer's optimizer: AdamW in the hidden layers and SGD in the
# last one, and the other way round ({doc}`symmetry`). Momentum 0.9, three seeds.

# %%
NUMBERS = {  # learning rate, strong weight decay
    "sgd": (0.02, 0.05),
    "adam": (0.005, 0.05),
    "adamw": (0.005, 5.0),
    "muonw": (0.02, 2.0),
}
PAIRS = [(name, name) for name in NUMBERS]  # hidden layers, last layer
PAIRS += [("adamw", "sgd"), ("sgd", "adamw")]
DEEP = dict(model="mlp", depth=8)
SMALL = dict(width=1 / 8, train_size=2000, epochs=100)
NETWORKS = {
    "MLP, digits": DEEP | dict(dataset="digits", epochs=200),
    "MLP, MNIST": DEEP | dict(dataset="mnist", train_size=6000, epochs=50),
    "ResNet9": SMALL | dict(dataset="fashion_mnist", model="resnet9"),
    "VGG9": SMALL | dict(dataset="fashion_mnist", model="vgg9"),
}


def settings(hidden, last, decay):
    """The parameters of a sweep, for one pair of optimizers."""
    (lr, strong), (head_lr, of_head) = NUMBERS[hidden], NUMBERS[last]
    given = dict(optimizer=hidden, lr=lr, momentum=0.9)
    given |= dict(weight_decay=strong if decay == "strong" else 0.0)
    if last != hidden:
        given |= dict(head_optimizer=last, head_lr=head_lr, head_momentum=0.9)
        given |= dict(head_weight_decay=of_head)
    return given


KINDS = [(*pair, "strong") for pair in PAIRS]
KINDS += [(name, name, "none") for name in NUMBERS]

# %% [markdown]
# A sweep measures every layer if it is told to, by its parameter `measure_layers`. Then
# `store.load_layers` has one row a run, logged epoch and layer.


# %% tags=["hide-input"]
def held(runs, folder):
    """The least training accuracy of each run over the last quarter of its epochs."""
    rows = store.load_history(folder, run_id=[*runs["run_id"]])
    rows = rows.merge(runs[["run_id", "epochs"]], on="run_id")
    late = rows[rows["epoch"] >= 0.75 * rows["epochs"]]
    columns = late.reindex(columns=["run_id", "train_acc"]).groupby("run_id")
    return columns["train_acc"].min().rename("held").reset_index()


def layers_of(network, stored, folder=None):
    """The rows of one network's layers, with the kind of their run."""
    found = [
        figures.of_setting(stored, **network, **settings(*kind)).assign(
            hidden=kind[0], last=kind[1], decay=kind[2]
        )
        for kind in KINDS
    ]
    runs = pd.concat(found)
    runs = runs[runs["measured_layers"].notna()]
    own = runs[["run_id", "hidden", "last", "decay", "epochs"]]
    layers = store.load_layers(folder, run_id=[*runs["run_id"]])
    layers["layer"] = "layer " + layers["position"].astype(str)
    return layers.merge(own, on="run_id").merge(held(own, folder), on="run_id")


stored = store.load_runs(status="ok")
everywhere = {
    name: layers_of(given, stored) for name, given in NETWORKS.items()
}
layers = everywhere["MLP, digits"]

# %% [markdown]
# If the store has none of these runs, the same kinds are trained now: one seed, 20 epochs instead of 200, in
# about half a minute. Everything below is then about those. Three rows, of the end of one run:


# %%
def train_here(network):
    """Rows of short runs, trained while you wait."""
    folder = tempfile.mkdtemp()
    configs = []
    for kind in KINDS:
        given = settings(*kind)
        axes = {
            f"{name}s": [given.pop(name)] for name in ("lr", "weight_decay")
        }
        axes["momenta"] = [given.pop("momentum")]
        configs += sweep.grid(**given, **axes, **network)
    options = dict(workers=1, measure_layers=True, progress=False)
    sweep.run(configs, folder, **options)
    return layers_of(network, store.load_runs(folder), folder)


if layers.empty:
    layers = train_here(NETWORKS["MLP, digits"] | dict(epochs=20))
SHOWN = ["layer", "width", "nc1", "train_ncm_acc", "effective_rank"]
figures.shown(layers.tail(3).set_index("optimizer")[["epoch", *SHOWN]])

# %% tags=["remove-input"]
LINES = """run() {
    papermill notebooks/sweep.ipynb out.ipynb -p momenta 0.9 -p seeds "[0, 1, 2]" \\
        -p measure_layers true "$@"
}
DIGITS="-p dataset digits -p epochs 200 -p model mlp -p depth 8"
DIGITS="$DIGITS -p log_epochs 1,2,5,10,20,50,66,100,133,150,160,170,180,190"
MNIST="-p dataset mnist -p train_size 6000 -p epochs 50 -p model mlp -p depth 8"
MNIST="$MNIST -p log_epochs 1,2,5,10,16,20,33,38,42,46"
IMAGES="-p dataset fashion_mnist -p train_size 2000 -p epochs 100 -p width 1/8"
IMAGES="$IMAGES -p log_epochs 1,2,5,10,20,33,50,66,75,85,95"
for network in "$DIGITS" "$MNIST" "$IMAGES -p model resnet9" "$IMAGES -p model vgg9"; do
    run $network -p optimizer sgd -p lrs 0.02 -p weight_decays "[0, 0.05]"
    run $network -p optimizer adam -p lrs 0.005 -p weight_decays "[0, 0.05]"
    run $network -p optimizer adamw -p lrs 0.005 -p weight_decays "[0, 5]"
    run $network -p optimizer muonw -p lrs 0.02 -p weight_decays "[0, 2]"
    run $network -p optimizer adamw -p lrs 0.005 -p weight_decays 5 -p head_optimizer sgd \\
        -p head_lr 0.02 -p head_momentum 0.9 -p head_weight_decay 0.05
    run $network -p optimizer sgd -p lrs 0.02 -p weight_decays 0.05 -p head_optimizer adamw \\
        -p head_lr 0.005 -p head_momentum 0.9 -p head_weight_decay 5
done"""
figures.folded(LINES, "The lines that train all of this chapter's runs")

# %% [markdown]
# ## Three questions to a layer
#
# A *layer* is here a weighted layer with the norm, activation and pooling behind it; of a ResNet it is a
# block. The last one is the input of the classifier, where the rest of this book measures. Let $h$ be what
# a layer puts out for a training sample, in evaluation mode (of images, averaged over space), and
# $\mu_k$ its mean over class $k$. Three numbers tell how far that layer is from collapse.
#
# **NC1**, as at the last layer: how large the scatter within the classes is against that between them
# ({doc}`metrics`). It is what falls to zero where classes shrink to points.
#
# **The accuracy of the nearest class mean**: the share of samples whose own class has the nearest mean.
# This is a *linear* rule, since
#
# $$ \operatorname*{argmin}_k \lVert h - \mu_k\rVert^2
# = \operatorname*{argmax}_k \big(\mu_k^\top h - \tfrac12\lVert\mu_k\rVert^2\big) . $$ (depth-linear)
#
# So 100 % prove that the classes are linearly separable. The reverse is false, as we will see.
#
# **The effective rank** {cite}`roy2007` of the features centred on their mean, with singular values
# $\sigma_i$ and $q_i = \sigma_i/\sum_j\sigma_j$:
#
# $$ \operatorname{erank} = \exp\Big(-\sum_i q_i\log q_i\Big) , $$ (depth-rank)
#
# from 1 to the number of features, and equal to it where all directions are used alike. In a collapsed
# layer the features are $K$ points in a simplex: $K - 1$ equal singular values, and effective rank $K - 1$.
# With ten classes it is nine.
#
# ## Layer by layer
#
# The four optimizers with strong decay, at the end of training:

# %%
ends = layers[layers["epoch"] == layers["epochs"]]
uniform = ends[ends["hidden"] == ends["last"]]
strong = uniform[uniform["decay"] == "strong"]
depth = strong["position"].max()


# %% tags=["hide-input"]
def span(values, form=".2g"):
    """The least and the largest, as text."""
    low, high = f"{values.min():{form}}", f"{values.max():{form}}"
    return low if low == high else f"{low}–{high}"


def draw_strong(rows):
    return figures.by_layer(rows, "optimizer")


def tell_strong(rows):
    """What the picture shows, in numbers: medians over the seeds."""
    table = rows.groupby(["optimizer", "position"]).median(numeric_only=True)
    at = lambda layer, column: table[column].xs(layer, level="position")  # noqa: E731
    ranks = at(2, "effective_rank").reindex(list(NUMBERS)).dropna()
    listed = ", ".join(
        f"{rank:.0f} under {figures.LABELS[name]}"
        for name, rank in ranks.items()
    )
    return f"""*Median and range over the seeds (n = {rows["seed"].nunique()}). Top: NC1, on a log axis. Middle: the
accuracy of the nearest class mean. Bottom: the effective rank, which is nine in a collapsed layer.*

NC1 is {span(at(1, "nc1"))} after layer 1, and about {at(depth, "nc1").max():.1g} or less after layer {depth}.
The nearest class mean is right for {span(at(1, "train_ncm_acc"), ".1%")} of the training samples after layer
1, for {span(at(2, "train_ncm_acc"), ".1%")} after layer 2, and for {span(at(3, "train_ncm_acc"), ".1%")} after
layer 3. In the rank the optimizers differ: after layer 2 it is {listed}; after the last layer,
{span(at(depth, "effective_rank"), ".3g")}. ({rows["epochs"].max()} epochs; the least training accuracy of a run
over the last quarter of them is {rows["held"].min():.1%}.)"""


figures.show_if_any(strong, "", draw_strong, tell_strong)

# %% [markdown]
# So collapse is no matter of the last layer alone. That the scatter within classes falls with depth,
# relative to that between them, is what Rangamani et al. {cite}`rangamani2023` found in trained
# classifiers; and for two classes, with free features below several non-linear layers, it is proved that
# the optimum has all of these layers collapsed {cite}`sukenik2023`. New, as far as we know, is how little
# the form of weight decay matters for it. AdamW, whose NC3 stays large ({doc}`symmetry`), collapses in as
# many layers as SGD and Adam. MuonW comes to the least NC1, and with more directions in use: its steps
# have equal singular values, and its layers keep a high rank for longer.
#
# ## One factor a layer?
#
# He and Su {cite}`he2023` report a law for trained networks: the trace
# $\operatorname{Tr}(\Sigma_W\Sigma_B^\dagger)$ falls by a constant factor from layer to layer. It is $K$
# times our NC1, so $\log\text{NC1}$ should be a straight line in depth.


# %%
def line(rows):
    """Slope of the line, as a factor a layer, and its R²."""
    x, y = rows["position"].to_numpy(float), np.log(rows["nc1"].to_numpy())
    slope = np.polyfit(x, y, 1)[0]
    r2 = np.corrcoef(x, y)[0, 1] ** 2
    return pd.Series({"factor": np.exp(slope), "R²": r2})


def lines(rows):
    """The line of each run."""
    groups = rows.groupby(["hidden", "decay", "run_id"], sort=False)
    return groups[["position", "nc1"]].apply(line)


# %% tags=["hide-input"]
def in_order(table):
    """Rows by optimizer as everywhere, and by decay."""
    named = table.rename(index=figures.LABELS, level=0)
    order = [
        (figures.LABELS[name], d)
        for name in NUMBERS
        for d in ("none", "strong")
    ]
    named = named.reindex([row for row in order if row in named.index])
    return named.rename_axis(index=["optimizer", "decay"])


def show_lines(rows):
    """Line, and the factor of the first and the second half of the network."""
    halves = rows["position"] <= depth // 2
    table = lines(rows).assign(
        first=lines(rows[halves])["factor"],
        second=lines(rows[~halves])["factor"],
    )
    names = {
        "factor": "factor a layer",
        "first": "first half",
        "second": "second half",
    }
    by_kind = table.rename(columns=names).groupby(level=[0, 1], sort=False)
    return figures.shown(
        in_order(by_kind.agg(partial(figures.with_range, digits=".2f")))
    )


def tell_lines(rows):
    found = lines(rows)
    none, strong = (
        found["factor"].xs(d, level="decay") for d in ("none", "strong")
    )
    return f"""*Medians over the seeds, and below them the least and the largest. A smaller factor is a
steeper fall; the last two columns are lines through half of the layers.*

The line explains {span(found["R²"], ".0%")} of log NC1. Weight decay makes it steeper: a layer leaves
{span(none, ".0%")} of NC1 without decay, and {span(strong, ".0%")} with a strong one."""


figures.show_if_any(uniform, "", show_lines, tell_lines)

# %% [markdown]
# (Without decay Adam and AdamW are one optimizer, and their rows are equal.) The law is a good summary, and
# no more. Where it fails, it fails in the same way in all seeds: without decay the second half of the network
# does little under Adam; with a strong decay it does more than the first half, least so under SGD.
#
# ## The tunnel
#
# Masarczyk et al. {cite}`masarczyk2023` see two parts in a deep network. The first layers make the classes
# linearly separable; the rest, the *tunnel*, compress what they get, and have little effect on the
# accuracy. How long is the tunnel here? By linear separability it would be the whole network: the raw
# pixels of the digits are separable.

# %%
from sklearn.linear_model import LogisticRegression

digits = data.load("digits")
X, y = digits.train_x.double().flatten(1), digits.train_y
linear = LogisticRegression(C=100.0, max_iter=2000).fit(X, y)
means = metrics.class_means(X, y, 10)
nearest = (nearest_class(X, means) == y).double().mean().item()
tested = linear.score(digits.test_x.flatten(1), digits.test_y)
assert linear.score(X, y) == 1.0 > nearest
print(f"logistic regression: training 100 %, test {tested:.1%}")
print(f"nearest class mean of the pixels: training {nearest:.1%}")

# %% [markdown]
# So on easy data "separable from this layer on" says little. The nearest class mean asks for more: classes
# that are apart, round, and about equally wide. Let the tunnel begin after the first layer from which on
# that rule is right for at least 99.9 % of the training samples.


# %%
TOLD = {"NC1": "nc1", "rank": "effective_rank", "test": "test_ncm_acc"}


def tunnel(rows):
    """Where the tunnel of a run begins, and what is known there and at the end."""
    rows = rows.sort_values("position")
    right = (rows["train_ncm_acc"] >= 0.999)[::-1].cummin()[::-1]
    entry = (
        rows[right].head(1).squeeze() if right.any() else rows.iloc[0] * np.nan
    )
    found = {"begins": entry["position"]}
    for name, column in TOLD.items():
        found[f"{name} there"] = entry[column]
        found[f"{name} at the end"] = rows[column].iloc[-1]
    return pd.Series(found)


# %% tags=["hide-input"]
def show_tunnels(rows):
    groups = rows.groupby(["hidden", "decay", "run_id"], sort=False)
    found = groups[["position", "train_ncm_acc", *TOLD.values()]].apply(tunnel)
    middle = in_order(found.groupby(level=[0, 1], sort=False).median())
    percent = {name: "{:.1%}" for name in middle if name.startswith("test")}
    return figures.shown(middle, begins="{:.0f}", **percent)


figures.show_if_any(uniform, "", show_tunnels)

# %% [markdown]
# *Medians over the seeds: after which layer the tunnel begins; NC1, effective rank and test accuracy of
# the nearest class mean there and at the last layer.*
#
# With strong decay the tunnel is most of the network. What follows its entry takes NC1 down by orders of
# magnitude, and adds about one percent of test accuracy. In the tunnel of Masarczyk et al. the rank falls.
# Here that depends on the optimizer: under Adam and AdamW with strong decay the rank has fallen before the
# tunnel begins, under MuonW nearly all of the fall is inside.
#
# ## In which order do layers collapse?
#
# Each panel is one optimizer with strong decay; its first column is the network before training.


# %% tags=["hide-input"]
def draw_map(rows, title):
    """NC1 over epochs (left to right) and layers (bottom to top), median over the seeds."""
    table = rows.pivot_table(
        index="position", columns="epoch", values="nc1", aggfunc="median"
    )
    figure, axis = plt.subplots(figsize=(4.8, 3.6), layout="constrained")
    mesh = axis.pcolormesh(
        table.to_numpy(), norm=LogNorm(1e-4, 1), cmap="viridis"
    )
    axis.set_xticks(np.arange(table.shape[1]) + 0.5, table.columns, rotation=90)
    axis.set_yticks(np.arange(len(table)) + 0.5, table.index)
    axis.set(xlabel="epoch", ylabel="layer", title=title)
    axis.grid(False)
    figure.colorbar(mesh, label="NC1", extend="both")
    plt.close(figure)
    return figure


trained = layers[
    (layers["hidden"] == layers["last"]) & (layers["decay"] == "strong")
]


def draw_maps(rows):
    return figures.side_by_side(
        *(
            draw_map(rows[rows["hidden"] == name], figures.LABELS[name])
            for name in NUMBERS
            if (rows["hidden"] == name).any()
        )
    )


def tell_order(rows):
    """How depth works before training, and when each layer's NC1 first lies below 0.1."""
    table = rows.groupby(["position", "epoch"])["nc1"].median().unstack()
    low = table < 0.1
    first = low.idxmax(axis=1)[low.any(axis=1)]
    listed = ", ".join(
        f"{epoch} in layer {place}" for place, epoch in first[::-1].items()
    )
    return f"""*NC1, dark where it is small, on one scale; left to right the logged epochs, which are not
equally far apart; bottom to top the layers.*

Before training NC1 rises with depth, from {table[0].iloc[0]:.2f} in layer 1 to {table[0].iloc[-1]:.2f} in layer
{depth}. The first logged epoch at which it is below 0.1 (median of all runs) is {listed}."""


figures.show_if_any(trained, "", draw_maps, tell_order)

# %% [markdown]
# An untrained network mixes the classes, the more, the deeper it is (its batch norm has seen no data, and
# does nothing; exercise 3). Training turns that gradient around. The layers of the second half get there about together;
# the first ones follow, each later than the one after it. Most of the fall comes after the learning rate's
# first drop, at a third of the epochs; under AdamW nearly all of it.
#
# ## Does the last layer's optimizer reach back?
#
# For NC0 the last layer's optimizer decides, and the rest does not ({doc}`symmetry`). If it also decided
# what the hidden layers look like, AdamW in the last layer would spoil them. The four pairs of SGD and
# AdamW:

# %% tags=["hide-input"]
pairs = ends[
    (ends["decay"] == "strong") & ends["hidden"].isin(["sgd", "adamw"])
]
pairs = pairs[pairs["last"].isin(["sgd", "adamw"])]
names = (
    pairs["hidden"].map(figures.LABELS)
    + ", last layer "
    + pairs["last"].map(figures.LABELS)
)
pairs = pairs.assign(pair=names)[: None if names.nunique() == 4 else 0]


def draw_pairs(rows):
    return figures.by_layer(rows, "pair")


def tell_pairs(rows):
    """How much each part changes: NC1 and rank, as factors, median over layers."""
    kinds = ["hidden", "last", "position"]
    table = np.log(rows.groupby(kinds)[["nc1", "effective_rank"]].median())
    of_hidden = (table.loc["sgd"] - table.loc["adamw"]).abs()
    of_hidden = of_hidden.groupby("position").median()
    of_last = table.xs("sgd", level="last") - table.xs("adamw", level="last")
    of_last = of_last.abs().groupby("position").median()
    said = [
        f"exchanging {what} changes NC1 by a factor of {np.exp(change['nc1'].median()):.2f}, and the "
        f"effective rank by {np.exp(change['effective_rank'].median()):.2f}"
        for what, change in (
            ("the hidden layers' optimizer", of_hidden),
            ("the last layer's", of_last),
        )
    ]
    before = [np.exp(change["nc1"][depth]) for change in (of_hidden, of_last)]
    return f"""*The optimizer of the hidden layers, then that of the last layer; strong decay. Median and range
over the seeds.*

In the median over the layers, {said[0]}; {said[1]}. Right before the last layer these two factors of NC1 are
{before[0]:.1f} and {before[1]:.1f}."""


figures.show_if_any(pairs, "", draw_pairs, tell_pairs)

# %% [markdown]
# It reaches one or two layers back, not further. Below these the curves with the same hidden layers'
# optimizer lie together, whatever the last layer has. Right before it AdamW in the last layer does not spoil
# collapse: NC1 is smaller there, not larger. Two parts of one network, two answers: NC0, and the gauge part
# of NC3, belong to the last layer's optimizer; how early and in how many directions the classes are
# separated belongs to the others.
#
# ## Other networks
#
# The same with strong decay for an MLP of eight layers on 6,000 images of MNIST, and for narrow
# convolutional networks on 2,000 images of Fashion-MNIST. Of these a layer is averaged over space, which
# forgets where things are: their early layers may separate more than is seen here.


# %% tags=["hide-input"]
def show_elsewhere(rows):
    """The line and the tunnel of each network and optimizer, and its layers."""
    last = rows[rows["epoch"] == rows["epochs"]]
    kinds = ["network", "hidden", "run_id"]
    groups = last.groupby(kinds, sort=False)
    table = groups[["position", "nc1"]].apply(line)
    asked = ["position", "train_ncm_acc", *TOLD.values()]
    table = table.join(
        groups[asked].apply(tunnel).reindex(columns=["begins", "rank there"])
    )
    table = table.assign(
        layers=groups["position"].max(), accuracy=groups["held"].min()
    )
    table = table.groupby(level=[0, 1], sort=False).median()
    table = table.reindex(list(NUMBERS), level=1)
    table = table.rename(index=figures.LABELS).rename_axis(
        index=["network", "optimizer"]
    )
    return figures.shown(
        table, accuracy="{:.1%}", layers="{:.0f}", begins="{:.0f}"
    )


others = pd.concat(
    [
        rows.assign(network=name)
        for name, rows in everywhere.items()
        if name != "MLP, digits"
    ]
)
others = others[
    (others["hidden"] == others["last"]) & (others["decay"] == "strong")
]


def draw_elsewhere(rows):
    last = rows[rows["epoch"] == rows["epochs"]]
    return figures.side_by_side(
        *(
            figures.by_layer(one, "optimizer", name)
            for name, one in last.groupby("network", sort=False)
        )
    )


CAPTION = """*Medians over the seeds: the factor of NC1 a layer and R² of the line; after which layer the
tunnel begins, and the effective rank there; the number of layers; the least training accuracy over the last
quarter of the epochs.*"""
figures.show_if_any(
    others, "", show_elsewhere, lambda _: CAPTION, draw_elsewhere
)

# %% [markdown]
# ## What was shown
#
# - **Collapse is a gradient over depth.** NC1 falls by about the same factor from layer to layer, as He and
#   Su found, and weight decay makes that factor smaller (measured; MLP of eight layers, digits, three seeds).
# - **With strong decay most of the network is a tunnel**: after two or three layers each training sample is
#   nearest to its own class's mean.
# - **The form of decay does not show below the last layer.** With a strong decay AdamW and MuonW, whose decay
#   is decoupled, separate the classes in as many layers as SGD and Adam.
# - **The optimizer shows in the rank**, and there it is the hidden layers' own.
# - **The last layer's optimizer reaches one or two layers back**, and makes nothing worse there (SGD and
#   AdamW, exchanged).
#
# ## Where it holds, and where not
#
# - One learning rate and one strong decay for each optimizer, chosen so that it reaches 100 % training
#   accuracy and holds it. They are not matched to each other: that AdamW has a lower rank than MuonW in layer
#   2 is a fact about these settings.
# - The data are small and easy. Where linear separability is reached late, it, and not the nearest class
#   mean, may be the better entry of the tunnel.
# - Batch norm stands in each layer. Without it weight decay acts on the features' size, too.
# - The effective rank counts small directions generously: noise of one percent takes it from 9 to 32
#   (exercise 2). It tells much about order, and little about accuracy.
# - A gradient over depth needs some: the book's MLP of three layers has little room for a tunnel.
#
# ## Exercises
#
# **1.** Find classes that are linearly separable, and of which the nearest class mean gets some wrong.

# %% tags=["hide-cell"]
along = np.linspace(-5, 5, 50)  # two long, thin classes side by side
first = np.stack([along, np.full(50, 0.5)], 1)
second = np.stack([along + 4, np.full(50, -0.5)], 1)
both, labels = np.concatenate([first, second]), np.repeat([0, 1], 50)
centres = np.stack([first.mean(0), second.mean(0)])
found = ((both[:, None] - centres) ** 2).sum(2).argmin(1)
separated = both[:, 1] < 0  # by the second coordinate
assert (separated == labels).all()
float((found == labels).mean())

# %% [markdown]
# **2.** Check that a collapsed layer of $K$ classes has effective rank $K - 1$, and that noise in all
# directions raises it.

# %% tags=["hide-cell"]
import torch


def effective_rank(features, labels):
    stream = metrics.LayerStream(10)
    for _ in range(2):  # class means, then the scatter about them
        stream.update(features, labels)
        stream.next_pass()
    return stream.compute()["effective_rank"]


labels = torch.arange(10).repeat(20)
rows = torch.as_tensor(metrics.simplex_etf(10))[labels]
rows = torch.nn.functional.pad(rows, (0, 54))  # 64 features
noise = torch.randn(rows.shape, generator=torch.Generator().manual_seed(0))
ranks = [
    effective_rank(rows + size * noise, labels) for size in (0.0, 0.01, 0.1)
]
assert abs(ranks[0] - 9) < 1e-6 < ranks[1] - 9 < ranks[2] - 9
[round(rank, 1) for rank in ranks]

# %% [markdown]
# **3.** Before training, batch norm has seen no data, and does nothing in evaluation mode. Let it see the
# digits, and measure the untrained network (`ncbook.measure.measure` takes any classifier): does depth still
# mix the classes?

# %% tags=["hide-cell"]
from ncbook import models
from ncbook.measure import measure

torch.manual_seed(0)
net = models.build("mlp", depth=8)
samples = digits.train_x, digits.train_y
fresh = measure(net, samples, progress=False).layers
for part in net.modules():
    if isinstance(part, torch.nn.BatchNorm1d):
        part.momentum = None  # a plain average
net(digits.train_x)  # in training mode: each layer sees what reaches it
seen = measure(net, samples, progress=False).layers
assert fresh["nc1"].is_monotonic_increasing
assert seen["nc1"].is_monotonic_increasing
assert fresh["effective_rank"].iloc[-1] < 64 < seen["effective_rank"].iloc[-1]
columns = {"nc1": "NC1", "effective_rank": "rank"}
tables = {"no data seen": fresh[[*columns]], "digits seen": seen[[*columns]]}
figures.shown(pd.concat(tables, axis=1).rename(columns=columns))

# %% [markdown]
# *It does, all the same. What batch norm changes is the rank, which now rises with depth instead of
# falling (solution above).*
