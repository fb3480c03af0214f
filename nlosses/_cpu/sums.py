"""Elementwise driver for sums of values and their derivatives, of points that take vectors: sums stay in registers.

Values of the form v + log1p(e), where 0 <= e <= 1, take few logarithms: the sum of logarithms is the logarithm of a product.
With 1 + c = (1 + a) (1 + b), c is a (1 + b) + b, where nothing cancels, however small it is.  So each lane multiplies what
comes by, and the logarithms of a block are taken at its end, side by side.  That is for inputs of a moderate size.

A chunk whose targets are all 0 or 1 may have a summand of its own, with v = 0 and any e.  What holds a larger input, or has a
sum or a product that is not finite, is done again in the next way, the last of which is the loss's point, number by number.
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
    stack_buffer,
)
from ._jit import array, build, inlined, name_of, names, optional, reachable, unfit
from ._scalar import log1p_all
from ._shares import gathered, own_blocks, spread
from ._streams import ROWS, fetch_far, held, streams_vectors, write, write_end
from ._unit import bits, leave_unit
from ._vector import (
    SHORT,
    choice,
    farther,
    farthest,
    filled_short,
    has_tables,
    load_part,
    load_short,
    pointer,
    settle,
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


# What comes of a vector: the value less its logarithm, the e of that, and the slope; the e of an empty product; and what stands
# for the vector of slopes that is held for the next, before there is any.


@inlined
def of_summand(summand, x, t, absent):
    return summand(x, t)


@inlined
def of_binary(binary, x, t, absent):
    e, slope = binary(x, t)
    return type(x)(0), e, slope


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


@inlined
def zeros(x):
    return filled_short(x, 0.0)


# What is to be known of all inputs, in a vector: the largest magnitude, that number whose bits are largest, or nothing.


@inlined
def magnitudes(x, t, reach):
    return farther(x, reach)


@inlined
def nothing(x, t, reach):
    return reach


@inlined
def vector_of(work, at, to, begins, before, part, product, reach):
    """Write the scaled derivatives of the vector `at`; return them, if they are held, and the running results with it."""
    function, parts, ask, absent, x, t, scale, target, flows = work
    step = short_lanes_of(x)
    if flows:
        fetch_far(x, at)
        fetch_far(t, at)
    else:
        fetched(target, to + AHEAD // SHORT * step)
    inputs, targets = load_short(x, at), load_short(t, at)
    v, e, g = parts(function, inputs, targets, absent)
    slopes = g * scale
    write(target, to, slopes, flows, begins, before)
    return held(before, slopes), part + v, joined(product, e), ask(inputs, targets, reach)


@inlined
def chunk_sum(function, parts, empty, ask, absent, x, t, first, n, scale, target, to, flow, logs, taken):
    """Work on n elements, and write their scaled derivatives to `target`.

    Of the flow: whether they go past the caches, whether they begin a run there, and the vector before, if it is held.
    Returned are the sum of their values less the logarithms; how much of `logs`, from `taken` on, has products now; what is to
    be known of the inputs; and the last vector of derivatives, if it is held: of less than a vector of elements the one before.
    """
    step = short_lanes_of(x)
    zero = filled_short(x, 0.0)
    reach, total = zero, widened(zero)
    whole = n - n % step
    flows, begins, before = flow
    work = function, parts, ask, absent, x, t, scale, target, flows
    for lo in range(0, whole, GROUP * step):
        hi = min(lo + GROUP * step, whole)
        fours = hi - (hi - lo) % (4 * step)
        a, b, c, d = zero, zero, zero, zero
        p, q, r, s = empty(zero), empty(zero), empty(zero), empty(zero)
        for k in range(lo, fours, 4 * step):
            at, place = first + k, to + k
            before, a, p, reach = vector_of(work, at, place, begins & (k == 0), before, a, p, reach)
            at, place = at + step, place + step
            before, b, q, reach = vector_of(work, at, place, False, before, b, q, reach)
            at, place = at + step, place + step
            before, c, r, reach = vector_of(work, at, place, False, before, c, r, reach)
            at, place = at + step, place + step
            before, d, s, reach = vector_of(work, at, place, False, before, d, s, reach)
        for k in range(fours, hi, step):
            before, a, p, reach = vector_of(work, first + k, to + k, begins & (k == 0), before, a, p, reach)
        total = total + widened((a + b) + (c + d))
        keep(joined(joined(p, q), joined(r, s)), logs, taken)
        taken += step
    rest = n - whole
    if rest > 0:
        inputs, targets = load_part(x, first + whole, rest), load_part(t, first + whole, rest)
        v, e, g = parts(function, inputs, targets, absent)
        put_part(target, to + whole, rest, g * scale)
        reach = ask(inputs, targets, reach)
        total = total + widened(where_from(rest, zero, zero + v))
        keep_first(e, rest, logs, taken)
        taken += step
    return _vector.total(total), taken, farthest(reach), before


@inlined
def sum_of_logarithms(products, n):
    log1p_all(products, n)
    total = widened(filled_short(products, 0.0))
    for i in range(0, n, short_lanes_of(products)):
        total = total + widened(load_short(products, i))
    return _vector.total(total)


# The ways to work on a chunk, if there are any: whether all inputs are as they should be; whether it is done; the sum of the
# values less the logarithms; how much of `logs` has products now; and the last vector of derivatives.


@inlined
def by_function(function, parts, empty, ask, limit, unit, absent, x, t, lo, n, scale, target, to, flow, logs, taken):
    s, more, reach, last = chunk_sum(
        function, parts, empty, ask, absent, pointer(x), pointer(t), lo, n, scale, target, to, flow, logs, taken
    )  # fmt: skip
    fits = (reach >= type(reach)(0)) & (reach <= type(reach)(limit))
    return fits, (unit | fits) & np.isfinite(s), s, more, last


@inlined
def by_point_alone(function, parts, empty, ask, limit, unit, absent, x, t, lo, n, scale, target, to, flow, logs, taken):
    return (not unit) or not leave_unit(x, t, lo, n), False, 0.0, taken, flow[2]


@inlined
def by_binary(function, ask, limit, absent, x, t, lo, n, scale, target, to, flow, logs, taken):
    """How much of `logs` has products now, not more than before if it is not done; and the last vector of derivatives."""
    if not binary_targets(pointer(t), lo, n):
        return taken, flow[2]
    _, more, reach, last = chunk_sum(
        function, of_binary, itself, ask, absent, pointer(x), pointer(t), lo, n, scale, target, to, flow, logs, taken
    )
    largest = filled_short(logs, 0.0)
    for i in range(taken, more, short_lanes_of(logs)):
        largest = farther(load_short(logs, i), largest)
    done = (reach >= type(reach)(0)) & (reach <= type(reach)(limit)) & (farthest(largest) <= np.finfo(logs.dtype).max)
    return more if done else taken, last


@inlined
def by_nothing(function, ask, limit, absent, x, t, lo, n, scale, target, to, flow, logs, taken):
    return taken, flow[2]


@inlined
def binary_targets(t, first, n):
    """Whether n targets are 0 or 1; where they are not, the first ones show it."""
    step, zero = short_lanes_of(t), filled_short(t, 0.0)
    begin = min(n, step)
    others = farther(neither(load_part(t, first, begin)), zero)
    if farthest(others) == 0:
        whole = n - n % step
        for k in range(begin, whole, step):
            others = farther(neither(load_short(t, first + k)), others)
        others = farther(neither(load_part(t, first + whole, n - whole)), others)
    return farthest(others) == 0


@inlined
def neither(t):
    """0 where a target is 0 or 1, and something else elsewhere."""
    return choice(t == 1.0, 0.0, t)


def make(point, absent, binary, by_targets, function, by_vectors, parts, empty, hold, ask, limit, unit, stamp):
    def kernel(told, x, t, scale, out):
        stamp  # noqa: B018  a closure cell, and so a part of the cache key
        n_blocks = (x.size + BLOCK - 1) // BLOCK
        if told > 0:
            return spread(told, n_blocks)
        T = x.dtype.type
        c = T(scale)
        step = short_lanes_of(x)
        by_way = flows = False
        if out is not None:
            by_way = near(out, x)
            flows = streams_vectors(out, x, ROWS, hold(x))
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
            begins, before = True, hold(x)
            for lo in range(start, stop, CHUNK):
                hi = min(lo + CHUNK, stop)
                n = hi - lo
                to = 0 if by_way else lo
                flow = flows, begins, before
                more, results = by_targets(binary, ask, limit, absent, x, t, lo, n, c, target, to, flow, logs, taken)
                if more > taken:
                    taken = more
                    begins, before = begins & (n < step), results
                else:
                    fits, done, s, more, results = by_vectors(
                        function, parts, empty, ask, limit, unit, absent, x, t, lo, n, c, target, to, flow, logs, taken
                    )
                    outside += not fits
                    if done:
                        total, error = compensated(total, error, s)
                        taken = more
                        begins, before = begins & (n < step), results
                    else:
                        write_end(before, target, lo, flows, begins)
                        begins = True
                        xs, ts, gs = x[lo:hi], t[lo:hi], destination(out, lo, hi, buffer, by_way)
                        for i in range(n):
                            vs[i], g = point(xs[i], ts[i], *absent)
                            if out is not None:
                                gs[i] = g * c
                        total, error = add_chunk(total, error, vs, n)
                if out is not None and by_way:
                    copy(out[lo:hi], buffer, n)
            write_end(before, target, stop - (stop - start) % step, flows, begins)
            if empty(0.0) is not None:
                total, error = compensated(total, error, sum_of_logarithms(logs, taken))
            block_sum = closed(total, error)
            if unit and outside > 0:
                block_sum = np.nan
            all_blocks, lost = gathered(all_blocks, lost, room, b, block_sum)
        if flows:
            settle()
        return closed(all_blocks, lost)

    return kernel


@cache
def usable(summand: Any) -> Any:
    """A summand, or `binary`, that can be compiled for the vectors of this machine, or None."""
    if summand is None or has_tables():
        return summand
    functions = set(reachable(summand))
    called = {f.__name__ for f in functions} | {name for f in functions - set(_scalar.PRIMITIVES) for name in names(f)}
    return summand if called.isdisjoint(LOOKED_UP) else None


@cache
def kernel(
    point: Any, parameters: int, summand: Any, binary: Any, vectors: bool, unit: bool, dtype: Any, with_out: bool
) -> Any:
    read = array(dtype)
    signature = (types.int64, read, read, types.float64, array(dtype, writable=True) if with_out else types.none)
    parts = [name_of(point if summand is None else summand), "sum", np.dtype(dtype).name]
    parts += ["out"] * with_out + ["unit"] * unit
    function = summand or (point if vectors else None)
    cells: dict[str, Any] = {"point": point, "absent": (None,) * parameters, "unit": unit, "function": function}
    if summand or not vectors:
        cells |= {"parts": of_summand, "empty": itself, "hold": without}  # there would not be registers enough
    else:
        cells |= {"parts": of_point, "empty": without, "hold": zeros}
    cells |= {"ask": magnitudes, "limit": MODERATE} if summand or binary else {"ask": nothing, "limit": np.inf}
    if unit:
        cells |= {"ask": bits, "limit": 1.0}
    cells |= {"binary": binary, "by_targets": by_binary if binary else by_nothing}
    cells["by_vectors"] = by_function if function else by_point_alone
    try:
        return build(make, "_".join(parts), cells, signature)
    except errors.TypingError as error:
        if binary:
            kernel(point, parameters, summand, None, vectors, unit, dtype, with_out)  # goes well if `binary` is to blame
            raise unfit("binary", binary, LOOKED_UP) from error
        raise (unfit("summand", summand, LOOKED_UP) if summand else unfit("point", point, LOOKED_UP)) from error


def run(
    point: Any,
    parameters: int,
    summand: Any,
    binary: Any,
    vectors: bool,
    unit: bool,
    x: np.ndarray,
    t: np.ndarray,
    scale: float,
    out: np.ndarray | None,
) -> float:
    """Sum of the values; the scaled derivative goes to `out`, which may be `x`.

    The `point` has so many `parameters`, all of them absent.  With `unit` the result is NaN if an element is not between 0
    and 1.
    """
    kernel_of_all = kernel(point, parameters, summand, binary, vectors, unit, x.dtype, out is not None)
    return _threads.run(x.size, kernel_of_all, x, t, scale, out)
