"""``ncbook status`` and ``ncbook export``: what a store has."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from ncbook import data, store
from ncbook.cli import blocks, show
from ncbook.cli.options import NAMED, OF_RUNS, Options, listed
from ncbook.parameters import BY_NAME, NAME, Row, items
from ncbook.paths import expanded
from ncbook.store import leases

STATES = {"ok": "done", "diverged": "diverged", store.FAILED: "failed"}
RUNNING, LEFT = "running", "left"
UNKNOWN = "?"  # block of a run whose owner does not say what it is
ENDINGS = (".parquet", ".csv")
STATUS = Row("status", NAME, None, "status", valid=(*store.DONE, store.FAILED))


def filters(options: Options, status: str | None = None) -> dict[str, list[Any]]:
    """The values asked for, by column of the store; ``ValueError`` for what cannot be one."""
    rows = {BY_NAME[name]: options.get(name) for name in OF_RUNS} | {STATUS: status}
    return {row.field: _values(row, value) for row, value in rows.items() if value}


def _values(row: Row, value: Any) -> list[Any]:
    if row.kind != NAME:
        return [row.read_one(item) for item in items(value)]
    names = listed(value)
    names = blocks.every_optimizer(names) if row.name == "optimizer" else names
    for name in names:
        row.check_known(name)
    return [data.plain_name(name) for name in names]


def status(options: Options, as_json: bool) -> None:
    """Print the state of each block: one data set, model and optimizer."""
    results = store.results_dir(options["results"]).absolute()
    rows = store.load_runs(results)
    stored = dict(zip(rows["run_id"], rows["status"].map(STATES), strict=True))
    # A run is stored just before its lease is released.
    done = set(rows["run_id"][rows["status"].isin(store.DONE)])
    running = {i: c for i, c in leases.training(results).items() if i not in done}
    columns, other = [*STATES.values(), RUNNING], 0
    if options["optimizer"]:  # what a sweep with these options would want
        grid = blocks.read({name: options[name] for name in OF_RUNS}).blocks
        wanted = {i: asdict(config) for block in grid for i, config in block.runs.items()}
        found = [config | {"state": stored.get(i, LEFT)} for i, config in wanted.items()]
        found += [wanted[i] | {"state": RUNNING} for i in running if i in wanted]
        found, other = pd.DataFrame(found), len(stored.keys() - wanted.keys())
        columns.append(LEFT)
    else:
        now = pd.DataFrame([config | {"state": RUNNING} for config in running.values()])
        found = pd.concat([rows.assign(state=rows["status"].map(STATES)).astype(object), now])
        for column, values in filters(options).items():
            found = found[found[column].isin(values)]
        found = found[[*NAMED, "state"]].fillna(UNKNOWN).astype(str).sort_values([*NAMED])
    counts: dict[tuple, dict[str, Any]] = {}
    for *block, state in found[[*NAMED, "state"]].itertuples(index=False):
        new = dict(zip(NAMED, block, strict=True)) | dict.fromkeys(columns, 0)
        counts.setdefault(tuple(block), new)[state] += 1
    if counts or as_json:
        answer = {"results": str(results), "blocks": list(counts.values())}
        show.blocks(answer, columns, as_json)
    else:
        show.line(f"There are no such runs in {results}.")
    if other and not as_json:
        show.line(f"{other} other runs are stored: ncbook status shows all.")


def export(out: str, options: Options, status: str | None, force: bool) -> None:
    """Write the chosen runs, of which there must be some, to a Parquet and a CSV file, and say how
    many they are; ``force`` replaces files."""
    paths = _targets(out)
    existing = [path for path in paths if os.path.lexists(path)]
    folders = [path for path in existing if path.is_dir()]
    if folders:
        raise ValueError(f"{folders[0]} is a folder: choose another name")
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
