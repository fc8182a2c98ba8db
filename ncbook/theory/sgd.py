"""The exact law of the last layer's row sum under SGD, and the paper's Theorem 3.1.

Adding one constant to all logits of a sample does not change its cross-entropy, so the gradient of
the last layer has zero column sums, 1ᵀ∇ = 0, for any backbone and any minibatch (Lemma E.4). The
row sum u = Wᵀ1 is therefore independent of the data. With g ← g + λ_c W, v ← βv + g and
W ← (1 − ηλ_d) W − ηv, it obeys

    v ← βv + λ_c u,    u ← (1 − ηλ_d) u − ηv,

a linear recurrence from v = 0 (torch's first step, v = g, is the same), so that
NC0_t / NC0_0 = |u_t| / |u_0| is a known number. In the state (u, ηv) one step is

    A = [[1 − y − c, −β], [c, β]],   c = ηλ_c, y = ηλ_d,
    characteristic polynomial z² − (1 + β − c − y) z + β(1 − y).

The law holds for every loss that ignores a common shift of the logits, but not for sign or Adam
updates, which don't commute with the sum over classes.
"""

from collections.abc import Sequence
from math import floor

import numpy as np
from numpy.typing import ArrayLike

from ncbook.theory import checks

# Rounding x to float32 errs by a uniform ±2⁻²⁴ of the power of two below x: root mean square
# 2⁻²⁴/√3 of it, and this much of x's where x is spread evenly over the logarithms.
FLOAT32_ROUNDING = 2**-24 / np.sqrt(3 * 1.5 / np.log(2))


def row_sum_ratio(
    lr: ArrayLike,
    momentum: ArrayLike,
    weight_decay: ArrayLike,
    steps_per_epoch: int,
    epochs: int,
    decoupled: ArrayLike = False,
    milestones: Sequence[float] = (1 / 3, 2 / 3),
) -> float | np.ndarray:
    """NC0 at the end of training over NC0 at the start, |u_T| / |u_0|, under SGD or SGDW.

    Args:
        lr: η > 0, before the first drop. This and the next two broadcast against each other.
        momentum: β in [0, 1).
        weight_decay: λ ≥ 0.
        steps_per_epoch: minibatches an epoch, a last smaller one included (60,000 / 128 → 469).
        epochs: epochs in all.
        decoupled: False for SGD, True for SGDW, or the share of λ that is decoupled, in [0, 1].
        milestones: η is divided by ten from epoch ⌊m · epochs⌋ on, for each; the momentum stays.

    Returns:
        The ratio, a float if all parameters are; `inf` where it overflows (unstable η).

    Raises:
        ValueError: a parameter outside its range.

    Example:
        >>> round(row_sum_ratio(0.0679, 0.9, 5e-4, 469, 200, decoupled=True), 4)
        0.3109
    """
    length = steps_per_epoch, epochs
    rest = momentum, weight_decay, *length, decoupled, milestones
    return abs(row_sum_trajectory(_whole_steps(*length), lr, *rest))


def row_sum_trajectory(
    steps: ArrayLike,
    lr: ArrayLike,
    momentum: ArrayLike,
    weight_decay: ArrayLike,
    steps_per_epoch: int,
    epochs: int,
    decoupled: ArrayLike = False,
    milestones: Sequence[float] = (1 / 3, 2 / 3),
) -> float | np.ndarray:
    """u_t / u_0 after each of `steps` updates, signed: the same factor for every coordinate of u.

    Its absolute value is the NC0 ratio, its square the ratio of α. It changes sign where the
    recurrence is underdamped. Arguments as in :func:`row_sum_ratio`.

    Returns:
        Shape (parameters' common shape) + (shape of steps); a float if both are scalars.
    """
    t = checks.counts("steps", steps, _whole_steps(steps_per_epoch, epochs))
    settings = np.broadcast_arrays(*_dimensionless(lr, momentum, weight_decay, decoupled))
    settings = [x.reshape(x.shape + (1,) * t.ndim) for x in settings]
    return _through_phases(t, *settings, _phases(steps_per_epoch, epochs, milestones))


def row_sum_closed_form(
    steps: ArrayLike,
    lr: ArrayLike,
    momentum: ArrayLike,
    weight_decay: ArrayLike,
    decoupled: ArrayLike = False,
) -> float | np.ndarray:
    """u_t / u_0 for one constant learning rate, signed; all arguments broadcast.

    With z₁, z₂ the roots of the characteristic polynomial and U_t = (z₁ᵗ − z₂ᵗ)/(z₁ − z₂),
    u_t / u_0 = U_{t+1} − β U_t. For coupled decay the roots are real where β ≤ (1 − √(ηλ))²
    (overdamped), equal at that β (critically damped: U_t = t zᵗ⁻¹), complex above it
    (underdamped: U_t = rᵗ⁻¹ sin(tφ)/sin φ, r = √β). It is entry (u, u) of Aᵗ, and computed so, by
    squaring A: that loses no digits near the double root.

    Example:
        >>> round(row_sum_closed_form(1000, 0.01, 0.9, 0.05), 6)
        0.005452
    """
    t = checks.counts("steps", steps)
    settings = _dimensionless(lr, momentum, weight_decay, decoupled)
    return _through_phases(t, *settings, [(0, np.inf, 1.0)])


