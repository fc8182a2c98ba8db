"""A data set in memory, class-balanced subsets, and the data sets that need no files: digits,
gaussians, and the unconstrained-feature model's numbers, which do not depend on a run's seed."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from ncbook.data.images import normalised

UFM = "ufm"
DIGITS_PER_CLASS = 140  # of at least 174 images a class; the rest are test images
GAUSSIAN_DIM, GAUSSIAN_PER_CLASS = 784, 1000
GAUSSIAN_NOISE = 0.1  # epsilon
UFM_SAMPLES, UFM_CLASSES = 10_000, 10  # the paper's D.4.2
TEN = tuple(map(str, range(10)))  # names of the classes


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
        mean, std: of every channel of the full training set, before images are resized (of a
            folder's after), float32, (C,), in pixel units; None where the features are already
            normalised.
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
        """The input of a network, from ``train_x`` or ``test_x``: of pixels, uint8 (..., C, H, W),
        ``(x - mean) / std``, float32, in their memory format; other features unchanged."""
        return normalised(x, self.mean, self.std) if x.dtype == torch.uint8 else x


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


def digits() -> Dataset:
    """scikit-learn's 1,797 images of 8 x 8, 0 .. 16: 140 a class to train, the other 397 to test.

    The training classes are balanced because the paper assumes so (B). The file is read directly:
    importing scikit-learn takes a second in each worker of a sweep.
    """
    folder = Path(find_spec("sklearn").origin).parent / "datasets" / "data"
    table = torch.from_numpy(np.loadtxt(folder / "digits.csv.gz", np.uint8, delimiter=","))
    x, y = table[:, :-1].reshape(-1, 1, 8, 8), table[:, -1].long()
    train = balanced_indices(y, len(TEN), DIGITS_PER_CLASS * len(TEN), seed=0)
    is_test = torch.ones(len(y), dtype=torch.bool)
    is_test[train] = False
    return Dataset("digits", x[train], y[train], x[is_test], y[is_test], TEN)


def gaussians() -> Dataset:
    """A separable mixture ``x = mu_k + eps z``, with ``mu_k`` and ``z`` drawn from N(0, I).

    The paper (section 3.4, Fig. 8) says only "separable"; with d = 784 and eps = 0.1 two
    centres are some sqrt(2 d) / eps = 400 standard deviations apart. Training and test samples are
    separate draws around the same centres.
    """
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(len(TEN), GAUSSIAN_DIM, generator=generator)
    y = torch.arange(len(TEN)).repeat_interleave(GAUSSIAN_PER_CLASS)

    def draw() -> torch.Tensor:
        noise = torch.randn(len(y), GAUSSIAN_DIM, generator=generator)
        return centres[y] + GAUSSIAN_NOISE * noise

    return Dataset("gaussians", draw(), y, draw(), y, TEN)


def sample_numbers(count: int, device: str | torch.device) -> Dataset:
    """For the unconstrained-feature model: sample n is the number n, of class n mod K.

    Its features are free parameters, so the test set is the training set.
    """
    if not UFM_CLASSES <= count <= UFM_SAMPLES:
        raise ValueError(
            f"train_size of {UFM} must be from {UFM_CLASSES} to {UFM_SAMPLES}, got {count}"
        )
    x = torch.arange(count, device=device).unsqueeze(1)
    y = x.squeeze(1) % UFM_CLASSES
    return Dataset(UFM, x, y, x, y, TEN)
