"""``measure``: two passes over the training data, and one over the test data."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from ncbook import metrics
from ncbook.measure.batches import (
    class_numbers,
    count_of,
    loader_of,
    mapped,
    run_on,
    split_batch,
)
from ncbook.metrics.checks import checked_layer, float_tensor
from ncbook.models import layers as of_model
from ncbook.parameters import check_whole

PASSES = ("class means", "scatter about them", "test data")
ONCE = "the second walk through it; does it give its batches only once?"
PROBED = 2  # samples that show in which order the layers run


@dataclass(frozen=True, eq=False)
class Measured:
    """What ``measure`` found.

    Args:
        metrics: each of ``metrics.KEYS`` (nc4 with test data), and ``train_loss``, ``train_acc``,
            with test data also ``test_loss``, ``test_acc``.
        layers: one row a layer, in the order in which they run: ``position`` from 1, ``layer``,
            its ``width`` p, and ``metrics.LAYER_KEYS``. The last one is the head's input.
        head: name of the last layer.
        means: class means of its input, float64 (K, p).
        weight, bias: its own, (K, p), and (K,) or None.
    """

    metrics: dict[str, float]
    layers: pd.DataFrame
    head: str
    means: Tensor
    weight: Tensor
    bias: Tensor | None


def measure(
    model: nn.Module,
    data: Any,
    *,
    head: str | nn.Module | None = None,
    layers: Sequence[str] | None = None,
    test_data: Any = None,
    tokens: str = "mean",
    device: str | torch.device | None = None,
    batch_size: int = 256,
    progress: bool = True,
) -> Measured:
    """All metrics of a classifier's last layer, and how collapsed each layer before it is.

    The same numbers as ``nc_metrics`` of the last layer's inputs, in two walks through the data,
    with memory that does not grow with them. The network is in evaluation mode meanwhile, runs
    uncompiled and without gradients, and is as before afterwards, as are torch's random numbers.
    Nothing is shared between processes: each measures what it is given.

    Args:
        model: any network whose logits, (N, K), are those of a linear layer.
        data: training samples, without augmentation: a DataLoader (shuffled or not) or another
            iterable that can be walked through again, a Dataset, or a pair (inputs, labels). A
            batch is (inputs, labels), or a dict with ``labels``.
        head: the last layer, or its name. None: the linear layer whose output is the model's.
        layers: names of modules, as of ``model.named_modules()``. None: each block, and each
            weighted layer with the norm, activation and pooling after it. []: none.
        test_data: as ``data``, for nc4 and the test columns.
        tokens: ``mean`` over the tokens of a layer's output (N, T, D), or ``class``, the first
            one alone. Images (N, C, H, W) are averaged over space.
        device: None is the model's own; another one is refused.
        batch_size: of a Dataset and of tensors.
        progress: whether to show a bar.

    Raises:
        ValueError: in one line: data, labels, layers or a head that cannot be used; a class
            without samples; features that are not finite, and of which layer; data that give
            other samples in the second walk.
    """
    check_whole("batch_size", batch_size, 1)
    if tokens not in of_model.TOKENS:
        raise ValueError(f"tokens must be {' or '.join(of_model.TOKENS)}, got {tokens!r}")
    if isinstance(layers, str):
        raise ValueError(f"layers must be a list of names, got {layers!r}")
    loaders = [loader_of("data", data, batch_size)] * 2
    loaders += [] if test_data is None else [loader_of("test_data", test_data, batch_size)]
    model = _plain(model)
    with _evaluating(model):
        walker = _Walker.start(model, loaders[0], head, layers, tokens, device)
        for stage, loader in enumerate(loaders):
            bar = tqdm(loader, PASSES[stage], count_of(loader), leave=False, disable=not progress)
            walker.walk(stage, bar)
        return walker.measured()


def _plain(model: nn.Module) -> nn.Module:
    """The network inside DataParallel, DistributedDataParallel and torch.compile."""
    if not isinstance(model, nn.Module) or isinstance(model, torch.jit.ScriptModule):
        raise ValueError(f"model must be a torch.nn.Module in Python, got {type(model).__name__}")
    wrappers = nn.DataParallel, nn.parallel.DistributedDataParallel
    if isinstance(model, wrappers):
        return _plain(model.module)
    return _plain(model._orig_mod) if hasattr(model, "_orig_mod") else model


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, no gradients, nothing compiled (which would not run hooks); then all as
    before, random numbers included."""
    modes = {module: module.training for module in model.modules()}
    eager = torch.compiler.set_stance("force_eager")
    with torch.random.fork_rng(devices=[]), torch.no_grad(), eager:
        try:
            model.eval()
            yield
        finally:
            for module, mode in modes.items():
                module.training = mode


