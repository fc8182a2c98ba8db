"""Tables, sentences and figures of a small real sweep, against pandas by hand."""

import base64
import dataclasses
import io
import math
import re
from itertools import combinations

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from IPython.display import HTML, Markdown
from matplotlib.colors import LogNorm, to_hex, to_rgb, to_rgba

from ncbook import data, figures, optim, store, sweep
from ncbook.train import RunConfig

METRICS = ["nc0", "nc1", "nc2", "nc3", "nc4"]
DECAYS = [0.0, 0.05, 5.0]
SMALL = dict(train_size=200, batch_size=20, epochs=5)
OF_RUNS = ["against_weight_decay", "heatmaps"]
OF_HISTORY = ["over_epochs"]


@pytest.fixture(autouse=True)
def no_window():
    mpl.use("Agg")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Adam and AdamW, 2 momenta x 3 decays, and one run that overflows; 5 epochs of 200 digits."""
    folder = tmp_path_factory.mktemp("results")
    configs = [
        *sweep.grid("adam", [0.01], [0.0, 0.9], DECAYS, **SMALL),
        *sweep.grid("adamw", [0.01], [0.0, 0.9], DECAYS, **SMALL),
        *sweep.grid("adam", [1e37], [0.9], [0.05], **SMALL),
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


@pytest.fixture
def frame(request):
    """The runs or the epochs, whichever a figure takes."""
    return lambda name: request.getfixturevalue("history" if name in OF_HISTORY else "runs")


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


def legend_of(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def labels_of(ticks):
    return [label.get_text() for label in ticks]


def edges_of(band):
    """The lower and upper edge of a filled band."""
    corners = pd.DataFrame(band.get_paths()[0].vertices).groupby(0)[1]
    return corners.min(), corners.max()


ENDS = {f"{m}_init": 2.0 for m in METRICS} | dict.fromkeys(METRICS, 0.5)
PLAIN = dict(dataset="digits", model="mlp", optimizer="sgd", lr=0.01, momentum=0.9, seed=0)
PLAIN |= dict(weight_decay=0.05, epochs=200, status="ok", train_acc=1.0, test_acc=0.953) | ENDS
PLAIN |= dict(schedule="step")


def made_up(*changes):
    """A frame of converged runs with round numbers, each with some changes; as a store gives it,
    with all columns."""
    plain = dict.fromkeys(store.RUN_COLUMNS) | PLAIN
    return pd.DataFrame([plain | {"run_id": f"r{i}"} | c for i, c in enumerate(changes)])


# ------------------------------------------------------------ which runs count


def test_converged_means_ok_and_99_percent(runs):
    found = made_up(
        {"train_acc": 0.99},
        {"train_acc": 0.9899},
        {"train_acc": 1.0, "status": "diverged"},
        {"train_acc": np.nan},
    )
    assert list(figures.converged(found)["run_id"]) == ["r0"]
    assert list(figures.converged(runs)["run_id"]) == [r["run_id"] for r in good_rows(runs)]


def test_the_best_run_has_the_least_nc3_of_those_that_converged(runs):
    least = min(good_rows(runs), key=lambda r: r["nc3"])
    assert figures.best_run(runs)["run_id"] == least["run_id"]
    lower = ({"train_acc": 0.98}, {"status": "diverged"}, {"nc3": np.nan})
    rows = made_up({"nc3": 0.3}, {"nc3": 0.2}, *({"nc3": 0.1} | change for change in lower))
    assert figures.best_run(rows)["run_id"] == "r1"
    joined = pd.concat([made_up({"nc3": 0.3}), made_up({"nc3": 0.2, "lr": 0.5})])
    assert figures.best_run(joined).lr == 0.5  # though their indices repeat


def test_even_seeds_are_those_with_the_most_settings_of_their_optimizer():
    full = [{"seed": seed, "momentum": beta} for seed in (0, 1) for beta in (0.0, 0.9)]
    rows = made_up(*full, {"seed": 2}, {"seed": 2, "optimizer": "adam"})
    assert list(figures.even_seeds(rows).index) == [0, 1, 2, 3, 5]
    assert figures.even_seeds(rows[:0]).empty


def test_having_all_optimizers_or_none():
    rows = made_up({}, {"optimizer": "adam"}, {"optimizer": "adamw"})
    assert figures.having(rows, "sgd", "adamw").equals(rows)
    assert figures.having(rows, "sgd", "sgdw").empty


def test_runs_on_the_grid_are_those_at_its_points():
    point = dict(optimizer="adamw", lr=0.005, momentum=0.98, weight_decay=10.0)
    others = dict(lr=0.0679, momentum=0.97, weight_decay=0.01, optimizer="adam")
    rows = made_up(point, *(point | {name: value} for name, value in others.items()))
    assert list(figures.on_grid(rows, sweep.GRIDS).index) == [0]
    assert figures.on_grid(rows, {}).empty


# ------------------------------------------------------------ tables


def test_best_run_table_has_start_end_and_change():
    table = figures.best_run_table(made_up({"nc0": 0.2, "nc4": 1.0, "nc4_init": 0.8}))
    assert list(table.index)[:5] == ["NC0", "NC1", "NC2", "NC3", "NC4"]
    assert list(table.columns) == ["at the start", "at the end", "change"]
    assert list(table.loc["NC0"]) == pytest.approx([2.0, 0.2, -0.9])
    assert list(table.loc["NC4"]) == pytest.approx([0.8, 1.0, 0.25])
    assert (
        table.loc[["NC3 of the centred W (not stored)", "gauge share of W (not stored)"]]
        .isna()
        .all(axis=None)
    )
    table = figures.best_run_table(made_up({"nc3_centred": 0.1, "nc3_centred_init": 0.4}))
    assert list(table.loc["NC3 of the centred W"]) == pytest.approx([0.4, 0.1, -0.75])


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
    (row,) = figures.by_weight_decay(made_up({"train_acc": 0.5})).to_dict("records")
    assert (row["runs"], row["converged"], row["diverged"]) == (1, 0, 0)
    assert np.isnan(row["NC3"])


def test_shown_tables_have_three_digits_dashes_and_the_index_name_in_the_corner():
    index = pd.Index([0.0, 5e-4], name="weight decay")
    columns = {"n": [3, 4], "NC0": [0.123456, np.nan], "change": [-0.5, 0.25]}
    table = pd.DataFrame(columns, index=index)
    page = figures.shown(table, change="{:+.1%}").to_html()
    for text in ("0.123<", "–<", ">3<", "\N{MINUS SIGN}50.0%", "+25.0%", ">0<", ">0.0005<"):
        assert text in page
    assert "nan" not in page.lower()
    head = page.split("</thead>")[0]
    assert head.count("<tr>") == 1
    assert ">weight decay<" in head
    assert table.index.name == "weight decay"


# ------------------------------------------------------------ words


def test_caption_says_what_and_how_many_converged(runs):
    settings = f"digits, mlp, 5 epochs (n = {len(good_rows(runs))} of 13)"
    assert figures.caption(runs) == f"Adam, AdamW, {settings}"
    assert figures.caption(runs, short=True) == settings
    rows = made_up({}, {"optimizer": "adamw", "dataset": "gaussians"}, {"train_acc": 0.4})
    assert figures.caption(rows) == "SGD, AdamW, digits, gaussians, mlp, 200 epochs (n = 2 of 3)"


def test_describe_best_names_the_run():
    runs = made_up({"nc3": 0.9}, {"nc3": 0.1, "lr": 0.0679, "seed": 3}, {"train_acc": 0.3})
    assert figures.describe_best(runs) == (
        "Of 2 converged runs out of 3: learning rate 0.0679, momentum 0.9, weight decay 0.05, "
        "seed 3; training accuracy 100.0%, test accuracy 95.3%."
    )


COLLAPSED = {"nc1": 0.01, "nc2": 0.02, "nc3": 0.03}
NOT_STORED = "collapsed in part, gauge not stored (NC1, NC2 alone).**"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, "collapsed.**"),
        ({"nc0": 1e6}, "collapsed.**"),
        ({"nc3": 0.4, "nc3_centred": 0.05}, "collapsed but for its gauge.**"),
        ({"nc3": 0.4, "nc3_centred": 0.2}, "collapsed in part (NC1, NC2 alone).**"),
        ({"nc3": 0.4}, NOT_STORED),
        ({"nc1": 0.2, "nc2": 0.3, "nc3": 0.4}, "did not collapse.**"),
    ],
)
def test_verdict_is_what_the_rule_says_of_the_best_run(change, words):
    row = {"optimizer": "adamw"} | COLLAPSED | change
    sentence = figures.verdict(made_up(row, row | {"nc3": 0.9, "train_acc": 0.5}))
    assert sentence.startswith(f"**AdamW {words} Its best run (learning rate 0.01, momentum 0.9")
    ends = ", ".join(f"{name.upper()} {row[name]:.3g}" for name in COLLAPSED)
    assert f" ends with {ends}, at 100.0% training accuracy;" in sentence
    assert "Of 2 runs: 1 " in sentence
    assert sentence.endswith("; 1 did not learn.")
    assert "NC0" not in sentence


def test_outcomes_count_every_run():
    runs = made_up(COLLAPSED, COLLAPSED, {}, {"status": "diverged"}, {"status": "<script>"})
    assert figures.outcomes(runs) == "Of 5 runs: 2 collapsed; 1 did not collapse; 1 diverged"
    assert figures.outcomes(runs[:0]) == "Of 0 runs: none"
    gauge = COLLAPSED | {"nc3": 0.4, "nc3_centred": 0.05}
    assert figures.outcomes(made_up(gauge)) == "Of 1 run: 1 collapsed but for its gauge"
    assert figures.outcomes(made_up(gauge, gauge)).endswith("2 collapsed but for their gauge")


SIX = {"sgd": 0.02, "sgdw": 0.3, "adam": 0.01, "adamw": 0.4, "signum": 0.03, "signumw": 0.25}


def six_optimizers(**changes):
    rows = [{"optimizer": name, "nc3": nc3} | changes for name, nc3 in SIX.items()]
    worse = [row | {"nc3": 2 * row["nc3"]} for row in rows]
    without_decay = [row | {"nc3": 1e-6, "weight_decay": 0.0} for row in rows]
    not_converged = [row | {"nc3": 1e-6, "train_acc": 0.9} for row in rows]
    return made_up(*rows, *worse, *without_decay, *not_converged)


@pytest.mark.parametrize("words", [figures.describe_best, figures.verdict])
def test_words_say_that_no_run_converged(words):
    runs = made_up({"train_acc": 0.5}, {"train_acc": np.nan, "status": "diverged"})
    assert words(runs).startswith("None of the 2 runs reached 99% training accuracy.")
    assert words(runs[:0]).startswith("None of the 0 runs reached 99% training accuracy.")
    assert figures.caption(runs).endswith("(n = 0 of 2)")
    assert figures.best_run(runs) is None
    assert figures.best_run_table(runs).empty


def test_counted_runs_seeds_converged_and_diverged():
    diverged = {"train_acc": np.nan, "status": "diverged", "optimizer": "adamw"}
    rows = made_up({}, {"seed": 1}, {"train_acc": 0.989}, diverged)
    three = "3 runs over 2 seeds: 2 reached 99% training accuracy, 1 did not, and 0 diverged"
    one = "1 run over 1 seed: 0 reached 99% training accuracy, 0 did not, and 1 diverged"
    assert figures.counted(rows[:3]) == three
    assert figures.counted(rows[3:]) == one
    assert figures.counted_by_optimizer(rows[::-1]) == f"- SGD: {three}.\n- AdamW: {one}."
    assert "1 reached 50% training" in figures.counted(rows[:1], least=0.5)


@pytest.mark.parametrize(
    ("factor", "text"), [(0.97, "1.0"), (1.73, "1.7"), (38.3, "38"), (1070.2, "1,070")]
)
def test_factors_have_two_digits_at_least_and_no_powers(factor, text):
    assert figures.times(factor) == text


# ------------------------------------------------------------ against weight decay


def test_lines_are_the_means_of_the_converged_runs(runs, tmp_path):
    figure = draw(figures.against_weight_decay(runs, title="a title"), tmp_path)
    assert figure.get_suptitle() == "a title"
    assert legend_of(figure) == ["Adam", "AdamW"]
    assert [axis.get_ylabel() for axis in figure.axes] == ["NC0 at the end", "NC3 at the end"]
    for axis, metric in zip(figure.axes, ("nc0", "nc3"), strict=True):
        for line, name in zip(axis.lines, ("adam", "adamw"), strict=True):
            rows = pd.DataFrame(good_rows(runs)).query("optimizer == @name")
            means = rows.groupby("weight_decay")[metric].mean()
            # Decay 0 stands a decade below the least positive one.
            assert list(line.get_xdata()) == pytest.approx([x or 0.005 for x in means.index])
            assert list(line.get_ydata()) == pytest.approx(list(means))
            assert len(means) == (2 if name == "adam" else 3)
    axis = figure.axes[0]
    assert axis.get_xscale() == axis.get_yscale() == "log"
    assert list(axis.get_xticks()) == pytest.approx([0.005, 0.05, 5.0])
    assert labels_of(axis.get_xticklabels()) == ["0", "0.05", "5"]


def test_bands_are_one_standard_deviation_but_not_below_the_least_value(tmp_path):
    values = {0.0: [1.0, 2.0, 3.0], 0.1: [1.0, 1.0, 10.0]}  # mean and sd: 2 and 1; 4 and 5.2
    rows = [{"weight_decay": d, "nc0": v} for d, vs in values.items() for v in vs]
    figure = draw(figures.against_weight_decay(made_up(*rows), metrics=["nc0", "nc3"]), tmp_path)
    low, high = edges_of(figure.axes[0].collections[0])
    assert list(low) == pytest.approx([1.0, 1.0])
    assert list(high) == pytest.approx([3.0, 4 + np.std(values[0.1], ddof=1)])
    (line,) = draw(figures.against_weight_decay(made_up({})), tmp_path).axes[0].lines
    assert line.get_marker() == "o"  # else the point of a single run would not be seen


def test_every_decay_has_its_name_on_the_axis():
    decays = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0)
    axis = figures.against_weight_decay(made_up(*({"weight_decay": d} for d in decays))).axes[0]
    assert labels_of(axis.get_xticklabels()) == ["0", "0.5", "1", "2", "5", "10"]


def test_colours_are_the_optimizers_and_decoupled_is_dashed(tmp_path):
    figure = draw(figures.against_weight_decay(six_optimizers()), tmp_path)
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    labels = {name: figures.LABELS[name] for name in SIX}
    assert legend_of(figure) == list(lines) == list(labels.values())
    for name, label in labels.items():
        assert to_hex(lines[label].get_color()) == figures.COLOURS[name].lower()
        assert lines[label].get_linestyle() == ("--" if name.endswith("w") else "-")
    lion = draw(figures.against_weight_decay(six_optimizers().assign(optimizer="lion")), tmp_path)
    assert [line.get_linestyle() for line in lion.axes[0].lines] == ["--"]


def cielab(colour):
    """Where distances are about those that an eye sees; under daylight."""
    linear = [((c + 0.055) / 1.055) ** 2.4 if c > 0.04045 else c / 12.92 for c in to_rgb(colour)]
    rows = (0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505)
    x, y, z = np.cbrt(np.array(rows) @ linear / [0.9505, 1, 1.089])  # none of ours is that dark
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def test_each_optimizer_has_a_name_and_a_colour_of_its_own():
    unmixed = [name for name in optim.OPTIMIZERS if not name.endswith("_mixed")]
    assert list(figures.COLOURS) == list(figures.LABELS) == unmixed
    assert len(set(figures.LABELS.values())) == len(unmixed)
    places = [cielab(colour) for colour in figures.COLOURS.values()]
    assert min(math.dist(*pair) for pair in combinations(places, 2)) > 25
    dashed = {name for name in unmixed if figures.look(name)["linestyle"] == "--"}
    assert dashed == {n for n in unmixed if optim.rule(n).coupled_share == 0}


def test_mixed_optimizers_have_words_and_lines(tmp_path):
    mixed = made_up({"optimizer": "adam_mixed"} | COLLAPSED)
    assert figures.verdict(mixed).startswith("**Adam, mixed collapsed.** Its best run")
    assert figures.caption(mixed).startswith("Adam, mixed, digits, mlp, 200 epochs (n = ")
    both = pd.concat([made_up({"optimizer": "adam"}), mixed])
    figure = draw(figures.against_weight_decay(both), tmp_path)
    assert legend_of(figure) == ["Adam", "Adam, mixed"]


# ------------------------------------------------------------ heat maps


def test_heat_maps_show_the_means_over_learning_rates(runs, tmp_path):
    rows = runs[runs["optimizer"] == "adam"]
    figure = draw(figures.heatmaps(rows, title="maps"), tmp_path)
    assert figure.get_suptitle() == "maps"
    assert [axis.get_title() for axis in figure.axes] == ["NC0", "NC2", "NC3"]
    good = pd.DataFrame(good_rows(rows))
    for axis, metric in zip(figure.axes, ("nc0", "nc2", "nc3"), strict=True):
        shown = np.ma.filled(axis.collections[0].get_array().astype(float), np.nan)
        means = good.pivot_table(metric, "weight_decay", "momentum")
        means = means.reindex(index=[5.0, 0.05, 0.0], columns=[0.0, 0.9])  # the largest on top
        np.testing.assert_allclose(shown, means, rtol=1e-12)
        assert np.isnan(shown).sum() >= 2  # no run of Adam converged at decay 5
        assert labels_of(axis.get_xticklabels()) == ["0", "0.9"]
        assert isinstance(axis.collections[0].norm, LogNorm)
    first, *others = figure.axes
    assert labels_of(first.get_yticklabels()) == ["5", "0.05", "0"]
    assert all(list(axis.get_yticks()) == [] for axis in others)


def test_cells_have_two_digits_and_those_without_a_run_are_empty_and_grey(tmp_path):
    runs = made_up(
        *({"nc0": 0.001, "lr": 0.1}, {"nc0": 0.0014, "lr": 0.2}, {"nc0": 9, "train_acc": 0.1}),
        {"nc0": 1.5e-4, "momentum": 0.5},
        {"nc0": 7.0, "weight_decay": 1.0, "train_acc": 0.1},
        {"nc0": 12.3, "weight_decay": 1.0, "momentum": 0.5},
    )
    axis = draw(figures.heatmaps(runs, ["nc0"]), tmp_path).axes[0]
    assert list(filter(None, labels_of(axis.texts))) == ["12", "1.5e-4", "0.0012"]
    empty = np.ma.getmaskarray(axis.collections[0].get_array())
    assert empty.tolist() == [[False, True], [False, False]]
    red, green, blue, _ = to_rgba(axis.get_facecolor())
    assert red == green == blue < 1


def test_a_metric_of_exactly_zero_can_be_drawn(tmp_path):
    """On a logarithmic scale: strong decay takes NC0 below the least float32."""
    runs = made_up({"nc0": 0.5}, {"nc0": 0.0, "weight_decay": 1.0})
    draw(figures.heatmaps(runs), tmp_path)
    draw(figures.against_weight_decay(runs), tmp_path)


# ------------------------------------------------------------ over the epochs


def quantiles(history, column, hue, value, q=0.5):
    return history[history[hue] == value].groupby("epoch")[column].quantile(q)


def test_lines_over_epochs_are_medians_and_bands_quartiles(history, tmp_path):
    figure = draw(figures.over_epochs(history, title="epochs"), tmp_path)
    assert figure.get_suptitle() == "epochs"
    assert [axis.get_ylabel() for axis in figure.axes] == ["NC0", "NC1", "NC2", "NC3"]
    assert legend_of(figure) == ["0", "0.05", "5"]
    assert figure.legends[0].get_title().get_text() == "weight decay"
    for axis, metric in zip(figure.axes, ("nc0", "nc1", "nc2", "nc3"), strict=True):
        for line, band, decay in zip(axis.lines, axis.collections, DECAYS, strict=True):
            low, middle, high = (
                quantiles(history, metric, "weight_decay", decay, q) for q in (0.25, 0.5, 0.75)
            )
            assert list(line.get_xdata()) == list(middle.index) == [0, 1, 2, 3, 5]
            assert list(line.get_ydata()) == pytest.approx(list(middle))
            for edge, wanted in zip(edges_of(band), (low, high), strict=True):
                assert list(edge) == pytest.approx(list(wanted))
    axis = figure.axes[-1]
    assert axis.get_xlim() == (0, 5)
    assert labels_of(axis.get_xticklabels()) == ["0", "1", "5"]
    assert (axis.get_xlabel(), axis.get_yscale()) == ("epoch", "log")


def test_lines_can_be_optimizers(history, tmp_path):
    figure = draw(figures.over_epochs(history, ["nc3", "nc4"], hue="optimizer"), tmp_path)
    assert legend_of(figure) == ["Adam", "AdamW"]
    for line, name in zip(figure.axes[0].lines, ("adam", "adamw"), strict=True):
        assert to_hex(line.get_color()) == figures.COLOURS[name].lower()
        middle = quantiles(history, "nc3", "optimizer", name)
        assert list(line.get_ydata()) == pytest.approx(list(middle))


def test_singular_values_of_w_and_m(history, tmp_path):
    figure = draw(figures.over_epochs(history, "wm", title="spectra"), tmp_path)
    w_axis, m_axis = figure.axes
    assert [axis.get_ylabel() for axis in figure.axes] == [f"singular values of {x}" for x in "WM"]
    solid = [line for line in w_axis.lines if line.get_linestyle() == "-"]
    dotted = [line for line in w_axis.lines if line.get_linestyle() == ":"]
    drawn = {"w_sv_mean": solid, "m_sv_mean": m_axis.lines, "w_sv_min": dotted}
    for column, lines in drawn.items():
        for line, decay in zip(lines, DECAYS, strict=True):
            middle = quantiles(history, column, "weight_decay", decay)
            assert list(line.get_ydata()) == pytest.approx(list(middle))
    for line, below in zip(solid, dotted, strict=True):
        assert line.get_color() == below.get_color()
    assert legend_of(figure) == ["0", "0.05", "5"]
    (one,) = draw(figures.over_epochs(history, "m"), tmp_path).axes
    assert one.get_ylabel() == "singular values of M"


# ------------------------------------------------------------ all figures


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("name", ["against_weight_decay", "heatmaps", "over_epochs"])
def test_any_number_of_metrics_makes_as_many_panels(frame, name, count, tmp_path):
    figure = draw(getattr(figures, name)(frame(name), metrics=METRICS[:count]), tmp_path)
    assert len(figure.axes) == count
    assert all(axis.has_data() for axis in figure.axes)


@pytest.mark.parametrize("name", [*OF_RUNS, *OF_HISTORY])
def test_frames_and_settings_stay_and_figures_are_closed(frame, name, tmp_path):
    """A figure left open would be shown twice by a notebook: as the cell's result, and again. A
    legend covers no panel."""
    rows = frame(name)
    before, look = rows.copy(), dict(mpl.rcParams)
    figure = getattr(figures, name)(rows)
    pd.testing.assert_frame_equal(rows, before)
    assert dict(mpl.rcParams) == look
    assert plt.get_fignums() == []
    draw(figure, tmp_path)
    for legend in figure.legends:
        box = legend.get_window_extent()
        assert not any(axis.get_window_extent().overlaps(box) for axis in figure.axes)


@pytest.mark.parametrize("name", [*OF_RUNS, *OF_HISTORY])
def test_figures_of_little_or_nothing(frame, name, tmp_path):
    """No rows at all; no run that converged; runs that were all lost in the first epoch."""
    rows = frame(name)
    none = getattr(figures, name)(rows[:0], title="nothing")
    none.savefig(tmp_path / "figure.png")
    assert none.get_suptitle() == "nothing"
    if name in OF_HISTORY:
        draw(getattr(figures, name)(rows[rows["epoch"] == 0]), tmp_path)
        return
    rows = rows.assign(train_acc=0.5)
    figure = draw(getattr(figures, name)(rows, title=figures.caption(rows)), tmp_path)
    assert "(n = 0 of 13)" in figure.get_suptitle()
    assert not any(axis.lines for axis in figure.axes)


def test_the_style_can_be_used(runs, tmp_path):
    with mpl.rc_context():
        figures.use_style()
        draw(figures.against_weight_decay(runs), tmp_path)
        assert not mpl.rcParams["axes.spines.top"]


@pytest.mark.parametrize("low", [1e-3, 0.65, 3.0])
@pytest.mark.parametrize("span", [1.05, 1.6, 4.0, 30.0])
def test_a_log_axis_has_numbers_however_little_it_spans(low, span):
    _, axis = plt.subplots()
    axis.plot([0, 1], [low, span * low])
    figures.log_values(axis)
    axis.figure.canvas.draw()
    bottom, top = axis.get_ylim()
    ticks = zip(axis.get_yticks(), axis.get_yticklabels(), strict=True)
    shown = [float(label.get_text()) for at, label in ticks if bottom <= at <= top]
    assert len(shown) >= 3
    assert shown == pytest.approx([at for at in axis.get_yticks() if bottom <= at <= top])


# ------------------------------------------------------------ one setting's runs, over their seeds

SHARES = [0.0, 0.5, 1.0]
TOTALS = [0.05, 0.5]
SETTING = dict(dataset="digits", model="mlp", **SMALL)


@pytest.fixture
def mixed(rng):
    """Invented runs of Adam from decoupled to coupled, two totals, three seeds."""
    axes = dict(weight_decays=TOTALS, coupled_shares=SHARES, seeds=(0, 1, 2))
    configs = sweep.grid("adam_mixed", [0.01], [0.9], **axes, **SMALL)
    values = rng.uniform(0.1, 2, size=(len(configs), len(METRICS) + 1))
    rows = [
        dataclasses.asdict(config) | dict(zip([*METRICS, "test_acc"], row, strict=True))
        for config, row in zip(configs, values, strict=True)
    ]
    runs = pd.DataFrame(rows).assign(
        status="ok", train_acc=1.0, **{f"{m}_init": 2.0 for m in METRICS}
    )
    assert len(runs) == 18
    return runs.assign(coupled_decay=runs["coupled_share"] * runs["weight_decay"])


def by_hand(runs, metric, **chosen):
    """Sorted values of a metric in the rows with these settings."""
    rows = runs.to_dict("records")
    return sorted(r[metric] for r in rows if all(r[k] == v for k, v in chosen.items()))


def test_runs_of_a_setting_have_it_and_the_defaults_of_all_else(mixed):
    assert len(figures.of_setting(mixed, **SETTING)) == 18
    assert figures.of_setting(mixed, **SETTING | dict(epochs=6)).empty
    assert figures.of_setting(mixed, **SETTING | dict(batch_size=128)).empty
    for column, other in dict(precision="bfloat16", clip=1.0, augment=True, width=0.5).items():
        changed = mixed.astype({column: object})
        changed.loc[[4, 7], column] = other
        kept = figures.of_setting(changed, **SETTING)
        assert list(kept.index) == [i for i in mixed.index if i not in (4, 7)]
        assert list(figures.of_setting(changed, **SETTING, **{column: other}).index) == [4, 7]
    mixed.loc[3, "lr"] = 0.5  # what is swept may be named, too
    assert list(figures.of_setting(mixed, **SETTING, lr=0.5).index) == [3]
    assert len(figures.of_setting(mixed, **SETTING, lr=0.01, momentum=0.9)) == 17


def test_what_a_config_fills_in_itself_is_no_setting(mixed):
    """Such as the fingerprint of a folder's images, which nobody writes down."""
    images = mixed.assign(dataset="folder:images", data_listing=["a1", "b2"] * 9)
    assert len(figures.of_setting(images, **SETTING | {"dataset": "folder:images"})) == 18


