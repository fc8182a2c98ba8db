"""Statistics of features, normalisation and resizing."""

import torch
import torch.nn.functional as F

CHUNK = 1024  # samples converted at a time, to avoid a float copy of a whole set


def channel_statistics(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and (population) standard deviation of every channel, float32, (C,); C = 1 of vectors.

    Summed in float64, chunk by chunk: for pixels the sums are exact. A constant channel has
    standard deviation 1 here, so that it becomes 0.
    """
    channels = x.flatten(2) if x.ndim > 2 else x.unsqueeze(1)  # (N, C, pixels)
    total, squares = torch.zeros(2, channels.shape[1], dtype=torch.float64)
    for chunk in channels.split(CHUNK):
        values = chunk.double()
        total += values.sum((0, 2))
        squares += values.square().sum((0, 2))
    count = channels.shape[0] * channels.shape[2]
    mean = total / count
    variance = squares / count - mean**2
    # The variance of a constant channel is rounding, below this share of its mean square.
    constant = variance <= 1e-12 * squares / count
    return mean.float(), torch.where(constant, 1.0, variance.clamp(min=0).sqrt()).float()


def normalised(x: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """``(x - mean) / std`` per channel, float32: of images (N, C, H, W) or vectors (N, d)."""
    per_channel = (-1, *(1 for _ in x.shape[2:]))
    return (x - mean.view(per_channel)).div_(std.view(per_channel))


def resized(x: torch.Tensor, size: int | None) -> torch.Tensor:
    """Images (N, C, H, W) at ``size`` x ``size``, bilinear with antialias; uint8 stays uint8.

    Pixels are rounded once. PIL, and torchvision's ``Resize`` of a PIL image, round after the rows
    and again after the columns: the difference is at most one level. (torch's own resizing of uint8
    tensors is twice as fast, and up to two levels off.)
    """
    if size is None or x.shape[2:] == (size, size):
        return x
    result = torch.empty(*x.shape[:2], size, size, dtype=x.dtype, device=x.device)
    for chunk, target in zip(x.split(CHUNK), result.split(CHUNK), strict=True):
        values = F.interpolate(chunk.float(), size=(size, size), mode="bilinear", antialias=True)
        target.copy_(values if x.is_floating_point() else values.round_())
    return result
