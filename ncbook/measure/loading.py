"""A user's network: built by name, with the weights of a checkpoint."""

import difflib
import inspect
import pickle
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import accumulate, takewhile
from typing import Any

import torch
from torch import Tensor, nn

from ncbook import models, own, paths, text
from ncbook.parameters import MODELS

TORCHVISION = "torchvision:"
# Of ncbook's networks, those that take inputs.
NAMES = tuple(name for name in MODELS if name != "ufm")
VALID = f"{', '.join(NAMES)}, {TORCHVISION}NAME, MODULE:FUNCTION"
# Where a checkpoint may keep its state dict, and what wrappers put before the names in it.
KEYS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "module")
WRAPPERS = ("module", "model", "net", "network")
COMPILED = "_orig_mod."  # torch.compile's, also in the middle of a name
UNUSED = "num_batches_tracked"  # older checkpoints lack it, and evaluation does not read it
SHOWN = 3  # names in a message

State = Mapping[str, Tensor]


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
            or ``MODULE:FUNCTION``, a function or class of the reader that returns a module, in an
            installed module or in a file ``MODULE.py`` in this folder. It is called without
            arguments, but for ``num_classes`` if it takes that.
        checkpoint: file that ``torch.save`` or safetensors has written, of a state dict alone or in
            a dict, with or without the prefixes of ``DataParallel``, ``torch.compile`` and
            Lightning. Nothing in it is executed. Empty: random weights.
        num_classes: K; that of the checkpoint, if it has another. None: the builder's default.
        input_shape: of one input, for networks of this package and vision transformers.
        width, depth: of networks of this package, as for ``models.build``.

    Raises:
        ValueError: one line: an unknown name, a file that cannot be read, or names or shapes of
            parameters that are not the network's.

    Example:
        >>> load_model("torchvision:resnet18", num_classes=3).fc
        Linear(in_features=512, out_features=3, bias=True)
    """
    state = read_checkpoint(checkpoint) if checkpoint else None
    build = _builder(name, state, input_shape, width, depth)
    model = build(num_classes)
    if state is not None:
        state = _renamed(state, model.state_dict())
        classes = _other_classes(state, model.state_dict())
        model = build(classes) if classes else model
        _check_names(checkpoint, name, state, model.state_dict())
        _check_shapes(checkpoint, name, state, model.state_dict())
        model.load_state_dict(state, strict=False)  # what may lack was checked
    return model.eval()


# ------------------------------------------------------------ networks


def check_model(name: str) -> None:
    """Raise ``ValueError`` for a name that ``load_model`` does not know; nothing is built."""
    if name.startswith(TORCHVISION):
        _check_torchvision(name)
    elif own.is_own(name):
        _function(name)
    elif name not in NAMES:
        raise ValueError(f"unknown model {name!r}; valid: {VALID}")


def _builder(
    name: str,
    state: State | None,
    input_shape: Sequence[int] | None,
    width: float,
    depth: int | None,
) -> Callable[[int | None], nn.Module]:
    """A function from K, or None for the default, to a network."""
    check_model(name)
    if own.is_own(name) and (width != 1 or depth is not None):
        raise ValueError(f"width and depth are for {', '.join(NAMES)}, and not for {name!r}")
    if name.startswith(TORCHVISION):
        return partial(_torchvision, name, input_shape)
    if own.is_own(name):
        return partial(_own, name)
    shape = None if input_shape is None else _with_channels(input_shape, state)
    shape = dict(width=width, depth=depth, input_shape=shape)
    return lambda classes: models.build(name, 10 if classes is None else classes, **shape)


def _with_channels(shape: Sequence[int], state: State | None) -> tuple[int, ...]:
    """The shape of images with the channels that the checkpoint's first convolution takes."""
    kernels = [tensor for tensor in (state or {}).values() if tensor.ndim == 4]
    channels = kernels[0].shape[1] if kernels else shape[0]
    return (channels, *shape[1:])


def _check_torchvision(name: str) -> None:
    from torchvision import models as theirs  # half a second

    wanted, known = name.removeprefix(TORCHVISION), theirs.list_models(module=theirs)
    if wanted not in known:
        close = difflib.get_close_matches(wanted, known, n=SHOWN) or known[:SHOWN]
        raise ValueError(
            f"unknown model {name!r}; valid: {TORCHVISION}NAME with one of torchvision's "
            f"{len(known)} classifiers, such as {', '.join(close)}"
        )


