"""Who trains which run now: so that sweeps on one store, at the same time, train each run once.

``results/leases/`` holds two kinds of small files, and is gone when nobody trains. An owner, one
chunk in training, has ``<owner>.owner``, which says on which host and in which process it lives,
and touches it every few seconds. A lease ``<run id>.<generation>`` names its owner. Both appear
only if nobody else made them, which every file system promises (``O_EXCL``).

A lease of a dead owner is taken over by making the next generation, and kept only if the dead one
is still there afterwards: so of many that find it at the same moment, one gets it. An owner is dead
if its process is gone, or, on another host, if it was not touched for ``EXPIRY`` seconds, by the
file system's own clock. What cannot be a lease or an owner counts as one of the dead, whatever lies
there: a file of another form, a folder, a pipe.
"""

import contextlib
import json
import os
import platform
import re
import stat
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

from ncbook import store

FOLDER = "leases"
HEARTBEAT = 5.0  # seconds between touches
EXPIRY = 60.0  # a long stall of a network file system or of the whole process must fit in
START_TOLERANCE = 5.0  # seconds that two readings of a process's start may differ by
OWNER = ".owner"
PROBE = ".probe"
LEASE = re.compile(r"(.+)\.([0-9]{1,18})", re.DOTALL)
OWNER_NAME = re.compile("[0-9a-f]{32}")
SCALARS = (str, int, float, type(None))


@dataclass(frozen=True)
class Lease:
    """Runs that this process alone may train, until the block that took them ends."""

    folder: Path
    owner: str
    generations: dict[str, int]  # by run id

    @property
    def ids(self) -> list[str]:
        """The runs that are ours."""
        return list(self.generations)

    def kept(self) -> list[str]:
        """The runs that are still ours: that nobody took over, thinking that we were dead."""
        found = _all_generations(self.folder)
        return [i for i, ours in self.generations.items() if max(found.get(i, [-1])) == ours]


@contextlib.contextmanager
def taken(
    results: str | Path | None, run_ids: Sequence[str], configs: Mapping[str, Mapping] | None = None
) -> Iterator[Lease]:
    """Take those of some runs that nobody else trains; they are given back at the block's end.

    ``configs``, by run id, tell others what they are: see ``training``.
    """
    folder = store.results_dir(results) / FOLDER
    owner = uuid.uuid4().hex
    over = threading.Event()
    _make(folder, owner + OWNER, json.dumps(_this_process() | {"runs": dict(configs or {})}))
    heart = threading.Thread(target=_beat, args=(folder / (owner + OWNER), over), daemon=True)
    heart.start()
    lease = Lease(folder, owner, {})
    try:
        _take(lease, run_ids)
        yield lease
    finally:
        over.set()
        heart.join()
        _end(lease)


def running(results: str | Path | None) -> set[str]:
    """The ids of the runs that are being trained now, by anyone."""
    return set(training(results))


def training(results: str | Path | None) -> dict[str, dict]:
    """The runs that are being trained now, by anyone: config by id, empty where its owner does not
    say it."""
    folder = store.results_dir(results) / FOLDER
    now = _now(folder)
    owners: dict[str, dict | None] = {}
    found = {}
    for run_id, generations in _all_generations(folder).items():
        owner, _ = _read(folder / f"{run_id}.{max(generations)}") or ("", None)
        if owner not in owners:
            owners[owner] = _living(folder, owner, now)
        if living := owners[owner]:
            found[run_id] = living["runs"].get(run_id, {})
    return found


def clear_dead(results: str | Path | None) -> None:
    """Remove what dead owners left: nothing needs it done, but a folder is tidier."""
    folder = store.results_dir(results) / FOLDER
    alive = running(results)
    now = _now(folder)
    for run_id in _all_generations(folder).keys() - alive:
        with taken(results, [run_id]):
            pass  # taken over and given back: all its generations go
    for path in folder.glob(f"*{OWNER}"):
        if not _living(folder, path.stem, now):
            _remove(path)
    for path in folder.glob(f"*{PROBE}"):  # safe to delete: their owner makes another
        _remove(path)
    _remove_if_empty(folder)


# ------------------------------------------------------------ taking


def _take(lease: Lease, run_ids: Sequence[str]) -> None:
    now = _now(lease.folder)
    held = _all_generations(lease.folder)
    for run_id in run_ids:
        found = held.get(run_id, [])
        before = max(found, default=-1)
        if found and not _is_free(lease.folder, f"{run_id}.{before}", now):
            continue
        if _take_one(lease, run_id, before):
            lease.generations[run_id] = before + 1


def _take_one(lease: Lease, run_id: str, before: int) -> bool:
    """Make generation ``before + 1``; keep it only if what it succeeds is still there."""
    dead = lease.folder / f"{run_id}.{before}"
    mark = _mark(dead)
    if not _make(lease.folder, f"{run_id}.{before + 1}", lease.owner):
        return False
    if before < 0 or (mark is not None and _mark(dead) == mark):
        return True
    (lease.folder / f"{run_id}.{before + 1}").unlink(missing_ok=True)
    return False


