"""Sweeps on the workers of a scheduler that a user has started."""

import _thread
import html
import io
import multiprocessing
import re
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from distributed.utils import LoopRunner
from sweeps import (
    Disturbed,
    assert_same_rows,
    assert_tidy,
    die,
    free_port,
    ids_of,
    rows_in_files,
    small_grid,
    started_scheduler,
    wait_until,
)
from test_streaming import write_tree

from ncbook import store, sweep
from ncbook.store import leases
from ncbook.sweep import cluster, engine
from ncbook.train.checkpoint import DIGEST_BYTES


@pytest.fixture(scope="module")
def scheduler():
    """The address of one with two workers."""
    with started_scheduler(2) as (address, _):
        yield address


def test_a_schedulers_workers_train_and_stay(tmp_path, monkeypatch, scheduler):
    monkeypatch.chdir(tmp_path)
    configs = small_grid()
    report = sweep.run(configs, "results", scheduler=scheduler, progress=False)
    assert report.trained == {"ok": 8}
    assert set(store.load_runs(tmp_path / "results")["run_id"]) == ids_of(configs)
    assert sweep.scheduler_workers(scheduler) == (2, torch.cuda.device_count())
    assert sweep.run(configs, "results", scheduler=scheduler, progress=False).trained == {}
    here = sweep.run(configs, tmp_path / "here", workers=1, progress=False)
    assert here.trained == report.trained
    assert_same_rows(tmp_path / "results", tmp_path / "here")


def test_a_busy_machine_may_start_dasks_threads_late(monkeypatch, scheduler):
    """Dask gives them ten seconds, and then fails."""
    failures = [AssertionError(), AssertionError()]
    start = LoopRunner.start

    def late(runner):
        if failures:
            raise failures.pop()
        start(runner)

    monkeypatch.setattr(LoopRunner, "start", late)
    assert sweep.scheduler_workers(scheduler)[0] == 2
    failures += [AssertionError()] * cluster.STARTS
    with pytest.raises(
        sweep.SweepError, match=r"^this machine is too busy to start the threads of Dask$"
    ):
        sweep.scheduler_workers(scheduler)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says which signals are blocked")
def test_ctrl_c_never_reaches_the_worker_processes():
    """Which get it from a terminal as the sweep does; the sweep ends them."""
    with cluster.local(1) as client:
        (status,) = client.run(Path("/proc/self/status").read_text).values()
    (blocked,) = re.findall(r"^SigBlk:\s*(\w+)$", status, re.MULTILINE)
    assert int(blocked, 16) & 1 << signal.SIGINT - 1
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())  # it reaches us


def test_a_request_takes_the_schedulers_workers(tmp_path, scheduler):
    asked = sweep.check({"scheduler": scheduler, "results": tmp_path, "epochs": 2, "lrs": 0.01})
    assert (asked.scheduler, asked.workers, asked.device) == (scheduler, 2, "cpu")
    assert f"on cpu with 2 workers of {scheduler}" in html.unescape(sweep.describe(asked))
    with pytest.raises(sweep.ParameterError, match=r"^workers must be empty where a scheduler"):
        sweep.check({"scheduler": scheduler, "workers": 3, "results": tmp_path})
    with pytest.raises(sweep.ParameterError, match=r"^unknown device 'cuda:7'; valid here: cpu"):
        sweep.check({"scheduler": scheduler, "device": "cuda:7", "results": tmp_path})


def train_forever(results, scheduler, act):
    """A sweep without end; once it trains, another thread acts."""

    def act_while_training():
        wait_until(lambda: leases.running(results))
        act()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(act_while_training)
        sweep.run(small_grid(epochs=10**6), results, scheduler=scheduler, progress=False)


def test_training_for_a_scheduler_ends_when_the_sweep_does(tmp_path, scheduler):
    """Ctrl-C: the chunks stop, and the workers stay."""
    with pytest.raises(KeyboardInterrupt):
        train_forever(tmp_path, scheduler, _thread.interrupt_main)
    wait_until(lambda: not leases.running(tmp_path))
    assert sweep.scheduler_workers(scheduler)[0] == 2


@pytest.mark.slow
def test_a_scheduler_that_goes_ends_the_sweep_in_one_line(tmp_path):
    with (
        started_scheduler(1) as (address, (itself, _)),
        pytest.raises(sweep.SweepError, match=r"^the scheduler is gone; .* is stored.*$"),
    ):
        train_forever(tmp_path, address, itself.kill)
    wait_until(lambda: not leases.running(tmp_path))


