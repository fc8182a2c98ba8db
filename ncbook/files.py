"""Files that appear whole: what the store and training share."""

import contextlib
import errno
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

# How file systems and their mounts say that a folder cannot be synced. A full or broken disk says
# something else, and is an error.
NO_FOLDER_SYNC = {
    getattr(errno, name)
    for name in ("EINVAL", "ENOTSUP", "EOPNOTSUPP", "ENOSYS", "EBADF", "EACCES", "EPERM", "EISDIR")
}


@contextlib.contextmanager
def staged(path: Path) -> Iterator[BinaryIO]:
    """A temporary file in the folder of ``path``, to be filled, flushed and then made to
    ``appear``; it is removed if that does not happen."""
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
    finally:
        temporary.unlink(missing_ok=True)


def flush(file: BinaryIO) -> None:
    """Onto the disk, so that a full one is found before anything appears."""
    file.flush()
    os.fsync(file.fileno())


def appear(file: BinaryIO, path: Path) -> None:
    """A file that was flushed takes its name, whole, also when the power fails."""
    os.replace(file.name, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Names onto the disk; where a file system refuses that of folders, it syncs when it likes: a
    rename is whole there, too."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in NO_FOLDER_SYNC:
            raise
