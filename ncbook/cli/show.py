"""Answers on standard output: tables for people, JSON for programs. Bars on standard error."""

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column

from ncbook import text

BAR_WIDTH = 20
LABEL_WIDTH = 36  # next to a bar: all of it in 80 columns
GAP = "  "  # between two columns of a table
REDRAWS = 2  # a second: more is traffic on a remote terminal


def as_json(answer: Any) -> None:
    """On standard output, for a program."""
    typer.echo(json.dumps(answer, indent=2))


def line(what: str) -> None:
    """On standard output."""
    typer.echo(text.line(what))


def table(columns: Sequence[str], rows: Iterable[Sequence], total: Sequence) -> None:
    """The first column holds names, all others numbers; a long name loses its beginning."""
    cells = [list(map(_cell, row)) for row in (columns, *rows, total)]
    first, *widths = (max(map(len, column)) for column in zip(*cells, strict=True))
    room = shutil.get_terminal_size().columns - sum(widths) - len(GAP) * len(widths)
    first = min(first, room)
    for i, (name, *numbers) in enumerate(cells):
        aligned = (number.rjust(width) for number, width in zip(numbers, widths, strict=True))
        typer.echo(GAP.join((cropped(name, first).ljust(first), *aligned)))
        if i == 0:
            typer.echo("─" * (first + sum(widths) + len(GAP) * len(widths)))


def cropped(label: str, width: int) -> str:
    """Its end: what tells blocks apart is there."""
    return label if len(label) <= width else f"…{label[1 - width :]}"


def _cell(value: Any) -> str:
    return "-" if value is None else text.line(value)


class Board:
    """Progress of a sweep while it runs: two bars on a terminal, else a line a block."""

    def __init__(self, bars: Progress, blocks: int, runs: int) -> None:
        self._bars = bars
        self._block = bars.add_task("starting", total=blocks, unit="blocks")
        self._runs = bars.add_task("all", total=runs, unit="runs")
        self._before = 0  # runs that had ended when the block began

    def begin(self, label: str) -> None:
        """Begin a block."""
        self._before = self._bars.tasks[self._runs].completed
        self._bars.update(self._block, description=cropped(text.line(label), LABEL_WIDTH))

    def runs(self, ended: int) -> None:
        """Show how many runs of this block have ended."""
        self._bars.update(self._runs, completed=self._before + ended)

    def end(self, line: str, failed: bool) -> None:
        """End a block, with what became of it."""
        self._bars.advance(self._block)
        task = self._bars.tasks[self._block]
        if self._bars.disable or failed:
            self.line(f"[{task.completed:.0f}/{task.total:.0f}] {line}")

    def line(self, what: str) -> None:
        """Print a line above the bars."""
        self._bars.console.print(text.line(what), soft_wrap=True)


@contextmanager
def board(blocks: int, runs: int) -> Iterator[Board]:
    """For so many blocks, of which so many runs are to be trained; on standard error."""
    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(BAR_WIDTH),
        TextColumn("{task.completed:.0f}/{task.total:.0f} {task.fields[unit]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(table_column=Column(no_wrap=True)),
        TextColumn("left"),
    )
    quiet = not console.is_terminal
    options = {"refresh_per_second": REDRAWS, "transient": True, "disable": quiet}
    with Progress(*columns, console=console, **options) as bars:
        yield Board(bars, blocks, runs)
