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
# # Unconstrained features: where collapse is a theorem
#
# A deep network can map its training samples almost anywhere. So forget the network, and let the
# last-layer features be free variables. What is left is small enough for proofs, and still
# collapses. The paper {cite}`optimizer2026` leans on this model in its theory, and sweeps it in its
# Appendix D.4.2. This chapter takes it apart.
#
# **What you will learn**
#
# - why, with weight decay, every critical point is either a collapsed global minimum or a saddle
#   with a way down: a complete proof in one page, and the two conditions that the paper's summary
#   of it leaves out;
# - the closed form of the collapsed state, and the weight decay beyond which it is gone;
# - Mixon's model {cite}`mixon2022` with squared loss: its invariant subspace, the flow on it solved
#   exactly, and its two figures re-made, with the powers of ε that they hide;
# - what Adam, AdamW and SGD do on the model, beside what the closed form says they should do.

# %%
import numpy as np
import pandas as pd
import sympy as sp
from IPython.display import Markdown, display
from matplotlib import pyplot as plt
from numpy.testing import assert_allclose
from scipy.integrate import solve_ivp
from scipy.optimize import root

from ncbook import figures, store, sweep, theory
from ncbook.pages import claims

figures.start_chapter()

# %% [markdown]
# ## The model
#
# There are $K$ classes with $n$ samples each, $N = Kn$ in all. The features $H$, one row a sample,
# shape $(N, p)$, are as free as the weight $W$, shape $(K, p)$. There is no bias. Training minimises
# the paper's equation 13, with $\ell$ the cross-entropy:
#
# $$ f(H, W) = \sum_{i=1}^N \ell(W h_i, y_i) + \frac\lambda2\lVert W\rVert^2
# + \frac\lambda2\lVert H\rVert^2. $$ (ufm-loss)
#
# Let $Y$ hold the one-hot labels, one row a sample, and let $R = \mathrm{softmax}(HW^\top) - Y$ be
# the residuals. The gradient is
#
# $$ \nabla_H f = RW + \lambda H, \qquad \nabla_W f = R^\top H + \lambda W. $$ (ufm-gradient)
#
# Deep-learning software minimises the *mean* of the losses, with some weight decay λ′. That is
# {eq}`ufm-loss` over $N$, with $\lambda = N\lambda'$. We shall need this below.
#
# Here are the functions that the rest of this section uses. `theory.ufm_gradient` and
# `theory.ufm_hessian` are tested against central differences
# (`test_ufm_gradient_and_hessian_against_differences`).

# %%
K, n, p, DECAY = 4, 2, 4, 0.3
Y = np.kron(np.eye(K), np.ones((n, 1)))  # samples sorted by class


def residuals(H, W):
    """R = softmax(H Wᵀ) − Y, shape (N, K)."""
    scores = np.exp(H @ W.T)
    return scores / scores.sum(axis=1, keepdims=True) - Y


rng = np.random.default_rng(0)
H, W = rng.standard_normal((K * n, p)), rng.standard_normal((K, p))
R, slopes = residuals(H, W), theory.ufm_gradient(H, W, DECAY)
assert_allclose(slopes[0], R @ W + DECAY * H, atol=1e-14)  # (ufm-gradient)
assert_allclose(slopes[1], R.T @ H + DECAY * W, atol=1e-14)

# %% [markdown]
# ## The statement
#
# **Theorem C.1 of the paper**, after Theorems 3.1 and 3.2 of {cite}`zhu2021`. *Any global optimal
# solution of the model is an NC solution, while all other critical points are strict saddles. As a
# result, for random initialization, it is almost surely that gradient descent finds an NC
# solution.*
#
# A **strict saddle** is a critical point whose Hessian has a negative eigenvalue: there is a
# direction in which the loss falls at second order.
#
# As quoted, without conditions, it is not quite true. Two are needed, and we shall see both at work:
# enough features, $p \ge K$, and **not too much decay, $\lambda < \sqrt n$**. The paper's Appendix E
# also recalls the theorem as "unique global minimum … and no strict saddle points". The minimum is
# unique only up to rotations of feature space, and there are plenty of strict saddles. They are
# just harmless.

# %% [markdown]
# ## Three facts about every critical point
#
# Let both gradients vanish: $RW = -\lambda H$ and $R^\top H = -\lambda W$, with $\lambda > 0$. Then
#
# $$ W^\top\mathbf 1 = 0, \qquad h_i = h_j \text{ if } y_i = y_j, \qquad
# W^\top W = H^\top H. $$ (ufm-facts)
#
# *Proof.* The rows of $R$ sum to zero, so $-\lambda W^\top\mathbf 1 = H^\top R\,\mathbf 1 = 0$. Each
# $h_i$ is a critical point of $\ell(Wh, y_i) + \frac\lambda2\lVert h\rVert^2$, which is strictly
# convex in $h$: there is just one for each class. And
# $-\lambda W^\top W = (W^\top R^\top) H = (RW)^\top H = -\lambda H^\top H$. $\blacksquare$
#
# The first two facts say that **NC0 and NC1 are zero at every critical point**, saddles included.
# (The gradients here are of the full batch.) NC1 = 0 is necessary for collapse, and so is NC0 = 0 where
# $\lVert W\rVert$ is bounded; neither is evidence of it by itself. The first also says that
# $W$ has rank at most $K - 1$. So with $p \ge K$ features there is a unit vector $v$ with $Wv = 0$,
# and then $Hv = 0$ by the third: a direction in feature space that nobody uses yet. Saddles are left
# along it.

# %% [markdown]
# ## Global minimum or strict saddle
#
# **Proposition.** *Let $(H, W)$ be a critical point, and let $\sigma$ be the largest singular value
# of its residuals $R$. If $\sigma \le \lambda$, it is a global minimum. If $\sigma > \lambda$ and
# $p \ge K$, it is a strict saddle. With $p \ge K$, in both cases,*
#
# $$ \text{lowest eigenvalue of the Hessian} \;=\; \lambda - \sigma. $$ (ufm-certificate)
#
# *Proof of the eigenvalue.* Let $a$, $b$ be unit vectors with $Rb = \sigma a$ and $R^\top a = \sigma b$.
# Move along $\Delta H = a v^\top$, $\Delta W = -b v^\top$ with the unused $v$. To first order the
# logits do not change: $\Delta H W^\top + H\Delta W^\top = a(Wv)^\top - (Hv)b^\top = 0$. To second
# order they change by $\Delta H\Delta W^\top = -ab^\top$. So the second derivative of $f$ along this
# direction is $-2\,a^\top R b + \lambda(\lVert\Delta H\rVert^2 + \lVert\Delta W\rVert^2)
# = 2(\lambda - \sigma)$. The direction has squared length 2: the lowest eigenvalue is at most
# $\lambda - \sigma$. Nor is it less. Along any direction the second derivative is a term that is
# never negative, since $\ell$ is convex in the logits, plus
#
# $$ 2\langle R, \Delta H\Delta W^\top\rangle + \lambda\lVert\Delta H\rVert^2
# + \lambda\lVert\Delta W\rVert^2 \ge (\lambda - \sigma)\bigl(\lVert\Delta H\rVert^2
# + \lVert\Delta W\rVert^2\bigr). \qquad\blacksquare $$ (ufm-curvature)
#
# *Proof of the minimum.* Let $g$ be the sum of losses as a function of the logits $Z = HW^\top$. It
# is convex, and $R$ is its gradient. With $\lVert Z\rVert_*$ the sum of the singular values,
#
# $$ f(H, W) \ge g(Z) + \lambda\lVert Z\rVert_*, \qquad\text{since}\quad
# 2\,\lVert HW^\top\rVert_* \le \lVert H\rVert^2 + \lVert W\rVert^2. $$ (ufm-nuclear)
#
# At the critical point $\langle R, Z\rangle = \langle RW, H\rangle = -\lambda\lVert H\rVert^2$, which
# by {eq}`ufm-facts` is $-\frac\lambda2(\lVert H\rVert^2 + \lVert W\rVert^2)$. At any other
# $(H', W')$ with logits $Z'$, convexity and $\langle R, Z'\rangle \ge -\sigma\lVert Z'\rVert_*
# \ge -\lambda\lVert Z'\rVert_*$ give
#
# $$ f(H', W') \ge g(Z) + \langle R, Z' - Z\rangle + \lambda\lVert Z'\rVert_*
# \ge g(Z) - \langle R, Z\rangle = f(H, W). \qquad\blacksquare $$ (ufm-global)
#
# (The original proof also goes through the nuclear norm; it asks for $p > K$. The case $p = K$ was
# settled by {cite}`shen2024`, and the rank argument above covers it as well.)


