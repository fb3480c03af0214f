"""Denominators, computed where the weights and the class indices are."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from ._backend import Kernel, build, cuda, load
from ._blocks import DENOMINATOR, GRID, WARP, finish, threads_of

THREADS = threads_of(256)
WARPS = THREADS // WARP


def make_total(threads, warps, stamp):
    def kernel(x, n, partial, counter, results, seen):
        stamp  # noqa: B018  a closure cell, and so a part of the cache key
        total = 0.0
        start = np.int64(cuda.blockIdx.x) * threads + np.int64(cuda.threadIdx.x)
        for i in range(start, n, np.int64(cuda.gridDim.x) * threads):
            total += np.float64(load(x, i))
        scratch = cuda.shared.array(warps, np.float64)
        last = cuda.shared.array(1, np.bool_)
        finish(total, 0.0, DENOMINATOR, scratch, last, threads, partial, counter, results, seen)

    return kernel


def make_census(weighted, threads, warps, stamp):
    def kernel(labels, classes, ignored, weight, n, partial, counter, results, seen):
        stamp  # noqa: B018
        total = 0.0
        start = np.int64(cuda.blockIdx.x) * threads + np.int64(cuda.threadIdx.x)
        for i in range(start, n, np.int64(cuda.gridDim.x) * threads):
            y = np.int64(load(labels, i))
            if y != ignored and y >= 0 and y < classes:
                total += np.float64(load(weight, y)) if weighted else 1.0
        scratch = cuda.shared.array(warps, np.float64)
        last = cuda.shared.array(1, np.bool_)
        finish(total, 0.0, DENOMINATOR, scratch, last, threads, partial, counter, results, seen)

    return kernel


@cache
def _total() -> Kernel:
    return build(make_total, "total", {"threads": THREADS, "warps": WARPS}, THREADS)


@cache
def _census(weighted: bool) -> Kernel:
    cells = {"weighted": weighted, "threads": THREADS, "warps": WARPS}
    return build(make_census, "census_of_weights" if weighted else "census", cells, THREADS)


def _blocks(n: int) -> int:
    return min(max(-(-n // THREADS), 1), GRID)


def total(queue: Any, x: Any) -> None:
    """The sum of all elements becomes the denominator among the queue's results."""
    queue.launch(_total(), _blocks(x.size), x, x.size, *queue.summing)


def census(queue: Any, labels: Any, classes: int, ignored: int, weight: Any) -> None:
    """The number of rows that count, or the sum of the weights of their classes, becomes the denominator."""
    queue.launch(
        _census(weight is not None), _blocks(labels.size), labels, classes, ignored, labels if weight is None else weight,
        labels.size, *queue.summing,
    )  # fmt: skip
