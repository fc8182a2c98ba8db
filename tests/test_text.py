"""A store from a stranger, in which every text is made to do harm: whatever shows it shows text."""

import dataclasses
import inspect
import json
import re
from pathlib import Path

import jupytext
import matplotlib as mpl
import numpy as np
import pandas as pd
import papermill
import pytest
from bs4 import BeautifulSoup
from conftest import noticed, outputs, put_store
from IPython.display import HTML, Markdown
from markdown_it import MarkdownIt
from matplotlib.figure import Figure
from pandas.io.formats.style import Styler
from test_cli import call

from ncbook import explore, figures, store, sweep, text
from ncbook.cli import sweeping
from ncbook.explore import controls
from ncbook.figures import display, style
from ncbook.pages import claims

ROOT = Path(__file__).parents[1]
PUBLISHED = ROOT / "book" / "results"
MATHJAX = ROOT / "book" / "_extra" / "vendor" / "mathjax" / "tex-mml-chtml.js"
ACT = "document.title='acted'"
HOSTILE = (
    f'<img src=x onerror="{ACT}">',
    f"</script><script>{ACT}</script>",
    f'"><svg onload={ACT}>&lt;',
    rf"$\frac{{a}}{{$ `b` **c** [d](javascript:{ACT}) <{ACT}>",
    rf"$\href{{javascript:{ACT}}}{{e}}$ \(f\) \begin{{equation}}g\end{{equation}}",
    "\x1b[2J\x1b]0;acted\x07\x1b[31mred [bold]markup[/bold] :smile:",
    "=1+1",
    "1. -2\n# h\r\n\r\n\ti\x00j\u2028k",
    "\u202eltr\u202c zero\u200bwidth\x9b31m",
    "../../escaped/{0} %s {name}",
    "_m_ ~~n~~ | o | www.example.org :p: ]]> \\",
    "long " * 200_000,
)
GRID = dict(lrs=[0.005], momenta=[0.5, 0.9], weight_decays=[0, 0.05, 0.5])
KEPT = ("run_id", "status", "optimizer")


def hostile_store(folder, kept=KEPT):
    """Twelve published runs, every text of which is one of HOSTILE but for the columns kept."""
    configs = [c for name in ("adam", "adamw") for c in sweep.grid(name, **GRID)]
    ids = [sweep.engine.run_id(config) for config in configs]
    runs = store.load_runs(PUBLISHED, run_id=ids).dropna(axis="columns", how="all")
    assert len(runs) == len(HOSTILE)
    for name in runs.select_dtypes("str").columns.difference(kept):
        runs[name] = HOSTILE
    runs["reason"], runs["=1+1"] = HOSTILE, HOSTILE
    history = store.load_history(PUBLISHED, run_id=ids).drop(columns=[*store.SETTINGS])
    return put_store(folder, runs, history)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return hostile_store(tmp_path_factory.mktemp("hostile"))


@pytest.fixture(scope="module")
def nameless(tmp_path_factory):
    """Also its optimizers have hostile names."""
    return hostile_store(tmp_path_factory.mktemp("nameless"), ("run_id", "status"))


@pytest.fixture(autouse=True)
def own_look(monkeypatch):
    monkeypatch.delenv(explore.STATIC_VARIABLE, raising=False)
    with mpl.rc_context({"backend": "agg", "figure.dpi": 30}):
        yield


# ------------------------------------------------------------ what is inert


def seen(markup):
    """The text that some HTML shows; the test's failure if it could do more."""
    page = BeautifulSoup(markup, "html.parser")
    assert page.find(["script", "svg", "iframe", "form"]) is None
    for tag in page.find_all(True):
        assert not [name for name in tag.attrs if name.startswith("on")], tag
        address = tag.get("src") or tag.get("href") or ""
        assert address == "" or address.startswith(("data:image/png", "#")), tag
    for ignored in page.select(".mathjax_ignore"):
        assert "tex2jax_ignore" in ignored["class"]  # by older ones, and by nbconvert's
    formulas = BeautifulSoup(markup, "html.parser")
    for ignored in formulas.select(".mathjax_ignore, style"):
        ignored.decompose()
    assert not re.search(r"[$\\]", formulas.get_text())
    return page.get_text()