def test_a_null_stands_for_the_default(mixed):
    nulls = mixed.assign(schedule=None)
    assert len(figures.of_setting(nulls, **SETTING)) == 18
    assert figures.of_setting(nulls, **SETTING, schedule="cosine").empty


def test_an_empty_store_has_the_columns_of_a_full_one(mixed, tmp_path):
    none = figures.of_setting(store.load_runs(tmp_path), dataset="digits", model="mlp")
    assert none.empty
    columns = {"coupled_share", "test_acc", *METRICS, *(f"{m}_init" for m in METRICS)}
    assert columns <= set(none.columns) & set(mixed.columns)
    assert figures.over_seeds(none, "weight_decay", "nc0").empty


@pytest.mark.parametrize("model", ["mlp", "vit"])
def test_a_networks_own_schedule_is_the_default(mixed, model):
    own = RunConfig(dataset="mnist", model=model).schedule
    rows = mixed.assign(model=model, schedule=["cosine", "step"] * 9)
    kept = figures.of_setting(rows, dataset="digits", model=model, **SMALL)
    assert list(kept["schedule"]) == [own] * 9


def test_what_is_left_is_the_end_over_the_start(runs):
    left = figures.fraction_of_start(runs, ["nc0", "nc3"])
    for metric in ("nc0", "nc3"):  # NaN where a run diverged
        np.testing.assert_array_equal(left[metric], runs[metric] / runs[f"{metric}_init"])


