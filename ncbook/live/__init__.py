"""Live figures: sliders in a published page that recompute in the page, with no server.

A figure is a few numbers and the script ``live.js``, which has the formulas. It works in the book,
in an exported notebook and in JupyterLab (in a trusted notebook). Each figure brings the script, so
only pages with a figure carry it. The page sends no requests.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from html import escape
from math import ceil, floor, log10
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ncbook.theory import checks

MANTISSAS = (1, 1.5, 2, 3, 5, 7)  # a slider's stops per decade: nearly even on a log scale
MOMENTA = (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99)
CLASS_COUNTS = (3, 4, 5, 6, 7, 8, 10, 12, 15, 20, 30, 50, 70, 100)
MOST_STEPS = 100_000  # all are computed at each move of a slider, in some 10 ms
SETTING = ("weight_decay", "lr", "steps")  # what a stored run and the sliders must have in common
RUN_COLUMNS = ("label", *SETTING, "step", "left")
SHARES = tuple(n / 100 for n in range(101))
MEAN_SPREAD, SAMPLE_SPREAD = 0.45, 0.3  # at the start; a row of the simplex has length 1
SAMPLES = 8  # of a class
DIGITS = 3  # decimals of the points at the start: enough to draw, and short in the page
FALLBACK = (
    "This figure computes in the page and needs JavaScript (in JupyterLab: a trusted notebook)."
)


@dataclass(frozen=True)
class Control:
    """A slider: its values, and the index of the first one shown."""

    name: str
    label: str
    values: tuple[float, ...]
    start: int


@dataclass(frozen=True)
class LiveFigure:
    """A figure that a notebook shows as HTML, or as words where it cannot show HTML."""

    kind: str
    description: str
    caption: str
    controls: tuple[Control, ...]
    data: dict[str, object] = field(default_factory=dict)

    def _repr_html_(self) -> str:
        """The figure's numbers, its caption and the script; see ``live.js`` for the rest."""
        spec = {key: value for key, value in asdict(self).items() if key != "caption"}
        return (
            f'<figure class="ncbook-live" data-live="{escape(json.dumps(spec), quote=True)}">'
            f'<div class="ncbook-live-body"><p>{FALLBACK}</p></div>'
            f"<figcaption>{escape(self.caption)}</figcaption></figure>\n"
            f"<script>\n{script()}</script>"
        )

    def __repr__(self) -> str:
        return f"A live figure, for a page with JavaScript. {self.description}"


@cache
def script() -> str:
    """``live.js`` without its comments and indentation, which a page need not carry."""
    text = Path(__file__).with_name("live.js").read_text(encoding="utf-8")
    return re.sub(r"^[ \t]*(//.*\n)?", "", text, flags=re.MULTILINE)


def law(
    lr: float = 0.01, momentum: float = 0.9, weight_decay: float = 0.05, steps: int = 1000
) -> LiveFigure:
    """α_t/α_0 under SGD and SGDW by the exact law, and Theorem 3.1's bound, over the steps.

    The formulas of :func:`theory.row_sum_closed_form` (squared) and :func:`theory.theorem31_bound`
    for one constant learning rate. The arguments are where its sliders start: η in [1e-4, 0.5],
    β in [0, 0.99], λ in [0, 1], and whole steps from 10 to 100,000; others raise ValueError.
    """
    controls = (
        _control("weight_decay", "weight decay λ", weight_decay, (0, *_decades(1e-6, 1))),
        _control("lr", "learning rate η", lr, _decades(1e-4, 0.5)),
        _control("momentum", "momentum β", momentum, MOMENTA),
        _control("steps", "steps", steps, _decades(10, MOST_STEPS), whole=True),
    )
    description = (
        "Curves of α at step t over α at the start, on a log scale: the exact law of SGD, the "
        "exact law of SGDW, and the bound of Theorem 3.1. Sliders change them."
    )
    caption = (
        "The exact law of α under SGD (solid) and SGDW (dashed) at a constant learning rate, and "
        "the exponential of Theorem 3.1 with C = 1 and without its O(η) (dotted). A curve that "
        "reaches the lower edge goes on below it."
    )
    return LiveFigure("law", description, caption, controls)


def signgd(
    num_classes: int = 10, lr: float = 0.01, weight_decay: float = 1e-3, steps: int = 20_000
) -> LiveFigure:
    """NC0 under sign descent on collapsed features from W₀ = 0, with coupled and decoupled decay.

    The numbers of :func:`theory.simulate_signgd`, as NC0 = √(Kα), :func:`theory.decoupled_limit`
    and :func:`theory.turning_points`, with the mean cross-entropy's gradient. The arguments are
    where its sliders start: a whole K from 3 (at 2 the decoupled row sum is 0) to 100, η in
    [1e-4, 0.1], λ in [0, 1], and whole steps from 10 to 100,000; others raise ValueError.
    """
    controls = (
        _control("num_classes", "classes K", num_classes, CLASS_COUNTS, whole=True),
        _control("weight_decay", "weight decay λ", weight_decay, (0, *_decades(1e-6, 1))),
        _control("lr", "learning rate η", lr, _decades(1e-4, 0.1)),
        _control("steps", "steps", steps, _decades(10, MOST_STEPS), whole=True),
    )
    description = (
        "NC0 over the steps of sign descent, both on log scales: with coupled decay it rises, "
        "falls and then swings near zero; with decoupled decay it rises to a limit. Sliders change "
        "the curves."
    )
    caption = (
        "NC0 under sign descent from W = 0 on collapsed features, with coupled decay (solid) and "
        "decoupled decay (dashed); dotted, where it lies within the axes, the limit √K (K − 2)/λ "
        "of Theorem 3.3. Between T₁ and T₂ of Theorem 3.4 the coupled curve falls; after T₂ it "
        "swings within the shaded band."
    )
    return LiveFigure("signgd", description, caption, controls)


