"""The back matter (guide, contributions, related work): each number written out is what the store
or the theory says, each line of code runs, and each place that is named exists."""

import re
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from test_claims import names_in
from test_depth import exchanged, layers_in

from ncbook import figures, metrics, optim, store, sweep, theory, train
from ncbook.metrics import rule
from ncbook.pages import claims, six_grids
from ncbook.theory import leaks, symmetry

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "book" / "results"
PAGES = {
    name: (ROOT / "book" / f"{name}.md").read_text(encoding="utf-8")
    for name in ("guide", "contributions", "related")
}
PROSE = {
    name: re.sub(r"\s+", " ", (ROOT / "book" / f"{name}.md").read_text(encoding="utf-8"))
    for name in (*PAGES, "tour", "intro")
}
every_page = pytest.mark.parametrize("name", PAGES)

STRONG = dict(sgd=(0.0679, 0.05), adam=(0.005, 0.05), muonw=(0.02, 2.0))
STRONG |= dict(adamw=(0.005, 5.0), signumw=(0.001, 5.0))  # learning rate, weight decay
FALLS = ["sgd", "adam", "muonw"]  # the optimizers under which NC0 falls
DIGITS = dict(dataset="digits", model="mlp", epochs=200)
MNIST = dict(dataset="mnist", model="mlp", epochs=50, train_size=6000)
FASHION = dict(dataset="fashion_mnist", model="resnet9", epochs=100, train_size=2000, width=0.125)
K, WIDTH, STEPS = 10, 128, 11
FACTORS = np.repeat([train.learning_rate_factor(e, 200) for e in range(200)], STEPS)


def says(page, *sentences):
    for sentence in sentences:
        assert sentence in PROSE[page], sentence


def power(value):
    """As the pages print it: 2·10⁻⁷."""
    return claims.typeset(f"{value:.0e}")


@cache
def stored():
    return store.load_runs(RESULTS, status="ok")


@pytest.fixture(scope="module")
def numbers():
    rows = claims.read_rows(RESULTS)
    measures = ("symmetry", "exact_law", "ends", "momentum", "nc4")
    return {name: claims.take(name, rows) for name in measures}


def of(optimizer, **setting):
    """Runs of one optimizer on digits, momentum 0.9."""
    given = dict(optimizer=optimizer, momentum=0.9)
    return figures.of_setting(stored(), **DIGITS | given | setting)


def of_pair(hidden, last, network):
    """Runs with one optimizer in the hidden layers and one in the last."""
    (lr, decay), (head_lr, head_decay) = STRONG[hidden], STRONG[last]
    given = dict(optimizer=hidden, lr=lr, weight_decay=decay, momentum=0.9)
    if last != hidden:
        given |= dict(head_optimizer=last, head_lr=head_lr, head_weight_decay=head_decay)
        given |= dict(head_momentum=0.9)
    found = figures.of_setting(stored(), **network, **given)
    found = found[found["nc3_centred"].notna()]
    return found.assign(hidden=hidden, last=last, left=found["nc0"] / found["nc0_init"])


def pairs(network):
    return pd.concat([of_pair(hidden, last, network) for hidden in STRONG for last in STRONG])


# ------------------------------------------------------------ what the pages point to


@every_page
def test_the_pages_are_in_the_book_before_the_references(name):
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    files = re.findall(r"file: (\S+)", yaml.safe_dump(toc))
    assert f"book/{name}" in files
    assert files.index(f"book/{name}") < files.index("book/references")


@every_page
def test_every_test_that_is_named_exists(name):
    for file, test in re.findall(r"`(tests/\w+\.py)::(\w+)`", PROSE[name]):
        assert names_in(file).count(test) == 1, test


