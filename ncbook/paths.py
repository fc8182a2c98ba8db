"""Paths that a user wrote, the results folder, a folder that no other user can change, and files
that appear whole."""

import errno
import os
import stat
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

RESULTS_VARIABLE = "NCBOOK_RESULTS"


def expanded(path: str | Path, name: str) -> Path:
    """A path with ``~`` or ``~user`` replaced by that user's home folder; a ``ValueError`` that
    says what the path is (``name``) if that folder is not known.

    >>> expanded("images/train", "out")
    PosixPath('images/train')
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        home = Path(path).parts[0]
        raise ValueError(
            f"{name} {str(path)!r}: the home folder {home} is not known; give a path without ~"
        ) from None


def results_dir(results: str | Path | None = None) -> Path:
    """The results folder: the argument, else ``NCBOOK_RESULTS``, else ``./results``."""
    name = "results" if results else RESULTS_VARIABLE
    return expanded(results or os.environ.get(RESULTS_VARIABLE) or "results", name)


def private_folder(name: str) -> Path:
    """A folder for temporary files that only this user can change, since code is run from them (in
    the system's folder, others could be first); the same for all processes of this user.

    Raises:
        OSError: it cannot be made, or another user could write there.
    """
    top = Path(tempfile.gettempdir()) / f"ncbook-{os.getuid()}"
    with suppress(FileExistsError):
        top.mkdir(mode=0o700)
    found, others = top.lstat(), stat.S_IWGRP | stat.S_IWOTH
    ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
    if not ours or found.st_mode & others:
        raise OSError(f"{top} is not a folder of this user alone: remove it, or set TMPDIR")
    (top / name).mkdir(exist_ok=True)
    return top / name


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A file to be filled in this block, at whose end it appears, whole also when the power fails;
    if the block fails, it does not."""
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
            flush(file)
        os.replace(temporary, path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
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


def flush(file: BinaryIO) -> None:
    """Onto the disk, so that a full one is found before anything appears."""
    file.flush()
    os.fsync(file.fileno())
