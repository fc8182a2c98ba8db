"""Leases: which runs are being trained now, so that several sweeps on one store share the work.

While a run trains, ``results/leases/<run id>.lock`` holds its config, and the process that trains
it holds the system's lock on that file. The system releases the lock when the process ends, however
it ends: a file that nobody has locked is left over, and blocks nobody.

The store drops duplicates: where a file system has no locks between machines, two sweeps on two
machines may train a run twice, which costs time and nothing else.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, flock
from pathlib import Path
from typing import Any, TextIO

from ncbook.paths import results_dir

FOLDER, LOCK = "leases", ".lock"


@contextmanager
def taken(results: str | Path | None, configs: Mapping[str, Mapping[str, Any]]) -> Iterator[list]:
    """Take the leases of those runs, given as config by id, that nobody else is training, for this
    block; yield their ids."""
    folder = results_dir(results) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as leases:
        took = {i: leases.enter_context(_lease(folder / f"{i}{LOCK}", configs[i])) for i in configs}
        yield [run_id for run_id, ours in took.items() if ours]


def running(results: str | Path | None) -> dict[str, dict]:
    """The runs that are being trained now, by anyone: config by run id."""
    found = {}
    for path in (results_dir(results) / FOLDER).glob(f"*{LOCK}"):
        with suppress(OSError, ValueError), _opened(path, "r") as file:  # it may just end
            if not _locked(file, LOCK_SH):
                found[path.stem] = json.load(file)
    return found


@contextmanager
def _lease(path: Path, config: Mapping[str, Any]) -> Iterator[bool]:
    """Whether the lease is ours for this block."""
    try:
        opened = _opened(path, "a")
    except PermissionError:  # another user's; it says the same
        opened = _opened(path, "r")
    with opened as file:
        # A file that its owner has removed since we opened it is no lease.
        ours = _locked(file, LOCK_EX) and os.fstat(file.fileno()).st_nlink > 0
        if ours and file.writable():
            file.truncate(0)  # what a dead owner left
            file.write(json.dumps(config))
            file.flush()
        try:
            yield ours
        finally:
            if ours:
                with suppress(OSError):  # without its lock it blocks nobody
                    path.unlink()


def _opened(path: Path, mode: str) -> TextIO:
    """A file that may be a stranger's: never what a link leads to, and a pipe blocks nobody."""
    flags = os.O_NOFOLLOW | os.O_NONBLOCK
    return open(path, mode, opener=lambda name, how: os.open(name, how | flags, 0o666))


@contextmanager
def alone(folder: Path) -> Iterator[bool]:
    """Whether nobody else has this folder in such a block."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield _locked(descriptor, LOCK_EX)
    finally:
        os.close(descriptor)


def _locked(file: TextIO | int, how: int) -> bool:
    """Lock a file until it is closed; False if another has locked it. A file system without locks
    knows of no other."""
    try:
        flock(file, how | LOCK_NB)
    except OSError as error:  # which of the two it is depends on the file system
        return not isinstance(error, BlockingIOError | PermissionError)
    return True