def test_over_seeds_are_median_least_largest_and_number(mixed):
    table = figures.over_seeds(mixed, ["weight_decay", "coupled_share"], "nc3")
    assert list(table.index) == [(d, s) for d in TOTALS for s in SHARES]
    for (decay, share), row in table.iterrows():
        low, middle, high = by_hand(mixed, "nc3", weight_decay=decay, coupled_share=share)
        assert list(row) == [middle, low, high, 3]
    rows = mixed[mixed["coupled_share"] == 0.5]
    cells = rows.groupby("weight_decay")["nc0"].agg(figures.with_range, digits=".4g")
    for decay, cell in cells.items():
        low, middle, high = by_hand(rows, "nc0", weight_decay=decay)
        assert cell == f"{middle:.4g}\n{low:.4g}…{high:.4g}"


def test_the_median_lies_in_the_seeds_range_as_often_as_is_said():
    """1 - 2^(1 - n) for n = 3, whatever is drawn from; here 20,000 times from a skewed one."""
    values = np.random.default_rng(0).exponential(size=(20_000, 3))
    rows = pd.DataFrame({"trial": np.repeat(range(20_000), 3), "nc0": values.ravel()})
    table = figures.over_seeds(rows, "trial", "nc0")
    covered = ((table["low"] < np.log(2)) & (np.log(2) < table["high"])).mean()
    assert covered == pytest.approx(0.75, abs=0.01)  # three standard errors


