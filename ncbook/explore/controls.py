"""Labelled controls, figures as pictures, and the line that says what a panel is doing."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO

import ipywidgets as widgets
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ncbook import text
from ncbook.figures import alt_text

LABEL_WIDTH, SLIDER_WIDTH = "8.5em", "26em"
# Of a dropdown, in em: its label and frame, one letter, and the least width, which fits numbers.
FRAME, LETTER, LEAST = 12.5, 0.53, 20.0
# Matplotlib is not thread-safe, and a live training draws in a thread of its own.
DRAWING = threading.Lock()
IN_ROWS = {"display": "flex", "flex_flow": "row wrap", "align_items": "center"}


def words(label: str, tooltip: str, width: str = SLIDER_WIDTH) -> dict:
    """What all controls have: label, tooltip and width."""
    style, layout = {"description_width": LABEL_WIDTH}, {"width": width}
    return {"description": label, "tooltip": tooltip, "style": style, "layout": layout}


def dropdown(label: str, tooltip: str, options: Sequence = ()) -> widgets.Dropdown:
    """A list to choose from: values, or (text, value)."""
    made = widgets.Dropdown(options=options, **words(label, tooltip))
    fit(made)
    return made


def fit(control: widgets.Dropdown) -> None:
    """Make a list as wide as its longest option."""
    longest = max((len(str(label)) for label in control._options_labels), default=0)
    width = FRAME + LETTER * longest
    # In a column, per cent would be of the column's width, which is that of its content.
    control.layout.width = f"min({width:.1f}em, 100%)" if width > LEAST else f"{LEAST}em"


def stops(label: str, tooltip: str, values: Sequence[float], value: float):
    """A slider that stops at these values only."""
    options = [(f"{v:g}", v) for v in values]
    look = words(label, tooltip)
    return widgets.SelectionSlider(options=options, value=value, continuous_update=False, **look)


def button(label: str, tooltip: str, icon: str = "", style: str = "") -> widgets.Button:
    """A button with an icon of Font Awesome and a style of ipywidgets."""
    return widgets.Button(description=label, tooltip=tooltip, icon=icon, button_style=style)


def row(*children: widgets.Widget) -> widgets.Box:
    """Widgets next to each other; below each other where the window is narrow."""
    return widgets.Box(children, layout=IN_ROWS)


def note(html: str) -> widgets.HTML:
    """A sentence of explanation."""
    return widgets.HTML(dense(f'<span style="opacity: 0.8">{html}</span>'))


def dense(html: str) -> str:
    """HTML with the line height of a page: that of an HTML widget is the height of a button."""
    return f'<div style="line-height: 1.4">{html}</div>'


class StatusLine(widgets.HTML):
    """One line: that work is going on, what went wrong, or any other message."""

    def __init__(self) -> None:
        super().__init__(layout={"min_height": "1.9em"})

    def say(self, message: str, colour: str = "inherit") -> None:
        """Show a line of plain text."""
        self.value = f'<span role="status" style="color: {colour}">{text.html(message)}</span>'

    @contextmanager
    def working(self, what: str = "working…") -> Iterator[None]:
        """Show ``what`` while the block runs; errors of the user's input become a line."""
        self.say(what, "#b35c00")
        try:
            yield
        except (ValueError, OSError) as error:
            self.say(f"{error}", "#b00020")
        else:
            self.value = ""


class Picture(widgets.HTML):
    """A figure as a picture with alternative text, which ``Image`` of ipywidgets cannot have. The
    figure itself is kept as ``figure``."""

    def __init__(self) -> None:
        super().__init__()
        self.add_class("ncbook-picture")
        self.figure: Figure | None = None

    def show(self, figure: Figure, words: str) -> None:
        """Draw a figure at its own size, so that a moving picture does not tremble; ``words`` say
        what it shows."""
        data = BytesIO()
        with DRAWING:
            canvas = FigureCanvasAgg(figure)
            canvas.print_png(data)
        width, height = canvas.get_width_height()
        # Decoded together with the text around it, so that nothing flickers.
        look = {"decoding": "sync", "style": "max-width: 100%; height: auto"}
        self.value = alt_text.tag(data.getvalue(), words, width=width, height=height, **look)
        self.figure = figure

    def clear(self) -> None:
        """Show nothing."""
        self.figure, self.value = None, ""
