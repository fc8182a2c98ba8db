"""One run on several devices of this machine: a process for each, and news of them."""

import multiprocessing
import os
import sys
import tempfile
import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import multiprocessing as mp

from ncbook.train.loop import OnEpoch

POLL_SECONDS = 0.1
# Nothing of a run can be reached over the network: the processes meet in a file, and talk here.
LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"


def in_processes(work: Callable[[Any, OnEpoch], Any], run: Any, on_epoch: OnEpoch) -> Any:
    """What ``work(run, on_epoch)`` returns in the first of ``run.devices`` processes, which
    ``torch.distributed`` joins.

    Raises:
        ValueError, OSError, MemoryError: of any of the processes, which are ended with it.
    """
    news, heard = mp.get_context("spawn").SimpleQueue(), {}
    threads = max(1, torch.get_num_threads() // run.devices)
    with tempfile.TemporaryDirectory(prefix="ncbook-") as folder:
        arguments = (work, run, f"file://{folder}/meeting", threads, news)
        running = mp.start_processes(
            _process, arguments, nprocs=run.devices, join=False, start_method="spawn"
        )
        try:
            while not running.join(timeout=POLL_SECONDS):
                _listen(news, heard, on_epoch)
        except (mp.ProcessRaisedException, mp.ProcessExitedException):
            _listen(news, heard, on_epoch)
            if "refused" in heard:
                raise heard["refused"] from None
            raise
        finally:
            for process in running.processes:
                process.terminate()
    _listen(news, heard, on_epoch)
    return heard["done"]


def _listen(news, heard: dict[str, Any], on_epoch: OnEpoch) -> None:
    while not news.empty():
        word, value = news.get()
        if word == "epoch":
            on_epoch(value, 1)
        else:
            heard[word] = value


def _process(rank: int, work, run, meeting: str, threads: int, news) -> None:
    os.environ |= {"GLOO_SOCKET_IFNAME": LOOPBACK, "NCCL_SOCKET_IFNAME": LOOPBACK}
    torch.set_num_threads(threads)
    threading.Thread(target=_follow_parent, daemon=True).start()

    def on_epoch(epoch: int, members: int) -> None:
        if rank == 0:
            news.put(("epoch", epoch))

    try:
        backend = "gloo" if run.device == "cpu" else "nccl"
        place = {"init_method": meeting, "rank": rank, "world_size": run.devices}
        torch.distributed.init_process_group(backend, **place)
        done = work(run, on_epoch)
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
