"""The numbers written out in the chapter on NC0 as a diagnostic are those of the stored runs."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ncbook import figures, stats, store
from ncbook.metrics import rule
from ncbook.pages import six_grids

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "book" / "results"
PROSE, COUPLING = (
    re.sub(r"\s*\n# *", " ", (ROOT / "notebooks" / f"{name}.py").read_text(encoding="utf-8"))
    for name in ("diagnostic", "coupling")
)
POINT = ["optimizer", "lr", "momentum", "weight_decay"]


@pytest.fixture(scope="module")
def good():
    runs = figures.converged(six_grids.complete(six_grids.stored(RESULTS)))
    return runs.assign(log_nc0=np.log10(runs["nc0"]))


@pytest.fixture(scope="module")
def split(good):
    return good[good["gauge_share"].notna()]


@pytest.fixture(scope="module")
def points(good):
    columns = ["nc0", "nc1", "nc2", "nc3", "nc4", "log_nc0"]
    means = good.groupby(POINT)[columns].mean().reset_index()
    return means.assign(nc0=10 ** means["log_nc0"])


def r2(rows, x="log_nc0", y="nc3"):
    return stats.lines(rows, x, y).loc["all"].r2


def test_the_bound_and_the_shares(split):
    bound = np.sqrt(2 - 2 * np.sqrt(1 - split["gauge_share"] ** 2))
    slack = (split["nc3"] / bound).min() - 1
    assert slack > 0
    assert f"of the {len(split):,} runs whose norm is stored" in PROSE
    assert f"exact, in all {len(split):,} runs" in PROSE
    assert f"the closest by {100 * slack:.1f} %" in PROSE
    large, small = split[split["gauge_share"] > 0.1], split[split["gauge_share"] < 0.01]
    assert not rule.collapsed(large).any()
    words = f"of {len(large):,} converged runs of the digits MLP with a gauge share above 0.1"
    assert words in PROSE
    words = f"The {len(large):,} with $r > 0.1$ have an NC3 of at least "
    assert f"{words}{large['nc3'].min():.2f}" in PROSE
    so = rule.collapsed(small).sum()
    assert f"Of the {len(small)} with $r < 0.01$, {so} collapsed" in PROSE
    near = (small["nc3"] < rule.THRESHOLD).sum()
    assert f"{near} of the {len(small)} runs with $r < 0.01$ have an NC3 below 0.1" in PROSE
    both = r2(split, "gauge_share"), r2(split)
    assert both[0] < both[1]  # "no better"
    words = "has $R^2 = {:.2f}$ over these runs, against $\\log_{{10}}\\mathrm{{NC0}}$ {:.2f}"
    assert words.format(*both) in PROSE
    gauge = (1 - split["nc3_centred"] ** 2 / split["nc3"] ** 2).groupby(split["optimizer"]).median()
    words = f"runs it makes {100 * gauge['adamw']:.0f} % of NC3² in the median, of SignumW's "
    assert words + f"{100 * gauge['signumw']:.0f} %" in PROSE


def test_the_law_of_sgd():
    runs = store.load_runs(RESULTS, optimizer=["sgd", "sgdw", "sgd_mixed"], status="ok")
    runs = figures.uniform(runs)
    law = figures.exact_law(runs)
    seen = law * runs["nc0_init"] > 0.01
    off = (runs["nc0"] / runs["nc0_init"] / law - 1).abs()[seen].sort_values()
    assert runs[seen]["model"].nunique() == 5
    words = f"in {seen.sum():,} runs of four networks and of free features, the largest relative "
    words += "deviation is "
    words += f"{off.iloc[-1]:.0e} after 93,800 steps, and {off.iloc[-2]:.0e} in all others"
    assert words in PROSE
    assert pd.isna(runs.loc[off.index[-1], "train_size"])  # Table 1


def test_a_small_nc0_promises_nothing():
    runs = figures.uniform(store.load_runs(RESULTS, model=["resnet9", "vgg9"]))
    runs = figures.converged(runs)
    runs = runs[runs["nc0"] / runs["nc0_init"] < 1e-3]
    assert set(runs["optimizer"]) == {"sgd", "sgdw", "muon", "muonw", "soap"}
    counts = len(runs), (runs["nc3"] > rule.THRESHOLD).sum()
    assert counts[1] > 0.8 * counts[0]
    assert f"of the {counts[0]} convolutional runs with one optimizer throughout" in PROSE
    assert f"{counts[1]} end with an NC3 above 0.1, up to {runs['nc3'].max():.2f}" in PROSE
    assert f"{counts[1]} of {counts[0]} convolutional runs" in PROSE


def test_how_much_nc0_explains(points):
    rates = [r2(rows) for _, rows in points.groupby("lr")]
    words = "By learning rate $R^2$ is {:.2f}, {:.2f}, {:.2f} and {:.2f}"
    assert words.format(*rates) in PROSE
    assert rates[-1] == min(rates)
    assert f"Over all learning rates it is {100 * r2(points):.0f} %" in PROSE
    assert f"n = {len(points)} settings" in PROSE
    words = f"$R^2$ is {r2(points, y='nc2'):.2f} for NC2 and {r2(points, y='nc1'):.2f} for NC1"
    assert words in PROSE
    fit = stats.lines(points, "log_nc0", "nc3").loc["all"]
    assert f"below NC0 = {10 ** (-fit.intercept / fit.slope):.2g}" in PROSE
    own = {name: r2(rows) for name, rows in points.groupby("optimizer")}
    assert (min(own, key=own.get), max(own, key=own.get)) == ("adamw", "signumw")
    words = "goes from {adamw:.2f} under AdamW to {signumw:.2f} under SignumW"
    assert words.format(**own) in PROSE
    assert f"over six optimizers mixed; {100 * own['adamw']:.0f} % within AdamW" in PROSE
    adamw = points[points["optimizer"] == "adamw"]
    rank = adamw["nc0"].corr(adamw["nc3"], method="spearman")
    assert f"rank correlation {rank:.2f}" in PROSE


def test_without_decay_the_two_forms_are_one(good, points):
    free = good[good["weight_decay"] == 0].set_index(["lr", "momentum", "seed"])
    metrics, copies = ["nc0", "nc1", "nc3"], 0
    for name in ("sgd", "adam", "signum"):
        coupled, decoupled = (free[free["optimizer"] == n][metrics] for n in (name, f"{name}w"))
        pd.testing.assert_frame_equal(coupled.sort_index(), decoupled.sort_index())
        copies += len(decoupled)
    assert f"{copies} of the {len(good):,} converged runs are copies" in COUPLING
    twice = good[good["weight_decay"].eq(0) & good["optimizer"].str.endswith("w")]
    words = f"with a gauge share above 0.1 ({(twice['gauge_share'] > 0.1).sum()} of them copies"
    assert words in PROSE
    again = points["weight_decay"].eq(0) & points["optimizer"].str.endswith("w")
    assert f"{again.sum()} of the settings are copies" in PROSE
    groups = [points, *(rows for _, rows in points.groupby("lr"))]
    fewer = [r2(rows) - r2(rows[~again[rows.index]]) for rows in groups]
    assert max(fewer) < 0.025


def test_nc4_and_partial_collapse(good, points):
    three, prose = ["nc1", "nc2", "nc3"], PROSE.replace("−", "-")
    ranks, means = (rows[three].corrwith(rows["nc4"], method="spearman") for rows in (good, points))
    words = "NC3 are {:.2f}, {:.2f} and {:.2f} over the runs, and ".format(*ranks)
    assert words + "{:.2f}, {:.2f} and {:.2f} over the means of seeds".format(*means) in prose
    assert f"small runs: {ranks.max():.2f} to {ranks.min():.2f} over runs" in prose
    so = rule.collapsed(good)
    yes, no = good["nc4"][so], good["nc4"][~so]
    assert (
        f"{len(yes)} runs collapsed, with NC4 between {yes.min():.3f} and {yes.max():.3f}" in PROSE
    )
    assert f"{len(no):,} did not, with NC4 between {no.min():.3f} and {no.max():.3f}" in PROSE
    ones = int((no == 1).sum())
    assert f"{ones} of these have NC4 = 1" in PROSE
    assert f"{ones} of {len(no):,} uncollapsed runs" in PROSE
    partial = pd.Series(rule.below(good) == "NC1, NC2", index=good.index)
    words = (
        f"{partial.sum()} of our {len(good):,} converged runs have NC1 and NC2 below and NC3 not"
    )
    assert words in PROSE
    of = good[partial]["optimizer"].value_counts()
    words = f"{of['signum']} of Signum, {of['adam']} of Adam, {of['sgdw']} of SGDW, one of SGD and"
    assert words in PROSE
    assert (of["sgd"], of["adamw"]) == (1, 1)
    assert f"narrowly: {(good[partial]['nc3'] < 0.115).sum()} have an NC3 below 0.115" in PROSE
    but = (rule.outcome(good[partial]) == rule.BUT_GAUGE).sum()
    assert f"{but} of the {partial.sum()} collapse once $W$ is centred" in PROSE
    assert good[partial]["optimizer"].value_counts()["adamw"] == 1
