"""Classwise driver for rows: the class axis is the last one, and the vector loops run along it."""

from __future__ import annotations

import numpy as np

from .._scalar import MODERATE, exp_moderate, log1p, product
from .._softmax import coefficient, gap, lifted, others, slope, slope_at_peak, spread
from ._blocks import (
    BLOCK,
    CHUNK,
    add,
    bounds_of,
    closed,
    compensated,
    copy,
    destination,
    near,
    pick,
    stack_buffer,
    summed,
    view,
)
from ._indices import as_expected
from ._jit import inlined, jitable, optional


@inlined
def share(q, x, m, scale):
    """q (m - x), of which nothing is left where q is 0, even if x is infinite; with a `scale` no logit is."""
    return product(q, gap(x, m)) if scale is None else q * (m - x)


@inlined
def sums(xs, ts, weight, m, scale, keep, even, gs):
    """Sums over one row of exp(x - m), q (m - x), q, and q below the maximum; the exponentials go to `gs`."""
    T = xs.dtype.type
    s = 0.0
    lost = 0.0
    n = np.int64(0)
    u = 0.0
    S = 0.0
    R = 0.0
    es = stack_buffer(xs.dtype)
    by_way = True  # beside weights and probabilities, for those may lie anywhere
    if gs is not None and even is None:
        by_way = near(gs, xs)
    step = summed(xs)
    for lo in range(0, xs.size, step):
        hi = min(lo + step, xs.size)
        xc = xs[lo:hi]
        gc = destination(gs, lo, hi, es, by_way)
        tc = view(ts, lo, hi)
        wc = weight[lo:hi]
        sc = T(0)
        uc = T(0)
        Sc = T(0)
        Rc = T(0)
        nc = T(0)
        for j in range(hi - lo):
            x = xc[j]
            e = lifted(x, m, scale)
            top = x == m
            sc = add(sc, T(0) if top else e)
            nc = add(nc, T(1) if top else T(0))  # an integer would halve the width of the vectors
            if even is not None:
                q = coefficient(wc[j], pick(tc, j), keep, even)
                uc = add(uc, share(q, x, m, scale))
                Sc = add(Sc, q)
                Rc = add(Rc, T(0) if top else q)
            if gs is not None:
                gc[j] = e
        if gs is not None and by_way:
            copy(gs[lo:hi], es, hi - lo)
        s, lost = compensated(s, lost, np.float64(sc))
        n += np.int64(nc)
        u += uc
        S += Sc
        R += Rc
    return others(closed(s, lost), n, np.float64(m)), u, S, R


@inlined
def careful_sums(xs, ts, weight, m, reach, keep, even, gs):
    """`sums`, in the quick way if no logit is large."""
    if reach <= xs.dtype.type(MODERATE):
        return sums(xs, ts, weight, m, exp_moderate(-m), keep, even, gs)
    return sums(xs, ts, weight, m, None, keep, even, gs)


# --- what is made of a row, once its sums are known --------------------------------------------------------------------
# Each takes the result's row `gs`, which holds exp(x - m), the logits `xs` (which may be the same memory), the class
# probabilities `ts`, the vector's row `vs`, the class weights, the label y (-1 if none), the sums, and the factors k of
# du/dx and k2 of its square.


def grad(gs, xs, ts, vs, weight, y, m, s, r, rest, S, R, own, keep, even, k, k2):
    T = gs.dtype.type
    e_own = np.float64(gs[y])
    peak = np.int64(-1)
    if s < 1.0 and even is not None:
        peak = np.int64(0)
        while gs[peak] != T(1):  # with s < 1 there is just one
            peak += 1
    elif s < 1.0 and e_own == 1.0:
        peak = y
    factor = T(k * S * r)
    if even is None:
        for j in range(gs.size):
            gs[j] = factor * gs[j]
    else:
        for j in range(gs.size):
            gs[j] = slope(factor, T(k) * coefficient(weight[j], pick(ts, j), keep, even), gs[j])
    if ts is None:
        q = coefficient(weight[y], None, keep, even)
        gs[y] = T(k * slope(S, own + q, e_own * r))
    if peak >= 0:
        gs[peak] = T(k * slope_at_peak(R, S, s, r))


@inlined
def slope_of(j, e, ts, weight, y, r, S, own, keep, even):
    """du/dx of class j, without the care for the maximum that a gradient needs."""
    T = type(e)
    q = coefficient(weight[j], pick(ts, j), keep, even) + (T(own) if j == y else T(0))
    return slope(T(S), q, e * T(r))


