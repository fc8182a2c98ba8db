"""What each worker process of our own does first (Dask's preload)."""

import gc
import threading

from tqdm import tqdm

gc.disable()  # what is imported stays
import ncbook.sweep  # noqa: E402, F401  here, before the first chunk: torch takes seconds

gc.freeze()
gc.enable()

from ncbook import notices  # noqa: E402

notices.pass_to(lambda *_: None)  # the sweep itself shows them once, for all workers
tqdm.set_lock(threading.RLock())  # torch has bars; their lock for processes would outlive a kill
