"""A book of two pages that is built with the book's own settings: its buttons to the sources, and
how it is printed."""

import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from bs4 import BeautifulSoup
from conftest import CHROMIUM
from sphinx.errors import ConfigError

ROOT = Path(__file__).parents[1]
ADDRESS = "https://github.com/somebody/ncbook"
NOTEBOOK = """---
jupytext: {text_representation: {extension: .md, format_name: myst}}
kernelspec: {display_name: Python 3, language: python, name: python3}
---
# A notebook

```{code-cell} ipython3
6 * 7
```
"""


def build(folder, address="", *options):
    """A book of one text and one notebook, whose sources are said to be at an address."""
    settings = yaml.safe_load((ROOT / "_config.yml").read_text())
    settings.pop("exclude_patterns")
    settings["execute"]["execute_notebooks"] = "off"
    settings["bibtex_bibfiles"] = [str(ROOT / "book" / "references.bib")]
    settings["html"].pop("favicon")
    settings["sphinx"]["local_extensions"] = {"pages": str(ROOT / "book" / "_ext")}
    settings["sphinx"]["config"]["html_extra_path"] = [str(ROOT / "book" / "_extra")]
    (folder / "_config.yml").write_text(yaml.safe_dump(settings))
    (folder / "_toc.yml").write_text(
        yaml.safe_dump(
            {"format": "jb-book", "root": "text/index", "chapters": [{"file": "notebook"}]}
        )
    )
    (folder / "text").mkdir()
    (folder / "text" / "index.md").write_text("# A book\n\nSee {doc}`../notebook`: $6^2 > 0$.\n")
    (folder / "notebook.md").write_text(NOTEBOOK)
    program = Path(sys.executable).with_name("jupyter-book")
    return subprocess.run(
        [program, "build", folder, "-W", "-n", "--keep-going", *options],
        env=os.environ | {"NCBOOK_REPOSITORY": address},
        capture_output=True,
        text=True,
        check=False,
    )


def buttons(folder, page):
    """What the links of a page's header lead to."""
    html = (folder / "_build" / "html" / f"{page}.html").read_text()
    links = BeautifulSoup(html, "html.parser").select(".article-header-buttons a[href]")
    return [link["href"] for link in links if link["href"].startswith("http")]


def test_buttons_lead_to_where_the_sources_are(tmp_path):
    built = build(tmp_path, f"{ADDRESS}.git")
    assert built.returncode == 0, built.stdout + built.stderr
    assert ADDRESS in buttons(tmp_path, "text/index")
    binder = "https://mybinder.org/v2/gh/somebody/ncbook/main?urlpath=lab/tree/notebook.md"
    colab = "https://colab.research.google.com/github/somebody/ncbook/blob/colab/notebook.md"
    assert {ADDRESS, binder, colab} < {*buttons(tmp_path, "notebook")}


@pytest.fixture
def add_buttons(monkeypatch):
    """What the book's extension makes of an address: the theme's options."""
    monkeypatch.syspath_prepend(ROOT / "book" / "_ext")
    pages = importlib.import_module("pages")

    def add(address):
        monkeypatch.setenv(pages.REPOSITORY, address)
        config = SimpleNamespace(html_theme_options={})
        pages.add_buttons(None, config)
        return config.html_theme_options

    return add


@pytest.mark.parametrize("host", ["github", "gitlab"])
@pytest.mark.parametrize("ending", ["", "/", ".git"])
def test_only_on_github_is_there_a_button_to_colab(add_buttons, host, ending):
    address = ADDRESS.replace("github", host)
    options = add_buttons(address + ending)
    assert options["repository_url"] == address
    assert "binderhub_url" in options["launch_buttons"]
    assert ("colab_url" in options["launch_buttons"]) == (host == "github")


def test_no_address_no_buttons(add_buttons):
    assert add_buttons("") == {}


def test_an_address_that_is_none_is_refused_by_its_name(add_buttons):
    message = "NCBOOK_REPOSITORY is 'somebody/ncbook', but wanted is https://github"
    with pytest.raises(ConfigError, match=message):
        add_buttons("somebody/ncbook")


def printed(page, pdf):
    program = [sys.executable, ROOT / "book" / "print_pdf.py", page, pdf]
    return subprocess.run(program, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium")
def test_the_book_is_printed_with_its_formulas_and_an_outline(tmp_path):
    built = build(tmp_path, "", "--builder", "singlehtml")
    assert built.returncode == 0, built.stdout + built.stderr
    page, pdf = tmp_path / "_build" / "singlehtml" / "text" / "index.html", tmp_path / "book.pdf"
    done = printed(page, pdf)
    assert done.returncode == 0, done.stderr
    content = pdf.read_bytes()
    assert content.startswith(b"%PDF-")
    assert b"/Outlines" in content
    # Without its formula the same page is refused: that is how a page without style would look.
    page.write_text(page.read_text().replace("math notranslate", "plain"))
    done = printed(page, tmp_path / "other.pdf")
    assert done.returncode == 1
    assert "no formula was set" in done.stderr
    assert not (tmp_path / "other.pdf").exists()


def test_without_chromium_printing_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CHROMIUM", "gone")
    done = printed(tmp_path / "a" / "b.html", tmp_path / "book.pdf")
    assert done.returncode == 1
    assert done.stderr.startswith("no Chromium (tried gone, chromium,")
