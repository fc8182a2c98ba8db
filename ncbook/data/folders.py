"""Folders of images, one for each class, listed without decoding an image."""

import os
from pathlib import Path

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

Images = list[tuple[str, int]]  # path, size in bytes


def class_folders(name: str) -> tuple[Path, Path, tuple[str, ...]]:
    """The folders of the training and of the test images, and the sorted names of their classes.

    A relative PATH is looked for here and then in ``data_dir()``, so that the name in results does
    not depend on the machine. Raises ValueError, with what is missing or differs.
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
    if not path:
        raise ValueError(f"{name} lacks the folder: write {kind}:PATH")
    here = expanded(path, kind)
    if here.is_dir():
        return here
    shared = None if here.is_absolute() else data_dir()
    if shared and (shared / here).is_dir():
        return shared / here
    where = f", here or in {shared}" if shared else ""
    raise ValueError(f"{name}: there is no folder {str(here)!r}{where}")


def _class_names(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(d.name for d in folder.iterdir() if d.is_dir() and not _is_hidden(d.name)))


def images_of(folder: Path, classes: tuple[str, ...]) -> tuple[list[Images], list[str]]:
    """The images of each class at any depth, sorted by path; and the paths that were left out:
    what is hidden, and, inside a class's folder, links to folders, which may lead back."""
    left_out = [str(d) for d in folder.iterdir() if _is_hidden(d.name) and d.is_dir()]
    images: list[Images] = [[] for _ in classes]
    for top, of_class in zip(classes, images, strict=True):
        for path, inner, names in os.walk(os.path.join(folder, top), onerror=_fail):
            files = [name for name in names if name.lower().endswith(IMAGE_SUFFIXES)]
            linked = [name for name in inner if os.path.islink(os.path.join(path, name))]
            out = {*linked, *filter(_is_hidden, (*inner, *files))}
            left_out += [os.path.join(path, name) for name in out]
            inner[:] = [name for name in inner if name not in out]
            found = (os.path.join(path, name) for name in files if name not in out)
            of_class += [(file, os.stat(file).st_size) for file in found]
    return [sorted(of_class) for of_class in images], left_out


def _fail(error: OSError) -> None:
    raise error


def _is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or made by a system."""
    return name.startswith(".") or name.lower() in SYSTEM_FOLDERS
