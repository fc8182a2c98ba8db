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
# # One symmetry decides
#
# *Which optimizers collapse, and why?* Softmax ignores one direction of the last layer's weight, so no
# gradient ever points along it. An optimizer whose update respects that symmetry leaves this direction
# to weight decay, which shrinks it by a factor that is known before training: NC0 goes to zero. An
# optimizer that treats each number for itself pushes $W$ along it, and then NC0 settles where push and
# decay balance. Coupled or decoupled decay is not what decides; whether the last layer's update
# respects one reflection is.
#
# **What you will learn**
#
# - the *flat direction* and the *gauge share*: how much of $W$, and of NC3, says nothing about what a
#   network predicts;
# - the *reflection principle*: a test of an optimizer, with a proof, that takes one line of code;
# - which optimizers pass it, so that NC0 follows one exact law: SGD, but also Muon, Shampoo and SOAP;
# - what AdamW, Lion and MARS do instead, and that the optimizer of the *last layer alone* decides;
# - how much of "AdamW does not collapse" is this direction, and how much is not.

# %%
import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt

from ncbook import figures, metrics, optim, store
from ncbook.theory import symmetry

figures.start_chapter()

# %% [markdown]
# ## The flat direction
#
# The last layer turns features $h$ into logits $z = Wh + b$, one for each of $K$ classes, and softmax
# turns logits into probabilities. Adding one number to *all* logits changes no probability. So adding
# one vector $c$ to *all* rows of $W$ changes no prediction, for any $h$:
#
# $$ \operatorname{softmax}\big((W + \mathbf 1 c^\top) h\big) = \operatorname{softmax}(Wh). $$ (flat)
#
# In the space of classes this is one direction, $\mathbf 1 = (1, \dots, 1)$. The loss is flat along
# it, so its gradient $G = \partial\,\text{loss}/\partial W$ has no part there (the paper's Lemma E.4):
#
# $$ \mathbf 1^\top G = 0 . $$ (no-gradient)
#
# What $W$ itself has along the flat direction is its *gauge part*, $\tfrac1K \mathbf 1\mathbf 1^\top W$.
# NC0 measures its size: $\text{NC0} = \lVert W^\top\mathbf 1\rVert$, and the *gauge share* is the part
# of $W$'s norm that it makes, $\text{NC0}/(\sqrt K\,\lVert W\rVert_F)$.

# %% tags=["hide-input"]
loss_at = lambda z: np.log(np.exp(z).sum(0)) - z[0]  # noqa: E731
along, across = np.linspace(-3, 3, 121), np.linspace(-3, 3, 121)
ones, other = np.ones(3) / 3**0.5, np.array([1, -0.5, -0.5]) / 1.5**0.5
logits = ones[:, None, None] * along[:, None] + other[:, None, None] * across
figure = plt.figure(figsize=(5.2, 4.2), layout="constrained")
axis = figure.add_subplot(projection="3d")
axis.plot_surface(
    along[:, None], across, loss_at(logits), cmap="viridis", alpha=0.9, lw=0
)
axis.set(
    xlabel="along (1, 1, 1)",
    ylabel="towards the right class",
    zlabel="cross-entropy",
)
axis.view_init(28, -50)
plt.close(figure)
figure

