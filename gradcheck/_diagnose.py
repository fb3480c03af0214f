"""Likely causes of a wrong gradient: simple relations that explain every number, or no hint at all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

#: An interval above this share of an entry agrees with too much to speak for a relation: one entry that is huge by mistake
#: widens all of them.
TELLING = 0.01
#: The same, relative to the largest entry, for entries that should be zero.
FLAT = 1e-3


@dataclass(frozen=True, eq=False)
class Entries:
    """Entries that were looked at: flat index, analytic and numeric value, interval, and which are outside of it."""

    entry: np.ndarray
    gradient: np.ndarray
    analytic: np.ndarray
    numeric: np.ndarray
    interval: np.ndarray
    outside: np.ndarray
    others: dict[str, np.ndarray]


def diagnose(e: Entries) -> str:
    """The first relation that holds for all entries, and where the wrong ones are; empty if none is found."""
    known = np.isfinite(e.numeric)
    if not known.any():
        return ""
    bad = e.outside & known
    if not np.isfinite(e.analytic[bad]).all():
        return _somewhere(e, bad, "not finite")
    for hint, expected in _relations(e):
        if _explains(e, known, expected):
            return hint
    for hint, place in _orders(e):
        if _explains(e, known, e.numeric[place], e.interval[place]):
            return hint
    if (e.analytic[bad] == 0).all():
        return _somewhere(e, bad, "zero where f is not flat")
    flat = np.where(e.interval <= FLAT * np.max(np.abs(e.numeric[known])), np.abs(e.numeric) <= e.interval, e.numeric == 0)
    if flat[bad].all():
        return _somewhere(e, bad, "not zero where f is flat: is a mask missing?")
    if _explains(e, bad, -e.numeric):
        return _somewhere(e, bad, "of the wrong sign")
    with np.errstate(all="ignore"):
        ratios = e.analytic[bad] / e.numeric[bad]
    if bad.sum() > 1 and np.ptp(ratios) <= 1e-6 * abs(ratios[0]):
        return _somewhere(e, bad, f"{_factor(ratios[0])} times what they should be")
    if (np.abs(e.analytic - e.numeric)[bad] < 1e-6 * np.abs(e.analytic[bad])).all():
        return _somewhere(e, bad, "right to single precision only: computed in float32, or an inexact constant?")
    return _somewhere(e, bad, "wrong") if bad.sum() < known.sum() else ""


def _relations(e: Entries) -> Iterator[tuple[str, np.ndarray]]:
    d = e.numeric
    shape = e.gradient.shape
    yield "the sign is wrong everywhere", -d
    yield "the gradient is zero everywhere", 0 * d
    factors: dict[float, str] = {2.0: "2", 0.5: "1/2"}
    n = e.gradient.size
    for size, name in [
        (n, "the number of entries"),
        *((length, f"the length of axis {axis}") for axis, length in enumerate(shape)),
    ]:
        if size > 1:
            factors.setdefault(float(size), f"{size} ({name}): is the mean's denominator missing?")
            factors.setdefault(1.0 / size, f"1/{size} ({name}): is it a mean where it should be a sum?")
            factors.setdefault(size / (size - 1), f"{size}/{size - 1}: n - 1 instead of n?")
    for factor, name in factors.items():
        yield f"too large by the factor {name}", factor * d
    biggest = np.argmax(np.abs(d))
    if d[biggest] != 0 and len(d) > 1:
        factor = e.analytic[biggest] / d[biggest]
        yield f"every entry is {_factor(factor)} times what it should be: a missing factor?", factor * d
        yield f"every entry is off by the same {e.analytic[biggest] - d[biggest]:.6g}", d + (e.analytic[biggest] - d[biggest])
    for name, other in e.others.items():
        if other.size == n:
            differs = other.reshape(-1)[e.entry]
            if not np.array_equal(differs, d):
                yield (
                    f"this is {name}",
                    np.where(np.isfinite(differs), e.analytic, np.nan)
                    if np.array_equal(differs, e.analytic)
                    else np.full_like(d, np.nan),
                )


def _orders(e: Entries) -> Iterator[tuple[str, np.ndarray]]:
    """Other orders of the entries: for each, where it is in the right one."""
    shape = e.gradient.shape
    n = e.gradient.size
    if n < 2 or not np.array_equal(e.entry, np.arange(n)):
        return
    grid = np.arange(n).reshape(shape)
    for axis, length in enumerate(shape):
        if length > 1:
            for shift in (1, -1):
                yield f"shifted by {shift} along axis {axis}", np.roll(grid, shift, axis).reshape(-1)
            yield f"reversed along axis {axis}", np.flip(grid, axis).reshape(-1)
    if len(shape) == 2:
        yield "transposed", grid.T.reshape(-1)


def _factor(number: float) -> str:
    return f"(1 {number - 1:+.3g})" if abs(number - 1) < 1e-3 else f"{number:.6g}"


def _explains(e: Entries, which: np.ndarray, expected: np.ndarray, interval: np.ndarray | float = 0.0) -> bool:
    """Whether the analytic values are the expected ones, as far as the intervals can tell, which must be far.

    The expected ones have an `interval` of their own where they are those of other entries.
    """
    with np.errstate(all="ignore"):
        size = np.maximum(np.abs(e.numeric), np.abs(expected))
        scale = np.where(size > 0, np.abs(expected) / np.where(e.numeric == 0, 1, np.abs(e.numeric)), 1)
        slack = 2 * np.maximum(e.interval * np.maximum(1, scale), interval)
        telling = slack < TELLING * np.maximum(size, np.abs(e.analytic))
        near = np.abs(e.analytic - expected) <= slack + 1e-12 * size
    if which.sum() > 1 and telling[which].sum() < 2:
        return False
    return bool(which.any() and near[which].all())


def _somewhere(e: Entries, bad: np.ndarray, what: str) -> str:
    shape = e.gradient.shape
    places = np.array(np.unravel_index(e.entry[bad], shape)) if shape else np.zeros((0, 1), int)
    count = f"{bad.sum()} of {len(bad)} entries are {what}" if bad.sum() > 1 else f"one entry of {len(bad)} is {what}"
    if bad.sum() > 1:
        for axis in range(len(shape)):
            where = np.unique(places[axis])
            if len(where) == 1 and len(shape) > 1:
                return f"{count}, all at index {where[0]} of axis {axis}"
    if 1 < bad.sum() < len(bad) and len(e.entry) == e.gradient.size:
        first, last = int(np.flatnonzero(bad)[0]), int(np.flatnonzero(bad)[-1])
        if last - first + 1 == bad.sum():
            end = "the last" if last == len(bad) - 1 else "the first" if first == 0 else ""
            hint = f"{end} in memory order: is a loop's end wrong?" if end else f"{first} to {last} in memory order"
            return f"{count}: {hint}"
    return count