def balance(
    weight_decay: float = 0.5,
    lr: float = 0.02,
    push: float = 1.0,
    steps: int = 3000,
    epochs: int = 200,
    runs: pd.DataFrame | None = None,
) -> LiveFigure:
    """NC0 over its start under decoupled decay, where a push works against it.

    With η_t = η, 0.1 η after ⌊E/3⌋ of E epochs and 0.01 η after ⌊2E/3⌋, and u in units of ‖u_0‖:
    exact, u ← (1 − η_t λ)u; rounding, the root mean square of u ← (1 − η_t λ)u − η_t ξ_t with
    independent ξ_t, as :func:`theory.symmetry.noise_floor`; and leak, the most that a constant push
    can do, ‖u‖ ← |1 − η_t λ|‖u‖ + η_t push.

    Args:
        weight_decay: λ in [0, 10]; this and the next three are where the sliders start.
        lr: η in [1e-4, 0.1], before the first drop.
        push: in [1e-6, 100], in units of NC0 at the start: of ξ_t the root mean square.
        steps: T in all epochs, a whole number from 10 to 100,000.
        epochs: E, at least 3; also of the runs.
        runs: stored runs, at most four of one setting, as dots where the sliders are at their λ, η
            and T; a button takes them there. A row is a run (its `label`) at a `step`, rising; the
            other columns are `weight_decay`, `lr`, `steps` and `left`, NC0 over its start.

    Raises:
        ValueError: a value outside its range.
    """
    runs = pd.DataFrame(columns=RUN_COLUMNS) if runs is None else runs
    decays, rates, counts = (0, *_decades(1e-3, 10)), _decades(1e-4, 0.1), _decades(10, MOST_STEPS)
    controls = (
        _control("weight_decay", "weight decay λ", weight_decay, decays, also=runs["weight_decay"]),
        _control("lr", "learning rate η", lr, rates, also=runs["lr"]),
        _control("push", "push per unit of η", push, _decades(1e-6, 100)),
        _control("steps", "steps", steps, counts, whole=True, also=runs["steps"]),
    )
    drops = [floor(m * checks.whole("epochs", epochs, 3)) for m in (1 / 3, 2 / 3)]
    description = (
        "Curves of NC0 at step t over NC0 at the start, on a log scale, under decoupled decay: "
        "exact, with random pushes as of rounding, and with a constant push. Sliders change them."
    )
    caption = (
        "NC0 over its start under decoupled decay, with the learning rate divided by ten after "
        f"{drops[0]} and after {drops[1]} of {epochs} epochs. Solid: no update moves along the "
        "flat direction. Dashed: each step has a random push along it, as from rounding (root mean "
        "square). Dotted: each has the same push, away from zero, the worst case of an optimizer "
        "that leaks. Pushes are in units of NC0 at the start. A curve that reaches the lower edge "
        "goes on below it."
    )
    if len(runs):
        caption += " Dots: measured, where the sliders are at a run's λ, η and steps."
    data = {"shares": [drop / epochs for drop in drops], "settings": _settings(runs)}
    return LiveFigure("balance", description, caption, controls, data)


def _settings(runs: pd.DataFrame) -> list[dict[str, object]]:
    """The runs' points for each setting: {at: {λ, η, T}, runs: [{label, step, left}, …]}."""
    settings = []
    for at, rows in runs.groupby([*SETTING], sort=False):
        at = dict(zip(SETTING, map(float, at), strict=True))
        points = []
        for label, run in rows.groupby("label", sort=False):
            step = checks.counts("step", run["step"], at["steps"])
            left = _rounded(checks.real("left", run["left"], 0))
            points.append({"label": label, "step": step.astype(int).tolist(), "left": left})
        settings.append({"at": at, "runs": points})
    return settings


