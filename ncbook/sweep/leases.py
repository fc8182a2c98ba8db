"""Leases: which runs are being trained now, so that several sweeps on one store share the work.

A lease saves work, not data: the store drops duplicates, so a run that is trained twice costs time
and nothing else. The protocol prevents double work whenever sweeps start, end, or die; it does not
try to prevent it where three of them meet within a few microseconds.

While a chunk of runs trains, ``results/leases/`` holds one small file that says who trains it (its
owner: host, process and the configs of the runs), once as ``<unique name>.owner``, and once more as
``<run id>.lock`` for each of its runs, by hard links. A link appears only if the name is free, on
every file system, and with all of its content. All names lead to the same file, so one heartbeat,
which sets its time of change, keeps all leases of the chunk alive.

An owner is dead if its process is gone or, on another host, if its last heartbeat is ``EXPIRY``
seconds old by the clock of the file system. Whatever else lies in place of a lease (another text, a
folder, a pipe) counts as dead, too. Whoever wants a dead owner's run first moves its lease away by
a rename, in which one of many succeeds. The folder is removed with the last lease.
"""

import contextlib
import json
import os
import platform
import stat
import tempfile
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

import psutil

from ncbook import store

FOLDER = "leases"
HEARTBEAT = 5.0  # seconds between heartbeats
EXPIRY = 60.0  # seconds; longer than a network file system or a whole process may stall
START_TOLERANCE = 5.0  # seconds that two readings of a process's start time may differ by
LOCK, OWNER, NEW = ".lock", ".owner", ".new"
SCALARS = (str, int, float, type(None))


@contextlib.contextmanager
def taken(
    results: str | Path | None, run_ids: Iterable[str], configs: Mapping[str, Mapping] | None = None
) -> Iterator[list[str]]:
    """Take the leases of those runs that nobody else is training; yield their ids.

    They are given back when the block ends. ``configs``, by run id, is what ``training`` tells
    others about the runs.
    """
    folder = store.results_dir(results) / FOLDER
    owner = _write_owner(folder, configs or {})
    over = threading.Event()
    heart = threading.Thread(target=_beat, args=(owner, over), daemon=True)
    heart.start()
    locks: list[Path] = []
    try:
        now = owner.stat().st_mtime
        for run_id in run_ids:
            lock = folder / f"{run_id}{LOCK}"
            if _take(lock, owner, now):
                locks.append(lock)
        yield [lock.stem for lock in locks]
    finally:
        over.set()
        heart.join()
        _give_back(owner, locks)


def running(results: str | Path | None) -> set[str]:
    """The ids of the runs that are being trained now, by anyone."""
    return set(training(results))


def training(results: str | Path | None) -> dict[str, dict]:
    """The runs that are being trained now, by anyone: config by run id, empty if unknown."""
    folder = store.results_dir(results) / FOLDER
    now = _file_system_time(folder)
    found = {}
    for lock in folder.glob(f"*{LOCK}"):
        if owner := _living_owner(lock, now):
            config = owner["runs"].get(lock.stem, {})
            found[lock.stem] = {k: v for k, v in config.items() if isinstance(v, SCALARS)}
    return found


def clear_dead(results: str | Path | None) -> None:
    """Remove the files of dead owners. They block nobody, but this leaves the folder tidy."""
    folder = store.results_dir(results) / FOLDER
    now = _file_system_time(folder)
    for path in folder.glob("*"):
        with contextlib.suppress(FileNotFoundError):
            state = path.lstat()
            being_written = path.suffix == NEW and abs(now - state.st_mtime) < EXPIRY
            if not being_written and not _living_owner(path, now):
                _move_away(path, state)
    _remove_if_empty(folder)


# ------------------------------------------------------------ taking and giving back


