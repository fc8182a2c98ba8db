"""Sign gradient descent on the unconstrained-feature loss with H = M* fixed (Theorems 3.3, 3.4).

One sample a class, H = M* = (I − J/K)/√(K − 1), W (K, K), mean cross-entropy of the logits W M*:

    ∇ = (1/K) (softmax(W M*) − I) M*      ("exact"),
    softmax(W) − I                        (the gradient that the paper's proof goes on with).

    coupled:    W ← W − η sign(∇ + λW)
    decoupled:  W ← (1 − ηλ) W − η sign(∇)

From W₀ = 0, W_t = (a_t + b_t) I − b_t J: a on the diagonal, −b off it, and α = ‖Wᵀ1‖²/K =
(a − (K − 1) b)². There both gradients are g (J − K I), with g > 0 a function of a + b alone:

    g = φ((a + b)/√(K − 1)) / (K √(K − 1))  (exact),    g = φ(a + b)  (the paper's),
    φ(m) = 1/(eᵐ + K − 1).
"""

from itertools import accumulate
from math import exp, sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import softmax

from ncbook.theory import checks

# g > 0 must not underflow to 0, which has another sign; exp(-700) is still a normal float64.
LARGEST_GAP = 700.0


class TurningPoints(NamedTuple):
    """Where α turns under coupled SignGD, in steps, as real numbers; weights are η times these.

    rise_ends: T₁, root of g = λb at a = b = ηT₁. α rises until step ⌈T₁⌉ (K = 2: it is 0).
    fall_ends: T₂ as simulated: root of (K − 1) g = λa at a = ηT₂ with b on the curve g = λb.
        There a = (K − 1) b, so α has come down to its last oscillation around 0.
    fall_ends_proof: T₂ by the paper's proof, with b held at ηT₁.
    """

    rise_ends: float
    fall_ends: float
    fall_ends_proof: float


def simulate_signgd(
    num_classes: int,
    lr: float,
    weight_decay: float,
    steps: int,
    coupled: bool = True,
    exact: bool = True,
) -> np.ndarray:
    """α_t = ‖W_tᵀ1‖²/K from W₀ = 0, for t = 0 … steps.

    Args:
        num_classes: K ≥ 2.
        lr: η > 0.
        weight_decay: λ ≥ 0.
        steps: number of updates.
        coupled: decay inside the sign (Theorem 3.4) or outside it (Theorem 3.3).
        exact: the mean cross-entropy's gradient at H = M*, or the paper's softmax(W) − I.

    Returns:
        Shape (steps + 1,).

    Raises:
        ValueError: a parameter outside its range.

    Example:
        >>> simulate_signgd(10, 0.1, 0.5, 2, coupled=False)
        array([0.    , 0.64  , 2.4336])
    """
    a, b = simulate_signgd_scalars(num_classes, lr, weight_decay, steps, coupled, exact)
    return (a - (num_classes - 1) * b) ** 2


