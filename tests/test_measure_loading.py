"""A user's network and data: checkpoints of every form, and each mistake as one line."""

import argparse
import sys
import textwrap
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.models import resnet18
from torchvision.transforms import v2

from ncbook import data, models
from ncbook.measure import PARAMETERS, asked, batches, loading, report, request
from ncbook.metrics import nc_metrics
from ncbook.parameters import ParameterError

CLASSES = 3
MINE = """
    from torch import nn

    NUMBER = 5

    def net(num_classes=10):
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, num_classes))

    def fixed():
        return net(3)

    def large():
        return net(12)

    def fails():
        raise RuntimeError("no such GPU")
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A module of the current folder, which no other test imports."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    name = f"nets_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(textwrap.dedent(MINE))
    yield name
    sys.modules.pop(name, None)


def saved(folder, content, name="net.pt"):
    torch.save(content, folder / name)
    return str(folder / name)


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(7)
    return models.build("mlp", CLASSES, width=1 / 8)


def load(path, **options):
    return loading.load_model("mlp", path, **dict(num_classes=CLASSES, width=1 / 8) | options)


def prefixed(prefix, state):
    return {prefix + name: tensor for name, tensor in state.items()}


# ------------------------------------------------------------ checkpoints

WRAPPED = {
    "plain": lambda state: state,
    **{key: lambda state, key=key: {"epoch": 3, key: state} for key in loading.KEYS},
    "twice": lambda state: {"model": {"state_dict": state}, "optimizer": {"state": {}}},
    "data parallel": lambda state: prefixed("module.", state),
    "compiled": lambda state: prefixed("_orig_mod.", state),
    "compiled, parallel": lambda state: {"model": prefixed("module._orig_mod.", state)},
    "parallel, compiled": lambda state: prefixed("_orig_mod.module.", state),
    "a part compiled": lambda state: {
        name.replace("body.", "body._orig_mod."): tensor for name, tensor in state.items()
    },
    "lightning": lambda state: {
        "state_dict": prefixed("model.", state) | {"criterion.weight": torch.ones(CLASSES)},
        "pytorch-lightning_version": "2.5.0",
        "hyper_parameters": {"lr": 0.1},
    },
    "lightning, compiled net": lambda state: {"state_dict": prefixed("net._orig_mod.", state)},
    "double": lambda state: {
        name: t.double() if t.is_floating_point() else t for name, t in state.items()
    },
    "no counters": lambda state: {k: t for k, t in state.items() if "num_batches" not in k},
}


@pytest.mark.parametrize("form", WRAPPED)
def test_a_checkpoint_of_this_form_is_read(net, tmp_path, form):
    found = load(saved(tmp_path, WRAPPED[form](net.state_dict())))
    assert not found.training
    for (name, theirs), (other, ours) in zip(
        net.named_parameters(), found.named_parameters(), strict=True
    ):
        assert name == other
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_no_classes_and_an_absurd_width_are_refused():
    assert len(loading.load_model("mlp", num_classes=np.int64(3), width=1 / 8).fc.weight) == 3
    with pytest.raises(ValueError, match=r"^num_classes must be .* at least 1, got 0"):
        loading.load_model("mlp", num_classes=0)
    with pytest.raises(ValueError, match=r"^model 'mlp' cannot be built \(") as error:
        loading.load_model("mlp", num_classes=3, width=1e300)
    assert "frame #" not in str(error.value)


def test_what_torchs_own_wrappers_save(net, tmp_path):
    average = torch.optim.swa_utils.AveragedModel(net)
    for wrapped in (nn.DataParallel(net), torch.compile(net), average):
        found = load(saved(tmp_path, wrapped.state_dict()))
        torch.testing.assert_close(found.fc.weight, net.fc.weight, rtol=0, atol=0)


def test_safetensors_are_read(net, tmp_path):
    theirs = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")
    theirs.save_file(net.state_dict(), tmp_path / "net.safetensors")
    found = load(str(tmp_path / "net.safetensors"))
    torch.testing.assert_close(found.fc.weight, net.fc.weight, rtol=0, atol=0)


def test_a_network_without_a_checkpoint_has_random_weights_and_the_classes_asked_for():
    first, second = (load("", num_classes=4) for _ in range(2))
    assert first.fc.out_features == 4
    assert not torch.equal(first.fc.weight, second.fc.weight)


# ------------------------------------------------------------ networks


def test_a_torchvision_network_is_read_with_its_classes(tmp_path):
    theirs = resnet18(num_classes=CLASSES).eval()
    path = saved(tmp_path, theirs.state_dict())
    found = loading.load_model("torchvision:resnet18", path, CLASSES)
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(found(x), theirs(x), rtol=0, atol=0)


def test_a_vision_transformer_of_torchvision_takes_the_datas_size():
    with torch.device("meta"):
        found = loading.load_model("torchvision:vit_b_16", input_shape=(3, 32, 32))
    assert found.image_size == 32


def test_a_readers_function(mine, tmp_path):
    theirs = loading.load_model(f"{mine}:net", num_classes=4)
    found = loading.load_model(f"{mine}:net", saved(tmp_path, theirs.state_dict()), 4)
    torch.testing.assert_close(found[-1].weight, theirs[-1].weight, rtol=0, atol=0)
    assert loading.load_model(f"{mine}:fixed", num_classes=7)[-1].out_features == 3
    assert isinstance(loading.load_model("torch.nn:Identity"), nn.Identity)


# ------------------------------------------------------------ mistakes


def one_line(function, *arguments, **options):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        function(*arguments, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnet19", "unknown model 'resnet19'; valid: mlp, resnet9, vgg9, vit, resnet50, torchv"),
        ("ufm", "unknown model 'ufm'; valid: mlp, "),
        ("torchvision:resnet19", "torchvision has no function or class 'resnet19'"),
        ("torchvision:fcn_resnet50", "torchvision has no function or class 'fcn_resnet50'"),
        ("nowhere:net", "model 'nowhere:net' cannot be imported (ModuleNotFoundError"),
        ("{mine}:NUMBER", "has no function or class 'NUMBER'"),
        ("{mine}:fails", "cannot be built (RuntimeError: no such GPU)"),
        (
            "collections:OrderedDict",
            "cannot be built (TypeError: it returns OrderedDict, and no torch.nn.Module)",
        ),
        ("torch.nn:Linear", "cannot be built (TypeError: "),
        ("__main__:net", "cannot be imported by other processes: write the function to a file"),
    ],
)
def test_a_network_that_cannot_be_built(mine, name, words):
    assert words in one_line(loading.load_model, name.format(mine=mine))


def test_a_width_that_the_network_does_not_take_is_refused():
    for wrong in ({"width": 1 / 8}, {"depth": 3}):
        message = one_line(loading.load_model, "torchvision:resnet18", **wrong)
        assert message == (
            "width and depth are for mlp, resnet9, vgg9, vit, resnet50, and not for "
            "'torchvision:resnet18'"
        )


def write(path, content):
    path.write_bytes(content)
    return str(path)


def half(path):
    content = Path(path).read_bytes()
    return write(Path(path), content[: len(content) // 2])


def scripted(path):
    with pytest.warns(FutureWarning):
        torch.jit.script(nn.Linear(2, 2)).save(path)
    return str(path)


AS_TENSORS = "cannot be read as a file of tensors ("
UNREADABLE = {
    "missing": (lambda folder, net: str(folder / "no.pt"), AS_TENSORS + "FileNotFoundError: "),
    "folder": (lambda folder, net: str(folder), AS_TENSORS + "IsADirectoryError: "),
    "text": (lambda folder, net: write(folder / "a", b"hello"), AS_TENSORS),
    "empty": (lambda folder, net: write(folder / "a", b""), AS_TENSORS),
    "half": (lambda folder, net: half(saved(folder, net.state_dict())), AS_TENSORS),
    "module": (lambda folder, net: saved(folder, net), ".networks.Classifier would run code"),
    "arguments": (
        lambda folder, net: saved(folder, {"model": net.state_dict(), "a": argparse.Namespace()}),
        AS_TENSORS + "to read argparse.Namespace would run code; save model.state_dict() alone",
    ),
    "script": (lambda folder, net: scripted(folder / "a"), "TorchScript"),
    "no state": (
        lambda folder, net: saved(folder, {"epoch": 1, "best": 0.5, "lr": 1}),
        "no state dict in it, but ['epoch', 'best', 'lr']; valid: model.state_dict(), alone or",
    ),
    "tensor": (lambda folder, net: saved(folder, torch.ones(3)), "but <class 'torch.Tensor'>; v"),
    "not safe": (
        lambda folder, net: write(folder / "a.safetensors", b"junk" * 9),
        AS_TENSORS + "SafetensorError: ",
    ),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_a_file_that_is_no_checkpoint(net, tmp_path, case):
    make, words = UNREADABLE[case]
    message = one_line(load, make(tmp_path, net))
    assert message.startswith("checkpoint '")
    assert words in message


def without(name):
    return lambda state: {k: v for k, v in state.items() if not k.startswith(name)}


NOT_OF_IT = {
    "missing": (without("fc."), {}, 'Missing key(s) in state_dict: "fc.weight", "fc.bias"'),
    "unexpected": (lambda s: s | {"a": s["fc.bias"]}, {}, 'Unexpected key(s) in state_dict: "a"'),
    "width": (lambda s: s, {"width": 1 / 4}, "size mismatch for body.1.weight: copying a param"),
    "classes": (lambda s: s, {"num_classes": 4}, "size mismatch for fc.weight: copying a param"),
    "a part": (lambda s: s | {"fc.bias": torch.zeros(2)}, {}, "size mismatch for fc.bias: copying"),
    "depth": (lambda s: s, {"depth": 2}, 'Unexpected key(s) in state_dict: "body.7.weight", '),
    "input": (lambda s: s, {"input_shape": (1, 9, 9)}, "torch.Size([16, 64]) from checkpoint, the"),
}


@pytest.mark.parametrize("case", NOT_OF_IT)
def test_a_checkpoint_of_another_network(net, tmp_path, case):
    change, options, words = NOT_OF_IT[case]
    message = one_line(load, saved(tmp_path, change(OrderedDict(net.state_dict()))), **options)
    assert "net.pt' is not of mlp" in message
    assert words in message


def test_a_function_that_takes_no_num_classes_says_that_shapes_differ(mine, tmp_path):
    path = saved(tmp_path, loading.load_model(f"{mine}:net", num_classes=4).state_dict())
    message = one_line(loading.load_model, f"{mine}:fixed", path)
    assert "size mismatch for 3.weight: copying a param with shape torch.Size([4, 8])" in message


# ------------------------------------------------------------ data


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """``PATH`` of images of three colours, 8 to train and 4 to test of each."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(3)
    for part, count in (("train", 8), ("val", 4)):
        for channel, name in enumerate(("red", "green", "blue")):
            (folder / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 120, (40, 40, 3), dtype=np.uint8)
                pixels[..., channel] += 100
                Image.fromarray(pixels).save(folder / part / name / f"{i}.png")
    return folder


