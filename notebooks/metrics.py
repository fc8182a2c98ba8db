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
# # What is measured: NC0 to NC4
#
# **Question.** Neural collapse {cite}`papyan2020` is a claim about a shape: late in training the last layer
# of a classifier becomes very symmetric. Which numbers tell how far a network is from that shape, and are
# they all about what the network computes?
#
# **Answer.** Four numbers, NC0 to NC3, vanish in that shape, and each overlooks what another one sees. But
# NC3 cannot vanish unless NC0 does, as a share of $\lVert W\rVert_F$; and a part of NC3, which is known
# exactly, is a shift of $W$ that changes no prediction.

# %%
import math

import matplotlib.pyplot as plt
import pandas as pd
import torch
from torch import Tensor

from ncbook import data, figures, live, metrics, train

figures.start_chapter()
torch.set_default_dtype(torch.float64)

K, PER_CLASS = 3, 60
random = torch.Generator().manual_seed(0)
LABELS = torch.arange(K).repeat_interleave(PER_CLASS)


def toy(mu: Tensor, W=None, spread: float = 0.0):
    """Features about the rows of mu (3, 2), a weight, by default M, and test features."""
    noise = torch.randn(2, len(LABELS), 2, generator=random)
    noise -= metrics.class_means(noise, LABELS, K)[:, LABELS]
    H, test_H = mu[LABELS] + spread * noise[0], mu[LABELS] + 0.6 * noise[1]
    return H, metrics.centred_means(mu) if W is None else W, test_H


# %%
angles = torch.deg2rad(90 + 120 * torch.arange(K))
TRIANGLE = torch.stack([angles.cos(), angles.sin()], 1)
UNEVEN = torch.tensor([[0.0, 1.6], [-0.6, -0.8], [0.6, -0.8]])
cos, sin = math.cos(math.radians(50)), math.sin(math.radians(50))
TURN = torch.tensor([[cos, sin], [-sin, cos]])
SHIFT = torch.tensor([0.7, 0.2])
TOYS = {
    "collapsed": toy(TRIANGLE),
    "clouds": toy(TRIANGLE, spread=0.35),
    "uneven means": toy(UNEVEN),
    "W turned": toy(TRIANGLE, TRIANGLE @ TURN),
    "W shifted": toy(TRIANGLE, TRIANGLE + SHIFT),
    "features moved": toy(TRIANGLE + torch.tensor([0.9, 0.4])),
}
measured = {
    name: metrics.nc_metrics(H, LABELS, W, None, test_H)
    for name, (H, W, test_H) in TOYS.items()
}

# %% tags=["hide-input"]
COLOURS = ("#004488", "#DDAA33", "#BB5566")  # Paul Tol's high-contrast scheme
SIGNS = {"sample": ("o", 4), "class mean": ("o", 9)}
SIGNS["row of $W$"] = (r"$\rightarrow$", 14)


def draw(axis: plt.Axes, mu: Tensor, W: Tensor, samples: Tensor) -> None:
    """Samples small, class means large, rows of W as arrows, rescaled to the size of M."""
    tips = W * (metrics.centred_means(mu).norm() / W.norm())
    axis.fill(*mu.T, fill=False, edgecolor="#999999", lw=0.8)
    for k, (colour, marker) in enumerate(zip(COLOURS, "os^", strict=True)):
        mark = dict(marker=marker, color=colour)
        axis.scatter(*samples[k == LABELS].T, s=9, alpha=0.5, lw=0, **mark)
        axis.scatter(*mu[k], s=80, edgecolor="black", zorder=3, **mark)
        line = dict(arrowstyle="-|>", color=colour, lw=2, shrinkA=0, shrinkB=0)
        axis.annotate("", tips[k], (0, 0), arrowprops=line, zorder=4)


def draw_regions(axis: plt.Axes, mu: Tensor, W: Tensor) -> None:
    """What W decides, as colour; hatched where the nearest mean decides otherwise."""
    side = torch.linspace(-2.5, 2.5, 401)
    grid = torch.cartesian_prod(side, side)
    linear = (grid @ W.T).argmax(1)
    differs = (linear != torch.cdist(grid, mu).argmin(1)).int()
    linear, differs = linear.reshape(401, 401).T, differs.reshape(401, 401).T
    look = dict(levels=(-0.5, 0.5, 1.5, 2.5), colors=COLOURS, alpha=0.15)
    axis.contourf(side, side, linear, **look)
    look = dict(levels=(0.5, 1.5), colors="none", hatches=["////"])
    area = axis.contourf(side, side, differs, **look)
    area.set(edgecolor="#777777", linewidth=0)


