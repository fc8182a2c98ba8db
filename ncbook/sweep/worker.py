"""What each worker process of our own does first (Dask's preload)."""

import threading

from tqdm import tqdm

import ncbook.sweep  # noqa: F401  here, before the first chunk: torch takes seconds
from ncbook import notices

notices.pass_to(lambda *_: None)  # the sweep itself shows them once, for all workers
tqdm.set_lock(threading.RLock())  # torch has bars; their lock for processes would outlive a kill
