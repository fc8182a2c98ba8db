"""All runs: a table to sort and search, two numbers against each other, parallel coordinates."""

from collections.abc import Callable
from typing import Any

import altair as alt
import ipywidgets as widgets
import numpy as np
import pandas as pd
from itables.widget import ITable

from ncbook import figures, text
from ncbook.explore import controls
from ncbook.explore.controls import Chooser
from ncbook.explore.maps import StorePanel
from ncbook.explore.view import MEASURES, StoreView
from ncbook.metrics import rule

HERE, EVERYWHERE = "of the chosen data set, network and training", "all of the store"
ANY = "any"
SETTINGS = {"lr": "η", "momentum": "β", "weight_decay": "λ"}
NUMBERS = SETTINGS | MEASURES
LINEAR = ("momentum", "nc4", "gauge_share", *figures.ACCURACIES)
PARALLEL = (*SETTINGS, *figures.MAIN, "gauge_share")
LEAST = 1e-6  # on a logarithmic axis; what is smaller, such as no weight decay, is drawn there
ROWS, LINES, AT_ONCE = 1000, 200, 8  # in the table; parallel coordinates; runs compared
STEP = 400  # dots that fall into one of so many steps of both axes are drawn once
WHITE = {"background": "white"}  # also on a dark page: colours are chosen for it
COLUMNS = ["outcome", "optimizer", *NUMBERS, "seed", "dataset", "model", "recipe"]
TIPS = [alt.Tooltip(field=NUMBERS.get(column, column), type="nominal") for column in COLUMNS]


class TablePanel(StorePanel):
    """Three linked views: a box drawn in the scatter selects the table's rows and the lines."""

    def __init__(self, shared: Chooser, show: Callable[[pd.DataFrame], Any]) -> None:
        super().__init__()
        self._shared, self._show = shared, show
        self.which = controls.dropdown("runs", "which runs", (HERE, EVERYWHERE))
        self.outcome = controls.dropdown("outcome", "what the rule for collapse says", (ANY,))
        numbers = [(label, name) for name, label in NUMBERS.items()]
        self.x, self.y = (controls.dropdown(at, "what the axis shows", numbers) for at in "xy")
        self.x.value, self.y.value = "gauge_share", "nc3"
        for control in (self.which, self.outcome, self.x, self.y):
            control.observe(lambda _: self.redraw(), "value")
        self.best = controls.button("Best run", "of those in the table: the least NC3", self._best)
        tip = f"the epochs of the rows that are selected in the table, at most {AT_ONCE}"
        self.compare = controls.button("Compare these", tip, self._compare)
        alt.JupyterChart.enable_offline()
        self.scatter, self.lines = (alt.JupyterChart(None) for _ in "ab")
        self.table = ITable(
            pd.DataFrame(columns=COLUMNS), select=True, maxBytes=0, showIndex=False, scrollX=True
        )
        self.count, self.rows, self.inside = widgets.HTML(), pd.DataFrame(), pd.DataFrame()
        head = controls.row(self.which, self.outcome, self.x, self.y, self.best, self.compare)
        charts = controls.row(self.scatter, self.lines)
        self.body.children = (head, self.status, charts, self.count, self.table)

    def take(self, view: StoreView) -> None:
        super().take(view)
        found = view.runs["outcome"] if len(view.runs) else []
        self.outcome.options = (ANY, *(word for word in rule.OUTCOMES if word in set(found)))

    def draw(self) -> None:
        runs = self._shared.selected if self.which.value == HERE else self.view.runs
        self.rows = runs[(runs["outcome"] == self.outcome.value) | (self.outcome.value == ANY)]
        with alt.data_transformers.disable_max_rows():
            self.scatter.chart = scatter(self.rows, self.x.value, self.y.value)
        self.scatter.selections.observe(self._brushed, "box")
        self._fill(self.rows)

    def _brushed(self, change: Any) -> None:
        """Show the runs inside the box; all of them without a box."""
        inside = np.ones(len(self.rows), dtype=bool)
        for axis, (low, high) in change.new.value.items():
            drawn = placed(self.rows[getattr(self, axis.removeprefix("at_")).value])
            inside &= drawn.between(low, high)
        self._fill(self.rows[inside])

    def _fill(self, rows: pd.DataFrame) -> None:
        self.inside = rows.sort_values("nc3").head(ROWS)
        shown = named(self.inside)[COLUMNS].rename(columns=NUMBERS)
        with pd.option_context("display.float_format", "{:.3g}".format):
            self.table.update(shown, selected_rows=[], showIndex=False)
        self.lines.chart = parallel(self.inside, self.rows)
        first = f"; the {ROWS:,} of least NC3 are in the table" * (len(rows) > ROWS)
        drawn = f"; one in {-(-len(self.inside) // LINES)} has a line" * (len(rows) > LINES)
        self.count.value = f"{len(rows):,} runs{first}{drawn}. Draw a box in the plot for others."

    def _best(self) -> None:
        best = figures.best_run(self.inside)
        if best is None:
            self.status.say("None of these runs learned, so none is the best.")
        else:
            self._show(self.inside[self.inside["run_id"] == best["run_id"]])

    def _compare(self) -> None:
        chosen = self.inside.iloc[self.table.selected_rows[:AT_ONCE]]
        if chosen.empty:
            self.status.say("Select rows of the table first: a click selects one, Ctrl another.")
        else:
            self._show(chosen)


