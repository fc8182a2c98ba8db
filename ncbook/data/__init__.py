"""Load a data set by its name, as training and test tensors on the device.

Everything is a plain tensor, and a batch is an index permutation: there is no data loader. Images
from files stay uint8, a quarter of the memory and of the traffic, until ``Dataset.inputs`` turns a
batch into what a network takes.

torchvision is imported where it is used: that takes two seconds and 160 MB, in each process of a
sweep.
"""

from ncbook.data.dataset import UFM, UFM_CLASSES, UFM_SAMPLES, DataNotFoundError, Dataset
from ncbook.data.downloads import DATA_VARIABLE, data_dir
from ncbook.data.folders import IMAGENET_PREFIX
from ncbook.data.imagenet import Streamed
from ncbook.data.images import augmented
from ncbook.data.loading import (
    NAMES,
    check_augmentable,
    fingerprint,
    load,
    plain_name,
    validate_name,
)
