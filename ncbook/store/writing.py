"""Records to files of a store, and a store in order: few large files, and no damaged ones."""

import contextlib
import os
import stat
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ncbook import text
from ncbook.files import appear, flush, staged, sync_folder
from ncbook.store import names, tables
from ncbook.store.names import DONE, FAILED, REAL, TEXT, WHOLE, digest, plain, results_dir
from ncbook.store.reading import (
    best_rows,
    choose_history,
    choose_runs,
    epochs_of,
    judged,
)
from ncbook.store.tables import FILE, list_files, read_each, warn_of_damage

DICTIONARY_ROWS = 1000  # from so many rows on, a dictionary makes a column of texts smaller
STALE_SECONDS = 3600.0  # a temporary file so old has no living writer: one writes for seconds
SMALL_FILES = 128  # so many, some 30 kB each, are read in about 0.3 s
LARGE_BYTES = 16 * 2**20  # some 3,000 runs with 20 epochs each
READERS = (tables.read_runs, tables.read_history)

Record = Mapping[str, Any]


class ResultsFolderError(OSError):
    """The results folder cannot be written."""


@contextlib.contextmanager
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
    results: str | Path | None, runs: Sequence[Record], history: Sequence[Record] = ()
) -> Path:
    """Store runs that were trained together, and their history; all of it or nothing.

    Args:
        results: the results folder (see ``results_dir``).
        runs: one mapping a run, column to scalar, with ``run_id``. A key that is missing in some
            run is null there. One whose ``status`` is ``failed`` says why in ``reason``.
        history: one mapping a run and epoch, with the ``run_id`` of one of ``runs``.

    Returns:
        The file that was written.

    Raises:
        ValueError: no runs, one id twice, a failed run without a reason, history of another run,
            or a column of mixed types.
        ResultsFolderError: the disk refused; nothing is left behind.
    """
    ids = [record.get("run_id") for record in runs]
    if not ids:
        raise ValueError("there are no runs to write")
    if odd := [value for value in ids if not isinstance(value, str) or not value]:
        raise ValueError(f"every run needs a run_id, a string; one has {odd[0]!r}")
    if twice := [value for value, count in Counter(ids).items() if count > 1]:
        raise ValueError(f"run_id {twice[0]!r} is there twice")
    failed = [record for record in runs if record.get("status") == FAILED]
    if unexplained := [record["run_id"] for record in failed if not record.get("reason")]:
        raise ValueError(f"run_id {unexplained[0]!r} has failed, and needs a reason")
    if unknown := {record.get("run_id") for record in history} - set(ids):
        raise ValueError(f"the history has run_id {unknown.pop()!r}, which no run has")
    epochs = _table(history) if history else tables.NO_EPOCHS
    return _put(results_dir(results), _table(runs), epochs)


def _table(records: Sequence[Record]) -> pa.Table:
    """One column for each key of any record, in order of appearance."""
    columns = dict.fromkeys(name for record in records for name in record)
    return pa.table({n: _column(n, [plain(record.get(n)) for record in records]) for n in columns})


def _column(name: str, values: list[Any]) -> pa.Array:
    """bool, int64, float64 or string, whichever holds every value; null if all are None."""
    types = frozenset(type(value) for value in values if value is not None)
    arrow = {frozenset(): pa.null(), frozenset({bool}): pa.bool_(), frozenset({str}): TEXT}
    arrow |= {frozenset({int}): WHOLE, frozenset({float}): REAL, frozenset({int, float}): REAL}
    if types not in arrow:
        held = ", ".join(sorted(type_.__name__ for type_ in types))
        raise ValueError(f"column {name!r} must hold numbers, strings or bools, not {held}")
    try:
        return pa.array(values, arrow[types])
    except (OverflowError, pa.ArrowException):
        largest = max((v for v in values if type(v) is int), key=abs)
        raise ValueError(f"column {name!r} cannot hold {largest} exactly") from None


