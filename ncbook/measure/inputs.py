"""A data set by name, as batches that a network takes, made one at a time.

Pixels stay uint8, and of ``imagenet:PATH`` only the batch at hand is in memory.
"""

from dataclasses import replace
from functools import partial
from multiprocessing.pool import ThreadPool

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ncbook import data
from ncbook.data.imagenet import MEAN, STD, WHITE
from ncbook.data.images import own_pixel_limit, resized

DATASET, IMAGENET = "dataset", "imagenet"
NORMALISATIONS = (DATASET, IMAGENET)
FROM_FOLDERS = ("folder:", data.IMAGENET_PREFIX)  # read at the size that is asked for


def load_data(
    name: str, image_size: int | None, train_size: int | None, normalise: str
) -> data.Dataset | data.Streamed:
    """A data set, as of ``ncbook.data.load``, but for its image size, which the batches have.

    Raises:
        ValueError, DataNotFoundError: one line, as of ``data.load``; or for ImageNet's mean and
            standard deviation of data that are normalised already.
    """
    at_once = image_size if name.startswith(FROM_FOLDERS) else None
    dataset = data.load(name, train_size=train_size, image_size=at_once)
    if normalise == DATASET or isinstance(dataset, data.Streamed):
        return dataset
    if dataset.mean is None:
        raise ValueError(
            f"normalise 'imagenet' is for images of files, and {name} is not; valid: {DATASET}"
        )
    mean, std = WHITE * torch.tensor(MEAN), WHITE * torch.tensor(STD)
    train, test = (x.expand(-1, len(MEAN), -1, -1) for x in (dataset.train_x, dataset.test_x))
    return replace(dataset, train_x=train, test_x=test, mean=mean, std=std)


def batches(
    dataset: data.Dataset | data.Streamed,
    split: str,
    batch_size: int,
    image_size: int | None,
    model: nn.Module | None = None,
) -> DataLoader:
    """Inputs and labels of ``train`` or ``test``: resized, normalised, and of as many channels as
    the first convolution of the network takes (grey three times, or the mean of the colours)."""
    first = (m.in_channels for m in model.modules() if isinstance(m, nn.Conv2d)) if model else ()
    wanted, labels = next(iter(first), None), getattr(dataset, f"{split}_y")

    def batch(numbers: list[int]) -> tuple[Tensor, Tensor]:
        x = _pixels(dataset, split, numbers)
        x = dataset.inputs(resized(x, image_size) if x.ndim == 4 else x)
        there = x.shape[1] if x.ndim == 4 else None
        if (there, wanted) == (1, 3):
            x = x.expand(-1, 3, -1, -1)
        elif (there, wanted) == (3, 1):
            x = x.mean(1, keepdim=True)
        return x, labels[numbers]

    return DataLoader(range(len(labels)), batch_size, collate_fn=batch)


def _pixels(dataset: data.Dataset | data.Streamed, split: str, numbers: list[int]) -> Tensor:
    if isinstance(dataset, data.Dataset):
        return getattr(dataset, f"{split}_x")[numbers]
    with own_pixel_limit(), ThreadPool() as pool:
        return torch.stack(pool.map(partial(dataset.image, split), numbers))
