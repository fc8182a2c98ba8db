"""A SLURM of one's own on this machine, for what has to run on SLURM: one controller, one node.

    apt-get install -y slurm-wlm munge
    python tests/slurm.py               # until Ctrl-C; prints the line that lets a shell use it

Configuration, munge's key, sockets, states and logs lie in one new folder, which goes with it. All
daemons belong to the user who starts it, root or not, and listen on free ports of 127.0.0.1 alone.
A SLURM that the machine has already is neither asked nor touched: the commands are told by
``SLURM_CONF`` which one is meant.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scancel", "sinfo", "squeue", "setpriv")
INSTALL = "apt-get install -y slurm-wlm munge"
SBIN = ("/usr/sbin", "/usr/local/sbin")  # not on everybody's path
VARIABLES = ("SLURM", "SBATCH", "SCANCEL", "SINFO", "SQUEUE")  # settings of another SLURM
LOCAL_HOST = "127.0.0.1"
SECONDS = 600  # until it counts as hung, on a busy machine
KEY_BYTES = 1024  # of munge's key, as its own tool makes it
LOG_LINES = 20

# ``config_overrides``: the node is what is said here, whatever the machine has. Memory is never
# counted (CR_Core), but a job that asks for more than the node's is refused.
CONFIGURATION = """\
ClusterName=ncbook
SlurmctldHost={host}({address})
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={controller_port}
SlurmdPort={node_port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
MpiDefault=none
ReturnToService=2
NodeName={host} NodeAddr={address} CPUs={cpus} RealMemory=1000000 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> list[str]:
    """The programs of SLURM and munge that this machine lacks."""
    return [name for name in PROGRAMS if not shutil.which(name, path=_environment()["PATH"])]


@dataclass(frozen=True)
class Slurm:
    """One that is running."""

    folder: Path
    environment: Mapping[str, str]  # for whoever is to use it

    def __call__(self, *command: str) -> str:
        """What one of its commands prints."""
        options = dict(env=self.environment, capture_output=True, text=True, timeout=SECONDS)
        done = subprocess.run(command, **options)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout

    def processes(self) -> list[psutil.Process]:
        """Its daemons, and all that its jobs have started."""
        conf, found = self.environment["SLURM_CONF"], []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("SLURM_CONF") == conf and process.pid != os.getpid():
                    found.append(process)
        return found


@contextlib.contextmanager
def running(cpus: int = 2) -> Iterator[Slurm]:
    """A SLURM with one idle node of so many CPUs; all its jobs and daemons end with the block.

    Raises:
        RuntimeError: it does not come up; with the end of its logs.
    """
    with tempfile.TemporaryDirectory(prefix="slurm-") as name:
        slurm = Slurm(Path(name), _environment() | {"SLURM_CONF": f"{name}/slurm.conf"})
        _configure(slurm.folder, cpus)
        with contextlib.ExitStack() as stack:
            for command in _daemons(slurm.folder):
                stack.enter_context(_daemon(command, slurm))
            _wait(lambda: slurm("sinfo", "-h", "-o", "%T").strip() == "idle", slurm)
            stack.callback(_end_jobs, slurm)
            yield slurm


def _environment() -> dict[str, str]:
    kept = {name: v for name, v in os.environ.items() if not name.startswith(VARIABLES)}
    return kept | {"PATH": os.pathsep.join([os.environ.get("PATH", os.defpath), *SBIN])}


def _configure(folder: Path, cpus: int) -> None:
    folder.chmod(0o711)  # munge insists on a socket that all could reach
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(KEY_BYTES))
    for name in ("state", "spool"):
        (folder / name).mkdir()
    values = dict(zip(("controller_port", "node_port"), _free_ports(2), strict=True))
    values |= dict(host=socket.gethostname().partition(".")[0], address=LOCAL_HOST)
    values |= dict(user=getpass.getuser(), folder=folder, cpus=cpus)
    (folder / "slurm.conf").write_text(CONFIGURATION.format(**values))


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind((LOCAL_HOST, 0))
        return [probe.getsockname()[1] for probe in probes]


def _daemons(folder: Path) -> list[list[str]]:
    """In the foreground, each to be started when the one before is."""
    munge = ["munged", "--foreground", f"--socket={folder}/munge.socket"]
    munge += [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "seed")]
    conf = str(folder / "slurm.conf")
    return [munge, ["slurmctld", "-D", "-f", conf], ["slurmd", "-D", "-f", conf]]


@contextlib.contextmanager
def _daemon(command: Sequence[str], slurm: Slurm) -> Iterator[None]:
    with open(slurm.folder / f"{command[0]}.log", "w") as log:
        options = dict(env=slurm.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        # In a session of its own, for Ctrl-C is ours: daemons end in their order, after the jobs.
        # But should we be killed, they end at once.
        whole = ["setpriv", "--pdeathsig", "TERM", *command]
        process = subprocess.Popen(whole, **options, start_new_session=True)
    try:
        if command[0] == "munged":
            _wait((slurm.folder / "munge.socket").exists, slurm)
        yield
    finally:
        process.terminate()
        try:
            process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _end_jobs(slurm: Slurm) -> None:
    """Cancel what is left, and see to it that no process stays."""
    slurm("scancel", f"--user={getpass.getuser()}")
    with contextlib.suppress(RuntimeError):
        _wait(lambda: not slurm("squeue", "-h"), slurm)
    daemons = {command[0] for command in _daemons(slurm.folder)}
    for process in slurm.processes():
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.name() not in daemons:
                process.kill()


def _wait(condition, slurm: Slurm) -> None:
    limit = time.monotonic() + SECONDS
    while True:
        with contextlib.suppress(RuntimeError):  # a controller that does not answer yet
            if condition():
                return
        if time.monotonic() > limit:
            logs = sorted(slurm.folder.glob("*.log"))
            ends = [line for log in logs for line in log.read_text().splitlines()[-LOG_LINES:]]
            raise RuntimeError("\n".join(["SLURM does not do as it should:", *ends]))
        time.sleep(0.1)


def main() -> None:
    lacking = missing()
    if lacking:
        raise SystemExit(f"there is no {', '.join(lacking)} here: {INSTALL}")
    with running() as slurm, contextlib.suppress(KeyboardInterrupt):
        print(f"export SLURM_CONF={slurm.environment['SLURM_CONF']}   # Ctrl-C ends it")
        while True:
            time.sleep(1)


if __name__ == "__main__":
    main()