# %% [markdown]
# *The cross-entropy of one sample of the first of $K = 3$ classes, over two directions of its logits.
# It is a gutter: it falls towards the right class, and along $\mathbf 1$ nothing changes.*
#
# ## How much of NC3 is gauge?
#
# NC3 asks whether $W$ points where the centred class means $M$ point: $\text{NC3}^2 = 2 - 2\cos(W, M)$.
# The columns of $M$ sum to zero over the classes, so $M$ has no gauge part, and whatever $W$ has can
# only make the angle wider. With $W_c = W - \tfrac1K\mathbf 1\mathbf 1^\top W$ and the gauge share $g$,
#
# $$ \text{NC3}^2 \;=\; \underbrace{\text{NC3}(W_c)^2}_{\text{seen by predictions}} \;+\;
# \underbrace{2\big(1 - \sqrt{1-g^2}\big)\cos(W_c, M)}_{\text{seen by nobody}} . $$ (nc3-split)
#
# *Proof.* $\langle W, M\rangle = \langle W_c, M\rangle$, as the rest of $W$ is orthogonal to $M$, and
# $\lVert W_c\rVert^2 = (1-g^2)\lVert W\rVert^2$. So $\cos(W, M) = \sqrt{1-g^2}\,\cos(W_c, M)$; put that
# into $\text{NC3}^2 = 2 - 2\cos(W, M)$. ∎
#
# `theory.symmetry.gauge_part` is the last term. A check: features and weights that have collapsed,
# and then one vector added to all rows of $W$.

# %%
labels = np.repeat(np.arange(4), 5)
collapsed = metrics.simplex_etf(4)
rows = []
for shift in (0.0, 0.5, 2.0):
    found = metrics.nc_metrics(collapsed[labels], labels, collapsed + shift)
    part = symmetry.gauge_part(found["nc3_centred"], found["gauge_share"])
    row = {
        "added to each row": shift,
        "gauge share": found["gauge_share"],
        "NC3": found["nc3"],
    }
    rows.append(
        row
        | {
            "NC3 of W_c": found["nc3_centred"],
            "from the gauge alone": part**0.5,
        }
    )
figures.shown(pd.DataFrame(rows).set_index("added to each row").round(3))

# %% [markdown]
# The network predicts the same in all three rows, and its NC1 and NC2 are zero. NC3 calls the third
# one far from collapse.
#
# ## The reflection principle
#
# An optimizer makes a direction $D_t$ of the gradients so far, and moves $W \leftarrow W - \eta D_t$.
# When does $D_t$ have no part along $\mathbf 1$, as the gradients have none? Let
#
# $$ Q = I - \tfrac2K\,\mathbf 1\mathbf 1^\top $$ (reflection)
#
# be the reflection of the space of classes in the flat direction. It turns $\mathbf 1$ into
# $-\mathbf 1$, and leaves alone what is orthogonal to $\mathbf 1$. So {eq}`no-gradient` says
# $QG_s = G_s$ for all gradients.
#
# **Reflection principle.** If an optimizer is equivariant under $Q$,
#
# $$ D_t(QG_1, \dots, QG_t) = Q\,D_t(G_1, \dots, G_t), $$ (equivariant)
#
# then $\mathbf 1^\top D_t = 0$. With decoupled weight decay the row sum $u = W^\top\mathbf 1$ then obeys
#
# $$ u_{t+1} = (1 - \eta_t\lambda)\,u_t $$ (law-of-all)
#
# exactly, for every network, data set, batch size and loss that ignores a common shift of the logits.
#
# *Proof.* As $QG_s = G_s$, the two sides of {eq}`equivariant` are $D_t$ and $QD_t$. From $D_t = QD_t$
# follows $\mathbf 1^\top D_t = \mathbf 1^\top Q D_t = -\mathbf 1^\top D_t$, so it is zero. Multiply
# $W \leftarrow (1-\eta_t\lambda)W - \eta_t D_t$ by $\mathbf 1^\top$. ∎
#
# Nothing about the law of SGDW ({doc}`theorem_sgd`) was about SGD. That softmax has this symmetry, and
# that under SGD it makes a conserved sum decay, is due to Kunin et al., *Neural Mechanics* (2021); the
# test of any optimizer, and what it says about collapse, is ours as far as we know.
#
# ## Which optimizers pass?
#
# `symmetry.equivariance` tries {eq}`equivariant` on random gradients, for any class with the interface
# of `torch.optim`. Its *error* is zero for an equivariant optimizer; its *leak* is what $\mathbf 1^\top$
# sees of the way that $W$ has gone on gradients with {eq}`no-gradient`.

