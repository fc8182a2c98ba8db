"""Results to figures and tables: every function takes rows of the store and draws all it is given.

Colours belong to optimizers and are the same everywhere; they are the colour-blind-safe ones of
Okabe and Ito. Coupled decay is drawn solid, decoupled dashed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import HTML, Markdown, display
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter
from pandas.io.formats.style import Styler

from ncbook import alt_text, data, models, regression, theory
from ncbook.train import RunConfig, learning_rate_factors

if TYPE_CHECKING:  # the sweep brings Dask along, which takes a second to import
    from ncbook.sweep import Grid

CONVERGED = 0.99  # training accuracy from which the paper counts a run (D, Table 2)
# Okabe and Ito, "Color Universal Design" (2008): one hue a direction, dark = coupled.
COLOURS = {
    "sgd": "#0072B2",
    "sgdw": "#56B4E9",
    "adam": "#D55E00",
    "adamw": "#E69F00",
    "signum": "#009E73",
    "signumw": "#CC79A7",
}
LABELS = {
    "sgd": "SGD",
    "sgdw": "SGDW",
    "adam": "Adam",
    "adamw": "AdamW",
    "signum": "Signum",
    "signumw": "SignumW",
}
MIXED = "_mixed"  # how the names of section 3.4's optimizers end
COLLAPSED = {"nc0": 0.1, "nc3": 0.15}  # shares of the value at the start; see verdict
NOT_COLLAPSED_NC0 = 0.5
ONE_LINE = "white-space: nowrap"
# On a phone, whose width is 100 vw, letters and gaps shrink before a table has to scroll sideways.
CELL = "padding: 0.25em min(0.55em, 0.8vw); font-size: min(1em, 2.7vw); text-align: right"
METRICS = {f"nc{i}": f"NC{i}" for i in range(5)}
ACCURACIES = {"train_acc": "training accuracy", "test_acc": "test accuracy"}
SWEPT = ("optimizer", "lr", "momentum", "weight_decay", "coupled_share", "seed")
X_LABELS = {
    "weight_decay": "weight decay $\\lambda$",
    "coupled_share": "coupled share $s$ of the weight decay",
    "coupled_decay": "coupled decay $\\lambda_c$",
    "effective_decay": "effective decay $\\lambda_{\\mathrm{eff}}$",
}
TRAINING_IMAGES = {"digits": 1400, "mnist": 60_000, "fashion_mnist": 60_000, "cifar10": 50_000}
TRAINING_IMAGES |= {data.UFM: data.UFM_SAMPLES}
LAWFUL = ("sgd", "sgdw", "sgd_mixed")  # the optimizers that the exact law speaks of
LAW_FROM = 1e-9  # far below the share of NC0 that rounding leaves, some 1e-7
MARKS = ["o", "s", "^", "D", "v"]
MAIN = ("nc0", "nc1", "nc2", "nc3")
FOUND = {False: "Differs", True: "Agrees", None: "Beyond the paper"}  # in a page's order


def use_style() -> None:
    """The shared look of every figure in the book, with alternative text in a notebook."""
    alt_text.use()
    sns.set_theme(context="notebook", style="ticks", font_scale=0.9)
    plt.rcParams |= {
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": "#dddddd",
        "grid.linewidth": 0.6,
        "figure.dpi": 110,
        "savefig.bbox": "tight",
        "legend.frameon": False,
    }


# --------------------------------------------------------------------------------- tables


def converged(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs that did not diverge and reached 99 % training accuracy."""
    return runs[(runs["status"] == "ok") & (runs["train_acc"] >= CONVERGED)]


def best_run(runs: pd.DataFrame) -> pd.Series | None:
    """The paper's Table 2 rule: the least NC3 among the converged runs; None if there is none."""
    good = converged(runs)
    return None if good.empty else good.iloc[good["nc3"].argmin()]


