"""The rule for "collapsed": every outcome, every edge, and never a guess."""

import doctest

import numpy as np
import pandas as pd
import pytest

from ncbook.metrics import rule

GOOD = dict(status="ok", train_acc=1.0, nc0=5.0, nc1=0.01, nc2=0.01, nc3=0.01, nc3_centred=0.01)
CASES = [
    ({}, "collapsed", "NC1, NC2, NC3"),
    ({"nc3_centred": None}, "collapsed", "NC1, NC2, NC3"),
    ({"nc0": 1e9}, "collapsed", "NC1, NC2, NC3"),  # raw NC0 plays no part
    ({"nc1": 0.0999, "nc2": 0.0999, "nc3": 0.0999}, "collapsed", "NC1, NC2, NC3"),
    ({"nc3": 0.1}, "collapsed but for its gauge", "NC1, NC2"),
    ({"nc3": 0.1, "nc3_centred": 0.1}, "in part", "NC1, NC2"),
    ({"nc3": 0.4, "nc3_centred": None}, "not stored", "NC1, NC2"),
    ({"nc2": 0.1, "nc3": 0.4, "nc3_centred": None}, "in part", "NC1"),  # whatever the gauge is
    ({"nc1": 0.1}, "in part", "NC2, NC3"),
    ({"nc1": 1.0, "nc2": 1.0}, "in part", "NC3"),
    ({"nc1": 1.0, "nc2": 1.0, "nc3": 1.0}, "not", "none"),
    ({"nc1": np.nan}, "not stored", "NC2, NC3"),
    ({"train_acc": 0.99}, "collapsed", "NC1, NC2, NC3"),
    ({"train_acc": 0.9899}, "did not learn", "NC1, NC2, NC3"),
    ({"train_acc": np.nan, "status": "diverged"}, "diverged", "NC1, NC2, NC3"),
    ({"status": "failed"}, "failed", "NC1, NC2, NC3"),
]  # fmt: skip


@pytest.fixture(scope="module")
def runs():
    """All cases in one frame, its index not 0, 1, 2."""
    return pd.DataFrame([GOOD | change for change, *_ in CASES]).set_index(np.arange(7, 23))


def test_each_run_has_its_outcome(runs):
    assert rule.outcome(runs).tolist() == [word for _, word, _ in CASES]
    assert rule.below(runs).tolist() == [names for *_, names in CASES]
    assert rule.outcome(runs).index.equals(rule.below(runs).index)
    assert (rule.collapsed(runs) == (rule.outcome(runs) == "collapsed")).all()
    assert set(rule.outcome(runs)) == set(rule.OUTCOMES)


def test_rows_without_the_centred_column_are_as_those_with_null(runs):
    null = rule.outcome(runs.assign(nc3_centred=None))
    assert rule.outcome(runs.drop(columns="nc3_centred")).equals(null)
    assert "collapsed but for its gauge" not in set(null)


def test_no_runs_have_no_outcome(runs):
    assert rule.outcome(runs[:0]).empty
    assert rule.below(runs[:0]).empty


def test_another_threshold_is_another_answer(runs):
    row = pd.DataFrame([GOOD | dict(nc1=0.04, nc2=0.06, nc3=0.15, nc3_centred=0.15)])
    found = [rule.outcome(row, threshold)[0] for threshold in (0.01, 0.05, 0.1, 0.2)]
    assert found == ["not", "in part", "in part", "collapsed"]


def test_counts_are_the_outcomes_of_each_group(runs):
    named = runs.assign(optimizer=["adam", "adamw"] * 8)
    table = rule.counts(named, ["optimizer"], (0.005, 0.1))
    assert table.index.tolist() == [
        ("adam", "0.005"),
        ("adam", "0.1"),
        ("adamw", "0.005"),
        ("adamw", "0.1"),
    ]
    assert list(table) == [word for word in rule.OUTCOMES if word in table]
    assert table.sum(axis=1).tolist() == [8, 8, 8, 8]
    adam = rule.outcome(named[named["optimizer"] == "adam"])
    assert table.loc[("adam", "0.1")].to_dict() == {w: int((adam == w).sum()) for w in table}
    assert not table.xs("0.005", level="threshold").get("collapsed", pd.Series(0)).any()
    shallow = rule.counts(runs.assign(depth=[3, None] * 8), ["depth"])
    assert shallow.sum(axis=1).tolist() == [8] * 6


def test_docstring_example():
    assert doctest.testmod(rule) == (0, 2)
