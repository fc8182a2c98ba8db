"""Files that appear whole: what the store and training share."""

import contextlib
import errno
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A file to be filled in this block, at whose end it appears; if the block fails, it does
    not."""
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
            flush(file)
            appear(file, path)
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
        if error.errno in (errno.EIO, errno.ENOSPC):
            raise
