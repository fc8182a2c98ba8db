"""Sphinx extension: the book's notebooks read the published results, train nothing, and show no
controls, since a page has no Python that could answer them; the book offers the runs as files."""

import os
from pathlib import Path

from ncbook import store

PUBLISHED = Path(__file__).parents[1] / "results"
DOWNLOADS = "downloads"  # a folder of the book, which notebooks/runs links to


def setup(app):
    os.environ["NCBOOK_RESULTS"] = str(PUBLISHED)
    os.environ["NCBOOK_STATIC"] = "1"  # ncbook.explore.STATIC_VARIABLE
    app.connect("build-finished", offer)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def offer(app, exception):
    """Write all runs into the book, as one CSV and one Parquet file."""
    if exception is None and app.builder.format == "html":
        folder = Path(app.outdir) / DOWNLOADS
        folder.mkdir(exist_ok=True)
        for ending in ("csv", "parquet"):
            store.export(folder / f"runs.{ending}", PUBLISHED)
