"""Confidence intervals of means over seeds, and least squares."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

LEAST_POINTS = 3  # a line through two has no error to estimate
ALL = "all"
METHODS = ("t", "bootstrap")
RESAMPLES = 9999  # SciPy's default; the interval's third digit is then stable
POINT = ("dataset", "model", "optimizer", "lr", "momentum", "weight_decay", "coupled_share")


def intervals(
    rows: pd.DataFrame,
    metrics: str | Sequence[str],
    *,
    by: Sequence[str] | None = None,
    confidence: float = 0.95,
    method: str = "t",
    seed: int = 0,
) -> pd.DataFrame:
    """Mean of a metric over the seeds of each point of a grid, and an interval for it.

    With n seeds, mean m and standard deviation s, ``t`` is m ± t s/√n, t the quantile of Student's
    distribution with n - 1 degrees of freedom: right where the metric is about normal over seeds.
    ``bootstrap`` is the bias-corrected and accelerated one (BCa): right where it is skewed, but too
    short for fewer than some ten seeds.

    Args:
        rows: one row a run, from ``store.load_runs``; or one a run and epoch, with ``epoch`` in
            ``by``.
        metrics: names of columns.
        by: columns that identify a point; by default those of ``POINT`` that ``rows`` has.
        confidence: of the interval, between 0 and 1.
        method: a name of ``METHODS``.
        seed: of the bootstrap's resampling.

    Returns:
        One row a point and metric, with ``by``, ``metric``, ``n``, ``mean``, ``std``, ``low``,
        ``high``. NaN values (diverged runs) are left out; a single value has no interval (NaN).

    Raises:
        ValueError: an unknown method or column, or a confidence outside of (0, 1).

    >>> rows = pd.DataFrame({"optimizer": ["sgd"] * 3, "seed": [0, 1, 2], "nc0": [1.0, 2.0, 3.0]})
    >>> intervals(rows, "nc0")[["n", "mean", "low", "high"]].round(2).values.tolist()
    [[3.0, 2.0, -0.48, 4.48]]

    Source: Efron, Better bootstrap confidence intervals, JASA 82 (1987), for BCa.
    """
    metrics = [metrics] if isinstance(metrics, str) else list(metrics)
    by = [name for name in POINT if name in rows] if by is None else list(by)
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; valid: {', '.join(METHODS)}")
    unknown = [name for name in (*metrics, *by) if name not in rows]
    if unknown:
        raise ValueError(f"no column {unknown[0]!r}; valid: {', '.join(map(str, rows.columns))}")
    _check_confidence(confidence)
    tall = rows.melt(id_vars=by, value_vars=metrics, var_name="metric").dropna(subset="value")
    records = [
        dict(zip([*by, "metric"], point, strict=True))
        | _summary(group.astype(float), confidence, method, seed)
        for point, group in tall.groupby([*by, "metric"], dropna=False, sort=False)["value"]
    ]
    columns = [*by, "metric", "n", "mean", "std", "low", "high"]
    return pd.DataFrame(records, columns=columns)


def _summary(values: pd.Series, confidence: float, method: str, seed: int) -> dict[str, float]:
    from scipy import stats  # here, because it takes most of a second

    count, mean, std = len(values), values.mean(), values.std()  # of one value: NaN
    low = high = mean if std == 0 else float("nan")
    if std > 0 and method == "t":
        low, high = stats.t.interval(confidence, count - 1, mean, std / np.sqrt(count))
    elif std > 0:
        options = dict(confidence_level=confidence, n_resamples=RESAMPLES, rng=seed)
        low, high = stats.bootstrap((values.to_numpy(),), np.mean, **options).confidence_interval
    return {"n": count, "mean": mean, "std": std, "low": low, "high": high}


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence!r}")


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


def lines(
    rows: pd.DataFrame, x: str, y: str, by: str | None = None, confidence: float = 0.95
) -> pd.DataFrame:
    """A line for each value of a column ``by``, and one for all rows: Table 5.

    One row a group, indexed by its value, and last ``"all"``; the columns are the fields of
    :class:`Fit`. A group without a line has its n and NaN.
    """
    groups = [*(rows.groupby(by) if by is not None else ()), (ALL, rows)]
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
