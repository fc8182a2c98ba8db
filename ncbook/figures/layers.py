"""How collapsed each layer of a network is, from the first to the last."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ncbook import text
from ncbook.figures import style

# Of a panel: its label, and its columns, the first a solid line, the second dotted.
PANELS = {
    "NC1": ("nc1",),
    "accuracy of the\nnearest class mean": ("train_ncm_acc", "test_ncm_acc"),
    "effective rank": ("effective_rank",),
}
NAMED = 20  # layers at most whose names are on the axis
NAME = 22  # characters of one
COLUMNS = 4  # of the legend
ALONE = "#0072B2"  # colour of a single curve
SPLITS = (("training samples", "-"), ("test samples", ":"))


def by_layer(layers: pd.DataFrame, by: str | None = None, title: str = "") -> Figure:
    """NC1, the accuracy of the nearest class mean, and the effective rank, over the layers.

    Args:
        layers: rows as of ``measure(...).layers``: ``position``, ``layer``, and the metrics.
        by: a column, such as ``optimizer`` or ``epoch``; one colour for each of its values. Several
            rows of one value and position (of several seeds) are a median and a band from the least
            to the largest.
    """
    layers = layers.assign(nc1=layers["nc1"].where(layers["nc1"] > 0))  # its axis has no zero
    figure, axes = plt.subplots(3, 1, sharex=True, figsize=(6.6, 7), layout="constrained")
    for axis, (label, columns) in zip(axes, PANELS.items(), strict=True):
        axis.set_ylabel(label)
        for rows, colour, name in _curves(layers, by):
            for column, (_, dots) in zip(columns, SPLITS, strict=False):
                label = name if dots == "-" else None
                _curve(axis, rows, column, color=colour, linestyle=dots, label=label)
    style.log_values(axes[0])
    axes[1].yaxis.set_major_formatter(PercentFormatter(1))
    axes[2].set_ylim(bottom=0)
    _name_layers(axes[-1], layers)
    if layers["test_ncm_acc"].notna().any():
        for name, dots in SPLITS:
            axes[1].plot([], [], color="#333333", linestyle=dots, label=name)
    words = "NC1, the accuracy of the nearest class mean, and the effective rank, by layer"
    names = [name for _, _, name in _curves(layers, by) if name]
    figure.set_label(f"{title or 'Layers'}: {words}. Lines: {', '.join(names) or 'one'}")
    return style.finish(figure, axes[:2], title, loc="outside lower center", ncols=COLUMNS)


def _curves(layers: pd.DataFrame, by: str | None) -> Iterator[tuple]:
    """Rows, colour and label of each line."""
    if by is None:
        yield layers, ALONE, None
    elif by == "optimizer":
        for name in style.present(layers[by]):
            yield layers[layers[by] == name], style.colour_of(name), style.label_of(name)
    else:
        values = np.sort(layers[by].unique())
        for value, shade in zip(values, sns.color_palette("viridis", len(values)), strict=True):
            name = value if isinstance(value, str) else f"{by.replace('_', ' ')} {value:g}"
            yield layers[layers[by] == value], shade, text.mathtext(name, text.NAME)


def _curve(axis: Axes, layers: pd.DataFrame, column: str, **look: object) -> None:
    values = layers.groupby("position")[column].agg(["median", "min", "max"]).dropna()
    axis.plot(values.index, values["median"], marker="o", ms=4, **look)
    if (values["min"] < values["max"]).any():
        band = values["min"], values["max"]
        axis.fill_between(values.index, *band, color=look["color"], alpha=0.15, lw=0)


def _name_layers(axis: Axes, layers: pd.DataFrame) -> None:
    """Names as ticks where there are few, and each position has one; else positions."""
    names = layers.groupby("position")["layer"].unique()
    if len(names) <= NAMED and (names.map(len) == 1).all():
        short = [text.mathtext(name[0], NAME) for name in names]
        axis.set_xticks(names.index, short, rotation=45, ha="right", rotation_mode="anchor")
    else:
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set_xlabel("layer, from the input to the last")
