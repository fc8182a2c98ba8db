"""What was asked for: blocks of runs, each for one execution of the notebook; all checked."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from ncbook import store, sweep
from ncbook.cli.lines import say
from ncbook.cli.options import MEASURING, PLACE, Options, listed
from ncbook.sweep.engine import CHUNK
from ncbook.sweep.memory import check_memory
from ncbook.train import RunConfig, check_samples, repays_compiling

ALL = "all"
NAMED = ("dataset", "model", "optimizer")  # the parameters of which lists make blocks


@dataclass(frozen=True)
class Block:
    """The runs of one data set, model, optimizer and learning rate.

    Args:
        parameters: of the notebook, but for where it trains.
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

    def place(self) -> str:
        """``on cpu with 2 workers``."""
        whose = f" of {self.scheduler}" if self.scheduler else ""
        workers = "1 worker" if self.workers == 1 else f"{self.workers} workers"
        return f"on {self.device} with {workers}{whose}"


def short(dataset: str) -> str:
    """A data set's name, without the way to its folder."""
    kind, colon, path = dataset.partition(":")
    return f"{kind}:{Path(path).name}" if colon else dataset


def read(options: Options) -> Asked:
    """The blocks that some options make; every name and number is checked, nothing is loaded.

    Raises:
        ValueError, sweep.SweepError: one line that names the value, and what is valid.
    """
    given = {name: value for name, value in options.items() if value not in (None, "", False)}
    elsewhere = (*PLACE, *NAMED)
    shared = {name: value for name, value in given.items() if name not in elsewhere}
    blocks: list[Block] = []
    for names in _combinations(given):
        blocks += _blocks(names | shared)
    place = {name: value for name, value in given.items() if name in PLACE}
    request = sweep.read(blocks[0].parameters | place)
    results = store.results_dir(options.get("results")).absolute()
    return Asked(
        tuple(dict.fromkeys(blocks)), results, request.device, request.workers, request.scheduler
    )


def _combinations(given: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """Of data sets, models and optimizers; what was not asked for is left out, and the default."""
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
    return [
        Block(first.dataset, first.model, first.optimizer, lr, parameters | {"lrs": [lr]}, runs)
        for lr, runs in by_rate.items()
        for first in [next(iter(runs.values()))]
    ]


def check_data(asked: Asked) -> None:
    """Load each data set once, as the workers will, so that nothing fails for want of one.

    Raises:
        ValueError, data.DataNotFoundError: no data, too few, or more members than memory.
    """
    for block in {(b.dataset, b.model, b.optimizer): b for b in asked.blocks}.values():
        config = next(iter(block.runs.values()))
        dataset = sweep.load_data(config)
        check_samples(config, dataset)
        if not asked.scheduler:  # whose machines only they know
            members = min(CHUNK, len(block.runs))
            check_memory(config, members, dataset, asked.device, asked.workers)
            repays_compiling(config, dataset, asked.device)  # warns once, for all workers
    configs = [config for block in asked.blocks for config in block.runs.values()]
    if old := sweep.stored_without_listing(configs, asked.results):
        say(f"{old} such runs are stored from before runs recorded their images: trained again")


def grid_options(options: Options) -> dict[str, Any]:
    """Without those that say where and how: what makes the runs."""
    return {n: v for n, v in options.items() if n not in (*PLACE, *MEASURING)}
