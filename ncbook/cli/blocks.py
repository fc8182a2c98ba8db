"""What was asked for: blocks of runs, each for one execution of the notebook; all checked."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from ncbook import store, sweep
from ncbook.cli.options import NAMED, OF_RUNS, Options, listed
from ncbook.parameters import BY_NAME, PLACE
from ncbook.sweep.engine import CHUNK
from ncbook.sweep.machine import check_memory
from ncbook.train import RunConfig, check_samples, repays_compiling

ALL = "all"  # for an optimizer: the paper's six


@dataclass(frozen=True)
class Block:
    """The runs of one data set, model, optimizer and learning rate.

    Args:
        parameters: of the notebook, without those of the place where it trains.
        runs: config by id.
    """

    dataset: str
    model: str
    optimizer: str
    lr: float
    parameters: Mapping[str, Any] = field(compare=False)
    runs: Mapping[str, RunConfig] = field(compare=False)

    @property
    def label(self) -> str:
        """``digits mlp adamw 0.001``; of a folder its last name."""
        return f"{short(self.dataset)} {self.model} {self.optimizer} {self.lr:g}"

    @property
    def config(self) -> RunConfig:
        """The first of its runs."""
        return next(iter(self.runs.values()))

    def names(self) -> dict[str, Any]:
        """What tells it from other blocks."""
        return {name: getattr(self, name) for name in (*NAMED, "lr")}


@dataclass(frozen=True)
class Asked:
    """Blocks, and where they train."""

    blocks: tuple[Block, ...]
    results: Path
    device: str
    workers: int
    scheduler: str | None


def short(dataset: str) -> str:
    """A data set's name, without the path to its folder."""
    kind, colon, path = dataset.partition(":")
    return f"{kind}:{Path(path).name}" if colon else dataset


def read(options: Options) -> Asked:
    """The blocks that some options make; every name and number is checked, nothing is loaded.

    Raises:
        ValueError, sweep.SweepError: one line that names the value, and what is valid.
    """
    given = {name: value for name, value in options.items() if value not in (None, "", False)}
    place = {name: value for name, value in given.items() if BY_NAME[name].group == PLACE}
    shared = {name: given[name] for name in given if name not in (*place, *NAMED)}
    found = [block for names in _combinations(given) for block in _blocks(names | shared)]
    where = sweep.read(found[0].parameters | place)
    results = store.results_dir(where.results).absolute()
    return Asked(tuple(dict.fromkeys(found)), results, where.device, where.workers, where.scheduler)


def read_grid(options: Options) -> tuple[Block, ...]:
    """The blocks of a grid, wherever and however it is trained."""
    return read({name: options.get(name) for name in OF_RUNS}).blocks


def _combinations(given: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """Of the data sets, models and optimizers that were asked for."""
    lists = {name: listed(given[name]) for name in NAMED if name in given}
    if ALL in lists.get("optimizer", ()):
        lists["optimizer"] = list(sweep.GRIDS)
    for names in product(*lists.values()):
        yield dict(zip(lists, names, strict=True))


def _blocks(parameters: dict[str, Any]) -> list[Block]:
    """Of one data set, model and optimizer: one a learning rate."""
    by_rate: dict[float, dict[str, RunConfig]] = {}
    for config in sweep.read(parameters).configs:
        by_rate.setdefault(config.lr, {})[sweep.run_id(config)] = config
    first = config
    return [
        Block(first.dataset, first.model, first.optimizer, lr, parameters | {"lrs": [lr]}, runs)
        for lr, runs in by_rate.items()
    ]


def check_data(asked: Asked) -> None:
    """Load each data set once, as the workers will.

    Raises:
        ValueError, data.DataNotFoundError: no data, too few, or more members than memory.
    """
    for block in {(b.dataset, b.model, b.optimizer): b for b in asked.blocks}.values():
        dataset = sweep.load_data(block.config)
        check_samples(block.config, dataset)
        if not asked.scheduler:  # only its workers know their machines
            members = min(CHUNK, len(block.runs))
            check_memory(block.config, members, dataset, asked.device, asked.workers)
            repays_compiling(block.config, dataset, asked.device)  # warns once, for all workers
