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
# **Question.** Neural collapse is measured at the last layer. Do the layers before it collapse, too, and does
# the optimizer decide how many of them?
#
# **Answer.** In part. NC1 falls from layer to layer, but the class means of the first layers are no simplex. On
# digits, with strong weight decay, 99.9 % of the training samples are nearest to their own class's mean after two or
# three of eight layers, whichever of four optimizers trains; on Fashion-MNIST a narrow ResNet9 or VGG9 gets there one
# layer before its last. What differs from one optimizer to the other is how steeply NC1 falls, and over how many
# directions the features spread on the way.

# %%
import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt
from matplotlib.colors import LogNorm

from ncbook import data, figures, metrics, models, store
from ncbook.measure import measure
from ncbook.metrics.layers import nearest_class

figures.start_chapter()

NUMBERS = {  # learning rate, strong weight decay
    "sgd": (0.02, 0.05),
    "adam": (0.005, 0.05),
    "adamw": (0.005, 5.0),
    "muonw": (0.02, 2.0),
}
SETTING = ["model", "dataset", "width", "depth", "train_size", "epochs"]
SETTING += ["head_optimizer", "head_lr", "head_momentum", "head_weight_decay"]
NAMES = {"mlp": "MLP", "resnet9": "ResNet9", "vgg9": "VGG9", "mnist": "MNIST"}
NAMES |= {"fashion_mnist": "Fashion-MNIST"}


# %%
def networks(runs):
    """The runs with rows of layers, by network and data set, and the kind of each."""
    for values, own in runs.groupby(SETTING, dropna=False, sort=False):
        given = dict(zip(SETTING, values, strict=True))
        given = {name: v for name, v in given.items() if pd.notna(v)}
        name = ", ".join(NAMES.get(v, v) for v in values[:2])
        own = figures.of_setting(own, **given, momentum=0.9)
        lr, strong = pd.DataFrame(NUMBERS)[own["optimizer"]].to_numpy()
        none = own["weight_decay"] == 0
        own = own[(own["lr"] == lr) & (none | (own["weight_decay"] == strong))]
        decay = none.map({True: "none", False: "strong"})
        last = figures.head_optimizer(own)
        own = own.assign(network=name, last=last, decay=decay)
        yield own.assign(hidden=own["optimizer"])


stored = store.load_runs(status="ok", optimizer=[*NUMBERS])
measured = stored[stored["measured_layers"].notna()]
kinds = pd.concat([measured[:0].assign(network=""), *networks(measured)])
kinds = kinds.reindex(
    columns=[
        "run_id",
        "network",
        "hidden",
        "last",
        "decay",
        "epochs",
        "train_acc",
    ]
)
layers = store.load_layers(run_id=[*kinds["run_id"]]).merge(kinds, on="run_id")
layers["layer"] = "layer " + layers["position"].astype(str)
ends = layers[layers["epoch"] == layers["epochs"]]
same = ends[ends["hidden"] == ends["last"]]  # one optimizer everywhere
uniform = same[same["network"] == "MLP, digits"]
strong = uniform[uniform["decay"] == "strong"]

# %% tags=["hide-input"]
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
for network in "$DIGITS" "$MNIST"; do
    run $network -p optimizer sgd -p lrs 0.02 -p weight_decays "[0, 0.05]"
    run $network -p optimizer adam -p lrs 0.005 -p weight_decays "[0, 0.05]"
    run $network -p optimizer adamw -p lrs 0.005 -p weight_decays "[0, 5]"
    run $network -p optimizer muonw -p lrs 0.02 -p weight_decays "[0, 2]"
done
for model in resnet9 vgg9; do
    run $IMAGES -p model $model -p optimizer sgd -p lrs 0.02 -p weight_decays 0.05
    run $IMAGES -p model $model -p optimizer adam -p lrs 0.005 -p weight_decays 0.05
    run $IMAGES -p model $model -p optimizer adamw -p lrs 0.005 -p weight_decays 5
    run $IMAGES -p model $model -p optimizer muonw -p lrs 0.02 -p weight_decays 2
done
run $DIGITS -p optimizer adamw -p lrs 0.005 -p weight_decays 5 -p head_optimizer sgd \\
    -p head_lr 0.02 -p head_momentum 0.9 -p head_weight_decay 0.05
