"""Sentences and tables about runs: captions, counts, the best run, and whether an optimizer
collapsed."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pandas as pd
from pandas.io.formats.style import Styler

from ncbook import text
from ncbook.figures.selecting import CONVERGED, best_run, by_optimizer, converged
from ncbook.figures.style import GAUGE, METRICS, label_of
from ncbook.metrics import rule

# The rule's outcomes as predicates.
PREDICATES = {word: word for word in rule.OUTCOMES} | {
    rule.IN_PART: "collapsed in part",
    rule.NOT: "did not collapse",
    rule.NOT_STORED: "collapsed in part, gauge not stored",
}
MOST_LINES = 3  # of a cell
# Where a page is narrow letters and gaps shrink before a table has to scroll sideways. 100 cqi are
# the width of the output in the book, and elsewhere of the window.
CELL = "padding: 0.25em min(0.55em, 0.7cqi); font-size: min(1em, 0.2rem + 1.8cqi)"
CELL += "; text-align: right"


def caption(runs: pd.DataFrame, short: bool = False) -> str:
    """A title, as plain text: optimizers (not if short), data set, network and epochs of some
    runs, and how many of them converged."""
    names = [] if short else [label_of(name) for name, _ in by_optimizer(runs)]
    for column in ("dataset", "model", "epochs"):
        names += [text.line(value, text.NAME) for value in runs[column].unique()]
    return f"{', '.join(names)} epochs (n = {len(converged(runs)):,} of {len(runs):,})"


def counted(runs: pd.DataFrame, least: float = CONVERGED) -> str:
    """How many runs and seeds; how many runs reached a training accuracy, did not, or diverged."""
    diverged = (runs["status"] == "diverged").sum()
    good = ((runs["status"] == "ok") & (runs["train_acc"] >= least)).sum()
    return (
        f"{text.many(len(runs), 'run')} over {text.many(runs['seed'].nunique(), 'seed')}: {good:,} "
        f"reached "
        f"{least:.0%} training accuracy, {len(runs) - good - diverged:,} did not, and {diverged:,} "
        "diverged"
    )


def counted_by_optimizer(runs: pd.DataFrame) -> str:
    """``counted`` for each optimizer, as a list."""
    return "\n".join(f"- {label_of(name)}: {counted(rows)}." for name, rows in by_optimizer(runs))


def describe_best(runs: pd.DataFrame) -> str:
    """Which run the Table 2 rule picks, in one sentence."""
    best = best_run(runs)
    if best is None:
        return f"None of the {len(runs):,} runs reached {CONVERGED:.0%} training accuracy."
    return (
        f"Of {len(converged(runs)):,} converged runs out of {len(runs):,}: {_setting(best)}, seed "
        f"{best.seed}; training accuracy {best.train_acc:.1%}, test accuracy {best.test_acc:.1%}."
    )


def _setting(run: pd.Series) -> str:
    return f"learning rate {run.lr:g}, momentum {run.momentum:g}, weight decay {run.weight_decay:g}"


def outcomes(runs: pd.DataFrame) -> str:
    """How many of some runs collapsed, by the rule of ``ncbook.metrics.rule``."""
    counts = rule.outcome(runs).value_counts()
    listed = [
        f"{n:,} {PREDICATES[word].replace('its', 'its' if n == 1 else 'their')}"
        for word in rule.OUTCOMES
        if (n := counts.get(word))
    ]
    return f"Of {text.many(len(runs), 'run')}: {'; '.join(listed) or 'none'}"


def verdict(runs: pd.DataFrame) -> str:
    """Whether this optimizer collapsed: what the rule of ``ncbook.metrics.rule`` says of its best
    run, and of all its runs."""
    best = best_run(runs)
    if best is None:
        return describe_best(runs) + " Nothing can be said about collapse."
    word, values = judged(best)
    return (
        f"**{label_of(best.optimizer)} {word}.** Its best run ({_setting(best)}) ends with "
        f"{values}. {outcomes(runs)}."
    )


def judged(run: pd.Series) -> tuple[str, str]:
    """What the rule says of one run, and of which values."""
    row = run.to_frame().T
    word = PREDICATES[rule.outcome(row).item()]
    part = word.startswith(PREDICATES[rule.IN_PART])
    word += f" ({rule.below(row).item()} alone)" if part else ""
    metrics = ", ".join(f"{METRICS[name]} {run[name]:.3g}" for name in rule.THREE)
    return word, (
        f"{metrics}, at {run.train_acc:.1%} training accuracy; collapsed means that all three are "
        f"below {rule.THRESHOLD:g}"
    )


def times(factor: float) -> str:
    """By what factor something changed, in at least two digits: 1.7, 38, 1,070."""
    return f"{factor:,.0f}" if factor >= 10 else f"{factor:.1f}"


def measured(runs: pd.DataFrame) -> dict[str, str]:
    """Labels of NC0 to NC4 and of the gauge of W; a label says if its column is not stored."""
    stored = {name: name in runs and runs[name].notna().any() for name in GAUGE}
    return METRICS | {k: v if stored[k] else f"{v} (not stored)" for k, v in GAUGE.items()}


def best_run_table(runs: pd.DataFrame) -> pd.DataFrame:
    """The best run in the form of Table 2, and the gauge of W: at the start, at the end, change."""
    best = best_run(runs)
    if best is None:
        return pd.DataFrame(columns=["at the start", "at the end", "change"])
    run = best.to_frame().T
    table = start_and_end(run, measured(run))
    return table.assign(change=table["at the end"] / table["at the start"] - 1)


def start_and_end(runs: pd.DataFrame, labels: Mapping[str, str]) -> pd.DataFrame:
    """Medians over some runs of labelled columns, a row each, at the start and at the end."""
    table = pd.DataFrame(index=[*labels.values()])
    for at, suffix in (("start", "_init"), ("end", "")):
        values = runs.reindex(columns=[f"{name}{suffix}" for name in labels]).astype(float)
        table[f"at the {at}"] = values.median().to_numpy()
    return table


def by_weight_decay(runs: pd.DataFrame) -> pd.DataFrame:
    """For each weight decay: how many runs, converged, diverged, and the converged ones' mean
    NC0 to NC4."""
    flags = dict(runs=1, converged=rule.learned(runs), diverged=runs["status"] == "diverged")
    counts = runs.assign(**flags).groupby("weight_decay")[list(flags)].sum()
    means = converged(runs).groupby("weight_decay")[list(METRICS)].mean().rename(columns=METRICS)
    return counts.join(means).rename_axis("weight decay")


def shown(table: pd.DataFrame, **formats: str | Callable[[Any], object]) -> Styler:
    """A table as a page shows it: three digits, a dash for what is missing, ``column="{...}"`` for
    another format, or a function. Text is escaped; in a cell, lines after the first are small."""
    if table.index.nlevels == table.columns.nlevels == 1 and table.columns.name is None:
        # The index's name goes into the corner, where it needs no row of its own.
        table = table.rename_axis(index=None, columns=table.index.name)
    wanted = dict.fromkeys(table, _as_html)
    numbers = dict.fromkeys(table.select_dtypes("float"), "{:.3g}") | formats
    wanted |= {n: partial(_number, f) if isinstance(f, str) else f for n, f in numbers.items()}
    styled = table.style.format(wanted, na_rep="–")
    styled = styled.format_index(_as_html).format_index(_as_html, axis="columns")
    looks = {"th, td": CELL, "small": "font-size: 0.85em; white-space: nowrap"}
    return styled.set_table_styles([{"selector": s, "props": p} for s, p in looks.items()])


def _as_html(value: object) -> object:
    if not isinstance(value, str):
        return _number("{:g}", value) if isinstance(value, float) else value
    first, *others = (text.html(line) for line in value.split("\n", MOST_LINES - 1))
    return first + "".join(f"<br><small>{line}</small>" for line in others)


def _number(form: str, value: float) -> str:
    """With a minus sign, which fonts draw as wide as a digit, for the hyphen."""
    return form.format(value).replace("-", "\N{MINUS SIGN}")


def with_range(values: pd.Series, digits: str = ".2g") -> str:
    """A cell for a metric's values: the median, and below it the least and the largest, if they
    differ (see ``over_seeds``). For ``runs.groupby(by)[metric].agg(with_range)``."""
    told = values.median(), values.min(), values.max()
    middle, low, high = (_number(f"{{:{digits}}}", value) for value in told)
    return middle if low == high else f"{middle}\n{low}…{high}"