def simplex(collapse: float = 0.0, shift: float = 0.0) -> LiveFigure:
    """Four classes in three dimensions on their way from random points to the simplex ETF.

    Features and weight are linear mixtures: a share 1 − collapse of fixed random ones, and a share
    `collapse` of the tetrahedron. `shift` times one vector of length 1 is added to every row of W.
    The page computes NC0 to NC3 as :func:`metrics.nc_metrics` does. Both shares lie in [0, 1];
    others raise ValueError.
    """
    controls = (
        _control("collapse", "collapse", collapse, SHARES),
        _control("shift", "shift of W", shift, SHARES),
    )
    description = (
        "Four classes in three dimensions: samples, class means joined by lines, and the rows of W "
        "as arrows. As the slider goes to 1 the samples meet in their means, the means form a "
        "tetrahedron, and each arrow points to a mean. Drag it, or use the arrow keys, to turn it."
    )
    caption = (
        "Small marks: samples. Large marks, joined by lines: class means. Arrows: the rows of W, "
        "at the size of the centred means. Below: NC0 to NC3 of what is drawn; the bars are shares "
        "of the values at the start. Drag to turn, or use the arrow keys."
    )
    return LiveFigure("simplex", description, caption, controls, _layer())


def training(
    left: pd.DataFrame, nc3: pd.Series, nc3_start: float, labels: Mapping[str, str], caption: str
) -> LiveFigure:
    """Runs over their epochs, one curve an optimizer, with a slider for the weight decay.

    Args:
        left: NC0 over its start, > 0, or NaN without such runs; a row for each optimizer and
            weight decay (D · O rows, rising), a column for each of the E measured epochs from 0.
        nc3: for each of these rows NC3 at the end, or NaN.
        nc3_start: NC3 before the first step; the bars are shares of it.
        labels: the optimizers' names on the page, in the order of their curves.
        caption: what was trained, and how many runs the curves represent.

    Example:
        >>> rows = pd.MultiIndex.from_product([["sgd"], [0, 0.05]])
        >>> left = pd.DataFrame({0: [1, 1], 200: [1, 0.5]}, rows)
        >>> nc3 = pd.Series([1.2, 0.1], rows)
        >>> training(left, nc3, 1.4, {"sgd": "SGD"}, "One run a weight decay.").data["nc3"]
        {'sgd': [1.2, 0.1]}
    """
    stops = left.index.unique(1).tolist()
    # The slider starts with the last stop but one.
    control = Control("weight_decay", "weight decay λ", tuple(stops), max(0, len(stops) - 2))
    description = (
        f"NC0 over the epochs, as a share of its start, on a log scale: "
        f"{', '.join(labels.values())}. A slider chooses the weight decay; below stands NC3 at the "
        "end."
    )
    curves = {name: [_rounded(curve) for curve in left.loc[name].to_numpy()] for name in labels}
    data = {
        "weight_decays": stops,
        "epochs": left.columns.tolist(),
        "left": {name: [None if None in c else c for c in curves[name]] for name in labels},
        "nc3": {name: _rounded(nc3[name]) for name in labels},
        "nc3_start": float(nc3_start),
        "labels": dict(labels),
    }
    return LiveFigure("training", description, caption, (control,), data)


def _rounded(values: Iterable[float]) -> list[float | None]:
    """Numbers with four digits, more than a picture shows; None for NaN."""
    return [None if np.isnan(value) else float(f"{value:.4g}") for value in values]


def _layer() -> dict[str, list]:
    """The start (features, labels, weight), the end (simplex), and the direction of the shift."""
    rng = np.random.default_rng(24)  # of thirty: far from collapse, and fills the picture
    corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / np.sqrt(3)
    labels = np.repeat(np.arange(4), SAMPLES)
    means = rng.normal(scale=MEAN_SPREAD, size=(4, 3))
    features = means[labels] + rng.normal(scale=SAMPLE_SPREAD, size=(len(labels), 3))
    weight = rng.normal(scale=1 / np.sqrt(3), size=(4, 3))
    direction = np.array([2, 1, 2]) / 3
    reach = max(1.25, 1.05 * np.linalg.norm(features, axis=1).max())
    points = {"features": features, "weight": weight}
    points = {name: np.round(rows, DIGITS).tolist() for name, rows in points.items()}
    ends = {"simplex": corners.tolist(), "direction": direction.tolist()}
    return points | ends | {"labels": labels.tolist(), "reach": round(reach, DIGITS)}


def _decades(low: float, high: float) -> tuple[float, ...]:
    """MANTISSAS times the powers of ten, from low to high."""
    exponents = range(floor(log10(low)), ceil(log10(high)) + 1)
    stops = (float(f"{m}e{n}") for n in exponents for m in MANTISSAS)
    return tuple(stop for stop in stops if low <= stop <= high)


def _control(
    name: str,
    label: str,
    value: ArrayLike,
    stops: tuple[float, ...],
    whole: bool = False,
    also: Iterable[float] = (),
) -> Control:
    """A slider over `stops`, and its first value and those in `also`, which are added to them."""
    ends = stops[0], stops[-1], "[]"
    asked = [float(checks.real(name, value, *ends)), *checks.real(name, list(also), *ends).tolist()]
    asked = [checks.whole(name, number, 1) for number in asked] if whole else asked
    values = [int(stop) if stop == int(stop) else stop for stop in sorted({*stops, *asked})]
    return Control(name, label, tuple(values), values.index(asked[0]))
