"""What a store is made of: ids of runs, columns, and files that hold tables of runs and epochs."""

import contextlib
import hashlib
import json
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
from ncbook.parameters import FIELDS, NEVER, plain
from ncbook.paths import results_dir

LOG = logging.getLogger(__name__)
DONE = ("ok", "diverged")  # the statuses of a run that need not be trained again
FAILED = "failed"  # the status of a run that was given up; its column ``reason`` says why

GAUGE = ("w_norm", "gauge_share", "nc2w_centred", "nc2m_centred", "nc3_centred")
METRICS = ("train_loss", "test_loss", "nc0", "nc1", "nc2", "nc2n", "nc2a", "nc2w", "nc2wn", "nc2wa")
METRICS += ("nc2m", "nc3", "nc4", "nc1_quotient", "cdnv", *GAUGE)
MADE_BY = ("ncbook_version", "git_commit", "torch_version", "python_version", "device", "processor")

TEXT, REAL, WHOLE = pa.string(), pa.float64(), pa.int64()
TYPES = {"name": TEXT, "number": REAL, "whole": WHOLE, "flag": pa.bool_()}
BEFORE = {k: row.before for k, row in FIELDS.items() if row.before not in (None, NEVER)}
# What every frame of runs has; a store that was filled before a column came has nulls there.
RUN_COLUMNS = {
    "run_id": TEXT,
    **{field: TYPES[row.kind] for field, row in FIELDS.items()},
    "status": TEXT,
    **dict.fromkeys(("train_acc", "test_acc"), REAL),
    "reason": TEXT,
    "diverged_epoch": WHOLE,
    "measured_layers": WHOLE,
    **dict.fromkeys((*METRICS, "w_sv_min", "w_sv_mean", "m_sv_min", "m_sv_mean"), REAL),
    **{f"{name}_init": REAL for name in METRICS if not name.endswith("_loss")},
    "wall_time_s": REAL,
    **dict.fromkeys((*MADE_BY, "created_at"), TEXT),
}
HISTORY, LAYERS = "history", "layers"  # columns that are lists of structs, and what these have
OF_LAYER = ("nc1", "nc2", "nc2n", "nc2a", "cdnv", "effective_rank")
OF_LAYER += ("train_ncm_acc", "test_ncm_acc")
HISTORY_COLUMNS = {"run_id": TEXT, "epoch": WHOLE, **dict.fromkeys(GAUGE, REAL)}
LAYER_COLUMNS = {"run_id": TEXT, "epoch": WHOLE, "position": WHOLE, "layer": TEXT, "width": WHOLE}
LAYER_COLUMNS |= dict.fromkeys(OF_LAYER, REAL)
NESTED = {HISTORY: HISTORY_COLUMNS, LAYERS: LAYER_COLUMNS}
# The columns of runs that load_history puts next to each epoch, and the order of rows everywhere.
SETTINGS = ("dataset", "model", "optimizer", "lr", "momentum", "weight_decay", "seed")
FILE = "__file"  # the column of a table from several files that says where a row is from
NO_EPOCHS = pa.table({"run_id": pa.array([], TEXT)})
# What reading a damaged file raises.
UNREADABLE = (OSError, ValueError, LookupError, TypeError, AttributeError, pa.ArrowException)


class ResultsFolderError(OSError):
    """The results folder cannot be read or written."""


def run_id(config: Mapping[str, Any]) -> str:
    """Hash the whole configuration of a run: sha256 of its JSON with sorted keys, 16 digits: among
    100,000 runs, two share an id with probability 3e-10.
    Equal numbers give equal ids (0 and 0.0, 1e-3 and 0.001), a bool is no number.

    Raises:
        ValueError, TypeError: a number that is not finite, or a value that JSON cannot hold.

    >>> run_id({"lr": 1e-3, "seed": 0}) == run_id({"seed": 0.0, "lr": 0.001})
    True
    """
    values = {name: plain(value) for name, value in config.items()}
    whole = {k: int(v) for k, v in values.items() if isinstance(v, float) and v.is_integer()}
    options = {"sort_keys": True, "separators": (",", ":"), "allow_nan": False}
    return hashlib.sha256(json.dumps(values | whole, **options).encode()).hexdigest()[:16]


# ------------------------------------------------------------ files


def warn_of_damage(path: Path | str, consequence: str = "its runs are left out") -> None:
    LOG.warning("%s", text.line(f"{path}: damaged, {consequence}"))


def list_files(results: str | Path | None = None) -> list[Path]:
    """What the store holds now; one that does not exist holds nothing."""
    return sorted(results_dir(results).glob("runs/*.parquet"))


def consistently(results: str | Path | None, read: Callable[[list[Path]], Any]) -> Any:
    """``read`` the files of a store; again if some were compacted or set aside meanwhile."""
    while True:
        with contextlib.suppress(FileNotFoundError):
            return read(list_files(results))