# %%
def excess(H, W):
    """By how much inequality (ufm-nuclear) holds."""
    return np.sum(H**2) + np.sum(W**2) - 2 * np.linalg.norm(H @ W.T, "nuc")


sigma = np.linalg.norm(R, 2)
for _ in range(100):
    A, B = rng.standard_normal((K * n, p)), rng.standard_normal((K, p))
    assert excess(A, B) > 0
    least = -sigma * (np.sum(A**2) + np.sum(B**2))
    assert 2 * np.sum(R * (A @ B.T)) > least  # (ufm-curvature)

# %% [markdown]
# ## The minimum in closed form
#
# Let $P = I - J/K$, the projection onto vectors that sum to zero ($J$ is all ones). For
# $\lambda < \sqrt n$ the global minima are exactly the states
#
# $$ WW^\top = m\sqrt n\,P, \qquad H = \tfrac1{\sqrt n}\,W\otimes\mathbf 1_n, \qquad
# m = \log\Bigl(\frac{\sqrt n\,K}\lambda - K + 1\Bigr). $$ (ufm-gap)
#
# Each sample sits on its class mean, the means form a simplex and $W$ points along them: NC1, NC2
# and NC3. The number $m > 0$ is the **logit gap**: by how much the true class is ahead of any other.
#
# *Proof.* There $Z = m\,P\otimes\mathbf 1_n$, and the residuals are $-c\,P\otimes\mathbf 1_n$ with
# $c = K/(e^m + K - 1)$. Both gradients vanish if $c\sqrt n = \lambda$, which is {eq}`ufm-gap` for
# $m$. And $\sigma = c\sqrt n = \lambda$: by the proposition this is a global minimum. Conversely,
# where $g(Z) + \lambda\lVert Z\rVert_*$ is smallest, $Z$ is unique: cross-entropy is strictly convex
# but for a constant added to a sample's logits, and $Z\mathbf 1 = HW^\top\mathbf 1 = 0$ rules that
# out. With $Z$ known, {eq}`ufm-facts` gives $Z^\top Z = (WW^\top)^2$, hence $WW^\top$; and $H$
# follows from $Z = HW^\top$, since $H$ and $W$ use the same features. $\blacksquare$

# %%
H, W = theory.ufm_optimum(K, n, p, DECAY)
m = np.log(np.sqrt(n) * K / DECAY - K + 1)
P = theory.centring(K)
assert_allclose(W @ W.T, m * np.sqrt(n) * P, atol=1e-14)  # (ufm-gap)
assert_allclose(H, np.repeat(W, n, axis=0) / np.sqrt(n), atol=1e-14)
assert np.abs(np.vstack(theory.ufm_gradient(H, W, DECAY))).max() < 1e-14
assert_allclose(np.linalg.norm(residuals(H, W), 2), DECAY)  # σ = λ
assert_allclose(excess(H, W), 0, atol=1e-13)

# %% [markdown]
# A rotation of feature space changes nothing:

# %%
rotation = np.linalg.qr(rng.standard_normal((p, p)))[0]
lowest = theory.ufm_loss(H, W, DECAY)
assert_allclose(theory.ufm_loss(H @ rotation, W @ rotation, DECAY), lowest)

# %% [markdown]
# (`test_ufm_optimum_is_a_collapsed_global_minimum` does this over K, n, p and λ, and lets a
# general-purpose minimiser look for anything lower.)

# %% [markdown]
# ## The check: hunting for critical points
#
# A theorem about *all* critical points should be tried on many. A critical point that uses only
# $r$ features remains one when unused features are added. So we solve $\nabla f = 0$ with
# $r = 1, 2, 3$ features, from many starts, and look at each solution in the full space.


# %%
def solve(width, rng):
    """A zero of the gradient with `width` features, padded to p of them."""

    def parts(x):
        H, W = np.split(x.reshape(-1, width), [K * n])
        return H, W, DECAY

    A = 2 * rng.standard_normal((K, width))
    noisy = np.repeat(A, n, axis=0) + 0.1 * rng.standard_normal((K * n, width))
    x = root(
        lambda x: np.vstack(theory.ufm_gradient(*parts(x))).ravel(),
        np.vstack([noisy, A]).ravel(),  # starts from noisy clusters
        jac=lambda x: theory.ufm_hessian(*parts(x)),
        method="lm",
    ).x
    return [np.pad(part, ((0, 0), (0, p - width))) for part in parts(x)[:2]]


# %% [markdown]
# For each we ask what the facts and the proposition speak of, and for the NC2 of its class means.


# %%
def simplex_error(M):
    """NC2 = ‖M Mᵀ/‖M Mᵀ‖ − S_ETF‖; undefined where all means coincide."""
    G = M @ M.T
    size = np.linalg.norm(G)
    away = np.linalg.norm(G / max(size, 1e-9) - theory.simplex_etf(K))
    return away if size > 1e-9 else np.nan


def spectrum(H, W):
    """λ − σ, and the lowest eigenvalue of the Hessian."""
    eigenvalues = np.linalg.eigvalsh(theory.ufm_hessian(H, W, DECAY))
    return DECAY - np.linalg.norm(residuals(H, W), 2), eigenvalues[0]


# %%
def describe(H, W):
    assert np.abs(np.vstack(theory.ufm_gradient(H, W, DECAY))).max() < 1e-9
    assert_allclose(W.T @ W, H.T @ H, atol=1e-8)  # (ufm-facts)
    means = H.reshape(K, n, p).mean(axis=1)
    certificate, eigenvalue = spectrum(H, W)
    return {
        "loss": round(theory.ufm_loss(H, W, DECAY), 4),
        "rank of W": np.linalg.matrix_rank(W, tol=1e-4),
        "NC0": np.linalg.norm(W.sum(axis=0)),
        "spread in classes": np.ptp(H.reshape(K, n, p), axis=1).max(),
        "NC2": simplex_error(means - means.mean(axis=0)),
        "λ − σ": certificate,
        "lowest eigenvalue": eigenvalue,
    }


