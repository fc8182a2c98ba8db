import subprocess
import sys
from pathlib import Path

import pytest

from ncbook import data, store
from ncbook.paths import expanded


def test_a_home_folder_is_put_in(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert expanded("~/x", "out") == Path("/home/me/x")
    assert expanded(Path("a/~b"), "out") == Path("a/~b")


UNKNOWN = [
    (lambda: data.validate_name("folder:~nosuchuser/x"), "folder '~nosuchuser/x'"),
    (lambda: data.validate_name("imagenet:~nosuchuser/x"), "imagenet '~nosuchuser/x'"),
    (data.data_dir, "NCBOOK_DATA '~nosuchuser/data'"),
    (lambda: data.load("mnist"), "NCBOOK_DATA '~nosuchuser/data'"),
    (lambda: data.validate_name("folder:x"), "NCBOOK_DATA '~nosuchuser/data'"),
    (lambda: store.results_dir("~nosuchuser/x"), "results '~nosuchuser/x'"),
    (store.results_dir, "NCBOOK_RESULTS '~nosuchuser/results'"),
    (lambda: store.export("~nosuchuser/x.csv"), "file '~nosuchuser/x.csv'"),
]


@pytest.mark.parametrize(("call", "named"), UNKNOWN)
def test_an_unknown_user_is_named_in_one_line(monkeypatch, call, named):
    monkeypatch.setenv("NCBOOK_DATA", "~nosuchuser/data")
    monkeypatch.setenv("NCBOOK_RESULTS", "~nosuchuser/results")
    ending = "the home folder ~nosuchuser is not known; give a path without ~"
    with pytest.raises(ValueError, match=f"^{named}: {ending}$"):
        call()


@pytest.mark.parametrize(
    "arguments",
    [
        "plan --dataset folder:~nosuchuser/x",
        "status --results ~nosuchuser/x",
        "export ~nosuchuser/x",
        "sweep --epochs 1 --notebooks ~nosuchuser/x",
    ],
)
def test_the_program_says_so_and_ends(tmp_path, arguments):
    command = [sys.executable, "-m", "ncbook.cli", *arguments.split()]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 2
    *before, error = ended.stderr.splitlines()
    assert "the home folder ~nosuchuser is not known" in error
    named = (
        [] if "--results" in arguments else [f"ncbook: reading the store {tmp_path}/results ..."]
    )
    assert before == named
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_found_needs_no_home(tmp_path, monkeypatch):
    monkeypatch.setenv("NCBOOK_DATA", "~nosuchuser/data")
    for split in ("train", "test"):
        (tmp_path / "here" / split / "a").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    data.validate_name("folder:here")
    with pytest.raises(ValueError, match=f"there is no folder '{tmp_path}/x'$"):
        data.validate_name(f"folder:{tmp_path}/x")
