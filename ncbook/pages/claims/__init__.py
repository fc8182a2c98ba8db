"""The claims page: what the papers claim, what we found, and where a reader can see it.

``entries``: the file of claims, read and checked. ``measures``: numbers from stored runs and closed
forms. ``page``: both as tables of the book.

    rows = claims.read_rows("book/results")
    entries = claims.fill(claims.load("book/claims.yml"), rows)
    claims.table(entries, section="Tables")
"""

from ncbook.pages.claims.entries import (
    NOT_RUN,
    VERDICTS,
    Claim,
    headings,
    load,
    missing_evidence,
    statements,
    test_names,
)
from ncbook.pages.claims.measures import MEASURES, Rows, read_rows
from ncbook.pages.claims.page import (
    UFM_LINES,
    UNMEASURED,
    anchor,
    counts,
    fill,
    sections,
    table,
    tell_missing,
    verdict_table,
)

__all__ = [
    "MEASURES",
    "NOT_RUN",
    "UFM_LINES",
    "UNMEASURED",
    "VERDICTS",
    "Claim",
    "Rows",
    "anchor",
    "counts",
    "fill",
    "headings",
    "load",
    "missing_evidence",
    "read_rows",
    "sections",
    "statements",
    "table",
    "tell_missing",
    "test_names",
    "verdict_table",
]
