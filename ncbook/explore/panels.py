"""The tabs over a store: one setting over its epochs, two side by side, and a map of settings."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import product
from typing import Any

import ipywidgets as widgets
import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize, to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from ncbook import figures, text
from ncbook.explore import controls
from ncbook.explore.controls import START, WORDS, Chooser
from ncbook.explore.view import MEASURES, StoreView

SHARED = ("dataset", "model", "recipe")
OWN = ("optimizer", "coupled_share", "lr", "momentum", "weight_decay")
REASONS = 5  # listed at most
OF_MAP = ("dataset", "model", "recipe", "optimizer", "coupled_share", "lr")
LINEAR = ("nc4", *figures.ACCURACIES)
NOTHING, NOT_CONVERGED = "#ffffff", "#d8d8d8"
BRIGHT = 0.532  # text on a colour with this share of green or more is black
CELL = "5.4em"
ACCURACY, SV_W, SV_M = "accuracy", "singular values of W", "singular values of M"
ALL_PANELS = (*figures.METRICS, ACCURACY, SV_W, SV_M)
LIVE_PANELS = ("nc0", "nc1", "nc2", "nc3", ACCURACY, SV_W)
COLUMNS, PANEL_WIDTH, PANEL_HEIGHT, LEGEND_HEIGHT = 3, 3.4, 2.45, 0.35
FEW = 8  # measurements: a line through fewer gets marks, or it would look like more
OTHER_COLOUR = "#333333"  # of the second of two lines that would have one colour
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

Line = tuple[pd.DataFrame, dict]  # the epochs of one or more runs, and how their line looks
Key = tuple[float, float]  # weight decay, momentum


class StorePanel(widgets.VBox):
    """What the tabs over a store have in common: a chooser, an invitation instead of it if the
    store is empty, and a status line. Each tab's ``draw()`` shows what is chosen; it is called
    when the tab is opened, not before."""

    def __init__(self, chooser: Chooser) -> None:
        self.chooser, self.status = chooser, controls.StatusLine()
        self.body, self.invitation = widgets.VBox(), widgets.HTML()
        self.view: StoreView | None = None
        self._fresh = True
        super().__init__([self.invitation, self.body])

    def take(self, view: StoreView) -> None:
        """Show another store, or the same one read again."""
        self.view, self._fresh = view, view.runs.empty
        self.body.layout.display = "none" if view.runs.empty else None
        self.invitation.value = controls.dense(view.invitation()) if view.runs.empty else ""
        self.chooser.offer(view.runs)

    def refresh(self) -> None:
        """Draw, if something has changed since the last time."""
        if not self._fresh:
            self.redraw()

    def redraw(self) -> None:
        """Draw what is chosen now."""
        self._fresh = True
        with self.status.working():
            self.draw()


class RunPanel(StorePanel):
    """Every metric of one setting over its epochs, and a table of its start and its end."""

    def __init__(self, chooser: Chooser | None = None) -> None:
        super().__init__(chooser or Chooser(tuple(WORDS), self.redraw, or_all=("seed",)))
        self.sides = {"": self.chooser}
        self.picture, self.table = controls.Picture(), widgets.HTML()
        shown = (self.status, self.picture, controls.note(READING), self.table)
        self.body.children = (self.chooser, *shown)

    def draw(self) -> None:
        chosen = {name: chooser.selected for name, chooser in self.sides.items()}
        history = self.view.history(pd.concat(chosen.values()).drop_duplicates("run_id"))
        lines = []
        for name, runs in chosen.items():
            look = figures.look(self.sides[name].chosen["optimizer"])
            look["label"] = f"{name}: {look['label']}" if name else look["label"]
            lines.append((history[history["run_id"].isin(runs["run_id"])], look))
        counts = "".join(ended(runs, f"{name}: " * bool(name)) for name, runs in chosen.items())
        self.table.value = controls.dense(counts + changes(chosen))
        if history.empty:
            self.picture.figure, self.picture.value = None, ""
        else:
            words = " and ".join(look["label"] for _, look in lines)
            self.picture.show(over_epochs(lines), f"{words}: every metric over the epochs")


class ComparePanel(RunPanel):
    """Two settings of one data set, network and training, in the same panels."""

    def __init__(self) -> None:
        starts = {"A": START, "B": START | {"optimizer": "adamw"}}
        sides = {n: Chooser(OWN, self.redraw, start=start) for n, start in starts.items()}
        super().__init__(Chooser(SHARED, self.redraw, followers=list(sides.values())))
        self.sides, columns = sides, []
        for name, chooser in sides.items():
            chooser.layout.flex_flow = "column"
            column = [widgets.HTML(f"<b>{name}</b>"), chooser]
            columns.append(widgets.VBox(column, layout={"margin": "0 2em 0 0"}))
        first, *rest = self.body.children
        self.body.children = (first, controls.row(*columns), *rest)


class MapPanel(StorePanel):
    """Means over the converged runs of each setting, as buttons in the colours of the book's maps;
    a press calls ``open_run`` with the settings of the cell's best run."""

    def __init__(self, open_run: Callable[..., Any]) -> None:
        super().__init__(Chooser(OF_MAP, self.redraw, or_all=("lr",)))
        options = [(label, name) for name, label in MEASURES.items()]
        self.metric = controls.dropdown("metric", "what the map shows, at the end", options)
        self.metric.observe(lambda _: self.redraw(), "value")
        self.grid = widgets.GridBox()
        self.buttons: dict[Key, widgets.Button] = {}
        self._open = open_run
        note = controls.note(
            "Rows: weight decay λ. Columns: momentum β. A cell: the mean over seeds of the runs "
            "with 99&nbsp;% training accuracy; grey: none had it; empty: nothing was trained "
            "there. With all learning rates: the mean of those means. Then not every cell need "
            "have the same rates: compare cells at one. <b>Press a cell to open its best run.</b>"
        )
        self.body.children = (self.chooser, self.metric, self.status, self.grid, note)

    def draw(self) -> None:
        runs, metric = self.chooser.selected, self.metric.value
        by = ["weight_decay", "momentum"]
        good = figures.converged(runs)
        # Over seeds first: a learning rate with few stored seeds counts as much as the others.
        values = good.groupby([*by, "lr"])[metric].mean().groupby(by).mean()
        self._lay_out(*(np.sort(runs[column].unique()).tolist() for column in by))
        trained, converged = (rows.groupby(by).size() for rows in (runs, good))
        colours = _colours(values, linear=metric in LINEAR)
        for key, button in self.buttons.items():
            where = f"weight decay {key[0]:g}, momentum {key[1]:g}"
            shown, colour, words = "", NOTHING, f"{where}: nothing was trained here"
            if key in trained:
                shown = f"{values[key]:.2g}" if key in values else "–"
                colour = colours.get(key, NOT_CONVERGED)
                counts = f"{converged.get(key, 0)} of {trained[key]} runs converged"
                words = f"{where}: {counts}. Press to open the best."
            # A cell without a label cannot be pressed.
            button.description, button.tooltip, button.disabled = shown, words, not shown
            text_colour = "black" if to_rgb(colour)[1] > BRIGHT else "white"
            button.style = {"button_color": colour, "text_color": text_colour}

    def _lay_out(self, decays: list[float], momenta: list[float]) -> None:
        """Make the buttons, unless those of the same axes exist; the largest decay on top."""
        keys = list(product(decays[::-1], momenta))
        if keys == list(self.buttons):
            return
        look = {"width": "auto", "height": "2.6em"}
        self.buttons = {key: widgets.Button(layout=look) for key in keys}
        children = [_head("λ ╲ β"), *(_head(f"{momentum:g}") for momentum in momenta)]
        for key, button in self.buttons.items():
            button.on_click(partial(self.press, key))
            children += [_head(f"{key[0]:g}"), button] if key[1] == momenta[0] else [button]
        self.grid.layout.grid_template_columns = f"repeat({len(momenta) + 1}, {CELL})"
        self.grid.children = children

    def press(self, key: Key, _: object) -> None:
        """Open the cell's best run by the rule of Table 2, or any if none converged."""
        runs = self.chooser.selected
        runs = runs[(runs["weight_decay"] == key[0]) & (runs["momentum"] == key[1])]
        best = figures.best_run(runs)
        best = runs.iloc[0] if best is None else best
        with self.status.working("opening the run…"):
            self._open(**best[[*OF_MAP, "momentum", "weight_decay", "seed"]])


