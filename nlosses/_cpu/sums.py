"""Elementwise driver for sums of values and their derivatives, of points that take vectors: sums stay in registers.

Values of the form v + log1p(e), where 0 <= e <= 1, take few logarithms: the sum of logarithms is the logarithm of a product.
With 1 + c = (1 + a) (1 + b), c is a (1 + b) + b, where nothing cancels, however small it is.  So each lane multiplies what
comes by, and the logarithms of a block are taken at its end, side by side.  That is for inputs of a moderate size.

A chunk with a larger one, or whose sum is not finite, is done again by the loss's point, number by number.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import types
from numba.core import errors

from .. import _scalar
from .._scalar import MODERATE
from . import _threads, _vector
from ._blocks import (
    BLOCK,
    CHUNK,
    add_chunk,
    closed,
    compensated,
    copy,
    destination,
    fetched,
    near,
    put,
    stack_buffer,
)
from ._jit import array, build, inlined, name_of, names, optional, reachable, unfit
from ._scalar import log1p_all
from ._shares import gathered, own_blocks, spread
from ._vector import (
    SHORT,
    farther,
    farthest,
    filled_short,
    has_tables,
    higher,
    load_part,
    load_short,
    pointer,
    short_lanes_of,
    store_part,
    where_from,
    widened,
)
from .tiles import FOLD

#: Vectors whose values and products are one, in four parts: of more, the roundings would add up to more than a few ulp.
GROUP = 4 * FOLD
#: Bytes of results that are fetched before they are written.
AHEAD = 2048
#: Functions of vectors for machines that have tables; a summand that calls them serves there alone.
LOOKED_UP = ("exp", "log", "log_half", "log1m_half")


@optional
def chosen(out, buffer, by_way):
    return pointer(buffer) if by_way else pointer(out)


@optional
def put_part(target, to, n, gradient):
    store_part(target, to, n, gradient)


@optional
def joined(a, b):
    return a * (type(b)(1) + b) + b


@optional
def keep(products, logs, at):
    _vector.store(logs, at, products)


@optional
def keep_first(products, n, logs, at):
    """Keep the first n lanes, and zeros."""
    _vector.store(logs, at, where_from(n, filled_short(logs, 0.0), products))


# What comes of a vector: the value less its logarithm, the e of that, and the slope; and the e of an empty product.


@inlined
def of_summand(summand, x, t, absent):
    return summand(x, t)


@inlined
def of_point(point, x, t, absent):
    value, slope = point(x, t, *absent)
    return value, None, slope


@inlined
def itself(zero):
    return zero


@inlined
def without(zero):
    return None


# What is to be known of all inputs, in a vector: the largest magnitude, that number whose bits are largest, or nothing.


@inlined
def magnitudes(x, t, reach):
    return farther(x, reach)


@inlined
def bits(x, t, reach):
    """Larger than those of numbers between 0 and 1 are those of all others, of negative ones, and of NaN."""
    zero = type(x)(0)
    return higher(x + zero, higher(t + zero, reach))  # -0 + 0 is 0


@inlined
def leave_unit(x, t, n):
    """Whether one of the first n elements of two arrays is not between 0 and 1."""
    T, step = x.dtype.type, short_lanes_of(x)
    reach = filled_short(x, 0.0)
    whole = n - n % step
    for k in range(0, whole, step):
        reach = bits(load_short(x, k), load_short(t, k), reach)
    if whole < n:
        reach = bits(load_part(x, whole, n - whole), load_part(t, whole, n - whole), reach)
    most = farthest(reach)
    return not ((most >= T(0)) & (most <= T(1)))


@inlined
def nothing(x, t, reach):
    return reach


@inlined
def vector_of(function, parts, ask, absent, x, t, at, scale, target, to, part, product, reach):
    """Write the scaled derivatives of the vector `at`, and return the running results with it."""
    fetched(target, to + AHEAD // SHORT * short_lanes_of(x))
    inputs, targets = load_short(x, at), load_short(t, at)
    v, e, g = parts(function, inputs, targets, absent)
    put(target, to, g * scale)
    return part + v, joined(product, e), ask(inputs, targets, reach)


@inlined
def chunk_sum(function, parts, empty, ask, absent, x, t, first, n, scale, target, to, logs, taken):
    """Work on n elements, and write their scaled derivatives to `target`.

    Returned are the sum of their values less the logarithms; how much of `logs`, from `taken` on, has products now; and what is
    to be known of the inputs.
    """
    step = short_lanes_of(x)
    zero = filled_short(x, 0.0)
    reach, total = zero, widened(zero)
    whole = n - n % step
    for lo in range(0, whole, GROUP * step):
        hi = min(lo + GROUP * step, whole)
        fours = hi - (hi - lo) % (4 * step)
        a, b, c, d = zero, zero, zero, zero
        p, q, r, s = empty(zero), empty(zero), empty(zero), empty(zero)
        for k in range(lo, fours, 4 * step):
            at, place = first + k, to + k
            a, p, reach = vector_of(function, parts, ask, absent, x, t, at, scale, target, place, a, p, reach)
            at, place = at + step, place + step
            b, q, reach = vector_of(function, parts, ask, absent, x, t, at, scale, target, place, b, q, reach)
            at, place = at + step, place + step
            c, r, reach = vector_of(function, parts, ask, absent, x, t, at, scale, target, place, c, r, reach)
            at, place = at + step, place + step
            d, s, reach = vector_of(function, parts, ask, absent, x, t, at, scale, target, place, d, s, reach)
        for k in range(fours, hi, step):
            a, p, reach = vector_of(function, parts, ask, absent, x, t, first + k, scale, target, to + k, a, p, reach)
        total = total + widened((a + b) + (c + d))
        keep(joined(joined(p, q), joined(r, s)), logs, taken)
        taken += step
    rest = n - whole
    if rest > 0:
        inputs, targets = load_part(x, first + whole, rest), load_part(t, first + whole, rest)
        v, e, g = parts(function, inputs, targets, absent)
        put_part(target, to + whole, rest, g * scale)
        reach = ask(inputs, targets, reach)
        total = total + widened(where_from(rest, zero, v))
        keep_first(e, rest, logs, taken)
        taken += step
    return _vector.total(total), taken, farthest(reach)


@inlined
def sum_of_logarithms(products, n):
    log1p_all(products, n)
    total = widened(filled_short(products, 0.0))
    for i in range(0, n, short_lanes_of(products)):
        total = total + widened(load_short(products, i))
    return _vector.total(total)


def make(point, absent, function, parts, empty, ask, limit, unit, stamp):
    def kernel(told, x, t, scale, out):
        stamp  # noqa: B018  a closure cell, and so a part of the cache key
        n_blocks = (x.size + BLOCK - 1) // BLOCK
        if told > 0:
            return spread(told, n_blocks)
        T = x.dtype.type
        c = T(scale)
        by_way = False
        if out is not None:
            by_way = near(out, x)
        all_blocks = 0.0
        lost = 0.0
        first, last, room = own_blocks(told, n_blocks)
        for b in range(first, last):
            start = b * BLOCK
            stop = min(start + BLOCK, x.size)
            buffer = stack_buffer(x.dtype)
            target = chosen(out, buffer, by_way)
            logs, vs = stack_buffer(x.dtype), stack_buffer(x.dtype)
            taken = 0
            outside = 0
            total = 0.0
            error = 0.0
            for lo in range(start, stop, CHUNK):
                hi = min(lo + CHUNK, stop)
                n = hi - lo
                to = 0 if by_way else lo
                s, more, reach = chunk_sum(
                    function, parts, empty, ask, absent, pointer(x), pointer(t), lo, n, c, target, to, logs, taken
                )
                fits = (reach >= T(0)) & (reach <= T(limit))
                outside += not fits
                if (unit | fits) & np.isfinite(s):
                    total, error = compensated(total, error, s)
                    taken = more
                else:
                    xs, ts, gs = x[lo:hi], t[lo:hi], destination(out, lo, hi, buffer, by_way)
                    for i in range(n):
                        vs[i], g = point(xs[i], ts[i], *absent)
                        if out is not None:
                            gs[i] = g * c
                    total, error = add_chunk(total, error, vs, n)
                if out is not None and by_way:
                    copy(out[lo:hi], buffer, n)
            if empty(0.0) is not None:
                total, error = compensated(total, error, sum_of_logarithms(logs, taken))
            block_sum = closed(total, error)
            if unit and outside > 0:
                block_sum = np.nan
            all_blocks, lost = gathered(all_blocks, lost, room, b, block_sum)
        return closed(all_blocks, lost)

    return kernel


@cache
def usable(summand: Any) -> Any:
    """A summand that can be compiled for the vectors of this machine, or None."""
    if summand is None or has_tables():
        return summand
    functions = set(reachable(summand))
    called = {f.__name__ for f in functions} | {name for f in functions - set(_scalar.PRIMITIVES) for name in names(f)}
    return summand if called.isdisjoint(LOOKED_UP) else None


@cache
def kernel(point: Any, parameters: int, summand: Any, unit: bool, dtype: Any, with_out: bool) -> Any:
    read = array(dtype)
    signature = (types.int64, read, read, types.float64, array(dtype, writable=True) if with_out else types.none)
    parts = [name_of(point if summand is None else summand), "sum", np.dtype(dtype).name]
    parts += ["out"] * with_out + ["unit"] * unit
    cells: dict[str, Any] = {"point": point, "absent": (None,) * parameters, "unit": unit}
    if summand is None:
        cells |= {"function": point, "parts": of_point, "empty": without}
        ask, limit = nothing, np.inf
    else:
        cells |= {"function": summand, "parts": of_summand, "empty": itself}
        ask, limit = magnitudes, MODERATE
    if unit:
        ask, limit = bits, 1.0
    cells |= {"ask": ask, "limit": limit}
    try:
        return build(make, "_".join(parts), cells, signature)
    except errors.TypingError as error:
        raise (unfit("point", point, LOOKED_UP) if summand is None else unfit("summand", summand, LOOKED_UP)) from error


def run(
    point: Any, parameters: int, summand: Any, unit: bool, x: np.ndarray, t: np.ndarray, scale: float, out: np.ndarray | None
) -> float:
    """Sum of the values; the scaled derivative goes to `out`, which may be `x`.

    The `point` has so many `parameters`, all of them absent.  With `unit` the result is NaN if an element is not between 0
    and 1.
    """
    return _threads.run(x.size, kernel(point, parameters, summand, unit, x.dtype, out is not None), x, t, scale, out)
