"""Where a gradient is checked, and how far the steps go there."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ._probe import REACH

#: Relative distance of further points, where nobody says how to draw them.
NEIGHBOURHOOD = 0.1
#: Attempts to find a further point at which the function is defined, each at half the distance of the last.
ATTEMPTS = 6

Bounds = tuple[float, float]


def steps(x: np.ndarray, domain: Bounds | None) -> tuple[np.ndarray, np.ndarray]:
    """Steps of each coordinate, flat, as powers of two: relative to its own size, and to the size of its fellows.

    The first never leaves a domain unasked, the second is large enough where a coordinate happens to be tiny.
    """
    size = np.abs(x.reshape(-1))
    positive = size[(size > 0) & np.isfinite(size)]
    typical = float(np.median(positive)) if positive.size else 1.0
    own = REACH * np.where(size > 0, size, typical)
    common = REACH * np.maximum(size, typical)
    if domain is not None:
        low, high = domain
        room = 0.5 * np.minimum(x.reshape(-1) - low, high - x.reshape(-1))
        own, common = (np.where(room > 0, np.minimum(step, room), step) for step in (own, common))
    return power_of_two(own), power_of_two(common)


def power_of_two(step: np.ndarray) -> np.ndarray:
    """The next smaller power of two, so that x + step is exact but for a last digit."""
    return np.ldexp(0.5, np.frexp(np.clip(np.nan_to_num(step, nan=REACH, posinf=1e300), 1e-290, 1e300))[1])


def inside(f: Callable[[np.ndarray], Any], domain: Bounds | None) -> Callable[[np.ndarray], Any]:
    """F, undefined outside of the domain."""
    if domain is None:
        return f
    low, high = domain

    def bounded(y: np.ndarray) -> Any:
        if ((y < low) | (y > high)).any():
            raise ValueError("outside of the domain")
        return f(y)

    return bounded


def near(x: np.ndarray, domain: Bounds | None, rng: np.random.Generator, distance: float) -> np.ndarray:
    """A random point close to x: relatively, so that signs stay, and within the domain."""
    own = np.abs(x)
    positive = own[(own > 0) & np.isfinite(own)]
    typical = float(np.median(positive)) if positive.size else 1.0
    with np.errstate(all="ignore"):
        y = x + distance * np.where(own > 0, own, typical) * rng.uniform(-1, 1, x.shape)
    y = np.where(np.isfinite(x), y, x)
    if domain is not None:
        low, high = domain
        if math.isfinite(low) and math.isfinite(high):
            margin = distance * (high - low)
            y = np.where((y <= low) | (y >= high), rng.uniform(low + margin, high - margin, x.shape), y)
        y = np.where(y <= low, low + distance * typical * rng.uniform(0.1, 1, x.shape), y)
        y = np.where(y >= high, high - distance * typical * rng.uniform(0.1, 1, x.shape), y)
    return y
