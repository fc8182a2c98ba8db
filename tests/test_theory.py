"""Every closed form against literal stepping, every gradient against differences, in float64."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from scipy.optimize import brentq, minimize

from ncbook import metrics, theory

EXACT = 1e-10  # closed form against stepping, relative

# --- SGD: the row-sum law ---------------------------------------------------------------------


def step_rows(steps, lr, momentum, coupled, decoupled=0.0, lrs=None):
    """u_0 … u_steps, one line an update: what the closed forms must equal."""
    u, v, path = 1.0, 0.0, [1.0]
    for t in range(steps):
        rate = lr if lrs is None else lrs[t]
        v = momentum * v + coupled * u
        u = (1 - rate * decoupled) * u - rate * v
        path.append(u)
    return np.array(path)


def still_to_come(path):
    """max over s ≥ t of |u_s|: the size of an oscillation at t, where u_t itself may cross zero."""
    return np.maximum.accumulate(np.abs(path)[::-1])[::-1]


def assert_follows(got, path, steps):
    """Within 1e-10 of the size of what is left, down to where float64 has no normal numbers."""
    size = still_to_come(path)[: steps + 1]
    visible = size > 1e-290
    assert np.all(np.abs(got - path[: steps + 1])[visible] <= EXACT * size[visible])


REGIMES = {
    "plain": (0.1, 0.0, 0.05),
    "plain, root below zero": (1.5, 0.0, 0.9),
    "overdamped": (0.0679, 0.9, 5e-4),
    "critical to the last digit": (0.25, 0.25, 1.0),
    "just overdamped": (0.25, 0.25 - 1e-13, 1.0),
    "just underdamped": (0.25, 0.25 + 1e-13, 1.0),
    "underdamped": (0.0679, 0.98, 0.5),
    "negative roots": (2.0, 0.1, 0.95),
    "no decay": (0.1, 0.9, 0.0),
    "one step to zero": (1.0, 0.0, 1.0),
}


@pytest.mark.parametrize("regime", REGIMES)
def test_closed_form_equals_stepping_in_every_regime(regime):
    lr, momentum, decay = REGIMES[regime]
    path = step_rows(900, lr, momentum, decay)
    got = theory.row_sum_closed_form(np.arange(801), lr, momentum, decay)
    assert_follows(got, path, 800)


@settings(max_examples=150, deadline=None)
@given(
    momentum=st.one_of(st.just(0.0), st.floats(0.01, 0.995)),
    stiffness=st.floats(1e-6, 0.98),  # ηλ as a share of its stability limit 2 (1 + β)
    lr=st.floats(1e-3, 2),
    share=st.one_of(st.just(0.0), st.just(1.0), st.floats(0, 1)),
)
def test_closed_form_equals_stepping_for_any_parameters(momentum, stiffness, lr, share):
    decay = stiffness * 2 * (1 + momentum) * (1 if share == 0 else 0.5 / (1 + momentum)) / lr
    trace, det = 1 + momentum - lr * decay, momentum * (1 - lr * decay * share)
    # Below a twentieth, one rounding of 1 − ηλ is itself worth 1e-10 after a few hundred steps.
    assume(np.max(np.abs(np.roots([1, -trace, det]))) > 0.05)
    path = step_rows(500, lr, momentum, decay * (1 - share), decay * share)
    got = theory.row_sum_closed_form(np.arange(401), lr, momentum, decay, share)
    assert_follows(got, path, 400)


@settings(max_examples=100, deadline=None)
@given(eta_lambda=st.floats(1e-6, 0.25), ulps=st.integers(-3, 3))
def test_closed_form_is_stable_at_the_double_root(eta_lambda, ulps):
    momentum = float(theory.critical_momentum(1.0, eta_lambda))
    momentum += ulps * np.spacing(momentum)
    path = step_rows(500, 1.0, momentum, eta_lambda)
    got = theory.row_sum_closed_form(np.arange(401), 1.0, momentum, eta_lambda)
    assert_follows(got, path, 400)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("momentum", [0.0, 0.9, 0.98])
def test_schedule_equals_stepping_through_the_drops(momentum, share):
    per_epoch, epochs, lr, decay = 40, 50, 0.05, 0.08
    epoch = np.repeat(np.arange(epochs), per_epoch)
    lrs = lr * 0.1 ** ((epoch >= 16).astype(int) + (epoch >= 33))  # ⌊50/3⌋ = 16, ⌊100/3⌋ = 33
    path = step_rows(len(lrs), lr, momentum, decay * (1 - share), decay * share, lrs)
    got = theory.row_sum_trajectory(
        np.arange(len(lrs) + 1), lr, momentum, decay, per_epoch, epochs, share
    )
    assert np.all(np.abs(got - path) <= EXACT * still_to_come(path))
    stepped = theory.row_sum_stepped(lrs, momentum, decay, share)
    np.testing.assert_allclose(stepped, path, rtol=1e-13)
    ratio = theory.row_sum_ratio(lr, momentum, decay, per_epoch, epochs, share)
    assert ratio == pytest.approx(abs(path[-1]), rel=EXACT)
    assert type(ratio) is float


def test_a_whole_paper_run_equals_stepping():
    """93,800 steps: here rounding 1 − ηλ/(1 − β) first would already show in the twelfth digit."""
    epoch = np.repeat(np.arange(200), 469)
    lrs = 0.01 * 0.1 ** ((epoch >= 66).astype(int) + (epoch >= 133))
    expected = abs(step_rows(len(lrs), None, 0.9, 5e-4, lrs=lrs)[-1])
    assert theory.row_sum_ratio(0.01, 0.9, 5e-4, 469, 200) == pytest.approx(expected, rel=EXACT)


def test_own_milestones():
    lrs = np.array([0.2] * 6 + [0.02] * 3 + [0.0002] * 3)  # 4 epochs of 3; two drops at epoch 3
    expected = step_rows(12, None, 0.9, 0.5, lrs=lrs)[-1]
    got = theory.row_sum_ratio(0.2, 0.9, 0.5, 3, 4, milestones=(0.75, 0.5, 0.9))
    assert got == pytest.approx(abs(expected), rel=EXACT)
    constant = theory.row_sum_ratio(0.2, 0.9, 0.5, 3, 4, milestones=())
    assert constant == pytest.approx(abs(step_rows(12, 0.2, 0.9, 0.5)[-1]), rel=EXACT)


def test_published_sgdw_number_of_table_1():
    """SGDW: 0.55 (−68.9 %). A dropped last minibatch (468 steps) would print −68.8 %."""
    ratios = [theory.row_sum_ratio(0.0679, 0.9, 5e-4, n, 200, decoupled=True) for n in (469, 468)]
    assert ratios[0] == pytest.approx(0.3109, abs=5e-5)
    assert [f"{100 * (r - 1):.1f}" for r in ratios] == ["-68.9", "-68.8"]


def test_other_sgd_rows_of_tables_1_and_2_are_below_their_printed_bound():
    """SGD and SGDW, printed as < −99.5 %."""
    assert theory.row_sum_ratio(0.0679, 0.9, 5e-4, 469, 200) < 0.005
    assert theory.row_sum_ratio(0.01, 0.9, 0.05, 469, 200) < 0.005
    assert theory.row_sum_ratio(0.0679, 0.5, 0.05, 469, 200, decoupled=True) < 0.005


def test_momentum_has_no_effect_on_decoupled_decay():
    ratios = theory.row_sum_ratio(0.0679, [0, 0.5, 0.9, 0.98], 0.05, 13, 30, decoupled=True)
    phases = (1 - 0.0679 * 0.05 * np.array([1, 0.1, 0.01])) ** (13 * np.array([10, 10, 10]))
    np.testing.assert_allclose(ratios, phases.prod(), rtol=EXACT)


def test_broadcasting_gives_each_point_its_own_value():
    lr, momentum = np.array([0.001, 0.01, 0.0679]), np.array([[0.0], [0.9]])
    decay = np.geomspace(5e-5, 0.5, 5).reshape(5, 1, 1)
    grid = theory.row_sum_ratio(lr, momentum, decay, 15, 20)
    assert grid.shape == (5, 2, 3)
    one = theory.row_sum_ratio(0.01, 0.9, decay[3, 0, 0], 15, 20)
    assert grid[3, 1, 1] == pytest.approx(one, rel=1e-15)
    path = theory.row_sum_trajectory([0, 7, 300], lr, momentum, decay, 15, 20)
    assert path.shape == (5, 2, 3, 3)
    np.testing.assert_allclose(np.abs(path[..., -1]), grid, rtol=1e-15)
    assert np.all(path[..., 0] == 1)


def test_no_decay_keeps_the_row_sum_and_instability_is_infinite():
    assert theory.row_sum_ratio(0.1, 0.9, 0.0, 469, 200) == 1.0
    assert theory.row_sum_ratio(10.0, 0.9, 1.0, 469, 200) == np.inf


def test_decay_rate_is_what_the_trajectory_does():
    for lr, momentum, decay, share in [
        (0.1, 0.9, 0.001, 0),
        (0.1, 0.9, 0.01, 1),
        (0.1, 0.5, 0.1, 0.4),
        (0.0679, 0.9, 5.0, 1),  # u dies faster than the momentum, which it never excites
    ]:
        alpha = theory.row_sum_closed_form([400, 401], lr, momentum, decay, share) ** 2
        rate = theory.row_sum_decay_rate(lr, momentum, decay, share)
        assert rate == pytest.approx(np.log(alpha[0] / alpha[1]), rel=1e-8)
    assert theory.row_sum_decay_rate(0.05, 0.99, 0.5) == pytest.approx(-np.log(0.99), rel=1e-12)


def test_decay_rate_is_to_leading_order_two_lambda_eta_over_one_minus_beta():
    momentum = np.array([0, 0.5, 0.9, 0.98])
    rate = theory.row_sum_decay_rate(1e-4, momentum, 1e-3)
    # The next order is ηλ/(1 − β)² relative: 2.5e-4 at β = 0.98
    np.testing.assert_allclose(rate, 2e-7 / (1 - momentum), rtol=3e-4)


@pytest.mark.parametrize("eta_lambda", [1e-5, 1e-3, 0.034])
def test_momentum_helps_only_up_to_the_critical_one(eta_lambda):
    best = theory.critical_momentum(1.0, eta_lambda)
    momentum = np.sort(np.append(np.linspace(0, 0.999, 500), best))
    rates = theory.row_sum_decay_rate(1.0, momentum, eta_lambda)
    assert momentum[np.argmax(rates)] == best
    assert np.all(np.diff(rates[momentum <= best]) > 0)
    assert np.all(np.diff(rates[momentum >= best]) < 0)


def test_theorem_31_bound_is_loose_and_jumps_at_zero_momentum():
    momentum = np.linspace(0.01, 0.99, 99)
    exact = theory.row_sum_decay_rate(1e-3, momentum, 1e-4)
    bound = -np.log(theory.theorem31_bound(1, 1e-3, momentum, 1e-4))
    # exact / bound = 2 log(1/β)/(1 − β) at leading order: never below 2, unbounded as β → 0
    np.testing.assert_allclose(exact / bound, -2 * np.log(momentum) / (1 - momentum), rtol=2e-3)
    assert np.all(exact / bound > 2)
    rng = np.random.default_rng(0)
    momentum, product = rng.random(1000), 10 ** rng.uniform(-8, 0, 1000)
    below = momentum < theory.critical_momentum(1.0, product)
    rates = theory.row_sum_decay_rate(1.0, momentum, product)
    assert np.all((rates > (1 - EXACT) * 2 * product / (1 - momentum))[below])
    at_zero, near_zero = theory.theorem31_bound(1000, 0.1, [0.0, 1e-300], 0.01)
    assert at_zero == pytest.approx(0.999**1000, rel=EXACT)
    assert near_zero == pytest.approx(np.exp(-1 / np.log(1e300)), rel=EXACT)


def test_small_step_limit_is_not_the_equation_of_lemma_e6():
    """α_t at fixed ηt = T tends to e^(−2λT/(1 − β)): β remembers steps, not time."""
    momentum, decay, time = 0.9, 0.05, 10
    limit = np.exp(-2 * decay * time / (1 - momentum))
    for lr in (1e-3, 1e-5):
        alpha = theory.row_sum_closed_form(round(time / lr), lr, momentum, decay) ** 2
        assert alpha == pytest.approx(limit, rel=100 * lr)  # first order in η
    assert theory.lemma_e6_solution(time, momentum, decay) < 0  # no bound for α ≥ 0


def test_theorem_31_exponent_fails_where_momentum_is_past_its_use():
    """β = 0.98, η = 0.0679, λ = 0.01: 2λ/L < 1, but the roots are complex and α falls as βᵗ."""
    lr, momentum, decay = 0.0679, 0.98, 0.01
    L = -np.log(momentum)
    assert 2 * decay / L < 1
    assert theory.row_sum_decay_rate(lr, momentum, decay) == pytest.approx(L, rel=1e-12)
    assert -np.log(theory.theorem31_bound(1, lr, momentum, decay)) > 1.6 * L


ROUNDED = {"lr": 0.1, "weight_decay": 0.5, "steps_per_epoch": 30, "epochs": 30}


def float32_row_sum(momentum, share, noise):
    """‖Wᵀ1‖ / ‖W‖ of a float32 layer after the schedule of ROUNDED, where the law says zero.

    Its gradients' columns sum to zero; their mean holds W near its start, whose rows do, too.
    """
    rng, decay = np.random.default_rng(5), ROUNDED["weight_decay"]
    W = rng.standard_normal((10, 200))
    pull = decay * (W - W.mean(axis=0)) * (1 if share == 0 else 1 - momentum)
    W, V = W.astype(np.float32), np.zeros(W.shape, np.float32)
    for epoch in range(ROUNDED["epochs"]):
        rate = np.float32(ROUNDED["lr"] * 0.1 ** ((epoch >= 10) + (epoch >= 20)))
        for _ in range(ROUNDED["steps_per_epoch"]):
            push = noise * rng.standard_normal(W.shape)
            gradient = (push - push.mean(axis=0) - pull).astype(np.float32)
            V = np.float32(momentum) * V + gradient + np.float32(decay * (1 - share)) * W
            W = np.float32(1 - rate * decay * share) * W - rate * V
    return np.linalg.norm(W.sum(axis=0, dtype=np.float64)) / np.linalg.norm(W)


@pytest.mark.parametrize("share", [0.0, 1.0])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_rounding_floor_is_what_single_precision_leaves(momentum, share):
    settings = ROUNDED | {"momentum": momentum, "decoupled": share}
    assert theory.row_sum_ratio(**settings) < 1e-7
    measured = float32_row_sum(momentum, share, noise=0.05)
    assert 0.5 < measured / theory.rounding_floor(**settings) < 2  # it is an estimate


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_decoupled_decay_leaves_more_than_the_floor_where_the_weight_is_still(momentum):
    """With little noise W is rounded alike at each step: kicks of decoupled decay add up, to at
    most δ√2 / ηλ at the last learning rate. Coupled decay is part of the small step: spared."""
    settings = ROUNDED | {"momentum": momentum}
    coupled, decoupled = (
        float32_row_sum(momentum, share, noise=1e-3)
        / theory.rounding_floor(**settings, decoupled=share)
        for share in (0.0, 1.0)
    )
    assert 0.5 < coupled < 2
    assert decoupled > 4
    eta_lambda = 0.01 * ROUNDED["lr"] * ROUNDED["weight_decay"]
    all_alike = np.sqrt(2) * theory.sgd.FLOAT32_ROUNDING / eta_lambda
    assert decoupled * theory.rounding_floor(**settings, decoupled=1) < all_alike


def test_rounding_floor_is_the_sum_over_kicks():
    per_epoch, epochs, lr, decay, momentum = 4, 9, 0.3, 0.4, 0.8
    lrs = lr * 0.1 ** np.repeat([0, 1, 2], 3 * per_epoch)
    after = [theory.row_sum_stepped(lrs[s:], momentum, decay)[-1] for s in range(1, 1 + lrs.size)]
    expected = theory.sgd.FLOAT32_ROUNDING * np.linalg.norm(after)
    got = theory.rounding_floor(lr, momentum, decay, per_epoch, epochs)
    assert got == pytest.approx(expected, rel=EXACT)


@pytest.mark.parametrize(
    ("momentum", "decay"), [(0.5, 0.05), (0.9, 0.05), (0.9, np.log(0.9) ** 2 / 4)]
)
def test_lemma_e6_solution_solves_its_equation(momentum, decay):
    """α' = −λ I with I = ∫₀ᵗ βᵗ⁻ˢ α(s) ds, that is I' = α + log(β) I."""
    times = np.linspace(0, 60, 61)

    def slope(_, state):
        return [-decay * state[1], state[0] + np.log(momentum) * state[1]]

    solved = solve_ivp(
        slope, (0, 60), [1, 0], t_eval=times, rtol=1e-11, atol=1e-13, method="DOP853"
    )
    got = theory.lemma_e6_solution(times, momentum, decay)
    np.testing.assert_allclose(got, solved.y[0], rtol=0, atol=1e-9)  # the solver's error


@settings(max_examples=60, deadline=None)
@given(momentum=st.floats(0.05, 0.98), decay=st.floats(1e-5, 0.9))
def test_lemma_e6_solution_is_equation_26(momentum, decay):
    root = np.sqrt(complex(np.log(momentum) ** 2 - 4 * decay))
    r1, r2 = (np.log(momentum) + root) / 2, (np.log(momentum) - root) / 2
    if abs(root) < 1e-3:
        return  # A and B cancel there; the differential equation covers the double root
    t = np.linspace(0, 50, 51)
    expected = ((r2 * np.exp(r1 * t) - r1 * np.exp(r2 * t)) / (r2 - r1)).real
    np.testing.assert_allclose(theory.lemma_e6_solution(t, momentum, decay), expected, atol=EXACT)


def test_lemma_e6_needs_more_than_its_condition():
    """2λ/L < 1 holds at β = 0.9, λ = 0.05, yet α outgrows e^(−λt/L): the roots are complex."""
    momentum, decay, t = 0.9, 0.05, np.linspace(0, 100, 2001)
    L = -np.log(momentum)
    assert 2 * decay / L < 1
    assert 2 * decay / L**2 > 1
    ratio = theory.lemma_e6_solution(t, momentum, decay) / np.exp(-decay * t / L)
    assert np.max(np.abs(ratio)) > 1e10


@settings(max_examples=60, deadline=None)
@given(momentum=st.floats(0.05, 0.98), share=st.floats(0.01, 1))
def test_lemma_e6_holds_with_real_roots(momentum, share):
    """There C = 2/√e does, reached at the double root 4λ = L²."""
    L = -np.log(momentum)
    t = np.linspace(0, 60 / L, 3000)
    ratio = theory.lemma_e6_solution(t, momentum, share * L**2 / 4) / np.exp(-share * L * t / 4)
    assert ratio.max() <= 2 / np.sqrt(np.e) * (1 + 1e-12)


# --- SGD: the law on a real network -----------------------------------------------------------

EPOCHS, BATCHES, BATCH = 9, 5, 8


def train_tiny(momentum, decay, decoupled, loss, clip=None):
    """A float64 network trained by torch's own SGD with a step schedule: Wᵀ1 before and after."""
    torch.manual_seed(0)
    inputs = torch.randn(BATCHES * BATCH, 4, dtype=torch.float64)
    labels = torch.randint(3, (len(inputs),))
    net = torch.nn.Sequential(
        torch.nn.Linear(4, 7), torch.nn.Tanh(), torch.nn.Linear(7, 3)
    ).double()
    optimizer = torch.optim.SGD(
        net.parameters(), lr=0.3, momentum=momentum, weight_decay=0.0 if decoupled else decay
    )
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [EPOCHS // 3, 2 * EPOCHS // 3])
    start = net[2].weight.detach().sum(0).numpy().copy()
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(inputs)).split(BATCH):
            optimizer.zero_grad()
            loss(net(inputs[batch]), labels[batch]).backward()
            if clip:
                clip(net.parameters(), 0.01)
            if decoupled:
                with torch.no_grad():
                    for p in net.parameters():
                        p.mul_(1 - optimizer.param_groups[0]["lr"] * decay)
            optimizer.step()
        schedule.step()
    return start, net[2].weight.detach().sum(0).numpy()


