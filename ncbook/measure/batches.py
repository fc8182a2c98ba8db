"""A user's data as batches that can be walked through more than once."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

LABELS = ("labels", "label")  # a dict's key of the labels
VALID = "a DataLoader, a Dataset, or a pair of tensors (inputs, labels)"


def loader_of(name: str, data: Any, batch_size: int) -> Iterable:
    """What gives batches of ``data``; messages call it ``name``."""
    if isinstance(data, tuple | list) and len(data) == 2 and all(map(_is_array, data)):
        inputs, labels = map(torch.as_tensor, data)
        if len(inputs) != len(labels):
            raise ValueError(f"{name}: {len(inputs)} inputs, but {len(labels)} labels")
        data = TensorDataset(inputs, labels)
    if isinstance(data, Dataset) or (hasattr(data, "__getitem__") and not isinstance(data, list)):
        # its own generator: the global one is the training's
        return DataLoader(data, batch_size, generator=torch.Generator())
    if isinstance(data, Iterator):
        raise ValueError(f"{name} can be walked through only once; pass {VALID}")
    if not isinstance(data, Iterable):
        raise ValueError(f"{name} must be {VALID}, got {type(data).__name__}")
    return data


def _is_array(value: object) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype") and len(value.shape) > 0


def count_of(loader: Iterable) -> int | None:
    """How many batches it has, if it says."""
    try:
        return len(loader) if isinstance(loader, Sized) else None
    except TypeError:  # a DataLoader of a data set without a length
        return None


def split_batch(name: str, batch: Any) -> tuple[Any, Any]:
    """(inputs, labels) of a batch: a dict with labels among its keys, or (inputs..., labels)."""
    if isinstance(batch, Mapping):
        key = next((key for key in LABELS if key in batch), None)
        if key is None:
            keys = ", ".join(map(str, batch))
            raise ValueError(f"{name}: a batch has no {' or '.join(LABELS)}, only {keys}")
        return {k: v for k, v in batch.items() if k not in LABELS}, batch[key]
    if isinstance(batch, tuple | list) and len(batch) >= 2:
        return tuple(batch[:-1]), batch[-1]
    raise ValueError(
        f"{name}: a batch must be (inputs, labels) or a dict, got {type(batch).__name__}"
    )


def run_on(model: nn.Module, inputs: dict | tuple) -> Any:
    """The model's output."""
    return model(**inputs) if isinstance(inputs, dict) else model(*inputs)


def mapped(inputs: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same inputs with each tensor in them changed."""
    if isinstance(inputs, Tensor):
        return change(inputs)
    if isinstance(inputs, Mapping):
        return {key: mapped(value, change) for key, value in inputs.items()}
    if isinstance(inputs, tuple | list):
        return tuple(mapped(value, change) for value in inputs)
    return inputs


def class_numbers(name: str, labels: Any, num_classes: int) -> Tensor:
    """Labels (n,) in [0, K), as int64. Raises ``ValueError``, with what to do, for other ones."""
    labels = torch.as_tensor(labels)
    shape, kinds = tuple(labels.shape), f"{name}: labels must be class numbers"
    if labels.dim() == 2 and shape[1] == num_classes:
        raise ValueError(f"{kinds} of shape (n,), got one-hot rows {shape}: pass labels.argmax(1)")
    if labels.is_floating_point() or labels.dtype == torch.bool or labels.dim() != 1:
        raise ValueError(f"{kinds} of shape (n,), got {labels.dtype} of shape {shape}")
    low, high = (bound.item() for bound in labels.aminmax())
    if low < 0 or high >= num_classes:
        hint = "; do they start at 1? Subtract 1" if (low, high) >= (1, num_classes) else ""
        wanted = f"in [0, {num_classes}), the last layer having {num_classes} rows"
        raise ValueError(f"{kinds} {wanted}, got {low} to {high}{hint}")
    return labels.long()
