"""The parameters of the notebook ``measure``: read, checked, and what is measured with them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ncbook import data, models, parameters, text
from ncbook.measure.batches import NORMALISATIONS, batches, load_data
from ncbook.measure.loading import NAMES, TORCHVISION, VALID, find, load_model, read_checkpoint
from ncbook.measure.measuring import Measured, measure
from ncbook.models.layers import TOKENS
from ncbook.parameters import FROM_1, NAME, WHOLE, ParameterError, Row

IMAGENET_SIDE = 224  # pixels, of torchvision's networks
SIDES = range(1, data.loading.LARGEST_IMAGE_SIZE + 1)
GROUP = "Measure"
ROWS = (
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
    *(parameters.BY_NAME[name] for name in ("width", "depth", "device")),
)
PARAMETERS = {row.name: row for row in ROWS}


@contextmanager
def _as_one_line() -> Iterator[None]:
    try:
        yield
    except (ValueError, OSError, data.DataNotFoundError) as error:
        raise ParameterError(text.line(error)) from None


@_as_one_line()
def asked(namespace: Mapping[str, Any]) -> dict[str, Any]:
    """All parameters, from a notebook's ``globals()``; an empty one as its default.

    Raises:
        ParameterError: one line that names a value out of range or a misspelt name, and what is
            valid; or that no network is named, but a checkpoint or data are.
    """
    parameters.check_names(namespace.get("In", ()), PARAMETERS)
    given = {name: row.read(namespace.get(name)) for name, row in PARAMETERS.items()}
    for name in ("checkpoint", "dataset"):
        if given[name] and not given["model"]:
            raise ValueError(f"{name} is {given[name]!r}, but model is empty; valid: {VALID}")
    return {k: PARAMETERS[k].default if value is None else value for k, value in given.items()}


@_as_one_line()
def report(given: Mapping[str, Any]) -> tuple[Measured, str, tuple[str, ...]]:
    """Load the network and the data that ``asked`` has read, and ``measure`` them.

    Returns:
        What was found; what was measured, in Markdown; the names of the classes.

    Raises:
        ParameterError: one line, as of ``load_model``, ``data.load`` and ``measure``.
    """
    name, checkpoint = given["model"], given["checkpoint"] or ""
    find(name)  # this, and whether the file can be read, before minutes of decoding
    if checkpoint:
        read_checkpoint(checkpoint)
    device = parameters.device_named(given["device"], torch.cuda.device_count())
    size = models.MODELS[name].image_size if name in NAMES else None
    size = given["image_size"] or (IMAGENET_SIDE if name.startswith(TORCHVISION) else size)
    dataset = load_data(given["dataset"], size, given["train_size"], given["normalise"])
    few, _ = next(iter(batches(dataset, "train", 2, size)))
    settings = dict(input_shape=few.shape[1:], width=given["width"], depth=given["depth"])
    model = load_model(name, checkpoint, dataset.num_classes, **settings).to(device)
    few, _ = next(iter(batches(dataset, "train", 2, size, model)))
    train, test = (batches(dataset, s, given["batch_size"], size, model) for s in ("train", "test"))
    how = dict(head=given["head"], layers=given["layers"] or None, tokens=given["tokens"])
    measured = measure(model, train, test_data=test, progress=False, **how)
    return measured, _about(given, dataset, few.shape[1:]), dataset.class_names


def _about(
    given: Mapping[str, Any], dataset: data.Dataset | data.Streamed, shape: torch.Size
) -> str:
    weights = "without a checkpoint, as it is when it is built"
    if given["checkpoint"]:
        weights = f"with the weights of <code>{text.html(Path(given['checkpoint']).name)}</code>"
    return (
        f"**{text.html(given['model'])}** {weights}. {len(dataset.train_y):,} training and "
        f"{len(dataset.test_y):,} test samples of {text.html(dataset.name)}, "
        f"{dataset.num_classes} classes, inputs of {' × '.join(map(str, shape))}."
    )
