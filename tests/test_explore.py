"""The explorer's widgets, driven from Python: they show what the store and the theorems say."""

import dataclasses
import html
import shutil
from html import unescape
from pathlib import Path

import ipywidgets as widgets
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from conftest import SECONDS
from IPython.display import HTML, Markdown

from ncbook import data, explore, figures, live, optim, store, sweep
from ncbook.explore import controls, panels, view
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
    write = lambda _, file: file.write(b"PNG")  # noqa: E731
    monkeypatch.setattr(controls.FigureCanvasAgg, "print_png", write)
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
    made = controls.Chooser(tuple(controls.WORDS), lambda: None, or_all=("seed",))
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
                    if chosen != controls.EVERY:
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
    rest = "epochs, batch size 20, train size 200"
    assert labels == [f"2 {rest}", f"5 {rest}"]


def test_a_single_seed_was_no_choice(chooser):
    chooser.choose(optimizer="adam", lr=0.01, momentum=0.0, weight_decay=0.05)
    assert chooser.chosen["seed"] == 0
    chooser.controls["momentum"].value = 0.9
    assert chooser.chosen["seed"] == controls.EVERY
    assert len(chooser.selected) == 2
    chooser.controls["seed"].value = 1
    assert chooser.selected["seed"].tolist() == [1]


# ------------------------------------------------------------ one run


def of_adam(stored, **values):
    wanted = {"optimizer": "adam", "lr": 0.01, "momentum": 0.9, "weight_decay": 0.05} | values
    return stored[(stored[list(wanted)] == pd.Series(wanted)).all(axis=1)]


@pytest.fixture
def adam(window):
    long = window.run.chooser.controls["recipe"].options[-1][1]
    window.open_run(recipe=long, optimizer="adam", lr=0.01, momentum=0.9, weight_decay=0.05)
    return window.run


def test_the_plot_is_the_median_over_the_seeds(adam, results, stored):
    assert adam.chooser.chosen["seed"] == controls.EVERY
    ids = of_adam(stored)["run_id"].tolist()
    assert len(ids) == 2
    history = store.load_history(results, run_id=ids)
    for metric, label in figures.METRICS.items():
        np.testing.assert_array_equal(
            lines_of(adam.picture, label)["Adam"], history.groupby("epoch")[metric].median()
        )
    both = {line.get_gid() for axis in adam.picture.figure.axes for line in axis.lines}
    singular = {"w_sv_mean", "w_sv_min", "m_sv_mean"}
    assert both == {*figures.METRICS, *figures.ACCURACIES, *singular}


def test_a_control_changes_plot_and_table(adam, results, stored):
    adam.chooser.controls["weight_decay"].value = 0.0
    (run_id,) = of_adam(stored, weight_decay=0.0)["run_id"]
    history = store.load_history(results, run_id=run_id)
    np.testing.assert_array_equal(lines_of(adam.picture, "NC0")["Adam"], history["nc0"])
    assert f"{history['nc3'].iloc[-1]:.3g}" in adam.table.value
    assert "1 run over 1 seed" in adam.table.value
    adam.chooser.choose(optimizer="sgd", lr=1e37)
    adam.redraw()
    assert "1 diverged" in adam.table.value
    assert adam.status.value == ""


def test_a_picture_has_alternative_text_and_the_figures_size():
    picture, figure = controls.Picture(), mpl.figure.Figure(figsize=(2, 1), dpi=50)
    picture.show(figure, "a <word>")
    assert picture.value.startswith('<img alt="a &lt;word&gt;" src="data:image/png;base64,iVBOR')
    assert 'width="100" height="50"' in picture.value


# ------------------------------------------------------------ the map


@pytest.fixture
def cells(window):
    window.tabs.selected_index = 1
    return window.map


def test_the_map_has_the_means_of_the_store(cells, stored):
    cells.chooser.choose(optimizer="adam", lr=0.01)
    cells.metric.value = "nc3"
    good = figures.converged(stored[(stored["optimizer"] == "adam") & (stored["lr"] == 0.01)])
    means = good.groupby(["weight_decay", "momentum"])["nc3"].mean()
    assert len(cells.buttons) == 4
    for key, button in cells.buttons.items():
        assert button.description == (f"{means[key]:.2g}" if key in means.index else "–")
    colours = {b.style.button_color for k, b in cells.buttons.items() if k in means.index}
    assert len(colours) == len(means) > 0


