"""All panels together; and what a page without Python shows instead."""

import os
from pathlib import Path

import ipywidgets as widgets
import pandas as pd
from matplotlib.figure import Figure

from ncbook import figures, live
from ncbook.explore import controls
from ncbook.explore.controls import START
from ncbook.explore.panels import ComparePanel, MapPanel, RunPanel, StorePanel, over_epochs
from ncbook.explore.training import LivePanel
from ncbook.explore.view import StoreView, folders

STATIC_VARIABLE = "NCBOOK_STATIC"  # set where notebooks become pages: book/_ext
TABS = ("One run", "Map", "Compare two", "Train it now", "Theory")
PICTURED = ["adam", "adamw"]
LINE = """for optimizer in adam adamw; do
    papermill notebooks/sweep.ipynb out.ipynb -p optimizer $optimizer
done"""


class Explorer(widgets.VBox):
    """The store's name, and five tabs. A tab draws when it is opened."""

    def __init__(self, results: str | Path | None = None) -> None:
        stores = list(folders(results).items())
        self.store = controls.dropdown("store", "the folder whose runs are explored", stores)
        self.reload = widgets.Button(description="Reload", icon="refresh")
        self.reload.tooltip = "read the store again"
        self.summary, self.status = widgets.HTML(), controls.StatusLine()
        self.run, self.compare, self.map = RunPanel(), ComparePanel(), MapPanel(self.open_run)
        self.live, self.theory = LivePanel(), theory_panel()
        panels = [self.run, self.map, self.compare, self.live, self.theory]
        self.tabs = widgets.Tab(panels, titles=TABS, selected_index=0)
        self.reload.on_click(self.read)
        self.store.observe(self.read, "value")
        self.tabs.observe(self.refresh, "selected_index")
        head = controls.row(self.store, self.reload, self.status)
        super().__init__([head, self.summary, self.tabs])
        self.read()

    def read(self, _: object = None) -> None:
        """Read the store, and draw the open tab."""
        with self.status.working("reading the store…"):
            view = StoreView.of(self.store.value)
            self.summary.value = view.summary()
            for panel in (self.run, self.map, self.compare):
                panel.take(view)
        self.refresh()

    def refresh(self, _: object = None) -> None:
        """Draw the open tab, if it shows runs that have changed since."""
        shown = self.tabs.children[self.tabs.selected_index or 0]
        if isinstance(shown, StorePanel):
            shown.refresh()

    def open_run(self, **values: object) -> None:
        """Show these settings in the tab of one run."""
        self.run.chooser.choose(**values)
        self.run.redraw()
        self.tabs.selected_index = 0


def theory_panel() -> widgets.Output:
    """The book's live figures of the exact law and of sign descent. (An ``Output`` runs their
    script; an ``HTML`` widget would not.)"""
    made = (live.law(), live.signgd())
    shown = ({"text/html": one._repr_html_(), "text/plain": repr(one)} for one in made)
    kind = {"output_type": "display_data", "metadata": {}}
    return widgets.Output(outputs=tuple(kind | {"data": data} for data in shown))


def explorer(results: str | Path | None = None) -> Explorer | None:
    """The explorer of a store; by default the reader's own (``store.results_dir``) or, if it has no
    runs, the one that the book publishes. Where pages without Python are made, which cannot answer
    a slider (``NCBOOK_STATIC`` says so), a picture of two runs is displayed instead, or how to
    train them, and None returned."""
    figures.use_style()
    if not os.environ.get(STATIC_VARIABLE):
        return Explorer(results)
    view = StoreView.of(next(iter(folders(results).values())))
    runs = view.runs
    for complaint in view.complaints:
        figures.say_left_out(complaint)
    if not runs.empty:
        wanted = pd.Series(START).drop("optimizer")
        runs = runs[(runs[wanted.index] == wanted).all(axis=1) & runs["optimizer"].isin(PICTURED)]
    figures.show_if_any(runs, LINE, lambda runs: _comparison(view, runs))


def _comparison(view: StoreView, runs: pd.DataFrame) -> Figure:
    """Every metric over the epochs, a line an optimizer."""
    groups = figures.by_optimizer(runs)
    figure = over_epochs([(view.history(rows), figures.look(name)) for name, rows in groups])
    figure.suptitle(figures.caption(runs))
    names = " and ".join(figures.LABELS[name] for name, _ in groups)
    figure.set_label(f"The explorer compares two: {names}, every metric over the epochs")
    return figure
