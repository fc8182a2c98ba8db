"""The command line, as people and scripts call it."""

import contextlib
import errno
import io
import json
import os
import re
import signal
import stat
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from conftest import SECONDS
from distributed import Security
from sweeps import (
    LAST_BITS,
    LIGHT,
    assert_same_rows,
    family,
    has_in_command,
    left_over,
    rows_in_files,
    wait_until,
    write_images,
)
from typer.testing import CliRunner

from ncbook import __version__, store, sweep
from ncbook.cli import blocks, commands, notebook, show, sweeping
from ncbook.cli.commands import app
from ncbook.store import leases
from ncbook.sweep import cluster

WIDTH = 80
COMMANDS = ("sweep", "plan", "status", "export")
SMALL = ["--train-size=100", "--batch-size=50", "--momenta=0.9", "--weight-decays=0,0.05"]
GRID = [*SMALL, "--optimizer", "sgd,adamw", "--lrs", "0.01,0.05", "--epochs", "2"]
STOPPED = "ncbook: stopped; all that ended is stored, and the same command goes on from there"
BLOCKS = [("sgd", 0.01), ("sgd", 0.05), ("adamw", 0.01), ("adamw", 0.05)]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """An empty folder to work in, and a terminal of 80 columns."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(store.RESULTS_VARIABLE, raising=False)
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    for name, value in LIGHT.items():
        monkeypatch.setenv(name, value)


def call(*arguments, code=0):
    """What a command says: its standard output, and standard error but for the store's name."""
    result = CliRunner().invoke(app, list(map(str, arguments)))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.stdout, re.sub(r"\Ancbook: reading the store .* \.\.\.\n", "", result.stderr)


def stored_as(configs, status="ok"):
    """Rows of the store, as of runs that were trained."""
    why = {"reason": "it died"} if status == store.FAILED else {}
    return [{"run_id": sweep.run_id(c), "status": status} | asdict(c) | why for c in configs]


def small(optimizer="sgd", lrs=(0.01, 0.05), **more):
    shared = dict(train_size=100, batch_size=50, epochs=2)
    return sweep.grid(optimizer, lrs, [0.9], [0.0, 0.05], **(shared | more))


# ------------------------------------------------------------ help


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)], ids=str)
def test_help_fits_a_terminal(command):
    said, _ = call(*command, "--help")
    lines = said.splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert len(lines) < 75
    assert "…" not in said
    if command in (["sweep"], ["plan"]):
        for name in sweep.PARAMETERS:
            assert f"--{name.replace('_', '-')} " in said


