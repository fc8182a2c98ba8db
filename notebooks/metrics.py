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
# Neural collapse {cite}`papyan2020` is a claim about the last layer of a trained classifier: that
# it takes one particular, very symmetric shape. Five numbers tell how far a network is from that
# shape. This chapter builds each of them and shows it fail and hold where everything can be seen.
#
# **What you will learn**
#
# - what NC0, NC1, NC2, NC3 and NC4 measure, and which of them react to what;
# - why NC0 must vanish if NC3 does (Proposition 2.1 of the paper {cite}`optimizer2026`), by how
#   much, and why the converse is false;
# - which part of NC3 is a shift that changes no prediction, and how to leave it out;
# - where the formulas as printed and the tables as printed part ways, and which of them this book
#   follows.
#
# {doc}`background` has the network and its words, {doc}`../book/notation` all symbols.

# %% [markdown]
# ## The last layer, and its words
#
# A classifier turns a sample into **features** $h \in \mathbb{R}^p$, and a last linear layer turns
# these into one score a class, $Wh + b$. All that follows looks at this layer alone, after the
# whole training set went through the network:
#
# - $H$, shape $(N, p)$: the features, one row a sample; each sample has one of $K$ labels;
# - $W$, shape $(K, p)$, and $b$, shape $(K,)$: the layer's weight and bias, one row a class;
# - $\mu_k$: the mean of the features of class $k$; $\mu_G$: the mean of the $K$ class means;
# - $M$, shape $(K, p)$: the **centred class means**,
#
# $$ M_k = \mu_k - \mu_G, \qquad\text{so that}\qquad \sum_k M_k = 0. $$ (means)
#
# The shape in question is the **simplex**: $K$ vectors of equal length, every two at the same and
# the widest possible angle. Two classes point in opposite directions, three form an equilateral
# triangle, four a tetrahedron. The table of their inner products is a multiple of
#
# $$ M^* = \frac{1}{\sqrt{K-1}} \Bigl(I_K - \frac{1}{K}\mathbf{1}\mathbf{1}^\top\Bigr),
# \qquad \lVert M^*\rVert_F = 1. $$ (etf)
#
# The field calls it a *simplex equiangular tight frame*, or ETF.

# %%
import math
from typing import NamedTuple

import matplotlib.pyplot as plt
import pandas as pd
import torch
from IPython.display import Markdown, display
from torch import Tensor

from ncbook import data, figures, metrics, train

figures.start_chapter()
torch.set_default_dtype(torch.float64)

metrics.simplex_etf(3)  # equation (etf): the paper's M*, below eq. 5

# %% [markdown]
# ## A toy that fits on paper
#
# Three classes and two features: everything can be drawn. A toy has features with their labels, a
# weight, and test features, which scatter more widely about the same class means. Unless told
# otherwise it is collapsed: every sample lies on its class mean, the means form an equilateral
# triangle, and $W = M$. Each section then breaks one thing.

# %%
K, PER_CLASS, TEST_SPREAD = 3, 60, 0.6
random = torch.Generator().manual_seed(0)
corners = torch.deg2rad(90 + 120 * torch.arange(K))
TRIANGLE = torch.stack([corners.cos(), corners.sin()], 1)  # (3, 2)
LABELS = torch.arange(K).repeat_interleave(PER_CLASS)


def centred_noise() -> Tensor:
    """Normal noise, (N, 2), of mean zero in each class."""
    noise = torch.randn(len(LABELS), 2, generator=random)
    return noise - metrics.class_means(noise, LABELS, K)[LABELS]


# %%
class Toy(NamedTuple):
    H: Tensor
    labels: Tensor
    W: Tensor
    test_H: Tensor


def make_toy(mu: Tensor, W=None, spread: float = 0.0) -> Toy:
    """Three classes about the rows of mu (3, 2); by default W = M."""
    W = metrics.centred_means(mu) if W is None else W
    H = mu[LABELS] + spread * centred_noise()
    return Toy(H, LABELS, W, mu[LABELS] + TEST_SPREAD * centred_noise())


# %% [markdown]
# The three folded cells below draw a toy, two toys side by side, and a table.

# %% tags=["hide-input"]
COLOURS = ("#004488", "#DDAA33", "#BB5566")  # Paul Tol's high-contrast scheme
MARKERS = ("o", "s", "^")
LEGEND = (
    ("sample", "o", 3),
    ("class mean", "o", 9),
    ("row of $W$", r"$\rightarrow$", 14),
)


def draw(axis: plt.Axes, toy: Toy) -> None:
    """Samples small, class means large, rows of W as arrows, rescaled to the size of M."""
    mu = metrics.class_means(toy.H, toy.labels, K)
    tips = toy.W * (metrics.centred_means(mu).norm() / toy.W.norm())
    axis.fill(*mu.T, fill=False, edgecolor="#999999", lw=0.8)
    for k, (colour, marker) in enumerate(zip(COLOURS, MARKERS, strict=True)):
        axis.scatter(
            *toy.H[toy.labels == k].T,
            s=9,
            marker=marker,
            color=colour,
            alpha=0.5,
            lw=0,
        )
        axis.scatter(
            *mu[k],
            s=80,
            marker=marker,
            color=colour,
            edgecolor="black",
            lw=0.8,
            zorder=3,
        )
        line = dict(arrowstyle="-|>", color=colour, lw=2, shrinkA=0, shrinkB=0)
        axis.annotate("", tips[k], (0, 0), arrowprops=line, zorder=4)


def compare(fails: Toy, holds: Toy, name: str, measure, drawing=draw) -> None:
    """Two toys side by side, each with its value of one metric."""
    figure, axes = plt.subplots(
        1, 2, figsize=(7.8, 3.5), layout="constrained", sharey=True
    )
    for axis, word, toy in zip(
        axes, ("fails", "holds"), (fails, holds), strict=True
    ):
        drawing(axis, toy)
        axis.set(
            title=f"{word}: {name} = {measure(toy):.2f}", xlabel="feature 1"
        )
        axis.set(
            aspect="equal", xlim=(-2, 2), ylim=(-1.8, 2), xticks=(-1, 0, 1)
        )
    axes[0].set_ylabel("feature 2")
    for label, marker, size in LEGEND:
        axis.plot(
            [], [], color="#555555", ls="", marker=marker, ms=size, label=label
        )
    figure.legend(loc="outside right center")
    figure.set_label(
        f"Two toys of three classes in the plane: {name} fails on the left, "
        f"at {measure(fails):.2f}, and holds on the right, at "
        f"{measure(holds):.2f}. Dots are samples, large marks joined by lines "
        f"are class means, arrows are rows of W."
    )
    plt.show()


def show(table: pd.DataFrame, digits="{:.2f}", corner: str = ""):
    """A table whose columns stand apart, numbers to the right, with a word in its corner."""
    named = table.rename_axis(index=None, columns=corner)
    return figures.shown(named).format(digits, na_rep="–")


