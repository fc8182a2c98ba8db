"""Leases: who trains which run."""

import errno
import os
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
from sweeps import assert_tidy, ids_of, small_grid, wait_until, without_locks

from ncbook import store, sweep
from ncbook.store import leases
from ncbook.sweep import engine
from ncbook.sweep.tasks import Outcome


def take(results, *ids):
    return leases.taken(results, {run_id: {} for run_id in ids})


def files_in(results):
    return sorted(path.name for path in (results / leases.FOLDER).iterdir())


def test_a_run_is_leased_once(tmp_path):
    with take(tmp_path, "a", "b") as ours:
        assert ours == ["a", "b"]
        with take(tmp_path, "b", "c") as others:
            assert others == ["c"]
            assert leases.running(tmp_path).keys() == {"a", "b", "c"}
        assert leases.running(tmp_path).keys() == {"a", "b"}
    assert files_in(tmp_path) == []
    with pytest.raises(MemoryError), take(tmp_path, "a"):  # training fails
        raise MemoryError
    assert files_in(tmp_path) == []


def test_a_lease_says_what_is_trained(tmp_path):
    configs = {"a": {"lr": 0.1, "clip": None}, "b": {"dataset": "folder:\udce9"}}
    with leases.taken(tmp_path, configs):
        assert leases.running(tmp_path) == configs


def ask_at_once(results, ids):
    """What each of eight threads gets, which ask at the same moment."""
    start = threading.Barrier(8)

    def ask(_):
        start.wait()
        with take(results, *ids) as ours:
            start.wait()  # hold until all have asked
            return ours

    with ThreadPoolExecutor(8) as pool:
        return Counter(i for ours in pool.map(ask, range(8)) for i in ours)


def test_of_many_that_ask_at_once_one_gets_each_lease(tmp_path):
    ids = [str(i) for i in range(20)]
    assert ask_at_once(tmp_path, ids) == Counter(ids)
    assert files_in(tmp_path) == []


def test_a_file_that_its_owner_removes_before_we_lock_it_is_no_lease(tmp_path, monkeypatch):
    """The owner ends, and another begins, just after we have opened the owner's file."""
    flock = leases.flock

    def late(file, how):
        monkeypatch.setattr(leases, "flock", flock)
        owner.close()
        successor.enter_context(take(tmp_path, "a"))
        flock(file, how)

    with ExitStack() as successor, ExitStack() as owner:
        owner.enter_context(take(tmp_path, "a"))
        monkeypatch.setattr(leases, "flock", late)
        with take(tmp_path, "a") as ours:
            assert ours == []
        assert leases.running(tmp_path).keys() == {"a"}
    assert files_in(tmp_path) == []


def test_a_lease_is_held_until_its_file_is_gone(tmp_path, monkeypatch):
    unlink, others = Path.unlink, []

    def ask_first(path):
        with take(tmp_path, "a") as ours:
            others.append(ours)
        unlink(path)

    with take(tmp_path, "a"):
        monkeypatch.setattr(Path, "unlink", ask_first)
    assert others == [[]]


HOLD = """
import sys, time
from ncbook.store import leases
with leases.taken(sys.argv[1], dict.fromkeys("ab", {})):
    print("taken", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def dead_owner(tmp_path):
    """A store in which a process was killed while it held the leases of ``a`` and ``b``."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "taken\n"
        assert leases.running(tmp_path).keys() == {"a", "b"}
        process.kill()
    return tmp_path


def test_leases_of_a_dead_process_are_free_at_once(dead_owner):
    assert files_in(dead_owner) == ["a.lock", "b.lock"]
    assert leases.running(dead_owner) == {}
    with take(dead_owner, "a", "b", "c") as ours:
        assert ours == ["a", "b", "c"]
        assert leases.running(dead_owner).keys() == {"a", "b", "c"}
        with take(dead_owner, "a") as others:
            assert others == []
    assert files_in(dead_owner) == []


def test_of_many_that_find_a_dead_owner_one_takes_over(dead_owner):
    assert ask_at_once(dead_owner, "ab") == {"a": 1, "b": 1}


def test_whoever_looks_is_in_nobodys_way(dead_owner):
    """Three look without end: whoever asks for a lease gets it, and nobody sees another look."""
    over, seen = threading.Event(), set()

    def look():
        while not over.is_set():
            seen.update(leases.running(dead_owner))

    def got():
        with take(dead_owner, "a") as ours:
            return ours

    with ThreadPoolExecutor(3) as pool:
        for _ in range(3):
            pool.submit(look)
        try:
            for _ in range(20):
                wait_until(got)
        finally:
            over.set()
    assert "b" not in seen


# ------------------------------------------------------------ what is no lease

NO_LEASES = {"{}": b"{}", "empty": b"", "binary": b"\xff\x00", "a list": b"[]"}