# %% tags=["hide-input"]
WHY = {
    "SGD with Nesterov momentum": "a sum of gradients",
    "Muon": "an odd polynomial of G, from the left and the right",
    "Shampoo": "L and R commute with Q, as 1 is an eigenvector of L",
    "SOAP": "the coordinate along 1 has no gradient",
    "Adam": "a division for each number",
    "RMSprop": "a division for each number",
    "Adagrad": "a division for each number",
    "Signum": "a sign for each number",
    "Lion": "a sign for each number",
    "MARS": "a division for each number",
    "Adafactor": "a factor for each row",
}


def ours(name):
    return lambda params: optim.Optimizer(
        params, name, lr=0.01, weight_decay=0.1
    )


TRIED = {
    "SGD with Nesterov momentum": lambda p: torch.optim.SGD(
        p, 0.1, momentum=0.9, nesterov=True
    ),
    "Muon": ours("muonw"),
    "Shampoo": ours("shampoow"),
    "SOAP": ours("soapw"),
    "Adam": lambda p: torch.optim.Adam(p, 0.01),
    "RMSprop": lambda p: torch.optim.RMSprop(p, 0.01),
    "Adagrad": lambda p: torch.optim.Adagrad(p, 0.01),
    "Signum": ours("signumw"),
    "Lion": ours("lion"),
    "MARS": ours("mars"),
    "Adafactor": lambda p: torch.optim.Adafactor(p, 0.01),
}

# %%
found = {
    name: symmetry.equivariance(make, shape=(8, 8))
    for name, make in TRIED.items()
}
table = pd.DataFrame(
    [vars(f) | {"why": WHY[name]} for name, f in found.items()], found
)
figures.shown(table.map(lambda v: f"{v:.0e}" if isinstance(v, float) else v))

# %% [markdown]
# Three groups. What multiplies whole matrices from the left and the right, or adds gradients up, is
# equivariant. What divides or takes signs number by number is not: the reflection mixes the rows of
# $G$, and a sign does not commute with a sum. Adafactor divides whole rows, and fails too. SOAP passes
# because it is Adam *in the eigenvectors of* $GG^\top$, of which $\mathbf 1$ is one: the same division,
# in better coordinates.

# %% [markdown]
# ## One law for all that pass
#
# {eq}`law-of-all` has no constant to fit. Every stored run of SGDW, MuonW, ShampooW and SOAPW is a test
# of it, on each network and data set; so is every run of SGD, whose coupled decay changes the
# recurrence but not the idea ({doc}`theorem_sgd`), and every run whose *last layer* has one of these
# rules, whatever the rest has.

# %%
stored = store.load_runs(status="ok")
lawful = stored.assign(law=figures.exact_law(stored)).dropna(subset=["law"])
lawful["measured"] = lawful["nc0"] / lawful["nc0_init"]
lawful["last layer"] = figures.head_optimizer(lawful).map(figures.LABELS)
lawful["format"] = figures.products(lawful)

# %% [markdown]
# The law holds for exact arithmetic. So we tell runs apart by the format in which the update's
# products are computed: float64, float32, or bfloat16, as Muon is used in practice.


# %% tags=["hide-input"]
def draw_law(runs):
    """NC0's share left, measured against the law's, in a panel for each format."""
    return figures.parity_by_format(
        runs, "The exact law, in every run that it is about"
    )


def show_errors(runs):
    """How far runs are from the law that leaves a share of NC0 which rounding cannot make."""
    seen = runs[runs["law"] > 1e-9]
    error = (seen["measured"] / seen["law"] - 1).abs()
    groups = error.groupby([seen["format"], seen["last layer"]], sort=False)
    table = groups.agg(runs="size", median="median", largest="max").sort_index()
    return figures.shown(
        table, **dict.fromkeys(["median", "largest"], "{:.1e}")
    )