def _end(lease: Lease) -> None:
    """Give back; where the disk refuses, as soon as it no longer does: until then, or until this
    process ends, others take us for living."""
    try:
        _give_back(lease)
    except OSError:
        threading.Thread(target=_give_back_later, args=(lease,), daemon=True).start()


def _give_back_later(lease: Lease) -> None:
    while True:
        time.sleep(HEARTBEAT)
        with contextlib.suppress(OSError):
            return _give_back(lease)


def _give_back(lease: Lease) -> None:
    """Of each run our own file goes last: while it is there, nobody else begins."""
    found = _all_generations(lease.folder)
    for run_id, ours in lease.generations.items():
        for generation in sorted(found.get(run_id, [])):
            if generation <= ours:
                _remove(lease.folder / f"{run_id}.{generation}")
    _remove(lease.folder / (lease.owner + OWNER))
    _remove_if_empty(lease.folder)


def _make(folder: Path, name: str, text: str) -> bool:
    """Whether a file of this name could be made, with this text from the start.

    Linked from a file that is whole: nobody can see a lease without its owner.
    """
    while True:
        with contextlib.suppress(FileNotFoundError):  # the last one out has removed the folder
            folder.mkdir(parents=True, exist_ok=True)
            whole = folder / f"{uuid.uuid4().hex}{PROBE}"
            whole.write_text(text)
            try:
                os.link(whole, folder / name)
                return True
            except FileExistsError:
                return False
            finally:
                whole.unlink(missing_ok=True)


def _remove(path: Path) -> None:
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


# ------------------------------------------------------------ what is there


def _all_generations(folder: Path) -> dict[str, list[int]]:
    found = defaultdict(list)
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for name in os.listdir(folder):
            if lease := LEASE.fullmatch(name):
                found[lease[1]].append(int(lease[2]))
    return found


def _read(path: Path) -> tuple[str, os.stat_result] | None:
    """Text and state of a file; None if there is none. What is no file, or cannot be read, has no
    text."""
    with contextlib.suppress(FileNotFoundError):
        try:
            # Opened before its state is asked for, for a network file system then looks at the
            # server; and without waiting, as for the other end of a pipe.
            with open(path, errors="replace", opener=_without_waiting) as file:
                state = os.fstat(file.fileno())
                return file.read() if stat.S_ISREG(state.st_mode) else "", state
        except FileNotFoundError:
            raise
        except OSError:
            return "", os.lstat(path)
    return None


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _mark(path: Path) -> tuple | None:
    """What tells a file from another of its name that came later; None if there is none."""
    found = _read(path)
    return (found[1].st_ino, found[1].st_mtime_ns, found[0]) if found else None


def _is_free(folder: Path, name: str, now: float) -> bool:
    """Whether a lease that is there has a dead owner; one that has just gone is not free yet."""
    lease = _read(folder / name)
    return lease is not None and not _living(folder, lease[0], now)


# ------------------------------------------------------------ life and death


def _living(folder: Path, owner: str, now: float) -> dict | None:
    """What an owner says of itself; None if it is dead."""
    found = _read(folder / (owner + OWNER)) if OWNER_NAME.fullmatch(owner) else None
    who = _understood(found[0]) if found else None
    if who is None:
        return None
    if who["host"] != _host():  # a time that is still to come is no owner's
        return who if abs(now - found[1].st_mtime) < EXPIRY else None
    try:
        process = psutil.Process(who["pid"])
        same = abs(process.create_time() - who["started"]) < START_TOLERANCE
        return who if same and process.status() != psutil.STATUS_ZOMBIE else None
    except (
        psutil.NoSuchProcess,
        ValueError,
        OverflowError,
    ):  # the last two: no number of a process
        return None


def _understood(text: str) -> dict | None:
    """What an owner's file says; None if it is not of the form that ``taken`` writes."""
    try:
        who = json.loads(text)
        runs = {
            str(i): {name: value for name, value in config.items() if isinstance(value, SCALARS)}
            for i, config in who["runs"].items()
        }
        numbers = {"pid": int(who["pid"]), "started": float(who["started"])}
        return {"host": str(who["host"]), "runs": runs} | numbers
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


def _now(folder: Path) -> float:
    """The file system's clock, which is another machine's on a network."""
    probe = folder / f"{uuid.uuid4().hex}{PROBE}"
    try:
        probe.touch()
        return probe.stat().st_mtime
    except FileNotFoundError:
        return 0.0
    except OSError:  # who may only read, may still ask
        return time.time()
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()


def _beat(path: Path, over: threading.Event) -> None:
    while not over.wait(HEARTBEAT):
        with contextlib.suppress(OSError):  # a full disk or a missing server: the next may succeed
            os.utime(path)


def _this_process() -> dict:
    process = psutil.Process()
    return {"host": _host(), "pid": process.pid, "started": process.create_time()}


@cache
def _host() -> str:
    """This machine, since it booted, and where process numbers mean the same (containers)."""
    parts = [platform.node()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(str(os.stat("/proc/self/ns/pid").st_ino))
    return " ".join(parts)
