"""The bar that a sweep shows."""

import io
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from IPython import get_ipython
from IPython.display import display
from tqdm import tqdm

PROGRESS_SECONDS = 2.0  # between redraws of the bar; fewer would flood an output notebook

Advance = Callable[[float], None]  # takes the work done, in runs


@contextmanager
def progress_bar(total: int, shown: bool) -> Iterator[Advance]:
    layout = "{percentage:3.0f}%|{bar:30}| {n:.0f}/{total} runs [{elapsed}<{remaining}]"
    options = {"file": _bar_file(), "mininterval": PROGRESS_SECONDS, "bar_format": layout}
    with tqdm(total=total, disable=not (shown and total), **options) as bar:
        yield lambda runs: bar.update(min(runs, total - bar.n))


class _OneOutput(io.TextIOBase):
    """A notebook output that each line replaces; papermill would save one output for each line."""

    encoding = "utf-8"
    handle = None

    def write(self, text: str) -> int:
        if line := text.strip("\r\n"):
            shown = {"text/plain": line}
            if self.handle is None:
                self.handle = display(shown, raw=True, display_id=True)
            else:
                self.handle.update(shown, raw=True)
        return len(text)


def _bar_file() -> TextIO:
    """Where the bar is drawn: in a notebook an output of its own, else standard output."""
    in_notebook = getattr(get_ipython(), "kernel", None) is not None
    return _OneOutput() if in_notebook else sys.stdout
