"""Claims as the book's tables: HTML that fits a screen and a phone, and links to the chapters."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import replace
from html import escape
from pathlib import PurePosixPath

import pandas as pd
from IPython.display import Markdown, display

from ncbook.pages import six_grids
from ncbook.pages.claims.entries import CHAPTER, VERDICTS, Claim
from ncbook.pages.claims.measures import Rows, take

# From the claims page to the root of the book, whose pages have the paths of their sources.
TO_ROOT = ".."
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
# Hues of Okabe and Ito, thin enough to read the word on them, on light and on dark pages.
HUES = dict(zip(VERDICTS, ("0,158,115", "0,114,178", "230,159,0", "213,94,0", "86,180,233",
                           "204,121,167", "128,128,128"),
                strict=True))  # fmt: skip
UNMEASURED = "No numbers here: this store has too few runs for them."
LACKS = """**The store lacks the runs of: {}.** Rows that rest on stored runs have no numbers here;
their verdicts are those that the published runs gave. To train the runs:"""
# The runs on unconstrained features, of this page and of their chapter.
UFM_LINES = """for optimizer in sgd adam adamw; do
    papermill notebooks/sweep.ipynb out.ipynb -p optimizer $optimizer -p dataset ufm -p model ufm \\
        -p lrs "[0.1, 0.3, 0.5, 1.0]" -p weight_decays "[0, 5e-5, 5e-4, 5e-3, 0.05]" \\
        -p momenta 0.9 -p epochs 500 -p batch_size 1000 -p train_size 1000
done"""
# !important where the book's theme lays out all tables of outputs itself, and lights them at night.
STYLE = """
<style>
table.claims { width: 100%; table-layout: fixed !important; border-collapse: collapse; margin: 0; }
table.claims th, table.claims td { text-align: left; vertical-align: top; padding: 0.6em 0.5em;
  white-space: normal; overflow-wrap: break-word; line-height: 1.4; font-size: 0.85rem; }
table.claims td:first-child, table.claims th:first-child { padding-left: 0; }
table.claims.rows col:nth-child(1) { width: 21%; }
table.claims.rows col:nth-child(2) { width: 30%; }
table.claims.verdicts col:nth-child(1) { width: 8.5rem; }
table.claims.verdicts col:nth-child(2) { width: 3.5rem; }
table.claims.verdicts td:nth-child(2) { text-align: right; font-weight: 600; }
table.claims tbody tr { border-top: 1px solid rgba(128,128,128,0.35); background: none !important; }
table.claims ul { list-style: none; margin: 0.4em 0 0; padding: 0; font-size: 0.78rem; }
table.claims ul li { margin: 0.15em 0; }
table.claims code { font-size: 0.72rem; white-space: normal; }
.verdict { display: inline-block; margin-top: 0.3em; padding: 0 0.5em; border-radius: 0.6em;
  font-weight: 600; font-size: 0.78rem; white-space: nowrap; }
