"""Prose in plain British English: pages, chapters, docstrings, comments and messages."""

import ast
import io
import re
import tokenize
from pathlib import Path

import jupytext
import pytest
import yaml

ROOT = Path(__file__).parents[1]

# What a newcomer would have to translate: the pattern, and what to write for it.
DIALECT = {
    r"whom": "who, or name them",
    r"lest": "so that … not",
    r"foretell\w*|foretold": "predict",
    r"there (?:is|are) none": "not found, missing, or a sentence with a noun",
    r"beside": "next to",
    r"let go": "release",
    r"speak(?:s|ing)? (?:of|to)|spoke of": "be about, bear on",
    r"anew|afresh": "again, from the start",
    r"kin": "relatives, related metrics",
    r"deadly": "fatal",
    r"strangers": "unknown",
    r"naught|nought": "zero",
    r"whence|thence|hither|thither|wherein|whereof|thereof|therein": "from where, in which",
    r"henceforth|hitherto|forthwith|unto|ere|oft|albeit|amidst": "the usual word",
    r"last one out": "the last process to leave",
}
# Stems as in American English, of which the book has the British form. "Optimizer" is the field's
# word, and torch's.
AMERICAN = {
    r"color": "colour",
    r"behavior": "behaviour",
    r"favor(?:ite|able)?": "favour",
    r"neighbor": "neighbour",
    r"center": "centre",
    r"gray": "grey",
    r"label(?:ed|ing)|model(?:ed|ing)|cancel(?:ed|ing)|travel(?:ed|ing)": "two l's",
    r"analyz(?:e|es|ed|ing)": "analyse",
    r"optimiz(?:e|es|ed|ing|ation)": "optimise",
    r"(?:normal|minim|maxim|initial|general|regular|orthogonal|summar|organ|visual|recogn|standard|"
    r"emphas|diagonal|parametr|character|util|synchron|linear|randomi?|penal|factor)iz\w+": "-ise",
}
CODE = re.compile(
    r"```.*?```"  # blocks of code
    r"|``.*?``|\{\w+\}`[^`]*`|`[^`\n]*`"  # code and roles in a line
    r"|\$\$.*?\$\$|\$[^$]*\$"  # formulas
    r'|"[^"]{0,200}"|“[^”]{0,300}”'  # what others said, and titles
    r"|\{\w+:[^}]*\}"  # numbers to be filled in
    r"|https?://\S+|\S+\.(?:py|md|yml|txt|html|csv|parquet)\b"
    r"|^\s*(?:>>>|\.\.\.) .*?$",
    re.DOTALL | re.MULTILINE,
)
SENTENCE = 3  # spaces that a string has if it is prose, and no name or setting


def prose_of(text):
    """A text without code, formulas and quotations."""
    return CODE.sub(" ", text)


WORDS = {rf"\b(?:{pattern})\b": plain for pattern, plain in DIALECT.items()}
WORDS |= {rf"\b(?:{stem})(?:s|ed|ing)?\b": plain for stem, plain in AMERICAN.items()}


def findings(text):
    """(what is written, what to write) of each word that is not plain British English."""
    for pattern, plain in WORDS.items():
        yield from ((found, plain) for found in re.findall(pattern, text, re.IGNORECASE))


def strings_of(source):
    """Strings of a module or cell that are sentences: docstrings, messages, text to display."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from [node.value] * (node.value.strip().count(" ") >= SENTENCE)


def comments_of(source):
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.string


def of_code(source):
    return [*strings_of(source), *comments_of(source)]


def of_notebook(path):
    for cell in jupytext.read(path).cells:
        if cell.cell_type == "markdown":
            yield cell.source
        elif not cell.source.startswith("%%"):
            yield from of_code(cell.source)


CLAIMS = ROOT / "book" / "claims.yml"
PAGES = [ROOT / "README.md", CLAIMS, *sorted((ROOT / "book").glob("*.md"))]
CHAPTERS = sorted((ROOT / "notebooks").glob("*.py"))
MODULES = sorted((ROOT / "ncbook").rglob("*.py"))


def name_of(path):
    return str(path.relative_to(ROOT))


def texts(path):
    """The prose of a file, in parts."""
    if path in CHAPTERS:
        return list(of_notebook(path))
    text = path.read_text(encoding="utf-8")
    if path == CLAIMS:
        return [claim[field] for claim in yaml.safe_load(text) for field in ("claim", "why")]
    return of_code(text) if path in MODULES else [text]


def wrong_in(path):
    return [found for text in texts(path) for found in findings(prose_of(text))]


CHECKED = [*PAGES, *CHAPTERS, *MODULES]


@pytest.mark.parametrize("path", CHECKED, ids=name_of)
def test_prose_is_plain_british_english(path):
    assert wrong_in(path) == []


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("whom to tell of progress", "whom"),
        ("A line that the law\nforetells.", "foretells"),
        ("It speaks when it is let go.", "let go"),
        ("the paper's bound beside the law", "beside"),
        ("It returns None if there is none.", "there is none"),
        ("The weights are normalized.", "normalized"),
        ("Colors by optimizer.", "Colors"),
        ("the center of the class", "center"),
    ],
)
def test_a_word_that_is_not_plain_is_found(text, word):
    assert [found for found, _ in findings(prose_of(text))] == [word]


@pytest.mark.parametrize(
    "text",
    [
        "The colour of the optimizer, its behaviour, a normalised centre; besides, kinds of least.",
        "`color` and ``center`` are matplotlib's, as in $\\operatorname{center}$.",
        'The paper says "random initialization", and speaks clearly.',
        ">>> normalize(color)\n",
        "```python\nplot(color='gray')\n```",
    ],
)
def test_plain_words_code_and_quotations_pass(text):
    assert list(findings(prose_of(text))) == []
