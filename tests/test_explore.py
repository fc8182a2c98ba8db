"""The explorer's widgets, driven from Python: they show what the store and the theorems say."""

import dataclasses
import html
import warnings
from html import unescape
from pathlib import Path

import ipywidgets as widgets
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from conftest import SECONDS
from IPython.display import HTML, Markdown

from ncbook import data, explore, figures, store, sweep, theory
from ncbook.explore import chooser as chooser_module
from ncbook.explore import controls, draw, view
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
def window(results):
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


def test_the_first_choice_is_a_run_that_is_there(window, stored):
    selected = window.run.chooser.selected
    assert set(selected["run_id"]) <= set(stored["run_id"])
    assert selected["optimizer"].unique().tolist() == ["adam"]


def test_no_choice_leads_to_nothing(window):
    """Every value of every control, one after another."""
    for chooser in (window.run.chooser, window.map.chooser, *window.compare.sides.values()):
        for control in chooser.controls.values():
            for _, value in control.options:
                if value in dict(control.options).values():
                    control.value = value
                    assert len(chooser.selected) > 0
                    for name, chosen in chooser.chosen.items():
                        if chosen != chooser_module.EVERY:
                            assert set(chooser.selected[name]) == {chosen}


def test_a_choice_keeps_what_it_can_and_moves_the_rest_to_the_nearest(window):
    chooser = window.run.chooser
    chooser.choose(recipe=chooser.controls["recipe"].options[-1][1], optimizer="adam")
    chooser.choose(lr=0.01, momentum=0.9, weight_decay=0.05)
    chooser.controls["optimizer"].value = "adamw"
    assert {k: chooser.chosen[k] for k in ("lr", "momentum")} == {"lr": 0.01, "momentum": 0.9}
    assert chooser.chosen["weight_decay"] == 0.0  # of 0 and 5, the nearer to 0.05
    assert chooser.controls["coupled_share"].layout.display == "none"


def test_learning_rates_are_near_by_their_ratio(window):
    chooser = window.run.chooser
    chooser.choose(recipe=chooser.controls["recipe"].options[-1][1], optimizer="adam", lr=0.005)
    assert chooser.chosen["lr"] == 0.01  # of 0.001 and 0.01


def test_what_has_no_control_of_its_own_is_told_in_words(window):
    labels = [label for label, _ in window.run.chooser.controls["recipe"].options]
    rest = "epochs, batch size 20, train size 200"
    assert labels == [f"2 {rest}", f"5 {rest}"]


def test_a_single_seed_was_no_choice(window):
    chooser = window.run.chooser
    chooser.choose(optimizer="adam", lr=0.01, momentum=0.0, weight_decay=0.05)
    assert chooser.chosen["seed"] == 0
    chooser.controls["momentum"].value = 0.9
    assert chooser.chosen["seed"] == chooser_module.EVERY
    assert len(chooser.selected) == 2
    chooser.controls["seed"].value = 1
    assert chooser.selected["seed"].tolist() == [1]


def test_a_list_is_as_wide_as_its_longest_text(window):
    wide, narrow = (window.run.chooser.controls[n].layout.width for n in ("recipe", "lr"))
    assert narrow == "20.0em"
    assert float(wide.removeprefix("min(").removesuffix("em, 100%)")) > 30


# ------------------------------------------------------------ one run


def of_adam(stored, **values):
    wanted = {"optimizer": "adam", "lr": 0.01, "momentum": 0.9, "weight_decay": 0.05} | values
    return stored[(stored[list(wanted)] == pd.Series(wanted)).all(axis=1)]


@pytest.fixture
def adam(window):
    long = window.run.chooser.controls["recipe"].options[-1][1]
    window.run.open_run(recipe=long, optimizer="adam", lr=0.01, momentum=0.9, weight_decay=0.05)
    return window.run


