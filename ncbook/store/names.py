"""Names in a store: ids of runs, the folder, the columns, the statuses."""

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from ncbook.parameters import FIELDS, plain
from ncbook.paths import expanded

RESULTS_VARIABLE = "NCBOOK_RESULTS"
DONE = ("ok", "diverged")  # the statuses of a run that need not be trained again
FAILED = "failed"  # the status of a run that was given up; its column ``reason`` says why
ID_DIGITS = 16  # hexadecimal: among 100,000 runs, two share an id with probability 3e-10

METRICS = ("train_loss", "test_loss", "nc0", "nc1", "nc2", "nc2n", "nc2a", "nc2w", "nc2wn", "nc2wa")
METRICS += ("nc2m", "nc3", "nc4", "nc1_quotient", "cdnv")
GAUGE = ("w_norm", "gauge_share", "nc2w_centred", "nc2m_centred", "nc3_centred")
METRICS += GAUGE
SINGULAR_VALUES = ("w_sv_min", "w_sv_mean", "m_sv_min", "m_sv_mean")
MADE_BY = ("ncbook_version", "git_commit", "torch_version", "python_version", "device")
MADE_BY += ("processor",)

TEXT, REAL, WHOLE = pa.string(), pa.float64(), pa.int64()
TYPES = {"name": TEXT, "number": REAL, "whole": WHOLE, "flag": pa.bool_()}
# What every frame of runs has, whatever was written: a store that was filled before a column came
# has nulls there.
RUN_COLUMNS = {
    "run_id": TEXT,
    **{field: TYPES[row.kind] for field, row in FIELDS.items()},
    "status": TEXT,
    **dict.fromkeys(("train_acc", "test_acc"), REAL),
    "reason": TEXT,
    "diverged_epoch": WHOLE,
    **dict.fromkeys((*METRICS, *SINGULAR_VALUES), REAL),
    **{f"{name}_init": REAL for name in METRICS if not name.endswith("_loss")},
    "wall_time_s": REAL,
    **dict.fromkeys((*MADE_BY, "created_at"), TEXT),
}
HISTORY_COLUMNS = {"run_id": TEXT, "epoch": WHOLE, **dict.fromkeys(GAUGE, REAL)}
# The columns of runs that load_history puts beside each epoch, and the order of rows everywhere.
SETTINGS = ("dataset", "model", "optimizer", "lr", "momentum", "weight_decay", "seed")


def run_id(config: Mapping[str, Any]) -> str:
    """Hash the whole configuration of a run: sha256 of its JSON with sorted keys, 16 digits.

    Equal numbers give equal ids (0 and 0.0, 1e-3 and 0.001), a bool is no number.

    Raises:
        ValueError: a value that is not a number, string, bool or None, or a list or mapping of
            these; or a number that is not finite.

    Example:
        >>> run_id({"lr": 1e-3, "seed": 0}) == run_id({"seed": 0.0, "lr": 0.001})
        True
    """
    text = json.dumps(_canonical(config, "config"), sort_keys=True, separators=(",", ":"))
    return digest(text)


def _canonical(value: Any, where: str) -> Any:
    value = plain(value)
    if isinstance(value, Mapping):
        if odd := [key for key in value if not isinstance(key, str)]:
            raise ValueError(f"{where}: the key {odd[0]!r} is not a string")
        return {key: _canonical(item, f"{where}[{key!r}]") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{where} must be finite, not {value}")
        return int(value) if value.is_integer() else value
    if value is None or isinstance(value, str | int):
        return value
    raise ValueError(f"{where}: {value!r} cannot be part of a run's id")


def digest(text: str) -> str:
    """Sixteen hexadecimal digits of sha256."""
    return hashlib.sha256(text.encode()).hexdigest()[:ID_DIGITS]


def results_dir(results: str | Path | None = None) -> Path:
    """The results folder: the argument, else ``NCBOOK_RESULTS``, else ``./results``."""
    name = "results" if results else RESULTS_VARIABLE
    return expanded(results or os.environ.get(RESULTS_VARIABLE) or "results", name)
