"""``measure`` for a streamed data set, of which each process has its share.

A measurement costs one forward pass over the training set and one over the test set. NC1 is about
residuals from class means and needs the features twice; so the first pass keeps them in a temporary
file, mapped into memory, and the second reads them from there: 10.5 GB for ImageNet
(N = 1,281,167, p = 2,048, float32) in the folder that ``TMPDIR`` names. A second forward pass
would cost as much as the first.
"""

from __future__ import annotations

import os
import tempfile
from typing import Any

import torch
from torch import nn

from ncbook import data, metrics
from ncbook.models import Classifier
from ncbook.train.feed import Feed
from ncbook.train.measure import MEASURED, singular_values


class Meter:
    """Measures a network whose processes all call it.

    Args:
        net: the network.
        dataset: whose images.
        feed: this process's, of the same data set.
        fabric: Lightning Fabric of this process.
        batch_size: images in one forward pass.

    Raises:
        OSError: no room for the features.
    """

    def __init__(
        self, net: Classifier, dataset: data.Streamed, feed: Feed, fabric: Any, batch_size: int
    ) -> None:
        self.net, self.feed, self.fabric = net, feed, fabric
        self.labels = {"train": dataset.train_y, "test": dataset.test_y}
        self.shares = {
            split: torch.arange(fabric.global_rank, len(y), fabric.world_size).split(batch_size)
            for split, y in self.labels.items()
        }
        # In a file without a name, which goes when the process does, however it ends. Its blocks
        # are reserved now: a full disk would kill a process that writes to a mapped file.
        weight, samples = net.fc.weight, sum(map(len, self.shares["train"]))
        size = samples * net.fc.in_features
        with tempfile.NamedTemporaryFile(prefix="ncbook-features-") as file:
            os.posix_fallocate(file.fileno(), 0, size * weight.element_size())
            flat = torch.from_file(file.name, shared=True, size=size, dtype=weight.dtype)
        self.features = flat.view(samples, -1)  # (samples, p)

    @torch.no_grad()
    def measure(self) -> dict[str, float] | None:
        """Each of ``MEASURED``; None if a feature is not finite."""
        self.net.eval()
        fc, device = self.net.fc, self.fabric.device
        stream = metrics.StreamingNCMetrics(fc.weight, fc.bias).to(device)
        trained = self._walk("train", stream)
        if trained is None:
            return None
        stream.next_pass()
        rows = self.shares["train"]
        kept = self.features.split([len(some) for some in rows])
        for some, features in zip(rows, kept, strict=True):
            stream.update(features.to(device), self.labels["train"][some].to(device))
        stream.next_pass()
        tested = self._walk("test", stream)
        if tested is None:
            return None
        values = trained | tested | stream.compute()
        values |= {k: v.item() for k, v in singular_values(fc.weight, stream.means).items()}
        return {key: values[key] for key in MEASURED}

    def _walk(self, split: str, stream: metrics.StreamingNCMetrics) -> dict[str, float] | None:
        """One forward pass: loss and accuracy over the samples of all processes; None if a feature
        is not finite. Those of training images are kept."""
        sums = torch.zeros(3, dtype=torch.float64, device=self.fabric.device)
        batches, done, fc = self.shares[split], 0, self.net.fc
        for rows, x in zip(batches, self.feed.batches(split, batches), strict=True):
            features = self.net.body(x.to(fc.weight.dtype))
            y = self.labels[split][rows].to(self.fabric.device)
            logits = fc(features)
            loss = nn.functional.cross_entropy(logits, y, reduction="sum")
            not_finite = ~features.isfinite().all()
            sums += torch.stack([loss.double(), (logits.argmax(1) == y).sum(), not_finite])
            if not not_finite:
                stream.update(features, y)
            if split == "train":
                self.features[done : done + len(rows)] = features.cpu()
                done += len(rows)
        loss, correct, not_finite = self.fabric.all_reduce(sums, reduce_op="sum").tolist()
        if not_finite:
            return None
        count = len(self.labels[split])
        return {f"{split}_loss": loss / count, f"{split}_acc": correct / count}
