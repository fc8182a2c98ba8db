"""What the first page and the tour claim, held to the published runs; and that the first page leads
to every page."""

import re
from pathlib import Path

import pytest
import yaml

from ncbook import figures, store, sweep
from ncbook.metrics import rule
from ncbook.pages import six_grids

ROOT = Path(__file__).parents[1]
INTRO, TOUR = (
    re.sub(r"\s+", " ", (ROOT / "book" / f"{name}.md").read_text(encoding="utf-8"))
    for name in ("intro", "tour")
)
MNIST = dict(dataset="mnist", model="mlp", epochs=50, train_size=6000)


@pytest.fixture(scope="module")
def stored():
    return store.load_runs(ROOT / "book" / "results")


@pytest.fixture(scope="module")
def good(stored):
    return figures.converged(figures.uniform(stored))


def with_collapse(runs):
    return set(runs.loc[rule.collapsed(runs), "optimizer"])


def test_on_two_small_networks_the_optimizers_differ_as_it_says(stored, good):
    digits = six_grids.complete(figures.of_setting(stored, **six_grids.SETTING))
    assert (digits.groupby("optimizer").size() == 5 * 108).all()
    assert with_collapse(figures.converged(digits)) == {"sgd", "sgdw", "adam", "signum"}
    for network in (six_grids.SETTING, MNIST):
        found = with_collapse(figures.of_setting(good, **network))
        assert {"adam", "signum", "sgdw", "muonw"} <= found
        assert not found & {"adamw", "signumw", "lion"}


def test_on_convolutional_networks_nothing_adaptive_collapsed(good):
    runs = good[good["model"].isin(["resnet9", "vgg9"])]
    few = runs[runs["train_size"].notna()]  # the others are Table 1's
    assert set(few["epochs"]) == {50, 100}
    assert set(runs.drop(few.index)["optimizer"]) == {*sweep.GRIDS} - {"signum"}
    assert set(runs.drop(few.index)["epochs"]) == {200}
    assert not with_collapse(runs) & {"adam", "adamw", "signumw"}
    (one,) = runs[rule.collapsed(runs) & runs["optimizer"].eq("signum")].itertuples()
    assert (one.model, one.dataset) == ("vgg9", "fashion_mnist")
    assert "one run of Signum did, a VGG9 on Fashion-MNIST, and one of Adam would have" in INTRO
    cifar = runs[runs["dataset"] == "folder:cifar10-jpeg"]
    assert len(cifar) > 50
    assert with_collapse(cifar) == set()


def test_muon_and_the_gauge_on_a_narrow_resnet9(stored):
    runs = figures.uniform(stored[stored["dataset"] == "fashion_mnist"])
    runs = runs[(runs["model"] == "resnet9") & (runs["width"] == 1 / 8)]
    runs = figures.converged(runs)
    muonw = runs[(runs["optimizer"] == "muonw") & (runs["weight_decay"] == 2)]
    assert (muonw["nc0"] / muonw["nc0_init"]).max() < 1e-4
    assert muonw[["nc2", "nc3"]].min(axis=None) > 0.1
    adam = runs[(runs["optimizer"] == "adam") & (runs["weight_decay"] == 0.05)]
    adamw = runs[(runs["optimizer"] == "adamw") & (runs["weight_decay"] == 5)]
    share = (1 - adamw["nc3_centred"] ** 2 / adamw["nc3"] ** 2).median()
    assert f"{100 * share:.0f} % on that ResNet9 (the rest: Adam's NC3)" in TOUR
    assert 0.9 < adamw["nc3_centred"].median() / adam["nc3"].median() < 1.1


def test_without_gauge_none_collapsed_either():
    grids = six_grids.complete(six_grids.stored(ROOT / "book" / "results"))
    runs = figures.converged(grids)
    runs = runs[runs["optimizer"].isin(["adamw", "signumw"])]
    runs = runs[(runs["weight_decay"] > 0) & runs["nc3_centred"].notna()]
    assert not (runs[["nc1", "nc2", "nc3_centred"]].max(axis=1) < rule.THRESHOLD).any()
    gauge = 1 - runs["nc3_centred"] ** 2 / runs["nc3"] ** 2
    strong, weak = gauge[runs["weight_decay"] >= 5], gauge[runs["weight_decay"] == 5e-4]
    least = f"{100 * strong.min():.0f} % or more ({100 * strong.median():.0f} % in the median) "
    assert f"{least}in their {len(strong)} digits runs" in INTRO
    assert f"by {least}in the {len(strong)} digits runs" in TOUR
    adamw, signumw = 100 * weak.groupby(runs["optimizer"]).median()
    assert f"{adamw:.0f} % (AdamW) and {signumw:.0f} % (SignumW) at λ = 0.0005" in TOUR
    assert f"none of their {len(runs)} runs with decay would count as collapsed" in INTRO
    nc2, centred = ((runs[name] >= rule.THRESHOLD).sum() for name in ("nc2", "nc3_centred"))
    assert f"is above 0.1 in {nc2}, and the centred NC3 in {centred}." in INTRO
    assert f"none of their {len(runs)} digits runs would count" in TOUR
    assert f"as NC2 stays above 0.1 (in {nc2})" in TOUR
    more = runs[runs[["nc1", "nc2", "nc3_centred"]].max(axis=1) < 0.15]
    assert set(more["weight_decay"]) == {5}
    most = (runs["weight_decay"] == 5).sum()
    words = f"{len(more)} of the {len(runs)} would count, all among the {most} at λ = 5"
    assert f"at 0.15, without the gauge, {words}" in INTRO
    assert f"of 0.15, {len(more)} would, all among the {most} at λ = 5" in TOUR


