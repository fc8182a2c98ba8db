"""Images that do not fit memory, on a tree of real JPEG files: read, trained on, interrupted."""

import dataclasses
import math
import os
import signal
import subprocess
import sys
import tempfile

import numpy as np
import psutil
import pytest
import torch
import torchvision.datasets
from conftest import noticed
from PIL import Image
from torchvision.transforms import v2

from ncbook import data, metrics, store, sweep, theory
from ncbook.train import (
    RunConfig,
    stream_step_seconds,
    streaming,
    train_members,
    train_streaming,
)
from ncbook.train.measure import MEASURED

CLASSES, TRAIN, VAL = 4, 12, 5  # images a class
SIDE = 32
LOST = dict(optimizer="sgd", lr=1e30, weight_decay=0.5)  # overflows at once


def pattern(k, rng, height=40, width=52):
    """Waves of a class's own length, colour by colour, under noise."""
    x = np.arange(width) / width
    waves = [0.5 + 0.5 * np.sin(2 * np.pi * (k + 1) * x + k * c) for c in range(3)]
    noise = rng.normal(0, 25, (height, width, 3))
    return np.clip(180 * np.stack(waves, -1) + noise, 0, 255).astype(np.uint8)


def write_tree(root, rng, train=TRAIN):
    for split, count in (("train", train), ("val", VAL)):
        for k in range(CLASSES):
            folder = root / split / f"n{k:08d}"
            folder.mkdir(parents=True)
            for i in range(count):
                image = Image.fromarray(pattern(k, rng))
                image.save(folder / f"n{k:08d}_{i}.JPEG", quality=95)
    return root


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("imagenet"), np.random.default_rng(20))


@pytest.fixture
def own_tree(tmp_path, rng):
    """One that a test may damage."""
    return write_tree(tmp_path / "tree", rng)


def stream(tree, **options):
    return data.load(f"imagenet:{tree}", **({"image_size": SIDE} | options))


def config(tree, **changes):
    small = dict(model="resnet9", width=1 / 16, batch_size=16, epochs=3, lr=0.01)
    return RunConfig(dataset=f"imagenet:{tree}", **(small | changes))


def train(tree, loaders=0, options=None, **changes):
    """Records and history of a small run."""
    c = config(tree, **changes)
    runs, history = train_streaming(c, stream(tree), loaders=loaders, **(options or {}))
    return runs[0], history


def numbers(record):
    return {k: v for k, v in record.items() if k != "wall_time_s"}


def check_same(rows, others, rel):
    """Equal keys in equal order and equal values; numbers to ``rel``, and to 1e-12 those that are
    zero but for rounding, as the smallest singular value of M is."""
    for row, other in zip(rows, others, strict=True):
        assert list(row) == list(other)
        for key in row.keys() - {"wall_time_s"}:
            wanted = other[key]
            if isinstance(wanted, float):
                wanted = pytest.approx(wanted, rel=rel, abs=1e-12)
            assert row[key] == wanted, key


# ------------------------------------------------------------ reading


def test_the_listing_is_that_of_an_image_folder(tree):
    streamed = stream(tree)
    for split, folder in (("train", "train"), ("test", "val")):
        reference = torchvision.datasets.ImageFolder(tree / folder)
        paths = [streamed.path(split, i) for i in range(len(reference))]
        assert [str(path) for path in paths] == [path for path, _ in reference.samples]
        assert getattr(streamed, f"{split}_y").tolist() == reference.targets
    assert list(streamed.class_names) == reference.classes
    assert streamed.num_classes == CLASSES
    assert streamed.input_shape == (3, SIDE, SIDE)
    assert stream(tree, image_size=None).input_shape == (3, 224, 224)


def test_a_listing_opens_no_image(own_tree):
    for path in own_tree.rglob("*.JPEG"):
        path.write_bytes(b"")
    assert len(stream(own_tree).train_y) == CLASSES * TRAIN


@pytest.mark.parametrize("size", [32, 224])
def test_an_image_is_resized_and_cropped_as_torchvision_does(tree, size):
    streamed = stream(tree, image_size=size)
    resize = v2.Compose([v2.Resize(round(size * 256 / 224)), v2.CenterCrop(size)])
    normalise = v2.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
    for index in (0, 17):
        with Image.open(streamed.path("train", index)) as image:
            wanted = v2.functional.pil_to_tensor(resize(image.convert("RGB")))
        pixels = streamed.image("train", index)
        assert torch.equal(pixels, wanted)
        inputs = streamed.inputs(pixels[None])[0]
        # (255 x - 255 mean) / (255 std) against (x - mean) / std, in float32
        assert torch.allclose(inputs, normalise(wanted / 255), atol=1e-5)


