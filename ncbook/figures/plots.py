"""Every kind of figure: lines against a setting or over the epochs, heatmaps, scatters, parity."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from ncbook import stats, text
from ncbook.figures import style
from ncbook.figures.selecting import (
    LAW_FROM,
    by_optimizer,
    converged,
    exact_law,
    head_optimizer,
    over_seeds,
    products,
)
from ncbook.figures.style import ACCURACIES, MAIN, METRICS, MIXED, colour_of, label_of

X_LABELS = {
    "weight_decay": "weight decay $\\lambda$",
    "coupled_share": "coupled share $\\theta$ of the weight decay",
    "coupled_decay": "coupled decay $\\lambda_c$",
    "effective_decay": "effective decay $\\lambda_{\\mathrm{eff}}$",
}
# Of a panel over the epochs: its label and its columns, the first a solid line, the second dotted.
OVER_EPOCHS = {name: (label, name) for name, label in METRICS.items()} | {
    "w": ("singular values of W", "w_sv_mean", "w_sv_min"),
    "m": ("singular values of M", "m_sv_mean"),
}
MARKS = ["o", "s", "^", "D", "v"]
TWO = ("nc0", "nc3")
MOST_IN_ROW = 3  # panels
CLEAR = 0.055  # of an axis: labels further apart do not touch

Names = Sequence[str]
FORMATS = ("float64", "float32", "bfloat16")
MAP_FROM = 1e-3  # and all that is smaller, in the same colour
SMALLEST = 1e-12  # share of NC0 at the edge of the parity plots


def against_weight_decay(
    runs: pd.DataFrame, metrics: Names = TWO, title: str = "", only_converged: bool = True
) -> Figure:
    """Fig. 1 and 3: metrics at the end against weight decay, mean and ±1 sd over the converged
    runs of each optimizer; or, as Fig. 17 and 18, over all that did not diverge."""
    good = converged(runs) if only_converged else runs[runs["status"] == "ok"]
    figure, axes = style.panels(len(metrics))
    for axis, metric in zip(axes, metrics, strict=True):
        groups = good.groupby(["optimizer", "weight_decay"])[metric]
        mean, spread = groups.mean(), groups.std().fillna(0)
        # On a log axis mean - sd may be negative: the band then ends at the least value seen.
        low = (mean - spread).clip(lower=groups.min())
        _lines_against(axis, "weight_decay", runs, pd.concat([mean, low, mean + spread], axis=1))
        _end_axes(axis, "weight_decay", runs["weight_decay"], metric)
    return style.finish(figure, axes, title)


def against(
    runs: pd.DataFrame, x: str, metrics: Names = TWO, hue: str = "optimizer", title: str = ""
) -> Figure:
    """Metrics (log axes) or accuracies at the end against a setting of ``X_LABELS``, one line for
    each value of ``hue``, ``optimizer`` or a column of numbers: the median of all runs given,
    converged or not, with the band from the least to the largest (see ``over_seeds``)."""
    figure, axes = style.panels(len(metrics))
    for axis, metric in zip(axes, metrics, strict=True):
        _lines_against(axis, x, runs, over_seeds(runs, [hue, x], metric).dropna())
        _end_axes(axis, x, runs[x], metric)
    drawn = ", ".join((METRICS | ACCURACIES)[metric] for metric in metrics)
    lines = ", ".join(label for _, _, label in _hues(runs[hue]))
    x, hue = (name.replace("_", " ") for name in (x, hue))
    figure.set_label(
        f"{title}. {drawn} at the end against the {x}, one line for each {hue}: {lines}."
    )
    return style.finish(figure, axes, title, "" if hue == "optimizer" else hue)


def _lines_against(axis: Axes, x: str, runs: pd.DataFrame, table: pd.DataFrame) -> None:
    """A line for each value of the table's first index; the second has positions on the axis."""
    hue = table.index.names[0]
    for value, colour, label in _hues(runs[hue]):
        if value not in table.index:
            continue
        rows = table.loc[value]
        # Where x is a part of the decay, zero is not joined to the rest: the line would run through
        # values at which only other lines have runs.
        if x in ("coupled_decay", "effective_decay") and (rows.index == 0).any():
            rows = rows.reindex([0.0, np.nan, *rows.index[rows.index > 0]])
        at = rows.index if x == "coupled_share" else _position(rows.index, runs[x])
        dashes = style.look(value)["linestyle"] if hue == "optimizer" else "-"
        look = dict(color=colour, label=label, linestyle=dashes, marker="o", ms=4)
        draw_band(axis, rows.set_axis(at), 0.18, **look)


