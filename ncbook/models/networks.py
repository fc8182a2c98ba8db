"""Networks by name: plain ``nn.Module`` definitions whose last layer is called ``fc``.

Every network is a ``Classifier``: a ``body`` that turns inputs into last-layer features H, shape
(N, p), and a linear ``fc`` with weight W, shape (K, p), and bias b, shape (K,). Many members of it
train together by batching its parameters (``ncbook.train``), not by a second definition.

Initialisation is torch's default, as in the paper's code; a ViT has its own, normal with standard
deviation 0.02.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from ncbook.parameters import FIELDS

MLP_HIDDEN, MLP_LAYERS = 128, 3
UFM_WIDTH = 512
# Channels of the six convolutions, and M for a max-pool, from the paper's code.
VGG9_LAYERS = (64, "M", 128, "M", 512, 512, "M", 256, 256, "M")
VIT_WIDTH, VIT_LAYERS, VIT_HEAD, VIT_PATCH = 512, 6, 64, 4  # D.4.5: 8 heads of 64
VIT_STD = 0.02


class Classifier(nn.Module):
    """``logits = fc(body(x))``; the last-layer features are ``body(x)``."""

    def __init__(self, body: nn.Module, fc: nn.Linear) -> None:
        super().__init__()
        self.body = body
        self.fc = fc

    def forward(self, x: Tensor) -> Tensor:
        """Inputs, shape (N, ...), to logits, shape (N, K)."""
        return self.fc(self.body(x))


@dataclass(frozen=True)
class Shape:
    """The arguments of a builder."""

    num_classes: int
    input_shape: Sequence[int]
    width: float
    depth: int

    def scaled(self, channels: int) -> int:
        """``channels`` times the width."""
        return max(1, round(channels * self.width))


def mlp(shape: Shape) -> Classifier:
    """Batch-norm MLP: ``depth`` times Linear - BatchNorm - ReLU, then the linear classifier. The
    hidden layers are ``round(128 * width)`` wide, without biases: batch norm would subtract them.
    """
    hidden = shape.scaled(MLP_HIDDEN)
    layers: list[nn.Module] = [nn.Flatten()]
    for fan_in in [prod(shape.input_shape), *[hidden] * (shape.depth - 1)]:
        layers += [nn.Linear(fan_in, hidden, bias=False), BatchNorm(hidden), nn.ReLU()]
    return Classifier(nn.Sequential(*layers), nn.Linear(hidden, shape.num_classes))


class BatchNorm(nn.BatchNorm1d):
    """torch's, in its own precision even if the layer before it computed in bfloat16."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self.weight.dtype))


class UnconstrainedFeatures(nn.Module):
    """Free features: a parameter H, shape (N, p); an input is a row's number."""

    def __init__(self, samples: int, width: int) -> None:
        super().__init__()
        self.features = nn.Parameter(torch.randn(samples, width))

    def forward(self, x: Tensor) -> Tensor:  # (n, 1) to (n, p)
        return self.features[x.squeeze(1)]


def ufm(shape: Shape) -> Classifier:
    """The unconstrained-feature model W h_n (eq. 13, D.4.2): p = 512, no bias, H from N(0, 1)."""
    features = shape.scaled(UFM_WIDTH)
    body = UnconstrainedFeatures(shape.input_shape[0], features)
    return Classifier(body, nn.Linear(features, shape.num_classes, bias=False))


def _convolution(fan_in: int, fan_out: int, pool: bool = False) -> list[nn.Module]:
    """3 x 3 convolution, with a bias as in the usual ResNet9: batch norm subtracts it again."""
    layers = [nn.Conv2d(fan_in, fan_out, 3, padding=1), nn.BatchNorm2d(fan_out), nn.ReLU()]
    return [*layers, nn.MaxPool2d(2)] if pool else layers


class Residual(nn.Module):
    """``x + inner(x)``."""

    def __init__(self, *inner: nn.Module) -> None:
        super().__init__()
        self.inner = nn.Sequential(*inner)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


