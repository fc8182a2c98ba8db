"""NC0 to NC4 and related metrics: pure functions of features, labels and the last layer.

Symbols: ``H`` features (N, p), one row a sample; ``labels`` (N,) in [0, K); ``W`` weight (K, p);
``b`` bias (K,); ``mu`` class means (K, p); ``mu_G`` their unweighted mean; ``M = mu - mu_G``.
Every function also takes a leading member axis: M runs at once are (M, N, p) and (M, K, p).

Cost. ``M`` has rank at most K - 1, so Σ_W and Σ_B, p x p both, are never formed:
with the pseudo-inverse M† (p, K) and the residuals ``R = H - mu[labels]``, NC1 is ‖R M†‖²_F / N.
The features are read twice, one cache-sized block of one member at a time, which also bounds the
extra memory. Class sums and all that is K x p or K x K are float64. Residuals have the features'
precision (half precision is widened to float32) and no error but their own rounding, however far
from 0 the means lie. Scale-free metrics are accurate for float32 features of any size between 1e-36
and 1e36, and float64 ones between 1e-75 and 1e75. `torch.autocast` has no effect here.

Float32 products follow ``torch.get_float32_matmul_precision()``: below its default ``highest``
NC1 loses digits (about 6e-5 relative at ``medium`` on a CPU with bfloat16).

Measured (``benchmarks/metrics.py --members``; float32, Xeon with AVX-512, torch 2.15): on two cores
N = 60,000, p = 512, K = 10 takes 0.06 s and N = 50,000, p = 2,048, K = 1,000 takes 1.3 s; on one
core 18 members of N = 1,400, p = 128, K = 10 take 11 ms.
"""

from typing import TYPE_CHECKING

from ncbook.metrics.features import (
    centred_means,
    class_distance_variance,
    class_means,
    dual_means,
    nc1,
    nearest_mean_agreement,
)
from ncbook.metrics.geometry import (
    equiangularity,
    etf_distance,
    gauge_share,
    nc0,
    row_norm_spread,
    self_duality,
    simplex_etf,
    singular_values,
    without_gauge,
)
from ncbook.metrics.layers import LAYER_KEYS, LayerStream
from ncbook.metrics.together import KEYS, SCALES, member_metrics, nc_metrics

if TYPE_CHECKING:
    from ncbook.metrics.streaming import StreamingNCMetrics


def __getattr__(name: str):
    """The streaming class, imported on first use: torchmetrics takes 2 s and 260 MB."""
    if name != "StreamingNCMetrics":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ncbook.metrics.streaming import StreamingNCMetrics

    return StreamingNCMetrics
