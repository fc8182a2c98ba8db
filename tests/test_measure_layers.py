"""Every layer's metrics: measured while members train, stored with their run, loaded again."""

import dataclasses
import math
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import noticed
from sweeps import rows_in_files, small_grid, stored_files
from test_store import zero_before_footer

from ncbook import metrics, models, store, sweep
from ncbook.cli import blocks
from ncbook.measure import measure as measure_any
from ncbook.store import tables
from ncbook.train import RunConfig, loop, measure, train_members
from ncbook.train.step import member

SMALL = dict(train_size=100, batch_size=50, epochs=2)
NETWORKS = [
    dict(model="mlp", depth=5),
    dict(model="mlp", depth=3, precision="float64"),
    dict(model="resnet9", width=1 / 32),
    dict(model="vgg9", width=1 / 32),
    dict(model="vit", width=1 / 8, depth=2),
]
LAYER = ["position", "layer", "width", *metrics.LAYER_KEYS]
LOST = dict(lr=1e30, momentum=0.9, weight_decay=0.5)  # overflows at once


def config(**changes):
    return RunConfig(**(SMALL | dict(optimizer="sgd", lr=0.05) | changes))


def trained(configs, **options):
    return train_members(configs, sweep.load_data(configs[0]), compiled=False, **options)


def run(configs, results, **options):
    options = dict(workers=1, progress=False, measure_layers=True) | options
    return sweep.run(configs, results, **options)


# ------------------------------------------------------------ while members train


@pytest.mark.parametrize("network", NETWORKS, ids=str)
def test_layers_are_those_of_the_networks_own_measurement(network):
    """The same as ``ncbook.measure`` finds for a module with the member's trained tensors."""
    configs = [config(**network, momentum=m) for m in (0.0, 0.9)]
    dataset = sweep.load_data(configs[0])
    chunk = loop._Chunk(configs, dataset, compiled=False)
    chunk.measure_layers(0)
    chunk.train_epoch(0)
    chunk.measure_layers(1)
    net = loop.initial_network(configs[0], dataset).to(chunk.members.dtype)
    samples = [
        (measure.network_input(dataset, x, chunk.members.dtype), y)
        for x, y in ((dataset.train_x, dataset.train_y), (dataset.test_x, dataset.test_y))
    ]
    for i in range(2):
        tensors = member(chunk.members.params | chunk.members.buffers, i)
        net.load_state_dict({k: t.detach() for k, t in tensors.items()})
        found = measure_any(net, samples[0], test_data=samples[1], batch_size=64, progress=False)
        ours = pd.DataFrame(chunk.layers[i]).query("epoch == 1").reset_index()
        pd.testing.assert_frame_equal(ours[LAYER], found.layers[LAYER], rtol=1e-4, atol=1e-6)
        assert len(ours) == len(chunk.names) > 2


def test_the_last_row_is_what_the_history_has():
    configs = [config(lr=lr, depth=4) for lr in (0.01, 0.1)]
    runs, history = trained(configs, measure_layers=True)
    for i, record in enumerate(runs):
        rows = [row for row in history if row["member"] == i]
        last = [row for row in record["layers"] if row["position"] == record["measured_layers"]]
        assert [row["epoch"] for row in last] == [row["epoch"] for row in rows] == [0, 1, 2]
        for ours, row in zip(last, rows, strict=True):
            assert ours["layer"] == "input of fc"
            for key in ("nc1", "nc2", "nc2n", "nc2a", "cdnv"):
                assert ours[key] == pytest.approx(row[key], rel=1e-5)


@pytest.mark.parametrize("network", [NETWORKS[0], NETWORKS[2]], ids=str)
def test_layers_are_the_same_to_the_bit_alone_and_in_a_chunk(network):
    configs = [config(**network, momentum=m) for m in (0.0, 0.5, 0.9)]
    together, _ = trained(configs, measure_layers=True)
    for one, c in zip(together, configs, strict=True):
        (alone,), _ = trained([c], measure_layers=True)
        assert alone["layers"] == one["layers"]


@pytest.mark.parametrize("model", ["mlp", "vgg9"])
def test_measuring_layers_changes_no_other_number(model):
    configs = [config(model=model, width=1 / 16, momentum=m) for m in (0.0, 0.9)]
    runs, history = trained(configs, measure_layers=True)
    plain, same = trained(configs)
    assert history == same
    own = {"layers", "measured_layers"}
    for record, other in zip(runs, plain, strict=True):
        assert record.keys() - other.keys() == own
        but = {*own, "wall_time_s"}
        assert {k: v for k, v in record.items() if k not in but} == {
            k: v for k, v in other.items() if k not in but
        }


