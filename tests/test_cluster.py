"""Worker processes, those of a scheduler, leases, and what a sweep survives."""

import contextlib
import dataclasses
import html
import io
import math
import multiprocessing
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import dask
import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from conftest import SECONDS
from distributed import Client, LocalCluster
from test_streaming import write_tree

from ncbook import store, sweep
from ncbook.sweep import cluster, engine, leases, tasks
from ncbook.sweep.tasks import Outcome
from ncbook.train import RunConfig, checkpoint_path, loop
from ncbook.train.checkpoint import DIGEST_BYTES

SMALL = dict(train_size=100, batch_size=50, epochs=2)
TIMES = {"wall_time_s", "created_at"}
# Members that are measured together differ from those measured alone in the last bits of a double.
LAST_BITS = 1e-9
# For new processes: endless runs would compile first, and that is not what is tested with them.
LIGHT = {"OMP_NUM_THREADS": "1", "TORCHDYNAMO_DISABLE": "1"}


def small_grid(optimizer="sgd", lrs=(0.01, 0.05), momenta=(0.0, 0.9), decays=(0.0, 0.05), **more):
    return sweep.grid(optimizer, lrs, momenta, decays, **(SMALL | more))


def streamed(tree, **more):
    """Two runs on images that are read from files, in float64: threads add in another order."""
    settings = dict(model="resnet9", width=1 / 16, batch_size=16, precision="float64") | more
    return sweep.grid(
        "sgd", [0.01], [0.9], [0.005], seeds=[0, 1], dataset=f"imagenet:{tree}", **settings
    )


def ids_of(configs):
    return {sweep.run_id(config) for config in configs}


def wait_until(condition, seconds=SECONDS):
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it did not happen"
        time.sleep(0.02)


def family(pid=None):
    """All processes below one."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).children(recursive=True)
    return []


def left_over(processes):
    """Those that do not end by themselves, but for Python's own, which ends with us."""
    ours = [process for process in processes if not is_tracker(process)]
    return psutil.wait_procs(ours, timeout=SECONDS)[1]


def is_tracker(process):
    with contextlib.suppress(psutil.NoSuchProcess):
        return any("resource_tracker" in word for word in process.cmdline())
    return False


