"""Where and with what a run was made."""

import platform
import subprocess
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import torch

from ncbook import __version__

# Lines of /proc/cpuinfo: on x86, and on ARM.
NAMES = ("vendor_id", "model name", "CPU implementer")
DESIGN = ("cpu family", "model", "stepping", "CPU part", "CPU variant", "CPU revision")


def provenance(device: str) -> dict[str, str]:
    """Where and with what a run was made."""
    return _software() | {
        "device": _device_name(device),
        "processor": processor(),
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


@cache
def processor() -> str:
    """The maker's name for this machine's processor, with the numbers of its design: kernels differ
    between processors of one instruction set, and hypervisors hide the name."""
    try:
        first = Path("/proc/cpuinfo").read_text(errors="replace").split("\n\n")[0]
    except OSError:
        return _printed("sysctl", "-n", "machdep.cpu.brand_string") or platform.processor()
    lines = (line.partition(":") for line in first.splitlines())
    said = {name.strip(): value.strip() for name, _, value in lines}
    numbers = [f"{name} {said[name]}" for name in DESIGN if name in said]
    words = " ".join(said[name] for name in NAMES if said.get(name)) or platform.machine()
    return f"{words} ({', '.join(numbers)})" if numbers else words


def _git_commit() -> str:
    """The commit of the working tree that ncbook runs from, ``+`` if changed; ``""`` if none."""
    flags = ("--always", "--abbrev=40", "--dirty=+", "--exclude=*")
    return _printed("git", "describe", *flags)


def _printed(*command: str) -> str:
    """What a command prints in this folder; ``""`` if it fails."""
    here = Path(__file__).parent
    try:
        found = subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip() if found.returncode == 0 else ""
