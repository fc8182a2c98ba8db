"""The form of every chapter: it argues, as far as a test can see that."""

import re
from pathlib import Path

import jupytext
import pytest

CHAPTERS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.py"))
MOST_WORDS = 3200  # 3,000 without list marks, headings and tables
FOLDED = {"hide-input", "hide-output", "hide-cell"}
EXERCISE = re.compile(r"^\*\*\d\.\*\*", re.MULTILINE)
# Chapters that argue; the others are tools, and what is still to be rewritten.
ARGUE = [
    *("background", "coupling", "momentum", "interpolation", "theorem_sgd", "theorem_signgd"),
    *("unconstrained_features", "symmetry", "leaks", "diagnostic", "depth", "how_far"),
    *("metrics", "printed", "networks", "precision"),
]
ASK = [
    *("coupling", "momentum", "interpolation", "symmetry", "leaks", "diagnostic", "depth"),
    *("how_far", "metrics", "printed", "networks", "precision"),
]


def cells(path):
    return jupytext.read(path).cells


def prose(path):
    return "\n\n".join(cell.source for cell in cells(path) if cell.cell_type == "markdown")


def named(names):
    return [pytest.param(path, id=path.stem) for path in CHAPTERS if path.stem in names]


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_no_two_folded_cells_stand_in_a_row(path):
    before = False
    for cell in cells(path):
        tags = set(cell.metadata.get("tags", []))
        folded = cell.cell_type == "code" and bool(FOLDED & tags)
        assert not (folded and before), cell.source
        before = folded or (before and "remove-input" in tags)


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_has_at_most_so_many_words(path):
    words = re.sub(r"\$\$.*?\$\$|\$.*?\$", " x ", prose(path), flags=re.DOTALL).split()
    assert len(words) <= MOST_WORDS  # a formula counts as one


@pytest.mark.parametrize("path", named(ARGUE))
def test_a_chapter_that_argues_says_where_it_holds_and_has_exercises(path):
    text = prose(path)
    assert re.search(r"[wW]here it holds|[wW]here they hold|does not show", text)
    assert 3 <= len(EXERCISE.findall(text)) <= 5
    assert text.index("**What you will learn**") > 0


@pytest.mark.parametrize("path", named(ASK))
def test_it_opens_with_its_question_and_its_answer(path):
    first = cells(path)[0] if cells(path)[0].cell_type == "markdown" else cells(path)[1]
    assert re.match(r"# .+\n\n\*\*Question\.\*\* .+?\n\n\*\*Answer\.\*\* ", first.source, re.DOTALL)
