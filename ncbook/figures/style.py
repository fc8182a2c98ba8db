"""How every figure looks: the optimizers' colours and labels, the metrics' names, panels and axes.

Colours belong to optimizers and are the same everywhere: the colour-blind-safe ones of Okabe and
Ito, "Color Universal Design" (2008), one hue a direction, dark if coupled. Decoupled decay is drawn
dashed. A reader's own class, whose form of decay is not known, is dash-dotted.
"""

import zlib

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from ncbook import optim, text
from ncbook.parameters import FIELDS

TITLE = 150  # characters, more than a page has room for
OPTIMIZERS = {
    "sgd": ("SGD", "#0072B2"),
    "sgdw": ("SGDW", "#56B4E9"),
    "adam": ("Adam", "#D55E00"),
    "adamw": ("AdamW", "#E69F00"),
    "signum": ("Signum", "#009E73"),
    "signumw": ("SignumW", "#CC79A7"),
    # Beyond the paper; of Tol's palettes.
    "muon": ("Muon", "#AA3377"),
    "muonw": ("MuonW", "#EE8866"),
    "shampoo": ("Shampoo", "#332288"),
    "shampoow": ("ShampooW", "#8866CC"),
    "soap": ("SOAP", "#666633"),
    "soapw": ("SOAPW", "#BBCC33"),
    "lionc": ("Lion, coupled", "#663333"),
    "lion": ("Lion", "#999933"),
    "mars": ("MARS", "#555555"),
}
# Of readers' own classes, by a hash of the name; of Tol's muted palette.
OWN_COLOURS = ("#882255", "#44AA99", "#AA4499", "#117733", "#6699CC", "#994455")
LABELS = {name: label for name, (label, _) in OPTIMIZERS.items()}
COLOURS = {name: colour for name, (_, colour) in OPTIMIZERS.items()}
MIXED = "_mixed"  # how the names of section 3.4's optimizers end
EVERY = [name + end for name in OPTIMIZERS for end in ("", MIXED)]
METRICS = {f"nc{i}": f"NC{i}" for i in range(5)}
GAUGE = {"gauge_share": "gauge share of W", "nc3_centred": "NC3 of the centred W"}
MAIN = ("nc0", "nc1", "nc2", "nc3")
ACCURACIES = {"train_acc": "training accuracy", "test_acc": "test accuracy"}


def use_style() -> None:
    """The shared look of every figure in the book."""
    sns.set_theme(context="notebook", style="ticks", font_scale=0.9)
    plt.rc("axes", grid=True)
    plt.rc("axes.spines", top=False, right=False)
    plt.rc("grid", color="#dddddd", linewidth=0.6)
    plt.rc("figure", dpi=110)
    plt.rc("savefig", bbox="tight")
    plt.rc("legend", frameon=False)


def look(optimizer: str) -> dict[str, str]:
    """How an optimizer's line looks everywhere: its colour, its label, dashed if decoupled."""
    rule = optim.OPTIMIZERS.get(optimizer)
    style = "-." if is_own(optimizer) else "--" if rule and rule.coupled_share == 0 else "-"
    return {"color": colour_of(optimizer), "label": label_of(optimizer), "linestyle": style}


def is_own(optimizer: str) -> bool:
    """Whether it is named as a reader's own class is, ``MODULE:CLASS``."""
    return optim.is_own(optimizer) and FIELDS["optimizer"].is_known(optimizer)


def label_of(optimizer: str) -> str:
    """An optimizer's name on a page: of a reader's own, that of the class; of other names that the
    book does not know, none is shown."""
    if is_own(optimizer):
        return text.line(optimizer.partition(":")[2], text.NAME)
    stem = optimizer.removesuffix(MIXED)
    return LABELS.get(stem, "an unknown optimizer") + (", mixed" if stem != optimizer else "")


def colour_of(optimizer: str) -> str:
    """An optimizer's colour; a mixed one has that of its coupled parent."""
    if is_own(optimizer):
        return OWN_COLOURS[zlib.crc32(optimizer.encode()) % len(OWN_COLOURS)]
    return COLOURS[optimizer.removesuffix(MIXED)]


def present(optimizers: pd.Series) -> list[str]:
    """The optimizers that occur, in the order of ``COLOURS``, each before its mixed one; then
    readers' own."""
    found = set(optimizers.dropna())
    return [*filter(found.__contains__, EVERY), *sorted(filter(is_own, found))]


def panels(count: int) -> tuple[Figure, np.ndarray]:
    """Up to two panels in a row: more would be too small to read on a page."""
    shape = rows, columns = -(-count // 2), min(count, 2)
    size = (4.4 * columns, 3.4 * rows)
    figure, axes = plt.subplots(*shape, figsize=size, squeeze=False, layout="constrained")
    for axis in axes.flat[count:]:
        axis.remove()
    return figure, axes.flatten()[:count]


def finish(
    figure: Figure, axes: np.ndarray, title: str, legend_title: str = "", **place: object
) -> Figure:
    """Add the title, which is plain text, and one legend for all panels, to the right of them or
    in another place."""
    place = dict(title=legend_title, loc="outside right center") | place
    drawn: dict[str, object] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            drawn.setdefault(label, handle)
    if drawn:
        figure.legend(drawn.values(), drawn.keys(), **place)
    figure.suptitle(text.mathtext(title, TITLE))
    plt.close(figure)  # a notebook shows what a cell returns; left open, it would show it twice
    return figure


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
    log_ticks(axis.yaxis)


def log_ticks(axis: Axis) -> None:
    """See ``log_values``. Where an axis spans little, 1, 2, 5, 10 leave few ticks: equal steps."""
    low, high = axis.get_view_interval()
    if high < 1000 * low:
        equal = MaxNLocator(6, steps=[1, 2, 5, 10])
        axis.set_major_locator(equal if high < 5 * low else LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())
