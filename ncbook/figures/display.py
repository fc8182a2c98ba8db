"""What a notebook's page shows: words and tables, figures as pictures with alternative text, the
lines that train their runs, and which stored runs are missing from it."""

import base64
import re
from collections.abc import Callable
from html import escape
from io import BytesIO

import matplotlib.pyplot as plt
import pandas as pd
from IPython import get_ipython
from IPython.display import HTML, Markdown, display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from ncbook import notices, store, text
from ncbook.figures.style import use_style

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


def start_chapter() -> None:
    """What every chapter calls once: the shared look of figures, their alternative text, whatever
    MPLBACKEND says, and the package's notices, such as on damaged files of the store, on the page
    instead of below it."""
    use_style()
    shell = get_ipython()
    if shell is None:
        return

    def show_notice(message: str, module: str) -> None:
        left_out = module.startswith(store.__name__)
        say_left_out(message) if left_out else display(HTML(f"<p>{text.html(message)}</p>"))

    notices.pass_to(show_notice)
    if getattr(shell, "kernel", None) is not None:
        shell.enable_matplotlib("inline")  # first, because it resets what is set below
    shell.display_formatter.formatters["text/html"].for_type(Figure, lambda f: described(f).data)


def say_left_out(why: str) -> None:
    """Display that stored runs are missing here, and why."""
    words = "<strong>Some of the stored runs are not shown here.</strong>"
    display(HTML(f"<p>{words} {text.html(why)}</p>"))


def show_if_any(runs: pd.DataFrame, line: str, *shows: Callable[[pd.DataFrame], object]) -> None:
    """Display what each of ``shows`` makes of the runs: text as Markdown, a figure with its
    alternative text. Without runs: a sentence, and the shell line that trains them, if given."""
    if runs.empty:
        sentence = "The store has no such runs yet, so there is nothing to show here."
        code = f" To train them:\n\n```bash\n{line.strip()}\n```" if line else ""
        display(Markdown(sentence + code))
        return
    page_form = {str: Markdown, Figure: described}
    for made in (show(runs) for show in shows):
        display(page_form.get(type(made), lambda made: made)(made))


def with_lines(runs: pd.DataFrame, lines: str, *shows: Callable[[pd.DataFrame], object]) -> None:
    """``show_if_any``, and below it the lines that train the runs, hidden until a reader opens
    them."""
    show_if_any(runs, "", *shows)
    title, code = "The lines that train it", f"```bash\n{lines.strip()}\n```"
    display(Markdown(f"<details><summary>{title}</summary>\n\n{code}\n\n</details>"))


def side_by_side(*figures: Figure) -> HTML:
    """Small figures in rows; one below the other where the page is narrow."""
    cells = "".join(f'<div style="max-width: 440px">{described(f).data}</div>' for f in figures)
    columns = "repeat(auto-fit, minmax(min(300px, 100%), 1fr))"  # of one width, the last row's too
    style = f"display: grid; grid-template-columns: {columns}; gap: 0.5em"
    return HTML(f'<div style="{style}">{cells}</div>')


def small_panels(count: int, height: float = 3.9) -> list[Axes]:
    """The axes of ``count`` small figures, for ``in_rows``."""
    return [plt.subplots(figsize=(4.8, height), layout="constrained")[1] for _ in range(count)]


def in_rows(*axes: Axes) -> HTML:
    """The figures of some ``small_panels`` ``side_by_side``, each with its legend below."""
    for axis in axes:
        if axis.get_legend() is None and axis.get_legend_handles_labels()[1]:
            axis.figure.legend(loc="outside lower center", ncols=2)
        plt.close(axis.figure)
    return side_by_side(*(axis.figure for axis in axes))


def described(figure: Figure) -> HTML:
    """A figure as a picture with alternative text."""
    drawn, picture = BytesIO(), BytesIO()
    figure.savefig(drawn, format="png")
    few = Image.open(drawn).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    few.save(picture, format="png", optimize=True)
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
    parts = filter(None, (figure.get_suptitle(), *map(_panel, figure.axes)))
    listed = text.line(". ".join(parts), LONGEST)
    return FORMULA.sub(_spoken, listed).replace(r"\$", "$")


def _spoken(formula: re.Match) -> str:
    spoken = formula[1]
    for pattern, instead in MATHS:
        spoken = pattern.sub(instead, spoken)
    return spoken


def _panel(axis: Axes) -> str:
    names = [label for label in axis.get_legend_handles_labels()[1] if not label.startswith("_")]
    between = " against ".join(filter(None, (axis.get_ylabel(), axis.get_xlabel())))
    return ": ".join(filter(None, (axis.get_title(), between, ", ".join(dict.fromkeys(names)))))
