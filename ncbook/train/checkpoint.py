"""How far a long run has come: one file a run, whole or absent.

A checkpoint is the SHA-256 of the rest, then what ``torch.save`` writes of a dict (torch reads a
file with a flipped bit without complaint). Its name is that of one config, and so of its images;
what is damaged is set aside with a warning and never trained from.
"""

import hashlib
import io
import json
import logging
import os
from pathlib import Path
from typing import Any

import torch

from ncbook.files import appear, flush
from ncbook.train.config import RunConfig

LOG = logging.getLogger(__name__)
NAME_DIGITS = 16  # hexadecimal, of the config's hash
CONTENT = {"net", "optimizer", "order", "epoch", "history", "seconds"}
DIGEST_BYTES = hashlib.sha256().digest_size


def checkpoint_path(config: RunConfig, folder: str | Path) -> Path:
    """The file in ``folder`` that holds this run's checkpoint, if there is one."""
    text = json.dumps(config.identity(), sort_keys=True)
    return Path(folder) / f"{hashlib.sha256(text.encode()).hexdigest()[:NAME_DIGITS]}.checkpoint"


def remove_checkpoint(config: RunConfig, folder: str | Path) -> None:
    """Delete a run's checkpoint, if it has one, once its records are stored."""
    path = checkpoint_path(config, folder)
    path.unlink(missing_ok=True)
    _part(path).unlink(missing_ok=True)


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write a temporary file, then rename it: a process killed at any moment leaves the old
    checkpoint or the new one."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    _part(path).unlink(missing_ok=True)
    with open(_part(path), "xb") as file:
        file.write(hashlib.sha256(buffer.getbuffer()).digest())
        file.write(buffer.getbuffer())
        flush(file)
    appear(file, path)


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """The checkpoint, its tensors on the CPU; None, and a warning, if it is damaged."""
    if not os.path.lexists(path):
        return None
    content = _read(path)
    if content is None:
        aside = f"{path.name}.aside"
        os.replace(path, path.with_name(aside))
        told = "%s is damaged: set aside as %s, the run starts from its first epoch"
        LOG.warning(told, path, aside)
    return content


def _read(path: Path) -> dict[str, Any] | None:
    """What ``save_checkpoint`` was given; None if the file holds something else."""
    raw = path.read_bytes() if os.path.isfile(path) else b""
    if hashlib.sha256(raw[DIGEST_BYTES:]).digest() != raw[:DIGEST_BYTES]:
        return None
    try:
        content = torch.load(io.BytesIO(raw[DIGEST_BYTES:]), map_location="cpu", weights_only=True)
    except Exception:  # torch and pickle raise all kinds of errors about foreign bytes
        return None
    return content if isinstance(content, dict) and content.keys() >= CONTENT else None


def _part(path: Path) -> Path:
    """Always the same name: processes killed while writing leave one file at most."""
    return path.with_name(f".{path.name}.part")
