"""A store of 100,000 runs with 20 logged epochs each: what reading and writing cost.

    python benchmarks/store.py                        # 100,000 runs, by nines; some minutes, 1 GB
    python benchmarks/store.py --chunk 1 --runs 5000  # a file a run, as of large networks
    python benchmarks/store.py --compact-every 0      # never compacted

The runs and their epochs have the columns that a sweep writes; their values are random, which no
compression makes smaller. They are stored by ``store.write`` and compacted now and then,
as a sweep does. Each line is the best of ``--repeat`` goes, each in a process of its own: its
seconds, and by how much it raised the peak of that process's memory (``VmHWM``) above what the
imports take. Files are in the system's cache. A write is the median of 50, and syncs its file to
the disk.
"""

import argparse
import dataclasses
import itertools
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from ncbook import metrics, store
from ncbook.train import RunConfig

# Blocks of 216 runs, a data set, network and optimizer each; then the same with the next seed.
AXES = {
    "dataset": ("mnist", "fashion_mnist", "cifar10"),
    "model": ("mlp", "resnet9", "vgg9"),
    "optimizer": ("sgd", "sgdw", "adam", "adamw", "signum", "signumw"),
    "lr": (0.1, 0.0679, 0.01, 0.00679, 0.001, 0.000679),
    "momentum": (0.0, 0.5, 0.9, 0.95),
    "weight_decay": (0.0, 5e-5, 5e-4, 5e-3, 5e-2, 0.1, 0.2, 0.3, 0.5),
}
METRICS = [*metrics.KEYS, "train_loss", "train_acc", "test_loss", "test_acc"]
METRICS += ["w_sv_min", "w_sv_mean", "m_sv_min", "m_sv_mean"]
STARTS = [f"{name}_init" for name in metrics.KEYS]
SAME = dataclasses.asdict(RunConfig()) | {
    "status": "ok",
    "diverged_epoch": None,
    "wall_time_s": 12.5,
    "ncbook_version": "0.1.0",
    "git_commit": "0123456789abcdef0123456789abcdef01234567",
    "torch_version": "2.15.0",
    "python_version": "3.11.7",
    "device": "cpu (x86_64, 1 threads)",
    "processor": "AMD family 25, model 17, stepping 1",
    "created_at": "2026-01-01T00:00:00+00:00",
}
BLOCK = {"dataset": "mnist", "model": "mlp", "optimizer": "adam"}
WRITES = 50
MEGABYTE = 2**20


def grid() -> Iterator[dict]:
    """Settings without end: the axes' points, then those of the next seed."""
    for seed in itertools.count():
        for point in itertools.product(*AXES.values()):
            yield dict(zip(AXES, point, strict=True)) | {"seed": seed}


def records(settings: list[dict], epochs: int, random: np.random.Generator) -> tuple[list, list]:
    """Runs and their history, as ``store.write`` takes them."""
    runs, history = [], []
    for chosen in settings:
        name = {"run_id": store.run_id(chosen)}
        values = random.random((epochs, len(METRICS))).tolist()
        last = dict(zip(METRICS, values[-1], strict=True))
        first = dict(zip(STARTS, values[0], strict=False))
        runs.append(name | SAME | chosen | last | first)
        history += [
            name | {"epoch": 10 * epoch} | dict(zip(METRICS, row, strict=True))
            for epoch, row in enumerate(values)
        ]
    return runs, history


def build(results: Path, runs: int, epochs: int, chunk: int, compact_every: int) -> None:
    """A store of so many runs, in chunks, as a sweep leaves it."""
    random, settings = np.random.default_rng(0), grid()
    for count, first in enumerate(range(0, runs, chunk), 1):
        part = list(itertools.islice(settings, min(chunk, runs - first)))
        store.write(results, *records(part, epochs, random))
        if compact_every and count % compact_every == 0:
            store.compact(results)


def peak_bytes() -> int:
    """The most memory this process has had. Its parent's counts in ``getrusage``, but not here."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    raise OSError("/proc/self/status does not tell VmHWM")


def measure(task: Callable[[], object], answer) -> None:
    """In a process of its own: seconds, bytes, and the size of what came out."""
    before, began = peak_bytes(), time.perf_counter()
    out = task()
    seconds = time.perf_counter() - began
    answer.put((seconds, peak_bytes() - before, out if isinstance(out, int) else len(out)))


def measured(task: Callable[[], object]) -> tuple[float, int, int]:
    """``measure`` in a new process."""
    context = multiprocessing.get_context("spawn")
    answer = context.SimpleQueue()
    process = context.Process(target=measure, args=(task, answer))
    process.start()
    result = answer.get()
    process.join()
    return result


def report(name: str, task: Callable[[], object], repeat: int = 1) -> None:
    """One line: the best of so many goes."""
    seconds, size, count = min(measured(task) for _ in range(repeat))
    print(f"  {name:<34} {seconds:7.2f} s {size / MEGABYTE:6.0f} MB  {count:>9,}", flush=True)


def report_reading(results: Path, repeat: int) -> None:
    """What is read, and how fast."""
    files = store.list_files(results)
    size = sum(path.stat().st_size for path in files) / MEGABYTE
    print(f"{len(files):,} files, {size:,.0f} MB on disk", flush=True)
    report("load_runs, one data set and model", partial(store.load_runs, results, **FILTER), repeat)
    report("load_history, one block", partial(store.load_history, results, **FIRST_BLOCK), repeat)
    report("statuses", partial(store.statuses, results), repeat)
    report("set_aside_damaged", partial(store.set_aside_damaged, results), repeat)


FILTER = {name: BLOCK[name] for name in ("dataset", "model")}
FIRST_BLOCK = BLOCK | {"seed": 0}


def write_milliseconds(results: Path, epochs: int, chunk: int) -> float:
    """The median of some writes of a chunk; the runs stay there."""
    random = np.random.default_rng(1)
    times = []
    for i in range(WRITES):
        part = [dict(BLOCK, seed=-1, point=i * chunk + j) for j in range(chunk)]
        written = records(part, epochs, random)
        began = time.perf_counter()
        store.write(results, *written)
        times.append(1e3 * (time.perf_counter() - began))
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--chunk", type=int, default=9, help="runs that are written together")
    parser.add_argument(
        "--compact-every", type=int, default=256, help="chunks; as a sweep does; 0: never"
    )
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument(
        "--folder", help="where to build the store; default: one for temporary files"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        results = Path(folder) / "results"
        empty = write_milliseconds(Path(folder) / "empty", options.epochs, options.chunk)
        began = time.perf_counter()
        build(results, options.runs, options.epochs, options.chunk, options.compact_every)
        print(f"built in {time.perf_counter() - began:.0f} s")
        report_reading(results, options.repeat)
        full = write_milliseconds(results, options.epochs, options.chunk)
        print(f"one write: {empty:.1f} ms into an empty store, {full:.1f} ms into this one")


if __name__ == "__main__":
    main()
