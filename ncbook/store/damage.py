"""Files that cannot be read, set aside."""

import contextlib
import os
from pathlib import Path

import duckdb

from ncbook.store.layout import Listing, refusals_named
from ncbook.store.names import KINDS, results_dir
from ncbook.store.scan import consistently, damaged_among, warn_of_damage


def set_aside_damaged(results: str | Path | None = None) -> list[Path]:
    """Rename files that cannot be read, so that their runs will be trained again, and warn.

    A damaged history takes its file of runs with it.

    Returns:
        The new paths, ``NAME.parquet.damaged``.

    Raises:
        ResultsFolderError: a damaged file cannot be renamed.
    """

    def read(con: duckdb.DuckDBPyConnection, listing: Listing) -> list[Path]:
        return [
            p
            for files in (listing.runs, listing.history)
            for p in damaged_among(con, list(files.values()))
        ]

    moved = []
    root = results_dir(results)
    with refusals_named(root):
        for path in consistently(results, read):
            moved += _set_aside(root, path)
            warn_of_damage(path, "set aside; its runs will be trained again")
    return moved


def _set_aside(root: Path, damaged: Path) -> list[Path]:
    moved = []
    # The runs first: without them, the history no longer counts.
    for path in dict.fromkeys((root / KINDS[0] / damaged.name, damaged)):
        aside = path.with_name(f"{path.name}.damaged")
        with contextlib.suppress(FileNotFoundError):  # another process may have been faster
            os.replace(path, aside)
            moved.append(aside)
    return moved
