"""Options that choose among runs."""

from collections.abc import Callable, Collection
from typing import Any

from ncbook import data, models, optim, store
from ncbook.cli.options import GRID, TRAINING, Options, listed
from ncbook.sweep import GRIDS
from ncbook.sweep.request import number
from ncbook.train import PRECISIONS, SCHEDULES

COLUMNS = {name: option.column for name, option in (GRID | TRAINING).items()}


def chosen(options: Options, status: str | None = None) -> dict[str, list[Any]]:
    """The values asked for, by column of the store.

    Raises:
        ValueError: a name that nothing has, or text that is no number.
    """
    given = {name: value for name, value in options.items() if name in COLUMNS and value}
    found = {COLUMNS[name]: _values(name, value) for name, value in given.items()}
    if status:
        found["status"] = _values("status", status)
    return found


def _values(name: str, value: Any) -> list[Any]:
    if value is True:
        return [True]
    items = list(GRIDS) if (name, value) == ("optimizer", "all") else listed(value)
    return [_READ.get(name, number)(name, item) for item in items]


def _one_of(valid: Collection[str]) -> Callable[[str, str], str]:
    def read(name: str, text: str) -> str:
        if text not in valid:
            raise ValueError(f"unknown {name} {text!r}; valid: {', '.join(valid)}")
        return text

    return read


def _dataset(_: str, text: str) -> str:
    if ":" not in text:  # a folder may be gone, and its runs are still there
        data.validate_name(text)
    return data.plain_name(text)


_READ: dict[str, Callable[[str, str], Any]] = {
    "dataset": _dataset,
    "model": _one_of(models.MODELS),
    "optimizer": _one_of(optim.OPTIMIZERS),
    "precision": _one_of(PRECISIONS),
    "schedule": _one_of(SCHEDULES),
    "status": _one_of((*store.DONE, store.FAILED)),
}
