"""Results to figures and tables: every function takes rows of the store and draws all it is given.

``style``: colours, labels, axes. ``selecting``: which runs count, and the exact law's prediction.
``words``: sentences and tables about runs. ``plots``: all figures. ``display``: what a notebook's
page shows. Everything public is here, too: ``figures.show_if_any`` and so on.
"""

from ncbook.figures.display import (
    in_rows,
    say_left_out,
    show_if_any,
    side_by_side,
    small_panels,
    start_chapter,
    with_lines,
)
from ncbook.figures.layers import by_layer
from ncbook.figures.network import cosines, in_words, metrics_table, spectrum
from ncbook.figures.plots import (
    X_LABELS,
    against,
    against_by_setting,
    against_weight_decay,
    draw_band,
    heatmaps,
    over_epochs,
    pair_map,
    parity,
    parity_by_format,
    raw_and_centred,
    scatters,
)
from ncbook.figures.selecting import (
    CONVERGED,
    FILLED_IN,
    LAW_FROM,
    LAWFUL,
    SWEPT,
    TRAINING_IMAGES,
    best_run,
    by_optimizer,
    converged,
    even_seeds,
    exact_law,
    fraction_of_start,
    having,
    head_optimizer,
    of_setting,
    on_grid,
    over_seeds,
    products,
    uniform,
)
from ncbook.figures.style import (
    ACCURACIES,
    COLOURS,
    GAUGE,
    LABELS,
    MAIN,
    METRICS,
    MIXED,
    epoch_axis,
    log_values,
    look,
    present,
    use_style,
)
from ncbook.figures.words import (
    best_run_table,
    by_weight_decay,
    caption,
    counted,
    counted_by_optimizer,
    describe_best,
    outcomes,
    shown,
    start_and_end,
    times,
    verdict,
    with_range,
)
