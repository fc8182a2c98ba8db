"""What Dask costs and gains: a chunk's way to a worker and back, and two workers beside one.

    python benchmarks/cluster.py                     # both; some 10 minutes
    python benchmarks/cluster.py overhead --tasks 200
    python benchmarks/cluster.py workers --epochs 50

``overhead`` sends 1,000 chunks of nine runs through ``tasks.train_chunks``, as a sweep does; each
keeps a core busy for a tenth of a second, so that scheduler and workers share the cores as in a
sweep. A worker's gap between two chunks is what a chunk of any length costs besides its training.

``workers`` trains a whole grid (adamw on digits, 108 runs), each time from a process of its own,
as papermill does: with one worker, which is that process, and with two, whose start counts; one,
two, two, one, so that a machine that slows down slows both. What torch compiles is kept from a
first chunk that is not timed, as in every sweep but the first on a machine.

Both lines say how many processes were waiting for a core beside the benchmark's own
(the load average before): with more than a few, no figure means much.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import pairwise

from ncbook import sweep
from ncbook.sweep import cluster, tasks
from ncbook.train import RunConfig

TASK_SECONDS = 0.1
WORTH = 1.0  # seconds: the chunk that the overhead is a share of
WORKERS = 2
ORDER = (1, 2, 2, 1)

Span = tuple[int, float, float]  # a task's process, begin and end, by the machine's clock


def keep_busy(part: list[RunConfig], *, advance, seconds: float) -> Span:
    """A chunk that trains nothing, for so long by the clock."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        pass
    advance(len(part))
    return os.getpid(), began, time.monotonic()


def gaps(spans: Sequence[Span]) -> list[float]:
    """Seconds that each worker waited between two tasks."""
    of_process = defaultdict(list)
    for process, *times in spans:
        of_process[process].append(times)
    return [
        after[0] - before[1]
        for times in map(sorted, of_process.values())
        for before, after in pairwise(times)
    ]


def report_overhead(count: int) -> None:
    part = sweep.grid("adamw")[: sweep.engine.CHUNK]
    busy = load()
    with cluster.local(WORKERS) as client:
        task = partial(keep_busy, seconds=TASK_SECONDS)
        began = time.monotonic()
        spans = list(tasks.train_chunks(client, task, [part] * count, lambda runs: None))
        wall = time.monotonic() - began
    waited = gaps(spans)
    low, *_, high = statistics.quantiles(waited, n=20)
    middle = statistics.median(waited)
    whole = wall * WORKERS / count - TASK_SECONDS
    print(f"{count} chunks on {WORKERS} workers, {wall:.1f} s; load before {busy}")
    print(
        f"  between two chunks of a worker: median {1e3 * middle:.1f} ms, 5 to 95 % "
        f"{1e3 * low:.1f} to {1e3 * high:.1f} ms: {middle / WORTH:.2%} of a second-long chunk"
    )
    print(
        f"  by the wall clock, in the mean: {1e3 * whole:.1f} ms: {whole / WORTH:.2%}", flush=True
    )


def seconds_with(workers: int, configs: Sequence[RunConfig]) -> float:
    """Of a sweep in a new process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(_seconds_here, workers, configs).result()


def _seconds_here(workers: int, configs: Sequence[RunConfig]) -> float:
    with tempfile.TemporaryDirectory() as results:
        report = sweep.run(configs, results, workers=workers, progress=False)
    if report.trained.total() != len(configs):
        raise RuntimeError(f"trained {report.trained} of {len(configs)} runs")
    return report.seconds


def report_workers(epochs: int) -> None:
    configs = sweep.grid("adamw", epochs=epochs)
    seconds = defaultdict(list)
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
        seconds_with(1, configs[: sweep.engine.CHUNK])
        for workers in ORDER:
            busy = load()
            seconds[workers].append(seconds_with(workers, configs))
            last = seconds[workers][-1]
            print(f"  workers {workers}: {last:6.1f} s; load before {busy}", flush=True)
    one, two = (statistics.mean(seconds[workers]) for workers in (1, 2))
    print(
        f"{len(configs)} runs of adamw, {epochs} epochs: two workers {one / two:.2f} times as fast"
    )


def load() -> str:
    return f"{os.getloadavg()[0]:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", choices=("overhead", "workers"), help="default: both")
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=200)
    options = parser.parse_args()
    if options.what != "workers":
        report_overhead(options.tasks)
    if options.what != "overhead":
        report_workers(options.epochs)


if __name__ == "__main__":
    main()