def row_sum_stepped(
    lrs: ArrayLike, momentum: float, weight_decay: float, decoupled: float = False
) -> np.ndarray:
    """u_t / u_0 by stepping the recurrence, for any schedule: one learning rate a step.

    Returns shape (len(lrs) + 1,). For cosine or warm-up, which have no closed form.
    """
    rates = checks.real("lrs", lrs, 0)
    beta, c, y = _dimensionless(1.0, momentum, weight_decay, decoupled)  # c = λ_c, y = λ_d
    u, v = np.ones(rates.size + 1), 0.0
    for step, rate in enumerate(rates):
        v = beta * v + c * u[step]
        u[step + 1] = (1 - rate * y) * u[step] - rate * v
    return u


def row_sum_decay_rate(
    lr: ArrayLike, momentum: ArrayLike, weight_decay: ArrayLike, decoupled: ArrayLike = False
) -> float | np.ndarray:
    """The rate r of α_t = ‖Wᵀ1‖²/K ~ e^(−rt), t in steps: −2 log of the spectral radius.

    For coupled decay and β < (1 − √(ηλ))² more than 2λη/(1 − β), and to leading order that; beyond,
    log(1/β) for any λ. With decoupled decay alone it is −2 log|1 − ηλ|, whatever β. Negative where
    training diverges.
    """
    beta, c, y = np.broadcast_arrays(*_dimensionless(lr, momentum, weight_decay, decoupled))
    p = 1 - beta
    # In s = 1 − z the polynomial is s² − (p + c + y) s + c + p y. Its coefficients are sums of
    # positive numbers: the smaller root, tiny in practice, has full relative accuracy.
    disc = (p - y - c) ** 2 - 4 * beta * c
    large = (p + y + c + np.sqrt(np.maximum(disc, 0))) / 2
    small = (c + p * y) / large
    with np.errstate(divide="ignore"):
        real = np.maximum(_log_abs(small), _log_abs(large))
        log_radius = np.where(disc < 0, (np.log(beta) + _log_abs(y)) / 2, real)
        # Without coupled decay, nothing excites the momentum's own mode β.
        return checks.plain(-2 * np.where(c == 0, _log_abs(y), log_radius))


def rounding_floor(
    lr: ArrayLike,
    momentum: ArrayLike,
    weight_decay: ArrayLike,
    steps_per_epoch: int,
    epochs: int,
    decoupled: ArrayLike = False,
    milestones: Sequence[float] = (1 / 3, 2 / 3),
) -> float | np.ndarray:
    """An estimate of NC0/‖W‖_F that float32 rounding leaves where the law predicts zero.

    Storing W rounds each entry, which kicks the row sum by δ‖W‖_F, δ = `FLOAT32_ROUNDING`, in a
    random direction; then the kick decays by the law. Over T steps the floor squared is
    δ² ∑ₛ ρ(T, s)², with ρ(T, s) the law from step s to step T. Decoupled decay stores W twice.
    Rounding in the gradient and in the momentum is left out, and ‖W‖_F taken as constant.

    Arguments and errors as in :func:`row_sum_ratio`.

    Example:
        >>> round(1e7 * rounding_floor(0.0679, 0.9, 0.05, 11, 200), 2)
        6.08
    """
    _whole_steps(steps_per_epoch, epochs)
    beta, c, y = np.broadcast_arrays(*_dimensionless(lr, momentum, weight_decay, decoupled))
    kick = np.zeros((*beta.shape, 2, 2))
    kick[..., 0, 0] = FLOAT32_ROUNDING**2 * np.where(y > 0, 2, 1)
    covariance = np.zeros_like(kick)
    with np.errstate(over="ignore", invalid="ignore"):
        for _, length, factor in _phases(steps_per_epoch, epochs, milestones):
            c, y = c * factor, y * factor
            step = _step(beta, c, y)
            carried = covariance * np.array([[1, factor], [factor, factor**2]])
            covariance = _noise(step, kick, carried, length)
        floor = np.sqrt(covariance[..., 0, 0])
    return checks.plain(np.where(np.isnan(floor), np.inf, floor))


def critical_momentum(lr: ArrayLike, weight_decay: ArrayLike) -> float | np.ndarray:
    """β* = (1 − √(ηλ))², where coupled decay of the row sum is fastest.

    More momentum than this slows it down: the roots turn complex, with modulus √β.
    """
    eta_lambda = checks.real("lr", lr, 0, ends="()") * checks.real("weight_decay", weight_decay, 0)
    return checks.plain((1 - np.sqrt(eta_lambda)) ** 2)


def theorem31_bound(
    steps: ArrayLike, lr: ArrayLike, momentum: ArrayLike, weight_decay: ArrayLike
) -> float | np.ndarray:
    """The paper's bound on α_t / α_0 without its constant C and its O(η) (Theorem 3.1).

    exp(−ληt / log(1/β)) for β > 0 and (1 − λη)ᵗ for β = 0. Its rate vanishes as β → 0.
    """
    t = checks.counts("steps", steps)
    beta, eta_lambda, _ = _dimensionless(lr, momentum, weight_decay, False)
    with np.errstate(divide="ignore"):
        with_momentum = np.exp(eta_lambda * t / np.log(beta))  # log 0 = −inf gives rate 0
        return checks.plain(np.where(beta > 0, with_momentum, (1 - eta_lambda) ** t))