def simulate_signgd_scalars(
    num_classes: int,
    lr: float,
    weight_decay: float,
    steps: int,
    coupled: bool = True,
    exact: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """The trajectory itself: a_t (diagonal of W_t) and b_t (minus the rest), each (steps + 1,)."""
    _checked(num_classes, lr, weight_decay)
    K, lr, decay = num_classes, float(lr), float(weight_decay)
    path, i, j = np.zeros((2, checks.whole("steps", steps, 1) + 1)), 0, 0
    if not coupled:  # sign ∇ = J − 2I at every step, since g > 0, so a = b, whatever K and `exact`
        grown = accumulate(path[0, 1:], lambda w, _: (1 - lr * decay) * w + lr, initial=0.0)
        path[:] = list(grown)
        return tuple(path)
    for t in range(1, path.shape[1]):  # on whole multiples of η, without rounding errors
        g = off_diagonal(lr * (i + j), K, exact)
        a_force, b_force = (K - 1) * g - decay * lr * i, g - decay * lr * j
        i += (a_force > 0) - (a_force < 0)
        j += (b_force > 0) - (b_force < 0)
        path[:, t] = i, j
    return tuple(lr * path)


def simulate_signgd_matrix(
    weight: ArrayLike,
    lr: float,
    weight_decay: float,
    steps: int,
    coupled: bool = True,
    exact: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """The same descent from any W₀ (K, K), entry by entry: (α_t (steps + 1,), W_T (K, K)).

    Signs are right up to logit gaps of 745, where the softmax underflows.
    """
    W = checks.real("weight", weight, -np.inf, ends="()").copy()
    _checked(len(W), lr, weight_decay)
    row_sums = [W.sum(axis=0)]
    for _ in range(checks.whole("steps", steps, 1)):
        gradient = signgd_gradient(W, exact)
        if coupled:
            W -= lr * np.sign(gradient + weight_decay * W)
        else:
            W = (1 - lr * weight_decay) * W - lr * np.sign(gradient)
        row_sums.append(W.sum(axis=0))
    return np.sum(np.square(row_sums), axis=1) / len(W), W


def signgd_gradient(weight: np.ndarray, exact: bool = True) -> np.ndarray:
    """∇ of the module's head at W (K, K), with every sign right however small the entry: the
    diagonal of softmax − I is minus the sum of its column's rest, as s − 1 would round to 0."""
    K, features = len(weight), simplex_etf(len(weight))
    residual = softmax(weight @ features if exact else weight, axis=0)
    np.fill_diagonal(residual, 0)
    residual -= np.diag(residual.sum(axis=0))
    return residual @ features / K if exact else residual


def simplex_etf(num_classes: int) -> np.ndarray:
    """M* = (I − J/K)/√(K − 1), shape (K, K), of unit Frobenius norm (Proposition 2.1)."""
    K = num_classes
    return (np.eye(K) - 1 / K) / sqrt(K - 1)


def decoupled_alpha(
    steps: ArrayLike, num_classes: int, lr: float, weight_decay: float
) -> float | np.ndarray:
    """α_t = ((K − 2)/λ)² (1 − (1 − ηλ)ᵗ)² under decoupled decay from W₀ = 0 (Theorem E.2)."""
    t = checks.counts("steps", steps)
    _checked(num_classes, lr, weight_decay)
    grown = t * lr if weight_decay == 0 else (1 - (1 - lr * weight_decay) ** t) / weight_decay
    return checks.plain(((num_classes - 2) * grown) ** 2)


def decoupled_limit(num_classes: int, weight_decay: float) -> float:
    """α_∞ = (K − 2)²/λ² (Theorem 3.3, with the 1/K that its statement in the main text drops)."""
    checks.whole("num_classes", num_classes, 2)
    decay = checks.real("weight_decay", weight_decay, 0, ends="()")
    return float(((num_classes - 2) / decay) ** 2)


def turning_points(
    num_classes: int, lr: float, weight_decay: float, exact: bool = True
) -> TurningPoints:
    """T₁ and T₂ of Theorem 3.4 from the equations that define them, by bracketed root finding.

    g falls and λw rises in w, so each equation has one root, below g(0)/λ (or (K − 1) g(0)/λ).

    Example:
        >>> [round(t, 1) for t in turning_points(10, 0.01, 0.05)]
        [6.6, 58.6, 58.6]
    """
    _checked(num_classes, lr, weight_decay)
    K, decay = num_classes, float(checks.real("weight_decay", weight_decay, 0, ends="()"))
    highest = off_diagonal(0.0, K, exact) / decay
    b1 = brentq(lambda w: off_diagonal(2 * w, K, exact) - decay * w, 0, highest, xtol=1e-15)

    def balance(a, slope, b):
        return (K - 1) * off_diagonal(a + slope * a + b, K, exact) - decay * a

    ends = 0, (K - 1) * highest
    a2, a2_proof = (brentq(balance, *ends, own, 1e-15) for own in ((1 / (K - 1), 0), (0, b1)))
    return TurningPoints(b1 / lr, a2 / lr, a2_proof / lr)


def off_diagonal(gap: float, num_classes: int, exact: bool = True) -> float:
    """g of the module's head at a + b = gap ≥ 0; the diagonal of ∇ is −(K − 1) g."""
    K = num_classes
    scale = sqrt(K - 1) if exact else 1.0
    small = exp(-min(gap / scale, LARGEST_GAP))
    return small / (1 + (K - 1) * small) / (K * scale if exact else 1.0)


def _checked(num_classes, lr, weight_decay):
    checks.whole("num_classes", num_classes, 2)
    checks.real("lr", lr, 0, ends="()")
    checks.real("weight_decay", weight_decay, 0)
