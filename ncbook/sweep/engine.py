"""Train what the store lacks: chunks of members, on worker processes, stored as they end."""

from __future__ import annotations

import io
import multiprocessing
import os
import platform
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import TextIO

import torch
from IPython import get_ipython
from IPython.display import display
from tqdm import tqdm

from ncbook import __version__, data, models, store
from ncbook.train import (
    RunConfig,
    check_samples,
    check_whole,
    remove_checkpoint,
    step_seconds,
    stream_step_seconds,
    train_members,
    train_streaming,
)

START_SECONDS = 15.0  # workers that import torch, and compile

# Members that train together. One go on one core, Adam: 0.42 ms a member and step for 3 members,
# 0.39 for 9, 0.40 for 18, 0.39 for 27; 9 give two workers six chunks each of the paper's grid.
CHUNK = 9
PROGRESS_SECONDS = 2.0  # between redraws of the bar; fewer would flood an output notebook
POLL_SECONDS = 0.2


def run_id(config: RunConfig) -> str:
    """The name of a run in the store: a hash of its whole config."""
    return store.run_id(config.identity())


def missing(configs: Sequence[RunConfig], results: str | Path | None = None) -> list[RunConfig]:
    """Those of ``configs`` that the store does not have yet."""
    have = store.stored_ids(results)
    return [config for config in dict.fromkeys(configs) if run_id(config) not in have]


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
    """On a CPU one single-threaded process a core; on a GPU one process."""
    return (os.cpu_count() or 1) if device == "cpu" else 1


def load_data(config: RunConfig, device: str = "cpu") -> data.Dataset | data.Streamed:
    """The tensors that a run trains on; kept, since a worker trains many chunks of one sweep."""
    return _load_data(config.dataset, config.train_size, config.seed, config.model, device)


@lru_cache(maxsize=2)
def _load_data(
    name: str, train_size: int | None, seed: int, model: str, device: str
) -> data.Dataset | data.Streamed:
    size = models.image_size(model)
    return data.load(name, train_size=train_size, seed=seed, image_size=size, device=device)


