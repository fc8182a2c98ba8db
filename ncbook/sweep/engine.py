"""Train what the store lacks: chunks of members, on worker processes, stored as they end."""

import multiprocessing
import time
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import psutil
import torch

from ncbook import data, models, store
from ncbook.sweep import cluster, leases, tasks
from ncbook.sweep.cluster import SweepError
from ncbook.sweep.memory import check_memory
from ncbook.sweep.progress import Advance, progress_bar
from ncbook.sweep.provenance import provenance
from ncbook.sweep.tasks import Outcome
from ncbook.train import (
    RunConfig,
    check_listing,
    check_samples,
    check_whole,
    remove_checkpoint,
    repays_compiling,
    step_seconds,
    stream_step_seconds,
    train_members,
    train_streaming,
)

START_SECONDS = 15.0  # workers that import torch, and compile

# Members that train together. One go on one core, Adam: 0.42 ms a member and step for 3 members,
# 0.39 for 9, 0.40 for 18, 0.39 for 27; 9 give two workers six chunks each of the paper's grid.
CHUNK = 9
CAN_PIN = hasattr(psutil.Process, "cpu_affinity")  # not on a Mac
POLL_SECONDS = 1.0  # between looks at what another sweep on the same store is training
CHECKPOINTS = "checkpoints"  # the store's folder for those of streamed runs
COMPACT_EVERY = 256  # chunks: readers of the store then meet few files at any time


def run_id(config: RunConfig) -> str:
    """The name of a run in the store: a hash of its whole config."""
    return store.run_id(config.identity())


def missing(
    configs: Collection[RunConfig],
    results: str | Path | None = None,
    *,
    retry_failed: bool = False,
) -> list[RunConfig]:
    """Those of ``configs`` that the store does not have yet; with ``retry_failed`` also those that
    were given up. Rows of these that cannot be true are named, and count as missing."""
    wanted = {run_id(config): config for config in configs}
    stored = store.stored_in(results)
    have = stored.among(wanted, retry_failed=retry_failed)
    stored.warn(wanted)
    return [config for i, config in wanted.items() if i not in have]


def stored_without_listing(configs: Sequence[RunConfig], results: str | Path | None = None) -> int:
    """How many of these runs the store has from before it was recorded which images a run was
    trained on: they are kept, but nobody knows whether their images were these."""
    old = {run_id(replace(config, data_listing="")) for config in configs if config.data_listing}
    return len(old & store.stored_ids(results)) if old else 0


def chunks(configs: Sequence[RunConfig], workers: int = 1, size: int = CHUNK) -> list[list]:
    """Split into groups that may train together, of at most ``size`` members, as equal in size
    and as evenly divisible among the workers as can be. Where members train one after another, a
    chunk is one run: it is stored as soon as it ends."""
    groups: dict[RunConfig, list[RunConfig]] = {}
    for config in configs:
        groups.setdefault(config.shared(), []).append(config)
    return [
        part
        for shared, group in groups.items()
        for part in _split(group, workers, size if _together(shared) else 1)
    ]


def _together(config: RunConfig) -> bool:
    streamed = config.dataset.startswith(data.IMAGENET_PREFIX)
    return models.MODELS[config.model].together and not streamed


