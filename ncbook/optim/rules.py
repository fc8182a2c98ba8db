"""The optimizers by name: each is a direction and a form of weight decay."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from ncbook.own import is_own


class Rule(NamedTuple):
    """A direction, and the coupled share of the decay: 1, 0, or None where each run has its own
    (or, with a reader's own class, where it is not known)."""

    direction: str
    coupled_share: float | None


OPTIMIZERS = {
    "sgd": Rule("sgd", 1.0),
    "sgdw": Rule("sgd", 0.0),
    "adam": Rule("adam", 1.0),
    "adamw": Rule("adam", 0.0),
    "signum": Rule("sign", 1.0),
    "signumw": Rule("sign", 0.0),
    # Section 3.4: lambda_c + lambda_d is fixed and the share varies.
    "sgd_mixed": Rule("sgd", None),
    "adam_mixed": Rule("adam", None),
    "signum_mixed": Rule("sign", None),
    # Beyond the paper. What the field calls Muon with weight decay is ``muonw``, and Lion and MARS
    # were published with decoupled decay.
    "muon": Rule("muon", 1.0),
    "muonw": Rule("muon", 0.0),
    "shampoo": Rule("shampoo", 1.0),
    "shampoow": Rule("shampoo", 0.0),
    "soap": Rule("soap", 1.0),
    "soapw": Rule("soap", 0.0),
    "lionc": Rule("lion", 1.0),
    "lion": Rule("lion", 0.0),
    "mars": Rule("mars", 0.0),
}


# The directions for matrices, which move vectors by Adam.
FOR_MATRICES = ("muon", "shampoo", "soap")
OWN = "own"  # the direction of every class that a reader names


def rule(name: str) -> Rule:
    """``row_of``, or the rule of ``MODULE:CLASS``."""
    return Rule(OWN, None) if is_own(name) else row_of(name)


def row_of(name: str) -> Rule:
    """The row of ``OPTIMIZERS``; ``ValueError`` with the valid names if there is no such row."""
    if name not in OPTIMIZERS:
        raise ValueError(f"unknown optimizer {name!r}; valid: {', '.join(OPTIMIZERS)}")
    return OPTIMIZERS[name]


def is_mixed(name: str) -> bool:
    """Whether each run of this optimizer has a coupled share of its own."""
    return rule(name).coupled_share is None and not is_own(name)


def split_decay(name: str, weight_decay: float, coupled_share: float | None) -> tuple[float, float]:
    """(lambda_c, lambda_d) of an optimizer for a total weight decay; (0, 0) of ``MODULE:CLASS``,
    whose class decays the weights itself.

    Raises ValueError for an unknown name, and for a share given to an optimizer that has its own or
    whose share is not known, missing for a mixed one, or outside [0, 1].
    """
    share = rule(name).coupled_share
    if is_own(name):
        if coupled_share is not None:
            raise ValueError(f"coupled_share {coupled_share:g} is not for {name}")
        return 0.0, 0.0
    if share is None:
        if coupled_share is None or not 0 <= coupled_share <= 1:
            raise ValueError(f"{name} needs a coupled_share in [0, 1], got {coupled_share}")
        share = coupled_share
    elif coupled_share not in (None, share):
        raise ValueError(f"{name} has coupled_share {share}, got {coupled_share}")
    return share * weight_decay, (1 - share) * weight_decay


def check_for_matrices(given: Mapping[str, Any], *names: str) -> None:
    """Raise ValueError if a parameter is given that only directions for matrices use, and none of
    these optimizers has one."""
    if all(rule(name).direction not in FOR_MATRICES for name in names):
        valid = ", ".join(n for n, r in OPTIMIZERS.items() if r.direction in FOR_MATRICES)
        for field in ("vector_lr", "update_precision"):
            if given[field] is not None:
                told = f"{field} {given[field]!r} is not for {' and '.join(names)}"
                raise ValueError(f"{told}; valid for: {valid}")
