"""A streamed data set in batches, and measured in batches.

A measurement costs one forward pass over the training set and one over the test set. NC1 is about
residuals from class means and needs the features twice; so the first pass keeps them in a temporary
file, mapped into memory, and the second reads them from there: 10.5 GB for ImageNet
(N = 1,281,167, p = 2,048, float32) in the folder that ``TMPDIR`` names. A second forward pass
would cost as much as the first.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, default_convert

from ncbook import data, metrics
from ncbook.models import Classifier
from ncbook.train.measure import MEASURED, network_input, singular_values

# A batch to read: its split, its images, and the epoch of its random crops and flips.
Wanted = tuple[str, Sequence[int], int | None]


class Feed:
    """Batches of inputs on the device. The run's seed is for random crops and flips; ``loaders``
    processes, which live as long as the run, decode images, or, if there are 0, this one."""

    def __init__(
        self,
        dataset: data.Streamed,
        seed: int,
        loaders: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.dataset, self.device, self.dtype = dataset, device, dtype
        self._wanted: list[Wanted] = []
        # Not forked: a forked torch may hang on its thread pools. Kept from pass to pass: a new
        # Python takes seconds.
        lasting = {"persistent_workers": True, "multiprocessing_context": "spawn"}
        self._loader = DataLoader(
            _Reader(dataset, seed),
            batch_sampler=self._wanted,
            num_workers=loaders,
            collate_fn=default_convert,  # as it is
            pin_memory=device.type == "cuda",
            **(lasting if loaders else {}),
        )

    def batches(
        self, split: str, batches: Sequence[Tensor], epoch: int | None = None
    ) -> Iterator[Tensor]:
        """What a network takes of some images of ``train`` or ``test``, by number, (n, 3, H, W) a
        batch: with this epoch's random crops and flips, or the centre of each image. An image that
        cannot be read is a ``ValueError`` that names it."""
        self._wanted[:] = [(split, batch.tolist(), epoch) for batch in batches]
        for images in self._loader:
            if isinstance(images, str):
                raise ValueError(images)
            images = images.to(self.device, non_blocking=True)
            yield network_input(self.dataset, images, self.dtype)


class _Reader(Dataset):
    def __init__(self, dataset: data.Streamed, seed: int) -> None:
        self.dataset, self.seed = dataset, seed

    def __getitems__(self, wanted: Wanted) -> Tensor | str:
        """Pixels, uint8; or what is wrong: an exception would come with a process's traceback."""
        split, indices, epoch = wanted
        try:
            seeds = [None if epoch is None else (self.seed, epoch, index) for index in indices]
            each = zip(indices, seeds, strict=True)
            return torch.stack([self.dataset.image(split, *one) for one in each])
        except ValueError as error:
            return str(error)


class Meter:
    """Measures a network, ``batch_size`` images at a time; all processes must call
    it. Without room for the features, an ``OSError``."""

    def __init__(
        self, net: Classifier, feed: Feed, batch_size: int, rank: int, processes: int
    ) -> None:
        self.net, self.feed, self.several = net, feed, processes > 1
        self.labels = {"train": feed.dataset.train_y, "test": feed.dataset.test_y}
        self.shares = {
            split: torch.arange(rank, len(y), processes).split(batch_size)
            for split, y in self.labels.items()
        }
        # In a file without a name, which goes when the process does, however it ends. Its blocks
        # are reserved now: a full disk would kill a process that writes to a mapped file.
        weight, samples = net.fc.weight, sum(map(len, self.shares["train"]))
        size = samples * net.fc.in_features
        with tempfile.NamedTemporaryFile(prefix="ncbook-features-") as file:
            if hasattr(os, "posix_fallocate"):  # macOS lacks it
                os.posix_fallocate(file.fileno(), 0, size * weight.element_size())
            flat = torch.from_file(file.name, shared=True, size=size, dtype=weight.dtype)
        self.kept = flat.view(samples, -1).split([len(rows) for rows in self.shares["train"]])

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """Each of ``MEASURED``. Raises ``FloatingPointError`` if a feature is not finite."""
        self.net.eval()
        fc, device = self.net.fc, self.feed.device
        stream = metrics.StreamingNCMetrics(fc.weight, fc.bias).to(device)
        values = self._walk("train", stream)
        stream.next_pass()
        for rows, features in zip(self.shares["train"], self.kept, strict=True):
            stream.update(features.to(device), self.labels["train"][rows].to(device))
        stream.next_pass()
        values |= self._walk("test", stream) | stream.compute()
        values |= {k: v.item() for k, v in singular_values(fc.weight, stream.means).items()}
        return {key: values[key] for key in MEASURED}

    def _walk(self, split: str, stream: metrics.StreamingNCMetrics) -> dict[str, float]:
        """One forward pass: loss and accuracy over the samples of all processes. The features of
        training images are kept."""
        sums = torch.zeros(3, dtype=torch.float64, device=self.feed.device)
        batches = self.shares[split]
        for i, x in enumerate(self.feed.batches(split, batches)):
            features = self.net.body(x)
            y = self.labels[split][batches[i]].to(self.feed.device)
            logits = self.net.fc(features)
            loss = nn.functional.cross_entropy(logits, y, reduction="sum")
            not_finite = ~features.isfinite().all()
            sums += torch.stack([loss.double(), (logits.argmax(1) == y).sum(), not_finite])
            if not not_finite:
                stream.update(features, y)
            if split == "train":
                self.kept[i].copy_(features)
        if self.several:
            torch.distributed.all_reduce(sums)
        loss, correct, not_finite = sums.tolist()
        if not_finite:
            raise FloatingPointError
        count = len(self.labels[split])
        return {f"{split}_loss": loss / count, f"{split}_acc": correct / count}
