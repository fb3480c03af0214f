"""Numbers of a gradient at one point: which lines are looked along, and what the looks mean for its entries."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from ._diagnose import Entries, diagnose
from ._judge import DETECTED, Judgement, judge
from ._oracle import SIGMAS, Probe, deviation, measure, noise
from ._points import Bounds, inside, steps
from ._probe import Field, Line, Lines, Separable
from ._verdict import Curve, Finding, Verdict

#: Up to this size every entry is looked at; beyond it, some, and random directions.
EXHAUSTIVE = 256
#: Random directions with steps relative to each coordinate, and with a common step.
DIRECTIONS = 3
#: Entries that are looked at one by one where there are many, and the numbers that all of them together may move.
SAMPLED = 64
MOVED = 1 << 22
#: First step along the direction of a Hessian-vector product, whose entries are up to four steps long.
DIRECTION_STEP = 0.25
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


def scalar(f: Callable[[Array], float], setup: Setup) -> Numbers:
    """Numbers of the gradient of a scalar function."""
    x = setup.x
    f = inside(f, setup.domain)
    own_step, common_step = setup.steps()
    rng = setup.rng
    if setup.only is not None:
        chosen = np.array([np.ravel_multi_index(setup.only, x.shape)])
    elif x.size <= EXHAUSTIVE:
        chosen = np.arange(x.size)
    else:
        chosen = _sampled(setup.gradient.reshape(-1), rng)
    lines = [Line(np.array([i]), own_step[i : i + 1]) for i in chosen]
    far = list(common_step[chosen] / own_step[chosen])
    if x.size > len(chosen) and setup.only is None:
        signs = [rng.choice([-1.0, 1.0], x.size) for _ in range(2 * DIRECTIONS)]
        lines += [Line(None, step) for step in (common_step, *(s * common_step for s in signs[:DIRECTIONS]))]
        lines += [Line(None, s * own_step) for s in signs[DIRECTIONS:]]
        far += [1.0] * (1 + 2 * DIRECTIONS)
    probe = Lines(f, x, setup.gradient, lines)
    sigma = noise(probe, own_step, rng)
    own = setup.own()
    judgement = judge(probe, sigma, np.array([_norm(line.along(own) * line.step) for line in lines]), np.array(far))
    n = len(chosen)
    numbers = _summary(setup, probe, judgement, chosen, own_step[chosen], sigma, judgement.flat_far)
    _directions(numbers, setup, judgement, n, common_step)
    if setup.forbid_kinks:
        _forbid(numbers, setup, probe, chosen, sigma)
    if judgement.kink[:n].sum() > 1:
        _ties(numbers, setup, f, judgement, chosen, own_step, sigma)
    if judgement.wrong[n:].any() and not judgement.wrong[:n].any():
        _locate(numbers, setup, f, probe, judgement, n, own, float(sigma.max()))
    return numbers


def separable(f: Callable[[Array], Array], setup: Setup, axes: tuple[int, ...]) -> Numbers:
    """Numbers of an array-valued function whose outputs depend on entries of their own: every one of them."""
    column, output = layout(setup.x.shape, axes)
    return _entries(f, setup, column, output)


def diagonal(f: Callable[[Array], Array], setup: Setup, axes: tuple[int, ...] | None) -> Numbers:
    """Numbers of the derivatives of the outputs of f by their own entries.

    Entries that are apart by more than `axes` do not matter to each other; without axes, each may matter to all.
    """
    everything = np.arange(setup.x.size)
    column = everything if axes is None else layout(setup.x.shape, axes)[0]
    return _entries(f, setup, column, everything)


def _entries(f: Callable[[Array], Array], setup: Setup, column: Array, output: Array) -> Numbers:
    x = setup.x
    own_step, common_step = setup.steps()
    probe = Separable(_inside_each(f, setup.domain, output, x), x, setup.gradient, own_step, column, output)
    sigma = noise(probe, own_step, setup.rng)
    judgement = judge(probe, sigma, setup.own() * own_step, common_step / own_step)
    numbers = _summary(setup, probe, judgement, np.arange(x.size), own_step, sigma, judgement.flat)
    if setup.forbid_kinks:
        _forbid(numbers, setup, probe, np.arange(x.size), sigma)
    return numbers


def along(f: Callable[[Array], Array], setup: Setup, direction: Array) -> Numbers:
    """Numbers of the derivative of an array-valued function along a direction, which the setup's gradient claims to be."""
    x = setup.x
    own_step, _ = setup.steps()
    step = direction.reshape(-1) * DIRECTION_STEP
    n = x.size
    slope = setup.gradient.reshape(-1) * DIRECTION_STEP
    probe = Field(inside(f, setup.domain), x, [Line(None, step)], np.zeros(n, int), np.arange(n), slope, n)
    sigma = noise(probe, own_step, setup.rng)
    judgement = judge(probe, sigma, setup.own() * DIRECTION_STEP, np.ones(n))
    return _summary(setup, probe, judgement, np.arange(n), np.full(n, DIRECTION_STEP), sigma, judgement.flat)


