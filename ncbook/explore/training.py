"""The small default, trained now: in a thread of its own, drawn meanwhile, stopped at will."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets as widgets
import pandas as pd

from ncbook import data, figures, optim
from ncbook.explore import controls, draw
from ncbook.explore.runs import changes
from ncbook.train import RunConfig, train_members

DATASET = "digits"
MEASUREMENTS = 40  # in one training, about: more would take longer than the training
REST = 0.25  # seconds from one drawing to the next, at least
LRS = (1e-4, 5e-4, 1e-3, 5e-3, 0.01, 0.0679, 0.1)
MOMENTA = (0.0, 0.5, 0.7, 0.9, 0.95, 0.98)
DECAYS = (0.0, 5e-5, 5e-4, 5e-3, 0.05, 0.5, 5.0, 10.0)
EPOCHS = dict(value=60, low=5, high=200, step=5)
ALONE, TWIN, WITHOUT = "nothing", "the other kind of decay", "no weight decay"
UNDECAYED_COLOUR = "#777777"


class Stopped(Exception):
    """Raised in the training thread, to end it."""


class Training:
    """A training of a few members in a thread of its own.

    Args:
        configs: as for ``train_members``.
        on_change: called in that thread after each measurement, and when it is over.

    Attributes:
        history: the records so far. epoch: how many are done. runs: the records at the end, or
        None. error: what went wrong, or None. stopped: whether it was stopped.
    """

    def __init__(
        self, configs: Sequence[RunConfig], on_change: Callable[[Training], Any] | None = None
    ) -> None:
        self.configs, self._on_change = tuple(configs), on_change
        self.history: list[dict] = []
        self.epoch, self.runs, self.error, self.stopped = 0, None, None, False
        self.seconds = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    @property
    def epochs(self) -> int:
        """How many there will be."""
        return self.configs[0].epochs

    @property
    def running(self) -> bool:
        """Whether the thread is alive."""
        return self._thread.is_alive()

    @property
    def log_epochs(self) -> list[int]:
        """The epochs that are measured."""
        every = max(1, round(self.epochs / MEASUREMENTS))
        return sorted({*range(0, self.epochs, every), 1, self.epochs})

    def start(self) -> Training:
        """Begin, and return at once."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Have it end after this epoch."""
        self._stop.set()

    def wait(self, seconds: float | None = None) -> None:
        """Until it is over."""
        self._thread.join(seconds)

    def of_member(self, member: int) -> pd.DataFrame:
        """The epochs of one member so far."""
        return pd.DataFrame([row for row in self.history if row["member"] == member])

    def _work(self) -> None:
        began = time.perf_counter()
        try:
            self.runs, _ = train_members(
                self.configs,
                data.load(DATASET),
                log_epochs=self.log_epochs,
                compiled=False,  # that would take longer than so short a training
                on_epoch=self._at_epoch,
                on_measure=self._at_measure,
            )
        except Stopped:
            self.stopped = True
        except Exception as error:  # whatever it is, the panel says it: nobody sees a thread's end
            self.error = error
        self.seconds = time.perf_counter() - began
        self._tell()

    def _at_epoch(self, epoch: int, _: int) -> None:
        self.epoch = epoch
        if self._stop.is_set():
            raise Stopped

    def _at_measure(self, records: list[dict]) -> None:
        self.history += records
        self._tell()

    def _tell(self) -> None:
        if self._on_change:
            self._on_change(self)


