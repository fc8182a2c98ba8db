"""Tables, sentences and figures of a small real sweep, against pandas by hand."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import LogNorm, to_hex, to_rgba

from ncbook import figures, store, sweep

METRICS = ["nc0", "nc1", "nc2", "nc3", "nc4"]
DECAYS = [0.0, 0.05, 5.0]
PANELS = {  # every figure, and its metrics' argument
    "against_weight_decay": "runs",
    "heatmaps": "runs",
    "over_epochs": "history",
    "singular_values": "history",
}


@pytest.fixture(autouse=True)
def no_window():
    mpl.use("Agg")
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Adam and AdamW, 2 momenta x 3 decays, and one run that overflows; 5 epochs of 200 digits."""
    folder = tmp_path_factory.mktemp("results")
    shared = dict(train_size=200, batch_size=20, epochs=5)
    configs = [
        *sweep.grid("adam", [0.01], [0.0, 0.9], DECAYS, **shared),
        *sweep.grid("adamw", [0.01], [0.0, 0.9], DECAYS, **shared),
        *sweep.grid("adam", [1e37], [0.9], [0.05], **shared),
    ]
    sweep.run(configs, folder, workers=1, progress=False)
    return folder


@pytest.fixture(scope="module")
def all_runs(results):
    runs = store.load_runs(results)
    assert list(runs["status"]).count("diverged") == 1
    good = (runs["status"] == "ok") & (runs["train_acc"] >= 0.99)
    # The sweep is of use below if some runs converged, some not, and Adam at decay 5 never.
    assert 6 <= good.sum() <= 11
    assert not good[(runs["optimizer"] == "adam") & (runs["weight_decay"] == 5)].any()
    return runs


@pytest.fixture
def runs(all_runs):
    return all_runs.copy()


@pytest.fixture
def history(results):
    return store.load_history(results)


def good_rows(runs):
    """By hand: the converged runs as a list of mappings."""
    rows = runs.to_dict("records")
    return [r for r in rows if r["status"] == "ok" and r["train_acc"] >= 0.99]


def draw(figure, tmp_path):
    """Render it: much goes wrong only then."""
    figure.savefig(tmp_path / "figure.png")
    picture = plt.imread(tmp_path / "figure.png")
    assert picture[..., :3].std() > 0.01  # not all white
    return figure


def title_of(figure):
    return figure.get_suptitle()


def legend_of(figure):
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


# ------------------------------------------------------------ one run made up

ENDS = {f"{m}_init": 2.0 for m in METRICS} | dict.fromkeys(METRICS, 0.5)


def made_up(*changes):
    """A frame of converged runs with round numbers, each with some changes."""
    plain = dict(
        run_id="r",
        dataset="digits",
        model="mlp",
        optimizer="sgd",
        lr=0.01,
        momentum=0.9,
        weight_decay=0.05,
        seed=0,
        epochs=200,
        status="ok",
        train_acc=1.0,
        test_acc=0.953,
        **ENDS,
    )
    return pd.DataFrame([plain | {"run_id": f"r{i}"} | c for i, c in enumerate(changes)])


# ------------------------------------------------------------ tables


def test_converged_means_ok_and_99_percent():
    runs = made_up(
        {"train_acc": 0.99},
        {"train_acc": 0.9899},
        {"train_acc": 1.0, "status": "diverged"},
        {"train_acc": np.nan},
    )
    assert list(figures.converged(runs)["run_id"]) == ["r0"]


def test_converged_rows_of_a_real_sweep(runs):
    assert list(figures.converged(runs)["run_id"]) == [r["run_id"] for r in good_rows(runs)]


def test_the_best_run_has_the_least_nc3_of_those_that_converged(runs):
    least = min(good_rows(runs), key=lambda r: r["nc3"])
    assert figures.best_run(runs)["run_id"] == least["run_id"]


def test_a_lower_nc3_without_convergence_does_not_count():
    runs = made_up(
        {"nc3": 0.3},
        {"nc3": 0.2},
        {"nc3": 0.1, "train_acc": 0.98},
        {"nc3": 0.05, "status": "diverged"},
        {"nc3": np.nan},
    )
    assert figures.best_run(runs)["run_id"] == "r1"


def test_the_best_of_frames_that_were_joined():
    """Their indices repeat."""
    runs = pd.concat([made_up({"nc3": 0.3}), made_up({"nc3": 0.2, "lr": 0.5})])
    assert figures.best_run(runs).lr == 0.5


