"""``ncbook status``: what is stored, and what is being trained now."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from ncbook import store
from ncbook.cli import blocks, filters, show
from ncbook.cli.blocks import NAMED
from ncbook.cli.options import Options
from ncbook.sweep import leases

STATES = {"ok": "done", "diverged": "diverged", store.FAILED: "failed"}
COUNTED = (*STATES.values(), "running")
LEFT = "left"
UNKNOWN = "?"  # block of a run whose owner does not say what it is


def status(options: Options, as_json: bool) -> None:
    """Print the state of each block: one data set, model and optimizer.

    Raises:
        ValueError, OSError: a name or number that cannot be, or a store that cannot be read.
    """
    results = store.results_dir(options["results"]).absolute()
    rows = store.load_runs(results)
    training = _training(results, rows)
    other = 0
    if options["optimizer"]:
        counts, other = _of_grid(options, rows, training)
    else:
        counts = _of_store(options, rows, training)
    if as_json:
        answer = [dict(zip(NAMED, block, strict=True)) | count for block, count in counts.items()]
        show.as_json({"results": str(results), "blocks": answer})
        return
    if counts:
        columns = list(next(iter(counts.values())))
        shown = [(_label(block), *count.values()) for block, count in counts.items()]
        total = [sum(count[name] for count in counts.values()) for name in columns]
        show.table(("block", *columns), shown, ("all", *total))
    else:
        show.line(f"There are no such runs in {results}.")
    if other:
        show.line(f"{other} other runs are stored: ncbook status shows all.")


def _training(results, rows: pd.DataFrame) -> dict[str, Mapping[str, Any]]:
    """Config by id of what trains now; a run is stored a moment before its lease is given back."""
    done = set(rows["run_id"][rows["status"].isin(store.DONE)])
    return {i: config for i, config in leases.training(results).items() if i not in done}


def _of_grid(
    options: Options, rows: pd.DataFrame, training: Mapping[str, Mapping]
) -> tuple[dict[tuple, dict[str, int]], int]:
    """Of the runs that a sweep with these options would want; and how many others are stored."""
    asked = blocks.read(blocks.grid_options(options)).blocks
    wanted = {i: (b.dataset, b.model, b.optimizer) for b in asked for i in b.runs}
    stored = dict(zip(rows["run_id"], rows["status"], strict=True))
    counts = {block: Counter() for block in wanted.values()}
    for i, block in wanted.items():
        counts[block][STATES[stored[i]] if i in stored else LEFT] += 1
        counts[block]["running"] += i in training
    columns = (*COUNTED, LEFT)
    return _tidy(counts, columns), len(stored.keys() - wanted.keys())


def _of_store(
    options: Options, rows: pd.DataFrame, training: Mapping[str, Mapping]
) -> dict[tuple, dict[str, int]]:
    """Of all runs that pass the options."""
    chosen = filters.chosen(options)
    now = pd.DataFrame(list(training.values()), columns=None if training else [*NAMED])
    ended = zip(_blocks(_passing(rows, chosen)), _passing(rows, chosen)["status"], strict=True)
    counts: dict[tuple, Counter] = {}
    for block, state in ended:
        counts.setdefault(block, Counter())[STATES[state]] += 1
    for block in _blocks(_passing(now, chosen)):
        counts.setdefault(block, Counter())["running"] += 1
    return _tidy(dict(sorted(counts.items())), COUNTED)


def _passing(rows: pd.DataFrame, chosen: Mapping[str, list]) -> pd.DataFrame:
    for column, values in chosen.items():
        known = rows[column] if column in rows else pd.Series(index=rows.index, dtype=object)
        rows = rows[known.isin(values)]
    return rows


def _blocks(rows: pd.DataFrame) -> Iterable[tuple]:
    named = rows.reindex(columns=NAMED).astype(object).fillna(UNKNOWN).map(str)
    return list(named.itertuples(index=False, name=None))


def _tidy(counts: Mapping[tuple, Counter], columns: Iterable[str]) -> dict[tuple, dict[str, int]]:
    return {block: {name: count[name] for name in columns} for block, count in counts.items()}


def _label(block: tuple[str, str, str]) -> str:
    dataset, model, optimizer = block
    return f"{blocks.short(dataset)} {model} {optimizer}"
