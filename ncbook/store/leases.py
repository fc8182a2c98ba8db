"""Leases: which runs are being trained now, so that several sweeps on one store share the work.

The store drops duplicates, so a run that is trained twice costs time and nothing else. The protocol
prevents this whenever sweeps start, end, or die.

While a chunk of runs trains, ``results/leases/`` holds one small file that says who trains it (its
owner: host, process and the configs of the runs), once as ``<unique name>.owner``, and once more as
``<run id>.lock`` for each of its runs, by hard links. A link appears only if the name is free, on
every file system, and with all of its content. All names lead to the same file, so one heartbeat,
which sets its time of change, keeps all leases of the chunk alive.

An owner is dead if its last heartbeat is ``EXPIRY`` seconds old by the clock of the file system, or
if it is a process of this host that is gone; so is any other file. Whoever wants a dead owner's run
makes a link named after that very lease, in which one of many succeeds, and then replaces it.
"""

import json
import os
import platform
import tempfile
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import psutil

from ncbook.paths import results_dir

FOLDER = "leases"
HEARTBEAT = 5.0  # seconds between heartbeats
EXPIRY = 60.0  # seconds; longer than a network file system or a whole process may stall
START_TOLERANCE = 5.0  # seconds that two readings of a process's start time may differ by
LOCK, OWNER, NEW, INSTEAD = ".lock", ".owner", ".new", ".instead"


@contextmanager
def taken(
    results: str | Path | None, run_ids: Iterable[str], configs: Mapping[str, Mapping] | None = None
) -> Iterator[list[str]]:
    """Take the leases of those runs that nobody else is training, for this block; yield their ids.
    ``configs``, by run id, is what ``running`` tells others about the runs."""
    folder = results_dir(results) / FOLDER
    owner = _write_owner(folder, configs or {})
    over = threading.Event()

    def beat() -> None:
        while not over.wait(HEARTBEAT):
            with suppress(OSError):  # a full disk or a missing server: try again
                os.utime(owner)

    heart = threading.Thread(target=beat, daemon=True)
    heart.start()
    links: list[Path] = []
    try:
        now = owner.stat().st_mtime
        for run_id in run_ids:
            links += _take(folder / f"{run_id}{LOCK}", owner, now)
        yield [link.stem for link in links if link.suffix == LOCK]
    finally:
        over.set()
        heart.join()
        with suppress(OSError):  # if the disk refuses, they expire
            for link in links:
                with suppress(FileNotFoundError):
                    if link.samefile(owner):  # else another took us for dead
                        link.unlink()
            owner.unlink(missing_ok=True)
            owner.parent.rmdir()  # an error if it is not empty


def running(results: str | Path | None) -> dict[str, dict]:
    """The runs that are being trained now, by anyone: config by run id, empty if unknown."""
    folder = results_dir(results) / FOLDER
    now = _file_system_time(folder)
    owners = {lock.stem: _living_owner(lock, now) for lock in folder.glob(f"*{LOCK}")}
    return {i: owner["runs"].get(i, {}) for i, owner in owners.items() if owner}


def clear_dead(results: str | Path | None) -> None:
    """Remove the files of dead owners, which block nobody, and the folder if it is empty."""
    folder = results_dir(results) / FOLDER
    now = _file_system_time(folder)
    for path in folder.glob("*"):
        with suppress(FileNotFoundError):
            state = path.lstat()
            being_written = path.suffix == NEW and abs(now - state.st_mtime) < EXPIRY
            if not being_written and not _living_owner(path, now):
                moved = path.rename(folder / f"{uuid.uuid4().hex}{NEW}")
                found = moved.lstat()
                # A new file may have the inode of a removed one, but not its time.
                if (found.st_ino, found.st_mtime_ns) != (state.st_ino, state.st_mtime_ns):
                    _link(moved, path)
                moved.unlink()
    with suppress(OSError):  # not empty
        folder.rmdir()


def _write_owner(folder: Path, configs: Mapping[str, Mapping]) -> Path:
    """A new owner's file, which appears whole."""
    owner = folder / f"{uuid.uuid4().hex}{OWNER}"
    while True:
        with suppress(FileNotFoundError):  # another's end removed the empty folder
            folder.mkdir(parents=True, exist_ok=True)
            new = owner.with_suffix(NEW)
            try:
                new.write_text(json.dumps(_this_process() | {"runs": dict(configs)}))
                return new.rename(owner)
            finally:
                new.unlink(missing_ok=True)


def _take(lock: Path, owner: Path, now: float) -> list[Path]:
    """The links that make the lease ours; none if it is another's."""
    if _link(owner, lock):
        return [lock]
    with suppress(FileNotFoundError):  # it has just been given back
        state = lock.lstat()
        instead = lock.with_name(f"{lock.stem}-{state.st_ino}-{state.st_mtime_ns}{INSTEAD}")
        if not _living_owner(lock, now) and _link(owner, instead):
            new = lock.with_name(f"{uuid.uuid4().hex}{NEW}")
            os.link(owner, new)
            new.replace(lock)
            return [lock, instead]
    return []


def _link(owner: Path, lock: Path) -> bool:
    with suppress(FileExistsError):
        os.link(owner, lock)
        return True
    return False


def _living_owner(path: Path, now: float) -> dict | None:
    """What the file of a living owner says; None for any other file."""
    try:
        if not os.path.isfile(path):  # a pipe would block
            return None
        owner = json.loads(path.read_text())
        owner["runs"] = {run_id: dict(config) for run_id, config in owner["runs"].items()}
        if abs(now - path.stat().st_mtime) >= EXPIRY:
            return None
        if owner["host"] != _host():  # there its process may be running
            return owner
        process = psutil.Process(owner["pid"])
        same = abs(process.create_time() - owner["started"]) < START_TOLERANCE
        return owner if same and process.status() != psutil.STATUS_ZOMBIE else None
    except Exception:  # whatever the file may be
        return None


def _file_system_time(folder: Path) -> float:
    """On a network the clock is that of the server."""
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            return os.fstat(probe.fileno()).st_mtime
    except OSError:  # nobody trains, or we may only read
        return time.time()


def _this_process() -> dict:
    process = psutil.Process()
    return {"host": _host(), "pid": process.pid, "started": process.create_time()}


@cache
def _host() -> str:
    """This machine since it booted, and its namespace of process numbers (containers)."""
    parts = [platform.node()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(str(os.stat("/proc/self/ns/pid").st_ino))
    return " ".join(parts)
