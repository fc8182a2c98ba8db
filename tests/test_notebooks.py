"""Chapters as files: pairs in sync, no outputs; and the sweep notebook as papermill runs it."""

import base64
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import jupytext
import nbformat
import pytest
from conftest import SECONDS
from test_claims import statements

from ncbook import store, sweep

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
CHAPTERS = sorted({p.stem for p in (*NOTEBOOKS, *FOLDER.glob("*.py"))})
SWEEP = FOLDER / "sweep.ipynb"
LARGEST = 1.5e6  # bytes of an executed sweep: more is a flood of logs or pictures

every_chapter = pytest.mark.parametrize("name", CHAPTERS)
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


# ------------------------------------------------------------ pairs


def cells_of(path):
    return [
        (cell.cell_type, cell.source, cell.metadata.get("tags", []))
        for cell in jupytext.read(path).cells
    ]


def test_there_are_chapters():
    assert "sweep" in CHAPTERS


@every_chapter
def test_a_chapter_is_a_pair_in_sync(name):
    """If this fails: make sync."""
    source, notebook = FOLDER / f"{name}.py", FOLDER / f"{name}.ipynb"
    assert source.exists()
    assert notebook.exists()
    assert cells_of(source) == cells_of(notebook)


@every_notebook
def test_a_notebook_is_kept_without_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        # jupytext's own words only: no times, no traces of an execution
        assert set(cell.metadata) <= {"tags", "lines_to_next_cell"}
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


@every_notebook
def test_a_notebook_runs_on_any_machines_python3(path):
    kernel = nbformat.read(path, as_version=4).metadata.kernelspec
    assert (kernel.name, kernel.language) == ("python3", "python")


@every_chapter
def test_a_chapter_has_one_title_and_it_comes_first(name):
    prose = [source for kind, source, _ in cells_of(FOLDER / f"{name}.py") if kind == "markdown"]
    outside_code = [re.sub(r"```.*?```", "", source, flags=re.DOTALL) for source in prose]
    titles = [re.findall(r"^# .+", source, flags=re.MULTILINE) for source in outside_code]
    assert [len(found) for found in titles] == [1] + [0] * (len(prose) - 1)


def test_the_sweep_notebook_has_the_parameters_that_are_checked():
    (cell,) = [source for _, source, tags in cells_of(SWEEP) if "parameters" in tags]
    names = re.findall(r"^(\w+) = ", cell, flags=re.MULTILINE)
    assert tuple(names) == sweep.PARAMETERS


# ------------------------------------------------------------ the paper's figures


def test_each_figure_and_table_of_the_paper_has_its_counterpart():
    text = (ROOT / "book" / "counterparts.md").read_text(encoding="utf-8")
    found = {}
    for row in re.findall(r"^\| (?:Figure|Table).*", text, flags=re.MULTILINE):
        theirs, _, ours, _ = row.strip("| ").split(" | ")
        found |= dict.fromkeys(statements(theirs), re.findall(r"{ref}`(.+?)`", ours))
    paper = {f"Figure {n}" for n in range(1, 46)} | {f"Table {n}" for n in range(1, 6)}
    assert set(found) == paper
    assert all(found.values())


# ------------------------------------------------------------ papermill, as a user calls it

SMALL = dict(train_size=200, momenta="[0.0, 0.9]", weight_decays="[0, 5]", lrs="1e-2")
SMALL |= dict(device="cpu")
# 50 steps: enough for AdamW to fit the 200 digits.
CONVERGES = dict(optimizer="adamw", batch_size=20, epochs=5)
# 6 steps: not enough.
STOPS_EARLY = dict(optimizer="sgd", epochs=3)


@dataclass
class Execution:
    """One call of papermill: what it said, and where its notebook and its results are."""

    process: subprocess.Popen
    output: Path
    results: Path
    said: str = ""

    @classmethod
    def start(cls, folder, results, **parameters):
        folder.mkdir()
        output = folder / "out.ipynb"
        command = [sys.executable, "-m", "papermill", "--no-progress-bar", str(SWEEP), str(output)]
        for name, value in (parameters | {"results": results}).items():
            command += ["-p", name, str(value)]
        log = (folder / "log").open("w")
        environment = os.environ | {store.RESULTS_VARIABLE: str(folder / "not-asked-for")}
        with log:
            process = subprocess.Popen(
                command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT
            )
        return cls(process, output, results)

    def wait(self):
        try:
            self.process.wait(SECONDS)
        finally:
            self.process.kill()
        self.said = (self.output.parent / "log").read_text()
        return self

    @property
    def outputs(self):
        cells = nbformat.read(self.output, as_version=4).cells
        return [out for cell in cells if cell.cell_type == "code" for out in cell.outputs]

    def shown(self, kind):
        """All outputs of a MIME type, and the printed text for ``stdout`` and ``stderr``."""
        if kind in ("stdout", "stderr"):
            return [out.text for out in self.outputs if out.get("name") == kind]
        return [out.data[kind] for out in self.outputs if kind in out.get("data", {})]


