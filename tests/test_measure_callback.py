"""A callback measures the network that trains, and the training does not notice."""

import json
import random
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import SECONDS
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from ncbook.data import load
from ncbook.measure import NCCallback, measure
from ncbook.metrics import KEYS

EPOCHS = 3
LOSSES = ["train_loss", "train_acc"]
WITHOUT_TEST = [key for key in KEYS if key != "nc4"] + LOSSES


def digits():
    """Training samples, test samples."""
    data = load("digits", train_size=300)
    train = TensorDataset(data.train_x.flatten(1), data.train_y)
    return train, (data.test_x.flatten(1), data.test_y)


@pytest.fixture(scope="module")
def train():
    return digits()[0]


@pytest.fixture(scope="module")
def test():
    return digits()[1]


def network():
    """With what has a mode (dropout, batch normalisation) and draws from the global generator."""
    torch.manual_seed(3)
    first = nn.Linear(64, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Dropout(0.2)
    return nn.Sequential(*first, nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 10))


def fit(loader, callback=None, epochs=EPOCHS):
    """A plain loop: the network, and what the callback returned after each epoch."""
    model, returned = network(), []
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    for epoch in range(epochs + 1):
        for inputs, labels in loader if epoch else ():
            optimizer.zero_grad()
            cross_entropy(model(inputs), labels).backward()
            optimizer.step()
        returned.append(callback and callback(model, epoch))
    return model, returned


def same_weights(model, other):
    state = other.state_dict()
    return all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


class Run:
    """What a W&B run offers of its `log`."""

    def __init__(self):
        self.logged = []

    def log(self, data, step=None):
        self.logged.append((step, data))


def test_a_plain_loop_is_measured(train, test):
    callback = NCCallback(train, test_data=test)
    model, returned = fit(DataLoader(train, 32, shuffle=True), callback)
    assert callback.metrics.columns.tolist() == ["epoch", *returned[0]]
    assert set(returned[0]) == {*KEYS, *LOSSES, "test_loss", "test_acc"}
    assert callback.metrics.drop(columns="epoch").to_dict("records") == returned
    assert callback.metrics.epoch.tolist() == callback.layers.epoch.tolist() == [0, 1, 2, 3]
    assert callback.layers.columns[0] == "epoch"
    assert set(callback.layers.layer) == {"input of 6"}
    assert returned[-1] == measure(model, train, test_data=test, layers=[], progress=False).metrics
    assert returned[-1]["nc1"] < returned[0]["nc1"]
    assert returned[-1]["train_acc"] > returned[0]["train_acc"]


def test_every_and_layers(train):
    callback = NCCallback(train, every=2, layers=None)
    model, returned = fit(DataLoader(train, 32), callback, epochs=5)
    assert [found is not None for found in returned] == [True, False] * 3
    assert callback.metrics.epoch.tolist() == [0, 2, 4]
    assert callback.metrics.columns.tolist() == ["epoch", *WITHOUT_TEST]
    expected = measure(model, train, progress=False).layers
    assert len(expected) > 1
    found = callback.layers.groupby("epoch").layer.apply(list)
    assert found.tolist() == [expected.layer.tolist()] * 3


def test_an_epoch_measured_again_replaces_its_row(train):
    callback = NCCallback(train)
    assert callback.metrics.columns.tolist() == callback.layers.columns.tolist() == ["epoch"]
    for seed in (1, 2):
        torch.manual_seed(seed)
        returned = callback(nn.Linear(64, 10), 7)
    assert callback.metrics.to_dict("records") == [{"epoch": 7, **returned}]
    assert len(callback.layers) == 1
    returned["nc1"] = None  # the caller's own copy
    assert callback.metrics.nc1.notna().all()


