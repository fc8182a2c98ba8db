import errno
import math
import multiprocessing
import os
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ncbook import store


def make_run(name, **columns):
    return {
        "run_id": name,
        "dataset": "digits",
        "model": "mlp",
        "optimizer": "adam",
        "lr": 0.001,
        "momentum": 0.9,
        "weight_decay": 0.0,
        "seed": 0,
        "epochs": 200,
        "status": "ok",
        "train_acc": 1.0,
        "test_acc": 0.97,
        "nc0": 0.5,
        "nc0_init": 2.0,
        **columns,
    }


def make_history(name, epochs=(0, 100, 200), **columns):
    return [{"run_id": name, "epoch": e, "nc0": 2.0 - e / 200, **columns} for e in epochs]


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


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 0, "lr": 0.001, "flag": True},
        {"lr": 1e-3, "flag": True, "seed": 0.0},
        {"lr": np.float64(0.001), "flag": np.bool_(True), "seed": np.int64(0)},
        {"lr": 0.001, "flag": True, "seed": -0.0},
    ],
)
def test_equal_configs_have_one_id(other):
    assert store.run_id(other) == store.run_id({"lr": 0.001, "flag": True, "seed": 0})


@pytest.mark.parametrize(
    "other",
    [
        {"lr": 0.001, "flag": 1},
        {"lr": math.nextafter(0.001, 1), "flag": True},
        {"lr": "0.001", "flag": True},
        {"lr": 0.001, "flag": True, "seed": None},
        {"lr": 0.001},
    ],
)
def test_other_configs_have_other_ids(other):
    assert store.run_id(other) != store.run_id({"lr": 0.001, "flag": True})


@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(
        st.text(max_size=4),
        st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False)),
    ),
    st.randoms(),
)
def test_run_id_forgets_the_order_of_keys(config, random):
    keys = list(config)
    random.shuffle(keys)
    assert store.run_id({key: config[key] for key in keys}) == store.run_id(config)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"lr": math.nan}, r"config\['lr'\] must be finite, not nan"),
        ({"a": {"b": [1, math.inf]}}, r"config\['a'\]\['b'\]\[1\] must be finite, not inf"),
        ({"lr": object()}, r"config\['lr'\]: <object"),
        ({1: "x"}, "config: the key 1 is not a string"),
    ],
)
def test_run_id_refuses(config, named):
    with pytest.raises(ValueError, match=named):
        store.run_id(config)


def test_results_dir_is_argument_then_variable_then_default(tmp_path, monkeypatch):
    monkeypatch.setenv("NCBOOK_RESULTS", str(tmp_path / "there"))
    assert store.results_dir(tmp_path / "here") == tmp_path / "here"
    assert store.results_dir() == tmp_path / "there"
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


def test_store_is_found_through_the_variable(tmp_path, monkeypatch):
    monkeypatch.setenv("NCBOOK_RESULTS", str(tmp_path))
    write_one(None, "a")
    assert store.stored_ids() == {"a"}
    assert len(store.load_runs()) == 1


@pytest.mark.parametrize("folder", ["", "missing"])
def test_empty_store_has_the_columns(tmp_path, folder):
    runs = store.load_runs(tmp_path / folder, optimizer="adam")
    assert isinstance(runs, pd.DataFrame)
    assert len(runs) == 0
    assert list(runs.columns) == list(store.RUN_COLUMNS)
    assert len(store.load_history(tmp_path / folder, epoch=3)) == 0
    assert store.stored_ids(tmp_path / folder) == set()
    assert store.set_aside_damaged(tmp_path / folder) == []
    assert not (tmp_path / "missing").exists()


def test_rows_are_sorted_by_settings(tmp_path):
    write_one(tmp_path, "a", lr=0.01)
    write_one(tmp_path, "b", lr=0.001, seed=1)
    write_one(tmp_path, "c", lr=0.001, seed=0)
    assert store.load_runs(tmp_path)["run_id"].tolist() == ["c", "b", "a"]
    assert store.load_history(tmp_path, epoch=200)["run_id"].tolist() == ["c", "b", "a"]


def test_columns_may_differ_between_files(tmp_path):
    write_one(tmp_path, "a", diverged_epoch=None, note=None, lr=1)
    write_one(tmp_path, "b", diverged_epoch=7, note="x", nc4=0.9, status="diverged")
    assert store.load_runs(tmp_path, run_id="a")["lr"].dtype == np.float64
    runs = store.load_runs(tmp_path).set_index("run_id")
    assert runs["diverged_epoch"].isna().to_dict() == {"a": True, "b": False}
    assert runs.loc["b", ["diverged_epoch", "note", "nc4"]].tolist() == [7, "x", 0.9]
    assert math.isnan(runs.loc["a", "nc4"])
    assert store.stored_ids(tmp_path) == {"a", "b"}


