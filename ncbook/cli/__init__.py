"""The command line: ``ncbook sweep``, ``plan``, ``status`` and ``export``.

Each command is a thin shell around a module of its own, which is imported when the command runs:
torch takes seconds, and ``--help`` needs none of it.

``options``: what can be asked. ``blocks``: what was asked, checked. ``notebook``: one execution by
papermill. ``sweeping``, ``planning``, ``standing``, ``exporting``: the commands. ``show``: tables
and bars.
"""

import signal
from typing import Annotated

import typer

from ncbook import __version__
from ncbook.cli.lines import INTERRUPTED, one_line_errors
from ncbook.cli.options import GRID, MEASURING, PLACE, RESULTS, TRAINING, Options, takes

STOPPED_SWEEP = "stopped; all that ended is stored, and the same command goes on from there"

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Json = Annotated[
    bool, typer.Option("--json", help="answer for programs, alone on stdout", metavar="")
]
Notebooks = Annotated[
    str | None,
    typer.Option(
        help="for executed ones; else RESULTS/notebooks",
        metavar="FOLDER",
        rich_help_panel="Place",
        show_default=False,
    ),
]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ncbook {__version__}")
        raise typer.Exit


@app.callback()
def ncbook(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Show the version and exit.",
            metavar="",
            callback=_version,
            is_eager=True,
        ),
    ] = False,
) -> None:
    """Train grids of hyperparameters, and measure how far neural collapse goes in each run."""


@app.command()
@takes(GRID | TRAINING | PLACE | MEASURING)
def sweep(options: Options, notebooks: Notebooks = None, as_json: Json = False) -> None:
    """Train what the store lacks of a grid.

    One execution of notebooks/sweep.ipynb for each data set, model, optimizer and learning rate.
    LIST is one or several, with commas. By default: adamw, digits, mlp, and the paper's values.

    Exit code: 0 all done, 1 a notebook failed, 2 bad input, 130 stopped.
    """
    with one_line_errors(STOPPED_SWEEP):
        from ncbook.cli import sweeping

        complete = sweeping.train_blocks(options, notebooks, as_json)
    raise typer.Exit(0 if complete else 1)


@app.command()
@takes(GRID | TRAINING | PLACE | MEASURING)
def plan(options: Options, as_json: Json = False) -> None:
    """Say what `sweep` would train, and how long it would take.

    The options are those of `sweep`. A few steps are timed, on this device. Nothing is trained or
    written; a data set that is missing is downloaded.
    """
    with one_line_errors():
        from ncbook.cli import planning

        planning.plan(options, as_json)


@app.command()
@takes(GRID | TRAINING | RESULTS)
def status(options: Options, as_json: Json = False) -> None:
    """Say what is stored, and what is being trained now.

    With --optimizer, the options make a grid, as those of `sweep` do, and what is left of it is
    counted. Without, they choose among all runs.
    """
    with one_line_errors():
        from ncbook.cli import standing

        standing.status(options, as_json)


@app.command()
@takes(GRID | TRAINING | RESULTS)
def export(
    out: Annotated[
        str, typer.Argument(help="FOLDER/, or a path without its ending", metavar="OUT")
    ],
    options: Options,
    status: Annotated[
        str | None, typer.Option(help="ok, diverged, failed", metavar="LIST", show_default=False)
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="replace files that are there", metavar="")
    ] = False,
) -> None:
    """Write chosen runs to one Parquet and one CSV file.

    A run is written if it passes all options. OUT is a folder, for runs.parquet and runs.csv in it;
    or a path, for OUT.parquet and OUT.csv. In the CSV an apostrophe stands before a text that a
    spreadsheet would compute.
    """
    with one_line_errors():
        from ncbook.cli import exporting

        exporting.export(out, options, status, force)


def main() -> None:
    """The program ``ncbook``."""
    try:
        app(prog_name="ncbook")
    except SystemExit as end:
        if end.code == INTERRUPTED:  # another Ctrl-C must not spoil the end
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise
