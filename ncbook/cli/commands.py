"""The commands. What each needs is imported when it runs: ``--help`` needs no torch, which takes
seconds."""

import sys
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from ncbook import __version__
from ncbook.cli.options import OF_RUNS, Options, takes
from ncbook.cli.show import BAD_INPUT, STOPPED_SWEEP, say
from ncbook.parameters import BY_NAME, PLACE


class OneLineErrors(TyperGroup):
    """The commands. An unknown option or command is told in one line, as other bad input is."""

    def main(self, *arguments: Any, **options: Any) -> NoReturn:
        try:
            code = super().main(*arguments, **options | {"standalone_mode": False})
        except Exception as error:
            if not hasattr(error, "format_message"):
                raise
            if message := error.format_message():  # none where the help was asked for
                say(f"{message} (see ncbook --help)")
            code = BAD_INPUT
        sys.exit(code)


app = typer.Typer(
    cls=OneLineErrors,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Json = Annotated[bool, typer.Option("--json", help="for programs, alone on stdout", metavar="")]
Notebooks = Annotated[
    str | None,
    typer.Option(
        help="for executed ones [RESULTS/notebooks]", metavar="FOLDER", rich_help_panel=PLACE
    ),
]
Out = Annotated[str, typer.Argument(help="FOLDER/, or a path without its ending", metavar="OUT")]
Status = Annotated[str | None, typer.Option(help="ok, diverged, failed", metavar="LIST")]
Force = Annotated[bool, typer.Option("--force", help="replace files that are there", metavar="")]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ncbook {__version__}")
        raise typer.Exit


ONLY_VERSION = typer.Option("--version", help="show it", callback=_version, is_eager=True)


@app.callback()
def ncbook(version: Annotated[bool, ONLY_VERSION] = False) -> None:
    """Train grids of hyperparameters, and measure how far neural collapse goes in each run."""


@app.command()
@takes(BY_NAME, f"stopped; {STOPPED_SWEEP}")
def sweep(options: Options, notebooks: Notebooks = None, as_json: Json = False) -> None:
    """Train what the store lacks of a grid.

    One execution of notebooks/sweep.ipynb for each data set, model, optimizer and learning rate.
    LIST is one or several, with commas; whole numbers also as a range, `0-4`; `--optimizer all` is
    the first six. Exit code: 0 nothing is left to train, 1 something is, 2 bad input, 130 stopped.

    Example: `ncbook sweep --optimizer adam,adamw --momenta 0.9 --seeds 0-4`
    """
    from ncbook.cli import sweeping

    raise typer.Exit(0 if sweeping.train_blocks(options, notebooks, as_json) else 1)


@app.command()
@takes(BY_NAME)
def plan(options: Options, as_json: Json = False) -> None:
    """Say what `sweep` would train, and how long it would take.

    The options are those of `sweep`, but for `--notebooks`. A few steps are timed, on this device.
    Nothing is trained or written; a data set that is missing is downloaded.

    Example: `ncbook plan --optimizer all --seeds 0-4`
    """
    from ncbook.cli import sweeping

    sweeping.plan(options, as_json)


@app.command()
@takes((*OF_RUNS, "results"))
def status(options: Options, as_json: Json = False) -> None:
    """Say what is stored, and what is being trained now.

    With --optimizer, the options make a grid, as those of `sweep` do, and what is left of it is
    counted. Without, they choose among all runs.

    Example: `ncbook status --optimizer adam,adamw --seeds 0-4`
    """
    from ncbook.cli import stored

    stored.status(options, as_json)


@app.command()
@takes((*OF_RUNS, "results"))
def export(out: Out, options: Options, status: Status = None, force: Force = False) -> None:
    """Write chosen runs to one Parquet and one CSV file.

    A run is written if it passes all options. OUT is a folder, for runs.parquet and runs.csv in it;
    or a path, for OUT.parquet and OUT.csv. In the CSV an apostrophe stands before a text that a
    spreadsheet would compute.

    Example: `ncbook export adam --optimizer adam,adamw --momenta 0.9`
    """
    from ncbook.cli import stored

    stored.export(out, options, status, force)
