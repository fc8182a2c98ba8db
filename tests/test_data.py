import gzip
import hashlib
import http.server
import os
import pickle
import re
import shutil
import socket
import struct
import threading
import zlib
from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
import torchvision.datasets
from conftest import noticed
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits
from torchvision.transforms import Resize
from torchvision.transforms.v2 import functional as transforms

from ncbook import data
from ncbook.data import dataset as datasets
from ncbook.data import downloads, imagenet, images, loading
from ncbook.data.dataset import balanced_indices

# A port that nobody listens at: a network that is not there, without waiting.
NO_NETWORK = "http://127.0.0.1:9/"
REAL_DATA = data.data_dir()
PER_CLASS = 3  # images a class in the files that the tests write


# ------------------------------------------------------------ files of the true formats


def small_images(rng, per_class=PER_CLASS, shape=(28, 28), classes=range(10)):
    labels = np.repeat(np.array(classes, dtype=np.uint8), per_class)
    images = rng.integers(0, 256, (len(labels), *shape), dtype=np.uint8)
    order = rng.permutation(len(labels))
    return images[order], labels[order]


def idx_bytes(array):
    """The IDX format: two zero bytes, the type (8: uint8), the rank, the sizes, the data."""
    header = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, dtype=">i4").tobytes()
    return header + array.tobytes()


def idx_files(rng, **options):
    """Contents by file name, and the arrays they hold by split."""
    arrays = {split: small_images(rng, **options) for split in ("train", "t10k")}
    contents = {}
    for split, (pixels, labels) in arrays.items():
        contents[f"{split}-images-idx3-ubyte"] = idx_bytes(pixels)
        contents[f"{split}-labels-idx1-ubyte"] = idx_bytes(labels)
    return contents, arrays


def publish(monkeypatch, files, name="mnist"):
    """Take these files for the published ones."""
    sums = {file: md5(content) for file, content in files[0].items()}
    monkeypatch.setitem(downloads.IDX_SUMS, name, sums)
    return files


def write_files(folder, contents):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)


def cifar_files(rng):
    """The six batches as NumPy 1 pickled them in 2009, with 0 and 1 for the flags of a dtype."""
    contents, arrays = {}, {}
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        images, labels = small_images(rng, per_class=1, shape=(3 * 32 * 32,))
        arrays[name] = images, labels
        batch = pickle.dumps({"data": images, "labels": labels.tolist()}, protocol=2)
        start = batch.index(b"numpy\ndtype")
        flags = batch.index(b"\x89\x88\x87", start)  # False, True, tuple of three
        contents[name] = batch[:flags] + b"K\x00K\x01" + batch[flags + 2 :]
    names = ["airplane", "automobile", *(f"class {k}" for k in range(2, 10))]
    contents["batches.meta"] = pickle.dumps({"label_names": names}, protocol=2)
    return contents, arrays


