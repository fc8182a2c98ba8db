"""Networks by name: plain ``nn.Module`` definitions whose last layer is called ``fc``.

Every network is a ``Classifier``: a ``body`` that turns inputs into last-layer features H, shape
(N, p), and a linear ``fc`` with weight W, shape (K, p), and bias b, shape (K,). There is one
definition of each network; many members of it train together by batching its parameters
(``ncbook.train``), not by a second definition.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import torch
from torch import Tensor, nn

MLP_HIDDEN = 128  # width of a hidden layer at width=1.0
MLP_LAYERS = 3
LEAST_WIDTH = 1 / 64  # below it a hidden layer would have one unit or none
UFM_WIDTH = 512


class Classifier(nn.Module):
    """``logits = fc(body(x))``; the features that neural collapse speaks of are ``body(x)``."""

    def __init__(self, body: nn.Module, fc: nn.Linear) -> None:
        super().__init__()
        self.body = body
        self.fc = fc

    def forward(self, x: Tensor) -> Tensor:
        """Inputs, shape (N, ...), to logits, shape (N, K)."""
        return self.fc(self.body(x))


def mlp(num_classes: int, input_shape: Sequence[int], width: float) -> Classifier:
    """Batch-norm MLP: three times Linear - BatchNorm - ReLU, then the linear classifier.

    The hidden layers are ``round(128 * width)`` wide and carry no bias of their own: batch norm
    would subtract it again.
    """
    hidden = round(MLP_HIDDEN * width)
    layers: list[nn.Module] = [nn.Flatten()]
    fan_in = prod(input_shape)
    for _ in range(MLP_LAYERS):
        layers += [nn.Linear(fan_in, hidden, bias=False), BatchNorm(hidden), nn.ReLU()]
        fan_in = hidden
    return Classifier(nn.Sequential(*layers), nn.Linear(hidden, num_classes))


class BatchNorm(nn.BatchNorm1d):
    """torch's, in its own precision also where the layer before it computed in bfloat16."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self.weight.dtype))


class UnconstrainedFeatures(nn.Module):
    """Free features: a parameter H, shape (N, p), one row a sample; an input is a row's number."""

    def __init__(self, samples: int, width: int) -> None:
        super().__init__()
        self.features = nn.Parameter(torch.randn(samples, width))

    def forward(self, x: Tensor) -> Tensor:
        """Sample numbers, shape (n, 1), to their features, shape (n, p)."""
        return self.features[x.squeeze(1)]


def ufm(num_classes: int, input_shape: Sequence[int], width: float) -> Classifier:
    """The unconstrained-feature model W h_n (eq. 13, D.4.2): p = 512, no bias, H from N(0, 1)."""
    features = round(UFM_WIDTH * width)
    body = UnconstrainedFeatures(input_shape[0], features)
    return Classifier(body, nn.Linear(features, num_classes, bias=False))


# name -> (builder, side that images are resized to, or None where any input is taken as it is)
MODELS: dict[str, tuple[Callable[[int, Sequence[int], float], Classifier], int | None]] = {
    "mlp": (mlp, None),
    "ufm": (ufm, None),
}


def validate_name(name: str) -> None:
    """Raise ``ValueError`` if there is no network of that name."""
    if name not in MODELS:
        raise ValueError(f"unknown model {name!r}; valid: {', '.join(MODELS)}")


def check_width(width: float) -> None:
    """Raise ``ValueError`` naming the value unless it is a number that leaves each layer units."""
    number = isinstance(width, (int, float)) and not isinstance(width, bool)
    if not number or not LEAST_WIDTH <= width < float("inf"):
        raise ValueError(f"width must be a finite number of at least {LEAST_WIDTH}, got {width!r}")


def image_size(name: str) -> int | None:
    """Side that the network wants its images resized to; None: any input as it is."""
    validate_name(name)
    return MODELS[name][1]


def build(
    name: str,
    num_classes: int = 10,
    in_channels: int = 1,
    width: float = 1.0,
    *,
    input_shape: Sequence[int] | None = None,
) -> Classifier:
    """A freshly initialised network (torch's default initialisation, global random state).

    Args:
        name: a key of ``MODELS``.
        num_classes: K, at least 2.
        in_channels: channels of the images.
        width: factor on the widths of all hidden layers, at least 1/64.
        input_shape: shape of one input, for networks whose first layer depends on it; by default
            ``(in_channels, 8, 8)``, the size of the digits.

    Raises:
        ValueError: for an unknown name, K < 2, or a width that is too small.

    >>> build("mlp").fc
    Linear(in_features=128, out_features=10, bias=True)
    """
    validate_name(name)
    if num_classes < 2:
        raise ValueError(f"num_classes must be at least 2, got {num_classes}")
    check_width(width)
    builder, _ = MODELS[name]
    return builder(num_classes, input_shape or (in_channels, 8, 8), width)