def points(line):
    """x and y of a line; NaN where it is broken."""
    return list(zip(line.get_xdata(), line.get_ydata(), strict=True))


def test_lines_against_the_share_are_medians_and_bands_reach_over_the_seeds(mixed, tmp_path):
    panels = ("nc0", "nc2", "nc3", "test_acc")
    one = mixed[mixed["weight_decay"] == 0.5]
    figure = draw(figures.against(one, "coupled_share", panels, title="a walk"), tmp_path)
    assert figure.get_suptitle() == "a walk"
    assert legend_of(figure) == ["Adam, mixed"]
    ends = ["NC0 at the end", "NC2 at the end", "NC3 at the end", "test accuracy at the end"]
    assert [axis.get_ylabel() for axis in figure.axes] == ends
    for axis, metric in zip(figure.axes, panels, strict=True):
        assert axis.get_xscale() == "linear"
        assert axis.get_yscale() == ("linear" if metric == "test_acc" else "log")
        low, middle, high = zip(
            *(by_hand(one, metric, coupled_share=share) for share in SHARES), strict=True
        )
        (line,), (band,) = axis.lines, axis.collections
        assert points(line) == list(zip(SHARES, middle, strict=True))
        assert to_hex(line.get_color()) == figures.COLOURS["adam"].lower()
        assert [list(edge) for edge in edges_of(band)] == [pytest.approx(low), pytest.approx(high)]
    assert figure.axes[-1].yaxis.get_major_formatter()(0.5).endswith("%")


