"""A data set by name, as batches that a network takes, made one at a time.

Pixels stay uint8, and of ``imagenet:PATH`` only the batch at hand is in memory.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from multiprocessing.pool import ThreadPool

import torch
from torch import Tensor, nn

from ncbook import data
from ncbook.data.imagenet import MEAN, STD, WHITE
from ncbook.data.images import own_pixel_limit, resized

DATASET, IMAGENET = "dataset", "imagenet"
NORMALISATIONS = (DATASET, IMAGENET)
FROM_FOLDERS = ("folder:", data.IMAGENET_PREFIX)  # read at the size that is asked for


@dataclass(frozen=True)
class Batches:
    """Batches (inputs, labels) of one part of a data set; each walk makes them anew.

    Args:
        read: the pixels or features of some samples, (n, ...), by a slice.
        labels: (N,).
        inputs: what a network takes of them.
        batch_size: n, but for the last batch.
    """

    read: Callable[[slice], Tensor]
    labels: Tensor
    inputs: Callable[[Tensor], Tensor]
    batch_size: int

    def __len__(self) -> int:
        return -(-len(self.labels) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(self.labels), self.batch_size):
            part = slice(start, start + self.batch_size)
            yield self.inputs(self.read(part)), self.labels[part]


@dataclass(frozen=True)
class Source:
    """A data set for a network.

    Args:
        dataset: as loaded; images of files that are no folder's have their own size yet.
        image_size: to which a batch is resized; None for none.
        normalise: one of ``NORMALISATIONS``.
        channels: that the network takes; None for those of the data.
    """

    dataset: data.Dataset | data.Streamed
    image_size: int | None = None
    normalise: str = DATASET
    channels: int | None = None

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample, before its channels are matched to the network's."""
        channels, *sides = self.dataset.input_shape
        sides = [self.image_size] * 2 if self.image_size and sides else sides
        return (len(MEAN) if self.normalise == IMAGENET else channels, *sides)

    def for_network(self, model: nn.Module) -> "Source":
        """The same for a network whose first convolution may take another number of channels.

        Raises:
            ValueError: images of 3 channels for another number, or of 1 for neither 1 nor 3.
        """
        first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
        there, wanted = self.input_shape[0], getattr(first, "in_channels", None)
        if len(self.input_shape) < 3 or wanted in (None, there):
            return self
        if (there, wanted) not in ((1, 3), (3, 1)):
            raise ValueError(
                f"the network's first convolution takes {wanted} channels, and the images of "
                f"{self.dataset.name} have {there}"
            )
        return replace(self, channels=wanted)

    def batches(self, split: str, batch_size: int) -> Batches:
        """Those of ``train`` or ``test``."""
        labels = getattr(self.dataset, f"{split}_y")
        if isinstance(self.dataset, data.Streamed):
            return Batches(lambda part: self._decoded(split, part), labels, self.inputs, batch_size)
        return Batches(
            getattr(self.dataset, f"{split}_x").__getitem__, labels, self.inputs, batch_size
        )

    def _decoded(self, split: str, part: slice) -> Tensor:
        numbers = range(len(getattr(self.dataset, f"{split}_y")))[part]
        with own_pixel_limit(), ThreadPool() as pool:
            return torch.stack(pool.map(lambda i: self.dataset.image(split, i), numbers))

    def inputs(self, x: Tensor) -> Tensor:
        """What the network takes of a batch: resized, normalised, its channels matched."""
        x = resized(x, self.image_size) if x.ndim == 4 else x
        if self.normalise == DATASET:
            x = self.dataset.inputs(x)
        else:
            mean, std = (torch.tensor(v)[:, None, None] for v in (MEAN, STD))
            x = (x / WHITE - mean) / std  # a grey image is repeated by this, too
        if self.channels == 1:
            return x.mean(1, keepdim=True)
        return x.expand(-1, self.channels, -1, -1) if self.channels else x


def load_data(
    name: str,
    *,
    image_size: int | None = None,
    train_size: int | None = None,
    normalise: str = DATASET,
) -> Source:
    """A data set, as ``ncbook.data.load`` names it.

    Args:
        image_size: height and width of the images; None: their own, and as of ``data.load`` for
            those of folders.
        train_size: number of training samples, as many of each class; None: all.
        normalise: ``dataset``: by the mean and standard deviation of its training images;
            ``imagenet``: by those of ImageNet, which most published weights were trained with, as
            images of ``imagenet:PATH`` always are.

    Raises:
        ValueError, DataNotFoundError: one line, as of ``data.load``; or for a normalisation that
            the data cannot have.
    """
    if name == data.UFM:
        raise ValueError("dataset 'ufm' has no inputs that a network could take")
    if normalise not in NORMALISATIONS:
        raise ValueError(f"unknown normalise {normalise!r}; valid: {', '.join(NORMALISATIONS)}")
    at_once = image_size if name.startswith(FROM_FOLDERS) or name == "gaussians" else None
    dataset = data.load(name, train_size=train_size, image_size=at_once)
    if normalise == IMAGENET and isinstance(dataset, data.Dataset) and dataset.mean is None:
        raise ValueError(
            f"normalise 'imagenet' is for images of files, and {name} is not; valid: {DATASET}"
        )
    return Source(dataset, None if at_once else image_size, normalise)