def test_a_cell_without_runs_cannot_be_pressed(cells):
    runs = cells.view.runs.query("lr < 1")
    lacking = runs[~((runs["weight_decay"] == 0) & (runs["momentum"] == 0))]
    cells.take(dataclasses.replace(cells.view, runs=lacking))
    cells.chooser.choose(optimizer="adam")
    cells.redraw()
    assert cells.buttons[0.0, 0.0].disabled
    assert cells.buttons[0.0, 0.0].description == ""
    assert not cells.buttons[0.05, 0.9].disabled


def test_a_press_opens_the_cells_best_run(window, cells, stored):
    cells.chooser.choose(optimizer="adam", lr=controls.EVERY)
    cells.redraw()
    cells.buttons[0.05, 0.0].click()
    cell = stored.query("optimizer == 'adam' and weight_decay == 0.05 and momentum == 0")
    best = figures.best_run(cell)
    best = cell.iloc[0] if best is None else best
    assert window.tabs.selected_index == 0
    assert window.run.chooser.selected["run_id"].tolist() == [best["run_id"]]


@pytest.mark.parametrize("metric", ["nc0", "nc4", "train_acc"])
def test_every_metric_has_colours(cells, metric):
    cells.metric.value = metric
    assert cells.status.value == ""
    painted = [b for b in cells.buttons.values() if not b.disabled]
    assert all(b.style.button_color.startswith("#") for b in painted)


# ------------------------------------------------------------ two of them


def test_two_are_drawn_in_their_colours(window, stored, results):
    assert window.run.picture.figure is not None
    assert window.compare.picture.figure is None  # a tab draws when it is opened
    window.tabs.selected_index = 2
    compare, side = window.compare, window.compare.sides["B"].controls
    side["optimizer"].value = "adamw"
    side["weight_decay"].value = 5.0
    (run_id,) = stored.query("optimizer == 'adamw' and weight_decay == 5")["run_id"]
    lines = lines_of(compare.picture, "NC0")
    assert list(lines) == ["A: Adam", "B: AdamW"]
    history = store.load_history(results, run_id=run_id)
    np.testing.assert_array_equal(lines["B: AdamW"], history["nc0"])
    assert f"{history['nc1'].iloc[-1]:.3g}" in compare.table.value
    side["optimizer"].value = "adam"
    (axis,) = [a for a in compare.picture.figure.axes if a.get_title() == "NC0"]
    assert len({line.get_color() for line in axis.lines}) == 2


# ------------------------------------------------------------ the store


def test_an_empty_store_invites(tmp_path):
    window = explore.explorer(tmp_path)
    for index in range(len(window.tabs.children)):
        window.tabs.selected_index = index
    for panel in (window.run, window.map, window.compare):
        words = unescape(panel.invitation.value)
        assert "papermill notebooks/sweep.ipynb out.ipynb -p optimizer adamw" in words
        assert f"-p results {tmp_path}" in words
        assert panel.body.layout.display == "none"
        assert panel.status.value == ""
    assert {"optimizer", "results"} <= set(sweep.PARAMETERS)  # which the line names


