"""``ncbook sweep``: an execution of the notebook for each block, on workers that stay warm."""

import re
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ncbook import data, store, sweep, text
from ncbook.cli import blocks, notebook, show
from ncbook.cli.blocks import Asked, Block
from ncbook.cli.lines import STOPPED_SWEEP, say
from ncbook.cli.options import Options
from ncbook.paths import expanded
from ncbook.sweep import cluster, leases
from ncbook.train import check_listing

AGAIN = 3  # times that a notebook that failed is tried again
NAME_LENGTH = 50  # characters, of up to four bytes: file systems take 255
# The notebook's parameters that say where it trains, and environment variables for its kernel.
Place = tuple[dict[str, Any], dict[str, str]]
COLUMNS = ("block", "trained", "stored", "diverged", "failed", "seconds")


@dataclass(frozen=True)
class Done:
    """What became of a block."""

    wanted: int  # runs
    stored: int  # of these, before this sweep began the block
    trained: int = 0  # since then, among them ``diverged``
    diverged: int = 0
    failed: int = 0  # given up since then: they killed their worker each time
    left: int = 0  # neither stored nor given up
    seconds: float = 0.0
    tries: int = 0  # executions of the notebook
    notebook: str | None = None
    error: str | None = None  # why the last one failed

    def text(self) -> str:
        """For a line."""
        if self.error:
            tries = "1 try" if self.tries == 1 else f"{self.tries} tries"
            return (
                f"failed after {tries}, {self.left} of {self.wanted} runs are left: "
                f"{self.error}; see {self.notebook}"
            )
        return (
            f"{self.trained} trained, {self.stored} stored already, {self.diverged} diverged, "
            f"{self.failed} failed, {self.seconds:.0f} s"
        )


def train_blocks(options: Options, notebooks: str | None, as_json: bool) -> bool:
    """Train what the store lacks, and report; whether all of it was trained.

    Raises:
        ValueError, OSError, data.DataNotFoundError, sweep.SweepError: what was asked for cannot be
            trained; nothing was trained or made.
        KeyboardInterrupt: Ctrl-C; nothing that ended is lost, and all processes have ended.
    """
    with _one_interrupt():
        asked = blocks.read(options)
        notebook.check_source()
        blocks.check_data(asked)
        folder = expanded(notebooks, "notebooks") if notebooks else asked.results / "notebooks"
        _make_folders(asked.results, folder.absolute())
        store.set_aside_damaged(asked.results)
        done, stop = _sweep(asked, folder.absolute())
    _report(asked, done, as_json)
    if stop:
        say(f"{stop}; {STOPPED_SWEEP}")
    return not stop and not any(d.error for d in done.values())


def _make_folders(results: Path, notebooks: Path) -> None:
    """Make both, and write a file in each; or leave neither."""
    wanted = [results / "runs", notebooks]
    new = {f for folder in wanted for f in (folder, *folder.parents) if not f.exists()}
    try:
        store.ensure_writable(results)
        notebooks.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=notebooks) as file:
            file.write(b"probe")
            file.flush()
    except OSError as error:
        for folder in sorted(new, reverse=True):  # what is in a folder comes before it
            with suppress(OSError):
                folder.rmdir()
        if isinstance(error, store.ResultsFolderError):
            raise
        why = error.strerror or error
        raise OSError(f"the notebooks folder {notebooks} cannot be written ({why})") from None