def lemma_e6_solution(
    time: ArrayLike, momentum: ArrayLike, weight_decay: ArrayLike
) -> float | np.ndarray:
    """α(t)/α(0) of Lemma E.6's equation α' = −λ ∫₀ᵗ βᵗ⁻ˢ α(s) ds, for all β in (0, 1), λ ≥ 0.

    With L = log(1/β) and ω² = L²/4 − λ: e^(−Lt/2) [cosh ωt + (L/2ω) sinh ωt], which is
    A e^(r₁t) + B e^(r₂t) of eq. 26, r = −L/2 ± ω. Where L² < 4λ, ω is imaginary and α oscillates.
    """
    t = checks.real("time", time, 0)
    half = -np.log(checks.real("momentum", momentum, 0, 1, "()")) / 2
    decay = checks.real("weight_decay", weight_decay, 0)
    omega = np.sqrt(half**2 - decay + 0j)
    slow = decay / (half + omega)  # −r₁, without cancellation
    # (1 − e^(−2ωt)) / 2ω, which is t at ω = 0
    spread = np.where(omega == 0, t, -np.expm1(-2 * omega * t) / np.where(omega == 0, 1, 2 * omega))
    return checks.plain(np.real(np.exp(-slow * t) * (1 + slow * spread)))


def _whole_steps(steps_per_epoch: int, epochs: int) -> int:
    """Updates in a whole training, checked."""
    per_epoch = checks.whole("steps_per_epoch", steps_per_epoch, 1)
    return per_epoch * checks.whole("epochs", epochs, 1)


def _dimensionless(lr, momentum, weight_decay, decoupled):
    """β, c = ηλ_c and y = ηλ_d, each checked."""
    beta = checks.real("momentum", momentum, 0, 1)
    eta_lambda = checks.real("lr", lr, 0, ends="()") * checks.real("weight_decay", weight_decay, 0)
    share = checks.real("decoupled", decoupled, 0, 1, "[]")
    return beta, eta_lambda * (1 - share), eta_lambda * share


def _phases(steps_per_epoch, epochs, milestones) -> list[tuple[int, int, float]]:
    """(first step, number of steps, factor on the previous learning rate) of each phase."""
    checks.real("milestones", tuple(milestones), 0)
    drops = (min(floor(m * epochs), epochs) * steps_per_epoch for m in sorted(milestones))
    starts = [0, *drops]
    ends = [*starts[1:], epochs * steps_per_epoch]
    factors = [1.0] + [0.1] * len(milestones)
    return [(a, b - a, factor) for a, b, factor in zip(starts, ends, factors, strict=True)]


def _through_phases(t, beta, c, y, phases):
    """u_t / u_0 through phases of constant learning rate; all broadcast."""
    t, beta, c, y = np.broadcast_arrays(t, beta, c, y)
    state = np.zeros((*t.shape, 2, 1))  # u and w = ηv
    state[..., 0, 0] = 1
    scale = 1.0
    for start, length, factor in phases:
        scale *= factor
        state[..., 1, :] *= factor  # v carries over, so ηv drops with η
        state = _powered(_step(beta, c * scale, y * scale), np.clip(t - start, 0, length), state)
    u = state[..., 0, 0]
    return checks.plain(np.where(np.isnan(u), np.inf, u))  # ∞ − ∞: overflowed


def _step(beta, c, y):
    """A of the module's head, (..., 2, 2)."""
    return np.stack([np.stack([1 - y - c, -beta], -1), np.stack([c, beta], -1)], -2)


def _powered(step, n, state):
    """stepⁿ state by squaring: as exact as n steps, also where the roots are equal or complex."""
    (a, b), (c, d) = (np.moveaxis(step[..., row, :], -1, 0) for row in (0, 1))
    u, w = state[..., 0, 0], state[..., 1, 0]
    n = n.astype(np.int64)
    with np.errstate(over="ignore", invalid="ignore"):
        while n.any():  # written out: four times as fast as products of small matrices
            odd = n % 2 == 1
            u, w = np.where(odd, a * u + b * w, u), np.where(odd, c * u + d * w, w)
            off, trace = b * c, a + d
            a, b, c, d, n = a * a + off, b * trace, c * trace, d * d + off, n // 2
    return np.stack([u, w], -1)[..., None]


def _noise(step, kick, covariance, n):
    """The state's covariance after n steps x ← step x + kick, by doubling, all (..., 2, 2)."""
    while n:
        if n & 1:
            covariance = step @ covariance @ step.mT + kick
        kick = kick + step @ kick @ step.mT
        step, n = step @ step, n >> 1
    return covariance


def _log_abs(s):
    """log|1 − s|, to full relative accuracy for small s."""
    return np.log1p(-np.minimum(s, 2 - s))
