"""The published runs: how many there are, where they come from, and whether they come out again."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, special, stats

from ncbook import figures, metrics, store, sweep
from ncbook.pages import table_1
from ncbook.store.tables import GAUGE
from ncbook.train import RunConfig

PUBLISHED = Path(__file__).parents[1] / "book" / "results"
MOST_BYTES, LEAST_RUNS = 40e6, 6_000
PROVENANCE = ("ncbook_version", "git_commit", "torch_version", "python_version", "device")
CHECKED = 3
NEXT = " ".join((PUBLISHED.parent / "next.md").read_text(encoding="utf-8").split())
SETTING = [field.name for field in dataclasses.fields(RunConfig) if field.name != "seed"]


@pytest.fixture(scope="module")
def runs():
    return store.load_runs(PUBLISHED)


def config_of(row):
    """The config of a stored run."""
    row = row.astype(object).where(row.notna(), None)
    names = {field.name for field in dataclasses.fields(RunConfig)} & set(row.index)
    values = {name: row[name] for name in names if row[name] is not None}
    whole = {name: int(values[name]) for name in ("train_size",) if name in values}
    return RunConfig(**values | whole)


def test_they_are_many_and_small_and_each_says_where_it_comes_from(runs):
    assert len(runs) >= LEAST_RUNS
    assert sum(p.stat().st_size for p in PUBLISHED.rglob("*.parquet")) < MOST_BYTES
    assert runs[[*PROVENANCE, "created_at", "wall_time_s"]].notna().all(axis=None)
    assert runs["run_id"].is_unique
    assert not runs["git_commit"].str.endswith("+").any()  # a commit that nobody can check out


def test_each_run_has_its_epochs(runs):
    history = store.load_history(PUBLISHED)
    last = history.groupby("run_id")["epoch"].max()
    good = runs[runs["status"] == "ok"].set_index("run_id")["epochs"]
    assert (last.reindex(good.index) == good).all()


# ------------------------------------------------------------ trained again

SAME_KIND = ("processor", "device", "torch_version")  # device: instruction set and threads
LAST_BITS = 1e-9  # of float64: members are measured together
START = 1e-4  # float32's rounding of the start, which no training has amplified
INITIAL = [f"{key}_init" for key in metrics.KEYS]
GAUGE_KEYS = [f"{key}{at}" for key in GAUGE for at in ("", "_init")]
ENDS = ["nc0", "nc2", "nc2w", "nc3", "w_sv_mean", "m_sv_mean"]
ROUNDING = 1e-5  # NC0 below it is rounding; added before logarithms are taken
LEAST_SD = 1e-3  # of a logarithm: what float32 leaves of an end, even where all seeds agree
SEEDS = 5
LIKE = ["optimizer", "lr", "weight_decay"]  # settings alike in these have similar spreads
# False alarms are to be rare even if each of 5,000 rows is compared on 20 makes of processor:
# one in a hundred such efforts.
ALPHA = 0.01 / (5_000 * 20 * len(ENDS))


@pytest.fixture(scope="module")
def small(runs):
    """Runs that train in seconds, of settings whose five seeds all have finite ends."""
    small = runs[(runs["dataset"] == "digits") & (runs["epochs"] <= 200) & (runs["status"] == "ok")]
    small = small[np.isfinite(small[ENDS]).all(axis=1)]
    small = small.assign(setting=small.groupby(SETTING, dropna=False).ngroup())
    small = small[small.groupby("setting")["seed"].transform("size") == SEEDS]
    return small.set_index("run_id", drop=False)


class Spread:
    """How far the ends of a run may lie from the published ones where kernels round otherwise.

    Rounding changes no more than another seed would. Logarithms of the ends are about normal over
    seeds: two trainings differ by less than t s sqrt(2), where s2 is the variance over the seeds
    and t the quantile of Student's distribution. Five values give s2 4 degrees of freedom, and at
    so small an ALPHA no power, so that it is moderated by the settings that are LIKE it. If the
    variances of these vary as those of a prior with d0 degrees of freedom about s0, then
    (d0 s0 + 4 s2) / (d0 + 4) has d0 + 4 (Smyth, Linear models and empirical Bayes methods, Stat.
    Appl. Genet. Mol. Biol. 3 (2004), eq. 3 and section 6.2). What seeds have in common in settings
    that are alike, such as the NC0 they start with, makes s2 too large, never too small.
    """

    def __init__(self, rows):
        groups = logs(rows).groupby(rows["setting"])
        self.mean, variance = groups.mean(), groups.var().clip(lower=LEAST_SD**2)
        like = rows.groupby("setting")[LIKE].first().groupby(LIKE).ngroup()
        priors = {key: prior(variance[key], like) for key in ENDS}
        d0 = pd.Series({key: d0 for key, (d0, _) in priors.items()})
        s0 = pd.DataFrame({key: s0 for key, (_, s0) in priors.items()})
        self.d = d0 + SEEDS - 1
        self.variance = (d0 * s0 + (SEEDS - 1) * variance) / self.d  # by setting and metric

    def t(self, alpha):
        return stats.t.ppf(1 - alpha / 2, self.d)

    def outside(self, new, old):
        """Which ends of new rows lie too far from those of old ones, of the same index."""
        far = (logs(new) - logs(old)).abs()
        limits = np.sqrt(2 * self.variance.loc[old["setting"]].set_axis(old.index)) * self.t(ALPHA)
        return ~(far <= limits)


def logs(rows):
    return np.log(rows[ENDS].astype(float) + ROUNDING)


def prior(variance, like, d=SEEDS - 1):
    """d0, and s0 for each setting."""
    e = np.log(variance) - special.digamma(d / 2) + np.log(d / 2)
    mean = e.groupby(like).transform("mean")
    extra = ((e - mean) ** 2).sum() / (len(e) - like.nunique()) - special.polygamma(1, d / 2)
    d0 = 2 * optimize.brentq(lambda x: special.polygamma(1, x) - max(extra, 1e-3), 1e-3, 1e4)
    return d0, np.exp(mean + special.digamma(d0 / 2) - np.log(d0 / 2))


def differences(new, old, spread):
    """By what a row that was trained here differs from the published one."""
    # Rows from before the gauge of W was measured do not have it.
    since = GAUGE_KEYS if old[GAUGE_KEYS].isna().all() else []
    if all(new[name] == old[name] and pd.notna(old[name]) for name in SAME_KIND):
        return unequal(new, old, [k for k in metrics.KEYS if k not in since], LAST_BITS)
    new, old = (pd.DataFrame([row]).reset_index(drop=True) for row in (new, old))
    outside = spread.outside(new, old).iloc[0]
    initial = [k for k in INITIAL if k not in since]
    return unequal(new.iloc[0], old.iloc[0], initial, START) + list(outside.index[outside])


def unequal(new, old, keys, tolerance):
    return [k for k in keys if not np.isclose(new[k], old[k], tolerance, 0, equal_nan=True)]


@pytest.fixture(scope="module")
def spread(small):
    return Spread(small)


def next_on(axis, small):
    """Pairs of rows that differ in one setting alone, and there by a step of the grid."""
    others = [name for name in [*SETTING, "seed"] if name != axis]
    ordered = small.sort_values(axis)
    after = ordered.groupby(others, dropna=False)["run_id"].shift(-1).dropna()
    return small.loc[after.index], small.loc[after].set_axis(after.index)


def test_of_published_rows_as_many_lie_outside_as_should(small, spread):
    """The same seed at the next momentum: what it does at both cancels, and chance is left."""
    here, there = (
        (logs(rows) - spread.mean.loc[rows["setting"]].set_axis(rows.index), rows["setting"])
        for rows in next_on("momentum", small)
    )
    variances = [
        spread.variance.loc[setting].set_axis(setting.index) for _, setting in (here, there)
    ]
    far = (here[0] - there[0]).abs() / np.sqrt(sum(variances) * (1 - 1 / SEEDS))
    share = (far > spread.t(0.01)).mean()
    assert (share < 0.02).all(), share
    assert not (far > spread.t(ALPHA)).any(axis=None)


@pytest.mark.parametrize(
    ("axis", "least"), [("lr", 0.5), ("weight_decay", 0.45), ("momentum", 0.1)]
)
def test_a_row_of_the_next_setting_of_the_grid_is_found(small, spread, axis, least):
    """In so many cases, by its ends alone; often a step moves them by less than a seed does."""
    here, there = next_on(axis, small)
    assert len(here) > 1500
    assert spread.outside(there, here).any(axis=1).mean() > least


def test_a_row_of_another_seed_is_found_by_its_start(small):
    starts = small.groupby("setting")[INITIAL[0]]
    assert (starts.nunique() == SEEDS).all()
    next_larger = small.sort_values(INITIAL[0]).groupby("setting")[INITIAL[0]].pct_change()
    assert next_larger.min() > 10 * START


WRONG = {
    "a tenth of the decay": dict(weight_decay=0.005),
    "a tenth of the learning rate": dict(lr=0.001),
    "another seed": dict(seed=1),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_row_is_found(small, spread, wrong):
    right = dict(optimizer="adam", lr=0.01, momentum=0.9, weight_decay=0.05, seed=0)
    old, new = (
        small.loc[(small[list(names)] == pd.Series(names)).all(axis=1)].iloc[0]
        for names in (right, right | WRONG[wrong])
    )
    elsewhere = {"processor": "another"}
    assert differences(pd.Series({**old, **elsewhere}), old, spread) == []
    assert differences(pd.Series({**new, **elsewhere}), old, spread)


@pytest.mark.parametrize("pair", [("nc0", "nc3"), ("nc2", "w_sv_mean"), ("nc3", "nc1")], ids=str)
def test_swapped_metrics_are_found(small, spread, pair):
    swapped = small.rename(columns=dict(zip(pair, reversed(pair), strict=True)))
    assert spread.outside(swapped, small).any(axis=1).mean() > 0.5


def test_of_the_same_make_only_the_last_bits_may_differ(small, spread):
    old = small.iloc[0].copy()
    old["processor"] = "this one"
    new = old.copy()
    new["nc1"] *= 1 + 1e-6
    assert differences(new, old, spread) == ["nc1"]
    new["processor"] = "another"
    assert differences(new, old, spread) == []


@pytest.mark.slow
def test_three_random_runs_come_out_again(small, spread, tmp_path):
    rows = small.sample(CHECKED, random_state=len(small))  # others with every new block of runs
    sweep.run([config_of(row) for _, row in rows.iterrows()], tmp_path, workers=1, progress=False)
    again = store.load_runs(tmp_path).set_index("run_id", drop=False)
    found = {i: differences(again.loc[i], old, spread) for i, old in rows.iterrows()}
    assert found == {i: [] for i in rows.index}


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "signum"])
def test_a_run_comes_out_again_here_alone_and_in_company(small, tmp_path, optimizer):
    row = small[small["optimizer"] == optimizer].sample(random_state=len(small)).iloc[0]
    mine = dataclasses.replace(config_of(row), epochs=3)
    company = [dataclasses.replace(mine, weight_decay=mine.weight_decay + i) for i in (1, 2)]
    found = []
    for place, configs in {"a": [mine], "b": [mine], "company": [*company, mine]}.items():
        sweep.run(configs, tmp_path / place, workers=1, progress=False)
        found.append(store.load_runs(tmp_path / place, run_id=sweep.run_id(mine)).iloc[0])
    alone, again, in_company = found
    assert unequal(again, alone, [*metrics.KEYS, *INITIAL], 0) == []
    assert unequal(in_company, alone, [*metrics.KEYS, *INITIAL], LAST_BITS) == []


def test_what_the_explorers_chapter_bids_to_try():
    """Raise λ of Adam and of AdamW at η = 0.005 and β = 0.9: what the map's cells then say."""
    runs = figures.of_setting(store.load_runs(PUBLISHED, dataset="digits"), lr=0.005, momentum=0.9)
    learned = figures.converged(runs).groupby(["optimizer", "weight_decay"])[["nc0", "nc3"]].mean()
    adam, adamw = learned.loc["adam"], learned.loc["adamw"]
    assert adam.index.max() == 0.05
    assert runs[runs["optimizer"] == "adam"]["weight_decay"].max() == 0.5
    assert (adam.diff().dropna() < 0).all(axis=None)
    assert adamw["nc0"].min() > 4


JPEG = dict(dataset="folder:cifar10-jpeg", width=1 / 8, train_size=2000, epochs=100)


@pytest.mark.parametrize(
    ("words", "setting"),
    [
        ("The digits MLP has", dict(dataset="digits", model="mlp", epochs=200)),
        ("MNIST's MLP", dict(dataset="mnist", model="mlp", epochs=50, train_size=6000)),
        ("CIFAR-10 (JPEG)", JPEG | dict(model="resnet9")),
        ("CIFAR-10 (JPEG)", JPEG | dict(model="vgg9")),
        ("the runs of Table 1", table_1.SETTING),
    ],
)
def test_the_page_on_what_is_next_names_the_seeds(runs, words, setting):
    """The least number of any point of the six grids that has been trained."""
    rows = figures.on_grid(figures.of_setting(figures.uniform(runs), **setting), sweep.GRIDS)
    least = rows.groupby(["optimizer", "lr", "momentum", "weight_decay"])["seed"].nunique().min()
    assert f"{words} {('one', 'two', 'three', 'four', 'five')[least - 1]}" in NEXT
