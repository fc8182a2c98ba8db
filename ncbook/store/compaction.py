"""Many small pairs of files into few larger ones, while others write and read.

A larger pair appears as every pair does; only then the pairs it holds are removed. Killed in
between, a store holds some runs twice, which counts once; the next compaction goes on from there.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa

from ncbook.store.layout import (
    SUFFIX,
    Listing,
    clear_leftovers,
    list_pairs,
    only_one,
    refusals_named,
    remove,
)
from ncbook.store.names import HISTORY_COLUMNS, RUN_COLUMNS, SETTINGS, results_dir
from ncbook.store.reading import WORTH
from ncbook.store.scan import (
    FILE,
    Vanished,
    consistently,
    damaged_among,
    scan,
    warn_of_damage,
)
from ncbook.store.soundness import FAULT
from ncbook.store.writing import key_of, put_tables

SMALL_PAIRS = 128  # so many, some 20 kB each, are read in about 50 ms
NOT_COMPACTED = "not compacted"
LARGE_BYTES = 16 * 2**20  # of a pair: some 3,000 runs with 20 epochs each


def compact(results: str | Path | None = None, at_least: int = SMALL_PAIRS) -> int:
    """Merge small pairs of files into larger ones, and remove what killed writers left.

    At any moment, with others that write, read or compact, and wherever this process is killed,
    every stored run stays readable. A damaged file is left as it is, with a warning.

    Args:
        results: the results folder (see ``results_dir``).
        at_least: with fewer small pairs, none is merged. A pair is small below half of
            ``LARGE_BYTES``.

    Returns:
        How many pairs were merged; 0 also while another process is at it.

    Raises:
        ResultsFolderError: the disk refused; the store holds what it held.
    """
    root = results_dir(results)
    if not (root / "runs").is_dir():
        return 0
    with refusals_named(root), only_one(root) as mine:
        if not mine:
            return 0
        clear_leftovers(root)
        small = len(_small(_sizes(list_pairs(root))))
        if small < max(at_least, 2):
            return 0
        return consistently(root, lambda con, listing: _compact(con, root, listing))


def _sizes(listing: Listing) -> dict[str, int]:
    """Bytes of each pair; a pair that is gone has none."""
    sizes = {}
    for key in listing.runs:
        with contextlib.suppress(FileNotFoundError):
            sizes[key] = sum(path.lstat().st_size for path in listing.pair(key))
    return sizes


def _small(sizes: Mapping[str, int]) -> set[str]:
    return {key for key, size in sizes.items() if size < LARGE_BYTES // 2}


def _compact(con: duckdb.DuckDBPyConnection, root: Path, listing: Listing) -> int:
    sizes = _sizes(listing)
    _rank(con, listing, _small(sizes))
    merged = 0
    for group in _groups(con, sizes):
        # Of files that are gone, another process has taken care.
        with contextlib.suppress(Vanished):
            merged += _merge(con, root, listing, group)
    return merged


def _rank(con: duckdb.DuckDBPyConnection, listing: Listing, small: set[str]) -> None:
    """Make the table ``ranked``: run_id, FILE and SETTINGS of every stored row, whether its file is
    small and has a history, what it is worth, and whether it is spent.

    A row is spent if its run is in a large pair, which nobody removes, and worth no less there.
    """
    narrow = ", ".join(("run_id", "status", f"{FAULT} AS fault", *SETTINGS, FILE))
    con.register(
        "stored",
        scan(
            con,
            listing.runs.values(),
            RUN_COLUMNS,
            lambda source, _: (f"SELECT {narrow} FROM {source}", []),
        ),
    )
    files = {
        FILE: list(listing.runs),
        "with_history": [key in listing.history for key in listing.runs],
        "small": [key in small for key in listing.runs],
    }
    con.register("files", pa.table(files))
    con.execute(f"""
        CREATE TEMP TABLE ranked AS
        SELECT * EXCLUDE (status, fault), CASE WHEN fault IS NULL THEN {WORTH} ELSE -1 END AS worth,
        false AS spent
        FROM stored JOIN files USING ({FILE})
    """)
    con.execute(
        f"""
        UPDATE ranked SET spent = true FROM ranked AS rival
        WHERE ranked.small AND rival.run_id = ranked.run_id AND rival.worth >= ranked.worth
        AND rival.{FILE} IN (SELECT unnest(?::VARCHAR[]))
        """,
        [_sound(con, listing, _rivals(con))],
    )


def _rivals(con: duckdb.DuckDBPyConnection) -> list[str]:
    """The large pairs that hold runs which small ones hold as well."""
    rows = con.execute(f"""
        SELECT DISTINCT {FILE} FROM ranked
        WHERE NOT small AND run_id IN (SELECT run_id FROM ranked WHERE small)
    """).fetchall()
    return sorted(key for (key,) in rows)


def _sound(con: duckdb.DuckDBPyConnection, listing: Listing, keys: Sequence[str]) -> list[str]:
    """The pairs without damage; of any other, a warning."""
    damaged = damaged_among(con, listing.paths(keys))
    for path in damaged:
        warn_of_damage(path, NOT_COMPACTED)
    return [key for key in keys if set(damaged).isdisjoint(listing.pair(key))]


def _groups(con: duckdb.DuckDBPyConnection, sizes: Mapping[str, int]) -> Iterator[list[str]]:
    """Small pairs to be merged: neighbours by their settings, about as large as a large pair.

    Pairs with a history and without do not mix, so that a run that lost its history in a race of
    two processes is not taken for one that has it.
    """
    order = ", ".join(f"min({name})" for name in SETTINGS)
    rows = con.execute(f"""
        SELECT {FILE}, with_history FROM ranked WHERE small GROUP BY ALL
        HAVING count(run_id) = count(*) ORDER BY with_history, {order}, {FILE}
    """).fetchall()
    group, filled, before = [], 0, None
    for key, with_history in rows:
        if group and (with_history != before or filled + sizes[key] > LARGE_BYTES):
            yield group
            group, filled = [], 0
        group.append(key)
        filled, before = filled + sizes[key], with_history
    if group:
        yield group


def _merge(
    con: duckdb.DuckDBPyConnection, root: Path, listing: Listing, group: Sequence[str]
) -> int:
    """Write one pair with the runs of the group; remove the group; how many pairs it was.

    Raises:
        Vanished: a file is gone; nothing was written.
    """
    tables, damaged = _tables(con, listing, group)
    if damaged:
        for path in sorted(damaged):
            warn_of_damage(path, NOT_COMPACTED)
        sound = [key for key in group if damaged.isdisjoint(listing.pair(key))]
        return _merge(con, root, listing, sound)
    if not tables:
        remove(listing, group)
        return len(group)
    key = key_of(tables)
    exists = (root / "runs" / f"{key}{SUFFIX}").exists()
    if len(group) < 2 or (exists and key not in group):  # the latter would replace a damaged file
        return 0
    put_tables(root, tables)  # also where one of its name exists, whose rows may be worth less
    remove(listing, set(group) - {key})
    return len(group)


def _tables(
    con: duckdb.DuckDBPyConnection, listing: Listing, group: Sequence[str]
) -> tuple[dict[str, pa.Table], set[Path]]:
    """What is to be kept of a group, by kind, as far as there is something; the damaged files."""
    con.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE chosen AS
        SELECT run_id, {FILE} FROM ranked
        WHERE NOT spent AND {FILE} IN (SELECT unnest(?::VARCHAR[]))
        QUALIFY row_number() OVER (PARTITION BY run_id ORDER BY worth DESC, {FILE}) = 1
        """,
        [group],
    )
    # Of files with other rows, not every value is read below.
    half = con.execute(
        f"""
        SELECT DISTINCT {FILE} FROM ranked ANTI JOIN chosen USING (run_id, {FILE})
        WHERE {FILE} IN (SELECT unnest(?::VARCHAR[]))
        """,
        [group],
    ).fetchall()
    damaged = set(damaged_among(con, listing.paths(sorted(key for (key,) in half))))
    tables = {}
    for kind, files, columns in (
        ("runs", listing.runs, RUN_COLUMNS),
        ("history", listing.history, HISTORY_COLUMNS),
    ):
        paths = [files[key] for key in group if key in files]
        table = scan(con, paths, columns, _chosen_rows, on_damage=damaged.add)
        if len(table):
            tables[kind] = table
    return tables, damaged


def _chosen_rows(source: str, _types: Callable) -> tuple[str, list]:
    query = f"SELECT * EXCLUDE ({FILE}) FROM {source} SEMI JOIN chosen USING (run_id, {FILE})"
    return query, []
