"""Networks by name: shapes, the linear layer ``fc`` on top, and what ``build`` refuses."""

from dataclasses import dataclass

import pytest
import torch
import torchvision
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
    depth: int | None = None


def noise(*shape):
    return torch.randn(SAMPLES, *shape, generator=torch.Generator().manual_seed(0))


CASES = {
    "mlp": Case((1, 8, 8), noise(1, 8, 8), 128, bias=True, depth=3),
    "ufm": Case((SAMPLES,), torch.arange(SAMPLES).unsqueeze(1), 512, bias=False),
    "resnet9": Case((1, 32, 32), noise(1, 32, 32), 512, bias=True, image_size=32),
    "vgg9": Case((3, 32, 32), noise(3, 32, 32), 1024, bias=True, image_size=32),
    "vit": Case((3, 32, 32), noise(3, 32, 32), 512, bias=True, image_size=32, depth=6),
    "resnet50": Case((3, 64, 64), noise(3, 64, 64), 2048, bias=True, image_size=224),
}


def build(name, num_classes=3, **options):
    shape = CASES[name].input_shape
    return models.build(name, num_classes, input_shape=shape, **options)


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
    assert models.MODELS[name].image_size == CASES[name].image_size


# ------------------------------------------------------------ the paper's networks


def parameters(net):
    return sum(p.numel() for p in net.parameters())


def convolutions(net):
    return [m.weight.shape[:2] for m in net.modules() if isinstance(m, nn.Conv2d)]


@pytest.mark.parametrize("channels", [1, 3])
def test_resnet9_has_the_papers_layers(channels):
    """Each convolution C_in x C_out has 9 weights a pair, and C_out biases, means and scales."""
    net = models.build("resnet9", 10, channels)
    layers = [(channels, 64), (64, 128), (128, 128), (128, 128), (128, 256), (256, 512)]
    layers += [(512, 512), (512, 512)]
    assert convolutions(net) == [(out, in_) for in_, out in layers]
    counted = sum(9 * in_ * out + 3 * out for in_, out in layers) + 512 * 10 + 10
    assert parameters(net) == counted == {1: 6_574_218, 3: 6_575_370}[channels]
    assert sum(isinstance(m, nn.MaxPool2d) for m in net.modules()) == 4
    assert sum(isinstance(m, models.Residual) for m in net.modules()) == 2


@pytest.mark.parametrize("channels", [1, 3])
def test_vgg9_has_the_papers_layers_and_1024_features(channels):
    net = models.build("vgg9", 10, channels)
    layers = [(channels, 64), (64, 128), (128, 512), (512, 512), (512, 256), (256, 256)]
    assert convolutions(net) == [(out, in_) for in_, out in layers]
    counted = sum(9 * in_ * out + 3 * out for in_, out in layers) + 1024 * 10 + 10
    assert parameters(net) == counted
    assert net.fc.in_features == 256 * 2 * 2 == 1024
    assert sum(isinstance(m, nn.MaxPool2d) for m in net.modules()) == 4


def test_residual_adds_its_input():
    inner, x = nn.Linear(4, 4), noise(4)
    assert torch.equal(models.Residual(inner)(x), x + inner(x))


def test_resnet50_is_torchvisions():
    reference = torchvision.models.resnet50()
    net = models.build("resnet50", 1000, 3)
    assert parameters(net) == parameters(reference) == 25_557_032
    states = dict(zip(net.state_dict(), reference.state_dict().values(), strict=True))
    assert all(net.state_dict()[k].shape == v.shape for k, v in states.items())
    net.load_state_dict(states)
    x = noise(3, 64, 64)
    with torch.no_grad():
        assert torch.equal(net.eval()(x), reference.eval()(x))


