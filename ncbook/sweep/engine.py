"""Train the runs that the store lacks: in chunks, on worker processes, each stored as it ends."""

import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from dask.system import cpu_count

from ncbook import data, models, own, store, text, train
from ncbook.store import leases
from ncbook.sweep import cluster, tasks
from ncbook.sweep.cluster import SweepError
from ncbook.sweep.machine import check_memory, gpu_count, provenance
from ncbook.sweep.tasks import Advance, Outcome
from ncbook.train import RunConfig, check_whole

START_SECONDS = 15.0  # workers that import torch, and compile
# Members that train together. One go on one core, Adam: 0.42 ms a member and step for 3 members,
# 0.39 for 9, 0.40 for 18, 0.39 for 27; 9 give two workers six chunks each of the paper's grid.
CHUNK = 9
POLL_SECONDS = 1.0  # between looks at what another sweep on the same store is training


def run_id(config: RunConfig) -> str:
    """The name of a run in the store: a hash of its whole config."""
    return store.run_id(config.identity())


def _by_id(configs: Collection[RunConfig]) -> dict[str, RunConfig]:
    return {run_id(config): config for config in configs}


def missing(
    configs: Collection[RunConfig],
    results: str | Path | None = None,
    *,
    retry_failed: bool = False,
    measure_layers: bool = False,
) -> list[RunConfig]:
    """Those of ``configs`` that the store lacks; with ``retry_failed`` also those that were given
    up, with ``measure_layers`` also those that are stored without their layers. A stored row that
    cannot be true counts as missing, with a notice."""
    wanted, again = _by_id(configs), store.FAILED if retry_failed else None
    statuses = store.statuses(results, wanted, layers=measure_layers)
    return [config for i, config in wanted.items() if statuses.get(i, again) == again]


