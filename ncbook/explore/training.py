"""The small default, trained in a thread of its own, and drawn while it trains."""

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from itertools import groupby, product
from typing import Any, ClassVar, Self

import ipywidgets as widgets
import numpy as np
import pandas as pd
import torch

from ncbook import data, figures, optim, store, sweep, text, theory
from ncbook.explore import controls
from ncbook.explore.controls import OWN, STARTS, Chooser
from ncbook.explore.curves import LIVE_PANELS, changes, ended, over_epochs, told_apart
from ncbook.explore.view import RECIPE, StoreView
from ncbook.sweep.machine import provenance
from ncbook.train import RunConfig, learning_rate_factors, train_members

MEASUREMENTS = 40  # in one training, about: more would take longer than the training
LEAST_PAUSE = 0.25  # seconds from one drawing to the next
COLUMNS = tuple(name for name in OWN if name != controls.SELDOM)
RATES = (1e-4, 5e-4, 1e-3, 5e-3, 0.01, 0.0679, 0.1, 1.0)
MOMENTA = (0.0, 0.5, 0.7, 0.9, 0.95, 0.98)
DECAYS = (0.0, 5e-5, 5e-4, 5e-3, 0.05, 0.5, 1.0, 5.0, 10.0)
EPOCHS = dict(value=60, min=5, max=200, step=5, continuous_update=False)
EPOCHS |= dict(description="epochs", tooltip="passes over the data")
STORED = {"linewidth": 5, "alpha": 0.35}
LAW = {"color": "#000000", "linestyle": ":", "linewidth": 2.5}
NOTE = (
    "The book's small default, an MLP on 1,400 images of digits, trains in this kernel: seconds on "
    "an idle machine. The learning rate drops after a third and two thirds of the epochs. Dotted: "
    "the exact law of NC0, where one holds; float32 rounding ends the fall near a millionth. Wide "
    "and pale: runs of the store with these settings, of as many epochs or of the nearest number."
)


class Stopped(Exception):
    """Raised in the training thread, to end it."""


class Training(threading.Thread):
    """Runs by label, trained in a thread that calls ``on_change`` after each epoch and at the end.
    ``history`` has the records so far; ``runs`` those of the runs that are done; ``result`` says
    how it ended. It stops the training before it, also if the notebook's cell has run again."""

    last: ClassVar["Training | None"] = None

    def __init__(self, configs: Mapping[str, RunConfig], on_change: Callable[[Self], Any]) -> None:
        super().__init__(daemon=True)
        self.labels, self.configs = [*configs], [*configs.values()]
        self.parts = [list(part) for _, part in groupby(self.configs, RunConfig.shared)]
        self.epochs = len(self.parts) * self.configs[0].epochs
        self.history: list[dict] = []
        self.runs: list[dict] = []
        self.done, self.stopping, self.result, self._on_change = 0, False, "", on_change
        self._before, Training.last = Training.last, self

    def run(self) -> None:
        """Train, and keep how it ended."""
        began = time.perf_counter()
        try:
            if self._before:
                self._before.stopping = True
                self._before.join()  # torch builds networks in a mode that all threads share
            self._before = None
            torch.set_num_threads(1)  # more gain nothing in so small a network
            for part in self.parts:
                self._train(part)
            lost = sum(run["status"] == "diverged" for run in self.runs)
            diverged = f" {lost} of {len(self.runs)} diverged." if lost else ""
            self.result = f"Done: {self.said} in {time.perf_counter() - began:.0f} s.{diverged}"
        except Stopped:
            self.result = f"Stopped after {self.said}."
        except Exception as error:  # the panel shows it: errors of a thread are seen nowhere else
            self.result = f"The training ended with an error after {self.said}: {error}"
        self._on_change(self)

    @property
    def said(self) -> str:
        """How far it is."""
        return f"{self.done} of {self.epochs} epochs"

    def _train(self, part: list[RunConfig]) -> None:
        before, last = len(self.runs), part[0].epochs
        logged = sorted({*range(0, last, max(1, round(last / MEASUREMENTS))), 1, last})

        def at_measure(records: list[dict]) -> None:
            self.history += [row | {"member": before + row["member"]} for row in records]

        def at_epoch(*_: int) -> None:
            self.done += 1
            if self.stopping:
                raise Stopped
            self._on_change(self)

        hooks = dict(on_epoch=at_epoch, on_measure=at_measure)
        hooks["compiled"] = False  # it would take longer than so short a training
        self.runs += train_members(part, data.load("digits"), log_epochs=logged, **hooks)[0]