def flip_a_bit(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def md5(content):
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


@pytest.fixture
def root(tmp_path, monkeypatch):
    """An empty data folder on a machine without a network."""
    monkeypatch.setenv("NCBOOK_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    for dataset in (torchvision.datasets.MNIST, torchvision.datasets.FashionMNIST):
        monkeypatch.setattr(dataset, "mirrors", [NO_NETWORK])
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", NO_NETWORK)
    return tmp_path / "data"


@pytest.fixture
def cifar(root, rng, monkeypatch):
    """A small CIFAR-10 in the data folder, with its own checksums in place of the real ones."""
    contents, arrays = cifar_files(rng)
    write_files(root / "cifar-10-batches-py", contents)
    sums = {name: md5(content) for name, content in contents.items()}
    dataset = torchvision.datasets.CIFAR10
    monkeypatch.setattr(dataset, "meta", dataset.meta | {"md5": sums["batches.meta"]})
    for batches in ("train_list", "test_list"):
        with_sums = [[name, sums[name]] for name, _ in getattr(dataset, batches)]
        monkeypatch.setattr(dataset, batches, with_sums)
    return arrays


@pytest.fixture
def folder(tmp_path):
    """An image folder: real digits in files of many formats and sizes, three classes."""
    bunch = load_digits()
    for split, first in (("train", 0), ("test", 4)):
        for k, name in enumerate(("zero", "one", "two")):
            (tmp_path / split / name).mkdir(parents=True)
            chosen = bunch.images[bunch.target == k][first : first + 4]
            for i, pixels in enumerate(chosen):
                image = Image.fromarray((pixels * 15).astype(np.uint8)).resize((20 + 7 * i, 30))
                suffix = (".jpg", ".png", ".JPEG", ".bmp")[i]
                image.convert("L" if i % 2 else "RGB").save(
                    tmp_path / split / name / f"{i}{suffix}"
                )
    return tmp_path


# ------------------------------------------------------------ what every data set keeps


def check_dataset(dataset, shape, dtype=torch.uint8):
    assert dataset.train_x.shape[1:] == dataset.test_x.shape[1:] == shape
    for x, y in ((dataset.train_x, dataset.train_y), (dataset.test_x, dataset.test_y)):
        assert len(x) == len(y) > 0
        assert (x.dtype, y.dtype) == (dtype, torch.int64)
        assert dataset.inputs(x[:2]).dtype == torch.float32
        assert x.is_contiguous()
        assert torch.isfinite(x).all()
        assert 0 <= y.min() <= y.max() < dataset.num_classes
    assert len(dataset.class_names) == dataset.num_classes
    assert torch.bincount(dataset.train_y, minlength=dataset.num_classes).min() > 0


def check_normalised(dataset):
    """Mean 0 and standard deviation 1 in every channel of the training set."""
    x = dataset.inputs(dataset.train_x)
    x = x if x.ndim == 4 else x[:, None]
    x = x.double().transpose(0, 1).flatten(1)
    # float32 values around 1: the mean of rounding errors is far below 1e-6.
    torch.testing.assert_close(x.mean(1), torch.zeros(len(x)).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(
        x.std(1, correction=0), torch.ones(len(x)).double(), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize(("name", "shape"), [("digits", (1, 8, 8)), ("gaussians", (784,))])
def test_embedded(name, shape):
    dataset = data.load(name)
    check_dataset(dataset, shape, torch.float32)
    check_normalised(dataset)
    assert dataset.mean is dataset.std is None
    assert dataset.inputs(dataset.train_x) is dataset.train_x
    assert (dataset.name, dataset.num_classes) == (name, 10)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_the_device(folder):
    for name, tolerance in (("digits", 1e-5), (f"folder:{folder}", 0)):
        dataset, there = (data.load(name, device=d, image_size=32) for d in ("cpu", "cuda"))
        for part in ("train_x", "train_y", "test_x", "test_y"):
            tensor = getattr(there, part)
            assert tensor.device.type == "cuda"
            # Features are resized there, with another order of summation; pixels are not.
            expected = getattr(dataset, part)
            torch.testing.assert_close(tensor.cpu(), expected, atol=tolerance, rtol=0)
        inputs = there.inputs(there.train_x)
        expected = dataset.inputs(dataset.train_x)
        torch.testing.assert_close(inputs.cpu(), expected, atol=1e-5, rtol=0)


# ------------------------------------------------------------ digits


def test_digits_are_scikit_learns_split_in_two():
    dataset, bunch = data.load("digits"), load_digits()
    assert torch.bincount(dataset.train_y).tolist() == [140] * 10
    assert len(dataset.test_y) == 397
    split = torch.cat((dataset.train_x, dataset.test_x)).flatten(1).double().numpy()
    labels = torch.cat((dataset.train_y, dataset.test_y)).numpy()
    mean, std = images.channel_statistics(datasets.digits().train_x)
    pixels = np.rint(split * std.item() + mean.item())
    ours = sorted(
        (*map(int, image), int(label)) for image, label in zip(pixels, labels, strict=True)
    )
    theirs = sorted(
        (*map(int, image), int(label))
        for image, label in zip(bunch.data, bunch.target, strict=True)
    )
    assert ours == theirs


@pytest.mark.parametrize("seed", [0, 1])
def test_digits_never_change(seed):
    # Another split, or another bit of a feature, would make stored results those of other data.
    dataset = data.load("digits", seed=seed)
    labels, features = dataset.test_y.numpy(), dataset.train_x.numpy()
    assert md5(labels.astype("<i8").tobytes()) == "e8bf17f48f65e0fdb6ba905a9238b09d"
    assert md5(features.astype("<f4").tobytes()) == "fc768d571a53d107f400922f1a9d7416"


# ------------------------------------------------------------ statistics and resizing


@pytest.mark.parametrize("count", [1, 5, 2 * images.CHUNK + 3])
def test_statistics_are_numpys(rng, count):
    x = rng.integers(0, 256, (count, 3, 4, 4), dtype=np.uint8)
    x[:, 2] //= 50
    mean, std = images.channel_statistics(torch.from_numpy(x))
    # Float64 sums, rounded to float32 once.
    np.testing.assert_allclose(mean, x.mean((0, 2, 3)), rtol=1e-7)
    np.testing.assert_allclose(std, x.std((0, 2, 3)), rtol=1e-7)


@pytest.mark.parametrize("value", [0, 1, 255])
def test_a_constant_channel_becomes_zero(value):
    x = torch.full((5, 2, 3, 3), value, dtype=torch.uint8)
    mean, std = images.channel_statistics(x)
    assert torch.equal(images.normalised(x, mean, std), torch.zeros(5, 2, 3, 3))


@pytest.mark.parametrize("size", [5, 8, 32])
def test_resizing_features_is_torchvisions(rng, size):
    x = torch.from_numpy(rng.normal(size=(images.CHUNK + 5, 3, 8, 8)).astype(np.float32))
    expected = transforms.resize(x, [size, size], antialias=True)
    # The same filter; 1e-5 for another order of summation.
    torch.testing.assert_close(images.resized(x, size), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [7, 20, 28, 31, 32, 64])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)])
def test_resizing_pixels_is_torchvisions_of_a_pil_image(rng, shape, size):
    x = torch.from_numpy(rng.integers(0, 256, (30, *shape), dtype=np.uint8))
    x[:10, :, ::3] = 255  # edges, where rounding twice shows
    x[10:20, :, :, ::4] = 0
    ours, resize = images.resized(x, size), Resize([size, size])
    assert ours.dtype == torch.uint8
    theirs = [transforms.pil_to_tensor(resize(transforms.to_pil_image(image))) for image in x]
    # PIL rounds twice, and is half a level off already after its first pass.
    assert (ours.short() - torch.stack(theirs).short()).abs().max() <= 1


def test_resizing_rounds_to_the_nearest_level(rng):
    x = torch.from_numpy(rng.integers(0, 256, (20, 3, 9, 9), dtype=np.uint8))
    exact = transforms.resize(x.double(), [13, 13], antialias=True)
    # Half a level, and float32 of values up to 255.
    assert (images.resized(x, 13) - exact).abs().max() <= 0.5 + 1e-4


# ------------------------------------------------------------ subsets


def rows(x):
    return {tuple(row) for row in x.flatten(1).tolist()}


@pytest.mark.parametrize("size", [1, 10, 100, 105, 1400])
def test_subset_is_balanced_seeded_and_of_the_training_set(size):
    full, subset = data.load("digits"), data.load("digits", train_size=size, seed=3)
    counts = torch.bincount(subset.train_y, minlength=10)
    assert (len(subset.train_x), counts.sum().item()) == (size, size)
    assert counts.max() - counts.min() <= 1
    # Normalised with the full set's statistics, so its rows are the full set's rows.
    assert rows(subset.train_x) <= rows(full.train_x)
    assert torch.equal(subset.test_x, full.test_x)
    again, other = (data.load("digits", train_size=size, seed=seed) for seed in (3, 4))
    assert torch.equal(subset.train_x, again.train_x)
    assert size == 1400 or not torch.equal(subset.train_x, other.train_x)


@settings(max_examples=50, deadline=None)
@given(
    counts=st.lists(st.integers(1, 9), min_size=2, max_size=6),
    share=st.floats(0, 1),
    seed=st.integers(0, 9),
)
def test_every_balanced_size_can_be_drawn(counts, share, seed):
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    largest = sum(min(count, min(counts) + 1) for count in counts)
    size = max(1, round(share * largest))
    chosen = balanced_indices(labels, len(counts), size, seed)
    drawn = torch.bincount(labels[chosen], minlength=len(counts))
    assert len(set(chosen.tolist())) == size
    assert drawn.max() - drawn.min() <= 1
    with pytest.raises(ValueError, match=f"train_size {largest + 1} .* at most {largest} "):
        balanced_indices(labels, len(counts), largest + 1, seed)


@pytest.mark.parametrize("size", [0, -1, 1.5, 10.0, "10", True])
@pytest.mark.parametrize("what", ["train_size", "image_size"])
def test_sizes_that_cannot_be(what, size):
    with pytest.raises(
        ValueError, match=f"{what} must be a whole number of at least 1, got {size!r}"
    ):
        data.load("digits", **{what: size})


def test_too_large_an_image_is_refused_before_any_file_is_read(root):
    with pytest.raises(ValueError, match="image_size must be at most 1024, got 1025"):
        data.load("mnist", image_size=1025)


# ------------------------------------------------------------ gaussians


def test_gaussians_are_separable_with_the_papers_noise():
    dataset, raw = data.load("gaussians"), datasets.gaussians()
    assert torch.bincount(dataset.train_y).tolist() == [1000] * 10
    centres = torch.stack([dataset.train_x[dataset.train_y == k].mean(0) for k in range(10)])
    assert torch.equal(torch.cdist(dataset.test_x, centres).argmin(1), dataset.test_y)
    deviations = torch.stack([raw.train_x[raw.train_y == k].std(0) for k in range(10)])
    assert abs(deviations.square().mean().sqrt().item() - 0.1) < 1e-3  # of 7.8 million draws
    train_noise, test_noise = (
        (x - centres[dataset.train_y]).flatten() for x in (dataset.train_x, dataset.test_x)
    )
    correlation = torch.corrcoef(torch.stack((train_noise, test_noise)))[0, 1]
    assert abs(correlation) < 2e-3  # 5 standard errors: separate draws


@pytest.mark.parametrize("name", ["gaussians", "ufm"])
def test_vectors_are_no_images(name):
    with pytest.raises(ValueError, match=rf"{name} are vectors, .* not 32"):
        data.load(name, image_size=32)


def test_sample_numbers():
    dataset = data.load("ufm", train_size=25)
    assert dataset.input_shape == (25,)
    assert dataset.train_y.tolist() == [n % 10 for n in range(25)]
    assert dataset.inputs(dataset.train_x) is dataset.train_x
    for size in (9, 10_001):
        with pytest.raises(ValueError, match=f"train_size of ufm .* from 10 to 10000, got {size}"):
            data.load("ufm", train_size=size)


# ------------------------------------------------------------ mnist, fashion_mnist, cifar10

IDX_SETS = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}


