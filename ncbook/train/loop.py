"""Train a chunk of members and measure them while they train."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache

import torch
from torch import Tensor

from ncbook import data, metrics, models, optim
from ncbook.data import Dataset
from ncbook.train.config import RunConfig, check_samples, default_log_epochs, learning_rate_factors
from ncbook.train.heap import garbage_left, heap_kept
from ncbook.train.measure import MEASURED, measure, network_input
from ncbook.train.step import Members, can_compile, make_step, prepare_cache

METRIC_KEYS = metrics.KEYS
# Steps of a run from which compiling pays, in a chunk of nine. How many members there are has no
# say: compiled code rounds otherwise, and a run must not depend on its company.
COMPILE_FROM = 1_700
COMPILED_SHARE = 0.45  # of a plain step's time that a compiled one takes then (MLP, CPU)
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
        compiled: whether to use torch.compile; by default where the work is long enough to repay
            the time that compiling takes.
        deterministic: have a GPU use deterministic algorithms alone, slower ones at times; on a CPU
            they are so anyway.
        on_epoch: called with (epoch, members) after each epoch. What it raises ends the training.
        on_measure: called with the history's new records after each measurement.

    Returns:
        ``runs``, one record a member: its config, ``status`` (``ok`` or ``diverged``),
        ``diverged_epoch``, each of ``MEASURED`` at the end, each NC metric at the start as
        ``nc0_init`` and so on, ``wall_time_s`` (its share of the chunk's); and ``history``, one
        record a member and logged epoch. A member whose parameters stop being finite is frozen
        there and touches no other; its numbers at the end are NaN.

    Raises:
        ValueError: for members that cannot share a chunk, a log epoch outside the training, a
            class without a sample, or a last batch of one.
        MemoryError: where the members or their batches do not fit; it says what to make smaller.
    """
    shared = _shared(configs)
    check_samples(shared, dataset)
    logged = _logged(log_epochs, shared.epochs)
    began = time.perf_counter()
    with (
        heap_kept(),
        garbage_left(),
        _no_denormals(),
        _deterministic(deterministic),
        _out_of_memory_explained(configs),
    ):
        chunk = _Chunk.start(configs, dataset, compiled)
        history = [*_measured(chunk, 0, on_measure)]  # of its own: it grows
        for epoch in range(shared.epochs):
            chunk.train_epoch(epoch)
            if epoch + 1 in logged:
                history += _measured(chunk, epoch + 1, on_measure)
            if on_epoch:
                on_epoch(epoch + 1, len(configs))
    seconds = (time.perf_counter() - began) / len(configs)
    return chunk.run_records(history, seconds), history


def _measured(chunk: _Chunk, epoch: int, on_measure: OnMeasure | None) -> list[dict]:
    records = chunk.measure(epoch)
    if on_measure:
        on_measure(records)
    return records


def step_seconds(configs: Sequence[RunConfig], dataset: Dataset) -> float:
    """Seconds that one step of this chunk takes, about: a few plain ones, times what compiling
    saves."""
    order = torch.arange(len(dataset.train_y)).split(configs[0].batch_size)[:1]
    with heap_kept():
        chunk = _Chunk.start(configs, dataset, compiled=False)
        chunk.take_steps(order, torch.ones(1))
        began, steps = time.perf_counter(), 0
        while steps < TIMED_STEPS and time.perf_counter() - began < TIMED_SECONDS:
            chunk.take_steps(order, torch.ones(1))
            steps += 1
    seconds = (time.perf_counter() - began) / steps
    saves = _is_together(configs[0]) and repays_compiling(configs[0], dataset)
    return seconds * (COMPILED_SHARE if saves else 1.0)


@contextmanager
def _no_denormals() -> Iterator[None]:
    """Numbers below 1e-38 count as zero: a CPU can be many times slower over them, and strong
    weight decay can make whole networks of them."""
    before = (torch.full((1,), torch.finfo(torch.float32).tiny) / 2).item() == 0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


@contextmanager
def _deterministic(wanted: bool) -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # torch asks for it
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


