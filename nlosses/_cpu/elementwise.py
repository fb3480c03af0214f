"""Elementwise driver: one pass over input and target gives the value, its derivative, or both."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
from numba import types

from .._scalar import product
from . import _threads, points, sums
from ._blocks import (
    BLOCK,
    CHUNK,
    Operand,
    add_chunk,
    closed,
    copy,
    destination,
    near,
    pick,
    stack_buffer,
    staged,
    uncounted,
)
from ._jit import array, build, name_of
from ._shares import ALONE, gathered, own_blocks, spread
from ._unit import leave_unit
from ._vector import has_tables


def make(function, with_value, parameters_taken, general, unit, stamp):
    """The kernel of one scalar function: ``point`` (`with_value`), or one of the further derivatives.

    `general` is 0 in the kernel that has nothing but the function, and is as fast as can be.  That of 1 may have weights, and
    writes unreduced values, instead of adding them, where `values` has room for them.  That of 2 has an upstream gradient and
    a vector besides, and like the weights they are ones where absent.

    With `unit` the result is NaN if an input or a target is not between 0 and 1.
    """

    def kernel(told, x, t, weight, upstream, vector, parameters, scale, values, out):
        stamp  # noqa: B018  a closure cell, and so a part of the cache key
        n_blocks = (x.size + BLOCK - 1) // BLOCK
        if told > 0:
            return spread(told, n_blocks)
        x, t = uncounted(x), uncounted(t)
        T = x.dtype.type
        c = T(scale)
        by_way = unreduced = False
        if out is not None:
            by_way = near(out, x)
        if general > 0 and with_value:
            unreduced = values.size > 0
        all_blocks = 0.0
        lost = 0.0
        first, last, room = own_blocks(told, n_blocks)
        for b in range(first, last):
            start = b * BLOCK
            buffer, v_room = stack_buffer(x.dtype), stack_buffer(x.dtype)
            p_room, r_room = stack_buffer(x.dtype), stack_buffer(x.dtype)
            w_room, u_room, q_room = stack_buffer(x.dtype), stack_buffer(x.dtype), stack_buffer(x.dtype)
            outside = 0
            total = 0.0
            error = 0.0
            for lo in range(start, min(start + BLOCK, x.size), CHUNK):
                hi = min(lo + CHUNK, x.size)
                n = hi - lo
                # Loops over views vectorise; loops over a range of the whole array do not (index wrap-around).
                xs = x[lo:hi]
                ts = t[lo:hi]
                gs = destination(out, lo, hi, buffer, by_way)
                vs = v_room
                if general > 0 and with_value:
                    vs = destination(values, lo, hi, v_room, not unreduced)
                if parameters_taken > 0:
                    ps = staged(parameters[0], lo, n, p_room, lo == start)
                if parameters_taken > 1:
                    rs = staged(parameters[1], lo, n, r_room, lo == start)
                if weight is not None:
                    ws = staged(weight, lo, n, w_room, lo == start)
                if general > 1:
                    us = staged(upstream, lo, n, u_room, lo == start)
                    qs = staged(vector, lo, n, q_room, lo == start)
                if unit:
                    outside += leave_unit(x, t, lo, n)
                for i in range(n):
                    if parameters_taken == 0:
                        result = function(xs[i], ts[i])
                    elif parameters_taken == 1:
                        result = function(xs[i], ts[i], pick(ps, i))
                    else:
                        result = function(xs[i], ts[i], pick(ps, i), pick(rs, i))
                    if with_value:
                        v, g = result
                        vs[i] = v if weight is None else product(ws[i], v)
                    else:
                        g = result
                    if out is not None:
                        if general > 1:
                            gs[i] = product(us[i] * qs[i], product(ws[i], g)) * c
                        else:
                            gs[i] = (g if weight is None else product(ws[i], g)) * c
                if with_value and not unreduced:
                    total, error = add_chunk(total, error, v_room, n)
                if out is not None and by_way:
                    copy(out[lo:hi], buffer, n)
            block_sum = closed(total, error)
            if unit and outside > 0:
                block_sum = np.nan
            all_blocks, lost = gathered(all_blocks, lost, room, b, block_sum)
        return closed(all_blocks, lost)

    return kernel


@cache
def _kernel(
    function: Any,
    with_value: bool,
    dtype: Any,
    taken: tuple[bool, ...],
    general: int,
    weighted: bool,
    with_out: bool,
    unit: bool,
) -> Any:
    operand = types.Tuple((array(dtype), types.int64, types.int64))
    written = array(dtype, writable=True)
    signature = (
        types.int64,
        array(dtype),
        array(dtype),
        operand if weighted else types.none,
        *[operand if general > 1 else types.none] * 2,
        types.Tuple([operand if present else types.none for present in taken]),
        types.float64,
        written if general else types.none,
        written if with_out else types.none,
    )
    cells = {
        "function": function, "with_value": with_value, "parameters_taken": len(taken), "general": general,
        "unit": unit,
    }  # fmt: skip
    parts = [name_of(function), np.dtype(dtype).name, *("with" if present else "without" for present in taken)]
    parts += [("", "values", "general")[general]] * (general > 0) + ["weighted"] * weighted
    parts += ["out"] * with_out + ["unit"] * unit
    return build(make, "_".join(parts), cells, signature)


def _taken(parameters: tuple[Operand | None, ...]) -> tuple[bool, ...]:
    return tuple([p is not None for p in parameters]) if parameters else ()


def serial(
    point: Any, parameters: tuple[None, ...], summand: Any, binary: Any, dtype: Any, unit: bool, vectors: bool
) -> Callable[[np.ndarray, np.ndarray, float, np.ndarray], float]:
    """What `run` would do on one thread for a sum of values and their derivatives: a function of x, t, scale and out."""
    summand, binary = sums.usable(summand), sums.usable(binary)
    vectors &= has_tables()
    if summand or binary or vectors:
        return partial(sums.kernel(point, len(parameters), summand, binary, vectors, unit, dtype, True), ALONE)
    kernel = _kernel(point, True, dtype, _taken(parameters), 0, False, True, unit)
    return lambda x, t, scale, out: kernel(ALONE, x, t, None, None, None, parameters, scale, None, out)


def run(
    function: Any,
    with_value: bool,
    x: np.ndarray,
    t: np.ndarray,
    weight: Operand | None = None,
    upstream: Operand | None = None,
    vector: Operand | None = None,
    parameters: tuple[Operand | None, ...] = (),
    scale: float = 1.0,
    values: np.ndarray | None = None,
    out: np.ndarray | None = None,
    summand: Any = None,
    binary: Any = None,
    unit: bool = False,
    vectors: bool = False,
) -> float:
    """Sum of the values, which go to `values` too if that is given; the scaled derivative goes to `out`, which may be `x`.

    The `summand` of a loss, if it has one, takes the place of its point where that is quicker, and so does `binary` where all
    targets are 0 or 1.  With `unit` the result is NaN if an element is not between 0 and 1.  The function is called of
    `vectors` if it can be: without tables LLVM does as well.
    """
    if with_value:
        summand, binary, vectors = sums.usable(summand), sums.usable(binary), vectors and has_tables()
        summed = values is None and weight is None and upstream is None
        if summed and (summand or binary or vectors) and parameters.count(None) == len(parameters):
            return sums.run(function, len(parameters), summand, binary, vectors, unit, x, t, scale, out)
        if vectors:
            return points.run(function, x, t, weight, upstream, parameters, scale, values, out, unit)
        if summed:
            kernel = _kernel(function, True, x.dtype, _taken(parameters), 0, False, out is not None, unit)
            return _threads.run(x.size, kernel, x, t, None, None, None, parameters, scale, None, out)
    one = (np.ones(1, x.dtype), max(x.size, 1), 1)
    values = np.empty(0, x.dtype) if values is None else values
    further: tuple[Operand | None, ...] = (None, None)
    if upstream is not None or vector is not None or not with_value:
        weight, further = weight or one, (upstream or one, vector or one)
    general = 1 if further[0] is None else 2
    present = _taken(parameters)
    kernel = _kernel(function, with_value, x.dtype, present, general, weight is not None, out is not None, unit)
    return _threads.run(x.size, kernel, x, t, weight, *further, parameters, scale, values, out)
