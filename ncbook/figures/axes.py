"""Panels, their axes and their one legend."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from ncbook import text

TITLE = 150  # characters, more than a page has room for


def panels(count: int) -> tuple[Figure, np.ndarray]:
    """Up to two panels in a row: more would be too small to read on a page."""
    columns = min(count, 2)
    rows = -(-count // columns)
    size = (4.4 * columns, 3.4 * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for axis in axes.flat[count:]:
        axis.remove()
    return figure, axes.flatten()[:count]


def finish(figure: Figure, axes: np.ndarray, title: str, legend_title: str = "") -> Figure:
    """Add the title, which is plain text, and one legend for all panels, to the right of them."""
    handles, labels = axes[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, title=legend_title, loc="outside right center")
    figure.suptitle(text.mathtext(title, TITLE))
    plt.close(figure)  # a notebook shows what a cell returns; left open, it would show it twice
    return figure


def epoch_axis(axis: Axes, last: int) -> None:
    """Epochs 0, 1, 10, 100 ... at equal distances, to the last one."""
    last = max(1, last)
    axis.set_xscale("symlog", linthresh=1)
    axis.set_xlim(0, last)
    ticks = [t for t in (0, 1, 10, 100, 1000) if t < last / 2.5]
    axis.set_xticks([*ticks, last], [str(t) for t in (*ticks, last)])
    axis.minorticks_off()
    axis.set_xlabel("epoch")


def log_values(axis: Axes) -> None:
    """A log y axis whose ticks read as numbers where it spans little, as powers where much."""
    axis.set_yscale("log")
    log_ticks(axis.yaxis)


def log_ticks(axis: Axis) -> None:
    low, high = axis.get_view_interval()
    if high < 1000 * low:
        # Steps of 1, 2, 5, 10 leave one or two ticks where an axis spans little: then equal steps.
        few = high < 5 * low
        axis.set_major_locator(
            MaxNLocator(6, steps=[1, 2, 5, 10]) if few else LogLocator(subs=(1, 2, 5))
        )
        axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axis.set_minor_formatter(NullFormatter())
