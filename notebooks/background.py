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
# # Background: a network, its loss, and its optimizers
#
# *What is neural collapse, and how can an optimizer have a say in it?* Late in training the last layer of
# a classifier tends to take one symmetric shape, and the picture shows it happen. An optimizer turns gradients into
# steps, and optimizers differ in two ways that reach this layer: what they make of a gradient, and whether
# weight decay passes through the same machinery. This chapter writes each one down, and does one step of
# each with numbers that you can change.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import Math, display

from ncbook import data, figures, metrics, models, optim, store, sweep, train
from ncbook.metrics import rule
from ncbook.pages import six_grids

figures.start_chapter()


# %%
def one_epoch(net, made, X, y):
    """One pass over the images, in random minibatches."""
    net.train()
    for batch in torch.randperm(len(X)).split(128):
        made.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(X[batch]), y[batch])
        loss.backward()
        made.step()


@torch.no_grad()
def look(net, X, y):
    """Features, labels, last weight, and the share of images that is right."""
    H = net.eval().body(X)
    right = (net.fc(H).argmax(1) == y).double().mean().item()
    return H, y, net.fc.weight.clone(), right


# %%
def training(name, lr, decay, epochs=100, looks=(0, 3, 100)):
    """Train on the digits 0, 1 and 2, and look at some epochs."""
    digits, found = data.load("digits"), {}
    three = digits.train_y < 3
    X, y = digits.train_x[three], digits.train_y[three]
    torch.manual_seed(0)
    net = models.build("mlp", num_classes=3)
    made = optim.Optimizer(net.parameters(), name, lr, weight_decay=decay)
    for epoch in range(epochs + 1):
        if epoch in looks:
            found[epoch] = look(net, X, y)
        factor = train.learning_rate_factor(epoch, epochs)
        made.param_groups[0]["lr"] = lr * factor
        one_epoch(net, made, X, y)
    return found


collapse = training("sgd", lr=0.0679, decay=0.05)

# %% tags=["hide-input"]
COLOURS, MARKERS = ("#004488", "#DDAA33", "#BB5566"), "os^"
SIGNS = (
    ("sample", "o", 4),
    ("class mean", "o", 9),
    ("row of $W$", r"$\rightarrow$", 14),
)


def draw_plane(axis, H, y, W):
    """Features and rows of W in the plane of the three class means; class 0 is at the top."""
    mu = metrics.class_means(H, y, 3)
    M = metrics.centred_means(mu)
    up = M[0] / M[0].norm()
    left = M[1] - (M[1] @ up) * up
    plane = torch.stack([-left / left.norm(), up], 1) / M.norm() * 3**0.5
    points = (H.double() - mu.mean(0)) @ plane
    tips, means = W.double() * M.norm() / W.norm() @ plane, M @ plane
    axis.fill(*means.T, fill=False, edgecolor="#999999", lw=0.8)
    for k, (colour, marker) in enumerate(zip(COLOURS, MARKERS, strict=True)):
        mark = dict(marker=marker, color=colour)
        axis.scatter(*points[y == k].T, s=9, alpha=0.5, lw=0, **mark)
        axis.scatter(*means[k], s=80, edgecolor="black", zorder=3, **mark)
        line = dict(arrowstyle="-|>", color=colour, lw=2, shrinkA=0, shrinkB=0)
        axis.annotate("", tips[k], (0, 0), arrowprops=line, zorder=4)


def draw_collapse(found):
    """One panel for each look, with its metrics."""
    figure, axes = plt.subplots(
        1, len(found), figsize=(7.2, 3.5), layout="constrained", sharey=True
    )
    for axis, (epoch, (H, y, W, right)) in zip(
        axes, found.items(), strict=True
    ):
        draw_plane(axis, H, y, W)
        values = metrics.nc_metrics(H, y, W)
        told = "\n".join(f"{rule.THREE[n]} {values[n]:.2g}" for n in rule.THREE)
        axis.set(title=f"epoch {epoch}: {right:.1%} right", aspect="equal")
        axis.set(xticks=(), yticks=())
        axis.set(xlim=(-2.3, 2.3), ylim=(-2.6, 2.1))
        axis.text(0.03, 0.02, told, transform=axis.transAxes, fontsize=10)
    for label, marker, size in SIGNS:
        mark = dict(ls="", marker=marker, ms=size, label=label)
        axes[0].plot([], [], color="#555555", **mark)
    figure.legend(loc="outside lower center", ncols=3)
    figure.set_label(
        "Three classes in the plane of their means, at three times of a training. At the start "
        "they overlap and the rows of W point elsewhere; at the end each class is a point, the "
        "points form an equilateral triangle, and the rows of W point at them."
    )
    plt.close(figure)
    return figure


