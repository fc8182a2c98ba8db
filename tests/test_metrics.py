"""The metrics against slow versions written straight from eq. 2 to 12, and their properties."""

import contextlib
import functools
import itertools
import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import nn

from ncbook import metrics
from ncbook.metrics import StreamingNCMetrics, member_metrics, nc_metrics, simplex_etf

RELATIVE = 1e-6  # float32 against the literal versions in float64
EXACT = 1e-9  # two float64 ways of computing the same number
VANISHING = ["nc0", "nc1", "nc2", "nc2n", "nc2a", "nc2w", "nc2wn", "nc2wa", "nc2m", "nc3"]
GAUGE = ["gauge_share", "nc2w_centred", "nc2m_centred", "nc3_centred"]
ALL_KEYS = [*VANISHING, "nc4", "nc1_quotient", "cdnv", "w_norm", *GAUGE]
VANISHING += ["nc1_quotient", "cdnv", *GAUGE]  # 0 at perfect collapse


# ------------------------------------------------------------------ the literal versions


def literal_metrics(features, labels, weight, bias=None, test_features=None):
    """Eq. 2 to 12 without their outer factors, one sample and one class at a time, in float64."""
    h, w = np.asarray(features, np.float64), np.asarray(weight, np.float64)
    (num_samples, width), num_classes = h.shape, len(w)
    classes = range(num_classes)
    mu = np.stack([h[labels == k].mean(0) for k in classes])
    m = mu - sum(mu) / num_classes
    sigma_b = sum(np.outer(row, row) for row in m) / num_classes
    sigma_w = sum(np.outer(x - mu[y], x - mu[y]) for x, y in zip(h, labels, strict=True))
    sigma_w = sigma_w / num_samples
    cutoff = max(num_classes, width) * np.finfo(np.float64).eps
    etf = (np.eye(num_classes) - np.ones((num_classes, num_classes)) / num_classes) / math.sqrt(
        num_classes - 1
    )
    w_c = w - sum(w) / num_classes
    pairs = list(itertools.permutations(classes, 2))
    variance = [np.mean([np.sum((x - mu[k]) ** 2) for x in h[labels == k]]) for k in classes]

    def distance(product):
        return np.linalg.norm(product / np.linalg.norm(product) - etf)

    def duality(rows):
        return np.linalg.norm(rows / np.linalg.norm(rows) - m / np.linalg.norm(m))

    def spread(rows):
        norms = [np.linalg.norm(row) for row in rows]
        return np.std(norms, ddof=1) / np.mean(norms)

    def angles(rows):
        unit = [row / np.linalg.norm(row) for row in rows]
        return np.mean([abs(unit[i] @ unit[j] + 1 / (num_classes - 1)) for i, j in pairs])

    found = {
        "nc0": np.linalg.norm(w.T @ np.ones(num_classes)),
        "nc1": np.trace(sigma_w @ np.linalg.pinv(sigma_b, rcond=cutoff, hermitian=True))
        / num_classes,
        "nc2": distance(m @ m.T),
        "nc2n": spread(m),
        "nc2a": angles(m),
        "nc2w": distance(w @ w.T),
        "nc2wn": spread(w),
        "nc2wa": angles(w),
        "nc2m": distance(w @ m.T),
        "nc3": duality(w),
        "w_norm": np.linalg.norm(w),
        "gauge_share": np.linalg.norm(np.ones((num_classes, num_classes)) @ w / num_classes)
        / np.linalg.norm(w),
        "nc2w_centred": distance(w_c @ w_c.T),
        "nc2m_centred": distance(w_c @ m.T),
        "nc3_centred": duality(w_c),
        "nc1_quotient": np.trace(sigma_w) / np.trace(sigma_b),
        "cdnv": np.mean(
            [(variance[i] + variance[j]) / (2 * np.sum((mu[i] - mu[j]) ** 2)) for i, j in pairs]
        ),
    }
    if test_features is not None:
        b = np.zeros(num_classes) if bias is None else np.asarray(bias, np.float64)
        agreements = [
            np.argmax(w @ x + b) == np.argmin([np.linalg.norm(x - row) for row in mu])
            for x in np.asarray(test_features, np.float64)
        ]
        found["nc4"] = np.mean(agreements)
    return found


@functools.cache
def digits_case(dtype):
    """Handwritten digits' pixels, and the weights of a logistic regression trained on them."""
    pixels, labels = load_digits(return_X_y=True)
    pixels = (pixels / 16).astype(dtype)  # 64 wide; some pixels are 0 in every image
    model = LogisticRegression(max_iter=1000).fit(pixels[:1400], labels[:1400])
    weight, bias = model.coef_.astype(dtype), model.intercept_.astype(dtype)
    return pixels[:1400], labels[:1400], weight, bias, pixels[1400:]


def random_case(dtype, num_classes=7, width=40, offset=0.0, spread=1.0, seed=0):
    """Gaussian clusters of unequal size, all shifted by a common offset."""
    labels = np.repeat(np.arange(num_classes), 5 + 3 * np.arange(num_classes))
    labels = np.random.default_rng(0).permutation(labels)  # the same for every seed
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(num_classes, width))
    features = offset + centres[labels] + spread * rng.normal(size=(len(labels), width))
    weight, bias = rng.normal(size=(num_classes, width)), rng.normal(size=num_classes)
    test_features = offset + centres[rng.integers(num_classes, size=50)]
    test_features = test_features + rng.normal(size=(50, width))
    return tuple(
        part.astype(dtype) if part is not labels else part
        for part in (features, labels, weight, bias, test_features)
    )


