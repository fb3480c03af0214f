"""Derivatives along lines by finite differences, with a bound of their error.

The difference quotients are those of `scipy.differentiate.derivative`.  It takes steps of h, h / 2, h / 4, ... and reports
the change between the last two levels as its error; that says nothing of noise, and by accident it can be far too small.
Here every level of its iteration is kept, and the level with the smallest sum of truncation and noise is taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import numpy as np
from scipy.differentiate import derivative

#: Orders of the central and of the one-sided stencil; the latter amplifies noise, so it is kept shorter.
ORDER = 8
SIDED_ORDER = 4
LEVELS = 10
#: An interval is the truncation error and this many standard errors of the noise.
SIGMAS = 5.0
#: SciPy may stop once two levels agree to this, far below what noise allows anyway.
AGREE = 1e-11
#: A difference quotient has settled if its truncation error is below this many times its noise, or this share of itself.
SETTLED_NOISE = 3.0
SETTLED_SHARE = 0.1
#: Steps between the samples that noise is estimated from, in units of the line: so short that f is straight over all of
#: them, and longer ones where most samples are the same because f is coarser than that.
WIGGLES = (2.0**-30, 2.0**-20, 2.0**-12)
SAMPLES = 9


class Probe(Protocol):
    """What `measure` needs of a class of `_probe`."""

    x: np.ndarray
    size: int
    slope: np.ndarray
    rounding: np.ndarray
    center: np.ndarray
    output: np.ndarray

    def values(self, t: np.ndarray, element: np.ndarray) -> np.ndarray: ...
    def outputs(self, y: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True, eq=False)
class Estimate:
    """Derivatives of some elements, each within `interval` of the truth; NaN where f is undefined.

    `truncation` and `noise` are the parts of the interval, `levels` the difference quotients of all levels with their `steps`
    and `noises`, and `largest` is the largest value of f that was met.
    """

    value: np.ndarray
    truncation: np.ndarray
    noise: np.ndarray
    levels: np.ndarray
    steps: np.ndarray
    noises: np.ndarray
    largest: np.ndarray

    @property
    def settled(self) -> np.ndarray:
        """Where levels agree, or noise explains that they do not; elsewhere f may bend within the smallest step."""
        return self.truncation <= np.maximum(SETTLED_NOISE * self.noise, SETTLED_SHARE * np.abs(self.value))

    @property
    def interval(self) -> np.ndarray:
        return self.truncation + self.noise


def measure(
    probe: Probe, element: np.ndarray, sigma: np.ndarray, reach: float | np.ndarray = 1.0, side: int = 0, patient: bool = False
) -> Estimate:
    """Derivative of the given elements at t = 0.

    Parameters
    ----------
    sigma : array
        Standard error of the values of each element of the probe.
    reach : float or array
        First step of each element.
    side : {0, 1, -1}
        Central differences, or one-sided ones to the right or left.
    patient : bool
        Take all levels until noise grows, also where they agree.
    """
    order = SIDED_ORDER if side else ORDER
    m = len(element)
    history: list[tuple[np.ndarray, np.ndarray]] = []
    largest = np.abs(probe.center[element])

    def line(t: np.ndarray, place: np.ndarray) -> np.ndarray:
        # SciPy hands over (m,), then (m, order), then (m, 2) steps of the elements that have not converged.
        place = np.broadcast_to(place, t.shape)
        t, rows = (t[:, None], place[:, None]) if t.ndim == 1 else (t, place)
        f = probe.values(t, element[rows])
        np.maximum.at(largest, rows[:, 0], np.abs(f).max(axis=1))
        return f.reshape(place.shape)

    def keep(result: Any) -> None:
        history.append((np.array(result.df, float), np.array(result.nit)))

    with np.errstate(all="ignore"):
        floor = np.maximum(sigma[element], np.where(np.isfinite(largest), largest, 0.0) * 2.0**-53)
        enough = SIGMAS * amplification(order, side) * np.median(floor / np.broadcast_to(reach, m)) if m else 0.0
        derivative(
            line, np.zeros(m), args=(np.arange(m),), initial_step=reach, order=order, step_direction=side, maxiter=LEVELS,
            tolerances={"rtol": 0.0 if patient else AGREE, "atol": 0.0 if patient else enough}, callback=keep,
        )  # fmt: skip
        levels = np.array([df for df, _ in history[1:]])
        n_levels = np.array(history[-1][1])
        levels[np.arange(len(levels))[:, None] >= n_levels[None, :]] = np.nan
        steps = np.broadcast_to(reach, m) / 2.0 ** np.arange(len(levels))[:, None]
        floor = np.where(np.isfinite(largest), largest, 0.0) * 2.0**-53
        deviation = np.hypot(np.maximum(sigma[element], floor), probe.rounding[element])
        noises = SIGMAS * amplification(order, side) * deviation / steps
        change = np.abs(np.diff(levels, axis=0, prepend=np.nan))
        before = np.vstack([np.zeros((1, m)), change[:-1]])
        # Each level is expected to shrink the change by 2**-order; one that shrinks more may have been lucky.
        truncation = np.fmax(change, np.where(np.isfinite(before), before / 16, 0.0))
        truncation[~np.isfinite(change)] = np.inf
        best = np.argmin(np.where(np.isfinite(levels), truncation + noises, np.inf), axis=0)
    place = (best, np.arange(m))
    lost = ~np.isfinite(truncation[place])
    value = np.where(lost, np.nan, levels[place])
    return Estimate(value, np.where(lost, np.nan, truncation[place]), noises[place], levels, steps, noises, largest)


@cache
def amplification(order: int, side: int) -> float:
    """Standard error of the difference quotient of step 1, where each value has standard error 1."""
    points = 2.0 ** (-np.arange(order) / 2) if side else 2.0 ** -np.arange(order // 2)
    points = np.concatenate([[0.0], points] if side else [-points, [0.0], points])
    unit = np.zeros(len(points))
    unit[1] = 1
    return float(np.linalg.norm(np.linalg.solve(np.vander(points, increasing=True).T, unit)))


def noise(probe: Probe, step: np.ndarray, rng: np.random.Generator, lines: int = 6) -> np.ndarray:
    """Standard error of the values of each element of the probe at its centre, from differences of high order.

    After More and Wild, Estimating computational noise, SIAM J. Sci. Comput. 33 (2011).  The samples lie on one side of
    the point, where a kink at the point itself does no harm.
    """
    shape = probe.x.shape
    found = []
    single = np.ones(probe.outputs(probe.x).shape, bool)
    varied = np.zeros(single.shape, bool)
    for _ in range(lines):
        # Uneven steps: even ones of the same binary digits would meet the same rounding again and again.
        direction = (step * rng.choice([-1.0, 1.0], step.size) * rng.uniform(0.5, 1.0, step.size)).reshape(shape)
        for wiggle in WIGGLES:
            samples = np.array([probe.outputs(probe.x + direction * (wiggle * k)) for k in range(1, SAMPLES + 1)])
            stuck = (np.diff(samples, axis=0) == 0).sum(axis=0) > SAMPLES // 2
            if not stuck.any():
                break
        found.append(np.median([deviation(samples, k) for k in (3, 4, 5, 6)], axis=0))
        with np.errstate(all="ignore"):
            single &= (samples.astype(np.float32) == samples).all(axis=0)
            varied |= (samples != samples[0]).any(axis=0)
    sigma = np.nan_to_num(np.sort(found, axis=0)[-2], nan=0.0, posinf=0.0)[probe.output]  # the largest may have met a kink
    return np.where((single & varied)[probe.output], np.maximum(sigma, 2.0**-24 * np.abs(np.nan_to_num(probe.center))), sigma)


def deviation(samples: np.ndarray, level: int) -> np.ndarray:
    with np.errstate(all="ignore"):
        table = np.diff(samples, n=level, axis=0)
        shrink = np.prod([k / (level + k) for k in range(1, level + 1)])  # (k!)^2 / (2k)!
        return np.sqrt(shrink * np.mean(table * table, axis=0))
