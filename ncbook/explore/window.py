"""All panels together; and what a page without Python shows instead."""

import os
from pathlib import Path

import ipywidgets as widgets
import pandas as pd
from matplotlib.figure import Figure

from ncbook import figures, live
from ncbook.explore import controls, draw
from ncbook.explore.chooser import START
from ncbook.explore.panels import ComparePanel, MapPanel, RunPanel
from ncbook.explore.training import LivePanel
from ncbook.explore.view import StoreView, folders

STATIC_VARIABLE = "NCBOOK_STATIC"  # set where notebooks become pages: book/_ext
TABS = {
    "run": "One run",
    "map": "Map",
    "compare": "Compare two",
    "live": "Train it now",
    "theory": "Theory",
}
PICTURED = ["adam", "adamw"]
LINE = """for optimizer in adam adamw; do
    papermill notebooks/sweep.ipynb out.ipynb -p optimizer $optimizer
done"""


class Explorer(widgets.VBox):
    """The store's name, and five tabs. A tab draws when it is opened."""

    def __init__(self, results: str | Path | None = None) -> None:
        words = ("store", "the folder whose runs are explored")
        self.store = controls.dropdown(*words, list(folders(results).items()))
        self.store.layout.width = "min(40em, 100%)"
        self.reload = controls.button("Reload", "read the store again", "refresh")
        self.summary, self.status = widgets.HTML(), controls.StatusLine()
        self.run, self.compare, self.map = RunPanel(), ComparePanel(), MapPanel(self.open_run)
        self.live, self.theory = LivePanel(), theory_panel()
        panels = [getattr(self, name) for name in TABS]
        self.tabs = widgets.Tab(panels, titles=list(TABS.values()), selected_index=0)
        self.reload.on_click(lambda _: self.read())
        self.store.observe(lambda _: self.read(), "value")
        self.tabs.observe(lambda _: self.refresh(), "selected_index")
        head = controls.row(self.store, self.reload, self.status)
        super().__init__([head, self.summary, self.tabs])
        self.read()

    @property
    def shown(self) -> widgets.Widget:
        """The panel of the open tab."""
        return self.tabs.children[self.tabs.selected_index or 0]

    def read(self) -> None:
        """Read the store, and draw the open tab."""
        with self.status.working("reading the store…"):
            view = StoreView.of(self.store.value)
            self.summary.value = view.summary()
            for panel in (self.run, self.map, self.compare):
                panel.take(view)
        self.refresh()

    def refresh(self) -> None:
        """Draw the open tab, if it shows runs that have changed since."""
        if hasattr(self.shown, "refresh"):
            self.shown.refresh()

    def open_run(self, **values: object) -> None:
        """Show these settings in the tab of one run."""
        self.run.open_run(**values)
        self.tabs.selected_index = list(TABS).index("run")


def theory_panel() -> widgets.Output:
    """The book's live figures of the exact law and of sign descent. (An ``Output`` runs their
    script; an ``HTML`` widget would not.)"""
    shown = [
        {"text/html": figure._repr_html_(), "text/plain": repr(figure)}
        for figure in (live.law(), live.signgd())
    ]
    kind = {"output_type": "display_data", "metadata": {}}
    return widgets.Output(outputs=tuple(kind | {"data": data} for data in shown))


def explorer(results: str | Path | None = None) -> Explorer | None:
    """The explorer of a store.

    A page without Python cannot answer a slider. Where such pages are made, which
    ``NCBOOK_STATIC`` says, a picture is displayed instead, and None returned.

    Args:
        results: the store's folder; by default the reader's own (``store.results_dir``) or, if it
            has no runs, the one that the book publishes.

    >>> explorer("nowhere").tabs.selected_index
    0
    """
    figures.use_style()
    return picture(results) if os.environ.get(STATIC_VARIABLE) else Explorer(results)


def picture(results: str | Path | None = None) -> None:
    """Display a picture of two runs as the explorer compares them, or how to train them."""
    view = StoreView.of(next(iter(folders(results).values())))
    runs = view.runs
    for complaint in view.complaints:
        figures.say_left_out(complaint)
    for name, value in (START | {"optimizer": PICTURED}).items():
        if not runs.empty:
            runs = runs[runs[name].isin(value if isinstance(value, list) else [value])]
    figures.show_if_any(runs, LINE, lambda runs: _comparison(view, runs))


def _comparison(view: StoreView, runs: pd.DataFrame) -> Figure:
    """Every metric over the epochs, a line an optimizer."""
    groups = figures.by_optimizer(runs)
    lines = [draw.Line(view.history(rows), **figures.look(name)) for name, rows in groups]
    figure = draw.over_epochs(lines)
    figure.suptitle(figures.caption(runs))
    names = " and ".join(line.label for line in lines)
    figure.set_label(f"The explorer compares two: {names}, every metric over the epochs")
    return figure
