"""The flat direction of softmax, and which optimizers never move along it.

Adding one vector c to every row of W changes no probability, so the gradient of cross-entropy has
zero column sums, 1ᵀG = 0 (Lemma E.4). With the reflection Q = I − 2·11ᵀ/K this reads QG = G.

*Reflection principle.* If an optimizer's directions are equivariant, D_t(QG₁, …, QG_t) =
Q D_t(G₁, …, G_t), then QG_s = G_s gives 1ᵀD_t = 0, and under decoupled decay the row sum u = Wᵀ1
obeys u ← (1 − ηλ)u exactly: the law of SGDW. SGD and Muon are equivariant; Adam, sign and Lion are
not. The chapter on the symmetry has the proofs.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ncbook.theory import checks

MakeOptimizer = Callable[[list[Tensor]], torch.optim.Optimizer]
TRIED = 20  # random gradients
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # Jordan et al. (2024), Muon: a x + b x³ + c x⁵
# What Muon's five steps multiply a tiny singular value with, and so what rounding leaves along the
# flat direction, where G has no part: 485.
NEWTON_SCHULZ_GAIN = NEWTON_SCHULZ[0] ** 5


def gauge_part(nc3_centred: ArrayLike, gauge_share: ArrayLike) -> float | np.ndarray:
    """The part of NC3² that no prediction depends on: NC3² − NC3(W_c)².

    With g the gauge share and cos_c the cosine of W_c = W − 11ᵀW/K and M, whose rows sum to zero,
    ⟨W, M⟩ = ⟨W_c, M⟩ and ‖W_c‖² = (1 − g²)‖W‖², so cos(W, M) = √(1 − g²) cos_c. As
    NC3² = 2 − 2 cos(W, M), it is NC3(W_c)² + 2 (1 − √(1 − g²)) cos_c with
    cos_c = 1 − NC3(W_c)²/2.

    Args:
        nc3_centred: NC3 of W_c, in [0, 2].
        gauge_share: g = ‖11ᵀW/K‖_F/‖W‖_F, in [0, 1]. The two broadcast against each other.

    Raises:
        ValueError: an argument outside its range.

    >>> round(gauge_part(0.0, 0.6), 12)
    0.4
    """
    g = checks.real("gauge_share", gauge_share, 0, 1, "[]")
    cosine = 1 - checks.real("nc3_centred", nc3_centred, 0, 2, "[]") ** 2 / 2
    # 1 − √(1 − g²), without the cancellation for small g.
    return checks.plain(2 * g**2 / (1 + np.sqrt(1 - g**2)) * cosine)


@dataclass(frozen=True)
class Equivariance:
    """What a test of an optimizer's symmetry found.

    Args:
        error: ‖W′ − QW‖_F / ‖W − W₀‖_F, of W trained on G₁ … G_t from W₀, and W′ on the reflected
            gradients from QW₀. Zero but for rounding: equivariant, and so without a leak.
        leak: ‖1ᵀW‖ / (√K ‖W − W₀‖_F) after gradients with zero column sums, from a W₀ whose rows
            sum to zero. Zero but for rounding: the update never moves along the flat direction.
    """

    error: float
    leak: float


def equivariance(make: MakeOptimizer, shape: tuple[int, int] = (10, 16)) -> Equivariance:
    """Whether an optimizer is equivariant under Q, tried on random gradients in float64.

    Args:
        make: a list with one parameter → its optimizer, with torch's interface.
        shape: (K, p) of that parameter.

    Raises:
        ValueError: fewer than two classes, or an optimizer that does nothing.

    >>> found = equivariance(lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9))
    >>> found.error < 1e-12, found.leak < 1e-12
    (True, True)
    >>> equivariance(lambda params: torch.optim.Adam(params, lr=0.1)).leak > 0.01
    True
    """
    classes, _ = checks.whole("classes", shape[0], 2), checks.whole("features", shape[1], 1)
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randn(1 + TRIED, *shape, generator=generator, dtype=torch.float64)
    reflect = torch.eye(classes, dtype=torch.float64) - 2 / classes
    start, gradients = numbers[0], numbers[1:]
    plain = _trained(make, start, gradients)
    if torch.equal(plain, start):
        raise ValueError("the optimizer does not move the parameter")
    reflected = _trained(make, reflect @ start, reflect @ gradients)
    centred = numbers - numbers.mean(1, keepdim=True)
    flat = _trained(make, centred[0], centred[1:])
    return Equivariance(
        float((reflected - reflect @ plain).norm() / (plain - start).norm()),
        float(flat.sum(0).norm() / classes**0.5 / (flat - centred[0]).norm()),
    )


def _trained(make: MakeOptimizer, start: Tensor, gradients: Iterable[Tensor]) -> Tensor:
    weight = torch.nn.Parameter(start.clone())
    optimizer = make([weight])
    for gradient in gradients:
        weight.grad = gradient.clone()
        optimizer.step()
    return weight.detach()


def weights(lrs: ArrayLike, weight_decay: float) -> tuple[np.ndarray, float]:
    """k_s = η_s ρ(T, s), (T,), and ρ(T, 0), where ρ(T, s) = Π_{s<r≤T} (1 − η_r λ): the weights of
    all leaks, and of u_0, in u_T.

    Args:
        lrs: η_t of every step, (T,).
        weight_decay: λ ≥ 0, decoupled.

    >>> k, kept = weights([0.1, 0.1], 1.0)
    >>> k.round(3).tolist(), round(kept, 3)
    ([0.09, 0.1], 0.81)
    """
    rates = np.atleast_1d(checks.real("lrs", lrs, 0))
    kept = 1 - rates * checks.real("weight_decay", weight_decay, 0)
    after = np.append(np.cumprod(kept[::-1])[::-1], 1.0)  # ρ(T, s − 1) at s − 1
    return rates * after[1:], float(after[0])


def noise_floor(
    lrs: ArrayLike,
    weight_decay: float,
    noise: ArrayLike,
    start: float = 0.0,
    memory: ArrayLike = 1.0,
) -> float:
    """Root mean square of ‖u‖ after decoupled decay with noise, u ← (1 − η_t λ)u − η_t ξ_t.

    With independent ξ_t of mean 0 and E‖ξ‖² = noise², E‖u‖² ← (1 − η_t λ)² E‖u‖² + η_t² noise². At
    a constant η it tends to noise · √(η/(λ(2 − ηλ))), about noise · √(η/(2λ)). Correlations that
    last much shorter than 1/(ηλ) multiply noise² by the memory.

    Args:
        lrs, weight_decay: as in :func:`weights`.
        noise: root mean square of ‖ξ‖, ≥ 0: what rounding leaves of 1ᵀD where D should have none;
            this and the memory are numbers, or one a step.
        start: ‖u‖ before the first step.
        memory: 1 + 2 Σ_k corr(ξ_t, ξ_{t+k}) ≥ 0.

    Raises:
        ValueError: an argument outside its range.

    >>> round(noise_floor([0.01] * 5000, 1.0, 0.1) / (0.1 * (0.01 / 2) ** 0.5), 2)
    1.0
    """
    k, kept = weights(lrs, weight_decay)
    kicks = k**2 * checks.real("noise", noise, 0) ** 2 * checks.real("memory", memory, 0)
    return float(np.sqrt((kept * checks.real("start", start, 0)) ** 2 + kicks.sum()))
