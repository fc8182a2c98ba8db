"""What a sweep survives: kills, full disks, damaged files, runs that diverge."""

import contextlib
import dataclasses
import math
import os
import random
import signal
import subprocess
import time
from collections import Counter

import pandas as pd
import psutil
import pytest
from conftest import SECONDS, noticed
from sweeps import (
    LAST_BITS,
    TIMES,
    Disturbed,
    assert_same_rows,
    assert_tidy,
    family,
    ids_of,
    left_over,
    rows_in_files,
    small_grid,
    start_script,
    stored_files,
    wait_until,
    workers_below,
)

from ncbook import store, sweep
from ncbook.store import leases
from ncbook.sweep import engine
from ncbook.train import loop

# ------------------------------------------------------------ processes that are killed

GRID = dict(momenta=(0.0, 0.5, 0.9), decays=(0.0, 5e-4, 0.05), epochs=60)


def start_sweep(results, seeds=1, **grid):
    body = "sweep.run(small_grid(seeds=range({seeds}), **{grid}), {results!r}, workers=2)"
    return start_script(results.parent, body, seeds=seeds, grid=grid or GRID, results=str(results))


@pytest.mark.slow
def test_ctrl_c_stops_at_once_and_leaves_no_process_and_no_lease(tmp_path):
    sweeping = start_sweep(tmp_path / "r", epochs=10**6)
    wait_until(lambda: leases.running(tmp_path / "r"))
    processes = family(sweeping.pid)
    os.killpg(sweeping.pid, signal.SIGINT)  # as a terminal does: to all of them
    said, _ = sweeping.communicate(timeout=SECONDS)
    assert said.splitlines()[-1] == "KeyboardInterrupt"
    assert said.count("Traceback") == 1
    assert left_over(processes) == []
    assert_tidy(tmp_path / "r")


def test_two_sweeps_on_one_store_train_every_run_once(tmp_path):
    """Another process, and this one, which joins it while it trains its first chunk."""
    results, grid = tmp_path / "r", dict(GRID, seeds=[0, 1], epochs=20)
    body = "print(sweep.run(small_grid(**{grid}), {results!r}, workers=1, progress=False).text())"
    other = start_script(tmp_path, body, grid=grid, results=str(results))
    wait_until(lambda: leases.running(results))
    configs = small_grid(**grid)
    ours = sweep.run(configs, results, workers=1, progress=False).trained.total()
    said, _ = other.communicate(timeout=SECONDS)
    assert other.returncode == 0, said
    assert f"Trained {len(configs) - ours} runs" in said
    assert rows_in_files(results) == Counter(ids_of(configs))
    assert_tidy(results)


def at_work(sweeping, results, training, wait):
    """A sweep's workers, some time after they began to start, or to train; none if it is over."""

    def there():
        return leases.running(results) if training else workers_below(sweeping.pid)

    wait_until(lambda: there() or sweeping.poll() is not None)
    time.sleep(wait)
    return workers_below(sweeping.pid)


@pytest.mark.parametrize(
    ("kills", "seeds"), [(3, 1), pytest.param(20, 5, marks=pytest.mark.slow)], ids=["3", "20"]
)
def test_kills_lose_nothing_and_train_nothing_twice(tmp_path, kills, seeds):
    """Workers and drivers are killed at random moments; a killed driver is started again, and so is
    a sweep that ends too soon, with another seed. No file ever goes, and no run is in two."""
    rng = random.Random(4)
    results, seen, victims = tmp_path / "killed", set(), []
    sweeping = start_sweep(results, seeds)
    for kill in range(kills):
        moment = kill % 5  # 0: while workers start; 2: the driver's turn
        while not (workers := at_work(sweeping, results, training=moment, wait=rng.random())):
            said, _ = sweeping.communicate()
            assert sweeping.returncode == 0, said
            seeds += 1
            sweeping = start_sweep(results, seeds)
        victims += family(sweeping.pid)
        victim = sweeping if moment == 2 else rng.choice(workers)
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.kill()
        if victim is sweeping:
            sweeping.communicate()
            sweeping = start_sweep(results, seeds)
        files = set(stored_files(results))
        assert seen <= files
        seen = files
    said, _ = sweeping.communicate(timeout=SECONDS)
    assert sweeping.returncode == 0, said
    configs = small_grid(seeds=range(seeds), **GRID)
    assert rows_in_files(results) == Counter(ids_of(configs))
    assert_tidy(results)
    assert left_over(victims) == []
    sweep.run(configs, tmp_path / "undisturbed", workers=1, progress=False)
    assert_same_rows(results, tmp_path / "undisturbed")


# ------------------------------------------------------------ disks, files, lost members

WHILE_ON = dict(momenta=(0.0, 0.5, 0.9), decays=(0.0, 5e-3, 0.05), seeds=(0, 1))  # four chunks
FULL_BYTES = 2**16


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The store that disturbed sweeps must end with."""
    results = tmp_path_factory.mktemp("undisturbed")
    sweep.run(small_grid(**WHILE_ON), results, workers=1, progress=False)
    return results


@pytest.fixture
def disk(tmp_path):
    """A small one, which may be filled and made read-only: that stops even the superuser."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not mount("-t", "tmpfs", "-o", "size=4m", "ncbook", folder):
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", "--all-targets", str(folder)], check=True)


def mount(*arguments):
    with contextlib.suppress(FileNotFoundError):
        return subprocess.run(["mount", *map(str, arguments)], capture_output=True).returncode == 0
    return False


