"""Train a chunk of members and measure them while they train."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor, nn

from ncbook import metrics, models, optim
from ncbook.data import Dataset
from ncbook.train.config import RunConfig, check_samples, default_log_epochs, learning_rate_factor
from ncbook.train.step import Members, can_compile, features_of, make_step, part

METRIC_KEYS = metrics.KEYS
# Every number measured at a logged epoch; the singular values are those of Fig. 6.
MEASURED = (
    *("train_loss", "train_acc", "test_loss", "test_acc"),
    *METRIC_KEYS,
    *("w_sv_min", "w_sv_mean", "m_sv_min", "m_sv_mean"),
)
EVAL_BATCH = 2048  # samples in one forward pass while measuring
EVAL_ELEMENTS = 2**25  # features held at a time while measuring: 128 MB in float32
COMPILE_FROM = 15_000  # member steps of a chunk from which compiling pays
COMPILED_SHARE = 0.45  # of a plain step's time that a compiled one takes (MLP, CPU)
TIMED_STEPS = 8

OnEpoch = Callable[[int, int], None]


def train_members(
    configs: Sequence[RunConfig],
    dataset: Dataset,
    *,
    log_epochs: Sequence[int] | None = None,
    compiled: bool | None = None,
    on_epoch: OnEpoch | None = None,
) -> tuple[list[dict], list[dict]]:
    """Train all ``configs`` together and return their records.

    Args:
        configs: members; equal but for lr, momentum, weight decay and its coupling.
        dataset: their data, on the device that is to train them.
        log_epochs: epochs to measure at; 0, before the first step, and the last one are always
            among them. Default: ``default_log_epochs``.
        compiled: whether to use torch.compile; by default where the work is long enough to repay
            the time that compiling takes.
        on_epoch: called with (epoch, members) after each epoch.

    Returns:
        ``runs``, one record a member: its config, ``status`` (``ok`` or ``diverged``),
        ``diverged_epoch``, each of ``MEASURED`` at the end, each NC metric at the start as
        ``nc0_init`` and so on, ``wall_time_s`` (its share of the chunk's); and ``history``, one
        record a member and logged epoch. A member whose parameters stop being finite is frozen
        there and touches no other; its numbers at the end are NaN.

    Raises:
        ValueError: for members that cannot share a chunk, a log epoch outside the training, a
            class without a sample, or a last batch of one.
    """
    shared = _shared(configs)
    check_samples(shared, dataset)
    logged = _logged(log_epochs, shared.epochs)
    chunk = _Chunk.start(configs, dataset, compiled)
    began = time.perf_counter()
    history = chunk.measure(0)
    with _no_denormals():
        for epoch in range(shared.epochs):
            chunk.train_epoch(epoch)
            if epoch + 1 in logged:
                history += chunk.measure(epoch + 1)
            if on_epoch:
                on_epoch(epoch + 1, len(configs))
    seconds = (time.perf_counter() - began) / len(configs)
    return chunk.run_records(history, seconds), history


def step_seconds(configs: Sequence[RunConfig], dataset: Dataset) -> float:
    """Seconds that one step of this chunk takes, about: a few plain ones, on one thread, times
    what compiling saves."""
    chunk = _Chunk.start(configs, dataset, compiled=False)
    batch = torch.arange(min(configs[0].batch_size, len(dataset.train_y)))
    x, y = dataset.train_x[batch], dataset.train_y[batch]
    numbers = chunk._factors(1.0, TIMED_STEPS)
    members, threads = chunk.members, torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            chunk.step(members.params, members.buffers, members.state, x, y, numbers[0])
            began = time.perf_counter()
            for row in numbers[1:]:
                chunk.step(members.params, members.buffers, members.state, x, y, row)
    finally:
        torch.set_num_threads(threads)
    seconds = (time.perf_counter() - began) / (TIMED_STEPS - 1)
    return seconds * (COMPILED_SHARE if _repays_compiling(configs, dataset) else 1.0)


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
        config, device = configs[0], dataset.train_x.device
        dataset = _in_precision(dataset, config.precision)
        net = _network(config, dataset)
        members = Members.start(net, len(configs), config.direction)
        if compiled is None:
            compiled = _repays_compiling(configs, dataset)
        key = (config.model, dataset.num_classes, dataset.input_shape, config.width)
        step = _step(*key, config.direction, config.precision, compiled)
        order = torch.Generator().manual_seed(config.seed)
        numbers = _numbers(configs).to(device)
        return cls(configs, dataset, members, step, numbers, order, 0, [None] * len(configs))

    @torch.no_grad()
    def train_epoch(self, epoch: int) -> None:
        """One pass over the training set in this epoch's order, then freeze who was lost."""
        config, data, members = self.configs[0], self.dataset, self.members
        order = torch.randperm(len(data.train_y), generator=self.order).to(data.train_y.device)
        batches = order.split(config.batch_size)
        factors = self._factors(learning_rate_factor(epoch, config.epochs), len(batches))
        for batch, numbers in zip(batches, factors, strict=True):
            x, y = data.train_x[batch], data.train_y[batch]
            self.step(members.params, members.buffers, members.state, x, y, numbers)
        self._freeze_lost(epoch + 1)

    def _factors(self, lr_factor: float, steps: int) -> Tensor:
        """``optim.Factors`` of the next ``steps`` steps, (steps, 7, M), rounded to the members'
        precision."""
        lr, momentum, coupled, decoupled = self.numbers
        count = torch.arange(1, steps + 1, dtype=torch.float64, device=lr.device) + self.steps
        self.steps += steps
        parts = optim.Factors.of(lr * lr_factor, momentum, coupled, decoupled, count[:, None])
        table = torch.stack([p.expand(steps, len(lr)) for p in parts], dim=1)
        return table.to(self.members.params["fc.weight"].dtype)

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
        values = _measure(self.configs[0], self.dataset, self.members)
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


def _repays_compiling(configs: Sequence[RunConfig], dataset: Dataset) -> bool:
    steps = configs[0].epochs * -(-len(dataset.train_y) // configs[0].batch_size)
    return steps * len(configs) >= COMPILE_FROM and can_compile(dataset.train_x.device.type)


def _numbers(configs: Sequence[RunConfig]) -> Tensor:
    """(4, M) in float64: lr, momentum, coupled and decoupled weight decay of each member."""
    columns = [
        (c.lr, c.momentum, *optim.split_decay(c.optimizer, c.weight_decay, c.coupled_share))
        for c in configs
    ]
    return torch.tensor(columns, dtype=torch.float64).T.contiguous()


def _network(config: RunConfig, dataset: Dataset) -> models.Classifier:
    """The run's initialisation: from its seed alone, whatever else drew random numbers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        net = _build(config.model, dataset.num_classes, dataset.input_shape, config.width)
    dtype = torch.float64 if config.precision == "float64" else torch.float32
    return net.to(dataset.train_x.device, dtype)


def _in_precision(dataset: Dataset, precision: str) -> Dataset:
    """The data set in float64 if the members are (bfloat16 members start from float32)."""
    if precision != "float64" or not dataset.train_x.is_floating_point():
        return dataset
    return replace(dataset, train_x=dataset.train_x.double(), test_x=dataset.test_x.double())


def _build(model: str, num_classes: int, input_shape: Sequence[int], width: float):
    return models.build(model, num_classes, input_shape[0], width, input_shape=input_shape)


@lru_cache(maxsize=32)
def _step(
    model: str,
    num_classes: int,
    input_shape: tuple[int, ...],
    width: float,
    direction: str,
    precision: str,
    compiled: bool,
) -> Callable:
    """Made once a process, so that every chunk of a sweep uses what the first one compiled."""
    net = _build(model, num_classes, input_shape, width).train()
    return make_step(net, direction, precision, compiled)


def _measure(config: RunConfig, dataset: Dataset, members: Members) -> dict[str, Tensor]:
    """Each of ``MEASURED``, shape (M,): features in evaluation mode, no augmentation."""
    net = _network(config, dataset).eval()
    samples = len(dataset.train_y) + len(dataset.test_y)
    at_once = max(1, EVAL_ELEMENTS // (samples * net.fc.in_features))
    count = len(members.params["fc.weight"])
    pieces = []
    for first in range(0, count, at_once):
        rows = slice(first, first + at_once)
        params = {k: p[rows] for k, p in members.params.items()}
        buffers = {k: b[rows] for k, b in members.buffers.items()}
        pieces.append(_measure_some(net, dataset, params, buffers))
    return {k: torch.cat([piece[k] for piece in pieces]) for k in pieces[0]}


def _measure_some(net, dataset: Dataset, params, buffers) -> dict[str, Tensor]:
    fc = part(params, "fc.")
    train_h = _member_features(net, params, buffers, dataset.train_x)
    test_h = _member_features(net, params, buffers, dataset.test_x)
    values = {}
    for name, h, y in (("train", train_h, dataset.train_y), ("test", test_h, dataset.test_y)):
        values[f"{name}_loss"], values[f"{name}_acc"] = _loss_and_accuracy(h, y, **fc)
    values |= metrics.member_metrics(train_h, dataset.train_y, fc["weight"], fc.get("bias"), test_h)
    means = metrics.class_means(train_h, dataset.train_y, net.fc.out_features)
    centred = metrics.centred_means(means)
    for name, rows in (("w", fc["weight"]), ("m", centred)):
        smallest, others = metrics.singular_values(rows)
        values |= {f"{name}_sv_min": smallest, f"{name}_sv_mean": others}
    return values


def _member_features(net, params, buffers, x: Tensor) -> Tensor:
    """(M, N, p), one member after the other: nothing is shared, and vmap would move batch norm's
    inputs about (it took three times as long)."""
    rows = []
    for i in range(len(params["fc.weight"])):
        one, seen = ({k: t[i] for k, t in tensors.items()} for tensors in (params, buffers))
        rows.append(torch.cat([features_of(net, one, seen, some) for some in x.split(EVAL_BATCH)]))
    return torch.stack(rows)


def _loss_and_accuracy(
    features: Tensor, labels: Tensor, weight: Tensor, bias: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy and share of correct samples, each (M,)."""
    logits = features @ weight.mT  # (M, N, K)
    if bias is not None:
        logits += bias.unsqueeze(1)
    targets = labels.expand(len(logits), -1)
    loss = nn.functional.cross_entropy(logits.mT, targets, reduction="none").mean(1)
    return loss, (logits.argmax(-1) == targets).double().mean(1)
