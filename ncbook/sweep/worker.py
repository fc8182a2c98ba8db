"""What each worker process of our own does first (Dask's preload)."""

import gc
import threading
import warnings

from tqdm import tqdm

gc.disable()  # what is imported stays
import ncbook.sweep  # noqa: E402, F401  here, before the first chunk: torch takes seconds

gc.freeze()
gc.enable()
from ncbook.train.compiled import UncompiledWarning  # noqa: E402

warnings.simplefilter("ignore", UncompiledWarning)  # the sweep says it once, for all workers
tqdm.set_lock(threading.RLock())  # torch has bars; their lock for processes would outlive a kill
