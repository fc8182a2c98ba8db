"""Who can run code through a sweep: its owner alone."""

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import dask
import psutil
import pytest
import yaml
from conftest import SECONDS
from distributed import Security
from sweeps import family, started_scheduler

from ncbook import paths, sweep
from ncbook.cli import notebook
from ncbook.sweep import SweepError, cluster

ROOT = Path(__file__).parents[1]
is_root = hasattr(os, "getuid") and os.getuid() == 0
KEY = "PRIVATE KEY"

# As the owner it joins, which shows that it can; then, as another user, it tries all that it knows.
INTRUDER = """
import asyncio, json, os, sys
from distributed import Client, Security
from distributed.core import connect
scheduler, *workers = json.loads(sys.argv[1])

async def ask(address, security):
    arguments = security.get_connection_args("client")
    comm = await connect(address, timeout=2, **arguments)
    await comm.write({"op": "identity", "reply": True})
    return await asyncio.wait_for(comm.read(), 2)

def joins(address, security):
    try:
        return bool(asyncio.run(ask(address, security)))
    except Exception:
        return False

own = Security()
assert all(joins(address, own) for address in (scheduler, *workers))
others = Security.temporary()
with Client(scheduler, security=own, set_as_default=False) as client:
    assert client.submit(sum, [1, 2]).result() == 3
os.setgid(65534)
os.setuid(65534)
for address in (scheduler, *workers):
    assert not joins(address, others), address
    assert not joins(address.replace("tls", "tcp"), Security(require_encryption=False)), address
    assert not joins(address, Security(tls_ca_file=own.tls_ca_file,
        tls_client_cert=others.tls_client_cert, tls_client_key=others.tls_client_key)), address
for pid in map(int, sys.argv[2:]):
    try:
        open(f"/proc/{pid}/environ").read()
    except PermissionError:
        continue
    raise AssertionError(f"another user can read the environment of {pid}")
print("refused")
"""


@pytest.fixture(scope="module")
def own():
    """A client of two worker processes, as a sweep starts them."""
    with cluster.local(2) as client:
        yield client


@pytest.mark.slow
@pytest.mark.skipif(not is_root, reason="only root can become another user")
def test_another_user_cannot_run_code_in_a_sweep(own):
    addresses = json.dumps([own.scheduler.address, *own.nthreads()])
    pids = [str(os.getpid()), *(str(process.pid) for process in family())]
    command = [sys.executable, "-c", INTRUDER, addresses, *pids]
    environment = os.environ | cluster.credentials(own)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS)
    assert done.stdout == "refused\n", done.stderr


@pytest.mark.slow
def test_the_key_is_on_no_command_line_and_in_no_file(own):
    for process in [psutil.Process(), *family()]:
        assert KEY not in " ".join(process.cmdline())
    assert KEY not in json.dumps(dict(os.environ))
    folder = paths.private_folder("dask")
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    assert not any(KEY in path.read_text(errors="replace") for path in files)
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700


@pytest.mark.slow
@pytest.mark.parametrize("page", ["", "status", "info/main/workers.html", "json/counts.json"])
def test_no_pages_are_served(own, page):
    port = own.cluster.scheduler.http_server.port
    with pytest.raises(HTTPError, match="404"):
        urlopen(f"http://127.0.0.1:{port}/{page}", timeout=SECONDS)


def test_the_dashboard_is_off_unless_asked_for_at_a_port(monkeypatch):
    monkeypatch.delenv(cluster.DASHBOARD_VARIABLE, raising=False)
    assert not cluster._dashboard()["dashboard"]
    monkeypatch.setenv(cluster.DASHBOARD_VARIABLE, "8787")
    asked = {"dashboard": True, "dashboard_address": "127.0.0.1:8787"}
    assert cluster._dashboard() == asked
    for port in ("x", "-1", "65536"):
        monkeypatch.setenv(cluster.DASHBOARD_VARIABLE, port)
        with pytest.raises(SweepError, match=f"NCBOOK_DASHBOARD must be a port, .* got '{port}'"):
            cluster._dashboard()


# ------------------------------------------------------------ a scheduler with TLS


TLS = [f"distributed.comm.tls.{name}" for name in ("ca-file", "client.cert", "client.key")]


