"""The paper's grids as data, and the run configs of any grid."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from ncbook import data
from ncbook.parameters import AXES
from ncbook.train import RunConfig


@dataclass(frozen=True)
class Grid:
    """The axes of one optimizer's sweep."""

    lrs: tuple[float, ...]
    momenta: tuple[float, ...]
    weight_decays: tuple[float, ...]
    coupled_shares: tuple[float | None, ...] = (None,)  # None: as the optimizer's name says


MOMENTA = (0.0, 0.5, 0.7, 0.9, 0.95, 0.98)
SGD_LRS = (0.001, 0.01, 0.0679)
ADAPTIVE_LRS = (0.001, 0.005, 0.01)
DECAYS = (0.0, 5e-5, 5e-4, 5e-3, 0.05, 0.5)
LARGE_DECAYS = (0.0, 5e-4, 0.05, 0.5, 5.0, 10.0)  # for decoupled decay in adaptive optimizers

# Section 3.4: a fixed total, of which more and more is coupled; Fig. 7 has about ten points. The
# paper gives no learning rate: the grid's middle one.
SHARES = tuple(i / 10 for i in range(11))
TOTAL_DECAY, ONE_MOMENTUM = (5e-4,), (0.9,)

# The paper's D.1.
GRIDS = {
    "sgd": Grid(SGD_LRS, MOMENTA, DECAYS),
    "sgdw": Grid(SGD_LRS, MOMENTA, DECAYS),
    "adam": Grid(ADAPTIVE_LRS, MOMENTA, DECAYS),
    "adamw": Grid(ADAPTIVE_LRS, MOMENTA, LARGE_DECAYS),
    "signum": Grid(ADAPTIVE_LRS, MOMENTA, DECAYS),
    "signumw": Grid(ADAPTIVE_LRS, MOMENTA, LARGE_DECAYS),
}
MIXED_GRIDS = {
    "sgd_mixed": Grid((0.01,), ONE_MOMENTUM, TOTAL_DECAY, SHARES),
    "adam_mixed": Grid((0.005,), ONE_MOMENTUM, TOTAL_DECAY, SHARES),
    "signum_mixed": Grid((0.005,), ONE_MOMENTUM, TOTAL_DECAY, SHARES),
}


def paper_grid(optimizer: str) -> Grid:
    """The axes of an optimizer; ``ValueError`` with the valid names if it has none."""
    grids = GRIDS | MIXED_GRIDS
    if optimizer not in grids:
        raise ValueError(f"unknown optimizer {optimizer!r}; valid: {', '.join(grids)}")
    return grids[optimizer]


def grid(
    optimizer: str,
    lrs: Sequence[float] = (),
    momenta: Sequence[float] = (),
    weight_decays: Sequence[float] = (),
    seeds: Sequence[int] = (),
    coupled_shares: Sequence[float] = (),
    **more,
) -> list[RunConfig]:
    """One config for each point of an optimizer's grid; an empty axis takes the paper's values.

    Args:
        optimizer: a key of ``GRIDS`` or ``MIXED_GRIDS``.
        lrs, momenta, weight_decays, seeds: the axes.
        coupled_shares: a further axis of the ``_mixed`` optimizers.
        more: other axes of ``parameters.AXES``; and fields of ``RunConfig``, equal for all.

    Raises:
        ValueError: an optimizer without a grid, or a value that ``RunConfig`` refuses.

    >>> len(grid("adamw"))
    108
    """
    axes = {axis.name: more.pop(axis.name, ()) or (axis.default,) for axis in AXES}
    axes |= vars(paper_grid(optimizer))
    given = (lrs, momenta, weight_decays, seeds, coupled_shares)
    names = ("lrs", "momenta", "weight_decays", "seeds", "coupled_shares")
    axes |= {name: values for name, values in zip(names, given, strict=True) if values}
    if "dataset" in more:  # its folder is listed once, not for each config
        more = {"data_listing": data.fingerprint(more["dataset"])} | more
    fields = [axis.field for axis in AXES]
    configs = [
        RunConfig(optimizer=optimizer, **dict(zip(fields, point, strict=True)), **more)
        for point in product(*axes.values())
    ]
    return list(dict.fromkeys(configs))
