"""Networks for images: ncbook's training step and NC evaluation beside the plain loop, in one run.

    python benchmarks/networks.py                          # ResNet9 and VGG9, 2,000 MNIST images
    python benchmarks/networks.py resnet9 --width 1/8      # a narrow one: six members as a grid
    python benchmarks/networks.py vit --dataset cifar10    # any network, any data set
    python benchmarks/networks.py resnet9 --train-size 0 --device cuda    # all images, on a GPU

Needs the data set's files in ``NCBOOK_DATA`` (or a network to download them). What is compared:

- plain: what most people write: a DataLoader over torchvision's data set with transforms (resize,
  to tensor, normalise), torch's modules and optimizer, torch's default threads; on a GPU with
  ``.to(device)`` of each batch;
- recipe (GPU): the public recipes' ideas: all images on the device, channels last, bf16 autocast,
  ``torch.compile`` of the network, fused optimizer;
- ncbook: members as ``train_members`` trains them, in float32 and bfloat16; ``2 processes`` is how
  a sweep on two cores does it, one single-threaded process each, in seconds a run.

Each is timed over whole epochs after one to warm up; the median is printed, and the spread. The
share of the peak is that of a large matrix product of the same precision on the same threads,
measured here; a step is counted as three forward passes.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from fractions import Fraction

import torch
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ncbook import data, models, sweep
from ncbook.train import RunConfig, loop
from ncbook.train import measure as measuring
from ncbook.train.context import heap_kept

CLASSES = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "cifar10": "CIFAR10"}
MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024


def synchronise(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def seconds(work: Callable[[], object], times: int, device: str) -> list[float]:
    """Seconds of each of ``times`` calls, after one that is not counted."""
    found = []
    for _ in range(times + 1):
        synchronise(device)
        began = time.perf_counter()
        work()
        synchronise(device)
        found.append(time.perf_counter() - began)
    return sorted(found[1:])


# ------------------------------------------------------------------------------- the loops


def loader(config: RunConfig, train: bool) -> torch.utils.data.DataLoader:
    """torchvision's data set behind transforms, the same images as ncbook's."""
    transforms = torchvision.transforms.Compose(
        [
            torchvision.transforms.Resize(models.MODELS[config.model].image_size),
            torchvision.transforms.ToTensor(),
            torchvision.transforms.Normalize((0.5,), (0.25,)),
        ]
    )
    source = getattr(torchvision.datasets, CLASSES[config.dataset])
    whole = source(str(data.data_dir()), train=train, transform=transforms)
    count = config.train_size if train and config.train_size else len(whole)
    subset = torch.utils.data.Subset(whole, range(count))
    return torch.utils.data.DataLoader(subset, batch_size=config.batch_size, shuffle=train)


def plain_epoch(config: RunConfig, device: str) -> Callable[[], None]:
    """One epoch of the ordinary loop."""
    torch.manual_seed(config.seed)
    channels = 3 if config.dataset == "cifar10" else 1
    net = models.build(config.model, 10, channels, config.width, depth=config.depth).to(device)
    optimizer = torch.optim.SGD(net.parameters(), config.lr, config.momentum, weight_decay=5e-4)
    batches = loader(config, train=True)

    def epoch() -> None:
        net.train()
        for x, y in batches:
            x, y = x.to(device), y.to(device)
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            optimizer.step()

    return epoch


def recipe_epoch(config: RunConfig, device: str) -> Callable[[], None]:
    """One epoch with the public recipes' ideas, for a GPU."""
    dataset = sweep.load_data(config, device)
    net = models.build(config.model, 10, dataset.input_shape[0], config.width).to(device)
    net = torch.compile(net.to(memory_format=torch.channels_last))
    optimizer = torch.optim.SGD(
        net.parameters(), config.lr, config.momentum, weight_decay=5e-4, fused=True
    )

    def epoch() -> None:
        order = torch.randperm(len(dataset.train_y), device=device)
        for batch in order.split(config.batch_size):
            x = dataset.inputs(dataset.train_x[batch])
            x = x.contiguous(memory_format=torch.channels_last)
            with torch.autocast(device, torch.bfloat16):
                loss = nn.functional.cross_entropy(net(x), dataset.train_y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return epoch


def chunk(configs: list[RunConfig], device: str, compiled: bool = True) -> loop._Chunk:
    return loop._Chunk(configs, sweep.load_data(configs[0], device), compiled)


def our_epoch(configs: list[RunConfig], device: str) -> Callable[[], None]:
    """One epoch of all members, as ``train_members`` takes it."""
    members, epochs = chunk(configs, device), iter(range(10**6))
    return lambda: members.train_epoch(next(epochs) % configs[0].epochs)


def our_seconds(configs: list[RunConfig], times: int, device: str) -> list[float]:
    """``seconds`` of epochs of all members."""
    with heap_kept():
        return seconds(our_epoch(configs, device), times, device)


def _process(config: RunConfig, times: int, ready, found) -> None:
    torch.set_num_threads(1)
    epoch = our_epoch([config], "cpu")
    epoch()
    ready.wait()
    with heap_kept():
        found.put(seconds(epoch, times, "cpu"))


def in_processes(config: RunConfig, count: int, times: int) -> list[float]:
    """Seconds an epoch and run, of ``count`` single-threaded processes at the same time."""
    context = multiprocessing.get_context("spawn")
    ready, found = context.Barrier(count), context.Queue()
    workers = [
        context.Process(target=_process, args=(config, times, ready, found)) for _ in range(count)
    ]
    for worker in workers:
        worker.start()
    results = [found.get() for _ in workers]
    for worker in workers:
        worker.join()
    return sorted(statistics.fmean(row) / count for row in zip(*results, strict=True))


# ------------------------------------------------------------------------------- the figures


def peak_flops(precision: str, device: str) -> float:
    """Operations a second of a large matrix product."""
    size = 2048 if device == "cpu" else 8192
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    a = torch.randn(size, size, device=device).to(dtype)
    return 2 * size**3 / seconds(lambda: a @ a, 7, device)[0]


def step_flops(config: RunConfig, channels: int) -> float:
    """Of one sample's training step: three times its forward pass."""
    net = models.build(config.model, 10, channels, config.width, depth=config.depth).eval()
    side = models.MODELS[config.model].image_size
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(torch.zeros(1, channels, side, side))
    return 3.0 * counter.get_total_flops()


def row(label: str, times: list[float], images: int, plain: float, share: str = "") -> None:
    median = statistics.median(times)
    spread = f"{times[0]:.2f}-{times[-1]:.2f}"
    faster = f"{plain / median:.2f}x" if plain else ""
    print(
        f"{label:34}{median:9.3f}{spread:>14}{images / median:10.0f}{faster:>8}{share:>8}",
        flush=True,
    )


def training(config: RunConfig, members: int, times: int, device: str) -> None:
    """Seconds an epoch and run of each way to train."""
    images = len(sweep.load_data(config, device).train_y)
    work = images * step_flops(config, sweep.load_data(config, device).input_shape[0])
    print(f"\n{config.model}, width {config.width:g}, {images} images of {config.dataset}")
    print(f"{'':34}{'s/epoch':>9}{'spread':>14}{'images/s':>10}{'':>8}{'of peak':>8}")
    plain = seconds(plain_epoch(config, device), times, device)
    row("plain, float32", plain, images, 0)
    base = statistics.median(plain)
    if device != "cpu":
        row("recipe, bfloat16", seconds(recipe_epoch(config, device), times, device), images, base)
    for precision in ("float32", "bfloat16"):
        peak = peak_flops(precision, device)
        grid = sweep.grid(
            "sgd", [config.lr], [0.9], [5e-4], seeds=range(1),
            **shared(config, precision),
        )  # fmt: skip
        found = our_seconds(grid, times, device)
        share = f"{work / statistics.median(found) / peak:.0%}"
        row(f"ncbook, {precision}", found, images, base, share)
        if members > 1:
            decays = [5e-4 * (i + 1) for i in range(members)]
            grid = sweep.grid("sgd", [config.lr], [0.9], decays, **shared(config, precision))
            each = [t / members for t in our_seconds(grid, times, device)]
            row(f"ncbook, {precision}, {members} members", each, images, base)
        if device == "cpu" and os.cpu_count() > 1:
            found = in_processes(grid[0], os.cpu_count(), times)
            row(f"ncbook, {precision}, {os.cpu_count()} processes", found, images, base)


def shared(config: RunConfig, precision: str) -> dict:
    fields = ("dataset", "model", "batch_size", "train_size", "width", "depth")
    return {name: getattr(config, name) for name in fields} | {"precision": precision}


def evaluation(config: RunConfig, times: int, device: str) -> None:
    """One NC evaluation beside the two forward passes that it needs, on as many test as training
    images."""
    whole = sweep.load_data(config, device)
    count = len(whole.train_y)
    dataset = dataclasses.replace(whole, test_x=whole.test_x[:count], test_y=whole.test_y[:count])
    members = loop._Chunk([config], dataset, compiled=False)
    net = members.members

    def forward() -> None:
        for x in (dataset.train_x, dataset.test_x):
            measuring.member_features(members.net, net.params, net.buffers, dataset, x)

    with heap_kept(), torch.no_grad():
        passes, all_of_it = [], []
        for _ in range(times + 1):  # in turns: the machine's speed drifts
            passes += seconds(forward, 1, device)
            all_of_it += seconds(lambda: members.measure(0), 1, device)
    base = statistics.median(passes[1:])
    extra = statistics.median(w / p for w, p in zip(all_of_it[1:], passes[1:], strict=True)) - 1
    images = len(dataset.train_y) + len(dataset.test_y)
    print(f"NC evaluation of {images} images: forward passes {base:.2f} s, all of it {extra:+.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=["resnet9", "vgg9"])
    parser.add_argument("--dataset", default="mnist", choices=CLASSES)
    parser.add_argument("--width", default="1")
    parser.add_argument("--depth", type=int)
    parser.add_argument("--train-size", type=int, default=2000, help="0: all")
    parser.add_argument("--members", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=3, help="epochs timed")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    print(f"torch {torch.__version__}, {os.cpu_count()} cores, {torch.get_num_threads()} threads")
    if given.device != "cpu":
        print(torch.cuda.get_device_name(given.device))
    for model in given.models:
        config = RunConfig(
            dataset=given.dataset, model=model, width=float(Fraction(given.width)),
            depth=given.depth, train_size=given.train_size or None, batch_size=given.batch_size,
        )  # fmt: skip
        training(config, given.members, given.epochs, given.device)
        evaluation(config, given.epochs, given.device)
    gigabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MAXRSS_UNIT / 1e9
    print(f"peak memory {gigabytes:.2f} GB")


if __name__ == "__main__":
    sys.exit(main())
