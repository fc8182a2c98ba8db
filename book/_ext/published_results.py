"""Sphinx extension: the book's notebooks read the published results, and train nothing."""

import os
from pathlib import Path

PUBLISHED = Path(__file__).parents[1] / "results"


def setup(app):
    os.environ["NCBOOK_RESULTS"] = str(PUBLISHED)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