def test_best_run_table_has_start_end_and_change():
    table = figures.best_run_table(made_up({"nc0": 0.2, "nc4": 1.0, "nc4_init": 0.8}))
    assert list(table.index) == ["NC0", "NC1", "NC2", "NC3", "NC4"]
    assert list(table.columns) == ["at the start", "at the end", "change"]
    assert list(table.loc["NC0"]) == pytest.approx([2.0, 0.2, -0.9])
    assert list(table.loc["NC4"]) == pytest.approx([0.8, 1.0, 0.25])


def test_by_weight_decay_counts_and_means(runs):
    table = figures.by_weight_decay(runs)
    assert list(table.index) == DECAYS
    assert list(table.columns) == ["runs", "converged", "diverged", *figures.METRICS.values()]
    for decay in DECAYS:
        good = [r for r in good_rows(runs) if r["weight_decay"] == decay]
        row = table.loc[decay]
        assert row["runs"] == (runs["weight_decay"] == decay).sum()
        assert row["converged"] == len(good)
        assert row["diverged"] == (1 if decay == 0.05 else 0)
        for metric, label in figures.METRICS.items():
            assert row[label] == pytest.approx(np.mean([r[metric] for r in good]))


def test_by_weight_decay_without_a_converged_run_has_counts_only():
    runs = made_up({"train_acc": 0.5}, {"train_acc": 0.5, "status": "diverged"})
    (row,) = figures.by_weight_decay(runs).to_dict("records")
    assert (row["runs"], row["converged"], row["diverged"]) == (2, 0, 1)
    assert np.isnan(row["NC3"])


def test_shown_tables_have_three_digits_and_dashes():
    table = pd.DataFrame({"n": [3, 4], "NC0": [0.123456, np.nan], "change": [-0.5, 0.25]})
    table.index = [0.0, 5e-4]
    page = figures.shown(table, change="{:+.1%}").to_html()
    for text in ("0.123<", "–<", ">3<", "-50.0%", "+25.0%", ">0<", ">0.0005<"):
        assert text in page
    assert "nan" not in page.lower()


# ------------------------------------------------------------ words


def test_caption_says_what_and_how_many_converged(runs):
    count = len(good_rows(runs))
    settings = f"digits, mlp, 5 epochs (n = {count} of 13)"
    assert figures.caption(runs) == f"Adam, AdamW, {settings}"
    assert figures.caption(runs, short=True) == settings


def test_caption_names_everything_that_is_mixed():
    runs = made_up({}, {"optimizer": "adamw", "dataset": "gaussians"}, {"train_acc": 0.4})
    assert figures.caption(runs) == "SGD, AdamW, digits, gaussians, mlp, 200 epochs (n = 2 of 3)"


def test_describe_best_names_the_run():
    runs = made_up({"nc3": 0.9}, {"nc3": 0.1, "lr": 0.0679, "seed": 3}, {"train_acc": 0.3})
    assert figures.describe_best(runs) == (
        "Of 2 converged runs out of 3: learning rate 0.0679, momentum 0.9, weight decay 0.05, "
        "seed 3; training accuracy 100.0%, test accuracy 95.3%."
    )


@pytest.mark.parametrize(
    ("nc0", "nc3", "word"),
    [
        (0.0, 0.0, "collapsed"),
        (0.09, 0.14, "collapsed"),
        (0.11, 0.14, "collapsed in part"),
        (0.09, 0.16, "collapsed in part"),
        (0.49, 0.01, "collapsed in part"),
        (0.51, 0.01, "did not collapse"),
        (0.51, 0.9, "did not collapse"),
        (3.0, 0.3, "did not collapse"),
    ],
)
def test_verdict_by_what_is_left_of_nc0_and_nc3(nc0, nc3, word):
    """Both are shares of the value at the start, here 2."""
    runs = made_up({"optimizer": "adamw", "nc0": 2 * nc0, "nc3": 2 * nc3})
    sentence = figures.verdict(runs)
    assert sentence.startswith(f"**AdamW {word}.** In its best run (learning rate 0.01, momentum")
    assert f"NC0 went from 2 to {2 * nc0:.3g} (" in sentence
    assert f"NC3 from 2 to {2 * nc3:.3g} (" in sentence
    assert sentence.endswith("at 100.0% training accuracy.")


