"""One optimizer's grid: the command that a user types, and the plain PyTorch loop.

    python benchmarks/sweep_vs_loop.py sgd                  # the whole grid; some 20 minutes
    python benchmarks/sweep_vs_loop.py adamw --lrs 1 --epochs 50 --repeats 1
    python benchmarks/sweep_vs_loop.py muonw --lrs 1        # next to torch.optim.Muon and AdamW

In turns, on the same data, networks, seeds and schedule:

- loop: ``torch.optim`` with ``fused=True``, one run after the other, in two processes with one
  thread each, half of the runs each; its start included;
- ncbook: ``papermill notebooks/sweep.ipynb``, the whole command from start to end, into an empty
  store: imports, workers, training, measuring all metrics at eleven epochs, storing, figures. The
  first time with an empty cache, as on a new machine; then with what the first compiled.

The loop measures nothing but the final accuracy and NC0, so that it does the least work that still
shows that the results are the same: the median over the runs is printed. Memory is that of all
processes of ncbook's first go, shared pages counted once.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from torch import nn

from ncbook import data, models, store, sweep
from ncbook.train import RunConfig, learning_rate_factor

NOTEBOOK = Path(__file__).parent.parent / "notebooks" / "sweep.ipynb"
Results = list[tuple[float, float]]  # (training accuracy, NC0) of each run


def sgd(params: list[nn.Parameter], c: RunConfig) -> list[torch.optim.Optimizer]:
    decay = c.weight_decay
    return [torch.optim.SGD(params, c.lr, momentum=c.momentum, weight_decay=decay, fused=True)]


def adam(params: list[nn.Parameter], c: RunConfig) -> list[torch.optim.Optimizer]:
    kind = torch.optim.AdamW if c.optimizer == "adamw" else torch.optim.Adam
    betas = c.momentum, 0.999
    return [kind(params, c.lr, betas, weight_decay=c.weight_decay, fused=True)]


def muonw(params: list[nn.Parameter], c: RunConfig) -> list[torch.optim.Optimizer]:
    """torch's Muon, whose products are bfloat16, for matrices, and AdamW for vectors."""
    matrices = [p for p in params if p.dim() == 2]
    vectors = [p for p in params if p.dim() < 2]
    muon = torch.optim.Muon(matrices, c.lr, c.weight_decay, c.momentum)
    betas = c.momentum, 0.999
    rest = torch.optim.AdamW(vectors, c.vector_lr, betas, weight_decay=c.weight_decay, fused=True)
    return [muon, rest]


# What the plain loop's optimizer does by itself.
LIKE_THE_LOOP = {"muonw": {"update_precision": "bfloat16"}}
MAKE = {"sgd": sgd, "adam": adam, "adamw": adam, "muonw": muonw}


def plain_run(config: RunConfig, dataset: data.Dataset) -> tuple[float, float]:
    """(training accuracy, NC0) after one run of the ordinary loop."""
    torch.manual_seed(config.seed)
    shape = dataset.train_x.shape[1:]
    net = models.build(config.model, dataset.num_classes, shape[0], input_shape=shape)
    optimizers = MAKE[config.optimizer](list(net.parameters()), config)
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    rates = [group["lr"] for group in groups]
    order = torch.Generator().manual_seed(config.seed)
    for epoch in range(config.epochs):
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate * learning_rate_factor(epoch, config.epochs)
        permutation = torch.randperm(len(dataset.train_y), generator=order)
        for batch in permutation.split(config.batch_size):
            net.zero_grad()
            logits = net(dataset.train_x[batch])
            nn.functional.cross_entropy(logits, dataset.train_y[batch]).backward()
            for optimizer in optimizers:
                optimizer.step()
    net.eval()
    with torch.no_grad():
        accuracy = (net(dataset.train_x).argmax(1) == dataset.train_y).double().mean().item()
        return accuracy, net.fc.weight.double().sum(0).norm().item()


def single_threaded(configs: Sequence[RunConfig]) -> Results:
    torch.set_num_threads(1)
    dataset = sweep.load_data(configs[0])
    return [plain_run(config, dataset) for config in configs]


