"""What a run is: its config, its learning-rate schedule, the epochs at which it is measured."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ncbook import data, models, optim

MILESTONES = (1 / 3, 2 / 3)  # of the epochs; the paper's section 3.1, after Papyan et al.
GAMMA = 0.1  # learning-rate factor at each milestone
WHOLE_LIMIT = 2**63  # what 64 bits hold: a column of the store, torch's generators
FRACTIONAL = ("lr", "momentum", "weight_decay", "coupled_share", "width", "clip")
PRECISIONS = ("float32", "bfloat16", "float64")
SCHEDULES = ("step", "cosine", "constant")
WARM_UP = 0.05  # of the steps, of the cosine schedule; the paper's D.4.5
LATER = {"schedule": "step", "clip": None, "augment": False, "depth": None}
MIXED = {"sgd": "sgd_mixed", "adam": "adam_mixed", "sign": "signum_mixed"}


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides one run's result; its hash is the run's name.

    Args:
        dataset, model, optimizer: names of ``data``, ``models.MODELS``, ``optim.OPTIMIZERS``.
        lr, momentum, weight_decay: eta > 0, beta in [0, 1), total lambda >= 0.
        coupled_share: share of ``weight_decay`` that is coupled: 1 or 0 as the optimizer's name
            says (filled in), or in between for a ``_mixed`` optimizer.
        seed: of the initialisation, the minibatches and the subset.
        epochs: at least 1.
        batch_size: at least 2; the last batch of an epoch may be smaller.
        train_size: size of the class-balanced subset of the training set; None takes all of it.
        width: factor on the network's hidden widths.
        precision: of the hidden layers; last layer and metrics are float32 in ``bfloat16`` too.
        schedule: of the learning rate, a name of ``SCHEDULES``; by default the model's: ``cosine``
            for a ViT, ``step`` for all others.
        clip: largest norm that a step's gradient may have; None leaves it as it is, as the paper's
            code does (its ViT's, too: there a misspelt name switches clipping off).
        augment: whether training images are cropped and flipped at random.
        depth: number of hidden layers or blocks; None is the model's own.
        data_listing: fingerprint of the images in a ``folder:PATH`` or ``imagenet:PATH``, filled
            in; None for all other data sets. Of runs that were stored before there was one: ``""``.

    Raises:
        ValueError: for any value out of its range, naming it and what is valid.
    """

    dataset: str = "digits"
    model: str = "mlp"
    optimizer: str = "sgd"
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    coupled_share: float | None = None
    seed: int = 0
    epochs: int = 200
    batch_size: int = 128
    train_size: int | None = None
    width: float = 1.0
    precision: str = "float32"
    schedule: str | None = None
    clip: float | None = None
    augment: bool = False
    depth: int | None = None
    data_listing: str | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, _typed(field.name, getattr(self, field.name)))
        data.validate_name(self.dataset)
        object.__setattr__(self, "dataset", data.plain_name(self.dataset))
        models.validate_name(self.model)
        if (self.dataset == data.UFM) != (self.model == data.UFM):
            raise ValueError(
                f"dataset {data.UFM!r} and model {data.UFM!r} go together, got dataset "
                f"{self.dataset!r} and model {self.model!r}"
            )
        optim.check_hyperparameters(self.lr, self.momentum, self.weight_decay)
        optim.split_decay(self.optimizer, self.weight_decay, self.coupled_share)
        if self.coupled_share is None:
            share = optim.rule(self.optimizer).coupled_share
            object.__setattr__(self, "coupled_share", float(share))
        for field, least in (("seed", 0), ("epochs", 1), ("batch_size", 2)):
            check_whole(field, getattr(self, field), least)
        for field in ("train_size", "depth"):
            if getattr(self, field) is not None:
                check_whole(field, getattr(self, field), 1)
        models.check_width(self.width)
        if self.precision not in PRECISIONS:
            valid = ", ".join(PRECISIONS)
            raise ValueError(f"unknown precision {self.precision!r}; valid: {valid}")
        models.check_depth(self.model, self.depth)
        self._check_recipe()
        if self.data_listing is None:
            object.__setattr__(self, "data_listing", data.fingerprint(self.dataset))

    def _check_recipe(self) -> None:
        if self.schedule is None:
            object.__setattr__(self, "schedule", models.MODELS[self.model].schedule)
        if self.schedule not in SCHEDULES:
            valid = ", ".join(SCHEDULES)
            raise ValueError(f"unknown schedule {self.schedule!r}; valid: {valid}")
        if self.clip is not None and not (type(self.clip) is float and 0 < self.clip < math.inf):
            raise ValueError(f"clip must be a finite number > 0, or None, got {self.clip!r}")
        if not isinstance(self.augment, bool):
            raise ValueError(f"augment must be true or false, got {self.augment!r}")
        if self.augment:
            data.check_augmentable(self.dataset)

    def identity(self) -> dict[str, Any]:
        """What the run's id is a hash of: all fields, but for those of ``LATER`` that hold what
        was the only way before they came. So old stores stay valid. Of a folder it is what is in
        it that counts, and not where it lies."""
        same = {k for k, before in LATER.items() if getattr(self, k) == before}
        identity = {k: v for k, v in asdict(self).items() if k not in same}
        if self.data_listing:
            identity["dataset"] = self.dataset.partition(":")[0]
        else:
            del identity["data_listing"]
        return identity

    @property
    def direction(self) -> str:
        """``sgd``, ``adam`` or ``sign``."""
        return optim.rule(self.optimizer).direction

    def shared(self) -> RunConfig:
        """The config with the member's own numbers blanked: equal for all that may train in one
        chunk."""
        own = {"lr": 1.0, "momentum": 0.0, "weight_decay": 0.0, "coupled_share": 0.0}
        return replace(self, optimizer=MIXED[self.direction], **own)


