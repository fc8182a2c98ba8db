"""One update rule for every optimizer, with coupled and decoupled weight decay.

With g the gradient of one parameter W and d the direction that its optimizer makes of g::

    g <- g + lambda_c W            coupled: the decay is part of the gradient
    d <- direction(g)
    W <- (1 - eta lambda_d) W      decoupled: the decay shrinks the weight
    W <- W - eta d

Directions are of two kinds: those that treat each number of W for itself (``entries``: SGD, Adam,
sign, Lion, MARS), and those for matrices (``matrices``: Muon, Shampoo, SOAP). An optimizer is a
direction and a form of decay (``rules``). ``sign`` with coupled decay is Signum. Where the decay is
divided between the two forms, as in the paper's section 3.4, ``coupled_share`` says how much of it
is coupled.

A reader's own class, ``MODULE:CLASS``, is used as it is (``own``).

To add an optimizer: its direction here, a row of ``OPTIMIZERS``, its name in ``ncbook.parameters``,
a grid in ``ncbook.sweep.grids``, a colour in ``ncbook.figures.style``, and a test.
"""

from ncbook.optim import own
from ncbook.optim.entries import ADAM_BETA2, NUMBERS
from ncbook.optim.matrices import orthogonalised
from ncbook.optim.rules import (
    FOR_MATRICES,
    OPTIMIZERS,
    OWN,
    Rule,
    check_for_matrices,
    is_mixed,
    rule,
    split_decay,
)
from ncbook.optim.steps import BY_NUMBER, Factors, clipped, init_state, refresh, update
from ncbook.optim.torch_optimizer import Optimizer
from ncbook.own import is_own
