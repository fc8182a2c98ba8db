"""Chunks as tasks, in this process or on a Dask cluster whose workers may die at any time; and the
bar that shows their progress."""

import io
import os
import sys
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue

import psutil
from IPython import get_ipython
from IPython.display import display
from tqdm import tqdm

from ncbook import notices
from ncbook.sweep.cluster import SweepError
from ncbook.train import RunConfig

TRIES = 3  # of a chunk whose worker dies; after that, of each of its runs alone
LOOK_SECONDS = 0.5  # between looks at the progress and at the workers
PROGRESS_SECONDS = 2.0  # between redraws of the bar; fewer would flood an output notebook
REPORT_SECONDS = 0.5  # between a worker's reports on the progress of its chunk
GONE_SECONDS = 300.0  # without workers; one of our own is back within a minute, or never
GO_ON = "what was trained is stored: begin again, and it goes on"
DIED = f"its worker process died {TRIES} times while training it alone (out of memory?)"


@dataclass
class Outcome:
    """What became of a chunk's runs."""

    trained: Counter = field(default_factory=Counter)  # by status
    stored: int = 0  # by someone else, meanwhile
    busy: list[RunConfig] = field(default_factory=list)  # someone else is training these
    fatal: list[RunConfig] = field(default_factory=list)  # given up: they kill their worker


Advance = Callable[[float], None]  # takes the work done, in runs
Task = Callable[..., Outcome]  # takes a chunk, and ``advance=``
Attempt = tuple[list[RunConfig], int]  # a chunk, and how often its worker may still die


def train_chunks(
    client, task: Task, parts: Sequence[list[RunConfig]], advance: Advance
) -> Iterator[Outcome]:
    """Each chunk's outcome as it ends: on the client's workers or, without a client, here.

    A chunk whose worker dies is tried again, up to ``TRIES`` times; then each of its runs is tried
    alone, and one that keeps killing its worker is given up: ``fatal``. What a task raises, or a
    ``SweepError`` if all is gone that could train, ends the chunks that are still training.
    """
    if client is None:
        yield from (task(part, advance=advance) for part in parts)
        return
    waiting = deque((list(part), TRIES) for part in parts)
    in_flight = InFlight(client, task, advance)
    try:
        while waiting or in_flight.attempts:
            room = in_flight.wait_for_workers() - len(in_flight.attempts)
            for _ in range(min(room, len(waiting))):
                in_flight.submit(waiting.popleft())
            for (part, tries), outcome in in_flight.collect():
                if outcome:
                    yield outcome
                elif tries > 1:
                    waiting.append((part, tries - 1))
                elif len(part) > 1:
                    waiting.extend(([config], TRIES) for config in part)
                else:
                    yield Outcome(fatal=part)
    finally:
        in_flight.stop()


class InFlight:
    """The chunks that the scheduler has: no more than there are threads. So a worker has one chunk
    at a time, and its death is blamed on that chunk alone."""

    def __init__(self, client, task: Task, advance: Advance) -> None:
        self.client, self.task, self.advance = client, task, advance
        self.attempts: dict = {}  # by future
        self.topic = f"ncbook-{uuid.uuid4().hex}"
        self.reports: SimpleQueue = SimpleQueue()  # from Dask's thread to ours
        client.subscribe_topic(self.topic, lambda event: self.reports.put(event[1]))

    def wait_for_workers(self) -> int:
        """How many chunks can train at once; a scheduler's workers may still be in a queue."""
        limit = time.monotonic() + GONE_SECONDS
        while not (threads := sum(self.client.nthreads().values())) and self.client.cluster:
            if time.monotonic() > limit:
                raise SweepError(f"the worker processes are gone (out of memory?); {GO_ON}")
            time.sleep(LOOK_SECONDS)
        return max(1, threads)

    def submit(self, attempt: Attempt) -> None:
        """Give a chunk to the scheduler."""
        arguments = (self.task, attempt[0], self.topic)
        future = self.client.submit(_train_in_worker, *arguments, pure=False)
        self.attempts[future] = attempt

    def collect(self) -> list[tuple[Attempt, Outcome | None]]:
        """What ends within ``LOOK_SECONDS``: each outcome, or None if the worker died."""
        from distributed import KilledWorker, wait

        ended = set()
        try:
            with self.client.as_current(), suppress(TimeoutError):
                ended = wait(list(self.attempts), LOOK_SECONDS, "FIRST_COMPLETED").done
            while not self.reports.empty():
                self.advance(self.reports.get())
            pairs = []
            for future in ended:
                outcome = None  # a chunk that a dead worker had stored finds its runs stored
                with suppress(KilledWorker):
                    outcome = future.result()
                pairs.append((self.attempts.pop(future), outcome))
            return pairs
        except CancelledError:
            raise SweepError(f"the scheduler is gone; {GO_ON}") from None

    def stop(self) -> None:
        """Processes of our own end anyway; workers of others stop what they train for us."""
        if self.client.status == "running":
            self.client.unsubscribe_topic(self.topic)
            if self.attempts:
                self.client.run(_stop, self.topic, wait=False)
                self.client.cancel(list(self.attempts), force=True)