def test_a_crop_depends_on_seed_epoch_and_image_alone(tree):
    streamed = stream(tree)
    before = torch.get_rng_state()
    crops = [streamed.image("train", 5, (1, epoch, 5)) for epoch in range(8)]
    assert torch.equal(torch.get_rng_state(), before)
    assert len({bytes(crop.numpy()) for crop in crops}) == 8
    torch.rand(3)
    assert torch.equal(streamed.image("train", 5, (1, 3, 5)), crops[3])
    assert not torch.equal(streamed.image("train", 5, (2, 3, 5)), crops[3])


def test_crops_are_random_in_place_and_size_and_some_are_mirrored(tmp_path, rng):
    """Of an image that is red from left to right and green from top to bottom."""
    ramp = np.linspace(0, 255, 64).astype(np.uint8)
    image = np.zeros((64, 64, 3), np.uint8)
    image[..., 0], image[..., 1] = ramp, ramp[:, None]
    tree = write_tree(tmp_path / "tree", rng, train=1)
    path = next((tree / "train").rglob("*.JPEG"))
    Image.fromarray(image).save(path, format="PNG")
    streamed = stream(tree)
    crops = [streamed.image("train", 0, (0, epoch)).float() for epoch in range(64)]
    rises = [(crop[0, :, -1] - crop[0, :, 0]).mean().item() for crop in crops]
    mirrored = sum(rise < 0 for rise in rises)
    assert 16 < mirrored < 48  # of 64; at one half, outside with probability 1e-4
    assert min(map(abs, rises)) < 100 < 200 < max(map(abs, rises))  # narrow and wide ones
    assert all(crop[1, -1].mean() > crop[1, 0].mean() for crop in crops)  # never upside down


@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "RGBA"])
def test_every_image_has_three_channels(own_tree, mode):
    path = stream(own_tree).path("train", 0)
    Image.new("RGB", (50, 40), (200, 30, 90)).convert(mode).save(
        path, format="JPEG" if mode in ("L", "CMYK") else "PNG"
    )
    pixels = stream(own_tree).image("train", 0)
    assert pixels.shape == (3, SIDE, SIDE)
    assert pixels.dtype == torch.uint8


def test_a_subset_is_balanced_and_the_seeds(tree):
    some = [stream(tree, train_size=10, seed=seed) for seed in (0, 0, 1)]
    counts = torch.bincount(some[0].train_y).tolist()
    assert sorted(counts) == [2, 2, 3, 3]
    files = [{s.path("train", i) for i in range(10)} for s in some]
    assert files[0] == files[1] != files[2]
    for s in some:
        for i, label in enumerate(s.train_y.tolist()):
            assert s.path("train", i).parent.name == s.class_names[label]
        assert len(s.test_y) == CLASSES * VAL


def test_a_subset_is_that_of_the_folder_loader(tree):
    """So that a run on the held images is one on the streamed ones."""
    streamed = stream(tree, train_size=10, seed=3)
    held = data.load(f"folder:{tree}", train_size=10, seed=3)
    assert torch.equal(streamed.train_y, held.train_y)


def test_a_stream_has_the_fingerprint_of_its_run(tree):
    assert stream(tree, train_size=8, seed=1).listing == config(tree).data_listing


def remove(*parts):
    def damage(tree):
        for path in sorted((tree.joinpath(*parts)).rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        tree.joinpath(*parts).rmdir()

    return damage


def empty(*parts):
    def damage(tree):
        for path in tree.joinpath(*parts).iterdir():
            path.rename(path.with_suffix(".txt"))

    return damage


def rename_val(tree):
    """ImageNet's test images have no labels: they are not taken for val."""
    (tree / "val").rename(tree / "test")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove("val"), "wanted are images in .*/train/<class>/ and .*/val/<class>/; there is no"),
        (rename_val, "there is no val folder"),
        (remove("train"), "there is no train folder"),
        (remove("val", "n00000002"), r"train and val must hold the same classes, but: \['n0000000"),
        (empty("train", "n00000002"), "there are no images of class 'n00000002'"),
        (empty("val", "n00000001"), "there are no images of class 'n00000001'"),
    ],
)
def test_a_bad_tree_is_refused_in_one_line(own_tree, damage, message):
    damage(own_tree)
    with pytest.raises(ValueError, match=message) as refused:
        stream(own_tree)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("size", [0, 1.5, 49])
