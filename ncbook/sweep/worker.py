"""What each worker process of our own does first (Dask's preload)."""

import signal

import ncbook.sweep  # noqa: F401  here, before the first chunk: torch takes seconds


def dask_setup(worker) -> None:
    """Leave Ctrl-C, which reaches all processes of a terminal or kernel, to the sweep's own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