def test_lines_can_be_values_of_a_number(mixed, tmp_path):
    before = mixed.copy()
    title = "Adam (n = 18)"
    drawn = figures.against(mixed, "coupled_share", hue="weight_decay", title=title)
    figure = draw(drawn, tmp_path)
    assert legend_of(figure) == ["0.05", "0.5"]
    assert figure.legends[0].get_title().get_text() == "weight decay"
    for line, decay in zip(figure.axes[0].lines, TOTALS, strict=True):
        values = [by_hand(mixed, "nc0", weight_decay=decay, coupled_share=s)[1] for s in SHARES]
        assert points(line) == list(zip(SHARES, values, strict=True))
    assert figure.get_label() == (
        "Adam (n = 18). NC0, NC3 at the end against the coupled share, one line for each weight "
        "decay: 0.05, 0.5."
    )
    pd.testing.assert_frame_equal(mixed, before)
    assert plt.get_fignums() == []


def test_no_coupled_decay_stands_alone_left_of_the_least(mixed, tmp_path):
    figure = draw(figures.against(mixed, "coupled_decay", ["nc0"], hue="weight_decay"), tmp_path)
    (axis,) = figure.axes
    assert axis.get_xscale() == "log"
    assert labels_of(axis.get_xticklabels()) == ["0", "0.1"]
    for line, decay in zip(axis.lines, TOTALS, strict=True):
        values = [by_hand(mixed, "nc0", weight_decay=decay, coupled_share=s)[1] for s in SHARES]
        zero, gap, *rest = points(line)
        assert zero == (pytest.approx(0.0025), values[0])  # a decade below 0.5 * 0.05
        assert np.isnan(gap[1])
        assert rest == list(zip([decay / 2, decay], values[1:], strict=True))


