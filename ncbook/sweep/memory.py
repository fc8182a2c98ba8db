"""Whether what is to be trained at once can fit: asked before anything starts."""

import psutil
import torch

from ncbook import models, optim
from ncbook.data import Dataset, Streamed
from ncbook.train import RunConfig

GIB = 2**30


def check_memory(
    config: RunConfig, members: int, dataset: Dataset | Streamed, device: str, workers: int
) -> None:
    """Raise ``ValueError`` where even the numbers that must be kept, of ``members`` networks and of
    the data set in each worker, are more than there is: parameters, gradients, moving averages.

    Activations come on top, and depend on too much to be foretold: what does not fit for them ends
    with ``train_members``' own line.
    """
    together = members if models.MODELS[config.model].together else 1
    needed = together * _bytes_a_member(config, dataset) + _bytes_of(dataset)
    share = workers if device == "cpu" else -(-workers // _gpus(device))
    there = _available(device)
    if needed * share > there:
        raise ValueError(
            f"{together} x {config.model} (width {config.width:g}) on {config.dataset} need "
            f"{needed / GIB:.1f} GiB in each of {share} workers, and {there / GIB:.1f} GiB are "
            "free: choose a smaller width or train_size, or fewer workers"
        )


def _bytes_a_member(config: RunConfig, dataset: Dataset | Streamed) -> int:
    shape = tuple(dataset.input_shape)
    with torch.device("meta"):
        try:
            net = models.build(
                config.model,
                dataset.num_classes,
                shape[0],
                config.width,
                depth=config.depth,
                input_shape=shape,
            )
        except RuntimeError:  # torch cannot even count so many bytes
            raise ValueError(f"width {config.width:g} is too large for any memory") from None
        params = dict(net.named_parameters())
        slots = optim.init_state(config.direction, {k: p[None] for k, p in params.items()})
    numbers = 2 * sum(p.numel() for p in params.values())
    numbers += sum(slot.numel() for state in slots.values() for slot in state)
    return numbers * (8 if config.precision == "float64" else 4)


def _bytes_of(dataset: Dataset | Streamed) -> int:
    tensors = [value for value in vars(dataset).values() if isinstance(value, torch.Tensor)]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _gpus(device: str) -> int:
    return max(1, torch.cuda.device_count()) if device == "cuda" else 1


def _available(device: str) -> int:
    if device == "cpu":
        return psutil.virtual_memory().available
    return torch.cuda.mem_get_info(device)[1]