run $DIGITS -p optimizer sgd -p lrs 0.02 -p weight_decays 0.05 -p head_optimizer adamw \\
    -p head_lr 0.005 -p head_momentum 0.9 -p head_weight_decay 5"""


def draw_strong(rows):
    return figures.by_layer(rows, "optimizer")


figures.with_lines(
    strong.assign(optimizer=strong["hidden"]), LINES, draw_strong
)

# %% [markdown]
# *An MLP of eight layers on digits, strong weight decay, at the end of training; median and range over three
# seeds. From above: NC1; the share of samples whose own class has the nearest mean; the effective rank, which
# is nine in a collapsed layer of ten classes.*
#
# **What you will learn**
#
# - how to measure any layer: NC1, the accuracy of the nearest class mean, the effective rank;
# - that NC1 is a gradient over depth, roughly one factor a layer {cite}`he2023`, and what the *tunnel*
#   of a network is {cite}`masarczyk2023`;
# - in which order layers collapse while a network trains;
# - what weight decay, the optimizer, and the last layer's own optimizer change about it.
#
# ## Three questions to a layer
#
# The network has *eight* hidden layers of 128 units (Linear, batch norm, ReLU) and is trained for 200 epochs on
# 1,400 digits. SGD and Adam have coupled weight decay, AdamW and MuonW decoupled decay; each runs with none and
# with a strong one. A *layer* is here a linear map or a convolution together with the norm, activation and
# pooling that follow it; of a ResNet it is a block, and of its last block the first convolution, too, since the rest
# ends in the input of the classifier. They are counted from 1, and the last one's output is that input, where the
# rest of this book measures.
#
# Let $h$ be what a layer puts out for a training sample, in evaluation mode (of images, averaged over
# space), and $\mu_k$ its mean over class $k$. Three numbers tell how far that layer is from collapse.
#
# **NC1**, as at the last layer: how large the scatter within the classes is against that between them
# ({doc}`metrics`).
#
# **The accuracy of the nearest class mean**: the share of samples whose own class has the nearest mean.
# This is a *linear* rule, since
#
# $$ \operatorname*{argmin}_k \lVert h - \mu_k\rVert^2
# = \operatorname*{argmax}_k \big(\mu_k^\top h - \tfrac12\lVert\mu_k\rVert^2\big) . $$ (depth-linear)
#
# So 100 % prove that the classes are linearly separable. The reverse is false (exercise 1).
#
# **The effective rank** {cite}`roy2007` of the features centred on their mean, with singular values
# $\sigma_i$ and $q_i = \sigma_i/\sum_j\sigma_j$:
#
# $$ \operatorname{erank} = \exp\Big(-\sum_i q_i\log q_i\Big) , $$ (depth-rank)
#
# from 1 to the number of features, and equal to it where all directions are used alike. In a collapsed
# layer the features are $K$ points in a simplex: $K - 1$ equal singular values, and effective rank $K - 1$.
#
# ## Layer by layer
#
# Back to the picture. NC1 is 0.26 to 0.37 after layer 1, and 0.0001 or less after layer 8. The nearest class mean is
# right for 98.2 % to 98.9 % of the training samples after layer 1, for 99.8 % or more after layer 2, for all after
# layer 4 (medians). In the rank the optimizers differ: after layer 2 it is 27 under SGD, 11 under Adam, 13 under
# AdamW and 79 under MuonW; after the last layer it is 9.0 to 9.7.
#
# So the scatter within classes collapses before the last layer, too. The class means do not form a simplex as early:
# NC2 stays above 0.13 in layers 1 to 6 of all 12 runs, and falls below 0.1 in layer 7 in nine of them; under AdamW it
# ends above 0.1 in the last layer as well. That the scatter within classes falls with depth, relative to that between
# them, is what Rangamani et al. {cite}`rangamani2023` found in trained classifiers; and for two classes, with free
# features below several non-linear layers, it is proved that the optimum has all of these layers collapsed
# {cite}`sukenik2023`. What this chapter adds, as far as we know, is four optimizers next to each other.
#
# At the last layer coupled and decoupled decay differ in NC0 and NC3 ({doc}`symmetry`). Both are defined with
# the last layer's $W$, and say nothing about a layer below. What can be measured there hardly divides the two
# forms: both coupled optimizers are on one side of both decoupled ones in layers 1, 2 and 8 for NC1, in layers 6 and 7
# for the rank, where chance alone would do so in one layer of three; and for the nearest class mean, which is
# right for nearly all samples from layer 3 on, in neither of the first two.
# That is weaker than "the form of decay does not matter": the four strong decays were not matched to each
# other.
#
# MuonW comes to the smallest NC1, and its layers keep a high rank for longer. A possible reason is that its
# steps have equal singular values; we did not test it.
#
# ## One factor a layer?
#
# He and Su {cite}`he2023` report a law for trained networks: the trace
# $\operatorname{Tr}(\Sigma_W\Sigma_B^\dagger)$ falls by a constant factor from layer to layer. It is $K$
# times our NC1, so $\log\text{NC1}$ should be a straight line in depth. A steep line has a small factor.


# %%
def line(rows):
    """Slope of the line, as a factor a layer, and its R²."""
    x, y = rows["position"].to_numpy(float), np.log(rows["nc1"].to_numpy())
    slope, r2 = np.polyfit(x, y, 1)[0], np.corrcoef(x, y)[0, 1] ** 2
    return pd.Series({"a layer": np.exp(slope), "R²": r2})


def lines(rows):
    """The line of each run."""
    groups = rows.groupby(["hidden", "decay", "run_id"], sort=False)
    return groups[["position", "nc1"]].apply(line)


# %% tags=["hide-input"]
def by_kind(found, how):
    """A table of runs over their seeds, a row an optimizer and a decay."""
    table = found.groupby(level=[0, 1], sort=False).agg(how)
    order = [(name, d) for name in NUMBERS for d in ("none", "strong")]
    table = table.reindex([kind for kind in order if kind in table.index])
    table.index = [f"{figures.LABELS[name]}, {d}" for name, d in table.index]
    return table.rename_axis("optimizer, decay")


def show_lines(rows):
    """Line, and the factor of the first and the second half of the network."""
    early = rows["position"] <= rows["position"].max() // 2
    halves = {"first half": rows[early], "second half": rows[~early]}
    parts = {name: lines(half)["a layer"] for name, half in halves.items()}
    table = lines(rows).assign(**parts)
    return figures.shown(by_kind(table, lambda v: figures.with_range(v, ".2f")))


figures.show_if_any(uniform, "", show_lines)

# %% [markdown]
# *What a layer leaves of NC1, by a line through all layers, its R², and lines through half of the layers.
# Medians over the seeds, and below them the least and the largest. (Without decay Adam and AdamW are one
# optimizer.)*
#
# So $\log\text{NC1}$ is roughly a line, with an R² of 92 % or more. Weight decay makes it steeper: without
# decay a layer leaves 58 % to 67 % of NC1, with a strong one 17 % to 30 %. The halves of the network show where
# it is no line. Without decay it flattens with depth under Adam and MuonW: under Adam a layer leaves 49 % of
# NC1 in the first half, and 78 % in the second. Under SGD it becomes steeper. With a strong decay it becomes
# steeper under all four optimizers, under AdamW from 41 % to 13 % a layer; only under SGD, from 33 % to 28 %, is
# the line nearly straight.
#
# ## The tunnel
#
# Masarczyk et al. {cite}`masarczyk2023` see two parts in a deep network. The first layers make the classes
# linearly separable; the rest, the *tunnel*, compress what they get, and have little effect on the
# accuracy. How long is the tunnel here? By linear separability it would be the whole network: the raw
# pixels of the digits are separable. Of them:

# %%
from sklearn.linear_model import LogisticRegression

digits = data.load("digits")
X, y = digits.train_x.double().flatten(1), digits.train_y
linear = LogisticRegression(C=100.0, max_iter=2000).fit(X, y)
means = metrics.class_means(X, y, 10)
nearest = (nearest_class(X, means) == y).double().mean().item()
tested = linear.score(digits.test_x.flatten(1), digits.test_y)
assert linear.score(X, y) == 1.0 > nearest
print(f"logistic regression: 100 %, test {tested:.1%}")
print(f"nearest class mean: {nearest:.1%}")

# %% [markdown]
# So on easy data "separable from this layer on" says little. The nearest class mean asks for more: it can fail
# where classes are long or of different width. Let the tunnel begin after the first layer from which on
# that rule is right for at least 99.9 % of the training samples.


# %%
TOLD = {"NC1": "nc1", "rank": "effective_rank", "test": "test_ncm_acc"}


def tunnel(rows):
    """After which layer the tunnel of a run begins, and what is known there and at the end."""
    rows = rows.sort_values("position")
    right = (rows["train_ncm_acc"] >= 0.999)[::-1].cummin()[::-1]
    first = rows[right].head(1).reindex(columns=["position", *TOLD.values()])
    entry = first.iloc[0] if len(first) else first.reindex([0]).iloc[0]
    found = {"begins": entry["position"]}
    for name, column in TOLD.items():
        found |= {name: entry[column], f"{name} end": rows[column].iloc[-1]}
    return pd.Series(found, dtype=float)


ASKED = ["position", "train_ncm_acc", *TOLD.values()]


# %% tags=["hide-input"]
def middle(values):
    """The median; NaN, which a table shows as a dash, if one of the runs has no tunnel."""
    return values.median(skipna=False)


def show_tunnels(rows):
    groups = rows.groupby(["hidden", "decay", "run_id"], sort=False)
    table = by_kind(groups[ASKED].apply(tunnel), middle)
    forms = {"NC1": "{:.2g}", "rank": "{:.0f}", "test": "{:.1%}"}
    forms |= {f"{name} end": form for name, form in forms.items()}
    return figures.shown(table, begins="{:.0f}", **forms)


figures.show_if_any(uniform, "", show_tunnels)

# %% [markdown]
# *Medians over the seeds: after which layer the tunnel begins; NC1, effective rank and test accuracy of the
# nearest class mean there and at its end, the last layer.*
#
# With strong decay the tunnel is most of the network: it begins after layer 2 or 3. What follows takes NC1 down by
# 2.9 to 4.5 orders of magnitude (medians), and the nearest class mean is right for
# 3 to 6 more of 397 test images (medians; 0 to 8 by run), in 8 of 12 runs more than a third of the errors that it made
# where the tunnel begins. In the tunnel of Masarczyk et al. the rank falls. Here that depends on the optimizer:
# with strong decay under Adam and AdamW the rank is 10 to 12 where the tunnel begins, close to nine already; under
# SGD it is 27, and under MuonW 76.
#
# ## In which order do layers collapse?
#
# Each panel is one optimizer with strong decay; its first column is the network before training.


# %% tags=["hide-input"]
def medians(rows):
    """Median NC1 over the seeds: a row an optimizer and layer, a column an epoch."""
    parts = ["hidden", "position", "epoch"]
    table = rows.groupby(parts)["nc1"].median().unstack()
    return table.reindex([n for n in NUMBERS if n in table.index], level=0)


def draw_maps(rows):
    """NC1 over epochs (left to right) and layers (bottom to top), on one scale."""
    table = medians(rows)
    look = dict(figsize=(7.4, 5.2), sharex=True, sharey=True)
    figure, axes = plt.subplots(2, 2, **look, layout="constrained")
    for axis, name in zip(axes.flat, table.index.unique(0), strict=False):
        own, scale = table.loc[name], LogNorm(1e-4, 1)
        mesh = axis.pcolormesh(own.to_numpy(), norm=scale, cmap="viridis")
        axis.set_xticks(np.arange(own.shape[1]) + 0.5, own.columns, rotation=90)
        axis.set_yticks(np.arange(len(own)) + 0.5, own.index)
        axis.set_title(figures.LABELS[name])
        axis.grid(False)
    figure.supxlabel("logged epoch", fontsize=11)
    figure.supylabel("layer", fontsize=11)
    figure.colorbar(mesh, ax=axes, label="NC1", extend="both", aspect=40)
    figure.set_label(
        "NC1 over epochs and layers, by optimizer: dark from above"
    )
    return plt.close(figure) or figure


def show_order(rows):
    """The first logged epoch at which NC1 of a layer is below 0.1."""
    low = medians(rows) < 0.1
    first = low.idxmax(axis=1).where(low.any(axis=1))
    table = first.map("{:.0f}".format, na_action="ignore").unstack("position")
    table = table.reindex(low.index.unique(0)).rename(index=figures.LABELS)
    table.columns = [f"{place}" for place in table]
    return figures.shown(table.rename_axis("layer"))


course = layers[layers["run_id"].isin(strong["run_id"])]
figures.show_if_any(course, "", draw_maps, show_order)

# %% [markdown]
# *NC1, dark where it is small; the logged epochs are not equally far apart. Table: the first of them at which
# NC1 (median over the seeds) is below 0.1, a dash where it never is.*
#
# An untrained network mixes the classes, the more, the deeper it is: NC1 rises from 0.87 in layer 1 to 2.73 in layer
# 8 (its batch norm has seen no data, and does nothing; exercise 3). Training turns that gradient around. Under SGD,
# Adam and MuonW layers 6 to 8 fall below 0.1 within 20 epochs. Under SGD and MuonW the layers before them follow,
# each together with the next one or later; under Adam layers 4 to 7 pass 0.1 together, the last one after them.
# AdamW's medians pass it at one logged epoch, after the learning rate's first drop, in all layers from the third on.
# By seed it is less clear: of one, layers 3 to 8 are below 0.1 at epoch 20 already, of another layers 6 to 8 at epoch
# 50, and in the median NC1 rises again between these two. In layer 8 most of the fall of $\log\text{NC1}$ follows
# that drop, at a third of the epochs: 60 % of it under Adam, 80 % under AdamW. In layers 1 and 2 most of it has come
# before. NC1 of layer 1 stays above 0.1.
#
# (depth-reach)=
# ## Does the last layer's optimizer reach back?
#
# For NC0 the last layer's optimizer decides, and the rest does not ({doc}`symmetry`). If it also decided what the
# hidden layers look like, AdamW in the last layer would spoil them. Exchange SGD and AdamW in one part of the
# network, and leave the other part its own:

# %%
two = ends[ends["hidden"].isin(["sgd", "adamw"]) & (ends["decay"] == "strong")]
two = two[
    (two["network"] == "MLP, digits") & two["last"].isin(["sgd", "adamw"])
]
two = two if len(two.groupby(["hidden", "last"])) == 4 else two[:0]


def exchanged(rows, column):
    """A metric with AdamW over the same with SGD, medians over the seeds."""
    table = rows.groupby(["hidden", "last", "position"])[column].median()
    table, ratios = table.unstack("position"), {}
    for part, other in (("last", "hidden"), ("hidden", "last")):
        for name in ("sgd", "adamw"):
            own = table.xs(name, level=other)
            ratios[part, name] = own.loc["adamw"] / own.loc["sgd"]
    return ratios


# %% tags=["hide-input"]
def draw_exchanged(rows):
    """NC1 and rank with AdamW over those with SGD, by layer."""
    axes = figures.small_panels(2)
    parts = {"last": "last layer", "hidden": "hidden ones"}
    for axis, column in zip(axes, ("nc1", "effective_rank"), strict=True):
        for (part, name), ratio in exchanged(rows, column).items():
            look = dict(color={"last": "#0072B2", "hidden": "#D55E00"}[part])
            look |= dict(ls={"sgd": "-", "adamw": "--"}[name], marker="o", ms=4)
            label = f"{parts[part]}, rest {figures.LABELS[name]}"
            axis.plot(ratio.index, ratio, label=label, **look)
        axis.axhline(1, color="#555555", lw=0.8)
        axis.set(yscale="log", xlabel="layer")
        figures.log_values(axis)
    axes[0].set_ylabel("NC1 with AdamW, over SGD")
    axes[1].set_ylabel("effective rank, AdamW over SGD")
    return figures.in_rows(*axes)


figures.show_if_any(two, "", draw_exchanged)

# %% [markdown]
# *What exchanging SGD for AdamW does, in the last layer (blue) or in the hidden layers (red), if the other part
# is trained by SGD (solid) or AdamW (dashed). Strong decay; ratios of medians over
# three seeds. Each optimizer brings its own learning rate and decay (SGD 0.02 and 0.05, AdamW 0.005 and 5), so all three
# are exchanged together.*
#
# It reaches back to layer 5 at least. Three seeds do not say where it ends: in layer 4 five of the six pairs of runs
# with one seed point the same way, too, but in layers 1 to 4 exchanging the last layer's optimizer changes NC1 by 20 %
# at most, and in one cell the seeds differ by up to 1.6 times. In layers 5 and 6 NC1 is larger with AdamW in the last
# layer, by up to a factor of 2.1, and in 11 of 12 pairs of runs with one seed; in layer 7 it is 0.68 (SGD in the
# hidden layers) and 1.19 times as large (AdamW). Right before the last layer, in layer 8, it is smaller in all six
# pairs, by a factor of 1.8 (AdamW in the hidden layers) or 4.8 (SGD). The hidden layers' own optimizer changes NC1 by
# more in layers 1 to 6. It changes the rank of layers 1 and 2 by a factor of more than two, the last layer's
# optimizer by 17 % at most.
#
# What reaches back may be the last layer's rule, its learning rate or its decay.
#
# Two parts of one network, two answers. NC0, and the gauge part of NC3, belong to the last layer's optimizer; in how
# many directions the features of the first layers spread belongs to that of the others. (The tunnel begins after
# layer 2 or 3 in all four pairs, and tells none of them apart.)
#
# ## Other networks
#
# The same with strong decay, for all other networks that the store has with their layers. Convolutional layers
# are averaged over space, which forgets where things are: the early ones may separate more than is seen here.

# %%
elsewhere = same[
    (same["network"] != "MLP, digits") & (same["decay"] == "strong")
]
elsewhere = elsewhere.assign(optimizer=elsewhere["hidden"])
elsewhere = elsewhere.sort_values("network", kind="stable")


# %% tags=["hide-input"]
def row_of(rows):
    """Line, tunnel and accuracy of one network and optimizer, over its seeds."""
    groups = rows.groupby("run_id")
    table = groups[["position", "nc1"]].apply(line)
    table = table.join(groups[ASKED].apply(tunnel)[["begins", "rank"]])
    table["accuracy"] = groups["train_acc"].first()
    return {"n": len(table), "layers": rows["position"].max()} | dict(
        table.agg(middle)
    )


def show_elsewhere(rows):
    """A row for each network and optimizer."""
    table = {
        f"{figures.LABELS[name]}\n{network}": row_of(own)
        for network, part in rows.groupby("network", sort=False)
        for name, own in figures.by_optimizer(part)
    }
    table = pd.DataFrame(table).T.astype({"n": int, "layers": int})
    forms = dict(begins="{:.0f}", rank="{:.0f}", accuracy="{:.1%}")
    return figures.shown(table, **forms | {"a layer": "{:.2f}", "R²": "{:.2f}"})


def draw_elsewhere(rows):
    return figures.side_by_side(
        *(
            figures.by_layer(own, "optimizer", name)
            for name, own in rows.groupby("network", sort=False)
        )
    )


figures.show_if_any(elsewhere, "", draw_elsewhere, show_elsewhere)

# %% [markdown]
# *Medians over the n seeds: what a layer leaves of NC1 and R² of the line; after which layer the tunnel begins,
# and the effective rank there, a dash if not all runs have a tunnel; the training accuracy at the end.*
#
# **MLP of eight layers, 6,000 images of MNIST.** NC1 falls with depth under all four optimizers, too. But these
# strong decays leave SGD, Adam and AdamW below 100 % there: they end at 99.3 % to 99.9 % of the training samples,
# so 99.9 % are nearest to their class's mean in no layer of most of these runs. Under MuonW, which fits all
# samples, the tunnel begins after layer 3 or 4.
#
# **ResNet9 and VGG9 of width 1/8, 2,000 images of Fashion-MNIST.** All 24 runs fit 99.9 % or more of the training
# samples, and NC1 falls under all four optimizers, but not along a line. In 21 of the 24 one layer, the last but one,
# takes more of it away than any other: from 0.9 to 1.8 before it to 0.01 to 0.08 after it (medians). So the tunnel is
# short. It begins after layer 6 of 7 in ResNet9 and after layer 5 of 6 in VGG9, in 23 of 24 runs; before that layer
# the nearest class mean is right for 75 % to 87 % of the training samples. That most of a network is a tunnel may
# thus be a fact about easy data, or about the MLP, or of averaging over space, which hides what early convolutions
# separate: all three are different here.
#
# Something seems to set AdamW apart, at the other end: from layer 1 to 2 its NC1 *rises*, 7 to 96 times in each of
# its six runs, where the other three optimizers' rises by 1.6 times at most. But NC1 is no safe guide there. Layer 1
# has eight channels, so $\Sigma_B$ of ten classes lacks a direction, and NC1 divides by the smallest of those that
# are left: it is 24 to 54 under the others, and 1.3 and 4.0 under AdamW (medians), for a reason that we do not know.
# CDNV, which inverts nothing, *falls* from layer 1 to 2 in the same six runs, to 0.41 to 0.78 of what it was, and the
# nearest class mean is right for more samples. What AdamW's first layer lacks is rank: 2.4 and 3.0, the least of the
# four optimizers.
#
# Where the tunnel begins the rank has the digits' order: least under Adam, then under AdamW, SGD and MuonW, 16, 24,
# 33 and 44 in ResNet9, 14, 16, 18 and 19 in VGG9. In ResNet9 no other layer has it, in VGG9 three of six do. At the
# last layer it is 14 to 24, far from nine; by the book's rule 22 of the 24 have not collapsed ({doc}`sweep`), and two
# VGG9s, of SGD and MuonW, have.
#
# ## What was shown, and where it holds
#
# | statement | status | where it holds, and where not |
# |---|---|---|
# | Layers 2 to 6 of eight have an NC1 of at most 0.13, but class means that are no simplex | measured, four optimizers | strong decay, digits; NC2 is above 0.13 there, and in layer 7 below 0.1 in 9 of 12 runs |
# | NC1 falls with depth; log NC1 is roughly a line, as He and Su found | measured, R² of 92 % or more | MLP of eight layers, digits, three seeds. It falls on MNIST, too, and in ResNet9 and VGG9, there most steeply into the last but one layer |
# | Strong decay makes it steeper | measured, four optimizers | the same; it also bends the line downwards |
# | With strong decay most of the network is a tunnel, from layer 2 or 3 on | measured, four optimizers | digits, which are easy. On MNIST only MuonW fits all samples. In ResNet9 and VGG9 it is the last layer alone, in 23 of 24 runs |
# | The rank shows the optimizer, that of the hidden layers | measured | digits; in the same order where the tunnel begins in ResNet9 and VGG9, not in all of their layers. The rank counts small directions generously (exercise 2) |
# | Whether the form of decay shows below the last layer could not be told | measured, not isolated | one learning rate and one strong decay each, not matched to each other |
# | The last layer's optimizer reaches back to layer 5 of 8 at least | measured, three seeds | SGD and AdamW exchanged together with their rates and decays, digits |
#
# Batch norm stands in each layer; without it weight decay acts on the features' size, too.
#
# ## Exercises
#
# **1.** Find classes that are linearly separable, and of which the nearest class mean gets some wrong.

# %% tags=["hide-input"]
along = np.linspace(-5, 5, 50)  # two long, thin classes side by side
first = np.stack([along, np.full(50, 0.5)], 1)
second = np.stack([along + 4, np.full(50, -0.5)], 1)
both, labels = np.concatenate([first, second]), np.repeat([0, 1], 50)
centres = np.stack([first.mean(0), second.mean(0)])
found = ((both[:, None] - centres) ** 2).sum(2).argmin(1)
separated = both[:, 1] < 0  # by the second coordinate
assert (separated == labels).all()
assert (found == labels).mean() < 0.8
print(f"the nearest class mean is right for {(found == labels).mean():.0%}")

# %% [markdown]
# **2.** Check that a collapsed layer of $K$ classes has effective rank $K - 1$, and that noise in all
# directions raises it: noise that is a tenth as long as the class means takes it from 9 to 20.


# %% tags=["hide-input"]
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
ranks = [effective_rank(rows + size * noise, labels) for size in (0, 0.01, 0.1)]
assert abs(ranks[0] - 9) < 1e-5 < ranks[1] - 9
assert round(ranks[2]) == 20
print("rank with noise of length 0, 0.01, 0.1:", *(f"{r:.1f}" for r in ranks))

# %% [markdown]
# **3.** Before training, batch norm has seen no data, and does nothing in evaluation mode. Let it see the
# digits, and measure the untrained network (`ncbook.measure.measure` takes any classifier): does depth still
# mix the classes?

# %% tags=["hide-input"]
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
# It does, all the same. What batch norm changes is the rank, which now rises with depth instead of
# falling.
