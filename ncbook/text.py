"""Text that others wrote (in a store, a folder's name, an error) as plain text, for each medium.

Whoever shows such a text passes it through the function of the medium: ``line`` for a terminal or a
label, ``html`` for HTML and Markdown, ``mathtext`` for a figure, ``cell`` for a CSV file.
"""

import re

LONGEST = 1000  # characters of a line: more tells a reader nothing
NAME = 60  # of a name that stands between others
# Soft hyphens, at which narrow tables break their heads, and spaces at which nothing breaks.
KEPT = "\u00ad\u00a0"
BREAKS = re.compile(r"\s*[^\S \u00a0]\s*")  # white space that is more than spaces
PUNCTUATION = re.compile(r"[!-/:-@[-`{-~]")  # of ASCII: all that markup is made of
# What makes a spreadsheet take a text for a formula; and the mark against that, so that a text that
# begins with the mark itself keeps it.
FORMULA = re.compile(r"\A['=+\-@\t\r\n＝＋－＠]")
MARK = "'"


def line(value: object, longest: int = LONGEST) -> str:
    """One line of visible characters: breaks are spaces, and what is invisible, reorders text or
    steers a terminal is spelt out; a text that is too long loses its middle.

    >>> print(line("a\\x1b[31mb\\nc\\u202ed"), line("abcdefgh", 4))
    a\\x1b[31mb c\\u202ed ab…gh
    """
    text = str(value)
    if len(text) > longest:
        text = f"{text[: longest // 2]}…{text[-(longest // 2) :]}"
    text = BREAKS.sub(" ", text).strip()
    return "".join(c if c.isprintable() or c in KEPT else _spelt(c) for c in text)


def _spelt(character: str) -> str:
    return character.encode("unicode_escape").decode()


def html(value: object, longest: int = LONGEST) -> str:
    """HTML and Markdown that show the line and mean nothing more: every mark is an entity, and no
    formula is set in it.

    >>> html("<b> *x* $y$")
    '<span class="tex2jax_ignore mathjax_ignore">&#60;b&#62; &#42;x&#42; &#36;y&#36;</span>'
    """
    text = line(value, longest)
    shown = PUNCTUATION.sub(lambda mark: f"&#{ord(mark[0])};", text)
    if "$" in text or "\\" in text:  # MathJax reads what a page shows, whatever its source was
        return f'<span class="tex2jax_ignore mathjax_ignore">{shown}</span>'
    return shown


def mathtext(value: object, longest: int = LONGEST) -> str:
    """The line for a title, a label or a legend of matplotlib, in which no dollar begins a formula.

    >>> print(mathtext("5 $ and 6 $"))
    5 \\$ and 6 \\$
    """
    return line(value, longest).replace("$", r"\$")


def cell(value: str) -> str:
    """The text for a CSV file, after an apostrophe where a spreadsheet would compute it. To get the
    text back, remove one leading apostrophe.

    >>> print(cell("=1+1"), cell("1+1"))
    '=1+1 1+1
    """
    return MARK + value if FORMULA.match(value) else value
