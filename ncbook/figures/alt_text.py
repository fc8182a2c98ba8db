"""Figures as pictures with alternative text."""

import base64
import re
from html import escape
from io import BytesIO

from IPython import get_ipython
from IPython.display import HTML
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from ncbook import text

LONGEST = 4000  # characters of an alternative text
COLOURS = 256  # of a picture's palette: halves a page, and a figure of lines has not many more
# What a formula's source has and a screen reader should not read, and what it reads instead.
MATHS = (
    (re.compile(r"\\mathrm"), ""),
    (re.compile(r"\\,"), " "),
    (re.compile(r"\\([A-Za-z]+)(?=[\\{])"), r"\1 "),  # two names are two words
    (re.compile(r"[\\{}]"), ""),
)
FORMULA = re.compile(r"(?<!\\)\$(.+?)(?<!\\)\$")


def described(figure: Figure) -> HTML:
    """A figure as a picture with alternative text, which a notebook's own pictures cannot have."""
    picture = BytesIO()
    figure.savefig(picture, format="png")
    drawn = Image.open(picture).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    picture = BytesIO()
    drawn.save(picture, format="png", optimize=True)
    looks = {"style": "max-width: 100%"}
    # The page's night mode must not change colours that represent numbers, as it changes those of
    # lines (book/_static/ncbook.css).
    artists = (artist for axis in figure.axes for artist in (*axis.collections, *axis.images))
    if any(artist.get_array() is not None for artist in artists):
        looks["class"] = "colour-scale"
    return HTML(tag(picture.getvalue(), words(figure), **looks))


def tag(png: bytes, words: str, **attributes: object) -> str:
    """A PNG as HTML that needs no file, with its alternative text and further attributes."""
    code = base64.b64encode(png).decode()
    given = {"alt": words, "src": f"data:image/png;base64,{code}"} | attributes
    written = (f'{name}="{escape(str(value), quote=True)}"' for name, value in given.items())
    return f"<img {' '.join(written)}>"


def words(figure: Figure) -> str:
    """The figure's label, where it has one; else its title, and what each panel has on its axes and
    in its legend."""
    if figure.get_label():
        return text.line(figure.get_label(), LONGEST)
    parts = [figure.get_suptitle(), *map(_panel, figure.axes)]
    listed = text.line(". ".join(part for part in parts if part), LONGEST)
    return FORMULA.sub(_spoken, listed).replace(r"\$", "$")


def _spoken(formula: re.Match) -> str:
    spoken = formula[1]
    for pattern, instead in MATHS:
        spoken = pattern.sub(instead, spoken)
    return spoken


def _panel(axis: Axes) -> str:
    names = [label for label in axis.get_legend_handles_labels()[1] if not label.startswith("_")]
    between = " against ".join(filter(None, (axis.get_ylabel(), axis.get_xlabel())))
    parts = [axis.get_title(), between, ", ".join(dict.fromkeys(names))]
    return ": ".join(part for part in parts if part)


def use() -> None:
    """Show every figure of this notebook with its alternative text, whatever MPLBACKEND says."""
    shell = get_ipython()
    if shell is None:
        return
    if getattr(shell, "kernel", None) is not None:
        shell.enable_matplotlib("inline")  # first, because it resets what is set below
    html = shell.display_formatter.formatters["text/html"]
    html.for_type(Figure, lambda figure: described(figure).data)