def test_help_does_not_wait_for_torch():
    heavy = {"torch", "pandas", "pyarrow", "distributed", "papermill"}
    program = f"import sys, ncbook.cli.commands; print({heavy!r} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "set()\n"


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None  # to import it is an error
from ncbook.cli import main
main()
"""


def call_without_torch(*arguments, cwd):
    program = [sys.executable, "-c", WITHOUT_TORCH, *arguments]
    done = subprocess.run(program, cwd=cwd, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr.splitlines()


def test_ctrl_c_while_a_command_imports_torch_is_one_line(tmp_path):
    (tmp_path / "torch.py").write_text("import signal; signal.raise_signal(signal.SIGINT)")
    command = [sys.executable, "-m", "ncbook.cli", "plan"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    first = f"ncbook: reading the store {tmp_path}/results ..."
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr.splitlines() == [first, "ncbook: stopped"]


def test_what_is_stored_is_told_without_torch(tmp_path):
    store.write("results", stored_as(small()))
    first = f"ncbook: reading the store {tmp_path}/results ..."
    code, said, error = call_without_torch("status", "--seeds", "0-2", cwd=tmp_path)
    assert (code, error) == (0, [first])
    assert "digits mlp sgd, 2 epochs     4" in said
    assert call_without_torch("export", "out", cwd=tmp_path) == (
        0,
        "4 runs in out.parquet and out.csv\n",
        [first],
    )


def test_the_store_is_named_and_a_wrong_value_refused_before_torch_is_imported(tmp_path):
    first = f"ncbook: reading the store {tmp_path}/results ..."
    for command in ("sweep", "plan"):
        _, _, error = call_without_torch(command, cwd=tmp_path)
        assert (error[0], error[-1].split(":")[0]) == (first, "ModuleNotFoundError")
        assert call_without_torch(command, "--epochs", "many", cwd=tmp_path) == (
            2,
            "",
            ["ncbook: epochs must be a whole number of at least 1, got 'many'"],
        )


@pytest.mark.parametrize("command", COMMANDS)
def test_the_example_of_a_commands_help_runs(command, notebooks, monkeypatch):
    monkeypatch.setattr(sweep, "estimate_seconds", lambda *_: 100.0)
    store.write("results", stored_as(small("adam")))
    (example,) = re.findall(r"Example: `ncbook (.*)`", getattr(commands, command).__doc__)
    assert example in " ".join(call(command, "--help")[0].split())
    said, _ = call(*example.split())
    assert "adam" in said


def test_the_program_and_the_module_are_the_same():
    program = Path(sys.executable).parent / "ncbook"
    for command in ([str(program)], [sys.executable, "-m", "ncbook.cli"]):
        done = subprocess.run([*command, "--version"], capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, f"ncbook {__version__}\n")


# ------------------------------------------------------------ bad input

# One of each way: test_parameters and test_sweep have the others.
BAD_OF_RUNS = {
    "--optimizer sgd,adamv": "unknown optimizer 'adamv'; valid: sgd, sgdw, adam, adamw, signum,",
    "--dataset digits,mnits": "unknown dataset 'mnits'; valid: digits, gaussians,",
    "--model mlp,resnet": "unknown model 'resnet'; valid: mlp,",
    "--lrs 0.01,x": "lrs must be finite numbers > 0, got 'x'",
    "--lrs 0.01,-1": "lrs must be a finite number > 0, got -1",
    "--seeds=-1": "seeds must be a whole number of at least 0, got -1",
    "--seeds 4-0": "seeds must be whole numbers of at least 0, or rising ranges such as 0-4 of at ",
    "--epochs 2.5": "epochs must be a whole number of at least 1, got '2.5'",
    "--precision half": "unknown precision 'half'; valid: float32, ",
    "--depth 100000000": "depth must be at most 1000, got 100000000",
}
BAD = BAD_OF_RUNS | {
    "--width 1e9": "width 1e+09 is too large for any memory",
    "--width 3000": "9 x mlp (width 3000) on digits need ",
    "--device cuda:7": "unknown device 'cuda:7'; valid here: cpu",
    "--scheduler nonsense": "no Dask scheduler answers at 'nonsense'; valid: the address",
    "--scheduler tcp://127.0.0.1:1 --workers 2": "workers must be empty where a scheduler has its",
}


@pytest.mark.parametrize("options", BAD)
def test_bad_input_is_one_line_and_nothing_is_made(tmp_path, options):
    others = ("status", "export x") if options in BAD_OF_RUNS else ()
    for command in ("sweep", "plan", *others):
        said, error = call(*command.split(), *options.split(), code=2)
        assert said == ""
        assert error.startswith(f"ncbook: {BAD[options]}")
        assert error.count("\n") == 1
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("empty", ["", " ", "[]", ","])
def test_an_option_without_a_value_is_refused(tmp_path, empty):
    for command, name in {
        "sweep": "optimizer",
        "sweep --epochs 3": "scheduler",
        "plan": "weight-decays",
        "status": "results",
        "export x": "status",
    }.items():
        said, error = call(*command.split(), f"--{name}={empty}", code=2)
        assert said == ""
        name = name.replace("-", "_")
        assert error == f"ncbook: {name} is empty: give it a value, or leave it out\n"
        assert list(tmp_path.iterdir()) == []
    assert call("export", empty, code=2) == ("", "ncbook: out is empty: give it a value\n")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("sweeep", "No such command 'sweeep'. Did you mean 'sweep'?"),
        (
            "sweep --optimzer adam",
            "No such option: --optimzer (Possible options: --head-optimizer, --optimizer)",
        ),
        ("status --epochs", "Option '--epochs' requires an argument."),
        ("plan adam", "Got unexpected extra argument(s) (adam)"),
        ("export", "Missing argument 'OUT'."),
    ],
)
def test_a_wrong_word_is_told_in_one_line(words, why):
    said, error = call(*words.split(), code=2)
    assert (said, error) == ("", f"ncbook: {why} (see ncbook --help)\n")


@pytest.mark.parametrize("command", ["sweep", "plan", "status", "export x"])
def test_a_file_is_no_store(tmp_path, command):
    (tmp_path / "runs.csv").write_text("a\n1\n")
    said, error = call(*command.split(), "--results", "runs.csv", code=2)
    assert said == ""
    assert error == f"ncbook: the results folder {tmp_path / 'runs.csv'} is not a folder\n"
    assert [path.name for path in tmp_path.iterdir()] == ["runs.csv"]


def test_all_blocks_are_checked_before_the_first_begins(tmp_path, monkeypatch):
    monkeypatch.setenv("NCBOOK_DATA", str(tmp_path / "data"))
    folder = tmp_path / "pictures"
    for split in ("train", "test"):
        (folder / split / "a").mkdir(parents=True)
    arguments = ["--dataset", f"digits,folder:{folder}", "--model", "resnet9", "--results", "r"]
    _, error = call("sweep", *arguments, code=2)
    assert str(folder) in error
    assert error.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"pictures"}


def test_runs_of_a_folder_that_changes_meanwhile_are_left_and_so_said(tmp_path, monkeypatch):
    picture = write_images(tmp_path / "x") / "train" / "cat" / "0.bmp"
    monkeypatch.setattr(sweeping.notebook, "execute", lambda *_: picture.unlink(missing_ok=True))
    monkeypatch.setattr(sweeping, "_workers", lambda *_: nullcontext(({}, {})))
    chosen = ("--lrs", "0.01", "--momenta", "0.9", "--batch-size", "4")
    said, _ = call("sweep", "--dataset", "folder:x/", *chosen, "--json", code=1)
    (block,) = json.loads(said)["blocks"]
    assert block["dataset"] == "folder:x"
    assert block["error"] == (
        "the notebook ended, but they are not in the store (have the data changed?)"
    )
    assert block["left"] == block["wanted"] == 6


def test_hidden_files_in_a_folder_are_said_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(sweeping, "estimate", lambda *_: {})
    write_images(tmp_path / "x")
    (tmp_path / "x" / "train" / "cat" / "@eaDir").mkdir()
    chosen = ("--lrs", "0.01", "--momenta", "0.9", "--batch-size", "4")
    _, error = call("plan", "--dataset", "folder:x", "--optimizer", "sgd,adam", *chosen)
    assert error.splitlines() == [
        "ncbook: warning: folder:x: left out, as hidden, system or linked: 1, such as "
        "train/cat/@eaDir"
    ]


def test_a_file_in_place_of_the_notebooks_folder_is_named(tmp_path):
    (tmp_path / "mine").write_text("mine")
    _, error = call("sweep", *GRID, "--notebooks", "mine", code=2)
    assert error == f"ncbook: the notebooks folder {tmp_path}/mine is a file\n"
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("option", ["--results", "--notebooks"])
def test_a_folder_that_cannot_be_made_is_one_line(tmp_path, option):
    (tmp_path / "file").touch()
    _, error = call("sweep", *GRID, option, tmp_path / "file" / "folder", code=2)
    assert error.startswith("ncbook: ")
    assert f"{tmp_path}/file/folder" in error
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def full_disk(monkeypatch):
    def refuse(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    full_disk(monkeypatch)
    _, error = call("sweep", *GRID, code=2)
    folder = tmp_path / "results"
    assert error == (
        f"ncbook: the results folder {folder} cannot be written (No space left on device)\n"
    )
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_without_its_notebook_the_package_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(notebook, "SOURCE", tmp_path / "sweep.ipynb")
    _, error = call("sweep", *GRID, code=2)
    assert error.startswith(f"ncbook: no notebook {tmp_path}/sweep.ipynb: install ncbook from")


# ------------------------------------------------------------ blocks


def asked(*options):
    names = [option.removeprefix("--").replace("-", "_") for option in options[::2]]
    return blocks.read(dict(zip(names, options[1::2], strict=True)))


def test_a_block_is_a_data_set_model_optimizer_and_learning_rate():
    found = asked("--optimizer", "all", "--dataset", "digits,gaussians", "--lrs", "0.1,0.2,0.1")
    names = [tuple(block.names.values()) for block in found.blocks]
    assert names == [
        (dataset, "mlp", optimizer, lr)
        for dataset in ("digits", "gaussians")
        for optimizer in sweep.GRIDS
        for lr in (0.1, 0.2)
    ]
    assert {len(block.runs) for block in found.blocks} == {36}


def test_the_notebook_makes_the_runs_of_its_block():
    options = dict.fromkeys(sweep.PARAMETERS)
    options |= dict(optimizer="adam,adam_mixed", seeds="0,3", width="1/8", schedule="cosine")
    options |= dict(augment=False, momenta="0.5, 0.9", log_epochs="0,7", deterministic=True)
    for block in blocks.read(options).blocks:
        request = sweep.read(block.parameters)
        assert {sweep.run_id(config) for config in request.configs} == block.runs.keys()
        assert (request.log_epochs, request.deterministic) == ((0, 7), True)


def test_executed_notebooks_have_names_of_their_own():
    found = [
        *asked("--optimizer", "all").blocks,
        *asked("--optimizer", "all", "--epochs", "3").blocks,
    ]
    names = {sweeping._file_name(block) for block in found}
    assert len(names) == 36
    assert all(re.fullmatch(r"[\w.-]+\.ipynb", name) for name in names)


# ------------------------------------------------------------ plan


def test_a_plan_counts_and_estimates_and_writes_nothing(tmp_path):
    said, error = call("plan", *GRID, "--results", "new", "--json")
    answer = json.loads(said)
    assert error.splitlines() == [
        f"ncbook: timing a few steps of digits mlp {name} 0.01 ..." for name in ("sgd", "adamw")
    ]
    assert [(b["optimizer"], b["lr"]) for b in answer["blocks"]] == BLOCKS
    assert {(b["wanted"], b["stored"], b["to_train"]) for b in answer["blocks"]} == {(2, 0, 2)}
    assert answer["total"]["to_train"] == 8
    assert answer["total"]["seconds"] > sum(b["seconds"] for b in answer["blocks"]) > 0
    assert answer["device"] == "cpu"
    assert list(tmp_path.iterdir()) == []


def test_a_plan_leaves_out_what_is_stored(tmp_path, monkeypatch):
    sgd = small()
    store.write("results", stored_as(sgd[:2]) + stored_as(sgd[2:3], "diverged"))
    timed = []

    def estimate(configs, *place):
        timed.append(configs)
        return sweeping.START_SECONDS + 100.0 * len(configs)

    monkeypatch.setattr(sweep, "estimate_seconds", estimate)
    said, _ = call("plan", *GRID, "--optimizer", "sgd,sgdw,adam", "--json")
    answer = json.loads(said)
    left = [(b["optimizer"], b["lr"], b["to_train"]) for b in answer["blocks"]]
    assert left[:3] == [("sgd", 0.01, 0), ("sgd", 0.05, 1), ("sgdw", 0.01, 2)]
    assert answer["blocks"][0]["seconds"] == 0
    assert answer["blocks"][1]["seconds"] == sweeping.NOTEBOOK_SECONDS + 100
    assert [configs[0].directions[0] for configs in timed] == ["sgd", "adam"]  # one timing each
    assert answer["total"] == {
        "wanted": 12,
        "stored": 3,
        "to_train": 9,
        "seconds": sweeping.START_SECONDS + 5 * sweeping.NOTEBOOK_SECONDS + 900,
        "time": "16 minutes",
    }


def test_a_plan_is_a_table_of_80_columns(monkeypatch):
    monkeypatch.setattr(sweep, "estimate_seconds", lambda *_: 1e5)
    said, _ = call("plan", "--optimizer", "all")
    lines = said.splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert "digits mlp signumw 0.005" in said
    assert lines[-1].endswith("Nothing was trained.")
    assert len(lines) < 6 * 3 + 10


# ------------------------------------------------------------ tables


def test_no_row_is_broken_and_the_ends_of_long_names_are_kept(capsys):
    names = {"model": "resnet9", "optimizer": "sgd", "lr": 0.01}
    names["dataset"] = "folder:a-data-set-with-a-name-that-no-table-of-80-columns-can-hold"
    row = names | dict(zip(sweeping.COLUMNS, (10**6 - 2, 0, 0, 0, 0, 5.4), strict=True))
    ones = dict.fromkeys(sweeping.COLUMNS, 1)
    show.blocks({"blocks": [row, names | ones, names | ones]}, sweeping.COLUMNS, as_json=False)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert len(lines) == 6
    assert max(map(len, lines)) <= WIDTH
    assert all(line.split()[-8:-6] == ["sgd", "0.01"] for line in lines[2:5])
    assert lines[-1].split() == ["all", "1000000", "2", "2", "2", "2", "7"]


def test_a_table_in_a_narrow_terminal_keeps_the_ends_of_its_labels(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    store.write("results", stored_as(small()))
    lines = call("status")[0].splitlines()
    assert lines[2].split()[:3] == ["…p", "sgd,", "2"]
    assert len({len(line) for line in lines}) == 1


# ------------------------------------------------------------ status


def status_of(*options):
    said, error = call("status", *options, "--json")
    answer = json.loads(said)
    more = {2: "", 200: ""}  # a small run's epochs, and the default
    names = [
        b["optimizer"] + more.get(b["epochs"], f", {b['epochs']} epochs") for b in answer["blocks"]
    ]
    return dict(zip(names, answer["blocks"], strict=True)), error


@pytest.mark.parametrize("made", [True, False], ids=["empty", "missing"])
def test_status_of_a_store_without_runs(tmp_path, made):
    if made:
        store.ensure_writable("results")
    what = "are no such runs in" if made else "is no folder"
    assert call("status") == (f"There {what} {tmp_path}/results.\n", "")
    assert json.loads(call("status", "--json")[0])["blocks"] == []
    assert status_of("--optimizer", "sgd")[0]["sgd"]["left"] == 108
    assert (tmp_path / "results").exists() == made


def test_status_counts_by_block_and_with_a_grid_what_is_left():
    sgd, adamw, other = small(), small("adamw"), small(epochs=7)
    store.write("results", stored_as(sgd[:1]) + stored_as(sgd[1:2], "diverged"))
    store.write("results", stored_as(sgd[2:3], "failed") + stored_as(other))
    running = {sweep.run_id(config): asdict(config) for config in adamw[:3]}
    with leases.taken("results", running):
        found, error = status_of()
        assert error == ""
        assert list(found) == ["adamw", "sgd", "sgd, 7 epochs"]
        counts = [(b["done"], b["diverged"], b["failed"], b["running"]) for b in found.values()]
        assert counts == [(0, 0, 0, 3), (1, 1, 1, 0), (4, 0, 0, 0)]
        found, _ = status_of(*GRID)
        assert (found["sgd"]["done"], found["sgd"]["left"]) == (1, 1)
        assert (found["adamw"]["running"], found["adamw"]["left"]) == (3, 4)
        said, _ = call("status", *GRID)
        assert "4 other runs are stored" in said
    assert status_of()[0].keys() == {"sgd", "sgd, 7 epochs"}
    said, _ = call("status")
    assert [line.split("  ")[0] for line in said.splitlines()[2:]] == [
        *("digits mlp sgd, 2 epochs", "digits mlp sgd, 7 epochs", "all")
    ]


def test_status_of_a_run_whose_owner_says_nothing_of_it():
    with leases.taken("results", {"a": {}}):
        (block,) = json.loads(call("status", "--json")[0])["blocks"]
        assert [block[name] for name in ("dataset", "epochs", "running")] == ["?", "?", 1]
        assert "? ? ?, ? epochs" in call("status")[0]


@pytest.mark.parametrize(
    ("options", "done", "running"),
    [
        ("--lrs 0.01", 2, 1),
        ("--seeds 0-2", 4, 2),
        ("--seeds 1-2", 0, 0),
        ("--epochs 1,2", 4, 2),
        ("--weight-decays 0,0.05 --momenta 0.9 --lrs 0.05", 2, 1),
        ("--dataset mnist", 0, 0),
        ("--dataset folder:/gone", 0, 0),
        ("--train-size 100 --width 1/1 --schedule step", 4, 2),
        ("--depth 3", 0, 0),
    ],
)
def test_status_of_chosen_runs(options, done, running):
    adamw = small("adamw")[::2]
    store.write("results", stored_as(small()))
    configs = {sweep.run_id(config): asdict(config) for config in adamw}
    with leases.taken("results", configs):
        found, _ = status_of(*options.split())
    assert sum(b["done"] for b in found.values()) == done
    assert sum(b["running"] for b in found.values()) == running


def test_a_run_that_has_just_been_stored_is_not_running():
    (config, *_) = small()
    store.write("results", stored_as([config]))
    name = sweep.run_id(config)
    with leases.taken("results", {name: asdict(config)}):
        assert status_of()[0]["sgd"]["running"] == 0


def test_status_names_damaged_files_once_and_goes_on(tmp_path):
    store.write("results", stored_as(small()))
    file = store.write("results", stored_as(small("adamw")))
    file.write_bytes(file.read_bytes()[:100])
    found, error = status_of(*GRID)
    assert (found["sgd"]["done"], found["adamw"]["left"]) == (4, 4)
    assert error == (
        f"ncbook: warning: {tmp_path}/results/runs/{file.name}: damaged, its runs are left out\n"
    )


# ------------------------------------------------------------ export


def test_an_export_is_the_chosen_runs_as_parquet_and_csv(tmp_path):
    store.write("results", stored_as(small()) + stored_as(small("adamw", [0.05]), "diverged"))
    said, _ = call("export", "new/", "--lrs", "0.05")
    assert said == "4 runs in new/runs.parquet and runs.csv\n"
    tables = [pd.read_parquet("new/runs.parquet"), pd.read_csv("new/runs.csv")]
    for table in tables:
        assert sorted(table["optimizer"]) == ["adamw", "adamw", "sgd", "sgd"]
        assert set(table["lr"]) == {0.05}
    call("export", "bad.v2", "--status", "diverged")
    call("export", "some.csv", "--optimizer", "sgd", "--weight-decays", "0")
    assert sorted(path.name for path in tmp_path.glob("*.*")) == [
        *("bad.v2.csv", "bad.v2.parquet", "some.csv", "some.parquet")
    ]
    assert set(pd.read_csv("bad.v2.csv")["status"]) == {"diverged"}
    assert len(pd.read_csv("some.csv")) == 2


def test_an_export_replaces_nothing_unless_forced(tmp_path):
    store.write("results", stored_as(small()))
    (tmp_path / "out.csv").write_text("mine")
    _, error = call("export", "out", code=2)
    assert error == "ncbook: out.csv is there already: --force replaces it\n"
    assert not (tmp_path / "out.parquet").exists()
    assert (tmp_path / "out.csv").read_text() == "mine"
    call("export", "out", "--force")
    assert len(pd.read_csv("out.csv")) == 4


def test_an_export_of_which_one_file_cannot_be_written_says_which(tmp_path):
    store.write("results", stored_as(small()))
    (tmp_path / "out.csv").mkdir()
    _, error = call("export", "out", "--force", code=2)
    assert error == "ncbook: out.csv cannot be written (Is a directory)\n"
    assert len(pd.read_parquet("out.parquet")) == 4
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.csv", "out.parquet", "results"]


def test_an_export_of_nothing_is_refused_and_makes_nothing(tmp_path):
    store.write("results", stored_as(small()))
    _, error = call("export", "new/", "--lrs", "0.3", code=2)
    assert error == "ncbook: no run in results has lr=[0.3]\n"
    _, error = call("export", "new/", "--status", "lost", code=2)
    assert error == "ncbook: unknown status 'lost'; valid: ok, diverged, failed\n"
    assert [path.name for path in tmp_path.iterdir()] == ["results"]


def test_an_export_to_a_full_disk_is_one_line(tmp_path, monkeypatch):
    store.write("results", stored_as(small()))
    full_disk(monkeypatch)
    _, error = call("export", "out", code=2)
    assert error == "ncbook: out.parquet cannot be written (No space left on device)\n"
    assert [path.name for path in tmp_path.iterdir()] == ["results"]


# ------------------------------------------------------------ a sweep, its notebooks replaced


@pytest.fixture
def notebooks(monkeypatch):
    """Executions: each is told what to do instead, and what it was asked is kept."""
    asked_for, answers = [], []

    def execute(parameters, output, environment, while_it_runs):
        asked_for.append(parameters)
        while_it_runs()
        answer = answers.pop(0) if answers else train
        failure = answer(sweep.read(parameters | {"scheduler": ""}))
        while_it_runs()
        return failure

    @contextlib.contextmanager
    def local(workers, device):
        class Client:
            security = Security()

            class scheduler:
                address = "tls://127.0.0.1:1"

        yield Client

    monkeypatch.setattr(notebook, "execute", execute)
    monkeypatch.setattr(cluster, "local", local)
    execute.asked_for, execute.answers = asked_for, answers
    return execute


def train(request):
    have = store.statuses(request.results).keys()
    lacking = [c for c in request.configs if sweep.run_id(c) not in have]
    store.write(request.results, stored_as(lacking))


def train_one_and_fail(request, reason=notebook.DIED):
    store.write(request.results, stored_as(request.configs[:1]))
    return reason


def report_of(*options, code=0):
    said, error = call("sweep", *options, "--json", code=code)
    return json.loads(said)["blocks"], error


def test_a_sweep_executes_a_notebook_for_each_block_that_lacks_runs(tmp_path, notebooks):
    sgd = small()
    store.write("results", stored_as(sgd[:2]) + stored_as(sgd[2:3]))
    report, error = report_of(*GRID)
    assert [(b["optimizer"], b["lr"]) for b in report] == BLOCKS
    assert [(b["stored"], b["trained"]) for b in report] == [(2, 0), (1, 1), (0, 2), (0, 2)]
    assert [b["tries"] for b in report] == [0, 1, 1, 1]
    asked_for = [(p["optimizer"], p["lrs"]) for p in notebooks.asked_for]
    assert asked_for == [("sgd", [0.05]), ("adamw", [0.01]), ("adamw", [0.05])]
    assert {(p["scheduler"], p["device"]) for p in notebooks.asked_for} == {
        ("tls://127.0.0.1:1", "cpu")
    }
    assert {p["results"] for p in notebooks.asked_for} == {str(tmp_path / "results")}
    assert re.sub(r"\d+ s$", "0 s", error, flags=re.MULTILINE).splitlines() == [
        "ncbook: 1 of 4 blocks are stored already: skipped",
        "ncbook: to train: 5 runs; notebooks to execute: 3",
        "[1/3] digits mlp sgd 0.05: 1 trained, 1 stored already, 0 diverged, 0 failed, 0 s",
        "[2/3] digits mlp adamw 0.01: 2 trained, 0 stored already, 0 diverged, 0 failed, 0 s",
        "[3/3] digits mlp adamw 0.05: 2 trained, 0 stored already, 0 diverged, 0 failed, 0 s",
    ]


def test_a_sweep_with_nothing_to_do_starts_nothing(tmp_path, notebooks, monkeypatch):
    store.write("results", stored_as(small()) + stored_as(small("adamw"), "diverged"))
    monkeypatch.setattr(cluster, "local", None)
    report, error = report_of(*GRID)
    assert error == "ncbook: 4 of 4 blocks are stored already: skipped\n"
    assert {b["tries"] for b in report} == {0}
    assert notebooks.asked_for == []


@pytest.mark.parametrize("kind", ["xterm", "dumb"])
def test_a_terminal_shows_a_bar_and_one_that_cannot_a_line_a_block(kind, notebooks, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("TERM", kind)
    monkeypatch.setattr(sys, "stderr", Terminal())
    options = dict.fromkeys(sweep.PARAMETERS) | dict(optimizer="sgd", lrs="0.01", momenta="0.9")
    assert sweeping.train_blocks(options, None, as_json=False)
    said = sys.stderr.getvalue()
    lines = [line for line in said.splitlines() if line.startswith("[1/1] digits mlp sgd 0.01: 6")]
    assert ("\r" in said, len(lines)) == ((True, 0) if kind == "xterm" else (False, 1))


def test_a_sweep_ends_with_a_table_and_says_where_all_is(notebooks, tmp_path):
    def diverge(request):
        store.write(request.results, stored_as(request.configs[:1], "diverged"))
        store.write(request.results, stored_as(request.configs[1:], "failed"))

    notebooks.answers.append(diverge)
    said, _ = call("sweep", *GRID)
    lines = [line.split() for line in said.splitlines() if line.strip()]
    assert lines[0] == ["block", *sweeping.COLUMNS]
    *first, _seconds = lines[2]
    assert " ".join(first) == "digits mlp sgd 0.01 1 0 1 1 0"
    assert " ".join(lines[-2][:-1]) == "all 7 0 1 1 0"
    assert max(map(len, said.splitlines()[:-1])) <= WIDTH
    results = tmp_path / "results"
    assert said.splitlines()[-1] == f"Runs: {results}; executed notebooks: {results}/notebooks"
    assert call("sweep", *GRID)[0].splitlines()[-1] == f"Runs: {results}"


@pytest.mark.parametrize("reason", [notebook.DIED, "SweepError: begin again, and it goes on"])
def test_a_notebook_that_always_fails_is_reported_and_the_rest_completes(
    tmp_path, notebooks, reason
):
    notebooks.answers += [partial(train_one_and_fail, reason=reason)] * 4
    report, error = report_of(*GRID, "--notebooks", "kept", code=1)
    assert [(b["tries"], b["trained"], b["left"]) for b in report] == [(4, 1, 1)] + [(1, 2, 0)] * 3
    path = report[0]["notebook"]
    assert Path(path).parent == tmp_path / "kept"
    assert error.count("trying again") == 3
    assert (
        f"[1/4] digits mlp sgd 0.01: failed at try 4, 1 of 2 runs are left: {reason}; see {path}"
    ) in error.splitlines()


@pytest.mark.parametrize("name", ["ValueError", "ParameterError"])
def test_what_a_notebook_would_say_again_is_not_tried_again(notebooks, name):
    notebooks.answers.append(lambda r: train_one_and_fail(r, f"{name}: no"))
    report, error = report_of(*GRID, code=1)
    assert [b["tries"] for b in report] == [1, 1, 1, 1]
    assert f"failed at try 1, 1 of 2 runs are left: {name}: no; see" in error


def test_the_table_counts_what_a_failed_notebook_left(notebooks):
    notebooks.answers.append(lambda r: train_one_and_fail(r, "ValueError: no"))
    said, _ = call("sweep", *GRID, code=1)
    assert [line.split()[4:-1] for line in said.splitlines()[2:4]] == [list("10001"), list("20000")]


def test_a_disk_that_fills_up_stops_the_sweep_in_one_line(tmp_path, notebooks, monkeypatch):
    def fill_up(request):
        full_disk(monkeypatch)
        return "SweepError: the results folder cannot be written"

    notebooks.answers += [train, fill_up]
    report, error = report_of(*GRID, code=1)
    assert [(b["optimizer"], b["lr"]) for b in report] == BLOCKS[:1]
    assert error.splitlines()[-1] == (
        f"ncbook: the results folder {tmp_path}/results cannot be written (No space left on "
        "device); all that ended is stored, and the same command goes on from there"
    )
    assert len(notebooks.asked_for) == 2


def test_a_scheduler_that_goes_away_stops_the_sweep_in_one_line(notebooks, monkeypatch):
    monkeypatch.setattr("ncbook.sweep.request.scheduler_workers", lambda address: (2, 0))

    def gone(address):
        raise sweep.SweepError(f"no Dask scheduler answers at {address!r}")

    monkeypatch.setattr(sweep, "scheduler_workers", gone)
    notebooks.answers.append(train_one_and_fail)
    report, error = report_of(*GRID, "--scheduler", "tcp://somewhere:1", code=1)
    assert report == []
    assert notebooks.asked_for[0]["scheduler"] == "tcp://somewhere:1"
    assert "\nncbook: no Dask scheduler answers at 'tcp://somewhere:1'; all that" in error
    notebooks.answers.append(train_one_and_fail)
    assert "all" in call("sweep", *GRID, "--scheduler", "tcp://somewhere:1", code=1)[0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_is_one_line_and_a_second_is_ignored(notebooks, number):
    def interrupt(request):
        signal.raise_signal(number)

    notebooks.answers.append(interrupt)
    said, error = call("sweep", *GRID, "--json", code=130)
    assert said == ""
    assert error.splitlines() == ["ncbook: to train: 8 runs; notebooks to execute: 4", STOPPED]
    signal.raise_signal(number)


def test_a_damaged_file_is_set_aside_and_its_runs_are_trained_again(tmp_path, notebooks):
    file = store.write("results", stored_as(small(lrs=[0.01])))
    file.write_bytes(file.read_bytes()[:100])
    report, error = report_of(*SMALL, "--optimizer", "sgd", "--lrs", "0.01", "--epochs", "2")
    assert report[0]["trained"] == 2
    assert f"{file.name}: damaged, set aside; its runs will be trained again" in error
    assert file.with_name(f"{file.name}.damaged").exists()


# ------------------------------------------------------------ a sweep, as it is

LONG = [*SMALL, "--optimizer", "sgd", "--lrs", "0.01", "--workers", "1", "--results", "r"]
SHORT = [*LONG, "--epochs", "2"]
FOREVER = [*LONG, "--epochs", str(10**6)]


@contextlib.contextmanager
def started(*arguments, cwd=None):
    """ncbook in a process group of its own, as a terminal starts it."""
    command = [sys.executable, "-m", "ncbook.cli", *map(str, arguments)]
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with subprocess.Popen(command, cwd=cwd, start_new_session=True, **pipes) as process:
        try:
            yield process
        finally:
            process.kill()  # all others end with it


def kernels(process):
    """Those that it has started."""
    return [child for child in family(process.pid) if has_in_command(child, "ipykernel_launcher")]


def besides_progress(error):
    """The lines other than those that say what a sweep is about to do: a stop may come first."""
    begun = ("ncbook: reading the store ", "ncbook: to train: ")
    return [line for line in error.splitlines() if not line.startswith(begun)]


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A small sweep whose first kernel was killed: its report, what it said, and its results."""
    folder = tmp_path_factory.mktemp("swept")
    results = folder / "r"
    ours = sweep.run_id(small(lrs=[0.01])[0])  # as long as we hold its lease, the sweep goes on
    with started("sweep", *SHORT, "--json", cwd=folder) as process:
        with leases.taken(results, {ours: {}}):
            wait_until(lambda: len(leases.running(results)) == 2 or store.statuses(results).keys())
            (kernel,) = kernels(process)
            kernel.kill()
        said, error = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, error
    return json.loads(said)["blocks"], error, results


