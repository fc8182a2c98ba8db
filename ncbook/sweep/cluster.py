"""Workers for a sweep: processes of our own on this machine, or those of a Dask scheduler."""

from __future__ import annotations

import logging
import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from multiprocessing import resource_tracker
from pathlib import Path

import dask
import torch

from ncbook import __version__

CONNECT_SECONDS = 5.0  # to a scheduler that should be there
WORKERS_SECONDS = 10.0  # for the first worker of a scheduler to come
STARTS = 6  # of worker processes that die before they are there
LOCAL_HOST = "127.0.0.1"  # nobody else can reach the scheduler and its dashboard
# Of our own scheduler. A chunk whose worker dies comes back to us at once, for we count how often.
# One that compiles may hold Python's lock, and a busy machine may leave a process waiting, for
# longer than Dask thinks healthy; so may one that starts anew, which Dask would then give up.
# Daemons may have no processes, which decode streamed images.
SCHEDULER_CONFIG = {
    "distributed.scheduler.allowed-failures": 0,
    "distributed.scheduler.worker-ttl": None,
    "distributed.deploy.lost-worker-timeout": "1000 days",
    "distributed.worker.daemon": False,
    # What watches and profiles itself took 8 % of a core here, and 6 % of one in each worker.
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "10s",
    "distributed.worker.profile.enabled": False,
    "distributed.comm.timeouts.connect": "120s",
    "distributed.comm.timeouts.tcp": "600s",
}
PRE_SPAWN = "distributed.nanny.pre-spawn-environ"
ADDRESS = re.compile(r"(tcp|tls)://([^\s:/]+|\[[0-9a-fA-F:.]+\]):\d+")
LOGGERS = ("distributed", "distributed.client", "tornado", "tornado.application", "asyncio")


class SweepError(RuntimeError):
    """A sweep that cannot begin or go on; a notebook shows its one line and no traceback."""

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}"]


@dataclass(frozen=True)
class Workers:
    """What a scheduler has: threads that each train a chunk at a time, and GPUs a worker."""

    address: str
    count: int
    gpus: int


# ------------------------------------------------------------ of our own


@contextmanager
def local(workers: int, device: str = "cpu") -> Iterator:
    """A client of ``workers`` new processes on this machine, each with one thread; on GPUs they are
    dealt out in turn. All of them end with the block, or when this process dies.

    Args:
        workers: how many.
        device: ``cpu``; ``cuda``, all GPUs; or ``cuda:N``, that one.
    """
    from distributed import Client, Nanny, Scheduler, SpecCluster  # 0.3 s that few commands need

    scheduler = {
        "cls": Scheduler,
        "options": {"host": LOCAL_HOST, "dashboard_address": f"{LOCAL_HOST}:0"}
        | {"dashboard": find_spec("bokeh") is not None},
    }
    options = {
        "host": LOCAL_HOST,
        "nthreads": 1,
        "memory_limit": 0,  # no killing by Dask: the system knows better what is left
        "silence_logs": logging.CRITICAL,
        "preload": [f"{__package__}.worker"],
    }
    specs = {
        i: {"cls": Nanny, "options": options | {"env": _environment(device, i)}}
        for i in range(workers)
    }
    with (
        _quiet(),
        _same_environment(),
        dask.config.set(SCHEDULER_CONFIG),
        ExitStack() as stack,
    ):
        with _interrupts_later():
            cluster = stack.enter_context(
                _started(
                    lambda: SpecCluster(
                        workers=specs, scheduler=scheduler, silence_logs=logging.CRITICAL
                    )
                )
            )
        client = stack.enter_context(Client(cluster, set_as_default=False))
        try:
            yield client
        finally:
            _kill(cluster)


def _started(start: Callable):
    """The cluster that ``start`` makes; one whose workers die meanwhile is started again."""
    for _ in range(STARTS):
        try:
            return start()
        except (RuntimeError, OSError) as error:
            reason = repr(error)
    raise SweepError(f"the worker processes could not be started: {reason}")


@contextmanager
def _interrupts_later() -> Iterator[None]:
    """Ctrl-C waits for the end of the block: half a cluster cannot be closed. The threads that are
    started in it, and so all worker processes, never see one: it is for the sweep to stop them."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # or the first process's start would let SIGINT through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _same_environment() -> Iterator[None]:
    """Dask sets what a worker is to find, as OMP_NUM_THREADS, in this process, too, and leaves it
    there for all that it starts later."""
    before = {name: os.environ.get(name) for name in dask.config.get(PRE_SPAWN)}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _environment(device: str, worker: int) -> dict[str, str]:
    """Which GPU a worker sees, as its only one."""
    if device == "cpu":
        return {}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]
    number = device.partition(":")[2]
    return {"CUDA_VISIBLE_DEVICES": gpus[int(number) if number else worker % len(gpus)]}


def device_in_worker(device: str) -> str:
    """A GPU's name in a worker that sees no other."""
    return device.partition(":")[0]


def _kill(cluster) -> None:
    """End them at once: a chunk in training can take hours, and idle ones seconds to close."""
    from distributed.core import Status

    for nanny in cluster.workers.values():
        nanny.status = Status.closing_gracefully  # else it starts another
        if nanny.pid:
            os.kill(nanny.pid, signal.SIGKILL)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the libraries' logs, walls of text, out of notebooks: what matters is said by us."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


# ------------------------------------------------------------ of a scheduler


@contextmanager
def joined(address: str) -> Iterator:
    """A client of the scheduler at ``address``, which goes on when the block ends.

    Raises:
        SweepError: there is none, or it has no workers.
    """
    from distributed import Client

    with _quiet():
        try:
            if not ADDRESS.fullmatch(address):
                raise ValueError(address)
            client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
        except (OSError, ValueError):
            raise SweepError(
                f"no Dask scheduler answers at {address!r}; valid: the address that "
                "`dask scheduler` printed, tcp://HOST:PORT"
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


def look(address: str) -> Workers:
    """What the scheduler at ``address`` offers.

    Raises:
        SweepError: there is none, it has no workers, or these cannot run this ncbook.
    """
    with joined(address) as client:
        return workers_of(client, address)


def workers_of(client, address: str = "") -> Workers:
    """The workers that a client sees now; see ``look``."""
    try:
        offers = client.run(_offer)
    except ImportError as error:
        raise SweepError(f"the workers of {address} cannot import ncbook: {error}") from None
    versions = {version for version, _ in offers.values()}
    if versions != {__version__}:
        found = ", ".join(sorted(versions))
        raise SweepError(f"the workers of {address} run ncbook {found}, and this is {__version__}")
    gpus = min(gpus for _, gpus in offers.values())
    return Workers(address, sum(client.nthreads().values()), gpus)


def check_sees(client, results: Path) -> None:
    """Raise ``SweepError`` unless all workers see the results folder: else what they train would
    be stored where nobody looks."""
    blind = [worker for worker, sees in client.run(os.path.isdir, str(results)).items() if not sees]
    if blind:
        raise SweepError(
            f"{len(blind)} of the workers, such as {blind[0]}, see no folder {results}: results "
            "must be a folder that all machines share"
        )


def _offer() -> tuple[str, int]:
    return __version__, torch.cuda.device_count()