def direction(setup: Setup) -> Array:
    """A random vector whose digits are few, so that steps along it are exact, and which is as large as the steps are."""
    _, common = setup.steps()
    sizes = setup.rng.choice([1.0, 2.0, 4.0], common.size) * setup.rng.choice([-1.0, 1.0], common.size)
    return (common * sizes).reshape(setup.x.shape)


def layout(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[Array, Array]:
    """For each entry of an array, its place within what one output mixes, and which output that is."""
    places = np.indices(shape).reshape(len(shape), -1) if shape else np.zeros((0, 1), int)
    mixed = [axis % max(len(shape), 1) for axis in axes]
    rest = [axis for axis in range(len(shape)) if axis not in mixed]

    def number(chosen: list[int]) -> Array:
        if not chosen:
            return np.zeros(places.shape[1], int)
        return np.ravel_multi_index(tuple(places[chosen]), tuple(shape[axis] for axis in chosen))

    return number(mixed), number(rest)


def _inside_each(f: Callable[[Array], Array], domain: Bounds | None, output: Array, x: Array) -> Callable[[Array], Array]:
    """F, undefined at just those outputs whose entries are outside of the domain."""
    if domain is None:
        return f
    low, high = domain

    def bounded(y: Array) -> Array:
        out = ((y < low) | (y > high)).reshape(-1)
        if not out.any():
            return f(y)
        result = np.array(f(np.where(out.reshape(y.shape), x, y)), float)
        result.reshape(-1)[output[out]] = np.nan
        return result

    return bounded


def _sampled(gradient: Array, rng: np.random.Generator) -> Array:
    """Entries for a closer look: both ends, the largest and smallest, zeros, and random ones."""
    n = gradient.size
    wanted = int(min(SAMPLED, max(8, MOVED // n)))
    size = np.abs(gradient)
    size[~np.isfinite(size)] = np.inf
    quarter = max(1, wanted // 8)
    order = np.argpartition(size, [quarter, n - quarter - 1])
    zeros = np.flatnonzero(size == 0)
    picked = [np.array([0, n - 1]), order[:quarter], order[-quarter:], rng.permutation(zeros)[:quarter]]
    picked.append(rng.choice(n, wanted, replace=False))
    _, first = np.unique(np.concatenate(picked), return_index=True)
    return np.concatenate(picked)[np.sort(first)][:wanted]


def _norm(terms: Array) -> float:
    return float(np.sqrt(np.sum(terms * terms)))


def _index(setup: Setup, entry: int) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(entry, setup.x.shape))


def _summary(setup: Setup, probe: Probe, j: Judgement, entry: Array, step: Array, sigma: Array, flat: Array) -> Numbers:
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
        numbers.findings.append(_wrong(setup, j, int(k), entry, step, entries, hint))
    for k in np.flatnonzero(j.unclear[part])[:NAMED]:
        where = (setup.argument, setup.point, _index(setup, int(entry[k])))
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


def _wrong(setup: Setup, j: Judgement, k: int, entry: Array, step: Array, entries: Entries, hint: str) -> Finding:
    a, d, e = float(entries.analytic[k]), float(entries.numeric[k]), float(entries.interval[k])
    if not math.isfinite(a):
        text = "not finite"
    elif j.kink[k]:
        text = f"outside of the one-sided slopes {j.low[k] / step[k]:.6g} and {j.high[k] / step[k]:.6g}"
    else:
        text = f"{abs(a - d) / e:.0e} intervals away" if e > 0 else "f is constant there"
    return Finding("value", Verdict.FAIL, text, setup.argument, setup.point, _index(setup, int(entry[k])), a, d, e, hint)


def _curve(setup: Setup, probe: Probe, sigma: Array, k: int, entry: int, step: float) -> Curve | None:
    """Error of the difference quotients of one entry, from the first step down to where noise wins."""
    look = measure(probe, np.array([k]), sigma, patient=True)
    known = np.isfinite(look.levels[:, 0])
    slope = probe.slope[k]
    if not known.any() or not math.isfinite(slope):
        return None
    return Curve(
        f"grad[{', '.join(map(str, _index(setup, entry)))}]",
        tuple((look.steps[known, 0] * step).tolist()),
        tuple((np.abs(look.levels[known, 0] - slope) / step).tolist()),
        tuple((look.noises[known, 0] / step).tolist()),
    )


def _directions(numbers: Numbers, setup: Setup, j: Judgement, n: int, common: Array) -> None:
    """Random directions cover the entries that nobody looked at one by one."""
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
    # The first DIRECTIONS + 1 lines move every coordinate by its common step.
    sharpest = np.min(half[: DIRECTIONS + 1][known[: DIRECTIONS + 1]], initial=math.inf)
    if largest > 0:
        numbers.resolution_entry = max(numbers.resolution_entry, DETECTED * float(sharpest) / largest)
    numbers.entries = setup.x.size


def _forbid(numbers: Numbers, setup: Setup, probe: Probe, entry: Array, sigma: Array) -> None:
    """Entries at which the one-sided slopes differ."""
    right, left = (measure(probe, np.arange(len(entry)), sigma, SIDED, side) for side in (1, -1))
    with np.errstate(invalid="ignore"):
        kinked = np.flatnonzero(np.abs(right.value - left.value) > right.interval + left.interval)
    for k in kinked[:NAMED]:
        index = _index(setup, int(entry[k]))
        text = f"f has a kink at entry {index}"
        numbers.findings.append(Finding("kink", Verdict.FAIL, text, setup.argument, setup.point, index))


def _ties(
    numbers: Numbers, setup: Setup, f: Callable[[Array], float], j: Judgement, chosen: Array, step: Array, sigma: Array
) -> None:
    """Entries at a tie, as of a maximum, may be right one by one and wrong together: their common direction must hold, too."""
    kinked = np.flatnonzero(j.kink[: len(chosen)])
    index = chosen[kinked]
    together = np.full(len(index), float(step[index].min()))
    alone = [Line(index[k : k + 1], together[k : k + 1]) for k in range(len(index))]
    probe = Lines(f, setup.x, setup.gradient, [Line(index, together), *alone])
    right, left = (measure(probe, np.arange(probe.size), np.full(probe.size, sigma.max()), SIDED, side) for side in (1, -1))
    slack = right.interval + left.interval
    if not np.isfinite(slack).all():
        return
    interacting = any(abs(look.value[0] - look.value[1:].sum()) > slack.sum() for look in (right, left))
    low, high = min(right.value[0], left.value[0]) - slack[0], max(right.value[0], left.value[0]) + slack[0]
    if interacting and not low <= probe.slope[0] <= high:
        unit = together[0]
        text = f"{len(index)} tied entries together have slope {probe.slope[0] / unit:.6g}"
        text += f", not within {low / unit:.6g} and {high / unit:.6g}"
        hint = "ties share one slope; it may not be given to each of them"
        where = _index(setup, int(index[0]))
        numbers.findings.append(Finding("tie", Verdict.FAIL, text, setup.argument, setup.point, where, hint=hint))


def _locate(
    numbers: Numbers, setup: Setup, f: Callable[[Array], float], probe: Lines, j: Judgement, n: int, own: Array, sigma: float
) -> None:
    """Name the wrong entries of a wrong direction by halving it, in a number of steps that grows with its logarithm."""
    worst = n + int(np.argmax(np.where(j.wrong[n:], j.outside[n:] / j.interval[n:], -1.0)))
    if j.kink[worst]:
        text = "random directions cross kinks, so that nothing can be said of entries that were not looked at one by one"
        numbers.findings.append(
            Finding(
                "kink", Verdict.INCONCLUSIVE, text, setup.argument, setup.point, hint="pass separable=, or an x without ties"
            )
        )
        return
    whole = probe.lines[worst].step
    found: list[Finding] = []
    spread = 0
    for block, judged in _halves(f, setup, whole, own, sigma):
        if block.size == 1:
            entry = np.array(block)
            step = whole[block]
            e = Entries(
                entry,
                setup.gradient,
                judged.slope[:1] / step,
                judged.value[:1] / step,
                judged.interval[:1] / np.abs(step),
                np.ones(1, bool),
                setup.others,
            )
            found.append(_wrong(setup, judged, 0, entry, step, e, diagnose(e)))
        else:
            spread += block.size
        if len(found) >= NAMED:
            break
    if not found:
        slope, value = float(j.slope[worst]), float(j.value[worst])
        text = f"along a random direction analytic {slope:.9e}, numeric {value:.9e} +- {j.interval[worst]:.1e}"
        text += f"; the error is spread over at least {spread or whole.size} entries"
        found.append(
            Finding(
                "direction",
                Verdict.FAIL,
                text,
                setup.argument,
                setup.point,
                hint=_ratio(slope, value, float(j.interval[worst])),
            )
        )
    numbers.findings += found


def _halves(
    f: Callable[[Array], float], setup: Setup, step: Array, own: Array, sigma: float
) -> Iterator[tuple[Array, Judgement]]:
    """Blocks of wrong entries: single ones, or blocks whose halves look right by themselves."""
    rest = [np.arange(step.size)]
    while rest:
        block = rest.pop()
        halves = [half for half in np.array_split(block, 2) if half.size]
        probe = Lines(f, setup.x, setup.gradient, [Line(half, step[half]) for half in halves])
        errors = np.array([_norm(own[half] * step[half]) for half in halves])
        judged = judge(probe, np.full(len(halves), sigma), errors, np.ones(len(halves)))
        wrong = [half for half, bad in zip(halves, judged.wrong, strict=True) if bad]
        for k, half in enumerate(halves):
            if judged.wrong[k] and half.size == 1:
                yield half, _only(judged, k)
        if not wrong:
            yield block, judged
        rest += [half for half in reversed(wrong) if half.size > 1]


def _only(j: Judgement, k: int) -> Judgement:
    names = ("slope", "value", "interval", "low", "high", "truncation", "wrong", "kink", "flat", "flat_far")
    return replace(j, **{name: getattr(j, name)[k : k + 1] for name in names})


def _ratio(slope: float, value: float, interval: float) -> str:
    if abs(slope) <= interval:
        return "the gradient is zero"
    ratio = slope / value if value else math.inf
    return f"the gradient is {ratio:.6g} times what it should be along that direction"
