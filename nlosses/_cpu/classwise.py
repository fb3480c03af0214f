"""Classwise losses on the CPU: which driver serves which layout, and the kernels of log-probabilities."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

import numpy as np
from numba import prange, types

from .._scalar import product
from . import _threads, label_rows, rows, tiles
from . import labels as of_labels
from ._blocks import CHUNK, FOLDED, LINE, WIDE, add_chunk, as_in, lanes_sum, stack_buffer, total_of, uncounted
from ._jit import array, build, inlined, name_of
from ._streams import flood, flow, streams
from ._vector import pointer, settle

#: Up to this many bytes of classes a tile of rows is quicker than row after row.
FEW = 192
#: Rows of one unit of parallel work of `make_gather`, if they have no more elements than that.
BLOCK, ELEMENTS = 4096, 32768
LABEL_TYPE = np.int32  # there are no more classes in a memory, and it is as wide as float32
LABEL = np.dtype(LABEL_TYPE)


@lru_cache(maxsize=64)
def _ones(classes: int, dtype: Any) -> np.ndarray:
    """Weights where there are none; and what else is absent, of no classes."""
    return np.ones(classes, dtype)


def driver_of(layout: tuple[int, int], itemsize: int, plain: bool = False) -> Any:
    """The module of the driver for a layout of (classes, inner); `plain` is the gradient or value of class indices alone."""
    classes, inner = layout
    if plain and inner == 1:
        return of_labels if classes * itemsize <= of_labels.FEW else label_rows
    if plain and classes <= of_labels.MOST_CLASSES:
        return of_labels
    return tiles if inner > 1 or classes * itemsize <= FEW else rows


def make(point, curvature, finish, block, per_block, stamp):
    """The kernel of one loss, one derivative (`finish`, or None for the value alone) and one driver (`block`)."""

    def kernel(
        x, labels, probabilities, weight, vector, upstream, classes, inner, lanes, keep, even, ignored, scale, values, out
    ):
        stamp  # noqa: B018  a closure cell, and so a part of the cache key
        x, labels, probabilities, weight = uncounted(x), uncounted(labels), uncounted(probabilities), uncounted(weight)
        vector, upstream, values, out = uncounted(vector), uncounted(upstream), uncounted(values), uncounted(out)
        positions = x.size // classes
        size = per_block(positions, classes, lanes)
        n_blocks = (positions + size - 1) // size
        partial = np.empty(n_blocks)
        kept = as_in(keep, x)
        evenly = as_in(even, x)
        for b in prange(n_blocks):
            start = np.int64(b) * size
            partial[b] = block(
                point, curvature, finish, start, min(start + size, positions), x, labels, probabilities, weight, vector,
                upstream, classes, inner, lanes, kept, evenly, ignored, scale, values, out,
            )  # fmt: skip
        return total_of(partial)

    return kernel


@cache
def _kernel(
    point: Any, curvature: Any, mode: str, dtype: Any, driver: Any, labelled: bool | None, smooth: bool, parallel: bool
) -> Any:
    finish = driver.FINISH.get(mode)
    read, written = array(dtype), array(dtype, writable=True)
    signature = (
        read,
        array(np.int64) if labelled is True else types.none,
        read if labelled is False else types.none,
        read, read if mode == "hvp" else types.none, read,
        types.int64, types.int64, types.int64,
        types.float64, types.float64 if smooth else types.none, types.int64, types.float64,
        written, types.none if finish is None else written,
    )  # fmt: skip
    cells = {
        "point": point, "curvature": curvature if mode in ("hessian", "hvp") else None, "finish": finish,
        "block": driver.block, "per_block": driver.per_block,
    }  # fmt: skip
    parts = [name_of(point), mode, np.dtype(dtype).name, driver.__name__.rpartition(".")[2]]
    parts += ["labels"] * (labelled is True) + ["probabilities"] * (labelled is False) + ["smooth"] * smooth
    parts += ["parallel"] * parallel
    return build(make, "_".join(parts), cells, signature, parallel)


def run(
    point: Any,
    curvature: Any,
    mode: str,
    x: np.ndarray,
    layout: tuple[int, int],
    target: np.ndarray | None = None,
    weight: np.ndarray | None = None,
    vector: np.ndarray | None = None,
    upstream: np.ndarray | None = None,
    keep: float = 1.0,
    even: float | None = None,
    ignored: int = -1,
    scale: float = 1.0,
    values: np.ndarray | None = None,
    out: np.ndarray | None = None,
) -> float:
    """Sum of the values of all rows, which go to `values` too if that is given; the scaled derivative goes to `out`, which may
    be `x`.

    `layout` is (classes, inner): `x` is flat and of the shape (N, classes, inner).  The modes are the functions of
    `rows.FINISH`, and "value".
    """
    classes, inner = layout
    labelled = None if target is None else target.dtype.kind == "i"
    driver = driver_of(layout, x.itemsize, bool(labelled) and even is None and mode in of_labels.MODES)
    none = _ones(0, x.dtype)
    key = (point, curvature, mode, x.dtype, driver, labelled, even is not None)
    return _threads.run(
        x.size, _kernel, key, x, target if labelled is True else None, target if labelled is False else None,
        _ones(classes, x.dtype) if weight is None else weight, vector, none if upstream is None else upstream,
        classes, inner, tiles.lanes_for(classes, x.size // classes, inner, x.itemsize), keep, even, ignored, scale,
        none if values is None else values, out,
    )  # fmt: skip


@inlined
def fetch(x, place, step, inner, y, ignored, xs, labels):
    """The label's own element of each position, and the labels; for those that are ignored both are 0, and how many they are.

    The element of label l at position i is ``x[place + i * step + l * inner]``.
    """
    T = x.dtype.type
    skipped = 0
    for i in range(y.size):
        kept = y[i] != ignored
        label = y[i] if kept else 0
        own = x[place + i * step + label * inner]
        xs[i] = own if kept else T(0)
        labels[i] = label
        skipped += not kept
    return skipped


def make_gather(point, curvature, stamp):
    """Losses of log-probabilities: only the label's own element counts, and only there is a gradient, or with `curvature` a
    second derivative.
    """

    def kernel(x, target, weight, upstream, classes, inner, ignored, scale, values, out):
        stamp  # noqa: B018  a closure cell, and so a part of the cache key
        x, target, weight, upstream = uncounted(x), uncounted(target), uncounted(weight), uncounted(upstream)
        values, out = uncounted(values), uncounted(out)
        T = x.dtype.type
        size = max(64, min(BLOCK, ELEMENTS // classes))
        n_blocks = (target.size + size - 1) // size
        partial = np.empty(n_blocks)
        weighted = weight.size > 0
        # Of rows whose labels are all in lines of their own, the zeros between them.
        flows = streams(out, x) & ((inner > 1) | (classes * x.itemsize >= 8 * LINE))
        for b in prange(n_blocks):
            start = np.int64(b) * size
            stop = min(start + size, target.size)
            total = 0.0
            error = 0.0
            if out.size > 0 and inner == 1:
                room = out[start * classes : stop * classes]
                if flows:
                    flood(pointer(out), start * classes, room.size)
                else:
                    for k in range(room.size):
                        room[k] = T(0)
            xs, gs, row, labels = stack_buffer(x.dtype), stack_buffer(x.dtype), stack_buffer(x.dtype), stack_buffer(LABEL)
            own, us, ups = stack_buffer(WIDE), stack_buffer(WIDE), stack_buffer(WIDE)
            lanes, folded = stack_buffer(WIDE), stack_buffer(WIDE)
            for i in range(FOLDED):
                lanes[i] = 0.0
            first = start
            while first < stop:  # a run of positions that are neighbours in memory, or of rows
                n = first // inner
                d = first - n * inner
                place = n * classes * inner + d
                step = classes if inner == 1 else 1
                run = min(stop - first, CHUNK if inner == 1 else min(CHUNK, inner - d))
                y = target[first : first + run]
                skipped = fetch(x, place, step, inner, y, ignored, xs, labels)
                for i in range(run):
                    own[i] = 1.0
                    ups[i] = 1.0
                if weighted:
                    for i in range(run):
                        own[i] = np.float64(weight[labels[i]])
                if upstream.size > 0:
                    for i in range(run):
                        ups[i] = np.float64(upstream[first + i])
                for i in range(run):
                    u = product(own[i], -np.float64(xs[i]))
                    value, slope = point(u)
                    derivative = -own[i] * slope if curvature is None else own[i] * own[i] * curvature(u)
                    us[i] = value
                    gs[i] = T(product(ups[i], derivative * scale))
                if skipped > 0:
                    for i in range(run):
                        us[i] = us[i] if y[i] != ignored else 0.0
                        gs[i] = gs[i] if y[i] != ignored else T(0)
                if values.size > 0:
                    for i in range(run):
                        values[first + i] = T(us[i])
                total, error = add_chunk(total, error, lanes, us, folded, run)
                if out.size > 0 and inner == 1:
                    for i in range(run):
                        out[place + i * step + labels[i]] = gs[i]
                elif out.size > 0:  # class by class, for writing here and there takes twice as long
                    for c in range(classes):
                        lo = place + c * inner
                        room = row if flows else out[lo : lo + run]
                        for i in range(run):
                            room[i] = gs[i] if labels[i] == LABEL_TYPE(c) else T(0)
                        if flows:
                            flow(pointer(out), lo, pointer(row), run)
                first += run
            partial[b] = lanes_sum(total, error, lanes)
            if flows:
                settle()
        return total_of(partial)

    return kernel


@cache
def _gather(point: Any, curvature: Any, dtype: Any, parallel: bool) -> Any:
    read, written = array(dtype), array(dtype, writable=True)
    signature = (
        read, array(np.int64), read, read, types.int64, types.int64, types.int64, types.float64, written, written
    )  # fmt: skip
    parts = [name_of(point), "gather", np.dtype(dtype).name]
    parts += ["curvature"] * (curvature is not None) + ["parallel"] * parallel
    return build(make_gather, "_".join(parts), {"point": point, "curvature": curvature}, signature, parallel)


def gather(
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
) -> float:
    """As `run`, for log-probabilities.  With `curvature`, `out` is the diagonal of the Hessian."""
    none = _ones(0, x.dtype)
    return _threads.run(
        target.size, _gather, (point, curvature, x.dtype), x, target,
        none if weight is None else weight, none if upstream is None else upstream, *layout, ignored, scale,
        none if values is None else values, none if out is None else out,
    )  # fmt: skip
