"""The figures and words of a measured network, and of its layers."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_hex
from torch import nn

from ncbook import data, figures, metrics, models
from ncbook.figures import style
from ncbook.measure import measure

K, EACH = 4, 6
LABELS = torch.arange(K).repeat_interleave(EACH)


@pytest.fixture(scope="module")
def measured():
    """A network of digits with random weights, and test data."""
    torch.manual_seed(4)
    digits, net = data.load("digits", train_size=200), models.build("mlp", width=1 / 4)
    test = digits.test_x, digits.test_y
    return measure(net, (digits.train_x, digits.train_y), test_data=test, progress=False)


def of_head(features, weight):
    """What is measured of a linear layer with this weight, on these features, K classes."""
    net = nn.Sequential(nn.Linear(*reversed(weight.shape), bias=False))
    with torch.no_grad():
        net[0].weight.copy_(weight)
    pair = features.float(), LABELS
    return measure(net, pair, test_data=pair, progress=False)


def collapsed(shift=0.0):
    corners = metrics.simplex_etf(K)
    return of_head(corners[LABELS], 9 * corners + shift)


def curves(axis):
    return [line.get_ydata() for line in axis.get_lines() if len(line.get_ydata())]


# ------------------------------------------------------------ layers


def test_the_layers_values_are_drawn(measured):
    figure = figures.by_layer(measured.layers)
    of_nc1, of_accuracy, of_rank = figure.axes
    rows = measured.layers
    assert of_nc1.get_yscale() == "log"
    for axis, columns in (
        (of_nc1, ["nc1"]),
        (of_accuracy, ["train_ncm_acc", "test_ncm_acc"]),
        (of_rank, ["effective_rank"]),
    ):
        for drawn, column in zip(curves(axis), columns, strict=True):
            assert drawn == pytest.approx(rows[column].to_numpy())
    assert [tick.get_text() for tick in of_rank.get_xticklabels()] == list(rows["layer"])
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["training samples", "test samples"]
    assert "NC1" in figure.get_label()


def test_layers_by_optimizer_have_its_colour_and_seeds_are_a_median_in_a_band(measured):
    factors = {("adam", 0): 1.0, ("adam", 1): 2.0, ("adam", 2): 9.0, ("sgdw", 0): 5.0}
    frames = [
        measured.layers.assign(optimizer=name, seed=seed, nc1=measured.layers["nc1"] * factor)
        for (name, seed), factor in factors.items()
    ]
    figure = figures.by_layer(pd.concat(frames), by="optimizer")
    axis = figure.axes[0]
    by_name = {line.get_label(): line for line in axis.get_lines()}
    assert {name: to_hex(line.get_color()).upper() for name, line in by_name.items()} == {
        style.LABELS[name]: style.COLOURS[name] for name in ("sgdw", "adam")
    }
    assert by_name["Adam"].get_ydata() == pytest.approx(2 * measured.layers["nc1"].to_numpy())
    (band,) = axis.collections  # of Adam: SGDW has one seed
    low, high = band.get_datalim(axis.transData).intervaly
    assert low == pytest.approx(measured.layers["nc1"].min())
    assert high == pytest.approx(9 * measured.layers["nc1"].max())


def test_layers_by_a_number_or_a_name(measured):
    epochs = pd.concat([measured.layers.assign(epoch=epoch) for epoch in (10, 0)])
    (legend,) = figures.by_layer(epochs, by="epoch").legends
    assert [text.get_text() for text in legend.get_texts()][:2] == ["epoch 0", "epoch 10"]
    other = measured.layers.assign(layer=[f"part {i}" for i in measured.layers["position"]])
    both = pd.concat([measured.layers.assign(network="b $ c"), other.assign(network="a")])
    figure = figures.by_layer(both, by="network")
    assert figure.axes[-1].get_xlabel() == "layer, from the input to the last"  # names differ
    assert [text.get_text() for text in figure.legends[0].get_texts()][:2] == ["a", r"b \$ c"]


def test_layers_without_test_data_and_a_layer_without_scatter(measured):
    rows = measured.layers.assign(test_ncm_acc=np.nan)
    rows.loc[0, "nc1"] = 0.0
    figure = figures.by_layer(rows)
    assert figure.legends == []
    assert curves(figure.axes[0])[0] == pytest.approx(rows["nc1"].to_numpy()[1:])
    assert len(curves(figure.axes[1])) == 1


# ------------------------------------------------------------ the last layer


def test_cosines_are_drawn(measured):
    figure = figures.cosines(measured, tuple("0123456789"))
    drawn = [axis.images[0].get_array() for axis in figure.axes[:3]]
    M, W = metrics.centred_means(measured.means), measured.weight.double()
    for found, (left, right) in zip(drawn, ((M, M), (W, W), (W, M)), strict=True):
        theirs = nn.functional.cosine_similarity(left[:, None], right[None], dim=2)
        assert np.asarray(found) == pytest.approx(theirs.numpy(), abs=1e-6)
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == list("0123456789")
    assert len(figures.cosines(measured).axes[0].get_xticks()) == 0


def test_the_spectrum_of_a_collapsed_layer_is_flat_and_then_zero():
    (axis,) = figures.spectrum(collapsed()).axes
    for line in axis.get_lines():
        assert line.get_ydata() == pytest.approx([1, 1, 1, 0], abs=1e-6)
    assert [line.get_label() for line in axis.get_lines()] == ["W", "class means"]


# ------------------------------------------------------------ in words


def test_the_table_has_the_measured_values(measured):
    table = figures.metrics_table(measured).data.set_index("metric")["here"]
    assert table["NC3"] == f"{measured.metrics['nc3']:.3g}"
    assert table["test accuracy"] == f"{measured.metrics['test_acc']:.1%}"
    without = dataclasses.replace(
        measured, metrics={k: v for k, v in measured.metrics.items() if k != "nc4"}
    )
    assert "NC4" not in set(figures.metrics_table(without).data["metric"])


def test_words_on_a_collapsed_network_and_on_one_with_a_gauge_part():
    words = figures.in_words(collapsed())
    assert words.startswith("- **The network collapsed**: NC1 ")
    assert "**NC3 is zero up to rounding**" in words
    assert "**From input of 0 on** (layer 1 of 1) the nearest class mean reaches" in words
    words = figures.in_words(collapsed(shift=3.0))
    assert words.startswith("- **The network collapsed but for its gauge**: NC1 ")
    assert "**100% of NC3² is gauge**" in words


def test_words_on_a_weight_that_looks_elsewhere():
    corners = metrics.simplex_etf(K)
    turned = of_head(corners[LABELS], -corners + 0.1)
    words = figures.in_words(turned)
    assert words.startswith("- **The network did not learn**: NC1 ")
    assert "**The gauge hides a part of NC3**" in words


def test_a_weight_of_zeros_is_reported():
    """Such as the one that torchvision's ViT begins with."""
    zero = of_head(metrics.simplex_etf(K)[LABELS], torch.zeros(K, K))
    assert "**NC3 is not defined**: W or the class means are zero." in figures.in_words(zero)
    assert "nan" not in figures.metrics_table(zero).to_html()
    (axis,) = figures.spectrum(zero).axes
    assert axis.get_lines()[0].get_ydata() == pytest.approx(np.zeros(K))


def test_words_on_the_layers(measured):
    def words(*accuracies):
        rows = measured.layers.assign(test_ncm_acc=accuracies)
        changed = measured.metrics | {"test_acc": 0.9}
        return figures.in_words(dataclasses.replace(measured, layers=rows, metrics=changed))

    name = "body&#46;{}"
    assert f"**From {name.format(6)} on** (layer 2 of 3)" in words(0.5, 0.895, 0.99)
    assert "**From input of fc on** (layer 3 of 3)" in words(0.95, 0.5, 0.9)
    none = words(0.5, 0.7, 0.6)
    assert "**In no layer does the nearest class mean reach the network's test accuracy of" in none
    assert f"it comes closest in {name.format(6)}, with 70.0%" in none
