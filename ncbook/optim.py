"""One update rule for every optimizer of the paper, with coupled and decoupled weight decay.

With g the gradient of one parameter W and d the direction that its optimizer makes of g::

    g <- g + lambda_c W            coupled: the decay is part of the gradient
    d <- direction(g)
    W <- (1 - eta lambda_d) W      decoupled: the decay shrinks the weight
    W <- W - eta d

    sgd:   v <- beta v + g;                 d = v
    adam:  m <- beta m + (1 - beta) g;      s <- beta2 s + (1 - beta2) g^2
           d = (m / (1 - beta^t)) / (sqrt(s / (1 - beta2^t)) + eps),   beta2 = 0.999, eps = 1e-8
    sign:  m <- beta m + (1 - beta) g;      d = sign(m)

``sgd`` and ``adam`` are torch's (no dampening, no Nesterov, no AMSGrad); ``sign`` with coupled
decay is Signum (Bernstein et al., 2018). torch has no SGDW, Signum or SignumW.
Where the decay has both forms, as in section 3.4, ``coupled_share`` is the coupled part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ncbook.parameters import FIELDS

ADAM_BETA2 = 0.999  # torch's default; the paper's D.1 leaves it there
ADAM_EPS = 1e-8  # torch's default


class Rule(NamedTuple):
    """A direction, and the coupled share of the decay: 1, 0, or None where each run has its own."""

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
}
NUMBERS = {"sgd": 0.0, "adam": 1.0, "sign": 2.0}  # by which ``update`` may be told a direction


def rule(name: str) -> Rule:
    """The row of ``OPTIMIZERS``; ``ValueError`` with the valid names if it is not found."""
    if name not in OPTIMIZERS:
        raise ValueError(f"unknown optimizer {name!r}; valid: {', '.join(OPTIMIZERS)}")
    return OPTIMIZERS[name]


class Factors(NamedTuple):
    """What a step multiplies with: each 0-d, or one value per member, shape (M,).

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

    @classmethod
    def of(
        cls, lr: Tensor, momentum: Tensor, coupled: Tensor, decoupled: Tensor, step: Tensor
    ) -> Factors:
        """Of eta, beta, lambda_c, lambda_d and the step's number t (from 1), float64."""
        root_scale = (1 - ADAM_BETA2**step).rsqrt()
        kept = 1 - lr * decoupled
        return cls(lr, kept, coupled, momentum, 1 - momentum, 1 / (1 - momentum**step), root_scale)

    def over(self, param: Tensor) -> Factors:
        """Made to broadcast over a parameter of shape (M, ...), in its dtype."""
        ones = [1] * (param.dim() - 1)
        return Factors(*((v.view(-1, *ones) if v.dim() else v).to(param.dtype) for v in self))


def init_state(
    direction: str | Tensor, params: Mapping[str, Tensor]
) -> dict[str, tuple[Tensor, ...]]:
    """Zero moving averages for each parameter: (v,) for sgd, (m,) for sign, (m, s) for adam and
    for a direction that is given by number."""
    slots = 2 if isinstance(direction, Tensor) or direction == "adam" else 1
    return {k: tuple(torch.zeros_like(p) for _ in range(slots)) for k, p in params.items()}


def _sgd(grad: Tensor, state: tuple[Tensor, ...], f: Factors) -> Tensor:
    (velocity,) = state
    velocity.copy_(f.momentum * velocity + grad)
    return velocity


def _adam(grad: Tensor, state: tuple[Tensor, ...], f: Factors) -> Tensor:
    mean, square = state
    mean.copy_(f.momentum * mean + f.fresh * grad)
    square.copy_(ADAM_BETA2 * square + (1 - ADAM_BETA2) * grad * grad)
    return f.mean_scale * mean / (square.sqrt() * f.root_scale + ADAM_EPS)


def _sign(grad: Tensor, state: tuple[Tensor, ...], f: Factors) -> Tensor:
    (mean,) = state
    mean.copy_(f.momentum * mean + f.fresh * grad)
    return mean.sign()


_DIRECTIONS = {"sgd": _sgd, "adam": _adam, "sign": _sign}


def _any(number: Tensor, grad: Tensor, state: tuple[Tensor, ...], f: Factors) -> Tensor:
    """The direction of this number, 0-d: so one compiled step serves every optimizer."""
    mean, square = state
    sgd, adam = number == NUMBERS["sgd"], number == NUMBERS["adam"]
    mean.copy_(f.momentum * mean + torch.where(sgd, 1.0, f.fresh) * grad)
    square.copy_(torch.where(adam, ADAM_BETA2 * square + (1 - ADAM_BETA2) * grad * grad, square))
    scaled = f.mean_scale * mean / (square.sqrt() * f.root_scale + ADAM_EPS)
    return torch.where(adam, scaled, torch.where(sgd, mean, mean.sign()))