def _torchvision(name: str, shape: Sequence[int] | None, classes: int | None) -> nn.Module:
    from torchvision.models import get_model

    wanted = name.removeprefix(TORCHVISION)
    given: dict[str, Any] = {} if classes is None else {"num_classes": classes}
    if wanted.startswith("vit_") and shape is not None:
        given["image_size"] = shape[-1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of some: that their random weights will change one day
        return _called(partial(get_model, wanted, weights=None, **given), name)


def _function(name: str) -> Callable:
    function = own.load(name, "model", "FUNCTION")
    if not callable(function):
        there = "nothing" if function is None else type(function).__name__
        raise ValueError(f"model {name!r} must be a function or a class, and is {there}")
    return function


def _own(name: str, classes: int | None) -> nn.Module:
    function = _function(name)
    takes = classes is not None and "num_classes" in inspect.signature(function).parameters
    model = _called(partial(function, **({"num_classes": classes} if takes else {})), name)
    if not isinstance(model, nn.Module):
        raise ValueError(f"model {name!r} must return an nn.Module, got {type(model).__name__}")
    return model


def _called(function: Callable[[], Any], name: str) -> Any:
    try:
        return function()
    except (Exception, SystemExit) as error:  # a reader's function may raise anything
        raise ValueError(f"model {name!r} cannot be built ({_said(error)})") from None


def _said(error: BaseException) -> str:
    return text.line(f"{type(error).__name__}: {error}")


# ------------------------------------------------------------ checkpoints


def read_checkpoint(path: str) -> dict[str, Tensor]:
    """The state dict in a file, on the CPU, its names as they are.

    Raises:
        ValueError: one line: no such file, not one of tensors, or one that would run code.
    """
    file = paths.expanded(path, "checkpoint")
    if not file.is_file():
        raise ValueError(f"checkpoint {path!r}: {'a folder' if file.is_dir() else 'no such file'}")
    read = _read_safetensors if file.suffix == ".safetensors" else _read_torch
    try:
        content = read(file)
    except Exception as error:  # torch and pickle raise all kinds of errors about foreign bytes
        raise ValueError(f"checkpoint {path!r}: {_reason(error)}") from None
    return _state_in(content, path)


def _read_torch(file: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a file is of TorchScript, which an error says, too
        return torch.load(file, map_location="cpu", weights_only=True)


def _read_safetensors(file: Any) -> Any:
    from safetensors.torch import load_file

    return load_file(file)


def _reason(error: Exception) -> str:
    if isinstance(error, ImportError):
        return "reading it needs the package safetensors (pip install safetensors)"
    code = re.search(r"Unsupported (?:global|class)\W+(?:GLOBAL )?([\w.]+)", str(error))
    if isinstance(error, pickle.UnpicklingError) and code:
        return (
            f"it has more than tensors in it ({code[1]}), and to read that would run code; save "
            "the weights alone: torch.save(model.state_dict(), ...)"
        )
    if "TorchScript" in str(error):
        return "a TorchScript program; save the weights: torch.save(model.state_dict(), ...)"
    first = text.line(str(error).partition(". ")[0].partition("\n")[0], 200)
    return f"not a file of tensors that torch.save has written ({first or type(error).__name__})"


def _state_in(content: Any, path: str) -> dict[str, Tensor]:
    """The state dict: the content itself, or below one of ``KEYS``."""
    if isinstance(content, Mapping):
        for key in KEYS:
            if isinstance(content.get(key), Mapping):
                return _state_in(content[key], path)
        state = {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, Tensor)}
        if state:
            return state
    what = (
        f"a dict of {_listed(content)}" if isinstance(content, Mapping) else type(content).__name__
    )
    raise ValueError(
        f"checkpoint {path!r}: no state dict in it, but {what}; valid: model.state_dict(), alone "
        f"or in a dict under one of {', '.join(KEYS)}"
    )


def _listed(names: Any) -> str:
    shown = ", ".join(text.line(name, text.NAME) for name in [*names][:SHOWN])
    return shown + (", ..." if len(names) > SHOWN else "") if names else "nothing"


def _renamed(state: State, expected: State) -> dict[str, Tensor]:
    """The state without the prefix that a wrapper put before its names: the one that lets most of
    them be the network's. Tensors without that prefix are of something else, such as a loss."""
    plain = {name.replace(COMPILED, ""): tensor for name, tensor in state.items()}
    starts = sorted({start for name in plain for start in _starts(name)})
    return max(
        (_without(start, plain) for start in starts),
        key=lambda named: len(named.keys() & expected.keys()),
    )


def _starts(name: str) -> Iterator[str]:
    """ "", "module.", "module.model.", ... of a name that begins so."""
    wrappers = takewhile(WRAPPERS.__contains__, name.split("."))
    return accumulate((f"{wrapper}." for wrapper in wrappers), initial="")


def _without(start: str, state: State) -> dict[str, Tensor]:
    return {k.removeprefix(start): v for k, v in state.items() if k.startswith(start)}


def _other_classes(state: State, expected: State) -> int | None:
    """K of the checkpoint if the network differs from it in that alone; else None."""
    pairs = [(state[k].shape, expected[k].shape) for k in state.keys() & expected.keys()]
    pairs = [(theirs, ours) for theirs, ours in pairs if theirs != ours]
    first = {(theirs[:1], ours[:1]) for theirs, ours in pairs}
    same = all(theirs[1:] == ours[1:] for theirs, ours in pairs)
    return first.pop()[0][0] if len(first) == 1 and same and all(map(all, first)) else None


def _check_names(path: str, name: str, state: State, expected: State) -> None:
    missing = [key for key in expected if key not in state and not key.endswith(UNUSED)]
    unexpected = [key for key in state if key not in expected]
    parts = [
        f"{len(names)} {how} ({_listed(names)})"
        for names, how in ((missing, "missing"), (unexpected, "unexpected"))
        if names
    ]
    if parts:
        raise ValueError(
            f"checkpoint {path!r} is not of {name}: of {len(expected)} names {' and '.join(parts)}"
        )


def _check_shapes(path: str, name: str, state: State, expected: State) -> None:
    for key, tensor in state.items():
        theirs, ours = tuple(tensor.shape), tuple(expected[key].shape)
        if theirs != ours:
            raise ValueError(
                f"checkpoint {path!r} is not of {name}: {key} is {theirs} in the file and {ours} "
                "in the network"
            )
