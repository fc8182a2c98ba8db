"""Results to figures and tables: every function takes rows of the store and draws all it is given.

``style``: colours and labels. ``selecting``: which runs count. ``words``, ``tables``: sentences and
tables about runs. ``axes``: panels and their axes. ``lines``, ``maps``, ``dots``: figures by their
kind. ``law``: the exact law's prediction. ``display``: what a notebook's page shows. Everything
public is here, too: ``figures.show_if_any`` and so on.
"""

from ncbook.figures.axes import epoch_axis, log_values
from ncbook.figures.display import (
    folded,
    in_rows,
    say_left_out,
    show_if_any,
    side_by_side,
    small_panels,
    start_chapter,
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