@pytest.mark.parametrize("content", NO_LEASES.values(), ids=NO_LEASES)
def test_what_is_no_lease_keeps_nobody_from_training(tmp_path, content):
    (tmp_path / "leases").mkdir()
    (tmp_path / "leases" / "a.lock").write_bytes(content)
    assert leases.running(tmp_path) == {}
    with take(tmp_path, "a") as ours:
        assert ours == ["a"]
        assert leases.running(tmp_path) == {"a": {}}
    assert files_in(tmp_path) == []


def link_to_a_users_file(path):
    mine = path.parents[2] / "mine"
    mine.write_text("mine")
    path.symlink_to(mine)


NO_FILES = {
    "folder": os.mkdir,
    "pipe": os.mkfifo,
    "loop": lambda path: path.symlink_to(path),
    "link": link_to_a_users_file,
}


@pytest.mark.parametrize("make", NO_FILES.values(), ids=NO_FILES)
def test_what_is_no_file_is_named_and_left_alone(tmp_path, make):
    """A store may be a stranger's: nothing is written through a link, and a pipe blocks nobody."""
    (config,) = small_grid()[:1]
    results = tmp_path / "results"
    path = results / "leases" / f"{sweep.run_id(config)}.lock"
    path.parent.mkdir(parents=True)
    make(path)
    assert leases.running(results) == {}
    with pytest.raises(sweep.SweepError, match=f"'{path}'$") as ended:
        sweep.run([config], results, workers=1, progress=False)
    assert "\n" not in str(ended.value)
    assert os.path.lexists(path)
    assert all(file.read_text() == "mine" for file in tmp_path.glob("mine"))


@pytest.mark.parametrize("make", [Path.touch, os.mkfifo], ids=["file", "pipe"])
def test_a_file_in_place_of_the_leases_is_one_line(tmp_path, make):
    make(tmp_path / "leases")
    assert leases.running(tmp_path) == {}
    with pytest.raises(sweep.SweepError, match=f"File exists: '{tmp_path}/leases'"):
        sweep.run(small_grid()[:1], tmp_path, workers=1, progress=False)


def test_another_users_lease_is_respected_and_taken_when_it_is_left(tmp_path, monkeypatch):
    """Whose file we may only read."""
    opened = leases._opened

    def refuse_to_write(path, mode):
        if mode == "a":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return opened(path, mode)

    with leases.taken(tmp_path, {"a": {"lr": 0.1}}):
        monkeypatch.setattr(leases, "_opened", refuse_to_write)
        with take(tmp_path, "a") as ours:
            assert ours == []
    left = tmp_path / leases.FOLDER / "a.lock"
    left.write_text('{"lr": 0.1}')
    with take(tmp_path, "a") as ours:
        assert ours == ["a"]
        assert leases.running(tmp_path) == {"a": {"lr": 0.1}}


def test_where_nothing_can_be_locked_all_is_trained(tmp_path, monkeypatch):
    """And nobody is said to be training."""
    without_locks(monkeypatch)
    with take(tmp_path, "a") as ours, take(tmp_path, "a") as others:
        assert ours == others == ["a"]
        assert leases.running(tmp_path) == {}
    assert files_in(tmp_path) == []


# ------------------------------------------------------------ sweeps that share a store


def test_a_chunk_leaves_out_what_others_train_or_have_stored(tmp_path):
    ours, theirs, done = small_grid(lrs=[0.01], momenta=[0.9], decays=[0.0, 0.05, 0.5])
    options = dict(results=tmp_path, lacking=partial(sweep.missing, results=tmp_path))
    options |= dict(device="cpu", advance=lambda runs: None)
    engine._train_chunk([done], **options)
    with take(tmp_path, *ids_of([theirs])):
        outcome = engine._train_chunk([ours, theirs, done], **options)
    assert outcome == Outcome(trained=Counter(ok=1), stored=1, busy=[theirs])
    assert set(store.load_runs(tmp_path)["run_id"]) == ids_of([ours, done])


def test_a_sweep_waits_for_what_another_trains_and_takes_over_what_it_leaves(tmp_path, monkeypatch):
    left, stored = configs = small_grid(lrs=[0.01], momenta=[0.9])
    reports, looks, running = [], [], leases.running
    monkeypatch.setattr(engine, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(leases, "running", lambda r: looks.append(r) or running(r))

    def is_still_waiting():
        before = len(looks)
        wait_until(lambda: len(looks) >= before + 3 or reports)
        return not reports

    with take(tmp_path, sweep.run_id(left)):
        with take(tmp_path, sweep.run_id(stored)):
            options = dict(workers=1, progress=False)
            thread = threading.Thread(
                target=lambda: reports.append(sweep.run(configs, tmp_path, **options))
            )
            thread.start()
            assert is_still_waiting()
            store.write(tmp_path, [{"run_id": sweep.run_id(stored), "status": "ok"}])
        assert is_still_waiting()
    thread.join()
    assert (reports[0].trained, reports[0].stored) == ({"ok": 1}, 1)
    assert_tidy(tmp_path)
