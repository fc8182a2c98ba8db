"""What several pages share: the runs that chapters begin with, from a small store of invented ones;
and sketches."""

import dataclasses
import itertools
import re
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from ncbook import store, sweep
from ncbook.pages import pictures, six_grids, table_1
from ncbook.train import RunConfig


def record(config, **values):
    """A run as a sweep stores it."""
    made = {"run_id": sweep.run_id(config), "status": "ok", "train_acc": 1.0}
    made |= {"nc0": 0.1, "nc3": 0.1}
    return dataclasses.asdict(config) | made | values


@pytest.fixture
def results(tmp_path):
    """Seed 0 of Adam's grid, seed 1 but for a run; one run off the grid, one of other length."""
    adam = sweep.grid("adam", seeds=[0, 1])
    lost = record(adam[0], train_acc=0.5)
    off = sweep.grid("adam", [0.123], [0.9], [0.0])
    long = sweep.grid("adam", [0.001], [0.9], [0.0], epochs=2000)
    rows = [lost, *map(record, [*adam[1:-1], *off, *long])]
    assert adam[0].seed == 0
    assert adam[-1].seed == 1
    store.write(tmp_path, rows)
    return tmp_path


def test_what_is_stored_is_of_the_setting(results):
    runs = six_grids.stored(results)
    assert len(runs) == 2 * 108 - 1 + 1
    assert set(runs["epochs"]) == {200}


def test_complete_are_whole_grids_alone(results):
    grids = six_grids.complete(six_grids.stored(results))
    assert len(grids) == 108
    assert set(grids["seed"]) == {0}


def test_what_is_left_out_is_told(results):
    text = six_grids.counted(six_grids.stored(results))
    assert "- Adam: 108 runs over 1 seed: 107 reached 99% training accuracy, 1 did not" in text
    assert "107 more are of seeds whose grid is not complete, and left out." in text
    whole = six_grids.stored(results).query("seed == 0")
    assert "left out" not in six_grids.counted(whole)


def test_of_an_empty_store_nothing_is_there(tmp_path):
    runs = six_grids.stored(tmp_path)
    assert isinstance(runs, pd.DataFrame)
    assert six_grids.complete(runs).empty


def test_the_lines_train_the_grids_that_are_read():
    (loop,) = [line for line in six_grids.LINE.splitlines() if line.startswith("for optimizer in ")]
    assert all(f" {name}" in loop for name in sweep.GRIDS)
    assert '"[0, 1, 2, 3, 4]"' in six_grids.LINE


def test_lines_may_be_for_a_part_of_the_grids():
    lines = six_grids.line("adam", "adamw", momenta=0.9, weight_decays=[5e-4, 0.05]).splitlines()
    assert lines == [
        "for optimizer in adam adamw; do",
        "    papermill notebooks/sweep.ipynb out.ipynb -p optimizer $optimizer \\",
        '        -p seeds "[0, 1, 2, 3, 4]" \\',
        "        -p momenta 0.9 \\",
        '        -p weight_decays "[0.0005, 0.05]"',
        "done",
    ]


def of_table_1(optimizer, **other):
    given = table_1.SETTING | {"optimizer": optimizer, "lr": table_1.RATES[optimizer]}
    return RunConfig(**given | {"momentum": 0.9, "weight_decay": 5e-4} | other)


def test_the_published_runs_of_table_1_end_where_the_claims_say():
    root = Path(__file__).parents[1]
    runs = table_1.stored(root / "book" / "results").set_index("optimizer")
    assert {"sgd", "sgdw"} <= set(runs.index)
    assert (runs["train_acc"][["sgd", "sgdw"]] > 0.999).all()
    text = " ".join((root / "book" / "claims.yml").read_text(encoding="utf-8").split())
    fell = 100 * (runs["nc0"] / runs["nc0_init"] - 1)["sgdw"]
    words = f"ends at {runs.loc['sgd', 'nc0']:.1e} and at {fell:.1f} % under SGDW"
    assert words.replace("-6", "−6") in text


def test_the_runs_of_table_1_are_told_from_others(tmp_path):
    wanted = [of_table_1(name) for name in table_1.RATES]
    others = dict(train_size=2000), dict(width=1 / 8), dict(lr=0.1), dict(momentum=0.5)
    others += dict(weight_decay=0.05), dict(epochs=100), dict(head_optimizer="sgd")
    others = [of_table_1("adam", **other) for other in others]
    store.write(tmp_path, [record(config) for config in wanted + others])
    found = table_1.stored(tmp_path)
    assert set(found["run_id"]) == {sweep.run_id(config) for config in wanted}
    assert len(found) == len(wanted)
    assert table_1.chosen(found, 0.05).empty


