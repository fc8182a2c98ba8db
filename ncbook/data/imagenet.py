"""A tree of images that does not fit memory: listed when it is loaded, read batch by batch.

The random crop and flip of a training image depend only on the run's seed, the epoch and the image,
not on the process that reads it or on the order of reading.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ncbook.data.folders import (
    ClassFolders,
    class_folders,
    list_images,
    own_pixel_limit,
    rgb_image,
)
from ncbook.data.subsets import balanced_indices

IMAGENET_PREFIX = "imagenet:"
IMAGENET_SIZE = 224  # pixels, by default
# Shorter side over the crop's side: 256 and 224 in He et al. (2016) and torchvision's recipes.
RESIZE = 256 / 224
# Of the channels of ImageNet's training images, in [0, 1]: the constants in torchvision's weights
# and reference scripts. Other images use them, too.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
WHITE = 255


@dataclass(frozen=True, eq=False)
class Streamed:
    """A listing of training and test images: a ``Dataset`` without the pixels.

    Args:
        name: as passed to ``load``.
        class_names: of the K classes, sorted.
        image_size: height and width of the images that ``image`` returns.
        folders: of the training and of the test images, by ``train`` and ``test``.
        files: paths inside these folders, arrays of bytes (a third of the memory of strings, and
            every loader process has a copy).
        labels: int64, (N,), below K.
        listing: fingerprint of all images in the folder.
    """

    name: str
    class_names: tuple[str, ...]
    image_size: int
    folders: dict[str, Path]
    files: dict[str, np.ndarray]
    labels: dict[str, torch.Tensor]
    listing: str

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.class_names)

    @property
    def train_y(self) -> torch.Tensor:
        """Labels of the training images, (N,)."""
        return self.labels["train"]

    @property
    def test_y(self) -> torch.Tensor:
        """Labels of the test images, (N_test,)."""
        return self.labels["test"]

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Shape of one sample, (3, H, W)."""
        return (3, self.image_size, self.image_size)

    def path(self, split: str, index: int) -> Path:
        """The path of an image of ``train`` or ``test``."""
        return self.folders[split] / os.fsdecode(self.files[split][index])

    def image(self, split: str, index: int, seeds: Sequence[int] | None = None) -> torch.Tensor:
        """One image, uint8, (3, H, W).

        Args:
            split, index: which.
            seeds: whole numbers that determine a random crop and flip; None resizes the image so
                that its shorter side is 256/224 of ``image_size``, and crops the centre.

        Raises:
            ValueError: the file cannot be read as an image; names it.
        """
        with own_pixel_limit():
            image = rgb_image(self.path(split, index))
        if seeds is None:
            return _centred(self.image_size)(image)
        with torch.random.fork_rng(devices=[]):  # the transforms draw from torch's own generator
            torch.default_generator.manual_seed(_mixed(seeds))
            return _augmented(self.image_size)(image)

    def inputs(self, x: torch.Tensor) -> torch.Tensor:
        """Pixels, uint8 (..., 3, H, W), as a network takes them: ``(x - mean) / std``, float32."""
        mean, std = (WHITE * torch.tensor(v, device=x.device)[:, None, None] for v in (MEAN, STD))
        return (x - mean).div_(std)


def imagenet_folders(name: str) -> ClassFolders:
    """As ``class_folders``, but the test images are those in ``val``: ImageNet's ``test`` has no
    labels."""
    return class_folders(name, ("val",))


def open_stream(
    name: str, *, train_size: int | None = None, seed: int = 0, image_size: int | None = None
) -> Streamed:
    """List ``PATH/train/<class>/*`` and ``PATH/val/<class>/*`` of ``imagenet:PATH``.

    Args:
        name, train_size, seed: see ``load``.
        image_size: height and width in pixels of the crops; 224 if None.

    Raises:
        ValueError: a folder is missing or empty, the classes differ, or train_size is too large.
    """
    found = imagenet_folders(name)
    listing = list_images(name, found)
    train, train_y = listing.files["train"], listing.labels["train"]
    if train_size is not None:
        rng = np.random.default_rng(seed)
        chosen = balanced_indices(train_y, len(found.classes), train_size, rng)
        train, train_y = [train[i] for i in chosen.tolist()], train_y[chosen]
    return Streamed(
        name=name,
        class_names=found.classes,
        image_size=image_size or IMAGENET_SIZE,
        folders={"train": found.train, "test": found.test},
        files={
            "train": _inside(found.train, train),
            "test": _inside(found.test, listing.files["test"]),
        },
        labels={"train": train_y, "test": listing.labels["test"]},
        listing=listing.fingerprint,
    )


def _inside(folder: Path, files: Sequence[str]) -> np.ndarray:
    start = len(os.path.join(folder, ""))
    return np.array([os.fsencode(file[start:]) for file in files])


def _mixed(seeds: Sequence[int]) -> int:
    """One well-mixed 64-bit seed from several numbers; (1, 23) and (12, 3) differ."""
    return int(np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0])


Transform = Callable[[Image.Image], torch.Tensor]


@cache
def _centred(size: int) -> Transform:
    from torchvision.transforms import v2

    return v2.Compose([v2.Resize(round(RESIZE * size)), v2.CenterCrop(size), v2.PILToTensor()])


@cache
def _augmented(size: int) -> Transform:
    from torchvision.transforms import v2

    crop, flip = v2.RandomResizedCrop(size), v2.RandomHorizontalFlip()
    return v2.Compose([crop, flip, v2.PILToTensor()])
