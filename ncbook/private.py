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
    user = os.getuid() if os.name == "posix" else "user"  # a folder of Windows is the user's own
    top = Path(tempfile.gettempdir()) / f"ncbook-{user}"
    with suppress(FileExistsError):
        top.mkdir(mode=0o700)
    if os.name == "posix" and not _is_ours(top.lstat()):
        raise OSError(f"{top} is not a folder of this user alone: remove it, or set TMPDIR")
    (top / name).mkdir(exist_ok=True)
    return top / name


def _is_ours(found: os.stat_result) -> bool:
    others = stat.S_IWGRP | stat.S_IWOTH
    ours = found.st_uid == os.getuid() and not found.st_mode & others
    return stat.S_ISDIR(found.st_mode) and ours
