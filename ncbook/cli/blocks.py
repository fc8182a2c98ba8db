"""What was asked for: blocks of runs, each for one execution of the notebook; all checked."""

from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from ncbook import store, sweep
from ncbook.cli import show
from ncbook.cli.options import NAMED, Options, checked
from ncbook.parameters import BY_NAME, PLACE
from ncbook.sweep.engine import CHUNK
from ncbook.sweep.machine import check_memory
from ncbook.train import RunConfig, check_samples, repays_compiling


@dataclass(frozen=True, eq=False)
class Block:
    """The runs of one data set, model, optimizer and learning rate.

    Args:
        names: these four.
        parameters: of the notebook, without those of the place where it trains.
        runs: config by id.
    """

    names: dict[str, Any]
    parameters: dict[str, Any]
    runs: dict[str, RunConfig]

    @property
    def label(self) -> str:
        """``digits mlp adamw 0.001``."""
        return show.label(self.names)

    @property
    def config(self) -> RunConfig:
        """The first of its runs."""
        return next(iter(self.runs.values()))


@dataclass(frozen=True)
class Asked:
    """Blocks, and where they train."""

    blocks: tuple[Block, ...]
    results: Path
    device: str
    workers: int
    scheduler: str | None
    measure_layers: bool

    def statuses(self, block: Block) -> dict[str, str]:
        """Those of its runs that need not be trained again."""
        return store.statuses(self.results, block.runs, layers=self.measure_layers)

    def todo(self) -> dict[Block, list[RunConfig]]:
        """The runs of each block that the store lacks."""
        lacking = partial(sweep.missing, results=self.results, measure_layers=self.measure_layers)
        return {block: lacking(block.runs.values()) for block in self.blocks}


def read(options: Options) -> Asked:
    """The blocks that some options make; nothing is loaded.

    Raises:
        ValueError, sweep.SweepError: one line that names the value, and what is valid.
    """
    given = {name: value for name, value in options.items() if value not in (None, "", False)}
    place = {name: value for name, value in given.items() if BY_NAME[name].group == PLACE}
    lists = {name: checked(name, given[name]) for name in NAMED if name in given}
    shared = {name: given[name] for name in given if name not in (*place, *NAMED)}
    blocks: dict[tuple, Block] = {}
    for names in product(*lists.values()):
        parameters = shared | dict(zip(lists, names, strict=True))
        for config in sweep.read(parameters).configs:
            point = {name: getattr(config, name) for name in (*NAMED, "lr")}
            new = Block(point, parameters | {"lrs": [config.lr]}, {})
            block = blocks.setdefault(tuple(point.values()), new)
            block.runs[sweep.run_id(config)] = config
    where = sweep.read(new.parameters | place)
    results = store.results_dir(where.results).absolute()
    place = where.device, where.workers, where.scheduler, where.measure_layers
    return Asked(tuple(blocks.values()), results, *place)


def check_data(asked: Asked) -> None:
    """Load each data set once, as the workers will.

    Raises:
        ValueError, data.DataNotFoundError: no data, too few, or more members than memory.
    """
    for block in {tuple(block.names[n] for n in NAMED): block for block in asked.blocks}.values():
        dataset = sweep.load_data(block.config)
        check_samples(block.config, dataset)
        if not asked.scheduler:  # only its workers know their machines
            members = min(CHUNK, len(block.runs))
            check_memory(block.config, members, dataset, asked.device, asked.workers)
            repays_compiling(block.config, dataset, asked.device)  # warns once, for all workers
