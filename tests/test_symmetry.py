"""The flat direction: identities of the gauge, and which optimizers are equivariant."""

import numpy as np
import pytest
import torch

from ncbook import metrics, optim
from ncbook.theory import symmetry

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
        (lambda: symmetry.equivariance(ByTorch.sgd, (3,)), r"shape must be \(classes, features\)"),
        (lambda: symmetry.equivariance(ByTorch.sgd, (3, 0)), "features must be a whole number"),
        (lambda: symmetry.equivariance(still), "the optimizer does not move the parameter"),
        (lambda: symmetry.noise_floor([0.1], -1, 0.1), "weight_decay must be in"),
    ],
)
def test_bad_input_gets_one_line(call, message):
    with pytest.raises(ValueError, match=message):
        call()
