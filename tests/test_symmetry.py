"""The flat direction: identities of the gauge, which optimizers are equivariant, and the numbers
that the chapter writes out."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from ncbook import figures, metrics, optim, store, theory
from ncbook.metrics import rule
from ncbook.theory import symmetry

ROOT = Path(__file__).parents[1]
PROSE = re.sub(r"\s*\n# *", " ", (ROOT / "notebooks" / "symmetry.py").read_text(encoding="utf-8"))
EXACT = 1e-12  # float64, twenty steps


@pytest.mark.parametrize("shift", [0.0, 0.3, 5.0])
def test_nc3_splits_into_a_gauge_part_and_the_rest(rng, shift):
    labels = torch.arange(40) % 4
    features = torch.tensor(rng.normal(size=(40, 6)) + 2 * np.eye(6)[labels])
    weight = torch.tensor(2 * np.eye(4, 6) + 0.3 * rng.normal(size=(4, 6)) + shift)
    found = metrics.nc_metrics(features, labels, weight)
    part = symmetry.gauge_part(found["nc3_centred"], found["gauge_share"])
    assert found["nc3"] ** 2 == pytest.approx(found["nc3_centred"] ** 2 + part, abs=EXACT)


class ByTorch:
    """Optimizers of torch, by name."""

    sgd = staticmethod(lambda p: torch.optim.SGD(p, 0.1, weight_decay=0.1))
    nesterov = staticmethod(lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True))
    muon = staticmethod(lambda p: torch.optim.Muon(p, 0.02, weight_decay=0.1))
    adamw = staticmethod(lambda p: torch.optim.AdamW(p, 0.01))
    rmsprop = staticmethod(lambda p: torch.optim.RMSprop(p, 0.01))
    adagrad = staticmethod(lambda p: torch.optim.Adagrad(p, 0.01))
    adafactor = staticmethod(lambda p: torch.optim.Adafactor(p, 0.01))


@pytest.mark.parametrize("name", ["sgd", "nesterov"])
def test_these_are_equivariant(name):
    found = symmetry.equivariance(getattr(ByTorch, name))
    assert found.error < EXACT
    assert found.leak < EXACT


@pytest.mark.parametrize("name", ["adamw", "rmsprop", "adagrad", "adafactor"])
def test_these_leak(name):
    found = symmetry.equivariance(getattr(ByTorch, name))
    assert found.error > 0.01
    assert found.leak > 0.01


def test_torchs_muon_is_equivariant_but_for_its_bfloat16():
    found = symmetry.equivariance(ByTorch.muon)
    assert 1e-6 < found.leak < 0.1


EQUIVARIANT = ("sgd", *optim.FOR_MATRICES)
# Rounding leaves 1e-16 along 1, which SOAP divides by its own root mean square plus 1e-8.
NEARLY = 1e-6


@pytest.mark.parametrize("name", optim.OPTIMIZERS)
def test_our_rules_are_what_their_direction_is(name):
    """Of a square matrix: L and R of others have a null space at first, in which SOAP may take any
    basis."""
    share = 0.5 if name.endswith("_mixed") else None
    found = symmetry.equivariance(
        lambda p: optim.Optimizer(p, name, 0.01, weight_decay=0.1, coupled_share=share), (8, 8)
    )
    equivariant = optim.rule(name).direction in EQUIVARIANT
    assert (found.error < NEARLY) == equivariant
    assert (found.leak < NEARLY) == (equivariant and name != "soap")


@pytest.mark.parametrize(("decay", "stays"), [(1e-7, True), (0.1, False)])
def test_under_soap_coupled_decay_makes_a_centred_weight_unstable(decay, stays):
    """Along 1 SOAP sees λu alone, and divides it by its own size plus 1e-8: so a step multiplies u
    by about 1 − ηλ/1e-8 while λu is below 1e-8, and rounding grows until each step is about η."""
    found = symmetry.equivariance(
        lambda p: optim.Optimizer(p, "soap", 0.01, weight_decay=decay), (8, 8)
    )
    assert (found.leak < NEARLY) == stays


def test_soap_leaks_where_the_gradient_has_other_null_directions_than_1():
    """With fewer features than K − 1: their basis is arbitrary, and mixes 1 with others."""
    found = symmetry.equivariance(lambda p: optim.Optimizer(p, "soapw", 0.01), (10, 6))
    assert found.leak > 0.01


@pytest.mark.parametrize(
    ("name", "shape"),
    [(name, shape) for name in ("muonw", "shampoow") for shape in ((10, 16), (10, 6), (3, 3))]
    + [("soapw", (10, 16)), ("soapw", (3, 3))],
)
def test_matrices_of_any_shape_do_not_leak(name, shape):
    found = symmetry.equivariance(lambda p: optim.Optimizer(p, name, 0.01, weight_decay=0.1), shape)
    assert found.leak < NEARLY


def test_the_noise_floor_is_what_a_simulation_leaves(rng):
    lrs = np.where(np.arange(400) < 200, 0.05, 0.005)
    u = np.full((20_000, 3), 2 / np.sqrt(3))
    for lr in lrs:
        u = (1 - lr * 0.5) * u - lr * rng.normal(scale=0.2, size=u.shape)
    simulated = np.sqrt((u**2).sum(1).mean())
    predicted = symmetry.noise_floor(lrs, 0.5, 0.2 * np.sqrt(3), start=2.0)
    assert simulated == pytest.approx(predicted, rel=0.02)


def test_a_tiny_singular_value_grows_by_the_gain():
    a, b, c = symmetry.NEWTON_SCHULZ
    x = 1e-9
    for _ in range(5):
        x = a * x + b * x**3 + c * x**5
    assert x / 1e-9 == pytest.approx(symmetry.NEWTON_SCHULZ_GAIN, rel=1e-6)


def still(params):
    return torch.optim.SGD(params, 0.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: symmetry.gauge_part(0.1, 1.5), r"gauge_share must be in \[0, 1\], got 1.5"),
        (lambda: symmetry.equivariance(ByTorch.sgd, (1, 3)), "classes must be a whole number"),
        (lambda: symmetry.equivariance(ByTorch.sgd, (3, 0)), "features must be a whole number"),
        (lambda: symmetry.equivariance(still), "the optimizer does not move the parameter"),
        (lambda: symmetry.noise_floor([0.1], -1, 0.1), "weight_decay must be in"),
    ],
)
def test_bad_input_gets_one_line(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# ------------------------------------------------------------ what the chapter writes out

NETWORKS = {
    "digits": dict(dataset="digits", model="mlp", epochs=200),
    "MNIST": dict(dataset="mnist", model="mlp", epochs=50, train_size=6000),
    "ResNet9": dict(
        dataset="fashion_mnist", model="resnet9", epochs=100, width=1 / 8, train_size=2000
    ),
}
PAIRED = dict(sgd=(0.0679, 0.05), adam=(0.005, 0.05), muonw=(0.02, 2.0))
PAIRED |= dict(adamw=(0.005, 5.0), signumw=(0.001, 5.0))
DECOUPLED = dict(sgdw=(0.0679, 0.5), shampoow=(0.02, 0.5), soapw=(0.005, 2.0))
DECOUPLED |= dict(lion=(0.0003, 5.0), mars=(0.005, 5.0))
MLPS = ("digits", "MNIST")
LEAKY = ["adamw", "signumw", "lion", "mars"]
EVEN = ["sgdw", "muonw", "shampoow", "soapw"]


@pytest.fixture(scope="module")
def stored():
    return store.load_runs(ROOT / "book" / "results", status="ok")


def test_the_first_picture(stored):
    settings = NETWORKS["digits"] | dict(momentum=0.9)
    for precision, names in (("float64", EVEN), ("float32", LEAKY)):
        runs = figures.uniform(figures.of_setting(stored, **settings, precision=precision))
        runs = runs[runs["optimizer"].isin(names) & (runs["weight_decay"] > 0)]
        assert set(runs["optimizer"]) == set(names)
        given = runs["lr"].to_numpy(float), 0.0, runs["weight_decay"].to_numpy(float)
        law = theory.row_sum_ratio(*given, 11, 200, 1.0)
        left = runs["nc0"] / runs["nc0_init"]
        if precision == "float32":  # at whatever decay, above its start
            assert left.min() > 1
        else:  # on the line, as far as it is drawn
            assert np.abs(np.log10(left.clip(1e-12) / law.clip(1e-12))).max() < 0.1


def test_soapw_stops_far_above_the_law(stored):
    runs = figures.uniform(stored[stored["optimizer"].eq("soapw") & stored["weight_decay"].gt(0)])
    runs = runs[runs["precision"] == "float32"]
    runs = runs[figures.exact_law(runs) < 2e-9]
    assert len(runs) >= 5
    assert (runs["nc0"] / runs["nc0_init"]).min() > 0.1
    assert "SOAPW keeps a tenth of it or more where the law leaves a billionth" in PROSE


def trained(stored, hidden, last, network="digits"):
    given = dict(zip(("lr", "weight_decay"), PAIRED[hidden], strict=True))
    if last != hidden:
        given |= dict(head_optimizer=last, head_momentum=0.9)
        given |= dict(zip(("head_lr", "head_weight_decay"), PAIRED[last], strict=True))
    given |= dict(optimizer=hidden, momentum=0.9)
    return figures.of_setting(stored, **NETWORKS[network], **given)


@pytest.fixture(scope="module")
def pairs(stored):
    """The runs of each pair of optimizers, of the hidden layers and of the last one."""
    return {(h, last): trained(stored, h, last) for h in PAIRED for last in PAIRED}


def medians(pairs, *columns):
    return pd.DataFrame({pair: runs[list(columns)].median() for pair, runs in pairs.items()}).T


def test_the_last_layers_column(pairs):
    assert {len(runs) for runs in pairs.values()} == {5}
    table = medians(pairs, "gauge_share", "nc3")
    kept = table.index.get_level_values(1).isin(["adamw", "signumw"])
    most, least = table[~kept].max(), table[kept].min()
    words = "the gauge share is at most {gauge_share:.4f} and NC3 at most {nc3:.3f}"
    assert words.format(**most) in PROSE
    assert "they are at least {gauge_share:.2f} and {nc3:.2f},".format(**least) in PROSE
    assert f"collapsed network, {table.loc[('adamw', 'sgd'), 'nc3']:.3f}" in PROSE


def test_the_last_layers_optimizer_decides_whether_a_network_collapses(pairs):
    found = {True: [], False: []}
    for (_, last), runs in pairs.items():
        found[last in ("adamw", "signumw")] += rule.collapsed(runs).tolist()
    assert all(found[False])
    assert not any(found[True])
    words = f"all {len(found[False])} runs with SGD, Adam or MuonW in the last layer have collapsed"
    assert f"{words}, and none of the {len(found[True])} with AdamW or SignumW" in PROSE
    collapsed, not_one = len(found[False]), len(found[True])
    assert f"last collapse, {collapsed} runs of {collapsed}, and with" in page("tour")
    assert f"not one of {not_one} " in page("tour")
    assert f"all {collapsed} runs of such pairs on the digits collapse" in page("intro")
    assert f"with AdamW or SignumW there none of {not_one} " in page("intro")
    assert f"all {collapsed} runs collapse, of the second none of {not_one}" in page(
        "contributions"
    )
    claims = " ".join((ROOT / "book" / "claims.yml").read_text(encoding="utf-8").split())
    words = f"all {collapsed} runs with SGD, Adam or MuonW in the last layer collapse, and none of "
    assert f"{words}the {not_one} with AdamW or SignumW" in claims
    nc2 = medians(pairs, "nc2")["nc2"].unstack()
    leaky = ["adamw", "signumw"]
    least = (nc2[leaky].min(axis=1) / nc2.drop(columns=leaky).max(axis=1)).min()
    assert f"at least {np.floor(10 * least) / 10:.1f} times as large under these two" in PROSE
    small = nc2[leaky].stack()
    assert list(small[small < rule.THRESHOLD].index) == [("signumw", "adamw")]
    bare = pairs["signumw", "adamw"]
    assert (bare[["nc1", "nc2", "nc3_centred"]].max(axis=1) < rule.THRESHOLD).all()
    assert f"but the gauge is missing, in each of its {len(bare)} seeds" in PROSE


def test_without_its_gauge_adamw_is_nearer_than_soapw_in_nc3_alone(stored):
    columns = ["nc3_centred", "nc2"]
    adamw = trained(stored, "adamw", "adamw")[columns].median()
    given = dict(zip(("lr", "weight_decay"), DECOUPLED["soapw"], strict=True))
    runs = figures.of_setting(stored, **NETWORKS["digits"], optimizer="soapw", **given)
    soapw = figures.uniform(runs[runs["momentum"] == 0.9])[columns].median()
    words = f"{adamw['nc3_centred']:.2f} and {soapw['nc3_centred']:.2f} on the digits, though"
    assert words in PROSE
    assert adamw["nc2"] > soapw["nc2"]


def test_float64_holds_the_law(stored):
    runs = stored.assign(law=figures.exact_law(stored), form=figures.products(stored))
    runs = runs[(runs["law"] > 1e-4) & (runs["form"] == "float64")]
    assert len(runs) > 20
    assert (runs["nc0"] / runs["nc0_init"] / runs["law"] - 1).abs().max() < 1e-7


def test_nc2_goes_with_the_centred_weight(pairs):
    middle = medians(pairs, "nc2", "nc2w_centred")
    leaky = middle.index.get_level_values(1).isin(["adamw", "signumw"])
    parts = middle, middle[~leaky], middle[leaky]
    ranks = [part["nc2"].corr(part["nc2w_centred"], method="spearman") for part in parts]
    words = "rank correlation {:.2f}, and {:.2f} and {:.2f} within the 15 pairs that collapse"
    assert words.format(*ranks) in PROSE


@pytest.mark.parametrize("p", [16, 64])
def test_a_weight_without_order_has_this_distance_from_a_simplex_in_the_mean(rng, p):
    """For columns of any lengths; and NC2W is a function of R alone."""
    K, lengths = 6, rng.uniform(0.5, 2, size=p)
    expected = (K - 2) * (lengths**4).sum() / (lengths**2).sum() ** 2
    found = []
    for _ in range(2000):
        C = rng.normal(size=(K, p))
        C -= C.mean(0)
        C *= lengths / np.linalg.norm(C, axis=0)
        X = C @ C.T
        found.append((K - 1) * (X**2).sum() / np.trace(X) ** 2 - 1)
        nc2w = metrics.etf_distance(torch.tensor(X)).item()
        assert nc2w**2 == pytest.approx(2 - 2 / (1 + found[-1]) ** 0.5, rel=1e-9)
        assert nc2w**2 <= found[-1]
    error = np.std(found) / 2000**0.5
    assert abs(np.mean(found) - expected) < 4 * error


def test_the_corner_of_theorem_33_is_a_simplex_once_centred():
    W = 2 * torch.eye(7, dtype=torch.float64) - 1
    assert metrics.etf_distance((W - W.mean(0)) @ (W - W.mean(0)).T).item() < 1e-12


COUPLED = ("sgd", "adam", "signum", "lionc", "muon", "shampoo", "soap")


def test_which_optimizers_bring_order(stored):
    runs = figures.converged(figures.of_setting(stored, **NETWORKS["digits"]))
    runs = runs[(runs["momentum"] == 0.9) & runs["nc2w_centred"].notna()]
    scale = (8 / 128) ** 0.5
    assert f"a disorder of {(runs['nc2w_centred_init'] / scale).median():.2f} (median)" in PROSE
    middle = runs.groupby(["optimizer", "weight_decay"])["nc2w_centred"].median() / scale
    free = middle.xs(0.0, level="weight_decay")
    assert f"without decay end with {free.min():.2f} to {free.max():.2f}" in PROSE
    least = middle[middle.index.get_level_values(1) > 0].groupby("optimizer").min()
    most, even, leaky, soapw = (
        f"{np.ceil(100 * least[list(COUPLED)].max()) / 100:.2f}",  # bounds hold as written
        f"{np.ceil(100 * least[['sgdw', 'muonw', 'shampoow']].max()) / 100:.2f}",
        f"{np.floor(100 * least[LEAKY].min()) / 100:.2f}",
        f"{np.floor(100 * least['soapw']) / 100:.2f}",
    )
    assert f"Coupled decay takes it to {most} or less, at the best λ, under every" in PROSE
    assert f"takes it to {even} or less under SGDW, MuonW and ShampooW" in PROSE
    assert f"at every λ {leaky} or more is left" in PROSE
    assert f"equivariant and loses its gauge: {soapw} or more is left" in PROSE
    words = f"{most} of the formula or less is left with coupled decay, {even} or less under SGDW, "
    words += (
        f"MuonW and ShampooW, {leaky} or more under AdamW, SignumW, Lion and MARS and {soapw} or "
    )
    assert words + "more under SOAPW" in page("contributions")
    assert f"any λ {leaky} of it or more" in page("claims.yml")
    assert f"and {even} or less, at the best λ, under all" in page("claims.yml")


def page(name):
    path = ROOT / "book" / (name if "." in name else f"{name}.md")
    return re.sub(r"\s+", " ", path.read_text(encoding="utf-8"))


def at_width(stored, p, name):
    lr, decay = {"signumw": (0.001, 10.0)}.get(name, PAIRED[name])
    given = dict(optimizer=name, lr=lr, weight_decay=decay, momentum=0.9, width=p / 128)
    runs = figures.converged(figures.of_setting(stored, **NETWORKS["digits"], **given))
    assert len(runs) >= 3
    filled = runs["w_norm"] * given["weight_decay"] / (10 * p) ** 0.5
    return runs.assign(filled=filled, disorder=runs["nc2w_centred"] / (8 / p) ** 0.5)


def test_how_disorder_differs_with_the_width(stored):
    widths = (32, 64, 128, 256, 512)
    corner, adamw, adam = (
        {p: at_width(stored, p, name) for p in widths} for name in ("signumw", "adamw", "adam")
    )
    assert all(abs(runs["filled"] - 1).max() < 0.01 for runs in corner.values())
    left = [corner[p]["disorder"].median() for p in widths]
    words = "disorder is {:.2f}, {:.2f}, {:.2f}, {:.2f} and {:.2f} from $p=32$ to 512"
    assert words.format(*left) in PROSE
    nc2 = [corner[p]["nc2"].median() for p in widths]
    assert nc2 == sorted(nc2, reverse=True)
    assert f"from {nc2[0]:.2f} to {nc2[-1]:.2f}. AdamW's" in PROSE
    ends = [adamw[p]["nc2"].median() for p in (32, 512)]
    narrow = {p: adamw[p]["nc2w_centred"].median() for p in widths}
    words = "AdamW's NC2 falls from {:.2f} to {:.2f}, its NC2W from {:.2f} to {:.2f} at 128 and no"
    assert words.format(*ends, narrow[32], narrow[128]) in PROSE
    assert min(narrow.values()) > narrow[128] - 0.005
    wide, ours = (adamw[p]["nc3_centred"].median() for p in (512, 128))
    words = (
        f"At 512 its disorder is {adamw[512]['disorder'].median():.2f}, its centred NC3 {wide:.2f}"
    )
    assert f"{words} (at 128 {ours:.2f})" in PROSE
    part = (1 - adamw[512]["nc3_centred"] ** 2 / adamw[512]["nc3"] ** 2).median()
    assert f"and gauge makes {100 * part:.0f} % of NC3²: there NC2 passes" in PROSE
    assert f"four times as wide, on digits: {100 * part:.0f} % (n = {len(adamw[512])})" in PROSE
    assert adamw[512]["nc2"].max() < 0.1 < adamw[512]["nc3_centred"].min()
    most = max(r[["nc2", "nc2w_centred"]].median().max() for r in adam.values())
    assert f"an NC2 and an NC2W of {np.ceil(100 * most) / 100:.2f} or less" in PROSE


def test_all_stored_corners(stored):
    runs = figures.converged(figures.uniform(stored[stored["model"] == "mlp"]))
    runs = runs[runs["optimizer"].isin(["signumw", "lion"]) & runs["depth"].isna()]
    runs = runs[runs["precision"].eq("float32") & runs["nc2w_centred"].notna()]
    p = 128 * runs["width"]
    runs = runs[runs["w_norm"] * runs["weight_decay"] / (10 * p) ** 0.5 >= 0.97]
    assert set(runs["dataset"]) == {"digits", "mnist"}
    left = runs["nc2w_centred"] / (8 / p[runs.index]) ** 0.5
    lion, ours = (runs["optimizer"] == "lion").sum(), (runs["width"] == 1).sum()
    assert f"{len(runs)} stored runs on digits and MNIST that learned end with ‖W‖ at 97 %" in PROSE
    assert lion == 3
    assert f"({len(runs) - lion} of SignumW and three of Lion; {ours} at our width)" in PROSE
    assert f"a disorder of {left.min():.2f} to {left.max():.2f}." in PROSE
    assert f"{len(runs)} runs on two data sets, {left.min():.2f} to {left.max():.2f} times" in PROSE
    told = " ".join((ROOT / "book" / "contributions.md").read_text(encoding="utf-8").split())
    assert f"In the {len(runs)} stored runs that learned and end in a corner" in told
    assert f"on two data sets, it is {left.min():.2f} to {left.max():.2f}, and" in told
    digits, mnist = left.groupby(runs["dataset"]).median()
    assert f"the median is {digits:.2f} on digits and {mnist:.2f} on MNIST" in PROSE
    steps = (runs["lr"] * runs["weight_decay"]).round(9)
    digits, mnist = left[steps == steps.max()].groupby(runs["dataset"]).median()
    assert (
        f"and {digits:.2f} and {mnist:.2f} at steps of $\\eta\\lambda = {steps.max():g}$" in PROSE
    )
    assert (runs.loc[left.nlargest(8).index, "dataset"] == "mnist").all()
    assert "largest on MNIST with large steps" in told


@pytest.mark.parametrize("network", NETWORKS)
def test_the_gauge_share_follows_the_last_layer_on_each_network(stored, network):
    shares = {
        last: pd.concat(
            [trained(stored, h, last, network)["gauge_share"] for h in ("sgd", "adamw")]
        )
        for last in ("sgd", "adamw")
    }
    assert shares["sgd"].max() < 1e-6
    assert shares["adamw"].min() > 0.3
    assert "from below a millionth to 0.3 or more" in PROSE


@pytest.fixture(scope="module")
def strong(stored):
    """Runs of each network at one strong decay for each optimizer."""
    wanted, found = pd.Series(PAIRED | DECOUPLED), {}
    for name, setting in NETWORKS.items():
        runs = figures.of_setting(stored, **setting, momentum=0.9)
        at = pd.Series([*zip(runs["lr"], runs["weight_decay"], strict=True)], runs.index)
        runs = figures.converged(runs[at == runs["optimizer"].map(wanted)])
        found[name] = runs.assign(gauge=1 - (runs["nc3_centred"] / runs["nc3"]) ** 2)
    return pd.concat(found, names=["network"]).reset_index("network")


def test_how_much_is_gauge(strong):
    even, leaky = (strong[strong["optimizer"].isin(names)] for names in (EVEN, LEAKY))
    assert (even["nc3"] / even["nc3_centred"]).max() < 1.05
    middle = leaky.groupby(["network", "optimizer"])[["nc3", "gauge"]].median()
    assert middle["nc3"].min() > 0.39
    least = middle["gauge"].drop("ResNet9").min()
    assert f"on the MLPs gauge makes at least {100 * least:.0f} % of their NC3²" in PROSE
    centred = strong.groupby(["network", "optimizer"])["nc3_centred"].median().unstack()
    assert (centred["adamw"] < centred["soapw"]).all()


def test_the_split_of_adamw(strong):
    columns = ["nc3", "nc3_centred", "nc2", "gauge"]
    groups = strong.groupby(["optimizer", "network"])
    middle, n = groups[columns].median(), groups.size()["adamw"]
    adamw, adam = middle.loc["adamw"], middle.loc["adam"]
    assert (
        f"it makes {100 * adamw['gauge']['digits']:.0f} % on the digits (n = {n['digits']}) and "
        f"{100 * adamw['gauge']['MNIST']:.0f} % on MNIST (n = {n['MNIST']})"
    ) in PROSE
    raw, centred = ({f"{adamw[c][name]:.2f}" for name in MLPS} for c in columns[:2])
    assert f"NC3 is {raw.pop()} on both, and {centred.pop()} without its gauge" in PROSE
    assert not raw | centred
    assert "Adam's is {digits:.2f} and {MNIST:.2f}".format(**adam["nc3"]) in PROSE
    pairs = [f"{adamw['nc2'][name]:.2f}" for name in MLPS]
    others = [f"{adam['nc2'][name]:.2f}" for name in MLPS]
    assert f"it is {pairs[0]} under AdamW and {others[0]} under Adam on the digits" in PROSE
    assert f"{pairs[1]} and {others[1]} on MNIST" in PROSE


def test_the_resnet9_does_not_collapse(stored):
    runs = figures.of_setting(stored, **NETWORKS["ResNet9"], momentum=0.9)
    assert len(runs) >= 20
    assert not rule.collapsed(figures.converged(runs)).any()


def test_what_passes_need_not_collapse(stored):
    runs = figures.of_setting(stored, **NETWORKS["digits"])
    runs = figures.converged(figures.uniform(runs[runs["weight_decay"] > 0]))
    own = {name: runs[runs["optimizer"] == name] for name in ("shampoow", "soapw")}
    words = "none of ShampooW's {shampoow} and SOAPW's {soapw} converged runs"
    assert words.format(**{name: len(rows) for name, rows in own.items()}) in PROSE
    assert not rule.collapsed(pd.concat(own.values())).any()
