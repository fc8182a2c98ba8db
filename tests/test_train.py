"""Members trained together against plain loops that train one network at a time."""

import dataclasses
import errno
import gc
import hashlib
import math
import os
import platform
import resource
import shutil
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import noticed
from torch import nn

from ncbook import data, metrics, models, optim, store, theory
from ncbook.train import (
    RunConfig,
    checkpoint,
    compiled,
    default_log_epochs,
    learning_rate_factor,
    learning_rate_factors,
    loop,
    measure,
    prepare_step,
    step_seconds,
    train_members,
)
from ncbook.train.context import ONE_AT_A_TIME, heap_kept
from ncbook.train.measure import MEASURED
from ncbook.train.step import make_step

needs_compiler = pytest.mark.skipif(
    not any(shutil.which(c) for c in ("g++", "clang++")), reason="no C++ compiler"
)
SAMPLES = 300  # a subset of the digits: three batches of 100 an epoch
STEPS = 3
LOST = dict(optimizer="sgd", lr=1e30, momentum=0.9, weight_decay=0.5)  # overflows at once


@cache
def digits(train_size=SAMPLES, precision="float32"):
    loaded = data.load("digits", train_size=train_size)
    return as_precision(loaded, precision)


def as_precision(dataset, precision):
    dtype = getattr(torch, precision)
    return dataclasses.replace(
        dataset, train_x=dataset.train_x.to(dtype), test_x=dataset.test_x.to(dtype)
    )


@cache
def digits_without_constant_pixels():
    """Some pixels of the digits are always black. Behind batch norm their weights' gradient is zero
    but for rounding, and Adam and Signum take the sign of that: no two programs agree on it."""
    whole = digits(None, "float64")
    noise = torch.randn(whole.train_x.shape, generator=torch.Generator().manual_seed(1)).double()
    return dataclasses.replace(whole, train_x=whole.train_x + 0.01 * noise)


def config(**changes):
    return RunConfig(**(dict(train_size=SAMPLES, batch_size=100, epochs=3) | changes))


def by_member(history, member):
    return [row for row in history if row["member"] == member]


def without_time(record):
    return {k: v for k, v in record.items() if k != "wall_time_s"}


# ------------------------------------------------------------ batched equals alone


def ours(params, c):
    share = c.coupled_share if c.optimizer.endswith("_mixed") else None
    return optim.Optimizer(params, c.optimizer, c.lr, c.momentum, c.weight_decay, share)


def torchs(name):
    def make(params, c):
        own = {"momentum": c.momentum} if name == "SGD" else {"betas": (c.momentum, 0.999)}
        return getattr(torch.optim, name)(params, c.lr, weight_decay=c.weight_decay, **own)

    return make


ALONE = dict.fromkeys(optim.OPTIMIZERS, ours)  # what torch lacks: each is in test_optim.py
ALONE |= {"sgd": torchs("SGD"), "adam": torchs("Adam"), "adamw": torchs("AdamW")}


