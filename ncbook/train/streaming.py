"""Train one run on images that do not fit memory, on one device or on several.

It is the ordinary loop: one module, one optimizer, loader processes that decode images, and torch's
DistributedDataParallel, which averages the gradients of several processes. Each takes its share of
every minibatch, so that a run does not depend on how many there are. Batch norm does: on GPUs its
statistics are those of the whole minibatch, on the CPU those of each process's share, and the first
process's running statistics are the run's.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from dask.system import CPU_COUNT
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ncbook import data, models, optim
from ncbook.parameters import check_whole, device_named
from ncbook.train.checkpoint import load_checkpoint, save_checkpoint
from ncbook.train.config import RunConfig, check_samples
from ncbook.train.context import training
from ncbook.train.feed import Feed, Meter
from ncbook.train.loop import OnEpoch, initial_network, minibatches
from ncbook.train.measure import logged_epochs, run_record
from ncbook.train.moves import HEAD, decay_groups
from ncbook.train.processes import in_processes
from ncbook.train.step import logits_of

FINITE_EVERY = 100  # steps between looks at whether a run is lost: an epoch may take an hour
TIMED_STEPS = 3
PROGRESS = ("epoch", "history", "seconds")  # of a run, in its checkpoint


def train_streaming(
    config: RunConfig,
    dataset: data.Streamed,
    *,
    log_epochs: Sequence[int] | None = None,
    checkpoint: Path | None = None,
    device: str = "cpu",
    devices: int = 1,
    loaders: int | None = None,
    deterministic: bool = False,
    on_epoch: OnEpoch | None = None,
) -> tuple[list[dict], list[dict]]:
    """Train one run and return its records, of the same form as those of ``train_members``.

    More than one device, and loader processes, are new Python processes: a script that calls this
    needs the usual ``if __name__ == "__main__":``, a notebook needs nothing.

    Args:
        config: the run.
        dataset: its images, from ``data.load("imagenet:PATH")``.
        log_epochs: epochs to measure at; see ``train_members``.
        checkpoint: this run's own file, written after each epoch; None writes none. The run goes
            on from it: on a CPU the result is, to the bit, that of a run that was not interrupted.
            Delete it once the records are stored.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        devices: how many GPUs, or processes on the CPU, share each minibatch.
        loaders: processes a device that decode images; 0 decodes in the training process. By
            default the machine's cores, divided among the devices.
        deterministic: see ``train_members``.
        on_epoch: called with (epoch, 1) after each epoch; once more for those before a resumption.

    Returns:
        ``runs``, one record, and ``history``, one record a logged epoch. A run whose parameters,
        moving averages or features stop being finite ends there as ``diverged``.

    Raises:
        ValueError: arguments or samples that cannot be trained with; an image that cannot be read,
            which is named.
        OSError: no room for the checkpoint or the features.
        MemoryError: a batch does not fit; it says what to make smaller.
    """
    _check(config, dataset, device, devices)
    logged = frozenset(logged_epochs(log_epochs, config.epochs))
    if checkpoint is not None:
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        load_checkpoint(checkpoint)  # sets aside, once, what the run cannot go on from
    if loaders is None:
        loaders = max(1, CPU_COUNT // devices)
    run = _Run(config, dataset, logged, checkpoint, device, devices, loaders, deterministic)
    on_epoch = on_epoch or (lambda epoch, members: None)
    return _train(run, on_epoch) if devices == 1 else in_processes(_train, run, on_epoch)


def stream_step_seconds(config: RunConfig, dataset: data.Streamed, device: str = "cpu") -> float:
    """Seconds that one step takes, about: the slower of training and of decoding, each timed on one
    process of one device."""
    _check(config, dataset, device, 1)
    run = _Run(config, dataset, frozenset(), None, device, 1, 0, False)
    run.start()
    batch = torch.arange(min(config.batch_size, len(dataset.train_y)))
    began = time.perf_counter()
    (x,) = run.feed.batches("train", [batch])
    decoding = (time.perf_counter() - began) / CPU_COUNT
    y = dataset.train_y[batch].to(run.place)
    run.step(x, y, len(batch))
    began = time.perf_counter()
    for _ in range(TIMED_STEPS):
        run.step(x, y, len(batch))
    run.is_finite()  # waits for the GPU
    return max(decoding, (time.perf_counter() - began) / TIMED_STEPS)


def _check(config: RunConfig, dataset: data.Streamed, device: str, devices: int) -> None:
    check_samples(config, dataset)
    check_whole("devices", devices, 1)
    if ":" in device and devices > 1:
        raise ValueError(f"device {device!r} is one device: devices must be 1, got {devices}")
    device_named(device, torch.cuda.device_count())  # or an error
    last = len(dataset.train_y) % config.batch_size or config.batch_size
    if last < 2 * devices:
        raise ValueError(
            f"batch_size {config.batch_size} leaves a last batch of {last} of "
            f"{len(dataset.train_y)} samples, and {devices} devices need {2 * devices}"
        )


def _train(run: _Run, on_epoch: OnEpoch) -> tuple[list[dict], list[dict]]:
    """The run's records, in each of its processes."""
    with training(run.config, 1, run.deterministic):
        run.start()
        run.begin()
        for epoch in range(run.epoch):
            on_epoch(epoch + 1, 1)
        while run.diverged is None and run.epoch < run.config.epochs:
            run.advance()
            on_epoch(run.epoch, 1)
        record = run_record(run.config, run.history, run.diverged, run.seconds)
        return [record], run.history


