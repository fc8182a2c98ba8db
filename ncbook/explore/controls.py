"""Labelled controls, dropdowns over a table of runs, of which each offers what the choices before
it allow, figures as pictures, and the line that says what a panel is doing."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import ipywidgets as widgets
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ncbook import figures, text
from ncbook.figures import display

# Column: label and tooltip, in the order in which choices depend on each other.
WORDS = {
    "dataset": ("data set", "what the network was trained on"),
    "model": ("network", "the architecture that was trained"),
    "recipe": ("training", "the epochs, and every setting that differs from the default"),
    "optimizer": ("optimizer", "the update rule; names that end in W decouple the weight decay"),
    "coupled_share": ("coupled share", "the share of the weight decay that is in the gradient"),
    "lr": ("learning rate η", "at the start of the training"),
    "momentum": ("momentum β", "of Adam: β₁"),
    "weight_decay": ("weight decay λ", "of mixed optimizers: coupled and decoupled together"),
    "seed": ("seed", "of the initial weights and of the minibatches"),
}
LABEL = 120  # characters of an option, at most
EVERY = "all"  # ipywidgets would take None for no choice
SELDOM = "coupled_share"  # one value for most optimizers: then its control is hidden
# The first choice, where it exists: one run of the book's small default that collapsed.
START = {"dataset": "digits", "model": "mlp", "recipe": "200 epochs", "optimizer": "adam"}
START |= {"lr": 0.005, "momentum": 0.9, "weight_decay": 0.05}
# Matplotlib is not thread-safe, and a live training draws in a thread of its own.
DRAWING = threading.Lock()


def words(label: str, tooltip: str) -> dict:
    """What all controls have: label, tooltip and width."""
    style = {"description_width": "8.5em"}
    return {"description": label, "tooltip": tooltip, "style": style, "layout": {"width": "26em"}}


def dropdown(label: str, tooltip: str, options: Sequence = ()) -> widgets.Dropdown:
    """A list to choose from, values or (text, value), as wide as its longest option."""
    made = widgets.Dropdown(options=options, **words(label, tooltip))
    made.layout = {"width": "max-content", "min_width": "20em", "max_width": "100%"}
    return made


def row(*children: widgets.Widget) -> widgets.Box:
    """Widgets next to each other; below each other where the window is narrow."""
    return widgets.Box(children, layout={"flex_flow": "row wrap", "align_items": "center"})


def note(html: str) -> widgets.HTML:
    """A sentence of explanation."""
    return widgets.HTML(dense(f'<span style="opacity: 0.8">{html}</span>'))


def dense(html: str) -> str:
    """HTML with the line height of a page: that of an HTML widget is the height of a button."""
    return f'<div style="line-height: 1.4">{html}</div>'


class StatusLine(widgets.HTML):
    """One line: that work is going on, what went wrong, or any other message."""

    def say(self, message: object, colour: str = "inherit") -> None:
        """Show a line of plain text."""
        self.layout.min_height = "1.9em"
        self.value = f'<span role="status" style="color: {colour}">{text.html(message)}</span>'

    @contextmanager
    def working(self, what: str = "working…") -> Iterator[None]:
        """Show ``what`` while the block runs; errors of the user's input become a line."""
        self.say(what, "#b35c00")
        try:
            yield
        except (ValueError, OSError) as error:
            self.say(error, "#b00020")
        else:
            self.value = ""


class Picture(widgets.HTML):
    """A figure as a picture with alternative text, which ``Image`` of ipywidgets cannot have. The
    figure itself is kept as ``figure``."""

    figure: Figure | None = None

    def show(self, figure: Figure, words: str) -> None:
        """Draw a figure at its own size, so that a moving picture does not tremble; ``words`` say
        what it shows."""
        self.add_class("ncbook-picture")
        data = BytesIO()
        with DRAWING:
            canvas = FigureCanvasAgg(figure)
            canvas.print_png(data)
        width, height = canvas.get_width_height()
        # Decoded together with the text around it, so that nothing flickers.
        look = {"decoding": "sync", "style": "max-width: 100%; height: auto"}
        self.value = display.tag(data.getvalue(), words, width=width, height=height, **look)
        self.figure = figure


