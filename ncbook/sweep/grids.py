"""The paper's grids as data, and the run configs of any grid."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from ncbook import data, optim
from ncbook.optim import OPTIMIZERS
from ncbook.parameters import AXES, FIELDS
from ncbook.train import RunConfig


@dataclass(frozen=True)
class Grid:
    """The axes of one optimizer's sweep."""

    lrs: tuple[float, ...]
    momenta: tuple[float, ...]
    weight_decays: tuple[float, ...]
    coupled_shares: tuple[float | None, ...] = (None,)  # None: as the optimizer's name says


# The paper's D.1.
MOMENTA = (0.0, 0.5, 0.7, 0.9, 0.95, 0.98)
DECAYS = (0.0, 5e-5, 5e-4, 5e-3, 0.05, 0.5)
LARGE_DECAYS = (0.0, 5e-4, 0.05, 0.5, 5.0, 10.0)  # for decoupled decay in adaptive optimizers
SGD = Grid((0.001, 0.01, 0.0679), MOMENTA, DECAYS)
COUPLED = Grid((0.001, 0.005, 0.01), MOMENTA, DECAYS)
DECOUPLED = Grid((0.001, 0.005, 0.01), MOMENTA, LARGE_DECAYS)
GRIDS = {"sgd": SGD, "sgdw": SGD, "adam": COUPLED, "adamw": DECOUPLED}
GRIDS |= {"signum": COUPLED, "signumw": DECOUPLED}

# Section 3.4: a fixed total, of which more and more is coupled; Fig. 7 has about ten points. The
# paper gives no learning rate: the grid's middle one.
SHARES = tuple(i / 10 for i in range(11))
RATES = {"sgd_mixed": 0.01, "adam_mixed": 0.005, "signum_mixed": 0.005}
MIXED_GRIDS = {name: Grid((lr,), (0.9,), (5e-4,), SHARES) for name, lr in RATES.items()}

# Ours, of the optimizers that the paper leaves open (section 4.5), at momentum 0.9.
FEW_DECAYS = (0.0, 0.05, 0.1, 0.5, 2.0, 5.0)
LRS = {"muon": (0.005, 0.02, 0.05), "shampoo": (0.005, 0.02, 0.05), "soap": (0.001, 0.005, 0.01)}
LRS |= {"lion": (1e-4, 3e-4, 1e-3), "mars": (0.001, 0.005, 0.01)}
BEYOND = {
    name: Grid(LRS[rule.direction], (0.9,), DECAYS if rule.coupled_share else FEW_DECAYS)
    for name, rule in OPTIMIZERS.items()
    if rule.direction in LRS
}

# Of a reader's own class, whose form of decay is not known: decays for either form.
OWN_DECAYS = (0.0, 5e-4, 5e-3, 0.05, 0.5, 5.0)


def grid_of(optimizer: str) -> Grid:
    """An optimizer's grid; of ``MODULE:CLASS`` the axes that its class takes: learning rates as
    Adam's, momentum 0.9, and six weight decays from 0 to 5.

    Raises:
        ValueError: an unknown optimizer, or a class that cannot be loaded.
    """
    FIELDS["optimizer"].check_known(optimizer)
    if optim.is_own(optimizer):
        taken = optim.own.takes(optimizer)
        momenta = (0.9,) if "momentum" in taken else (0.0,)
        decays = OWN_DECAYS if "weight_decay" in taken else (0.0,)
        return Grid(COUPLED.lrs, momenta, decays)
    return (GRIDS | MIXED_GRIDS | BEYOND)[optimizer]


def grid(
    optimizer: str,
    lrs: Sequence[float] = (),
    momenta: Sequence[float] = (),
    weight_decays: Sequence[float] = (),
    **more: Any,
) -> list[RunConfig]:
    """One config for each point of an optimizer's grid; an empty axis takes the grid's values.

    Args:
        more: other axes, such as ``seeds`` and, for the ``_mixed`` optimizers, ``coupled_shares``;
            and fields of ``RunConfig``, equal for all.

    Raises:
        ValueError: an unknown optimizer, or a value that ``RunConfig`` refuses.
    """
    paper = vars(grid_of(optimizer))
    if "dataset" in more:  # its folder is listed once, not for each config
        more = {"data_listing": data.fingerprint(more["dataset"])} | more
    more |= {"lrs": lrs, "momenta": momenta, "weight_decays": weight_decays}
    axes = [more.pop(a.name, ()) or paper.get(a.name, (a.default,)) for a in AXES]
    fields = [axis.field for axis in AXES]
    points = [dict(zip(fields, point, strict=True)) for point in product(*axes)]
    return list(dict.fromkeys(RunConfig(optimizer=optimizer, **p, **more) for p in points))