@dataclass
class _Run:
    """A run, and in each of its processes the network, its optimizers, and how far they are."""

    config: RunConfig
    dataset: data.Streamed
    logged: frozenset[int]
    checkpoint: Path | None
    device: str
    devices: int
    loaders: int
    deterministic: bool
    epoch: int = 0
    history: list[dict] = field(default_factory=list)
    seconds: float = 0.0
    diverged: int | None = None

    def start(self) -> None:
        """Make what only the process that trains can have."""
        config, several = self.config, self.devices > 1
        self.rank = torch.distributed.get_rank() if several else 0
        gpus = [self.rank] if several and self.device == "cuda" else None  # this process's one
        self.place = torch.device("cuda", self.rank) if gpus else torch.device(self.device)
        dtype = torch.float64 if config.precision == "float64" else torch.float32
        net = initial_network(config, self.dataset)
        net = net.to(self.place, dtype, memory_format=torch.channels_last)
        if gpus:
            torch.cuda.set_device(self.place)
            net = nn.SyncBatchNorm.convert_sync_batchnorm(net)
        self.net, self.loss = net, Loss(net, config.precision)
        if several:
            self.loss = nn.parallel.DistributedDataParallel(self.loss, gpus)
        self.optimizers = build_optimizers(config, net)
        self.order = torch.Generator().manual_seed(config.seed)
        self.feed = Feed(self.dataset, config.seed, self.loaders, self.place, dtype)

    def begin(self) -> None:
        """Go on from the checkpoint, or measure the network before its first step."""
        share = -(-self.config.batch_size // self.devices)
        self.meter = Meter(self.net, self.feed, share, self.rank, self.devices)
        found = self.checkpoint and load_checkpoint(self.checkpoint)
        if not found:
            began = time.perf_counter()
            self._measure()
            self.seconds = time.perf_counter() - began
            return
        self.net.load_state_dict(found["net"])
        for optimizer, state in zip(self.optimizers, found["optimizer"], strict=True):
            optimizer.load_state_dict(state)
        self.order.set_state(found["order"])
        vars(self).update({name: found[name] for name in PROGRESS})

    def advance(self) -> None:
        """Train one epoch; measure, if it is time to; and write a checkpoint."""
        began = time.perf_counter()
        self._train_epoch()
        if self.epoch in self.logged and self.diverged is None:
            self._measure()
        self.seconds += time.perf_counter() - began
        if self.rank == 0 and self.checkpoint and self.diverged is None:
            states = {
                "net": self.net.state_dict(),
                "optimizer": [optimizer.state_dict() for optimizer in self.optimizers],
                "order": self.order.get_state(),
            }
            save_checkpoint(self.checkpoint, states | {k: getattr(self, k) for k in PROGRESS})

    def _train_epoch(self) -> None:
        batches, factors = minibatches(self.config, self.dataset, self.order, self.epoch)
        shares = [batch[self.rank :: self.devices] for batch in batches]
        inputs = self.feed.batches("train", shares, self.epoch if self.config.augment else None)
        self.loss.train()
        for step, (x, factor) in enumerate(zip(inputs, factors.tolist(), strict=True)):
            set_rates(self.optimizers, factor)
            y = self.dataset.train_y[shares[step]].to(self.place)
            self.step(x, y, len(batches[step]))
            if (step + 1) % FINITE_EVERY == 0 and not self.is_finite():
                break
        self.epoch += 1
        if not self.is_finite():
            self.diverged = self.epoch
        if self.devices > 1:
            for buffer in self.net.buffers():
                torch.distributed.broadcast(buffer, 0)

    def step(self, x: Tensor, y: Tensor, batch_size: int) -> None:
        """One step on this process's share of a minibatch of ``batch_size``; the gradients of the
        processes are averaged."""
        self.net.zero_grad()
        (self.loss(x, y) * (self.devices / batch_size)).backward()
        if self.config.clip is not None:
            nn.utils.clip_grad_norm_(self.net.parameters(), self.config.clip)
        for optimizer in self.optimizers:
            optimizer.step()

    def is_finite(self) -> bool:
        """Whether all parameters and moving averages are; see ``Members.finite``."""
        slots = tree_leaves([list(o.state.values()) for o in self.optimizers])
        tensors = [*self.net.parameters(), *filter(torch.is_tensor, slots)]
        return bool(torch.stack([t.isfinite().all() for t in tensors]).all())

    def _measure(self) -> None:
        """Add a record to the history, or end the run if a feature is not finite."""
        try:
            self.history.append({"member": 0, "epoch": self.epoch} | self.meter.measure())
        except FloatingPointError:
            self.diverged = self.epoch


class Loss(nn.Module):
    """Summed cross-entropy of a minibatch."""

    def __init__(self, net: models.Classifier, precision: str) -> None:
        super().__init__()
        self.net, self.precision = net, precision

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        fc = dict(self.net.fc.named_parameters())
        logits = logits_of(self.net.body, fc, x, self.precision)
        return nn.functional.cross_entropy(logits, y, reduction="sum")


def set_rates(optimizers: Sequence[torch.optim.Optimizer], factor: float) -> None:
    """The learning rates of the next step: those that the optimizers were made with, times this."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = optimizer.defaults["lr"] * factor


def build_optimizers(config: RunConfig, net: nn.Module) -> list[torch.optim.Optimizer]:
    """One for the network, and one for the last layer if that moves in its own way; with weight
    decay on the parameters that are to decay."""
    named, updates = dict(net.named_parameters()), config.updates
    parts = [named]
    if config.head_optimizer is not None or config.centred_head:
        heads = {name: p for name, p in named.items() if name.startswith(HEAD)}
        parts = [{name: p for name, p in named.items() if name not in heads}, heads]
        updates = [updates[0], updates[-1]]
    groups = [decay_groups(part, models.decayed(net)) for part in parts]
    for group in groups[-1] if config.centred_head else ():
        group["centred"] = True
    optimizers = []
    for (name, *numbers), own in zip(updates, groups, strict=True):
        if optim.is_own(name):
            optimizers.append(optim.own.build(name, own, *numbers))
            continue
        share = config.coupled_share if optim.is_mixed(name) else None
        for_matrices = optim.rule(name).direction in optim.FOR_MATRICES
        more = (config.vector_lr, config.update_precision) if for_matrices else ()
        optimizers.append(optim.Optimizer(own, name, *numbers, share, *more))
    return optimizers
