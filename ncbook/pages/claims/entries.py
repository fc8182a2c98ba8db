"""The file of claims, with our verdict on each and the evidence, read and checked."""

import re
from dataclasses import MISSING, dataclass, fields
from pathlib import Path

import yaml

from ncbook.pages.claims.measures import MEASURES

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
    "Our smaller runs, which the row names, show the same.",
    "differs in small runs": "As above, and our smaller runs show something else. That may be "
    "their size.",
    NOT_RUN: "No verdict: it needs a network, data or time that our runs do not cover. The row "
    "says what it needs, and what our smaller runs show, where they speak to it.",
}
NEEDS = "Needs "  # the text of a claim that was not run begins so
TEST = re.compile(r"(tests/\w+\.py)::(test_\w+)")
CHAPTER = re.compile(r"(notebooks/\w+\.py)#(.+)")
NAME = re.compile(r"[a-z0-9]+(?:[-.][a-z0-9]+)*")


@dataclass(frozen=True)
class Claim:
    """One row of the page; the fields are explained at the top of the file of claims."""

    id: str
    section: str
    source: str
    claim: str
    verdict: str
    why: str
    evidence: tuple[str, ...] = ()
    measured: str | None = None


def load(path: str | Path) -> list[Claim]:
    """The claims of a YAML file, in its order.

    Raises:
        ValueError: invalid YAML, or a claim with a missing, unknown or invalid field, without
            evidence, or with the id of another; one line that names the claim and what is valid.
    """
    try:
        entries = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        place = getattr(error, "problem_mark", None)
        line = f", line {place.line + 1}" if place else ""
        raise ValueError(f"{path}{line}: no valid YAML") from error
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{path}: must be a list of claims")
    claims: dict[str, Claim] = {}
    for place, entry in enumerate(entries, 1):
        try:
            claim = _claim(entry)
            if claim.id in claims:
                raise ValueError("another claim has the same id")
        except ValueError as error:
            name = entry.get("id") if isinstance(entry, dict) else None
            raise ValueError(f"{path}: claim {name or place}: {error}") from None
        claims[claim.id] = claim
    return list(claims.values())


def _claim(entry: object) -> Claim:
    """One entry as a claim, with every field checked."""
    if not isinstance(entry, dict):
        raise ValueError(f"must be a mapping, got {entry!r}")
    required = {field.name: field.default is MISSING for field in fields(Claim)}
    for name, value in entry.items():
        if name not in required:
            raise ValueError(f"unknown field {name!r}; valid: {', '.join(required)}")
        if name != "evidence" and not (isinstance(value, str) and value.strip()):
            raise ValueError(f"{name} must be text, got {value!r}")
    for name in required:
        if required[name] and name not in entry:
            raise ValueError(f"has no {name}")
    cited = entry.get("evidence", [])
    if not isinstance(cited, list):
        raise ValueError(f"evidence must be a list, got {cited!r}")
    claim = Claim(**entry | {"evidence": tuple(cited)})
    _check_values(claim)
    return claim


def _check_values(claim: Claim) -> None:
    for item in claim.evidence:
        if not (isinstance(item, str) and (TEST.fullmatch(item) or CHAPTER.fullmatch(item))):
            form = "tests/FILE.py::test_name or notebooks/NAME.py#Heading"
            raise ValueError(f"evidence must be {form}, got {item!r}")
    if not NAME.fullmatch(claim.id):
        raise ValueError(f"an id has small letters, digits, '-' and '.', got {claim.id!r}")
    if claim.verdict not in VERDICTS:
        raise ValueError(f"unknown verdict {claim.verdict!r}; valid: {', '.join(VERDICTS)}")
    if claim.verdict == NOT_RUN and not claim.why.startswith(NEEDS):
        raise ValueError(
            f"was not run: its why must begin with {NEEDS.strip()!r} and what it needs"
        )
    if claim.verdict != NOT_RUN and not claim.evidence:
        raise ValueError("has no evidence")
    if claim.measured is not None and claim.measured not in MEASURES:
        raise ValueError(f"unknown measure {claim.measured!r}; valid: {', '.join(MEASURES)}")
