"""The parameters of a sweep, each written once.

``RunConfig``, the sweep notebook, the command line, the columns of the store and their filters, and
the tables in the README and the notebook all follow from ``TABLE``. ``python -m ncbook.parameters``
prints these tables' rows. This module imports nothing that takes time: ``ncbook --help`` shows it.
"""

import ast
import contextlib
import difflib
import math
import os
import re
import sys
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from numbers import Integral, Real
from typing import Any

LARGEST_WHOLE = 2**63 - 1  # what 64 bits hold: a column of the store, torch's generators
LEAST_WIDTH = 1 / 64  # below it a hidden layer would have one unit or none
NAME, NUMBER, WHOLE, FLAG = "name", "number", "whole", "flag"
GRID, TRAINING, PLACE, MEASURING = "Grid", "Training", "Place", "Measuring"
WORDS = {NAME: "a name", FLAG: "true or false"}
RANGE = re.compile(r"(\d{1,18})\s*-\s*(\d{1,18})")  # of whole numbers
LONGEST_RANGE = 100_000  # a longer one is taken for a slip of the keyboard
RANGES = f"rising ranges such as 0-4 of at most {LONGEST_RANGE} numbers"
NEVER = object()  # not even None
INJECTED = "# Parameters"  # how papermill begins the cell that it adds
# What a word in a valid name stands for.
STANDS_FOR = {"PATH": r"(?s:.*)", "MODULE": r"[A-Za-z_][\w.]*", "CLASS": r"[A-Za-z_]\w*"}
BOOLEANS = {"true": True, "false": False}


