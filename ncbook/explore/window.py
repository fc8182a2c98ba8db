"""All panels together; and what a page shows that has no Python behind it."""

from __future__ import annotations

import os
from pathlib import Path

import ipywidgets as widgets
import pandas as pd
from matplotlib.figure import Figure

from ncbook import figures
from ncbook.explore import controls, draw
from ncbook.explore.chooser import START
from ncbook.explore.map import MapPanel
from ncbook.explore.runs import ComparePanel, RunPanel
from ncbook.explore.theorems import TheoryPanel
from ncbook.explore.training import LivePanel
from ncbook.explore.view import StoreView, folders

STATIC_VARIABLE = "NCBOOK_STATIC"  # set where notebooks become pages: book/_ext
ORDER = ("run", "map", "compare", "live", "theory")
PICTURED = ["adam", "adamw"]
LINE = """for optimizer in adam adamw; do
    papermill notebooks/sweep.ipynb out.ipynb -p optimizer $optimizer
done"""


def explorer(results: str | Path | None = None) -> Explorer | None:
    """The explorer of a store.

    On a page that has no Python behind it sliders would move and change nothing. Where such pages
    are made, which ``NCBOOK_STATIC`` says, a picture is displayed instead, and None returned.

    Args:
        results: the store's folder; by default the reader's own (``store.results_dir``) or, if it
            has no runs, the one that the book publishes.

    >>> explorer("nowhere").tabs.selected_index
    0
    """
    figures.use_style()
    return pictured(results) if os.environ.get(STATIC_VARIABLE) else Explorer(results)


class Explorer(widgets.VBox):
    """The store's name, and five tabs. A tab draws when it is looked at."""

    def __init__(self, results: str | Path | None = None) -> None:
        words = ("store", "the folder whose runs are explored")
        self.store = controls.dropdown(*words, list(folders(results).items()))
        self.store.layout.width = "min(40em, 100%)"
        self.reload = controls.button("Reload", "read the store again", "refresh")
        self.told, self.status = widgets.HTML(), controls.StatusLine()
        self.run, self.compare = RunPanel(), ComparePanel()
        self.map, self.live, self.theory = MapPanel(self.open_run), LivePanel(), TheoryPanel()
        panels = [getattr(self, name) for name in ORDER]
        titles = [panel.title for panel in panels]
        self.tabs = widgets.Tab(panels, titles=titles, selected_index=0)
        self.reload.on_click(lambda _: self.read())
        self.store.observe(lambda _: self.read(), "value")
        self.tabs.observe(lambda _: self.look(), "selected_index")
        head = controls.row(self.store, self.reload, self.status)
        super().__init__([head, self.told, self.tabs])
        self.read()

    @property
    def shown(self) -> widgets.Widget:
        """The panel that is looked at."""
        return getattr(self, ORDER[self.tabs.selected_index or 0])

    def read(self) -> None:
        """Read the store, and draw what is looked at."""
        with self.status.working("reading the store…"):
            view = StoreView.of(self.store.value)
            self.told.value = view.told()
            for panel in (self.run, self.map, self.compare):
                panel.take(view)
        self.look()

    def look(self) -> None:
        """Draw the panel that is looked at, if it has changed since."""
        if hasattr(self.shown, "look"):
            self.shown.look()

    def open_run(self, **values: object) -> None:
        """Show these settings in the tab of one run."""
        self.run.open_run(**values)
        self.tabs.selected_index = ORDER.index("run")


def pictured(results: str | Path | None = None) -> None:
    """Display a picture of two runs as the explorer compares them, or how to train them."""
    view = StoreView.of(next(iter(folders(results).values())))
    runs = view.runs
    for complaint in view.complaints:
        figures.say_left_out(complaint)
    for name, value in (START | {"optimizer": PICTURED}).items():
        if not runs.empty:
            runs = runs[runs[name].isin(value if isinstance(value, list) else [value])]
    figures.show_if_any(runs, LINE, lambda runs: _compared(view, runs))


def _compared(view: StoreView, runs: pd.DataFrame) -> Figure:
    """Every metric over the epochs, a line an optimizer."""
    lines = [
        draw.Line(view.history(rows), **figures.look(name))
        for name, rows in figures.by_optimizer(runs)
    ]
    figure = draw.over_epochs(lines)
    figure.suptitle(figures.caption(runs))
    names = " and ".join(line.label for line in lines)
    figure.set_label(f"The explorer compares two: {names}, every metric over the epochs")
    return figure
