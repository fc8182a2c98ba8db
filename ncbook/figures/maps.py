"""Heatmaps: a metric at the end over momentum and weight decay, a panel a metric."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from ncbook.figures.axes import finish
from ncbook.figures.selecting import converged
from ncbook.figures.style import METRICS


def heatmaps(
    runs: pd.DataFrame, metrics: Sequence[str] = ("nc0", "nc2", "nc3"), title: str = ""
) -> Figure:
    """Fig. 4: momentum x weight decay, mean over learning rates of the converged runs; cells
    without one are left grey."""
    figure, axes = plt.subplots(
        1, len(metrics), figsize=(3.6 * len(metrics), 3.6), squeeze=False, layout="constrained"
    )
    decays, momenta = (np.sort(runs[c].unique()) for c in ("weight_decay", "momentum"))
    for axis, metric in zip(axes[0], metrics, strict=True):
        table = converged(runs).pivot_table(index="weight_decay", columns="momentum", values=metric)
        _heatmap(axis, table.reindex(index=decays[::-1], columns=momenta))
        axis.set(title=METRICS[metric], xlabel="momentum $\\beta$", ylabel="")
    for axis in axes[0, 1:]:
        axis.set_yticks([])
    axes[0, 0].set_ylabel("weight decay $\\lambda$")
    return finish(figure, axes[0], title)


def _heatmap(axis: Axes, table: pd.DataFrame) -> None:
    axis.set_facecolor("#eeeeee")
    positive = table.to_numpy()[table.to_numpy() > 0]
    if not positive.size:
        axis.text(0.5, 0.5, "no run converged", ha="center", transform=axis.transAxes)
        return
    norm = LogNorm(positive.min(), positive.max())
    words = dict(annot=table.map(_short), fmt="", annot_kws={"fontsize": 8})
    words |= dict(xticklabels=[f"{c:g}" for c in table.columns])
    words |= dict(yticklabels=[f"{r:g}" for r in table.index])
    sns.heatmap(table, ax=axis, norm=norm, cmap="viridis", cbar=False, linewidths=0.5, **words)
    axis.tick_params(axis="y", rotation=0)


def _short(value: float) -> str:
    """Two digits, short enough for a cell; empty for NaN."""
    text = f"{value:.2g}" if value >= 0.001 else f"{value:.1e}"
    return "" if np.isnan(value) else text.replace("e-0", "e-").replace("e+0", "e")
