"""Every metric of some runs over their epochs, what their labels say, and how they ended."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import ipywidgets as widgets
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from ncbook import figures, text
from ncbook.explore import controls
from ncbook.explore.controls import OWN, SHARED, WORDS
from ncbook.explore.view import MEANING, MEASURES, SHARES, StoreView, line_that_trains

REASONS = 5  # listed at most
PICKED = "The runs that were picked under <b>All runs</b>; the choices above do not apply to them."
LARGE = 1e6  # factors above it are powers of ten
ACCURACY, SV_W, SV_M = "accuracy", "singular values of W", "singular values of M"
ALL_PANELS = (*figures.METRICS, "gauge_share", ACCURACY, SV_W, SV_M)
LIVE_PANELS = ("nc0", "nc1", "nc2", "nc3", ACCURACY, SV_W)
COLUMNS, PANEL_WIDTH, PANEL_HEIGHT, LINE_HEIGHT = 3, 3.4, 2.1, 0.25
FEW = 8  # measurements: a line through fewer gets marks, or it would look like more
# Of further lines whose optimizer has been drawn already; of Tol's bright palette.
OTHER_COLOURS = ("#333333", "#4477AA", "#228833", "#AA3377", "#66CCEE", "#CCBB44", "#EE6677")
READING = (
    "η is the learning rate, β the momentum, λ the weight decay. Accuracy: of the training set; "
    "faint, of the test set. Singular values: the mean of all but the smallest; dotted, the "
    "smallest of W (that of M is zero in every network). Of several seeds: the median, and the "
    "band from the least to the largest."
)
# The columns that a panel draws, and how the further ones look; other panels draw their own column.
DRAWN = {
    ACCURACY: {"train_acc": {}, "test_acc": {"alpha": 0.45}},
    SV_W: {"w_sv_mean": {}, "w_sv_min": {"linestyle": ":"}},
    SV_M: {"m_sv_mean": {}},
}

Line = tuple[pd.DataFrame, dict]  # the epochs of one or more runs, and how their line looks


class CurvesPanel(controls.StorePanel):
    """The settings chosen as A and B, or some runs of the table, over their epochs; and what they
    ended with. A metric's line that is missing has its reason in the legend or in the panel."""

    def __init__(self, window: Any) -> None:
        super().__init__(window)
        self.picked, self.picture, self.table = pd.DataFrame(), controls.Picture(), widgets.HTML()
        back = controls.button("Back to A and B", "draw the two settings", self.pick)
        self.of_picked = widgets.HBox([back, widgets.HTML(PICKED)])
        tip = "the figure as SVG and PNG, its rows as CSV, and the lines that train its runs"
        self.export, self.links = controls.button("Export", tip, self._export), widgets.HTML()
        choices = [c for side in window.sides.values() for c in side.controls.values()]
        self.choices, buttons = widgets.HBox(choices), widgets.HBox([self.export, self.links])
        shown = (self.picture, buttons, self.table, widgets.HTML(READING))
        self.children = (self.choices, self.of_picked, *shown)

    def pick(self, runs: pd.DataFrame | None = None) -> None:
        """Show these runs, one line each; without any, A and B again."""
        self.picked = pd.DataFrame() if runs is None else runs
        self.redraw()

    def groups(self) -> dict[str, pd.DataFrame]:
        """The runs of each line by its label, which names what differs."""
        picked = [self.picked.iloc[[place]] for place in range(len(self.picked))]
        chosen = [side.selected for side in self.window.sides.values()]
        found = picked or [*{tuple(runs["run_id"]): runs for runs in chosen}.values()]
        return dict(zip(labels(found, whole=bool(picked)), found, strict=True))

    def _export(self) -> None:
        groups = self.groups()
        with self.window.status.working("exporting…"):
            rows = self.window.view.history(pd.concat(groups.values()).drop_duplicates("run_id"))
            rows = rows.map(lambda value: text.cell(value) if isinstance(value, str) else value)
            files = {f"runs.{k}": controls.drawn(self.picture.figure, k) for k in ("svg", "png")}
            files["runs.csv"] = rows.to_csv(index=False).encode()
            lines = "\n".join(map(line_that_trains, groups.values()))
            saved = " · ".join(controls.download(*file) for file in files.items())
            how = "In a terminal at the top of the repository:"
            self.links.value = f"{saved}<br>{how}<pre>{escape(lines)}</pre>"

    def draw(self) -> None:
        picked = len(self.picked) > 0
        for row, shown in ((self.choices, not picked), (self.of_picked, picked)):
            row.layout.display = None if shown else "none"
        self.links.value = ""
        groups = self.groups()
        told = "".join(ended(runs, label) for label, runs in groups.items())
        self.table.value = told + changes(groups)
        figure = compared(groups, self.window.view)
        self.picture.show(figure, f"{' and '.join(groups)}: every metric over the epochs")


