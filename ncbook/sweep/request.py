"""The sweep notebook's parameters: read, checked and made into a request before any work starts.

papermill accepts a misspelt name, hands ``-p lrs '[1e-3]'`` over as a string, and knows no valid
values; so the notebook passes everything through ``check``.
"""

import ast
import difflib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from ncbook import data, store, text
from ncbook.sweep.cluster import SweepError, scheduler_workers
from ncbook.sweep.engine import (
    default_workers,
    estimate_seconds,
    load_data,
    missing,
    run_id,
    stored_without_listing,
)
from ncbook.sweep.grids import grid, paper_grid
from ncbook.train import RunConfig, check_samples, check_whole

PARAMETERS = (
    *("optimizer", "dataset", "model", "lrs", "momenta", "weight_decays", "epochs", "batch_size"),
    *("seeds", "coupled_shares", "train_size", "width", "depth", "precision", "schedule", "clip"),
    *("augment", "log_epochs", "results", "device", "workers", "scheduler"),
    "deterministic",
)
AXES = ("lrs", "momenta", "weight_decays", "coupled_shares")
WHOLE = ("epochs", "batch_size", "train_size", "depth")
INJECTED = "# Parameters"  # how papermill begins the cell that it adds


class ParameterError(ValueError):
    """A parameter that cannot be used; a notebook shows its one line and no traceback."""

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}"]


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


def check(namespace: Mapping[str, Any]) -> Request:
    """Read the parameters from a notebook's ``globals()``; an empty one takes the paper's value.

    Lists may be given as lists, as one number, or as text: ``0.001``, ``[0.001, 0.01]``,
    ``"0.001, 0.01"``, ``"1e-3"``. The data set is loaded and the results folder is created, so
    that nothing fails later for want of them.

    Raises:
        ParameterError: one line that names the value, and what is valid.
    """
    try:
        _check_names(namespace)
        request = read(namespace)
        preflight(request)
    except (ValueError, OSError, data.DataNotFoundError, SweepError) as error:
        raise ParameterError(str(error)) from None
    return request


def preflight(request: Request) -> None:
    """Load a request's data and make its results folder, so that nothing fails for want of them.

    Raises:
        ValueError, data.DataNotFoundError, store.ResultsFolderError: what is wrong.
    """
    first = request.configs[0]
    check_samples(first, load_data(first, "cpu" if request.scheduler else request.device))
    store.ensure_writable(request.results)


