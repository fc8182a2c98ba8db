"""The NC metrics of ncbook against the plain way to compute them, side by side.

    python benchmarks/metrics.py             # both sizes, two minutes, 2 GB
    python benchmarks/metrics.py --skip-big  # K = 10 alone
    python benchmarks/metrics.py --members   # also 9 and 18 members at once, on one thread

The plain way is written here, as the field's code does it: a loop over the classes, the p x p
covariances, ``torch.linalg.pinv`` of one of them. Both take turns in one process, on all threads
that torch uses; each one's extra memory is the growth of its own fresh process's peak.
"""

import argparse
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from ncbook.metrics import member_metrics, nc_metrics, simplex_etf

SMALL_SIZE = (60_000, 512, 10)  # N, p, K
BIG_SIZE = (50_000, 2048, 1000)
MEMBER_SIZE = (1400, 128, 10)  # the digits network's last layer, training part
MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes; see man getrusage


def plain_metrics(features: Tensor, labels: Tensor, weight: Tensor) -> dict[str, float]:
    """The same metrics but NC4, straight from the equations, in the features' precision."""
    num_classes, width = weight.shape
    means = torch.stack([features[labels == k].mean(0) for k in range(num_classes)])
    centred = means - means.mean(0)
    within, variances = torch.zeros(width, width), torch.zeros(num_classes)
    for k in range(num_classes):
        residuals = features[labels == k] - means[k]
        within += residuals.T @ residuals
        variances[k] = residuals.square().sum(1).mean()
    within, between = within / len(features), centred.T @ centred / num_classes
    others = ~torch.eye(num_classes, dtype=torch.bool)
    pair_variances = (variances[:, None] + variances) / 2
    return {
        "nc0": weight.sum(0).norm().item(),
        "nc1": (torch.trace(within @ torch.linalg.pinv(between)) / num_classes).item(),
        "nc2": plain_etf_distance(centred @ centred.T),
        "nc2n": plain_spread(centred),
        "nc2a": plain_angles(centred, others),
        "nc2w": plain_etf_distance(weight @ weight.T),
        "nc2wn": plain_spread(weight),
        "nc2wa": plain_angles(weight, others),
        "nc2m": plain_etf_distance(weight @ centred.T),
        "nc3": (weight / weight.norm() - centred / centred.norm()).norm().item(),
        "nc1_quotient": (torch.trace(within) / torch.trace(between)).item(),
        "cdnv": (pair_variances / torch.cdist(means, means).square())[others].mean().item(),
    }


def plain_etf_distance(product: Tensor) -> float:
    return (product / product.norm() - simplex_etf(len(product), dtype=product.dtype)).norm().item()


def plain_spread(rows: Tensor) -> float:
    return (rows.norm(dim=1).std() / rows.norm(dim=1).mean()).item()


def plain_angles(rows: Tensor, others: Tensor) -> float:
    rows = rows / rows.norm(dim=1, keepdim=True)
    return (rows @ rows.T + 1 / (len(rows) - 1))[others].abs().mean().item()


WAYS = {"ncbook": nc_metrics, "plain": plain_metrics}


def make_network(num_samples: int, width: int, num_classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Gaussian clusters around the rows of a random weight; never more than one copy in memory."""
    torch.manual_seed(0)
    weight, labels = torch.randn(num_classes, width), torch.arange(num_samples) % num_classes
    features = torch.empty(num_samples, width).normal_()
    for block, names in zip(features.split(1000), labels.split(1000), strict=True):
        block += weight[names]
    return features, labels, weight


def seconds_in_turns(ways: dict[str, Callable], repeats: int) -> dict[str, list[float]]:
    """Seconds of each call, the ways taking turns, after one call that isn't timed."""
    seconds = {name: [] for name in ways}
    for turn in range(repeats + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def extra_memory(name: str, size: tuple[int, int, int]) -> float:
    """Growth of the process's peak memory in one call, as a fraction of the features' size.

    To be run in a fresh process: a peak never goes down.
    """
    WAYS[name](*make_network(200, 16, 4))  # load what is loaded on first use
    network = make_network(*size)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    WAYS[name](*network)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return grown * MAXRSS_UNIT / network[0].nbytes


def in_fresh_process(function: Callable, *arguments):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def report(name: str, seconds: list[float], note: str = "") -> None:
    low, high = min(seconds), max(seconds)
    median = statistics.median(seconds)
    print(f"  {name:<10} {median:9.4f} s   ({low:.4f} to {high:.4f}, n = {len(seconds)}){note}")


def compare(size: tuple[int, int, int], repeats: int) -> None:
    # First, while this process is smaller than the child will be: on Linux a child's peak starts at
    # its parent's. For the same reason the small size comes before the big one.
    memory = {name: in_fresh_process(extra_memory, name, size) for name in WAYS}
    network = make_network(*size)
    megabytes = network[0].nbytes / 1e6
    print("N = {}, p = {}, K = {}, float32, features {:.0f} MB".format(*size, megabytes))
    found, plain = nc_metrics(*network), plain_metrics(*network)
    difference = {key: abs(plain[key] / found[key] - 1) for key in found}
    seconds = seconds_in_turns({k: partial(way, *network) for k, way in WAYS.items()}, repeats)
    for name, taken in seconds.items():
        report(name, taken, f"   extra memory {memory[name]:.2f} of the features'")
    ratio = statistics.median(seconds["plain"]) / statistics.median(seconds["ncbook"])
    worst = max(difference, key=difference.get)
    print(f"  plain / ncbook = {ratio:.1f}; they differ most in {worst}: {difference[worst]:.1e}")


def measure_members(repeats: int) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    print("members: N = {}, p = {}, K = {}, float32, one thread".format(*MEMBER_SIZE))
    for count in (9, 18):
        members = [make_network(*MEMBER_SIZE) for _ in range(count)]
        features, weight = (torch.stack([member[i] for member in members]) for i in (0, 2))
        labels = members[0][1]
        way = {"": partial(member_metrics, features, labels, weight)}
        report(f"{count} members", seconds_in_turns(way, repeats)[""])
    torch.set_num_threads(threads)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--skip-big", action="store_true", help="leave K = 1000 out")
    parser.add_argument("--members", action="store_true", help="also time members at once")
    parser.add_argument("--repeats", type=int, default=7, help="timed calls each (default 7)")
    options = parser.parse_args()
    if options.repeats < 1:
        parser.error(f"--repeats must be at least 1, got {options.repeats}")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; median (min to max)")
    compare(SMALL_SIZE, options.repeats)
    if not options.skip_big:
        compare(BIG_SIZE, options.repeats)
    if options.members:
        measure_members(options.repeats)


if __name__ == "__main__":
    main()
