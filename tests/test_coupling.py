"""The numbers written out in the chapter on coupling are those of the stored runs."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ncbook import figures, store, sweep
from ncbook.metrics import rule
from ncbook.pages import six_grids, table_1

ROOT = Path(__file__).parents[1]
FILE = ROOT / "notebooks" / "coupling.py"
PROSE = re.sub(r"\s*\n# *", " ", FILE.read_text(encoding="utf-8"))
KEY = ["lr", "momentum", "weight_decay", "seed"]
RATES = dict.fromkeys(sweep.GRIDS, 0.005) | dict(sgd=0.0679, sgdw=0.0679)


@pytest.fixture(scope="module")
def stored():
    return six_grids.stored(ROOT / "book" / "results")


@pytest.fixture(scope="module")
def good(stored):
    return figures.converged(six_grids.complete(stored))


@pytest.fixture(scope="module")
def decayed(good):
    return good[good["weight_decay"] > 0]


def left(runs, metric):
    """The share that each run leaves."""
    return figures.fraction_of_start(runs, [metric])[metric]


def ratios(runs, coupled, decoupled):
    """Decoupled over coupled at equal settings."""
    one, other = (
        runs[runs["optimizer"] == name].set_index(KEY)[["nc0", "nc3"]]
        for name in (coupled, decoupled)
    )
    return (other / one).dropna()


def test_with_the_papers_number_of_steps():
    runs = table_1.stored(ROOT / "book" / "results").set_index("optimizer")
    assert set(runs.index) == set(table_1.RATES)
    learned = runs["train_acc"].drop("signum")
    assert (learned.round(3) == 1).all()
    assert f"steps of ±{runs['lr']['signum']:g}, {runs['train_acc']['signum']:.1%}" in (
        PROSE.replace(" %", "%")
    )
    assert not rule.collapsed(runs).any()
    nc0, nc3 = left(runs, "nc0"), runs["nc3"]
    words = f"then falls, to {nc0['adam']:.2f} times its start (there 0.19), no lower than SGDW's; "
    assert f"{words}under AdamW it grows to {nc0['adamw']:.1f} times (there 3)" in PROSE
    assert f"under SignumW to {nc0['signumw']:.0f} times (there {3185.69 / 1.765:,.0f})" in PROSE
    assert f"Signum's ends at {nc0['signum']:.1f} times, where the paper has 0.45" in PROSE
    assert nc0["adam"] >= nc0["sgdw"]
    assert f"steps as the paper's leaves {nc0['adam']:.2f}." in PROSE
    ends = f"at {nc3['sgd']:.2f} under SGD and {nc3['adam']:.2f} under Adam, at {nc3['sgdw']:.2f} "
    assert f"{ends}under SGDW and {nc3['adamw']:.2f} under AdamW" in PROSE
    assert "SGD and Adam have less of it than SGDW and AdamW. It ends" in PROSE
    words = f"between them, at {nc3['signum']:.2f} (there 0.58), and SignumW's rises again, to "
    assert f"{words}{nc3['signumw']:.2f} (there 1.40)" in PROSE
    assert nc3[["sgd", "adam"]].max() < nc3["signum"] < nc3[["sgdw", "adamw"]].min()
    history = store.load_history(ROOT / "book" / "results", run_id=list(runs["run_id"]))
    path = history.pivot(index="epoch", columns="optimizer", values="nc3")
    fall = path.loc[0] - path
    assert "Nine tenths of NC3's fall come in the first epoch (under Signum eight)" in PROSE
    first = fall.loc[1] / fall.loc[200]
    assert (first.drop("signum") >= 0.9).all()
    assert 0.8 <= first["signum"] < 0.9
    signum = history.pivot(index="epoch", columns="optimizer", values="nc0")["signum"]
    assert f"it rises, falls until epoch {signum[1:].idxmin()}, and grows again" in PROSE
    assert signum.idxmax() < signum[1:].idxmin()
    path = path[1:]
    assert (path[["sgd", "adam"]].max(axis=1) < path[["sgdw", "adamw"]].min(axis=1)).all()


def test_how_many_collapsed(decayed):
    so = rule.collapsed(decayed).groupby(decayed["optimizer"]).agg(["sum", "size"])
    coupled, decoupled = so.loc[["adam", "signum"]].sum(), so.loc[["adamw", "signumw"]].sum()
    assert f"in {coupled['sum']} of their {coupled['size']} converged runs" in PROSE
    assert decoupled["sum"] == 0
    assert f"AdamW and SignumW in none of {decoupled['size']}" in PROSE
    assert so.loc["sgdw", "sum"] > 0


def test_the_means_of_the_picture(good):
    means = good.groupby(["optimizer", "weight_decay"])["nc3"].mean()
    fall = {name: means[name][0] / means[name].min() for name in sweep.GRIDS}
    words = "falls {adam:.0f} times under Adam and {signum:.0f} times under Signum, but only "
    words += "{adamw:.1f} times under AdamW and {signumw:.1f} times under SignumW"
    assert words.format(**fall) in PROSE


def test_decay_is_needed_within_these_epochs(good, decayed):
    free = good[good["weight_decay"] == 0]
    least = left(decayed, "nc3").groupby(decayed["optimizer"]).min()
    assert not rule.collapsed(free).any()
    kept = int(100 * left(free, "nc3").min())
    assert f"every run of every optimizer keeps more than {kept} % of its NC3" in PROSE
    most = least[["sgd", "adam", "signum"]].max()
    assert f"each come down to {100 * most:.1f} % or less" in PROSE
    decoupled, coupled = least[["adamw", "signumw"]].min(), least[["adam", "signum"]].max()
    assert f"keeps {100 * decoupled:.0f} % of its starting NC3" in PROSE
    assert f"Adam's and Signum's best keep {100 * coupled:.1f} % or less" in PROSE
    free = good[good["optimizer"].isin(["adamw", "signumw"])]
    assert f"at least {left(free, 'nc0').min():.1f} times the NC0" in PROSE


def test_it_is_not_the_gauge_alone(decayed):
    stored = decayed[decayed["gauge_share"].notna()]
    adaptive = ["adamw", "signumw"]
    place = stored["optimizer"].isin(adaptive)
    runs, share = stored[place], stored["gauge_share"]
    both = stored[~place & rule.collapsed(stored) & ~stored["optimizer"].str.startswith("sgd")]
    words = f"In all {len(runs)} runs the gauge share ends between {share[place].min():.2f} and "
    assert f"{words}{share[place].max():.2f}" in PROSE
    other = (ROOT / "notebooks" / "diagnostic.py").read_text(encoding="utf-8")
    assert f"it is {share[place].min():.2f} or more in each" in other
    most = both["gauge_share"].max()
    assert f"no more than {np.ceil(1000 * most) / 1000:.3f} in the {len(both)} runs of" in PROSE
    below = (runs["nc3_centred"] < rule.THRESHOLD).sum()
    assert f"it is below 0.1 in {below} of the {len(runs)}." in PROSE
    gauge = 1 - runs["nc3_centred"] ** 2 / runs["nc3"] ** 2
    strong, weak = runs["weight_decay"] >= 5, runs["weight_decay"] == 5e-4
    most = (
        f"and {100 * gauge[strong].min():.0f} % or more ({100 * gauge[strong].median():.0f} % in "
    )
    assert f"{most}the median) in the {strong.sum()} runs at 5 and 10" in PROSE
    adamw, signumw = 100 * gauge[weak].groupby(runs["optimizer"]).median()
    assert f"gauge makes {adamw:.0f} % of NC3² under AdamW and {signumw:.0f} % under" in PROSE
    middle = runs[strong].groupby(["optimizer", "weight_decay"])["nc3_centred"].median()
    assert f"centred NC3 is {middle.min():.2f} to {middle.max():.2f} (medians)" in PROSE
    least = runs[["nc1", "nc2", "nc3_centred"]].max(axis=1)
    some, more = ((least < threshold).sum() for threshold in (0.15, 0.2))
    assert (runs["weight_decay"][least < 0.15] == 5).all()
    words = f"at 0.15 in place of 0.1, {some} runs would count, all at $\\lambda = 5$, and at 0.2, "
    assert f"{words}{more}." in PROSE
    assert not {rule.COLLAPSED, rule.BUT_GAUGE} & set(rule.outcome(runs))
    small = runs["nc2"] <= rule.THRESHOLD
    words = f"above 0.1 in {(~small).sum()} (the other one has a centred NC3 of "
    assert f"{words}{runs['nc3_centred'][small].item():.2f})" in PROSE
    assert f"pairs and {len(runs)} runs" in PROSE


def test_how_much_decay_is_enough(decayed):
    """ "Nearly all of Adam's and Signum's runs"."""
    runs = decayed[decayed["optimizer"].isin(["adam", "signum"])]
    strong = rule.collapsed(runs[runs["weight_decay"] >= 0.05])
    assert strong.mean() > 0.9
    assert rule.collapsed(runs[runs["weight_decay"] < 0.05]).mean() < 0.5
    sgd = decayed[decayed["optimizer"].isin(["sgd", "sgdw"])]
    slow = (sgd["lr"] == sgd["lr"].min()) & (sgd["momentum"] < 0.9)
    assert not rule.collapsed(sgd[slow]).any()


def test_the_pairs(decayed):
    pairs = pd.concat([ratios(decayed, "adam", "adamw"), ratios(decayed, "signum", "signumw")])
    assert (pairs["nc3"] > 1).all()
    assert f"In all {len(pairs)} such pairs NC3 is higher" in PROSE
    lower = pairs["nc0"][pairs["nc0"] <= 1]
    words = f"and NC0 in {len(pairs) - 1} (the other one, at λ = 0.0005, keeps {lower.item():.2f}"
    assert words in PROSE
    assert lower.index.get_level_values("weight_decay").item() == 5e-4
    assert f"measured, n = {len(pairs)} pairs" in PROSE


def test_sgd_and_sgdw_are_one_curve(decayed):
    runs = decayed[decayed["momentum"] == 0.9]
    equal = ratios(runs, "sgd", "sgdw")["nc3"]
    tenth = (runs["weight_decay"] / 10).round(9).where(runs["optimizer"] == "sgdw")
    moved = ratios(runs.assign(weight_decay=tenth.fillna(runs["weight_decay"])), "sgd", "sgdw")
    assert f"up to {equal.max():.1f} times SGD's NC3 at momentum 0.9" in PROSE
    assert f"with {moved['nc3'].min():.2f} to {moved['nc3'].max():.2f} times as much" in PROSE


def test_what_stands_out_in_the_tables(good):
    chosen = (good["lr"] == good["optimizer"].map(RATES)) & (good["momentum"] == 0.9)
    adam = good[chosen & (good["weight_decay"] == 5e-4) & (good["optimizer"] == "adam")]
    assert f"NC0 ends at {left(adam, 'nc0').mean():.1f} times its start under Adam" in PROSE
    settings = good.groupby(["optimizer", *KEY[:3]])
    means = settings[["nc2", "nc3"]].mean()[settings.size() == 5]
    best = means.loc[means.groupby("optimizer")["nc3"].idxmin()].droplevel([1, 2, 3])["nc2"]
    four = best[["sgd", "sgdw", "adam", "adamw"]]
    assert four.idxmax() == "adamw"
    assert f"here it has the largest, {four.max():.2f}." in PROSE


def test_no_row_of_the_papers_tables_has_collapsed():
    tables = "".join(re.findall(r'PRINTED_[12] = """(.+?)"""', FILE.read_text("utf-8"), re.S))
    nc2 = [float(row.split(" | ")[3].split()[0]) for row in tables.strip().splitlines() if row]
    assert len(nc2) == 10
    assert f"has collapsed: their NC2 is {min(nc2)} or more" in PROSE
    assert min(nc2) > rule.THRESHOLD


def test_neither_reading_of_adamw_collapses(stored, good):
    written = good[good["optimizer"] == "adamw"]
    fixed = {"adamw": replace(sweep.GRIDS["adamw"], weight_decays=(0.01,))}
    fixed = figures.converged(figures.even_seeds(figures.on_grid(stored, fixed)))
    assert not rule.collapsed(pd.concat([written, fixed])).any()
    assert f"of AdamW's {len(written)} converged runs" in PROSE
    assert f"and with 0.01 none of {len(fixed)};" in PROSE
    assert f"is {written['nc3'].min():.2f} and {fixed['nc3'].min():.2f}." in PROSE
