"""The options that commands share, as one table: a row is an option of all of them."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Annotated, Any

import typer

from ncbook.cli.lines import one_line_errors

Options = Mapping[str, Any]  # by the notebook's name of the parameter; None: not given


@dataclass(frozen=True)
class Option:
    """A parameter of the sweep notebook, as text; the notebook's reader makes sense of it.

    Args:
        help: for a line of 80 columns.
        metavar: what stands for the value; None: a flag, which has none.
        column: of the store, that holds it.
    """

    help: str
    metavar: str | None = "NUMBER"
    column: str | None = None


GRID = {
    "optimizer": Option(
        "sgd sgdw adam adamw signum signumw (all: these six), sgd_mixed adam_mixed signum_mixed",
        "LIST",
        "optimizer",
    ),
    "dataset": Option(
        "digits gaussians mnist fashion_mnist cifar10 folder:PATH imagenet:PATH", "LIST", "dataset"
    ),
    "model": Option("mlp resnet9 vgg9 vit resnet50", "LIST", "model"),
    "lrs": Option("learning rates", "LIST", "lr"),
    "momenta": Option("momenta (Adam: beta 1)", "LIST", "momentum"),
    "weight_decays": Option("weight decays", "LIST", "weight_decay"),
    "coupled_shares": Option("coupled part of it, 0 to 1 (_mixed only)", "LIST", "coupled_share"),
    "seeds": Option("seeds", "LIST", "seed"),
}
TRAINING = {
    "epochs": Option("epochs", column="epochs"),
    "batch_size": Option("samples a step", column="batch_size"),
    "train_size": Option("a class-balanced subset of so many", column="train_size"),
    "width": Option("factor on the layers' widths, 1/8 say", column="width"),
    "depth": Option("layers of an mlp, blocks of a vit", column="depth"),
    "precision": Option("float32, bfloat16 or float64", "NAME", "precision"),
    "schedule": Option("step, cosine or constant", "NAME", "schedule"),
    "clip": Option("largest norm of a gradient", column="clip"),
    "augment": Option("crop and flip the images at random", None, "augment"),
}
RESULTS = {"results": Option("the store; else NCBOOK_RESULTS, else ./results", "FOLDER")}
PLACE = RESULTS | {
    "workers": Option("processes; else one a core, or one a GPU"),
    "scheduler": Option("train on this Dask scheduler's workers", "ADDRESS"),
    "device": Option("cpu, cuda, cuda:1; else a GPU if there is one", "NAME"),
}
MEASURING = {
    "log_epochs": Option("epochs to measure at", "LIST"),
    "deterministic": Option("deterministic algorithms alone on a GPU", None),
}
PANELS = {"Grid": GRID, "Training": TRAINING, "Place": PLACE, "Measuring": MEASURING}


def takes(options: Mapping[str, Option]) -> Callable[[Callable], Callable]:
    """Give a command these options, as one mapping ``options``, beside its own."""

    def decorate(command: Callable) -> Callable:
        @wraps(command)
        def taking(**values: Any) -> Any:
            with one_line_errors():
                _check_filled(values)
            return command(options={name: values.pop(name) for name in options}, **values)

        signature = inspect.signature(command, eval_str=True)
        own = [p for p in signature.parameters.values() if p.name != "options"]
        shared = [_parameter(name, option) for name, option in options.items()]
        own = [p.replace(kind=p.KEYWORD_ONLY) for p in own]
        taking.__signature__ = signature.replace(parameters=[*shared, *own])
        return taking

    return decorate


def _check_filled(values: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` for an option without a value: an unset variable of a shell, say."""
    for name, value in values.items():
        if isinstance(value, str) and not value.strip(" ,[]()"):
            raise ValueError(f"{name} is empty: leave it out, or give it a value")


def _parameter(name: str, option: Option) -> inspect.Parameter:
    panel = next(panel for panel, options in PANELS.items() if name in options)
    declared = typer.Option(
        f"--{name.replace('_', '-')}",
        help=option.help,
        metavar=option.metavar or "",
        rich_help_panel=panel,
        show_default=False,
    )
    kind = bool if option.metavar is None else str
    annotation = Annotated[kind | None, declared]
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
    )


def listed(value: str | None) -> list[str]:
    """The items of a list with commas."""
    return [item.strip() for item in (value or "").split(",") if item.strip()]