def panel(axis: plt.Axes, name: str, key: str) -> None:
    """One toy, and the metric that sees what is wrong with it."""
    H, W, test_H = TOYS[name]
    mu = metrics.class_means(H, LABELS, K)
    if key == "nc4":
        draw_regions(axis, mu, W)
    draw(axis, mu, W, test_H if key == "nc4" else H)
    axis.set(aspect="equal", xlim=(-2.1, 2.4), ylim=(-1.8, 2.1))
    axis.set(xticks=(), yticks=())
    value = (
        f"{key.upper()} = {measured[name][key]:.2f}" if key else "NC0–NC3 = 0"
    )
    axis.set_title(f"{name}\n{value}")


look = dict(figsize=(5.6, 8.4), layout="constrained")
figure, axes = plt.subplots(3, 2, **look)
keys = ("", "nc1", "nc2", "nc3", "nc0", "nc4")
for axis, name, key in zip(axes.flat, TOYS, keys, strict=True):
    panel(axis, name, key)
for label, (marker, size) in SIGNS.items():
    mark = dict(ls="", marker=marker, ms=size, label=label)
    axes[0, 0].plot([], [], color="#555555", **mark)
figure.legend(loc="outside lower center", ncols=3)
figure.set_label(
    "Six toys of three classes in the plane. One is collapsed: samples in three points, the "
    "points an equilateral triangle, the rows of W towards them. Each other one breaks one "
    "property, and the metric in its title is off."
)
plt.show()