@pytest.mark.parametrize(("name", "folder_name"), IDX_SETS.items())
def test_idx_files(root, rng, monkeypatch, name, folder_name):
    contents, arrays = publish(monkeypatch, idx_files(rng), name)
    write_files(root / folder_name / "raw", contents)
    dataset = data.load(name)
    check_dataset(dataset, (1, 28, 28))
    check_normalised(dataset)
    for (x, y), split in (
        ((dataset.train_x, dataset.train_y), "train"),
        ((dataset.test_x, dataset.test_y), "t10k"),
    ):
        pixels, labels = arrays[split]
        assert np.array_equal(x[:, 0], pixels)
        assert y.tolist() == labels.tolist()
    train = arrays["train"][0]
    # The training set's own statistics, rounded to float32 once.
    np.testing.assert_allclose(dataset.mean, [train.mean()], rtol=1e-7)
    np.testing.assert_allclose(dataset.std, [train.std()], rtol=1e-7)
    published = getattr(torchvision.datasets, folder_name)
    assert dataset.class_names == tuple(published.classes)


def test_statistics_are_those_of_the_full_set_at_its_own_resolution(root, rng, monkeypatch):
    write_files(root / "MNIST" / "raw", publish(monkeypatch, idx_files(rng))[0])
    full, small = data.load("mnist"), data.load("mnist", image_size=32, train_size=10)
    assert small.train_x.shape == (10, 1, 32, 32)
    assert small.test_x.shape == (10 * PER_CLASS, 1, 32, 32)
    assert torch.equal(small.mean, full.mean)
    assert torch.equal(small.std, full.std)
    chosen = balanced_indices(full.train_y, 10, 10, seed=0)
    assert torch.equal(small.train_x, images.resized(full.train_x[chosen], 32))