def test_the_plot_is_the_median_over_the_seeds(adam, results, stored):
    assert adam.chooser.chosen["seed"] == chooser_module.EVERY
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
    picture = adam.picture.value
    adam.chooser.controls["weight_decay"].value = 0.0
    (run_id,) = of_adam(stored, weight_decay=0.0)["run_id"]
    history = store.load_history(results, run_id=run_id)
    np.testing.assert_array_equal(lines_of(adam.picture, "NC0")["Adam"], history["nc0"])
    assert adam.picture.value != picture
    assert f"{history['nc3'].iloc[-1]:.3g}" in adam.table.value
    assert "1 run over 1 seed" in adam.table.value


def test_a_picture_has_alternative_text_and_the_figures_size(adam):
    assert 'alt="Adam: every metric over the epochs"' in adam.picture.value
    width, height = adam.picture.figure.get_size_inches() * adam.picture.figure.dpi
    assert f'width="{int(width)}" height="{int(height)}"' in adam.picture.value


def test_a_run_that_diverged_is_told_of(window):
    window.run.open_run(optimizer="sgd", lr=1e37)
    assert "1 diverged" in window.run.table.value
    assert window.run.status.value == ""


# ------------------------------------------------------------ the map


def test_the_map_has_the_means_of_the_store(window, stored):
    window.tabs.selected_index = 1
    window.map.chooser.choose(optimizer="adam", lr=0.01)
    window.map.metric.value = "nc3"
    good = figures.converged(stored[(stored["optimizer"] == "adam") & (stored["lr"] == 0.01)])
    assert not good.empty
    means = good.groupby(["weight_decay", "momentum"])["nc3"].mean()
    assert len(window.map.buttons) == 4
    for key, button in window.map.buttons.items():
        text = f"{means[key]:.2g}" if key in means.index else "–"
        assert button.description == text
    colours = {b.style.button_color for k, b in window.map.buttons.items() if k in means.index}
    assert len(colours) == len(means)


def test_a_cell_without_runs_cannot_be_pressed(window):
    cells = window.map
    cells.take(dataclasses.replace(cells.view, runs=cells.view.runs.query("lr < 1")))
    runs = cells.view.runs
    lacking = runs[~((runs["weight_decay"] == 0) & (runs["momentum"] == 0))]
    cells.take(dataclasses.replace(cells.view, runs=lacking))
    cells.chooser.choose(optimizer="adam")
    cells.redraw()
    assert cells.buttons[0.0, 0.0].disabled
    assert cells.buttons[0.0, 0.0].description == ""
    assert not cells.buttons[0.05, 0.9].disabled


def test_a_press_opens_the_cells_best_run(window, stored):
    window.tabs.selected_index = 1
    window.map.chooser.choose(optimizer="adam", lr=chooser_module.EVERY)
    window.map.redraw()
    window.map.buttons[0.05, 0.0].click()
    best = figures.best_run(of_adam(stored, momentum=0.0).iloc[:0])
    assert best is None
    cell = stored.query("optimizer == 'adam' and weight_decay == 0.05 and momentum == 0")
    best = figures.best_run(cell)
    best = cell.iloc[0] if best is None else best
    assert window.tabs.selected_index == 0
    assert window.run.chooser.selected["run_id"].tolist() == [best["run_id"]]


@pytest.mark.parametrize("metric", ["nc0", "nc4", "train_acc"])
def test_every_metric_has_colours(window, metric):
    window.tabs.selected_index = 1
    window.map.metric.value = metric
    assert window.map.status.value == ""
    painted = [b for b in window.map.buttons.values() if not b.disabled]
    assert all(b.style.button_color.startswith("#") for b in painted)


# ------------------------------------------------------------ two of them


