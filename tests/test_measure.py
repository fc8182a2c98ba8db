"""``measure``: the same numbers as ``nc_metrics``, of any network and data, and each layer's."""

import math
import random

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from ncbook import data, models
from ncbook.measure import NCCallback, measure
from ncbook.metrics import KEYS, LAYER_KEYS, LayerStream, nc_metrics

K = 5
BATCH = 7  # does not divide the number of samples


class Recurrent(nn.Module):
    """Time first, a head without a bias, and a softmax after it."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(6, 16)
        self.out = nn.Linear(16, K, bias=False)

    def forward(self, x):
        return self.out(self.rnn(x.transpose(0, 1))[0][-1]).log_softmax(1)


class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(64, 16), nn.ReLU())
        self.first, self.second = nn.Linear(16, K), nn.Linear(16, K)

    def forward(self, x):
        h = self.body(x.flatten(1))
        return self.first(h), self.second(h)


class Tokens(nn.Module):
    """Takes a dict's entries, and returns a dict."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(50, 12)
        blocks = (nn.TransformerEncoderLayer(12, 2, 24, batch_first=True) for _ in range(3))
        self.mix = nn.Sequential(*blocks)
        self.out = nn.Linear(12, K)

    def forward(self, input_ids, scale):
        h = self.mix(self.embedding(input_ids))
        return {"logits": self.out(h[:, 0] * scale[:, None])}


def labelled(*shape, count=40, dtype=torch.float32):
    """Samples whose mean says their class."""
    torch.manual_seed(0)
    labels = torch.arange(count) % K
    x = torch.randn(count, *shape) + labels.view(-1, *[1] * len(shape))
    return x.to(dtype), labels


def network(name):
    """(model, shape of one sample)"""
    torch.manual_seed(1)
    if name in ("resnet18", "mobilenet_v3_small", "vgg11"):
        return getattr(torchvision.models, name)(num_classes=K), (3, 32, 32)
    if name in ("vit", "vit_b_16"):
        sizes = (8, 2, 2, 32, 64) if name == "vit" else (16, 12, 12, 768, 3072)
        net = torchvision.models.VisionTransformer(32, *sizes, num_classes=K)
        nn.init.normal_(net.heads.head.weight)  # torchvision's is zero
        return net, (3, 32, 32)
    return (Recurrent(), (9, 6)) if name == "gru" else (models.build(name, K), (1, 8, 8))


def collected(model, head, x):
    """The head's inputs, in the same batches."""
    found = []
    module = model.get_submodule(head)
    hook = module.register_forward_pre_hook(lambda _, given: found.append(given[0]))
    modes = [m.training for m in model.modules()]
    model.eval()
    with torch.no_grad():
        for batch in x.split(BATCH):
            model(batch)
    hook.remove()
    for m, mode in zip(model.modules(), modes, strict=True):
        m.training = mode
    return torch.cat(found)


def small(**kwargs):
    """(a trained-looking MLP, its data) of digits"""
    torch.manual_seed(0)
    digits = data.load("digits", train_size=300)
    return models.build("mlp", **kwargs), digits.train_x, digits.train_y


def quiet(model, given, **kwargs):
    return measure(model, given, batch_size=BATCH, progress=False, **kwargs)


# ------------------------------------------------------------------------ the last layer


LARGE = [pytest.param(name, marks=pytest.mark.slow) for name in ("vgg11", "vit_b_16")]


@pytest.mark.parametrize("name", ["mlp", "resnet18", "mobilenet_v3_small", "vit", "gru", *LARGE])
def test_equals_nc_metrics(name):
    model, shape = network(name)
    x, y = labelled(*shape)
    found = quiet(model, (x, y), test_data=(x[:9], y[:9]))
    head = model.get_submodule(found.head)
    features, tested = collected(model, found.head, x), collected(model, found.head, x[:9])
    expected = nc_metrics(features, y, head.weight, head.bias, tested, y[:9])
    assert list(found.metrics)[: len(KEYS)] == list(KEYS)
    for key, value in expected.items():
        assert found.metrics[key] == pytest.approx(value, rel=1e-6, abs=1e-6), key
    logits = nn.functional.linear(features, head.weight, head.bias)
    loss = nn.functional.cross_entropy(logits, y).item()
    assert found.metrics["train_loss"] == pytest.approx(loss, rel=1e-5)
    assert found.metrics["train_acc"] == (logits.argmax(1) == y).double().mean().item()


