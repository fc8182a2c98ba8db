"""Run records in and out of a folder of Parquet files.

``results/runs/<key>.parquet`` holds one row a run and ``results/history/<key>.parquet`` one row a
run and logged epoch, for the runs that were written together; the key is a hash of their ids. The
history appears first, and the file of runs commits it: a history whose file of runs is absent does
not count. Each file appears whole, by a rename. Nothing is ever appended to or rewritten in place,
so that a write costs the same in a large store as in an empty one, and writers need no lock.
"""

import contextlib
import glob
import hashlib
import io
import json
import math
import os
import tempfile
import uuid
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

RESULTS_VARIABLE = "NCBOOK_RESULTS"
DEFAULT_RESULTS = "results"
KINDS = ("runs", "history")
DONE = ("ok", "diverged")  # the statuses of a run that need not be trained again
ID_DIGITS = 16  # hexadecimal: among 100,000 runs, two share an id with probability 3e-10

# What every frame of runs has, whatever was written.
RUN_COLUMNS = {
    "run_id": "VARCHAR",
    "dataset": "VARCHAR",
    "model": "VARCHAR",
    "optimizer": "VARCHAR",
    "lr": "DOUBLE",
    "momentum": "DOUBLE",
    "weight_decay": "DOUBLE",
    "seed": "BIGINT",
    "epochs": "BIGINT",
    "status": "VARCHAR",
    "train_acc": "DOUBLE",
    "test_acc": "DOUBLE",
}
HISTORY_COLUMNS = {"run_id": "VARCHAR", "epoch": "BIGINT"}
# The columns of runs that load_history puts beside each epoch, and the order of rows everywhere.
SETTINGS = ("dataset", "model", "optimizer", "lr", "momentum", "weight_decay", "seed")
READ_ERRORS = (duckdb.Error, RuntimeError)  # the second for a name that is not UTF-8
NULL_TYPE = '"NULL"'  # DuckDB's word for a column that has held nothing but nulls so far
FILE = "__file"  # the column, inside this module, that says which file a row is from

Record = Mapping[str, Any]
Answer = TypeVar("Answer")


class ResultsFolderError(OSError):
    """The results folder cannot be written."""


class DamagedFileWarning(UserWarning):
    """A file of the store cannot be read."""


# ------------------------------------------------------------ names


def run_id(config: Mapping[str, Any]) -> str:
    """Hash the whole configuration of a run: sha256 of its JSON with sorted keys, 16 digits.

    Equal numbers give equal ids (0 and 0.0, 1e-3 and 0.001), a bool is no number.

    Raises:
        ValueError: a value that is not a number, string, bool or None, or a list or mapping of
            these; or a number that is not finite.

    Example:
        >>> run_id({"lr": 1e-3, "seed": 0}) == run_id({"seed": 0.0, "lr": 0.001})
        True
    """
    text = json.dumps(_canonical(config, "config"), sort_keys=True, separators=(",", ":"))
    return _digest(text)


def _canonical(value: Any, where: str) -> Any:
    value = _plain(value)
    if isinstance(value, Mapping):
        odd = [key for key in value if not isinstance(key, str)]
        if odd:
            raise ValueError(f"{where}: the key {odd[0]!r} is not a string")
        return {key: _canonical(item, f"{where}[{key!r}]") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{where} must be finite, not {value}")
        return int(value) if value.is_integer() else value
    if value is None or isinstance(value, str | int):
        return value
    raise ValueError(f"{where}: {value!r} cannot be part of a run's id")


def _plain(value: Any) -> Any:
    """The Python scalar inside a NumPy or torch one; everything else as it is."""
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", 1) == 0 else value


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:ID_DIGITS]


def results_dir(results: str | Path | None = None) -> Path:
    """The results folder: the argument, else ``NCBOOK_RESULTS``, else ``./results``."""
    return Path(results or os.environ.get(RESULTS_VARIABLE) or DEFAULT_RESULTS).expanduser()


# ------------------------------------------------------------ writing


def write(
    results: str | Path | None, runs: Sequence[Record], history: Sequence[Record] = ()
) -> Path:
    """Store runs that were trained together, and their history; all of it or nothing.

    Args:
        results: the results folder (see ``results_dir``).
        runs: one mapping a run, column to scalar, with ``run_id``. A key that is missing in some
            run is null there.
        history: one mapping a run and epoch, with the ``run_id`` of one of ``runs``.

    Returns:
        The file of runs that was written.

    Raises:
        ValueError: no runs, one id twice, history of another run, or a column of mixed types.
        OSError: the disk refused; nothing is left behind.
    """
    ids = [record.get("run_id") for record in runs]
    _check_ids(ids, history)
    key = _digest("\n".join(sorted(ids)))
    tables = {"runs": _table(runs)}
    if history:
        tables["history"] = _table(history)
    for kind in ("history", "runs"):  # the runs last: they are the commit mark
        if kind in tables:
            path = results_dir(results) / kind / f"{key}.parquet"
            _write_whole(path, _parquet_bytes(tables[kind]))
    return path


