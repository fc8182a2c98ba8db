"""Which runs count: those of a setting, on a grid, over even seeds, converged; and what the exact
law predicts for them."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import pandas as pd

from ncbook import data, models, optim, theory
from ncbook.figures.style import MAIN, present
from ncbook.metrics import rule
from ncbook.train import SCHEDULES, RunConfig, learning_rate_factors

CONVERGED = rule.LEARNED
SWEPT = ("optimizer", "lr", "momentum", "weight_decay", "coupled_share", "seed")
FILLED_IN = ("vector_lr", "class_file", "data_listing")  # by RunConfig, where it is needed
# The optimizers that the exact law holds for, if they move the last layer.
LAWFUL = tuple(
    name
    for name, rule in optim.OPTIMIZERS.items()
    if rule.direction == "sgd" or (rule.direction in optim.FOR_MATRICES and not rule.coupled_share)
)
HEAD_NUMBERS = {name: f"head_{name}" for name in ("lr", "momentum", "weight_decay")}
LAW_FROM = 1e-9  # far below the share of NC0 that rounding leaves, some 1e-7
TRAINING_IMAGES = {"digits": 1400, "mnist": 60_000, "fashion_mnist": 60_000, "cifar10": 50_000}
TRAINING_IMAGES |= {data.UFM: data.UFM_SAMPLES, "gaussians": 10_000}


def of_setting(runs: pd.DataFrame, **setting: object) -> pd.DataFrame:
    """The runs with these settings, and with the defaults of ``RunConfig`` for all that is neither
    named here nor swept (of ``FILLED_IN`` any value). Null stands for the default.

    >>> runs = pd.DataFrame([vars(RunConfig(train_size=size)) for size in (100, 200)])
    >>> of_setting(runs, train_size=200)["train_size"].tolist()
    [200]
    """
    defaults = {f.name: f.default for f in fields(RunConfig) if f.name not in (*SWEPT, *FILLED_IN)}
    defaults["schedule"] = models.MODELS[setting.get("model", defaults["model"])].schedule
    kept = pd.Series(True, index=runs.index)
    for name, wanted in (defaults | setting).items():
        kept &= (runs[name] == wanted) | (runs[name].isna() & (wanted == defaults.get(name)))
    return runs[kept]


def uniform(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs whose last layer moves as the rest does: with the same optimizer, not centred."""
    return runs[runs["head_optimizer"].isna() & runs["centred_head"].ne(True)]


def on_grid(runs: pd.DataFrame, grids: Mapping[str, Any]) -> pd.DataFrame:
    """The runs at points of their optimizer's grid, such as ``sweep.GRIDS``."""
    kept = pd.Series(False, index=runs.index)
    for name, grid in grids.items():
        inside = runs["lr"].isin(grid.lrs) & runs["momentum"].isin(grid.momenta)
        kept |= inside & runs["weight_decay"].isin(grid.weight_decays) & (runs["optimizer"] == name)
    return runs[kept]


def by_optimizer(runs: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The runs of each optimizer that occurs, in the order of ``COLOURS``."""
    return [(name, runs[runs["optimizer"] == name]) for name in present(runs["optimizer"])]


def having(runs: pd.DataFrame, *optimizers: str) -> pd.DataFrame:
    """The runs if each of these optimizers has some of them, else none."""
    return runs if set(optimizers) <= set(runs["optimizer"]) else runs[:0]


def even_seeds(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs of those seeds that have as many runs of an optimizer as any seed has: a seed whose
    grid is not complete would bias every mean over the grid."""
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


def exact_law(runs: pd.DataFrame) -> pd.Series:
    """NC0 at the end over its start by the exact law (``theory.row_sum_ratio``); NaN where the law
    does not hold, with clipped gradients, or for an unknown number of steps.

    It is a law of the last layer's optimizer: it holds under SGD, under Muon, Shampoo and SOAP with
    decoupled decay, and under any optimizer whose steps are centred over the classes.

    >>> config = RunConfig("sgdw", "fashion_mnist", lr=0.0679, weight_decay=5e-4)
    >>> exact_law(pd.DataFrame([vars(config)])).round(4).item()  # as in Table 1
    0.3109
    """
    left = pd.Series(np.nan, index=runs.index)
    images = runs["train_size"].astype(float).fillna(runs["dataset"].map(TRAINING_IMAGES))
    runs = _last_layers(runs).assign(steps=np.ceil(images / runs["batch_size"].astype(float)))
    lawful = runs["lawful"] & runs["schedule"].isin(SCHEDULES) & runs["clip"].isna()
    for (steps, epochs, schedule), rows in runs[lawful].groupby(["steps", "epochs", "schedule"]):
        settings = rows[["lr", "momentum", "weight_decay"]].to_numpy(float).T
        length, decoupled = (int(steps), int(epochs)), 1 - rows["coupled_share"].to_numpy(float)
        if schedule == "step":
            left[rows.index] = theory.row_sum_ratio(*settings, *length, decoupled)
            continue
        each = [learning_rate_factors(schedule, e, *length) for e in range(length[1])]
        numbers = zip(*settings, decoupled, strict=True)
        paths = [theory.row_sum_stepped(lr * np.concatenate(each), *rest) for lr, *rest in numbers]
        left[rows.index] = np.abs([path[-1] for path in paths])
    return left


def products(runs: pd.DataFrame) -> pd.Series:
    """The number format of each run's update: that of Muon's, Shampoo's and SOAP's products, if it
    has one of its own, else that of the last layer, which is float32 or float64."""
    wide = runs["precision"].eq("float64").map({True: "float64", False: "float32"})
    return runs["update_precision"].fillna(wide)


def head_optimizer(runs: pd.DataFrame) -> pd.Series:
    """The optimizer of each run's last layer."""
    return runs["head_optimizer"].fillna(runs["optimizer"])


def _last_layers(runs: pd.DataFrame) -> pd.DataFrame:
    """The settings of each run's last layer in the place of the network's, and whether the law
    holds for them. Runs of a store that is older than the mixtures have no share."""
    own, runs = runs["head_optimizer"].notna(), runs.copy()
    for name, head in {"optimizer": "head_optimizer", **HEAD_NUMBERS}.items():
        runs[name] = runs[name].where(~own, runs[head])
    named = {name: rule.coupled_share for name, rule in optim.OPTIMIZERS.items()}
    share = runs["optimizer"].map(named).astype(float).fillna(runs["coupled_share"].astype(float))
    centred = runs["centred_head"].eq(True)
    return runs.assign(
        # Coupled decay is part of a step, whose part along the flat direction centring removes.
        weight_decay=runs["weight_decay"].astype(float) * (1 - share).where(centred, 1),
        coupled_share=share.where(~centred, 0.0),
        lawful=runs["optimizer"].isin(LAWFUL) | centred,
    )
