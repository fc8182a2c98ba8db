"""What tests of sweeps share: small grids, other processes, and the comparison of stores."""

import contextlib
import errno
import itertools
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
from conftest import SECONDS
from distributed import Client
from PIL import Image

from ncbook import store, sweep
from ncbook.store import leases
from ncbook.sweep import engine

SMALL = dict(train_size=100, batch_size=50, epochs=2)
TIMES = {"wall_time_s", "created_at"}
# Members that are measured together differ from those measured alone in the last bits of a double.
LAST_BITS = 1e-9
# For new processes: compiling takes seconds, and these tests are about something else.
LIGHT = {"OMP_NUM_THREADS": "1", "TORCHDYNAMO_DISABLE": "1"}


def small_grid(optimizer="sgd", lrs=(0.01, 0.05), momenta=(0.0, 0.9), decays=(0.0, 0.05), **more):
    return sweep.grid(optimizer, lrs, momenta, decays, **(SMALL | more))


def ids_of(configs):
    return {sweep.run_id(config) for config in configs}


def write_images(folder, classes=("cat", "dog"), shade=0, count=10):
    """A folder of small images, for training and for tests."""
    for part, name in itertools.product(("train", "test"), classes):
        (folder / part / name).mkdir(parents=True)
        for i in range(count):
            pixels = np.full((8, 8, 3), (shade + 20 * i) % 256, dtype=np.uint8)
            Image.fromarray(pixels).save(folder / part / name / f"{i}.bmp")
    return folder


# ------------------------------------------------------------ stores


def stored_files(results):
    return sorted((Path(results) / "runs").glob("*.parquet"))


def rows_in_files(results):
    """How often each run was written, whatever a reader would make of it."""
    return Counter(i for file in stored_files(results) for i in pd.read_parquet(file)["run_id"])


def assert_same_rows(one, other, tolerance=LAST_BITS, but=frozenset()):
    """Two stores hold the same runs and epochs, except for times."""
    for load in (store.load_runs, store.load_history):
        first, second = load(one), load(other)
        keep = [name for name in first if name not in TIMES | but]
        pd.testing.assert_frame_equal(first[keep], second[keep], rtol=tolerance, atol=1e-12)


def assert_tidy(results):
    """Nothing but stored runs, and what killed processes left of their leases: nobody trains, no
    checkpoint, no temporary file."""
    assert leases.running(results) == {}
    files = [path for path in results.rglob("*") if path.is_file()]
    assert {p.suffix for p in files if p.parent != results / leases.FOLDER} <= {".parquet"}


# ------------------------------------------------------------ processes


def without_locks(monkeypatch):
    """As on some network file systems."""

    def refuse(file, how):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(leases, "flock", refuse)


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


def workers_below(pid=None):
    """The worker processes of a sweep, of this process or of another."""
    return [process for process in family(pid) if has_in_command(process, "spawn_main")]


def left_over(processes):
    """Those that do not end by themselves, except for Python's own, which ends with us."""
    ours = [process for process in processes if not has_in_command(process, "resource_tracker")]
    return psutil.wait_procs(ours, timeout=SECONDS)[1]


def has_in_command(process, word):
    with contextlib.suppress(psutil.Error):
        return word in " ".join(process.cmdline())
    return False


def start_script(folder, body, **values):
    """A new Python that runs a sweep; ``body`` sees ``small_grid``, ``sweep`` and ``values``."""
    text = textwrap.dedent(
        """
        def main():
            import sys
            sys.path.insert(0, {here!r})
            from sweeps import small_grid
            from ncbook import sweep
        {body}
        if __name__ == "__main__":
            main()
        """
    ).format(here=str(Path(__file__).parent), body=textwrap.indent(body, "    ").format(**values))
    path = folder / f"script_{abs(hash(body)) % 10**8}.py"
    path.write_text(text)
    return subprocess.Popen(
        [sys.executable, str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | LIGHT,
        start_new_session=True,
    )


@dataclass
class Disturbed:
    """Trains chunks, as workers do; once ``ready``, does something in the middle of a training."""

    ready: Callable  # takes the results folder
    act: Callable  # takes the results folder
    train: Callable = engine._train_chunk

    def __call__(self, part, *, advance, results, **more):
        def report(runs):
            advance(runs)
            if self.ready(results):
                with contextlib.suppress(FileExistsError):
                    (results.parent / "disturbed").touch(exist_ok=False)  # only once
                    self.act(results)

        return self.train(part, advance=report, results=results, **more)


def die(results=None):
    os.kill(os.getpid(), signal.SIGKILL)


# ------------------------------------------------------------ a scheduler that a user has started


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def started_scheduler(workers, tls=(), security=None, threads=1):
    """Its address, and two processes: the scheduler, and the parent of all workers."""
    port = free_port()
    address = f"{'tls' if tls else 'tcp'}://127.0.0.1:{port}"
    lines = [["dask_scheduler", "--protocol", address[:3], "--port", str(port)]]
    if workers:
        lines += [["dask_worker", address, "--nthreads", str(threads)]]
        lines[-1] += ["--nworkers", str(workers)]
    common = ["--host", "127.0.0.1", "--no-dashboard", *tls]
    quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | LIGHT)
    started = [
        subprocess.Popen(
            [sys.executable, "-m", f"distributed.cli.{name}", *words, *common], **quiet
        )
        for name, *words in lines
    ]
    try:
        with Client(address, timeout=SECONDS, security=security, set_as_default=False) as client:
            wait_until(lambda: len(client.nthreads()) == workers)
        yield address, started
    finally:
        for process in reversed(started):
            process.kill()
            process.wait(SECONDS)
