"""The command line: ``ncbook sweep``, ``plan``, ``status`` and ``export``."""

import gc


def main() -> None:
    """The program ``ncbook``."""
    # What is imported stays: looking for garbage in it took a sixth of the time to import torch.
    gc.set_threshold(100_000)
    from ncbook.cli.commands import app

    app(prog_name="ncbook")