def test_the_readmes_picture_shows_complete_grids_alone(results, tmp_path, monkeypatch):
    drawn = []
    original = six_grids.figures.against_weight_decay

    def watched(runs, **options):
        drawn.append(runs)
        return original(runs, **options)

    monkeypatch.setattr(six_grids.figures, "against_weight_decay", watched)
    picture = tmp_path / "new" / "headline.png"
    with mpl.rc_context():
        six_grids.save_headline(results, picture)
    assert drawn[0]["seed"].unique().tolist() == [0]
    assert len(drawn[0]) == len(sweep.grid("adam"))
    assert plt.imread(picture).std() > 0.01


def test_the_live_picture_is_of_the_runs_that_learned_at_the_decays_of_all(tmp_path):
    configs = [
        *sweep.grid("adam", [0.001], [0.9], [0, 0.05, 0.5]),
        *sweep.grid("adamw", [0.001, 0.01], [0.9], [0, 0.05, 5]),
    ]
    rows, history = [], []
    for config in configs:
        learned = config.lr < 0.01 or config.weight_decay == 0
        share = 0.5 if config.optimizer == "adam" else config.lr
        rows.append(record(config, nc0_init=2.0, nc3_init=1.0, train_acc=0.5 + 0.5 * learned))
        history += [
            {"run_id": rows[-1]["run_id"], "optimizer": config.optimizer, "epoch": epoch}
            | {"weight_decay": config.weight_decay, "nc0": 2 * share**epoch, "nc3": epoch / 10}
            for epoch in (0, 1, 2, *[3] * (config.optimizer == "adam"))
        ]
    store.write(tmp_path, rows, history)
    figure = six_grids.live_figure(six_grids.stored(tmp_path), tmp_path)
    assert figure.controls[0].values == (0, 0.05)
    assert figure.data["epochs"] == [0, 1, 2]  # the third is of some runs alone
    assert figure.data["left"]["adam"] == [[1, 0.5, 0.25]] * 2
    middle = [1, (0.001 + 0.01) / 2, (0.001**2 + 0.01**2) / 2]
    assert figure.data["left"]["adamw"] == [pytest.approx(middle), [1, 0.001, 1e-6]]
    assert figure.data["nc3"] == {"adam": [0.2] * 2, "adamw": [0.2] * 2}
    assert "(n = 5)" in figure.caption


def test_how_many_collapsed_is_said_of_each_optimizer_that_learned():
    ends = dict(status="ok", train_acc=1.0, nc1=0.01, nc2=0.01, nc3=0.01)
    rows = [ends | {"optimizer": "adam"}, ends | {"optimizer": "adamw", "nc3": 0.4}]
    rows += [ends | {"optimizer": "adam", "train_acc": 0.5}]
    words = six_grids.collapsed_words(pd.DataFrame(rows))
    assert words.endswith("collapsed: 1 of 1 under Adam, 0 of 1 under AdamW.")


# ------------------------------------------------------------ sketches


def test_a_shift_of_all_rows_changes_nc0_and_no_probability():
    with mpl.rc_context({"backend": "agg"}):
        shown = pictures.flat_direction().data
    first, second = re.findall(r'alt="(.+?)"', shown)
    assert "NC0 = 0.0" in first
    assert float(re.search(r"NC0 = ([\d.]+)", second)[1]) > 1
    said = [re.search(r"probabilities of ★: (.+)", words)[1] for words in (first, second)]
    assert said[0] == said[1]
    assert abs(sum(int(share) for share in re.findall(r"(\d+)%", said[0])) - 100) <= 1


def test_the_marked_points_have_the_least_loss_in_a_ball_and_a_box():
    """The loss falls along (2, −1, −1), on which the horizontal axis lies."""
    figure, axis = plt.subplots()
    pictures.ball_and_box(axis)
    marks = {
        line.get_color(): line.get_xydata()[0] for line in axis.lines if line.get_marker() == "o"
    }
    plane = np.stack([np.array([2, -1, -1]) / np.sqrt(6), np.ones(3) / np.sqrt(3)])
    corners = [plane @ w for w in itertools.product((-1, 1), repeat=3)]
    assert marks[pictures.ORANGE] == pytest.approx(max(corners, key=lambda point: point[0]))
    assert marks[pictures.BLUE] == pytest.approx([1.2, 0])
    plt.close(figure)
