"""All metrics at once: of one network, checked, and of many members, unchecked."""

import torch
from torch import Tensor

from ncbook.metrics import checks, geometry
from ncbook.metrics.features import (
    centred_means,
    class_counts,
    class_distance_variance,
    dual_means,
    nearest_mean_agreement,
    residual_scatter,
    unchecked_means,
)

KEYS = ("nc0", "nc1", "nc2", "nc2n", "nc2a", "nc2w", "nc2wn", "nc2wa", "nc2m", "nc3", "nc4")
KEYS += ("nc1_quotient", "cdnv", "w_norm", "gauge_share")
KEYS += ("nc2w_centred", "nc2m_centred", "nc3_centred")  # NC2W, NC2M, NC3 of W_c
SCALES = ("reported", "text")


@checks.measuring
def nc_metrics(
    features, labels, weight, bias=None, test_features=None, test_labels=None, *, scale="reported"
) -> dict[str, float]:
    """Every neural-collapse metric of one network.

    With M (K, p) the class means, centred by the mean of all, M⁺ its pseudo-inverse, R (N, p) the
    features less their class's mean, and M* the simplex's Gram matrix of norm 1, in the equations'
    numbers of the paper::

        nc0   ‖Wᵀ1‖                                  (12)
        nc1   ‖R M⁺‖²_F / N                          (2)
        nc2   ‖M Mᵀ / ‖M Mᵀ‖_F - M*‖_F               (5)
        nc2n  std ‖M_k‖ / mean ‖M_k‖                 (3)
        nc2a  mean over k ≠ l of |cos(M_k, M_l) + 1/(K - 1)|   (4)
        nc2w, nc2wn, nc2wa    the same three of W    (6, 7, 8)
        nc2m  nc2 of W Mᵀ                            (9)
        nc3   ‖W/‖W‖_F - M/‖M‖_F‖_F                  (10)
        nc4   ``nearest_mean_agreement``             (11)

    ``nc1_quotient`` is Tr Σ_W / Tr Σ_B, and ``cdnv`` ``class_distance_variance``.

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
        test_labels: (N_test,) or None, checked like ``labels``; no metric uses them.
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
    if scale not in SCALES:
        raise ValueError(f"scale must be one of {', '.join(SCALES)}, got {scale!r}")
    features = checks.float_tensor("features", features)
    weight, bias = checks.checked_layer(weight, bias, features.device)
    features, labels = checks.checked_samples(features, checks.as_tensor("labels", labels), weight)
    checks.check_every_class_occurs(class_counts(labels, len(weight)))
    if test_features is not None:
        test_features, _ = checks.checked_samples(test_features, test_labels, weight, "test_")
    elif test_labels is not None:
        raise ValueError("test_labels came without test_features")
    bias, test_features = (None if x is None else x[None] for x in (bias, test_features))
    metrics = member_metrics(features[None], labels, weight[None], bias, test_features)
    found = {name: value.item() for name, value in metrics.items()}
    return found if scale == "reported" else _as_in_the_text(found, *weight.shape)


def _as_in_the_text(found: dict[str, float], num_classes: int, width: int) -> dict[str, float]:
    divisors = {"nc0": num_classes, "nc3": num_classes * width}
    divisors |= dict.fromkeys(("nc2", "nc2w", "nc2m"), num_classes**2)
    return {k: value / divisors.get(k.removesuffix("_centred"), 1) for k, value in found.items()}


@checks.measuring
def member_metrics(
    features: Tensor,
    labels: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    test_features: Tensor | None = None,
    *,
    means: Tensor | None = None,
) -> dict[str, Tensor]:
    """All metrics of M members at once; unchecked, for use while training. See `nc_metrics`.

    The members share labels (N,), in which each class must occur; all else has a leading axis M,
    and features are of evaluation mode; their class means (M, K, p) are computed if they are not
    given. Returns float64 Tensors (M,). A member with NaN or inf gets NaN or inf in what depends on
    it; the others are untouched.
    """
    counts = class_counts(labels, weight.shape[-2])
    if means is None:
        means = unchecked_means(features, labels, len(counts))
    centred = centred_means(means)
    sums = residual_scatter(features, labels, means, dual_means(centred))
    nc4 = None
    if test_features is not None:
        nc4 = nearest_mean_agreement(test_features, weight, means, bias)
    return metrics_of_sums(weight, centred, counts, *sums, nc4)


def metrics_of_sums(
    weight: Tensor,
    centred: Tensor,
    counts: Tensor,
    scatter: Tensor,
    whitened: Tensor,
    nc4: Tensor | None,
) -> dict[str, Tensor]:
    """All metrics of W and M (..., K, p), of the samples in each class (K,), and of the sums of
    `residual_scatter`; in the order of KEYS, nc4 if there is one."""
    weight = weight.double()
    w, m, w_c = map(geometry.unit_norm, (weight, centred, geometry.without_gauge(weight)))
    between = centred.square().sum((-2, -1)) / weight.shape[-2]
    metrics = {
        "nc0": geometry.nc0(weight),
        "nc1": whitened / counts.sum(),
        "nc2": geometry.etf_distance(m @ m.mT),
        "nc2n": geometry.row_norm_spread(m),
        "nc2a": geometry.equiangularity(m),
        "nc2w": geometry.etf_distance(w @ w.mT),
        "nc2wn": geometry.row_norm_spread(w),
        "nc2wa": geometry.equiangularity(w),
        "nc2m": geometry.etf_distance(w @ m.mT),
        "nc3": geometry.self_duality(w, m),
        "nc4": nc4,
        "nc1_quotient": scatter.sum(-1) / counts.sum() / between,
        "cdnv": class_distance_variance(scatter / counts, centred),
        "w_norm": torch.linalg.matrix_norm(weight),
        "gauge_share": geometry.gauge_share(weight),
        "nc2w_centred": geometry.etf_distance(w_c @ w_c.mT),
        "nc2m_centred": geometry.etf_distance(w_c @ m.mT),
        "nc3_centred": geometry.self_duality(w_c, m),
    }
    return {name: value for name, value in metrics.items() if value is not None}
