"""Unconstrained features: the last-layer features are free variables, trained together with W.

Two models, in the book's shapes: W (K, p), H (N, p) one row a sample, samples sorted by class with
n = N/K of each. (Mixon et al. and Zhu et al. write H with one column a sample.)

* Mixon: least squares with a bias, R_e(H, W, b) = ½ ‖H Wᵀ + 1 bᵀ − Y‖², Y = I_K ⊗ 1_n.
* Zhu (Theorem C.1, eq. 13): Σ_i CE(W h_i, y_i) + λ/2 ‖W‖² + λ/2 ‖H‖², no bias. Training with a
  *mean* cross-entropy and weight decay λ' is this with λ = N λ'.
"""

from math import log, sqrt
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import log_softmax, softmax

from ncbook.theory import checks


class State(NamedTuple):
    """A point Z = (H, W, b): features (N, p), weight (K, p), bias (K,)."""

    H: np.ndarray
    W: np.ndarray
    b: np.ndarray


def mixon_risk(state: State) -> float:
    """R_e(H, W, b) = ½ ‖H Wᵀ + 1 bᵀ − I_K ⊗ 1_n‖_F²."""
    return float(np.sum(_mixon_residual(state) ** 2) / 2)


def mixon_gradient(state: State) -> State:
    """∇R_e = (E W, Eᵀ H, Eᵀ 1), with E = H Wᵀ + 1 bᵀ − I_K ⊗ 1_n."""
    E = _mixon_residual(state)  # (N, K)
    return State(E @ state.W, E.T @ state.H, E.sum(axis=0))


def project_invariant(state: State) -> State:
    """Π_S Z, the nearest point of the invariant subspace in ‖Z‖_E² = ‖H‖² + ‖W‖² + ‖b‖².

    S = {(H, W, b): H = W ⊗ 1_n / √n, Wᵀ1 = 0, b ∈ span(1)}. Gradient descent that starts in S
    stays there, and R_e = n/2 (‖W Wᵀ/√n − (I − J/K)‖² + (1ᵀb − 1)²).
    """
    K, n = len(state.W), len(state.H) // len(state.W)
    means = state.H.reshape(K, n, -1).mean(axis=1)
    W = centring(K) @ (state.W + sqrt(n) * means) / 2
    return State(np.kron(W, np.ones((n, 1))) / sqrt(n), W, np.full(K, state.b.mean()))


def invariant_distance(state: State) -> float:
    """‖Z − Π_S Z‖_E / ‖Z‖_E."""
    here, nearest = (
        np.concatenate([part.ravel() for part in z]) for z in (state, project_invariant(state))
    )
    return float(np.linalg.norm(here - nearest) / np.linalg.norm(here))


def collapse_errors(state: State) -> tuple[float, float, float]:
    """The three errors of Mixon's Fig. 1, as :func:`mixon_descent` lists them."""
    H, W, b = state
    K, n = len(W), len(H) // len(W)
    weight = np.linalg.norm(W @ W.T - sqrt(n) * centring(K))
    feature = np.linalg.norm(H - np.kron(W, np.ones((n, 1))) / sqrt(n)) / np.linalg.norm(H)
    return float(weight), float(feature), float(np.linalg.norm(b - 1 / K))


def mixon_start(
    num_classes: int, per_class: int, width: int, size: float, rng: np.random.Generator
) -> State:
    """Random H₀, W₀ with ‖H₀‖_F = ‖W₀‖_F = `size` (their ε) and b₀ = 0."""
    K, n = _shape(num_classes, per_class, width)
    checks.real("size", size, 0, ends="()")
    H, W = rng.standard_normal((K * n, width)), rng.standard_normal((K, width))
    return State(size * H / np.linalg.norm(H), size * W / np.linalg.norm(W), np.zeros(K))


