"""Chunks on worker processes of our own, which may die."""

import contextlib
import os
import pty
import subprocess
import sys
import termios
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import dask
import nbformat
import psutil
import pytest
import torch
from conftest import SECONDS
from distributed import Client
from sweeps import Disturbed, die, family, left_over, small_grid, wait_until, workers_below
from tqdm import tqdm
from tqdm.std import TqdmDefaultWriteLock

from ncbook import store, sweep
from ncbook.store import leases
from ncbook.sweep import cluster, engine, tasks
from ncbook.sweep.tasks import Outcome
from ncbook.train import RunConfig


@pytest.fixture(scope="module")
def two_workers():
    with cluster.local(2) as client:
        yield client


@pytest.fixture
def workers(two_workers):
    """A client of two worker processes, as a sweep starts them; both are there again, whatever an
    earlier test did to them."""
    two_workers.wait_for_workers(2, timeout=SECONDS)
    return two_workers


CELL = """
from ncbook.sweep.tasks import progress_bar
with progress_bar(3, shown=True) as advance:
    advance(3)
"""


@pytest.mark.parametrize("is_terminal", [True, False])
def test_papermills_terminal_shows_the_bar_of_the_cell_that_trains(tmp_path, is_terminal):
    cells = [nbformat.v4.new_code_cell(CELL)]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), tmp_path / "a.ipynb")
    ours, its = pty.openpty() if is_terminal else os.pipe()
    if is_terminal:
        termios.tcsetwinsize(its, (24, 80))
    command = [sys.executable, "-m", "papermill", "a.ipynb", "b.ipynb", "--language", "python"]
    # In which a kernel would leave its standard error as it is.
    environment = {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"}
    with subprocess.Popen(command, cwd=tmp_path, stderr=its, env=environment) as process:
        os.close(its)
        said = b""
        with contextlib.suppress(OSError):  # how a terminal ends
            while part := os.read(ours, 1024):
                said += part
    os.close(ours)
    assert process.returncode == 0
    assert ("100%|" in said.decode(), "3/3 runs" in said.decode()) == (True, is_terminal), said
    (output,) = nbformat.read(tmp_path / "b.ipynb", as_version=4).cells[0].outputs
    assert "3/3 runs" in output["data"]["text/plain"]


def part_of(*lrs):
    return [RunConfig(lr=lr) for lr in lrs]


def train(client, task, parts, advance=lambda runs: None):
    return list(tasks.train_chunks(client, task, parts, advance))


def dies_over_013(part, *, advance, folder):
    """Counts its calls by files, and dies over the learning rate 0.13."""
    for config in part:
        (folder / f"{config.lr}-{len(part)}-{time.time_ns()}").touch()
    if any(config.lr == 0.13 for config in part):
        die()
    return Outcome(trained=Counter(ok=len(part)))


def test_a_run_that_kills_its_worker_is_given_up_and_all_others_complete(
    workers, tmp_path, monkeypatch
):
    monkeypatch.setattr(tasks, "TRIES", 2)
    parts = [part_of(0.1, 0.13, 0.2), part_of(0.3), part_of(0.4), part_of(0.5, 0.6)]
    outcomes = train(workers, partial(dies_over_013, folder=tmp_path), parts)
    assert sum((o.trained for o in outcomes), Counter()) == {"ok": 6}
    assert [o.fatal for o in outcomes if o.fatal] == [part_of(0.13)]
    names = [path.name.split("-") for path in tmp_path.iterdir()]
    calls = Counter((float(lr), int(size)) for lr, size, _ in names)
    assert calls[0.13, 3] == calls[0.13, 1] == tasks.TRIES
    # Once; and again where a death took an outcome along that had not been fetched: one at most,
    # since two workers have two chunks, of which one is the deadly one.
    deaths = calls[0.13, 3] + calls[0.13, 1]
    others = [calls[0.3, 1], calls[0.4, 1], calls[0.5, 2], calls[0.1, 1], calls[0.2, 1]]
    assert min(others) >= 1
    assert sum(others) <= len(others) + deaths


def test_a_run_that_was_given_up_is_stored_with_the_reason(tmp_path, monkeypatch):
    dead, *others = configs = small_grid(lrs=[0.01])

    def train_chunks(client, task, parts, advance):
        yield Outcome(fatal=[dead])
        yield task(others, advance=advance)

    monkeypatch.setattr(tasks, "train_chunks", train_chunks)
    options = dict(workers=1, progress=False)
    assert sweep.run(configs, tmp_path, **options).trained == {"failed": 1, "ok": 3}
    (row,) = store.load_runs(tmp_path, status="failed").to_dict("records")
    assert row["run_id"] == sweep.run_id(dead)
    assert row["reason"] == tasks.DIED
    assert row["lr"] == dead.lr
    monkeypatch.undo()
    assert sweep.run(configs, tmp_path, **options).trained == {}
    assert sweep.run(configs, tmp_path, retry_failed=True, **options).trained == {"ok": 1}
    assert set(store.load_runs(tmp_path)["status"]) == {"ok"}
    assert len(store.load_runs(tmp_path)) == 4


def report_twice(part, *, advance):
    advance(0.25)
    advance(0.5)
    return Outcome(trained=Counter(ok=1))


def raise_error(part, *, advance):
    raise ValueError("no such thing")


def test_workers_report_progress_and_errors(workers):
    reports = []
    outcomes = train(workers, report_twice, [part_of(0.1)] * 4, reports.append)
    assert sum((o.trained for o in outcomes), Counter()) == {"ok": 4}
    assert 0 < sum(reports) <= 3.0
    with pytest.raises(ValueError, match=r"^no such thing$"):
        train(workers, raise_error, [part_of(0.1)])


def test_workers_have_one_thread_and_listen_to_this_machine_with_tls(workers):
    assert set(workers.nthreads().values()) == {1}
    assert set(workers.run(os.environ.get, "OMP_NUM_THREADS").values()) == {"1"}
    addresses = [workers.scheduler.address, *workers.nthreads()]
    assert all(address.startswith("tls://127.0.0.1:") for address in addresses)
    listening = {
        connection.laddr.ip
        for process in [psutil.Process(), *family()]
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}


def test_a_worker_may_be_killed_when_all_is_done(workers):
    """It has no lock that would have to be removed before its end."""
    locks = workers.run(lambda: isinstance(tqdm.get_lock(), TqdmDefaultWriteLock))
    assert set(locks.values()) == {False}


def test_when_no_worker_can_be_started_again_the_sweep_ends(monkeypatch):
    monkeypatch.setattr(tasks, "GONE_SECONDS", 1)
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)  # set by Dask for its workers
    before = dict(os.environ)
    with cluster.local(1) as client:
        processes = [psutil.Process(nanny.pid) for nanny in client.cluster.workers.values()]
        cluster._kill_workers(client.cluster)  # so that nobody starts another
        with pytest.raises(sweep.SweepError, match=r"^the worker processes are gone") as ended:
            train(client, report_twice, [part_of(0.1)])
    assert "\n" not in str(ended.value)
    assert dict(os.environ) == before
    assert left_over(processes) == []