draw_collapse(collapse)

# %% [markdown]
# *420 images of the digits 0, 1 and 2, in a network that SGD trains with weight decay. Of its 128 features
# we see the plane of the three class means, at equal size in each panel. At epoch 3 nearly every image is
# classified correctly, and the classes are still clouds. At epoch 100 each class is a point, the three points
# form an equilateral triangle, and the rows of the last weight matrix point at them: **neural collapse***
# {cite}`papyan2020`.
#
# **What you will learn**
#
# - the network that most of this book trains, and the words for its parts;
# - why the gradient of the loss sums to zero over the classes, which much of the book rests on;
# - SGD, Adam, AdamW, Signum, SignumW and Muon, each as one update, and what *coupled* and *decoupled* weight
#   decay are;
# - what "converged" and "collapsed" mean here, and whether another threshold would change the result.
#
# {doc}`../book/notation` lists all symbols and terms.

# %% [markdown]
# ## The network
#
# The book's small default takes images of 8 × 8 pixels: scikit-learn's `digits`, 1,400 of them to train
# and 397 to test, ten classes. It is a **multilayer perceptron** (MLP): three hidden layers and a last one.

# %% tags=["hide-input"]
net = models.build("mlp")
DOES = {
    "Flatten": "8 × 8 pixels become 64 numbers",
    "Linear": "multiplies by a weight matrix",
    "BatchNorm": "gives each unit mean 0 and variance 1, then a learned scale and shift",
    "ReLU": "replaces negative numbers by 0",
}
digits = data.load("digits")
shape, rows = 64, []
for layer in [*net.body[:4], net.fc]:
    sizes = sum(p.numel() for p in layer.parameters())
    shape = getattr(layer, "out_features", shape)
    what = DOES[type(layer).__name__]
    rows.append((type(layer).__name__, what, shape, sizes))
rows[-1] = ("Linear (last)", "the last layer: Wh + b", *rows[-1][2:])
columns = ["part", "what it does", "numbers out", "parameters"]
total = sum(p.numel() for p in net.parameters())
assert (len(digits.train_x), len(digits.test_x)) == (1400, 397)
assert [len(net.body), total] == [10, 43_018]
figures.shown(pd.DataFrame(rows, columns=columns).set_index("part"))

# %% [markdown]
# *The parts. Linear, BatchNorm and ReLU come three times; 43,018 parameters in all.*
#
# All but the last layer is the network's *body*. It turns an image $x$ into **features**
# $h \in \mathbb R^p$, here $p = 128$. The last layer, or *head*, turns features into **logits**, one
# score for each of $K$ classes:
#
# $$ z = W h + b, \qquad W \in \mathbb R^{K \times p},\quad b \in \mathbb R^K. $$ (background-logits)
#
# Row $k$ of $W$ belongs to class $k$. Collapse is a statement about $W$ and about the features of all training
# images; {doc}`metrics` measures it.
#
# **Batch norm** takes the mean and the variance of a minibatch while the network trains, and averages of the past
# in *evaluation mode*. Features are always measured in evaluation mode. Since batch norm fixes the size of
# what a hidden unit passes on, scaling the weights in front of it changes next to nothing; for the last layer, which
# has no batch norm behind it, size counts.

