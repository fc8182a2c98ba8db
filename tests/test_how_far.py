"""The numbers written out in the chapter on other networks are those of the stored runs."""

import re
from pathlib import Path

import pytest

from ncbook import figures, store
from ncbook.metrics import rule

ROOT = Path(__file__).parents[1]
PROSE = re.sub(r"\s*\n# *", " ", (ROOT / "notebooks" / "how_far.py").read_text(encoding="utf-8"))
RESNET9 = dict(dataset="fashion_mnist", model="resnet9", width=1 / 8, train_size=2000, epochs=100)
FOUR = ["adam", "adamw", "signum", "signumw"]


def medians_of(dataset, least_seeds):
    """NC3, raw and centred, of each optimizer and weight decay."""
    runs = store.load_runs(ROOT / "book" / "results", dataset=dataset)
    runs = figures.converged(figures.of_setting(runs, **RESNET9 | dict(dataset=dataset)))
    runs = runs[(runs["weight_decay"] > 0) & runs["optimizer"].isin(FOUR)]
    seeds = runs.groupby(["optimizer", "weight_decay"])["seed"].transform("nunique")
    runs = runs[seeds >= least_seeds]
    return runs.groupby(["optimizer", "weight_decay"])[["nc3", "nc3_centred"]].median()


@pytest.fixture(scope="module")
def medians():
    return medians_of("fashion_mnist", 3)


def test_on_a_resnet9_the_gauge_is_the_whole_distance(medians):
    strongest = medians.groupby("optimizer").tail(1).droplevel("weight_decay")
    adam, adamw, signum, signumw = strongest.loc[FOUR].to_numpy()
    assert f"at λ = 5 AdamW's NC3 is {adamw[0]:.2f} and Adam's at 0.05 is {adam[0]:.2f}" in PROSE
    assert f"without the gauge AdamW's is {adamw[1]:.2f} and Adam's {adam[1]:.2f} (med" in PROSE
    assert adamw[1] == pytest.approx(adam[1], rel=0.1)
    words = f"SignumW's goes from {signumw[0]:.2f} to {signumw[1]:.2f}, below Signum's "
    assert words + f"{signum[1]:.2f}" in PROSE
    assert signumw[1] < signum[1]


@pytest.mark.parametrize(("dataset", "seeds"), [("fashion_mnist", 3), ("folder:cifar10-jpeg", 2)])
def test_on_the_resnet9s_of_two_data_sets_all_of_the_difference_is_gauge(dataset, seeds):
    least = medians_of(dataset, seeds).groupby("optimizer").min()
    for coupled, decoupled in (("adam", "adamw"), ("signum", "signumw")):
        assert least.loc[decoupled, "nc3"] > 1.2 * least.loc[coupled, "nc3"]
        assert least.loc[decoupled, "nc3_centred"] < 1.01 * least.loc[coupled, "nc3_centred"]
    if dataset != "fashion_mnist":
        adam, adamw, signum, signumw = least.loc[FOUR, "nc3_centred"]
        words = (
            f"least NC3 is {adamw:.2f} and Adam's {adam:.2f}, SignumW's {signumw:.2f} and Signum's "
        )
        assert f"{words}{signum:.2f}." in PROSE
    assert "a part of the difference, on ResNet9 for two data sets all of it, is gauge" in PROSE


def test_raw_nc3_chooses_the_decay_further_from_collapse(medians):
    adamw = medians.loc["adamw"]
    weak, strong = adamw.loc[0.5], adamw.loc[5.0]
    assert weak["nc3"] < strong["nc3"]
    assert weak["nc3_centred"] > strong["nc3_centred"]
    words = f"a little less at λ = 0.5, {weak['nc3']:.2f}, but little of that is gauge: "
    assert words + f"{weak['nc3_centred']:.2f} are left without it" in PROSE


METRICS = ["nc3", "nc3_centred", "nc2w_centred"]


def test_what_ten_times_the_epochs_change_under_adamw():
    runs = figures.converged(store.load_runs(ROOT / "book" / "results", dataset="digits"))
    runs = runs[runs["lr"].isin([0.005, 0.0005]) & runs["momentum"].eq(0.9)]
    runs = runs[runs["weight_decay"] > 0]
    by = ["optimizer", "lr", "weight_decay"]
    short, long = (
        figures.of_setting(runs, dataset="digits", model="mlp", epochs=epochs).pipe(
            lambda rows: rows[rows["optimizer"].isin(["adam", "adamw"])]
        )
        for epochs in (200, 2000)
    )
    medians = long.groupby(by)[METRICS].median() / short.groupby(by)[METRICS].median()
    adam, adamw = (medians.dropna().loc[name] for name in ("adam", "adamw"))
    by_seed = [runs.set_index([*by, "seed"])["nc3"] for runs in (short, long)]
    nc3 = (by_seed[1] / by_seed[0]).dropna().groupby(by).median()["adamw"]  # as in the table
    assert f"its NC3 ends at {nc3.min():.2g} to {nc3.max():.2g} times what it was" in PROSE
    slow, fast = (adamw.loc[lr, "nc3_centred"] for lr in (0.0005, 0.005))
    assert (slow < 1).all()
    words = f"at each of the {len(slow)} decays, to {slow.min():.2f} to {slow.max():.2f} times"
    assert f"{words}, and one run collapses but for its gauge" in PROSE
    own = long[long["optimizer"] == "adamw"]
    assert own[rule.outcome(own) == rule.BUT_GAUGE]["lr"].tolist() == [0.0005]
    assert f"At η = 0.005 it does so at {(fast < 1).sum()} of {len(fast)} (medians" in PROSE
    disorder, adams = adamw["nc2w_centred"], adam["nc2w_centred"]
    assert (adams < 1).all()
    assert f"under Adam shrinks at each of {len(adams)} settings" in PROSE
    assert f"under AdamW at {(disorder > 1).sum()} of {len(disorder)};" in PROSE
    weak = disorder[disorder < 1]
    assert [*weak.index] == [(0.0005, 0.0005), (0.0005, 0.05)]
    assert weak.between(0.45, 0.56).all()  # "it halves"