def _split(group: list[RunConfig], workers: int, size: int) -> Iterator[list[RunConfig]]:
    rounds = -(-len(group) // (workers * size))
    count = min(rounds * workers, len(group))
    return (group[i * len(group) // count : (i + 1) * len(group) // count] for i in range(count))


def default_workers(device: str) -> int:
    """One process for each core that this process may use, each with one thread; or for each GPU
    (``cuda``; for ``cuda:1`` it is one)."""
    if device == "cpu":
        return len(psutil.Process().cpu_affinity()) if CAN_PIN else psutil.cpu_count() or 1
    return max(1, torch.cuda.device_count()) if device == "cuda" else 1


def _threads_for(config: RunConfig, at_once: int) -> int:
    """Of a CPU, where so many chunks train at once: one for members that train together, which
    gain nothing by more, and are then the same to the bit however they are dealt out; an equal
    share of the cores for others, so that one run alone uses them all."""
    return 1 if _together(config) else max(1, default_workers("cpu") // at_once)


def load_data(config: RunConfig, device: str = "cpu") -> data.Dataset | data.Streamed:
    """The tensors that a run trains on; kept, since a worker trains many chunks of one sweep."""
    seed = 0 if config.train_size is None else config.seed  # which draws the subset, no more
    size = models.image_size(config.model)
    return _load_data(config.dataset, config.data_listing, config.train_size, seed, size, device)


@lru_cache(maxsize=1)  # each entry may be gigabytes
def _load_data(
    name: str,
    listing: str | None,  # of which a change makes the kept tensors those of other images
    train_size: int | None,
    seed: int,
    size: int | None,
    device: str,
) -> data.Dataset | data.Streamed:
    with warnings.catch_warnings():  # what is left out of a folder was said when it was asked for
        warnings.simplefilter("ignore", data.LeftOutWarning)
        return data.load(name, train_size=train_size, seed=seed, image_size=size, device=device)


def estimate_seconds(
    configs: Sequence[RunConfig], device: str, workers: int, scheduler: str | None = None
) -> float:
    """About how long ``run`` would take: a few steps of one chunk, timed and multiplied; timed on
    one of the scheduler's workers, if there is one."""
    if not configs:
        return 0.0
    if scheduler:
        with cluster.joined(scheduler) as client:
            arguments = (configs, cluster.device_in_worker(device), workers)
            return client.submit(estimate_seconds, *arguments, pure=False).result()
    parts = chunks(configs, workers)
    dataset = load_data(configs[0], device)
    steps = sum(p[0].epochs * -(-len(dataset.train_y) // p[0].batch_size) for p in parts)
    at_once = min(workers, len(parts))
    with _threads(device, _threads_for(configs[0], at_once)):
        if isinstance(dataset, data.Streamed):
            step = stream_step_seconds(parts[0][0], dataset, device)
        else:
            step = step_seconds(parts[0], dataset)
    return START_SECONDS + steps * step / at_once


@dataclass(frozen=True)
class Report:
    """What ``run`` did: runs found in the store, runs trained by status, seconds."""

    stored: int
    trained: Counter
    seconds: float

    def text(self) -> str:
        """One sentence for a notebook."""
        if not self.trained:
            return f"All {self.stored} runs were in the store; none was trained."
        parts = ", ".join(f"{count} {status}" for status, count in self.trained.items())
        return (
            f"Trained {self.trained.total()} runs ({parts}) in {self.seconds:.0f} s; "
            f"{self.stored} were in the store already."
        )


def run(
    configs: Sequence[RunConfig],
    results: str | Path | None = None,
    *,
    log_epochs: Sequence[int] | None = None,
    device: str = "cpu",
    workers: int | None = None,
    scheduler: str | None = None,
    deterministic: bool = False,
    retry_failed: bool = False,
    progress: bool = True,
) -> Report:
    """Train what the store lacks; each chunk is stored as it ends, so a stopped sweep goes on.

    Any number of sweeps may work on one store at the same time: each run is trained by one of them.
    A worker process may die: its chunk is trained again. A run that kills its worker every time is
    stored as ``failed``, with the reason.

    Args:
        configs: the runs wanted.
        results: the store's folder; see ``store.results_dir``. A scheduler's workers must see it
            under the same path.
        log_epochs: epochs to measure at; see ``train.train_members``.
        device: ``cpu`` or a CUDA device.
        workers: processes, each with one thread; default ``default_workers``. One trains in this
            process.
        scheduler: address of a Dask scheduler, whose workers then do the work.
        deterministic: see ``train.train_members``.
        retry_failed: train those again that were given up.
        progress: show a bar.

    Raises:
        ValueError, OSError, data.DataNotFoundError: bad input, an unwritable store or no data;
            before any training.
        SweepError: no scheduler or workers; or what stopped the training, in one line.
    """
    began = time.perf_counter()
    workers = default_workers(device) if workers is None else workers
    check_whole("workers", workers, 1)
    results = store.ensure_writable(results).absolute()
    store.set_aside_damaged(results)
    todo = missing(configs, results, retry_failed=retry_failed)
    for config in {replace(config.shared(), seed=0): config for config in todo}.values():
        dataset = load_data(config, "cpu" if scheduler else device)
        check_samples(config, dataset)
        if not scheduler:
            check_memory(config, min(CHUNK, len(todo)), dataset, device, workers)
            repays_compiling(config, dataset, device)  # warns once, for all workers
    task = partial(
        _train_chunk,
        results=results,
        log_epochs=log_epochs,
        deterministic=deterministic,
        retry_failed=retry_failed,
    )
    trained: Counter = Counter()
    try:
        with (
            _one_line_errors(results),
            _trainer(todo, device, workers, scheduler, results) as (train, at_once),
            progress_bar(len(todo), progress) as advance,
        ):
            for outcome in _rounds(todo, at_once, partial(train, task), results, advance):
                trained.update(outcome.trained)
    finally:
        _tidy(leases.clear_dead, results)
    _tidy(store.compact, results)
    return Report(len(configs) - trained.total(), trained, time.perf_counter() - began)


def _tidy(what: Callable, results: Path) -> None:
    """What only makes readers faster; a disk that refuses it ends no sweep."""
    with suppress(OSError):
        what(results)


# ------------------------------------------------------------ who trains

Train = Callable[..., Iterator[Outcome]]  # of a task, its chunks, and whom to tell of progress


@contextmanager
def _trainer(
    todo: list, device: str, workers: int, scheduler: str | None, results: Path
) -> Iterator[tuple[Train, int]]:
    """What trains chunks, and how many at once: this process, new ones, or a scheduler's."""
    if scheduler and todo:
        with cluster.joined(scheduler) as client:
            offer = cluster.workers_of(client, scheduler)
            cluster.check_sees(client, results)
            yield _on(client, cluster.device_in_worker(device), 1), offer.count
        return
    at_once = min(workers, len(chunks(todo, workers)))
    if at_once <= 1:
        place = {"device": device, "threads": _threads_for(todo[0], 1) if todo else 1}
        yield lambda task, *rest: tasks.train_here(partial(task, **place), *rest), 1
        return
    with cluster.local(at_once, device) as client:
        place = cluster.device_in_worker(device), _threads_for(todo[0], at_once)
        yield _on(client, *place), at_once


def _on(client, device: str, threads: int) -> Train:
    place = {"device": device, "threads": threads}
    return lambda task, *rest: tasks.train_on(client, partial(task, **place), *rest)


def _rounds(
    todo: list[RunConfig], workers: int, train: Train, results: Path, advance: Advance
) -> Iterator[Outcome]:
    """All outcomes; then wait for what other sweeps are training, and train what they leave."""
    count = 0
    while todo:
        busy: list[RunConfig] = []
        for outcome in train(chunks(todo, workers), advance):
            busy += outcome.busy
            if outcome.fatal:
                outcome.trained += _give_up(outcome.fatal, results)
            advance(outcome.stored)
            yield outcome
            count += 1
            if count % COMPACT_EVERY == 0:
                _tidy(store.compact, results)
        todo = _wait_for_others(busy, results, advance)


def _wait_for_others(busy: list[RunConfig], results: Path, advance: Advance) -> list[RunConfig]:
    """Until one of these runs is free again, which another sweep has not stored."""
    while busy:
        there = store.stored_in(results).among([run_id(config) for config in busy])
        busy = [config for config in busy if run_id(config) not in there]
        advance(len(there))
        if {run_id(config) for config in busy} - leases.running(results):
            break
        time.sleep(POLL_SECONDS)
    return busy


def _give_up(configs: list[RunConfig], results: Path) -> Counter:
    """Record runs that cannot be trained."""
    ids = {run_id(config): config for config in configs}
    with leases.taken(results, list(ids)) as lease:
        records = [
            {"run_id": i} | asdict(ids[i]) | {"status": store.FAILED, "reason": tasks.DIED}
            for i in lease.ids
        ]
        if records:
            store.write(results, records)
    return Counter({store.FAILED: len(records)})


@contextmanager
def _one_line_errors(results: Path) -> Iterator[None]:
    """What can stop training, as one line, where a notebook would show a worker's traceback."""
    try:
        yield
    except (MemoryError, OSError, data.DataNotFoundError) as error:
        what = str(error) or type(error).__name__
        if isinstance(error, OSError) and error.filename is None:  # a full disk names no file
            what += f": {results}"
        raise SweepError(what) from None


# ------------------------------------------------------------ in a worker


def _train_chunk(
    part: list[RunConfig],
    *,
    results: Path,
    log_epochs: Sequence[int] | None,
    device: str,
    threads: int = 1,
    deterministic: bool,
    retry_failed: bool,
    advance: Advance,
) -> Outcome:
    """Train and store those of a chunk's runs that nobody else is training or has stored."""
    wanted = {run_id(config): config for config in part}
    configs = {i: asdict(config) for i, config in wanted.items()}
    with leases.taken(results, list(wanted), configs) as lease:
        there = store.stored_in(results).among(lease.ids, retry_failed=retry_failed)
        mine = {i: wanted[i] for i in lease.ids if i not in there}
        busy = [config for i, config in wanted.items() if i not in lease.ids]
        outcome = Outcome(stored=len(there), busy=busy)
        if mine:
            options = {
                "log_epochs": log_epochs,
                "deterministic": deterministic,
                "on_epoch": lambda epoch, members: advance(members / part[0].epochs),
            }
            runs, history = _train(list(mine.values()), device, threads, results, options)
            kept = set(lease.kept())
            outcome.busy += [config for i, config in mine.items() if i not in kept]
            with _threads(device, threads):
                made = provenance(device)
            outcome.trained = _store(list(mine), kept, runs, history, results, made)
            for i in kept & mine.keys():  # of a streamed run, now that it is stored
                remove_checkpoint(mine[i], results / CHECKPOINTS)
    return outcome


def _train(
    part: list[RunConfig], device: str, threads: int, results: Path, options: Mapping
) -> tuple[list[dict], list[dict]]:
    with _threads(device, threads):
        dataset = load_data(part[0], device)
        if not isinstance(dataset, data.Streamed):
            return train_members(part, dataset, **options)
        place = {"device": device, "checkpoints": results / CHECKPOINTS} | _processes(device)
        records = train_streaming(part[0], dataset, **place, **options)
        check_listing(part[0], data.fingerprint(part[0].dataset))  # read while it trained
        return records


def _processes(device: str) -> dict[str, int]:
    """How a streamed run may divide itself: over all GPUs that this process sees. A Dask worker
    that somebody else started may have no processes of its own: it decodes its images itself."""
    if multiprocessing.current_process().daemon:
        return {"devices": 1, "loaders": 0}
    return {"devices": max(1, torch.cuda.device_count()) if device == "cuda" else 1}


def _store(
    ids: list[str],
    kept: set[str],
    runs: list[dict],
    history: list[dict],
    results: Path,
    made: Mapping[str, str],
) -> Counter:
    """Store the runs that are still ours; how many have which status."""
    runs = [{"run_id": i} | record | made for i, record in zip(ids, runs, strict=True)]
    history = [{"run_id": ids[row["member"]]} | row for row in history]
    runs, history = ([row for row in rows if row["run_id"] in kept] for rows in (runs, history))
    if runs:
        store.write(results, runs, [_without(row, "member") for row in history])
    return Counter(record["status"] for record in runs)


def _without(row: Mapping, key: str) -> dict:
    return {name: value for name, value in row.items() if name != key}


@contextmanager
def _threads(device: str, count: int) -> Iterator[None]:
    """On a CPU a chunk is trained by so many threads, whichever process it is in."""
    before = torch.get_num_threads()
    if device == "cpu":
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
