"""The numbers written out in the chapter on momentum are those of the stored runs."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ncbook import figures, theory
from ncbook.pages import six_grids

ROOT = Path(__file__).parents[1]
PROSE = re.sub(r"\s*\n# *", " ", (ROOT / "notebooks" / "momentum.py").read_text(encoding="utf-8"))
FOUR = list(figures.MAIN)
KEY = ["optimizer", "lr", "weight_decay", "seed"]
SETTING = ["weight_decay", "seed"]
TWINS = [((0.001, 0.9), (0.01, 0.0)), ((0.001, 0.95), (0.01, 0.5))]


@pytest.fixture(scope="module")
def grids():
    return six_grids.complete(six_grids.stored(ROOT / "book" / "results"))


@pytest.fixture(scope="module")
def sgd(grids):
    return figures.converged(grids[grids["optimizer"] == "sgd"])


@pytest.fixture(scope="module")
def at(sgd):
    """SGD's runs of one learning rate and momentum, by decay and seed."""
    return lambda lr, momentum: sgd[(sgd["lr"] == lr) & (sgd["momentum"] == momentum)].set_index(
        SETTING
    )[FOUR]


def test_runs_of_one_effective_rate_end_alike(at):
    off = pd.concat([(at(*heavy) / at(*light)).dropna() for heavy, light in TWINS]) - 1
    most = off.abs().max()
    words = f"In the {len(off)} pairs NC0 differs by {most['nc0']:.1%} at most and NC3 by "
    words += f"{most['nc3']:.1%} (NC2 by {most['nc2']:.0%}, NC1 by {most['nc1']:.0%})"
    assert words.replace("%", " %") in PROSE
    assert f"the same NC3 to {most['nc3']:.1%}".replace("%", " %") in PROSE
    assert f"measured for NC3 ({len(off)} pairs, to {100 * most['nc3']:.1f} %)" in PROSE
    pairs = [(at(*heavy) / at(*light)).dropna() for heavy, light in TWINS]
    assert all((pair[["nc1", "nc2"]] > 1).all(axis=None) for pair in pairs)
    more = [100 * (pair["nc1"].median() - 1) for pair in pairs]
    assert f"NC1 by {more[0]:.0f} % at 0.01 and by {more[1]:.0f} % at 0.02 (medians)" in PROSE
    alone = (at(0.01, 0.9) / at(0.01, 0.0)).dropna()
    middle = alone.median()
    words = f"multiplies NC3 by {middle['nc3']:.2f} and NC1 by {middle['nc1']:.2f} "
    assert words + f"(medians of {len(alone)})" in PROSE


def test_the_law(grids):
    runs = grids[grids["optimizer"].isin(["sgd", "sgdw"]) & (grids["status"] == "ok")]
    law = figures.exact_law(runs)
    seen = law * runs["nc0_init"] > 0.01
    off = (runs["nc0"] / runs["nc0_init"] / law - 1).abs()[seen].max()
    assert f"Of all {len(runs):,} runs of SGD and SGDW" in PROSE
    assert f"{seen.sum()} should end with NC0 above 0.01" in PROSE
    assert f"among them is {off:.0e}" in PROSE
    assert f"exact by the law, in {seen.sum()} runs" in PROSE
    sgdw = runs[seen & (runs["optimizer"] == "sgdw")].groupby(["lr", *SETTING])["nc0"]
    flat = (sgdw.max() / sgdw.min() - 1)[sgdw.size() > 1].max()
    assert f"give the same NC0 to {flat:.0e}" in PROSE


def test_steps_up_in_momentum(sgd):
    runs = sgd[sgd["weight_decay"] > 0].sort_values([*KEY, "momentum"])
    runs = runs.assign(law=figures.exact_law(runs) * runs["nc0_init"])
    before = runs.groupby(KEY)[[*FOUR, "law", "momentum"]].shift()
    steps = runs[[*KEY, "momentum"]].join(runs[[*FOUR, "law"]] / before[[*FOUR, "law"]])
    highest = np.maximum(runs["nc0"], before["nc0"])
    steps = steps.assign(before=before["momentum"], at=highest).dropna()
    star = theory.critical_momentum(steps["lr"], steps["weight_decay"])
    below = steps[steps["momentum"] <= star]
    fell = (below[FOUR] < 1).sum()
    assert fell["nc0"] == len(below)
    assert f"Of our {len(below)} steps up in momentum" in PROSE
    assert f"all {len(below)} lower NC0 and {fell['nc3']} lower NC3" in PROSE
    words = f"below $\\beta^*$ of the first learning rate; NC3 in {fell['nc3']} of them"
    assert f"{len(below)} steps up | {words}" in PROSE
    rose = below[below["nc3"] >= 1]
    assert rose["momentum"].min() == 0.9
    assert rose["weight_decay"].max() == 0.0005
    words = f"The other {len(rose)} are steps to 0.9 or more with $\\lambda\\le0.0005$"
    assert f"{words}, and raise NC3 by up to {100 * (rose['nc3'].max() - 1):.0f} %" in PROSE
    above = steps[steps["momentum"] > star]
    falling, others = above[above["law"] < 1], above[above["law"] >= 1]
    assert (falling["nc0"] < 1).all()
    words = (
        f"Of the {len(above)} steps that end above $\\beta^*$ {len(falling)} lower NC0, as the law"
    )
    assert words in PROSE
    assert len(others) == 10
    assert (others["at"] < 1e-5).all()  # "rounding"
    assert set(zip(others["lr"], others["weight_decay"], strict=True)) == {(0.0679, 0.05)}
    last = below[(below["momentum"] == 0.9) & (below["before"] == 0.7) & (below["lr"] == 0.01)]
    weak, strong = (last[last["weight_decay"] == d]["nc0"].median() for d in (5e-4, 0.05))
    assert f"multiplied by {weak:.2f} at $\\lambda = 0.0005$ and by {strong:.2f} at 0.05" in PROSE


