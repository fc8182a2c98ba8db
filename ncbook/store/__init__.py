"""Run records in and out of a folder of Parquet files.

``results/runs/<key>.parquet`` holds one row a run, for the runs that were written together; the key
is a hash of their ids. Its column ``history`` is a list of structs, one for each logged epoch. A
file appears whole, by a rename, and is never changed in place: a write costs the same in a large
store as in an empty one, and writers need no lock.

Small files are slow to read: ``compact`` merges them into larger ones, which appear before the
small ones are removed.
"""

from ncbook.store.names import (
    DONE,
    FAILED,
    RESULTS_VARIABLE,
    RUN_COLUMNS,
    SETTINGS,
    results_dir,
    run_id,
)
from ncbook.store.reading import Stored, export, load_history, load_runs, stored_ids, stored_in
from ncbook.store.tables import list_files
from ncbook.store.writing import (
    ResultsFolderError,
    compact,
    ensure_writable,
    load_results_of_old_layout,
    merge,
    set_aside_damaged,
    write,
)
