"""The numbers written out in the chapter on other networks are those of the stored runs."""

import re
from pathlib import Path

import pytest

from ncbook import figures, store

ROOT = Path(__file__).parents[1]
PROSE = re.sub(r"\s*\n# *", " ", (ROOT / "notebooks" / "how_far.py").read_text(encoding="utf-8"))
RESNET9 = dict(dataset="fashion_mnist", model="resnet9", width=1 / 8, train_size=2000, epochs=100)
FOUR = ["adam", "adamw", "signum", "signumw"]


@pytest.fixture(scope="module")
def medians():
    """NC3, raw and centred, of each optimizer and weight decay."""
    runs = store.load_runs(ROOT / "book" / "results", dataset="fashion_mnist")
    runs = figures.converged(figures.of_setting(runs, **RESNET9))
    runs = runs[(runs["weight_decay"] > 0) & runs["optimizer"].isin(FOUR)]
    seeds = runs.groupby(["optimizer", "weight_decay"])["seed"].transform("nunique")
    runs = runs[seeds >= 3]
    return runs.groupby(["optimizer", "weight_decay"])[["nc3", "nc3_centred"]].median()


def test_on_a_resnet9_the_gauge_is_the_whole_distance(medians):
    strongest = medians.groupby("optimizer").tail(1).droplevel("weight_decay")
    adam, adamw, signum, signumw = strongest.loc[FOUR].to_numpy()
    assert f"at λ = 5 AdamW's NC3 is {adamw[0]:.2f} and Adam's at 0.05 is {adam[0]:.2f}" in PROSE
    assert f"without the gauge AdamW's is {adamw[1]:.2f} (medians" in PROSE
    assert adamw[1] == pytest.approx(adam[0], rel=0.1)
    words = f"SignumW's goes from {signumw[0]:.2f} to {signumw[1]:.2f}, below Signum's "
    assert words + f"{signum[1]:.2f}" in PROSE
    assert signumw[1] < signum[1]


def test_raw_nc3_chooses_the_decay_further_from_collapse(medians):
    adamw = medians.loc["adamw"]
    weak, strong = adamw.loc[0.5], adamw.loc[5.0]
    assert weak["nc3"] < strong["nc3"]
    assert weak["nc3_centred"] > strong["nc3_centred"]
    words = f"a little less at λ = 0.5, {weak['nc3']:.2f}, but little of that is gauge: "
    assert words + f"{weak['nc3_centred']:.2f} are left without it" in PROSE


def test_ten_times_the_epochs_do_not_bring_order_under_adamw():
    runs = figures.converged(store.load_runs(ROOT / "book" / "results", dataset="digits"))
    runs = runs[runs["lr"].eq(0.005) & runs["momentum"].eq(0.9) & (runs["weight_decay"] > 0)]
    short, long = (
        figures.of_setting(runs, dataset="digits", model="mlp", epochs=epochs)
        .groupby(["optimizer", "weight_decay"])["nc2w_centred"]
        .median()
        for epochs in (200, 2000)
    )
    grew = (long > short[long.index]).groupby("optimizer").agg(["sum", "size"])
    assert grew.loc["adamw", "sum"] == grew.loc["adamw", "size"]
    assert grew.loc["adam", "sum"] == 0
    words = f"each of the {grew.loc['adamw', 'size']} decays, and under Adam smaller at each of "
    assert f"{words}{grew.loc['adam', 'size']} (medians)" in PROSE


def test_on_resnet9_and_mnist_three_optimizers_are_shown_at_one_decay_which_is_not_their_best():
    runs = store.load_runs(ROOT / "book" / "results", dataset="mnist", model="resnet9", status="ok")
    runs = figures.uniform(runs)[lambda rows: rows["weight_decay"] > 0]
    for name in ("sgd", "adam", "adamw"):
        ends = figures.converged(runs[runs["optimizer"] == name]).groupby("weight_decay")
        seeds, middle = ends["seed"].nunique(), ends["nc3"].median()
        (shown,) = seeds[seeds >= 3].index
        assert middle[seeds == 1].min() < middle[shown]
    assert "for SGD, Adam and AdamW on ResNet9 and MNIST that leaves one decay each" in PROSE
