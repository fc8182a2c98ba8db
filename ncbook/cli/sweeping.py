"""``ncbook sweep``: an execution of the notebook for each block, on workers that stay warm; and
``ncbook plan``: how long that would take."""

import os
import re
import sys
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ncbook import store, sweep, text
from ncbook.cli import blocks, notebook, show
from ncbook.cli.blocks import Asked, Block
from ncbook.cli.options import Options
from ncbook.paths import expanded
from ncbook.sweep import cluster
from ncbook.sweep.engine import START_SECONDS
from ncbook.train import RunConfig

AGAIN = 3  # times that a notebook that failed is tried again
NAME_LENGTH = 50  # characters, of up to four bytes: file systems take 255
NOTEBOOK_SECONDS = 12.0  # a kernel that imports torch, and draws: measured on one core
PLANNED = ("wanted", "stored", "to_train", "seconds")
LABEL_WIDTH = 36  # next to a bar: all of it in 80 columns
COLUMNS = ("trained", "stored", "diverged", "failed", "left", "seconds")
# What became of a block, for a line.
TRAINED = "{trained} trained, {stored} stored already, {diverged} diverged, {failed} failed, "
TRAINED += "{seconds:.0f} s"
FAILED = "failed at try {tries}, {left} of {wanted} runs are left: {error}; see {notebook}"
NOTHING = dict.fromkeys((*COLUMNS, "tries"), 0) | {"notebook": None, "error": None}


def train_blocks(options: Options, notebooks: str | None, as_json: bool) -> bool:
    """Train what the store lacks, and report; whether all of it was trained.

    Raises:
        ValueError, OSError, data.DataNotFoundError, sweep.SweepError: what was asked for cannot be
            trained; nothing was trained.
        KeyboardInterrupt: a stop; nothing that ended is lost, and all processes have ended.
    """
    asked = blocks.read(options)
    if not notebook.SOURCE.is_file():
        raise FileNotFoundError(
            f"no notebook {notebook.SOURCE}: install ncbook from its folder, pip install -e ."
        )
    asked.check_data()
    folder = asked.results / "notebooks"
    if notebooks:
        folder = expanded(notebooks, "notebooks").absolute()
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(f"the notebooks folder {folder} is a file")
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(f"the notebooks folder {folder} cannot be written")
    store.ensure_writable(asked.results)
    folder.mkdir(exist_ok=True)
    store.set_aside_damaged(asked.results)
    done, stop = _sweep(asked, folder)
    answer = [block.names | done[block] for block in asked.blocks if block in done]
    show.blocks({"results": str(asked.results), "blocks": answer}, COLUMNS, as_json)
    if not as_json:
        wrote = any(outcome["notebook"] for outcome in done.values())
        show.line(f"Runs: {asked.results}" + f"; executed notebooks: {folder}" * wrote)
    if stop:
        show.say(f"{stop}; {show.STOPPED_SWEEP}")
    return not stop and not any(outcome["error"] for outcome in done.values())


def _sweep(asked: Asked, folder: Path) -> tuple[dict[Block, dict], str | None]:
    """What became of each block; and why the sweep had to stop before the last one, if so."""
    todo = asked.todo()
    stored = {block: len(block.runs) for block in asked.blocks if block not in todo}
    done = {b: NOTHING | {"wanted": count, "stored": count} for b, count in stored.items()}
    if done:
        show.say(f"{len(done)} of {len(asked.blocks)} blocks are stored already: skipped")
    runs = sum(map(len, todo.values()))
    if todo:
        show.say(f"to train: {text.many(runs, 'run')}; notebooks to execute: {len(todo)}")
    # Without a terminal, or on one that cannot redraw a line, a line tells of each block instead.
    dumb = os.environ.get("TERM") == "dumb" or None
    bar = tqdm(desc="starting", total=runs, unit="run", disable=dumb, leave=False)
    try:
        with bar, _workers(asked, todo.values()) as (place, environment):
            for i, block in enumerate(todo, 1):
                bar.set_description(f"[{i}/{len(todo)}] {show.cropped(block.label, LABEL_WIDTH)}")
                parameters = block.parameters | {"results": str(asked.results)} | place
                request = parameters, folder / _file_name(block), environment
                done[block] = _train(block, request, asked, bar)
                said = FAILED if done[block]["error"] else TRAINED
                if bar.disable or said == FAILED:
                    line = f"[{i}/{len(todo)}] {block.label}: {said.format(**done[block])}"
                    bar.write(text.line(line), file=sys.stderr)
    except (OSError, sweep.SweepError) as error:
        return done, str(error)
    return done, None


