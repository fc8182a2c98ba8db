"""Folders of images, one for each class: any data set of one's own.

``class_folders`` and ``image_files`` say what is there without opening an image.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from ncbook.data.dataset import Raw, last_line
from ncbook.data.downloads import data_dir

FOLDER_PREFIX = "folder:"
FOLDER_IMAGE_SIZE = 32  # pixels, where no image_size is given: images of a folder vary in size
TEST_FOLDERS = ("test", "val")  # the first that is there holds the test images
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".webp")
DEEP_MODES = ("I", "F")  # PIL's names of more than 8 bits a channel begin with these


@dataclass(frozen=True)
class ClassFolders:
    """``train`` and ``test`` hold one folder for each of ``classes``, which are sorted."""

    train: Path
    test: Path
    classes: tuple[str, ...]


def class_folders(name: str, test_folders: Sequence[str] = TEST_FOLDERS) -> ClassFolders:
    """The class folders of a data set named ``PREFIX:PATH``; a few folders are listed.

    Args:
        name: of the data set. A PATH that is not absolute is looked for here and then in
            ``data_dir()``: so that results can name a data set and not where a machine has it.
        test_folders: names that the folder of the test images may have, the preferred one first.

    Raises:
        ValueError: the folder, its ``train``, its test folder, or their classes are not there, or
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
    path = name.partition(":")[2]
    here = Path(path).expanduser()
    shared = data_dir() / here  # is ``here`` where that is absolute
    found = next((root for root in (here, shared) if path and root.is_dir()), None)
    if found is None:
        also = "" if here.is_absolute() else f", here or in {data_dir()}"
        raise ValueError(f"{name}: there is no folder {str(here)!r}{also}")
    return found


def _class_names(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(d.name for d in folder.iterdir() if d.is_dir()))


def image_files(folder: Path, classes: tuple[str, ...]) -> tuple[list[str], torch.Tensor]:
    """Paths of all images in the class folders, at any depth, class by class, and their labels.

    Returns:
        N paths, as text (a million Path objects would take seconds and half a gigabyte), and the
        labels, int64, (N,).

    Raises:
        ValueError: a class folder without images.
    """
    files: list[str] = []
    counts = []
    for name in classes:
        found = sorted(
            os.path.join(where, file)
            for where, _, inside in os.walk(folder / name, followlinks=True)
            for file in inside
            if file.lower().endswith(IMAGE_SUFFIXES)
        )
        if not found:
            raise ValueError(f"{folder / name}: there are no images of class {name!r}")
        files += found
        counts.append(len(found))
    return files, torch.arange(len(classes)).repeat_interleave(torch.tensor(counts))


def read_folder(name: str, image_size: int | None) -> Raw:
    """All images of a folder, RGB, at one size (32 if None)."""
    folders = class_folders(name)
    # Both lists before any image: an empty class is found before minutes of decoding.
    train, test = (image_files(f, folders.classes) for f in (folders.train, folders.test))
    size = image_size or FOLDER_IMAGE_SIZE
    return Raw(
        _read_images(train[0], size),
        train[1],
        _read_images(test[0], size),
        test[1],
        folders.classes,
    )


def _read_images(files: list[str], image_size: int) -> torch.Tensor:
    images = np.empty((len(files), 3, image_size, image_size), dtype=np.uint8)

    def read(i: int) -> None:
        images[i] = read_image(files[i], image_size)

    # Decoding is C code that lets other threads run: for 32-pixel files a third slower than one
    # thread, for photographs faster by the number of cores.
    with ThreadPool() as pool:
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


def rgb_image(path: str | Path) -> Image.Image:
    """A decoded image.

    Raises:
        ValueError: the file is no image that PIL can decode, or has more than 8 bits a channel,
            which PIL would clip; names the file.
    """
    try:
        with Image.open(path) as image:
            if image.mode.startswith(DEEP_MODES):
                raise ValueError(f"mode {image.mode}; wanted are 8 bits a channel")
            return image.convert("RGB")
    except Exception as error:  # a decoder may raise almost anything at bytes that are no image
        raise ValueError(f"{path}: not an image that can be read ({last_line(error)})") from error
