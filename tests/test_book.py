"""The built book in a real browser: every page, at a desk and on a phone. It is looked for in
`_build/html`: `make book` first."""

import copy
import functools
import re
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import pandas as pd
import pytest
import yaml
from bs4 import BeautifulSoup

from ncbook import store, theory

ROOT = Path(__file__).parents[1]
BOOK = ROOT / "_build" / "html"
MEGABYTE = 10**6
CONTRAST = (ROOT / "tests" / "contrast.js").read_text()
BEYOND_ITS_PICTURE = """all => all.filter(text => {
    const [own, picture] = [text, text.ownerSVGElement].map(e => e.getBoundingClientRect());
    return own.right > picture.right + 1 || own.left < picture.left - 1;
}).map(text => text.textContent)"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (BOOK / "index.html").is_file(), reason="no book: make book"),
]


def chapters():
    """The pages of the table of contents."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    return [toc["root"], *(page["file"] for part in toc["parts"] for page in part["chapters"])]


@functools.cache
def parsed(path):
    return BeautifulSoup(path.read_bytes(), "html.parser")


# ------------------------------------------------------------ as files


@pytest.mark.parametrize("chapter", chapters())
def test_a_page_is_small_and_its_pictures_have_words(chapter):
    page = BOOK / f"{chapter}.html"
    assert page.stat().st_size < 3 * MEGABYTE
    pictures = parsed(page).select("main img")
    assert [p["src"][:60] for p in pictures if len(p.get("alt", "")) < 10] == []


def links(page):
    """The pages and anchors of the book that a page points to."""
    here = f"http://book/{page.relative_to(BOOK)}"
    for link in [a["href"] for a in parsed(page).select("a[href]")]:
        address, anchor = urldefrag(urljoin(here, link))
        if urlsplit(address).netloc == "book":
            yield link, BOOK / unquote(urlsplit(address).path.lstrip("/")), unquote(anchor)


@pytest.mark.parametrize("chapter", chapters())
def test_links_inside_of_the_book_lead_somewhere(chapter):
    broken = []
    for link, target, anchor in links(BOOK / f"{chapter}.html"):
        target = target / "index.html" if target.is_dir() else target
        found = target.is_file()
        if found and anchor and target.suffix == ".html":
            found = parsed(target).find(id=anchor) is not None
        if not found:
            broken.append(link)
    assert broken == []


def test_all_runs_can_be_had_as_files():
    published = store.load_runs(ROOT / "book" / "results")
    for read, name in ((pd.read_csv, "runs.csv"), (pd.read_parquet, "runs.parquet")):
        rows = read(BOOK / "downloads" / name)
        assert set(rows["run_id"]) == set(published["run_id"])


# ------------------------------------------------------------ in a browser


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def served():
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(BOOK)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def page(open_page, served):
    """A page that notes errors and requests to elsewhere: there must be none."""
    opened = open_page(viewport={"width": 1280, "height": 900})
    faults = []
    opened.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
    opened.on("pageerror", lambda error: faults.append(str(error)))

    def note(request):
        if not request.url.startswith((served, "data:", "blob:")):
            faults.append(request.url)

    opened.on("request", note)
    yield opened
    opened.close()
    assert faults == []


@pytest.mark.parametrize("chapter", chapters())
def test_no_formula_is_left_as_source(chapter):
    """Sphinx sets those of a page's text, but none of what a cell's output shows as Markdown."""
    page = copy.copy(parsed(BOOK / f"{chapter}.html").find("article"))
    for part in page.select("script, style, pre, code, .math"):
        part.decompose()
    assert re.findall(r"\$[^$\n]*\\?[A-Za-z][^$\n]*\$|\\\w+\{", page.get_text()) == []