def loaded(name, image_size=None, normalise="dataset"):
    return batches.load_data(name, image_size, None, normalise)


def joined(loader):
    return [torch.cat(parts) for parts in zip(*loader, strict=True)]


def test_batches_are_the_normalised_images_each_time(images):
    dataset = loaded(f"folder:{images}", 32)
    assert dataset.train_x.dtype == torch.uint8
    loader = batches.batches(dataset, "train", 7, 32)
    assert [len(x) for x, _ in loader] == [7, 7, 7, 3]
    for _ in range(2):
        x, y = joined(loader)
        torch.testing.assert_close(x, dataset.inputs(dataset.train_x), rtol=0, atol=0)
        assert y.tolist() == dataset.train_y.tolist()
    assert x.mean((0, 2, 3)).abs().max() < 1e-5
    assert len(joined(batches.batches(dataset, "test", 5, 32))[0]) == 12


def test_a_tree_of_images_is_read_batch_by_batch(images):
    dataset = loaded(f"imagenet:{images}", 32)
    x, y = joined(batches.batches(dataset, "test", 5, 32))
    whole = torch.stack([dataset.image("test", i) for i in range(12)])
    torch.testing.assert_close(x, dataset.inputs(whole), rtol=0, atol=0)
    assert y.tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_a_tree_of_images_has_imagenets_constants_or_an_error(images):
    name = f"imagenet:{images}"
    x, _ = joined(batches.batches(loaded(name, 32, "imagenet"), "test", 5, 32))
    torch.testing.assert_close(x, joined(batches.batches(loaded(name, 32), "test", 5, 32))[0])
    with pytest.raises(ValueError, match="normalise 'none' is not for imagenet:"):
        loaded(name, 32, "none")