def test_against_weight_decay_zero_has_its_place_and_the_line_goes_on(runs, tmp_path):
    figure = draw(figures.against(figures.converged(runs), "weight_decay", ["nc3"]), tmp_path)
    assert legend_of(figure) == ["Adam", "AdamW"]
    adam, adamw = figure.axes[0].lines
    assert (adam.get_linestyle(), adamw.get_linestyle()) == ("-", "--")
    assert list(adamw.get_xdata()) == pytest.approx([0.005, 0.05, 5.0])
    assert not np.isnan(adamw.get_ydata()).any()


# ------------------------------------------------------------ the exact law, scatters


@pytest.fixture(scope="module")
def sgd_runs(tmp_path_factory):
    """SGD, SGDW and their mixture, with decay that shows within 50 steps; a batch is left over."""
    folder = tmp_path_factory.mktemp("sgd")
    shared = dict(momenta=[0.0, 0.9], weight_decays=[0.0, 0.5], seeds=(0, 1), **SMALL)
    shared["batch_size"] = 24  # 200 = 8 x 24 + 8: nine steps an epoch
    configs = [c for name in ("sgd", "sgdw") for c in sweep.grid(name, [0.05], **shared)]
    configs += sweep.grid("sgd_mixed", [0.05], coupled_shares=[0.5], **shared)
    configs += sweep.grid("sgd", [0.05], schedule="cosine", **shared)
    configs += sweep.grid("sgdw", [0.05], schedule="constant", **shared)
    sweep.run(configs, folder, workers=1, progress=False)
    runs = store.load_runs(folder)
    assert len(runs) == 40
    assert set(runs["status"]) == {"ok"}
    return runs


@pytest.fixture
def sgd(sgd_runs):
    return sgd_runs.copy()


def test_the_exact_law_of_rows_is_what_training_leaves(sgd):
    left = figures.exact_law(sgd)
    assert left.min() < 0.6  # the decay shows
    # float32 over 45 steps, 24 bits each
    np.testing.assert_allclose(sgd["nc0"] / sgd["nc0_init"], left, rtol=3e-5)


@pytest.mark.parametrize("name", ["digits", "gaussians"])
def test_the_exact_law_knows_how_many_images_a_whole_data_set_has(sgd, name):
    whole = sgd.assign(dataset=name, train_size=np.nan)
    left = figures.exact_law(whole)
    assert left.notna().all()
    assert left.equals(figures.exact_law(whole.assign(train_size=len(data.load(name).train_y))))


def test_the_exact_law_is_silent_where_it_does_not_hold(sgd):
    sgd.loc[1, "optimizer"] = "adam"
    sgd["clip"] = [np.nan] * 2 + [1.0] + [np.nan] * 37
    sgd.loc[3, ["train_size", "dataset"]] = pd.NA, "folder:somewhere"
    assert list(sgd.index[figures.exact_law(sgd).isna()]) == [1, 2, 3]


def test_the_exact_law_of_no_runs(sgd, tmp_path):
    assert figures.exact_law(sgd.iloc[:0]).empty
    empty = store.load_runs(tmp_path)
    assert figures.exact_law(figures.of_setting(empty, dataset="digits", model="mlp")).empty
    assert figures.exact_law(empty).empty


@pytest.mark.parametrize("name", ["digits", "ufm"])
def test_the_numbers_of_training_images_are_those_of_the_data(name):
    assert len(data.load(name).train_y) == figures.selecting.TRAINING_IMAGES[name]