# %%
def means(toy: Toy) -> Tensor:
    return metrics.class_means(toy.H, toy.labels, K)


def centred(toy: Toy) -> Tensor:
    return metrics.centred_means(means(toy))  # M, equation (means)


# %% [markdown]
# ## NC1: the samples of a class become one point
#
# **In words.** Within a class, features stop varying. "Small" must be measured against something,
# and the natural yardstick is the distance between the classes.
#
# **Formula.** With the scatter within and between classes
#
# $$ \Sigma_W = \frac1N R^\top R, \qquad R_n = h_n - \mu_{y_n}, \qquad
# \Sigma_B = \frac1K M^\top M, $$ (scatter)
#
# where row $n$ of $R$ leads from the mean of its class $y_n$ to sample $n$, the paper's eq. 2 is
#
# $$ \mathrm{NC1} = \frac1K \operatorname{Tr}\bigl(\Sigma_W \Sigma_B^{\dagger}\bigr)
#  = \frac1N \lVert R M^{\dagger} \rVert_F^2, $$ (nc1)
#
# with $\dagger$ for the pseudo-inverse.
# The second form is how it is computed. $\Sigma_B^\dagger = K M^\dagger M^{\dagger\top}$, so $K$
# cancels and no $p \times p$ matrix is ever needed. Scatter in a direction in which the class means
# do not differ is not counted.


# %%
def nc1(toy: Toy) -> float:  # equation (nc1), the paper's eq. 2
    return metrics.nc1(toy.H, toy.labels, means(toy)).item()


collapsed = make_toy(TRIANGLE)
clouds = make_toy(TRIANGLE, spread=0.35)
compare(clouds, collapsed, "NC1", nc1)

# %% [markdown]
# Both panels have the same class means and the same weight, whose rows are drawn as arrows at the
# size of $M$. Only the scatter differs.
#
# Two cheaper relatives are measured along with it: the quotient
# $\operatorname{Tr}\Sigma_W / \operatorname{Tr}\Sigma_B$, which counts scatter in every direction,
# and CDNV {cite}`galanti2021`, which divides the variances of two classes by the squared distance
# of their means and averages over the pairs.

# %% [markdown]
# ## NC2: the class means form a simplex
#
# **In words.** The centred class means have equal lengths and equal, widest possible angles: no
# class is closer to a second one than to a third.
#
# **Formula.** Compare the table of their inner products with that of the simplex {eq}`etf`, both at
# Frobenius norm 1 (the paper's eq. 5, {cite}`kothapalli2023`):
#
# $$ \mathrm{NC2} = \Bigl\lVert \frac{M M^\top}{\lVert M M^\top\rVert_F} - M^* \Bigr\rVert_F. $$ (nc2)
#
# The two halves of the property have metrics of their own (eq. 3 and 4), of lengths and of angles:
#
# $$ \mathrm{NC2n} = \frac{\operatorname{std}_k \lVert M_k\rVert}{\operatorname{mean}_k \lVert
# M_k\rVert}, $$ (nc2n)
#
# $$ \mathrm{NC2a} = \operatorname*{mean}_{k \neq k'} \Bigl| \cos(M_k, M_{k'}) +
# \frac{1}{K-1} \Bigr|. $$ (nc2a)


# %%
def nc2(toy: Toy) -> float:  # equation (nc2), the paper's eq. 5
    return metrics.etf_distance(centred(toy) @ centred(toy).T).item()


corners = torch.tensor([[0.0, 1.6], [-0.6, -0.8], [0.6, -0.8]])
uneven = make_toy(corners)
compare(uneven, collapsed, "NC2", nc2)

# %% [markdown]
# In the plane lengths and angles fail together: three vectors of equal length that sum to zero
# *are* an equilateral triangle. Four classes in space can have equal lengths and unequal angles,
# such as every second corner of a long box:

# %%
box = torch.tensor([[1, 1, 2.0], [-1, -1, 2], [1, -1, -2], [-1, 1, -2]])
rows = {}
for name, M in {"uneven triangle": centred(uneven), "box": box}.items():
    spread = metrics.row_norm_spread(M)  # equation (nc2n), eq. 3
    angles = metrics.equiangularity(M)  # equation (nc2a), eq. 4
    rows[name] = {"NC2n": spread.item(), "NC2a": angles.item()}
show(pd.DataFrame(rows).T)

# %% [markdown]
# The reverse cannot be: vectors at the angles of the simplex sum to zero only if their lengths are
# equal. So for class means NC2a = 0 implies NC2n = 0.
#
# The same three formulas are applied to the rows of $W$ in place of $M$ (eq. 6 to 8) and then
# called **NC2W**, NC2Wn and NC2Wa. $W$ is not centred for this.

# %% [markdown]
# ## NC3: the weight points where the means are
#
# **In words.** The layer that reads the features becomes a copy of the features' means, up to one
# factor: $W$ is a multiple of $M$.
#
# **Formula.** The paper's eq. 10, and an angle in disguise:
#
# $$ \mathrm{NC3} = \Bigl\lVert \frac{W}{\lVert W\rVert_F} - \frac{M}{\lVert M\rVert_F}
# \Bigr\rVert_F = \sqrt{2 - 2c}, \qquad
# c = \frac{\langle W, M\rangle}{\lVert W\rVert_F \lVert M\rVert_F}. $$ (nc3)
#
# Expand the square to see it. NC3 is 0 where $W$ is along $M$, $\sqrt2$ where it is orthogonal to
# $M$, and 2, the most it can be, where $W = -M$.


# %%
def nc3(toy: Toy) -> float:  # equation (nc3), the paper's eq. 10
    return metrics.self_duality(toy.W, centred(toy)).item()


cos, sin = math.cos(math.radians(50)), math.sin(math.radians(50))
rotation = torch.tensor([[cos, sin], [-sin, cos]])
turned = make_toy(TRIANGLE, TRIANGLE @ rotation)
compare(turned, collapsed, "NC3", nc3)

# %% [markdown]
# On the left $W$ still is a perfect simplex, so NC2 and NC2W both hold. It only looks the wrong
# way. A last relative, **NC2M** (eq. 9), puts $W M^\top$ in place of $M M^\top$ in {eq}`nc2`, and
# so notices the turn.

# %% [markdown]
# ## NC0: the rows of the weight sum to zero
#
# **In words.** The centred means sum to zero by construction {eq}`means`. If the weight is to copy
# them, its rows must sum to zero as well. This is the paper's new property.
#
# **Formula.** The paper's eq. 12, with $\mathbf{1}$ the vector of $K$ ones:
#
# $$ \mathrm{NC0} = \lVert W^\top \mathbf{1} \rVert_2
# = \Bigl\lVert \sum_k W_k \Bigr\rVert_2. $$ (nc0)
#
# To make it fail, add one vector $a$ to every row of $W$.