def test_half_precision():
    model, x, y = small()
    model = model.to(torch.bfloat16)
    found = quiet(model, (x, y))  # float32 images
    features = collected(model, "fc", x.bfloat16())
    expected = nc_metrics(features, y, model.fc.weight, model.fc.bias)
    assert {k: found.metrics[k] for k in expected} == pytest.approx(expected, rel=1e-6)


def test_in_autocast_and_inference_mode():
    model, x, y = small()
    with torch.autocast("cpu", torch.bfloat16):
        found = quiet(model, (x, y)).metrics
        features = collected(model, "fc", x)
    expected = nc_metrics(features, y, model.fc.weight, model.fc.bias)
    assert {k: found[k] for k in expected} == pytest.approx(expected, rel=1e-6)
    with torch.inference_mode():
        outside = quiet(model, (x, y)).metrics
    assert outside == quiet(model, (x, y)).metrics


def test_channels_last():
    model, shape = network("resnet18")
    x, y = labelled(*shape)
    plain = quiet(model, (x, y))
    model = model.to(memory_format=torch.channels_last)
    found = quiet(model, (x.to(memory_format=torch.channels_last), y))
    for key, value in plain.metrics.items():
        assert found.metrics[key] == pytest.approx(value, rel=1e-3), key
    assert found.layers["width"].tolist() == plain.layers["width"].tolist()


def test_wrapped_models_give_the_same():
    model, x, y = small()
    expected = quiet(model, (x, y))
    in_place, _, _ = small()
    in_place.compile()
    for other in (nn.DataParallel(model), torch.compile(model), in_place):
        found = quiet(other, (x, y))
        assert found.metrics == expected.metrics
        assert found.layers.equals(expected.layers)


def test_a_traced_network():
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten())
    model, (x, y) = nn.Sequential(body, nn.Linear(8 * 36, K)), labelled(1, 8, 8)
    traced = torch.fx.symbolic_trace(model)
    expected, found = (quiet(m, (x, y), layers=["0.2"]) for m in (model, traced))
    assert found.metrics == expected.metrics
    assert found.layers.equals(expected.layers)


def test_data_of_any_kind_give_the_same():
    model, x, y = small()
    expected = quiet(model, (x, y)).metrics
    pairs = TensorDataset(x, y)

    class Again:
        def __iter__(self):
            return zip(x.split(BATCH), y.split(BATCH), strict=True)

    class Stream(IterableDataset):
        def __iter__(self):
            return iter(pairs)

    for given in (pairs, DataLoader(pairs, BATCH), [*Again()], Again(), Stream()):
        assert quiet(model, given).metrics == expected
    arrays = x.numpy(), y.numpy()
    assert quiet(model, arrays).metrics == expected
    shuffled = quiet(model, DataLoader(pairs, BATCH, shuffle=True)).metrics
    assert shuffled == pytest.approx(expected, rel=1e-5)


def test_numbers_of_numpy_are_numbers():
    model, x, y = small()
    same = dict(batch_size=np.int64(BATCH), device="cpu:0", progress=False)
    assert measure(model, (x, y), **same).metrics == quiet(model, (x, y)).metrics


def test_batches_that_are_dicts():
    torch.manual_seed(0)
    model = Tokens()
    ids, labels = torch.randint(50, (40, 6)), torch.arange(40) % K
    samples = [
        {"input_ids": i, "scale": torch.tensor(1.0), "labels": y}
        for i, y in zip(ids, labels, strict=True)
    ]
    found = quiet(model, DataLoader(samples, BATCH))
    assert found.head == "out"
    assert found.layers["layer"].tolist() == [
        "embedding",
        "mix.0",
        "mix.1",
        "mix.2",
        "input of out",
    ]


def test_everything_is_as_before():
    model, x, y = small()
    model.body[1].eval()  # a frozen batch norm
    modes = {name: module.training for name, module in model.named_modules()}
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.manual_seed(7)
    random.seed(7)
    drawn = torch.rand(3), random.random()
    torch.manual_seed(7)
    random.seed(7)
    quiet(model, DataLoader(TensorDataset(x, y), BATCH, shuffle=True))
    again = torch.rand(3), random.random()
    assert torch.equal(drawn[0], again[0])
    assert drawn[1] == again[1]
    with pytest.raises(ValueError, match="NaN"):
        quiet(model, (x * math.nan, y))
    assert modes == {name: module.training for name, module in model.named_modules()}
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_head_by_name_and_by_module():
    model = TwoHeads()
    x, y = labelled(1, 8, 8)
    by_name = quiet(model, (x, y), head="second")
    assert by_name.head == "second"
    assert quiet(model, (x, y), head=model.second).metrics == by_name.metrics
    assert torch.equal(by_name.weight, model.second.weight)


