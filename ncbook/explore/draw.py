"""Figures over the epochs. They are made without pyplot, whose state threads would share."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from ncbook import figures

ACCURACY, SV_W, SV_M = "accuracy", "singular values of W", "singular values of M"
ALL_PANELS = (*figures.METRICS, ACCURACY, SV_W, SV_M)
LIVE_PANELS = ("nc0", "nc1", "nc2", "nc3", ACCURACY, SV_W)
COLUMNS, PANEL_WIDTH, PANEL_HEIGHT = 3, 3.4, 2.35
LEGEND_HEIGHT = 0.35
FEW = 8  # measurements: a line through fewer gets marks, or it would look like more
READING = (
    "Accuracy: of the training set; faint, of the test set. Singular values: the mean of all but "
    "the smallest; dotted, the smallest of W (that of M is zero in every network). Of several "
    "seeds: the median, and the band from the least to the largest."
)
# The columns that a panel draws, and how the further ones look; other panels draw their own column.
DRAWN = {
    ACCURACY: {"train_acc": {}, "test_acc": {"alpha": 0.45}},
    SV_W: {"w_sv_mean": {}, "w_sv_min": {"linestyle": ":"}},
    SV_M: {"m_sv_mean": {}},
}


@dataclass(frozen=True)
class Line:
    """The epochs of one or more runs that are drawn as one line, and its look."""

    history: pd.DataFrame
    label: str
    color: str
    linestyle: str = "-"


def over_epochs(
    lines: Sequence[Line], panels: Sequence[str] = ALL_PANELS, last: int | None = None
) -> Figure:
    """Panels (of ``ALL_PANELS``) over the epochs up to ``last``, by default the lines' last one."""
    rows = -(-len(panels) // COLUMNS)
    size = (PANEL_WIDTH * COLUMNS, PANEL_HEIGHT * rows + LEGEND_HEIGHT)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, COLUMNS, squeeze=False).flatten()
    lasts = [int(line.history["epoch"].max()) for line in lines if not line.history.empty]
    last = last or max(lasts, default=1)
    for place, (axis, panel) in enumerate(zip(axes, panels, strict=False)):
        _panel(axis, lines, panel)
        figures.epoch_axis(axis, last)
        if place + COLUMNS < len(panels):  # the panel below names the axis
            axis.set_xlabel("")
    for axis in axes[len(panels) :]:
        axis.remove()
    handles = axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper left", ncols=len(lines))
    return figure


def _panel(axis: Axes, lines: Sequence[Line], panel: str) -> None:
    for line in lines:
        for column, more in DRAWN.get(panel, {panel: {}}).items():
            if column in line.history:
                _median(axis, line, column, more)
    axis.set_title(figures.METRICS.get(panel, panel))
    if panel in (ACCURACY, "nc4"):
        axis.yaxis.set_major_formatter(PercentFormatter(1))
    else:
        figures.log_values(axis)


def _median(axis: Axes, line: Line, column: str, more: dict) -> None:
    look = {"color": line.color, "linestyle": line.linestyle} | more
    over = line.history.groupby("epoch")[column].agg(["median", "min", "max"])
    if len(over) < FEW:
        look |= {"marker": "o", "markersize": 3}
    axis.plot(over.index, over["median"], label=line.label, gid=column, **look)
    axis.fill_between(over.index, over["min"], over["max"], color=line.color, alpha=0.15, lw=0)