# %% [markdown]
# *Three classes with two features each. The first panel is collapsed; each other one breaks one property, and
# the metric that sees it is in the title. In the last one, samples of a test set: colours are what $W$
# decides, hatched where the nearest class mean decides otherwise.*
#
# **What you will learn**
#
# - what NC0 to NC4 measure, and which of them overlooks what;
# - why NC3 → 0 forces NC0 → 0 (Proposition 2.1 of the paper {cite}`optimizer2026`, sharpened), at what rate, and why the
#   converse is false;
# - which part of NC3 changes no prediction, and how to leave it out;
# - what these numbers say of a network trained with and without weight decay.
#
# As printed, the paper divides NC2, NC2W and NC2M by $K^2$, NC3 by $Kp$ and NC0 by $n$, and centres $\Sigma_W$ by the
# global mean. Its tables cannot have been computed so. The formulas here carry the paper's equation numbers, but have
# no such factors, and centre $\Sigma_W$ by the class means ({doc}`printed`). {doc}`../book/notation` has all symbols.
#
# ## The last layer, and its words
#
# A classifier turns a sample into **features** $h \in \mathbb{R}^p$, and a last linear layer turns these into
# one score a class, $Wh + b$ ({doc}`background`). All that follows looks at this layer alone, after the whole
# training set went through the network:
#
# - $H$, shape $(N, p)$: the features, one row a sample; each sample has one of $K$ labels;
# - $W$, shape $(K, p)$, and $b$, shape $(K,)$: weight and bias, one row a class;
# - $\mu_k$: the mean of the features of class $k$; $\mu_G$: the mean of the $K$ class means;
# - $M$, shape $(K, p)$: the **centred class means**,
#
# $$ M_k = \mu_k - \mu_G, \qquad\text{so that}\qquad \sum_k M_k = 0. $$ (means)
#
# The shape in question is the **simplex**: $K$ vectors of equal length, every two at the same and the widest
# possible angle. Two classes point in opposite directions, three form an equilateral triangle, four a
# tetrahedron. The table of their inner products is a multiple of
#
# $$ \begin{aligned}
# M^* &= \frac{1}{\sqrt{K-1}} \Bigl(I_K - \frac{1}{K}\mathbf{1}\mathbf{1}^\top\Bigr), \\
# \lVert M^*\rVert_F &= 1.
# \end{aligned} $$ (etf)
#
# The field calls it a *simplex equiangular tight frame*, or ETF.
#
# ## NC1: the samples of a class become one point
#
# **In words.** Within a class, features stop varying. "Small" must be measured against something, and the
# natural yardstick is the distance between the classes.
#
# **Formula.** With the scatter within and between classes
#
# $$ \begin{aligned}
# \Sigma_W &= \frac1N R^\top R, & R_n &= h_n - \mu_{y_n}, \\
# \Sigma_B &= \frac1K M^\top M, &&
# \end{aligned} $$ (scatter)
#
# where row $n$ of $R$ leads from the mean of its class $y_n$ to sample $n$, the paper's eq. 2 is
#
# $$ \mathrm{NC1} = \frac1K \operatorname{Tr}\bigl(\Sigma_W \Sigma_B^{\dagger}\bigr)
#  = \frac1N \lVert R M^{\dagger} \rVert_F^2, $$ (nc1)
#
# with $\dagger$ for the pseudo-inverse. The second form is how it is computed: $\Sigma_B^\dagger = K M^\dagger
# M^{\dagger\top}$, so $K$ cancels and no $p \times p$ matrix is needed. Scatter in a direction in which the
# class means do not differ is not counted. Two cheaper relatives count it: the *quotient* $\operatorname{Tr}\Sigma_W /
# \operatorname{Tr}\Sigma_B$, and CDNV {cite}`galanti2021`, which divides the variances of two classes by the
# squared distance of their means and averages over the pairs.
#
# ## NC2: the class means form a simplex
#
# **In words.** The centred class means have equal lengths and equal, widest possible angles: no class is
# closer to a second one than to a third.
#
# **Formula.** Compare the table of their inner products with that of the simplex {eq}`etf`, both at Frobenius
# norm 1 (eq. 5, {cite}`kothapalli2023`):
#
# $$ \mathrm{NC2} = \Bigl\lVert \frac{M M^\top}{\lVert M M^\top\rVert_F} - M^* \Bigr\rVert_F. $$ (nc2)
#
# Its two halves have metrics of their own (eq. 3 and 4), **NC2n** of lengths and **NC2a** of angles:
#
# $$ \begin{aligned}
# \mathrm{NC2n} &= \operatorname{std}_k \lVert M_k\rVert \,/ \operatorname{mean}_k \lVert M_k\rVert, \\
# \mathrm{NC2a} &= \operatorname*{mean}_{k \neq k'} \Bigl| \cos(M_k, M_{k'}) + \frac{1}{K-1} \Bigr|.
# \end{aligned} $$ (nc2a)
#
# Vectors at the angles of the simplex sum to zero only if their lengths are equal. So for class means NC2a = 0
# implies NC2n = 0; exercise 1 is about the converse. (The standard deviation is that with $K-1$.) The same formulas
# for the rows of $W$ in place of $M$ (eq. 6 to 8) are **NC2W**, NC2Wn and NC2Wa. $W$ is not centred for them.
#
# ## NC3: the weight points where the means are
#
# **In words.** The layer that reads the features becomes a copy of the features' means, up to one factor: $W$
# is a multiple of $M$.
#
# **Formula.** The paper's eq. 10, and an angle in disguise (expand the square to see it):
#
# $$ \begin{aligned}
# \mathrm{NC3} &= \Bigl\lVert \frac{W}{\lVert W\rVert_F} - \frac{M}{\lVert M\rVert_F}
# \Bigr\rVert_F = \sqrt{2 - 2c}, \\
# c &= \frac{\langle W, M\rangle}{\lVert W\rVert_F \lVert M\rVert_F}.
# \end{aligned} $$ (nc3)
#
# NC3 is 0 where $W$ is along $M$, $\sqrt2$ where it is orthogonal to $M$, and 2, the most it can be, where
# $W = -M$. In the panel “W turned” $W$ still is a perfect simplex, so NC2 and NC2W hold; it only looks the
# wrong way. A last relative, **NC2M** (eq. 9), has $W M^\top$ in place of $M M^\top$ in {eq}`nc2`, and so
# notices the turn.
#
# ## NC0: the rows of the weight sum to zero
#
# **In words.** The centred means sum to zero by construction {eq}`means`. If the weight is to copy them, its
# rows must sum to zero as well. This is the paper's new property.
#
# **Formula.** The paper's eq. 12, with $\mathbf{1}$ the vector of $K$ ones:
#
# $$ \mathrm{NC0} = \lVert W^\top \mathbf{1} \rVert_2
# = \Bigl\lVert \sum_k W_k \Bigr\rVert_2. $$ (nc0)
#
# It fails in the panel “W shifted”, where one vector $a$ is added to every row of $W$. What does that change
# for the classifier? Every score of a sample rises by the same number $a \cdot h$, and softmax ignores what all
# scores have in common: not one probability changes. The loss is flat along every such shift. Hence its
# gradient has nothing in that direction,
#
# $$ \mathbf{1}^\top \nabla_W \mathcal L = 0, $$ (flat)
#
# and plain gradient steps leave $W^\top\mathbf{1}$ where it is. Two things do move NC0: weight decay, and an
# optimizer that treats the entries of the gradient unequally, as Adam and Signum do. This is why so plain a
# number can tell optimizers apart.
#
# ## NC4: the nearest class mean decides
#
# **In words.** The linear layer and the rule "take the class with the nearest mean" give the same answer on
# unseen samples.
#
# **Formula.** The paper's eq. 11, over the test set. Unlike the others it tends to one:
#
# $$ \begin{aligned}
# \mathrm{NC4} = {} & \text{share of } h \text{ with} \\
# & \arg\max_k\, (W h)_k = \arg\min_k \lVert h - \mu_k \rVert.
# \end{aligned} $$ (nc4)
#
# No label occurs in it: NC4 says that two classifiers agree, not that they are right. Nor does the bias, though the
# networks have one. At perfect collapse, $W$ a positive multiple of $M$ and centred means of equal length,
# $\lVert h - \mu_k\rVert$ is least where $M_k \cdot (h - \mu_G)$ is largest, that is, at
#
# $$ \arg\max_k\, (W h - W\mu_G)_k. $$ (bias)
#
# So the two classifiers agree for every $h$ with the bias $b = -W\mu_G$, and without one only if all entries of $W\mu_G$
# are equal. The panel “features moved” is collapsed, and fails. `nc_metrics` counts a bias if it is given one.
#
# **In code.** The package computes all of them from features, labels and weight in one call. It agrees with the
# equations on every toy:


