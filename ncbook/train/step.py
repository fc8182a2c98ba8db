"""The members' tensors, and the one step that moves all of them by one minibatch."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from ncbook import models, optim, private

Named = Mapping[str, Tensor]
# Without a GPU these warn that they have found none, or no compiler for one.
UNWANTED = ("torch.utils.cpp_extension", "torch.utils.flop_counter")
UNCOMPILED = "training without torch.compile (slower)"
CACHE = "TORCHINDUCTOR_CACHE_DIR"
PROBE_BYTES = 2**20  # more than what one step's code takes
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
        params = {k: _copies(p, count) for k, p in net.named_parameters()}
        buffers = {k: _copies(b, count) for k, b in net.named_buffers()}
        return cls(params, buffers, optim.init_state(direction, params))

    def __len__(self) -> int:
        return len(self.params["fc.weight"])

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


def _copies(tensor: Tensor, count: int) -> Tensor:
    """(count, ...); of a convolution's weight each copy lies channels last, as its images do."""
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
    """One member's mean cross-entropy; batch norm's new statistics come back beside it."""

    def loss(params, buffers, x, y):
        with torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            features = features_of(net, params, buffers, x)
        fc = part(params, "fc.")
        # W always in its own precision: the exact law of NC0 is about the last layer.
        logits = nn.functional.linear(features.to(fc["weight"].dtype), **fc)
        return nn.functional.cross_entropy(logits, y), buffers

    return loss


def make_step(
    net: models.Classifier,
    direction: str,
    precision: str,
    *,
    together: bool,
    compiled: bool,
    clip: float | None = None,
) -> Callable:
    """``step(params, buffers, state, x, y, factors)``: one minibatch for all members, in place.

    ``factors`` is (7, M), the rows of ``optim.Factors``. ``together`` batches the members by vmap;
    otherwise they take their steps one after another. Both do the same arithmetic.
    """
    loss, mask = minibatch_loss(net, precision), models.decayed(net)
    make = _together if together else _one_after_another
    return make(loss, direction, mask, clip, compiled)


def _together(loss, direction: str, mask: Mapping[str, bool], clip, compiled: bool) -> Callable:
    gradients = vmap(grad(loss, has_aux=True), (0, 0, None, None))

    def step(params, buffers, state, x, y, factors):
        grads, seen = gradients(params, buffers, x, y)
        for name, buffer in buffers.items():
            buffer.copy_(seen[name])
        if clip:
            grads = vmap(lambda one: optim.clipped(one, clip))(grads)
        optim.update(direction, params, grads, state, optim.Factors(*factors.unbind()), mask)

    return compile_or_warn(step) if compiled else step


def _one_after_another(
    loss, direction: str, mask: Mapping[str, bool], clip, compiled: bool
) -> Callable:
    """On a CPU only the update is compiled, which takes it from 3-15 % of a full ResNet9's step to
    under 1 %; its convolutions are the same library calls either way, and compiling the passes
    gained nothing that could be measured. On a GPU both are."""

    def move(params, grads, state, row):
        grads = optim.clipped(grads, clip) if clip else grads
        optim.update(direction, params, grads, state, optim.Factors(*row.unbind()), mask)

    move = compile_or_warn(move) if compiled else move
    forward = compile_or_warn(loss) if compiled and torch.cuda.is_available() else loss

    def step(params, buffers, state, x, y, factors):
        for i in range(factors.shape[1]):
            own = member(params, i)
            leaves = {k: p.detach().requires_grad_() for k, p in own.items()}
            with torch.enable_grad():
                value, _ = forward(leaves, member(buffers, i), x, y)
                grads = torch.autograd.grad(value, list(leaves.values()))
            slots = {k: tuple(slot[i] for slot in slots) for k, slots in state.items()}
            move(own, dict(zip(own, grads, strict=True)), slots, factors[:, i])

    return step


class UncompiledWarning(UserWarning):
    """torch.compile lacks something that it needs."""


def prepare_cache() -> Path:
    """The folder for what torch compiles, which it needs even where nothing is compiled.

    It runs what it finds there. So where the user names none it is one that nobody else can write
    in, as torch's own default may be.
    """
    named = os.environ.get(CACHE)
    if named:
        try:
            Path(named).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=named):
                return Path(named)
        except OSError as error:
            unusable = f"{CACHE}={named} cannot be written ({error.strerror})"
    folder = private.folder("compiled")
    os.environ[CACHE] = str(folder)
    if named:
        warnings.warn(f"{unusable}: {folder} is used instead", UncompiledWarning, stacklevel=1)
    return folder


def can_compile(device: str) -> bool:
    """Whether torch.compile has what it needs; a warning says what it lacks."""
    lacks = (_no_compiler() if device == "cpu" else None) or _no_room()
    if lacks:
        warnings.warn(f"{UNCOMPILED}: {lacks}", UncompiledWarning, stacklevel=1)
    return lacks is None


@cache
def _no_compiler() -> str | None:
    compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    try:
        subprocess.run([compiler, "--version"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return f"no working C++ compiler {compiler!r}; CXX names another"
    return None


def _no_room() -> str | None:
    folder = prepare_cache()
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(PROBE_BYTES))
    except OSError as error:
        return f"{CACHE}={folder} cannot be written ({error.strerror})"
    return None


def compile_or_warn(function: Callable) -> Callable:
    """Compile; where the compiler fails (no Python headers, no disk left), go on without it."""
    if not torch.cuda.is_available():
        # The compiler for GPUs: where it is installed, torch imports and hashes all of it, 1.7 s.
        sys.modules.setdefault("triton", None)
        for name in UNWANTED:
            logging.getLogger(name).setLevel(logging.ERROR)
    torch._dynamo.config.recompile_limit = max(
        RECOMPILE_LIMIT, torch._dynamo.config.recompile_limit
    )
    chosen = [torch.compile(function)]

    def run(*arguments):
        try:
            return chosen[0](*arguments)
        except (torch._dynamo.exc.TorchDynamoException, OSError) as error:  # before the first step
            reason = str(error).partition("\n")[0]
            warnings.warn(f"{UNCOMPILED}: {reason}", stacklevel=2)
            chosen[0] = function
            return function(*arguments)

    return run
