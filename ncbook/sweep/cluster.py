"""Workers for a sweep: processes of our own on this machine, or those of a Dask scheduler."""

import asyncio
import logging
import os
import re
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import dask
import torch

from ncbook import __version__, text
from ncbook.parameters import OneLine
from ncbook.paths import private_folder

CONNECT_SECONDS = 5.0  # to a scheduler
WORKERS_SECONDS = 10.0  # for a scheduler's first worker
POLL_SECONDS = 0.05  # between attempts to end workers that are starting
STARTS = 6  # of a cluster whose workers die while they start, and of Dask's threads
LOCAL_HOST = "127.0.0.1"
DASHBOARD_VARIABLE = "NCBOOK_DASHBOARD"  # the dashboard's port on this machine; off if not set
SCHEDULER_CONFIG = {  # of our own scheduler
    "distributed.scheduler.allowed-failures": 0,  # we count the deaths, and try again ourselves
    # A worker that compiles or starts, or a busy machine, may be silent for longer than by default.
    "distributed.scheduler.worker-ttl": None,
    "distributed.deploy.lost-worker-timeout": "1000 days",
    "distributed.comm.timeouts.connect": "120s",
    "distributed.comm.timeouts.tcp": "600s",
    "distributed.worker.daemon": False,  # daemons may not start processes, which decode images
    # Dask's monitoring of itself took 8 % of a core here, and 6 % of one in each worker.
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "10s",
    "distributed.worker.profile.enabled": False,
    # Pages about the tasks, which any user of this machine could read.
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
}
TLS = "DASK_DISTRIBUTED__COMM__TLS__"  # start of Dask's environment variables for certificates
# Checked before Dask sees it: a client that cannot start may block the next one for seconds.
ADDRESS = re.compile(r"(tcp|tls)://([^\s:/]+|\[[0-9a-fA-F:.]+\]):\d+")
LOGGERS = ("distributed", "distributed.client", "tornado", "tornado.application", "asyncio")


class SweepError(OneLine, RuntimeError):
    """A sweep that cannot begin or go on."""


@contextmanager
def local(workers: int, device: str = "cpu") -> Iterator:
    """A client of ``workers`` new processes on this machine, each with one thread; GPUs are dealt
    out in turn. All processes end with the block, or when this process dies.

    Whoever reaches a scheduler or a worker can run code in it, and any user of this machine reaches
    its ports. So ours accept TLS only, with a key that is made here, stays in memory, and goes to
    the workers through pipes.
    """
    # 0.3 s that few commands need
    from distributed import Client, Nanny, Scheduler, Security, SpecCluster

    secure, quiet = {"security": Security.temporary()}, {"silence_logs": logging.CRITICAL}
    place = secure | {"host": LOCAL_HOST, "protocol": "tls://"}
    scheduler = {"cls": Scheduler, "options": place | _dashboard()}
    options = {"nthreads": 1, "preload": [f"{__package__}.tasks"]} | place | quiet
    options["memory_limit"] = 0  # the system knows better than Dask when to kill
    gpus = [{"env": _gpu_of(i, device)} for i in range(workers)]
    specs = {i: {"cls": Nanny, "options": options | gpu} for i, gpu in enumerate(gpus)}
    # A private folder, because Python imports code from it.
    config = SCHEDULER_CONFIG | {"temporary-directory": str(private_folder("dask"))}
    with _quiet(), dask.config.set(config), _event_loop() as loop, ExitStack() as stack:
        make = partial(SpecCluster, scheduler=scheduler, loop=loop, **secure, **quiet)
        cluster = _started(make, specs, stack)
        client = stack.enter_context(Client(cluster, set_as_default=False))
        stack.callback(_kill_workers, cluster)  # else the client would wait for their tasks
        yield client


@contextmanager
def _event_loop() -> Iterator:
    """A thread with the event loop of Dask's clusters and clients. Dask waits for it for ten
    seconds, which are not always enough on a busy machine."""
    from distributed.utils import LoopRunner

    for _ in range(STARTS):
        runner = LoopRunner()
        with suppress(AssertionError), _interrupts_blocked():
            runner.start()
            break
    else:
        raise SweepError("this machine is too busy to start the threads of Dask")
    try:
        yield runner.loop
    finally:
        runner.stop()


def _dashboard() -> dict[str, Any]:
    """The scheduler's options: no dashboard, unless a port for it is set."""
    port = os.environ.get(DASHBOARD_VARIABLE, "")
    if port and not (port.isdecimal() and int(port) < 2**16):
        raise SweepError(f"{DASHBOARD_VARIABLE} must be a port, 0 to 65535, got {port!r}")
    return {"dashboard": bool(port), "dashboard_address": f"{LOCAL_HOST}:{port or 0}"}


def credentials(client) -> dict[str, str]:
    """Environment variables with which another process of this user can join the scheduler of
    ``local``; Dask reads them. Other users cannot read them there."""
    names = {"CA_FILE": "tls_ca_file", "CLIENT__CERT": "tls_client_cert"}
    names["CLIENT__KEY"] = "tls_client_key"
    return {f"{TLS}{name}": getattr(client.security, field) for name, field in names.items()}


