"""What a notebook's page shows: words, tables and figures, the lines that train their runs, and
which stored runs are missing from it."""

from collections.abc import Callable

import matplotlib.pyplot as plt
import pandas as pd
from IPython import get_ipython
from IPython.display import HTML, Markdown, display
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ncbook import notices, store, text
from ncbook.figures import alt_text
from ncbook.figures.style import use_style


def start_chapter() -> None:
    """What every chapter calls once: the shared look of figures, their alternative text, and the
    package's notices, such as on damaged files of the store, on the page instead of below it."""
    use_style()
    alt_text.use()
    if get_ipython() is not None:
        notices.pass_to(_show_notice)


def _show_notice(message: str, module: str) -> None:
    if module.startswith(store.__name__):
        say_left_out(message)
    else:
        display(HTML(f"<p>{text.html(message)}</p>"))


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
    for show in shows:
        made = show(runs)
        made = Markdown(made) if isinstance(made, str) else made
        display(alt_text.described(made) if isinstance(made, Figure) else made)


def folded(lines: str, title: str = "The lines that train it") -> Markdown:
    """Shell lines below a title; a page hides them until a reader opens it."""
    code = f"```bash\n{lines.strip()}\n```"
    return Markdown(f"<details><summary>{title}</summary>\n\n{code}\n\n</details>")


def with_lines(runs: pd.DataFrame, lines: str, *shows: Callable[[pd.DataFrame], object]) -> None:
    """``show_if_any``, and below it, folded, the lines that train the runs."""
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
    """The axes of ``count`` small figures, for ``in_rows``."""
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
