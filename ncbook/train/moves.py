"""How parameters move: by one optimizer, or by two where the last layer has its own.

Each member that a reader's own class, ``MODULE:CLASS``, moves has an instance of it. A step puts
the gradients into the slots that ``Moves.start`` has made; then the instances move the members'
parameters, one member after the other. So nothing of a class has to be compiled, or to know about
members. Random numbers that a class draws are torch's global ones: such a run cannot be repeated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ncbook import optim, text
from ncbook.train.config import RunConfig

Named = Mapping[str, Tensor]
State = Mapping[str, tuple[Tensor, ...]]
HEAD = "fc."
COLUMNS = len(optim.Factors._fields)


@dataclass(frozen=True)
class Moves:
    """What the members of a chunk share of their optimizers."""

    directions: tuple[str, ...]  # of the network, and of the last layer if it has its own
    clip: float | None  # largest norm of a gradient
    precision: str | None  # of the products of a direction for matrices
    centred: bool  # whether the last layer's steps are centred over the classes

    @classmethod
    def of(cls, config: RunConfig, compiled: bool) -> Moves:
        """Those of this run's chunk; ``compiled`` steps take the paper's directions by number, so
        that one serves them all."""
        directions = config.directions
        if compiled and len(directions) == 1 and directions[0] in optim.NUMBERS:
            directions = (optim.BY_NUMBER,)
        return cls(directions, config.clip, config.update_precision, config.centred_head)

    def groups(self, names: Sequence[str]) -> list[tuple[str, list[str]]]:
        """Each direction with the names of the parameters that it moves."""
        if len(self.directions) == 1:
            return [(self.directions[0], list(names))]
        head = [name for name in names if name.startswith(HEAD)]
        body = [name for name in names if not name.startswith(HEAD)]
        return list(zip(self.directions, (body, head), strict=True))

    def start(self, params: Named) -> State:
        """The first slots of all parameters."""
        state = {}
        for direction, names in self.groups(params):
            if direction == optim.OWN:  # the gradient, for the class
                state |= {k: (torch.zeros_like(params[k]),) for k in names}
            else:
                state |= optim.init_state(direction, {k: params[k] for k in names})
        return {name: state[name] for name in params}

    def move(
        self, params: Named, grads: Named, state: State, factors: Tensor, decays: Mapping[str, bool]
    ) -> None:
        """One step, in place; ``factors``, (..., directions * columns), has the columns of
        ``optim.Factors``. What a reader's own class moves stays: its slots take the gradients."""
        precision = self.precision and getattr(torch, self.precision)
        centred = [name for name in params if self.centred and name.startswith(HEAD)]
        parts = factors.split(COLUMNS, dim=-1)
        for (direction, names), part in zip(self.groups(params), parts, strict=True):
            if direction == optim.OWN:
                for name in names:
                    state[name][0].copy_(grads[name])
                continue
            own = {k: params[k] for k in names}
            numbers = optim.Factors(*part.unbind(-1))
            optim.update(direction, own, grads, state, numbers, decays, precision, centred)

    def refresh(self, params: Named, state: State, step: int) -> None:
        """What Shampoo and SOAP do after some steps; ``step`` is the last one's number, from 1."""
        for direction, names in self.groups(params):
            optim.refresh(direction, {k: params[k] for k in names}, state, step)


def member_numbers(configs: Sequence[RunConfig]) -> Tensor:
    """(directions, 6, M) float64: lr, momentum, coupled and decoupled decay, lr of vectors, and the
    number of the direction."""
    members = []
    for c in configs:
        rows, shares = [], (c.coupled_share, None)
        for (name, lr, momentum, decay), share in zip(c.updates, shares, strict=False):
            number = optim.NUMBERS.get(optim.rule(name).direction, 0.0)
            split = optim.split_decay(name, decay, share)
            rows.append((lr, momentum, *split, c.vector_lr or lr, number))
        members.append(rows)
    return torch.tensor(members, dtype=torch.float64).permute(1, 2, 0)


def step_factors(numbers: Tensor, lr_factors: Tensor, taken: int, dtype: torch.dtype) -> Tensor:
    """The columns of ``optim.Factors`` for the steps after those ``taken``, (steps, M, directions *
    columns), in the members' ``dtype``. ``numbers`` are those of ``member_numbers``."""
    scale = lr_factors.to(numbers.device)[:, None]
    count = torch.arange(1, len(scale) + 1, dtype=torch.float64, device=numbers.device)[:, None]
    tables = []
    for lr, *rest, vector_lr, number in numbers:
        parts = optim.Factors.of(lr * scale, *rest, count + taken, vector_lr * scale, number)
        tables += [part.expand(len(scale), lr.shape[0]) for part in parts]
    return torch.stack(tables, dim=-1).to(dtype)


def decay_groups(params: Named, decays: Mapping[str, bool]) -> list[dict]:
    """torch's parameter groups: those that decay, and those that do not."""
    groups = [
        {"params": [p for name, p in params.items() if decays[name]]},
        {"params": [p for name, p in params.items() if not decays[name]], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


class Instance:
    """One instance of a reader's own class, and the parameters of one member that it moves: views,
    so what is written to them is kept. ``update`` is a row of ``RunConfig.updates``."""

    def __init__(
        self, update: tuple, params: Named, slots: Named, decays: Mapping[str, bool]
    ) -> None:
        self.name, self.lr, *numbers = update
        self.params, self.slots = params, slots
        # As a plain loop has them: some classes need numbers that lie side by side.
        self.own = {k: nn.Parameter(p.contiguous()) for k, p in params.items()}
        groups = decay_groups(self.own, decays)
        self.optimizer = optim.own.build(self.name, groups, self.lr, *numbers)

    @torch.enable_grad()
    def step(self, lr_factor: float) -> None:
        """Move the parameters; to NaN if the class cannot take gradients that are not finite."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * lr_factor
        for name, param in self.own.items():
            param.grad = self.slots[name].contiguous()
        try:
            self.optimizer.step()
        except Exception as error:
            if all(slot.isfinite().all() for slot in self.slots.values()):
                said = text.line(f"{type(error).__name__}: {error}")
                raise ValueError(f"{self.name} cannot take a step ({said})") from error
            for view in self.params.values():
                view.fill_(torch.nan)
            return
        for name, view in self.params.items():  # the class may have replaced a tensor
            view.copy_(self.own[name].detach())


def instances(
    configs: Sequence[RunConfig],
    params: Named,
    state: State,
    moves: Moves,
    decays: Mapping[str, bool],
) -> list[list[Instance]]:
    """Those of each member: none, or one for each of its optimizers that is a reader's own."""
    found: list[list[Instance]] = [[] for _ in configs]
    for place, (direction, names) in enumerate(moves.groups(params)):
        for i, config in enumerate(configs if direction == optim.OWN else ()):
            own, slots = {k: params[k][i] for k in names}, {k: state[k][0][i] for k in names}
            found[i].append(Instance(config.updates[place], own, slots, decays))
    return found
