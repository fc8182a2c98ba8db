"""A data set's name becomes training and test tensors on the device.

Everything is held as plain tensors: a batch is an index permutation, and no loader stands between
the data and the step. Features are normalised, per channel, with the mean and the standard
deviation of the full training set at its own resolution, and resized after that.

scikit-learn and torchvision are imported where they are used: together they take two seconds and
300 MB, in each process of a sweep, and no data set needs both.
"""

import contextlib
import io
import logging
import os
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps

DATA_VARIABLE = "NCBOOK_DATA"
DEFAULT_DATA_DIR = "~/.cache/ncbook"
FOLDER_PREFIX = "folder:"
FOLDER_IMAGE_SIZE = 32  # pixels, where no image_size is given: images of a folder vary in size
TEST_FOLDERS = ("test", "val")  # the first that is there holds the test images
IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".webp")
)

DIGITS_PER_CLASS = 140  # of at least 174 images a class; the rest are test images
GAUSSIAN_DIM, GAUSSIAN_CLASSES, GAUSSIAN_PER_CLASS = 784, 10, 1000
GAUSSIAN_NOISE = 0.1  # epsilon
UFM, UFM_SAMPLES, UFM_CLASSES = "ufm", 10_000, 10  # the paper's D.4.2
# The data are the same whatever the seed of a run is: these two never change.
DIGITS_SEED = 0
GAUSSIAN_SEED = 0

NETWORK_TIMEOUT = 20.0  # seconds of silence until a download is given up
CHUNK = 1024  # samples that are converted at one time

if TYPE_CHECKING:
    import torchvision.datasets

_log = logging.getLogger(__name__)