def draw_band(axis: Axes, rows: pd.DataFrame, shade: float, **look: object) -> None:
    """A line through the rows' first column, over their index, and a band between the next two."""
    middle, low, high = (rows.iloc[:, place] for place in range(3))
    axis.plot(rows.index, middle, **look)
    axis.fill_between(rows.index, low, high, color=look["color"], alpha=shade, lw=0)


def _end_axes(axis: Axes, x: str, values: pd.Series, metric: str) -> None:
    """Label the axes: x a share from 0 to 1, or decays on a log axis with a tick for zero."""
    axis.set_xlabel(X_LABELS[x])
    if x != "coupled_share":
        ticks = np.sort(values.unique())
        if x != "weight_decay":
            decades = np.array([float(f"1e{e}") for e in range(-9, 4)])  # each as it is written
            inside = (ticks[ticks > 0].min(initial=np.inf) <= decades) & (decades <= ticks.max())
            ticks = np.concatenate([ticks[ticks == 0], decades[inside]])
        axis.set_xscale("log")
        turned = 90 if x == "weight_decay" else 0
        at = _position(ticks, values)
        axis.set_xticks(at, _labels(at, ticks), rotation=turned)
        axis.minorticks_off()
    axis.set_ylabel((METRICS | ACCURACIES)[metric] + " at the end")
    if metric in ACCURACIES:
        axis.yaxis.set_major_formatter(PercentFormatter(1))
    else:
        style.log_values(axis)


def _labels(at: np.ndarray, ticks: np.ndarray) -> list[str]:
    """Labels of ticks on a log axis, without those that would touch the one before."""
    places = np.log10(at)
    labels, last = [], -np.inf
    for place, tick in zip(places, ticks, strict=True):
        clear = place - last > CLEAR * np.ptp(places)
        labels.append(f"{tick:g}" if clear else "")
        last = place if clear else last
    return labels


def _position(decays: Sequence[float], all_decays: Sequence[float]) -> np.ndarray:
    """Decays on a log axis, where zero is drawn a decade below the least positive one."""
    zero = min((d for d in all_decays if d > 0), default=1.0) / 10
    return np.where(np.asarray(decays) == 0, zero, decays)


def _hues(values: pd.Series) -> list[tuple[object, object, str]]:
    """(value, colour, label) of every line: optimizers in their own, numbers in shades."""
    if values.name == "optimizer":
        return [(name, colour_of(name), label_of(name)) for name in style.present(values)]
    numbers = np.sort(values.unique())
    shades = sns.color_palette("viridis", len(numbers))
    return [(v, shade, f"{v:g}") for v, shade in zip(numbers, shades, strict=True)]