class Chooser(widgets.Box):
    """One dropdown for each of some columns of ``WORDS``; of those in ``or_all``, all values may be
    taken together. ``selected`` always has at least one run, if there are any: a change sets each
    later control to the same value or to the nearest one that exists. ``on_choice`` is called after
    the user changed a control, not after ``offer`` and ``choose``; ``start`` is the first choice,
    where it exists. ``followers`` are choosers among what is selected."""

    def __init__(
        self,
        columns: Sequence[str],
        on_choice: Callable[[], Any],
        or_all: Sequence[str] = (),
        start: dict[str, Any] = START,
        followers: Sequence["Chooser"] = (),
    ) -> None:
        self.controls = {name: dropdown(*WORDS[name]) for name in columns}
        self.selected = self._runs = pd.DataFrame()
        self._on_choice, self._or_all = on_choice, or_all
        self._narrowing, self._start, self._followers = False, start, followers
        for control in self.controls.values():
            control.observe(self._changed, "value")
        super().__init__(list(self.controls.values()), layout={"flex_flow": "row wrap"})

    def offer(self, runs: pd.DataFrame) -> None:
        """Offer other runs; choices that exist among them stay."""
        self._runs = runs
        self._narrow(self._start if self.selected.empty else self._wanted())

    def choose(self, **values: Any) -> None:
        """Choose these values, or the nearest that exist."""
        self._narrow(self._wanted() | values)

    @property
    def chosen(self) -> dict[str, Any]:
        """Column to value; ``EVERY`` where all are taken."""
        return {name: control.value for name, control in self.controls.items()}

    def _changed(self, _: object) -> None:
        if not self._narrowing:
            self._narrow(self._wanted())
            self._on_choice()

    def _wanted(self) -> dict[str, Any]:
        """The controls' values. A single seed was no choice: all were wanted."""
        single = {n: EVERY for n in self._or_all if len(self.controls[n].options) < 2}
        return self.chosen | single

    def _narrow(self, wanted: dict[str, Any]) -> None:
        """Set all controls, and select the runs that they choose."""
        rows, self._narrowing = self._runs, True
        for name, control in self.controls.items():
            options = _options(rows, name, name in self._or_all)
            if control.options != options:
                control.options = options
            if options:
                offered = [value for _, value in options]
                control.value = _nearest(wanted.get(name), offered, rows[name])
                if control.value != EVERY:
                    rows = rows[rows[name] == control.value]
            hidden = name == SELDOM and len(options) < 2
            control.layout.display = "none" if hidden else None
        self.selected, self._narrowing = rows, False
        for chooser in self._followers:
            chooser.offer(rows)


def _options(rows: pd.DataFrame, name: str, or_all: bool) -> tuple[tuple[str, Any], ...]:
    if rows.empty:
        return ()
    if name == "optimizer":
        names = [optimizer for optimizer, _ in figures.by_optimizer(rows)]
        return tuple((figures.look(optimizer)["label"], optimizer) for optimizer in names)
    values = rows[name].drop_duplicates().sort_values().tolist()
    options = [(f"{v:g}" if isinstance(v, float) else text.line(v, LABEL), v) for v in values]
    every = [(f"all {len(values)}", EVERY)] if or_all and len(values) > 1 else []
    return (*every, *options)


def _nearest(wanted: Any, offered: Sequence[Any], values: pd.Series) -> Any:
    """The wanted value; or the nearest number; or all; or the commonest value."""
    if wanted in offered:
        return wanted
    if isinstance(wanted, float) and pd.api.types.is_float_dtype(values):
        # Learning rates by their ratio: 0.01 is nearer to 0.005 than 0.001 is.
        scale = (lambda v: max(v, wanted)) if values.name == "lr" else (lambda v: 1)
        return min(values.unique().tolist(), key=lambda v: abs(v - wanted) / scale(v))
    return EVERY if EVERY in offered else values.mode().iloc[0]
