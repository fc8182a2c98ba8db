"""One step of an optimizer, for one network or for many members at once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from ncbook.optim import entries, matrices
from ncbook.optim.entries import ADAM_BETA2, Slots

BY_NUMBER = "by number"  # the direction that its number of ``entries.NUMBERS`` tells
# Direction -> how many moving averages it keeps, and itself.
ENTRIES = {
    "sgd": (1, entries.sgd),
    "adam": (2, entries.adam),
    "sign": (1, entries.sign),
    "lion": (1, entries.lion),
    "mars": (4, entries.mars),
    BY_NUMBER: (2, entries.by_number),
}


class Matrix(NamedTuple):
    """A direction for matrices: its first slots, itself, and what it computes now and then."""

    start: Callable[[Tensor], Slots]
    turn: Callable[[Tensor, Slots, Factors, torch.dtype | None], Tensor]
    refresh: Callable[[Slots, bool], None] | None = None


MATRICES = {
    "muon": Matrix(lambda matrix: (torch.zeros_like(matrix),), matrices.muon),
    "shampoo": Matrix(matrices.start_shampoo, matrices.shampoo, matrices.refresh_shampoo),
    "soap": Matrix(matrices.start_soap, matrices.soap, matrices.refresh_soap),
}
VECTORS = "adam"  # the direction of vectors next to matrices


class Factors(NamedTuple):
    """What a step multiplies with: each 0-d, or one value per member, shape (M,); or Python's
    floats, which torch multiplies with in full precision whatever the parameter's.

    They are worked out in float64 and rounded once, as torch does: in float32 ``1 - 0.999`` would
    be wrong in its fifth digit. And before the step: a compiler would take a power for each weight.
    """

    lr: Tensor  # eta
    kept: Tensor  # 1 - eta lambda_d
    coupled: Tensor  # lambda_c
    momentum: Tensor  # beta
    fresh: Tensor  # 1 - beta
    mean_scale: Tensor  # 1 / (1 - beta^t)
    root_scale: Tensor  # 1 / sqrt(1 - beta2^t)
    vector_lr: Tensor  # eta of vectors, where a direction is for matrices
    vector_kept: Tensor  # 1 - vector_lr lambda_d
    number: Tensor  # of the direction, where that is given by number

    @classmethod
    def of(
        cls,
        lr: Tensor,
        momentum: Tensor,
        coupled: Tensor,
        decoupled: Tensor,
        step: Tensor,
        vector_lr: Tensor | None = None,
        number: Tensor | None = None,
    ) -> Factors:
        """Of eta, beta, lambda_c, lambda_d and the step's number t (from 1), float64."""
        vector_lr = lr if vector_lr is None else vector_lr
        means = 1 / (1 - momentum**step), (1 - ADAM_BETA2**step).rsqrt()
        numbers = lr, 1 - lr * decoupled, coupled, momentum, 1 - momentum, *means
        number = 0 * lr if number is None else number
        return cls(*numbers, vector_lr, 1 - vector_lr * decoupled, number)

    def over(self, param: Tensor) -> Factors:
        """Made to broadcast over a parameter of shape (M, ...), in its dtype."""
        if isinstance(self.lr, float):
            return self
        ones = [1] * (param.dim() - 1)
        return Factors(*((v.view(-1, *ones) if v.dim() else v).to(param.dtype) for v in self))

    @property
    def lead(self) -> int:
        """How many axes of a parameter count members: 1 or 0."""
        return int(isinstance(self.lr, Tensor) and self.lr.dim() > 0)

    def of_vectors(self) -> Factors:
        """With the vectors' learning rate and decay in the place of the matrices'."""
        return self._replace(lr=self.vector_lr, kept=self.vector_kept)


def direction_of(direction: str, param: Tensor, lead: int) -> str:
    """A parameter's own direction: under Muon, Shampoo and SOAP, vectors move by Adam. ``lead`` is
    the number of its axes that count members, 1 or 0."""
    return VECTORS if direction in MATRICES and param.dim() - lead < 2 else direction


def init_state(direction: str, params: Mapping[str, Tensor], lead: int = 1) -> dict[str, Slots]:
    """Zero slots for each parameter, of shape (M, ...), or of any shape with ``lead`` 0."""
    state = {}
    for name, param in params.items():
        own = direction_of(direction, param, lead)
        if own in MATRICES:
            state[name] = MATRICES[own].start(param.flatten(lead + 1))
            continue
        # On the device ``meta`` torch.zeros_like imports sympy, which takes a second.
        empty = partial(param.new_empty_strided, param.shape, param.stride())
        state[name] = tuple(empty().zero_() for _ in range(ENTRIES[own][0]))
    return state


def update(
    direction: str,
    params: Mapping[str, Tensor],
    grads: Mapping[str, Tensor],
    state: Mapping[str, Slots],
    factors: Factors,
    decayed: Mapping[str, bool] | None = None,
    precision: torch.dtype | None = None,
    centred: Collection[str] = (),
) -> None:
    """One step of the rule above, in place, for every parameter.

    Args:
        direction: a key of ``ENTRIES`` or ``MATRICES``.
        params, grads: equal keys; shapes (M, ...) with factors of shape (M,), or any shape with
            other factors.
        state: from ``init_state``.
        factors: the numbers of this step.
        decayed: which parameters decay; all of them by default (only a ViT's LayerNorm and
            biases do not).
        precision: of the products of a direction for matrices; by default the parameters'.
        centred: parameters whose direction is centred over their first axis, the classes.
    """
    lead = factors.lead
    for name, param in params.items():
        own = direction_of(direction, param, lead)
        numbers = factors if own == direction else factors.of_vectors()
        f, grad, kept = numbers.over(param), grads[name], param
        if decayed is None or decayed[name]:
            grad, kept = grad + f.coupled * param, f.kept * param
        if own in MATRICES:
            matrix = grad.flatten(lead + 1)
            turned = MATRICES[own].turn(matrix, state[name], numbers.over(matrix), precision)
            step = turned.view_as(param)
        else:
            step = ENTRIES[own][1](grad, state[name], f)
        if name in centred:
            step = step - step.mean(lead, keepdim=True)
        param.copy_(kept - f.lr * step)


def refresh(
    direction: str,
    params: Mapping[str, Tensor],
    state: Mapping[str, Slots],
    step: int,
    lead: int = 1,
) -> None:
    """Renew, in place and where it is time to, what Shampoo and SOAP use for the next steps; not
    part of a compiled step. ``step`` is the number of the step that was taken last, from 1; the
    others are as in ``update`` and ``init_state``."""
    renew = MATRICES[direction].refresh if direction in MATRICES else None
    if renew is None or (step - 1) % matrices.REFRESH_EVERY:
        return
    for name, param in params.items():
        if direction_of(direction, param, lead) == direction:
            renew(state[name], step == 1)


def clipped(grads: Mapping[str, Tensor], limit: float) -> dict[str, Tensor]:
    """One network's gradients, scaled down so that their common norm is at most ``limit``.

    torch's ``clip_grad_norm_``: the factor is min(1, limit / (norm + 1e-6)), and it comes before
    any coupled decay is added: so the exact law of NC0 survives it, since the row sum of the last
    layer's gradient is zero whatever the factor.
    """
    norm = sum(g.square().sum() for g in grads.values()).sqrt()
    factor = (limit / (norm + 1e-6)).clamp(max=1.0)
    return {name: g * factor for name, g in grads.items()}
