"""What the Makefile's targets leave of a clone: what git tracks stays as it is."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from sweeps import wait_until

ROOT = Path(__file__).parents[1]
# As JupyterLab's autosave does: writes into the notebook that it is told to open.
LAB = """#!/bin/sh
echo "$@" > "$ASKED"
echo edited >> "$2"
"""

needs_git = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")


def git(*words, **options):
    return subprocess.run(["git", *words], check=True, capture_output=True, text=True, **options)


def clone_of_the_tree(folder):
    """A clone with the files that ``make lab`` reads as they are here, committed or not."""
    git("clone", "--quiet", ROOT, folder)
    for path in [*ROOT.glob("notebooks/*"), ROOT / "Makefile", ROOT / ".gitignore"]:
        if path.is_file():
            shutil.copy(path, folder / path.relative_to(ROOT))
    git("add", "--all", cwd=folder)
    return folder


def make_lab(clone, programs=Path(sys.executable).parent):
    """The command, with the programs of an environment that counts as set up."""
    ready = clone.parent / "ready"
    ready.touch()
    return ["make", "lab", f"--old-file={ready}", f"READY={ready}", f"BIN={programs}"]


def changes(clone):
    """What git would say that its user has changed."""
    return git("diff", cwd=clone).stdout + git("clean", "--dry-run", "-d", cwd=clone).stdout


@needs_git
def test_make_lab_opens_a_copy_which_git_ignores_and_keeps_its_edits(tmp_path):
    clone, program = clone_of_the_tree(tmp_path / "clone"), tmp_path / "jupyter"
    program.write_text(LAB)
    program.chmod(0o755)
    command, told = make_lab(clone, tmp_path), tmp_path / "asked"
    for times in (1, 2):
        subprocess.run(command, cwd=clone, check=True, env=os.environ | {"ASKED": str(told)})
        copy = (clone / "lab" / "explorer.ipynb").read_text()
        assert copy == (ROOT / "notebooks" / "explorer.ipynb").read_text() + "edited\n" * times
    assert ("--allow-root" in told.read_text().split()) == (os.getuid() == 0)
    names = {path.name for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert {path.name for path in (clone / "lab").iterdir()} == names
    assert changes(clone) == ""


def said_by_a_kernel(folder, configuration=None):
    """What a kernel prints on its terminal while it starts."""
    profile = folder / "profile_default"
    profile.mkdir(parents=True)
    if configuration:
        shutil.copy(configuration, profile)
    file = folder / "connection.json"  # which a kernel writes when it listens
    # Not the environment's own, which make may have set up.
    command = [sys._base_executable, "-m", "ipykernel_launcher", "-f", str(file)]
    modules = os.pathsep.join(filter(None, sys.path))
    environment = os.environ | {"IPYTHONDIR": str(folder), "PYTHONPATH": modules}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as kernel:
        wait_until(file.exists)
        kernel.kill()
        return kernel.stderr.read()


def test_setting_up_quiets_the_kernels_of_its_environment(tmp_path):
    pip = tmp_path / "venv" / "bin" / "pip"
    pip.parent.mkdir(parents=True)
    pip.write_text("#!/bin/sh\n")
    pip.chmod(0o755)
    ready = pip.parents[1] / ".ready"
    command = ["make", f"VENV={ready.parent}", "PYTHON=true", str(ready)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (made,) = ready.parent.glob("etc/ipython/*")  # ipykernel reads it from there
    assert "over TCP" in said_by_a_kernel(tmp_path / "before")
    assert said_by_a_kernel(tmp_path / "after", made) == ""
