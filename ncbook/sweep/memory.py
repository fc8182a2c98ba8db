"""Whether what trains at once fits in memory: checked before anything starts."""

import psutil
import torch

from ncbook import models, optim
from ncbook.data import Dataset, Streamed
from ncbook.train import RunConfig

GIB = 2**30


def gpu_count(device: str) -> int:
    """GPUs that ``device`` means: all for ``cuda``, else one."""
    return max(1, torch.cuda.device_count()) if device == "cuda" else 1


def check_memory(
    config: RunConfig, members: int, dataset: Dataset | Streamed, device: str, workers: int
) -> None:
    """Raise ``ValueError`` if there is no room even for the numbers that must be kept: in each
    worker the data set, and parameters, gradients and moving averages of ``members`` networks.

    Activations need more, which depends on too much to be predicted: if they do not fit,
    ``train_members`` says so.
    """
    together = members if models.MODELS[config.model].together else 1
    tensors = [value for value in vars(dataset).values() if isinstance(value, torch.Tensor)]
    needed = together * _bytes_per_member(config, dataset) + sum(t.nbytes for t in tensors)
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


def _bytes_per_member(config: RunConfig, dataset: Dataset | Streamed) -> int:
    shape = tuple(dataset.input_shape)
    size = (config.model, dataset.num_classes, shape[0], config.width)
    with torch.device("meta"):
        try:
            net = models.build(*size, depth=config.depth, input_shape=shape)
        except RuntimeError:  # torch cannot even count so many bytes
            raise ValueError(f"width {config.width:g} is too large for any memory") from None
        params = dict(net.named_parameters())
        slots = optim.init_state(config.direction, {k: p[None] for k, p in params.items()})
    numbers = 2 * sum(p.numel() for p in params.values())
    numbers += sum(slot.numel() for state in slots.values() for slot in state)
    return numbers * (8 if config.precision == "float64" else 4)
