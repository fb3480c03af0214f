"""Copies that change the layout or the type, constant fills, and sums over broadcast axes: what is off the fast path."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from ._backend import Kernel, build, cuda, load, store
from ._blocks import GRID, WARP, threads_of
from .bfloat import BFLOAT16, BITS, WIDE_BITS, narrowed, unchanged, widened

THREADS = threads_of(256)


def make_copy(convert, threads, stamp):
    def kernel(source, n1, n2, n3, n, out):
        stamp  # noqa: B018  a closure cell, and so a part of the cache key
        T = out.dtype.type
        start = np.int64(cuda.blockIdx.x) * threads + np.int64(cuda.threadIdx.x)
        for i in range(start, n, np.int64(cuda.gridDim.x) * threads):
            rest = i // n3
            store(out, i, T(convert(source[rest // n2 // n1, rest // n2 % n1, rest % n2, i % n3])))

    return kernel


def make_write(convert, threads, stamp):
    def kernel(source, n1, n2, n3, n, out):
        stamp  # noqa: B018
        T = out.dtype.type
        start = np.int64(cuda.blockIdx.x) * threads + np.int64(cuda.threadIdx.x)
        for i in range(start, n, np.int64(cuda.gridDim.x) * threads):
            rest = i // n3
            out[rest // n2 // n1, rest // n2 % n1, rest % n2, i % n3] = T(convert(load(source, i)))

    return kernel


def make_fill(threads, stamp):
    def kernel(value, n, out):
        stamp  # noqa: B018
        T = out.dtype.type
        start = np.int64(cuda.blockIdx.x) * threads + np.int64(cuda.threadIdx.x)
        for i in range(start, n, np.int64(cuda.gridDim.x) * threads):
            store(out, i, T(value))

    return kernel


def make_sum_rows(threads, stamp):
    def kernel(x, count, n, out):
        stamp  # noqa: B018
        T = out.dtype.type
        start = np.int64(cuda.blockIdx.x) * threads + np.int64(cuda.threadIdx.x)
        for i in range(start, n, np.int64(cuda.gridDim.x) * threads):
            total = 0.0
            for k in range(count):
                total += np.float64(load(x, i * count + k))
            store(out, i, T(total))

    return kernel


@cache
def _kernel(make: Any, threads: int, convert: Any = unchanged) -> Kernel:
    strided = make in (make_copy, make_write)
    cells = {"convert": convert} if strided else {}
    name = make.__name__ if convert is unchanged else f"{make.__name__}_{convert.__name__}"
    return build(make, name, {**cells, "threads": threads}, threads)


def _launch(queue: Any, make: Any, convert: Any, n: int, *args: Any) -> None:
    if n:
        threads = THREADS if n > WARP else WARP
        queue.launch(_kernel(make, threads, convert), min(-(-n // threads), GRID), *args)


def copy(queue: Any, source: Any, shape: tuple[int, ...], out: Any) -> None:
    """All elements of `source`, an array of any strides, to `out`, flat, contiguous and of any type."""
    _strided(queue, make_copy, source, shape, out)


def write(queue: Any, source: Any, out: Any) -> None:
    """The inverse: all elements of `source`, flat and contiguous, to `out`, an array of any strides."""
    _strided(queue, make_write, out, out.shape, source)


def _strided(queue: Any, make: Any, array: Any, shape: tuple[int, ...], flat: Any, convert: Any = unchanged) -> None:
    n = flat.size
    if n == 0:
        return
    if BFLOAT16 in (array.dtype, flat.dtype):  # and the other one is float32
        source = array if make is make_copy else flat
        convert = widened if source.dtype == BFLOAT16 else narrowed
        array, flat = (a.retyped(BITS if a.dtype == BFLOAT16 else WIDE_BITS) for a in (array, flat))
    lengths, strides = _merged(shape, array.strides)
    if len(lengths) > 4:  # slice by slice: layouts like that are rare
        size, rest = n // lengths[0], tuple(lengths[1:])
        for k in range(lengths[0]):
            part = array.view(rest, tuple(strides[1:]), k * strides[0])
            _strided(queue, make, part, rest, flat.view((size,), None, k * size * flat.dtype.itemsize), convert)
        return
    lengths, strides = [1] * (4 - len(lengths)) + lengths, [0] * (4 - len(strides)) + strides
    array = array.view(tuple(lengths), tuple(strides))
    first, last = (array, flat) if make is make_copy else (flat, array)
    _launch(queue, make, convert, n, first, *lengths[1:], n, last)


def _merged(shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[list[int], list[int]]:
    """Fewer axes that run over the same memory in the same order."""
    lengths: list[int] = []
    steps: list[int] = []
    for n, step in zip(shape, strides, strict=True):
        if n == 1:
            continue
        if lengths and steps[-1] == n * step:
            lengths[-1] *= n
            steps[-1] = step
        else:
            lengths.append(n)
            steps.append(step)
    return lengths, steps


def fill(queue: Any, out: Any, value: float) -> None:
    """`value` to every element."""
    _launch(queue, make_fill, unchanged, out.size, np.float64(value), out.size, out)


def sum_rows(queue: Any, x: Any, count: int, out: Any) -> None:
    """Sums of `count` elements at a time, added in float64."""
    _launch(queue, make_sum_rows, unchanged, out.size, x, count, out.size, out)
