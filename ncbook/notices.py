"""Notices: messages to the user that are not errors, such as a damaged file that is left out.

A module reports one with ``logging.getLogger(__name__).warning(message)``. It is shown once: on
standard error, or wherever a notebook, the command line or the explorer wants it.
"""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ncbook import text

LOGGER = logging.getLogger("ncbook")
Show = Callable[[str, str], object]  # called with a message and the name of the reporting module


class Notices(logging.Handler):
    """Passes each message once, the first time, to a function."""

    def __init__(self, show: Show) -> None:
        super().__init__(logging.WARNING)
        self.show = show
        self.seen: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Called by the logger for each message."""
        message = record.getMessage()
        if message not in self.seen:
            self.seen.add(message)
            self.show(message, record.name)


def pass_to(show: Show) -> None:
    """From now on, pass each new message of the package to ``show`` instead."""
    LOGGER.handlers = [Notices(show)]


@contextmanager
def passed_to(show: Show) -> Iterator[None]:
    """The same within a block; afterwards messages go where they went before."""
    before = LOGGER.handlers
    pass_to(show)
    try:
        yield
    finally:
        LOGGER.handlers = before


def _to_stderr(message: str, _: str) -> None:
    print(f"ncbook: warning: {text.line(message)}", file=sys.stderr)


pass_to(_to_stderr)