# %%
def nc0(toy: Toy) -> float:  # equation (nc0), the paper's eq. 12
    return metrics.nc0(toy.W).item()


a = torch.tensor([0.7, 0.2])
shifted = make_toy(TRIANGLE, TRIANGLE + a)
compare(shifted, collapsed, "NC0", nc0)

# %% [markdown]
# What does the shift change for the classifier? Every score of a sample rises by the same number
# $a \cdot h$. Softmax ignores what all scores have in common:

# %%
before = (clouds.H @ collapsed.W.T).softmax(1)
after = (clouds.H @ shifted.W.T).softmax(1)
change = (before - after).abs().max()
display(Markdown(f"Largest change of a probability: {change:.0e}."))

# %% [markdown]
# The loss is flat along every such shift. Hence its gradient has nothing in that direction,
#
# $$ \mathbf{1}^\top \nabla_W \mathcal L = 0, $$ (flat)
#
# and plain gradient steps leave $W^\top\mathbf{1}$ where it is. Two things do move NC0: weight
# decay, and an optimizer that treats the entries of the gradient unequally, as Adam and Signum do.
# This is why so plain a number can tell optimizers apart.

# %% [markdown]
# ## NC4: the nearest class mean decides
#
# **In words.** The linear layer and the rule "take the class with the nearest mean" give the same
# answer on unseen samples.
#
# **Formula.** The paper's eq. 11, over the test set. Unlike the others it tends to one:
#
# $$ \mathrm{NC4} = \text{share of } h \text{ with }
# \arg\max_k\, (W h + b)_k = \arg\min_k \lVert h - \mu_k \rVert. $$ (nc4)
#
# No label occurs in it: NC4 says that two classifiers agree, not that they are right.


# %% tags=["hide-input"]
def draw_regions(axis: plt.Axes, toy: Toy) -> None:
    """The linear layer's decision as colour; hatched where the nearest mean is another class's."""
    side = torch.linspace(-2, 2, 401)
    grid = torch.cartesian_prod(side, side)
    linear = (grid @ toy.W.T).argmax(1)
    differs = linear != torch.cdist(grid, means(toy)).argmin(1)
    linear, differs = (
        part.reshape(401, 401).T for part in (linear, differs.int())
    )
    axis.contourf(
        side,
        side,
        linear,
        levels=(-0.5, 0.5, 1.5, 2.5),
        colors=COLOURS,
        alpha=0.15,
    )
    area = axis.contourf(
        side, side, differs, levels=(0.5, 1.5), colors="none", hatches=["////"]
    )
    area.set(edgecolor="#777777", linewidth=0)
    draw(axis, toy._replace(H=toy.test_H))  # test samples, same class means
    axis.grid(False)


# %%
def nc4(toy: Toy) -> float:  # equation (nc4), eq. 11: no bias
    mu = means(toy)
    return metrics.nearest_mean_agreement(toy.test_H, toy.W, mu).item()


compare(turned, collapsed, "NC4", nc4, draw_regions)

# %% [markdown]
# The background shows what the linear layer decides; hatched is where the nearest mean decides
# otherwise. The samples are those of the test set.

# %% [markdown]
# ## Which metric sees what
#
# All metrics over all toys, in one call each. Two toys are new: one row of $W$ three times as long,
# and all features moved away from the origin, by the same vector, with $W$ left alone.

# %%
factors = torch.tensor([[1.0], [1.0], [3.0]])
TOYS = {
    "collapsed": collapsed,
    "clouds": clouds,
    "uneven means": uneven,
    "W turned": turned,
    "W shifted": shifted,
    "one row longer": make_toy(TRIANGLE, factors * TRIANGLE),
    "features moved": make_toy(TRIANGLE + torch.tensor([1.2, 0.5])),
}
measured = {
    name: metrics.nc_metrics(toy.H, toy.labels, toy.W, None, toy.test_H)
    for name, toy in TOYS.items()
}

# %% tags=["hide-input"]
NAMES = {
    key: key.upper().replace("WN", "Wn").replace("WA", "Wa")
    for key in metrics.KEYS
}
NAMES |= {
    "nc2n": "NC2n",
    "nc2a": "NC2a",
    "nc1_quotient": "quotient",
    "cdnv": "CDNV",
    "w_norm": "‖W‖",
    "gauge_share": "gauge share",
    "nc2w_centred": "NC2W centred",
    "nc2m_centred": "NC2M centred",
    "nc3_centred": "NC3 centred",
}
ROUNDING = 1e-12


def is_off(metric: str, value: float) -> bool:
    """Off its value at collapse: 1 for NC4, any for ‖W‖, 0 for the others."""
    return metric != "‖W‖" and abs(value - (metric == "NC4")) > ROUNDING


def tint(row: pd.Series) -> list[str]:
    return [
        "background: rgba(213, 94, 0, 0.25)" if is_off(row.name, value) else ""
        for value in row
    ]


table = pd.DataFrame(measured).rename(index=NAMES)
style = show(table, lambda v: f"{v:.2f}" if abs(v) > ROUNDING else "0")
style.apply(tint, axis=1).set_table_attributes('style="font-size: 85%"')
small = dict(selector="th, td", props="font-size: min(1em, 0.1rem + 1.6cqi)")
style.set_table_styles([small], overwrite=False)

# %% [markdown]
# Tinted: the property fails. By columns:
#
# - **Clouds** trouble NC1 and its relatives alone: the others see class means and weights only.
# - **Uneven means** leave NC1, NC3 and NC0 at zero: $W$ copied the means, good or bad.
# - **W turned** leaves NC0, NC2 and NC2W at zero. It is the reason for NC3. It also corrects a
#   remark in the paper's Appendix B, that NC2 and NC2W → 0 imply NC2M → 0: they do not, since two
#   perfect simplices may be turned against each other.
# - **W shifted** changes no decision, so NC4 stays at one. NC0, NC3 and NC2W object, and the *centred*
#   metrics do not: they leave out the shift, as {ref}`gauge` explains.
# - **One longer row** keeps the angles between rows: NC2Wa is zero, NC2Wn is not.
# - **Features moved** satisfies everything but NC4. We come back to it.

# %% [markdown]
# ## On the way to collapse
#
# No network is ever quite collapsed. How do the metrics fall on the way? Take random features of
# ten classes in 64 dimensions, and a random weight, and mix them with a collapsed layer: a share
# $\varepsilon$ of noise, $1 - \varepsilon$ of collapse. `member_metrics` measures many networks at
# once; here each share is one.