def mixon_descent(
    start: State, lr: float, steps: int, log_every: int = 1
) -> tuple[pd.DataFrame, State]:
    """Gradient descent on R_e, Z ← Z − η ∇R_e(Z), measured every `log_every` steps and at the end.

    Returns:
        one row a measured step, and the last Z. Columns: `weight_error` ‖W Wᵀ − √n (I − J/K)‖_F,
        `feature_error` ‖H − W ⊗ 1_n / √n‖_F / ‖H‖_F and `bias_error` ‖b − 1/K‖ (the three panels of
        Mixon's Fig. 1), `distance` ‖Z − Π_S Z‖_E / ‖Z‖_E (their Fig. 2), `risk` R_e.

    Example:
        >>> start = mixon_start(3, 3, 15, 1.0, np.random.default_rng(0))
        >>> bool(mixon_descent(start, 0.05, 2000)[0]["risk"].iloc[-1] < 1e-20)
        True
    """
    checks.real("lr", lr, 0, ends="()")
    steps, every = checks.whole("steps", steps, 1), checks.whole("log_every", log_every, 1)
    state, rows = start, {}
    for step in range(steps + 1):
        if step % every == 0 or step == steps:
            rows[step] = *collapse_errors(state), invariant_distance(state), mixon_risk(state)
        if step < steps:
            gradient = mixon_gradient(state)
            state = State(*(x - lr * g for x, g in zip(state, gradient, strict=True)))
    columns = ["weight_error", "feature_error", "bias_error", "distance", "risk"]
    return pd.DataFrame.from_dict(rows, "index", columns=columns), state


def ufm_loss(H: np.ndarray, W: np.ndarray, weight_decay: float) -> float:
    """Σ_i CE(W h_i, y_i) + λ/2 (‖W‖² + ‖H‖²) (eq. 13), samples sorted by class."""
    entropy = -np.sum(log_softmax(H @ W.T, axis=1) * _one_hot(H, W))
    return float(entropy + weight_decay / 2 * (np.sum(W**2) + np.sum(H**2)))


def ufm_gradient(
    H: np.ndarray, W: np.ndarray, weight_decay: float
) -> tuple[np.ndarray, np.ndarray]:
    """(∇_H, ∇_W) = (R W + λH, Rᵀ H + λW), with R = softmax(H Wᵀ) − Y."""
    R = softmax(H @ W.T, axis=1) - _one_hot(H, W)
    return R @ W + weight_decay * H, R.T @ H + weight_decay * W


