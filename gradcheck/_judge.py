"""Verdict on slopes: what a finite difference says of each analytic value, after a second look where it matters.

A first look takes central differences of every element.  A slope outside its interval is looked at again: from other steps
and from both sides of the point, because the interval may have been unlucky and f may have a kink.  Only what two
estimates of their own exclude is called wrong.  An interval too wide to mean anything is looked at with longer steps
where noise made it wide, and with shorter ones elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ._oracle import ORDER, SIGMAS, Estimate, Probe, amplification, measure

#: Second looks: reaches of the one-sided differences, from far to near, and of the central ones where noise is too large.
NEARER = (2.0**-2, 2.0**-7, 2.0**-12, 2.0**-18)
FARTHER = (2.0**5, 2.0**10, 2.0**15)
#: Reach of the second central difference: no power of two, so that it shares no sample with the first.
AGAIN = 0.7
#: An interval above this share of the largest slope says too little about an entry.
COARSE = 1e-4
#: An interval above this share of the slope itself is worth another look where that is cheap.
FINE = 1e-7
#: Elements that get a second look at a time; the rest waits whether one of the first is wrong.
BATCH = 24
#: Roundings, relative to the largest slope, that an analytic gradient may have however well it was made.
ROUNDINGS = 8 * 2.0**-53


#: A look decides if its interval is below this share of the discrepancy that it is to explain; at a kink it must be sharper.
DECISIVE = 0.5
SIDED_DECISIVE = 0.2
#: So this many intervals away from the truth a slope is certainly called wrong.
DETECTED = 4.0


@dataclass(eq=False)
class Judgement:
    """What is known of the elements of one probe at one point.

    A slope between `low` and `high` is right.  They are `value` -+ `interval`, except at a kink, where anything between the
    one-sided slopes is.  `wrong` elements are excluded by two estimates, `unclear` ones have none.  Along `flat` ones f
    does not change by a bit near the point, and along `flat_far` ones as far as was looked.
    """

    slope: np.ndarray
    value: np.ndarray
    interval: np.ndarray
    low: np.ndarray
    high: np.ndarray
    truncation: np.ndarray
    wrong: np.ndarray
    kink: np.ndarray
    flat: np.ndarray
    flat_far: np.ndarray

    @property
    def unclear(self) -> np.ndarray:
        return ~np.isfinite(self.value) & ~self.wrong

    @property
    def outside(self) -> np.ndarray:
        """Distance of each slope from what is right."""
        with np.errstate(invalid="ignore"):
            return np.nan_to_num(np.maximum(0.0, np.maximum(self.low - self.slope, self.slope - self.high)), posinf=np.inf)

    def adopt(self, place: np.ndarray, estimate: Estimate, own: np.ndarray) -> None:
        """Take over estimates of the elements `place` where they are sharper."""
        half = estimate.interval + own[place]
        better = np.isfinite(estimate.value) & ~(self.interval[place] <= half)
        place, half = place[better], half[better]
        self.value[place] = estimate.value[better]
        self.interval[place] = half
        self.truncation[place] = estimate.truncation[better]
        self.low[place] = self.value[place] - half
        self.high[place] = self.value[place] + half


def judge(probe: Probe, sigma: np.ndarray, own: np.ndarray, far: np.ndarray) -> Judgement:
    """Judge the slopes of a probe.

    Parameters
    ----------
    sigma : array
        Standard errors of the values.
    own : array
        Rounding errors that the slopes themselves may have.
    far : array
        Reach of each element up to which f may well be as smooth as at the first.
    """
    first = measure(probe, np.arange(probe.size), sigma)
    largest = np.max(np.abs(probe.slope[np.isfinite(probe.slope)]), initial=0.0)
    own = own + ROUNDINGS * largest
    half = first.interval + own
    j = Judgement(
        probe.slope, first.value.copy(), half, first.value - half, first.value + half, first.truncation.copy(),
        wrong=np.zeros(probe.size, bool), kink=np.zeros(probe.size, bool),
        flat=_constant(first), flat_far=_constant(first),
    )  # fmt: skip
    scale = max(largest, np.max(np.abs(j.value[np.isfinite(j.value)]), initial=0.0))
    _sharpen(probe, sigma, own, far, j, COARSE * scale)
    _confirm(probe, sigma, own, far, j)
    return j


def _constant(estimate: Estimate) -> np.ndarray:
    return (estimate.levels[0] == 0) & (estimate.value == 0)


def _sharpen(probe: Probe, sigma: np.ndarray, own: np.ndarray, far: np.ndarray, j: Judgement, demand: float) -> None:
    """Longer steps for elements that drown in noise; shorter ones where f bends too much, or is undefined at that distance."""
    for reach in FARTHER:
        dull = (j.interval > demand) | ((j.interval > FINE * np.abs(j.slope)) & (reach <= far))
        place = np.flatnonzero(dull & (j.truncation < 0.5 * j.interval))
        if place.size:
            look = measure(probe, place, sigma, reach)
            j.adopt(place, look, own)
            j.flat_far[place] &= _constant(look) | np.isnan(look.value)
    for reach in NEARER:
        place = np.flatnonzero(~(j.interval <= demand) & ~(j.truncation < 0.5 * j.interval))
        if place.size:
            j.adopt(place, measure(probe, place, sigma, reach), own)
    for reach in NEARER:  # an end of the domain
        place = np.flatnonzero(np.isnan(j.value))
        if not place.size:
            break
        for side in (1, -1):
            j.adopt(place, measure(probe, place, sigma, reach, side), own)


def _confirm(probe: Probe, sigma: np.ndarray, own: np.ndarray, far: np.ndarray, j: Judgement) -> None:
    """Second look at slopes that are outside, the worst first, until some are certainly wrong."""
    _plateaus(probe, sigma, far, j)
    suspects = np.flatnonzero(j.outside > 0)
    suspects = suspects[np.argsort(-j.outside[suspects], kind="stable")]
    while suspects.size and not j.wrong.any():
        batch, suspects = suspects[:BATCH], suspects[BATCH:]
        _look_again(probe, sigma, own, j, batch)
    j.wrong |= ~np.isfinite(j.slope) & np.isfinite(j.value)


def _plateaus(probe: Probe, sigma: np.ndarray, far: np.ndarray, j: Judgement) -> None:
    """Allow for the rounding of f where it does not change by a bit: it may be a difference of numbers as large as it is
    farther away.
    """
    place = np.flatnonzero((j.outside > 0) & j.flat)
    for reach in FARTHER if place.size else ():
        largest = measure(probe, place, sigma, reach * np.maximum(1.0, far[place])).largest
        quantum = SIGMAS * amplification(ORDER, 0) * 2.0**-53 * np.nan_to_num(largest, nan=0.0, posinf=0.0)
        quantum = np.maximum(quantum - j.interval[place], 0.0)
        j.interval[place] += quantum
        j.low[place] -= quantum
        j.high[place] += quantum


def _look_again(probe: Probe, sigma: np.ndarray, own: np.ndarray, j: Judgement, batch: np.ndarray) -> None:
    """Central differences from other steps, then both sides from ever nearer; the nearest look that is sharp enough decides.

    From far, a kink beside the point looks like one at the point, so that a look that finds none is needed to call a
    slope wrong, or the nearest.
    """
    discrepancy = np.abs(j.slope - j.value)
    exclusions = np.ones(j.slope.size, int)
    excluded = np.ones(j.slope.size, bool)
    spoken = np.zeros(j.slope.size, bool)
    open_ = batch
    for reach, sides in [(AGAIN, (0,)), *[(reach, (1, -1)) for reach in NEARER]]:
        looks = [measure(probe, open_, sigma, reach, side) for side in sides]
        values = np.array([look.value for look in looks])
        slack = np.nansum([look.interval for look in looks], axis=0) + own[open_]
        low, high = np.fmin.reduce(values) - slack, np.fmax.reduce(values) + slack
        share = DECISIVE if len(sides) == 1 else SIDED_DECISIVE
        settled = np.array([look.settled | np.isnan(look.value) for look in looks]).all(axis=0)
        speaks = np.isfinite(low) & settled & (slack <= share * discrepancy[open_])
        inside = (low <= j.slope[open_]) & (j.slope[open_] <= high)
        apart = high - low > 4 * slack
        place = open_[speaks]
        spoken[place] = True
        excluded[place] = ~inside[speaks]
        exclusions[place] += ~inside[speaks]
        j.kink[place] = apart[speaks]
        told = speaks & (inside | apart)
        j.low[open_[told]], j.high[open_[told]] = low[told], high[told]
        if len(sides) == 2:
            open_ = open_[~speaks | apart]
        if not open_.size:
            break
    j.wrong[batch] = (excluded & (exclusions >= 2))[batch]
    # Nothing sharper than the first look: what it left out is then part of the interval.
    blunt = batch[excluded[batch] & ~j.wrong[batch]]
    j.interval[blunt] += discrepancy[blunt]
    j.low[blunt] -= discrepancy[blunt]
    j.high[blunt] += discrepancy[blunt]
