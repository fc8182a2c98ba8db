"""The files of a store, and what they hold: tables of runs and of epochs."""

import contextlib
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ncbook import text
from ncbook.files import is_file
from ncbook.store.names import HISTORY_COLUMNS, REAL, RUN_COLUMNS, TEXT, WHOLE, results_dir

LOG = logging.getLogger(__name__)
HISTORY = "history"
FILE = "__file"  # the column of a table from several files that says where a row is from
NO_EPOCHS = pa.table({"run_id": pa.array([], TEXT)})
PLAIN = {"bool": pa.bool_(), "string": TEXT, "large_string": TEXT, "null": pa.null()}
PLAIN |= {"double": REAL, "float": REAL} | {f"int{bits}": WHOLE for bits in (8, 16, 32, 64)}


class Damaged(OSError):
    """A file that cannot be read, its argument."""


class Vanished(Exception):
    """A file that was listed is gone: it was compacted or set aside."""


def warn_of_damage(path: Path | str, consequence: str = "its runs are left out") -> None:
    """Say that a file is damaged, and what is done about it."""
    LOG.warning("%s", text.line(f"{path}: damaged, {consequence}"))


def list_files(results: str | Path | None = None) -> list[Path]:
    """What the store holds now; one that does not exist holds nothing."""
    return sorted(results_dir(results).glob("runs/*.parquet"))


def old_history(path: Path) -> Path:
    """Where the epochs of a file of runs are, if it is of the old layout."""
    return path.parents[1] / "history" / path.name


def consistently(results: str | Path | None, read: Callable[[list[Path]], Any]) -> Any:
    """``read`` the files of a store; again if some were removed meanwhile."""
    while True:
        with contextlib.suppress(Vanished):
            return read(list_files(results))


def read_each(
    files: Iterable[Path],
    read: Callable[[Path], pa.Table],
    on_damage: Callable[[Path], object] = warn_of_damage,
) -> pa.Table:
    """The rows of all files, with FILE; without damaged ones, for each of which ``on_damage`` is
    called. A column that holds texts here and numbers there holds texts.

    Raises:
        Vanished: a file is gone.
    """
    tables = [NO_EPOCHS.append_column(FILE, pa.array([], TEXT))]
    for path in files:
        try:
            table = read(path)
            tables.append(table.append_column(FILE, pa.repeat(str(path), len(table))))
        except Damaged as error:
            if not os.path.lexists(error.args[0]):
                raise Vanished from None
            on_damage(error.args[0])
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException:
        known = RUN_COLUMNS | HISTORY_COLUMNS
        for place, table in enumerate(tables):
            types = [(f.name, f.type if f.name in known else TEXT) for f in table.schema]
            tables[place] = table.cast(pa.schema(types))
        return pa.concat_tables(tables, promote_options="permissive")


def padded(table: pa.Table, columns: Mapping[str, pa.DataType]) -> pa.Table:
    """The table with at least these columns, in their order; nulls where there were none."""
    for name in columns.keys() - set(table.column_names):
        table = table.append_column(name, pa.nulls(len(table), columns[name]))
    return table.select(list(dict.fromkeys((*columns, *table.column_names))))


def read_runs(path: Path) -> pa.Table:
    """The runs of one file without their epochs.

    Raises:
        Damaged: it is no such file, has no ids or one twice, or a column of a wrong type.
    """
    with _opened(path) as file:
        names = [name for name in file.schema_arrow.names if name != HISTORY]
        table = _checked(file.read(columns=names), RUN_COLUMNS)
        if len(set(table["run_id"].to_pylist())) < len(table):
            raise Damaged(path)
        return table


def read_history(path: Path) -> pa.Table:
    """The epochs of the runs of one file, one row a run and epoch; or ``Damaged``."""
    old = old_history(path) if old_history(path).exists() else None  # conversion removes it last
    with _opened(path) as file:
        if HISTORY in file.schema_arrow.names:
            table = file.read(columns=["run_id", HISTORY])
            lists = table[HISTORY].combine_chunks()
            if pa.types.is_null(lists.type):
                return NO_EPOCHS
            rows = pa.Table.from_struct_array(pc.list_flatten(lists))
            ids = table["run_id"].take(pc.list_parent_indices(lists))
            return _checked(rows.add_column(0, "run_id", ids), HISTORY_COLUMNS)
    if old is None:
        return NO_EPOCHS
    with _opened(old) as file:
        return _checked(file.read(), HISTORY_COLUMNS)


@contextlib.contextmanager
def _opened(path: Path):
    """A Parquet file; what goes wrong with it in this block is ``Damaged``."""
    if not is_file(path):  # a pipe would block
        raise Damaged(path)
    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            schema = file.schema_arrow
            nested = schema.field(HISTORY).type if HISTORY in schema.names else pa.null()
            if nested != pa.null() and not pa.types.is_struct(nested.value_type):
                raise Damaged(path)
            yield file
    except (OSError, ValueError, LookupError, AttributeError, pa.ArrowException):
        raise Damaged(path) from None


def _checked(table: pa.Table, known: Mapping[str, pa.DataType]) -> pa.Table:
    """The table with columns of bool, int64, float64, string or null, and known ones of their
    type, or of another type of number; an error where that cannot be."""
    names = table.column_names
    if len(set(names)) < len(names) or table["run_id"].null_count:
        raise ValueError("a column is there twice, or an id is missing")
    for place, (name, held) in enumerate(zip(names, table.schema.types, strict=True)):
        plain = PLAIN[str(held)]
        wanted = known.get(name, plain)
        if plain != pa.null() and (plain == TEXT) != (wanted == TEXT):
            raise ValueError(f"{name} is {held}")
        if held != wanted:
            column = table[place].cast(plain)
            with contextlib.suppress(pa.ArrowInvalid):  # 0.5 among whole numbers stays 0.5
                column = column.cast(wanted)
            table = table.set_column(place, name, column)
    table.validate(full=True)
    return table


def nest(runs: pa.Table, history: pa.Table) -> pa.Table:
    """The runs with a column ``history``: a list of the epochs of each, null where it has none."""
    owner = pc.index_in(history["run_id"], runs["run_id"].combine_chunks())
    history, owner = history.filter(owner.is_valid()), owner.drop_null().to_numpy()
    if not len(history):
        return runs.append_column(HISTORY, pa.nulls(len(runs)))
    rows = history.drop(["run_id"]).take(np.argsort(owner, kind="stable")).combine_chunks()
    counts = np.bincount(owner, minlength=len(runs))
    ends = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
    structs, none = rows.to_struct_array().combine_chunks(), pa.array(counts == 0)
    return runs.append_column(HISTORY, pa.ListArray.from_arrays(ends, structs, mask=none))
