"""A data set's name becomes training and test tensors on the device.

Everything is held as plain tensors: a batch is an index permutation, and no loader stands between
the data and the step. Images from files stay uint8, a quarter of the memory and of the traffic,
until ``Dataset.inputs`` makes of a batch what a network takes.

scikit-learn and torchvision are imported where they are used: together they take two seconds and
300 MB, in each process of a sweep, and no data set needs both.
"""

from ncbook.data.augment import augmented, check_augmentable
from ncbook.data.builtin import UFM_CLASSES, UFM_SAMPLES
from ncbook.data.dataset import UFM, DataNotFoundError, Dataset
from ncbook.data.downloads import DATA_VARIABLE, data_dir
from ncbook.data.folders import LeftOutWarning
from ncbook.data.imagenet import IMAGENET_PREFIX, Streamed
from ncbook.data.loading import NAMES, fingerprint, load, plain_name, validate_name

__all__ = [
    "DATA_VARIABLE",
    "IMAGENET_PREFIX",
    "NAMES",
    "UFM",
    "UFM_CLASSES",
    "UFM_SAMPLES",
    "DataNotFoundError",
    "Dataset",
    "LeftOutWarning",
    "Streamed",
    "augmented",
    "check_augmentable",
    "data_dir",
    "fingerprint",
    "load",
    "plain_name",
    "validate_name",
]