# %%
CLASSES, WIDTH, SAMPLES = 10, 64, 500
share = torch.logspace(0, -4, 41)[:, None, None]  # epsilon
frame = torch.randn(CLASSES, WIDTH, generator=random)
frame = torch.linalg.qr(frame.T).Q.T  # orthonormal rows
simplex = metrics.simplex_etf(CLASSES) @ frame  # (K, p), norm 1
noise = torch.randn(CLASSES + SAMPLES, WIDTH, generator=random)
noise /= math.sqrt(CLASSES * WIDTH)  # rows as long as the simplex's
noise_W, noise_H = noise[:CLASSES], noise[CLASSES:]
labels_of_path = torch.arange(SAMPLES) % CLASSES

# %%
H = share * noise_H + (1 - share) * simplex[labels_of_path]  # (41, N, p)
W = share * noise_W + (1 - share) * simplex  # (41, K, p)
path = metrics.member_metrics(H, labels_of_path, W)
path["nc0_norm"] = path["nc0"] / torch.linalg.matrix_norm(W)
path = pd.DataFrame({key: value.numpy() for key, value in path.items()})

# %% tags=["hide-input"]
LINES = {
    "nc0_norm": ("NC0 / ‖W‖", "#0072B2", "-"),
    "nc2": ("NC2", "#009E73", "--"),
    "nc3": ("NC3", "#D55E00", "-."),
    "nc1": ("NC1", "#CC79A7", "-"),
    "cdnv": ("CDNV", "#555555", ":"),
}
figure, axis = plt.subplots(figsize=(7.4, 3.6), layout="constrained")
for key, (label, colour, style) in LINES.items():
    axis.plot(share.flatten(), path[key], style, color=colour, label=label)
axis.set(
    xscale="log",
    yscale="log",
    xlabel=r"share of noise $\varepsilon$",
    ylabel="metric",
)
axis.invert_xaxis()
axis.minorticks_off()
figure.legend(loc="outside right center")
plt.show()


fall = path.iloc[-11] / path.iloc[-1]  # the last tenfold step towards collapse
display(
    Markdown(
        f"Near collapse a ten times smaller share of noise makes NC0 {fall.nc0_norm:.1f}, NC2 "
        f"{fall.nc2:.1f} and NC3 {fall.nc3:.1f} times smaller, but NC1 {fall.nc1:.0f} and CDNV "
        f"{fall.cdnv:.0f} times. **NC1 and CDNV are squares, the others are lengths.** So an NC1 "
        "far below NC2 and NC3, which the paper's section 4.1 notes in its runs, need not mean "
        "that a network is closer to NC1 than to the other properties."
    )
)

# %% [markdown]
# **Try it.** The same way to collapse for four classes in three dimensions, where the simplex is a
# tetrahedron. The page computes NC0 to NC3 of what it draws. Move *collapse* to 1, or press *Play*:
# samples meet in their class means, the means spread out to a tetrahedron, and each row of $W$
# finds its own mean. Then move *shift of W*, which adds one vector to every row. NC0 and NC3 come
# back, while NC1 and NC2, which do not look at $W$, stay at zero.

# %%
from ncbook import live

live.simplex()

# %% [markdown]
# ## Proposition 2.1: without NC0 no NC3
#
# The paper's central tool: *NC2 and NC3 imply NC0*. It holds in a sharper form. Write
#
# $$ r = \frac{\mathrm{NC0}}{\sqrt K\, \lVert W\rVert_F} \in [0, 1] $$ (share)
#
# for the share of $W$ that all its rows have in common, and $c = 1 - \mathrm{NC3}^2/2$ for the
# cosine in {eq}`nc3`.
#
# **Proposition.** *For any $K \ge 2$, any $W \ne 0$ and any $M \ne 0$ whose rows sum to zero,*
#
# $$ r^2 + c^2 \le 1, $$ (prop)
#
# *with equality exactly where the centred rows of $W$ are a multiple of $M$. Put differently,*
#
# $$ \frac{\mathrm{NC0}}{\lVert W\rVert_F} \le \sqrt K \; \mathrm{NC3}\,
# \sqrt{1 - \tfrac14 \mathrm{NC3}^2} \;\le\; \sqrt K \; \mathrm{NC3}. $$ (bound)

# %% [markdown]
# **Proof.** Let $\bar w = W^\top \mathbf{1} / K$ be the mean row, and split
# $W = \mathbf{1}\bar w^\top + W_c$. The rows of $W_c$ sum to zero, and so do those of $M$. A matrix
# whose rows are all equal is orthogonal to one whose rows sum to zero:
# $\langle \mathbf{1}\bar w^\top, W_c\rangle = \bar w \cdot W_c^\top \mathbf{1} = 0$, and likewise
# $\langle \mathbf{1}\bar w^\top, M\rangle = 0$. Three consequences:
#
# 1. $\lVert \mathbf{1}\bar w^\top\rVert_F = \sqrt K\, \lVert\bar w\rVert$, which is
#    $\mathrm{NC0}/\sqrt K = r\, \lVert W\rVert_F$;
# 2. by Pythagoras, $\lVert W_c\rVert_F^2 = (1 - r^2)\, \lVert W\rVert_F^2$;
# 3. by Cauchy and Schwarz, $|\langle W, M\rangle| = |\langle W_c, M\rangle| \le \lVert W_c\rVert_F
#    \lVert M\rVert_F$.
#
# Divide the third by $\lVert W\rVert_F \lVert M\rVert_F$: $|c| \le \sqrt{1 - r^2}$, with equality
# where $W_c$ is a multiple of $M$. Put $c = 1 - \mathrm{NC3}^2/2$ for the second form. ∎
#
# So NC3 → 0 alone forces $\mathrm{NC0}/\lVert W\rVert_F$ → 0. NC2 is not needed, nor are classes of
# equal size. Read backwards, {eq}`bound` is a diagnosis: NC0 and $\lVert W\rVert_F$ give the least
# NC3 that is possible.

# %% [markdown]
# **Check.** Random pairs of every kind, for two to fifty classes: a weight made of a multiple of
# $M$, a common row and noise, in random proportions.


# %%
def common_share(W: Tensor) -> Tensor:
    """r, equation (share)."""
    size = torch.linalg.matrix_norm(W)
    return metrics.nc0(W) / (math.sqrt(W.shape[-2]) * size)


def random_pairs(num_classes: int, count: int = 400, width: int = 20):
    """NC3 and r of random W and M."""
    shape = (count, num_classes, width)
    noise, M = torch.randn(2, *shape, generator=random)
    M = metrics.centred_means(M)
    common = torch.randn(count, 1, width, generator=random)
    mix = torch.randn(3, count, 1, 1, generator=random)
    mix = mix**3  # often one part prevails
    W = mix[0] * M + mix[1] * common + mix[2] * noise
    nc3, r = metrics.self_duality(W, M), common_share(W)
    return pd.DataFrame({"nc3": nc3.numpy(), "r": r.numpy()})


