"""Least squares of one quantity on another, in the form of the paper's Table 5."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import asdict, dataclass, fields

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from statsmodels.regression.linear_model import OLS

LEAST_POINTS = 3  # a line through two leaves nothing to estimate its error from
ALL = "all"


@dataclass(frozen=True)
class Fit:
    """y = intercept + slope x, by least squares, with the columns of Table 5.

    ``se``, ``t``, ``p`` (two-sided, of slope 0) and the interval from ``low`` to ``high`` are the
    slope's. They take the points to be independent, with errors of one variance.
    """

    n: int
    slope: float
    se: float
    t: float
    p: float
    low: float
    high: float
    r2: float
    r2_adjusted: float
    f: float
    intercept: float


def line(x: ArrayLike, y: ArrayLike, confidence: float = 0.95) -> Fit:
    """The line of least squares.

    With S_xy = Σ(x - x̄)(y - ȳ), and likewise S_xx and S_yy: slope = S_xy/S_xx,
    R² = S_xy²/(S_xx S_yy), SE² = (1 - R²) S_yy / ((n - 2) S_xx), t = slope/SE, F = t².

    Args:
        x, y: (n,) numbers.
        confidence: of the slope's interval, between 0 and 1.

    Raises:
        ValueError: fewer than three points, lengths that differ, a number that is not finite, an
            x or y that does not vary, or a confidence outside of (0, 1).

    >>> fit = line([0, 1, 2, 3], [0, 1, 2, 4])
    >>> round(fit.slope, 4), round(fit.r2, 4)
    (1.3, 0.9657)

    Source: statsmodels' OLS, which Table 5's columns are named after.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    if why := _unfit(x, y):
        raise ValueError(why)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence!r}")
    fit = OLS(y, np.column_stack([np.ones_like(x), x])).fit()
    low, high = fit.conf_int(1 - confidence)[1]
    numbers = (fit.params[1], fit.bse[1], fit.tvalues[1], fit.pvalues[1], low, high)
    shares = (fit.rsquared, fit.rsquared_adj, fit.fvalue, fit.params[0])
    return Fit(len(x), *map(float, (*numbers, *shares)))


def lines(
    rows: pd.DataFrame, x: str, y: str, by: str | None = None, confidence: float = 0.95
) -> pd.DataFrame:
    """A line for each value of a column, and one for all rows: Table 5.

    Args:
        rows: one row a point.
        x, y, by: names of columns; without ``by``, all rows alone.
        confidence: as in :func:`line`.

    Returns:
        One row a group, under its value, and last ``"all"``; the columns are the fields of
        :class:`Fit`. A group through which no line goes has its n and NaN.
    """
    groups: list[tuple[Hashable, pd.DataFrame]] = [(ALL, rows)]
    if by is not None:
        groups = [*rows.groupby(by), *groups]
    fits = {name: _numbers(group[x], group[y], confidence) for name, group in groups}
    table = pd.DataFrame(list(fits.values()), index=pd.Index(fits, dtype=object, name=by))
    kinds = {field.name: int if field.name == "n" else float for field in fields(Fit)}
    return table.reindex(columns=list(kinds)).astype(kinds)


def _numbers(x: pd.Series, y: pd.Series, confidence: float) -> dict[str, float]:
    x, y = x.to_numpy(float), y.to_numpy(float)
    if _unfit(x, y):
        return {"n": len(x)}
    return asdict(line(x, y, confidence))


def _unfit(x: np.ndarray, y: np.ndarray) -> str:
    """Why no line goes through these points; nothing if one does."""
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
