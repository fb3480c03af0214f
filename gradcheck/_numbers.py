"""Numbers of a gradient at one point: which lines are looked along, and from where."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ._findings import Array, Numbers, Setup, directions, forbid, summary
from ._judge import judge
from ._locate import locate, norm, ties
from ._oracle import noise
from ._points import Bounds, inside
from ._probe import Field, Line, Lines, Separable

#: Up to this size every entry is looked at; beyond it, some, and random directions.
EXHAUSTIVE = 256
#: Random directions with steps relative to each coordinate, and with a common step.
DIRECTIONS = 3
#: Entries that are looked at one by one where there are many, and the numbers that all of them together may move.
SAMPLED = 64
MOVED = 1 << 22
#: First step along the direction of a Hessian-vector product, whose entries are up to four steps long.
DIRECTION_STEP = 0.25


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
    judgement = judge(probe, sigma, np.array([norm(line.along(own) * line.step) for line in lines]), np.array(far))
    n = len(chosen)
    numbers = summary(setup, probe, judgement, chosen, own_step[chosen], sigma, judgement.flat_far)
    directions(numbers, setup, judgement, n, common_step, 1 + DIRECTIONS)
    if setup.forbid_kinks:
        forbid(numbers, setup, probe, chosen, sigma)
    if judgement.kink[:n].sum() > 1:
        ties(numbers, setup, f, judgement, chosen, own_step, sigma)
    if judgement.wrong[n:].any() and not judgement.wrong[:n].any():
        locate(numbers, setup, f, probe, judgement, n, own, float(sigma.max()))
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
    numbers = summary(setup, probe, judgement, np.arange(x.size), own_step, sigma, judgement.flat)
    if setup.forbid_kinks:
        forbid(numbers, setup, probe, np.arange(x.size), sigma)
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
    return summary(setup, probe, judgement, np.arange(n), np.full(n, DIRECTION_STEP), sigma, judgement.flat)


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