def loop(configs: Sequence[RunConfig]) -> Results:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, context) as pool:
        halves = pool.map(single_threaded, [configs[::2], configs[1::2]])
    return [result for half in halves for result in half]


def papermill(parameters: dict, cache: str) -> Results:
    """What a user types, with two workers."""
    with tempfile.TemporaryDirectory() as folder:
        parameters = parameters | {"results": f"{folder}/results", "workers": 2}
        command = ["papermill", "--no-progress-bar", NOTEBOOK, f"{folder}/out.ipynb"]
        command += ["-y", json.dumps(parameters)]
        environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": cache}
        subprocess.run(command, check=True, capture_output=True, env=environment)
        runs = store.load_runs(f"{folder}/results")
    return list(zip(runs["train_acc"], runs["nc0"], strict=True))


def timed(train: Callable[[], Results]) -> tuple[float, float, float]:
    """(seconds, median accuracy, median NC0)."""
    began = time.perf_counter()
    results = train()
    seconds = time.perf_counter() - began
    accuracies, nc0 = zip(*results, strict=True)
    return seconds, statistics.median(accuracies), statistics.median(nc0)


def children_gigabytes() -> float:
    """Memory of all processes started by this one, in GB, shared pages counted once (Linux)."""
    total, pids = 0, ["self"]
    while pids:
        pid = pids.pop()
        folder = Path("/proc", pid)
        with contextlib.suppress(OSError):
            if pid != "self":
                lines = (folder / "smaps_rollup").read_text().splitlines()
                total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
            for children in (folder / "task").glob("*/children"):
                pids += children.read_text().split()
    return total / 1e6


@contextlib.contextmanager
def peak_memory() -> Iterator[list[float]]:
    """A list of samples, one every two seconds; their maximum is the peak."""
    samples, over = [], threading.Event()

    def sample() -> None:
        while not over.wait(2):
            samples.append(children_gigabytes())

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        over.set()
        thread.join()


def row(label: str, found: list[tuple[float, float, float]], loops: list[float]) -> None:
    """Median and spread of the seconds, and of the ratios to the loop of the same turn."""
    seconds = [second for second, *_ in found]
    ratios = [loop / second for loop, second in zip(loops, seconds, strict=True)]
    print(
        f"{label:22}{statistics.median(seconds):8.1f}  {min(seconds):6.1f}-{max(seconds):<8.1f}"
        f"{found[0][1]:8.4f}{found[0][2]:10.4f}"
        f"{statistics.median(ratios):8.2f}x  {min(ratios):.2f}-{max(ratios):.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("optimizer", nargs="?", default="sgd", choices=MAKE)
    parser.add_argument("--lrs", type=int, default=3, help="how many of the grid's three rates")
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    configs = sweep.grid(asked.optimizer, epochs=asked.epochs)
    rates = sorted({config.lr for config in configs})[: asked.lrs]
    configs = [config for config in configs if config.lr in rates]
    parameters = {"optimizer": asked.optimizer, "lrs": rates, "epochs": asked.epochs}
    parameters |= LIKE_THE_LOOP.get(asked.optimizer, {})
    print(
        f"{len(configs)} runs of {asked.optimizer}, {asked.epochs} epochs, "
        f"{os.cpu_count()} cores, torch {torch.__version__}"
    )
    loops, again = [], []
    with tempfile.TemporaryDirectory() as cache:
        with peak_memory() as samples:
            first = timed(lambda: papermill(parameters, cache))
        for _ in range(asked.repeats):
            loops.append(timed(lambda: loop(configs)))
            again.append(timed(lambda: papermill(parameters, cache)))
    seconds = [second for second, *_ in loops]
    print(f"{'':22}{'seconds':>8}  {'spread':15}{'accuracy':>8}{'NC0':>10}{'loop takes':>11}")
    row("loop, two processes", loops, seconds)
    row("papermill, first", [first], seconds[:1])
    row("papermill, again", again, seconds)
    print(f"peak memory {max(samples):.2f} GB in all")


if __name__ == "__main__":
    sys.exit(main())
