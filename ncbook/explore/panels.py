"""The tabs over a store: one setting over its epochs, a map of settings, and two side by side."""

from collections.abc import Callable
from functools import partial
from typing import Any

import ipywidgets as widgets
import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.colors import LogNorm, Normalize, to_hex, to_rgb

from ncbook import figures, text
from ncbook.explore import controls, draw
from ncbook.explore.chooser import START, WORDS, Chooser
from ncbook.explore.view import MEASURES, StoreView

SHARED = ("dataset", "model", "recipe")
OWN = ("optimizer", "coupled_share", "lr", "momentum", "weight_decay")
REASONS = 5  # listed at most
OTHER_COLOUR = "#333333"  # of the second of two settings of one optimizer
OF_MAP = ("dataset", "model", "recipe", "optimizer", "coupled_share", "lr")
LINEAR = ("nc4", *figures.ACCURACIES)
NOTHING, NOT_CONVERGED = "#ffffff", "#d8d8d8"
BRIGHT = 0.45  # text on a colour of this luminance or more is black
WEIGHTS = (0.2126, 0.7152, 0.0722)  # of red, green and blue in the luminance (ITU-R BT.709)
CELL = "5.4em"

Key = tuple[float, float]  # weight decay, momentum


class StorePanel(widgets.VBox):
    """What the tabs over a store have in common: a chooser, an invitation instead of it if the
    store is empty, and a status line. Each tab's ``draw()`` shows what is chosen; it is called
    when the tab is opened, not before."""

    chooser: Chooser

    def __init__(self) -> None:
        self.status = controls.StatusLine()
        self.body, self.invitation = widgets.VBox(), widgets.HTML()
        self.view: StoreView | None = None
        self._fresh = False
        super().__init__([self.invitation, self.body])

    def take(self, view: StoreView) -> None:
        """Show another store, or the same one read again."""
        self.view, self._fresh = view, False
        empty = view.runs.empty
        self.body.layout.display = "none" if empty else None
        self.invitation.value = controls.dense(view.invitation()) if empty else ""
        self.offer(view.runs)

    def offer(self, runs: pd.DataFrame) -> None:
        """Let the user choose among these runs."""
        self.chooser.offer(runs)

    def refresh(self) -> None:
        """Draw, if something has changed since the last time."""
        if not self._fresh and self.view is not None and not self.view.runs.empty:
            self.redraw()

    def redraw(self) -> None:
        """Draw what is chosen now."""
        self._fresh = True
        with self.status.working():
            self.draw()


class RunPanel(StorePanel):
    """Every metric of one setting over its epochs, and a table of its start and its end."""

    def __init__(self) -> None:
        super().__init__()
        self.chooser = Chooser(tuple(WORDS), self.redraw, or_all=("seed",))
        self.picture, self.table = controls.Picture(), widgets.HTML()
        note = controls.note(draw.READING)
        self.body.children = (self.chooser, self.status, self.picture, note, self.table)

    def open_run(self, **values: object) -> None:
        """Choose a run and draw it."""
        self.chooser.choose(**values)
        self.redraw()

    def draw(self) -> None:
        runs = self.chooser.selected
        self.table.value = controls.dense(ended(runs) + as_table(changes(runs)))
        look = figures.look(self.chooser.chosen["optimizer"])
        _show([draw.Line(self.view.history(runs), **look)], self.picture)


class ComparePanel(StorePanel):
    """Two settings of one data set, network and training, in the same panels."""

    def __init__(self) -> None:
        super().__init__()
        self.chooser = Chooser(SHARED, self._shared_choice)
        starts = {"A": START, "B": START | {"optimizer": "adamw"}}
        self.sides = {n: Chooser(OWN, self.redraw, start=start) for n, start in starts.items()}
        self.picture, self.table = controls.Picture(), widgets.HTML()
        sides = controls.row(*(_column(name, chooser) for name, chooser in self.sides.items()))
        note = controls.note(draw.READING)
        self.body.children = (self.chooser, sides, self.status, self.picture, note, self.table)

    def offer(self, runs: pd.DataFrame) -> None:
        super().offer(runs)
        for chooser in self.sides.values():
            chooser.offer(self.chooser.selected)

    def _shared_choice(self) -> None:
        self.offer(self.view.runs)
        self.redraw()

    def draw(self) -> None:
        tables, lines = {}, []
        for name, chooser in self.sides.items():
            look = figures.look(chooser.chosen["optimizer"])
            look["label"] = f"{name}: {look['label']}"
            if lines and lines[0].color == look["color"]:
                look["color"] = OTHER_COLOUR
            lines.append(draw.Line(self.view.history(chooser.selected), **look))
            tables[name] = changes(chooser.selected)
        both = pd.concat(tables, axis=1)
        both.columns = [f"{name}, {column}" for name, column in both.columns]
        counts = "".join(ended(c.selected, f"{n}: ") for n, c in self.sides.items())
        self.table.value = controls.dense(counts + as_table(both))
        _show(lines, self.picture)