def test_two_are_drawn_in_their_colours(window, stored, results):
    window.tabs.selected_index = 2
    compare = window.compare
    compare.sides["B"].controls["optimizer"].value = "adamw"
    compare.sides["B"].controls["weight_decay"].value = 5.0
    (run_id,) = stored.query("optimizer == 'adamw' and weight_decay == 5")["run_id"]
    lines = lines_of(compare.picture, "NC0")
    assert list(lines) == ["A: Adam", "B: AdamW"]
    history = store.load_history(results, run_id=run_id)
    np.testing.assert_array_equal(lines["B: AdamW"], history["nc0"])
    assert f"{history['nc1'].iloc[-1]:.3g}" in compare.table.value


def test_two_of_one_optimizer_have_two_colours(window):
    window.tabs.selected_index = 2
    window.compare.sides["B"].controls["optimizer"].value = "adam"
    (axis,) = [a for a in window.compare.picture.figure.axes if a.get_title() == "NC0"]
    assert len({line.get_color() for line in axis.lines}) == 2


# ------------------------------------------------------------ the store


def test_an_empty_store_invites(tmp_path, monkeypatch):
    window = explore.explorer(tmp_path)
    for index in range(len(window.tabs.children)):
        window.tabs.selected_index = index
    for panel in (window.run, window.map, window.compare):
        words = unescape(panel.invitation.value)
        assert "papermill notebooks/sweep.ipynb out.ipynb -p optimizer adamw" in words
        assert f"-p results {tmp_path}" in words
        assert panel.body.layout.display == "none"
        assert panel.status.value == ""


def test_the_line_of_the_invitation_names_parameters_of_the_sweep():
    words = unescape(explore.StoreView.of(Path("nowhere")).invitation())
    assert "-p optimizer adamw" in words
    assert {"optimizer", "results"} <= set(sweep.PARAMETERS)


