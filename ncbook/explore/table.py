"""All runs: a table to sort and search, two numbers against each other, parallel coordinates."""

import json
from typing import Any

import altair as alt
import ipywidgets as widgets
import numpy as np
import pandas as pd
from itables.widget import ITable
from matplotlib.colors import to_hex, to_rgb

from ncbook import figures, text
from ncbook.explore import controls
from ncbook.explore.view import MEASURES
from ncbook.metrics import rule

HERE, EVERYWHERE = "of the chosen data set, network and training", "all of the store"
BEST = "of the chosen ones, the best of each optimizer"
ANY = "any"
SETTINGS = {"lr": "η", "momentum": "β", "weight_decay": "λ"}
NUMBERS = SETTINGS | MEASURES
FILTERS = {name: controls.WORDS[name] for name in ("optimizer", *SETTINGS)}
FILTERS["outcome"] = "outcome", "what the rule for collapse says"
LINEAR = ("momentum", "nc4", "gauge_share", *figures.ACCURACIES)
PARALLEL = (*SETTINGS, *figures.MAIN, "gauge_share")
LEAST = 1e-8  # on a logarithmic axis
LINES, AT_ONCE = 200, 8  # in the parallel coordinates; runs compared
ROWS = 10_000  # of the table, at most: a thousand take 0.1 s
# Dots that fall into one of so many steps of both axes are drawn once; fewer steps where there are
# more dots than a browser draws at once.
STEPS, DOTS = (400, 200, 100, 50, 25), 3000
WHITE = {"background": "white"}  # colours are chosen for it; a dark page inverts the picture
WHERE = ["dataset", "model", "recipe"]
COLUMNS = ["outcome", "optimizer", *NUMBERS, "seed", *WHERE]
# Runs that did not learn are crosses and dashed lines.
NOT_LEARNED = f"indexof({[rule.NOT_LEARNED, 'diverged', 'failed']}, datum.outcome) >= 0"
TIPS = [alt.Tooltip(field=NUMBERS.get(column, column), type="nominal") for column in COLUMNS]
READING = (
    "A box drawn in the plot chooses others. Press rows to compare, with Ctrl or Shift for "
    "several. Crosses and dashed lines did not learn. <b>Collapsed</b>: NC1, NC2 and NC3 are below "
    f"{rule.THRESHOLD}; <b>but for its gauge</b>: they are with W without its gauge; <b>in "
    "part</b>: only some are; <b>not</b>: none is; <b>did not learn</b>: less than 99 % training "
    "accuracy."
)
NONE = "no run here: draw another box, or choose other runs"


