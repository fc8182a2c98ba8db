"""``ncbook sweep``: an execution of the notebook for each block, on workers that stay warm."""

import contextlib
import re
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ncbook import data, store, sweep, text
from ncbook.cli import blocks, notebook, show
from ncbook.cli.blocks import Asked, Block
from ncbook.cli.lines import say
from ncbook.cli.options import Options
from ncbook.paths import expanded
from ncbook.sweep import cluster, leases
from ncbook.train import check_listing

AGAIN = 3  # times that a notebook that failed is tried again
NAME_LENGTH = 50  # characters, of up to four bytes: file systems take 255
NOTEBOOKS = "notebooks"  # the store's folder for executed ones, unless another was asked for
# The notebook's parameters that say where it trains, and environment variables for its kernel.
Place = tuple[dict[str, Any], dict[str, str]]
COLUMNS = ("block", "trained", "stored", "diverged", "failed", "seconds")


@dataclass(frozen=True)
class Done:
    """What became of a block.

    Args:
        wanted: runs.
        stored: of these, before; by this sweep or others.
        trained: since then, among them ``diverged``.
        failed: given up since then: they killed their worker each time.
        left: neither stored nor given up.
        tries: executions of the notebook.
        error: why the last one failed.
    """

    wanted: int
    stored: int
    trained: int = 0
    diverged: int = 0
    failed: int = 0
    left: int = 0
    seconds: float = 0.0
    tries: int = 0
    notebook: str | None = None
    error: str | None = None

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

    def row(self) -> tuple:
        """Of the table."""
        seconds = f"{self.seconds:.0f}" if self.tries else None
        return self.trained, self.stored, self.diverged, self.failed, seconds


def train_blocks(options: Options, notebooks: str | None, as_json: bool) -> bool:
    """Train what the store lacks, and report; whether all of it was trained.

    Raises:
        ValueError, OSError, data.DataNotFoundError, sweep.SweepError: what was asked for cannot be;
            nothing was trained or made.
        KeyboardInterrupt: Ctrl-C; nothing that ended is lost, and all processes have ended.
    """
    asked = blocks.read(options)
    notebook.check_source()
    blocks.check_data(asked)
    folder = expanded(notebooks, "notebooks") if notebooks else asked.results / NOTEBOOKS
    _make_folders(asked.results, folder.absolute())
    store.set_aside_damaged(asked.results)
    with _one_interrupt():
        done, stop = _sweep(asked, folder.absolute())
    _report(asked, done, as_json)
    if stop:
        say(f"{stop}; all that ended is stored, and the same command goes on from there")
    return not stop and not any(d.error for d in done.values())


def _make_folders(results: Path, notebooks: Path) -> None:
    """Both, and proof that files can be written there; or neither."""
    wanted = [results / "runs", notebooks]
    new = {f for folder in wanted for f in (folder, *folder.parents) if not f.exists()}
    try:
        store.ensure_writable(results)
        _prove_writable(notebooks)
    except OSError:
        for folder in sorted(new, reverse=True):  # what is in a folder comes before it
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def _prove_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"probe")
            file.flush()
    except OSError as error:
        why = error.strerror or error
        raise OSError(f"the notebooks folder {folder} cannot be written ({why})") from None


@contextmanager
def _one_interrupt() -> Iterator[None]:
    """The first Ctrl-C or SIGTERM stops the sweep, which takes seconds; further ones don't stop the
    stopping.

    Where one was to be ignored, as Ctrl-C of a job in the background, it still is.
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
    """What became of each block; and why the sweep had to stop before the last, if it had."""
    stored = store.stored_in(asked.results)
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
            for block in todo:
                board.begin(block.label)
                done[block] = _train(block, asked, place, folder, stored, board)
                board.end(f"{block.label}: {done[block].text()}", bool(done[block].error))
    except (OSError, sweep.SweepError) as error:
        return done, str(error)
    finally:
        with contextlib.suppress(OSError):
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


def _train(
    block: Block,
    asked: Asked,
    place: Place,
    folder: Path,
    stored: store.Stored,
    board: show.Board,
) -> Done:
    """Execute the notebook, again where it fails; it goes on from what is stored.

    Raises:
        OSError, sweep.SweepError: it can only fail, for want of a store or of a scheduler.
    """
    began, before = time.perf_counter(), stored.among(block.runs)
    where, environment = place
    parameters = dict(block.parameters) | {"results": str(asked.results)} | where
    output = folder / _file_name(block)

    def look() -> None:
        with contextlib.suppress(OSError):
            board.runs(len(stored.among(block.runs)) - len(before))

    for tries in range(1, 2 + AGAIN):
        failure = notebook.execute(parameters, output, environment, look)
        if failure is None:
            break
        _check_that_it_can_go_on(asked)
        if failure.hopeless or tries > AGAIN:
            break
        board.line(f"{block.label}: {failure.reason}; trying again ({tries} of {AGAIN})")
    now = stored.among(block.runs)
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


def _why_left(block: Block) -> str:
    """What happened to runs that a notebook which ended well has not stored."""
    config = next(iter(block.runs.values()))
    try:
        check_listing(config, data.fingerprint(config.dataset))
    except ValueError as error:
        return str(error)
    return "the notebook ended, but they are not in the store"


def _check_that_it_can_go_on(asked: Asked) -> None:
    store.ensure_writable(asked.results)
    if asked.scheduler:
        sweep.scheduler_workers(asked.scheduler)


def _file_name(block: Block) -> str:
    """Of the executed notebook: the same for the same runs, and no other's."""
    words = re.sub(r"[^\w.-]+", "-", block.label)[-NAME_LENGTH:]
    return f"{words}-{store.run_id({'runs': sorted(block.runs)})[:6]}.ipynb"


# ------------------------------------------------------------ the report


def _report(asked: Asked, done: Mapping[Block, Done], as_json: bool) -> None:
    ordered = {block: done[block] for block in asked.blocks if block in done}
    if as_json:
        answer = [block.names() | asdict(d) for block, d in ordered.items()]
        show.as_json({"results": str(asked.results), "blocks": answer})
        return
    rows = [(block.label, *d.row()) for block, d in ordered.items()]
    sums = [sum(getattr(d, name) for d in ordered.values()) for name in COLUMNS[1:]]
    show.table(COLUMNS, rows, ("all", *(f"{value:.0f}" for value in sums)))
