"""The options that commands share, made from the table of parameters."""

import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import wraps
from typing import Annotated, Any

import typer

from ncbook.cli.show import one_line_errors, say
from ncbook.parameters import BY_NAME, FLAG, GRID, NAME, PLACE, SIX, TRAINING, Row, shown_names
from ncbook.paths import results_dir

Options = Mapping[str, Any]  # text or a flag, by the parameter's name; None: not given
NAMED = ("dataset", "model", "optimizer")  # the command line takes lists of these, too
ALL = "all"  # for an optimizer: the paper's six
OF_RUNS = tuple(name for name, row in BY_NAME.items() if row.group in (GRID, TRAINING))


def takes(names: Iterable[str], stopped: str = "stopped") -> Callable[[Callable], Callable]:
    """Give a command these parameters as options: one mapping ``options``, next to its own.

    Values are checked, and the store is named, before the command imports what takes seconds.
    Errors that a user can cause are one line and an exit code; so is Ctrl-C: ``stopped``.
    """

    def decorate(command: Callable) -> Callable:
        signature = inspect.signature(command, eval_str=True)
        arguments = [name for name, p in signature.parameters.items() if p.default is p.empty]

        @wraps(command)
        def taking(**values: Any) -> None:
            with one_line_errors(stopped):
                for name, value in values.items():  # such as an unset variable of a shell
                    if isinstance(value, str) and not value.strip(" ,[]()"):
                        without = ", or leave it out" * (name not in arguments)
                        raise ValueError(f"{name} is empty: give it a value{without}")
                options = {name: values.pop(name) for name in names}
                for name, value in options.items():
                    checked(name, value)
                folder = results_dir(options["results"]).absolute()
                if not folder.is_dir() and os.path.lexists(folder):
                    raise NotADirectoryError(f"the results folder {folder} is not a folder")
                say(f"reading the store {folder} ...")
                command(options=options, **values)

        own = [p for p in signature.parameters.values() if p.name != "options"]
        own = [p.replace(kind=p.KEYWORD_ONLY) for p in own]
        shared = [_declared(BY_NAME[name]) for name in names]
        taking.__signature__ = signature.replace(parameters=[*shared, *own])
        return taking

    return decorate


def _declared(row: Row) -> inspect.Parameter:
    names = " ".join(shown_names(row))
    listed = row.many or row.name in NAMED
    metavar = "LIST" if listed else "NAME" if row.kind == NAME else "NUMBER"
    usual = "" if row.kind == FLAG else f" [{row.usual}]"
    option = typer.Option(
        f"--{row.name.replace('_', '-')}",
        help=": ".join(filter(None, (row.help.replace("`", ""), names))) + usual,
        metavar="" if row.kind == FLAG else row.metavar or metavar,
        rich_help_panel=row.group,
        show_default=False,
    )
    annotation = Annotated[(bool if row.kind == FLAG else str) | None, option]
    return inspect.Parameter(
        row.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
    )


def checked(name: str, value: Any) -> tuple:
    """The values in an option; ``ValueError``, which names it, for one that is not valid."""
    row = replace(BY_NAME[name], field=name)
    if row.kind != NAME:
        return row.read_all(value)
    names = listed(value) if row.group != PLACE else [value]
    names = [one for n in names for one in (SIX if (name, n) == ("optimizer", ALL) else [n])]
    for one in names:
        row.check(one)
    return tuple(dict.fromkeys(names))


def listed(value: str | None) -> list[str]:
    """The items of a list with commas."""
    return [item.strip() for item in (value or "").split(",") if item.strip()]