class LivePanel(widgets.VBox):
    """Settings, a start and a stop button, and a plot that moves while the digits are learnt."""

    title = "Train it now"

    def __init__(self) -> None:
        self.controls = _settings()
        self.start = controls.button("Start", "train with these settings", "play", "primary")
        self.stop = controls.button("Stop", "end the training after this epoch", "stop")
        self.bar = widgets.IntProgress(description="epochs", tooltip="how many epochs are done")
        self.status = controls.StatusLine()
        self.picture, self.table = controls.Picture(), widgets.HTML()
        self.training: Training | None = None
        self._drawn_at, self._took = 0.0, 0.0
        self.start.on_click(lambda _: self._start())
        self.stop.on_click(lambda _: self._stop())
        self.stop.disabled = True
        note = controls.note(
            "The book's small default, an MLP on 1,400 images of digits, trains in this kernel: "
            "seconds on an idle machine. Nothing is stored."
        )
        buttons = controls.row(self.start, self.stop, self.bar)
        parts = [note, controls.row(*self.controls.values()), buttons, self.status]
        super().__init__([*parts, self.picture, self.table])

    @property
    def configs(self) -> list[RunConfig]:
        """What the controls say: the setting, and what trains beside it."""
        chosen = {name: control.value for name, control in self.controls.items()}
        beside = chosen.pop("beside")
        first = RunConfig(dataset=DATASET, **chosen)
        if beside == TWIN:
            chosen["optimizer"] = _twin(first.optimizer)
        if beside == WITHOUT:
            chosen["weight_decay"] = 0.0
        second = RunConfig(dataset=DATASET, **chosen)
        return [first] if second == first else [first, second]

    def _start(self) -> None:
        if self.training and self.training.running:
            return
        self.start.disabled, self.stop.disabled = True, False
        self.bar.value, self.table.value = 0, ""
        self.status.say("starting…")
        self.training = Training(self.configs, self._show)
        self.bar.max = self.training.epochs
        self.training.start()

    def _stop(self) -> None:
        if self.training:
            self.status.say("stopping…")
            self.training.stop()

    def _show(self, training: Training) -> None:
        """Called in the training's thread."""
        over = training.runs is not None or training.stopped or training.error is not None
        self.bar.value = training.epoch
        rest = max(REST, self._took)
        if over or time.monotonic() - self._drawn_at > rest:
            self._draw(training)
        self.status.say(progress(training))
        if over:
            self.start.disabled, self.stop.disabled = False, True
            self.table.value = tables(training)

    def _draw(self, training: Training) -> None:
        """As seldom as it takes long, so that training has half of the time at least."""
        began = time.monotonic()
        if training.history and training.history[-1]["epoch"] > 0:  # one point makes no line
            figure = draw.over_epochs(lines(training), draw.LIVE_PANELS, training.epochs)
            self.picture.show(figure, "Metrics over the epochs trained so far")
        self._drawn_at = time.monotonic()
        self._took = self._drawn_at - began


def _settings() -> dict[str, widgets.ValueWidget]:
    beside = f"what is trained together with it: {TWIN}, for example, is AdamW beside Adam"
    names = [(figures.LABELS[name], name) for name in figures.LABELS]
    made = {
        "optimizer": controls.dropdown("optimizer", "the update rule", names),
        "beside": controls.dropdown("beside it", beside, (TWIN, WITHOUT, ALONE)),
        "lr": controls.steps("learning rate η", "at the start", LRS, 5e-3),
        "momentum": controls.steps("momentum β", "of Adam: β₁", MOMENTA, 0.9),
        "weight_decay": controls.steps("weight decay λ", "of all parameters", DECAYS, 0.05),
        "epochs": controls.slider(
            widgets.IntSlider, "epochs", "passes over the 1,400 images", **EPOCHS
        ),
    }
    made["optimizer"].value = "adam"
    return made


def _twin(optimizer: str) -> str:
    """The same direction with the other kind of weight decay."""
    rule = optim.rule(optimizer)
    return next(
        name
        for name in figures.LABELS
        if name != optimizer and optim.rule(name).direction == rule.direction
    )


def lines(training: Training) -> list[draw.Line]:
    """What is drawn of a training: a line a member."""
    made = []
    for member, config in enumerate(training.configs):
        look = figures.look(config.optimizer)
        look["label"] += f", λ = {config.weight_decay:g}"
        if made and made[0].color == look["color"]:
            look["color"] = UNDECAYED_COLOUR
        history = training.of_member(member)
        if not history.empty:
            made.append(draw.Line(history, **look))
    return made


def progress(training: Training) -> str:
    """Where a training stands, in one line."""
    done = f"{training.epoch} of {training.epochs} epochs"
    if training.error is not None:
        return f"The training ended with an error after {done}: {training.error}"
    if training.stopped:
        return f"Stopped after {done}."
    if training.runs is not None:
        lost = sum(run["status"] == "diverged" for run in training.runs)
        diverged = f" {lost} of {len(training.runs)} diverged." if lost else ""
        return f"Done: {done} in {training.seconds:.0f} s.{diverged}"
    return f"Training: {done}…"


def tables(training: Training) -> str:
    """The metrics at the start and at the end of each member of a finished training, HTML."""
    if training.runs is None:
        return ""
    pieces = []
    for run, config in zip(training.runs, training.configs, strict=True):
        label = figures.look(config.optimizer)["label"]
        table = changes(pd.DataFrame([run])).to_html()
        pieces.append(f"<div><b>{label}, λ = {config.weight_decay:g}</b>{table}</div>")
    row = f'<div style="display: flex; gap: 3em; flex-wrap: wrap">{"".join(pieces)}</div>'
    return controls.dense(row)
