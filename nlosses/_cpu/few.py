"""Losses of log-probabilities of few classes, in rows: their elements are found and put in registers.

So many positions as a vector has lanes are as many vectors as there are classes, all of which are read and written in order.
The label of a position says in which vector its own element is, and in which lane.  For machines that have tables.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import types

from . import _vector
from ._blocks import BLOCK, CHUNK, WIDE, add_chunk, closed, rounder_of, stack_buffer, uncounted
from ._derived import derive_run
from ._indices import as_expected, worthwhile
from ._jit import array, build, inlined, name_of
from ._shares import gathered, own_blocks, spread
from ._vector import choice, filled_short, load_part, load_short, permuted, pointer, short_lanes_of, store_part
from .labels import read_labels

#: Up to so many bytes of classes; of more it is quicker to go to each label's element alone.
MOST = 32


@inlined
def lay_out(classes, lanes, begin, source, kind):
    """Tell where the row of each lane begins, and of each element of these rows the lane of its position, in the low bits, and
    its class.
    """
    T = begin.dtype.type
    for p in range(lanes):
        begin[p] = T(p * classes)
    for k in range(lanes * classes):
        source[k] = T(k // classes) + rounder_of(begin)
        kind[k] = T(k % classes)


@inlined
def found(x, at, stop, whole, classes, label, begin, rounder):
    """Of each lane the element of its label, in rows from element `at` of x on; nothing is read from `stop` on."""
    T, lanes = type(rounder), short_lanes_of(x)
    index = label + begin
    part = ((index - T(0.5) * T(lanes - 1)) * (T(1) / T(lanes)) + rounder) - rounder  # the vector that it is in
    lane = index + rounder
    own = c = filled_short(x, 0.0)
    for j in range(classes):
        first = at + j * lanes
        elements = load_short(x, first) if whole else load_part(x, first, max(0, min(stop - first, lanes)))
        own = own + choice(part == c, permuted(elements, lane), T(0))
        c = c + T(1)
    return choice(label >= T(0), own, T(0))


@inlined
def fetch(x, place, classes, n, labels, begin, xs):
    """The label's own element of each position; of those that are ignored 0."""
    rounder, lanes, stop = rounder_of(xs), short_lanes_of(xs), place + n * classes
    begins = load_short(begin, 0)
    whole = n - n % lanes
    for g in range(0, whole, lanes):
        label = load_short(labels, g)
        _vector.store(xs, g, found(x, place + g * classes, stop, True, classes, label, begins, rounder))
    if whole < n:
        label = load_short(labels, whole)
        _vector.store(xs, whole, found(x, place + whole * classes, stop, False, classes, label, begins, rounder))


@inlined
def write(out, place, classes, n, labels, gs, source, kind):
    """Write a derivative where the label of its position is, and zeros elsewhere."""
    lanes = short_lanes_of(gs)
    whole = n - n % lanes
    for g in range(0, whole, lanes):
        label, number = load_short(labels, g), load_short(gs, g)
        for k in range(0, classes * lanes, lanes):
            _vector.store(out, place + g * classes + k, rows(label, number, source, kind, k))
    if whole < n:
        label, number = load_short(labels, whole), load_short(gs, whole)
        left = (n - whole) * classes
        for k in range(0, left, lanes):
            store_part(out, place + whole * classes + k, min(left - k, lanes), rows(label, number, source, kind, k))


@inlined
def rows(label, number, source, kind, k):
    """The elements from k on of the rows of a vector of positions."""
    lane = load_short(source, k)
    return choice(permuted(label, lane) == load_short(kind, k), permuted(number, lane), 0.0)


@inlined
def block(point, curvature, start, stop, x, target, expected, weight, upstream, classes, ignored, scale, values, out):
    """Work on the positions start to stop, and return the sum of their values."""
    xs, ws, gs, ys = stack_buffer(x.dtype), stack_buffer(x.dtype), stack_buffer(x.dtype), stack_buffer(x.dtype)
    begin, source, kind = stack_buffer(x.dtype), stack_buffer(x.dtype), stack_buffer(x.dtype)
    us, own, ups = stack_buffer(WIDE), stack_buffer(WIDE), stack_buffer(WIDE)
    step = short_lanes_of(x)
    lay_out(classes, step, begin, source, kind)
    total = 0.0
    error = 0.0
    for first in range(start, stop, CHUNK):
        run = min(stop - first, CHUNK)
        if not as_expected(target, first, first + run, classes, ignored, expected):
            total = np.nan
            break
        y = target[first : first + run]
        skipped = read_labels(y, ignored, ys, run + -run % step)
        fetch(pointer(x), first * classes, classes, run, ys, begin, xs)
        derive_run(
            point, curvature, scale, y, ignored, skipped, weight, upstream, first, xs, ws, us, gs, own, ups, values
        )  # fmt: skip
        total, error = add_chunk(total, error, us, run)
        if out.size > 0:
            write(pointer(out), first * classes, classes, run, ys, gs, source, kind)
    return closed(total, error)


def make(point, curvature, stamp):
    """The kernel of one loss: of its value and gradient, or with `curvature` of the second derivative."""

    def kernel(told, x, target, expected, weight, upstream, classes, ignored, scale, values, out):
        stamp  # noqa: B018  a closure cell, and so a part of the cache key
        x, target, weight, upstream = uncounted(x), uncounted(target), uncounted(weight), uncounted(upstream)
        values, out = uncounted(values), uncounted(out)
        n_blocks = (target.size + BLOCK - 1) // BLOCK
        if told > 0:
            return spread(told, n_blocks)
        total = 0.0
        error = 0.0
        first, last, room = own_blocks(told, n_blocks)
        for b in range(first, last):
            start = b * BLOCK
            block_sum = np.nan
            if worthwhile(expected, total):
                block_sum = block(
                    point, curvature, start, min(start + BLOCK, target.size), x, target, expected, weight, upstream, classes,
                    ignored, scale, values, out,
                )  # fmt: skip
            total, error = gathered(total, error, room, b, block_sum)
        return closed(total, error)

    return kernel


@cache
def kernel(point: Any, curvature: Any, dtype: Any) -> Any:
    read, written = array(dtype), array(dtype, writable=True)
    signature = (
        types.int64, read, array(np.int64), types.int64, read, read, types.int64, types.int64, types.float64, written, written,
    )  # fmt: skip
    parts = [name_of(point), "few", np.dtype(dtype).name]
    parts += ["curvature"] * (curvature is not None)
    return build(make, "_".join(parts), {"point": point, "curvature": curvature}, signature)
