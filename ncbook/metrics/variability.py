"""Class means, and how far features are from them: NC1, its quotient, CDNV."""

import torch
from torch import Tensor

from ncbook.metrics.blocks import blocks, work_dtype
from ncbook.metrics.checks import checked_labels, tensor_function
from ncbook.metrics.geometry import mean_of_pairs


@tensor_function
def class_means(features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """mu_k = mean of the features of class k.

    Args:
        features: (..., N, p).
        labels: (N,), integers in [0, K), shared by all members.
        num_classes: K.

    Returns:
        float64 Tensor (..., K, p); NaN in the row of a class with no samples.

    >>> class_means(torch.tensor([[0.0], [2.0], [5.0]]), torch.tensor([0, 0, 1]), 2)
    tensor([[1.],
            [5.]], dtype=torch.float64)
    """
    labels = checked_labels(labels, features, num_classes)
    shape = (*features.shape[:-2], num_classes, features.shape[-1])
    sums = torch.zeros(shape, dtype=torch.float64, device=features.device)
    add_class_sums(sums, features, labels)
    return sums / torch.bincount(labels, minlength=num_classes)[:, None]


@tensor_function
def centred_means(means: Tensor) -> Tensor:
    """M = mu - mu_G (..., K, p), with mu_G the unweighted mean over classes: M's rows sum to 0."""
    return means - means.mean(-2, keepdim=True)


@tensor_function
def dual_means(centred: Tensor) -> Tensor:
    """M† (..., p, K), the Moore-Penrose inverse of M (..., K, p); NaN for a member with NaN or inf.

    M's rows sum to zero: its smallest singular value is a structural zero and is never inverted.
    Of the others, those with σ² <= max(K, p) · eps(float64) · σ_max² count as zero: the usual
    cut-off for a float64 pseudo-inverse of Σ_B, whose eigenvalues are σ² / K.
    """
    gram = centred @ centred.mT
    finite = gram.isfinite().all(-1, keepdim=True).all(-2, keepdim=True)
    # eigh raises on NaN, for the whole batch
    squares, vectors = torch.linalg.eigh(torch.where(finite, gram, 0.0))
    cutoff = max(centred.shape[-2:]) * torch.finfo(gram.dtype).eps * squares[..., -1:]
    inverted = torch.where(squares > cutoff, 1 / squares, 0.0)
    inverted[..., 0] = 0.0
    dual = centred.mT @ (vectors * inverted[..., None, :]) @ vectors.mT
    return torch.where(finite, dual, torch.nan)


@tensor_function
def residual_scatter(features: Tensor, labels: Tensor, means: Tensor) -> tuple[Tensor, Tensor]:
    """Σ ‖r_n‖² for each class, and Σ ‖r_n M†‖² over all, of the residuals r_n = h_n - mu_{y_n}.

    Args:
        features: (..., N, p).
        labels: (N,).
        means: (..., K, p), the class means.

    Returns:
        float64 Tensors (..., K) and (...,).
    """
    labels = checked_labels(labels, features, means.shape[-2])
    scatter = torch.zeros(means.shape[:-1], dtype=torch.float64, device=means.device)
    whitened = torch.zeros(means.shape[:-2], dtype=torch.float64, device=means.device)
    duals = dual_means(centred_means(means))
    add_residual_scatter(scatter, whitened, features, labels, means, duals)
    return scatter, whitened


@tensor_function
def nc1(features: Tensor, labels: Tensor, means: Tensor) -> Tensor:
    """NC1 = Tr(Σ_W Σ_B†) / K = ‖R M†‖²_F / N (eq. 2): features vary little about their class mean.

    Σ_W = Σ_n r_n r_nᵀ / N about the class means, Σ_B = MᵀM / K. Since Σ_B† = K M† M†ᵀ, K cancels.
    If all features are equal, M† = 0, and so NC1 = 0.

    Args:
        features: (..., N, p).
        labels: (N,).
        means: (..., K, p), the class means.

    Returns:
        Tensor (...,).
    """
    return residual_scatter(features, labels, means)[1] / len(labels)


@tensor_function
def variability_metrics(
    scatter: Tensor, whitened: Tensor, counts: Tensor, centred: Tensor
) -> dict[str, Tensor]:
    """nc1 = Tr(Σ_W Σ_B†) / K (eq. 2), nc1_quotient = Tr Σ_W / Tr Σ_B, and cdnv, from sums.

    Args:
        scatter, whitened: from `residual_scatter`, (..., K) and (...,).
        counts: (K,), samples in each class.
        centred: M, (..., K, p).

    Returns:
        dict of Tensors (...,).
    """
    num_samples, num_classes = counts.sum(), len(counts)
    between = centred.square().sum((-2, -1)) / num_classes
    return {
        "nc1": whitened / num_samples,
        "nc1_quotient": scatter.sum(-1) / num_samples / between,
        "cdnv": class_distance_variance(scatter / counts, centred),
    }


@tensor_function
def class_distance_variance(variances: Tensor, centred: Tensor) -> Tensor:
    """CDNV = mean over i ≠ j of (Var_i + Var_j) / (2 ‖mu_i - mu_j‖²) (Galanti et al., 2021).

    Args:
        variances: (..., K), Var_k = mean of ‖h - mu_k‖² over class k.
        centred: M (or mu: only differences count), (..., K, p).

    Returns:
        Tensor (...,); inf where two class means coincide.
    """
    gram = centred @ centred.mT
    squares = gram.diagonal(dim1=-2, dim2=-1)
    distances = (squares[..., :, None] + squares[..., None, :] - 2 * gram).clamp_min(0)
    ratios = (variances[..., :, None] + variances[..., None, :]) / (2 * distances)
    return mean_of_pairs(ratios)


def add_class_sums(sums: Tensor, features: Tensor, labels: Tensor) -> None:
    """Add Σ_{n in class k} h_n to sums (..., K, p), in place."""
    sums = sums.view(-1, *sums.shape[-2:])
    for member, rows, block in blocks(features):
        sums[member].index_add_(0, labels[rows], block.to(sums.dtype))


def add_residual_scatter(
    scatter: Tensor,
    whitened: Tensor,
    features: Tensor,
    labels: Tensor,
    means: Tensor,
    duals: Tensor,
) -> None:
    """Add Σ ‖r‖² of each class to scatter (..., K) and Σ ‖r M†‖² to whitened (...,), in place."""
    dtype = work_dtype(features)
    means, duals = (part.reshape(-1, *part.shape[-2:]) for part in (means, duals))
    # Subtracting the rounded mean from a feature near it is exact; then the mean's other digits.
    rounded, duals = means.to(dtype), duals.to(dtype)
    remainders = (means - rounded).to(dtype)
    scatter, whitened = scatter.view(-1, scatter.shape[-1]), whitened.view(-1)
    for member, rows, block in blocks(features):
        residuals = block - rounded[member].index_select(0, labels[rows])
        residuals -= remainders[member].index_select(0, labels[rows])
        scatter[member].index_add_(0, labels[rows], _squared_norms(residuals))
        coordinates = residuals @ duals[member]  # (n, K)
        whitened[member] += _squared_norms(coordinates).sum()


def _squared_norms(rows: Tensor) -> Tensor:
    """‖row‖² of (n, p), float64. Float32 norms take a third of the time, but their squares overflow
    where the norms are beyond about 1e19, or lose digits where they are small."""
    norms = torch.linalg.vector_norm(rows, dim=-1)
    least, most = norms.aminmax()
    if not (least > 1e-12 and most < 1e18):
        norms = torch.linalg.vector_norm(rows, dim=-1, dtype=torch.float64)
    return norms.double().square()
