"""The table of parameters: what it reads and refuses, and all that follows from it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import jupytext
import numpy as np
import pytest

from ncbook import data, models, optim, parameters, sweep
from ncbook.parameters import BY_NAME, FIELDS, LONGEST_RANGE, NUMBER, OPTIMIZERS, WHOLE
from ncbook.train import RunConfig

ROOT = Path(__file__).parents[1]
LISTS = [name for name, row in BY_NAME.items() if row.many and row.kind == NUMBER]
WHOLES = [name for name, row in BY_NAME.items() if not row.many and row.kind == WHOLE]


def test_names_are_those_that_there_are():
    assert FIELDS["optimizer"].valid == (*optim.OPTIMIZERS, "MODULE:CLASS")
    assert tuple(sweep.GRIDS) == parameters.SIX
    assert FIELDS["model"].valid == tuple(models.MODELS)
    assert FIELDS["dataset"].valid == (*data.NAMES, "folder:PATH", "imagenet:PATH")


# ------------------------------------------------------------ what users write


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (0.001, (0.001,)),
        ("1e-3", (0.001,)),
        ("0.001, 0.01", (0.001, 0.01)),
        ("[0.001, 0.01]", (0.001, 0.01)),
        ("(0.001,)", (0.001,)),
        ([0.001, 0.01], (0.001, 0.01)),
        ((0.001, "1e-2"), (0.001, 0.01)),
        (["1/8"], (0.125,)),
        ("[]", ()),
        (None, ()),
    ],
)
@pytest.mark.parametrize("name", LISTS)
def test_every_form_of_a_list_is_read(name, given, meant):
    read = BY_NAME[name].read(given)
    assert read == meant
    assert all(type(value) is float for value in read)


@pytest.mark.parametrize("given", [0, "0", "[0]", -0.0])
def test_a_zero_is_a_value(given):
    (read,) = BY_NAME["weight_decays"].read(given)
    assert (read, type(read)) == (0.0, float)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("0-4", (0, 1, 2, 3, 4)),
        ("[1-2, 7, 9 - 9]", (1, 2, 7, 9)),
        (["3-4", 0], (3, 4, 0)),
        (f"0-{LONGEST_RANGE - 1}", tuple(range(LONGEST_RANGE))),
    ],
)
@pytest.mark.parametrize("name", ["seeds", "log_epochs"])
def test_a_range_is_all_its_whole_numbers(name, given, meant):
    assert BY_NAME[name].read(given) == meant


@pytest.mark.parametrize("given", ["4-0", "0-", "0-1-2", "0-4.5", f"0-{LONGEST_RANGE}"])
def test_what_is_no_range_is_refused_as_it_was_written(given):
    words = "seeds must be whole numbers of at least 0, or rising ranges such as 0-4 "
    words += "of at most 100000 numbers, got "
    with pytest.raises(ValueError, match=f"^{words}{re.escape(repr(given))}$"):
        BY_NAME["seeds"].read(given)


@pytest.mark.parametrize("form", [5, 5.0, "5", "[5]", [5], "5.0"])
@pytest.mark.parametrize("name", WHOLES)
def test_every_form_of_a_whole_number_is_read(name, form):
    read = BY_NAME[name].read(form)
    assert (read, type(read)) == (5, int)


@pytest.mark.parametrize("form", [2**53 + 1, str(2**53 + 1), f"[{2**53 + 1}]", f"{2**53 + 1}.0"])
def test_a_large_whole_number_is_read_as_it_is(form):
    assert BY_NAME["seeds"].read(form) == (2**53 + 1,)


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("optimizer", 3, "optimizer must be a name, got 3"),
        ("optimizer", ["adam"], "optimizer must be a name, got ['adam']"),
        ("lrs", "{lr: 1e-3}", "lrs must be finite numbers > 0, got '{lr: 1e-3}'"),
        ("lrs", {"lr": 0.1}, "lrs must be finite numbers > 0, got {'lr': 0.1}"),
        ("lrs", [0.1, None], "lrs must be finite numbers > 0, got None"),
        ("lrs", True, "lrs must be finite numbers > 0, got True"),
        ("lrs", "0.1 0.2", "lrs must be finite numbers > 0, got '0.1 0.2'"),
        (
            "seeds",
            [0, 1.5],
            "seeds must be whole numbers of at least 0, or rising ranges such as 0-4 "
            "of at most 100000 numbers, got 1.5",
        ),
        ("epochs", "many", "epochs must be a whole number of at least 1, got 'many'"),
        ("epochs", [1, 2], "epochs must be a whole number of at least 1, got [1, 2]"),
        ("epochs", float("inf"), "epochs must be a whole number of at least 1, got inf"),
        ("epochs", "1-3", "epochs must be a whole number of at least 1, got '1-3'"),
        ("log_epochs", "-1", "log_epochs must be a whole number of at least 0, got -1"),
        ("epochs", "0", "epochs must be a whole number of at least 1, got 0"),
        ("depth", 2000, "depth must be at most 1000, got 2000"),
        ("momenta", "0.5, fast", "momenta must be numbers in [0, 1), got 'fast'"),
        ("momenta", "1", "momentum must be a number in [0, 1), got 1.0"),
        ("lrs", "0.1-0.3", "lrs must be finite numbers > 0, got '0.1-0.3'"),
        ("width", "1/0", "width must be a finite number of at least 0.015625, got '1/0'"),
        ("optimizer", "adamv", f"unknown optimizer 'adamv'; valid: {', '.join(OPTIMIZERS)}"),
        ("augment", "often", "augment must be true or false, got 'often'"),
        ("deterministic", 1, "deterministic must be true or false, got 1"),
    ],
)
def test_what_is_of_another_kind_is_refused(name, given, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        BY_NAME[name].read(given)


def test_flags_and_names_are_read():
    assert BY_NAME["augment"].read(" True") is True
    assert BY_NAME["augment"].read("") is None
    assert BY_NAME["results"].read(Path("a, [b]")) == "a, [b]"  # no list


def test_a_name_like_no_parameter_is_refused_without_a_hint():
    with pytest.raises(ValueError, match=r"^unknown parameter 'xyzzy'; valid: optimizer, dataset"):
        parameters.check_names(["# Parameters\nxyzzy = 1"])


def test_a_bool_is_no_number():
    for row in FIELDS.values():
        if row.kind in (NUMBER, WHOLE):
            with pytest.raises(ValueError, match=f"^{row.field} must be .*, got True$"):
                RunConfig(**{row.field: np.bool_(True)})


# ------------------------------------------------------------ what follows from the table


@pytest.mark.parametrize("path", ["README.md", "notebooks/sweep.py"])
def test_the_documented_parameters_are_the_tables(path):
    """If this fails: python -m ncbook.parameters prints the table."""
    text = (ROOT / path).read_text(encoding="utf-8")
    if path.endswith(".py"):
        cells = jupytext.reads(text, fmt="py:percent").cells
        text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    assert parameters.documented() in text


ROW = """
    Row(
        "noises", NUMBER, GRID, "label noise (a share)", 0.0, SHARE, many=True, before=0.0
    ),
