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
# optimizer decide how many of them?* They do: NC1 falls from layer to layer, and under strong weight decay
# 99.9 % of the training samples are nearest to their own class's mean after two or three of eight layers,
# whichever of four optimizers trains. How steeply NC1 falls, and over how many directions the features
# spread on the way, differ from optimizer to optimizer.
#
# **What you will learn**
#
# - how to measure any layer: NC1, the accuracy of the nearest class mean, the effective rank;
# - that collapse is a gradient over depth, roughly one factor a layer {cite}`he2023`, and what the *tunnel*
#   of a network is: its later layers, which compress the classes and hardly change the accuracy
#   {cite}`masarczyk2023`;
# - in which order layers collapse while a network trains;
# - what weight decay, the optimizer, and the last layer's own optimizer change about it;
# - why "linearly separable from this layer on" says little about an easy data set.

# %%
import tempfile

import numpy as np
import pandas as pd
from IPython.display import Markdown, display
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
# strong one. Two further kinds of run have one optimizer in the hidden layers and another in the last one:
# AdamW there and SGD here, and the other way round ({doc}`symmetry`). Momentum 0.9, three seeds.

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
# about half a minute. The last three layers at the end of one run:


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


FALLBACK = """**The store has none of these runs.** The sentences of this page are about the published
runs: 200 epochs, three seeds. The numbers, tables and pictures below are computed from runs of one seed and
20 epochs, trained just now, and may differ from the sentences."""
if layers.empty:
    layers = train_here(NETWORKS["MLP, digits"] | dict(epochs=20))
    display(Markdown(FALLBACK))

# %% tags=["hide-input"]
SHOWN = {
    "hidden": "hidden",
    "last": "last",
    "decay": "decay",
    "epoch": "epoch",
    "layer": "layer",
    "nc1": "NC1",
    "train_ncm_acc": "nearest mean",
    "effective_rank": "rank",
}
few = layers.tail(3)[[*SHOWN]].replace(figures.LABELS)
few = few.rename(columns=SHOWN)
share = {SHOWN["train_ncm_acc"]: "{:.1%}"}
figures.shown(few, **share).hide(axis="index")

# %% [markdown]
# *The optimizer of the hidden layers and of the last one. The three numbers on the right are explained
# below.*

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
# A *layer* is here a linear map or a convolution together with the norm, activation and pooling that follow
# it; of a ResNet it is a block. They are counted from 1. The last one's output is the input of the
# classifier, which is where the rest of this book measures. Let $h$ be what
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


FORMS = {"coupled": ["sgd", "adam"], "decoupled": ["adamw", "muonw"]}


def divided(values):
    """The layers in which both coupled optimizers are below both decoupled ones, or above."""
    low, high = (values.loc[names] for names in FORMS.values())
    apart = (low.max() < high.min()) | (high.max() < low.min())
    return [*apart.index[apart]]


def tell_forms(table):
    """In which layers a metric's medians divide the two forms of decay."""
    names = {
        "nc1": "NC1",
        "train_ncm_acc": "the nearest class mean",
        "effective_rank": "the effective rank",
    }
    said = []
    for column, name in names.items():
        found = divided(table[column].unstack())
        where = ", ".join(map(str, found)) or "none"
        said.append(f"in {name}: {where}")
    return f"""Layers in which the medians divide coupled decay (SGD, Adam) from decoupled decay (AdamW,
MuonW), that is, both of one form below both of the other: {"; ".join(said)}. Chance alone would do so in
one layer of three."""


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
over the last quarter of them is {rows["held"].min():.1%}.)

