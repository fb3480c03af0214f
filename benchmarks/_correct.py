"""Correct gradients that are hard to difference: what a checker must not reject."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradcheck._zoo import KINKED, SMOOTH, Specimen

Array = np.ndarray

#: Losses that are defined for positive inputs alone, down to the smallest.
POSITIVE = ("gamma", "barrier")
#: Losses whose values stay finite far out.
SATURATING = ("logistic", "focal", "softmax", "log cosh", "Student", "hinge", "squared hinge", "Huber", "absolute", "clipped")
SHAPES = ((1,), (2,), (7,), (30,), (96,), (5, 4), (12, 3), (2, 9), (3, 2, 5))


@dataclass(frozen=True, eq=False)
class Correct:
    """A function with its true gradient; `hard` says what makes it hard."""

    name: str
    hard: tuple[str, ...]
    f: Callable[[Array], float]
    grad: Callable[[Array], Array]
    x: Array
    domain: tuple[float, float] | None


def correct_gradients(count: int, seed: int = 0) -> Iterator[Correct]:
    """`count` random losses, shapes, scales from 1e-12 to 1e12, exact ties, saturation, offsets, and edges of domains."""
    rng = np.random.default_rng(seed)
    zoo = SMOOTH + KINKED
    for number in range(count):
        yield _draw(zoo[number % len(zoo)], rng)


def _draw(specimen: Specimen, rng: np.random.Generator) -> Correct:
    shape = SHAPES[rng.integers(len(SHAPES))]
    if specimen.rowwise and shape[-1] < 2:
        shape = (*shape, 4)
    x, t = specimen.draw_x(rng, shape), specimen.draw_t(rng, shape)
    hard = []
    if specimen.kinks is not None and rng.random() < 0.4:
        hard.append("ties")
        x = np.where(rng.random(shape) < rng.choice([0.2, 0.5, 1.0]), specimen.kinks(x, t), x)
    elif specimen.name in POSITIVE and rng.random() < 0.4:
        hard.append("edge")
        x = np.where(rng.random(shape) < 0.5, 10.0 ** rng.uniform(-10, -6, shape), x)
    elif specimen.name in SATURATING and rng.random() < 0.4:
        hard.append("saturation")
        x = np.where(rng.random(shape) < 0.5, x * 10.0 ** rng.uniform(0, 2, shape), x)
    elif rng.random() < 0.2 and specimen.domain is None and specimen.name not in POSITIVE:
        hard.append("zeros")
        x = np.where(rng.random(shape) < 0.3, 0.0, x)
    loss_scale = input_scale = 1.0
    if rng.random() < 0.5:
        hard.append("loss scale")
        loss_scale = 10.0 ** rng.uniform(-12, 12)
    if rng.random() < 0.3 and specimen.domain is None:
        hard.append("input scale")
        input_scale = 2.0 ** rng.integers(-40, 41)  # exact, so that ties stay ties
    offset = 0.0
    if rng.random() < 0.2:
        hard.append("offset")
        offset = 10.0 ** rng.uniform(0, 3) * abs(float(specimen.mean(x, t)))
    mean = bool(rng.random() < 0.5)
    size = specimen.terms(x, t).size if mean else 1

    def f(z: Array) -> Any:
        return loss_scale * (specimen.terms(z / input_scale, t).sum() / size + offset)

    def grad(z: Array) -> Array:
        return loss_scale / input_scale / size * specimen.slopes(z / input_scale, t)

    return Correct(specimen.name, tuple(hard), f, grad, x * input_scale, specimen.domain)
