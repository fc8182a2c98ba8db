"""MNIST, Fashion-MNIST and CIFAR-10: files as they are published, downloaded by torchvision."""

import contextlib
import hashlib
import io
import logging
import math
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

DATA_VARIABLE = "NCBOOK_DATA"
DEFAULT_DATA_DIR = "~/.cache/ncbook"
NETWORK_TIMEOUT = 20.0  # seconds of silence until a download is given up
IDX_UINT8 = 8  # the IDX format's code for unsigned bytes
IDX_IMAGE = (28, 28)
IDX_SPLITS = ("train", "t10k")
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
        """torchvision's class: it knows the mirrors and the checksums."""
        import torchvision.datasets

        return getattr(torchvision.datasets, self.class_name)

    def archives(self) -> dict[str, str]:
        """The md5 of every archive, by its place in the data folder."""
        known = self.published()
        if hasattr(known, "tgz_md5"):
            return {known.filename: known.tgz_md5}
        return {f"{self.folder}/{file}": md5 for file, md5 in known.resources}


def data_dir() -> Path:
    """Where downloaded data sets lie: ``NCBOOK_DATA``, else ``~/.cache/ncbook``."""
    return Path(os.environ.get(DATA_VARIABLE) or DEFAULT_DATA_DIR).expanduser().absolute()


def read_download(name: str) -> Raw:
    """The whole data set at its own resolution, downloaded if it is not in ``data_dir()``.

    Raises:
        DataNotFoundError: a damaged file, or none and no network; names the file or folder.
    """
    source, root = DOWNLOADS[name], data_dir()
    folder = root / source.folder
    if not all((folder / file).is_file() for file in source.files):
        _download(name, root)
    try:
        return source.read(folder)
    except (OSError, ValueError) as error:
        raise DataNotFoundError(
            f"{name}: {last_line(error)}; remove {folder}, and run again to download it"
        ) from error


# ------------------------------------------------------------ the two formats


def _read_idx_set(folder: Path, class_names: tuple[str, ...]) -> Raw:
    parts = [part for split in IDX_SPLITS for part in _read_idx_split(folder, split)]
    return Raw(*parts, class_names)


def _read_idx_split(folder: Path, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    image_file, label_file = (folder / file for file in _idx_files(split))
    images, labels = _read_idx(image_file, rank=3), _read_idx(label_file, rank=1)
    if images.shape[1:] != IDX_IMAGE:
        raise ValueError(f"{image_file}: images of {images.shape[1:]} pixels, not {IDX_IMAGE}")
    if len(images) != len(labels):
        raise ValueError(f"{label_file}: {len(labels)} labels of {len(images)} images")
    if (labels >= len(MNIST_CLASSES)).any():
        raise ValueError(f"{label_file}: label {labels.max()}, but they are 0 to 9")
    return torch.from_numpy(images).unsqueeze(1), torch.from_numpy(labels).long()


def _read_idx(path: Path, rank: int) -> np.ndarray:
    """An array of bytes: two zeros, the type, the rank; the sizes, big-endian; the values."""
    content = np.fromfile(path, dtype=np.uint8)
    start = 4 + 4 * rank
    if len(content) < start or content[:4].tolist() != [0, 0, IDX_UINT8, rank]:
        raise ValueError(f"{path}: not an IDX file of bytes with {rank} axes")
    sizes = content[4:start].view(">u4").tolist()
    if len(content) - start != math.prod(sizes):
        raise ValueError(
            f"{path}: {len(content)} bytes, but its header says {start + math.prod(sizes)}"
        )
    return content[start:].reshape(sizes)


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
    """Fetch into a folder of its own, then move file by file: never a half-written file."""
    source = DOWNLOADS[name]
    archives = _archives_by_hand(source, root)
    _log.warning("downloading %s to %s", name, root)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root, prefix=".download-") as folder, _quiet_network():
            for archive in archives:  # torchvision finds, and unpacks, them
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
            " and the files beside it, or run once with a network"
        ) from error


def _archives_by_hand(source: Download, root: Path) -> list[str]:
    """Archives that somebody put into ``root``. A damaged one is refused, not written over."""
    there = {file: md5 for file, md5 in source.archives().items() if (root / file).is_file()}
    for file, md5 in there.items():
        try:
            _published_bytes(root / file, md5)
        except (OSError, ValueError) as error:
            raise DataNotFoundError(f"{error}; remove it") from error
    return list(there)


@contextlib.contextmanager
def _quiet_network() -> Iterator[None]:
    """A time limit for every silence of the network, and no progress bars for a log to keep."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(NETWORK_TIMEOUT)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        socket.setdefaulttimeout(before)


# ------------------------------------------------------------ the table


def _idx_files(split: str) -> tuple[str, str]:
    return f"{split}-images-idx3-ubyte", f"{split}-labels-idx1-ubyte"


_IDX_FILES = tuple(file for split in IDX_SPLITS for file in _idx_files(split))
DOWNLOADS = {
    "mnist": Download(
        "MNIST", "MNIST/raw", _IDX_FILES, partial(_read_idx_set, class_names=MNIST_CLASSES)
    ),
    "fashion_mnist": Download(
        "FashionMNIST",
        "FashionMNIST/raw",
        _IDX_FILES,
        partial(_read_idx_set, class_names=FASHION_CLASSES),
    ),
    "cifar10": Download(
        "CIFAR10",
        "cifar-10-batches-py",
        (*CIFAR_BATCHES, "test_batch", "batches.meta"),
        _read_cifar,
    ),
}
