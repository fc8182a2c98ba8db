"""Figures of the explorer. They are made without pyplot, whose state threads would share."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from ncbook import figures, theory

ACCURACY, SV_W, SV_M = "accuracy", "singular values of W", "singular values of M"
ALL_PANELS = (*figures.METRICS, ACCURACY, SV_W, SV_M)
LIVE_PANELS = ("nc0", "nc1", "nc2", "nc3", ACCURACY, SV_W)
COLUMNS, PANEL_WIDTH, PANEL_HEIGHT = 3, 3.4, 2.35
LEGEND_HEIGHT = 0.35
FEW = 8  # measurements, between which a line without marks would look like more
THEORY_SIZE = (9.2, 3.9)
PAPERS = "#555555"  # the paper's own numbers
FLOOR, CEILING = 1e-12, 1e6  # shares of the start drawn: float32 sees nothing so far below
READING = (
    "Accuracy: of the training set; faint, of the test set. Singular values: the mean of all but "
    "the smallest; dotted, the smallest of W (that of M is zero in every network). Of several "
    "seeds: the median, and the band from the least to the largest."
)


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
    """Metrics, accuracies and singular values over the epochs.

    Args:
        lines: what to draw.
        panels: of ``ALL_PANELS``.
        last: the epoch at which the axes end; by default the last one there is.
    """
    rows = -(-len(panels) // COLUMNS)
    size = (PANEL_WIDTH * COLUMNS, PANEL_HEIGHT * rows + LEGEND_HEIGHT)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, COLUMNS, squeeze=False).flatten()
    lasts = [int(line.history["epoch"].max()) for line in lines if not line.history.empty]
    last = last or max(lasts, default=1)
    for place, (axis, panel) in enumerate(zip(axes, panels, strict=False)):
        _panel(axis, lines, panel)
        figures.epoch_axis(axis, last)
        if place + COLUMNS < len(panels):  # there is one below that says it
            axis.set_xlabel("")
    for axis in axes[len(panels) :]:
        axis.remove()
    handles = axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper left", ncols=len(lines))
    return figure


def _panel(axis: Axes, lines: Sequence[Line], panel: str) -> None:
    for line in lines:
        look = {"color": line.color, "linestyle": line.linestyle}
        for column, more in _columns(panel).items():
            _median(axis, line, column, **(look | more))
    axis.set_title(figures.METRICS.get(panel, panel))
    if panel in (ACCURACY, "nc4"):
        axis.yaxis.set_major_formatter(PercentFormatter(1))
    else:
        figures.log_values(axis)


def _columns(panel: str) -> dict[str, dict]:
    """The columns that a panel draws, and how the further ones look."""
    several = {
        ACCURACY: {"train_acc": {}, "test_acc": {"alpha": 0.45}},
        SV_W: {"w_sv_mean": {}, "w_sv_min": {"linestyle": ":"}},
        SV_M: {"m_sv_mean": {}},
    }
    return several.get(panel, {panel: {}})


def _median(axis: Axes, line: Line, column: str, **look) -> None:
    if column not in line.history:
        return
    over = line.history.groupby("epoch")[column].agg(["median", "min", "max"])
    if len(over) < FEW:
        look |= {"marker": "o", "markersize": 3}
    axis.plot(over.index, over["median"], label=line.label, gid=column, **look)
    axis.fill_between(over.index, over["min"], over["max"], color=look["color"], alpha=0.15, lw=0)


# ------------------------------------------------------------ theorems


@dataclass(frozen=True)
class Law:
    """Settings of the exact law: a constant learning rate, or the paper's three of a training."""

    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-3
    epochs: int = 200
    steps_per_epoch: int = 11
    drops: bool = False

    @property
    def steps(self) -> np.ndarray:
        """After each of which the law is drawn."""
        return np.arange(self.epochs + 1) * self.steps_per_epoch

    def left(self, decoupled: bool) -> np.ndarray:
        """NC0 at these steps over its start (``theory.row_sum_trajectory``)."""
        given = (self.lr, self.momentum, self.weight_decay, self.steps_per_epoch, self.epochs)
        milestones = {} if self.drops else {"milestones": ()}
        return np.abs(theory.row_sum_trajectory(self.steps, *given, decoupled, **milestones))

    def bound(self) -> np.ndarray:
        """The root of Theorem 3.1's bound, which is on the square of NC0."""
        given = (self.lr, self.momentum, self.weight_decay)
        return np.sqrt(theory.theorem31_bound(self.steps, *given))


def law(settings: Law) -> Figure:
    """What is left of NC0 under SGD and SGDW, and what Theorem 3.1 bounds it by. The bound is of
    a constant learning rate, and of coupled decay."""
    figure = Figure(figsize=THEORY_SIZE, layout="constrained")
    axis, steps = figure.subplots(), settings.steps
    for name in ("sgd", "sgdw"):
        axis.plot(steps, settings.left(name == "sgdw"), **figures.look(name))
    if not settings.drops:
        axis.plot(steps, settings.bound(), ":", color=PAPERS, label="Theorem 3.1's bound for SGD")
    axis.set(xlabel="step", ylabel="NC0 over its start", yscale="log", xlim=(0, steps[-1]))
    low, high = axis.get_ylim()
    axis.set_ylim(max(low, FLOOR), min(max(high, 1.2), CEILING))
    figures.log_values(axis)
    figure.legend(*axis.get_legend_handles_labels(), loc="outside upper left", ncols=3)
    return figure


@dataclass(frozen=True)
class SignDescent:
    """Settings of Theorems 3.3 and 3.4: sign descent on collapsed features, from W = 0."""

    num_classes: int = 10
    lr: float = 0.01
    weight_decay: float = 0.05
    steps: int = 500

    def alpha(self, coupled: bool) -> np.ndarray:
        """NC0²/K after each step, (steps + 1,)."""
        given = (self.num_classes, self.lr, self.weight_decay, self.steps)
        return theory.simulate_signgd(*given, coupled=coupled)

    @property
    def turns(self) -> theory.TurningPoints:
        """Where the coupled one turns."""
        return theory.turning_points(self.num_classes, self.lr, self.weight_decay)


def sign_descent(settings: SignDescent) -> Figure:
    """α = NC0²/K under coupled and decoupled SignGD, the decoupled one's limit, and the steps at
    which the coupled one turns."""
    figure = Figure(figsize=THEORY_SIZE, layout="constrained")
    axis, steps = figure.subplots(), np.arange(settings.steps + 1)
    looks = {True: figures.look("signum"), False: figures.look("signumw")}
    for coupled, look in looks.items():
        look["label"] = "coupled (Theorem 3.4)" if coupled else "decoupled (Theorem 3.3)"
        axis.plot(steps, settings.alpha(coupled), **look)
    if settings.num_classes > 2:
        limit = theory.decoupled_limit(settings.num_classes, settings.weight_decay)
        axis.axhline(limit, color=looks[False]["color"], lw=1.2, ls=":", label="its limit")
    for name, at in zip(("T₁", "T₂"), settings.turns[:2], strict=True):
        if at <= settings.steps:
            axis.axvline(at, color="#555555", lw=0.8)
            where = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
            axis.annotate(name, (at, 0), (4, 6), **where)
    axis.set(xlabel="step", ylabel="α = NC0²/K", xlim=(0, settings.steps))
    axis.set_yscale("symlog", linthresh=settings.lr**2)
    axis.set_ylim(bottom=0)
    figure.legend(*axis.get_legend_handles_labels(), loc="outside upper left", ncols=3)
    return figure
