"""The small default, trained in a thread of its own, and drawn while it trains."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Self

import ipywidgets as widgets
import pandas as pd

from ncbook import data, figures, optim
from ncbook.explore import controls
from ncbook.explore.panels import LIVE_PANELS, changes, over_epochs
from ncbook.train import RunConfig, train_members

DATASET = "digits"
MEASUREMENTS = 40  # in one training, about: more would take longer than the training
LEAST_PAUSE = 0.25  # seconds from one drawing to the next
DECAYS = (0.0, 5e-5, 5e-4, 5e-3, 0.05, 0.5, 5.0, 10.0)
# Of each slider: label, tooltip, stops and the first one.
SLIDERS = {
    "lr": ("learning rate η", "at the start", (1e-4, 5e-4, 1e-3, 5e-3, 0.01, 0.0679, 0.1), 5e-3),
    "momentum": ("momentum β", "of Adam: β₁", (0.0, 0.5, 0.7, 0.9, 0.95, 0.98), 0.9),
    "weight_decay": ("weight decay λ", "of all parameters", DECAYS, 0.05),
}
EPOCHS = dict(value=60, min=5, max=200, step=5, continuous_update=False)
ALONE, TWIN, WITHOUT = "nothing", "the other kind of decay", "no weight decay"


class Stopped(Exception):
    """Raised in the training thread, to end it."""


class Training(threading.Thread):
    """A training of a few members in a thread of its own, in which ``on_change`` is called after
    each measurement and at the end. ``history`` has the records so far; ``result`` says how it
    ended, and is empty while it trains; ``runs`` has the records of a training that was done."""

    def __init__(self, configs: Sequence[RunConfig], on_change: Callable[[Self], Any]) -> None:
        super().__init__(daemon=True)
        self.configs, self.epochs, self._on_change = configs, configs[0].epochs, on_change
        self.looks = [figures.look(config.optimizer) for config in configs]
        for look, config in zip(self.looks, configs, strict=True):
            look["label"] += f", λ = {config.weight_decay:g}"
        self.history: list[dict] = []
        self.runs: list[dict] = []
        self.epoch, self.stopping, self.result = 0, False, ""

    @property
    def done(self) -> str:
        """How far it is."""
        return f"{self.epoch} of {self.epochs} epochs"

    def run(self) -> None:
        """Train, and keep how it ended."""
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
            lost = sum(run["status"] == "diverged" for run in self.runs)
            diverged = f" {lost} of {len(self.runs)} diverged." if lost else ""
            self.result = f"Done: {self.done} in {time.perf_counter() - began:.0f} s.{diverged}"
        except Stopped:
            self.result = f"Stopped after {self.done}."
        except Exception as error:  # the panel shows it: errors of a thread are seen nowhere else
            self.result = f"The training ended with an error after {self.done}: {error}"
        self._on_change(self)

    def _at_epoch(self, epoch: int, _: int) -> None:
        self.epoch = epoch
        if self.stopping:
            raise Stopped

    def _at_measure(self, records: list[dict]) -> None:
        self.history += records
        self._on_change(self)


class LivePanel(widgets.VBox):
    """Settings, a start and a stop button, and a plot that moves while the digits are learnt."""

    def __init__(self) -> None:
        self.controls = _settings()
        self.start = widgets.Button(description="Start", tooltip="train with these settings")
        self.start.icon, self.start.button_style = "play", "primary"
        self.stop = widgets.Button(description="Stop", icon="stop", disabled=True)
        self.stop.tooltip = "end the training after this epoch"
        self.bar = widgets.IntProgress(description="epochs", tooltip="how many epochs are done")
        self.status = controls.StatusLine()
        self.picture, self.table = controls.Picture(), widgets.HTML()
        self.training: Training | None = None
        self._next_drawing = 0.0
        self.start.on_click(self._start)
        self.stop.on_click(self._stop)
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
        beside, name = chosen.pop("beside"), chosen["optimizer"]
        other = {TWIN: {"optimizer": _twin(name)}, WITHOUT: {"weight_decay": 0.0}}.get(beside, {})
        first, second = (RunConfig(dataset=DATASET, **chosen | more) for more in ({}, other))
        return [first] if second == first else [first, second]

    def _start(self, _: object) -> None:
        if self.training and self.training.is_alive():
            return
        self.start.disabled, self.stop.disabled = True, False
        self.bar.value, self.table.value = 0, ""
        self.status.say("starting…")
        self.training = Training(self.configs, self._show)
        self.bar.max = self.training.epochs
        self.training.start()

    def _stop(self, _: object) -> None:
        self.status.say("stopping…")
        self.training.stopping = True

    def _show(self, training: Training) -> None:
        """Called in the training's thread."""
        self.bar.value = training.epoch
        began = time.monotonic()
        if training.history and (training.result or began > self._next_drawing):
            members = pd.DataFrame(training.history).groupby("member")
            lines = [(members.get_group(n), look) for n, look in enumerate(training.looks)]
            figure = over_epochs(lines, LIVE_PANELS, training.epochs)
            self.picture.show(figure, "Metrics over the epochs trained so far")
            # Pause for as long as drawing took: training gets at least half of the time.
            now = time.monotonic()
            self._next_drawing = now + max(LEAST_PAUSE, now - began)
        self.status.say(training.result or f"Training: {training.done}…")
        if training.result:
            self.start.disabled, self.stop.disabled = False, True
        if training.runs:
            pairs = zip(training.looks, training.runs, strict=True)
            sides = {look["label"]: pd.DataFrame([run]) for look, run in pairs}
            self.table.value = controls.dense(changes(sides))


def _twin(name: str) -> str:
    """The optimizer of the same direction with the other form of decay; itself if there is none."""
    share = 1 - optim.rule(name).coupled_share
    twin = optim.Rule(optim.rule(name).direction, share)
    return next((n for n, rule in optim.OPTIMIZERS.items() if rule == twin), name)


def _settings() -> dict[str, widgets.ValueWidget]:
    beside = f"what is trained together with it: {TWIN}, for example, is AdamW next to Adam"
    names = [(label, name) for name, label in figures.LABELS.items()]
    made = {
        "optimizer": controls.dropdown("optimizer", "the update rule", names),
        "beside": controls.dropdown("beside it", beside, (TWIN, WITHOUT, ALONE)),
    }
    for name, (label, tooltip, stops, value) in SLIDERS.items():
        options = [(f"{stop:g}", stop) for stop in stops]
        look = controls.words(label, tooltip) | {"continuous_update": False}
        made[name] = widgets.SelectionSlider(options=options, value=value, **look)
    look = controls.words("epochs", "passes over the data")
    made["epochs"] = widgets.IntSlider(**EPOCHS, **look)
    made["optimizer"].value = "adam"
    return made