def test_a_folder_that_cannot_be_read_is_told_of(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied", str(tmp_path))

    monkeypatch.setattr(store, "load_runs", refuse)
    window = explore.explorer(tmp_path)
    assert f"{tmp_path} cannot be read" in unescape(window.told.value)
    assert "papermill" in window.run.invitation.value


def test_a_file_in_the_folders_place_and_no_folder_are_empty_stores(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    for place in (file, tmp_path / "nowhere"):
        assert "papermill" in explore.explorer(place).run.invitation.value
    assert not (tmp_path / "nowhere").exists()


def test_a_damaged_file_is_told_of_and_the_rest_shown(results, tmp_path):
    store.merge(results, tmp_path)
    damaged = tmp_path / "runs" / "damaged.parquet"
    damaged.write_bytes(b"not parquet")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        window = explore.explorer(tmp_path)
    assert "damaged.parquet" in unescape(window.told.value)
    assert window.run.picture.figure is not None


def test_reload_reads_what_has_come(results, tmp_path):
    window = explore.explorer(tmp_path)
    assert window.run.picture.figure is None
    store.merge(results, tmp_path)
    window.reload.click()
    assert window.run.picture.figure is not None
    assert window.run.invitation.value == ""
    assert window.told.value.startswith(f"{len(store.load_runs(tmp_path))} runs in")


def test_ones_own_runs_come_before_the_published_ones(results, tmp_path, monkeypatch):
    monkeypatch.setattr(view, "PUBLISHED", results)
    monkeypatch.setenv(store.RESULTS_VARIABLE, str(tmp_path))
    assert list(view.folders().values()) == [results, tmp_path]  # one's own is empty
    store.merge(results, tmp_path)
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
        assert window.shown.status.value == ""


# ------------------------------------------------------------ train it now


@pytest.fixture
def live(monkeypatch):
    """A panel with a small training: 200 digits."""
    panel = explore.LivePanel()
    load = data.load
    monkeypatch.setattr(data, "load", lambda name: load(name, train_size=200))
    panel.controls["epochs"].min = 2
    panel.controls["epochs"].value = 4
    yield panel
    if panel.training:
        panel.training.stop()
        panel.training.wait(SECONDS)


def test_training_moves_and_ends_with_the_numbers_of_train_members(live):
    live.start.click()
    assert live.start.disabled
    assert not live.stop.disabled
    live.training.wait(SECONDS)
    assert "Done: 4 of 4 epochs" in html.unescape(live.status.value)
    assert (live.bar.value, live.bar.max) == (4, 4)
    assert not live.start.disabled
    chosen = dict(lr=0.005, momentum=0.9, weight_decay=0.05, epochs=4)
    configs = [RunConfig(optimizer=name, **chosen) for name in ("adam", "adamw")]
    runs, history = train_members(configs, data.load("digits"), log_epochs=range(5))
    for ours, theirs in zip(live.training.runs, runs, strict=True):
        assert {k: v for k, v in ours.items() if k != "wall_time_s"} == {
            k: v for k, v in theirs.items() if k != "wall_time_s"
        }
    assert live.training.history == history
    nc0 = lines_of(live.picture, "NC0")
    assert list(nc0) == ["Adam, λ = 0.05", "AdamW, λ = 0.05"]
    last = [row["nc0"] for row in history if row["member"] == 0]
    assert nc0["Adam, λ = 0.05"].tolist() == last
    assert f"{runs[1]['nc3']:.3g}" in live.table.value


def test_training_stops(live):
    live.controls["epochs"].value = 200
    live.start.click()
    live.stop.click()
    live.training.wait(SECONDS)
    assert live.training.stopped
    assert live.training.epoch < 200
    assert "Stopped after" in live.status.value
    assert live.stop.disabled
    assert not live.start.disabled


def test_a_second_start_waits_for_the_first_to_end(live):
    live.controls["epochs"].value = 200
    live.start.click()
    first = live.training
    live.start.click()
    assert live.training is first


def test_an_error_while_training_is_told(live, monkeypatch):
    def fail(_):
        raise MemoryError("out of memory training 2 x mlp")

    monkeypatch.setattr(data, "load", fail)
    live.start.click()
    live.training.wait(SECONDS)
    assert "out of memory training 2 x mlp" in live.status.value
    assert not live.start.disabled


@pytest.mark.parametrize("optimizer", list(figures.LABELS))
def test_what_trains_beside(optimizer):
    panel = explore.LivePanel()
    panel.controls["optimizer"].value = optimizer
    first, twin = panel.configs
    assert {first.optimizer, twin.optimizer} == {optimizer.rstrip("w"), optimizer.rstrip("w") + "w"}
    assert first.shared() == twin.shared()
    panel.controls["beside"].value = "no weight decay"
    assert [c.weight_decay for c in panel.configs] == [0.05, 0.0]
    panel.controls["beside"].value = "nothing"
    assert [c.optimizer for c in panel.configs] == [optimizer]


# ------------------------------------------------------------ theorems


def test_the_law_is_that_of_theory(window):
    window.tabs.selected_index = 4
    law = window.theory.law
    law.controls["momentum"].value = 0.5
    law.controls["weight_decay"].value = 0.1
    law.controls["epochs"].value = 20
    steps = np.arange(21) * 11
    for label, decoupled in (("SGD", False), ("SGDW", True)):
        wanted = theory.row_sum_closed_form(steps, 0.01, 0.5, 0.1, decoupled)
        np.testing.assert_allclose(lines_of(law.picture, "")[label], np.abs(wanted), rtol=1e-9)
    bound = np.sqrt(theory.theorem31_bound(steps, 0.01, 0.5, 0.1))
    drawn = lines_of(law.picture, "")["Theorem 3.1's bound for SGD"]
    np.testing.assert_array_equal(drawn, bound)
    law.controls["drops"].value = True
    ends = (
        theory.row_sum_ratio(0.01, 0.5, 0.1, 11, 20),
        theory.row_sum_ratio(0.01, 0.5, 0.1, 11, 20, True),
    )
    assert lines_of(law.picture, "")["SGD"][-1] == pytest.approx(ends[0], rel=1e-9)
    assert "Theorem 3.1's bound for SGD" not in lines_of(law.picture, "")
    assert f"{ends[0]:.3%} of NC0 is left under SGD and {ends[1]:.3%}" in law.numbers.value


def test_sign_descent_is_that_of_theory(window):
    window.tabs.selected_index = 4
    descent = window.theory.descent
    descent.controls["num_classes"].value = 4
    descent.controls["steps"].value = 300
    drawn = lines_of(descent.picture, "")
    for label, coupled in (("coupled (Theorem 3.4)", True), ("decoupled (Theorem 3.3)", False)):
        wanted = theory.simulate_signgd(4, 0.01, 0.05, 300, coupled=coupled)
        np.testing.assert_array_equal(drawn[label], wanted)
    turns = theory.turning_points(4, 0.01, 0.05)
    assert f"T₁ = {turns.rise_ends:.1f}" in descent.numbers.value
    assert f"{theory.decoupled_limit(4, 0.05):.3g}" in descent.numbers.value


@pytest.mark.parametrize("end", ["min", "max"])
def test_every_slider_can_go_to_its_ends(window, end):
    window.tabs.selected_index = 4
    for sketch in (window.theory.law, window.theory.descent):
        for control in sketch.controls.values():
            if isinstance(control, widgets.Checkbox):
                continue
            before, value = control.value, getattr(control, end)
            control.value = 10.0**value if isinstance(control, widgets.FloatLogSlider) else value
            assert sketch.status.value == ""
            control.value = before


# ------------------------------------------------------------ all of it


def test_every_control_has_a_label_and_a_tooltip(window):
    kinds = (widgets.ValueWidget, widgets.Button)
    found = [w for w in all_widgets(window) if isinstance(w, kinds)]
    found = [w for w in found if not isinstance(w, widgets.HTML)]
    in_the_map = set(window.map.buttons.values())
    assert len(found) > 40
    for control in found:
        assert control.tooltip, control
        assert control.description or control in in_the_map


def test_work_has_a_sign_and_mistakes_become_a_line():
    sign = controls.StatusLine()
    with sign.working():
        assert "working…" in sign.value
    assert sign.value == ""
    with sign.working():
        raise ValueError("lr must be <0, got 1")
    assert "<" not in sign.value.removeprefix("<span").removesuffix("</span>")
    assert "lr must be <0, got 1" in unescape(sign.value)


def test_drawing_is_signed(window, monkeypatch):
    said = []
    monkeypatch.setattr(draw, "over_epochs", lambda *_, **__: said.append(window.run.status.value))
    monkeypatch.setattr(controls.Picture, "show", lambda *_: None)
    window.run.redraw()
    assert "working…" in said[0]


def test_a_tab_draws_when_it_is_looked_at(window):
    assert window.run.picture.figure is not None
    assert window.compare.picture.figure is None
    window.tabs.selected_index = 2
    assert window.compare.picture.figure is not None


def test_a_page_gets_a_picture_and_no_controls(results, monkeypatch, tmp_path):
    monkeypatch.setenv(explore.STATIC_VARIABLE, "1")
    shown = []
    monkeypatch.setattr(figures.display, "display", shown.append)
    assert explore.explorer(tmp_path) is None
    (invitation,) = shown
    assert isinstance(invitation, Markdown)
    assert "papermill notebooks/sweep.ipynb" in invitation.data
    shown.clear()
    config = RunConfig(optimizer="adamw", lr=0.005, weight_decay=0.05)
    rows = [dict.fromkeys(draw.ALL_PANELS[:5], 0.5) | {"run_id": "a", "epoch": e} for e in (0, 200)]
    run = dataclasses.asdict(config) | {"run_id": "a", "status": "ok", "train_acc": 1.0}
    store.write(tmp_path, [run], rows)
    assert explore.explorer(tmp_path) is None
    (picture,) = shown
    assert isinstance(picture, HTML)
    assert 'alt="The explorer compares two: AdamW' in picture.data
