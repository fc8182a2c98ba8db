"""How every figure looks: the optimizers' colours and labels, and the metrics' names.

Colours belong to optimizers and are the same everywhere; they are the colour-blind-safe ones of
Okabe and Ito. Coupled decay is drawn solid, decoupled dashed.
"""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns

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
UNKNOWN = "an unknown optimizer"
MIXED = "_mixed"  # how the names of section 3.4's optimizers end
METRICS = {f"nc{i}": f"NC{i}" for i in range(5)}
GAUGE = {"gauge_share": "gauge share of W", "nc3_centred": "NC3 of the centred W"}
MAIN = ("nc0", "nc1", "nc2", "nc3")
ACCURACIES = {"train_acc": "training accuracy", "test_acc": "test accuracy"}


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


def look(optimizer: str) -> dict[str, str]:
    """How an optimizer's line looks everywhere: its colour, its label, dashed if decoupled."""
    style = "--" if optimizer.endswith("w") else "-"
    return {"color": colour_of(optimizer), "label": label_of(optimizer), "linestyle": style}


def label_of(optimizer: str) -> str:
    """An optimizer's name on a page; of names that the book does not know, none is shown."""
    stem = optimizer.removesuffix(MIXED)
    return LABELS.get(stem, UNKNOWN) + (", mixed" if stem != optimizer else "")


def colour_of(optimizer: str) -> str:
    """An optimizer's colour; a mixed one has that of its coupled parent."""
    return COLOURS[optimizer.removesuffix(MIXED)]


def present(optimizers: pd.Series) -> list[str]:
    """The optimizers that occur, in the order of ``COLOURS``, each before its mixed one."""
    names = [name for stem in COLOURS for name in (stem, stem + MIXED)]
    return [name for name in names if (optimizers == name).any()]
