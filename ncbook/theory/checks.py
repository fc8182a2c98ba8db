"""Checks of arguments; an error is one line with the value and the valid ones."""

import numpy as np
from numpy.typing import ArrayLike


def real(
    name: str, value: ArrayLike, low: float, high: float = np.inf, ends: str = "[)"
) -> np.ndarray:
    """`value` as float64, if every entry lies between `low` and `high`; else ValueError.

    `ends` says which ends belong to the range, as in mathematics: "[)", "()", "[]".
    """
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be a number or an array of numbers, got {value!r}") from None
    above = array >= low if ends[0] == "[" else array > low
    below = array <= high if ends[1] == "]" else array < high
    bad = ~(above & below)  # NaN is neither
    if np.any(bad):
        worst = array[bad].ravel()[0]
        raise ValueError(f"{name} must be in {ends[0]}{low:g}, {high:g}{ends[1]}, got {worst:g}")
    return array


def counts(name: str, value: ArrayLike, most: float = np.inf) -> np.ndarray:
    """`value` as float64, if every entry is a whole number from 0 to `most`; else ValueError."""
    array = real(name, value, 0, most, "[)" if most == np.inf else "[]")
    broken = array % 1 != 0
    if np.any(broken):
        raise ValueError(f"{name} must be whole numbers, got {array[broken].ravel()[0]:g}")
    return array


def whole(name: str, value: int, least: int) -> int:
    """`value` as int, if it is a whole number of at least `least`; else ValueError."""
    is_number = isinstance(value, int | float | np.integer | np.floating)
    if isinstance(value, bool) or not is_number or value != value // 1 or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
    return int(value)


def plain(array: np.ndarray) -> float | np.ndarray:
    """A float for a scalar: what vectorised functions return if every argument was a number."""
    return float(array) if np.ndim(array) == 0 else array
