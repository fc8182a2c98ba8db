"""The sweep notebook's parameters: read, checked and made into a request before any work starts.

papermill accepts a misspelt name, hands ``-p lrs '[1e-3]'`` over as a string, and knows no valid
values; so the notebook passes everything through ``check``.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch

from ncbook import data, optim, parameters, store, text
from ncbook.parameters import AXES, BY_NAME, FIELDS, ParameterError, device_named
from ncbook.sweep.cluster import SweepError, scheduler_workers
from ncbook.sweep.engine import check_data, default_workers, estimate_seconds, missing, run_id
from ncbook.sweep.grids import grid
from ncbook.train import RunConfig
from ncbook.train.measure import logged_epochs

PARAMETERS = tuple(BY_NAME)
OPTIMIZER = "adamw"  # if none is asked for
# The parameters that users set, and that decide a run's result, by field.
OF_RUN = {field: row for field, row in FIELDS.items() if row.group}
SAID = ("optimizer", "dataset", "model", "epochs", "batch_size")  # in a description's first lines


@dataclass(frozen=True)
class Request:
    """A checked sweep: its runs, and how to train and measure them."""

    configs: list[RunConfig]
    results: str | None
    log_epochs: tuple[int, ...] | None
    device: str
    workers: int = 1
    deterministic: bool = False
    scheduler: str | None = None
    measure_layers: bool = False


def check(namespace: Mapping[str, Any]) -> Request:
    """Read the parameters from a notebook's ``globals()``; an empty one takes the paper's value,
    and a list may be text or one number. The data set is loaded and the results folder is created,
    so that a missing one is found before any work.

    Raises:
        ParameterError: one line that names the value, and what is valid.
    """
    try:
        parameters.check_names(namespace.get("In", ()))
        request = read(namespace)
        where = request.device, request.workers, request.scheduler
        check_data(request.configs, *where, request.measure_layers)
        store.ensure_writable(request.results)
    except (ValueError, OSError, data.DataNotFoundError, SweepError) as error:
        raise ParameterError(str(error)) from None
    return request


def read(namespace: Mapping[str, Any]) -> Request:
    """The request that some parameters make; nothing is loaded or written yet.

    Raises:
        ValueError, SweepError: as of ``check``.
    """
    given = {name: row.read(namespace.get(name)) for name, row in BY_NAME.items()}
    of_run = {row.name if row.many else field: given[row.name] for field, row in OF_RUN.items()}
    configs = grid(**{"optimizer": OPTIMIZER} | {k: v for k, v in of_run.items() if v is not None})
    logged_epochs(given["log_epochs"], configs[0].epochs)  # or an error
    device, workers = _place(given["device"], given["workers"], given["scheduler"])
    measured = given["log_epochs"] or None, device, workers, bool(given["deterministic"])
    place = given["scheduler"], bool(given["measure_layers"])
    return Request(configs, given["results"], *measured, *place)


def _place(device: str | None, workers: int | None, scheduler: str | None) -> tuple[str, int]:
    """Device (``cpu``, ``cuda`` or ``cuda:N``; a GPU if none is asked for and there is one) and
    number of workers, here or of a scheduler."""
    if scheduler is None:
        device = device_named(device, torch.cuda.device_count())
        return device, workers or default_workers(device)
    if workers is not None:
        raise ValueError(f"workers must be empty where a scheduler has its own, got {workers}")
    count, gpus = scheduler_workers(scheduler)
    return device_named(device, min(gpus, 1)), count


def describe(request: Request) -> str:
    """Markdown: what a sweep will train, what the store has, and about how long it will take."""
    configs, first = request.configs, request.configs[0]
    todo = missing(configs, request.results, measure_layers=request.measure_layers)
    folder = store.results_dir(request.results)
    folder = min(str(folder.absolute()), os.path.relpath(folder), key=len)
    lines = [
        f"**{text.many(len(configs), 'run')}** of {first.optimizer} on {text.html(first.dataset)} "
        f"({first.model}), {first.epochs} epochs each in batches of {first.batch_size}, stored in "
        f"<code>{text.html(folder)}</code>.",
        "",
        *_values(configs),
    ]
    if request.measure_layers:
        again = len(todo) - len(missing(configs, request.results))
        lines.append(
            "- every layer is measured, too: `ncbook.store.load_layers` reads it"
            + (f"; stored without it, to train again: {again}" if again else "")
        )
    if not todo:
        return "\n".join([*lines, "- to train: none, all of them are in the store"])
    workers = text.many(request.workers, "worker")
    whose = f" of {text.html(request.scheduler)}" if request.scheduler else ""
    seconds = estimate_seconds(todo, request.device, request.workers, request.scheduler)
    about = f"about {duration(seconds)} on {request.device} with {workers}{whose}"
    return "\n".join([*lines, f"- to train: {len(todo)}, {about}"])


def _values(configs: Sequence[RunConfig]) -> Iterator[str]:
    """A line for each axis, and for each other parameter that is not as in most sweeps."""
    said = SAID if optim.is_mixed(configs[0].optimizer) else (*SAID, "coupled_share")
    for field, row in OF_RUN.items():
        if field in said:
            continue
        if row in AXES or getattr(configs[0], field) not in (row.default, row.before):
            values = dict.fromkeys(getattr(config, field) for config in configs)
            shown = (f"{v:g}" if isinstance(v, float) else str(v) for v in values)
            label = row.help.partition(" (")[0]
            yield f"- {label}: {', '.join(shown)}"


def duration(seconds: float) -> str:
    """In words: as exact as an estimate is."""
    if seconds < 90:
        return f"{max(5, round(seconds / 5) * 5)} seconds"
    if seconds < 5400:
        return f"{round(seconds / 60)} minutes"
    return f"{seconds / 3600:.1f} hours"


def load_runs(request: Request, load: Callable = store.load_runs) -> pd.DataFrame:
    """The request's runs from the store, one row a run, with the data set's name as it was asked
    for: a folder may have been trained on under another path."""
    rows = load(request.results, run_id=[run_id(config) for config in request.configs])
    return rows.assign(dataset=request.configs[0].dataset)


def load_history(request: Request) -> pd.DataFrame:
    """The same, one row a run and logged epoch."""
    return load_runs(request, store.load_history)