def over_epochs(
    history: pd.DataFrame, metrics: Names = MAIN, hue: str = "weight_decay", title: str = ""
) -> Figure:
    """Fig. 5, 6 and 16: metrics over epochs, one line for each value of ``hue``, median and
    quartiles. Of the matrices ``w`` and ``m`` the singular values: the mean of all but the smallest
    (solid) and, for W, the smallest (dotted); that of M is always zero, since its rows are centred,
    and not drawn."""
    figure, axes = style.panels(len(metrics))
    for axis, metric in zip(axes, metrics, strict=True):
        label, *columns = OVER_EPOCHS[metric]
        axis.set_ylabel(label)
        for column, dots in zip(columns, ("-", ":"), strict=False):
            for value, colour, name in _hues(history[hue]):
                groups = history[history[hue] == value].groupby("epoch")[column]
                quartiles = groups.quantile([0.5, 0.25, 0.75]).unstack()
                look = dict(color=colour, linestyle=dots, label=name if dots == "-" else None)
                draw_band(axis, quartiles, 0.12, **look)
        if not history.empty:
            style.epoch_axis(axis, int(history["epoch"].max()))
        style.log_values(axis)
    return style.finish(figure, axes, title, hue.replace("_", " "))


def heatmaps(runs: pd.DataFrame, metrics: Names = ("nc0", "nc2", "nc3"), title: str = "") -> Figure:
    """Fig. 4: momentum x weight decay, mean over learning rates of the converged runs; cells
    without one are left grey."""
    size = (3.6 * len(metrics), 3.6)
    figure, axes = plt.subplots(1, len(metrics), figsize=size, squeeze=False, layout="constrained")
    decays, momenta = (np.sort(runs[c].unique()) for c in ("weight_decay", "momentum"))
    for axis, metric in zip(axes[0], metrics, strict=True):
        table = converged(runs).pivot_table(index="weight_decay", columns="momentum", values=metric)
        _heatmap(axis, table.reindex(index=decays[::-1], columns=momenta))
        axis.set(title=METRICS[metric], xlabel="momentum $\\beta$", ylabel="")
        if axis is not axes[0, 0]:
            axis.set_yticks([])
    axes[0, 0].set_ylabel("weight decay $\\lambda$")
    return style.finish(figure, axes[0], title)


def _heatmap(axis: Axes, table: pd.DataFrame) -> None:
    axis.set_facecolor("#eeeeee")
    positive = table.to_numpy()[table.to_numpy() > 0]
    if not positive.size:
        axis.text(0.5, 0.5, "no run converged", ha="center", transform=axis.transAxes)
        return
    look = dict(norm=LogNorm(positive.min(), positive.max()), cmap="viridis", linewidths=0.5)
    words = dict(annot=table.map(_short), fmt="", annot_kws={"fontsize": 8})
    table = table.rename("{:g}".format).rename("{:g}".format, axis=1)
    sns.heatmap(table, ax=axis, cbar=False, **look, **words)
    axis.tick_params(axis="y", rotation=0)


def _short(value: float) -> str:
    """Two digits, short enough for a cell; empty for NaN."""
    text = f"{value:.2g}" if value >= 0.001 else f"{value:.1e}"
    return "" if np.isnan(value) else text.replace("e-0", "e-").replace("e+0", "e")


def scatters(runs: pd.DataFrame, x: str = "nc0", y: str = "nc3", title: str = "") -> Figure:
    """Fig. 2, 9-12 and 44: one metric at the end against another, whose axis is logarithmic as in
    the paper, one dot for each run, converged or not, and the line of least squares of y on log10
    x, if one exists."""
    figure, (axis,) = style.panels(1)
    for optimizer, rows in by_optimizer(runs):
        look = dict(s=14, color=colour_of(optimizer), alpha=0.6, lw=0)
        axis.scatter(rows[x], rows[y], **look, label=label_of(optimizer))
    axis.set(xscale="log", xlabel=METRICS[x], ylabel=METRICS[y])
    style.log_ticks(axis.xaxis)
    rows = runs[(runs[x] > 0) & runs[y].notna()].assign(log=lambda r: np.log10(r[x]))
    fit = stats.lines(rows, "log", y).iloc[-1]
    if np.isnan(fit["slope"]):
        axis.set_title(f"n = {len(rows):,}")
    else:
        ends = np.array([rows["log"].min(), rows["log"].max()])
        axis.plot(10**ends, fit["intercept"] + fit["slope"] * ends, color="#333333", lw=1.2)
        axis.set_title(f"n = {len(rows):,}, R² = {fit['r2']:.2f}")
    what = "dots in the optimizers' colours, and the line of least squares"
    figure.set_label(f"{title}. {METRICS[y]} against {METRICS[x]}: {what}")
    return style.finish(figure, np.array([axis]), title)


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
    words = "NC0 measured against NC0 by the exact law, and the line of equality"
    figure.set_label(f"{title}. {words}")
    return style.finish(figure, np.array([axis]), title)