# ------------------------------------------------------------------------ the layers before


def by_hand(features, labels, tested, tested_labels):
    """LAYER_KEYS in plain NumPy, float64, from their definitions."""
    h, t = features.double().numpy(), tested.double().numpy()
    y = labels.numpy()
    means = np.stack([h[y == k].mean(0) for k in range(K)])
    centred = means - means.mean(0)
    within = sum((h[y == k] - means[k]).T @ (h[y == k] - means[k]) for k in range(K)) / len(h)
    between = centred.T @ centred / K
    gram = centred @ centred.T
    norms = np.linalg.norm(centred, axis=1)
    cosines = (gram / np.outer(norms, norms))[~np.eye(K, dtype=bool)]
    etf = (np.eye(K) - 1 / K) / np.sqrt(K - 1)
    spectrum = np.linalg.svd(h - h.mean(0), compute_uv=False)
    shares = spectrum / spectrum.sum()
    shares = shares[shares > 0]
    spread = [((h[y == k] - means[k]) ** 2).sum(1).mean() for k in range(K)]
    pairs = [(i, j) for i in range(K) for j in range(K) if i != j]
    nearest = [
        np.argmin(((some[:, None] - means) ** 2).sum(2), axis=1) == wanted.numpy()
        for some, wanted in ((h, labels), (t, tested_labels))
    ]
    return {
        "nc1": np.trace(within @ np.linalg.pinv(between, rcond=1e-10)) / K,
        "nc2": np.linalg.norm(gram / np.linalg.norm(gram) - etf),
        "nc2n": norms.std(ddof=1) / norms.mean(),
        "nc2a": np.abs(cosines + 1 / (K - 1)).mean(),
        "cdnv": np.mean(
            [(spread[i] + spread[j]) / 2 / ((means[i] - means[j]) ** 2).sum() for i, j in pairs]
        ),
        "effective_rank": np.exp(-(shares * np.log(shares)).sum()),
        "train_ncm_acc": nearest[0].mean(),
        "test_ncm_acc": nearest[1].mean(),
    }


def test_layers_against_their_definitions():
    model, shape = network("resnet18")
    x, y = labelled(*shape, count=60)
    found = quiet(model, (x, y), test_data=(x[:23], y[:23])).layers
    expected = ["conv1", *(f"layer{i}.{j}" for i in range(1, 5) for j in range(2))][:-1]
    assert found["layer"].tolist() == [*expected, "input of fc"]
    assert found["position"].tolist() == [*range(1, len(found) + 1)]
    kept = {}
    for name in expected:

        def hook(_, __, output, name=name):
            kept.setdefault(name, []).append(output.mean((2, 3)))

        model.get_submodule(name).register_forward_hook(hook)
    features = {"input of fc": collected(model, "fc", x)}
    features |= {name: torch.cat(parts) for name, parts in kept.items()}
    kept.clear()
    tested = {"input of fc": collected(model, "fc", x[:23])}
    tested |= {name: torch.cat(parts) for name, parts in kept.items()}
    for row in found.to_dict("records"):
        name = row["layer"]
        wanted = by_hand(features[name], y, tested[name], y[:23])
        assert row["width"] == features[name].shape[1]
        assert {k: row[k] for k in LAYER_KEYS} == pytest.approx(wanted, rel=2e-4), name


def test_the_last_row_is_the_head_s_input():
    model, x, y = small()
    found = quiet(model, (x, y))
    last = found.layers.iloc[-1]
    for key in ("nc1", "nc2", "nc2n", "nc2a", "cdnv"):
        assert last[key] == pytest.approx(found.metrics[key], rel=1e-9)
    assert math.isnan(last["test_ncm_acc"])
    assert 1 <= last["effective_rank"] <= last["width"]


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("mlp", (1, 8, 8), ["body.3", "body.6", "input of fc"]),
        ("vgg9", (1, 32, 32), [*(f"body.{i}" for i in (3, 7, 10, 14, 17)), "input of fc"]),
    ],
)
def test_stages_of_our_networks(name, shape, expected):
    """After norm, activation and pooling; not twice what the last layer takes."""
    x, y = labelled(*shape)
    found = quiet(models.build(name, K, width=1 / 8), (x, y)).layers
    assert found["layer"].tolist() == expected


