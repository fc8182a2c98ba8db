"""A user's data as batches that can be walked through more than once; and data by their name.

Pixels stay uint8, and of ``imagenet:PATH`` only the batch at hand is in memory.
"""

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from multiprocessing.pool import ThreadPool
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from ncbook import data
from ncbook.data.imagenet import MEAN, STD, WHITE
from ncbook.data.images import own_pixel_limit, resized
from ncbook.metrics.checks import as_tensor

LABELS = ("labels", "label")  # a dict's key of the labels
PAIR = ("inputs", "labels")
VALID = "a DataLoader, a Dataset, or a pair of tensors (inputs, labels)"
NORMALISATIONS = ("dataset", "imagenet", "none")
FROM_FOLDERS = ("folder:", data.IMAGENET_PREFIX)  # read at the size that is asked for


def loader_of(name: str, given: Any, batch_size: int) -> Iterable:
    """What gives batches of ``given``; messages call it ``name``."""
    pair = isinstance(given, tuple | list) and len(given) == 2
    if pair and (hasattr(given[0], "dtype") or hasattr(given[0], "columns")):
        inputs, labels = (as_tensor(f"{name}'s {w}", x) for w, x in zip(PAIR, given, strict=True))
        if len(inputs) != len(labels):
            raise ValueError(f"{name}: {len(inputs)} inputs, but {len(labels)} labels")
        given = TensorDataset(inputs, labels)
    sized = hasattr(given, "__getitem__") and hasattr(given, "__len__")
    other = isinstance(given, list | tuple | str | Mapping) or hasattr(given, "columns")
    if isinstance(given, IterableDataset) or (sized and not other):
        return DataLoader(given, int(batch_size))
    if isinstance(given, Iterator | str | Mapping) or not isinstance(given, Iterable):
        raise ValueError(f"{name} must be {VALID}, got {type(given).__name__}")
    if getattr(given, "persistent_workers", False):
        # they serve one walk at a time, and the training may be in the middle of one
        given = copy.copy(given)
        given._iterator = None
    return given


def split_batch(name: str, batch: Any) -> tuple[tuple[tuple, dict], Tensor]:
    """The model's arguments, by position and by name, and the labels, with an axis of samples."""
    key = next((key for key in LABELS if isinstance(batch, Mapping) and key in batch), None)
    if key is not None:
        inputs, labels = ((), {n: part for n, part in batch.items() if n != key}), batch[key]
    elif isinstance(batch, tuple | list) and len(batch) > 1:
        inputs, labels = (tuple(batch[:-1]), {}), batch[-1]
    else:
        got = f"got {type(batch).__name__}"
        raise ValueError(f"{name}: a batch must be (inputs, labels) or a dict with labels, {got}")
    labels = as_tensor(name.replace("data", "labels"), labels)
    if not labels.ndim:
        raise ValueError(f"{name}: a batch has one sample without an axis of samples")
    return inputs, labels


# ------------------------------------------------------------ by name


def load_data(
    name: str, image_size: int | None, train_size: int | None, normalise: str
) -> data.Dataset | data.Streamed:
    """A data set, and errors, as of ``data.load``; but images that are not of a folder keep their
    size, and those of files may have ImageNet's mean and standard deviation, or 0 and white."""
    at_once = image_size if name.startswith(FROM_FOLDERS) else None
    dataset = data.load(name, train_size=train_size, image_size=at_once)
    if normalise == "none" and isinstance(dataset, data.Streamed):
        raise ValueError(f"normalise 'none' is not for {name}; valid: dataset, imagenet")
    if normalise == "dataset" or isinstance(dataset, data.Streamed):
        return dataset
    if dataset.mean is None:
        raise ValueError(f"normalise {normalise!r} is for images of files, and {name} is not")
    if normalise == "none":
        zeros = torch.zeros_like(dataset.mean)
        return replace(dataset, mean=zeros, std=zeros + WHITE)
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
