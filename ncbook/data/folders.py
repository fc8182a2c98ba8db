"""Data sets of one's own: folders of images, one for each class.

``class_folders`` and ``list_images`` list them without decoding an image.
"""

import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
import psutil
import torch
from PIL import Image, ImageOps

from ncbook.data.dataset import Raw, last_line
from ncbook.data.downloads import data_dir
from ncbook.data.walk import images_below, is_hidden
from ncbook.paths import expanded

LOG = logging.getLogger(__name__)
FOLDER_PREFIX = "folder:"
FOLDER_IMAGE_SIZE = 32  # pixels, by default: images of a folder vary in size
TEST_FOLDERS = ("test", "val")  # the first that exists holds the test images
FINGERPRINT_DIGITS = 16  # hexadecimal
# The fingerprint also hashes the first bytes of some files, since all uncompressed images of one
# shape have the same size. That takes 20 ms from a disk's cache, however many files there are.
SAMPLED_FILES, SAMPLED_BYTES = 256, 2**16
NAMED = 3  # paths listed in a warning
DEEP_MODES = ("I", "F")  # PIL's names of more than 8 bits a channel begin with these
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # EPS would start Ghostscript
PIXELS_VARIABLE = "NCBOOK_MAX_PIXELS"  # of one image
MOST_PIXELS = 89_478_485  # PIL's own limit, from which it warns
PIXEL_BYTES = 9  # while an image is decoded and made RGB
DECODING_SHARE = 1 / 4  # of the machine's memory, for one image on each core


@dataclass(frozen=True)
class ClassFolders:
    """``train`` and ``test`` have one folder for each of ``classes``, which are sorted."""

    train: Path
    test: Path
    classes: tuple[str, ...]


def class_folders(name: str, test_folders: Sequence[str] = TEST_FOLDERS) -> ClassFolders:
    """The class folders of a data set named ``PREFIX:PATH``.

    Args:
        name: of the data set. A relative PATH is looked for here and then in ``data_dir()``, so
            that the name in results does not depend on the machine.
        test_folders: possible names of the folder of the test images, the preferred one first.

    Raises:
        ValueError: the folder, its ``train``, its test folder, or their classes are missing, or
            the classes differ; names what is missing.
    """
    root = _root(name)
    train = root / "train"
    test = next((root / t for t in test_folders if (root / t).is_dir()), None)
    if not train.is_dir() or test is None:
        preferred, *others = (f"{root}/{t}/<class>/" for t in test_folders)
        wanted = " ".join((preferred, *(f"(or {other})" for other in others)))
        raise ValueError(
            f"{name}: wanted are images in {root}/train/<class>/ and {wanted};"
            f" there is no {test_folders[0] if train.is_dir() else 'train'} folder"
        )
    classes, test_classes = _class_names(train), _class_names(test)
    if not classes:
        raise ValueError(f"{name}: there are no class folders in {train}")
    if classes != test_classes:
        odd = sorted(set(classes) ^ set(test_classes))
        raise ValueError(f"{name}: train and {test.name} must hold the same classes, but: {odd}")
    return ClassFolders(train, test, classes)


def _root(name: str) -> Path:
    kind, _, path = name.partition(":")
    here = expanded(path, kind)
    if path and here.is_dir():
        return here
    also = ""
    if not here.is_absolute():
        shared = data_dir()
        if path and (shared / here).is_dir():
            return shared / here
        also = f", here or in {shared}"
    raise ValueError(f"{name}: there is no folder {str(here)!r}{also}")


def _class_names(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(d.name for d in folder.iterdir() if d.is_dir() and not is_hidden(d.name)))


# ------------------------------------------------------------ listing images


@dataclass(frozen=True)
class Listing:
    """The images of a data set, by ``train`` and ``test``, class by class.

    Args:
        files: paths, as text (a million Path objects would take seconds and half a gigabyte).
        labels: int64, (N,).
        fingerprint: a hash of the classes, of each file's name in its folder and its size, and of
            the content of some files; independent of where the images are.
    """

    files: dict[str, list[str]]
    labels: dict[str, torch.Tensor]
    fingerprint: str


def list_images(name: str, folders: ClassFolders) -> Listing:
    """The images in the class folders of a data set, with a notice of the others.

    Raises:
        ValueError: a class without images, or a file or folder that cannot be read.
    """
    digest = hashlib.sha256("\0".join(folders.classes).encode(errors="surrogateescape"))
    files, labels, left_out = {}, {}, []
    for split, folder in (("train", folders.train), ("test", folders.test)):
        images, out = _images_of(folder, folders)
        left_out += out
        counts = torch.tensor([len(of_class) for of_class in images])
        files[split] = [path for of_class in images for path, _ in of_class]
        labels[split] = torch.arange(len(counts)).repeat_interleave(counts)
        start = len(os.path.join(folder, ""))
        digest.update(f"\0{split} {counts.tolist()}".encode())
        for of_class in images:
            lines = "\0".join(f"{path[start:]}\0{size}" for path, size in of_class)
            digest.update(lines.encode(errors="surrogateescape"))
    for sample in _samples([*files["train"], *files["test"]]):
        digest.update(sample)
    _warn_left_out(name, folders.train.parent, left_out)
    return Listing(files, labels, digest.hexdigest()[:FINGERPRINT_DIGITS])


