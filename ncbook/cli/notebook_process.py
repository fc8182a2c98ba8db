"""A process that executes one notebook: told by one line of JSON on standard input, it answers with
one on standard output if that fails, and ends when its input does."""

import json
import logging
import os
import sys
import threading

import papermill
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from ncbook.cli.notebook import DIED

START_SECONDS = 300  # until a kernel counts as dead: a busy machine takes long to import torch
HOPELESS = ("ParameterError", "ValueError")  # what a notebook would say again


class Kernel(AsyncKernelManager):
    """A kernel of this Python, which has ncbook, whatever a kernelspec of the user's says."""

    kernel_spec = KernelSpec(**get_kernel_dict())


def main() -> None:
    """Execute the notebook."""
    request = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the kernel inherits it
    logging.disable()
    failure = None
    try:
        papermill.execute_notebook(
            _literal(request["source"]),
            _literal(request["output"]),
            request["parameters"],
            progress_bar=False,
            start_timeout=START_SECONDS,
            kernel_manager_class=Kernel,
        )
    except PapermillExecutionError as error:
        reason = f"{error.ename}: {error.evalue}"
        failure = {"reason": reason, "hopeless": error.ename in HOPELESS}
    except DeadKernelError:
        failure = {"reason": DIED}
    except Exception as error:
        failure = {"reason": f"{type(error).__name__}: {error}"}
    if failure:
        answers.write(json.dumps(failure))
        answers.close()


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)  # and the kernel with it


def _literal(path: str) -> str:
    """For papermill, to which braces in a path are parameters."""
    return path.replace("{", "{{").replace("}", "}}")


if __name__ == "__main__":
    main()