def test_a_folder_that_cannot_be_read_is_told_of(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied", str(tmp_path))

    monkeypatch.setattr(store, "load_runs", refuse)
    window = explore.explorer(tmp_path)
    assert f"{tmp_path} cannot be read" in unescape(window.summary.value)
    assert "papermill" in window.run.invitation.value


def test_a_file_in_the_folders_place_and_no_folder_are_empty_stores(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    for place in (file, tmp_path / "nowhere"):
        assert "papermill" in explore.explorer(place).run.invitation.value
    assert not (tmp_path / "nowhere").exists()


def test_reload_reads_what_has_come_and_tells_of_damage(results, tmp_path):
    window = explore.explorer(tmp_path)
    assert window.run.picture.figure is None
    shutil.copytree(results, tmp_path, dirs_exist_ok=True)
    (tmp_path / "runs" / "damaged.parquet").write_bytes(b"not parquet")
    window.reload.click()
    assert window.run.picture.figure is not None
    assert window.run.invitation.value == ""
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
    assert window.run.status.value == ""
    assert window.run.picture.figure is None  # there are no epochs to draw
    assert window.run.chooser.chosen["recipe"] == "200 epochs"
    assert "0.5" in window.run.table.value
    for index in (1, 2):
        window.tabs.selected_index = index
        assert window.tabs.children[index].status.value == ""


# ------------------------------------------------------------ train it now


@pytest.fixture
def training(monkeypatch):
    """A panel with a small training: 200 digits."""
    panel = explore.LivePanel()
    load = data.load
    monkeypatch.setattr(data, "load", lambda name: load(name, train_size=200))
    panel.controls["epochs"].min = 2
    panel.controls["epochs"].value = 4
    yield panel
    if panel.training:
        panel.training.stopping = True
        panel.training.join(SECONDS)


def test_training_moves_and_ends_with_the_numbers_of_train_members(training):
    training.start.click()
    assert training.start.disabled
    assert not training.stop.disabled
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
    last = [row["nc0"] for row in history if row["member"] == 0]
    assert nc0["Adam, λ = 0.05"].tolist() == last
    assert f"{runs[1]['nc3']:.3g}" in training.table.value


def test_training_stops_and_a_second_start_waits_for_its_end(training):
    training.controls["epochs"].value = 200
    training.start.click()
    first = training.training
    training.start.click()
    assert training.training is first
    training.stop.click()
    first.join(SECONDS)
    assert first.epoch < 200
    assert "Stopped after" in training.status.value
    assert training.stop.disabled
    assert not training.start.disabled


def test_an_error_while_training_is_told(training, monkeypatch):
    def fail(_):
        raise MemoryError("out of memory training 2 x mlp")

    monkeypatch.setattr(data, "load", fail)
    training.start.click()
    training.training.join(SECONDS)
    assert "out of memory training 2 x mlp" in training.status.value
    assert not training.start.disabled


@pytest.mark.parametrize("optimizer", list(figures.LABELS))
def test_what_trains_beside(optimizer):
    panel = explore.LivePanel()
    panel.controls["optimizer"].value = optimizer
    first, *twins = panel.configs
    shares = [optim.rule(config.optimizer).coupled_share for config in (first, *twins)]
    assert sorted(shares) == ([0.0] if optimizer == "mars" else [0.0, 1.0])  # which has no twin
    assert all(twin.shared() == first.shared() for twin in twins)
    panel.controls["beside"].value = "no weight decay"
    assert [c.weight_decay for c in panel.configs] == [0.05, 0.0]
    panel.controls["beside"].value = "nothing"
    assert [c.optimizer for c in panel.configs] == [optimizer]


# ------------------------------------------------------------ all of it


def test_the_theorems_are_the_books_live_figures(window):
    shown = [output["data"]["text/html"] for output in window.theory.outputs]
    assert shown == [live.law()._repr_html_(), live.signgd()._repr_html_()]


def test_every_control_has_a_label_and_a_tooltip(window):
    kinds = (widgets.ValueWidget, widgets.Button)
    found = [w for w in all_widgets(window) if isinstance(w, kinds)]
    found = [w for w in found if not isinstance(w, widgets.HTML)]
    in_the_map = set(window.map.buttons.values())
    assert len(found) > 30
    for control in found:
        assert control.tooltip, control
        assert control.description or control in in_the_map


def test_work_has_a_sign_and_mistakes_become_a_line(window, monkeypatch):
    status, said = window.run.status, []
    monkeypatch.setattr(panels, "over_epochs", lambda *_, **__: said.append(status.value))
    monkeypatch.setattr(controls.Picture, "show", lambda *_: None)
    window.run.redraw()
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
        dict.fromkeys(panels.ALL_PANELS[:5], 0.5) | {"run_id": "a", "epoch": e} for e in (0, 200)
    ]
    run = dataclasses.asdict(config) | {"run_id": "a", "status": "ok", "train_acc": 1.0}
    store.write(tmp_path, [run], rows)
    assert explore.explorer(tmp_path) is None
    (picture,) = shown
    assert isinstance(picture, HTML)
    assert 'alt="The explorer compares two: AdamW' in picture.data