def _check_names(namespace: Mapping[str, Any]) -> None:
    for name in _injected_names(namespace.get("In", ())):
        if name not in PARAMETERS:
            close = difflib.get_close_matches(name, PARAMETERS, n=1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise ValueError(f"unknown parameter {name!r}{hint}; valid: {', '.join(PARAMETERS)}")


def _injected_names(cells: Sequence[str]) -> list[str]:
    """What papermill has set: the names in the last cell that it wrote among those executed."""
    injected = [source for source in cells if source.startswith(INJECTED)]
    body = ast.parse(injected[-1]).body if injected else []
    return [target.id for line in body if isinstance(line, ast.Assign) for target in line.targets]


def read(namespace: Mapping[str, Any]) -> Request:
    """The request that some parameters make, of which nothing is loaded or written yet.

    Raises:
        ValueError, SweepError: as of ``check``.
    """
    given = {name: namespace.get(name) for name in PARAMETERS}
    optimizer = _name("optimizer", given["optimizer"], "adamw")
    paper_grid(optimizer)
    axes = {axis: _numbers(axis, given[axis]) for axis in AXES}
    whole = {field: _whole(field, given[field]) for field in WHOLE}
    seeds = tuple(_whole("seeds", seed) for seed in _items(given["seeds"]))
    scheduler = _name("scheduler", given["scheduler"], None)
    device, workers = _place(given["device"], given["workers"], scheduler)
    shared = whole | {
        "dataset": _name("dataset", given["dataset"], "digits"),
        "model": _name("model", given["model"], "mlp"),
        "precision": _name("precision", given["precision"], None),
        "schedule": _name("schedule", given["schedule"], None),
        "width": _one("width", given["width"]),
        "clip": _one("clip", given["clip"]),
        "augment": _flag("augment", given["augment"]),
    }
    shared = {field: value for field, value in shared.items() if value is not None}
    configs = grid(optimizer, **axes, seeds=seeds, **shared)
    log_epochs = tuple(_whole("log_epochs", epoch) for epoch in _items(given["log_epochs"]))
    outside = [epoch for epoch in log_epochs if not 0 <= epoch <= configs[0].epochs]
    if outside:
        raise ValueError(f"log_epochs must lie in 0..{configs[0].epochs}, got {outside}")
    results = str(given["results"]) if given["results"] else None
    return Request(
        configs,
        results,
        log_epochs or None,
        device,
        workers,
        bool(_flag("deterministic", given["deterministic"])),
        scheduler,
    )


def _place(device: Any, workers: Any, scheduler: str | None) -> tuple[str, int]:
    """Device and number of workers, here or at a scheduler, which has its own."""
    if scheduler is None:
        device = _device(device, torch.cuda.device_count())
        return device, _workers(workers, device)
    if workers not in (None, ""):
        raise ValueError(f"workers must be empty where a scheduler has its own, got {workers!r}")
    offer = scheduler_workers(scheduler)
    return _device(device, min(offer.gpus, 1)), offer.count


def _workers(value: Any, device: str) -> int:
    workers = _whole("workers", value)
    if workers is None:
        return default_workers(device)
    check_whole("workers", workers, 1)
    return workers


def _items(value: Any) -> list[Any]:
    """A parameter that may be a list, one value, text with commas, or empty."""
    if value is None:
        return []
    if isinstance(value, str):
        return [item.strip() for item in value.strip(" []()").split(",") if item.strip()]
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _numbers(name: str, value: Any) -> tuple[float, ...]:
    return tuple(number(name, item) for item in _items(value))


def _one(name: str, value: Any) -> float | None:
    """One number, or None if the parameter is empty."""
    numbers = _numbers(name, value)
    if len(numbers) > 1:
        raise ValueError(f"{name} must be one number, got {value!r}")
    return numbers[0] if numbers else None


def _flag(name: str, value: Any) -> bool | None:
    if value in (None, ""):
        return None
    words = {"true": True, "false": False}
    flag = words.get(value.strip().lower()) if isinstance(value, str) else value
    if not isinstance(flag, bool):
        raise ValueError(f"{name} must be true or false, got {value!r}")
    return flag


def number(name: str, value: Any) -> int | float:
    """A float, also from text: ``"1e-3"`` or ``"1/8"``; an int where a float would round a whole
    number."""
    try:
        if isinstance(value, bool):
            raise TypeError
        rounded = float(Fraction(value) if isinstance(value, str) and "/" in value else value)
        large = abs(rounded) >= 2**sys.float_info.mant_dig and rounded.is_integer()
        return int(Fraction(value)) if large else rounded
    except (TypeError, ValueError, ArithmeticError):
        raise ValueError(f"{name} must be numbers, got {value!r}") from None


def _whole(name: str, value: Any) -> int | None:
    """An int, also from ``5.0`` or ``"5"``; None if the parameter is empty."""
    items = _items(value)
    if not items:
        return None
    found = number(name, items[0])
    if len(items) > 1 or not float(found).is_integer():
        raise ValueError(f"{name} must be a whole number, got {value!r}")
    return int(found)


def _name(field: str, value: Any, default: str | None) -> str | None:
    if value in (None, ""):
        return default
    if not isinstance(value, str):
        raise ValueError(f"{field} must be a name, got {value!r}")
    return value


def _device(value: Any, gpus: int) -> str:
    """``cpu``, ``cuda`` or ``cuda:N``; empty: a GPU if there is one."""
    valid = ["cpu", *(["cuda"] if gpus else []), *(f"cuda:{i}" for i in range(gpus))]
    device = _name("device", value, "cuda" if gpus else "cpu")
    if device not in valid:
        raise ValueError(f"unknown device {device!r}; valid here: {', '.join(valid)}")
    return device


def describe(request: Request) -> str:
    """Markdown: what a sweep will train, what the store has, and about how long it will take."""
    first, todo = request.configs[0], missing(request.configs, request.results)
    workers = request.workers
    axes = {
        "learning rates": "lr",
        "momenta": "momentum",
        "weight decays": "weight_decay",
        "seeds": "seed",
    }
    lines = [
        f"**{len(request.configs)} runs** of {first.optimizer} on {text.html(first.dataset)} "
        f"({first.model}), {first.epochs} epochs each in batches of {first.batch_size}, stored in "
        f"<code>{text.html(_shortest(store.results_dir(request.results)))}</code>.",
        "",
    ]
    for label, field in axes.items():
        values = dict.fromkeys(getattr(config, field) for config in request.configs)
        shown = (f"{v:g}" if isinstance(v, float) else str(v) for v in values)
        lines.append(f"- {label}: {', '.join(shown)}")
    if todo:
        seconds = estimate_seconds(todo, request.device, workers, request.scheduler)
        whose = f" of {text.html(request.scheduler)}" if request.scheduler else ""
        lines.append(
            f"- to train: {len(todo)}, about {duration(seconds)} on {request.device} with "
            f"{workers} worker{'s' if workers > 1 else ''}{whose}"
        )
    else:
        lines.append("- to train: none, all of them are in the store")
    if old := stored_without_listing(request.configs, request.results):
        lines.append(
            f"- {old} such runs are stored from before a run recorded its images: they stay, and "
            "are not taken for these"
        )
    return "\n".join(lines)


def _shortest(path: Path) -> str:
    return min(str(path.absolute()), os.path.relpath(path), key=len)


def duration(seconds: float) -> str:
    """In words: as exact as an estimate is."""
    if seconds < 90:
        return f"{max(5, round(seconds / 5) * 5)} seconds"
    if seconds < 5400:
        return f"{round(seconds / 60)} minutes"
    return f"{seconds / 3600:.1f} hours"


def load_runs(request: Request) -> pd.DataFrame:
    """The request's runs from the store, one row a run."""
    return _as_asked(store.load_runs, request)


def load_history(request: Request) -> pd.DataFrame:
    """The request's runs from the store, one row a run and logged epoch."""
    return _as_asked(store.load_history, request)


def _as_asked(load: Callable[..., pd.DataFrame], request: Request) -> pd.DataFrame:
    """Rows with the data set's name as it was asked for: a folder may have been trained on under
    another path."""
    rows = load(request.results, run_id=[run_id(config) for config in request.configs])
    return rows.assign(dataset=request.configs[0].dataset)