@dataclass
class _Walker:
    """Passes batches through a network and adds up what its layers give."""

    model: nn.Module
    head: str
    widths: dict[str, list[int]]  # of the layers
    tokens: str
    stream: "metrics.StreamingNCMetrics"
    of_layers: dict[str, metrics.LayerStream]
    sums: Tensor  # of each pass: loss, correct samples, samples

    @classmethod
    def start(
        cls, model: nn.Module, loader: Iterable, head, layers, tokens: str, device
    ) -> "_Walker":
        """With the head and the layers found by passing the first samples through the model."""
        _check_device(model, device)
        batch = next(iter(loader), None)
        if batch is None:
            raise ValueError("data has no batch")
        inputs, _ = split_batch("data", batch)
        few = mapped(_placed(model, inputs), lambda tensor: tensor[:PROBED])
        name = _head_name(model, head, lambda: run_on(model, few))
        if layers is None:
            layers = of_model.default_layers(model, name, lambda: run_on(model, few))
        of_model.check_layers(model, layers)
        last = model.get_submodule(name)
        weight, bias = checked_layer(last.weight, getattr(last, "bias", None))
        stream = metrics.StreamingNCMetrics(weight, bias, distributed_available_fn=lambda: False)
        widths = {layer: of_model.channel_widths(model, layer) for layer in layers if layer != name}
        of_layers = {layer: metrics.LayerStream(len(weight)) for layer in (*widths, name)}
        sums = torch.zeros(len(PASSES), 3, dtype=torch.float64)
        return cls(model, name, widths, tokens, stream.to(weight.device), of_layers, sums)

    def walk(self, stage: int, batches: Iterable) -> None:
        """One pass over the data."""
        if stage > 0:
            self._next_pass()
        what = "test_data" if stage == 2 else "data"
        with of_model.listening(self.model, list(self.of_layers), self._hear):
            for batch in batches:
                inputs, labels = split_batch(what, batch)
                labels = class_numbers(what, labels, len(self.stream.weight))
                self.labels, self.heard = labels.to(self.stream.weight.device), set()
                run_on(self.model, _placed(self.model, inputs))
                self._check_all_heard()
        if not self.sums[stage, 2]:
            raise ValueError(f"{what} has no batch" + (f" in {ONCE}" if stage == 1 else ""))

    def _next_pass(self) -> None:
        self.stream.next_pass()
        for stream in self.of_layers.values():
            stream.next_pass()

    def _hear(self, name: str, given: Tensor, output: Tensor) -> None:
        if name in self.heard:
            raise ValueError(f"layer {name} runs more than once in a forward pass: leave it out")
        self.heard.add(name)
        count = len(self.labels)
        if name == self.head:
            features = self._features(f"the input of {name}", given)
            self.stream.update(features, self.labels)
            self._count(output)
        else:
            features = of_model.pooled(name, output, count, self.widths[name], self.tokens)
            features = float_tensor(f"the features of layer {name}", features)
        self.of_layers[name].update(features, self.labels)

    def _features(self, what: str, given: Tensor) -> Tensor:
        shape = len(self.labels), self.stream.weight.shape[1]
        if tuple(given.shape) != shape:
            raise ValueError(f"{what} must have shape (n, p) = {shape}, got {tuple(given.shape)}")
        return float_tensor(what, given)

    def _count(self, logits: Tensor) -> None:
        logits = logits.double()
        loss = nn.functional.cross_entropy(logits, self.labels, reduction="sum")
        correct = (logits.argmax(1) == self.labels).sum()
        found = [loss.item(), correct.item(), len(self.labels)]
        self.sums[self.stream.stage] += torch.tensor(found, dtype=torch.float64)

    def _check_all_heard(self) -> None:
        if missing := [name for name in self.of_layers if name not in self.heard]:
            raise ValueError(f"layer {missing[0]} does not run in a forward pass: leave it out")

    def measured(self) -> Measured:
        """After the last pass."""
        values = self.stream.compute()
        for split, stage in (("train", 0), ("test", 2)):
            loss, correct, count = self.sums[stage].tolist()
            if count:
                values |= {f"{split}_loss": loss / count, f"{split}_acc": correct / count}
        rows = [
            {"position": place, "layer": layer, "width": stream.width} | stream.compute()
            for place, (layer, stream) in enumerate(self.of_layers.items(), 1)
        ]
        rows[-1]["layer"] = f"input of {self.head}"
        stream = self.stream
        return Measured(
            values, pd.DataFrame(rows), self.head, stream.means, stream.weight, stream.bias
        )


def _check_device(model: nn.Module, device: str | torch.device | None) -> None:
    first = next(model.parameters(), None)
    if first is None:
        raise ValueError("model has no parameters")
    wanted = first.device if device is None else torch.device(device)
    if wanted.type != first.device.type or wanted.index not in (None, first.device.index):
        raise ValueError(f"model is on {first.device}, not on {wanted}: move it with model.to(...)")


def _placed(model: nn.Module, inputs: Any) -> Any:
    """The inputs on the model's device and, if they are floating, in its precision."""
    first = next(model.parameters())

    def place(tensor: Tensor) -> Tensor:
        dtype = first.dtype if tensor.is_floating_point() else tensor.dtype
        return tensor.to(first.device, dtype)

    return mapped(inputs, place)


def _head_name(model: nn.Module, head: str | nn.Module | None, run) -> str:
    if head is None:
        return of_model.find_head(model, run)
    if isinstance(head, nn.Module):
        names = [name for name, module in model.named_modules() if module is head]
        if not names:
            raise ValueError("head is no module of model")
        head = names[0]
    of_model.check_layers(model, [head])
    if getattr(model.get_submodule(head), "weight", torch.empty(0)).dim() != 2:
        raise ValueError(f"head {head} has no weight of shape (K, p)")
    return head