@pytest.mark.slow
def test_a_scheduler_with_tls_trains_for_who_has_its_certificate(tmp_path):
    made, ca, key = Security.temporary(), tmp_path / "ca.pem", tmp_path / "key.pem"
    ca.write_text(made.tls_ca_file)
    key.write_text(made.tls_client_key)
    files = str(ca), str(ca), str(key)
    names = ("tls_ca_file", "tls_client_cert", "tls_client_key")
    security = Security(**dict(zip(names, files, strict=True)))
    tls = ["--tls-ca-file", str(ca), "--tls-cert", str(ca), "--tls-key", str(key)]
    configs = sweep.grid("sgd", [0.01], [0.9], [0.0], train_size=100, batch_size=50, epochs=1)
    configured = dask.config.set(dict(zip(TLS, files, strict=True)))
    with started_scheduler(1, tls, security) as (address, _), configured:
        assert sweep.scheduler_workers(address)[0] == 1
        report = sweep.run(configs, tmp_path, scheduler=address, progress=False)
    assert report.trained == {"ok": 1}


@pytest.mark.parametrize(
    ("protocol", "settings", "words"),
    [
        ("tls", {}, r"DASK_DISTRIB.*perhaps check your TLS configuration"),
        ("tls", dict.fromkeys(TLS, "/no.pem"), r"distributed.comm.tls.*No such file or directory"),
        ("tcp", {"distributed.comm.require-encryption": True}, r"encryption required by Dask conf"),
    ],
)
def test_a_scheduler_without_the_right_certificates_is_refused(protocol, settings, words):
    with dask.config.set(settings), pytest.raises(SweepError, match=words):
        sweep.scheduler_workers(f"{protocol}://127.0.0.1:1")


# ------------------------------------------------------------ folders and kernels


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """An empty folder for temporary files, and in it that of this user."""
    monkeypatch.setattr(paths.tempfile, "tempdir", str(tmp_path))
    return tmp_path / f"ncbook-{os.getuid()}"


def test_a_private_folder_is_the_users_alone(temporary):
    folder = paths.private_folder("dask")
    assert folder == paths.private_folder("dask") == temporary / "dask"
    assert stat.S_IMODE(temporary.stat().st_mode) == 0o700


@pytest.mark.parametrize("what", ["open to all", "a link", "another user's"])
def test_a_folder_that_others_can_change_is_refused(temporary, tmp_path, what):
    if what == "a link":
        temporary.symlink_to(tmp_path)
    else:
        temporary.mkdir()
        temporary.chmod(0o777 if what == "open to all" else 0o700)
    if what == "another user's":
        if not is_root:
            pytest.skip("only root can give a folder away")
        os.chown(temporary, 65534, 65534)
    with pytest.raises(OSError, match=re.escape(f"{temporary} is not a folder of this user alone")):
        paths.private_folder("dask")


def test_kernels_are_of_this_python_whatever_a_kernelspec_says(tmp_path, monkeypatch):
    spec = tmp_path / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    spec.write_text(json.dumps({"argv": ["/no/python"], "display_name": "", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    manager = notebook.kernel_class()(kernel_name="python3")
    command = manager.format_kernel_cmd()
    assert command[0] == sys.executable
    assert "ipykernel_launcher" in command


# ------------------------------------------------------------ the workflow


WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "book.yml").read_text())
STEPS = [step for job in WORKFLOW["jobs"].values() for step in job["steps"]]


def test_the_workflows_jobs_have_only_the_permissions_that_they_name():
    assert WORKFLOW["permissions"] == {}
    writing = {
        name: {what for what, how in job["permissions"].items() if how == "write"}
        for name, job in WORKFLOW["jobs"].items()
    }
    assert writing == {"build": set(), "publish": {"pages", "id-token"}, "colab": {"contents"}}


def test_the_workflow_runs_only_what_is_pinned():
    text = (ROOT / ".github" / "workflows" / "book.yml").read_text()
    used = re.findall(r"uses: (.*)", text)
    assert len(used) == sum("uses" in step for step in STEPS)
    for action in used:
        assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v[\d.]+", action)
    assert "pip install" not in text


def test_the_workflow_keeps_no_token_in_a_checkout():
    checkouts = [step for step in STEPS if "actions/checkout" in step.get("uses", "")]
    assert checkouts
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)