CASES = {
    "digits": digits_case,
    "random": random_case,
    "two classes": lambda dtype: random_case(dtype, num_classes=2, width=3),
    "more classes than features": lambda dtype: random_case(dtype, num_classes=12, width=5),
    "one feature": lambda dtype: random_case(dtype, num_classes=4, width=1),
    "nearly collapsed": lambda dtype: random_case(dtype, spread=3e-4),
    "common offset": lambda dtype: random_case(dtype, offset=1000.0, spread=1e-2),
}


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


def assert_close(found, expected, relative=RELATIVE, absolute=0.0):
    assert set(found) == set(expected)
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, rel=relative, abs=absolute), key


# ------------------------------------------------------------------ equal to the equations


@pytest.mark.parametrize(("dtype", "relative"), [(np.float32, RELATIVE), (np.float64, 1e-8)])
def test_equal_to_the_equations(case, dtype, relative):
    arguments = case(dtype)
    # 1e-12: with one feature every cosine is 1 or -1, and nc2wa's summands may cancel to rounding
    assert_close(nc_metrics(*arguments), literal_metrics(*arguments), relative, absolute=1e-12)


def test_nc1_is_as_small_as_1e_7_in_the_nearly_collapsed_case():
    features, labels, weight, *_ = CASES["nearly collapsed"](np.float32)
    assert 1e-8 < nc_metrics(features, labels, weight)["nc1"] < 1e-6


def test_keys_their_order_and_types():
    features, labels, weight, bias, test_features = random_case(np.float32)
    found = nc_metrics(features, labels, weight, bias, test_features)
    assert list(found) == ALL_KEYS
    assert {type(value) for value in found.values()} == {float}
    assert list(nc_metrics(features, labels, weight)) == [key for key in ALL_KEYS if key != "nc4"]


def tensor(rng, *shape):
    return torch.from_numpy(rng.normal(size=shape))


def test_features_and_means_have_the_same_members(rng):
    features, labels = tensor(rng, 3, 12, 4), torch.arange(12) % 3
    means = tensor(rng, 3, 3, 4)
    for call in (
        lambda: metrics.nc1(features[0], labels, means),
        lambda: metrics.nearest_mean_agreement(features[0], means, means),
        lambda: metrics.nc1(features, labels, means[0]),
    ):
        with pytest.raises(ValueError, match=r"must have the same members: all axes but the last"):
            call()


def test_cdnv_of_equal_means_and_of_a_far_common_part(rng):
    means, variances = tensor(rng, 3, 4), torch.ones(3)
    near = metrics.class_distance_variance(variances, means)
    torch.testing.assert_close(metrics.class_distance_variance(variances, means + 1e6), near)
    same = torch.ones(3, 4, dtype=torch.float64)
    assert metrics.class_distance_variance(torch.zeros(3), same) == torch.inf
    for seed in range(30):  # whatever the rounding of the products
        torch.manual_seed(seed)
        same = torch.randn(37, 511, dtype=torch.float64)
        same[-1] = same[0]
        assert metrics.class_distance_variance(torch.ones(37).double(), same) == torch.inf


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_nc1_of_narrower_means_is_that_of_the_means_as_they_are(dtype):
    torch.manual_seed(0)
    directions = torch.randn(10, 64) * torch.logspace(0, -2, 10)[:, None]
    labels = torch.arange(10).repeat_interleave(20)
    features = directions[labels] + 1e-2 * torch.randn(200, 64)
    means = metrics.class_means(features, labels, 10).to(dtype)
    found = metrics.nc1(features, labels, means)
    torch.testing.assert_close(found, metrics.nc1(features, labels, means.double()))
    assert found.dtype == torch.float64


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_the_geometry_of_float32_rows_of_any_size(rng, size):
    rows = tensor(rng, 5, 7).float()
    for metric in (metrics.row_norm_spread, metrics.equiangularity):
        torch.testing.assert_close(metric(rows * size), metric(rows), rtol=1e-5, atol=0)
    assert metrics.nc0(torch.full((4, 3), 3e4, dtype=torch.float16)).isfinite()


def test_bias_counts_in_nc4_only_when_given():
    features, labels, weight, bias, test_features = random_case(np.float64)
    bias = 100 * bias  # decides alone
    found = nc_metrics(features, labels, weight, bias, test_features)
    without = nc_metrics(features, labels, weight, None, test_features)
    assert found["nc4"] == literal_metrics(features, labels, weight, bias, test_features)["nc4"]
    assert without["nc4"] == literal_metrics(features, labels, weight, None, test_features)["nc4"]
    assert found["nc4"] != without["nc4"]
    assert {key for key in found if found[key] != without[key]} == {"nc4"}


def test_text_scale_divides_as_the_equations_do():
    arguments = digits_case(np.float64)
    reported, text = nc_metrics(*arguments), nc_metrics(*arguments, scale="text")
    divisors = {"nc0": 10, "nc2": 100, "nc2w": 100, "nc2m": 100, "nc3": 640}  # K = 10, p = 64
    divisors |= {f"{key}_centred": divisors[key] for key in ("nc2w", "nc2m", "nc3")}
    expected = {key: value / divisors.get(key, 1) for key, value in reported.items()}
    assert_close(text, expected, relative=1e-14)


