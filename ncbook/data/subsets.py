"""Class-balanced subsets."""

import numpy as np
import torch


def balanced_indices(
    labels: torch.Tensor, classes: int, size: int, rng: np.random.Generator
) -> torch.Tensor:
    """Ascending indices of ``size`` samples, as many of each class, or one more of some.

    Raises:
        ValueError: the smallest class has too few samples.
    """
    counts = torch.bincount(labels, minlength=classes).numpy()
    least = int(counts.min())
    largest = least * classes + int((counts > least).sum())
    if size > largest:
        raise ValueError(
            f"train_size {size} is too large: a class-balanced subset has at most {largest} samples"
            f" (of {len(labels)}, {least} in the smallest class)"
        )
    each, extra = divmod(size, classes)
    has_more = np.flatnonzero(counts > each)
    wanted = np.full(classes, each)
    wanted[rng.permutation(has_more)[:extra]] += 1
    chosen = [
        rng.permutation(np.flatnonzero(labels.numpy() == k))[: wanted[k]] for k in range(classes)
    ]
    return torch.from_numpy(np.sort(np.concatenate(chosen)))
