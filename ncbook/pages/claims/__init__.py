"""The claims page: what the papers claim, what we found, and where a reader can see it.

``book/claims.yml`` has the claims, ``measures`` the numbers in their texts. The page's tables are
HTML that fits a screen and a phone (``claims.css``), with links to the chapters.

    rows = claims.read_rows("book/results")
    entries = claims.fill(claims.load("book/claims.yml"), rows)
    claims.table(entries, section="Tables")
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path, PurePosixPath

import numpy as np
import yaml
from IPython.display import Markdown, display

from ncbook.pages import six_grids
from ncbook.pages.claims import scope
from ncbook.pages.claims.measures import MEASURES, Numbers, Rows, read_rows, take

NOT_RUN = "not run"
VERDICTS = {
    "confirmed": "It holds as stated, wherever we could look: proved again, computed, or seen in "
    "our runs.",
    "sharpened": "It holds, and more can be said: it is part of something stronger or exact, or a "
    "condition that it needs is now known.",
    "corrected": "As worded it does not hold, and the row says what does. This may be one step of "
    "a proof: then the row also says whether the theorem needs it.",
    "not reproduced": "Runs of ours, in the setting that the row names, show something else.",
    "agrees in small runs": "The row is about a setting of the paper's that we have not trained. "
    "Our smaller runs, whose scope the row has, show the same.",
    "differs in small runs": "As above, and our smaller runs show something else. That may be "
    "their size.",
    NOT_RUN: "No verdict: it needs a network, data or time that our runs do not cover. The row "
    "says what it needs, and what our smaller runs show, where they bear on it.",
}
# How a statement is known: on this page and in the tables of all chapters.
GROUNDS = {
    "proved": "By a proof in this book, or by a counterexample.",
    "exact": "Proved, and seen in runs or in computations up to rounding.",
    "measured": "Seen in trained networks. The scope has which ones, and n, how many of their runs "
    "were read: those that converged, but for the exact law, which needs none to.",
    "computed": "From closed forms, from numbers that the paper prints, or from a model or a small "
    "training that runs while the page is built. No stored run is read.",
    "argued": "By a reason that is no proof, and that we have not tested by itself.",
}
CHAPTER = re.compile(r"(notebooks/\w+\.py)#(.+)")
TO_ROOT = ".."  # from the page to the root of the book, whose pages have the paths of their sources
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
UNMEASURED = "No numbers here: this store has too few runs for them."
LACKS = """**The store lacks the runs of: {}.** Rows that rest on stored runs have no numbers here;
their verdicts are those that the published runs gave. To train the runs:"""
# The runs on unconstrained features, of this page and of their chapter.
UFM_LINES = """for optimizer in sgd adam adamw; do
    papermill notebooks/sweep.ipynb out.ipynb -p optimizer $optimizer -p dataset ufm -p model ufm \\
        -p lrs "[0.1, 0.3, 0.5, 1.0]" -p weight_decays "[0, 5e-5, 5e-4, 5e-3, 0.05]" \\
        -p momenta 0.9 -p epochs 500 -p batch_size 1000 -p train_size 1000 -p seeds "[0, 1, 2]"