def parity_by_format(runs: pd.DataFrame, title: str = "") -> Figure:
    """NC0 at the end over its start against the exact law's prediction, one dot a run in the colour
    of its last layer's optimizer, in a panel for each number format of the update. The line is no
    fit: on it both are equal. Runs below ``SMALLEST`` are drawn there."""
    law, left = exact_law(runs), runs["nc0"] / runs["nc0_init"]
    runs = runs.assign(
        law=law.clip(SMALLEST), left=left.clip(SMALLEST), optimizer=head_optimizer(runs)
    )
    runs = runs[law.notna() & (runs["nc0"] > 0)]
    kinds = [kind for kind in FORMATS if (products(runs) == kind).any()]
    figure, axes = style.panels(max(1, len(kinds)))
    limits = runs[["law", "left"]].agg(["min", "max"])
    for axis, kind in zip(axes, kinds, strict=False):
        rows = runs[products(runs) == kind]
        for name, own in by_optimizer(rows):
            dots = dict(s=18, facecolor="none", edgecolor=colour_of(name), lw=0.9)
            axis.scatter(own["law"], own["left"], **dots, label=label_of(name))
        axis.axline((1, 1), (10, 10), color="#555555", lw=0.8, zorder=0)
        axis.set(xscale="log", yscale="log", title=f"{kind} (n = {len(rows):,})")
        axis.set(xlabel="NC0 left by the law", ylabel="NC0 left, measured")
        axis.set(xlim=limits["law"] * [0.3, 3], ylim=limits["left"] * [0.3, 3])
    figure.set_label(f"{title}. Share of NC0 left, measured against the exact law, by format")
    return style.finish(figure, axes, title)


def pair_map(runs: pd.DataFrame, order: Names, metric: str, title: str) -> Figure:
    """Medians of a metric over the runs of each pair of optimizers, those of the columns ``hidden``
    (of the hidden layers) and ``last``, as a coloured table on a logarithmic scale, which starts at
    ``MAP_FROM``; ``order`` has the optimizers."""
    figure, axis = plt.subplots(figsize=(3.9, 3.3), layout="constrained")
    table = runs.pivot_table(index="hidden", columns="last", values=metric, aggfunc="median")
    table = table.reindex(index=order, columns=order)
    words = dict(annot=table.map(_short), fmt="", annot_kws={"fontsize": 8})
    look = dict(norm=LogNorm(MAP_FROM, 1), cmap="viridis", linewidths=0.5, cbar=False)
    if table.notna().any(axis=None):
        sns.heatmap(table.clip(MAP_FROM), ax=axis, **look, **words)
    axis.set(xlabel="last layer", ylabel="hidden layers")
    axis.tick_params(rotation=0, labelsize=8)
    figure.set_label(f"{title} for each pair of optimizers")
    return style.finish(figure, np.array([axis]), title)


