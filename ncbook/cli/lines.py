"""What the program says beside its answers: one line each, on standard error."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from ncbook import text

BAD_INPUT, INTERRUPTED = 2, 130  # exit codes; the second is 128 + SIGINT, as shells have it
# Warnings that are lines here, and how they read: to import their classes takes seconds.
LINES = {
    "DamagedFileWarning": r".*: damaged, ",
    "LeftOutWarning": r".*: left out, ",
    "UncompiledWarning": r"training without torch\.compile|TORCHINDUCTOR_CACHE_DIR=",
}


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
