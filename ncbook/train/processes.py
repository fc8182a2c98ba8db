"""One run on several devices of this machine: a process for each, and news of them."""

import logging
import multiprocessing
import os
import sys
import tempfile
import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import multiprocessing as mp

POLL_SECONDS = 0.1
# Nothing of a run can be reached over the network: the processes meet in a file, and talk here.
LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"

OnEpoch = Callable[[int, int], None]


def start_fabric(device: str, devices: int, double: bool) -> Any:
    """Lightning Fabric on one device, or on this process's one of several.

    Autocast is not left to it: its mixed precision would include the last layer.
    """
    from lightning_fabric import Fabric  # takes two seconds
    from lightning_fabric.plugins.environments import LightningEnvironment

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    kind, _, number = device.partition(":")
    fabric = Fabric(
        accelerator=kind,
        devices=[int(number)] if number else devices,
        strategy="ddp" if devices > 1 else "auto",
        precision="64-true" if double else "32-true",
        plugins=[LightningEnvironment()],  # on a cluster, too, a run stays on its machine
    )
    fabric.launch()
    return fabric


def in_processes(work: Callable[[Any, OnEpoch], Any], job: Any, devices: int, on_epoch: OnEpoch):
    """What ``work(job, on_epoch)`` returns in the first of ``devices`` processes.

    Fabric's own launchers start the script again or refuse to work in a notebook.

    Raises:
        ValueError, OSError, MemoryError: of any of the processes, which are ended with it.
    """
    news, heard = mp.get_context("spawn").SimpleQueue(), {}
    threads = max(1, torch.get_num_threads() // devices)
    with tempfile.TemporaryDirectory(prefix="ncbook-") as folder:
        arguments = (work, job, devices, f"file://{folder}/meeting", threads, news)
        running = mp.start_processes(
            _process, arguments, nprocs=devices, join=False, start_method="spawn"
        )
        try:
            ended = False
            while not ended:
                ended = running.join(timeout=POLL_SECONDS)
                _listen(news, heard, on_epoch)
        except (mp.ProcessRaisedException, mp.ProcessExitedException):
            _listen(news, heard, on_epoch)
            if "refused" in heard:
                raise heard["refused"] from None
            raise
        finally:
            for process in running.processes:
                process.terminate()
    return heard["done"]


def _listen(news, heard: dict[str, Any], on_epoch: OnEpoch) -> None:
    while not news.empty():
        word, value = news.get()
        if word == "epoch":
            on_epoch(value, 1)
        else:
            heard[word] = value


def _process(rank: int, work, job, devices: int, meeting: str, threads: int, news) -> None:
    os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "WORLD_SIZE": str(devices)}
    os.environ |= {"GLOO_SOCKET_IFNAME": LOOPBACK, "NCCL_SOCKET_IFNAME": LOOPBACK}
    torch.set_num_threads(threads)
    threading.Thread(target=_follow_parent, daemon=True).start()

    def on_epoch(epoch: int, members: int) -> None:
        if rank == 0:
            news.put(("epoch", epoch))

    try:
        # Fabric would have the processes meet at a port that listens on all interfaces.
        backend = "gloo" if job.device == "cpu" else "nccl"
        torch.distributed.init_process_group(
            backend, init_method=meeting, rank=rank, world_size=devices
        )
        done = work(job, on_epoch)
    except (ValueError, OSError, MemoryError) as error:
        news.put(("refused", error))
        raise
    if rank == 0:
        news.put(("done", done))
    torch.distributed.destroy_process_group()


def _follow_parent() -> None:
    """End this process when the one that waits for it is killed."""
    multiprocessing.parent_process().join()
    os._exit(1)