@contextmanager
def _out_of_memory_explained(configs: Sequence[RunConfig]) -> Iterator[None]:
    """torch's long message becomes one line that says which knob to turn."""
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError is one, and a CPU's has no own class
        if not isinstance(error, torch.OutOfMemoryError) and "alloc" not in str(error).lower():
            raise
        config = configs[0]
        raise MemoryError(
            f"out of memory training {len(configs)} x {config.model} (width {config.width:g}) on "
            f"{config.dataset}: choose a batch_size below {config.batch_size}, a smaller width or "
            f"train_size, or fewer workers"
        ) from error


def _shared(configs: Sequence[RunConfig]) -> RunConfig:
    if not configs:
        raise ValueError("no members to train")
    shared = configs[0].shared()
    for other in configs[1:]:
        if other.shared() != shared:
            raise ValueError(f"cannot train together: {configs[0]} and {other}")
    return shared


def _logged(log_epochs: Sequence[int] | None, epochs: int) -> set[int]:
    wrong = [e for e in log_epochs or () if not 0 <= e <= epochs]
    if wrong:
        raise ValueError(f"log_epochs must lie in 0..{epochs}, got {wrong}")
    return {0, epochs, *(default_log_epochs(epochs) if log_epochs is None else log_epochs)}


@dataclass
class _Chunk:
    """A chunk in training: its members, their numbers, and who has diverged when."""

    configs: Sequence[RunConfig]
    dataset: Dataset
    members: Members
    step: Callable
    numbers: Tensor  # (4, M) float64: lr, momentum, coupled and decoupled decay
    order: torch.Generator
    steps: int  # taken so far
    diverged: list[int | None]

    @classmethod
    def start(cls, configs: Sequence[RunConfig], dataset: Dataset, compiled: bool | None) -> _Chunk:
        prepare_cache()
        config, device = configs[0], dataset.train_x.device
        members = Members.start(_initial(config, dataset), len(configs), config.direction)
        wanted = _is_long(config, dataset) if compiled is None else compiled
        step = _step(
            *_architecture(config, dataset),
            *(config.direction, config.precision, config.clip, wanted and can_compile(device.type)),
        )
        order = torch.Generator().manual_seed(config.seed)
        numbers = _numbers(configs).to(device)
        return cls(configs, dataset, members, step, numbers, order, 0, [None] * len(configs))

    def train_epoch(self, epoch: int) -> None:
        """One pass over the training set in this epoch's order, then freeze who was lost."""
        config, samples = self.configs[0], len(self.dataset.train_y)
        if None not in self.diverged:
            return
        batches = torch.randperm(samples, generator=self.order).split(config.batch_size)
        factors = learning_rate_factors(config.schedule, epoch, len(batches), config.epochs)
        self.take_steps(batches, factors)
        self._freeze_lost(epoch + 1)

    @torch.no_grad()
    def take_steps(self, batches: Sequence[Tensor], lr_factors: Tensor) -> None:
        """One step for each batch of sample numbers, with a factor on the learning rate each."""
        members = self.members
        for batch, numbers in zip(batches, self._factors(lr_factors), strict=True):
            x, y = self._minibatch(batch)
            self.step(members.params, members.buffers, members.state, x, y, numbers)

    def _minibatch(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        data_, config = self.dataset, self.configs[0]
        batch = batch.to(data_.train_y.device)
        x = data_.train_x[batch]
        if config.augment:
            x = data.augmented(x, self.order)
        return network_input(data_, x, self._dtype), data_.train_y[batch]

    @property
    def _dtype(self) -> torch.dtype:
        return self.members.params["fc.weight"].dtype

    def _factors(self, lr_factors: Tensor) -> Tensor:
        """``optim.Factors`` of the next steps, (steps, 7, M), rounded to the members' precision."""
        lr, momentum, coupled, decoupled = self.numbers
        steps = len(lr_factors)
        count = torch.arange(1, steps + 1, dtype=torch.float64, device=lr.device) + self.steps
        self.steps += steps
        lr = lr * lr_factors.to(lr.device)[:, None]
        parts = optim.Factors.of(lr, momentum, coupled, decoupled, count[:, None])
        table = torch.stack([p.expand(steps, lr.shape[1]) for p in parts], dim=1)
        return table.to(self._dtype)

    def _freeze_lost(self, epoch: int) -> None:
        lost = ~self.members.finite()
        for i in lost.nonzero().flatten().tolist():
            self.diverged[i] = epoch
            self.numbers[:, i] = 0
        if lost.any():
            self.members.silence(lost)

    @torch.no_grad()
    def measure(self, epoch: int) -> list[dict]:
        """History records of the members still in training."""
        net = _template(*_architecture(self.configs[0], self.dataset), train=False)
        values = measure(net, self.dataset, self.members)
        table = {k: v.double().tolist() for k, v in values.items()}
        return [
            {"member": i, "epoch": epoch} | {k: column[i] for k, column in table.items()}
            for i in range(len(self.configs))
            if self.diverged[i] is None
        ]

    def run_records(self, history: list[dict], seconds: float) -> list[dict]:
        """One record a member, from its config and its first and last history record."""
        return [
            self._run_record(i, [row for row in history if row["member"] == i], seconds)
            for i in range(len(self.configs))
        ]

    def _run_record(self, member: int, rows: list[dict], seconds: float) -> dict:
        epoch = self.diverged[member]
        nothing = dict.fromkeys(MEASURED, float("nan"))
        last = nothing if epoch is not None else {k: rows[-1][k] for k in MEASURED}
        return (
            asdict(self.configs[member])
            | {"status": "ok" if epoch is None else "diverged", "diverged_epoch": epoch}
            | last
            | {f"{k}_init": rows[0][k] for k in METRIC_KEYS}
            | {"wall_time_s": seconds}
        )


def _is_together(config: RunConfig) -> bool:
    return models.MODELS[config.model].together


def repays_compiling(
    config: RunConfig, dataset: Dataset | data.Streamed, device: str | None = None
) -> bool:
    """Whether the work is long enough to compile for, and it can be done; a warning says why not.

    Args:
        config, dataset: a run, and what it trains on.
        device: that is to train it, where the data are not there yet.
    """
    prepare_cache()
    if isinstance(dataset, data.Streamed):
        return False
    where = torch.device(device) if device else dataset.train_x.device
    return _is_long(config, dataset) and can_compile(where.type)


def _is_long(config: RunConfig, dataset: Dataset) -> bool:
    steps = config.epochs * -(-len(dataset.train_y) // config.batch_size)
    if _is_together(config):
        return steps >= COMPILE_FROM
    net = _template(*_architecture(config, dataset), train=False)
    return steps * sum(p.numel() for p in net.parameters()) >= COMPILE_FROM_UPDATES


def _numbers(configs: Sequence[RunConfig]) -> Tensor:
    """(4, M) in float64: lr, momentum, coupled and decoupled weight decay of each member."""
    columns = [
        (c.lr, c.momentum, *optim.split_decay(c.optimizer, c.weight_decay, c.coupled_share))
        for c in configs
    ]
    return torch.tensor(columns, dtype=torch.float64).T.contiguous()


def _architecture(config: RunConfig, dataset: Dataset) -> tuple:
    """What decides a network's shape: name, classes, input, width, depth."""
    shape = tuple(dataset.input_shape)
    return config.model, dataset.num_classes, shape, config.width, config.depth


def _initial(config: RunConfig, dataset: Dataset) -> models.Classifier:
    """The run's initialisation: from its seed alone, whatever else drew random numbers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        net = _build(*_architecture(config, dataset))
    dtype = torch.float64 if config.precision == "float64" else torch.float32
    return net.to(dataset.train_x.device, dtype)


def _build(
    model: str, num_classes: int, shape: tuple[int, ...], width: float, depth: int | None
) -> models.Classifier:
    return models.build(model, num_classes, shape[0], width, depth=depth, input_shape=shape)


@lru_cache(maxsize=32)
def _template(*architecture, train: bool) -> models.Classifier:
    """The module that members' tensors are put into, without tensors of its own."""
    with torch.device("meta"):
        return _build(*architecture).train(train)


@lru_cache(maxsize=32)
def _step(
    model, num_classes, shape, width, depth, direction, precision, clip, compiled
) -> Callable:
    """Made once a process, so that every chunk of a sweep uses what the first one compiled."""
    net = _template(model, num_classes, shape, width, depth, train=True)
    together = models.MODELS[model].together
    return make_step(net, direction, precision, together=together, compiled=compiled, clip=clip)
