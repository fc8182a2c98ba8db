"""How sure a mean over seeds is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

METHODS = ("t", "bootstrap")
RESAMPLES = 9999  # SciPy's default; the ends' third digit then no longer moves
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
        by: columns that tell the points apart; default those of ``POINT`` that ``rows`` has.
        confidence: of the interval, between 0 and 1.
        method: a name of ``METHODS``.
        seed: of the bootstrap's resampling.

    Returns:
        One row a point and metric, with ``by``, ``metric``, ``n``, ``mean``, ``std``, ``low``,
        ``high``. Values that are NaN (diverged runs) are left out; from one value there is no
        interval (NaN).

    Raises:
        ValueError: an unknown method or column, or a confidence outside of (0, 1).

    >>> rows = pd.DataFrame({"optimizer": ["sgd"] * 3, "seed": [0, 1, 2], "nc0": [1.0, 2.0, 3.0]})
    >>> intervals(rows, "nc0")[["n", "mean", "low", "high"]].round(2).values.tolist()
    [[3.0, 2.0, -0.48, 4.48]]

    Source: Efron, Better bootstrap confidence intervals, JASA 82 (1987), for BCa.
    """
    metrics = [metrics] if isinstance(metrics, str) else list(metrics)
    by = [name for name in POINT if name in rows] if by is None else list(by)
    _check(rows, [*metrics, *by], confidence, method)
    tall = rows.melt(id_vars=by, value_vars=metrics, var_name="metric").dropna(subset="value")
    records = [
        dict(zip([*by, "metric"], point, strict=True))
        | _summary(group.to_numpy(float), confidence, method, seed)
        for point, group in tall.groupby([*by, "metric"], dropna=False, sort=False)["value"]
    ]
    columns = [*by, "metric", "n", "mean", "std", "low", "high"]
    return pd.DataFrame(records, columns=columns)


def _check(rows: pd.DataFrame, names: list[str], confidence: float, method: str) -> None:
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; valid: {', '.join(METHODS)}")
    unknown = [name for name in names if name not in rows]
    if unknown:
        raise ValueError(f"no column {unknown[0]!r}; valid: {', '.join(map(str, rows.columns))}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence!r}")


def _summary(values: np.ndarray, confidence: float, method: str, seed: int) -> dict[str, float]:
    count, mean = len(values), float(values.mean())
    std = float(values.std(ddof=1)) if count > 1 else float("nan")
    low, high = _ends(values, mean, std, confidence, method, seed)
    return {"n": count, "mean": mean, "std": std, "low": float(low), "high": float(high)}


def _ends(
    values: np.ndarray, mean: float, std: float, confidence: float, method: str, seed: int
) -> tuple[float, float]:
    if len(values) < 2:
        return float("nan"), float("nan")
    if std == 0:
        return mean, mean
    from scipy import stats  # most of a second, which each worker would wait for

    if method == "t":
        error = std / np.sqrt(len(values))
        return stats.t.interval(confidence, len(values) - 1, mean, error)
    found = stats.bootstrap(
        (values,), np.mean, confidence_level=confidence, n_resamples=RESAMPLES, rng=seed
    )
    return found.confidence_interval
