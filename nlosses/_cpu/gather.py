"""Losses of log-probabilities on the CPU: only the label's own element counts, and only there is a gradient."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import prange, types

from .._scalar import product
from . import _threads
from ._blocks import CHUNK, FOLDED, LINE, WIDE, add_chunk, lanes_sum, stack_buffer, total_of, uncounted
from ._jit import array, build, inlined, name_of
from ._streams import IMAGES, flood, lines, streams
from ._vector import (
    load_part,
    load_short,
    pointer,
    prefetch_far,
    settle,
    short_lanes_of,
    store_part,
    stream,
    where_other,
)
from .classwise import ones

#: Positions of one unit of parallel work, if they have no more elements than that.
BLOCK, ELEMENTS = 4096, 32768
#: Up to this many classes each of their indices is a number in float32.
MOST_CLASSES = 1 << 24
#: Bytes from which on `numpy.zeros` hands out memory that the system has cleared, and nobody else has to.
CLEARED = 1 << 25


@inlined
def fetch(x, place, step, inner, y, ignored, weight, weighted, xs, ws):
    """The label's own element of each position and its weight; of those that are ignored 0, and how many these are.

    The element of label l at position i is ``x[place + i * step + l * inner]``.  In one loop, for LLVM would make a slow gather
    of a loop over the weights alone.
    """
    T = xs.dtype.type
    skipped = 0
    for i in range(y.size):
        kept = y[i] != ignored
        label = y[i] if kept else 0
        own = x[place + i * step + label * inner]
        xs[i] = own if kept else T(0)
        if weighted:
            ws[i] = weight[label]
        skipped += not kept
    return skipped


@inlined
def derive(point, curvature, scale, xs, n, us, gs):
    """Values and scaled derivatives of n positions that nothing distinguishes but their elements."""
    T = gs.dtype.type
    for i in range(n):
        u = -np.float64(xs[i])
        value, slope = point(u)
        us[i] = value
        gs[i] = T((-slope if curvature is None else curvature(u)) * scale)


@inlined
def derive_each(point, curvature, scale, xs, ws, weighted, upstream, n, us, gs, own, ups):
    """The same of positions that have weights, or gradients upstream that are theirs alone."""
    T = gs.dtype.type
    for i in range(n):
        own[i] = np.float64(ws[i]) if weighted else 1.0
        ups[i] = 1.0
    if upstream.size > 0:
        for i in range(n):
            ups[i] = np.float64(upstream[i])
    for i in range(n):
        u = product(own[i], -np.float64(xs[i]))
        value, slope = point(u)
        derivative = -own[i] * slope if curvature is None else own[i] * own[i] * curvature(u)
        us[i] = value
        gs[i] = T(product(ups[i], derivative * scale))


@inlined
def clear_ignored(y, ignored, us, gs):
    """Nothing comes of positions that are ignored, whose logits may be anything."""
    T = gs.dtype.type
    for i in range(y.size):
        us[i] = us[i] if y[i] != ignored else 0.0
        gs[i] = gs[i] if y[i] != ignored else T(0)


@inlined
def put(out, place, step, inner, y, ignored, gs):
    """Write derivatives where the labels are."""
    for i in range(y.size):
        out[place + i * step + (y[i] if y[i] != ignored else 0) * inner] = gs[i]


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
def stream_planes(out, place, inner, classes, y, ignored, gs, ys, x, following):
    """The same past the caches; `ys` is a buffer to work in."""
    T = gs.dtype.type
    n = y.size
    target = pointer(out)
    for i in range(n):
        ys[i] = T(y[i]) if y[i] != ignored else T(-1)
    for c in range(classes):
        to = place + c * inner
        first, last = lines(target, to, n)
        store_part(target, to, first, chosen(load_part(ys, 0, first), c, load_part(gs, 0, first)))
        for k in range(first, last, short_lanes_of(gs)):
            stream(target, to + k, chosen(load_short(ys, k), c, load_short(gs, k)))
        store_part(target, to + last, n - last, chosen(load_part(ys, last, n - last), c, load_part(gs, last, n - last)))
        fetch_ahead(x, place, inner, classes, c, following)


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
def block(point, curvature, start, stop, x, target, weight, upstream, classes, inner, ignored, scale, cleared, values, out):
    """Work on the positions start to stop, and return the sum of their values."""
    T = x.dtype.type
    flows = streams(out, x, IMAGES)
    if flows & (inner == 1) & (classes * x.itemsize >= 8 * LINE) & (not cleared):  # the labels are in lines of their own
        flood(pointer(out), start * classes, (stop - start) * classes)
        cleared = True
    weighted = weight.size > 0
    xs, ws, gs, ys = stack_buffer(x.dtype), stack_buffer(x.dtype), stack_buffer(x.dtype), stack_buffer(x.dtype)
    us, own, ups = stack_buffer(WIDE), stack_buffer(WIDE), stack_buffer(WIDE)
    lanes, folded = stack_buffer(WIDE), stack_buffer(WIDE)
    for i in range(FOLDED):
        lanes[i] = 0.0
    total = 0.0
    error = 0.0
    first = start
    while first < stop:  # a run of positions that are neighbours in memory, or of rows
        n = first // inner
        d = first - n * inner
        place = n * classes * inner + d
        run = min(stop - first, CHUNK if inner == 1 else min(CHUNK, inner - d))
        step = classes if inner == 1 else 1
        y = target[first : first + run]
        skipped = fetch(pointer(x), place, step, inner, y, ignored, pointer(weight), weighted, xs, ws)
        if weighted | (upstream.size > 0):
            up = upstream[first : first + run] if upstream.size > 0 else upstream
            derive_each(point, curvature, scale, xs, ws, weighted, up, run, us, gs, own, ups)
        else:
            derive(point, curvature, scale, xs, run, us, gs)
        if skipped > 0:
            clear_ignored(y, ignored, us, gs)
        if values.size > 0:
            for i in range(run):
                values[first + i] = T(us[i])
        total, error = add_chunk(total, error, lanes, us, folded, run)
        if out.size > 0:
            coming = first + run
            following = target[coming : coming + run if d + 2 * run <= inner else coming]
            if cleared | (inner == 1):
                if not cleared:
                    room = out[place : place + run * classes]
                    for k in range(room.size):
                        room[k] = T(0)
                put(pointer(out), place, step, inner, y, ignored, gs)
            elif flows & (classes <= MOST_CLASSES):
                stream_planes(out, place, inner, classes, y, ignored, gs, ys, x, following)
            else:
                write_planes(out, place, inner, classes, y, gs, x, following)
        first += run
    if flows:
        settle()
    return lanes_sum(total, error, lanes)


def make(point, curvature, stamp):
    """The kernel of one loss: of its value and gradient, or with `curvature` of the second derivative."""

    def kernel(x, target, weight, upstream, classes, inner, ignored, scale, cleared, values, out):
        stamp  # noqa: B018  a closure cell, and so a part of the cache key
        x, target, weight, upstream = uncounted(x), uncounted(target), uncounted(weight), uncounted(upstream)
        values, out = uncounted(values), uncounted(out)
        size = max(64, min(BLOCK, ELEMENTS // classes))
        n_blocks = (target.size + size - 1) // size
        partial = np.empty(n_blocks)
        for b in prange(n_blocks):
            start = np.int64(b) * size
            partial[b] = block(
                point, curvature, start, min(start + size, target.size), x, target, weight, upstream, classes, inner, ignored,
                scale, cleared, values, out,
            )  # fmt: skip
        return total_of(partial)

    return kernel


@cache
def _kernel(point: Any, curvature: Any, dtype: Any, parallel: bool) -> Any:
    read, written = array(dtype), array(dtype, writable=True)
    signature = (
        read, array(np.int64), read, read, types.int64, types.int64, types.int64, types.float64, types.boolean,
        written, written,
    )  # fmt: skip
    parts = [name_of(point), "gather", np.dtype(dtype).name]
    parts += ["curvature"] * (curvature is not None) + ["parallel"] * parallel
    return build(make, "_".join(parts), {"point": point, "curvature": curvature}, signature, parallel)


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
    cleared: bool,
    values: np.ndarray | None,
    out: np.ndarray | None,
) -> float:
    """As `classwise.run`, for log-probabilities; with `curvature`, `out` is the diagonal of the Hessian.

    Where `out` is `cleared` it has zeros already.
    """
    none = ones(0, x.dtype)
    return _threads.run(
        target.size if out is None else max(target.size, out.size), _kernel, (point, curvature, x.dtype), x, target,
        none if weight is None else weight, none if upstream is None else upstream, *layout, ignored, scale, cleared,
        none if values is None else values, none if out is None else out,
    )  # fmt: skip
