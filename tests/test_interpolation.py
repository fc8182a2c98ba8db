"""The numbers written out in the chapter on interpolation are those of the stored runs."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ncbook import figures, store, sweep, theory

ROOT = Path(__file__).parents[1]
FILE = ROOT / "notebooks" / "interpolation.py"
PROSE = re.sub(r"\s*\n# *", " ", FILE.read_text(encoding="utf-8"))
TOTALS = [5e-4, 5e-3, 0.05]
WALK = ["optimizer", "weight_decay"]
PAIRS = [(5e-4, 5e-3), (5e-3, 0.05)]  # totals Λ and 10Λ


@pytest.fixture(scope="module")
def good():
    parts = []
    for name, grid in sweep.MIXED_GRIDS.items():
        runs = store.load_runs(ROOT / "book" / "results", optimizer=name, weight_decay=TOTALS)
        setting = dict(dataset="digits", model="mlp", epochs=200)
        setting |= dict(lr=grid.lrs[0], momentum=grid.momenta[0])
        parts.append(figures.of_setting(runs, **setting).assign(optimizer=name.split("_")[0]))
    return figures.converged(pd.concat(parts))


def test_the_law_of_sgd(good):
    sgd = good[good["optimizer"] == "sgd"]
    columns = ["lr", "momentum", "weight_decay", "coupled_share"]
    *numbers, share = sgd[columns].to_numpy(float).T
    law = theory.row_sum_ratio(*numbers, 11, 200, 1 - share)
    off = (sgd["nc0"] / sgd["nc0_init"] / law - 1).abs().max()
    assert f"among the {len(sgd)} runs is {off:.0e}" in PROSE
    assert f"exact by the law, in {len(sgd)} runs" in PROSE


def test_how_far_and_how_evenly_each_walk_leads(good):
    middle = good.groupby([*WALK, "coupled_share"])["nc0"].median()
    steps = np.log(middle).groupby(level=[0, 1]).diff().dropna().groupby(level=[0, 1])
    first, largest = steps.first() / steps.sum(), steps.min() / steps.sum()
    fall = middle.groupby(level=[0, 1]).agg(lambda walk: walk.iloc[0] / walk.iloc[-1])
    adam, signum = ("adam", 5e-4), ("signum", 5e-4)
    walk = good[(good["optimizer"] == "adam") & (good["weight_decay"] == 5e-4)]
    walk = walk.groupby("coupled_share")[["nc2", "nc3"]].median()
    of_nc3 = np.log(walk["nc3"]).diff()
    low, high = walk["nc2"].min(), walk["nc2"].max()
    assert f"NC2 goes up and down on the way, between {low:.2f} and {high:.2f}." in PROSE
    words = f"more than {100 * largest[adam]:.0f} % of the change of log NC0 and "
    words += f"{100 * of_nc3.min() / of_nc3.sum():.0f} % of that of log NC3"
    assert words in PROSE
    assert f"and NC0 falls by a factor of {fall[adam]:.1f}" in PROSE
    assert largest["adam", 5e-3] <= largest[adam]
    assert (of_nc3.dropna() < 0).all()
    back = np.log(middle[adam]).diff().dropna()
    back = back / back.sum()
    words = f"NC0 rises in {(back < 0).sum()} of the {len(back)}, in one by "
    assert f"{words}{-100 * back.min():.0f} % of the change" in PROSE
    words = f"{100 * first[signum]:.0f} % of the change is in the first tenth"
    assert words in PROSE
    assert f"NC0 falls by a factor of {fall[signum]:.0f}" in PROSE
    assert f"first tenth makes {100 * first['adam', 0.05]:.0f} % of the change" in PROSE


def test_the_walk_on_resnet9():
    runs = store.load_runs(ROOT / "book" / "results", optimizer="adam_mixed", model="resnet9")
    assert runs["seed"].nunique() == 1
    means = runs.set_index(["weight_decay", "coupled_share"]).sort_index()
    weak, strong = means.loc[5e-4], means.loc[0.05]
    little = {m: f"{100 * (1 - weak.loc[1, m] / weak.loc[0, m]):.1f} %" for m in ("nc0", "nc3")}
    assert f"NC0 falls by {little['nc0']}, NC3 by {little['nc3']}." in PROSE
    steps = np.log(strong[["nc0", "nc2", "nc3"]]).diff().dropna()
    shares = 100 * steps / steps.sum()
    falls = np.exp(-steps.sum())
    assert f"NC0 falls by a factor of {falls['nc0']:.1f} and NC3 by {falls['nc3']:.1f}" in PROSE
    most = shares.max()
    assert f"makes more than {most['nc0']:.0f} % and {most['nc3']:.0f} % of the change" in PROSE
    assert f"NC2 falls, too, but with {shares['nc2'].iloc[0]:.0f} % in the first tenth" in PROSE
    ends = 100 * strong["test_acc"].loc[[0.0, 1.0]]
    assert f"it goes from {ends[0.0]:.1f} % to {ends[1.0]:.1f} %" in PROSE
    here, there = 0.05 * 50 * -(-2000 // 128), 5e-4 * 200 * -(-60_000 // 128)
    assert f"the number of steps {here:.0f}, where the paper has {there:.0f}" in PROSE


def test_coupled_decay_comes_to_an_end(good):
    whole = good[(good["optimizer"] == "signum") & (good["coupled_share"] == 1)]
    ends = whole.pivot_table("nc3", "seed", "weight_decay")
    rise = ends[0.05] / ends[0.005]
    assert rise.min() > 1
    assert f"to 0.05 Signum's NC3 rises by a factor of {rise.median():.1f}." in PROSE


def test_the_amount_decides(good):
    runs = good[good["optimizer"] != "sgd"]
    key = ["optimizer", "weight_decay", "seed"]
    whole = runs[runs["coupled_share"] == 1].set_index(key)["nc0"]
    medians = {}
    for place, share in (("coupled", 1.0), ("decoupled", 0.1)):
        more = runs[runs["coupled_share"] == share]
        more = more.assign(weight_decay=(more["weight_decay"] / 10).round(9))
        ratio = (more.set_index(key)["nc0"] / whole).dropna()
        medians[place] = 100 * ratio.groupby(level=[0, 1]).median()
    coupled, decoupled = (f"{m.min():.0f} % to {m.max():.0f} %" for m in medians.values())
    words = f"decoupled, NC0 keeps {decoupled} of its value; if it is coupled, {coupled}."
    assert words in PROSE
    words = (
        f"of coupled decay leaves {coupled} of NC0, and $9\\Lambda$ of decoupled decay {decoupled}"
    )
    assert words in PROSE
    # The law of one weight, with its learning rate, for 200 epochs of 11 steps.
    lr = {name: sweep.MIXED_GRIDS[f"{name}_mixed"].lrs[0] for name in ("adam", "signum")}
    taken = {
        key: (1 - middle / 100)
        / (1 - theory.row_sum_ratio(lr[key[0]], 0.0, 9 * key[1], 11, 200, 1.0))
        for key, middle in medians["decoupled"].items()
    }
    largest = 100 * (1 - theory.row_sum_ratio(lr["adam"], 0.0, max(TOTALS), 11, 200, 1.0))
    assert f"takes no more than {largest:.0f} % off a weight by itself" in PROSE
    adam, signum = taken["adam", 5e-3], taken["signum", 5e-3]
    assert f"part takes {adam:.1f} (Adam) and {signum:.1f} times (Signum) what" in PROSE
    at = runs.pivot_table("nc0", ["optimizer", "seed"], ["weight_decay", "coupled_share"])
    by_seed = at[0.05, 0.1] / at[5e-3, 1.0]
    kept = {name: theory.row_sum_ratio(lr[name], 0.0, 0.045, 11, 200, 1.0) for name in lr}
    assert (by_seed < by_seed.index.get_level_values(0).map(kept)).all()


def test_the_measured_worth_of_decoupled_decay(good):
    """κ, under SGD one tenth by theory, from two differences of log NC0."""
    at = good.pivot_table("nc0", ["optimizer", "seed"], ["weight_decay", "coupled_share"])
    found = {}
    for few, many in PAIRS:
        k = np.log(at[many, 0.1] / at[few, 1.0]) / 9 / np.log(at[many, 0.2] / at[many, 0.1])
        found[few] = k / (1 + k)
    worth = pd.DataFrame(found)
    assert np.allclose(worth.loc["sgd"], 0.1, atol=0.002)
    small, large = (worth[total].groupby("optimizer").median() for total in found)
    assert f"At the smaller total $\\kappa$ is {small['adam']:.3f} under Adam" in PROSE
    adam, signum = (worth.loc[name, 5e-4] for name in ("adam", "signum"))
    words = f"under Adam ({adam.min():.3f} to {adam.max():.3f} by seed)".replace("-0.000", "0.000")
    assert words in PROSE
    assert f"under Signum ({signum.min():.2f} to {signum.max():.2f})".replace("-", "−") in PROSE
    words = f"under Adam as under SGD (κ = {large['adam']:.2f}), and under Signum less ("
    assert f"{words}{large['signum']:.2f})" in PROSE
    assert f"At the larger one it is {large['adam']:.2f} and {large['signum']:.2f}" in PROSE
    left = {few: 100 * (at[many, 0.1] / at[few, 1.0]).loc["sgd"].median() for few, many in PAIRS}
    words = "decoupled decay leaves {:.0f} % and {:.0f} % of NC0"
    assert words.format(left[5e-4], left[5e-3]) in PROSE
    more = {few: 100 * (at[many, 1.0] / at[few, 1.0]).loc["sgd"].median() for few, many in PAIRS}
    ends = [f"{min(d.values()):.0f} % to {max(d.values()):.0f} %" for d in (left, more)]
    assert f"SGD's keeps {ends[0]} and {ends[1]}, so NC0" in PROSE
    rates = [sweep.MIXED_GRIDS[f"{name}_mixed"].lrs[0] for name in ("adam", "sgd")]
    assert rates[0] == rates[1] / 2  # "half as large"
    nc3 = good.pivot_table("nc3", ["optimizer", "seed"], ["weight_decay", "coupled_share"])
    nc3 = nc3.loc["adam"]
    for share, how in ((0.1, "is decoupled"), (1.0, "is coupled")):
        few, many = (f"{(nc3[b, share] / nc3[a, 1.0]).median():.2f}" for a, b in PAIRS)
        assert re.search(rf"by {few} and {many} if (the addition|it) {how}", PROSE)
    words = [f"{(nc3[0.05, share] / nc3[5e-3, 1.0]).median():.2f}" for share in (0.1, 1.0)]
    assert f"multiplied by {words[0]} if $9\\Lambda$ is decoupled, and by {words[1]} if" in PROSE


def test_accuracy_does_not_change(good):
    sides = good.pivot_table("test_acc", [*WALK, "seed"], "coupled_share")
    gain = (100 * (sides[1.0] - sides[0.0])).groupby(level=[0, 1]).median()
    assert len(gain) == 9
    words = f"between {gain.min():+.2f} and {gain.max():+.2f} points"
    assert words.replace("-", "−") in PROSE
