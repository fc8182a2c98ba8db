"""What is measured at a logged epoch (losses, accuracies, NC metrics, singular values), as records.

One forward pass over the training set and one over the test set, in evaluation mode, in float32 (or
float64) and without augmentation; everything is worked out from the features of these two.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ncbook import metrics, models
from ncbook.data import Dataset
from ncbook.metrics.features import unchecked_means
from ncbook.models import Classifier
from ncbook.models.layers import channel_widths, pooled
from ncbook.train.config import RunConfig, default_log_epochs
from ncbook.train.step import Members, Named, features_of, member, part

# Every number measured at a logged epoch; the singular values are those of Fig. 6.
MEASURED = (
    *("train_loss", "train_acc", "test_loss", "test_acc"),
    *metrics.KEYS,
    *("w_sv_min", "w_sv_mean", "m_sv_min", "m_sv_mean"),
)
MOST_AT_ONCE, LEAST_AT_ONCE = 2048, 16  # samples in one forward pass
EVAL_INPUTS = 2**18  # numbers that go into one: 256 grey images of 32 x 32
EVAL_FEATURES = 2**25  # features held at a time: 128 MB in float32
PROBED = 2  # samples that show in which order the layers run


def logged_epochs(asked: Sequence[int] | None, epochs: int) -> set[int]:
    """The epochs to measure at: those asked for, or the default ones, and both ends."""
    wrong = [e for e in asked or () if not 0 <= e <= epochs]
    if wrong:
        raise ValueError(f"log_epochs must lie in 0..{epochs}, got {wrong}")
    return {0, epochs, *(default_log_epochs(epochs) if asked is None else asked)}


def run_record(config: RunConfig, rows: list[dict], diverged: int | None, seconds: float) -> dict:
    """A run's record, from its history's first and last row; numbers that it lacks are NaN."""
    nothing = dict.fromkeys(MEASURED, float("nan"))
    first = rows[0] if rows else nothing
    last = rows[-1] if diverged is None else nothing
    return (
        asdict(config)
        | {"status": "ok" if diverged is None else "diverged", "diverged_epoch": diverged}
        | {key: last[key] for key in MEASURED}
        | {f"{key}_init": first[key] for key in metrics.KEYS}
        | {"wall_time_s": seconds}
    )


def measure(net: Classifier, dataset: Dataset, members: Members) -> dict[str, Tensor]:
    """Each of ``MEASURED``, shape (M,); ``net`` is the members' module, in evaluation mode."""
    samples = len(dataset.train_y) + len(dataset.test_y)
    at_once = max(1, EVAL_FEATURES // (samples * net.fc.in_features))
    pieces = []
    for first in range(0, len(members), at_once):
        rows = slice(first, first + at_once)
        some = member(members.params, rows), member(members.buffers, rows)
        pieces.append(_measure_some(net, dataset, *some))
    return {k: torch.cat([piece[k] for piece in pieces]) for k in pieces[0]}


def _measure_some(
    net: Classifier, dataset: Dataset, params: Named, buffers: Named
) -> dict[str, Tensor]:
    fc = part(params, "fc.")
    train_h, test_h = (
        member_features(net, params, buffers, dataset, x) for x in (dataset.train_x, dataset.test_x)
    )
    values = {}
    for name, h, y in (("train", train_h, dataset.train_y), ("test", test_h, dataset.test_y)):
        values[f"{name}_loss"], values[f"{name}_acc"] = loss_and_accuracy(h, y, **fc)
    given = (train_h, dataset.train_y, fc["weight"], fc.get("bias"), test_h)
    means = unchecked_means(train_h, dataset.train_y, net.fc.out_features)
    values |= metrics.member_metrics(*given, means=means)
    return values | singular_values(fc["weight"], means)


def singular_values(weight: Tensor, means: Tensor) -> dict[str, Tensor]:
    """``w_sv_min`` and so on, (M,): of W (M, K, p), and of M from the class means (M, K, p)."""
    values = {}
    for name, rows in (("w", weight), ("m", metrics.centred_means(means))):
        smallest, others = metrics.singular_values(rows)
        values |= {f"{name}_sv_min": smallest, f"{name}_sv_mean": others}
    return values


def member_features(
    net: Classifier, params: Named, buffers: Named, dataset: Dataset, x: Tensor
) -> Tensor:
    """(M, N, p), one member after the other: nothing is shared, and vmap would move batch norm's
    inputs about (it took three times as long)."""
    rows = []
    for i in range(len(params["fc.weight"])):
        one, seen = member(params, i), member(buffers, i)
        some = eval_batches(dataset, x, params["fc.weight"].dtype)
        rows.append(torch.cat([features_of(net, one, seen, batch) for batch in some]))
    return torch.stack(rows)


def eval_batches(dataset: Dataset, x: Tensor, dtype: torch.dtype) -> Iterator[Tensor]:
    """All samples, as many at a time as go into one forward pass."""
    at_once = min(MOST_AT_ONCE, max(LEAST_AT_ONCE, EVAL_INPUTS // x[0].numel()))
    return (network_input(dataset, batch, dtype) for batch in x.split(at_once))


def network_input(dataset: Dataset, x: Tensor, dtype: torch.dtype) -> Tensor:
    """A batch of the data set as a network of ``dtype`` takes it. Images are channels last: so a
    step took 8 % less time on a CPU (ResNet9), and 18 % to 29 % less (of width 1/8)."""
    x = dataset.inputs(x)
    x = x.to(dtype) if x.is_floating_point() else x
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


def loss_and_accuracy(
    features: Tensor, labels: Tensor, weight: Tensor, bias: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy and share of correct samples, each (M,); features (M, N, p)."""
    logits = features @ weight.mT  # (M, N, K)
    if bias is not None:
        logits += bias.unsqueeze(1)
    targets = labels.expand(len(logits), -1)
    loss = nn.functional.cross_entropy(logits.mT, targets, reduction="none").mean(1)
    return loss, (logits.argmax(-1) == targets).double().mean(1)


@torch.no_grad()
def layer_names(net: Classifier, dataset: Dataset) -> list[str]:
    """The stages of a network that is not trained yet, and its last layer."""
    x = network_input(dataset, dataset.train_x[:PROBED], net.fc.weight.dtype)
    return [*models.default_layers(net.eval(), "fc", lambda: net(x)), "fc"]


@torch.no_grad()
def layer_records(
    net: Classifier, dataset: Dataset, params: Named, buffers: Named, names: Sequence[str]
) -> list[dict]:
    """A record for each layer of one member, as in ``ncbook.measure.Measured.layers``: of what it
    puts out, and of the last layer's input. ``net`` is in evaluation mode."""
    # Copies, aligned alike whatever the member's place in its chunk: same bits.
    tensors = {k: t.clone() for k, t in (params | buffers).items()}
    streams = {name: metrics.LayerStream(net.fc.out_features) for name in names}
    widths = {name: channel_widths(net, name) for name in names}
    labels: Tensor

    def heard(name: str, given: Tensor, output: Tensor) -> None:
        output = given if name == "fc" else pooled(name, output, len(labels), widths[name])
        streams[name].update(output, labels)

    train, test = (dataset.train_x, dataset.train_y), (dataset.test_x, dataset.test_y)
    with models.listening(net, names, heard):
        for walk, (x, y) in enumerate((train, train, test)):
            for stream in streams.values() if walk else ():
                stream.next_pass()
            done = 0
            for batch in eval_batches(dataset, x, params["fc.weight"].dtype):
                labels = y[done : done + len(batch)]
                done += len(batch)
                functional_call(net, tensors, (batch,))
    return [
        {"position": place, "layer": "input of fc" if name == "fc" else name}
        | {"width": stream.width, **stream.compute()}
        for place, (name, stream) in enumerate(streams.items(), 1)
    ]