# %% [markdown]
# ## The loss, and its gradient
#
# **Softmax** turns logits into probabilities, and **cross-entropy** is minus the logarithm of the one of the
# right class $y$:
#
# $$ S_k = \frac{e^{z_k}}{\sum_j e^{z_j}}, \qquad \mathcal L = -\log S_y . $$ (background-loss)
#
# Training goes through the images in random **minibatches** of 128; one pass through all of them is an **epoch**,
# here 11 steps. The gradient of the minibatch's mean loss with respect to $W$ is a product of two matrices, with
# probabilities $S$ and one-hot labels $Y$ of its $N$ samples, both $(N, K)$, and features $H$, $(N, p)$:
#
# $$ G = \tfrac1N (S - Y)^\top H, \qquad\text{so}\qquad \mathbf 1^\top G = 0 . $$ (background-gradient)
#
# The columns of $G$ sum to zero over the classes because the probabilities of each sample sum to one, as
# its one-hot labels do. A gradient never pushes all rows of $W$ the same way. That is the seed of {doc}`symmetry`.
#
# Here is a layer that fits on paper, with $K = 3$ classes, $p = 2$ features and two minibatches of two samples.
# **Change these numbers** and run what follows.

# %%
W = torch.tensor([[0.8, -0.2], [-0.3, 0.6], [0.1, 0.4]]).double()
FEATURES = torch.tensor([[1.0, 0.5], [-0.4, 1.2], [0.9, -0.7], [0.2, 1.1]])
LABELS = torch.tensor([0, 1, 2, 1])
LR, BETA, DECAY = 0.1, 0.9, 0.05  # η, β, λ


# %%
def gradient(W, H, y):
    """Equation (background-gradient)."""
    S = (H @ W.T).softmax(1)
    Y = torch.nn.functional.one_hot(y, len(W))
    return (S - Y).T @ H / len(H)


pairs = zip(FEATURES.double().split(2), LABELS.split(2), strict=True)
GRADIENTS = [gradient(W, H, y) for H, y in pairs]
assert all(G.sum(0).abs().max() < 1e-15 for G in GRADIENTS)


# %% tags=["hide-input"]
def matrix(values, digits=2):
    """A matrix in LaTeX."""
    shown = values.numpy().round(digits) + 0.0  # no -0.00
    plain = [[f"{v:.{digits}f}" for v in row] for row in shown]
    rows = r" \\ ".join(" & ".join(row) for row in plain)
    return rf"\begin{{pmatrix}} {rows} \end{{pmatrix}}"


named = [
    f"{name} = {matrix(value)}"
    for name, value in zip(("W", "G_1", "G_2"), (W, *GRADIENTS), strict=True)
]
two = r",\quad ".join(named[1:])
display(Math(rf"\begin{{gathered}} {named[0]}, \\ {two} \end{{gathered}}"))

# %% [markdown]
# To compare optimizers, each gets the same two gradients, $G_1$ and then $G_2$: what differs is theirs.

# %% [markdown]
# ## One step, and two places for weight decay
#
# An optimizer makes a **direction** $D_t$ of the gradients $G_1, \dots, G_t$, and moves $W$ against it by the
# **learning rate** $\eta$. **Weight decay** $\lambda$ pulls every weight towards zero. It can be *coupled*, added
# to the gradient before the direction is made, or *decoupled*, shrinking the weight next to the step
# {cite}`loshchilov2019`:
#
# $$ \begin{aligned}
# \text{coupled:}\;\; & G_t \leftarrow G_t + \lambda W,\;\; W \leftarrow W - \eta D_t,\\
# \text{decoupled:}\;\; & W \leftarrow (1 - \eta\lambda) W - \eta D_t .
# \end{aligned} $$ (background-decay)
#
# In code a direction is a function of the list of gradients so far.


# %%
def take_steps(direction, coupled=0.0, decoupled=0.0, gradients=None):
    """W before the last step, its direction, and W after it."""  # (background-decay)
    after, seen = W, []
    for G in GRADIENTS if gradients is None else gradients:
        before = after
        seen.append(G + coupled * before)
        D = direction(seen)
        after = (1 - LR * decoupled) * before - LR * D
    return before, D, after


# %% [markdown]
# Each optimizer below is written down by its equation, and then compared with two others: the one that trains
# every network of this book, `ncbook.optim`, and torch's own where torch has it. The numbers are of the second
# step, from the $W$ that the first one left, at $\eta = 0.1$, $\beta = 0.9$ and $\lambda = 0.05$.