# %%
rng = np.random.default_rng(0)
points = [solve(width, rng) for width in (1, 2, 3) for _ in range(60)]
points.append(theory.ufm_optimum(K, n, p, DECAY))
found = pd.DataFrame([describe(H, W) for H, W in points])

assert found[["NC0", "spread in classes"]].max().max() < 1e-8  # (ufm-facts)
eigenvalue = found["lowest eigenvalue"]
assert_allclose(eigenvalue, found["λ − σ"], atol=1e-9)  # (ufm-certificate)
saddle = found["loss"] > round(lowest, 4)
assert (eigenvalue[saddle] < -0.1).all()
assert (eigenvalue[~saddle] > -1e-12).all()

# %% tags=["hide-input"]
kinds = found.groupby("loss").first()
kinds.insert(0, "found", found.groupby("loss").size())
kinds = kinds.round(8) + 0.0  # no "−0.0000"
formats = dict.fromkeys(kinds, "{:.3f}") | {"found": "{:.0f}"}
formats |= {
    "rank of W": "{:.0f}",
    "NC0": "{:.0f}",
    "spread in classes": "{:.0f}",
}
short = {"spread in classes": "spread", "lowest eigenvalue": "Hessian: lowest"}  # fmt: skip
formats = {short.get(name, name): text for name, text in formats.items()}
figures.shown(kinds.rename(columns=short), **formats)

# %% tags=["hide-input"]
display(
    Markdown(
        f"With K = {K}, n = {n}, p = {p} and λ = {DECAY:g}, the {len(found)} solutions (the closed "
        f"form among them) are of {len(kinds)} kinds. The first row is the closed form: no "
        f"eigenvalue is negative. All {len(kinds) - 1} others are strict saddles, down to the last, "
        f"H = W = 0. NC0 and the spread within classes are zero throughout, to rounding; NC2 is zero at the "
        f"minimum alone. The last two columns, λ − σ and the Hessian's lowest eigenvalue, agree, as "
        f"the proposition says."
    )
)

# %% [markdown]
# Are the saddles really harmless? Plain gradient descent from random starts should end at the
# minimum each time. (That it does so almost surely is a general fact about small steps and strict
# saddles {cite}`lee2016`. It is a fact about *gradient descent*: about Adam the theorem says
# nothing, and under decoupled decay $f$ is not even what is minimised.)


# %%
def descend(H, W, lr=0.2, steps=1500):
    for _ in range(steps):
        slope_H, slope_W = theory.ufm_gradient(H, W, DECAY)
        H, W = H - lr * slope_H, W - lr * slope_W
    return theory.ufm_loss(H, W, DECAY)


shapes = (K * n, p), (K, p)
ends = [descend(*map(rng.standard_normal, shapes)) for _ in range(20)]
assert_allclose(ends, lowest, rtol=1e-12)

# %% tags=["hide-input"]
display(Markdown(f"All {len(ends)} do."))

# %% [markdown]
# ## Where collapse stops being the best
#
# Look at zero. There every softmax is $1/K$, so $R = -P\otimes\mathbf 1_n$ and $\sigma = \sqrt n$. By
# {eq}`ufm-certificate`,
#
# $$ \text{lowest Hessian eigenvalue at } 0 \;=\; \lambda - \sqrt n. $$ (ufm-zero)
#
# While $\lambda < \sqrt n$, zero is a strict saddle. As λ grows to $\sqrt n$ the gap
# {eq}`ufm-gap` shrinks to zero. From there on zero meets $\sigma \le \lambda$: it is *the* global
# minimum, and no neural collapse at all. Theorem C.1 needs this condition, and we shall see it
# decide real runs. (`test_zero_is_a_strict_saddle_up_to_root_n_and_the_minimum_beyond`.)

# %%
zero = np.zeros((K * n, p)), np.zeros((K, p))
lams = np.sqrt(n) * np.linspace(0.02, 1.3, 65)
floors = [np.linalg.eigvalsh(theory.ufm_hessian(*zero, lam))[0] for lam in lams]
assert_allclose(floors, lams - np.sqrt(n), atol=1e-12)  # (ufm-zero)

optima = [theory.ufm_optimum(K, n, p, lam) for lam in lams]
gaps = [(H[0] @ W.T)[0] - (H[0] @ W.T)[1] for H, W in optima]

# %% tags=["hide-input"]
shares = lams / np.sqrt(n)
left, right = figures.small_panels(2, 3.6)
left.plot(shares, gaps, color="#0072B2")
left.set(ylabel="logit gap $m$ of the minimum", title="Collapse shrinks …")
right.axhline(0, color="#888888", lw=0.8)
right.plot(shares, floors, color="#D55E00")
right.set(
    ylabel="lowest Hessian eigenvalue at 0",
    title="… until zero is no saddle any more",
)
for axis in (left, right):
    axis.axvline(1, color="#555555", lw=1, ls=":")
    axis.set_xlabel("weight decay $\\lambda/\\sqrt{n}$")
figures.in_rows(left, right)

# %% [markdown]
# ## A second model: squared loss and a bias
#
# Mixon, Parshall and Pi {cite}`mixon2022` study another version: least squares, a
# bias $b$, and *no* weight decay,
#
# $$ R_e(H, W, b) = \tfrac12\,\bigl\lVert HW^\top + \mathbf 1_N b^\top
# - I_K\otimes\mathbf 1_n\bigr\rVert^2 . $$ (ufm-mixon)
#
# (They write $H$ with one column a sample, $C$ for our $K$ and $N$ for our $n$;
# `test_mixon_risk_is_the_papers_in_its_own_shapes`.) With $E$ the matrix inside the norm, gradient
# flow is
#
# $$ \dot H = -EW, \qquad \dot W = -E^\top H, \qquad \dot b = -E^\top\mathbf 1 . $$ (ufm-flow)
#
# **Strong neural collapse** is the state
#
# $$ WW^\top = \sqrt n\,P, \qquad H = \tfrac1{\sqrt n}\,W\otimes\mathbf 1_n, \qquad
# b = \tfrac1K\mathbf 1_K . $$ (ufm-strong)
#
# Its risk is zero, so it is a global minimum. But it is one of very many: without weight decay any
# $H$, $W$, $b$ that fit the labels will do, collapsed or not. If gradient descent picks this one,
# the path must be the reason.

# %%
K, n, p = 3, 3, 15  # Mixon's own setting
P, Y = theory.centring(K), np.kron(np.eye(K), np.ones((n, 1)))
H, W, b = strong = theory.mixon_collapse(K, n, p)
assert_allclose(W @ W.T, np.sqrt(n) * P, atol=1e-15)  # (ufm-strong)
assert_allclose(H, np.repeat(W, n, axis=0) / np.sqrt(n), atol=1e-15)
assert_allclose(b, 1 / K)
assert theory.mixon_risk(strong) < 1e-28