def test_cifar_files(cifar):
    dataset = data.load("cifar10")
    check_dataset(dataset, (3, 32, 32))
    check_normalised(dataset)
    train = np.concatenate([cifar[f"data_batch_{i}"][0] for i in range(1, 6)])
    assert np.array_equal(dataset.train_x.flatten(1), train)
    assert np.array_equal(dataset.test_x.flatten(1), cifar["test_batch"][0])
    labels = np.concatenate([cifar[f"data_batch_{i}"][1] for i in range(1, 6)])
    assert dataset.train_y.tolist() == labels.tolist()
    assert dataset.test_y.tolist() == cifar["test_batch"][1].tolist()
    assert dataset.class_names[:2] == ("airplane", "automobile")


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10"])
def test_no_files_and_no_network(root, name, capfd):
    limit = socket.getdefaulttimeout()
    with pytest.raises(data.DataNotFoundError) as caught:
        data.load(name)
    message = str(caught.value)
    for part in (name, str(root), "set NCBOOK_DATA", "run once with a network"):
        assert part in message
    assert "\n" not in message
    assert list(root.rglob("*")) == []
    assert socket.getdefaulttimeout() == limit
    output = capfd.readouterr()
    assert len((output.out + output.err).splitlines()) <= 1


def test_a_data_folder_that_cannot_be_made(root):
    root.write_text("a file")
    with pytest.raises(data.DataNotFoundError, match=f"mnist is not in {root}"):
        data.load("mnist")