def chunks(configs: Sequence[RunConfig], workers: int = 1, size: int = CHUNK) -> list[list]:
    """Groups that can train together, of at most ``size`` members, as equal in size and as evenly
    divisible among the workers as possible. Where members train one after another, a chunk is one
    run, so that it is stored as soon as it ends."""
    groups: dict[tuple, list[RunConfig]] = {}
    for config in configs:
        groups.setdefault(config.shared(), []).append(config)
    parts = []
    for group in groups.values():
        rounds = -(-len(group) // (workers * (size if _together(group[0]) else 1)))
        count = min(rounds * workers, len(group))
        cuts = [i * len(group) // count for i in range(count + 1)]
        parts += [group[a:b] for a, b in pairwise(cuts)]
    return parts


def _together(config: RunConfig) -> bool:
    streamed = config.dataset.startswith(data.IMAGENET_PREFIX)
    return models.MODELS[config.model].together and not streamed


def default_workers(device: str) -> int:
    """One process for each core that this process may use, or for each GPU (``cuda:1`` is one)."""
    return cpu_count() if device == "cpu" else gpu_count(device)


def _threads_for(config: RunConfig, at_once: int) -> int:
    """CPU threads for each of so many chunks that train at once. Members that train together gain
    nothing by more than one; other runs share the cores equally."""
    return 1 if _together(config) else max(1, default_workers("cpu") // at_once)


@contextmanager
def _threads(device: str, count: int) -> Iterator[None]:
    """Use so many threads on a CPU, in whichever process."""
    before = torch.get_num_threads()
    if device == "cpu":
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def load_data(config: RunConfig, device: str = "cpu") -> data.Dataset | data.Streamed:
    """The tensors that a run trains on; kept, since a worker trains many chunks of one sweep."""
    seed = 0 if config.train_size is None else config.seed  # only draws the subset
    options = {"train_size": config.train_size, "seed": seed, "device": device}
    options["image_size"] = models.MODELS[config.model].image_size
    return _load_data(config.dataset, config.data_listing, **options)


@lru_cache(maxsize=1)  # of gigabytes; if the listing changes, they are of other images
def _load_data(name: str, listing: str | None, **options: Any) -> data.Dataset | data.Streamed:
    return data.load(name, **options)


def check_data(
    configs: Collection[RunConfig],
    device: str,
    workers: int,
    scheduler: str | None,
    measure_layers: bool,
) -> None:
    """Load each data set once, as the workers will.

    Raises:
        ValueError, data.DataNotFoundError: no data, too few, more members than memory, or layers
            that cannot be measured.
    """
    names = [c.dataset for c in configs if c.dataset.startswith(data.IMAGENET_PREFIX)]
    if measure_layers and names:
        raise ValueError(f"measure_layers: {names[0]} is streamed; its layers cannot be measured")
    for config in _kinds(configs):
        dataset = load_data(config, "cpu" if scheduler else device)
        train.check_samples(config, dataset)
        if not scheduler:  # only its workers know their machines
            check_memory(config, min(CHUNK, len(configs)), dataset, device, workers)
            train.repays_compiling(config, dataset, device)  # warns once, for all workers


def _kinds(configs: Collection[RunConfig]) -> Collection[RunConfig]:
    """One of those that differ in nothing but seeds and what may differ in a chunk."""
    return {replace(config, seed=0).shared(): config for config in configs}.values()


def estimate_seconds(
    configs: Sequence[RunConfig], device: str, workers: int, scheduler: str | None = None
) -> float:
    """About how long ``run`` would take: a few steps of one chunk, timed, on one of the scheduler's
    workers if there is one, and multiplied."""
    if scheduler:
        with cluster.joined(scheduler) as client:
            arguments = (configs, device.partition(":")[0], workers)
            there = own.from_here(estimate_seconds)
            return client.submit(there, *arguments, pure=False).result()
    parts = chunks(configs, workers)
    dataset = load_data(configs[0], device)
    steps = sum(p[0].epochs * -(-len(dataset.train_y) // p[0].batch_size) for p in parts)
    at_once = min(workers, len(parts))
    with _threads(device, _threads_for(configs[0], at_once)):
        if isinstance(dataset, data.Streamed):
            step = train.stream_step_seconds(parts[0][0], dataset, device)
        else:
            step = train.step_seconds(parts[0], dataset)
    return START_SECONDS + steps * step / at_once


@dataclass(frozen=True)
class Report:
    """What ``run`` did: runs found in the store, runs trained by status."""

    stored: int
    trained: Counter
    seconds: float

    def text(self) -> str:
        """One sentence for a notebook."""
        stored = f"{self.stored:,} in the store already."
        if not self.trained:
            return f"Trained none; {stored}"
        parts = ", ".join(f"{count} {status}" for status, count in self.trained.items())
        trained = text.many(self.trained.total(), "run")
        return f"Trained {trained} ({parts}) in {self.seconds:.0f} s; {stored}"


def run(
    configs: Sequence[RunConfig],
    results: str | Path | None = None,
    *,
    log_epochs: Sequence[int] | None = None,
    measure_layers: bool = False,
    device: str = "cpu",
    workers: int | None = None,
    scheduler: str | None = None,
    deterministic: bool = False,
    retry_failed: bool = False,
    progress: bool = True,
) -> Report:
    """Train what the store lacks; each chunk is stored as it ends, so a stopped sweep can go on.

    Any number of sweeps may work on one store at once: each run is trained by one of them. A run
    that kills its worker process every time is stored as ``failed``, with the reason.

    Args:
        configs: the runs, as of ``grid``.
        results: see ``store.results_dir``; a scheduler's workers must see it under the same path.
        log_epochs, deterministic: see ``train.train_members``.
        measure_layers: store every layer's metrics, for ``store.load_layers``; a run that is stored
            without them is trained again, and its new row counts.
        workers: processes, each with one thread, or for networks for images with its share of the
            cores; default ``default_workers``. One trains in this process.
        scheduler: address of a Dask scheduler, whose workers then do the work.
        device: ``cpu`` (here the default, unlike the notebook's), ``cuda`` or ``cuda:N``.
        retry_failed: train those again that were given up.
        progress: show a bar.

    Returns:
        How many runs were in the store, how many were trained, by status, and the seconds.

    Raises:
        ValueError, OSError, data.DataNotFoundError: bad input, an unwritable store or no data.
        SweepError: no scheduler or workers; or what stopped the training, in one line.
    """
    began = time.perf_counter()
    workers = default_workers(device) if workers is None else workers
    check_whole("workers", workers, 1)
    results = store.results_dir(results).absolute()
    lacking = partial(missing, results=results, measure_layers=measure_layers)
    wanting = partial(lacking, retry_failed=retry_failed)
    todo = wanting(configs)
    check_data(todo, device, workers, scheduler, measure_layers)
    store.ensure_writable(results)
    store.set_aside_damaged(results)
    options = {"log_epochs": log_epochs, "deterministic": deterministic}
    options |= {"measure_layers": True} if measure_layers else {}
    task = partial(_train_chunk, results=results, lacking=wanting, **options)
    trained: Counter = Counter()
    try:
        with tasks.progress_bar(len(todo), progress) as advance, ExitStack() as stack:
            made, at_once, place = _trainers(todo, device, workers, scheduler, results)
            there = own.from_here(partial(task, **place))
            train_parts = partial(tasks.train_chunks, stack.enter_context(made), there)
            for outcome in _outcomes(todo, at_once, train_parts, results, lacking, advance):
                trained.update(outcome.trained)
    except (MemoryError, OSError, data.DataNotFoundError) as error:  # without a worker's traceback
        what = str(error) or type(error).__name__
        if isinstance(error, OSError) and error.filename is None:  # a full disk names no file
            what += f": {results}"
        raise SweepError(what) from None
    with suppress(OSError):  # a disk that refuses this fails no sweep
        store.compact(results)
    return Report(len(configs) - trained.total(), trained, time.perf_counter() - began)


def _trainers(
    todo: list[RunConfig], device: str, workers: int, scheduler: str | None, results: Path
) -> tuple[AbstractContextManager, int, dict]:
    """Makes a client with workers, or None if this process trains; how many chunks train at once;
    and each chunk's device and threads."""
    at_once = max(1, min(workers, len(chunks(todo, workers))))
    threads = _threads_for(todo[0], at_once) if todo else 1
    # A worker sees one GPU, whatever its number.
    there = {"device": device.partition(":")[0], "threads": threads}
    if scheduler and todo:
        count, _ = cluster.scheduler_workers(scheduler, results)
        return cluster.joined(scheduler), count, there | {"threads": 1}
    if at_once > 1:
        for config in _kinds(todo):
            with _threads(device, threads):  # compile once what all workers will load
                train.prepare_step(config, load_data(config, device))
        return cluster.local(at_once, device), at_once, there
    return nullcontext(), 1, there | {"device": device}


def _outcomes(
    todo: list[RunConfig],
    at_once: int,
    train_parts: Callable,
    results: Path,
    lacking: Callable,
    advance: Advance,
) -> Iterator[Outcome]:
    """All outcomes; then wait for what other processes are training, and train what they leave."""
    while todo:
        busy: list[RunConfig] = []
        for outcome in train_parts(chunks(todo, at_once), advance):
            busy += outcome.busy
            if outcome.fatal:
                _give_up(outcome, results)
            advance(outcome.stored)
            yield outcome
        if busy:
            time.sleep(POLL_SECONDS)
        todo = lacking(busy)
        while todo and _by_id(todo).keys() <= leases.running(results).keys():
            time.sleep(POLL_SECONDS)
            todo = lacking(busy)
        advance(len(busy) - len(todo))


def _give_up(outcome: Outcome, results: Path) -> None:
    """Store the runs of an outcome that are fatal as failed."""
    given_up = {"status": store.FAILED, "reason": tasks.DIED}
    records = [{"run_id": run_id(c)} | asdict(c) | given_up for c in outcome.fatal]
    store.write(results, records)
    outcome.trained[store.FAILED] += len(records)


def _train_chunk(
    part: list[RunConfig],
    *,
    results: Path,
    lacking: Callable,
    device: str,
    threads: int = 1,
    advance: Advance,
    **options: Any,
) -> Outcome:
    """Train and store those of a chunk's runs that nobody else is training or has stored."""
    wanted = _by_id(part)
    with leases.taken(results, {i: asdict(c) for i, c in wanted.items()}) as ids:
        mine = _by_id(lacking([wanted[i] for i in ids]))
        busy = [config for i, config in wanted.items() if i not in ids]
        outcome = Outcome(stored=len(ids) - len(mine), busy=busy)
        if mine:
            options["on_epoch"] = lambda epoch, members: advance(members / part[0].epochs)
            with _threads(device, threads):
                runs, history = _train(list(mine.values()), device, results, options)
                made = provenance(device)
            runs = [{"run_id": i} | run | made for i, run in zip(mine, runs, strict=True)]
            for row in history:
                row["run_id"] = runs[row.pop("member")]["run_id"]
            layers = [{"run_id": r["run_id"]} | row for r in runs for row in r.pop("layers", ())]
            store.write(results, runs, history, layers)
            outcome.trained.update(run["status"] for run in runs)
            for config in mine.values():  # only streamed runs have one
                _checkpoint(config, results).unlink(missing_ok=True)
    return outcome


def _checkpoint(config: RunConfig, results: Path) -> Path:
    """Of a streamed run that has not ended."""
    return results / "checkpoints" / f"{run_id(config)}.checkpoint"


def _train(
    part: list[RunConfig], device: str, results: Path, options: Mapping
) -> tuple[list[dict], list[dict]]:
    dataset = load_data(part[0], device)
    if not isinstance(dataset, data.Streamed):
        return train.train_members(part, dataset, **options)
    # A streamed run uses all GPUs that this process sees. A Dask worker that somebody else started
    # may not be allowed to start processes: it decodes its images itself.
    alone = multiprocessing.current_process().daemon
    place = {"devices": 1, "loaders": 0} if alone else {"devices": gpu_count(device)}
    place |= {"device": device, "checkpoint": _checkpoint(part[0], results)}
    records = train.train_streaming(part[0], dataset, **place, **options)
    train.check_listing(part[0], data.fingerprint(part[0].dataset))  # read while it trained
    return records
