"""Neural collapse measured while a network trains: in a loop, Lightning or transformers."""

import contextlib
import copy
import logging
import math
import random
from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.utils.data import DataLoader

from ncbook.measure.batches import loader_of
from ncbook.measure.measuring import measure
from ncbook.parameters import check_whole

PREFIX = "nc/"  # of the names in a logger
LIGHTNING_METHODS = ("setup", "teardown", "state_dict", "load_state_dict")


class NCCallback:
    """Measure a network every few epochs of its training, with `measure`.

    Epoch e is the state after e epochs, 0 the one before training. An epoch is measured if it is a
    multiple of ``every``. Three ways to use it, each with one callback a run::

        callback(model, epoch)  # in a loop of your own: returns the metrics, or None
        lightning.Trainer(callbacks=[callback], ...)  # also pytorch_lightning's
        transformers.Trainer(callbacks=[callback], ...)

    Both trainers also measure epoch 0, unless they resume; an epoch that is cut short counts as
    one. Lightning's loggers get every value at the trainer's own step, next to ``nc/epoch``.

    The training stays as it is without the callback, bit for bit: modes and the states of the
    random number generators are restored (of torch on the CPU and the model's GPUs, NumPy, Python,
    a loader and its sampler).

    In distributed training each trainer's global rank 0 measures, on all of ``data``, and the other
    processes wait for it at their next exchange of gradients: its time must stay below the
    timeout of their process group. Nothing is exchanged meanwhile, so rank 0 needs the whole
    network: weights in shards (FSDP, ZeRO stage 3) can't be measured. In a loop of your own, call
    it in one process.

    Args:
        data, test_data, head, layers, tokens, batch_size: as of `measure`; but ``layers=()``, the
            default, measures the head's input alone, which is cheap.
        every: epochs from one measurement to the next, >= 1.
        logger: TensorBoard's SummaryWriter, or any object with ``add_scalar(name, value, step)``;
            or a W&B run, or any with ``log(values, step=step)``. It gets ``nc/NAME`` of every
            metric, with the epoch as step. (W&B drops a step below its latest one: pass it the
            epoch as step in your own calls, too.)

    Attributes:
        metrics: frame, one row a measured epoch: ``epoch``, then the metrics of `measure`.
        layers: frame, one row an epoch and layer: ``epoch``, then the columns of `measure`.

    An epoch that is measured again replaces its row. Checkpoints don't hold the frames.

    Raises:
        ValueError: data, ``every`` or a logger that can't be used; when it measures, as `measure`.
    """

    def __init__(
        self,
        data,
        *,
        every: int = 1,
        test_data=None,
        head: str | nn.Module | None = None,
        layers: list[str] | tuple[str, ...] | None = (),
        tokens: str = "mean",
        batch_size: int = 256,
        logger=None,
    ) -> None:
        check_whole("every", every, 1)
        _check_logger(logger)
        self.every, self._logger = every, logger
        given = dict(data=data) if test_data is None else dict(data=data, test_data=test_data)
        self._loaders = {
            name: _with_own_workers(loader_of(name, samples, batch_size))
            for name, samples in given.items()
        }
        self._settings = dict(head=head, layers=layers, tokens=tokens, batch_size=batch_size)
        self._metrics, self._layers = {}, {}  # of each epoch

    def __call__(self, model: nn.Module, epoch: int) -> dict[str, float] | None:
        """Measure the model after this many epochs, if it is their turn: the metrics, or None."""
        check_whole("epoch", epoch, 0)
        if epoch % self.every:
            return None
        with _random_numbers_kept(model, *self._loaders.values()):
            measured = measure(model, **self._loaders, **self._settings, progress=False)
        self._metrics[epoch], self._layers[epoch] = measured.metrics, measured.layers
        if self._logger is not None:
            _log(self._logger, _named(measured.metrics), epoch)
        return dict(measured.metrics)

    @property
    def metrics(self) -> pd.DataFrame:
        """One row a measured epoch."""
        rows = [{"epoch": epoch, **metrics} for epoch, metrics in sorted(self._metrics.items())]
        return pd.DataFrame(rows, columns=None if rows else ["epoch"])

    @property
    def layers(self) -> pd.DataFrame:
        """One row a measured epoch and layer."""
        frames = [frame.assign(epoch=epoch) for epoch, frame in sorted(self._layers.items())]
        frame = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=["epoch"])
        return frame[["epoch", *frame.columns.drop("epoch")]]

    # Lightning

    def on_train_start(self, trainer, pl_module) -> None:
        """Measure epoch 0."""
        if trainer.global_step == 0:
            self._in_lightning(trainer, pl_module, 0)

    def on_train_epoch_end(self, trainer, pl_module) -> None:
        """Measure the epoch that ends."""
        self._in_lightning(trainer, pl_module, trainer.current_epoch + 1)

    def _in_lightning(self, trainer, module: nn.Module, epoch: int) -> None:
        if trainer.is_global_zero and (metrics := self(module, epoch)):
            for logger in trainer.loggers:
                logger.log_metrics(_named(metrics | {"epoch": epoch}), step=trainer.global_step)

    @property
    def state_key(self) -> str:
        """Lightning's name of this callback: several may measure one training."""
        return f"NCCallback-{id(self)}"

    _legacy_state_key = state_key

    # transformers

    def on_train_begin(self, args, state, control, *, model: nn.Module, **kwargs) -> None:
        """Measure epoch 0."""
        if state.is_world_process_zero and state.global_step == 0:
            self(model, 0)

    def on_epoch_end(self, args, state, control, *, model: nn.Module, **kwargs) -> None:
        """Measure the epoch that ends; ``state.epoch`` of one that is cut short is a fraction."""
        if state.is_world_process_zero:
            self(model, math.ceil(state.epoch))

    def __getattr__(self, name: str):
        """Every other hook of the two trainers, which call them all: nothing to do."""
        if name.startswith("on_") or name in LIGHTNING_METHODS:
            return _do_nothing
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


