"""Folders for temporary files that only this user can change: code is run from them.

The system's temporary folder is open to all users, so another could put a folder there first.
"""

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path


def folder(name: str) -> Path:
    """The folder ``name``, the same for all processes of this user.

    Raises:
        OSError: it cannot be made, or another user could write there.
    """
    posix = os.name == "posix"  # a folder of Windows is the user's own
    top = Path(tempfile.gettempdir()) / f"ncbook-{os.getuid() if posix else 'user'}"
    with suppress(FileExistsError):
        top.mkdir(mode=0o700)
    found, others = top.lstat(), stat.S_IWGRP | stat.S_IWOTH
    ours = stat.S_ISDIR(found.st_mode) and not found.st_mode & others
    if posix and not (ours and found.st_uid == os.getuid()):
        raise OSError(f"{top} is not a folder of this user alone: remove it, or set TMPDIR")
    (top / name).mkdir(exist_ok=True)
    return top / name