class OneLine(Exception):
    """An error that a notebook shows as one line, without a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}"]


class ParameterError(OneLine, ValueError):
    """A parameter of a notebook that cannot be used."""


def plain(value: Any) -> Any:
    """The Python scalar inside a NumPy or torch one; everything else as it is."""
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", 1) == 0 else value


def is_number(value: object, kind: type = Real) -> bool:
    """Whether it is a number of this kind; a bool is not."""
    return isinstance(value, kind) and not isinstance(value, bool)


def at_least(least: int) -> str:
    """What such a whole number is called in messages."""
    return f"a whole number of at least {least}"


def check_whole(name: str, value: object, least: int, largest: int = LARGEST_WHOLE) -> None:
    """Raise ``ValueError`` naming the value unless it is an int, or a scalar with one, in this
    range."""
    value = plain(value)
    if not is_number(value, int) or value < least:
        raise ValueError(f"{name} must be {at_least(least)}, got {value!r}")
    if value > largest:
        raise ValueError(f"{name} must be at most {largest}, got {value!r}")


def items(value: Any) -> list[Any]:
    """A parameter that may be a list, one value, text with commas, or empty.

    >>> items("[0.001, 0.01]"), items(0.5), items("")
    (['0.001', '0.01'], [0.5], [])
    """
    if value is None:
        return []
    if isinstance(value, str):
        return [item.strip() for item in value.strip(" []()").split(",") if item.strip()]
    return list(value) if isinstance(value, list | tuple) else [value]


def spread(item: Any) -> Iterable[Any]:
    """The whole numbers of a range, both ends included; any other item alone.

    >>> list(spread("0-4")), spread("4")
    ([0, 1, 2, 3, 4], ['4'])
    """
    ends = RANGE.fullmatch(item) if isinstance(item, str) else None
    first, last = map(int, ends.groups()) if ends else (0, -1)
    return range(first, last + 1) if 0 <= last - first < LONGEST_RANGE else [item]


# Valid numbers: in words, and as a test.
POSITIVE = "a finite number > 0", lambda value: 0 < value < math.inf
NOT_NEGATIVE = "a finite number >= 0", lambda value: 0 <= value < math.inf
FACTOR = "a number in [0, 1)", lambda value: 0 <= value < 1
SHARE = "a number in [0, 1]", lambda value: 0 <= value <= 1
SCALE = f"a finite number of at least {LEAST_WIDTH}", lambda value: LEAST_WIDTH <= value < math.inf


@dataclass(frozen=True)
class Row:
    """A row of ``TABLE``.

    Args:
        name: of the notebook's parameter, and, with dashes, of the option.
        group: panel of ``--help``; those of ``GRID`` and ``TRAINING`` decide a run's result. None:
            of no option, but filled in.
        help: what it is; its short form ends before the first parenthesis.
        default: of ``RunConfig``; None is valid if it is the default.
        valid: names (the words of ``STANDS_FOR`` in one stand for others), a pair such as
            ``POSITIVE``, or a range of whole numbers.
        empty: what an empty value means, in Markdown; by default the default.
        field: of ``RunConfig``, and column of the store; by default the name; an axis' singular.
        many: whether a request may have several values: an axis of the grid.
        shared: whether all runs of a chunk must have the same value.
        before: value of all runs that were stored before the parameter existed. A run with this
            value has the id that it had then.
        metavar: stands for the value in ``--help``.
    """

    name: str
    kind: str
    group: str | None
    help: str
    default: Any = None
    valid: tuple | range | None = None
    empty: str = ""
    field: str = ""
    many: bool = False
    shared: bool = True
    before: Any = NEVER
    metavar: str = ""

    def __post_init__(self) -> None:
        singular = self.name.removesuffix("s") if self.group == GRID else self.name
        object.__setattr__(self, "field", self.field or singular)

    @property
    def usual(self) -> str:
        """What an empty value means, in Markdown."""
        number = is_number(self.default)
        return self.empty or (f"{self.default:g}" if number else f"`{str(self.default).lower()}`")

    def typed(self, value: Any) -> Any:
        """A config's value as the one type of its field, so that equal configs are one run in every
        respect; what is no number stays as it is, for ``check`` to refuse."""
        value = plain(value)
        if self.kind == NUMBER and is_number(value):
            # 0.0 for -0.0; an int may be too large for a float.
            return math.inf if abs(value) > sys.float_info.max else float(value) + 0.0
        return int(value) if self.kind == WHOLE and is_number(value, Integral) else value

    def check(self, value: Any) -> None:
        """Raise ``ValueError`` unless a config may have the value, naming it and what is valid."""
        if value is None and self.default is None:
            return
        if self.kind == NAME and self.valid:
            self.check_known(value)
        elif self.kind == WHOLE:
            check_whole(self.field, value, self.valid[0], self.valid[-1])
        elif self.kind == FLAG and not isinstance(value, bool):
            raise ValueError(f"{self.field} must be true or false, got {value!r}")
        elif self.kind == NUMBER:
            words, holds = self.valid
            if not (is_number(value) and holds(value)):
                words += ", or None" if self.default is None else ""
                raise ValueError(f"{self.field} must be {words}, got {value!r}")

    def check_known(self, value: Any) -> None:
        """Raise ``ValueError``, naming the valid ones, unless the name is one of them."""
        if not self.is_known(value):
            raise ValueError(f"unknown {self.field} {value!r}; valid: {', '.join(self.valid)}")

    def is_known(self, value: Any) -> bool:
        """Whether it is one of the valid names, or what one stands for."""
        return any(re.fullmatch(_pattern(name), str(value), re.ASCII) for name in self.valid)

    def read(self, value: Any) -> Any:
        """A notebook's or an option's value: a tuple if there may be many, else one value, or None
        if it is empty. Raises ``ValueError`` if it is not valid."""
        if self.kind in (NAME, FLAG) and not self.many:
            return None if value in (None, "") else self._read_one(value)
        found = self.read_all(value)
        if self.many:
            return found
        if len(found) > 1:
            raise ValueError(f"{self.name} must be {self.words}, got {value!r}")
        return found[0] if found else None

    def read_all(self, value: Any) -> tuple:
        """The values of a list, one value, or text with commas and, of whole numbers, with ranges;
        errors as of ``read``."""
        found = items(value)
        if self.kind == WHOLE:
            found = [number for item in found for number in spread(item)]
        return tuple(map(self._read_one, found))

    def _read_one(self, value: Any) -> Any:
        try:
            read = READERS[self.kind](value)
        except (TypeError, AttributeError, LookupError, ValueError, ArithmeticError):
            raise ValueError(f"{self.name} must be {self.words}, got {value!r}") from None
        self.check(read)
        return read

    @property
    def words(self) -> str:
        """What a value must be: ``a whole number of at least 1``, ``finite numbers > 0``."""
        if self.kind == WHOLE:
            words = at_least(self.valid[0])
        else:
            words = self.valid[0] if self.kind == NUMBER else WORDS[self.kind]
        if not self.many:
            return words
        words = re.sub("number|name", r"\g<0>s", words.removeprefix("a "))
        return f"{words}, or {RANGES}" if self.kind == WHOLE else words


def _pattern(name: str) -> str:
    """A regular expression of the names that a valid one of a table's row stands for."""
    kind, colon, rest = name.partition(":")
    return STANDS_FOR.get(kind, re.escape(kind)) + colon + STANDS_FOR.get(rest, re.escape(rest))


