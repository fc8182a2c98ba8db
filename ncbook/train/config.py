"""What a run is: its config, its learning-rate schedule, the epochs at which it is measured."""

from __future__ import annotations

from dataclasses import asdict, field, make_dataclass
from typing import Any

import torch
from torch import Tensor

from ncbook import data, models, optim
from ncbook.parameters import FIELDS

MILESTONES = (1 / 3, 2 / 3)  # of the epochs; the paper's section 3.1, after Papyan et al.
GAMMA = 0.1  # learning-rate factor at each milestone
WARM_UP = 0.05  # of the steps, of the cosine schedule; the paper's D.4.5
VECTOR_LR = 0.001  # torch's default for Adam, which moves the vectors
HEAD = ("head_lr", "head_momentum", "head_weight_decay")


class _Config:
    """Everything that decides one run's result; its hash is the run's name.

    Args:
        dataset, model, optimizer: names of ``data``, ``models.MODELS``, ``optim.OPTIMIZERS``; or
            ``MODULE:CLASS`` for an optimizer, see ``optim.own``.
        lr, momentum, weight_decay: eta > 0, beta in [0, 1), total lambda >= 0.
        coupled_share: share of ``weight_decay`` that is coupled: 1 or 0 as the optimizer's name
            says (filled in), or in between for a ``_mixed`` optimizer. None for ``MODULE:CLASS``:
            it is not known.
        precision: of the hidden layers; last layer and metrics are float32 in ``bfloat16`` too.
        schedule: of the learning rate; by default the model's: ``cosine`` for a ViT, ``step`` for
            all others.
        clip: largest norm that a step's gradient may have; None leaves it as it is, as the paper's
            code does (its ViT's, too: there a misspelt name switches clipping off).
        depth: number of hidden layers or blocks; None is the model's own.
        vector_lr, update_precision: of Muon, Shampoo and SOAP alone; see ``optim.Optimizer``.
        head_optimizer: of the last layer, if it has its own; its ``head_lr``, ``head_momentum`` and
            ``head_weight_decay`` are by default those of the rest.
        centred_head: whether each step of the last layer is centred over the classes.
        data_listing: fingerprint of the images in a ``folder:PATH`` or ``imagenet:PATH``, filled
            in; None for all other data sets. Of runs that were stored before there was one: ``""``.
        class_file: fingerprint of the files of all ``MODULE:CLASS``, filled in.
        others: the rows of ``ncbook.parameters.TABLE`` that have a field, with their defaults.

    Raises:
        ValueError: for any value out of its range, naming it and what is valid.
    """

    def __post_init__(self) -> None:
        for name, row in FIELDS.items():
            self._fill(name, row.typed(getattr(self, name)))
            row.check(getattr(self, name))
        data.validate_name(self.dataset)
        self._fill("dataset", data.plain_name(self.dataset))
        if (self.dataset == data.UFM) != (self.model == data.UFM):
            raise ValueError(
                f"dataset {data.UFM!r} and model {data.UFM!r} go together, got dataset "
                f"{self.dataset!r} and model {self.model!r}"
            )
        optim.split_decay(self.optimizer, self.weight_decay, self.coupled_share)
        models.check_depth(self.model, self.depth)
        if self.augment:
            data.check_augmentable(self.dataset)
        self._complete_updates()
        if self.coupled_share is None:
            self._fill("coupled_share", optim.rule(self.optimizer).coupled_share)
        if self.schedule is None:
            self._fill("schedule", models.MODELS[self.model].schedule)
        if self.data_listing is None:
            self._fill("data_listing", data.fingerprint(self.dataset))
        for name, *numbers in self.updates:
            if optim.is_own(name):
                optim.own.check(name, *numbers)
        if self.centred_head and optim.is_own(name):
            raise ValueError(f"centred_head is not for {name}")
        if self.class_file is None:
            self._fill("class_file", optim.own.fingerprint(self.optimizers))

    def _complete_updates(self) -> None:
        """Fill in what the last layer and the vectors need, and refuse what nothing would use."""
        given = [name for name in HEAD if getattr(self, name) is not None]
        if self.head_optimizer is None and given:
            raise ValueError(f"{given[0]} {getattr(self, given[0])} needs a head_optimizer")
        if self.head_optimizer is not None:
            if optim.is_mixed(self.head_optimizer):
                valid = ", ".join(n for n in optim.OPTIMIZERS if not optim.is_mixed(n))
                raise ValueError(
                    f"head_optimizer cannot be mixed, got {self.head_optimizer!r}; valid: {valid}"
                )
            for name in HEAD:
                if getattr(self, name) is None:
                    self._fill(name, getattr(self, name.removeprefix("head_")))
        if any(direction in optim.FOR_MATRICES for direction in self.directions):
            if self.model == data.UFM:  # whose features would be one matrix of all samples
                raise ValueError(f"optimizer {self.optimizer!r} is not for the model {data.UFM!r}")
            if self.vector_lr is None:
                self._fill("vector_lr", VECTOR_LR)
        optim.check_for_matrices(vars(self), *self.optimizers)

    def _fill(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def identity(self) -> dict[str, Any]:
        """What the run's id is a hash of: all fields, but for those that came later and have the
        value that all runs had before. So old stores stay valid. Of a folder the images count, and
        not the path."""
        identity = {k: v for k, v in asdict(self).items() if v != FIELDS[k].before}
        if self.data_listing:
            identity["dataset"] = self.dataset.partition(":")[0]
        else:
            del identity["data_listing"]
        return identity

    @property
    def updates(self) -> list[tuple[str, float, float, float]]:
        """Optimizer, lr, momentum and weight decay: of the network, and of the last layer if it has
        its own."""
        rows = [(self.optimizer, self.lr, self.momentum, self.weight_decay)]
        if self.head_optimizer is not None:
            rows.append((self.head_optimizer, *(getattr(self, name) for name in HEAD)))
        return rows

    @property
    def optimizers(self) -> tuple[str, ...]:
        """Of the network, and of the last layer if it has its own."""
        return tuple(name for name, *_ in self.updates)

    @property
    def directions(self) -> tuple[str, ...]:
        """Such as ``sgd``, see ``optim.Rule``: of each of ``optimizers``."""
        return tuple(optim.rule(name).direction for name in self.optimizers)

    def shared(self) -> tuple:
        """What all runs of a chunk must share."""
        moved = self.optimizer if optim.is_own(self.optimizer) else self.directions[0]
        return (moved, *(getattr(self, name) for name, row in FIELDS.items() if row.shared))


RunConfig = make_dataclass(
    "RunConfig",
    [(name, "Any", field(default=row.default)) for name, row in FIELDS.items()],
    bases=(_Config,),
    namespace={"__doc__": _Config.__doc__, "__module__": __name__},
    frozen=True,
)


def check_samples(config: RunConfig, dataset: data.Dataset) -> None:
    """Raise ``ValueError`` where the run cannot train on these samples, or where its images or its
    own optimizer's file are no longer those that it is named after."""
    check_listing(config, dataset.listing)
    own = [name for name in config.optimizers if optim.is_own(name)]
    if config.class_file != optim.own.fingerprint(own):
        raise ValueError(
            f"the file of {' or '.join(own)} has changed since the run was asked for; ask for it "
            "again, and it is a new run"
        )
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


def check_listing(config: RunConfig, listing: str | None) -> None:
    """Raise ``ValueError`` where the folder's images have changed since the run was asked for."""
    if config.data_listing and listing and config.data_listing != listing:
        raise ValueError(
            f"{config.dataset} has changed: files were added, removed, renamed or replaced since "
            "the run was asked for; ask for it again, and it is a new run"
        )


def learning_rate_factor(epoch: int, epochs: int) -> float:
    """The paper's step schedule: x0.1 from epoch floor(epochs/3) and floor(2 epochs/3) on."""
    return GAMMA ** sum(epoch >= int(m * epochs) for m in MILESTONES)


def learning_rate_factors(schedule: str, epoch: int, steps: int, epochs: int) -> Tensor:
    """Factor on the learning rate at each of the ``steps`` of epoch ``epoch`` (from 0), float64.

    ``step`` is constant over an epoch (``learning_rate_factor``). ``cosine`` rises in a straight
    line over the first 5 % of all steps T, to 1 at the step that ends them, and then falls as
    (1 + cos(pi t)) / 2, t going from 0 to 1 over the rest (D.4.5). ``constant`` is 1.

    Raises:
        ValueError: an unknown schedule.
    """
    FIELDS["schedule"].check_known(schedule)
    if schedule != "cosine":
        factor = learning_rate_factor(epoch, epochs) if schedule == "step" else 1.0
        return torch.full((steps,), factor, dtype=torch.float64)
    total = steps * epochs
    warm = max(1, round(WARM_UP * total))
    step = torch.arange(epoch * steps, (epoch + 1) * steps, dtype=torch.float64)
    fall = (1 + torch.cos(torch.pi * (step - warm) / max(1, total - warm))) / 2
    return torch.where(step < warm, (step + 1) / warm, fall)


def default_log_epochs(epochs: int) -> tuple[int, ...]:
    """Epochs to measure at: the start, steps of 1-2-5, the schedule's drops, the end."""
    steps = {m * 10**e for e in range(9) for m in (1, 2, 5)}
    steps |= {int(m * epochs) for m in MILESTONES}
    return tuple(sorted({e for e in steps if e < epochs} | {0, epochs}))
