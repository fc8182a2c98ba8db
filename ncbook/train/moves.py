"""How parameters move: by one optimizer, or by two where the last layer has its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ncbook import optim
from ncbook.train.config import RunConfig

Named = Mapping[str, Tensor]
State = Mapping[str, tuple[Tensor, ...]]
HEAD = "fc."
ROWS = len(optim.Factors._fields)


@dataclass(frozen=True)
class Moves:
    """What the members of a chunk share of their optimizers.

    Args:
        directions: of the network, and of the last layer if it has its own.
        by_number: whether the direction is told by a number, so that one compiled step serves the
            paper's optimizers.
        clip: largest norm of a gradient, or None.
        precision: of the products of a direction for matrices, or None.
        centred: whether the last layer's steps are centred over the classes.
    """

    directions: tuple[str, ...]
    by_number: bool
    clip: float | None
    precision: str | None
    centred: bool

    @classmethod
    def of(cls, config: RunConfig, compiled: bool) -> Moves:
        """Those of this run's chunk; ``compiled`` steps take the paper's directions by number."""
        directions = config.directions
        by_number = compiled and len(directions) == 1 and directions[0] in optim.NUMBERS
        shown = ("",) if by_number else directions
        return cls(shown, by_number, config.clip, config.update_precision, config.centred_head)

    def groups(self, names: Sequence[str], number: Tensor) -> list[tuple[str | Tensor, list[str]]]:
        """Each direction with the names of the parameters that it moves."""
        if len(self.directions) == 1:
            return [(number if self.by_number else self.directions[0], list(names))]
        head = [name for name in names if name.startswith(HEAD)]
        body = [name for name in names if not name.startswith(HEAD)]
        return list(zip(self.directions, (body, head), strict=True))

    def start(self, params: Named, number: Tensor) -> State:
        """The first slots of all parameters."""
        state = {}
        for direction, names in self.groups(params, number):
            if direction == optim.OWN:  # the gradient, for the class
                state |= {k: (torch.zeros_like(params[k]),) for k in names}
            else:
                state |= optim.init_state(direction, {k: params[k] for k in names})
        return {name: state[name] for name in params}

    def move(
        self,
        params: Named,
        grads: Named,
        state: State,
        factors: Tensor,
        number: Tensor,
        decays: Mapping[str, bool],
    ) -> None:
        """One step, in place; ``factors`` has the rows of ``optim.Factors``, once a direction. What
        a reader's own class moves stays: its slots take the gradients."""
        precision = self.precision and getattr(torch, self.precision)
        centred = [name for name in params if self.centred and name.startswith(HEAD)]
        rows = factors.split(ROWS)
        for (direction, names), row in zip(self.groups(params, number), rows, strict=True):
            if direction == optim.OWN:
                for name in names:
                    state[name][0].copy_(grads[name])
                continue
            own = {k: params[k] for k in names}
            numbers = optim.Factors(*row.unbind())
            optim.update(direction, own, grads, state, numbers, decays, precision, centred)

    def refresh(self, params: Named, state: State, step: int) -> None:
        """What Shampoo and SOAP do after some steps; ``step`` is the last one's number, from 1."""
        for direction, names in self.groups(params, torch.empty(())):
            if optim.needs_refresh(direction, step):
                optim.refresh(direction, {k: params[k] for k in names}, state, step)


def member_numbers(configs: Sequence[RunConfig]) -> Tensor:
    """(directions, 5, M) float64: lr, momentum, coupled and decoupled decay, lr of vectors."""
    members = []
    for c in configs:
        rows, shares = [], (c.coupled_share, None)
        for (name, lr, momentum, decay), share in zip(c.updates, shares, strict=False):
            split = (0.0, 0.0) if optim.is_own(name) else optim.split_decay(name, decay, share)
            rows.append((lr, momentum, *split, c.vector_lr or lr))
        members.append(rows)
    return torch.tensor(members, dtype=torch.float64).permute(1, 2, 0)


def step_factors(numbers: Tensor, lr_factors: Tensor, taken: int, dtype: torch.dtype) -> Tensor:
    """The rows of ``optim.Factors`` for the next steps, (steps, directions * rows, M).

    Args:
        numbers: from ``member_numbers``.
        lr_factors: on the learning rates, one a step.
        taken: how many steps were taken before.
        dtype: of the members, to which the factors are rounded.
    """
    scale = lr_factors.to(numbers.device)[:, None]
    count = torch.arange(1, len(scale) + 1, dtype=torch.float64, device=numbers.device)[:, None]
    tables = []
    for lr, momentum, coupled, decoupled, vector_lr in numbers:
        given = lr * scale, momentum, coupled, decoupled, count + taken, vector_lr * scale
        parts = optim.Factors.of(*given)
        tables += [part.expand(len(scale), lr.shape[0]) for part in parts]
    return torch.stack(tables, dim=1).to(dtype)
