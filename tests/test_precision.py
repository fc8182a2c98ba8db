"""The numbers written out in the chapter on half precision are those of the stored runs."""

import re
from pathlib import Path

import pytest

from ncbook import figures, store

ROOT = Path(__file__).parents[1]
PROSE = re.sub(r"\s*\n# *", " ", (ROOT / "notebooks" / "precision.py").read_text(encoding="utf-8"))
SETTINGS = {"sgd": (0.0679, 5e-3), "adam": (0.005, 0.05), "adamw": (0.005, 0.5)}
RESNET9 = dict(dataset="mnist", model="resnet9", width=1 / 8, train_size=2000, epochs=50)
MLP = dict(dataset="digits", model="mlp", epochs=200)
COMPARED = [*figures.MAIN, "test_acc"]
T_975 = 2.776  # Student's t for five pairs


def sides(name, setting):
    """Five runs of one optimizer in float32, and in bfloat16, by seed."""
    lr, decay = SETTINGS[name]
    given = setting | dict(optimizer=name, lr=lr, weight_decay=decay, momentum=0.9)
    runs = store.load_runs(ROOT / "book" / "results", optimizer=name, momentum=0.9)
    found = [figures.of_setting(runs, **given, precision=p) for p in ("float32", "bfloat16")]
    one, other = (rows.set_index("seed").sort_index() for rows in found)
    assert other.index.tolist() == [0, 1, 2, 3, 4]
    return one.loc[other.index], other


@pytest.fixture(scope="module")
def differences():
    """Mean difference in units of s, and whether zero is in its interval, of every cell."""
    found = {}
    for network, setting in (("ResNet9", RESNET9), ("MLP", MLP)):
        for name in SETTINGS:
            one, other = sides(name, setting)
            d, s = other[COMPARED] - one[COMPARED], one[COMPARED].std()
            zero = d.mean().abs() <= T_975 * d.std() / 5**0.5
            found |= {(network, name, m): (d[m].mean() / s[m], zero[m]) for m in COMPARED}
    return found


def test_how_many_differences_are_within_the_spread(differences):
    within = {key: abs(size) <= 1 for key, (size, _) in differences.items()}
    assert f"of {len(within)} means over five seeds" in PROSE
    assert f"{sum(within.values())} move by less than another seed would" in PROSE
    accuracy = ("MLP", "adamw", "test_acc")
    assert [key for key, so in within.items() if not so] == [accuracy]
    missed = [key for key, (_, zero) in differences.items() if not zero]
    assert missed == [("MLP", "sgd", "nc1"), ("MLP", "sgd", "nc2"), accuracy]
    assert all(abs(differences[key][0]) < 0.5 for key in missed[:2])
    assert "Here the rule holds in 14 of 15 cells" in PROSE
    assert "Three of the 30 intervals miss zero" in PROSE
    assert sum(key[2] in figures.MAIN for key in within) == 24
    assert "measured, 24 means" in PROSE


def test_on_the_resnet9_all_are(differences):
    sizes = {key: abs(size) for key, (size, _) in differences.items() if key[0] == "ResNet9"}
    words = f"all {len(sizes)} cells, with at most {max(sizes.values()):.1f} $s$, and all "
    assert words + f"{len(sizes)} intervals contain zero" in PROSE
    of_adamw = sizes["ResNet9", "adamw", "test_acc"]
    assert f"Trained again it is off by {of_adamw:.1f} $s$" in PROSE


def test_the_one_on_the_mlp(differences):
    one, other = (rows["test_acc"].mean() for rows in sides("adamw", MLP))
    size, _ = differences["MLP", "adamw", "test_acc"]
    assert f"by −{-size:.1f} $s$: it is {100 * other:.2f} % in place of {100 * one:.2f} %" in PROSE
    assert round(397 * (one - other)) == 1


def test_the_law_with_rounded_features():
    _, runs = sides("sgd", RESNET9)
    assert (runs["nc0"] / runs["nc0_init"] / figures.exact_law(runs) - 1).abs().max() < 1e-6
    assert f"In {['', 'one', 'two', 'three', 'four', 'five'][len(runs)]} runs" in PROSE