# %% tags=["hide-input"]
TORCH = {
    "sgd": lambda p: torch.optim.SGD(p, LR, BETA, weight_decay=DECAY),
    "adam": lambda p: torch.optim.Adam(
        p, LR, (BETA, 0.999), weight_decay=DECAY
    ),
    "adamw": lambda p: torch.optim.AdamW(
        p, LR, (BETA, 0.999), weight_decay=DECAY
    ),
    "muonw": lambda p: torch.optim.Muon(p, LR, DECAY, BETA),
}
DIRECTIONS, COMPARED = {}, {}


def moved_by(make):
    """W after the same two gradients, by an optimizer of torch's interface."""
    weight = torch.nn.Parameter(W.clone())
    optimizer = make([weight])
    for G in GRADIENTS:
        weight.grad = G.clone()
        optimizer.step()
    return weight.detach()


def worked(name, direction):
    """The second step in numbers; and how far the package's and torch's are from it."""
    DIRECTIONS[name] = direction
    coupled, decoupled = optim.split_decay(name, DECAY, None)
    before, D, after = take_steps(direction, coupled, decoupled)
    ours = moved_by(lambda p: optim.Optimizer(p, name, LR, BETA, DECAY))
    theirs = moved_by(TORCH[name]) if name in TORCH else torch.tensor(torch.nan)
    COMPARED[figures.LABELS[name]] = {
        "from ncbook.optim": (after - ours).abs().max().item(),
        "from torch.optim": (after - theirs).abs().max().item(),
    }
    kept = f"{1 - LR * decoupled:g}" if decoupled else ""
    display(
        Math(
            f"\\small {kept}\\!{matrix(before)}\\!- {LR:g}\\!\\underbrace{{{matrix(D)}}}_{{D_2}} = "
            f"\\underbrace{{{matrix(after)}}}_{{\\text{{{figures.LABELS[name]}}}}}"
        )
    )


# %% [markdown]
# ### SGD with momentum
#
# The direction is a decaying *sum* of gradients. The **momentum** $\beta$ is the share of that sum which each step
# keeps. With $v_0 = 0$:
#
# $$ v_t = \beta v_{t-1} + G_t, \qquad D_t = v_t . $$ (background-sgd)
#
# SGD couples its decay; with decoupled decay it is called SGDW. A constant gradient adds up to
# $G/(1-\beta)$, ten times itself at $\beta = 0.9$.


# %%
def sgd(gradients):  # equation (background-sgd)
    v = torch.zeros_like(W)
    for G in gradients:
        v = BETA * v + G
    return v


worked("sgd", sgd)
worked("sgdw", sgd)

# %% [markdown]
# ### Adam and AdamW
#
# Adam {cite}`kingma2014` keeps a decaying *average* of the gradient and one of its square, entry by entry, and
# divides the one by the root of the other. Both averages start at zero; the factors $1-\beta^t$
# correct for that. With $\beta_2 = 0.999$ and $\varepsilon = 10^{-8}$:
#
# $$ \begin{gathered}
# m_t = \beta m_{t-1} + (1-\beta) G_t, \\
# s_t = \beta_2 s_{t-1} + (1-\beta_2)\, G_t^2, \\
# D_t = \frac{m_t/(1-\beta^t)}{\sqrt{s_t/(1-\beta_2^t)} + \varepsilon} .
# \end{gathered} $$ (background-adam)
#
# Squares, root and quotient are of single entries. So where a gradient keeps its sign and its size an entry of $D$ is
# about one, however small (above $\varepsilon$) that size is. Adam couples its decay, AdamW decouples it.


# %%
def adam(gradients):  # equation (background-adam)
    m, s, t = torch.zeros_like(W), torch.zeros_like(W), len(gradients)
    for G in gradients:
        m = BETA * m + (1 - BETA) * G
        s = 0.999 * s + (1 - 0.999) * G**2
    return m / (1 - BETA**t) / ((s / (1 - 0.999**t)).sqrt() + 1e-8)


worked("adam", adam)
worked("adamw", adam)