# %%
pairs = pd.concat([random_pairs(classes) for classes in (2, 3, 10, 50)])
path["r"] = common_share(W).numpy()


def sum_of_squares(frame: pd.DataFrame) -> pd.Series:
    """r² + c², equation (prop)."""
    return frame["r"] ** 2 + (1 - frame["nc3"] ** 2 / 2) ** 2


# %% tags=["hide-input"]
last, sums = path.iloc[-1], sum_of_squares(pairs)
above, above_path = (
    (s > 1 + ROUNDING).sum() for s in (sums, sum_of_squares(path))
)
display(
    Markdown(
        f"r² + c² is above 1 in {above} of {len(sums):,} random pairs, and at most "
        f"{sums.max():.6f}. Along the path to collapse of the last section it is above 1 at "
        f"{above_path} of {len(path)} points; the path ends at NC3 = {last.nc3:.1e} and "
        f"NC0/‖W‖ = {last.nc0_norm:.1e}."
    )
)


x = torch.linspace(0, 2, 200)
figure, axis = plt.subplots(figsize=(7.4, 3.6), layout="constrained")
axis.fill_between(
    x,
    x * (1 - x**2 / 4).sqrt(),
    1.12,
    color="#dddddd",
    lw=0,
    label="impossible",
)
axis.scatter(
    pairs["nc3"],
    pairs["r"],
    s=4,
    color="#0072B2",
    alpha=0.5,
    lw=0,
    label="random pairs",
)
axis.plot(
    path["nc3"], path["r"], color="#D55E00", lw=2, label="path to collapse"
)
axis.plot(
    nc3(shifted), common_share(shifted.W), "k*", ms=11, label="toy: W shifted"
)
axis.plot(nc3(turned), 0, "k^", ms=8, clip_on=False, label="toy: W turned")
axis.set(
    xlim=(0, 2),
    ylim=(0, 1.12),
    xlabel="NC3",
    ylabel=r"$r$ = NC0 / ($\sqrt{K}\,\|W\|_F$)",
)
figure.legend(loc="outside right center", markerscale=1.2)
plt.show()

# %% [markdown]
# The grey region stays empty, and pairs reach its edge: the bound cannot be improved. The shifted
# toy sits on the edge, as its $W$ is $M$ plus a common row.
#
# **The converse is false.** The turned toy has NC0 = 0 and yet lies far from NC3 = 0. NC0 = 0 says
# that $W$ is centred and nothing about where it points. As a share of $\lVert W\rVert_F$ NC0 can rule
# collapse out; it never proves it.

# %% [markdown]
# (gauge)=
# ## What softmax does not see
#
# The toy with the shifted weight makes the same predictions as the collapsed one, and yet NC3 objects.
# So part of NC3 is no property of the classifier as a function. How large is that part?
#
# Softmax ignores what all scores have in common, so $W$ and $W + \mathbf{1} a^\top$ are one
# classifier, for any vector $a$. Physics calls such a freedom of description a *gauge*. Split $W$
# into the part that no prediction depends on and the rest, whose rows are centred over the classes:
#
# $$ W = W_g + W_c, \qquad W_g = \tfrac1K \mathbf{1}\mathbf{1}^\top W, \qquad
# \mathbf{1}^\top W_c = 0. $$ (split)
#
# The share of the gauge is the $r$ of {eq}`share`: $\lVert W_g\rVert_F = \mathrm{NC0}/\sqrt K$, so
# $\lVert W_g\rVert_F / \lVert W\rVert_F = r$. The paper centres the class means, but not $W$. Do to
# $W$ what is done to $M$: **centred NC3**, NC2W and NC2M are those of $W_c$. No choice of $a$ changes
# them. `nc_metrics` calls them `nc3_centred`, `nc2w_centred` and `nc2m_centred`, and $r$ the
# `gauge_share`.
#
# **Identity.** *With $c = \cos(W, M)$ as before and $c_c = \cos(W_c, M)$, for $W_c \ne 0$,*
#
# $$ \mathrm{NC3}^2 = 2 - 2c, \qquad c = \sqrt{1 - r^2}\; c_c. $$ (gauge-identity)
#
# **Proof.** The rows of $W_g$ are all equal and those of $M$ sum to zero, so
# $\langle W_g, M\rangle = 0$ and $\langle W, M\rangle = \langle W_c, M\rangle$. Likewise
# $\langle W_g, W_c\rangle = 0$, so by Pythagoras $\lVert W_c\rVert_F = \sqrt{1 - r^2}\, \lVert
# W\rVert_F$. Divide the first by $\lVert W\rVert_F \lVert M\rVert_F$ and put in the second. ∎
#
# {eq}`prop` follows again, since $|c_c| \le 1$. And NC3 has two causes, told apart exactly: a gauge
# share $r$, and a $W_c$ that looks away from $M$. With $c_c = 1$ all of NC3 is gauge, as in the toy:

# %%
H, labels, W, _ = shifted
split = metrics.nc_metrics(H, labels, W)
own = 1 - split["nc3_centred"] ** 2 / 2  # the cosine of W_c and M
identity = 2 - 2 * math.sqrt(1 - split["gauge_share"] ** 2) * own
assert math.isclose(split["nc3"] ** 2, identity)  # equation (gauge-identity)
keys = ["gauge_share", "nc3", "nc3_centred", "nc2w", "nc2w_centred"]
table = pd.DataFrame({"W shifted": {key: split[key] for key in keys}})
show(table.rename(index=NAMES), lambda v: f"{v:.3f}" if v > ROUNDING else "0")

# %% [markdown]
# Take two classifiers, one collapsed and one with noise in $W$, and add to each a common row of growing
# size. Neither changes a single prediction on the way.

# %%
shares = torch.linspace(0, 0.999, 200)[:, None, None]  # r
common = torch.randn(1, WIDTH, generator=random)
common /= math.sqrt(CLASSES) * common.norm()  # ‖1cᵀ‖ = 1
centred_noise_W = metrics.without_gauge(noise_W)
fixed = {"W = M": simplex, "W = M + noise": simplex + 0.7 * centred_noise_W}
shifted_by = {}
for name, W_c in fixed.items():
    size = W_c.norm() * shares / (1 - shares**2).sqrt()
    H = simplex[labels_of_path].expand(len(shares), -1, -1)
    shifted_by[name] = metrics.member_metrics(
        H, labels_of_path, W_c + size * common
    )

# %% tags=["hide-input"]
figure, axis = plt.subplots(figsize=(7.4, 3.6), layout="constrained")
for (name, path_of), colour in zip(
    shifted_by.items(), ("#0072B2", "#D55E00"), strict=True
):
    look = dict(color=colour, lw=2)
    axis.plot(path_of["gauge_share"], path_of["nc3"], **look, label=name)
    axis.plot(
        path_of["gauge_share"],
        path_of["nc3_centred"],
        "--",
        **look,
        label=f"{name}, centred",
    )
