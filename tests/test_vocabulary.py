"""One list of verdicts and one of how statements are known (``ncbook.pages.claims``): each word for
these in a table or a summary of a chapter or page is on the lists."""

import re
from pathlib import Path

import jupytext
import pytest

from ncbook.pages import claims

ROOT = Path(__file__).parents[1]
WORDS = (*claims.GROUNDS, *claims.VERDICTS)
PAGES = sorted([*(ROOT / "notebooks").glob("*.py"), *(ROOT / "book").glob("*.md")])
TABLE = re.compile(r"(?:^\|.*\n?)+", re.MULTILINE)
SUMMARY = re.compile(
    r"^## (?:What was shown|[^\n]*[wW]here it holds)[^\n]*\n(.*?)(?=^## |\Z)",
    re.MULTILINE | re.DOTALL,
)
# Participles that begin what is in brackets, or in bold type, say how something is known.
SAID = re.compile(r"\((\w+ed)\b|\*\*(\w+ed)\b[^*\n]*[.:]?\*\*[.:]?(?= )")
HEADS = ("status", "verdict", "how it is known")
# Not a word on a statement but on decay, in bold type for another reason.
OTHER = {"decoupled"}


def prose(path):
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8")
    cells = [c.source for c in jupytext.read(path).cells if c.cell_type == "markdown"]
    return "\n\n".join(cells)


def rows(table):
    lines = [line.strip().removeprefix("|").removesuffix("|") for line in table.splitlines()]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)] for line in lines]


def in_tables(text):
    """Each part of each cell of a table's column of statuses or verdicts."""
    for head, _, *others in map(rows, TABLE.findall(text)):
        for at in [i for i, name in enumerate(head) if name.lower() in HEADS]:
            for row in others:
                yield from re.sub(r"\(.*?\)", "", row[at]).split(";")


def in_summaries(text):
    """How a summary says that its statements are known."""
    for section in SUMMARY.findall(text):
        yield from {"".join(found) for found in SAID.findall(section)} - OTHER


def unknown(said):
    """What does not begin with one of the words."""
    words = re.compile(rf"\s*({'|'.join(WORDS)})\b", re.IGNORECASE)
    return [part for part in said if part.lower() not in OTHER and not words.match(part)]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_each_word_of_a_table_or_a_summary_is_on_the_lists(path):
    text = prose(path)
    assert unknown([*in_tables(text), *in_summaries(text)]) == []


def test_tables_and_summaries_have_such_words():
    texts = [prose(path) for path in PAGES]
    assert sum(len([*in_tables(text)]) for text in texts) > 30
    assert sum(len([*in_summaries(text)]) for text in texts) >= 10


@pytest.mark.parametrize(
    "path", [p for p in PAGES if p.parent.name == "notebooks"], ids=lambda p: p.stem
)
def test_a_table_of_where_it_holds_has_a_status(path):
    for section in SUMMARY.findall(prose(path)):
        for head, *_ in map(rows, TABLE.findall(section)):
            assert head == ["statement", "status", "where it holds, and where not"]


def test_other_words_are_found():
    table = (
        "| statement | status |\n|---|---|\n| a | proved; seen in runs |\n| b | Agrees (n = 3) |\n"
    )
    assert unknown(in_tables(table)) == [" seen in runs", "Agrees "]
    summary = (
        "## What was shown\n\n- It falls (tested), and stays (proved).\n\n**Verified:** this.\n"
    )
    assert sorted(unknown(in_summaries(summary))) == ["Verified", "tested"]


@pytest.mark.parametrize(
    ("term", "words"), [("status", claims.GROUNDS), ("verdict", claims.VERDICTS)]
)
def test_the_glossary_has_the_same_words(term, words):
    page = prose(ROOT / "book" / "notation.md")
    (meaning,) = re.findall(rf"^{term}\n((?:  .+\n)+)", page, re.MULTILINE)
    listed = re.search(r": (.+?)\. ", " ".join(meaning.split()))[1]
    assert re.split(r", or |, | or ", listed) == [*words]
