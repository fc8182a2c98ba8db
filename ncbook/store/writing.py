"""Records to files of a store, and a store in order: few large files, and no damaged ones."""

import os
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ncbook.parameters import plain
from ncbook.paths import flush, new_file, results_dir
from ncbook.store import leases, reading, tables
from ncbook.store.tables import FILE, ResultsFolderError, list_files, read_each

STALE_SECONDS = 3600.0  # a temporary file so old has no living writer: one writes for seconds
SMALL_FILES = 128  # so many, some 30 kB each, are read in about 0.3 s
MOST_FILES = 1024  # that are merged at once, in some 200 MB
LARGE_BYTES = 8 * 2**20  # some 1,500 runs with 20 epochs each: such a file stays as it is

Records = Sequence[Mapping[str, Any]]


@contextmanager
def _refusals_named(root: Path) -> Iterator[None]:
    """What the file system refuses in this block, in one line that names the results folder."""
    try:
        yield
    except ResultsFolderError:
        raise
    except OSError as error:
        why = error.strerror or error
        raise ResultsFolderError(f"the results folder {root} cannot be written ({why})") from error


def write(
    results: str | Path | None, runs: Records, history: Records = (), layers: Records = ()
) -> Path:
    """Store runs that were trained together, with their history and layers, in a new file; all or
    nothing.

    Args:
        runs: one mapping a run, column to scalar, with ``run_id``; a key that is missing is null.
        history: one mapping a run and epoch, with the ``run_id`` of one of ``runs``.
        layers: one mapping a run, epoch and layer, likewise.

    Raises:
        ValueError: no runs, one id twice, or a column of mixed types.
        ResultsFolderError: the disk refused; no file is left behind.
    """
    ids = [record["run_id"] for record in runs]
    if not ids or len(set(ids)) < len(ids):
        raise ValueError(f"there must be runs to write, each once, got {ids}")
    table = _table(runs)
    for column, rows in ((tables.HISTORY, history), (tables.LAYERS, layers)):
        if rows:
            table = tables.nest(table, column, _table(rows))
    return _put(results_dir(results), table)


def _table(records: Records) -> pa.Table:
    """One column for each key of any record: of bools, whole numbers, numbers or texts."""
    table = {}
    for name in dict.fromkeys(name for record in records for name in record):
        try:
            table[name] = pa.array([plain(record.get(name)) for record in records])
        except (pa.ArrowException, OverflowError) as error:
            raise ValueError(f"column {name!r} cannot hold its values: {error}") from None
    return pa.table(table)


def _put(root: Path, table: pa.Table) -> Path:
    """Store runs, with what is nested in them, as a new file, which appears whole. No file is ever
    replaced, so whatever others write or merge meanwhile, nothing is lost."""
    path = root / "runs" / f"{uuid.uuid4().hex}.parquet"
    # Without statistics and dictionaries a small file opens in half the time; with zstd, none is
    # larger for it.
    options = dict(write_statistics=False, store_schema=False, use_dictionary=False)
    with _refusals_named(root):
        path.parent.mkdir(parents=True, exist_ok=True)
        with new_file(path) as file:
            pq.write_table(table, file, compression="zstd", **options)
    return path


def ensure_writable(results: str | Path | None = None) -> Path:
    """Make the results folder, check that it can be written, and return it; remove temporary files
    of crashed writers.

    Raises:
        ResultsFolderError: it cannot be made or written.
    """
    folder = (root := results_dir(results)) / "runs"
    with _refusals_named(root):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"probe")
            flush(file)
            now = os.fstat(file.fileno()).st_mtime  # by the file system's clock
        for path in root.glob("*/.*.tmp"):  # of runs and of checkpoints
            with suppress(OSError):
                if now - path.lstat().st_mtime > STALE_SECONDS:
                    path.unlink()
    return root


def set_aside_damaged(results: str | Path | None = None) -> list[Path]:
    """Rename files that cannot be read, so that their runs will be trained again, with a notice;
    their new names. Of a large file the epochs are not read again: ``compact`` has done so."""
    root, damaged, moved = results_dir(results), {}, []
    tables.consistently(root, lambda files: read_each(files, _checked, damaged.setdefault))
    with _refusals_named(root):
        for path in damaged:
            with suppress(FileNotFoundError):  # another process may have been faster
                moved.append(path.rename(path.with_name(f"{path.name}.damaged")))
            tables.warn_of_damage(path, "set aside; its runs will be trained again")
    return moved


def _checked(path: Path) -> pa.Table:
    if path.lstat().st_size < LARGE_BYTES:
        tables.read_whole(path)
    return reading.judged_columns(path)


def compact(results: str | Path | None = None, at_least: int = SMALL_FILES) -> int:
    """Merge small files, if there are ``at_least`` so many, into large ones; how many were merged.

    At any moment, with others that write, read or compact, and wherever this process is killed,
    every stored run stays readable. A damaged file is left as it is, with a notice.

    Raises:
        ResultsFolderError: the disk refused; the store holds what it held.
    """
    root, merged = results_dir(results), 0
    # There is nothing yet, or another process has just compacted or set something aside.
    with _refusals_named(root), suppress(FileNotFoundError), leases.alone(root / "runs") as ours:
        small = [path for path in list_files(root) if path.lstat().st_size < LARGE_BYTES]
        for first in range(0, len(small) if ours and len(small) >= at_least else 0, MOST_FILES):
            merged += _merge_files(root, small[first : first + MOST_FILES])
    return merged


def _merge_files(root: Path, group: list[Path]) -> int:
    """Write the runs of these files, each once, to one file; then remove them."""
    kept = partial(tables.warn_of_damage, consequence="not compacted")
    table = read_each(group, tables.read_whole, kept)
    files = table[FILE].unique().to_pylist()
    if len(files) < 2:
        return 0
    best = pa.array(reading.best_rows(reading.judged(table)))
    _put(root, table.filter(best).drop([FILE]))
    for file in files:
        Path(file).unlink(missing_ok=True)
    return len(files)