# %%
def unit(A: Tensor) -> Tensor:
    return A / A.norm()


def by_the_equations(H: Tensor, W: Tensor, test_H: Tensor) -> dict:
    """NC0 to NC4 of a toy."""
    mu = metrics.class_means(H, LABELS, K)
    R, M = H - mu[LABELS], mu - mu.mean(0)  # (means)
    nearest = torch.cdist(test_H, mu).argmin(1)
    return {
        "nc0": W.sum(0).norm(),  # (nc0)
        "nc1": (R @ torch.linalg.pinv(M)).square().sum() / len(R),  # (nc1)
        "nc2": (unit(M @ M.T) - metrics.simplex_etf(K)).norm(),  # (nc2)
        "nc3": (unit(W) - unit(M)).norm(),  # (nc3)
        "nc4": ((test_H @ W.T).argmax(1) == nearest).double().mean(),  # (nc4)
    }


for name, parts in TOYS.items():
    for key, value in by_the_equations(*parts).items():
        assert math.isclose(value, measured[name][key], abs_tol=1e-12)

# %% [markdown]
# ## Which metric sees what
#
# All metrics over all toys; tinted where a property fails.

# %% tags=["hide-input"]
NAMES = {
    key: key.upper() for key in ("nc0", "nc1", "nc2", "nc3", "nc4", "cdnv")
}
NAMES |= {f"nc2{m}": f"NC2{m}" for m in "na"} | dict(nc2w="NC2W", nc2m="NC2M")
NAMES |= {f"nc2w{m}": f"NC2W{m}" for m in "na"} | dict(nc1_quotient="quotient")
NAMES |= {
    f"{key}_centred": f"{NAMES[key]} centred" for key in ("nc2w", "nc2m", "nc3")
}
NAMES["gauge_share"] = "gauge share"
ROUNDING = 1e-12


def tint(row: pd.Series) -> list[str]:
    """Where a metric is off its value at collapse: 1 for NC4, 0 for the others."""
    off = (row - (row.name == "NC4")).abs() > ROUNDING
    return ["background: rgba(213, 94, 0, 0.25)" if so else "" for so in off]


def table_of(columns: dict, digits=2):
    """Metrics as rows; zero up to rounding is 0."""
    table = pd.DataFrame(columns)
    table = table.loc[[key for key in metrics.KEYS if key in NAMES]].rename(
        NAMES
    )
    words = lambda v: f"{v:.{digits}f}" if abs(v) > ROUNDING else "0"  # noqa: E731
    style = figures.shown(table).format(words, na_rep="–")
    small = dict(
        selector="th, td", props="font-size: min(0.9em, 0.1rem + 1.7cqi)"
    )
    return style.set_table_styles([small], overwrite=False)


table_of(measured).apply(tint, axis=1)

# %% [markdown]
# - **Clouds** trouble NC1 and its relatives alone: the others see class means and weights only.
# - **Uneven means** leave NC1, NC3 and NC0 at zero: $W$ copied the means, good or bad.
# - **W turned** leaves NC0, NC2 and NC2W at zero. It is the reason for NC3. It also corrects a remark in the
#   paper's Appendix B, that NC2 and NC2W → 0 imply NC2M → 0: two perfect simplices may be turned against each
#   other.
# - **W shifted** changes no decision, so NC4 stays at one. NC0, NC3 and NC2W object, and the *centred* metrics
#   do not: they leave out the shift, as {ref}`gauge` explains.
# - **Features moved** satisfies everything but NC4, for want of a bias.
#
# ## On the way to collapse
#
# No network is ever quite collapsed. How do the metrics fall on the way? Take random features of ten classes in
# 64 dimensions, and a random weight, and mix them with a collapsed layer: a share $\varepsilon$ of noise,
# $1 - \varepsilon$ of collapse. `member_metrics` measures many networks at once; here each share is one.

