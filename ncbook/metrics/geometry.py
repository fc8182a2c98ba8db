"""Metrics of W and M alone: NC0, NC2 and its variants, NC3, the gauge, singular values."""

import math

import torch
from torch import Tensor

from ncbook.metrics.checks import tensor_function


def simplex_etf(
    num_classes: int, *, dtype: torch.dtype = torch.float64, device: torch.device | None = None
) -> Tensor:
    """S_ETF = (I_K - J_K / K) / sqrt(K - 1), (K, K), of Frobenius norm 1: the paper's M*, below
    eq. 5. Raises ValueError for K < 2."""
    if num_classes < 2:
        raise ValueError(f"a simplex ETF needs at least 2 classes, got {num_classes}")
    identity = torch.eye(num_classes, dtype=dtype, device=device)
    return (identity - 1 / num_classes) / math.sqrt(num_classes - 1)


@tensor_function
def nc0(weight: Tensor) -> Tensor:
    """NC0 = ‖Wᵀ1‖₂ (eq. 12 without its 1/n) of W (..., K, p): 0 if its rows sum to zero. Returns
    (...,); unlike the others it grows with W."""
    return torch.linalg.vector_norm(weight.double().sum(-2), dim=-1)


@tensor_function
def gauge_share(weight: Tensor) -> Tensor:
    """‖11ᵀW/K‖_F / ‖W‖_F = NC0 / (√K ‖W‖_F), in [0, 1]: the share of W without effect.

    Softmax gives W + 1cᵀ the same probabilities as W, for any c. Returns float64 (...,); NaN for
    W = 0.

    >>> round(gauge_share(torch.tensor([[3.0, 4.0], [3.0, -4.0]])).item(), 12)
    0.6
    """
    weight = unit_norm(weight.double())
    return (nc0(weight) / math.sqrt(weight.shape[-2])).clamp(max=1.0)


@tensor_function
def without_gauge(weight: Tensor) -> Tensor:
    """W_c = W - 11ᵀW/K (..., K, p), float64: the rows of W centred over the classes.

    If the rows are equal up to rounding, W_c is 0, so that its metrics are NaN and not noise.
    """
    weight = weight.double()
    centred = weight - weight.mean(-2, keepdim=True)
    rounding = weight.shape[-2] * torch.finfo(weight.dtype).eps
    left, whole = (part.abs().amax((-2, -1), keepdim=True) for part in (centred, weight))
    return torch.where(left <= rounding * whole, 0.0, centred)


@tensor_function
def etf_distance(product: Tensor) -> Tensor:
    """‖G / ‖G‖_F - S_ETF‖_F of a K x K product G (..., K, K). Returns (...,).

    NC2 is that of M Mᵀ (eq. 5), NC2W of W Wᵀ (eq. 6; W is not centred), NC2M of W Mᵀ (eq. 9).

    >>> round(etf_distance(3 * simplex_etf(4)).item(), 12)
    0.0
    """
    etf = simplex_etf(product.shape[-1], device=product.device)
    return torch.linalg.matrix_norm(unit_norm(product.double()) - etf)


@tensor_function
def row_norm_spread(rows: Tensor) -> Tensor:
    """std_k ‖row_k‖ / mean_k ‖row_k‖ of (..., K, p); the std is the unbiased one. Returns (...,).

    NC2n is that of M (eq. 3), NC2Wn of W (eq. 7).
    """
    norms = torch.linalg.vector_norm(rows.double(), dim=-1)
    return norms.std(-1, correction=1) / norms.mean(-1)


@tensor_function
def equiangularity(rows: Tensor) -> Tensor:
    """Mean over k ≠ k' of |cos(row_k, row_k') + 1/(K-1)| of (..., K, p). Returns (...,).

    NC2a is that of M (eq. 4), NC2Wa of W (eq. 8). A row of zeros has no angle: NaN.
    """
    rows = rows.double()
    directions = rows / torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    cosines = directions @ directions.mT
    return mean_of_pairs((cosines + 1 / (rows.shape[-2] - 1)).abs())


@tensor_function
def self_duality(weight: Tensor, centred: Tensor) -> Tensor:
    """NC3 = ‖W / ‖W‖_F - M / ‖M‖_F‖_F (eq. 10 without its 1/(Kp)), in [0, 2]. Returns (...,)."""
    return torch.linalg.matrix_norm(unit_norm(weight.double()) - unit_norm(centred.double()))


@tensor_function
def singular_values(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The smallest singular value of (..., K, p), and the mean of the others (Fig. 6 and 16).

    Returns two float64 Tensors (...,); NaN for a member that has NaN or inf. Computed from the
    matrix itself: a Gram matrix would lose half the digits of the smallest.
    """
    rows = rows.double().mT  # tall: twice as fast as wide
    finite = rows.isfinite().all(-1).all(-1)
    # svdvals raises on NaN, for the whole batch
    values = torch.linalg.svdvals(torch.where(finite[..., None, None], rows, 0.0))
    values = torch.where(finite[..., None], values, torch.nan)  # (..., min(K, p)), descending
    return values[..., -1], values[..., :-1].mean(-1)


def mean_of_pairs(values: Tensor) -> Tensor:
    """Mean of the off-diagonal entries of (..., K, K), whatever the diagonal holds."""
    num_classes = values.shape[-1]
    diagonal = torch.eye(num_classes, dtype=torch.bool, device=values.device)
    total = values.masked_fill(diagonal, 0).sum((-2, -1))
    return total / (num_classes * (num_classes - 1))


def unit_norm(matrix: Tensor) -> Tensor:
    """Scaled to Frobenius norm 1; first by its largest entry, whose square may overflow."""
    matrix = matrix / matrix.abs().amax((-2, -1), keepdim=True)
    return matrix / torch.linalg.matrix_norm(matrix, keepdim=True)
