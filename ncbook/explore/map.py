"""The map of a metric over momentum and weight decay: a button a setting, which opens its runs."""

from collections.abc import Callable
from typing import Any

import ipywidgets as widgets
import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.colors import LogNorm, Normalize, to_hex

from ncbook import figures
from ncbook.explore import controls
from ncbook.explore.chooser import Chooser
from ncbook.explore.runs import StorePanel
from ncbook.explore.view import MEASURES

COLUMNS = ("dataset", "model", "recipe", "optimizer", "coupled_share", "lr")
LINEAR = ("nc4", *figures.ACCURACIES)
NOTHING, NOT_CONVERGED = "#ffffff", "#d8d8d8"
BRIGHT = 0.45  # luminance from which letters are black
WEIGHTS = (0.2126, 0.7152, 0.0722)  # of red, green and blue in the luminance (ITU-R BT.709)
CELL = "5.4em"

Key = tuple[float, float]  # weight decay, momentum


class MapPanel(StorePanel):
    """Means over the converged runs of each setting, as buttons in the colours of the book's maps.

    Args:
        open_run: called with the settings of the run that a button stands for.
    """

    title = "Map"

    def __init__(self, open_run: Callable[..., Any]) -> None:
        super().__init__()
        self.chooser = Chooser(COLUMNS, self.redraw, or_all=("lr",))
        options = [(label, name) for name, label in MEASURES.items()]
        self.metric = controls.dropdown("metric", "what the map shows, at the end", options)
        self.metric.observe(lambda _: self.redraw(), "value")
        self.grid = widgets.GridBox()
        self.buttons: dict[Key, widgets.Button] = {}
        self.values = pd.Series(dtype=float)
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
        # Over seeds first: one of which few runs are stored counts no more than its settings do.
        seeds = figures.converged(runs).groupby([*by, "lr"])[metric].mean()
        self.values = seeds.groupby(by).mean()
        self._lay_out(np.sort(runs[by[0]].unique())[::-1], np.sort(runs[by[1]].unique()))
        cells = dict(iter(runs.groupby(by)))
        colours = _colours(self.values, linear=metric in LINEAR)
        for key, button in self.buttons.items():
            self._paint(button, key, cells.get(key), colours.get(key, NOT_CONVERGED))

    def _paint(
        self, button: widgets.Button, key: Key, runs: pd.DataFrame | None, colour: str
    ) -> None:
        value = self.values.get(key)
        button.disabled = runs is None
        button.description = "" if runs is None else "–" if value is None else f"{value:.2g}"
        button.style.button_color = NOTHING if runs is None else colour
        button.style.text_color = _letters(colour)
        where = f"weight decay {key[0]:g}, momentum {key[1]:g}"
        if runs is None:
            button.tooltip = f"{where}: nothing was trained here"
            return
        good = len(figures.converged(runs))
        button.tooltip = f"{where}: {good} of {len(runs)} runs converged. Press to open the best."

    def _lay_out(self, decays: np.ndarray, momenta: np.ndarray) -> None:
        """Make the buttons, unless there are those of the same axes."""
        axes = (tuple(decays), tuple(momenta))
        if axes == self._axes:
            return
        self._axes = axes
        self.buttons = {(d, m): self._button((d, m)) for d in decays for m in momenta}
        children = [_head("λ ╲ β"), *(_head(f"{m:g}") for m in momenta)]
        for d in decays:
            children += [_head(f"{d:g}"), *(self.buttons[d, m] for m in momenta)]
        self.grid.layout.grid_template_columns = f"repeat({len(momenta) + 1}, {CELL})"
        self.grid.children = children

    def _button(self, key: Key) -> widgets.Button:
        button = widgets.Button(layout={"width": "auto", "height": "2.6em"})
        button.on_click(lambda _: self.press(key))
        return button

    def press(self, key: Key) -> None:
        """Open the cell's best run by the rule of Table 2, or any if none converged."""
        runs = self.chooser.selected
        runs = runs[(runs["weight_decay"] == key[0]) & (runs["momentum"] == key[1])]
        best = figures.best_run(runs)
        best = runs.iloc[0] if best is None else best
        with self.status.working("opening the run…"):
            names = (*COLUMNS, "momentum", "weight_decay", "seed")
            self._open(**{name: best[name] for name in names})


def _head(text: str) -> widgets.HTML:
    return widgets.HTML(f'<div style="text-align: center"><b>{text}</b></div>')


def _colours(values: pd.Series, linear: bool) -> dict[Key, str]:
    """A colour of viridis for each value, on a log scale where the book's maps have one."""
    usable = values if linear else values[values > 0]
    usable = usable.dropna()
    if usable.empty:
        return {}
    norm = (Normalize if linear else LogNorm)(usable.min(), usable.max())
    if not linear:  # what has come down to zero is at the dark end
        values = values.clip(lower=usable.min())
    return {key: to_hex(colormaps["viridis"](norm(v))) for key, v in values.dropna().items()}


def _letters(colour: str) -> str:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return "black" if np.dot(parts, WEIGHTS) > BRIGHT else "white"