# %% [markdown]
# ### Signum and SignumW
#
# Signum {cite}`bernstein2018` keeps the average and uses its sign alone. Its decay is coupled, SignumW's
# decoupled.
#
# $$ m_t = \beta m_{t-1} + (1-\beta) G_t, \qquad D_t = \operatorname{sign}(m_t) . $$ (background-signum)


# %%
def signum(gradients):  # equation (background-signum)
    m = torch.zeros_like(W)
    for G in gradients:
        m = BETA * m + (1 - BETA) * G
    return m.sign()


worked("signum", signum)
worked("signumw", signum)

# %% [markdown]
# ### Muon
#
# Muon {cite}`jordan2024` treats the gradient as one matrix. With the singular value decomposition
# $\beta m_t + (1-\beta) G_t = U \operatorname{diag}(\sigma)\, V^\top$ it sets all singular values to about one:
#
# $$ \begin{gathered}
# m_t = \beta m_{t-1} + (1-\beta) G_t, \\
# D_t \approx \sqrt{\max(1, K/p)}\; U V^\top .
# \end{gathered} $$ (background-muon)
#
# The decomposition would be slow. Five steps of an odd polynomial, of products of the matrix with itself, replace
# it, and bring every singular value that is not tiny to between 0.7 and 1.2. In practice Muon's decay is
# decoupled; we call this form MuonW, and Muon the coupled one.


# %%
def muon(gradients):  # equation (background-muon)
    m = torch.zeros_like(W)
    for G in gradients:
        m = BETA * m + (1 - BETA) * G
    ahead = BETA * m + (1 - BETA) * gradients[-1]
    size = max(1, W.shape[0] / W.shape[1]) ** 0.5
    return size * optim.orthogonalised(ahead)


worked("muon", muon)
worked("muonw", muon)

# %% [markdown]
# ### Four more, in a line each
#
# {doc}`symmetry` tests them and {doc}`leaks` says where their laws end.
#
# | optimizer | its direction |
# |---|---|
# | Shampoo {cite}`gupta2018` | $L^{-1/4}\, m\, R^{-1/4}$, with $L$ the sum of all $GG^\top$ and $R$ of all $G^\top G$ |
# | SOAP {cite}`vyas2024` | Adam's division {eq}`background-adam` with $\beta_2 = 0.95$, in the eigenvectors of decaying averages of $GG^\top$ and $G^\top G$ |
# | Lion {cite}`chen2023` | $\operatorname{sign}(\beta m + (1-\beta)G)$, with an $m$ that averages for longer |
# | MARS {cite}`yuan2024` | Adam's, of a gradient corrected by its change since the last step |

# %% [markdown]
# ## Do these updates agree with the packages?
#
# The largest difference of an entry of $W$ after the two steps:

# %%
compared = pd.DataFrame(COMPARED).T
assert (compared["from ncbook.optim"] < 1e-12).all()
exact = compared["from torch.optim"].drop("MuonW").dropna()
assert (exact < 1e-12).all()
figures.shown(
    compared.map(lambda v: f"{v:.0e}" if v else "0", na_action="ignore")
)

# %% [markdown]
# A dash says that torch has no such optimizer. torch's Muon computes its products in bfloat16, a format with
# two to three digits, and ours here in float64. Where the gradient has fewer directions than $W$, that can be a
# large difference: Muon enlarges what rounding leaves in the others ({doc}`leaks`).

# %% [markdown]
# ## What one step already tells
#
# **Does the direction respect what the gradient has?** The columns of $G$ sum to zero
# {eq}`background-gradient`. Here are the sums of the columns of $D$, without decay:

# %%
PLAIN = {"SGD": sgd, "Adam": adam, "Signum": signum, "Muon": muon}
sums = {name: take_steps(D)[1].sum(0).tolist() for name, D in PLAIN.items()}
assert all(abs(s) < 1e-9 for name in ("SGD", "Muon") for s in sums[name])
columns = [f"feature {1 + j}" for j in range(W.shape[1])]
table = pd.DataFrame(sums, index=columns).T.rename_axis("1ᵀD")
figures.shown(table.round(12) + 0.0, **dict.fromkeys(columns, "{:.2f}"))

