"""One setting of the store over its epochs; and two of them, one against the other."""

import ipywidgets as widgets
import pandas as pd

from ncbook import figures, text
from ncbook.explore import controls, draw
from ncbook.explore.chooser import START, WORDS, Chooser
from ncbook.explore.view import StoreView

SHARED = ("dataset", "model", "recipe")
OWN = ("optimizer", "coupled_share", "lr", "momentum", "weight_decay")
SECOND = {"optimizer": "adamw"}
REASONS = 5  # told at most
OTHER_COLOUR = "#333333"  # of the second of two settings of one optimizer


class StorePanel(widgets.VBox):
    """What the tabs over a store have in common: a chooser, an invitation where there is nothing,
    the sign, and that they draw when they are looked at, not before. Each tab has its own
    ``draw()``, which shows what is chosen."""

    chooser: Chooser

    def __init__(self) -> None:
        self.status = controls.StatusLine()
        self.body, self.invitation = widgets.VBox(), widgets.HTML()
        self.view: StoreView | None = None
        self._fresh = False
        super().__init__([self.invitation, self.body])

    def take(self, view: StoreView) -> None:
        """Another store, or the same one anew."""
        self.view, self._fresh = view, False
        empty = view.runs.empty
        self.body.layout.display = "none" if empty else None
        self.invitation.value = controls.dense(view.invitation()) if empty else ""
        self.offer(view.runs)

    def look(self) -> None:
        """Draw, if that was not done since something changed."""
        if not self._fresh and self.view is not None and not self.view.runs.empty:
            self.redraw()

    def redraw(self) -> None:
        """Draw what is chosen now."""
        self._fresh = True
        with self.status.working():
            self.draw()

    def offer(self, runs: pd.DataFrame) -> None:
        """Give these runs to choose from."""
        self.chooser.offer(runs)


class RunPanel(StorePanel):
    """Every metric of one setting over its epochs, and a table of its start and its end."""

    title = "One run"

    def __init__(self) -> None:
        super().__init__()
        self.chooser = Chooser(tuple(WORDS), self.redraw, or_all=("seed",))
        self.picture, self.table = controls.Picture(), widgets.HTML()
        body = (self.chooser, self.status, self.picture, controls.note(draw.READING), self.table)
        self.body.children = body

    def open_run(self, **values: object) -> None:
        """Choose a run and draw it."""
        self.chooser.choose(**values)
        self.redraw()

    def draw(self) -> None:
        runs = self.chooser.selected
        history = self.view.history(runs)
        self.table.value = controls.dense(ended(runs) + changes(runs).to_html())
        look = figures.look(self.chooser.chosen["optimizer"])
        _show([draw.Line(history, **look)], self.picture)


class ComparePanel(StorePanel):
    """Two settings of one data set, network and training, in the same panels."""

    title = "Compare two"

    def __init__(self) -> None:
        super().__init__()
        self.chooser = Chooser(SHARED, self._share)
        starts = {"A": START, "B": START | SECOND}
        self.sides = {n: Chooser(OWN, self.redraw, start=start) for n, start in starts.items()}
        self.picture, self.table = controls.Picture(), widgets.HTML()
        sides = [_column(name, chooser) for name, chooser in self.sides.items()]
        note = controls.note(draw.READING)
        body = (self.chooser, controls.row(*sides), self.status, self.picture, note, self.table)
        self.body.children = body

    def offer(self, runs: pd.DataFrame) -> None:
        super().offer(runs)
        for chooser in self.sides.values():
            chooser.offer(self.chooser.selected)

    def _share(self) -> None:
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
            tables[name] = _changes(chooser.selected)
        both = pd.concat(tables, axis=1)
        both.columns = [f"{name}, {column}" for name, column in both.columns]
        told = "".join(ended(c.selected, f"{n}: ") for n, c in self.sides.items())
        self.table.value = controls.dense(told + _shown(both).to_html())
        _show(lines, self.picture)


def _show(lines: list[draw.Line], picture: controls.Picture) -> None:
    """Lines over the epochs; no picture if no epoch of them is stored."""
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
    given_up = "".join(f" Given up: {text.html(reason)}." for reason in reasons[:REASONS])
    return f"<p>{before}{figures.counted(runs)}. {figures.outcomes(runs)}.{given_up}</p>"


def changes(runs: pd.DataFrame):
    """Metrics, gauge and accuracies of some runs, at the start and at the end: medians."""
    return _shown(_changes(runs))


def _changes(runs: pd.DataFrame) -> pd.DataFrame:
    good = runs[runs["status"] == "ok"]
    rows = {}
    for name, label in (figures.measured(good) | figures.ACCURACIES).items():
        start, end = (good.get(k, pd.Series(dtype=float)).median() for k in (f"{name}_init", name))
        left = end / start if name in figures.MAIN else float("nan")  # the others don't go to zero
        rows[label] = {"at the start": start, "at the end": end, "left": left}
    return pd.DataFrame.from_dict(rows, orient="index").astype(float)


def _shown(table: pd.DataFrame):
    return figures.shown(table, **{c: "{:.2%}" for c in table if c.endswith("left")})
