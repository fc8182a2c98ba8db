"""Frames of the runs that are stored, and of their epochs."""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa

from ncbook.store.filters import condition, unknown_column
from ncbook.store.layout import Listing
from ncbook.store.names import DONE, HISTORY_COLUMNS, RUN_COLUMNS, SETTINGS
from ncbook.store.scan import FILE, consistently, scan, types_of
from ncbook.store.soundness import leave_out_unsound

ORDER = ", ".join((*SETTINGS, "run_id"))
# Of a run that was stored twice, say by two sweeps at once, one row counts: of a run that is done
# before one that is not, with epochs before without. The highest is worth most.
WORTH = f"2 * coalesce(status IN {DONE}, false)::INT + with_history::INT"


def load_runs(results: str | Path | None = None, **filters: Any) -> pd.DataFrame:
    """All stored runs that pass the filters, one row a run.

    Args:
        results: the results folder (see ``results_dir``); one that is not there has no runs.
        filters: ``column=value``, or ``column=[value, ...]`` for any of these; None is no filter.

    Returns:
        At least the columns of ``RUN_COLUMNS``, sorted by ``SETTINGS`` and ``run_id``. A run that
        was stored twice is there once. A row that cannot be true, such as a negative NC0, is left
        out, with a ``DamagedFileWarning``.

    Raises:
        ValueError: a filter that names no column, or whose value is not of the column's type.

    Example:
        >>> runs = load_runs("nowhere", optimizer="adamw", weight_decay=[0, 5e-4])
        >>> len(runs), runs.columns[0]
        (0, 'run_id')
    """

    def read(con: duckdb.DuckDBPyConnection, listing: Listing) -> pd.DataFrame:
        choose_runs(con, listing, filters)
        return chosen_runs(con).df()

    return consistently(results, read)


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

    def read(con: duckdb.DuckDBPyConnection, listing: Listing) -> pd.DataFrame:
        run_types = choose_runs(con, listing, filters, also_history=True)
        con.register("history", scan_history(con, listing, run_types, filters))
        return chosen_history(con).df()

    return consistently(results, read)


# ------------------------------------------------------------ what is chosen


def choose_runs(
    con: duckdb.DuckDBPyConnection,
    listing: Listing,
    filters: Mapping[str, Any],
    also_history: bool = False,
) -> dict[str, str]:
    """Make the table ``chosen``: which runs pass, each once, and the FILE of each.

    With ``also_history``, a filter that names no column of runs may be one of the history.

    Returns:
        The types of the runs' columns.
    """
    con.register("stored", scan(con, listing.runs.values(), RUN_COLUMNS))
    leave_out_unsound(con, listing)
    con.register("histories", pa.table({FILE: pa.array(listing.history, pa.string())}))
    types = types_of(con.sql(f"SELECT * EXCLUDE ({FILE}) FROM stored"))
    of_runs = {n: v for n, v in filters.items() if n in types or not also_history}
    where, values = condition(of_runs, types)
    con.execute(f"""
        CREATE TEMP TABLE kept AS
        SELECT run_id, {FILE} FROM (
            SELECT run_id, status, {FILE}, histories.{FILE} IS NOT NULL AS with_history
            FROM stored SEMI JOIN sound USING (run_id, {FILE}) LEFT JOIN histories USING ({FILE}))
        QUALIFY row_number() OVER (PARTITION BY run_id ORDER BY {WORTH} DESC, {FILE}) = 1
    """)
    con.execute(
        f"""
        CREATE TEMP TABLE chosen AS SELECT run_id, {FILE}
        FROM stored SEMI JOIN kept USING (run_id, {FILE}) WHERE {where}
        """,
        values,
    )
    return types


def chosen_runs(con: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyRelation:
    """The rows of the chosen runs."""
    return con.sql(f"""
        SELECT * EXCLUDE ({FILE}) FROM stored SEMI JOIN chosen USING (run_id, {FILE})
        ORDER BY {ORDER}
    """)


def scan_history(
    con: duckdb.DuckDBPyConnection,
    listing: Listing,
    run_types: Collection[str],
    filters: Mapping[str, Any],
) -> pa.Table:
    """The epochs of the chosen runs that pass those filters that are not about runs."""
    picked = con.execute(f"SELECT DISTINCT {FILE} FROM chosen").fetchall()
    # With no run picked, all files: their columns are what the filters are checked against.
    keys = sorted({key for (key,) in picked} & listing.history.keys()) or listing.history
    of_rows = {n: v for n, v in filters.items() if n not in run_types}
    needed = [name for name, value in of_rows.items() if value is not None]
    seen = dict.fromkeys(run_types)

    def passing(source: str, types_of_source: Callable) -> tuple[str, list[Any]]:
        types = types_of_source() if of_rows else {}
        seen.update(dict.fromkeys(types))
        here = {name: of_rows[name] for name in needed if name in types}
        where, values = condition(here, types)
        if len(here) < len(needed):  # null in all of these files
            where = f"false AND {where}"
        # A run that was stored twice has two histories: the one of the same file counts.
        query = f"SELECT * FROM {source} SEMI JOIN chosen USING (run_id, {FILE}) WHERE {where}"
        return query, values

    table = scan(con, [listing.history[key] for key in keys], HISTORY_COLUMNS, passing)
    for name in of_rows.keys() - seen.keys():
        raise unknown_column(name, [n for n in seen if n != FILE])
    return table


def chosen_history(con: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyRelation:
    """The rows of the table ``history``, beside the settings of their runs."""
    have = con.table("history").columns
    settings = "".join(f"stored.{name}, " for name in SETTINGS if name not in have)
    return con.sql(f"""
        SELECT run_id, {settings} history.* EXCLUDE (run_id, {FILE})
        FROM history JOIN stored USING (run_id, {FILE})
        ORDER BY {ORDER}, epoch
    """)