def _check_ids(ids: list[Any], history: Sequence[Record]) -> None:
    if not ids:
        raise ValueError("there are no runs to write")
    odd = [value for value in ids if not isinstance(value, str) or not value]
    if odd:
        raise ValueError(f"every run needs a run_id, a string; one has {odd[0]!r}")
    twice = [value for value, count in Counter(ids).items() if count > 1]
    if twice:
        raise ValueError(f"run_id {twice[0]!r} is there twice")
    strangers = {record.get("run_id") for record in history} - set(ids)
    if strangers:
        raise ValueError(f"the history has run_id {strangers.pop()!r}, which no run has")


def _table(records: Sequence[Record]) -> pa.Table:
    """One column for each key of any record, in order of appearance."""
    names = dict.fromkeys(name for record in records for name in record)
    return pa.table(
        {name: _column(name, [_plain(record.get(name)) for record in records]) for name in names}
    )


def _column(name: str, values: list[Any]) -> pa.Array:
    """bool, int64, float64 or string, whichever holds every value; null if all are None."""
    types = {type(value) for value in values} - {type(None)}
    for type_, arrow in ((bool, pa.bool_()), (int, pa.int64()), (str, pa.string())):
        if types == {type_}:
            return pa.array(values, arrow)
    if types <= {int, float}:
        return pa.array(values, pa.float64() if types else pa.null())
    held = ", ".join(sorted(type_.__name__ for type_ in types))
    raise ValueError(f"column {name!r} must hold numbers, strings or bools, not {held}")


def _parquet_bytes(table: pa.Table) -> bytes:
    # Without statistics and dictionaries, a file of 12 runs and 60 columns is 11 kB instead of 18
    # and opens in half the time.
    buffer = io.BytesIO()
    pq.write_table(
        table,
        buffer,
        compression="zstd",
        use_dictionary=False,
        write_statistics=False,
        store_schema=False,
    )
    return buffer.getvalue()


