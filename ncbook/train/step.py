"""The members' tensors, and the one step that moves all of them by one minibatch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache, partial

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.utils import _pytree as pytree

from ncbook import models, optim
from ncbook.train.compiled import Compiled, Size, compile_or_warn
from ncbook.train.moves import Moves, Named


@dataclass
class Members:
    """M members: parameters, batch-norm buffers and the optimizer's moving averages, each with a
    leading member axis, shape (M, ...)."""

    params: dict[str, Tensor]
    buffers: dict[str, Tensor]
    state: dict[str, tuple[Tensor, ...]]

    @classmethod
    def start(cls, net: nn.Module, count: int, moves: Moves) -> Members:
        """``count`` copies of one freshly built network."""
        params = {k: _copies(p, count) for k, p in net.named_parameters()}
        buffers = {k: _copies(b, count) for k, b in net.named_buffers()}
        return cls(params, buffers, moves.start(params))

    def __len__(self) -> int:
        return len(self.params["fc.weight"])

    @property
    def dtype(self) -> torch.dtype:
        """Of the last layer, and so of the inputs."""
        return self.params["fc.weight"].dtype

    def finite(self) -> Tensor:
        """(M,) bool: the members all of whose parameters and moving averages are finite. (Signum's
        weights survive a NaN gradient, whose sign is 0 in torch; its average does not.)"""
        # The largest number of each: ten times as fast as isfinite of every number.
        moved = pytree.tree_leaves((self.params, self.state))
        largest = [t.flatten(1).abs().amax(1) for t in moved]
        return torch.stack(largest).isfinite().all(0)

    def silence(self, lost: Tensor) -> None:
        """Set every number of the members in ``lost``, (M,) bool, to zero."""
        for tensor in pytree.tree_leaves(vars(self)):
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


def member(named: Named, i: int | slice) -> dict[str, Tensor]:
    """Member i's own tensors, or those of some: views, so what is written to them is kept."""
    return {k: t[i] for k, t in named.items()}


def features_of(net: models.Classifier, params: Named, buffers: Named, x: Tensor) -> Tensor:
    """One member's last-layer features H, shape (N, p)."""
    return functional_call(net.body, (part(params, "body."), part(buffers, "body.")), (x,))


def logits_of(body: Callable, fc: Named, x: Tensor, precision: str) -> Tensor:
    """(N, K). W always in its own precision: the exact law of NC0 is about the last layer."""
    half = precision == "bfloat16"
    with torch.autocast(x.device.type, torch.bfloat16) if half else nullcontext():
        features = body(x)
    return nn.functional.linear(features.to(fc["weight"].dtype), **fc)


def minibatch_loss(net: models.Classifier, precision: str) -> Callable:
    """One member's mean cross-entropy, returned with batch norm's new statistics."""

    def loss(params, buffers, x, y):
        body = partial(features_of, net, params, buffers)
        logits = logits_of(body, part(params, "fc."), x, precision)
        return nn.functional.cross_entropy(logits, y), buffers

    return loss


@lru_cache(maxsize=32)  # so that every chunk of a sweep uses what the first one compiled
def make_step(
    net: models.Classifier, precision: str, moves: Moves, together: bool, device: str | None
) -> Callable:
    """``step(params, buffers, state, x, y, factors)``: one minibatch for all members, in place.

    ``factors`` is a row of ``moves.step_factors``. ``together`` batches the members by vmap;
    otherwise they take their steps one after another. Both do the same arithmetic. The step is
    compiled for ``device``, ``cpu`` or ``cuda``, if there is one.
    """

    def compiled(function: Callable, *sizes: Size) -> Callable:
        key = (function.__qualname__, str(net), precision, moves)
        return Compiled(function, key, sizes, device) if device else function

    loss, decays = minibatch_loss(net, precision), models.decayed(net)
    return (_together if together else _one_after_another)(loss, decays, moves, device, compiled)


def _together(loss, decays: Mapping[str, bool], moves: Moves, device, compiled) -> Callable:
    gradients = vmap(grad(loss, has_aux=True), (0, 0, None, None))

    def step(params, buffers, state, x, y, factors):
        grads, seen = gradients(params, buffers, x, y)
        for name, buffer in buffers.items():
            buffer.copy_(seen[name])
        if moves.clip:
            grads = vmap(lambda one: optim.clipped(one, moves.clip))(grads)
        moves.move(params, grads, state, factors, decays)

    return compiled(step, *["members"] * 3, *["batch"] * 2, "members")


def _one_after_another(
    loss, decays: Mapping[str, bool], moves: Moves, device, compiled
) -> Callable:
    """On a CPU only the update is compiled, which takes it from 3-15 % of a full ResNet9's step to
    under 1 %; its convolutions are the same library calls either way, and compiling the passes
    gained nothing that could be measured. On a GPU both are."""

    def move(params, grads, state, factors):
        grads = optim.clipped(grads, moves.clip) if moves.clip else grads
        moves.move(params, grads, state, factors, decays)

    move = compiled(move, *[None] * 4)
    forward = compile_or_warn(loss) if device == "cuda" else loss

    def step(params, buffers, state, x, y, factors):
        for i, row in enumerate(factors):
            own = member(params, i)
            leaves = {k: p.detach().requires_grad_() for k, p in own.items()}
            with torch.enable_grad():
                value, _ = forward(leaves, member(buffers, i), x, y)
                grads = torch.autograd.grad(value, list(leaves.values()))
            slots = {k: tuple(slot[i] for slot in slots) for k, slots in state.items()}
            move(own, dict(zip(own, grads, strict=True)), slots, row)

    return step
