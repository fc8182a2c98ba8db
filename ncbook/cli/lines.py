"""What the program says in addition to its answers: single lines on standard error."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from ncbook import text

BAD_INPUT, INTERRUPTED = 2, 130  # exit codes; the second is 128 + SIGINT, as in shells
STOPPED_SWEEP = "all that ended is stored, and the same command goes on from there"
# Errors and warnings shown as lines, by name, since importing their classes takes seconds.
ERRORS = ("DataNotFoundError", "SweepError")
LINES = {
    "DamagedFileWarning": r".*: damaged, ",
    "LeftOutWarning": r".*: left out, ",
    "UncompiledWarning": r"training without torch\.compile|TORCHINDUCTOR_CACHE_DIR=",
}


def say(what: object) -> None:
    """Print one line on standard error, whatever the text contains."""
    typer.echo(f"ncbook: {text.line(what)}", err=True)


@contextmanager
def one_line_errors(stopped: str) -> Iterator[None]:
    """Show errors that a user can cause as one line, and end with an exit code."""
    try:
        with _one_line_warnings():
            yield
    except KeyboardInterrupt:
        say(stopped)
        raise typer.Exit(INTERRUPTED) from None
    except Exception as error:
        if not isinstance(error, ValueError | OSError) and type(error).__name__ not in ERRORS:
            raise
        say(str(error) or type(error).__name__)
        raise typer.Exit(BAD_INPUT) from None


@contextmanager
def _one_line_warnings() -> Iterator[None]:
    """Each once: each reading of a damaged or odd file warns of it."""
    said = set()
    with warnings.catch_warnings():
        for message in LINES.values():
            warnings.filterwarnings("always", message=message, category=UserWarning)
        show = warnings.showwarning

        def showwarning(message, category, *where, **more):
            if category.__name__ not in LINES:
                show(message, category, *where, **more)
            elif str(message) not in said:
                said.add(str(message))
                say(f"warning: {message}")

        warnings.showwarning = showwarning
        yield
