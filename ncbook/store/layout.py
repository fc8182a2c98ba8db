"""Pairs of files in a folder: how they are found, how they appear, and what killed writers left."""

import contextlib
import fcntl
import os
import re
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ncbook.files import appear, flush, sync_folder
from ncbook.store.names import ID_DIGITS, KINDS, results_dir

SUFFIX = ".parquet"
UNLOCKED_SECONDS = 86_400.0  # where files cannot be locked: the age at which no writer lives
ATTEMPTS = 3
KEY = re.compile(f"[0-9a-f]{{{ID_DIGITS}}}")


class ResultsFolderError(OSError):
    """The results folder cannot be written."""


@contextlib.contextmanager
def refusals_named(root: Path) -> Iterator[None]:
    """What the file system refuses in this block, in one line that names the results folder."""
    try:
        yield
    except ResultsFolderError:
        raise
    except OSError as error:
        raise ResultsFolderError(
            f"the results folder {root} cannot be written ({error.strerror or error})"
        ) from error


# ------------------------------------------------------------ finding


@dataclass(frozen=True)
class Listing:
    """The files of a store at one moment, key to path, sorted by key."""

    runs: dict[str, Path]
    history: dict[str, Path]

    def pair(self, key: str) -> list[Path]:
        """The one or two files of this key."""
        return [files[key] for files in (self.runs, self.history) if key in files]

    def paths(self, keys: Iterable[str]) -> list[Path]:
        """The files of all these keys."""
        return [path for key in keys for path in self.pair(key)]


def list_pairs(results: str | Path | None) -> Listing:
    """What the store holds now; one that is not there holds nothing."""
    root = results_dir(results)
    while True:
        runs, history = (_keys(root / kind) for kind in KINDS)
        # Compaction may remove a pair between the two looks, its file of runs first: one whose
        # file of runs is still there without a history never had any.
        alone = runs.keys() - history.keys()
        if not alone or alone <= _keys(root / "runs").keys():
            return Listing(runs, history)


def _keys(folder: Path) -> dict[str, Path]:
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(SUFFIX))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return {name.removesuffix(SUFFIX): folder / name for name in names}


# ------------------------------------------------------------ writing and removing


@contextlib.contextmanager
def staged(path: Path) -> Iterator[BinaryIO]:
    """A temporary file beside ``path``, to be filled and then made to ``appear`` there."""
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "xb") as file:
            # The lock ends with this process, however it ends, and so tells the living from the
            # dead. Nobody waits for it.
            with contextlib.suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield file
    finally:
        temporary.unlink(missing_ok=True)


def put(root: Path, key: str, contents: Mapping[str, bytes]) -> Path:
    """Store a pair, by kind; its file of runs appears last, and is returned."""
    for _ in range(ATTEMPTS - 1):
        # Where locks do not work, someone may take the temporary files for those of the dead.
        with contextlib.suppress(FileNotFoundError):
            return _put(root, key, contents)
    return _put(root, key, contents)


def _put(root: Path, key: str, contents: Mapping[str, bytes]) -> Path:
    paths = {kind: root / kind / f"{key}{SUFFIX}" for kind in KINDS if kind in contents}
    with contextlib.ExitStack() as stack:
        files = {}
        # The runs are staged before a history appears: they say that its writer is at work.
        for kind, path in paths.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            files[kind] = stack.enter_context(staged(path))
            files[kind].write(contents[kind])
            flush(files[kind])
        for kind in reversed(paths):
            appear(files[kind], paths[kind])
    return paths["runs"]


def remove(listing: Listing, keys: Iterable[str]) -> None:
    """Remove pairs; at no moment, nor after a power cut, are there runs that lost their history."""
    keys = list(keys)
    for files in (listing.runs, listing.history):
        gone = [files[key] for key in keys if key in files]
        for path in gone:
            path.unlink(missing_ok=True)
        if gone:
            sync_folder(gone[0].parent)


def ensure_writable(results: str | Path | None = None) -> Path:
    """Make the results folder, and prove that it can be written by writing a file and removing it.

    Raises:
        ResultsFolderError: it cannot be made or written; what had been made is removed again.
    """
    root = results_dir(results)
    made: list[Path] = []
    try:
        with refusals_named(root):
            for folder in (root / kind for kind in KINDS):
                missing = [f for f in (folder, *folder.parents) if not f.exists()]
                for parent in reversed(missing):
                    parent.mkdir(exist_ok=True)
                    made.append(parent)
                with staged(folder / "probe") as file:
                    file.write(b"probe")
                    flush(file)
    except ResultsFolderError:
        for folder in reversed(made):
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise
    return root


# ------------------------------------------------------------ what killed writers left


@contextlib.contextmanager
def only_one(root: Path) -> Iterator[bool]:
    """Whether nobody else is in such a block for this store.

    Where folders cannot be locked, always: two at once do work twice, but lose nothing.
    """
    descriptor = os.open(root / "runs", os.O_RDONLY)
    try:
        yield _lock(descriptor) is not False
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool | None:
    """Whether the lock was free; None where there are no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def clear_leftovers(root: Path) -> None:
    """Remove the temporary files of writers that are dead, and histories they left without runs."""
    living: set[str] = set()
    # Listed before the runs that commit them; a file with a name of its own is somebody else's.
    orphans = {key for key in _keys(root / "history") if KEY.fullmatch(key)}
    for temporary in [path for kind in KINDS for path in (root / kind).glob(".*.tmp")]:
        if _is_left_over(temporary):
            temporary.unlink(missing_ok=True)
        else:
            living.add(temporary.name.split(".")[1])
    for key in orphans - living - _keys(root / "runs").keys():
        _remove_orphan(root, key)


def _is_left_over(temporary: Path) -> bool:
    try:
        with open(temporary, "rb+") as file:
            free = _lock(file.fileno())
        return free if free is not None else _age(temporary) > UNLOCKED_SECONDS
    except OSError:  # gone, or not a file
        return False


def _age(path: Path) -> float:
    return time.time() - path.stat().st_mtime


def _remove_orphan(root: Path, key: str) -> None:
    """Move it aside first, so that a history that a writer has just put there is not lost."""
    orphan = root / "history" / f"{key}{SUFFIX}"
    aside = orphan.with_name(f".{key}.{uuid.uuid4().hex}.tmp")
    with contextlib.suppress(FileNotFoundError):
        os.rename(orphan, aside)
        if (root / "runs" / orphan.name).exists() or any((root / "runs").glob(f".{key}.*.tmp")):
            with contextlib.suppress(FileExistsError):
                os.link(aside, orphan)
        aside.unlink()
