"""Run records in and out of a folder of Parquet files.

``results/runs/<key>.parquet`` holds one row a run and ``results/history/<key>.parquet`` one row a
run and logged epoch, for the runs that were written together; the key is a hash of their ids. The
history appears first, and the file of runs commits it: a history whose file of runs is absent does
not count. Each file appears whole, by a rename. Nothing is ever appended to or rewritten in place,
so that a write costs the same in a large store as in an empty one, and writers need no lock.

Small files are slow to read: ``compact`` merges them into larger ones, which appear in the same way
before the small ones go.

``names``: ids, columns, statuses. ``layout``: files that appear and go. ``writing``, ``reading``,
``copies``, ``compaction``, ``damage``: what can be done with a store. ``scan``, ``filters``: files
to tables. ``soundness``: rows that cannot be true. ``stored``: which runs need no training.
"""

from ncbook.store.compaction import SMALL_PAIRS, compact
from ncbook.store.copies import export, merge
from ncbook.store.damage import set_aside_damaged
from ncbook.store.layout import ResultsFolderError, ensure_writable
from ncbook.store.names import (
    DEFAULT_RESULTS,
    DONE,
    FAILED,
    HISTORY_COLUMNS,
    KINDS,
    RESULTS_VARIABLE,
    RUN_COLUMNS,
    SETTINGS,
    results_dir,
    run_id,
)
from ncbook.store.reading import load_history, load_runs
from ncbook.store.scan import DamagedFileWarning
from ncbook.store.stored import Stored, stored_ids, stored_in
from ncbook.store.writing import write

__all__ = [
    "DEFAULT_RESULTS",
    "DONE",
    "FAILED",
    "HISTORY_COLUMNS",
    "KINDS",
    "RESULTS_VARIABLE",
    "RUN_COLUMNS",
    "SETTINGS",
    "SMALL_PAIRS",
    "DamagedFileWarning",
    "ResultsFolderError",
    "Stored",
    "compact",
    "ensure_writable",
    "export",
    "load_history",
    "load_runs",
    "merge",
    "results_dir",
    "run_id",
    "set_aside_damaged",
    "stored_ids",
    "stored_in",
    "write",
]
