"""A reader's own optimizer, ``MODULE:CLASS``: found, checked, trained with, stored and drawn."""

import dataclasses
import importlib
import os
import subprocess
import sys
import textwrap
import zlib
from pathlib import Path

import pandas as pd
import pytest
import torch
from sweeps import LIGHT, started_scheduler
from test_train import by_member, digits_without_constant_pixels, large_digits, plain_run
from torch import nn

from ncbook import data, figures, models, optim, store, sweep, theory
from ncbook.train import RunConfig, train_members
from ncbook.train.moves import decay_groups

ROOT = Path(__file__).parents[1]
RMSPROP = "torch.optim:RMSprop"
TINY = dict(train_size=200, batch_size=100, epochs=2, width=1 / 8)
# Weight decay that is decoupled, no momentum, and a new tensor in the place of the old one.
SIGN_DESCENT = """
    import torch

    POWER = {power}

    class SignDescent(torch.optim.Optimizer):
        def __init__(self, params, lr, weight_decay=0.0):
            super().__init__(params, dict(lr=lr, weight_decay=weight_decay))

        def step(self):
            for group in self.param_groups:
                for p in group["params"]:
                    kept = 1 - group["lr"] * group["weight_decay"]
                    moved = kept * p.data - group["lr"] * POWER * p.grad.sign()
                    p.data = moved
"""


def write_class(folder, name, power=1.0):
    """A file of this name in the folder, with the class ``SignDescent``."""
    body = textwrap.dedent(SIGN_DESCENT).replace("{power}", repr(power))
    (folder / f"{name}.py").write_text(body, encoding="utf-8")
    return f"{name}:SignDescent"


@pytest.fixture
def mine(tmp_path, monkeypatch, request):
    """The name of a class in a file of the current folder, which no other test imports."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    module = f"mine_{zlib.crc32(request.node.name.encode())}"
    yield write_class(tmp_path, module)
    sys.modules.pop(module, None)


# ------------------------------------------------------------ equal to a plain loop


def rmsprop(params, c):
    return torch.optim.RMSprop(params, c.lr, momentum=c.momentum, weight_decay=c.weight_decay)


def adam(params, c):
    numbers = dict(betas=(c.momentum, 0.999), weight_decay=c.weight_decay)
    return torch.optim.Adam(params, c.lr, **numbers)


def sign_descent(params, c):
    return optim.own.load_class(c.optimizer)(params, lr=c.lr, weight_decay=c.weight_decay)


DOUBLE = dict(precision="float64", epochs=3, batch_size=128, width=1 / 4, seed=3)
NUMBERS = [dict(lr=1e-3, weight_decay=0.05), dict(lr=3e-3, weight_decay=0.0)]


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("name", "make", "settings"),
    [
        (RMSPROP, rmsprop, {"momentum": 0.5}),
        (RMSPROP, rmsprop, {"momentum": 0.0, "clip": 0.5}),
        ("torch.optim:Adam", adam, {"momentum": 0.7}),
        (None, sign_descent, {"momentum": 0.0}),
    ],
)
def test_members_equal_plain_loops_with_the_same_class(mine, name, make, settings, compiled):
    """Also of a class in this folder that puts new tensors in the old ones' place."""
    dataset = digits_without_constant_pixels()
    configs = [RunConfig(optimizer=name or mine, **DOUBLE, **settings, **each) for each in NUMBERS]
    runs, _ = train_members(configs, dataset, log_epochs=[], compiled=compiled)
    for c, record in zip(configs, runs, strict=True):
        alone = plain_run(c, dataset, make)
        # 1e-14 was seen.
        assert {k: record[k] for k in alone} == pytest.approx(alone, rel=1e-8, abs=1e-10)
        assert record["coupled_share"] is None
    assert runs[0]["nc0"] != runs[1]["nc0"]


def test_a_network_for_images_has_contiguous_numbers_for_the_class():
    """Its convolutions' weights are channels last among the members."""
    c = RunConfig(
        optimizer=RMSPROP, model="resnet9", lr=1e-3, momentum=0.5, weight_decay=0.01,
        train_size=40, batch_size=20, epochs=1, width=1 / 16, precision="float64",
    )  # fmt: skip
    (record,), _ = train_members([c], large_digits("float64", 40), log_epochs=[])
    alone = plain_run(c, large_digits("float64", 40), rmsprop)
    # After two steps; a bias before batch norm has a gradient of rounding alone.
    assert record["nc0"] == pytest.approx(alone["nc0"], rel=1e-3)