def read_each(
    files: Iterable[Path],
    read: Callable[[Path], pa.Table],
    on_damage: Callable[[Path], object] = warn_of_damage,
) -> pa.Table:
    """The rows of all files, with FILE, but for damaged ones, which go to ``on_damage``; a
    ``FileNotFoundError`` if one was compacted or set aside."""
    tables = [NO_EPOCHS.append_column(FILE, pa.array([], TEXT))]
    for path in files:
        try:
            table = read(path)
            tables.append(table.append_column(FILE, pa.repeat(str(path), len(table))))
        except FileNotFoundError:
            raise
        except UNREADABLE as error:
            # An error with a number is the system's, and says nothing of the file.
            if isinstance(error, MemoryError) or getattr(error, "errno", None):
                raise ResultsFolderError(text.line(f"{path} cannot be read: {error}")) from error
            on_damage(path)
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:  # a user's own column, of several kinds
        what = f"the files of {path.parent} do not fit together: {error}"
        raise ResultsFolderError(text.line(what)) from error


def padded(table: pa.Table, columns: Mapping[str, pa.DataType]) -> pa.Table:
    """The table with at least these columns, in their order; where there were none, with nulls, or
    with the value that all runs had before the column came."""
    for name in columns.keys() - set(table.column_names):
        table = table.append_column(name, pa.nulls(len(table), columns[name]))
    for name in BEFORE.keys() & columns.keys():
        place = table.column_names.index(name)
        table = table.set_column(place, name, table[name].fill_null(BEFORE[name]))
    return table.select(list(dict.fromkeys((*columns, *table.column_names))))


def read(path: Path, wanted: Callable[[str], bool] = lambda name: name not in NESTED) -> pa.Table:
    """The runs of one file, with the wanted ones of its columns; an ``UNREADABLE`` error if it is
    damaged."""
    # A pipe would block. In this order: a file that is compacted meanwhile is no damaged one.
    if not os.path.isfile(path) and os.path.lexists(path):
        raise ValueError("no file")
    with pq.ParquetFile(path, pre_buffer=False) as file:
        table = _typed(
            file.read(columns=list(filter(wanted, file.schema_arrow.names))), RUN_COLUMNS
        )
    if len(set(table["run_id"].to_pylist()) - {None}) < len(table):
        raise ValueError("an id is missing, or there twice")
    old = path.parents[1] / HISTORY / path.name  # where an older version has put the epochs
    if wanted(HISTORY) and HISTORY not in table.column_names and old.exists():
        table = nest(table, HISTORY, pq.ParquetFile(old).read())
    return table


def read_whole(path: Path) -> pa.Table:
    """The runs of one file, with all that is nested in them; errors as of ``read``."""
    table = read(path, lambda name: True)
    for column in NESTED:
        _unnested(table, column)  # or an error
    return table


def read_nested(path: Path, column: str) -> pa.Table:
    """What is nested in a column of one file: one row a struct, with the ``run_id``; errors as of
    ``read``."""
    return _unnested(read(path, {"run_id", column}.__contains__), column)


def _unnested(runs: pa.Table, column: str) -> pa.Table:
    if column not in runs.column_names or pa.types.is_null(runs[column].type):
        return NO_EPOCHS
    lists = runs[column].combine_chunks()
    rows = pa.Table.from_struct_array(pc.list_flatten(lists))
    ids = runs["run_id"].take(pc.list_parent_indices(lists))
    return _typed(rows.add_column(0, "run_id", ids), NESTED[column])


def _typed(table: pa.Table, known: Mapping[str, pa.DataType]) -> pa.Table:
    """The table with its known columns of their type; an error where that cannot be."""
    if FILE in table.column_names or len(set(table.column_names)) < table.num_columns:
        raise ValueError("a column is there twice, or has our own name")
    table = table.cast(pa.schema([(f.name, known.get(f.name, f.type)) for f in table.schema]))
    table.validate(full=True)
    return table


def nest(runs: pa.Table, column: str, nested: pa.Table) -> pa.Table:
    """The runs with one more column: a list of the rows of each, null where it has none."""
    owner = pc.index_in(nested["run_id"], runs["run_id"].combine_chunks())
    nested, owner = nested.filter(owner.is_valid()), owner.drop_null().to_numpy()
    if not len(nested):
        return runs.append_column(column, pa.nulls(len(runs)))
    rows = nested.drop(["run_id"]).take(np.argsort(owner, kind="stable")).combine_chunks()
    counts = np.bincount(owner, minlength=len(runs))
    ends = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
    structs, none = rows.to_struct_array().combine_chunks(), pa.array(counts == 0)
    return runs.append_column(column, pa.ListArray.from_arrays(ends, structs, mask=none))
