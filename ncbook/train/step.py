"""The members' tensors, and the one step that moves all of them by one minibatch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from ncbook import models, optim
from ncbook.train.compiled import Axis, Compiled, compile_or_warn
from ncbook.train.moves import Moves, Named


@dataclass
class Members:
    """M members: parameters, batch-norm buffers and the optimizer's moving averages, each with a
    leading member axis, shape (M, ...)."""

    params: dict[str, Tensor]
    buffers: dict[str, Tensor]
    state: dict[str, tuple[Tensor, ...]]

    @classmethod
    def start(cls, net: nn.Module, count: int, moves: Moves, number: Tensor) -> Members:
        """``count`` copies of one freshly built network."""
        params = {k: _copies(p, count) for k, p in net.named_parameters()}
        buffers = {k: _copies(b, count) for k, b in net.named_buffers()}
        return cls(params, buffers, moves.start(params, number))

    def __len__(self) -> int:
        return len(self.params["fc.weight"])

    @property
    def dtype(self) -> torch.dtype:
        """Of the last layer, and so of the inputs."""
        return self.params["fc.weight"].dtype

    def finite(self) -> Tensor:
        """(M,) bool: the members all of whose parameters and moving averages are finite. (Signum's
        weights survive a NaN gradient, whose sign is 0 in torch; its average does not.)"""
        slots = [slot for slots in self.state.values() for slot in slots]
        # The largest number of each: ten times as fast as isfinite of every number.
        largest = [t.flatten(1).abs().amax(1) for t in (*self.params.values(), *slots)]
        return torch.stack(largest).isfinite().all(0)

    def silence(self, lost: Tensor) -> None:
        """Set every number of the members in ``lost``, (M,) bool, to zero."""
        slots = [slot for slots in self.state.values() for slot in slots]
        for tensor in (*self.params.values(), *self.buffers.values(), *slots):
            tensor[lost] = 0


def _copies(tensor: Tensor, count: int) -> Tensor:
    """(count, ...); each copy of a convolution's weight is channels last, as its images are."""
    tensor = tensor.detach()
    if tensor.dim() != 4:
        return tensor.expand(count, *tensor.shape).clone()
    return tensor.permute(0, 2, 3, 1).repeat(count, 1, 1, 1, 1).permute(0, 1, 4, 2, 3)


def part(named: Named, prefix: str) -> dict[str, Tensor]:
    """The tensors under ``prefix``, without it: ``part(params, "fc.")`` has ``weight, bias``."""
    return {k.removeprefix(prefix): v for k, v in named.items() if k.startswith(prefix)}


def member(named: Named, i: int) -> dict[str, Tensor]:
    """Member i's own tensors: views, so what is written to them is kept."""
    return {k: t[i] for k, t in named.items()}


def features_of(net: models.Classifier, params: Named, buffers: Named, x: Tensor) -> Tensor:
    """One member's last-layer features H, shape (N, p)."""
    return functional_call(net.body, (part(params, "body."), part(buffers, "body.")), (x,))


def minibatch_loss(net: models.Classifier, precision: str) -> Callable:
    """One member's mean cross-entropy, returned with batch norm's new statistics."""

    def loss(params, buffers, x, y):
        half = precision == "bfloat16"
        with torch.autocast(x.device.type, torch.bfloat16) if half else nullcontext():
            features = features_of(net, params, buffers, x)
        fc = part(params, "fc.")
        # W always in its own precision: the exact law of NC0 is about the last layer.
        logits = nn.functional.linear(features.to(fc["weight"].dtype), **fc)
        return nn.functional.cross_entropy(logits, y), buffers

    return loss


def make_step(
    net: models.Classifier,
    precision: str,
    moves: Moves,
    *,
    together: bool,
    device: str | None = None,
) -> Callable:
    """``step(params, buffers, state, x, y, factors, number)``: one minibatch for all members, in
    place.

    ``factors`` is (directions * 9, M), the rows of ``optim.Factors``; ``number``, 0-d, is that of
    the direction, if ``moves`` takes it by number. ``together`` batches the members by vmap;
    otherwise they take their steps one after another. Both do the same arithmetic.

    Args:
        device: the step is compiled for it, ``cpu`` or ``cuda``. By default nothing is compiled.
    """

    def compiled(function: Callable, *axes: Axis) -> Callable:
        key = (function.__qualname__, str(net), precision, moves)
        return Compiled(function, key, axes, device) if device else function

    loss, decays = minibatch_loss(net, precision), models.decayed(net)
    return (_together if together else _one_after_another)(loss, decays, moves, device, compiled)


def _together(loss, decays: Mapping[str, bool], moves: Moves, device, compiled) -> Callable:
    gradients = vmap(grad(loss, has_aux=True), (0, 0, None, None))

    def step(params, buffers, state, x, y, factors, number):
        grads, seen = gradients(params, buffers, x, y)
        for name, buffer in buffers.items():
            buffer.copy_(seen[name])
        if moves.clip:
            grads = vmap(lambda one: optim.clipped(one, moves.clip))(grads)
        moves.move(params, grads, state, factors, number, decays)

    members, batch = (0, "members"), (0, "batch")
    return compiled(step, members, members, members, batch, batch, (1, "members"), None)


def _one_after_another(
    loss, decays: Mapping[str, bool], moves: Moves, device, compiled
) -> Callable:
    """On a CPU only the update is compiled, which takes it from 3-15 % of a full ResNet9's step to
    under 1 %; its convolutions are the same library calls either way, and compiling the passes
    gained nothing that could be measured. On a GPU both are."""

    def move(params, grads, state, factors, number):
        grads = optim.clipped(grads, moves.clip) if moves.clip else grads
        moves.move(params, grads, state, factors, number, decays)

    move = compiled(move, *[None] * 5)
    forward = compile_or_warn(loss) if device == "cuda" else loss

    def step(params, buffers, state, x, y, factors, number):
        for i in range(factors.shape[1]):
            own = member(params, i)
            leaves = {k: p.detach().requires_grad_() for k, p in own.items()}
            with torch.enable_grad():
                value, _ = forward(leaves, member(buffers, i), x, y)
                grads = torch.autograd.grad(value, list(leaves.values()))
            slots = {k: tuple(slot[i] for slot in slots) for k, slots in state.items()}
            row = factors[:, i].contiguous()
            move(own, dict(zip(own, grads, strict=True)), slots, row, number)

    return step
