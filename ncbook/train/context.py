"""Settings that hold while something trains, and no longer."""

import ctypes
import gc
import os
import platform
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from ncbook.metrics.checks import without_autocast
from ncbook.train.config import RunConfig

# Of malloc.h
TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4
KEPT = {MMAP_MAX: 0, TRIM_THRESHOLD: 2**31 - 1}  # large blocks come from the heap, which stays
# As it is in a process that has had blocks of 32 MiB, the most that glibc adapts itself to.
USUAL = {MMAP_MAX: 65536, MMAP_THRESHOLD: 2**25, TRIM_THRESHOLD: 2**26}
# Tracing makes a million objects, and takes 5.5 s (six layers, Adam) where it takes 8.5 s with
# Python's default, 700 or, since 3.13, 2,000 new objects.
COLLECT_AFTER = 50_000


# The default random state, these settings and the modules that members' tensors are put into are a
# process's: of two threads one waits.
ONE_AT_A_TIME = threading.RLock()


@contextmanager
def training(config: RunConfig, members: int, deterministic: bool) -> Iterator[None]:
    """One thread at a time, ``heap_kept``, garbage collected seldom and, if wanted, deterministic
    algorithms. Numbers below 1e-38 count as zero: a CPU can be many times slower with them, and
    strong weight decay can make whole networks of them. The caller's autocast, inference mode and
    default dtype are off."""
    with ExitStack() as stack:
        stack.enter_context(ONE_AT_A_TIME)
        stack.enter_context(heap_kept())
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(without_autocast())
        tiny = torch.full((1,), torch.finfo(torch.float32).tiny, dtype=torch.float32)
        flushed, collected = (tiny / 2).item() == 0, gc.get_threshold()
        repeatable = torch.are_deterministic_algorithms_enabled()
        warned = torch.is_deterministic_algorithms_warn_only_enabled()
        stack.callback(torch.set_default_dtype, torch.get_default_dtype())
        torch.set_default_dtype(torch.float32)
        stack.callback(gc.set_threshold, *collected)
        gc.set_threshold(max(COLLECT_AFTER, collected[0]), *collected[1:])
        stack.callback(torch.set_flush_denormal, flushed)
        torch.set_flush_denormal(True)
        if deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # torch asks for it
            stack.callback(torch.use_deterministic_algorithms, repeatable, warn_only=warned)
            torch.use_deterministic_algorithms(True)
        try:
            yield
        except RuntimeError as error:  # torch.OutOfMemoryError is one; a CPU's has no own class
            if not isinstance(error, torch.OutOfMemoryError) and "alloc" not in str(error).lower():
                raise
            raise MemoryError(
                f"out of memory training {members} x {config.model} (width {config.width:g}) on "
                f"{config.dataset}: choose a batch_size below {config.batch_size}, a smaller width "
                "or train_size, or fewer workers"
            ) from error


@contextmanager
def heap_kept() -> Iterator[None]:
    """Keep freed memory for the next step, and give it back at the end.

    glibc gives large blocks back to the system at once, which then clears each page again. With it,
    a training step took 1.13 to 1.16 times as long on a CPU (ResNet9, one thread), and in the
    processes of Dask 1.45 times. In exchange the peak of memory is up to a fifth higher. Where
    there is no glibc nothing happens.
    """
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    libc = ctypes.CDLL(None)
    for name, value in KEPT.items():
        libc.mallopt(name, value)
    try:
        yield
    finally:
        for name, value in USUAL.items():
            libc.mallopt(name, value)
        libc.malloc_trim(0)
