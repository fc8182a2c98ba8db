"""Leaks into the flat direction: exact sums, estimates held against real trainings, and the numbers
that the chapter writes out."""

import re
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from ncbook import data, figures, optim, store, theory, train
from ncbook.optim import matrices
from ncbook.theory import leaks, symmetry
from ncbook.train.loop import initial_network

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "book" / "results"
PROSE = re.sub(r"\s*\n# *", " ", (ROOT / "notebooks" / "leaks.py").read_text(encoding="utf-8"))
EPOCHS, WIDTH = 30, 0.25  # 11 steps an epoch, 32 features
EXACT = 1e-9  # float64, 330 steps


def trained(name, lr, decay, epochs=EPOCHS, shift=0.0, dtype=torch.float64, products=None):
    """Row sums (T + 1, p), learning rates (T,), ‖m‖ of the last layer (T,), final logits (N, K)."""
    config = train.RunConfig(dataset="digits", model="mlp", width=WIDTH)
    digits, order = data.load("digits"), torch.Generator().manual_seed(0)
    net = initial_network(config, digits).to(dtype)
    with torch.no_grad():
        net.fc.weight += shift
    vectors = {"vector_lr": 1e-3} if optim.rule(name).direction in optim.FOR_MATRICES else {}
    more = vectors | {"weight_decay": decay, "update_precision": products}
    made = optim.Optimizer(net.parameters(), name, lr, **more)
    # Blank pixels are exactly 0: the gradient of a weight on a constant pixel, which batch norm
    # cancels, would be rounding alone, and a sign makes ±1 of that.
    images, weight = digits.train_x.to(dtype), net.fc.weight
    images = images - images.amin(0)
    rows, rates, norms = [weight.detach().double().sum(0)], [], []
    for epoch in range(epochs):
        rate = lr * train.learning_rate_factor(epoch, epochs)
        made.param_groups[0]["lr"] = rate
        for batch in torch.randperm(len(images), generator=order).split(128):
            made.zero_grad()
            loss = torch.nn.functional.cross_entropy(net(images[batch]), digits.train_y[batch])
            loss.backward()
            made.step()
            rows.append(weight.detach().double().sum(0))
            rates.append(rate)
            norms.append(float(made.state[weight]["slots"][0].norm()))
    with torch.no_grad():
        logits = net.eval()(images)
    return torch.stack(rows).numpy(), np.array(rates), np.array(norms), logits


@cache
def kept(*args, **settings):
    return trained(*args, **settings)


def size(vector):
    return float(np.linalg.norm(vector))


def test_the_driven_sum_is_the_recursion(rng):
    drive, lrs, start = rng.normal(size=(50, 4)), rng.uniform(0.01, 0.1, 50), rng.normal(size=4)
    u = [start]
    for lr, leak in zip(lrs, drive, strict=True):
        u.append((1 - lr * 3.0) * u[-1] - lr * leak)
    assert leaks.leaks_of(u, lrs, 3.0) == pytest.approx(drive, abs=1e-11)
    assert leaks.driven_row_sum(drive, lrs, 3.0, start) == pytest.approx(u[-1], abs=1e-12)


def test_a_constant_leak_ends_in_balance():
    """The weights of all leaks sum to (1 − ρ)/λ."""
    k, left = leaks.weights(np.full(100, 0.1), 2.0)
    assert k.sum() == pytest.approx((1 - left) / 2, rel=1e-12)
    found = leaks.driven_row_sum([3.0, 4.0], np.full(1000, 0.1), 2.0)
    assert found == pytest.approx([-1.5, -2.0], rel=1e-12)


@pytest.mark.parametrize("name", ["adamw", "lion", "muonw"])
def test_the_gauge_is_a_passenger_under_decoupled_decay(name):
    """Training from W₀ + 1cᵀ gives the same function, and u is off by what the law leaves of Kc."""
    plain = kept(name, 0.005, 1.0)
    moved = kept(name, 0.005, 1.0, shift=0.3)
    assert moved[3].softmax(1) == pytest.approx(plain[3].softmax(1), abs=EXACT)
    left = np.cumprod(np.append(1.0, 1 - plain[1]))[:, None]
    assert moved[0] - plain[0] == pytest.approx(10 * 0.3 * left + 0 * plain[0], abs=EXACT)


