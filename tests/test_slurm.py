"""A sweep on a real SLURM, which the tests start and stop themselves: see ``slurm.py``."""

import contextlib
import os
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import slurm
from conftest import SECONDS
from dask_jobqueue import SLURMCluster
from distributed import Client
from sweeps import assert_same_rows, assert_tidy, ids_of, rows_in_files, small_grid, wait_until

from ncbook import store, sweep
from ncbook.store import leases
from ncbook.sweep import engine

LACKING = slurm.missing()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.slurm,
    pytest.mark.skipif(bool(LACKING), reason=f"no {LACKING} here: {slurm.INSTALL}"),
]
GRID = dict(lrs=[0.01, 0.02], momenta=[0.0, 0.5, 0.9], decays=[0.0, 5e-4, 5e-3, 0.05])
GRID |= dict(seeds=[0, 1])  # six chunks of eight runs


@pytest.fixture
def our_slurm(monkeypatch):
    """The one that this process's commands mean."""
    with slurm.running() as ours:
        for name in [name for name in os.environ if name.startswith(slurm.VARIABLES)]:
            monkeypatch.delenv(name)
        for name, value in ours.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        yield ours
        processes = ours.processes()
    assert [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE] == []


@pytest.fixture
def two_jobs(our_slurm, tmp_path):
    """A scheduler with two workers, each a job."""
    host = slurm.LOCAL_HOST
    options = dict(cores=1, processes=1, memory="4 GB", walltime="00:30:00")
    options |= dict(local_directory=str(tmp_path / "scratch"), log_directory=str(tmp_path / "logs"))
    options["worker_extra_args"] = ["--host", host, "--no-dashboard"]
    # 8787 may be taken.
    scheduler = {"host": host, "dashboard": False, "dashboard_address": f"{host}:0"}
    with SLURMCluster(**options, scheduler_options=scheduler) as jobs:
        jobs.scale(jobs=2)
        with Client(jobs, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=SECONDS)
        yield jobs.scheduler_address


def job_states(ours):
    """Which jobs there are, and how each is."""
    return dict(line.split() for line in ours("squeue", "-h", "-o", "%i %T").splitlines())


def in_training(results):
    """By job: the runs that it trains now, whose leases it holds open."""
    found = defaultdict(set)
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):  # another user's, or it has just ended
            held = [Path(file.path) for file in process.open_files()]
            runs = {path.stem for path in held if path.parent == results / leases.FOLDER}
            if runs:
                found[process.environ()["SLURM_JOB_ID"]] |= runs
    return found


def train_slowly(part, *, advance, results, train=engine._train_chunk, **more):
    """Trains a chunk; once another is stored, it waits in the midst of it until it is told."""

    def report(runs):
        advance(runs)
        if rows_in_files(results):
            (results.parent / f"{os.environ.get('SLURM_JOB_ID')}.waits").touch()
            wait_until((results.parent / "go").exists)

    return train(part, advance=report, results=results, **more)


def test_jobs_share_a_sweep_and_lose_nothing_when_one_is_cancelled(
    tmp_path, our_slurm, two_jobs, monkeypatch
):
    configs, results = small_grid(**GRID), tmp_path / "results"
    monkeypatch.setattr(engine, "_train_chunk", train_slowly)

    def cancel_one():
        """Once both wait in the midst of a chunk; the runs that it had in training."""
        wait_until(lambda: len([*tmp_path.glob("*.waits")]) == 2)
        job, runs = next(iter(in_training(results).items()))
        our_slurm("scancel", job)
        wait_until(lambda: job not in job_states(our_slurm))
        (tmp_path / "go").touch()
        return runs - store.statuses(results).keys()

    before = job_states(our_slurm)
    assert list(before.values()) == ["RUNNING"] * 2
    with ThreadPoolExecutor(1) as pool:
        cancelled = pool.submit(cancel_one)
        report = sweep.run(configs, results, scheduler=two_jobs, progress=False)
    assert cancelled.result()
    assert list(job_states(our_slurm).values()) == ["RUNNING"]
    assert report.trained == {"ok": len(configs)}
    assert rows_in_files(results) == Counter(ids_of(configs))
    assert_tidy(results)
    sweep.run(configs, tmp_path / "here", workers=1, progress=False)
    assert_same_rows(results, tmp_path / "here")