# %%
shapes = (K * n, p), (K, p), (K,)
Z = theory.State(*map(rng.standard_normal, shapes))
E = Z.H @ Z.W.T + Z.b - Y  # b is added to each row, as 1bᵀ is
assert_allclose(theory.mixon_risk(Z), np.sum(E**2) / 2)  # (ufm-mixon)
slope_H, slope_W, slope_b = theory.mixon_gradient(Z)
assert_allclose(slope_H, E @ Z.W)  # (ufm-flow)
assert_allclose(slope_W, E.T @ Z.H)
assert_allclose(slope_b, E.sum(axis=0))

# %% [markdown]
# ## The invariant subspace
#
# Among all states $(H, W, b)$, consider the linear subspace
#
# $$ S = \bigl\{\, H = \tfrac1{\sqrt n}\,W\otimes\mathbf 1_n,\quad W^\top\mathbf 1 = 0,\quad
# b = c\,\mathbf 1_K \,\bigr\} . $$ (ufm-subspace)
#
# On it, samples of a class coincide and features mirror the weights: half of collapse is built in.
# The missing half is that the rows of $W$ form a simplex.
#
# **Proposition.** *$S$ is invariant: a gradient flow that starts in $S$ stays in $S$. On $S$, the
# risk splits into two parts that can be minimised one by one:*
#
# $$ R_e = \frac n2\,\Bigl\lVert \tfrac1{\sqrt n}WW^\top - P\Bigr\rVert^2
# + \frac n2\,(Kc - 1)^2 . $$ (ufm-split)
#
# *Proof.* On $S$ the residual is constant within classes: $E = F\otimes\mathbf 1_n$ with
# $F = \frac1{\sqrt n}WW^\top + c\,J - I$. This $F$ is symmetric, and $F\mathbf 1 = (Kc - 1)\mathbf 1$.
# Put it into {eq}`ufm-flow`:
#
# $$ \dot H = -FW\otimes\mathbf 1_n, \qquad \dot W = -\sqrt n\,FW, \qquad
# \dot b = -n(Kc - 1)\,\mathbf 1 . $$ (ufm-inside)
#
# So $\dot H = \frac1{\sqrt n}\dot W\otimes\mathbf 1_n$; $\mathbf 1^\top\dot W = -\sqrt n\,\mathbf
# 1^\top FW = -\sqrt n(Kc-1)\mathbf 1^\top W = 0$; and $\dot b$ is a multiple of $\mathbf 1$. The
# velocity lies in $S$. For the split, write $F = (\frac1{\sqrt n}WW^\top - P) + (c - \frac1K)J$.
# The two terms are orthogonal, $\lVert J\rVert = K$, and $R_e = \frac n2\lVert F\rVert^2$.
# $\blacksquare$
#
# The proof uses no small steps: gradient *descent* from $S$ stays in $S$ as well. SymPy checks both
# claims with symbols, for $K = 3$ and $n = p = 2$; `test_subspace_is_invariant_and_the_risk_splits_on_it`
# does so with numbers for many shapes.

# %%
c, root2 = sp.Symbol("c", real=True), sp.sqrt(2)
rows = sp.Matrix(2, 2, sp.symbols("w:4", real=True))
W = rows.col_join(-(rows.row(0) + rows.row(1)))  # Wᵀ1 = 0
eye, J, ones = sp.eye(3), sp.ones(3, 3), sp.ones(6, 1)
repeat = sp.kronecker_product(eye, sp.ones(2, 1))  # A ⊗ 1ₙ is repeat · A
H = repeat * W / root2
E = H * W.T + ones * (c * sp.ones(1, 3)) - repeat
F = W * W.T / root2 + c * J - eye
assert (E - repeat * F).expand().is_zero_matrix


# %%
def vanishes(A):
    return A.expand().is_zero_matrix


assert vanishes(E * W - repeat * F * W)  # (ufm-inside)
assert vanishes(E.T * H - root2 * F * W)
assert vanishes(E.T * ones - 2 * (3 * c - 1) * sp.ones(3, 1))
shape_part = W * W.T / root2 - (eye - J / 3)
split = (shape_part * shape_part.T).trace() + (3 * c - 1) ** 2  # n/2 = 1
assert sp.expand((E * E.T).trace() / 2 - split) == 0  # (ufm-split)

# %% [markdown]
# ## On the subspace, everything can be solved
#
# From {eq}`ufm-inside`, $G = WW^\top$ and $c$ obey, as $JW = 0$,
#
# $$ \dot G = 2\sqrt n\,G - 2\,G^2, \qquad \dot c = -N\bigl(c - \tfrac1K\bigr). $$ (ufm-riccati)
#
# $G$ keeps its eigenvectors, and each of its eigenvalues follows a logistic curve by itself:
#
# $$ g(t) = \frac{\sqrt n}{1 + (\sqrt n/g_0 - 1)\,e^{-2\sqrt n\,t}}, \qquad
# c(t) = \tfrac1K + \bigl(c_0 - \tfrac1K\bigr)e^{-Nt}. $$ (ufm-logistic)
#
# Every eigenvalue that is not zero at the start goes to $\sqrt n$. So on $S$ the flow ends in
# strong collapse {eq}`ufm-strong` if and only if $W_0$ has the full rank $K - 1$: almost always.
# Mixon's convergence result asks for mild conditions on the initial $W$; on $S$, this one will do.

# %%
t, g0, c0, N_, K_, r = sp.symbols("t g0 c0 N K r", positive=True)  # r = √n
g = r / (1 + (r / g0 - 1) * sp.exp(-2 * r * t))
bias = 1 / K_ + (c0 - 1 / K_) * sp.exp(-N_ * t)
assert sp.simplify(sp.diff(g, t) - 2 * r * g + 2 * g**2) == 0  # (ufm-riccati)
assert sp.simplify(sp.diff(bias, t) + N_ * (bias - 1 / K_)) == 0
assert sp.simplify(g.subs(t, 0) - g0) == sp.simplify(bias.subs(t, 0) - c0) == 0

# %% [markdown]
# And against the flow {eq}`ufm-flow` itself, all $(N + K)p + K$ coordinates of it, from a random
# point of $S$ by a solver with tight tolerances:


# %%
def flat(state):
    return np.concatenate([part.ravel() for part in state])


def unflat(x):
    H, W, b = np.split(x, [K * n * p, (K * n + K) * p])
    return theory.State(H.reshape(-1, p), W.reshape(-1, p), b)


def velocity(_, x):
    return -flat(theory.mixon_gradient(unflat(x)))


# %%
start = theory.mixon_start(K, n, p, 0.5, np.random.default_rng(3))
start, times = theory.project_invariant(start), np.array([0.5, 1, 2, 4])
tight = dict(method="DOP853", rtol=1e-13, atol=1e-15)
flow = solve_ivp(velocity, (0, 4), flat(start), t_eval=times, **tight).y.T


# %%
def eigenvalues(W):
    return np.linalg.eigvalsh(W @ W.T)[1:]  # the K − 1 that are not zero


