"""Elementwise driver for sums of values of the form v + log1p(e), where 0 <= e <= 1: in explicit vectors, with few logarithms.

The sum of logarithms is the logarithm of a product.  With 1 + c = (1 + a) (1 + b), c is a (1 + b) + b, where nothing cancels,
however small it is.  So each lane multiplies what comes by, and the logarithms of a block are taken at its end, side by side.

That is for inputs of a moderate size.  A chunk with another one, or whose sum is too large, is done again by the loss's point.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import prange, types
from numba.core import errors

from .._scalar import MODERATE, log1p
from . import _threads, _vector
from ._blocks import (
    BLOCK,
    CHUNK,
    FOLDED,
    WIDE,
    add_chunk,
    compensated,
    copy,
    destination,
    fetched,
    lanes_sum,
    near,
    put,
    stack_buffer,
    total_of,
)
from ._jit import array, build, inlined, name_of, optional, unfit
from ._vector import (
    SHORT,
    farther,
    farthest,
    filled_short,
    load_part,
    load_short,
    pointer,
    prefetch,
    short_lanes_of,
    store_part,
    where_from,
    widened,
)
from .tiles import FOLD

#: Vectors whose values and products are one, in four parts: of more, the roundings would add up to more than a few ulp.
GROUP = 4 * FOLD
#: Bytes that are fetched ahead.
AHEAD = 2048


@optional
def chosen(out, buffer, by_way):
    return pointer(buffer) if by_way else pointer(out)


@optional
def put_part(target, to, n, gradient):
    store_part(target, to, n, gradient)


@inlined
def joined(a, b):
    return a * (type(b)(1) + b) + b


@inlined
def vector_of(summand, x, t, at, scale, target, to, part, product, reach):
    """Write the scaled derivatives of the vector `at`, and return the running results with it."""
    ahead = AHEAD // SHORT * short_lanes_of(x)
    prefetch(x, at + ahead)
    prefetch(t, at + ahead)
    fetched(target, to + ahead)
    inputs = load_short(x, at)
    v, e, g = summand(inputs, load_short(t, at))
    put(target, to, g * scale)
    return part + v, joined(product, e), farther(inputs, reach)


@inlined
def chunk_sum(summand, x, t, first, n, scale, target, to, logs, taken):
    """Work on n elements, and write their scaled derivatives to `target`.

    Returned are the sum of their values less the logarithms; how much of `logs`, from `taken` on, has products now; and the
    largest magnitude of an input.
    """
    step = short_lanes_of(x)
    zero = filled_short(x, 0.0)
    reach, total = zero, widened(zero)
    whole = n - n % step
    for lo in range(0, whole, GROUP * step):
        hi = min(lo + GROUP * step, whole)
        fours = hi - (hi - lo) % (4 * step)
        a, b, c, d = zero, zero, zero, zero
        p, q, r, s = zero, zero, zero, zero
        for k in range(lo, fours, 4 * step):
            at, place = first + k, to + k
            a, p, reach = vector_of(summand, x, t, at, scale, target, place, a, p, reach)
            b, q, reach = vector_of(summand, x, t, at + step, scale, target, place + step, b, q, reach)
            c, r, reach = vector_of(summand, x, t, at + 2 * step, scale, target, place + 2 * step, c, r, reach)
            d, s, reach = vector_of(summand, x, t, at + 3 * step, scale, target, place + 3 * step, d, s, reach)
        for k in range(fours, hi, step):
            a, p, reach = vector_of(summand, x, t, first + k, scale, target, to + k, a, p, reach)
        total = total + widened((a + b) + (c + d))
        _vector.store(logs, taken, joined(joined(p, q), joined(r, s)))
        taken += step
    rest = n - whole
    if rest > 0:
        inputs = load_part(x, first + whole, rest)
        v, e, g = summand(inputs, load_part(t, first + whole, rest))
        put_part(target, to + whole, rest, g * scale)
        reach = farther(inputs, reach)
        total = total + widened(where_from(rest, zero, v))
        _vector.store(logs, taken, where_from(rest, zero, e))
        taken += step
    return _vector.total(total), taken, farthest(reach)


@inlined
def sum_of_logarithms(products, n):
    for i in range(n):
        products[i] = log1p(products[i])
    total = widened(filled_short(products, 0.0))
    for i in range(0, n, short_lanes_of(products)):
        total = total + widened(load_short(products, i))
    return _vector.total(total)


def make(point, absent, summand, stamp):
    def kernel(x, t, scale, out):
        stamp  # noqa: B018  a closure cell, and so a part of the cache key
        T = x.dtype.type
        c = T(scale)
        by_way = False
        if out is not None:
            by_way = near(out, x)
        n_blocks = (x.size + BLOCK - 1) // BLOCK
        partial = np.empty(n_blocks)
        for b in prange(n_blocks):
            start = np.int64(b) * BLOCK
            stop = min(start + BLOCK, x.size)
            buffer = stack_buffer(x.dtype)
            target = chosen(out, buffer, by_way)
            logs, vs, folded, lanes = stack_buffer(x.dtype), stack_buffer(x.dtype), stack_buffer(x.dtype), stack_buffer(WIDE)
            for i in range(FOLDED):
                lanes[i] = 0.0
            taken = 0
            total = 0.0
            error = 0.0
            for lo in range(start, stop, CHUNK):
                hi = min(lo + CHUNK, stop)
                n = hi - lo
                s, more, reach = chunk_sum(summand, pointer(x), pointer(t), lo, n, c, target, 0 if by_way else lo, logs, taken)
                if (reach <= T(MODERATE)) & np.isfinite(s):
                    total, error = compensated(total, error, s)
                    taken = more
                else:
                    xs, ts, gs = x[lo:hi], t[lo:hi], destination(out, lo, hi, buffer, by_way)
                    for i in range(n):
                        vs[i], g = point(xs[i], ts[i], *absent)
                        if out is not None:
                            gs[i] = g * c
                    total, error = add_chunk(total, error, lanes, vs, folded, n)
                if out is not None and by_way:
                    copy(out[lo:hi], buffer, n)
            total, error = compensated(total, error, sum_of_logarithms(logs, taken))
            partial[b] = lanes_sum(total, error, lanes)
        return total_of(partial)

    return kernel


@cache
def kernel(point: Any, parameters: int, summand: Any, dtype: Any, with_out: bool, parallel: bool) -> Any:
    read = array(dtype)
    signature = (read, read, types.float64, array(dtype, writable=True) if with_out else types.none)
    parts = [name_of(summand), np.dtype(dtype).name] + ["out"] * with_out + ["parallel"] * parallel
    try:
        cells = {"point": point, "absent": (None,) * parameters, "summand": summand}
        return build(make, "_".join(parts), cells, signature, parallel)
    except errors.TypingError as error:
        raise unfit("summand", summand) from error


def run(point: Any, parameters: int, summand: Any, x: np.ndarray, t: np.ndarray, scale: float, out: np.ndarray | None) -> float:
    """Sum of the values; the scaled derivative goes to `out`, which may be `x`.

    The `point` has so many `parameters`, all of them absent.
    """
    key = (point, parameters, summand, x.dtype, out is not None)
    return _threads.run(x.size, kernel, key, x, t, scale, out)