def test_a_bad_train_size_is_refused(tree, size):
    with pytest.raises(ValueError, match=f"train_size .*{size}"):
        stream(tree, train_size=size)


# ------------------------------------------------------------ training


def held(streamed):
    """The same images as tensors, for ``train_members``."""

    def pixels(split):
        return torch.stack([streamed.image(split, i) for i in range(len(streamed.files[split]))])

    mean, std = (255 * torch.tensor(v) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    return data.Dataset(
        streamed.name,
        pixels("train"),
        streamed.train_y,
        pixels("test"),
        streamed.test_y,
        streamed.class_names,
        mean,
        std,
    )


SAME = [
    dict(optimizer="sgd", weight_decay=0.05),
    dict(optimizer="adamw", lr=0.001, weight_decay=0.5, batch_size=13),
    dict(optimizer="sgd_mixed", coupled_share=0.3, weight_decay=0.05, clip=0.1, momentum=0.5),
    dict(model="vit", depth=2, width=1 / 8, optimizer="adam", lr=0.001, weight_decay=0.05, clip=1),
    dict(optimizer="muonw", lr=0.02, weight_decay=0.5, vector_lr=0.01),
    dict(optimizer="adamw", lr=0.003, weight_decay=0.5, head_optimizer="sgd", head_lr=0.01),
    dict(optimizer="adamw", lr=0.001, weight_decay=0.5, centred_head=True),
]


@pytest.mark.parametrize("changes", SAME)
def test_a_streamed_run_is_one_of_train_members(tree, changes):
    c = config(tree, precision="float64", epochs=4, **changes)
    runs, history = train_streaming(c, stream(tree), loaders=0)
    others, other_history = train_members([c], held(stream(tree)), compiled=False)
    assert [row["epoch"] for row in history] == [0, 1, 2, 4]
    assert history[-1]["nc1"] != pytest.approx(history[0]["nc1"], rel=0.1)  # it has learnt
    # Float64, summed in another order, which Adam's division by small gradients amplifies.
    check_same([*runs, *history], [*others, *other_history], rel=1e-6)


def test_a_record_holds_the_config_and_both_ends(tree, tmp_path, monkeypatch):
    """Each epoch is told, and no file of features stays."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    c, calls = config(tree), []
    options = {"loaders": 0, "on_epoch": lambda *epoch: calls.append(epoch)}
    (record,), history = train_streaming(c, stream(tree), **options)
    assert calls == [(1, 1), (2, 1), (3, 1)]
    assert not list(tmp_path.iterdir())
    assert {k: record[k] for k in dataclasses.asdict(c)} == dataclasses.asdict(c)
    assert {k: record[k] for k in MEASURED} == {k: history[-1][k] for k in MEASURED}
    assert all(record[f"{k}_init"] == history[0][k] for k in metrics.KEYS)
    assert (record["status"], record["diverged_epoch"]) == ("ok", None)
    assert record["wall_time_s"] > 0
    for row in (record, *history):
        assert {type(value) for value in row.values()} <= {int, float, str, bool, type(None)}


@pytest.mark.parametrize("precision", ["float64", "bfloat16"])
@pytest.mark.parametrize("optimizer", ["sgd", "sgdw"])
def test_nc0_obeys_the_exact_law(tree, optimizer, precision):
    """Whatever the backbone: in bfloat16 too, since the last layer stays float32."""
    c = dict(optimizer=optimizer, lr=0.05, weight_decay=0.05, precision=precision, augment=True)
    record, _ = train(tree, **c)
    decoupled = optimizer == "sgdw"
    steps = CLASSES * TRAIN // 16
    ratio = theory.row_sum_ratio(0.05, 0.9, 0.05, steps, 3, decoupled=decoupled)
    tolerance = 1e-9 if precision == "float64" else 1e-5
    assert record["nc0"] / record["nc0_init"] == pytest.approx(ratio, rel=tolerance)
    assert ratio < 0.995


def test_resnet50_trains(tree):
    record, history = train(tree, model="resnet50", width=1 / 16, epochs=1, batch_size=24)
    assert record["status"] == "ok"
    assert len(history) == 2
    assert history[0]["train_loss"] != history[1]["train_loss"]


def test_augmented_training_differs_and_measures_the_centre_crop(tree):
    """Features never come through the augmentation: before the first step all is equal."""
    plain, augmented = (train(tree, augment=augment)[1] for augment in (False, True))
    assert plain[0] == augmented[0]
    assert plain[1]["nc1"] != augmented[1]["nc1"]


def test_loader_processes_and_measuring_change_nothing(tree):
    alone, spread = (train(tree, loaders=n, augment=True) for n in (0, 2))
    assert numbers(alone[0]) == numbers(spread[0])
    assert alone[1] == spread[1]
    seldom, _ = train(tree, options={"log_epochs": []}, augment=True)
    assert numbers(seldom) == numbers(alone[0])


def test_step_seconds_is_a_time(tree):
    assert 0 < stream_step_seconds(config(tree), stream(tree)) < 10


# ------------------------------------------------------------ divergence


INFINITE_FEATURES = dict(optimizer="signum", lr=1e20)  # of weights that are finite


@pytest.mark.parametrize(("every", "lost"), [(1, LOST), (100, LOST), (100, INFINITE_FEATURES)])
def test_a_lost_run_ends(tree, every, lost, monkeypatch):
    monkeypatch.setattr(streaming, "FINITE_EVERY", every)
    record, history = train(tree, **lost)
    (other,), _ = train_members([config(tree, **lost)], held(stream(tree)))
    assert [record["status"], record["diverged_epoch"]] == ["diverged", 1]
    assert [row["epoch"] for row in history] == [0]
    assert all(math.isnan(record[key]) for key in MEASURED)
    assert list(record) == list(other)
    for key in metrics.KEYS:
        # float32 features of two programs
        assert record[f"{key}_init"] == pytest.approx(other[f"{key}_init"], rel=1e-3)


# ------------------------------------------------------------ interruption


RUN = """
import os, pathlib, signal, sys
from ncbook import data
from ncbook.train import RunConfig, train_streaming

tree, checkpoint, moment = sys.argv[1:]
real, writes = os.replace, []

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def replace(*paths):
    writes.append(paths)
    if moment == f"write {len(writes)}":
        die()
    real(*paths)
    if moment == f"written {len(writes)}":
        die()

def listen(epoch, members):
    if moment == f"epoch {epoch}":
        die()

os.replace = replace
config = RunConfig(
    dataset=f"imagenet:{tree}", model="resnet9", width=1 / 16, batch_size=16, epochs=4, lr=0.001,
    optimizer="adam", augment=True, schedule="cosine",
)
dataset = data.load(config.dataset, image_size=32)
train_streaming(
    config, dataset, log_epochs=[1, 3], checkpoint=pathlib.Path(checkpoint), loaders=0,
    on_epoch=listen,
)
"""
LONG = dict(epochs=4, lr=0.001, optimizer="adam", augment=True, schedule="cosine")


def long_run(tree, checkpoint=None, **options):
    options = {"log_epochs": [1, 3], "checkpoint": checkpoint} | options
    return train(tree, options=options, **LONG)


@pytest.fixture(scope="module")
def uninterrupted(tree):
    return long_run(tree)


@pytest.mark.parametrize(
    ("moment", "first_trained"),
    [pytest.param("epoch 3", 3, marks=pytest.mark.slow), ("write 2", 1), ("written 2", 2)],
)
def test_a_killed_run_goes_on_as_if_nothing_had_happened(
    tree, uninterrupted, tmp_path, moment, first_trained
):
    """Bit for bit, killed between epochs and before and after a checkpoint appears."""
    command = [sys.executable, "-c", RUN, str(tree), str(tmp_path / "run"), moment]
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    killed = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr

    trained = []
    original = streaming._Run._train_epoch
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            streaming._Run, "_train_epoch", lambda run: (trained.append(run.epoch), original(run))
        )
        record, history = long_run(tree, tmp_path / "run")
    assert trained == list(range(first_trained, 4))
    whole, whole_history = uninterrupted
    assert numbers(record) == numbers(whole)
    assert history == whole_history
    assert [row["epoch"] for row in history] == [0, 1, 3, 4]


def test_a_checkpoint_of_a_finished_run_is_its_result(own_tree, tmp_path):
    c, dataset = config(own_tree, epochs=1), stream(own_tree)
    options = dict(checkpoint=tmp_path / "folder" / "run", loaders=0)
    first = train_streaming(c, dataset, **options)
    remove("train")(own_tree)  # there is nothing left to train on
    calls = []
    again = train_streaming(c, dataset, on_epoch=lambda *e: calls.append(e), **options)
    assert again == first
    assert calls == [(1, 1)]
    assert list(options["checkpoint"].parent.iterdir()) == [options["checkpoint"]]


def test_a_readers_own_class_goes_on_from_its_checkpoint(tree, tmp_path):
    """torch's Adam, named as a class: it is our adam, too."""
    c = dict(optimizer="torch.optim:Adam", lr=0.001, epochs=2)
    whole, _ = train(tree, **c)

    def stop(epoch, members):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tree, options={"checkpoint": tmp_path / "run", "on_epoch": stop}, **c)
    resumed, _ = train(tree, options={"checkpoint": tmp_path / "run"}, **c)
    assert numbers(resumed) == numbers(whole)
    ours, _ = train(tree, **c | {"optimizer": "adam"})
    assert whole["nc0"] == pytest.approx(ours["nc0"], rel=1e-4)
    lost, _ = train(tree, **c | {"lr": 1e30})
    assert lost["status"] == "diverged"


