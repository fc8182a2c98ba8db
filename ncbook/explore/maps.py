"""The map: a metric over momentum and weight decay, of two optimizers in the same colours."""

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets as widgets
import numpy as np
import pandas as pd
import traitlets
from matplotlib import colormaps
from matplotlib.colors import LogNorm, Normalize, to_hex

from ncbook import figures, text
from ncbook.explore import controls
from ncbook.explore.controls import OWN
from ncbook.explore.view import MEANING, MEASURES, SHARES
from ncbook.metrics import rule

OF_MAP = ("optimizer", "coupled_share", "lr")
KEY = ["weight_decay", "momentum"]
LINEAR = (*SHARES, "gauge_share")
FLOOR = 1e-4  # of a logarithmic scale: what is smaller has the darkest colour
BRIGHT = 0.44  # share of viridis from which black is read better than white; both at least 4.5
READING = (
    "A column a momentum β, a row a weight decay λ, a cell the mean over the seeds of the runs "
    "that learned (reached 99&nbsp;% training accuracy). Hatched at its foot, with a count: only "
    "so many learned. Hatched all over: none did, so no metric says anything about collapse. "
    "Empty: not trained. <b>Press a cell to see its epochs.</b>"
)


class MapPanel(controls.StorePanel):
    """Two maps, of the optimizers chosen as A and B, on one colour scale."""

    def __init__(self, window: Any) -> None:
        super().__init__(window)
        options = [(label, name) for name, label in MEASURES.items()]
        self.metric = controls.dropdown("metric", "what the maps show, at the end", options)
        self.metric.value = "nc3"
        self.metric.observe(self.redraw, "value")
        self.meaning, self.scale = widgets.HTML(), widgets.HTML()
        self.maps = {name: Map(partial(window.open_setting, name)) for name in window.sides}
        choices = [side.controls[name] for side in window.sides.values() for name in OF_MAP]
        head = widgets.HBox([self.metric, *choices])
        maps = widgets.HBox([*self.maps.values()], layout={"align_items": "flex-start"})
        self.children = (head, self.meaning, maps, self.scale, widgets.HTML(READING))

    def draw(self) -> None:
        metric = self.metric.value
        norm = scale(self.window.shared.selected, metric)
        self.meaning.value = f"<b>{MEASURES[metric]}</b>: {MEANING[metric]}."
        self.scale.value = colour_bar(norm, metric)
        for name, side in self.window.sides.items():
            runs = side.of(*OF_MAP)
            title = f"{name}: {side.controls['optimizer'].label}, η = {side.chosen['lr']:g}"
            told = f"<b>{text.html(title)}</b>{grid(runs, metric, norm)}"
            self.maps[name].html = f"{told}{figures.outcomes(runs)}."


class Map(anywidget.AnyWidget):
    """HTML whose buttons have a setting as their value: a press calls ``on_press`` with it."""

    _esm = Path(__file__).with_name("map.js")
    html = traitlets.Unicode().tag(sync=True)

    def __init__(self, on_press: Callable[..., Any]) -> None:
        super().__init__(layout={"max_width": "32em", "margin": "0 1.5em 0.5em 2px"})
        self.on_msg(lambda _, key, __: on_press(**dict(zip(KEY, json.loads(key), strict=True))))


def grid(runs: pd.DataFrame, metric: str, norm: Normalize) -> str:
    """A metric of some runs of one optimizer and learning rate: an HTML table with a button for
    each setting, the largest decay on top."""
    table = cells(runs, metric, KEY)
    form = f".{_digits(table['value'])}%" if metric in SHARES else ".2g"
    decays, momenta = (np.sort(runs[column].unique()).tolist() for column in KEY)
    heads = "".join(f"<th>{momentum:g}</th>" for momentum in momenta)
    found = table.reindex(pd.MultiIndex.from_product([decays[::-1], momenta], names=KEY))
    rows = (
        f"<tr><th>{decay:g}</th>{''.join(_buttons(row, form, norm))}</tr>"
        for decay, row in found.groupby("weight_decay", sort=False)
    )
    return f"<table><tr><th>λ ╲ β</th>{heads}</tr>{''.join(rows)}</table>"


def _buttons(row: pd.DataFrame, form: str, norm: Normalize) -> Iterator[str]:
    for (decay, momentum), (value, good, count) in row.iterrows():
        if not count > 0:
            yield '<td><button disabled="" title="not trained"></button></td>'
            continue
        counted, share, told = f"{good:.0f}/{count:.0f}", norm(value), "runs learned"
        if good and not np.isfinite(value):
            counted, good, told = "–", 0, "not stored"
        shown = [f"{value:{form}}"] * bool(good) + [counted] * (good < count)
        look = f"background-color: {to_hex(colormaps['viridis'](share))}" if good else ""
        look += f"; color: {'black' if share > BRIGHT else 'white'}" if good else ""
        hatching = "all" if good == count else "some" if good else "none"
        words = f"weight decay {decay:g}, momentum {momentum:g}: {counted} {told}"
        yield (
            f'<td><button class="ncbook-{hatching}" style="{look}" value="[{decay}, {momentum}]" '
            f'title="{words}">{" ".join(shown)}</button></td>'
        )


def cells(runs: pd.DataFrame, metric: str, by: Sequence[str]) -> pd.DataFrame:
    """For each setting, the mean ``value`` of a metric over the runs that learned (of an accuracy:
    that ended), how many learned (``good``), and how many there are (``count``)."""
    learned = rule.learned(runs)
    kept = runs["status"] == "ok" if metric in figures.ACCURACIES else learned
    groups = runs[[*by]].assign(value=runs[metric].where(kept), good=learned, count=1)
    return groups.groupby([*by]).agg({"value": "mean", "good": "sum", "count": "sum"})


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


def _digits(values: pd.Series) -> int:
    """How many decimals of per cents tell apart what differs, also from 100 %: at most 3."""
    values = pd.Series([*values.dropna(), 1.0]).round(5)
    return next((d for d in (1, 2) if values.round(d + 2).nunique() == values.nunique()), 3)
