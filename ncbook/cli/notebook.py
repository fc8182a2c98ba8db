"""One execution of the sweep's notebook, in a process that ends when this one does.

The process, which runs this module, is told what to execute by one line of JSON on its standard
input; if that fails, it says why on its standard output.
"""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

import ncbook

SOURCE = Path(ncbook.__file__).parents[1] / "notebooks" / "sweep.ipynb"
STOP_SECONDS = 5.0  # for a kernel to stop its chunks on the workers, before it is killed
START_SECONDS = 300  # until a kernel counts as dead: a busy machine takes long to import torch
DIED = "its kernel died (killed, or out of memory?)"
HOPELESS = ("ParameterError:", "ValueError:")  # what a notebook would say again


def execute(
    parameters: Mapping[str, Any],
    output: Path,
    environment: Mapping[str, str],
    while_it_runs: Callable[[], None],
) -> str | None:
    """Execute the sweep's notebook, with more variables in its kernel's environment, and keep it in
    ``output`` once it has ended; why it did not get to its end, if so. An exception of
    ``while_it_runs``, called each second, stops it, and nothing is kept."""
    unfinished = output.with_name(f".{output.name}")
    with subprocess.Popen(
        [sys.executable, "-m", "ncbook.cli.notebook"],
        env=os.environ | environment,
        stdin=subprocess.PIPE,  # open as long as we live
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,  # Ctrl-C is for us alone
    ) as process:
        try:
            process.stdin.write(f"{json.dumps([str(unfinished), dict(parameters)])}\n")
            process.stdin.flush()
            while process.poll() is None:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(1.0)
                while_it_runs()
        except BaseException:
            _stop(process)
            unfinished.unlink(missing_ok=True)
            raise
        answer = process.stdout.read()
    if unfinished.exists():
        unfinished.replace(output)
    return answer or (DIED if process.returncode else None)


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


def main() -> None:
    """Execute the notebook that standard input asks for."""
    output, parameters = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", errors="backslashreplace")
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the kernel inherits it
    logging.disable()
    answers.write(_failure_of(output, parameters))
    answers.close()


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)  # and the kernel with it


def _failure_of(output: str, parameters: dict[str, Any]) -> str:
    import papermill
    from nbclient.exceptions import DeadKernelError

    try:
        papermill.execute_notebook(
            # To papermill, braces in a path are parameters.
            *(str(path).replace("{", "{{").replace("}", "}}") for path in (SOURCE, output)),
            parameters,
            progress_bar=False,
            start_timeout=START_SECONDS,
            kernel_manager_class=kernel_class(),
        )
    except papermill.PapermillExecutionError as error:
        return f"{error.ename}: {error.evalue}"
    except DeadKernelError:
        return DIED
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def kernel_class() -> type:
    """A kernel of this Python, which has ncbook, whatever a kernelspec of the user's says."""
    from ipykernel.kernelspec import get_kernel_dict
    from jupyter_client import AsyncKernelManager
    from jupyter_client.kernelspec import KernelSpec

    class Kernel(AsyncKernelManager):
        kernel_spec = KernelSpec(**get_kernel_dict())

    return Kernel


if __name__ == "__main__":
    main()
