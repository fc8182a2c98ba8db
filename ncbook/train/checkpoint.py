"""How far a long run has come: one file a run, whole or absent."""

import io
import logging
import os
from pathlib import Path
from typing import Any

import torch

from ncbook.files import appear, flush

LOG = logging.getLogger(__name__)


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write a temporary file, then rename it: a process killed at any moment leaves the old
    checkpoint or the new one. The next one replaces a temporary file that it left."""
    buffer, part = io.BytesIO(), path.with_suffix(".part")
    torch.save(content, buffer)
    part.unlink(missing_ok=True)  # never written through: it may be a stranger's link, or a pipe
    with open(part, "xb") as file:
        file.write(buffer.getbuffer())  # on a full disk an OSError; torch's would be another
        flush(file)
    appear(file, path)


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """The checkpoint, its tensors on the CPU; None, and a warning, if it cannot be read."""
    if not path.exists():
        return None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # torch and pickle raise all kinds of errors about foreign bytes
        aside = f"{path.name}.aside"
        os.replace(path, path.with_name(aside))
        told = "%s is damaged: set aside as %s, the run starts from its first epoch"
        LOG.warning(told, path, aside)
        return None
