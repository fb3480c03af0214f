"""Classwise driver for class probabilities and rows of many classes: value and gradient, without class weights.

As in `label_rows` the exponentials are those of the logits as they are, and wait where the gradient will be.  What the label is
there is here the class with the largest logit m: with e, its exponential, and o, the sum of all others, a class j has
-log p_j = m - x_j + log1p(o / e), two terms that are not negative.  A row with a large logit, or a factor that is no normal
number, goes the way of `rows`.
"""

from __future__ import annotations

import numpy as np

from .._scalar import log1p, product
from . import _vector
from ._blocks import LINE, WIDE, aligned, alive, bounds_of, closed, compensated, near, put, stack_buffer, uncounted, view
from ._jit import inlined, optional
from ._scalar import exp_kept
from ._streams import ROWS, lines, streams
from ._vector import (
    BYTES,
    choice,
    farther,
    farthest,
    filled,
    filled_short,
    first_lane,
    lanes_of,
    largest,
    load_part,
    load_short,
    pointer,
    prefetch_far,
    settle,
    short_lanes_of,
    store_part,
    stream,
    unknown_zero,
    where_from,
    where_not,
    widened,
)
from .label_rows import exponential_of, grown, kept, normal, per_block  # noqa: F401  a driver has a `per_block`
from .labels import MODERATE
from .rows import careful_sums
from .rows import grad as careful_grad
from .tiles import FOLD

#: Bytes of classes up to which the row after the next is fetched into the second cache.
NEXT = 8192
#: Bytes of classes up to which large results go past the caches: a longer row, read twice beside its target, leaves no room
#: for its exponentials.
FLOWING = 1 << 16


@inlined
def highest(x, start, classes):
    """The largest logit of a row, a class that has it, and the largest magnitude, which is NaN if a logit is.

    Of NaN and infinite logits the first two are of no use.
    """
    step = lanes_of(x)
    last = classes - step
    top = _vector.load(x, start + last)
    reach = farther(top, filled(x, 0.0))
    for j in range(0, last, step):
        logits = _vector.load(x, start + j)
        top = choice(logits > top, logits, top)
        reach = farther(logits, reach)
    m = largest(top)
    at, lane = -step, step
    while lane == step and at < last:
        at = min(at + step, last)
        lane = first_lane(_vector.load(x, start + at) == m)
    return m, min(at + lane, classes - 1), farthest(reach)


@inlined
def sums(x, t, start, classes, peak, m, keep, even, es):
    """Of a row the sums of the exponentials of all classes but the `peak`, of q (m - x), and of all q but the peak's.

    The exponentials go to `es`, if that is given.
    """
    step = lanes_of(x)
    zero, constants = filled(x, 0.0), (unknown_zero(x), filled(x, m), keep, even)
    whole = classes - classes % step
    last = classes - step  # its first lanes are those of the vector before too
    last_e, last_u, last_q = terms(x, t, start + last, constants)
    total = lost = u = R = widened(zero)
    ahead = 2 * classes if classes <= NEXT // BYTES * step else 0
    for lo in range(0, whole, 2 * FOLD * step):
        hi = min(lo + 2 * FOLD * step, whole)
        if (lo <= peak) & (peak < hi):
            part, part_u, part_R = group(x, t, start, lo, hi, peak, constants, es, ahead)
        else:
            part, part_u, part_R = group(x, t, start, lo, hi, None, constants, es, ahead)
        total, lost = grown(total, lost, part, step)
        u = u + widened(part_u)
        R = R + widened(part_R)
    put(es, last, last_e)
    first_new = step - (classes - whole)
    rest = where_not(peak - last, where_from(first_new, last_e, zero), zero)
    rest_R = where_not(peak - last, where_from(first_new, last_q, zero), zero)
    s = _vector.total(total) + _vector.total(lost + widened(rest))
    u = u + widened(where_from(first_new, last_u, zero))
    return s, _vector.total(u), _vector.total(R + widened(rest_R))