def dask_setup(worker) -> None:
    """What a worker process of our own does (Dask's preload) once it has imported this module, and
    with it torch, which takes seconds, before its first chunk."""
    notices.pass_to(lambda *_: None)  # the sweep itself shows them once, for all workers
    tqdm.set_lock(threading.RLock())  # torch has bars; a lock for processes would outlive a kill


_stopped: set[str] = set()  # topics of sweeps that have ended


async def _stop(topic: str) -> None:  # a coroutine, because Dask would wait for a function
    _stopped.add(topic)


def _train_in_worker(task: Task, part: list[RunConfig], topic: str) -> Outcome:
    from distributed import get_worker

    worker, unsent, sent_at = get_worker(), 0.0, time.monotonic()

    def report(runs: float) -> None:
        nonlocal unsent, sent_at
        if topic in _stopped:
            raise SweepError("the sweep was stopped")
        unsent += runs
        if time.monotonic() - sent_at > REPORT_SECONDS:
            worker.log_event(topic, unsent)
            unsent, sent_at = 0.0, time.monotonic()

    outcome = task(part, advance=report)
    worker.log_event(topic, unsent)
    return outcome


@contextmanager
def progress_bar(total: int, shown: bool) -> Iterator[Advance]:
    """A bar in an output of its own in a notebook, and on papermill's terminal if that executes it;
    else on standard output."""
    in_notebook = getattr(get_ipython(), "kernel", None) is not None
    layout = "{percentage:3.0f}%|{bar:30}| {n:.0f}/{total} runs [{elapsed}<{remaining}]"
    options = {"mininterval": PROGRESS_SECONDS, "bar_format": layout}
    options["file"] = _OneOutput() if in_notebook else sys.stdout
    with tqdm(total=total, disable=not (shown and total), **options) as bar:
        yield lambda runs: bar.update(min(runs, total - bar.n))


class _OneOutput(io.TextIOBase):
    """A notebook output that each line replaces; papermill would save one output for each line.
    Its terminal gets the bar, too, below that of papermill, which stands still while a cell runs.
    """

    encoding = "utf-8"
    handle = None

    def __init__(self) -> None:
        self.terminal = _papermills_terminal()

    def write(self, text: str) -> int:
        if self.terminal is not None:
            start = "\n" if self.handle is None else ""
            with suppress(OSError):  # it was closed
                os.write(self.terminal, f"{start}{text}".encode())
        if line := text.strip("\r\n"):
            shown = {"text/plain": line}
            if self.handle is None:
                self.handle = display(shown, raw=True, display_id=True)
            else:
                self.handle.update(shown, raw=True)
        return len(text)


def _papermills_terminal() -> int | None:
    """The descriptor of the terminal on which papermill executes this notebook, if it does. A
    kernel keeps the standard error that it was started with."""
    with suppress(OSError, psutil.Error):
        command = psutil.Process(os.getppid()).cmdline()[:3]
        error = sys.stderr.fileno()
        if os.isatty(error) and any(Path(word).name == "papermill" for word in command):
            return error
    return None