def test_vit_has_the_papers_shape():
    net = models.build("vit", 10, 3)
    d, inner = 512, 512
    tokens = 64 + 1
    embedding = 3 * 4 * 4 * d + d + d + tokens * d
    block = 2 * 2 * d + (3 * d * d + 3 * d) + (d * d + d) + 2 * (d * inner + inner)
    assert parameters(net) == embedding + 6 * block + 10 * d + 10
    attention = [m for m in net.modules() if isinstance(m, models.Attention)]
    assert [m.heads for m in attention] == [8] * 6
    assert not any(isinstance(m, nn.Dropout) for m in net.modules())


def test_attention_equals_torchs():
    torch.manual_seed(0)
    ours, x = models.Attention(32, 4), noise(5, 32)
    torchs = nn.MultiheadAttention(32, 4, batch_first=True)
    with torch.no_grad():
        torchs.in_proj_weight.copy_(ours.qkv.weight)
        torchs.in_proj_bias.copy_(ours.qkv.bias)
        torchs.out_proj.load_state_dict(ours.out.state_dict())
        expected, _ = torchs(x, x, x, need_weights=False)
        torch.testing.assert_close(ours(x), expected, rtol=1e-5, atol=1e-6)


def test_vit_starts_normal_with_the_papers_deviation():
    torch.manual_seed(0)
    for name, p in models.build("vit").named_parameters():
        layer_norm = name.endswith(".inner.0.weight")
        if p.numel() > 5000:  # the standard error of a deviation of n draws is 1 / sqrt(2 n)
            assert p.std().item() == pytest.approx(0.02, rel=0.05)
        elif p.dim() == 1:
            assert torch.all(p == (1 if layer_norm else 0))


@pytest.mark.parametrize("name", models.MODELS)
def test_decay_spares_a_vits_norms_and_biases_alone(name):
    net = build(name)
    norms = {id(p) for m in net.modules() if isinstance(m, nn.LayerNorm) for p in m.parameters()}
    spared = {
        k
        for k, p in net.named_parameters()
        if name == "vit" and (id(p) in norms or k.endswith("bias"))
    }
    assert {k for k, decays in models.decayed(net).items() if not decays} == spared
    assert set(models.decayed(net)) == {k for k, _ in net.named_parameters()}


@pytest.mark.parametrize("name", models.MODELS)
def test_depth_sets_the_number_of_layers_where_the_name_does_not(name):
    kinds = {"mlp": nn.ReLU, "vit": models.Attention}
    for depth in (1, 2):
        if CASES[name].depth is None:
            with pytest.raises(ValueError, match=rf"depth of {name} is fixed, got {depth}"):
                build(name, depth=depth)
        else:
            found = sum(isinstance(m, kinds[name]) for m in build(name, depth=depth).modules())
            assert found == depth
    assert models.MODELS[name].depth == CASES[name].depth


@pytest.mark.parametrize("depth", [0, -1, 1.5, True, "2"])
def test_a_bad_depth_is_refused(depth):
    with pytest.raises(ValueError, match="depth must be a whole number of at least 1, got"):
        models.build("vit", depth=depth)


@pytest.mark.parametrize("width", [1 / 64, 1 / 8, 0.3, 0.4])
def test_heads_divide_any_vits_width(width):
    net = models.build("vit", width=width)
    assert net(noise(1, 32, 32)).shape == (SAMPLES, 10)
    assert net.fc.in_features == pytest.approx(512 * width, abs=4)


@pytest.mark.parametrize("name", ["resnet9", "vgg9", "vit"])
@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 32, 32), "images of 1 or 3 channels"),
        ((784,), "images of 1 or 3 channels"),
        ((1, 28, 28), "images of 32 x 32"),
        ((1, 32, 64), "images of 32 x 32"),
    ],
)
def test_images_a_network_cannot_take_are_refused(name, shape, message):
    with pytest.raises(ValueError, match=rf"^{name} takes {message}"):
        models.build(name, input_shape=shape)


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


def test_an_unknown_model_is_refused_with_the_valid_names():
    with pytest.raises(ValueError, match=r"^unknown model 'mpl'; valid: mlp"):
        models.build("mpl")


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
