"""Results to figures and tables: every function takes rows of the store and draws all it is given.

``style``: colours and labels. ``selecting``: which runs count. ``words``, ``tables``: what is said
and listed. ``axes``: panels and their axes. ``lines``, ``maps``, ``dots``: figures by their kind.
``law``: what the exact law foretells. ``page``: what a notebook displays. Everything public is
here, too: ``figures.show_if_any`` and so on.
"""

from ncbook.figures.axes import epoch_axis, log_values
from ncbook.figures.display import (
    folded,
    in_rows,
    say_left_out,
    show_if_any,
    side_by_side,
    small_panels,
    with_lines,
)
from ncbook.figures.dots import parity, scatters
from ncbook.figures.law import LAW_FROM, LAWFUL, TRAINING_IMAGES, exact_law
from ncbook.figures.lines import (
    X_LABELS,
    against,
    against_weight_decay,
    over_epochs,
    singular_values,
)
from ncbook.figures.maps import heatmaps
from ncbook.figures.selecting import (
    CONVERGED,
    SWEPT,
    best_run,
    by_optimizer,
    converged,
    even_seeds,
    fraction_of_start,
    having,
    of_setting,
    on_grid,
    over_seeds,
)
from ncbook.figures.style import ACCURACIES, COLOURS, LABELS, MAIN, METRICS, MIXED, look, use_style
from ncbook.figures.tables import best_run_table, by_weight_decay, measured, shown, with_range
from ncbook.figures.words import (
    FOUND,
    caption,
    compared,
    counted,
    counted_by_optimizer,
    describe_best,
    headline,
    outcomes,
    times,
    verdict,
)

__all__ = [
    "ACCURACIES",
    "COLOURS",
    "CONVERGED",
    "FOUND",
    "LABELS",
    "LAWFUL",
    "LAW_FROM",
    "MAIN",
    "METRICS",
    "MIXED",
    "SWEPT",
    "TRAINING_IMAGES",
    "X_LABELS",
    "against",
    "against_weight_decay",
    "best_run",
    "best_run_table",
    "by_optimizer",
    "by_weight_decay",
    "caption",
    "compared",
    "converged",
    "counted",
    "counted_by_optimizer",
    "describe_best",
    "epoch_axis",
    "even_seeds",
    "exact_law",
    "folded",
    "fraction_of_start",
    "having",
    "headline",
    "heatmaps",
    "in_rows",
    "log_values",
    "look",
    "measured",
    "of_setting",
    "on_grid",
    "outcomes",
    "over_epochs",
    "over_seeds",
    "parity",
    "say_left_out",
    "scatters",
    "show_if_any",
    "shown",
    "side_by_side",
    "singular_values",
    "small_panels",
    "times",
    "use_style",
    "verdict",
    "with_lines",
    "with_range",
]
