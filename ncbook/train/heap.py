"""Memory of a training step, kept for the next one."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

# Of malloc.h
TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4
KEPT = {MMAP_MAX: 0, TRIM_THRESHOLD: 2**31 - 1}  # large blocks come from the heap, which stays
# As it is in a process that has had blocks of 32 MiB, the most that glibc adapts itself to.
USUAL = {MMAP_MAX: 65536, MMAP_THRESHOLD: 2**25, TRIM_THRESHOLD: 2**26}


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
