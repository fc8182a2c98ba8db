"""The explorer's widgets, driven from Python: they show what the store and the theorems say."""

import dataclasses
import html
import json
import re
import shlex
import shutil
import struct
import time
from html import unescape
from itertools import product
from pathlib import Path
from xml.etree import ElementTree

import ipywidgets as widgets
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from conftest import SECONDS
from IPython.display import HTML, Markdown

from ncbook import data, explore, figures, live, optim, store, sweep
from ncbook.explore import controls, curves, maps, view
from ncbook.explore import training as live_training
from ncbook.metrics import rule
from ncbook.train import RunConfig, train_members


@pytest.fixture(autouse=True)
def own_look(monkeypatch):
    """The explorer changes how figures look, and asks the environment for the store."""
    monkeypatch.delenv(explore.STATIC_VARIABLE, raising=False)
    with mpl.rc_context():
        yield


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Adam: 2 learning rates, 2 momenta, 2 decays and 2 seeds of one; AdamW: fewer of other
    values; a run that diverges; one of other length."""
    folder = tmp_path_factory.mktemp("results")
    shared = dict(train_size=200, batch_size=20, epochs=5)
    configs = [
        *sweep.grid("adam", [0.001, 0.01], [0.0, 0.9], [0.0, 0.05], **shared),
        *sweep.grid("adam", [0.01], [0.9], [0.05], seeds=[1], **shared),
        *sweep.grid("adamw", [0.01], [0.9], [0.0, 5.0], **shared),
        *sweep.grid("sgd", [1e37], [0.9], [0.05], **shared),
        *sweep.grid("sgd", [0.01], [0.9], [0.05], **(shared | {"epochs": 2})),
    ]
    sweep.run(configs, folder, workers=1, progress=False)
    return folder


@pytest.fixture(scope="module")
def stored(results):
    return store.load_runs(results)


@pytest.fixture
def window(results, monkeypatch):
    """The explorer, whose figures are made but not rendered: that takes half a second each."""
    monkeypatch.setattr(controls, "drawn", lambda figure, kind: kind.encode())
    return explore.explorer(results)


def lines_of(picture, panel):
    """Label to values of the lines in a panel of a figure."""
    (axis,) = [a for a in picture.figure.axes if a.get_title() == panel]
    return {line.get_label(): line.get_ydata() for line in axis.lines}


def all_widgets(widget):
    yield widget
    for child in getattr(widget, "children", ()):
        yield from all_widgets(child)


# ------------------------------------------------------------ choosing


@pytest.fixture
def chooser(results):
    made = controls.Chooser(tuple(controls.WORDS), lambda: None)
    made.offer(explore.StoreView.of(results).runs)
    return made


def test_the_first_choice_is_a_run_that_is_there(chooser, stored):
    assert set(chooser.selected["run_id"]) <= set(stored["run_id"])
    assert chooser.selected["optimizer"].unique().tolist() == ["adam"]


def test_no_choice_leads_to_nothing(chooser):
    """Every value of every control, one after another."""
    for control in chooser.controls.values():
        for _, value in control.options:
            if value in dict(control.options).values():
                control.value = value
                assert len(chooser.selected) > 0
                for name, chosen in chooser.chosen.items():
                    assert set(chooser.selected[name]) == {chosen}


def test_a_choice_keeps_what_it_can_and_moves_the_rest_to_the_nearest(chooser):
    long = chooser.controls["recipe"].options[-1][1]
    chooser.choose(recipe=long, optimizer="adam", lr=0.01, momentum=0.9, weight_decay=0.05)
    chooser.controls["optimizer"].value = "adamw"
    assert {k: chooser.chosen[k] for k in ("lr", "momentum")} == {"lr": 0.01, "momentum": 0.9}
    assert chooser.chosen["weight_decay"] == 0.0  # of 0 and 5, the nearer to 0.05
    assert chooser.controls["coupled_share"].layout.display == "none"
    chooser.choose(optimizer="adam", lr=0.005)
    assert chooser.chosen["lr"] == 0.01  # of 0.001 and 0.01, the nearer by its ratio


def test_what_has_no_control_of_its_own_is_told_in_words(chooser):
    labels = [label for label, _ in chooser.controls["recipe"].options]
    rest = "epochs, batch size 20, 200 images"
    assert labels == [f"2 {rest}", f"5 {rest}"]


def test_a_last_layer_of_its_own_is_told_in_words():
    assert (
        view._recipe("mlp", 200, head_optimizer="sgd", head_lr=0.05, head_momentum=0.9)
        == "200 epochs, last layer SGD, its η 0.05, its β 0.9"
    )
    assert view._recipe("mlp", 200, centred_head=True) == "200 epochs, centred last layer"


# ------------------------------------------------------------ the map


def of_adam(stored, **values):
    wanted = {"optimizer": "adam", "lr": 0.01, "momentum": 0.9, "weight_decay": 0.05} | values
    return stored[(stored[list(wanted)] == pd.Series(wanted)).all(axis=1)]


def buttons(window, side):
    """The cells of a map that can be pressed, by weight decay and momentum."""
    grid = ElementTree.fromstring(f"<p>{window.map.maps[side].html}</p>")
    return {tuple(json.loads(b.get("value"))): b for b in grid.iterfind(".//button[@value]")}


@pytest.fixture
def long(window):
    """The explorer at the longer training, Adam as A and AdamW as B."""
    window.shared.choose(recipe=window.shared.controls["recipe"].options[-1][1])
    for side, optimizer in zip(window.sides.values(), ("adam", "adamw"), strict=True):
        side.choose(optimizer=optimizer, lr=0.01, momentum=0.9, weight_decay=0.05)
    window.changed()
    return window


def test_cells_count_all_runs_and_average_those_that_learned():
    ends = dict(status="ok", optimizer="adam", momentum=0.9, weight_decay=0.05)
    runs = pd.DataFrame(
        [ends | dict(train_acc=a, nc3=v) for a, v in ((1, 0.1), (1, 0.3), (0.1, 9))]
    )
    (cell,) = maps.cells(runs, "nc3", maps.KEY).to_dict("records")
    assert cell == {"value": pytest.approx(0.2), "good": 2, "count": 3}
    (accuracy,) = maps.cells(runs, "train_acc", maps.KEY).to_dict("records")
    assert accuracy["value"] == pytest.approx(0.7)  # of all: else no accuracy were below 99 %


def test_both_maps_have_the_cells_of_the_store_on_one_scale(long, stored):
    for metric, (side, name) in product(view.MEASURES, (("A", "adam"), ("B", "adamw"))):
        long.map.metric.value = metric
        norm = maps.scale(long.shared.selected, metric)
        runs = stored[(stored["optimizer"] == name) & (stored["lr"] == 0.01)]
        table = maps.cells(runs, metric, maps.KEY)
        assert set(buttons(long, side)) == set(table.index)
        for key, button in buttons(long, side).items():
            value, good, count = table.loc[key]
            counted = f"{good:.0f}/{count:.0f}"
            assert (counted in (button.text or "")) == (good < count)
            hatching = "none" if good == 0 else "some" if good < count else "all"
            assert button.get("class") == f"ncbook-{hatching}"
            if good:
                colour = mpl.colors.to_hex(mpl.colormaps["viridis"](norm(value)))
                assert f"background-color: {colour};" in button.get("style")
        assert "the same colours for all optimizers" in long.map.scale.value
        assert long.status.value == ""


def test_values_that_differ_look_different_on_a_map(window):
    ends = dict(status="ok", train_acc=1.0, coupled_share=1.0, lr=0.01, momentum=0.9)
    rows = [dict(optimizer="adam", weight_decay=0.05, nc0=0.017)]
    rows += [dict(optimizer="adamw", weight_decay=5.0, nc0=3.0)]
    runs = pd.DataFrame([ends | row for row in rows])
    low, high = (maps.scale(runs, "nc0")(value) for value in (0.017, 3.0))
    assert high - low > 0.5
    assert maps._digits(pd.Series([0.9993, 0.9999])) == 2
    assert maps._digits(pd.Series([0.99998])) == 3  # which is not 100.00 %
    assert maps.scale(runs[:0], "nc0").vmin > 0  # nothing learned: an empty scale


def test_a_metric_that_was_not_stored_is_hatched_and_no_number(stored):
    runs = of_adam(stored).assign(gauge_share=np.nan)
    cells = maps.grid(runs, "gauge_share", maps.scale(runs, "gauge_share"))
    assert "nan" not in cells
    assert 'class="ncbook-none" style=""' in cells
    assert ": – not stored" in cells


def test_text_on_every_colour_has_contrast():
    """WCAG asks for 4.5."""
    for share in np.linspace(0, 1, 1000):
        channels = np.array(mpl.colormaps["viridis"](share)[:3])
        linear = np.where(channels > 0.04045, ((channels + 0.055) / 1.055) ** 2.4, channels / 12.92)
        light = linear @ (0.2126, 0.7152, 0.0722) + 0.05
        ratio = light / 0.05 if share > maps.BRIGHT else 1.05 / light
        assert ratio >= 4.5


def test_a_cell_without_runs_cannot_be_pressed(long):
    runs = long.view.runs
    lacking = runs[(runs["weight_decay"] > 0) | (runs["momentum"] > 0)]
    long.shared.offer(lacking)
    long.map.redraw()
    grid = ElementTree.fromstring(f"<p>{long.map.maps['A'].html}</p>")
    (empty,) = grid.iterfind(".//button[@disabled]")
    assert (empty.text, empty.get("value")) == (None, None)
    assert set(buttons(long, "A")) == {(0.05, 0.9), (0.05, 0.0), (0.0, 0.9)}


def test_a_press_opens_the_cell_and_choices_hold_in_all_tabs(long):
    value = buttons(long, "B")[5.0, 0.9].get("value")
    long.map.maps["B"]._handle_custom_msg(value, [])  # what a press in the browser sends
    assert long.tabs.selected_index == 1
    assert long.sides["B"].chosen["weight_decay"] == 5.0
    assert list(long.curves.groups()) == ["Adam, λ = 0.05", "AdamW, λ = 5"]
    shown = [list(all_widgets(long.tabs.children[tab])) for tab in (0, 1)]
    assert all(long.sides["A"].controls["optimizer"] in found for found in shown)
    long.tabs.selected_index = 3
    assert [c.optimizer for c in long.live.configs.values()] == ["adam", "adamw"]
    assert [c.weight_decay for c in long.live.configs.values()] == [0.05, 5.0]


# ------------------------------------------------------------ over the epochs


def test_the_plot_is_the_median_over_the_seeds(long, results, stored):
    long.tabs.selected_index = 1
    ids = of_adam(stored)["run_id"].tolist()
    assert len(ids) == 2
    history = store.load_history(results, run_id=ids)
    (name, _) = long.curves.groups()
    for metric, label in figures.METRICS.items():
        line = next(
            v for n, v in lines_of(long.curves.picture, label).items() if n.startswith(name)
        )
        np.testing.assert_array_equal(line, history.groupby("epoch")[metric].median())
    drawn = {line.get_gid() for axis in long.curves.picture.figure.axes for line in axis.lines}
    singular = {"w_sv_mean", "w_sv_min", "m_sv_mean"}
    assert drawn == {*figures.METRICS, "gauge_share", *figures.ACCURACIES, *singular}
    assert long.curves.picture.figure.legends[0].get_title().get_text().startswith("digits, mlp")


def test_a_control_changes_plot_and_table(long, results, stored):
    long.tabs.selected_index = 1
    before = long.curves.picture.figure
    long.sides["A"].controls["weight_decay"].value = 0.0
    assert long.curves.picture.figure is not before
    (run_id,) = of_adam(stored, weight_decay=0.0)["run_id"]
    assert f"{store.load_history(results, run_id=run_id)['nc3'].iloc[-1]:.3g}" in (
        long.curves.table.value
    )
    long.sides["A"].choose(optimizer="sgd", lr=1e37)
    long.changed()
    assert "1 diverged" in long.curves.table.value
    labels = lines_of(long.curves.picture, "NC0")
    assert any("diverged: no values at the end" in label for label in labels)
    assert "A: no runs at λ = 0 here: λ = 0.05 is shown" in unescape(long.status.value)
    long.sides["B"].controls["optimizer"].value = "adam"
    assert "A: " not in unescape(long.status.value)  # told once


def test_one_setting_chosen_twice_is_one_line_and_a_second_of_an_optimizer_another_colour(long):
    long.tabs.selected_index = 1
    long.sides["B"].choose(**long.sides["A"].chosen)
    long.changed()
    assert list(long.curves.groups()) == ["Adam"]
    long.sides["B"].controls["weight_decay"].value = 0.0
    (axis,) = [a for a in long.curves.picture.figure.axes if a.get_title() == "NC0"]
    assert len({line.get_color() for line in axis.lines}) == 2


def test_a_network_that_did_not_learn_is_said_to_have_failed():
    run = dict(status="ok", train_acc=0.1, seed=0, optimizer="adam", nc1=0.0, nc2=0.0, nc3=0.0)
    told = unescape(curves.ended(pd.DataFrame([run]), "Adam"))
    assert "Failed to learn" in told
    assert "10.0% training accuracy" in told
    assert "1 collapsed" not in told
    look = curves.look(pd.DataFrame([run]), "Adam", pd.DataFrame())
    assert look["label"] == "Adam (failed to learn: 10% accuracy) (no epochs are stored)"


def test_changes_are_numbers_with_a_direction_and_a_meaning():
    run = dict(status="ok", nc0=3.0, nc0_init=1.5, nc1=0.01, nc1_init=1.0, nc2=1.0, nc2_init=1.0)
    told = unescape(curves.changes({"Adam": pd.DataFrame([run])}))
    for words in ("2.0 × larger", "100 × smaller", "as before", *view.MEANING.values()):
        assert words in told
    assert "inf" not in told.replace("information", "")


def test_a_panel_without_a_line_says_so():
    history = pd.DataFrame({"epoch": [0, 1], "nc0": [0.0, 0.0]})
    figure = curves.over_epochs([(history, figures.look("sgd"))], ["nc0", curves.ACCURACY])
    told = [axis.texts[0].get_text() for axis in figure.axes]
    assert told == ["no values above 0 stored", "not stored"]


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_a_figure_is_a_file_of_its_own_size(kind):
    figures.use_style()  # by which pyplot would cut a file to what is drawn
    figure = mpl.figure.Figure(figsize=(2, 1), dpi=72)
    figure.subplots().plot([1, 2])
    file = controls.drawn(figure, kind)
    size = {"svg": b'width="144pt" height="72pt"', "png": struct.pack(">II", 144, 72)}[kind]
    assert size in file[:1000]


def test_an_error_in_a_panel_is_told_on_its_line(long, monkeypatch):
    def fail(*_):
        raise AttributeError("no size")

    monkeypatch.setattr(controls, "drawn", fail)
    long.curves.picture.figure = mpl.figure.Figure()
    long.curves.export.click()  # ipywidgets logs what a callback raises
    assert "an error in the panel: AttributeError: no size" in unescape(long.status.value)


def test_export_has_figure_rows_and_lines_that_train_the_runs(long, stored):
    long.tabs.selected_index = 1
    long.curves.export.click()
    links = unescape(long.curves.links.value)
    assert links.count(" download=") == 3
    (first, _) = (line for line in links.split("<pre")[1].splitlines() if "papermill" in line)
    words = shlex.split(first.partition("papermill")[2].replace("</pre>", ""))
    asked = dict(zip(words[3::3], words[4::3], strict=True))
    configs = sweep.read(asked).configs
    assert {sweep.run_id(config) for config in configs} == set(of_adam(stored)["run_id"])


def test_a_picture_has_alternative_text_and_the_figures_size():
    picture, figure = controls.Picture(), mpl.figure.Figure(figsize=(2, 1), dpi=50)
    picture.show(figure, "a <word>")
    assert picture.value.startswith('<img alt="a &lt;word&gt;" src="data:image/png;base64,iVBOR')
    assert 'width="100" height="50"' in picture.value


# ------------------------------------------------------------ all runs


@pytest.fixture
def table(long):
    long.tabs.selected_index = 2
    assert long.status.value == ""
    return long.panels[2]


def test_a_box_in_the_plot_selects_the_tables_rows(table, long):
    table.which.value = "all of the store"
    table.x.value, table.y.value = "weight_decay", "nc3"
    assert len(table.inside) == len(long.view.runs)
    learned = rule.learned(table.inside)
    assert learned.is_monotonic_decreasing  # they come first
    for part in (table.inside[learned], table.inside[~learned]):
        assert part["nc3"].dropna().is_monotonic_increasing
    least = long.view.runs["weight_decay"].drop_duplicates().nsmallest(2).iloc[1]
    box = type("Box", (), {"value": {"at_x": [0.9 * least / 3, 0.9 * least], "at_y": [0, 10]}})
    table._brushed(type("Change", (), {"new": box}))
    chosen = long.view.runs[(long.view.runs["weight_decay"] == 0) & long.view.runs["nc3"].notna()]
    assert set(table.inside["run_id"]) == set(chosen["run_id"])
    assert len(table.table.df) == len(chosen) < len(long.view.runs)
    table._brushed(type("Change", (), {"new": type("None", (), {"value": {}})}))
    assert len(table.inside) == len(long.view.runs)


def test_rows_are_of_one_outcome_and_some_are_compared(table, long):
    table.compare.click()
    assert "Select rows" in long.status.value
    assert long.tabs.selected_index == 2
    outcomes = set(rule.outcome(long.shared.selected))
    assert {value for _, value in table.filters["outcome"].options} == {"any", *outcomes}
    table.filters["outcome"].value = next(iter(outcomes))
    assert set(table.inside["outcome"]) == {table.filters["outcome"].value}
    table.filters["outcome"].value, table.filters["optimizer"].value = "any", "adam"
    assert set(table.inside["optimizer"]) == {"adam"} != set(long.shared.selected["optimizer"])
    table.filters["optimizer"].value = "any"
    table.table.selected_rows = [0, 2, 3]
    table.compare.click()
    assert long.tabs.selected_index == 1
    shown = pd.concat(long.curves.groups().values())
    assert shown["run_id"].tolist() == table.inside["run_id"].iloc[[0, 2, 3]].tolist()
    assert long.curves.choices.layout.display == "none"
    for name in long.curves.groups():
        assert all(f"{letter} = " in name for letter in ("η", "β", "λ", "seed"))
    assert len(lines_of(long.curves.picture, "NC0")) == 3
    long.curves.of_picked.children[0].click()
    assert long.curves.of_picked.layout.display == "none"
    assert list(long.curves.groups()) == ["Adam, λ = 0.05", "AdamW, λ = 0"]


def test_the_best_run_of_each_optimizer(table, long):
    table.which.value = "of the chosen ones, the best of each optimizer"
    learned = figures.converged(long.shared.selected)
    assert dict(zip(table.inside["optimizer"], table.inside["nc3"], strict=True)) == (
        learned.groupby("optimizer")["nc3"].min().to_dict()
    )
    assert len(table.inside) > 1
    table.filters["weight_decay"].value = 0.0
    there = learned[learned["weight_decay"] == 0]
    assert table.inside["nc3"].tolist() == sorted(there.groupby("optimizer")["nc3"].min())


def test_another_store_is_not_hidden_by_what_was_chosen(table, long):
    table.filters["optimizer"].value = "adam"
    assert set(table.inside["optimizer"]) == {"adam"}
    long.read()
    assert table.filters["optimizer"].value == "any"
    assert len(table.inside) == len(long.shared.selected)


def test_dots_in_one_place_are_drawn_once(table, long):
    from ncbook.explore.table import scatter

    many = pd.concat([long.view.runs.assign(nc3=long.view.runs["nc3"] * (1 + 1e-9))] * 50)
    dots = [len(scatter(runs, "nc0", "nc3").data) for runs in (long.view.runs, many)]
    assert dots[0] == dots[1] > 0
    spread = 10 ** np.random.default_rng(0).uniform(-3, 0, (2, 20_000))
    runs = pd.concat([long.view.runs[:1]] * 20_000).assign(nc0=spread[0], nc3=spread[1])
    assert 100 < len(scatter(runs, "nc0", "nc3").data) <= 3000


def test_what_is_the_same_in_all_rows_has_no_column(table, long):
    assert {"dataset", "model", "recipe"}.isdisjoint(table.table.df)
    table.which.value = "all of the store"
    assert list(table.table.df)[:3] == ["outcome", "optimizer", "recipe"]


def test_every_optimizer_has_a_colour_of_its_own_in_the_plot(long):
    from ncbook.explore.table import _told_apart

    names = [*optim.OPTIMIZERS]
    assert len(set(map(_told_apart, names))) == len(names)


def test_a_box_without_runs_says_why_there_are_no_lines(table):
    box = type("Box", (), {"value": {"at_y": [100.0, 200.0]}})
    table._brushed(type("Change", (), {"new": box}))
    assert table.inside.empty
    assert "no run here" in table.lines.spec["mark"]["text"]
    assert "0 runs" in table.count.value


def test_of_many_runs_the_table_says_which_it_holds(table, monkeypatch):
    from ncbook.explore import table as module

    table._fill(table.rows)
    assert len(table.table.df) == len(table.rows) > 3
    assert "are in the table" not in table.count.value
    monkeypatch.setattr(module, "ROWS", 2)
    table._fill(table.rows[:3])
    assert len(table.table.df) == 2
    assert "; 2 of least NC3 are in the table" in table.count.value


def test_the_table_says_what_nan_stands_for(table):
    from ncbook.explore.table import NUMBERS

    for known in (False, True):
        table._fill(table.rows.assign(**dict.fromkeys(NUMBERS, 0.5 if known else np.nan)))
        assert ("NaN: not stored" in table.count.value) is not known


# ------------------------------------------------------------ the store


def test_an_empty_store_invites(tmp_path):
    window = explore.explorer(tmp_path)
    for index in range(len(window.tabs.children)):
        window.tabs.selected_index = index
    words = unescape(window.invitation.value)
    assert "papermill notebooks/sweep.ipynb out.ipynb -p optimizer adamw" in words
    assert f"-p results {tmp_path}" in words
    assert {panel.layout.display for panel in window.panels.values()} == {"none"}
    assert window.status.value == ""
    assert {"optimizer", "results"} <= set(sweep.PARAMETERS)  # which the line names


def test_a_folder_that_cannot_be_read_is_told_of(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied", str(tmp_path))

    monkeypatch.setattr(store, "load_runs", refuse)
    window = explore.explorer(tmp_path)
    assert f"{tmp_path} cannot be read" in unescape(window.summary.value)
    assert "papermill" in window.invitation.value


def test_a_file_in_the_folders_place_and_no_folder_are_empty_stores(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    for place in (file, tmp_path / "nowhere"):
        assert "papermill" in explore.explorer(place).invitation.value
    assert not (tmp_path / "nowhere").exists()


def test_reload_reads_what_has_come_and_tells_of_damage(results, tmp_path):
    window = explore.explorer(tmp_path)
    assert window.map.maps["A"].html == ""
    shutil.copytree(results, tmp_path, dirs_exist_ok=True)
    (tmp_path / "runs" / "damaged.parquet").write_bytes(b"not parquet")
    window.reload.click()
    assert buttons(window, "A")
    assert window.invitation.value == ""
    assert window.map.layout.display is None
    assert window.summary.value.startswith(f"{len(store.load_runs(results))} runs in")
    assert "damaged.parquet" in unescape(window.summary.value)


def test_ones_own_runs_come_before_the_published_ones(results, tmp_path, monkeypatch):
    monkeypatch.setattr(view, "PUBLISHED", results)
    monkeypatch.setenv(store.RESULTS_VARIABLE, str(tmp_path))
    assert list(view.folders().values()) == [results, tmp_path]  # one's own is empty
    shutil.copytree(results, tmp_path, dirs_exist_ok=True)
    assert list(view.folders().values()) == [tmp_path, results]
    assert list(view.folders("asked").values()) == [Path("asked")]


def test_a_store_of_an_older_schema_is_shown(tmp_path):
    """Runs without epochs, and without the columns that came later."""
    row = {"run_id": "a", "status": "ok", "train_acc": 1.0, "test_acc": 0.9, "nc0": 1.0, "nc3": 0.5}
    settings = {"dataset": "digits", "model": "mlp", "optimizer": "adam", "lr": 0.01}
    settings |= {"momentum": 0.9, "weight_decay": 0.05, "seed": 0, "epochs": 200}
    store.write(tmp_path, [settings | row])
    window = explore.explorer(tmp_path)
    assert window.shared.chosen["recipe"] == "200 epochs"
    for index in (0, 1, 2):
        window.tabs.selected_index = index
        assert window.status.value == ""
    assert "0.5" in window.curves.table.value
    assert "no epochs are stored" in next(iter(lines_of(window.curves.picture, "NC0")))


# ------------------------------------------------------------ train it now


@pytest.fixture
def training(monkeypatch):
    """A panel with a small training: 200 digits."""
    panel = explore.LivePanel()
    load = data.load
    monkeypatch.setattr(data, "load", lambda name: load(name, train_size=200))
    panel.epochs.min = 2
    panel.epochs.value = 4
    yield panel
    if panel.training:
        panel.training.stopping = True
        panel.training.join(SECONDS)


def test_training_ends_with_the_numbers_of_train_members_and_can_be_saved(
    training, tmp_path, monkeypatch
):
    monkeypatch.setenv(store.RESULTS_VARIABLE, str(tmp_path))
    training.start.click()
    assert training.start.disabled
    assert not training.stop.disabled
    assert "0 of 4 epochs" in html.unescape(training.status.value)  # at once
    training.training.join(SECONDS)
    assert "Done: 4 of 4 epochs" in html.unescape(training.status.value)
    assert (training.bar.value, training.bar.max) == (4, 4)
    assert not training.start.disabled
    chosen = dict(lr=0.005, momentum=0.9, weight_decay=0.05, epochs=4)
    configs = [RunConfig(optimizer=name, **chosen) for name in ("adam", "adamw")]
    runs, history = train_members(configs, data.load("digits"), log_epochs=range(5))
    for ours, theirs in zip(training.training.runs, runs, strict=True):
        assert ours | {"wall_time_s": 0} == theirs | {"wall_time_s": 0}
    assert training.training.history == history
    nc0 = lines_of(training.picture, "NC0")
    assert list(nc0) == ["Adam, λ = 0.05", "AdamW, λ = 0.05"]
    assert nc0["Adam, λ = 0.05"].tolist() == [r["nc0"] for r in history if r["member"] == 0]
    assert f"{runs[1]['nc3']:.3g}" in training.table.value
    training.save.click()
    assert set(store.load_runs(tmp_path)["run_id"]) == set(map(sweep.run_id, configs))
    assert len(store.load_history(tmp_path)) == len(history)
    training.save.click()  # a run that is there is not stored twice
    assert len(store.load_runs(tmp_path)) == 2
    assert "0 runs saved" in html.unescape(training.status.value)
    monkeypatch.setattr(sweep, "missing", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    training.save.click()
    assert "disk full" in html.unescape(training.status.value)


def test_the_exact_law_is_drawn_where_it_holds_and_is_that_of_the_last_layer(training):
    training.sides["A"].choose(optimizer="signum", lr=0.001)
    training.sides["B"].choose(optimizer="sgdw", lr=0.01, weight_decay=0.5)
    training.start.click()
    training.training.join(SECONDS)
    assert "Done: 8 of 8 epochs" in html.unescape(training.status.value)  # one after the other
    lines = lines_of(training.picture, "NC0")
    name = "SGDW, λ = 0.5"
    assert set(lines) == {"Signum, λ = 0.05", name, f"{name}: the exact law"}
    config = RunConfig(optimizer="signum", head_optimizer="sgdw", lr=0.01, weight_decay=0.5)
    run = pd.DataFrame([dataclasses.asdict(config)])
    assert live_training.law(config)[-1] == pytest.approx(figures.exact_law(run).item())
    assert live_training.law(RunConfig(optimizer="sgdw", head_optimizer="signum")) is None


def test_a_and_b_may_have_a_last_layer_each(training):
    for side in training.sides.values():
        side.choose(optimizer="adamw", lr=0.005, weight_decay=0.05)
    training.start.click()
    assert "A and B are the same: one run" in unescape(training.status.value)
    training.training.join(SECONDS)
    training.heads["B"].value = "sgd"
    own, headed = training.configs.values()
    assert (own.head_optimizer, headed.head_optimizer) == (None, "sgd")
    assert list(training.configs) == [
        "AdamW, λ = 0.05",
        "AdamW (last layer: SGD), λ = 0.05",
    ]


def test_stored_runs_of_the_same_settings_are_drawn_beside(training, tmp_path):
    config = RunConfig(optimizer="adam", lr=0.005, weight_decay=0.05, epochs=6)
    others = dict(seed=7), dict(epochs=40), dict(weight_decay=0.5), dict(head_optimizer="sgd")
    configs = [config, *(dataclasses.replace(config, **other) for other in others)]
    parts = [train_members([c], data.load("digits"), log_epochs=range(7)) for c in configs[:2]]
    runs = [parts[c.seed > 0][0][0] | dataclasses.asdict(c) for c in configs]
    rows = [run | {"run_id": sweep.run_id(c)} for run, c in zip(runs, configs, strict=True)]
    kept = [r | {"run_id": rows[n]["run_id"]} for n in range(2) for r in parts[n][1]]
    store.write(tmp_path, rows, [{k: v for k, v in row.items() if k != "member"} for row in kept])
    training.follow(training.sides, view.StoreView.of(tmp_path))
    training.start.click()
    training.training.join(SECONDS)
    lines = lines_of(training.picture, "NC0")
    name = "Adam, λ = 0.05: stored, 6 epochs, median of 2 seeds"
    assert set(lines) == {"Adam, λ = 0.05", "AdamW, λ = 0.05", name}
    nc0 = pd.DataFrame(kept).groupby("epoch")["nc0"].median()
    told = unescape(training.status.value)
    assert "No stored run has the settings of AdamW, λ = 0.05." in told
    assert lines[name].tolist() == nc0[:5].tolist()  # as far as one's own 4 epochs


def test_a_store_that_cannot_be_read_is_told_and_nothing_starts(training, monkeypatch):
    def fails(self, runs):
        raise OSError("no history here")

    training.start.click()
    training.training.join(SECONDS)
    first = training.training
    row = dataclasses.asdict(next(iter(training.configs.values())))
    training.view = view.StoreView("nowhere", pd.DataFrame([row]))
    monkeypatch.setattr(view.StoreView, "history", fails)
    training.start.click()
    assert "no history here" in training.status.value
    assert training.training is first
    assert not training.start.disabled
    assert not training.save.disabled


def test_at_the_extremes_the_law_says_why_it_has_no_line_and_no_number_is_infinite(training):
    """ηλ = 1: one step of decoupled decay leaves nothing of W."""
    for side, optimizer in zip(training.sides.values(), ("sgdw", "adamw"), strict=True):
        side.choose(optimizer=optimizer, lr=1.0, weight_decay=1.0)
    training.start.click()
    training.training.join(SECONDS)
    assert "Done: 8 of 8 epochs" in html.unescape(training.status.value)
    assert "SGDW, λ = 1: the exact law (0 after the first step)" in lines_of(
        training.picture, "NC0"
    )
    assert not re.search(r"\binf\b|\bnan\b", re.sub("<[^>]*>", " ", training.table.value))


def test_after_a_stop_there_is_a_table_and_a_new_panels_training_stops_the_old(training):
    training.epochs.value = 200
    training.start.click()
    first = training.training
    training.start.click()
    assert training.training is first
    other = explore.LivePanel()
    other.epochs.value = 5
    while not first.history:
        time.sleep(0.01)
    other.start.click()
    first.join(SECONDS)
    assert first.done < 200
    assert "Stopped after" in training.status.value
    assert "NC3" in training.table.value
    assert training.stop.disabled
    assert training.save.disabled
    assert not training.start.disabled
    other.stop.click()
    other.training.join(SECONDS)


def test_an_error_while_training_is_told(training, monkeypatch):
    def fail(_):
        raise MemoryError("out of memory training 2 x mlp")

    monkeypatch.setattr(data, "load", fail)
    training.start.click()
    training.training.join(SECONDS)
    assert "out of memory training 2 x mlp" in training.status.value
    assert not training.start.disabled


# ------------------------------------------------------------ all of it


def test_the_theorems_are_the_books_live_figures(window):
    words, figures_of = window.theory.children
    assert "controls of their own" in words.value
    shown = [output["data"]["text/html"] for output in figures_of.outputs]
    assert shown == [live.law()._repr_html_(), live.signgd()._repr_html_()]


def test_every_control_has_a_label_and_a_tooltip(window):
    kinds = (widgets.ValueWidget, widgets.Button)
    found = [w for w in all_widgets(window) if isinstance(w, kinds)]
    found = [w for w in found if not isinstance(w, widgets.HTML)]
    assert len(found) > 30
    for control in found:
        assert control.tooltip, control
        assert control.description
        if isinstance(control, widgets.Dropdown):  # by itself it does not show its tooltip
            assert f'title="{html.escape(control.tooltip)}"' in control.description
    assert all(button.get("title") for button in buttons(window, "A").values())


def test_work_has_a_sign_and_mistakes_become_a_line(window, monkeypatch):
    status, said = window.status, []
    monkeypatch.setattr(curves, "over_epochs", lambda *_, **__: said.append(status.value))
    monkeypatch.setattr(controls.Picture, "show", lambda *_: None)
    window.curves.redraw()
    assert "working…" in said[0]
    assert status.value == ""
    with status.working():
        raise ValueError("lr must be <0, got 1")
    assert "<" not in status.value.removeprefix("<span").removesuffix("</span>")
    assert "lr must be <0, got 1" in unescape(status.value)


def test_a_page_gets_a_picture_and_no_controls(monkeypatch, tmp_path):
    monkeypatch.setenv(explore.STATIC_VARIABLE, "1")
    shown = []
    monkeypatch.setattr(figures.display, "display", shown.append)
    assert explore.explorer(tmp_path) is None
    (invitation,) = shown
    assert isinstance(invitation, Markdown)
    assert "papermill notebooks/sweep.ipynb" in invitation.data
    shown.clear()
    config = RunConfig(optimizer="adamw", lr=0.005, weight_decay=0.05)
    rows = [
        dict.fromkeys(curves.ALL_PANELS[:5], 0.5) | {"run_id": "a", "epoch": e} for e in (0, 200)
    ]
    run = dataclasses.asdict(config) | {"run_id": "a", "status": "ok", "train_acc": 1.0}
    store.write(tmp_path, [run], rows)
    assert explore.explorer(tmp_path) is None
    (picture,) = shown
    assert isinstance(picture, HTML)
    assert 'alt="The explorer compares two: AdamW' in picture.data
