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
    answers = [
        {
            "wanted": len(block.runs),
            "stored": len(block.runs) - len(configs),
            "to_train": len(configs),
            "seconds": seconds.get(block, 0.0),
        }
        for block, configs in todo.items()
    ]
    total = {name: sum(answer[name] for answer in answers) for name in answers[0]}
    total["seconds"] += START_SECONDS * bool(seconds)
    if as_json:
        where = {"device": asked.device, "workers": asked.workers, "scheduler": asked.scheduler}
        named = [block.names() | answer for block, answer in zip(todo, answers, strict=True)]
        show.as_json({"results": str(asked.results)} | where | {"blocks": named, "total": total})
        return
    rows = [(b.label, *_cells(answer)) for b, answer in zip(todo, answers, strict=True)]
    show.table(COLUMNS, rows, ("all", *_cells(total)))
    show.line(f"Times are estimates, {asked.place()}. Nothing was trained.")


def estimate(asked: Asked, todo: Mapping[Block, list[RunConfig]]) -> dict[Block, float]:
    """Seconds for each block: a few steps are timed for each data set, model and direction of the
    optimizer, in the block that has most to train."""
    a_run: dict[tuple, float] = {}
    for block in sorted(todo, key=lambda block: -len(todo[block])):
        configs = todo[block]
        if _kind(block) not in a_run:
            seconds = sweep.estimate_seconds(configs, asked.device, asked.workers, asked.scheduler)
            a_run[_kind(block)] = (seconds - START_SECONDS) / len(configs)
    return {
        block: NOTEBOOK_SECONDS + a_run[_kind(block)] * len(configs)
        for block, configs in todo.items()
    }


def _kind(block: Block) -> tuple[str, str, str]:
    return block.dataset, block.model, next(iter(block.runs.values())).direction


def _cells(answer: Mapping[str, float]) -> tuple:
    time = sweep.duration(answer["seconds"]) if answer["seconds"] else None
    return answer["wanted"], answer["stored"], answer["to_train"], time
