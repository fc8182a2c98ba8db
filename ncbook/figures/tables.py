"""Tables of runs, and how a page shows them."""

import pandas as pd
from pandas.io.formats.style import Styler

from ncbook import text
from ncbook.figures.selecting import best_run, converged
from ncbook.figures.style import GAUGE, METRICS

MOST_LINES = 3  # of a cell
# Where a page is narrow letters and gaps shrink before a table has to scroll sideways. 100 cqi are
# the width of the output in the book, and elsewhere of the window.
CELL = "padding: 0.25em min(0.55em, 0.7cqi); font-size: min(1em, 0.2rem + 1.8cqi)"
CELL += "; text-align: right"


def measured(runs: pd.DataFrame) -> dict[str, str]:
    """Labels of NC0 to NC4 and of the gauge of W; a label says if its column is not stored."""
    stored = {name: name in runs and runs[name].notna().any() for name in GAUGE}
    return METRICS | {k: v if stored[k] else f"{v} (not stored)" for k, v in GAUGE.items()}


def best_run_table(runs: pd.DataFrame) -> pd.DataFrame:
    """The best run in the form of Table 2, and the gauge of W: at the start, at the end, change."""
    best = best_run(runs)
    if best is None:
        return pd.DataFrame(columns=["at the start", "at the end", "change"])
    labels = measured(best.to_frame().T)
    start, end = ([best.get(f"{key}{at}", float("nan")) for key in labels] for at in ("_init", ""))
    table = pd.DataFrame(
        {"at the start": start, "at the end": end}, index=[*labels.values()], dtype=float
    )
    return table.assign(change=table["at the end"] / table["at the start"] - 1)


def by_weight_decay(runs: pd.DataFrame) -> pd.DataFrame:
    """For each weight decay: how many runs, converged, diverged, and the converged ones' mean
    NC0 to NC4."""
    counts = runs.groupby("weight_decay").agg(
        runs=("run_id", "size"), diverged=("status", lambda s: (s == "diverged").sum())
    )
    good = converged(runs).groupby("weight_decay")
    counts.insert(1, "converged", good.size().reindex(counts.index, fill_value=0))
    means = good[list(METRICS)].mean().rename(columns=METRICS)
    return counts.join(means).rename_axis("weight decay")


def shown(table: pd.DataFrame, **formats: str) -> Styler:
    """A table as a page shows it: three digits, a dash for what is missing, ``column="{...}"`` for
    columns that want another format. Text is escaped; in a cell, lines after the first are
    small."""
    numbers = table.select_dtypes("float").columns
    if table.index.nlevels == table.columns.nlevels == 1 and table.columns.name is None:
        # The index's name goes into the corner, where it needs no row of its own.
        table = table.rename_axis(index=None, columns=table.index.name)
    styled = table.style.format(_as_html, na_rep="–")
    styled = styled.format("{:.3g}", subset=list(numbers), na_rep="–")
    for column, wanted in formats.items():
        styled = styled.format(wanted, subset=[column], na_rep="–")
    for axis in ("index", "columns"):
        styled = styled.format_index(_as_html, axis=axis)
    looks = {"th, td": CELL, "small": "font-size: 0.85em; white-space: nowrap"}
    return styled.set_table_styles([{"selector": s, "props": p} for s, p in looks.items()])


def _as_html(value: object) -> object:
    if isinstance(value, float):
        return f"{value:g}"
    if not isinstance(value, str):
        return value
    first, *others = (text.html(line) for line in value.split("\n", MOST_LINES - 1))
    return first + "".join(f"<br><small>{line}</small>" for line in others)


def with_range(values: pd.Series, digits: str = ".2g") -> str:
    """A cell for a metric's values: the median, and below it the least and the largest (see
    ``over_seeds``). For ``runs.groupby(by)[metric].agg(with_range)``."""
    middle, low, high = (f"{v:{digits}}" for v in (values.median(), values.min(), values.max()))
    return f"{middle}\n{low}…{high}"