axis.axhline(math.sqrt(2), color="#555555", lw=1, ls=":", label=r"$\sqrt{2}$")
axis.set(xlabel="gauge share $r$", ylabel="NC3", xlim=(0, 1), ylim=(-0.03, 1.5))
figure.legend(loc="outside right center")
figure.set_label(
    "NC3 of two fixed classifiers against the gauge share of their weight. Raw NC3 rises to the "
    "square root of 2; centred NC3 is level."
)
plt.show()

# %% [markdown]
# *What to see: along each colour the classifier is one and the same function. Raw NC3 (solid) rises to
# $\sqrt2$, as if $W$ knew nothing of $M$. Centred NC3 (dashed) is level: it is what NC3 says of the
# function. Where $W$ is right but for the gauge (blue), raw NC3 is about $r$ itself. Where it is noisy
# (orange), a small gauge share adds little.*

# %% [markdown]
# ## The paper's own proof
#
# The paper goes another way, through NC2W. Here it is with its factors written out. NC2 says that
# $M M^\top / \lVert M M^\top\rVert_F \to M^*$. Divide by the traces, $\lVert M\rVert_F^2 / \lVert M
# M^\top\rVert_F \to \operatorname{Tr} M^* = \sqrt{K-1}$:
#
# $$ \frac{M M^\top}{\lVert M\rVert_F^2} \to \frac{M^*}{\sqrt{K-1}} = (M^*)^2. $$ (square)
#
# By NC3 the difference of $W/\lVert W\rVert_F$ and $M/\lVert M\rVert_F$ tends to zero, so $W
# W^\top / \lVert W\rVert_F^2$ has the same limit. As $M^*\mathbf{1} = 0$,
#
# $$ \frac{\mathrm{NC0}^2}{\lVert W\rVert_F^2} = \frac{\mathbf{1}^\top W W^\top \mathbf{1}}{\lVert
# W\rVert_F^2} \to \frac{\mathbf{1}^\top M^* \mathbf{1}}{\sqrt{K-1}} = 0. $$ (route)
#
# The printed proof has two slips. It takes $(M^*)^2$ for $M^*$, which is right for two classes
# only; in general $(M^*)^2 = M^*/\sqrt{K-1}$. This does no harm, for the factor multiplies a zero. (Nor
# does the norm of $M^\top M$ that is printed where that of $M$ belongs.)

# %%
squares = {}
for classes in (2, 3, 10):
    etf = metrics.simplex_etf(classes)
    ratio = (etf @ etf)[0, 0] / etf[0, 0]  # equation (square)
    root = math.sqrt(classes - 1)
    row = {"M*² / M*": ratio.item(), "1 / √(K − 1)": 1 / root}
    squares[classes] = row
show(pd.DataFrame(squares).T, "{:.4f}", corner="K")

# %% [markdown]
# And it ends with NC0 → 0, where the argument gives $\mathrm{NC0}/\lVert W\rVert_F$ → 0. This
# matters where weights grow without bound, as they may without weight decay. Take $W = t M + \sqrt
# t\, \mathbf{1} a^\top$: as $t$ grows NC3 goes to zero, and NC0 diverges.

# %%
rows = {}
for t in (1, 100, 10_000, 1_000_000):
    toy = make_toy(TRIANGLE, t * TRIANGLE + math.sqrt(t) * a)
    ratio = nc0(toy) / toy.W.norm().item()
    rows[f"{t:,}"] = [nc0(toy), ratio, nc3(toy)]
table = pd.DataFrame(rows, index=["NC0", "NC0 / ‖W‖", "NC3"]).T
show(table, "{:.2g}", corner="t").format("{:,.1f}", subset=["NC0"])

# %% [markdown]
# The paper concludes from a diverging NC0 that collapse cannot occur. But NC0 is at most
# $\sqrt K\,\lVert W\rVert_F$, so it diverges only where $\lVert W\rVert_F$ does, and there it proves
# nothing by itself. What rules out collapse is an $\mathrm{NC0}/\lVert W\rVert_F$ that stays away
# from zero. Where $\lVert W\rVert_F$ is bounded, it is enough that NC0 stays away from zero. That NC0 does
# not fall excludes nothing by itself.

# %% [markdown]
# ## Which scale the tables use
#
# As printed, the formulas carry factors that we left out: $1/K^2$ in NC2, NC2W and NC2M,
# $1/(Kp)$ in NC3, and in NC0 $1/n$, with an $n$ that is not defined. The paper's tables cannot have
# been made with them. Here is its Table 1 (ResNet9 on Fashion-MNIST, $K = 10$) as printed: values
# at the end, and their change since the start in percent, where a number is given.

# %%
OPTIMIZERS = ("SGD", "SGDW", "Adam", "AdamW", "Signum", "SignumW")
AT_END = {
    "NC0": (None, 0.55, 0.34, None, 0.78, None),
    "NC2": (0.29, 0.46, 0.29, 0.54, 0.50, 1.15),
    "NC3": (0.35, 0.80, 0.29, 0.78, 0.58, 1.40),
}
CHANGE = {  # in percent
    "NC0": (None, -68.9, -80.6, None, -55.3, None),
    "NC2": (-63.0, -42.4, -63.9, -32.4, -36.8, 44.2),
    "NC3": (-75.1, -43.5, -79.5, -45.2, -59.0, -1.2),
}
at_end = pd.DataFrame(AT_END, OPTIMIZERS)
change = pd.DataFrame(CHANGE, OPTIMIZERS)

# %% [markdown]
# **The largest value possible.** NC3 is at most 2 {eq}`nc3`. For NC2, $\langle M M^\top, M^*\rangle =
# \operatorname{Tr}(M M^\top)/\sqrt{K-1} \ge \lVert M M^\top\rVert_F / \sqrt{K-1}$, so
#
# $$ \mathrm{NC2} \le \sqrt{2 - \frac{2}{\sqrt{K-1}}}, $$ (ceiling)
#
# reached where all class means lie on one line. The text's factors shrink these ceilings. (The
# width of the network's last layer is taken as 512. At any width NC3 is at most $2/K$.)

# %%
K_paper, p_paper = 10, 512
on_a_line = torch.randn(K_paper, 1, generator=random)
M = metrics.centred_means(on_a_line)
nc2_on_a_line = metrics.etf_distance(M @ M.T).item()
nc2_most = math.sqrt(2 - 2 / math.sqrt(K_paper - 1))  # (ceiling)
assert math.isclose(nc2_on_a_line, nc2_most)
ceilings = pd.DataFrame({"possible": {"NC2": nc2_most, "NC3": 2.0}})
factors = {"NC2": 1 / K_paper**2, "NC3": 1 / (K_paper * p_paper)}
ceilings["with the factor"] = ceilings["possible"] * pd.Series(factors)
ceilings["in Table 1"] = at_end.max()
show(ceilings, "{:.3g}", corner="at most")

