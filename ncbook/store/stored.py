"""Which runs are stored: the one answer, for who plans and for each worker before each chunk."""

import os
from collections import defaultdict
from collections.abc import Callable, Collection
from functools import lru_cache
from pathlib import Path

from ncbook.store.layout import list_pairs
from ncbook.store.names import DONE, FAILED, RUN_COLUMNS, results_dir
from ncbook.store.scan import FILE, Vanished, connect, scan, warn_of_damage
from ncbook.store.soundness import FAULT, faults_in_words


class Stored:
    """The runs of one store that need not be trained again, as far as their files were read.

    A file is read once, unless it is replaced: to ask again costs a look at the folder, and some
    50 ms when there are new files.
    """

    def __init__(self, results: str | Path | None = None) -> None:
        self.results = results_dir(results)
        self._forget()

    def _forget(self) -> None:
        self._seen: dict[Path, tuple] = {}
        self._statuses: dict[str, str] = {}
        self._faults: dict[str, tuple[Path, str]] = {}
        self._damaged: list[Path] = []

    def among(
        self, run_ids: Collection[str] | None = None, *, retry_failed: bool = False
    ) -> dict[str, str]:
        """Status by id, of those of some runs, or of all, that are done (ok or diverged) or failed;
        with ``retry_failed``, only of those done. A row that cannot be true does not count."""
        while not self._read_new():
            pass
        enough = DONE if retry_failed else (*DONE, FAILED)
        ids = self._statuses if run_ids is None else run_ids
        return {i: self._statuses[i] for i in ids if self._statuses.get(i) in enough}

    def warn(self, run_ids: Collection[str] | None = None) -> None:
        """Name what was read and does not count: damaged files, and rows that cannot be true, of
        all runs or of some."""
        for path in self._damaged:
            warn_of_damage(path, "its runs are left out")
        again = defaultdict(list)
        for i, found in self._faults.items():
            if i not in self._statuses and (run_ids is None or i in run_ids):
                again[found].append(i)
        for (path, fault), ids in sorted(again.items()):
            warn_of_damage(path, faults_in_words(fault, ids, "to be trained again"))

    def _read_new(self) -> bool:
        """Whether all new files could be read; one that has gone was merged into a newer one."""
        paths = list_pairs(self.results).runs.values()
        try:
            marks = {path: _mark(path) for path in paths}
            if any(marks.get(path) != mark for path, mark in self._seen.items()):
                self._forget()  # merged into larger ones, replaced or set aside
            self._read([path for path in paths if path not in self._seen])
        except (FileNotFoundError, Vanished):
            return False
        self._seen = marks
        return True

    def _read(self, paths: list[Path]) -> None:
        if not paths:
            return
        columns = f"run_id, status, {FILE}, {FAULT} AS fault"
        damaged: list[Path] = []

        def judged(source: str, _types: Callable) -> tuple[str, list]:
            return f"SELECT {columns} FROM {source} WHERE run_id IS NOT NULL", []

        with connect() as con:
            table = scan(con, paths, RUN_COLUMNS, judged, damaged.append)
        self._damaged += damaged
        files = {path.stem: path for path in paths}
        rows = zip(*(column.to_pylist() for column in table.columns), strict=True)
        for run_id, status, name, fault in rows:
            if fault is not None:
                self._faults[run_id] = files[name], fault
            elif self._statuses.get(run_id) not in DONE:
                self._statuses[run_id] = status


def _mark(path: Path) -> tuple[int, int, int]:
    """What tells a file from another that took its name."""
    state = os.lstat(path)
    return state.st_ino, state.st_mtime_ns, state.st_size


@lru_cache(maxsize=4)
def _kept(results: Path) -> Stored:
    return Stored(results)


def stored_in(results: str | Path | None = None) -> Stored:
    """The one of a store, kept for as long as this process lives."""
    return _kept(results_dir(results).absolute())


def stored_ids(results: str | Path | None = None, *, retry_failed: bool = False) -> set[str]:
    """The ids of the runs that need not be trained again; see ``Stored.among``. What does not count
    is named in a ``DamagedFileWarning``."""
    stored = Stored(results)
    ids = set(stored.among(retry_failed=retry_failed))
    stored.warn()
    return ids