done"""


@dataclass(frozen=True)
class Claim:
    """One row of the page; the fields are explained at the top of the file of claims."""

    id: str
    section: str
    source: str
    claim: str
    verdict: str
    why: str
    known: Sequence[str] = ()
    evidence: Sequence[str] = ()
    measured: str | None = None
    runs: Mapping[str, object] | None = None
    scope: Sequence[str] = ()  # filled in


def load(path: str | Path) -> list[Claim]:
    """The claims of a YAML file, in its order; the tests hold what the file must be."""
    return [Claim(**entry) for entry in yaml.safe_load(Path(path).read_text(encoding="utf-8"))]


def fill(claims: Iterable[Claim], rows: Rows) -> list[Claim]:
    """The claims with the numbers that their texts name, each measure taken once, and the scope of
    the runs behind them. Where the store has too few runs for a number, the text says so."""
    claims = list(claims)
    numbers = {name: take(name, rows) for name in {claim.measured for claim in claims} - {None}}
    return [_filled(claim, numbers.get(claim.measured, Numbers({})), rows) for claim in claims]


def _filled(claim: Claim, numbers: Numbers, rows: Rows) -> Claim:
    asked = re.findall(r"{(\w+)", claim.why)
    values = [numbers[name] for name in asked if numbers]
    lost = any(not isinstance(value, str) and not np.isfinite(value) for value in values)
    if asked and (lost or not values):
        return replace(claim, why=UNMEASURED)
    selected = claim.runs and not rows.missing
    runs = rows.select(claim.runs) if selected else numbers.runs_of(asked)
    why = claim.why.format(**numbers) if asked else claim.why
    return replace(claim, why=why, scope=scope.lines(runs))


def tell_missing(rows: Rows) -> None:
    """Display which runs the store lacks, if any, what that means for the page, and how to train
    them."""
    if rows.missing:
        lines = f"```bash\n{six_grids.LINE}\n{UFM_LINES}\n```"
        display(Markdown(f"{LACKS.format(', '.join(rows.missing))}\n\n{lines}"))


def style() -> str:
    """The style of all tables of the page, as HTML that comes before them."""
    return (
        f"\n<style>\n{Path(__file__).with_name('claims.css').read_text(encoding='utf-8')}</style>\n"
    )


def verdict_table(claims: Iterable[Claim]) -> str:
    """The verdicts, how many claims have each and what they mean, as HTML."""
    totals = Counter(claim.verdict for claim in claims)
    return _defined("verdict", VERDICTS, totals, _badge)


def grounds_table(claims: Iterable[Claim]) -> str:
    """The same of how a statement is known, of which a claim may have several."""
    totals = Counter(word for claim in claims for word in claim.known)
    return _defined("how it is known", GROUNDS, totals, lambda word: word)


def _defined(
    name: str, meanings: Mapping[str, str], totals: Counter, shown: Callable[[str], str]
) -> str:
    rows = (
        f'<tr><th scope="row">{shown(word)}</th><td>{totals[word]}</td><td>{text}</td></tr>'
        for word, text in meanings.items()
    )
    return _table("verdicts", (name, "rows", "what it means"), rows)


def table(claims: Iterable[Claim], section: str) -> str:
    """The claims of one section as an HTML table with links to chapters, and their tally above
    it."""
    chosen = [claim for claim in claims if claim.section == section]
    totals = Counter(claim.verdict for claim in chosen)
    tally = ", ".join(f"{totals[word]} {word}" for word in VERDICTS if totals[word])
    heads = ("Where, and our verdict", "The claim, in our words", "What we found", "Scope")
    return f'<p class="tally">{len(chosen)} rows: {tally}.</p>' + _table(
        "rows", heads, map(_row, chosen)
    )


def _table(kind: str, heads: Sequence[str], rows: Iterable[str]) -> str:
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    return (
        f'<table class="claims {kind}"><colgroup>{"<col>" * len(heads)}</colgroup>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )


def typeset(text: str) -> str:
    """A text as HTML, with numbers as they are printed, and no line break inside a formula.

    >>> typeset("-0.5 to 2e-06 & 1e-10")
    '−0.5 to 2·10⁻⁶ &amp; 10⁻¹⁰'
    """
    text = re.sub(r"\b(\d[\d.]*)e([-+]?\d+)\b", _power_of_ten, text)
    text = re.sub(r"(?<!\w)-(?=\d)", "−", text)
    return escape(re.sub(r" (?=− |%)|(?<= −) ", "\u00a0", text), quote=False)


def _power_of_ten(match: re.Match) -> str:
    mantissa, exponent = match.groups()
    power = "10" + str(int(exponent)).translate(SUPERSCRIPTS)
    return power if mantissa == "1" else f"{mantissa}·{power}"


def _row(claim: Claim) -> str:
    evidence = sorted(map(_evidence, claim.evidence), key=lambda html: html.startswith("<code>"))
    return (
        f'<tr id="claim-{claim.id}"><th scope="row">{typeset(claim.source)}<br>'
        f"{_badge(claim.verdict)}</th><td>{typeset(claim.claim)}</td>"
        f"<td>{typeset(claim.why)}{_list(evidence)}</td><td>{_scope(claim)}</td></tr>"
    )


def _scope(claim: Claim) -> str:
    known = f"<b>{' and '.join(claim.known)}</b>" if claim.known else ""
    # No line ends within "n = 5" or "0 to 4".
    return known + _list(
        [re.sub(" (=|to) ", "\u00a0\\1\u00a0", typeset(line)) for line in claim.scope]
    )


def _list(items: Sequence[str]) -> str:
    return f"<ul><li>{'</li><li>'.join(items)}</li></ul>" if items else ""


def _evidence(cited: str) -> str:
    """A chapter's heading as a link; a test, which has no page, as code."""
    from docutils.nodes import make_id  # here, because only building the book needs it

    chapter = CHAPTER.fullmatch(cited)
    if not chapter:
        breakable = re.sub("(::|_)", r"\1<wbr>", escape(cited))  # a line may end there
        return f"<code>{breakable}</code>"
    file, heading = chapter.groups()
    page = PurePosixPath(TO_ROOT, file).with_suffix(".html")
    return f'→ <a href="{page}#{make_id(heading)}">{escape(heading, quote=False)}</a>'


def _badge(word: str) -> str:
    return f'<span class="verdict {word.replace(" ", "-")}">{word}</span>'
