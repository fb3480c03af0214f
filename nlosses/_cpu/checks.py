"""What is asked of the contents before anything is computed: domains of elements, ranges of class indices, sums of weights."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import prange, types

from . import _threads
from ._blocks import BLOCK, CHUNK, WIDE, add, add_chunk, closed, stack_buffer, total_of
from ._jit import array, build

#: Labels that take as long as one element of a loss, and those with weights.
LABELS, WEIGHTED = 8, 2


def make_leaves(stamp):
    def kernel(x, low, high):
        stamp  # noqa: B018  a closure cell, and so a part of the cache key
        lo = x.dtype.type(low)
        hi = x.dtype.type(high)
        n_blocks = (x.size + BLOCK - 1) // BLOCK
        bad = 0
        for b in prange(n_blocks):
            start = np.int64(b) * BLOCK
            xs = x[start : min(start + BLOCK, x.size)]
            outside = 0
            for i in range(xs.size):
                outside |= not (xs[i] >= lo and xs[i] <= hi)
            bad += outside
        return bad != 0

    return kernel


@cache
def _leaves(dtype: Any, parallel: bool) -> Any:
    signature = (array(dtype), types.float64, types.float64)
    return build(make_leaves, f"leaves_{np.dtype(dtype).name}" + "_parallel" * parallel, {}, signature, parallel)


def leaves(x: np.ndarray, low: float, high: float) -> bool:
    """Whether an element of the 1-D array `x` is outside [low, high] or NaN."""
    if x.size < _threads.SMALL:  # what `run` would find too
        return _leaves(x.dtype, False)(x, low, high)
    return _threads.run(x.size, _leaves, (x.dtype,), x, low, high)


def make_census(weighted, stamp):
    def kernel(target, classes, ignored, weight):
        stamp  # noqa: B018  a closure cell, and so a part of the cache key
        n_blocks = (target.size + BLOCK - 1) // BLOCK
        partial, bad = np.empty(n_blocks), np.empty(n_blocks, np.int64)
        for b in prange(n_blocks):
            start = np.int64(b) * BLOCK
            stop = min(start + BLOCK, target.size)
            outside = 0
            counted = 0
            total = 0.0
            error = 0.0
            own = stack_buffer(WIDE)
            for lo in range(start, stop, CHUNK):
                ys = target[lo : min(lo + CHUNK, stop)]
                for i in range(ys.size):
                    y = ys[i]
                    skipped = y == ignored
                    inside = np.uint64(y) < np.uint64(classes)  # a negative one is huge without its sign
                    outside += not (inside | skipped)
                    counted += not skipped
                    if weighted:
                        counts = inside & (not skipped)
                        own[i] = np.float64(weight[y]) if counts else 0.0
                if weighted:
                    total, error = add_chunk(total, error, own, ys.size)
            bad[b] = outside
            partial[b] = closed(total, error) if weighted else np.float64(counted)
        return bad.sum(), total_of(partial)

    return kernel


@cache
def _census(dtype: Any, parallel: bool) -> Any:
    weight = types.none if dtype is None else array(dtype)
    signature = (array(np.int64), types.int64, types.int64, weight)
    name = "census" if dtype is None else f"census_{np.dtype(dtype).name}"
    return build(make_census, name + "_parallel" * parallel, {"weighted": dtype is not None}, signature, parallel)


def census(target: np.ndarray, classes: int, ignored: int, weight: np.ndarray | None) -> tuple[int, float]:
    """Number of class indices out of range, and the sum of the weights of the rows that are not ignored."""
    key = (None if weight is None else weight.dtype,)
    return _threads.run(target.size // (LABELS if weight is None else WEIGHTED), _census, key, target, classes, ignored, weight)


def make_total(stamp):
    def kernel(x):
        stamp  # noqa: B018  a closure cell, and so a part of the cache key
        n_blocks = (x.size + BLOCK - 1) // BLOCK
        partial = np.empty(n_blocks)
        for b in prange(n_blocks):
            lo = np.int64(b) * BLOCK
            xs = x[lo : min(lo + BLOCK, x.size)]
            s = 0.0
            for i in range(xs.size):
                s = add(s, np.float64(xs[i]))
            partial[b] = s
        return total_of(partial)

    return kernel


@cache
def _total(dtype: Any, parallel: bool) -> Any:
    return build(make_total, f"total_{np.dtype(dtype).name}" + "_parallel" * parallel, {}, (array(dtype),), parallel)


def total(x: np.ndarray) -> float:
    """Sum of a 1-D array of float32 or float64, in float64."""
    return _threads.run(x.size, _total, (x.dtype,), x)