def named(runs: pd.DataFrame) -> pd.DataFrame:
    """Some runs with text that can be shown, and four digits."""
    shown = {c: runs[c].map(lambda v: text.line(v, text.NAME)) for c in COLUMNS[-3:]}
    shown["optimizer"] = runs["optimizer"].map(lambda name: figures.look(name)["label"])
    rounded = {c: runs[c].astype(float).map(lambda v: float(f"{v:.4g}")) for c in NUMBERS}
    return runs.assign(**shown, **rounded)


def placed(values: pd.Series) -> pd.Series:
    """Where numbers are drawn: on a logarithmic axis, all below ``LEAST`` there."""
    values = values.astype(float)
    return values if values.name in LINEAR else values.clip(lower=LEAST)


def scatter(runs: pd.DataFrame, x: str, y: str) -> alt.Chart:
    """Two numbers of some runs against each other, with a box to draw."""
    at = {"at_x": placed(runs[x]), "at_y": placed(runs[y])}
    dots = runs.assign(**at).dropna(subset=[*at])
    steps = {c: _share(dots[c], name) * STEP // 1 for c, name in zip(at, (x, y), strict=True)}
    dots = named(dots[~dots.assign(**steps).duplicated([*at, "optimizer"])])
    dots = dots[[*at, *COLUMNS]].rename(columns=NUMBERS)
    box = alt.selection_interval(name="box", encodings=["x", "y"])
    axes = [_axis(axis, c, name) for axis, c, name in zip((alt.X, alt.Y), at, (x, y), strict=True)]
    chart = alt.Chart(dots, width=330, height=260).mark_circle(size=22)
    faded = alt.condition(box, alt.value(0.8), alt.value(0.1))
    chart = chart.encode(*axes, _colour(runs), opacity=faded, tooltip=TIPS)
    return chart.add_params(box).configure(**WHITE)


def _axis(axis: type, column: str, name: str) -> Any:
    kind = "linear" if name in LINEAR else "log"
    scale, ticks = alt.Scale(type=kind, zero=False, nice=False), alt.Axis(format="~g", tickCount=6)
    return axis(column, type="quantitative", title=NUMBERS[name], scale=scale, axis=ticks)


def _colour(runs: pd.DataFrame, legend: Any = alt.Undefined) -> alt.Color:
    looks = [figures.look(name) for name, _ in figures.by_optimizer(runs)]
    scale = alt.Scale(domain=[o["label"] for o in looks], range=[o["color"] for o in looks])
    return alt.Color("optimizer:N", scale=scale, title=None, legend=legend)


def _share(values: pd.Series, name: str) -> pd.Series:
    """Where numbers are on an axis from their least, 0, to their largest, 1."""
    drawn = placed(values.rename(name))
    drawn = drawn if name in LINEAR else np.log10(drawn)
    return (drawn - drawn.min()) / ((drawn.max() - drawn.min()) or 1)


def parallel(runs: pd.DataFrame, of: pd.DataFrame) -> alt.Chart:
    """Settings and metrics of at most ``LINES`` runs, a line each; axes span all of ``of``."""
    spans = {c: placed(of[c]).agg(["min", "max"]).map("{:.2g}".format) for c in PARALLEL}
    ends = {c: "\n".join([NUMBERS[c], span["max"], span["min"]]) for c, span in spans.items()}
    shares = pd.DataFrame({ends[c]: _share(of[c], c) for c in PARALLEL}).loc[runs.index]
    lines = named(runs)[COLUMNS].rename(columns=NUMBERS).assign(run=range(len(runs))).join(shares)
    lines = lines[:: -(-len(runs) // LINES) or 1]
    # Folded here: to Vega, a point in a column's name would be a path.
    kept = [column for column in lines if column not in shares]
    lines = lines.melt(kept, [*shares], "axis", "share")
    axis = alt.Axis(labelExpr="split(datum.value, '\\n')", labelAngle=0, title=None, grid=True)
    chart = alt.Chart(lines, width=460, height=260).mark_line(opacity=0.35, strokeWidth=1)
    chart = chart.encode(detail="run:N", tooltip=TIPS)
    x, y = alt.X("axis:N", sort=[*shares], axis=axis), alt.Y("share:Q", axis=None)
    return chart.encode(x, y, _colour(of, None)).configure(**WHITE)