def test_what_does_not_decay_gets_no_weight_decay():
    """A ViT's LayerNorms and biases."""
    small = dict(train_size=40, batch_size=20, epochs=1, width=1 / 16, depth=1, lr=0.01)
    vits = [
        RunConfig("torch.optim:AdamW", model="vit", weight_decay=d, **small) for d in (0.0, 100.0)
    ]
    (none, some), _ = train_members(vits, large_digits(train_size=40))
    assert some["w_norm"] < 0.5 * none["w_norm"]
    net = models.build("vit", 10, 1, 1 / 16, depth=1, input_shape=(1, 32, 32))
    groups = decay_groups(dict(net.named_parameters()), models.decayed(net))
    groups = optim.own.build("torch.optim:AdamW", groups, 0.01, 0.9, 0.5).param_groups
    assert [group["weight_decay"] for group in groups] == [0.5, 0.0]
    assert {p.dim() for p in groups[1]["params"]} == {1}


def test_a_last_layer_with_an_own_class_and_a_network_with_one():
    """A last layer moved by SGD obeys the exact law, whatever moves the rest; and the other way
    round NC0 is that of torch's class."""
    dataset = data.load("digits", train_size=200)
    shared = TINY | dict(momentum=0.0, precision="float64", batch_size=100)
    head = dict(head_optimizer="sgdw", head_lr=0.05, head_weight_decay=2.0)
    (record,), _ = train_members([RunConfig(RMSPROP, **shared, **head)], dataset)
    law = theory.row_sum_ratio(0.05, 0.0, 2.0, 2, 2, 1.0)
    assert record["nc0"] / record["nc0_init"] == pytest.approx(float(law), rel=1e-9)
    head = dict(head_optimizer="torch.optim:SGD", head_lr=0.05, head_weight_decay=2.0)
    found = [RunConfig("adam", **shared, **head)]
    found += [dataclasses.replace(found[0], head_optimizer="sgd", class_file=None)]
    (theirs,), _ = train_members(found[:1], dataset)
    (ours,), _ = train_members(found[1:], dataset)
    assert theirs["nc0"] == pytest.approx(ours["nc0"], rel=1e-9)
    assert theirs["train_loss"] == pytest.approx(ours["train_loss"], rel=1e-6)


def with_check(mine, condition):
    """The class asserts this before each step."""
    path = Path(f"{mine.partition(':')[0]}.py")
    line = "moved = kept"
    path.write_text(path.read_text().replace(line, f"assert {condition}; {line}"))


@pytest.mark.parametrize("raising", [False, True])
def test_a_member_that_diverges_harms_no_other(mine, raising):
    """Also if the class cannot take gradients that are not finite."""
    if raising:
        with_check(mine, "p.grad.isfinite().all()")
    dataset = data.load("digits", train_size=200)
    shared = TINY | dict(momentum=0.0, weight_decay=0.0)
    good, lost = (RunConfig(mine, lr=lr, **shared) for lr in (0.001, 1e38))
    runs, history = train_members([lost, good], dataset)
    (alone,), _ = train_members([good], dataset)
    assert [run["status"] for run in runs] == ["diverged", "ok"]
    assert runs[0]["diverged_epoch"] == 1
    assert runs[1]["nc3"] == pytest.approx(alone["nc3"], rel=1e-5)
    assert [row["epoch"] for row in by_member(history, 0)] == [0]


def test_a_class_that_cannot_take_a_later_step_is_named(mine):
    with_check(mine, "p.numel() < 9, 'too many'")
    config = RunConfig(mine, lr=0.001, **TINY | dict(momentum=0.0, weight_decay=0.0))
    with pytest.raises(ValueError, match=f"{mine} cannot take a step .AssertionError: too many"):
        train_members([config], data.load("digits", train_size=200))


# ------------------------------------------------------------ what is refused


def test_a_class_that_changes_a_number_format_is_refused(mine):
    path = Path(f"{mine.partition(':')[0]}.py")
    path.write_text(
        path.read_text().replace("moved = kept", "p.data = p.data.double(); moved = kept")
    )
    with pytest.raises(ValueError, match="step\\(\\) changes a parameter's shape or number format"):
        RunConfig(mine, lr=0.001, **TINY | dict(momentum=0.0, weight_decay=0.0))


