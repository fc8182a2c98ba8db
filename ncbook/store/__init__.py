"""Run records in and out of a folder of Parquet files.

``results/runs/*.parquet`` hold one row a run, for the runs that were written together. The column
``history`` is a list of structs, one for each logged epoch, and ``layers``, if these were measured,
one for each logged epoch and layer. A file appears whole, by a rename, under a name of its own, and
is never changed, so writers need no lock. Small files are slow to read: ``compact`` merges them
into larger ones, which appear before they are removed.
"""

from ncbook.paths import RESULTS_VARIABLE, results_dir
from ncbook.store.reading import export, load_history, load_layers, load_runs, statuses
from ncbook.store.tables import (
    DONE,
    FAILED,
    RUN_COLUMNS,
    SETTINGS,
    ResultsFolderError,
    list_files,
    run_id,
)
from ncbook.store.writing import compact, ensure_writable, set_aside_damaged, write
