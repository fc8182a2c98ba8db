"""Memory while training: kept from one step for the next, and seldom searched for garbage."""

import ctypes
import gc
import platform
from collections.abc import Iterator
from contextlib import contextmanager

# Of malloc.h
TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4
KEPT = {MMAP_MAX: 0, TRIM_THRESHOLD: 2**31 - 1}  # large blocks come from the heap, which stays
# As it is in a process that has had blocks of 32 MiB, the most that glibc adapts itself to.
USUAL = {MMAP_MAX: 65536, MMAP_THRESHOLD: 2**25, TRIM_THRESHOLD: 2**26}

SEARCH_AFTER = 50_000  # new objects; Python's default is 700 or, since 3.13, 2,000


@contextmanager
def heap_kept() -> Iterator[None]:
    """Don't give freed memory back to the system, step after step, only to be handed it again.

    glibc does so with large blocks, and the system clears each page anew: with it, a training step
    took on a CPU, one thread, 1.16 times as long (ResNet9) and 1.13 times (of width 1/8); in the
    processes of Dask, which asks for still more of it, 1.45 times. In exchange the peak of memory
    is up to a fifth higher. At the end all is given back. Elsewhere than on glibc nothing happens.
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


@contextmanager
def garbage_left() -> Iterator[None]:
    """Search seldom for objects that only refer to each other: torch.compile makes a million, and
    of that a process's first chunk (six layers, Adam) took 5.5 s, and 8.5 s with Python's default.
    """
    before = gc.get_threshold()
    gc.set_threshold(max(before[0], SEARCH_AFTER), *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