def rendered(markdown):
    """Markdown as a notebook shows it: HTML in it counts, and what looks like a link is one."""
    return MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(markdown)


def shows(made):
    """The text of whatever a public function returns for a page."""
    if isinstance(made, str):
        return seen(rendered(made))
    if isinstance(made, Markdown):
        return seen(rendered(made.data))
    if isinstance(made, HTML):
        return seen(made.data)
    if isinstance(made, pd.DataFrame):
        return seen(figures.shown(made).to_html())
    if isinstance(made, Styler):
        return seen(made.to_html())
    if isinstance(made, Figure):
        return seen(display.described(made).data) + display.words(made)
    return ""


def is_plain(line):
    return all(character.isprintable() for character in line)


# ------------------------------------------------------------ each medium


@pytest.mark.parametrize("value", HOSTILE)
def test_a_text_is_one_line_of_what_can_be_seen(value):
    line = text.line(value)
    assert is_plain(line)
    assert len(line) <= 10 * text.LONGEST
    assert is_plain(text.line(value, 20))


@pytest.mark.parametrize("value", HOSTILE)
def test_html_and_markdown_show_the_line_alone(value):
    markup = text.html(value)
    for shown in (seen(markup), seen(rendered(markup)).strip(), seen(rendered(f"- **{markup}**"))):
        assert shown.strip() == text.line(value)
    page = BeautifulSoup(rendered(f"a {markup} b"), "html.parser")
    assert {tag.name for tag in page.find_all(True)} <= {"p", "span"}


@pytest.mark.parametrize("value", HOSTILE)
def test_a_title_shows_the_line_and_no_formula(value):
    figure = Figure()
    title = figure.suptitle(text.mathtext(value, text.NAME))
    shown, formula = title._preprocess_math(title.get_text())
    assert not formula
    assert shown == text.line(value, text.NAME)
    figure.savefig(Path("/dev/null"), format="png")
    assert display.words(figure) == shown


@pytest.mark.parametrize(
    ("value", "cell"),
    [(value, f"'{value}") for value in ("=1+1", "+a", "-2", "@a", "\ta", "\ra", "\na", "＝1", "'a")]
    + [(value, value) for value in ("1-2", "", "a=1", "a'", " =")],
)
def test_a_cell_has_an_apostrophe_where_a_spreadsheet_would_compute(value, cell):
    assert text.cell(value) == cell
    assert cell.removeprefix(text.MARK) == value


# ------------------------------------------------------------ figures, words and tables


def public_renderers():
    """The functions of ncbook.figures that take runs or epochs; captions are plain text."""
    for name in sorted({*vars(figures)} - {"caption"}):
        function = getattr(figures, name)
        if inspect.isfunction(function):
            first = next(iter(inspect.signature(function).parameters), "")
            if first in ("runs", "history"):
                yield name


MORE = {  # arguments that such a function needs
    "against": {"x": "weight_decay"},
    "against_by_setting": {"by": "dataset"},
    "on_grid": {"grids": sweep.GRIDS},
    "raw_and_centred": {"panel": "dataset", "order": ["adam", "adamw"]},
    "pair_map": {"order": ["adam", "adamw"], "metric": "nc0"},
    "over_seeds": {"by": "dataset", "metric": "nc0"},
    "show_if_any": {"line": "true"},
    "start_and_end": {"labels": figures.METRICS},
    "with_lines": {"lines": "true"},
}


@pytest.mark.parametrize("folder", ["results", "nameless"])
@pytest.mark.parametrize("name", list(public_renderers()))
def test_every_public_function_of_figures_shows_text(name, folder, request):
    function = getattr(figures, name)
    folder = request.getfixturevalue(folder)
    load = store.load_history if "history" in inspect.signature(function).parameters else None
    rows = (load or store.load_runs)(folder)
    rows = rows.assign(hidden=rows.get("optimizer"), last="adam")  # as in chapter ``symmetry``
    title = {"title": " ".join(HOSTILE[3:6])}
    title = title if "title" in inspect.signature(function).parameters else {}
    shows(function(rows, **MORE.get(name, {}), **title))


