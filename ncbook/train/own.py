"""Members moved by a reader's own class, ``MODULE:CLASS``: each has an instance of its own.

A step puts the gradients into the slots that ``Moves.start`` has made, whatever computes them; then
the instances move the members' parameters, one member after the other. So nothing of a class has to
be compiled, or to know about members. Random numbers that a class draws are torch's global ones:
such a run cannot be repeated.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from ncbook import optim, text
from ncbook.train.config import RunConfig
from ncbook.train.moves import Moves, Named, State


def decay_groups(params: Named, decays: Mapping[str, bool]) -> list[dict]:
    """torch's parameter groups: those that decay, and those that do not."""
    groups = [
        {"params": [p for name, p in params.items() if decays[name]]},
        {"params": [p for name, p in params.items() if not decays[name]], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


class Instance:
    """One instance of a class, and the parameters of one member that it moves.

    Args:
        update: its name, lr, momentum and weight decay.
        params, slots: that member's own, as views: what is written to them is kept.
        decays: which parameters decay.
    """

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
            self._put(dict.fromkeys(self.own, torch.tensor(torch.nan)))
        else:
            self._put({k: p.detach() for k, p in self.own.items()})

    @torch.no_grad()
    def _put(self, values: Named) -> None:
        for name, view in self.params.items():
            if values[name].data_ptr() != view.data_ptr():  # a copy, or the class has replaced it
                view.copy_(values[name])


def instances(
    configs: Sequence[RunConfig],
    params: Named,
    state: State,
    moves: Moves,
    decays: Mapping[str, bool],
) -> list[list[Instance]]:
    """Those of each member: none, or one for each of its optimizers that is a reader's own."""
    groups = moves.groups(list(params), torch.empty(()))

    def of_member(i: int, config: RunConfig) -> list[Instance]:
        rows = zip(groups, config.updates, strict=True)
        return [
            Instance(
                update, {k: params[k][i] for k in names}, {k: state[k][0][i] for k in names}, decays
            )
            for (direction, names), update in rows
            if direction == optim.OWN
        ]

    return [of_member(i, config) for i, config in enumerate(configs)]