{tell_forms(table)}"""


figures.show_if_any(strong, "", draw_strong, tell_strong)

# %% [markdown]
# So the layers before the last one collapse, too. That the scatter within classes falls with depth,
# relative to that between them, is what Rangamani et al. {cite}`rangamani2023` found in trained
# classifiers; and for two classes, with free features below several non-linear layers, it is proved that
# the optimum has all of these layers collapsed {cite}`sukenik2023`. What this chapter adds, as far as we
# know, is four optimizers next to each other.
#
# At the last layer coupled and decoupled decay differ in NC0 and NC3 ({doc}`symmetry`). Both are defined
# with the last layer's $W$, and say nothing about a layer below. What can be measured there, NC1, the
# nearest class mean and the rank, does not divide the coupled from the decoupled optimizers in most layers.
# That is weaker than "the form of decay does not matter": one strong decay was chosen for each optimizer, and
# the four were not matched, so the form of decay was not isolated.
#
# Under AdamW, whose NC3 stays large at the last layer, the nearest class mean is right after as few layers as
# under SGD and Adam. MuonW comes to the smallest NC1, and its layers keep a high rank for longer. A possible
# reason is that its steps have equal singular values; we did not test it.
#
# ## One factor a layer?
#
# He and Su {cite}`he2023` report a law for trained networks: the trace
# $\operatorname{Tr}(\Sigma_W\Sigma_B^\dagger)$ falls by a constant factor from layer to layer. It is $K$
# times our NC1, so $\log\text{NC1}$ should be a straight line in depth. A steep line has a small factor.


# %%
def line(rows):
    """Slope of the line, as a factor a layer; its R²; the largest factor between NC1 and the line."""
    x, y = rows["position"].to_numpy(float), np.log(rows["nc1"].to_numpy())
    fit = np.polyfit(x, y, 1)
    r2 = np.corrcoef(x, y)[0, 1] ** 2
    off = np.abs(y - np.polyval(fit, x)).max()
    return pd.Series({"factor": np.exp(fit[0]), "R²": r2, "off": np.exp(off)})


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


def cell(values):
    """Median and range; of a single run its value."""
    if len(values) == 1:
        return f"{values.iloc[0]:.2f}"
    return figures.with_range(values, digits=".2f")


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
        "off": "furthest off",
    }
    by_kind = table.rename(columns=names).groupby(level=[0, 1], sort=False)
    return figures.shown(in_order(by_kind.agg(cell)))


def tell_lines(rows):
    found = lines(rows)
    none, strong = (
        found["factor"].xs(d, level="decay") for d in ("none", "strong")
    )
    return f"""*Medians over the seeds, and below them the least and the largest. First a line through all
layers: its factor, its R², and by which factor the furthest layer lies off it. The last two columns are lines
through half of the layers. A smaller factor is a steeper fall.*

The line explains {span(found["R²"], ".0%")} of log NC1. Weight decay makes it steeper: a layer leaves
{span(none, ".0%")} of NC1 without decay, and {span(strong, ".0%")} with a strong one."""


figures.show_if_any(uniform, "", show_lines, tell_lines)

# %% [markdown]
# (Without decay Adam and AdamW are one optimizer, and their rows are equal.) So $\log\text{NC1}$ is roughly a
# line, and the halves of the network show where it is not. Without decay it flattens with depth under Adam
# and MuonW: under Adam a layer leaves 49 % of NC1 in the first half, and 78 % in the second. Under SGD it
# becomes steeper. With a strong decay it becomes steeper under all four optimizers, under AdamW from 41 % to
# 13 % a layer; only under SGD, from 33 % to 28 %, is the line nearly straight.
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
        found[name] = entry[column]
        found[f"{name} end"] = rows[column].iloc[-1]
    return pd.Series(found)


# %% tags=["hide-input"]
def middle(values):
    """The median; NaN, which a table shows as a dash, if one of the runs has no tunnel."""
    return values.median(skipna=False)


def show_tunnels(rows):
    groups = rows.groupby(["hidden", "decay", "run_id"], sort=False)
    found = groups[["position", "train_ncm_acc", *TOLD.values()]].apply(tunnel)
    table = in_order(found.groupby(level=[0, 1], sort=False).agg(middle))
    forms = {"NC1": "{:.2g}", "rank": "{:.0f}", "test": "{:.1%}"}
    forms |= {f"{name} end": form for name, form in forms.items()}
    return figures.shown(table, begins="{:.0f}", **forms)


def tell_gain(rows):
    """What the tunnel adds to the test accuracy under strong decay: medians over the seeds."""
    groups = rows.groupby(["hidden", "run_id"], sort=False)
    found = groups[["position", "train_ncm_acc", *TOLD.values()]].apply(tunnel)
    gain = (found["test end"] - found["test"]).dropna()
    gain = gain.groupby("hidden").median()
    count = len(digits.test_y)
    return f"""*Medians over the seeds: after which layer the tunnel begins; NC1, effective rank and test
accuracy of the nearest class mean there and at its end, the last layer.*

