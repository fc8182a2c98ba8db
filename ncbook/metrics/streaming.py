"""The same metrics for features that don't fit memory."""

import torch
from torchmetrics import Metric

from ncbook.metrics import checks
from ncbook.metrics.features import (
    centred_means,
    class_counts,
    class_sums,
    count_agreements,
    dual_means,
    residual_scatter,
)
from ncbook.metrics.together import metrics_of_sums


class StreamingNCMetrics(Metric):
    """`nc_metrics` for features that don't fit memory, or that lie in several processes.

    NC1 measures residuals along M, and neither is known before all features have been seen. So the
    training features come twice, in batches of any size and order, and then, for nc4, the test
    features once. It keeps K x p numbers, not N x p or p x p::

        stream = StreamingNCMetrics(weight, bias)
        for features, labels in train: stream.update(features, labels)   # 1: class means
        stream.next_pass()
        for features, labels in train: stream.update(features, labels)   # 2: scatter about them
        stream.next_pass()                                               # 3 is optional
        for features, labels in test: stream.update(features, labels)    # 3: nc4
        stream.compute()

    Sums are float64 and add up across processes: the first `next_pass`, and `compute`, synchronise,
    so every process must call them. Without ``torch.distributed``, merge the streams of pass 1 into
    one (`merge_state`), call its `next_pass`, give each worker a `clone` of it for its share of
    passes 2 and 3, and merge these.

    Of W (K, p), b (K,) or None, and `torchmetrics.Metric`'s own settings. Raises ValueError as
    `nc_metrics`, and when passes come in the wrong order or differ in samples.
    """

    full_state_update = False
    passes = ("1 (class means)", "2 (scatter about them)", "3 (test features)")

    @checks.measuring
    def __init__(self, weight, bias=None, **kwargs) -> None:
        super().__init__(**kwargs)
        self.stage = 0
        weight, bias = checks.checked_layer(weight, bias)
        # copies: a live layer may train on before compute()
        weight, bias = weight.detach().clone(), None if bias is None else bias.detach().clone()
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("bias", bias, persistent=False)
        num_classes, width = weight.shape
        sums = {"sums": (num_classes, width), "counts": (num_classes,)}  # pass 1
        sums |= {"scatter": (num_classes,), "whitened": (), "seen": (num_classes,)}  # pass 2
        sums |= {"agreements": (), "tested": ()}  # pass 3
        fixed = {"means": (num_classes, width), "duals": (width, num_classes)}  # after pass 1
        fixed |= {"expected": (num_classes,)}
        for name, shape in (sums | fixed).items():
            reduce = "max" if name in fixed else "sum"  # all processes have the same
            self.add_state(name, torch.zeros(shape, dtype=torch.float64), dist_reduce_fx=reduce)

    @checks.measuring
    def update(self, features, labels=None) -> None:
        """Add a batch to the current pass: features (n, p), labels (n,); pass 3 needs no labels."""
        if self.stage < 2 and labels is None:
            raise ValueError(f"pass {self.passes[self.stage]} needs labels, got None")
        kind = "test_" if self.stage == 2 else ""
        features, labels = checks.checked_samples(features, labels, self.weight, kind)
        if self.stage == 2:
            self.agreements += count_agreements(features, self.weight, self.means, self.bias)
            self.tested += len(features)
            return
        counts = class_counts(labels, len(self.weight))
        if self.stage == 0:
            self.sums += class_sums(features, labels, len(self.weight))
            self.counts += counts
        else:
            scatter, whitened = residual_scatter(features, labels, self.means, self.duals)
            self.scatter += scatter
            self.whitened += whitened
            self.seen += counts

    @checks.measuring
    def next_pass(self) -> None:
        """End the current pass, in every process."""
        if self.stage == 2:
            raise ValueError(f"pass {self.passes[2]} is the last one: call compute() or reset()")
        if self.stage == 0:
            with self.sync_context(dist_sync_fn=self.dist_sync_fn):
                sums, counts = self.sums.clone(), self.counts.clone()
            checks.check_every_class_occurs(counts)
            self.means, self.expected = sums / counts[:, None], counts
            self.duals = dual_means(centred_means(self.means))
        self.stage += 1

    @checks.measuring
    def compute(self) -> dict[str, float]:
        """The metrics, equal to `nc_metrics` on all batches at once; nc4 if pass 3 had samples."""
        if self.stage == 0:
            raise ValueError(f"compute() needs pass {self.passes[1]}: call next_pass() first")
        different = (self.seen != self.expected).nonzero()[:, 0].tolist()
        if different:
            name = different[0]
            raise ValueError(
                f"pass {self.passes[1]} must see the samples of pass {self.passes[0]}, "
                f"but of class {name} it saw {self.seen[name]:.0f} of {self.expected[name]:.0f}; "
                "a loader that drops its last batch must not shuffle"
            )
        nc4 = self.agreements / self.tested if self.tested > 0 else None
        sums = self.seen, self.scatter, self.whitened, nc4
        metrics = metrics_of_sums(self.weight, centred_means(self.means), *sums)
        return {name: value.item() for name, value in metrics.items()}

    @checks.measuring
    def reset(self) -> None:
        """Forget everything but the weight and the bias: back to pass 1."""
        super().reset()
        self.stage = 0
