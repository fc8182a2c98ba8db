"""The layers of any network: which ones to look at, and what comes out of them.

A *stage* is a weighted layer with what follows it in its ``nn.Sequential`` (norm, activation,
pooling), or a block of layers; one looks at the last module of it.
"""

import difflib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

TOKENS = ("mean", "class")
NAMED = 12  # layers that a message lists
NO_LINEAR = "this network has no Linear layer"
BULK = 0.5  # a module with a larger share of the parameters is more than one stage
# Where a layer keeps how many channels it puts out.
WIDTHS = ("out_features", "out_channels", "num_features", "num_channels", "embedding_dim")
WIDTHS += ("normalized_shape",)


def tensors(output: Any) -> list[Tensor]:
    """The tensors in an output: a tensor, or sequences and mappings of them; at least one, which
    may be empty."""
    found = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
    return found or [torch.empty(0)]


@contextmanager
def listening(
    model: nn.Module, names: Sequence[str], heard: Callable[[str, Tensor, Tensor], None]
) -> Iterator[None]:
    """Within the block, each of these modules that runs calls ``heard(name, input, output)``.

    Input and output are the first tensors of what it takes and gives; those of a recurrent layer
    have the samples first.
    """

    def hook(name: str, module: nn.Module, given: tuple, output: Any) -> None:
        first = tensors(output)[0]
        time_first = isinstance(module, nn.RNNBase) and not module.batch_first
        first = first.transpose(0, 1) if time_first and first.dim() == 3 else first
        heard(name, tensors(given)[0], first)

    with ExitStack() as hooks:
        for name in names:
            module = model.get_submodule(name)
            hooks.callback(module.register_forward_hook(partial(hook, name)).remove)
        yield


def find_head(model: nn.Module, run: Callable[[], Any]) -> str:
    """The name of the Linear layer whose output the network returns; or, where the network goes on
    (a softmax, say), the only one whose output has the shape of the network's.

    ``run`` passes a few samples through it, and returns its output. Raises ``ValueError`` where
    there is no such layer, or where there are several, with their names.
    """
    linear = _linear_layers(model)
    seen: dict[str, Tensor] = {}
    with listening(model, linear, lambda name, _, output: seen.update({name: output})):
        outputs = [t for t in tensors(run()) if t.dim() == 2]
    exact = [name for name, t in seen.items() if any(t is output for output in outputs)]
    shapes = [output.shape for output in outputs]
    found = exact or [name for name, t in seen.items() if t.shape in shapes]
    if len(found) == 1:
        return found[0]
    why = "several Linear layers may be" if found else "no Linear layer seems to be"
    some = ", ".join((found or linear)[-NAMED:]) or NO_LINEAR
    raise ValueError(f"{why} the last layer; name it by head=...: {some}")


def _linear_layers(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]


def check_layers(model: nn.Module, names: Sequence[str]) -> None:
    """Raise ``ValueError`` for a name that is no module's, with those that are close."""
    known = [name for name, _ in model.named_modules()]
    for name in names:
        if name not in known:
            named = [other for other in known if other]  # the network itself has no name
            close = difflib.get_close_matches(str(name), named, NAMED, 0.4) or named[-NAMED:]
            raise ValueError(f"unknown layer {name!r}; there are: {', '.join(close)}")


def check_head(model: nn.Module, name: str) -> None:
    """Raise ``ValueError`` for a last layer without a weight (K, p), with some linear layers."""
    layer = model.get_submodule(name)
    if getattr(getattr(layer, "weight", None), "ndim", None) != 2:
        some = ", ".join(_linear_layers(model)[-NAMED:]) or NO_LINEAR
        kind = type(layer).__name__
        raise ValueError(f"head {name!r} is a {kind}; it must be a linear layer: {some}")


