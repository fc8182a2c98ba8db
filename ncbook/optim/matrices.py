"""Directions for whole matrices: Muon, Shampoo and SOAP.

Each takes the gradient G of shape (..., rows, columns), one matrix for each member, and moves its
slots in place. A convolution's weight is the matrix (out, in * height * width). All three multiply
G from the left and the right, so that what G lacks on the left, it lacks afterwards: a gradient
with zero column sums gives a direction with zero column sums, but for rounding.

``refresh`` computes what is too slow for each step. It runs after steps 1, 11, 21 and so on.
"""

import torch
from torch import Tensor

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # Jordan et al. (2024): a x + b x^3 + c x^5
NEWTON_SCHULZ_STEPS = 5
NORM_EPS = 1e-7  # torch.optim.Muon's
SHAMPOO_EPS = 1e-6  # added to the eigenvalues of L and R
SOAP_BETA2 = 0.95  # of the second moment and of L and R, as Vyas et al. (2024) have it
SOAP_EPS = 1e-8
REFRESH_EVERY = 10  # steps, as in SOAP's code

Slots = tuple[Tensor, ...]


def orthogonalised(matrix: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Five Newton-Schulz steps: about U Vᵀ of U S Vᵀ, with singular values of 0.7 to 1.2 (those
    below some 1e-3 of ‖G‖_F are only enlarged 485 times).

    X <- a X + (b X Xᵀ + c (X Xᵀ)²) X from X = G / ‖G‖_F (Jordan et al., 2024).

    Args:
        matrix: G, (..., rows, columns).
        dtype: of the products; by default the matrix's.

    Returns:
        The same shape and dtype as ``matrix``.
    """
    a, b, c = NEWTON_SCHULZ
    x = matrix.to(dtype or matrix.dtype)
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=NORM_EPS)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).to(matrix.dtype)


def muon(grad: Tensor, slots: Slots, f, dtype: torch.dtype | None) -> Tensor:
    """m <- beta m + (1 - beta) G;  D = orthogonalised(beta m + (1 - beta) G) √max(1, rows/columns).

    torch.optim.Muon's, which is Jordan et al.'s with Nesterov momentum.
    """
    (mean,) = slots
    mean.copy_(f.momentum * mean + f.fresh * grad)
    ahead = f.momentum * mean + f.fresh * grad
    rows, columns = grad.shape[-2:]
    return orthogonalised(ahead, dtype) * max(1, rows / columns) ** 0.5


def _squares(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Zeros of the shapes of L, (..., rows, rows), and of R, (..., columns, columns)."""
    *lead, rows, columns = matrix.shape
    return matrix.new_zeros(*lead, rows, rows), matrix.new_zeros(*lead, columns, columns)


def _product(left: Tensor, matrix: Tensor, right: Tensor, dtype: torch.dtype | None) -> Tensor:
    """left @ matrix @ right in this dtype, rounded back to the matrix's."""
    left, inner, right = (t.to(dtype or matrix.dtype) for t in (left, matrix, right))
    return (left @ inner @ right).to(matrix.dtype)


def start_shampoo(matrix: Tensor) -> Slots:
    """(m, L, R, L^(-1/4), R^(-1/4)), all zero: so the first direction is zero."""
    return (torch.zeros_like(matrix), *_squares(matrix), *_squares(matrix))


def shampoo(grad: Tensor, slots: Slots, f, dtype: torch.dtype | None) -> Tensor:
    """L <- L + G Gᵀ;  R <- R + Gᵀ G;  m <- beta m + (1 - beta) G;  D = L^(-1/4) m R^(-1/4).

    Algorithm 1 of Gupta, Koren & Singer (2018), with momentum. The roots are those of
    ``refresh_shampoo``, so the first step only collects L and R.
    """
    mean, left, right, left_root, right_root = slots
    left.copy_(left + grad @ grad.mT)
    right.copy_(right + grad.mT @ grad)
    mean.copy_(f.momentum * mean + f.fresh * grad)
    return _product(left_root, mean, right_root, dtype)


def refresh_shampoo(slots: Slots, first: bool) -> None:
    """The roots (L + eps I)^(-1/4) and (R + eps I)^(-1/4)."""
    _, *squares, left_root, right_root = slots
    for square, root in zip(squares, (left_root, right_root), strict=True):
        values, vectors = torch.linalg.eigh(_for_lapack(square))
        powers = (values.clamp(min=0) + SHAMPOO_EPS) ** -0.25
        root.copy_((vectors * powers.unsqueeze(-2)) @ vectors.mT)


def _for_lapack(matrix: Tensor) -> Tensor:
    """LAPACK refuses the NaN of a member that is lost, and numbers of 16 bits."""
    return matrix.nan_to_num(0, 0, 0).to(torch.promote_types(matrix.dtype, torch.float32))


def start_soap(matrix: Tensor) -> Slots:
    """(m, s, L, R, Q_L, Q_R, weights of m and s), all zero: so the first direction is zero."""
    moments = torch.zeros_like(matrix), torch.zeros_like(matrix)
    weights = matrix.new_zeros(*matrix.shape[:-2], 2, 1)
    return (*moments, *_squares(matrix), *_squares(matrix), weights)


def soap(grad: Tensor, slots: Slots, f, dtype: torch.dtype | None) -> Tensor:
    """Adam in the eigenvectors of Shampoo's L and R (Vyas et al., 2024, Algorithm 3).

    G' = Q_Lᵀ G Q_R;  m <- beta m + (1 - beta) G';  s <- beta2 s + (1 - beta2) G'^2;
    D = Q_L (m̂ / (√ŝ + eps')) Q_Rᵀ;  L <- beta2 L + (1 - beta2) G Gᵀ;  R likewise,

    with beta2 = 0.95. The published code adds eps to √s before its correction, and so do we. Its
    first step only collects L and R, which is what happens here while Q_L is zero (but for the
    decay, which it skips then).

    The flat direction is a column of Q_L, but for a time at the start where G has fewer columns
    than rows: L then has several null vectors, which the first basis mixes.
    """
    mean, square, left, right, left_basis, right_basis, weights = slots
    turned = _product(left_basis.mT, grad, right_basis, dtype)
    mean.copy_(f.momentum * mean + f.fresh * turned)
    square.copy_(SOAP_BETA2 * square + (1 - SOAP_BETA2) * turned * turned)
    # The sum of the gradients' weights in m and s, 1 - beta^t and 1 - beta2^t.
    begun = (left_basis[..., :1, :].square().sum(-1, keepdim=True) > 0.5).to(grad.dtype)
    of_mean, of_square = weights[..., :1, :], weights[..., 1:, :]
    of_mean.copy_(f.momentum * of_mean + f.fresh * begun)
    of_square.copy_(SOAP_BETA2 * of_square + (1 - SOAP_BETA2) * begun)
    scale = of_square.sqrt() / torch.where(begun > 0, of_mean, 1)
    left.copy_(SOAP_BETA2 * left + (1 - SOAP_BETA2) * grad @ grad.mT)
    right.copy_(SOAP_BETA2 * right + (1 - SOAP_BETA2) * grad.mT @ grad)
    inner = scale * mean / (square.sqrt() + SOAP_EPS)
    return _product(left_basis, inner, right_basis.mT, dtype)


def refresh_soap(slots: Slots, first: bool) -> None:
    """The eigenvectors of L and R: at first all of them, later by one step of the power iteration,
    which sorts them by their eigenvalues; m and s move to the new basis."""
    mean, square, left, right, left_basis, right_basis, _ = slots
    if first:
        left_basis.copy_(torch.linalg.eigh(_for_lapack(left))[1].flip(-1))
        right_basis.copy_(torch.linalg.eigh(_for_lapack(right))[1].flip(-1))
        return
    whole = left_basis @ mean @ right_basis.mT
    rows, columns = _turn_basis(left, left_basis), _turn_basis(right, right_basis)
    mean.copy_(left_basis.mT @ whole @ right_basis)
    by_rows = square.take_along_dim(rows.unsqueeze(-1), -2)
    square.copy_(by_rows.take_along_dim(columns.unsqueeze(-2), -1))


def _turn_basis(square: Tensor, basis: Tensor) -> Tensor:
    """Improve a basis in place; the order in which its old vectors stand now, (..., n)."""
    product = square @ basis
    order = (basis * product).sum(-2).argsort(-1, descending=True)
    ordered = product.take_along_dim(order.unsqueeze(-2), -1)
    basis.copy_(torch.linalg.qr(_for_lapack(ordered))[0])
    return order
