"""The map: a metric over momentum and weight decay, of two optimizers in the same colours."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import product
from typing import Any

import ipywidgets as widgets
import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.colors import LogNorm, Normalize, to_hex, to_rgb

from ncbook import figures, text
from ncbook.explore import controls
from ncbook.explore.controls import OWN, Chooser
from ncbook.explore.view import MEANING, MEASURES, SHARES, StoreView

OF_MAP = ("optimizer", "coupled_share", "lr")
KEY = ["weight_decay", "momentum"]
LINEAR = (*SHARES, "gauge_share")
FLOOR = 1e-4  # of a logarithmic scale: what is smaller has the darkest colour
NOTHING, NONE_LEARNED = "rgba(0, 0, 0, 0)", "#d8d8d8"
CELL = "minmax(3em, 4.4em)"
READING = (
    "A column a momentum β, a row a weight decay λ, a cell the mean over the seeds of the runs "
    "that learned (reached 99&nbsp;% training accuracy). Hatched at its foot, with a count: only "
    "so many learned. Hatched all over: none did, so no metric says anything about collapse. "
    "Empty: not trained. <b>Press a cell to see its epochs.</b>"
)

Key = tuple[float, float]  # weight decay, momentum


class StorePanel(widgets.VBox):
    """What the tabs over a store have in common: an invitation instead of a body if the store is
    empty, and a status line. Each tab's ``draw()`` shows what is chosen; it is called when the tab
    is open, not before."""

    def __init__(self) -> None:
        self.status, self.body = controls.StatusLine(), widgets.VBox()
        self.invitation = widgets.HTML()
        self.view: StoreView | None = None
        self.fresh = True
        super().__init__([self.invitation, self.body])

    def take(self, view: StoreView) -> None:
        """Show another store, or the same one read again."""
        self.view, self.fresh = view, view.runs.empty
        self.body.layout.display = "none" if view.runs.empty else None
        self.invitation.value = controls.dense(view.invitation()) if view.runs.empty else ""

    def refresh(self) -> None:
        """Draw, if something has changed since the last time."""
        if not self.fresh:
            self.redraw()

    def redraw(self) -> None:
        """Draw what is chosen now."""
        self.fresh = True
        with self.status.working():
            self.draw()


class MapPanel(StorePanel):
    """Two maps, of the optimizers chosen as A and B, on one colour scale; a press on a cell calls
    ``on_press`` with the side's name and the cell's setting."""

    def __init__(
        self, shared: Chooser, sides: Mapping[str, Chooser], on_press: Callable[..., Any]
    ) -> None:
        super().__init__()
        options = [(label, name) for name, label in MEASURES.items()]
        self.metric = controls.dropdown("metric", "what the maps show, at the end", options)
        self.metric.value = "nc3"
        self.metric.observe(lambda _: self.redraw(), "value")
        self._shared, self._sides = shared, sides
        self.meaning, self.scale = widgets.HTML(), widgets.HTML()
        self.maps = {name: _Map(partial(on_press, name)) for name in sides}
        choices = [side.controls[name] for side in sides.values() for name in OF_MAP]
        head = controls.row(self.metric, *choices, self.status)
        maps = widgets.Box([*self.maps.values()], layout={"flex_flow": "row wrap"})
        self.body.children = (head, self.meaning, maps, self.scale, controls.note(READING))

    def draw(self) -> None:
        metric = self.metric.value
        norm = scale(self._shared.selected, metric)
        self.meaning.value = controls.dense(f"<b>{MEASURES[metric]}</b>: {MEANING[metric]}.")
        self.scale.value = colour_bar(norm, metric)
        for name, side in self._sides.items():
            runs = side.of(*OF_MAP)
            title = f"{name}: {side.controls['optimizer'].label}, η = {side.chosen['lr']:g}"
            self.maps[name].draw(runs, metric, norm, title)


class _Map(widgets.VBox):
    """A title, a button for each setting, and how many of the runs collapsed."""

    def __init__(self, on_press: Callable[..., Any]) -> None:
        self.title, self.grid, self.verdict = widgets.HTML(), widgets.GridBox(), widgets.HTML()
        self.buttons: dict[Key, widgets.Button] = {}
        self._on_press = on_press
        look = {"margin": "0 1.5em 0 0", "max_width": "32em"}
        super().__init__([self.title, self.grid, self.verdict], layout=look)

    def draw(self, runs: pd.DataFrame, metric: str, norm: Normalize, title: str) -> None:
        """Show a metric of some runs of one optimizer and learning rate."""
        table = cells(runs, metric, KEY)
        form = f".{_digits(table['value'])}%" if metric in SHARES else ".2g"
        self.title.value = f"<b>{text.html(title)}</b>"
        self.verdict.value = controls.dense(figures.outcomes(runs) + ".")
        self._lay_out(*(np.sort(runs[column].unique()).tolist() for column in KEY))
        for key, button in self.buttons.items():
            value, good, count = table.loc[key] if key in table.index else (np.nan, 0, 0)
            colour = to_hex(colormaps["viridis"](norm(value))) if good else NONE_LEARNED
            colour = colour if count else NOTHING
            counted = f"{good:.0f}/{count:.0f}"
            shown = [f"{value:{form}}"] * bool(good) + [counted] * (good < count)
            button.description, button.disabled = " ".join(shown), not count
            button.tooltip = f"weight decay {key[0]:g}, momentum {key[1]:g}: {counted} runs learned"
            hatching = "all" if good == count else "some" if good else "none"
            button._dom_classes = [f"ncbook-{hatching}"]
            button.style = {"button_color": colour, "text_color": readable_on(colour)}

    def _lay_out(self, decays: list[float], momenta: list[float]) -> None:
        """Make the buttons, unless those of the same axes exist; the largest decay on top."""
        keys = list(product(decays[::-1], momenta))
        if keys == list(self.buttons):
            return
        look = {"width": "auto", "height": "2.1em", "padding": "0", "margin": "1px"}
        self.buttons = {key: widgets.Button(layout=look) for key in keys}
        children = [_head("λ ╲ β"), *(_head(f"{momentum:g}") for momentum in momenta)]
        for key, button in self.buttons.items():
            button.on_click(partial(self._press, key))
            children += [_head(f"{key[0]:g}"), button] if key[1] == momenta[0] else [button]
        self.grid.layout.grid_template_columns = f"repeat({len(momenta) + 1}, {CELL})"
        self.grid.children = children

    def _press(self, key: Key, _: object) -> None:
        self._on_press(**dict(zip(KEY, key, strict=True)))


def cells(runs: pd.DataFrame, metric: str, by: Sequence[str]) -> pd.DataFrame:
    """For each setting, the mean ``value`` of a metric over the runs that learned (of an accuracy:
    that ended), how many learned (``good``), and how many there are (``count``)."""
    learned, by = figures.converged(runs), list(by)
    kept = runs[runs["status"] == "ok"] if metric in figures.ACCURACIES else learned
    values = kept.groupby(by)[metric].mean().rename("value")
    good, count = learned.groupby(by).size(), runs.groupby(by).size().rename("count")
    return (
        count.to_frame()
        .join([values, good.rename("good")])[["value", "good", "count"]]
        .fillna({"good": 0})
    )


def scale(runs: pd.DataFrame, metric: str) -> Normalize:
    """The colours of a metric over all settings of all optimizers among some runs."""
    values = cells(runs, metric, OWN)["value"].dropna()
    if metric in LINEAR:
        return Normalize(min(values.min(), 0.999) if len(values) else 0, 1)
    values = values[values > FLOOR]
    return LogNorm(values.min(), values.max()) if values.nunique() > 1 else LogNorm(FLOOR, 1)


def colour_bar(norm: Normalize, metric: str) -> str:
    """A scale's colours with ticks, HTML."""
    low, high = norm.vmin, norm.vmax
    if isinstance(norm, LogNorm):
        decades = [m * 10.0**e for e in range(-5, 6) for m in (1, 3)]
        ticks = [tick for tick in decades if low <= tick <= high]
    else:
        ticks = np.linspace(low, high, 5).tolist()
    stops = ", ".join(to_hex(colormaps["viridis"](share)) for share in np.linspace(0, 1, 12))
    form, at = ".1%" if metric in SHARES else "g", '<span style="left:'
    marks = "".join(f'{at} {100 * float(norm(tick)):.1f}%">{tick:{form}}</span>' for tick in ticks)
    return (
        f'<div class="ncbook-scale">{MEASURES[metric]}, the same colours for all optimizers'
        f'<div style="background: linear-gradient(to right, {stops})"></div>{marks}</div>'
    )


def readable_on(colour: str) -> str:
    """Black or white: the one with more contrast, by WCAG's relative luminance; at least 4.58."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return "black" if np.dot(linear, (0.2126, 0.7152, 0.0722)) > 0.179 else "white"


def _digits(values: pd.Series) -> int:
    """How many decimals of per cents tell apart what differs, also from 100 %: at most 3."""
    values = pd.Series([*values.dropna(), 1.0]).round(5)
    return next((d for d in (1, 2) if values.round(d + 2).nunique() == values.nunique()), 3)


def _head(text: str) -> widgets.HTML:
    return widgets.HTML(f'<div style="text-align: center"><b>{text}</b></div>')
