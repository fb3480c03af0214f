"""What is asked of the contents before anything is computed: domains of elements, ranges of class indices, sums of weights."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import types

from . import _threads
from ._blocks import BLOCK, CHUNK, WIDE, add, add_chunk, closed, stack_buffer
from ._derived import weights_of
from ._indices import all_within, within
from ._jit import array, build, inlined
from ._shares import ALONE, gathered, own_blocks, spread
from ._unit import leave_unit
from ._vector import pointer

#: Labels that take as long as one element of a loss, and those with weights.
LABELS, WEIGHTED = 8, 2


@inlined
def leave_interval(x, interval, first, n):
    """Whether one of n elements, from the `first` on, is not in an interval."""
    T = x.dtype.type
    low, high = T(interval[0]), T(interval[1])
    outside = 0
    xs = x[first : first + n]
    for i in range(n):
        outside |= not (xs[i] >= low and xs[i] <= high)
    return outside != 0


def make_leaves(leave, stamp):
    """The kernel that counts blocks of x which `leave` what is allowed; it is given something beside them."""

    def kernel(told, x, given):
        stamp  # noqa: B018  a closure cell, and so a part of the cache key
        n_blocks = (x.size + BLOCK - 1) // BLOCK
        if told > 0:
            return spread(told, n_blocks)
        total = 0.0
        error = 0.0
        first, last, room = own_blocks(told, n_blocks)
        for b in range(first, last):
            outside = leave(x, given, b * BLOCK, min(BLOCK, x.size - b * BLOCK))
            total, error = gathered(total, error, room, b, np.float64(outside))
        return closed(total, error)

    return kernel


@cache
def _leaves(dtype: Any) -> Any:
    signature = (types.int64, array(dtype), types.UniTuple(types.float64, 2))
    return build(make_leaves, f"leaves_{np.dtype(dtype).name}", {"leave": leave_interval}, signature)


@cache
def _leave_unit(dtype: Any) -> Any:
    signature = (types.int64, array(dtype), array(dtype))
    return build(make_leaves, f"leave_unit_{np.dtype(dtype).name}", {"leave": leave_unit}, signature)


def _found(kernel: Any, x: np.ndarray, given: Any) -> bool:
    if x.size < _threads.SMALL:  # what `run` would find too
        return kernel(ALONE, x, given) > 0.0
    return _threads.run(x.size, kernel, x, given) > 0.0


def leaves(x: np.ndarray, low: float, high: float) -> bool:
    """Whether an element of the 1-D array `x` is outside [low, high] or NaN."""
    return _found(_leaves(x.dtype), x, (low, high))


def pair_leaves_unit(x: np.ndarray, t: np.ndarray) -> bool:
    """Whether an element of two 1-D arrays alike is not between 0 and 1: as `leaves` of each, in half the time."""
    return _found(_leave_unit(x.dtype), x, t)


@inlined
def sum_of_weights(weight, labels, ignored, plain):
    """The weights of labels that are all within or, unless all are `plain`, ignored."""
    own = stack_buffer(WIDE)
    total = 0.0
    error = 0.0
    for lo in range(0, labels.size, CHUNK):
        ys = labels[lo : lo + CHUNK]
        weights_of(weight, ys, ignored, own)
        if not plain:
            for i in range(ys.size):
                own[i] = 0.0 if ys[i] == ignored else own[i]
        total, error = add_chunk(total, error, own, ys.size)
    return closed(total, error)


def make_census(weighted, stamp):
    def kernel(told, target, classes, ignored, weight):
        stamp  # noqa: B018  a closure cell, and so a part of the cache key
        n_blocks = (target.size + BLOCK - 1) // BLOCK
        if told > 0:
            return spread(told, n_blocks)
        all_blocks = 0.0
        lost = 0.0
        first, last, room = own_blocks(told, n_blocks)
        plain = not within(ignored, classes)  # as long as all labels are within, which is quicker to see
        for b in range(first, last):
            labels = target[b * BLOCK : min((b + 1) * BLOCK, target.size)]
            if plain:
                plain = all_within(labels, classes)
            outside = 0
            counted = labels.size
            if not plain:
                counted = 0
                for i in range(labels.size):
                    skipped = labels[i] == ignored
                    outside += not (within(labels[i], classes) | skipped)
                    counted += not skipped
            block_sum = np.float64(counted)
            if weighted:
                block_sum = np.float64(0.0)
                if outside == 0:
                    block_sum = sum_of_weights(pointer(weight), labels, ignored, plain)
            if outside > 0:
                block_sum = np.nan
            all_blocks, lost = gathered(all_blocks, lost, room, b, block_sum)
        return closed(all_blocks, lost)

    return kernel


@cache
def _census(dtype: Any) -> Any:
    weight = types.none if dtype is None else array(dtype)
    signature = (types.int64, array(np.int64), types.int64, types.int64, weight)
    name = "census" if dtype is None else f"census_{np.dtype(dtype).name}"
    return build(make_census, name, {"weighted": dtype is not None}, signature)


def census(target: np.ndarray, classes: int, ignored: int, weight: np.ndarray | None) -> tuple[bool, float]:
    """Whether a class index is out of range, and the sum of the weights of the rows that are not ignored."""
    kernel = _census(None if weight is None else weight.dtype)
    total = _threads.run(target.size // (LABELS if weight is None else WEIGHTED), kernel, target, classes, ignored, weight)
    bad = total != total
    if bad and weight is not None:  # a weight may be NaN
        bad = bool((((target < 0) | (target >= classes)) & (target != ignored)).any())
    return bad, total


def make_total(stamp):
    def kernel(told, x):
        stamp  # noqa: B018  a closure cell, and so a part of the cache key
        n_blocks = (x.size + BLOCK - 1) // BLOCK
        if told > 0:
            return spread(told, n_blocks)
        all_blocks = 0.0
        lost = 0.0
        first, last, room = own_blocks(told, n_blocks)
        for b in range(first, last):
            xs = x[b * BLOCK : min((b + 1) * BLOCK, x.size)]
            s = 0.0
            for i in range(xs.size):
                s = add(s, np.float64(xs[i]))
            all_blocks, lost = gathered(all_blocks, lost, room, b, s)
        return closed(all_blocks, lost)

    return kernel


@cache
def _total(dtype: Any) -> Any:
    return build(make_total, f"total_{np.dtype(dtype).name}", {}, (types.int64, array(dtype)))


def total(x: np.ndarray) -> float:
    """Sum of a 1-D array of float32 or float64, in float64."""
    return _threads.run(x.size, _total(x.dtype), x)