class TablePanel(controls.StorePanel):
    """Three linked views: a box drawn in the scatter selects the table's rows and the lines."""

    def __init__(self, window: Any) -> None:
        super().__init__(window)
        self.view = window.view
        self.which = controls.dropdown("runs", "which runs", (HERE, BEST, EVERYWHERE))
        self.filters = {n: controls.dropdown(*words, (ANY,)) for n, words in FILTERS.items()}
        numbers = [(label, name) for name, label in NUMBERS.items()]
        self.x, self.y = (controls.dropdown(at, "what the axis shows", numbers) for at in "xy")
        self.x.value, self.y.value = "weight_decay", "nc3"
        chosen = [self.which, *self.filters.values(), self.x, self.y]
        for control in chosen:
            control.observe(self.redraw, "value")
        tip = "of the runs in the table, also those that Search hides: the least NC3"
        self.best = controls.button("Best run", tip, self._best)
        tip = f"the epochs of the rows that are selected in the table, at most {AT_ONCE}"
        self.compare = controls.button("Compare these", tip, self._compare)
        alt.JupyterChart.enable_offline()
        self.scatter, self.lines = (alt.JupyterChart(None) for _ in "ab")
        empty = pd.DataFrame(columns=COLUMNS)
        self.table = ITable(empty, select=True, maxBytes=0, showIndex=False, scrollX=True)
        self.count, self.rows, self.inside = widgets.HTML(), pd.DataFrame(), pd.DataFrame()
        charts = widgets.HBox([self.scatter, self.lines])
        chosen += [self.best, self.compare]
        self.children = (widgets.HBox(chosen), charts, self.count, self.table)

    def draw(self) -> None:
        shared = self.window.shared
        other, self.view = self.view is not self.window.view, self.window.view
        runs = shared.runs if self.which.value == EVERYWHERE else shared.selected
        for name, control in self.filters.items():
            # What was chosen for another store hides none of this one's runs.
            _offer(control, controls.offered_by(runs, name), ANY if other else control.value)
            runs = runs if control.value == ANY else runs[runs[name] == control.value]
        self.rows = best_of_each(runs) if self.which.value == BEST else runs
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
        order = np.lexsort([rows["nc3"].to_numpy(float), ~rule.learned(rows)])
        self.inside = rows.iloc[order[:ROWS]]
        shown = named(self.inside).rename(columns=NUMBERS)
        places = [shown.pop(name) for name in WHERE]
        for place in reversed([place for place in places if place.nunique() > 1]):
            shown.insert(2, place.name, place)
        with pd.option_context("display.float_format", "{:.3g}".format):
            self.table.update(shown, selected_rows=[], showIndex=False, maxBytes=0)
        self.lines.chart = parallel(self.inside, self.rows)
        first = f"; {ROWS:,} of least NC3 are in the table" * (len(rows) > ROWS)
        drawn = f"; one in {-(-len(self.inside) // LINES)} has a line" * (len(rows) > LINES)
        lacking = " NaN: not stored with the run." * bool(shown.isna().any(axis=None))
        dotless = rows[[self.x.value, self.y.value]].isna().any(axis=1).sum()
        dots = f" {dotless:,} lack a number of the plot and have no dot." * bool(dotless)
        self.count.value = f"{figures.outcomes(rows)}{first}{drawn}.{dots}{lacking} {READING}"

    def _best(self) -> None:
        best = figures.best_run(self.inside)
        if best is None:
            self.window.status.say("None of these runs learned, so none is the best.")
        else:
            self.window.open_runs(self.inside[self.inside["run_id"] == best["run_id"]])

    def _compare(self) -> None:
        chosen = self.inside.iloc[self.table.selected_rows[:AT_ONCE]]
        if chosen.empty:
            self.window.status.say("Select rows of the table: a click selects one, Ctrl another.")
        else:
            self.window.open_runs(chosen)


def _offer(filtering: widgets.Dropdown, options: tuple[tuple[str, Any], ...], wanted: Any) -> None:
    """Offer these values, and choose the wanted one if it is among them."""
    values = [value for _, value in options]
    with filtering.hold_trait_notifications():
        if filtering.options != ((ANY, ANY), *options):
            filtering.options = ((ANY, ANY), *options)
        filtering.value = wanted if wanted in values else ANY


def best_of_each(runs: pd.DataFrame) -> pd.DataFrame:
    """Of each optimizer that has some, the run of least NC3 among those that learned."""
    learned = figures.converged(runs).dropna(subset=["nc3"]).sort_values("nc3", kind="stable")
    return learned.drop_duplicates("optimizer")


def named(runs: pd.DataFrame) -> pd.DataFrame:
    """``COLUMNS`` of some runs, with text that can be shown, and four digits."""
    shown = {c: runs[c].map(lambda v: text.line(v, text.NAME)) for c in COLUMNS[-3:]}
    shown["optimizer"] = runs["optimizer"].map(lambda name: figures.look(name)["label"])
    rounded = {c: runs[c].astype(float).map(lambda v: float(f"{v:.4g}")) for c in NUMBERS}
    return runs[COLUMNS].assign(**shown, **rounded)


def placed(values: pd.Series) -> pd.Series:
    """Where numbers are drawn: on a logarithmic axis, zero at a third of the least above it, and
    what is below ``LEAST`` there."""
    values = values.astype(float)
    least = values[values > 0].min() / 3 if (values > 0).any() else 1.0
    return values if values.name in LINEAR else values.clip(lower=max(least, LEAST))


