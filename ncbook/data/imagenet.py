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

from ncbook.data.dataset import balanced_indices
from ncbook.data.folders import list_images
from ncbook.data.images import normalised, own_pixel_limit, rgb_image

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
        files: paths by ``train`` and ``test``, arrays of bytes (smaller than strings, and every
            loader process has a copy).
        train_y, test_y: labels, int64, (N,), below K.
        listing: fingerprint of all images in the folder.
    """

    name: str
    class_names: tuple[str, ...]
    image_size: int
    files: dict[str, np.ndarray]
    train_y: torch.Tensor
    test_y: torch.Tensor
    listing: str

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.class_names)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Shape of one sample, (3, H, W)."""
        return (3, self.image_size, self.image_size)

    def path(self, split: str, index: int) -> Path:
        """The path of an image of ``train`` or ``test``."""
        return Path(os.fsdecode(self.files[split][index]))

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
        centred, random = _transforms(self.image_size)
        if seeds is None:
            return centred(image)
        # One well-mixed seed from several numbers: (1, 23) and (12, 3) differ.
        mixed = int(np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0])
        with torch.random.fork_rng(devices=[]):  # the transforms draw from torch's own generator
            torch.default_generator.manual_seed(mixed)
            return random(image)

    def inputs(self, x: torch.Tensor) -> torch.Tensor:
        """Pixels, uint8 (..., 3, H, W), as a network takes them: ``(x - mean) / std``, float32."""
        return normalised(x, *(WHITE * torch.tensor(v, device=x.device) for v in (MEAN, STD)))


@cache
def _transforms(size: int) -> tuple[Callable[[Image.Image], torch.Tensor], ...]:
    """The centre of an image, and a random crop and flip."""
    from torchvision.transforms import v2

    centred = v2.Resize(round(RESIZE * size)), v2.CenterCrop(size)
    random = v2.RandomResizedCrop(size), v2.RandomHorizontalFlip()
    return tuple(v2.Compose([*steps, v2.PILToTensor()]) for steps in (centred, random))


def open_stream(name: str, train_size: int | None, seed: int, image_size: int | None) -> Streamed:
    """List the images of ``imagenet:PATH``: see ``load``."""
    listing = list_images(name)
    files = {split: np.array([*map(os.fsencode, f)]) for split, f in listing.files.items()}
    train_y, test_y = listing.labels["train"], listing.labels["test"]
    if train_size is not None:
        chosen = balanced_indices(train_y, len(listing.classes), train_size, seed)
        train_y, files["train"] = train_y[chosen], files["train"][chosen.numpy()]
    size = image_size or IMAGENET_SIZE
    return Streamed(name, listing.classes, size, files, train_y, test_y, listing.fingerprint)
