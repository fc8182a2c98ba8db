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
    """Where and with what a run was made; the last digits depend on the device's vector
    instructions and threads, too."""
    if device == "cpu":
        kind = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
        name = f"cpu ({kind}, {torch.get_num_threads()} threads)"
    else:
        name = f"{device} ({torch.cuda.get_device_name(device)})"
    return {
        "ncbook_version": __version__,
        "git_commit": _git_commit(),
        "torch_version": str(torch.__version__),
        "python_version": platform.python_version(),
        "device": name,
        "processor": processor(),
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


@cache
def processor() -> str:
    """The maker's name of this machine's processor, with the numbers of its design: kernels differ
    between processors of one instruction set, and hypervisors hide the name."""
    try:
        first = Path("/proc/cpuinfo").read_text(errors="replace").split("\n\n")[0]
    except OSError:
        return _output_of("sysctl", "-n", "machdep.cpu.brand_string") or platform.processor()
    lines = (line.partition(":") for line in first.splitlines())
    values = {name.strip(): value.strip() for name, _, value in lines}
    words = " ".join(values[name] for name in NAMES if values.get(name)) or platform.machine()
    numbers = ", ".join(f"{name} {values[name]}" for name in DESIGN if name in values)
    return f"{words} ({numbers})" if numbers else words


@cache
def _git_commit() -> str:
    """The commit of the working tree that ncbook runs from, ``+`` if changed; ``""`` if none."""
    return _output_of("git", "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*")


def _output_of(*command: str) -> str:
    """What a command prints in this folder; ``""`` if it fails."""
    options = {"cwd": Path(__file__).parent, "capture_output": True, "text": True, "timeout": 10}
    try:
        return subprocess.run(command, check=True, **options).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