def test_a_diverged_member_has_the_layers_before_that():
    runs, _ = trained([config(), config(**LOST)], measure_layers=True)
    assert [record["status"] for record in runs] == ["ok", "diverged"]
    assert [{row["epoch"] for row in record["layers"]} for record in runs] == [{0, 1, 2}, {0}]


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0, 1e30])
def test_a_member_whose_features_are_no_numbers_gives_nan_and_no_error(value):
    c = config(depth=4)
    dataset = sweep.load_data(c)
    net = loop.initial_network(c, dataset)
    names = measure.layer_names(net, dataset)
    params = {k: p.detach() for k, p in net.named_parameters()}
    params["body.4.weight"] = torch.full_like(params["body.4.weight"], value)
    rows = measure.layer_records(net, dataset, params, dict(net.named_buffers()), names)
    assert [row["layer"] for row in rows] == ["body.3", "body.6", "body.9", "input of fc"]
    assert all(math.isfinite(rows[0][key]) for key in metrics.LAYER_KEYS)
    assert value == 1e30 or math.isnan(rows[1]["effective_rank"])


def test_free_features_have_one_layer():
    c = RunConfig(dataset="ufm", model="ufm", optimizer="sgd", epochs=1, batch_size=50)
    (record,), _ = trained([c], measure_layers=True)
    assert {row["layer"] for row in record["layers"]} == {"input of fc"}


# ------------------------------------------------------------ the store


def records(name, epochs=(0, 5), layers=3, **more):
    """A run with three layers: some records, and what the store has made of them."""
    one = dict(run_id=name, dataset="digits", optimizer="sgd", lr=0.1, seed=0, status="ok")
    rows = [
        dict(run_id=name, epoch=e, position=p, layer=f"body.{p}", width=8 * p, nc1=e + p / 10)
        for e in epochs
        for p in range(1, layers + 1)
    ]
    history = [dict(run_id=name, epoch=e, nc1=0.5) for e in epochs]
    return [one | dict(measured_layers=layers) | more], history, rows


def write(results, *names, **more):
    for name in names:
        store.write(results, *records(name, **more))


def test_the_layers_columns_are_those_that_are_measured():
    assert set(tables.OF_LAYER) == set(metrics.LAYER_KEYS)


def test_layers_are_read_as_they_were_written(tmp_path):
    store.write(tmp_path, [dict(run_id="bare", status="ok")], [dict(run_id="bare", epoch=0)])
    write(tmp_path, "b", "a", optimizer="adam")
    layers = store.load_layers(tmp_path)
    first = ["run_id", *store.SETTINGS, "epoch", "position", "layer", "width", *metrics.LAYER_KEYS]
    assert list(layers) == first
    points = layers[["run_id", "epoch", "position"]].itertuples(index=False, name=None)
    assert list(points) == [(i, e, p) for i in "ab" for e in (0, 5) for p in (1, 2, 3)]
    assert (layers["nc1"] == layers["epoch"] + layers["position"] / 10).all()
    assert (layers["layer"] == "body." + layers["position"].astype(str)).all()
    assert set(layers["optimizer"]) == {"adam"}
    assert layers[["nc2", "test_ncm_acc"]].isna().all(axis=None)
    assert len(store.load_history(tmp_path)) == 5
    assert "layers" not in store.load_runs(tmp_path)
    assert list(store.load_runs(tmp_path)["measured_layers"].dropna()) == [3, 3]


@pytest.mark.parametrize("folder", ["", "missing"])
def test_a_store_without_layers_has_an_empty_frame(tmp_path, folder):
    store.write(tmp_path, [dict(run_id="bare", status="ok")], [dict(run_id="bare", epoch=0)])
    layers = store.load_layers(tmp_path / folder)
    assert len(layers) == 0
    assert {"run_id", *store.SETTINGS, *LAYER, "epoch"} == set(layers)
    assert len(store.load_layers(tmp_path / folder, epoch=5, layer="body.1", optimizer="sgd")) == 0


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        (dict(optimizer="adam"), 6),
        (dict(optimizer="adam", epoch=5), 3),
        (dict(epoch=[0, 5], position=2), 4),
        (dict(layer="body.1", lr=None), 4),
        (dict(run_id="b", layer=["body.1", "body.3"]), 4),
        (dict(epoch=7), 0),
    ],
)
def test_filters_choose_runs_and_layers(tmp_path, filters, count):
    write(tmp_path, "a", optimizer="adam")
    write(tmp_path, "b")
    assert len(store.load_layers(tmp_path, **filters)) == count