# %% [markdown]
# Under SGD and Muon they still are zero. Adam and Signum treat each entry for itself, and move all rows of
# $W$ together: in the **flat direction**, which the loss does not see. {doc}`symmetry` makes a theorem of this.
#
# **What does decay do where there is no gradient?** The loss gives the flat direction none. But Adam
# and Signum see entries, not directions; so look first at entries that have no gradient, and let all gradients be zero.
# The largest change of an entry of $W$ in the second step, over $\eta$:

# %%
NONE = [torch.zeros_like(W)] * 2
alone = {}
for name, direction in DIRECTIONS.items():
    given = optim.split_decay(name, DECAY, None)
    before, _, after = take_steps(direction, *given, NONE)
    form = "coupled" if given[0] else "decoupled"
    change = (after - before).abs().max().item() / LR
    base = figures.LABELS[name].removesuffix("W")
    alone.setdefault(base, {})[form] = change
figures.shown(pd.DataFrame(alone).T, coupled="{:.3f}", decoupled="{:.3f}")

# %% [markdown]
# Decoupled decay takes the same from $W$ under each optimizer, $\eta\lambda W$. Coupled decay goes through the
# direction. SGD adds it up, a factor of $1/(1-\beta)$ in the end. Adam and Signum scale it up to a full step of about
# one, 25 times as much here, and Muon does so for the whole matrix. Where an entry has a gradient, coupled decay is
# one term of two, and only at the end of a training, when the gradient is no larger than $\lambda W$, can it decide.
# Whether networks collapse is therefore a question for trainings, and {doc}`coupling` has them: on the digits, with
# enough coupled decay, Adam and Signum take NC3 close to zero, and with decoupled decay they do not.

# %% [markdown]
# ## Converged, and collapsed
#
# A **run** is one training with one setting and one **seed**, which draws the initial weights and the order of
# the images. A run has **converged**, or *learned*, if it ends with at least 99 % training accuracy, the
# paper's filter. A run has **collapsed** if moreover NC1, NC2 and NC3 all end below 0.1 (`ncbook.metrics.rule`).
#
# - NC1 is how far samples scatter about their class mean, over how far the means are apart.
# - NC2 is the distance between the shape of the class means and the regular simplex.
# - NC3 is the distance between $W$ and the class means, both at norm one.
#
# NC0, the size of the sum of $W$'s rows, is not part of the rule: it counts only relative to $W$, and NC3
# contains that ({doc}`metrics`). The part of $W$ that all its rows share, their mean, is called its **gauge**: no
# probability depends on it. *Collapsed but for its gauge* is a run for which the rule holds once this part is left
# out.
#
# The threshold is a round number that no paper sets. It asks less of NC1, a ratio of squares, than of NC2 and NC3,
# which are lengths. Would another one change what this book says? Over the
# book's six grids of runs (digits, five seeds, {doc}`coupling`):

# %%
grids = six_grids.complete(six_grids.stored())
good = figures.converged(grids)


def needed(runs):
    """The threshold at which each run would begin to count as collapsed."""
    return runs[[*rule.THREE]].astype(float).max(axis=1)


# %% tags=["hide-input"]
def draw_thresholds(runs):
    """The share of converged runs that count as collapsed, by the threshold."""
    figure, axis = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    thresholds = np.geomspace(0.01, 1, 200)
    for name, rows in figures.by_optimizer(runs):
        least = needed(rows).to_numpy()
        axis.plot(
            thresholds,
            [(least < t).mean() for t in thresholds],
            **figures.look(name),
        )
    axis.axvline(rule.THRESHOLD, color="#555555", lw=0.8, ls=":")
    axis.set(xscale="log", xlabel="threshold", ylim=(0, 1))
    axis.set(ylabel="share that collapsed", xlim=(0.01, 1))
    axis.set_xticks(
        ticks := (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1), [f"{t:g}" for t in ticks]
    )
    axis.minorticks_off()
    figure.legend(loc="outside right center")
    plt.close(figure)
    return figure