def update(
    direction: str | Tensor,
    params: Mapping[str, Tensor],
    grads: Mapping[str, Tensor],
    state: Mapping[str, tuple[Tensor, ...]],
    factors: Factors,
    decayed: Mapping[str, bool] | None = None,
) -> None:
    """One step of the rule above, in place, for every parameter.

    The direction is ``sgd``, ``adam`` or ``sign``, or its number of ``NUMBERS``, a 0-d tensor.
    Parameters and gradients have shapes (M, ...) with factors of shape (M,), or any shape with 0-d
    factors; the state is from ``init_state``. All parameters decay unless ``decayed`` says which.
    """
    by_number = isinstance(direction, Tensor)
    turned = partial(_any, direction) if by_number else _DIRECTIONS[direction]
    for name, param in params.items():
        f = factors.over(param)
        grad, kept = grads[name], param
        if decayed is None or decayed[name]:
            grad, kept = grad + f.coupled * param, f.kept * param
        param.copy_(kept - f.lr * turned(grad, state[name], f))


def clipped(grads: Mapping[str, Tensor], limit: float) -> dict[str, Tensor]:
    """One network's gradients, scaled down so that their common norm is at most ``limit``.

    torch's ``clip_grad_norm_``: the factor is min(1, limit / (norm + 1e-6)), before any coupled
    decay is added. So the exact law of NC0 survives it.
    """
    norm = sum(g.square().sum() for g in grads.values()).sqrt()
    factor = (limit / (norm + 1e-6)).clamp(max=1.0)
    return {name: g * factor for name, g in grads.items()}


def split_decay(name: str, weight_decay: float, coupled_share: float | None) -> tuple[float, float]:
    """(lambda_c, lambda_d) of an optimizer of ``OPTIMIZERS`` for a total weight decay.

    Raises ValueError for an unknown name, and for a share given to an optimizer that has its own,
    missing for one that has not, or outside [0, 1].
    """
    share = rule(name).coupled_share
    if share is None:
        if coupled_share is None or not 0 <= coupled_share <= 1:
            raise ValueError(f"{name} needs a coupled_share in [0, 1], got {coupled_share}")
        share = coupled_share
    elif coupled_share not in (None, share):
        raise ValueError(f"{name} has coupled_share {share}, got {coupled_share}")
    return share * weight_decay, (1 - share) * weight_decay


class Optimizer(torch.optim.Optimizer):
    """The same rule as an ordinary ``torch.optim.Optimizer`` on an ordinary module.

    ``name`` is a key of ``OPTIMIZERS``. Parameter groups may have their own lr (eta > 0), momentum
    (beta or beta_1, in [0, 1)), weight_decay (lambda >= 0, coupled or decoupled as the name says)
    and, for the ``_mixed`` names, coupled_share. A complex parameter is two real ones, as in
    torch's Adam. Sparse gradients are refused.

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
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        # The rule's name is one of the defaults so that torch copies, pickles and saves it.
        defaults |= {"coupled_share": coupled_share, "rule": name}
        _check_group(defaults, name)
        super().__init__(params, defaults)

    @property
    def name(self) -> str:
        """A key of ``OPTIMIZERS``."""
        return self.defaults["rule"]

    @property
    def direction(self) -> str:
        """``sgd``, ``adam`` or ``sign``."""
        return rule(self.name).direction

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Refuses what the constructor refuses."""
        _check_group(self.defaults | param_group, self.name)
        super().add_param_group(param_group)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Refuses the state of another rule."""
        for group in state_dict["param_groups"]:
            # a checkpoint of version 0.1 does not name its rule
            then = {"rule": self.name if "coupled_share" in group else None}
            _check_group(self.defaults | then | group, self.name)
        super().load_state_dict(state_dict)

    @torch.no_grad()
    def step(self, closure=None):
        """One step; returns the closure's loss if there is a closure."""
        with torch.enable_grad():
            loss = closure() if closure is not None else None
        for param in [p for group in self.param_groups for p in group["params"]]:
            if param.grad is not None and param.grad.layout != torch.strided:
                raise RuntimeError(
                    f"{self.name} needs dense gradients, but that of a parameter of shape "
                    f"{tuple(param.shape)} is sparse"
                )
        for group in self.param_groups:
            factors = cache(partial(self._factors, group))
            for param in group["params"]:
                if param.grad is not None:
                    self._step_one(param, factors)
        return loss

    def _factors(self, group: dict[str, Any], step: int) -> Factors:
        decay = split_decay(self.name, group["weight_decay"], group["coupled_share"])
        numbers = (group["lr"], group["momentum"], *decay, float(step))
        return Factors.of(*(torch.tensor(v, dtype=torch.float64) for v in numbers))

    def _step_one(self, param: Tensor, factors: Callable[[int], Factors]) -> None:
        state, grad = self.state[param], param.grad
        if param.is_complex():
            param, grad = torch.view_as_real(param), torch.view_as_real(grad)
        if not state:
            state["step"] = 0
            state["slots"] = init_state(self.direction, {"p": param})["p"]
        state["step"] += 1
        slots, numbers = state["slots"], factors(state["step"])
        update(self.direction, {"p": param}, {"p": grad}, {"p": slots}, numbers)


def _check_group(group: Mapping[str, Any], name: str) -> None:
    """The settings of a parameter group of the optimizer ``name``."""
    if group["rule"] != name:
        other = group["rule"] or "another"
        raise ValueError(f"{name} cannot take parameters or a state of {other}")
    for field in ("lr", "momentum", "weight_decay"):
        FIELDS[field].check(group[field])
    split_decay(name, group["weight_decay"], group["coupled_share"])
