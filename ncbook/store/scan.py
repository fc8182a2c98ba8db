"""Files to tables, by DuckDB, whatever happens to the files meanwhile."""

import contextlib
import glob
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import pyarrow as pa

from ncbook import text
from ncbook.files import is_file
from ncbook.store.filters import quoted
from ncbook.store.layout import ATTEMPTS, Listing, list_pairs
from ncbook.store.names import HISTORY_COLUMNS, RUN_COLUMNS

# The second for a name that is not UTF-8, and for a column of another type.
READ_ERRORS = (duckdb.Error, RuntimeError)
NUMBERS = {"DOUBLE", "FLOAT", "BIGINT", "HUGEINT", "BOOLEAN"}
TYPES = RUN_COLUMNS | HISTORY_COLUMNS
FILE = "__file"  # the column, inside this package, that says which file a row is from
# Files read at a time. 11,000 files of 9 runs: all at once 10.8 s and 4 GB, by 100 3.8 s and 0.3 GB
# (two cores, DuckDB 2.0).
BATCH = 100

Answer = TypeVar("Answer")
# From a source of rows, and the types of its columns: a query for some of them, and its parameters.
Query = Callable[[str, Callable[[], Mapping[str, str]]], tuple[str, list[Any]]]


class DamagedFileWarning(UserWarning):
    """A file of the store cannot be read, or holds rows that cannot be true."""


class Vanished(Exception):
    """A file that was listed is gone: it was compacted or set aside."""


def connect() -> contextlib.closing[duckdb.DuckDBPyConnection]:
    """A DuckDB of one's own, in memory, for a ``with`` block."""
    con = duckdb.connect()
    con.execute("SET enable_progress_bar = false")  # in notebooks it is on
    return contextlib.closing(con)


def consistently(
    results: str | Path | None, read: Callable[[duckdb.DuckDBPyConnection, Listing], Answer]
) -> Answer:
    """``read`` the files that are there; once more where some were moved meanwhile."""
    while True:
        with connect() as con, contextlib.suppress(Vanished):
            return read(con, list_pairs(results))


def _all_rows(source: str, _types: Callable) -> tuple[str, list[Any]]:
    return source, []


def warn_of_damage(path: Path, consequence: str) -> None:
    """Say that a file is damaged, and what is done about it."""
    said = text.line(f"{path}: damaged, {consequence}")
    warnings.warn(said, DamagedFileWarning, stacklevel=2)


def _warn_left_out(path: Path) -> None:
    warn_of_damage(path, "its runs are left out")


def scan(
    con: duckdb.DuckDBPyConnection,
    paths: Iterable[Path],
    columns: Mapping[str, str],
    query: Query = _all_rows,
    on_damage: Callable[[Path], None] = _warn_left_out,
) -> pa.Table:
    """The rows of the files that ``query`` picks, from at least ``columns``.

    A damaged file is left out, and ``on_damage`` called with its path: by default, a warning.

    Raises:
        Vanished: a file is gone.
    """

    def fetch(batch: Sequence[Path]) -> pa.Table:
        source, parameters = _source(batch, columns)
        types = types_of(con.sql(source, params=parameters))
        _check_types(types, columns)
        picked, values = query(f"({source})", lambda: types)
        return con.sql(picked, params=[*parameters, *values]).to_arrow_table()

    batches = _batches(_files(paths, on_damage))
    return _together(con, [_from_readable(con, batch, fetch, on_damage) for batch in batches])


def _files(paths: Iterable[Path], on_damage: Callable[[Path], None]) -> Iterator[Path]:
    """Those that are files: a pipe or a folder of such a name is damaged."""
    for path in paths:
        if is_file(path):
            yield path
        elif os.path.lexists(path):
            on_damage(path)
        else:
            raise Vanished(path)


def _batches(paths: Iterable[Path]) -> Iterator[list[Path]]:
    """At least one, which may be empty: it has the columns."""
    paths = list(paths)
    return (paths[i : i + BATCH] for i in range(0, max(len(paths), 1), BATCH))


def _source(paths: Sequence[Path], columns: Mapping[str, str]) -> tuple[str, list[Any]]:
    """A query for all rows of the files, with at least these columns, and FILE; its parameters."""
    typed = ", ".join(f"NULL::{type_} AS {quoted(name)}" for name, type_ in columns.items())
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


def types_of(relation: duckdb.DuckDBPyRelation) -> dict[str, str]:
    """Column to type, in DuckDB's words."""
    return dict(zip(relation.columns, map(str, relation.types), strict=True))


def _check_types(types: Mapping[str, str], columns: Mapping[str, str]) -> None:
    """Raise ``RuntimeError`` where a file has turned a column into one of another kind, for all."""
    for name, wanted in columns.items():
        if types[name] != wanted and not {types[name], wanted} <= NUMBERS:
            raise RuntimeError(f"column {name} is {types[name]}, not {wanted}")


def _together(con: duckdb.DuckDBPyConnection, tables: Sequence[pa.Table]) -> pa.Table:
    """One table; a column that is missing somewhere is null there."""
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException:  # say strings here and numbers there: DuckDB finds a type for both
        names = [f"batch{i}" for i in range(len(tables))]
        for name, table in zip(names, tables, strict=True):
            con.register(name, table)
        union = " UNION ALL BY NAME ".join(f"SELECT * FROM {name}" for name in names)
        return con.sql(union).to_arrow_table()


# ------------------------------------------------------------ damage


def _from_readable(
    con: duckdb.DuckDBPyConnection,
    paths: Sequence[Path],
    fetch: Callable[[Sequence[Path]], Answer],
    on_damage: Callable[[Path], None],
) -> Answer:
    """``fetch(paths)``; where a damaged file spoils it, ``on_damage``, and without that file.

    The files are looked at one by one only when that failed, so that a sound store pays nothing.
    """
    for _ in range(ATTEMPTS - 1):  # a file that was replaced while it was read is damaged only once
        try:
            return fetch(paths)
        except READ_ERRORS:
            damaged = damaged_among(con, paths)
        for path in damaged:
            on_damage(path)
        paths = [path for path in paths if path not in damaged]
    return fetch(paths)


def damaged_among(con: duckdb.DuckDBPyConnection, paths: Sequence[Path]) -> list[Path]:
    """Those that cannot be read.

    Raises:
        Vanished: one is gone.
    """
    spoiled = [batch for batch in _batches(paths) if not _is_readable(con, batch)]
    damaged = [path for batch in spoiled for path in batch if not _is_readable(con, [path])]
    gone = [path for path in damaged if not os.path.lexists(path)]
    if gone:
        raise Vanished(gone[0])
    return damaged


def _is_readable(con: duckdb.DuckDBPyConnection, paths: Sequence[Path]) -> bool:
    """Whether these are files of which every value can be read."""
    if not all(map(is_file, paths)):
        return False
    source, parameters = _source(paths, TYPES)
    try:
        _check_types(types_of(con.sql(source, params=parameters)), TYPES)
        con.execute(f"SELECT bit_xor(hash(COLUMNS(*))) FROM ({source})", parameters).fetchall()
    except READ_ERRORS:
        return False
    return True
