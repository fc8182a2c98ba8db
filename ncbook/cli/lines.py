"""Errors and notices of the command line as single lines on standard error, and its exit codes."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from ncbook import notices, text

BAD_INPUT, INTERRUPTED = 2, 130  # exit codes; the second is 128 + SIGINT, as in shells
STOPPED_SWEEP = "all that ended is stored, and the same command goes on from there"
# Errors shown as lines, by name, since importing their classes takes seconds.
ERRORS = ("DataNotFoundError", "SweepError")


def say(what: object) -> None:
    """Print one line on standard error, whatever the text contains."""
    typer.echo(f"ncbook: {text.line(what)}", err=True)


@contextmanager
def one_line_errors(stopped: str) -> Iterator[None]:
    """Show errors that a user can cause as one line, and end with an exit code."""
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