def check_samples(config: RunConfig, dataset: data.Dataset) -> None:
    """Raise ``ValueError`` where a class has no training sample, or an epoch's last batch would be
    one sample alone, of which batch norm has no variance; or where these are other images than
    those that the run is named after."""
    check_listing(config, dataset.listing)
    counts = torch.bincount(dataset.train_y, minlength=dataset.num_classes).tolist()
    if 0 in counts:
        name = dataset.class_names[counts.index(0)]
        raise ValueError(
            f"class {name!r} has no sample among the {len(dataset.train_y)} for training: "
            f"train_size must be at least {dataset.num_classes}"
        )
    if len(dataset.train_y) % config.batch_size == 1 and config.model != data.UFM:
        raise ValueError(
            f"batch_size {config.batch_size} leaves a last batch of one of "
            f"{len(dataset.train_y)} samples, which batch norm cannot take; choose another"
        )


def _typed(field: str, value: Any) -> Any:
    """The value as the one type of its field, so that equal configs are one run in every respect;
    what is no number stays, to be refused."""
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, bool) or not isinstance(value, Real):
        return value
    if field not in FRACTIONAL:
        return int(value) if isinstance(value, Integral) else value
    try:
        return float(value) + 0.0  # 0.0 for -0.0
    except OverflowError:
        return math.inf  # refused as such


def check_listing(config: RunConfig, listing: str | None) -> None:
    """Raise ``ValueError`` where the folder's images have changed since the run was asked for."""
    if config.data_listing and listing and config.data_listing != listing:
        raise ValueError(
            f"{config.dataset} has changed: files were added, removed, renamed or replaced since "
            "the run was asked for; ask for it again, and it is a new run"
        )


def check_whole(field: str, value: object, least: int) -> None:
    """Raise ``ValueError`` naming the value unless it is an int that is at least ``least``, and
    that a column of the store can hold."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{field} must be a whole number >= {least}, got {value!r}")
    if value >= WHOLE_LIMIT:
        raise ValueError(f"{field} must be below 2**63, got {value!r}")


def drop_epochs(epochs: int) -> tuple[int, ...]:
    """Epochs (from 0) from which on the learning rate is a factor 0.1 lower."""
    return tuple(int(m * epochs) for m in MILESTONES)


def learning_rate_factor(epoch: int, epochs: int) -> float:
    """The paper's step schedule: x0.1 from epoch floor(epochs/3) and floor(2 epochs/3) on."""
    return GAMMA ** sum(epoch >= drop for drop in drop_epochs(epochs))


def learning_rate_factors(schedule: str, epoch: int, steps: int, epochs: int) -> Tensor:
    """Factor on the learning rate at each of the ``steps`` of epoch ``epoch`` (from 0), float64.

    ``step`` is constant over an epoch (``learning_rate_factor``). ``cosine`` rises in a straight
    line over the first 5 % of all steps T, to 1 at the step that ends them, and then falls as
    (1 + cos(pi t)) / 2, t going from 0 to 1 over the rest (D.4.5). ``constant`` is 1.

    Raises:
        ValueError: an unknown schedule.
    """
    if schedule == "constant":
        return torch.ones(steps, dtype=torch.float64)
    if schedule == "step":
        factor = learning_rate_factor(epoch, epochs)
        return torch.full((steps,), factor, dtype=torch.float64)
    if schedule != "cosine":
        raise ValueError(f"unknown schedule {schedule!r}; valid: {', '.join(SCHEDULES)}")
    total = steps * epochs
    warm = max(1, round(WARM_UP * total))
    step = torch.arange(epoch * steps, (epoch + 1) * steps, dtype=torch.float64)
    fall = (1 + torch.cos(torch.pi * (step - warm) / max(1, total - warm))) / 2
    return torch.where(step < warm, (step + 1) / warm, fall)


def default_log_epochs(epochs: int) -> tuple[int, ...]:
    """Epochs to measure at: the start, steps of 1-2-5, the schedule's drops, the end."""
    steps = {m * 10**e for e in range(9) for m in (1, 2, 5)}
    inside = {e for e in steps | set(drop_epochs(epochs)) if e < epochs}
    return tuple(sorted(inside | {0, epochs}))
