"""Many members of one architecture trained at once, and measured while they train.

The members of a chunk share everything but their optimizer's numbers: one data set, one order of
minibatches, one initialisation. Their parameters carry a leading member axis, shape (M, ...). Of a
small network ``torch.func.vmap`` runs the one module over it, and a compiled step does the forward
pass, the gradients and the update of all of them; members of a network for images take their steps
one after another. ``train_streaming`` trains one run on images that do not fit memory.

What it costs next to the plain loop: ``benchmarks/sweep_vs_loop.py``, ``benchmarks/networks.py``.
"""

from ncbook.parameters import SCHEDULES, check_whole
from ncbook.train.config import (
    RunConfig,
    check_listing,
    check_samples,
    default_log_epochs,
    learning_rate_factor,
    learning_rate_factors,
)
from ncbook.train.loop import (
    prepare_step,
    repays_compiling,
    step_seconds,
    train_members,
)
from ncbook.train.streaming import stream_step_seconds, train_streaming
