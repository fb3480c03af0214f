"""What `tiles` makes of a tile once its sums are known, with a lane for each position; as in `rows`.

`es` holds exp(x - m) and becomes the result, `at` is where in the flat tile the labels are, and `k` and `k2` are the factors of
du/dx and of its square.
"""

from __future__ import annotations

import numpy as np

from .._scalar import product
from .._softmax import coefficient, gap, slope, slope_at_peak, spread
from ._blocks import WIDE, pick, stack_buffer
from ._jit import inlined


def grad(es, xs, ts, vs, weight, y, at, m, s, r, rest, S, R, own, keep, even, k, k2):
    T = es.dtype.type
    classes, lanes = es.shape
    factor, narrow_k, at_label, at_peak = (
        stack_buffer(es.dtype), stack_buffer(es.dtype), stack_buffer(es.dtype), stack_buffer(es.dtype)
    )  # fmt: skip
    for p in range(lanes):
        factor[p] = T(k[p] * S[p]) * r[p]
        narrow_k[p] = T(k[p])
        at_peak[p] = T(k[p] * slope_at_peak(R[p], S[p], np.float64(s[p]), np.float64(r[p])))
    elements = es.reshape(es.size)
    if ts is None:
        for p in range(lanes):
            at_label[p] = elements[at[p]]
        for p in range(lanes):
            q = own[p] + coefficient(weight[y[p]], None, keep, even)
            usual = T(k[p] * slope(S[p], q, at_label[p] * np.float64(r[p])))
            at_label[p] = at_peak[p] if (s[p] < T(1)) & (at_label[p] == T(1)) else usual
    for c in range(classes):
        line = es[c]
        if even is None:
            for p in range(lanes):
                line[p] = factor[p] * line[p]
        else:
            w = weight[c]
            for p in range(lanes):
                q = coefficient(w, pick(ts, (c, p)), keep, even)
                usual = slope(factor[p], narrow_k[p] * q, line[p])
                line[p] = at_peak[p] if (s[p] < T(1)) & (line[p] == T(1)) else usual
    if ts is None:
        for p in range(lanes):
            elements[at[p]] = at_label[p]


@inlined
def slope_of(c, p, e, ts, w, y, r, S, own, keep, even):
    """du/dx of class c in lane p, without the care for the maximum that a gradient needs."""
    T = type(e)
    q = coefficient(w, pick(ts, (c, p)), keep, even) + (T(own[p]) if c == y[p] else T(0))
    return slope(T(S[p]), q, e * r[p])


def hessian(es, xs, ts, vs, weight, y, at, m, s, r, rest, S, R, own, keep, even, k, k2):
    T = es.dtype.type
    for c in range(es.shape[0]):
        line = es[c]
        w = weight[c]
        for p in range(es.shape[1]):
            e = line[p]
            h = T(k[p] * S[p]) * spread(e, s[p], r[p])
            if k2 is not None:
                g = slope_of(c, p, e, ts, w, y, r, S, own, keep, even)
                h += T(k2[p]) * (g * g)
            line[p] = h


def hvp(es, xs, ts, vs, weight, y, at, m, s, r, rest, S, R, own, keep, even, k, k2):
    T = es.dtype.type
    dot, along, at_peak = stack_buffer(WIDE), stack_buffer(WIDE), stack_buffer(es.dtype)
    for p in range(es.shape[1]):
        dot[p] = 0.0
        along[p] = 0.0
        at_peak[p] = T(0)
    for c in range(es.shape[0]):
        line = es[c]
        for p in range(es.shape[1]):
            at_peak[p] = vs[c, p] if (s[p] < T(1)) & (line[p] == T(1)) else at_peak[p]
    for c in range(es.shape[0]):
        line = es[c]
        w = weight[c]
        for p in range(es.shape[1]):
            v = vs[c, p]
            dot[p] += np.float64(line[p] * r[p]) * (v - at_peak[p])
            if k2 is not None:
                along[p] += slope_of(c, p, line[p], ts, w, y, r, S, own, keep, even) * v
    for c in range(es.shape[0]):
        line = es[c]
        w = weight[c]
        for p in range(es.shape[1]):
            e = line[p]
            h = T(k[p] * S[p]) * (e * r[p]) * ((vs[c, p] - at_peak[p]) - T(dot[p]))
            if k2 is not None:
                h += T(k2[p] * along[p]) * slope_of(c, p, e, ts, w, y, r, S, own, keep, even)
            line[p] = h


def target_grad(es, xs, ts, vs, weight, y, at, m, s, r, rest, S, R, own, keep, even, k, k2):
    T = es.dtype.type
    for c in range(es.shape[0]):
        w = weight[c]
        for p in range(es.shape[1]):
            es[c, p] = T(k[p]) * keep * product(w, gap(xs[c, p], m[p]) + rest[p])


def softmax(es, xs, ts, vs, weight, y, at, m, s, r, rest, S, R, own, keep, even, k, k2):
    for c in range(es.shape[0]):
        for p in range(es.shape[1]):
            es[c, p] = es[c, p] * r[p]


def log_softmax(es, xs, ts, vs, weight, y, at, m, s, r, rest, S, R, own, keep, even, k, k2):
    for c in range(es.shape[0]):
        for p in range(es.shape[1]):
            es[c, p] = -(gap(xs[c, p], m[p]) + rest[p])


FINISH = {f.__name__: f for f in (grad, hessian, hvp, target_grad, softmax, log_softmax)}