def test_parity_has_a_dot_a_run_at_its_prediction(sgd, tmp_path):
    sgd.loc[sgd.index[:3], "model"] = "resnet9"
    figure = draw(figures.parity(sgd, "All"), tmp_path)
    dots = np.concatenate([dot.get_offsets() for dot in figure.axes[0].collections])
    assert len(dots) == 40
    np.testing.assert_allclose(dots[:, 0], dots[:, 1], rtol=3e-5)
    assert sorted(legend_of(figure)) == ["SGD, mixed, mlp", "SGD, mlp", "SGD, resnet9", "SGDW, mlp"]
    assert "All" in figure.get_label()


def test_parity_leaves_out_what_rounding_decides(sgd, tmp_path):
    sgd.loc[0, ["weight_decay", "lr"]] = 0.99, 0.9
    sgd.loc[1, "optimizer"] = "signum"
    assert figures.exact_law(sgd)[0] < figures.LAW_FROM
    (axis,) = draw(figures.parity(sgd), tmp_path).axes
    assert sum(len(dot.get_offsets()) for dot in axis.collections) == 38


FEW = {"dataset": "digits", "model": "mlp", "epochs": 3, "train_size": 200, "batch_size": 100}
HEADS = [  # and by which factor a step multiplies NC0's row sum, if the law holds
    ({"optimizer": "adamw", "head_optimizer": "sgdw", "head_lr": 0.1, "head_weight_decay": 0.5}, 1),
    ({"optimizer": "adam", "lr": 0.1, "weight_decay": 0.5, "centred_head": True}, 0),
    ({"optimizer": "adamw", "lr": 0.1, "weight_decay": 0.5, "centred_head": True}, 1),
    ({"optimizer": "muonw", "lr": 0.1, "weight_decay": 0.5}, 1),
    ({"optimizer": "muon", "lr": 0.1, "weight_decay": 0.5}, None),
    ({"optimizer": "sgdw", "head_optimizer": "adamw"}, None),
]


@pytest.mark.parametrize(("given", "decays"), HEADS)
def test_the_exact_law_is_the_last_layers(given, decays):
    config = RunConfig(**FEW | {"schedule": "constant"} | given)
    left = figures.exact_law(pd.DataFrame([dataclasses.asdict(config)]).assign(clip=np.nan))
    if decays is None:
        assert left.isna().all()
    else:
        assert left.item() == pytest.approx((1 - 0.05) ** (6 * decays))


def formats():
    """MuonW in three formats of its products, and AdamW, for which there is no law."""
    numbers = [{"precision": "float64"}, {}, {"update_precision": "bfloat16"}]
    rows = [{"optimizer": "muonw", "lr": 0.1, "weight_decay": 0.5} | n for n in numbers]
    rows = [FEW | {"precision": "float32", "update_precision": None} | row for row in rows]
    return made_up(*rows, rows[1] | {"optimizer": "adamw"}).assign(clip=np.nan, coupled_share=0.0)


def test_parity_by_format_has_a_panel_a_format(tmp_path):
    runs = formats().assign(nc0_init=2.0, nc0=[1.5, 1e-20, 0.5, 1.0])
    assert figures.products(runs).tolist() == ["float64", "float32", "bfloat16", "float32"]
    figure = draw(figures.parity_by_format(runs, "Law"), tmp_path)
    assert [axis.get_title() for axis in figure.axes] == [
        f"{kind} (n = 1)" for kind in ("float64", "float32", "bfloat16")
    ]
    law = figures.exact_law(runs)
    for axis, x, y in zip(figure.axes, law, [0.75, 1e-12, 0.25], strict=False):
        (dots,) = axis.collections
        np.testing.assert_allclose(dots.get_offsets(), [[x, y]])
    assert legend_of(figure) == ["MuonW"]


def test_uniform_runs_have_one_optimizer():
    runs = made_up({}, {"head_optimizer": "adam"}, {"centred_head": True}, {"centred_head": False})
    assert figures.uniform(runs).index.tolist() == [0, 3]
    assert len(figures.uniform(made_up({}, {}))) == 2
    assert figures.head_optimizer(runs).tolist() == ["sgd", "adam", "sgd", "sgd"]


def test_raw_and_centred_stand_in_one_row_a_panel_a_network(tmp_path):
    rows = [
        {"optimizer": name, "network": network, "nc3": raw, "nc3_centred": centred}
        | {"gauge_share": share}
        for name, raw, centred, share in (
            ("adam", 0.2, 0.1, np.nan),  # stored before the gauge was
            ("adamw", 0.5, 0.1, 0.41),
            ("adamw", 0.7, 0.3, 0.43),
        )
        for network in ("A", "B")
    ]
    figure = draw(figures.raw_and_centred(made_up(*rows), "network", ["adamw", "adam"]), tmp_path)
    assert [axis.get_title() for axis in figure.axes] == ["A", "B"]
    first, axis = figure.axes
    assert labels_of(first.get_yticklabels()) == ["AdamW", "Adam"]
    (adamw, adam) = axis.lines
    np.testing.assert_allclose(adamw.get_xdata(), [0.6, 0.2])
    np.testing.assert_allclose(adam.get_xdata(), [0.2, 0.1])
    assert legend_of(figure) == ["NC3", "NC3, centred W"]
    assert [words.get_text() for words in axis.texts] == ["42%", "gauge"]


def test_raw_and_centred_wraps_its_panels(tmp_path):
    row = {"optimizer": "adam", "nc3": 0.2, "nc3_centred": 0.1, "gauge_share": 0.5}
    rows = [row | {"network": name} for name in "ABCDE"]
    figure = draw(figures.raw_and_centred(made_up(*rows), "network", ["adam"]), tmp_path)
    assert [axis.get_title() for axis in figure.axes if axis.get_visible()] == list("ABCDE")
    assert len({axis.get_position().y0 for axis in figure.axes}) == 2


def test_small_multiples_have_a_row_a_setting_and_one_legend(runs, tmp_path):
    both = pd.concat([runs.assign(setting=name) for name in ("one", "another")])
    figure = draw(figures.against_by_setting(both, "setting"), tmp_path)
    assert [axis.get_title() for axis in figure.axes] == ["one", "one", "another", "another"]
    assert [axis.get_ylabel() for axis in figure.axes] == ["NC0", "NC3"] * 2
    assert [bool(axis.get_xlabel()) for axis in figure.axes] == [False, False, True, True]
    assert len(legend_of(figure)) == runs["optimizer"].nunique()


