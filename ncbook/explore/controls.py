"""Labelled controls, dropdowns over a table of runs, of which each offers what the choices before
it allow, figures as pictures, and the line that says what a panel is doing."""

import base64
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from html import escape
from io import BytesIO
from typing import Any

import ipywidgets as widgets
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ncbook import figures, text
from ncbook.figures import display

# Column: label and tooltip, in the order in which choices depend on each other. Short labels: those
# of two optimizers fit one row.
WORDS = {
    "dataset": ("data set", "what the network was trained on"),
    "model": ("network", "the architecture that was trained"),
    "recipe": ("training", "the epochs, and every setting that differs from the default"),
    "optimizer": ("optimizer", "the update rule; names that end in W decouple the weight decay"),
    "coupled_share": ("s", "the share s of the weight decay that is in the gradient"),
    "lr": ("η", "the learning rate η at the start of the training"),
    "momentum": ("β", "the momentum β; of Adam: β₁"),
    "weight_decay": ("λ", "the weight decay λ; of mixed optimizers: both kinds together"),
}
SHARED = ("dataset", "model", "recipe")
OWN = ("optimizer", "coupled_share", "lr", "momentum", "weight_decay")
LABEL = 120  # characters of an option, at most
SELDOM = "coupled_share"  # one value for most optimizers: then its control is hidden
# The first choice, where it exists: one setting of the book's small default that collapsed.
START = {"dataset": "digits", "model": "mlp", "recipe": "200 epochs", "optimizer": "adam"}
START |= {"lr": 0.005, "momentum": 0.9, "weight_decay": 0.05}
STARTS = {"A": START, "B": START | {"optimizer": "adamw"}}
# Matplotlib is not thread-safe, and a live training draws in a thread of its own.
DRAWING = threading.Lock()


def dropdown(label: str, tooltip: str, options: Sequence = ()) -> widgets.Dropdown:
    """A list to choose from, values or (text, value)."""
    words = dict(description=titled(label, tooltip), description_allow_html=True, tooltip=tooltip)
    return widgets.Dropdown(options=options, **words)


def titled(label: str, tooltip: str) -> str:
    """A label that shows the tooltip, which a dropdown with a description does not do by itself."""
    return f'<span title="{escape(tooltip)}">{escape(label)}</span>'


def button(label: str, tooltip: str, pressed: Callable[[], Any], icon: str = "") -> widgets.Button:
    """A button that calls ``pressed`` with nothing."""
    made = widgets.Button(description=label, tooltip=tooltip, icon=icon)
    made.on_click(lambda _: pressed())
    return made


class StatusLine(widgets.HTML):
    """One line: that work is going on, what went wrong, or any other message."""

    def say(self, message: object, colour: str = "inherit") -> None:
        """Show a line of plain text."""
        self.value = f'<span role="status" style="color: {colour}">{text.html(message)}</span>'

    @contextmanager
    def working(self, what: str = "working…") -> Iterator[None]:
        """Show ``what`` while the block runs and says nothing; errors of the user's input become a
        line, and of any other the line says that it happened."""
        self.say(what, "var(--jp-warn-color0, #b35c00)")
        shown = self.value
        try:
            yield
        except Exception as error:
            expected = isinstance(error, ValueError | OSError)
            why = error if expected else f"an error in the panel: {type(error).__name__}: {error}"
            self.say(why, "var(--jp-error-color0, #b00020)")
            if not expected:
                raise
        else:
            self.value = "" if self.value == shown else self.value


class StorePanel(widgets.VBox):
    """A tab over the store of an ``Explorer``. ``draw()`` shows what is chosen; it is called while
    the tab is open, unless ``fresh`` says that nothing has changed since."""

    def __init__(self, window: Any) -> None:
        super().__init__()
        self.window, self.fresh = window, False

    def redraw(self, _: object = None) -> None:
        """Draw what is chosen now."""
        self.fresh = True
        with self.window.status.working():
            self.draw()


class Picture(widgets.HTML):
    """A figure as a picture with alternative text, which ``Image`` of ipywidgets cannot have. The
    figure itself is kept as ``figure``."""

    figure: Figure | None = None

    def show(self, figure: Figure, words: str) -> None:
        """Draw a figure at its own size; ``words`` say what it shows."""
        png = drawn(figure, "png")
        width, height = figure.canvas.get_width_height()
        # Decoded together with the text around it, so that nothing flickers.
        look = {"class": "ncbook-picture", "decoding": "sync"}
        self.value = display.tag(png, words, width=width, height=height, **look)
        self.figure = figure