def test_a_scheduler_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 0.5)
    address = f"tcp://127.0.0.1:{free_port()}"
    with pytest.raises(
        sweep.SweepError, match=rf"^no Dask scheduler answers at '{address}'; va.*Timed"
    ):
        sweep.scheduler_workers(address)


@pytest.mark.parametrize("address", ["nonsense", "tcp://", "http://127.0.0.1:1", "tcp://nohost:x"])
def test_an_address_that_is_none_is_refused_in_one_line(tmp_path, address):
    with pytest.raises(sweep.ParameterError, match=r"^no Dask scheduler answers at") as refused:
        sweep.check({"scheduler": address, "results": str(tmp_path / "new")})
    assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_a_scheduler_without_workers_is_refused_in_one_line(monkeypatch):
    monkeypatch.setattr(cluster, "WORKERS_SECONDS", 0.5)
    refused = pytest.raises(sweep.SweepError, match=r"^the scheduler at \S+ has no workers; start")
    with started_scheduler(0) as (address, _), refused:
        sweep.scheduler_workers(address)


def test_workers_with_several_threads_are_refused_in_one_line():
    refused = pytest.raises(
        sweep.SweepError, match=r"^1 of the workers, such as \S+, have 2 threads"
    )
    with started_scheduler(1, threads=2) as (address, _), refused:
        sweep.scheduler_workers(address)


# ------------------------------------------------------------ images from files


EPOCHS = 4
PLACE = {"device"}  # says how many threads there were


@pytest.fixture(scope="module")
def streamed(tmp_path_factory):
    """Two runs on images that are read from files, in float64: threads add in another order."""
    tree = write_tree(tmp_path_factory.mktemp("images"), np.random.default_rng(20))
    settings = dict(model="resnet9", width=1 / 16, batch_size=16, precision="float64")
    settings |= dict(seeds=[0, 1], dataset=f"imagenet:{tree}", epochs=EPOCHS)
    return sweep.grid("sgd", [0.01], [0.9], [0.005], **settings)


@pytest.fixture(scope="module")
def alone(streamed, tmp_path_factory):
    """The store that one undisturbed process makes of streamed runs."""
    results = tmp_path_factory.mktemp("alone")
    assert sweep.run(streamed, results, workers=1, progress=False).trained == {"ok": 2}
    return results


@pytest.mark.slow
@pytest.mark.parametrize("whose", ["our own", "a scheduler's"])
def test_workers_stream_images(tmp_path, streamed, alone, scheduler, whose):
    """Those of a scheduler may have no processes, and read the images themselves."""
    with cluster.joined(scheduler) as client:
        daemons = client.run(lambda: multiprocessing.current_process().daemon)
        assert list(daemons.values()) == [True, True]
    place = {"workers": 2} if whose == "our own" else {"scheduler": scheduler}
    assert sweep.run(streamed, tmp_path, progress=False, **place).trained == {"ok": 2}
    assert_same_rows(tmp_path, alone, but=PLACE)
    assert_tidy(tmp_path)


def dies_after_two_epochs(part, *, results, **more):
    """Trains a run, and notes from which epoch on; the first worker to have trained two dies."""
    (config,) = part
    with open(results.parent / "begun", "a") as file:
        print(epoch_of(config, results), file=file)
    disturbed = Disturbed(lambda results: epoch_of(config, results) > 1, die)
    return disturbed(part, results=results, **more)


def epoch_of(config, results):
    """How far its checkpoint has come; 0 if it has none."""
    try:
        content = engine._checkpoint(config, results).read_bytes()
    except FileNotFoundError:
        return 0
    return torch.load(io.BytesIO(content[DIGEST_BYTES:]), weights_only=True)["epoch"]


@pytest.mark.slow
def test_a_streamed_run_whose_worker_is_killed_goes_on_from_its_checkpoint(
    tmp_path, streamed, alone, monkeypatch
):
    results = tmp_path / "r"
    monkeypatch.setattr(engine, "_train_chunk", dies_after_two_epochs)
    sweep.run(streamed, results, workers=2, progress=False)
    first, second, again = map(int, (tmp_path / "begun").read_text().split())
    assert first == second == 0
    assert again >= 2
    assert_same_rows(results, alone, but=PLACE)
    assert set(rows_in_files(results).values()) == {1}
    assert_tidy(results)