@pytest.fixture
def mirror(root, rng, tmp_path, monkeypatch):
    """A web server of a small MNIST: its folder, the names of its files, their contents, arrays."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_arguments):
            pass

    contents, arrays = publish(monkeypatch, idx_files(rng))
    archives = {f"{name}.gz": gzip.compress(content) for name, content in contents.items()}
    write_files(tmp_path / "mirror", archives)
    resources = [(name, md5(content)) for name, content in archives.items()]
    monkeypatch.setattr(torchvision.datasets.MNIST, "resources", resources)
    handler = partial(Handler, directory=tmp_path / "mirror")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        url = f"http://127.0.0.1:{server.server_port}/"
        monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [url])
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield SimpleNamespace(folder=tmp_path / "mirror", contents=contents, arrays=arrays)
        server.shutdown()
        thread.join()


def test_download(root, mirror, monkeypatch, capfd):
    assert data.load("mnist").train_y.tolist() == mirror.arrays["train"][1].tolist()
    assert sorted(p.name for p in root.rglob("*") if p.is_file()) == sorted(mirror.contents)
    assert len(capfd.readouterr().err.splitlines()) <= 1  # no progress bars

    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [NO_NETWORK])
    assert data.load("mnist").num_classes == 10  # found where it was put


def test_a_mirror_that_does_not_speak_http(root, monkeypatch):
    monkeypatch.setattr(torchvision.datasets.MNIST, "download", lambda _: refuse_as_a_proxy())
    with pytest.raises(data.DataNotFoundError, match="could not be downloaded"):
        data.load("mnist")


def refuse_as_a_proxy():
    raise http.client.BadStatusLine("<html>")


def test_a_download_that_is_not_what_it_should_be(root, mirror):
    (mirror.folder / f"{LABELS}.gz").write_bytes(b"something else")
    with pytest.raises(data.DataNotFoundError, match="could not be downloaded"):
        data.load("mnist")
    assert list(root.rglob("*")) == []


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_a_network_that_never_answers_is_given_up(root, monkeypatch, name):
    monkeypatch.setattr(downloads, "NETWORK_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [url])
        monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", url)
        with pytest.raises(data.DataNotFoundError, match="timed out"):
            data.load(name)


def test_archives_put_there_by_hand_are_unpacked(root, mirror, monkeypatch):
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [NO_NETWORK])
    shutil.copytree(mirror.folder, root / "MNIST" / "raw")
    assert data.load("mnist").train_y.tolist() == mirror.arrays["train"][1].tolist()


def test_a_damaged_archive_is_named_and_not_written_over(root, mirror):
    path = root / "MNIST" / "raw" / f"{LABELS}.gz"
    write_files(path.parent, {path.name: b"half of it"})
    with pytest.raises(
        data.DataNotFoundError, match=f"^mnist: {path} is not the published .*; remove it"
    ):
        data.load("mnist")
    assert [p.name for p in root.rglob("*") if p.is_file()] == [path.name]
    assert path.read_bytes() == b"half of it"


IMAGES, LABELS = "train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        (IMAGES, lambda b: b[:-100]),
        (IMAGES, lambda b: b""),
        (IMAGES, lambda b: b"text" * 99),
        (IMAGES, gzip.compress),
        (LABELS, lambda b: b + b"\0"),
        (LABELS, lambda b: b[:-1] + bytes([b[-1] ^ 1])),
    ],
)
@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_any_but_the_published_idx_file_is_named(root, rng, monkeypatch, name, file, damage):
    """So that nobody's own images are taken for MNIST's."""
    contents, _ = publish(monkeypatch, idx_files(rng), name)
    contents[file] = damage(contents[file])
    folder = root / downloads.DOWNLOADS[name] / "raw"
    write_files(folder, contents)
    with pytest.raises(data.DataNotFoundError) as caught:
        data.load(name)
    assert re.fullmatch(
        f"{name}: {folder}/{file} is not the published file, whose md5 is [0-9a-f]+; remove it, "
        r"and run again to download it \(images of your own are folder:PATH\)",
        str(caught.value),
    )


@pytest.mark.parametrize("kind", ["FIFO", "loop", "folder"])
@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_what_is_no_file_is_named_and_left_there(root, name, kind):
    path = (
        root / {"mnist": f"MNIST/raw/{IMAGES}", "cifar10": "cifar-10-batches-py/test_batch"}[name]
    )
    path.parent.mkdir(parents=True)
    make_odd(path, kind)
    with pytest.raises(data.DataNotFoundError, match=f"^{name}: {path} is not the published file"):
        data.load(name)
    assert os.path.lexists(path)


def make_odd(path, kind):
    """Something of this name that cannot be read as a file, or only for ever."""
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to(path.name)
    else:
        path.mkdir()


@pytest.mark.parametrize("file", ["data_batch_2", "test_batch", "batches.meta"])
def test_a_damaged_cifar_file_is_named(root, cifar, file):
    path = root / "cifar-10-batches-py" / file
    flip_a_bit(path, 9)
    with pytest.raises(data.DataNotFoundError, match=f"^cifar10: {path} is not the published"):
        data.load("cifar10")


@pytest.mark.skipif(not (REAL_DATA / "MNIST/raw").is_dir(), reason="MNIST is not in NCBOOK_DATA")
def test_real_mnist():
    dataset = data.load("mnist", train_size=1000, image_size=32)
    check_dataset(dataset, (1, 32, 32))
    assert torch.bincount(dataset.train_y).tolist() == [100] * 10
    assert len(dataset.test_y) == 10_000
    # The mean and standard deviation that everyone normalises MNIST with.
    assert round(dataset.mean.item() / 255, 4) == 0.1307
    assert round(dataset.std.item() / 255, 4) == 0.3081
    theirs = torchvision.datasets.MNIST(REAL_DATA, train=False)
    for ours, (image, label), y in zip(dataset.test_x[:50], theirs, dataset.test_y, strict=False):
        pixels = transforms.pil_to_tensor(Resize([32, 32])(image))
        assert (ours.short() - pixels.short()).abs().max() <= 1  # levels
        assert y == label


SMALL_CIFAR = REAL_DATA / "cifar10-jpeg-small"


@pytest.mark.skipif(not SMALL_CIFAR.is_dir(), reason="no JPEG images in NCBOOK_DATA")
def test_real_jpegs():
    dataset = data.load(f"folder:{SMALL_CIFAR}")
    check_dataset(dataset, (3, 32, 32))
    theirs = torchvision.datasets.ImageFolder(SMALL_CIFAR / "train")
    assert dataset.class_names == tuple(theirs.classes)
    assert dataset.train_y.tolist() == theirs.targets
    pixels = torch.stack([transforms.pil_to_tensor(image) for image, _ in theirs])
    assert torch.equal(dataset.train_x, pixels)


# ------------------------------------------------------------ image folders


@pytest.mark.parametrize("test_folder", ["test", "val"])
def test_folder_is_read_as_torchvision_reads_it(folder, test_folder):
    (folder / "test").rename(folder / test_folder)
    (folder / "train" / "zero" / "notes.txt").write_text("not an image")
    dataset = data.load(f"folder:{folder}")
    check_dataset(dataset, (3, 32, 32))
    check_normalised(dataset)
    theirs = torchvision.datasets.ImageFolder(folder / "train")
    assert dataset.class_names == tuple(theirs.classes) == ("one", "two", "zero")
    assert dataset.train_y.tolist() == theirs.targets
    # Grey images: the three channels are one.
    assert torch.equal(dataset.train_x[:, 0], dataset.train_x[:, 2])
    small = data.load(f"folder:{folder}", image_size=16)
    for (image, _), x in zip(theirs, small.train_x, strict=True):
        if image.width == image.height:  # ours cuts a square out of the others
            pixels = transforms.pil_to_tensor(image.resize((16, 16), Image.Resampling.BILINEAR))
            assert torch.equal(x, pixels)
    assert data.load(f"folder:{folder}", image_size=9, train_size=6).train_x.shape == (6, 3, 9, 9)


def test_folder_keeps_the_middle_of_a_wide_image(tmp_path):
    pixels = np.zeros((10, 30, 3), dtype=np.uint8)
    pixels[:, 10:20] = 200
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    assert (images.read_image(tmp_path / "wide.png", 10) == 200).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_folder_images_of_any_number_of_channels_become_rgb(tmp_path, mode):
    path = tmp_path / "image.tif"
    Image.new("RGB", (9, 9), "white").convert(mode).save(path)
    with Image.open(path) as image:
        assert image.mode == mode
    assert images.read_image(path, 9).shape == (3, 9, 9)
    assert (images.read_image(path, 9) == 255).all()


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_an_image_of_more_than_8_bits_a_channel_is_refused(tmp_path, dtype):
    path = tmp_path / "deep.tif"
    Image.fromarray(np.full((9, 9), 1000, dtype=dtype)).save(path)
    with pytest.raises(ValueError, match=f"^{path}: .*; wanted are 8 bits a channel"):
        images.read_image(path, 9)


def test_folder_in_the_home_folder(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    assert data.load(f"folder:~/{folder.name}").num_classes == 3


def test_folder_in_the_data_folder(folder, tmp_path_factory, monkeypatch):
    """A relative path: of the working folder first, then of the data folder."""
    monkeypatch.setenv("NCBOOK_DATA", str(folder.parent))
    here = tmp_path_factory.mktemp("here")
    monkeypatch.chdir(here)
    dataset = data.load(f"folder:{folder.name}", image_size=8)
    assert dataset.name == f"folder:{folder.name}"
    assert dataset.class_names == ("one", "two", "zero")
    for split in ("train", "test"):
        for name in ("four", "five"):
            (here / folder.name / split / name).mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(here / folder.name / split / name / "0.png")
    assert data.load(f"folder:{folder.name}", image_size=8).class_names == ("five", "four")


def test_a_folder_that_is_nowhere_names_both_places(tmp_path, monkeypatch):
    monkeypatch.setenv("NCBOOK_DATA", str(tmp_path))
    with pytest.raises(ValueError, match=f"^folder:gone: .* 'gone', here or in {tmp_path}$"):
        data.validate_name("folder:gone")
    with pytest.raises(ValueError, match=r"^folder: lacks the folder: write folder:PATH$"):
        data.validate_name("folder:")


@pytest.mark.parametrize("content", ["truncated", "text", "empty"])
def test_an_image_that_cannot_be_read_is_named(folder, content):
    path = folder / "train" / "two" / "0.jpg"
    whole = path.read_bytes()
    path.write_bytes({"truncated": whole[: len(whole) // 2], "text": b"no", "empty": b""}[content])
    with pytest.raises(ValueError, match=f"^{path}: not an image") as caught:
        data.load(f"folder:{folder}")
    assert "\n" not in str(caught.value)


def listing_of(folder, prefix="folder"):
    return imagenet.list_images(f"{prefix}:{folder}")


def paths_of(listing):
    return [os.fsdecode(path) for path in listing.files["train"]]


def test_images_are_found_at_any_depth_and_in_order(folder):
    deep = folder / "train" / "one" / "a" / "b"
    deep.mkdir(parents=True)
    (folder / "train" / "one" / "0.jpg").rename(deep / "0.JPG")
    listing = listing_of(folder)
    files = paths_of(listing)
    assert files[:4] == sorted(files[:4])
    assert str(deep / "0.JPG") in files[:4]
    assert listing.train_y.tolist() == [0] * 4 + [1] * 4 + [2] * 4


def copy(path, place):
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(path.read_bytes())


def link(target):
    return lambda _, place: place.symlink_to(target)


# What is put into train/one, and how: none of it is an image of the class.
LEFT_OUT = [
    *((f"{name}/0.png", copy) for name in (".ipynb_checkpoints", "__MACOSX", "@eaDir", ".Trashes")),
    ("lost+found/0.png", copy),
    ("._0.jpg", copy),
    ("loop", link("..")),  # train
    ("loop", link(".")),
    ("loop", link("../..")),  # the data set, with its test images
    ("loop", link("/")),
    ("more", link("../two")),
    ("../.ipynb_checkpoints/0.png", copy),  # would be a class
]


@pytest.mark.parametrize(("place", "put"), LEFT_OUT)
@pytest.mark.parametrize("prefix", ["folder", "imagenet"])
def test_each_folder_counts_once_and_hidden_ones_never(folder, prefix, place, put):
    (folder / "test").rename(folder / "val")
    clean = listing_of(folder, prefix)
    put(folder / "train" / "one" / "0.jpg", folder / "train" / "one" / place)
    with noticed() as said:
        listing = listing_of(folder, prefix)
    assert paths_of(listing) == paths_of(clean)
    assert listing.listing == clean.listing
    name = re.escape(f"{prefix}:{folder}: left out, as hidden, system or linked: 1, such as train/")
    assert [bool(re.match(name, message)) for message in said] == [True]


def test_files_that_are_no_images_are_not_worth_a_word(folder):
    clean = listing_of(folder)
    for name in ("Thumbs.db", ".DS_Store", "notes.txt"):
        (folder / "train" / "one" / name).write_text("")
    (folder / "train" / "one" / "gone").symlink_to("nowhere")
    (folder / "train" / "one" / "itself").symlink_to("itself")
    assert listing_of(folder).listing == clean.listing


def test_links_to_images_are_followed_and_those_to_folders_left_out(folder, tmp_path_factory):
    elsewhere, one = tmp_path_factory.mktemp("elsewhere"), folder / "train" / "one"
    (elsewhere / "more").mkdir()
    (one / "0.jpg").rename(elsewhere / "0.jpg")
    (one / "1.png").rename(elsewhere / "more" / "1.png")
    (one / "a.jpg").symlink_to(elsewhere / "0.jpg")
    (one / "b").symlink_to(elsewhere / "more")
    with noticed(": 1, such as train/one/b$"):
        files = paths_of(listing_of(folder))[:3]
    assert files == [str(one / name) for name in ("2.JPEG", "3.bmp", "a.jpg")]


@pytest.mark.parametrize("place", ["train", "test", "train/one"])
def test_the_folder_of_a_split_or_of_a_class_may_be_a_link(folder, tmp_path_factory, place):
    clean = listing_of(folder)
    elsewhere = (folder / place).rename(tmp_path_factory.mktemp("elsewhere") / "moved")
    (folder / place).symlink_to(elsewhere)
    listing = listing_of(folder)
    assert paths_of(listing) == paths_of(clean)
    assert listing.listing == clean.listing


def test_a_link_into_another_class_or_into_the_test_images_is_left_out(folder):
    one, two = folder / "train" / "one", folder / "train" / "two"
    clean = len(listing_of(folder).files["train"])
    for place in (two, folder / "test" / "two"):
        (place / "deeper").mkdir()
        (place / "0.jpg").rename(place / "deeper" / "0.jpg")
    (one / "a").symlink_to(two / "deeper")
    (one / "b").symlink_to(folder / "test" / "two" / "deeper")
    with noticed(": 2, such as train/one/a$"):
        listing = listing_of(folder)
    assert str(two / "deeper" / "0.jpg") in paths_of(listing)
    assert len(listing.files["train"]) == clean


def test_an_image_that_links_to_itself_is_named(folder):
    path = folder / "train" / "one" / "x.png"
    make_odd(path, "loop")
    with pytest.raises(OSError, match=f"'{path}'$"):
        data.load(f"folder:{folder}")


def test_a_folder_with_an_images_name_is_a_folder(folder):
    make_odd(folder / "train" / "one" / "x.png", "folder")
    assert len(listing_of(folder).files["train"]) == 12


def test_a_file_that_may_not_be_read_is_named(folder, monkeypatch):
    path = str(folder / "train" / "two" / "0.jpg")

    def refuse(file, *mode):
        if file == path:
            raise PermissionError(13, "Permission denied", file)
        return open(file, *mode)

    monkeypatch.setattr(imagenet, "open", refuse, raising=False)
    with pytest.raises(PermissionError, match=f"'{path}'$"):
        data.fingerprint(f"folder:{folder}")


# ------------------------------------------------------------ what a folder holds


def test_the_same_images_have_one_fingerprint_wherever_they_lie(folder, tmp_path_factory):
    copied = tmp_path_factory.mktemp("copy") / "x"
    shutil.copytree(folder, copied)
    (copied / "test").rename(copied / "val")
    names = (f"folder:{folder}", f"folder:{copied}", f"imagenet:{copied}")
    assert len({data.fingerprint(name) for name in names}) == 1
    assert data.load(names[0]).listing == data.fingerprint(names[0])


def test_other_images_have_another_fingerprint(folder):
    """Renamed, removed, moved, another class, another size, and other content of the same size."""
    train, seen = folder / "train", [data.fingerprint(f"folder:{folder}")]

    def rename_class():
        for split in ("train", "test"):
            (folder / split / "zero").rename(folder / split / "three")

    changes = [
        lambda: (train / "one" / "0.jpg").rename(train / "one" / "4.jpg"),
        (folder / "test" / "two" / "0.jpg").unlink,
        lambda: (train / "one" / "1.png").rename(train / "two" / "9.png"),
        rename_class,
        lambda: (train / "two" / "3.bmp").write_bytes(b"longer" * 1000),
        lambda: flip_a_bit(train / "one" / "3.bmp", -1),
    ]
    for change in changes:
        change()
        seen.append(data.fingerprint(f"folder:{folder}"))
    assert len(set(seen)) == len(changes) + 1


def test_plain_names():
    for name in ("folder:x/y", "folder:./x/y", "folder:x//y/", "folder:x/./y"):
        assert data.plain_name(name) == "folder:x/y"
    for name in ("folder:", "folder:/a/../b", "imagenet:~/c"):
        assert data.plain_name(name) == name


# ------------------------------------------------------------ the size of images


def png_of_zeros(width, height):
    """A small file of a large image."""

    def chunk(kind, content):
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(3 * width + 1) * height)
    parts = ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


@pytest.fixture
def no_decoding(monkeypatch):
    def decode(image, *_arguments):
        raise AssertionError(f"{image.size} is decoded")

    monkeypatch.setattr(Image.Image, "convert", decode)


@pytest.mark.parametrize("size", [(10_000, 10_000), (60_000, 10_000)])  # PIL warns; PIL refuses
@pytest.mark.parametrize("prefix", ["folder", "imagenet"])
def test_a_bomb_is_refused_by_its_header(folder, size, prefix, no_decoding, monkeypatch):
    (folder / "test").rename(folder / "val")
    path = folder / "train" / "one" / "0.jpg"
    header = png_of_zeros(9, 9)
    path.write_bytes(header.replace(struct.pack(">II", 9, 9), struct.pack(">II", *size)))
    content = path.read_bytes()
    crc = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content[:29] + crc + content[33:])
    monkeypatch.setenv("NCBOOK_MAX_PIXELS", "99999999")
    limits = "and at most 99999999 are decoded here; NCBOOK_MAX_PIXELS sets another limit"
    with pytest.raises(ValueError, match=f"^{path}: .*{size[0]} x {size[1]} pixels, {limits}"):
        data.load(f"{prefix}:{folder}").image("train", 0)


def test_the_largest_image_is_a_parameter(folder, monkeypatch):
    path = folder / "train" / "one" / "0.jpg"
    path.write_bytes(png_of_zeros(100, 90))
    for limit, refused in (("8999", True), ("9000", False)):
        monkeypatch.setenv("NCBOOK_MAX_PIXELS", limit)
        with pytest.raises(ValueError, match="100 x 90") if refused else nullcontext():
            data.load(f"folder:{folder}")


@pytest.mark.parametrize("value", ["many", "-1", "1e6"])
def test_a_bad_limit_is_named(folder, monkeypatch, value):
    monkeypatch.setenv("NCBOOK_MAX_PIXELS", value)
    with pytest.raises(ValueError, match=f"^NCBOOK_MAX_PIXELS must be a .* got '{value}'"):
        data.load(f"folder:{folder}")


def test_the_limit_is_sized_to_memory():
    on_all_cores = images.MOST_PIXELS * images.PIXEL_BYTES * os.cpu_count()
    assert on_all_cores <= psutil.virtual_memory().total / 4
    assert images.MOST_PIXELS <= Image.MAX_IMAGE_PIXELS


def test_a_folder_that_does_not_fit_memory_is_refused_before_an_image_is_read(
    folder, no_decoding, monkeypatch
):
    memory = SimpleNamespace(available=24 * 3 * 32**2 - 1)
    monkeypatch.setattr(loading.psutil, "virtual_memory", lambda: memory)
    with pytest.raises(ValueError, match=r"24 images of 32 x 32 need 0.0 GiB, .*; imagenet:PATH"):
        data.load(f"folder:{folder}")


@pytest.mark.parametrize("split", ["train", "test"])
def test_an_empty_class_folder_is_named_before_an_image_is_read(folder, split):
    for path in (folder / split / "two").iterdir():
        path.unlink()
    (folder / split / "two" / "notes.txt").write_text("not an image")
    (folder / "train" / "one" / "0.jpg").write_bytes(b"damaged")
    with pytest.raises(
        ValueError, match=f"^{folder}/{split}/two: there are no images of class 'two'"
    ):
        data.load(f"folder:{folder}")


# ------------------------------------------------------------ what a network takes


def test_inputs_are_normalised_pixels(folder):
    dataset = data.load(f"folder:{folder}", image_size=8)
    x = dataset.train_x.to(memory_format=torch.channels_last)
    mean, std = dataset.mean[:, None, None], dataset.std[:, None, None]
    ours = dataset.inputs(x)
    assert torch.equal(ours, (dataset.train_x.float() - mean) / std)
    assert ours.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(dataset.train_x, x)  # pixels stay as they were
    members = x.unflatten(0, (3, 4))  # any number of leading axes
    assert torch.equal(dataset.inputs(members), ours.unflatten(0, (3, 4)))
    assert dataset.inputs(ours) is ours  # features pass as they are


# ------------------------------------------------------------ augmentation


def augmented_one_by_one(x, generator):
    """Slow and obvious: mirror, pad with zeros, cut."""
    corners = torch.randint(9, (2, len(x)), generator=generator).tolist()
    mirrored = torch.randint(2, (1, len(x)), generator=generator).tolist()
    result = torch.empty_like(x)
    for n, (top, left, mirror) in enumerate(zip(*corners, *mirrored, strict=True)):
        image = x[n].flip(2) if mirror else x[n]
        padded = transforms.pad(image, [4, 4, 4, 4], fill=0)
        result[n] = transforms.crop(padded, top, left, *x.shape[2:])
    return result


@pytest.mark.parametrize("shape", [(50, 3, 32, 32), (7, 1, 28, 20), (1, 3, 2, 2), (0, 3, 8, 8)])
def test_augmented_is_the_reference(rng, shape):
    x = torch.from_numpy(rng.integers(0, 256, shape, dtype=np.uint8))
    before = x.clone()
    for layout in (torch.contiguous_format, torch.channels_last):
        ours, reference = (
            function(x.to(memory_format=layout), torch.Generator().manual_seed(7))
            for function in (data.augmented, augmented_one_by_one)
        )
        assert ours.dtype == torch.uint8
        assert torch.equal(ours, reference)
    assert torch.equal(x, before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_augmented_is_the_same_on_every_device(rng):
    x = torch.from_numpy(rng.integers(0, 256, (50, 3, 32, 32), dtype=np.uint8))
    here, there = (
        data.augmented(x.to(device), torch.Generator().manual_seed(7)) for device in ("cpu", "cuda")
    )
    assert there.device.type == "cuda"
    assert torch.equal(there.cpu(), here)


def test_what_can_be_augmented():
    for name in ("fashion_mnist", "cifar10", "folder:any", "imagenet:any"):
        data.check_augmentable(name)
    valid = "fashion_mnist, cifar10, folder:PATH, imagenet:PATH"
    for name in ("digits", "mnist", "gaussians", "ufm", "cifar", None):
        refusal = f"dataset {name!r} cannot be augmented; valid: {valid}$"
        with pytest.raises(ValueError, match=refusal):
            data.check_augmentable(name)


# ------------------------------------------------------------ names


@pytest.mark.parametrize("name", ["imagenet", "MNIST", "", None, 3, "digits "])
def test_unknown_name_lists_the_valid_ones(name):
    with pytest.raises(ValueError, match=f"unknown dataset {name!r}; valid: digits, .*folder:PATH"):
        data.validate_name(name)
    with pytest.raises(ValueError, match="unknown dataset"):
        data.load(name)


def test_valid_names_need_no_files_to_be_checked(root):
    for name in (*downloads.DOWNLOADS, "digits", "gaussians", "ufm"):
        data.validate_name(name)
        assert data.fingerprint(name) is None  # nor a fingerprint: they never change
        assert data.plain_name(name) == name
    assert not root.exists()


@pytest.mark.parametrize(
    ("moves", "named"),
    [
        ({"train": "training"}, "there is no train folder"),
        ({"test": "testing"}, "there is no test folder"),
        ({"test/two": "test/three"}, r"same classes, but: \['three', 'two'\]"),
        (
            {f"{s}/{n}": f"{s}-{n}" for s in ("train", "test") for n in ("zero", "one", "two")},
            "no class folders",
        ),
    ],
)
def test_folders_laid_out_otherwise(folder, moves, named):
    data.validate_name(f"folder:{folder}")
    for old, new in moves.items():
        (folder / old).rename(folder / new)
    with pytest.raises(ValueError, match=named) as caught:
        data.validate_name(f"folder:{folder}")
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)