def test_a_last_layer_of_sgd_ends_both(stored):
    runs = stored[(stored["optimizer"] == "adamw") & (stored["weight_decay"] == 5)]
    head = dict(head_optimizer="sgd", head_lr=0.0679, head_momentum=0.9, head_weight_decay=0.05)
    runs = figures.of_setting(runs, **six_grids.SETTING, **head)
    assert rule.collapsed(runs).all()
    assert f"collapses, in {len(runs)} of {len(runs)} seeds" in TOUR  # all pairs: test_symmetry


def test_the_gauge_share_under_adamw_and_the_signs(good):
    """Of runs whose last layer has no optimizer of its own."""
    runs = good[good["optimizer"].isin(["adamw", "signumw", "lion", "mars"])]
    runs = figures.uniform(runs[runs["weight_decay"] > 0])
    assert runs["gauge_share"].min() == pytest.approx(0.1, rel=0.05)
    assert "NC0 as a share of W stays at a tenth or more" in INTRO


def test_a_leak_pushes_nc0_up_without_decay(good):
    runs = figures.uniform(good[(good["model"] == "mlp") & good["weight_decay"].eq(0)])
    runs = runs[runs["optimizer"].isin(["adam", "adamw", "signum", "signumw", "lion", "lionc"])]
    assert len(runs) > 300
    assert (runs["nc0"] > 1.5 * runs["nc0_init"]).all()
    assert "on the MLPs, without decay, it pushes NC0 up" in TOUR


@pytest.mark.parametrize("network", [six_grids.SETTING, MNIST], ids=["digits", "mnist"])
def test_gauge_makes_nine_tenths_of_adamws_nc3(good, network):
    runs = figures.of_setting(good, **network)
    runs = runs[
        (runs["optimizer"] == "adamw") & (runs["weight_decay"] == 5) & (runs["lr"] == 0.005)
    ]
    runs = runs[(runs["momentum"] == 0.9) & runs["nc3_centred"].notna()]
    assert len(runs) >= 3
    assert (1 - runs["nc3_centred"] ** 2 / runs["nc3"] ** 2).median() > 0.9
    assert "More than nine tenths of AdamW's NC3²" in TOUR


@pytest.mark.parametrize("dataset", ["digits", "mnist"])
def test_the_last_layers_optimizer_decides_nc0(stored, dataset):
    runs = stored[stored["head_optimizer"].notna() & (stored["dataset"] == dataset)]
    left = (runs["nc0"] / runs["nc0_init"]).groupby(runs["head_optimizer"])
    most, least = left.max(), left.min()
    assert most["sgd"] < 1e-3 < 1 < least["adamw"]


def test_every_page_is_linked():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    parts = toc["parts"]
    pages = {page["file"].split("/")[1] for part in parts for page in part["chapters"]}
    assert pages <= {link.split("/")[-1] for link in re.findall(r"\{doc\}`(.+?)`", INTRO)}
    captions = [part["caption"] for part in parts]
    assert re.findall(r"- \*\*(\w+ [\w ]+)\*\*", INTRO) == captions


def test_the_tour_takes_five_minutes_and_comes_after_the_first_page():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    assert toc["parts"][0]["chapters"][0]["file"] == "book/tour"
    assert len(TOUR.split()) < 1200


def test_the_lines_of_coupled_decay_and_of_sgdw_fall(stored):
    """In the tour's plot, at the decays that all optimizers have and 0.05 or more."""
    grids = six_grids.complete(figures.of_setting(stored, **six_grids.SETTING))
    figure = six_grids.live_figure(grids, ROOT / "book" / "results")
    at = figure.data["weight_decays"].index(0.05)
    ends = {name: lines[at][-1] for name, lines in figure.data["left"].items()}
    assert max(ends[name] for name in ("sgd", "sgdw", "adam", "signum")) < 1
    assert min(ends["adamw"], ends["signumw"]) > 1
