"""The report on one measured network: its metrics in a table, its last layer in pictures, and what
that means in words."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from pandas.io.formats.style import Styler
from torch import Tensor, linalg
from torch.nn.functional import normalize

from ncbook import text
from ncbook.figures import style
from ncbook.figures.words import judged, shown
from ncbook.measure import Measured
from ncbook.metrics import centred_means
from ncbook.theory.symmetry import gauge_part

# Of a metric: its name, its value in a collapsed network, and what it measures.
MEANINGS = {
    "train_acc": ("training accuracy", "", "training samples that are right"),
    "test_acc": ("test accuracy", "", "test samples that are right"),
    "nc1": ("NC1", "0", "scatter within classes over between"),
    "nc2": ("NC2", "0", "class means against a simplex"),
    "nc2n": ("NC2n", "0", "how unequal their lengths are"),
    "nc2a": ("NC2a", "0", "how unequal their angles are"),
    "nc2w": ("NC2W", "0", "rows of W against a simplex"),
    "nc3": ("NC3", "0", "W against the class means"),
    "nc3_centred": ("NC3, centred W", "0", "the same without the gauge"),
    "gauge_share": ("gauge share", "0", "of W: seen by no prediction"),
    "nc0": ("NC0", "", "length of the sum of W's rows"),
    "nc4": ("NC4", "100%", "agreement with the nearest mean"),
}
SHARES = ("train_acc", "test_acc", "nc4")  # shown in per cent
PAIRS = {  # matrices whose rows are compared, by title
    "class means": ("means", "means"),
    "rows of W": ("weight", "weight"),
    "W and class means": ("weight", "means"),
}
NAMED = 12  # classes at most whose names are on the axes
DOTTED = 60  # singular values at most that are drawn as dots
LINES = {"W": ("weight", "#D55E00", "s"), "class means": ("means", "#0072B2", "o")}
ROUNDING = 1e-4  # NC3 of float32 weights may be as large by rounding alone
CHANCE = 2.0  # times 1/K: an accuracy below says nothing
NEAR = 0.01  # accuracies that differ by less count as equal in the words


def metrics_table(measured: Measured) -> Styler:
    """The metrics that were measured: value, value in a collapsed network, and meaning."""
    found = {name: words for name, words in MEANINGS.items() if name in measured.metrics}
    rows = [
        (label, f"{measured.metrics[name]:{'.1%' if name in SHARES else '.3g'}}", *rest)
        for name, (label, *rest) in found.items()
    ]
    table = pd.DataFrame(rows, columns=["metric", "here", "ideal", "what it is"])
    table = table.replace("nan", None)
    left = [{"selector": "", "props": "text-align: left"}]
    styles = {"metric": left, "what it is": left}
    return shown(table).hide(axis="index").set_table_styles(styles, overwrite=False)


def _rows(measured: Measured) -> dict[str, Tensor]:
    means = centred_means(measured.means.double().cpu())
    return {"means": means, "weight": measured.weight.double().cpu()}


def cosines(measured: Measured, names: tuple[str, ...] = ()) -> Figure:
    """Cosines of each two classes: of their centred means, of their rows of W, and of one with the
    other. In a collapsed network all three are 1 on the diagonal and -1/(K - 1) next to it.

    Args:
        names: of the classes, for the axes where there are few.
    """
    rows = {key: normalize(matrix) for key, matrix in _rows(measured).items()}
    short = [text.mathtext(name, NAMED) for name in names] if len(names) <= NAMED else []
    turn = 90 if max(map(len, short), default=0) > 2 else 0
    figure, axes = plt.subplots(1, 3, figsize=(7.8, 3), layout="constrained")
    for axis, (title, (left, right)) in zip(axes, PAIRS.items(), strict=True):
        image = axis.imshow((rows[left] @ rows[right].mT).numpy(), cmap="RdBu_r", vmin=-1, vmax=1)
        axis.set_title(title)
        axis.grid(False)
        axis.set_xticks(range(len(short)), short, rotation=turn)
        axis.set_yticks(range(len(short)), short)
    figure.colorbar(image, ax=axes, label="cosine", shrink=0.7, ticks=[-1, 0, 1])
    figure.set_label("Cosines between classes: of class means, of rows of W, of one with the other")
    plt.close(figure)
    return figure


def spectrum(measured: Measured) -> Figure:
    """Singular values of W and of the centred class means, over their largest. Collapsed: K - 1
    equal ones, and one that is zero."""
    figure, axis = plt.subplots(figsize=(6.6, 3.2), layout="constrained")
    for label, (key, colour, mark) in LINES.items():
        values = linalg.svdvals(_rows(measured)[key]).numpy()
        dots = dict(marker=mark, ms=5) if len(values) <= DOTTED else {}
        shares = values / (values.max() or 1)
        axis.plot(range(1, len(values) + 1), shares, color=colour, label=label, **dots)
    axis.set(ylim=(0, 1.05), xlabel="number of the singular value", ylabel="over the largest one")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.set_label("Singular values of W and of the class means, over the largest of each")
    return style.finish(figure, np.array([axis]), "")


# ------------------------------------------------------------ in words


def in_words(measured: Measured) -> str:
    """Markdown: whether the network collapsed by the book's rule, how much of NC3 is gauge, and
    from which layer on the nearest class mean is as good as the network."""
    word, values = judged(pd.Series(measured.metrics | {"status": "ok"}))
    others = f"- {_gauge(measured.metrics)}\n- {_layers(measured)}"
    return f"- **The network {word}**: {values}.\n{others}"


def _gauge(metrics: dict[str, float]) -> str:
    whole, centred = metrics["nc3"], metrics["nc3_centred"]
    if math.isnan(whole):
        return "**NC3 is not defined**: W or the class means are zero."
    if whole < ROUNDING:
        return "**NC3 is zero up to rounding**: W has no gauge part."
    share = gauge_part(min(centred, 2.0), min(metrics["gauge_share"], 1.0)) / whole**2
    if share < 0:
        return "**The gauge hides a part of NC3**: without it, W is further from the class means."
    return (
        f"**{share:.0%} of NC3² is gauge**, which no prediction sees: without it NC3 is "
        f"{centred:.3g} in place of {whole:.3g}."
    )


def _layers(measured: Measured) -> str:
    split = "test" if "test_acc" in measured.metrics else "train"
    layers, accuracy = measured.layers, measured.metrics[f"{split}_acc"]
    found = layers[f"{split}_ncm_acc"]
    lasting = (found >= accuracy - NEAR)[::-1].cummin()[::-1]
    what = f"the network's {split} accuracy of {accuracy:.1%}"
    if accuracy < CHANCE / len(measured.weight):
        return f"**With {what} the network is near chance**: there is nothing to compare layers by."
    if not lasting.any():
        name = text.html(layers["layer"][found.idxmax()])
        return (
            f"**In no layer does the nearest class mean reach {what}**; it comes closest in "
            f"{name}, with {found.max():.1%}."
        )
    first = layers[lasting].iloc[0]
    where = f"From {text.html(first['layer'])} on** (layer {first['position']} of {len(layers)})"
    return f"**{where} the nearest class mean reaches {what}, to within {NEAR:.0%}."
