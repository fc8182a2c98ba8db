"""What the exact law predicts for stored runs."""

import numpy as np
import pandas as pd

from ncbook import data, theory
from ncbook.train import SCHEDULES, learning_rate_factors

LAWFUL = ("sgd", "sgdw", "sgd_mixed")  # the optimizers that the exact law holds for
LAW_FROM = 1e-9  # far below the share of NC0 that rounding leaves, some 1e-7
TRAINING_IMAGES = {"digits": 1400, "mnist": 60_000, "fashion_mnist": 60_000, "cifar10": 50_000}
TRAINING_IMAGES |= {data.UFM: data.UFM_SAMPLES}


def exact_law(runs: pd.DataFrame) -> pd.Series:
    """NC0 at the end over its start by the exact law (``theory.row_sum_ratio``); NaN where the law
    does not hold: under Adam and Signum, with clipped gradients, or for an unknown number of steps.

    >>> run = {"optimizer": "sgdw", "lr": 0.0679, "momentum": 0.9, "weight_decay": 5e-4}
    >>> run |= {"dataset": "fashion_mnist", "train_size": None, "batch_size": 128, "epochs": 200}
    >>> exact_law(pd.DataFrame([run | {"coupled_share": 0.0}])).round(4).item()  # as in Table 1
    0.3109
    """
    left = pd.Series(np.nan, index=runs.index)
    if runs.empty:  # an empty store lacks the columns below
        return left
    images = runs["train_size"].astype(float).fillna(runs["dataset"].map(TRAINING_IMAGES))
    schedule = runs.get("schedule", pd.Series("step", index=runs.index)).fillna("step")
    clip = runs.get("clip", pd.Series(np.nan, index=runs.index))
    # An older store has no share, and no mixtures.
    named = runs["optimizer"].map({"sgd": 1.0, "sgdw": 0.0})
    runs = runs.assign(coupled_share=runs["coupled_share"].fillna(named))
    lawful = runs["optimizer"].isin(LAWFUL) & schedule.isin(SCHEDULES)
    lawful &= clip.isna() & images.notna()
    steps = np.ceil(images / runs["batch_size"].astype(float))
    keys = [steps[lawful], runs["epochs"][lawful], schedule[lawful]]
    for (count, epochs, name), rows in runs[lawful].groupby(keys):
        left[rows.index] = _law(rows, int(count), int(epochs), name)
    return left


def _law(rows: pd.DataFrame, steps: int, epochs: int, schedule: str) -> np.ndarray:
    """``exact_law`` for rows of one length and schedule."""
    settings = rows[["lr", "momentum", "weight_decay"]].to_numpy(float).T
    decoupled = 1 - rows["coupled_share"].to_numpy(float)
    if schedule == "step":
        return theory.row_sum_ratio(*settings, steps, epochs, decoupled)
    factors = [learning_rate_factors(schedule, e, steps, epochs).numpy() for e in range(epochs)]
    factors = np.concatenate(factors)
    numbers = zip(*settings, decoupled, strict=True)
    ends = [theory.row_sum_stepped(lr * factors, *rest)[-1] for lr, *rest in numbers]
    return np.abs(ends)