def test_labels_of_decays_do_not_touch(runs, tmp_path):
    rows = pd.concat([runs[:1].assign(weight_decay=d) for d in (0, 1e-5, 0.05, 0.5, 1, 2)])
    figure = draw(figures.against(rows, "weight_decay", ["nc0"]), tmp_path)
    labels = labels_of(figure.axes[0].get_xticklabels())
    assert labels == ["0", "1e-05", "0.05", "0.5", "", "2"]


def test_maps_show_the_median_of_each_pair(tmp_path):
    rows = [
        {"hidden": hidden, "last": last, "nc3": nc3}
        for hidden, last, nc3 in (("A", "A", 0.1), ("A", "B", 0.2), ("A", "B", 0.4), ("B", "B", 1))
    ]
    figure = draw(figures.pair_map(made_up(*rows), ["A", "B"], "nc3", "NC3"), tmp_path)
    (axis,) = figure.axes
    assert figure.get_suptitle() == "NC3"
    assert {cell.get_text() for cell in axis.texts} - {""} == {"0.1", "0.3", "1"}


def test_scatters_have_a_dot_a_run_and_the_line_of_least_squares(runs, tmp_path):
    good = figures.converged(runs)
    figure = draw(figures.scatters(good, "nc1", "nc3", "T"), tmp_path)
    (axis,) = figure.axes
    dots = np.concatenate([dot.get_offsets() for dot in axis.collections])
    assert sorted(map(tuple, dots)) == sorted(zip(good["nc1"], good["nc3"], strict=True))
    (line,) = axis.get_lines()
    slope, intercept = np.polyfit(np.log10(good["nc1"]), good["nc3"], 1)
    np.testing.assert_allclose(line.get_ydata(), slope * np.log10(line.get_xdata()) + intercept)
    r2 = np.corrcoef(np.log10(good["nc1"]), good["nc3"])[0, 1] ** 2
    assert axis.get_title() == f"n = {len(good)}, R² = {r2:.2f}"
    assert (axis.get_xscale(), axis.get_yscale()) == ("log", "linear")
    assert legend_of(figure) == ["Adam", "AdamW"]
    assert figure.get_label().startswith("T. NC3 against NC1: dots")
    dead = good.iloc[:1].assign(nc3=np.nan)
    with_dead = draw(figures.scatters(pd.concat([good, dead]), "nc1", "nc3"), tmp_path)
    assert with_dead.axes[0].get_title() == axis.get_title()
    few = draw(figures.scatters(runs.iloc[:2]), tmp_path)
    assert [axis.get_title() for axis in few.axes] == ["n = 2"]
    assert not few.axes[0].get_lines()


# ------------------------------------------------------------ what a page shows


@pytest.fixture
def displayed(monkeypatch):
    shown = []
    monkeypatch.setattr(figures.display, "display", shown.append)
    return shown


def test_given_runs_every_show_is_displayed(mixed, displayed):
    table = figures.shown(mixed[["nc0"]])
    figures.show_if_any(mixed, "a line", lambda rows: f"**{len(rows)}** runs", lambda _: table)
    words, styled = displayed
    assert isinstance(words, Markdown)
    assert words.data == "**18** runs"
    assert styled is table


@pytest.mark.parametrize("line", ["papermill a.ipynb b.ipynb\n", ""])
def test_given_no_runs_a_sentence_and_the_line_that_trains_them(mixed, displayed, line):
    figures.show_if_any(mixed[:0], line, pytest.fail)
    (words,) = displayed
    code = f" To train them:\n\n```bash\n{line.strip()}\n```" if line else ""
    sentence = "The store has no such runs yet, so there is nothing to show here."
    assert words.data == sentence + code


@pytest.mark.parametrize("stored", [True, False])
def test_lines_stand_below_a_figure_or_in_its_place(mixed, displayed, stored):
    runs = mixed if stored else mixed[:0]
    figures.with_lines(runs, "\na line\n", lambda rows: f"{len(rows)} runs")
    words, lines = (output.data for output in displayed)
    assert words.startswith("18 runs" if stored else "The store has no such runs yet")
    title = "<summary>The lines that train it</summary>"
    assert lines == f"<details>{title}\n\n```bash\na line\n```\n\n</details>"


@pytest.mark.parametrize(
    ("label", "words"), [("", "a &quot;title&quot;"), ("circles & lines", "circles &amp; lines")]
)
def test_figures_have_alternative_text_and_their_colours(runs, displayed, label, words):
    def draw_one(rows):
        figure = figures.against_weight_decay(rows, title='a "title"')
        figure.set_label(label)
        return figure

    figures.show_if_any(runs, "", draw_one)
    (page,) = displayed
    assert isinstance(page, HTML)
    assert re.search(f'<img alt="{words}[^"]*" src="data:image/png;base64,', page.data)
    code = base64.b64decode(page.data.split("base64,")[1].split('"')[0])
    shown = plt.imread(io.BytesIO(code), format="png")[..., :3]
    for optimizer in runs["optimizer"].unique():  # the palette keeps the lines' colours
        colour = np.array(to_rgba(figures.look(optimizer)["color"])[:3])
        assert np.abs(shown - colour).max(axis=-1).min() < 0.02
    assert plt.get_fignums() == []


def test_figures_side_by_side_keep_their_words(runs):
    maps = [figures.heatmaps(runs, [metric], title=f"map of {metric}") for metric in METRICS[:2]]
    page = figures.side_by_side(*maps).data
    assert page.count("<img ") == 2
    assert [f'alt="map of {metric}' in page for metric in METRICS[:2]] == [True, True]
    assert "auto-fit" in page  # columns as the page has room for


def test_panels_in_rows_are_closed_and_have_their_own_legends():
    named, plain = figures.small_panels(2, height=3)
    named.plot([1, 2], label="law")
    named.set(xlabel="step", ylabel="NC0")
    plain.set(xlabel="epoch")
    page = figures.in_rows(named, plain).data
    assert page.count("<img ") == 2
    assert 'alt="NC0 against step: law"' in page
    assert 'alt="epoch"' in page
    assert [len(axis.figure.legends) for axis in (named, plain)] == [1, 0]
    assert not {named.figure.number, plain.figure.number} & set(plt.get_fignums())