def test_dual_means_are_the_pseudo_inverse(case):
    features, labels, weight, *_ = case(np.float64)
    means = metrics.class_means(torch.tensor(features), torch.tensor(labels), len(weight))
    centred = metrics.centred_means(means)
    expected = np.linalg.pinv(centred.numpy(), rcond=1e-6)
    np.testing.assert_allclose(metrics.dual_means(centred).numpy(), expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("num_classes", [2, 3, 17])
def test_dual_means_never_invert_the_structural_zero(num_classes):
    """A huge common offset leaves M with rows that sum to its rounding, not to zero."""
    rows = torch.randn(num_classes, 20, dtype=torch.float64, generator=generator(num_classes))
    centred = metrics.centred_means(rows)
    rounding = 1e-5 * torch.randn(20, dtype=torch.float64, generator=generator(0))
    dual = metrics.dual_means(centred + rounding)
    assert torch.linalg.matrix_rank(dual) == num_classes - 1
    torch.testing.assert_close(dual, metrics.dual_means(centred), rtol=0, atol=1e-4)


@pytest.mark.parametrize("shape", [(10, 64), (3, 3), (12, 5)])
def test_singular_values(shape):
    rows = torch.randn(4, *shape, dtype=torch.float64, generator=generator(1))
    smallest, others = metrics.singular_values(rows)
    for member in range(4):
        values = np.linalg.svd(rows[member].numpy(), compute_uv=False)
        assert smallest[member].item() == pytest.approx(values[-1], rel=EXACT)
        assert others[member].item() == pytest.approx(values[:-1].mean(), rel=EXACT)


def test_smallest_singular_value_keeps_its_digits():
    """1e-10 of the largest: its square is lost in a float64 Gram matrix."""
    left, right = rotation(5, 0), rotation(8, 1)
    exact = torch.tensor([3.0, 2.0, 2.0, 1.0, 3e-10], dtype=torch.float64)
    smallest, others = metrics.singular_values((left * exact) @ right[:5])
    assert smallest.item() == pytest.approx(3e-10, rel=1e-4)
    assert others.item() == pytest.approx(2.0, rel=EXACT)


# ------------------------------------------------------------------ what must hold of them

networks = st.builds(
    lambda num_classes, extra, seed: random_case(
        np.float64, num_classes, num_classes + extra, seed=seed
    ),
    num_classes=st.integers(2, 8),
    extra=st.integers(0, 20),
    seed=st.integers(0, 2**32 - 1),
)
seeds = st.integers(0, 2**32 - 1)
scales = st.floats(1e-3, 1e3)
quick = settings(deadline=None, max_examples=30)


def generator(seed):
    return torch.Generator().manual_seed(seed)


def rotation(width, seed):
    """A random orthogonal matrix (p, p)."""
    square = torch.randn(width, width, dtype=torch.float64, generator=generator(seed))
    return torch.linalg.qr(square).Q


def without_bias(network):
    features, labels, weight, _, test_features = map(torch.as_tensor, network)
    return features, labels, weight, test_features


def measure(features, labels, weight, test_features):
    return nc_metrics(features, labels, weight, None, test_features)


@quick
@given(num_classes=st.integers(2, 12), extra=st.integers(0, 20), seed=seeds, scale=scales)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_perfect_collapse(dtype, num_classes, extra, seed, scale):
    width, per_class = num_classes + extra, 5
    centres = simplex_etf(num_classes) @ rotation(width, seed)[:num_classes]
    labels = torch.arange(num_classes).repeat_interleave(per_class)
    noise = 1e-3 * torch.randn(len(labels), width, generator=generator(seed))
    found = measure(
        (scale * centres[labels]).to(dtype),
        labels,
        (7 * centres).to(dtype),
        (scale * (centres[labels] + noise / num_classes)).to(dtype),
    )
    assert found.pop("nc4") == 1
    assert found.pop("w_norm") == pytest.approx(7, rel=1e-6)
    # equal rows still round: a few eps, and nc0 is a sum of K rows of norm 7 / sqrt(K)
    zero = 100 * torch.finfo(dtype).eps
    assert_close(found, dict.fromkeys(VANISHING, 0.0), relative=0, absolute=zero)


def test_identical_features_have_no_variability_at_all():
    features, labels, weight, *_ = map(torch.as_tensor, random_case(np.float64, offset=5.0))
    means = metrics.class_means(features, labels, 7)
    found = nc_metrics(means[labels], labels, weight)
    assert max(found["nc1"], found["nc1_quotient"], found["cdnv"]) < 1e-28


# Of features H, labels y, weight W and test features T; from a seed and a scale.
CHANGES = {
    "rotation": lambda H, y, W, T, Q, _: (H @ Q, y, W @ Q, T @ Q),
    "scale of the features": lambda H, y, W, T, _, scale: (scale * H, y, W, scale * T),
    "scale of the weight": lambda H, y, W, T, _, scale: (H, y, scale * W, T),
    "offset of the features": lambda H, y, W, T, Q, scale: (H + 10 * Q[0], y, W, T),
    "order of the samples": lambda H, y, W, T, Q, _: (H.flip(0), y.flip(0), W, T.flip(0)),
    "names of the classes": lambda H, y, W, T, Q, _: (H, len(W) - 1 - y, W.flip(0), T),
}


@quick
@given(network=networks, seed=seeds, scale=scales)
@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_nothing(change, network, seed, scale):
    """NC0 and the norm grow with the weight; NC4 sees an offset."""
    before = without_bias(network)
    turn = rotation(before[2].shape[1], seed)
    found, expected = measure(*CHANGES[change](*before, turn, scale)), measure(*before)
    if change == "scale of the weight":
        expected |= {key: scale * expected[key] for key in ("nc0", "w_norm")}
    if change == "offset of the features":
        expected["nc4"] = found["nc4"]
    assert_close(found, expected, relative=1e-7, absolute=EXACT)


@quick
@given(network=networks)
def test_nc2w_bounds_nc0(network):
    """S_ETF 1 = 0, so ‖Wᵀ1‖² = 1ᵀ(W Wᵀ - ‖W Wᵀ‖_F S_ETF)1 <= K ‖W Wᵀ‖_F NC2W."""
    features, labels, weight, _ = without_bias(network)
    found = nc_metrics(features, labels, weight)
    bound = len(weight) * torch.linalg.matrix_norm(weight @ weight.mT).item() * found["nc2w"]
    assert found["nc0"] ** 2 <= bound * (1 + EXACT)


def test_nc0_may_vanish_without_nc2w():
    features, labels, weight, *_ = random_case(np.float64)
    found = nc_metrics(features, labels, weight - weight.mean(0))
    assert found["nc0"] < 1e-12
    assert found["nc2w"] > 0.1


# ------------------------------------------------------------------ the gauge


def assert_identity(features, labels, weight):
    """NC3² = 2 - 2 √(1 - gauge_share²) cos(W_c, M), and the two bounds that follow."""
    found = nc_metrics(features, labels, weight)
    share, own = found["gauge_share"], 1 - found["nc3_centred"] ** 2 / 2  # own = cos(W_c, M)
    assert 0 <= share <= 1
    assert found["nc3"] ** 2 == pytest.approx(2 - 2 * math.sqrt(1 - share**2) * own, abs=1e-11)
    assert share == pytest.approx(
        found["nc0"] / math.sqrt(len(weight)) / found["w_norm"], rel=EXACT
    )


@quick
@given(network=networks, seed=seeds, size=st.floats(1e-6, 1e3))
def test_nc3_splits_into_the_gauge_and_the_rest(network, seed, size):
    features, labels, weight, _ = without_bias(network)
    shift = size * torch.randn(weight.shape[1], dtype=torch.float64, generator=generator(seed))
    assert_identity(features, labels, weight + shift)


def test_the_split_in_exact_numbers():
    """W = 4 M + a common row of norm 3/√2, so that ‖W_c‖ = 4 and ‖W_g‖ = 3: NC3² = 2 - 2·4/5."""
    centred = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64) / math.sqrt(2)
    common = torch.tensor([0.0, 3 / math.sqrt(2)], dtype=torch.float64)
    found = nc_metrics(centred, [0, 1], 4 * centred + common)
    assert found["w_norm"] == pytest.approx(5, rel=1e-15)
    assert found["gauge_share"] == pytest.approx(3 / 5, rel=1e-15)
    assert found["nc3"] ** 2 == pytest.approx(2 / 5, rel=1e-14)
    assert max(found[key] for key in ("nc3_centred", "nc2w_centred", "nc2m_centred")) < 1e-15


