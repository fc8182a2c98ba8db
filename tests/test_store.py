import contextlib
import datetime
import errno
import itertools
import math
import os
import shutil
import signal
import stat
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import noticed
from sweeps import without_locks

from ncbook import metrics, store
from ncbook.store import leases, reading, tables, writing

SETTINGS = dict(dataset="digits", model="mlp", optimizer="adam", lr=0.001, momentum=0.9)
SETTINGS |= dict(weight_decay=0.0, seed=0, epochs=200)
ENDED = dict(status="ok", train_acc=1.0, test_acc=0.97, nc0=0.5, nc0_init=2.0)


def make_run(name, **columns):
    return {"run_id": name} | SETTINGS | ENDED | columns


def make_history(name, epochs=(0, 100, 200), **columns):
    return [{"run_id": name, "epoch": e, "nc0": 2.0 - e / 200, **columns} for e in epochs]


def contents(results):
    return store.load_runs(results), store.load_history(results)


def assert_same(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        pd.testing.assert_frame_equal(one, other, check_dtype=False, check_like=True)


def files_in(results):
    return sorted((results / "runs").glob("*.parquet"))


def write_one(results, name, **columns):
    return store.write(results, [make_run(name, **columns)], make_history(name))


def leftovers(root):
    """Every file that is not a finished one."""
    return [p for p in root.rglob("*") if p.is_file() and p.suffix != ".parquet"]


# ------------------------------------------------------------ ids and folders


def test_run_id_never_changes():
    # A change of this id would train every stored run again.
    config = {"optimizer": "adam", "lr": 1e-3, "seed": 0, "amsgrad": False, "decay": [0, 5e-4]}
    assert store.run_id(config) == "c415f57250d81bfb"


CONFIG = {"lr": 0.001, "flag": True, "seed": 0}
EQUAL = [
    {"seed": 0, "lr": 0.001, "flag": True},
    CONFIG | {"seed": 0.0},
    {"lr": np.float64(0.001), "flag": np.bool_(True), "seed": np.int64(0)},
    CONFIG | {"seed": -0.0},
]
OTHER = [
    CONFIG | {"flag": 1},
    CONFIG | {"lr": math.nextafter(0.001, 1)},
    CONFIG | {"lr": "0.001"},
    CONFIG | {"seed": None},
    {"lr": 0.001, "flag": True},
]


def test_equal_configs_have_one_id_and_others_another():
    assert {store.run_id(config) for config in EQUAL} == {store.run_id(CONFIG)}
    assert store.run_id(CONFIG) not in {store.run_id(config) for config in OTHER}


@pytest.mark.parametrize("value", [math.nan, {"b": [1, math.inf]}, object()])
def test_run_id_refuses(value):
    with pytest.raises((ValueError, TypeError), match=r"Out of range float|not JSON serializable"):
        store.run_id({"a": value})


def test_results_dir_is_argument_then_variable_then_default(tmp_path, monkeypatch):
    monkeypatch.setenv("NCBOOK_RESULTS", str(tmp_path / "there"))
    assert store.results_dir(tmp_path / "here") == tmp_path / "here"
    assert store.results_dir() == tmp_path / "there"
    write_one(None, "a")
    assert store.statuses(tmp_path / "there").keys() == {"a"}
    monkeypatch.delenv("NCBOOK_RESULTS")
    assert str(store.results_dir()) == "results"


# ------------------------------------------------------------ there and back


def test_what_is_written_is_read(tmp_path):
    run = make_run(
        "a", nc1=math.nan, note="x", resumed=True, nothing=None, nc2=np.float32(0.5), k=np.int64(3)
    )
    path = store.write(tmp_path, [run], make_history("a"))
    assert path.parent == tmp_path / "runs"
    [read] = store.load_runs(tmp_path).to_dict("records")
    for name, value in run.items():
        if name == "nc1":
            assert math.isnan(read[name])
        else:
            assert read[name] == value, name
    history = store.load_history(tmp_path)
    assert history["epoch"].tolist() == [0, 100, 200]
    assert history["nc0"].tolist() == [2.0, 1.5, 1.0]
    assert set(history["optimizer"]) == {"adam"}
    assert not leftovers(tmp_path)


@pytest.mark.parametrize("folder", ["", "missing"])
def test_empty_store_has_the_columns(tmp_path, folder):
    runs = store.load_runs(tmp_path / folder, optimizer="adam")
    assert isinstance(runs, pd.DataFrame)
    assert len(runs) == 0
    assert list(runs.columns) == list(store.RUN_COLUMNS)
    assert len(store.load_history(tmp_path / folder, epoch=3)) == 0
    assert store.statuses(tmp_path / folder).keys() == set()
    assert store.set_aside_damaged(tmp_path / folder) == []
    with pytest.raises(ValueError, match=f"no run in {tmp_path / folder}$"):
        store.export(tmp_path / "out.csv", tmp_path / folder)
    assert list(tmp_path.iterdir()) == []


def test_rows_are_sorted_by_settings(tmp_path):
    write_one(tmp_path, "a", lr=0.01)
    write_one(tmp_path, "b", lr=0.001, seed=1)
    write_one(tmp_path, "c", lr=0.001, seed=0)
    assert store.load_runs(tmp_path)["run_id"].tolist() == ["c", "b", "a"]
    assert store.load_history(tmp_path, epoch=200)["run_id"].tolist() == ["c", "b", "a"]


def test_columns_may_differ_between_files(tmp_path):
    write_one(tmp_path, "a", diverged_epoch=None, note=None, lr=1)
    assert store.load_runs(tmp_path, note="x").empty  # a column of nulls
    write_one(tmp_path, "b", diverged_epoch=7, note="x", nc4=0.9, status="diverged")
    assert store.load_runs(tmp_path, run_id="a")["lr"].dtype == np.float64
    runs = store.load_runs(tmp_path).set_index("run_id")
    assert runs["diverged_epoch"].isna().to_dict() == {"a": True, "b": False}
    assert runs.loc["b", ["diverged_epoch", "note", "nc4"]].tolist() == [7, "x", 0.9]
    assert math.isnan(runs.loc["a", "nc4"])
    assert store.statuses(tmp_path).keys() == {"a", "b"}


UNSOUND = [
    (dict(status="stopped"), "a status other than ok, diverged, failed"),
    (dict(status=None), "a status other than ok, diverged, failed"),
    (dict(nc0=-0.5), "nc0 below 0"),
    (dict(nc3=-1e-9, status="diverged"), "nc3 below 0"),
    (dict(nc1=0.5, nc0=math.nan), "ok without nc0"),
    (dict(nc1=0.5, train_acc=None), "ok without train_acc"),
    (dict(nc1=0.5, nc2=0.1, nc3=math.nan), "ok without nc3"),
    (dict(nc1=0.5, nc2=None, nc3=0.1), "ok without nc2"),
    (dict(nc3=math.inf), "ok with infinite nc3"),
    (dict(train_acc=17.0), "train_acc above 1"),
]


@pytest.mark.parametrize(("columns", "fault"), UNSOUND)
def test_a_row_that_cannot_be_true_is_left_out_and_named(tmp_path, columns, fault):
    file = write_one(tmp_path, "odd", **columns)
    write_one(tmp_path, "sound")
    words = f"{file}: damaged, 1 run is left out, with {fault}: odd"
    for load in (store.load_runs, store.load_history):
        with noticed() as caught:
            assert set(load(tmp_path)["run_id"]) == {"sound"}
        assert caught == [words]
    with noticed(f"{file}: .* to be trained again, with {fault}"):
        assert store.statuses(tmp_path).keys() == {"sound"}  # the other is trained again …

    store.write(tmp_path, [make_run("odd", nc0=0.25)], make_history("odd"))
    with noticed(None):
        assert store.load_runs(tmp_path, run_id="odd")["nc0"].tolist() == [0.25]  # … in its place
        store.compact(tmp_path)
        assert store.load_runs(tmp_path, run_id="odd")["nc0"].tolist() == [0.25]


def test_many_rows_of_one_fault_are_counted_and_some_named(tmp_path):
    store.write(tmp_path, [make_run(f"r{i}", nc0=-1.0) for i in range(5)])
    with noticed(r"5 runs are left out, .*: r0, r1, r2, …$"):
        assert store.load_runs(tmp_path).empty


@pytest.mark.parametrize(
    "columns",
    [
        dict(train_acc=0.1, nc1=0.0, nc2=math.nan, nc3=math.nan),  # where M = 0
        dict(train_acc=0.1, nc1=0.5, nc2=0.1, nc3=math.nan, nc0=0.0),  # where W = 0
        dict(status="diverged", train_acc=math.nan, nc0=math.nan),
        dict(status="failed", reason="lost", train_acc=None, nc0=None),
        dict(train_acc=None, nc0=None),
        dict(train_loss=math.inf, cdnv=math.inf),
    ],
)
def test_what_training_writes_is_sound(tmp_path, columns):
    write_one(tmp_path, "a", **columns)
    assert store.load_runs(tmp_path)["run_id"].tolist() == ["a"]


def test_the_metrics_columns_are_those_that_are_measured():
    runs = {name.removesuffix("_init") for name in store.RUN_COLUMNS if name.endswith("_init")}
    assert runs == set(metrics.KEYS) < set(store.RUN_COLUMNS)


def test_a_run_from_before_a_column_came_has_what_all_runs_had(tmp_path):
    write_one(tmp_path, "old")
    write_one(tmp_path, "new", centred_head=True)
    found = store.load_runs(tmp_path)
    assert dict(zip(found["run_id"], found["centred_head"], strict=True)) == {
        "old": False,
        "new": True,
    }
    assert store.load_runs(tmp_path, centred_head=False)["run_id"].tolist() == ["old"]
    assert store.load_runs(tmp_path, schedule="step")["run_id"].tolist() == ["new", "old"]


@pytest.mark.parametrize("folder", ["runs[1]", "a*b?", "lr=0.5/seed=3", "with space 'quoted'"])
def test_any_folder_name_will_do(tmp_path, folder):
    write_one(tmp_path / "axbx", "a")  # what "a*b?" would match, were it a pattern
    write_one(tmp_path / folder, "a")
    [run] = store.load_runs(tmp_path / folder).to_dict("records")
    assert (run["lr"], run["seed"]) == (0.001, 0)
    assert len(store.load_history(tmp_path / folder)) == 3


@pytest.mark.parametrize(
    ("runs", "named"),
    [
        ([], "must be runs"),
        ([make_run("a"), make_run("a")], r"each once, got \['a', 'a'\]"),
        ([make_run("a", x=1), make_run("b", x="y")], "column 'x' cannot hold its values"),
        ([make_run("a", k=2**63)], "column 'k' cannot hold its values"),
        ([make_run("a", k=2**53 + 1), make_run("b", k=0.5)], "column 'k' cannot hold its values"),
    ],
)
def test_write_refuses(tmp_path, runs, named):
    with pytest.raises(ValueError, match=named) as refused:
        store.write(tmp_path, runs)
    assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------ filters


@pytest.fixture
def grid(tmp_path):
    for optimizer in ("adam", "adamw"):
        cells = [(lr, decay) for lr in (0.001, 0.0679) for decay in (0, 5e-4, 0.5)]
        runs = [
            make_run(f"{optimizer}-{i}", optimizer=optimizer, lr=lr, weight_decay=decay, late=i > 2)
            for i, (lr, decay) in enumerate(cells)
        ]
        history = [row for run in runs for row in make_history(run["run_id"])]
        store.write(tmp_path, runs, history)
    return tmp_path


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        ({}, 12),
        ({"optimizer": None}, 12),
        ({"optimizer": "adamw"}, 6),
        ({"lr": 0.0679}, 6),
        ({"weight_decay": 0}, 4),
        ({"weight_decay": [0, 5e-4]}, 8),
        ({"weight_decay": (5e-4, 0.5), "optimizer": {"adam", "sgd"}}, 4),
        ({"weight_decay": np.array([0.5])}, 4),
        ({"seed": 0.0}, 12),
        ({"seed": np.array(0)}, 12),
        ({"late": True}, 6),
        ({"optimizer": []}, 0),
        ({"optimizer": "adam' OR '1'='1"}, 0),
    ],
)
def test_filters_choose_runs_and_their_history(grid, filters, count):
    runs = store.load_runs(grid, **filters)
    history = store.load_history(grid, **filters)
    assert len(runs) == count
    assert len(history) == 3 * count
    assert len(store.load_history(grid, **filters, epoch=[0, 200])) == 2 * count
    assert set(history["run_id"]) == set(runs["run_id"])


