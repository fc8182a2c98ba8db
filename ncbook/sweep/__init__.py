"""A grid of runs, split into chunks, trained, stored; what is stored already is not trained again.

configs = sweep.grid("adamw", epochs=200)      # the paper's 108 runs of that optimizer
sweep.run(configs, results="results")          # trains those that the store lacks
"""

from ncbook.sweep.cluster import SweepError, scheduler_workers
from ncbook.sweep.engine import (
    check_data,
    chunks,
    default_workers,
    estimate_seconds,
    load_data,
    missing,
    run,
    run_id,
)
from ncbook.sweep.grids import BEYOND, GRIDS, MIXED_GRIDS, Grid, grid
from ncbook.sweep.request import (
    PARAMETERS,
    ParameterError,
    Request,
    check,
    describe,
    duration,
    load_history,
    load_runs,
    read,
)