def test_channels_are_found_wherever_they_are():
    """Swin puts them last, a convolution over time in the middle, a recurrent layer last."""
    swin = torchvision.models.swin_transformer.SwinTransformer(
        [4, 4], 96, [1, 1], [3, 6], [7, 7], num_classes=K
    )
    x, y = labelled(3, 32, 32, count=10)
    stages = ["features.0", "features.1.0", "features.2", "features.3.0"]
    found = quiet(swin, (x, y), layers=stages).layers
    assert found["width"].tolist() == [96, 96, 192, 192, 192]
    over_time = nn.Sequential(nn.Conv1d(6, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten())
    model = nn.Sequential(over_time, nn.Linear(16, K))
    x, y = labelled(6, 9)
    found = quiet(model, (x, y), layers=["0.1"]).layers
    assert found["width"].tolist() == [16, 16]
    assert found["nc1"][0] == pytest.approx(found["nc1"][1], rel=1e-5)  # both are means over time
    assert quiet(Recurrent(), labelled(9, 6)).layers["width"].tolist() == [16, 16]


def test_class_token_or_mean():
    model, shape = network("vit")
    x, y = labelled(*shape, count=10)
    last = "encoder.ln"
    by_token = quiet(model, (x, y), layers=[last], tokens="class").layers
    assert by_token["nc1"][0] == pytest.approx(by_token["nc1"][1], rel=1e-4)
    by_mean = quiet(model, (x, y), layers=[last]).layers
    assert abs(by_mean["nc1"][0] / by_mean["nc1"][1] - 1) > 0.01


def test_layer_stream_of_lost_numbers_is_nan():
    stream, y = LayerStream(2), torch.tensor([0, 1, 0, 1])
    h = torch.tensor([[math.nan, 1.0], [2.0, 3.0], [1.0, 1.0], [0.0, 1.0]])
    stream.update(h, y)
    stream.next_pass()
    stream.update(h, y)
    found = stream.compute()
    assert all(math.isnan(found[key]) for key in ("nc1", "nc2", "effective_rank", "cdnv"))
    assert found["train_ncm_acc"] == 0


def test_layer_of_equal_outputs_has_no_nc1():
    stream, y = LayerStream(2), torch.tensor([0, 1, 0, 1])
    for end_pass in (True, False):
        stream.update(torch.ones(4, 3), y)
        stream.next_pass() if end_pass else None
    assert all(math.isnan(stream.compute()[key]) for key in ("nc1", "nc2", "effective_rank"))


class Positions(nn.Module):
    """What BERT's embeddings do: one vector for each position, the same for all samples."""

    def __init__(self):
        super().__init__()
        self.words, self.positions = nn.Embedding(50, 16), nn.Embedding(10, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 24, batch_first=True, dropout=0.5)
        self.mix = nn.TransformerEncoder(layer, 2)
        self.out = nn.Linear(16, K)

    def forward(self, ids):
        h = self.words(ids) + self.positions(torch.arange(ids.shape[1]))
        return self.out(self.mix(h, src_key_padding_mask=ids == 0)[:, 0])


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_what_has_no_samples_is_no_layer():
    """Nor where there happen to be as many positions as samples in a batch."""
    ids, y = torch.randint(1, 50, (21, BATCH), generator=torch.Generator().manual_seed(0)), None
    y = torch.arange(21) % K
    ids[:, -2:] = torch.where((y % 2 == 0)[:, None], 0, ids[:, -2:])  # padding
    found = quiet(Positions(), (ids, y)).layers
    assert "positions" not in found["layer"].tolist()
    assert found["layer"].iloc[0] == "words"
    assert (found["width"] == 16).all()


def test_tokens_before_samples_whatever_the_batch():
    class First(nn.Module):
        def __init__(self):
            super().__init__()
            self.into = nn.Linear(6, 16)
            self.mix = nn.TransformerEncoderLayer(16, 2, 24)
            self.out = nn.Linear(16, K)

        def forward(self, x):
            return self.out(self.mix(self.into(x.transpose(0, 1)))[0])

    torch.manual_seed(0)
    model, (x, y) = First(), labelled(BATCH, 6, count=42)  # as many tokens as samples in a batch
    square = quiet(model, (x, y), layers=["mix"]).layers["nc1"][0]
    other = measure(model, (x, y), layers=["mix"], batch_size=6, progress=False).layers["nc1"][0]
    assert square == pytest.approx(other, rel=1e-5)


def test_layers_come_in_the_order_in_which_they_run():
    model, x, y = small()
    found = quiet(model, (x, y), layers=["body.6", "body.0", "body.3"]).layers
    assert found["layer"].tolist() == ["body.0", "body.3", "body.6", "input of fc"]


@pytest.mark.parametrize("end", [lambda z: 30 * z, lambda z: z.softmax(1)])
def test_loss_and_accuracy_are_of_the_last_layer_s_output_whatever_follows(end):
    model, x, y = small()
    body, fc = model.body, model.fc

    class Ended(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.fc = body, fc

        def forward(self, x):
            return end(self.fc(self.body(x)))

    logits = fc(collected(model, "fc", x)).detach()
    found = quiet(Ended(), (x, y)).metrics
    loss = nn.functional.cross_entropy(logits, y).item()
    assert found["train_loss"] == pytest.approx(loss, rel=1e-4)
    assert found["train_acc"] == (logits.argmax(1) == y).double().mean().item()


# ------------------------------------------------------------------------ mistakes


def test_samples_that_change_are_refused():
    model, x, y = small()

    class Noisy(torch.utils.data.Dataset):
        def __len__(self):
            return len(y)

        def __getitem__(self, i):
            return x[i] + 0.5 * torch.randn(x.shape[1:]), y[i]

    with pytest.raises(ValueError, match="other samples in the second walk: are they augmented"):
        quiet(model, Noisy())


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (lambda y: nn.functional.one_hot(y), r"labels must have shape \(7,\), .*got \(7, 10\)"),
        (lambda y: y.float(), "labels must be integers, got torch.float32"),
        (lambda y: y + 1, r"labels must lie in \[0, 10\), .*got 10 at sample"),
        (lambda y: y.clamp(max=7), "no samples in labels for 2 of 10 classes, .* class 8$"),
        (lambda y: y - 1, r"in \[0, 10\), .*got -1 at sample"),
    ],
)
def test_labels_that_cannot_be(labels, message):
    model, x, y = small()
    y = torch.arange(len(y)) % 10
    with pytest.raises(ValueError, match=message) as raised:
        quiet(model, (x, labels(y).roll(-7, 0)))
    assert "\n" not in str(raised.value)


