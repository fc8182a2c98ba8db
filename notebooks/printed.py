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
# # The printed numbers
#
# **Question.** The paper's formulas for NC0 to NC3 {cite}`optimizer2026` carry factors and a mean of their own.
# Were its tables made with them, and are the same names the same numbers elsewhere?
#
# **Answer.** No. Table 1 has NC3 up to 1.40 and NC2 up to 1.15, where the formulas allow 0.0004 and 0.012 at
# most, and NC1 down to 0.04, where they allow no less than 0.9. Without the factors, and about the class means,
# every value fits; so this book measures. Two public libraries mostly agree with it, but “self-duality” has two
# meanings.

# %%
import math

import pandas as pd
import torch
from matplotlib import pyplot as plt

from ncbook import data, figures, metrics

figures.start_chapter()
torch.set_default_dtype(torch.float64)
random = torch.Generator().manual_seed(0)

K, P = 10, 512  # Table 1: ResNet9 on Fashion-MNIST
OPTIMIZERS = ("sgd", "sgdw", "adam", "adamw", "signum", "signumw")
AT_END = {
    "NC0": (2.14e-04, 0.55, 0.34, 5.33, 0.78, 3185.69),
    "NC1": (0.05, 0.26, 0.04, 0.20, 0.13, 0.30),
    "NC2": (0.29, 0.46, 0.29, 0.54, 0.50, 1.15),
    "NC3": (0.35, 0.80, 0.29, 0.78, 0.58, 1.40),
}
CHANGE = {  # since the start, in percent, where a number is given
    "NC0": (None, -68.9, -80.6, None, -55.3, None),
    "NC3": (-75.1, -43.5, -79.5, -45.2, -59.0, -1.2),
}
at_end = pd.DataFrame(AT_END, OPTIMIZERS)
change = pd.DataFrame(CHANGE, OPTIMIZERS)
MOST = {"NC2": math.sqrt(2 - 2 / math.sqrt(K - 1)), "NC3": 2.0}  # (ceiling)
FACTORS = {"NC2": 1 / K**2, "NC3": 1 / (K * P)}

# %% tags=["hide-input"]
FROM, TO = 1e-4, 4
ranges = {
    "as the text has it": ("#CC79A7", [(1 - 1 / K, TO)]),
    "without factors, about class means": ("#aaaaaa", [(FROM, TO)]),
}
for name, most in MOST.items():
    ranges["as the text has it"][1].append((FROM, most * FACTORS[name]))
    ranges["without factors, about class means"][1].append((FROM, most))
figure, axis = plt.subplots(figsize=(5, 4.4), layout="constrained")
for shift, (label, (colour, spans)) in zip(
    (0.2, -0.2), ranges.items(), strict=True
):
    for row, (low, high) in enumerate(spans):
        look = dict(
            color=colour, alpha=0.5, lw=0, label=label if row == 0 else None
        )
        axis.barh(row + shift, high - low, 0.3, low, **look)
for name in OPTIMIZERS:
    look = dict(color=figures.COLOURS[name], ls="", ms=6, mec="black", mew=0.5)
    values = at_end.loc[name, ["NC1", "NC2", "NC3"]]
    axis.plot(values, range(3), "o", **look, label=figures.LABELS[name])
axis.set(xscale="log", xlim=(FROM, TO), xlabel="value", ylim=(2.6, -0.6))
axis.set_yticks(range(3), ["NC1", "NC2", "NC3"])
figure.legend(loc="outside lower center", ncols=2)
figure.set_label(
    "NC1, NC2 and NC3 of the paper's Table 1 for six optimizers, as dots, and bars of what "
    "is possible. No dot is in a bar of the text's formulas, every dot in one without factors."
)
plt.show()

# %% [markdown]
# *The paper's Table 1, six optimizers. Bars: which values are possible for ten classes, as the formulas of the
# text have it (width 512), and without their factors.*
#
# **What you will learn**
#
# - how to tell from a printed number which formula made it;
# - what a scatter about the wrong mean adds to NC1: one constant, whatever the network;
# - where the paper's proof of its Proposition 2.1 slips, and that this does no harm but at its end;
# - what two public libraries call these metrics, and what they mean by them.
#
# {doc}`metrics` has the metrics themselves.
#
# ## Which scale the tables use
#
# As printed, the formulas carry $1/K^2$ in NC2, NC2W and NC2M, $1/(Kp)$ in NC3, and in NC0 $1/n$, with an $n$ that
# is not defined.
#
# **The largest value possible.** NC3 is a distance of two vectors of length one: at most 2. For NC2,
# $\langle M M^\top, M^*\rangle = \operatorname{Tr}(M M^\top)/\sqrt{K-1} \ge \lVert M M^\top\rVert_F / \sqrt{K-1}$,
# so
#
# $$ \mathrm{NC2} \le \sqrt{2 - \frac{2}{\sqrt{K-1}}}, $$ (ceiling)
#
# reached where all class means lie on one line. The factors shrink these ceilings. (At any width $p$ the text's NC3 is
# at most $2/K$.) Table 1 exceeds them by far, and its largest NC2, SignumW's, equals the ceiling without
# the factor: the class means of that network lie almost on one line.