def die_once(part, *, advance, folder):
    """The first call kills its worker; the second tells its process."""
    with contextlib.suppress(FileExistsError):
        (folder / "first").touch(exist_ok=False)
        die()
    (folder / "second").write_text(str(os.getpid()))
    return Outcome(trained=Counter(ok=1))


@pytest.mark.slow
def test_workers_that_die_or_stall_while_they_start_are_waited_for(tmp_path, monkeypatch):
    """One dies at once; its successor stalls for longer than Dask is told to wait for one."""
    looks = []
    monkeypatch.setattr(tasks, "LOOK_SECONDS", 0.1)
    count_workers = Client.nthreads
    monkeypatch.setattr(Client, "nthreads", lambda c: looks.append(c) or count_workers(c))
    others = set(workers_below())

    def ours():
        return [process for process in workers_below() if process not in others]

    def kill_the_first():
        wait_until(ours)
        ours()[0].kill()

    def stall_the_successor():
        wait_until((tmp_path / "first").exists)
        wait_until(lambda: not ours())
        wait_until(ours)
        (successor,) = ours()
        successor.suspend()
        stalled = len(looks)
        wait_until(lambda: len(looks) > stalled + 10)
        successor.resume()
        return successor.pid

    impatient = {"distributed.deploy.lost-worker-timeout": "1ms"}
    with ThreadPoolExecutor(2) as pool, dask.config.set(impatient):
        pool.submit(kill_the_first)
        with cluster.local(1) as client:
            stalled = pool.submit(stall_the_successor)
            (outcome,) = train(client, partial(die_once, folder=tmp_path), [part_of(0.1)])
    assert outcome.trained == {"ok": 1}
    assert int((tmp_path / "second").read_text()) == stalled.result()


def test_workers_on_gpus_see_one_each(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def seen(device, worker):
        return cluster._gpu_of(worker, device).get("CUDA_VISIBLE_DEVICES")

    assert [seen("cuda", i) for i in range(4)] == ["0", "1", "0", "1"]
    assert [seen("cuda:1", i) for i in range(2)] == ["1", "1"]
    assert seen("cpu", 0) is None
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-5")
    assert [seen("cuda", i) for i in range(3)] == ["3", "GPU-5", "3"]
    assert sweep.default_workers("cuda") == 2
    assert sweep.default_workers("cuda:1") == 1


def has_leases(results):
    return (results / leases.FOLDER).exists()


def put_a_file_in_its_place(results):
    (results / "runs").rename(results / "moved")
    (results / "runs").touch()


def test_what_stops_a_worker_is_told_in_one_line(workers, tmp_path, monkeypatch):
    """The results folder is taken away during training, and a file put in its place."""
    monkeypatch.setattr(engine, "_train_chunk", Disturbed(has_leases, put_a_file_in_its_place))
    monkeypatch.setattr(cluster, "local", lambda *a: contextlib.nullcontext(workers))
    with pytest.raises(sweep.SweepError, match=r"^the results folder") as ended:
        sweep.run(small_grid(), tmp_path / "r", workers=2, progress=False)
    assert "\n" not in str(ended.value)
