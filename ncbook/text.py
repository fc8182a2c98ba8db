"""Untrusted text (from a store, a folder's name, an error) as plain text, for each medium.

Pass such a text through ``line`` for a terminal or a label, ``html`` for HTML and Markdown,
``mathtext`` for a figure, ``cell`` for a CSV file.
"""

import re

LONGEST = 1000  # characters of a line
NAME = 60  # characters of a name in a list
# Soft hyphens, for the heads of narrow tables, and non-breaking spaces.
KEPT = "\u00ad\u00a0"
BREAKS = re.compile(r"\s*[^\S \u00a0]\s*")  # white space other than spaces alone
PUNCTUATION = re.compile(r"[!-/:-@[-`{-~]")  # of ASCII: all characters of markup
# A text that a spreadsheet would take for a formula, or that begins with the mark against that.
FORMULA = re.compile(r"\A['=+\-@\t\r\n＝＋－＠]")
MARK = "'"


def line(value: object, longest: int = LONGEST) -> str:
    """One line of visible characters: line breaks become spaces; characters that are invisible,
    reorder text or control a terminal are escaped; too long a text loses its middle.

    >>> print(line("a\\x1b[31mb\\nc\\u202ed"), line("abcdefgh", 4))
    a\\x1b[31mb c\\u202ed ab…gh
    """
    text = str(value)
    if len(text) > longest:
        text = f"{text[: longest // 2]}…{text[-(longest // 2) :]}"
    text = BREAKS.sub(" ", text).strip()
    shown = (c if c.isprintable() or c in KEPT else ascii(c)[1:-1] for c in text)
    return "".join(shown)


def many(count: int, noun: str) -> str:
    """A count and its noun.

    >>> many(1, "run"), many(1200, "run")
    ('1 run', '1,200 runs')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def html(value: object, longest: int = LONGEST) -> str:
    """HTML and Markdown that only show the line: punctuation is escaped, and formulas are off.

    >>> html("<b> *x* $y$")
    '<span class="tex2jax_ignore mathjax_ignore">&#60;b&#62; &#42;x&#42; &#36;y&#36;</span>'
    """
    text = line(value, longest)
    shown = PUNCTUATION.sub(lambda mark: f"&#{ord(mark[0])};", text)
    if "$" in text or "\\" in text:  # MathJax reads what a page shows, whatever its source was
        return f'<span class="tex2jax_ignore mathjax_ignore">{shown}</span>'
    return shown


def mathtext(value: object, longest: int = LONGEST) -> str:
    """The line for a title, a label or a legend of matplotlib, with its dollars escaped.

    >>> print(mathtext("5 $ and 6 $"))
    5 \\$ and 6 \\$
    """
    return line(value, longest).replace("$", r"\$")


def cell(value: str) -> str:
    """The text for a CSV file, with an apostrophe before what a spreadsheet would compute. To get
    the text back, remove one leading apostrophe.

    >>> print(cell("=1+1"), cell("1+1"))
    '=1+1 1+1
    """
    return MARK + value if FORMULA.match(value) else value
