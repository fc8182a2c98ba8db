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
from ncbook.train import RunConfig


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


@dataclass(frozen=True)
class Asked:
    """Blocks, their store, and a request that says where they train, and what is measured."""

    blocks: tuple[Block, ...]
    results: Path
    place: sweep.Request

    def statuses(self, block: Block) -> dict[str, str]:
        """Those of its runs that need not be trained again."""
        return store.statuses(self.results, block.runs, layers=self.place.measure_layers)

    def todo(self) -> dict[Block, list[RunConfig]]:
        """The runs of those blocks of which the store lacks some."""
        layers = self.place.measure_layers
        lacking = partial(sweep.missing, results=self.results, measure_layers=layers)
        todo = {block: lacking(block.runs.values()) for block in self.blocks}
        return {block: configs for block, configs in todo.items() if configs}

    def check_data(self) -> None:
        """Load each data set; errors as of ``sweep.check_data``."""
        place = self.place
        where = place.device, place.workers, place.scheduler, place.measure_layers
        for block in {tuple(b.names[n] for n in NAMED): b for b in self.blocks}.values():
            sweep.check_data(block.runs.values(), *where)


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
    request = sweep.read(new.parameters | place)
    results = store.results_dir(request.results).absolute()
    return Asked(tuple(blocks.values()), results, request)
