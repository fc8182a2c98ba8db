"""Least squares against its textbook formulas, SciPy, printed values and statsmodels itself."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import statsmodels.formula.api as smf
from sklearn.datasets import load_diabetes

from ncbook import stats

# Table 5 of the paper: n, slope, SE, t, low, high, R², adjusted R², F.
TABLE_5 = [
    (170, 0.1903, 0.008, 24.262, 0.175, 0.206, 0.778, 0.777, 588.6),
    (74, 0.2017, 0.012, 16.252, 0.177, 0.226, 0.786, 0.783, 264.1),
    (114, 0.1439, 0.007, 19.892, 0.13, 0.158, 0.779, 0.777, 395.7),
    (41, 0.1771, 0.012, 14.367, 0.152, 0.202, 0.841, 0.837, 206.4),
    (399, 0.1582, 0.005, 32.760, 0.149, 0.168, 0.730, 0.729, 1073),
]
# Anscombe, "Graphs in statistical analysis" (1973): his first set, printed slope 0.5, SE 0.118,
# intercept 3, R² 0.667.
ANSCOMBE_X = [10, 8, 13, 9, 11, 14, 6, 4, 12, 7, 5]
ANSCOMBE_Y = [8.04, 6.95, 7.58, 8.81, 8.33, 9.96, 7.24, 4.26, 10.84, 4.82, 5.68]


def line(x, y):
    return stats.lines(pd.DataFrame({"x": x, "y": y}), "x", "y").loc["all"]


@pytest.fixture(scope="module")
def patients():
    """Body-mass index, blood pressure and progression of 442 real patients, and their sex."""
    data = load_diabetes(as_frame=True)
    return data.data.assign(progression=data.target)


def test_a_group_without_a_name_and_one_named_all():
    rows = pd.DataFrame({"x": range(9), "y": np.arange(9.0) ** 2, "by": ["all", "b", None] * 3})
    fits = stats.lines(rows, "x", "y", "by")
    assert fits["n"].tolist() == [3, 3, 3, 9]
    assert fits.index[-1] == "all"


def test_a_point_is_all_of_a_config_but_the_seed():
    """Runs of another width or last layer are no seeds of the same setting."""
    rows = pd.DataFrame({"optimizer": "adamw", "lr": 0.005, "seed": [0, 1, 0, 1, 0, 1]})
    rows = rows.assign(width=[1, 1, 1, 1, 2, 2], head_optimizer=[None, None, *["sgd"] * 4], nc0=1)
    table = stats.intervals(rows.assign(epochs=200), "nc0")
    assert table["n"].tolist() == [2, 2, 2]
    assert list(table)[:4] == ["optimizer", "lr", "width", "head_optimizer"]


def test_anscombe_as_printed():
    fit = line(ANSCOMBE_X, ANSCOMBE_Y)
    assert fit.n == 11
    assert (round(fit.slope, 3), round(fit.intercept, 2)) == (0.5, 3.0)
    assert (round(fit.se, 3), round(fit.r2, 3)) == (0.118, 0.667)


def test_the_textbook_formulas(patients):
    x, y = patients["bmi"].to_numpy(), patients["progression"].to_numpy()
    fit, n = line(x, y), len(x)
    dx, dy = x - x.mean(), y - y.mean()
    slope = dx @ dy / (dx @ dx)
    rest = dy - slope * dx
    se = np.sqrt(rest @ rest / (n - 2) / (dx @ dx))
    r2 = 1 - rest @ rest / (dy @ dy)
    half = scipy.stats.t.ppf(0.975, n - 2) * se
    p = 2 * scipy.stats.t.sf(slope / se, n - 2)
    wanted = (n, slope, se, slope / se, p, slope - half, slope + half, r2)
    wanted += (1 - (1 - r2) * (n - 1) / (n - 2), (slope / se) ** 2, y.mean() - slope * x.mean())
    np.testing.assert_allclose(tuple(fit), wanted, rtol=1e-9)  # double precision, 442 points


def test_equal_to_scipy_and_to_statsmodels_formulas(patients):
    ours = line(patients["bp"], patients["progression"])
    theirs = scipy.stats.linregress(patients["bp"], patients["progression"])
    theirs = (theirs.slope, theirs.intercept, theirs.stderr, theirs.pvalue, theirs.rvalue**2)
    found = (ours.slope, ours.intercept, ours.se, ours.p, ours.r2)
    np.testing.assert_allclose(found, theirs, rtol=1e-9)
    formula = smf.ols("progression ~ bp", patients).fit()
    found = (ours.low, ours.high, ours.t, ours.f, ours.r2_adjusted)
    interval = formula.conf_int().loc["bp"]
    theirs = (*interval, formula.tvalues["bp"], formula.fvalue, formula.rsquared_adj)
    np.testing.assert_allclose(found, theirs, rtol=1e-9)


def test_the_interval_covers_the_true_slope_as_often_as_it_says():
    rng, x, covered = np.random.default_rng(0), np.linspace(0, 1, 8), 0
    for noise in rng.normal(size=(1000, 8)):
        fit = line(x, 2 * x + noise)
        covered += fit.low <= 2 <= fit.high
    assert abs(covered / 1000 - 0.95) < 0.028  # four standard errors of 1000 trials


@pytest.mark.parametrize("row", TABLE_5, ids=lambda row: f"n={row[0]}")
def test_the_papers_table_has_the_form_of_this_fit(row):
    """Its columns follow from its n, slope and t, as they do here, to what rounding leaves."""
    n, slope, se, t, low, high, r2, adjusted, f = row
    assert abs(slope / t - se) < 6e-4  # SE is printed to three digits, once cut off
    assert abs(t**2 / f - 1) < 1e-3
    assert abs(t**2 / (t**2 + n - 2) - r2) < 6e-4
    assert abs(1 - (1 - r2) * (n - 1) / (n - 2) - adjusted) < 1.1e-3
    half = scipy.stats.t.ppf(0.975, n - 2) * slope / t
    np.testing.assert_allclose([slope - half, slope + half], [low, high], atol=6e-4)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ([], []),
        ([1, 2], [1, 2]),
        ([1, 2, np.inf], [1, 2, 3]),
        ([1, 2, 3], [1, np.nan, 3]),
        ([2, 2, 2], [1, 2, 3]),
        ([1, 2, 3], [5, 5, 5]),
    ],
)
def test_points_that_make_no_line_have_their_number_alone(x, y):
    fit = line(x, y)
    assert fit["n"] == len(x)
    assert fit.drop("n").isna().all()


def test_lines_by_group_and_over_all(patients):
    table = stats.lines(patients, "bmi", "progression", by="sex")
    values = sorted(patients["sex"].unique())
    assert list(table.index) == [*values, "all"]
    assert table.index.name == "sex"
    groups = [patients[patients["sex"] == value] for value in values]
    for row, group in zip(table.itertuples(index=False), [*groups, patients], strict=True):
        own = line(group["bmi"].tolist(), group["progression"].tolist())
        np.testing.assert_allclose(row, own, rtol=1e-9)
    assert table["n"].iloc[-1] == table["n"].iloc[:-1].sum() == 442


def test_a_group_that_is_too_small_has_its_number_alone():
    rows = pd.DataFrame({"x": [1, 2, 3, 4, 5], "y": [1, 2, 4, 4, 6], "g": [0.1] * 3 + [0.2] * 2})
    table = stats.lines(rows, "x", "y", by="g")
    assert table["n"].tolist() == [3, 2, 5]
    assert table.loc[0.2].drop("n").isna().all()
    assert table.drop(index=0.2).notna().all(axis=None)


@pytest.mark.parametrize("by", [None, "g"])
def test_no_rows_make_a_table_without_numbers(by):
    table = stats.lines(pd.DataFrame({"x": [], "y": [], "g": []}), "x", "y", by=by)
    assert list(table.index) == ["all"]
    assert table["n"].tolist() == [0]
    assert table.drop(columns="n").isna().all(axis=None)
    assert set(table.dtypes.astype(str)) == {"int64", "float64"}
