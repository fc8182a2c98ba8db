"""One execution of the sweep's notebook, in a process that ends when this one does."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

import ncbook

SOURCE = Path(ncbook.__file__).parents[1] / "notebooks" / "sweep.ipynb"
PROGRAM = "ncbook.cli.notebook_process"
LOOK_SECONDS = 1.0  # between looks at what it has done
STOP_SECONDS = 5.0  # for a kernel to stop its chunks on the workers, before it is killed
DIED = "its kernel died (killed, or out of memory?)"


@dataclass(frozen=True)
class Failure:
    """Why a notebook did not get to its end, in one line; and whether it would say so again."""

    reason: str
    hopeless: bool = False


def check_source() -> None:
    """Raise ``FileNotFoundError`` unless the notebook is there: the package alone lacks it."""
    if not SOURCE.is_file():
        raise FileNotFoundError(
            f"no notebook {SOURCE}: ncbook must be installed from its folder, pip install -e ."
        )


def execute(
    parameters: Mapping[str, Any],
    output: Path,
    environment: Mapping[str, str],
    while_it_runs: Callable[[], None],
) -> Failure | None:
    """Execute the sweep's notebook; an exception in the meantime stops it.

    Args:
        parameters: the notebook's.
        output: where the executed notebook is kept.
        environment: variables for its kernel, in addition to ours.
        while_it_runs: called every ``LOOK_SECONDS``.
    """
    request = {"source": str(SOURCE), "output": str(output), "parameters": dict(parameters)}
    with subprocess.Popen(
        [sys.executable, "-m", PROGRAM],
        env=os.environ | environment,
        stdin=subprocess.PIPE,  # open as long as we live
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,  # Ctrl-C is for us alone
    ) as process:
        try:
            process.stdin.write(f"{json.dumps(request)}\n")
            process.stdin.flush()
            while process.poll() is None:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(LOOK_SECONDS)
                while_it_runs()
        except BaseException:
            _stop(process)
            raise
        answer = process.stdout.read()
    if answer:
        return Failure(**json.loads(answer))
    return Failure(DIED) if process.returncode else None


def _stop(process: subprocess.Popen) -> None:
    """Interrupt the kernel, as Ctrl-C in a notebook does, so that its chunks stop, too; then kill
    all processes."""
    for number in (signal.SIGINT, signal.SIGKILL):
        with suppress(psutil.NoSuchProcess):
            family = psutil.Process(process.pid).children(recursive=True)
            for member in family:
                with suppress(psutil.NoSuchProcess):
                    member.send_signal(number)
            psutil.wait_procs(family, STOP_SECONDS)
    process.kill()
