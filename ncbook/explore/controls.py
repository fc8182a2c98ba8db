"""Controls with a label and a tooltip, pictures of figures, and a sign that says "working…"."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO

import ipywidgets as widgets
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ncbook import text
from ncbook.figures import alt_text

LABEL_WIDTH, CONTROL_WIDTH, SLIDER_WIDTH = "8.5em", "20em", "26em"
# Of a list: around its texts, and of a letter; and the least, in which numbers have room.
AROUND, LETTER, LEAST = 12.5, 0.53, 20.0
# Matplotlib is not made for threads: a live training draws in its own, one drawing at a time.
DRAWING = threading.Lock()


def dropdown(label: str, tooltip: str, options: Sequence = ()) -> widgets.Dropdown:
    """A list to choose from: values, or (text, value)."""
    made = widgets.Dropdown(options=options, **_words(label, tooltip, CONTROL_WIDTH))
    fit(made)
    return made


def fit(control: widgets.Dropdown) -> None:
    """Make a list as wide as its longest text."""
    longest = max((len(str(label)) for label in control._options_labels), default=0)
    width = AROUND + LETTER * longest
    # In a column per cent would be of the column's width, which is that of what is in it.
    control.layout.width = f"min({width:.1f}em, 100%)" if width > LEAST else f"{LEAST}em"


def steps(label: str, tooltip: str, values: Sequence[float], value: float):
    """A slider over some values alone."""
    options = [(f"{v:g}", v) for v in values]
    words = _words(label, tooltip, SLIDER_WIDTH)
    return widgets.SelectionSlider(options=options, value=value, continuous_update=False, **words)


def slider(kind: type, label: str, tooltip: str, value: float, low: float, high: float, **more):
    """A slider of this kind from low to high (of a FloatLogSlider: powers of ten). It speaks when
    it is let go, so that no queue of drawings builds up behind it."""
    words = _words(label, tooltip, SLIDER_WIDTH)
    return kind(value=value, min=low, max=high, continuous_update=False, **more, **words)


def checkbox(label: str, tooltip: str, value: bool = False) -> widgets.Checkbox:
    """Yes or no."""
    words = _words(label, tooltip, "auto") | {"indent": False}
    return widgets.Checkbox(value=value, **words)


def button(label: str, tooltip: str, icon: str = "", style: str = "") -> widgets.Button:
    """Something to press."""
    return widgets.Button(description=label, tooltip=tooltip, icon=icon, button_style=style)


def _words(label: str, tooltip: str, width: str) -> dict:
    return {
        "description": label,
        "tooltip": tooltip,
        "style": {"description_width": LABEL_WIDTH},
        "layout": {"width": width},
    }


def row(*children: widgets.Widget) -> widgets.Box:
    """Side by side, and on to the next line where the window is narrow."""
    layout = {"display": "flex", "flex_flow": "row wrap", "align_items": "center"}
    return widgets.Box(children, layout=layout)


def note(html: str) -> widgets.HTML:
    """A sentence of explanation."""
    return widgets.HTML(dense(f'<span style="opacity: 0.8">{html}</span>'))


def dense(html: str) -> str:
    """HTML whose lines stand as near as on a page: an HTML widget's are as high as a button."""
    return f'<div style="line-height: 1.4">{html}</div>'


class StatusLine(widgets.HTML):
    """Says that work is going on; what went wrong, in a line; or what it is told to."""

    def __init__(self) -> None:
        super().__init__(layout={"min_height": "1.9em"})

    def say(self, words: str, colour: str = "inherit") -> None:
        """Show a line of plain text."""
        self.value = f'<span role="status" style="color: {colour}">{text.html(words)}</span>'

    @contextmanager
    def working(self, what: str = "working…") -> Iterator[None]:
        """Say so while the block runs. What a user's input may be at fault for becomes a line."""
        self.say(what, "#b35c00")
        try:
            yield
        except (ValueError, OSError) as error:
            self.say(f"{error}", "#b00020")
        else:
            self.value = ""


class Picture(widgets.HTML):
    """A figure as a picture with alternative text; the figure itself stays at hand as ``figure``.

    (An ``Image`` of ipywidgets can have no such text, and with a tooltip it is not shown.)
    """

    def __init__(self) -> None:
        super().__init__()
        self.add_class("ncbook-picture")
        self.figure: Figure | None = None

    def show(self, figure: Figure, words: str) -> None:
        """Draw a figure; ``words`` say what it shows, for those who cannot see it."""
        data, (width, height) = png(figure)
        # Its size and its pixels come at once with the text around it, so nothing flickers.
        look = {"decoding": "sync", "style": "max-width: 100%; height: auto"}
        self.value = alt_text.tag(data, words, width=width, height=height, **look)
        self.figure = figure

    def clear(self) -> None:
        """Show nothing."""
        self.figure, self.value = None, ""


def png(figure: Figure) -> tuple[bytes, tuple[int, int]]:
    """A figure as PNG, and its width and height: those of the figure, whatever it shows, so that a
    moving picture does not tremble."""
    data = BytesIO()
    with DRAWING:
        canvas = FigureCanvasAgg(figure)
        canvas.print_png(data)
    return data.getvalue(), canvas.get_width_height()
