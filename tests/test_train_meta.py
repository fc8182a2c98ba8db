"""Steps and a measurement on torch's ``meta`` device, whose tensors have no values: there it is an
error to mix devices, or to read a value, for which a GPU would have to wait."""

from contextlib import nullcontext

import pytest
import torch

from ncbook import data, models, optim
from ncbook.parameters import PRECISIONS
from ncbook.train import RunConfig, loop
from ncbook.train.measure import MEASURED, measure

SAMPLES, BATCH, CLASSES = 20, 10, 10
NETWORKS = [name for name in models.MODELS if name != "ufm"]


def images(device):
    x = torch.zeros((SAMPLES, 1, 32, 32), dtype=torch.uint8, device=device)
    y = torch.zeros(SAMPLES, dtype=torch.int64, device=device)
    mean = torch.zeros(1, device=device)
    names = tuple(map(str, range(CLASSES)))
    return data.Dataset("fashion_mnist", x, y, x, y, names, mean, mean + 1)


def start(device="meta", **settings):
    shared = dict(dataset="fashion_mnist", epochs=2, batch_size=BATCH, lr=0.01, width=1 / 8)
    config = RunConfig(**shared | settings)
    return loop._Chunk([config] * 2, images(device), compiled=False)


def train_and_measure(chunk):
    chunk.take_steps([torch.arange(BATCH)] * 2, torch.ones(2))  # Shampoo, SOAP: more after the 1st
    return measure(chunk.net, chunk.dataset, chunk.members)


def check(**settings):
    values = train_and_measure(start(**settings))
    assert set(values) == set(MEASURED)
    assert {(v.device.type, tuple(v.shape)) for v in values.values()} == {("meta", (2,))}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("model", NETWORKS)
def test_every_network_in_every_precision(monkeypatch, model, precision):
    # autocast does not know the device
    monkeypatch.setattr(torch, "autocast", lambda *given: nullcontext())
    check(model=model, precision=precision, optimizer="adamw", weight_decay=0.1)


@pytest.mark.parametrize("name", optim.OPTIMIZERS)
@pytest.mark.parametrize("model", ["mlp", "resnet9"])
def test_every_optimizer(model, name):
    share = {"coupled_share": 0.5} if name.endswith("_mixed") else {}
    check(model=model, optimizer=name, weight_decay=0.1, momentum=0.9, **share)


@pytest.mark.parametrize(
    "settings",
    [
        dict(optimizer="muonw", update_precision="bfloat16"),
        dict(optimizer="adamw", head_optimizer="sgd", head_lr=0.1),
        dict(optimizer="adamw", centred_head=True),
        dict(optimizer="sgd", clip=1.0),
        dict(optimizer="sgd", augment=True),
    ],
    ids=str,
)
def test_every_other_setting_of_a_step(settings):
    check(model="resnet9", **settings)


def test_reading_a_value_or_mixing_devices_is_seen(monkeypatch):
    """What the other tests rest on."""
    chunk = start(model="resnet9", optimizer="sgd")
    with pytest.raises(RuntimeError, match=r"item\(\) cannot be called on meta tensors"):
        chunk.members.params["fc.bias"].sum().item()
    chunk.members.params["fc.bias"] = torch.zeros(2, CLASSES)
    with pytest.raises(RuntimeError, match="device"):
        train_and_measure(chunk)