"""
EVERYWHERE = """
import json, sys
import importlib.util
spec = importlib.util.spec_from_file_location("ncbook.parameters", sys.argv[1])
module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)

from typer.testing import CliRunner
from ncbook import store, sweep
from ncbook.cli.commands import app
from ncbook.train import RunConfig

def call(*arguments):
    return CliRunner().invoke(app, arguments)

assert "noises" in sweep.PARAMETERS
assert sweep.run_id(RunConfig()) == sweep.run_id(RunConfig(noise=0)) == "f05d7ee71a83256a"
assert sweep.run_id(RunConfig(noise=0.5)) != sweep.run_id(RunConfig())
assert RunConfig(noise=0.5).shared() != RunConfig().shared()
small = {"lrs": 0.1, "momenta": 0, "weight_decays": 0, "epochs": 1}
request = sweep.read(small | {"noises": "0, 0.5", "results": "r"})
assert [config.noise for config in request.configs] == [0.0, 0.5]
assert "- label noise: 0, 0.5" in sweep.describe(request)
for namespace, message in (
    ({"noises": 2}, "noise must be a number in [0, 1], got 2.0"),
    ({"noises": "x"}, "noises must be numbers in [0, 1], got 'x'"),
    ({"In": ["# Parameters\\nnoise = 1"]}, "unknown parameter 'noise' (did you mean 'noises'?)"),
):
    try:
        sweep.check(namespace)
    except sweep.ParameterError as error:
        assert str(error).startswith(message), error
assert store.RUN_COLUMNS["noise"] == store.RUN_COLUMNS["lr"]
assert "label noise (a share) [0]" in call("sweep", "--help").output
assert "noises must be a number" in call("plan", "--noises", "3").output
sweep.run(request.configs, "r", workers=1, progress=False)
blocks = json.loads(call("status", "--results", "r", "--noises", "0.5", "--json").stdout)["blocks"]
assert [block["done"] for block in blocks] == [1]
assert store.load_runs("r", noise=0.5)["noise"].tolist() == [0.5]
assert "| `noises` | label noise (a share) | 0 |" in module.documented()
"""


def test_a_new_row_is_found_everywhere(tmp_path):
    """Notebook, ids, command line, store and its filters, description and documentation."""
    source = Path(parameters.__file__).read_text(encoding="utf-8")
    table = tmp_path / "parameters.py"
    table.write_text(source.replace("\nTABLE = (\n", f"\nTABLE = ({ROW}", 1), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", EVERYWHERE, str(table)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "80", "TORCHDYNAMO_DISABLE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
