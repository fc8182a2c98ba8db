"""A user's data as batches that can be walked through more than once."""

import copy
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

LABELS = ("labels", "label")  # a dict's key of the labels
VALID = "a DataLoader, a Dataset, or a pair of tensors (inputs, labels)"


def loader_of(name: str, data: Any, batch_size: int) -> Iterable:
    """What gives batches of ``data``; messages call it ``name``."""
    if isinstance(data, tuple | list) and len(data) == 2 and all(hasattr(x, "dtype") for x in data):
        inputs, labels = map(torch.as_tensor, data)
        if len(inputs) != len(labels):
            raise ValueError(f"{name}: {len(inputs)} inputs, but {len(labels)} labels")
        data = TensorDataset(inputs, labels)
    if isinstance(data, Dataset) or (hasattr(data, "__getitem__") and not isinstance(data, list)):
        return DataLoader(data, batch_size)
    if isinstance(data, Iterator) or not isinstance(data, Iterable):
        once = f"{name} can be walked through only once; pass {VALID}"
        kind = f"{name} must be {VALID}, got {type(data).__name__}"
        raise ValueError(once if isinstance(data, Iterator) else kind)
    if getattr(data, "persistent_workers", False):
        # they serve one walk at a time, and the training may be in the middle of one
        data = copy.copy(data)
        data._iterator = None
    return data


def split_batch(name: str, batch: Any) -> tuple[tuple[tuple, dict], Any]:
    """The model's arguments, by position and by name, and the labels."""
    if isinstance(batch, Mapping):
        inputs = dict(batch)
        for key in LABELS:
            if key in inputs:
                labels = inputs.pop(key)
                return ((), inputs), labels
    elif isinstance(batch, tuple | list) and len(batch) > 1:
        return (tuple(batch[:-1]), {}), batch[-1]
    raise ValueError(
        f"{name}: a batch must be (inputs, labels) or a dict with labels, got "
        f"{type(batch).__name__}"
    )
