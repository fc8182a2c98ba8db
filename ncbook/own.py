"""A reader's own class or function, named ``MODULE:NAME``.

MODULE is installed, or is a file ``MODULE.py`` in the folder where the work was started.
"""

import importlib
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from ncbook import text

MAIN = "__main__"
_folders: set[Path] = set()  # from which modules may be imported, next to Python's own
_sources: dict[str, bytes] = {}  # of the modules in these folders, as they were read last


def is_own(name: object) -> bool:
    """Whether it is the name of a reader's own class or function."""
    return ":" in str(name)


def in_folder(folder: str, function: Callable, *arguments: Any, **options: Any) -> Any:
    """Call a function where modules in this folder, too, can be imported."""
    _folders.add(Path(folder))
    if folder not in sys.path:
        sys.path.append(folder)
    return function(*arguments, **options)


def from_here(function: Callable) -> Callable:
    """The function, so that it finds the modules in this process's folder in other processes."""
    return partial(in_folder, os.getcwd(), function)


def load(name: str, what: str, kind: str) -> Any:
    """What MODULE has under this name, None if nothing; a file in this folder that has changed is
    read again.

    Args:
        name: ``MODULE:NAME``.
        what, kind: for messages: what it is, ``optimizer``, and of what kind, ``CLASS``.

    Raises:
        ValueError: the module cannot be imported.
    """
    module, _, attribute = name.partition(":")
    if module == MAIN:
        raise ValueError(
            f"{what} {name!r} cannot be imported by other processes: write the {kind.lower()} "
            f"to a file MODULE.py and name it MODULE:{kind}"
        )
    try:
        return getattr(in_folder(os.getcwd(), _imported, module), attribute, None)
    except (Exception, SystemExit) as error:  # a module may raise anything
        said = text.line(f"{type(error).__name__}: {error}")
        raise ValueError(
            f"{what} {name!r} cannot be imported ({said}); valid: MODULE:{kind}, where MODULE is "
            f"installed or {Path.cwd()} has a file MODULE.py"
        ) from None


def _imported(name: str) -> ModuleType:
    importlib.invalidate_caches()  # the file may be newer than Python's list of the folder
    module = importlib.import_module(name)
    file = getattr(module, "__file__", None)
    if file and Path(file).parent in _folders:
        source = Path(file).read_bytes()
        if _sources.get(name) != source:  # imported by someone else, perhaps before a change
            exec(compile(source, file, "exec"), vars(module))
            _sources[name] = source
    return module
