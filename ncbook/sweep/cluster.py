"""Workers for a sweep: processes of our own on this machine, or those of a Dask scheduler."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask
import torch

from ncbook import __version__, private

if TYPE_CHECKING:
    from distributed import Security, SpecCluster

CONNECT_SECONDS = 5.0  # to a scheduler that should be there
WORKERS_SECONDS = 10.0  # for the first worker of a scheduler to come
POLL_SECONDS = 0.05  # between looks at workers that are to end while they start
STARTS = 6  # of worker processes that die before they are there
LOCAL_HOST = "127.0.0.1"
DASHBOARD_VARIABLE = "NCBOOK_DASHBOARD"  # the port for it, on this machine; else it is off
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
    # Pages about the tasks, which any user of this machine could read.
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
}
PRE_SPAWN = "distributed.nanny.pre-spawn-environ"
TLS = "DASK_DISTRIBUTED__COMM__TLS__"  # how Dask's environment variables for certificates begin
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

    Whoever reaches a scheduler or a worker can run code in it, and any user of this machine reaches
    its ports. So these talk TLS alone, with a key that is made here, is kept in memory, and goes
    to the workers through pipes.

    Args:
        workers: how many.
        device: ``cpu``; ``cuda``, all GPUs; or ``cuda:N``, that one.
    """
    # 0.3 s that few commands need
    from distributed import Client, Nanny, Scheduler, Security, SpecCluster

    secure = {"host": LOCAL_HOST, "protocol": "tls://", "security": Security.temporary()}
    scheduler = {"cls": Scheduler, "options": secure | _dashboard()}
    options = secure | {
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
        # Python imports from what is in this folder.
        dask.config.set(SCHEDULER_CONFIG | {"temporary-directory": str(private.folder("dask"))}),
        ExitStack() as stack,
    ):
        quiet = {"security": secure["security"], "silence_logs": logging.CRITICAL}
        cluster = _started(lambda: SpecCluster(scheduler=scheduler, **quiet), specs, stack)
        client = stack.enter_context(Client(cluster, set_as_default=False))
        stack.callback(_kill, cluster)  # before the client waits for what they do
        yield client


def _dashboard() -> dict[str, Any]:
    """The scheduler's options: no dashboard, unless a port for it is set."""
    port = os.environ.get(DASHBOARD_VARIABLE, "")
    if port and not (port.isdecimal() and int(port) < 2**16):
        raise SweepError(f"{DASHBOARD_VARIABLE} must be a port, 0 to 65535, got {port!r}")
    if port and find_spec("bokeh") is None:
        raise SweepError(f"{DASHBOARD_VARIABLE} is set, and the dashboard needs: pip install bokeh")
    return {"dashboard": bool(port), "dashboard_address": f"{LOCAL_HOST}:{port or 0}"}


def credentials(client) -> dict[str, str]:
    """The environment variables by which another process may join the scheduler of ``local``: Dask
    reads them where it is given no other configuration. Only this user can read them there."""
    security = client.security
    return {
        f"{TLS}CA_FILE": security.tls_ca_file,
        f"{TLS}CLIENT__CERT": security.tls_client_cert,
        f"{TLS}CLIENT__KEY": security.tls_client_key,
    }


def _started(make: Callable, specs: dict[int, dict], stack: ExitStack) -> SpecCluster:
    """A cluster that the stack ends, with these workers; if some die meanwhile, another one."""
    for _ in range(STARTS):
        try:
            with _interrupts_later():
                cluster = stack.enter_context(make())
                stack.callback(_kill, cluster)
            cluster.worker_spec.update(specs)
            _wait(cluster)
            return cluster
        except (RuntimeError, OSError) as error:
            reason = repr(error)
            stack.close()
    raise SweepError(f"the worker processes could not be started: {reason}")


def _wait(cluster) -> None:
    """Until the workers are there, which takes seconds: torch is imported. What interrupts it ends
    those that are on their way, too."""

    async def reach_specs() -> None:
        await cluster._correct_state()

    start = asyncio.run_coroutine_threadsafe(reach_specs(), cluster.loop.asyncio_loop)
    try:
        start.result()
    except BaseException:
        while not wait([start], POLL_SECONDS).done:
            _kill(cluster)
        raise


@contextmanager
def _interrupts_later() -> Iterator[None]:
    """Ctrl-C waits for the end of the block: half a scheduler cannot be closed. The threads that
    are started in it, and so all worker processes, never see one: it is for the sweep to stop them.
    """
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
            with suppress(ProcessLookupError):
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
            secure = _configured(address)
            client = Client(address, timeout=CONNECT_SECONDS, security=secure, set_as_default=False)
        except (OSError, ValueError):
            raise SweepError(
                f"no Dask scheduler answers at {address!r}; valid: the address that "
                "`dask scheduler` printed, tcp://HOST:PORT, or tls://HOST:PORT with a certificate "
                "that it accepts"
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


def _configured(address: str) -> Security:
    """Dask's own TLS configuration.

    Raises:
        SweepError: it is not one that this address can be joined with.
    """
    from distributed import Security

    try:
        security = Security()
        context = security.get_connection_args("client")["ssl_context"]
    except (OSError, ValueError) as error:
        raise SweepError(
            f"Dask's configuration distributed.comm.tls cannot be used: {error}"
        ) from None
    if address.startswith("tls:") and context is None:
        raise SweepError(
            f"{address} needs certificates: set {TLS}CA_FILE, {TLS}CLIENT__CERT and "
            f"{TLS}CLIENT__KEY, or the same in Dask's configuration"
        )
    if address.startswith("tcp:") and security.require_encryption:
        raise SweepError(f"Dask's configuration demands encryption, and {address} has none")
    return security


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
