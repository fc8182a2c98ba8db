"""The small default, trained in a thread of its own, and drawn while it trains."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Self

import ipywidgets as widgets
import pandas as pd

from ncbook import data, figures, optim
from ncbook.explore import controls, draw
from ncbook.explore.panels import as_table, changes
from ncbook.train import RunConfig, train_members

DATASET = "digits"
MEASUREMENTS = 40  # in one training, about: more would take longer than the training
LEAST_PAUSE = 0.25  # seconds from one drawing to the next
LRS = (1e-4, 5e-4, 1e-3, 5e-3, 0.01, 0.0679, 0.1)
MOMENTA = (0.0, 0.5, 0.7, 0.9, 0.95, 0.98)
DECAYS = (0.0, 5e-5, 5e-4, 5e-3, 0.05, 0.5, 5.0, 10.0)
EPOCHS = dict(value=60, min=5, max=200, step=5, continuous_update=False)
ALONE, TWIN, WITHOUT = "nothing", "the other kind of decay", "no weight decay"
UNDECAYED_COLOUR = "#777777"


class Stopped(Exception):
    """Raised in the training thread, to end it."""


class Training:
    """A training of a few members in a thread of its own, in which ``on_change`` is called after
    each measurement and at the end. ``history`` has the records so far. In the end ``runs`` has
    the runs' records, or ``error`` is what went wrong, or ``stopped`` is True."""

    def __init__(self, configs: Sequence[RunConfig], on_change: Callable[[Self], Any]) -> None:
        self.configs, self.epochs, self._on_change = tuple(configs), configs[0].epochs, on_change
        self.history: list[dict] = []
        self.epoch, self.runs, self.error, self.stopped = 0, None, None, False
        self.seconds = 0.0
        self._stop = threading.Event()
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        """End the training after this epoch."""
        self._stop.set()

    def _work(self) -> None:
        began = time.perf_counter()
        every = max(1, round(self.epochs / MEASUREMENTS))
        try:
            self.runs, _ = train_members(
                self.configs,
                data.load(DATASET),
                log_epochs=sorted({*range(0, self.epochs, every), 1, self.epochs}),
                compiled=False,  # compiling would take longer than so short a training
                on_epoch=self._at_epoch,
                on_measure=self._at_measure,
            )
        except Stopped:
            self.stopped = True
        except Exception as error:  # the panel shows it: errors of a thread are seen nowhere else
            self.error = error
        self.seconds = time.perf_counter() - began
        self._on_change(self)

    def _at_epoch(self, epoch: int, _: int) -> None:
        self.epoch = epoch
        if self._stop.is_set():
            raise Stopped

    def _at_measure(self, records: list[dict]) -> None:
        self.history += records
        self._on_change(self)

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.runs is not None or self.stopped or self.error is not None

    def progress(self) -> str:
        """How far it is, or how it ended, in one line."""
        done = f"{self.epoch} of {self.epochs} epochs"
        if self.error is not None:
            return f"The training ended with an error after {done}: {self.error}"
        if self.stopped:
            return f"Stopped after {done}."
        if self.runs is None:
            return f"Training: {done}…"
        lost = sum(run["status"] == "diverged" for run in self.runs)
        diverged = f" {lost} of {len(self.runs)} diverged." if lost else ""
        return f"Done: {done} in {self.seconds:.0f} s.{diverged}"


class LivePanel(widgets.VBox):
    """Settings, a start and a stop button, and a plot that moves while the digits are learnt."""

    def __init__(self) -> None:
        self.controls = _settings()
        self.start = controls.button("Start", "train with these settings", "play", "primary")
        self.stop = controls.button("Stop", "end the training after this epoch", "stop")
        self.bar = widgets.IntProgress(description="epochs", tooltip="how many epochs are done")
        self.status = controls.StatusLine()
        self.picture, self.table = controls.Picture(), widgets.HTML()
        self.training: Training | None = None
        self._next_drawing = 0.0
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
        """The chosen setting, and what trains next to it."""
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
        if self.training and self.training.thread.is_alive():
            return
        self.start.disabled, self.stop.disabled = True, False
        self.bar.value, self.table.value = 0, ""
        self.status.say("starting…")
        configs = self.configs
        self.bar.max = configs[0].epochs
        self.training = Training(configs, self._show)

    def _stop(self) -> None:
        if self.training:
            self.status.say("stopping…")
            self.training.stop()

    def _show(self, training: Training) -> None:
        """Called in the training's thread."""
        self.bar.value = training.epoch
        if training.over or time.monotonic() > self._next_drawing:
            self._draw(training)
        self.status.say(training.progress())
        if training.over:
            self.start.disabled, self.stop.disabled = False, True
            self.table.value = tables(training)

    def _draw(self, training: Training) -> None:
        began = time.monotonic()
        if training.history and training.history[-1]["epoch"] > 0:  # one point makes no line
            figure = draw.over_epochs(lines(training), draw.LIVE_PANELS, training.epochs)
            self.picture.show(figure, "Metrics over the epochs trained so far")
        # Pause for as long as drawing took: training gets at least half of the time.
        now = time.monotonic()
        self._next_drawing = now + max(LEAST_PAUSE, now - began)


def _settings() -> dict[str, widgets.ValueWidget]:
    beside = f"what is trained together with it: {TWIN}, for example, is AdamW next to Adam"
    names = [(label, name) for name, label in figures.LABELS.items()]
    made = {
        "optimizer": controls.dropdown("optimizer", "the update rule", names),
        "beside": controls.dropdown("beside it", beside, (TWIN, WITHOUT, ALONE)),
        "lr": controls.stops("learning rate η", "at the start", LRS, 5e-3),
        "momentum": controls.stops("momentum β", "of Adam: β₁", MOMENTA, 0.9),
        "weight_decay": controls.stops("weight decay λ", "of all parameters", DECAYS, 0.05),
        "epochs": widgets.IntSlider(**EPOCHS, **controls.words("epochs", "passes over the data")),
    }
    made["optimizer"].value = "adam"
    return made


def _twin(optimizer: str) -> str:
    """The same direction with the other kind of weight decay."""
    direction = optim.rule(optimizer).direction
    twins = (name for name in figures.LABELS if optim.rule(name).direction == direction)
    return next(name for name in twins if name != optimizer)


def lines(training: Training) -> list[draw.Line]:
    """The lines to draw of a training, one a member."""
    made = []
    for member, config in enumerate(training.configs):
        look = figures.look(config.optimizer)
        look["label"] += f", λ = {config.weight_decay:g}"
        if made and made[0].color == look["color"]:
            look["color"] = UNDECAYED_COLOUR
        rows = [row for row in training.history if row["member"] == member]
        if rows:
            made.append(draw.Line(pd.DataFrame(rows), **look))
    return made


def tables(training: Training) -> str:
    """The metrics at the start and at the end of each member of a finished training, HTML."""
    if training.runs is None:
        return ""
    pieces = []
    for run, config in zip(training.runs, training.configs, strict=True):
        label = figures.look(config.optimizer)["label"]
        table = as_table(changes(pd.DataFrame([run])))
        pieces.append(f"<div><b>{label}, λ = {config.weight_decay:g}</b>{table}</div>")
    row = f'<div style="display: flex; gap: 3em; flex-wrap: wrap">{"".join(pieces)}</div>'
    return controls.dense(row)