def test_a_column_of_nulls_can_be_filtered(tmp_path):
    write_one(tmp_path, "a", note=None)
    assert len(store.load_runs(tmp_path, note="x")) == 0


def test_a_run_that_is_under_way_is_not_stored(tmp_path):
    write_one(tmp_path, "a", status="stopped")
    assert store.stored_ids(tmp_path) == set()
    assert len(store.load_runs(tmp_path)) == 1


@pytest.mark.parametrize("folder", ["runs[1]", "a*b?", "lr=0.5/seed=3", "with space 'quoted'"])
def test_any_folder_name_will_do(tmp_path, folder):
    write_one(tmp_path / "axbx", "a")  # what "a*b?" would match, were it a pattern
    write_one(tmp_path / folder, "a")
    [run] = store.load_runs(tmp_path / folder).to_dict("records")
    assert (run["lr"], run["seed"]) == (0.001, 0)
    assert len(store.load_history(tmp_path / folder)) == 3


@pytest.mark.parametrize(
    ("runs", "history", "named"),
    [
        ([], [], "no runs"),
        ([{"lr": 0.1}], [], "needs a run_id"),
        ([make_run("a"), make_run("a")], [], "'a' is there twice"),
        ([make_run("a")], make_history("b"), "'b', which no run has"),
        ([make_run("a", x=1), make_run("b", x="y")], [], "column 'x' must hold .* not int, str"),
        ([make_run("a", x=[1])], [], "column 'x' must hold .* not list"),
    ],
)
def test_write_refuses(tmp_path, runs, history, named):
    with pytest.raises(ValueError, match=named):
        store.write(tmp_path, runs, history)
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
    assert set(history["run_id"]) == set(runs["run_id"])


def test_history_filters_by_its_own_columns(grid):
    history = store.load_history(grid, optimizer="adam", epoch=[0, 200])
    assert len(history) == 12
    assert set(history["epoch"]) == {0, 200}


@pytest.mark.parametrize(
    ("filters", "named"),
    [
        ({"optimiser": "adam"}, r"no column 'optimiser' .* run_id, .*optimizer, .*nc0"),
        ({"optimiser": None}, "no column 'optimiser'"),
        ({'lr" = 1 OR "lr': 1}, "no column"),
        ({"lr": "0.001"}, "column 'lr' holds numbers, and cannot be '0.001'"),
        ({"lr": [0.001, True]}, "column 'lr' holds numbers, and cannot be True"),
        ({"optimizer": 3}, "column 'optimizer' holds strings, and cannot be 3"),
        ({"late": 1}, "column 'late' holds true or false, and cannot be 1"),
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


def test_writing_the_same_runs_again_replaces_them(tmp_path):
    assert write_one(tmp_path, "a", nc0=0.1) == write_one(tmp_path, "a", nc0=0.2)
    assert store.load_runs(tmp_path)["nc0"].tolist() == [0.2]


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


def test_history_without_runs_does_not_count(tmp_path, monkeypatch):
    write_one(tmp_path, "a")
    with monkeypatch.context() as patch:
        fail_from(patch, "replace", 1)
        with pytest.raises(OSError, match="No space left"):
            write_one(tmp_path, "b")
    assert len(list((tmp_path / "history").iterdir())) == 2
    assert store.stored_ids(tmp_path) == {"a"}
    assert set(store.load_history(tmp_path)["run_id"]) == {"a"}
    assert not leftovers(tmp_path)
    write_one(tmp_path, "b")
    assert set(store.load_history(tmp_path)["run_id"]) == {"a", "b"}


@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_a_failed_write_leaves_the_store_as_it_was(tmp_path, monkeypatch, call):
    write_one(tmp_path, "a", nc0=0.1)
    with monkeypatch.context() as patch:
        fail_from(patch, call, 0)
        with pytest.raises(OSError, match="No space left"):
            write_one(tmp_path, "a", nc0=0.2)
    assert store.load_runs(tmp_path)["nc0"].tolist() == [0.1]
    assert not leftovers(tmp_path)


WRITE_FOREVER = """
import itertools, sys
from ncbook import store
for i in itertools.count():
    name = f"run{i}"
    runs = [{"run_id": name, "status": "ok"}]
    store.write(sys.argv[1], runs, [{"run_id": name, "epoch": e, "x": 1.0} for e in range(500)])
    print(name, flush=True)
"""


def test_a_killed_writer_loses_nothing_it_has_written(tmp_path):
    command = [sys.executable, "-c", WRITE_FOREVER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        promised = [process.stdout.readline().strip() for _ in range(20)]
        process.send_signal(signal.SIGKILL)
        promised += process.stdout.read().split()
    assert len(promised) >= 20
    assert set(promised) <= store.stored_ids(tmp_path)
    rows = store.load_history(tmp_path).groupby("run_id").size()
    assert set(promised) <= set(rows.index)
    assert set(rows) == {500}
    assert store.set_aside_damaged(tmp_path) == []


def write_many(results, worker):
    for i in range(10):
        # Run "shared" is written by all workers, in different company.
        names = [f"{worker}-{i}", "shared"]
        history = [row for name in names for row in make_history(name)]
        store.write(results, [make_run(name) for name in names], history)


def test_many_processes_may_write_at_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=write_many, args=(tmp_path, w)) for w in range(3)]
    for worker in workers:
        worker.start()
    seen = 0
    while any(worker.is_alive() for worker in workers):
        runs = store.load_runs(tmp_path)
        assert runs["run_id"].is_unique
        assert len(runs) >= seen
        seen = len(runs)
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert len(store.load_runs(tmp_path)) == 31
    assert len(store.load_history(tmp_path)) == 3 * 31
    assert not leftovers(tmp_path)


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
    "last page zeroed": lambda content: zero_before_footer(content, 40),
}


