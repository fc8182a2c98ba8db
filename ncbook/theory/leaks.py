"""What drives NC0 where a direction is not free of 1ᵀD: single numbers, rounding, coupled decay.

Under decoupled decay W ← (1 − η_t λ)W − η_t D_t in step t = 1, …, T, the row sum u = Wᵀ1 is a
driven linear system:

    u ← (1 − η_t λ) u − η_t ℓ_t,   the leak ℓ_t = 1ᵀD_t,   so with ρ(T, s) = Π_{s<r≤T} (1 − η_r λ)
    u_T = ρ(T, 0) u_0 − Σ_s k_s ℓ_s,   k_s = η_s ρ(T, s),   Σ_s k_s = (1 − ρ(T, 0)) / λ.

If every direction is a function of the gradients alone, ℓ_t never depends on u (the chapter on
leaks proves it).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ncbook.theory import checks
from ncbook.theory.sgd import FLOAT32_ROUNDING
from ncbook.theory.symmetry import NEWTON_SCHULZ, NEWTON_SCHULZ_GAIN, weights

# Root mean square of the error of rounding over that of the numbers; bfloat16 has 16 bits less.
ROUNDING = {"float32": FLOAT32_ROUNDING, "bfloat16": FLOAT32_ROUNDING * 2**16}
MUON_MOMENTUM = 0.9
MOMENTUM_ROUNDINGS = 3  # of m <- beta m + (1 - beta) G: two products and a sum
AHEAD_ROUNDINGS = 2  # that the Nesterov step adds to it
SOAP_EPS = 1e-8  # as in its published code


class Leaks(NamedTuple):
    """Statistics of leaks ℓ_t, (T, p).

    mean: ‖E ℓ‖, without what the spread adds to the norm of a sample's mean.
    spread: root mean square of ‖ℓ − E ℓ‖.
    memory: 1 + 2 Σ_k corr(k), in steps: 1 for independent leaks, (1 + β)/(1 − β) for a moving
        average β of independent ones.
    """

    mean: float
    spread: float
    memory: float


def leaks_of(row_sums: ArrayLike, lrs: ArrayLike, weight_decay: float) -> np.ndarray:
    """ℓ_t = ((1 − η_t λ) u_t − u_{t+1}) / η_t, (T, p): all of 1ᵀD and of the rounding of W.

    Args:
        row_sums: u_0 … u_T, (T + 1, p).
        lrs: η_t > 0, (T,).
        weight_decay: λ ≥ 0, decoupled.
    """
    u = checks.real("row_sums", row_sums, -np.inf, ends="()")
    rates = np.atleast_1d(checks.real("lrs", lrs, 0, ends="()"))
    if u.ndim != 2 or len(u) != len(rates) + 1:
        raise ValueError(f"row_sums must be ({len(rates) + 1}, p) for these lrs, got {u.shape}")
    rates = rates[:, None]
    return ((1 - rates * checks.real("weight_decay", weight_decay, 0)) * u[:-1] - u[1:]) / rates


def driven_row_sum(
    leaks: ArrayLike, lrs: ArrayLike, weight_decay: float, start: ArrayLike = 0.0
) -> np.ndarray:
    """u_T = ρ(T, 0) u_0 − Σ_s k_s ℓ_s, (p,), from u_0 = start.

    Args:
        leaks: (T, p), or (p,) for a constant leak.
        lrs, weight_decay: as in :func:`weights`.
        start: u_0, (p,).
    """
    k, kept = weights(lrs, weight_decay)
    drive = checks.real("leaks", leaks, -np.inf, ends="()")
    first = checks.real("start", start, -np.inf, ends="()")
    return kept * first - (k @ drive if drive.ndim == 2 else k.sum() * drive)


def leak_statistics(leaks: ArrayLike) -> Leaks:
    """Mean, spread and memory of stationary leaks, (T, p) with T ≥ 2.

    The sum of correlations stops before the first lag at which they are not positive.
    """
    drive = checks.real("leaks", leaks, -np.inf, ends="()")
    if drive.ndim != 2 or len(drive) < 2:
        raise ValueError(f"leaks must be (T, p) with T of at least 2, got {drive.shape}")
    mean = drive.mean(0)
    waves = np.fft.rfft(drive - mean, 2 * len(drive), axis=0)
    covariance = np.fft.irfft((np.abs(waves) ** 2).sum(1))[: len(drive)] / len(drive)
    square = covariance[0]
    rounding = len(drive) * np.finfo(float).eps
    if square <= rounding**2 * (drive**2).sum(1).mean():  # constant leaks
        return Leaks(float(np.linalg.norm(mean)), 0.0, 1.0)
    positive = covariance[: np.argmax(covariance <= 0) or None]
    memory = 2 * positive.sum() / square - 1
    unbiased = max(0.0, mean @ mean - square * memory / len(drive))
    return Leaks(float(unbiased**0.5), float(square**0.5), float(memory))


def sign_bound(
    lrs: ArrayLike, weight_decay: float, classes: int, width: int, start: float = 0.0
) -> float:
    """A bound on NC0 under SignumW and Lion: ρ(T, 0) NC0_0 + (K − 2) √p (1 − ρ(T, 0))/λ.

    Proof: D is the sign of sums of gradients, whose columns sum to zero; so a column that is not
    zero has both signs, |Σ_k sign| ≤ K − 2, and ‖ℓ‖ ≤ (K − 2) √p. Theorem 3.3's descent attains it.

    Args:
        lrs, weight_decay: as in :func:`weights`.
        classes: K ≥ 2.
        width: p, the number of features.
        start: NC0 before the first step.

    >>> round(sign_bound([0.01] * 2000, 5.0, 10, 128), 2)
    18.1
    """
    k, kept = weights(lrs, weight_decay)
    most = (checks.whole("classes", classes, 2) - 2) * checks.whole("width", width, 1) ** 0.5
    return float(abs(kept) * checks.real("start", start, 0) + np.abs(k).sum() * most)


def newton_schulz(singular_values: ArrayLike) -> float | np.ndarray:
    """What Muon's five Newton–Schulz steps make of singular values in [0, 1].

    >>> round(newton_schulz(1e-6) * 1e6), round(newton_schulz(0.5), 2)
    (485, 0.77)
    """
    x = checks.real("singular_values", singular_values, 0, 1, "[]")
    a, b, c = NEWTON_SCHULZ
    for _ in range(5):
        x = a * x + b * x**3 + c * x**5
    return checks.plain(x)


def newton_schulz_noise(classes: int) -> float:
    """‖1ᵀD‖ that rounding X and all products of five steps leaves, per unit of `ROUNDING`.

    With X = diag(s), an estimate for singular values s_i ∝ 1/i, i < K. One step X ← aX + MX with
    M = bS + cS², S = X Xᵀ, multiplies the error along 1 by a, and adds the roundings of aX, MX and
    their sum, each its norm, and of S, S² and M, whose error E adds ‖1ᵀEX‖ ≈ ‖E‖_F ‖X‖_F / √K.

    >>> round(newton_schulz_noise(10))
    1026
    """
    a, b, c = NEWTON_SCHULZ
    x = 1 / np.arange(1.0, checks.whole("classes", classes, 2))
    x, square = x / np.linalg.norm(x), 1.0
    for _ in range(5):
        product = b * x**2 + c * x**4
        after = a * x + product * x
        inner = 2 * b**2 * (x**4).sum() + 2 * c**2 * (x**8).sum() + (product**2).sum()
        outer = a**2 * (x**2).sum() + ((product * x) ** 2).sum() + (after**2).sum()
        square = a**2 * square + outer + inner * (x**2).sum() / classes
        x = after
    return float(square**0.5)


def muon_leak(
    classes: int, products: str = "float32", share: ArrayLike | None = None
) -> tuple[float | np.ndarray, float | np.ndarray]:
    """(spread, memory) of Muon's leak from the unit roundoff alone; float32 momentum m, β = 0.9.

    1ᵀm is never zero: rounding m ← βm + (1 − β)G leaves ‖1ᵀm‖/‖m‖_F = δ√(3/(1 − β²) + 2), which
    persists for (1 + β)/(1 − β) steps. Five Newton–Schulz steps multiply it by 485 and add
    independent roundings of their own, `newton_schulz_noise`; the sum saturates as a singular
    value does, ‖ξ‖ = √K φ(·/(485 √K)).

    Args:
        classes: K.
        products: dtype of the products, a key of `ROUNDING`.
        share: ‖1ᵀm‖/‖m‖_F if it is known, in [0, √K]. Where a network fits its data G is so small
            that the rounding of softmax, 1e-7 whatever G, is most of it.

    >>> spread, memory = muon_leak(10)
    >>> f"{spread:.1e}", round(memory, 1)
    ('5.4e-05', 15.4)
    >>> round(muon_leak(10, "bfloat16")[0], 2)
    1.52
    """
    if products not in ROUNDING:
        raise ValueError(f"products must be one of {', '.join(ROUNDING)}, got {products!r}")
    beta, gain = MUON_MOMENTUM, NEWTON_SCHULZ_GAIN
    root = checks.whole("classes", classes, 2) ** 0.5
    rounded = MOMENTUM_ROUNDINGS / (1 - beta**2) + AHEAD_ROUNDINGS
    known = ROUNDING["float32"] * rounded**0.5 if share is None else share
    carried = (gain * checks.real("share", known, 0, root * (1 + 1e-6), "[]")) ** 2
    own = (newton_schulz_noise(classes) * ROUNDING[products]) ** 2
    linear = np.minimum(np.sqrt(own + carried) / (gain * root), 1)
    memory = (own + carried * (1 + beta) / (1 - beta)) / (own + carried)
    return checks.plain(root * newton_schulz(linear)), checks.plain(memory)


def soap_leak(
    classes: int, width: int, momentum: float = 0.9, noise: ArrayLike = np.inf
) -> tuple[float | np.ndarray, float]:
    """(spread, memory) of SOAP's leak: √(Kp (1 − β)/(1 + β)) · n/(n + 1e-8), (1 + β)/(1 − β).

    SOAP divides the coordinate along 1, pure rounding of size n, by its own root mean square plus
    1e-8. Of independent noise m̂ keeps a variance (1 − β)/(1 + β), in each of p numbers.

    Args:
        classes, width: K and p.
        momentum: β in [0, 1).
        noise: n ≥ 0, the rounding of one number along 1/√K; by default far above 1e-8, where the
            leak is largest, and no longer depends on the precision.

    >>> round(soap_leak(10, 128)[0], 2)
    8.21
    """
    beta = float(checks.real("momentum", momentum, 0, 1))
    size = checks.real("noise", noise, 0, ends="[]")
    memory = (1 + beta) / (1 - beta)
    numbers = checks.whole("classes", classes, 2) * checks.whole("width", width, 1)
    share = 1 / (1 + SOAP_EPS / np.maximum(size, np.finfo(float).tiny))
    return checks.plain((numbers / memory) ** 0.5 * share), memory
