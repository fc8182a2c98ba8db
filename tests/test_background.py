"""What the chapter on background writes out: of the published runs, and of what it computes
itself."""

import re
from pathlib import Path

import jupytext
import matplotlib as mpl
import pytest
from conftest import outputs

from ncbook import figures, metrics, store, sweep
from ncbook.metrics import rule
from ncbook.pages import six_grids

ROOT = Path(__file__).parents[1]
PUBLISHED = ROOT / "book" / "results"
SOURCE = ROOT / "notebooks" / "background.py"
PROSE = re.sub(r"\s*\n# *", " ", SOURCE.read_text(encoding="utf-8"))
OTHER_LAYER = """
W = torch.tensor([[2.0, 0.3, 1.0], [0.1, -5.0, 0.0], [0.7, 0.2, -0.4], [1.0, 1.0, 1.0]]).double()
FEATURES = torch.tensor([[3.0, 0.0, 1.0], [0.5, 0.5, -2.0], [1.0, 0.0, 0.0], [0.1, -0.2, 0.3]])
LABELS = torch.tensor([3, 3, 0, 2])
LR, BETA, DECAY = 0.5, 0.0, 2.0
"""


def cells():
    return [c.source for c in jupytext.read(SOURCE).cells if c.cell_type == "code"]


@pytest.fixture
def execute(shell, tmp_path, monkeypatch):
    """Run some cells on an empty store; the names that they define."""
    monkeypatch.setenv(store.RESULTS_VARIABLE, str(tmp_path))

    def execute(sources):
        shell.reset(new_session=True)
        with mpl.rc_context({"backend": "agg"}):
            for source in sources:
                list(outputs(shell, source))
        return shell.user_ns

    return execute


# ------------------------------------------------------------ what it computes


def test_its_first_picture_shows_a_collapse(execute):
    collapse = execute(cells()[:3])["collapse"]
    ends = {epoch: metrics.nc_metrics(H, y, W) for epoch, (H, y, W, _) in collapse.items()}
    assert f"{len(collapse[0][1])} images of the digits 0, 1 and 2" in PROSE
    assert max(ends[100][name] for name in rule.THREE) < rule.THRESHOLD < ends[3]["nc2"]
    assert collapse[0][3] < 0.6
    assert collapse[3][3] > 0.98
    assert collapse[100][3] == 1


def steps():
    """The cells from the layer that fits on paper to the table of what decay does alone."""
    sources = cells()
    first = next(i for i, source in enumerate(sources) if source.startswith("W = "))
    last = next(i for i, source in enumerate(sources) if source.startswith("NONE = "))
    return [sources[0]], sources[first], sources[first + 1 : last + 1]


def test_its_steps_are_as_the_chapter_says(execute):
    start, layer, rest = steps()
    found = execute([*start, layer, *rest])
    assert max(map(abs, found["sums"]["Adam"])) > 0.1
    assert max(map(abs, found["sums"]["Signum"])) > 0.1
    torchs = found["compared"]["from torch.optim"]
    assert set(torchs.dropna().index) == {"SGD", "Adam", "AdamW", "MuonW"}
    assert torchs["MuonW"] < 0.01
    alone = found["alone"]
    assert len({round(forms["decoupled"], 9) for forms in alone.values()}) == 1
    ratio = alone["Adam"]["coupled"] / alone["Adam"]["decoupled"]
    assert f"{ratio:.0f} times as much here" in PROSE
    assert alone["SGD"]["coupled"] < 2 * alone["SGD"]["decoupled"]


def test_a_reader_may_change_the_layer(execute):
    start, _, rest = steps()
    found = execute([*start, OTHER_LAYER, *rest])
    assert found["GRADIENTS"][0].shape == (4, 3)


# ------------------------------------------------------------ what it says of the stored runs


@pytest.fixture(scope="module")
def grids():
    return six_grids.complete(six_grids.stored(PUBLISHED))


def with_collapse(runs, threshold):
    return {name: int(n) for name, n in count(runs, threshold).items() if n}


def count(runs, threshold):
    return rule.collapsed(runs, threshold).groupby(runs["optimizer"]).sum()


@pytest.mark.parametrize("threshold", [0.02, 0.05, 0.1, 0.2, 0.37])
def test_which_optimizers_collapse_does_not_depend_on_the_threshold(grids, threshold):
    assert f"{len(grids):,} runs, five seeds" in PROSE
    assert "from 0.02 to 0.37, SGD, SGDW, Adam and Signum have some" in PROSE
    assert set(with_collapse(grids, threshold)) == {"sgd", "sgdw", "adam", "signum"}


def test_a_threshold_of_a_half_separates_nothing(grids):
    good, loose = figures.converged(grids)["optimizer"].value_counts(), with_collapse(grids, 0.5)
    assert (
        f"{loose['sgd']} of SGD's {good['sgd']} converged runs would count, and {loose['adamw']} "
        f"of AdamW's {good['adamw']}"
    ) in PROSE


@pytest.mark.parametrize("least", [0.9, 0.99, 0.999, 1.0])
def test_nor_does_it_depend_on_the_filter_on_accuracy(grids, least):
    kept = grids[(grids["status"] == "ok") & (grids["train_acc"] >= least)]
    small = (kept[[*rule.THREE]].astype(float) < rule.THRESHOLD).all(axis=1)
    assert set(kept.loc[small, "optimizer"]) == {"sgd", "sgdw", "adam", "signum"}


def test_on_other_networks_almost_nothing_collapsed():
    runs = figures.converged(figures.uniform(store.load_runs(PUBLISHED)))
    runs = runs[runs["optimizer"].isin(sweep.GRIDS)]
    assert "On no network did a run of AdamW or SignumW collapse at 0.1" in PROSE
    assert not set(with_collapse(runs, rule.THRESHOLD)) & {"adamw", "signumw"}
    images = runs[runs["model"].isin(["resnet9", "vgg9", "vit"])]
    assert "hardly any run did, of SGD, SGDW and Signum, and barely" in PROSE
    few = images[rule.collapsed(images)]
    assert len(few) < len(images) / 100
    assert set(few["optimizer"]) == {"sgd", "sgdw", "signum"}
    assert (few[["nc2", "nc3"]].max(axis=1) > 0.08).all()  # "barely"
    assert set(images["train_size"].dropna()) == {1000, 2000}