def _do_nothing(*args, **kwargs) -> None:
    pass


def _named(metrics: dict[str, float]) -> dict[str, float]:
    return {PREFIX + name: value for name, value in metrics.items()}


def _check_logger(logger) -> None:
    methods = [name for name in ("add_scalar", "log") if callable(getattr(logger, name, None))]
    if logger is not None and (not methods or isinstance(logger, logging.Logger)):
        raise ValueError(
            "logger must have add_scalar(name, value, step), as TensorBoard's SummaryWriter, or "
            f"log(values, step=step), as a W&B run; got {logger!r}"
        )


def _log(logger, values: dict[str, float], epoch: int) -> None:
    if not hasattr(logger, "add_scalar"):
        logger.log(values, step=epoch)
        return
    for name, value in values.items():
        logger.add_scalar(name, value, epoch)


def _with_own_workers(loader: Iterable) -> Iterable:
    """Persistent workers serve one iterator a loader, and the training may be in the middle of it:
    a copy of the loader has workers of its own."""
    if isinstance(loader, DataLoader) and loader.persistent_workers:
        loader = copy.copy(loader)
        loader._iterator = None
    return loader


@contextlib.contextmanager
def _random_numbers_kept(model: nn.Module, *loaders) -> Iterator[None]:
    """Restore the random number generators that reading the loaders may move."""
    owners = [*loaders, *(getattr(loader, "sampler", None) for loader in loaders)]
    found = {getattr(owner, "generator", None) for owner in owners}
    states = [(one, one.get_state()) for one in found if isinstance(one, torch.Generator)]
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 (transforms use it)
    weights = model.parameters() if isinstance(model, nn.Module) else ()
    gpus = {weight.device for weight in weights if weight.is_cuda}
    try:
        with torch.random.fork_rng(gpus, device_type="cuda"):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        for generator, state in states:
            generator.set_state(state)