def default_layers(model: nn.Module, head: str, run: Callable[[], Any]) -> list[str]:
    """The stages of a network before its last layer, in the order in which they end.

    A module with more than half of the network's parameters, and a plain container, is opened: so
    each block of a ResNet and of a transformer is a stage. One that does not run exactly once, or
    whose output does not have the samples first (or second), is left out, as is one at the end
    whose output is already the input of the last layer, ``head``. ``run`` is as of ``find_head``.
    """
    size = sum(parameter.numel() for parameter in model.parameters())
    stages = _stages(model, "", head, BULK * size)
    seen: list[tuple[str, Tensor]] = []
    ends: list[Tensor] = []

    def heard(name: str, given: Tensor, output: Tensor) -> None:
        if name == head:
            ends.append(given)
        elif not ends:  # what runs after the head is no layer before it
            seen.append((name, output))

    with listening(model, [*stages, head], heard):
        run()
    if not ends:
        raise ValueError(f"layer {head} does not run in a forward pass")
    names, kept = [name for name, _ in seen], {}
    for name, output in seen:
        with suppress(ValueError):
            kept[name] = pooled(name, output, len(ends[0]), channel_widths(model, name))
    order = [name for name in kept if names.count(name) == 1]
    last = kept[order[-1]] if order else torch.empty(0)
    if order and last.shape == ends[0].shape and torch.allclose(last, ends[0].to(last.dtype)):
        order.pop()
    return order


def _stages(module: nn.Module, prefix: str, head: str, bulk: float) -> list[str]:
    """The last modules of the stages inside a module, in the order of definition."""
    found: list[str] = []
    in_turn = isinstance(module, nn.Sequential)
    for part, child in module.named_children():
        name = f"{prefix}{part}"
        if name == head:
            if in_turn:
                break
            continue
        large = sum(parameter.numel() for parameter in child.parameters()) > bulk
        plain = isinstance(child, nn.Sequential) or type(child).forward is nn.Module.forward
        opened = (large or plain) and next(child.children(), None) is not None
        if opened or head.startswith(f"{name}."):
            found += _stages(child, f"{name}.", head, bulk)
        elif any(parameter.dim() > 1 for parameter in child.parameters()):
            found.append(name)
        elif in_turn and found:
            found[-1] = name
    return found


def channel_widths(model: nn.Module, layer: str) -> list[int]:
    """How many channels a layer may put out: what its weighted parts say, and the last one before
    it, the latest first."""
    own = [(f"{name}.", _own_width(module)) for name, module in model.named_modules()]
    within = [place for place, (name, _) in enumerate(own) if name.startswith(f"{layer}.")]
    before, inside = own[: within[0]], own[within[0] : within[-1] + 1]
    last = [width for _, width in before if width][-1:]
    return [width for _, width in inside[::-1] if width] + last


def _own_width(module: nn.Module) -> int | None:
    width = next((getattr(module, name) for name in WIDTHS if hasattr(module, name)), None)
    width = width[-1] if isinstance(width, tuple) else width  # of a LayerNorm
    return width if isinstance(width, int) else None


def pooled(
    layer: str,
    output: Tensor,
    samples: int,
    widths: Sequence[int] = (),
    tokens: str = "mean",
    second: bool = False,
) -> Tensor:
    """A layer's output (N, ...) as features (N, p), at least float32: all axes but samples and
    channels are averaged; of tokens (N, T, D) the first alone if ``tokens`` is ``class``.

    Channels are the second axis or the last: the one that is as long as the first of the ``widths``
    (see ``channel_widths``) that fits just one of them; in doubt, the second of images (N, C, H, W)
    and the last of tokens. Tokens come before samples, (T, N, D), if ``second``, or where only that
    fits. Raises ValueError for an output without samples or channels, or not of floating point.
    """
    if output.is_nested:  # of a transformer in evaluation mode, without its padding
        output = torch.stack([one[0] if tokens == "class" else one.mean(0) for one in output])
    shape = tuple(output.shape)
    if second or tokens_first(output, samples):
        output = output.transpose(0, 1)
    if output.dim() < 2 or len(output) != samples or not output.is_floating_point():
        given = f"{output.dtype} of shape {shape}"
        raise ValueError(f"layer {layer} puts out {given} for {samples} samples: leave it out")
    output = output.to(torch.promote_types(output.dtype, torch.float32))
    if output.dim() == 2:
        return output
    ends = {1: output.shape[1], -1: output.shape[-1]}
    fitting = ([axis for axis, size in ends.items() if size == width] for width in widths)
    axis = next((axes[0] for axes in fitting if len(axes) == 1), -1 if output.dim() == 3 else 1)
    if tokens == "class" and (output.dim(), axis) == (3, -1):
        return output[:, 0]
    return output.movedim(axis, 1).flatten(2).mean(2)


def tokens_first(output: Tensor, samples: int) -> bool:
    """Whether an output can only be (T, N, D)."""
    if output.is_nested or output.dim() != 3:
        return False
    return len(output) != samples == output.shape[1]
