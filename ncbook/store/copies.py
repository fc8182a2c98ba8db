"""Chosen runs in one place: another store, or one file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from ncbook import text
from ncbook.files import appear, flush
from ncbook.paths import expanded
from ncbook.store.layout import Listing, staged
from ncbook.store.names import results_dir
from ncbook.store.reading import choose_runs, chosen_history, chosen_runs, scan_history
from ncbook.store.scan import FILE, consistently
from ncbook.store.writing import put_tables


def _write_parquet(table: pa.Table, file: BinaryIO) -> None:
    pq.write_table(table, file, compression="zstd")


def _write_csv(table: pa.Table, file: BinaryIO) -> None:
    """With ``text.cell`` of every text and name; numbers stay numbers."""
    for place, column in enumerate(table.columns):
        if pa.types.is_string(column.type) or pa.types.is_binary(column.type):
            cells = pc.replace_substring_regex(column, text.FORMULA.pattern, rf"{text.MARK}\0")
            table = table.set_column(place, table.column_names[place], cells)
    pyarrow.csv.write_csv(table.rename_columns(list(map(text.cell, table.column_names))), file)


WRITERS = {".parquet": _write_parquet, ".csv": _write_csv}


def merge(source: str | Path, results: str | Path | None = None, **filters: Any) -> Path:
    """Copy the runs of another store that pass the filters into this one, as one pair of files.

    A few large files are read faster than many small ones: this is how results are published.

    Args:
        source: the results folder to copy from.
        results: the one to copy to (see ``results_dir``).
        filters: as in ``load_runs``.

    Raises:
        ValueError: a filter that names no column, or no run that passes.
        ResultsFolderError: the disk refused.
    """

    def read(con: duckdb.DuckDBPyConnection, listing: Listing) -> dict[str, pa.Table]:
        run_types = choose_runs(con, listing, filters)
        history = scan_history(con, listing, run_types, {})
        tables = {"runs": chosen_runs(con).to_arrow_table(), "history": history.drop([FILE])}
        return {kind: table for kind, table in tables.items() if len(table)}

    tables = consistently(source, read)
    if not tables:
        raise ValueError(f"there are no runs to write: {_none_passes(source, filters)}")
    return put_tables(results_dir(results), tables)


def export(
    path: str | Path, results: str | Path | None = None, *, history: bool = False, **filters: Any
) -> Path:
    """Write the runs that pass the filters to one file, which appears whole or not at all.

    A Parquet file holds every text as it is stored. In a CSV file a text that begins with one of
    ``= + - @ '``, a tab or a break has an apostrophe before it, so that no spreadsheet computes it:
    to get the text back, remove one leading apostrophe.

    Args:
        path: the file, ``.parquet`` or ``.csv``; one that is there is replaced.
        results: the results folder (see ``results_dir``).
        history: write the epochs of the runs, one row a run and logged epoch.
        filters: as in ``load_runs``, or with ``history`` as in ``load_history``.

    Returns:
        The file.

    Raises:
        ValueError: another suffix, a filter that names no column, or nothing that passes.
        OSError: the file cannot be written.

    Example:
        >>> export("adamw.csv", "nowhere", optimizer="adamw")
        Traceback (most recent call last):
        ValueError: no run in nowhere has optimizer='adamw'
    """
    path = expanded(path, "file")
    if path.suffix.lower() not in WRITERS:
        raise ValueError(f"the file to export to must end in {' or '.join(WRITERS)}, not {path}")

    def read(con: duckdb.DuckDBPyConnection, listing: Listing) -> pa.Table:
        run_types = choose_runs(con, listing, filters, also_history=history)
        if not history:
            return chosen_runs(con).to_arrow_table()
        con.register("history", scan_history(con, listing, run_types, filters))
        return chosen_history(con).to_arrow_table()

    try:
        with staged(path) as file:  # first, so that a place that refuses does so before the work
            table = consistently(results, read)
            if not len(table):
                what = "logged epoch" if history else "run"
                raise ValueError(_none_passes(results, filters, what))
            WRITERS[path.suffix.lower()](table, file)
            flush(file)
            appear(file, path)
    except OSError as error:
        raise OSError(f"{path} cannot be written ({error.strerror or error})") from error
    return path


def _none_passes(results: str | Path | None, filters: Mapping[str, Any], what: str = "run") -> str:
    asked = ", ".join(f"{n}={v!r}" for n, v in filters.items() if v is not None)
    return f"no {what} in {results_dir(results)}" + (f" has {asked}" if asked else "")
