"""What each worker process of our own does first (Dask's preload)."""

import ncbook.sweep  # noqa: F401  here, before the first chunk: torch takes seconds
