"""The paper's grids as data, and the run configs of any grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from ncbook.train import RunConfig


@dataclass(frozen=True)
class Grid:
    """The axes of one optimizer's sweep."""

    lrs: tuple[float, ...]
    momenta: tuple[float, ...]
    weight_decays: tuple[float, ...]


MOMENTA = (0.0, 0.5, 0.7, 0.9, 0.95, 0.98)
SGD_LRS = (0.001, 0.01, 0.0679)
ADAPTIVE_LRS = (0.001, 0.005, 0.01)
DECAYS = (0.0, 5e-5, 5e-4, 5e-3, 0.05, 0.5)
LARGE_DECAYS = (0.0, 5e-4, 0.05, 0.5, 5.0, 10.0)  # for decoupled decay in adaptive optimizers

# The paper's D.1.
GRIDS = {
    "sgd": Grid(SGD_LRS, MOMENTA, DECAYS),
    "sgdw": Grid(SGD_LRS, MOMENTA, DECAYS),
    "adam": Grid(ADAPTIVE_LRS, MOMENTA, DECAYS),
    "adamw": Grid(ADAPTIVE_LRS, MOMENTA, LARGE_DECAYS),
    "signum": Grid(ADAPTIVE_LRS, MOMENTA, DECAYS),
    "signumw": Grid(ADAPTIVE_LRS, MOMENTA, LARGE_DECAYS),
}


def grid(
    optimizer: str,
    lrs: Sequence[float] = (),
    momenta: Sequence[float] = (),
    weight_decays: Sequence[float] = (),
    seeds: Sequence[int] = (0,),
    **shared,
) -> list[RunConfig]:
    """One config for each point of an optimizer's grid; an empty axis takes the paper's values.

    Args:
        optimizer: a key of ``GRIDS``.
        lrs, momenta, weight_decays, seeds: the axes.
        shared: further fields of ``RunConfig``, equal for all.

    Raises:
        ValueError: an optimizer without a grid, or a value that ``RunConfig`` refuses.

    >>> len(grid("adamw"))
    108
    """
    if optimizer not in GRIDS:
        raise ValueError(f"unknown optimizer {optimizer!r}; valid: {', '.join(GRIDS)}")
    paper = GRIDS[optimizer]
    axes = product(
        seeds or (0,),
        lrs or paper.lrs,
        weight_decays or paper.weight_decays,
        momenta or paper.momenta,
    )
    configs = [
        RunConfig(optimizer=optimizer, lr=lr, momentum=m, weight_decay=wd, seed=seed, **shared)
        for seed, lr, wd, m in axes
    ]
    return list(dict.fromkeys(configs))