def test_imagenets_constants_are_torchvisions(images):
    dataset = loaded(f"folder:{images}", 32, "imagenet")
    found, _ = next(iter(batches.batches(dataset, "train", 6, 32)))
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    torch.testing.assert_close(found, v2.Normalize(mean, std)(dataset.train_x[:6] / 255))


def test_images_that_have_their_own_size_are_resized_in_each_batch():
    dataset = loaded("digits", 32)
    assert dataset.train_x.shape[1:] == (1, 8, 8)
    found, _ = next(iter(batches.batches(dataset, "train", 9, 32)))
    torch.testing.assert_close(found, data.load("digits", image_size=32).train_x[:9])


def test_a_grey_image_becomes_three_channels_and_three_their_mean(images):
    def first(dataset, channels):
        return next(iter(batches.batches(dataset, "train", 4, None, nn.Conv2d(channels, 4, 3))))[0]

    x = first(loaded("digits"), 3)
    assert x.shape == (4, 3, 8, 8)
    assert torch.equal(x[:, 0], x[:, 2])
    colour = loaded(f"folder:{images}")
    torch.testing.assert_close(first(colour, 1), first(colour, 3).mean(1, keepdim=True))


# ------------------------------------------------------------ parameters


def test_an_empty_parameter_has_its_default():
    given = asked(dict.fromkeys(PARAMETERS, ""))
    assert given["batch_size"] == 256
    assert given["tokens"] == "mean"
    assert given["model"] is None
    assert asked({"model": "mlp", "layers": "[body.3, body.6]"})["layers"] == ("body.3", "body.6")