def script(folder, body, **values):
    """A new Python that runs a sweep; ``body`` sees ``configs`` and ``results``."""
    text = textwrap.dedent(
        """
        def main():
            import sys
            sys.path.insert(0, {here!r})
            from test_cluster import small_grid
            from ncbook import sweep
            results = {results!r}
        {body}
        if __name__ == "__main__":
            main()
        """
    ).format(here=str(Path(__file__).parent), body=textwrap.indent(body, "    "), **values)
    path = folder / f"script_{abs(hash(body)) % 10**8}.py"
    path.write_text(text)
    environment = os.environ | LIGHT
    return subprocess.Popen(
        [sys.executable, str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        start_new_session=True,
    )


def assert_same_rows(one, other, tolerance=LAST_BITS, but=frozenset()):
    """Two stores hold the same runs and epochs, but for times."""
    for load in (store.load_runs, store.load_history):
        first, second = load(one), load(other)
        keep = [name for name in first if name not in TIMES | but]
        pd.testing.assert_frame_equal(first[keep], second[keep], rtol=tolerance, atol=1e-12)


# ------------------------------------------------------------ leases


def test_a_lease_is_had_by_one(tmp_path):
    with leases.taken(tmp_path, ["a", "b"]) as mine:
        assert mine.ids == ["a", "b"]
        with leases.taken(tmp_path, ["b", "c"]) as other:
            assert other.ids == ["c"]
            assert leases.running(tmp_path) == {"a", "b", "c"}
        assert leases.running(tmp_path) == {"a", "b"}
        assert mine.kept() == ["a", "b"]
    assert list(tmp_path.iterdir()) == []


def test_leases_are_given_back_when_training_fails(tmp_path):
    with pytest.raises(MemoryError), leases.taken(tmp_path, ["a"]):
        raise MemoryError
    assert list(tmp_path.iterdir()) == []


def test_of_many_that_ask_at_once_one_gets_each_lease(tmp_path):
    ids, start = [str(i) for i in range(20)], threading.Barrier(8)

    def ask(_):
        start.wait()
        with leases.taken(tmp_path, ids) as mine:
            start.wait()  # hold until all have asked
            return mine.ids

    with ThreadPoolExecutor(8) as pool:
        got = [i for taken in pool.map(ask, range(8)) for i in taken]
    assert sorted(got) == sorted(ids)
    assert list(tmp_path.iterdir()) == []


def die_with_leases(results, ids):
    with leases.taken(results, ids):
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture(scope="module")
def left_by_the_dead(tmp_path_factory):
    """A store in which a process was killed while it held ``a`` and ``b``."""
    results = tmp_path_factory.mktemp("dead")
    process = multiprocessing.get_context("spawn").Process(
        target=die_with_leases, args=(results, ["a", "b"])
    )
    process.start()
    process.join()
    process.close()
    assert {path.name for path in (results / "leases").iterdir()} >= {"a.0", "b.0"}
    return results


@pytest.fixture
def dead_owner(left_by_the_dead, tmp_path):
    """A copy of that store."""
    return shutil.copytree(left_by_the_dead, tmp_path / "dead")


def test_leases_of_a_dead_process_are_free_at_once(dead_owner):
    assert leases.running(dead_owner) == set()
    with leases.taken(dead_owner, ["a", "b", "c"]) as mine:
        assert mine.ids == ["a", "b", "c"]
        assert leases.running(dead_owner) == {"a", "b", "c"}
        with leases.taken(dead_owner, ["a"]) as other:
            assert other.ids == []


def test_of_many_that_find_a_dead_owner_one_takes_over(dead_owner):
    start = threading.Barrier(8)

    def ask(_):
        start.wait()
        with leases.taken(dead_owner, ["a", "b"]) as mine:
            start.wait()
            return mine.ids

    with ThreadPoolExecutor(8) as pool:
        got = Counter(i for taken in pool.map(ask, range(8)) for i in taken)
    # Each once; or by nobody, where two met, who will ask again.
    assert set(got.values()) <= {1}


def test_what_the_dead_left_can_be_cleared(dead_owner):
    with leases.taken(dead_owner, ["living"]):
        leases.clear_dead(dead_owner)
        assert leases.running(dead_owner) == {"living"}
        assert len(list((dead_owner / "leases").iterdir())) == 2
    leases.clear_dead(dead_owner)
    assert not (dead_owner / "leases").exists()


def test_an_owner_on_another_host_lives_as_long_as_it_beats(tmp_path, monkeypatch):
    with leases.taken(tmp_path, ["a"]):
        (owner,) = (tmp_path / "leases").glob("*.owner")
        monkeypatch.setattr(leases, "_host", lambda: "elsewhere")
        assert leases.running(tmp_path) == {"a"}
        long_ago = time.time() - leases.EXPIRY - 1
        os.utime(owner, (long_ago, long_ago))
        assert leases.running(tmp_path) == set()


def test_an_owner_beats(tmp_path, monkeypatch):
    monkeypatch.setattr(leases, "HEARTBEAT", 0.05)
    with leases.taken(tmp_path, ["a"]):
        (owner,) = (tmp_path / "leases").glob("*.owner")
        os.utime(owner, (1, 1))
        wait_until(lambda: owner.stat().st_mtime > 1)


def test_who_was_taken_for_dead_notices(tmp_path, monkeypatch):
    with leases.taken(tmp_path, ["a", "b"]) as slow:
        (owner,) = (tmp_path / "leases").glob("*.owner")
        with monkeypatch.context() as elsewhere:
            elsewhere.setattr(leases, "_host", lambda: "elsewhere")
            os.utime(owner, (1, 1))
            with leases.taken(tmp_path, ["a"]) as other:
                assert other.ids == ["a"]
                assert slow.kept() == ["b"]
                elsewhere.undo()


def test_another_process_with_the_number_of_a_dead_one_is_not_it(tmp_path, monkeypatch):
    began = psutil.Process().create_time() - 1000
    other = {"host": leases._host(), "pid": os.getpid(), "started": began}
    with monkeypatch.context() as before:
        before.setattr(leases, "_this_process", lambda: other)
        with leases.taken(tmp_path, ["a"]):
            assert leases.running(tmp_path) == set()


# ------------------------------------------------------------ a worker's chunk


def train_chunk(part, results, **more):
    options = dict(log_epochs=[], device="cpu", deterministic=False, retry_failed=False)
    options |= dict(advance=lambda runs: None) | more
    return engine._train_chunk(part, results=results, **options)


def test_a_chunk_leaves_alone_what_others_train_or_have_stored(tmp_path):
    ours, theirs, done = small_grid(lrs=[0.01], momenta=[0.9], decays=[0.0, 0.05, 0.5])
    train_chunk([done], tmp_path)
    with leases.taken(tmp_path, ids_of([theirs])):
        outcome = train_chunk([ours, theirs, done], tmp_path)
    assert outcome == Outcome(trained=Counter(ok=1), stored=1, busy=[theirs])
    assert set(store.load_runs(tmp_path)["run_id"]) == ids_of([ours, done])


def test_a_run_that_was_taken_over_is_not_stored_twice(tmp_path):
    """Its owner stalls for so long that another takes it for dead, and trains and stores it."""
    config, kept = small_grid(lrs=[0.01], momenta=[0.9])
    name = sweep.run_id(config)

    def taken_over(runs):
        (tmp_path / "leases" / f"{name}.1").write_text("another")

    outcome = train_chunk([config, kept], tmp_path, advance=taken_over)
    assert outcome == Outcome(trained=Counter(ok=1), busy=[config])
    assert set(store.load_runs(tmp_path)["run_id"]) == ids_of([kept])


def test_a_sweep_waits_for_what_another_trains_and_takes_over_what_it_leaves(tmp_path, monkeypatch):
    left, stored = configs = small_grid(lrs=[0.01], momenta=[0.9])
    reports, looks, running = [], [], leases.running
    monkeypatch.setattr(engine, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(leases, "running", lambda r: looks.append(r) or running(r))

    def is_still_waiting():
        before = len(looks)
        wait_until(lambda: len(looks) >= before + 3 or reports)
        return not reports

    with leases.taken(tmp_path, [sweep.run_id(left)]):
        with leases.taken(tmp_path, [sweep.run_id(stored)]):
            options = dict(workers=1, progress=False)
            thread = threading.Thread(
                target=lambda: reports.append(sweep.run(configs, tmp_path, **options))
            )
            thread.start()
            assert is_still_waiting()
            store.write(tmp_path, [{"run_id": sweep.run_id(stored), "status": "ok"}])
        assert is_still_waiting()
    thread.join(SECONDS)
    assert (reports[0].trained, reports[0].stored) == ({"ok": 1}, 1)
    assert not (tmp_path / "leases").exists()


# ------------------------------------------------------------ tasks on workers


@pytest.fixture
def import_tests(monkeypatch):
    """Worker processes can import this module, whose functions are sent to them by name."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)


def part_of(*lrs):
    return [RunConfig(lr=lr) for lr in lrs]


def deadly(part, *, advance, folder):
    """Counts its calls by files, and dies over the learning rate 0.13."""
    for config in part:
        (folder / f"{config.lr}-{len(part)}-{time.time_ns()}").touch()
    if any(config.lr == 0.13 for config in part):
        os.kill(os.getpid(), signal.SIGKILL)
    return Outcome(trained=Counter(ok=len(part)))


def test_a_run_that_kills_its_worker_is_given_up_and_all_others_complete(
    tmp_path, import_tests, monkeypatch
):
    monkeypatch.setattr(tasks, "TRIES", 2)
    parts = [part_of(0.1, 0.13, 0.2), part_of(0.3), part_of(0.4), part_of(0.5, 0.6)]
    with cluster.local(2) as client:
        task = partial(deadly, folder=tmp_path)
        outcomes = list(tasks.train_on(client, task, parts, lambda runs: None))
    assert sum((o.trained for o in outcomes), Counter()) == {"ok": 6}
    assert [o.fatal for o in outcomes if o.fatal] == [part_of(0.13)]
    names = [path.name.split("-") for path in tmp_path.iterdir()]
    calls = Counter((float(lr), int(size)) for lr, size, _ in names)
    assert calls[0.13, 3] == calls[0.13, 1] == tasks.TRIES
    # Once; or twice, where a worker died before its last outcome was fetched.
    assert {calls[0.3, 1], calls[0.4, 1], calls[0.5, 2], calls[0.1, 1]} <= {1, 2}


def test_a_run_that_was_given_up_is_stored_with_the_reason(tmp_path, monkeypatch):
    dead, *others = configs = small_grid(lrs=[0.01])

    def train_here(task, parts, advance):
        yield Outcome(fatal=[dead])
        yield task(others, advance=advance)

    monkeypatch.setattr(tasks, "train_here", train_here)
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


def die_once(part, *, advance, folder):
    """The first call kills its worker; the second tells its process."""
    with contextlib.suppress(FileExistsError):
        (folder / "first").touch(exist_ok=False)
        os.kill(os.getpid(), signal.SIGKILL)
    (folder / "second").write_text(str(os.getpid()))
    return Outcome(trained=Counter(ok=1))


@pytest.mark.slow
def test_workers_that_die_or_stall_while_they_start_are_waited_for(
    tmp_path, import_tests, monkeypatch
):
    """One dies at once; its successor stalls for longer than Dask is told to wait for one."""
    looks = []
    monkeypatch.setattr(tasks, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(tasks, "COUNT_SECONDS", 0.1)
    count_workers = Client.nthreads
    monkeypatch.setattr(Client, "nthreads", lambda c: looks.append(c) or count_workers(c))

    def kill_the_first():
        wait_until(workers_below)
        workers_below()[0].kill()

    def stall_the_successor():
        wait_until((tmp_path / "first").exists)
        wait_until(lambda: not workers_below())
        wait_until(workers_below)
        (successor,) = workers_below()
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
            task = partial(die_once, folder=tmp_path)
            (outcome,) = tasks.train_on(client, task, [part_of(0.1)], lambda runs: None)
    assert outcome.trained == {"ok": 1}
    assert int((tmp_path / "second").read_text()) == stalled.result()


def test_when_no_worker_can_be_started_again_the_sweep_ends(tmp_path, import_tests, monkeypatch):
    monkeypatch.setattr(tasks, "LOOK_SECONDS", 0.5)
    monkeypatch.setattr(tasks, "GONE_SECONDS", 2)
    with cluster.local(1) as client:
        cluster._kill(client.cluster)  # so that nobody starts another
        with pytest.raises(sweep.SweepError, match=r"^the worker processes are gone") as ended:
            list(tasks.train_on(client, report_twice, [part_of(0.1)], lambda runs: None))
    assert "\n" not in str(ended.value)


def workers_below(pid=None):
    """The worker processes of this process's, or of another's, sweep."""
    return [process for process in family(pid) if is_worker(process)]


def is_worker(process):
    with contextlib.suppress(psutil.Error):
        return "spawn_main" in " ".join(process.cmdline())
    return False


def test_a_worker_may_be_killed_when_all_is_done():
    """What must be cleared away before a process ends is not made in the first place."""
    check = "import gc, ncbook.sweep.worker; from tqdm.std import TqdmDefaultWriteLock, tqdm"
    check += "; assert gc.isenabled() and gc.get_freeze_count()"
    check += "; assert not isinstance(tqdm.get_lock(), TqdmDefaultWriteLock)"
    subprocess.run([sys.executable, "-c", check], check=True)


def test_workers_report_progress_and_errors_and_are_our_own(import_tests):
    news, before = [], dict(os.environ)
    with cluster.local(2) as client:
        outcomes = list(tasks.train_on(client, report_twice, [part_of(0.1)] * 4, news.append))
        wait_until(lambda: client.status == "running")
        assert sum((o.trained for o in outcomes), Counter()) == {"ok": 4}
        with pytest.raises(ValueError, match=r"^no such thing$"):
            list(tasks.train_on(client, raise_error, [part_of(0.1)], news.append))
        assert client.submit(os.environ.get, "OMP_NUM_THREADS").result() == "1"
        addresses = [client.scheduler.address, *client.nthreads()]
        assert all(address.startswith("tls://127.0.0.1:") for address in addresses)
        assert set(client.nthreads().values()) == {1}
        listening = {
            connection.laddr.ip
            for process in [psutil.Process(), *family()]
            for connection in process.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN
        }
        assert listening == {"127.0.0.1"}
    assert 0 < sum(news) <= 3.0
    assert dict(os.environ) == before
    assert left_over(family()) == []


def raise_error(part, *, advance):
    raise ValueError("no such thing")


def test_workers_on_gpus_see_one_each(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def seen(device, worker):
        return cluster._environment(device, worker).get("CUDA_VISIBLE_DEVICES")

    assert [seen("cuda", i) for i in range(4)] == ["0", "1", "0", "1"]
    assert [seen("cuda:1", i) for i in range(2)] == ["1", "1"]
    assert seen("cpu", 0) is None
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-5")
    assert [seen("cuda", i) for i in range(3)] == ["3", "GPU-5", "3"]
    assert cluster.device_in_worker("cuda:1") == "cuda"
    assert sweep.default_workers("cuda") == 2
    assert sweep.default_workers("cuda:1") == 1


# ------------------------------------------------------------ a scheduler of one's own


@contextlib.contextmanager
def started_scheduler(workers):
    """Its address, and the processes that a user has started: it, and that of all workers."""
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1"]
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1"]
    worker += ["--nworkers", str(workers), "--host", "127.0.0.1", "--no-dashboard"]
    quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    environment = os.environ | LIGHT
    started = [
        subprocess.Popen(line, env=environment, **quiet)
        for line in ([*command, "--port", str(port), "--no-dashboard"], worker)
    ]
    with Client(address, timeout=SECONDS, set_as_default=False) as client:
        client.wait_for_workers(workers, timeout=SECONDS)
    yield address, started
    for process in reversed(started):
        process.terminate()
        process.wait(SECONDS)


@pytest.fixture(scope="module")
def scheduler():
    """The address of one with two workers."""
    with started_scheduler(2) as (address, _):
        yield address


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_schedulers_workers_train_and_stay(tmp_path, monkeypatch, scheduler):
    monkeypatch.chdir(tmp_path)
    configs = small_grid()
    report = sweep.run(configs, "results", scheduler=scheduler, progress=False)
    assert report.trained == {"ok": 8}
    assert set(store.load_runs(tmp_path / "results")["run_id"]) == ids_of(configs)
    assert sweep.look(scheduler) == sweep.Workers(scheduler, 2, torch.cuda.device_count())
    assert sweep.run(configs, "results", scheduler=scheduler, progress=False).trained == {}
    here = sweep.run(configs, tmp_path / "here", workers=1, progress=False)
    assert here.trained == report.trained
    assert_same_rows(tmp_path / "results", tmp_path / "here")


def test_a_request_takes_the_schedulers_workers(tmp_path, scheduler):
    asked = sweep.check({"scheduler": scheduler, "results": tmp_path, "epochs": 2, "lrs": 0.01})
    assert (asked.scheduler, asked.workers, asked.device) == (scheduler, 2, "cpu")
    assert f"on cpu with 2 workers of {scheduler}" in html.unescape(sweep.describe(asked))
    with pytest.raises(sweep.ParameterError, match=r"^workers must be empty where a scheduler"):
        sweep.check({"scheduler": scheduler, "workers": 3, "results": tmp_path})
    with pytest.raises(sweep.ParameterError, match=r"^unknown device 'cuda:7'; valid here: cpu"):
        sweep.check({"scheduler": scheduler, "device": "cuda:7", "results": tmp_path})


def test_training_for_a_scheduler_ends_when_the_sweep_does(tmp_path, scheduler):
    """Ctrl-C: the chunks stop, and the workers stay."""
    body = "sweep.run(small_grid(epochs=10**6), results, scheduler={address!r})"
    sweeping = script(tmp_path, body.format(address=scheduler), results=str(tmp_path / "r"))
    wait_until(lambda: leases.running(tmp_path / "r"))
    sweeping.send_signal(signal.SIGINT)
    sweeping.communicate(timeout=SECONDS)
    wait_until(lambda: not (tmp_path / "r" / "leases").exists())
    assert sweep.look(scheduler).count == 2


@pytest.mark.slow
def test_a_scheduler_that_goes_ends_the_sweep_in_one_line(tmp_path):
    results = tmp_path / "r"
    with started_scheduler(1) as (address, (itself, _)):
        body = f"sweep.run(small_grid(epochs=10**6), results, scheduler={address!r})"
        sweeping = script(tmp_path, body, results=str(results))
        wait_until(lambda: leases.running(results))
        itself.kill()
        said, _ = sweeping.communicate(timeout=SECONDS)
    assert sweeping.returncode != 0
    assert said.count("Traceback") == 1
    assert "SweepError: the scheduler is gone; what was trained is stored" in said.splitlines()[-1]
    wait_until(lambda: not leases.running(results))


def test_a_scheduler_that_is_not_there_is_refused():
    address = f"tcp://127.0.0.1:{free_port()}"
    with pytest.raises(sweep.SweepError, match=rf"^no Dask scheduler answers at '{address}'; va"):
        sweep.look(address)


@pytest.mark.parametrize("address", ["nonsense", "tcp://", "http://127.0.0.1:1", "tcp://nohost:x"])
def test_an_address_that_is_none_is_refused_in_one_line(tmp_path, address):
    with pytest.raises(sweep.ParameterError, match=r"^no Dask scheduler answers at") as refused:
        sweep.check({"scheduler": address, "results": str(tmp_path / "new")})
    assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_a_scheduler_without_workers_is_refused_in_one_line(monkeypatch):
    monkeypatch.setattr(cluster, "WORKERS_SECONDS", 0.5)
    with (
        LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0") as nobody,
        pytest.raises(sweep.SweepError, match=r"^the scheduler at \S+ has no workers; start some"),
    ):
        sweep.look(nobody.scheduler_address)


def test_what_cannot_fit_in_memory_is_refused_in_one_line(tmp_path):
    configs = small_grid(width=3000)
    with pytest.raises(
        ValueError, match=r"^8 x mlp \(width 3000\) on digits need .* GiB"
    ) as refused:
        sweep.run(configs, tmp_path, workers=2, progress=False)
    assert "\n" not in str(refused.value)


@dataclasses.dataclass
class Disturbed:
    """Trains chunks, as workers do; once ``ready``, does something in the midst of a training."""

    ready: Callable  # of the results folder
    act: Callable  # of the results folder
    train: Callable = engine._train_chunk

    def __call__(self, part, *, advance, results, **more):
        def report(runs):
            advance(runs)
            if self.ready(results):
                with contextlib.suppress(FileExistsError):
                    (results.parent / "disturbed").touch(exist_ok=False)  # only once
                    self.act(results)

        return self.train(part, advance=report, results=results, **more)


def has_leases(results):
    return (results / leases.FOLDER).exists()


def put_a_file_in_its_place(results):
    (results / "runs").rename(results / "moved")
    (results / "runs").touch()


def test_what_stops_a_worker_is_told_in_one_line(tmp_path, monkeypatch, import_tests):
    """The results folder is taken away during training, and a file put in its place."""
    monkeypatch.setattr(engine, "_train_chunk", Disturbed(has_leases, put_a_file_in_its_place))
    with pytest.raises(sweep.SweepError, match=r"^the results folder") as ended:
        sweep.run(small_grid(), tmp_path / "r", workers=2, progress=False)
    assert "\n" not in str(ended.value)


# ------------------------------------------------------------ what a sweep survives


@pytest.mark.slow
def test_ctrl_c_stops_at_once_and_leaves_no_process_and_no_lease(tmp_path):
    body = "sweep.run(small_grid(epochs=10**6), results, workers=2, progress=False)"
    sweeping = script(tmp_path, body, results=str(tmp_path / "r"))
    wait_until(lambda: leases.running(tmp_path / "r"))
    processes = family(sweeping.pid)
    os.killpg(sweeping.pid, signal.SIGINT)  # as a terminal does: to all of them
    said, _ = sweeping.communicate(timeout=SECONDS)
    assert said.splitlines()[-1] == "KeyboardInterrupt"
    assert said.count("Traceback") == 1
    assert left_over(processes) == []
    assert {path.name for path in (tmp_path / "r").iterdir()} == {"runs"}


@pytest.mark.slow
def test_workers_end_with_their_sweep_and_its_runs_are_free_at_once(tmp_path):
    body = "sweep.run(small_grid(epochs=10**6), results, workers=2, progress=False)"
    sweeping = script(tmp_path, body, results=str(tmp_path / "r"))
    wait_until(lambda: leases.running(tmp_path / "r"))
    processes = family(sweeping.pid)
    assert len(processes) >= 2
    sweeping.kill()
    sweeping.communicate()
    assert left_over(processes) == []
    assert leases.running(tmp_path / "r") == set()
    leases.clear_dead(tmp_path / "r")
    assert {path.name for path in (tmp_path / "r").iterdir()} == {"runs"}


def test_two_sweeps_on_one_store_train_every_run_once(tmp_path):
    body = (
        "print(dict(sweep.run(small_grid(epochs=20), results, workers=1, progress=False).trained))"
    )
    both = [script(tmp_path, body, results=str(tmp_path / "r")) for _ in range(2)]
    trained = []
    for sweeping in both:
        said, _ = sweeping.communicate(timeout=SECONDS)
        assert sweeping.returncode == 0, said
        trained.append(sum(eval(said.splitlines()[-1]).values()))
    assert sum(trained) == 8
    assert rows_in_files(tmp_path / "r") == Counter(ids_of(small_grid(epochs=20)))
    assert {path.name for path in (tmp_path / "r").iterdir()} == {"runs"}


def rows_in_files(results):
    """How often each run was written, whatever a reader would make of it."""
    files = (Path(results) / "runs").glob("*.parquet")
    return Counter(i for file in files for i in pd.read_parquet(file)["run_id"])


GRID = dict(momenta=(0.0, 0.5, 0.9), decays=(0.0, 5e-4, 0.05), epochs=60)


def start_of(seeds, results):
    grid = f"small_grid(seeds=range({seeds}), **{GRID!r})"
    body = f"sweep.run({grid}, results, workers=2, progress=False)"
    return script(results.parent, body, results=str(results))


def at_work(sweeping, results, training, wait):
    """A sweep's workers, some time after they began to start, or to train; none if it is over."""
    there = partial(leases.running, results) if training else partial(workers_below, sweeping.pid)
    wait_until(lambda: there() or sweeping.poll() is not None)
    time.sleep(wait)
    return workers_below(sweeping.pid)


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_kills_lose_nothing_and_train_nothing_twice(tmp_path, kills):
    """Workers and drivers are killed at random moments; whoever is killed as driver is started
    again, and so is a sweep that is over too soon, with more seeds. No file ever goes, and no run
    is in two."""
    rng = random.Random(4)
    results, seen, victims, seeds = tmp_path / "killed", set(), [], kills // 2
    sweeping = start_of(seeds, results)
    for kill in range(kills):
        while not (workers := at_work(sweeping, results, training=kill % 3, wait=rng.random())):
            said, _ = sweeping.communicate()
            assert sweeping.returncode == 0, said
            seeds += 1
            sweeping = start_of(seeds, results)
        victims += family(sweeping.pid)
        victim = sweeping if kill % 3 == 2 else rng.choice(workers)
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.kill()
        if victim is sweeping:
            sweeping.communicate()
            sweeping = start_of(seeds, results)
        files = set(stored_files(results))
        assert seen <= files
        seen = files
    said, _ = sweeping.communicate(timeout=SECONDS)
    assert sweeping.returncode == 0, said
    configs = small_grid(seeds=range(seeds), **GRID)
    assert rows_in_files(results) == Counter(ids_of(configs))
    assert {path.name for path in results.iterdir()} == {"runs"}
    assert all(path.suffix == ".parquet" for path in results.rglob("*") if path.is_file())
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


def stored_files(results):
    return sorted((results / "runs").glob("*.parquet"))


@pytest.fixture
def disk(tmp_path):
    """A small one, which may be filled and made read-only: that stops even the superuser."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not mount("-t", "tmpfs", "-o", "size=4m", "ncbook", folder):
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


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
    wait_until(lambda: mount("-o", "remount,ro", results.parent))  # not while somebody writes


def make_writable(results):
    assert mount("-o", "remount,rw", results.parent)


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
    monkeypatch.setattr(leases, "HEARTBEAT", 0.1)
    with monkeypatch.context() as worker:
        worker.setattr(engine, "_train_chunk", Disturbed(stored_files, refuse))
        with pytest.raises(sweep.SweepError) as ended:
            sweep.run(configs, results, workers=1, progress=False)
    have = store.stored_ids(results)
    relent(results)
    for part in (reason, str(results)):
        assert part in str(ended.value)
    assert "\n" not in str(ended.value)
    assert 0 < len(have) < len(configs)
    wait_until(lambda: not leases.running(results))  # which are given back as soon as they can be
    report = sweep.run(configs, results, workers=1, progress=False)
    assert (report.stored, report.trained) == (len(have), {"ok": len(configs) - len(have)})
    assert rows_in_files(results) == Counter(ids_of(configs))
    assert {path.name for path in results.iterdir()} == {"runs"}
    assert_same_rows(results, undisturbed)


def test_a_file_that_is_cut_in_half_meanwhile_is_set_aside(tmp_path, monkeypatch, undisturbed):
    """The sweep goes on; the next one sets the file aside, and trains its runs again."""
    results, configs, lost = tmp_path / "r", small_grid(**WHILE_ON), {}

    def cut(results):
        file = stored_files(results)[0]
        lost[file.name] = set(pd.read_parquet(file)["run_id"])
        os.truncate(file, file.stat().st_size // 2)

    with monkeypatch.context() as worker:
        worker.setattr(engine, "_train_chunk", Disturbed(stored_files, cut))
        sweep.run(configs, results, workers=1, progress=False)
    ((name, ids),) = lost.items()
    with pytest.warns(store.DamagedFileWarning, match=f"runs/{name}: damaged, set aside; its"):
        report = sweep.run(configs, results, workers=1, progress=False)
    assert (report.stored, report.trained) == (len(configs) - len(ids), {"ok": len(ids)})
    assert (results / "runs" / f"{name}.damaged").exists()
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


# ------------------------------------------------------------ images from files


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A small tree of JPEG files."""
    return write_tree(tmp_path_factory.mktemp("images"), np.random.default_rng(20))


@pytest.fixture(scope="module")
def alone(images, tmp_path_factory):
    """What streamed runs come to in one process, undisturbed, and after how many epochs."""
    results = tmp_path_factory.mktemp("alone")
    report = sweep.run(streamed(images, epochs=EPOCHS), results, workers=1, progress=False)
    assert report.trained == {"ok": 2}
    return results


EPOCHS = 6
PLACE = {"device"}  # says how many threads there were


@pytest.mark.slow
def test_images_are_streamed_by_workers_of_our_own(tmp_path, images, alone):
    configs = streamed(images, epochs=EPOCHS)
    assert sweep.run(configs, tmp_path, workers=2, progress=False).trained == {"ok": 2}
    assert_same_rows(tmp_path, alone, but=PLACE)
    assert no_checkpoint(tmp_path)


@pytest.mark.slow
def test_images_are_streamed_by_workers_that_may_have_no_processes(
    tmp_path, images, alone, scheduler
):
    with Client(scheduler, set_as_default=False) as client:
        daemons = client.run(lambda: multiprocessing.current_process().daemon)
        assert list(daemons.values()) == [True, True]
    configs = streamed(images, epochs=EPOCHS)
    report = sweep.run(configs, tmp_path, scheduler=scheduler, progress=False)
    assert report.trained == {"ok": 2}
    assert_same_rows(tmp_path, alone, but=PLACE)
    assert no_checkpoint(tmp_path)


def dies_after_three_epochs(part, *, results, **more):
    """Trains a run, and notes from which epoch on; the first worker to have trained three dies."""
    (config,) = part
    with open(results.parent / "begun", "a") as file:
        print(epoch_of(config, results), file=file)
    disturbed = Disturbed(lambda results: epoch_of(config, results) >= 3, die)
    return disturbed(part, results=results, **more)


def die(results):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_streamed_run_whose_worker_is_killed_goes_on_from_its_checkpoint(
    tmp_path, images, alone, monkeypatch, import_tests
):
    configs, results = streamed(images, epochs=EPOCHS), tmp_path / "r"
    monkeypatch.setattr(engine, "_train_chunk", dies_after_three_epochs)
    sweep.run(configs, results, workers=2, progress=False)
    first, second, again = map(int, (tmp_path / "begun").read_text().split())
    assert first == second == 0
    assert again >= 3
    assert_same_rows(results, alone, but=PLACE)
    assert set(rows_in_files(results).values()) == {1}
    assert no_checkpoint(results)


def epoch_of(config, results):
    """How far its checkpoint has come; 0 if there is none."""
    with contextlib.suppress(FileNotFoundError):
        content = checkpoint_path(config, results / engine.CHECKPOINTS).read_bytes()
        return torch.load(io.BytesIO(content[DIGEST_BYTES:]), weights_only=True)["epoch"]
    return 0


def no_checkpoint(results):
    return [path for path in results.rglob("*") if "checkpoint" in path.suffix] == []


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
        monkeypatch.setattr(loop, "_step", lambda *parts: chosen.update(compiled=parts[-1]))
        loop._Chunk.start(part, dataset, compiled=None)
        assert chosen["compiled"] is (part[0] is config)
