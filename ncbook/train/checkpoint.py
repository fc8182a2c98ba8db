"""How far a long run has come: one file a run, whole or absent.

A checkpoint is the SHA-256 of the rest, then what ``torch.save`` writes of a dict: torch reads a
file with a flipped bit without complaint. What is damaged is set aside and never trained from.
"""

import hashlib
import io
import logging
import os
from pathlib import Path
from typing import Any

import torch

from ncbook.paths import new_file

LOG = logging.getLogger(__name__)
DIGEST_BYTES = hashlib.sha256().digest_size


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write a file that replaces the old one whole, wherever this process is killed."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with new_file(path) as file:
        file.write(hashlib.sha256(buffer.getbuffer()).digest())
        file.write(buffer.getbuffer())


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """The checkpoint, its tensors on the CPU; None, and a warning, if it is damaged."""
    if not path.exists():
        return None
    raw = path.read_bytes()
    if hashlib.sha256(raw[DIGEST_BYTES:]).digest() == raw[:DIGEST_BYTES]:
        return torch.load(io.BytesIO(raw[DIGEST_BYTES:]), map_location="cpu", weights_only=True)
    aside = f"{path.name}.aside"
    os.replace(path, path.with_name(aside))
    told = "%s is damaged: set aside as %s, the run starts from its first epoch"
    LOG.warning(told, path, aside)
    return None