def test_the_gauge_is_no_passenger_under_coupled_decay():
    plain = trained("adam", 0.005, 0.05, epochs=6)
    moved = trained("adam", 0.005, 0.05, epochs=6, shift=0.3)
    assert float((moved[3].softmax(1) - plain[3].softmax(1)).abs().max()) > 0.01


@pytest.mark.parametrize("name", ["signumw", "lion"])
@pytest.mark.parametrize("decay", [0.0, 5.0])
def test_signs_stay_below_their_bound(name, decay):
    rows, lrs, *_ = kept(name, 0.005, decay)
    bound = leaks.sign_bound(lrs, decay, 10, rows.shape[1], size(rows[0]))
    assert bound / 10 < size(rows[-1]) <= bound


def test_in_float32_a_well_fitted_batch_can_have_signs_that_all_agree(rng):
    """Where one minus a probability rounds to zero: K in place of K − 2 is all that is proved."""
    classes, most = torch.arange(10).repeat(3), {}
    features = torch.tensor(np.abs(rng.normal(size=(30, 8))))
    for form in (torch.float32, torch.float64):
        logits = (20.0 * torch.nn.functional.one_hot(classes, 10)).to(form).requires_grad_()
        torch.nn.functional.cross_entropy(logits, classes).backward()
        gradient = logits.grad.mT @ features.to(form)
        most[form] = int(gradient.sign().sum(0).abs().max())
    assert most[torch.float32] == 10
    assert most[torch.float64] <= 8


def test_theorem_33_attains_the_bound():
    alpha = theory.simulate_signgd(10, 0.01, 2.0, 300, coupled=False)[-1]
    bound = leaks.sign_bound([0.01] * 300, 2.0, 10, 10)
    assert (10 * alpha) ** 0.5 == pytest.approx(bound, rel=1e-12)


