"""All panels together; and what a page without Python shows instead."""

import os
from pathlib import Path

import ipywidgets as widgets
import pandas as pd
from matplotlib.figure import Figure

from ncbook import figures, live
from ncbook.explore import controls
from ncbook.explore.controls import OWN, SHARED, START, STARTS, Chooser
from ncbook.explore.curves import CurvesPanel, compared
from ncbook.explore.maps import MapPanel
from ncbook.explore.training import LivePanel
from ncbook.explore.view import StoreView, folders

STATIC_VARIABLE = "NCBOOK_STATIC"  # set where notebooks become pages: book/_ext
TABS = ("Map", "Over the epochs", "All runs", "Train it now", "Theory")
MAP, CURVES, TABLE, TRAINING = range(4)
PICTURED = ["adam", "adamw"]
STYLE = Path(__file__).with_name("explorer.css").read_text(encoding="utf-8")
THEORY = (
    "These have controls of their own. <b>First</b>, the row sum of W under SGD and SGDW, squared "
    "and over its start, α(t)/α(0): NC0 over its start is its root. The learning rate is constant "
    "here; <b>Train it now</b> draws the law with the drops of a training, in which float32 "
    "rounding stops NC0 near a millionth. <b>Second</b>, NC0 of sign descent on collapsed "
    "features, with coupled and with decoupled decay: the theorems have it in place of Adam and "
    "AdamW, for which no law is known."
)
LINE = """for optimizer in adam adamw; do
    papermill notebooks/sweep.ipynb out.ipynb -p optimizer $optimizer
done"""


class Explorer(widgets.VBox):
    """What all tabs share, five tabs, and the store. A tab draws when it is open; A and B are
    the same in the first two, and *Train it now* starts from them."""

    def __init__(self, results: str | Path | None = None) -> None:
        stores = list(folders(results).items())
        self.store = controls.dropdown("store", "the folder whose runs are explored", stores)
        self.reload = controls.button("Reload", "read the store again", self.read, "refresh")
        self.summary, self.invitation = widgets.HTML(), widgets.HTML()
        self.status = controls.StatusLine()
        self.sides = {name: Chooser(OWN, self.changed, name) for name in STARTS}
        self.shared = Chooser(SHARED, self.changed, followers=[*self.sides.values()])
        self.map, self.curves = MapPanel(self), CurvesPanel(self)
        self.live, self.theory = LivePanel(), theory_panel()
        self.panels: dict[int, controls.StorePanel] = {MAP: self.map, CURVES: self.curves}
        tabs = [self.map, self.curves, widgets.VBox(), self.live, self.theory]
        self.tabs = widgets.Tab(tabs, titles=TABS, selected_index=0)
        self.store.observe(self.read, "value")
        self.tabs.observe(self.refresh, "selected_index")
        head = widgets.HBox([*self.shared.controls.values(), self.status])
        foot = widgets.HBox([self.store, self.reload, self.summary])
        style = widgets.HTML(f"<style>{STYLE}</style>")
        super().__init__([style, head, self.invitation, self.tabs, foot])
        self.add_class("ncbook-explorer")
        self.read()

    def read(self, _: object = None) -> None:
        """Read the store, and draw the open tab."""
        with self.status.working("reading the store…"):
            self.view = StoreView.of(self.store.value)
            self.summary.value = self.view.summary()
            self.invitation.value = self.view.invitation() if self.view.runs.empty else ""
            self.shared.offer(self.view.runs)
        self.changed()

    def changed(self) -> None:
        """Other choices or runs: each tab has to draw again, the open one now."""
        self.curves.picked = pd.DataFrame()
        for panel in self.panels.values():
            panel.fresh = self.view.runs.empty  # then there is nothing to draw
            panel.layout.display = "none" if panel.fresh else None
        self.refresh()
        if lost := [f"{name}: {side.lost}" for name, side in self.sides.items() if side.lost]:
            self.status.say("; ".join(lost))
        for side in self.sides.values():
            side.lost = ""  # told once

    def refresh(self, _: object = None) -> None:
        """Draw the open tab, if it shows runs that have changed since."""
        opened = self.tabs.selected_index or 0
        if opened == TABLE and TABLE not in self.panels and len(self.view.runs):
            with self.status.working("loading…"):
                from ncbook.explore.table import TablePanel  # Altair takes seconds to load

                panel = TablePanel(self)
                self.panels[TABLE], self.tabs.children[TABLE].children = panel, [panel]
        if opened in self.panels and not self.panels[opened].fresh:
            self.panels[opened].redraw()
        elif opened == TRAINING and len(self.view.runs):
            self.live.follow(self.sides, self.view)

    def open_setting(self, side: str, **values: object) -> None:
        """Show this setting, chosen as A or as B, over its epochs."""
        self.sides[side].choose(**values)
        self.changed()
        self.tabs.selected_index = CURVES

    def open_runs(self, runs: pd.DataFrame) -> None:
        """Show these runs over their epochs."""
        self.curves.pick(runs)
        self.tabs.selected_index = CURVES


def theory_panel() -> widgets.VBox:
    """The book's live figures of the exact law and of sign descent, and what they are about. (An
    ``Output`` runs their script; an ``HTML`` widget would not.)"""
    made = (live.law(), live.signgd())
    shown = ({"text/html": one._repr_html_(), "text/plain": repr(one)} for one in made)
    kind = {"output_type": "display_data", "metadata": {}}
    figures_of = widgets.Output(outputs=tuple(kind | {"data": data} for data in shown))
    return widgets.VBox([widgets.HTML(THEORY), figures_of])


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
    groups = {figures.LABELS[name]: rows for name, rows in figures.by_optimizer(runs)}
    figure = compared(groups, view)
    names = " and ".join(groups)
    figure.set_label(f"The explorer compares two: {names}, every metric over the epochs")
    return figure
