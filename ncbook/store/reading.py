"""Frames of the runs that are stored and of their epochs, and which runs are stored."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from ncbook import text
from ncbook.parameters import plain
from ncbook.paths import expanded, new_file, results_dir
from ncbook.store import tables
from ncbook.store.tables import DONE, FILE, RUN_COLUMNS, SETTINGS, TEXT, WHOLE, consistently

STATUSES = (*DONE, tables.FAILED)
NOT_NEGATIVE = ("train_loss", "test_loss", "nc0", "nc1", "nc2", "nc3")
SHARES = ("train_acc", "test_acc", "nc4")
JUDGED = ("run_id", "status", "measured_layers", *NOT_NEGATIVE, *SHARES)
NAMED = 3  # runs of a file with the same fault that a warning names


def load_runs(results: str | Path | None = None, **filters: Any) -> pd.DataFrame:
    """All stored runs that pass the filters, one row a run, with at least ``RUN_COLUMNS``, sorted
    by ``SETTINGS`` and ``run_id``. A run that was stored twice is there once. A row that cannot be
    true, such as a negative NC0, is left out, and a notice names it.

    Args:
        results: the results folder (see ``results_dir``); one that does not exist has no runs.
        filters: ``column=value``, or ``column=[value, ...]`` for any of these; None is no filter.

    Raises:
        ValueError: a filter that names no column, or whose value is not of the column's type.
    """
    return _frame(consistently(results, partial(_choose_runs, filters)))


def load_history(results: str | Path | None = None, **filters: Any) -> pd.DataFrame:
    """The epochs of all stored runs that pass the filters: ``run_id``, ``SETTINGS``, ``epoch`` and
    what was logged, one row a run and logged epoch, sorted by settings, run and epoch.

    Filters and errors are those of ``load_runs``; or ``epoch=[0, 200]`` and the like choose rows.
    """
    choose = partial(_choose_nested, tables.HISTORY, ["epoch"], filters)
    return _frame(consistently(results, choose))


def load_layers(results: str | Path | None = None, **filters: Any) -> pd.DataFrame:
    """The layers of those runs that were trained with ``measure_layers``, one row a run, logged
    epoch and layer: as ``load_history``, and ``position``, ``layer``, and ``width``, the number of
    features. To filter by ``width`` is by that of the run, a factor.
    """
    choose = partial(_choose_nested, tables.LAYERS, ["position", "epoch"], filters)
    return _frame(consistently(results, choose))


def _frame(table: pa.Table) -> pd.DataFrame:
    """As pandas: whole numbers are Int64 where some are null, and texts are objects, with None."""
    table = table.drop([FILE])
    frame = table.to_pandas(types_mapper={WHOLE: pd.Int64Dtype()}.get)
    for name, column in zip(table.column_names, table.columns, strict=True):
        if column.type == WHOLE and not column.null_count:
            frame[name] = frame[name].astype("int64")
        elif column.type == TEXT and column.null_count:
            frame[name] = pd.Series(column.to_pylist(), dtype=object)
    return frame


def _write_csv(table: pa.Table, file: BinaryIO) -> None:
    """With ``text.cell`` of every text and name; numbers stay numbers."""
    for place, column in enumerate(table.columns):
        if column.type == TEXT:
            cells = pc.replace_substring_regex(column, text.FORMULA.pattern, rf"{text.MARK}\0")
            table = table.set_column(place, table.column_names[place], cells)
    pyarrow.csv.write_csv(table.rename_columns(list(map(text.cell, table.column_names))), file)


WRITERS = {".parquet": partial(pq.write_table, compression="zstd"), ".csv": _write_csv}


def export(path: str | Path, results: str | Path | None = None, **filters: Any) -> int:
    """Write what ``load_runs`` has to a file that ends in ``.parquet`` or ``.csv``, whose folder is
    made; the number of runs. In a CSV file an apostrophe keeps a text that begins with one of ``= +
    - @ '``, a tab or a break from being a formula.

    Raises:
        ValueError: another suffix, a filter that names no column, or nothing that passes.
        OSError: the file cannot be written.
    """
    path = expanded(path, "file")
    if path.suffix.lower() not in WRITERS:
        ends = " or ".join(WRITERS)
        raise ValueError(f"the file to export to must end in {ends}, not {path}")
    table = consistently(results, partial(_choose_runs, filters)).drop([FILE])
    if not len(table):
        asked = ", ".join(f"{name}={value!r}" for name, value in filters.items())
        raise ValueError(f"no run in {results_dir(results)}" + f" has {asked}" * bool(asked))
    try:
        with suppress(FileExistsError):
            path.parent.mkdir(parents=True)
        with new_file(path) as file:
            WRITERS[path.suffix.lower()](table, file)
    except OSError as error:
        raise OSError(f"{path} cannot be written ({error.strerror or error})") from error
    return len(table)


def _choose_runs(
    filters: Mapping[str, Any], files: list[Path], nested: Iterable[str] = ()
) -> pa.Table:
    """The runs that pass, each once, sorted, with FILE; filters may name ``nested`` columns."""
    table = tables.padded(tables.read_each(files, tables.read), RUN_COLUMNS)
    names = dict.fromkeys([*table.column_names, *nested])
    if unknown := [name for name in filters if name not in names]:
        columns = ", ".join(name for name in names if name != FILE)
        raise ValueError(f"no column {unknown[0]!r} here to filter by; there are: {columns}")
    rows = judged(table)
    _warn_of_faults(rows, "left out")
    sound = best_rows(rows) & rows["fault"].isna().to_numpy()
    table = table.filter(pa.array(sound & _passing(table, filters)))
    return table.sort_by([(name, "ascending") for name in (*SETTINGS, "run_id")])


def _choose_nested(
    column: str, order: list[str], filters: Mapping[str, Any], files: list[Path]
) -> pa.Table:
    """The rows that pass, nested in the runs that pass, with the settings of the runs and FILE;
    sorted by run, then by the last column of ``order``, and so on to the first."""
    known = tables.NESTED[column]
    runs = _choose_runs(filters, files, known)
    chosen = map(Path, runs[FILE].unique().to_pylist())
    table = tables.read_each(chosen, partial(tables.read_nested, column=column))
    table = tables.padded(table, known)
    owner = pc.index_in(table["run_id"], runs["run_id"].combine_chunks())
    # A run that was stored twice has its rows twice: those in the file of its own row count.
    with_run = pc.fill_null(pc.equal(runs[FILE].take(owner), table[FILE]), False).to_numpy()
    own = {name: value for name, value in filters.items() if name not in runs.column_names}
    passing = pa.array(with_run & _passing(table, own))
    table, owner = table.filter(passing), owner.filter(passing)
    for place, name in enumerate(n for n in SETTINGS if n not in table.column_names):
        table = table.add_column(1 + place, name, runs[name].take(owner))
    keys = [table[name].to_numpy() for name in order]
    return table.take(np.lexsort((*keys, owner.to_numpy())))


def _passing(table: pa.Table, filters: Mapping[str, Any]) -> np.ndarray:
    """Which rows hold the value, or one of the values, of each filter by one of the columns."""
    passing = np.ones(len(table), bool)
    for name in [n for n in filters if n in table.column_names and filters[n] is not None]:
        column, value = table[name], plain(filters[name])
        many = isinstance(value, Iterable) and not isinstance(value, str)
        try:
            wanted = pa.array([plain(item) for item in value] if many else [plain(value)])
            if pa.types.is_null(column.type):
                column = column.cast(wanted.type)
            passing &= pc.is_in(column, wanted.cast(column.type)).to_numpy()
        except (pa.ArrowException, OverflowError):
            held = f"column {name!r} holds values of type {column.type}"
            raise ValueError(f"{held}, and cannot be {value!r}") from None
    return passing


# ------------------------------------------------------------ which rows count


def judged(table: pa.Table) -> pd.DataFrame:
    """``run_id``, FILE, ``status``, ``measured_layers`` and ``fault`` of each row: why it cannot be
    true, or None."""
    rows = tables.padded(table, RUN_COLUMNS).select([*JUDGED, FILE]).to_pandas()
    lost, ok = rows.isna(), rows["status"] == "ok"
    # A row without NC1 was not written by a training, and need not have the others. NC1 is 0 where
    # M = 0, and NC0 where W = 0; NC2 and NC3 are numbers elsewhere.
    measured = ok & ~lost["nc1"]
    found = {f"a status other than {', '.join(STATUSES)}": ~rows["status"].isin(STATUSES)}
    found |= {f"ok without {n}": measured & lost[n] for n in ("train_acc", "nc0")}
    found["ok without nc2"] = measured & (rows["nc1"] > 0) & lost["nc2"]
    found["ok without nc3"] = measured & (rows["nc1"] > 0) & (rows["nc0"] > 0) & lost["nc3"]
    found |= {f"{n} below 0": rows[n] < 0 for n in (*NOT_NEGATIVE, *SHARES)}
    found |= {f"ok with infinite {n}": ok & np.isinf(rows[n]) for n in NOT_NEGATIVE[2:]}
    found |= {f"{n} above 1": rows[n] > 1 for n in SHARES}
    fault = pd.Series(np.select(list(found.values()), list(found), None), dtype=object)
    return rows[["run_id", FILE, "status", "measured_layers"]].assign(fault=fault)


def _warn_of_faults(rows: pd.DataFrame, consequence: str) -> None:
    """``FILE: damaged, 1 run is left out, with nc0 below 0: c415f57250d81bfb``."""
    for (path, fault), ids in rows[rows["fault"].notna()].groupby([FILE, "fault"])["run_id"]:
        some = ", ".join(sorted(ids)[:NAMED]) + (", …" if len(ids) > NAMED else "")
        runs, verb = text.many(len(ids), "run"), "is" if len(ids) == 1 else "are"
        tables.warn_of_damage(path, f"{runs} {verb} {consequence}, with {fault}: {some}")


def best_rows(rows: pd.DataFrame) -> np.ndarray:
    """Which of some judged rows count. Of a run that was stored twice, say by two sweeps, one does:
    a sound row before another, then one of a run that is done before one that is not, then one
    with layers."""
    again = rows["run_id"].duplicated(keep=False)
    rows = rows[again]
    rows = rows.assign(unsound=rows["fault"].notna(), undone=~rows["status"].isin(DONE))
    order = ["unsound", "undone", "measured_layers", FILE]  # where nothing was measured comes last
    rows = rows.sort_values(order).drop_duplicates("run_id")
    return (~again | again.index.isin(rows.index)).to_numpy()


def judged_columns(path: Path) -> pa.Table:
    """What ``judged`` needs of a file, which is read once, unless it is replaced."""
    state = path.lstat()
    return _judged_columns(path, state.st_ino, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=2**16)  # files, of some kB each
def _judged_columns(path: Path, *_: int) -> pa.Table:
    return tables.padded(tables.read(path), RUN_COLUMNS).select(JUDGED)


def statuses(
    results: str | Path | None = None, run_ids: Iterable[str] | None = None, layers: bool = False
) -> dict[str, str]:
    """Status by id, of those of some runs, or of all, that are done (ok or diverged; with their
    layers measured, if ``layers``) or failed. What does not count is named in a notice. To ask
    again costs a look at the folder."""
    rows = judged(consistently(results, partial(tables.read_each, read=judged_columns)))
    rows = rows if run_ids is None else rows[rows["run_id"].isin(list(run_ids))]
    sound = rows[rows["fault"].isna()].sort_values("status", key=lambda s: s.isin(DONE))
    _warn_of_faults(rows[~rows["run_id"].isin(sound["run_id"])], "to be trained again")
    if layers:
        sound = sound[(sound["measured_layers"] > 0) | (sound["status"] == tables.FAILED)]
    return dict(zip(sound["run_id"], sound["status"], strict=True))  # of two, the last