.tally { font-size: 0.85rem; margin: 0 0 0.6em; }
@media (max-width: 700px) {
  table.claims.rows, table.claims.rows tbody, table.claims.rows tr, table.claims.rows th,
  table.claims.rows td { display: block; width: auto; padding: 0.25em 0; }
  table.claims.rows thead, table.claims.rows colgroup { display: none; }
  table.claims.rows tr { padding: 0.7em 0; }
  table.claims.rows td:nth-child(2) { font-style: italic; }
}
</style>
"""


def fill(claims: Iterable[Claim], rows: Rows) -> list[Claim]:
    """The claims with the numbers that their texts name, each measure taken once. Where the store
    has too few runs for a measure, the text says so.

    Raises:
        ValueError: a text and its measure that do not go together.
    """
    claims = list(claims)
    wanted = {claim.measured for claim in claims} - {None}
    numbers = {name: take(name, rows) for name in sorted(wanted)}
    lost = {name for name, found in numbers.items() if found is None}
    return [
        replace(c, why=UNMEASURED if c.measured in lost else _filled(c, numbers.get(c.measured)))
        for c in claims
    ]


def tell_missing(rows: Rows) -> None:
    """Display which runs the store lacks, if any, what that means for the page, and how to train
    them."""
    if rows.missing:
        lines = f"```bash\n{six_grids.LINE}\n{UFM_LINES}\n```"
        display(Markdown(f"{LACKS.format(', '.join(rows.missing))}\n\n{lines}"))


def _filled(claim: Claim, numbers: dict | None) -> str:
    asked = re.findall(r"{(\w+)", claim.why)
    if numbers is None and not asked:
        return claim.why
    if not numbers or not asked:
        raise ValueError(f"claim {claim.id}: a measure and {{numbers}} in its why go together")
    for name in asked:
        if name not in numbers:
            valid = ", ".join(numbers)
            raise ValueError(f"claim {claim.id}: {claim.measured} gives no {name!r}, but: {valid}")
    return claim.why.format(**numbers)


def sections(claims: Iterable[Claim]) -> list[str]:
    """The sections, in order of appearance."""
    return list(dict.fromkeys(claim.section for claim in claims))


def counts(claims: Sequence[Claim]) -> pd.DataFrame:
    """How many claims of each section (rows) have each verdict (columns), and in all."""
    table = pd.DataFrame(0, index=sections(claims), columns=list(VERDICTS))
    for claim in claims:
        table.loc[claim.section, claim.verdict] += 1
    table["in all"] = table.sum(axis=1)
    table.loc["in all"] = table.sum()
    return table


def verdict_table(claims: Sequence[Claim]) -> str:
    """The verdicts, how many claims have each and what they mean, as HTML; with the style of all
    tables of the page, so it comes first."""
    totals = counts(claims).loc["in all"]
    body = "".join(
        f'<tr><th scope="row">{_badge(word)}</th><td>{totals[word]}</td><td>{text}</td></tr>'
        for word, text in VERDICTS.items()
    )
    return (
        f'{STYLE}<table class="claims verdicts"><colgroup><col><col><col></colgroup>'
        '<thead><tr><th scope="col">verdict</th><th scope="col">rows</th>'
        f'<th scope="col">what it means</th></tr></thead><tbody>{body}</tbody></table>'
    )


def table(claims: Iterable[Claim], section: str) -> str:
    """The claims of one section as an HTML table with links to chapters, and their tally above it.

    Raises:
        ValueError: a section that no claim has.
    """
    claims = list(claims)
    chosen = [claim for claim in claims if claim.section == section]
    if not chosen:
        raise ValueError(f"no claims in section {section!r}; valid: {', '.join(sections(claims))}")
    totals = counts(chosen).loc["in all"]
    tally = ", ".join(f"{totals[word]} {word}" for word in VERDICTS if totals[word])
    head = "".join(
        f'<th scope="col">{name}</th>'
        for name in ("Where, and our verdict", "The claim, in our words", "What we found")
    )
    return (
        f'<p class="tally">{len(chosen)} rows: {tally}.</p>'
        '<table class="claims rows"><colgroup><col><col><col></colgroup>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(map(_row, chosen))}</tbody></table>"
    )


def anchor(heading: str) -> str:
    """The id that the book gives a heading (docutils' rule).

    >>> anchor("Why NC0 → 0 isn't enough")
    'why-nc0-0-isn-t-enough'
    """
    plain = unicodedata.normalize("NFKD", heading.lower()).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-").lstrip("-0123456789")


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
    chapters_first = sorted(claim.evidence, key=lambda cited: "#" not in cited)
    evidence = "".join(f"<li>{_evidence(cited)}</li>" for cited in chapters_first)
    listed = f"<ul>{evidence}</ul>" if evidence else ""
    return (
        f'<tr id="claim-{claim.id}"><th scope="row">{typeset(claim.source)}<br>'
        f"{_badge(claim.verdict)}</th><td>{typeset(claim.claim)}</td>"
        f"<td>{typeset(claim.why)}{listed}</td></tr>"
    )


def _evidence(cited: str) -> str:
    """A chapter's heading as a link; a test, which has no page, as code."""
    chapter = CHAPTER.fullmatch(cited)
    if not chapter:
        breakable = re.sub("(::|_)", r"\1<wbr>", escape(cited))  # a line may end there
        return f"<code>{breakable}</code>"
    file, heading = chapter.groups()
    page = PurePosixPath(TO_ROOT, file).with_suffix(".html")
    return f'→ <a href="{page}#{anchor(heading)}">{escape(heading, quote=False)}</a>'


def _badge(word: str) -> str:
    return f'<span class="verdict" style="background: rgba({HUES[word]},0.22)">{word}</span>'