def test_the_other_optimizers(grids):
    runs = figures.converged(grids[grids["weight_decay"] > 0])
    none = runs[runs["momentum"] == 0].set_index(KEY)[["nc0", "nc3"]]
    rows = runs[runs["momentum"] > 0].set_index([*KEY, "momentum"])[["nc0", "nc3"]]
    ratios = (rows / none.reindex(rows.droplevel("momentum").index).to_numpy()).dropna()
    middles = ratios.groupby(["momentum", "optimizer"]).median()
    middle = middles["nc0"]
    words = "is {sgd:.2f} under SGD, {sgdw:.2f} under SGDW, {adam:.2f} under Adam and {adamw:.2f} "
    assert (words + "under AdamW").format(**middle[0.9]) in PROSE
    words = "For Signum NC0's median is {signum:.2f}, and for SignumW {signumw:.2f}"
    assert words.format(**middle[0.9]) in PROSE
    words = "The same ratios of NC3: {sgd:.2f}, {sgdw:.2f}, {adam:.2f} and {adamw:.2f}; "
    words += "{signum:.2f} under Signum and {signumw:.2f} under SignumW."
    assert words.format(**middles["nc3"][0.9]) in PROSE
    at_09 = ratios.xs(0.9, level="momentum")
    spans = at_09.groupby("optimizer")["nc0"].agg(["min", "max"]).loc[["adam", "adamw"]]
    adam, adamw = (f"{low:.2f} to {high:.2f}" for low, high in spans.to_numpy())
    assert f"by factors of {adam} and {adamw}" in PROSE
    assert f"runs by factors of {adam} (NC0)" in PROSE
    assert (middles.loc[0.9].loc[["adam", "adamw"]] - 1).abs().max(axis=None) < 0.06
    words = "at 0.98 NC0's medians are {adam:.2f} and {adamw:.2f}"
    assert words.format(**middle[0.98]) in PROSE
    assert middle[0.9, "signum"] == pytest.approx(1 / 5, rel=0.05)
    assert f"to a fifth in the median, and SGD's to {middle[0.9, 'sgd']:.2f} of it" in PROSE
    one = at_09.xs(("adam", 0.01, 0.0005), level=KEY[:3]).median()
    assert f"Adam's falls to {one['nc0']:.2f} and its NC3 to {one['nc3']:.2f}" in PROSE
    by_decay = at_09.groupby(["optimizer", "weight_decay"]).median()
    nc3 = by_decay.loc["signum", "nc3"]
    weak = nc3[nc3.index <= 0.005]
    assert f"by {weak.min():.2f} to {weak.max():.2f} up to $\\lambda = 0.005$" in PROSE
    strong = at_09.loc["signum", "nc3"].groupby(["weight_decay", "lr"]).median()
    assert strong[0.5].index.tolist() == [0.001]
    a, b, c = strong[0.05]
    words = (
        f"but by {nc3[0.05]:.2f} at 0.05 ({a:.2f}, {b:.2f} and {c:.2f} at the three learning rates)"
    )
    assert f"{words} and by {nc3[0.5]:.2f} at 0.5 ($\\eta = 0.001$ alone)" in PROSE
    assert (by_decay.loc["signum", "nc0"] < 0.5).all()
    nc0 = by_decay.loc["signumw", "nc0"]
    assert f"by {nc0[5e-4]:.2f} at $\\lambda = 0.0005$, by {nc0[5]:.2f} and {nc0[10]:.2f}" in PROSE
    assert (nc0[nc0.index <= 0.5] < 0.7).all()
    assert f"at $\\beta = 0.5$ the median is {middle[0.5, 'signum']:.2f}" in PROSE
    again = [middles["nc3"][beta, "sgdw"] for beta in (0.95, 0.98)]
    assert f"and 0.98 ({again[0]:.2f} and {again[1]:.2f}): more" in PROSE
    for name in ("sgd", "sgdw"):
        assert ratios.xs(name, level="optimizer").index.unique("lr").tolist() == [0.01, 0.0679]
    assert "(of SGD and SGDW none at η = 0.001)" in PROSE