REFUSED = {
    "nowhere:X": "optimizer 'nowhere:X' cannot be imported (ModuleNotFoundError: No module named",
    "torch.optim:Nobody": "optimizer 'torch.optim:Nobody' is not a class derived from torch.optim",
    "torch.nn:Linear": "optimizer 'torch.nn:Linear' is not a class derived from torch.optim.Opti",
    "__main__:Mine": "optimizer '__main__:Mine' cannot be imported by other processes: write th",
    "ncbook.optim:Optimizer": "ncbook.optim:Optimizer cannot train a matrix and a vector (TypeErr",
    "torch.optim:LBFGS": "torch.optim:LBFGS cannot train a matrix and a vector (TypeError: LBFGS.s",
    "torch.optim:Muon": "torch.optim:Muon cannot train a matrix and a vector (ValueError: Muon onl",
    "torch.optim:": "unknown optimizer 'torch.optim:'; valid: sgd, sgdw, ",
    "a b:C": "unknown optimizer 'a b:C'; valid: sgd, sgdw, ",
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_class_that_cannot_be_used_is_refused_in_one_line(tmp_path, name):
    with pytest.raises(sweep.ParameterError) as error:
        sweep.check({"optimizer": name, "results": str(tmp_path / "new"), "epochs": 1})
    assert str(error.value).startswith(REFUSED[name])
    assert "\n" not in str(error.value)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"momenta": "0, 0.9"}, "takes no momentum: momentum must be 0, got 0.9"),
        ({"coupled_shares": 0.5}, "coupled_share 0.5 is not for "),
        ({"centred_head": True}, "centred_head is not for "),
        ({"vector_lr": 0.1}, "vector_lr 0.1 is not for "),
    ],
)
def test_a_value_that_the_class_does_not_take_is_refused(mine, tmp_path, numbers, message):
    with pytest.raises(sweep.ParameterError, match=message):
        sweep.check({"optimizer": mine, "results": str(tmp_path / "new")} | numbers)


def test_a_decay_that_the_class_does_not_take_is_refused():
    with pytest.raises(ValueError, match=r"^torch.optim:Rprop takes no weight_decay: weight_decay"):
        RunConfig("torch.optim:Rprop", momentum=0.0, weight_decay=0.1)
    assert {c.weight_decay for c in sweep.grid("torch.optim:Rprop")} == {0.0}


def test_a_module_that_fails_says_how(mine, tmp_path):
    (tmp_path / "broken_one.py").write_text("import torch\n1 / 0\n")
    with pytest.raises(ValueError, match=r"cannot be imported \(ZeroDivisionError: division by"):
        sweep.grid("broken_one:X")


# ------------------------------------------------------------ a run and its file


def test_the_grid_has_the_axes_that_the_class_takes(mine):
    own, theirs = sweep.grid(mine), sweep.grid(RMSPROP)
    assert {c.momentum for c in own} == {0.0}
    assert {c.momentum for c in theirs} == {0.9}
    for configs in (own, theirs):
        assert {c.lr for c in configs} == {0.001, 0.005, 0.01}
        assert {c.weight_decay for c in configs} == {0, 5e-4, 5e-3, 0.05, 0.5, 5}


def test_a_changed_file_is_another_run_and_is_read_again(mine, tmp_path, monkeypatch):
    """Also where somebody had imported it before the change."""
    module = mine.partition(":")[0]
    monkeypatch.syspath_prepend(tmp_path)
    assert importlib.import_module(module).POWER == 1.0
    write_class(tmp_path, module, power=2.0)
    c = RunConfig(mine, lr=1.0, momentum=0.0, weight_decay=0.0)
    assert moved_by(mine) == 2.0
    write_class(tmp_path, module, power=3.0)
    assert moved_by(mine) == 3.0
    changed = RunConfig(mine, lr=1.0, momentum=0.0, weight_decay=0.0)
    assert sweep.run_id(changed) != sweep.run_id(c)
    with pytest.raises(
        ValueError, match=f"^the file of {mine} has changed since the run was asked"
    ):
        train_members([c], data.load("digits", train_size=200))
    write_class(tmp_path, module, power=2.0)
    assert RunConfig(mine, lr=1.0, momentum=0.0, weight_decay=0.0) == c