def resnet9(shape: Shape) -> Classifier:
    """64 - 128 - (128, 128) - 256 - 512 - (512, 512), four max-pools, p = 512; images 32 x 32."""
    c1, c2, c3, c4 = (shape.scaled(c) for c in (64, 128, 256, 512))
    body = nn.Sequential(
        *_convolution(shape.input_shape[0], c1),
        *_convolution(c1, c2, pool=True),
        Residual(*_convolution(c2, c2), *_convolution(c2, c2)),
        *_convolution(c2, c3, pool=True),
        *_convolution(c3, c4, pool=True),
        Residual(*_convolution(c4, c4), *_convolution(c4, c4)),
        nn.MaxPool2d(4),
        nn.Flatten(),
    )
    return Classifier(body, nn.Linear(c4, shape.num_classes))


def vgg9(shape: Shape) -> Classifier:
    """64 - M - 128 - M - 512 - 512 - M - 256 - 256 - M, flattened to p = 256 * 2 * 2 = 1024."""
    layers: list[nn.Module] = []
    channels = shape.input_shape[0]
    for entry in VGG9_LAYERS:
        if entry == "M":
            layers.append(nn.MaxPool2d(2))
        else:
            layers += _convolution(channels, shape.scaled(entry))
            channels = shape.scaled(entry)
    return Classifier(
        nn.Sequential(*layers, nn.Flatten()), nn.Linear(4 * channels, shape.num_classes)
    )