def test_verdict_is_of_the_best_run():
    runs = made_up({"nc3": 0.01, "nc0": 0.01}, {"nc3": 0.02, "nc0": 9.0})
    assert figures.verdict(runs).startswith("**SGD collapsed.**")
    assert figures.verdict(runs[1:]).startswith("**SGD did not collapse.**")


@pytest.mark.parametrize(
    ("left", "text"),
    [(1.5, "150%"), (0.5, "50%"), (0.12, "12%"), (0.099, "9.90%"), (1e-3, "0.10%")],
)
def test_shares_in_the_verdict_are_readable(left, text):
    assert f"to {2 * left:.3g} ({text} of the start)" in figures.verdict(made_up({"nc0": 2 * left}))


def test_a_share_that_would_read_as_zero_is_under_something():
    assert "(under 0.01% of the start)" in figures.verdict(made_up({"nc0": 2e-6}))


def test_verdict_of_a_real_sweep_has_its_numbers(runs):
    rows = runs[runs["optimizer"] == "adamw"]
    best = min(good_rows(rows), key=lambda r: r["nc3"])
    sentence = figures.verdict(rows)
    assert sentence.startswith("**AdamW ")
    assert f"weight decay {best['weight_decay']:g}" in sentence
    assert f"NC3 from {best['nc3_init']:.3g} to {best['nc3']:.3g}" in sentence


SIX = {"sgd": 0.02, "sgdw": 0.3, "adam": 0.01, "adamw": 0.4, "signum": 0.03, "signumw": 0.25}


def six_optimizers(**changes):
    rows = [{"optimizer": name, "nc3": nc3} | changes for name, nc3 in SIX.items()]
    worse = [row | {"nc3": 2 * row["nc3"]} for row in rows]
    without_decay = [row | {"nc3": 1e-6, "weight_decay": 0.0} for row in rows]
    not_converged = [row | {"nc3": 1e-6, "train_acc": 0.9} for row in rows]
    return made_up(*rows, *worse, *without_decay, *not_converged)


def test_headline_compares_the_least_nc3_with_weight_decay():
    sentence = figures.headline(six_optimizers())
    assert sentence.startswith("Over 12 converged runs with weight decay, ")
    assert "SGD 0.02, SGDW 0.3, Adam 0.01, AdamW 0.4, Signum 0.03, SignumW 0.25." in sentence
    assert "AdamW's is 40 times and SignumW's is 25 times Adam's" in sentence


@pytest.mark.parametrize("words", [figures.describe_best, figures.verdict])
def test_words_say_that_no_run_converged(words):
    runs = made_up({"train_acc": 0.5}, {"train_acc": np.nan, "status": "diverged"})
    assert words(runs).startswith("None of the 2 runs reached 99% training accuracy.")
    assert words(runs[:0]).startswith("None of the 0 runs reached 99% training accuracy.")
    assert figures.caption(runs).endswith("(n = 0 of 2)")
    assert figures.best_run(runs) is None
    assert figures.best_run_table(runs).empty


def test_headline_without_a_converged_run_claims_no_ratio():
    sentence = figures.headline(six_optimizers(train_acc=0.5))
    assert "nan" not in sentence


# ------------------------------------------------------------ against weight decay


def test_lines_are_the_means_of_the_converged_runs(runs, tmp_path):
    figure = draw(figures.against_weight_decay(runs, title="a title"), tmp_path)
    assert title_of(figure) == "a title"
    assert legend_of(figure) == ["Adam", "AdamW"]
    assert [axis.get_ylabel() for axis in figure.axes] == ["NC0 at the end", "NC3 at the end"]
    for axis, metric in zip(figure.axes, ("nc0", "nc3"), strict=True):
        for line, name in zip(axis.lines, ("adam", "adamw"), strict=True):
            means = {}
            for decay in DECAYS:
                values = [
                    r[metric]
                    for r in good_rows(runs)
                    if (r["optimizer"], r["weight_decay"]) == (name, decay)
                ]
                if values:
                    # Decay 0 stands a decade below the least positive one.
                    means[decay or 0.005] = sum(values) / len(values)
            assert list(line.get_xdata()) == pytest.approx(list(means))
            assert list(line.get_ydata()) == pytest.approx(list(means.values()))
            assert len(means) == (2 if name == "adam" else 3)