def _write_whole(path: Path, content: bytes) -> None:
    """The file appears with all of its content, or not at all, also when the power fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def ensure_writable(results: str | Path | None = None) -> Path:
    """Make the results folder, and prove that it can be written by writing a file and removing it.

    Raises:
        ResultsFolderError: it cannot be made or written; what had been made is removed again.
    """
    root = results_dir(results)
    made: list[Path] = []
    try:
        for folder in (root / kind for kind in KINDS):
            missing = [f for f in (folder, *folder.parents) if not f.exists()]
            for parent in reversed(missing):
                parent.mkdir(exist_ok=True)
                made.append(parent)
            with tempfile.NamedTemporaryFile(dir=folder, prefix=".probe-", suffix=".tmp") as file:
                file.write(b"probe")
    except OSError as error:
        for folder in reversed(made):
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise ResultsFolderError(
            f"the results folder {root} cannot be written ({error.strerror or error})"
        ) from error
    return root


# ------------------------------------------------------------ reading


def load_runs(results: str | Path | None = None, **filters: Any) -> pd.DataFrame:
    """All stored runs that pass the filters, one row a run.

    Args:
        results: the results folder (see ``results_dir``); one that is not there has no runs.
        filters: ``column=value``, or ``column=[value, ...]`` for any of these; None is no filter.

    Returns:
        At least the columns of ``RUN_COLUMNS``, sorted by ``SETTINGS`` and ``run_id``. A run that
        was stored twice is there once.

    Raises:
        ValueError: a filter that names no column, or whose value is not of the column's type.

    Example:
        >>> load_runs("results", optimizer="adamw", weight_decay=[0, 5e-4])  # doctest: +SKIP
    """
    with _connect() as con:
        types = _register_runs(con, results)
        where, values = _where(filters, types)
        return con.execute(
            f"SELECT * EXCLUDE ({FILE}) FROM runs WHERE {where} ORDER BY {_order()}", values
        ).df()


def load_history(results: str | Path | None = None, **filters: Any) -> pd.DataFrame:
    """The epochs of all stored runs that pass the filters, one row a run and logged epoch.

    Args:
        results: the results folder (see ``results_dir``).
        filters: as in ``load_runs``, where they choose the runs; or by a column that only the
            history has, such as ``epoch=[0, 200]``, where they choose the rows.

    Returns:
        ``run_id``, ``SETTINGS``, ``epoch`` and what was logged, sorted by settings, run and epoch.

    Raises:
        ValueError: a filter that names no column, or whose value is not of the column's type.
    """
    with _connect() as con:
        types = _register_runs(con, results)
        where, values = _where({n: v for n, v in filters.items() if n in types}, types)
        picked = con.execute(f"SELECT DISTINCT {FILE} FROM runs WHERE {where}", values).fetchall()
        files = {path.stem: path for path in _files(results, "history")}
        # With no run picked, all files: their columns are what the filters are checked against.
        chosen = [files[key] for (key,) in picked if key in files] or list(files.values())
        of_rows = {n: v for n, v in filters.items() if n not in types}
        return _with_readable(
            con, chosen, lambda paths: _joined(con, paths, types, of_rows, where, values)
        )


def _joined(
    con: duckdb.DuckDBPyConnection,
    paths: Sequence[Path],
    run_types: Mapping[str, str],
    filters: Mapping[str, Any],
    runs_where: str,
    runs_values: list[Any],
) -> pd.DataFrame:
    """The rows of the history files that belong to the chosen runs, and pass the filters."""
    source, parameters = _source(paths, HISTORY_COLUMNS)
    types = _types(con.sql(source, params=parameters))
    where, values = _where(filters, types, also=run_types)
    settings = [name for name in SETTINGS if name not in types]
    # A run that was stored twice has two histories: the one of the same file counts.
    return con.execute(
        f"""
        SELECT run_id, {"".join(f"runs.{name}, " for name in settings)}
               history.* EXCLUDE (run_id, {FILE})
        FROM ({source}) AS history
        JOIN (SELECT * FROM runs WHERE {runs_where}) AS runs USING (run_id, {FILE})
        WHERE {where}
        ORDER BY {_order()}, epoch
        """,
        [*parameters, *runs_values, *values],
    ).df()


def merge(source: str | Path, results: str | Path | None = None, **filters: Any) -> Path:
    """Copy the runs of another store that pass the filters into this one, as one pair of files.

    A few large files are read faster than many small ones: this is how results are published.

    Args:
        source: the results folder to copy from.
        results: the one to copy to (see ``results_dir``).
        filters: as in ``load_runs``.

    Raises:
        ValueError: a filter that names no column, or no run that passes.
    """
    runs = load_runs(source, **filters)
    history = load_history(source, run_id=list(runs["run_id"]))
    return write(results, _records(runs), _records(history.drop(columns=list(SETTINGS))))


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as mappings; null is None but in columns of floats, where it is NaN."""
    known = frame.notna() | [pd.api.types.is_float_dtype(type_) for type_ in frame.dtypes]
    return frame.astype(object).where(known, None).to_dict("records")


def stored_ids(results: str | Path | None = None) -> set[str]:
    """The ids of the runs that are stored, done or diverged: these need not be trained again."""

    def query(paths: Sequence[Path]) -> set[str]:
        source, parameters = _source(paths, {"run_id": "VARCHAR", "status": "VARCHAR"})
        rows = con.execute(f"SELECT run_id FROM ({source}) WHERE status IN {DONE}", parameters)
        return {value for (value,) in rows.fetchall() if value is not None}

    with _connect() as con:
        return _with_readable(con, _files(results, "runs"), query)


def _connect() -> contextlib.closing[duckdb.DuckDBPyConnection]:
    con = duckdb.connect()
    con.execute("SET enable_progress_bar = false")  # in notebooks it is on
    return contextlib.closing(con)


def _files(results: str | Path | None, kind: str) -> list[Path]:
    return sorted((results_dir(results) / kind).glob("*.parquet"))


def _register_runs(con: duckdb.DuckDBPyConnection, results: str | Path | None) -> dict[str, str]:
    """Make the view ``runs``, each run once, with the column FILE; return its columns' types."""

    def query(paths: Sequence[Path]) -> pa.Table:
        source, parameters = _source(paths, RUN_COLUMNS)
        return con.sql(source, params=parameters).to_arrow_table()

    con.register("stored", _with_readable(con, _files(results, "runs"), query))
    # Of a run that was stored twice, say by two sweeps at once, the first file's row counts.
    con.execute(f"""
        CREATE TEMP VIEW runs AS SELECT stored.* FROM stored
        SEMI JOIN (SELECT run_id, min({FILE}) AS {FILE} FROM stored GROUP BY run_id) AS kept
        USING (run_id, {FILE})
    """)
    return _types(con.sql(f"SELECT * EXCLUDE ({FILE}) FROM runs"))