WRONG = {
    "misspelt": (
        {"In": ["# Parameters\nchekpoint = 'a'"]},
        "unknown parameter 'chekpoint' (did you",
    ),
    "no model": ({"dataset": "digits"}, "dataset is 'digits', but model is empty; valid: mlp, "),
    "tokens": ({"model": "mlp", "tokens": "last"}, "unknown tokens 'last'; valid: mean, class"),
    "batch": (
        {"model": "mlp", "batch_size": 0},
        "batch_size must be a whole number of at least 1, got 0",
    ),
    "side": ({"model": "mlp", "image_size": 2000}, "image_size must be at most 1024, got 2000"),
    "normalise": (
        {"model": "mlp", "normalise": "x"},
        "unknown normalise 'x'; valid: dataset, imag",
    ),
    "data": ({"model": "mlp", "dataset": "digitz"}, "unknown dataset 'digitz'; valid: digits, "),
    "constants": (
        {"model": "mlp", "normalise": "imagenet"},
        "normalise 'imagenet' is for images of",
    ),
    "vectors": ({"model": "resnet9", "dataset": "gaussians"}, "resnet9' cannot be built (Value"),
    "width": ({"model": "mlp", "width": 0}, "width must be a finite number of at least"),
    "device": ({"model": "mlp", "device": "tpu"}, "unknown device 'tpu'; valid here: cpu"),
    "classes": (
        {"model": "mlp", "checkpoint": "{net}", "width": 1 / 8},
        "checkpoint '{net}' is not of mlp (Error(s) in loading state_dict for Classifier: size "
        "mismatch for fc.weight: copying a param with shape torch.Size([3, 16])",
    ),
    "inputs": (
        {"model": "torch.nn:Flatten", "dataset": "digits"},
        "model must be a torch.nn.Module with parameters, got Flatten",
    ),
    "too few classes": (
        {"model": "{mine}:fixed", "dataset": "digits"},
        "labels must lie in [0, 3), K being the rows of weight, got ",
    ),
    "too many classes": (
        {"model": "{mine}:large", "dataset": "digits"},
        "no samples in labels for 2 of 12 classes, the first of them class 10",
    ),
    "size": (
        {"model": "torchvision:alexnet", "image_size": 20, "dataset": "digits"},
        "the network cannot take inputs of shape (3, 20, 20) (RuntimeError: ",
    ),
    "train_size": (
        {"model": "mlp", "train_size": 5},
        "no samples in labels for 5 of 10 classes, the first of them class ",
    ),
    "head": ({"model": "mlp", "head": "last"}, "unknown layer 'last'; there are: "),
    "layers": ({"model": "mlp", "layers": "body.77"}, "unknown layer 'body.77'; there are: body.7"),
}


NAMING = {"model", "checkpoint"}  # parameters with a path or a module of the test


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_is_one_line(net, mine, tmp_path, case):
    parameters, words = WRONG[case]
    path = saved(tmp_path, net.state_dict())
    named = {k: parameters[k].format(net=path, mine=mine) for k in NAMING & parameters.keys()}
    given = parameters | named
    with pytest.raises(ParameterError) as error:
        report(asked(given))
    assert words.replace("{net}", str(path)) in str(error.value)
    assert "\n" not in str(error.value)
    assert error.value._render_traceback_() == [f"ParameterError: {error.value}"]


