"""What the chapter on depth says of its runs: of the published ones, and of those that it trains
itself where there are none."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ncbook import figures, store, sweep

PUBLISHED = Path(__file__).parents[1] / "book" / "results"
NUMBERS = dict(sgd=(0.02, 0.05), adam=(0.005, 0.05), adamw=(0.005, 5.0), muonw=(0.02, 2.0))
NETWORK = dict(dataset="digits", model="mlp", depth=8)
PAIRS = [("sgd", "adamw"), ("adamw", "sgd")]
KINDS = [(name, name, decay) for name in NUMBERS for decay in ("none", "strong")]
KINDS += [(*pair, "strong") for pair in PAIRS]
SHORT, LONG = 20, 200


def setting(hidden, last, decay):
    lr, strong = NUMBERS[hidden]
    given = dict(optimizer=hidden, lr=lr, weight_decay=strong * (decay == "strong"), momentum=0.9)
    if last != hidden:
        given |= dict(head_optimizer=last, head_lr=NUMBERS[last][0], head_momentum=0.9)
        given |= dict(head_weight_decay=NUMBERS[last][1])
    return given


def layers_in(results, epochs):
    stored, found = store.load_runs(results, status="ok"), []
    for kind in KINDS:
        runs = figures.of_setting(stored, **NETWORK, **setting(*kind), epochs=epochs)
        rows = store.load_layers(results, run_id=list(runs["run_id"]))
        found.append(rows.assign(hidden=kind[0], last=kind[1], decay=kind[2]))
    return pd.concat(found, ignore_index=True)


def trained(folder):
    configs = []
    for kind in KINDS:
        given = setting(*kind)
        axes = dict(momenta=[given.pop("momentum")], lrs=[given.pop("lr")])
        axes["weight_decays"] = [given.pop("weight_decay")]
        configs += sweep.grid(**given, **axes, **NETWORK, epochs=SHORT)
    sweep.run(configs, folder, workers=1, measure_layers=True, progress=False, log_epochs=[])
    return layers_in(folder, SHORT)


@pytest.fixture(scope="module", params=["published", "trained by the chapter"])
def layers(request, tmp_path_factory):
    if request.param != "published":
        return trained(tmp_path_factory.mktemp("depth"))
    found = layers_in(PUBLISHED, LONG)
    if found.empty:
        pytest.skip("no run with its layers is published yet")
    return found


@pytest.fixture
def ends(layers):
    return layers[layers["epoch"] == layers["epoch"].max()]


def median(rows, column):
    kinds = ["hidden", "last", "decay", "position"]
    return rows.groupby(kinds)[column].median().unstack("position")


def test_every_kind_of_run_is_there_with_eight_layers(ends):
    assert set(ends.groupby(["hidden", "last", "decay"]).groups) == set(KINDS)
    assert set(ends.groupby("run_id")["position"].max()) == {8}


def test_depth_mixes_the_classes_before_training_and_parts_them_after_it(layers, ends):
    start = median(layers[layers["epoch"] == 0], "nc1")
    assert (np.diff(start) > 0).all()
    assert (start[8] > 2 * start[1]).all()
    end = median(ends, "nc1")
    assert (np.diff(end[[1, 2, 3, 4, 5, 6, 7]]) < 0).all()
    assert (end[8] < end[1] / 15).all()


def test_nc1_falls_by_about_one_factor_a_layer_and_weight_decay_makes_it_smaller(ends):
    fits = {}
    for (*kind, _), rows in ends.groupby(["hidden", "last", "decay", "run_id"]):
        x, y = rows["position"].to_numpy(float), np.log(rows["nc1"].to_numpy())
        assert np.corrcoef(x, y)[0, 1] ** 2 > 0.9
        fits.setdefault(tuple(kind), []).append(np.polyfit(x, y, 1)[0])
    for name in NUMBERS:
        assert max(fits[name, name, "strong"]) < min(fits[name, name, "none"])


def test_with_strong_decay_most_of_the_network_is_a_tunnel(ends):
    """Under each of the four optimizers, whatever the form of its decay."""
    strong = ends[(ends["decay"] == "strong") & (ends["hidden"] == ends["last"])]
    right = median(strong, "train_ncm_acc")
    least = 0.999 if strong["epoch"].max() == LONG else 0.99
    assert (right[3] >= least).all()
    assert (right[1] < 0.995).all()


def test_the_hidden_layers_optimizer_decides_and_the_last_layers_does_not(ends):
    """Medians over the layers, of NC1 and of the effective rank."""
    for column in ("nc1", "effective_rank"):
        table = np.log(median(ends[ends["decay"] == "strong"], column)).droplevel("decay")
        at = {pair: table.loc[pair] for pair in [("sgd", "sgd"), ("adamw", "adamw"), *PAIRS]}
        of_last = [at[h, "sgd"] - at[h, "adamw"] for h in ("sgd", "adamw")]
        of_hidden = [at["sgd", last] - at["adamw", last] for last in ("sgd", "adamw")]
        last, hidden = (np.median(np.abs(change)) for change in (of_last, of_hidden))
        assert hidden > 2 * last
    if ends["epoch"].max() == LONG:  # right before the last layer AdamW in it does no harm
        nc1 = median(ends[ends["decay"] == "strong"], "nc1")[8].droplevel("decay")
        for name in ("sgd", "adamw"):
            assert nc1[name, "adamw"] < nc1[name, "sgd"]


def test_muon_keeps_a_high_rank_for_longer(ends):
    strong = ends[(ends["decay"] == "strong") & (ends["hidden"] == ends["last"])]
    rank = median(strong, "effective_rank")[2].droplevel(["last", "decay"])
    more = 1.3 if strong["epoch"].max() == LONG else 1.0
    assert rank["muonw"] > more * rank.drop("muonw").max()
