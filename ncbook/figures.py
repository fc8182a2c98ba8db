"""Results to figures and tables: every function takes rows of the store and draws all it is given.

Colours belong to optimizers and are the same everywhere; they are the colour-blind-safe ones of
Okabe and Ito. Coupled decay is drawn solid, decoupled dashed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from pandas.io.formats.style import Styler

from ncbook import store

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
DEFAULT_SETTING = {"dataset": "digits", "model": "mlp", "epochs": 200, "seed": 0}
COLLAPSED = {"nc0": 0.1, "nc3": 0.15}  # shares of the value at the start; see verdict
NOT_COLLAPSED_NC0 = 0.5
CELL = "padding: 0.25em 0.55em; text-align: right"
METRICS = {f"nc{i}": f"NC{i}" for i in range(5)}


def use_style() -> None:
    """The shared look of every figure in the book."""
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
    styled = table.style.format("{:.3g}", subset=list(numbers), na_rep="–")
    for column, text in formats.items():
        styled = styled.format(text, subset=[column], na_rep="–")
    if pd.api.types.is_numeric_dtype(table.index):
        styled = styled.format_index("{:g}")
    return styled.set_table_styles([{"selector": "th, td", "props": CELL}])


# ---------------------------------------------------------------------------------- words


def caption(runs: pd.DataFrame, short: bool = False) -> str:
    """Optimizers (not in short), data set, network and epochs of some runs, and how many of them
    converged."""
    names = [] if short else [LABELS[name] for name, _ in _by_optimizer(runs)]
    for column in ("dataset", "model", "epochs"):
        names += [str(value) for value in runs[column].unique()]
    return f"{', '.join(names)} epochs (n = {len(converged(runs))} of {len(runs)})"


def headline(runs: pd.DataFrame) -> str:
    """The book's result in one sentence: the least NC3 of each optimizer with weight decay, over
    that of Adam."""
    decayed = runs[runs["weight_decay"] > 0]
    good = converged(decayed)
    least = {name: rows["nc3"].min() for name, rows in _by_optimizer(good)}
    if not {"adam", "adamw", "signumw"} <= least.keys():
        return (
            f"{len(good)} of {len(decayed)} runs with weight decay converged: too few to compare."
        )
    shown = ", ".join(f"{LABELS[name]} {value:.2g}" for name, value in least.items())
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
    name, nc0, nc3 = LABELS[best.optimizer], best.nc0 / best.nc0_init, best.nc3 / best.nc3_init
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
    runs: pd.DataFrame, metrics: Sequence[str] = ("nc0", "nc3"), title: str = ""
) -> Figure:
    """Fig. 1 and 3: metrics at the end against weight decay, mean and ±1 sd over the converged
    runs of each optimizer."""
    figure, axes = _panels(len(metrics))
    for axis, metric in zip(axes, metrics, strict=True):
        for optimizer, rows in _by_optimizer(converged(runs)):
            _band(axis, rows, metric, optimizer, runs["weight_decay"])
        _decay_axis(axis, runs["weight_decay"])
        axis.set_ylabel(f"{METRICS[metric]} at the end")
        _log_values(axis)
    return _finish(figure, axes, title)


def _band(
    axis: Axes, rows: pd.DataFrame, metric: str, optimizer: str, decays: Sequence[float]
) -> None:
    stats = rows.groupby("weight_decay")[metric].agg(["mean", "std", "min"])
    colour = COLOURS[optimizer]
    style = "--" if optimizer.endswith("w") else "-"
    x = _decay_position(stats.index.to_numpy(), decays)
    axis.plot(x, stats["mean"], style, color=colour, marker="o", ms=4, label=LABELS[optimizer])
    spread = stats["std"].fillna(0)
    # On a log axis mean - sd may be negative: the band then ends at the least value seen.
    low = (stats["mean"] - spread).clip(lower=stats["min"])
    axis.fill_between(x, low, stats["mean"] + spread, color=colour, alpha=0.18, lw=0)


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


def save_headline(results: str, path: str) -> None:
    """The README's picture: all six optimizers on the default setting, NC0 and NC3."""
    use_style()
    runs = store.load_runs(results, **DEFAULT_SETTING)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    against_weight_decay(runs, title=caption(runs, short=True)).savefig(path, dpi=150)


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
        _log_values(axis)
    return _finish(figure, axes, title, legend_title=hue.replace("_", " "))


def singular_values(history: pd.DataFrame, hue: str = "weight_decay", title: str = "") -> Figure:
    """Fig. 6 and 16: singular values of W and M over epochs: the mean of all but the smallest
    (solid) and, for W, the smallest (dotted). M's smallest is zero whatever the network does,
    since M's rows are centred: it is not drawn."""
    figure, axes = _panels(2)
    for axis, matrix in zip(axes, ("w", "m"), strict=True):
        _over_epochs(axis, history, f"{matrix}_sv_mean", hue)
        axis.set_ylabel(f"singular values of {matrix.upper()}")
    _over_epochs(axes[0], history, "w_sv_min", hue, dotted=True)
    for axis in axes:
        _log_values(axis)
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


def _by_optimizer(runs: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """In the order of ``COLOURS``."""
    return [
        (name, runs[runs["optimizer"] == name])
        for name in COLOURS
        if (runs["optimizer"] == name).any()
    ]


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
    axis.set_xticks(positions, [f"{v:g}" for v in values], rotation=45, ha="right")
    axis.minorticks_off()


def _over_epochs(
    axis: Axes, history: pd.DataFrame, column: str, hue: str, dotted: bool = False
) -> None:
    """Median over the runs of each value of ``hue``, with the band between the quartiles."""
    if history.empty:
        return
    values = (
        np.sort(history[hue].unique())
        if hue != "optimizer"
        else [name for name in COLOURS if name in set(history[hue])]
    )
    shades = sns.color_palette("viridis", len(values))
    for value, shade in zip(values, shades, strict=True):
        colour = COLOURS.get(value, shade) if hue == "optimizer" else shade
        groups = history[history[hue] == value].groupby("epoch")[column]
        middle, low, high = (groups.quantile(q) for q in (0.5, 0.25, 0.75))
        label = None if dotted else (LABELS[value] if hue == "optimizer" else f"{value:g}")
        axis.plot(middle.index, middle, ":" if dotted else "-", color=colour, label=label)
        axis.fill_between(middle.index, low, high, color=colour, alpha=0.12, lw=0)
    axis.set_xscale("symlog", linthresh=1)
    last = max(1, int(history["epoch"].max()))
    axis.set_xlim(0, last)
    ticks = [t for t in (0, 1, 10, 100, 1000) if t < last / 2.5]
    axis.set_xticks([*ticks, last], [str(t) for t in (*ticks, last)])
    axis.minorticks_off()
    axis.set_xlabel("epoch")


def _log_values(axis: Axes) -> None:
    """A log y axis whose ticks read as numbers where it spans little, as powers where much."""
    axis.set_yscale("log")
    low, high = axis.get_ylim()
    if high < 1000 * low:
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())


def _short(value: float) -> str:
    """Two digits, in as few characters as a cell of a map has room for."""
    text = f"{value:.2g}"
    return text.replace("e-0", "e-").replace("e+0", "e")
