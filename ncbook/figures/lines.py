"""Figures of lines: metrics at the end against a setting, and metrics over the epochs."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from ncbook.figures.axes import epoch_axis, finish, log_values, panels
from ncbook.figures.selecting import by_optimizer, converged, over_seeds
from ncbook.figures.style import ACCURACIES, METRICS, colour_of, label_of, look, present

X_LABELS = {
    "weight_decay": "weight decay $\\lambda$",
    "coupled_share": "coupled share $s$ of the weight decay",
    "coupled_decay": "coupled decay $\\lambda_c$",
    "effective_decay": "effective decay $\\lambda_{\\mathrm{eff}}$",
}
APART = 2.5  # labels of two weight decays touch if their ratio is less


def against_weight_decay(
    runs: pd.DataFrame,
    metrics: Sequence[str] = ("nc0", "nc3"),
    title: str = "",
    only_converged: bool = True,
) -> Figure:
    """Fig. 1 and 3: metrics at the end against weight decay, mean and ±1 sd over the converged
    runs of each optimizer; or, as Fig. 17 and 18, over all that did not diverge."""
    good = converged(runs) if only_converged else runs[runs["status"] == "ok"]
    figure, axes = panels(len(metrics))
    for axis, metric in zip(axes, metrics, strict=True):
        for optimizer, rows in by_optimizer(good):
            _band(axis, rows, metric, optimizer, runs["weight_decay"])
        _setting_axis(axis, "weight_decay", runs["weight_decay"])
        axis.set_ylabel(f"{METRICS[metric]} at the end")
        log_values(axis)
    return finish(figure, axes, title)


def _band(
    axis: Axes, rows: pd.DataFrame, metric: str, optimizer: str, decays: Sequence[float]
) -> None:
    stats = rows.groupby("weight_decay")[metric].agg(["mean", "std", "min"])
    x = _position(stats.index.to_numpy(), decays)
    axis.plot(x, stats["mean"], marker="o", ms=4, **look(optimizer))
    spread = stats["std"].fillna(0)
    # On a log axis mean - sd may be negative: the band then ends at the least value seen.
    low = (stats["mean"] - spread).clip(lower=stats["min"])
    axis.fill_between(x, low, stats["mean"] + spread, color=colour_of(optimizer), alpha=0.18, lw=0)


def against(
    runs: pd.DataFrame,
    x: str,
    metrics: Sequence[str] = ("nc0", "nc3"),
    hue: str = "optimizer",
    title: str = "",
) -> Figure:
    """Metrics at the end against a setting, one line for each value of ``hue``: the median of all
    runs given, with the band from the least to the largest (see ``over_seeds``).

    Args:
        runs: all are drawn, converged or not.
        x: a column named in ``X_LABELS``.
        metrics: of ``METRICS`` (log axes) or ``ACCURACIES``.
        hue: ``optimizer``, or a column of numbers.
    """
    figure, axes = panels(len(metrics))
    for axis, metric in zip(axes, metrics, strict=True):
        for value, colour, label in _hues(runs[hue]):
            style = "--" if str(value).endswith("w") else "-"
            rows = over_seeds(runs[runs[hue] == value], x, metric).dropna()
            at, rows = _placed(x, rows, runs[x])
            axis.plot(at, rows["median"], style, color=colour, marker="o", ms=4, label=label)
            axis.fill_between(at, rows["low"], rows["high"], color=colour, alpha=0.18, lw=0)
        _setting_axis(axis, x, runs[x])
        axis.set_ylabel((METRICS | ACCURACIES)[metric] + " at the end")
        if metric in ACCURACIES:
            axis.yaxis.set_major_formatter(PercentFormatter(1))
        else:
            log_values(axis)
    drawn = ", ".join((METRICS | ACCURACIES)[metric] for metric in metrics)
    lines = ", ".join(label for _, _, label in _hues(runs[hue]))
    hue = hue.replace("_", " ")
    figure.set_label(
        f"{title}. {drawn} at the end against the {x.replace('_', ' ')}, "
        f"one line for each {hue}: {lines}."
    )
    return finish(figure, axes, title, "" if hue == "optimizer" else hue)


def over_epochs(
    history: pd.DataFrame,
    metrics: Sequence[str] = ("nc0", "nc1", "nc2", "nc3"),
    hue: str = "weight_decay",
    title: str = "",
) -> Figure:
    """Fig. 5: metrics over epochs, one line for each value of ``hue``, median and quartiles."""
    figure, axes = panels(len(metrics))
    for axis, metric in zip(axes, metrics, strict=True):
        _over_epochs(axis, history, metric, hue)
        axis.set_ylabel(METRICS[metric])
        log_values(axis)
    return finish(figure, axes, title, legend_title=hue.replace("_", " "))


def singular_values(
    history: pd.DataFrame, hue: str = "weight_decay", title: str = "", matrices: str = "wm"
) -> Figure:
    """Fig. 6 and 16: singular values of W and M over epochs: the mean of all but the smallest
    (solid) and, for W, the smallest (dotted); that of M is always zero, since its rows are
    centred, and not drawn."""
    figure, axes = panels(len(matrices))
    for axis, matrix in zip(axes, matrices, strict=True):
        _over_epochs(axis, history, f"{matrix}_sv_mean", hue)
        axis.set_ylabel(f"singular values of {matrix.upper()}")
        if matrix == "w":
            _over_epochs(axis, history, "w_sv_min", hue, dotted=True)
        log_values(axis)
    return finish(figure, axes, title, legend_title=hue.replace("_", " "))


def _over_epochs(
    axis: Axes, history: pd.DataFrame, column: str, hue: str, dotted: bool = False
) -> None:
    """Median over the runs of each value of ``hue``, with the band between the quartiles."""
    if history.empty:
        return
    for value, colour, label in _hues(history[hue]):
        groups = history[history[hue] == value].groupby("epoch")[column]
        middle, low, high = (groups.quantile(q) for q in (0.5, 0.25, 0.75))
        line = dict(color=colour, label=None if dotted else label)
        axis.plot(middle.index, middle, ":" if dotted else "-", **line)
        axis.fill_between(middle.index, low, high, color=colour, alpha=0.12, lw=0)
    epoch_axis(axis, int(history["epoch"].max()))


def _hues(values: pd.Series) -> list[tuple[object, object, str]]:
    """(value, colour, label) of every line: optimizers in their own, numbers in shades."""
    if values.name == "optimizer":
        return [(name, colour_of(name), label_of(name)) for name in present(values)]
    numbers = np.sort(values.unique())
    shades = sns.color_palette("viridis", len(numbers))
    return [(v, shade, f"{v:g}") for v, shade in zip(numbers, shades, strict=True)]


def _placed(x: str, rows: pd.DataFrame, all_values: pd.Series) -> tuple[np.ndarray, pd.DataFrame]:
    """The rows' positions on the axis, and the rows. Where x is a part of the decay, zero is not
    joined to the rest: the line would run through values at which only other lines have runs."""
    if x == "coupled_share":
        return rows.index.to_numpy(), rows
    if x != "weight_decay" and (rows.index == 0).any():
        rows = rows.reindex([0.0, np.nan, *rows.index[rows.index > 0]])
    return _position(rows.index, all_values), rows


def _setting_axis(axis: Axes, x: str, values: pd.Series) -> None:
    """A share from 0 to 1; decays on a log axis with a tick for zero."""
    axis.set_xlabel(X_LABELS[x])
    if x == "coupled_share":
        return
    axis.set_xscale("log")
    if x == "weight_decay":
        decays = np.sort(values.unique())
        axis.set_xticks(_position(decays, decays), _decay_labels(decays), rotation=90)
    else:
        low, high = values[values > 0].min(), values.max()
        decades = [10.0**e for e in range(-9, 4) if low <= 10.0**e <= high]
        decays = [0.0, *decades] if (values == 0).any() else decades
        axis.set_xticks(_position(decays, values), [f"{decay:g}" for decay in decays])
    axis.minorticks_off()


def _decay_labels(decays: Sequence[float]) -> list[str]:
    """One label a tick; empty where it would touch the next one, as that of 5 touches 10's."""
    labels, last = [], np.inf
    for decay in reversed(decays):
        free = last >= APART * decay
        labels.insert(0, f"{decay:g}" if free else "")
        last = decay if free else last
    return labels


def _position(decays: Sequence[float], all_decays: Sequence[float]) -> np.ndarray:
    """Decays on a log axis, where zero is drawn a decade below the least positive one."""
    zero = min((d for d in all_decays if d > 0), default=1.0) / 10
    return np.where(np.asarray(decays) > 0, decays, zero)