def law_error(loss=torch.nn.functional.cross_entropy, clip=None, momentum=0.9, decoupled=False):
    start, end = train_tiny(momentum, 0.02, decoupled, loss, clip)
    total = EPOCHS * BATCHES
    factor = theory.row_sum_trajectory(total, 0.3, momentum, 0.02, BATCHES, EPOCHS, decoupled)
    return np.max(np.abs(end - factor * start)) / np.max(np.abs(start))


@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.98])
def test_law_on_torch_sgd_with_momentum_and_schedule(momentum, decoupled):
    assert law_error(momentum=momentum, decoupled=decoupled) < 1e-13


def smoothed(logits, labels):
    return torch.nn.functional.cross_entropy(logits, labels, label_smoothing=0.1)


def weighted(logits, labels):
    weight = torch.tensor([1.0, 5.0, 0.2], dtype=torch.float64)
    return torch.nn.functional.cross_entropy(logits, labels, weight=weight)


def squared(logits, labels):
    return ((logits - torch.nn.functional.one_hot(labels, 3)) ** 2).mean()


def one_against_rest(logits, labels):
    target = torch.nn.functional.one_hot(labels, 3).double()
    return torch.nn.functional.binary_cross_entropy_with_logits(logits, target)


def test_label_smoothing_class_weights_and_norm_clipping_keep_the_law():
    assert law_error(smoothed) < 1e-13
    assert law_error(weighted) < 1e-13
    assert law_error(clip=torch.nn.utils.clip_grad_norm_) < 1e-13