def resnet50(shape: Shape) -> Classifier:
    """torchvision's ResNet50 (p = 2048) without pretrained weights; D.4.4."""
    from torchvision.models.resnet import Bottleneck, ResNet  # half a second

    stem = shape.scaled(64)

    class Scaled(ResNet):
        """torchvision's, each of its widths times ``shape.width``."""

        def _make_layer(self, block, planes, *args, **kwargs):
            self.inplanes = stem if planes == 64 else self.inplanes
            return super()._make_layer(block, shape.scaled(planes), *args, **kwargs)

    net = Scaled(Bottleneck, [3, 4, 6, 3])
    if shape.input_shape[0] != 3 or stem != 64:
        net.conv1 = nn.Conv2d(shape.input_shape[0], stem, 7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
        net.bn1 = nn.BatchNorm2d(stem)
    net.fc = nn.Identity()
    features = shape.scaled(512) * Bottleneck.expansion
    return Classifier(net, nn.Linear(features, shape.num_classes))


class Attention(nn.Module):
    """Multi-head self-attention over tokens, shape (N, T, width) to the same."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).transpose(1, 3).unbind(2)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)  # (N, heads, T, head width)
        return self.out(mixed.transpose(1, 2).flatten(2))


class VisionTransformer(nn.Module):
    """Patches and a class token through pre-norm blocks; the feature is the class token's."""

    def __init__(self, input_shape: Sequence[int], width: int, heads: int, depth: int) -> None:
        super().__init__()
        channels, height, breadth = input_shape
        patches = (height // VIT_PATCH) * (breadth // VIT_PATCH)
        self.patches = nn.Conv2d(channels, width, VIT_PATCH, stride=VIT_PATCH)
        self.token = nn.Parameter(torch.empty(1, 1, width))
        self.positions = nn.Parameter(torch.empty(1, patches + 1, width))
        blocks = []
        for _ in range(depth):
            blocks.append(Residual(nn.LayerNorm(width), Attention(width, heads)))
            inner = (nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
            blocks.append(Residual(nn.LayerNorm(width), *inner))
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patches(x).flatten(2).mT  # (N, patches, width)
        tokens = torch.cat([self.token.expand(len(x), -1, -1), patches], dim=1)
        return self.blocks(tokens + self.positions)[:, 0]


def vit(shape: Shape) -> Classifier:
    """Vision transformer of D.4.5: patch 4, width 512, 6 layers, 8 heads, MLP width 512, class
    token, no dropout, and no LayerNorm after the last block, which the paper does not specify.

    A narrower one has fewer heads of the same width 64.
    """
    heads = max(1, round(shape.scaled(VIT_WIDTH) / VIT_HEAD))
    width = heads * max(1, round(shape.scaled(VIT_WIDTH) / heads))
    body = VisionTransformer(shape.input_shape, width, heads, shape.depth)
    net = Classifier(body, nn.Linear(width, shape.num_classes))
    for name, parameter in net.named_parameters():
        if name.endswith(".bias"):
            nn.init.zeros_(parameter)
        elif parameter.dim() > 1:  # the LayerNorms' weights, vectors, stay one
            nn.init.normal_(parameter, std=VIT_STD)
    return net


def decayed(net: nn.Module) -> dict[str, bool]:
    """Which of ``net.named_parameters()`` weight decay acts on: all, but in a ViT (D.4.5) not
    LayerNorms and biases."""
    spared = any(isinstance(module, VisionTransformer) for module in net.modules())
    return {name: p.dim() > 1 or not spared for name, p in net.named_parameters()}


@dataclass(frozen=True)
class Model:
    """A row of ``MODELS``.

    Args:
        builder: makes the network.
        image_size: side that images are resized to; None takes any input as it is.
        depth: default number of layers; None where it cannot be chosen.
        schedule: learning-rate schedule that the paper trains it with.
        together: whether its members train together, by ``vmap``, and not one after another. On a
            CPU small networks gain several times (``sweep_vs_loop.py``); a step of a ResNet9 of
            width 1/8 took 0.052 s alone, and 0.064 s a member by a compiled vmap of six.
        any_size: whether it also takes images of other sizes than ``image_size``.
    """

    builder: Callable[[Shape], Classifier]
    image_size: int | None = None
    depth: int | None = None
    schedule: str = "step"
    together: bool = False
    any_size: bool = False


MODELS = {
    "mlp": Model(mlp, depth=MLP_LAYERS, together=True),
    "ufm": Model(ufm, together=True),
    "resnet9": Model(resnet9, 32),
    "vgg9": Model(vgg9, 32),
    "vit": Model(vit, 32, depth=VIT_LAYERS, schedule="cosine"),
    "resnet50": Model(resnet50, 224, any_size=True),
}
DIGITS_SIDE = 8  # of the embedded default data


def check_depth(name: str, depth: int | None) -> None:
    """Raise ``ValueError`` unless ``depth`` is None, or in range and not fixed by the name."""
    if depth is not None and MODELS[name].depth is None:
        valid = ", ".join(n for n, model in MODELS.items() if model.depth)
        raise ValueError(f"the depth of {name} is fixed, got {depth!r}; it can be set for: {valid}")
    FIELDS["depth"].check(depth)


def _check_input(name: str, shape: tuple[int, ...]) -> None:
    side = MODELS[name].image_size
    if side and (len(shape) != 3 or shape[0] not in (1, 3)):
        raise ValueError(f"{name} takes images of 1 or 3 channels, shape (C, H, W), got {shape}")
    if side and not MODELS[name].any_size and shape[1:] != (side, side):
        raise ValueError(f"{name} takes images of {side} x {side}, got {shape}")


def build(
    name: str,
    num_classes: int = 10,
    in_channels: int = 1,
    width: float = 1.0,
    depth: int | None = None,
    input_shape: Sequence[int] | None = None,
) -> Classifier:
    """A freshly initialised network (global random state).

    Args:
        name: a key of ``MODELS``.
        num_classes: K, at least 2.
        in_channels: channels of the images; 1 or 3 for the networks that take images alone.
        width: factor on the widths of all hidden layers, at least 1/64.
        depth: number of hidden layers of ``mlp`` (3), of blocks of ``vit`` (6).
        input_shape: shape of one input; by default ``(in_channels, side, side)`` with the network's
            image size, or 8 as for digits.

    Raises ValueError for an unknown name, K < 2, too small a width, a depth that cannot be set, or
    inputs that the network cannot take.

    >>> build("resnet9", width=1 / 8).fc
    Linear(in_features=64, out_features=10, bias=True)
    """
    if name not in MODELS:
        raise ValueError(f"unknown model {name!r}; valid: {', '.join(MODELS)}")
    model = MODELS[name]
    if num_classes < 2:
        raise ValueError(f"num_classes must be at least 2, got {num_classes}")
    FIELDS["width"].check(width)
    check_depth(name, depth)
    side = model.image_size or DIGITS_SIDE
    input_shape = tuple(input_shape or (in_channels, side, side))
    _check_input(name, input_shape)
    return model.builder(Shape(num_classes, input_shape, width, depth or model.depth or 0))