s, first = np.sqrt(n), eigenvalues(start.W)
assert first[0] > 1e-3
for time, Z in zip(times, map(unflat, flow), strict=True):
    logistic = s / (1 + (s / first - 1) * np.exp(-2 * s * time))
    assert_allclose(eigenvalues(Z.W), logistic, rtol=1e-10)  # (ufm-logistic)
    c_now = (1 - np.exp(-K * n * time)) / K  # from c = 0
    assert_allclose(Z.b, c_now, rtol=1e-10)
    assert theory.invariant_distance(Z) < 1e-12

# %% [markdown]
# ## Mixon's Figures 1 and 2
#
# A real start is not in $S$. Mixon take $K = n = 3$, $p = 15$, random $H_0$ and $W_0$ with
# $\lVert H_0\rVert = \lVert W_0\rVert = \varepsilon$ and $b_0 = 0$, and run gradient descent. We do
# the same. The captions do not say which step size or which ε; these are ours.

# %%
STEP, STEPS = 0.05, 800
SIZES = (1.0, 1e-1, 1e-2, 1e-3, 1e-4)  # ε


def run(size, seed, log_every):
    start = theory.mixon_start(K, n, p, size, np.random.default_rng(seed))
    return theory.mixon_descent(start, STEP, STEPS, log_every)


paths = {size: run(size, seed=0, log_every=1) for size in SIZES}
histories = {size: history for size, (history, _) in paths.items()}

# %% [markdown]
# Figure 1 shows by how much each equation of {eq}`ufm-strong` is missed (the second as a share of
# $\lVert H\rVert$). Figure 2 shows the relative distance from $S$,
# $\lVert Z - \Pi_S Z\rVert_E/\lVert Z\rVert_E$, where $Z = (H, W, b)$, $\Pi_S$ is the nearest point
# of $S$, and
#
# $$ \lVert(H, W, b)\rVert_E^2 = \lVert H\rVert^2 + \lVert W\rVert^2 + \lVert b\rVert^2 .
# $$ (ufm-norm)
#
# (`theory.project_invariant` and `theory.energy_norm`; `test_projection_is_orthogonal`.)

# %% tags=["hide-input"]
PANELS = {
    "weight_error": "$\\|WW^\\top - \\sqrt{n}\\,P\\|$",
    "feature_error": "$\\|H - W\\otimes 1_n/\\sqrt{n}\\|\\,/\\,\\|H\\|$",
    "bias_error": "$\\|b - 1/K\\|$",
    "distance": "$\\|Z - \\Pi_S Z\\|_E\\,/\\,\\|Z\\|_E$",
}
SHADES = plt.get_cmap("viridis")(np.linspace(0, 0.85, len(SIZES)))


def draw(axis, key):
    for (size, seen), shade in zip(histories.items(), SHADES, strict=True):
        axis.plot(seen.index + 1, seen[key], color=shade, label=f"ε = {size:g}")
    axis.set(xscale="log", yscale="log", xlabel="iteration + 1")
    axis.set_ylabel(PANELS[key])


# %% tags=["hide-input"]
axes = figures.small_panels(len(PANELS), 4.2)
for axis, key in zip(axes, PANELS, strict=True):
    draw(axis, key)
for axis, what in zip(axes[:3], ("W", "H", "b"), strict=True):
    axis.set_title(f"Mixon's Fig. 1: how far {what} is from collapse")
axes[-1].set_title("Mixon's Fig. 2: relative distance from $S$")
figures.in_rows(*axes)

# %% tags=["hide-input"]
small = histories[SIZES[-1]]
rise = (small["weight_error"] < small["weight_error"][0] / 2).idxmax()
display(
    Markdown(
        f"Both figures come out as Mixon describe them: the smaller the start, the closer to strong "
        f"collapse is the end. Three phases can be seen. The bias settles first, within about "
        f"{3 / (STEP * K * n):.0f} iterations; its error grows again with W, to which it is tied "
        f"(see below). Then W and the class means grow from ε "
        f"exponentially, as the logistic curves do, while the rest of the state stays as small as "
        f"it began: this is how the flow is drawn towards S without ever reaching it. From "
        f"ε = {SIZES[-1]:g} half of the weight's error is gone after {rise} iterations. "
        "Then all stands still."
    )
)

# %% [markdown]
# ## The limits, as functions of ε
#
# Mixon put it with care: "apparently, the limit point approaches strong collapse as the
# initialization approaches the origin". How fast? Read the errors off at the last iteration, and
# fit a power of ε to those with ε ≤ 0.1.


# %%
def last_errors(history):
    return history[[*PANELS]].iloc[-1].to_dict()


def power_law(errors):
    """Powers and factors of least-squares lines through log(error)."""
    lines = np.polyfit(np.log(errors.index), np.log(errors), 1)
    rows = [lines[0], np.exp(lines[1])]
    return pd.DataFrame(rows, ["power", "factor"], errors.columns)


limits = {size: last_errors(seen) for size, seen in histories.items()}
limits = pd.DataFrame.from_dict(limits, orient="index")
law = power_law(limits[limits.index < 1])
assert (abs(law.loc["power"] - [2, 1, 1, 1]) < 0.01).all()

# %% tags=["hide-input"]
NAMES = {
    "weight_error": "error of W Wᵀ",
    "feature_error": "relative error of H",
    "bias_error": "error of b",
    "distance": "distance from S",
}
view = pd.concat([limits.rename("{:g}".format), law.add_prefix("fitted ", 0)])
view = view.rename_axis("ε").rename(columns=NAMES)
fitted = pd.IndexSlice[["fitted power", "fitted factor"], :]
styled = figures.shown(view, **dict.fromkeys(view, "{:.2e}"))
styled.format("{:.3f}", subset=fitted)

# %% [markdown]
# Is that one lucky start? Ten more starts give the same powers with other factors:

# %%
trials = {}
for seed in range(1, 11):
    seen = {size: last_errors(run(size, seed, STEPS)[0]) for size in SIZES[1:4]}
    trials[seed] = power_law(pd.DataFrame.from_dict(seen, orient="index"))
trials = pd.concat(trials, names=["seed", ""])
powers = trials.xs("power", level=1)
assert (abs(powers - [2, 1, 1, 1]) < 0.05).all(axis=None)

# %% tags=["hide-input"]
spread = trials.rename(columns=NAMES).groupby(level=1, sort=False)
spread = pd.concat([spread.min(), spread.max()], keys=["least", "largest"])
spread = spread.sort_index(level=1, ascending=False, sort_remaining=False)
spread.index = [f"{which} {what}" for which, what in spread.index]
figures.shown(spread, **dict.fromkeys(spread, "{:.3f}"))

