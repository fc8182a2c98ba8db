"""One optimizer's grid, trained by ncbook and by the plain PyTorch loop that most people write.

    python benchmarks/sweep_vs_loop.py                 # the whole grid of adamw; some 10 minutes
    python benchmarks/sweep_vs_loop.py sgd --runs 18   # fewer runs

Side by side in one go, on the same data, networks, seeds and schedule:

Memory is that of all processes of ncbook's first go, shared pages counted once.

- loop, one process: ``torch.optim``, one run after the other, torch's default threads;
- loop, two processes: the same with one thread each, half of the runs each, ``fused=True``;
- ncbook: ``sweep.run`` with two workers into an empty store; its time includes the workers' start,
  compiling, measuring all metrics at eleven epochs and writing. ``first`` compiles with an empty
  cache, as on a new machine; ``again`` with what the first left.

The loops measure nothing but the final accuracy and NC0, so that they do the least work that still
shows that the results are the same: for each, the median over the runs is printed.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from torch import nn

from ncbook import data, models, store, sweep
from ncbook.train import RunConfig, learning_rate_factor

MAKE = {
    "sgd": lambda p, c, fused: torch.optim.SGD(
        p, c.lr, momentum=c.momentum, weight_decay=c.weight_decay, fused=fused
    ),
    "adam": lambda p, c, fused: torch.optim.Adam(
        p, c.lr, betas=(c.momentum, 0.999), weight_decay=c.weight_decay, fused=fused
    ),
    "adamw": lambda p, c, fused: torch.optim.AdamW(
        p, c.lr, betas=(c.momentum, 0.999), weight_decay=c.weight_decay, fused=fused
    ),
}


def plain_run(config: RunConfig, dataset: data.Dataset, fused: bool) -> tuple[float, float]:
    """(training accuracy, NC0) after one run of the ordinary loop."""
    torch.manual_seed(config.seed)
    shape = dataset.train_x.shape[1:]
    net = models.build(config.model, dataset.num_classes, shape[0], input_shape=shape)
    optimizer = MAKE[config.optimizer](net.parameters(), config, fused)
    order = torch.Generator().manual_seed(config.seed)
    for epoch in range(config.epochs):
        for group in optimizer.param_groups:
            group["lr"] = config.lr * learning_rate_factor(epoch, config.epochs)
        permutation = torch.randperm(len(dataset.train_y), generator=order)
        for batch in permutation.split(config.batch_size):
            optimizer.zero_grad()
            logits = net(dataset.train_x[batch])
            nn.functional.cross_entropy(logits, dataset.train_y[batch]).backward()
            optimizer.step()
    net.eval()
    with torch.no_grad():
        accuracy = (net(dataset.train_x).argmax(1) == dataset.train_y).double().mean().item()
        return accuracy, net.fc.weight.double().sum(0).norm().item()


def plain_runs(configs: Sequence[RunConfig], fused: bool = False) -> list[tuple[float, float]]:
    dataset = sweep.load_data(configs[0])
    return [plain_run(config, dataset, fused) for config in configs]


def single_threaded(configs: Sequence[RunConfig]) -> list[tuple[float, float]]:
    torch.set_num_threads(1)
    return plain_runs(configs, fused=True)


def one_process(configs: Sequence[RunConfig]) -> list[tuple[float, float]]:
    return plain_runs(configs)


def two_processes(configs: Sequence[RunConfig]) -> list[tuple[float, float]]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, context) as pool:
        halves = pool.map(single_threaded, [configs[::2], configs[1::2]])
    return [result for half in halves for result in half]


def ncbook(configs: Sequence[RunConfig]) -> list[tuple[float, float]]:
    with tempfile.TemporaryDirectory() as results:
        sweep.run(configs, results, workers=2, progress=False)
        runs = store.load_runs(results)
    return list(zip(runs["train_acc"], runs["nc0"], strict=True))


def timed(train, configs: Sequence[RunConfig]) -> tuple[float, float, float]:
    """(seconds, median accuracy, median NC0)."""
    began = time.perf_counter()
    results = train(configs)
    seconds = time.perf_counter() - began
    accuracies, nc0 = zip(*results, strict=True)
    return seconds, statistics.median(accuracies), statistics.median(nc0)


def family_gigabytes() -> float:
    """Memory of this process and its children now, in GB, shared pages counted once (Linux)."""
    total, pids = 0, ["self"]
    while pids:
        folder = Path("/proc", pids.pop())
        with contextlib.suppress(OSError):
            lines = (folder / "smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
            for children in (folder / "task").glob("*/children"):
                pids += children.read_text().split()
    return total / 1e6


@contextlib.contextmanager
def peak_memory() -> Iterator[list[float]]:
    """A list of samples, one every half second; their maximum is the peak."""
    samples, over = [], threading.Event()

    def sample() -> None:
        while not over.wait(0.5):
            samples.append(family_gigabytes())

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        over.set()
        thread.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("optimizer", nargs="?", default="adamw", choices=MAKE)
    parser.add_argument("--runs", type=int, help="only the first of the grid's runs")
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--precision", default="float32", help="of ncbook's hidden layers")
    arguments = parser.parse_args()
    configs = sweep.grid(arguments.optimizer, epochs=arguments.epochs)[: arguments.runs]
    ours = sweep.grid(arguments.optimizer, epochs=arguments.epochs, precision=arguments.precision)[
        : arguments.runs
    ]
    print(
        f"{len(configs)} runs of {arguments.optimizer}, {arguments.epochs} epochs, "
        f"{os.cpu_count()} cores, torch {torch.__version__}"
    )
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
        with peak_memory() as samples:
            first = timed(ncbook, ours)
        again = [timed(ncbook, ours) for _ in range(3)]
    two = timed(two_processes, configs)
    one = timed(one_process, configs)
    middle = sorted(again)[1]
    rows = {"loop, one process": one, "loop, two processes": two, "ncbook, first": first}
    print(f"{'':22}{'seconds':>9}{'accuracy':>10}{'NC0':>9}{'ncbook is':>14}")
    for label, (seconds, accuracy, nc0) in (rows | {"ncbook, again": middle}).items():
        faster = f"{seconds / middle[0]:.2f}x faster" if label.startswith("loop") else ""
        print(f"{label:22}{seconds:9.1f}{accuracy:10.4f}{nc0:9.4f}{faster:>14}")
    spread = ", ".join(f"{seconds:.1f}" for seconds, *_ in again)
    print(f"again, three times: {spread} s; peak memory {max(samples):.2f} GB in all")


if __name__ == "__main__":
    sys.exit(main())
