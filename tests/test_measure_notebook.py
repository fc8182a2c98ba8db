"""The notebook `measure` as papermill runs it: on a user's network, on its example, on mistakes."""

import re
import subprocess
import sys

import nbformat
import numpy as np
import pytest
import torch
from bs4 import BeautifulSoup
from conftest import SECONDS
from PIL import Image
from test_notebooks import FOLDER, LARGEST, cells_of
from torchvision.models import resnet18

from ncbook import data, measure
from ncbook.metrics import nc_metrics

NOTEBOOK = FOLDER / "measure.ipynb"
CLASSES = ("red", "green", "blue")


def write_images(folder):
    """Noise with one channel brighter: 20 images a class to train, 6 to test."""
    rng = np.random.default_rng(5)
    for part, count in (("train", 20), ("test", 6)):
        for channel, name in enumerate(CLASSES):
            (folder / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 150, (32, 32, 3), dtype=np.uint8)
                pixels[..., channel] += rng.integers(20, 100, dtype=np.uint8)
                Image.fromarray(pixels).save(folder / part / name / f"{i}.png")
    return folder


def start(folder, **parameters):
    """papermill in a folder of its own; its words go to a file there."""
    folder.mkdir()
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", str(NOTEBOOK), "out.ipynb"]
    for name, value in parameters.items():
        command += ["-p", name, str(value)]
    with (folder / "log").open("w") as log:
        return subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(2)
    return resnet18(num_classes=len(CLASSES)).eval()


@pytest.fixture(scope="module")
def executed(network, tmp_path_factory):
    """(exit code, what was said, outputs) of each execution; all at once."""
    folder = tmp_path_factory.mktemp("measure")
    images = write_images(folder / "images")
    prefixed = {f"model.{name}": tensor for name, tensor in network.state_dict().items()}
    torch.save({"epoch": 9, "state_dict": prefixed}, folder / "mine.pt")
    torch.save(resnet18(num_classes=5).state_dict(), folder / "other.pt")
    mine = dict(model="torchvision:resnet18", dataset=f"folder:{images}", image_size=32)
    asked = {
        "mine": mine | dict(checkpoint=folder / "mine.pt"),
        "classes": mine | dict(checkpoint=folder / "other.pt"),
        "misspelt": mine | dict(chekpoint=folder / "mine.pt"),
    }
    started = {name: start(folder / name, **given) for name, given in asked.items()}
    return {name: finished(process, folder / name) for name, process in started.items()}


def finished(process, folder):
    try:
        process.wait(SECONDS)
    finally:
        process.kill()
    cells = nbformat.read(folder / "out.ipynb", as_version=4).cells
    outputs = [out for cell in cells if cell.cell_type == "code" for out in cell.outputs]
    return process.returncode, (folder / "log").read_text(), outputs


def shown(outputs, kind):
    return [out.data[kind] for out in outputs if kind in out.get("data", {})]


def test_the_parameters_are_those_that_are_checked_and_documented():
    cells = cells_of(NOTEBOOK)
    (cell,) = [source for _, source, tags in cells if "parameters" in tags]
    names = set(re.findall(r"^(\w+) = ", cell, flags=re.MULTILINE))
    assert names == set(measure.PARAMETERS)
    (table,) = [source for _, source, _ in cells if "| parameter |" in source]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == names


def test_a_users_network_is_reported(executed, network):
    code, said, outputs = executed["mine"]
    assert code == 0, said[-3000:]
    words = shown(outputs, "text/markdown")
    assert "resnet18** with the weights of <code>mine&#46;pt</code>. 60 training and" in words[0]
    assert "of NC3² is gauge" in words[1] or "The gauge hides a part of NC3" in words[1]
    assert [out for out in outputs if out.get("name") == "stderr"] == []
    pictures = [page for page in shown(outputs, "text/html") if "<img " in page]
    assert len(pictures) >= 3


def test_the_reported_metrics_are_those_of_the_networks_features(executed, network, tmp_path):
    pages = shown(executed["mine"][2], "text/html")
    (rows,) = [BeautifulSoup(p, "html.parser").select("tbody tr") for p in pages if "NC4" in p]
    cells = [[cell.get_text() for cell in row.select("td")] for row in rows]
    table = {metric: value for metric, value, *_ in cells}
    dataset = data.load(f"folder:{write_images(tmp_path / 'images')}", image_size=32)
    head, network.fc = network.fc, torch.nn.Identity()
    with torch.no_grad():
        train, test = (network(dataset.inputs(x)) for x in (dataset.train_x, dataset.test_x))
        scores = head(train)
    network.fc = head
    weight, bias = head.weight.detach(), head.bias.detach()
    theirs = nc_metrics(train, dataset.train_y, weight, bias, test, dataset.test_y)
    for label, name in (("NC1", "nc1"), ("NC2", "nc2"), ("NC3", "nc3"), ("NC0", "nc0")):
        assert float(table[label]) == pytest.approx(theirs[name], rel=6e-3)  # three digits
    accuracy = (scores.argmax(1) == dataset.train_y).double().mean()
    assert table["training accuracy"] == f"{accuracy:.1%}"
    assert table["NC4"] == f"{theirs['nc4']:.1%}"


@pytest.mark.slow
def test_the_example_learns_and_is_reported(tmp_path):
    code, said, outputs = finished(start(tmp_path / "a"), tmp_path / "a")
    assert code == 0, said[-3000:]
    words = shown(outputs, "text/markdown")
    assert words[0].startswith(
        "**example&#95;network&#58;build** with the weights of <code>model&#46;pt"
    )
    assert "1,400 training and 397 test samples of digits, 10 classes" in words[0]
    assert "did not learn" not in words[1]
    assert [out for out in outputs if out.get("name") == "stderr"] == []
    assert sum(map(len, shown(outputs, "text/html"))) < LARGEST


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "classes",
            r"checkpoint '.*other\.pt' is not of .*:resnet18 .* size mismatch for fc\.weight: ",
        ),
        (
            "misspelt",
            r"unknown parameter 'chekpoint' \(did you mean 'checkpoint'\?\); valid: check",
        ),
    ],
)
def test_a_mistake_ends_papermill_with_one_line(executed, name, message):
    code, said, outputs = executed[name]
    assert code != 0
    # A kernel may have a last word of its own: that its parent appears to have exited.
    lines = [line for line in said.splitlines() if line and "[IPKernelApp]" not in line]
    assert re.match(f"ParameterError: {message}", lines[-1]), said[-3000:]
    (error,) = [out for out in outputs if out.output_type == "error"]
    assert error.traceback == [f"ParameterError: {error.evalue}"]
    assert shown(outputs, "text/markdown") == []
