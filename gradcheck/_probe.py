"""What is differenced: functions of one step `t` along lines through a point.

An element is one line and one output that is watched along it.  Steps are without unit: `t` = 1 moves each coordinate of
the line by its own `step`.  A slope is the derivative of the output by `t`, so slopes of inputs of any scale compare.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

#: What a function may raise where it is not defined.
UNDEFINED = (ValueError, ArithmeticError)
#: Relative size of the largest step: far enough for the rounding of f to vanish, near enough for order 8.
REACH = 0.05


@dataclass(frozen=True, eq=False)
class Line:
    """A direction: signed steps of some coordinates of the flattened argument, all of them if `index` is None."""

    index: Any
    step: np.ndarray

    def displaced(self, x: np.ndarray, t: float) -> np.ndarray:
        y = x.copy()
        flat = y.reshape(-1)
        if self.index is None:
            flat += t * self.step
        else:
            flat[self.index] += t * self.step
        return y

    def along(self, array: np.ndarray) -> np.ndarray:
        flat = array.reshape(-1)
        return flat if self.index is None else flat[self.index]

    def slope(self, gradient: np.ndarray) -> float:
        with np.errstate(all="ignore"):
            terms = self.along(gradient) * self.step
        return math.fsum(terms) if np.isfinite(terms).all() else float(np.sum(terms))


class Lines:
    """A scalar function along one line per element."""

    def __init__(self, f: Callable[[np.ndarray], float], x: np.ndarray, gradient: np.ndarray, lines: Sequence[Line]):
        self.f = f
        self.x = x
        self.lines = list(lines)
        self.size = len(self.lines)
        self.slope = np.array([line.slope(gradient) for line in self.lines])
        self.rounding = np.array([position_error(line.along(x), line.along(gradient)) for line in self.lines])
        self.center = np.full(self.size, guarded(f, x))
        self.output = np.zeros(self.size, int)

    def values(self, t: np.ndarray, element: np.ndarray) -> np.ndarray:
        result = np.empty(t.shape)
        for place in np.ndindex(t.shape):
            j = element[place]
            result[place] = (
                self.center[j] if t[place] == 0 else guarded(self.f, self.lines[j].displaced(self.x, float(t[place])))
            )
        return result

    def outputs(self, y: np.ndarray) -> np.ndarray:
        return np.array([guarded(self.f, y)])


class Separable:
    """An array-valued function whose outputs depend on entries of their own; an element is one entry.

    Entries of one `column` belong to different outputs, so a single evaluation moves all of them.
    """

    def __init__(
        self, f: Callable[[np.ndarray], np.ndarray], x: np.ndarray, gradient: np.ndarray,
        step: np.ndarray, column: np.ndarray, output: np.ndarray,
    ):  # fmt: skip
        self.f = f
        self.x = x
        self.step = step
        self.column = column
        self.output = output
        self.size = x.size
        self.slope = gradient.reshape(-1) * step
        with np.errstate(all="ignore"):
            moved = 0.5 * np.abs(gradient.reshape(-1)) * np.spacing(np.abs(x.reshape(-1)))
        self.rounding = np.where(np.isfinite(moved), moved, 0.0)  # a slope that is no number says nothing of f
        self.n_outputs = int(output.max(initial=0)) + 1
        self.center = self.outputs(x)[output]

    def values(self, t: np.ndarray, element: np.ndarray) -> np.ndarray:
        result = np.empty(t.shape)
        still = (t == 0).all(axis=1)
        result[still] = self.center[element[still]]
        for column in np.unique(self.column[element[~still, 0]]):
            rows = np.flatnonzero((self.column[element[:, 0]] == column) & ~still)
            entries = element[rows, 0]
            for k in range(t.shape[1]):
                y = self.x.copy()
                y.reshape(-1)[entries] += t[rows, k] * self.step[entries]
                result[rows, k] = self.outputs(y)[self.output[entries]]
        return result

    def outputs(self, y: np.ndarray) -> np.ndarray:
        return guarded_array(self.f, y, self.n_outputs)


class Field:
    """All outputs of an array-valued function along lines; an element is a line and an output."""

    def __init__(
        self, f: Callable[[np.ndarray], np.ndarray], x: np.ndarray, lines: Sequence[Line],
        line: np.ndarray, output: np.ndarray, slope: np.ndarray, n_outputs: int,
    ):  # fmt: skip
        self.f = f
        self.x = x
        self.lines = list(lines)
        self.line = line
        self.output = output
        self.size = len(line)
        self.slope = slope
        self.rounding = np.zeros(self.size)
        self.n_outputs = n_outputs
        self.center = self.outputs(x)[output]

    def values(self, t: np.ndarray, element: np.ndarray) -> np.ndarray:
        result = np.empty(t.shape)
        for i in np.unique(self.line[element]):
            for step in np.unique(t[self.line[element] == i]):
                here = (self.line[element] == i) & (t == step)
                outputs = self.outputs(self.lines[i].displaced(self.x, float(step)))
                result[here] = outputs[self.output[element[here]]]
        return result

    def outputs(self, y: np.ndarray) -> np.ndarray:
        return guarded_array(self.f, y, self.n_outputs)


def guarded(f: Callable[[np.ndarray], Any], y: np.ndarray) -> float:
    """f(y), NaN where it is undefined."""
    try:
        with np.errstate(all="ignore"):
            return float(f(y))
    except UNDEFINED:
        return math.nan


def guarded_array(f: Callable[[np.ndarray], Any], y: np.ndarray, n_outputs: int) -> np.ndarray:
    """f(y), flat; NaN where it is undefined."""
    try:
        with np.errstate(all="ignore"):
            return np.array(f(y), float).reshape(-1)
    except UNDEFINED:
        return np.full(n_outputs, math.nan)


def position_error(x: np.ndarray, gradient: np.ndarray) -> float:
    """What rounding x + t * step does to f, as a standard error."""
    with np.errstate(all="ignore"):
        moved = gradient * np.spacing(np.abs(x))
        size = float(np.sqrt(np.sum(moved * moved)))
    return 0.5 * size if math.isfinite(size) else 0.0
