"""MNIST, Fashion-MNIST and CIFAR-10: the published files, downloaded and read by torchvision."""

import contextlib
import io
import logging
import os
import socket
import tempfile
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch

from ncbook import text
from ncbook.data.dataset import DataNotFoundError, Dataset
from ncbook.paths import expanded

DATA_VARIABLE = "NCBOOK_DATA"
NETWORK_TIMEOUT = 20.0  # seconds without data after which a download fails
DOWNLOADS = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "cifar10": "CIFAR10"}
# md5 of the unpacked files, of which torchvision only knows those of CIFAR-10.
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

_log = logging.getLogger(__name__)


def data_dir() -> Path:
    """The folder of downloaded data sets: ``NCBOOK_DATA``, else ``~/.cache/ncbook``."""
    path = os.environ.get(DATA_VARIABLE) or "~/.cache/ncbook"
    return expanded(path, DATA_VARIABLE).absolute()


def read_download(name: str) -> Dataset:
    """The whole data set at its own resolution, downloaded if it is not in ``data_dir()``.

    Only the published files are accepted, by their md5, so that results on ``mnist`` are results
    on MNIST.

    Raises:
        DataNotFoundError: a file differs from the published one, or is missing and there is no
            network; names the file or folder.
    """
    root, files = data_dir(), _published(name)[0]
    _check_published(name, root, files)
    if not all((root / file).exists() for file in files):
        _download(name, root)
    train, test = (_torchvisions(name)(root, train=split) for split in (True, False))
    return Dataset(name, *_tensors(train), *_tensors(test), tuple(train.classes))


def _torchvisions(name: str) -> Any:
    """The class that has the mirrors and the checksums, and reads the files."""
    import torchvision.datasets

    return getattr(torchvision.datasets, DOWNLOADS[name])


def _tensors(dataset: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Images, uint8, (N, C, H, W), and labels."""
    x = torch.as_tensor(dataset.data)
    x = x.unsqueeze(1) if x.ndim == 3 else x.permute(0, 3, 1, 2).contiguous()
    return x, torch.as_tensor(dataset.targets)


def _published(name: str) -> tuple[dict[str, str], dict[str, str]]:
    """The md5 of each unpacked file, and of each archive, by its path in the data folder."""
    known = _torchvisions(name)
    if name in IDX_SUMS:
        folder, files, archives = f"{DOWNLOADS[name]}/raw", IDX_SUMS[name], dict(known.resources)
        archives = {f"{folder}/{file}": md5 for file, md5 in archives.items()}
    else:
        folder, archives = known.base_folder, {known.filename: known.tgz_md5}
        files = dict(known.train_list + known.test_list)
        files[known.meta["filename"]] = known.meta["md5"]
    return {f"{folder}/{file}": md5 for file, md5 in files.items()}, archives


def _check_published(name: str, root: Path, files: dict[str, str]) -> None:
    """Raise ``DataNotFoundError`` for one that is there but is damaged, or is no regular file."""
    from torchvision.datasets.utils import check_integrity

    for file, md5 in files.items():
        path = root / file
        if os.path.lexists(path) and not check_integrity(path, md5):
            raise DataNotFoundError(
                f"{name}: {path} is not the published file, whose md5 is {md5}; remove it, and run "
                "again to download it (images of your own are folder:PATH)"
            )


def _download(name: str, root: Path) -> None:
    """Download into a temporary folder, then move each file: none is ever half-written."""
    files, archives = _published(name)
    _check_published(name, root, archives)
    _log.warning("downloading %s to %s", name, root)
    try:
        root.mkdir(parents=True, exist_ok=True)
        temporary = tempfile.TemporaryDirectory(dir=root, prefix=".download-")
        silent = contextlib.redirect_stderr(io.StringIO())  # no progress bars in a log
        with temporary as folder, silent, contextlib.ExitStack() as stack:
            stack.callback(socket.setdefaulttimeout, socket.getdefaulttimeout())
            socket.setdefaulttimeout(NETWORK_TIMEOUT)
            for archive in archives:
                if (root / archive).is_file():  # put there by hand: torchvision unpacks the link
                    link = Path(folder, archive)
                    link.parent.mkdir(parents=True, exist_ok=True)
                    link.symlink_to(root / archive)
            _torchvisions(name)(folder, download=True)
            for file in files:
                (root / file).parent.mkdir(parents=True, exist_ok=True)
                os.replace(Path(folder, file), root / file)
    except (OSError, RuntimeError, HTTPException) as error:
        raise DataNotFoundError(
            f"{name} is not in {root} and could not be downloaded there ({text.line(error)}); set "
            f"{DATA_VARIABLE} to a folder that has {next(iter(files))} and the files next to it, "
            "or run once with a network"
        ) from error