def fill(results):
    with open(results.parent / "filler", "wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(FULL_BYTES)):
            pass


def empty(results):
    (results.parent / "filler").unlink()


def make_read_only(results):
    """By a mount in front of it, since the leases of those who train are open for writing."""
    assert mount("--bind", results.parent, results.parent)
    assert mount("-o", "remount,bind,ro", results.parent)


def make_writable(results):
    subprocess.run(["umount", str(results.parent)], check=True)


@pytest.mark.parametrize(
    ("refuse", "relent", "reason"),
    [
        (fill, empty, "No space left on device"),
        (make_read_only, make_writable, "Read-only file system"),
    ],
)
def test_a_disk_that_refuses_ends_the_sweep_in_one_line(
    monkeypatch, disk, undisturbed, refuse, relent, reason
):
    results, configs = disk / "r", small_grid(**WHILE_ON)
    with monkeypatch.context() as worker:
        worker.setattr(engine, "_train_chunk", Disturbed(stored_files, refuse))
        with pytest.raises(sweep.SweepError) as ended:
            sweep.run(configs, results, workers=1, progress=False)
    have = store.statuses(results).keys()
    relent(results)
    for part in (reason, str(results)):
        assert part in str(ended.value)
    assert "\n" not in str(ended.value)
    assert 0 < len(have) < len(configs)
    wait_until(lambda: not leases.running(results))
    report = sweep.run(configs, results, workers=1, progress=False)
    assert (report.stored, report.trained) == (len(have), {"ok": len(configs) - len(have)})
    assert rows_in_files(results) == Counter(ids_of(configs))
    assert_tidy(results)
    assert_same_rows(results, undisturbed)


def test_a_file_that_is_cut_in_half_meanwhile_is_set_aside(tmp_path, monkeypatch, undisturbed):
    """The sweep goes on; the next one sets the file aside, and trains its runs again."""
    results, configs, lost = tmp_path / "r", small_grid(**WHILE_ON), {}

    def cut(results):
        file = stored_files(results)[0]
        lost[file] = set(pd.read_parquet(file)["run_id"])
        os.truncate(file, file.stat().st_size // 2)

    with monkeypatch.context() as worker, noticed("damaged, its runs are left out"):
        worker.setattr(engine, "_train_chunk", Disturbed(stored_files, cut))
        sweep.run(configs, results, workers=1, progress=False)
    ((file, ids),) = lost.items()
    with noticed(f"{file.name}: damaged, set aside; its"):
        report = sweep.run(configs, results, workers=1, progress=False)
    assert (report.stored, report.trained) == (len(configs) - len(ids), {"ok": len(ids)})
    assert file.with_name(f"{file.name}.damaged").exists()
    assert_same_rows(results, undisturbed)


def test_a_member_that_is_lost_is_stored_and_harms_no_other(tmp_path):
    others = small_grid(lrs=[0.01])
    (lost,) = small_grid(lrs=[1e30], momenta=[0.9], decays=[0.5])
    configs = [*others[:2], lost, *others[2:]]
    assert len(sweep.chunks(configs)) == 1
    report = sweep.run(configs, tmp_path / "with", workers=1, progress=False)
    assert report.trained == {"ok": 4, "diverged": 1}
    (row,) = store.load_runs(tmp_path / "with", status="diverged").to_dict("records")
    assert (row["run_id"], row["diverged_epoch"]) == (sweep.run_id(lost), 1)
    assert math.isnan(row["train_loss"])
    assert math.isnan(row["nc0"])
    assert row["nc0_init"] > 0
    sweep.run(others, tmp_path / "without", workers=1, progress=False)
    for load in (store.load_runs, store.load_history):
        found = load(tmp_path / "with", lr=0.01)
        wanted = load(tmp_path / "without")
        empty = [name for name in wanted if wanted[name].isna().all()]
        assert found[empty].isna().all(axis=None)
        keep = [name for name in wanted if name not in {*TIMES, *empty}]
        pd.testing.assert_frame_equal(
            found[keep], wanted[keep], rtol=LAST_BITS, atol=1e-12, check_dtype=False
        )
    assert sweep.run(configs, tmp_path / "with", workers=1, progress=False).trained == {}


# ------------------------------------------------------------ the same numbers


@pytest.mark.parametrize(
    ("optimizer", "compiled"),
    [("sgd", False), ("adamw", False), pytest.param("signum", True, marks=pytest.mark.slow)],
)
def test_numbers_do_not_depend_on_the_chunks(tmp_path, monkeypatch, optimizer, compiled):
    configs = small_grid(optimizer, lrs=[0.001, 0.005], epochs=10)
    monkeypatch.setattr(loop, "COMPILE_FROM", 0 if compiled else 10**9)
    sizes = (8, 1) if compiled else (8, 3, 1)
    for size in sizes:
        monkeypatch.setattr(
            engine, "chunks", lambda parts, workers, size=size: sweep.chunks(parts, 1, size)
        )
        sweep.run(configs, tmp_path / str(size), workers=1, progress=False)
    for size in sizes[1:]:
        assert_same_rows(tmp_path / "8", tmp_path / str(size))


def test_whether_a_run_is_compiled_does_not_depend_on_its_company(monkeypatch):
    monkeypatch.setattr(loop, "can_compile", lambda device: True)
    config = sweep.grid("sgd", [0.01], [0.9], [0.0])[0]
    dataset = sweep.load_data(config)
    steps = config.epochs * math.ceil(len(dataset.train_y) / config.batch_size)
    assert steps >= loop.COMPILE_FROM
    short = dataclasses.replace(config, epochs=loop.COMPILE_FROM * config.epochs // steps - 1)
    chosen = {}
    for part in ([config], [config] * 9, [short], [short] * 9):
        monkeypatch.setattr(loop, "make_step", lambda *parts: chosen.update(device=parts[-1]))
        loop._Chunk(part, dataset, compiled=None)
        assert chosen["device"] == ("cpu" if part[0] is config else None)