def test_a_damaged_checkpoint_is_set_aside(tree, tmp_path):
    """By one flipped bit; other damage is in test_train.py."""
    clean, _ = train(tree, options={"checkpoint": tmp_path / "run"}, epochs=1)
    path = tmp_path / "run"
    spoilt = bytearray(path.read_bytes())
    spoilt[len(spoilt) // 2] ^= 1
    path.write_bytes(spoilt)
    with noticed(r"is damaged: set aside as .*, the run starts from its first epoch"):
        record, _ = train(tree, options={"checkpoint": tmp_path / "run"}, epochs=1)
    assert numbers(record) == numbers(clean)
    assert path.with_name(f"{path.name}.aside").read_bytes() == spoilt
    assert path.read_bytes() != spoilt


def test_a_run_on_other_images_has_another_name(own_tree):
    before, path = sweep.run_id(config(own_tree)), stream(own_tree).path("train", 3)
    path.rename(own_tree / "aside")
    assert sweep.run_id(config(own_tree)) != before
    (own_tree / "aside").rename(path)
    assert sweep.run_id(config(own_tree)) == before


def test_a_folder_that_changed_since_the_run_was_asked_for_is_named(own_tree):
    c = config(own_tree)
    stream(own_tree).path("train", 3).unlink()
    with pytest.raises(ValueError, match=f"^imagenet:{own_tree} has changed: "):
        train_streaming(c, stream(own_tree), loaders=0)


def test_a_folder_that_changes_while_it_is_trained_on_is_named(own_tree, tmp_path, monkeypatch):
    """By a file that is replaced by another image, which training itself cannot see."""
    real = streaming._Run._train_epoch

    def replace_and_train(run):
        path = stream(own_tree).path("train", 3)
        path.write_bytes(stream(own_tree).path("train", 20).read_bytes())
        real(run)

    monkeypatch.setattr(streaming._Run, "_train_epoch", replace_and_train)
    c = config(own_tree, epochs=1)
    with pytest.raises(ValueError, match=f"^imagenet:{own_tree} has changed: "):
        sweep.run([c], tmp_path / "results", workers=1, progress=False)
    assert store.load_runs(tmp_path / "results").empty


# ------------------------------------------------------------ bad input


def break_image(streamed, split, index):
    path = streamed.path(split, index)
    path.write_bytes(path.read_bytes()[:300])
    return path


@pytest.mark.parametrize(
    ("split", "loaders", "devices"),
    [("train", 0, 1), ("test", 1, 1), pytest.param("train", 0, 2, marks=pytest.mark.slow)],
)
def test_a_corrupt_image_is_named_in_one_line(own_tree, split, loaders, devices):
    c, dataset = config(own_tree), stream(own_tree)
    path = break_image(dataset, split, 7)
    with pytest.raises(ValueError, match="not an image that can be read") as refused:
        train_streaming(c, dataset, loaders=loaders, devices=devices)
    assert str(refused.value).startswith(f"{path}: ")
    assert "\n" not in str(refused.value)


def test_an_image_that_breaks_in_mid_training_is_named(own_tree):
    dataset = stream(own_tree)

    def damage(epoch, members):
        break_image(dataset, "train", 7)

    with pytest.raises(ValueError, match=r"n00000000_5\.JPEG: not an image that can be read"):
        train_streaming(config(own_tree), dataset, loaders=0, on_epoch=damage)


@pytest.mark.parametrize(
    ("options", "changes", "message"),
    [
        ({"devices": 0}, {}, "devices must be a whole number of at least 1, got 0"),
        ({"log_epochs": [4]}, {}, r"log_epochs must lie in 0\.\.3, got \[4\]"),
        ({"device": "cuda:1", "devices": 2}, {}, "device 'cuda:1' is one device: devices must be"),
        ({"device": "cuda:99"}, {}, "unknown device 'cuda:99'; valid here: cpu"),
        ({}, {"batch_size": 47}, "batch_size 47 leaves a last batch of one of 48 samples"),
        (
            {"devices": 2},
            {"batch_size": 15},
            "batch_size 15 leaves a last batch of 3 of 48 samples, and 2 devices need 4",
        ),
    ],
)
def test_bad_arguments_are_refused_before_any_work(tree, tmp_path, options, changes, message):
    with pytest.raises(ValueError, match=f"^{message}") as refused:
        train(tree, options={"checkpoint": tmp_path / "new" / "run"} | options, **changes)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "new").exists()