# %%
CLASSES, WIDTH, SAMPLES = 10, 64, 500
share = torch.logspace(0, -4, 41)[:, None, None]  # epsilon
frame = torch.randn(CLASSES, WIDTH, generator=random)
frame = torch.linalg.qr(frame.T).Q.T  # orthonormal rows
simplex = metrics.simplex_etf(CLASSES) @ frame  # (K, p), norm 1
noise = torch.randn(CLASSES + SAMPLES, WIDTH, generator=random)
noise /= math.sqrt(CLASSES * WIDTH)  # rows as long as the simplex's
noise_W, noise_H = noise[:CLASSES], noise[CLASSES:]
path_labels = torch.arange(SAMPLES) % CLASSES

H = share * noise_H + (1 - share) * simplex[path_labels]  # (41, N, p)
W = share * noise_W + (1 - share) * simplex  # (41, K, p)
path = metrics.member_metrics(H, path_labels, W)
path["nc0_norm"] = path["nc0"] / torch.linalg.matrix_norm(W)
path = pd.DataFrame({key: value.numpy() for key, value in path.items()})
fall = path.iloc[-11] / path.iloc[-1]  # the last tenfold step towards collapse
assert fall[["nc0_norm", "nc2", "nc3"]].between(9.9, 10.1).all()
assert fall[["nc1", "cdnv"]].between(99, 101).all()

# %% tags=["hide-input"]
LINES = {
    "nc0_norm": ("NC0 / ‖W‖", "#0072B2", "-"),
    "nc2": ("NC2", "#009E73", "--"),
    "nc3": ("NC3", "#D55E00", "-."),
    "nc1": ("NC1", "#CC79A7", "-"),
    "cdnv": ("CDNV", "#555555", ":"),
}
figure, axis = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
for key, (label, colour, style) in LINES.items():
    axis.plot(share.flatten(), path[key], style, color=colour, label=label)
axis.set(xscale="log", yscale="log", ylabel="metric")
axis.set_xlabel(r"share of noise $\varepsilon$")
axis.invert_xaxis()
axis.minorticks_off()
figure.legend(loc="outside right center")
plt.show()

# %% [markdown]
# *Near collapse a ten times smaller share of noise makes NC0, NC2 and NC3 ten times smaller, but NC1 and CDNV a
# hundred times.* **NC1 and CDNV are squares, the others are lengths.** So an NC1 far below NC2 and NC3, which
# the paper's section 4.1 notes in its runs, need not mean that a network is closer to NC1 than to the other
# properties.
#
# **Try it.** The same way for four classes in three dimensions, where the simplex is a tetrahedron. Move
# *collapse* to 1, or press *Play*: samples meet in their class means, the means spread out to a tetrahedron,
# and each row of $W$ finds its own mean. Then move *shift of W*, which adds one vector to every row. NC0 and
# NC3 come back, while NC1 and NC2, which do not look at $W$, stay at zero.

# %%
live.simplex()

# %% [markdown]
# ## Proposition 2.1: without NC0 no NC3
#
# The paper's central tool: *NC2 and NC3 imply NC0*. It holds in a sharper form. Write
#
# $$ r = \frac{\mathrm{NC0}}{\sqrt K\, \lVert W\rVert_F} \in [0, 1] $$ (share)
#
# for the share of $W$ that all its rows have in common, and $c = 1 - \mathrm{NC3}^2/2$ for the cosine in
# {eq}`nc3`.
#
# **Proposition.** *For any $K \ge 2$, any $W \ne 0$ and any $M \ne 0$ whose rows sum to zero,*
#
# $$ r^2 + c^2 \le 1, $$ (prop)
#
# *with equality exactly where the centred rows of $W$ are a multiple of $M$. Put differently,*
#
# $$ \begin{aligned}
# \frac{\mathrm{NC0}}{\lVert W\rVert_F}
# &\le \sqrt K \; \mathrm{NC3}\, \sqrt{1 - \tfrac14 \mathrm{NC3}^2} \\
# &\le \sqrt K \; \mathrm{NC3}.
# \end{aligned} $$ (bound)
#
# **Proof.** Let $\bar w = W^\top \mathbf{1} / K$ be the mean row, and split
# $W = \mathbf{1}\bar w^\top + W_c$. A matrix whose rows are all equal is orthogonal to one whose rows sum to
# zero, as those of $W_c$ and of $M$ do. Three consequences:
#
# 1. $\lVert \mathbf{1}\bar w^\top\rVert_F = \sqrt K\, \lVert\bar w\rVert = \mathrm{NC0}/\sqrt K =
#    r\, \lVert W\rVert_F$;
# 2. by Pythagoras, $\lVert W_c\rVert_F^2 = (1 - r^2)\, \lVert W\rVert_F^2$;
# 3. by Cauchy and Schwarz, $|\langle W, M\rangle| = |\langle W_c, M\rangle| \le \lVert W_c\rVert_F
#    \lVert M\rVert_F$.
#
# Divide the third by $\lVert W\rVert_F \lVert M\rVert_F$: $|c| \le \sqrt{1 - r^2}$, with equality where $W_c$
# is a multiple of $M$. Put $c = 1 - \mathrm{NC3}^2/2$ for the second form. ∎
#
# So NC3 → 0 alone forces $\mathrm{NC0}/\lVert W\rVert_F$ → 0. NC2 is not needed, nor are classes of equal size.
# Read backwards, {eq}`bound` is a diagnosis: NC0 and $\lVert W\rVert_F$ give the least NC3 that is possible.
#
# **Check.** Random pairs of every kind, for two to fifty classes: a weight made of a multiple of $M$, a common
# row and noise, in random proportions.


