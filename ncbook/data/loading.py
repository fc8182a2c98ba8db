"""Data sets by name."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ncbook.data.builtin import UFM_SAMPLES, digits, gaussians, sample_numbers
from ncbook.data.dataset import UFM, Dataset, Raw
from ncbook.data.downloads import DOWNLOADS, read_download
from ncbook.data.folders import (
    FOLDER_PREFIX,
    ClassFolders,
    class_folders,
    list_images,
    read_folder,
)
from ncbook.data.imagenet import IMAGENET_PREFIX, Streamed, imagenet_folders, open_stream
from ncbook.data.images import channel_statistics, normalised, resized
from ncbook.data.subsets import balanced_indices
from ncbook.parameters import is_number

# Small, and normalised when they are loaded.
FEATURES = {"digits": digits, "gaussians": gaussians}
NAMES = (*FEATURES, UFM, *DOWNLOADS)
VECTORS = ("gaussians", UFM)  # not images: nothing to resize
# A name with such a prefix is a path, checked by listing its folders.
PREFIX_CHECKS: dict[str, Callable[[str], ClassFolders]] = {
    FOLDER_PREFIX: class_folders,
    IMAGENET_PREFIX: imagenet_folders,
}
# Beyond any network here (the largest takes 224): 60,000 images of 1024 x 1024 are 63 GB.
LARGEST_IMAGE_SIZE = 1024


def validate_name(name: str) -> None:
    """Check a data set's name without loading anything.

    Raises:
        ValueError: an unknown name, or a folder that is missing or has another layout.
    """
    for prefix, check in PREFIX_CHECKS.items():
        if isinstance(name, str) and name.startswith(prefix):
            check(name)
            return
    if name not in NAMES:
        valid = (*NAMES, *(f"{prefix}PATH" for prefix in PREFIX_CHECKS))
        raise ValueError(f"unknown dataset {name!r}; valid: {', '.join(valid)}")


def plain_name(name: str) -> str:
    """A data set's name as it is stored: ``folder:x`` for ``folder:./x/``."""
    kind, _, path = str(name).partition(":")
    return f"{kind}:{Path(path)}" if path and f"{kind}:" in PREFIX_CHECKS else name


def fingerprint(name: str) -> str | None:
    """The fingerprint of a folder's images; None for a data set that never changes.

    104,000 files in a disk's cache take 0.6 s of one core: ImageNet's 1.3 million about 7 s.

    Raises:
        ValueError: a folder that is missing or has another layout.
    """
    for prefix, folders in PREFIX_CHECKS.items():
        if isinstance(name, str) and name.startswith(prefix):
            return list_images(name, folders(name)).fingerprint
    return None


def load(
    name: str,
    *,
    train_size: int | None = None,
    seed: int = 0,
    image_size: int | None = None,
    device: str | torch.device = "cpu",
) -> Dataset | Streamed:
    """Load a data set: pixels of images from files, normalised features of the others.

    Args:
        name: ``digits``, ``gaussians``, ``ufm``, ``mnist``, ``fashion_mnist``, ``cifar10``, or
            ``folder:PATH`` with images ``PATH/train/<class>/*`` and ``PATH/test/<class>/*`` (or
            ``PATH/val/...``), or ``imagenet:PATH`` with ``PATH/train/<class>/*`` and
            ``PATH/val/<class>/*``, which is listed and not held in memory. A relative PATH is
            looked for here and then in ``NCBOOK_DATA``.
        train_size: number of training samples, as many of each class (or one more of some); all
            if None.
        seed: of the draw of ``train_size`` samples.
        image_size: height and width in pixels to which images are resized (bilinear); None keeps
            them, but those of a folder become 32 x 32, and ImageNet's 224 x 224.
        device: of the tensors.

    Returns:
        The tensors, on ``device``; for ``imagenet:PATH`` a listing. Statistics are those of the
        full training set before resizing, for a folder after it (its images vary in size), and for
        ImageNet the usual constants.

    Raises:
        ValueError: a name, size or folder that cannot be used.
        DataNotFoundError: files that are damaged, or missing and cannot be downloaded.

    Example:
        >>> load("digits", train_size=100).train_x.shape
        torch.Size([100, 1, 8, 8])
    """
    validate_name(name)
    _check_sizes(name, train_size, image_size)
    if name.startswith(IMAGENET_PREFIX):
        return open_stream(name, train_size=train_size, seed=seed, image_size=image_size)
    if name == UFM:
        return sample_numbers(train_size or UFM_SAMPLES, device)
    raw = _read(name, image_size)
    _check_samples(name, raw)
    mean, std = (value.to(device) for value in channel_statistics(raw.train_x))
    if train_size is not None:
        rng = np.random.default_rng(seed)
        chosen = balanced_indices(raw.train_y, len(raw.class_names), train_size, rng)
        raw = replace(raw, train_x=raw.train_x[chosen], train_y=raw.train_y[chosen])

    def placed(x: torch.Tensor) -> torch.Tensor:
        if name in FEATURES:
            return resized(normalised(x.to(device), mean, std), image_size)
        return resized(x, image_size).to(device)  # on the CPU, for the same pixels on every device

    return Dataset(
        name=name,
        train_x=placed(raw.train_x),
        train_y=raw.train_y.to(device),
        test_x=placed(raw.test_x),
        test_y=raw.test_y.to(device),
        num_classes=len(raw.class_names),
        class_names=raw.class_names,
        mean=None if name in FEATURES else mean,
        std=None if name in FEATURES else std,
        listing=raw.listing,
    )


def _check_sizes(name: str, train_size: int | None, image_size: int | None) -> None:
    for what, size in (("train_size", train_size), ("image_size", image_size)):
        if size is not None and (not is_number(size, int) or size < 1):
            raise ValueError(f"{what} must be a whole number of at least 1, or None, not {size!r}")
    if image_size is None:
        return
    if name in VECTORS:
        raise ValueError(
            f"{name} are vectors, not images: image_size must be None, not {image_size}"
        )
    if image_size > LARGEST_IMAGE_SIZE:
        raise ValueError(f"image_size must be at most {LARGEST_IMAGE_SIZE}, not {image_size}")


def _read(name: str, image_size: int | None) -> Raw:
    if name.startswith(FOLDER_PREFIX):
        return read_folder(name, image_size)
    return FEATURES[name]() if name in FEATURES else read_download(name)


def _check_samples(name: str, raw: Raw) -> None:
    counts = torch.bincount(raw.train_y, minlength=len(raw.class_names))
    empty = [raw.class_names[k] for k in (counts == 0).nonzero().flatten().tolist()]
    if empty:
        raise ValueError(f"{name}: no training samples of class {', '.join(empty)}")
    if len(raw.test_y) == 0:
        raise ValueError(f"{name}: no test samples")