def compared(groups: Mapping[str, pd.DataFrame], view: StoreView) -> Figure:
    """Every metric over the epochs, a line for each group of a store's runs, by its label."""
    runs = pd.concat(groups.values()).drop_duplicates("run_id")
    epochs = view.history(runs)
    own = {label: epochs[epochs["run_id"].isin(g["run_id"])] for label, g in groups.items()}
    looks = [look(group, label, own[label]) for label, group in groups.items()]
    lines = [*zip(own.values(), told_apart(looks), strict=True)]
    shared = dict.fromkeys(text.line(v, text.NAME) for name in SHARED for v in runs[name])
    same = [_setting(runs.iloc[0], name) for name in OWN[2:] if runs[name].nunique() == 1]
    learned = f"{len(figures.converged(runs))} of {len(runs)} runs learned"
    return over_epochs(lines, title=f"{', '.join([*shared, *same])} ({learned})")


def labels(groups: Sequence[pd.DataFrame], whole: bool = False) -> list[str]:
    """The optimizer of each group of runs, and each setting that differs from another group's; of
    ``whole`` ones all numbers and the seed."""
    mixed = all(runs["optimizer"].iloc[0].endswith(figures.MIXED) for runs in groups)
    names = [n for n in (*SHARED, *OWN[1:]) if mixed or n != controls.SELDOM]
    names += ["seed"] if all(len(runs) == 1 for runs in groups) else []
    firsts = [runs.iloc[0] for runs in groups]
    fixed = (*OWN[1:], "seed") if whole else ()
    told = [n for n in names if n in fixed or len({first[n] for first in firsts}) > 1]
    return [
        ", ".join([figures.look(first["optimizer"])["label"], *(_setting(first, n) for n in told)])
        for first in firsts
    ]


def _setting(run: pd.Series, name: str) -> str:
    value = run[name]
    shown = f"{value:g}" if isinstance(value, float) else text.line(value, text.NAME)
    return shown if name in SHARED else f"{WORDS.get(name, [name])[0]} = {shown}"


def look(runs: pd.DataFrame, label: str, history: pd.DataFrame) -> dict:
    """How the line of some runs of one setting looks; its label says why it is missing, or that
    the network failed to learn."""
    why = ""
    if (runs["status"] != "ok").all():
        why = f" ({runs['status'].iloc[0]}: no values at the end)"
    elif figures.converged(runs).empty:
        why = f" (failed to learn: {runs['train_acc'].median():.0%} accuracy)"
    why += " (no epochs are stored)" * history.empty
    return figures.look(runs["optimizer"].iloc[0]) | {"label": text.mathtext(label) + why}


def over_epochs(
    lines: Sequence[Line],
    panels: Sequence[str] = ALL_PANELS,
    last: int | None = None,
    title: str = "",
) -> Figure:
    """Panels (of ``ALL_PANELS``) over the epochs up to ``last``, by default the lines' last one.
    Made without pyplot, whose state threads would share."""
    last = last or int(max((h["epoch"].max() for h, _ in lines if len(h)), default=1))
    rows, head = -(-len(panels) // COLUMNS), LINE_HEIGHT * (len(lines) + 1.6)
    height = PANEL_HEIGHT * rows + head
    figure = Figure(figsize=(PANEL_WIDTH * COLUMNS, height))
    # Places that do not depend on the labels: a moving picture does not tremble, and to measure
    # every label would take as long as to draw.
    axes = figure.subplots(rows, COLUMNS, squeeze=False).flatten()
    inner = dict(wspace=0.25, hspace=0.3, left=0.06, right=0.985)
    figure.subplots_adjust(top=1 - (head + 0.1) / height, bottom=0.6 / height, **inner)
    for place, (axis, panel) in enumerate(zip(axes, panels, strict=False)):
        _panel(axis, lines, panel)
        figures.epoch_axis(axis, last)
        if place + COLUMNS < len(panels):  # the panel below has the same axis
            axis.set_xlabel("")
            axis.tick_params(labelbottom=False)
    for axis in axes[len(panels) :]:
        axis.remove()
    handles = axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="upper left", title=text.mathtext(title), alignment="left")
    return figure