def _name(runs: pa.Table, history: pa.Table) -> str:
    """A hash of the ids, and of which runs are not done or have no history: of files of one name,
    none is better, so that a run that failed never replaces one that ended well."""
    logged = set(history["run_id"].to_pylist())
    statuses = runs["status"] if "status" in runs.column_names else pa.nulls(len(runs))
    rows = zip(runs["run_id"].to_pylist(), statuses.to_pylist(), strict=True)
    lines = [f"{i} {DONE[0] if s in DONE else s} {i in logged}" for i, s in rows]
    return digest("\n".join(sorted(lines))) + ".parquet"


def _put(root: Path, runs: pa.Table, history: pa.Table, name: str | None = None) -> Path:
    """Store runs and their epochs as one file, which appears whole."""
    table, path = tables.nest(runs, history), root / "runs" / (name or _name(runs, history))
    # Without statistics and dictionaries a small file opens in half the time; numbers are smaller
    # without dictionaries in any file.
    texts = [field.name for field in table.schema if field.type == TEXT]
    options = dict(compression="zstd", write_statistics=False, store_schema=False)
    options["use_dictionary"] = texts if len(table) >= DICTIONARY_ROWS else False
    with _refusals_named(root):
        for attempt in range(2):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with staged(path) as file:
                    pq.write_table(table, file, **options)
                    flush(file)
                    appear(file, path)
                break
            except FileNotFoundError:  # of a process that was stopped for an hour
                if attempt:
                    raise
    return path


def merge(source: str | Path, results: str | Path | None = None, **filters: Any) -> Path:
    """Copy the runs of another store that pass the filters into this one, as one file.

    One large file is read faster than many small ones: this is how results are published. The
    filters are those of ``load_runs``.

    Raises:
        ValueError: a filter that names no column, or no run that passes.
        ResultsFolderError: the disk refused.
    """

    def read(files: list[Path]) -> tuple[pa.Table, pa.Table]:
        runs = choose_runs(files, filters).drop([FILE])
        return runs, choose_history(files, filters).drop([*names.SETTINGS, FILE])

    runs, history = tables.consistently(source, read)
    if not len(runs):
        raise ValueError(f"there are no runs to write: none in {source} passes")
    return _put(results_dir(results), runs, history)


def ensure_writable(results: str | Path | None = None) -> Path:
    """Make the results folder, and check that it can be written by writing a file and removing it.

    Temporary files of crashed writers are removed, and files of the old layout converted.

    Raises:
        ResultsFolderError: it cannot be made or written; what had been made is removed again.
    """
    root = results_dir(results)
    folder = root / "runs"
    missing = [f for f in (folder, *folder.parents) if not f.exists()]
    try:
        with _refusals_named(root):
            folder.mkdir(parents=True, exist_ok=True)
            with staged(folder / "probe") as file:
                file.write(b"probe")
                flush(file)
                _remove_stale(folder, os.fstat(file.fileno()).st_mtime)
            load_results_of_old_layout(root)
    except ResultsFolderError:
        for made in missing:
            with contextlib.suppress(OSError):
                made.rmdir()
        raise
    return root


def _remove_stale(folder: Path, now: float) -> None:
    """Remove the temporary files of crashed writers; ``now`` is by the file system's clock."""
    for path in folder.glob(".*.tmp"):
        with contextlib.suppress(OSError):
            state = path.lstat()
            if stat.S_ISREG(state.st_mode) and now - state.st_mtime > STALE_SECONDS:
                path.unlink()


def load_results_of_old_layout(results: str | Path | None = None) -> int:
    """Convert the files of older versions, whose epochs are in ``history/*.parquet``.

    Killed anywhere, it loses nothing, and the next call goes on. A damaged pair stays as it is.
    Returns how many files were converted.
    """
    root, count = results_dir(results), 0
    for path in list_files(root):
        with contextlib.suppress(tables.Damaged):  # or just converted by another process
            if tables.old_history(path).exists():
                _put(root, *(read(path) for read in READERS), path.name)
                tables.old_history(path).unlink(missing_ok=True)
                count += 1
    if count:
        with contextlib.suppress(OSError):
            (root / "history").rmdir()
        said = f"{root}: {count} files of an older layout were converted"
        tables.LOG.warning("%s", text.line(said))
    return count