With strong decay the nearest class mean is right for {span(100 * gain, ".1f")} percentage points more of the
test images at the last layer than at the entry of the tunnel (medians of the optimizers). The test set has
{count} images, and one of them is {1 / count:.2%}, so these are {span(gain * count, ".0f")} images."""


figures.show_if_any(uniform, "", show_tunnels)
figures.show_if_any(strong, "", tell_gain)

# %% [markdown]
# With strong decay the tunnel is most of the network. What follows its entry takes NC1 down by orders of
# magnitude, and changes the predictions of few test images. In the tunnel of Masarczyk et al. the rank falls.
# Here that depends on the optimizer: with strong decay under Adam and AdamW the rank is 10 to 12 where the
# tunnel begins, close to nine already; under SGD it is 27, and under MuonW 76.
#
# ## In which order do layers collapse?
#
# Each panel is one optimizer with strong decay; its first column is the network before training. The table
# below the pictures tells when a layer's NC1 first lies below 0.1, and how much of its fall comes late.


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


def medians(rows):
    """Median NC1 over the seeds: a row an optimizer and layer, a column an epoch."""
    kinds = ["hidden", "position", "epoch"]
    table = rows.groupby(kinds)["nc1"].median().unstack()
    return table.reindex([n for n in NUMBERS if n in table.index], level=0)


def show_order(rows):
    """When NC1 of a layer is first below 0.1, and the share of its fall after the first drop."""
    table = medians(rows)
    low = table < 0.1
    first = low.idxmax(axis=1).where(low.any(axis=1))
    first = first.map("{:.0f}".format, na_action="ignore")
    fall = np.log(table)
    drop = fall.columns[fall.columns <= rows["epochs"].max() / 3].max()
    late = fall[drop] - fall.iloc[:, -1]
    late = (late / (fall[0] - fall.iloc[:, -1])).map("{:.0%}".format)
    parts = {"below 0.1 at epoch": first, f"falls after epoch {drop}": late}
    told = pd.concat(parts).unstack("position").swaplevel()
    kinds = [(n, part) for n in table.index.unique(0) for part in parts]
    told = told.reindex(kinds).rename(index=figures.LABELS, level=0)
    told.columns = [f"layer {place}" for place in told]
    return figures.shown(told.rename_axis(index=["optimizer", ""]))


def tell_order(rows):
    """How depth works before training."""
    start = medians(rows)[0].groupby("position").median()
    return f"""*NC1, dark where it is small, on one scale; left to right the logged epochs, which are not
equally far apart; bottom to top the layers. Table: the first logged epoch at which NC1 (median over the seeds)
is below 0.1, a dash where it never is; and the share of the fall of log NC1, from before training to its
end, that comes after the last logged epoch before the learning rate's first drop.*

Before training NC1 rises with depth, from {start.iloc[0]:.2f} in layer 1 to {start.iloc[-1]:.2f} in layer
{depth}."""


figures.show_if_any(trained, "", draw_maps, show_order, tell_order)

# %% [markdown]
# An untrained network mixes the classes, the more, the deeper it is (its batch norm has seen no data, and
# does nothing; exercise 3). Training turns that gradient around. Under SGD, Adam and MuonW layers 6 to 8
# fall below 0.1 within 20 epochs; the layers before them follow, each together with the next one or later.
# Under AdamW all layers from the third on do so at one logged epoch, after the learning rate's first drop. In
# layer 8 most of the fall follows that drop, at a third of the epochs: 60 % of it under Adam, 80 % under AdamW.
# In layers 1 and 2 most of it has come before. NC1 of layer 1 stays above 0.1.
#
# (depth-reach)=
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
    return f"""*The optimizer of the hidden layers, then that of the last layer; strong decay. Median and range
over the seeds.*

