"""Features in pieces that fit a core's cache."""

from collections.abc import Iterator

import torch
from torch import Tensor

# 1 MiB of float32: a block, its residuals and its float64 copy stay in one core's 2 MiB cache.
BLOCK_ELEMENTS = 2**18


def blocks(features: Tensor) -> Iterator[tuple[int, slice, Tensor]]:
    """(member, rows, features[member, rows]) in blocks of at most BLOCK_ELEMENTS numbers."""
    members = features.reshape(-1, *features.shape[-2:])
    size = max(1, BLOCK_ELEMENTS // features.shape[-1])
    for member, samples in enumerate(members):
        for start in range(0, len(samples), size):
            rows = slice(start, start + size)
            yield member, rows, samples[rows]


def work_dtype(features: Tensor) -> torch.dtype:
    """float32 for half precisions and float32, float64 for float64."""
    return torch.promote_types(features.dtype, torch.float32)