@pytest.fixture(scope="module")
def executions(tmp_path_factory):
    """All that does not wait for another: at once, since each spends its time on starting."""
    folder = tmp_path_factory.mktemp("papermill")
    asked = {
        "sweep": SMALL | CONVERGES,
        "early": SMALL | STOPS_EARLY,
        "misspelt": {"optimzer": "adam"},
    }
    started = {
        name: Execution.start(folder / name, folder / f"{name}-results", **parameters)
        for name, parameters in asked.items()
    }
    return {name: execution.wait() for name, execution in started.items()}


@pytest.fixture(scope="module")
def executed(executions):
    execution = executions["sweep"]
    assert execution.process.returncode == 0, execution.said[-3000:]
    return execution


def test_the_sweep_notebook_trains_and_stores_its_grid(executed):
    runs = store.load_runs(executed.results)
    points = set(zip(runs["momentum"], runs["weight_decay"], strict=True))
    assert points == {(0.0, 0.0), (0.0, 5.0), (0.9, 0.0), (0.9, 5.0)}
    settings = runs[["optimizer", "lr", "epochs", "train_size", "batch_size"]].drop_duplicates()
    assert settings.to_numpy().tolist() == [["adamw", 0.01, 5, 200, 20]]
    assert not (executed.output.parent / "not-asked-for").exists()


def test_the_sweep_notebook_says_what_it_does_and_found(executed):
    runs = store.load_runs(executed.results)
    best = runs.loc[runs["nc3"].where(runs["train_acc"] >= 0.99).idxmin()]
    words = "\n".join(executed.shown("text/markdown"))
    assert "**4 runs** of adamw on digits (mlp), 5 epochs each in batches of 20" in words
    assert "- to train: 4, about" in words
    assert "Trained 4 runs (4 ok) in " in words
    assert "converged runs out of 4: learning rate 0.01" in words
    assert re.search(r"\*\*AdamW (collapsed|did not collapse)", words)
    assert f"NC3 {best['nc3']:.3g}, at {best['train_acc']:.1%} training accuracy" in words


def test_the_sweep_notebook_shows_its_tables_and_figures_once(executed):
    tables = [page for page in executed.shown("text/html") if "<table" in page]
    assert len(tables) == 2
    assert "at the start" in tables[0]
    assert "weight decay" in tables[1]
    pictures = [base64.b64decode(picture) for picture in executed.shown("image/png")]
    assert len(pictures) == len(set(pictures)) == 4
    assert all(p.startswith(b"\x89PNG") and len(p) > 10_000 for p in pictures)


@pytest.mark.parametrize("name", ["sweep", "early"])
def test_an_executed_sweep_is_small_and_has_no_warnings(executions, name):
    execution = executions[name]
    assert execution.shown("stderr") == []
    assert execution.output.stat().st_size < LARGEST
    (bar,) = [text for text in execution.shown("text/plain") if " runs [" in text]
    assert bar.startswith("100%|")  # one output, redrawn in place
    assert "4/4 runs" in bar
    assert execution.shown("stdout") == []


def test_a_sweep_in_which_no_run_converges_ends_with_that_word(executions):
    execution = executions["early"]
    assert execution.process.returncode == 0, execution.said[-3000:]
    words = execution.shown("text/markdown")[-1]
    assert words.startswith("None of the 4 runs reached 99% training accuracy.")


def test_a_second_execution_trains_nothing_and_shows_the_same(executed, tmp_path):
    files = sorted(executed.results.rglob("*"))
    again = Execution.start(tmp_path / "again", executed.results, **SMALL, **CONVERGES).wait()
    assert again.process.returncode == 0, again.said[-3000:]
    words = again.shown("text/markdown")
    assert any("- to train: none, all of them are in the store" in text for text in words)
    assert "Trained none; 4 in the store already." in words
    assert words[-1] == executed.shown("text/markdown")[-1]
    assert again.shown("image/png") == executed.shown("image/png")
    assert sorted(executed.results.rglob("*")) == files


def test_bad_input_ends_papermill_with_one_line_and_writes_nothing(executions):
    execution = executions["misspelt"]
    message = "unknown parameter 'optimzer' (did you mean 'optimizer'?); valid: optimizer,"
    assert execution.process.returncode != 0
    # A kernel may have a last word of its own: that its parent appears to have exited.
    lines = [line for line in execution.said.splitlines() if line and "[IPKernelApp]" not in line]
    assert lines[-1].startswith(f"ParameterError: {message}"), execution.said[-3000:]
    (error,) = [out for out in execution.outputs if out.output_type == "error"]
    assert error.traceback == [f"ParameterError: {error.evalue}"]  # one line in the notebook, too
    assert not execution.results.exists()
    assert {p.name for p in execution.output.parent.iterdir()} == {"out.ipynb", "log"}