def _source(paths: Sequence[Path], columns: Mapping[str, str]) -> tuple[str, list[Any]]:
    """A query for all rows of the files, with at least these columns, and FILE; its parameters."""
    typed = ", ".join(f"NULL::{type_} AS {_quoted(name)}" for name, type_ in columns.items())
    empty = f"SELECT {typed}, NULL::VARCHAR AS {FILE} WHERE false"
    if not paths:
        return empty, []
    # Escaped, for DuckDB takes each path as a pattern; and no columns from folders named "a=b".
    escaped = [glob.escape(str(path)) for path in paths]
    return (
        f"""
        {empty} UNION ALL BY NAME
        SELECT * REPLACE (parse_filename({FILE}, true) AS {FILE}) FROM read_parquet(
            ?, union_by_name = true, hive_partitioning = false, filename = '{FILE}')
        """,
        [escaped],
    )


def _types(relation: duckdb.DuckDBPyRelation) -> dict[str, str]:
    return dict(zip(relation.columns, map(str, relation.types), strict=True))


def _order() -> str:
    return ", ".join((*SETTINGS, "run_id"))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


# ------------------------------------------------------------ filters


def _where(
    filters: Mapping[str, Any], types: Mapping[str, str], also: Iterable[str] = ()
) -> tuple[str, list[Any]]:
    """An SQL condition, and its parameters; columns of ``also`` are named as valid, too."""
    conditions, values = ["true"], []
    for name, value in filters.items():
        if name not in types:
            valid = ", ".join(dict.fromkeys([*also, *types]))
            raise ValueError(f"no column {name!r} in this store to filter by; its columns: {valid}")
        if value is None:
            continue
        wanted = _plain_list(value)
        _check_type(name, types[name], wanted)
        marks = ", ".join("?" * len(wanted))
        conditions.append(f"{_quoted(name)} IN ({marks})" if wanted else "false")
        values += wanted
    return " AND ".join(conditions), values


def _plain_list(value: Any) -> list[Any]:
    value = _plain(value)
    many = isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)
    return [_plain(item) for item in value] if many else [value]


def _check_type(name: str, type_: str, values: list[Any]) -> None:
    if type_ == NULL_TYPE:
        return
    wanted = {"VARCHAR": str, "BOOLEAN": bool}.get(type_, Real)
    for value in values:
        if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
            word = {str: "strings", bool: "true or false", Real: "numbers"}[wanted]
            raise ValueError(f"column {name!r} holds {word}, and cannot be {value!r}")


# ------------------------------------------------------------ damage


def _with_readable(
    con: duckdb.DuckDBPyConnection, paths: Sequence[Path], query: Callable[[Sequence[Path]], Answer]
) -> Answer:
    """``query(paths)``; where a damaged file spoils it, a warning and the query without that file.

    The files are looked at one by one only when the query failed, so that a sound store pays
    nothing.
    """
    try:
        return query(paths)
    except READ_ERRORS:
        damaged = _damaged_among(con, paths)
    for path in damaged:
        warnings.warn(f"{path}: damaged, its runs are left out", DamagedFileWarning, stacklevel=4)
    # Of files that are gone meanwhile, another process has set some aside.
    return query([path for path in paths if path not in damaged and path.exists()])


def _damaged_among(con: duckdb.DuckDBPyConnection, paths: Iterable[Path]) -> list[Path]:
    return [path for path in paths if path.exists() and not _is_readable(con, [path])]


def _is_readable(con: duckdb.DuckDBPyConnection, paths: Sequence[Path]) -> bool:
    """Whether every value in the files can be read."""
    source, parameters = _source(paths, HISTORY_COLUMNS)
    try:
        con.execute(f"SELECT bit_xor(hash(COLUMNS(*))) FROM ({source})", parameters).fetchall()
    except READ_ERRORS:
        return False
    return True


def set_aside_damaged(results: str | Path | None = None) -> list[Path]:
    """Rename files that cannot be read, so that their runs will be trained again, and warn.

    A damaged history takes its file of runs with it.

    Returns:
        The new paths, ``NAME.parquet.damaged``.
    """
    moved = []
    with _connect() as con:
        for kind in KINDS:
            paths = _files(results, kind)
            if not _is_readable(con, paths):
                for path in _damaged_among(con, paths):
                    moved += _set_aside(results_dir(results), path)
                    message = f"{path}: damaged, set aside; its runs will be trained again"
                    warnings.warn(message, DamagedFileWarning, stacklevel=2)
    return moved


def _set_aside(root: Path, damaged: Path) -> list[Path]:
    moved = []
    # The runs first: without them, the history no longer counts.
    for path in dict.fromkeys((root / "runs" / damaged.name, damaged)):
        aside = path.with_name(f"{path.name}.damaged")
        with contextlib.suppress(FileNotFoundError):  # another process may have been faster
            os.replace(path, aside)
            moved.append(aside)
    return moved
