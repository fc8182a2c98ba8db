"""The command line: ``ncbook sweep``, ``plan``, ``status`` and ``export``."""

import gc
import os
import signal


def main() -> None:
    """The program ``ncbook``. Until a command begins, Ctrl-C ends it at once, in one line."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # a job in the background ignores it
        signal.signal(signal.SIGINT, _stop)
    # What is imported stays: looking for garbage in it took a sixth of the time to import torch.
    gc.set_threshold(100_000)
    from ncbook.cli.commands import app

    app(prog_name="ncbook")


def _stop(*_: object) -> None:
    os.write(2, b"ncbook: stopped\n")
    os._exit(128 + signal.SIGINT)
