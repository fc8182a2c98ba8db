"""``measure``: two passes over the training data, and one over the test data."""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only
from tqdm import tqdm

from ncbook import metrics, text
from ncbook.measure.batches import loader_of, split_batch
from ncbook.metrics.checks import checked_labels, float_tensor
from ncbook.models import layers as of_model
from ncbook.parameters import check_whole

PASSES = ("class means", "scatter about them", "test data")
MOVED = 0.05  # rounding moves by 1e-6, or by up to 0.02 in bfloat16; noise of 4 % by more
# What a network raises of inputs; a ValueError may be ours, of what a layer puts out.
REFUSALS = (RuntimeError, TypeError, LookupError, AttributeError, AssertionError)
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
    uncompiled and without gradients. Afterwards it is as before, as are the states of the random
    number generators: of torch (on the CPU and the model's GPUs), NumPy, Python, the loaders.
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
    check_settings(layers=layers, tokens=tokens, batch_size=batch_size)
    loaders = [loader_of("data", data, batch_size)] * 2
    loaders += [] if test_data is None else [loader_of("test_data", test_data, batch_size)]
    model = _plain(model)
    _check_device(model, device)
    with _undisturbed(model, loaders):
        walker = _Walker(model, loaders[0], head, layers, tokens)
        for stage, loader in enumerate(loaders):
            walker.walk(stage, tqdm(loader, PASSES[stage], leave=False, disable=not progress))
        return walker.measured()


def check_settings(
    *, layers: Any = None, tokens: Any = "mean", batch_size: Any = 256, **others: Any
) -> None:
    """Raise ``ValueError`` for those of ``measure``'s settings that no network could have."""
    check_whole("batch_size", batch_size, 1)
    if tokens not in of_model.TOKENS:
        raise ValueError(f"tokens must be {' or '.join(of_model.TOKENS)}, got {tokens!r}")
    again = isinstance(layers, Iterable) and not isinstance(layers, str | Iterator)
    if layers is not None and not (again and all(isinstance(name, str) for name in layers)):
        raise ValueError(f"layers must be a list of names, got {layers!r}")


def _plain(model: nn.Module) -> nn.Module:
    """The network inside DataParallel, DistributedDataParallel and torch.compile."""
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return _plain(model.module)
    return _plain(model._orig_mod) if hasattr(model, "_orig_mod") else model


def _check_device(model: nn.Module, device: str | torch.device | None) -> None:
    if not isinstance(model, nn.Module) or next(model.parameters(), None) is None:
        kind = type(model).__name__
        raise ValueError(f"model must be a torch.nn.Module with parameters, got {kind}")
    if any(weight.is_meta for weight in model.parameters()):
        raise ValueError("model is on the meta device, where weights have no values")
    there = next(model.parameters()).device
    if device is not None and str(device) not in (f"{there.type}:{there.index or 0}", there.type):
        raise ValueError(f"model is on {there}, not on {device}: move it with model.to(...)")


@contextmanager
def _undisturbed(model: nn.Module, loaders: Sequence[Iterable]) -> Iterator[None]:
    """Evaluation mode, no gradients, nothing compiled (which would not run hooks); then modes and
    random number generators are as before."""
    modes = {module: module.training for module in model.modules()}
    owners = [*loaders, *(getattr(loader, "batch_sampler", None) for loader in loaders)]
    owners += [getattr(owner, "sampler", None) for owner in owners]
    found = {getattr(owner, "generator", None) for owner in owners}
    states = [(g.set_state, g.get_state()) for g in found if isinstance(g, torch.Generator)]
    states.append((random.setstate, random.getstate()))
    states.append((np.random.set_state, np.random.get_state()))  # noqa: NPY002 (transforms use it)
    gpus = {weight.device for weight in model.parameters() if weight.is_cuda}
    kept = torch.random.fork_rng(gpus, device_type="cuda")
    with kept, torch.no_grad(), torch.compiler.set_stance("force_eager"):
        try:
            model.eval()
            yield
        finally:
            for module, mode in modes.items():
                module.training = mode
            for restore, state in states:
                restore(state)


class _Walker:
    """Passes batches through a network and adds up what its layers give."""

    def __init__(self, model: nn.Module, loader: Iterable, head, layers, tokens: str) -> None:
        """Find the head and the layers by passing the first samples through the model."""
        self.model, self.tokens = model, tokens
        batch = next(iter(loader), None)
        if batch is None:
            raise ValueError("data has no batch")
        inputs, labels = split_batch("data", batch)
        self.probed = min(PROBED, len(labels))
        run = partial(self._run, tree_map_only(Tensor, lambda tensor: tensor[:PROBED], inputs))
        found = {module: name for name, module in model.named_modules()}
        head = found.get(head, head) if isinstance(head, nn.Module) else head
        self.head = of_model.find_head(model, run) if head is None else head
        of_model.check_layers(model, [self.head, *(layers or ())])
        of_model.check_head(model, self.head)
        if layers is None:
            layers = of_model.default_layers(model, self.head, run)
        self._probe([layer for layer in layers if layer != self.head], run)
        # After a pass: hooks such as those of weight_norm set the weight before one.
        last = model.get_submodule(self.head)
        layer = [getattr(last, name, None) for name in ("weight", "bias")]
        self.stream = metrics.StreamingNCMetrics(*layer, distributed_available_fn=lambda: False)
        self.stream.to(last.weight.device)
        self.of_layers = {layer: metrics.LayerStream(len(last.weight)) for layer in self.widths}
        # Loss, correct samples and samples of each pass.
        self.sums = torch.zeros(len(PASSES), 3, dtype=torch.float64)

    def _probe(self, layers: list[str], run: Callable) -> None:
        """In which order the layers run, and which put out tokens before samples."""
        seen: dict[str, Tensor] = {}
        with of_model.listening(self.model, layers, lambda name, _, out: seen.update({name: out})):
            run()
        order = [*seen, *(layer for layer in layers if layer not in seen), self.head]
        self.second = {n for n, out in seen.items() if of_model.tokens_first(out, self.probed)}
        self.widths = {layer: of_model.channel_widths(self.model, layer) for layer in order}

    def _run(self, inputs: tuple[tuple, dict]) -> Any:
        """The model's output; inputs go to its device and, if they are floating, its precision."""
        like = next(self.model.parameters())
        given, named = tree_map_only(
            Tensor, lambda x: x.to(like if x.is_floating_point() else like.device), inputs
        )
        try:
            return self.model(*given, **named)
        except REFUSALS as error:  # such as of sizes that do not fit
            said = text.line(f"{type(error).__name__}: {error}", 300)
            shape = tuple(of_model.tensors([given, named])[0].shape[1:])
            what = f"inputs of shape {shape}" if shape else "these inputs"
            raise ValueError(f"the network cannot take {what} ({said})") from error

    def walk(self, stage: int, batches: Iterable) -> None:
        """One pass over the data."""
        if stage > 0:
            for stream in (self.stream, *self.of_layers.values()):
                stream.next_pass()
        kind = "test_" if stage == 2 else ""
        weight = self.stream.weight
        with of_model.listening(self.model, list(self.of_layers), self._hear):
            for batch in batches:
                inputs, labels = split_batch(f"{kind}data", batch)
                labels = labels.to(weight.device)
                samples = weight.new_empty((*labels.shape[:1], 1))
                self.labels = checked_labels(labels, samples, len(weight), kind)
                self.heard = set()
                self._run(inputs)
                if missing := [name for name in self.of_layers if name not in self.heard]:
                    raise ValueError(f"layer {missing[0]} does not run in a forward pass")
                self._count()
        if not self.sums[stage, -1]:
            again = "" if stage == 2 else " when it is walked through again"
            raise ValueError(f"{kind}data has no batch{again}")

    def _hear(self, name: str, given: Tensor, output: Tensor) -> None:
        if name in self.heard:
            raise ValueError(f"layer {name} runs more than once in a forward pass: leave it out")
        self.heard.add(name)
        if name == self.head:
            self.stream.update(given, self.labels)
            self.logits = output
        else:
            count, widths = len(self.labels), self.widths[name]
            second = name in self.second
            given = of_model.pooled(name, output, count, widths, self.tokens, second)
            given = float_tensor(f"the features of layer {name}", given)
        self.of_layers[name].update(given, self.labels)

    def _count(self) -> None:
        """Loss and correct samples, by the output of the last layer."""
        logits = self.logits.double()
        loss = nn.functional.cross_entropy(logits, self.labels, reduction="sum")
        correct = (logits.argmax(1) == self.labels).sum()
        found = [loss.item(), correct.item(), len(self.labels)]
        self.sums[self.stream.stage] += torch.tensor(found, dtype=torch.float64)

    def measured(self) -> Measured:
        """After the last pass."""
        values = self.stream.compute()
        if self.of_layers[self.head].moved > MOVED:
            raise ValueError(
                "data give other samples in the second walk: are they augmented or drawn at random?"
            )
        for split, stage in (("train", 0), ("test", 2)):
            loss, correct, count = self.sums[stage].tolist()
            if count:
                values |= {f"{split}_loss": loss / count, f"{split}_acc": correct / count}
        rows = [
            {"position": place, "layer": layer, "width": stream.width} | stream.compute()
            for place, (layer, stream) in enumerate(self.of_layers.items(), 1)
        ]
        rows[-1]["layer"] = f"input of {self.head}"
        of_head = self.stream.means, self.stream.weight, self.stream.bias
        return Measured(values, pd.DataFrame(rows), self.head, *of_head)
