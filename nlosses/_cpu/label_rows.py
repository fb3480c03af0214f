"""Classwise driver for class indices and rows of many classes: value and gradient, without smoothing.

As `labels` has it for tiles: one pass over the logits takes their exponentials as they are, to where the gradient will be, or to
a buffer if the gradient takes the place of the logits or goes past the caches.  A row with a large logit goes the way of `rows`.
"""

from __future__ import annotations

import numpy as np

from .._scalar import log1p, product
from .._softmax import gap
from . import _vector
from ._blocks import LINE, aligned, bounds_of, closed, compensated, near, view
from ._jit import inlined, jitable
from ._scalar import exp_number
from ._streams import lines, streams
from ._vector import (
    BYTES, farther, farthest, filled, lanes_of, larger, load_part, load_short, pointer, prefetch, prefetch_to_write, settle,
    short_lanes_of, smaller, store_part, stream, where_equal, where_from, widened,
)  # fmt: skip
from .labels import LEAST, MODERATE, MOST
from .rows import clear
from .rows import per_block as rows_per_block
from .rows import sums as careful_sums
from .tiles import FOLD

#: Bytes that are fetched ahead.
AHEAD = 4096


@inlined
def sums(x, start, classes, es, to):
    """The largest exponential of a row, the sum of all others, and the largest magnitude of a logit.

    The exponentials go to `es`, from element `to` on.
    """
    step = lanes_of(x)
    zero = filled(x, 0.0)
    whole = classes - classes % step
    ahead = AHEAD // BYTES * step
    last = classes - step  # its first lanes are those of the vector before too
    last_x = _vector.load(x, start + last)
    last_e = exp_number(last_x)
    reach = farther(last_x, zero)
    largest = where_from(step - (classes - whole), last_e, zero)
    total = lost = widened(zero)
    for lo in range(0, whole, FOLD * step):
        part = zero
        for j in range(lo, min(lo + FOLD * step, whole), step):
            logits = _vector.load(x, start + j)
            for i in range(j + ahead, j + ahead + step, step * LINE // BYTES):
                prefetch(x, start + i)
                prefetch_to_write(es, to + i)
            e = exp_number(logits)
            _vector.store(es, to + j, e)
            reach = farther(logits, reach)
            part = part + smaller(largest, e)
            largest = larger(e, largest)
        wide = widened(part)
        grown = total + wide
        added = grown - total
        lost = lost + ((total - (grown - added)) + (wide - added))
        total = grown
    _vector.store(es, to + last, last_e)
    top = _vector.greatest(largest)
    ties = _vector.total(where_equal(largest, top, filled(x, 1.0), zero))
    rest = where_equal(largest, top, zero, largest)
    s = _vector.total(total) + _vector.total(lost + widened(rest)) + np.float64(top) * (np.float64(ties) - 1.0)
    return np.float64(top), s, farthest(reach)


@jitable
def per_block(positions, classes, lanes):
    """Rows of one unit of parallel work: of many large ones several, for each unit has a row of memory of its own."""
    return max(rows_per_block(positions, classes, lanes), min(8, positions // 64))


@inlined
def block(
    point, curvature, finish, start, stop, x, labels, probabilities, weight, vector, upstream, classes, inner, lanes, keep,
    even, ignored, scale, values, out,
):  # fmt: skip
    """Work on the rows start to stop, and return the sum of their values."""
    T = x.dtype.type
    flows = False
    in_place = False  # whether the exponentials are where the results will be
    if out is not None:
        flows = streams(out, x)
        in_place = not (flows | near(out, x))
    row = aligned(1 if in_place else classes, x)
    total = 0.0
    error = 0.0
    for i in range(start, stop):
        lo = i * classes
        xs = x[lo : lo + classes]
        y = labels[i]
        if y == ignored:  # its logits are not even looked at
            if values.size > 0:
                values[i] = T(0)
            clear(view(out, lo, lo + classes))
            continue
        es = row
        if out is not None and in_place:
            es = out[lo : lo + classes]
        w = np.float64(weight[y])
        k = scale * w
        if upstream.size > 0:
            k = product(np.float64(upstream[i]), k)
        top, s, reach = sums(pointer(x), lo, classes, pointer(es), 0)
        if (reach <= T(MODERATE)) & ((k == 0.0) | ((abs(k) >= LEAST) & (abs(k) <= MOST))):
            e = np.float64(es[y])
            o = s + (top - e)
            surprisal = log1p(o / e)
        else:
            m, _ = bounds_of(xs)
            s, _, _, _ = careful_sums(xs, None, weight, m, None, T(1), None, es)
            top = 1.0
            o = s + (top - np.float64(es[y]))
            surprisal = gap(np.float64(xs[y]), np.float64(m)) + log1p(s)
        value, slope = point(product(w, surprisal))
        total, error = compensated(total, error, value)
        if values.size > 0:
            values[i] = T(value)
        if out is not None:
            es[y] = T(-o)
            factor = T(k * slope / (top + s))
            if flows:
                flow_products(finish, pointer(es), factor, pointer(out), lo, classes)
            else:
                gs = out[lo : lo + classes]
                for j in range(classes):
                    gs[j] = finish(es[j], factor)
    if flows:
        settle()
    return closed(total, error)


@inlined
def flow_products(finish, es, factor, target, to, n):
    """Write the results of a row past the caches."""
    first, last = lines(target, to, n)
    store_part(target, to, first, finish(load_part(es, 0, first), factor))
    for k in range(first, last, short_lanes_of(target)):
        stream(target, to + k, finish(load_short(es, k), factor))
    store_part(target, to + last, n - last, finish(load_part(es, last, n - last), factor))


def grad(e, factor):
    return e * factor


FINISH = {"grad": grad}