# %% [markdown]
# Table 1 exceeds the text's ceilings by far. Its largest NC2, SignumW's, equals the ceiling without
# the factor: the class means of that network lie almost on one line.
#
# **The value at the start.** The changes in percent give back where each run began. A fresh $W$
# knows nothing of $M$, so the two are almost orthogonal and NC3 starts at $\sqrt2$. And PyTorch
# draws the weights of a linear layer with variance $1/(3p)$, so $\mathrm{NC0}^2$ starts at $K/3$ on
# average, for any width.

# %%
start = at_end / (1 + change / 100)
expected = {"NC0": math.sqrt(K_paper / 3), "NC3": math.sqrt(2)}
start.loc["expected"] = expected
show(start)

# %% tags=["hide-input"]
fresh = (
    2 * torch.rand(300, K_paper, p_paper, generator=random) - 1
) / math.sqrt(p_paper)
fresh_nc0 = metrics.nc0(fresh)
low, high = start["NC3"].drop("expected").agg(["min", "max"])
display(
    Markdown(
        f"All six runs began at NC3 between {low:.2f} and {high:.2f}: √2, without a factor. The "
        f"NC0 that the three known changes give back agree with {len(fresh)} fresh layers of ours, "
        f"{fresh_nc0.mean():.2f} ± {fresh_nc0.std():.2f} (mean ± standard deviation): it is neither "
        f"squared nor divided."
    )
)

# %% [markdown]
# So the unscaled values are the default here, as in the tables. `scale="text"` divides as the
# formulas do, with $K$ for the undefined $n$:

# %%
H, labels, W, _ = shifted
scaled = {
    scale: metrics.nc_metrics(H, labels, W, scale=scale)
    for scale in metrics.SCALES
}
differ = ["NC0", "NC2W", "NC2M", "NC3"]
table = pd.DataFrame(scaled).rename(index=NAMES).loc[differ]
show(table, "{:.3f}", corner="W shifted")

# %% [markdown]
# ## About which mean
#
# The paper's text defines $\Sigma_W$ with $\mu_G$ in place of $\mu_{y_n}$. That is the *total*
# scatter. With $T_n = h_n - \mu_G$ and $N_k$ samples in class $k$,
#
# $$ \frac1N T^\top T = \Sigma_W + \sum_k \frac{N_k}{N} M_k^\top M_k, $$ (total)
#
# since $T_n = R_n + M_{y_n}$ and the rows of $R$ sum to zero in each class. What does the second
# part do to {eq}`nc1`?
#
# $$ \tfrac1K \operatorname{Tr}(M_k^\top M_k \Sigma_B^\dagger) = \lVert M_k M^\dagger\rVert^2
# = (M M^\dagger)_{kk}. $$ (leverage)
#
# If $M$ has rank $K-1$, then $M M^\dagger$ projects on the vectors orthogonal to $\mathbf{1}$, and
# its diagonal is $1 - 1/K$. Therefore
#
# $$ \mathrm{NC1}_\text{text} = \mathrm{NC1} + \frac{K-1}{K} $$ (nc1text)
#
# whatever the scatter and the sizes of the classes. It does not vanish at collapse.


# %%
def nc1_of_the_text(toy: Toy) -> float:
    """Equation (nc1) with the scatter (total) for Σ_W."""
    T, M = toy.H - means(toy).mean(0), centred(toy)
    total, between = T.T @ T / len(T), M.T @ M / K
    return (total @ torch.linalg.pinv(between)).trace().item() / K


spreads = torch.logspace(0, -2, 21).tolist()
noise = centred_noise()
clouds_H = [TRIANGLE[LABELS] + spread * noise for spread in spreads]
equal = [collapsed._replace(H=H) for H in clouds_H]
unequal = [Toy(H[40:], LABELS[40:], TRIANGLE, H) for H in clouds_H]
excess = [nc1_of_the_text(toy) - nc1(toy) for toy in equal + unequal]

# %% tags=["hide-input"]
figure, axis = plt.subplots(figsize=(7.4, 3.6), layout="constrained")
text_values, values = (
    [f(toy) for toy in equal] for f in (nc1_of_the_text, nc1)
)
axis.plot(
    spreads, text_values, "--", color="#D55E00", label=r"about $\mu_G$ (text)"
)
axis.plot(spreads, values, color="#0072B2", label=r"about $\mu_k$")
axis.axhline(1 - 1 / K, color="#555555", lw=1, ls=":", label="$(K-1)/K$")
axis.set(
    xscale="log",
    yscale="log",
    xlabel="spread of the clouds (distance of the means: √3)",
)
axis.set_ylabel("NC1")
axis.invert_xaxis()
figure.legend(loc="outside right center")
plt.show()


offset = 1 - 1 / K
error = max(abs(value - offset) for value in excess)
display(
    Markdown(
        f"Over {len(equal)} toys with equal and {len(unequal)} with unequal classes the difference "
        f"is (K − 1)/K = {offset:.3f}, to within {error:.0e}. For ten classes the text's NC1 could "
        f"not fall below {1 - 1 / K_paper:.1f}, and Table 1 prints 0.04 for Adam. So the tables, "
        "too, were made with the class means."
    )
)

# %% [markdown]
# ## Two small choices
#
# **The standard deviation** in NC2n divides by $K - 1$ or by $K$; the formula does not say. This
# package divides by $K - 1$, PyTorch's default. The other choice is smaller by the same factor
# $\sqrt{1 - 1/K}$ for every network, so no comparison depends on it.

# %%
norms = centred(uneven).norm(dim=1)
choices = {
    "by K − 1": norms.std(correction=1) / norms.mean(),
    "by K": norms.std(correction=0) / norms.mean(),
}
choices["ratio"] = choices["by K"] / choices["by K − 1"]
choices["√(1 − 1/K)"] = math.sqrt(1 - 1 / K)
table = pd.DataFrame(choices, index=["NC2n"]).astype(float)
show(table, "{:.4f}", corner="uneven means")

# %% [markdown]
# **The bias** is missing in the paper's eq. 11, though the networks have one. At perfect collapse,
# $W = aM$ with $a > 0$ and means of equal length, $\lVert h - \mu_k\rVert$ is least where
# $M_k \cdot (h - \mu_G)$ is largest, that is, at
#
# $$ \arg\max_k\, (W h - W\mu_G)_k. $$ (bias)
#
# So the two classifiers agree with the bias $b = -W\mu_G$, and without one only if all entries of
# $W\mu_G$ are equal. The toy with moved features is the example. `nc_metrics` counts a bias if it
# is given one.

