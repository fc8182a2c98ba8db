"""Dropdowns over a table of runs; each offers what the choices before it allow."""

from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets as widgets
import pandas as pd

from ncbook import figures, text
from ncbook.explore import controls

# Column: label and tooltip, in the order in which choices depend on each other.
WORDS = {
    "dataset": ("data set", "what the network was trained on"),
    "model": ("network", "the architecture that was trained"),
    "recipe": ("training", "the epochs, and every setting that differs from the default"),
    "optimizer": ("optimizer", "the update rule; names that end in W decouple the weight decay"),
    "coupled_share": ("coupled share", "the share of the weight decay that is in the gradient"),
    "lr": ("learning rate η", "at the start of the training"),
    "momentum": ("momentum β", "of Adam: β₁"),
    "weight_decay": ("weight decay λ", "of mixed optimizers: coupled and decoupled together"),
    "seed": ("seed", "of the initial weights and of the minibatches"),
}
LABEL = 120  # characters of an option, at most
EVERY = "all"  # ipywidgets would take None for no choice
SELDOM = "coupled_share"  # one value for most optimizers: then its control is hidden
# The first choice, where it exists: one run of the book's small default that collapsed.
START = {
    "dataset": "digits",
    "model": "mlp",
    "recipe": "200 epochs",
    "optimizer": "adam",
    "lr": 0.005,
    "momentum": 0.9,
    "weight_decay": 0.05,
}


class Chooser(widgets.Box):
    """One dropdown a column. ``selected`` always has at least one run, if there are any: a change
    sets each later control to the same value or to the nearest one that exists.

    Args:
        columns: keys of ``WORDS``.
        on_choice: called after the user changed a control, not after ``offer`` and ``choose``.
        or_all: columns of which all values may be taken together.
        start: the first choice, where it exists.
    """

    def __init__(
        self,
        columns: Sequence[str],
        on_choice: Callable[[], Any],
        or_all: Sequence[str] = (),
        start: dict[str, Any] = START,
    ) -> None:
        self.controls = {name: controls.dropdown(*WORDS[name]) for name in columns}
        self.selected = self._runs = pd.DataFrame()
        self._on_choice, self._or_all = on_choice, or_all
        self._narrowing, self._start = False, start
        for control in self.controls.values():
            control.observe(self._changed, "value")
        layout = {"display": "flex", "flex_flow": "row wrap"}
        super().__init__(list(self.controls.values()), layout=layout)

    def offer(self, runs: pd.DataFrame) -> None:
        """Offer other runs; choices that exist among them stay."""
        self._runs = runs
        self._narrow(self._wanted() if self.chosen else self._start)

    def choose(self, **values: Any) -> None:
        """Choose these values, or the nearest that exist."""
        self._narrow(self._wanted() | values)

    @property
    def chosen(self) -> dict[str, Any]:
        """Column to value; ``EVERY`` where all are taken. Empty if there are no runs."""
        if self.selected.empty:
            return {}
        return {name: control.value for name, control in self.controls.items()}

    def _changed(self, _: object) -> None:
        if not self._narrowing:
            self._narrow(self._wanted())
            self._on_choice()

    def _wanted(self) -> dict[str, Any]:
        """The controls' values. A single seed was no choice: all were wanted."""
        single = {n for n in self._or_all if len(self.controls[n].options) < 2}
        return {n: EVERY if n in single else c.value for n, c in self.controls.items()}

    def _narrow(self, wanted: dict[str, Any]) -> None:
        self._narrowing, rows = True, self._runs
        try:
            for name, control in self.controls.items():
                options = _options(rows, name, name in self._or_all)
                if control.options != options:
                    control.options = options
                    controls.fit(control)
                if options:
                    offered = [value for _, value in options]
                    control.value = _nearest(wanted.get(name), offered, rows[name])
                    if control.value != EVERY:
                        rows = rows[rows[name] == control.value]
                hidden = name == SELDOM and len(options) < 2
                control.layout.display = "none" if hidden else None
        finally:
            self._narrowing = False
        self.selected = rows


def _options(rows: pd.DataFrame, name: str, or_all: bool) -> tuple[tuple[str, Any], ...]:
    if rows.empty:
        return ()
    if name == "optimizer":
        names = [optimizer for optimizer, _ in figures.by_optimizer(rows)]
        return tuple((figures.look(optimizer)["label"], optimizer) for optimizer in names)
    values = rows[name].drop_duplicates().sort_values().tolist()
    options = [(f"{v:g}" if isinstance(v, float) else text.line(v, LABEL), v) for v in values]
    every = [(f"all {len(values)}", EVERY)] if or_all and len(values) > 1 else []
    return (*every, *options)


def _nearest(wanted: Any, offered: Sequence[Any], values: pd.Series) -> Any:
    """The wanted value; or the nearest number; or all; or the commonest value."""
    if wanted in offered:
        return wanted
    if isinstance(wanted, float) and pd.api.types.is_float_dtype(values):
        # Learning rates by their ratio: 0.01 is nearer to 0.005 than 0.001 is.
        by_ratio = values.name == "lr"
        return min(
            values.unique(), key=lambda v: abs(v - wanted) / (max(v, wanted) if by_ratio else 1)
        ).item()
    return EVERY if EVERY in offered else values.mode().iloc[0]
