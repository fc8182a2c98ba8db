"""What the chapter on depth says of its runs: of the published ones, and of short ones of the same
kinds, trained here."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ncbook import figures, store, sweep
from ncbook.metrics import rule

ROOT = Path(__file__).parents[1]
PUBLISHED = ROOT / "book" / "results"
PROSE = re.sub(r"\s*\n# *", " ", (ROOT / "notebooks" / "depth.py").read_text(encoding="utf-8"))
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


def layers_in(results, epochs, network=NETWORK):
    stored, found = store.load_runs(results, status="ok"), []
    for kind in KINDS:
        runs = figures.of_setting(stored, **network, **setting(*kind), epochs=epochs)
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


@pytest.fixture(scope="module")
def published():
    found = layers_in(PUBLISHED, LONG)
    if found.empty:
        pytest.skip("no run with its layers is published yet")
    return found


@pytest.fixture(scope="module", params=["published", "trained here"])
def layers(request, tmp_path_factory):
    if request.param != "published":
        return trained(tmp_path_factory.mktemp("depth"))
    return request.getfixturevalue("published")


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


# ------------------------------------------------------------ what the chapter writes out


@pytest.fixture
def final(published):
    return published[published["epoch"] == LONG]


def own(rows, decay="strong"):
    """Runs with one optimizer everywhere."""
    return rows[(rows["decay"] == decay) & (rows["hidden"] == rows["last"])]


def slope(rows):
    return 100 * np.exp(np.polyfit(rows["position"].astype(float), np.log(rows["nc1"]), 1)[0])


def halves(rows, name):
    """Percent of NC1 that a layer leaves in each half of the network: medians over the seeds."""
    rows = rows[rows["hidden"] == name]
    early = rows["position"] <= 4
    parts = (rows[early], rows[~early])
    return [part.groupby("run_id")[["position", "nc1"]].apply(slope).median() for part in parts]


def test_the_chapter_says_where_log_nc1_is_not_a_line(final):
    first, second = halves(own(final, "none"), "adam")
    assert f"a layer leaves {first:.0f} % of NC1 in the first half, and {second:.0f} %" in PROSE
    first, second = halves(own(final), "adamw")
    assert f"under AdamW from {first:.0f} % to {second:.0f} % a layer" in PROSE
    first, second = halves(own(final), "sgd")
    assert f"only under SGD, from {first:.0f} % to {second:.0f} %" in PROSE
    for decay in ("none", "strong"):
        falls = {name: halves(own(final, decay), name) for name in NUMBERS}
        steeper = {name for name, (first, second) in falls.items() if second < first}
        assert steeper == ({"sgd"} if decay == "none" else set(NUMBERS))


def test_the_chapter_says_how_well_the_line_fits(final):
    uniform = final[final["hidden"] == final["last"]]
    r2 = [
        np.corrcoef(rows["position"].astype(float), np.log(rows["nc1"]))[0, 1] ** 2
        for _, rows in uniform.groupby(["hidden", "decay", "run_id"])
    ]
    assert f"an R² of {int(100 * min(r2))} % or more" in PROSE


def test_the_chapter_says_where_the_tunnel_begins_and_with_which_rank(final):
    rows = own(final).sort_values("position")
    right = rows[rows["train_ncm_acc"] >= 0.999].groupby(["hidden", "run_id"]).first()
    assert set(right["position"]) == {2, 3}
    rank = right.groupby("hidden")["effective_rank"].median()
    assert (
        f"the rank is {rank['adam']:.0f} to {rank['adamw']:.0f} where the tunnel begins, close to "
        f"nine already; under SGD it is {rank['sgd']:.0f}, and under MuonW {rank['muonw']:.0f}"
    ) in PROSE


def test_the_form_of_decay_is_not_seen_in_most_layers(final):
    for column in ("nc1", "train_ncm_acc", "effective_rank"):
        table = median(own(final), column).droplevel(["last", "decay"])
        coupled, decoupled = table.loc[["sgd", "adam"]], table.loc[["adamw", "muonw"]]
        apart = (coupled.max() < decoupled.min()) | (decoupled.max() < coupled.min())
        assert apart.sum() < 4


def test_the_chapter_says_in_which_order_layers_collapse(published):
    table = published[published["hidden"] == published["last"]]
    table = table[table["decay"] == "strong"].groupby(["hidden", "position", "epoch"])["nc1"]
    table = table.median().unstack()
    first = (table < 0.1).idxmax(axis=1).where((table < 0.1).any(axis=1)).unstack()
    assert first[1].isna().all()
    others = first.drop("adamw")
    assert (others[[6, 7, 8]] <= 20).all(axis=None)
    assert (np.diff(first.loc[["sgd", "muonw"], [2, 3, 4, 5, 6, 7, 8]]) <= 0).all()
    assert others.loc["adam", [4, 5, 6, 7]].nunique() == 1
    assert others.loc["adam", 8] > others.loc["adam", 7]
    assert first.loc["adamw", [3, 4, 5, 6, 7, 8]].nunique() == 1
    assert first.loc["adamw", 3] > LONG / 3
    assert table.loc["adamw", 8][50] > table.loc["adamw", 8][20]
    one = published[(published["hidden"] == "adamw") & (published["last"] == "adamw")]
    one = one[(one["decay"] == "strong") & (one["nc1"] < 0.1)]
    one = one.groupby(["position", "seed"])["epoch"].min().unstack("seed")
    assert (one.loc[3:8] == 20).all().sum() == 1
    assert (one.loc[6:8] == 50).all().sum() == 1
    fall = np.log(table)
    late = (100 * (fall[66] - fall[LONG]) / (fall[0] - fall[LONG])).unstack()
    assert (late[[1, 2]] < 50).all(axis=None)
    assert late.loc["adam", 8] == late[8].min()
    assert late.loc["adamw", 8] == late[8].max()
    words = (
        f"{late.loc['adam', 8]:.0f} % of it under Adam, {late.loc['adamw', 8]:.0f} % under AdamW"
    )
    assert words in PROSE


def exchanged(rows, column):
    """AdamW over SGD, in the last layer and in the hidden ones: a row for what the rest has."""
    table = median(rows[rows["decay"] == "strong"], column).droplevel("decay")
    return [
        pd.DataFrame(
            {name: t.loc[name, "adamw"] / t.loc[name, "sgd"] for name in ("sgd", "adamw")}
        ).T
        for t in (table, table.swaplevel())
    ]


def test_the_chapter_says_how_far_back_the_last_layers_optimizer_reaches(final):
    last, hidden = exchanged(final, "nc1")
    most = 100 * (last[[1, 2, 3, 4]] - 1).abs().max(axis=None)
    assert f"changes NC1 by {most:.0f} % at most" in PROSE
    pairs = final[(final["decay"] == "strong") & final["hidden"].isin(["sgd", "adamw"])]
    cells = pairs[pairs["position"] <= 4].groupby(["hidden", "last", "position"])["nc1"]
    spread = (cells.max() / cells.min()).max()
    assert spread > 1 + most / 100
    assert f"in one cell the seeds differ by up to {spread:.1f} times" in PROSE
    begins = pairs[pairs["train_ncm_acc"] >= 0.999].groupby(["hidden", "last", "run_id"])
    begins = begins["position"].min().groupby(["hidden", "last"]).agg(set)
    assert len(begins) == 4
    assert set().union(*begins) == {2, 3}
    assert "begins after layer 2 or 3 in all four pairs" in PROSE
    assert (last[[5, 6]] > 1).all(axis=None)
    assert f"by up to a factor of {last[[5, 6]].max(axis=None):.1f}, and in" in PROSE
    by_seed = pairs.set_index(["hidden", "seed", "position", "last"])["nc1"].unstack("last")
    more = (by_seed["adamw"] > by_seed["sgd"]).groupby("position").agg(["sum", "size"])
    assert more.loc[4].tolist() == [5, 6]
    late = more.loc[[5, 6]].sum()
    assert f"in {late['sum']} of {late['size']} pairs of runs with one seed" in PROSE
    assert f"it is {last.loc['sgd', 7]:.2f} (SGD in the hidden layers) and " in PROSE
    assert f"and {last.loc['adamw', 7]:.2f} times as large (AdamW)" in PROSE
    assert more.loc[8].tolist() == [0, 6]
    less = 1 / last[8]
    assert f"by a factor of {less['adamw']:.1f} (AdamW in the hidden layers)" in PROSE
    assert f"or {less['sgd']:.1f} (SGD)" in PROSE
    size = [np.abs(np.log(table)) for table in (last, hidden)]
    assert (size[1].min() > size[0].max())[[1, 2, 3, 4, 5, 6]].all()


def test_the_chapter_says_whose_the_rank_of_the_first_layers_is(final):
    last, hidden = (table[[1, 2]] for table in exchanged(final, "effective_rank"))
    assert (hidden < 1 / 2).all(axis=None)
    assert (
        f"the last layer's optimizer by {100 * (last - 1).abs().max(axis=None):.0f} % at most"
        in PROSE
    )


def test_the_chapter_says_that_on_mnist_not_every_optimizer_has_a_tunnel():
    network = dict(dataset="mnist", train_size=6000, model="mlp", depth=8)
    rows = layers_in(PUBLISHED, 50, network)
    if rows.empty:
        pytest.skip("no run on MNIST with its layers is published yet")
    rows = own(rows[rows["epoch"] == 50]).sort_values("position")
    nc1 = median(rows, "nc1")
    assert (nc1[8] < nc1[1] / 15).all()
    right = rows[rows["train_ncm_acc"] >= 0.999]
    assert set(right[right["hidden"] == "muonw"].groupby("run_id")["position"].min()) == {3, 4}
    others = right[right["hidden"] != "muonw"]
    assert others["run_id"].nunique() < 9 / 2
    ends = store.load_runs(PUBLISHED, status="ok").set_index("run_id")["train_acc"]
    of = {name: ends[runs.unique()] for name, runs in rows.groupby("hidden")["run_id"]}
    assert (of.pop("muonw") == 1).all()
    least, most = (100 * f(map(f, of.values())) for f in (min, max))
    assert f"they end at {least:.1f} % to {most:.1f} % of the training samples" in PROSE


IMAGES = dict(dataset="fashion_mnist", train_size=2000, width=1 / 8)
ORDER = ["adam", "adamw", "sgd", "muonw"]


@pytest.fixture(scope="module")
def of_images():
    """The last epoch of both convolutional networks, with the fall of log NC1 into each layer."""
    parts = [layers_in(PUBLISHED, 100, IMAGES | {"model": m}) for m in ("resnet9", "vgg9")]
    rows = own(pd.concat(parts, ignore_index=True))
    if rows.empty:
        pytest.skip("no run of these networks with its layers is published yet")
    rows = rows[rows["epoch"] == 100].sort_values(["run_id", "position"])
    by_run = rows.groupby("run_id")
    fall = -np.log(rows["nc1"]).groupby(rows["run_id"]).diff()
    fewer = by_run["position"].transform("max") - rows["position"]
    return rows.assign(fall=fall, before=by_run["nc1"].shift(), from_the_end=fewer)


def test_the_chapter_says_where_nc1_falls_in_convolutional_networks(of_images):
    runs = of_images["run_id"].nunique()
    ends = store.load_runs(PUBLISHED, run_id=[*of_images["run_id"].unique()])["train_acc"]
    assert 0.999 <= ends.min() < 1
    assert f"All {runs} runs fit 99.9 % or more" in PROSE
    largest = of_images.loc[of_images.groupby("run_id")["fall"].idxmax(), "from_the_end"]
    assert f"In {(largest == 1).sum()} of the {runs} one layer, the last but one" in PROSE
    there = of_images[of_images["from_the_end"] == 1].groupby(["model", "hidden"])
    before, after = there["before"].median(), there["nc1"].median()
    words = f"from {before.min():.1f} to {before.max():.1f} before it to {after.min():.2f} to "
    assert f"{words}{after.max():.2f} after it (medians)" in PROSE
    second = of_images[of_images["position"] == 2]
    rise, adamw = second["nc1"] / second["before"], second["hidden"] == "adamw"
    words = f"*rises*, {int(rise[adamw].min())} to {rise[adamw].max():.0f} times in each of its six"
    assert words in PROSE
    assert adamw.sum() == 6
    assert f"rises by {rise[~adamw].max():.1f} times at most" in PROSE
    first = of_images[of_images["position"] == 1]
    assert set(first["width"]) == {8}
    nc1 = first.groupby(["hidden", "model"])["nc1"].median()
    others = nc1.drop("adamw")
    words = f"it is {others.min():.0f} to {others.max():.0f} under the others, and "
    words += f"{nc1['adamw', 'resnet9']:.1f} and {nc1['adamw', 'vgg9']:.1f} under AdamW (medians)"
    assert words in PROSE
    rank = first.groupby(["model", "hidden"])["effective_rank"].median().unstack()
    assert (rank["adamw"] == rank.min(axis=1)).all()
    assert f"lacks is rank: {rank.loc['resnet9', 'adamw']:.1f} and" in PROSE
    assert f"and {rank.loc['vgg9', 'adamw']:.1f}, the least of the four" in PROSE
    both = of_images[of_images["hidden"] == "adamw"].set_index(["run_id", "position"])
    less = both["cdnv"].unstack()[2] / both["cdnv"].unstack()[1]
    assert f"to {less.min():.2f} to {less.max():.2f} of what it was" in PROSE
    right = both["train_ncm_acc"].unstack()
    assert (right[2] > right[1]).all()


def test_the_chapter_says_that_their_tunnel_is_short(of_images):
    right = (of_images["train_ncm_acc"] >= 0.999)[::-1].groupby(of_images["run_id"]).cummin()
    tunnel = of_images[right[::-1]]
    entry = tunnel.loc[tunnel.groupby("run_id")["position"].idxmin()]
    usual = entry[entry["from_the_end"] == 1]
    assert set(usual.groupby("model")["position"].unique().map(tuple)) == {(6,), (5,)}
    runs = of_images["run_id"].nunique()
    assert f"in VGG9, in {len(usual)} of {runs} runs" in PROSE
    assert f"it is the last layer alone, in {len(usual)} of {runs} runs" in PROSE
    outside = of_images[of_images["from_the_end"] == 2]["train_ncm_acc"]
    words = f"right for {100 * outside.min():.0f} % to {100 * outside.max():.0f} % of the training"
    assert words in PROSE
    rank = entry.groupby(["model", "hidden"])["effective_rank"].median().unstack()[ORDER]
    assert (rank.diff(axis=1).iloc[:, 1:] > 0).all(axis=None)
    middle = of_images.groupby(["model", "position", "hidden"])["effective_rank"].median()
    ordered = (middle.unstack()[ORDER].diff(axis=1).iloc[:, 1:] > 0).all(axis=1)
    assert ordered.groupby("model").sum().to_dict() == {"resnet9": 1, "vgg9": 3}
    assert "In ResNet9 no other layer has it, in VGG9 three of six do" in PROSE
    told = [
        ", ".join(f"{r:.0f}" for r in row[:3]) + f" and {row[3]:.0f}" for row in rank.to_numpy()
    ]
    assert f"{told[0]} in ResNet9, {told[1]} in VGG9" in PROSE
    last = of_images[of_images["from_the_end"] == 0]
    last = last.groupby(["model", "hidden"])["effective_rank"].median()
    assert f"At the last layer it is {last.min():.0f} to {last.max():.0f}, far" in PROSE
    ends = store.load_runs(PUBLISHED, run_id=[*of_images["run_id"].unique()])
    collapsed = ends[rule.collapsed(ends)]
    assert f"rule {len(ends) - len(collapsed)} of the {len(ends)} have not collapsed" in PROSE
    assert [*zip(collapsed["model"], collapsed["optimizer"], strict=True)] == [
        ("vgg9", "muonw"),
        ("vgg9", "sgd"),
    ]


def test_the_chapter_says_what_its_first_picture_shows(final):
    rows = own(final)
    middle = {c: median(rows, c) for c in ("nc1", "train_ncm_acc", "effective_rank")}
    low, high = (f(middle["nc1"][1]) for f in (min, max))
    most = max(middle["nc1"][8])
    assert f"NC1 is {low:.2f} to {high:.2f} after layer 1, and {most:.4f} or less" in PROSE
    right = 100 * middle["train_ncm_acc"]
    words = f"right for {right[1].min():.1f} % to {right[1].max():.1f} % of the training samples"
    assert words in PROSE
    assert f"for {np.floor(10 * right[2].min()) / 10:.1f} % or more after layer 2" in PROSE
    assert (right[4] == 100).all()
    rank = middle["effective_rank"].droplevel(["last", "decay"])
    words = (
        "it is {sgd:.0f} under SGD, {adam:.0f} under Adam, {adamw:.0f} under AdamW and {muonw:.0f}"
    )
    assert words.format(**rank[2]) in PROSE
    assert f"after the last layer it is {rank[8].min():.1f} to {rank[8].max():.1f}" in PROSE
    assert median(rows, "nc1")[8].idxmin()[0] == "muonw"


def test_the_chapter_says_in_which_layers_the_forms_of_decay_part(final):
    found = []
    for column in ("nc1", "train_ncm_acc", "effective_rank"):
        table = median(own(final), column).droplevel(["last", "decay"])
        coupled, decoupled = table.loc[["sgd", "adam"]], table.loc[["adamw", "muonw"]]
        apart = (coupled.max() < decoupled.min()) | (decoupled.max() < coupled.min())
        found.append([*apart.index[apart]])
    assert found == [[1, 2, 8], [], [6, 7]]
    assert "in layers 1, 2 and 8 for NC1, in layers 6 and 7 for the rank" in PROSE
    right = median(own(final), "train_ncm_acc")
    assert (right[[3, 4, 5, 6, 7, 8]] > 0.999).all(axis=None)
    assert "nearly all samples from layer 3 on, in neither of the first two" in PROSE


def test_the_chapter_says_where_class_means_form_a_simplex(final):
    nc2 = own(final).pivot(index=["hidden", "run_id"], columns="position", values="nc2")
    assert nc2[[1, 2, 3, 4, 5, 6]].min(axis=None) > 0.13
    assert "NC2 stays above 0.13 in layers 1 to 6 of all 12 runs" in PROSE
    assert len(nc2) == 12
    words = f"in layer 7 below 0.1 in {(nc2[7] < 0.1).sum()} of {len(nc2)} runs"
    assert words in PROSE
    nc1 = own(final).pivot(index=["hidden", "run_id"], columns="position", values="nc1")
    most = nc1[[2, 3, 4, 5, 6]].max(axis=None)
    assert f"Layers 2 to 6 of eight have an NC1 of at most {most:.2f}" in PROSE
    assert nc2.loc["adamw", 8].min() > 0.1


def test_the_chapter_says_what_decay_and_the_tunnel_do(final):
    fits = final[final["hidden"] == final["last"]].groupby(["decay", "hidden", "run_id"])
    middle = fits[["position", "nc1"]].apply(slope).groupby(["decay", "hidden"]).median()
    spans = [f"{middle[d].min():.0f} % to {middle[d].max():.0f} %" for d in ("none", "strong")]
    assert f"leaves {spans[0]} of NC1, with a strong one {spans[1]}" in PROSE
    rows = own(final).sort_values("position")
    first = rows[rows["train_ncm_acc"] >= 0.999].groupby(["hidden", "run_id"]).first()
    last = rows.groupby(["hidden", "run_id"]).last()
    gain = 397 * (last["test_ncm_acc"] - first["test_ncm_acc"]).groupby("hidden").median()
    assert f"right for {gain.min():.0f} to {gain.max():.0f} more of 397" in PROSE
    before, after = ((397 * (1 - rows["test_ncm_acc"])).round() for rows in (first, last))
    fewer = before - after
    large = (3 * fewer > before).sum()
    words = (
        f"(medians; {fewer.min():.0f} to {fewer.max():.0f} by run), in {large} of {len(fewer)} runs"
    )
    assert f"{words} more than a third of the errors" in PROSE
    orders = np.log10(first["nc1"] / last["nc1"]).groupby("hidden").median()
    assert f"by {orders.min():.1f} to {orders.max():.1f} orders of magnitude (medians)" in PROSE


def test_the_chapter_says_what_an_untrained_network_does(published):
    start = published[published["epoch"] == 0].groupby("position")["nc1"].median()
    assert f"NC1 rises from {start[1]:.2f} in layer 1 to {start[8]:.2f} in layer 8" in PROSE
