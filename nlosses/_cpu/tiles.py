"""Classwise driver for tiles: some positions side by side, and the vector loops run across them.

For few classes, and for class axes that others follow.  A tile is a scratch array (classes, lanes) in the first-level cache:
loading it transposes, whatever the layout is, and as the input is read before the result is written, they may be the same.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from .._scalar import log1p, maximum, product
from .._softmax import coefficient, gap, lifted, others, slope, slope_at_peak, spread
from ._blocks import add, as_in, closed, compensated, pick, total_of, weighted
from ._jit import jitable

#: Positions of one unit of parallel work, in whole tiles.
BLOCK = 2048
#: Classes whose terms are added before the sum goes on: no sum is longer than this or their number.
FOLD = 64


def lanes_for(classes: int, itemsize: int) -> int:
    """Width of a tile: as wide as keeps it in the first-level cache, for runs that are long where the memory is strided."""
    for lanes in (256, 128, 64):
        if classes * lanes * itemsize <= 16384:
            return lanes
    return 64 if classes <= 1024 else 16


@jitable
def load(tile, data, first, count, inner):
    """tile[c, p] = the element of class c at position first + p; positions run over (N, inner) in data (N, classes, inner)."""
    classes = tile.shape[0]
    if inner == 1:
        for p in range(count):
            row = data[(first + p) * classes : (first + p + 1) * classes]
            for c in range(classes):
                tile[c, p] = row[c]
        return
    p = 0
    while p < count:
        n, d = divmod(first + p, inner)
        run = min(count - p, inner - d)
        for c in range(classes):
            lo = (n * classes + c) * inner + d
            source = data[lo : lo + run]
            line = tile[c, p : p + run]
            for k in range(run):
                line[k] = source[k]
        p += run


@jitable
def store(tile, data, first, count, inner):
    """The inverse of `load`."""
    classes = tile.shape[0]
    if inner == 1:
        for p in range(count):
            row = data[(first + p) * classes : (first + p + 1) * classes]
            for c in range(classes):
                row[c] = tile[c, p]
        return
    p = 0
    while p < count:
        n, d = divmod(first + p, inner)
        run = min(count - p, inner - d)
        for c in range(classes):
            lo = (n * classes + c) * inner + d
            target = data[lo : lo + run]
            line = tile[c, p : p + run]
            for k in range(run):
                target[k] = line[k]
        p += run


@jitable
def tops(tile, m):
    for p in range(m.size):
        m[p] = tile[0, p]
    for c in range(1, tile.shape[0]):
        line = tile[c]
        for p in range(m.size):
            m[p] = maximum(m[p], line[p])


@jitable
def sums(tile, probabilities, weight, m, keep, even, s, n, u, S, R):
    """Sums over the classes as in `rows.sums`, a lane each; `tile` then holds exp(x - m)."""
    T = tile.dtype.type
    lanes = m.size
    part = np.zeros(lanes, tile.dtype)
    for c in range(tile.shape[0]):
        line = tile[c]
        w = pick(weight, c)
        for p in range(lanes):
            x = line[p]
            e = lifted(x, m[p])
            below = x != m[p]
            part[p] += e if below else T(0)
            n[p] += T(0) if below else T(1)
            line[p] = e
            if even is not None:
                q = coefficient(w, pick(probabilities, (c, p)), keep, even)
                u[p] += np.float64(product(q, gap(x, m[p])))
                S[p] += np.float64(q)
                R[p] += np.float64(q if below else T(0))
        if c % FOLD == FOLD - 1:
            for p in range(lanes):
                s[p] += np.float64(part[p])
                part[p] = T(0)
    for p in range(lanes):
        s[p] += np.float64(part[p])


# --- what is made of a tile, once its sums are known -------------------------------------------------------------------
# As in `rows`, with a lane for each position: `tile` holds exp(x - m), or still x for the functions that are not in KEEPS.


def grad(tile, probabilities, vectors, weight, y, m, s, r, rest, S, R, own, keep, even, k, k2):
    T = tile.dtype.type
    lanes = m.size
    e_own = np.ones(lanes, tile.dtype)
    if probabilities is None:
        for p in range(lanes):
            e_own[p] = tile[y[p], p]
    factor = np.empty(lanes, tile.dtype)
    for p in range(lanes):
        factor[p] = T(k[p] * S[p]) * r[p]
    peak = np.full(lanes, -1)
    if even is None:
        for p in range(lanes):
            peak[p] = y[p] if (s[p] < T(1)) & (e_own[p] == T(1)) else -1
    else:
        for c in range(tile.shape[0]):
            line = tile[c]
            for p in range(lanes):
                peak[p] = c if (s[p] < T(1)) & (line[p] == T(1)) else peak[p]
    for c in range(tile.shape[0]):
        line = tile[c]
        w = pick(weight, c)
        for p in range(lanes):
            q = coefficient(w, pick(probabilities, (c, p)), keep, even)
            line[p] = slope(factor[p], q * T(k[p]), line[p])
    for p in range(lanes):
        if probabilities is None:
            q = coefficient(pick(weight, y[p]), None, keep, even)
            share = e_own[p] * r[p]
            tile[y[p], p] = T(k[p] * slope(S[p], own[p] + q, share))
        if peak[p] >= 0:
            tile[peak[p], p] = T(k[p] * slope_at_peak(R[p], S[p], np.float64(s[p]), np.float64(r[p])))


@jitable
def squared_slope(c, p, e, probabilities, w, y, r, S, own, keep, even):
    T = type(e)
    q = coefficient(w, pick(probabilities, (c, p)), keep, even)
    return slope(T(S[p]), q + (T(own[p]) if c == y[p] else T(0)), e * r[p])


def hessian(tile, probabilities, vectors, weight, y, m, s, r, rest, S, R, own, keep, even, k, k2):
    T = tile.dtype.type
    for c in range(tile.shape[0]):
        line = tile[c]
        w = pick(weight, c)
        for p in range(m.size):
            e = line[p]
            h = T(k[p] * S[p]) * spread(e, s[p], r[p])
            if k2 is not None:
                g = squared_slope(c, p, e, probabilities, w, y, r, S, own, keep, even)
                h += T(k2[p]) * (g * g)
            line[p] = h


def hvp(tile, probabilities, vectors, weight, y, m, s, r, rest, S, R, own, keep, even, k, k2):
    T = tile.dtype.type
    dot = np.zeros(m.size)
    along = np.zeros(m.size)
    for c in range(tile.shape[0]):
        line = tile[c]
        v = vectors[c]
        w = pick(weight, c)
        for p in range(m.size):
            dot[p] += np.float64(line[p] * r[p]) * v[p]
            if k2 is not None:
                along[p] += squared_slope(c, p, line[p], probabilities, w, y, r, S, own, keep, even) * v[p]
    for c in range(tile.shape[0]):
        line = tile[c]
        v = vectors[c]
        w = pick(weight, c)
        for p in range(m.size):
            e = line[p]
            h = T(k[p] * S[p]) * (e * r[p]) * (v[p] - T(dot[p]))
            if k2 is not None:
                h += T(k2[p] * along[p]) * squared_slope(c, p, e, probabilities, w, y, r, S, own, keep, even)
            line[p] = h


def target_grad(tile, probabilities, vectors, weight, y, m, s, r, rest, S, R, own, keep, even, k, k2):
    T = tile.dtype.type
    for c in range(tile.shape[0]):
        line = tile[c]
        w = pick(weight, c)
        for p in range(m.size):
            u = gap(line[p], m[p]) + rest[p]
            line[p] = T(k[p] * keep) * weighted(w, u)


def softmax(tile, probabilities, vectors, weight, y, m, s, r, rest, S, R, own, keep, even, k, k2):
    for c in range(tile.shape[0]):
        line = tile[c]
        for p in range(m.size):
            line[p] = line[p] * r[p]


def log_softmax(tile, probabilities, vectors, weight, y, m, s, r, rest, S, R, own, keep, even, k, k2):
    for c in range(tile.shape[0]):
        line = tile[c]
        for p in range(m.size):
            line[p] = -(gap(line[p], m[p]) + rest[p])


FINISH = {f.__name__: f for f in (grad, hessian, hvp, target_grad, softmax, log_softmax)}
KEEPS = (grad, hessian, hvp, softmax)


def make(point, curvature, finish, keeps, labelled, probabilities, with_value, lanes, stamp):
    """The kernel of one loss and one derivative (`finish`, or None for the value alone)."""
    curved = curvature is not None

    def kernel(x, target, weight, vector, upstream, classes, inner, keep, even, ignored, scale, values, out):
        stamp  # noqa: B018  a closure cell, and so a part of the cache key
        T = x.dtype.type
        dtype = x.dtype
        positions = x.size // classes
        per_block = max(1, BLOCK // lanes) * lanes
        n_blocks = (positions + per_block - 1) // per_block
        partial = np.empty(n_blocks)
        kept = T(keep)
        spread_evenly = as_in(even, x)
        for b in prange(n_blocks):
            start = np.int64(b) * per_block
            tile = np.zeros((classes, lanes), dtype)
            if not keeps:
                scratch = np.empty((classes, lanes), dtype)
            ts = np.zeros((classes, lanes), dtype) if probabilities else None
            vs = None if vector is None else np.zeros((classes, lanes), dtype)
            y = np.zeros(lanes, np.int64)
            live = np.ones(lanes, np.bool_)
            m = np.empty(lanes, dtype)
            n = np.empty(lanes, dtype)
            r = np.empty(lanes, dtype)
            rest = np.empty(lanes, dtype)
            tail = np.empty(lanes, dtype)
            x_own = np.empty(lanes, dtype)
            s = np.empty(lanes)
            u = np.empty(lanes)
            S = np.empty(lanes)
            R = np.empty(lanes)
            own = np.zeros(lanes)
            k = np.empty(lanes)
            v = np.empty(lanes, dtype)
            k2 = np.empty(lanes) if curved else None
            total = 0.0
            error = 0.0
            for first in range(start, min(start + per_block, positions), lanes):
                count = min(lanes, positions - first)
                load(tile, x, first, count, inner)
                if ts is not None:
                    load(ts, target, first, count, inner)
                if vs is not None:
                    load(vs, vector, first, count, inner)
                if count < lanes:  # what earlier tiles left in the lanes beyond the end
                    tile[:, count:] = T(0)
                    live[count:] = False
                    y[count:] = 0
                if labelled:
                    for p in range(count):
                        label = target[first + p]
                        live[p] = label != ignored
                        y[p] = label if live[p] else 0
                        if not live[p]:  # its logits are not even looked at
                            tile[:, p] = T(0)
                        x_own[p] = tile[y[p], p]
                        own[p] = keep if weight is None else keep * weight[y[p]]
                s[:] = 0.0
                n[:] = T(0)
                u[:] = 0.0
                S[:] = 0.0
                R[:] = 0.0
                tops(tile, m)
                if keeps:
                    sums(tile, ts, weight, m, kept, spread_evenly, s, n, u, S, R)
                else:
                    scratch[:] = tile
                    sums(scratch, ts, weight, m, kept, spread_evenly, s, n, u, S, R)
                for p in range(lanes):
                    tail[p] = others(T(s[p]), n[p], m[p])
                    rest[p] = log1p(tail[p])
                    r[p] = T(1) / (T(1) + tail[p])
                for p in range(lanes):
                    if labelled:
                        S[p] += own[p]
                        R[p] += own[p] if x_own[p] != m[p] else 0.0
                        u[p] += product(own[p], np.float64(gap(x_own[p], m[p])))
                    u[p] += product(S[p], np.float64(rest[p]))
                    value, d = point(u[p])
                    v[p] = T(value)
                    k[p] = scale * d
                    if k2 is not None:
                        k2[p] = scale * curvature(u[p])
                if upstream is not None:
                    for p in range(count):
                        k[p] = product(np.float64(upstream[first + p]), k[p])
                        if k2 is not None:
                            k2[p] = product(np.float64(upstream[first + p]), k2[p])
                if labelled:
                    for p in range(lanes):
                        v[p] = v[p] if live[p] else T(0)
                        k[p] = k[p] if live[p] else 0.0
                if with_value:
                    if values is None:
                        part = 0.0
                        for p in range(count):
                            part = add(part, np.float64(v[p]))
                        total, error = compensated(total, error, part)
                    else:
                        for p in range(count):
                            values[first + p] = v[p]
                if finish is not None:
                    finish(tile, ts, vs, weight, y, m, tail, r, rest, S, R, own, kept, spread_evenly, k, k2)
                    store(tile, out, first, count, inner)
            partial[b] = closed(total, error)
        return total_of(partial)

    return kernel
