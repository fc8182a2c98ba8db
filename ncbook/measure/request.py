"""The parameters of the notebook ``measure``: read, checked, and made into what is measured."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ncbook import data, models, own, parameters, text
from ncbook.measure.inputs import NORMALISATIONS, Source, load_data
from ncbook.measure.loading import TORCHVISION, VALID, check_model, load_model, read_checkpoint
from ncbook.measure.measuring import Measured, measure
from ncbook.models.layers import TOKENS, tensors
from ncbook.parameters import FIELDS, FROM_1, NAME, NUMBER, WHOLE, ParameterError, Row

IMAGENET_SIDE = 224  # pixels, of torchvision's networks
SIDES = range(1, data.loading.LARGEST_IMAGE_SIZE + 1)
WIDTH, DEPTH = FIELDS["width"], FIELDS["depth"]
GROUP = "Measure"
TABLE = (
    Row("checkpoint", NAME, GROUP, "file of weights", empty="random weights"),
    Row("model", NAME, GROUP, "network", empty="an example"),
    Row("dataset", NAME, GROUP, "data", "digits"),
    Row("head", NAME, GROUP, "name of the last layer", empty="found"),
    Row("layers", NAME, GROUP, "names of layers", empty="each block", many=True),
    Row("tokens", NAME, GROUP, "of a transformer's tokens", "mean", TOKENS),
    Row("image_size", WHOLE, GROUP, "side of the images", None, SIDES),
    Row("train_size", WHOLE, GROUP, "training samples", None, FROM_1),
    Row("batch_size", WHOLE, GROUP, "samples a batch", 256, FROM_1),
    Row("normalise", NAME, GROUP, "mean and deviation of", "dataset", NORMALISATIONS),
    Row("width", NUMBER, GROUP, WIDTH.help, 1.0, WIDTH.valid),
    Row("depth", WHOLE, GROUP, DEPTH.help, None, DEPTH.valid),
    Row("device", NAME, GROUP, "device", empty="a GPU if there is one"),
)
PARAMETERS = {row.name: row for row in TABLE}


@dataclass(frozen=True)
class Prepared:
    """A checked request: a network, its data, and how to measure them.

    Args:
        model: on its device.
        source: the data.
        options: of ``measure``.
        about: what is measured, in Markdown, a sentence each.
    """

    model: nn.Module
    source: Source
    options: Mapping[str, Any]
    about: tuple[str, ...]

    def measure(self) -> Measured:
        """``measure`` of the training and the test samples.

        Raises:
            ParameterError: as ``measure`` does.
        """
        train, test = (
            self.source.batches(s, self.options["batch_size"]) for s in ("train", "test")
        )
        with _as_one_line():
            return measure(self.model, train, test_data=test, progress=False, **self.options)


@contextmanager
def _as_one_line() -> Iterator[None]:
    try:
        yield
    except (ValueError, OSError, data.DataNotFoundError) as error:
        raise ParameterError(text.line(error)) from None


def asked(namespace: Mapping[str, Any]) -> dict[str, Any]:
    """All parameters, from a notebook's ``globals()``; an empty one as its default.

    Raises:
        ParameterError: one line that names a value out of range or a misspelt name, and what is
            valid; or that no network is named, but a checkpoint or data are.
    """
    with _as_one_line():
        parameters.check_names(namespace.get("In", ()), PARAMETERS)
        given = {name: row.read(namespace.get(name)) for name, row in PARAMETERS.items()}
        for name in ("checkpoint", "dataset"):
            if given[name] and not given["model"]:
                raise ValueError(f"{name} is {given[name]!r}, but model is empty; valid: {VALID}")
        given |= {name: PARAMETERS[name].default for name in given if given[name] is None}
        for name, row in PARAMETERS.items():
            if not row.many:
                row.check(given[name])
        return given


def prepare(given: Mapping[str, Any]) -> Prepared:
    """Load the network and the data that ``asked`` has read, and pass two samples through.

    Raises:
        ParameterError: one line, as of ``load_model`` and ``load_data``; or that the network does
            not take the data, or has another number of classes.
    """
    with _as_one_line():
        return _prepared(given)


def _prepared(given: Mapping[str, Any]) -> Prepared:
    name, checkpoint = given["model"], given["checkpoint"] or ""
    check_model(name)  # this, and whether the file can be read, before minutes of decoding
    if checkpoint:
        read_checkpoint(checkpoint)
    device = parameters.device_named(given["device"], torch.cuda.device_count())
    chosen = ("train_size", "normalise")
    source = load_data(
        given["dataset"],
        image_size=given["image_size"] or _image_size(name),
        **{key: given[key] for key in chosen},
    )
    shape = dict(input_shape=source.input_shape, width=given["width"], depth=given["depth"])
    model = load_model(name, checkpoint, source.dataset.num_classes, **shape)
    source = source.for_network(model)
    _try(model.to(device), source)
    options = {key: given[key] for key in ("head", "tokens", "batch_size")}
    options["layers"] = list(given["layers"]) or None
    return Prepared(model, source, options, tuple(_about(given, source)))


def _image_size(name: str) -> int | None:
    if name.startswith(TORCHVISION):
        return IMAGENET_SIDE
    return None if own.is_own(name) or name not in models.MODELS else models.image_size(name)


def _try(model: nn.Module, source: Source) -> None:
    """Pass two samples through: whether the network takes them, and has as many classes."""
    inputs = next(iter(source.batches("train", 2)))[0]
    try:
        with torch.no_grad():
            found = model(inputs.to(next(model.parameters(), inputs)))
    except Exception as error:  # a reader's network may raise anything
        said = text.line(f"{type(error).__name__}: {error}", 300)
        shape = tuple(inputs.shape[1:])
        raise ValueError(f"the network cannot take inputs of shape {shape} ({said})") from None
    logits = next(tensors(found), torch.empty(0, 0))
    known, dataset = source.dataset.num_classes, source.dataset
    if logits.shape[-1] != known:
        raise ValueError(
            f"the network has {logits.shape[-1]} classes, and {dataset.name} has {known}; "
            "they must agree"
        )


def _about(given: Mapping[str, Any], source: Source) -> Iterator[str]:
    checkpoint, name = given["checkpoint"], text.html(given["model"])
    if checkpoint:
        yield f"**{name}** with the weights of <code>{text.html(Path(checkpoint).name)}</code>."
    elif own.is_own(given["model"]) and not given["model"].startswith(TORCHVISION):
        yield (
            f"**{name} without a checkpoint**: its weights are random, unless the function has "
            "loaded some."
        )
    else:
        yield f"**{name} with random weights**: no checkpoint was given."
    dataset = source.dataset
    yield (
        f"{len(dataset.train_y):,} training and {len(dataset.test_y):,} test samples of "
        f"{text.html(dataset.name)}, {dataset.num_classes} classes, inputs of "
        f"{' × '.join(map(str, source.input_shape))}."
    )
    if source.channels == 3:
        yield "Its images are grey: the network, which takes 3 channels, gets that one three times."
    if source.channels == 1:
        yield "Its images have 3 channels: the network, which takes one, gets their mean."
