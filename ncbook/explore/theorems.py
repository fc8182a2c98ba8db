"""The theorems with a slider for each of their numbers."""

from collections.abc import Callable

import ipywidgets as widgets

from ncbook import theory
from ncbook.explore import controls, draw

LAW = draw.Law()
DESCENT = draw.SignDescent()


class Sketch(widgets.VBox):
    """Sliders, a figure that follows them, and its numbers in words.

    Args:
        sliders: by the field of ``settings`` that each sets.
        settings: a dataclass of ``draw``.
        figure: draws an instance of it.
        words: says its numbers, in HTML.
        note: what the reader sees, HTML.
    """

    def __init__(
        self,
        sliders: dict[str, widgets.ValueWidget],
        settings: type,
        figure: Callable,
        words: Callable,
        note: str,
    ) -> None:
        self.controls, self._made_of = sliders, (settings, figure, words)
        self.status = controls.StatusLine()
        self.picture, self.numbers = controls.Picture(), widgets.HTML()
        for control in sliders.values():
            control.observe(lambda _: self.redraw(), "value")
        parts = [controls.note(note), controls.row(*sliders.values()), self.status]
        super().__init__([*parts, self.picture, self.numbers])

    @property
    def settings(self):
        """What the sliders say."""
        return self._made_of[0](**{name: c.value for name, c in self.controls.items()})

    def redraw(self) -> None:
        """Draw what the sliders say."""
        _, figure, words = self._made_of
        with self.status.working():
            settings = self.settings
            self.numbers.value = controls.dense(words(settings))
            self.picture.show(figure(settings), words(settings))


class TheoryPanel(widgets.VBox):
    """The exact law of NC0 under SGD and SGDW, and sign descent on collapsed features."""

    title = "Theory"

    def __init__(self) -> None:
        self.law, self.descent = _law(), _descent()
        self._fresh = False
        parts = [widgets.HTML("<h3>The exact law: SGD and SGDW</h3>"), self.law]
        parts += [widgets.HTML("<h3>Sign descent: Theorems 3.3 and 3.4</h3>"), self.descent]
        super().__init__(parts)

    def look(self) -> None:
        """Draw, if that was not done yet."""
        if not self._fresh:
            self._fresh = True
            self.law.redraw()
            self.descent.redraw()


def _law() -> Sketch:
    log = widgets.FloatLogSlider
    sliders = {
        "lr": controls.slider(log, "learning rate η", "at the start", LAW.lr, -4, 0),
        "momentum": controls.slider(
            widgets.FloatSlider, "momentum β", "of SGD", LAW.momentum, 0, 0.99, step=0.01
        ),
        "weight_decay": controls.slider(
            log, "weight decay λ", "coupled in SGD, decoupled in SGDW", LAW.weight_decay, -6, 0
        ),
        "epochs": controls.slider(
            widgets.IntSlider, "epochs", "how long to train", LAW.epochs, 10, 500, step=10
        ),
        "steps_per_epoch": controls.slider(
            widgets.IntSlider, "steps an epoch", "11 for the digits, 469 for MNIST", 11, 1, 500
        ),
        "drops": controls.checkbox("η × 0.1 after each third", "the paper's step schedule"),
    }
    note = (
        "Under SGD, NC0 is a known number: for any network and any minibatches it follows a linear "
        "recurrence, with no constant to fit. Theorem 3.1 bounds it for a constant learning rate."
    )
    return Sketch(sliders, draw.Law, draw.law, law_words, note)


def law_words(law: draw.Law) -> str:
    """The law's numbers at the end of training, HTML."""
    rates = [
        theory.row_sum_decay_rate(law.lr, law.momentum, law.weight_decay, decoupled)
        for decoupled in (False, True)
    ]
    return (
        f"After {law.steps[-1]:,} steps {share(law.left(False)[-1])} of NC0 is left under SGD and "
        f"{share(law.left(True)[-1])} under SGDW. NC0² decays at {rates[0]:.3g} a step (SGD) and "
        f"{rates[1]:.3g} (SGDW) at the first learning rate. SGD's decay is fastest at momentum "
        f"{theory.critical_momentum(law.lr, law.weight_decay):.4g}."
    )


def share(value: float) -> str:
    """A share of the start in per cent; far below what float32 can follow, a bound."""
    return f"{value:.3%}" if value >= 1e-5 else f"{value:.1e}"


def _descent() -> Sketch:
    log = widgets.FloatLogSlider
    sliders = {
        "num_classes": controls.slider(
            widgets.IntSlider, "classes K", "of the features' simplex", DESCENT.num_classes, 2, 100
        ),
        "lr": controls.slider(log, "learning rate η", "what an entry moves by", DESCENT.lr, -4, -1),
        "weight_decay": controls.slider(
            log, "weight decay λ", "inside the sign or beside it", DESCENT.weight_decay, -4, 0
        ),
        "steps": controls.slider(
            widgets.IntSlider, "steps", "how long to go", DESCENT.steps, 100, 5000, step=100
        ),
    }
    note = (
        "The features have collapsed already, and only W learns, from zero, by the sign of its "
        "gradient. With weight decay inside the sign NC0 comes back to zero; beside it, it stays."
    )
    return Sketch(sliders, draw.SignDescent, draw.sign_descent, descent_words, note)


def descent_words(descent: draw.SignDescent) -> str:
    """Where α ends, the limit and the turning points, HTML."""
    ends = [descent.alpha(coupled)[-1] for coupled in (True, False)]
    K, lr, decay = descent.num_classes, descent.lr, descent.weight_decay
    return (
        f"After {descent.steps:,} steps α is {ends[0]:.3g} with coupled and {ends[1]:.3g} with "
        f"decoupled decay, whose limit is {theory.decoupled_limit(K, decay):.3g}. Coupled, α rises "
        f"until T₁ = {descent.turns.rise_ends:.1f}, has come down at T₂ = "
        f"{descent.turns.fall_ends:.1f}, and stays below {theory.tail_bound(K, lr, decay):.3g} "
        "once W has begun to return every second step."
    )
