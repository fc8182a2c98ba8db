"""Figures with one dot a run: NC0 against the exact law, one metric against another."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ncbook import stats, text
from ncbook.figures.axes import finish, log_ticks, panels
from ncbook.figures.law import LAW_FROM, exact_law
from ncbook.figures.selecting import by_optimizer
from ncbook.figures.style import METRICS, MIXED, colour_of, label_of

MARKS = ["o", "s", "^", "D", "v"]


def parity(runs: pd.DataFrame, title: str = "") -> Figure:
    """NC0 at the end against the exact law's prediction, one dot a run, and the line on which both
    are equal, which is no fit. Runs with a prediction below ``LAW_FROM`` of the start, which
    float32 cannot follow, are not drawn."""
    left = exact_law(runs)
    runs = runs.assign(law=runs["nc0_init"] * left)[(left >= LAW_FROM) & (runs["nc0"] > 0)]
    figure, axis = plt.subplots(figsize=(6.6, 4.4), layout="constrained")
    for mark, (model, network) in zip(MARKS * 9, runs.groupby("model"), strict=False):
        for name, rows in by_optimizer(network):
            size = 9 if name.endswith(MIXED) else 22  # mixed ones have no colour of their own
            look = dict(s=size, marker=mark, facecolor="none", edgecolor=colour_of(name), lw=0.9)
            label = f"{label_of(name)}, {text.mathtext(model, text.NAME)}"
            axis.scatter(rows["law"], rows["nc0"], **look, label=label)
    axis.set(xscale="log", yscale="log", xlabel="NC0 by the law", ylabel="NC0 at the end")
    axis.axline((1, 1), (10, 10), color="#555555", lw=0.8, zorder=0)
    axis.set(xlim=axis.dataLim.intervalx * (0.5, 2), ylim=axis.dataLim.intervaly * (0.5, 2))
    figure.set_label(
        f"{title}. NC0 measured against NC0 by the exact law, and the line of equality"
    )
    return finish(figure, np.array([axis]), title)


def scatters(
    runs: pd.DataFrame,
    x: str | Sequence[str] = "nc0",
    y: str = "nc3",
    by: str | None = None,
    title: str = "",
) -> Figure:
    """Fig. 2, 9-12 and 44: one metric at the end against another, whose axis is logarithmic as in
    the paper, one dot a row; the line is that of least squares of y on log10 x.

    Args:
        runs: all are drawn, converged or not.
        x: a metric, or several: a panel for each.
        y: a metric.
        by: a column of numbers: a panel for each value; or none.
    """
    groups = [("", runs)] if by is None else [(f"{by} {v:g}", g) for v, g in runs.groupby(by)]
    drawn = [(name, m, g) for name, g in groups for m in ([x] if isinstance(x, str) else x)]
    figure, axes = panels(len(drawn))
    for axis, (name, metric, group) in zip(axes, drawn, strict=True):
        for optimizer, rows in by_optimizer(group):
            look = dict(s=14, color=colour_of(optimizer), alpha=0.6, lw=0)
            axis.scatter(rows[metric], rows[y], **look, label=label_of(optimizer))
        axis.set(xscale="log", xlabel=METRICS[metric], ylabel=METRICS[y])
        log_ticks(axis.xaxis)
        axis.set_title(", ".join([name] * bool(name) + _line(axis, group, metric, y)))
    words = [METRICS[m] for m in dict.fromkeys(panel[1] for panel in drawn)]
    what = "dots in the optimizers' colours, and the line of least squares"
    figure.set_label(f"{title}. {METRICS[y]} against {', '.join(words)}: {what}")
    return finish(figure, axes, title)


def _line(axis: Axes, rows: pd.DataFrame, x: str, y: str) -> list[str]:
    """Draw the line of least squares, if one exists; the number of runs and R²."""
    rows = rows[rows[x] > 0].assign(log=lambda r: np.log10(r[x]))
    fit = stats.lines(rows, "log", y).iloc[-1]
    if np.isnan(fit["slope"]):
        return [f"n = {len(rows):,}"]
    ends = np.array([rows["log"].min(), rows["log"].max()])
    axis.plot(10**ends, fit["intercept"] + fit["slope"] * ends, color="#333333", lw=1.2)
    return [f"n = {len(rows):,}", f"R² = {fit['r2']:.2f}"]