@quick
@given(network=networks, seed=seeds, size=st.floats(1e-6, 1e3))
def test_a_shift_that_softmax_does_not_see_changes_no_centred_metric(network, seed, size):
    features, labels, weight, _ = without_bias(network)
    before = nc_metrics(features, labels, weight)
    shift = size * torch.randn(weight.shape[1], dtype=torch.float64, generator=generator(seed))
    after = nc_metrics(features, labels, weight + shift)
    for key in ("nc2w_centred", "nc2m_centred", "nc3_centred"):
        assert after[key] == pytest.approx(before[key], rel=1e-7, abs=1e-9), key


@pytest.mark.parametrize("share", [1e-4, 1e-6, 1e-8])
def test_a_small_gauge_of_float32_weights_is_exact(share):
    """Rows whose sum is much smaller than what rounding a float32 sum leaves."""
    rows = torch.randint(-(2**20), 2**20, (10, 64), generator=generator(0)).float()
    rows[-1] = -rows[:-1].double().sum(0)  # below 2**24: whole numbers, exact in float32
    rows[0, 0] += round(share * rows.norm().item() * math.sqrt(10)) + 1
    exact = abs(rows.double()[:, 0].sum().item()) / math.sqrt(10) / rows.double().norm().item()
    assert metrics.gauge_share(rows).item() == pytest.approx(exact, rel=1e-12)
    assert exact < 10 * share


