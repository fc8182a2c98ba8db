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
# *Which optimizers take NC0 to zero, and why?* Softmax ignores one direction of the last layer's weight,
# so no gradient ever points along it. If an optimizer's update respects that symmetry, only weight decay
# moves this direction, coupled or decoupled, and NC0 falls by a factor that is known before training. If
# it does not, as in Adam, which divides number by number, the update itself pushes $W$ along the
# direction; then decoupled decay alone cannot win, and coupled decay can.
#
# So it is not decoupled decay as such that keeps AdamW from collapse. Muon, whose update respects the
# symmetry, collapses with decoupled decay.
#
# **What you will learn**
#
# - the *flat direction*, and the *gauge* part of $W$ and of NC3, which says nothing about what a network
#   predicts (the word is from physics: a gauge is a part of a description that no measurement sees);
# - the *reflection principle*: a test that tells whether an optimizer respects the symmetry, with a proof;
# - which optimizers pass it, so that NC0 follows one exact law: SGD, but also Muon {cite}`jordan2024`,
#   Shampoo {cite}`gupta2018` and SOAP {cite}`vyas2024`;
# - what AdamW, Lion {cite}`chen2023` and MARS {cite}`yuan2024` do instead, and that for NC0 the optimizer
#   of the *last layer alone* decides;
# - how much of "AdamW does not collapse" is this direction, and how much is not.
#
# {doc}`background` has each optimizer's update, {doc}`../book/notation` all symbols.

# %%
import sys
import tempfile
from functools import partial

import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown, display
from matplotlib import pyplot as plt

from ncbook import data, figures, live, metrics, optim, store, sweep, theory
from ncbook.theory import symmetry

figures.start_chapter()

# %% [markdown]
# ## The flat direction
#
# The last layer turns features $h$ into logits $z = Wh + b$, one for each of $K$ classes, and softmax
# turns logits into probabilities. Adding one number to *all* logits changes no probability. So adding
# one vector $c$ to *all* rows of $W$ changes no prediction, for any $h$:
#
# $$ \operatorname{softmax}\big((W + \mathbf 1 c^\top) h\big) = \operatorname{softmax}(Wh). $$ (symmetry-flat)
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
# It falls towards the right class, and along $\mathbf 1$ nothing changes: the surface is a gutter.*
#
# ## How much of NC3 is gauge?
#
# NC3 asks whether $W$ points where the centred class means $M$ point: $\text{NC3}^2 = 2 - 2\cos(W, M)$.
# The columns of $M$ sum to zero over the classes, so $M$ has no gauge part, and whatever $W$ has
# turns the angle towards 90°: it makes it wider, as long as it is an acute one. With $W_c = W - \tfrac1K\mathbf 1\mathbf 1^\top W$ and the gauge share $r$,
#
# $$ \text{NC3}^2 \;=\; \underbrace{\text{NC3}(W_c)^2}_{\text{seen by predictions}} \;+\;
# \underbrace{2\big(1 - \sqrt{1-r^2}\big)\cos(W_c, M)}_{\text{seen by nobody}} . $$ (nc3-split)
#
# *Proof.* $\langle W, M\rangle = \langle W_c, M\rangle$, as the rest of $W$ is orthogonal to $M$, and
# $\lVert W_c\rVert^2 = (1-r^2)\lVert W\rVert^2$. So $\cos(W, M) = \sqrt{1-r^2}\,\cos(W_c, M)$; put that
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
# that under SGD it makes a conserved sum decay, is due to Kunin et al. {cite}`kunin2021,tanaka2021`; that Adam
# leaves it, to Stollenwerk and Stollenwerk {cite}`stollenwerk2025`. That an optimizer should be equivariant under
# the symmetries of its weights is proposed by Lau and Su {cite}`lau2026`, and by Shirodkar {cite}`shirodkar2026`,
# with this symmetry among them. The exact law of all that are, and what it says about collapse, are ours as far
# as we know ({doc}`../book/related`).
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
    "Muon of torch (bfloat16)": "the same, with much rounding",
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
    "Muon of torch (bfloat16)": partial(torch.optim.Muon, lr=0.01),
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
figures.shown(
    table.map(
        lambda v: (
            f"{v:.0e}".replace("-", "\u2011") if isinstance(v, float) else v
        )
    )
)  # hyphens at which no line breaks

