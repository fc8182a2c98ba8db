"""``ncbook status`` and ``ncbook export``: what a store has."""

import os
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from ncbook import data, store, sweep
from ncbook.cli import blocks, show
from ncbook.cli.options import NAMED, OF_RUNS, Options, listed
from ncbook.parameters import BY_NAME, NAME, Parameter
from ncbook.paths import expanded
from ncbook.sweep import leases

STATES = {"ok": "done", "diverged": "diverged", store.FAILED: "failed", "running": "running"}
LEFT = "left"
UNKNOWN = "?"  # block of a run whose owner does not say what it is
ENDINGS = (".parquet", ".csv")
STATUS = Parameter("status", NAME, None, "status", valid=(*store.DONE, store.FAILED))


def filters(options: Options, status: str | None = None) -> dict[str, list[Any]]:
    """The values asked for, by column of the store.

    Raises:
        ValueError: an unknown name, or text that is no number.
    """
    rows = {BY_NAME[name]: options.get(name) for name in OF_RUNS} | {STATUS: status}
    return {row.field: _values(row, value) for row, value in rows.items() if value}


def _values(row: Parameter, value: Any) -> list[Any]:
    if value is True:
        return [True]
    if (row.name, value) == ("optimizer", blocks.ALL):
        return list(sweep.GRIDS)
    found = [row.read_one(item) for item in listed(value)]
    if row.kind != NAME:
        return found
    for name in found:
        row.check_known(name)
    return [data.plain_name(name) for name in found]


# ------------------------------------------------------------ status


def status(options: Options, as_json: bool) -> None:
    """Print the state of each block: one data set, model and optimizer.

    Raises:
        ValueError, OSError: an invalid name or number, or a store that cannot be read.
    """
    results = store.results_dir(options["results"]).absolute()
    rows, other = store.load_runs(results), 0
    training = _training(results, rows)
    if options["optimizer"]:
        counts, other = _of_grid(options, rows, training)
    else:
        counts = _of_store(options, rows, training)
    columns = [*STATES.values(), *[LEFT] * bool(options["optimizer"])]
    counts = {block: {name: count[name] for name in columns} for block, count in counts.items()}
    if as_json:
        answer = [dict(zip(NAMED, block, strict=True)) | count for block, count in counts.items()]
        show.as_json({"results": str(results), "blocks": answer})
        return
    if counts:
        shown = [(_label(*block), *count.values()) for block, count in counts.items()]
        total = [sum(count[name] for count in counts.values()) for name in columns]
        show.table(("block", *columns), shown, ("all", *total))
    else:
        show.line(f"There are no such runs in {results}.")
    if other:
        show.line(f"{other} other runs are stored: ncbook status shows all.")


def _training(results: Path, rows: pd.DataFrame) -> dict[str, Mapping[str, Any]]:
    """Config by id of what trains now; a run is stored just before its lease is released."""
    done = set(rows["run_id"][rows["status"].isin(store.DONE)])
    return {i: config for i, config in leases.training(results).items() if i not in done}


def _of_grid(
    options: Options, rows: pd.DataFrame, training: Mapping[str, Mapping]
) -> tuple[dict[tuple, Counter], int]:
    """The runs that a sweep with these options would want; and how many others are stored."""
    stored = dict(zip(rows["run_id"], rows["status"], strict=True))
    wanted = {
        i: (block.dataset, block.model, block.optimizer)
        for block in blocks.read_grid(options)
        for i in block.runs
    }
    counts: dict[tuple, Counter] = defaultdict(Counter)
    for i, block in wanted.items():
        counts[block][STATES[stored[i]] if i in stored else LEFT] += 1
        counts[block]["running"] += i in training
    return counts, len(stored.keys() - wanted.keys())


def _of_store(
    options: Options, rows: pd.DataFrame, training: Mapping[str, Mapping]
) -> dict[tuple, Counter]:
    """All runs that pass the options."""
    now = pd.DataFrame([config | {"status": "running"} for config in training.values()])
    counts: dict[tuple, Counter] = defaultdict(Counter)
    for found in (rows, now):
        for column, values in filters(options).items():
            found = found[found.reindex(columns=[column])[column].isin(values)]
        named = found.reindex(columns=[*NAMED, "status"]).astype(object).fillna(UNKNOWN)
        for *block, state in named.itertuples(index=False):
            counts[tuple(map(str, block))][STATES[state]] += 1
    return dict(sorted(counts.items()))


def _label(dataset: str, model: str, optimizer: str) -> str:
    return f"{blocks.short(dataset)} {model} {optimizer}"


# ------------------------------------------------------------ export


def export(out: str, options: Options, status: str | None, force: bool) -> None:
    """Write the chosen runs to a Parquet and a CSV file, and say how many they are.

    Raises:
        ValueError: nothing passes, or a file exists already and ``force`` is not given.
        OSError: a file cannot be written.
    """
    paths = _targets(out)
    existing = [path for path in paths if path.exists()]
    if existing and not force:
        raise ValueError(f"{existing[0]} is there already: --force replaces it")
    results, chosen = options["results"], filters(options, status)
    count = len(store.load_runs(results, **chosen))
    if not count:
        raise ValueError(f"no run in {store.results_dir(results)} passes these options")
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    for path in paths:
        store.export(path, results, **chosen)
    show.line(f"{count} runs in {paths[0]} and {paths[1].name}")


def _targets(out: str) -> list[Path]:
    """``runs`` in a folder, which exists or ends with a slash; or the path, with either ending."""
    path = expanded(out, "OUT")
    if path.is_dir() or out.endswith(os.sep):
        path = path / "runs"
    elif path.suffix.lower() in ENDINGS:
        path = path.with_suffix("")
    return [path.with_name(path.name + ending) for ending in ENDINGS]