def test_data_that_cannot_be_walked_through_twice():
    model, x, y = small()
    pairs = list(zip(x.split(BATCH), y.split(BATCH), strict=True))
    with pytest.raises(ValueError, match=r"data must be a DataLoader, .* got generator"):
        quiet(model, (pair for pair in pairs))


def test_batches_that_are_gone_after_the_first_walk():
    model, x, y = small()

    class Once:
        batches = iter(list(zip(x.split(BATCH), y.split(BATCH), strict=True)))

        def __iter__(self):
            return self.batches

    with pytest.raises(ValueError, match=r"^data has no batch when it is walked through again$"):
        quiet(model, Once())


def test_other_samples_in_the_second_walk():
    model, x, y = small()
    pairs = list(zip(x.split(BATCH), y.split(BATCH), strict=True))

    class Fewer:
        walks = 0

        def __iter__(self):
            self.walks += 1
            return iter(pairs[: -1 if self.walks == 3 else None])

    with pytest.raises(ValueError, match="must see the samples of pass"):
        quiet(model, Fewer())


X, Y = torch.zeros(4, 1, 8, 8), torch.tensor([0, 1, 0, 1])


class Unsized(torch.utils.data.Dataset):
    """Nobody knows how many samples it has."""

    def __getitem__(self, i):
        return X[i % 4], Y[i % 4]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": 3}, "data must be a DataLoader.*got int"),
        ({"data": []}, "data has no batch"),
        (
            {"data": [torch.zeros(3)]},
            "a batch must be .inputs, labels. or a dict with labels, got T",
        ),
        ({"data": [{"x": 1}]}, "or a dict with labels, got dict"),
        ({"test_data": 3}, "test_data must be"),
        ({"data": (X, None)}, "data's labels must be a tensor or an array of numbers, got None"),
        ({"test_data": (X, ["a"] * 4)}, "test_data's labels must be a tensor or an array of numb"),
        ({"data": (np.array([{}] * 4), Y)}, "data's inputs must be a tensor or an array of numb"),
        ({"data": (X, Y, Y)}, "a batch must be .inputs, labels. or a dict with labels, got Tens"),
        ({"data": [{"x": X, "labels": None}]}, "^labels must be a tensor or an array of numbers"),
        ({"data": [(X[0], Y[0])]}, "^data: a batch has one sample without an axis of samples"),
        ({"data": list(zip(X, [0, 1, 0, 1], strict=True))}, "^data: a batch has one sample with"),
        ({"data": Unsized()}, "data must be a DataLoader, a Dataset, or a pair .* got Unsized"),
        ({"test_data": []}, "test_data has no batch"),
        ({"data": [([0.0], [0])]}, r"cannot take these inputs \(AttributeError: "),
        (
            {"data": [(torch.zeros(2, 1, 8, 8), torch.zeros(2, 1), torch.arange(2))]},
            r"take inputs of shape \(1, 8, 8\) \(TypeError: .*positional argument",
        ),
        ({"head": "fd"}, "unknown layer 'fd'; there are: fc"),
        ({"head": 3}, "unknown layer 3; there are: body, "),
        ({"head": "body.2"}, "head 'body.2' is a .*; it must be a linear layer: body.1, .* fc"),
        ({"head": ["fc"]}, r"unknown layer \['fc'\]; there are: "),
        ({"head": nn.Linear(2, 2)}, "unknown layer Linear.in_features=2"),
        ({"layers": ["body.99"]}, "unknown layer 'body.99'; there are: body"),
        ({"layers": "body"}, "layers must be a list of names, got 'body'"),
        ({"layers": 3}, "layers must be a list of names, got 3"),
        ({"layers": map(str, [1])}, "layers must be a list of names, got <map"),
        ({"layers": [3]}, r"layers must be a list of names, got \[3\]"),
        ({"tokens": "last"}, "tokens must be mean or class, got 'last'"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
        ({"device": "meta"}, "model is on cpu, not on meta"),
        ({"device": "cpu:1"}, "model is on cpu, not on cpu:1"),
        ({"model": nn.Linear(64, 10, device="meta")}, "model is on the meta device, where weights"),
        ({"model": nn.Identity()}, "model must be a torch.nn.Module with parameters, got Ident"),
        ({"model": 3}, "model must be a torch.nn.Module with parameters, got int"),
        ({"model": torch.nn.Conv2d(1, 1, 1)}, "no Linear layer seems to be the last layer"),
        ({"model": nn.Linear(63, 10)}, r"take inputs of shape \(1, 8, 8\) .RuntimeError: .*63"),
    ],
)
def test_what_cannot_be_measured(change, message):
    model, x, y = small()
    given = {"model": model, "data": (x, y)} | change
    with pytest.raises(ValueError, match=message) as raised:
        measure(given.pop("model"), given.pop("data"), **{"progress": False} | given)
    assert "\n" not in str(raised.value)