def test_bands_are_one_standard_deviation_but_not_below_the_least_value(tmp_path):
    values = {0.0: [1.0, 2.0, 3.0], 0.1: [1.0, 1.0, 10.0]}  # mean and sd: 2 and 1; 4 and 5.2
    rows = [{"weight_decay": d, "nc0": v} for d, vs in values.items() for v in vs]
    figure = figures.against_weight_decay(made_up(*rows), metrics=["nc0", "nc3"])
    draw(figure, tmp_path)
    corners = figure.axes[0].collections[0].get_paths()[0].vertices
    edges = {x: (ys.min(), ys.max()) for x, ys in pd.DataFrame(corners).groupby(0)[1]}
    assert edges[0.01] == pytest.approx((1.0, 3.0))
    assert edges[0.1] == pytest.approx((1.0, 4 + np.std(values[0.1], ddof=1)))


def test_a_single_run_has_a_point_and_no_spread(tmp_path):
    figure = draw(figures.against_weight_decay(made_up({})), tmp_path)
    (line,) = figure.axes[0].lines
    assert list(line.get_ydata()) == [0.5]
    assert line.get_marker() == "o"  # else one point would not be seen


def test_the_decay_axis_names_every_decay(runs):
    axis = figures.against_weight_decay(runs).axes[0]
    assert axis.get_xscale() == axis.get_yscale() == "log"
    assert list(axis.get_xticks()) == pytest.approx([0.005, 0.05, 5.0])
    assert [label.get_text() for label in axis.get_xticklabels()] == ["0", "0.05", "5"]
    assert "weight decay" in axis.get_xlabel()


def test_colours_are_the_optimizers_and_decoupled_is_dashed(tmp_path):
    figure = draw(figures.against_weight_decay(six_optimizers()), tmp_path)
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert legend_of(figure) == list(lines) == list(figures.LABELS.values())
    assert list(figures.COLOURS) == list(figures.LABELS)
    for name, label in figures.LABELS.items():
        assert to_hex(lines[label].get_color()) == figures.COLOURS[name].lower()
        assert lines[label].get_linestyle() == ("--" if name.endswith("w") else "-")
    assert len(set(figures.COLOURS.values())) == 6


# ------------------------------------------------------------ heat maps


def test_heat_maps_show_the_means_over_learning_rates(runs, tmp_path):
    rows = runs[runs["optimizer"] == "adam"]
    figure = draw(figures.heatmaps(rows, title="maps"), tmp_path)
    assert title_of(figure) == "maps"
    assert [axis.get_title() for axis in figure.axes] == ["NC0", "NC2", "NC3"]
    for axis, metric in zip(figure.axes, ("nc0", "nc2", "nc3"), strict=True):
        shown = np.ma.filled(axis.collections[0].get_array().astype(float), np.nan)
        assert shown.shape == (3, 2)
        for i, decay in enumerate([5.0, 0.05, 0.0]):  # the largest on top
            for j, momentum in enumerate([0.0, 0.9]):
                at = (decay, momentum)
                good = [r for r in good_rows(rows) if (r["weight_decay"], r["momentum"]) == at]
                mean = np.mean([r[metric] for r in good]) if good else np.nan
                np.testing.assert_allclose(shown[i, j], mean, rtol=1e-12)
        assert np.isnan(shown).sum() >= 2  # no run of Adam converged at decay 5


def test_heat_maps_average_over_learning_rates(tmp_path):
    runs = made_up({"nc0": 1.0, "lr": 0.1}, {"nc0": 2.0, "lr": 0.2}, {"nc0": 9, "train_acc": 0.1})
    figure = draw(figures.heatmaps(runs, ["nc0"]), tmp_path)
    assert figure.axes[0].collections[0].get_array().tolist() == [[1.5]]
    assert [text.get_text() for text in figure.axes[0].texts] == ["1.5"]


def test_heat_maps_are_labelled(runs):
    figure = figures.heatmaps(runs[runs["optimizer"] == "adamw"])
    first, *others = figure.axes
    assert [label.get_text() for label in first.get_yticklabels()] == ["5", "0.05", "0"]
    assert "weight decay" in first.get_ylabel()
    assert all(list(axis.get_yticks()) == [] for axis in others)
    for axis in figure.axes:
        assert [label.get_text() for label in axis.get_xticklabels()] == ["0", "0.9"]
        assert "momentum" in axis.get_xlabel()
        assert isinstance(axis.collections[0].norm, LogNorm)


