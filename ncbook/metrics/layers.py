"""The metrics of one layer's output, from running sums: constant memory, however many samples."""

import math

import torch
from torch import Tensor

from ncbook.metrics import checks, geometry
from ncbook.metrics.features import (
    centred_means,
    class_counts,
    class_distance_variance,
    class_sums,
    dual_means,
    residual_scatter,
)

LAYER_KEYS = ("nc1", "nc2", "nc2n", "nc2a", "cdnv", "effective_rank")
LAYER_KEYS += ("train_ncm_acc", "test_ncm_acc")
WIDEST = 4096  # features whose covariance, p x p, is held: 128 MiB in float64


class LayerStream:
    """How collapsed a layer's output is, from batches that come twice, in any order and size.

    `update` with the training samples, `next_pass`, the same samples again, and then, if one likes,
    `next_pass` and the test samples, as for `StreamingNCMetrics`; but a layer has no classifier of
    its own. Unchecked: features that are not finite give NaN.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes, self.stage, self.width = num_classes, 0, 0
        self.sums = self.counts = self.whitened = self.scatter = self.gram = 0
        self.drift = self.spread = torch.zeros(())
        self.hits, self.seen = [0, 0, 0], [0, 0, 0]  # of each pass

    @checks.measuring
    def update(self, features: Tensor, labels: Tensor) -> None:
        """Add a batch to the current pass: features (n, p), labels (n,) in [0, K)."""
        self.seen[self.stage] += len(labels)
        self.width = features.shape[1]
        if self.stage == 0:
            self.sums = self.sums + class_sums(features, labels, self.num_classes)
            self.counts = self.counts + class_counts(labels, self.num_classes)
            return
        nearest = nearest_class(features, self.means)
        self.hits[self.stage] += (nearest == labels).sum().item()
        if self.stage == 1:
            scatter, whitened = residual_scatter(features, labels, self.means, self.duals)
            self.scatter, self.whitened = self.scatter + scatter, self.whitened + whitened
            centred = features.double() - self.mean
            self.drift, self.spread = self.drift + centred.sum(0), self.spread + centred.norm() ** 2
            if features.shape[1] <= WIDEST:
                self.gram = self.gram + centred.mT @ centred

    @checks.measuring
    def next_pass(self) -> None:
        """End the current pass."""
        if self.stage == 0:
            self.means = self.sums / self.counts[:, None]
            self.mean = self.sums.sum(0) / self.counts.sum()
            self.duals = dual_means(centred_means(self.means))
        self.stage += 1

    @property
    def moved(self) -> float:
        """‖Σ (h - mean of pass 1)‖ / √(Σ ‖h - mean of pass 1‖²) over pass 2: 0 if it has the same
        samples, but for rounding; about √2 times the share of noise if noise was added again."""
        return float(self.drift.norm() / self.spread.sqrt())

    @checks.measuring
    def compute(self) -> dict[str, float]:
        """Each of ``LAYER_KEYS``.

        NC1, NC2, NC2n, NC2a and CDNV are those of `nc_metrics`, but NC1 is NaN where all class
        means are equal. ``train_ncm_acc``, ``test_ncm_acc``: the shares of samples whose nearest
        class mean is their own class's; NaN without a third pass. ``effective_rank`` is
        exp(-Σ q_i log q_i), q_i = σ_i / Σ σ, of the singular values of the features centred on
        their mean (Roy & Vetterli, 2007), in [1, p]; NaN for p > ``WIDEST``. They come from XᵀX:
        where only a few are not zero it is some 1e-5 too large (1e-4 for p = 4096).
        """
        centred = centred_means(self.means)
        m = geometry.unit_norm(centred)
        values = {
            "nc1": self.whitened / self.counts.sum() if self.duals.any() else math.nan,
            "nc2": geometry.etf_distance(m @ m.mT),
            "nc2n": geometry.row_norm_spread(m),
            "nc2a": geometry.equiangularity(m),
            "cdnv": class_distance_variance(self.scatter / self.counts, centred),
            "effective_rank": _effective_rank(self.gram),
        }
        for stage, name in enumerate(("train_ncm_acc", "test_ncm_acc"), 1):
            seen = self.seen[stage]
            values[name] = self.hits[stage] / seen if seen else math.nan
        return {name: float(value) for name, value in values.items()}


def nearest_class(features: Tensor, means: Tensor) -> Tensor:
    """argmin_k ‖h - mu_k‖ of features (n, p) and means (K, p): (n,). -1 where NaN leaves none."""
    means = means.double()
    centre = means.mean(0)  # else far means would cost digits
    distance, nearest = torch.cdist(features.double() - centre, means - centre).min(1)
    return torch.where(distance.isfinite(), nearest, -1)


def _effective_rank(gram: Tensor | int) -> float:
    """Of the singular values σ whose squares are the eigenvalues of XᵀX."""
    if not isinstance(gram, Tensor) or not gram.isfinite().all():
        return math.nan
    values = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt()
    shares = values / values.sum()
    return torch.special.entr(shares).sum().exp().item()
