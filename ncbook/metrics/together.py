"""All metrics at once: of one network, checked, and of many members, unchecked."""

import torch
from torch import Tensor

from ncbook.metrics import checks
from ncbook.metrics.agreement import nearest_mean_agreement
from ncbook.metrics.geometry import GAUGE_FREE, check_scale, geometry_metrics
from ncbook.metrics.variability import (
    centred_means,
    class_means,
    residual_scatter,
    variability_metrics,
)

KEYS = ("nc0", "nc1", "nc2", "nc2n", "nc2a", "nc2w", "nc2wn", "nc2wa", "nc2m", "nc3", "nc4")
KEYS += ("nc1_quotient", "cdnv", "w_norm", "gauge_share", *GAUGE_FREE)


@checks.measuring
def nc_metrics(
    features, labels, weight, bias=None, test_features=None, test_labels=None, *, scale="reported"
) -> dict[str, float]:
    """Every neural-collapse metric of one network.

    The default scale, ``"reported"``, is the one of the paper's tables: no further factor.
    ``"text"`` divides as the equations do: nc2, nc2w and nc2m by K², nc3 by K p, and nc0 by the n
    of eq. 12, which the paper doesn't define and which we read as K, the length of the vector 1.

    Softmax ignores W -> W + 1cᵀ. With W_c = W - 11ᵀW/K, whose rows are those of W centred over
    the classes, ``w_norm`` = ‖W‖_F, ``gauge_share`` = NC0 / (√K ‖W‖_F), and ``nc2w_centred``,
    ``nc2m_centred``, ``nc3_centred`` are NC2W, NC2M, NC3 of W_c, scaled like them. So
    NC3² = 2 - 2 √(1 - gauge_share²) cos(W_c, M). If W, W_c or M is 0, metrics of its direction are
    NaN.

    Args:
        features: H (N, p), of the training set in evaluation mode, without augmentation; floating
            point, a Tensor on any device with float64, or what NumPy makes an array of.
        labels: (N,), integers in [0, K); each class must occur.
        weight: W (K, p), K >= 2.
        bias: b (K,) or None. Only nc4 uses it; eq. 11 leaves it out, which is None.
        test_features: (N_test, p) or None, without which there is no nc4.
        test_labels: (N_test,) or None. Checked like ``labels``, but no metric uses them: nc4
            compares two classifiers with each other, not with the truth.
        scale: ``"reported"`` or ``"text"``.

    Returns:
        dict of floats, with ``KEYS`` in their order.

    Raises:
        ValueError: naming the value, for a wrong shape, type, label or scale, fewer than two
            classes, a class with no samples, NaN or inf.

    >>> from ncbook.metrics import simplex_etf
    >>> rows = simplex_etf(3)  # perfect collapse: features and weight are one simplex ETF
    >>> found = nc_metrics(rows, [0, 1, 2], 2 * rows)
    >>> round(found.pop("w_norm"), 12), max(found.values()) < 1e-12
    (2.0, True)
    """
    check_scale(scale)
    features = checks.float_tensor("features", features)
    weight, bias = checks.checked_layer(weight, bias, features.device)
    features, labels = checks.checked_samples(features, checks.as_tensor("labels", labels), weight)
    checks.check_every_class_occurs(torch.bincount(labels, minlength=len(weight)))
    if test_features is not None:
        test_features, _ = checks.checked_samples(test_features, test_labels, weight, "test_")
    elif test_labels is not None:
        raise ValueError("test_labels came without test_features")
    bias, test_features = (None if x is None else x[None] for x in (bias, test_features))
    metrics = member_metrics(features[None], labels, weight[None], bias, test_features, scale=scale)
    return {name: value.item() for name, value in metrics.items()}


@checks.measuring
@checks.tensor_function
def member_metrics(
    features: Tensor,
    labels: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    test_features: Tensor | None = None,
    *,
    scale: str = "reported",
) -> dict[str, Tensor]:
    """All metrics of M members at once; unchecked, for use while training. See `nc_metrics`.

    A member with NaN or inf gets NaN or inf in what depends on it; the others are untouched.

    Args:
        features: (M, N, p), in evaluation mode, without augmentation.
        labels: (N,), shared by the members; each class must occur.
        weight: (M, K, p).
        bias: (M, K) or None.
        test_features: (M, N_test, p) or None, without which there is no nc4.
        scale: see `nc_metrics`.

    Returns:
        dict of float64 Tensors (M,), keys as of `nc_metrics`.

    Raises:
        ValueError: unknown scale.
    """
    check_scale(scale)
    num_classes = weight.shape[-2]
    means = class_means(features, labels, num_classes)
    scatter, whitened = residual_scatter(features, labels, means)
    centred, counts = centred_means(means), torch.bincount(labels, minlength=num_classes)
    metrics = geometry_metrics(weight.double(), centred, scale=scale)
    metrics |= variability_metrics(scatter, whitened, counts, centred)
    if test_features is not None:
        metrics["nc4"] = nearest_mean_agreement(test_features, weight, means, bias)
    return in_order(metrics)


def in_order(metrics: dict[str, Tensor]) -> dict[str, Tensor]:
    """The metrics in the order of KEYS."""
    return {name: metrics[name] for name in KEYS if name in metrics}
