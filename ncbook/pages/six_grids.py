"""The paper's six grids on the book's small default, the digits MLP: what several chapters read."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from ncbook import figures, live, store, sweep
from ncbook.metrics import rule

SETTING = {"dataset": "digits", "model": "mlp", "epochs": 200}
SEEDS = [0, 1, 2, 3, 4]


def line(*optimizers: str, **options: object) -> str:
    """The shell lines that train some optimizers' grids with five seeds, or the part of the grids
    that ``options`` select.

    >>> print(line("adam", momenta=0.9))
    for optimizer in adam; do
        papermill notebooks/sweep.ipynb out.ipynb -p optimizer $optimizer \\
            -p seeds "[0, 1, 2, 3, 4]" \\
            -p momenta 0.9
    done
    """
    given = {"seeds": SEEDS} | options
    words = {name: f'"{value}"' if " " in str(value) else value for name, value in given.items()}
    more = "".join(f" \\\n        -p {name} {word}" for name, word in words.items())
    return (
        f"for optimizer in {' '.join(optimizers)}; do\n"
        f"    papermill notebooks/sweep.ipynb out.ipynb -p optimizer $optimizer{more}\ndone"
    )


LINE = line(*sweep.GRIDS)


def stored(results: str | Path | None = None) -> pd.DataFrame:
    """All runs of this network, data set and length, on the grids or not."""
    return figures.of_setting(store.load_runs(results), **SETTING)


def complete(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs that are on the grids, of seeds whose grid is complete (``figures.even_seeds``)."""
    return figures.even_seeds(figures.on_grid(runs, sweep.GRIDS))


def counted(runs: pd.DataFrame) -> str:
    """How many runs are ``complete``, by optimizer, and how many more are on the grids."""
    grids = complete(runs)
    more = len(figures.on_grid(runs, sweep.GRIDS)) - len(grids)
    rest = f" {more} more are of seeds whose grid is not complete, and left out." * (more > 0)
    return (
        f"In the store:\n\n{figures.counted_by_optimizer(grids)}\n\nWhat follows is about those "
        f"that reached it, unless it says otherwise.{rest}"
    )


def headline_figure(runs: pd.DataFrame) -> Figure:
    """The book's first picture: NC0 and NC3 of the six optimizers against weight decay."""
    return figures.against_weight_decay(runs, title=figures.caption(runs, short=True))


def collapsed_words(runs: pd.DataFrame) -> str:
    """How many converged runs of each optimizer collapsed, by the book's rule."""
    parts = [
        f"{int(rule.collapsed(rows).sum())} of {len(rows)} under {figures.LABELS[name]}"
        for name, rows in figures.by_optimizer(figures.converged(runs))
    ]
    return (
        f"By the book's rule (NC1, NC2 and NC3 all below {rule.THRESHOLD:g} at the end) "
        f"these converged runs collapsed: {', '.join(parts)}."
    )


def live_figure(runs: pd.DataFrame, results: str | Path | None = None) -> live.LiveFigure:
    """The book's live picture: NC0 over the epochs and NC3 at the end, for each optimizer the
    median of the runs that learned; a slider chooses among the weight decays of all optimizers."""
    decays = sorted(set.intersection(*runs.groupby("optimizer")["weight_decay"].agg(set)))
    good = figures.converged(runs)
    good = good[good["weight_decay"].isin(decays)]
    history = store.load_history(results, run_id=good["run_id"].tolist())
    history = history[history.groupby("epoch")["run_id"].transform("size") == len(good)]
    starts = history["run_id"].map(good.set_index("run_id")["nc0_init"])
    groups = history.assign(left=history["nc0"] / starts).groupby(
        ["optimizer", "weight_decay", "epoch"]
    )
    # For each optimizer the lines of its decays, with NaN where none of its runs learned.
    names = [name for name, _ in figures.by_optimizer(runs)]
    every = pd.MultiIndex.from_product([names, decays])
    left, nc3 = (groups[name].median().unstack().reindex(every) for name in ("left", "nc3"))
    what = figures.caption(good, short=True).partition(" (n")[0]
    caption = (
        f"{what}: the median of the runs that learned, at any learning rate and momentum (n = "
        f"{len(good):,}). Solid: coupled decay. Dashed: decoupled. Below, NC3 at the end; the bars "
        "are shares of its start."
    )
    labels = {name: figures.LABELS[name] for name in names}
    return live.training(left, nc3.iloc[:, -1], good["nc3_init"].median(), labels, caption)


def save_headline(results: str, path: str) -> None:
    """Save ``headline_figure`` as a file, for the README."""
    figures.use_style()
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    headline_figure(complete(stored(results))).savefig(path, dpi=150)