@inlined
def group(x, t, start, lo, hi, peak, constants, es, ahead):
    """The sums over some whole vectors of classes, and over all of them if `peak` is None; and fetch what lies `ahead`."""
    s = u = R = filled(x, 0.0)
    step = lanes_of(x)
    for j in range(lo, hi, step):
        if ahead > 0:
            for i in range(start + j + ahead, start + j + ahead + step, step * LINE // BYTES):
                prefetch_far(x, i)
                prefetch_far(t, i)
        e, lost, q = terms(x, t, start + j, constants)
        put(es, j, e)
        s, R = without(peak, j, s + e, s), without(peak, j, R + q, R)
        u = u + lost
    return s, u, R


@inlined
def terms(x, t, at, constants):
    """The terms of the sums: the exponentials, q (m - x), and q."""
    unknown, top, keep, even = constants
    logits, q = _vector.load(x, at), _vector.load(t, at) * keep + even
    return exp_kept(logits, unknown), q * (top - logits), q


@inlined
def without(peak, j, grown, before):
    """What a sum has `grown` to by classes from j on, and what it was `before` in the lane of the peak."""
    return grown if peak is None else where_not(peak - j, grown, before)


@optional
def write(out, to, finish, es, t, classes, factor, flows):
    """Write the results of a row to element `to` of the output on: past the caches, if it `flows`."""
    target, step = pointer(out), short_lanes_of(t)
    if flows:
        first, last = lines(target, to, classes)
        store_part(target, to, first, finish(load_short(es, 0), load_short(t, to), factor))
        for j in range(first, last, step):
            stream(target, to + j, finish(load_short(es, j), load_short(t, to + j), factor))
    else:
        last = classes - classes % step
        for j in range(0, last, step):
            _vector.store(target, to + j, finish(load_short(es, j), load_short(t, to + j), factor))
    rest = classes - last
    store_part(target, to + last, rest, finish(load_part(es, last, rest), load_part(t, to + last, rest), factor))


@optional
def correct(out, to, finish, es, t, classes, factor, flows, peak, number):
    """Put a number in the place of one class, by a whole line if that went past the caches."""
    target, step = pointer(out), short_lanes_of(t)
    first, last = lines(target, to, classes)
    if flows & (first <= peak) & (peak < last):
        j = peak - (peak - first) % step
        results = finish(load_short(es, j), load_short(t, to + j), factor)
        stream(target, to + j, where_not(peak - j, results, filled_short(t, number)))
    else:
        target[to + peak] = number


@inlined
def block(
    point, curvature, finish, start, stop, x, labels, expected, probabilities, weight, vector, upstream, classes, inner,
    lanes, keep, even, ignored, scale, values, out,
):  # fmt: skip
    """Work on the rows start to stop, and return the sum of their values."""
    T = x.dtype.type
    t = pointer(probabilities)
    by_way = flows = False  # whether the exponentials are elsewhere than the results will be
    if out is not None:
        flows = streams(out, x, ROWS) & (classes * x.itemsize <= FLOWING)
        by_way = flows | near(out, x)
    memory = aligned(classes if by_way else 1, x)
    room = uncounted(memory)
    one = stack_buffer(x.dtype)
    u, S, ratio = stack_buffer(WIDE), stack_buffer(WIDE), stack_buffer(WIDE)
    for i in range(start, stop):
        lo, r = i * classes, i - start
        k = scale
        if upstream.size > 0:
            k = product(np.float64(upstream[i]), scale)
        row = room
        if out is not None and not by_way:
            row = out[lo:]
        es = pointer(row)
        m, peak, reach = highest(pointer(x), lo, classes)
        o, u[r], R = sums(pointer(x), t, lo, classes, peak, m, keep, even, kept(out, es))
        S[r] = R + np.float64(probabilities[lo + peak] * keep + even)
        e = np.float64(exponential_of(pointer(x), lo, classes, peak, one) if out is None else es[peak])
        ratio[r] = o / e
        d = factor = 0.0
        moderate = fits = reach <= T(MODERATE)
        if out is not None and moderate:
            _, d = point(u[r] + S[r] * log1p(ratio[r]))
            factor = k * d * S[r] / (e + o)
            fits = normal(factor, k * d * S[r], x)
        if fits and out is not None:
            slopes = T(factor), T(k * d) * keep, T(k * d) * even
            write(out, lo, finish, es, t, classes, slopes, flows)
            if ratio[r] < 1.0:
                correct(out, lo, finish, es, t, classes, slopes, flows, peak, T(k * d * (R - S[r] * (o / (e + o)))))
        elif not fits:
            xs, ts, gs = x[lo : lo + classes], probabilities[lo : lo + classes], view(out, lo, lo + classes)
            m, reach = bounds_of(xs)
            s, gaps, mass, R = careful_sums(xs, ts, weight, m, reach, keep, even, gs)
            if not moderate:  # else the value is there already, and the same without a gradient
                u[r], S[r], ratio[r] = gaps, mass, s
            if out is not None:
                rest = log1p(s)
                _, d = point(gaps + product(mass, rest))
                careful_grad(
                    gs, xs, ts, None, weight, -1, m, s, 1.0 / (1.0 + s), rest, mass, R, 0.0, keep, even, k * d, None
                )  # fmt: skip
    if flows:
        settle()
    for r in range(stop - start):
        ratio[r] = log1p(ratio[r])
    total = 0.0
    error = 0.0
    for r in range(stop - start):
        value, _ = point(u[r] + product(S[r], ratio[r]))
        total, error = compensated(total, error, value)
        if values.size > 0:
            values[start + r] = T(value)
    alive(memory)
    return closed(total, error)


def grad(e, t, factor):
    slope, keep, even = factor
    return e * slope - (t * keep + even)


FINISH = {"grad": grad}
