"""The members' tensors, and the one step that moves all of them by one minibatch."""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from ncbook import models, optim

Named = Mapping[str, Tensor]
RECOMPILE_LIMIT = 64  # one long-lived process meets more than torch's default of 8 shapes


@dataclass
class Members:
    """M members: parameters, batch-norm buffers and the optimizer's moving averages, each with a
    leading member axis, shape (M, ...)."""

    params: dict[str, Tensor]
    buffers: dict[str, Tensor]
    state: dict[str, tuple[Tensor, ...]]

    @classmethod
    def start(cls, net: nn.Module, count: int, direction: str) -> Members:
        """``count`` copies of one freshly built network."""

        def stack(named) -> dict[str, Tensor]:
            return {k: t.detach().expand(count, *t.shape).clone() for k, t in named}

        params = stack(net.named_parameters())
        return cls(params, stack(net.named_buffers()), optim.init_state(direction, params))

    def finite(self) -> Tensor:
        """(M,) bool: the members all of whose parameters and moving averages are finite. (Signum's
        weights outlive a NaN gradient, whose sign torch takes for 0; its average does not.)"""
        slots = [slot for slots in self.state.values() for slot in slots]
        tensors = (*self.params.values(), *slots)
        return torch.stack([t.flatten(1).isfinite().all(1) for t in tensors]).all(0)

    def silence(self, lost: Tensor) -> None:
        """Set every number of the members in ``lost``, (M,) bool, to zero."""
        slots = [slot for slots in self.state.values() for slot in slots]
        for tensor in (*self.params.values(), *self.buffers.values(), *slots):
            tensor[lost] = 0


def part(named: Named, prefix: str) -> dict[str, Tensor]:
    """The tensors under ``prefix``, without it: ``part(params, "fc.")`` has ``weight, bias``."""
    return {k.removeprefix(prefix): v for k, v in named.items() if k.startswith(prefix)}


def features_of(net: models.Classifier, params: Named, buffers: Named, x: Tensor) -> Tensor:
    """One member's last-layer features H, shape (N, p)."""
    return functional_call(net.body, (part(params, "body."), part(buffers, "body.")), (x,))


def minibatch_loss(net: models.Classifier, precision: str) -> Callable:
    """One member's mean cross-entropy; batch norm's new statistics come back beside it."""

    def loss(params, buffers, x, y):
        with torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            features = features_of(net, params, buffers, x)
        fc = part(params, "fc.")
        # W always in its own precision: the exact law of NC0 is about the last layer.
        logits = nn.functional.linear(features.to(fc["weight"].dtype), **fc)
        return nn.functional.cross_entropy(logits, y), buffers

    return loss


def make_step(net: models.Classifier, direction: str, precision: str, compiled: bool) -> Callable:
    """``step(params, buffers, state, x, y, factors)``: one minibatch for all members, in place.

    ``factors`` is (7, M), the rows of ``optim.Factors``.
    """
    gradients = vmap(grad(minibatch_loss(net, precision), has_aux=True), (0, 0, None, None))

    def step(params, buffers, state, x, y, factors):
        grads, seen = gradients(params, buffers, x, y)
        for name, buffer in buffers.items():
            buffer.copy_(seen[name])
        optim.update(direction, params, grads, state, optim.Factors(*factors.unbind()))

    return compile_or_warn(step) if compiled else step


def can_compile(device: str) -> bool:
    """Whether torch.compile has what it needs: on a CPU, a C++ compiler."""
    return device != "cpu" or any(shutil.which(c) for c in ("g++", "clang++"))


def compile_or_warn(step: Callable) -> Callable:
    """Compile ``step``; where the compiler fails (no Python headers, say), go on without it."""
    torch._dynamo.config.recompile_limit = max(
        RECOMPILE_LIMIT, torch._dynamo.config.recompile_limit
    )
    if not torch.cuda.is_available():  # else it warns that CUDA's compiler has found no GPU
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    chosen = [torch.compile(step)]

    def run(*arguments):
        try:
            chosen[0](*arguments)
        except torch._dynamo.exc.BackendCompilerFailed as error:
            reason = str(error).splitlines()[0]
            warnings.warn(f"training without torch.compile (slower): {reason}", stacklevel=2)
            chosen[0] = step
            step(*arguments)

    return run