def tell_thresholds(runs):
    """The least threshold of each optimizer."""
    least = {
        figures.LABELS[name]: needed(rows).min()
        for name, rows in figures.by_optimizer(runs)
    }
    listed = ", ".join(f"{name} {value:.2g}" for name, value in least.items())
    return (
        f"The least threshold at which any converged run counts as collapsed: {listed} "
        f"(n = {len(runs):,})."
    )


figures.show_if_any(good, six_grids.LINE, draw_thresholds, tell_thresholds)

# %% [markdown]
# *How many of the converged runs of each optimizer count as collapsed, against the threshold; dotted, ours.*
#
# How many runs collapse depends on the threshold. Which optimizers have such runs hardly depends on it: for any
# threshold from 0.02 to 0.37, SGD, SGDW, Adam and Signum have some, and AdamW and SignumW have none. At 0.5 the rule
# would separate little: 317 of SGD's 375 converged runs would count, and 261 of AdamW's 535. The filter on
# accuracy matters less still:


# %% tags=["hide-input"]
def by_accuracy(runs):
    """How many runs collapsed at the book's threshold, of those of a training accuracy."""
    table = {}
    for least in (0.9, 0.99, 0.999, 1.0):
        kept = runs[(runs["status"] == "ok") & (runs["train_acc"] >= least)]
        table[f"{100 * least:g} %"] = {
            figures.LABELS[
                name
            ]: f"{(needed(rows) < rule.THRESHOLD).sum()} of {len(rows)}"
            for name, rows in figures.by_optimizer(kept)
        }
    return figures.shown(
        pd.DataFrame(table).rename_axis("accuracy of at least")
    )


figures.show_if_any(grids, "", by_accuracy)

# %% [markdown]
# And for each network, from all stored runs of the six optimizers (the grids above and some more): how many of the
# converged ones collapsed, at half, once and twice the threshold.

# %% tags=["hide-input"]
everywhere = figures.uniform(store.load_runs())
everywhere = everywhere[everywhere["optimizer"].isin(sweep.GRIDS)]


def by_network(runs):
    """How many converged runs collapsed, by network, for three thresholds."""
    table = {}
    keys = ["dataset", "model", "epochs"]
    for (dataset, model, epochs), rows in runs.groupby(keys):
        least, where = needed(rows), dataset.removeprefix("folder:")
        if model == "ufm":
            model, where = "unconstrained", "features"
        row = {f"{t:g}": (least < t).sum() for t in (0.05, 0.1, 0.2)}
        row["converged"] = len(rows)
        table[f"{model}\n{where}, {epochs} epochs"] = row
    return figures.shown(pd.DataFrame(table).T.rename_axis("network"))


def tell_networks(runs):
    """How many runs of convolutional networks and transformers collapsed."""
    few, narrow = runs["train_size"].isin([1000, 2000]), runs["width"] < 1
    return (
        f"Of the {len(runs)} converged runs of ResNet9, VGG9 and the vision transformer "
        f"{rule.collapsed(runs).sum()} collapsed. All but {(~narrow).sum()} of these runs have narrow networks, "
        f"all but {(~few).sum()} see 1,000 or 2,000 images, and they train for {runs['epochs'].min()} to "
        f"{runs['epochs'].max()} epochs."
    )


learned = figures.converged(everywhere)
images = learned[learned["model"].isin(["resnet9", "vgg9", "vit"])]
figures.show_if_any(learned, "", by_network)
figures.show_if_any(images, "", tell_networks)

# %% [markdown]
# On no network did a run of AdamW or SignumW collapse at 0.1. But on the convolutional networks and the transformer
# hardly any run did, of SGD, SGDW and Signum, and barely. There the rule tells optimizers apart no longer
# ({doc}`how_far`).