def test_cells_have_two_digits_and_those_without_a_run_are_empty_and_grey(tmp_path):
    runs = made_up(
        {"nc0": 0.001234},
        {"nc0": 1.2e-6, "momentum": 0.5},
        {"nc0": 7.0, "weight_decay": 1.0, "train_acc": 0.1},
        {"nc0": 12.3, "weight_decay": 1.0, "momentum": 0.5},
    )
    axis = draw(figures.heatmaps(runs, ["nc0"]), tmp_path).axes[0]
    assert [text.get_text() for text in axis.texts if text.get_text()] == [
        *("12", "1.2e-6", "0.0012"),
    ]
    empty = axis.collections[0].get_array()
    assert np.ma.getmaskarray(empty).tolist() == [[False, True], [False, False]]
    red, green, blue, _ = to_rgba(axis.get_facecolor())
    assert red == green == blue < 1


def test_a_metric_of_exactly_zero_can_be_drawn(tmp_path):
    """On a logarithmic scale: strong decay takes NC0 below the least float32."""
    runs = made_up({"nc0": 0.5}, {"nc0": 0.0, "weight_decay": 1.0})
    draw(figures.heatmaps(runs), tmp_path)
    draw(figures.against_weight_decay(runs), tmp_path)


# ------------------------------------------------------------ over the epochs


def quantile_by_hand(history, column, hue, value, q):
    rows = history[history[hue] == value]
    epochs = sorted(rows["epoch"].unique())
    return epochs, [np.quantile(rows[rows["epoch"] == e][column], q) for e in epochs]


def test_lines_over_epochs_are_medians_and_bands_quartiles(history, tmp_path):
    figure = draw(figures.over_epochs(history, title="epochs"), tmp_path)
    assert title_of(figure) == "epochs"
    assert [axis.get_ylabel() for axis in figure.axes] == ["NC0", "NC1", "NC2", "NC3"]
    assert legend_of(figure) == ["0", "0.05", "5"]
    assert figure.legends[0].get_title().get_text() == "weight decay"
    for axis, metric in zip(figure.axes, ("nc0", "nc1", "nc2", "nc3"), strict=True):
        for line, band, decay in zip(axis.lines, axis.collections, DECAYS, strict=True):
            epochs, middle = quantile_by_hand(history, metric, "weight_decay", decay, 0.5)
            assert list(line.get_xdata()) == epochs == [0, 1, 2, 3, 5]
            assert list(line.get_ydata()) == pytest.approx(middle)
            corners = pd.DataFrame(band.get_paths()[0].vertices).groupby(0)[1]
            for q, edge in ((0.25, corners.min()), (0.75, corners.max())):
                _, by_hand = quantile_by_hand(history, metric, "weight_decay", decay, q)
                assert list(edge) == pytest.approx(by_hand)


def test_the_epoch_axis_begins_at_0_and_ends_at_the_last(history):
    axis = figures.over_epochs(history).axes[-1]
    assert axis.get_xlim() == (0, 5)
    assert [label.get_text() for label in axis.get_xticklabels()] == ["0", "1", "5"]
    assert axis.get_xlabel() == "epoch"
    assert axis.get_yscale() == "log"


def test_lines_can_be_optimizers(history, tmp_path):
    figure = draw(figures.over_epochs(history, ["nc3", "nc4"], hue="optimizer"), tmp_path)
    assert legend_of(figure) == ["Adam", "AdamW"]
    for line, name in zip(figure.axes[0].lines, ("adam", "adamw"), strict=True):
        assert to_hex(line.get_color()) == figures.COLOURS[name].lower()
        _, middle = quantile_by_hand(history, "nc3", "optimizer", name, 0.5)
        assert list(line.get_ydata()) == pytest.approx(middle)


