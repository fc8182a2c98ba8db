"""What a notebook's page is given: words, tables and figures, the lines that train their runs, and
which stored runs it does without."""

import warnings
from collections.abc import Callable

import matplotlib.pyplot as plt
import pandas as pd
from IPython import get_ipython
from IPython.display import HTML, Markdown, display
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ncbook import store, text
from ncbook.figures import alt_text


def tell_damage() -> None:
    """From now on this notebook's page says which files and rows of the store were left out, and
    why: each once."""
    if get_ipython() is None or hasattr(warnings.showwarning, "told"):
        return
    show, told = warnings.showwarning, set()

    def showwarning(message, category, *where, **more):
        if not issubclass(category, store.DamagedFileWarning):
            show(message, category, *where, **more)
        elif str(message) not in told:
            told.add(str(message))
            say_left_out(str(message))

    showwarning.told = told
    warnings.showwarning = showwarning


def say_left_out(why: str) -> None:
    """Display that stored runs are missing here, and why."""
    words = "<strong>Some of the stored runs are not shown here.</strong>"
    display(HTML(f"<p>{words} {text.html(why)}</p>"))


def show_if_any(runs: pd.DataFrame, line: str, *shows: Callable[[pd.DataFrame], object]) -> None:
    """Display what each of ``shows`` makes of the runs: text as Markdown, a figure with its label
    as alternative text. If there are none: a sentence, and the line of a shell that trains them
    (or, if that is empty, the sentence alone)."""
    if runs.empty:
        sentence = "The store has no such runs yet, so there is nothing to show here."
        code = f" To train them:\n\n```bash\n{line.strip()}\n```" if line else ""
        display(Markdown(sentence + code))
        return
    for show in shows:
        made = show(runs)
        made = Markdown(made) if isinstance(made, str) else made
        display(alt_text.described(made) if isinstance(made, Figure) else made)


def folded(lines: str, title: str = "The lines that train it") -> Markdown:
    """Lines of a shell for a page, which shows their title until a reader opens it."""
    code = f"```bash\n{lines.strip()}\n```"
    return Markdown(f"<details><summary>{title}</summary>\n\n{code}\n\n</details>")


def with_lines(runs: pd.DataFrame, lines: str, *shows: Callable[[pd.DataFrame], object]) -> None:
    """``show_if_any``, and below it a fold-out with the lines that train the runs."""
    show_if_any(runs, "", *shows)
    display(folded(lines))


def side_by_side(*figures: Figure) -> HTML:
    """Small figures in rows; one below the other where the page is narrow."""
    cells = [
        f'<div style="max-width: 440px">{alt_text.described(figure).data}</div>'
        for figure in figures
    ]
    columns = "repeat(auto-fit, minmax(min(260px, 100%), 1fr))"  # of one width, the last row's too
    style = f"display: grid; grid-template-columns: {columns}; gap: 0.5em"
    return HTML(f'<div style="{style}">{"".join(cells)}</div>')


def small_panels(count: int, height: float = 3.9) -> list[Axes]:
    """The axes of so many small figures, for ``in_rows``."""
    size = {"figsize": (4.8, height), "layout": "constrained"}
    return [plt.subplots(**size)[1] for _ in range(count)]


def in_rows(*axes: Axes) -> HTML:
    """The figures of some ``small_panels`` ``side_by_side``, each with its legend below.

    >>> left, right = small_panels(2)
    >>> in_rows(left, right)
    <IPython.core.display.HTML object>
    """
    for axis in axes:
        if axis.get_legend() is None and axis.get_legend_handles_labels()[1]:
            axis.figure.legend(loc="outside lower center", ncols=2)
        plt.close(axis.figure)
    return side_by_side(*(axis.figure for axis in axes))