# %% [markdown]
# **Why these powers?** Three things decide where the path ends.
#
# *The bias* settles fast, where $E^\top\mathbf 1 = 0$. With $\bar h$ the mean of all features, this
# reads
#
# $$ b - \tfrac1K\mathbf 1 = -W\bar h . $$ (ufm-bias)
#
# By {eq}`ufm-flow` $\bar h$ moves by $-\frac1N W^\top E^\top\mathbf 1$, which is then zero. So
# $\bar h$ stays of order ε, and with it the error of $b$.
#
# *The features* move only by multiples of the rows of $W$. What a sample starts with across these,
# it keeps for ever: order ε again.
#
# *The weight* is held by a conserved quantity. By {eq}`ufm-flow`,
# $\frac d{dt}(H^\top H - W^\top W) = 0$, so $D = H^\top H - W^\top W$ stays of order ε². Where the
# labels are fitted,
#
# $$ (WW^\top)^2 + W D W^\top = nP + N(b - \tfrac1K\mathbf 1)(b - \tfrac1K\mathbf 1)^\top ,
# $$ (ufm-balance)
#
# which is $W(H^\top H)W^\top$ written in two ways. Both corrections are of order ε². So
# $WW^\top = \sqrt n\,P + O(\varepsilon^2)$: the weight is better than the features by one power.
# (Descent in finite steps keeps $D$ only up to terms of order η². Hence fitted powers that miss 2 by
# a hair.)

# %%
H, W, _ = Z = theory.State(*map(rng.standard_normal, shapes))
slope_H, slope_W, _ = theory.mixon_gradient(Z)
change_H = slope_H.T @ H + H.T @ slope_H
change_W = slope_W.T @ W + W.T @ slope_W
assert_allclose(change_H, change_W, atol=1e-12)  # HᵀH − WᵀW is conserved

# %%
for size, (history, (H, W, b)) in paths.items():
    off, D = b - 1 / K, H.T @ H - W.T @ W
    assert_allclose(off, -W @ H.mean(axis=0), atol=1e-7 * size)  # (ufm-bias)
    left = W @ W.T @ W @ W.T + W @ D @ W.T
    right = n * P + K * n * np.outer(off, off)
    unfitted = 4 * np.sqrt(n * history["risk"].iloc[-1])  # what the labels lack
    assert_allclose(left, right, atol=unfitted + 1e-12)  # (ufm-balance)
    assert np.linalg.norm(D) < size**2  # of order ε²

# %% tags=["hide-input"]
display(
    Markdown(
        f"**Verdict on Mixon's figures: confirmed, and sharpened.** For this start the limits are "
        f"{law['weight_error']['factor']:.2f} ε² for the weight, "
        f"{limits['feature_error'].iloc[-1] / SIZES[-1]:.2f} ε for the features and "
        f"{limits['bias_error'].iloc[-1] / SIZES[-1]:.3f} ε for the bias. Strong collapse is the "
        f"limit of ε → 0, and at no ε > 0 is it reached: without weight decay, what the start "
        f"leaves off S stays."
    )
)

# %% [markdown]
# (paper-figure-15)=
# ## The paper's sweep
#
# In Appendix D.4.2 the paper trains the cross-entropy model {eq}`ufm-loss` with real optimizers:
# $p = 512$, $K = 10$, momentum 0.9, learning rates 0.1, 0.3, 0.5 and 1, weight decay from 0 to
# 0.05, with Adam, AdamW and "SGDMW", which we read as SGD with momentum and weight decay.
#
# **Ours is smaller in one respect: N = 1,000 samples, not the paper's 10,000.** We take five weight
# decays, and 500 steps on the full batch (D.4.2 gives neither steps nor batch size), with the
# learning rate divided by ten after one and two thirds of them. Features start from N(0, 1). Everything
# runs through the same engine and store as the book's other sweeps.

# %%
N, K, p = 1000, 10, 512
RATES, DECAYS = (0.1, 0.3, 0.5, 1.0), (0, 5e-5, 5e-4, 5e-3, 0.05)
GRIDS = dict.fromkeys(["adam", "adamw", "sgd"], sweep.Grid(RATES, (0.9,), DECAYS))  # fmt: skip
setting = dict(model="ufm", dataset="ufm", epochs=500)
setting |= dict(train_size=N, batch_size=N)
runs = figures.of_setting(store.load_runs(status="ok"), **setting)
runs = figures.on_grid(runs, GRIDS)
perfect = runs[runs["train_acc"] == 1]  # the paper's filter

# %% [markdown]
# Figure 15, re-made: mean and standard deviation over the learning rates. The paper's shows AdamW's
# NC0 and NC3 "at least one magnitude of order larger than the same metrics for Adam and SGDMW". The
# text has no numbers, and not how many runs it kept. (Our lines, below the figure, take five minutes on
# two CPU cores. Without `train_size`, and with `-p batch_size 10000`, they train the paper's N: ten
# times the work.)

# %%
FOUR = ("nc0", "nc3", "nc1", "nc2")
count = f"n = {len(perfect)} of {len(runs)} runs"
title = f"UFM, N = {N:,} ({count})"


def draw_15(runs):
    """Figure 15."""
    drawn = [figures.against_weight_decay(runs, [m], title) for m in FOUR]
    return figures.side_by_side(*drawn)


figures.with_lines(perfect, claims.UFM_LINES, draw_15)

# %% [markdown]
# Adam falls by orders of magnitude, AdamW does not, and SGD is somewhere in between. Before we
# believe a picture, let us see what it should be. (What follows speaks of all settings together. So it
# asks for a run of each.)

# %%
POINT = ["optimizer", "lr", "weight_decay"]
every = len(GRIDS) * len(RATES) * len(DECAYS)
whole = runs if runs.groupby(POINT).ngroups == every else runs[:0]

# %% [markdown]
# ## What the optimum says
#
# Coupled decay λ′ on mean cross-entropy is {eq}`ufm-loss` with $\lambda = N\lambda'$, and $n = N/K$.
# So {eq}`ufm-gap` predicts where a run with coupled decay must end if it converges: the gap $m$, the
# loss $\log(1 + (K-1)e^{-m})$, the singular values of $W$ and, $\sqrt n$ times smaller, those of the
# centred means $M$. There is a minimum other than zero only for
#
# $$ \lambda' < \frac{\sqrt n}{N} = \frac1{K\sqrt n} . $$ (ufm-threshold)


