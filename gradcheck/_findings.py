"""What looks along lines mean for the entries of a gradient: findings, and the errors that would have been seen."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ._diagnose import Entries, diagnose
from ._judge import DETECTED, Judgement
from ._oracle import SIGMAS, Probe, deviation, measure
from ._points import Bounds, steps
from ._verdict import Curve, Finding, Verdict

#: Reach of one-sided differences at kinks.
SIDED = 0.25
#: Wrong entries that are named one by one.
NAMED = 8
#: Lines and samples of the estimate of a gradient's own rounding errors.
OWN_LINES = 2

Array = np.ndarray


@dataclass(eq=False)
class Numbers:
    """What one point says of one argument."""

    findings: list[Finding] = field(default_factory=list)
    resolution: float = math.nan
    resolution_entry: float = math.nan
    noise: float = math.nan
    kinked: bool = False
    entries: int = 0
    curve: Curve | None = None


@dataclass(frozen=True, eq=False)
class Setup:
    """A point of an argument: where it is, what its gradient claims to be, and the steps taken from it."""

    x: Array
    gradient: Array
    domain: Bounds | None
    rng: np.random.Generator
    argument: int = 0
    point: int = 0
    only: tuple[int, ...] | None = None
    forbid_kinks: bool = False
    #: The gradient as a function, for the estimate of its own rounding errors.
    evaluate: Callable[[Array], Array] | None = None
    #: Gradients that a wrong one may have been mixed up with.
    others: dict[str, Array] = field(default_factory=dict)

    def index(self, entry: int) -> tuple[int, ...]:
        """Index of an entry of the flattened argument."""
        return tuple(int(i) for i in np.unravel_index(entry, self.x.shape))

    def steps(self) -> tuple[Array, Array]:
        return steps(self.x, self.domain)

    def own(self) -> Array:
        """Rounding errors of the entries of the gradient, as intervals."""
        if self.evaluate is None or not self.x.size:
            return np.zeros(self.x.size)
        own, _ = self.steps()
        found = []
        for _ in range(OWN_LINES):
            wiggle = (own * self.rng.choice([-1.0, 1.0], own.size) * self.rng.uniform(0.5, 1.0, own.size)).reshape(self.x.shape)
            samples = np.array([self.evaluate(self.x + wiggle * (2.0**-30 * k)).reshape(-1) for k in range(1, 10)])
            found.append(np.median([deviation(samples, level) for level in (3, 4, 5, 6)], axis=0))
        return SIGMAS * np.nan_to_num(np.max(found, axis=0), nan=0.0, posinf=0.0)


def summary(setup: Setup, probe: Probe, j: Judgement, entry: Array, step: Array, sigma: Array, flat: Array) -> Numbers:
    """Findings and resolution of elements that are entries of the gradient.

    Where all of them are zero and `flat`, there is nothing to resolve.  A sum hides small changes of its terms, so that a
    scalar function counts as flat only if it is so far and wide.
    """
    n = len(entry)
    part = slice(0, n)
    numbers = Numbers(noise=float(np.max(sigma[part], initial=0.0)), kinked=bool(j.kink[part].any()), entries=n)
    value, slope = j.value[part] / step, j.slope[part] / step
    half = np.maximum(j.interval[part], 0.5 * (j.high[part] - j.low[part])) / step
    entries = Entries(entry, setup.gradient, slope, value, half, j.outside[part] > 0, setup.others)
    wrong = np.flatnonzero(j.wrong[part])
    with np.errstate(over="ignore"):
        order = wrong[np.argsort(-np.abs(slope - value)[wrong] / np.maximum(half[wrong], 1e-300), kind="stable")]
    hint = diagnose(entries) if wrong.size else ""
    for k in order[:NAMED]:
        numbers.findings.append(wrong_entry(setup, j, int(k), entry, step, entries, hint))
    for k in np.flatnonzero(j.unclear[part])[:NAMED]:
        where = (setup.argument, setup.point, setup.index(int(entry[k])))
        text = f"f is not finite on either side of entry {where[2]}"
        numbers.findings.append(Finding("undefined", Verdict.INCONCLUSIVE, text, *where, hint="pass domain=, or another x"))
    known = np.isfinite(value) & np.isfinite(slope)
    size = np.maximum(np.abs(slope), np.abs(value))
    weight = setup.steps()[1][entry]
    largest = np.max(size[known] * weight[known], initial=0.0)
    if n and flat[part][known].all() and not slope[known].any():
        numbers.resolution = numbers.resolution_entry = 0.0
    elif slope[known].any() or (np.abs(value[known]) > half[known]).any():
        some = known & (size > 0)
        numbers.resolution = float(np.min(DETECTED * half[some] / size[some]))
        numbers.resolution_entry = float(np.max(DETECTED * half[known] * weight[known]) / largest)
    elif n:
        numbers.resolution = numbers.resolution_entry = math.inf
    if n:
        finite = np.flatnonzero(known)
        shown = order[0] if order.size else finite[np.argmax(np.abs(slope[finite]))] if finite.size else None
        if shown is not None:
            numbers.curve = _curve(setup, probe, sigma, int(shown), int(entry[shown]), float(step[shown]))
    return numbers


def wrong_entry(setup: Setup, j: Judgement, k: int, entry: Array, step: Array, entries: Entries, hint: str) -> Finding:
    a, d, e = float(entries.analytic[k]), float(entries.numeric[k]), float(entries.interval[k])
    if not math.isfinite(a):
        text = "not finite"
    elif j.kink[k]:
        text = f"outside of the one-sided slopes {j.low[k] / step[k]:.6g} and {j.high[k] / step[k]:.6g}"
    else:
        text = f"{abs(a - d) / e:.0e} intervals away" if e > 0 else "f is constant there"
    return Finding("value", Verdict.FAIL, text, setup.argument, setup.point, setup.index(int(entry[k])), a, d, e, hint)


def _curve(setup: Setup, probe: Probe, sigma: Array, k: int, entry: int, step: float) -> Curve | None:
    """Error of the difference quotients of one entry, from the first step down to where noise wins."""
    look = measure(probe, np.array([k]), sigma, patient=True)
    known = np.isfinite(look.levels[:, 0])
    slope = probe.slope[k]
    if not known.any() or not math.isfinite(slope):
        return None
    return Curve(
        f"grad[{', '.join(map(str, setup.index(entry)))}]",
        tuple((look.steps[known, 0] * step).tolist()),
        tuple((np.abs(look.levels[known, 0] - slope) / step).tolist()),
        tuple((look.noises[known, 0] / step).tolist()),
    )


def directions(numbers: Numbers, setup: Setup, j: Judgement, n: int, common: Array, full: int) -> None:
    """Random directions cover the entries that nobody looked at one by one.

    They stand behind the first n elements, and the first `full` of them move each coordinate by its common step.
    """
    part = slice(n, None)
    known = np.isfinite(j.value[part]) & np.isfinite(j.slope[part])
    if not j.slope[part].size:
        return
    half = np.maximum(j.interval[part], 0.5 * (j.high[part] - j.low[part]))
    gradient = setup.gradient.reshape(-1)
    with np.errstate(all="ignore"):
        largest = float(np.max(np.abs(gradient) * common, initial=0.0))
        uniform = np.min(DETECTED * half[known] / np.abs(j.slope[part][known]), initial=math.inf)
    numbers.resolution = min(numbers.resolution, float(uniform))
    sharpest = np.min(half[:full][known[:full]], initial=math.inf)
    if largest > 0:
        numbers.resolution_entry = max(numbers.resolution_entry, DETECTED * float(sharpest) / largest)
    numbers.entries = setup.x.size


def forbid(numbers: Numbers, setup: Setup, probe: Probe, entry: Array, sigma: Array) -> None:
    """Entries at which the one-sided slopes differ."""
    right, left = (measure(probe, np.arange(len(entry)), sigma, SIDED, side) for side in (1, -1))
    with np.errstate(invalid="ignore"):
        kinked = np.flatnonzero(np.abs(right.value - left.value) > right.interval + left.interval)
    for k in kinked[:NAMED]:
        index = setup.index(int(entry[k]))
        text = f"f has a kink at entry {index}"
        numbers.findings.append(Finding("kink", Verdict.FAIL, text, setup.argument, setup.point, index))