def test_a_killed_kernel_is_replaced_and_no_run_is_trained_twice(swept):
    (block,), error, results = swept
    assert (block["tries"], block["trained"], block["left"]) == (2, 2, 0)
    *_, first, last = error.splitlines()
    assert first.endswith("its kernel died (killed, or out of memory?); trying again (1 of 3)")
    assert last.startswith("[1/1] digits mlp sgd 0.01: 2 trained, 0 stored already")
    assert list(rows_in_files(results).values()) == [1, 1]


def test_a_sweep_stores_what_its_runs_are_in_this_process(swept, tmp_path):
    sweep.run(small(lrs=[0.01]), tmp_path / "here", workers=1, progress=False)
    assert_same_rows(swept[2], tmp_path / "here", LAST_BITS)


def test_a_sweep_keeps_its_executed_notebooks_and_leaves_nothing_else(swept):
    (block,), _, results = swept
    assert {path.name for path in results.iterdir()} == {"runs", "notebooks", "leases"}
    assert list((results / "leases").iterdir()) == []
    kept = Path(block["notebook"])
    assert list((results / "notebooks").iterdir()) == [kept]
    cells = nbformat.read(kept, as_version=4).cells
    words = [str(out) for cell in cells for out in cell.get("outputs", ())]
    assert any("Trained " in text for text in words)
    assert not any("'stderr'" in text or "'error'" in text for text in words)