# %% [markdown]
# The matrix is square here, $8 \times 8$, for SOAP's sake (see the end of the chapter). Three groups. What multiplies whole matrices from the left and the right, or adds gradients up, is
# equivariant. What divides or takes signs number by number is not: the reflection mixes the rows of
# $G$, and a sign does not commute with a sum (with $K = 2$ classes it does: there $Q$ only exchanges the rows and
# their signs). Adafactor divides whole rows, and fails too. SOAP passes
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
    """How far runs are from the law, where it leaves at least a ten-thousandth of NC0."""
    seen = runs[runs["law"] > 1e-4]
    error = (seen["nc0"] / seen["nc0_init"] / seen["law"] - 1).abs()
    last = figures.head_optimizer(seen).map(figures.LABELS)
    by = [figures.products(seen).rename("format"), last.rename("last layer")]
    groups = error.groupby(by, sort=False)
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
# distance from the law, of runs for which it leaves more than $10^{-4}$ of NC0. AdamW and SignumW are runs
# whose last layer's steps were centred over the classes (below).*
#
# In float64 the law is exact for all of them. In float32 it stays exact for SGD, SGDW and ShampooW until
# NC0 is as small as rounding. For MuonW and SOAPW it is then no longer the whole truth: at weak decay MuonW's
# NC0 even rises, and SOAPW keeps a tenth of it or more where the law leaves a billionth. They stop at a
# floor. In the flat direction there is rounding alone, and orthogonalisation amplifies it: a
# Newton–Schulz step multiplies a tiny singular value by 3.4445, five of them by 485; SOAP even divides it
# by its own size. {doc}`leaks` predicts the floor from the number format.

# %% [markdown]
# ### Try it
#
# Decoupled decay pulls NC0 down, and whatever an update adds along the flat direction, be it rounding or
# the leak of a sign, pushes against it. The dots are stored runs of MuonW.


# %% tags=["hide-input"]
def as_dots(decay):
    """A stored run of MuonW over its epochs, for the live figure."""
    given = dict(
        optimizer="muonw", lr=0.02, momentum=0.9, weight_decay=decay, seed=0
    )
    runs = figures.of_setting(
        stored, dataset="digits", model="mlp", epochs=200, **given
    )
    epochs = store.load_history(run_id=list(runs.get("run_id", ())))
    if epochs.empty:
        return epochs
    left = epochs["nc0"] / epochs.groupby("run_id")["nc0"].transform("first")
    steps = dict(step=11 * epochs["epoch"], steps=2200, left=left)
    return epochs.assign(
        label=f"MuonW, λ = {decay:g}", lr=0.02, weight_decay=decay, **steps
    )


dots = pd.concat([as_dots(decay) for decay in (0.1, 0.5, 2.0)])
live.balance(
    weight_decay=0.5,
    lr=0.02,
    push=0.01,
    steps=2200,
    runs=dots if len(dots) else None,
)

# %% [markdown]
# (symmetry-last-layer)=
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
    maps = [figures.pair_map(runs, names, *shown) for shown in SHOWN.items()]
    return figures.side_by_side(*maps)


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
# matter for what no gauge can touch: look at the last map.


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
# The same corners on other networks, as far as the store has them: an MLP on 6,000 MNIST images, and a
# ResNet9 of width 1/8 on 2,000 Fashion-MNIST images.

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


def with_split(runs):
    """The runs that were stored with their gauge; older ones were not."""
    return runs[runs.get("nc3_centred", runs["nc3"]).notna()]


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
elsewhere = with_split(elsewhere)


# %% tags=["hide-input"]
def show_corners(runs):
    """NC3 of the corners, by network."""
    pair = (runs["hidden"] + " / " + runs["last"]).rename("hidden / last")
    groups = runs.groupby(["network", pair], sort=False)
    table = groups[list(SHOWN)].agg(figures.with_range).rename(columns=SHOWN)
    return figures.shown(table.assign(seeds=groups.size()))


figures.show_if_any(elsewhere, "", show_corners)

# %% [markdown]
# (symmetry-collapse)=
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
    chosen = numbers == rows["optimizer"].map(STRONG)
    return figures.converged(rows[chosen]).assign(network=name)