# %%
moved = TOYS["features moved"]
bias = -moved.W @ means(moved).mean(0)  # equation (bias)
for name, b in {"without a bias": None, "with it": bias}.items():
    mu = means(moved)
    agree = metrics.nearest_mean_agreement(moved.test_H, moved.W, mu, b)
    display(Markdown(f"Features moved, {name}: NC4 = {agree:.2f}."))

# %% [markdown]
# ## On real features
#
# The simplest layer of all: the pixels of handwritten digits as features, and least squares as
# weight. Nothing was trained here that could collapse.

# %%
torch.set_default_dtype(torch.float32)  # as networks train
digits = data.load("digits")
pixels = digits.train_x.flatten(1).double()
test_pixels = digits.test_x.flatten(1).double()
targets = torch.nn.functional.one_hot(digits.train_y).double()
weight = (torch.linalg.pinv(pixels) @ targets).T
y = digits.train_y
raw = metrics.nc_metrics(pixels, y, weight, None, test_pixels)

# %% [markdown]
# Now a network, three hidden layers with batch norm, trained by SGD for thirty epochs: once without
# weight decay and once with. `train_members` trains both together and measures them on the way.

# %%
settings = dict(optimizer="sgd", lr=0.0679, momentum=0.9, epochs=30)
configs = [
    train.RunConfig(weight_decay=decay, **settings) for decay in (0.0, 0.05)
]
(free, decayed), _ = train.train_members(configs, digits, compiled=False)

# %% tags=["hide-input"]
columns = {
    "pixels, least squares": raw,
    "network, start": {key: free[f"{key}_init"] for key in metrics.KEYS},
    "trained, no decay": free,
    "trained, decay 0.05": decayed,
}
real = pd.DataFrame(
    {
        name: {key: row[key] for key in metrics.KEYS}
        for name, row in columns.items()
    }
)
display(show(real.rename(index=NAMES), "{:.3f}"))


moved_by = abs(free["nc0"] / free["nc0_init"] - 1)
display(
    Markdown(
        f"Both networks fit all training samples ({free['train_acc']:.0%} and "
        f"{decayed['train_acc']:.0%}), and NC4 cannot tell them apart ({free['nc4']:.3f} and "
        f"{decayed['nc4']:.3f}). NC0 can. Without decay it ends where it began, to within "
        f"{moved_by:.0e} of its value: the loss does not pull on it. With decay it falls to "
        f"{decayed['nc0'] / decayed['nc0_init']:.1%} of its start, and NC3 from "
        f"{decayed['nc3_init']:.2f} to {decayed['nc3']:.2f}."
    )
)

# %% [markdown]
# **When the features do not fit memory**, `StreamingNCMetrics` takes them in batches, twice: first
# for the class means, then for the scatter about them.

# %%
stream = metrics.StreamingNCMetrics(weight)
for _ in range(2):
    for batch in torch.arange(len(pixels)).split(100):
        stream.update(pixels[batch], y[batch])
    stream.next_pass()
streamed = stream.compute()
gap = max(abs(value / raw[key] - 1) for key, value in streamed.items())
display(Markdown(f"Largest relative difference from one call: {gap:.0e}."))

# %% [markdown]
# ## The same metrics in other libraries
#
# Two public libraries measure neural collapse from features:
# [kowalski 0.0.2](https://pypi.org/project/kowalski/0.0.2/) and
# [neural-collapse, commit c05a0b8](https://github.com/rhubarbwu/neural-collapse/tree/c05a0b80d6bc6e8e2e102f2180f1f33b2c9605fd).
# What is equal here agrees to a relative 1e-6, on the features of a trained network, with classes
# of equal and of unequal size (`tests/test_metrics_peers.py`).
#
# | here | kowalski | neural-collapse |
# |---|---|---|
# | NC1 | `within_class_variability`: another quantity, see below | `covariance_ratio`: equal |
# | NC2 | – | `simplex_etf_error` of $M$: equal |
# | NC2n | – | `mean_norms`: equal, after std/mean |
# | NC2a | – | `kernel_stats`: of distances, not of cosines |
# | NC2W | `classifier_etf_convergence`: equal | `simplex_etf_error` of $W$: equal |
# | NC2M | `self_duality`: equal, with this book's $\mu_G$ | `self_duality_error`: equal |
# | NC3 | – | `distance_norms`: each row scaled alone |
# | NC4 | – | `clf_ncc_agreement`: equal, without a bias |
# | quotient | – | `covariance_ratio`, `"quotient"`: equal |
# | CDNV | `class_distance_normalized_variance`: equal | `variability_cdnv`: equal |
# | effective rank | `rankme`: not centred, 1e-6 added to each share | – |
#
# NC0 and the metrics without the gauge are in neither. The effective rank is one of a layer
# (`ncbook.measure`): $\exp(-\sum_i q_i \log q_i)$, with $q_i$ the shares of the singular values of
# the centred features in their sum. Three differences can mislead:
#
# - **NC3 has two meanings.** What both libraries call self-duality (`nc3_dual_err` in the README of
#   the second) compares $W M^\top$ with the simplex, as Zhu et al. {cite}`zhu2021` do. That is NC2M
#   here. NC3 here compares $W$ with $M$, as Papyan et al. {cite}`papyan2020` do.
# - **kowalski's NC1 depends on the number of samples.** It cites Zhu et al., whose code has the
#   $\Sigma_B$ of this book. But kowalski's sums the scatter of all samples about their mean, and
#   divides by $K$. So it returns $\operatorname{Tr}(\Sigma_W \Sigma_T^\dagger)/N$, with $\Sigma_T$
#   the total scatter, as in {eq}`total`. Count each sample twice, and it halves.
# - **The global mean.** By default kowalski centres by the mean of all samples, as the
#   [code of Zhu et al.](https://github.com/tding1/Neural-Collapse) does; this book and
#   neural-collapse by the mean of the class means. If classes differ in size, so do the results.

# %% [markdown]
# ## What was shown
#
# - Collapse is five properties, and a network can have some without the others. NC1 to NC3
#   describe the features, their means and the weight. NC4 says little about them: it was one for a
#   network that had not collapsed.
# - NC0 is invisible to the loss, and plain gradients do not move it. Weight decay does, and so do
#   optimizers that rescale the gradient entry by entry.
# - Softmax does not see a shift that all rows of $W$ share. NC3 splits exactly into the share of that gauge
#   and the NC3 of the centred $W$.
# - $r^2 + c^2 \le 1$: NC3 → 0 alone forces $\mathrm{NC0}/\lVert W\rVert_F$ → 0, and NC0 with
#   $\lVert W\rVert_F$ gives the least NC3 possible. NC0 → 0 does not imply collapse.
# - The paper's tables are unscaled and centre $\Sigma_W$ by class means, whatever its formulas say.
#   The numbers in this book do the same.
