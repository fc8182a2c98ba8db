"""A reader's own optimizer, named ``MODULE:CLASS``: a class derived from ``torch.optim.Optimizer``.

``ncbook.own`` finds it. It is made as ``CLASS(params, lr=..., momentum=..., weight_decay=...)``.
Where it takes ``betas`` and no ``momentum``, the momentum is the first of them, and the others keep
their defaults. What it does with its weight decay, coupled or decoupled, is not known here.
"""

import hashlib
import inspect
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ncbook import own, text

SOURCE_DIGITS = 16  # hexadecimal, of a fingerprint
TRIED = ((3, 2), (3,))  # shapes of the parameters that a class is tried on


def load_class(name: str) -> type[torch.optim.Optimizer]:
    """The class of this name; a file in this folder that has changed is read again.

    Raises:
        ValueError: it cannot be imported, or is not derived from ``torch.optim.Optimizer``.
    """
    found = own.load(name, "optimizer", "CLASS")
    if not (isinstance(found, type) and issubclass(found, torch.optim.Optimizer)):
        raise ValueError(
            f"optimizer {name!r} is not a class derived from torch.optim.Optimizer"
            + (": {} has no {!r}".format(*name.split(":")) if found is None else "")
        )
    return found


def fingerprint(names: Iterable[str | None]) -> str | None:
    """A hash of the files that define the classes among these names, and their bases; None
    without such a class. So a changed file means other runs."""
    classes = [load_class(name) for name in names if name and own.is_own(name)]
    digest = hashlib.sha256(b"\0".join(_source(base) for one in classes for base in _bases(one)))
    return digest.hexdigest()[:SOURCE_DIGITS] if classes else None


def _bases(found: type) -> list[type]:
    """The class and those that it is derived from, without torch's."""
    return [base for base in found.__mro__ if base not in (torch.optim.Optimizer, object)]


@cache  # what the class was made from, whatever becomes of the file
def _source(found: type) -> bytes:
    file = getattr(sys.modules.get(found.__module__), "__file__", None)
    return Path(file).read_bytes() if file else b""


@cache
def _parameters(found: type) -> Mapping[str, inspect.Parameter]:
    """What the class's constructor takes, and those of its bases that it passes ``**kwargs`` to."""
    taken: dict[str, inspect.Parameter] = {}
    for base in _bases(found):
        own = inspect.signature(base.__init__).parameters
        taken = dict(own) | taken
        if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in own.values()):
            break
    return taken


def _default_betas(found: type) -> tuple:
    """The class's ``betas``; () if it takes none."""
    betas = _parameters(found).get("betas")
    return tuple(betas.default) if betas and isinstance(betas.default, tuple | list) else ()


def takes(name: str) -> set[str]:
    """Those of ``momentum`` (or ``betas`` with a default) and ``weight_decay`` that the class
    takes."""
    found = load_class(name)
    taken = {"momentum", "weight_decay"} & _parameters(found).keys()
    return taken | {"momentum"} if _default_betas(found) else taken


def build(
    name: str, params: Iterable[Any], lr: float, momentum: float, weight_decay: float
) -> torch.optim.Optimizer:
    """An instance of the class, for parameters or parameter groups.

    Raises:
        ValueError: the class takes no momentum or no weight decay, and one is given.
    """
    return load_class(name)(params, lr=lr, **_options(name, momentum, weight_decay))


def _options(name: str, momentum: float, weight_decay: float) -> dict[str, Any]:
    """What the class is made with, next to ``lr``."""
    found, taken = load_class(name), takes(name)
    options = {"momentum": momentum, "weight_decay": weight_decay}
    for number, value in options.items():
        if value and number not in taken:
            raise ValueError(f"{name} takes no {number}: {number} must be 0, got {value:g}")
    betas = _default_betas(found)
    if betas and "momentum" not in _parameters(found):
        options["betas"] = (momentum, *betas[1:])
    return {k: v for k, v in options.items() if k in _parameters(found)}


def check(name: str, lr: float, momentum: float, weight_decay: float) -> None:
    """Make one step with the class, on a matrix and a vector.

    Raises:
        ValueError: the class cannot be loaded, made with these numbers, or moved by ``step()``.
    """
    params = [nn.Parameter(torch.ones(shape)) for shape in TRIED]
    for param in params:
        param.grad = torch.linspace(-1, 1, param.numel()).view_as(param)
    found, options = load_class(name), _options(name, momentum, weight_decay)
    try:
        found(params, lr=lr, **options).step()
        for param, shape in zip(params, TRIED, strict=True):
            if (*param.shape,) != shape or param.dtype != torch.float32:
                raise ValueError("step() changes a parameter's shape or number format")
    except (Exception, SystemExit) as error:
        said = text.line(f"{type(error).__name__}: {error}")
        raise ValueError(
            f"{name} cannot train a matrix and a vector ({said}); valid: a class that is made as "
            "CLASS(params, lr=...) and moved by step()"
        ) from None