strong = with_split(pd.concat(map(at_strong_decay, NETWORKS)))

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
#
# Three things can be read off it.
#
# 1. Where the last layer's optimizer is equivariant, circle and dot coincide: its NC3 has no gauge left.
#    Coupled decay does the same for Adam, Signum and Lion, since it puts $\lambda W$, gauge included,
#    into what they divide or take signs of.
# 2. Under decoupled decay AdamW, SignumW, Lion and MARS have a large NC3, and most of it is gauge on the
#    MLPs.
# 3. Without its gauge AdamW is closer to collapse than SOAPW at these decays. On the MLPs it is further from it
#    than SGD, Muon and Adam; on the ResNet9, which no optimizer takes to collapse, it is where Adam is. Equivariance takes NC0 down; the rest of NC3 is another matter.


# %% tags=["hide-input"]
def tell_share(runs):
    """How much of AdamW's NC3² is gauge, and what is left, by network."""
    lines = []
    for name, rows in runs[runs["optimizer"] == "adamw"].groupby(
        "network", sort=False
    ):
        share = 1 - rows["nc3_centred"] ** 2 / rows["nc3"] ** 2
        adam = runs[(runs["network"] == name) & (runs["optimizer"] == "adam")]
        middle = rows[["nc3", "nc3_centred", "nc2"]].median()
        lines.append(
            f"On {name} (n = {len(rows)}) gauge makes {share.median():.0%} of AdamW's NC3²: NC3 is "
            f"{middle['nc3']:.2f}, and {middle['nc3_centred']:.2f} without it; Adam's is "
            f"{adam['nc3'].median():.2f}. NC2 of the features, which has no gauge, is "
            f"{middle['nc2']:.2f} under AdamW and {adam['nc2'].median():.2f} under Adam."
        )
    return " ".join(lines)


figures.show_if_any(strong, "", tell_share)

# %% [markdown]
# With decoupled decay, then, an adaptive optimizer keeps a part of $W$ that no prediction depends on, and
# on the digits this is most of what NC0 and NC3 report. Its features are further from the simplex, too,
# and that difference is real.
#
# ### Proof that it is only a passenger
#
# Under decoupled decay, and for directions made of the gradients alone (as in Adam, Signum, Lion, Muon; not
# in LAMB, which looks at $\lVert W\rVert$), the gauge part does not even influence the training. Start the same training twice,
# the second time with one number added to all of $W$: no gradient changes ({eq}`symmetry-flat`), so no direction
# does, and the networks predict the same at every step ({doc}`leaks` has the theorem). Or take the gauge
# part away after *each* step: nothing that can be predicted, and no other weight, changes. Here with
# torch's AdamW, on the digits:

# %%
digits = data.load("digits")
X, y = digits.train_x.double().flatten(1), digits.train_y
X = X - X.amin(0)  # pixels that are always blank are exactly 0


def train_adamw(centre, steps=60):
    """A network of 64 hidden units under AdamW; its row sum's norm, and its probabilities."""
    torch.manual_seed(0)
    body = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU())
    net = torch.nn.Sequential(body, torch.nn.Linear(64, 10)).double()
    adamw = torch.optim.AdamW(net.parameters(), 0.005, weight_decay=5.0)
    for _ in range(steps):
        adamw.zero_grad()
        torch.nn.functional.cross_entropy(net(X), y).backward()
        adamw.step()
        if centre:
            net[1].weight.data -= net[1].weight.data.mean(0)
    return net[1].weight.data.sum(0).norm().item(), net(X).softmax(1).detach()


# %%
(nc0, predicted), (nc0_centred, same) = train_adamw(False), train_adamw(True)
change = (predicted - same).abs().max().item()
assert nc0 > 0.1 > 1e-10 > nc0_centred
assert change < 1e-9
display(
    Markdown(
        f"NC0 is {nc0:.2f} without, and {nc0_centred:.0e} with the line that centres $W$. The largest "
        f"difference between any two of their {predicted.numel():,} probabilities is {change:.0e}."
    )
)

# %% [markdown]
# ## What a practitioner does with it
#
# *I train with AdamW, and want NC0 to vanish.* Give the last layer SGD, with either form of decay (in the
# pairs above NC3 then comes down to that of a collapsed network, too):