def normalised_descent(
    H: np.ndarray, W: np.ndarray, lr: float, steps: int, log_every: int = 1
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Z ← Z − η ∇/‖∇‖ on Σ_i CE(W h_i, y_i), with no weight decay, from Z = (H, W).

    1ᵀ∇_W = 0, so Wᵀ1 never changes. But ‖W‖ grows, so NC0/‖W‖ falls: a network can collapse while
    its NC0 is constant. The gradient vanishes exponentially as the logits grow; its direction is
    computed from logarithms, and so is accurate however small it is.

    Returns:
        the logged steps, every `log_every` and the last, (T,), with H (T, N, p) and W (T, K, p).

    Example:
        >>> rng = np.random.default_rng(0)
        >>> _, _, W = normalised_descent(rng.random((6, 4)), rng.random((3, 4)), 0.1, 1000, 500)
        >>> [int(np.linalg.norm(w)) for w in W], [f"{np.linalg.norm(w.sum(0)):.4f}" for w in W]
        ([2, 35, 70], ['3.5854', '3.5854', '3.5854'])
    """
    checks.real("lr", lr, 0, ends="()")
    steps, every = checks.whole("steps", steps, 1), checks.whole("log_every", log_every, 1)
    Y = _one_hot(H, W)
    logged = []
    for step in range(steps + 1):
        if step % every == 0 or step == steps:
            logged.append((step, H, W))
        # softmax − Y over its largest entry: exact where 1 − softmax would round to 0.
        logs = np.where(Y == 1, -np.inf, log_softmax(H @ W.T, axis=1))
        R = np.exp(logs - logs.max())
        R -= Y * R.sum(axis=1, keepdims=True)
        toward = lr / sqrt(np.sum((R @ W) ** 2) + np.sum((R.T @ H) ** 2))
        H, W = H - toward * R @ W, W - toward * R.T @ H
    return tuple(map(np.array, zip(*logged, strict=True)))


def ufm_hessian(H: np.ndarray, W: np.ndarray, weight_decay: float) -> np.ndarray:
    """The Hessian of eq. 13 at (H, W), of shape (d, d), d = (N + K) p; rows of H first, then of W.

    With C_i = diag(s_i) − s_i s_iᵀ and r_i = s_i − y_i: the block (h_i, h_i) is Wᵀ C_i W + λI, the
    block (w_k, w_l) is Σ_i (C_i)_kl h_i h_iᵀ + λI δ_kl, the block (h_i, w_k) is
    (Wᵀ C_i)_k h_iᵀ + r_ik I.
    """
    (N, p), K = H.shape, len(W)
    S = softmax(H @ W.T, axis=1)
    R, eye = S - _one_hot(H, W), np.eye(p)
    C = S[:, :, None] * (np.eye(K) - S[:, None, :])  # (N, K, K)
    HH = np.zeros((N, p, N, p))
    HH[np.arange(N), :, np.arange(N), :] = np.einsum("ka,ikl,lb->iab", W, C, W)
    WW = np.einsum("ikl,ia,ib->kalb", C, H, H)
    HW = np.einsum("la,ilk,ib->iakb", W, C, H) + np.einsum("ik,ab->iakb", R, eye)
    HH, WW, HW = (x.reshape(x.shape[0] * p, -1) for x in (HH, WW, HW))
    return np.block([[HH, HW], [HW.T, WW]]) + weight_decay * np.eye((N + K) * p)


def ufm_optimum(
    num_classes: int, per_class: int, width: int, weight_decay: float
) -> tuple[np.ndarray, np.ndarray]:
    """A global minimiser (H, W) of eq. 13: a simplex ETF of closed-form size, or 0.

    On W = ω P, h_i = ω n^(−1/2) P e_k (P = I − J/K, i in class k) both gradients vanish where
    λ = √n K / (eᵐ + K − 1), m = ω²/√n the logit gap, so m = log(√n K/λ − K + 1). For λ ≥ √n there
    is no m > 0: the minimiser is 0, which is no neural collapse.
    """
    K, n = _shape(num_classes, per_class, width)
    decay = float(checks.real("weight_decay", weight_decay, 0, ends="()"))
    gap = log(sqrt(n) * K / decay - K + 1) if decay < sqrt(n) else 0.0
    W = np.zeros((K, width))
    W[:, :K] = sqrt(gap * sqrt(n)) * centring(K)
    return np.kron(W, np.ones((n, 1))) / sqrt(n), W


def centring(num_classes: int) -> np.ndarray:
    """P = I − J/K, shape (K, K): the projection onto the vectors that sum to zero."""
    return np.eye(num_classes) - 1 / num_classes


def _mixon_residual(state: State) -> np.ndarray:
    """E = H Wᵀ + 1 bᵀ − Y, shape (N, K)."""
    return state.H @ state.W.T + state.b - _one_hot(state.H, state.W)


def _one_hot(H: np.ndarray, W: np.ndarray) -> np.ndarray:
    """Y = I_K ⊗ 1_n, shape (N, K)."""
    if len(H) % len(W):
        raise ValueError(f"samples must be a multiple of the {len(W)} classes, got {len(H)}")
    return np.kron(np.eye(len(W)), np.ones((len(H) // len(W), 1)))


def _shape(num_classes: int, per_class: int, width: int) -> tuple[int, int]:
    """(K, n), checked; a simplex must fit into `width` features."""
    K = checks.whole("num_classes", num_classes, 2)
    checks.whole("width", width, K)
    return K, checks.whole("per_class", per_class, 1)
