"""What a claim's numbers rest on, in words: networks, data, epochs and seeds of the runs that were
read for them, and how many there are."""

from fractions import Fraction

import pandas as pd

from ncbook import text

NETWORKS = {"mlp": "MLP", "ufm": "free features", "resnet9": "ResNet9", "vgg9": "VGG9"}
NETWORKS |= {"vit": "ViT", "resnet50": "ResNet50"}
DATA = {"mnist": "MNIST", "fashion_mnist": "Fashion-MNIST", "cifar10": "CIFAR-10"}
DATA |= {"folder:cifar10-jpeg": "CIFAR-10 (JPEG)", "ufm": ""}


def lines(runs: pd.DataFrame) -> list[str]:
    """A line for each network and data set among some runs; no line for no runs.

    >>> runs = {"model": "vgg9", "dataset": "mnist", "epochs": 50, "seed": [0, 1, 2]}
    >>> lines(pd.DataFrame(runs | {"width": 1 / 8, "train_size": 2000, "depth": None}))
    ['VGG9 of width 1/8, MNIST (2,000 images), 50 epochs, seeds 0 to 2, n = 3']
    """
    if runs.empty:
        return []
    groups = runs.groupby(["model", "dataset"], sort=False)
    return [_line(model, dataset, some) for (model, dataset), some in groups]


def _line(model: str, dataset: str, runs: pd.DataFrame) -> str:
    network, images = (_named(known, name) for known, name in ((NETWORKS, model), (DATA, dataset)))
    for width in _values(runs, "width", 1.0):
        network += f" of width {Fraction(width).limit_denominator(64)}"
    for depth in _values(runs, "depth"):
        network += f" of depth {depth:g}"
    sizes = " or ".join(f"{size:,.0f}" for size in _values(runs, "train_size"))
    if not images:
        images = f"{sizes} samples"
    elif sizes:
        images += f" ({sizes} images)"
    epochs = " or ".join(f"{value:g}" for value in _values(runs, "epochs"))
    return f"{network}, {images}, {epochs} epochs, {_seeds(runs)}, n = {len(runs):,}"


def _named(known: dict[str, str], name: str) -> str:
    return known.get(name, text.line(name, text.NAME))


def _values(runs: pd.DataFrame, column: str, default: float | None = None) -> list[float]:
    """The values of a column that are not its default."""
    return sorted(float(value) for value in runs[column].dropna().unique() if value != default)


def _seeds(runs: pd.DataFrame) -> str:
    seeds = sorted(runs["seed"].unique().tolist())
    if len(seeds) > 2 and seeds == [*range(seeds[0], seeds[-1] + 1)]:
        return f"seeds {seeds[0]} to {seeds[-1]}"
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
