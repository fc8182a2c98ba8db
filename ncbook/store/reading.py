"""Frames of the runs that are stored and of their epochs, and which runs are stored."""

import os
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache, partial
from numbers import Real
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from ncbook import text
from ncbook.files import appear, flush, staged
from ncbook.paths import expanded
from ncbook.store import names, tables
from ncbook.store.names import DONE, RUN_COLUMNS, SETTINGS, TEXT, WHOLE, plain, results_dir
from ncbook.store.tables import FILE, consistently, padded, read_each, warn_of_damage

STATUSES = (*DONE, names.FAILED)
NOT_NEGATIVE = ("train_loss", "test_loss", "nc0", "nc1", "nc2", "nc3")
SHARES = ("train_acc", "test_acc", "nc4")
NAMED = 3  # runs of a file with the same fault that a warning names


def load_runs(results: str | Path | None = None, **filters: Any) -> pd.DataFrame:
    """All stored runs that pass the filters, one row a run.

    Args:
        results: the results folder (see ``results_dir``); one that does not exist has no runs.
        filters: ``column=value``, or ``column=[value, ...]`` for any of these; None is no filter.

    Returns:
        At least the columns of ``RUN_COLUMNS``, sorted by ``SETTINGS`` and ``run_id``. A run that
        was stored twice is there once. A row that cannot be true, such as a negative NC0, is left
        out, and a notice names it.

    Raises:
        ValueError: a filter that names no column, or whose value is not of the column's type.

    Example:
        >>> runs = load_runs("nowhere", optimizer="adamw", weight_decay=[0, 5e-4])
        >>> len(runs), runs.columns[0]
        (0, 'run_id')
    """
    return _frame(consistently(results, partial(choose_runs, filters=filters)))


def load_history(results: str | Path | None = None, **filters: Any) -> pd.DataFrame:
    """The epochs of all stored runs that pass the filters, one row a run and logged epoch.

    Args:
        filters: as in ``load_runs``, where they choose the runs; or by a column that only the
            history has, such as ``epoch=[0, 200]``, where they choose the rows.

    Returns:
        ``run_id``, ``SETTINGS``, ``epoch`` and what was logged, sorted by settings, run and epoch.

    Raises:
        ValueError: a filter that names no column, or whose value is not of the column's type.
    """
    return _frame(consistently(results, partial(choose_history, filters=filters)))


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


