"""All that reads the features: class means, the scatter about them, and the decisions of NC4."""

from collections.abc import Iterator

import torch
from torch import Tensor

from ncbook.metrics.checks import checked_labels, tensor_function
from ncbook.metrics.geometry import mean_of_pairs

# 1 MiB of float32: a block, its residuals and its float64 copy stay in one core's 2 MiB cache.
BLOCK_ELEMENTS = 2**18


def blocks(features: Tensor) -> Iterator[tuple[int, slice, Tensor]]:
    """(member, rows, features[member, rows]) in blocks of at most BLOCK_ELEMENTS numbers."""
    size = max(1, BLOCK_ELEMENTS // features.shape[-1])
    for member, samples in enumerate(features.reshape(-1, *features.shape[-2:])):
        for start in range(0, len(samples), size):
            rows = slice(start, start + size)
            yield member, rows, samples[rows]


@tensor_function
def class_means(features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """mu_k = mean of the features (..., N, p) whose labels (N,), shared by all members, are k.

    Returns float64 (..., K, p); NaN in the row of a class with no samples.

    >>> class_means(torch.tensor([[0.0], [2.0], [5.0]]), torch.tensor([0, 0, 1]), 2)
    tensor([[1.],
            [5.]], dtype=torch.float64)
    """
    labels = checked_labels(labels, features, num_classes)
    return unchecked_means(features, labels, num_classes)


def unchecked_means(features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """`class_means` of labels that are known to be right: no value is read, for which a GPU would
    have to wait."""
    counts = class_counts(labels, num_classes)
    return class_sums(features, labels, num_classes) / counts[:, None]


def class_counts(labels: Tensor, num_classes: int) -> Tensor:
    """Samples in each class, (K,); ``torch.bincount`` reads a value."""
    return labels.new_zeros(num_classes).index_add_(0, labels, torch.ones_like(labels))


def class_sums(features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Σ_{n in class k} h_n, float64 (..., K, p)."""
    shape = (*features.shape[:-2], num_classes, features.shape[-1])
    sums = torch.zeros(shape, dtype=torch.float64, device=features.device)
    of_member = sums.view(-1, *shape[-2:])
    for member, rows, block in blocks(features):
        of_member[member].index_add_(0, labels[rows], block.to(sums.dtype))
    return sums


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
    centred = centred.double()
    gram = centred @ centred.mT
    finite = gram.isfinite().all(-1, keepdim=True).all(-2, keepdim=True)
    # eigh raises on NaN, for the whole batch
    squares, vectors = torch.linalg.eigh(torch.where(finite, gram, 0.0))
    cutoff = max(centred.shape[-2:]) * torch.finfo(gram.dtype).eps * squares[..., -1:]
    inverted = torch.where(squares > cutoff, 1 / squares, 0.0)
    inverted[..., 0] = 0.0
    dual = centred.mT @ (vectors * inverted[..., None, :]) @ vectors.mT
    return torch.where(finite, dual, torch.nan)


def residual_scatter(
    features: Tensor, labels: Tensor, means: Tensor, duals: Tensor
) -> tuple[Tensor, Tensor]:
    """Σ ‖r_n‖² for each class (..., K), and Σ ‖r_n M†‖² over all (...,), of the residuals
    r_n = h_n - mu_{y_n}; float64."""
    _check_members(features, means)
    scatter = torch.zeros(means.shape[:-1], dtype=torch.float64, device=means.device)
    whitened = torch.zeros(means.shape[:-2], dtype=torch.float64, device=means.device)
    by_class, total = scatter.view(-1, scatter.shape[-1]), whitened.view(-1)
    means, duals = (part.reshape(-1, *part.shape[-2:]) for part in (means, duals))
    # Subtracting the rounded mean from a feature near it is exact; then the mean's other digits.
    dtype = torch.promote_types(features.dtype, torch.float32)  # float64 stays
    rounded, duals = means.to(dtype), duals.to(dtype)
    remainders = (means - rounded).to(dtype)
    for member, rows, block in blocks(features):
        residuals = block - rounded[member].index_select(0, labels[rows])
        residuals -= remainders[member].index_select(0, labels[rows])
        by_class[member].index_add_(0, labels[rows], _squared_norms(residuals))
        total[member] += _squared_norms(residuals @ duals[member]).sum()
    return scatter, whitened


def _check_members(features: Tensor, means: Tensor) -> None:
    if features.shape[:-2] != means.shape[:-2]:
        raise ValueError(
            f"features {tuple(features.shape)} and class means {tuple(means.shape)} must have the "
            "same members: all axes but the last two"
        )


def _squared_norms(rows: Tensor) -> Tensor:
    """‖row‖² of (n, p), float64. Float32 norms take a third of a CPU's time, but their squares
    overflow where the norms are beyond about 1e19, or lose digits where they are small."""
    if rows.device.type == "cpu":  # another device would have to wait for the comparison
        norms = torch.linalg.vector_norm(rows, dim=-1)
        least, most = norms.aminmax()
        if least > 1e-12 and most < 1e18:
            return norms.double().square()
    return torch.linalg.vector_norm(rows, dim=-1, dtype=torch.float64).square()


@tensor_function
def nc1(features: Tensor, labels: Tensor, means: Tensor) -> Tensor:
    """NC1 = Tr(Σ_W Σ_B†) / K = ‖R M†‖²_F / N (eq. 2): features vary little about their class mean.

    Σ_W = Σ_n r_n r_nᵀ / N about the class means, Σ_B = MᵀM / K. Since Σ_B† = K M† M†ᵀ, K cancels.
    If all features are equal, M† = 0, and so NC1 = 0. Features (..., N, p), labels (N,) and class
    means (..., K, p) to (...,).
    """
    labels = checked_labels(labels, features, means.shape[-2])
    means = means.double()
    duals = dual_means(centred_means(means))
    return residual_scatter(features, labels, means, duals)[1] / len(labels)


@tensor_function
def class_distance_variance(variances: Tensor, centred: Tensor) -> Tensor:
    """CDNV = mean over i ≠ j of (Var_i + Var_j) / (2 ‖mu_i - mu_j‖²) (Galanti et al., 2021).

    Of Var_k = mean of ‖h - mu_k‖² over class k, (..., K), and M (or mu: only differences count),
    (..., K, p). Returns (...,); inf where two class means coincide up to rounding.
    """
    centred = centred_means(centred.double())  # else squares of a large common part would cancel
    gram = centred @ centred.mT
    squares = gram.diagonal(dim1=-2, dim2=-1)
    sums = squares[..., :, None] + squares[..., None, :]
    distances = (sums - 2 * gram).clamp_min(0)
    ratios = (variances[..., :, None] + variances[..., None, :]) / (2 * distances)
    rounding = 4 * torch.finfo(gram.dtype).eps * sums
    return mean_of_pairs(torch.where(distances <= rounding, torch.inf, ratios))


@tensor_function
def nearest_mean_agreement(
    features: Tensor, weight: Tensor, means: Tensor, bias: Tensor | None = None
) -> Tensor:
    """NC4 = share of samples on which argmax_k (W h + b)_k is the nearest class mean (eq. 11).

    Eq. 11 has no bias: ``bias=None``. With a bias (..., K) given, it counts, as it does in the
    network. Features (..., N, p) are the test set's, means (..., K, p) the training set's. Returns
    (...,); NaN for a member with any score that is NaN or inf.
    """
    return count_agreements(features, weight, means, bias) / features.shape[-2]


def count_agreements(
    features: Tensor, weight: Tensor, means: Tensor, bias: Tensor | None
) -> Tensor:
    """On how many samples the two classifiers of `nearest_mean_agreement` agree, (...,)."""
    _check_members(features, means)
    dtype = torch.promote_types(features.dtype, torch.float32)
    shape, num_classes = means.shape[:-2], means.shape[-2]
    means = means.reshape(-1, *means.shape[-2:])
    centre = means.mean(-2).to(dtype)  # rounded: everything is measured from here
    offsets = means - centre[:, None, :].double()
    weight = weight.double().reshape(offsets.shape)
    # argmin ‖x - m‖² = argmax (m·x - ‖m‖²/2) with x = h - centre: both decisions in one product
    linear = (weight @ centre.double()[..., None])[..., 0]
    linear = linear if bias is None else linear + bias.reshape(linear.shape)
    # Dividing all scores of a member by one number changes no decision, and avoids overflow.
    size, steepness = _power_of_two(offsets), _power_of_two(weight)
    linear, weight = linear / (size * steepness)[:, :, 0], weight / (size * steepness)
    offsets = offsets / size
    nearest = -offsets.square().sum(-1) / 2
    constants = torch.cat([linear, nearest], -1).to(dtype)  # (M, 2K)
    slopes = torch.cat([weight, offsets / size], -2).mT.to(dtype)  # (M, p, 2K)
    agreements = torch.zeros(len(offsets), dtype=torch.float64, device=means.device)
    for member, _, block in blocks(features):
        scores = torch.addmm(constants[member], block - centre[member], slopes[member])
        same = scores[:, :num_classes].argmax(-1) == scores[:, num_classes:].argmax(-1)
        # argmax takes NaN for the largest; 0 · NaN and 0 · inf are NaN and mark the member
        agreements[member] += same.sum() + 0 * scores.sum(dtype=torch.float64)
    return agreements.reshape(shape)


def _power_of_two(rows: Tensor) -> Tensor:
    """The power of two above each member's largest entry, (M, K, p) to (M, 1, 1): dividing by it is
    exact."""
    exponent = torch.frexp(rows.abs().amax((-2, -1), keepdim=True)).exponent
    return torch.ldexp(torch.ones_like(exponent, dtype=rows.dtype), exponent)
