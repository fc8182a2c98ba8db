"""One execution of the sweep's notebook by papermill, which ends when this process does."""

import contextlib
import logging
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import papermill
import psutil
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

import ncbook

SOURCE = Path(ncbook.__file__).parents[1] / "notebooks" / "sweep.ipynb"
START_SECONDS = 300  # until a kernel counts as dead: a busy machine takes long to import torch
LOOK_SECONDS = 1.0  # between looks at what it has done
STOP_SECONDS = 5.0  # for a kernel to stop its chunks on the workers, before it is killed
LOGGERS = ("papermill", "traitlets", "asyncio")
HOPELESS = ("ParameterError", "ValueError")  # what a notebook would say again


@dataclass(frozen=True)
class Failure:
    """Why a notebook did not get to its end, in one line."""

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
    """Execute the sweep's notebook; whatever is raised meanwhile stops it.

    Args:
        parameters: the notebook's.
        output: where the executed notebook is kept.
        environment: variables that its kernel gets in addition to ours.
        while_it_runs: called every ``LOOK_SECONDS``.
    """
    for name in LOGGERS:  # their walls of text: what matters is said by us
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    execution = _Execution(parameters, output, environment)
    execution.start()
    try:
        while execution.is_alive():
            execution.join(LOOK_SECONDS)
            while_it_runs()
    except BaseException:
        execution.stop()
        raise
    return execution.failure


class _Execution(threading.Thread):
    """papermill, in a thread: so that Ctrl-C and the bars are not its business."""

    def __init__(
        self, parameters: Mapping[str, Any], output: Path, environment: Mapping[str, str]
    ) -> None:
        super().__init__(daemon=True)
        self.parameters, self.output = dict(parameters), output
        self.environment = os.environ | environment
        self.failure: Failure | None = None
        self.kernels: list[psutil.Process] = []
        self.over = False

    def run(self) -> None:
        try:
            papermill.execute_notebook(
                _literal(SOURCE),
                _literal(self.output),
                self.parameters,
                progress_bar=False,
                start_timeout=START_SECONDS,
                kernel_manager_class=_kernels_of(self),
            )
        except PapermillExecutionError as error:
            reason = f"{error.ename}: {error.evalue}"
            self.failure = Failure(reason, error.ename in HOPELESS)
        except DeadKernelError:
            self.failure = Failure("its kernel died (killed, or out of memory?)")
        except Exception as error:
            self.failure = Failure(f"{type(error).__name__}: {error}")

    def stop(self) -> None:
        """As Ctrl-C in a notebook does, so that its chunks stop, too; then by force."""
        self.over = True
        for number in (signal.SIGINT, signal.SIGKILL):
            for kernel in self.kernels:
                with contextlib.suppress(psutil.NoSuchProcess):
                    kernel.send_signal(number)
            self.join(STOP_SECONDS)


def _literal(path: Path) -> str:
    """For papermill, to which braces in a path are parameters."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _kernels_of(execution: _Execution) -> type[AsyncKernelManager]:
    """Kernels that an execution knows, and that say nothing on its terminal. They are of this
    Python, which has ncbook, whichever a kernelspec of the user's names."""

    class Kernel(AsyncKernelManager):
        kernel_spec = KernelSpec(**get_kernel_dict())

        async def start_kernel(self, **options: Any) -> None:
            if execution.over:
                raise RuntimeError("stopped")
            silent = dict.fromkeys(("stdout", "stderr"), subprocess.DEVNULL)
            options["env"] = execution.environment
            await super().start_kernel(**silent, **options)
            execution.kernels.append(psutil.Process(self.provisioner.pid))

    return Kernel