def _number(value: Any) -> float:
    """A float, also from text: ``"1e-3"`` or ``"1/8"``."""
    if isinstance(value, bool):
        raise TypeError
    return float(Fraction(value) if isinstance(value, str) and "/" in value else value)


def _whole(value: Any) -> int:
    """An int, also from ``5.0`` or ``"5"``."""
    if not math.isfinite(_number(value)) or Fraction(value).denominator != 1:
        raise ValueError
    return int(Fraction(value))


READERS = {NAME: os.fspath, NUMBER: _number, WHOLE: _whole}
READERS[FLAG] = lambda value: BOOLEANS[str(value).strip().lower()]
SIX = ("sgd", "sgdw", "adam", "adamw", "signum", "signumw")  # the paper's
OPTIMIZERS = (*SIX, "sgd_mixed", "adam_mixed", "signum_mixed")
OPTIMIZERS += ("muon", "muonw", "shampoo", "shampoow", "soap", "soapw", "lionc", "lion", "mars")
OPTIMIZERS += ("MODULE:CLASS",)  # a reader's own
DATA = ("digits", "gaussians", "ufm", "mnist", "fashion_mnist", "cifar10")
DATA += ("folder:PATH", "imagenet:PATH")
MODELS = ("mlp", "ufm", "resnet9", "vgg9", "vit", "resnet50")
PRECISIONS = ("float32", "bfloat16", "float64")
SCHEDULES = ("step", "cosine", "constant")
FROM_0, FROM_1, FROM_2 = (range(least, LARGEST_WHOLE + 1) for least in range(3))
DEPTHS = range(1, 1001)  # each layer is a module of its own, and takes time to build
OWN = {"many": True, "shared": False}  # an axis along which the runs of a chunk may differ
PAPERS = "the paper's, or ours"
ALL = "all samples"
SHARES = "0, 0.1, ..., 1"
MOMENTA = "0, 0.5, 0.7, 0.9, 0.95, 0.98; 0.9 if not the paper's"
STEP = "`step`; for a vit `cosine`"
OF_VECTORS = "learning rate of vectors (Muon, Shampoo, SOAP)"
OF_PRODUCTS = "format of products (Muon, Shampoo, SOAP)"
OWN_FORMAT = "that of the weights"
OF_HEADS = "last layer's optimizer (needed by the next three)"
OF_DECAY = "last layer's weight decay"
OFF = {"default": False, "before": False}
OF_HEAD = {"empty": "as the rest", "before": None}
OWN_OF_HEAD = OF_HEAD | {"shared": False}
LOGGED = "0, 1, 2, 5, ..., the last"
RESULTS = "`NCBOOK_RESULTS`, else `./results`"

