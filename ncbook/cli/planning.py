"""``ncbook plan``: what a sweep would train, and about how long it would take."""

from collections.abc import Mapping

from ncbook import sweep
from ncbook.cli import blocks, show
from ncbook.cli.blocks import Asked, Block
from ncbook.cli.options import Options
from ncbook.sweep.engine import START_SECONDS
from ncbook.train import RunConfig

NOTEBOOK_SECONDS = 12.0  # a kernel that imports torch, and draws: measured on one core
COLUMNS = ("block", "wanted", "stored", "to train", "time")


def plan(options: Options, as_json: bool) -> None:
    """Print it.

    Raises:
        ValueError, OSError, data.DataNotFoundError, sweep.SweepError: a sweep could not begin.
    """
    asked = blocks.read(options)
    blocks.check_data(asked)
    todo = {block: sweep.missing(block.runs.values(), asked.results) for block in asked.blocks}
    seconds = estimate(asked, {block: configs for block, configs in todo.items() if configs})
    answers = {
        block: {
            "wanted": len(block.runs),
            "stored": len(block.runs) - len(configs),
            "to_train": len(configs),
            "seconds": seconds.get(block, 0.0),
        }
        for block, configs in todo.items()
    }
    names = ("wanted", "stored", "to_train", "seconds")
    total = {name: sum(answer[name] for answer in answers.values()) for name in names}
    total["seconds"] += START_SECONDS * bool(seconds)
    if as_json:
        where = {"device": asked.device, "workers": asked.workers, "scheduler": asked.scheduler}
        named = [block.names() | answer for block, answer in answers.items()]
        show.as_json({"results": str(asked.results)} | where | {"blocks": named, "total": total})
        return
    rows = [(block.label, *_cells(answer)) for block, answer in answers.items()]
    show.table(COLUMNS, rows, ("all", *_cells(total)))
    whose = f" of {asked.scheduler}" if asked.scheduler else ""
    workers = "1 worker" if asked.workers == 1 else f"{asked.workers} workers"
    where = f"on {asked.device} with {workers}{whose}"
    show.line(f"Times are estimates, {where}. Nothing was trained.")


def estimate(asked: Asked, todo: Mapping[Block, list[RunConfig]]) -> dict[Block, float]:
    """Seconds for each block: a few steps are timed for each data set, model and direction of the
    optimizer, in the block that has most to train."""
    a_run: dict[tuple, float] = {}
    kinds = {block: (block.dataset, block.model, block.config.direction) for block in todo}
    for block in sorted(todo, key=lambda block: -len(todo[block])):
        if kinds[block] not in a_run:
            place = asked.device, asked.workers, asked.scheduler
            seconds = sweep.estimate_seconds(todo[block], *place) - START_SECONDS
            a_run[kinds[block]] = seconds / len(todo[block])
    return {block: NOTEBOOK_SECONDS + a_run[kinds[block]] * len(todo[block]) for block in todo}


def _cells(answer: Mapping[str, float]) -> tuple:
    time = sweep.duration(answer["seconds"]) if answer["seconds"] else None
    return answer["wanted"], answer["stored"], answer["to_train"], time
