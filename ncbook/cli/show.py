"""Answers on standard output: tables for people, JSON for programs; and bars meanwhile."""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import typer
from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table
from rich.text import Text

from ncbook import text

BAR_WIDTH = 20
LABEL_WIDTH = 36  # beside a bar: all of it in 80 columns
GAP = 2  # between two columns of a table
REDRAWS = 2  # a second: more is traffic for who is far away


def as_json(answer: Any) -> None:
    """On standard output, for a program."""
    typer.echo(json.dumps(answer, indent=2))


def line(what: str) -> None:
    """On standard output."""
    typer.echo(text.line(what))


def table(columns: Sequence[str], rows: Iterable[Sequence], total: Sequence | None = None) -> None:
    """The first column holds names, all others numbers; none is ever broken into two lines."""
    cells = [list(map(_cell, row)) for row in rows]
    feet = list(map(_cell, total)) if total else [""] * len(columns)
    widths = [max(map(len, column)) for column in zip(columns, *cells, feet, strict=True)]
    console = Console(highlight=False, markup=False, emoji=False)
    room = console.width - sum(widths[1:]) - GAP * len(columns)
    look = {"box": box.SIMPLE_HEAD, "padding": (0, GAP - 1, 0, 0), "pad_edge": False}
    shown = Table(show_footer=total is not None, **look)
    shown.add_column(columns[0], feet[0], no_wrap=True)
    for head, foot in zip(columns[1:], feet[1:], strict=True):
        shown.add_column(head, foot, justify="right", no_wrap=True)
    for name, *numbers in cells:
        shown.add_row(cropped(name, room), *numbers)
    console.print(shown)


def cropped(label: str, width: int) -> str:
    """Its end: what tells blocks apart is there."""
    return label if len(label) <= width else f"…{label[1 - width :]}"


def _cell(value: Any) -> str:
    return "-" if value is None else text.line(value)


class Board:
    """What is seen of a sweep while it runs: two bars on a terminal, else a line a block."""

    def __init__(self, bars: Progress, blocks: int, runs: int) -> None:
        self._bars, self._blocks = bars, blocks
        self._block = bars.add_task("starting", total=blocks, unit="blocks")
        self._runs = bars.add_task("all", total=runs, unit="runs")
        self._before, self._of_block = 0, 0  # runs that have ended

    def begin(self, label: str) -> None:
        """Of a block."""
        self._bars.update(self._block, description=cropped(text.line(label), LABEL_WIDTH))

    def runs(self, ended: int) -> None:
        """How many of this block have ended by now."""
        self._of_block = ended
        self._bars.update(self._runs, completed=self._before + ended)

    def end(self, line: str, failed: bool) -> None:
        """Of a block, and what became of it."""
        self._before += self._of_block
        self._of_block = 0
        self._bars.advance(self._block)
        if self._bars.disable or failed:
            number = self._bars.tasks[self._block].completed
            self.line(f"[{number:.0f}/{self._blocks}] {line}")

    def line(self, what: str) -> None:
        """Above the bars, and there to stay."""
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
        _Left(table_column=Column(no_wrap=True)),
    )
    quiet = not console.is_terminal
    options = {"refresh_per_second": REDRAWS, "transient": True, "disable": quiet}
    with Progress(*columns, console=console, **options) as bars:
        yield Board(bars, blocks, runs)


class _Left(TimeRemainingColumn):
    """As far as it can be told."""

    def render(self, task: Task) -> Text:
        known = task.time_remaining and not task.finished
        return Text.assemble(super().render(task), " left") if known else Text()