def test_the_training_does_not_notice(train):
    """The loader draws from the global generator, and so does dropout."""
    loader = DataLoader(train, 32, shuffle=True)
    callback = NCCallback(DataLoader(train, 64, shuffle=True), test_data=loader, layers=None)
    (model, _), (alone, _) = fit(loader, callback), fit(loader)
    assert len(callback.metrics) == EPOCHS + 1
    assert same_weights(model, alone)
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("owner", ["loader", "sampler", "batch_sampler"])
def test_the_training_loader_may_be_measured(train, owner):
    """Its own generator, which orders the batches, is where it was, too."""

    def loader():
        generator = torch.Generator().manual_seed(5)
        if owner == "loader":
            return DataLoader(train, 32, shuffle=True, generator=generator)
        sampler = RandomSampler(train, generator=generator)
        if owner == "sampler":
            return DataLoader(train, 32, sampler=sampler)
        return DataLoader(train, batch_sampler=BatchSampler(sampler, 32, drop_last=False))

    measured = loader()
    assert same_weights(fit(measured, NCCallback(measured))[0], fit(loader())[0])


def test_generators_of_transforms_are_restored(train):
    class Noisy(torch.utils.data.Dataset):
        def __len__(self):
            return len(train)

        def __getitem__(self, index):
            inputs, label = train[index]
            noise = random.random() + np.random.rand() + torch.rand(()).item()  # noqa: NPY002
            return inputs + 0.01 * noise, label

    def drawn(callback):
        random.seed(1)
        np.random.seed(1)  # noqa: NPY002
        torch.manual_seed(1)
        if callback:
            callback(model, 0)
        return random.random(), np.random.rand(), torch.rand(()).item()  # noqa: NPY002

    model = network()
    assert drawn(NCCallback(Noisy())) == drawn(None)


def test_modes_are_restored(train):
    model = network()
    model[1].eval()  # batch normalisation that a user froze
    modes = [module.training for module in model.modules()]
    NCCallback(train)(model, 0)
    assert [module.training for module in model.modules()] == modes


def test_a_wandb_run(train):
    run = Run()
    _, returned = fit(DataLoader(train, 32), NCCallback(train, every=3, logger=run))
    expected = [(epoch, {f"nc/{k}": v for k, v in returned[epoch].items()}) for epoch in (0, 3)]
    assert run.logged == expected