def test_several_heads_are_named():
    x, y = labelled(1, 8, 8)
    with pytest.raises(ValueError, match=r"several Linear layers may be .* first, second"):
        quiet(TwoHeads(), (x, y))


def test_lost_features_are_named_by_their_layer():
    model, x, y = small()
    model.body[4].weight.data[0, 0] = math.nan
    with pytest.raises(ValueError, match=r"features of layer body.6 hold NaN"):
        quiet(model, (x, y))


def test_layers_that_cannot_be():
    model, x, y = small()
    shared = model.body[3]
    twice = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), shared, nn.Linear(8, 8), shared)
    twice = models.Classifier(twice, nn.Linear(8, 10))
    with pytest.raises(ValueError, match=r"layer body.2 runs more than once"):
        quiet(twice, (x, y), layers=["body.2"])
    model.spare = nn.Linear(3, 3)
    with pytest.raises(ValueError, match="layer spare does not run"):
        quiet(model, (x, y), layers=["spare"])


@pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated")
def test_a_weight_that_a_hook_sets_before_each_pass_is_read_after_one():
    x, y = labelled(6)
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.utils.weight_norm(nn.Linear(8, K)))
    with torch.no_grad():
        net[2].weight_g *= 2  # as an optimizer's step does; the weight itself is set in a pass
    found = [measure(net, (x, y), head="2", layers=[], progress=False).metrics for _ in range(2)]
    assert found[0] == found[1]
    assert found[0]["w_norm"] == pytest.approx(net[2].weight.norm().item(), rel=1e-6)


@pytest.mark.parametrize("layers", [None, []])
def test_a_head_that_does_not_run_is_named(layers):
    model, x, y = small()
    model.spare = nn.Linear(128, 10)
    message = "^layer spare does not run in a forward pass$"
    with pytest.raises(ValueError, match=message):
        quiet(model, (x, y), head="spare", layers=layers)
    with pytest.raises(ValueError, match=message):
        NCCallback((x, y), head="spare", layers=layers)(model, 0)