@pytest.mark.parametrize(
    ("filters", "named"),
    [
        ({"optimiser": "adam"}, r"no column 'optimiser' .* run_id, .*optimizer, .*nc0"),
        ({"optimiser": None}, "no column 'optimiser'"),
        ({'lr" = 1 OR "lr': 1}, "no column"),
        ({"lr": "fast"}, "column 'lr' holds values of type double, and cannot be 'fast'"),
        ({"lr": [0.001, "x"]}, "column 'lr' holds values of type double, and cannot be"),
        ({"seed": 0.5}, "column 'seed' holds values of type int64, and cannot be 0.5"),
        ({"seed": 2**70}, "column 'seed' holds values of type int64, and cannot be"),
    ],
)
def test_filters_that_cannot_be(grid, filters, named):
    with pytest.raises(ValueError, match=named):
        store.load_runs(grid, **filters)
    with pytest.raises(ValueError, match=named):
        store.load_history(grid, **filters)


# ------------------------------------------------------------ a run that was written twice


def test_a_run_written_twice_is_there_once(tmp_path):
    first = store.write(
        tmp_path, [make_run("a", seconds=1.0)], make_history("a", epochs=(0, 200), seconds=1.0)
    )
    second = store.write(
        tmp_path,
        [make_run("a", seconds=2.0), make_run("b", seconds=2.0)],
        make_history("a", seconds=2.0) + make_history("b", seconds=2.0),
    )
    runs = store.load_runs(tmp_path).set_index("run_id")
    assert list(runs.index) == ["a", "b"]
    kept = 1.0 if first.name < second.name else 2.0
    assert runs.loc["a", "seconds"] == kept
    history = store.load_history(tmp_path, run_id="a")
    assert set(history["seconds"]) == {kept}
    assert len(history) == (2 if kept == 1.0 else 3)