def _images_of(folder: Path, folders: ClassFolders) -> tuple[list, list[str]]:
    """The images of one split by class, and the paths that were left out."""
    closed = {folders.train, folders.test, *folder.resolve().parents}
    paths = [os.path.join(folder, name) for name in folders.classes]
    images, left_out = images_below(paths, map(str, closed))
    for path, of_class in zip(paths, images, strict=True):
        if not of_class:
            name = os.path.basename(path)
            raise ValueError(f"{path}: there are no images of class {name!r}")
    hidden = (d for d in folder.iterdir() if is_hidden(d.name) and d.is_dir())
    return images, [*map(str, hidden), *left_out]


def _samples(files: list[str]) -> Iterator[bytes]:
    """The first bytes of some files, evenly spaced."""
    for i in np.linspace(0, len(files) - 1, min(SAMPLED_FILES, len(files)), dtype=int):
        try:
            with open(files[i], "rb") as file:
                yield file.read(SAMPLED_BYTES)
        except OSError as error:
            raise ValueError(f"{files[i]}: cannot be read ({error.strerror})") from None


def _warn_left_out(name: str, root: Path, paths: list[str]) -> None:
    if paths:
        named = ", ".join(os.path.relpath(path, root) for path in sorted(paths)[:NAMED])
        more = ", …" if len(paths) > NAMED else ""
        what = "hidden, system or linked twice"
        LOG.warning("%s: left out, as %s: %s (%s%s)", name, what, len(paths), named, more)


# ------------------------------------------------------------ reading them


def read_folder(name: str, image_size: int | None) -> Raw:
    """All images of a folder, RGB, at one size (32 if None)."""
    folders = class_folders(name)
    # List before reading: an empty class is found before minutes of decoding.
    listing = list_images(name, folders)
    size = image_size or FOLDER_IMAGE_SIZE
    _check_room(name, sum(map(len, listing.files.values())), size)
    train, test = (_read_images(listing.files[split], size) for split in ("train", "test"))
    labels = listing.labels
    return Raw(train, labels["train"], test, labels["test"], folders.classes, listing.fingerprint)


def _check_room(name: str, images: int, size: int) -> None:
    needed, there = images * 3 * size**2, psutil.virtual_memory().available
    if needed > there:
        raise ValueError(
            f"{name}: {images} images of {size} x {size} need {needed / 2**30:.1f} GiB, and "
            f"{there / 2**30:.1f} GiB are free; imagenet:PATH reads them batch by batch"
        )


def _read_images(files: list[str], image_size: int) -> torch.Tensor:
    images = np.empty((len(files), 3, image_size, image_size), dtype=np.uint8)

    def read(i: int) -> None:
        images[i] = read_image(files[i], image_size)

    # Decoding releases the GIL: for 32-pixel files threads are a third slower than one thread, for
    # photographs faster by the number of cores.
    with own_pixel_limit(), ThreadPool() as pool:
        for _ in pool.imap_unordered(read, range(len(files)), chunksize=64):
            pass
    return torch.from_numpy(images)


def read_image(path: str | Path, image_size: int) -> np.ndarray:
    """RGB pixels, uint8, (3, image_size, image_size): the largest centred square, resized.

    Raises:
        ValueError: see ``rgb_image``.
    """
    bilinear = Image.Resampling.BILINEAR
    square = ImageOps.fit(rgb_image(path), (image_size, image_size), method=bilinear)
    return np.asarray(square).transpose(2, 0, 1)


def pixel_limit() -> int:
    """The most pixels that an image may have: ``NCBOOK_MAX_PIXELS``, else PIL's limit, or less if
    a quarter of the memory is too small for that many on each core."""
    asked = os.environ.get(PIXELS_VARIABLE)
    if not asked:
        return min(MOST_PIXELS, pixels_that_fit())
    if not asked.isdecimal():
        raise ValueError(f"{PIXELS_VARIABLE} must be a whole number of pixels, got {asked!r}")
    return int(asked)


@cache  # called for each image
def pixels_that_fit() -> int:
    """Pixels of an image on each core that take ``DECODING_SHARE`` of the memory together."""
    memory = DECODING_SHARE * psutil.virtual_memory().total
    return int(memory / (PIXEL_BYTES * (os.cpu_count() or 1)))


@contextmanager
def own_pixel_limit() -> Iterator[None]:
    """Turn PIL's limit off in this block: ``rgb_image`` checks the size itself."""
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def rgb_image(path: str | Path) -> Image.Image:
    """A decoded image.

    Raises:
        ValueError: PIL cannot decode the file, or it has more pixels than ``pixel_limit``, or more
            than 8 bits a channel, which PIL would clip; names the file.
    """
    limit = pixel_limit()
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
        raise ValueError(f"{path}: not an image that can be read ({last_line(error)})") from error
