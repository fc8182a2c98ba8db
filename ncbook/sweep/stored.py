"""Which of some runs are stored by now: asked before each chunk, so only new files are read."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ncbook import store

COLUMNS = ("run_id", "status")
ENOUGH = (*store.DONE, store.FAILED)


class Stored:
    """The statuses of the runs in one store, as far as they were read."""

    def __init__(self, results: str | Path | None) -> None:
        self.folder = store.results_dir(results) / "runs"
        self._seen: set[str] = set()
        self._statuses: dict[str, str] = {}

    def among(self, run_ids: Collection[str], *, retry_failed: bool = False) -> dict[str, str]:
        """Status by id, of those that need not be trained again; see ``store.stored_ids``. A file
        that is new since the last call is read, at 1 ms each."""
        while not self._read_new():
            pass
        enough = store.DONE if retry_failed else ENOUGH
        return {i: self._statuses[i] for i in run_ids if self._statuses.get(i) in enough}

    def _read_new(self) -> bool:
        """Whether all new files could be read; one that has gone was merged into a newer one."""
        names = {path.name for path in self.folder.glob("*.parquet")}
        if self._seen - names:  # merged into larger ones, or set aside: read what is there anew
            self._seen.clear()
            self._statuses.clear()
        for name in sorted(names - self._seen):
            try:
                self._read(self.folder / name)
            except FileNotFoundError:
                return False
            self._seen.add(name)
        return True

    def _read(self, path: Path) -> None:
        with contextlib.suppress(pa.ArrowInvalid, KeyError):  # damaged: as if it were not there
            table = pq.read_table(path, partitioning=None)
            rows = zip(*(table[name].to_pylist() for name in COLUMNS), strict=True)
            new = {run_id: status for run_id, status in rows if status in ENOUGH}
            better = {i: s for i, s in new.items() if self._statuses.get(i) not in store.DONE}
            self._statuses |= better


@lru_cache(maxsize=4)
def stored_in(results: Path) -> Stored:
    """Kept for as long as a worker lives."""
    return Stored(results)
