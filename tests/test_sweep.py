"""Grids, chunks, resumable runs, and the checking of a request before any work."""

import dataclasses
import itertools
import platform
import re
import subprocess
from collections import Counter
from functools import cache
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import noticed
from hypothesis import given, settings
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell
from sweeps import SMALL, assert_tidy, small_grid, stored_files, write_images
from traitlets.config import Config

from ncbook import data, metrics, store, sweep, train
from ncbook.cli import stored
from ncbook.parameters import BY_NAME, FIELDS
from ncbook.sweep import engine, machine
from ncbook.train import RunConfig, train_members

PUBLISHED = Path(__file__).parents[1] / "book" / "results"
DECAYS = (0.0, 5e-5, 5e-4, 5e-3, 0.05, 0.5)
LARGE_DECAYS = (0.0, 5e-4, 0.05, 0.5, 5.0, 10.0)
PAPER = {  # the table of grids: learning rates, weight decays
    "sgd": ((0.001, 0.01, 0.0679), DECAYS),
    "sgdw": ((0.001, 0.01, 0.0679), DECAYS),
    "adam": ((0.001, 0.005, 0.01), DECAYS),
    "signum": ((0.001, 0.005, 0.01), DECAYS),
    "adamw": ((0.001, 0.005, 0.01), LARGE_DECAYS),
    "signumw": ((0.001, 0.005, 0.01), LARGE_DECAYS),
}


def run(configs, results, **options):
    return sweep.run(configs, results, **(dict(workers=1, progress=False) | options))


def files_of(folder):
    return sorted(str(p.relative_to(folder)) for p in Path(folder).rglob("*"))


@pytest.fixture
def no_training(monkeypatch):
    """To train is a failure."""
    monkeypatch.setattr(train, "train_members", lambda *a, **k: pytest.fail("it trained"))


# ------------------------------------------------------------ grids


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_grid(name):
    lrs, decays = PAPER[name]
    momenta = (0.0, 0.5, 0.7, 0.9, 0.95, 0.98)
    configs = sweep.grid(name)
    assert len(configs) == len(set(configs)) == 108
    points = {(c.lr, c.momentum, c.weight_decay) for c in configs}
    assert points == set(itertools.product(lrs, momenta, decays))
    shared = {(c.optimizer, c.dataset, c.model, c.epochs, c.batch_size, c.seed) for c in configs}
    assert shared == {(name, "digits", "mlp", 200, 128, 0)}
    assert sweep.GRIDS[name] == sweep.Grid(lrs, momenta, decays)
    assert set(sweep.GRIDS) == set(PAPER)


def test_axes_and_shared_fields_of_a_grid_are_as_asked():
    configs = sweep.grid("adam", [0.1], [0.5, 0.9], [0, 1], seeds=[3, 4], epochs=7, width=0.5)
    points = [(c.seed, c.lr, c.weight_decay, c.momentum) for c in configs]
    assert sorted(points) == sorted(itertools.product([3, 4], [0.1], [0, 1], [0.5, 0.9]))
    assert {(c.optimizer, c.epochs, c.width) for c in configs} == {("adam", 7, 0.5)}


@pytest.mark.parametrize("axis", ["lrs", "momenta", "weight_decays", "seeds"])
def test_an_empty_axis_takes_the_papers_values_and_another_stays(axis):
    given_axes = dict(lrs=[0.1], momenta=[0.5], weight_decays=[0.2], seeds=[1])
    configs = sweep.grid("sgd", **(given_axes | {axis: []}))
    paper = dict(lrs=3, momenta=6, weight_decays=6, seeds=1)
    assert len(configs) == paper[axis]


def test_a_grid_removes_duplicates_and_refuses_what_cannot_be():
    assert len(sweep.grid("sgd", [0.1, 0.1], [0.9, 0.90], [0, 0.0], seeds=[0, 0])) == 1
    with pytest.raises(ValueError, match=r"^unknown optimizer 'adma'; valid: sgd, sgdw, adam, ad"):
        sweep.grid("adma")
    with pytest.raises(ValueError, match=r"^momentum must be a number in \[0, 1\), got 1.0$"):
        sweep.grid("sgd", momenta=[0.5, 1.0])