def test_on_a_resnet9_sgds_rate_is_not_its_best():
    runs = store.load_runs(ROOT / "book" / "results", dataset="fashion_mnist", optimizer="sgd")
    runs = figures.of_setting(runs, **RESNET9)
    runs = figures.converged(runs[runs["weight_decay"].eq(0.05) & runs["momentum"].eq(0.9)])
    usual, better = (runs[runs["lr"] == lr][["nc1", "nc2", "nc3"]] for lr in (0.0679, 0.02))
    assert len(better) >= 3
    for dataset, share in (("folder:cifar10-jpeg", 1 / 2), ("mnist", 1 / 4)):
        at = RESNET9 | dict(dataset=dataset, epochs=50 if dataset == "mnist" else 100)
        found = store.load_runs(ROOT / "book" / "results", optimizer=["sgd", "sgdw"], lr=0.0679)
        found = figures.uniform(figures.of_setting(found, **at))
        assert 1 - len(figures.converged(found)) / len(found) == pytest.approx(share, abs=0.03)
    assert (better.median() < usual.median()).all()


def test_on_the_small_vit_no_run_collapses_and_the_order_is_not_seen():
    runs = store.load_runs(ROOT / "book" / "results", model="vit", status="ok")
    runs = runs[(runs["dataset"] == "mnist") & (runs["train_acc"] >= 0.5)]
    assert set(runs["optimizer"]) == {"sgd", "adam", "adamw"}
    assert not rule.collapsed(runs).any()
    decays = runs[runs["weight_decay"] > 0].groupby(["optimizer", "weight_decay"])
    medians = decays["nc3"].median()[decays["seed"].nunique() == 3]
    assert len(medians["adamw"]) == len(medians["adam"]) == 2
    assert medians["adamw"].max() < medians["adam"].min()
    assert "no run collapses, and AdamW's NC3 is not above Adam's" in PROSE
    assert (runs["train_acc"] > 0.99).mean() > 0.9  # "almost all"


def test_the_section_on_full_width(medians):
    """Six runs of the paper's own ResNet9, next to the medians of the narrow one."""
    runs = store.load_runs(ROOT / "book" / "results", dataset="fashion_mnist", model="resnet9")
    wide = runs[runs["width"] == 1].sort_values("seed")
    last = wide["head_optimizer"].map("/{}".format, na_action="ignore").fillna("")
    wide = wide.set_index(wide["optimizer"] + last)
    assert sorted(wide.index) == ["adam", "adam", "adamw", "adamw", "adamw/sgd", "sgd"]
    assert (wide["train_acc"] == 1).all()
    assert not rule.collapsed(wide).any()
    adam, adamw, mixed = wide.loc["adam"], wide.loc["adamw"], wide.loc["adamw/sgd"]
    assert mixed["nc0"] < 1e-5
    small = figures.of_setting(
        runs,
        **RESNET9,
        optimizer="adamw",
        weight_decay=5.0,
        **dict(head_optimizer="sgd", head_lr=0.0679, head_momentum=0.9, head_weight_decay=0.05),
    )
    words = f"NC3 ends at {mixed['nc3']:.2f}, where AdamW throughout leaves {both(adamw['nc3'])}"
    assert f"{words} (its two seeds; narrow: {small['nc3'].median():.2f} and, throughout, " in PROSE
    assert f"throughout, {medians.loc[('adamw', 5.0), 'nc3']:.2f})" in PROSE
    words = f"in raw NC3 ({both(adamw['nc3'])} against {both(adam['nc3'])})"
    assert f"*below* Adam in both seeds, {words}" in PROSE
    words = f"({both(adamw['nc3_centred'])} against {both(adam['nc3_centred'])})"
    assert f"without the gauge {words}" in PROSE
    others = wide.drop("adam")
    words = f"their NC2 ends at {adam['nc2'].min():.2f} or more, the others' at "
    assert f"{words}{others['nc2'].max():.2f} or less" in PROSE
    assert f"and their NC1 at {adam['nc1'].min():.3f} or more, more than seven times" in PROSE
    assert adam["nc1"].min() > 7 * others["nc1"].max()


def test_bfloat16_is_not_why_full_width_differs():
    runs = store.load_runs(ROOT / "book" / "results", dataset="fashion_mnist", width=1 / 8)
    runs = figures.of_setting(runs, **RESNET9, precision="bfloat16").groupby("optimizer")
    assert runs["seed"].nunique().to_dict() == {"adam": 3, "adamw": 3}
    nc3, centred = (runs[name].median() for name in ("nc3", "nc3_centred"))
    words = f"ends at {nc3['adam']:.2f} under Adam and {nc3['adamw']:.2f} under AdamW, and without"
    assert f"{words} the gauge at {both(centred[['adam', 'adamw']])}." in PROSE


def both(values):
    """Two numbers, as the chapter has them."""
    return " and ".join(f"{value:.2f}" for value in values)
