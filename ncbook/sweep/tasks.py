"""Chunks as tasks: here one after another, or on a cluster's workers, whatever happens to these."""

from __future__ import annotations

import contextlib
import queue
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ncbook.sweep.cluster import SweepError
from ncbook.sweep.progress import Advance
from ncbook.train import RunConfig

TRIES = 3  # of a chunk whose worker dies; then each of its members alone, as often
COUNT_SECONDS = 1.0  # between counts of the workers, which come and go
LOOK_SECONDS = 5.0  # without news, until we look whether there are workers
GONE_SECONDS = 300.0  # without any: a dead one of our own comes back within a minute or never
NEWS_SECONDS = 0.5  # between a worker's reports on the progress of its chunk
DIED = f"its worker process died {TRIES} times while training it alone (out of memory?)"


@dataclass
class Outcome:
    """What became of a chunk's runs."""

    trained: Counter = field(default_factory=Counter)  # by status
    stored: int = 0  # by someone else, meanwhile
    busy: list[RunConfig] = field(default_factory=list)  # someone else is training these
    fatal: list[RunConfig] = field(default_factory=list)  # given up: they kill their worker


Task = Callable[..., Outcome]  # of a chunk, and ``advance=``


def train_here(task: Task, parts: Sequence[list[RunConfig]], advance: Advance) -> Iterator[Outcome]:
    """Each chunk's outcome, one after another in this process."""
    for part in parts:
        yield task(part, advance=advance)


def train_on(
    client, task: Task, parts: Sequence[list[RunConfig]], advance: Advance
) -> Iterator[Outcome]:
    """Each chunk's outcome as it ends on the client's workers.

    A chunk whose worker dies is tried again, up to ``TRIES`` times; then its members are tried each
    by itself, and one that kills its worker again and again is given up: ``fatal``. Whatever a
    task raises is raised here, and what is still training is stopped.

    Raises:
        SweepError: the scheduler is gone; or all workers, where these are our own.
    """
    with _News(client) as news:
        flight = _Flight(client, task, news)
        waiting = deque(_Attempt(list(part)) for part in parts)
        try:
            while waiting or flight.attempts:
                flight.launch(waiting)
                event = news.get()
                if event is None:
                    flight.look()
                    continue
                if isinstance(event, float):
                    advance(event)
                    continue
                attempt = flight.land(event)
                outcome = _outcome(event)
                if outcome is not None:
                    yield outcome
                elif attempt.is_last():
                    yield Outcome(fatal=attempt.part)
                else:
                    waiting.extend(attempt.next())
        finally:
            flight.stop()


def _outcome(future) -> Outcome | None:
    """The task's; None if its worker died. One that a dying worker took along is waited for: the
    scheduler has the task done once more, and it finds its runs stored."""
    from distributed import CancelledError, KilledWorker

    try:
        return future.result()
    except KilledWorker:
        return None
    except CancelledError:
        raise SweepError(
            "the scheduler is gone; what was trained is stored: begin again, and it goes on"
        ) from None


@dataclass(frozen=True)
class _Attempt:
    """A chunk, and how many workers have died over it."""

    part: list[RunConfig]
    deaths: int = 0

    def is_last(self) -> bool:
        return len(self.part) == 1 and self.deaths + 1 >= TRIES

    def next(self) -> list[_Attempt]:
        if self.deaths + 1 < TRIES:
            return [_Attempt(self.part, self.deaths + 1)]
        return [_Attempt([config]) for config in self.part]


class _Flight:
    """The chunks that are with the scheduler: as many as there are threads.

    So each worker has one, and its death is blamed on that one alone; and what is left goes to
    whoever is free. It costs a chunk a few milliseconds.
    """

    def __init__(self, client, task: Task, news: _News) -> None:
        self.client, self.task, self.news = client, task, news
        self.attempts: dict = {}  # by future
        self._threads, self._counted = 0, -COUNT_SECONDS

    def launch(self, waiting: deque[_Attempt]) -> None:
        """Hand over as many of those that wait as there is room for."""
        while waiting and len(self.attempts) < self._room():
            self._submit(waiting.popleft())

    def _room(self) -> int:
        if time.monotonic() - self._counted > COUNT_SECONDS:
            self._threads = sum(self.client.nthreads().values())
            self._counted = time.monotonic()
        return max(1, self._threads)

    def _submit(self, attempt: _Attempt) -> None:
        key = f"chunk-{uuid.uuid4().hex}"
        arguments = (self.task, attempt.part, self.news.topic)
        future = self.client.submit(_in_worker, *arguments, key=key, pure=False)
        self.attempts[future] = attempt
        future.add_done_callback(self.news.put)

    def land(self, future) -> _Attempt:
        """The attempt that has ended with this future."""
        self._counted = -COUNT_SECONDS if future.status == "error" else self._counted
        return self.attempts.pop(future)

    def look(self) -> None:
        """Wait for a worker, where these are our own; those of a scheduler may be in a queue."""
        limit = time.monotonic() + GONE_SECONDS
        while self.client.cluster is not None and not self.client.nthreads():
            if time.monotonic() > limit:
                raise SweepError(
                    "the worker processes are gone, and cannot be started again (no memory or "
                    "disk left?); what was trained is stored: begin again, and it goes on"
                )
            time.sleep(COUNT_SECONDS)

    def stop(self) -> None:
        """Of our own workers the processes end anyway; those of others are told."""
        if self.attempts and self.client.status == "running":
            self.client.run(_stop, self.news.topic, wait=False)
            self.client.cancel(list(self.attempts), force=True)


class _News:
    """What workers report: runs' worth of progress (float), and futures that are done."""

    def __init__(self, client) -> None:
        self.client, self.topic = client, f"ncbook-{uuid.uuid4().hex}"
        self._events: queue.SimpleQueue = queue.SimpleQueue()
        self.put = self._events.put

    def get(self) -> Any:
        """The next, or None if there is none for some time."""
        with contextlib.suppress(queue.Empty):
            return self._events.get(timeout=LOOK_SECONDS)
        return None

    def __enter__(self) -> _News:
        self.client.subscribe_topic(self.topic, lambda event: self.put(event[1]))
        return self

    def __exit__(self, *error) -> None:
        if self.client.status == "running":
            self.client.unsubscribe_topic(self.topic)


# ------------------------------------------------------------ in a worker

_stopped: set[str] = set()  # topics of sweeps that have ended


async def _stop(topic: str) -> None:  # for Dask waits for all but coroutines
    _stopped.add(topic)


def _in_worker(task: Task, part: list[RunConfig], topic: str) -> Outcome:
    with _reporting(topic) as report:
        return task(part, advance=report)


@contextmanager
def _reporting(topic: str) -> Iterator[Advance]:
    from distributed import get_worker

    worker, news, sent = get_worker(), 0.0, time.monotonic()

    def report(runs: float) -> None:
        nonlocal news, sent
        if topic in _stopped:
            raise SweepError("the sweep was stopped")
        news += runs
        if time.monotonic() - sent > NEWS_SECONDS:
            worker.log_event(topic, news)
            news, sent = 0.0, time.monotonic()

    yield report
    worker.log_event(topic, news)