def export(
    path: str | Path, results: str | Path | None = None, *, history: bool = False, **filters: Any
) -> Path:
    """Write the runs that pass the filters to one file, which appears whole or not at all.

    A Parquet file holds every text as it is stored. In a CSV file a text that begins with one of
    ``= + - @ '``, a tab or a break has an apostrophe before it, so that no spreadsheet computes it:
    to get the text back, remove one leading apostrophe.

    Args:
        path: the file, ``.parquet`` or ``.csv``; an existing one is replaced.
        history: write the epochs of the runs, one row a run and logged epoch.
        filters: as in ``load_runs``, or with ``history`` as in ``load_history``.

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
    choose, what = (choose_history, "logged epoch") if history else (choose_runs, "run")
    try:
        with staged(path) as file:  # first, so that a place that refuses does so before the work
            table = consistently(results, partial(choose, filters=filters)).drop([FILE])
            if not len(table):
                asked = ", ".join(f"{n}={v!r}" for n, v in filters.items() if v is not None)
                has = f" has {asked}" if asked else ""
                raise ValueError(f"no {what} in {results_dir(results)}{has}")
            WRITERS[path.suffix.lower()](table, file)
            flush(file)
            appear(file, path)
    except OSError as error:
        raise OSError(f"{path} cannot be written ({error.strerror or error})") from error
    return path


def choose_runs(
    files: list[Path], filters: Mapping[str, Any], of_history: bool = False
) -> pa.Table:
    """The runs that pass, each once, sorted, with FILE. With ``of_history``, a filter that names no
    column is one of the history."""
    if old := [path for path in map(tables.old_history, files) if path.exists()]:
        said = f"{old[0].parent}: files of an older layout; the next sweep will convert them"
        tables.LOG.warning("%s", text.line(said))
    table = padded(read_each(files, tables.read_runs), RUN_COLUMNS)
    rows = judged(table)
    _warn_of_faults(rows, "left out")
    passing = best_rows(rows, files) & rows["fault"].isna().to_numpy()
    for name, value in filters.items():
        if name in table.column_names:
            passing &= _holds(table, name, value)
        elif not of_history:
            raise _unknown_column(name, table.column_names)
    table = table.filter(pa.array(passing))
    return table.sort_by([(name, "ascending") for name in (*SETTINGS, "run_id")])


def choose_history(files: list[Path], filters: Mapping[str, Any]) -> pa.Table:
    """The epochs that pass of the runs that pass, with the settings of the runs and FILE."""
    runs = choose_runs(files, filters, of_history=True)
    chosen = set(runs[FILE].unique().to_pylist())
    # With no run chosen, all files: the filters are checked against their columns.
    part = [path for path in files if str(path) in chosen] or files
    table = padded(read_each(part, tables.read_history), names.HISTORY_COLUMNS)
    table = epochs_of(runs, table)
    for name, value in filters.items():
        if name in table.column_names and name not in runs.column_names:
            table = table.filter(pa.array(_holds(table, name, value)))
        elif name not in runs.column_names:
            raise _unknown_column(name, runs.column_names + table.column_names)
    owner = pc.index_in(table["run_id"], runs["run_id"].combine_chunks())
    for place, name in enumerate(n for n in SETTINGS if n not in table.column_names):
        table = table.add_column(1 + place, name, runs[name].take(owner))
    return table.take(np.lexsort((table["epoch"].to_numpy(), owner.to_numpy())))


def epochs_of(runs: pa.Table, history: pa.Table) -> pa.Table:
    """The epochs that are from the same file as the row of their run: a run that was stored twice
    has two histories."""
    owner = pc.index_in(history["run_id"], runs["run_id"].combine_chunks())
    return history.filter(pc.equal(runs[FILE].take(owner), history[FILE]))


def best_rows(rows: pd.DataFrame, files: list[Path]) -> np.ndarray:
    """Which of some judged rows count. Of a run that was stored twice, say by two sweeps, one does:
    a sound row before another, of a run that is done before one that is not, with epochs before
    without."""
    again = rows["run_id"].duplicated(keep=False)
    best, rows = ~again.to_numpy(), rows[again]
    if len(rows):
        part = [path for path in files if str(path) in set(rows[FILE])]
        logged = read_each(part, tables.read_history, lambda path: None).group_by(["run_id", FILE])
        logged = logged.aggregate([]).to_pandas().assign(logged=1)
        with_history = rows.merge(logged, "left", ["run_id", FILE])["logged"].eq(1).to_numpy()
        priority = (2 * rows["status"].isin(DONE) + with_history).where(rows["fault"].isna(), -1)
        rows = rows.assign(priority=-priority).sort_values(["priority", FILE])
        best[rows.index[~rows["run_id"].duplicated()]] = True
    return best


def _unknown_column(name: str, valid: Iterable[str]) -> ValueError:
    listed = ", ".join(n for n in dict.fromkeys(valid) if n != FILE)
    return ValueError(f"no column {name!r} in this store to filter by; its columns: {listed}")


def _holds(table: pa.Table, name: str, value: Any) -> np.ndarray:
    """Which rows hold the value, or one of the values, of a filter; or a ``ValueError``."""
    column, value = table[name], plain(value)
    if value is None:
        return np.ones(len(column), bool)
    many = isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)
    wanted = [plain(item) for item in value] if many else [value]
    if column.type == pa.null():
        return np.zeros(len(column), bool)
    kinds = {TEXT: (str, "strings"), pa.bool_(): (bool, "true or false")}
    kind, words = kinds.get(column.type, (Real, "numbers"))
    for item in wanted:
        if not isinstance(item, kind) or (isinstance(item, bool) and kind is not bool):
            raise ValueError(f"column {name!r} holds {words}, and cannot be {item!r}")
    if column.type == WHOLE:
        wanted = [int(item) for item in wanted if abs(item) < 2**63 and item == int(item)]
    return pc.is_in(column, pa.array(wanted, column.type)).to_numpy()


def judged(table: pa.Table) -> pd.DataFrame:
    """``run_id``, FILE, ``status`` and ``fault`` of each row: why it cannot be true, or None."""
    rows = padded(table, RUN_COLUMNS)
    rows = rows.select(["run_id", FILE, "status", *NOT_NEGATIVE, *SHARES]).to_pandas()
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
    return rows[["run_id", FILE, "status"]].assign(fault=fault)


def _warn_of_faults(rows: pd.DataFrame, consequence: str) -> None:
    """``FILE: damaged, 1 run is left out, with nc0 below 0: c415f57250d81bfb``."""
    for (path, fault), ids in rows[rows["fault"].notna()].groupby([FILE, "fault"])["run_id"]:
        some = ", ".join(sorted(ids)[:NAMED]) + (", …" if len(ids) > NAMED else "")
        runs = "1 run is" if len(ids) == 1 else f"{len(ids)} runs are"
        warn_of_damage(path, f"{runs} {consequence}, with {fault}: {some}")


class Stored:
    """The runs of one store that need not be trained again.

    A file is read once, unless it is replaced: to ask again costs a look at the folder.
    """

    def __init__(self, results: str | Path | None = None) -> None:
        self.results = results_dir(results)
        self._marks: dict[Path, tuple] = {}  # what tells a file from another that took its name
        self._damaged: list[Path] = []
        self._rows = judged(read_each([], tables.read_runs))

    def among(
        self, run_ids: Collection[str] | None = None, *, retry_failed: bool = False
    ) -> dict[str, str]:
        """Status by id, of those of some runs, or of all, that are done (ok or diverged) or failed;
        with ``retry_failed``, only of those done. A row that cannot be true does not count."""
        consistently(self.results, self._look)
        rows, found = self._rows[self._rows["fault"].isna()], {}
        if run_ids is not None:
            wanted = set(run_ids)
            rows = rows.loc[[i in wanted for i in rows["run_id"].tolist()]]
        for status in (names.FAILED, *DONE)[retry_failed:]:
            found |= dict.fromkeys(rows["run_id"][rows["status"] == status].tolist(), status)
        return found

    def warn(self, run_ids: Collection[str] | None = None) -> None:
        """Name what was read and does not count: damaged files, and rows that cannot be true, of
        all runs or of some."""
        sound = self.among()
        rows = self._rows[self._rows["fault"].notna()]
        for path in self._damaged:
            warn_of_damage(path)
        asked = set(rows["run_id"] if run_ids is None else run_ids) - sound.keys()
        _warn_of_faults(rows.loc[[i in asked for i in rows["run_id"]]], "to be trained again")

    def _look(self, files: list[Path]) -> None:
        """Read the files that are new, and forget those that are gone."""
        try:
            states = {path: os.lstat(path) for path in files}
        except FileNotFoundError:
            raise tables.Vanished from None
        marks = {path: (s.st_ino, s.st_mtime_ns, s.st_size) for path, s in states.items()}
        if marks == self._marks:
            return
        new = [path for path, mark in marks.items() if self._marks.get(path) != mark]
        damaged: list[Path] = []
        rows = judged(read_each(new, tables.read_runs, damaged.append))
        same = {str(path) for path in marks.keys() - set(new)}
        kept = self._rows.loc[[name in same for name in self._rows[FILE].tolist()]]
        self._damaged = [path for path in self._damaged if path in marks and path not in new]
        self._damaged += damaged
        self._rows, self._marks = pd.concat([kept, rows]), marks


_kept = lru_cache(maxsize=4)(Stored)


def stored_in(results: str | Path | None = None) -> Stored:
    """The ``Stored`` of a store, kept for as long as this process lives."""
    return _kept(results_dir(results).absolute())


def stored_ids(results: str | Path | None = None, *, retry_failed: bool = False) -> set[str]:
    """The ids of the runs that need not be trained again; see ``Stored.among``. What does not count
    is named in a notice."""
    stored = Stored(results)
    ids = set(stored.among(retry_failed=retry_failed))
    stored.warn()
    return ids