def over_epochs(
    lines: Sequence[Line], panels: Sequence[str] = ALL_PANELS, last: int | None = None
) -> Figure:
    """Panels (of ``ALL_PANELS``) over the epochs up to ``last``, by default the lines' last one.
    Made without pyplot, whose state threads would share."""
    rows = -(-len(panels) // COLUMNS)
    figure = Figure(figsize=(PANEL_WIDTH * COLUMNS, PANEL_HEIGHT * rows + LEGEND_HEIGHT))
    figure.set_layout_engine("constrained", h_pad=0.08)  # inches: titles stand apart from ticks
    axes = figure.subplots(rows, COLUMNS, squeeze=False).flatten()
    lasts = [int(history["epoch"].max()) for history, _ in lines if not history.empty]
    for place, (axis, panel) in enumerate(zip(axes, panels, strict=False)):
        _panel(axis, lines, panel)
        figures.epoch_axis(axis, last or max(lasts, default=1))
        if place + COLUMNS < len(panels):  # the panel below names the axis
            axis.set_xlabel("")
    for axis in axes[len(panels) :]:
        axis.remove()
    handles = axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper left", ncols=len(lines))
    return figure


def _panel(axis: Axes, lines: Sequence[Line], panel: str) -> None:
    first_colour = lines[0][1]["color"]
    for place, (history, look) in enumerate(lines):
        again = place and look["color"] == first_colour
        for column, more in DRAWN.get(panel, {panel: {}}).items():
            if column in history:
                over = history.groupby("epoch")[column].agg(["median", "min", "max"])
                marks = {"marker": "o", "markersize": 3} if len(over) < FEW else {}
                own = {"color": OTHER_COLOUR} if again else {}
                figures.draw_band(axis, over, 0.15, **look | marks | own | more, gid=column)
    axis.set_title(figures.METRICS.get(panel, panel))
    if panel in (ACCURACY, "nc4"):
        axis.yaxis.set_major_formatter(PercentFormatter(1))
    else:
        figures.log_values(axis)


def ended(runs: pd.DataFrame, before: str = "") -> str:
    """How many runs these are, how they ended and how many collapsed, a paragraph of HTML."""
    reasons = runs.loc[runs["status"] == "failed", "reason"].dropna().unique()
    failed = "".join(f" Failed: {text.html(reason)}." for reason in reasons[:REASONS])
    return f"<p>{before}{figures.counted(runs)}. {figures.outcomes(runs)}.{failed}</p>"


def changes(sides: Mapping[str, pd.DataFrame]) -> str:
    """Metrics, gauge and accuracies of some runs, at the start, at the end and what is left in per
    cent, as an HTML table: medians, and columns for each named side."""
    labels = figures.measured(pd.concat(sides.values())) | figures.ACCURACIES
    parts = []
    for side, runs in sides.items():
        table = figures.start_and_end(runs[runs["status"] == "ok"], labels)
        left = table["at the end"] / table["at the start"]
        table["left"] = left.where([name in figures.MAIN for name in labels])  # others don't vanish
        parts.append(table.add_prefix(f"{side}, " if side else ""))
    both = pd.concat(parts, axis=1)
    return figures.shown(both, **{c: "{:.2%}" for c in both if c.endswith("left")}).to_html()


def _head(text: str) -> widgets.HTML:
    return widgets.HTML(f'<div style="text-align: center"><b>{text}</b></div>')


def _colours(values: pd.Series, linear: bool) -> dict[Key, str]:
    """A colour of viridis for each value, on a log scale where the book's maps have one."""
    usable = (values if linear else values[values > 0]).dropna()
    if usable.empty:
        return {}
    norm = (Normalize if linear else LogNorm)(usable.min(), usable.max())
    shown = values.dropna().clip(lower=usable.min())  # zero gets the darkest colour
    return {key: to_hex(colormaps["viridis"](norm(value))) for key, value in shown.items()}