def test_captions_and_legends_have_the_names_in_them(results):
    runs = store.load_runs(results).iloc[:6]
    caption = figures.caption(runs)
    sgd = runs.assign(optimizer="sgd", schedule="step", dataset="digits", nc0=0.1, nc0_init=1.0)
    (legend,) = figures.parity(sgd.assign(lr=1e-4, weight_decay=1e-4)).legends
    assert all(text.line(value, text.NAME) in caption for value in runs["dataset"])
    labels = [label.get_text() for label in legend.get_texts()]
    assert f"SGD, {text.mathtext(runs['model'].iloc[0], text.NAME)}" in labels
    figure = figures.heatmaps(runs, title=caption)
    assert text.line(caption, style.TITLE) in display.words(figure)


def seen_words(picture):
    return BeautifulSoup(picture.data, "html.parser").img["alt"]


def test_a_figures_own_words_are_one_line(results):
    runs = store.load_runs(results)
    for value in (HOSTILE[5], HOSTILE[7], HOSTILE[-1]):
        words = display.words(figures.scatters(runs, title=value))
        assert is_plain(words)
        assert text.line(value, 20)[:9] in words


def test_tables_show_the_names_in_their_cells_and_heads(results):
    runs = store.load_runs(results)
    for made in (
        runs[["dataset", "nc0"]],
        runs.groupby("dataset")[["nc0"]].mean(),
        runs.groupby(["model", "dataset"])["nc0"].agg(["size", "max"]),
        runs.set_index("dataset")[["nc0"]].T,
    ):
        shown = shows(figures.shown(made))
        for value in HOSTILE[:7]:
            assert text.line(value) in shown


def test_a_cells_further_lines_are_small_and_few():
    shown = figures.shown(pd.DataFrame({"a": ["1\n<b>2\n3\n4\n5"]})).to_html()
    assert "1<br><small>&#60;b&#62;2</small><br><small>3 4 5</small>" in shown


def test_the_exact_law_is_silent_on_a_schedule_that_nobody_knows(results):
    runs = store.load_runs(results).assign(optimizer="sgd", dataset="digits")
    assert figures.exact_law(runs).isna().all()


# ------------------------------------------------------------ the explorer


def values(widget):
    """All HTML, and all labels, of a panel."""
    if isinstance(widget, (explore.window.widgets.HTML, explore.maps.Map)):
        yield "html", getattr(widget, "html", "") or getattr(widget, "value", "")
    for name in ("description", "tooltip"):
        yield "label", getattr(widget, name, None) or ""
    for label in getattr(widget, "_options_labels", ()):
        yield "label", str(label)
    for child in getattr(widget, "children", ()):
        yield from values(child)


@pytest.fixture(scope="module")
def panels(results):
    """Everything that the explorer says in its tabs over a store, each once."""
    window = explore.explorer(results)
    for tab in (1, 2):
        window.tabs.selected_index = tab
    window.status.say(HOSTILE[0])
    return set(values(window))


def test_the_explorer_shows_text(panels):
    labels = {label for kind, label in panels if kind == "label"}
    assert all(map(is_plain, labels))
    for value in HOSTILE:
        assert text.line(value, controls.LABEL) in labels
    words = " ".join(seen(markup) for kind, markup in panels if kind == "html")
    assert text.line(HOSTILE[0]) in words


def test_reasons_of_failed_runs_are_text_and_few(results):
    runs = store.load_runs(results).assign(status="failed")
    told = seen(explore.curves.ended(runs))
    assert all(text.line(value) in told for value in runs["reason"][:5])
    assert told.count("Failed: ") == 5


def test_an_explorer_of_unknown_optimizers_has_nothing_to_explore(nameless):
    shown = values(explore.explorer(nameless))
    assert "no runs" in " ".join(seen(markup) for kind, markup in shown if kind == "html")