def against_by_setting(runs: pd.DataFrame, by: str, metrics: Names = TWO) -> Figure:
    """Small multiples of ``against`` weight decay: a row for each value of the column ``by``."""
    names = list(dict.fromkeys(runs[by]))
    shape = len(names), len(metrics)
    size = (3.5 * shape[1], 2.3 * shape[0] + 0.8)
    figure, axes = plt.subplots(*shape, figsize=size, squeeze=False, layout="constrained")
    for row, name in zip(axes, names, strict=True):
        own = runs[runs[by] == name]
        for axis, metric in zip(row, metrics, strict=True):
            lines = over_seeds(own, ["optimizer", "weight_decay"], metric).dropna()
            _lines_against(axis, "weight_decay", own, lines)
            _end_axes(axis, "weight_decay", own["weight_decay"], metric)
            axis.set_ylabel(METRICS[metric], fontsize=9)
            axis.set_title(text.mathtext(name, text.NAME), fontsize=9)
            axis.tick_params(labelsize=7)
    for axis in axes[:-1].flat:
        axis.set_xlabel("")
    drawn = " and ".join(METRICS[metric] for metric in metrics)
    figure.set_label(f"{drawn} at the end against the weight decay, for: {'; '.join(names)}")
    return style.finish(figure, axes.flatten(), "", loc="outside upper center", ncols=3)


def raw_and_centred(runs: pd.DataFrame, panel: str, order: Names, title: str = "") -> Figure:
    """NC3 of W (circle) and of W centred over the classes (dot), median over the seeds with a bar
    from the least to the largest, and the gauge's share of W in per cent at the right; a row an
    optimizer, a panel a value of the column ``panel``. What lies between circle and dot is gauge:
    no prediction depends on it."""
    names = list(dict.fromkeys(runs[panel]))
    columns = max(1, min(len(names), MOST_IN_ROW))
    rows = max(1, -(-len(names) // columns))
    size = (2.7 * columns + 1.6, rows * (0.27 * len(order) + 1) + 0.4)
    look = dict(figsize=size, sharex=True, sharey=True, squeeze=False, layout="constrained")
    figure, axes = plt.subplots(rows, columns, **look)
    for axis in axes.flat[len(names) :]:
        axis.set_visible(False)
    for axis, name in zip(axes.flat, names, strict=False):
        own = runs[runs[panel] == name]
        for height, optimizer in enumerate(order):
            _circle_and_dot(axis, height, own[own["optimizer"] == optimizer], optimizer)
        axis.set(xscale="log", xlabel="NC3")
        axis.set_title(text.mathtext(name, text.NAME), fontsize=10)
        axis.text(1.01, 1.02, "gauge", transform=axis.transAxes, fontsize=7)
        axis.tick_params(labelbottom=True)
        axis.grid(axis="y", visible=False)
    axes[0, 0].set_yticks(range(len(order)), [label_of(name) for name in order])
    axes[0, 0].invert_yaxis()
    for label, face in (("NC3", "none"), ("NC3, centred W", "#555555")):
        axes[0, 0].scatter([], [], s=34, facecolor=face, edgecolor="#555555", label=label)
    figure.set_label(f"{title}. NC3, NC3 of the centred W, and the gauge share, by optimizer")
    return style.finish(figure, axes.flatten(), title, loc="outside lower center", ncols=2)


def _circle_and_dot(axis: Axes, height: int, runs: pd.DataFrame, optimizer: str) -> None:
    if runs.empty:
        return
    colour = colour_of(optimizer)
    ends = runs[["nc3", "nc3_centred"]].astype(float).agg(["median", "min", "max"])
    axis.plot(ends.loc["median"], [height, height], color=colour, lw=1)
    for metric, face, lift in (("nc3", "none", -0.12), ("nc3_centred", colour, 0.12)):
        middle, *span = ends[metric]
        axis.hlines(height + lift, *span, color=colour, lw=2, alpha=0.4)
        axis.scatter(middle, height, s=34, facecolor=face, edgecolor=colour, zorder=3)
    share = runs["gauge_share"].astype(float).median()
    if np.isfinite(share):
        at = dict(transform=axis.get_yaxis_transform(), ha="left", va="center", fontsize=7)
        axis.text(1.01, height, f"{share:.0%}", **at)