NO_DIRECTION = ["nc3_centred", "nc2m_centred"]
DEGENERATE = {  # weight or features without a direction, and which metrics are NaN then
    "no weight": (2, lambda w: 0 * w, [*NO_DIRECTION, "nc2w_centred", "gauge_share", "nc3"]),
    "all gauge": (2, lambda w: np.tile(w[:1] + 0.1, (7, 1)), [*NO_DIRECTION, "nc2w_centred"]),
    "no class means": (0, lambda h: np.ones_like(h), [*NO_DIRECTION, "nc3", "nc2"]),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", DEGENERATE)
def test_what_has_no_direction_is_nan(kind, dtype):
    position, change, lost = DEGENERATE[kind]
    arguments = list(random_case(dtype))
    arguments[position] = change(arguments[position]).astype(dtype)
    found = nc_metrics(*arguments[:3])
    assert all(math.isnan(found[key]) for key in lost), found
    assert (found["gauge_share"] == pytest.approx(1, abs=1e-14)) is (kind == "all gauge")
    assert math.isfinite(found["w_norm"])


# ------------------------------------------------------------------ extreme sizes, torch's modes


def all_forms(features, labels, weight, bias, test_features):
    """The metrics by each of the three ways, in full."""
    labels = torch.as_tensor(labels)
    tensors = [torch.as_tensor(part) for part in (features, weight, bias, test_features)]
    features, weight, bias, test_features = tensors
    one = nc_metrics(features, labels, weight, bias, test_features)
    many = member_metrics(
        features.expand(2, -1, -1),
        labels,
        weight[None].repeat(2, 1, 1),
        bias.expand(2, -1),
        test_features.expand(2, -1, -1),
    )
    stream = StreamingNCMetrics(weight, bias)
    streamed = stream_all(stream, features, labels, test_features, batch_size=30)
    return {
        "one": one,
        "members": {key: value[1].item() for key, value in many.items()},
        "stream": streamed,
    }


def one_by_one(features, labels, weight, bias, test_features):
    """Some of them, by functions of their own."""
    means = metrics.class_means(features, labels, len(weight))
    found = {
        "nc0": metrics.nc0(weight),
        "nc1": metrics.nc1(features, labels, means),
        "nc2wa": metrics.equiangularity(weight),
        "nc3": metrics.self_duality(weight, metrics.centred_means(means)),
        "nc4": metrics.nearest_mean_agreement(test_features, weight, means, bias),
        "gauge_share": metrics.gauge_share(weight),
    }
    return {key: value.item() for key, value in found.items()}


@pytest.mark.parametrize(
    ("dtype", "size", "weight_size"),
    [
        *((torch.float32, size, 1.0) for size in (1e19, 1e-25, 1e30, 1e-32)),
        *((torch.float32, size, size) for size in (1e19, 1e-25)),
        *((torch.float32, 1.0, size) for size in (1e30, 1e-30)),
        *((torch.float64, size, 1 / size) for size in (1e60, 1e-60)),
        *((torch.bfloat16, size, 1.0) for size in (1e19, 1e-25)),
        *((torch.float16, size, 1.0) for size in (1e3, 1e-2)),
    ],
)
def test_scale_free_metrics_at_extreme_sizes(dtype, size, weight_size):
    features, labels, weight, bias, test_features = random_case(np.float64)
    power = 2.0 ** round(math.log2(size)), 2.0 ** round(math.log2(weight_size))  # both round alike
    parts = [torch.as_tensor(part).to(dtype) for part in (features, test_features)]
    layer = [torch.as_tensor(part) for part in (weight, bias)]
    layer = layer if dtype == torch.float64 else [part.float() for part in layer]
    plain = nc_metrics(parts[0], labels, *layer, parts[1])
    big = [part * power[0] for part in parts]
    layer = [(layer[0] * power[1]), (layer[1].double() * power[0] * power[1])]
    for form, found in all_forms(big[0], labels, *layer, big[1]).items():
        for key in set(ALL_KEYS) - {"nc0", "w_norm"}:
            assert found[key] == pytest.approx(plain[key], rel=2e-6), (form, key)


def test_residuals_of_very_different_sizes_all_count():
    """A large common feature, and small ones that hold all the variability."""
    features, labels, weight, *_ = random_case(np.float64, width=8)
    expected = nc_metrics(features[:, 1:], labels, weight[:, 1:])
    features[:, 0] = 1e15
    features[:, 1:] *= 1e-20
    found = nc_metrics(features.astype(np.float32), labels, weight)
    for key in ("nc1", "nc1_quotient", "cdnv", "nc2"):
        assert found[key] == pytest.approx(expected[key], rel=1e-5), key


@contextlib.contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    yield
    torch.set_default_dtype(before)


@contextlib.contextmanager
def deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


MODES = {
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "autocast to half": lambda: torch.autocast("cpu", torch.float16),
    "inference": torch.inference_mode,
    "no grad": torch.no_grad,
    "default float64": lambda: default_dtype(torch.float64),
    "deterministic": deterministic,
}


@pytest.mark.parametrize("learns", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_no_mode_of_torch_changes_a_number(mode, learns):
    features, labels, *rest = map(torch.as_tensor, digits_case(np.float32))
    parts = [part.clone().requires_grad_(learns) for part in (features[:200], *rest)]
    arguments = parts[0], labels[:200], *parts[1:]
    expected = all_forms(*arguments), one_by_one(*arguments)
    with MODES[mode]():
        assert (all_forms(*arguments), one_by_one(*arguments)) == expected


def test_a_stream_may_change_modes_between_passes():
    features, labels, weight, bias, test_features = map(torch.as_tensor, digits_case(np.float32))
    with torch.inference_mode():
        stream = StreamingNCMetrics(weight, bias)
        feed(stream, features, labels)
        stream.next_pass()
    feed(stream, features, labels)
    stream.next_pass()
    with torch.autocast("cpu", torch.bfloat16):
        feed(stream, test_features)
    expected = nc_metrics(features, labels, weight, bias, test_features)
    assert_close(stream.compute(), expected)
    with torch.inference_mode():
        stream.reset()
    feed(stream, features, labels)


# ------------------------------------------------------------------ forms of input


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_measured_as_given(dtype):
    """The rounding of the features is theirs; none is added."""
    features, labels, weight, bias, test_features = map(torch.as_tensor, digits_case(np.float32))
    features, test_features = features.to(dtype), test_features.to(dtype)
    expected = literal_metrics(
        features.float().numpy(), labels.numpy(), weight.numpy(), bias, test_features.float()
    )
    assert_close(nc_metrics(features, labels, weight, bias, test_features), expected)


def test_half_precision_whose_sum_overflows_is_no_error():
    features = torch.full((100, 50), 60000.0, dtype=torch.float16)
    features[50:] = 1.0
    labels = torch.arange(2).repeat_interleave(50)
    weight = torch.eye(2, 50)
    assert nc_metrics(features, labels, weight)["nc1"] == 0


def test_a_read_only_array_is_no_warning():
    arguments = random_case(np.float32)
    expected = nc_metrics(*arguments)
    arguments[0].flags.writeable = False  # as a memory map is
    assert nc_metrics(*arguments) == expected


def test_inputs_are_left_alone():
    arguments = [torch.tensor(part) for part in random_case(np.float32)]
    copies = [part.clone() for part in arguments]
    nc_metrics(*arguments)
    assert all(torch.equal(part, copy) for part, copy in zip(arguments, copies, strict=True))


def test_size_of_the_blocks_does_not_matter(monkeypatch):
    arguments = digits_case(np.float32)
    expected = nc_metrics(*arguments)
    monkeypatch.setattr(
        metrics.features, "BLOCK_ELEMENTS", 64 * 33
    )  # 33 samples: the last block is odd
    assert_close(nc_metrics(*arguments), expected, relative=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_equals_cpu(case):
    arguments = [torch.as_tensor(part) for part in case(np.float32)]
    on_gpu = nc_metrics(*(part.cuda() for part in arguments))
    assert_close(on_gpu, nc_metrics(*arguments), absolute=1e-12)


# ------------------------------------------------------------------ members


def members(count=5):
    """Members that share labels, stacked."""
    parts = zip(*(random_case(np.float32, seed=seed) for seed in range(count)), strict=True)
    features, labels, weight, bias, test_features = (torch.as_tensor(np.stack(p)) for p in parts)
    return features, labels[0], weight, bias, test_features


def test_members_together_equal_members_alone():
    features, labels, weight, bias, test_features = members()
    together = member_metrics(features, labels, weight, bias, test_features)
    assert list(together) == ALL_KEYS
    for member in range(5):
        of_member = weight[member], bias[member], test_features[member]
        alone = nc_metrics(features[member], labels, *of_member)
        # the batched small products may sum in another order
        assert_close({key: value[member].item() for key, value in together.items()}, alone, 1e-12)


DIVERGED = {  # what breaks, and the metrics that don't depend on it
    "features": (0, {"nc0", "nc2w", "nc2wn", "nc2wa", "w_norm", "gauge_share", "nc2w_centred"}),
    "weight": (2, {"nc1", "nc2", "nc2n", "nc2a", "nc1_quotient", "cdnv"}),
    "bias": (3, set(ALL_KEYS) - {"nc4"}),
    "test_features": (4, set(ALL_KEYS) - {"nc4"}),
}


@pytest.mark.parametrize("broken", DIVERGED)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_diverged_member_spoils_itself_alone(broken, value):
    arguments = list(members())
    clean = member_metrics(*arguments)
    position, untouched = DIVERGED[broken]
    arguments[position] = arguments[position].clone()
    arguments[position][2, 1] = value
    found = member_metrics(*arguments)
    others = [0, 1, 3, 4]
    for key in ALL_KEYS:
        assert torch.equal(found[key][others], clean[key][others]), key
        if key in untouched:
            assert found[key][2] == clean[key][2], key
        else:
            assert not found[key][2].isfinite(), key


def test_singular_values_of_a_diverged_member():
    rows = torch.randn(3, 4, 6, generator=generator(0))
    clean = metrics.singular_values(rows)
    rows[1, 2, 3] = math.nan
    rows[2, 0] = math.inf
    for found, before in zip(metrics.singular_values(rows), clean, strict=True):
        assert found[0] == before[0]
        assert found[1:].isnan().all()


def test_members_leave_no_graph():
    features, labels, weight, *_ = members()
    found = member_metrics(features.requires_grad_(), labels, weight.requires_grad_())
    assert not any(value.requires_grad for value in found.values())


# ------------------------------------------------------------------ streaming


def feed(stream, features, labels=None, batch_size=100):
    for start in range(0, len(features), batch_size):
        rows = slice(start, start + batch_size)
        stream.update(features[rows], None if labels is None else labels[rows])


def stream_all(stream, features, labels, test_features, batch_size):
    feed(stream, features, labels, batch_size)
    stream.next_pass()
    feed(stream, features.flip(0), labels.flip(0), batch_size)  # another order: a reshuffled loader
    stream.next_pass()
    feed(stream, test_features, batch_size=batch_size)
    return stream.compute()


@pytest.mark.parametrize("batch_size", [1, 7, 128, 5000])
def test_streaming_equals_one_shot(batch_size):
    features, labels, weight, bias, test_features = map(torch.as_tensor, digits_case(np.float32))
    features, labels, test_features = features[:300], labels[:300], test_features[:100]
    expected = nc_metrics(features, labels, weight, bias, test_features)
    stream = StreamingNCMetrics(weight, bias)
    for _ in range(2):  # the second time after a reset
        found = stream_all(stream, features, labels, test_features, batch_size)
        assert list(found) == ALL_KEYS
        assert_close(found, expected, relative=1e-6)
        stream.reset()


def test_streaming_without_test_features():
    features, labels, weight, *_ = random_case(np.float64)
    stream = StreamingNCMetrics(weight)
    feed(stream, features, labels)
    stream.next_pass()
    feed(stream, features, labels)
    assert_close(stream.compute(), nc_metrics(features, labels, weight), relative=1e-12)


def test_streams_of_two_workers_merge():
    features, labels, weight, bias, test_features = random_case(np.float64)
    first, second = StreamingNCMetrics(weight, bias), StreamingNCMetrics(weight, bias)
    feed(first, features[:20], labels[:20])
    feed(second, features[20:], labels[20:])
    first.merge_state(second)
    first.next_pass()
    second = first.clone()
    shares = ((first, slice(50, None), slice(9)), (second, slice(50), slice(9, None)))
    for stream, train, test in shares:  # shared out anew
        feed(stream, features[train], labels[train])
        stream.next_pass()
        feed(stream, test_features[test])
    first.merge_state(second)
    expected = nc_metrics(features, labels, weight, bias, test_features)
    assert_close(first.compute(), expected, relative=1e-12)


def test_streaming_measures_the_layer_it_was_given():
    features, labels, weight, *_ = random_case(np.float64)
    layer = torch.nn.Parameter(torch.tensor(weight))
    stream = StreamingNCMetrics(layer)
    for _ in range(2):
        feed(stream, features, labels)
        stream.next_pass()
        with torch.no_grad():
            layer += 1  # it trains on
    assert_close(stream.compute(), nc_metrics(features, labels, weight), relative=1e-12)


def stream_in_process(rank, folder, first=0):
    """One of two processes: every second sample is its own."""
    rank += first
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    features, labels, weight, bias, test_features = map(torch.as_tensor, random_case(np.float64))
    stream = StreamingNCMetrics(weight, bias)
    mine = slice(rank, None, 2)
    found = stream_all(stream, features[mine], labels[mine], test_features[mine], batch_size=16)
    torch.save(found, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_streams_of_two_processes(tmp_path):
    spawned = torch.multiprocessing.spawn(
        stream_in_process, (str(tmp_path), 1), nprocs=1, join=False
    )
    stream_in_process(0, str(tmp_path))
    spawned.join()
    expected = nc_metrics(*random_case(np.float64))
    for rank in range(2):
        assert_close(torch.load(tmp_path / f"{rank}.pt"), expected, relative=1e-12)


def test_streaming_passes_in_the_wrong_order():
    features, labels, weight, *_ = random_case(np.float64)
    stream = StreamingNCMetrics(weight)
    feed(stream, features, labels)
    with pytest.raises(ValueError, match=r"compute\(\) needs pass 2 .*call next_pass\(\) first"):
        stream.compute()
    stream.next_pass()
    with pytest.raises(ValueError, match=r"pass 2 .* needs labels, got None"):
        stream.update(features)
    feed(stream, features[1:], labels[1:])
    missing, count = labels[0], (labels == labels[0]).sum()
    message = f"must see the samples of pass 1 .* of class {missing} it saw {count - 1} of {count}"
    with pytest.raises(ValueError, match=message):
        stream.compute()
    stream.update(features[:1], labels[:1])
    assert "nc4" not in stream.compute()
    stream.next_pass()
    with pytest.raises(ValueError, match=r"pass 3 .* is the last one"):
        stream.next_pass()


# ------------------------------------------------------------------ bad input


def changed(position, change):
    """The arguments of nc_metrics with one of them changed."""
    arguments = list(random_case(np.float64))  # K = 7, p = 40
    arguments[position] = change(arguments[position])
    return arguments


def poked(value, *index):
    def poke(array):
        array = array.copy()
        array[index] = value
        return array

    return poke


def unsorted_series(labels):
    """A filtered pandas Series keeps the index of the rows that were kept."""
    frame = pd.DataFrame({"label": np.r_[labels, -np.ones(5, int)]}).iloc[::-1]
    return frame[frame["label"] >= 0]["label"].iloc[::-1]


OTHER_FORMS = {  # of the features, the labels, the weight, the bias
    "frames and filtered series": (pd.DataFrame, unsorted_series, pd.DataFrame, pd.Series),
    "nullable columns": (pd.DataFrame, lambda y: pd.Series(y, dtype="Int16"), None, None),
    "negative strides": (*[lambda part: part[::-1].copy()[::-1]] * 4,),
    "lists": (*[lambda part: part.tolist()] * 4,),
    "tuples and uint8": (tuple, lambda y: y.astype(np.uint8), tuple, tuple),
    "big endian": (*[lambda part: part.astype(part.dtype.newbyteorder(">"))] * 4,),
    "Fortran order": (np.asfortranarray, None, np.asfortranarray, None),
    "live parameters": (torch.tensor, torch.tensor, *[lambda w: nn.Parameter(torch.tensor(w))] * 2),
    "every second row of twice as many": (*[lambda part: part.repeat(2, 0)[::2]] * 4,),
}


@pytest.mark.parametrize("form", OTHER_FORMS)
def test_the_same_numbers_in_another_form(form):
    features, labels, weight, bias, test_features = random_case(np.float64)
    expected = nc_metrics(features, labels, weight, bias, test_features)
    changes = [change or (lambda part: part) for change in OTHER_FORMS[form]]
    parts = [c(p) for c, p in zip(changes, (features, labels, weight, bias), strict=True)]
    test_features = changes[0](test_features)
    assert_close(nc_metrics(*parts, test_features), expected, relative=1e-12)
    stream = StreamingNCMetrics(*parts[2:])
    for _ in range(2):
        stream.update(*parts[:2])
        stream.next_pass()
    stream.update(test_features)
    assert_close(stream.compute(), expected, relative=1e-12)
    found = one_by_one(*parts, test_features)
    assert_close(found, {key: expected[key] for key in found}, relative=1e-12)


NUMBERS = "must be a tensor or an array of numbers, got"
NOT_AN_ARRAY = {
    "None": (lambda _: None, f"{NUMBERS} None$"),
    "text": (lambda _: "digits", f"{NUMBERS} a value of type str$"),
    "ragged": (lambda _: [[1.0], [1.0, 2.0]], f"{NUMBERS} a value of type list$"),
    "objects": (lambda part: np.asarray(part).astype(str), f"{NUMBERS} a value of type ndarray$"),
    "layer": (lambda _: nn.Linear(40, 7), f"{NUMBERS} a value of type Linear"),
    "masked": (lambda part: np.ma.masked_equal(part, np.max(part)), "has masked entries, which"),
}
NAMES = ("features", "labels", "weight", "bias", "test_features")


@pytest.mark.parametrize("position", range(5))
@pytest.mark.parametrize("kind", NOT_AN_ARRAY)
def test_what_is_no_array_is_named(kind, position):
    if kind == "None" and position > 2:
        pytest.skip("None is allowed")
    change, message = NOT_AN_ARRAY[kind]
    with pytest.raises(ValueError, match=f"^{NAMES[position]} {message}"):
        nc_metrics(*changed(position, change))


ONE_BAD_ARGUMENT = {  # a public function, its arguments, and what it says of the bad one
    "class_means": (([[1.0, 2.0]], None, 2), "labels must be a tensor"),
    "class_means, short labels": (([[1.0]] * 3, [0, 1], 2), r"labels must have shape \(3,\)"),
    "class_means, float labels": (([[1.0]] * 2, [0.0, 1.0], 2), "labels must be integers"),
    "nc1, label -1": (([[1.0]] * 2, [-1, 0], [[1.0]] * 2), "labels must lie in.*-1"),
    "nc0": ((nn.Linear(2, 2),), "weight must be .* Linear; of a layer, pass layer.weight"),
    "gauge_share": ((None,), "weight must be .* got None"),
    "etf_distance": ((None,), "product must be .* got None"),
    "singular_values": (("rows",), "rows must be .* str"),
    "nearest_mean_agreement": (([[1.0]], None, [[1.0]]), "weight must be .* None"),
}


@pytest.mark.parametrize("call", ONE_BAD_ARGUMENT)
def test_each_public_function_names_the_bad_argument(call):
    arguments, message = ONE_BAD_ARGUMENT[call]
    with pytest.raises(ValueError, match=message):
        getattr(metrics, call.split(",")[0])(*arguments)


BAD_INPUT = {
    "features of three axes": (0, lambda h: h[None], r"features must have 2 axes.*\(1, 98, 40\)"),
    "no samples": (0, lambda h: h[:0], r"features must have 2 axes, none empty.*\(0, 40\)"),
    "integer features": (0, lambda h: h.astype(int), "features must be floating point.*int64"),
    "NaN": (0, poked(math.nan, 3, 7), r"features hold NaN or inf: 1 of 3920.*\(3, 7\) is nan"),
    "inf": (0, poked(math.inf, 0, 1), r"features hold NaN or inf.*\(0, 1\) is inf"),
    "narrow features": (0, lambda h: h[:, :5], "features must be p = 40 wide.*got 5"),
    "short labels": (1, lambda y: y[:3], r"labels must have shape \(98,\).*got \(3,\)"),
    "one-hot labels": (1, lambda y: np.eye(7, dtype=int)[y], r"labels must have shape.*\(98, 7\)"),
    "float labels": (1, lambda y: y.astype(float), "labels must be integers.*float64"),
    "bool labels": (1, lambda y: y > 3, "labels must be integers.*bool"),
    "large label": (1, poked(7, 4), r"labels must lie in \[0, 7\).*got 7 at sample 4"),
    "negative label": (1, poked(-1, 0), r"labels must lie in \[0, 7\).*got -1 at sample 0"),
    "empty class": (1, lambda y: np.where(y == 3, 2, y), r"1 of 7 classes, .* class 3$"),
    "one class": (2, lambda w: w[:1], "K >= 2 rows.*got 1"),
    "NaN in weight": (2, poked(math.nan, 0, 0), "weight hold NaN or inf"),
    "long bias": (3, lambda b: np.append(b, 1.0), "bias must have K = 7 entries, got 8"),
    "bias column": (3, lambda b: b[:, None], r"bias must have 1 axes.*\(7, 1\)"),
    "wide test": (4, lambda h: np.tile(h, 2), "test_features must be p = 40 wide.*got 80"),
    "NaN in test": (4, poked(math.nan, 2, 0), r"test_features hold NaN or inf.*\(2, 0\)"),
}


@pytest.mark.parametrize("bad", BAD_INPUT)
def test_bad_input_is_named(bad):
    position, change, message = BAD_INPUT[bad]
    with pytest.raises(ValueError, match=message):
        nc_metrics(*changed(position, change))


def test_bad_test_labels_are_named():
    arguments = random_case(np.float64)
    with pytest.raises(ValueError, match=r"test_labels must lie in \[0, 7\).*got 9 at sample 0"):
        nc_metrics(*arguments, test_labels=np.full(50, 9))
    with pytest.raises(ValueError, match=r"test_labels must have shape \(50,\)"):
        nc_metrics(*arguments, test_labels=np.zeros(49, int))
    with pytest.raises(ValueError, match="test_labels came without test_features"):
        nc_metrics(*arguments[:4], test_labels=np.zeros(50, int))
    assert nc_metrics(*arguments, test_labels=np.zeros(50, int)) == nc_metrics(*arguments)


def test_of_many_empty_classes_the_first_is_named():
    features, labels, weight, *_ = random_case(np.float64, num_classes=12)
    with pytest.raises(ValueError, match=r"for 11 of 12 classes, the first of them class 1$"):
        nc_metrics(features, labels * 0, weight)


def test_unknown_scale_is_named():
    arguments = random_case(np.float64)
    message = "scale must be one of reported, text, got 'paper'"
    with pytest.raises(ValueError, match=message):
        nc_metrics(*arguments, scale="paper")


def test_streaming_checks_its_input_too():
    features, labels, weight, *_ = random_case(np.float64)
    stream = StreamingNCMetrics(weight)
    with pytest.raises(ValueError, match="features hold NaN or inf"):
        stream.update(poked(math.nan, 0, 0)(features), labels)
    with pytest.raises(ValueError, match="features must be p = 40 wide"):
        stream.update(features[:, :5], labels)
    feed(stream, features[labels != 3], labels[labels != 3])
    with pytest.raises(ValueError, match=r"no samples in .* 1 of 7 classes, .* class 3$"):
        stream.next_pass()


def test_etf_needs_two_classes():
    with pytest.raises(ValueError, match="at least 2 classes, got 1"):
        simplex_etf(1)
