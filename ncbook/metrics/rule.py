"""The project's one rule for "collapsed".

A run that learned (training accuracy of at least 99 %) is, at the end of training,

- *collapsed* if NC1, NC2 and NC3 are all below 0.1;
- *collapsed but for its gauge* if that holds with NC3 of the centred weight in place of NC3;
- collapsed *in part* if only some of the three are below;
- *not* collapsed if none is.

NC0 is not part of it: only NC0 over the norm of W matters, and NC3 already contains that. With
r = NC0/(√K ‖W‖), NC3² ≥ 2 − 2√(1 − r²).

Why 0.1. All three are scale-free, so one threshold can serve every network and data set. NC2 and
NC3 are distances between matrices of norm 1 (at most 2): 0.1 is a cosine of 0.995. NC1 is a ratio
of variances: a tenth. The papers set no threshold. Ours is a round number, chosen before we looked
at results; ``counts`` shows what 0.05 and 0.2 would change.
"""

import numpy as np
import pandas as pd

THRESHOLD = 0.1
LEARNED = 0.99  # training accuracy from which the paper counts a run (D, Table 2)
THREE = {"nc1": "NC1", "nc2": "NC2", "nc3": "NC3"}
CENTRED = "nc3_centred"

COLLAPSED, BUT_GAUGE, IN_PART, NOT = "collapsed", "collapsed but for its gauge", "in part", "not"
NOT_STORED = "not stored"  # a metric that decides is missing: older rows have no nc3_centred
NOT_LEARNED = "did not learn"
OUTCOMES = (COLLAPSED, BUT_GAUGE, IN_PART, NOT, NOT_STORED, NOT_LEARNED, "diverged", "failed")


def learned(runs: pd.DataFrame) -> pd.Series:
    """Whether each run ended well and reached 99 % training accuracy."""
    return (runs["status"] == "ok") & (runs["train_acc"] >= LEARNED)


def outcome(runs: pd.DataFrame, threshold: float = THRESHOLD) -> pd.Series:
    """The outcome of each run, a row of the store, by the rule: one of ``OUTCOMES``.

    >>> ends = dict(status="ok", train_acc=1.0, nc1=0.01, nc2=0.05)
    >>> outcome(pd.DataFrame([ends | dict(nc3=0.02), ends | dict(nc3=0.4, nc3_centred=0.07)]))
    0                      collapsed
    1    collapsed but for its gauge
    dtype: object
    """
    three = runs[[*THREE]].astype(float)
    small = three < threshold
    centred = runs.get(CENTRED, pd.Series(np.nan, index=runs.index)).astype(float)
    missing = three.isna().any(axis=1) | (small["nc1"] & small["nc2"] & centred.isna())
    cases = {
        "status": runs["status"] != "ok",
        NOT_LEARNED: ~learned(runs),
        COLLAPSED: small.all(axis=1),
        NOT_STORED: missing,
        BUT_GAUGE: small["nc1"] & small["nc2"] & (centred < threshold),
        IN_PART: small.any(axis=1),
    }
    words = [runs["status"].astype(object), *list(cases)[1:]]
    return pd.Series(np.select(list(cases.values()), words, NOT), index=runs.index, dtype=object)


def below(runs: pd.DataFrame, threshold: float = THRESHOLD) -> pd.Series:
    """Which of the three metrics of each run are below the threshold: "NC1, NC2", or "none"."""
    small = runs[[*THREE]].astype(float) < threshold
    names = small.apply(lambda row: ", ".join(THREE[name] for name in THREE if row[name]), axis=1)
    return names.astype(object).replace("", "none")


def collapsed(runs: pd.DataFrame, threshold: float = THRESHOLD) -> pd.Series:
    """Whether each run collapsed, by the rule."""
    return outcome(runs, threshold) == COLLAPSED


def counts(
    runs: pd.DataFrame, by: list[str], thresholds: tuple[float, ...] = (0.05, THRESHOLD, 0.2)
) -> pd.DataFrame:
    """How many runs have which outcome: one row for each group, in order of appearance, and
    threshold; one column for each outcome that occurs."""
    order = runs.groupby(by, sort=False, dropna=False).ngroup()
    parts = [
        runs.assign(order=order, threshold=f"{t:g}", outcome=outcome(runs, t)) for t in thresholds
    ]
    keys = ["order", *by, "threshold", "outcome"]
    table = pd.concat(parts).groupby(keys, dropna=False).size()
    table = table.unstack("outcome", fill_value=0).droplevel("order")
    return table.reindex(columns=pd.Index([word for word in OUTCOMES if word in table]))
