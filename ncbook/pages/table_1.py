"""The paper's Table 1 with its own images and number of steps, on a ResNet9 of a sixteenth of the
width: all 60,000 of Fashion-MNIST, 200 epochs in batches of 128, 93,800 steps."""

from pathlib import Path

import pandas as pd

from ncbook import figures, store, sweep
from ncbook.pages import six_grids

SETTING = {"dataset": "fashion_mnist", "model": "resnet9", "width": 1 / 16, "epochs": 200}
MOMENTUM, DECAY = 0.9, 5e-4
RATES = dict.fromkeys(sweep.GRIDS, 0.005) | {"sgd": 0.0679, "sgdw": 0.0679}
# The options of ``line`` that train the runs of ``stored``.
FULL = {"seeds": [0]} | SETTING | {"width": "1/16", "weight_decays": DECAY}
PRINTED_NC0 = {"sgd": 2.14e-4, "sgdw": 0.55, "adam": 0.34, "signum": 0.78}


def line(*optimizers: str, **options: object) -> str:
    """The shell lines that train some optimizers at Table 1's momentum and learning rates, on the
    digits if no option says otherwise (see ``six_grids.line``)."""
    given = options | {"momenta": MOMENTUM}
    rates = dict.fromkeys(RATES[name] for name in optimizers)
    lines = [
        six_grids.line(*(n for n in optimizers if RATES[n] == rate), **given, lrs=rate)
        for rate in rates
    ]
    return "\n".join(lines)


def stored(results: str | Path | None = None) -> pd.DataFrame:
    """Table 1's runs."""
    return of_setting(store.load_runs(results))


def of_setting(runs: pd.DataFrame) -> pd.DataFrame:
    """Of some runs Table 1's, of its own number of steps."""
    return chosen(figures.of_setting(runs, **SETTING))


def chosen(runs: pd.DataFrame, weight_decay: float = DECAY) -> pd.DataFrame:
    """Of some runs those with Table 1's momentum and learning rates, at this weight decay."""
    at = (runs["momentum"] == MOMENTUM) & (runs["weight_decay"] == weight_decay)
    return runs[at & (runs["lr"] == runs["optimizer"].map(RATES))]