def set_aside_damaged(results: str | Path | None = None) -> list[Path]:
    """Rename files that cannot be read, so that their runs will be trained again, and warn.

    Returns:
        The new paths, ``NAME.parquet.damaged``.

    Raises:
        ResultsFolderError: a damaged file cannot be renamed.
    """
    moved, root = [], results_dir(results)

    def damaged_among(files: list[Path]) -> list[Path]:
        damaged: list[Path] = []
        read_each(files, _read_whole, damaged.append)
        return damaged

    with _refusals_named(root):
        for damaged in tables.consistently(root, damaged_among):
            # In the old layout the runs first: without them, the epochs do not count.
            for path in dict.fromkeys((root / "runs" / damaged.name, damaged)):
                aside = path.with_name(f"{path.name}.damaged")
                with contextlib.suppress(FileNotFoundError):  # another process may have been faster
                    os.replace(path, aside)
                    moved.append(aside)
            warn_of_damage(damaged, "set aside; its runs will be trained again")
    return moved


def _read_whole(path: Path) -> pa.Table:
    """Read every value of a file and keep nothing; or ``Damaged``."""
    for read in READERS:
        read(path)
    return tables.NO_EPOCHS


def compact(results: str | Path | None = None, at_least: int = SMALL_FILES) -> int:
    """Merge small files into larger ones, and remove the temporary files of crashed writers.

    At any moment, with others that write, read or compact, and wherever this process is killed,
    every stored run stays readable. A damaged file is left as it is, with a warning.

    With fewer than ``at_least`` small files, none is merged. A file is small below half of
    ``LARGE_BYTES``.

    Returns:
        How many files were merged.

    Raises:
        ResultsFolderError: the disk refused; the store holds what it held.
    """
    root, merged = results_dir(results), 0
    if (root / "runs").is_dir():
        ensure_writable(root)
        # Where a file is gone, another process is compacting.
        with _refusals_named(root), contextlib.suppress(tables.Vanished, FileNotFoundError):
            for group in _groups(list_files(root), at_least):
                merged += _merge_files(root, group)
    return merged


def _groups(files: list[Path], at_least: int) -> list[list[Path]]:
    """Files to merge, about as many as fill a large one: the small ones, and those that share a run
    with another, as a compaction that was killed leaves them."""
    sizes = {path: path.lstat().st_size for path in files}
    small = {path for path, size in sizes.items() if size < LARGE_BYTES // 2}
    if len(small) < max(at_least, 2):
        return []
    ids = read_each(files, tables.read_runs, lambda path: None).select(["run_id", FILE]).to_pandas()
    shared = set(ids[FILE][ids["run_id"].duplicated(keep=False)].map(Path))
    groups, total = defaultdict(list), 0
    for path in [*sorted(shared), *sorted(small - shared)]:
        groups[total // LARGE_BYTES].append(path)
        total += sizes[path]
    return list(groups.values())


def _merge_files(root: Path, group: list[Path]) -> int:
    """Write the runs of these files, each once, to one file; then remove them."""
    damaged: dict[Path, None] = {}
    runs, history = (read_each(group, read, damaged.setdefault) for read in READERS)
    for path in damaged:
        warn_of_damage(path, "not compacted")
    names_of_damaged = {path.name for path in damaged}  # also of epochs of the old layout
    files = [path for path in group if path.name not in names_of_damaged]
    if len(files) < 2:
        return 0
    runs = runs.filter(pc.is_in(runs[FILE], pa.array(map(str, files))))
    runs = runs.filter(pa.array(best_rows(judged(runs), files)))
    merged = runs.drop([FILE]), epochs_of(runs, history).drop([FILE])
    target = root / "runs" / _name(*merged)
    if target.exists() and target not in files:  # it is damaged
        return 0
    _put(root, *merged)
    for path in set(files) - {target}:
        path.unlink(missing_ok=True)
    sync_folder(root / "runs")
    return len(files)