# ------------------------------------------------------------ chunks


@settings(deadline=None, max_examples=80)
@given(
    counts=st.lists(st.integers(1, 40), min_size=1, max_size=3),
    workers=st.integers(1, 5),
    size=st.integers(1, 12),
    shuffle=st.randoms(use_true_random=False),
)
def test_chunks_hold_every_config_once_and_are_as_equal_as_can_be(counts, workers, size, shuffle):
    """Groups of ``counts`` configs, each group with a seed of its own, in any order."""
    configs = [
        RunConfig(lr=0.001 * (i + 1), seed=seed)
        for seed, count in enumerate(counts)
        for i in range(count)
    ]
    shuffle.shuffle(configs)
    parts = sweep.chunks(configs, workers, size)
    assert Counter(c for part in parts for c in part) == Counter(configs)
    sizes = {seed: [len(p) for p in parts if p[0].seed == seed] for seed in range(len(counts))}
    for seed, count in enumerate(counts):
        assert max(sizes[seed]) - min(sizes[seed]) <= 1
        assert max(sizes[seed]) <= size
        # As many chunks as keep all workers busy, and no more than that.
        rounds = -(-count // (workers * size))
        assert len(sizes[seed]) == min(count, rounds * workers)
    assert all(len({c.seed for c in part}) == 1 for part in parts)


def test_only_configs_of_one_direction_share_a_chunk():
    configs = [c for name in PAPER for c in sweep.grid(name, [0.01], [0.9], [0.1])]
    groups = [{c.optimizer for c in part} for part in sweep.chunks(configs, workers=1)]
    assert groups == [{"sgd", "sgdw"}, {"adam", "adamw"}, {"signum", "signumw"}]
    whole = sweep.chunks(sweep.grid("adamw"), workers=2)
    assert [len(part) for part in whole] == [9] * 12
    assert sweep.chunks([]) == []


# ------------------------------------------------------------ ids


MUONS = dict(vector_lr=0.2, update_precision="float64")
HEADS = dict(head_optimizer="sgdw", head_lr=0.2, head_momentum=0.1, head_weight_decay=0.2)


def test_the_id_of_a_run_is_that_of_its_whole_config():
    assert sweep.run_id(RunConfig()) == sweep.run_id(RunConfig(lr=0.01)) == "f05d7ee71a83256a"
    changed = dict(dataset="gaussians", optimizer="sgdw", lr=0.02, momentum=0.5, weight_decay=0.1)
    changed |= dict(seed=1, epochs=3, batch_size=64, train_size=500, width=0.5, clip=1.0, depth=2)
    changed |= dict(precision="float64", schedule="cosine", centred_head=True)
    others = [RunConfig(**{field: value}) for field, value in changed.items()]
    share = [RunConfig(optimizer="sgd_mixed", coupled_share=s) for s in (0.25, 0.5)]
    model = [RunConfig(dataset="ufm", model="ufm")]
    images = [RunConfig(dataset="cifar10", augment=augment) for augment in (False, True)]
    muon = [RunConfig(optimizer="muon", **{k: v}) for k, v in MUONS.items()]
    head = [RunConfig(**{"head_optimizer": "adam"} | {k: v}) for k, v in HEADS.items()]
    configs = [RunConfig(), *others, *share, *model, *images, *muon, *head]
    assert len({sweep.run_id(c) for c in configs}) == len(configs)
    others = {"model", "coupled_share", "augment", "data_listing", "class_file", *MUONS, *HEADS}
    assert set(FIELDS) == {*changed, *others}  # a new field wants a row here


def test_published_runs_keep_their_ids(tmp_path, monkeypatch):
    """Fields that came later are not part of the id of a run that leaves them as they were, nor is
    where a data set's folder lies."""
    runs = store.load_runs(PUBLISHED)
    monkeypatch.setenv("NCBOOK_DATA", str(tmp_path))
    monkeypatch.setattr(data, "validate_name", cache(data.validate_name))  # looks for folders
    for name in runs.loc[runs["dataset"].str.startswith("folder:"), "dataset"].unique():
        for part in ("train", "test"):
            (tmp_path / name.removeprefix("folder:") / part / "a class").mkdir(parents=True)
    fields = [f.name for f in dataclasses.fields(RunConfig) if f.name in runs]
    for row in runs.astype(object).where(runs.notna(), None).to_dict("records"):
        values = {name: row[name] for name in fields if row[name] is not None}
        whole = {name: int(values[name]) for name in ("train_size",) if name in values}
        listing = {"data_listing": row["data_listing"] or ""} if ":" in row["dataset"] else {}
        assert sweep.run_id(RunConfig(**values | whole | listing)) == row["run_id"]


def on_folder(name, **changes):
    return RunConfig(dataset=f"folder:{name}", epochs=1, batch_size=10, **changes)


def test_a_folder_is_one_run_however_it_is_written(tmp_path, monkeypatch):
    write_images(tmp_path / "x")
    (tmp_path / "link").symlink_to("x")
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("NCBOOK_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path / "here")
    from_data = sweep.run_id(on_folder("x"))
    monkeypatch.chdir(tmp_path)
    names = ("x", "x/", "./x", "x//", "../" + tmp_path.name + "/x", tmp_path / "x", "link")
    assert {sweep.run_id(on_folder(name)) for name in names} == {from_data}
    assert {on_folder(name).dataset for name in names[:4]} == {"folder:x"}
    assert from_data != sweep.run_id(on_folder("x", seed=1))


@pytest.mark.parametrize("other", [{"shade": 100}, {"classes": "abcde"}])
def test_other_images_in_a_folder_are_other_runs(tmp_path, monkeypatch, other):
    """Replaced, or those of another project that keeps its results in the same folder."""
    for project, images in (("one", {}), ("two", other)):
        write_images(tmp_path / project / "x", **images)
        monkeypatch.chdir(tmp_path / project)
        assert run([on_folder("x")], tmp_path / "results").trained == {"ok": 1}
        assert run([on_folder("x/")], tmp_path / "results").stored == 1
    runs = store.load_runs(tmp_path / "results")
    assert list(runs["dataset"]) == ["folder:x", "folder:x"]
    assert runs["data_listing"].nunique() == 2


def test_a_folder_of_another_name_is_shown_as_it_was_asked_for(tmp_path, monkeypatch):
    write_images(tmp_path / "x")
    monkeypatch.chdir(tmp_path)
    run([on_folder("x", optimizer="adamw", lr=0.01)], tmp_path / "results")
    asked = dict(dataset=f"folder:{tmp_path}/x", lrs=0.01, momenta=0.9, weight_decays=5e-4)
    request = sweep.read(asked | dict(epochs=1, batch_size=10, results="results", device="cpu"))
    for rows in (sweep.load_runs(request), sweep.load_history(request)):
        assert set(rows["dataset"]) == {asked["dataset"]}


def test_runs_from_before_images_were_recorded_stay_and_are_not_taken_for_these(
    tmp_path, monkeypatch
):
    write_images(tmp_path / "x")
    monkeypatch.chdir(tmp_path)
    old, new = on_folder("x", data_listing=""), on_folder("x")
    run([old], tmp_path)
    store.write(tmp_path, store.load_runs(tmp_path).assign(data_listing=None).to_dict("records"))
    assert run([new], tmp_path).trained == {"ok": 1}
    assert set(store.load_runs(tmp_path)["run_id"]) == {sweep.run_id(old), sweep.run_id(new)}


def test_a_folder_that_changed_since_it_was_asked_for_is_named(tmp_path, no_training):
    config = on_folder(write_images(tmp_path / "x"))
    (tmp_path / "x" / "train" / "cat" / "0.bmp").unlink()
    with pytest.raises(ValueError, match=f"^folder:{tmp_path}/x has changed: files were added"):
        run([config], tmp_path / "results")


def test_a_grid_lists_its_folder_once(tmp_path, monkeypatch):
    listed = []
    fingerprint = data.fingerprint
    monkeypatch.setattr(data, "fingerprint", lambda n: (listed.append(n), fingerprint(n))[1])
    write_images(tmp_path / "x")
    assert len(sweep.grid("sgd", dataset=f"folder:{tmp_path}/x")) == 108
    assert listed == [f"folder:{tmp_path}/x"]


@pytest.mark.parametrize(
    ("other", "loads"),
    [
        ({"seed": 1}, 1),  # without a subset, a seed changes no data
        ({"lr": 0.5, "model": "mlp", "width": 0.5}, 1),
        ({"train_size": 100, "seed": 1}, 2),
        ({"model": "resnet9"}, 2),  # wants 32 x 32
    ],
)
def test_data_are_loaded_again_only_where_they_differ(monkeypatch, other, loads):
    calls = []
    load = data.load
    monkeypatch.setattr(data, "load", lambda *a, **k: (calls.append(a), load(*a, **k))[1])
    engine._load_data.cache_clear()
    for config in (RunConfig(), RunConfig(**other)):
        sweep.load_data(config)
    assert len(calls) == loads


def test_a_folder_that_changed_is_loaded_again(tmp_path):
    folder = write_images(tmp_path / "x")
    first = sweep.load_data(on_folder(folder))
    (folder / "train" / "cat" / "0.bmp").unlink()
    assert len(sweep.load_data(on_folder(folder)).train_y) == len(first.train_y) - 1


# ------------------------------------------------------------ run


def test_run_stores_every_run_and_its_history(tmp_path):
    configs = small_grid()
    report = run(configs, tmp_path, log_epochs=[])
    assert report.stored == 0
    assert report.trained == {"ok": 8}
    assert report.seconds > 0
    runs, history = store.load_runs(tmp_path), store.load_history(tmp_path)
    assert set(runs["run_id"]) == {sweep.run_id(c) for c in configs}
    by_id = {sweep.run_id(c): c for c in configs}
    for row in runs.to_dict("records"):
        fields = dataclasses.asdict(by_id[row["run_id"]])
        assert {k: None if pd.isna(row[k]) else row[k] for k in fields} == fields
    assert runs["nc3"].between(0, 2).all()
    assert (runs["train_size"] == 100).all()
    epochs = history.groupby("run_id")["epoch"].agg(list)
    assert set(epochs.index) == set(runs["run_id"])
    assert epochs.map(lambda e: e == [0, 2]).all()


def test_what_is_stored_is_what_training_returns(tmp_path):
    configs = small_grid()
    run(configs, tmp_path)
    stored = store.load_runs(tmp_path).set_index("run_id")
    with engine._threads("cpu", 1):  # as a sweep trains members together
        records, history = train.train_members(configs, sweep.load_data(configs[0]))
    for c, record in zip(configs, records, strict=True):
        row = stored.loc[sweep.run_id(c)]
        assert [row[k] for k in metrics.KEYS] == [record[k] for k in metrics.KEYS]
    rows = store.load_history(tmp_path, run_id=sweep.run_id(configs[5]))
    assert list(rows["nc1"]) == [row["nc1"] for row in history if row["member"] == 5]


def test_every_row_says_where_it_comes_from(tmp_path):
    run(small_grid()[:1], tmp_path)
    (row,) = store.load_runs(tmp_path).to_dict("records")
    made_with = ("ncbook_version", "torch_version", "python_version", "device", "processor")
    made_with += ("created_at",)
    assert all(isinstance(row[k], str) and row[k] for k in made_with)
    assert row["torch_version"] == torch.__version__
    assert row["device"].startswith("cpu (")
    assert pd.Timestamp(row["created_at"]).tzinfo is not None
    assert row["wall_time_s"] > 0
    if git("rev-parse", "HEAD") is not None:
        assert re.fullmatch(r"[0-9a-f]{40}\+?", row["git_commit"])
        assert git("cat-file", "-t", row["git_commit"].rstrip("+")) == "commit"


def git(*arguments):
    """What git prints in the folder of the code; None if it fails."""
    here = Path(engine.__file__).parent
    done = subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else None


def test_what_is_stored_is_not_trained_again(tmp_path, monkeypatch):
    (first, second), configs = (small_grid(lrs=[lr]) for lr in (0.01, 0.05)), small_grid()
    assert run([], tmp_path).trained == {}
    with pytest.raises(ValueError, match=r"workers .*-1"):
        run(configs, tmp_path, workers=-1)
    assert sweep.missing(configs, tmp_path) == configs
    assert run([*first, first[0]], tmp_path).trained == {"ok": 4}
    assert sweep.missing(configs, tmp_path) == second
    trained = record_training(monkeypatch)
    report = run(configs, tmp_path)
    assert (report.stored, trained) == (4, second)
    assert "Trained 4 runs (4 ok)" in report.text()
    assert "; 4 in the store already." in report.text()
    before = files_of(tmp_path)
    assert engine.Report(0, Counter(ok=1), 2.5).text().startswith("Trained 1 run (1 ok) in ")
    report = run(configs[::-1], tmp_path)
    assert (report.stored, report.trained, trained) == (8, {}, second)
    assert report.text() == "Trained none; 8 in the store already."
    assert files_of(tmp_path) == before


def record_training(monkeypatch, stop_before=None):
    """The configs that are trained from here on; Ctrl-C before chunk number ``stop_before``."""
    trained, number = [], itertools.count()

    def watched(configs, *arguments, **options):
        if next(number) == stop_before:
            raise KeyboardInterrupt
        trained.extend(configs)
        return train_members(configs, *arguments, **options)

    monkeypatch.setattr(train, "train_members", watched)
    return trained


def test_a_stopped_sweep_goes_on_where_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "chunks", lambda configs, workers: sweep.chunks(configs, size=3))
    configs = small_grid()
    first = record_training(monkeypatch, stop_before=1)
    with pytest.raises(KeyboardInterrupt):
        run(configs, tmp_path)
    assert 0 < len(first) < 8
    assert set(store.load_runs(tmp_path)["run_id"]) == {sweep.run_id(c) for c in first}
    second = record_training(monkeypatch)
    report = run(configs, tmp_path)
    assert Counter(first + second) == Counter(configs)
    assert (report.stored, report.trained) == (len(first), {"ok": len(second)})
    assert len(store.load_runs(tmp_path)) == 8


def test_a_chunk_stopped_halfway_leaves_nothing(tmp_path, monkeypatch):
    def stopped(configs, dataset, *, on_epoch, **options):
        def stop(epoch, members):
            raise KeyboardInterrupt

        return train_members(configs, dataset, on_epoch=stop, **options)

    monkeypatch.setattr(train, "train_members", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(small_grid(), tmp_path)
    assert stored_files(tmp_path) == []
    assert_tidy(tmp_path)


def test_seeds_and_optimizers_of_one_call_go_to_their_own_chunks(tmp_path, monkeypatch):
    trained = record_training(monkeypatch)
    configs = [
        *small_grid("adam", lrs=[0.01], momenta=[0.9], seeds=[0, 1]),
        *small_grid("signumw", lrs=[0.001], momenta=[0.9]),
    ]
    assert run(configs, tmp_path).trained == {"ok": 6}
    assert Counter(trained) == Counter(configs)
    starts = store.load_runs(tmp_path).groupby("seed")["nc0_init"].nunique()
    assert starts.to_dict() == {0: 1, 1: 1}


def test_the_progress_bar_goes_to_stdout_and_ends_at_all_runs(tmp_path, capsys):
    run(small_grid(), tmp_path, progress=True)
    shown = capsys.readouterr()
    assert shown.err == ""
    assert "8/8 runs" in shown.out
    run(small_grid(), tmp_path, progress=True)
    assert capsys.readouterr().out == ""


def test_an_estimate_grows_with_the_work():
    few, many = (sweep.estimate_seconds(small_grid(epochs=e), "cpu", 1) for e in (100, 10_000))
    assert 0 < few < many


# ------------------------------------------------------------ a request, as a notebook makes it


def request(tmp_path, **given_parameters):
    return sweep.check({"results": str(tmp_path / "new"), **given_parameters})


@pytest.mark.parametrize("empty", [None, "", "[]", [], ()])
def test_empty_parameters_take_the_papers_values(tmp_path, empty):
    no_list = {name: empty if row.many else None for name, row in BY_NAME.items()}
    asked = request(tmp_path, **(no_list | {"results": tmp_path}))
    assert asked.configs == sweep.grid("adamw")
    assert asked.log_epochs is None
    assert asked.device == ("cuda" if torch.cuda.is_available() else "cpu")


def test_without_results_the_folder_is_the_users_own(tmp_path, monkeypatch):
    monkeypatch.setenv(store.RESULTS_VARIABLE, str(tmp_path / "own"))
    assert sweep.check({"results": ""}).results is None
    assert (tmp_path / "own" / "runs").is_dir()


def test_all_parameters_reach_the_runs(tmp_path):
    given = dict(optimizer="signumw", dataset="gaussians", model="mlp", device="cpu")
    given |= dict(lrs="[1e-3]", momenta=0, weight_decays="0.5", seeds="1, 2", log_epochs="[1, 2]")
    asked = request(tmp_path, epochs="3", batch_size=64.0, train_size=500, **given)
    shared = dict(dataset="gaussians", epochs=3, batch_size=64, train_size=500)
    assert asked.configs == sweep.grid("signumw", [1e-3], [0.0], [0.5], seeds=[1, 2], **shared)
    assert asked.log_epochs == (1, 2)
    assert asked.device == "cpu"
    assert asked.results == str(tmp_path / "new")
    assert (tmp_path / "new").is_dir()


BAD = [  # what Parameter.read and RunConfig refuse is tested with them
    ({"optimizer": "adma"}, "unknown optimizer 'adma'; valid: sgd, sgdw, adam, adamw, signum, sig"),
    ({"optimizer": "adam", "coupled_shares": 0.5}, r"adam has coupled_share 1.0, got 0.5"),
    ({"dataset": "mnits"}, "unknown dataset 'mnits'; valid: digits, gaussians, .*folder:PATH"),
    ({"dataset": "folder:/nowhere"}, "folder:/nowhere: there is no folder '/nowhere'"),
    ({"device": "tpu"}, "unknown device 'tpu'; valid here: cpu"),
    ({"lrs": "0.01, -1e-3"}, "lr must be a finite number > 0, got -0.001"),
    ({"epochs": 2.5}, "epochs must be a whole number of at least 1, got 2.5"),
    ({"width": 3000, "depth": 10**9}, "depth must be at most 1000, got 1000000000"),
    ({"model": "resnet9", "depth": 3}, "the depth of resnet9 is fixed, got 3"),
    ({"augment": True}, "dataset 'digits' cannot be augmented; valid: "),
    ({"model": "resnet9", "dataset": "gaussians"}, "gaussians are vectors, not images"),
    ({"workers": 0}, "workers must be a whole number of at least 1, got 0"),
    ({"train_size": 1401}, "train_size 1401 is too large: .* at most 1400"),
    ({"train_size": 5}, ".*class"),  # 10 classes: five of them without a sample
    ({"train_size": 129}, ".*batch_size"),  # one sample left over: batch norm cannot take it
    ({"log_epochs": [0, 201]}, r"log_epochs must lie in 0\.\.200, got \[201\]"),
    ({"log_epochs": "-1"}, "log_epochs must be a whole number of at least 0, got -1"),
    ({"log_epochs": 3, "epochs": 2}, r"log_epochs must lie in 0\.\.2, got \[3\]"),
]


@pytest.mark.parametrize(("bad", "message"), BAD, ids=[str(bad) for bad, _ in BAD])
def test_a_bad_parameter_is_refused_in_one_line_and_nothing_is_written(tmp_path, bad, message):
    with pytest.raises(sweep.ParameterError, match=f"^{message}") as refused:
        request(tmp_path, **bad)
    assert "\n" not in str(refused.value)
    assert refused.value.__cause__ is None
    assert files_of(tmp_path) == []


def test_results_that_are_a_file_are_refused(tmp_path, no_training):
    file = tmp_path / "results"
    file.write_text("kept")
    with pytest.raises(store.ResultsFolderError, match=r"results cannot be written \(Not a dir"):
        run(small_grid(), file)
    with pytest.raises(
        sweep.ParameterError, match=r"results cannot be written \(Not a directory\)"
    ):
        sweep.check({"results": str(file)})
    with pytest.raises(sweep.ParameterError, match=r"below cannot be written \(Not a directory\)"):
        sweep.check({"results": str(file / "below")})
    assert files_of(tmp_path) == ["results"]
    assert file.read_text() == "kept"


def test_data_that_are_not_to_be_had_are_refused_in_one_line(tmp_path, monkeypatch):
    def no_network(name, root):
        raise data.DataNotFoundError(f"{name} is not in {root} and could not be downloaded there")

    monkeypatch.setenv(data.DATA_VARIABLE, str(tmp_path / "data"))
    monkeypatch.setattr(data.downloads, "_download", no_network)
    with pytest.raises(sweep.ParameterError, match=r"^mnist is not in .*data") as refused:
        request(tmp_path, dataset="mnist")
    assert "\n" not in str(refused.value)
    assert files_of(tmp_path) == []


def test_a_misspelt_parameter_is_found_in_papermills_cell(tmp_path):
    """papermill adds a cell, and IPython keeps its source in the list ``In``."""
    cells = ["", "optimizer = 'adamw'", "# Parameters\noptimzer = 'adam'\nepochs = 3\n"]
    with pytest.raises(sweep.ParameterError) as refused:
        request(tmp_path, In=cells, optimizer="adamw", optimzer="adam", epochs=3)
    valid = ", ".join(sweep.PARAMETERS)
    hint = "(did you mean 'optimizer'?)"
    assert str(refused.value) == f"unknown parameter 'optimzer' {hint}; valid: {valid}"
    assert files_of(tmp_path) == []
    for cell in ("a, b = 1, 2", "%matplotlib inline"):  # a reader's own
        assert request(tmp_path, In=["# Parameters\n" + cell], optimizer="adam").configs
    right = "# Parameters\n" + "".join(f"{name} = []\n" for name in sweep.PARAMETERS)
    cells = ["", "x = 1", right, "y = 2"]
    assert request(tmp_path, In=cells, x=1, y=2, optimizer="adam").configs == sweep.grid("adam")


def test_a_refusal_is_one_line_in_a_notebook(tmp_path, monkeypatch):
    """As IPython shows it: the class and the message, no traceback."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))  # leave the user's history alone
    shell = InteractiveShell(config=Config(HistoryManager={"enabled": False}))
    shown = []
    monkeypatch.setattr(shell, "_showtraceback", lambda kind, value, lines: shown.append(lines))
    shell.user_ns["folder"] = str(tmp_path / "new")
    shell.run_cell("from ncbook import sweep\nsweep.check({'epochs': 0, 'results': folder})")
    shell.restore_sys_module_state()
    assert shown == [["ParameterError: epochs must be a whole number of at least 1, got 0"]]


def test_describe_says_what_will_be_done(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    grid = dict(optimizer="adam", lrs=[0.01, 0.05], momenta=0.9, weight_decays=0)
    asked = request(tmp_path, **grid, **SMALL)
    first, *axes, work = sweep.describe(asked).splitlines()
    assert first == (
        "**2 runs** of adam on digits (mlp), 2 epochs each in batches of 50, stored in "
        "<code>new</code>."
    )
    assert [line for line in axes if line] == [
        "- seeds: 0",
        "- learning rates: 0.01, 0.05",
        "- weight decays: 0",
        "- momenta: 0.9",
        "- size of a class-balanced subset: 100",
    ]
    assert re.fullmatch(r"- to train: 2, about \d+ seconds on \w+ with \d+ workers?", work)
    run(asked.configs[:1], asked.results)
    assert "- to train: 1, about" in sweep.describe(asked)
    run(asked.configs, asked.results)
    assert sweep.describe(asked).endswith("- to train: none, all of them are in the store")


def test_describe_names_the_last_layers_own_optimizer(tmp_path):
    """Whose other numbers cannot be without it."""
    head = dict(head_optimizer="sgd", head_lr=0.1, head_weight_decay=0.05)
    one = dict(optimizer="muonw", lrs=0.02, momenta=0.9, weight_decays=2, vector_lr=0.002)
    words = sweep.describe(sweep.check(one | head | SMALL | dict(results=str(tmp_path))))
    assert "- last layer's optimizer: sgd\n- last layer's learning rate: 0.1\n" in words
    assert "- last layer's weight decay: 0.05\n" in words
    assert "- learning rate of vectors: 0.002\n" in words
    assert "- last layer's momentum: 0.9\n" in words


def test_a_requests_rows_are_its_own(tmp_path):
    asked = request(tmp_path, optimizer="sgd", lrs=0.01, momenta=0.9, weight_decays=0, **SMALL)
    run([*asked.configs, *small_grid("adam", lrs=[0.01])], asked.results, log_epochs=[1])
    assert len(store.load_runs(asked.results)) == 5
    runs, history = sweep.load_runs(asked), sweep.load_history(asked)
    assert list(runs["run_id"]) == [sweep.run_id(c) for c in asked.configs]
    assert list(history["epoch"]) == [0, 1, 2]
    assert set(history["optimizer"]) == {"sgd"}


@pytest.mark.parametrize(
    "model", ["vgg9", *(pytest.param(name, marks=pytest.mark.slow) for name in ("resnet9", "vit"))]
)
def test_networks_for_images_go_through_the_same_sweep(tmp_path, model):
    """Real MNIST where it is at hand, else the digits, made as large as the network wants."""
    there = (data.data_dir() / "MNIST" / "raw" / "train-images-idx3-ubyte").is_file()
    asked = dict(dataset="mnist" if there else "digits", model=model, width="1/32", depth=None)
    asked |= dict(train_size=60, batch_size=20, epochs=2, lrs=0.01, momenta=0.9, weight_decays=5e-4)
    found = request(tmp_path, optimizer="sgd", **asked)
    report = run(found.configs, found.results)
    assert report.trained == {"ok": 1}
    (row,) = sweep.load_runs(found).to_dict("records")
    assert row["model"] == model
    assert 0 < row["nc0"] < 10
    assert list(sweep.load_history(found)["epoch"]) == [0, 1, 2]


# ------------------------------------------------------------ rows and numbers as they are


def test_a_run_whose_row_cannot_be_true_is_trained_again_and_so_said(tmp_path):
    (config, *_) = small_grid()
    run([config], tmp_path)
    (row,) = store.load_runs(tmp_path).to_dict("records")
    (file,) = stored_files(tmp_path)
    file.unlink()
    store.write(tmp_path, [row | {"nc0": -1.0}])  # in its place
    name = sweep.run_id(config)
    said = f"1 run is to be trained again, with nc0 below 0: {name}"
    with noticed(said):
        assert sweep.missing([config], tmp_path) == [config]
    assert sweep.missing(small_grid()[1:2], tmp_path)  # of others, nothing is said
    with noticed(said):
        assert run([config], tmp_path).trained == {"ok": 1}
    with noticed(None):
        assert store.load_runs(tmp_path)["nc0"].tolist() == [row["nc0"]]
        assert run([config], tmp_path).stored == 1


def test_the_largest_seed_is_trained_and_stored_as_it_is(tmp_path):
    (config, *_) = small_grid(seeds=[2**63 - 1])
    run([config], tmp_path)
    assert store.load_runs(tmp_path, seed=2**63 - 1)["seed"].tolist() == [2**63 - 1]
    assert stored.filters({"seeds": str(2**63 - 1)}) == {"seed": [2**63 - 1]}


CPUINFO = {
    "x86": (
        "vendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC\n"
        "stepping\t: 1\n\nvendor_id\t: another\n",
        "AuthenticAMD AMD EPYC (cpu family 25, model 17, stepping 1)",
    ),
    "ARM": (
        "processor\t: 0\nCPU implementer\t: 0x41\nCPU variant\t: 0x1\nCPU part\t: 0xd40\n",
        "0x41 (CPU part 0xd40, CPU variant 0x1)",
    ),
    "nothing": ("", platform.machine()),
}


@pytest.mark.parametrize(("said", "name"), CPUINFO.values(), ids=CPUINFO)
def test_the_processor_is_named(monkeypatch, said, name):
    monkeypatch.setattr(Path, "read_text", lambda *a, **k: said)
    assert machine.processor.__wrapped__() == name