def events(folder):
    """{tag: {step: value}} of TensorBoard's files."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder)).Reload()
    tags = found.Tags()["scalars"]
    return {tag: {event.step: event.value for event in found.Scalars(tag)} for tag in tags}


def test_tensorboard(train, tmp_path):
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(tmp_path) as writer:
        _, returned = fit(DataLoader(train, 32), NCCallback(train, logger=writer))
    found = events(tmp_path)
    assert set(found) == {f"nc/{name}" for name in WITHOUT_TEST}
    for name in WITHOUT_TEST:
        expected = {epoch: np.float32(metrics[name]) for epoch, metrics in enumerate(returned)}
        assert found[f"nc/{name}"] == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"every": 0}, "every must be a whole number of at least 1, got 0"),
        ({"every": 1.5}, "every must be a whole number of at least 1, got 1.5"),
        ({"data": None}, "data must be a DataLoader, a Dataset, .* got NoneType"),
        ({"test_data": iter([])}, "test_data must be a DataLoader, .* got list_iterator"),
        ({"layers": "body"}, "layers must be a list of names, got 'body'"),
        ({"tokens": "last"}, "tokens must be mean or class, got 'last'"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
        ({"logger": "runs"}, r"logger must have add_scalar\(.*SummaryWriter, or log\(.*got 'runs'"),
    ],
)
def test_bad_settings_are_refused(train, settings, message):
    with pytest.raises(ValueError, match=f"^{message}[^\n]*$"):
        NCCallback(**{"data": train, **settings})


@pytest.mark.parametrize(
    ("model", "epoch"),
    [(nn.Flatten(), 0), (torch.relu, 0), (nn.Linear(64, 10), -1), (nn.Linear(64, 10), 0.5)],
)
def test_what_cannot_be_measured_is_refused(train, model, epoch):
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        NCCallback(train)(model, epoch)


def test_a_setting_that_measure_lacks_is_refused_before_the_training(train):
    with pytest.raises(TypeError, match="unexpected keyword argument 'hed'"):
        NCCallback(train, hed="fc")


def test_an_epoch_may_be_numpys(train):
    callback = NCCallback(train, every=np.int64(2))
    callback(network(), np.int64(2))
    assert callback.metrics["epoch"].tolist() == [2]


def test_only_hooks_are_made_up(train):
    callback = NCCallback(train)
    assert callback.on_train_end() is None
    with pytest.raises(AttributeError, match="'NCCallback' object has no attribute 'onwards'"):
        callback.onwards  # noqa: B018


quiet_lightning = pytest.mark.filterwarnings(
    "ignore:The `srun` command is available on your system but is not used",
    "ignore:The 'train_dataloader' does not have many workers which may be a bottleneck",
    "ignore:GPU available but not used",
    "ignore:`isinstance\\(treespec, LeafSpec\\)` is deprecated, use",
)


def fit_in_lightning(loader, callbacks, folder, *, epochs=EPOCHS, checkpoint=None, **settings):
    """A real Trainer: the network, its trainer."""
    import pytorch_lightning as pl

    class Module(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.network = network()

        def forward(self, inputs):
            return self.network(inputs)

        def training_step(self, batch, _):
            return cross_entropy(self(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1, momentum=0.9)

    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=callbacks,
        log_every_n_steps=1,
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"devices": 1, "logger": False, **settings},
    )
    module = Module()
    trainer.fit(module, loader, ckpt_path=checkpoint)
    return module, trainer


@quiet_lightning
def test_lightning(train, test, tmp_path):
    from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

    run = Run()
    callback = NCCallback(train, test_data=test, logger=run)
    every_layer = NCCallback(train, every=2, layers=None)
    loggers = [CSVLogger(tmp_path, "csv", 0), TensorBoardLogger(tmp_path, "board", 0)]
    loader = DataLoader(train, 32, shuffle=True)
    callbacks = [callback, every_layer]
    module, _ = fit_in_lightning(loader, callbacks, tmp_path, logger=loggers)

    assert callback.metrics.epoch.tolist() == [epoch for epoch, _ in run.logged] == [0, 1, 2, 3]
    assert every_layer.layers.epoch.unique().tolist() == [0, 2]
    assert every_layer.layers.layer.nunique() > 1
    module.train()
    expected = measure(module, train, test_data=test, layers=[], progress=False).metrics
    assert run.logged[-1][1] == {f"nc/{name}": value for name, value in expected.items()}
    alone, _ = fit_in_lightning(loader, [], tmp_path)
    assert same_weights(module, alone)

    written = pd.read_csv(tmp_path / "csv" / "version_0" / "metrics.csv")
    written = written[written["nc/nc4"].notna()]  # the other callback has no test data
    assert written["nc/epoch"].tolist() == [0, 1, 2, 3]
    assert written.step.tolist() == [0, 10, 20, 30]
    assert written["nc/nc1"].tolist() == callback.metrics.nc1.tolist()
    found = events(tmp_path / "board" / "version_0")["nc/nc4"]
    assert list(found) == written.step.tolist()
    assert list(found.values()) == [np.float32(value) for value in callback.metrics.nc4]


@quiet_lightning
def test_lightning_with_persistent_workers(train, tmp_path):
    """The loader that trains is measured while its workers wait for the first epoch."""

    def loader():
        return DataLoader(train, 32, shuffle=True, num_workers=1, persistent_workers=True)

    shared = loader()
    callback = NCCallback(shared)
    module, _ = fit_in_lightning(shared, [callback], tmp_path)
    assert callback.metrics.epoch.tolist() == [0, 1, 2, 3]
    assert same_weights(module, fit_in_lightning(loader(), [], tmp_path)[0])


@quiet_lightning
def test_lightning_resumes(train, tmp_path):
    loader = DataLoader(train, 32)
    _, trainer = fit_in_lightning(loader, [NCCallback(train)], tmp_path, epochs=2)
    trainer.save_checkpoint(tmp_path / "two.ckpt")
    callback = NCCallback(train)
    fit_in_lightning(loader, [callback], tmp_path, checkpoint=tmp_path / "two.ckpt")
    assert callback.metrics.epoch.tolist() == [3]


@quiet_lightning
def test_a_refusal_reaches_the_user_of_lightning(train, tmp_path):
    with pytest.raises(ValueError, match=r"^[^\n]*no_such_layer[^\n]*$"):
        fit_in_lightning(DataLoader(train, 32), [NCCallback(train, head="no_such_layer")], tmp_path)


def test_other_processes_than_the_first_do_not_measure(train):
    callback, model = NCCallback(train), network()
    trainer = SimpleNamespace(is_global_zero=False, global_step=0, current_epoch=0)
    callback.on_train_start(trainer, model)
    callback.on_train_epoch_end(trainer, model)
    state = SimpleNamespace(is_world_process_zero=False, global_step=0, epoch=1.0)
    callback.on_train_begin(None, state, None, model=model)
    callback.on_epoch_end(None, state, None, model=model)
    assert callback.metrics.empty


@pytest.mark.slow
def test_two_processes_of_lightning():
    """Only the first measures, and takes part in no collective call that the other doesn't make."""
    run = subprocess.run(
        [sys.executable, __file__], capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert run.returncode == 0, run.stderr
    lines = [line for line in run.stdout.splitlines() if line.startswith("{")]
    found = {entry.pop("rank"): entry for entry in map(json.loads, lines)}
    assert found == {0: {"epochs": [0, 1, 2], "same": True}, 1: {"epochs": [], "same": True}}


def train_in_two_processes():
    """Lightning starts this file a second time; each of the two says what it saw."""
    train, test = digits()
    callback = NCCallback(train, test_data=test, layers=None)
    loader = DataLoader(train, 32, shuffle=True)
    settings = dict(folder=None, epochs=2, devices=2)
    module, trainer = fit_in_lightning(loader, [callback], **settings)
    same = same_weights(module, fit_in_lightning(loader, [], **settings)[0])
    said = dict(rank=trainer.global_rank, epochs=callback.metrics.epoch.tolist(), same=same)
    print(json.dumps(said) + "\n", end="", flush=True)


class Sentences(torch.utils.data.Dataset):
    """Random token ids; those of a class come from its own ten words."""

    def __init__(self, size=60, classes=3):
        self.labels = torch.arange(size) % classes
        generator = torch.Generator().manual_seed(2)
        self.ids = torch.randint(10, (size, 8), generator=generator) + 10 * self.labels[:, None]

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return {"input_ids": self.ids[index], "labels": self.labels[index]}


def fit_in_transformers(callbacks, folder, resume=None, **settings):
    """A real Trainer of a small BERT: the network, its trainer."""
    from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

    torch.manual_seed(4)
    size = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
    config = BertConfig(vocab_size=30, max_position_embeddings=8, num_labels=3, **size)
    model = BertForSequenceClassification(config)
    settings = {"num_train_epochs": EPOCHS, "save_strategy": "no", **settings}
    settings |= dict(per_device_train_batch_size=10, learning_rate=0.01, use_cpu=True)
    arguments = TrainingArguments(folder, report_to=[], disable_tqdm=True, **settings)
    trainer = Trainer(model, arguments, train_dataset=Sentences(), callbacks=callbacks)
    trainer.train(resume_from_checkpoint=resume)
    return model, trainer


def test_transformers(tmp_path):
    run = Run()
    callback = NCCallback(Sentences(), layers=None, logger=run)
    model, _ = fit_in_transformers([callback], tmp_path)
    assert callback.metrics.epoch.tolist() == [epoch for epoch, _ in run.logged] == [0, 1, 2, 3]
    assert callback.metrics.nc1.iloc[-1] < callback.metrics.nc1.iloc[0]
    assert callback.metrics.train_acc.iloc[-1] > callback.metrics.train_acc.iloc[0]
    assert (callback.layers.groupby("epoch").size() > 1).all()
    expected = measure(model, Sentences(), layers=[], progress=False).metrics
    assert run.logged[-1][1] == {f"nc/{name}": value for name, value in expected.items()}
    assert same_weights(model, fit_in_transformers([], tmp_path)[0])


def test_transformers_stops_and_resumes_within_an_epoch(tmp_path):
    first, second = NCCallback(Sentences()), NCCallback(Sentences())
    saved = dict(save_strategy="steps", save_steps=8)
    fit_in_transformers([first], tmp_path, max_steps=8, **saved)  # of 6 steps an epoch
    assert first.metrics.epoch.tolist() == [0, 1, 2]
    checkpoint = str(tmp_path / "checkpoint-8")
    fit_in_transformers([second], tmp_path, resume=checkpoint, **saved)
    assert second.metrics.epoch.tolist() == [2, 3]


if __name__ == "__main__":
    train_in_two_processes()
