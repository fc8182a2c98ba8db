"""``ncbook export``: chosen runs as one Parquet file and one CSV file."""

import os
from pathlib import Path

from ncbook import store
from ncbook.cli import filters, show
from ncbook.cli.options import Options
from ncbook.paths import expanded

ENDINGS = (".parquet", ".csv")
NAME = "runs"  # of the files in a folder


def export(out: str, options: Options, status: str | None, force: bool) -> None:
    """Write both files, and say what is in them.

    Raises:
        ValueError: nothing passes, or a file is there and ``force`` is not asked for.
        OSError: a file cannot be written.
    """
    paths = targets(out)
    there = [path for path in paths if path.exists()]
    if there and not force:
        raise ValueError(f"{there[0]} is there already: --force replaces it")
    results, chosen = options["results"], filters.chosen(options, status)
    count = len(store.load_runs(results, **chosen))
    if not count:
        raise ValueError(f"no run in {store.results_dir(results)} passes these options")
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    for path in paths:
        store.export(path, results, **chosen)
    show.line(f"{count} runs in {paths[0]} and {paths[1].name}")


def targets(out: str) -> list[Path]:
    """``runs`` in a folder, which is there or ends with a slash; or the path, whichever of the two
    endings it has."""
    path = expanded(out, "OUT")
    if path.is_dir() or out.endswith(os.sep):
        path = path / NAME
    elif path.suffix.lower() in ENDINGS:
        path = path.with_suffix("")
    return [path.with_name(path.name + ending) for ending in ENDINGS]