def test_squared_and_sigmoid_losses_and_value_clipping_break_the_law():
    assert law_error(squared) > 1e-3
    assert law_error(one_against_rest) > 1e-3
    assert law_error(clip=torch.nn.utils.clip_grad_value_) > 1e-3


# --- SignGD -----------------------------------------------------------------------------------


def softmax_columns(logits):
    scores = np.exp(logits)
    return scores / scores.sum(axis=0)


def descend(W, lr, decay, steps, coupled, exact):
    """Theorems 3.3 and 3.4 as printed, α at each step."""
    K = len(W)
    M = (np.eye(K) - np.ones((K, K)) / K) / np.sqrt(K - 1)
    alpha = [np.sum(W.sum(axis=0) ** 2) / K]
    for _ in range(steps):
        gradient = (softmax_columns(W @ M) - np.eye(K)) @ M.T / K
        gradient = gradient if exact else softmax_columns(W) - np.eye(K)
        step = np.sign(gradient + decay * W) if coupled else np.sign(gradient) + decay * W
        W = W - lr * step
        alpha.append(np.sum(W.sum(axis=0) ** 2) / K)
    return np.array(alpha), W


SETTINGS = [(2, 0.05, 0.1), (3, 0.02, 0.03), (5, 0.01, 0.02), (10, 0.01, 0.05), (10, 0.05, 0.2)]


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("coupled", [True, False])
@pytest.mark.parametrize(("K", "lr", "decay"), SETTINGS)
def test_scalar_walk_equals_the_full_matrix(K, lr, decay, coupled, exact):
    alpha = theory.simulate_signgd(K, lr, decay, 600, coupled, exact)
    assert alpha.shape == (601,)
    for literal in (descend, theory.simulate_signgd_matrix):
        full, W = literal(np.zeros((K, K)), lr, decay, 600, coupled, exact)
        # W is of order 1 at most 1/λ = 50; rounding in 600 steps and K terms, squared
        np.testing.assert_allclose(alpha, full, rtol=EXACT, atol=1e-12)
        a, b = theory.simulate_signgd_scalars(K, lr, decay, 600, coupled, exact)
        np.testing.assert_allclose(W, (a[-1] + b[-1]) * np.eye(K) - b[-1], rtol=0, atol=1e-11)