# %%
def optimum(decay):
    """Singular values of W and M, and mean loss, where decay λ′ must lead."""
    H, W = theory.ufm_optimum(K, N // K, K, N * decay)
    gap = H[0] @ (W[0] - W[1])
    loss = np.log1p((K - 1) * np.exp(-gap))
    M = H.reshape(K, -1, K).mean(axis=1)
    return {"w": np.linalg.norm(W, 2), "m": np.linalg.norm(M, 2), "loss": loss}


def optima(decays):
    return pd.DataFrame([optimum(decay) for decay in decays], decays)


# %%
threshold = np.sqrt(N // K) / N
decays = list(DECAYS[1:])
best = optima(decays)
gap = np.log(np.sqrt(N // K) * K / (N * best.index[:-1]) - K + 1)  # (ufm-gap)
assert_allclose((best["w"] * best["m"])[:-1], gap, rtol=1e-12)
assert_allclose(best["w"], best["m"] * np.sqrt(N // K), rtol=1e-12)
assert list(best["w"] > 0) == [d < threshold for d in decays]  # (ufm-threshold)

# %% tags=["hide-input"]
SEEN = {"w_sv_mean": "w", "m_sv_mean": "m", "train_loss": "loss"}


def adams(runs):
    """Where Adam's runs with decay ended, each named by its decay."""
    rows = runs[(runs["optimizer"] == "adam") & (runs["weight_decay"] > 0)]
    return rows.rename(columns=SEEN).set_index("weight_decay")[list(best)]


def show_optimum(runs):
    """The closed form beside Adam's least and largest."""
    ranges = adams(runs).groupby(level=0).agg(["min", "max"])
    table = pd.DataFrame({"λ = Nλ′": [f"{N * d:g}" for d in decays]}, best.index)  # fmt: skip
    for key, name in {"w": "σ(W)", "loss": "loss"}.items():
        table[f"{name}, predicted"] = best[key].map("{:.4g}".format)
        ends = ranges[key].map("{:.3g}".format)
        table[f"{name}, Adam"] = ends["min"] + " … " + ends["max"]
    return figures.shown(table.rename_axis("λ′"))


figures.show_if_any(whole, claims.UFM_LINES, show_optimum)

# %% [markdown]
# How far is each run off, and which runs lie beyond the threshold?

# %%
beyond = whole["weight_decay"] > threshold
dead = whole[beyond & (whole["optimizer"] != "adamw")]
# empty if there are no runs
assert_allclose(dead["train_loss"], np.log(K), rtol=1e-6)


# %% tags=["hide-input"]
def tell_optimum(runs):
    """How near Adam comes, and what is beyond the threshold."""
    rows = adams(runs)
    off = (rows / best.loc[rows.index] - 1).abs().max(axis=1)
    off = off.groupby(level=0).max()
    met = off.index[off < 1e-4]
    return (
        f"At λ′ = {met[0]:g} and {met[1]:g} Adam meets the closed form to {off[met].max():.0e} at "
        f"every learning rate. At {decays[0]:g} it is up to {off[decays[0]]:.0%} off: 500 steps "
        f"are not enough. The threshold is λ′ = {threshold:g}. The decay {decays[-1]:g} lies "
        f"beyond, and all {len(dead)} runs of Adam and SGD there shrink to zero: they end with "
        f"singular values of W between {dead['w_sv_mean'].min():.0e} and "
        f"{dead['w_sv_mean'].max():.0e} and a loss of log K. AdamW's runs there do not."
    )


figures.show_if_any(whole, "", tell_optimum)

# %% tags=["hide-input"]
FLOOR, ABOVE = 0.2, 300  # smaller ones: a triangle on the lower edge
curve = optima(np.geomspace(2e-5, 0.999 * threshold, 100))
SHIFTS = {"adam": 0.85, "adamw": 1, "sgd": 1.18}  # side by side


def draw_runs(axis, column, name):
    """One mark for each run of an optimizer with weight decay."""
    rows = runs[(runs["optimizer"] == name) & (runs["weight_decay"] > 0)]
    x, y = rows["weight_decay"] * SHIFTS[name], rows[column].clip(FLOOR)
    look = dict(s=24, facecolor="none", edgecolor=figures.COLOURS[name])
    tall = y > FLOOR
    axis.scatter(x[tall], y[tall], label=figures.LABELS[name], **look)
    axis.scatter(x[~tall], y[~tall], marker="v", clip_on=False, **look)


# %% tags=["hide-input"]
def draw_sizes(axis, column, key):
    """Singular values against weight decay: closed form and runs."""
    axis.plot(
        curve.index, curve[key], color="black", lw=1.2, label="closed form"
    )
    axis.axvline(threshold, color="#555555", lw=1, ls=":")
    for name in SHIFTS:
        draw_runs(axis, column, name)
    axis.set(xscale="log", yscale="log", ylim=(FLOOR, ABOVE))
    axis.set(xlabel="weight decay $\\lambda'$")
    axis.set_xticks(decays, [f"{d:g}" for d in decays])
    axis.minorticks_off()


# %% tags=["hide-input"]
def draw_all(runs):
    """Singular values of W, and of M."""
    many = (runs["weight_decay"] > 0).sum()
    axes = figures.small_panels(2, 3.9)
    draw_sizes(axes[0], "w_sv_mean", "w")
    draw_sizes(axes[1], "m_sv_mean", "m")
    axes[0].set_ylabel("singular values of $W$")
    axes[1].set_ylabel("singular values of $M$")
    for axis in axes:
        axis.set_title(f"After 500 steps (n = {many} runs)")
    return figures.in_rows(*axes)


figures.show_if_any(whole, "", draw_all)

# %% [markdown]
# (Means of the $K - 1$ largest; one dot for each learning rate; triangles lie below the frame. Right of
# the dotted line the minimum is zero.)
# With coupled decay everything is drawn to the curve, and to zero beyond its end. AdamW's dots have
# nothing to do with it: for decoupled decay {eq}`ufm-loss` is not the function being minimised.
#
# ### A filter that lets the dead pass
#
# Accuracy and all NC metrics but NC0 do not depend on scale. So a run that is shrinking to nothing
# still has them.

# %%
ghosts = dead[dead["train_acc"] == 1]
coupled = perfect[perfect["optimizer"] != "adamw"]
if len(whole):
    assert (coupled["weight_decay"] > threshold).sum() == len(ghosts) == 1


# %% tags=["hide-input"]
def tell_ghosts(dead):
    """Who passes the filter, though it shrinks to nothing."""
    ghost, worst = ghosts.iloc[0], dead.loc[dead["train_acc"].idxmin()]
    return (
        f"{len(ghosts)} of the {len(dead)} has 100 % training accuracy and so passes the paper's "
        f"filter: {figures.LABELS[ghost.optimizer]} with learning rate {ghost.lr:g} at "
        f"λ′ = {ghost.weight_decay:g}. It is SGD's last point in the figure. Its NC0 of "
        f"{ghost.nc0:.0e} and NC3 of {ghost.nc3:.1g} look like collapse, at singular values of W of "
        f"{ghost.w_sv_mean:.0e}. Another, with learning rate {worst.lr:g}, has "
        f"{worst.train_acc:.1%} accuracy, far below chance, and NC3 = {worst.nc3:.2f}, of at most "
        f"2: W and H swing through zero out of step, and W points away from the class means. "
        f"Neither says anything about neural collapse. A filter on the loss would catch both."
    )


figures.show_if_any(dead, claims.UFM_LINES, tell_ghosts)

# %% tags=["hide-input"]
papers = np.sqrt(10_000 / K) / 10_000
display(
    Markdown(
        f"With the paper's N = 10,000 the threshold is lower still, λ′ = {papers:.4f}. If the paper "
        f"trained with the mean of the losses, as is usual, then at its strongest weight decay, "
        f"{decays[-1]:g}, a run with coupled decay could only shrink to zero. It does not say how "
        f"many runs passed its filter."
    )
)

# %% [markdown]
# ## Why SGD is in between
#
# It is on its way to the same minimum, and slow. {doc}`theorem_sgd` gives NC0 under SGD for any
# model, this one included, from the settings alone: NC0 at the start, times
# `theory.row_sum_ratio`.

# %%
sgd = whole[whole["optimizer"] == "sgd"]
settings = sgd["lr"], sgd["momentum"], sgd["weight_decay"], 1, 500
ratio = theory.row_sum_ratio(*settings)  # one step an epoch
size = np.hypot(np.sqrt(K - 1) * sgd["w_sv_mean"], sgd["w_sv_min"])  # ‖W‖
floor = size * theory.rounding_floor(*settings)
away = (sgd["nc0"] / (sgd["nc0_init"] * ratio) - 1).abs()
visible = sgd["nc0_init"] * ratio > 100 * floor
assert (away[visible] < 1e-4).all()

# %% [markdown]
# How long would a slow run take, and where are those that have arrived?

# %%
done = sgd[(ratio < 0.01) & (sgd["weight_decay"] < threshold)]
there = best["w"].reindex(done["weight_decay"]).to_numpy()
deviation = (done["w_sv_mean"] / there - 1).abs()
assert (deviation < 1e-3).all()


# %% tags=["hide-input"]
def tell_sgd(sgd):
    """How well the law holds, and how long a slow run would take."""
    slow = sgd[(sgd["weight_decay"] == 5e-4) & (sgd["lr"] == 0.1)].iloc[0]
    which = slow.lr, slow.momentum, slow.weight_decay
    rate = theory.row_sum_decay_rate(*which) / 2
    return (
        f"For {visible.sum()} of the {len(sgd)} runs the law stands well above rounding, and there "
        f"it meets the measured NC0 to {away[visible].max():.0e}. So SGD's curve for NC0 tells how "
        f"long it trained, no more. At λ′ = {slow.weight_decay:g} and learning rate {slow.lr:g}, "
        f"500 steps leave {slow.nc0 / slow.nc0_init:.0%} of NC0; to leave 1 % takes "
        f"{np.log(100) / rate:,.0f} steps at that learning rate. The {len(done)} runs below the "
        f"threshold in which NC0 had time to fall below 1 % (λ′ = {done.weight_decay.iloc[0]:g}, "
        f"learning rates {' and '.join(f'{lr:g}' for lr in done.lr)}) are at the closed form, to "
        f"{deviation.max():.0e} in W."
    )


figures.show_if_any(sgd, claims.UFM_LINES, tell_sgd)

# %% [markdown]
# ## Coupled against decoupled
#
# The paper's conclusion from Figure 15: for AdamW the metrics, "in particular NC0 and NC3 remain at
# least one magnitude of order larger than the same metrics for Adam and SGDMW". Medians over the
# learning rates, of the runs with 100 % training accuracy and a loss below half of log K, so that
# the dying ones are out:

# %% tags=["hide-input"]
alive = whole[whole["train_acc"] == 1]
alive = alive[alive["train_loss"] < np.log(K) / 2]


def medians(runs):
    """NC0 and NC3 by weight decay and optimizer."""
    groups = runs.groupby(["weight_decay", "optimizer"])
    return groups[["nc0", "nc3"]].median().unstack()


def show_medians(runs):
    """The table."""
    order = [(m, o) for m in ("nc0", "nc3") for o in ("adam", "sgd", "adamw")]
    view = medians(runs)[order]
    view.columns = [
        f"{figures.METRICS[m]}, {figures.LABELS[o]}" for m, o in order
    ]
    two = dict.fromkeys(view, "{:.2g}")
    return figures.shown(view.rename_axis("λ′"), **two)


figures.show_if_any(alive, claims.UFM_LINES, show_medians)

# %% [markdown]
# How much larger are AdamW's values, and how small does NC3 get?


# %%
def flat_part(runs):
    """The least share that W's smallest singular value has in AdamW."""
    rows = runs[runs["optimizer"] == "adamw"]
    return (rows["w_sv_min"] / rows["w_sv_mean"]).min()


# %% tags=["hide-input"]
def tell_factors(runs):
    """AdamW's NC3 over Adam's and over SGD's."""
    least = runs[runs["weight_decay"] > 0].groupby("optimizer")["nc3"].min()
    nc3, (low, high) = medians(runs)["nc3"], decays[1:3]
    adam_ratio, sgd_ratio = (nc3["adamw"] / nc3[o] for o in ("adam", "sgd"))
    assert min(adam_ratio[low], adam_ratio[high], sgd_ratio[high]) > 10
    return (
        f"With enough decay it is true, and by far more than one order: at λ′ = {low:g} and "
        f"{high:g} AdamW's NC3 is {adam_ratio[low]:.0e} and {adam_ratio[high]:.0e} times Adam's. "
        f"Against SGD it is true at {high:g}, where the factor is {sgd_ratio[high]:.0f}; at {low:g} "
        f"it is {sgd_ratio[low]:.1f}, for lack of steps. Without decay, Adam and AdamW are the same "
        f"and neither collapses within 500 epochs. Over all positive decays the least NC3 is {least['adam']:.0e} for "
        f"Adam, {least['sgd']:.0e} for SGD and {least['adamw']:.2f} for AdamW. AdamW's smallest "
        f"singular value of W, zero in a collapsed network, is never below {flat_part(runs):.0%} of the "
        f"mean of the others."
    )


figures.show_if_any(alive, "", tell_factors)

# %% [markdown]
# By the book's one rule ({doc}`sweep`), for the best run of each optimizer and for all its runs:

# %% tags=["hide-input"]
verdicts = [
    lambda runs, name=name: figures.verdict(runs[runs["optimizer"] == name])
    for name in ("adam", "sgd", "adamw")
]
figures.show_if_any(alive, "", *verdicts)

# %% [markdown]
# Why AdamW does not get there is the subject of {doc}`theorem_signgd`: with coupled decay any rest
# point of training with full-batch gradients is a critical point of {eq}`ufm-loss`, and so has NC0 = 0 by {eq}`ufm-facts`. With
# decoupled decay a rest point is a multiple of normalised gradients, and nothing makes these sum to
# zero.

# %% [markdown]
# ## What was shown
#
# - **Theorem C.1: confirmed, with its conditions.** With $p \ge K$ and $\lambda < \sqrt n$ the global
#   minima of the cross-entropy model are collapsed states of known size, and every other critical
#   point is a strict saddle, where the Hessian's lowest eigenvalue is $\lambda - \sigma$. For
#   $\lambda \ge \sqrt n$ the minimum is zero. The last sentence of the theorem is about gradient
#   descent; it does not cover Adam, and not AdamW at all.
# - **NC0 and NC1 vanish at every critical point** of the full-batch loss, saddles included. NC2 tells them apart.
# - **Mixon's Figures 1 and 2: confirmed, and sharpened.** On the invariant subspace the flow is a
#   logistic curve for each eigenvalue. From a start of size ε off it, the limit misses strong
#   collapse by order ε² in $WW^\top$ and order ε in $H$ and $b$.
# - **The paper's Figure 15: confirmed for Adam against AdamW** at a tenth of its samples. Adam goes
#   where the closed form says, AdamW does not, at any of our decays and learning rates. For SGD the
#   comparison is one of training time, and the row-sum law predicts it run by run.
# - **Beyond the threshold** $\lambda' = 1/(K\sqrt n)$ coupled decay kills the model. Scale-free
#   metrics, and the filter of 100 % training accuracy, do not notice.
