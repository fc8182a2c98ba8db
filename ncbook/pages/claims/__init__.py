"""The claims page: what the papers claim, what we found, and where a reader can see it.

``entries``: the file of claims, read and checked. ``measures``: numbers from stored runs and closed
forms. ``page``: both as tables of the book.

    rows = claims.read_rows("book/results")
    entries = claims.fill(claims.load("book/claims.yml"), rows)
    claims.table(entries, section="Tables")
"""

from ncbook.pages.claims.entries import VERDICTS, load
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
