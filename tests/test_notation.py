"""The page of notation: every letter of every chapter's formulas is on it, and nothing that is not
used; every optimizer and metric has its line."""

import functools
import re
from pathlib import Path

import jupytext
import pytest

from ncbook import figures, metrics, optim

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "book" / "notation.md").read_text(encoding="utf-8")
CHAPTERS = sorted((ROOT / "notebooks").glob("*.py"))
FORMULA = re.compile(r"\$\$(.+?)\$\$|\$([^$]+?)\$", re.DOTALL)
SCRIPT = re.compile(r"\\math(?:cal|bb) ?\{?([A-Z])\}?")
GREEK = (
    "alpha beta gamma delta epsilon varepsilon eta theta kappa lambda mu nu xi pi rho sigma tau phi"
)
GREEK += " varphi chi psi omega zeta ell Sigma Delta Gamma Phi Pi Lambda Omega Theta Psi"
NAMED = re.compile(rf"\\({'|'.join(GREEK.split())})(?![A-Za-z])")
TEXT = re.compile(r"\\(?:text|operatorname\*?|mathrm|begin|end|mathbf)\s*\{[^}]*\}")


def letters(formula):
    """Letters of a formula, Greek ones and those in script by name."""
    formula = TEXT.sub(" ", formula)
    found = {f"\\{name}" for name in NAMED.findall(formula)}
    found |= {f"script {name}" for name in SCRIPT.findall(formula)}
    return found | set(
        re.findall("[A-Za-z]", re.sub(r"\\[A-Za-z]+", " ", SCRIPT.sub(" ", formula)))
    )


def all_letters(text):
    return set().union(*(letters(one or two) for one, two in FORMULA.findall(text)))


def section(title):
    return re.search(rf"^## {title}\n(.+?)(?=^## |\Z)", PAGE, re.M | re.DOTALL)[1]


def rows(title):
    lines = [line for line in section(title).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def own():
    """The letters that each chapter has for itself: those before a colon."""
    found = {}
    for link, text in rows("Letters that one chapter uses for itself"):
        (name,) = re.findall(r"\{doc\}`\.\./notebooks/(\w+)`", link)
        found[name] = all_letters("".join(part.split(":")[0] for part in text.split(";")))
    return found


@functools.cache
def used(path):
    prose = [c.source for c in jupytext.read(path).cells if c.cell_type == "markdown"]
    return all_letters(re.sub(r"```.*?```", "", "\n".join(prose), flags=re.DOTALL))


def test_a_formulas_letters_are_read():
    read = letters(
        r"\mathcal L \le \tfrac{\lambda_c}{2} \lVert W\rVert_F^2 + \operatorname{sign}(m)"
    )
    assert read == {"script L", r"\lambda", "c", "W", "F", "m"}


def test_no_symbol_has_two_lines():
    symbols = [s for row in rows("Symbols") for s in re.findall(r"\$(.+?)\$", row[0])]
    assert len(symbols) > 40
    assert len(set(symbols)) == len(symbols)


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_every_letter_of_a_chapter_is_on_the_page(path):
    shared = set().union(*(all_letters(row[0]) for row in rows("Symbols")))
    assert used(path) - shared - own().get(path.stem, set()) == set()


@pytest.mark.parametrize("name", own())
def test_a_chapter_has_the_letters_that_the_page_gives_it(name):
    assert own()[name] - used(ROOT / "notebooks" / f"{name}.py") == set()


def test_every_optimizer_has_its_line():
    lines = rows("Optimizers")
    assert sorted(n for row in lines for n in re.findall(r"`(\w+)`", row[0])) == sorted(
        optim.OPTIMIZERS
    )
    for names, labels, _, decay in lines:
        found = re.findall(r"`(\w+)`", names)
        assert all(figures.LABELS.get(name, "mixed") in labels for name in found)
        shares = {1.0: "coupled", 0.0: "decoupled", None: "a share is coupled"}
        forms = dict.fromkeys(shares[optim.rule(name).coupled_share] for name in found)
        assert ", ".join(forms) == decay


def test_every_metric_has_its_line():
    said = section("Metrics").replace(
        "NC3, NC2W, NC2M centred", "NC3 centred NC2W centred NC2M centred"
    )
    words = str.maketrans({"w": "W", "m": "M", "_": " "})
    named = [key.translate(words).replace("nc", "NC") for key in metrics.KEYS if key[:2] == "nc"]
    assert [name for name in (*named, "CDNV") if name not in said] == []


def test_terms_are_in_order():
    terms = re.findall(r"^(\w.+)\n  \w", section("Terms"), re.M)
    assert len(terms) > 30
    assert terms == sorted(terms)