def parameter_groups(net, c):
    """As a ViT's are written by hand: its LayerNorms and biases do not decay."""
    if c.model != "vit":
        return net.parameters()
    spared = [p for m in net.modules() if isinstance(m, nn.LayerNorm) for p in m.parameters()]
    spared += [m.bias for m in net.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    others = [p for p in net.parameters() if all(p is not other for other in spared)]
    return [{"params": others}, {"params": spared, "weight_decay": 0.0}]


def torch_schedule(optimizer, c, steps):
    """torch's own schedulers, moved on after every step."""
    if c.schedule == "step":
        drops = [steps * (c.epochs // 3), steps * (2 * c.epochs // 3)]
        return torch.optim.lr_scheduler.MultiStepLR(optimizer, drops, gamma=0.1)
    total, warm = c.epochs * steps, round(0.05 * c.epochs * steps)
    linear = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / warm, 1.0, warm - 1)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total - warm)
    return torch.optim.lr_scheduler.SequentialLR(optimizer, [linear, cosine], [warm])


def plain_run(c, dataset, make=None):
    """What most people write: one network, one loop. Its metrics at the end."""
    torch.manual_seed(c.seed)
    shape = dataset.input_shape
    net = models.build(
        c.model, dataset.num_classes, width=c.width, depth=c.depth, input_shape=shape
    )
    net = net.to(getattr(torch, c.precision))
    optimizer = (make or ALONE[c.optimizer])(parameter_groups(net, c), c)
    schedule = torch_schedule(optimizer, c, -(-len(dataset.train_y) // c.batch_size))
    generator = torch.Generator().manual_seed(c.seed)
    for _ in range(c.epochs):
        order = torch.randperm(len(dataset.train_y), generator=generator)
        for batch in order.split(c.batch_size):
            optimizer.zero_grad()
            logits = net(dataset.train_x[batch])
            nn.functional.cross_entropy(logits, dataset.train_y[batch]).backward()
            if c.clip:
                nn.utils.clip_grad_norm_(net.parameters(), c.clip)
            optimizer.step()
            schedule.step()
    return measured(net.eval(), dataset)


@torch.no_grad()
def measured(net, dataset):
    train_h, test_h = net.body(dataset.train_x), net.body(dataset.test_x)
    values = metrics.nc_metrics(
        train_h, dataset.train_y, net.fc.weight, net.fc.bias, test_h, dataset.test_y
    )
    parts = (("train", train_h, dataset.train_y), ("test", test_h, dataset.test_y))
    for name, h, y in parts:
        logits = net.fc(h)
        values[f"{name}_loss"] = nn.functional.cross_entropy(logits, y).item()
        values[f"{name}_acc"] = (logits.argmax(1) == y).double().mean().item()
    spectrum = torch.linalg.svdvals(net.fc.weight.double())
    means = torch.stack(
        [train_h[dataset.train_y == k].double().mean(0) for k in range(dataset.num_classes)]
    )
    of_means = torch.linalg.svdvals(means - means.mean(0))
    return values | {
        "w_sv_min": spectrum[-1].item(),
        "w_sv_mean": spectrum[:-1].mean().item(),
        "m_sv_mean": of_means[:-1].mean().item(),
    }


FAMILIES = {  # name, lr, momentum, weight decay of members that train together
    "sgd": [("sgd", 0.0679, 0.9, 0.05), ("sgdw", 0.01, 0.5, 0.5), ("sgd_mixed", 0.03, 0.0, 5e-3)],
    "adam": [("adam", 5e-3, 0.9, 0.05), ("adamw", 5e-3, 0.5, 5.0), ("adam_mixed", 1e-3, 0.0, 0.5)],
    "sign": [("signum", 1e-3, 0.9, 0.05), ("signumw", 1e-3, 0.5, 5), ("signum_mixed", 1e-3, 0, 1)],
}
MLP = dict(train_size=None, batch_size=128, width=1 / 4)  # 11 steps an epoch, the last of 120
UFM = dict(dataset="ufm", model="ufm", train_size=200, batch_size=64)
NARROW = dict(train_size=100, batch_size=34, width=1 / 16)
TOGETHER = [
    *[(MLP, family) for family in FAMILIES],
    *[(UFM, family) for family in FAMILIES],  # a step moves the rows of H in its batch alone
    (MLP | {"clip": 0.5}, "sgd"),
    # With SGD: a convolution's bias before batch norm has a gradient of rounding alone, and Adam
    # and sign make steps of that which no two programs agree on.
    (NARROW | {"model": "resnet9"}, "sgd"),
    (NARROW | {"model": "vgg9"}, "sgd"),
]


def float64_data(c):
    if c.model == "mlp":
        return digits_without_constant_pixels()
    return data.load("ufm", train_size=200) if c.model == "ufm" else large_digits("float64")


@pytest.mark.parametrize(("settings", "family"), TOGETHER)
def test_members_together_equal_plain_loops(settings, family):
    configs = [
        config(
            optimizer=name, lr=lr, momentum=momentum, weight_decay=decay, seed=3,
            coupled_share=0.3 if name.endswith("_mixed") else None, precision="float64", **settings,
        )
        for name, lr, momentum, decay in FAMILIES[family]
    ]  # fmt: skip
    dataset = float64_data(configs[0])
    runs, _ = train_members(configs, dataset, log_epochs=[])
    for c, record in zip(configs, runs, strict=True):
        # Wanted is 1e-4 relative; in float64, 1e-12 was seen.
        assert_close(record, plain_run(c, dataset), 1e-8)
    assert len({record["nc3"] for record in runs}) == 3
    if "clip" in settings:
        free, _ = train_members([dataclasses.replace(configs[0], clip=None)], dataset)
        assert free[0]["train_loss"] != pytest.approx(runs[0]["train_loss"], rel=1e-2)


def test_members_together_equal_plain_loops_in_float32_on_the_digits_as_they_are():
    shared = dict(lr=0.01, momentum=0.9, weight_decay=0.05, epochs=5)
    configs = [RunConfig(optimizer=name, **shared) for name in ("sgd", "sgdw")]
    runs, _ = train_members(configs, digits(None), log_epochs=[])
    for c, record in zip(configs, runs, strict=True):
        alone = plain_run(c, digits(None))
        # 2e-7 was seen. At lr 0.05 and after 20 epochs, with one seed in four, a unit that is on in
        # one and off in the other makes it 1e-3: that is what float64 is for above.
        assert {k: record[k] for k in alone} == pytest.approx(alone, rel=1e-4)


def test_float64_trains_on_data_as_they_are_loaded():
    c = config(precision="float64", epochs=1)
    (record,), _ = train_members([c], data.load("digits", train_size=SAMPLES))
    (double,), _ = train_members([c], digits(precision="float64"))
    assert record["nc1"] == pytest.approx(double["nc1"], rel=1e-6)


def test_bfloat16_reaches_what_float32_does():
    configs = [config(precision=p, lr=0.05, epochs=20) for p in ("float32", "bfloat16")]
    (single,), _ = train_members(configs[:1], digits(), log_epochs=[])
    (half,), _ = train_members(configs[1:], digits(), log_epochs=[])
    assert single["train_loss"] != half["train_loss"]
    assert single["train_acc"] == half["train_acc"] == 1
    assert half["nc3"] == pytest.approx(single["nc3"], rel=0.05)
    assert half["nc0"] == pytest.approx(single["nc0"], rel=1e-4)  # the exact law: no features in it


@pytest.fixture(scope="module")
def libraries(tmp_path_factory):
    """An empty folder for what is compiled, and no step compiled before."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("compiled")
        patch.setenv(compiled.CACHE, str(folder))
        make_step.cache_clear()
        yield folder
    make_step.cache_clear()


@needs_compiler
@pytest.mark.parametrize("names", [("sgd", "sgdw"), ("adam", "adamw"), ("signum", "signumw")])
def test_compiled_equals_plain_in_any_chunk(libraries, names):
    """One library serves all of them, and the smaller last batch; and a chunk of one."""
    dataset = digits_without_constant_pixels()
    settings = dict(lr=0.005, epochs=2, batch_size=128, width=1 / 8, train_size=None)
    settings |= dict(precision="float64", weight_decay=0.05)
    configs = [config(optimizer=name, **settings) for name in names]
    alone = train_members(configs[1:], dataset, compiled=True)[1][-1]
    plain, together = (train_members(configs, dataset, compiled=choice) for choice in (False, True))
    for record, same in zip(together[1], plain[1], strict=True):
        del record["m_sv_min"], same["m_sv_min"]
        assert record == pytest.approx(same, rel=1e-7)
    row = by_member(together[1], 1)[-1]
    assert [row[k] for k in ("nc0", "train_loss")] == [alone[k] for k in ("nc0", "train_loss")]
    assert len(list(libraries.glob("step-*.so"))) == 1


@needs_compiler
def test_step_seconds_takes_compiled_steps_if_they_are_kept_and_compiles_none(
    libraries, monkeypatch, tmp_path
):
    monkeypatch.setattr(loop, "COMPILE_FROM", 0)
    configs, dataset = [config(width=1 / 8, precision="float64")], digits_without_constant_pixels()
    train_members(configs, dataset, compiled=True)
    plain, take_steps = set(), loop._Chunk.take_steps

    def take(chunk, *arguments):
        plain.add(chunk.moves.directions != (optim.BY_NUMBER,))
        take_steps(chunk, *arguments)

    monkeypatch.setattr(loop._Chunk, "take_steps", take)
    assert step_seconds(configs, dataset) > 0
    assert plain == {False}
    plain.clear()
    monkeypatch.setenv(compiled.CACHE, str(tmp_path))
    assert step_seconds(configs, dataset) > 0
    assert plain == {True}
    assert list(tmp_path.iterdir()) == []


@needs_compiler
def test_a_damaged_library_counts_as_missing(tmp_path, monkeypatch):
    """And one that is none, though its name has the hash of its content."""
    monkeypatch.setenv(compiled.CACHE, str(tmp_path))
    damaged = tmp_path / f"step-0-{'0' * 64}.so"
    foreign = tmp_path / f"step-0-{hashlib.sha256(b'nothing').hexdigest()}.so"
    for path in (damaged, foreign):
        path.write_bytes(b"nothing")
    assert compiled._load("step-0") is None
    assert not damaged.exists()
    assert not foreign.exists()


def test_a_sweep_loads_no_library_that_it_does_not_use():
    """torchmetrics, which only a streamed run needs, loads torchvision and torch's compiler."""
    heavy = {"torchmetrics", "torchvision", "torch._dynamo", "triton", "matplotlib", "sklearn"}
    program = f"import sys, ncbook.sweep; print({heavy!r} & set(sys.modules))"
    told = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    assert told.stdout.decode().strip() == "set()"


def test_where_compiling_fails_training_goes_on_with_a_warning(libraries, monkeypatch):
    def fails(*arguments):
        raise RuntimeError("C++ compile error\nand a page about it")

    monkeypatch.setattr(compiled, "_compile", fails)
    c = config(width=0.3, optimizer="adam")
    with noticed(r"\(slower\): C\+\+ compile error$") as seen:
        (failed,), _ = train_members([c], digits(), compiled=True)
    (plain,), _ = train_members([c], digits(), compiled=False)
    assert len(seen) == 1
    assert without_time(failed) == without_time(plain)


@pytest.mark.parametrize("command", [None, "exit 1", '[ "$1" = --version ]'])
def test_without_a_compiler_training_is_plain_with_one_warning(
    libraries, monkeypatch, tmp_path, command
):
    """It may be missing, broken, or there without what it needs."""
    path = tmp_path / "c++"
    if command:
        path.write_text(f"#!/bin/sh\n{command}\n")
        path.chmod(0o755)
    monkeypatch.setenv("CXX", str(path))
    monkeypatch.setattr(compiled, "_no_compiler", compiled._no_compiler.__wrapped__)
    make_step.cache_clear()
    with noticed(r"no working C\+\+ compiler .*c") as seen:
        (run,), _ = train_members([config(width=0.3)], digits(), compiled=True)
    assert len(seen) == 1
    assert run["status"] == "ok"
    assert compiled.can_compile("cuda")


def test_a_cache_that_cannot_be_written_is_named_once_and_replaced(monkeypatch, tmp_path):
    monkeypatch.setattr(compiled.paths.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv(compiled.CACHE, "/dev/null/x")
    named = f"^{compiled.CACHE}=/dev/null/x cannot be written .*: {tmp_path}/.* is used instead$"
    with noticed(named) as seen:
        folder = compiled.prepare_cache()
    assert len(seen) == 1
    assert folder == compiled.prepare_cache() == Path(os.environ[compiled.CACHE])
    assert tmp_path in folder.parents


def test_without_room_for_its_code_nothing_is_compiled(monkeypatch, tmp_path):
    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setenv(compiled.CACHE, str(tmp_path))
    monkeypatch.setattr(compiled, "bytes", full, raising=False)
    with noticed(f"{tmp_path} .*No space left"):
        assert not compiled.can_compile("cuda")


# ------------------------------------------------------------ what decides a result


def test_the_seed_decides_everything():
    def train(seed, noise):
        torch.manual_seed(noise)  # the global random state must not matter
        (record,), history = train_members([config(seed=seed)], digits())
        return without_time(record), history

    assert train(0, noise=1) == train(0, noise=2)
    (one, _), (other, _) = train(0, 1), train(1, 1)
    assert one["nc0_init"] != other["nc0_init"]
    assert one["train_loss"] != other["train_loss"]


def test_members_start_from_one_initialisation():
    torch.manual_seed(7)
    net = models.build("mlp").eval()
    start = measured(net, digits())
    runs, history = train_members([config(seed=7, lr=lr) for lr in (0.1, 0.01)], digits())
    for member, record in enumerate(runs):
        first = by_member(history, member)[0]
        assert first["epoch"] == 0
        assert {k: first[k] for k in start} == pytest.approx(start, rel=1e-5)
        assert [record[f"{k}_init"] for k in metrics.KEYS] == [first[k] for k in metrics.KEYS]


def test_a_batch_may_be_larger_than_the_set():
    large, whole = (
        train_members([config(batch_size=size)], digits())[0][0] for size in (10_000, SAMPLES)
    )
    assert large["train_loss"] == whole["train_loss"]


@pytest.mark.parametrize("piece", ["MOST_AT_ONCE", "EVAL_FEATURES"])
def test_measuring_piece_by_piece_changes_nothing(monkeypatch, piece):
    configs = [config(epochs=1, lr=lr) for lr in (0.1, 0.05, 0.01)]
    _, whole = train_members(configs, digits())
    monkeypatch.setattr(measure, piece, 64)
    _, pieces = train_members(configs, digits())
    for row, same in zip(pieces, whole, strict=True):
        del row["m_sv_min"], same["m_sv_min"]  # rounding
        assert row == pytest.approx(same, rel=1e-5)


# ------------------------------------------------------------ networks for images

# Narrow ones, on digits made 32 x 32: real images of the size that they take.
IMAGES = dict(train_size=100, batch_size=34, epochs=3)


@cache
def large_digits(precision="float32", train_size=100):
    return as_precision(data.load("digits", train_size=train_size, image_size=32), precision)


@cache
def pixels():
    """The same as uint8 pixels, as image sets from files hold them."""
    raw = large_digits()
    low, high = raw.train_x.min(), raw.train_x.max()
    train, test = (
        (255 * (x - low) / (high - low)).clamp(0, 255).round().byte()
        for x in (raw.train_x, raw.test_x)
    )
    mean, std = train.float().mean(), train.float().std()
    return dataclasses.replace(
        raw, name="cifar10", train_x=train, test_x=test, mean=mean[None], std=std[None]
    )


def images(**changes):
    return config(**(IMAGES | changes))


def assert_close(record, expected, rel):
    for key, value in expected.items():
        assert record[key] == pytest.approx(value, rel=rel, abs=rel), key


@pytest.mark.parametrize(
    ("name", "clip"),
    [("sgd", None), ("adamw", 0.05), pytest.param("signum", 0.05, marks=pytest.mark.slow)],
)
def test_a_vit_equals_a_plain_loop_with_its_schedule_its_decay_mask_and_clipping(name, clip):
    c = images(
        model="vit", optimizer=name, lr=0.01, weight_decay=0.02, width=1 / 16, depth=2,
        precision="float64", clip=clip, epochs=10, batch_size=50,
    )  # fmt: skip
    assert c.schedule == "cosine"
    (record,), _ = train_members([c], large_digits("float64"))
    expected = plain_run(c, large_digits("float64"))
    assert_close(record, expected, 1e-6)
    if clip:
        free, _ = train_members([dataclasses.replace(c, clip=None)], large_digits("float64"))
        assert free[0]["nc1"] != pytest.approx(record["nc1"], rel=1e-3)


@pytest.mark.parametrize("model", ["mlp", "resnet9"])
def test_together_and_one_after_another_are_the_same(monkeypatch, model):
    configs = [images(model=model, lr=lr, width=1 / 16, precision="float64") for lr in (0.05, 0.01)]
    found = []
    for together in (False, True):
        row = dataclasses.replace(models.MODELS[model], together=together)
        monkeypatch.setitem(models.MODELS, model, row)
        found.append(train_members(configs, large_digits("float64"))[0])
    for one, other in zip(*found, strict=True):
        assert_close(one, {k: other[k] for k in MEASURED if k != "m_sv_min"}, 1e-7)


@pytest.mark.slow
@needs_compiler
def test_a_compiled_update_is_the_same(libraries):
    c = images(model="vgg9", width=1 / 16, optimizer="sgd", weight_decay=0.05)
    plain, updated = (
        train_members([c], large_digits(), compiled=choice)[0][0] for choice in (False, True)
    )
    assert_close(updated, {k: plain[k] for k in ("nc0", "nc1", "nc2", "nc3", "train_loss")}, 1e-4)


def test_images_are_normalised_where_they_are_used():
    """uint8 pixels train as the normalised float images do."""
    whole = pixels()
    floats = dataclasses.replace(
        whole, train_x=whole.inputs(whole.train_x), test_x=whole.inputs(whole.test_x)
    )
    c = images(model="resnet9", width=1 / 16)
    for precision in ("float32", "float64"):
        (one,), (other,) = (
            train_members([dataclasses.replace(c, precision=precision)], d)[0]
            for d in (whole, floats)
        )
        assert without_time(one) == without_time(other)


def test_augmentation_is_for_training_and_not_for_features():
    """Before the first step all is the same; later it is not, and can be had again."""
    plain, augmented, again = (
        train_members(
            [images(model="resnet9", width=1 / 16, dataset="cifar10", augment=on)], pixels()
        )[1]
        for on in (False, True, True)
    )
    assert plain[0] == augmented[0]
    assert plain[-1]["nc1"] != pytest.approx(augmented[-1]["nc1"], rel=1e-3)
    assert augmented == again


def test_bfloat16_convolutions_reach_what_float32_ones_do():
    accuracies = [
        train_members(
            [images(model="resnet9", width=1 / 8, epochs=20, lr=0.02, precision=p)], large_digits()
        )[0][0]["train_acc"]
        for p in ("float32", "bfloat16")
    ]
    assert min(accuracies) > 0.9


def test_a_member_that_diverges_ends_alone():
    configs = [images(model="vgg9", width=1 / 16, **LOST), images(model="vgg9", width=1 / 16)]
    runs, _ = train_members(configs, large_digits())
    assert [record["status"] for record in runs] == ["diverged", "ok"]
    alone, _ = train_members(configs[1:], large_digits())
    assert_close(runs[1], {k: alone[0][k] for k in MEASURED}, 1e-12)


@pytest.mark.parametrize("model", ["resnet9", "vit"])
def test_the_exact_law_holds_for_networks_of_images(model):
    """Two epochs, every step of which the law predicts, clipped or not, with the ViT's cosine."""
    configs = [
        images(
            model=model, optimizer=o, lr=0.05, weight_decay=0.5, momentum=0.9, width=1 / 8,
            depth=2 if model == "vit" else None, epochs=2, clip=clip,
        )
        for o in ("sgd", "sgdw") for clip in (None, 1.0)
    ]  # fmt: skip
    steps = 3
    for c in configs:
        ((record,), _) = train_members([c], large_digits())
        factors = [learning_rate_factors(c.schedule, e, steps, 2) for e in range(2)]
        lrs = c.lr * torch.cat(factors).numpy()
        law = theory.row_sum_stepped(lrs, c.momentum, c.weight_decay, c.optimizer == "sgdw")[-1]
        assert record["nc0"] / record["nc0_init"] == pytest.approx(abs(law), rel=1e-4)
        assert abs(law) < 0.995


@pytest.mark.parametrize(
    ("said", "error", "shown"),
    [
        (
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes",
            MemoryError,
            "out of memory training 2 x mlp .* batch_size below 1",
        ),
        ("mat1 and mat2 shapes cannot be multiplied", RuntimeError, "mat1"),
    ],
)
def test_out_of_memory_and_nothing_else_says_which_knob_to_turn(monkeypatch, said, error, shown):
    def fails(*_):
        raise RuntimeError(said)

    monkeypatch.setattr(loop._Chunk, "take_steps", fails)
    with pytest.raises(error, match=f"^{shown}"):
        train_members([config(lr=0.1), config(lr=0.2)], digits())


def settings():
    """What training sets: deterministic algorithms, denormals to zero, garbage seldom collected."""
    flushed = (torch.full((1,), 1e-38) / 100).item() == 0
    return torch.are_deterministic_algorithms_enabled(), flushed, gc.get_threshold()[0] >= 50_000


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("flushed_before", [False, True])
def test_settings_hold_while_training_and_are_then_as_before(flushed_before, fails):
    seen = []

    def look(epoch, members):
        seen.append(settings())
        if fails:
            raise KeyboardInterrupt

    torch.set_flush_denormal(flushed_before)
    try:
        before = settings()
        assert before == (False, flushed_before, False)
        with pytest.raises(KeyboardInterrupt) if fails else nullcontext():
            train_members([config(epochs=1)], digits(), deterministic=True, on_epoch=look)
        assert seen == [(True, True, True)]
        assert settings() == before
    finally:
        torch.set_flush_denormal(False)


@contextmanager
def double_precision():
    torch.set_default_dtype(torch.float64)
    try:
        yield
        assert torch.get_default_dtype() == torch.float64  # as the caller had it
    finally:
        torch.set_default_dtype(torch.float32)


MODES = {"double": double_precision, "inference": torch.inference_mode}
MODES |= {"autocast": lambda: torch.autocast("cpu", torch.bfloat16)}


@pytest.mark.parametrize("mode", MODES)
def test_no_mode_of_the_caller_changes_a_training(mode):
    (plain,), _ = train_members([config(epochs=1)], digits())
    with MODES[mode]():
        (other,), _ = train_members([config(epochs=1)], digits())
    assert other["nc1"] == plain["nc1"]
    assert other["nc1_init"] == plain["nc1_init"]


def test_deterministic_algorithms_warn_again_where_they_did():
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        train_members([config(epochs=1)], digits(), deterministic=True)
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


# ------------------------------------------------------------ the exact law of NC0

LAW = [
    ("sgd", 0.0679, 0.9, 0.05),
    ("sgd", 0.0679, 0.98, 0.5),  # underdamped: the row sum swings through zero
    ("sgd", 0.01, 0.0, 0.5),
    ("sgd", 0.001, 0.5, 5e-5),
    ("sgd", 0.01, 0.9, 0.0),
    ("sgdw", 0.0679, 0.9, 0.5),
    ("sgdw", 0.01, 0.0, 0.05),
]


def law_configs(precision):
    shared = dict(epochs=20, width=0.25, precision=precision)  # of any width: the law sees no data
    return [
        config(optimizer=o, lr=lr, momentum=m, weight_decay=wd, **shared) for o, lr, m, wd in LAW
    ]


def predicted(c, epoch):
    """|u_t| / |u_0| of a member after an epoch."""
    return abs(
        theory.row_sum_trajectory(
            epoch * STEPS, c.lr, c.momentum, c.weight_decay, STEPS, c.epochs, c.optimizer == "sgdw"
        )
    )


@pytest.mark.parametrize(
    ("precision", "data_precision", "tolerance", "floor"),
    [
        ("float32", "float32", 1e-2, 1e-2),  # what is wanted; 1e-5 was seen
        ("bfloat16", "float32", 1e-2, 1e-2),  # the last layer is float32 here, too
        ("float64", "float64", 1e-9, 1e-6),
    ],
)
def test_nc0_follows_the_exact_law(precision, data_precision, tolerance, floor):
    configs = law_configs(precision)
    dataset = digits(precision=data_precision)
    _, history = train_members(configs, dataset, log_epochs=range(0, 21, 4))
    checked = 0
    for member, c in enumerate(configs):
        rows = by_member(history, member)
        assert [row["epoch"] for row in rows] == list(range(0, 21, 4))
        for row in rows:
            expected = rows[0]["nc0"] * predicted(c, row["epoch"])
            if expected > floor:
                assert row["nc0"] == pytest.approx(expected, rel=tolerance)
                checked += 1
    assert checked > 0.9 * len(history)


def test_adam_does_not_follow_the_law():
    """The check above can fail: Adam's update does not commute with the sum over classes."""
    c = config(optimizer="adam", lr=0.005, weight_decay=0.05, epochs=20)
    (record,), _ = train_members([c], digits())
    ratio = theory.row_sum_ratio(c.lr, c.momentum, c.weight_decay, STEPS, c.epochs)
    assert abs(record["nc0"] / record["nc0_init"] / ratio - 1) > 0.1


# ------------------------------------------------------------ the records


def test_a_run_record_holds_the_config_and_the_metrics_at_both_ends():
    configs = [config(lr=0.1), config(lr=0.01, optimizer="sgdw")]
    runs, history = train_members(configs, digits())
    for record in (*runs, *history):  # plain numbers, which the store can write
        assert {type(v) for v in record.values()} <= {int, float, str, bool, type(None)}
    for member, (c, record) in enumerate(zip(configs, runs, strict=True)):
        rows = by_member(history, member)
        fields = dataclasses.asdict(c)
        assert {k: record[k] for k in fields} == fields
        assert record["status"] == "ok"
        assert record["diverged_epoch"] is None
        assert {k: record[k] for k in MEASURED} == {k: rows[-1][k] for k in MEASURED}
        assert {k: record[f"{k}_init"] for k in metrics.KEYS} == {
            k: rows[0][k] for k in metrics.KEYS
        }
        assert record["wall_time_s"] > 0
        known = {*fields, "status", "diverged_epoch", "wall_time_s", *MEASURED}
        assert set(record) == known | {f"{k}_init" for k in metrics.KEYS}


def test_metric_keys_are_those_of_the_public_call():
    h, y = torch.eye(4), torch.tensor([0, 0, 1, 1])
    values = metrics.nc_metrics(h, y, torch.eye(2, 4), None, h, y)
    assert set(metrics.KEYS) == set(values)
    assert {"train_acc", "test_acc", "w_sv_min", "w_sv_mean", "m_sv_min", "m_sv_mean"} < set(
        MEASURED
    )


@pytest.mark.parametrize(
    ("asked", "logged"), [(None, [0, 1, 2, 4, 5, 6]), ([], [0, 6]), ([3], [0, 3, 6]), ([6], [0, 6])]
)
def test_history_has_epoch_0_the_asked_and_the_last(asked, logged):
    _, history = train_members([config(epochs=6)], digits(), log_epochs=asked)
    assert [row["epoch"] for row in history] == logged
    assert set(history[0]) == {"member", "epoch", *MEASURED}


def test_measuring_does_not_disturb_training():
    (often,), _ = train_members([config(epochs=6)], digits(), log_epochs=range(7))
    (never,), _ = train_members([config(epochs=6)], digits(), log_epochs=[])
    assert without_time(often) == without_time(never)


def test_on_epoch_and_on_measure_are_called_after_each_epoch_and_measurement():
    epochs, measured = [], []
    _, history = train_members(
        [config(lr=lr) for lr in (0.1, 0.01)],
        digits(),
        log_epochs=[1],
        on_epoch=lambda *epoch: epochs.append(epoch),
        on_measure=measured.append,
    )
    assert epochs == [(1, 2), (2, 2), (3, 2)]
    assert [[row["epoch"] for row in rows] for rows in measured] == [[0, 0], [1, 1], [3, 3]]
    assert [row for rows in measured for row in rows] == history


def test_what_on_epoch_raises_ends_the_training():
    calls = []

    def stop(epoch, _):
        calls.append(epoch)
        if epoch == 2:
            raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        train_members([config()], digits(), on_epoch=stop)
    assert calls == [1, 2]


def test_threads_of_one_process_train_one_after_the_other():
    configs = [RunConfig("adamw", seed=seed, epochs=3, train_size=SAMPLES) for seed in (0, 1)]

    def trained(config):
        (run,), _ = train_members([config], digits(), log_epochs=[])
        return {name: value for name, value in run.items() if name != "wall_time_s"}

    alone = [trained(config) for config in configs]
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(trained, configs * 3)) == alone * 3


@pytest.mark.parametrize("timed", [lambda c, d: step_seconds([c], d), prepare_step])
def test_a_step_is_timed_and_prepared_while_nothing_trains(timed, monkeypatch):
    free = []  # whether another thread could train during the step
    monkeypatch.setattr(loop, "repays_compiling", lambda *_: True)

    def look():
        free.append(ONE_AT_A_TIME.acquire(blocking=False))
        if free[-1]:
            ONE_AT_A_TIME.release()

    def step(chunk):
        with ThreadPoolExecutor(1) as pool:
            pool.submit(look).result()

    monkeypatch.setattr(loop._Chunk, "take_one_step", step)
    timed(config(), digits())
    assert set(free) == {False}


def test_step_seconds_is_a_time_and_leaves_the_threads_alone():
    threads = torch.get_num_threads()
    seconds = step_seconds([config()], digits())
    assert 0 < seconds < 10
    assert torch.get_num_threads() == threads


# ------------------------------------------------------------ divergence


def test_a_diverged_member_is_frozen_and_recorded():
    good = config(lr=0.05)
    runs, history = train_members([good, config(**LOST)], digits(), log_epochs=range(4))
    assert [r["status"] for r in runs] == ["ok", "diverged"]
    lost = runs[1]
    assert lost["diverged_epoch"] == 1
    assert runs[0]["diverged_epoch"] is None
    assert all(math.isnan(lost[k]) for k in MEASURED)
    assert all(math.isfinite(lost[f"{k}_init"]) for k in metrics.KEYS)
    assert {k: lost[k] for k in LOST} == LOST  # its own numbers are kept in the record
    assert [row["epoch"] for row in by_member(history, 0)] == [0, 1, 2, 3]
    assert [row["epoch"] for row in by_member(history, 1)] == [0]


def test_a_member_may_diverge_later():
    """Decay by a factor -299 a step, then -29: after 6 steps the variance of two layers' product,
    1e47, is no float32."""
    c = config(optimizer="sgdw", lr=0.1, momentum=0.0, weight_decay=3000, epochs=3)
    (record,), history = train_members([c], digits(), log_epochs=range(4))
    assert record["status"] == "diverged"
    assert record["diverged_epoch"] == 2
    assert [row["epoch"] for row in history] == [0, 1]


@pytest.mark.parametrize(("optimizer", "place"), [("sgdw", 0), ("adamw", 1), ("signumw", 2)])
def test_a_diverged_member_touches_no_other(optimizer, place):
    """Bit for bit: with a lost member, and with a harmless one in its place."""
    good = [config(optimizer=optimizer, lr=0.001, momentum=m) for m in (0.0, 0.9)]
    harmless = config(optimizer=optimizer, lr=0.002)
    lost = config(optimizer=optimizer, lr=1e37, weight_decay=100.0)
    records = {}
    for third in (harmless, lost):
        chunk = [*good[:place], third, *good[place:]]
        runs, history = train_members(chunk, digits())
        assert runs[place]["status"] == ("diverged" if third is lost else "ok")
        kept = [i for i in range(3) if i != place]
        rows = [row for i in kept for row in by_member(history, i)]
        records[third] = [without_time(runs[i]) for i in kept], rows
    assert records[harmless] == records[lost]


def test_a_member_with_finite_weights_and_infinite_features_touches_no_other():
    """Weights of 1e20 are float32 numbers, their products are not."""
    good = [config(optimizer="signum", lr=0.001, momentum=m) for m in (0.0, 0.9)]
    runs, history = train_members([good[0], config(optimizer="signum", lr=1e20)], digits())
    _, harmless = train_members(good, digits())
    assert by_member(history, 0) == by_member(harmless, 0)
    # Of a NaN gradient torch.sign makes 0: Signum's weights then stay where they are.
    assert [run["status"] for run in runs] == ["ok", "diverged"]
    assert math.isnan(runs[1]["train_loss"])


def test_a_whole_chunk_may_diverge():
    runs, history = train_members([config(**LOST), config(**LOST | {"lr": 1e35})], digits())
    assert [r["status"] for r in runs] == ["diverged", "diverged"]
    assert [row["epoch"] for row in history] == [0, 0]


# ------------------------------------------------------------ the schedule


def test_drops_are_exact_thirds_rounded_down():
    """The fractions 1/3 and 2/3 are rounded; the epochs of the drops must not be. (The plain loops
    above have torch's own schedule.)"""
    for epochs in range(1, 2000):
        first, second = epochs // 3, 2 * epochs // 3
        for epoch in {first - 1, first, second - 1, second} & set(range(epochs)):
            drops = (epoch >= first) + (epoch >= second)
            assert learning_rate_factor(epoch, epochs) == pytest.approx(0.1**drops, rel=1e-12)


@pytest.mark.parametrize("epochs", [1, 2, 3, 10, 99, 200, 1000])
def test_default_log_epochs_begin_end_and_see_the_drops(epochs):
    logged = default_log_epochs(epochs)
    assert {0, epochs // 3, 2 * epochs // 3, epochs} <= set(logged)
    assert list(logged) == sorted(set(logged))
    assert (logged[0], logged[-1]) == (0, epochs)
    if epochs == 200:  # the paper's
        assert logged == (0, 1, 2, 5, 10, 20, 50, 66, 100, 133, 200)


# ------------------------------------------------------------ bad input

AS_UFM = {"dataset": "ufm", "model": "ufm"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": "mnits"}, "unknown dataset 'mnits'; valid: digits, gaussians, "),
        ({"dataset": None}, "unknown dataset None; valid: digits"),
        ({"dataset": "imagenet"}, "unknown dataset 'imagenet'; .*, folder:PATH, imagenet:PATH"),
        ({"dataset": "imagenet:"}, "imagenet: lacks the folder: write imagenet:PATH"),
        ({"dataset": "imagenet:nowhere"}, "imagenet:nowhere: there is no folder 'nowhere'"),
        ({"model": "resnet"}, "unknown model 'resnet'; valid: mlp"),
        ({"dataset": "ufm"}, "dataset 'ufm' and model .* got dataset 'ufm' and model 'mlp'"),
        ({"model": "ufm"}, "dataset 'ufm' and model .* got dataset 'digits' and model 'ufm'"),
        ({"optimizer": "adma"}, "unknown optimizer 'adma'; valid: sgd, sgdw, adam, adamw, signum"),
        ({"lr": 0}, "lr must be a finite number > 0, got 0"),
        ({"lr": math.inf}, "lr must be a finite number > 0, got inf"),
        ({"lr": "1e-3"}, "lr must be a finite number > 0, got '1e-3'"),
        ({"momentum": 1.0}, r"momentum must be a number in \[0, 1\), got 1.0"),
        ({"weight_decay": -1e-4}, "weight_decay must be a finite number >= 0, got -0.0001"),
        ({"weight_decay": math.nan}, "weight_decay must be a finite number >= 0, got nan"),
        ({"coupled_share": 0.5}, "sgd has coupled_share 1.0, got 0.5"),
        ({"optimizer": "adam_mixed"}, r"adam_mixed needs a coupled_share in \[0, 1\], got None"),
        ({"coupled_share": 1.5}, r"coupled_share must be a number in \[0, 1\], or None, got 1.5"),
        ({"seed": -1}, "seed must be a whole number of at least 0, got -1"),
        ({"seed": 0.5}, "seed must be a whole number of at least 0, got 0.5"),
        ({"epochs": 0}, "epochs must be a whole number of at least 1, got 0"),
        ({"batch_size": 1}, "batch_size must be a whole number of at least 2, got 1"),
        ({"batch_size": "128"}, "batch_size must be a whole number of at least 2, got '128'"),
        ({"train_size": 0}, "train_size must be a whole number of at least 1, got 0"),
        ({"width": 0.001}, "width must be a finite number of at least 0.015625, got 0.001"),
        ({"width": "1"}, "width must be a .*number .*, got '1'"),
        ({"width": math.inf}, "width must be a .*number .*, got inf"),
        ({"lr": 10**400}, "lr must be a finite number > 0, got inf"),  # that no float holds
        ({"depth": 0}, "depth must be a whole number of at least 1, got 0"),
        ({"depth": 10**8}, "depth must be at most 1000, got 100000000"),
        ({"clip": 0}, "clip must be a finite number > 0, or None, got 0.0"),
        ({"schedule": "linear"}, "unknown schedule 'linear'; valid: step, cosine, constant"),
        ({"augment": "often"}, "augment must be true or false, got 'often'"),
        ({"precision": "float16"}, "unknown precision 'float16'; valid: float32, bfloat16, float6"),
        ({"head_lr": 0.1}, "head_lr 0.1 needs a head_optimizer"),
        ({"head_optimizer": "sgd", "head_lr": -1.0}, "head_lr must be a finite number > 0"),
        ({"head_optimizer": "adamx"}, "unknown head_optimizer 'adamx'; valid: sgd"),
        ({"head_optimizer": "adam_mixed"}, "head_optimizer cannot be mixed, got 'adam_mixed'"),
        ({"vector_lr": 0.1}, "vector_lr 0.1 is not for sgd; valid for: muon, muonw"),
        ({"update_precision": "float32"}, "update_precision 'float32' is not for sgd"),
        ({"optimizer": "muon"} | AS_UFM, "optimizer 'muon' is not for the model 'ufm'"),
        ({"optimizer": "muon", "update_precision": "int8"}, "unknown update_precision 'int8'"),
    ],
)
def test_a_bad_config_is_refused_by_value(changes, message):
    with pytest.raises(ValueError, match=f"^{message}") as refused:
        RunConfig(**changes)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (dict(lr=1), dict(lr=1.0)),
        (dict(lr=np.float64(0.5)), dict(lr=0.5)),
        (dict(weight_decay=0, momentum=0), dict(weight_decay=-0.0, momentum=0.0)),
        (dict(width=Fraction(1, 8)), dict(width=0.125)),
        (dict(clip=1), dict(clip=np.float32(1))),
        (dict(seed=np.int64(3), depth=np.int32(2)), dict(seed=3, depth=2)),
        (dict(augment=np.bool_(False), coupled_share=1), dict()),
    ],
)
def test_equal_configs_are_one_run(one, other):
    one, other = RunConfig(**one), RunConfig(**other)
    assert repr(one) == repr(other)  # types, too
    assert store.run_id(one.identity()) == store.run_id(other.identity())


@pytest.mark.parametrize("field", ["seed", "epochs", "batch_size", "train_size"])
def test_whole_numbers_are_exact_up_to_64_bits(field):
    assert getattr(RunConfig(**{field: 2**63 - 1}), field) == 2**63 - 1
    with pytest.raises(ValueError, match=rf"^{field} must be at most {2**63 - 1}, got {2**63}$"):
        RunConfig(**{field: 2**63})


# ------------------------------------------------------------ checkpoints

NO_CHECKPOINTS = {"empty": b"", "foreign": b"nothing", "short": b"x" * 31}


@pytest.mark.parametrize("content", NO_CHECKPOINTS.values(), ids=NO_CHECKPOINTS)
def test_what_is_no_checkpoint_is_set_aside(tmp_path, content):
    path = tmp_path / "run"
    path.write_bytes(content)
    with noticed(f"^{path} is damaged: set aside as .*aside, the run"):
        assert checkpoint.load_checkpoint(path) is None
    assert not path.exists()


def test_a_checkpoint_that_cannot_be_read_now_stays_where_it_is(tmp_path, monkeypatch):
    path = tmp_path / "run"
    checkpoint.save_checkpoint(path, {"epoch": 1})

    def refuse(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as disk:
        disk.setattr(checkpoint.Path, "read_bytes", refuse)
        with pytest.raises(OSError, match="Input/output error"):
            checkpoint.load_checkpoint(path)
    assert checkpoint.load_checkpoint(path) == {"epoch": 1}


def test_a_checkpoint_is_written_where_folders_cannot_be_synced(tmp_path, monkeypatch):
    real = os.fsync

    def fsync(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    path = tmp_path / "run"
    checkpoint.save_checkpoint(path, {"epoch": 1, "history": []})
    assert checkpoint.load_checkpoint(path) == {"epoch": 1, "history": []}


def test_a_config_is_a_value():
    assert RunConfig(lr=1, momentum=0) == RunConfig(lr=1.0, momentum=0.0)
    assert len({RunConfig(), RunConfig(seed=1), RunConfig()}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        RunConfig().lr = 0.5


@pytest.mark.parametrize("name", ["sgd", "sgdw", "adam", "adamw", "signum", "signumw"])
def test_the_share_of_coupled_decay_is_filled_in(name):
    assert RunConfig(optimizer=name).coupled_share == (0 if name.endswith("w") else 1)


@pytest.mark.parametrize(
    "other",
    [
        *[{"seed": 1}, {"optimizer": "adam"}, {"epochs": 4}, {"batch_size": 50}],
        *[{"train_size": None}, {"width": 0.5}, {"precision": "bfloat16"}],
    ],
)
def test_configs_that_cannot_share_a_chunk_are_refused(other):
    with pytest.raises(ValueError, match=r"^cannot train together: RunConfig\(.* and RunConfig\("):
        train_members([config(), config(**other)], digits())


@pytest.mark.parametrize(
    ("configs", "options", "message"),
    [
        ([], {}, "no members to train$"),
        *[
            ([{}], {"log_epochs": [0, e]}, rf"log_epochs must lie in 0\.\.3, got \[{e}\]$")
            for e in (-1, 4, 200)
        ],
        # Batch norm has no variance of one sample: batches of 100 of 301 leave one over.
        ([{"train_size": SAMPLES + 1}], {}, "batch_size 100 leaves a last batch of one of 301"),
    ],
)
def test_what_cannot_train_is_refused_in_one_line_before_any_work(configs, options, message):
    called, size = [], SAMPLES + 1 if configs and configs[0] else SAMPLES
    with pytest.raises(ValueError, match=f"^{message}") as refused:
        train_members(
            [config(**c) for c in configs],
            digits(size),
            on_epoch=lambda *epoch: called.append(epoch),
            **options,
        )
    assert "\n" not in str(refused.value)
    assert not called


# ------------------------------------------------------------ memory


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone gives memory back so")
def test_freed_memory_is_kept_for_the_next_step():
    """Large blocks, taken and freed again and again, cost page faults at first alone."""
    block, pages = 64 * 2**20 // 4, 64 * 2**20 // resource.getpagesize()

    def faults():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(10):
            torch.empty(block).fill_(1.0)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    with heap_kept():
        faults()
        assert faults() < pages  # without it: ten times as many
