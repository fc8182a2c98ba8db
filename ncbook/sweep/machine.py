"""The machine that trains: whether its memory is enough, and what it is called in the store."""

import platform
import subprocess
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import psutil
import torch

from ncbook import __version__, models
from ncbook.data import Dataset, Streamed
from ncbook.train import RunConfig
from ncbook.train.loop import architecture
from ncbook.train.moves import Moves

GIB = 2**30
COMMIT = ("git", "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*")
# Lines of /proc/cpuinfo: on x86, and on ARM.
NAMES = ("vendor_id", "model name", "CPU implementer")
DESIGN = ("cpu family", "model", "stepping", "CPU part", "CPU variant", "CPU revision")


def gpu_count(device: str) -> int:
    """GPUs that ``device`` means: all for ``cuda``, else one."""
    return max(1, torch.cuda.device_count()) if device == "cuda" else 1


def check_memory(
    config: RunConfig, members: int, dataset: Dataset | Streamed, device: str, workers: int
) -> None:
    """Raise ``ValueError`` if there is no room even for the numbers that must be kept: in each
    worker the data set, and parameters, gradients and moving averages of ``members`` networks.
    If activations, which are hard to predict, do not fit, ``train_members`` says so."""
    together = members if models.MODELS[config.model].together else 1
    with torch.device("meta"):
        try:
            net = models.build(*architecture(config, dataset))
        except (RuntimeError, TypeError):  # torch cannot even count so many bytes
            raise ValueError(f"width {config.width:g} is too large for any memory") from None
        params = dict(net.named_parameters())
        moves = Moves.of(config, compiled=False)
        slots = moves.start({k: p[None] for k, p in params.items()})
    numbers = 2 * sum(p.numel() for p in params.values())
    numbers += sum(slot.numel() for state in slots.values() for slot in state)
    tensors = [value for value in vars(dataset).values() if isinstance(value, torch.Tensor)]
    needed = together * numbers * (8 if config.precision == "float64" else 4)
    needed += sum(t.nbytes for t in tensors)
    if device == "cpu":
        share, free = workers, psutil.virtual_memory().available
    else:
        share, free = -(-workers // gpu_count(device)), torch.cuda.mem_get_info(device)[1]
    if needed * share > free:
        raise ValueError(
            f"{together} x {config.model} (width {config.width:g}) on {config.dataset} need "
            f"{needed / GIB:.1f} GiB in each of {share} workers, and {free / GIB:.1f} GiB are "
            "free: choose a smaller width or train_size, or fewer workers"
        )


def provenance(device: str) -> dict[str, str]:
    """Where and with what a run was made, in so far as it may change the last digits."""
    if device == "cpu":
        kind = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
        name = f"cpu ({kind}, {torch.get_num_threads()} threads)"
    else:
        name = f"{device} ({torch.cuda.get_device_name(device)})"
    return {
        "ncbook_version": __version__,
        # The working tree's that ncbook runs from, ``+`` if changed; "" outside of a checkout.
        "git_commit": _output_of(*COMMIT),
        "torch_version": str(torch.__version__),
        "python_version": platform.python_version(),
        "device": name,
        "processor": processor(),
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


@cache
def processor() -> str:
    """The maker's name of this machine's processor, with the numbers of its design, as hypervisors
    hide the name: kernels differ between processors of one instruction set."""
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
def _output_of(*command: str) -> str:
    """What a command prints in this folder; ``""`` if it fails."""
    options = {"cwd": Path(__file__).parent, "capture_output": True, "text": True, "timeout": 10}
    try:
        return subprocess.run(command, check=True, **options).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
