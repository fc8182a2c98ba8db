"""Sketches of the mechanism that several pages show: the flat direction, and a ball and a box."""

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import HTML
from matplotlib.axes import Axes
from scipy.special import softmax

from ncbook import figures

BLUE, ORANGE = "#0072B2", "#D55E00"  # Okabe and Ito
CLASSES = ("#004488", "#DDAA33", "#BB5566")
SAMPLE, SHIFT = np.array([0.2, 0.9]), np.array([0.7, -0.2])  # features; c, added to all rows
HEAD = {"arrowstyle": "-|>", "shrinkA": 0, "shrinkB": 0}


def flat_direction() -> HTML:
    """Three rows of W in the plane, and the same with a vector c added to each: NC0 and the
    probabilities of one sample."""
    turns = np.deg2rad([90, 210, 330])
    rows = np.stack([np.cos(turns), np.sin(turns)], axis=1)  # (3, 2)
    axes = [plt.subplots(figsize=(3.4, 2.7), layout="constrained")[1] for _ in range(2)]
    for axis, W, name in zip(axes, (rows, rows + SHIFT), ("W", "W + 1cᵀ"), strict=True):
        for start, row, colour in zip(rows, W, CLASSES, strict=True):
            axis.annotate("", row, (0, 0), arrowprops=HEAD | {"color": colour, "lw": 3})
            axis.plot(*zip(start, row, strict=True), color="0.5", ls=":")  # c
        axis.plot(*SAMPLE, "*", color="black", ms=14)
        nc0, shares = np.linalg.norm(W.sum(0)), softmax(W @ SAMPLE)
        told = ", ".join(f"{share:.0%}" for share in shares)
        axis.set(title=f"Rows of {name}: NC0 = {nc0:.1f}", xlabel=f"probabilities of ★: {told}")
        axis.set(aspect="equal", xlim=(-1.1, 1.8), ylim=(-0.95, 1.3), xticks=(), yticks=())
        axis.spines[:].set_visible(False)
    return figures.in_rows(*axes)


def ball_and_box(axis: Axes) -> None:
    """The plane of (2, −1, −1) and 1, for K = 3 and one column w of W: least loss in the ball
    ‖w‖ ≤ 1.2 and in the box |w| ≤ 1."""
    turn = np.linspace(0, 2 * np.pi, 200)
    axis.plot(1.2 * np.cos(turn), 1.2 * np.sin(turn), color=BLUE, label="ball (coupled decay)")
    corner, top = np.array([2 * np.sqrt(6) / 3, -1 / np.sqrt(3)]), np.array([0, np.sqrt(3)])
    box = np.array([corner, top, -corner, -top, corner])
    axis.plot(*box.T, color=ORANGE, label="box (decoupled, signs)")
    axis.plot(1.2, 0, "o", color=BLUE, ms=9)
    axis.plot(*corner, "o", color=ORANGE, ms=9)
    for level in np.linspace(-1.5, 2, 8):
        axis.axvline(level, color="0.8", lw=0.8, zorder=0)
    axis.axhline(0, color="0.5", lw=0.8, zorder=0)
    axis.annotate("", (-1.8, 1.85), (-1.8, 0.95), arrowprops={"arrowstyle": "<->", "ec": "0.3"})
    axis.text(-1.7, 1.4, "flat", va="center")
    axis.set(title="K = 3: least loss in a ball and in a box", ylabel="row sum / √3")
    axis.set(xlabel="what predictions see (loss falls to the right)")
    axis.set(aspect="equal", xlim=(-2, 2.2), ylim=(-1.9, 1.9))
