"""The images below some folders, each once, with symbolic links followed."""

import os
import stat
from array import array
from collections.abc import Iterable, Iterator, Sequence

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".webp")
# Made by file systems, archivers and network drives in any folder.
SYSTEM_FOLDERS = ("__macosx", "@eadir", "@recycle", "#recycle", "#snapshot", "$recycle.bin")
SYSTEM_FOLDERS += ("system volume information", "lost+found")

Image = tuple[str, int]  # path, size in bytes


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or made by a system."""
    return name.startswith(".") or name.lower() in SYSTEM_FOLDERS


def images_below(
    folders: Sequence[str], closed: Iterable[str]
) -> tuple[list[list[Image]], list[str]]:
    """The images below each folder, at any depth, sorted by path.

    A symbolic link is followed, unless its target is listed already. A hard link is an ordinary
    file.

    Args:
        folders: the folders to search.
        closed: folders that no link may lead into, such as the parents of ``folders``.

    Returns:
        A list for each folder, and the paths that were left out: hidden folders and images, and
        links to what is listed anyway.

    Raises:
        ValueError: a folder or an image cannot be read; names it.
    """
    walk = _Walk(closed)
    links: list[list[str]] = [[] for _ in folders]
    found = [walk.below(folder, waiting) for folder, waiting in zip(folders, links, strict=True)]
    if any(links):
        known = set(walk.keys)
        for images, waiting in zip(found, links, strict=True):
            images += walk.behind(waiting, known)
    return [sorted(images) for images in found], walk.left_out


class _Walk:
    def __init__(self, closed: Iterable[str]) -> None:
        self.entered = {_place(_status(folder)) for folder in closed}
        self.keys = array("q")  # of images: a million take 10 MB, and in a set ten times that
        self.left_out: list[str] = []

    def below(self, folder: str, links: list[str]) -> list[Image]:
        """Images below a folder; links are not followed but added to ``links``."""
        images, folders = [], [folder]
        while folders:
            for entry in self._entries(folders.pop()):
                if entry.is_symlink():
                    links.append(entry.path)
                elif entry.is_dir():
                    folders.append(entry.path)
                elif _is_image(entry.name):
                    status = _status(entry)
                    self.keys.append(hash(_place(status)))
                    images.append((entry.path, _size(entry.path, status)))
        return images

    def behind(self, links: list[str], known: set[int]) -> list[Image]:
        """Images that links lead to, and links found there; ``known`` are those found before."""
        images = []
        links.sort(key=os.path.isfile)  # folders first, so that files in them keep their own names
        for path in links:  # which grows
            if os.path.isdir(path):
                start = len(self.keys)
                images += self.below(path, links)
                known.update(self.keys[start:])
            elif _is_image(path):
                status = _status(path)
                key = hash(_place(status))
                if key in known:
                    self.left_out.append(path)
                else:
                    known.add(key)
                    images.append((path, _size(path, status)))
        return images

    def _entries(self, folder: str) -> Iterator[os.DirEntry]:
        place = _place(_status(folder))
        if place in self.entered:
            self.left_out.append(folder)
            return
        self.entered.add(place)
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if not is_hidden(entry.name):
                        yield entry
                    elif _is_image(entry.name) or entry.is_dir():
                        self.left_out.append(entry.path)
        except OSError as error:
            raise ValueError(f"{folder}: cannot be listed ({error.strerror})") from None


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES)


def _place(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _status(path: str | os.DirEntry) -> os.stat_result:
    try:
        return path.stat() if isinstance(path, os.DirEntry) else os.stat(path)
    except OSError as error:
        raise ValueError(f"{os.fspath(path)}: cannot be read ({error.strerror})") from None


def _size(path: str, status: os.stat_result) -> int:
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{path}: not a regular file, and so no image")
    return status.st_size