LINES = """for optimizer in muonw shampoow soapw; do
    papermill notebooks/sweep.ipynb out.ipynb -p optimizer $optimizer -p seeds "[0, 1, 2]"
    papermill notebooks/sweep.ipynb out.ipynb -p optimizer $optimizer -p seeds "[0, 1, 2]" \\
        -p precision float64
    papermill notebooks/sweep.ipynb out.ipynb -p optimizer $optimizer -p seeds "[0, 1, 2]" \\
        -p update_precision bfloat16
done"""
figures.with_lines(lawful, LINES, draw_law, show_errors)

# %% [markdown]
# *Each dot is a run; on the line, NC0 fell by exactly what the law says. The table has the relative
# distance from the law, of runs for which it predicts a share above $10^{-9}$.*
#
# In float64 the law is exact for all of them. In float32 it stays exact for SGD, SGDW and ShampooW until
# NC0 is as small as rounding, and fails for MuonW and SOAPW: their dots leave the line where NC0 reaches
# a floor. The next section says where that floor comes from.

# %% [markdown]
# @@FLOOR@@
#
# ## Only the last layer's optimizer decides
#
# The principle is about the last layer's update, and about nothing below it. That is a prediction: give
# the last layer one optimizer and the rest another, and NC0 must follow the last layer's. Five
# optimizers, each on either part, on the digits network; all 25 pairs, five seeds each.

# %%
DIGITS = dict(dataset="digits", model="mlp", epochs=200)
NUMBERS = {  # learning rate, weight decay
    "sgd": (0.0679, 0.05),
    "adam": (0.005, 0.05),
    "muonw": (0.02, 2.0),
    "adamw": (0.005, 5.0),
    "signumw": (0.001, 5.0),
}


def trained(optimizer, head, **setting):
    """The stored runs with one optimizer in the hidden layers and one in the last."""
    lr, decay = NUMBERS[optimizer]
    own = dict(
        zip(("head_lr", "head_weight_decay"), NUMBERS[head], strict=True)
    )
    own |= dict(head_optimizer=head, head_momentum=0.9)
    given = dict(optimizer=optimizer, lr=lr, weight_decay=decay, momentum=0.9)
    given |= own if head != optimizer else {}
    runs = figures.of_setting(stored, **setting, **given)
    return runs.assign(
        hidden=figures.LABELS[optimizer], last=figures.LABELS[head]
    )


pairs = pd.concat([trained(o, h, **DIGITS) for o in NUMBERS for h in NUMBERS])

# %% tags=["hide-input"]
SHOWN = {
    "gauge_share": "gauge share",
    "nc3": "NC3",
    "nc3_centred": "NC3, centred W",
}


def draw_pairs(runs):
    """Medians over the seeds: a row a hidden optimizer, a column an optimizer of the last layer."""
    names = [figures.LABELS[name] for name in NUMBERS]
    return figures.tables_as_maps(runs, "hidden", "last", names, SHOWN)


PAIR_LINES = """papermill notebooks/sweep.ipynb out.ipynb -p optimizer adamw -p lrs 0.005 \\
    -p weight_decays 5 -p momenta 0.9 -p seeds "[0, 1, 2, 3, 4]" -p head_optimizer sgd \\
    -p head_lr 0.0679 -p head_weight_decay 0.05   # and so on, for each pair"""
figures.with_lines(pairs, PAIR_LINES, draw_pairs)

# %% [markdown]
# *Rows: the optimizer of the hidden layers. Columns: that of the last layer. Medians over five seeds;
# one colour scale, dark is small.*
#
# Read it by columns. Under SGD, Adam or MuonW in the last layer the gauge share is gone, and NC3 is
# small, whatever the rest is trained with; AdamW and SignumW in the last layer keep it, whatever the
# rest. Each column is nearly constant, and the rows differ little. The hidden layers' optimizer does
# matter for what no gauge can touch: look at the right map.