@contextmanager
def _workers(asked: Asked, todo: Collection[list]) -> Iterator[tuple[dict, dict]]:
    """Start processes, unless a scheduler has its own. The notebook's parameters that say where it
    trains, and environment variables for its kernel."""
    device, scheduler = asked.place.device, asked.place.scheduler
    if scheduler or not todo:
        yield {"scheduler": scheduler, "device": device}, {}
        return
    workers = asked.place.workers
    most = max(len(sweep.chunks(configs, workers)) for configs in todo)
    with cluster.local(min(workers, most), device) as client:
        # A worker sees one GPU.
        place = {"scheduler": client.scheduler.address, "device": device.partition(":")[0]}
        yield place, cluster.credentials(client)


def _train(block: Block, request: tuple[Any, ...], asked: Asked, bar: tqdm) -> dict[str, Any]:
    """Execute the notebook for a block, again where it fails: it goes on from what is stored. An
    error is that the store or the scheduler is gone, and all other blocks would fail, too."""
    began, ended = time.perf_counter(), bar.n
    before = asked.statuses(block)

    def look() -> None:
        with suppress(OSError):
            bar.n = ended + len(asked.statuses(block)) - len(before)
            bar.refresh()

    for tries in range(1, 2 + AGAIN):
        failure = notebook.execute(*request, look)
        if failure is None:
            break
        store.ensure_writable(asked.results)
        if asked.place.scheduler:
            sweep.scheduler_workers(asked.place.scheduler)
        if failure.startswith(notebook.HOPELESS) or tries > AGAIN:
            break
        again = f"{block.label}: {failure}; trying again ({tries} of {AGAIN})"
        bar.write(text.line(again), file=sys.stderr)
    now = asked.statuses(block)
    if not failure and len(now) < len(block.runs):
        failure = "the notebook ended, but they are not in the store (have the data changed?)"
    new = Counter(status for i, status in now.items() if i not in before)
    return {
        "wanted": len(block.runs),
        "stored": len(before),
        "trained": new["ok"] + new["diverged"],
        "diverged": new["diverged"],
        "failed": new[store.FAILED],  # given up: they killed their worker each time
        "left": len(block.runs) - len(now),  # neither stored nor given up
        "seconds": time.perf_counter() - began,
        "tries": tries,
        "notebook": str(request[1]),
        "error": failure and text.line(failure),
    }


def _file_name(block: Block) -> str:
    """Of the executed notebook: the same for the same runs, and no other's."""
    words = re.sub(r"[^\w.-]+", "-", block.label)[-NAME_LENGTH:]
    return f"{words}-{store.run_id({'runs': sorted(block.runs)})[:6]}.ipynb"


def plan(options: Options, as_json: bool) -> None:
    """Print it; raises what ``train_blocks`` does."""
    asked = blocks.read(options)
    asked.check_data()
    todo, place = asked.todo(), asked.place
    seconds = estimate(asked, todo)
    rows = []
    for block in asked.blocks:
        wanted, left = len(block.runs), len(todo.get(block, ()))
        values = (wanted, wanted - left, left, seconds.get(block, 0.0))
        rows.append(block.names | dict(zip(PLANNED, values, strict=True)))
    total = {name: sum(row[name] for row in rows) for name in PLANNED}
    total["seconds"] += START_SECONDS * bool(seconds)
    for row in (*rows, total):
        row["time"] = sweep.duration(row["seconds"]) if row["seconds"] else None
    where = {name: getattr(place, name) for name in ("device", "workers", "scheduler")}
    answer = {"results": str(asked.results)} | where | {"blocks": rows, "total": total}
    show.blocks(answer, (*PLANNED[:3], "time"), as_json)
    if not as_json:
        whose = f" of {place.scheduler}" if place.scheduler else ""
        on = f"device {place.device}, workers {place.workers}{whose}"
        show.line(f"Times are estimates ({on}). Nothing was trained.")


def estimate(asked: Asked, todo: Mapping[Block, list[RunConfig]]) -> dict[Block, float]:
    """Seconds for each block: a few steps are timed for each data set, model and direction of the
    optimizer, in the block that has most to train."""
    a_run: dict[tuple, float] = {}
    kinds = {b: (c[0].dataset, c[0].model, c[0].directions[0]) for b, c in todo.items()}
    for block in sorted(todo, key=lambda block: -len(todo[block])):
        if kinds[block] not in a_run:
            show.say(f"timing a few steps of {block.label} ...")
            place = asked.place.device, asked.place.workers, asked.place.scheduler
            seconds = sweep.estimate_seconds(todo[block], *place) - START_SECONDS
            a_run[kinds[block]] = seconds / len(todo[block])
    return {block: NOTEBOOK_SECONDS + a_run[kinds[block]] * len(todo[block]) for block in todo}