class LivePanel(widgets.VBox):
    """Settings of A and B, buttons, and a plot that moves while the digits are learnt."""

    def __init__(self) -> None:
        offered = pd.DataFrame(product(figures.LABELS, RATES, MOMENTA, DECAYS), columns=COLUMNS)
        self.sides = {name: Chooser(COLUMNS, bool, name) for name in STARTS}
        for side in self.sides.values():
            side.offer(offered)
        heads = [("as the rest", ""), *((label, n) for n, label in figures.LABELS.items())]
        tip = "the optimizer of the last layer, which NC0 follows; η, β and λ are those of the rest"
        self.heads = {n: controls.dropdown(f"{n}'s last layer", tip, heads) for n in STARTS}
        self.epochs = widgets.IntSlider(**EPOCHS)
        self.start = controls.button("Start", "train A and B", self._start, "play")
        self.stop = controls.button("Stop", "end it after this epoch", self._stop, "stop")
        self.save = controls.button("Save to my store", "save what has ended", self._save, "save")
        self.stop.disabled = self.save.disabled = True
        self.bar = widgets.IntProgress(description="done", tooltip="of the epochs of A and B")
        self.status, self.picture = controls.StatusLine(), controls.Picture()
        self.table, self.training, self._next_drawing = widgets.HTML(), None, 0.0
        self.view, self.stored = StoreView(store.results_dir(), pd.DataFrame()), []
        self.told = ""  # what the store lacks
        choices = [c for side in self.sides.values() for c in side.controls.values()]
        buttons = (*self.heads.values(), self.epochs, self.start, self.stop, self.save, self.bar)
        rows = widgets.HBox(choices), widgets.HBox(buttons), self.status
        super().__init__([widgets.HTML(NOTE), *rows, self.picture, self.table])

    @property
    def configs(self) -> dict[str, RunConfig]:
        """A and B by label; one if they are the same."""
        heads, found = {name: head.value or None for name, head in self.heads.items()}, {}
        chosen = [s.chosen | dict(head_optimizer=heads[name]) for name, s in self.sides.items()]
        for config in dict.fromkeys(RunConfig(epochs=self.epochs.value, **own) for own in chosen):
            head = config.head_optimizer
            head = f" (last layer: {figures.LABELS[head]})" if head else ""
            label = f"{figures.LABELS[config.optimizer]}{head}, λ = {config.weight_decay:g}"
            more = f", η = {config.lr:g}, β = {config.momentum:g}" if label in found else ""
            found[label + more] = config
        return found

    def follow(self, sides: Mapping[str, Chooser], view: StoreView) -> None:
        """Choose what is chosen for A and B in the other tabs, or the nearest; and draw runs of
        this store next to one's own."""
        self.view = view
        for name, side in sides.items():
            self.sides[name].choose(**{column: side.chosen[column] for column in COLUMNS})

    def _start(self) -> None:
        if self.training and self.training.is_alive():
            return
        configs, stored = self.configs, []
        with self.status.working():
            found = [alike(config, self.view.runs) for config in configs.values()]
            stored += [(runs, self.view.history(runs) if len(runs) else runs) for runs in found]
        if stored:
            self.stored, self.training = stored, Training(configs, self._show)
            self.start.disabled, self.stop.disabled, self.save.disabled = True, False, True
            self.table.value, self.bar.value, self.bar.max = "", 0, self.training.epochs
            self.told = self._lacking() if len(self.view.runs) else ""
            once = "" if len(self.training.configs) > 1 else " A and B are the same: one run."
            self.status.say(f"Loading the digits: {self.training.said}…{once}")
            self.training.start()

    def _lacking(self) -> str:
        """What to say of settings that no stored run has."""
        pairs = zip(self.training.labels, self.stored, strict=True)
        names = [label for label, (runs, _) in pairs if runs.empty]
        return f" No stored run has the settings of {' or of '.join(names)}." if names else ""

    def _stop(self) -> None:
        self.status.say("stopping…")
        self.training.stopping = True

    def _save(self) -> None:
        configs, folder = self.training.configs[: len(self.training.runs)], store.results_dir()
        with self.status.working():
            new = {n: sweep.run_id(configs[n]) for n in map(configs.index, sweep.missing(configs))}
            made = provenance("cpu")
            runs = [{"run_id": i} | self.training.runs[n] | made for n, i in new.items()]
            rows = [row | {"run_id": new.get(row["member"])} for row in self.training.history]
            kept = [row for row in rows if row.pop("member") in new]
            if new:
                store.write(folder, runs, kept)
            count = text.many(len(new), "run")
            self.status.say(f"{count} saved in {folder}; what was there stayed.")

    def _show(self, training: Training) -> None:
        """Called in the training's thread."""
        self.bar.value, began = training.done, time.monotonic()
        if training.result:
            self.start.disabled, self.stop.disabled = False, True
            self.save.disabled = not training.runs
        self.status.say((training.result or f"Training: {training.said}…") + self.told)
        if training.history and (training.result or began > self._next_drawing):
            members = pd.DataFrame(training.history).groupby("member")
            figure = over_epochs(
                self._lines(members), LIVE_PANELS, training.configs[0].epochs, "digits, mlp"
            )
            self.picture.show(figure, "Metrics over the epochs trained so far")
            # Pause for as long as drawing took: training gets at least half of the time.
            now = time.monotonic()
            self._next_drawing = now + max(LEAST_PAUSE, now - began)
        if training.result and training.history:
            groups = {training.labels[n]: _ends(rows, training.configs[n]) for n, rows in members}
            told = "".join(ended(runs, label) for label, runs in groups.items())
            self.table.value = told + changes(groups)

    def _lines(self, members: Iterable[tuple[int, pd.DataFrame]]) -> list[tuple]:
        """Each run's line, that of the store's runs of its settings, and that of the exact law."""
        configs, labels = self.training.configs, self.training.labels
        looks = told_apart([figures.look(config.optimizer) for config in configs])
        looks, lines = [looks[n] | {"label": label} for n, label in enumerate(labels)], []
        for n, rows in members:
            runs, history = self.stored[n]
            if len(runs):
                seeds = f", median of {len(runs)} seeds" * (len(runs) > 1)
                said = f"{labels[n]}: stored, {runs['epochs'].iloc[0]} epochs{seeds}"
                until = history[history["epoch"] <= configs[n].epochs]
                lines.append((until, looks[n] | STORED | {"label": said}))
            lines.append((rows, looks[n]))
            lines += _law_line(configs[n], labels[n], rows)
        return lines


