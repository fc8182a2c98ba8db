"""Images: decoded from files, their statistics, resized, normalised, augmented."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
import psutil
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps

from ncbook import text

CHUNK = 1024  # samples converted at a time, to avoid a float copy of a whole set
PADDING = 4  # pixels; the usual augmentation of CIFAR-10, which the paper's code uses
DEEP_MODES = ("I", "F")  # PIL's names of more than 8 bits a channel begin with these
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # EPS would start Ghostscript
PIXELS_VARIABLE = "NCBOOK_MAX_PIXELS"  # of one image
PIXEL_BYTES = 9  # while an image is decoded and made RGB
# PIL's own limit, from which it warns; or what a quarter of the memory holds, on each core.
MOST_PIXELS = psutil.virtual_memory().total // (4 * PIXEL_BYTES * (os.cpu_count() or 1))
MOST_PIXELS = min(89_478_485, MOST_PIXELS)


def read_images(files: Sequence[bytes], image_size: int) -> torch.Tensor:
    """RGB pixels of images, by their encoded paths: uint8, (N, 3, image_size, image_size)."""
    images = np.empty((len(files), 3, image_size, image_size), dtype=np.uint8)

    def read(i: int) -> None:
        images[i] = read_image(os.fsdecode(files[i]), image_size)

    # Decoding releases the GIL: for 32-pixel files threads are a third slower than one thread, for
    # photographs faster by the number of cores.
    with own_pixel_limit(), ThreadPool() as pool:
        for _ in pool.imap_unordered(read, range(len(files)), chunksize=64):
            pass
    return torch.from_numpy(images)


def read_image(path: str | Path, image_size: int) -> np.ndarray:
    """RGB pixels, uint8, (3, image_size, image_size): the largest centred square, resized."""
    bilinear = Image.Resampling.BILINEAR
    square = ImageOps.fit(rgb_image(path), (image_size, image_size), method=bilinear)
    return np.asarray(square).transpose(2, 0, 1)


def rgb_image(path: str | Path) -> Image.Image:
    """A decoded image; call it within ``own_pixel_limit``.

    Raises ValueError, with the file's name, if PIL cannot decode it, or if it has more pixels than
    allowed, or more than 8 bits a channel, which PIL would clip.
    """
    asked = os.environ.get(PIXELS_VARIABLE) or str(MOST_PIXELS)
    if not asked.isdecimal():
        raise ValueError(f"{PIXELS_VARIABLE} must be a whole number of pixels, got {asked!r}")
    limit = int(asked)
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > limit:
                raise ValueError(
                    f"{image.width} x {image.height} pixels, and at most {limit} are "
                    f"decoded here; {PIXELS_VARIABLE} sets another limit"
                )
            if image.mode.startswith(DEEP_MODES):
                raise ValueError(f"mode {image.mode}; wanted are 8 bits a channel")
            return image.convert("RGB")
    except Exception as error:  # decoders may raise almost anything
        why = text.line(error) or type(error).__name__
        raise ValueError(f"{path}: not an image that can be read ({why})") from error


@contextmanager
def own_pixel_limit() -> Iterator[None]:
    """Turn PIL's limit off in this block: ``rgb_image`` checks the size itself."""
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def channel_statistics(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and (population) standard deviation of every channel, float32, (C,); C = 1 of vectors.

    Summed in float64, chunk by chunk: for pixels the sums are exact. A constant channel has
    standard deviation 1 here, so that it becomes 0.
    """
    channels = x.flatten(2) if x.ndim > 2 else x.unsqueeze(1)  # (N, C, pixels)
    total, squares = torch.zeros(2, channels.shape[1], dtype=torch.float64)
    for chunk in channels.split(CHUNK):
        values = chunk.double()
        total += values.sum((0, 2))
        squares += values.square().sum((0, 2))
    count = channels.shape[0] * channels.shape[2]
    mean = total / count
    variance = squares / count - mean**2
    # The variance of a constant channel is rounding, below this share of its mean square.
    constant = variance <= 1e-12 * squares / count
    return mean.float(), torch.where(constant, 1.0, variance.clamp(min=0).sqrt()).float()


def normalised(x: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """``(x - mean) / std`` per channel, float32: of images (..., C, H, W) or vectors (N, d)."""
    if x.ndim > 2:
        mean, std = mean[:, None, None], std[:, None, None]
    return (x - mean).div_(std)


def resized(x: torch.Tensor, size: int | None) -> torch.Tensor:
    """Images (N, C, H, W) at ``size`` x ``size``, bilinear with antialias; uint8 stays uint8.

    Pixels are rounded once. PIL, and torchvision's ``Resize`` of a PIL image, round after the rows
    and again after the columns: the difference is at most one level. (torch's own resizing of uint8
    tensors is twice as fast, and up to two levels off.)
    """
    if size is None or x.shape[2:] == (size, size):
        return x
    result = torch.empty(*x.shape[:2], size, size, dtype=x.dtype, device=x.device)
    for chunk, target in zip(x.split(CHUNK), result.split(CHUNK), strict=True):
        values = F.interpolate(chunk.float(), size=(size, size), mode="bilinear", antialias=True)
        target.copy_(values if x.is_floating_point() else values.round_())
    return result


def augmented(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Each image shifted by up to 4 pixels, filled with black, and mirrored with probability 1/2.

    Args:
        x: images, uint8, (N, C, H, W), on any device.
        generator: a CPU generator, so that every device gets the same three numbers an image.

    Example:
        >>> images = torch.zeros(128, 3, 32, 32, dtype=torch.uint8)
        >>> augmented(images, torch.Generator().manual_seed(0)).shape
        torch.Size([128, 3, 32, 32])
    """
    count, _, height, width = x.shape
    corner = torch.randint(2 * PADDING + 1, (2, count), generator=generator)
    mirrored = torch.randint(2, (1, count), generator=generator)
    # One transfer of three small rows.
    top, left, mirrored = torch.cat((corner, mirrored)).to(x.device, non_blocking=True)
    x = torch.where(mirrored.bool()[:, None, None, None], x.flip(3), x)
    # A view of every possible crop, (N, C, 9, 9, H, W); indexing copies one for each image.
    crops = F.pad(x, (PADDING,) * 4).unfold(2, height, 1).unfold(3, width, 1)
    return crops[torch.arange(count, device=x.device), :, top, left]
