"""Where and with what a run was made."""

from __future__ import annotations

import platform
import subprocess
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import torch

from ncbook import __version__


def provenance(device: str) -> dict[str, str]:
    """Where and with what a run was made."""
    return _software() | {
        "device": _device_name(device),
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


@cache
def _software() -> dict[str, str]:
    return {
        "ncbook_version": __version__,
        "git_commit": _git_commit(),
        "torch_version": str(torch.__version__),
        "python_version": platform.python_version(),
    }


def _device_name(device: str) -> str:
    """With what decides about the last digits: vector instructions, and threads."""
    if device == "cpu":
        kind = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
        return f"cpu ({kind}, {torch.get_num_threads()} threads)"
    return f"{device} ({torch.cuda.get_device_name(device)})"


def _git_commit() -> str:
    """The commit of the working tree that ncbook runs from, ``+`` if changed; ``""`` if none."""
    here = Path(__file__).parent
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"]
    try:
        found = subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip() if found.returncode == 0 else ""