def estimate_seconds(configs: Sequence[RunConfig], device: str, workers: int) -> float:
    """About how long ``run`` would take: a few steps of one chunk, timed and multiplied."""
    if not configs:
        return 0.0
    parts = chunks(configs, workers)
    dataset = load_data(configs[0], device)
    steps = sum(p[0].epochs * -(-len(dataset.train_y) // p[0].batch_size) for p in parts)
    if isinstance(dataset, data.Streamed):
        step = stream_step_seconds(parts[0][0], dataset, device)
    else:
        step = step_seconds(parts[0], dataset)
    seconds = steps * step / min(workers, len(parts))
    return START_SECONDS + seconds


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
    deterministic: bool = False,
    progress: bool = True,
) -> Report:
    """Train what the store lacks; each chunk is stored as it ends, so a stopped sweep goes on.

    Args:
        configs: the runs wanted.
        results: the store's folder; see ``store.results_dir``.
        log_epochs: epochs to measure at; see ``train.train_members``.
        device: ``cpu`` or a CUDA device.
        workers: processes, each with one thread; default ``default_workers``.
        deterministic: see ``train.train_members``.
        progress: show a bar.

    Raises:
        ValueError, OSError, data.DataNotFoundError: bad input, an unwritable store or no data;
            before any training.
    """
    began = time.perf_counter()
    workers = default_workers(device) if workers is None else workers
    check_whole("workers", workers, 1)
    store.ensure_writable(results)
    store.set_aside_damaged(results)
    todo = missing(configs, results)
    for config in {config.shared(): config for config in todo}.values():
        check_samples(config, load_data(config, device))
    parts = chunks(todo, workers)
    task = partial(
        _train_chunk,
        results=store.results_dir(results),
        log_epochs=log_epochs,
        device=device,
        deterministic=deterministic,
    )
    trained: Counter = Counter()
    with _progress_bar(len(todo), progress) as advance:
        for statuses in _run_all(task, parts, min(workers, len(parts)), advance):
            trained.update(statuses)
    return Report(len(configs) - len(todo), trained, time.perf_counter() - began)


# ------------------------------------------------------------------------ chunks and workers

Advance = Callable[[float], None]


def _run_all(task, parts: list[list], workers: int, advance: Advance) -> Iterator[list[str]]:
    """Each chunk's statuses as it ends: here with one worker, else in processes of their own."""
    if workers <= 1:
        for part in parts:
            yield task(part, advance=advance)
        return
    context = multiprocessing.get_context("spawn")  # a forked torch hangs on its thread pools
    news, stop = context.SimpleQueue(), context.Event()
    with ProcessPoolExecutor(workers, context, _start_worker, (news, stop)) as pool:
        try:
            yield from _as_completed(
                [pool.submit(_in_worker, task, p) for p in parts], news, advance
            )
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _as_completed(waiting: list[Future], news, advance: Advance) -> Iterator[list[str]]:
    pending = set(waiting)
    while pending:
        done, pending = wait(pending, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
        while not news.empty():
            advance(news.get())
        for future in done:
            yield future.result()


def _start_worker(news, stop) -> None:
    """In a new worker: one thread, and an end to it should the sweep's process die."""
    global _report
    torch.set_num_threads(1)

    def report(runs: float) -> None:
        if stop.is_set():
            raise KeyboardInterrupt("the sweep was stopped")
        news.put(runs)

    def follow_parent() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=follow_parent, daemon=True).start()
    _report = report


_report: Advance = float  # set in each worker


def _in_worker(task, part: list[RunConfig]) -> list[str]:
    return task(part, advance=_report)


def _train_chunk(
    part: list[RunConfig],
    *,
    results: Path,
    log_epochs: Sequence[int] | None,
    device: str,
    deterministic: bool,
    advance: Advance,
) -> list[str]:
    """Train and store one chunk; the statuses of its runs."""
    dataset = load_data(part[0], device)
    options = {
        "log_epochs": log_epochs,
        "deterministic": deterministic,
        "on_epoch": lambda epoch, members: advance(members / part[0].epochs),
    }
    checkpoints = results / "checkpoints"
    if isinstance(dataset, data.Streamed):
        devices = max(1, torch.cuda.device_count()) if device == "cuda" else 1
        place = {"device": device, "devices": devices, "checkpoints": checkpoints}
        runs, history = train_streaming(part[0], dataset, **place, **options)
    else:
        runs, history = train_members(part, dataset, **options)
    ids = [run_id(config) for config in part]
    made = _provenance(device)
    runs = [{"run_id": i} | record | made for i, record in zip(ids, runs, strict=True)]
    history = [{"run_id": ids[row.pop("member")]} | row for row in history]
    store.write(results, runs, history)
    if isinstance(dataset, data.Streamed):
        remove_checkpoint(part[0], checkpoints)
    return [record["status"] for record in runs]


@contextmanager
def _progress_bar(total: int, shown: bool) -> Iterator[Advance]:
    layout = "{percentage:3.0f}%|{bar:30}| {n:.0f}/{total} runs [{elapsed}<{remaining}]"
    options = {"file": _bar_file(), "mininterval": PROGRESS_SECONDS, "bar_format": layout}
    with tqdm(total=total, disable=not (shown and total), **options) as bar:
        yield lambda runs: bar.update(min(runs, total - bar.n))


class _Rewritten(io.TextIOBase):
    """A notebook output that each line replaces: papermill would save one output for every line."""

    encoding = "utf-8"

    def __init__(self) -> None:
        self.handle = None

    def write(self, text: str) -> int:
        line = text.strip("\r\n")
        if line and self.handle is None:
            self.handle = display({"text/plain": line}, raw=True, display_id=True)
        elif line:
            self.handle.update({"text/plain": line}, raw=True)
        return len(text)


def _bar_file() -> TextIO:
    """Where the bar is drawn: in a notebook an output of its own, else standard output."""
    in_notebook = getattr(get_ipython(), "kernel", None) is not None
    return _Rewritten() if in_notebook else sys.stdout


# ------------------------------------------------------------------------------- provenance


def _provenance(device: str) -> dict[str, str]:
    """Where and with what a run was made."""
    return _software() | {
        "device": _device_name(device),
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


@cache
def _software() -> dict[str, str]:
    return {
        "ncbook_version": __version__,
        "git_commit": _git_commit(),
        "torch_version": str(torch.__version__),
        "python_version": platform.python_version(),
    }


def _device_name(device: str) -> str:
    if device == "cpu":
        return f"cpu ({platform.machine()}, {torch.get_num_threads()} threads)"
    return f"{device} ({torch.cuda.get_device_name(device)})"


def _git_commit() -> str:
    """The commit of the working tree that ncbook runs from, ``+`` if changed; ``""`` if none."""
    here = Path(__file__).parent
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"]
    try:
        found = subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip() if found.returncode == 0 else ""