# %%
M = metrics.centred_means(torch.randn(K, 1, generator=random))  # on a line
assert math.isclose(metrics.etf_distance(M @ M.T), MOST["NC2"])
ceilings = pd.DataFrame({"possible": MOST})
ceilings["with the factor"] = ceilings["possible"] * pd.Series(FACTORS)
ceilings["in Table 1"] = at_end.max()
figures.shown(ceilings.rename_axis("at most"))

# %% [markdown]
# **The value at the start.** The changes in percent give back where each run began. A fresh $W$ knows nothing of
# $M$, so the two are almost orthogonal and NC3 starts at $\sqrt2$. And PyTorch draws the weights of a linear
# layer with variance $1/(3p)$, so $\mathrm{NC0}^2$ starts at $K/3$ on average, for any width.

# %%
start = at_end[list(CHANGE)] / (1 + change / 100)
fresh = (2 * torch.rand(300, K, P, generator=random) - 1) / math.sqrt(P)
fresh = metrics.nc0(fresh)  # of 300 layers
assert abs(fresh.mean() - math.sqrt(K / 3)) < 0.02

# %% tags=["hide-input"]
table = start.rename(figures.LABELS)
table.loc["expected"] = {"NC0": math.sqrt(K / 3), "NC3": math.sqrt(2)}
figures.shown(table, NC0="{:.2f}", NC3="{:.2f}")

# %% [markdown]
# All six runs began at NC3 between 1.41 and 1.42: $\sqrt2$, without a factor. The three known changes give back an
# NC0 of 1.74 to 1.77, where 300 fresh layers of ours have 1.82 ± 0.05: it is neither squared nor divided. So the
# unscaled values are the default here. `nc_metrics(…, scale="text")` divides as the formulas do, with $K$ for the
# undefined $n$.
#
# ## About which mean
#
# The paper's text defines $\Sigma_W$ with $\mu_G$ in place of $\mu_{y_n}$: a misprint, since the limit that it prints
# below has the class means. Taken literally it is the *total* scatter. With
# $T_n = h_n - \mu_G$, $R_n = h_n - \mu_{y_n}$ and $N_k$ samples in class $k$,
#
# $$ \frac1N T^\top T = \Sigma_W + \sum_k \frac{N_k}{N} M_k^\top M_k, $$ (total)
#
# since $T_n = R_n + M_{y_n}$ and the rows of $R$ sum to zero in each class. What does the second part do to
# {eq}`nc1`?
#
# $$ \tfrac1K \operatorname{Tr}(M_k^\top M_k \Sigma_B^\dagger) = \lVert M_k M^\dagger\rVert^2
# = (M M^\dagger)_{kk}. $$ (leverage)
#
# If $M$ has rank $K-1$, then $M M^\dagger$ projects on the vectors orthogonal to $\mathbf{1}$, and its diagonal
# is $1 - 1/K$. Therefore
#
# $$ \mathrm{NC1}_\text{text} = \mathrm{NC1} + \frac{K-1}{K} $$ (nc1text)
#
# whatever the scatter and the sizes of the classes. It does not vanish at collapse: for ten classes it cannot fall
# below 0.9, and Table 1 prints 0.04 for Adam. On the pixels of the handwritten digits, whose classes differ in size:

# %%
digits = data.load("digits")
H, y = digits.train_x.flatten(1).double()[:1000], digits.train_y[:1000]
assert len(set(y.bincount().tolist())) > 1
mu = metrics.class_means(H, y, K)
T, M = H - mu.mean(0), metrics.centred_means(mu)
total, between = T.T @ T / len(T), M.T @ M / K
nc1_text = (total @ torch.linalg.pinv(between, hermitian=True)).trace() / K
nc1 = metrics.nc1(H, y, mu)
assert math.isclose(nc1_text - nc1, (K - 1) / K, rel_tol=1e-9)  # (nc1text)
print(f"NC1 {nc1:.3f}, about the global mean {nc1_text:.3f}")