def test_a_network_or_file_that_is_wrong_is_found_before_the_data_are_read(monkeypatch):
    monkeypatch.setattr(data, "load", None)
    for wrong, words in (
        ({"model": "mlpp"}, "unknown model 'mlpp'"),
        ({"model": "mlp", "checkpoint": "no.pt"}, "FileNotFoundError"),
        ({"model": "mlp", "device": "tpu"}, "unknown device 'tpu'"),
    ):
        with pytest.raises(ParameterError, match=words):
            report(asked(wrong))


def test_a_network_in_half_precision_is_measured(mine, monkeypatch):
    half = loading.load_model(f"{mine}:net").half
    monkeypatch.setattr(request, "load_model", lambda *_, **__: half())
    found, about, _ = report(asked({"model": f"{mine}:net", "train_size": 50}))
    assert found.metrics["nc1"] > 0
    assert "without a checkpoint, as it is when it is built. 50 training" in about


def test_the_report_says_which_weights_and_images():
    few = dict(model="resnet9", width=1 / 64, dataset="digits", train_size=20, image_size=32)
    assert report(asked(few))[1] == (
        "**resnet9** without a checkpoint, as it is when it is built. 20 training and 397 test "
        "samples of digits, 10 classes, inputs of 1 × 32 × 32."
    )
    few |= dict(model="torchvision:mobilenet_v3_small", width="")
    assert report(asked(few))[1].endswith("inputs of 3 × 32 × 32.")


def test_what_is_measured_is_the_checkpoints_network(tmp_path):
    torch.manual_seed(0)
    net, digits = models.build("mlp", width=1 / 8).eval(), data.load("digits")
    path = saved(tmp_path, {"model": net.state_dict()})
    given = asked(dict(model="mlp", checkpoint=path, width=1 / 8, batch_size=100))
    found, about, classes = report(given)
    arrays = net.body(digits.train_x), digits.train_y, net.fc.weight, net.fc.bias
    tests = net.body(digits.test_x), digits.test_y
    theirs = nc_metrics(*(a.detach() for a in (*arrays, *tests)))
    assert {k: found.metrics[k] for k in theirs} == pytest.approx(theirs, rel=1e-4)
    assert about.startswith("**mlp** with the weights of <code>net&#46;pt</code>. 1,400 training ")
    assert classes == digits.class_names


class Blocks(nn.Module):
    """Names whose order a file may change: ``block.conv`` sorts before ``conv``."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 1)
        self.block = nn.Module()
        self.block.conv = nn.Conv2d(2, 3, 1)


def test_the_order_of_a_checkpoints_names_does_not_matter(tmp_path):
    state = Blocks().state_dict()
    for prefix in ("", "model."):
        named = {prefix + name: state[name] for name in sorted(state)}
        found = loading._renamed(named, Blocks().state_dict(), "net.pt")
        assert {name: found[name] is state[name] for name in state} == dict.fromkeys(state, True)


def test_a_checkpoint_of_two_networks_is_refused(tmp_path):
    state = models.build("mlp", num_classes=3, input_shape=(64,)).state_dict()
    two = {f"{prefix}.{name}": state[name] for prefix in ("ema", "model") for name in state}
    torch.save(two, tmp_path / "two.pt")
    with pytest.raises(
        ValueError, match=r"two\.pt' has the network more than once, under 'ema\.', "
    ):
        loading.load_model("mlp", str(tmp_path / "two.pt"), 3, input_shape=(64,))


def test_a_checkpoint_whose_names_are_no_text_is_refused(tmp_path):
    torch.save({1: torch.ones(2)}, tmp_path / "numbers.pt")
    with pytest.raises(ValueError, match=r"numbers\.pt'?: no state dict in it, but \[1\]; valid"):
        loading.load_model("resnet9", str(tmp_path / "numbers.pt"), num_classes=3)


@pytest.mark.parametrize("name", ["resnet9", "torchvision:vit_b_16"])
def test_an_input_shape_is_a_sequence(name):
    with pytest.raises(ValueError, match=r"^input_shape must be sizes such as .*, got 64$"):
        loading.load_model(name, num_classes=5, input_shape=64)


def test_a_vision_transformer_of_torchvision_takes_square_images_only():
    with pytest.raises(ValueError, match=r"^torchvision:vit_b_16 takes square .* \(3, 32, 64\)$"):
        loading.load_model("torchvision:vit_b_16", input_shape=(3, 32, 64))
