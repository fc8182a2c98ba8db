"""``ncbook status`` and ``ncbook export``: what a store has. Only what needs torch, which takes
seconds to import, is imported later.
"""

import os
from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from ncbook import store, text
from ncbook.cli import show
from ncbook.cli.options import NAMED, OF_RUNS, Options, checked, listed
from ncbook.parameters import BY_NAME, NAME, Row
from ncbook.paths import expanded
from ncbook.store import leases

STATES = {"ok": "done", "diverged": "diverged", store.FAILED: "failed"}
RUNNING, LEFT = "running", "left"
BLOCK = (*NAMED, "epochs")
ENDINGS = (".parquet", ".csv")
STATUS = Row("status", NAME, None, "status", valid=(*store.DONE, store.FAILED))


def filters(options: Options, status: str | None = None) -> dict[str, list[Any]]:
    """The values asked for, by column of the store; ``ValueError`` for what cannot be one."""
    chosen = {name: checked(name, options[name]) for name in OF_RUNS if options.get(name)}
    found = {BY_NAME[name].field: list(values) for name, values in chosen.items()}
    if any(":" in name for name in found.get("dataset", ())):
        from ncbook import data

        found["dataset"] = [data.plain_name(name) for name in found["dataset"]]
    for name in listed(status):
        STATUS.check_known(name)
    return found | ({"status": listed(status)} if status else {})


def status(options: Options, as_json: bool) -> None:
    """Print the state of each block: one data set, model, optimizer and number of epochs."""
    results = store.results_dir(options["results"]).absolute()
    rows = store.load_runs(results)
    # A run is stored just before its lease is released.
    done = set(rows["run_id"][rows["status"].isin(store.DONE)])
    running = {i: c for i, c in leases.running(results).items() if i not in done}
    columns, other = [*STATES.values(), RUNNING], 0
    if options["optimizer"]:
        found = _of_grid(options, rows, running)
        other = len(rows) - found["state"].isin(STATES.values()).sum()
        columns.append(LEFT)
    else:
        found = _of_store(options, rows, running)
    counts: dict[tuple, dict[str, Any]] = {}
    for *names, state in found.itertuples(index=False):
        new = dict(zip(BLOCK, names, strict=True)) | dict.fromkeys(columns, 0)
        counts.setdefault(tuple(names), new)[state] += 1
    if counts or as_json:
        answer = {"results": str(results), "blocks": list(counts.values())}
        show.blocks(answer, columns, as_json)
    else:
        what = "are no such runs in" if results.is_dir() else "is no folder"
        show.line(f"There {what} {results}.")
    if other and not as_json:
        show.line(f"{other} other runs are stored: ncbook status shows all.")


def _of_grid(options: Options, rows: pd.DataFrame, running: Collection[str]) -> pd.DataFrame:
    """Block and state of each run that a sweep with these options would want; of one that is
    running both that and what is stored of it."""
    from ncbook.cli import blocks

    stored = dict(zip(rows["run_id"], rows["status"].map(STATES), strict=True))
    grid = blocks.read({name: options[name] for name in OF_RUNS}).blocks
    wanted = {i: asdict(config) for block in grid for i, config in block.runs.items()}
    found = [config | {"state": stored.get(i, LEFT)} for i, config in wanted.items()]
    found += [wanted[i] | {"state": RUNNING} for i in running if i in wanted]
    return pd.DataFrame(found)[[*BLOCK, "state"]]


def _of_store(options: Options, rows: pd.DataFrame, running: Mapping[str, Mapping]) -> pd.DataFrame:
    """The same of the chosen runs that are stored or running, sorted."""
    now = pd.DataFrame([config | {"state": RUNNING} for config in running.values()])
    found = pd.concat([rows.assign(state=rows["status"].map(STATES)).astype(object), now])
    for column, values in filters(options).items():
        found = found[found[column].isin(values)]
    return found[[*BLOCK, "state"]].fillna("?").sort_values([*BLOCK])


def export(out: str, options: Options, status: str | None, force: bool) -> None:
    """Write the chosen runs, of which there must be some, to a Parquet and a CSV file, and say how
    many they are; ``force`` replaces files."""
    paths = _targets(out)
    existing = [path for path in paths if os.path.lexists(path)]
    if existing and not force:
        raise ValueError(f"{existing[0]} is there already: --force replaces it")
    for path in paths:
        count = store.export(path, options["results"], **filters(options, status))
    show.line(f"{text.many(count, 'run')} in {paths[0]} and {paths[1].name}")


def _targets(out: str) -> list[Path]:
    """``runs`` in a folder, which exists or ends with a slash; or the path, with either ending."""
    path = expanded(out, "OUT")
    if path.is_dir() or out.endswith(os.sep):
        path = path / "runs"
    elif path.suffix.lower() in ENDINGS:
        path = path.with_suffix("")
    return [path.with_name(path.name + ending) for ending in ENDINGS]