@pytest.mark.parametrize("kind", store.KINDS)
@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_file_is_named_set_aside_and_written_again(tmp_path, kind, damage):
    write_one(tmp_path, "sound")
    file = tmp_path / kind / write_one(tmp_path, "broken").name
    file.write_bytes(DAMAGE[damage](file.read_bytes()))

    load = {"runs": store.load_runs, "history": store.load_history}[kind]
    with pytest.warns(store.DamagedFileWarning, match=str(file)):
        assert set(load(tmp_path)["run_id"]) == {"sound"}
    assert file.exists()  # reading changes nothing

    with pytest.warns(store.DamagedFileWarning, match=f"{file}: damaged, set aside"):
        moved = store.set_aside_damaged(tmp_path)
    assert file.with_name(file.name + ".damaged") in moved
    assert all(path.exists() for path in moved)
    assert store.stored_ids(tmp_path) == {"sound"}
    assert set(load(tmp_path)["run_id"]) == {"sound"}
    assert store.set_aside_damaged(tmp_path) == []

    write_one(tmp_path, "broken")
    assert set(load(tmp_path)["run_id"]) == {"sound", "broken"}


def test_stored_ids_warns_of_a_damaged_file(tmp_path):
    file = write_one(tmp_path, "broken")
    write_one(tmp_path, "sound")
    file.write_bytes(b"")
    with pytest.warns(store.DamagedFileWarning, match=str(file)):
        assert store.stored_ids(tmp_path) == {"sound"}


def test_a_file_that_another_process_sets_aside_meanwhile(tmp_path, monkeypatch):
    path = write_one(tmp_path, "a")
    gone = path.with_name("gone.parquet")
    monkeypatch.setattr(store, "_files", lambda _results, _kind: [gone, path])
    assert store.load_runs(tmp_path)["run_id"].tolist() == ["a"]
    assert store.stored_ids(tmp_path) == {"a"}


# ------------------------------------------------------------ folders that cannot be written


def test_ensure_writable_makes_the_folder_and_leaves_no_file(tmp_path):
    root = store.ensure_writable(tmp_path / "new" / "results")
    assert sorted(path.name for path in root.iterdir()) == ["history", "runs"]
    assert not leftovers(tmp_path)
    write_one(root, "a")
    assert store.ensure_writable(root) == root
    assert store.stored_ids(root) == {"a"}


@pytest.mark.parametrize("blocked", ["results", "results/runs", "results/history", "."])
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


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a file system of the kernel's")
def test_a_file_system_that_refuses():
    with pytest.raises(store.ResultsFolderError, match="/proc/results"):
        store.ensure_writable("/proc/results")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(store.ResultsFolderError, match="Permission denied"):
        store.ensure_writable(tmp_path / "results")
    tmp_path.chmod(0o700)


def test_a_full_disk_is_found_before_training(tmp_path, monkeypatch):
    def full(*_arguments, **_options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store.tempfile, "NamedTemporaryFile", full)
    with pytest.raises(store.ResultsFolderError, match="No space left"):
        store.ensure_writable(tmp_path / "results")
    assert not (tmp_path / "results").exists()


def test_merge_copies_the_chosen_runs_whole(tmp_path):
    two = [make_run("x", lr=0.1, nc4=math.nan, note="a"), make_run("y", lr=0.2, nc4=1.0)]
    store.write(tmp_path / "a", two, make_history("x") + make_history("y"))
    write_one(tmp_path / "a", "z", lr=0.1, train_size=None)
    store.merge(tmp_path / "a", tmp_path / "b", lr=0.1)
    assert len(list((tmp_path / "b" / "runs").iterdir())) == 1
    for load in (store.load_runs, store.load_history):
        ours, theirs = load(tmp_path / "b"), load(tmp_path / "a", lr=0.1)
        pd.testing.assert_frame_equal(ours, theirs, check_dtype=False)
    with pytest.raises(ValueError, match="there are no runs to write"):
        store.merge(tmp_path / "a", tmp_path / "c", lr=0.7)
