"""Leases: who trains which run."""

import json
import os
import shutil
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import psutil
import pytest
from sweeps import ids_of, small_grid, wait_until

from ncbook import store, sweep
from ncbook.store import leases
from ncbook.sweep import engine
from ncbook.sweep.tasks import Outcome


def owner_in(results):
    (owner,) = (results / "leases").glob("*.owner")
    return owner


def test_a_run_is_leased_once(tmp_path):
    with leases.taken(tmp_path, ["a", "b"]) as ours:
        assert ours == ["a", "b"]
        with leases.taken(tmp_path, ["b", "c"]) as others:
            assert others == ["c"]
            assert leases.running(tmp_path).keys() == {"a", "b", "c"}
        assert leases.running(tmp_path).keys() == {"a", "b"}
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(MemoryError), leases.taken(tmp_path, ["a"]):  # training fails
        raise MemoryError
    assert list(tmp_path.iterdir()) == []


def ask_at_once(results, ids):
    """What each of eight threads gets, which ask at the same moment."""
    start = threading.Barrier(8)

    def ask(_):
        start.wait()
        with leases.taken(results, ids) as ours:
            start.wait()  # hold until all have asked
            return ours

    with ThreadPoolExecutor(8) as pool:
        return Counter(i for ours in pool.map(ask, range(8)) for i in ours)


def test_of_many_that_ask_at_once_one_gets_each_lease(tmp_path):
    ids = [str(i) for i in range(20)]
    assert ask_at_once(tmp_path, ids) == Counter(ids)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def dead_owner(tmp_path):
    """A store in which a process died while it held the leases of ``a`` and ``b``."""
    process = psutil.Popen(["true"])
    dead = {"pid": process.pid, "started": process.create_time(), "host": leases._host()}
    process.wait()
    with pytest.MonkeyPatch.context() as there:
        there.setattr(leases, "_this_process", lambda: dead)
        with leases.taken(tmp_path / "before", ["a", "b"]):
            return shutil.copytree(tmp_path / "before", tmp_path / "left")


def test_leases_of_a_dead_process_are_free_at_once(dead_owner):
    assert {path.name for path in (dead_owner / "leases").iterdir()} >= {"a.lock", "b.lock"}
    assert leases.running(dead_owner).keys() == set()
    with leases.taken(dead_owner, ["a", "b", "c"]) as ours:
        assert ours == ["a", "b", "c"]
        assert leases.running(dead_owner).keys() == {"a", "b", "c"}
        with leases.taken(dead_owner, ["a"]) as others:
            assert others == []


def test_of_many_that_find_a_dead_owner_one_takes_over(dead_owner, monkeypatch):
    """All eight find it dead before the first one acts."""
    found, living_owner = threading.Barrier(8), leases._living_owner

    def judged(path, now):
        owner = living_owner(path, now)
        if path.name == "a.lock":
            found.wait()
        return owner

    monkeypatch.setattr(leases, "_living_owner", judged)
    assert ask_at_once(dead_owner, ["a"]) == {"a": 1}
    monkeypatch.undo()
    assert ask_at_once(dead_owner, ["b"]) == {"b": 1}


def test_what_a_dead_owner_left_can_be_cleared(dead_owner):
    with leases.taken(dead_owner, ["living"]):
        leases.clear_dead(dead_owner)
        assert leases.running(dead_owner).keys() == {"living"}
        assert len(list((dead_owner / "leases").iterdir())) == 2
    leases.clear_dead(dead_owner)
    assert not (dead_owner / "leases").exists()


def test_an_owner_on_another_host_lives_as_long_as_its_heart_beats(tmp_path, monkeypatch):
    """If it was only slow, it does not take the lease from its successor."""
    with ExitStack() as successor:
        with leases.taken(tmp_path, ["a", "b"]):
            monkeypatch.setattr(leases, "_host", lambda: "elsewhere")
            assert leases.running(tmp_path).keys() == {"a", "b"}
            long_ago = time.time() - leases.EXPIRY - 1
            os.utime(owner_in(tmp_path), (long_ago, long_ago))
            assert leases.running(tmp_path).keys() == set()
            assert successor.enter_context(leases.taken(tmp_path, ["a"])) == ["a"]
        assert leases.running(tmp_path).keys() == {"a"}
    assert list(tmp_path.iterdir()) == []


def test_a_heart_beats(tmp_path, monkeypatch):
    monkeypatch.setattr(leases, "HEARTBEAT", 0.05)
    with leases.taken(tmp_path, ["a"]):
        os.utime(owner_in(tmp_path), (1, 1))
        wait_until(lambda: (tmp_path / "leases" / "a.lock").stat().st_mtime > 1)


# ------------------------------------------------------------ what is no lease


def text(content):
    return lambda path: path.write_bytes(content)


def owner_with(**changes):
    return lambda path: path.write_text(
        json.dumps(leases._this_process() | {"runs": {"a": {}}} | changes)
    )


def dated_2099(path):
    owner_with(host="another")(path)
    os.utime(path, (4_070_908_800, 4_070_908_800))


NO_LEASES = {
    "{}": text(b"{}"),
    "empty": text(b""),
    "binary": text(b"\xff\x00"),
    "no host": text(b'{"pid": 1}'),
    "a list": text(b"[]"),
    "pipe": os.mkfifo,
    "loop": lambda path: path.symlink_to(path),
    "dated 2099": dated_2099,
    "runs in a list": owner_with(host="another", runs=[{}]),
    "a config that is none": owner_with(host="another", runs={"a": 1}),
    "deep": text(b"[" * 100_000),
    "words for numbers": owner_with(pid="one"),
    "another process with its number": owner_with(started=psutil.Process().create_time() - 1000),
    "impossible process": owner_with(pid=-5),
    "large process": owner_with(pid=10**30),
    "large time": owner_with(started=10**400),
}


@pytest.mark.parametrize("make", NO_LEASES.values(), ids=NO_LEASES)
def test_what_is_no_lease_keeps_nobody_from_training(tmp_path, make):
    (tmp_path / "leases").mkdir()
    for name in ("a.lock", "b.owner"):
        make(tmp_path / "leases" / name)
    assert leases.running(tmp_path).keys() == set()
    with leases.taken(tmp_path, ["a"]) as ours:
        assert ours == ["a"]
        assert leases.running(tmp_path).keys() == {"a"}
    leases.clear_dead(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("make", [Path.touch, os.mkfifo], ids=["file", "pipe"])
def test_a_file_in_place_of_the_leases_is_one_line(tmp_path, make):
    make(tmp_path / "leases")
    assert leases.running(tmp_path).keys() == set()
    with pytest.raises(sweep.SweepError, match=f"File exists: '{tmp_path}/leases'"):
        sweep.run(small_grid()[:1], tmp_path, workers=1, progress=False)


# ------------------------------------------------------------ sweeps that share a store


def test_a_chunk_leaves_out_what_others_train_or_have_stored(tmp_path):
    ours, theirs, done = small_grid(lrs=[0.01], momenta=[0.9], decays=[0.0, 0.05, 0.5])
    options = dict(results=tmp_path, lacking=partial(sweep.missing, results=tmp_path))
    options |= dict(device="cpu", advance=lambda runs: None)
    engine._train_chunk([done], **options)
    with leases.taken(tmp_path, ids_of([theirs])):
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
    thread.join()
    assert (reports[0].trained, reports[0].stored) == ({"ok": 1}, 1)
    assert not (tmp_path / "leases").exists()