@pytest.mark.parametrize("decay", [5.0, 10.0])
def test_adamws_own_leaks_forecast_its_nc0(decay):
    """From the mean leak of the last sixth before the first drop, over the rest of the training."""
    rows, lrs, *_ = kept("adamw", 0.005, decay, epochs=90)
    drop = len(lrs) // 3
    known = leaks.leaks_of(rows, lrs, decay)[drop // 2 : drop].mean(0)
    balance = size(known) / decay
    forecast = size(leaks.driven_row_sum(known, lrs[drop:], decay, rows[drop]))
    assert balance == pytest.approx(size(rows[drop]), rel=0.25)
    assert forecast == pytest.approx(size(rows[-1]), rel=0.25)


def average(rng, shape, momentum):
    """A stationary moving average of independent normal numbers."""
    noise, found = rng.normal(size=shape), np.empty(shape)
    found[0] = noise[0] * ((1 - momentum) / (1 + momentum)) ** 0.5
    for t in range(1, len(noise)):
        found[t] = momentum * found[t - 1] + (1 - momentum) * noise[t]
    return found


def test_in_bfloat16_the_five_steps_begin_to_saturate():
    sum_of_products = leaks.newton_schulz_noise(10) * leaks.ROUNDING["bfloat16"]
    saturated, _ = leaks.muon_leak(10, "bfloat16")
    words = f"{sum_of_products:.1f} for ten classes: there the five steps just begin to saturate, "
    assert f"{words}which takes {100 * (1 - saturated / sum_of_products):.0f} % off" in PROSE
    assert round(leaks.ROUNDING["bfloat16"] / leaks.ROUNDING["float32"]) == 65536


@pytest.mark.parametrize(("steps", "leak"), [(100, 0.1), (7, 0.3), (31, 0.7)])
def test_a_constant_leak_has_no_spread_and_no_memory(steps, leak):
    found = leaks.leak_statistics(np.full((steps, 3), leak))
    assert (found.spread, found.memory) == (0, 1)
    assert found.mean == pytest.approx(3**0.5 * leak)


def test_statistics_of_a_moving_average(rng):
    series = average(rng, (4000, 100), 0.8) + np.eye(100)[0]
    found = leaks.leak_statistics(series)
    assert found.mean == pytest.approx(1, abs=0.05)
    assert found.spread == pytest.approx((100 * 0.2 / 1.8) ** 0.5, rel=0.02)
    assert found.memory == pytest.approx(9, rel=0.1)


def test_memory_raises_the_floor_as_simulated(rng):
    lrs = np.where(np.arange(600) < 300, 0.02, 0.01)
    drive = average(rng, (600, 4000), 0.8)
    ends = leaks.driven_row_sum(drive, lrs, 1.0)
    predicted = symmetry.noise_floor(lrs, 1.0, (0.2 / 1.8) ** 0.5, memory=9)
    assert np.sqrt(np.mean(ends**2)) == pytest.approx(predicted, rel=0.1)


def test_the_constants_are_those_of_the_optimizers():
    """Which theory does not import."""
    assert symmetry.NEWTON_SCHULZ == matrices.NEWTON_SCHULZ
    assert leaks.SOAP_EPS == matrices.SOAP_EPS


@pytest.mark.parametrize("products", leaks.ROUNDING)
def test_newton_schulz_leaves_the_noise_that_is_estimated(products):
    generator, found = torch.Generator().manual_seed(0), []
    for _ in range(20):
        made = torch.randn(10, 64, dtype=torch.float64, generator=generator)
        left, _, right = torch.linalg.svd(made - made.mean(0), full_matrices=False)
        values = 1 / torch.arange(1.0, 10, dtype=torch.float64)
        matrix = left[:, :9] @ torch.diag(values) @ right[:9]
        turned = matrices.orthogonalised(matrix, getattr(torch, products))
        found.append(float(turned.sum(0).norm()))
    predicted, memory = leaks.muon_leak(10, products, share=0.0)
    assert memory == 1
    assert np.mean(found) == pytest.approx(predicted, rel=0.3)


def test_the_scalar_polynomial_is_muons():
    values = torch.tensor([0.001, 0.1, 0.5, 0.8], dtype=torch.float64)
    scaled = values / values.norm()
    turned = matrices.orthogonalised(torch.diag(values)).diagonal()
    assert turned.numpy() == pytest.approx(leaks.newton_schulz(scaled.numpy()), rel=1e-9)


@pytest.mark.parametrize(("products", "decay"), [("float32", 5.0), ("bfloat16", 2.0)])
def test_muons_floor_is_predicted_from_the_unit_roundoff(products, decay):
    rows, lrs, *_ = trained("muonw", 0.02, decay, 60, dtype=torch.float32, products=products)
    spread, memory = leaks.muon_leak(10, products)
    predicted = symmetry.noise_floor(lrs, decay, spread, size(rows[0]), memory)
    assert predicted / 2 < size(rows[-1]) < predicted * 2


def test_soaps_floor_in_bfloat16_needs_no_unit_roundoff():
    rows, lrs, *_ = trained("soapw", 0.005, 5.0, dtype=torch.float32, products="bfloat16")
    spread, memory = leaks.soap_leak(10, rows.shape[1])
    found = leaks.leak_statistics(leaks.leaks_of(rows, lrs, 5.0)[30:110])
    assert found.spread == pytest.approx(spread, rel=0.25)
    predicted = symmetry.noise_floor(lrs, 5.0, spread, size(rows[0]), memory)
    assert predicted / 2 < size(rows[-1]) < predicted * 2


def test_soaps_amplification_ends_at_its_eps():
    spread, memory = leaks.soap_leak(10, 128, 0.9, [0, 1e-8, 1.0])
    assert spread == pytest.approx([0, (1280 / 19) ** 0.5 / 2, (1280 / 19) ** 0.5], rel=1e-6)
    assert memory == pytest.approx(19)


def test_muon_treats_the_flat_direction_as_its_symmetry_says(rng):
    """1ᵀD = 1ᵀX f(XᵀX), f(σ²) = φ(σ)/σ: the gain along 1 depends on the right singular vectors."""
    matrix = torch.tensor(rng.normal(size=(5, 12)))
    x = matrix / matrix.norm()
    values, vectors = torch.linalg.eigh(x.mT @ x)
    sigma = values.clamp(min=1e-16).sqrt().numpy()
    gains = torch.tensor(leaks.newton_schulz(sigma) / sigma)
    expected = x.sum(0) @ vectors @ torch.diag(gains) @ vectors.mT
    turned = matrices.orthogonalised(matrix).sum(0)
    assert turned.numpy() == pytest.approx(expected.numpy(), abs=1e-6)


def coupled_muon(start, lrs, decay, norms, classes, beta=0.9):
    """NC0 at each step, as in the chapter."""
    nc0, mean, root = [start], 0.0, classes**0.5
    for lr, norm in zip(lrs, norms, strict=True):
        mean = beta * mean + (1 - beta) * decay * nc0[-1]
        ahead = beta * mean + (1 - beta) * decay * nc0[-1]
        turned = leaks.newton_schulz(min(abs(ahead) / (root * norm), 1.0))
        nc0.append(nc0[-1] - lr * root * np.sign(ahead) * turned)
    return np.abs(nc0)


@pytest.mark.parametrize("decay", [0.005, 0.05, 0.5])
def test_coupled_decay_under_muon_pulls_nc0_down_at_a_constant_speed(decay):
    """As predicted down to 0.6 of the start: then the part of u along the right singular vectors
    of the rest, √(9/32) of a random vector's norm here, begins to show."""
    rows, lrs, norms, _ = kept("muon", 0.02, decay, epochs=6)
    found = np.linalg.norm(rows, axis=1)
    predicted = coupled_muon(found[0], lrs, decay, norms, 10)
    until = np.argmax(found < 0.6 * found[0])
    assert until > 5
    assert found[:until] == pytest.approx(predicted[:until], rel=0.3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: leaks.leaks_of(np.zeros((3, 2)), [0.1], 0), r"row_sums must be \(2, p\)"),
        (lambda: leaks.leak_statistics([[1.0]]), "leaks must be .T, p. with T of at least 2"),
        (lambda: leaks.muon_leak(10, "float16"), "products must be one of float32, bfloat16, got"),
        (lambda: leaks.muon_leak(10, share=9.0), "share must be in"),
        (lambda: leaks.sign_bound([0.1], -1, 10, 5), "weight_decay must be in"),
        (lambda: leaks.soap_leak(10, 0), "width must be a whole number"),
    ],
)
def test_bad_input_gets_one_line(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# ------------------------------------------------------------ what the chapter writes out

K, P, LONG = 10, 128, 200
FACTORS = np.repeat([train.learning_rate_factor(e, LONG) for e in range(LONG)], 11)
MLP = dict(dataset="digits", model="mlp", epochs=LONG, momentum=0.9)


@pytest.fixture(scope="module")
def stored():
    return figures.uniform(store.load_runs(RESULTS, status="ok"))


def test_the_first_picture(stored):
    ends = []
    for name, lr, decay in (("lion", 0.001, 5), ("soapw", 0.005, 2), ("muonw", 0.02, 2)):
        setting = MLP | dict(optimizer=name, lr=lr, weight_decay=decay)
        ends.append(figures.of_setting(stored, **setting)["nc0"].median())
    assert ends[0] > 10 * ends[1] > 1e4 * ends[2] > 0


def test_the_balance_of_stored_runs(stored):
    runs = figures.of_setting(stored, **MLP)
    runs = runs[runs["optimizer"].isin(["adamw", "signumw", "lion", "mars"])]
    pairs = [(run.lr * FACTORS, run.weight_decay) for run in runs.itertuples()]
    total = [leaks.weights(*pair)[0].sum() for pair in pairs]
    starts = zip(pairs, runs["nc0_init"], strict=True)
    bounds = [leaks.sign_bound(*pair, K, P, start) for pair, start in starts]
    runs = runs.assign(leak=runs["nc0"] / total, share=runs["nc0"] / bounds)
    signs = runs[runs["optimizer"].isin(["signumw", "lion"])]
    assert signs["share"].max() < 1
    assert f"exceeds its bound (n = {len(signs)})" in PROSE
    there = signs["share"][signs["lr"] * FACTORS.sum() * signs["weight_decay"] >= 4]
    low, high = there.min(), there.max()
    assert f"a run comes to {low:.2f} to {high:.2f} of it (n = {len(there)})" in PROSE
    lions = (signs["optimizer"][there.index] == "lion").sum()
    words = (
        f"SignumW and Lion reach {low:.2f} to {high:.2f} of the bound (n = {len(there)}, {lions} of"
    )
    assert words in PROSE
    history = store.load_history(RESULTS, run_id=[*runs["run_id"]])
    at = history.pivot(index="run_id", columns="epoch", values="nc0")
    moved = at[LONG] / at[66]
    words = f"changes by factors of {moved.min():.2f} to {moved.max():.2f} (n = {len(moved)})"
    assert words in PROSE
    left = runs["lr"] * FACTORS[66 * 11 :].sum() * runs["weight_decay"]
    moved = runs.assign(moved=moved[runs["run_id"]].to_numpy())[left > 1]
    spans = moved.groupby("optimizer")["moved"].agg(["min", "max"]).map("{:.2f}".format)
    assert f"In the {len(moved)} in which decay still could move it" in PROSE
    words = [f"{low} to {high} under" for low, high in spans.to_numpy()]
    assert set(spans.index) == {"adamw", "mars", "signumw"}
    adamw, mars, signumw = words
    assert f"{signumw} SignumW, a balance, {adamw} AdamW and {mars} MARS" in PROSE
    assert FACTORS[66 * 11 :].sum() / FACTORS.sum() == pytest.approx(0.1, abs=0.001)
    least = growth(runs, "min")
    words = "at the smallest it is {adamw:.1f}, {mars:.1f}, {signumw:.1f} and {lion:.1f} times"
    assert words.format(**least) in PROSE
    grown = growth(runs)
    assert max(g[name] for g in (least, grown) for name in ("signumw", "lion")) < 2.05
    words = "grows {adamw:.0f} times under AdamW and {mars:.0f} times under MARS, but only "
    words += "{signumw:.1f} times under SignumW and {lion:.1f} times under Lion"
    assert words.format(**grown) in PROSE
    kept = np.array([leaks.weights(*pair)[1] for pair in pairs]) * runs["nc0_init"]
    ends = [growth(runs.assign(leak=(runs["nc0"] + sign * kept) / total)) for sign in (1, -1)]
    low, high = ends
    words = f"are {low['adamw']:.0f} to {high['adamw']:.0f}, {low['mars']:.0f} to "
    words += f"{high['mars']:.0f}, {low['signumw']:.1f} and {low['lion']:.1f} to {high['lion']:.1f}"
    assert words in PROSE


def growth(runs, which="max"):
    """The leak at the largest decay over that at the least, at the largest learning rate."""
    grown = {}
    for name, own in runs[runs["weight_decay"] > 0].groupby("optimizer"):
        middle = own[own["lr"] == own["lr"].agg(which)].groupby("weight_decay")["leak"].median()
        grown[name] = middle.iloc[-1] / middle.iloc[0]
    return grown


@pytest.fixture(scope="module")
def rounded(stored):
    """Runs of MuonW and SOAPW, with the NC0 that law and floor predict."""
    low = figures.of_setting(stored, **MLP, update_precision="bfloat16")
    runs = pd.concat([figures.of_setting(stored, **MLP), low])
    runs = runs[runs["optimizer"].isin(["muonw", "soapw"])]
    runs, found = runs.assign(form=figures.products(runs)), []
    for run in runs.itertuples():
        muon = run.optimizer == "muonw"
        s, memory = leaks.muon_leak(K, run.form) if muon else leaks.soap_leak(K, P)
        given = run.lr * FACTORS, run.weight_decay, s, run.nc0_init, memory
        found.append(symmetry.noise_floor(*given))
    runs = runs.assign(predicted=found, ratio=found / runs["nc0"])
    return runs.assign(law=figures.exact_law(runs) * runs["nc0_init"])


def test_how_many_floors_are_predicted(rounded):
    inside = rounded["ratio"].between(1 / 2, 2).rename("inside")
    ruled = rounded["predicted"] ** 2 > 2 * rounded["law"] ** 2  # the floor exceeds the law
    of_soap = inside[rounded["optimizer"].eq("soapw") & rounded["form"].eq("float32")]
    assert f"so its {of_soap.sum()} of {len(of_soap)} inside are no evidence" in PROSE
    rest = rounded.drop(of_soap.index)
    inside, ruled = inside[rest.index], ruled[rest.index]
    assert f"Of the other {len(rest)} runs {inside.sum()} are inside" in PROSE
    orders = np.log10(rest["nc0"][ruled].max() / rest["nc0"][ruled].min())
    words = f"{inside[ruled].sum()} of the {ruled.sum()} for which the floor exceeds what the "
    words += f"law leaves, over {orders:.0f} orders of magnitude, and {inside[~ruled].sum()} of the"
    assert f"{words} {(~ruled).sum()} for which it is less: Muon" in PROSE
    muon = rest["optimizer"].eq("muonw")
    of_muon, most = inside[muon], inside[muon & ruled]
    words = f"{of_muon.sum()} of {len(of_muon)} runs (in {most.sum()} of the {len(most)} in which"
    assert words in PROSE
    soap = inside[~muon]
    assert f"cancels, in {soap.sum()} of {len(soap)}, at one learning rate" in PROSE
    low = rest[rest["form"] == "bfloat16"]
    assert (low.groupby("optimizer")["lr"].nunique() == 1).all()
    words = f"Muon in {of_muon.sum()} of {len(of_muon)} runs, SOAP in bfloat16 in {soap.sum()} of"
    assert words in PROSE


def test_where_the_floor_is_not_predicted(rounded):
    runs = rounded[rounded["form"] == "float32"]
    muon, soap = (runs[runs["optimizer"] == name] for name in ("muonw", "soapw"))
    few = muon[(muon["weight_decay"] <= 0.5) & (muon["lr"] >= 0.02)]["ratio"]
    words = f"is up to {1 / few.min():.0f} times too low (n = {(few < 0.5).sum()} of {len(few)})"
    assert words in PROSE
    low = rounded[(rounded["form"] == "bfloat16") & (rounded["optimizer"] == "muonw")]
    low = 1 / low[low["weight_decay"].isin([0.05, 0.1])]["ratio"]
    words = f"in bfloat16 {low.min():.1f} to {low.max():.1f} times with λ of 0.05 and 0.1"
    assert f"{words} (n = {len(low)})" in PROSE
    some = soap[soap["weight_decay"].isin([0.5, 2.0]) & (soap["lr"] >= 0.005)]["ratio"]
    assert f"it is {some.median():.1f} times too high (n = {len(some)})" in PROSE
    slow = muon[(muon["weight_decay"] == 5) & (muon["lr"] == 0.005)]
    low, high = slow["ratio"].min(), slow["ratio"].max()
    assert f"it is {low:.2f} to {high:.2f} of NC0 (n = {len(slow)})" in PROSE
    s, memory = leaks.muon_leak(K)
    each = 2**0.5 * leaks.ROUNDING["float32"] * slow["w_norm"]
    given = [(r.lr * FACTORS, 5.0, s, r.nc0_init, memory) for r in slow.itertuples()]
    # Storing W is one more source of noise, which η does not scale.
    of_storing = [symmetry.noise_floor(*g[:2], w / g[0]) for g, w in zip(given, each, strict=True)]
    floors = np.hypot([symmetry.noise_floor(*g) for g in given], of_storing)
    with_it = floors / slow["nc0"]
    assert f"with this it is {with_it.min():.2f} to {with_it.max():.2f}" in PROSE