def drawn(figure: Figure, kind: str) -> bytes:
    """A figure as a file of this kind, ``png`` or ``svg``, at its own size."""
    data = BytesIO()
    with DRAWING:
        figure.savefig(data, format=kind, bbox_inches=figure.bbox_inches)
    return data.getvalue()


def download(name: str, content: bytes) -> str:
    """A link that saves a file."""
    code = base64.b64encode(content).decode()
    return f'<a download="{name}" href="data:application/octet-stream;base64,{code}">{name}</a>'


class Chooser:
    """One dropdown for each of some columns of ``WORDS``. ``selected`` always has at least one of
    the ``runs``, if there are any: a change sets each later control to the same value or to the
    nearest one that exists; ``lost`` says which had to be another one. ``on_choice`` is called
    after the user changed a control, not after ``offer`` and ``choose``. ``followers`` are
    choosers among what is selected. A ``name``, of ``STARTS``, labels the first control and says
    where the choice begins."""

    def __init__(
        self,
        columns: Sequence[str],
        on_choice: Callable[[], Any],
        name: str = "",
        followers: Sequence["Chooser"] = (),
    ) -> None:
        self.controls = {column: dropdown(*WORDS[column]) for column in columns}
        if name:
            self.controls[columns[0]].description = titled(name, WORDS[columns[0]][1])
        self.selected = self.runs = pd.DataFrame()
        self._on_choice, self._narrowing = on_choice, False
        self._start, self._followers, self.lost = STARTS.get(name, START), followers, ""
        for control in self.controls.values():
            control.observe(self._changed, "value")

    def offer(self, runs: pd.DataFrame) -> None:
        """Offer other runs; choices that exist among them stay."""
        self.runs = runs
        self._narrow(self._start if self.selected.empty else self.chosen)

    def choose(self, **values: Any) -> None:
        """Choose these values, or the nearest that exist."""
        self._narrow(self.chosen | values)

    @property
    def chosen(self) -> dict[str, Any]:
        """Column to value."""
        return {name: control.value for name, control in self.controls.items()}

    def of(self, *columns: str) -> pd.DataFrame:
        """The runs with the values that are chosen for these columns."""
        wanted = [self.runs[name] == self.controls[name].value for name in columns]
        return self.runs[np.logical_and.reduce(wanted)]

    def _changed(self, _: object) -> None:
        if not self._narrowing:
            self._narrow(self.chosen)
            self._on_choice()

    def _narrow(self, wanted: dict[str, Any]) -> None:
        """Set all controls, and select the runs that they choose."""
        rows, self._narrowing = self.runs, True
        for name, control in self.controls.items():
            options = offered_by(rows, name)
            if control.options != options:
                control.options = options
            if options:
                offered = [value for _, value in options]
                control.value = _nearest(wanted.get(name), offered, rows[name])
                rows = rows[rows[name] == control.value]
            hidden = name == SELDOM and len(options) < 2
            control.layout.display = "none" if hidden else None
        self.lost = "" if self.selected.empty else _lost(wanted, self.chosen)
        self.selected, self._narrowing = rows, False
        for chooser in self._followers:
            chooser.offer(rows)


def _lost(wanted: dict[str, Any], chosen: dict[str, Any]) -> str:
    """What to say of the first choice that is not offered."""
    for name in ("optimizer", "lr", "momentum", "weight_decay"):
        before, now = (values.get(name) for values in (wanted, chosen))
        if None in (before, now) or before == now:
            continue
        if name == "optimizer":
            before, now = (figures.look(value)["label"] for value in (before, now))
            return f"no runs of {before} here: {now} is shown"
        label = WORDS[name][0]
        return f"no runs at {label} = {before:g} here: {label} = {now:g} is shown"
    return ""


def offered_by(rows: pd.DataFrame, name: str) -> tuple[tuple[str, Any], ...]:
    """The values of a column of some runs, each with its text, in order."""
    if rows.empty:
        return ()
    if name == "optimizer":
        names = figures.present(rows[name])
        return tuple((figures.look(optimizer)["label"], optimizer) for optimizer in names)
    values = rows[name].drop_duplicates().sort_values().tolist()
    return tuple((f"{v:g}" if isinstance(v, float) else text.line(v, LABEL), v) for v in values)


def _nearest(wanted: Any, offered: Sequence[Any], values: pd.Series) -> Any:
    """The wanted value, or the nearest number, or the commonest value."""
    if wanted in offered:
        return wanted
    if isinstance(wanted, float) and pd.api.types.is_float_dtype(values):
        # Learning rates by their ratio: 0.01 is nearer to 0.005 than 0.001 is.
        scale = (lambda v: max(v, wanted)) if values.name == "lr" else (lambda v: 1)
        return min(offered, key=lambda v: abs(v - wanted) / scale(v))
    return values.mode().iloc[0]
