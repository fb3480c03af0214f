"""Points for the verification of a loss, made from its declaration alone: on every branch, kink and mask, and between them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from math import prod
from typing import Any

import numpy as np

from .._spec import Interval, Math, Spec

Rng = np.random.Generator
Sampler = Callable[[Rng], tuple[np.ndarray, np.ndarray]]

#: Real numbers of both signs: small, where exponentials matter, where 1 + exp(-x) is 1, and where exp(-x) is 0.
REAL = (0.0, 0.5, -0.5, 1.0, -3.0, 40.0, -40.0, 800.0, -800.0)
#: Of targets without bounds.
MODERATE = (0.0, 0.25, 1.0, -0.5, 3.0)
#: Distances from the end of a half-line.
SIZES = (1e-6, 0.25, 0.5, 1.0, 3.0, 40.0)
#: Shares of an interval: its middle, where formulas change over, and close to its ends.
SHARES = (0.125, 0.25, 0.5, 0.75, 0.875, 1e-6, 1 - 1e-6)
#: The ends, and so close that a gradient may be limited and is not the slope of the value any more.
ENDS = (0.0, 1.0, 1e-13)
#: A larger value would take the last digits from all others of a sum.
LARGEST = 1e4
#: Share of its distance from 0, or of 1, that an input keeps from points where the slope jumps, for second derivatives.
CLEARANCE = 0.25
#: Share of the elements that are special points; the others are random.
SPECIAL = 2 / 3


# --- elementwise -------------------------------------------------------------------------------------------------------


def elementwise(spec: Spec[Any], math_: Math, shape: tuple[int, ...], derivative: str, ends: bool) -> Sampler:
    """Sampler of input and target.

    Parameters
    ----------
    derivative : {'input', 'target', 'hvp', 'hessian_diag'}
        What must exist at all points.
    ends : bool
        Whether what is differentiated may lie at the ends of its domain, where there are no finite differences.
    """
    table = np.array(list(special_pairs(spec, math_, derivative, ends)))
    x_domain, t_domain = domain(spec, math_, 0), domain(spec, math_, 1)

    def sample(rng: Rng) -> tuple[np.ndarray, np.ndarray]:
        n = prod(shape)
        x, t = anywhere(x_domain, n, rng), anywhere(t_domain, n, rng)
        if spec.kinks and derivative in ("hvp", "hessian_diag"):
            while (near := ~clear(x, kinks(spec, t))).any():
                x[near] = anywhere(x_domain, near.sum(), rng)
        chosen = table[rng.permutation(len(table))[: int(SPECIAL * n)]]
        x[: len(chosen)], t[: len(chosen)] = chosen.T
        order = rng.permutation(n)
        return x[order].reshape(shape), t[order].reshape(shape)

    return sample


def special_pairs(spec: Spec[Any], math_: Math, derivative: str, ends: bool) -> Iterator[tuple[float, float]]:
    """Special inputs and targets at which the derivative exists and is that of the value."""
    slope = {"input": math_.point, "target": math_.target_slope}.get(derivative, math_.curvature)
    second = derivative not in ("input", "target")
    xs = special(domain(spec, math_, 0), REAL, ends or derivative == "target")
    for t in special(domain(spec, math_, 1), MODERATE, ends or derivative != "target"):
        jumps = kinks(spec, np.array(t))
        for x in dict.fromkeys([*xs, *(jumps + 0.5), *(jumps - 0.5), *jumps]):
            value = evaluated(spec, math_.point, x, t)
            if value and abs(value[0]) <= LARGEST and evaluated(spec, slope, x, t) and not (second and not clear(x, jumps)):
                yield x, t


def clear(x: Any, jumps: np.ndarray) -> Any:
    """Whether inputs are far from all points where the slope jumps."""
    x = np.asarray(x)[..., None]
    return (np.abs(x - jumps) >= CLEARANCE * np.maximum(1, np.abs(x))).all(axis=-1)


def straight(spec: Spec[Any], math_: Math) -> bool:
    """Whether the loss is linear in the input, or between its kinks, so that the second derivative is 0 everywhere."""
    if spec.family == "classwise":
        return spec.log_probabilities and math_.curvature is None
    pairs = special_pairs(spec, math_, "hessian_diag", ends=False)
    return all(evaluated(spec, math_.curvature, x, t) == (0.0,) for x, t in pairs)


def domain(spec: Spec[Any], math_: Math, position: int) -> Interval:
    """Of input (0) or target (1): as declared, or the half-line from 0 if the mathematics is NaN below, as x log x is."""
    declared = (spec.input, spec.target)[position]
    point = [0.5, 0.5]
    point[position] = -0.5
    return declared if declared.bounded or evaluated(spec, math_.point, *point) else Interval(0.0)


def special(interval: Interval, unbounded: tuple[float, ...], ends: bool) -> list[float]:
    low, high = interval.low, interval.high
    if math.isfinite(low) and math.isfinite(high):
        return [low + (high - low) * share for share in (*SHARES, *(ENDS if ends else ()))]
    if interval.bounded:
        sizes = (0.0, *SIZES) if ends else SIZES
        return [low + size if math.isfinite(low) else high - size for size in sizes]
    return list(unbounded)


def anywhere(interval: Interval, n: int, rng: Rng) -> np.ndarray:
    low, high = interval.low, interval.high
    if math.isfinite(low) and math.isfinite(high):
        return low + (high - low) * rng.uniform(0.05, 0.95, n)
    x = rng.normal(scale=2, size=n)
    return x if not interval.bounded else low + 0.1 + np.abs(x) if math.isfinite(low) else high - 0.1 - np.abs(x)


def evaluated(spec: Spec[Any], function: Any, x: float, t: float) -> tuple[float, ...]:
    """What a scalar function gives in the interpreter, with the default parameters; () where that is no finite number."""
    defaults = (spec.options[name] for name in spec.parameters)
    try:
        with np.errstate(all="ignore"):
            numbers = np.atleast_1d(function(x, t, *defaults))
    except (ArithmeticError, ValueError):
        return ()
    return tuple(map(float, numbers)) if np.isfinite(numbers).all() else ()


def kinks(spec: Spec[Any], t: np.ndarray) -> np.ndarray:
    """Inputs at which the slope jumps, for each target, along a new last axis."""
    found = [spec.kinks(float(v)) if spec.kinks else () for v in t.flat]
    return np.array(found, float).reshape(*t.shape, -1)


# --- classwise ---------------------------------------------------------------------------------------------------------


def classwise(spec: Spec[Any], shape: tuple[int, ...], labelled: bool, ignored: int | None) -> Sampler:
    """Sampler of input and target of the shape (C,) or (N, C, ...); `ignored` is the class index of rows that do not count."""
    classes, positions = shape[min(1, len(shape) - 1)], (shape[0], *shape[2:])
    n = prod(positions) if len(shape) > 1 else 1

    def whole(rows: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(np.moveaxis(rows.reshape(*positions, classes), -1, 1)) if len(shape) > 1 else rows[0]

    def sample(rng: Rng) -> tuple[np.ndarray, np.ndarray]:
        x = logits(n, classes, rng)
        if spec.log_probabilities:
            x -= x.max(axis=-1, keepdims=True) + 0.5
        if not labelled:
            return whole(x), whole(probabilities(n, classes, rng))
        t = labels(n, classes, ignored, rng)
        return whole(x), t.reshape(positions) if len(shape) > 1 else t[0]

    return sample


def logits(n: int, classes: int, rng: Rng) -> np.ndarray:
    """Rows of all kinds in turn: ties of two and of all classes, a large common offset, probabilities of 0, certainty.

    A single row is never certain, for then there would be no slope to see.
    """
    x = rng.normal(scale=2, size=(n, classes))
    first = rng.integers(7 if n > 1 else 5)
    for i, row in enumerate(x):
        kind = (first + i) % 7
        one = rng.integers(classes)
        if kind == 1:
            row[[one, one - 1]] = row.max() + 1
        elif kind == 2:
            row[:] = row[one]
        elif kind == 3:
            row += 1000
        elif kind > 3:
            row[one] = (-800, 40, 800)[kind - 4]
    return x


def labels(n: int, classes: int, ignored: int | None, rng: Rng) -> np.ndarray:
    """As many classes as possible, the first and the last among them; of three rows or more, one or more do not count."""
    t = (rng.integers(classes) + np.arange(n)) % classes
    if n > 1:
        t[:2] = 0, classes - 1
    if ignored is not None:
        t[2::4] = ignored
    return rng.permutation(t)


def probabilities(n: int, classes: int, rng: Rng) -> np.ndarray:
    """Rows of all kinds in turn: a distribution, a certain class, a sum that is not 1, zeros."""
    t = rng.dirichlet(np.ones(classes), n)
    first = rng.integers(4)
    for i, row in enumerate(t):
        kind = (first + i) % 4
        if kind == 1:
            row[:] = np.arange(classes) == i % classes
        elif kind > 1:
            row *= (0.5, 0.0)[kind - 2]
    return t


# --- options -----------------------------------------------------------------------------------------------------------


def option_sets(spec: Spec[Any], shape: tuple[int, ...], labelled: bool) -> list[tuple[str, ...]]:
    """Names of options to be given: none, each alone, and all together."""
    known = ("weight", "label_smoothing", *spec.parameters, *spec.variants)
    if labelled and len(shape) > 1:  # of a single row nothing would be left
        known += ("ignore_index",)
    names = tuple(name for name in spec.options if name in known)
    return [(), *((name,) for name in names), *([names] if len(names) > 1 else [])]


def option_values(spec: Spec[Any], names: tuple[str, ...], shape: tuple[int, ...], rng: Rng) -> dict[str, Any]:
    """Values of the named options; weights of 0 occur, and all weights are exact in float32."""

    def eighths(shape: tuple[int, ...]) -> np.ndarray:
        return rng.integers(4, 17, shape) / 8

    # Alone it is no class, else one of the classes.
    values: dict[str, Any] = {"label_smoothing": 0.25, "ignore_index": -1 if names == ("ignore_index",) else 1}
    if spec.family == "classwise":
        values["weight"] = eighths(shape[min(1, len(shape) - 1) :][:1])
    else:
        broadcast = {1: shape, 2: (shape[0], 1)}.get(len(shape), shape[-1:])
        values["weight"] = eighths(shape if spec.mean_of_weights else broadcast)
    if len(shape) > 1:
        values["weight"].flat[0] = 0
    values |= {name: eighths(shape[-1:]) for name in spec.parameters} | dict.fromkeys(spec.variants, True)
    return {name: values[name] for name in names}
