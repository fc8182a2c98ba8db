"""Closed forms and exact simulators of the theorems, in NumPy (SciPy for roots).

``sgd``: the row-sum law and Theorem 3.1. ``signgd``: Theorems 3.3 and 3.4. ``ufm``: the two models
of unconstrained features. What is public of these is here, too: ``theory.row_sum_ratio`` and so on.
``symmetry`` and ``leaks``: the flat direction of softmax, and what moves a weight along it.
"""

from ncbook.theory.sgd import (
    critical_momentum,
    lemma_e6_solution,
    rounding_floor,
    row_sum_closed_form,
    row_sum_decay_rate,
    row_sum_ratio,
    row_sum_stepped,
    row_sum_trajectory,
    theorem31_bound,
)
from ncbook.theory.signgd import (
    decoupled_alpha,
    decoupled_limit,
    off_diagonal,
    signgd_gradient,
    simplex_etf,
    simulate_signgd,
    simulate_signgd_matrix,
    simulate_signgd_scalars,
    turning_points,
)
from ncbook.theory.ufm import (
    State,
    centring,
    invariant_distance,
    mixon_descent,
    mixon_gradient,
    mixon_risk,
    mixon_start,
    normalised_descent,
    project_invariant,
    ufm_gradient,
    ufm_hessian,
    ufm_loss,
    ufm_optimum,
)
