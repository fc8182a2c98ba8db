"""Confidence intervals of means over seeds, and least squares."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ncbook.parameters import FIELDS

CONFIDENCE = 0.95  # of all intervals
LEAST_POINTS = 3  # a line through two has no error to estimate
ALL = "all"
FIT = ["n", "slope", "se", "t", "p", "low", "high", "r2", "r2_adjusted", "f", "intercept"]
POINT = ("dataset", "model", "optimizer", "lr", "momentum", "weight_decay", "coupled_share")


def intervals(
    rows: pd.DataFrame, metrics: str | Sequence[str], by: Sequence[str] | None = None
) -> pd.DataFrame:
    """Mean of a metric over the seeds of each point of a grid, and its 95 % interval.

    With n seeds, mean m and standard deviation s, it is m ± t s/√n, t the quantile of Student's
    distribution with n - 1 degrees of freedom: right where the metric is about normal over seeds.

    Args:
        rows: one row a run, from ``store.load_runs``; or one a run and epoch, with ``epoch`` in
            ``by``.
        metrics: names of columns.
        by: columns that identify a point; by default those of ``POINT`` that ``rows`` has, and
            whatever else of a config, but for the seed, differs between the rows.

    Returns:
        One row a point and metric, with ``by``, ``metric``, ``n``, ``mean``, ``std``, ``low``,
        ``high``. NaN values (diverged runs) are left out; a single value has no interval (NaN). An
        unknown column is a ``KeyError``.

    >>> rows = pd.DataFrame({"optimizer": ["sgd"] * 3, "seed": [0, 1, 2], "nc0": [1.0, 2.0, 3.0]})
    >>> intervals(rows, "nc0")[["n", "mean", "low", "high"]].round(2).values.tolist()
    [[3.0, 2.0, -0.48, 4.48]]
    """
    by = _what_differs(rows) if by is None else list(by)
    from scipy.special import stdtrit  # here, because it takes most of a second

    tall = rows.melt(id_vars=by, value_vars=metrics, var_name="metric").dropna(subset="value")
    groups = tall.astype({"value": float}).groupby([*by, "metric"], dropna=False, sort=False)
    table = groups["value"].agg(n="size", mean="mean", std="std").reset_index()
    half = stdtrit(table["n"] - 1, (1 + CONFIDENCE) / 2) * table["std"] / np.sqrt(table["n"])
    return table.assign(low=table["mean"] - half, high=table["mean"] + half)


def _what_differs(rows: pd.DataFrame) -> list[str]:
    """The columns of ``POINT``, and those of a config, but for the seed, that differ."""
    there = [name for name in FIELDS if name in rows and name != "seed"]
    return [name for name in there if name in POINT or rows[name].nunique(dropna=False) > 1]


def lines(rows: pd.DataFrame, x: str, y: str, by: str | None = None) -> pd.DataFrame:
    """The line of least squares y = intercept + slope x for each value of a column ``by``, and one
    for all rows: Table 5.

    With S_xy = Σ(x - x̄)(y - ȳ), and likewise S_xx and S_yy: slope = S_xy/S_xx,
    R² = S_xy²/(S_xx S_yy), SE² = (1 - R²) S_yy / ((n - 2) S_xx), t = slope/SE, F = t². ``se``,
    ``t``, ``p`` (two-sided, of slope 0) and the 95 % interval from ``low`` to ``high`` are the
    slope's. They take the points to be independent, with errors of one variance.

    One row a group, indexed by its value, and last ``"all"``. A group of fewer than three points,
    or of numbers that are not finite or do not vary, has its n and NaN.

    >>> fit = lines(pd.DataFrame({"x": [0, 1, 2, 3], "y": [0, 1, 2, 4]}), "x", "y").loc["all"]
    >>> fit[["slope", "r2"]].round(4).tolist()
    [1.3, 0.9657]

    Source: statsmodels' OLS, which Table 5's columns are named after.
    """
    groups = [*(rows.groupby(by, dropna=False) if by is not None else ()), (ALL, rows)]
    fits = [_fit(group[x].to_numpy(float), group[y].to_numpy(float)) for _, group in groups]
    table = pd.DataFrame(fits, index=pd.Index([name for name, _ in groups], dtype=object, name=by))
    return table.reindex(columns=FIT).astype(dict.fromkeys(FIT, float) | {"n": int})


def _fit(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """The numbers of one line; of points that have none, their number."""
    good = len(x) >= LEAST_POINTS and np.isfinite([x, y]).all() and np.ptp(x) and np.ptp(y)
    if not good:
        return {"n": len(x)}
    from statsmodels.regression.linear_model import OLS  # here, because it takes a second

    fit = OLS(y, np.column_stack([np.ones_like(x), x])).fit()
    low, high = fit.conf_int(1 - CONFIDENCE)[1]
    numbers = (fit.params[1], fit.bse[1], fit.tvalues[1], fit.pvalues[1], low, high)
    shares = (fit.rsquared, fit.rsquared_adj, fit.fvalue, fit.params[0])
    return dict(zip(FIT, (len(x), *numbers, *shares), strict=True))
