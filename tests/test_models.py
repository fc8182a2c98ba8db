"""Networks by name: shapes, the linear layer ``fc`` on top, and what ``build`` refuses."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from ncbook import models

SAMPLES = 6


@dataclass(frozen=True)
class Case:
    """What a network takes and has: one row here, and every test below runs on it."""

    input_shape: tuple[int, ...]
    inputs: torch.Tensor
    features: int  # p at width 1
    bias: bool
    image_size: int | None = None


def noise(*shape):
    return torch.randn(SAMPLES, *shape, generator=torch.Generator().manual_seed(0))


CASES = {
    "mlp": Case((1, 8, 8), noise(1, 8, 8), 128, bias=True),
    "ufm": Case((SAMPLES,), torch.arange(SAMPLES).unsqueeze(1), 512, bias=False),
}


def build(name, num_classes=3, **options):
    return models.build(name, num_classes, input_shape=CASES[name].input_shape, **options)


def test_every_model_has_a_case_here():
    assert set(CASES) == set(models.MODELS)


@pytest.mark.parametrize("name", models.MODELS)
def test_last_layer_is_fc_and_features_are_its_input(name):
    net, case = build(name, 7).eval(), CASES[name]
    seen = []
    net.fc.register_forward_hook(lambda module, inputs, output: seen.append((inputs[0], output)))
    logits = net(case.inputs)
    ((features, output),) = seen  # fc ran once
    assert isinstance(net.fc, nn.Linear)
    assert output is logits  # and it ran last
    assert logits.shape == (SAMPLES, 7)
    assert features.shape == (SAMPLES, case.features)
    assert torch.equal(features, net.body(case.inputs))
    assert (net.fc.bias is not None) == case.bias
    expected = features @ net.fc.weight.T + (net.fc.bias if case.bias else 0)
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", models.MODELS)
@pytest.mark.parametrize("width", [0.25, 0.5, 2.0])
def test_width_scales_the_features(name, width):
    net = build(name, width=width)
    assert net.fc.in_features == CASES[name].features * width
    assert net(CASES[name].inputs).shape == (SAMPLES, 3)


@pytest.mark.parametrize("name", models.MODELS)
def test_every_parameter_has_a_gradient(name):
    net = build(name)
    labels = torch.arange(SAMPLES) % 3
    nn.functional.cross_entropy(net(CASES[name].inputs), labels).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


@pytest.mark.parametrize("name", models.MODELS)
def test_initialisation_follows_the_global_seed(name):
    def weights(seed):
        torch.manual_seed(seed)
        return torch.cat([p.flatten() for p in build(name).parameters()])

    assert torch.equal(weights(4), weights(4))
    assert not torch.equal(weights(4), weights(5))


@pytest.mark.parametrize("name", models.MODELS)
def test_image_size_is_what_images_are_resized_to(name):
    assert models.image_size(name) == CASES[name].image_size


def test_mlp_is_64_128_128_128_10_with_batch_norm():
    net = models.build("mlp")
    linear = [m for m in net.modules() if isinstance(m, nn.Linear)]
    assert [tuple(m.weight.shape) for m in linear] == [(128, 64), (128, 128), (128, 128), (10, 128)]
    assert [m.bias is None for m in linear] == [True, True, True, False]
    kinds = [nn.Flatten, *[nn.Linear, nn.BatchNorm1d, nn.ReLU] * 3]
    assert all(isinstance(m, kind) for m, kind in zip(net.body, kinds, strict=True))


@pytest.mark.parametrize("shape", [(784,), (1, 8, 8), (3, 5, 4)])
def test_mlp_takes_any_input_shape(shape):
    net = models.build("mlp", 4, shape[0], input_shape=shape)
    assert net.body[1].in_features == torch.Size(shape).numel()
    assert net(torch.zeros(3, *shape)).shape == (3, 4)


def test_without_input_shape_images_are_as_large_as_digits():
    assert models.build("mlp", in_channels=3).body[1].in_features == 3 * 8 * 8


def test_features_of_the_unconstrained_model_are_parameters():
    """Sample n has row n of H, whatever order the samples come in; H is drawn from N(0, 1)."""
    torch.manual_seed(0)
    net = models.build("ufm", 10, input_shape=(400,))
    h = dict(net.named_parameters())["body.features"]
    order = torch.randperm(400)
    assert h.shape == (400, 512)
    assert torch.equal(net.body(order.unsqueeze(1)), h[order])
    # 204,800 draws: the standard errors of mean and deviation are 0.0022 and 0.0016.
    assert h.mean().item() == pytest.approx(0, abs=0.01)
    assert h.std().item() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("call", [models.validate_name, models.image_size, models.build])
def test_an_unknown_model_is_refused_with_the_valid_names(call):
    with pytest.raises(ValueError, match=r"^unknown model 'mpl'; valid: mlp"):
        call("mpl")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 1}, "num_classes must be at least 2, got 1"),
        ({"num_classes": 0}, "num_classes must be at least 2, got 0"),
        ({"width": 0}, "width must be a finite number .* got 0"),
        ({"width": -0.5}, "width must be a finite number .* got -0.5"),
        ({"width": float("nan")}, "width must be a finite number .* got nan"),
        ({"width": float("inf")}, "width .*inf"),
        ({"width": 0.001}, "width .*0.001"),  # 128 * 0.001 rounds to no hidden unit at all
    ],
)
def test_bad_values_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        models.build("mlp", **arguments)
