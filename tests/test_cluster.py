"""Worker processes, those of a scheduler, and leases."""

import multiprocessing
import os
import signal
import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
import torch
from distributed import LocalCluster

from ncbook import store, sweep
from ncbook.sweep import cluster, engine, leases, tasks
from ncbook.sweep.stored import Stored
from ncbook.sweep.tasks import Outcome

SMALL = dict(train_size=100, batch_size=50, epochs=2)
SECONDS = 120  # until something counts as hung; a busy machine is slow


def small_grid(optimizer="sgd", lrs=(0.01, 0.05), momenta=(0.0, 0.9), decays=(0.0, 0.05), **more):
    return sweep.grid(optimizer, lrs, momenta, decays, **(SMALL | more))


def ids_of(configs):
    return {sweep.run_id(config) for config in configs}


def wait_until(condition, seconds=SECONDS):
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it did not happen"
        time.sleep(0.02)


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


@pytest.fixture
def dead_owner(tmp_path):
    """A store in which a process was killed while it held ``a`` and ``b``."""
    process = multiprocessing.get_context("spawn").Process(
        target=die_with_leases, args=(tmp_path, ["a", "b"])
    )
    process.start()
    process.join()
    process.close()
    assert {path.name for path in (tmp_path / "leases").iterdir()} >= {"a.0", "b.0"}
    return tmp_path


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


# ------------------------------------------------------------ what is stored by now


def record(run_id, status="ok"):
    why = {"reason": "it died"} if status == store.FAILED else {}
    return {"run_id": run_id, "status": status} | why


def test_what_is_stored_is_seen_as_it_appears(tmp_path):
    stored = Stored(tmp_path)
    assert stored.among(["a"]) == {}
    store.write(tmp_path, [record("a"), record("b", "diverged")])
    assert stored.among(["a", "b", "c"]) == {"a": "ok", "b": "diverged"}
    store.write(tmp_path, [record("c", "failed")])
    assert stored.among(["a", "c"]) == {"a": "ok", "c": "failed"}
    assert stored.among(["a", "c"], retry_failed=True) == {"a": "ok"}
    store.write(tmp_path, [record("c")])
    assert stored.among(["c"], retry_failed=True) == {"c": "ok"}


def test_what_was_merged_or_set_aside_is_read_anew(tmp_path):
    stored = Stored(tmp_path)
    for i in range(4):
        store.write(tmp_path, [record(str(i))])
    assert len(stored.among("0123")) == 4
    assert store.compact(tmp_path, at_least=2) == 4
    assert len(stored.among("0123")) == 4
    (file,) = (tmp_path / "runs").glob("*.parquet")
    file.rename(file.with_suffix(".aside"))
    assert stored.among("0123") == {}


def test_a_damaged_file_holds_nothing(tmp_path):
    file = store.write(tmp_path, [record("a")])
    file.write_bytes(file.read_bytes()[:50])
    assert Stored(tmp_path).among(["a"]) == {}


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


def test_a_sweep_waits_for_what_another_trains_and_takes_over_what_it_leaves(tmp_path):
    left, stored = configs = small_grid(lrs=[0.01], momenta=[0.9])
    reports = []
    with leases.taken(tmp_path, [sweep.run_id(left)]):
        with leases.taken(tmp_path, [sweep.run_id(stored)]):
            options = dict(workers=1, progress=False)
            thread = threading.Thread(
                target=lambda: reports.append(sweep.run(configs, tmp_path, **options))
            )
            thread.start()
            time.sleep(1.5)
            assert reports == []
            store.write(tmp_path, [record(sweep.run_id(stored))])
        time.sleep(1.5)
        assert reports == []
    thread.join(SECONDS)
    assert (reports[0].trained, reports[0].stored) == ({"ok": 1}, 1)
    assert not (tmp_path / "leases").exists()


# ------------------------------------------------------------ tasks on workers


def deadly(part, *, advance, folder):
    """Counts its calls by files, and dies over the learning rate 0.13."""
    for config in part:
        (folder / f"{config.lr}-{len(part)}-{time.time_ns()}").touch()
    if any(config.lr == 0.13 for config in part):
        os.kill(os.getpid(), signal.SIGKILL)
    return Outcome(trained=Counter(ok=len(part)))


def test_a_run_that_was_given_up_is_stored_with_the_reason(tmp_path, monkeypatch):
    dead, *others = configs = small_grid(lrs=[0.01])

    def train_here(task, parts, advance):
        yield Outcome(deadly=[dead])
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


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_scheduler_that_is_not_there_is_refused_soon():
    began = time.perf_counter()
    address = f"tcp://127.0.0.1:{free_port()}"
    with pytest.raises(sweep.SweepError, match=rf"^no Dask scheduler answers at '{address}'; va"):
        sweep.look(address)
    assert time.perf_counter() - began < 10


@pytest.mark.parametrize("address", ["nonsense", "tcp://", "http://127.0.0.1:1", "tcp://nohost:x"])
def test_an_address_that_is_none_is_refused_in_one_line(tmp_path, address):
    began = time.perf_counter()
    with pytest.raises(sweep.ParameterError, match=r"^no Dask scheduler answers at") as refused:
        sweep.check({"scheduler": address, "results": str(tmp_path / "new")})
    assert "\n" not in str(refused.value)
    assert time.perf_counter() - began < 10
    assert list(tmp_path.iterdir()) == []


def test_a_scheduler_without_workers_is_refused_in_one_line(monkeypatch):
    monkeypatch.setattr(cluster, "WORKERS_SECONDS", 0.5)
    with (
        LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address=None) as nobody,
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
