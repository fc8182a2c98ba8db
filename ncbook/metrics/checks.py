"""Input refused at the public boundary: one clear line that names the value."""

import warnings

import torch
from torch import Tensor

NAMED_CLASSES = 5  # how many empty classes an error lists


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
    num_classes, width = weight.shape
    if features.shape[1] != width:
        raise ValueError(
            f"{kind}features must be p = {width} wide, as weight is, got {features.shape[1]}"
        )
    if labels is None:
        return features, None
    labels = _tensor(labels, weight.device)
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise ValueError(f"{kind}labels must be integers, got {labels.dtype}")
    if labels.shape != features.shape[:1]:
        raise ValueError(
            f"{kind}labels must have shape ({len(features)},), one a sample, "
            f"got {tuple(labels.shape)}"
        )
    labels = labels.long()
    outside = ((labels < 0) | (labels >= num_classes)).nonzero()
    if len(outside):
        first = outside[0].item()
        raise ValueError(
            f"{kind}labels must lie in [0, {num_classes}), K being the rows of weight, "
            f"got {labels[first].item()} at sample {first}"
        )
    return features, labels


def check_every_class_occurs(counts: Tensor) -> None:
    """Of the samples in each class, (K,), none is 0."""
    missing = (counts == 0).nonzero()[:, 0].tolist()
    if missing:
        named = ", ".join(map(str, missing[:NAMED_CLASSES]))
        more = f" and {len(missing) - NAMED_CLASSES} more" if len(missing) > NAMED_CLASSES else ""
        raise ValueError(f"no samples in labels for class {named}{more} of {len(counts)}")


def float_tensor(name: str, values, device=None, ndim: int = 2) -> Tensor:
    """Values as a finite floating-point tensor of ndim axes, none of them empty."""
    values = _tensor(values, device)
    if not values.is_floating_point():
        raise ValueError(f"{name} must be floating point, got {values.dtype}")
    if values.ndim != ndim or values.numel() == 0:
        raise ValueError(f"{name} must have {ndim} axes, none empty, got {tuple(values.shape)}")
    # One cheap pass. A half-precision sum may overflow though all is well, hence the closer look.
    if not values.sum().isfinite() and not (finite := values.isfinite()).all():
        index = tuple((~finite).nonzero()[0].tolist())
        raise ValueError(
            f"{name} hold NaN or inf: {(~finite).sum()} of {values.numel()} values, "
            f"the first at {index} is {values[index].item()}"
        )
    return values


def _tensor(values, device=None) -> Tensor:
    with warnings.catch_warnings():
        # as_tensor warns of read-only arrays (a memory map, say); nothing here writes to its input
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.as_tensor(values, device=device)
