"""What a notebook's page is given: words, tables and figures, or the line that trains the runs."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
from IPython.display import HTML, Markdown, display
from matplotlib.figure import Figure

from ncbook import alt_text


def given(runs: pd.DataFrame, line: str, *shows: Callable[[pd.DataFrame], object]) -> None:
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
    """As ``given``, and below it a fold-out with the lines that train the runs, stored or not."""
    given(runs, "", *shows)
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
