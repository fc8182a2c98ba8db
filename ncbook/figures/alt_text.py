"""Figures as pictures with words for those who cannot see them."""

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
# What would be read out of a formula, but is not in it, and what is then read instead.
MATHS = (
    (re.compile(r"\\mathrm"), ""),
    (re.compile(r"\\,"), " "),
    (re.compile(r"\\([A-Za-z]+)(?=[\\{])"), r"\1 "),  # two names are two words
    (re.compile(r"[\\{}]"), ""),
)
FORMULA = re.compile(r"(?<!\\)\$(.+?)(?<!\\)\$")


def described(figure: Figure) -> HTML:
    """A figure as a picture with alternative text. (A notebook's own pictures cannot have any.)"""
    picture = BytesIO()
    figure.savefig(picture, format="png")
    drawn = Image.open(picture).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    picture = BytesIO()
    drawn.save(picture, format="png", optimize=True)
    looks = {"style": "max-width: 100%"}
    if has_a_scale(figure):
        looks["class"] = "colour-scale"
    return HTML(tag(picture.getvalue(), words(figure), **looks))


def has_a_scale(figure: Figure) -> bool:
    """Whether colours in it stand for numbers, as in a heatmap: then a page does not change them,
    as it does with lines at night (``book/_static/ncbook.css``)."""
    drawn = (artist for axis in figure.axes for artist in (*axis.collections, *axis.images))
    return any(artist.get_array() is not None for artist in drawn)


def tag(png: bytes, words: str, **attributes: object) -> str:
    """A PNG as HTML that needs no file, with its alternative text and further attributes."""
    code = base64.b64encode(png).decode()
    given = {"alt": words, "src": f"data:image/png;base64,{code}"} | attributes
    said = (f'{name}="{escape(str(value), quote=True)}"' for name, value in given.items())
    return f"<img {' '.join(said)}>"


def words(figure: Figure) -> str:
    """The figure's label, where it has one; else its title, and what each panel has on its axes and
    in its legend."""
    if figure.get_label():
        return text.line(figure.get_label(), LONGEST)
    parts = [figure.get_suptitle(), *map(_panel, figure.axes)]
    said = text.line(". ".join(part for part in parts if part), LONGEST)
    return FORMULA.sub(_spoken, said).replace(r"\$", "$")


def _spoken(formula: re.Match) -> str:
    said = formula[1]
    for pattern, instead in MATHS:
        said = pattern.sub(instead, said)
    return said


def _panel(axis: Axes) -> str:
    names = [label for label in axis.get_legend_handles_labels()[1] if not label.startswith("_")]
    between = " against ".join(filter(None, (axis.get_ylabel(), axis.get_xlabel())))
    parts = [axis.get_title(), between, ", ".join(dict.fromkeys(names))]
    return ": ".join(part for part in parts if part)


def use() -> None:
    """From now on this notebook shows each figure, whatever MPLBACKEND says, with its alternative
    text."""
    shell = get_ipython()
    if shell is None:
        return
    if getattr(shell, "kernel", None) is not None:
        shell.enable_matplotlib("inline")  # first, because it resets what is set below
    html = shell.display_formatter.formatters["text/html"]
    html.for_type(Figure, lambda figure: described(figure).data)
