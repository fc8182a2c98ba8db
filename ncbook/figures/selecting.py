"""Which runs count: those of a setting, on a grid, over even seeds, converged."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ncbook import models
from ncbook.figures.style import MAIN, METRICS, present
from ncbook.metrics import rule
from ncbook.train import RunConfig

if TYPE_CHECKING:  # the sweep brings Dask along, which takes a second to import
    from ncbook.sweep import Grid

CONVERGED = rule.LEARNED
SWEPT = ("optimizer", "lr", "momentum", "weight_decay", "coupled_share", "seed")


def of_setting(runs: pd.DataFrame, **setting: object) -> pd.DataFrame:
    """The runs with these settings, and with the defaults of ``RunConfig`` for all that is neither
    named here nor swept. Null, or a column that an older store lacks, stands for the default. The
    result has the metrics' columns even if it is empty.

    >>> runs = pd.DataFrame({"dataset": ["digits", "mnist"], "epochs": [200, 200]})
    >>> of_setting(runs, dataset="mnist")["dataset"].tolist()
    ['mnist']
    """
    defaults = {f.name: f.default for f in fields(RunConfig) if f.name not in SWEPT}
    defaults["schedule"] = models.MODELS[setting.get("model", defaults["model"])].schedule
    kept = pd.Series(True, index=runs.index)
    for name, wanted in (defaults | setting).items():
        column = runs.get(name, pd.Series(None, index=runs.index, dtype=object))
        kept &= (column == wanted) | (column.isna() & (wanted == defaults.get(name)))
    columns = (*SWEPT, *METRICS, *(f"{metric}_init" for metric in METRICS))
    return runs[kept].assign(**{name: np.nan for name in columns if name not in runs})


def on_grid(runs: pd.DataFrame, grids: Mapping[str, "Grid"]) -> pd.DataFrame:
    """The runs at points of their optimizer's grid, such as ``sweep.GRIDS``."""
    kept = pd.Series(False, index=runs.index)
    for name, grid in grids.items():
        inside = runs["lr"].isin(grid.lrs) & runs["momentum"].isin(grid.momenta)
        inside &= runs["weight_decay"].isin(grid.weight_decays)
        kept |= (runs["optimizer"] == name) & inside
    return runs[kept]


def by_optimizer(runs: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The runs of each optimizer that occurs, in the order of ``COLOURS``."""
    return [(name, runs[runs["optimizer"] == name]) for name in present(runs["optimizer"])]


def having(runs: pd.DataFrame, *optimizers: str) -> pd.DataFrame:
    """The runs if each of these optimizers has some of them, else none: for ``show_if_any``."""
    return runs if set(optimizers) <= set(runs["optimizer"]) else runs[:0]


def even_seeds(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs of those seeds that have as many runs of an optimizer as any seed has. Seeds whose
    grid is not complete are left out: they would bias every mean over the grid."""
    counts = runs.groupby(["optimizer", "seed"])["optimizer"].transform("size")
    return runs[counts == counts.groupby(runs["optimizer"]).transform("max")]


def converged(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs that did not diverge and reached 99 % training accuracy."""
    return runs[rule.learned(runs)]


def best_run(runs: pd.DataFrame) -> pd.Series | None:
    """The paper's Table 2 rule: the least NC3 among the converged runs; None if none converged."""
    good = converged(runs)
    return None if good.empty else good.iloc[good["nc3"].argmin()]


def fraction_of_start(runs: pd.DataFrame, metrics: Sequence[str] = MAIN) -> pd.DataFrame:
    """Each metric at the end over its value at the start."""
    return pd.DataFrame({metric: runs[metric] / runs[f"{metric}_init"] for metric in metrics})


def over_seeds(runs: pd.DataFrame, by: str | list[str], metric: str) -> pd.DataFrame:
    """Median, least and largest of a metric, and the number n of its values, for each ``by``.

    The median of the distribution of n independent runs lies between their least and their largest
    with probability 1 - 2^(1 - n), whatever the distribution: 94 % for five seeds.
    """
    return runs.groupby(by)[metric].agg(median="median", low="min", high="max", n="count")