@pytest.mark.parametrize(
    ("filters", "named"),
    [
        (dict(leyer="x"), r"no column 'leyer'.* position, layer, effective_rank, train_ncm"),
        (dict(epoch="x"), "column 'epoch'"),
    ],
)
def test_filters_that_cannot_be(tmp_path, filters, named):
    write(tmp_path, "a")
    with pytest.raises(ValueError, match=named):
        store.load_layers(tmp_path, **filters)


def test_compaction_keeps_layers(tmp_path):
    write(tmp_path, *"abcd")
    store.write(tmp_path, [dict(run_id="bare", status="ok")])
    loads = store.load_layers, store.load_history, store.load_runs
    before = [load(tmp_path) for load in loads]
    assert store.compact(tmp_path, at_least=2) == 5
    for load, frame in zip(loads, before, strict=True):
        pd.testing.assert_frame_equal(load(tmp_path), frame)
    assert store.compact(tmp_path, at_least=1) == 0


@pytest.mark.parametrize("layers_first", [True, False])
@pytest.mark.parametrize("compact", [True, False])
def test_of_a_run_that_is_stored_twice_the_row_with_layers_counts(tmp_path, layers_first, compact):
    bare = dict(run_id="a", status="ok", measured_layers=None), dict(run_id="other", status="ok")
    for with_layers in (layers_first, not layers_first):
        if with_layers:
            write(tmp_path, "a")
        else:
            store.write(tmp_path, bare, [dict(run_id="a", epoch=e) for e in (0, 1, 2)])
    if compact:
        store.compact(tmp_path, at_least=2)
    assert len(store.load_runs(tmp_path)) == 2
    assert len(store.load_layers(tmp_path)) == 6
    assert list(store.load_history(tmp_path)["epoch"]) == [0, 5]
    assert store.statuses(tmp_path) == {"a": "ok", "other": "ok"}
    assert store.statuses(tmp_path, layers=True) == {"a": "ok"}


def test_a_run_that_failed_with_its_layers_is_not_tried_again(tmp_path):
    """It was given up for what it does to its worker; one that ended well still counts for more."""
    store.write(tmp_path, [dict(run_id="a", status="ok")])
    store.write(tmp_path, [dict(run_id="a", status="failed", reason="lost")])
    assert store.statuses(tmp_path, layers=True) == {"a": "failed"}
    assert store.statuses(tmp_path) == {"a": "ok"}


def test_a_file_with_damaged_layers_is_set_aside(tmp_path):
    """Its runs and its epochs can still be read: the layers are the last before the footer."""
    write(tmp_path, "a", "b")
    damaged = stored_files(tmp_path)[0]
    damaged.write_bytes(zero_before_footer(damaged.read_bytes(), 40))
    copy = shutil.copytree(tmp_path, tmp_path / "copy")
    assert len(tables.read(damaged)) == 1
    assert len(tables.read_nested(damaged, tables.HISTORY)) == 2
    with noticed("damaged, its runs are left out"):
        assert len(store.load_layers(tmp_path)) == 6
    with noticed("damaged, not compacted"):
        assert store.compact(copy, at_least=2) == 0
    with noticed("set aside"):
        assert len(store.set_aside_damaged(tmp_path)) == 1
    assert len(store.statuses(tmp_path)) == 1


# ------------------------------------------------------------ a sweep


def test_a_sweep_stores_what_training_measures(tmp_path):
    configs = small_grid(lrs=[0.01], decays=[0.0])
    run(configs, tmp_path, log_epochs=[])
    runs, _ = train_members(
        configs, sweep.load_data(configs[0]), log_epochs=[], measure_layers=True
    )
    for c, record in zip(configs, runs, strict=True):
        stored = store.load_layers(tmp_path, run_id=sweep.run_id(c))
        expected = pd.DataFrame(record["layers"])
        pd.testing.assert_frame_equal(stored[expected.columns], expected, check_dtype=False)
        assert set(stored["epoch"]) == {0, 2}
    assert set(store.load_runs(tmp_path)["measured_layers"]) == {3}


