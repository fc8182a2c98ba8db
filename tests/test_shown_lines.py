"""The lines of a shell that pages show: what each papermill line among them asks for is accepted by
the notebook that it names. They are run, loops and functions and all, with a stand-in for papermill
that says what it was called with."""

import ast
import re
import shlex
import subprocess
from dataclasses import asdict
from pathlib import Path

import jupytext
import matplotlib as mpl
import papermill.cli
import pytest
from click.testing import CliRunner
from IPython.display import Markdown
from PIL import Image

from ncbook import figures, measure, store, sweep
from ncbook.pages import claims, table_1
from ncbook.sweep import request

ROOT = Path(__file__).parents[1]
SWEEP, MEASURE = "notebooks/sweep.ipynb", "notebooks/measure.ipynb"
VALID = {SWEEP: sweep.PARAMETERS, MEASURE: measure.PARAMETERS}
READ = {
    SWEEP: lambda parameters: request.read(parameters).configs,
    MEASURE: lambda parameters: [measure.asked(parameters)],
}
BLOCK = re.compile(r"^ *```bash\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
# A call's words end in zero bytes, the call itself in a line of its own.
STAND_IN = r"""papermill() { printf '%s\0' "$@"; printf '\n'; }"""
CHAPTERS = ["how_far", "coupling", "depth", "diagnostic", "imagenet", "interpolation"]
CHAPTERS += ["leaks", "momentum", "networks", "precision", "symmetry"]


def calls(lines):
    """The words of each papermill call that some lines make; no other program is found."""
    shell = ["/bin/bash", "-euc", f"PATH=\n{STAND_IN}\n{lines}"]
    said = subprocess.run(shell, capture_output=True, text=True, check=True).stdout
    return [call.split("\0")[:-1] for call in said.splitlines()]


def parameters_of(call, monkeypatch):
    """The notebook, and what papermill's own command line makes of such words."""
    asked = {}
    monkeypatch.setattr(papermill.cli, "execute_notebook", lambda **given: asked.update(given))
    result = CliRunner().invoke(papermill.cli.papermill, call)
    assert result.exit_code == 0, result.output
    return asked["input_path"], asked["parameters"]


def make_folders(name):
    """The class folders that a data set such as ``folder:PATH`` is looked for in."""
    _, found, path = name.partition(":")
    for part in ("train", "test", "val") * bool(found):
        folder = Path(path, part, "a class")
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(folder / "0.png")


def check(blocks, monkeypatch, folder):
    """The configs that the papermill lines of some blocks ask for, or a network to measure: none
    of which is refused."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("NCBOOK_DATA", str(folder))
    configs = []
    for call in [call for block in blocks for call in calls(block)]:
        notebook, parameters = parameters_of(call, monkeypatch)
        assert set(parameters) <= set(VALID[notebook]), shlex.join(call)
        make_folders(parameters.get("dataset", ""))
        configs += READ[notebook](parameters)
    return configs


# ------------------------------------------------------------------ what a page shows


def code_of(name):
    cells = jupytext.read(ROOT / "notebooks" / f"{name}.py").cells
    return [cell.source for cell in cells if cell.cell_type == "code"]


def execute(source, namespace):
    """A cell; the value of its last expression, which a notebook would show."""
    if source.startswith("%%writefile "):
        first, _, content = source.partition("\n")
        Path(first.split(maxsplit=1)[1].format(**namespace)).write_text(content)
        return None
    *body, last = ast.parse(source).body
    if not isinstance(last, ast.Expr):
        return exec(source, namespace)
    exec(compile(ast.Module(body, []), "cell", "exec"), namespace)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), namespace)


def blocks_shown(name, monkeypatch, folder):
    """The blocks of shell code that an executed chapter shows, of an empty store."""
    monkeypatch.setenv(store.RESULTS_VARIABLE, str(folder))
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda *some: shown.extend(some))
    monkeypatch.setattr(figures.display, "display", shown.append)
    with mpl.rc_context():
        namespace = {"__name__": name}
        shown += [execute(source, namespace) for source in code_of(name)]
    texts = [output.data for output in shown if isinstance(output, Markdown)]
    return [block for text in texts for block in BLOCK.findall(text)]


def blocks_written(path):
    """The blocks of a page's prose that begin with papermill."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        text = "\n".join(c.source for c in jupytext.read(path).cells if c.cell_type == "markdown")
    return [block for block in BLOCK.findall(text) if block.lstrip().startswith("papermill")]


# ------------------------------------------------------------------ the tests


@pytest.mark.parametrize("name", CHAPTERS)
def test_lines_that_a_chapter_shows_are_accepted(name, monkeypatch, tmp_path):
    blocks = blocks_shown(name, monkeypatch, tmp_path)
    configs = check(blocks, monkeypatch, tmp_path)
    assert len(configs) >= 10
    assert list(tmp_path.rglob("*.parquet")) == []


def test_lines_that_take_long_to_show_are_accepted(monkeypatch, tmp_path):
    configs = check([claims.UFM_LINES], monkeypatch, tmp_path)
    assert {config.dataset for config in configs} == {"ufm"}
    assert len(configs) == 3 * 60


def test_the_lines_of_table_1_ask_for_the_runs_that_are_looked_for(monkeypatch, tmp_path):
    configs = check([table_1.line(*table_1.RATES, **table_1.FULL)], monkeypatch, tmp_path)
    rows = [asdict(c) | {"run_id": sweep.run_id(c), "status": "ok"} for c in configs]
    store.write(tmp_path, rows)
    assert set(table_1.stored(tmp_path)["optimizer"]) == set(table_1.RATES)
    assert len(table_1.stored(tmp_path)) == len(configs)


PROSE = [ROOT / "README.md", *(ROOT / "book").glob("*.md"), *(ROOT / "notebooks").glob("*.py")]
PROSE = [path for path in PROSE if blocks_written(path)]


@pytest.mark.parametrize("path", PROSE, ids=lambda path: path.stem)
def test_lines_in_prose_are_accepted(path, monkeypatch, tmp_path):
    assert check(blocks_written(path), monkeypatch, tmp_path)


def test_no_chapter_with_a_fold_out_is_forgotten():
    """A chapter shows lines by a function of the package's."""
    shows = re.compile(r"\bwith_lines\(")
    found = {
        path.stem
        for path in (ROOT / "notebooks").glob("*.py")
        if any(shows.search(source) for source in code_of(path.stem))
    }
    takes_long = {"unconstrained_features", "theorem_sgd"}  # whose lines are tested above
    assert found == {*CHAPTERS, *takes_long}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("-p optimzer adam", "optimzer"),
        ("-p optimizer adamx", "unknown optimizer 'adamx'"),
        ("-p lrs '[0.1, -1]'", "lr must be a finite number > 0, got -1"),
    ],
)
def test_a_wrong_line_would_be_found(line, message, monkeypatch, tmp_path):
    block = f"for x in 1 2; do\n    papermill {SWEEP} out.ipynb {line}\ndone"
    with pytest.raises((AssertionError, ValueError), match=message):
        check([block], monkeypatch, tmp_path)