# ------------------------------------------------------------ crashes and full disks


def fail_from(monkeypatch, name, calls_that_work):
    """Let ``os.NAME`` work so many times, and then raise "no space left on device"."""
    real, done = getattr(os, name), []

    def flaky(*arguments, **options):
        if len(done) == calls_that_work:
            raise OSError(errno.ENOSPC, "No space left on device")
        done.append(1)
        return real(*arguments, **options)

    monkeypatch.setattr(os, name, flaky)


@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_a_failed_write_leaves_the_store_as_it_was(tmp_path, monkeypatch, call):
    write_one(tmp_path, "a", nc0=0.1)
    with monkeypatch.context() as patch:
        fail_from(patch, call, 0)
        with pytest.raises(store.ResultsFolderError, match="No space left"):
            write_one(tmp_path, "a", nc0=0.2)
    assert store.load_runs(tmp_path)["nc0"].tolist() == [0.1]
    assert not leftovers(tmp_path)


@contextlib.contextmanager
def no_folder_sync(monkeypatch, code=errno.EINVAL):
    """A file system that refuses to sync folders, as some network mounts do."""
    real = os.fsync

    def fsync(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(code, os.strerror(code))
        return real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        yield


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_that_cannot_sync_folders(tmp_path, monkeypatch, code):
    with no_folder_sync(monkeypatch, code):
        for name in "ab":
            write_one(tmp_path, name)
        assert store.compact(tmp_path, at_least=2) == 2
        store.export(tmp_path / "out.csv", tmp_path)
    # A disk that breaks is an error.
    with no_folder_sync(monkeypatch, errno.EIO), pytest.raises(OSError, match="Input/output error"):
        write_one(tmp_path, "c")
    assert store.statuses(tmp_path).keys() == {"a", "b", "c"}
    assert not leftovers(tmp_path / "runs")


# ------------------------------------------------------------ damaged files


def zero_before_footer(content, count):
    """A Parquet file ends in its footer, the footer's length in four bytes, and four of magic."""
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    return content[: footer - count] + bytes(count) + content[footer:]


DAMAGE = {
    "truncated": lambda content: content[: len(content) // 2],
    "last byte missing": lambda content: content[:-1],
    "empty": lambda content: b"",
    "garbage": lambda content: b"no Parquet file" * 100,
    "page of a run": lambda content: content[:10] + bytes(20) + content[30:],
    "page of an epoch": lambda content: zero_before_footer(content, 40),
}


@pytest.mark.parametrize(
    "error", [OSError(errno.EMFILE, "Too many open files"), pa.ArrowMemoryError("no room")]
)
def test_a_file_that_cannot_be_read_now_is_not_damaged(tmp_path, monkeypatch, error):
    file = write_one(tmp_path, "sound")

    def refuse(*_arguments, **_options):
        raise error

    monkeypatch.setattr(tables.pq, "ParquetFile", refuse)
    monkeypatch.setattr(tables.pq, "read_table", refuse)
    for read in (store.load_runs, store.statuses, store.set_aside_damaged):
        with pytest.raises(store.ResultsFolderError, match=f"^{file} cannot be read: "):
            read(tmp_path)
    assert file.exists()


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_file_is_named_set_aside_and_written_again(tmp_path, damage):
    file, *_ = [write_one(tmp_path, name) for name in ("broken", "sound", "other")]
    file.write_bytes(DAMAGE[damage](file.read_bytes()))
    kept = file.read_bytes()

    with noticed(f"^{file}: damaged, not compacted"):
        assert store.compact(tmp_path, at_least=2) == 2
    with noticed(f"^{file}: damaged, its runs are left out$"):
        assert set(store.load_history(tmp_path)["run_id"]) == {"sound", "other"}
    assert file.read_bytes() == kept
    with noticed(f"{file}: damaged, set aside"):
        moved = store.set_aside_damaged(tmp_path)
    assert moved == [file.with_name(file.name + ".damaged")]
    assert moved[0].exists()
    assert store.statuses(tmp_path).keys() == {"sound", "other"}
    assert set(store.load_history(tmp_path)["run_id"]) == {"sound", "other"}
    assert store.set_aside_damaged(tmp_path) == []
    write_one(tmp_path, "broken")
    assert set(store.load_history(tmp_path)["run_id"]) == {"sound", "other", "broken"}


ODD = {
    "pipe": os.mkfifo,
    "folder": os.mkdir,
    "loop of links": lambda path: os.symlink(path, path),
    "link to nothing": lambda path: os.symlink(path.with_name("nothing"), path),
    "link to a pipe": lambda path: (os.mkfifo(f"{path}.pipe"), os.symlink(f"{path}.pipe", path)),
}
FOREIGN = {
    "a list": dict(nc0=[[1.0]]),
    "a mapping": dict(seed=[{"a": 1}]),
    "words for numbers": dict(lr=["fast"]),
    "bytes for words": dict(dataset=[b"\xff"]),
    "no text": dict(dataset=pa.array([b"\xff"]).view(pa.string())),
    "times": dict(lr=[datetime.datetime(2026, 1, 1)]),
    "a list of ids": dict(run_id=[["x"]]),
    "no ids": dict(run_id=None),
    "an id that is null": dict(run_id=[None]),
    "an id twice": {name: [value] * 2 for name, value in make_run("x").items()},
    "a history of numbers": dict(history=[1.0]),
    "a history of lists": dict(history=[[1.0]]),
    "a history of words": dict(history=[[{"epoch": "last"}]]),
    "a column of our own": {tables.FILE: ["x"]},
}


def put_foreign(path, columns):
    whole = {name: [value] for name, value in make_run("x").items()} | columns
    table = {name: value for name, value in whole.items() if value is not None}
    pq.write_table(pa.table(table), path)


WEIRD = ODD | {
    name: lambda path, columns=columns: put_foreign(path, columns)
    for name, columns in FOREIGN.items()
}
TWICE = pa.Table.from_arrays([pa.array(["x"])] * 3, ["run_id", "mine", "mine"])
WEIRD["a column twice"] = lambda path: pq.write_table(TWICE, path)


@pytest.mark.parametrize("weird", WEIRD)
def test_what_is_no_file_of_runs_is_named_and_changes_no_other(tmp_path, weird):
    write_one(tmp_path, "sound")
    before = contents(tmp_path)
    path = tmp_path / "runs" / "0.parquet"
    WEIRD[weird](path)
    with noticed() as caught:
        assert_same([store.load_history(tmp_path)], before[1:])
    assert caught == [f"{path}: damaged, its runs are left out"]
    if "history" not in weird:
        with noticed(f"^{path}: damaged, its runs are left"):
            assert store.statuses(tmp_path).keys() == {"sound"}
    with noticed(None):
        store.compact(tmp_path, at_least=2)
    with noticed(f"{path}: damaged, set aside"):
        store.set_aside_damaged(tmp_path)
    assert_same(contents(tmp_path), before)


@pytest.mark.parametrize("seed", [2**53 + 1, 2**63 - 1])
def test_whole_numbers_stay_whole(tmp_path, seed):
    write_one(tmp_path, "a", seed=seed, train_size=seed)
    store.write(tmp_path, [{"run_id": "b", "status": "ok"}])  # which has none
    for _ in range(2):
        (row,) = store.load_runs(tmp_path, seed=seed).to_dict("records")
        assert (row["seed"], row["train_size"]) == (seed, seed)
        assert set(store.load_history(tmp_path, seed=seed)["seed"]) == {seed}
        assert store.load_runs(tmp_path)["seed"][0] == seed
        store.compact(tmp_path, at_least=2)
    assert store.load_runs(tmp_path, seed=seed - 1).empty
    store.export(tmp_path / "out.csv", tmp_path)
    assert str(seed) in (tmp_path / "out.csv").read_text()


# ------------------------------------------------------------ folders that cannot be written


def test_ensure_writable_makes_the_folder_and_leaves_no_file(tmp_path):
    root = store.ensure_writable(tmp_path / "new" / "results")
    assert [path.name for path in root.iterdir()] == ["runs"]
    assert not leftovers(tmp_path)
    write_one(root, "a")
    assert store.ensure_writable(root) == root
    assert store.statuses(root).keys() == {"a"}


@pytest.mark.parametrize("blocked", ["results", "results/runs", "."])
def test_a_file_in_the_way_is_named(tmp_path, blocked):
    file = tmp_path / blocked / "file" if blocked == "." else tmp_path / blocked
    file.parent.mkdir(exist_ok=True)
    file.write_text("mine")
    results = file / "results" if blocked == "." else tmp_path / "results"
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(store.ResultsFolderError) as caught:
        store.ensure_writable(results)
    assert str(results) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_full_disk_is_found_before_training(tmp_path, monkeypatch):
    fail_from(monkeypatch, "fsync", 0)
    with pytest.raises(store.ResultsFolderError, match="No space left"):
        store.ensure_writable(tmp_path / "results")
    assert not leftovers(tmp_path)


# ------------------------------------------------------------ runs that failed


def failed(name, reason="its worker was killed 3 times"):
    return {"run_id": name, "lr": 0.1, "status": store.FAILED, "reason": reason}


@pytest.mark.parametrize("done_first", [True, False])
@pytest.mark.parametrize("more", [[], ["b"]])
def test_a_run_that_ended_well_counts_for_more_than_its_failure(tmp_path, done_first, more):
    writes = [
        lambda: store.write(tmp_path, [make_run("a")], make_history("a")),
        lambda: store.write(tmp_path, [failed("a"), *map(failed, more)]),
    ]
    for write in writes if done_first else reversed(writes):
        write()
    for _ in range(2):
        assert store.load_runs(tmp_path, run_id="a")["status"].tolist() == ["ok"]
        assert store.load_runs(tmp_path, status="failed")["run_id"].tolist() == more
        assert len(store.load_history(tmp_path, run_id="a")) == 3
        assert store.statuses(tmp_path) == {"a": "ok"} | dict.fromkeys(more, "failed")
        store.compact(tmp_path, at_least=2)


# ------------------------------------------------------------ which runs are stored


def test_what_is_stored_is_seen_as_it_appears(tmp_path):
    assert store.statuses(tmp_path, ["a"]) == {}
    store.write(tmp_path, [make_run("a"), make_run("b", status="diverged")])
    assert store.statuses(tmp_path, ["a", "b", "c"]) == {"a": "ok", "b": "diverged"}
    store.write(tmp_path, [failed("c")])
    assert store.statuses(tmp_path) == {"a": "ok", "b": "diverged", "c": "failed"}
    [run] = store.load_runs(tmp_path, status="failed").to_dict("records")
    assert (run["run_id"], run["reason"]) == ("c", "its worker was killed 3 times")
    assert store.load_runs(tmp_path, reason="x").empty
    store.write(tmp_path, [make_run("c")])
    assert store.statuses(tmp_path, ["c"]) == {"c": "ok"}


def test_many_small_files_are_merged_and_what_was_merged_or_set_aside_is_read_anew(tmp_path):
    assert store.compact(tmp_path / "none") == 0
    assert not (tmp_path / "none").exists()
    for i in range(1, writing.SMALL_FILES):
        store.write(tmp_path, [make_run(str(i))])
    assert store.compact(tmp_path) == 0
    store.write(tmp_path, [make_run("last")])
    assert len(store.statuses(tmp_path)) == writing.SMALL_FILES
    assert store.compact(tmp_path) == writing.SMALL_FILES
    assert len(store.statuses(tmp_path)) == writing.SMALL_FILES
    (file,) = files_in(tmp_path)
    file.rename(file.with_suffix(".aside"))
    assert store.statuses(tmp_path) == {}


@pytest.mark.parametrize("new", [dict(nc0=0.25), dict(nc0=None, status="failed", reason="lost")])
@pytest.mark.parametrize("with_history", [True, False])
def test_a_sound_row_wins_over_an_unsound_one_for_every_reader(tmp_path, new, with_history):
    store.write(
        tmp_path,
        [make_run("odd", nc0=-1.0), make_run("other")],
        make_history("odd") + make_history("other"),
    )
    store.write(tmp_path, [make_run("odd", **new)], make_history("odd") if with_history else ())
    for _ in range(2):
        with noticed(None):
            (row,) = store.load_runs(tmp_path, run_id="odd").to_dict("records")
        assert row["status"] == new.get("status", "ok")
        assert store.statuses(tmp_path, ["odd"]) == {"odd": row["status"]}
        assert store.statuses(tmp_path).keys() == {"odd", "other"}
        store.compact(tmp_path, at_least=2)


def test_only_new_files_are_read(tmp_path, monkeypatch):
    read, real = [], pq.ParquetFile
    monkeypatch.setattr(pq, "ParquetFile", lambda path, **o: read.append(path) or real(path, **o))
    for name in "ab":
        write_one(tmp_path, name)
        assert store.statuses(tmp_path).keys() == store.statuses(tmp_path).keys() >= {name}
    assert len(read) == len(set(read)) == 2


# ------------------------------------------------------------ compaction


def fill(results, files=12):
    """Files of all kinds: two runs or one, without history, failed, with columns of their own."""
    for i in range(files):
        names = [f"r{i:03}-0", f"r{i:03}-1"][: 1 + i % 2]
        extra = [{}, {"note": "x"}, {"nc4": 0.5}, {"k": i, "nc1": math.nan}][i % 4]
        runs = [make_run(name, lr=0.1 + i % 3, seed=i, **extra) for name in names]
        rows = [
            row for name in names for row in make_history(name, **({"z": 1.0} if i % 3 else {}))
        ]
        store.write(results, runs, () if i % 5 == 4 else rows)
    store.write(results, [failed("bad-0"), failed("bad-1")])
    store.write(results, [failed("bad-0")])
    again = [make_run("r000-0", lr=0.1), make_run("alone")]
    store.write(results, again, make_history("r000-0") + make_history("alone"))
    return results


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    return fill(tmp_path_factory.mktemp("filled"))


@pytest.fixture
def small_files(filled, tmp_path):
    return shutil.copytree(filled, tmp_path / "store")


@contextlib.contextmanager
def killed_at(monkeypatch, call):
    """The process dies at this one of its calls that change a folder, and does nothing more."""
    calls = itertools.count()

    def dying(real):
        def until_dead(*arguments, **options):
            if next(calls) >= call:
                raise SystemExit  # after which nothing that cleans up works, either
            return real(*arguments, **options)

        return until_dead

    with monkeypatch.context() as patch, contextlib.suppress(SystemExit):
        for name in ("replace", "unlink", "fsync", "rmdir"):
            patch.setattr(os, name, dying(getattr(os, name)))
        yield
        # Only a process that was not killed comes here.
    if next(calls) < call:
        pytest.skip("there are no more calls to be killed at")


def make_old(results):
    """Every file as an older version wrote it: the epochs in a file of their own."""
    (results / "history").mkdir()
    for path in files_in(results):
        runs, history = tables.read(path), tables.read_nested(path, tables.HISTORY)
        pq.write_table(runs, path)
        if len(history):
            pq.write_table(history, results / "history" / path.name)
    return results


@pytest.mark.parametrize(("most", "large"), [(100, 2**24), (5, 2**24), (100, 1)])
def test_compaction_changes_files_and_nothing_else(small_files, monkeypatch, most, large):
    monkeypatch.setattr(writing, "MOST_FILES", most)
    monkeypatch.setattr(writing, "LARGE_BYTES", large)
    before, ids = contents(small_files), store.statuses(small_files).keys()
    count = len(files_in(small_files))
    merged = store.compact(small_files, at_least=2)
    left = len(files_in(small_files))
    assert (merged, left) == {1: (0, count)}.get(large, (count, -(-count // most)))
    assert_same(contents(small_files), before)
    assert store.statuses(small_files).keys() == ids
    assert not leftovers(small_files)


@pytest.mark.parametrize("call", [*range(16), 20, 25])
def test_a_compaction_that_is_killed_anywhere(small_files, monkeypatch, call):
    monkeypatch.setattr(writing, "MOST_FILES", 5)
    before = contents(small_files)
    with killed_at(monkeypatch, call):
        store.compact(small_files, at_least=2)
    assert_same(contents(small_files), before)
    assert store.set_aside_damaged(small_files) == []
    store.compact(small_files, at_least=2)
    assert {path.suffix for path in leftovers(small_files)} <= {".tmp"}
    assert_same(contents(small_files), before)


@pytest.mark.parametrize("call", range(5))
def test_a_write_that_is_killed_anywhere(tmp_path, monkeypatch, call):
    write_one(tmp_path, "old")
    before = contents(tmp_path)
    with killed_at(monkeypatch, call):
        write_one(tmp_path, "new")
    for frame, old in zip(contents(tmp_path), before, strict=True):
        new = frame["run_id"] == "new"
        assert new.sum() in (0, len(old))
        assert_same([frame[~new].reset_index(drop=True)], [old])
    write_one(tmp_path, "new")
    assert len(store.load_history(tmp_path, run_id="new")) == 3


def test_a_compaction_after_a_killed_one_does_not_keep_runs_twice(small_files, monkeypatch):
    before = contents(small_files)
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", lambda *_, **__: None)  # killed before it removes the small
        store.compact(small_files, at_least=2)
    for _ in range(2):
        store.compact(small_files, at_least=2)
    rows = sum(pq.read_metadata(path).num_rows for path in files_in(small_files))
    assert rows == len(before[0])
    assert_same(contents(small_files), before)


@pytest.mark.parametrize("after", [False, True])
def test_two_compactions_at_once(small_files, monkeypatch, after):
    """Where nothing can be locked, the second runs as a whole inside the first: before its first
    file appears, or after that."""
    without_locks(monkeypatch)
    monkeypatch.setattr(writing, "MOST_FILES", 5)
    before, real, seconds = contents(small_files), writing._put, []

    def put(*arguments):
        path = real(*arguments) if after else None
        if not seconds:
            seconds.append(None)
            run = make_run("r001-0", lr=1.1, seed=1, note="x")  # it sees a file more than the first
            store.write(small_files, [run], make_history("r001-0", z=1.0))
            seconds[0] = store.compact(small_files, at_least=2)
        return path or real(*arguments)

    monkeypatch.setattr(writing, "_put", put)
    store.compact(small_files, at_least=2)
    assert seconds[0] > 2
    for _ in range(3):
        assert_same(contents(small_files), before)
        store.compact(small_files, at_least=2)
    assert not leftovers(small_files)


def test_a_merge_of_older_files_takes_no_layers_away(tmp_path, monkeypatch):
    """Another sweep measures the layers of a run again, and compacts, while the first writes."""
    real, seconds = writing._put, []

    def put(*arguments):
        if not seconds:
            seconds.append(None)
            layered = make_run("a", measured_layers=1)
            layers = [{"run_id": "a", "epoch": 0, "position": 1, "layer": "x", "nc1": 1.0}]
            store.write(tmp_path, [layered], make_history("a"), layers)
            store.compact(tmp_path, at_least=2)
        return real(*arguments)

    for name in ("a", "b", "c"):
        write_one(tmp_path, name)
    without_locks(monkeypatch)
    monkeypatch.setattr(writing, "_put", put)
    for _ in range(2):
        store.compact(tmp_path, at_least=2)
        assert len(store.load_layers(tmp_path)) == 1
        assert set(store.load_runs(tmp_path)["run_id"]) == {"a", "b", "c"}


@pytest.mark.parametrize("reads", [0, 3, 12])
@pytest.mark.parametrize("name", ["load_runs", "load_history", "statuses", "set_aside_damaged"])
@pytest.mark.parametrize("old", [False, True])
def test_files_that_are_compacted_while_they_are_read(small_files, monkeypatch, name, reads, old):
    read, real, count = getattr(store, name), os.path.isfile, itertools.count()
    expected = read(small_files)
    reading._judged_columns.cache_clear()
    if old:
        make_old(small_files)

    def is_file(path):
        if next(count) == reads:
            assert store.compact(small_files, at_least=2) > 2
        return real(path)

    monkeypatch.setattr(os.path, "isfile", is_file)
    with noticed(None):
        found = read(small_files)
    assert next(count) > reads
    if isinstance(expected, pd.DataFrame):
        assert_same([found], [expected])
    else:
        assert found == expected


def test_a_damaged_large_file_costs_no_sound_copy(tmp_path):
    for name in "abcd":
        write_one(tmp_path / "store", name)
    before = contents(tmp_path / "store")
    shutil.copytree(tmp_path / "store", tmp_path / "copy")
    store.compact(tmp_path / "store", at_least=2)
    [large] = files_in(tmp_path / "store")
    large.write_bytes(DAMAGE["page of an epoch"](large.read_bytes()))
    shutil.copytree(tmp_path / "copy", tmp_path / "store", dirs_exist_ok=True)
    with noticed(str(large)):
        assert len(store.set_aside_damaged(tmp_path / "store")) == 1
    store.compact(tmp_path / "store", at_least=2)
    assert_same(contents(tmp_path / "store"), before)


# ------------------------------------------------------------ the old layout


def test_a_store_of_the_old_layout_is_read_as_it_was(small_files):
    before = contents(small_files)
    make_old(small_files)
    assert_same(contents(small_files), before)
    assert store.statuses(small_files).keys() == set(before[0]["run_id"])
    store.compact(small_files, at_least=2)
    assert_same(contents(small_files), before)


@pytest.mark.parametrize("kind", ["runs", "history"])
def test_a_damaged_pair_of_the_old_layout_is_left_and_set_aside_whole(tmp_path, kind):
    names = {name: write_one(tmp_path, name).name for name in ("sound", "broken")}
    make_old(tmp_path)
    file = tmp_path / kind / names["broken"]
    file.write_bytes(file.read_bytes()[:500])
    named = tmp_path / "runs" / names["broken"]
    with noticed(f"{named}: damaged, its runs are left out"):
        assert set(store.load_history(tmp_path)["run_id"]) == {"sound"}
    with noticed(f"{named}: damaged, set aside"):
        store.set_aside_damaged(tmp_path)
    assert store.statuses(tmp_path).keys() == {"sound"}
    write_one(tmp_path, "broken")
    assert set(store.load_history(tmp_path)["run_id"]) == {"sound", "broken"}


# ------------------------------------------------------------ processes

WORK_FOREVER = """
import itertools, sys
from ncbook import store
for i in itertools.count():
    name = f"{sys.argv[2]}-{i}"
    runs = [{"run_id": n, "lr": 0.1, "status": "ok"} for n in (name, f"shared-{i}")]
    rows = [{"run_id": r["run_id"], "epoch": e, "x": 1.0} for r in runs for e in range(50)]
    store.write(sys.argv[1], runs, rows)
    print(name, flush=True)
    if i % 5 == 4:
        store.compact(sys.argv[1], at_least=4)
"""


def test_only_old_temporary_files_are_removed(tmp_path):
    for folder in (write_one(tmp_path, "a").parent, tmp_path / "checkpoints"):
        folder.mkdir(exist_ok=True)
        new, old = (folder / f".{n}.tmp" for n in ("new.1", "old.1"))
        new.touch()
        old.touch()
        os.utime(old, (0, 0))
        store.ensure_writable(tmp_path)
        assert (new.exists(), old.exists()) == (True, False)


def test_of_two_compactions_at_once_one_does_the_work(small_files):
    """Two would leave each run in two large files."""
    before = contents(small_files)
    with leases.alone(small_files / "runs") as ours:
        assert ours
        assert store.compact(small_files, at_least=2) == 0
    assert store.compact(small_files, at_least=2) > 0
    assert_same(contents(small_files), before)


@pytest.mark.parametrize("generations", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_killed_processes_that_write_and_compact_and_read_at_once(tmp_path, generations):
    promised = set()
    for generation in range(generations):
        workers = [
            subprocess.Popen(
                [sys.executable, "-c", WORK_FOREVER, str(tmp_path), f"{generation}{letter}"],
                stdout=subprocess.PIPE,
                text=True,
            )
            for letter in "ab"
        ]
        for worker in workers:
            promised |= {worker.stdout.readline().strip() for _ in range(6)}
        for _ in range(3):
            sizes = store.load_history(tmp_path).groupby("run_id").size()
            assert set(sizes) == {50}
            assert promised <= set(sizes.index)
        for worker in workers:
            worker.kill()
            promised |= set(worker.stdout.read().split())
            assert worker.wait() == -signal.SIGKILL
            worker.stdout.close()
    assert promised <= store.statuses(tmp_path).keys()
    runs, history = contents(tmp_path)
    assert runs["run_id"].is_unique
    assert set(history.groupby("run_id").size()) == {50}
    assert store.set_aside_damaged(tmp_path) == []
    store.compact(tmp_path, at_least=2)
    assert_same(contents(tmp_path), [runs, history])
    assert {path.suffix for path in leftovers(tmp_path)} <= {".tmp"}


@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_a_compaction_that_the_disk_refuses(small_files, monkeypatch, call):
    before = contents(small_files)
    with monkeypatch.context() as patch:
        fail_from(patch, call, 0)
        with pytest.raises(store.ResultsFolderError, match="No space left"):
            store.compact(small_files, at_least=2)
    assert not leftovers(small_files)
    assert_same(contents(small_files), before)


# ------------------------------------------------------------ export


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".CSV"])
def test_export_writes_what_is_read(grid, tmp_path, suffix):
    path = tmp_path / "new" / f"out{suffix}"
    assert store.export(path, grid, optimizer="adam") == 6
    read = pd.read_parquet(path) if suffix == ".parquet" else pd.read_csv(path)
    expected = store.load_runs(grid, optimizer="adam")
    assert set(read.columns) == set(expected.columns)
    assert_same([read.dropna(axis=1)], [expected.dropna(axis=1)])
    assert list(path.parent.iterdir()) == [path]


def test_export_keeps_values_apart(tmp_path):
    odd = 'a "word", and\na line'
    write_one(tmp_path, "a", x=math.nan, y=None, note=odd, flag=True, lr=0.1 + 0.2)
    write_one(tmp_path, "b", x=math.inf, y=1, note=None, flag=False, lr=5e-324)
    for name in ("out.csv", "out.parquet"):
        store.export(tmp_path / name, tmp_path)
        read = (pd.read_csv if name == "out.csv" else pd.read_parquet)(tmp_path / name)
        read = read.set_index("run_id")
        assert read["lr"].to_dict() == {"a": 0.1 + 0.2, "b": 5e-324}
        assert math.isnan(read.loc["a", "x"])
        assert read.loc["b", "x"] == math.inf
        assert read.loc["a", "note"] == odd
        assert read.isna().loc["b", "note"]
        assert read["flag"].to_dict() == {"a": True, "b": False}
        assert read["y"].isna().to_dict() == {"a": True, "b": False}


@pytest.mark.parametrize(
    ("name", "filters", "error", "named"),
    [
        ("out.xlsx", {}, ValueError, r"must end in \.parquet or \.csv, not .*out\.xlsx"),
        ("out", {}, ValueError, r"must end in \.parquet or \.csv"),
        ("out.csv", {"optimizer": "sgd"}, ValueError, "no run in .* has optimizer='sgd'"),
        ("out.csv", {"optimiser": "sgd"}, ValueError, "no column 'optimiser'"),
        ("file/out.csv", {}, OSError, r"file/out\.csv cannot be written \(Not a directory"),
        ("folder.csv", {}, OSError, r"folder\.csv cannot be written \(Is a directory"),
    ],
)
def test_export_refuses(grid, tmp_path, name, filters, error, named):
    (tmp_path / "file").touch()
    (tmp_path / "folder.csv").mkdir()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(error, match=named) as caught:
        store.export(tmp_path / name, grid, **filters)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_an_export_that_the_disk_refuses_leaves_the_old_file(grid, tmp_path, monkeypatch):
    path = tmp_path / "out.csv"
    store.export(path, grid)
    before = path.read_bytes()
    fail_from(monkeypatch, "fsync", 0)
    with pytest.raises(OSError, match=r"out\.csv cannot be written \(No space left"):
        store.export(path, grid, optimizer="adam")
    assert path.read_bytes() == before
    assert not [p for p in tmp_path.iterdir() if p.suffix == ".tmp"]


def test_a_users_own_column_of_text_and_numbers_is_one_line(tmp_path):
    for i, note in enumerate(["good", 0.5]):
        store.write(tmp_path, [{"run_id": str(i), "status": "failed", "reason": "", "note": note}])
    with pytest.raises(store.ResultsFolderError, match=r"do not fit together: .*note") as refused:
        store.load_runs(tmp_path)
    assert "\n" not in str(refused.value)


def test_a_users_own_column_may_be_of_several_kinds_of_numbers(tmp_path):
    for i, note in enumerate([3, 0.5, None]):
        store.write(tmp_path, [{"run_id": str(i), "status": "failed", "reason": "", "note": note}])
    found = store.load_runs(tmp_path).set_index("run_id")["note"]
    assert found["1"] == 0.5
    assert pd.isna(found["2"])
    assert store.compact(tmp_path, at_least=2) == 3
    assert len(store.load_runs(tmp_path)) == 3