# %%
def random_pairs(num_classes: int, count: int = 400, width: int = 20):
    """NC3 and r of random W and M."""
    shape = (count, num_classes, width)
    noise, M = torch.randn(2, *shape, generator=random)
    M = metrics.centred_means(M)
    common = torch.randn(count, 1, width, generator=random)
    mix = torch.randn(3, count, 1, 1, generator=random)
    mix = mix**3  # often one part prevails
    W = mix[0] * M + mix[1] * common + mix[2] * noise
    nc3, r = metrics.self_duality(W, M), metrics.gauge_share(W)
    return pd.DataFrame({"nc3": nc3.numpy(), "gauge_share": r.numpy()})


pairs = pd.concat([random_pairs(classes) for classes in (2, 3, 10, 50)])
for one in (pairs, path):
    sums = one["gauge_share"] ** 2 + (1 - one["nc3"] ** 2 / 2) ** 2
    assert (sums <= 1 + ROUNDING).all()  # equation (prop)

# %% tags=["hide-input"]
x = torch.linspace(0, 2, 200)
figure, axis = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
edge = x * (1 - x**2 / 4).sqrt()
axis.fill_between(x, edge, 1.12, color="#dddddd", lw=0, label="impossible")
look = dict(s=4, color="#0072B2", alpha=0.5, lw=0, label="random pairs")
axis.scatter(pairs["nc3"], pairs["gauge_share"], **look)
look = dict(color="#D55E00", lw=2, label="to collapse")
axis.plot(path["nc3"], path["gauge_share"], **look)
for name, mark in {"W shifted": "k*", "W turned": "k^"}.items():
    at = measured[name]["nc3"], measured[name]["gauge_share"]
    axis.plot(*at, mark, ms=10, clip_on=False, label=name)
axis.set(xlim=(0, 2), ylim=(0, 1.12), xlabel="NC3", ylabel="$r$")
figure.legend(loc="outside right center", markerscale=1.2)
plt.show()

# %% [markdown]
# *1,600 random pairs, and the way to collapse of the last section. The grey region stays empty, and pairs reach
# its edge: the bound cannot be improved. The shifted toy sits on the edge, as its $W$ is $M$ plus a common
# row.*
#
# **The converse is false.** The turned toy has NC0 = 0 and yet lies far from NC3 = 0. NC0 = 0 says that $W$ is
# centred and nothing about where it points. As a share of $\lVert W\rVert_F$ NC0 can rule collapse out; it never
# proves it. As a length it does neither (exercise 2). The chapters that follow still draw the length where the
# paper does, since its theorems are about it; where a result is about collapse they give the share.
#
# (gauge)=
# ## What softmax does not see
#
# The toy with the shifted weight makes the same predictions as the collapsed one, and yet NC3 objects. So part
# of NC3 is no property of the classifier as a function. How large is that part?
#
# Softmax ignores what all scores have in common, so $W$ and $W + \mathbf{1} a^\top$ are one classifier, for any
# vector $a$. Physics calls such a freedom of description a *gauge*. Split $W$ into the part that no prediction
# depends on and the rest, whose rows are centred over the classes:
#
# $$ \begin{aligned}
# W &= W_g + W_c, \\
# W_g &= \tfrac1K \mathbf{1}\mathbf{1}^\top W, \qquad \mathbf{1}^\top W_c = 0.
# \end{aligned} $$ (split)
#
# The share of the gauge is the $r$ of {eq}`share`: $\lVert W_g\rVert_F / \lVert W\rVert_F = r$. The paper
# centres the class means, but not $W$. Do to $W$ what is done to $M$: **centred NC3**, NC2W and NC2M are those
# of $W_c$. No choice of $a$ changes them. `nc_metrics` calls them `nc3_centred`, `nc2w_centred` and
# `nc2m_centred`, and $r$ the `gauge_share`.
#
# **Identity.** *With $c = \cos(W, M)$ as before and $c_c = \cos(W_c, M)$, for $W_c \ne 0$,*
#
# $$ \mathrm{NC3}^2 = 2 - 2c, \qquad c = \sqrt{1 - r^2}\; c_c. $$ (gauge-identity)
#
# **Proof.** As above, $\langle W, M\rangle = \langle W_c, M\rangle$ and $\lVert W_c\rVert_F = \sqrt{1 - r^2}\,
# \lVert W\rVert_F$. Divide the first by $\lVert W\rVert_F \lVert M\rVert_F$ and put in the second. ∎
#
# {eq}`prop` follows again, since $|c_c| \le 1$. And NC3 has two causes, told apart exactly: a gauge share $r$,
# and a $W_c$ that looks away from $M$. Take two classifiers, one collapsed and one with noise in $W$, and add to
# each a common row of growing size. Neither changes a single prediction on the way.