def moved_by(name):
    param = nn.Parameter(torch.zeros(1))
    param.grad = -torch.ones(1)
    optim.own.build(name, [param], 1.0, 0.0, 0.0).step()
    return param.item()


def test_classes_do_not_share_a_chunk(mine):
    names = (mine, "torch.optim:Adagrad", "sgd")
    configs = [RunConfig(name, momentum=0.0, weight_decay=d) for name in names for d in (0.0, 0.1)]
    assert [len(chunk) for chunk in sweep.chunks(configs)] == [2, 2, 2]


# ------------------------------------------------------------ every way in


GRID = dict(lrs="0.001, 0.003", momenta=0, weight_decays=0.5, **TINY)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_sweep_in_this_process_and_in_others(mine, tmp_path, workers):
    """Its runs are stored under the class's name, and drawn with its own colour."""
    request = sweep.check(GRID | dict(optimizer=mine, results=str(tmp_path / "r"), workers=workers))
    assert f"of {mine} on digits" in sweep.describe(request)
    report = sweep.run(request.configs, request.results, workers=workers, progress=False)
    assert dict(report.trained) == {"ok": 2}
    assert sweep.run(request.configs, request.results, progress=False).stored == 2
    runs = store.load_runs(tmp_path / "r", optimizer=mine)
    assert runs["lr"].tolist() == [0.001, 0.003]
    assert runs["coupled_share"].isna().all()
    assert figures.exact_law(runs).isna().all()
    assert len(figures.of_setting(runs, **TINY)) == 2
    axis = figures.against_weight_decay(runs, only_converged=False).axes[0]
    assert [line.get_label() for line in axis.lines] == ["SignDescent"]
    assert figures.caption(runs).startswith("SignDescent, digits, mlp")


def test_a_look_of_its_own():
    looks = [figures.look(name) for name in ("mine:Mine", RMSPROP)]
    assert [look["label"] for look in looks] == ["Mine", "RMSprop"]
    assert {look["linestyle"] for look in looks} == {"-."}
    assert not {look["color"] for look in looks} & set(figures.COLOURS.values())
    assert figures.look(RMSPROP) == looks[1]
    runs = pd.DataFrame({"optimizer": ["b:B", "adam", "<b>:x", "a:A", None]})
    assert [name for name, _ in figures.by_optimizer(runs)] == ["adam", "a:A", "b:B"]


def test_papermill_and_the_command_line(mine, tmp_path):
    """Started in the folder that has the file, as a reader starts them."""
    settings = GRID | dict(optimizer=mine, results="r", workers=2)
    notebook = [str(ROOT / "notebooks" / "sweep.ipynb"), "out.ipynb", "--no-progress-bar"]
    given = [word for name, value in settings.items() for word in ("-p", name, str(value))]
    call("papermill", *notebook, *given)
    assert store.load_runs("r", optimizer=mine)["status"].tolist() == ["ok", "ok"]
    settings |= dict(lrs=0.002, epochs=1, workers=1)
    options = [word for k, v in settings.items() for word in (f"--{k.replace('_', '-')}", str(v))]
    said = call("ncbook.cli", "sweep", *options)
    assert "1 trained, 0 stored already, 0 diverged, 0 failed" in said
    assert len(store.load_runs("r", optimizer=mine, epochs=1)) == 1
    out = call("ncbook.cli", "export", "all", "--optimizer", mine, "--results", "r")
    assert out.startswith("3 runs in all.parquet")


def call(module, *words):
    """What a program says, started in the current folder; the folder is not among Python's paths,
    as with an installed command."""
    start = f"import sys, runpy; sys.path.remove(''); sys.argv[1:] = {list(words)!r}; "
    start += f"runpy.run_module({module!r}, run_name='__main__')"
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    env = os.environ | LIGHT | {"PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", start], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_workers_of_a_scheduler_started_elsewhere(mine, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with started_scheduler(1) as (address, _):
        monkeypatch.chdir(tmp_path)
        request = sweep.check(GRID | dict(optimizer=mine, results="r", scheduler=address))
        assert "to train: 2" in sweep.describe(request)
        sweep.run(request.configs, "r", scheduler=address, progress=False)
    assert store.load_runs("r")["status"].tolist() == ["ok", "ok"]