# %%
def two_optimizers(body, head):
    """AdamW for the network, SGD for its last layer: step both."""
    adamw = torch.optim.AdamW(body.parameters(), lr=0.005, weight_decay=5.0)
    sgd = torch.optim.SGD(
        head.parameters(), lr=0.0679, momentum=0.9, weight_decay=0.05
    )
    return adamw, sgd


# %% [markdown]
# *I want to measure collapse, not gauge.* Centre $W$ before you measure, or after each step; under
# decoupled decay no prediction changes:
#
# ```python
# head.weight.data -= head.weight.data.mean(0)
# ```
#
# *I use Muon as its author does*, for the hidden layers, with AdamW for the last one: then NC0 is AdamW's,
# and stays. *I want to keep NC0 up*: AdamW, Lion or Signum with decoupled decay on the last layer do that.
# It keeps nothing that a prediction depends on.

# %% [markdown]
# ## Your own optimizer
#
# The test takes any class with the interface of `torch.optim`, and so does the sweep: its parameter
# `optimizer` also takes `MODULE:CLASS`. The class must be in a file, since the processes that train
# import it. A file `my_optimizers.py` in the folder where you start is enough; here it goes to a
# temporary folder, so that the book leaves nothing behind.
#
# Two simple ones. `ByColumn` divides each *column* of $G$ by its norm, that is, over the classes, and
# decouples its weight decay. A column's norm does not change under $Q$, so $D(QG) = QD(G)$: by the
# reflection principle it must obey {eq}`law-of-all`. `ByRow` divides each *row* by its norm. It looks as
# harmless, but $Q$ mixes the rows, and it should leak.

# %%
folder = tempfile.mkdtemp()
sys.path.append(folder)

# %% tags=["remove-output"]
# %%writefile {folder}/my_optimizers.py
import torch