@pytest.mark.parametrize("K", [3, 10])
def test_signgd_gradient_is_that_of_the_mean_cross_entropy_at_the_simplex(K):
    W = np.random.default_rng(0).standard_normal((K, K))
    M = theory.simplex_etf(K)

    def loss(x):
        return -np.mean(np.log(np.diag(softmax_columns(x.reshape(K, K) @ M))))

    got = theory.signgd_gradient(W).ravel()
    for direction in np.eye(K * K)[:: K + 2]:
        slope = (loss(W.ravel() + 1e-6 * direction) - loss(W.ravel() - 1e-6 * direction)) / 2e-6
        assert got @ direction == pytest.approx(slope, abs=1e-9)  # central differences' error
    np.testing.assert_allclose(theory.signgd_gradient(W).sum(axis=0), 0, atol=1e-16)


@pytest.mark.parametrize("exact", [True, False])
def test_gradient_on_the_trajectory_is_g_times_j_minus_k_identity(exact):
    K, a, b = 7, 1.3, 0.4
    g = theory.off_diagonal(a + b, K, exact)
    got = theory.signgd_gradient((a + b) * np.eye(K) - b, exact)
    np.testing.assert_allclose(got, g * (np.ones((K, K)) - K * np.eye(K)), rtol=1e-13)


