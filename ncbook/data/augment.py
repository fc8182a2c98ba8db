"""Random crops and flips of a batch, on its own device."""

import torch
import torch.nn.functional as F

from ncbook.data.folders import FOLDER_PREFIX
from ncbook.data.imagenet import IMAGENET_PREFIX

PADDING = 4  # pixels; the usual augmentation of CIFAR-10, which the paper's code uses
AUGMENTABLE = ("fashion_mnist", "cifar10")
# Class folders, in memory or streamed: their user knows what is in them.
AUGMENTABLE_PREFIXES = (FOLDER_PREFIX, IMAGENET_PREFIX)


def augmented(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Each image shifted by up to 4 pixels, filled with black, and mirrored with probability 1/2.

    Args:
        x: images, uint8, (N, C, H, W), on any device.
        generator: a CPU generator, so that every device gets the same three numbers an image.

    Returns:
        New images, uint8, (N, C, H, W), on the device of ``x``.

    Raises:
        ValueError: anything but uint8 images, whose black is 0.

    Example:
        >>> images = torch.zeros(128, 3, 32, 32, dtype=torch.uint8)
        >>> augmented(images, torch.Generator().manual_seed(0)).shape
        torch.Size([128, 3, 32, 32])
    """
    if x.dtype != torch.uint8 or x.ndim != 4:
        raise ValueError(
            f"only uint8 images (N, C, H, W) can be augmented, got {x.dtype} {tuple(x.shape)}"
        )
    count, _, height, width = x.shape
    corner = torch.randint(2 * PADDING + 1, (2, count), generator=generator)
    mirrored = torch.randint(2, (1, count), generator=generator)
    # One transfer of three small rows.
    top, left, mirrored = torch.cat((corner, mirrored)).to(x.device, non_blocking=True)
    x = torch.where(mirrored.bool()[:, None, None, None], x.flip(3), x)
    # A view of every possible crop, (N, C, 9, 9, H, W); indexing copies one for each image.
    crops = F.pad(x, (PADDING,) * 4).unfold(2, height, 1).unfold(3, width, 1)
    return crops[torch.arange(count, device=x.device), :, top, left]


def check_augmentable(name: str) -> None:
    """Refuse a data set without images, or whose classes a mirror changes, such as digits.

    Raises:
        ValueError: names the data sets that can be augmented.
    """
    if name not in AUGMENTABLE and not str(name).startswith(AUGMENTABLE_PREFIXES):
        valid = (*AUGMENTABLE, *(f"{prefix}PATH" for prefix in AUGMENTABLE_PREFIXES))
        raise ValueError(f"dataset {name!r} cannot be augmented; valid: {', '.join(valid)}")