class DataNotFoundError(RuntimeError):
    """A data set's files are neither there nor to be had."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Training and test tensors of one data set, all on one device.

    ``train_x`` and ``test_x`` are float32 of shape (N, C, H, W), for ``gaussians`` (N, 784);
    ``train_y`` and ``test_y`` are int64 of shape (N,) with values below ``num_classes``.
    """

    name: str
    train_x: torch.Tensor
    train_y: torch.Tensor
    test_x: torch.Tensor
    test_y: torch.Tensor
    num_classes: int
    class_names: tuple[str, ...]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample. One of ``ufm`` is its number, which stands for a vector with as
        many entries as there are samples: zeros, and a one in that place."""
        return (len(self.train_y),) if self.name == UFM else tuple(self.train_x.shape[1:])


@dataclass(frozen=True, eq=False)
class _Raw:
    """A data set before normalisation: features uint8 or float32, labels int64."""

    train_x: torch.Tensor
    train_y: torch.Tensor
    test_x: torch.Tensor
    test_y: torch.Tensor
    class_names: tuple[str, ...]


def load(
    name: str,
    *,
    train_size: int | None = None,
    seed: int = 0,
    image_size: int | None = None,
    device: str | torch.device = "cpu",
) -> Dataset:
    """Load a data set, normalised: ``(x - mean) / std`` per channel.

    Args:
        name: ``digits``, ``gaussians``, ``mnist``, ``fashion_mnist``, ``cifar10``, or
            ``folder:PATH`` with images ``PATH/train/<class>/*`` and ``PATH/test/<class>/*`` (or
            ``PATH/val/...``).
        train_size: number of training samples, drawn with as many from each class (one more from
            some where the classes do not divide it); all if None.
        seed: decides which samples ``train_size`` draws, and nothing else.
        image_size: height and width in pixels to which images are resized (bilinear); None leaves
            them as they are, but for a folder, whose images become 32 x 32.
        device: where the tensors shall lie.

    Returns:
        The tensors, on ``device``.

    Raises:
        ValueError: a name, size or folder that cannot be used.
        DataNotFoundError: files that are neither in ``NCBOOK_DATA`` nor to be downloaded.

    Example:
        >>> load("digits", train_size=100).train_x.shape
        torch.Size([100, 1, 8, 8])
    """
    validate_name(name)
    _check_size("image_size", image_size)
    _check_size("train_size", train_size)
    if name == UFM:
        return _sample_numbers(train_size or UFM_SAMPLES, device)
    raw = _read(name, image_size)
    classes = len(raw.class_names)
    _check_samples(name, raw)
    mean, std = _channel_statistics(raw.train_x)
    train_x, train_y = raw.train_x, raw.train_y
    if train_size is not None:
        chosen = _balanced_indices(train_y, classes, train_size, np.random.default_rng(seed))
        train_x, train_y = train_x[chosen], train_y[chosen]
    return Dataset(
        name=name,
        train_x=_prepare(train_x, mean, std, image_size, device),
        train_y=train_y.to(device),
        test_x=_prepare(raw.test_x, mean, std, image_size, device),
        test_y=raw.test_y.to(device),
        num_classes=classes,
        class_names=raw.class_names,
    )


def validate_name(name: str) -> None:
    """Refuse a data set that cannot be loaded, without loading anything.

    Raises:
        ValueError: an unknown name, or a folder that is missing or laid out in another way.
    """
    if isinstance(name, str) and name.startswith(FOLDER_PREFIX):
        _check_layout(name)
    elif name not in NAMES:
        raise ValueError(
            f"unknown dataset {name!r}; valid: {', '.join(NAMES)}, {FOLDER_PREFIX}PATH"
        )


def data_dir() -> Path:
    """Where downloaded data sets lie: ``NCBOOK_DATA``, else ``~/.cache/ncbook``."""
    return Path(os.environ.get(DATA_VARIABLE) or DEFAULT_DATA_DIR).expanduser().absolute()


def _check_size(what: str, size: int | None) -> None:
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
        raise ValueError(f"{what} must be a whole number of at least 1, or None, not {size!r}")


def _read(name: str, image_size: int | None) -> _Raw:
    if name.startswith(FOLDER_PREFIX):
        return _folder(name, image_size or FOLDER_IMAGE_SIZE)
    if name == "digits":
        return _digits()
    if name == "gaussians":
        if image_size is not None:
            raise ValueError(
                f"gaussians are vectors, not images: image_size must be None, not {image_size}"
            )
        return _gaussians()
    return _downloaded(name)


# ------------------------------------------------------------ statistics, subsets, resizing


def _channel_statistics(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and (population) standard deviation of every channel, float32, (C,); C = 1 of vectors.

    Summed in float64, chunk by chunk: for pixels the sums are exact, and no float copy of the
    whole set is made. A constant channel has standard deviation 1 here, so that it becomes 0.
    """
    channels = _as_channels(x)
    total, squares = torch.zeros(2, channels.shape[1], dtype=torch.float64)
    for chunk in channels.split(CHUNK):
        values = chunk.double()  # (n, C, pixels)
        total += values.sum((0, 2))
        squares += values.square().sum((0, 2))
    count = channels.shape[0] * channels.shape[2]
    mean = total / count
    variance = squares / count - mean**2
    # A constant channel's variance is rounding, below this share of its mean square.
    constant = variance <= 1e-12 * squares / count
    return mean.float(), torch.where(constant, 1.0, variance.clamp(min=0).sqrt()).float()


def _as_channels(x: torch.Tensor) -> torch.Tensor:
    """View (N, C, H, W) as (N, C, H W), and vectors (N, d) as one channel (N, 1, d)."""
    return x.flatten(2) if x.ndim > 2 else x.unsqueeze(1)


def _prepare(
    x: torch.Tensor,
    mean: torch.Tensor,
    std: torch.Tensor,
    image_size: int | None,
    device: str | torch.device,
) -> torch.Tensor:
    """Normalise, then resize, chunk by chunk: no second float copy is made beside the result."""
    size = x.shape[2:] if image_size is None else (image_size, image_size)
    result = torch.empty(*x.shape[:2], *size, dtype=torch.float32, device=device)
    mean, std = mean.to(device)[:, None], std.to(device)[:, None]
    for chunk, target in zip(x.split(CHUNK), result.split(CHUNK), strict=True):
        # To the device while still uint8: a quarter of the transfer.
        values = chunk.to(device).to(torch.float32, copy=True)
        _as_channels(values).sub_(mean).div_(std)
        if values.shape != target.shape:
            values = F.interpolate(values, size=size, mode="bilinear", antialias=True)
        target.copy_(values)
    return result


def _check_samples(name: str, raw: _Raw) -> None:
    counts = torch.bincount(raw.train_y, minlength=len(raw.class_names))
    empty = [raw.class_names[k] for k in (counts == 0).nonzero().flatten().tolist()]
    if empty:
        raise ValueError(f"{name}: no training samples of class {', '.join(empty)}")
    if len(raw.test_y) == 0:
        raise ValueError(f"{name}: no test samples")


def _balanced_indices(
    labels: torch.Tensor, classes: int, size: int, rng: np.random.Generator
) -> torch.Tensor:
    """Indices, ascending, of ``size`` samples with as many of each class, or one more of some."""
    counts = torch.bincount(labels, minlength=classes).numpy()
    least = int(counts.min())
    largest = least * classes + int((counts > least).sum())
    if size > largest:
        raise ValueError(
            f"train_size {size} is too large: a class-balanced subset has at most {largest} samples"
            f" (of {len(labels)}, {least} in the smallest class)"
        )
    each, extra = divmod(size, classes)
    has_more = np.flatnonzero(counts > each)
    wanted = np.full(classes, each)
    wanted[rng.permutation(has_more)[:extra]] += 1
    chosen = [
        rng.permutation(np.flatnonzero(labels.numpy() == k))[: wanted[k]] for k in range(classes)
    ]
    return torch.from_numpy(np.sort(np.concatenate(chosen)))


# ------------------------------------------------------------ data that need no files


def _digits() -> _Raw:
    """scikit-learn's 1,797 images of 8 x 8: 140 a class to train, the other 397 to test.

    The training classes are balanced because the paper assumes so (B).
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x = torch.from_numpy(bunch.images.astype(np.uint8)).unsqueeze(1)  # whole numbers 0 .. 16
    y = torch.from_numpy(bunch.target.astype(np.int64))
    names = tuple(str(k) for k in bunch.target_names)
    train = _balanced_indices(
        y, len(names), DIGITS_PER_CLASS * len(names), np.random.default_rng(DIGITS_SEED)
    )
    is_test = torch.ones(len(y), dtype=torch.bool)
    is_test[train] = False
    return _Raw(x[train], y[train], x[is_test], y[is_test], names)


def _gaussians() -> _Raw:
    """A separable mixture ``x = mu_k + eps z``, with ``mu_k`` and ``z`` drawn from N(0, I).

    The paper (section 3.4, Fig. 8) says no more than "separable"; with d = 784 and eps = 0.1 two
    centres are some sqrt(2 d) / eps = 400 standard deviations apart. Training and test samples are
    separate draws around the same centres.
    """
    generator = torch.Generator().manual_seed(GAUSSIAN_SEED)
    centres = torch.randn(GAUSSIAN_CLASSES, GAUSSIAN_DIM, generator=generator)
    y = torch.arange(GAUSSIAN_CLASSES).repeat_interleave(GAUSSIAN_PER_CLASS)

    def draw() -> torch.Tensor:
        noise = torch.randn(len(y), GAUSSIAN_DIM, generator=generator)
        return centres[y] + GAUSSIAN_NOISE * noise

    return _Raw(draw(), y, draw(), y.clone(), tuple(str(k) for k in range(GAUSSIAN_CLASSES)))


def _sample_numbers(count: int, device: str | torch.device) -> Dataset:
    """For the unconstrained-feature model: sample n is the number n, of class n mod K.

    Its features are free, so there is nothing that a test set could hold: it is the training set.
    """
    if count > UFM_SAMPLES:
        raise ValueError(f"train_size {count} is too large: {UFM} has {UFM_SAMPLES} samples")
    if count < UFM_CLASSES:
        raise ValueError(f"train_size {count} is too small: {UFM} has {UFM_CLASSES} classes")
    x = torch.arange(count, device=device).unsqueeze(1)
    y = x.squeeze(1) % UFM_CLASSES
    return Dataset(UFM, x, y, x, y, UFM_CLASSES, tuple(str(k) for k in range(UFM_CLASSES)))


# ------------------------------------------------------------ data that torchvision downloads


@dataclass(frozen=True)
class _Download:
    class_name: str  # in torchvision.datasets
    folder: str  # inside the data folder, torchvision's own layout
    files: tuple[str, ...]  # inside that folder

    def open(self, root: Path, **options) -> "torchvision.datasets.VisionDataset":
        import torchvision.datasets

        return getattr(torchvision.datasets, self.class_name)(str(root), **options)


_IDX_FILES = tuple(
    f"{split}-{kind}-ubyte"
    for split in ("train", "t10k")
    for kind in ("images-idx3", "labels-idx1")
)
_CIFAR_FILES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta")
_DOWNLOADS = {
    "mnist": _Download("MNIST", "MNIST/raw", _IDX_FILES),
    "fashion_mnist": _Download("FashionMNIST", "FashionMNIST/raw", _IDX_FILES),
    "cifar10": _Download("CIFAR10", "cifar-10-batches-py", _CIFAR_FILES),
}
NAMES = ("digits", "gaussians", UFM, *_DOWNLOADS)


def _downloaded(name: str) -> _Raw:
    source, root = _DOWNLOADS[name], data_dir()
    if not all((root / source.folder / file).is_file() for file in source.files):
        _download(name, root)
    try:
        train, test = (source.open(root, train=train) for train in (True, False))
        return _Raw(
            *_image_tensors(train), *_image_tensors(test), tuple(str(c) for c in train.classes)
        )
    except Exception as error:  # whatever a parser says of bytes that are not what they should be
        raise DataNotFoundError(
            f"{name}: damaged files in {root / source.folder};"
            " remove that folder, and run again to download it"
        ) from error


def _image_tensors(
    dataset: "torchvision.datasets.VisionDataset",
) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.as_tensor(dataset.data)
    # MNIST and kin are (N, H, W), CIFAR-10 is (N, H, W, C).
    images = images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2).contiguous()
    labels = torch.as_tensor(dataset.targets, dtype=torch.int64)
    if len(images) != len(labels):
        raise ValueError(f"{len(images)} images, but {len(labels)} labels")
    return images, labels


def _download(name: str, root: Path) -> None:
    """Fetch into a folder of its own, then move file by file: never a half-written file."""
    source = _DOWNLOADS[name]
    _log.warning("downloading %s to %s", name, root)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root, prefix=".download-") as folder, _quiet_network():
            _offer_archives(root, Path(folder))
            source.open(Path(folder), download=True)
            (root / source.folder).mkdir(parents=True, exist_ok=True)
            for file in source.files:
                os.replace(Path(folder, source.folder, file), root / source.folder / file)
    except (OSError, RuntimeError) as error:
        raise DataNotFoundError(
            f"{name} is not in {root} and could not be downloaded there ({_last_line(error)});"
            f" either set {DATA_VARIABLE} to a folder that has {source.folder}/{source.files[0]}"
            " and the files beside it, or run once with a network"
        ) from error


def _offer_archives(root: Path, folder: Path) -> None:
    """Let torchvision find, and unpack, archives that somebody put into ``root`` by hand."""
    for archive in (*root.glob("*.tar.gz"), *root.glob("*/raw/*.gz")):
        link = folder / archive.relative_to(root)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(archive)


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


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


# ------------------------------------------------------------ any folder of images


def _check_layout(name: str) -> tuple[Path, Path]:
    """The folders of training and of test images; ValueError names what is missing."""
    root = Path(name.removeprefix(FOLDER_PREFIX)).expanduser()
    if name == FOLDER_PREFIX or not root.is_dir():
        raise ValueError(f"{name}: there is no folder {str(root)!r}")
    train = root / "train"
    test = next((root / t for t in TEST_FOLDERS if (root / t).is_dir()), None)
    if not train.is_dir() or test is None:
        raise ValueError(
            f"{name}: wanted are images in {root}/train/<class>/ and {root}/test/<class>/"
            f" (or {root}/val/<class>/); there is no {'test' if train.is_dir() else 'train'} folder"
        )
    classes, test_classes = _class_names(train), _class_names(test)
    if not classes:
        raise ValueError(f"{name}: there are no class folders in {train}")
    if classes != test_classes:
        odd = sorted(set(classes) ^ set(test_classes))
        raise ValueError(f"{name}: train and {test.name} must hold the same classes, but: {odd}")
    return train, test


def _class_names(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(d.name for d in folder.iterdir() if d.is_dir()))


def _folder(name: str, image_size: int) -> _Raw:
    train, test = _check_layout(name)
    classes = _class_names(train)
    return _Raw(
        *_read_images(train, classes, image_size), *_read_images(test, classes, image_size), classes
    )


def _read_images(
    folder: Path, classes: tuple[str, ...], image_size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    files = [
        (path, k)
        for k, name in enumerate(classes)
        for path in sorted((folder / name).rglob("*"))
        if path.suffix.lower() in IMAGE_SUFFIXES
    ]
    images = np.empty((len(files), 3, image_size, image_size), dtype=np.uint8)

    def read(i: int) -> None:
        images[i] = _read_image(files[i][0], image_size)

    # Decoding is C code that lets other threads run: for 32-pixel files a third slower than one
    # thread, for photographs faster by the number of cores.
    with ThreadPool() as pool:
        for _ in pool.imap_unordered(read, range(len(files)), chunksize=64):
            pass
    return torch.from_numpy(images), torch.tensor([k for _, k in files], dtype=torch.int64)


def _read_image(path: Path, image_size: int) -> np.ndarray:
    """RGB pixels, (3, image_size, image_size): the largest centred square, resized."""
    try:
        with Image.open(path) as image:
            square = ImageOps.fit(
                image.convert("RGB"), (image_size, image_size), method=Image.Resampling.BILINEAR
            )
    except Exception as error:  # a decoder may raise almost anything at bytes that are no image
        raise ValueError(f"{path}: not an image that can be read ({_last_line(error)})") from error
    return np.asarray(square).transpose(2, 0, 1)