def _gpu_of(worker: int, device: str) -> dict[str, str]:
    """The environment variable that lets a worker see one GPU only."""
    if device == "cpu":
        return {}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]
    number = device.partition(":")[2]
    return {"CUDA_VISIBLE_DEVICES": gpus[int(number) if number else worker % len(gpus)]}


def _started(make: Callable, specs: dict[int, dict], stack: ExitStack):
    """A cluster with these workers, which the stack ends; if workers die early, another one."""
    for _ in range(STARTS):
        try:
            with _interrupts_blocked():
                cluster = stack.enter_context(make())
                stack.callback(_kill_workers, cluster)
            cluster.worker_spec.update(specs)
            starting = cluster._correct_state_internal()  # takes seconds: workers import torch
            start = asyncio.run_coroutine_threadsafe(starting, cluster.loop.asyncio_loop)
            try:
                start.result()
                return cluster
            finally:
                while not wait([start], POLL_SECONDS).done:  # interrupted
                    _kill_workers(cluster)
        except (RuntimeError, OSError) as failure:
            error = SweepError(f"the worker processes could not be started: {failure!r}")
            stack.close()
    raise error


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Delay Ctrl-C to the end of the block: half a scheduler cannot be closed. Threads that start
    in the block, and so all worker processes, never receive it: the sweep ends them."""
    resource_tracker.ensure_running()  # if it started later, that would unblock SIGINT again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _kill_workers(cluster) -> None:
    """End them at once: a chunk can take hours, and even an idle worker seconds to close."""
    from distributed.core import Status

    for nanny in list(cluster._created):  # also those that are still starting
        nanny.status = Status.closing_gracefully  # so that it does not start another
        if nanny.pid:
            with suppress(ProcessLookupError):
                os.kill(nanny.pid, signal.SIGKILL)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the libraries' long logs out of notebooks; in the end remove what Dask sets in this
    environment for its workers, such as OMP_NUM_THREADS."""
    levels = {logger: logger.level for logger in map(logging.getLogger, LOGGERS)}
    variables = set(os.environ)
    for logger in levels:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)
        for name in os.environ.keys() - variables:
            del os.environ[name]


@contextmanager
def joined(address: str) -> Iterator:
    """A client of the scheduler at ``address``, which keeps running after the block.

    Raises:
        SweepError: no scheduler answers, or it has no workers.
    """
    from distributed import Client

    with _quiet(), _event_loop() as loop:
        try:
            if not ADDRESS.fullmatch(address):
                raise ValueError("this is no such address")
            client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False, loop=loop)
        except (OSError, ValueError, TypeError, RuntimeError) as error:  # also on certificates
            raise SweepError(
                f"no Dask scheduler answers at {address!r}; valid: the address that `dask "
                "scheduler` printed, tcp://HOST:PORT, or tls://HOST:PORT with Dask's "
                f"distributed.comm.tls, or {TLS}*, set ({text.line(error)})"
            ) from None
        with client:
            try:
                client.wait_for_workers(1, timeout=WORKERS_SECONDS)
            except TimeoutError:
                raise SweepError(
                    f"the scheduler at {address} has no workers; start some: "
                    f"dask worker {address} --nthreads 1"
                ) from None
            yield client


def scheduler_workers(address: str, results: Path | str = "") -> tuple[int, int]:
    """How many workers the scheduler at ``address`` has, each of which trains one chunk at a time,
    and how many GPUs each has; all must see the results folder, if given.

    Raises:
        SweepError: no scheduler answers, it has no workers, they cannot run this ncbook, or one has
            more than one thread: torch's random state and modes are a process's.
    """
    with joined(address) as client:
        try:
            found = client.run(_what_it_has, str(results))
        except (ImportError, AttributeError) as error:
            raise SweepError(f"the workers of {address} cannot import ncbook: {error}") from None
        threads = client.nthreads()
    if many := [worker for worker, count in threads.items() if count > 1]:
        raise SweepError(
            f"{len(many)} of the workers, such as {many[0]}, have {threads[many[0]]} threads, and "
            "training takes one: start them with --nthreads 1 (and --nworkers for more)"
        )
    versions, gpus, sights = zip(*found.values(), strict=True)
    if other := set(versions) - {__version__}:
        theirs = ", ".join(sorted(other))
        raise SweepError(f"the workers of {address} run ncbook {theirs}, and this is {__version__}")
    if not all(sights):
        raise SweepError(
            f"{sights.count(False)} of the workers, such as {list(found)[sights.index(False)]}, "
            f"see no folder {results}: results must be a folder that all machines share"
        )
    return len(threads), min(gpus)


def _what_it_has(folder: str) -> tuple[str, int, bool]:
    return __version__, torch.cuda.device_count(), not folder or os.path.isdir(folder)