@pytest.mark.parametrize(("K", "lr", "decay"), [*SETTINGS, (10, 0.1, 0.0), (4, 1.5, 1.0)])
def test_decoupled_closed_form_equals_the_simulation(K, lr, decay):
    alpha = theory.simulate_signgd(K, lr, decay, 2000, coupled=False)
    got = theory.decoupled_alpha(np.arange(2001), K, lr, decay)
    np.testing.assert_allclose(got, alpha, rtol=EXACT)


def test_with_two_classes_alpha_is_zero_throughout():
    """Theorem 3.4's rise needs K ≥ 3: at K = 2 both entries see the same force."""
    assert not theory.simulate_signgd(2, 0.01, 0.05, 500).any()
    assert theory.simulate_signgd(3, 0.01, 0.05, 500).any()


def test_decoupled_limit():
    end = theory.simulate_signgd(10, 0.01, 0.5, 8000, coupled=False)[-1]
    assert end == pytest.approx(theory.decoupled_limit(10, 0.5), rel=EXACT)
    assert theory.decoupled_limit(10, 0.5) == 256
    assert theory.decoupled_limit(2, 0.5) == 0


@pytest.mark.parametrize("exact", [True, False])
def test_without_decay_the_sign_never_dies(exact):
    """At λ = 0 both rules are W ← W − η (J − 2I), also where the gradient leaves float64."""
    alpha = theory.simulate_signgd(3, 1.0, 0.0, 2000, exact=exact)
    np.testing.assert_array_equal(alpha, np.arange(2001.0) ** 2)


def test_sign_of_the_gradient_is_not_constant_in_w():
    """Against "for all W": at W = −10 e₁e₃ᵀ an off-diagonal entry of ∇ is negative."""
    W = np.zeros((3, 3))
    W[0, 2] = -10
    claimed = np.ones((3, 3)) - 2 * np.eye(3)
    assert np.sign(theory.signgd_gradient(W))[0, 2] == -1
    assert not np.allclose((softmax_columns(W @ theory.simplex_etf(3)) - np.eye(3)).sum(axis=1), 0)
    np.testing.assert_array_equal(np.sign(theory.signgd_gradient(W, exact=False)), claimed)
    np.testing.assert_array_equal(np.sign(theory.signgd_gradient(0 * W)), claimed)


@pytest.mark.parametrize("size", [1, 30])
def test_decoupled_limit_is_reached_from_random_starts(size):
    """Not the theorem's proof: from size 30 the signs start otherwise."""
    K, lr, decay = 4, 0.02, 0.05
    claimed = np.ones((K, K)) - 2 * np.eye(K)
    for seed in range(3):
        start = size * np.random.default_rng(seed).standard_normal((K, K))
        if size > 1:
            assert not np.array_equal(np.sign(theory.signgd_gradient(start)), claimed)
        alpha, _ = theory.simulate_signgd_matrix(start, lr, decay, 20_000, coupled=False)
        assert alpha[-1] == pytest.approx(theory.decoupled_limit(K, decay), rel=1e-3)


TURNS = [
    (K, lr, decay, exact)
    for K in (3, 5, 10, 30)
    for lr in (3e-3, 1e-2)
    for decay in (1e-3, 1e-2, 0.05)
    for exact in (True, False)
    if theory.turning_points(K, lr, decay, exact).rise_ends > 3
]


