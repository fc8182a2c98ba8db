"""The rules as an ordinary optimizer of torch."""

from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from ncbook.optim.rules import check_for_matrices, row_of, rule, split_decay
from ncbook.optim.steps import Factors, init_state, refresh, update
from ncbook.parameters import FIELDS


class Optimizer(torch.optim.Optimizer):
    """A rule as an ordinary ``torch.optim.Optimizer`` of an ordinary module: of a weight W with
    gradient g, coupled decay c and decoupled decay d, one of which is 0 but for ``_mixed`` names,

        g <- g + c W,    W <- (1 - eta d) W - eta direction(g),

    with the direction as ``update`` has it. ``name`` is a key of ``OPTIMIZERS``. Parameter groups
    may have their own lr (eta > 0), momentum (beta or beta_1, in [0, 1)), weight_decay (lambda >=
    0, coupled or decoupled as the name says) and, for the ``_mixed`` names, coupled_share. Under
    Muon, Shampoo and SOAP, vectors move by Adam with ``vector_lr`` (by default lr; it changes as lr
    does), and ``update_precision`` is that of the products, such as ``"bfloat16"``, by default the
    parameters'. With ``centred`` each direction is centred over the first axis: in a last layer,
    over the classes. A complex parameter is two real ones, as in torch's Adam.

    Raises:
        ValueError: naming the value: an unknown name, a number out of range, or a setting that the
            rule does not use.

    >>> layer = torch.nn.Linear(2, 2)
    >>> optimizer = Optimizer(layer.parameters(), "adamw", lr=1e-3, weight_decay=0.5)
    >>> optimizer.direction
    'adam'
    """

    def __init__(
        self,
        params: Iterable[Any],
        name: str,
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        coupled_share: float | None = None,
        vector_lr: float | None = None,
        update_precision: str | None = None,
        centred: bool = False,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        defaults |= {"coupled_share": coupled_share, "vector_lr": vector_lr}
        # The rule's name is one of the defaults so that torch copies, pickles and saves it.
        defaults |= {"update_precision": update_precision, "centred": centred, "rule": name}
        super().__init__(params, defaults)

    @property
    def name(self) -> str:
        """A key of ``OPTIMIZERS``."""
        return self.defaults["rule"]

    @property
    def direction(self) -> str:
        """Such as ``sgd``; see ``update``."""
        return rule(self.name).direction

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Refuses what the constructor refuses."""
        given = self.defaults | param_group
        _check_group(given, self.name)
        super().add_param_group(param_group | {"given_lr": given["lr"]})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Refuses the state of another rule. A scheduler may have taken its lr to 0."""
        for group in state_dict["param_groups"]:
            given = self.defaults | {"rule": None} | group
            _check_group(given | {"lr": given["lr"] or self.defaults["lr"]}, self.name)
        super().load_state_dict(state_dict)
        for group in self.param_groups:  # of an older version, where vector_lr moved with lr
            group.setdefault("given_lr", group["lr"] or self.defaults["lr"])

    @torch.no_grad()
    def step(self, closure=None):
        """One step; returns the closure's loss if there is a closure."""
        with torch.enable_grad():
            loss = closure() if closure is not None else None
        for group in self.param_groups:
            factors = cache(partial(self._factors, group))
            for param in group["params"]:
                if param.grad is not None:
                    self._step_one(param, factors, group)
        return loss

    def _factors(self, group: dict[str, Any], step: int) -> Factors:
        decay = split_decay(self.name, group["weight_decay"], group["coupled_share"])
        vector_lr = group["lr"]
        if group["vector_lr"] is not None:
            vector_lr = group["vector_lr"] * (group["lr"] / group["given_lr"])
        numbers = (group["lr"], group["momentum"], *decay, float(step), vector_lr)
        factors = Factors.of(*(torch.tensor(v, dtype=torch.float64) for v in numbers))
        return Factors(*(v.item() for v in factors))

    def _step_one(
        self, param: Tensor, factors: Callable[[int], Factors], group: Mapping[str, Any]
    ) -> None:
        state, grad = self.state[param], param.grad
        if grad.is_sparse:
            raise ValueError(f"{self.name} takes no sparse gradients: build with sparse=False")
        if param.is_complex():
            param, grad = torch.view_as_real(param), torch.view_as_real(grad)
        if not state:
            state["step"] = 0
            state["slots"] = init_state(self.direction, {"p": param}, lead=0)["p"]
        state["step"] += 1
        named, slots, numbers = {"p": param}, {"p": state["slots"]}, factors(state["step"])
        precision = group["update_precision"] and getattr(torch, group["update_precision"])
        centred = named if group["centred"] else ()
        update(self.direction, named, {"p": grad}, slots, numbers, None, precision, centred)
        refresh(self.direction, named, slots, state["step"], lead=0)


def _check_group(group: Mapping[str, Any], name: str) -> None:
    """The settings of a parameter group of the optimizer ``name``."""
    row_of(name)
    if group["rule"] != name:
        other = group["rule"] or "another"
        raise ValueError(f"{name} cannot take parameters or a state of {other}")
    for field in ("lr", "momentum", "weight_decay", "vector_lr", "update_precision"):
        FIELDS[field].check(group[field])
    check_for_matrices(group, name)
    if not isinstance(group["centred"], bool):
        raise ValueError(f"centred must be true or false, got {group['centred']!r}")
    split_decay(name, group["weight_decay"], group["coupled_share"])