@contextmanager
def _one_interrupt() -> Iterator[None]:
    """The first Ctrl-C or SIGTERM stops the sweep, which takes seconds; further ones are ignored.

    Where one is ignored already, as Ctrl-C of a job in the background, it still is.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    heard = [number for number, handler in before.items() if handler is not signal.SIG_IGN]

    def interrupt(*_: Any) -> None:
        for number in heard:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in heard:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# ------------------------------------------------------------ blocks, one after another


def _sweep(asked: Asked, folder: Path) -> tuple[dict[Block, Done], str | None]:
    """What became of each block; and why the sweep had to stop before the last one, if so."""
    todo = {block: sweep.missing(block.runs.values(), asked.results) for block in asked.blocks}
    done = {block: Done(len(block.runs), len(block.runs)) for block in todo if not todo[block]}
    todo = {block: missing for block, missing in todo.items() if missing}
    if done:
        say(f"{len(done)} of {len(asked.blocks)} blocks are stored already: skipped")
    try:
        with (
            show.board(len(todo), sum(map(len, todo.values()))) as board,
            _workers(asked, todo.values()) as place,
        ):
            trainer = _Trainer(asked, folder, *place, board)
            for block in todo:
                board.begin(block.label)
                done[block] = trainer.train(block)
                board.end(f"{block.label}: {done[block].text()}", bool(done[block].error))
    except (OSError, sweep.SweepError) as error:
        return done, str(error)
    finally:
        with suppress(OSError):
            leases.clear_dead(asked.results)
    return done, None


@contextmanager
def _workers(asked: Asked, todo: Collection[list]) -> Iterator[Place]:
    """Where the notebook trains: on new processes, or a scheduler's."""
    if asked.scheduler or not todo:
        yield {"scheduler": asked.scheduler, "device": asked.device}, {}
        return
    most = max(len(sweep.chunks(configs, asked.workers)) for configs in todo)
    with cluster.local(min(asked.workers, most), asked.device) as client:
        device = cluster.device_in_worker(asked.device)
        place = {"scheduler": client.scheduler.address, "device": device}
        yield place, cluster.credentials(client)


@dataclass
class _Trainer:
    """Executes the notebook for one block after another."""

    asked: Asked
    folder: Path
    place: dict[str, Any]
    environment: dict[str, str]
    board: show.Board

    def train(self, block: Block) -> Done:
        """Train what is left of a block.

        Raises:
            OSError, sweep.SweepError: the store or the scheduler is gone: all others would fail.
        """
        began, before = time.perf_counter(), store.statuses(self.asked.results, block.runs)
        output = self.folder / _file_name(block)
        failure, tries = self._execute(block, output, len(before))
        now = store.statuses(self.asked.results, block.runs)
        left = len(block.runs) - len(now)
        reason = failure.reason if failure else _why_left(block) if left else None
        new = Counter(status for i, status in now.items() if i not in before)
        return Done(
            wanted=len(block.runs),
            stored=len(before),
            trained=new["ok"] + new["diverged"],
            diverged=new["diverged"],
            failed=new[store.FAILED],
            left=left,
            seconds=time.perf_counter() - began,
            tries=tries,
            notebook=str(output),
            error=reason and text.line(reason),
        )

    def _execute(
        self, block: Block, output: Path, before: int
    ) -> tuple[notebook.Failure | None, int]:
        """Execute the notebook, again where it fails; it goes on from what is stored. Why it failed
        in the end, if it did, and how often it was tried."""
        parameters = {**block.parameters, "results": str(self.asked.results), **self.place}

        def look() -> None:
            with suppress(OSError):
                self.board.runs(len(store.statuses(self.asked.results, block.runs)) - before)

        for tries in range(1, 2 + AGAIN):
            failure = notebook.execute(parameters, output, self.environment, look)
            if failure is None:
                break
            store.ensure_writable(self.asked.results)
            if self.asked.scheduler:
                sweep.scheduler_workers(self.asked.scheduler)
            if failure.hopeless or tries > AGAIN:
                break
            again = f"trying again ({tries} of {AGAIN})"
            self.board.line(f"{block.label}: {failure.reason}; {again}")
        return failure, tries


def _why_left(block: Block) -> str:
    """Why a notebook that ended well has not stored all runs."""
    try:
        check_listing(block.config, data.fingerprint(block.dataset))
    except ValueError as error:
        return str(error)
    return "the notebook ended, but they are not in the store"


def _file_name(block: Block) -> str:
    """Of the executed notebook: the same for the same runs, and no other's."""
    words = re.sub(r"[^\w.-]+", "-", block.label)[-NAME_LENGTH:]
    return f"{words}-{store.run_id({'runs': sorted(block.runs)})[:6]}.ipynb"


def _report(asked: Asked, done: Mapping[Block, Done], as_json: bool) -> None:
    ordered = {block: done[block] for block in asked.blocks if block in done}
    if as_json:
        answer = [block.names() | asdict(d) for block, d in ordered.items()]
        show.as_json({"results": str(asked.results), "blocks": answer})
        return
    names = COLUMNS[1:]
    rows = [(b.label, *(round(getattr(d, name)) for name in names)) for b, d in ordered.items()]
    sums = [round(sum(getattr(d, name) for d in ordered.values())) for name in names]
    show.table(COLUMNS, rows, ("all", *sums))
