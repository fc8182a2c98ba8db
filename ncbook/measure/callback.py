"""Neural collapse measured while a network trains: in a loop, Lightning or transformers."""

import inspect
import math
from collections.abc import Sequence

import pandas as pd
from torch import nn

from ncbook.measure.batches import loader_of
from ncbook.measure.measuring import check_settings, measure
from ncbook.parameters import check_whole

LIGHTNING_METHODS = ("setup", "teardown", "state_dict", "load_state_dict")


class NCCallback:
    """Measure a network every few epochs of its training, with `measure`.

    Epoch e is the state after e epochs, 0 the one before training. Three ways to use it, each with
    one callback a run::

        callback(model, epoch)  # in a loop of your own: returns the metrics, or None
        lightning.Trainer(callbacks=[callback], ...)  # also pytorch_lightning's
        transformers.Trainer(callbacks=[callback], ...)

    Both trainers also measure epoch 0, unless they resume; an epoch that is cut short counts as
    one. Lightning's loggers get every value at the trainer's own step, next to ``nc/epoch``. The
    training stays as it is without the callback, bit for bit.

    In distributed training a trainer's global rank 0 measures, on all of ``data``, while the others
    wait: within the timeout of their process group, and weights in shards (FSDP, ZeRO stage 3)
    can't be measured. In a loop of your own, call it in one process.

    Args:
        data, settings: as of `measure`: ``test_data``, ``head``, ``tokens``, ``batch_size``.
        every: epochs that are multiples of it are measured, >= 1.
        layers: as of `measure`; by default the head's input alone, which is cheap.
        logger: TensorBoard's SummaryWriter, or any object with ``add_scalar(name, value, step)``;
            or a W&B run, or any with ``log(values, step=step)``. It gets ``nc/NAME`` of every
            metric, with the epoch as step, as it must have in your own calls (W&B drops a step
            below its latest one).

    Attributes:
        metrics: frame, one row a measured epoch: ``epoch``, then the metrics of `measure`.
        layers: frame, one row an epoch and layer: ``epoch``, then the columns of `measure`.

    An epoch that is measured again replaces its row. Checkpoints don't hold the frames.

    Raises:
        ValueError: data, a setting or a logger that can't be used; when it measures, as `measure`.
        TypeError: a setting that `measure` does not have.
    """

    def __init__(
        self, data, *, every: int = 1, layers: Sequence[str] | None = (), logger=None, **settings
    ) -> None:
        check_whole("every", every, 1)
        loader_of("data", data, 1)
        if settings.get("test_data") is not None:
            loader_of("test_data", settings["test_data"], 1)
        if logger is not None and not (hasattr(logger, "add_scalar") or hasattr(logger, "log")):
            raise ValueError(
                "logger must have add_scalar(name, value, step), as TensorBoard's SummaryWriter, "
                f"or log(values, step=step), as a W&B run; got {logger!r}"
            )
        self.every, self._logger, self._data = every, logger, data
        self._settings = {"layers": layers, "progress": False, **settings}
        inspect.signature(measure).bind(None, data, **self._settings)
        check_settings(**self._settings)
        self.metrics = self.layers = pd.DataFrame({"epoch": []})
        # Lightning's name of this callback: several may measure one training.
        self.state_key = self._legacy_state_key = f"NCCallback-{id(self)}"

    def __call__(self, model: nn.Module, epoch: int) -> dict[str, float] | None:
        """Measure the model after this many epochs, if it is their turn: the metrics, or None."""
        check_whole("epoch", epoch, 0)
        if epoch % self.every:
            return None
        measured = measure(model, self._data, **self._settings)
        self.metrics = _with(self.metrics, pd.DataFrame([measured.metrics]), epoch)
        self.layers = _with(self.layers, measured.layers, epoch)
        named = {f"nc/{name}": value for name, value in measured.metrics.items()}
        if hasattr(self._logger, "add_scalar"):
            for name, value in named.items():
                self._logger.add_scalar(name, value, epoch)
        elif self._logger is not None:
            self._logger.log(named, step=epoch)
        return measured.metrics

    # Lightning

    def on_train_start(self, trainer, pl_module) -> None:
        if trainer.global_step == 0:
            self._in_lightning(trainer, pl_module, 0)

    def on_train_epoch_end(self, trainer, pl_module) -> None:
        self._in_lightning(trainer, pl_module, trainer.current_epoch + 1)

    def _in_lightning(self, trainer, module: nn.Module, epoch: int) -> None:
        if trainer.is_global_zero and (metrics := self(module, epoch)):
            named = {f"nc/{name}": value for name, value in {**metrics, "epoch": epoch}.items()}
            for logger in trainer.loggers:
                logger.log_metrics(named, step=trainer.global_step)

    # transformers

    def on_train_begin(self, args, state, control, *, model: nn.Module, **kwargs) -> None:
        if state.is_world_process_zero and state.global_step == 0:
            self(model, 0)

    def on_epoch_end(self, args, state, control, *, model: nn.Module, **kwargs) -> None:
        if state.is_world_process_zero:
            self(model, math.ceil(state.epoch))  # of an epoch that is cut short, a fraction

    def __getattr__(self, name: str):
        """Every other hook of the two trainers, which call them all: nothing to do."""
        if name.startswith("on_") or name in LIGHTNING_METHODS:
            return lambda *args, **kwargs: None
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


def _with(rows: pd.DataFrame, found: pd.DataFrame, epoch: int) -> pd.DataFrame:
    """The rows with those of an epoch, in place of any that it had."""
    found.insert(0, "epoch", epoch)
    others = rows[rows["epoch"] != epoch]
    every = pd.concat([others, found]) if len(others) else found
    return every.sort_values("epoch", kind="stable", ignore_index=True)
