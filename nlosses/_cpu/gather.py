"""Losses of log-probabilities on the CPU: only the label's own element counts, and only there is a gradient."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numba import types

from . import _threads, few
from ._blocks import CHUNK, LINE, WIDE, add_chunk, closed, stack_buffer, uncounted
from ._derived import derive_run
from ._indices import CHECKED, as_expected, worthwhile
from ._jit import array, build, inlined, name_of
from ._shares import ALONE, gathered, own_blocks, spread
from ._streams import IMAGES, flood, lines, streams
from ._vector import (
    has_tables,
    late,
    load_part,
    load_short,
    pick,
    pointer,
    prefetch_far,
    put,
    settle,
    short_lanes_of,
    store,
    store_part,
    stream,
    where_other,
)
from .classwise import ones
from .tiles import INDEX

#: Positions of one unit of parallel work, if they have no more elements than that, but no fewer than a vector or two; of rows
#: fewer still, if those had more than so many elements, and of large images whole chunks, however many elements these have.
BLOCK, ELEMENTS = 4096, 32768
FEWEST, MOST_ELEMENTS = 64, 1 << 19
#: Up to this many classes each of their indices is a number in float32.
MOST_CLASSES = 1 << 24


@inlined
def find(y, ignored, place, step, inner, at):
    """Where the label's own element of each position is: that of label l at position i is ``x[place + i * step + l * inner]``.

    Of positions that are ignored it is that of class 0; the result is how many these are.
    """
    skipped = 0
    for i in range(y.size):
        kept = y[i] != ignored
        at[i] = place + i * step + (y[i] if kept else 0) * inner
        skipped += not kept
    return skipped


@inlined
def fetch(x, at, n, xs):
    for i in range(n):
        xs[i] = pick(x, at[i])


@inlined
def write_planes(out, place, inner, classes, y, gs, x, following):
    """Write a class after the other, of positions that are neighbours in memory, and meanwhile have the elements fetched of
    as many labels that are `following`, if any.
    """
    T = gs.dtype.type
    n = y.size
    for c in range(classes):
        room = out[place + c * inner : place + c * inner + n]
        for i in range(n):
            room[i] = gs[i] if y[i] == c else T(0)
        fetch_ahead(x, place, inner, classes, c, following)


@inlined
def stream_planes(out, place, inner, classes, y, ignored, gs, ys, begins, ends, x, following):
    """The same past the caches; `ys` is a buffer to work in.

    Unless it `ends` here, a run of neighbours leaves those that fill no line to the next positions, before the buffers, and it
    `begins` with none.
    """
    T = gs.dtype.type
    n, target, step = y.size, pointer(out), short_lanes_of(gs)
    labels, results = pointer(ys), pointer(gs)
    for i in range(n):
        ys[i] = T(y[i]) if y[i] != ignored else T(-1)
    for c in range(classes):
        to = place + c * inner
        behind = 0 if begins else late(target, to)
        first, last = lines(target, to - behind, n + behind)
        if begins:
            store_part(target, to, first, chosen(load_part(labels, 0, first), c, load_part(results, 0, first)))
        for k in range(first - behind, last - behind, step):
            stream(target, to + k, chosen(load_short(labels, k), c, load_short(results, k)))
        if ends:
            k, rest = last - behind, n + behind - last
            store_part(target, to + k, rest, chosen(load_part(labels, k, rest), c, load_part(results, k, rest)))
        fetch_ahead(x, place, inner, classes, c, following)
    if not ends:
        store(labels, -step, load_short(labels, n - step))
        store(results, -step, load_short(results, n - step))


@inlined
def chosen(labels, c, g):
    return where_other(labels, c, 0.0, g)


@inlined
def fetch_ahead(x, place, inner, classes, c, following):
    """Have a share of the elements fetched that follow, one for each of the classes."""
    n = following.size
    for i in range(n * c // classes, n * (c + 1) // classes):
        prefetch_far(pointer(x), place + n + i + following[i] * inner)


@inlined
def block(point, curvature, start, stop, x, target, expected, weight, upstream, classes, inner, ignored, scale, values, out):
    """Work on the positions start to stop, and return the sum of their values."""
    T = x.dtype.type
    flows = streams(out, x, IMAGES)
    flooded = flows & (inner == 1) & (classes * x.itemsize >= 8 * LINE)  # the labels are in lines of their own
    if flooded:
        flood(pointer(out), start * classes, (stop - start) * classes)
    xs, ws, gs, ys = stack_buffer(x.dtype), stack_buffer(x.dtype), stack_buffer(x.dtype), stack_buffer(x.dtype)
    at = stack_buffer(INDEX)
    us, own, ups = stack_buffer(WIDE), stack_buffer(WIDE), stack_buffer(WIDE)
    total = 0.0
    error = 0.0
    first = start
    begins = True
    while first < stop:  # a run of positions that are neighbours in memory, or of rows
        n = first // inner
        d = first - n * inner
        place = n * classes * inner + d
        run = min(stop - first, CHUNK if inner == 1 else min(CHUNK, inner - d))
        step = classes if inner == 1 else 1
        if not as_expected(target, first, first + run, classes, ignored, expected):
            total = np.nan
            break
        y = target[first : first + run]
        skipped = find(y, ignored, place, step, inner, at)
        fetch(pointer(x), at, run, xs)
        derive_run(
            point, curvature, scale, y, ignored, skipped, weight, upstream, first, xs, ws, us, gs, own, ups, values
        )  # fmt: skip
        total, error = add_chunk(total, error, us, run)
        if out.size > 0:
            coming = first + run
            ends = (d + run == inner) | (coming == stop)  # or the run is a whole chunk
            following = target[coming : coming + run if d + 2 * run <= inner else coming]
            if inner == 1:
                if not flooded:
                    room = out[place : place + run * classes]
                    for k in range(room.size):
                        room[k] = T(0)
                for i in range(run):
                    put(pointer(out), at[i], gs[i])
            elif flows & (classes <= MOST_CLASSES):
                stream_planes(out, place, inner, classes, y, ignored, gs, ys, begins, ends, x, following)
            else:
                write_planes(out, place, inner, classes, y, gs, x, following)
            begins = ends
        first += run
    if flows:
        settle()
    return closed(total, error)


def make(point, curvature, stamp):
    """The kernel of one loss: of its value and gradient, or with `curvature` of the second derivative."""

    def kernel(told, x, target, expected, weight, upstream, classes, inner, ignored, scale, values, out):
        stamp  # noqa: B018  a closure cell, and so a part of the cache key
        x, target, weight, upstream = uncounted(x), uncounted(target), uncounted(weight), uncounted(upstream)
        values, out = uncounted(values), uncounted(out)
        fewest = FEWEST if inner > 1 else max(1, min(FEWEST, MOST_ELEMENTS // classes))
        size = max(fewest, min(BLOCK, ELEMENTS // classes))
        if (inner > 1) & (target.size >= 64 * CHUNK):  # the ends of what a block writes share lines with others
            size = min(BLOCK, target.size // 64) // CHUNK * CHUNK
        n_blocks = (target.size + size - 1) // size
        if told > 0:
            return spread(told, n_blocks)
        total = 0.0
        error = 0.0
        first, last, room = own_blocks(told, n_blocks)
        for b in range(first, last):
            start = b * size
            block_sum = np.nan
            if worthwhile(expected, total):
                block_sum = block(
                    point, curvature, start, min(start + size, target.size), x, target, expected, weight, upstream, classes,
                    inner, ignored, scale, values, out,
                )  # fmt: skip
            total, error = gathered(total, error, room, b, block_sum)
        return closed(total, error)

    return kernel


@cache
def _kernel(point: Any, curvature: Any, dtype: Any) -> Any:
    read, written = array(dtype), array(dtype, writable=True)
    signature = (
        types.int64, read, array(np.int64), types.int64, read, read, types.int64, types.int64, types.int64, types.float64,
        written, written,
    )  # fmt: skip
    parts = [name_of(point), "gather", np.dtype(dtype).name]
    parts += ["curvature"] * (curvature is not None)
    return build(make, "_".join(parts), {"point": point, "curvature": curvature}, signature)


def are_few(layout: tuple[int, int], itemsize: int) -> bool:
    """Whether `few` serves a layout of (classes, inner)."""
    classes, inner = layout
    return inner == 1 and classes * itemsize <= few.MOST and has_tables()


def serial(point: Any, dtype: Any, classes: int) -> Callable[[np.ndarray, np.ndarray, int, int, float, np.ndarray], float]:
    """As `classwise.serial`, for log-probabilities."""
    none = ones(0, dtype)
    if are_few((classes, 1), dtype.itemsize):
        kernel = few.kernel(point, None, dtype)
        layout: tuple[int, ...] = (classes,)
    else:
        kernel = _kernel(point, None, dtype)
        layout = classes, 1

    def sum_of(x: np.ndarray, target: np.ndarray, expected: int, ignored: int, scale: float, out: np.ndarray) -> float:
        return kernel(ALONE, x, target, expected, none, none, *layout, ignored, scale, none, out)

    return sum_of


def run(
    point: Any,
    curvature: Any,
    x: np.ndarray,
    layout: tuple[int, int],
    target: np.ndarray,
    weight: np.ndarray | None,
    upstream: np.ndarray | None,
    ignored: int,
    scale: float,
    values: np.ndarray | None,
    out: np.ndarray | None,
    expected: int = CHECKED,
) -> float:
    """As `classwise.run`, for log-probabilities; with `curvature`, `out` is the diagonal of the Hessian."""
    none = ones(0, x.dtype)
    read = x, target, expected, none if weight is None else weight, none if upstream is None else upstream
    written = none if values is None else values, none if out is None else out
    key, size = (point, curvature, x.dtype), target.size if out is None else max(target.size, out.size)
    if are_few(layout, x.itemsize):
        return _threads.run(size, few.kernel(*key), *read, layout[0], ignored, scale, *written)
    return _threads.run(size, _kernel(*key), *read, *layout, ignored, scale, *written)