# ------------------------------------------------------------ several processes


def test_two_processes_are_one(tree, tmp_path):
    """Without batch norm, whose statistics are each process's own on a CPU."""
    c = dict(model="vit", depth=2, width=1 / 8, precision="float64", optimizer="adamw", lr=0.001)
    c |= dict(weight_decay=0.5, batch_size=13, augment=True, clip=1.0)  # shares of 7 and 6
    alone, alone_history = train(tree, **c)
    calls, heard_at = [], set()

    def listen(*epoch):
        calls.append(epoch)
        for process in psutil.Process().children(recursive=True):
            found = process.net_connections("inet")
            heard_at.update(c.laddr.ip for c in found if c.status == psutil.CONN_LISTEN)

    options = {"on_epoch": listen, "checkpoint": tmp_path / "run"}
    record, history = train(tree, options=options | {"devices": 2}, **c)
    assert calls == [(1, 1), (2, 1), (3, 1)]
    assert heard_at <= {"127.0.0.1", "::1"}  # nobody else can reach the processes
    # Float64, summed in another order.
    check_same([record, *history], [alone, *alone_history], rel=1e-9)
    resumed, _ = train(tree, options=options, **c)  # by one process
    assert resumed == record


@pytest.mark.slow
def test_two_processes_obey_the_law_with_batch_norm_too(tree):
    c = dict(lr=0.05, weight_decay=0.05, precision="float64")
    record, _ = train(tree, options={"devices": 2}, loaders=1, **c)
    ratio = theory.row_sum_ratio(0.05, 0.9, 0.05, CLASSES * TRAIN // 16, 3)
    assert record["nc0"] / record["nc0_init"] == pytest.approx(ratio, rel=1e-9)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("loaders", [0, 2])
def test_a_gpu_trains_as_a_cpu_does(tree, loaders):
    c = dict(precision="float64", optimizer="adam", lr=0.001)
    record, history = train(tree, loaders, {"device": "cuda"}, **c)
    alone, alone_history = train(tree, **c)
    check_same([record, *history], [alone, *alone_history], rel=1e-5)


# ------------------------------------------------------------ through the sweep


def test_a_sweep_streams_stores_and_leaves_no_checkpoint(tree, tmp_path):
    c = config(tree, epochs=2)
    report = sweep.run([c], tmp_path, workers=1, progress=False)
    assert report.trained == {"ok": 1}
    (row,) = store.load_runs(tmp_path).to_dict("records")
    before = torch.get_num_threads()
    torch.set_num_threads(sweep.default_workers("cpu"))  # as the sweep does for one run
    expected, history = train(tree, epochs=2)
    torch.set_num_threads(before)
    assert {k: row[k] for k in MEASURED} == {k: expected[k] for k in MEASURED}
    assert len(store.load_history(tmp_path)) == len(history)
    assert [p for p in tmp_path.rglob("*") if p.suffix == ".checkpoint"] == []
    assert sweep.run([c], tmp_path, workers=1, progress=False).stored == 1
