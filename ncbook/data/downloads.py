"""MNIST, Fashion-MNIST and CIFAR-10: the published files, downloaded by torchvision."""

import contextlib
import hashlib
import io
import logging
import os
import pickle
import socket
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ncbook.data.dataset import DataNotFoundError, Raw, last_line
from ncbook.paths import expanded

DATA_VARIABLE = "NCBOOK_DATA"
DEFAULT_DATA_DIR = "~/.cache/ncbook"
NETWORK_TIMEOUT = 20.0  # seconds without data after which a download fails
IDX_HEADER = {"images": 16, "labels": 8}  # bytes
IDX_IMAGE = (1, 28, 28)
# md5 of the unpacked files; torchvision only knows those of the archives.
IDX_SUMS = {
    "mnist": {
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    },
    "fashion_mnist": {
        "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
        "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
        "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
    },
}
CIFAR_IMAGE = (3, 32, 32)
CIFAR_BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
MNIST_CLASSES = tuple(f"{k} - {word}" for k, word in enumerate(WORDS))
FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Download:
    """A data set that torchvision can fetch."""

    class_name: str  # in torchvision.datasets
    folder: str  # inside the data folder, torchvision's own layout
    files: tuple[str, ...]  # inside that folder
    read: Callable[[Path], Raw]

    def published(self) -> Any:
        """torchvision's class, which has the mirrors and the checksums."""
        import torchvision.datasets

        return getattr(torchvision.datasets, self.class_name)

    def archives(self) -> dict[str, str]:
        """The md5 of every archive, by its place in the data folder."""
        known = self.published()
        if hasattr(known, "tgz_md5"):
            return {known.filename: known.tgz_md5}
        return {f"{self.folder}/{file}": md5 for file, md5 in known.resources}


def data_dir() -> Path:
    """The folder of downloaded data sets: ``NCBOOK_DATA``, else ``~/.cache/ncbook``."""
    path = os.environ.get(DATA_VARIABLE) or DEFAULT_DATA_DIR
    return expanded(path, DATA_VARIABLE).absolute()


def read_download(name: str) -> Raw:
    """The whole data set at its own resolution, downloaded if it is not in ``data_dir()``.

    Only the published files are accepted, by their md5, so that results on ``mnist`` are results
    on MNIST.

    Raises:
        DataNotFoundError: a file differs from the published one, or is missing and there is no
            network; names the file or folder.
    """
    source, root = DOWNLOADS[name], data_dir()
    folder = root / source.folder
    paths = [folder / file for file in source.files]
    odd = [path for path in paths if os.path.lexists(path) and not os.path.isfile(path)]
    if odd:
        raise DataNotFoundError(f"{name}: {odd[0]} is not a regular file; remove it")
    if not all(map(os.path.isfile, paths)):
        _download(name, root)
    try:
        return source.read(folder)
    except (OSError, ValueError) as error:
        raise DataNotFoundError(
            f"{name}: {last_line(error)}; remove {folder}, and run again to download it"
            " (images of your own are folder:PATH)"
        ) from error


# ------------------------------------------------------------ the two formats


def _read_idx_set(folder: Path, name: str, class_names: tuple[str, ...]) -> Raw:
    content = {file: _published_bytes(folder / file, md5) for file, md5 in IDX_SUMS[name].items()}
    train_x, train_y, test_x, test_y = (_idx_values(file, raw) for file, raw in content.items())
    return Raw(
        train_x.view(-1, *IDX_IMAGE),
        train_y.long(),
        test_x.view(-1, *IDX_IMAGE),
        test_y.long(),
        class_names,
    )


def _idx_values(file: str, content: bytes) -> torch.Tensor:
    """The values after the header, whose length is known."""
    header = IDX_HEADER["images" if "images" in file else "labels"]
    return torch.from_numpy(np.frombuffer(bytearray(content), np.uint8, offset=header))


def _read_cifar(folder: Path) -> Raw:
    known = DOWNLOADS["cifar10"].published()
    sums = {known.meta["filename"]: known.meta["md5"]} | dict(known.train_list + known.test_list)
    content = {file: _unpickled(folder / file, md5) for file, md5 in sums.items()}
    names = tuple(content["batches.meta"]["label_names"])
    train = [content[batch] for batch in CIFAR_BATCHES]
    return Raw(*_cifar_tensors(train), *_cifar_tensors([content["test_batch"]]), names)


def _unpickled(path: Path, md5: str) -> dict[str, Any]:
    """Of the published bytes alone: a pickle from elsewhere could run any code."""
    return pickle.loads(_published_bytes(path, md5), encoding="latin1")


def _published_bytes(path: Path, md5: str) -> bytes:
    content = path.read_bytes()
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
        raise ValueError(f"{path}: its md5 is not that of the published file, {md5}")
    return content


def _cifar_tensors(batches: list[dict[str, Any]]) -> tuple[torch.Tensor, torch.Tensor]:
    images = np.concatenate([batch["data"] for batch in batches]).reshape(-1, *CIFAR_IMAGE)
    labels = [label for batch in batches for label in batch["labels"]]
    return torch.from_numpy(images), torch.tensor(labels)


# ------------------------------------------------------------ the network


def _download(name: str, root: Path) -> None:
    """Download into a temporary folder, then move each file: none is ever half-written."""
    source = DOWNLOADS[name]
    archives = _archives_by_hand(source, root)
    _log.warning("downloading %s to %s", name, root)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root, prefix=".download-") as folder, _quiet_network():
            for archive in archives:  # which torchvision finds and unpacks
                link = Path(folder, archive)
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(root / archive)
            source.published()(folder, download=True)
            (root / source.folder).mkdir(parents=True, exist_ok=True)
            for file in source.files:
                os.replace(Path(folder, source.folder, file), root / source.folder / file)
    except (OSError, RuntimeError) as error:
        raise DataNotFoundError(
            f"{name} is not in {root} and could not be downloaded there ({last_line(error)});"
            f" either set {DATA_VARIABLE} to a folder that has {source.folder}/{source.files[0]}"
            " and the files next to it, or run once with a network"
        ) from error


def _archives_by_hand(source: Download, root: Path) -> list[str]:
    """Archives that the user put into ``root``; a damaged one is an error, not overwritten."""
    found = {file: md5 for file, md5 in source.archives().items() if (root / file).is_file()}
    for file, md5 in found.items():
        try:
            _published_bytes(root / file, md5)
        except (OSError, ValueError) as error:
            raise DataNotFoundError(f"{error}; remove it") from error
    return list(found)


@contextlib.contextmanager
def _quiet_network() -> Iterator[None]:
    """A time limit for a silent network, and no progress bars in a log."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(NETWORK_TIMEOUT)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        socket.setdefaulttimeout(before)


# ------------------------------------------------------------ the table


def _idx_download(name: str, class_name: str, class_names: tuple[str, ...]) -> Download:
    read = partial(_read_idx_set, name=name, class_names=class_names)
    return Download(class_name, f"{class_name}/raw", tuple(IDX_SUMS[name]), read)


DOWNLOADS = {
    "mnist": _idx_download("mnist", "MNIST", MNIST_CLASSES),
    "fashion_mnist": _idx_download("fashion_mnist", "FashionMNIST", FASHION_CLASSES),
    "cifar10": Download(
        "CIFAR10",
        "cifar-10-batches-py",
        (*CIFAR_BATCHES, "test_batch", "batches.meta"),
        _read_cifar,
    ),
}
