"""Elementwise driver of points that take vectors: values that are not reduced, or the sum of weighted ones, and derivatives."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import types
from numba.core import errors

from .._scalar import product
from . import _threads
from ._blocks import BLOCK, CHUNK, Operand, add_chunk, closed, placed, stack_buffer, staged
from ._jit import array, build, inlined, name_of, optional, overloaded, unfit
from ._shares import gathered, own_blocks, spread
from ._streams import ROWS, VALUES, fetch_far, streams_vectors, write, write_end
from ._unit import bits, in_unit
from ._vector import (
    farthest,
    filled_short,
    load_part,
    load_short,
    pointer,
    settle,
    short_lanes_of,
    store_part,
)
from .sums import LOOKED_UP, nothing, put_part

# Of operands, which may be absent, and of which a point takes two at most as its parameters.


@optional
def source(operand, size, lo, n, room, first):
    """Where n elements of an operand are, from element lo of all on, and how far in: where they are, or in a buffer."""
    data, inner, period = operand
    if (inner == 1) & (period >= size):
        return pointer(data), lo
    staged(operand, lo, n, room, first)
    return pointer(room), 0


@optional
def vector_from(source, k):
    data, at = source
    return load_short(data, at + k)


@optional
def part_from(source, k, n):
    data, at = source
    return load_part(data, at + k, n)


@overloaded
def sources(operands, size, lo, n, rooms, first):
    if len(operands) == 0:
        return lambda operands, size, lo, n, rooms, first: ()
    if len(operands) == 1:
        return lambda operands, size, lo, n, rooms, first: (source(operands[0], size, lo, n, rooms[0], first),)
    return lambda operands, size, lo, n, rooms, first: (
        source(operands[0], size, lo, n, rooms[0], first),
        source(operands[1], size, lo, n, rooms[1], first),
    )


@overloaded
def all_from(sources, take, *where):
    """What is taken from each of some operands."""
    if len(sources) == 0:
        return lambda sources, take, *where: ()
    if len(sources) == 1:
        return lambda sources, take, *where: (take(sources[0], *where),)
    return lambda sources, take, *where: (take(sources[0], *where), take(sources[1], *where))


@overloaded
def times(factor, x):
    """Their product, and x where there is no factor."""
    return (lambda factor, x: x) if isinstance(factor, types.NoneType) else (lambda factor, x: product(factor, x))


@overloaded
def to_values(values, room, lo):
    """Where values go, and how far in: where they shall be, or to a buffer, of which their sum is taken."""
    if isinstance(values, types.NoneType):
        return lambda values, room, lo: (pointer(room), 0)
    return lambda values, room, lo: (pointer(values), lo)


@inlined
def results_of(point, ask, scale, inputs, targets, given, reach):
    """Weighted values, derivatives, and what is to be known of all inputs."""
    weight, upstream, parameters = given
    value, slope = point(inputs, targets, *parameters)
    return times(weight, value), times(upstream, times(weight, slope)) * scale, ask(inputs, targets, reach)


def make(point, ask, stamp):
    def kernel(told, x, t, weight, upstream, parameters, scale, values, out):
        stamp  # noqa: B018  a closure cell, and so a part of the cache key
        n_blocks = (x.size + BLOCK - 1) // BLOCK
        if told > 0:
            return spread(told, n_blocks)
        zero, step, c = filled_short(x, 0.0), short_lanes_of(x), x.dtype.type(scale)
        xs, ts, target = pointer(x), pointer(t), placed(out)
        flows = False
        if values is not None:
            flows = streams_vectors(values, x, VALUES, zero)
        elif out is not None:
            flows = streams_vectors(out, x, ROWS, zero)
        all_blocks = 0.0
        lost = 0.0
        first, last, room = own_blocks(told, n_blocks)
        for b in range(first, last):
            start = b * BLOCK
            stop = min(start + BLOCK, x.size)
            v_room, w_room, u_room = stack_buffer(x.dtype), stack_buffer(x.dtype), stack_buffer(x.dtype)
            p_rooms = stack_buffer(x.dtype), stack_buffer(x.dtype)
            reach, v, g = zero, zero, zero
            total = 0.0
            error = 0.0
            for lo in range(start, stop, CHUNK):
                n = min(CHUNK, stop - lo)
                ws = source(weight, x.size, lo, n, w_room, lo == start)
                us = source(upstream, x.size, lo, n, u_room, lo == start)
                ps = sources(parameters, x.size, lo, n, p_rooms, lo == start)
                vs, to = to_values(values, v_room, lo)
                whole = n - n % step
                for k in range(0, whole, step):
                    at = lo + k
                    if flows:
                        fetch_far(xs, at)
                        fetch_far(ts, at)
                    given = vector_from(ws, k), vector_from(us, k), all_from(ps, vector_from, k)
                    held = v, g
                    v, g, reach = results_of(point, ask, c, load_short(xs, at), load_short(ts, at), given, reach)
                    write(vs, to + k, v, flows & (values is not None), at == start, held[0])
                    write(target, at, g, flows, at == start, held[1])
                if whole < n:
                    at, rest = lo + whole, n - whole
                    given = part_from(ws, whole, rest), part_from(us, whole, rest), all_from(ps, part_from, whole, rest)
                    inputs, targets = load_part(xs, at, rest), load_part(ts, at, rest)
                    value, slope, reach = results_of(point, ask, c, inputs, targets, given, reach)
                    store_part(vs, to + whole, rest, value)
                    put_part(target, at, rest, slope)
                if values is None:
                    total, error = add_chunk(total, error, v_room, n)
            whole = stop - (stop - start) % step
            write_end(v, values, whole, flows, whole == start)
            write_end(g, target, whole, flows, whole == start)
            block_sum = closed(total, error) if in_unit(farthest(reach)) else np.nan
            all_blocks, lost = gathered(all_blocks, lost, room, b, block_sum)
        if flows:
            settle()
        return closed(all_blocks, lost)

    return kernel


@cache
def _kernel(
    point: Any,
    dtype: Any,
    weighted: bool,
    upstream: bool,
    taken: tuple[bool, ...],
    unit: bool,
    with_values: bool,
    with_out: bool,
) -> Any:
    read, written = array(dtype), array(dtype, writable=True)
    operand = types.Tuple((read, types.int64, types.int64))
    signature = (
        types.int64,
        read,
        read,
        operand if weighted else types.none,
        operand if upstream else types.none,
        types.Tuple([operand if present else types.none for present in taken]),
        types.float64,
        written if with_values else types.none,
        written if with_out else types.none,
    )
    parts = [name_of(point), np.dtype(dtype).name, *("with" if present else "without" for present in taken)]
    parts += ["values" if with_values else "sum"] + ["weighted"] * weighted + ["upstream"] * upstream
    parts += ["out"] * with_out + ["unit"] * unit + ["vectors"]
    try:
        return build(make, "_".join(parts), {"point": point, "ask": bits if unit else nothing}, signature)
    except errors.TypingError as error:
        raise unfit("point", point, LOOKED_UP) from error


def run(
    point: Any,
    x: np.ndarray,
    t: np.ndarray,
    weight: Operand | None,
    upstream: Operand | None,
    parameters: tuple[Operand | None, ...],
    scale: float,
    values: np.ndarray | None,
    out: np.ndarray | None,
    unit: bool,
) -> float:
    """Sum of the weighted values, unless they go to `values`; the scaled derivative goes to `out`, which may be `x`.

    With `unit` the result is NaN if an element is not between 0 and 1.
    """
    taken = tuple([p is not None for p in parameters])
    shape = weight is not None, upstream is not None, taken, unit, values is not None, out is not None
    return _threads.run(x.size, _kernel(point, x.dtype, *shape), x, t, weight, upstream, parameters, scale, values, out)
