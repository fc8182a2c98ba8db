"""A data set in memory, and class-balanced subsets."""

from dataclasses import dataclass

import numpy as np
import torch

from ncbook.data.images import normalised

UFM = "ufm"


class DataNotFoundError(RuntimeError):
    """A data set's files are missing or damaged, and cannot be downloaded."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Training and test tensors of one data set, all on one device.

    Args:
        name: as passed to ``load``.
        train_x, test_x: images of files are uint8, (N, C, H, W); ``digits`` is float32 of that
            shape and ``gaussians`` float32 (N, 784), both normalised; ``ufm`` is int64 (N, 1).
        train_y, test_y: labels, int64, (N,), below ``num_classes``.
        class_names: of the K classes.
        mean, std: of every channel of the full training set, before images are resized, float32,
            (C,), in pixel units; None where the features are already normalised.
        listing: the fingerprint of a folder's images; None for a data set that never changes.
    """

    name: str
    train_x: torch.Tensor
    train_y: torch.Tensor
    test_x: torch.Tensor
    test_y: torch.Tensor
    class_names: tuple[str, ...]
    mean: torch.Tensor | None = None
    std: torch.Tensor | None = None
    listing: str | None = None

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.class_names)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample. A sample of ``ufm`` is its number, which stands for a one-hot vector
        with an entry for each sample."""
        return (len(self.train_y),) if self.name == UFM else tuple(self.train_x.shape[1:])

    def inputs(self, x: torch.Tensor) -> torch.Tensor:
        """The input of a network: ``(x - mean) / std`` of pixels, other features unchanged.

        Args:
            x: a batch of ``train_x`` or ``test_x``: uint8 (..., C, H, W), or features.

        Returns:
            float32 of the same shape and memory format for pixels; ``x`` itself otherwise.

        Raises:
            ValueError: pixels of another number of channels.

        Example:
            >>> from ncbook.data import load
            >>> digits = load("digits")
            >>> digits.inputs(digits.train_x[:128]).dtype
            torch.float32
        """
        if x.dtype != torch.uint8:
            return x
        known = 0 if self.mean is None else len(self.mean)
        if x.shape[-3] != known:
            raise ValueError(
                f"{self.name}: images of {x.shape[-3]} channels, but mean and std of {known}"
            )
        return normalised(x, self.mean, self.std)


def balanced_indices(labels: torch.Tensor, classes: int, size: int, seed: int) -> torch.Tensor:
    """Ascending indices of ``size`` random samples, as many of each class, or one more of some.

    Raises:
        ValueError: the smallest class has too few samples.
    """
    rng = np.random.default_rng(seed)
    counts = torch.bincount(labels, minlength=classes).numpy()
    least = int(counts.min())
    largest = least * classes + int((counts > least).sum())
    if size > largest:
        raise ValueError(
            f"train_size {size} is too large: a class-balanced subset has at most {largest} samples"
            f" (of {len(labels)}, {least} in the smallest class)"
        )
    each, extra = divmod(size, classes)
    wanted = np.full(classes, each)
    wanted[rng.permutation(np.flatnonzero(counts > each))[:extra]] += 1
    chosen = [
        rng.permutation(np.flatnonzero(labels.numpy() == k))[: wanted[k]] for k in range(classes)
    ]
    return torch.from_numpy(np.sort(np.concatenate(chosen)))