class MapPanel(StorePanel):
    """Means over the converged runs of each setting, as buttons in the colours of the book's maps.

    Args:
        open_run: called with the settings of the run that a button stands for.
    """

    def __init__(self, open_run: Callable[..., Any]) -> None:
        super().__init__()
        self.chooser = Chooser(OF_MAP, self.redraw, or_all=("lr",))
        options = [(label, name) for name, label in MEASURES.items()]
        self.metric = controls.dropdown("metric", "what the map shows, at the end", options)
        self.metric.observe(lambda _: self.redraw(), "value")
        self.grid = widgets.GridBox()
        self.buttons: dict[Key, widgets.Button] = {}
        self._open, self._axes = open_run, None
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
        # Over seeds first: a learning rate with few stored seeds counts as much as the others.
        seeds = figures.converged(runs).groupby([*by, "lr"])[metric].mean()
        values = seeds.groupby(by).mean()
        self._lay_out(np.sort(runs[by[0]].unique())[::-1], np.sort(runs[by[1]].unique()))
        cells = dict(iter(runs.groupby(by)))
        colours = _colours(values, linear=metric in LINEAR)
        for key, button in self.buttons.items():
            where = f"weight decay {key[0]:g}, momentum {key[1]:g}"
            if key not in cells:
                _paint(button, "", NOTHING, f"{where}: nothing was trained here")
                continue
            good = len(figures.converged(cells[key]))
            words = f"{where}: {good} of {len(cells[key])} runs converged. Press to open the best."
            shown = f"{values[key]:.2g}" if key in values.index else "–"
            _paint(button, shown, colours.get(key, NOT_CONVERGED), words)

    def _lay_out(self, decays: np.ndarray, momenta: np.ndarray) -> None:
        """Make the buttons, unless those of the same axes exist."""
        axes = (tuple(decays), tuple(momenta))
        if axes == self._axes:
            return
        self._axes = axes
        look = {"width": "auto", "height": "2.6em"}
        self.buttons = {(d, m): widgets.Button(layout=look) for d in decays for m in momenta}
        for key, button in self.buttons.items():
            button.on_click(partial(self.press, key))
        children = [_head("λ ╲ β"), *(_head(f"{m:g}") for m in momenta)]
        for d in decays:
            children += [_head(f"{d:g}"), *(self.buttons[d, m] for m in momenta)]
        self.grid.layout.grid_template_columns = f"repeat({len(momenta) + 1}, {CELL})"
        self.grid.children = children

    def press(self, key: Key, _: object) -> None:
        """Open the cell's best run by the rule of Table 2, or any if none converged."""
        runs = self.chooser.selected
        runs = runs[(runs["weight_decay"] == key[0]) & (runs["momentum"] == key[1])]
        best = figures.best_run(runs)
        best = runs.iloc[0] if best is None else best
        with self.status.working("opening the run…"):
            names = (*OF_MAP, "momentum", "weight_decay", "seed")
            self._open(**{name: best[name] for name in names})


def _show(lines: list[draw.Line], picture: controls.Picture) -> None:
    """Draw lines over the epochs; clear the picture if none of their epochs is stored."""
    if all(line.history.empty for line in lines):
        picture.clear()
        return
    words = " and ".join(line.label for line in lines) + ": every metric over the epochs"
    picture.show(draw.over_epochs(lines), words)


def _column(name: str, chooser: Chooser) -> widgets.VBox:
    chooser.layout.flex_flow = "column"
    title = widgets.HTML(f"<b>{name}</b>")
    return widgets.VBox([title, chooser], layout={"margin": "0 2em 0 0"})


def ended(runs: pd.DataFrame, before: str = "") -> str:
    """How many runs these are, how they ended and how many collapsed, a paragraph of HTML."""
    reasons = runs.loc[runs["status"] == "failed", "reason"].dropna().unique()
    failed = "".join(f" Failed: {text.html(reason)}." for reason in reasons[:REASONS])
    return f"<p>{before}{figures.counted(runs)}. {figures.outcomes(runs)}.{failed}</p>"


def changes(runs: pd.DataFrame) -> pd.DataFrame:
    """Metrics, gauge and accuracies of some runs, at the start and at the end: medians."""
    good = runs[runs["status"] == "ok"]
    rows = {}
    for name, label in (figures.measured(good) | figures.ACCURACIES).items():
        start, end = (good.get(k, pd.Series(dtype=float)).median() for k in (f"{name}_init", name))
        left = end / start if name in figures.MAIN else float("nan")  # the others don't go to zero
        rows[label] = {"at the start": start, "at the end": end, "left": left}
    return pd.DataFrame.from_dict(rows, orient="index").astype(float)


def as_table(table: pd.DataFrame) -> str:
    """``changes`` as HTML, with shares in per cent."""
    return figures.shown(table, **{c: "{:.2%}" for c in table if c.endswith("left")}).to_html()


def _head(text: str) -> widgets.HTML:
    return widgets.HTML(f'<div style="text-align: center"><b>{text}</b></div>')


def _paint(button: widgets.Button, shown: str, colour: str, tooltip: str) -> None:
    """Label and colour a cell; one without a label cannot be pressed."""
    button.description, button.tooltip, button.disabled = shown, tooltip, not shown
    button.style.button_color = colour
    bright = np.dot(to_rgb(colour), WEIGHTS) > BRIGHT
    button.style.text_color = "black" if bright else "white"


def _colours(values: pd.Series, linear: bool) -> dict[Key, str]:
    """A colour of viridis for each value, on a log scale where the book's maps have one."""
    usable = (values if linear else values[values > 0]).dropna()
    if usable.empty:
        return {}
    norm = (Normalize if linear else LogNorm)(usable.min(), usable.max())
    if not linear:  # zero gets the darkest colour
        values = values.clip(lower=usable.min())
    return {key: to_hex(colormaps["viridis"](norm(v))) for key, v in values.dropna().items()}