def best_run_table(runs: pd.DataFrame) -> pd.DataFrame:
    """The best run in the form of Table 2: NC0 to NC4 at the start, at the end, and the change."""
    best = best_run(runs)
    if best is None:
        return pd.DataFrame(columns=["at the start", "at the end", "change"])
    rows = {
        label: (best[f"{key}_init"], best[key], best[key] / best[f"{key}_init"] - 1)
        for key, label in METRICS.items()
    }
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.columns = ["at the start", "at the end", "change"]
    return table


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
    columns that want another format."""
    numbers = table.select_dtypes("float").columns
    if table.index.nlevels == table.columns.nlevels == 1 and table.columns.name is None:
        # The index's name in the corner: below it, it would have a row of its own.
        table = table.rename_axis(index=None, columns=table.index.name)
    styled = table.style.format("{:.3g}", subset=list(numbers), na_rep="–")
    for column, text in formats.items():
        styled = styled.format(text, subset=[column], na_rep="–")
    if pd.api.types.is_numeric_dtype(table.index):
        styled = styled.format_index("{:g}")
    looks = {"th, td": CELL, "small": "font-size: 0.85em"}
    return styled.set_table_styles([{"selector": s, "props": p} for s, p in looks.items()])


# ---------------------------------------------------------------------------------- words


def caption(runs: pd.DataFrame, short: bool = False) -> str:
    """Optimizers (not in short), data set, network and epochs of some runs, and how many of them
    converged."""
    names = [] if short else [_label(name) for name, _ in by_optimizer(runs)]
    for column in ("dataset", "model", "epochs"):
        names += [str(value) for value in runs[column].unique()]
    return f"{', '.join(names)} epochs (n = {len(converged(runs))} of {len(runs)})"


def headline(runs: pd.DataFrame) -> str:
    """The book's result in one sentence: the least NC3 of each optimizer with weight decay, over
    that of Adam."""
    decayed = runs[runs["weight_decay"] > 0]
    good = converged(decayed)
    least = {name: rows["nc3"].min() for name, rows in by_optimizer(good)}
    if not {"adam", "adamw", "signumw"} <= least.keys():
        return (
            f"{len(good)} of {len(decayed)} runs with weight decay converged: too few to compare."
        )
    shown = ", ".join(f"{_label(name)} {value:.2g}" for name, value in least.items())
    ratios = " and ".join(
        f"{LABELS[name]}'s is {least[name] / least['adam']:.0f} times"
        for name in ("adamw", "signumw")
    )
    return (
        f"Over {len(good)} converged runs with weight decay, the least NC3 that each "
        f"optimizer reaches is: {shown}. {ratios} Adam's."
    )


def describe_best(runs: pd.DataFrame) -> str:
    """Which run the Table 2 rule picks, in one sentence."""
    best = best_run(runs)
    if best is None:
        return f"None of the {len(runs)} runs reached {CONVERGED:.0%} training accuracy."
    return (
        f"Of {len(converged(runs))} converged runs out of {len(runs)}: learning rate "
        f"{best.lr:g}, momentum {best.momentum:g}, weight decay {best.weight_decay:g}, seed "
        f"{best.seed}; training accuracy {best.train_acc:.1%}, test accuracy {best.test_acc:.1%}."
    )


def verdict(runs: pd.DataFrame) -> str:
    """Whether this optimizer collapsed, in words, from its best run.

    As the paper's section 4.1 does, strength is measured against the start. The lines drawn are
    ours, with its Table 2 in mind, where Adam with 7 % of NC0 and 12 % of NC3 left counts as
    collapsed: NC0 below 10 % and NC3 below 15 % is a collapse; NC0 above half of its start is none,
    whatever the other metrics do, since NC0 -> 0 is necessary for it (Proposition 2.1). They were
    moved after a first sweep: at 1 % and 10 % Adam's and Signum's best runs collapsed "in part".
    """
    best = best_run(runs)
    if best is None:
        return describe_best(runs) + " Nothing can be said about collapse."
    name, nc0, nc3 = _label(best.optimizer), best.nc0 / best.nc0_init, best.nc3 / best.nc3_init
    if nc0 < COLLAPSED["nc0"] and nc3 < COLLAPSED["nc3"]:
        word = f"**{name} collapsed.**"
    elif nc0 > NOT_COLLAPSED_NC0:
        word = f"**{name} did not collapse.**"
    else:
        word = f"**{name} collapsed in part.**"
    return (
        f"{word} In its best run (learning rate {best.lr:g}, momentum {best.momentum:g}, weight "
        f"decay {best.weight_decay:g}) NC0 went from {best.nc0_init:.3g} to {best.nc0:.3g} "
        f"({_share(nc0)} of the start) and NC3 from {best.nc3_init:.3g} to {best.nc3:.3g} "
        f"({_share(nc3)}), at {best.train_acc:.1%} training accuracy."
    )


def _share(ratio: float) -> str:
    if ratio < 1e-4:
        return "under 0.01%"
    return f"{ratio:.2%}" if ratio < 0.1 else f"{ratio:.0%}"


# -------------------------------------------------------------------------------- figures


def against_weight_decay(
    runs: pd.DataFrame,
    metrics: Sequence[str] = ("nc0", "nc3"),
    title: str = "",
    only_converged: bool = True,
) -> Figure:
    """Fig. 1 and 3: metrics at the end against weight decay, mean and ±1 sd over the converged
    runs of each optimizer; or, as Fig. 17 and 18, over all that did not diverge."""
    good = converged(runs) if only_converged else runs[runs["status"] == "ok"]
    figure, axes = _panels(len(metrics))
    for axis, metric in zip(axes, metrics, strict=True):
        for optimizer, rows in by_optimizer(good):
            _band(axis, rows, metric, optimizer, runs["weight_decay"])
        _decay_axis(axis, runs["weight_decay"])
        axis.set_ylabel(f"{METRICS[metric]} at the end")
        log_values(axis)
    return _finish(figure, axes, title)


def _band(
    axis: Axes, rows: pd.DataFrame, metric: str, optimizer: str, decays: Sequence[float]
) -> None:
    stats = rows.groupby("weight_decay")[metric].agg(["mean", "std", "min"])
    x = _decay_position(stats.index.to_numpy(), decays)
    axis.plot(x, stats["mean"], marker="o", ms=4, **look(optimizer))
    spread = stats["std"].fillna(0)
    # On a log axis mean - sd may be negative: the band then ends at the least value seen.
    low = (stats["mean"] - spread).clip(lower=stats["min"])
    axis.fill_between(x, low, stats["mean"] + spread, color=_colour(optimizer), alpha=0.18, lw=0)


def heatmaps(
    runs: pd.DataFrame, metrics: Sequence[str] = ("nc0", "nc2", "nc3"), title: str = ""
) -> Figure:
    """Fig. 4: momentum x weight decay, mean over learning rates of the converged runs; cells
    without one are left grey."""
    figure, axes = plt.subplots(
        1, len(metrics), figsize=(3.6 * len(metrics), 3.6), squeeze=False, layout="constrained"
    )
    decays, momenta = (np.sort(runs[c].unique()) for c in ("weight_decay", "momentum"))
    for axis, metric in zip(axes[0], metrics, strict=True):
        table = converged(runs).pivot_table(index="weight_decay", columns="momentum", values=metric)
        _heatmap(axis, table.reindex(index=decays[::-1], columns=momenta))
        axis.set(title=METRICS[metric], xlabel="momentum $\\beta$", ylabel="")
    for axis in axes[0, 1:]:
        axis.set_yticks([])
    axes[0, 0].set_ylabel("weight decay $\\lambda$")
    return _finish(figure, axes[0], title)


def _heatmap(axis: Axes, table: pd.DataFrame) -> None:
    axis.set_facecolor("#eeeeee")
    positive = table.to_numpy()[table.to_numpy() > 0]
    if not positive.size:
        axis.text(0.5, 0.5, "no run converged", ha="center", transform=axis.transAxes)
        return
    norm = LogNorm(positive.min(), positive.max())
    labels = table.map(lambda v: "" if np.isnan(v) else _short(v))
    sns.heatmap(
        table,
        ax=axis,
        norm=norm,
        cmap="viridis",
        annot=labels,
        fmt="",
        annot_kws={"fontsize": 8},
        cbar=False,
        linewidths=0.5,
        xticklabels=[f"{c:g}" for c in table.columns],
        yticklabels=[f"{r:g}" for r in table.index],
    )
    axis.tick_params(axis="y", rotation=0)


def over_epochs(
    history: pd.DataFrame,
    metrics: Sequence[str] = ("nc0", "nc1", "nc2", "nc3"),
    hue: str = "weight_decay",
    title: str = "",
) -> Figure:
    """Fig. 5: metrics over epochs, one line for each value of ``hue``, median and quartiles."""
    figure, axes = _panels(len(metrics))
    for axis, metric in zip(axes, metrics, strict=True):
        _over_epochs(axis, history, metric, hue)
        axis.set_ylabel(METRICS[metric])
        log_values(axis)
    return _finish(figure, axes, title, legend_title=hue.replace("_", " "))


def singular_values(
    history: pd.DataFrame, hue: str = "weight_decay", title: str = "", matrices: str = "wm"
) -> Figure:
    """Fig. 6 and 16: singular values of W and M over epochs: the mean of all but the smallest
    (solid) and, for W, the smallest (dotted). M's smallest is zero whatever the network does,
    since M's rows are centred: it is not drawn."""
    figure, axes = _panels(len(matrices))
    for axis, matrix in zip(axes, matrices, strict=True):
        _over_epochs(axis, history, f"{matrix}_sv_mean", hue)
        axis.set_ylabel(f"singular values of {matrix.upper()}")
        if matrix == "w":
            _over_epochs(axis, history, "w_sv_min", hue, dotted=True)
        log_values(axis)
    return _finish(figure, axes, title, legend_title=hue.replace("_", " "))