# %%
shares = torch.linspace(0, 0.999, 200)[:, None, None]  # r
common = torch.randn(1, WIDTH, generator=random)
common /= math.sqrt(CLASSES) * common.norm()  # ‖1cᵀ‖ = 1
centred_noise = metrics.without_gauge(noise_W)
fixed = {"W = M": simplex, "W = M + noise": simplex + 0.7 * centred_noise}
shifted = {}
for name, W_c in fixed.items():
    W = W_c + W_c.norm() * shares / (1 - shares**2).sqrt() * common
    H = simplex[path_labels].expand(len(shares), -1, -1)
    found = metrics.member_metrics(H, path_labels, W)
    own = 1 - found["nc3_centred"] ** 2 / 2  # the cosine of W_c and M
    whole = 2 - 2 * (1 - found["gauge_share"] ** 2).sqrt() * own
    assert torch.allclose(found["nc3"] ** 2, whole)  # (gauge-identity)
    shifted[name] = found

# %% tags=["hide-input"]
figure, axis = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
for (name, found), colour in zip(
    shifted.items(), ("#0072B2", "#D55E00"), strict=True
):
    r, look = found["gauge_share"], dict(color=colour, lw=2)
    axis.plot(r, found["nc3"], **look, label=name)
    axis.plot(r, found["nc3_centred"], "--", **look, label=f"{name},\ncentred")
axis.axhline(math.sqrt(2), color="#555555", lw=1, ls=":", label=r"$\sqrt{2}$")
axis.set(xlabel="gauge share $r$", ylabel="NC3", xlim=(0, 1), ylim=(-0.03, 1.5))
figure.legend(loc="outside right center")
figure.set_label(
    "NC3 of two fixed classifiers against the gauge share of their weight. Raw NC3 rises to the "
    "square root of 2; centred NC3 is level."
)
plt.show()

# %% [markdown]
# *Along each colour the classifier is one and the same function. Raw NC3 (solid) rises to $\sqrt2$, as if $W$
# knew nothing of $M$. Centred NC3 (dashed) is level: it is what NC3 says of the function. Where $W$ is right but
# for the gauge (blue), raw NC3 is about $r$ itself. Where it is noisy (orange), a small gauge share adds little.*
#
# ## On real features
#
# The simplest layer of all: the pixels of handwritten digits as features, and least squares as weight. Nothing
# was trained here that could collapse. Next to it a network, three hidden layers with batch norm, trained by
# SGD for thirty epochs: once without weight decay and once with. `train_members` trains both together.

# %%
torch.set_default_dtype(torch.float32)  # as networks train
digits = data.load("digits")
pixels, test_pixels = (
    x.flatten(1).double() for x in (digits.train_x, digits.test_x)
)
targets = torch.nn.functional.one_hot(digits.train_y).double()
weight = (torch.linalg.pinv(pixels) @ targets).T
raw = metrics.nc_metrics(pixels, digits.train_y, weight, None, test_pixels)
settings = dict(optimizer="sgd", lr=0.0679, momentum=0.9, epochs=30)
configs = [train.RunConfig(weight_decay=d, **settings) for d in (0.0, 0.05)]
(free, decayed), _ = train.train_members(configs, digits, compiled=False)
assert free["train_acc"] == decayed["train_acc"] == 1
assert abs(free["nc0"] / free["nc0_init"] - 1) < 1e-5
assert decayed["nc0"] / decayed["nc0_init"] < 0.005
assert min(free["nc4"], decayed["nc4"]) > 0.99
assert 0.15 < decayed["nc3"] / free["nc3"] < 0.25

