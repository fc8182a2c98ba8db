"""Load a data set by its name, as training and test tensors on the device.

Everything is a plain tensor, and a batch is an index permutation: there is no data loader. Images
from files stay uint8, a quarter of the memory and of the traffic, until ``Dataset.inputs`` turns a
batch into what a network takes.

scikit-learn and torchvision are imported where they are used: together they take two seconds and
300 MB, in each process of a sweep, and no data set needs both.
"""

from ncbook.data.augment import augmented, check_augmentable
from ncbook.data.builtin import UFM_CLASSES, UFM_SAMPLES
from ncbook.data.dataset import UFM, DataNotFoundError, Dataset
from ncbook.data.downloads import DATA_VARIABLE, data_dir
from ncbook.data.imagenet import IMAGENET_PREFIX, Streamed
from ncbook.data.loading import NAMES, fingerprint, load, plain_name, validate_name
