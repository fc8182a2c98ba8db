"""A user's network: built by name, with the weights of a checkpoint."""

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ncbook import models, own, paths, text
from ncbook.parameters import MODELS, check_whole

TORCHVISION = "torchvision:"
# Of ncbook's networks, those that take inputs.
NAMES = tuple(name for name in MODELS if name != "ufm")
VALID = f"{', '.join(NAMES)}, {TORCHVISION}NAME, MODULE:FUNCTION"
# Where a checkpoint may keep its state dict.
KEYS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "module")
COMPILED = "_orig_mod."  # torch.compile's, also in the middle of a name
STACK = "\nException raised from"  # where torch goes on with addresses
CODE = re.compile(r"Unsupported (?:global|class)\W+(?:GLOBAL )?([\w.]+)")  # torch.load's words


def load_model(
    name: str,
    checkpoint: str = "",
    num_classes: int | None = None,
    *,
    input_shape: Sequence[int] | None = None,
    width: float = 1.0,
    depth: int | None = None,
) -> nn.Module:
    """A network in evaluation mode, on the CPU.

    Args:
        name: ``torchvision:NAME``, a classifier of torchvision; one of ``NAMES``, of this package;
            or ``MODULE:FUNCTION``, what returns a module, in an installed MODULE or a file
            ``MODULE.py`` in this folder. It is called with ``num_classes`` if it takes that.
        checkpoint: file that ``torch.save`` or safetensors has written, of a state dict alone or in
            a dict, with or without wrappers' prefixes. Nothing in it is executed. Empty: none.
        num_classes: K. None: the builder's default.
        input_shape: of one input, for networks of this package and vision transformers.
        width, depth: of networks of this package, as for ``models.build``.

    Raises:
        ValueError: one line: an unknown name, a file that cannot be read, or names or shapes of
            parameters that are not the network's.

    Example:
        >>> load_model("torchvision:resnet18", num_classes=3).fc
        Linear(in_features=512, out_features=3, bias=True)
    """
    if num_classes is not None:
        check_whole("num_classes", num_classes, 1)
    if not isinstance(input_shape, Sequence | None):
        raise ValueError(f"input_shape must be sizes such as (3, 32, 32), got {input_shape!r}")
    build, theirs = find(name), name.startswith(TORCHVISION)
    given: dict[str, Any] = {}
    if num_classes and (theirs or "num_classes" in inspect.signature(build).parameters):
        given["num_classes"] = num_classes
    if name in NAMES:
        given |= dict(width=width, depth=depth, input_shape=input_shape)
    elif width != 1 or depth is not None:
        raise ValueError(f"width and depth are for {', '.join(NAMES)}, and not for {name!r}")
    elif name.startswith(f"{TORCHVISION}vit_") and input_shape:
        if len(input_shape) != 3 or input_shape[1] != input_shape[2]:
            raise ValueError(f"{name} takes square images, shape (C, H, H), got {input_shape}")
        given["image_size"] = input_shape[-1]
    model = _built(name, partial(build, **given))
    if checkpoint:
        state = _renamed(read_checkpoint(checkpoint), model.state_dict(), checkpoint)
        try:
            model.load_state_dict(state)
        except RuntimeError as error:
            why = text.line(error, 400)
            raise ValueError(f"checkpoint {checkpoint!r} is not of {name} ({why})") from None
    return model


def find(name: str) -> Callable[..., nn.Module]:
    """What builds a network. Raises ``ValueError`` for an unknown name; nothing is built."""
    if name in NAMES:
        return partial(models.build, name)
    if not own.is_own(name):
        raise ValueError(f"unknown model {name!r}; valid: {VALID}")
    found = own.load(name.replace(TORCHVISION, "torchvision.models:"), "model", "FUNCTION")
    if not callable(found):
        module, _, attribute = name.partition(":")
        raise ValueError(f"model {name!r}: {module} has no function or class {attribute!r}")
    return found


def _built(name: str, build: Callable[[], nn.Module]) -> nn.Module:
    try:
        model = build()
        if not isinstance(model, nn.Module):
            raise TypeError(f"it returns {type(model).__name__}, and no torch.nn.Module")
        return model.eval()
    except (Exception, SystemExit) as error:  # a reader's function may raise anything
        why = text.line(f"{type(error).__name__}: {error}".partition(STACK)[0])
        raise ValueError(f"model {name!r} cannot be built ({why})") from None


def read_checkpoint(path: str) -> dict[str, Tensor]:
    """The state dict in a file, on the CPU, its names as they are.

    Raises:
        ValueError: one line: no such file, not one of tensors, or one that would run code.
    """
    file = paths.expanded(path, "checkpoint")
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(file)
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and pickle raise all kinds of errors about foreign bytes
        code = CODE.search(str(error))
        why = text.line(f"{type(error).__name__}: {error}".partition(". ")[0], 200)
        why = f"to read {code[1]} would run code; save model.state_dict() alone" if code else why
        raise ValueError(
            f"checkpoint {path!r} cannot be read as a file of tensors ({why})"
        ) from None
    state = _state_in(content)
    if not state:
        there = text.line(list(content) if isinstance(content, Mapping) else type(content), 100)
        raise ValueError(
            f"checkpoint {path!r}: no state dict in it, but {there}; valid: model.state_dict(), "
            f"alone or in a dict under one of {', '.join(KEYS)}"
        )
    return state


def _state_in(content: Any) -> dict[str, Tensor]:
    """The state dict: the content itself, or below one of ``KEYS``."""
    content = content if isinstance(content, Mapping) else {}
    for key in KEYS:
        if isinstance(content.get(key), Mapping):
            return _state_in(content[key])
    named = {name: value for name, value in content.items() if isinstance(name, str)}
    return {name: value for name, value in named.items() if isinstance(value, Tensor)}


def _renamed(state: dict[str, Tensor], expected: dict[str, Tensor], path: str) -> dict[str, Tensor]:
    """The state without what wrappers put before its names: the one prefix with which all of the
    network's names are there. Tensors without it are of something else, such as a loss."""
    state = {name.replace(COMPILED, ""): tensor for name, tensor in state.items()}
    first = next(iter(expected), "")
    found = [name for name in state if f".{name}".endswith(f".{first}")]
    starts = [name.removesuffix(first) for name in found]
    whole = [start for start in starts if all(start + name in state for name in expected)]
    if "" in whole:
        return state
    if len(whole) > 1:
        these = ", ".join(repr(start) for start in whole)
        raise ValueError(f"checkpoint {path!r} has the network more than once, under {these}")
    start = (whole or starts or [""])[0]
    return {name.removeprefix(start): t for name, t in state.items() if name.startswith(start)}