# %% [markdown]
# ## What was shown
#
# - Collapse, in a network of three classes: each class a point, the points a triangle, $W$ pointing at
#   them (one run, seed 0, 100 epochs).
# - The gradient of cross-entropy sums to zero over the classes (proved), and of four optimizers SGD and Muon keep
#   that in their direction (computed for one pair of gradients; proved in {doc}`symmetry`).
# - Where there is no gradient, coupled decay in Adam and Signum makes full steps, and decoupled decay does not.
# - Which optimizers have collapsed runs on the digits does not depend on the threshold between 0.02 and
#   0.37, nor on the filter on accuracy (3,240 runs, five seeds).
#
# ## Where it holds, and where not
#
# The updates and the zero sums are exact, for every network with cross-entropy and a linear last layer whose weight
# is used nowhere else. The argument about decay holds where there is no gradient, and is no proof that a network
# collapses. The counts are of one small network and one easy data set. Where almost nothing collapsed, as on our
# convolutional networks, the book compares values instead.

# %% [markdown]
# ## Exercises
#
# **1.** Add one vector to all rows of $W$. Does the gradient change, and does a step of Adam?

# %% tags=["hide-cell"]
# All logits of a sample move by one number. So its probabilities, and with
# them G and every direction made of gradients alone, stay as they are.
H, labels = FEATURES[:2].double(), LABELS[:2]
moved = W + torch.randn(W.shape[1]).double()
same = gradient(moved, H, labels)
assert (same - GRADIENTS[0]).abs().max() < 1e-12
plain, shifted = adam([GRADIENTS[0]]), adam([same])
assert (plain - shifted).abs().max() < 1e-5
# With coupled decay the direction sees W itself, and changes:
with_decay = adam([same + DECAY * moved]) - adam([GRADIENTS[0] + DECAY * W])
change = with_decay.abs().max().item()
print("neither changes; with coupled decay Adam's direction does,")
print(f"by up to {change:.0e} in this first step, which is nearly a sign")

# %% [markdown]
# **2.** Without momentum, $\beta = 0$, the coupled and the decoupled form of one optimizer are the same. Of which?

# %% tags=["hide-cell"]
# SGD and SGDW, because their direction is linear in the gradient:
# W − η(G + λW) = (1 − ηλ)W − ηG.
G = GRADIENTS[0]
coupled, decoupled = W - LR * (G + DECAY * W), (1 - LR * DECAY) * W - LR * G
assert (coupled - decoupled).abs().max() < 1e-12
# Under Signum, and Adam, the two forms differ at any momentum:
signum = W - LR * (G + DECAY * W).sign()
signumw = (1 - LR * DECAY) * W - LR * G.sign()
apart = (signum - signumw).abs().max().item()
print(f"SGD and SGDW; Signum and SignumW are apart by up to {apart:.2g}")

# %% [markdown]
# **3.** What is Adam's first step, and why do later steps differ from Signum's?

# %% tags=["hide-cell"]
# The corrections undo the averages: m₁/(1 − β) = G₁ and s₁/(1 − β₂) = G₁²,
# so D₁ = G₁/(|G₁| + ε), a sign. Later, an entry whose gradient changes its
# sign has a small average over a large root mean square: a smaller step.
G = GRADIENTS[0]
assert (adam([G]) - G / (G.abs() + 1e-8)).abs().max() < 1e-9
print("Adam's second direction is no matrix of signs:")
print(adam(GRADIENTS).numpy().round(2))

# %% [markdown]
# **4.** Train the three digits with AdamW at $\lambda = 5$. Which of NC1, NC2 and NC3 end below 0.1?

# %% tags=["hide-cell"]
# NC1 and NC2: each class is a point, and the points form a triangle. NC3 is
# not, in part because of the vector that all rows of W share, but on this
# run not only: NC3 of the centred W is above 0.1, too.
found = training("adamw", lr=0.005, decay=5.0)
ends = metrics.nc_metrics(*found[100][:3])
assert max(ends["nc1"], ends["nc2"]) < 0.1 < ends["nc3_centred"] < ends["nc3"]
figure = draw_collapse(found)
figure.set_label("The same picture for AdamW: the rows of W miss the means")
display(figure)
told = rule.THREE | {"nc3_centred": "NC3 of the centred W"}
print(", ".join(f"{word} {ends[name]:.3f}" for name, word in told.items()))

# %% [markdown]
# One run of three classes, and the other way round than nearly all of ten classes in {doc}`coupling`: there NC2 is
# what stays above 0.1, and at this decay and learning rate the centred NC3 does not.