@every_page
def test_every_label_and_work_that_is_named_exists(name):
    sources = [*(ROOT / "notebooks").glob("*.py"), *(ROOT / "book").glob("*.md")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    equations = set(re.findall(r"\$\$ \(([\w-]+)\)", text))
    sections = set(re.findall(r"^(?:# )?\(([\w-]+)\)=$", text, re.M))
    works = set(re.findall(r"^@\w+{(\w+),", (ROOT / "book/references.bib").read_text(), re.M))
    assert set(re.findall(r"{eq}`(.+?)`", PAGES[name])) <= equations
    assert set(re.findall(r"{ref}`(.+?)`", PAGES[name])) <= sections
    cited = ",".join(re.findall(r"{cite}`(.+?)`", PAGES[name])).split(",")
    assert set(filter(None, cited)) <= works


def test_each_contribution_has_a_row_a_status_a_neighbour_and_a_place():
    parts = re.split(r"^\(contribution-(\d+)\)=$", PAGES["contributions"], flags=re.M)
    found = dict(zip(map(int, parts[1::2]), parts[2::2], strict=True))
    assert list(found) == list(range(1, 14))
    table = dict(re.findall(r"^\| (\d+) \| (.+?) \|", parts[0], re.M))
    for number, part in found.items():
        assert f"## {number}. {table[str(number)]}" in part
        for word in ("Status", "Nearest prior work", "Where"):
            assert part.count(f"**{word}.**") == 1
        assert re.search(r"`tests/\w+\.py::test_\w+`", part)


# ------------------------------------------------------------ contributions


def test_the_law_and_momentum(numbers):
    law, momentum = numbers["exact_law"], numbers["momentum"]
    says(
        "contributions",
        f"Of {law['n']:,} stored runs of the digits MLP, {law['seen']} should end with NC0 above "
        f"0.01, and none of these is off by more than {np.ceil(2e4 * law['off']) / 200:.3f} %",
        f"Of {momentum['below']} steps up in momentum below β* between stored SGD runs of the "
        f"digits MLP, all {momentum['below_nc0']} lower NC0, and {momentum['below_nc3']} lower NC3",
    )
    found = numbers["symmetry"]
    says("contributions", f"Of {found['wide']} stored float64 runs", "off by more than 10⁻⁷")
    says("contributions", f"SOAPW is, by up to {found['far']:.0%}".replace("%", " %"))
    assert found["off"] < 1e-7


def test_who_collapses_with_decoupled_decay(numbers):
    ends, beyond = numbers["ends"], numbers["symmetry"]
    n = {name: beyond[f"{name}_n"] for name in sweep.BEYOND}
    says(
        "contributions",
        f"{beyond['muonw_collapsed']} of {n['muonw']} of MuonW collapsed, the best with an NC3 of "
        f"{beyond['muonw_nc3']:.3f}; {ends['sgdw_collapsed']} of {ends['sgdw_n']} of SGDW",
        f"None of {n['lion']} of Lion, {n['mars']} of MARS, {ends['adamw_n']} of AdamW and "
        f"{ends['signumw_n']} of SignumW did",
        f"none of {n['shampoow']} of ShampooW and {n['soapw']} of SOAPW either",
    )
    runs = figures.converged(store.load_runs(RESULTS, optimizer=["soap", "lionc", "shampoo"]))
    runs = figures.of_setting(runs, dataset="digits", model="mlp", epochs=200)
    runs = runs[runs["weight_decay"] > 0]
    some = [rule.collapsed(rows).agg(["sum", "size"]) for _, rows in figures.by_optimizer(runs)]
    of = dict(zip([name for name, _ in figures.by_optimizer(runs)], some, strict=True))
    words = {name: f"{counts['sum']} of {counts['size']}" for name, counts in of.items()}
    says(
        "contributions",
        f"coupled, {words['soap']} runs of SOAP and {words['lionc']} of Lion collapse",
        f"For Shampoo, coupled {words['shampoo']}, they say little",
    )
    none = [beyond[f"{name}_collapsed"] for name in ("lion", "mars", "shampoow", "soapw")]
    assert [*none, ends["adamw_collapsed"], ends["signumw_collapsed"]] == [0] * 6


def test_the_guide_says_when_adams_nc0_falls_and_what_momentum_does_to_signumws():
    runs = figures.converged(six_grids.complete(six_grids.stored(RESULTS)))
    runs = runs.assign(left=lambda rows: rows["nc0"] / rows["nc0_init"])
    adam = runs[(runs["optimizer"] == "adam") & (runs["weight_decay"] > 0)]
    fell, strong = adam["left"] < 1, adam["weight_decay"] >= 0.05
    assert fell[strong].all()
    says(
        "guide",
        f"fell in all {strong.sum()} converged runs with λ of 0.05 or more, but in "
        f"{fell[~strong].sum()} of {(~strong).sum()} with less",
    )
    signumw = runs[(runs["optimizer"] == "signumw") & (runs["lr"] == 0.001)]
    signumw = signumw[signumw["weight_decay"] == 0.5].groupby("momentum")["left"].median()
    says("guide", f"ends at {signumw[0]:.0f} times its start without momentum, at ")
    says("guide", f"at {signumw[0.98]:.1f} times with 0.98")


def split(network):
    rows = of_pair("adamw", "adamw", network)
    share = 1 - (rows["nc3_centred"] / rows["nc3"]) ** 2
    middle = rows[["nc3", "nc3_centred", "nc2"]].median()
    adam = of_pair("adam", "adam", network)["nc2"].median()
    return len(rows), *middle, f"{100 * share.median():.0f} %", adam


def test_the_split_on_three_data_sets():
    n, nc3, centred, nc2, share, adam = split(DIGITS)
    says("contributions", f"(n = {n}): NC3 is {nc3:.2f}, and {centred:.2f} without its gauge")
    says("contributions", f"which makes {share} of NC3²")
    says("guide", f"λ = 5 NC3 is {nc3:.2f}, and {centred:.2f} centred (n = {n})")
    says("contributions", f"is {nc2:.2f} on digits (Adam with λ = 0.05: {adam:.2f})")
    n, nc3, centred, nc2, share, adam = split(MNIST)
    says("contributions", f"50 epochs (n = {n}): {nc3:.2f}, {centred:.2f} and {share}")
    says("contributions", f"and {nc2:.2f} on MNIST (Adam: {adam:.2f})")
    n, nc3, centred, _, share, _ = split(FASHION)
    adam = of_pair("adam", "adam", FASHION)["nc3"].median()
    says("contributions", f"100 epochs (n = {n}): {nc3:.2f}, {centred:.2f} and {share}")
    says("contributions", f"There Adam's NC3 is {adam:.2f}, and neither")


def test_the_last_layer_decides_in_every_pair():
    digits, mnist = pairs(DIGITS), pairs(MNIST)
    assert digits.groupby(["hidden", "last"]).size().tolist() == [5] * 25
    sizes = mnist.groupby(["hidden", "last"]).size()
    assert len(sizes) == 10
    assert {*sizes} == {3, 5}
    says("contributions", "ten pairs, three to five seeds")
    falls = digits["last"].isin(FALLS)
    assert digits["left"][falls].max() <= 0.03
    says("contributions", f"or SignumW at {digits['left'][~falls].min():.1f} times or more")
    good = mnist["last"].isin(FALLS)
    assert mnist["left"][good].max() <= 0.03
    says("contributions", f"and {mnist['left'][~good].min():.1f} times or more")
    after = mnist[mnist["hidden"] == "adamw"].groupby("last")
    collapses = after.apply(lambda rows: f"in {rule.collapsed(rows).sum()} of {len(rows)}")
    words = f"SGD in the last one the network collapses {collapses['sgd']} seeds, with Adam "
    nc2 = f"{after['nc2'].median()['adam']:.3f}"
    says("contributions", f"{words}{collapses['adam']}: there NC2 ends at {nc2}")
    says("tour", f"MNIST's MLP with Adam last and AdamW before it (NC2 {nc2})")
    assert max(digits["nc3"][falls].max(), mnist["nc3"][good].max()) < 0.05
    says("guide", f"below 0.05 in all {falls.sum()} runs on digits, of 15 pairs")
    says("guide", f"and in all {good.sum()} on MNIST, of 5 pairs")


def test_what_small_vgg9s_do_on_fashion_mnist():
    """Where, of three seeds each, runs of Adam, Muon, SGD and Signum come below the threshold."""
    runs = store.load_runs(RESULTS, dataset="fashion_mnist", model="vgg9")
    runs = figures.uniform(figures.converged(runs))
    ends = rule.outcome(runs).groupby(runs["optimizer"])
    found = {name: (o.eq(rule.COLLAPSED).sum(), o.eq(rule.BUT_GAUGE).sum()) for name, o in ends}
    none = dict.fromkeys(("adamw", "sgdw", "signumw"), (0, 0))
    assert found == none | {"adam": (0, 1), "muonw": (1, 0), "sgd": (1, 0), "signum": (1, 0)}
    assert set(runs.groupby(["optimizer", "lr", "weight_decay"]).size()) == {3}
    says("tour", "one run of Signum collapsed (and one of Adam's but for gauge)")
    says("tour", "one of three narrow VGG9s on Fashion-MNIST")
    says("intro", "one of Adam would have, with the part of W along the flat direction left out)")
    says("guide", "On small convolutional networks one run of Signum and none of Adam collapsed")


def test_runs_of_signs_and_their_bound():
    runs = pd.concat([of("signumw"), of("lion")])
    bounds = [
        leaks.sign_bound(run.lr * FACTORS, run.weight_decay, K, WIDTH, run.nc0_init)
        for run in runs.itertuples()
    ]
    share = runs["nc0"] / bounds
    assert share.max() < 0.61
    there = share[runs["lr"] * FACTORS.sum() * runs["weight_decay"] >= 4]
    says("contributions", f"All {len(runs)} stored runs of the two")
    says("contributions", f"the {len(there)} that had time for a balance come to {there.min():.2f}")


def floors():
    """Runs of MuonW and SOAPW, with the NC0 that the law and rounding leave."""
    formats = [None, "bfloat16"]
    runs = pd.concat(
        [of(name, update_precision=form) for name in ("muonw", "soapw") for form in formats]
    )
    runs = runs.assign(format=figures.products(runs))
    predicted = []
    for run in runs.itertuples():
        muon = run.optimizer == "muonw"
        s, memory = leaks.muon_leak(K, run.format) if muon else leaks.soap_leak(K, WIDTH)
        given = run.lr * FACTORS, run.weight_decay, s, run.nc0_init, memory
        predicted.append(symmetry.noise_floor(*given))
    return runs.assign(predicted=predicted, law=figures.exact_law(runs) * runs["nc0_init"])


def test_the_floor_is_predicted_in_part():
    runs = floors()
    runs = runs[runs["optimizer"].eq("muonw") | runs["format"].eq("bfloat16")]
    ruled = runs[runs["predicted"] ** 2 > 2 * runs["law"] ** 2]  # the floor exceeds the law
    inside = (ruled["predicted"] / ruled["nc0"]).between(1 / 2, 2).sum()
    orders = np.log10(ruled["nc0"].max() / ruled["nc0"].min())
    says(
        "contributions",
        f"In {len(ruled)} of {len(runs)} stored runs on the digits MLP (MuonW in float32 and",
        f"exceeds what the law leaves, and {inside} of these are predicted within a factor of 2, "
        f"over {orders:.0f} orders of magnitude",
    )


def test_nc0_stays_in_the_model_as_written():
    rng = np.random.default_rng(0)
    start = 0.4 * rng.standard_normal((20, 8)), 0.4 * rng.standard_normal((4, 8))
    _, features, weights = theory.normalised_descent(*start, lr=0.1, steps=1000, log_every=1000)
    path = metrics.member_metrics(features, np.repeat(np.arange(4), 5), weights)
    first, last = ({name: float(v[at]) for name, v in path.items()} for at in (0, -1))
    assert last["nc0"] == pytest.approx(first["nc0"], rel=1e-10)
    assert last["nc1"] < 1e-8
    assert last["nc2"] < 0.001
    says(
        "contributions",
        f"NC0 is {last['nc0']:.2f} throughout, while NC1 falls from {first['nc1']:.1f} to "
        f"below 10⁻⁸, NC2 from {first['nc2']:.2f} to below 0.001 and NC3 from "
        f"{first['nc3']:.2f} to {last['nc3']:.3f}",
    )


def test_how_far_back_the_last_layers_optimizer_reaches():
    rows = layers_in(RESULTS, 200)
    last, _ = exchanged(rows[rows["epoch"] == 200], "nc1")
    most, ends = 100 * (last[[1, 2, 3, 4]] - 1).abs().max(axis=None), 1 / last[8]
    says(
        "contributions",
        f"by {most:.0f} % at most, and of layer 8 by a factor of {ends['adamw']:.1f} or "
        f"{ends['sgd']:.1f}",
    )


# ------------------------------------------------------------ related work


def test_the_critical_momentum_next_to_that_of_kunin_et_al():
    """Their oscillator, in their published code, has damping γ = (1 − β)/(η(1 + β)) and frequency
    ω with ω² = 2λ/(η(1 + β)); γ = ω is critical."""
    lr, decay = 0.0679, 0.05
    ours = theory.critical_momentum(lr, decay)
    says("related", f"it is {ours:.4f} by our formula and 0.8868 by the one in their code")
    off = [(1 - beta) ** 2 - 2 * lr * decay * (1 + beta) for beta in (0.88675, 0.88685)]
    assert off[0] > 0 > off[1]


class CoupledAdam(torch.optim.Optimizer):
    """Adam with its second moment averaged over the rows (Stollenwerk and Stollenwerk, 2025)."""

    def __init__(self, params, lr=0.01):
        super().__init__(params, dict(lr=lr))

    @torch.no_grad()
    def step(self):
        (weight,) = self.param_groups[0]["params"]
        state, gradient = self.state[weight], weight.grad
        t = state["t"] = state.get("t", 0) + 1
        state["m"] = 0.9 * state.get("m", 0) + 0.1 * gradient
        state["v"] = 0.999 * state.get("v", 0) + 0.001 * (gradient**2).mean(0)
        size = (state["v"] / (1 - 0.999**t)).sqrt() + 1e-8
        weight -= self.defaults["lr"] * state["m"] / (1 - 0.9**t) / size


def test_coupled_adam_passes_the_test_of_the_reflection():
    says("related", "their Coupled Adam passes our test of the reflection")
    found = symmetry.equivariance(CoupledAdam)
    assert max(found.error, found.leak) < 1e-12
    assert symmetry.equivariance(torch.optim.Adam).leak > 0.01


def test_there_are_nine_further_rules():
    assert len(sweep.BEYOND) == 9
    says("related", "runs of nine further update rules")


# ------------------------------------------------------------ guide


def blocks():
    return re.findall(r"```python\n(.*?)```", PAGES["guide"], re.DOTALL)


def small_network():
    torch.manual_seed(0)
    layers = dict(body=torch.nn.Linear(4, 6), relu=torch.nn.ReLU(), fc=torch.nn.Linear(6, 3))
    net = torch.nn.Sequential()
    for name, layer in layers.items():
        net.add_module(name, layer)
    return net


def test_the_lines_of_code_do_what_the_guide_says():
    net = small_network()
    x, labels = torch.randn(12, 4), torch.arange(12) % 3
    features = net.relu(net.body(x)).detach()
    names = dict(net=net, torch=torch, Optimizer=optim.Optimizer, features=features)
    names |= dict(labels=labels, nc_metrics=metrics.nc_metrics)
    two, centre, centred, log = blocks()
    exec(two, names)
    sizes = [sum(len(g["params"]) for g in names[n].param_groups) for n in ("adamw", "sgd")]
    assert sizes == [2, 2]
    before = net(x).softmax(1)
    exec(centre, names)
    assert torch.allclose(net(x).softmax(1), before, atol=1e-6)
    exec(centred, names)
    torch.nn.functional.cross_entropy(net(x), labels).backward()
    names["head"].step()
    exec(log, names)
    assert names["share"] < 1e-6
    assert all(np.isfinite(names[name]) for name in ("nc1", "nc2", "nc3"))


def test_how_many_collapsed_with_and_without_decay(numbers):
    ends = numbers["ends"]
    counts = [ends[f"{kind}_{what}"] for kind in ("free", "decayed") for what in ("collapsed", "n")]
    says("guide", f"({counts[0]} of {counts[1]}); with decay {counts[2]} of {counts[3]:,} did")
    shampoo = {name: numbers["symmetry"][f"shampoow_{name}"] for name in ("n", "fell", "collapsed")}
    assert shampoo["n"] == shampoo["fell"] > shampoo["collapsed"] == 0


@pytest.mark.parametrize(("setting", "seeds"), [(DIGITS, 5), (MNIST, 3)])
def test_on_both_mlps_adam_and_signum_collapse_in_each_seed(setting, seeds):
    runs = figures.of_setting(figures.uniform(stored()), **setting)
    runs = figures.on_grid(runs, sweep.GRIDS)
    assert (runs[runs["seed"] < seeds].groupby("optimizer").size() == 108 * seeds).all()
    good = figures.converged(runs[runs["weight_decay"] > 0])
    collapsed = good[rule.collapsed(good)].groupby("optimizer")["seed"].unique().map(set)
    assert {"adam", "signum"} <= {*collapsed.index} <= {"sgd", "sgdw", "adam", "signum"}
    assert (collapsed.map(set(range(seeds)).issubset)).all()
    says("tour", "MLPs, 108 settings each: digits (five seeds), 6,000 MNIST images (three)")


def test_the_settings_that_the_guide_recommends_collapsed():
    for name, (lr, decay) in dict(STRONG, sgdw=(0.0679, 0.5)).items():
        runs = of(name, lr=lr, weight_decay=decay)
        runs = runs[runs["seed"] < 5]
        assert len(runs) == 5
        assert rule.collapsed(runs).all() == (name not in ("adamw", "signumw"))
    for name in ("sgd", "adam"):
        assert of(name, lr=STRONG[name][0], weight_decay=0.5)["train_acc"].max() < 0.2


def test_nc1_under_adamw_falls_with_decay():
    free, decayed = (of("adamw", lr=0.005, weight_decay=d)["nc1"].median() for d in (0.0, 5.0))
    says("guide", f"NC1 is {free:.3f} without decay and {decayed:.3f} with λ = 5")
    runs = of("adamw", lr=0.005, weight_decay=5.0)
    assert runs["nc2"].min() > rule.THRESHOLD
    says("guide", f"AdamW's NC2 stays at {runs['nc2'].median():.2f} (λ = 5, median of five seeds)")


def cosine(lr, steps):
    return lr * (1 + np.cos(np.pi * (np.arange(steps) + 0.5) / steps)) / 2


def left(lrs, decay, momentum=0.0, decoupled=True):
    return abs(theory.row_sum_stepped(lrs, momentum, decay, decoupled)[-1])


def test_the_law_worked_with_numbers():
    rates = cosine(0.1, 90 * 5004)
    says("guide", f"90 epochs of 5,004 steps: the sum is {rates.sum():,.0f}")
    wanted = np.log(1000) / rates.sum()
    says("guide", f"needs λ = {claims.typeset(f'{wanted:.1e}')} under SGDW")
    says("guide", f"a tenth of it, {claims.typeset(f'{wanted / 10:.1e}')}, under SGD")
    assert left(rates, wanted) == pytest.approx(1e-3, rel=0.01)
    assert left(rates, wanted / 10, 0.9, decoupled=False) == pytest.approx(1e-3, rel=0.01)
    says("guide", f"λ = 10⁻⁴ under SGD leaves {power(left(rates, 1e-4, 0.9, decoupled=False))}:")
    rates = cosine(0.02, 10_000)
    says("guide", f"10,000 steps: the sum is {rates.sum():.0f}")
    says("guide", f"NC0 falls to {power(left(rates, 0.1))} of its start")
    says("guide", f"With λ = 0.01 it stays at {left(rates, 0.01):.2f} of it")
    paper = theory.row_sum_ratio(0.0679, 0.9, 5e-4, 469, 200, decoupled=True)
    says("guide", f"The formula says −{100 * (1 - paper):.1f} %")
    says("guide", f"{FACTORS.mean():.2f}\\,\\eta T")


def test_the_critical_momentum_worked_with_numbers():
    given = ((0.1, 5e-4), (0.1, 0.01), (0.0679, 0.05))
    first, second, third = (f"{theory.critical_momentum(*pair):.3f}" for pair in given)
    says("guide", f"With η = 0.1 and λ = 5·10⁻⁴ it is {first}", f"λ = 0.01 it is {second}")
    says("guide", f"λ = 0.05 it is {third}: there 0.9 is already too much")


def short(value):
    """Two digits, and three below 0.1."""
    return power(value) if value < 1e-3 else f"{value:.{2 + (value < 0.095)}f}"


def test_the_table_of_the_last_layers_optimizer():
    middle = pairs(DIGITS).groupby("last")[["gauge_share", "nc3", "nc3_centred"]].median()
    for name, row in middle.iterrows():
        cells = " | ".join(map(short, row))
        says("guide", f"| {figures.LABELS[name]}, λ = {STRONG[name][1]:g} | {cells} |")


def gauge(name, form, decay, **setting):
    runs = of(name, weight_decay=decay, update_precision=form, **setting)
    assert 3 <= len(runs) <= 11
    return power(runs["gauge_share"].median())


def test_adamws_nc0_on_a_resnet9():
    """That AdamW does not take NC0 near zero, and lets it fall a little."""
    runs = store.load_runs(RESULTS, model="resnet9", optimizer="adamw", status="ok")
    runs = figures.uniform(figures.converged(runs[runs["weight_decay"] > 0]))
    left = runs["nc0"] / runs["nc0_init"]
    assert (left < 1).mean() > 1 / 2  # "often"
    assert left.median() > 0.5  # "a little"
    says("guide", f"AdamW's ends at {left.min():.2f} of its start at the least, on a ResNet9")


def test_the_table_of_floors():
    says("guide", f"| SGD, λ = 0.05 | {gauge('sgd', None, 0.05, lr=0.0679)} | – |")
    for name, label in (("muonw", "MuonW"), ("soapw", "SOAPW")):
        cells = " | ".join(gauge(name, form, 2.0) for form in (None, "bfloat16"))
        says("guide", f"| {label}, λ = 2 | {cells} |")
    weak = of("muonw")
    weak = weak[(weak["lr"] >= 0.02) & weak["weight_decay"].between(0.05, 0.1)]
    assert (weak["nc0"] > weak["nc0_init"]).all()
    says("guide", "In float32 it did not fall on the digits at this η and λ")
    assert len(weak) >= 12


def test_nc4_is_high_in_every_converged_run(numbers):
    assert numbers["nc4"]["least"] >= 0.9


def test_convolutional_networks_hardly_collapsed(numbers):
    ends = numbers["ends"]
    assert (ends["networks_coupled_collapsed"], ends["cifar_collapsed"]) == (1, 0)