class ByColumn(torch.optim.Optimizer):
    axis = 0  # of the norm: over the classes

    def __init__(self, params, lr, weight_decay=0.0):
        super().__init__(params, dict(lr=lr, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                size = p.grad.norm(dim=self.axis, keepdim=True) + 1e-8
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.sub_(group["lr"] * p.grad / size)


class ByRow(ByColumn):
    axis = -1  # over the features


# %% [markdown]
# The equivariance test, on random gradients:

# %%
from my_optimizers import ByColumn, ByRow

for name, tried in (("ByColumn", ByColumn), ("ByRow", ByRow)):
    found = symmetry.equivariance(partial(tried, lr=0.01))
    print(f"{name}: error {found.error:.0e}, leak {found.leak:.0e}")

# %% [markdown]
# And the sweep: two learning rates and two weight decays of each, 20 epochs of the digits. It checks the
# class before it trains (one step on a matrix and a vector), gives each run an instance of its own,
# sets the learning rate of each step, and stores the runs under the class's name. Neither class takes a
# momentum, so the sweep gives none.

# %%
configs = [
    config
    for name in ("ByColumn", "ByRow")
    for config in sweep.grid(
        f"my_optimizers:{name}",
        lrs=[0.003, 0.01],
        weight_decays=[0.5, 2.0],
        epochs=20,
    )
]
sweep.run(configs, folder, workers=1, log_epochs=[], progress=False)
runs = store.load_runs(folder)

# %%
steps, epochs = 11, 20  # of each epoch; no momentum, all decay decoupled
law = [
    theory.row_sum_ratio(run.lr, 0.0, run.weight_decay, steps, epochs, 1.0)
    for run in runs.itertuples()
]
COLUMNS = {"lr": "η", "weight_decay": "λ", "train_acc": "accuracy"}
table = runs[[*COLUMNS]].assign(law=law)
table["measured"] = runs["nc0"] / runs["nc0_init"]
names = runs["optimizer"].str.partition(":")[2].rename("class")
by_name = table.rename(columns=COLUMNS).set_index(names)
figures.shown(by_name, law="{:.5f}", measured="{:.5f}")

# %% [markdown]
# *NC0 at the end over its start: by the law $\prod_t (1 - \eta_t\lambda)$, and measured.*

# %%
above = table["measured"] / table["law"] - 1
by_column, by_row = above[names == "ByColumn"], above[names == "ByRow"]
off, least, most = by_column.abs().max(), by_row.min(), by_row.max()
assert off < 1e-4 < 1e-3 < least
Markdown(
    f"In float32, `ByColumn`'s four runs end within {off:.0e} "
    f"of the law. `ByRow`'s four all end above it, by {least:.1%} to {most:.1%}. The test on "
    "random gradients had told them apart before any training."
)

# %% [markdown]
# From a shell it is `-p optimizer my_optimizers:ByColumn`, in the folder that has `my_optimizers.py`. An axis that is not given has learning rates 0.001, 0.005, 0.01, weight decays 0, 5e-4, 5e-3, 0.05, 0.5,
# 5, and momentum 0.9 (0 if the class takes none): 18 runs. A run is named after the content of the
# class's file, too: change the file, and they are other runs. The exact law is not drawn for such a
# class, since only the class knows what it does with its weight decay.

# %% [markdown]
# ## What was shown
#
# - **One direction of $W$ is invisible**, and gradients never point along it. NC3² splits exactly into a
#   part that predictions depend on and a gauge part (proved).
# - **The reflection principle** (proved): an equivariant optimizer with decoupled decay has
#   $\text{NC0}_t = \prod_s(1-\eta_s\lambda)\,\text{NC0}_0$, whatever the network and the data. SGD, Muon,
#   Shampoo and SOAP pass; all that divide or take signs number by number fail (computed).
# - **Decoupled decay is no obstacle to collapse.** MuonW collapses on the digits; "coupled decay is
#   necessary" is a statement about updates that treat each number of the last layer for itself. They need
#   the coupled form to take NC0 down.
# - **For NC0 the last layer's optimizer decides**, and the rest does not (measured, five seeds).
# - **Most of AdamW's NC3 is gauge** on the digits, and not all of it.
#
# ## Where it holds, and where not
#
# - The law is exact in exact arithmetic. In float64 it holds to many digits. In float32 and bfloat16, the
#   formats in use, MuonW's and SOAPW's NC0 stops at a floor that rounding sets, and at weak decay this floor
#   is above the start.
# - The principle needs $K \ge 3$ to tell optimizers apart: with two classes Adam passes, too.
# - SOAP passes where the last layer has at least $K - 1$ features and the decay is decoupled. With coupled
#   decay it sees $\lambda u$ alone along $\mathbf 1$, and scales it up to the size of a step.
# - It needs a loss that ignores a common shift of the logits: cross-entropy does, with label smoothing too;
#   squared loss and one-vs-rest losses do not.
# - Equivariance says that NC0 falls. It does not say that NC1, NC2 and NC3 do: ShampooW and SOAPW, which
#   pass, did not collapse by the book's rule in any run on the digits.

# %% [markdown]
# ## Exercises
#
# **1.** Does Nesterov momentum, and does clipping the gradient by its norm, keep the law? And clipping each
# number?


# %% tags=["hide-cell"]
class Clipped(torch.optim.SGD):
    """SGD that clips each number of the gradient."""

    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.grad.clamp_(-0.5, 0.5)
        return super().step(closure)


nesterov = symmetry.equivariance(
    lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True)
)
by_value = symmetry.equivariance(lambda p: Clipped(p, 0.1))
assert nesterov.error < 1e-12
assert by_value.leak > 0.01  # a number that is cut leaves its column's sum

# %% [markdown]
# *Nesterov's direction is a sum of gradients, and a norm is the same for $G$ and $QG$: both pass. Clipping
# by value fails as a sign does (solution above).*
#
# **2.** A run of AdamW ends with NC3 = 0.6 and gauge share 0.5. What is NC3 of the centred $W$?

# %% tags=["hide-cell"]
cosine = 1 - 0.6**2 / 2  # of W and M
centred = cosine / np.sqrt(1 - 0.5**2)  # of W_c and M
answer = np.sqrt(2 - 2 * centred)
assert abs(answer**2 + symmetry.gauge_part(answer, 0.5) - 0.6**2) < 1e-12
round(float(answer), 3)

# %% [markdown]
# **3.** How many steps at $\eta = 0.02$ and $\lambda = 0.5$ does MuonW need to take NC0 down by a thousand?

# %% tags=["hide-cell"]
steps = int(np.ceil(np.log(1e-3) / np.log1p(-0.02 * 0.5)))
assert (1 - 0.01) ** steps <= 1e-3 < (1 - 0.01) ** (steps - 1)
steps
