"""Classwise driver for tiles: some positions side by side, and the vector loops run across them.

For few classes, and for class axes that others follow.  A tile is a scratch array (classes, lanes) in the first-level cache:
loading it transposes, whatever the layout is, and as the input is read before the result is written, they may be the same.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from .._scalar import MODERATE, exp_moderate, log1p, product
from .._softmax import coefficient, gap, lifted, others
from . import _vector
from ._blocks import WIDE, add, aligned, closed, compensated, copy, pick, stack_buffer
from ._indices import as_expected
from ._jit import inlined, jitable, optional
from ._tile_results import FINISH  # noqa: F401  a driver has `block`, `per_block` and what to make of the sums
from ._transpose import join, split
from ._vector import choice, filled_short, load_short, short_lanes_of, widened

#: Positions of one unit of parallel work, about.
BLOCK = 2048
INDEX = np.dtype(np.int64)
PLACE = np.dtype(np.uint64)  # whether an index with a sign is negative is asked each time
#: Classes whose terms are added in the caller's precision, each for half an ulp at most, before the sum goes on in float64.
FOLD = 8


@lru_cache(maxsize=64)
def lanes_for(classes: int, positions: int, inner: int, itemsize: int) -> int:
    """Width of a tile: of the first-level cache for rows, and wider for long runs where the memory is strided.

    Up to 1024 classes it is a multiple of the vectors of `labels`.
    """
    room = 16384 if inner == 1 else 65536
    widest = 64 if classes <= 1024 else 16
    for lanes in (256, 128):
        if classes * lanes * itemsize <= room:
            widest = lanes
            break
    return min(widest, -(-max(positions, 1) // 32) * 32)


@jitable
def load(tile, data, first, count, inner):
    """tile[c, p] = the element of class c at position first + p; positions run over (N, inner) in data (N, classes, inner).

    Lanes beyond `count` get zeros.
    """
    T = tile.dtype.type
    classes, lanes = tile.shape
    if inner == 1:
        split(tile, data[first * classes : (first + count) * classes], count)
    else:
        p = 0
        while p < count:
            n = (first + p) // inner
            d = (first + p) - n * inner
            run = min(count - p, inner - d)
            for c in range(classes):
                copy(tile[c, p:], data[(n * classes + c) * inner + d :], run)
            p += run
    for c in range(classes):
        for p in range(count, lanes):
            tile[c, p] = T(0)


@jitable
def store(tile, data, first, count, inner):
    """The inverse of `load`."""
    classes = tile.shape[0]
    if inner == 1:
        join(tile, data[first * classes : (first + count) * classes], count)
    else:
        p = 0
        while p < count:
            n = (first + p) // inner
            d = (first + p) - n * inner
            run = min(count - p, inner - d)
            for c in range(classes):
                copy(data[(n * classes + c) * inner + d :], tile[c, p:], run)
            p += run


@jitable
def bounds(xs, m, low):
    """Largest (m) and smallest logit of each lane; whether all of them are moderate.

    NaN counts for nothing, unless it stands first, but gets into the sums all the same.
    """
    T = xs.dtype.type
    classes, lanes = xs.shape
    for p in range(lanes):
        m[p] = xs[0, p]
        low[p] = xs[0, p]
    for c in range(1, classes):
        line = xs[c]
        for p in range(lanes):
            m[p] = line[p] if line[p] > m[p] else m[p]
            low[p] = line[p] if line[p] < low[p] else low[p]
    beyond = 0
    for p in range(lanes):
        beyond |= not ((m[p] <= T(MODERATE)) & (low[p] >= T(-MODERATE)))
    return beyond == 0


@inlined
def sums(xs, ts, weight, m, keep, even, es, part, s, n, u, S, R):
    """Sums over the classes as in `rows.sums`, a lane each; the exponentials go to `es`."""
    T = xs.dtype.type
    classes, lanes = xs.shape
    for p in range(lanes):
        part[p] = T(0)
        s[p] = 0.0
        n[p] = T(0)
        u[p] = 0.0
        S[p] = 0.0
        R[p] = 0.0
    for c in range(classes):
        line = xs[c]
        es_c = es[c]
        w = weight[c]
        for p in range(lanes):
            x = line[p]
            e = lifted(x, m[p], None)
            top = x == m[p]
            part[p] += T(0) if top else e
            n[p] += T(1) if top else T(0)
            es_c[p] = e
            if even is not None:
                q = coefficient(w, pick(ts, (c, p)), keep, even)
                u[p] += np.float64(product(q, gap(x, m[p])))
                S[p] += np.float64(q)
                R[p] += np.float64(T(0) if top else q)
        if c % FOLD == FOLD - 1 or c == classes - 1:
            for p in range(lanes):
                s[p] += np.float64(part[p])
                part[p] = T(0)


@inlined
def moderate_sums(xs, ts, weight, m, scale, keep, even, es, s, n, u, S, R):
    """The same of moderate logits, in explicit vectors, so that nothing goes to memory and back for each class."""
    classes, lanes = xs.shape
    zero = filled_short(xs, 0.0)
    for g in range(0, lanes, short_lanes_of(xs)):
        top, lift, count = load_short(m, g), load_short(scale, g), zero
        s_all, u_all, S_all, R_all = widened(zero), widened(zero), widened(zero), widened(zero)
        for first in range(0, classes, FOLD):
            s_part, u_part, S_part, R_part = zero, zero, zero, zero
            for c in range(first, min(first + FOLD, classes)):
                x = load_short(xs, c * lanes + g)
                peak = x == top
                e = exp_moderate(x) * lift
                s_part = s_part + choice(peak, zero, e)
                count = choice(peak, count + 1.0, count)
                _vector.store(es, c * lanes + g, choice(peak, 1.0, e))
                if even is not None:
                    q = (load_short(ts, c * lanes + g) * keep + even) * weight[c]
                    u_part = u_part + (top - x) * q
                    S_part = S_part + q
                    R_part = R_part + choice(peak, zero, q)
            s_all = s_all + widened(s_part)
            if even is not None:
                u_all, S_all, R_all = u_all + widened(u_part), S_all + widened(S_part), R_all + widened(R_part)
        _vector.store(n, g, count)
        _vector.store(s, g, s_all)
        _vector.store(u, g, u_all)
        _vector.store(S, g, S_all)
        _vector.store(R, g, R_all)


@optional
def tile_like(data, xs):
    """A tile for `data`, and None where there is none."""
    return aligned(xs.size, xs).reshape(xs.shape)


@optional
def lanes_like(function, dtype):
    """Lanes for what `function` gives, and None where there is none."""
    return stack_buffer(dtype)


@jitable
def per_block(positions, classes, lanes):
    """Positions of one unit of parallel work, in whole tiles."""
    return max(1, BLOCK // lanes) * lanes


@inlined
def block(
    point, curvature, finish, start, stop, x, labels, expected, probabilities, weight, vector, upstream, classes, inner,
    lanes, keep, even, ignored, scale, values, out,
):  # fmt: skip
    """Work on the positions start to stop, and return the sum of their values."""
    if not as_expected(labels, start, stop, classes, ignored, expected):
        return np.nan
    T = x.dtype.type
    xs = aligned(classes * lanes, x).reshape((classes, lanes))
    es = aligned(classes * lanes, x).reshape((classes, lanes))
    ts = tile_like(probabilities, xs)
    vs = tile_like(vector, xs)
    m, n, part, s = stack_buffer(x.dtype), stack_buffer(x.dtype), stack_buffer(x.dtype), stack_buffer(x.dtype)
    r, rest, x_own = stack_buffer(x.dtype), stack_buffer(x.dtype), stack_buffer(x.dtype)
    s_wide, u, S, R = stack_buffer(WIDE), stack_buffer(WIDE), stack_buffer(WIDE), stack_buffer(WIDE)
    own, k, k2 = stack_buffer(WIDE), stack_buffer(WIDE), lanes_like(curvature, WIDE)
    y, at = stack_buffer(INDEX), stack_buffer(PLACE)
    elements = xs.reshape(xs.size)
    weighted = False
    for c in range(classes):
        weighted |= weight[c] != T(1)
    total = 0.0
    error = 0.0
    for first in range(start, stop, lanes):
        count = min(lanes, stop - first)
        load(xs, x, first, count, inner)
        if probabilities is not None:
            load(ts, probabilities, first, count, inner)
        if vector is not None:
            load(vs, vector, first, count, inner)
        for p in range(lanes):
            k[p] = scale if p < count else 0.0
            y[p] = 0
            at[p] = p
            own[p] = 0.0
        skipped = 0
        if labels is not None:
            ys = labels[first : first + count]
            for p in range(count):
                kept = ys[p] != ignored
                skipped += not kept
                y[p] = ys[p] if kept else 0
                at[p] = y[p] * lanes + p
                own[p] = keep
            if weighted:
                for p in range(count):
                    own[p] = np.float64(weight[y[p]]) * keep
            if skipped > 0:
                for p in range(count):
                    if ys[p] == ignored:
                        k[p] = 0.0
                        own[p] = 0.0
                        for c in range(classes):  # its logits are not even looked at
                            xs[c, p] = T(0)
            for p in range(lanes):
                x_own[p] = elements[at[p]]
        if bounds(xs, m, r):
            for p in range(lanes):
                r[p] = exp_moderate(-m[p])
            if probabilities is None:  # any finite numbers will do, of which nothing is kept
                moderate_sums(xs, xs, weight, m, r, T(0), even, es, s_wide, n, u, S, R)
            else:
                moderate_sums(xs, ts, weight, m, r, keep, even, es, s_wide, n, u, S, R)
        else:
            sums(xs, ts, weight, m, keep, even, es, part, s_wide, n, u, S, R)
        for p in range(lanes):
            s[p] = others(T(s_wide[p]), n[p], m[p])
        for p in range(lanes):  # apart from float64, which would halve the width of the vectors
            rest[p] = log1p(s[p])
            r[p] = T(1) / (T(1) + s[p])
        if upstream.size > 0:
            for p in range(count):
                k[p] = product(np.float64(upstream[first + p]), k[p])
        for p in range(lanes):
            if labels is not None:
                S[p] += own[p]
                R[p] += own[p] if x_own[p] != m[p] else 0.0
                u[p] += product(own[p], np.float64(gap(x_own[p], m[p])))
            u[p] += product(S[p], np.float64(rest[p]))
            value, d = point(u[p])
            if curvature is not None:
                k2[p] = k[p] * curvature(u[p])
            u[p] = value
            k[p] = k[p] * d
        if skipped > 0:
            for p in range(count):
                u[p] = u[p] if ys[p] != ignored else 0.0
        tile_sum = 0.0
        for p in range(count):
            tile_sum = add(tile_sum, u[p])
        total, error = compensated(total, error, tile_sum)
        if values.size > 0:
            for p in range(count):
                values[first + p] = T(u[p])
        if out is not None:
            finish(es, xs, ts, vs, weight, y, at, m, s, r, rest, S, R, own, keep, even, k, k2)
            store(es, out, first, count, inner)
    return closed(total, error)