def hessian(gs, xs, ts, vs, weight, y, m, s, r, rest, S, R, own, keep, even, k, k2):
    T = gs.dtype.type
    factor = T(k * S)
    for j in range(gs.size):
        e = gs[j]
        h = factor * spread(e, T(s), T(r))
        if k2 is not None:
            g = slope_of(j, e, ts, weight, y, r, S, own, keep, even)
            h += T(k2) * (g * g)
        gs[j] = h


def hvp(gs, xs, ts, vs, weight, y, m, s, r, rest, S, R, own, keep, even, k, k2):
    T = gs.dtype.type
    at_peak = T(0)  # p (v - p.v) would cancel where p is nearly 1; of v less its value there, nothing is lost
    if s < 1.0:
        peak = 0
        while gs[peak] != T(1):
            peak += 1
        at_peak = vs[peak]
    dot = 0.0
    along = 0.0
    for lo in range(0, gs.size, CHUNK):
        hi = min(lo + CHUNK, gs.size)
        gc = gs[lo:hi]
        vc = vs[lo:hi]
        part = T(0)
        for j in range(hi - lo):
            part = add(part, gc[j] * (vc[j] - at_peak))
        dot += part
    dot *= r
    factor = T(k * S * r)
    if k2 is not None:
        for j in range(gs.size):
            along += slope_of(j, gs[j], ts, weight, y, r, S, own, keep, even) * vs[j]
    for j in range(gs.size):
        h = factor * gs[j] * ((vs[j] - at_peak) - T(dot))
        if k2 is not None:
            h += T(k2 * along) * slope_of(j, gs[j], ts, weight, y, r, S, own, keep, even)
        gs[j] = h


def target_grad(gs, xs, ts, vs, weight, y, m, s, r, rest, S, R, own, keep, even, k, k2):
    T = gs.dtype.type
    for j in range(gs.size):
        gs[j] = T(k) * keep * product(weight[j], gap(xs[j], m) + T(rest))


def softmax(gs, xs, ts, vs, weight, y, m, s, r, rest, S, R, own, keep, even, k, k2):
    T = gs.dtype.type
    for j in range(gs.size):
        gs[j] = gs[j] * T(r)


def log_softmax(gs, xs, ts, vs, weight, y, m, s, r, rest, S, R, own, keep, even, k, k2):
    T = gs.dtype.type
    for j in range(gs.size):
        gs[j] = -(gap(xs[j], m) + T(rest))


FINISH = {f.__name__: f for f in (grad, hessian, hvp, target_grad, softmax, log_softmax)}


@optional
def bent(curvature, u, k):
    """k times the curvature, and None where there is none."""
    return k * curvature(u)


@optional
def clear(gs):
    for j in range(gs.size):
        gs[j] = gs.dtype.type(0)


@jitable
def per_block(positions, classes, lanes):
    """Rows of one unit of parallel work."""
    return max(1, BLOCK // classes)


@inlined
def block(
    point, curvature, finish, start, stop, x, labels, expected, probabilities, weight, vector, upstream, classes, inner,
    lanes, keep, even, ignored, scale, values, out,
):  # fmt: skip
    """Work on the rows start to stop, and return the sum of their values."""
    if not as_expected(labels, start, stop, classes, ignored, expected):
        return np.nan
    T = x.dtype.type
    total = 0.0
    error = 0.0
    for i in range(start, stop):
        lo = i * classes
        hi = lo + classes
        xs = x[lo:hi]
        gs = view(out, lo, hi)
        ts = view(probabilities, lo, hi)
        y = np.int64(-1)
        if labels is not None:
            y = labels[i]
            if y == ignored:  # its logits are not even looked at
                if values.size > 0:
                    values[i] = T(0)
                clear(gs)
                continue
        m, reach = bounds_of(xs)
        x_own = m
        if labels is not None:
            x_own = xs[y]
        s, u, S, R = careful_sums(xs, ts, weight, m, reach, keep, even, gs)
        rest = log1p(s)
        own = 0.0
        if labels is not None:
            own = np.float64(weight[y]) * keep
            S += own
            R += own if x_own != m else 0.0
            u += product(own, gap(np.float64(x_own), np.float64(m)))
        u += product(S, rest)
        value, d = point(u)
        total, error = compensated(total, error, value)
        if values.size > 0:
            values[i] = T(value)
        if out is not None:
            k = scale
            if upstream.size > 0:
                k = product(np.float64(upstream[i]), scale)
            k2 = bent(curvature, u, k)
            finish(gs, xs, ts, view(vector, lo, hi), weight, y, m, s, 1.0 / (1.0 + s), rest, S, R, own, keep, even, k * d, k2)
    return closed(total, error)
