"""What the commands say: tables for people and JSON for programs on standard output; errors and
notices on standard error."""

import json
import shutil
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import typer

from ncbook import notices, text

BAD_INPUT, INTERRUPTED = 2, 130  # exit codes; the second is 128 + SIGINT, as in shells
STOPPED_SWEEP = "all that ended is stored, and the same command goes on from there"
# Errors shown as lines, by name, since importing their classes takes seconds.
ERRORS = ("DataNotFoundError", "SweepError")
GAP = "  "  # between two columns of a table
NARROWEST = 16  # characters of a label, also where the terminal then breaks the lines


def say(what: object) -> None:
    """Print one line on standard error, whatever the text contains."""
    typer.echo(f"ncbook: {text.line(what)}", err=True)


def line(what: str) -> None:
    """Print one line on standard output."""
    typer.echo(text.line(what))


@contextmanager
def one_line_errors(stopped: str) -> Iterator[None]:
    """Show errors that a user can cause, and a stop, as one line, and end with an exit code."""
    _heed_one_stop()
    try:
        with notices.passed_to(lambda message, _: say(f"warning: {message}")):
            yield
    except KeyboardInterrupt:
        say(stopped)
        raise typer.Exit(INTERRUPTED) from None
    except Exception as error:
        if not isinstance(error, ValueError | OSError) and type(error).__name__ not in ERRORS:
            raise
        say(str(error) or type(error).__name__)
        raise typer.Exit(BAD_INPUT) from None


def _heed_one_stop() -> None:
    """From now on the first Ctrl-C or SIGTERM is a ``KeyboardInterrupt``, and further ones are
    ignored, since a stop takes seconds. One that is ignored already, as Ctrl-C of a job in the
    background, still is."""
    both = (signal.SIGINT, signal.SIGTERM)
    heard = [number for number in both if signal.getsignal(number) is not signal.SIG_IGN]

    def interrupt(*_: Any) -> NoReturn:
        for number in heard:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in heard:
        signal.signal(number, interrupt)


def label(names: Mapping[str, Any]) -> str:
    """``digits mlp adamw 0.001`` or ``digits mlp adamw, 200 epochs``; of a folder its last name."""
    kind, colon, path = names["dataset"].partition(":")
    dataset = f"{kind}:{Path(path).name}" if colon else kind
    rate = f" {names['lr']:g}" if "lr" in names else ""
    epochs = f", {names['epochs']} epochs" if "epochs" in names else ""
    return text.line(f"{dataset} {names['model']} {names['optimizer']}{rate}{epochs}")


def blocks(answer: Mapping[str, Any], columns: Sequence[str], as_json: bool) -> None:
    """Print an answer about its ``blocks``: as JSON, or as a table of some columns, with their
    ``total`` or sums in the last row. A long label loses its beginning."""
    if as_json:
        typer.echo(json.dumps(answer, indent=2))
        return
    rows = answer["blocks"]
    total = answer.get("total") or {name: sum(row[name] for row in rows) for name in columns}
    cells = [["block", *(name.replace("_", " ") for name in columns)]]
    cells += [[label(row), *(_cell(row[name]) for name in columns)] for row in rows]
    cells += [["all", *(_cell(total[name]) for name in columns)]]
    first, *widths = (max(map(len, column)) for column in zip(*cells, strict=True))
    others = sum(widths) + len(GAP) * len(widths)
    first = min(first, max(NARROWEST, shutil.get_terminal_size().columns - others))
    for i, (name, *numbers) in enumerate(cells):
        aligned = (number.rjust(width) for number, width in zip(numbers, widths, strict=True))
        typer.echo(GAP.join((cropped(name, first).ljust(first), *aligned)))
        if i == 0:
            typer.echo("─" * (first + others))


def cropped(label: str, width: int) -> str:
    """Its end: what tells blocks apart is there."""
    return label if len(label) <= width else f"…{label[1 - width :]}"


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if isinstance(value, float) else str(value)