def test_singular_values_of_w_and_m(history, tmp_path):
    figure = draw(figures.singular_values(history, title="spectra"), tmp_path)
    assert title_of(figure) == "spectra"
    w_axis, m_axis = figure.axes
    assert w_axis.get_ylabel() == "singular values of W"
    assert m_axis.get_ylabel() == "singular values of M"
    solid = {"w": [x for x in w_axis.lines if x.get_linestyle() == "-"], "m": m_axis.lines}
    dotted = [x for x in w_axis.lines if x.get_linestyle() == ":"]
    drawn = {"w_sv_mean": solid["w"], "m_sv_mean": solid["m"], "w_sv_min": dotted}
    for column, lines in drawn.items():
        assert len(lines) == 3
        for line, decay in zip(lines, DECAYS, strict=True):
            _, middle = quantile_by_hand(history, column, "weight_decay", decay, 0.5)
            assert list(line.get_ydata()) == pytest.approx(middle)
    for line, below in zip(solid["w"], dotted, strict=True):
        assert line.get_color() == below.get_color()
        assert (line.get_ydata() > below.get_ydata()).all()
    assert legend_of(figure) == ["0", "0.05", "5"]


# ------------------------------------------------------------ all figures


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("name", ["against_weight_decay", "heatmaps", "over_epochs"])
def test_any_number_of_metrics_makes_as_many_panels(runs, history, name, count, tmp_path):
    frame = {"runs": runs, "history": history}[PANELS[name]]
    figure = draw(getattr(figures, name)(frame, metrics=METRICS[:count]), tmp_path)
    assert len(figure.axes) == count
    assert all(axis.has_data() for axis in figure.axes)


@pytest.mark.parametrize("name", ["against_weight_decay", "over_epochs", "singular_values"])
def test_the_legend_covers_no_panel(runs, history, name, tmp_path):
    frame = {"runs": runs, "history": history}[PANELS[name]]
    figure = draw(getattr(figures, name)(frame), tmp_path)
    legend = figure.legends[0].get_window_extent()
    assert not any(axis.get_window_extent().overlaps(legend) for axis in figure.axes)


@pytest.mark.parametrize("name", PANELS)
def test_frames_and_settings_are_left_as_they_were_and_figures_closed(runs, history, name):
    """A figure left open would be shown twice by a notebook: as the cell's result, and again."""
    frame = {"runs": runs, "history": history}[PANELS[name]]
    before, look = frame.copy(), dict(mpl.rcParams)
    getattr(figures, name)(frame)
    pd.testing.assert_frame_equal(frame, before)
    assert dict(mpl.rcParams) == look
    assert plt.get_fignums() == []


@pytest.mark.parametrize("name", ["against_weight_decay", "heatmaps"])
def test_figures_of_runs_none_of_which_converged(runs, name, tmp_path):
    rows = runs.assign(train_acc=0.5)
    figure = draw(getattr(figures, name)(rows, title=figures.caption(rows)), tmp_path)
    assert "(n = 0 of 13)" in title_of(figure)
    assert not any(axis.lines for axis in figure.axes)


@pytest.mark.parametrize("name", PANELS)
def test_figures_of_no_rows_at_all(runs, history, name, tmp_path):
    """What the sweep notebook has of a history if no run converged."""
    frame = {"runs": runs, "history": history}[PANELS[name]][:0]
    figure = getattr(figures, name)(frame, title="nothing")
    figure.savefig(tmp_path / "figure.png")
    assert title_of(figure) == "nothing"


@pytest.mark.parametrize("name", ["over_epochs", "singular_values"])
def test_figures_of_runs_that_were_all_lost_in_the_first_epoch(history, name, tmp_path):
    draw(getattr(figures, name)(history[history["epoch"] == 0]), tmp_path)


def test_the_style_can_be_used(runs, tmp_path):
    with mpl.rc_context():
        figures.use_style()
        draw(figures.against_weight_decay(runs), tmp_path)
        assert not mpl.rcParams["axes.spines.top"]


def test_the_picture_of_the_readme_is_of_the_default_setting(tmp_path, monkeypatch):
    rows = six_optimizers()
    rows["run_id"] = [f"run{i}" for i in rows.index]
    other = rows.assign(run_id="other" + rows["run_id"], dataset="gaussians", nc3=77.0)
    for frame in (rows, other):
        store.write(tmp_path / "results", frame.to_dict("records"))
    drawn = []
    original = figures.against_weight_decay

    def watched(runs, **options):
        drawn.append(runs)
        return original(runs, **options)

    monkeypatch.setattr(figures, "against_weight_decay", watched)
    with mpl.rc_context():
        figures.save_headline(tmp_path / "results", tmp_path / "new" / "headline.png")
    assert set(drawn[0]["run_id"]) == set(rows["run_id"])
    assert plt.imread(tmp_path / "new" / "headline.png").std() > 0.01
