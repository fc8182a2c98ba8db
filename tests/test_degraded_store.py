"""Pages that read the store, executed on stores that lack runs or columns, or are damaged: they say
so, and none ends in an error."""

import functools
import re
from html import unescape
from pathlib import Path

import jupytext
import matplotlib as mpl
import pytest
from conftest import outputs, put_store

from ncbook import explore, figures, store

ROOT = Path(__file__).parents[1]
PUBLISHED = ROOT / "book" / "results"
PAGES = {name: f"book/{name}.md" for name in ("intro", "tour", "claims")}
PAGES |= {
    name: f"notebooks/{name}.py"
    for name in (
        *("coupling", "momentum", "interpolation", "diagnostic", "networks", "how_far"),
        *("imagenet", "precision", "runs", "background"),
        *("theorem_sgd", "theorem_signgd", "unconstrained_features"),
    )
}
SLOW = {"diagnostic", "momentum", "imagenet"}
SLOW |= {"theorem_sgd", "theorem_signgd", "unconstrained_features"}
# What came after the first runs were stored, and what a run of that time had.
LATER = {"precision": "float32", "width": 1.0, "schedule": "step", "augment": False}
LATER |= {"clip": None, "depth": None, "train_size": None}
FILLED_IN = ["coupled_share", "reason", "wall_time_s", "created_at", "device", "git_commit"]
FILLED_IN += ["torch_version", "python_version", "ncbook_version"]
EMPTY = "The store has no such runs yet"
LEFT_OUT = "Some of the stored runs are not shown here."


@pytest.fixture
def shown(shell, monkeypatch):
    """Execute a page on a store: all that it shows, as one text. An error is the test's."""

    def execute(name, results):
        monkeypatch.setenv(store.RESULTS_VARIABLE, str(results))
        monkeypatch.setenv(explore.STATIC_VARIABLE, "1")
        path = ROOT / PAGES.get(name, f"notebooks/{name}.py")
        monkeypatch.chdir(path.parent)
        shell.reset(new_session=True)
        with mpl.rc_context({"backend": "agg"}):
            return "\n".join(seen for cell in code(path) for seen in run(shell, cell))

    return execute


@functools.cache
def code(path):
    return [cell.source for cell in jupytext.read(path).cells if cell.cell_type == "code"]


def run(shell, source):
    """What a cell displays, and its result, as text."""
    return (unescape(content) for _, content in outputs(shell, source))


@pytest.fixture(scope="module")
def digits():
    """The digits runs of one seed, and their epochs."""
    wanted = dict(dataset="digits", model="mlp", epochs=200, seed=0)
    history = store.load_history(PUBLISHED, **wanted)
    return store.load_runs(PUBLISHED, **wanted), history.drop(columns=list(store.SETTINGS))


def pictures(page):
    return page.count("<img ") + page.count("<Figure size")


# ------------------------------------------------------------ no runs


def some_slow(*names):
    """The same names, of which those that take many seconds are left to all tests."""
    return [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in names]


@pytest.mark.parametrize("name", some_slow(*PAGES))
def test_on_an_empty_store_a_page_says_that_there_are_none(name, shown, tmp_path):
    page = shown(name, tmp_path)
    assert re.search(f"{EMPTY}|lacks the runs of|has no ImageNet runs|no run", page)
    if name != "imagenet":
        assert "papermill notebooks/sweep.ipynb" in page
    assert not re.search(r"\bnan\b|\binf\b", page)
    if name in ("intro", "coupling", "diagnostic", "how_far", "runs"):
        assert pictures(page) == 2 * (name == "runs")  # of trainings of its own


# ------------------------------------------------------------ runs of an older schema


@pytest.fixture(scope="module")
def older(digits, tmp_path_factory):
    runs, history = digits
    for column, value in LATER.items():
        runs = runs[runs[column].isna() if value is None else runs[column] == value]
    runs = runs[~runs["optimizer"].str.endswith(figures.MIXED)]
    history = history[history["run_id"].isin(runs["run_id"])]
    assert len(runs) > 500
    runs = runs.drop(columns=[*LATER, *FILLED_IN])
    return put_store(tmp_path_factory.mktemp("older") / "results", runs, history)


@pytest.mark.parametrize("name", some_slow("intro", "claims", "diagnostic", "theorem_sgd"))
def test_a_store_of_an_older_schema_is_shown(name, shown, older):
    page = shown(name, older)
    assert LEFT_OUT not in page
    assert not re.search(r"\bnan\b|\binf\b", page)
    if name == "claims":
        assert "lacks the runs of: ufm" in page
    else:
        assert page.count(EMPTY) == 2 * (name == "theorem_sgd")  # the runs of Table 1
        assert pictures(page) > 0


# ------------------------------------------------------------ damage


@pytest.mark.parametrize("name", ["intro", "background"])
def test_a_file_that_cannot_be_read_is_named_once_in_the_page(name, shown, digits, tmp_path):
    put_store(tmp_path, *digits)
    file = tmp_path / "runs" / "fedcba9876543210.parquet"
    (whole,) = (tmp_path / "runs").iterdir()
    file.write_bytes(whole.read_bytes()[:5000])
    page = shown(name, tmp_path)
    assert page.count(LEFT_OUT) == 1
    assert f"{file}: damaged, its runs are left out" in page


@pytest.mark.parametrize("name", some_slow("intro", "diagnostic", "momentum"))
def test_rows_that_cannot_be_true_are_counted_and_named(name, shown, digits, tmp_path):
    runs, history = digits
    good = figures.converged(runs).query("weight_decay > 0 and optimizer == 'sgd'").index
    runs = runs.copy()
    changes = dict(nc0=-0.5, nc3=float("nan"), status="odd")
    for row, (column, value) in zip(good, changes.items(), strict=False):
        runs.loc[row, column] = value
    put_store(tmp_path, runs, history)
    page = shown(name, tmp_path)
    assert page.count(LEFT_OUT) == 3
    for row, fault in zip(good, ("nc0 below 0", "ok without nc3", "a status other"), strict=False):
        assert re.search(f"1 run is left out, with {fault}.*: {runs.loc[row, 'run_id']}", page)
    assert not re.search(r"\bnan\b|\binf\b", page)


def test_a_page_without_damage_says_nothing_of_it(shown, digits, tmp_path):
    assert LEFT_OUT not in shown("intro", put_store(tmp_path / "results", *digits))