# %% tags=["hide-input"]
def show_pairs(runs):
    """NC2 and NC3 with the range over seeds, of four corners."""
    corners = runs[
        runs["hidden"].isin(["SGD", "AdamW"])
        & runs["last"].isin(["SGD", "AdamW"])
    ]
    named = {"gauge_share": "gauge share", "nc2": "NC2"} | SHOWN
    groups = corners.groupby(["hidden", "last"], sort=False)
    return figures.shown(
        groups[list(named)].agg(figures.with_range).rename(columns=named)
    )


figures.show_if_any(pairs, "", show_pairs)

# %% [markdown]
# *The four corners of the map: medians, and below them the least and the largest of five seeds.*
#
# The same corners on two other networks, an MLP on 6,000 MNIST images and a ResNet9 of width 1/8 on 2,000
# Fashion-MNIST images:

# %%
NETWORKS = {
    "MLP, digits": DIGITS,
    "MLP, MNIST": dict(
        dataset="mnist", model="mlp", epochs=50, train_size=6000
    ),
    "ResNet9, Fashion-MNIST": dict(
        dataset="fashion_mnist",
        model="resnet9",
        epochs=100,
        width=1 / 8,
        train_size=2000,
    ),
}
CORNERS = [
    ("adamw", "adamw"),
    ("adamw", "sgd"),
    ("sgd", "adamw"),
    ("sgd", "sgd"),
]
elsewhere = pd.concat(
    trained(*pair, **setting).assign(network=name)
    for name, setting in NETWORKS.items()
    for pair in CORNERS
)


# %% tags=["hide-input"]
def show_corners(runs):
    """NC3 of the corners, by network."""
    groups = runs.groupby(["network", "hidden", "last"], sort=False)
    table = groups[list(SHOWN)].agg(figures.with_range).rename(columns=SHOWN)
    return figures.shown(table.assign(seeds=groups.size()))


figures.show_if_any(elsewhere, "", show_corners)

# %% [markdown]
# ## Is it only gauge?
#
# NC0 and the gauge part of NC3 are about a direction that no prediction sees. Does AdamW fail to collapse
# in any sense that matters? {eq}`nc3-split` separates the two. One strong weight decay for each optimizer,
# on three networks:

# %%
STRONG = NUMBERS | {
    "sgdw": (0.0679, 0.5),
    "signum": (0.001, 0.05),
    "muon": (0.02, 0.05),
    "shampoo": (0.02, 0.005),
    "shampoow": (0.02, 0.5),
    "soap": (0.005, 0.05),
    "soapw": (0.005, 2.0),
    "lionc": (0.0003, 0.05),
    "lion": (0.0003, 5.0),
    "mars": (0.005, 5.0),
}


def at_strong_decay(name):
    """The runs of one network, each optimizer at its setting in `STRONG`."""
    rows = figures.of_setting(stored, **NETWORKS[name], momentum=0.9)
    numbers = pd.Series(
        list(zip(rows["lr"], rows["weight_decay"], strict=True)), rows.index
    )
    return rows[numbers == rows["optimizer"].map(STRONG)].assign(network=name)


strong = pd.concat(map(at_strong_decay, NETWORKS))
strong = strong[strong["nc3_centred"].notna()]

# %% tags=["hide-input"]
ORDER = ["sgd", "sgdw", "muon", "muonw", "shampoo", "shampoow", "soap", "soapw"]
ORDER += ["adam", "signum", "lionc", "adamw", "signumw", "lion", "mars"]


def draw_strong(runs):
    return figures.raw_and_centred(
        runs, "network", ORDER, "NC3 with and without its gauge"
    )


figures.show_if_any(strong, "", draw_strong)

# %% [markdown]
# *Circle: NC3. Dot: NC3 of the centred W. Bars: from the least to the largest seed. What lies between
# circle and dot is gauge.*