# %% tags=["hide-input"]
columns = {
    "pixels": raw,
    "network,\nstart": {key: free[f"{key}_init"] for key in metrics.KEYS},
    "trained,\nno decay": free,
    "trained,\nλ = 0.05": decayed,
}
table_of(columns, 3)

# %% [markdown]
# Both networks fit all training samples, and NC4 cannot tell them apart: it is above 0.99 in both. NC0 can.
# Without decay it ends where it began, since the loss does not pull on it. With decay it falls below half a
# percent of its start, and NC3 is a fifth of what it is without.
#
# ## What was shown, and where it holds
#
# | statement | status | where it holds, and where not |
# |---|---|---|
# | each of NC1, NC2, NC3 and NC0 overlooks what another one sees | computed, by toys | three classes and two features; each fault can be made for more |
# | near collapse NC1 is a square, NC2 and NC3 are lengths | computed for one path | noise that shrinks alike in features and weight; where one shrinks faster, so do its metrics |
# | $r^2 + c^2 \le 1$: NC3 → 0 forces $\mathrm{NC0}/\lVert W\rVert_F$ → 0 | proved | any $W$ and class means, balanced or not. The converse is false, and NC0 without the norm excludes nothing |
# | NC3 splits into gauge and the rest | proved | a loss of softmax, or any that ignores a common shift of the scores. With squared loss the shift is no gauge |
# | NC4 says little about collapse | measured | one network, two runs; {doc}`diagnostic` has it for all runs on the digits |
#
# ## Exercises
#
# **1.** Four class means in space sum to zero and have equal lengths. Must they form a tetrahedron?

# %% tags=["hide-input"]
# No: every second corner of a long box. In the plane three must be a triangle.
box = torch.tensor([[1.0, 1, 2], [-1, -1, 2], [1, -1, -2], [-1, 1, -2]])
lengths, away = metrics.row_norm_spread(box), metrics.equiangularity(box)
assert box.sum(0).norm() == 0
assert lengths < 1e-6 < 0.2 < away
print(f"NC2n = {lengths:.1g}, NC2a = {away:.2f}")

# %% [markdown]
# **2.** The paper concludes from an NC0 that diverges that collapse cannot occur. Find weights whose NC0
# diverges while NC3 goes to zero.

# %% tags=["hide-input"]
# W = tM + √t·1aᵀ: the common row grows, but more slowly than W itself.
rows = {}
for t in (1, 100, 10_000, 1_000_000):
    W = t * TRIANGLE + math.sqrt(t) * SHIFT
    NC0, NC3 = W.sum(0).norm(), metrics.self_duality(W, TRIANGLE)
    rows[f"{t:,}"] = [float(x) for x in (NC0, NC0 / W.norm(), NC3)]
table = pd.DataFrame(rows, ["NC0", "NC0 / ‖W‖", "NC3"]).T.rename_axis("t")
assert table["NC0"].is_monotonic_increasing
assert table["NC3"].iloc[-1] < 1e-3
figures.shown(table, NC0="{:,.1f}")

# %% [markdown]
# Since NC0 is at most $\sqrt K\,\lVert W\rVert_F$, it diverges only where $\lVert W\rVert_F$ does, and there it
# proves nothing by itself. Where $\lVert W\rVert_F$ is bounded, as weight decay makes it, an NC0 that stays away
# from zero does exclude collapse.
#
# **3.** Give the toy “features moved” the bias of {eq}`bias`. What becomes of its NC4?

# %% tags=["hide-input"]
H, W, test_H = TOYS["features moved"]
mu = metrics.class_means(H, LABELS, K)
given, b = (test_H, W, mu), -W @ mu.mean(0)  # equation (bias)
agree = metrics.nearest_mean_agreement(*given, b)
assert agree == 1 > metrics.nearest_mean_agreement(*given)
print(f"NC4 = {agree:.2f}")

# %% [markdown]
# **4.** A network with $K = 10$ has NC0 = 3 and $\lVert W\rVert_F = 5$. What is the least NC3 that it can have,
# and the least centred NC3?

# %% tags=["hide-input"]
r = 3 / (math.sqrt(10) * 5)
least = math.sqrt(2 - 2 * math.sqrt(1 - r**2))
reached = math.sqrt(1 - r**2) * simplex + r * common  # norm 1, W_c along M
assert math.isclose(metrics.self_duality(reached, simplex), least)
assert metrics.self_duality(metrics.without_gauge(reached), simplex) < 1e-6
print(f"r = {r:.2f}, NC3 ≥ {least:.2f}; centred it can be 0")