@pytest.mark.parametrize("chapter", chapters())
def test_a_page_opens_without_an_error_and_fits_a_phone(page, served, chapter):
    page.goto(f"{served}/{chapter}.html", wait_until="networkidle")
    assert page.locator("main h1").first.inner_text()
    assert page.locator("mjx-merror").count() == 0  # formulas that MathJax cannot set
    cut = page.locator("article svg text").evaluate_all(BEYOND_ITS_PICTURE)
    assert cut == []
    page.set_viewport_size({"width": 380, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 380
    page.wait_for_function(
        "() => [...document.querySelectorAll('article mjx-container:not([display])')]"
        ".every(formula => formula.getBoundingClientRect().right <= 380)"
    )


@pytest.mark.parametrize("chapter", ["notebooks/coupling", "notebooks/runs"])
def test_the_first_paint_needs_less_than_a_megabyte(page, served, chapter):
    """Of what the browser must have before it draws: style sheets and scripts that it waits for."""
    page.goto(f"{served}/{chapter}.html", wait_until="networkidle")
    sizes = page.evaluate(
        "performance.getEntriesByType('resource')"
        ".filter(e => e.renderBlockingStatus === 'blocking').map(e => e.transferSize)"
    )
    assert 0 < sum(sizes) < MEGABYTE


def test_search_finds_nc0(page, served):
    page.goto(f"{served}/search.html?q=NC0")
    page.wait_for_selector("#search-results li")
    titles = page.locator("#search-results li a").all_inner_texts()
    assert "NC0 as a diagnostic" in titles


def test_a_live_figures_slider_changes_its_curve(page, served):
    page.goto(f"{served}/notebooks/theorem_sgd.html", wait_until="networkidle")
    figure = page.locator("figure.ncbook-live").first
    slider = figure.locator("input[name=momentum]")
    seen = []
    for _ in range(2):
        live = figure.evaluate("element => element.live")
        values = live["values"]
        step, alpha = live["curves"]["sgd"][-1]
        setting = (values["lr"], values["momentum"], values["weight_decay"])
        assert alpha == pytest.approx(theory.row_sum_closed_form(step, *setting) ** 2, rel=1e-6)
        seen.append(alpha)
        slider.focus()
        page.keyboard.press("ArrowLeft")
    assert seen[0] != seen[1]


def test_the_tour_has_a_picture_of_runs_that_moves(page, served):
    page.goto(f"{served}/book/tour.html", wait_until="networkidle")
    figure = page.locator("figure.ncbook-live:has(input[name=weight_decay])")
    slider = figure.locator("input[name=weight_decay]")
    slider.focus()
    page.keyboard.press("Home")
    without = figure.evaluate("element => element.live")["numbers"]
    assert without["adam"] == without["adamw"]  # there is nothing to couple
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    some = figure.evaluate("element => element.live")["numbers"]
    assert some["adam"] < some["adamw"]


def test_the_table_of_runs_filters_and_sorts(page, served):
    page.goto(f"{served}/notebooks/runs.html", wait_until="networkidle")
    box = page.locator(".dt-search input").first
    box.fill("adamw")
    rows = page.locator(".dt-container tbody tr")
    assert rows.count() > 0
    assert all("adamw" in text for text in rows.all_inner_texts())
    head = page.locator(".dt-container thead th", has_text="NC3").first
    head.locator(".dt-column-order").click()
    column = head.evaluate("element => element.cellIndex")
    values = [float(row.split("\t")[column]) for row in rows.all_inner_texts()]
    assert values == sorted(values)


@pytest.mark.parametrize(
    ("width", "scrolled"), [(1200, set()), (390, {"book/execution", "notebooks/runs"})]
)
def test_tables_are_not_cut(open_page, served, width, scrolled):
    """No table is wider than the box it would scroll in, but for Sphinx's own and one of ten
    columns, on a phone."""
    opened = open_page(viewport={"width": width, "height": 900})
    cut = set()
    for chapter in set(chapters()) - scrolled:
        opened.goto(f"{served}/{chapter}.html", wait_until="load")
        boxes = opened.locator("main :is(.text_html, .pst-scrollable-table-container):has(table)")
        boxes = boxes.locator("visible=true")
        wider = "all => all.some(box => box.scrollWidth > box.clientWidth + 1)"
        if boxes.evaluate_all(wider):
            cut.add(chapter)
    opened.close()
    assert cut == set()


@pytest.mark.parametrize("name", ["theorem_sgd", "theorem_signgd", "unconstrained_features"])
def test_formulas_are_not_cut_at_a_desk(open_page, served, name):
    """Some are wider than the page, and made smaller: as wide as it is, and not by much."""
    opened = open_page(viewport={"width": 1200, "height": 900})
    opened.goto(f"{served}/notebooks/{name}.html", wait_until="networkidle")
    formulas = opened.locator('mjx-container[display="true"]')
    opened.wait_for_function(
        "() => (all => all.length && all.every(e => e.dataset.size))"
        "([...document.querySelectorAll('mjx-container[display=true]')])"
    )
    sizes = formulas.evaluate_all(
        "all => all.map(e => [e.scrollWidth / e.clientWidth, "
        "parseFloat(e.style.fontSize) / e.dataset.size])"
    )
    opened.close()
    assert max(width for width, _ in sizes) <= 1.002
    assert 0.7 <= min(share for _, share in sizes) < 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_read_against_its_background(open_page, served, scheme):
    opened = open_page(color_scheme=scheme)
    poor = {}
    for chapter in chapters():
        opened.goto(f"{served}/{chapter}.html", wait_until="load")
        poor[chapter] = opened.locator("main").evaluate(CONTRAST)
    background = opened.evaluate("getComputedStyle(document.body).backgroundColor")
    opened.close()
    light = sum(int(part) for part in background.strip("rgba()").split(",")[:3]) > 3 * 128
    assert light == (scheme == "light")
    assert {chapter: texts for chapter, texts in poor.items() if texts} == {}


def test_in_the_dark_figures_are_dark_but_for_scales_of_colour(open_page, served):
    opened = open_page(color_scheme="dark")
    opened.goto(f"{served}/notebooks/momentum.html", wait_until="networkidle")
    filters = "all => all.map(e => getComputedStyle(e).filter)"
    pictures = "div.cell_output img"
    lines = opened.locator(f"{pictures}:not(.colour-scale)").evaluate_all(filters)
    maps = opened.locator(f"{pictures}.colour-scale").evaluate_all(filters)
    opened.close()
    assert lines
    assert all("invert" in found for found in lines)
    assert maps
    assert not any("invert" in found for found in maps)