# --------------------------------------------------------------------------------- pieces


def _panels(count: int) -> tuple[Figure, np.ndarray]:
    """Up to two panels in a row: more would be too small to read on a page."""
    columns = min(count, 2)
    rows = -(-count // columns)
    size = (4.4 * columns, 3.4 * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for axis in axes.flat[count:]:
        axis.remove()
    return figure, axes.flatten()[:count]


def _finish(figure: Figure, axes: np.ndarray, title: str, legend_title: str = "") -> Figure:
    """Title, and one legend for all panels, to the right of them, where it covers no data."""
    handles, labels = axes[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, title=legend_title, loc="outside right center")
    figure.suptitle(title)
    plt.close(figure)  # a notebook shows what a cell returns; left open, it would show it twice
    return figure


def by_optimizer(runs: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The runs of each optimizer that there is, in the order of ``COLOURS``."""
    return [(name, runs[runs["optimizer"] == name]) for name in _present(runs["optimizer"])]


def _present(optimizers: pd.Series) -> list[str]:
    """Those that occur, in the order of ``COLOURS``, each before its ``_mixed`` one."""
    names = [name for stem in COLOURS for name in (stem, stem + MIXED)]
    return [name for name in names if (optimizers == name).any()]


def _label(optimizer: str) -> str:
    stem = optimizer.removesuffix(MIXED)
    return LABELS[stem] + (", mixed" if stem != optimizer else "")


def _colour(optimizer: str) -> str:
    """That of its direction for an optimizer of which some decay is coupled, some decoupled."""
    return COLOURS[optimizer.removesuffix(MIXED)]


def look(optimizer: str) -> dict[str, str]:
    """How its line looks everywhere: colour, label, and dashed if its decay is decoupled."""
    style = "--" if optimizer.endswith("w") else "-"
    return {"color": _colour(optimizer), "label": _label(optimizer), "linestyle": style}


def _zero_stands_at(decays: Sequence[float]) -> float:
    """Where weight decay 0 is drawn on a log axis: a decade below the least positive one."""
    positive = [d for d in decays if d > 0]
    return min(positive) / 10 if positive else 0.1


def _decay_position(decays: Sequence[float], all_decays: Sequence[float]) -> np.ndarray:
    return np.where(np.asarray(decays) > 0, decays, _zero_stands_at(all_decays))


def _decay_axis(axis: Axes, decays: Sequence[float]) -> None:
    values = np.sort(pd.unique(np.asarray(decays)))
    axis.set(xscale="log", xlabel="weight decay $\\lambda$")
    positions = _decay_position(values, values)
    # Upright: 5 and 10, of AdamW's grid, stand too near each other for slanting words.
    axis.set_xticks(positions, [f"{v:g}" for v in values], rotation=90)
    axis.minorticks_off()


def _over_epochs(
    axis: Axes, history: pd.DataFrame, column: str, hue: str, dotted: bool = False
) -> None:
    """Median over the runs of each value of ``hue``, with the band between the quartiles."""
    if history.empty:
        return
    for value, colour, label in _hues(history[hue]):
        groups = history[history[hue] == value].groupby("epoch")[column]
        middle, low, high = (groups.quantile(q) for q in (0.5, 0.25, 0.75))
        look = dict(color=colour, label=None if dotted else label)
        axis.plot(middle.index, middle, ":" if dotted else "-", **look)
        axis.fill_between(middle.index, low, high, color=colour, alpha=0.12, lw=0)
    epoch_axis(axis, int(history["epoch"].max()))


def epoch_axis(axis: Axes, last: int) -> None:
    """Epochs 0, 1, 10, 100 ... at equal distances, to the last one."""
    last = max(1, last)
    axis.set_xscale("symlog", linthresh=1)
    axis.set_xlim(0, last)
    ticks = [t for t in (0, 1, 10, 100, 1000) if t < last / 2.5]
    axis.set_xticks([*ticks, last], [str(t) for t in (*ticks, last)])
    axis.minorticks_off()
    axis.set_xlabel("epoch")


def log_values(axis: Axes) -> None:
    """A log y axis whose ticks read as numbers where it spans little, as powers where much."""
    axis.set_yscale("log")
    _log_ticks(axis.yaxis)


def _log_ticks(axis: Axis) -> None:
    low, high = axis.get_view_interval()
    if high < 1000 * low:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axis.set_minor_formatter(NullFormatter())


def _short(value: float) -> str:
    """Two digits, in as few characters as a cell of a map has room for."""
    text = f"{value:.2g}" if value >= 0.001 else f"{value:.1e}"
    return text.replace("e-0", "e-").replace("e+0", "e")


# ----------------------------------------------------- one setting's runs, over their seeds


def of_setting(runs: pd.DataFrame, **setting: object) -> pd.DataFrame:
    """The runs with these settings, and with the defaults of ``RunConfig`` for all that is neither
    named here nor swept. Null, or a column that an older store lacks, stands for the default. The
    metrics have columns even if there is no run that has them.

    >>> of_setting(store.load_runs(), dataset="mnist", model="vgg9", epochs=100)  # doctest: +SKIP
    """
    defaults = {f.name: f.default for f in fields(RunConfig) if f.name not in SWEPT}
    defaults["schedule"] = models.MODELS[setting.get("model", defaults["model"])].schedule
    kept = pd.Series(True, index=runs.index)
    for name, wanted in (defaults | setting).items():
        column = runs.get(name, pd.Series(None, index=runs.index, dtype=object))
        kept &= (column == wanted) | (column.isna() & (wanted == defaults.get(name)))
    columns = (*SWEPT, *METRICS, *(f"{metric}_init" for metric in METRICS))
    return runs[kept].assign(**{name: np.nan for name in columns if name not in runs})


def given(runs: pd.DataFrame, line: str, *shows: Callable[[pd.DataFrame], object]) -> None:
    """Display what each of ``shows`` makes of the runs: text as Markdown, a figure with its label
    as alternative text. If there are none: a sentence, and the line of a shell that trains them
    (or, if that is empty, the sentence alone)."""
    if runs.empty:
        sentence = "The store has no such runs yet, so there is nothing to show here."
        code = f" To train them:\n\n```bash\n{line.strip()}\n```" if line else ""
        display(Markdown(sentence + code))
        return
    for show in shows:
        made = show(runs)
        made = Markdown(made) if isinstance(made, str) else made
        display(alt_text.described(made) if isinstance(made, Figure) else made)


def counted(runs: pd.DataFrame, least: float = CONVERGED) -> str:
    """How many runs and seeds; how many runs reached a training accuracy, did not, or diverged."""
    diverged = int((runs["status"] == "diverged").sum())
    good = int(((runs["status"] == "ok") & (runs["train_acc"] >= least)).sum())
    seeds = runs["seed"].nunique()
    return (
        f"{len(runs)} runs over {seeds} seed{'' if seeds == 1 else 's'}: {good} reached "
        f"{least:.0%} training accuracy, {len(runs) - good - diverged} did not, and {diverged} "
        f"diverged"
    )


def counted_by_optimizer(runs: pd.DataFrame) -> str:
    """A list with what ``counted`` says of each optimizer."""
    return "\n".join(f"- {_label(name)}: {counted(rows)}." for name, rows in by_optimizer(runs))


def even_seeds(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs of those seeds that have as many runs of an optimizer as any seed has. What is left
    out are seeds whose grid is not complete (yet): they would count in some settings only, and
    tilt every mean over the grid."""
    counts = runs.groupby(["optimizer", "seed"])["optimizer"].transform("size")
    return runs[counts == counts.groupby(runs["optimizer"]).transform("max")]


def having(runs: pd.DataFrame, *optimizers: str) -> pd.DataFrame:
    """The runs if each of these optimizers has some of them, else none: for ``given``."""
    return runs if set(optimizers) <= set(runs["optimizer"]) else runs[:0]


def left(runs: pd.DataFrame, metrics: Sequence[str] = MAIN) -> pd.DataFrame:
    """What is left of each metric: its value at the end over that at the start."""
    return pd.DataFrame({metric: runs[metric] / runs[f"{metric}_init"] for metric in metrics})


def collapsed(runs: pd.DataFrame) -> pd.Series:
    """Whether each run collapsed, by the lines that ``verdict`` draws: true or false a row."""
    return (left(runs, list(COLLAPSED)) < pd.Series(COLLAPSED)).all(axis=1)


def compared(findings: Sequence[tuple[bool | None, str]]) -> str:
    """A list of findings, each with what it says of the paper's: disagreements (False) first, then
    what agrees (True), then what the paper does not speak of (None)."""
    order = list(FOUND)
    ordered = sorted(findings, key=lambda finding: order.index(finding[0]))
    return "\n".join(f"- *{FOUND[agrees]}.* {words}" for agrees, words in ordered)


def over_seeds(runs: pd.DataFrame, by: str | list[str], metric: str) -> pd.DataFrame:
    """Median, least and largest of a metric, and the number n of its values, for each ``by``.

    The median of what n independent runs are drawn from lies between their least and their largest
    with probability 1 - 2^(1 - n), whatever they are drawn from: 94 % for five seeds.
    """
    return runs.groupby(by)[metric].agg(median="median", low="min", high="max", n="count")


def with_range(values: pd.Series, digits: str = ".2g") -> str:
    """What a table's cell says of a metric's values: the median, and below it the least and the
    largest (see ``over_seeds``). For ``runs.groupby(by)[metric].agg(with_range)``."""
    middle, low, high = (f"{v:{digits}}" for v in (values.median(), values.min(), values.max()))
    return f'{middle}<br><small style="{ONE_LINE}">{low}…{high}</small>'


def times(factor: float) -> str:
    """By what factor something changed, in at least two digits: 1.7, 38, 1,070."""
    return f"{factor:,.0f}" if factor >= 10 else f"{factor:.1f}"


def against(
    runs: pd.DataFrame,
    x: str,
    metrics: Sequence[str] = ("nc0", "nc3"),
    hue: str = "optimizer",
    title: str = "",
) -> Figure:
    """Metrics at the end against a setting, one line for each value of ``hue``: the median of all
    runs given, with the band from the least to the largest (see ``over_seeds``).

    Args:
        runs: those to draw; converged or not is the caller's to choose.
        x: a column named in ``X_LABELS``.
        metrics: of ``METRICS`` (log axes) or ``ACCURACIES``.
        hue: ``optimizer``, or a column of numbers.
    """
    figure, axes = _panels(len(metrics))
    for axis, metric in zip(axes, metrics, strict=True):
        for value, colour, label in _hues(runs[hue]):
            style = "--" if str(value).endswith("w") else "-"
            rows = over_seeds(runs[runs[hue] == value], x, metric).dropna()
            at, rows = _placed(x, rows, runs[x])
            axis.plot(at, rows["median"], style, color=colour, marker="o", ms=4, label=label)
            axis.fill_between(at, rows["low"], rows["high"], color=colour, alpha=0.18, lw=0)
        _setting_axis(axis, x, runs[x])
        axis.set_ylabel((METRICS | ACCURACIES)[metric] + " at the end")
        if metric in ACCURACIES:
            axis.yaxis.set_major_formatter(PercentFormatter(1))
        else:
            log_values(axis)
    figure.set_label(_in_words(x, metrics, runs[hue], title))
    return _finish(figure, axes, title, "" if hue == "optimizer" else hue.replace("_", " "))


def _in_words(x: str, metrics: Sequence[str], hues: pd.Series, title: str) -> str:
    """What a figure of ``against`` shows, for those who cannot see it."""
    drawn = ", ".join((METRICS | ACCURACIES)[metric] for metric in metrics)
    lines = ", ".join(label for _, _, label in _hues(hues))
    axis = f"{drawn} at the end against the {x.replace('_', ' ')}"
    return f"{title}. {axis}, one line for each {hues.name.replace('_', ' ')}: {lines}."


def _hues(values: pd.Series) -> list[tuple[object, object, str]]:
    """(value, colour, label) of every line: optimizers in their own, numbers in shades."""
    if values.name == "optimizer":
        return [(name, _colour(name), _label(name)) for name in _present(values)]
    numbers = np.sort(values.unique())
    shades = sns.color_palette("viridis", len(numbers))
    return [(v, shade, f"{v:g}") for v, shade in zip(numbers, shades, strict=True)]


def _placed(
    x: str, rows: pd.DataFrame, all_values: Sequence[float]
) -> tuple[np.ndarray, pd.DataFrame]:
    """Where the rows stand on the axis, and the rows. Beside a part of the decay zero stands alone:
    a line from it would run through values that nothing was trained at, other lines' values."""
    if x == "coupled_share":
        return rows.index.to_numpy(), rows
    if x != "weight_decay" and (rows.index == 0).any():
        rows = rows.reindex([0.0, np.nan, *rows.index[rows.index > 0]])
    return _decay_position(rows.index, all_values), rows


def _setting_axis(axis: Axes, x: str, values: pd.Series) -> None:
    """A share from 0 to 1; decays on a log axis on which zero has its place, too."""
    if x == "weight_decay":
        _decay_axis(axis, values)
    elif x != "coupled_share":
        low, high = values[values > 0].min(), values.max()
        decades = [10.0**e for e in range(-9, 4) if low <= 10.0**e <= high]
        zero = [_zero_stands_at(values)] if (values == 0).any() else []
        axis.set_xscale("log")
        axis.set_xticks([*zero, *decades], ["0"] * len(zero) + [f"{d:g}" for d in decades])
        axis.minorticks_off()
    axis.set_xlabel(X_LABELS[x])


# ------------------------------------------------- grids, the exact law, metric against metric


def on_grid(runs: pd.DataFrame, grids: Mapping[str, Grid]) -> pd.DataFrame:
    """The runs at points of their optimizer's grid, such as ``sweep.GRIDS``."""
    kept = pd.Series(False, index=runs.index)
    for name, grid in grids.items():
        inside = runs["lr"].isin(grid.lrs) & runs["momentum"].isin(grid.momenta)
        inside &= runs["weight_decay"].isin(grid.weight_decays)
        kept |= (runs["optimizer"] == name) & inside
    return runs[kept]


def exact_law(runs: pd.DataFrame) -> pd.Series:
    """NC0 at the end over its start, as the exact law says (``theory.row_sum_ratio``); NaN where it
    says nothing: under Adam and Signum, with clipped gradients, or in an unknown number of steps.

    >>> figures.exact_law(store.load_runs(optimizer=["sgd", "sgdw"]))  # doctest: +SKIP
    """
    left = pd.Series(np.nan, index=runs.index)
    if runs.empty:  # an empty store lacks the columns that follow
        return left
    images = runs["train_size"].astype(float).fillna(runs["dataset"].map(TRAINING_IMAGES))
    schedule = runs.get("schedule", pd.Series("step", index=runs.index)).fillna("step")
    clip = runs.get("clip", pd.Series(np.nan, index=runs.index))
    lawful = runs["optimizer"].isin(LAWFUL) & clip.isna() & images.notna()
    steps = np.ceil(images / runs["batch_size"].astype(float))
    keys = [steps[lawful], runs["epochs"][lawful], schedule[lawful]]
    for (count, epochs, name), rows in runs[lawful].groupby(keys):
        left[rows.index] = _law(rows, int(count), int(epochs), name)
    return left


def _law(rows: pd.DataFrame, steps: int, epochs: int, schedule: str) -> np.ndarray:
    """``exact_law`` for rows of one length and schedule."""
    settings = rows[["lr", "momentum", "weight_decay"]].to_numpy(float).T
    decoupled = 1 - rows["coupled_share"].to_numpy(float)
    if schedule == "step":
        return theory.row_sum_ratio(*settings, steps, epochs, decoupled)
    factors = [learning_rate_factors(schedule, e, steps, epochs).numpy() for e in range(epochs)]
    factors = np.concatenate(factors)
    numbers = zip(*settings, decoupled, strict=True)
    ends = [theory.row_sum_stepped(lr * factors, *rest)[-1] for lr, *rest in numbers]
    return np.abs(ends)


def parity(runs: pd.DataFrame, title: str = "") -> Figure:
    """NC0 at the end against what the exact law foretells, from its start and the settings; one dot
    a run, and the line on which both are equal, which is no fit. Left of ``LAW_FROM`` of the start
    float32 cannot follow: such runs are not drawn."""
    left = exact_law(runs)
    runs = runs.assign(law=runs["nc0_init"] * left)[(left >= LAW_FROM) & (runs["nc0"] > 0)]
    figure, axis = plt.subplots(figsize=(6.6, 4.4), layout="constrained")
    for mark, (model, network) in zip(MARKS * 9, runs.groupby("model"), strict=False):
        for name, rows in by_optimizer(network):
            size = 9 if name.endswith(MIXED) else 22  # a mixed one has its parent's colour
            look = dict(s=size, marker=mark, facecolor="none", edgecolor=_colour(name), lw=0.9)
            axis.scatter(rows["law"], rows["nc0"], **look, label=f"{_label(name)}, {model}")
    axis.set(xscale="log", yscale="log", xlabel="NC0 by the law", ylabel="NC0 at the end")
    axis.axline((1, 1), (10, 10), color="#555555", lw=0.8, zorder=0)
    axis.set(xlim=axis.dataLim.intervalx * (0.5, 2), ylim=axis.dataLim.intervaly * (0.5, 2))
    figure.set_label(
        f"{title}. NC0 measured against NC0 by the exact law, and the line of equality"
    )
    return _finish(figure, np.array([axis]), title)


def scatters(
    runs: pd.DataFrame,
    x: str | Sequence[str] = "nc0",
    y: str = "nc3",
    by: str | None = None,
    title: str = "",
) -> Figure:
    """Fig. 2, 9-12 and 44: one metric at the end against another, whose axis is logarithmic as in
    the paper, one dot a run; the line is that of least squares of y on log10 x.

    Args:
        runs: those to draw; converged or not is the caller's to choose.
        x: a metric, or several: a panel for each.
        y: a metric.
        by: a column of numbers: a panel for each value; or none.
    """
    groups = [("", runs)] if by is None else [(f"{by} {v:g}", g) for v, g in runs.groupby(by)]
    panels = [(name, m, g) for name, g in groups for m in ([x] if isinstance(x, str) else x)]
    figure, axes = _panels(len(panels))
    for axis, (name, metric, group) in zip(axes, panels, strict=True):
        for optimizer, rows in by_optimizer(group):
            look = dict(s=14, color=_colour(optimizer), alpha=0.6, lw=0)
            axis.scatter(rows[metric], rows[y], **look, label=_label(optimizer))
        axis.set(xscale="log", xlabel=METRICS[metric], ylabel=METRICS[y])
        _log_ticks(axis.xaxis)
        axis.set_title(", ".join([name] * bool(name) + _line(axis, group, metric, y)))
    words = [METRICS[m] for m in dict.fromkeys(panel[1] for panel in panels)]
    figure.set_label(f"{title}. {METRICS[y]} against {', '.join(words)}, one dot a run")
    return _finish(figure, axes, title)


def _line(axis: Axes, rows: pd.DataFrame, x: str, y: str) -> list[str]:
    """Draw the line of least squares through what is drawn; its n and R², if there is one."""
    rows = rows[rows[x] > 0].assign(log=lambda r: np.log10(r[x]))
    fit = regression.lines(rows, "log", y).iloc[-1]
    if np.isnan(fit["slope"]):
        return [f"n = {len(rows)}"]
    ends = np.array([rows["log"].min(), rows["log"].max()])
    axis.plot(10**ends, fit["intercept"] + fit["slope"] * ends, color="#333333", lw=1.2)
    return [f"n = {len(rows)}", f"R² = {fit['r2']:.2f}"]


def side_by_side(*figures: Figure) -> HTML:
    """Small figures in rows; one below the other where the page is narrow."""
    cells = [
        f'<div style="max-width: 440px">{alt_text.described(figure).data}</div>'
        for figure in figures
    ]
    columns = "repeat(auto-fit, minmax(min(260px, 100%), 1fr))"  # of one width, the last row's too
    style = f"display: grid; grid-template-columns: {columns}; gap: 0.5em"
    return HTML(f'<div style="{style}">{"".join(cells)}</div>')


# ------------------------------------------------------------- the lines that train a figure


def folded(lines: str, title: str = "The lines that train it") -> Markdown:
    """Lines of a shell for a page, which shows their title until a reader opens it."""
    code = f"```bash\n{lines.strip()}\n```"
    return Markdown(f"<details><summary>{title}</summary>\n\n{code}\n\n</details>")


def with_lines(runs: pd.DataFrame, lines: str, *shows: Callable[[pd.DataFrame], object]) -> None:
    """As ``given``, and below it a fold-out with the lines that train the runs, stored or not."""
    given(runs, "", *shows)
    display(folded(lines))
