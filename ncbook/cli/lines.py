"""What the program says beside its answers: one line each, on standard error."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from ncbook import text

BAD_INPUT, INTERRUPTED = 2, 130  # exit codes; the second is 128 + SIGINT, as shells have it
NAMED = r".*: (damaged|left out), "  # how the warnings that name a file begin
ONE_LINE = ("DamagedFileWarning", "LeftOutWarning")


def say(what: object) -> None:
    """One line on standard error, whatever it is made of."""
    typer.echo(f"ncbook: {text.line(what)}", err=True)


@contextmanager
def one_line_errors(stopped: str = "stopped") -> Iterator[None]:
    """What a user can cause, as one line and an exit code, where Python would show a traceback."""
    try:
        with _one_line_warnings():
            yield
    except KeyboardInterrupt:
        say(stopped)
        raise typer.Exit(INTERRUPTED) from None
    except Exception as error:
        if not _is_expected(error):
            raise
        say(str(error) or type(error).__name__)
        raise typer.Exit(BAD_INPUT) from None


def _is_expected(error: Exception) -> bool:
    if isinstance(error, (ValueError, OSError)):
        return True
    from ncbook.data import DataNotFoundError
    from ncbook.sweep import SweepError

    return isinstance(error, (DataNotFoundError, SweepError))


@contextmanager
def _one_line_warnings() -> Iterator[None]:
    """Damaged or odd files are named, each once; each reading of them warns."""
    said = set()
    with warnings.catch_warnings():
        warnings.filterwarnings("always", message=NAMED, category=UserWarning)
        show = warnings.showwarning

        def showwarning(message, category, *where, **more):
            if category.__name__ not in ONE_LINE:
                show(message, category, *where, **more)
            elif str(message) not in said:
                said.add(str(message))
                say(f"warning: {message}")

        warnings.showwarning = showwarning
        yield
