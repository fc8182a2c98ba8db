"""Whether the linear layer and the nearest class mean agree: NC4."""

import torch
from torch import Tensor

from ncbook.metrics.blocks import blocks, work_dtype
from ncbook.metrics.checks import tensor_function


@tensor_function
def nearest_mean_agreement(
    features: Tensor, weight: Tensor, means: Tensor, bias: Tensor | None = None
) -> Tensor:
    """NC4 = share of samples on which argmax_k (W h + b)_k is the nearest class mean (eq. 11).

    Eq. 11 has no bias: ``bias=None``. With a bias given, it counts, as it does in the network.

    Args:
        features: (..., N, p), of the test set; needs no labels.
        weight: (..., K, p).
        means: (..., K, p), class means of the training set.
        bias: (..., K) or None.

    Returns:
        Tensor (...,); NaN for a member with any score that is NaN or inf.
    """
    return count_agreements(features, weight, means, bias) / features.shape[-2]


def count_agreements(
    features: Tensor, weight: Tensor, means: Tensor, bias: Tensor | None
) -> Tensor:
    """On how many samples the two classifiers of `nearest_mean_agreement` agree, (...,)."""
    dtype, shape, num_classes = work_dtype(features), means.shape[:-2], means.shape[-2]
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
    offsets = offsets / size
    constants = torch.cat([linear, nearest], -1).to(dtype)  # (M, 2K)
    slopes = torch.cat([weight, offsets], -2).mT.to(dtype)  # (M, p, 2K)
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
