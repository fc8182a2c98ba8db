"""The file of claims: read, checked, and its evidence looked up in the sources."""

import ast
import re
from collections.abc import Iterable
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
NEEDS = "Needs "  # how the text of a claim that was not run begins
TEST = re.compile(r"(tests/\w+\.py)::(test_\w+)")
CHAPTER = re.compile(r"(notebooks/\w+\.py)#(.+)")
NAME = re.compile(r"[a-z0-9]+(?:[-.][a-z0-9]+)*")
NUMBER = r"(?:[A-E]\.)?\d+(?:\.\d+)*"
STATEMENT = re.compile(
    r"\b(Proposition|Theorem|Lemma|Remark|Figure|Table|Equation)s? "
    rf"({NUMBER}(?:(?:–|, | and ){NUMBER})*)"
)


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
        ValueError: no valid YAML, or a claim with a field missing, unknown or out of its values, no
            evidence, or an id that is taken; one line that names the claim and what is valid.
    """
    try:
        entries = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        place = getattr(error, "problem_mark", None)
        line = f", line {place.line + 1}" if place else ""
        raise ValueError(f"{path}{line}: no valid YAML") from error
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{path}: must be a list of claims")
    claims, seen = [], set()
    for place, entry in enumerate(entries, 1):
        try:
            claim = _claim(entry)
            if claim.id in seen:
                raise ValueError("its id is there twice")
        except ValueError as error:
            name = entry.get("id") if isinstance(entry, dict) else None
            raise ValueError(f"{path}: claim {name or place}: {error}") from None
        seen.add(claim.id)
        claims.append(claim)
    return claims


def statements(source: str) -> tuple[str, ...]:
    """The numbered statements that a source names.

    >>> statements("Figures 2 and 9–11; Appendix D.3")
    ('Figure 2', 'Figure 9', 'Figure 10', 'Figure 11')
    """
    found = []
    for kind, listed in STATEMENT.findall(source):
        for part in re.split(r", | and ", listed):
            first, _, last = part.partition("–")
            numbers = range(int(first), int(last) + 1) if last else [first]
            found += [f"{kind} {number}" for number in numbers]
    return tuple(found)


def missing_evidence(claims: Iterable[Claim], root: str | Path) -> list[str]:
    """What is cited and is not there, one line each; `root` is the project's folder.

    A test must be a function of its file, a heading must stand once in its notebook's source.
    """
    missing = []
    for claim in claims:
        for cited in claim.evidence:
            file, _, name = re.split("(::|#)", cited, maxsplit=1)
            path = Path(root) / file
            if not path.is_file():
                missing.append(f"{claim.id}: no file {file}")
                continue
            find = test_names if file.startswith("tests/") else headings
            times = find(path.read_text(encoding="utf-8")).count(name)
            if times != 1:
                missing.append(f"{claim.id}: {cited} is there {times} times")
    return missing


def test_names(source: str) -> list[str]:
    """The test functions of a Python source, at its top level."""
    functions = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    return [node.name for node in functions if node.name.startswith("test_")]


test_names.__test__ = False  # pytest would take it for a test


def headings(source: str) -> list[str]:
    """The headings in the Markdown cells of a notebook's percent source, without their #."""
    found, markdown = [], False
    for line in source.splitlines():
        if line.startswith("# %%"):
            markdown = "[markdown]" in line
        elif markdown and (match := re.fullmatch(r"# #{1,6} (.+?)\s*", line)):
            found.append(match[1])
    return found


def _claim(entry: object) -> Claim:
    """One entry as a claim, every field checked; a ValueError says what is wrong with it."""
    if not isinstance(entry, dict):
        raise ValueError(f"must be a mapping, got {entry!r}")
    names = {field.name: field.default is MISSING for field in fields(Claim)}
    for name in entry:
        if name not in names:
            raise ValueError(f"unknown field {name!r}; valid: {', '.join(names)}")
    for name, required in names.items():
        if required and name not in entry:
            raise ValueError(f"has no {name}")
        value = entry.get(name)
        if name in entry and name != "evidence" and not (isinstance(value, str) and value.strip()):
            raise ValueError(f"{name} must be text, got {value!r}")
    claim = Claim(**entry | {"evidence": _evidence(entry.get("evidence", []))})
    _check_values(claim)
    return claim


def _evidence(cited: object) -> tuple[str, ...]:
    if not isinstance(cited, list):
        raise ValueError(f"evidence must be a list, got {cited!r}")
    for item in cited:
        if not (isinstance(item, str) and (TEST.fullmatch(item) or CHAPTER.fullmatch(item))):
            form = "tests/FILE.py::test_name or notebooks/NAME.py#Heading"
            raise ValueError(f"evidence must be {form}, got {item!r}")
    return tuple(cited)


def _check_values(claim: Claim) -> None:
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