def _write_owner(folder: Path, configs: Mapping[str, Mapping]) -> Path:
    """A new owner's file, which appears whole."""
    text = json.dumps(_this_process() | {"runs": dict(configs)})
    owner = folder / f"{uuid.uuid4().hex}{OWNER}"
    new = owner.with_suffix(NEW)
    while True:
        with contextlib.suppress(FileNotFoundError):  # another's end removed the empty folder
            folder.mkdir(parents=True, exist_ok=True)
            try:
                new.write_text(text)
                return new.rename(owner)
            finally:
                new.unlink(missing_ok=True)


def _take(lock: Path, owner: Path, now: float) -> bool:
    """Whether the lease is ours now."""
    if _link(owner, lock):
        return True
    with contextlib.suppress(FileNotFoundError):  # given back, or another moved it away
        state = lock.lstat()
        return not _living_owner(lock, now) and _move_away(lock, state) and _link(owner, lock)
    return False


def _link(owner: Path, lock: Path) -> bool:
    with contextlib.suppress(FileExistsError):
        os.link(owner, lock)
        return True
    return False


def _move_away(dead: Path, state: os.stat_result) -> bool:
    """Remove a dead lease, unless another has already done so: one of many succeeds.

    If the name leads to another file by now, that is the lease of someone who was faster, and it
    returns to its place.

    Raises:
        FileNotFoundError: someone else has moved it.
    """
    moved = dead.with_name(f"{uuid.uuid4().hex}{NEW}")
    dead.rename(moved)
    found = moved.lstat()
    # A new file may have the inode of a removed one, but not its time.
    same = os.path.samestat(found, state) and found.st_mtime_ns == state.st_mtime_ns
    if not same:
        _link(moved, dead)
    with contextlib.suppress(OSError):  # a folder that is not empty
        moved.rmdir() if stat.S_ISDIR(found.st_mode) else moved.unlink()
    return same


def _give_back(owner: Path, locks: list[Path]) -> None:
    """Remove our files; if the disk refuses, again and again until it does not."""
    try:
        for lock in locks:
            with contextlib.suppress(FileNotFoundError):
                if lock.samefile(owner):  # else another took us for dead
                    lock.unlink()
        owner.unlink(missing_ok=True)
        _remove_if_empty(owner.parent)
    except OSError:
        again = threading.Timer(HEARTBEAT, _give_back, [owner, locks])
        again.daemon = True
        again.start()


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


# ------------------------------------------------------------ life and death


def _living_owner(path: Path, now: float) -> dict | None:
    """What the file of a living owner says; None for any other file."""
    try:
        # Do not wait for the other end of a pipe.
        with open(path, opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            state = os.fstat(file.fileno())
            owner = json.load(file) if stat.S_ISREG(state.st_mode) else {}
        well_formed = all(isinstance(config, dict) for config in owner["runs"].values())
        return owner if well_formed and _is_alive(owner, abs(now - state.st_mtime)) else None
    except (
        *(OSError, psutil.Error),  # a folder, a loop of links; no such process
        *(ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError),
    ):
        return None


def _is_alive(owner: Mapping, silent_seconds: float) -> bool:
    if owner["host"] != _host():
        return silent_seconds < EXPIRY
    process = psutil.Process(owner["pid"])
    same = abs(process.create_time() - owner["started"]) < START_TOLERANCE
    return same and process.status() != psutil.STATUS_ZOMBIE


def _file_system_time(folder: Path) -> float:
    """On a network the clock is that of the server."""
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            return os.fstat(probe.fileno()).st_mtime
    except OSError:  # nobody trains, or we may only read
        return time.time()


def _beat(owner: Path, over: threading.Event) -> None:
    while not over.wait(HEARTBEAT):
        with contextlib.suppress(OSError):  # a full disk or a missing server: try again
            os.utime(owner)


def _this_process() -> dict:
    process = psutil.Process()
    return {"host": _host(), "pid": process.pid, "started": process.create_time()}


@cache
def _host() -> str:
    """This machine since it booted, and its namespace of process numbers (containers)."""
    parts = [platform.node()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(str(os.stat("/proc/self/ns/pid").st_ino))
    return " ".join(parts)
