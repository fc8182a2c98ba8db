"""What the Colab buttons open: the chapters in the branch `colab`, made by the workflow."""

import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import nbformat
import papermill
import pytest
import yaml

ROOT = Path(__file__).parents[1]
WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "book.yml").read_text())

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout"),
]


def git(*words, **options):
    return subprocess.run(["git", *words], check=True, capture_output=True, text=True, **options)


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A bare repository of the tree as it is now, and in it the branch that the workflow's own
    commands put there."""
    folder = tmp_path_factory.mktemp("colab")
    bare, tree = folder / "bare", folder / "tree"
    git("clone", "--quiet", ROOT, tree)
    for path in [ROOT / "book" / "colab.py", *(ROOT / "notebooks").glob("*.ipynb")]:
        shutil.copy(path, tree / path.relative_to(ROOT))  # as it is, committed or not
    git("clone", "--quiet", "--bare", tree, bare)
    step = next(s for s in WORKFLOW["jobs"]["colab"]["steps"] if s.get("id") == "branch")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = os.environ | {"ADDRESS": bare.as_uri(), "REMOTE": str(bare), "PATH": path}
    script = ["bash", "-euo", "pipefail", "-c", step["run"]]
    subprocess.run(script, cwd=tree, env=env, check=True)
    return bare


def test_the_branch_has_every_chapter_with_one_cell_more(repository, tmp_path):
    git("clone", "--quiet", "--branch", "colab", repository, tmp_path / "branch")
    made = {p.name: p for p in (tmp_path / "branch" / "notebooks").glob("*.ipynb")}
    chapters = {p.name: p for p in (ROOT / "notebooks").glob("*.ipynb")}
    assert made.keys() == chapters.keys()
    for name, path in made.items():
        first, *others = nbformat.read(path, as_version=4).cells
        assert repository.as_uri() in first.source
        assert others == nbformat.read(chapters[name], as_version=4).cells


@pytest.fixture(scope="module")
def empty_machine(tmp_path_factory):
    """An environment that has pip and what ncbook needs, as Colab has most of it, but not ncbook: a
    folder to start the kernel in, and the kernel's folder for JUPYTER_PATH."""
    folder = tmp_path_factory.mktemp("machine")
    venv.create(folder / "venv")
    python = folder / "venv" / "bin" / "python"
    purelib = "import sysconfig; print(sysconfig.get_path('purelib'))"
    here = subprocess.run([python, "-c", purelib], check=True, capture_output=True, text=True)
    # Its .pth files are not read, so that the editable ncbook of this environment is not found.
    added = subprocess.run([sys.executable, "-c", purelib], capture_output=True, text=True)
    (Path(here.stdout.strip()) / "others.pth").write_text(added.stdout)
    install = [python, "-m", "ipykernel", "install", "--prefix", folder / "venv", "--name", "empty"]
    subprocess.run(install, check=True, capture_output=True)
    return folder / "venv"


def test_a_chapter_runs_alone_on_a_machine_without_ncbook(
    repository, empty_machine, tmp_path, monkeypatch
):
    python = empty_machine / "bin" / "python"
    missing = subprocess.run([python, "-c", "import ncbook"], cwd=tmp_path, capture_output=True)
    assert b"No module named 'ncbook'" in missing.stderr
    monkeypatch.setenv("JUPYTER_PATH", str(empty_machine / "share" / "jupyter"))
    monkeypatch.delenv("NCBOOK_RESULTS", raising=False)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    chapter = nbformat.reads(
        git("show", "colab:notebooks/interpolation.ipynb", cwd=repository).stdout, as_version=4
    )
    nbformat.write(chapter, tmp_path / "alone.ipynb")
    done = papermill.execute_notebook(
        tmp_path / "alone.ipynb", None, kernel_name="empty", cwd=tmp_path, progress_bar=False
    )
    shown = [o.get("data", {}) for cell in done.cells for o in cell.get("outputs", [])]
    texts = [str(data.get("text/markdown", "")) for data in shown]
    assert not any("The store has no such runs" in text for text in texts)
    pictures = [data.get("text/html", "") for data in shown]
    assert any("data:image/png" in page and re.search(r"n = [1-9]", page) for page in pictures)
