"""Confidence intervals of means over seeds, and least squares."""

from collections import namedtuple
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

LEAST_POINTS = 3  # a line through two has no error to estimate
ALL = "all"
POINT = ("dataset", "model", "optimizer", "lr", "momentum", "weight_decay", "coupled_share")


def intervals(
    rows: pd.DataFrame,
    metrics: str | Sequence[str],
    *,
    by: Sequence[str] | None = None,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Mean of a metric over the seeds of each point of a grid, and an interval for it.

    With n seeds, mean m and standard deviation s, it is m ± t s/√n, t the quantile of Student's
    distribution with n - 1 degrees of freedom: right where the metric is about normal over seeds.

    Args:
        rows: one row a run, from ``store.load_runs``; or one a run and epoch, with ``epoch`` in
            ``by``.
        metrics: names of columns.
        by: columns that identify a point; by default those of ``POINT`` that ``rows`` has.
        confidence: of the interval, between 0 and 1.

    Returns:
        One row a point and metric, with ``by``, ``metric``, ``n``, ``mean``, ``std``, ``low``,
        ``high``. NaN values (diverged runs) are left out; a single value has no interval (NaN).

    Raises:
        ValueError: an unknown column, or a confidence outside of (0, 1).

    >>> rows = pd.DataFrame({"optimizer": ["sgd"] * 3, "seed": [0, 1, 2], "nc0": [1.0, 2.0, 3.0]})
    >>> intervals(rows, "nc0")[["n", "mean", "low", "high"]].round(2).values.tolist()
    [[3.0, 2.0, -0.48, 4.48]]
    """
    metrics = [metrics] if isinstance(metrics, str) else list(metrics)
    by = [name for name in POINT if name in rows] if by is None else list(by)
    unknown = [name for name in (*metrics, *by) if name not in rows]
    if unknown:
        raise ValueError(f"no column {unknown[0]!r}; valid: {', '.join(map(str, rows.columns))}")
    _check_confidence(confidence)
    from scipy.special import stdtrit  # here, because it takes most of a second

    tall = rows.melt(id_vars=by, value_vars=metrics, var_name="metric").dropna(subset="value")
    groups = tall.astype({"value": float}).groupby([*by, "metric"], dropna=False, sort=False)
    table = groups["value"].agg(n="size", mean="mean", std="std").reset_index()
    half = stdtrit(table["n"] - 1, (1 + confidence) / 2) * table["std"] / np.sqrt(table["n"])
    return table.assign(low=table["mean"] - half, high=table["mean"] + half)


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence!r}")


FIT = "n slope se t p low high r2 r2_adjusted f intercept"
Fit = namedtuple("Fit", FIT)


def line(x: ArrayLike, y: ArrayLike, confidence: float = 0.95) -> Fit:
    """The line of least squares y = intercept + slope x, with the columns of Table 5.

    With S_xy = Σ(x - x̄)(y - ȳ), and likewise S_xx and S_yy: slope = S_xy/S_xx,
    R² = S_xy²/(S_xx S_yy), SE² = (1 - R²) S_yy / ((n - 2) S_xx), t = slope/SE, F = t². ``se``,
    ``t``, ``p`` (two-sided, of slope 0) and the interval from ``low`` to ``high`` are the slope's.
    They take the points to be independent, with errors of one variance.

    Raises ValueError for fewer than three points, lengths that differ, a number that is not finite,
    an x or y that does not vary, or a confidence outside of (0, 1).

    >>> fit = line([0, 1, 2, 3], [0, 1, 2, 4])
    >>> round(fit.slope, 4), round(fit.r2, 4)
    (1.3, 0.9657)

    Source: statsmodels' OLS, which Table 5's columns are named after.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    if why := _unfit(x, y):
        raise ValueError(why)
    _check_confidence(confidence)
    from statsmodels.regression.linear_model import OLS  # here, because it takes a second

    fit = OLS(y, np.column_stack([np.ones_like(x), x])).fit()
    low, high = fit.conf_int(1 - confidence)[1]
    numbers = (fit.params[1], fit.bse[1], fit.tvalues[1], fit.pvalues[1], low, high)
    shares = (fit.rsquared, fit.rsquared_adj, fit.fvalue, fit.params[0])
    return Fit(len(x), *map(float, (*numbers, *shares)))


def lines(rows: pd.DataFrame, x: str, y: str, by: str | None = None) -> pd.DataFrame:
    """A line for each value of a column ``by``, and one for all rows: Table 5.

    One row a group, indexed by its value, and last ``"all"``; the columns are those of ``line``. A
    group without a line has its n and NaN.
    """
    groups = [*(rows.groupby(by) if by is not None else ()), (ALL, rows)]
    fits = {}
    for name, group in groups:
        points = group[x].to_numpy(float), group[y].to_numpy(float)
        fits[name] = {"n": len(group)} if _unfit(*points) else line(*points)._asdict()
    table = pd.DataFrame(list(fits.values()), index=pd.Index(fits, dtype=object, name=by))
    return table.reindex(columns=Fit._fields).astype(dict.fromkeys(Fit._fields, float) | {"n": int})


def _unfit(x: np.ndarray, y: np.ndarray) -> str:
    """Why these points have no line; empty if they have one."""
    if x.ndim != 1 or x.shape != y.shape:
        return f"x and y must be two lists of one length, got shapes {x.shape} and {y.shape}"
    if len(x) < LEAST_POINTS:
        return f"a line with an error needs {LEAST_POINTS} points or more, got {len(x)}"
    for name, values in (("x", x), ("y", y)):
        if not np.isfinite(values).all():
            return f"{name} must be finite, got {values[~np.isfinite(values)][0]}"
        if np.ptp(values) == 0:
            return f"{name} must vary, but all {len(values)} values are {values[0]:g}"
    return ""