In the median over the layers, whichever way it goes, {said[0]}; {said[1]}. Layer by layer, NC1 with AdamW
divided by NC1 with SGD (medians over the seeds):"""


def show_pairs(rows):
    """NC1 with AdamW over NC1 with SGD, in one part of the network or the other."""
    nc1 = rows.groupby(["hidden", "last", "position"])["nc1"].median()
    nc1, ratios = nc1.unstack("position"), {}
    for exchanged, kept in (("last", "hidden"), ("hidden", "last")):
        for name in ("sgd", "adamw"):
            other = figures.LABELS[name]
            table = nc1.xs(name, level=kept)
            ratios[exchanged, other] = table.loc["adamw"] / table.loc["sgd"]
    table = pd.DataFrame(ratios).T
    table.columns = [str(place) for place in table]
    table = table.rename_axis(index=["exchanged", "other part"])
    return figures.shown(table, **dict.fromkeys(table, "{:.2f}"))


figures.show_if_any(pairs, "", draw_pairs, tell_pairs, show_pairs)

# %% [markdown]
# *NC1 with AdamW over NC1 with SGD, in layers 1 to 8, if that part's optimizer is exchanged and the other
# part keeps its own.*
#
# It reaches back through the second half of the network, not further: in layers 1 to 4 exchanging the last
# layer's optimizer changes NC1 by 20 % at most. In layers 5 and 6 NC1 is larger with AdamW in the last layer, by
# up to a factor of 2.1; right before the last layer, in layer 8, it is smaller, by a factor of 1.8 (AdamW in
# the hidden layers) or 4.8 (SGD). The hidden layers' own optimizer changes NC1 by more in layers 1 to 6. It
# changes the rank of layers 1 and 2 by a factor of more than two, the last layer's optimizer by 17 % at most.
#
# Two parts of one network, two answers. NC0, and the gauge part of NC3, belong to the last layer's optimizer
# (shown on digits and MNIST in {doc}`symmetry`); after how many layers, and in how many directions, the
# classes are separated belongs to the others.
#
# ## Other networks
#
# The same with strong decay for an MLP of eight layers on 6,000 images of MNIST, and for narrow
# convolutional networks on 2,000 images of Fashion-MNIST. Of these a layer is averaged over space, which
# forgets where things are: their early layers may separate more than is seen here.


# %% tags=["hide-input"]
def show_elsewhere(rows):
    """The line and the tunnel of each network and optimizer."""
    last = rows[rows["epoch"] == rows["epochs"]]
    kinds = ["network", "hidden", "run_id"]
    groups = last.groupby(kinds, sort=False)
    table = groups[["position", "nc1"]].apply(line)
    asked = ["position", "train_ncm_acc", *TOLD.values()]
    table = table.join(
        groups[asked].apply(tunnel).reindex(columns=["begins", "rank"])
    )
    table["accuracy"] = groups["held"].min()
    table = table.groupby(level=[0, 1], sort=False).agg(middle)
    table = table.reindex(list(NUMBERS), level=1)
    table = table.rename(index=figures.LABELS).rename_axis(
        index=["network", "optimizer"]
    )
    return figures.shown(table, accuracy="{:.1%}", begins="{:.0f}")


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


CAPTION = """*Medians over the seeds: the factor of NC1 a layer, R² of the line, and by which factor the
furthest layer lies off it; after which layer the tunnel begins, and the effective rank there; the least
training accuracy of a run over the last quarter of its epochs. A dash: not all runs have a
tunnel.*"""
figures.show_if_any(
    others, "", show_elsewhere, lambda _: CAPTION, draw_elsewhere
)

# %% [markdown]
# On MNIST NC1 falls with depth under all four optimizers, too. But these strong decays leave SGD, Adam and
# AdamW below 100 % there: they end at 99.3 % to 99.9 % of the training samples, so 99.9 % are nearest to their
# class's mean in no layer of most of these runs. Under MuonW, which fits all samples, the tunnel begins after
# layer 3 or 4.
#
# ## What was shown
#
# All measured on one network and data set (MLP of eight layers, digits, three seeds).
#
# - **Collapse is a gradient over depth**: $\log\text{NC1}$ is roughly a line, as He and Su found, with an R²
#   of 92 % or more. Weight decay makes it steeper, and bends it downwards.
# - **With strong decay most of the network is a tunnel**, under each of the four optimizers: it begins after
#   layer 2 or 3.
# - **The optimizer shows in the effective rank**, and there it is the hidden layers' own.
# - **The form of decay is not seen** in what was measured below the last layer; it was not isolated, either.
# - **The last layer's optimizer reaches back through the second half of the network** (SGD and AdamW,
#   exchanged): larger NC1 in its middle, smaller right before the last layer.
#
# ## Where it holds, and where not
#
# - One learning rate and one strong decay for each optimizer, chosen so that on the digits it reaches 100 %
#   training accuracy and holds it; on MNIST only MuonW does. They are not matched to each other: that AdamW has a lower rank than MuonW in layer
#   2 is a fact about these settings, and so is that coupled and decoupled decay look alike.
# - The data are small and easy. Where linear separability is reached late, it, and not the nearest class
#   mean, may be the better entry of the tunnel.
# - Batch norm stands in each layer. Without it weight decay acts on the features' size, too.
# - The effective rank counts small directions generously: around collapsed class means, noise that is a tenth
#   as long as they are takes it from 9 to 20 (exercise 2). It tells much about order, and little about accuracy.
# - A shallow network shows less of this: where the tunnel begins after two or three layers, the book's MLP of
#   three layers has little room for one.
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
f"the nearest class mean is right for {(found == labels).mean():.0%}"

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
rows = 10**0.5 * torch.as_tensor(metrics.simplex_etf(10))  # of length 1
rows = torch.nn.functional.pad(rows[labels], (0, 54))  # 64 features
noise = torch.randn(rows.shape, generator=torch.Generator().manual_seed(0))
noise /= 64**0.5  # of length 1, on average
sizes = (0.0, 0.01, 0.1)
ranks = [effective_rank(rows + size * noise, labels) for size in sizes]
assert abs(ranks[0] - 9) < 1e-5 < ranks[1] - 9
assert round(ranks[2]) == 20
", ".join(
    f"{rank:.1f} with noise of length {size:g}"
    for size, rank in zip(sizes, ranks, strict=True)
)

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
tables = {
    name: table.set_index("position")[[*columns]].rename(columns=columns)
    for name, table in (("no data seen", fresh), ("digits seen", seen))
}
figures.shown(pd.concat(tables, axis=1).rename_axis("layer"))

# %% [markdown]
# *It does, all the same. What batch norm changes is the rank, which now rises with depth instead of
# falling (solution above).*
