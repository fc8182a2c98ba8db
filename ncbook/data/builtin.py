"""Data that need no files: digits, gaussians, and the unconstrained-feature model's numbers.

They do not depend on the seed of a run.
"""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from ncbook.data.dataset import UFM, Dataset, balanced_indices

DIGITS_PER_CLASS = 140  # of at least 174 images a class; the rest are test images
GAUSSIAN_DIM, GAUSSIAN_PER_CLASS = 784, 1000
GAUSSIAN_NOISE = 0.1  # epsilon
UFM_SAMPLES, UFM_CLASSES = 10_000, 10  # the paper's D.4.2
TEN = tuple(map(str, range(10)))  # names of the classes


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