# %% [markdown]
# ## The paper's own proof
#
# The paper's proof of Proposition 2.1 goes through NC2W. With its factors written out: NC2 says that
# $M M^\top / \lVert M M^\top\rVert_F \to M^*$. Divide by the traces, $\lVert M\rVert_F^2 / \lVert M
# M^\top\rVert_F \to \operatorname{Tr} M^* = \sqrt{K-1}$:
#
# $$ \frac{M M^\top}{\lVert M\rVert_F^2} \to \frac{M^*}{\sqrt{K-1}} = (M^*)^2. $$ (square)
#
# By NC3 the difference of $W/\lVert W\rVert_F$ and $M/\lVert M\rVert_F$ tends to zero, so $W W^\top / \lVert
# W\rVert_F^2$ has the same limit. As $M^*\mathbf{1} = 0$,
#
# $$ \frac{\mathrm{NC0}^2}{\lVert W\rVert_F^2} = \frac{\mathbf{1}^\top W W^\top \mathbf{1}}{\lVert
# W\rVert_F^2} \to \frac{\mathbf{1}^\top M^* \mathbf{1}}{\sqrt{K-1}} = 0. $$ (route)
#
# The printed proof takes $(M^*)^2$ for $M^*$, which is right for two classes only (exercise 2). This does no harm, for
# the factor multiplies a zero. (Nor does the norm of $M^\top M$ that is printed where that of $M$ belongs.) But it
# ends with NC0 → 0, where the argument gives $\mathrm{NC0}/\lVert W\rVert_F$ → 0. The difference matters where
# weights grow without bound, as they may without weight decay: there NC0 can diverge while the network collapses
# ({doc}`metrics`, exercise 2). What rules out collapse is an $\mathrm{NC0}/\lVert W\rVert_F$ that stays away from zero.
#
# ## The same metrics in other libraries
#
# Two public libraries measure neural collapse from features:
# [kowalski 0.0.2](https://pypi.org/project/kowalski/0.0.2/) and
# [neural-collapse, commit c05a0b8](https://github.com/rhubarbwu/neural-collapse/tree/c05a0b80d6bc6e8e2e102f2180f1f33b2c9605fd).
# What is equal here agrees to a relative 1e-6, on the features of a trained network, with classes of equal and of
# unequal size (`tests/test_metrics_peers.py`).
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
#
# ## What was shown, and where it holds
#
# | statement | status | where it holds, and where not |
# |---|---|---|
# | Table 1 is unscaled and about class means | computed from printed digits | Table 1, six optimizers. No code or run of the paper's enters; its width of 512 only into NC3's ceiling |
# | the text's NC1 is larger by $(K-1)/K$ | proved | class means of rank $K-1$; any sizes of the classes |
# | the proof of Proposition 2.1 stands, for $\mathrm{NC0}/\lVert W\rVert_F$ | proved | not for NC0 where $\lVert W\rVert_F$ is unbounded |
# | the libraries agree as the table says | computed | the two versions named, float64; not others |
#
# ## Exercises
#
# **1.** The formula of NC2n does not say whether its standard deviation divides by $K$ or by $K-1$. Does any comparison
# depend on it?

# %% tags=["hide-input"]
# No: the two differ by one factor for all networks. Here it is K - 1, as in PyTorch.
norms = metrics.centred_means(mu).norm(dim=1)
by_K, by_less = (norms.std(correction=c) / norms.mean() for c in (0, 1))
assert math.isclose(by_K / by_less, math.sqrt(1 - 1 / K))
assert math.isclose(by_less, metrics.row_norm_spread(metrics.centred_means(mu)))
print(f"{by_K:.4f} or {by_less:.4f}, a factor of {by_K / by_less:.4f}")

# %% [markdown]
# **2.** For which $K$ is $(M^*)^2 = M^*$?

# %% tags=["hide-input"]
# M* is a projection over √(K − 1), so (M*)² = M*/√(K − 1): for K = 2 only.
factors = {classes: 1 / math.sqrt(classes - 1) for classes in (2, 3, 10)}
for classes, factor in factors.items():
    etf = metrics.simplex_etf(classes)
    assert torch.allclose(etf @ etf, factor * etf)  # (square)
print(", ".join(f"K = {k}: (M*)² = {f:.3f} M*" for k, f in factors.items()))

# %% [markdown]
# **3.** Somebody reports NC3 = 1.9 for $K = 10$ and $p = 128$. Was it divided by $Kp$? And what does it say of
# $W$?

# %% tags=["hide-input"]
# Not divided, since 2/(Kp) is the most then. Undivided it says that W points
# away from M, at more than 140 degrees.
cosine = 1 - 1.9**2 / 2
assert 1.9 > 2 / (10 * 128)
assert cosine < math.cos(math.radians(140))
print(
    f"cos(W, M) = {cosine:.2f}, {math.degrees(math.acos(cosine)):.0f} degrees"
)
