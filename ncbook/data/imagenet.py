"""A tree of images that does not fit memory: listed when it is loaded, read batch by batch.

The random crop and flip of a training image depend only on the run's seed, the epoch and the image,
not on the process that reads it or on the order of reading.
"""

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ncbook.data.folders import class_folders, images_of
from ncbook.data.images import normalised, own_pixel_limit, rgb_image

IMAGENET_SIZE = 224  # pixels, by default
# Shorter side over the crop's side: 256 and 224 in He et al. (2016) and torchvision's recipes.
RESIZE = 256 / 224
# Of the channels of ImageNet's training images, in [0, 1]: the constants in torchvision's weights
# and reference scripts. Other images use them, too.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
WHITE = 255
FINGERPRINT_DIGITS = 16  # hexadecimal
# The fingerprint also hashes the first bytes of some files, since all uncompressed images of one
# shape have the same size. That takes 20 ms from a disk's cache, however many files there are.
SAMPLED_FILES, SAMPLED_BYTES = 256, 2**16

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Streamed:
    """A listing of training and test images: a ``Dataset`` without the pixels.

    Args:
        name, class_names: as of a ``Dataset``; the classes are sorted.
        image_size: height and width of the images that ``image`` returns.
        files: paths by ``train`` and ``test``, class by class, arrays of bytes (smaller than
            strings, and every loader process has a copy).
        train_y, test_y: labels, int64, (N,), below K.
        listing: fingerprint: a hash of the classes, of each file's name in its folder and its size,
            and of the content of some files; independent of where the images are.
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
        """One image, uint8, (3, H, W): with a random crop and flip that these whole numbers
        determine; without them resized so that its shorter side is 256/224 of ``image_size``, and
        the centre of that.

        Raises ValueError, with the file's name, if it cannot be read as an image.
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


def list_images(name: str, image_size: int = IMAGENET_SIZE) -> Streamed:
    """The images of a data set named ``PREFIX:PATH``, with a notice of those that are left out.

    Raises ValueError as ``class_folders`` does, and for a class without images; an OSError for a
    file or folder that cannot be read.
    """
    train, test, classes = class_folders(name)
    digest = hashlib.sha256("\0".join(classes).encode(errors="surrogateescape"))
    files, labels, left_out = {}, {}, []
    for split, folder in (("train", train), ("test", test)):
        images, out = images_of(folder, classes)
        if [] in images:
            empty = classes[images.index([])]
            raise ValueError(f"{folder / empty}: there are no images of class {empty!r}")
        left_out += out
        counts = torch.tensor([len(of_class) for of_class in images])
        files[split] = np.array([os.fsencode(path) for of_class in images for path, _ in of_class])
        labels[split] = torch.arange(len(counts)).repeat_interleave(counts)
        start = len(os.path.join(folder, ""))
        digest.update(f"\0{split} {counts.tolist()}".encode())
        for of_class in images:
            lines = "\0".join(f"{path[start:]}\0{size}" for path, size in of_class)
            digest.update(lines.encode(errors="surrogateescape"))
    paths = [*files["train"], *files["test"]]
    for i in np.linspace(0, len(paths) - 1, min(SAMPLED_FILES, len(paths)), dtype=int):
        with open(os.fsdecode(paths[i]), "rb") as file:
            digest.update(file.read(SAMPLED_BYTES))
    if left_out:
        first = os.path.relpath(min(left_out), train.parent)
        said = "%s: left out, as hidden, system or linked: %s, such as %s"
        _log.warning(said, name, len(left_out), first)
    fingerprint = digest.hexdigest()[:FINGERPRINT_DIGITS]
    return Streamed(name, classes, image_size, files, labels["train"], labels["test"], fingerprint)