def told_apart(looks: Sequence[dict]) -> list[dict]:
    """How lines look, with other colours where an optimizer has been drawn before."""
    seen, others, made = set(), iter(OTHER_COLOURS * len(looks)), []
    for own in looks:
        made.append(own | ({"color": next(others)} if own["color"] in seen else {}))
        seen.add(own["color"])
    return made


def _panel(axis: Axes, lines: Sequence[Line], panel: str) -> None:
    drawn, log = False, panel not in (ACCURACY, "nc4")
    for history, own in lines:
        for column, more in DRAWN.get(panel, {panel: {}}).items():
            values = history.reindex(columns=["epoch", column]).astype(float)
            drawn |= bool((values[column] > (0 if log else -1)).any())
            over = values.groupby("epoch")[column].agg(["median", "min", "max"])
            marks = {"marker": "o", "markersize": 3} if len(over) < FEW else {}
            figures.draw_band(axis, over, 0.15, **own | marks | more, gid=column)
    axis.set_title(MEASURES.get(panel, panel), y=1)  # without one, it is searched for
    if not log:
        axis.yaxis.set_major_formatter(PercentFormatter(1))
    if drawn and log:
        figures.log_values(axis)
    elif not drawn:
        why = "no values above 0 stored" if log else "not stored"
        axis.text(0.5, 0.5, why, ha="center", transform=axis.transAxes)


def ended(runs: pd.DataFrame, label: str = "") -> str:
    """Whether some runs collapsed, by the one rule, and of those that did not learn that they did
    not; a paragraph of HTML."""
    failed = runs[runs["status"] == "failed"].reindex(columns=["reason"])
    reasons = failed["reason"].dropna().unique()
    told = "".join(f" Failed: {text.html(reason)}." for reason in reasons[:REASONS])
    best, counts = figures.best_run(runs), f" {figures.outcomes(runs)}."
    if best is not None:
        word, values = map(text.html, figures.words.judged(best))
        which = "The one of least NC3 " if len(runs) > 1 else ""
        counts = counts if len(runs) > 1 else ""
        told += f" {which}{word}: {values}."
    elif (runs["status"] == "ok").any():
        told += (
            f" <b>Failed to learn</b>: {runs['train_acc'].median():.1%} training accuracy, so the "
            "values below say nothing about collapse."
        )
    return f"<p><b>{text.html(label)}</b>{counts}{told}</p>"


def changes(groups: Mapping[str, pd.DataFrame]) -> str:
    """Metrics, gauge and accuracies of some runs as an HTML table: medians at the start and at the
    end, by what factor they changed, and what each means. Of more than two groups, the ends."""
    parts = []
    for runs in groups.values():
        table = figures.start_and_end(runs[runs["status"] == "ok"], MEASURES)
        table["change"] = [*map(_change, table["at the end"] / table["at the start"])]
        for name in SHARES:
            table.loc[MEASURES[name], "change"] = "–"
        parts.append(table if len(groups) < 3 else table[["at the end"]])
    meanings = {MEASURES[name]: meaning for name, meaning in MEANING.items()}
    both = pd.concat(parts, axis=1, keys=groups)
    both["", "what it is"] = both.index.map(meanings)
    return figures.shown(both).to_html()


def _change(factor: float) -> str:
    if not 0 < factor < np.inf:
        return "–"
    if 0.95 < factor < 1.05:
        return "as before"
    times = max(factor, 1 / factor)
    told = f"{times:.1e}" if times >= LARGE else figures.times(times)
    return f"{told} × {'larger' if factor > 1 else 'smaller'}"
