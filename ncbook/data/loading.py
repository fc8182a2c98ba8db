"""Data sets by name."""

from dataclasses import replace
from pathlib import Path

import psutil
import torch

from ncbook.data.dataset import (
    UFM,
    UFM_SAMPLES,
    Dataset,
    balanced_indices,
    digits,
    gaussians,
    sample_numbers,
)
from ncbook.data.downloads import DOWNLOADS, read_download
from ncbook.data.folders import IMAGENET_PREFIX, PREFIXES, class_folders
from ncbook.data.imagenet import IMAGENET_SIZE, Streamed, list_images
from ncbook.data.images import channel_statistics, normalised, read_images, resized
from ncbook.parameters import LARGEST_WHOLE, check_whole

# Small, and normalised when they are loaded.
FEATURES = {"digits": digits, "gaussians": gaussians}
NAMES = (*FEATURES, UFM, *DOWNLOADS)
VECTORS = ("gaussians", UFM)  # not images: nothing to resize
AUGMENTABLE = ("fashion_mnist", "cifar10", *PREFIXES)  # a folder's user knows what is in it
FOLDER_IMAGE_SIZE = 32  # pixels, by default: images of a folder vary in size
# Beyond any network here (the largest takes 224): 60,000 images of 1024 x 1024 are 63 GB.
LARGEST_IMAGE_SIZE = 1024


def validate_name(name: str) -> None:
    """Raise ``ValueError`` for an unknown name, or a folder that is missing or has another layout;
    nothing is loaded."""
    if _is_folder(name):
        class_folders(name)
    elif name not in NAMES:
        raise ValueError(f"unknown dataset {name!r}; valid: {_shown((*NAMES, *PREFIXES))}")


def check_augmentable(name: str) -> None:
    """Raise ``ValueError`` for a data set without images, or whose classes a mirror changes, such
    as digits."""
    if name not in AUGMENTABLE and not _is_folder(name):
        raise ValueError(f"dataset {name!r} cannot be augmented; valid: {_shown(AUGMENTABLE)}")


def _is_folder(name: object) -> bool:
    return isinstance(name, str) and name.startswith(PREFIXES)


def _shown(names: tuple[str, ...]) -> str:
    return ", ".join(f"{name}PATH" if name in PREFIXES else name for name in names)


def plain_name(name: str) -> str:
    """A data set's name as it is stored: ``folder:x`` for ``folder:./x/``."""
    kind, _, path = str(name).partition(":")
    return f"{kind}:{Path(path)}" if path and _is_folder(name) else name


def fingerprint(name: str) -> str | None:
    """The fingerprint of a folder's images; None for a data set that never changes.

    104,000 files in a disk's cache take 0.7 s of one core: ImageNet's 1.3 million about 9 s.
    """
    return list_images(name).listing if _is_folder(name) else None


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
        name: one of ``NAMES``; or ``folder:PATH`` with images ``PATH/train/<class>/*`` and
            ``PATH/test/<class>/*`` (or ``PATH/val/...``); or ``imagenet:PATH`` with
            ``PATH/train/<class>/*`` and ``PATH/val/<class>/*``, which is listed and not held in
            memory. A relative PATH is looked for here and then in ``NCBOOK_DATA``.
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
        OSError: a file or folder of images that cannot be read.
        DataNotFoundError: files that are damaged, or missing and cannot be downloaded.

    Example:
        >>> load("digits", train_size=100).train_x.shape
        torch.Size([100, 1, 8, 8])
    """
    validate_name(name)
    if train_size is not None:
        check_whole("train_size", train_size, 1, LARGEST_WHOLE)
    if image_size is not None:
        check_whole("image_size", image_size, 1, LARGEST_IMAGE_SIZE)
        if name in VECTORS:
            raise ValueError(
                f"{name} are vectors, not images: image_size must be None, not {image_size}"
            )
    if name.startswith(IMAGENET_PREFIX):
        full = list_images(name, image_size or IMAGENET_SIZE)
        if train_size is None:
            return full
        chosen = balanced_indices(full.train_y, full.num_classes, train_size, seed)
        files = full.files | {"train": full.files["train"][chosen.numpy()]}
        return replace(full, train_y=full.train_y[chosen], files=files)
    if name == UFM:
        return sample_numbers(train_size or UFM_SAMPLES, device)
    full = _read(name, image_size)
    mean, std = channel_statistics(full.train_x)
    if train_size is not None:
        chosen = balanced_indices(full.train_y, full.num_classes, train_size, seed)
        full = replace(full, train_x=full.train_x[chosen], train_y=full.train_y[chosen])

    def placed(x: torch.Tensor) -> torch.Tensor:
        x = normalised(x, mean, std) if name in FEATURES else x
        return resized(x, image_size).to(device)  # on the CPU, for the same pixels on every device

    return replace(
        full,
        train_x=placed(full.train_x),
        train_y=full.train_y.to(device),
        test_x=placed(full.test_x),
        test_y=full.test_y.to(device),
        mean=None if name in FEATURES else mean.to(device),
        std=None if name in FEATURES else std.to(device),
    )


def _read(name: str, image_size: int | None) -> Dataset:
    """All of a data set, before normalisation; of a folder at one size (32 if None)."""
    if not _is_folder(name):
        return FEATURES[name]() if name in FEATURES else read_download(name)
    listed = list_images(name)  # an empty class is found before minutes of decoding
    size, images = image_size or FOLDER_IMAGE_SIZE, sum(map(len, listed.files.values()))
    needed, there = images * 3 * size**2, psutil.virtual_memory().available
    if needed > there:
        raise ValueError(
            f"{name}: {images} images of {size} x {size} need {needed / 2**30:.1f} GiB, and "
            f"{there / 2**30:.1f} GiB are free; {IMAGENET_PREFIX}PATH reads them batch by batch"
        )
    train_x, test_x = (read_images(listed.files[split], size) for split in ("train", "test"))
    parts = train_x, listed.train_y, test_x, listed.test_y
    return Dataset(name, *parts, listed.class_names, listing=listed.listing)