TABLE = (
    Row("optimizer", NAME, GRID, "update rule", "sgd", OPTIMIZERS, "`adamw`", shared=False),
    Row("dataset", NAME, GRID, "data (PATH: here or in NCBOOK_DATA)", "digits", DATA),
    Row("model", NAME, GRID, "network (ufm: with data ufm alone)", "mlp", MODELS),
    Row("seeds", WHOLE, GRID, "seeds (or 0-4; of weights, batches, subset)", 0, FROM_0, many=True),
    Row("lrs", NUMBER, GRID, "learning rates", 0.01, POSITIVE, PAPERS, **OWN),
    Row("weight_decays", NUMBER, GRID, "weight decays", 5e-4, NOT_NEGATIVE, PAPERS, **OWN),
    Row("momenta", NUMBER, GRID, "momenta (Adam: beta 1)", 0.9, FACTOR, MOMENTA, "momentum", **OWN),
    Row("coupled_shares", NUMBER, GRID, "coupled share (if mixed)", None, SHARE, SHARES, **OWN),
    Row("epochs", WHOLE, TRAINING, "passes over the training set", 200, FROM_1),
    Row("batch_size", WHOLE, TRAINING, "samples a step", 128, FROM_2),
    Row("train_size", WHOLE, TRAINING, "size of a class-balanced subset", None, FROM_1, ALL),
    Row("width", NUMBER, TRAINING, "factor on the layers' widths (such as 1/8)", 1.0, SCALE),
    Row("depth", WHOLE, TRAINING, "mlp layers, vit blocks", None, DEPTHS, "3, and 6", before=None),
    Row("precision", NAME, TRAINING, "format of hidden layers' numbers", "float32", PRECISIONS),
    Row(
        "schedule", NAME, TRAINING, "learning rate over time", None, SCHEDULES, STEP, before="step"
    ),
    Row("clip", NUMBER, TRAINING, "largest gradient norm", None, POSITIVE, "no limit", before=None),
    Row("vector_lr", NUMBER, TRAINING, OF_VECTORS, None, POSITIVE, "0.001", before=None),
    Row("update_precision", NAME, TRAINING, OF_PRODUCTS, None, PRECISIONS, OWN_FORMAT, before=None),
    Row("head_optimizer", NAME, TRAINING, OF_HEADS, None, OPTIMIZERS, **OF_HEAD),
    Row("head_lr", NUMBER, TRAINING, "last layer's learning rate", None, POSITIVE, **OWN_OF_HEAD),
    Row("head_momentum", NUMBER, TRAINING, "last layer's momentum", None, FACTOR, **OWN_OF_HEAD),
    Row("head_weight_decay", NUMBER, TRAINING, OF_DECAY, None, NOT_NEGATIVE, **OWN_OF_HEAD),
    Row("centred_head", FLAG, TRAINING, "centre last layer's steps over classes", **OFF),
    Row("augment", FLAG, TRAINING, "random crops and flips of images", **OFF),
    Row("log_epochs", WHOLE, MEASURING, "epochs to measure at", None, FROM_0, LOGGED, many=True),
    Row("measure_layers", FLAG, MEASURING, "measure every layer, not just the last", False),
    Row("deterministic", FLAG, MEASURING, "deterministic algorithms on a GPU", False),
    Row("results", NAME, PLACE, "folder of the store", empty=RESULTS, metavar="FOLDER"),
    Row("workers", WHOLE, PLACE, "processes", None, FROM_1, "one a core, or one a GPU"),
    Row("scheduler", NAME, PLACE, "Dask scheduler to use", empty="this machine", metavar="ADDRESS"),
    Row("device", NAME, PLACE, "`cpu`, `cuda` or `cuda:1`", empty="a GPU if there is one"),
    Row("data_listing", NAME, None, "fingerprint of a folder's images"),
    Row("class_file", NAME, None, "fingerprint of the file of MODULE:CLASS", before=None),
)
BY_NAME = {row.name: row for row in TABLE if row.group}  # those that users set
FIELDS = {row.field: row for row in TABLE if row.group in (GRID, TRAINING, None)}  # of a run
AXES = tuple(row for row in FIELDS.values() if row.many)


def check_names(cells: Sequence[str], valid: Collection[str] = BY_NAME) -> None:
    """Raise ``ValueError`` if papermill has set a parameter that there is not, in the last cell
    that it wrote; the message has the one that may be meant."""
    injected = [source for source in cells if source.startswith(INJECTED)]
    body = []
    with contextlib.suppress(SyntaxError):  # then papermill has not written it
        body = ast.parse("".join(injected[-1:])).body
    targets = [target for line in body for target in getattr(line, "targets", ())]
    for name in [target.id for target in targets if isinstance(target, ast.Name)]:
        if name not in valid:
            close = difflib.get_close_matches(name, valid, n=1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise ValueError(f"unknown parameter {name!r}{hint}; valid: {', '.join(valid)}")


def device_named(device: str | None, gpus: int) -> str:
    """``cpu``, ``cuda`` or ``cuda:N``, of so many GPUs; empty: a GPU if there is one. Raises
    ``ValueError`` for another name, with those that are valid."""
    valid = ["cpu", *(["cuda"] if gpus else []), *(f"cuda:{i}" for i in range(gpus))]
    device = device or ("cuda" if gpus else "cpu")
    if device not in valid:
        raise ValueError(f"unknown device {device!r}; valid here: {', '.join(valid)}")
    return device


def shown_names(row: Row) -> tuple[str, ...]:
    """The valid names of a parameter, for a table: none where a row above has the same."""
    above = [other.valid for other in TABLE[: TABLE.index(row)]]
    return () if row.kind != NAME or row.valid in above else row.valid or ()


def documented() -> str:
    """A Markdown table of all parameters."""
    lines = ["| parameter | meaning | empty means |", "|---|---|---|"]
    for row in BY_NAME.values():
        names = " ".join(f"`{name}`" for name in shown_names(row))
        meaning = ": ".join(filter(None, (row.help, names)))
        lines.append(f"| `{row.name}` | {meaning} | {row.usual} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(documented())
