"""Classwise driver for class indices and rows of many classes: value and gradient, without smoothing.

As `labels` has it for tiles: one pass over the logits takes their exponentials as they are.  A row with a large logit goes the
way of `rows`.
"""

from __future__ import annotations

import numpy as np

from .._scalar import exp_moderate, log1p, product
from .._softmax import gap
from . import _vector
from ._blocks import LINE, bounds_of, closed, compensated, fetched, near, placed, put, view
from ._jit import inlined
from ._vector import BYTES, filled, lanes_of, larger, pointer, prefetch, smaller, where_equal, where_from, widened
from .labels import LEAST, MODERATE, MOST
from .rows import clear, per_block  # noqa: F401  a driver has `block`, `per_block` and `FINISH`
from .rows import sums as careful_sums
from .tiles import FOLD

#: Bytes that are fetched ahead.
AHEAD = 4096


@inlined
def sums(x, start, classes, out):
    """The largest logit of a row and its exponential, the sum of all other exponentials, and whether all logits are moderate.

    The exponentials go to `out`.
    """
    step = lanes_of(x)
    zero = filled(x, 0.0)
    whole = classes - classes % step
    ahead = AHEAD // BYTES * step
    last = start + classes - step  # its first lanes are those of the vector before too
    last_x = _vector.load(x, last)
    last_e = exp_moderate(last_x)
    most, least = larger(last_x, filled(x, -np.inf)), smaller(last_x, filled(x, np.inf))
    largest = where_from(step - (classes - whole), last_e, zero)
    total = lost = widened(zero)
    for lo in range(0, whole, FOLD * step):
        part = zero
        for j in range(start + lo, start + min(lo + FOLD * step, whole), step):
            xs = _vector.load(x, j)
            for i in range(j, j + step, step * LINE // BYTES):
                prefetch(x, i + ahead)
                fetched(out, i + ahead)
            e = exp_moderate(xs)
            put(out, j, e)
            most, least = larger(xs, most), smaller(xs, least)
            part = part + smaller(largest, e)
            largest = larger(e, largest)
        wide = widened(part)
        grown = total + wide
        added = grown - total
        lost = lost + ((total - (grown - added)) + (wide - added))
        total = grown
    put(out, last, last_e)
    m = _vector.greatest(most)
    top = _vector.greatest(largest)
    ties = _vector.total(where_equal(largest, top, filled(x, 1.0), zero))
    rest = where_equal(largest, top, zero, largest)
    s = _vector.total(total) + _vector.total(lost + widened(rest)) + np.float64(top) * (np.float64(ties) - 1.0)
    return m, np.float64(top), s, (m <= MODERATE) & (_vector.least(least) >= -MODERATE)


@inlined
def block(
    point, curvature, finish, start, stop, x, labels, probabilities, weight, vector, upstream, classes, inner, lanes, keep,
    even, ignored, scale, values, out,
):  # fmt: skip
    """Work on the rows start to stop, and return the sum of their values."""
    T = x.dtype.type
    total = 0.0
    error = 0.0
    for i in range(start, stop):
        lo = i * classes
        xs = x[lo : lo + classes]
        gs = view(out, lo, lo + classes)
        y = labels[i]
        if y == ignored:  # its logits are not even looked at
            if values.size > 0:
                values[i] = T(0)
            clear(gs)
            continue
        w = np.float64(weight[y])
        k = scale * w
        if upstream.size > 0:
            k = product(np.float64(upstream[i]), k)
        x_own = xs[y]
        moderate = (k == 0.0) | ((abs(k) >= LEAST) & (abs(k) <= MOST))
        if out is not None:
            if moderate and near(gs, xs):  # its exponentials may take the place of the logits
                moderate = bounds_of(xs)[1] <= T(MODERATE)
        m, top, s = T(0), 1.0, 0.0
        if moderate:
            m, top, s, moderate = sums(pointer(x), lo, classes, placed(out))
        if not moderate:
            m, _ = bounds_of(xs)
            s, _, _, _ = careful_sums(xs, None, weight, m, None, T(1), None, gs)
            top = 1.0
        value, slope = point(product(w, gap(np.float64(x_own), np.float64(m)) + log1p(s / top)))
        total, error = compensated(total, error, value)
        if values.size > 0:
            values[i] = T(value)
        if out is not None:
            inverse = 1.0 / (top + s)
            complement = s * inverse if x_own == m else 1.0 - np.float64(gs[y]) * inverse
            finish(gs, y, T(k * slope * inverse), T(-(k * slope) * complement))
    return closed(total, error)


def grad(gs, y, factor, at_label):
    for j in range(gs.size):
        gs[j] = factor * gs[j]
    gs[y] = at_label


FINISH = {"grad": grad}