@pytest.mark.parametrize(("K", "lr", "decay", "exact"), TURNS)
def test_turning_points_are_where_the_simulation_turns(K, lr, decay, exact):
    points = theory.turning_points(K, lr, decay, exact)
    steps = int(1.2 * points.fall_ends) + 1000

    def force_on_b(a, b):
        return theory.off_diagonal(a + b, K, exact) - decay * b

    a, b = theory.simulate_signgd_scalars(K, lr, decay, steps, exact=exact)
    alpha = (a - (K - 1) * b) ** 2
    first_fall_b, first_fall_a = np.argmax(np.diff(b) < 0), np.argmax(np.diff(a) < 0)
    assert first_fall_b == np.ceil(points.rise_ends) == np.argmax(alpha)
    # b is within 2η of its curve, which moves the balance of a by a few η
    assert abs(first_fall_a - points.fall_ends) <= 3
    for t in np.linspace(first_fall_b + 2, first_fall_a, 5).astype(int):
        curve = brentq(lambda w, at=a[t]: force_on_b(at, w), 0, b.max() + lr)
        assert abs(b[t] - curve) <= 2 * lr
    tail = alpha[-600:]
    assert np.array_equal(tail[2:], tail[:-2])
    balance, scale = points.fall_ends * lr / (K - 1), np.sqrt(K - 1) if exact else 1
    assert np.sqrt(tail.max()) <= (K - 1) * (lr + balance * np.expm1(2 * lr / scale))


def test_turning_points_solve_their_equations():
    K, lr, decay = 10, 0.01, 0.02
    for exact in (True, False):
        first, second, proof = lr * np.array(theory.turning_points(K, lr, decay, exact))
        g = theory.off_diagonal
        assert g(2 * first, K, exact) == pytest.approx(decay * first, rel=EXACT)
        b = second / (K - 1)
        assert g(second + b, K, exact) == pytest.approx(decay * b, rel=EXACT)
        assert (K - 1) * g(proof + first, K, exact) == pytest.approx(decay * proof, rel=EXACT)


def test_b_does_not_stay_where_the_proof_leaves_it():
    K, lr, decay = 10, 1e-3, 1e-3
    points = theory.turning_points(K, lr, decay, exact=False)
    a, b = theory.simulate_signgd_scalars(K, lr, decay, 8000, exact=False)
    turned = np.argmax(np.diff(a) < 0)
    assert turned == pytest.approx(6503, abs=3)
    assert points.fall_ends_proof == pytest.approx(4655, abs=1)
    assert b[turned] < 0.3 * b.max()
    fall = np.diff(((a - (K - 1) * b) ** 2)[np.argmax(b) : turned])
    assert 0.1 < np.mean(fall > 0) < 0.5  # α zigzags down, it does not fall at each step


# --- Unconstrained features -------------------------------------------------------------------


def random_state(K, n, p, seed=0):
    rng = np.random.default_rng(seed)
    parts = (rng.standard_normal(shape) for shape in ((K * n, p), (K, p), (K,)))
    return theory.State(*parts)


def flat(parts):
    return np.concatenate([np.ravel(part) for part in parts])


def unflat(vector, like):
    cuts = np.cumsum([part.size for part in like])[:-1]
    return [x.reshape(p.shape) for x, p in zip(np.split(vector, cuts), like, strict=True)]


def slopes(function, parts, size=1e-5):
    """Central differences of a number or an array, one row a coordinate."""
    at = flat(parts)
    ends = [
        [function(*unflat(at + sign * size * e, parts)) for sign in (1, -1)]
        for e in np.eye(len(at))
    ]
    return np.array([(up - down) / (2 * size) for up, down in ends])


def test_mixon_risk_is_the_papers_in_its_own_shapes():
    H, W, b = random_state(3, 2, 4)
    residual = W @ H.T + np.outer(b, np.ones(6)) - np.kron(np.eye(3), np.ones(2))
    expected = np.linalg.norm(residual) ** 2 / 2
    assert theory.mixon_risk(theory.State(H, W, b)) == pytest.approx(expected, rel=1e-14)


