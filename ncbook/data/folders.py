"""Folders of images, one for each class, listed without decoding an image."""

import hashlib
import logging
import os
import stat
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ncbook.data.downloads import data_dir
from ncbook.paths import expanded

FOLDER_PREFIX, IMAGENET_PREFIX = "folder:", "imagenet:"
# Of these the first that exists holds the test images: ImageNet's ``test`` has no labels.
TEST_FOLDERS = {FOLDER_PREFIX: ("test", "val"), IMAGENET_PREFIX: ("val",)}
PREFIXES = tuple(TEST_FOLDERS)
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".webp")
# Made by file systems, archivers and network drives in any folder.
SYSTEM_FOLDERS = ("__macosx", "@eadir", "@recycle", "#recycle", "#snapshot", "$recycle.bin")
SYSTEM_FOLDERS += ("system volume information", "lost+found")
FINGERPRINT_DIGITS = 16  # hexadecimal
# The fingerprint also hashes the first bytes of some files, since all uncompressed images of one
# shape have the same size. That takes 20 ms from a disk's cache, however many files there are.
SAMPLED_FILES, SAMPLED_BYTES = 256, 2**16
NAMED = 3  # paths listed in a notice

Images = list[tuple[str, int]]  # path, size in bytes
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Listing:
    """The images of a data set, by ``train`` and ``test``, class by class.

    Args:
        files: paths, as text (a million Path objects would take seconds and half a gigabyte).
        labels: int64, (N,).
        classes: their names, sorted.
        fingerprint: a hash of the classes, of each file's name in its folder and its size, and of
            the content of some files; independent of where the images are.
    """

    files: dict[str, list[str]]
    labels: dict[str, torch.Tensor]
    classes: tuple[str, ...]
    fingerprint: str


def list_images(name: str) -> Listing:
    """The images of a data set named ``PREFIX:PATH``, with a notice of those that are left out.

    Raises:
        ValueError: see ``class_folders``; a class without images; a file or folder that cannot be
            read.
    """
    try:
        return _listed(name)
    except OSError as error:
        raise ValueError(f"{error.filename}: cannot be read ({error.strerror})") from None


def _listed(name: str) -> Listing:
    train, test, classes = class_folders(name)
    digest = hashlib.sha256("\0".join(classes).encode(errors="surrogateescape"))
    files, labels, left_out = {}, {}, []
    for split, folder in (("train", train), ("test", test)):
        images, out = _images_of(folder, classes, [train, test, *folder.resolve().parents])
        if [] in images:
            empty = classes[images.index([])]
            raise ValueError(f"{folder / empty}: there are no images of class {empty!r}")
        left_out += out
        counts = torch.tensor([len(of_class) for of_class in images])
        files[split] = [path for of_class in images for path, _ in of_class]
        labels[split] = torch.arange(len(counts)).repeat_interleave(counts)
        start = len(os.path.join(folder, ""))
        digest.update(f"\0{split} {counts.tolist()}".encode())
        for of_class in images:
            lines = "\0".join(f"{path[start:]}\0{size}" for path, size in of_class)
            digest.update(lines.encode(errors="surrogateescape"))
    paths = [*files["train"], *files["test"]]
    for i in np.linspace(0, len(paths) - 1, min(SAMPLED_FILES, len(paths)), dtype=int):
        with open(paths[i], "rb") as file:
            digest.update(file.read(SAMPLED_BYTES))
    if left_out:
        named = ", ".join(os.path.relpath(path, train.parent) for path in sorted(left_out)[:NAMED])
        more = ", …" if len(left_out) > NAMED else ""
        what = "hidden, system or linked twice"
        _log.warning("%s: left out, as %s: %s (%s%s)", name, what, len(left_out), named, more)
    return Listing(files, labels, classes, digest.hexdigest()[:FINGERPRINT_DIGITS])


def class_folders(name: str) -> tuple[Path, Path, tuple[str, ...]]:
    """The folders of the training and of the test images, and the sorted names of their classes.

    A relative PATH is looked for here and then in ``data_dir()``, so that the name in results does
    not depend on the machine.

    Raises:
        ValueError: the folder, its ``train``, its test folder, or their classes are missing, or
            the classes differ; names what is missing.
    """
    root, test_folders = _root(name), TEST_FOLDERS[f"{name.partition(':')[0]}:"]
    train = root / "train"
    test = next((root / t for t in test_folders if (root / t).is_dir()), None)
    if not train.is_dir() or test is None:
        wanted = " or ".join(f"{root}/{t}/<class>/" for t in test_folders)
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
    return train, test, classes


def _root(name: str) -> Path:
    kind, _, path = name.partition(":")
    here = expanded(path, kind)
    if path and here.is_dir():
        return here
    shared = None if here.is_absolute() else data_dir()
    if path and shared and (shared / here).is_dir():
        return shared / here
    where = f", here or in {shared}" if shared else ""
    raise ValueError(f"{name}: there is no folder {str(here)!r}{where}")


def _class_names(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(d.name for d in folder.iterdir() if d.is_dir() and not _is_hidden(d.name)))


def _images_of(
    folder: Path, classes: tuple[str, ...], closed: list[Path]
) -> tuple[list[Images], list[str]]:
    """The images of each class at any depth, sorted by path; and the paths that were left out:
    hidden folders and images, and symbolic links to what is listed anyway.

    Args:
        folder: with the class folders.
        closed: folders that no link may lead into.
    """
    left_out = [str(d) for d in folder.iterdir() if _is_hidden(d.name) and d.is_dir()]
    entered, files, links = {os.path.realpath(path) for path in closed}, [], []
    todo = deque((k, os.path.join(folder, name)) for k, name in enumerate(classes))
    while todo:
        k, path = todo.popleft()
        place = os.path.realpath(path)
        if place in entered:
            left_out.append(path)
            continue
        entered.add(place)
        for entry in sorted(os.scandir(path), key=lambda entry: entry.name):
            is_folder = os.path.isdir(entry) if entry.is_symlink() else entry.is_dir()
            is_image = entry.name.lower().endswith(IMAGE_SUFFIXES)
            if _is_hidden(entry.name):
                left_out += [entry.path] * (is_folder or is_image)
            elif is_folder:  # links last, so that what they lead to keeps its own name
                (todo.append if entry.is_symlink() else todo.appendleft)((k, entry.path))
            elif is_image:
                (links if entry.is_symlink() else files).append((k, entry.path))
    known = {os.path.realpath(path) for _, path in files} if links else set()
    for k, path in links:
        place = os.path.realpath(path)
        if place in known:
            left_out.append(path)
        else:
            files.append((k, path))
        known.add(place)
    images: list[Images] = [[] for _ in classes]
    for k, path in files:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{path}: not a regular file, and so no image")
        images[k].append((path, status.st_size))
    return [sorted(of_class) for of_class in images], left_out


def _is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or made by a system."""
    return name.startswith(".") or name.lower() in SYSTEM_FOLDERS