def test_a_folder_and_an_error_are_text(tmp_path):
    folder = tmp_path / "<img src=x onerror=a>\n\x1b[31m$x$\udcff"
    view = explore.StoreView.of(folder)
    for markup in (view.summary(), view.invitation()):
        assert text.line(folder.name) in seen(markup)
    assert all(map(is_plain, explore.view.folders(folder)))


# ------------------------------------------------------------ the terminal


def test_status_has_a_line_a_block_and_only_what_can_be_seen(results, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    said, errors = call("status", "--results", results)
    lines = said.splitlines()
    assert all(map(is_plain, lines))
    assert errors == ""
    assert sum("adam" in line for line in lines) == len(HOSTILE)
    for value in (HOSTILE[0], HOSTILE[6]):
        assert any(text.line(value)[-9:] in line for line in lines)
    assert any("[bold]markup[/bold] :smile:" in line for line in lines)
    answer = json.loads(call("status", "--results", results, "--json")[0])
    assert {block["dataset"] for block in answer["blocks"]} == set(HOSTILE)


def test_damage_is_told_in_one_line_whatever_the_names_are(tmp_path):
    runs = store.load_runs(PUBLISHED, dataset="digits", model="mlp").head(len(HOSTILE))
    runs = runs.assign(run_id=HOSTILE, status=HOSTILE)
    folder = tmp_path / "a\x1b[31m\nb"
    put_store(folder, runs)
    said, errors = call("status", "--results", folder)
    assert len(errors.splitlines()) == 1
    assert "left out" in errors
    assert all(map(is_plain, [*said.splitlines(), *errors.splitlines()]))
    with noticed() as caught:
        store.load_runs(folder)
    assert all(is_plain(message) for message in caught)


@pytest.mark.parametrize("value", [*HOSTILE, "\udcff", "ü" * 300])
def test_an_executed_notebook_has_a_name_that_a_file_can_have(value, tmp_path):
    block = sweeping.blocks.read(
        {"dataset": "digits", "optimizer": "adam", "lrs": "0.01", "results": str(tmp_path)}
    ).blocks[0]
    names = block.names | {"dataset": f"folder:{value}"}
    name = sweeping._file_name(dataclasses.replace(block, names=names))
    assert re.fullmatch(r"[\w.-]+", name)
    (tmp_path / name).touch()


# ------------------------------------------------------------ files


def test_a_csv_file_has_no_formula_and_gives_every_text_back(results, tmp_path):
    call("export", tmp_path / "out", "--results", results)
    stored = pd.read_parquet(tmp_path / "out.parquet")
    read = pd.read_csv(tmp_path / "out.csv", keep_default_na=False)
    for name in stored:
        cells = read[text.cell(name)]
        if stored[name].dtype.kind in "iufb":
            values = pd.to_numeric(cells, errors="coerce").to_numpy(float)
            np.testing.assert_allclose(values, stored[name].to_numpy(float), rtol=1e-15)
        elif stored[name].notna().any():
            assert cells.str.removeprefix(text.MARK).tolist() == stored[name].fillna("").tolist()
            assert not cells.str.match(r"[=+\-@\t\r\n]").any()
    assert stored["dataset"].tolist() == store.load_runs(results)["dataset"].tolist()


def test_numbers_below_zero_stay_numbers_in_a_csv_file(tmp_path):
    store.write(tmp_path, [{"run_id": "a", "status": "ok", "x": -1.5, "n": -2, "t": "-2"}])
    store.export(tmp_path / "out.csv", tmp_path)
    line = (tmp_path / "out.csv").read_text().splitlines()[1]
    assert line.endswith('-1.5,-2,"\'-2"')


# ------------------------------------------------------------ pages


def code(name):
    cells = jupytext.read(ROOT / "notebooks" / f"{name}.py").cells
    return [cell.source for cell in cells if cell.cell_type == "code"]


@pytest.fixture
def page(shell, monkeypatch):
    """Execute a notebook's cells on a store, here: kind and content of all that it shows."""

    def execute(name, folder, parameters=""):
        monkeypatch.setenv(store.RESULTS_VARIABLE, str(folder))
        monkeypatch.setenv(explore.STATIC_VARIABLE, "1")
        shell.reset(new_session=True)
        first, *others = code(name)
        cells = (first, f"# Parameters\n{parameters}", *others)
        return [output for cell in cells for output in outputs(shell, cell)]

    return execute


def as_html(output):
    kind, content = output
    if kind == "text/plain":
        return f"<pre>{text.html(content)}</pre>"
    return rendered(content) if kind == "text/markdown" else content


SWEEP = "\n".join(f"{name} = {value!r}" for name, value in dict(GRID, optimizer="adam").items())


@pytest.mark.parametrize("folder", ["results", pytest.param("nameless", marks=pytest.mark.slow)])
def test_the_sweeps_page_ends_and_shows_text(page, folder, request):
    shown = page("sweep", request.getfixturevalue(folder), SWEEP + "\nworkers = 1")
    words = " ".join(seen(as_html(output)) for output in shown)
    assert "Trained none" in words
    pictures = [output for output in shown if "<img " in output[1]]
    assert len(pictures) == 4
    if folder == "results":
        assert text.line(HOSTILE[0]) in seen_words(HTML(pictures[0][1]))


@pytest.mark.parametrize("folder", ["results", "nameless"])
def test_the_page_of_runs_ends_and_shows_text(page, folder, request):
    shown = page("runs", request.getfixturevalue(folder))
    tables = [content for _, content in shown if "<table" in content and "<script" not in content]
    words = " ".join(map(seen, tables))
    for value in HOSTILE[:7]:
        assert text.line(value) in words


def test_the_claims_page_goes_without_such_runs(results):
    rows = claims.read_rows(results)
    entries = claims.fill(claims.load(ROOT / "book" / "claims.yml"), rows)
    assert any(entry.why == claims.UNMEASURED for entry in entries)


@pytest.mark.slow
def test_the_sweeps_notebook_ends_on_a_strangers_store(results, tmp_path):
    parameters = dict(optimizer="adam", results=str(results), workers=1) | GRID
    source = ROOT / "notebooks" / "sweep.ipynb"
    papermill.execute_notebook(source, tmp_path / "out.ipynb", parameters, progress_bar=False)


@pytest.mark.slow
def test_in_a_browser_nothing_acts_and_the_texts_are_read(
    page, panels, results, tmp_path, open_page
):
    """The explorer's HTML, the sweep's page and the page of runs, with a notebook's MathJax."""
    pieces = [f"<div>{markup}</div>" for kind, markup in panels if kind == "html"]
    shown = page("sweep", results, SWEEP + "\nworkers = 1") + page("runs", results)
    pieces += [f"<div>{as_html(output)}</div>" for output in shown]
    runs = store.load_runs(results).assign(status="failed")
    pieces.append(explore.curves.ended(runs[:5]) + explore.curves.ended(runs[5:]))
    mathjax = "MathJax = {tex: {inlineMath: [['$', '$'], ['\\\\(', '\\\\)']]}}"
    file = tmp_path / "page.html"
    file.write_text(
        f"<!DOCTYPE html><meta charset=utf-8><title>still</title><script>{mathjax}</script>"
        f"<body>{''.join(pieces)}<script src='{MATHJAX.as_uri()}'></script>"
    )
    opened, faults = open_page(), []
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on("dialog", lambda dialog: faults.append(dialog.message))
    opened.goto(file.as_uri(), wait_until="load")
    opened.evaluate("MathJax.startup.promise")
    opened.locator(".dt-container tbody tr").first.wait_for()
    words = opened.locator("body").inner_text()
    assert opened.locator("mjx-container").count() == 0
    assert opened.locator("a[href^=javascript]").count() == 0
    table = opened.locator(".dt-container tbody").first.inner_text()
    opened.locator(".dt-search input").first.fill("<img onerror")
    found = opened.locator(".dt-container tbody tr").all_inner_texts()
    assert opened.title() == "still"
    assert faults == []
    assert found
    assert all(HOSTILE[0] in row for row in found)
    for value in HOSTILE[:7]:
        assert text.line(value) in words
        assert text.line(value) in table