def test_a_run_that_is_stored_without_layers_is_trained_again_with_them(tmp_path):
    configs = small_grid()
    assert run(configs[:3], tmp_path, measure_layers=False).trained.total() == 3
    assert len(store.load_layers(tmp_path)) == 0
    before = store.load_runs(tmp_path)
    assert sweep.missing(configs, tmp_path, measure_layers=True) == configs
    assert run(configs[:2], tmp_path).trained == {"ok": 2}
    assert run(configs[:2], tmp_path).trained == {}
    assert run(configs[:3], tmp_path, measure_layers=False).trained == {}
    assert sweep.missing(configs[:3], tmp_path, measure_layers=True) == configs[2:3]
    wanted = {sweep.run_id(c) for c in configs[:2]}
    assert set(store.load_layers(tmp_path)["run_id"]) == wanted
    after = store.load_runs(tmp_path)
    keep = [c for c in before if c not in ("wall_time_s", "created_at", "measured_layers")]
    pd.testing.assert_frame_equal(after[keep], before[keep], rtol=1e-9)
    assert set(rows_in_files(tmp_path)) == set(before["run_id"])


def test_a_stopped_sweep_with_layers_goes_on(tmp_path):
    configs = small_grid()
    run(configs[:2], tmp_path)
    assert run(configs, tmp_path, workers=2).trained.total() == len(configs) - 2
    sizes = store.load_layers(tmp_path).groupby("run_id").size()
    assert set(sizes) == {3 * 3}
    assert len(sizes) == len(configs)


def test_the_parameter_reaches_the_request(tmp_path):
    given = dict(optimizer="sgd", lrs=0.01, momenta=0.9, weight_decays=0, device="cpu")
    given |= SMALL | dict(results=str(tmp_path / "new"))
    for value, meant in ((None, False), ("", False), ("true", True), (True, True)):
        assert sweep.check(given | dict(measure_layers=value)).measure_layers is meant
    asked = sweep.check(given | dict(measure_layers=True))
    run(asked.configs, asked.results, measure_layers=False)
    assert "- to train: 1, about" in sweep.describe(asked)
    run(asked.configs, asked.results)
    assert sweep.describe(asked).endswith("none, all of them are in the store")
    layers = sweep.load_runs(asked, store.load_layers)
    assert list(layers["position"]) == [1, 2, 3] * 3


def test_the_command_line_wants_runs_with_their_layers(tmp_path):
    options = dict.fromkeys(sweep.PARAMETERS) | dict(optimizer="sgd", lrs="0.01", momenta="0.9")
    options |= dict(weight_decays="0", train_size="100", batch_size="50", epochs="2")
    options |= dict(results=str(tmp_path), device="cpu")
    plain, layered = (blocks.read(options | dict(measure_layers=m)) for m in (False, True))
    (block,) = layered.blocks
    configs = list(block.runs.values())
    run(configs, tmp_path, measure_layers=False)
    assert (plain.todo(), layered.todo()) == ({}, {block: configs})
    assert (len(plain.statuses(block)), len(layered.statuses(block))) == (1, 0)
    assert sweep.read(block.parameters).measure_layers
    run(configs, tmp_path)
    assert layered.todo() == {}


def test_streamed_images_are_refused_before_any_work(tmp_path):
    config_of = dataclasses.replace(config(), dataset="digits")
    streamed = object.__new__(RunConfig)
    for name, value in vars(config_of).items():
        object.__setattr__(streamed, name, value)
    object.__setattr__(streamed, "dataset", "imagenet:/images")
    said = r"^measure_layers: imagenet:/images is streamed; its layers cannot be measured$"
    with pytest.raises(ValueError, match=said):
        run([config_of, streamed], tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_widths_are_the_networks_own():
    c = config(model="vgg9", width=1 / 32)
    (record,), _ = trained([c], measure_layers=True, log_epochs=[])
    net = models.build("vgg9", width=1 / 32)  # the last convolution is flattened: fc's input
    channels = [m.out_channels for m in net.body if isinstance(m, torch.nn.Conv2d)][:-1]
    last = [row["width"] for row in record["layers"] if row["epoch"] == 2]
    assert last == [*channels, net.fc.in_features]
    assert np.isfinite([row["effective_rank"] for row in record["layers"]]).all()