def scatter(runs: pd.DataFrame, x: str, y: str) -> alt.Chart:
    """Two numbers of some runs against each other, with a box to draw."""
    at = {"at_x": placed(runs[x]), "at_y": placed(runs[y])}
    dots = runs[COLUMNS].assign(**at).dropna(subset=[*at]).reset_index(drop=True)
    shares = pd.DataFrame({a: _share(dots[n]) for a, n in zip(at, (x, y), strict=True)})
    if dots.empty:
        return _nothing(330)
    for steps in STEPS:
        places = (shares * steps // 1).assign(optimizer=dots["optimizer"])
        if (first := ~places.duplicated()).sum() <= DOTS:
            break
    dots = named(dots[first]).rename(columns=NUMBERS).join(dots[[*at]])
    box = alt.selection_interval(name="box", encodings=["x", "y"])
    axes = [_axis(alt.X, "at_x", runs[x]), _axis(alt.Y, "at_y", runs[y])]
    chart = _chart(dots, 330).mark_point(filled=True)
    faded = alt.condition(box, alt.value(0.8), alt.value(0.1))
    shape = alt.condition(NOT_LEARNED, alt.value("cross"), alt.value("circle"))
    size = alt.condition(NOT_LEARNED, alt.value(70), alt.value(22))
    look = dict(opacity=faded, shape=shape, size=size, tooltip=TIPS)
    chart = chart.encode(*axes, _colour(runs), **look)
    return chart.add_params(box).configure(**WHITE)


def _chart(rows: pd.DataFrame, width: int) -> alt.Chart:
    """A chart without marks."""
    return alt.Chart(rows, width=width, height=260)


def _nothing(width: int) -> alt.Chart:
    """A chart that says why it is empty."""
    return _chart(pd.DataFrame({"": [0]}), width).mark_text(text=NONE).configure(**WHITE)


def _axis(axis: type, column: str, values: pd.Series) -> Any:
    """An axis, whose title says which number its end stands for, if that is not its own."""
    name, least = values.name, values.astype(float).min()
    kind = "linear" if name in LINEAR else "log"
    # Room at both ends: a box can hold the dots there.
    scale = alt.Scale(type=kind, zero=False, nice=False, padding=8)
    ticks = alt.Axis(format=".2~g", tickCount=6)
    title = NUMBERS[name] + f" (end of the axis: {least:.1g})" * bool(least < placed(values).min())
    return axis(column, type="quantitative", title=title, scale=scale, axis=ticks)


def _colour(runs: pd.DataFrame, legend: Any = alt.Undefined) -> alt.Color:
    names = figures.present(runs["optimizer"])
    labels = [figures.look(name)["label"] for name in names]
    scale = alt.Scale(domain=labels, range=[*map(_told_apart, names)])
    return alt.Color("optimizer:N", scale=scale, title=None, legend=legend)


def _told_apart(optimizer: str) -> str:
    """Its colour; of a mixed one paler than that of the other, of which it has the colour."""
    white = 0.5 if optimizer.endswith(figures.MIXED) else 0.0
    return to_hex((1 - white) * np.array(to_rgb(figures.look(optimizer)["color"])) + white)


def _share(values: pd.Series) -> pd.Series:
    """Where numbers are on an axis from their least, 0, to their largest, 1."""
    drawn = placed(values)
    drawn = drawn if values.name in LINEAR else np.log10(drawn)
    return (drawn - drawn.min()) / ((drawn.max() - drawn.min()) or 1)


def parallel(runs: pd.DataFrame, of: pd.DataFrame) -> alt.Chart:
    """Settings and metrics of at most ``LINES`` runs, a line each; axes span all of ``of``."""
    spans = {c: of[c].astype(float).agg(["max", "min"]).map("{:.2g}".format) for c in PARALLEL}
    ends = {name: [NUMBERS[name], *span] for name, span in spans.items()}
    if runs.empty:
        return _nothing(460)
    drawn = runs[:: -(-len(runs) // LINES)]
    shares = {name: _share(of[name]).loc[drawn.index] for name in PARALLEL}
    lines = named(drawn).rename(columns=NUMBERS).assign(run=range(len(drawn)), **shares)
    words = f"{json.dumps(ends)}[datum.value]"
    axis = alt.Axis(labelExpr=words, labelAngle=0, title=None, grid=True)
    chart = _chart(lines, 460).transform_fold([*PARALLEL], ["axis", "share"])
    chart = chart.mark_line(opacity=0.35, strokeWidth=1).encode(detail="run:N", tooltip=TIPS)
    chart = chart.encode(strokeDash=alt.condition(NOT_LEARNED, alt.value([4, 3]), alt.value([])))
    x, y = alt.X("axis:N", sort=[*PARALLEL], axis=axis), alt.Y("share:Q", axis=None)
    return chart.encode(x, y, _colour(of, None)).configure(**WHITE)