def test_mixon_gradient_against_differences():
    state = random_state(3, 2, 4)
    expected = slopes(lambda *parts: theory.mixon_risk(theory.State(*parts)), state)
    np.testing.assert_allclose(flat(theory.mixon_gradient(state)), expected, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize(("K", "n", "p"), [(3, 3, 15), (5, 2, 5), (10, 4, 12)])
def test_strong_collapse_is_a_global_minimum_in_the_subspace(K, n, p):
    """W Wᵀ = √n (I − J/K), H = W ⊗ 1_n / √n, b = 1/K."""
    W = np.pad(n**0.25 * theory.centring(K), ((0, 0), (0, p - K)))
    state = theory.State(np.repeat(W, n, 0) / np.sqrt(n), W, np.full(K, 1 / K))
    assert theory.mixon_risk(state) < 1e-28  # R_e ≥ 0, so nothing is lower
    assert np.linalg.norm(flat(theory.mixon_gradient(state))) < 1e-13
    assert max(theory.ufm.collapse_errors(state)) < 1e-14
    assert theory.invariant_distance(state) < 1e-15


@settings(max_examples=30, deadline=None)
@given(K=st.integers(2, 6), n=st.integers(1, 5), seed=st.integers(0, 1000))
def test_subspace_is_invariant_and_the_risk_splits_on_it(K, n, seed):
    state = theory.project_invariant(random_state(K, n, K + 2, seed))
    assert theory.invariant_distance(state) < 1e-14
    gradient = theory.mixon_gradient(state)
    off, size = theory.project_invariant(gradient), np.linalg.norm(flat(gradient))
    for part, inside in zip(gradient, off, strict=True):
        np.testing.assert_allclose(part, inside, rtol=0, atol=1e-12 * size)
    frame = state.W @ state.W.T / np.sqrt(n) - theory.centring(K)
    split = n / 2 * (np.sum(frame**2) + (state.b.sum() - 1) ** 2)
    assert theory.mixon_risk(state) == pytest.approx(split, rel=1e-12)


def test_projection_is_orthogonal():
    Z, other = random_state(4, 3, 6, 1), theory.project_invariant(random_state(4, 3, 6, 2))
    nearest = theory.project_invariant(Z)
    away = flat(Z) - flat(nearest)
    assert abs(away @ flat(other)) < 1e-13
    assert abs(away @ flat(nearest)) < 1e-13
    np.testing.assert_allclose(flat(theory.project_invariant(nearest)), flat(nearest), atol=1e-15)
    distance = np.linalg.norm(away) / np.linalg.norm(flat(Z))
    assert theory.invariant_distance(Z) == pytest.approx(distance, rel=1e-13)


def test_descent_is_gradient_descent_and_logs_what_it_says():
    start = theory.mixon_start(3, 3, 15, 0.2, np.random.default_rng(0))
    assert np.linalg.norm(start.H) == pytest.approx(0.2)
    assert np.linalg.norm(start.W) == pytest.approx(0.2)
    history, end = theory.mixon_descent(start, 0.05, 25, log_every=10)
    np.testing.assert_array_equal(history.index, [0, 10, 20, 25])
    state = start
    for _ in range(25):
        gradient = theory.mixon_gradient(state)
        state = theory.State(*(x - 0.05 * g for x, g in zip(state, gradient, strict=True)))
    np.testing.assert_array_equal(flat(end), flat(state))
    *errors, distance, risk = history.iloc[-1]
    assert tuple(errors) == theory.ufm.collapse_errors(state)
    assert distance == theory.invariant_distance(state)
    assert risk == theory.mixon_risk(state)


def test_small_starts_end_near_collapse():
    """Fig. 1: over a factor 10 in ε, the weight's error falls as ε², the other two as ε."""
    starts = [theory.mixon_start(3, 3, 15, eps, np.random.default_rng(1)) for eps in (1e-2, 1e-3)]
    large, small = (theory.mixon_descent(start, 0.05, 1500, 1500)[0] for start in starts)
    ratio = large.loc[1500] / small.loc[1500]
    assert ratio["weight_error"] == pytest.approx(100, rel=0.1)
    assert ratio["feature_error"] == pytest.approx(10, rel=0.1)
    assert ratio["bias_error"] == pytest.approx(10, rel=0.1)
    assert small["distance"][1500] < 1e-3 < small["distance"][0]


@pytest.mark.parametrize(("K", "n", "p"), [(3, 3, 15), (2, 4, 9), (4, 3, 20)])
def test_errors_of_small_starts_have_their_orders(K, n, p):
    """w = ‖Wᵀ1‖² ≤ K(‖D‖ + N‖h̄‖²), by the balance along 1, and ‖WWᵀ1‖² at most that times w/K:
    both of order ε². The error of H is at least that of D's positive eigenvalues after K."""
    size = 0.2
    start = theory.mixon_start(K, n, p, size, np.random.default_rng(1))
    H, W, _ = theory.mixon_descent(start, 0.05, 15_000, 15_000)[1]
    D, h, u = H.T @ H - W.T @ W, H.mean(0), W.sum(0)
    most = np.linalg.norm(D, 2) + K * n * h @ h
    assert u @ u <= 1.01 * K * most < 10 * K * size**2
    assert np.sum((W @ u) ** 2) <= 1.01 * most * (u @ u)
    rest = np.linalg.eigvalsh(D)[::-1][K:]
    off = H - np.repeat(W, n, 0) / n**0.5
    assert np.sum(off**2) >= rest[rest > 0].sum() > 0.05 * size**2


def test_ufm_gradient_and_hessian_against_differences():
    H, W, _ = random_state(3, 2, 4)
    loss = slopes(lambda h, w: theory.ufm_loss(h, w, 0.3), (H, W))
    np.testing.assert_allclose(flat(theory.ufm_gradient(H, W, 0.3)), loss, rtol=1e-7, atol=1e-8)
    hessian = slopes(lambda h, w: flat(theory.ufm_gradient(h, w, 0.3)), (H, W))
    np.testing.assert_allclose(theory.ufm_hessian(H, W, 0.3), hessian, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize(("K", "n", "p"), [(3, 2, 4), (4, 1, 5)])
@pytest.mark.parametrize("decay", [0.02, 0.3, 0.9])
def test_ufm_optimum_is_a_collapsed_global_minimum(K, n, p, decay):
    H, W = theory.ufm_optimum(K, n, p, decay)
    assert np.max(np.abs(flat(theory.ufm_gradient(H, W, decay)))) < 1e-14
    assert np.linalg.eigvalsh(theory.ufm_hessian(H, W, decay))[0] > -1e-13
    np.testing.assert_allclose(W @ W.T / np.linalg.norm(W @ W.T), theory.simplex_etf(K), atol=1e-15)
    np.testing.assert_allclose(H, np.kron(W, np.ones((n, 1))) / np.sqrt(n), atol=1e-15)
    found = descend_ufm(K, n, p, decay)
    assert theory.ufm_loss(*found, decay) == pytest.approx(theory.ufm_loss(H, W, decay), rel=1e-8)


@pytest.mark.parametrize("seed", range(4))
def test_nc0_may_stay_while_everything_collapses(seed):
    """No decay: NC0 keeps its value, and its share of W, NC1, NC2 and NC3 fall."""
    rng = np.random.default_rng(seed)
    start = 0.4 * rng.standard_normal((20, 8)), 0.4 * rng.standard_normal((4, 8))
    steps, H, W = theory.normalised_descent(*start, lr=0.1, steps=2050, log_every=1000)
    assert steps.tolist() == [0, 1000, 2000, 2050]
    found = metrics.member_metrics(H, np.repeat(np.arange(4), 5), W)
    found = {name: value.numpy() for name, value in found.items()}
    np.testing.assert_allclose(found["nc0"], found["nc0"][0], rtol=1e-11)
    assert found["nc0"][0] > 2
    for name, end in {"nc1": 1e-9, "nc2": 1e-3, "nc3": 0.02, "gauge_share": 0.02}.items():
        assert found[name][-1] < end < 0.1 < found[name][0], name
    assert found["nc3_centred"][-1] < 0.1 * found["nc3"][-1]  # what is left of NC3 is gauge


def test_normalised_descent_takes_steps_of_one_length_along_the_gradient():
    H, W = np.random.default_rng(0).standard_normal((2, 6, 4))
    W = W[:3]
    _, features, weights = theory.normalised_descent(H, W, lr=1e-3, steps=1)
    moved = np.r_[(features[1] - H).ravel(), (weights[1] - W).ravel()]
    gradient = np.r_[tuple(part.ravel() for part in theory.ufm_gradient(H, W, 0.0))]
    np.testing.assert_allclose(moved, -1e-3 * gradient / np.linalg.norm(gradient), atol=1e-15)


def descend_ufm(K, n, p, decay):
    """A local minimum from a random start, by a solver that knows nothing of the answer."""
    like = random_state(K, n, p, 3)[:2]

    def both(x):
        H, W = unflat(x, like)
        return theory.ufm_loss(H, W, decay), flat(theory.ufm_gradient(H, W, decay))

    options = {"gtol": 1e-9, "ftol": 1e-15, "maxiter": 5000}
    found = minimize(both, flat(like), jac=True, method="L-BFGS-B", options=options)
    return unflat(found.x, like)


@pytest.mark.parametrize(("K", "n", "p"), [(3, 2, 4), (3, 4, 4)])
def test_zero_is_a_strict_saddle_up_to_root_n_and_the_minimum_beyond(K, n, p):
    """Theorem C.1 needs λ < √n: beyond, the global minimum is 0 and there is no collapse."""
    zero = np.zeros((K * n, p)), np.zeros((K, p))
    for decay in (0.5 * np.sqrt(n), 1.1 * np.sqrt(n)):
        assert np.all(flat(theory.ufm_gradient(*zero, decay)) == 0)
        lowest = np.linalg.eigvalsh(theory.ufm_hessian(*zero, decay))[0]
        assert lowest == pytest.approx(decay - np.sqrt(n), abs=1e-12)
    assert np.all(flat(theory.ufm_optimum(K, n, p, 1.1 * np.sqrt(n))) == 0)
    found = descend_ufm(K, n, p, 1.1 * np.sqrt(n))
    assert np.max(np.abs(flat(found))) < 1e-4


def test_minimum_in_fewer_features_is_a_strict_saddle():
    """One feature can't hold a simplex of 3; given 3 more, the point is critical, not minimal."""
    K, n, decay = 3, 2, 0.1
    small = descend_ufm(K, n, 1, decay)
    H, W = (np.hstack([part, np.zeros((len(part), 3))]) for part in small)
    assert np.max(np.abs(flat(theory.ufm_gradient(H, W, decay)))) < 1e-6
    assert np.linalg.norm(W) > 0.5
    assert np.linalg.eigvalsh(theory.ufm_hessian(H, W, decay))[0] < -0.05
    assert theory.ufm_loss(H, W, decay) > theory.ufm_loss(
        *theory.ufm_optimum(K, n, 4, decay), decay
    )


# --- The public boundary ----------------------------------------------------------------------

RATIO = dict(lr=0.1, momentum=0.9, weight_decay=0.1, steps_per_epoch=5, epochs=5)


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("momentum", 1.0, "1"),
        ("momentum", -0.1, "-0.1"),
        ("momentum", [0.5, 1.5], "1.5"),
        ("weight_decay", -0.1, "-0.1"),
        ("lr", 0, "0"),
        ("lr", np.nan, "nan"),
        ("lr", "fast", "'fast'"),
        ("epochs", 0, "0"),
        ("epochs", 2.5, "2.5"),
        ("steps_per_epoch", 0, "0"),
        ("milestones", (-0.5,), "-0.5"),
        ("decoupled", 2, "2"),
    ],
)
def test_a_bad_setting_of_a_run_is_refused_with_its_value(name, value, shown):
    with pytest.raises(ValueError, match=f"^{name} must be .* got {shown}$"):
        theory.row_sum_ratio(**RATIO | {name: value})


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        ("row_sum_trajectory", (26, 0.1, 0.9, 0.1, 5, 5), r"steps .* got 26"),
        ("row_sum_closed_form", (0.5, 0.1, 0.9, 0.1), r"steps .* got 0.5"),
        ("lemma_e6_solution", (1, 0, 0.1), r"momentum .* got 0"),
        ("simulate_signgd", (1, 0.1, 0.1, 5), r"num_classes .* got 1"),
        ("simulate_signgd", (3, -0.1, 0.1, 5), r"lr .* got -0.1"),
        ("simulate_signgd", (3, 0.1, -1, 5), r"weight_decay .* got -1"),
        ("simulate_signgd", (3, 0.1, 0.1, 0), r"steps .* got 0"),
        ("turning_points", (3, 0.1, 0.0), r"weight_decay .* got 0"),
        ("decoupled_limit", (3, 0.0), r"weight_decay .* got 0"),
        ("ufm_optimum", (5, 2, 4, 0.1), r"width .* got 4"),
        ("ufm_optimum", (5, 0, 5, 0.1), r"per_class .* got 0"),
        ("ufm_loss", (np.zeros((7, 4)), np.zeros((3, 4)), 0.1), "of the 3 classes, got 7"),
    ],
)
def test_bad_input_is_refused_with_its_value(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        getattr(theory, function)(*arguments)


def test_theory_needs_no_torch():
    check = "import sys, ncbook.theory; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


@pytest.mark.parametrize("coupled", [False, True])
def test_signgd_takes_numpy_numbers(coupled):
    numpys = theory.simulate_signgd(3, np.float64(0.1), np.float64(0.1), 30, coupled)
    np.testing.assert_array_equal(numpys, theory.simulate_signgd(3, 0.1, 0.1, 30, coupled))


@pytest.mark.parametrize("decoupled", [False, True])
def test_a_floor_that_overflows_is_infinite(decoupled):
    assert theory.rounding_floor(10.0, 0.9, 1.0, 50, 100, decoupled=decoupled) == np.inf
