"""Train a chunk of members and measure them while they train."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from ncbook import data, models
from ncbook.data import Dataset
from ncbook.train.compiled import can_compile, prepare_cache
from ncbook.train.config import RunConfig, check_samples, learning_rate_factors
from ncbook.train.context import training
from ncbook.train.measure import (
    layer_names,
    layer_records,
    logged_epochs,
    measure,
    network_input,
    run_record,
)
from ncbook.train.moves import Moves, instances, member_numbers, step_factors
from ncbook.train.step import Members, make_step, member

# Steps of a run from which compiling pays, in a chunk of nine. How many members there are must not
# matter: compiled code rounds differently, and a run must not depend on its company.
COMPILE_FROM = 1_700
COMPILED_SHARE = 0.4  # of a plain step's time that a compiled one takes then (MLP, CPU)
# Parameters times member steps from which it pays where members train one after another: compiling
# the update takes 5-16 s and saves 10 ns a parameter and step (ResNet9, CPU, one thread).
COMPILE_FROM_UPDATES = 1.5e9
TIMED_STEPS, TIMED_SECONDS = 8, 2.0

OnEpoch = Callable[[int, int], None]
OnMeasure = Callable[[list[dict]], None]


def train_members(
    configs: Sequence[RunConfig],
    dataset: Dataset,
    *,
    log_epochs: Sequence[int] | None = None,
    measure_layers: bool = False,
    compiled: bool | None = None,
    deterministic: bool = False,
    on_epoch: OnEpoch | None = None,
    on_measure: OnMeasure | None = None,
) -> tuple[list[dict], list[dict]]:
    """Train all ``configs`` together and return their records.

    Args:
        configs: members; equal but for lr, momentum, weight decay and its coupling.
        dataset: their data, on the device that is to train them.
        log_epochs: epochs to measure at; 0, before the first step, and the last one are always
            among them. Default: ``default_log_epochs``.
        measure_layers: measure every layer, too. A run's record then has ``measured_layers``, how
            many they are, and ``layers``: one record an epoch and layer, as of ``layer_records``.
        compiled: whether to compile the step; by default where the work is long enough to repay
            the time that compiling takes.
        deterministic: have a GPU use deterministic algorithms alone, which can be slower; a CPU's
            always are.
        on_epoch: called with (epoch, members) after each epoch. What it raises ends the training.
        on_measure: called with the history's new records after each measurement.

    Returns:
        ``runs``, one record a member: its config, ``status`` (``ok`` or ``diverged``),
        ``diverged_epoch``, each of ``MEASURED`` at the end, each NC metric at the start as
        ``nc0_init`` and so on, ``wall_time_s`` (its share of the chunk's); and ``history``, one
        record a member and logged epoch. A member whose parameters stop being finite is frozen
        at the end of that epoch and touches no other; its numbers at the end are NaN.

    Raises:
        ValueError: for members that cannot share a chunk, a log epoch outside the training, a
            class without a sample, or a last batch of one.
        MemoryError: where the members or their batches do not fit; it says what to make smaller.
    """
    _check_together(configs)
    check_samples(configs[0], dataset)
    logged = logged_epochs(log_epochs, configs[0].epochs)
    history: list[dict] = []
    began = time.perf_counter()
    with training(configs[0], len(configs), deterministic):
        chunk = _Chunk(configs, dataset, compiled)
        for epoch in range(configs[0].epochs + 1):
            if epoch:
                chunk.train_epoch(epoch - 1)
            if epoch in logged:
                records = chunk.measure(epoch)
                history += records
                if measure_layers:
                    chunk.measure_layers(epoch)
                if on_measure:
                    on_measure(records)
            if epoch and on_epoch:
                on_epoch(epoch, len(configs))
    seconds = (time.perf_counter() - began) / len(configs)
    rows = [[row for row in history if row["member"] == i] for i in range(len(configs))]
    ends = zip(configs, rows, chunk.diverged, strict=True)
    runs = [run_record(*end, seconds) for end in ends]
    for run, layers in zip(runs, chunk.layers, strict=True):
        run |= {"measured_layers": len(chunk.names), "layers": layers} if measure_layers else {}
    return runs, history


def step_seconds(configs: Sequence[RunConfig], dataset: Dataset) -> float:
    """Seconds that one step of this chunk takes, about: a few, timed. They are compiled only if an
    earlier process has done that; plain ones count for what compiling leaves of them."""
    saves = models.MODELS[configs[0].model].together and _is_long(configs[0], dataset)
    with training(configs[0], len(configs), deterministic=False):
        chunk, share = _Chunk(configs, dataset, compiled=saves), 1.0
        if saves and not chunk.is_kept():
            chunk = _Chunk(configs, dataset, compiled=False)
            share = COMPILED_SHARE if repays_compiling(configs[0], dataset) else 1.0
        chunk.take_one_step()
        began, steps = time.perf_counter(), 0
        while steps < TIMED_STEPS and time.perf_counter() - began < TIMED_SECONDS:
            chunk.take_one_step()
            steps += 1
    return (time.perf_counter() - began) / steps * share


def prepare_step(config: RunConfig, dataset: Dataset | data.Streamed) -> None:
    """Compile the step of such a run for a CPU, if that pays, so that workers only load it. A
    warning says why it cannot be done."""
    if repays_compiling(config, dataset) and dataset.train_x.device.type == "cpu":
        with training(config, 1, deterministic=False):
            _Chunk([config], dataset, compiled=True).take_one_step()


def repays_compiling(
    config: RunConfig, dataset: Dataset | data.Streamed, device: str | None = None
) -> bool:
    """Whether the work is long enough to compile for, and it can be done; a warning says why not.
    ``device`` is to train it, where the data are not there yet."""
    prepare_cache()
    if isinstance(dataset, data.Streamed):
        return False
    where = torch.device(device) if device else dataset.train_x.device
    return _is_long(config, dataset) and can_compile(where.type)


def _is_long(config: RunConfig, dataset: Dataset) -> bool:
    steps = config.epochs * -(-len(dataset.train_y) // config.batch_size)
    if models.MODELS[config.model].together:
        return steps >= COMPILE_FROM
    net = _template(architecture(config, dataset), train=False)
    return steps * sum(p.numel() for p in net.parameters()) >= COMPILE_FROM_UPDATES


def _check_together(configs: Sequence[RunConfig]) -> None:
    if not configs:
        raise ValueError("no members to train")
    for other in configs[1:]:
        if other.shared() != configs[0].shared():
            raise ValueError(f"cannot train together: {configs[0]} and {other}")


class _Chunk:
    """A chunk in training: its members, their numbers, and who has diverged when."""

    def __init__(
        self, configs: Sequence[RunConfig], dataset: Dataset, compiled: bool | None
    ) -> None:
        prepare_cache()
        config, device = configs[0], dataset.train_x.device
        compiled = _is_long(config, dataset) if compiled is None else compiled
        self.configs, self.dataset = configs, dataset
        self.moves = Moves.of(config, compiled)
        dtype = torch.float64 if config.precision == "float64" else torch.float32
        net = initial_network(config, dataset).to(device, dtype)
        self.members = Members.start(net, len(configs), self.moves)
        kind, place = architecture(config, dataset), device.type if compiled else None
        self.net = _template(kind, train=False)  # measured with
        together = models.MODELS[config.model].together
        trained = _template(kind, train=True)
        self.step = make_step(trained, config.precision, self.moves, together, place)
        self.numbers = member_numbers(configs).to(device).contiguous()
        tensors = self.members.params, self.members.state
        self.own = instances(configs, *tensors, self.moves, models.decayed(net))  # of each member
        self.order = torch.Generator().manual_seed(config.seed)
        self.diverged: list[int | None] = [None] * len(configs)
        self.layers: list[list[dict]] = [[] for _ in configs]  # measured so far
        self.names: Sequence[str] = ()  # of the layers, once they are measured
        self.steps = 0  # taken so far

    def train_epoch(self, epoch: int) -> None:
        """One pass over the training set in this epoch's order, then freeze diverged members."""
        if None not in self.diverged:
            return
        self.take_steps(*minibatches(self.configs[0], self.dataset, self.order, epoch))
        lost = ~self.members.finite()
        for i in lost.nonzero().flatten().tolist():
            self.diverged[i] = epoch + 1
            self.numbers[..., i] = 0
            self.own[i] = []
        if lost.any():
            self.members.silence(lost)

    @torch.no_grad()
    def take_steps(self, batches: Sequence[Tensor], lr_factors: Tensor) -> None:
        """One step for each batch of sample numbers, with a factor on the learning rate each."""
        members = self.members
        table = step_factors(self.numbers, lr_factors, self.steps, members.dtype)
        for batch, factors, factor in zip(batches, table, lr_factors.tolist(), strict=True):
            self.step(*vars(members).values(), *self._minibatch(batch), factors)
            for instance in itertools.chain.from_iterable(self.own):
                instance.step(factor)
            self.steps += 1
            self.moves.refresh(members.params, members.state, self.steps)

    def take_one_step(self) -> None:
        """On the first samples."""
        self.take_steps([self._first_batch()], torch.ones(1))

    def is_kept(self) -> bool:
        """Whether an earlier process has compiled the step of members that train together."""
        (factors,) = step_factors(self.numbers, torch.ones(1), self.steps, self.members.dtype)
        minibatch = self._minibatch(self._first_batch())
        return self.step.is_kept((*vars(self.members).values(), *minibatch, factors))

    def _first_batch(self) -> Tensor:
        return torch.arange(min(self.configs[0].batch_size, len(self.dataset.train_y)))

    def _minibatch(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        dataset = self.dataset
        batch = batch.to(dataset.train_y.device)
        x = dataset.train_x[batch]
        if self.configs[0].augment:
            x = data.augmented(x, self.order)
        return network_input(dataset, x, self.members.dtype), dataset.train_y[batch]

    @torch.no_grad()
    def measure(self, epoch: int) -> list[dict]:
        """History records of the members still in training."""
        values = measure(self.net, self.dataset, self.members)
        table = {k: v.double().tolist() for k, v in values.items()}
        return [
            {"member": i, "epoch": epoch} | {k: column[i] for k, column in table.items()}
            for i, lost in enumerate(self.diverged)
            if lost is None
        ]

    def measure_layers(self, epoch: int) -> None:
        """Add records of the layers of the members still in training."""
        if not self.names:
            first = initial_network(self.configs[0], self.dataset)
            self.names = layer_names(first.to(self.dataset.train_x.device), self.dataset)
        for i in [i for i, lost in enumerate(self.diverged) if lost is None]:
            own = member(self.members.params, i), member(self.members.buffers, i)
            records = layer_records(self.net, self.dataset, *own, self.names)
            self.layers[i] += [{"epoch": epoch} | record for record in records]


def architecture(config: RunConfig, dataset: Dataset | data.Streamed) -> tuple:
    """What decides a network's shape: the arguments of ``models.build``."""
    shape = tuple(dataset.input_shape)
    return config.model, dataset.num_classes, shape[0], config.width, config.depth, shape


def initial_network(config: RunConfig, dataset: Dataset | data.Streamed) -> models.Classifier:
    """The run's initialisation: from its seed alone, whatever else drew random numbers."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)  # and not the GPUs'
        return models.build(*architecture(config, dataset))


def minibatches(
    config: RunConfig, dataset: Dataset | data.Streamed, order: torch.Generator, epoch: int
) -> tuple[Sequence[Tensor], Tensor]:
    """The sample numbers of each minibatch of an epoch (from 0), and its learning-rate factor."""
    batches = torch.randperm(len(dataset.train_y), generator=order).split(config.batch_size)
    return batches, learning_rate_factors(config.schedule, epoch, len(batches), config.epochs)


@lru_cache(maxsize=32)
def _template(architecture: tuple, train: bool) -> models.Classifier:
    """The module that members' tensors are put into, without tensors of its own."""
    with torch.device("meta"):
        return models.build(*architecture).train(train)
