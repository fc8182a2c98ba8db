"""Arguments at the public boundary: conversion to tensors, refusals in one line, torch's modes."""

import functools
import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import Tensor


def tensor_function(function: Callable) -> Callable:
    """Let the ``Tensor`` parameters of a function also be arrays, frames or lists; turn autocast
    off inside it."""
    signature = inspect.signature(function)
    kinds = {name: str(parameter.annotation) for name, parameter in signature.parameters.items()}

    @functools.wraps(function)
    def called(*args, **kwargs):
        bound = signature.bind(*args, **kwargs)
        for name, value in bound.arguments.items():
            if "Tensor" in kinds[name] and not (value is None and "None" in kinds[name]):
                bound.arguments[name] = as_tensor(name, value)
        with without_autocast():
            return function(*bound.args, **bound.kwargs)

    return called


@contextmanager
def without_autocast() -> Iterator[None]:
    with ExitStack() as stack:
        for device in filter(torch.is_autocast_enabled, ("cpu", "cuda")):
            stack.enter_context(torch.autocast(device, enabled=False))
        yield


def measuring(function: Callable) -> Callable:
    """As `tensor_function`, and without inference mode or the recording of graphs."""
    return torch.inference_mode(False)(torch.no_grad()(tensor_function(function)))


def checked_layer(weight, bias, device=None) -> tuple[Tensor, Tensor | None]:
    """W (K, p) and b (K,) as tensors."""
    weight = float_tensor("weight", weight, device)
    if len(weight) < 2:
        raise ValueError(f"weight must have K >= 2 rows, one a class, got {len(weight)}")
    if bias is None:
        return weight, None
    bias = float_tensor("bias", bias, weight.device, ndim=1)
    if len(bias) != len(weight):
        raise ValueError(f"bias must have K = {len(weight)} entries, got {len(bias)}")
    return weight, bias


def checked_samples(
    features, labels, weight: Tensor, kind: str = ""
) -> tuple[Tensor, Tensor | None]:
    """H (N, p) on the weight's device, and labels (N,) as int64; messages call them kind + name."""
    features = float_tensor(f"{kind}features", features, weight.device)
    (num_classes, width), wide = weight.shape, features.shape[1]
    if wide != width:
        raise ValueError(f"{kind}features must be p = {width} wide, as weight is, got {wide}")
    if labels is not None:
        labels = as_tensor(f"{kind}labels", labels, weight.device)
        labels = checked_labels(labels, features, num_classes, kind)
    return features, labels


def checked_labels(labels: Tensor, features: Tensor, num_classes: int, kind: str = "") -> Tensor:
    """Labels (N,) of features (..., N, p) as int64."""
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise ValueError(f"{kind}labels must be integers, got {labels.dtype}")
    shape, wanted = tuple(labels.shape), tuple(features.shape[-2:-1])
    if shape != wanted:
        raise ValueError(f"{kind}labels must have shape {wanted}, one a sample, got {shape}")
    labels = labels.long()
    outside = ((labels < 0) | (labels >= num_classes)).nonzero()
    if len(outside):
        first = outside[0].item()
        raise ValueError(
            f"{kind}labels must lie in [0, {num_classes}), K being the rows of weight, "
            f"got {labels[first].item()} at sample {first}"
        )
    return labels


def check_every_class_occurs(counts: Tensor) -> None:
    """Raise ``ValueError`` if the number of samples of some class, (K,), is 0."""
    missing = (counts == 0).nonzero()[:, 0].tolist()
    if missing:
        some = f"{len(missing)} of {len(counts)} classes, the first of them class {missing[0]}"
        raise ValueError(f"no samples in labels for {some}")


def float_tensor(name: str, values, device=None, ndim: int = 2) -> Tensor:
    """Values as a finite floating-point tensor of ndim axes, none of them empty."""
    values = as_tensor(name, values, device)
    if not values.is_floating_point():
        raise ValueError(f"{name} must be floating point (16, 32 or 64 bits), got {values.dtype}")
    if values.ndim != ndim or values.numel() == 0:
        raise ValueError(f"{name} must have {ndim} axes, none empty, got {tuple(values.shape)}")
    # The sum is one cheap pass; in half precision it may overflow, hence the closer look.
    if not values.sum().isfinite() and not (finite := values.isfinite()).all():
        index = tuple((~finite).nonzero()[0].tolist())
        raise ValueError(
            f"{name} hold NaN or inf: {(~finite).sum()} of {values.numel()} values, "
            f"the first at {index} is {values[index].item()}"
        )
    return values


def as_tensor(name: str, values, device=None) -> Tensor:
    """A tensor from a tensor, an array, a pandas object or a list."""
    if not isinstance(values, Tensor):
        values = _from_numpy(name, values)
    return values if device is None else values.to(device)


def _from_numpy(name: str, values) -> Tensor:
    if np.ma.is_masked(values):
        raise ValueError(f"{name} has masked entries, which would count: leave them out")
    try:
        array = values.to_numpy() if hasattr(values, "to_numpy") else np.asarray(values)
        # torch knows no foreign byte order and no negative stride
        array = np.asarray(array, array.dtype.newbyteorder("="), order="C")
        with warnings.catch_warnings():
            # nothing here writes to its input
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            return torch.as_tensor(array)
    except (TypeError, ValueError, RuntimeError):
        got = "None" if values is None else f"a value of type {type(values).__name__}"
        layer = f"; of a layer, pass layer.{name}" if hasattr(values, name) else ""
        raise ValueError(
            f"{name} must be a tensor or an array of numbers, got {got}{layer}"
        ) from None