def alike(config: RunConfig, runs: pd.DataFrame) -> pd.DataFrame:
    """Those of a store's runs that differ from a config in seed and epochs alone, and of them those
    whose number of epochs is nearest to its own."""
    for name in (*COLUMNS, "dataset", "model", *RECIPE) if len(runs) else ():
        value = getattr(config, name)
        if name != "epochs":
            runs = runs[runs[name].isna() if value is None else runs[name] == value]
    far = (runs.get("epochs", pd.Series()) - config.epochs).abs()
    return runs[far == far.min()]


def _law_line(config: RunConfig, label: str, rows: pd.DataFrame) -> list[tuple]:
    """That of the exact law for a run, where one holds."""
    path = law(config)
    if path is None:
        return []
    nc0 = rows["nc0"].iloc[0] * path[:: len(path) // config.epochs][rows["epoch"]]
    said = f"{label}: the exact law" + " (0 after the first step)" * (not path[1:].any())
    return [(rows[["epoch"]].assign(nc0=nc0), LAW | {"label": said})]


def law(config: RunConfig) -> np.ndarray | None:
    """NC0 over its start after each step by the exact law; None if none holds."""
    name, last = config.head_optimizer or config.optimizer, config.epochs
    if name not in figures.LAWFUL:
        return None
    steps = -(-figures.TRAINING_IMAGES["digits"] // config.batch_size)
    factors = [learning_rate_factors(config.schedule, e, steps, last) for e in range(last)]
    lrs, decoupled = config.lr * np.concatenate(factors), 1 - optim.OPTIMIZERS[name].coupled_share
    return np.abs(theory.row_sum_stepped(lrs, config.momentum, config.weight_decay, decoupled))


def _ends(rows: pd.DataFrame, config: RunConfig) -> pd.DataFrame:
    """The start and the last measured epoch of a run in the form of the store's records."""
    last, first = rows.iloc[-1], rows.iloc[0].add_suffix("_init")
    status = "ok" if np.isfinite(last["nc3"]) else "diverged"
    known = {name: getattr(config, name) for name in (*COLUMNS, "seed")} | {"status": status}
    return pd.concat([last, first, pd.Series(known)]).to_frame().T.infer_objects()
