"""Elementwise driver for sums of values of the form v + log1p(e), where 0 <= e <= 1: in explicit vectors, with few logarithms.

The sum of logarithms is the logarithm of a product.  With 1 + c = (1 + a) (1 + b), c is a + b + a b, where nothing cancels,
however small it is.  So each lane multiplies what comes by, and takes one logarithm at the end of a chunk.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import prange, types
from numba.core import errors

from .._scalar import log1p
from . import _threads, _vector
from ._blocks import BLOCK, CHUNK, closed, compensated, copy, fetched, near, put, stack_buffer, total_of
from ._jit import array, build, inlined, name_of, optional
from ._vector import (
    SHORT,
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

#: Numbers of one product, of which a lane has two: beyond, their roundings would add up to more than a few ulp.
FACTORS = 16
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
    return (a + b) + a * b


@inlined
def chunk_sum(summand, x, t, first, n, scale, target, to, logs, lanes):
    """The sum of the values of n elements, whose scaled derivatives go to `target`."""
    step = short_lanes_of(x)
    zero = filled_short(x, 0.0)
    total = widened(zero)
    product, other = zero, zero
    for lo in range(0, n - n % step, FOLD * step):
        part = zero
        for k in range(lo, min(lo + FOLD * step, n - n % step), step):
            ahead = k + AHEAD // SHORT * step
            prefetch(x, first + ahead)
            prefetch(t, first + ahead)
            fetched(target, to + ahead)
            v, e, g = summand(load_short(x, first + k), load_short(t, first + k))
            put(target, to + k, g * scale)
            part = part + v
            product, other = other, joined(product, e)  # in turns, for each waits for the one before
        total = total + widened(part)
    rest = n % step
    if rest > 0:
        v, e, g = summand(load_part(x, first + n - rest, rest), load_part(t, first + n - rest, rest))
        put_part(target, to + n - rest, rest, g * scale)
        total = total + widened(where_from(rest, zero, v))
        product = joined(product, where_from(rest, zero, e))
    _vector.store(logs, 0, joined(product, other))
    for i in range(lanes):  # a number that LLVM does not know, for it unrolls what it ought to vectorise
        logs[i] = log1p(logs[i])
    return _vector.total(total + widened(load_short(logs, 0)))


def make(summand, stamp):
    def kernel(x, t, scale, lanes, out):
        stamp  # noqa: B018  a closure cell, and so a part of the cache key
        c = x.dtype.type(scale)
        by_way = False
        if out is not None:
            by_way = near(out, x)
        length = min(CHUNK, 2 * FACTORS * short_lanes_of(x))
        n_blocks = (x.size + BLOCK - 1) // BLOCK
        partial = np.empty(n_blocks)
        for b in prange(n_blocks):
            start = np.int64(b) * BLOCK
            stop = min(start + BLOCK, x.size)
            buffer = stack_buffer(x.dtype)
            target = chosen(out, buffer, by_way)
            logs = stack_buffer(x.dtype)
            total = 0.0
            error = 0.0
            for lo in range(start, stop, length):
                hi = min(lo + length, stop)
                s = chunk_sum(summand, pointer(x), pointer(t), lo, hi - lo, c, target, 0 if by_way else lo, logs, lanes)
                if np.isfinite(s):
                    total, error = compensated(total, error, s)
                else:  # it may be but too large for float32
                    for i in range(lo, hi):
                        v, e, _ = summand(x[i], t[i])
                        total, error = compensated(total, error, np.float64(v))
                        total, error = compensated(total, error, np.float64(log1p(e)))
                if out is not None and by_way:
                    copy(out[lo:hi], buffer, hi - lo)
            partial[b] = closed(total, error)
        return total_of(partial)

    return kernel


@cache
def _kernel(summand: Any, dtype: Any, with_out: bool, parallel: bool) -> Any:
    read = array(dtype)
    signature = (read, read, types.float64, types.int64, array(dtype, writable=True) if with_out else types.none)
    parts = [name_of(summand), np.dtype(dtype).name] + ["out"] * with_out + ["parallel"] * parallel
    try:
        return build(make, "_".join(parts), {"summand": summand}, signature, parallel)
    except errors.TypingError as error:
        raise TypeError(
            f"summand {summand.__qualname__} cannot be compiled for vectors: besides arithmetic, comparisons and abs() it may "
            "call nlosses.scalar.exp_nonpositive and exp_moderate, and nlosses.scalar.where for what depends on a condition"
        ) from error


def run(summand: Any, x: np.ndarray, t: np.ndarray, scale: float, out: np.ndarray | None) -> float:
    """Sum of the values; the scaled derivative goes to `out`, which may be `x`."""
    return _threads.run(x.size, _kernel, (summand, x.dtype, out is not None), x, t, scale, SHORT // x.itemsize, out)
