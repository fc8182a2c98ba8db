"""Records to pairs of Parquet files."""

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ncbook.store.layout import put, refusals_named
from ncbook.store.names import DONE, FAILED, digest, plain, results_dir

# From so many rows on, dictionaries make a file smaller (strings repeat); below, larger.
DICTIONARY_ROWS = 1000

Record = Mapping[str, Any]


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
        The file of runs that was written.

    Raises:
        ValueError: no runs, one id twice, a failed run without a reason, history of another run,
            or a column of mixed types.
        ResultsFolderError: the disk refused; nothing is left behind.
    """
    _check(runs, history)
    tables = {"runs": table_of(runs)}
    if history:
        tables["history"] = table_of(history)
    return put_tables(results_dir(results), tables)


def put_tables(root: Path, tables: Mapping[str, pa.Table]) -> Path:
    """Store a pair of tables, by kind, under the key that their runs give."""
    contents = {kind: parquet_bytes(table) for kind, table in tables.items()}
    with refusals_named(root):
        return put(root, key_of(tables), contents)


def key_of(tables: Mapping[str, pa.Table]) -> str:
    """The name of a pair: a hash of its runs' ids.

    Also of which runs are not done, and of whether there is a history: files of one name are worth
    the same, so that a run that failed never takes the place of one that ended well.
    """
    runs = tables["runs"]
    ids = runs["run_id"].to_pylist()
    statuses = runs["status"].to_pylist() if "status" in runs.column_names else [None] * len(ids)
    lines = sorted(
        name if status in DONE else f"{name} {status}"
        for name, status in zip(ids, statuses, strict=True)
    )
    return digest("\n".join(lines if "history" in tables else [*lines, "without history"]))


def _check(runs: Sequence[Record], history: Sequence[Record]) -> None:
    ids = [record.get("run_id") for record in runs]
    if not ids:
        raise ValueError("there are no runs to write")
    odd = [value for value in ids if not isinstance(value, str) or not value]
    if odd:
        raise ValueError(f"every run needs a run_id, a string; one has {odd[0]!r}")
    twice = [value for value, count in Counter(ids).items() if count > 1]
    if twice:
        raise ValueError(f"run_id {twice[0]!r} is there twice")
    mute = [r["run_id"] for r in runs if r.get("status") == FAILED and not r.get("reason")]
    if mute:
        raise ValueError(f"run_id {mute[0]!r} has failed, and needs a reason")
    strangers = {record.get("run_id") for record in history} - set(ids)
    if strangers:
        raise ValueError(f"the history has run_id {strangers.pop()!r}, which no run has")


def table_of(records: Sequence[Record]) -> pa.Table:
    """One column for each key of any record, in order of appearance."""
    names = dict.fromkeys(name for record in records for name in record)
    return pa.table(
        {name: _column(name, [plain(record.get(name)) for record in records]) for name in names}
    )


def _column(name: str, values: list[Any]) -> pa.Array:
    """bool, int64, float64 or string, whichever holds every value; null if all are None."""
    types = {type(value) for value in values} - {type(None)}
    try:
        for type_, arrow in ((bool, pa.bool_()), (int, pa.int64()), (str, pa.string())):
            if types == {type_}:
                return pa.array(values, arrow)
        if types <= {int, float}:
            return pa.array(values, pa.float64() if types else pa.null())
    except (OverflowError, pa.ArrowException):
        largest = max((v for v in values if type(v) is int), key=abs)
        raise ValueError(f"column {name!r} cannot hold {largest} exactly") from None
    held = ", ".join(sorted(type_.__name__ for type_ in types))
    raise ValueError(f"column {name!r} must hold numbers, strings or bools, not {held}")


def parquet_bytes(table: pa.Table) -> bytes:
    """The content of a Parquet file."""
    # Without statistics and dictionaries, a file of 12 runs and 60 columns is 11 kB instead of 18
    # and opens in half the time.
    buffer = io.BytesIO()
    pq.write_table(
        table,
        buffer,
        compression="zstd",
        use_dictionary=len(table) >= DICTIONARY_ROWS,
        write_statistics=False,
        store_schema=False,
    )
    return buffer.getvalue()