@contextlib.contextmanager
def training_forever(folder):
    """A sweep that is at work, and all processes below it."""
    with started("sweep", *FOREVER) as process:
        wait_until(lambda: leases.running(folder / "r"))
        (kernel,) = kernels(process)
        (found,) = status_of("--results", "r")[0].values()
        assert found["running"] > 0
        words = kernel.cmdline()
        connection = Path(words[words.index("-f") + 1])  # with the key to run code in it
        assert stat.S_IMODE(connection.stat().st_mode) == 0o600
        yield process, family(process.pid)


def test_ctrl_c_ends_all_processes_and_the_sweep_goes_on_later(tmp_path):
    with training_forever(tmp_path) as (process, processes):
        assert len(processes) >= 2
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
        wait_until(lambda: len(family(process.pid)) < len(processes))
        os.killpg(process.pid, signal.SIGINT)  # an impatient user
        said, error = process.communicate(timeout=SECONDS)
    assert (process.returncode, said) == (130, "")
    assert besides_progress(error) == [STOPPED]
    assert left_over(processes) == []
    assert leases.running(tmp_path / "r") == {}
    assert list((tmp_path / "r" / "notebooks").iterdir()) == []  # no unfinished one


@pytest.mark.slow
def test_kernels_and_workers_end_with_a_killed_sweep(tmp_path):
    with training_forever(tmp_path) as (process, processes):
        process.kill()
        process.communicate()
    assert left_over(processes) == []
    assert leases.running(tmp_path / "r").keys() == set()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_while_the_workers_start_is_one_line(number):
    with started("sweep", *FOREVER) as process:
        wait_until(lambda: len(family(process.pid)) >= 2)
        processes = family(process.pid)
        os.killpg(process.pid, number)
        _, error = process.communicate(timeout=SECONDS)
    assert (process.returncode, besides_progress(error)) == (130, [STOPPED])
    assert left_over(processes) == []
